"""A DLMS/COSEM electricity meter: over TCP with the wrapper, over HDLC on TCP or on a pseudo terminal, with faults.

Source of the rules: ``shared/specs/iec62056-and-dlms.md`` part B. The wire (``_dlms_wire``) and the objects
(``_dlms_objects``) are the simulator's own; nothing of ``app.protocols.dlms`` is used. Where the specification says
nothing, the choice made stands in a comment beginning with "Choice:".

Three clients are let in: 16 without security (it reads everything and changes nothing), 32 with a password (LLS), and
1 with the keys (HLS with GMAC), whose requests may be ciphered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.errors import ConfigError, LinkError
from app.model.line import MAX_BAUD, MIN_BAUD, LineFormat
from app.simulators import _dlms_wire as wire
from app.simulators._dlms_objects import (
    ASSOCIATION,
    BLOCK_INVALID,
    CLASS_INCONSISTENT,
    DENIED,
    NO_LONG_GET,
    NO_LONG_SET,
    OTHER,
    TYPE_UNMATCHED,
    UNDEFINED,
    CosemObject,
    Meter,
    MeterConfig,
    Refused,
    constant,
)
from app.simulators._http import (
    HOST,
    FaultKind,
    Faults,
    SimClock,
    Struck,
    count,
    fault_help,
    is_seconds,
    one_of,
    read_extra,
    seconds,
)
from app.simulators._life import LineSimulator, Works
from app.simulators._pty import DeviceLine, device_line
from app.simulators.catalog import Announce, SimOptions

PUBLIC_CLIENT, PASSWORD_CLIENT, KEY_CLIENT = 16, 32, 1
FRAMINGS: Final = ("wrapper", "hdlc")
MIN_PDU: Final = 64
INFORMATION: Final = (32, 2030)  # octets of an HDLC frame
KEY_OCTETS: Final = 16
SEALED_OCTETS: Final = 31  # the most that sealing adds: envelope with title, header, tag
MAX_POWER_W: Final = 50_000.0
INACTIVE_S: Final = 120.0  # B1
REQUESTS_KEPT: Final = 1000
# Well known values of a meter that protects nothing; a real one has its own.
TEST_PASSWORD: Final = "00000000"
TEST_ENCRYPTION_KEY: Final = bytes(range(16)).hex()
TEST_AUTHENTICATION_KEY: Final = bytes(range(0xD0, 0xE0)).hex()
NOISE: Final = bytes.fromhex("00FF7EA0037E55")

AARQ, RLRQ, NOTIFICATION, SERVICE_ERROR, EXCEPTION = 0x60, 0x62, 0x0F, 0x0E, 0xD8
GET, SET, ACTION = 0xC0, 0xC1, 0xC3
GET_ANSWER, SET_ANSWER, ACTION_ANSWER = 0xC4, 0xC5, 0xC7
SERVICES: Final[Mapping[int, str]] = {AARQ: "aarq", RLRQ: "release", GET: "get", SET: "set", ACTION: "action"}
GLOBAL: Final[Mapping[int, int]] = {0xC8: GET, 0xC9: SET, 0xCB: ACTION}  # ciphered -> plain
GLOBAL_ANSWERS: Final[Mapping[int, int]] = {GET_ANSWER: 0xCC, SET_ANSWER: 0xCD, ACTION_ANSWER: 0xCF}
GLOBAL_INITIATE, GLOBAL_INITIATE_ANSWER, GENERAL = 0x21, 0x28, 0xDB
NOT_ALLOWED, UNKNOWN_SERVICE = b"\x01\x01", b"\x02\x02"  # of an exception: state and service error
NOT_DECIPHERED, REPLAYED = b"\x01\x05", b"\x02\x06"
INITIATE_REFUSED: Final = bytes((SERVICE_ERROR, 0x01, 0x06, 0x01))
REFUSED, REFUSED_FOR_NOW = 1, 2  # results of an association
NO_REASON, NO_CONTEXT, NO_SUCH_MECHANISM, MECHANISM_NEEDED, AUTHENTICATION_FAILED, PROOF_NEEDED = 1, 2, 11, 12, 13, 14


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= len(text) <= 4 and int(text) > 0


def _is_result(text: str) -> bool:
    return _is_number(text) and int(text) <= 255


def _is_rate(text: str) -> bool:
    return is_seconds(text.removeprefix("-"))


DLMS_FAULTS: Final[Mapping[str, FaultKind]] = {
    # scope: aarq, get, set, action, release; a logical name; of HDLC also snrm, disc, rr
    "silent": FaultKind("the request is not carried out and not answered"),
    "slow": FaultKind("carried out at once, answered this many seconds late", "3", is_seconds),
    "lose-answer": FaultKind("carried out, not answered"),
    "split": FaultKind("written in pieces of this many octets", "1", _is_number),
    "merged": FaultKind("a notification nobody asked for comes before the answer, in the same octets"),
    "duplicate": FaultKind("the octets of the answer come twice"),
    "cut": FaultKind("only the first half of the octets comes"),
    "noise": FaultKind("HDLC: other octets come before the frame"),
    "wrong-fcs": FaultKind("HDLC: the frame check is wrong"),
    "disconnected": FaultKind("HDLC: answered by DM, the connection is given up"),
    "wrong-address": FaultKind("the answer is for another client"),
    "reject-association": FaultKind(
        "refused for good, or for now", "permanent", one_of("permanent", "transient")
    ),
    "refuse-password": FaultKind("a right password, or the proof of the right key, is taken for a wrong one"),
    "no-release": FaultKind("a release is not answered"),
    "bad-release": FaultKind("the answer to a release tells a wrong length"),
    "busy": FaultKind("answered by this result, nothing is carried out", "2", _is_result),
    "exception-response": FaultKind("answered by an exception, nothing is carried out"),
    "service-error": FaultKind("answered by a confirmed service error, nothing is carried out"),
    "wrong-invoke": FaultKind("the answer belongs to another request by its invoke id"),
    "wrong-block": FaultKind("blocks of a long answer are numbered one too high"),
    "drop-connection": FaultKind("the connection is closed in place of block number", "2", _is_number),
    "long-list": FaultKind("the object list has so many more objects", "500", _is_number, lasting=True),
    "null-data": FaultKind("rows of profiles leave out what is as in the row before", lasting=True),
    "inverted-deviation": FaultKind("deviations are local time minus UTC", lasting=True),
    "clock-drift": FaultKind("the clock gains so many seconds a day", "86.4", _is_rate, lasting=True),
}  # fmt: skip
FAULTS: Final[Mapping[str, str]] = fault_help(DLMS_FAULTS)
"""Name -> help of every fault, for ``sim list`` and ``--help``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DlmsConfig:
    """How the meter is reached and what it lets in; ``meter``: what it holds.

    ``framing``: wrapper or hdlc. ``link``: tcp or pty (HDLC only). ``path``: of the pseudo terminal, "" for one that is
    made up. ``speed``: how many times faster than its rate a pseudo terminal is; 0: no waiting. ``max_pdu``: the
    largest it takes and sends. ``max_information``: octets of an HDLC frame it offers both ways. ``logical``,
    ``physical``: its HDLC address; the first is the logical device of the wrapper, too. Keys in hex.
    """

    framing: str = "wrapper"
    link: str = "tcp"
    port: int = 0
    path: str = ""
    speed: float = 0.0
    baud: int = 9600
    logical: int = 1
    physical: int = 17
    max_pdu: int = 1024
    max_information: int = 128
    password: str = field(default=TEST_PASSWORD, repr=False)
    encryption_key: str = field(default=TEST_ENCRYPTION_KEY, repr=False)
    authentication_key: str = field(default=TEST_AUTHENTICATION_KEY, repr=False)
    meter: MeterConfig = field(default_factory=MeterConfig)
    faults: tuple[str, ...] = ()


