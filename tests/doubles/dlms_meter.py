"""A scripted DLMS meter, APDU in and APDU out, and its end of a line; for tests of our own client only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from app.protocols import dlms_values as dv
from app.protocols import hdlc
from app.protocols.dlms_security import Cipher, Mechanism, Protection, digest
from app.protocols.dlms_values import Value, encode_length
from app.protocols.dlms_wrapper import Decoder, Garbage, Message
from app.protocols.obis import parse
from app.transports.memory_line import MemoryLine

CHALLENGE = bytes(range(0x40, 0x50))
TITLE = b"MTR\x00\x00\x00\x00\x01"
Key = tuple[int, str, int]


def name(obis: str) -> str:
    """The logical name in hex."""
    return parse(obis).logical_name.hex()


@dataclass
class ScriptedMeter:
    """``values`` by class, OBIS and attribute; an int is a data access result. What it heard stands in ``heard``."""

    values: dict[Key, Value | int | Callable[[bytes], Value | int]] = field(default_factory=dict)
    methods: dict[Key, Callable[[Value | None], Value | int | None]] = field(default_factory=dict)
    mechanism: Mechanism = Mechanism.NONE
    secret: bytes = b""
    max_pdu: int = 0xFFFF
    block: int = 0  # octets of a block; 0: everything at once
    conformance: int = 0x001C1D
    cipher: Cipher | None = None
    protection: Protection = Protection.NONE
    heard: list[bytes] = field(default_factory=list)
    associations: int = 0
    is_associated: bool = False
    before: Callable[[bytes], bytes | None] = lambda _apdu: None  # an answer out of line
    _rest: bytes = b""
    _number: int = 0
    _written: bytearray = field(default_factory=bytearray)
    _target: Key = (0, "", 0)
    _challenge: bytes = b""
    _invoke: int = 0

    def put(self, class_id: int, obis: str, attribute: int, value: Value | int) -> None:
        self.values[class_id, name(obis), attribute] = value

    def answer(self, apdu: bytes) -> bytes:
        """b"" for silence."""
        if (scripted := self.before(apdu)) is not None:
            return scripted
        was_ciphered = self.cipher is not None and apdu[0] in (0xC8, 0xC9, 0xCB, 0xDB)
        if was_ciphered and self.cipher is not None:
            apdu = self.cipher.open(apdu)
        self.heard.append(apdu)
        out = self._plain(apdu)
        if was_ciphered and self.cipher is not None and out:
            out = self._protected(out)
        return out

    def _protected(self, apdu: bytes) -> bytes:
        """As ``Cipher.protect``, with the tags of answers."""
        assert self.cipher is not None
        envelope = self.cipher.protect(apdu, Protection.GENERAL)
        if self.protection is Protection.GENERAL:
            return envelope
        tag = {0xC4: 0xCC, 0xC5: 0xCD, 0xC7: 0xCF, 0x08: 0x28}[apdu[0]]
        return bytes((tag,)) + envelope[10:]

    def _plain(self, apdu: bytes) -> bytes:
        match apdu[0]:
            case 0x60:
                return self._associate(apdu)
            case 0x62:
                self.is_associated = False
                return bytes.fromhex("6303800100")
            case _ if not self.is_associated:
                return b"\xd8\x01\x01"
            case 0xC0:
                return self._get(apdu)
            case 0xC1:
                return self._set(apdu)
            case 0xC3:
                return self._action(apdu)
            case _:
                return b"\xd8\x01\x02"

    def _associate(self, apdu: bytes) -> bytes:
        self.associations += 1
        self.is_associated = False
        fields = {}
        at = 2
        while at < len(apdu):
            fields[apdu[at]] = apdu[at + 2 : at + 2 + apdu[at + 1]]
            at += 2 + apdu[at + 1]
        mechanism = fields.get(0x8B, b"\0")[-1]
        value = fields.get(0xAC, b"\x80\0")[2:]
        initiate = fields[0xBE][2:]
        result, diagnostic = 0, 0
        if mechanism != self.mechanism:
            result, diagnostic = 1, 12 if not mechanism else 11
        elif self.mechanism is Mechanism.LOW and value != self.secret:
            result, diagnostic = 1, 13
        elif self.mechanism >= Mechanism.MD5:
            diagnostic = 14
            self._challenge = value
        if self.cipher is not None and 0xA6 in fields:
            self.cipher.begin()
            self.cipher.peer_title = fields[0xA6][2:]
            if initiate[0] == 0x21:
                initiate = self.cipher.open(initiate)
        self.is_associated = result == 0
        context = fields[0xA1]
        body = b"\xa1\x09" + context
        body += bytes((0xA2, 3, 2, 1, result, 0xA3, 5, 0xA1, 3, 2, 1, diagnostic))
        if 0xA6 in fields:
            body += b"\xa4\x0a\x04\x08" + TITLE
        if diagnostic == 14:
            body += b"\x88\x02\x07\x80\x89\x07" + bytes.fromhex("60857405080205")[:-1] + bytes((mechanism,))
            body += bytes((0xAA, len(CHALLENGE) + 2, 0x80, len(CHALLENGE))) + CHALLENGE
        if result == 0:
            response = b"\x08\x00\x06\x5f\x1f\x04\x00" + self.conformance.to_bytes(3, "big")
            response += self.max_pdu.to_bytes(2, "big") + b"\x00\x07"
            if fields[0xBE][2] == 0x21:
                response = self._protected(response)
            body += bytes((0xBE, len(response) + 2, 4, len(response))) + response
        return b"\x61" + encode_length(len(body)) + body

    def _get(self, apdu: bytes) -> bytes:
        self._invoke = apdu[2]
        if apdu[1] == 2:
            return self._next_block()
        key = (int.from_bytes(apdu[3:5], "big"), apdu[5:11].hex(), apdu[11])
        found = self.values.get(key, 4)
        value = found(apdu[12:]) if callable(found) else found
        if isinstance(value, int):
            return bytes((0xC4, 1, apdu[2], 1, value))
        data = dv.encode(value)
        if not self.block or len(data) <= self.block:
            return bytes((0xC4, 1, apdu[2], 0)) + data
        self._rest, self._number = data, 0
        return self._next_block()

    def _next_block(self) -> bytes:
        part, self._rest = self._rest[: self.block], self._rest[self.block :]
        self._number += 1
        head = bytes((0xC4, 2, self._invoke, not self._rest)) + self._number.to_bytes(4, "big") + b"\0"
        return head + encode_length(len(part)) + part

    def _set(self, apdu: bytes) -> bytes:
        kind, invoke = apdu[1], apdu[2]
        if kind in (1, 2):
            self._target = (int.from_bytes(apdu[3:5], "big"), apdu[5:11].hex(), apdu[11])
            self._written.clear()
        if kind == 1:
            return bytes((0xC5, 1, invoke, self._store(apdu[13:])))
        at = 13 if kind == 2 else 3
        last, number = apdu[at], apdu[at + 1 : at + 5]
        self._written += apdu[at + (7 if apdu[at + 5] >= 0x80 else 6) :]
        if not last:
            return bytes((0xC5, 2, invoke)) + number
        return bytes((0xC5, 3, invoke, self._store(bytes(self._written)))) + number

    def _store(self, data: bytes) -> int:
        present = self.values.get(self._target, 4)
        if isinstance(present, int):
            return present
        self.values[self._target] = dv.decode(data)
        return 0

    def _action(self, apdu: bytes) -> bytes:
        key = (int.from_bytes(apdu[3:5], "big"), apdu[5:11].hex(), apdu[11])
        parameter = dv.decode(apdu[13:]) if apdu[12] else None
        if key == (15, name("0-0:40.0.0.255"), 1):
            return self._proof(apdu[2], parameter)
        found = self.methods.get(key)
        result = found(parameter) if found is not None else 4
        if isinstance(result, int):
            return bytes((0xC7, 1, apdu[2], result, 0))
        return bytes((0xC7, 1, apdu[2], 0)) + (b"\0" if result is None else b"\x01\0" + dv.encode(result))

    def _proof(self, invoke: int, given: Value | None) -> bytes:
        theirs = given.content if given is not None else b""
        if self.mechanism is Mechanism.GMAC:
            assert self.cipher is not None
            is_right = self.cipher.is_tag_of(CHALLENGE, theirs)
            proof = self.cipher.tag_of(self._challenge)
        else:
            peer = self.cipher.peer_title if self.cipher is not None else b""
            title = self.cipher.title if self.cipher is not None else b""
            is_right = theirs == digest(self.mechanism, self.secret, CHALLENGE, peer, title, self._challenge)
            proof = digest(self.mechanism, self.secret, self._challenge, title, peer, CHALLENGE)
        if not is_right:
            self.is_associated = False
            return bytes((0xC7, 1, invoke, 3, 0))
        return bytes((0xC7, 1, invoke, 0, 1, 0)) + dv.encode(Value(dv.OCTET_STRING, proof))


@dataclass
class MeterEnd:
    """The meter's end of a line: HDLC (server 1/17) or the wrapper (server 1). ``is_silent``: it hears nothing."""

    meter: ScriptedMeter
    line: MemoryLine
    server: bytes = b"\x02\x23"
    framing: str = "hdlc"
    size: int = 128
    is_silent: bool = False
    is_connected: bool = False
    frames: list[str] = field(default_factory=list)
    drop: int = 0  # answers that get lost
    wait_s: float = 0.0
    prelude: Callable[[MemoryLine], Awaitable[None]] | None = None  # before the first frame
    _hdlc: hdlc.Decoder = field(default_factory=hdlc.Decoder)
    _wrapper: Decoder = field(default_factory=Decoder)
    _vs: int = 0
    _vr: int = 0
    _apdu: bytes = b""
    _rest: bytes = b""
    _last: bytes = b""

    async def run(self) -> None:
        """Until the line is gone (LinkError) or the task is cancelled."""
        await asyncio.sleep(0)  # the test may still arrange things
        if self.prelude is not None:
            await self.prelude(self.line)
        while True:
            data = await self.line.read()
            if self.is_silent:
                continue
            out = b"".join(self._hear(data))
            if out:
                await asyncio.sleep(self.wait_s)
                if self.drop:
                    self.drop -= 1
                    continue
                await self.line.write(out)

    def _hear(self, data: bytes) -> list[bytes]:
        if self.framing == "hdlc":
            return [self._frame(cut.frame) for cut in self._hdlc.feed(data) if isinstance(cut, hdlc.Cut)]
        out = []
        for message in self._wrapper.feed(data):
            if isinstance(message, Garbage):
                continue
            self.frames.append("APDU")
            answer = self.meter.answer(message.apdu)
            if answer:
                out.append(Message(message.destination, message.source, answer).encode())
        return out

    def _send(
        self, frame: hdlc.Frame, control: int, information: bytes | None = None, segmented: bool = False
    ) -> bytes:
        return hdlc.Frame(frame.source, frame.destination, control | 0x10, information, segmented).encode()

    def _frame(self, frame: hdlc.Frame) -> bytes:
        if frame.destination != self.server:
            return b""
        self.frames.append(frame.name)
        if frame.kind == hdlc.SNRM:
            self._vs = self._vr = 0
            self._apdu = self._rest = b""
            self.is_connected = True
            self.meter.is_associated = False
            return self._send(frame, hdlc.UA, hdlc.Parameters(self.size, self.size).encode())
        if not self.is_connected:
            return self._send(frame, hdlc.DM)
        if frame.kind == hdlc.DISC:
            self.is_connected = False
            return self._send(frame, hdlc.UA)
        if frame.kind == 0:
            if frame.send_number != self._vr:
                return self._last  # a repetition
            self._vr = (self._vr + 1) % 8
            self._apdu += frame.information or b""
            if frame.is_segmented:
                return self._send(frame, self._vr << 5 | 1)
            request, self._apdu = self._apdu[3:], b""
            answer = self.meter.answer(request)
            if not answer:
                return b""
            self._rest = hdlc.LLC_RESPONSE + answer
        if not self._rest:
            return b""
        part, self._rest = self._rest[: self.size], self._rest[self.size :]
        control = self._vr << 5 | self._vs << 1
        self._vs = (self._vs + 1) % 8
        self._last = self._send(frame, control, part, bool(self._rest))
        return self._last