def keys_of(config: DlmsConfig) -> wire.Keys:
    """The meter's keys and system title. Raises ConfigError, which does not show what was given."""
    keys = {}
    for name in ("encryption_key", "authentication_key"):
        try:
            keys[name] = bytes.fromhex(getattr(config, name))
        except ValueError:
            keys[name] = b""
        if len(keys[name]) != KEY_OCTETS:
            raise ConfigError("This is no key.", key=name, expected=f"{KEY_OCTETS} octets in hex")
    title = f"MWS{config.meter.serial[-5:]:0>5}".encode("ascii")
    return wire.Keys(title, keys["encryption_key"], keys["authentication_key"])


class _Dropped(Exception):
    """The connection is to be closed in place of an answer."""


# ---------------------------------------------------------------------------------------------------------- association


class Association:
    """One client's association: octets of a request in, octets of the answer out.

    ``place``: where the last request went, for faults and for looking at: the service, its logical name.
    ``counters``: the newest counter of each title, shared by all associations.
    """

    def __init__(
        self,
        meter: Meter,
        keys: wire.Keys,
        config: DlmsConfig,
        faults: Faults,
        client: int,
        counters: dict[bytes, int],
    ) -> None:
        self._meter = meter
        self._counters = counters
        self._keys = keys
        self._config = config
        self._faults = faults
        self.client = client
        self.is_open = False
        self.place: tuple[str, ...] = ()
        self._counter = 0  # of what is sealed here
        self._forget()

    def _forget(self) -> None:
        self.is_open = False
        self._needs_proof = False
        self._context = wire.LN
        self._mechanism = wire.NO_MECHANISM
        self._title = b""
        self._challenges = (b"", b"")  # the client's, the meter's
        self._conformance = 0
        self._max_send = self._config.max_pdu
        self._long_answer: list[bytes] = []
        self._block = 0
        self._drop_at = 0  # number of the block that does not come; 0: all come
        self._long_set: tuple[bytes, bytearray] | None = None

    @property
    def _may_write(self) -> bool:
        return self._mechanism != wire.NO_MECHANISM

    def _struck(self, name: str) -> str | None:
        return self._faults.take(name, *self.place)

    # -- one request

    def answer(self, apdu: bytes) -> bytes | None:
        """The answer's octets; None: nothing is said. Raises _Dropped."""
        self.place = (SERVICES.get(apdu[0], "other"),) if apdu else ("other",)
        if apdu and (apdu[0] in GLOBAL or apdu[0] == GENERAL):
            return self._ciphered(apdu)
        return self._open(apdu)

    def _open(self, apdu: bytes) -> bytes | None:
        """The answer to a request in the open; what cannot be read is an exception."""
        try:
            return self._plain(apdu)
        except ValueError:
            return _exception(UNKNOWN_SERVICE)

    def _ciphered(self, apdu: bytes) -> bytes | None:
        """A request that is sealed, by a tag of its own or in the general envelope; the answer goes the same way."""
        if apdu[0] in GLOBAL:
            self.place = (SERVICES[GLOBAL[apdu[0]]],)
        if not self.is_open or self._context != wire.LN_CIPHERED:
            return _exception(NOT_ALLOWED)
        reader = wire.Reader(apdu[1:])
        try:
            if apdu[0] == GENERAL and reader.take(reader.length()) != self._title:
                return _exception(NOT_DECIPHERED)
            plain, control, counter = self._keys.open(self._title, reader.take(reader.length()))
        except ValueError:
            return _exception(NOT_DECIPHERED)
        if not self._counts(self._title, counter):
            return self._replayed(self._title)
        if not plain or (apdu[0] in GLOBAL and plain[0] != GLOBAL[apdu[0]]):
            return _exception(UNKNOWN_SERVICE)
        self.place = (SERVICES.get(plain[0], "other"),)
        answer = self._open(plain)
        if answer is None or answer[0] not in GLOBAL_ANSWERS:
            return answer
        sealed = self._seal(answer, control)
        if apdu[0] == GENERAL:
            return bytes((GENERAL, len(self._keys.title))) + self._keys.title + wire.length_octets(len(sealed)) + sealed
        return _sealed(GLOBAL_ANSWERS[answer[0]], sealed)

    def _replayed(self, title: bytes) -> bytes:
        """The exception that tells the counter which is expected at least."""
        return _exception(REPLAYED + (self._counters[title] + 1).to_bytes(4, "big"))

    def _counts(self, title: bytes, counter: int) -> bool:
        """Whether a counter is newer than all that this title used before; then it is the newest."""
        if counter <= self._counters.get(title, -1):
            return False
        self._counters[title] = counter
        return True

    def _seal(self, plain: bytes, control: int) -> bytes:
        self._counter += 1
        return self._keys.seal(plain, control, self._counter)

    def _plain(self, apdu: bytes) -> bytes | None:
        reader = wire.Reader(apdu)
        tag = reader.octet()
        if tag in (GET, SET, ACTION):
            self._find_place(tag, apdu)
        if self._struck("silent") is not None:
            return None
        if tag == AARQ:
            return self._associate(apdu)
        if tag == RLRQ:
            return self._release()
        if self._struck("exception-response") is not None:
            return _exception(NOT_ALLOWED)
        if self._struck("service-error") is not None:
            return bytes((SERVICE_ERROR, 0x05, 0x05, 0x01))
        if not self.is_open:
            return _exception(NOT_ALLOWED)
        kind, invoke = reader.octet(), reader.octet()
        if self._needs_proof and not (tag == ACTION and ASSOCIATION in self.place):
            return _exception(NOT_ALLOWED)
        busy = self._struck("busy")
        result = None if busy is None else int(busy)
        if self._struck("wrong-invoke") is not None:
            invoke ^= 0x03
        match tag, kind:
            case (0xC0, 1):
                return self._get(reader, invoke, result)
            case (0xC0, 2):
                return self._get_next(reader, invoke)
            case (0xC0, 3):
                return self._get_list(reader, invoke, result)
            case (0xC1, 1):
                return bytes((SET_ANSWER, 1, invoke, self._set(reader, result)))
            case (0xC1, 2 | 3):
                return self._set_block(reader, invoke, result, is_first=kind == 2)
            case (0xC3, 1):
                return self._call(reader, invoke, result)
        return _exception(UNKNOWN_SERVICE)

    def _find_place(self, tag: int, apdu: bytes) -> None:
        if len(apdu) >= 11 and apdu[1] in ((1, 2) if tag == SET else (1,)):
            self.place = (SERVICES[tag], wire.dotted(apdu[5:11]))

    # -- AARQ, release, proof

    def _associate(self, apdu: bytes) -> bytes:
        self._forget()
        asked = wire.Aarq.read(apdu)
        context = asked.context if asked.context in (wire.LN, wire.LN_CIPHERED) else wire.LN
        if (how := self._struck("reject-association")) is not None:
            return wire.Aare(context, REFUSED if how == "permanent" else REFUSED_FOR_NOW, NO_REASON).octets()
        if diagnostic := self._why_not(asked):
            return wire.Aare(context, REFUSED, diagnostic).octets()
        initiate, control, counter = self._initiate(asked)
        conformance = initiate.conformance & int.from_bytes(wire.CONFORMANCE, "big") if initiate else 0
        if initiate is None or not conformance or 0 < initiate.max_pdu < MIN_PDU:
            return wire.Aare(context, REFUSED, NO_REASON, user_information=INITIATE_REFUSED).octets()
        if control and not self._counts(asked.title, counter):
            return self._replayed(asked.title)
        self.is_open = True
        self._context, self._mechanism, self._title = context, asked.mechanism, asked.title
        self._conformance = conformance
        self._max_send = min(initiate.max_pdu or self._config.max_pdu, self._config.max_pdu)
        told = wire.initiate_response(conformance, self._config.max_pdu)
        if control:
            told = _sealed(GLOBAL_INITIATE_ANSWER, self._seal(told, control))
        if asked.mechanism != wire.GMAC:
            return wire.Aare(context, user_information=told).octets()
        self._needs_proof = True
        self._challenges = asked.secret, secrets.token_bytes(16)
        return wire.Aare(context, 0, PROOF_NEEDED, self._keys.title, wire.GMAC, self._challenges[1], told).octets()

    def _why_not(self, asked: wire.Aarq) -> int:
        """The diagnostic of a request that is refused, 0 for one that is not."""
        wanted = {PASSWORD_CLIENT: wire.LLS, KEY_CLIENT: wire.GMAC}.get(self.client, wire.NO_MECHANISM)
        if asked.context not in (wire.LN, wire.LN_CIPHERED):
            return NO_CONTEXT
        if asked.context == wire.LN_CIPHERED and wanted != wire.GMAC:
            return NO_CONTEXT
        if asked.mechanism not in (wire.NO_MECHANISM, wire.LLS, wire.GMAC):
            return NO_SUCH_MECHANISM
        if asked.mechanism != wanted:
            return MECHANISM_NEEDED
        if wanted == wire.GMAC and (len(asked.title) != 8 or not 8 <= len(asked.secret) <= 64):
            return AUTHENTICATION_FAILED
        if wanted == wire.LLS:
            is_right = secrets.compare_digest(asked.secret, self._config.password.encode())
            if not is_right or self._struck("refuse-password") is not None:
                return AUTHENTICATION_FAILED
        return 0

    def _initiate(self, asked: wire.Aarq) -> tuple[wire.Initiate | None, int, int]:
        """What the client proposes, how it is sealed (0: not) and its counter; None when it cannot be read."""
        data, control, counter = asked.user_information, 0, 0
        try:
            if asked.context == wire.LN_CIPHERED:
                reader = wire.Reader(data)
                if reader.octet() != GLOBAL_INITIATE:
                    return None, 0, 0
                data, control, counter = self._keys.open(asked.title, reader.take(reader.length()))
            return wire.Initiate.read(data), control, counter
        except ValueError:
            return None, 0, 0

    def _release(self) -> bytes | None:
        was_open = self.is_open
        self._forget()
        if self._struck("no-release") is not None:
            return None
        if not was_open:
            return _exception(NOT_ALLOWED)
        return bytes.fromhex("630E800100" if self._struck("bad-release") is not None else "6303800100")

    def _prove(self, value: wire.Datum) -> bytes | None:
        """``reply_to_HLS_authentication``."""
        theirs, ours = self._challenges
        is_right = value.tag == wire.OCTETS and self._keys.is_proof(self._title, ours, value.value)
        if not self._needs_proof or not is_right or self._struck("refuse-password") is not None:
            self._forget()
            raise Refused(DENIED)
        self._needs_proof = False
        self._counter += 1
        return wire.octets(self._keys.proof(theirs, self._counter))

    # -- objects

    def _object(self, class_id: int, name: str) -> CosemObject:
        if (class_id, name) == (15, ASSOCIATION):
            return self._itself()
        objects = self._meter.objects
        if (found := objects.get((class_id, name))) is not None:
            return found
        for extra in self._meter.further(self._further):
            if (extra.class_id, extra.name) == (class_id, name):
                return extra
        raise Refused(CLASS_INCONSISTENT if any(name == other for _, other in objects) else UNDEFINED)

    @property
    def _further(self) -> int:
        return int(self._faults.value("long-list") or 0)

    def _itself(self) -> CosemObject:
        conformance = self._conformance.to_bytes(3, "big")
        return CosemObject(
            15,
            ASSOCIATION,
            {
                2: self._list,
                3: constant(
                    wire.structure(wire.number(wire.INT8, self.client), wire.number(wire.UINT16, self._config.logical))
                ),
                4: constant(wire.octets(wire.OID + bytes((8, 1, self._context)))),
                5: constant(
                    wire.structure(
                        wire.bit_string(conformance),
                        wire.number(wire.UINT16, self._config.max_pdu),
                        wire.number(wire.UINT16, self._max_send),
                        wire.number(wire.UINT8, 6),
                        wire.number(wire.INT8, 0),
                        wire.octets(b""),
                    )
                ),
                6: constant(wire.octets(wire.OID + bytes((8, 2, self._mechanism)))),
                8: constant(wire.number(wire.ENUM, 1 if self._needs_proof else 2)),
                9: constant(wire.octets(wire.logical_name("0.0.43.0.0.255"))),
            },
            version=1,
            methods={1: self._prove},
        )

    def _list(self) -> bytes:
        listed = [self._itself(), *self._meter.objects.values(), *self._meter.further(self._further)]
        return wire.array([item.entry(may_write=self._may_write) for item in listed])

    # -- GET

    def _read(self, reader: wire.Reader) -> bytes:
        """The value asked for. Raises Refused."""
        class_id, name, attribute = reader.unsigned(2), wire.dotted(reader.take(6)), reader.octet()
        chosen = (reader.octet(), reader.datum()) if reader.octet() else None
        found = self._object(class_id, name)
        return found.get(attribute) if chosen is None else found.select(attribute, *chosen)

    def _get(self, reader: wire.Reader, invoke: int, result: int | None) -> bytes:
        self._long_answer.clear()
        try:
            if result is not None:
                raise Refused(result)
            value = self._read(reader)
        except Refused as exc:
            return bytes((GET_ANSWER, 1, invoke, 1, exc.result))
        return self._whole_or_block(bytes((GET_ANSWER, 1, invoke, 0)), value, invoke)

    def _get_list(self, reader: wire.Reader, invoke: int, result: int | None) -> bytes:
        self._long_answer.clear()
        found = []
        number = reader.length()
        for _ in range(number):
            try:
                value = self._read(reader)
                if result is not None:
                    raise Refused(result)
                found.append(b"\x00" + value)
            except Refused as exc:
                found.append(bytes((1, exc.result)))
        body = wire.length_octets(number) + b"".join(found)
        return self._whole_or_block(bytes((GET_ANSWER, 3, invoke)), body, invoke)

    @property
    def _room(self) -> int:
        """Octets of a block; a sealed one has its header and tag around it."""
        return self._max_send - 12 - (SEALED_OCTETS if self._context == wire.LN_CIPHERED else 0)

    def _whole_or_block(self, head: bytes, body: bytes, invoke: int) -> bytes:
        if len(head) + len(body) <= self._room + 12:
            return head + body
        if not self._conformance & wire.BLOCK_GET:
            return bytes((GET_ANSWER, 1, invoke, 1, OTHER))
        self._long_answer = [body[at : at + self._room] for at in range(0, len(body), self._room)]
        self._block, self._drop_at = 0, int(self._struck("drop-connection") or 0)
        return self._next_block(invoke)

    def _next_block(self, invoke: int) -> bytes:
        self._block += 1
        if self._block == self._drop_at:
            raise _Dropped
        block = self._long_answer.pop(0)
        told = self._block + (self._struck("wrong-block") is not None)
        head = bytes((GET_ANSWER, 2, invoke, not self._long_answer)) + told.to_bytes(4, "big")
        return head + b"\x00" + wire.length_octets(len(block)) + block

    def _get_next(self, reader: wire.Reader, invoke: int) -> bytes:
        number = reader.unsigned(4)
        if self._long_answer and number == self._block:
            return self._next_block(invoke)
        result = BLOCK_INVALID if self._long_answer else NO_LONG_GET
        self._long_answer.clear()
        return bytes((GET_ANSWER, 2, invoke, 1)) + number.to_bytes(4, "big") + bytes((1, result))

    # -- SET

    def _set(self, reader: wire.Reader, result: int | None) -> int:
        """The result of a SET whose place and value come next."""
        class_id, name, attribute = reader.unsigned(2), wire.dotted(reader.take(6)), reader.octet()
        if reader.octet():
            return OTHER
        value = reader.datum()
        try:
            if result is not None:
                raise Refused(result)
            found = self._object(class_id, name)
            if attribute not in found.setters or not self._may_write:
                raise Refused(DENIED)
            found.setters[attribute](value)
        except Refused as exc:
            return exc.result
        return 0

    def _set_block(self, reader: wire.Reader, invoke: int, result: int | None, *, is_first: bool) -> bytes:
        """Place and first block, or a further one."""
        if is_first:
            place = reader.take(10)
            self._long_set, self._block = (place, bytearray()), 0
        is_last, number = reader.octet(), reader.unsigned(4)
        block = reader.take(reader.length())
        told = number.to_bytes(4, "big")
        if self._long_set is None or not self._conformance & wire.BLOCK_SET:
            return bytes((SET_ANSWER, 3, invoke, NO_LONG_SET)) + told
        place, value = self._long_set
        self.place = ("set", wire.dotted(place[2:8]))
        self._block += 1
        if number != self._block:
            self._long_set = None
            return bytes((SET_ANSWER, 3, invoke, BLOCK_INVALID)) + told
        value += block
        if not is_last:
            return bytes((SET_ANSWER, 2, invoke)) + told
        self._long_set = None
        try:
            outcome = self._set(wire.Reader(place + value), result)
        except ValueError:
            outcome = TYPE_UNMATCHED
        return bytes((SET_ANSWER, 3, invoke, outcome)) + told

    # -- ACTION

    def _call(self, reader: wire.Reader, invoke: int, result: int | None) -> bytes:
        class_id, name, method = reader.unsigned(2), wire.dotted(reader.take(6)), reader.octet()
        value = reader.datum() if reader.octet() else wire.Datum(wire.NULL, None)
        try:
            if result is not None:
                raise Refused(result)
            found = self._object(class_id, name)
            if method not in found.methods or not self._may_write:
                raise Refused(DENIED)
            returned = found.methods[method](value)
        except Refused as exc:
            return bytes((ACTION_ANSWER, 1, invoke, exc.result, 0))
        return bytes((ACTION_ANSWER, 1, invoke, 0)) + (b"\x00" if returned is None else b"\x01\x00" + returned)


def _exception(errors: bytes) -> bytes:
    return bytes((EXCEPTION,)) + errors


def _sealed(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + wire.length_octets(len(data)) + data


# ------------------------------------------------------------------------------------------------------------ simulator


class DlmsMeterSimulator(LineSimulator[DeviceLine]):
    """The meter on its line: ``async with DlmsMeterSimulator(DlmsConfig()) as sim``, then ``sim.url`` is there.

    To look at: ``requests`` (the places of the last 1000 requests: service, logical name), ``request_count``,
    ``damaged`` (HDLC frames with a wrong check), ``meter``. Change these and the faults from the loop that runs the
    simulator. One client at a time has the line.

    Raises:
        ConfigError: a wrong setting, or (on entering) a wrong fault.
        LinkError: (on entering) the line cannot be opened.
    """

    name = "dlms"

    def __init__(self, config: DlmsConfig | None = None, *, clock: SimClock | None = None) -> None:
        self.config = config = config or DlmsConfig()
        if config.framing not in FRAMINGS:
            raise ConfigError("There is no such framing.", key="framing", expected=" or ".join(FRAMINGS))
        if config.framing == "wrapper" and config.link != "tcp":
            raise ConfigError("The wrapper goes over TCP only.", key="link", expected="tcp, or framing=hdlc")
        if not MIN_PDU <= config.max_pdu <= 0xFFFF:
            raise ConfigError("There is no such PDU size.", key="max_pdu", expected=f"{MIN_PDU} to 65535")
        if not INFORMATION[0] <= config.max_information <= INFORMATION[1]:
            raise ConfigError("A frame cannot hold that.", key="max_information", expected="32 to 2030")
        super().__init__(DLMS_FAULTS, config.faults)
        self.clock = clock or SimClock()
        self.meter = Meter(config.meter, self.clock)
        self.requests: deque[tuple[str, ...]] = deque(maxlen=REQUESTS_KEPT)
        self.request_count = 0
        self._keys = keys_of(config)
        self._client_number = 0
        self._associations: dict[int, Association] = {}
        self._counters: dict[bytes, int] = {}
        self._wrapper = wire.WrapperFramer()
        self._hdlc = wire.HdlcFramer()
        self._link = self._new_link()
        self._last_heard = 0.0

    def _new_link(self) -> wire.HdlcLink:
        return wire.HdlcLink(max_send=self.config.max_information, max_receive=self.config.max_information)

    # -- life

    def _opening(self) -> AbstractAsyncContextManager[DeviceLine]:
        config = self.config
        return device_line(
            config.link, LineFormat(config.baud), port=config.port, path=config.path, speed=config.speed
        )  # fmt: skip

    def _works(self) -> Works:
        return {self.config.meter.serial: self._run}

    # -- what tests and the demo ask and do

    @property
    def url(self) -> str:
        """What a client opens: ``socket://127.0.0.1:PORT``, or the path of a pseudo terminal."""
        return self.line.address

    @property
    def damaged(self) -> int:
        return self._hdlc.damaged

    def unplug(self) -> None:
        """Pull the cable."""
        self.line.unplug()

    async def plug(self) -> None:
        """Put it back, at the same address. Raises LinkError."""
        await self.line.plug()
        self.notify()

    def _faults_changed(self) -> None:
        self.meter.set_drift(float(self.faults.value("clock-drift") or 0))
        self.meter.leaves_out = self.faults.value("null-data") is not None
        self.meter.is_deviation_inverted = self.faults.value("inverted-deviation") is not None
        self.notify()

    # -- the line

    async def _run(self) -> None:
        line = self.line
        while True:
            try:
                await self._listen(line)
            except LinkError:  # unplugged
                self._restart()
                await self.wait_until(lambda: line.is_plugged)
            except _Dropped:
                self._restart()
                line.unplug()
                await line.plug()

    def _restart(self) -> None:
        """What the end of a connection ends."""
        self._associations.clear()
        self._wrapper = wire.WrapperFramer()
        self._link = self._new_link()

    async def _listen(self, line: DeviceLine) -> None:
        while True:
            data = await line.read()
            if line.clients != self._client_number:
                self._client_number = line.clients
                if self.config.framing == "wrapper":  # a serial line does not tell who is at its other end
                    self._restart()
            if self.config.framing == "wrapper":
                await self._wrapper_octets(data)
            else:
                await self._hdlc_octets(data)

    def _association(self, client: int) -> Association:
        if client not in self._associations:
            self._associations[client] = Association(
                self.meter, self._keys, self.config, self.faults, client, self._counters
            )
        return self._associations[client]

    async def _answered(self, client: int, apdu: bytes) -> tuple[bytes | None, Struck]:
        """The answer to one request, late where a fault wants it so, and the faults that strike its octets."""
        association = self._association(client)
        answer = association.answer(apdu)
        place = association.place
        self.requests.append(place)
        self.request_count += 1
        self.notify()

        def struck(name: str) -> str | None:
            return self.faults.take(name, *place)

        if answer is not None and (late := struck("slow")) is not None:
            await self.clock.sleep(float(late))
        return answer, struck

    # -- wrapper

    async def _wrapper_octets(self, data: bytes) -> None:
        try:
            for source, destination, apdu in self._wrapper.feed(data):
                if destination == self.config.logical:  # Choice: what is for another device is not answered
                    await self._wrapper_request(source, apdu)
        except ValueError:
            raise _Dropped from None  # Choice: octets that are no wrapper end the connection

    async def _wrapper_request(self, client: int, apdu: bytes) -> None:
        answer, struck = await self._answered(client, apdu)
        if answer is None or struck("lose-answer") is not None:
            return
        receiver = client ^ 0x40 if struck("wrong-address") is not None else client
        octets = wire.wrap(self.config.logical, receiver, answer)
        if struck("merged") is not None:
            octets = wire.wrap(self.config.logical, client, self._notification()) + octets
        await self._write(octets, struck)

    def _notification(self) -> bytes:
        """A data notification with the relay's state."""
        body = wire.structure(wire.octets(self.meter.stamp(self.meter.now)), wire.boolean(self.meter.is_on))
        return bytes((NOTIFICATION,)) + (1).to_bytes(4, "big") + b"\x00" + body

    # -- HDLC

    async def _hdlc_octets(self, data: bytes) -> None:
        for frame in self._hdlc.feed(data):
            if self._is_for_us(frame):
                await self._hdlc_frame(frame)

    def _is_for_us(self, frame: wire.HdlcFrame) -> bool:
        upper, lower = wire.address_value(frame.destination)
        return upper in (self.config.logical, *wire.ALL_STATIONS) and (
            lower is None or lower in (self.config.physical, *wire.ALL_STATIONS)
        )

    async def _hdlc_frame(self, frame: wire.HdlcFrame) -> None:
        if self.clock.elapsed - self._last_heard > INACTIVE_S:
            self._link.is_connected = False
        self._last_heard = self.clock.elapsed
        place = {wire.SNRM: "snrm", wire.DISC: "disc"}.get(frame.control, "rr" if frame.control & 1 else "frame")

        def struck(name: str) -> str | None:
            return self.faults.take(name, place)

        if place != "frame" and struck("silent") is not None:
            return
        if struck("disconnected") is not None:
            self._link.is_connected = False
        turn = self._link.handle(frame)
        if turn.is_reset:
            self._associations.clear()
        if turn.apdu is None:
            if turn.reply:
                await self._write(self._spoilt(turn.reply, struck), struck)
            return
        client = wire.address_value(frame.source)[0]
        answer, struck_there = await self._answered(client, turn.apdu)
        if answer is None:
            self._link.take_back()
            return
        octets = self._spoilt(self._link.send(answer), struck_there)
        if struck_there("lose-answer") is not None:
            return
        if struck_there("merged") is not None:
            octets = self._link.unasked(self._notification()) + octets
        await self._write(octets, struck_there)

    @staticmethod
    def _spoilt(octets: bytes, struck: Struck) -> bytes:
        if struck("wrong-address") is not None:
            found = next(iter(wire.HdlcFramer().feed(octets)))
            octets = replace(found, destination=bytes((found.destination[0] ^ 0x40,))).octets()
        if struck("wrong-fcs") is not None:
            octets = octets[:-3] + bytes((octets[-3] ^ 0x01,)) + octets[-2:]
        if struck("noise") is not None:
            octets = NOISE + octets
        return octets

    # -- octets

    async def _write(self, octets: bytes, struck: Struck) -> None:
        """Write with the faults of the wire. A client that is gone is no error."""
        if struck("cut") is not None:
            octets = octets[: len(octets) // 2]
        if struck("duplicate") is not None:
            octets += octets
        step = int(struck("split") or len(octets))
        for at in range(0, len(octets), step):
            await self.line.write(octets[at : at + step])
            await asyncio.sleep(0)


# --------------------------------------------------------------------------------------------------------- command line


def _choice(*values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(text)
        return text

    return read


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except ZoneInfoNotFoundError as exc:
        raise ValueError(text) from exc
    return text


def _serial(text: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= 13):
        raise ValueError(text)
    return text


def _power(text: str) -> float:
    """Watts that the registers can show. Raises ValueError."""
    value = seconds(text)
    if value > MAX_POWER_W:
        raise ValueError(text)
    return value


def _offset(text: str) -> float:
    """Seconds, also negative. Raises ValueError."""
    return -seconds(text[1:]) if text.startswith("-") else seconds(text)


def _between(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return read


_SETTINGS: Final[Mapping[str, Callable[[str], Any]]] = {
    "framing": _choice(*FRAMINGS),
    "link": _choice("tcp", "pty"),
    "path": str,
    "speed": seconds,
    "baud": _between(MIN_BAUD, MAX_BAUD),
    "logical": _between(1, 0x3FFF),
    "physical": _between(0, 0x3FFF),
    "max_pdu": _between(MIN_PDU, 0xFFFF),
    "max_information": _between(*INFORMATION),
    "password": str,
    "encryption_key": str,
    "authentication_key": str,
}
_METER_SETTINGS: Final[Mapping[str, Callable[[str], Any]]] = {
    "serial": _serial,
    "zone": _zone,
    "clock_offset_s": _offset,
    "profile_days": count,
    "power_w": _power,
}


async def serve(options: SimOptions, announce: Announce) -> None:
    """Run a meter until cancelled; see ``catalog.ServeFunction``.

    Known ``extra`` names: those of ``DlmsConfig`` (framing, link, path, speed, baud, logical, physical, max_pdu,
    max_information, password, encryption_key, authentication_key) and of ``MeterConfig`` (serial, zone, clock_offset_s,
    profile_days, power_w).
    """
    found = read_extra(options.extra, {**_SETTINGS, **_METER_SETTINGS})
    if found.get("link") == "pty":
        found.setdefault("framing", "hdlc")  # the wrapper goes over TCP only
    meter = MeterConfig(**{name: value for name, value in found.items() if name in _METER_SETTINGS})
    config = DlmsConfig(
        port=options.port,
        faults=options.faults,
        meter=meter,
        **{name: value for name, value in found.items() if name in _SETTINGS},
    )
    async with DlmsMeterSimulator(config) as sim:
        announce(
            {
                "sim": sim.name,
                "host": HOST if config.link == "tcp" else "",
                "port": getattr(sim.line, "port", 0),
                "url": sim.url,
                "link": config.link,
                "framing": config.framing,
                "serial": meter.serial,
                "clients": [PUBLIC_CLIENT, PASSWORD_CLIENT, KEY_CLIENT],
            }
        )
        await asyncio.get_running_loop().create_future()
