"""The DLMS client: association, GET, SET, ACTION, release (specs/iec62056-and-dlms.md B3 and B4).

Sans-I/O: every service is an ``Exchange``, a generator that yields the APDU to send and is sent the APDU that came
back, over whichever link (``dlms_link``). What the meter refuses is a ``MeterRefusal``; nonsense is a
RemoteProtocolError, after which the association is of no use any more.

``dlms_cosem`` gives names and ciphers. Its connection object is not used: it writes passwords to the log, sends a
random system title to meters that want none, and its answers have neither blocks of SET nor unknown results.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

from dlms_cosem import enumerations as names

from app.errors import ConfigError, LocalProtocolError, ProtocolError, RemoteProtocolError
from app.protocols import dlms_values as dv
from app.protocols.dlms_objects import ASSOCIATION_LN, ASSOCIATION_NAME, Column
from app.protocols.dlms_security import RESPONSES, Cipher, Mechanism, Protection, digest, read_length
from app.protocols.dlms_values import Value, encode_length

T = TypeVar("T")
Exchange: TypeAlias = Generator[bytes, bytes, T]

MAX_VALUE_OCTETS: Final = 16 << 20  # ours: of one value in blocks
MAX_PDU: Final = 0xFFFF
DLMS_VERSION: Final = 6
CHALLENGE_OCTETS: Final = 16

_AARQ: Final = 0x60
_AARE: Final = 0x61
_RLRQ: Final = 0x62
_GET: Final = 0xC0
_SET: Final = 0xC1
_ACTION: Final = 0xC3
_ANSWER: Final = 4  # a response has the tag of its request and this
_INITIATE_REQUEST: Final = 0x01
_INITIATE_RESPONSE: Final = 0x08
_GLO_INITIATE_RESPONSE: Final = 0x28
_SERVICE_ERROR: Final = 0x0E
_EXCEPTION: Final = 0xD8
_EVENT: Final = 0xC2
_CIPHERED_EVENT: Final = 0xCA
_PUSHED: Final = 0x0F
_CONFIRMED: Final = 0xC0  # of invoke id and priority: high priority, confirmed
_OBJECT_ID: Final = bytes.fromhex("6085740508")
_LOGICAL_NAME: Final = 1  # arcs of the application context
_LOGICAL_NAME_CIPHERED: Final = 3


class Conformance(IntFlag):
    """Services, as the 24 bits of the initiate request and response."""

    GENERAL_PROTECTION = 0x400000
    GENERAL_BLOCK_TRANSFER = 0x200000
    PRIORITY = 0x004000
    GET_BLOCKS = 0x001000
    SET_BLOCKS = 0x000800
    ACTION_BLOCKS = 0x000400
    MULTIPLE_REFERENCES = 0x000200
    DATA_NOTIFICATION = 0x000080
    GET = 0x000010
    SET = 0x000008
    SELECTIVE_ACCESS = 0x000004
    EVENT_NOTIFICATION = 0x000002
    ACTION = 0x000001


PROPOSED: Final = (
    Conformance.GET | Conformance.SET | Conformance.ACTION | Conformance.SELECTIVE_ACCESS | Conformance.GET_BLOCKS
    | Conformance.SET_BLOCKS | Conformance.ACTION_BLOCKS | Conformance.PRIORITY
)  # fmt: skip


class MeterRefusal(ProtocolError):
    """The meter answered, and its answer is no.

    ``code`` is stable (``OBJECT_UNDEFINED``); ``is_password``: it refused who we are, so asking again may lock it;
    ``is_unassociated``: it knows no association and did nothing.
    """

    def __init__(self, code: str, text: str, *, is_password: bool = False, is_unassociated: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_password = is_password
        self.is_unassociated = is_unassociated


@dataclass(frozen=True, slots=True)
class Attribute:
    """What GET and SET name; also a method of ACTION. ``name`` is the logical name, six octets."""

    class_id: int
    name: bytes
    number: int

    def encode(self) -> bytes:
        return self.class_id.to_bytes(2, "big") + self.name + self.number.to_bytes(1, "big", signed=True)

    @property
    def words(self) -> str:
        return f"{self.number} of {dv.shown_octets(self.name)} (class {self.class_id})"


# ---------------------------------------------------------------- selective access


def by_range(column: Column, start: Value, end: Value) -> bytes:
    """Rows whose ``column`` lies between two values, both included; all columns."""
    parameters = Value(dv.STRUCTURE, (column.value(), start, end, Value(dv.ARRAY, ())))
    return b"\x01" + dv.encode(parameters)


def by_entry(first: int, last: int) -> bytes:
    """Rows ``first`` to ``last``, counted from 1; last 0: to the end. All columns."""
    numbers = ((dv.UINT32, first), (dv.UINT32, last), (dv.UINT16, 1), (dv.UINT16, 0))
    return b"\x02" + dv.encode(Value(dv.STRUCTURE, tuple(Value(tag, number) for tag, number in numbers)))


# ---------------------------------------------------------------- what a client is told to be


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How this client presents itself. ``secret``: the password of mechanism 1, the shared secret of 3, 4 and 6."""

    mechanism: Mechanism = Mechanism.NONE
    secret: bytes = field(default=b"", repr=False)
    protection: Protection = Protection.NONE
    cipher: Cipher | None = field(default=None, repr=False)
    title: bytes = b""  # only sent where ciphers or the mechanism need it
    max_pdu: int = MAX_PDU
    conformance: Conformance = PROPOSED
    challenge: bytes = field(default=b"", repr=False)  # random, new for every association

    def check(self) -> None:
        """Raises ConfigError for what cannot work, before anything is sent."""
        if self.mechanism is Mechanism.MANUFACTURER:
            raise ConfigError(
                "Mechanism 2 is the manufacturer's own secret procedure and cannot be carried out here",
                key="authentication",
            )
        if self.mechanism is Mechanism.ECDSA:
            raise ConfigError("Mechanism 7 (ECDSA) is not supported; the library has no suite 1", key="authentication")
        if self.mechanism in (Mechanism.LOW, Mechanism.MD5, Mechanism.SHA1, Mechanism.SHA256) and not self.secret:
            raise ConfigError("is empty, and this authentication needs it", key="password")
        if (self.mechanism is Mechanism.GMAC or self.protection) and self.cipher is None:
            raise ConfigError("is missing, and this authentication or ciphering needs it", key="cipher_key")
        if self.mechanism >= Mechanism.MD5 and len(self.challenge) < 8:
            raise ConfigError("A challenge of at least 8 octets is needed", key="challenge")


@dataclass(frozen=True, slots=True)
class Association:
    """What was agreed."""

    conformance: Conformance
    max_pdu: int  # the longest APDU that the meter takes; 0: no limit
    title: bytes = b""

    @property
    def words(self) -> str:
        services = ", ".join((one.name or "").lower().replace("_", " ") for one in self.conformance)
        return f"The meter takes {self.max_pdu or 'any number of'} octets an APDU and offers: {services or 'nothing'}."


def is_unasked(apdu: bytes) -> bool:
    """An event or data notification: no answer to anything."""
    return apdu[:1] in (bytes((_EVENT,)), bytes((_PUSHED,)), bytes((_CIPHERED_EVENT,)))


class Client:
    """One association, from AARQ to release."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.association: Association | None = None
        self._invoke = 0

    # ---------------------------------------------------------------- association

    def associate(self) -> Exchange[Association]:
        """AARQ, and the passes of high-level authentication.

        Raises:
            MeterRefusal: refused, with the diagnostic by name. ConfigError: cannot be carried out.
        """
        self.association = None
        self._profile.check()
        if self._profile.cipher is not None:
            self._profile.cipher.begin()
        answer = yield self._aarq()
        fields = _aare_fields(answer)
        self._check_accepted(fields, answer)
        association = self._initiated(fields, answer)
        self.association = association
        if self._profile.mechanism >= Mechanism.MD5:
            try:
                yield from self._prove(fields.get(0xAA, b""), association)
            except BaseException:
                self.association = None
                raise
        return association

    def _aarq(self) -> bytes:
        profile = self._profile
        context = _LOGICAL_NAME_CIPHERED if profile.protection else _LOGICAL_NAME
        body = _ber(0xA1, _ber(0x06, _OBJECT_ID + bytes((1, context))))
        if profile.protection or profile.mechanism in (Mechanism.GMAC, Mechanism.SHA256):
            body += _ber(0xA6, _ber(0x04, self._title()))
        if profile.mechanism:
            value = profile.secret if profile.mechanism is Mechanism.LOW else profile.challenge
            body += _ber(0x8A, b"\x07\x80")
            body += _ber(0x8B, _OBJECT_ID + bytes((2, profile.mechanism)))
            body += _ber(0xAC, _ber(0x80, value))
        conformance = profile.conformance
        if profile.protection is Protection.GENERAL:
            conformance |= Conformance.GENERAL_PROTECTION
        initiate = bytes((_INITIATE_REQUEST, 0, 0, 0, DLMS_VERSION, 0x5F, 0x1F, 4, 0))
        initiate += conformance.to_bytes(3, "big") + profile.max_pdu.to_bytes(2, "big")
        if profile.protection and profile.cipher is not None:
            initiate = profile.cipher.protect(initiate, profile.protection)
        return _ber(_AARQ, body + _ber(0xBE, _ber(0x04, initiate)))

    def _title(self) -> bytes:
        return self._profile.cipher.title if self._profile.cipher is not None else self._profile.title

    def _check_accepted(self, fields: Mapping[int, bytes], answer: bytes) -> None:
        result = _integer(fields.get(0xA2, b""))
        if result is None:
            raise RemoteProtocolError("The meter's answer to the association request has no result.", answer)
        source = fields.get(0xA3, b"")
        diagnostic = _integer(source[2:]) or 0
        is_provider = source[:1] == b"\xa2"
        if result == 0:
            arc = fields.get(0xA1, b"")[-1:]
            if arc in (b"\x02", b"\x04"):
                raise MeterRefusal(
                    "CONTEXT_NOT_SUPPORTED", "The meter answers with short names; only logical names are supported."
                )
            return
        kind: type[IntEnum] = (
            names.AcseServiceProviderDiagnostics if is_provider else names.AcseServiceUserDiagnostics
        )  # fmt: skip
        said = _words(kind, diagnostic, "diagnostic")
        how = _words(names.AssociationResult, result, "result")
        is_password = not is_provider and diagnostic == names.AcseServiceUserDiagnostics.AUTHENTICATION_FAILED
        inner = _initiate_error(fields.get(0xBE, b""))
        text = f"The meter refused the association ({how}): {diagnostic} {said}.{inner}"
        if is_password:
            text += " Correct the password or keys of the connection; they are not sent again by themselves."
        raise MeterRefusal("AUTHENTICATION_FAILED" if is_password else _code(kind, diagnostic, "ASSOCIATION_REFUSED"),
                           text, is_password=is_password)  # fmt: skip

    def _initiated(self, fields: Mapping[int, bytes], answer: bytes) -> Association:
        title = _content(fields.get(0xA4, b""))
        cipher = self._profile.cipher
        if cipher is not None and title:
            cipher.peer_title = title
        initiate = _content(fields.get(0xBE, b""))
        if initiate[:1] == bytes((_GLO_INITIATE_RESPONSE,)) or initiate[:1] == b"\xdb":
            if cipher is None:
                raise RemoteProtocolError("The meter ciphers, and this connection has no keys.", answer)
            initiate = cipher.open(initiate)
        _raise_error(initiate)
        at = 3 if initiate[1:2] == b"\x01" else 2  # quality of service
        rest = initiate[at:]
        if initiate[:1] != bytes((_INITIATE_RESPONSE,)) or len(rest) < 1 + 3 + 4 + 2:
            raise RemoteProtocolError("The meter accepted the association without saying what it offers.", answer)
        version, block = rest[0], rest[1:]
        if version != DLMS_VERSION:
            raise MeterRefusal("VERSION", f"The meter speaks DLMS version {version}; only {DLMS_VERSION} is known.")
        at = block.find(b"\x04\x00") + 2  # 5F 1F 04 00, or 5F 04 00 of some meters
        if at < 3 or len(block) < at + 5:
            raise RemoteProtocolError("The conformance block of the meter cannot be read.", answer)
        return Association(
            Conformance(int.from_bytes(block[at : at + 3], "big")), int.from_bytes(block[at + 3 : at + 5], "big"), title
        )

    def _prove(self, answered: bytes, association: Association) -> Exchange[None]:
        """Passes 3 and 4: our proof for the meter's challenge, and its proof for ours."""
        profile = self._profile
        challenge = _content(answered)
        if not challenge:
            raise RemoteProtocolError("The meter wants a proof and sent no challenge.")
        cipher, mechanism = profile.cipher, profile.mechanism
        if mechanism is Mechanism.GMAC and cipher is not None:
            proof = cipher.tag_of(challenge)
        else:
            proof = digest(
                mechanism, profile.secret, challenge, self._title(), association.title, profile.challenge
            )  # fmt: skip
        method = Attribute(ASSOCIATION_LN, ASSOCIATION_NAME, 1)
        try:
            found = yield from self.action(method, Value(dv.OCTET_STRING, proof))
        except MeterRefusal as exc:
            raise MeterRefusal(
                "AUTHENTICATION_FAILED",
                f"The meter refused the proof of who we are: {exc} Correct the password or keys of the connection; "
                "they are not sent again by themselves.",
                is_password=True,
            ) from None
        theirs = found.content if found is not None and found.tag == dv.OCTET_STRING else b""
        if mechanism is Mechanism.GMAC and cipher is not None:
            is_right = cipher.is_tag_of(profile.challenge, theirs)
        else:
            expected = digest(
                mechanism, profile.secret, profile.challenge, association.title, self._title(), challenge
            )  # fmt: skip
            is_right = theirs == expected
        if not is_right:
            raise MeterRefusal(
                "AUTHENTICATION_FAILED",
                "The meter did not prove that it knows the secret: it is another one, or its secret is another one.",
                is_password=True,
            )

    def release(self) -> Exchange[None]:
        """RLRQ. Many meters ignore it or answer wrongly: whatever comes back is taken."""
        self.association = None
        yield bytes((_RLRQ, 3, 0x80, 1, 0))

    # ---------------------------------------------------------------- services

    def get(self, attribute: Attribute, selection: bytes = b"") -> Exchange[Value]:
        """Read an attribute, in blocks where it is long.

        Raises:
            MeterRefusal: the data access result by name. RemoteProtocolError: the answer or the value cannot be read.
        """
        octets = yield from self.get_raw(attribute, selection)
        return dv.decode(octets)

    def get_raw(self, attribute: Attribute, selection: bytes = b"") -> Exchange[bytes]:
        """As ``get``, undecoded."""
        invoke = self._next_invoke()
        access = b"\x01" + selection if selection else b"\0"
        answer = yield from self._ask(bytes((_GET, 1, invoke)) + attribute.encode() + access)
        what = f"read attribute {attribute.words}"
        if answer[1] == 1:
            _check_access(answer[3:4], answer[4:5], what, answer)
            return answer[4:]
        parts = bytearray()
        expected = 1
        while True:
            last, number, part = _block(answer, _GET, what)
            if number != expected:
                raise RemoteProtocolError(f"The meter sent block {number}, not {expected}.", answer)
            parts += part
            if last:
                return bytes(parts)
            if len(parts) > MAX_VALUE_OCTETS:
                raise RemoteProtocolError(f"The value is longer than {MAX_VALUE_OCTETS} octets.")
            answer = yield from self._ask(bytes((_GET, 2, invoke)) + number.to_bytes(4, "big"))
            expected += 1

    def set(self, attribute: Attribute, value: Value) -> Exchange[None]:
        """Write an attribute, in blocks where it does not fit one APDU.

        Raises:
            MeterRefusal: the data access result by name. LocalProtocolError: too long for this meter.
        """
        data = dv.encode(value)
        invoke = self._next_invoke()
        what = f"write attribute {attribute.words}"
        whole = bytes((_SET, 1, invoke)) + attribute.encode() + b"\0" + data
        room = self._room()
        if not room or len(whole) <= room:
            answer = yield from self._ask(whole)
            _check_result(answer, what)
            return
        self._need(Conformance.SET_BLOCKS, f"The value has {len(data)} octets, and the meter takes no blocks.")
        head = bytes((_SET, 2, invoke)) + attribute.encode() + b"\0"
        number, rest = 1, data
        while True:
            size = room - len(head) - 1 - 4 - 5
            if size < 1:
                raise LocalProtocolError(f"The meter takes {room} octets an APDU; nothing can be written in blocks.")
            part, rest = rest[:size], rest[size:]
            block = bytes((not rest,)) + number.to_bytes(4, "big") + encode_length(len(part)) + part
            answer = yield from self._ask(head + block)
            if answer[1] != 2:
                _check_result(answer, what)
                if rest:
                    raise RemoteProtocolError("The meter ended the writing before its last block.", answer)
                return
            if int.from_bytes(answer[3:7], "big") != number or not rest:
                raise RemoteProtocolError(f"The meter acknowledged another block than {number}.", answer)
            head = bytes((_SET, 3, invoke))
            number += 1

    def action(self, method: Attribute, parameter: Value | None = None) -> Exchange[Value | None]:
        """Call a method. Returns what it returned.

        Raises:
            MeterRefusal: the action result, or the result of its data, by name.
        """
        invoke = self._next_invoke()
        data = b"\0" if parameter is None else b"\x01" + dv.encode(parameter)
        whole = bytes((_ACTION, 1, invoke)) + method.encode() + data
        room = self._room()
        if room and len(whole) > room:
            raise LocalProtocolError(f"The parameter makes an APDU of {len(whole)} octets; the meter takes {room}.")
        what = f"call method {method.words}"
        answer = yield from self._ask(whole)
        if answer[1] == 1:
            return _returned(answer[3:], what, answer)
        parts = bytearray()
        expected = 1
        while True:
            last, number, part = _block(answer, _ACTION, what)
            if number != expected:
                raise RemoteProtocolError(f"The meter sent block {number}, not {expected}.", answer)
            parts += part
            if last:
                return _returned(bytes(parts), what, answer)
            if len(parts) > MAX_VALUE_OCTETS:
                raise RemoteProtocolError(f"The value is longer than {MAX_VALUE_OCTETS} octets.")
            answer = yield from self._ask(bytes((_ACTION, 2, invoke)) + number.to_bytes(4, "big"))
            expected += 1

    # ---------------------------------------------------------------- one APDU and its answer

    def _ask(self, request: bytes) -> Exchange[bytes]:
        """Protected as agreed. The answer has at least a tag, a kind and an invoke id, those of the request."""
        if self.association is None:
            raise LocalProtocolError("There is no association; nothing can be asked.")
        cipher, protection = self._profile.cipher, self._profile.protection
        out = request
        if protection and cipher is not None:
            out = cipher.protect(request, protection)
        answer = yield out
        if (answer[:1] == b"\xdb" or (answer and answer[0] in RESPONSES)) and cipher is not None:
            answer = cipher.open(answer)
        self._learn_counter(answer)
        _raise_error(answer)
        if len(answer) < 4 or answer[0] != request[0] + _ANSWER:
            raise RemoteProtocolError(
                f"The meter answered {request[0]:02X} with {answer[:3].hex(' ').upper() or 'nothing'}.", answer
            )
        if answer[2] & 0x0F != request[2] & 0x0F:
            raise RemoteProtocolError(
                f"The meter's answer has invoke id {answer[2] & 15}, not {request[2] & 15}: it belongs to another "
                "request.", answer,
            )  # fmt: skip
        return answer

    def _learn_counter(self, answer: bytes) -> None:
        """An exception may carry the counter that the meter expects at least."""
        cipher = self._profile.cipher
        if cipher is not None and answer[:1] == bytes((_EXCEPTION,)) and answer[2:3] == b"\x06" and len(answer) >= 7:
            cipher.counter = max(cipher.counter, int.from_bytes(answer[3:7], "big"))

    def _next_invoke(self) -> int:
        self._invoke = (self._invoke + 1) % 16
        return _CONFIRMED | self._invoke

    def _room(self) -> int:
        """Octets of a plain APDU that the meter takes; 0: no limit."""
        limit = self.association.max_pdu if self.association is not None else 0
        cipher = self._profile.cipher
        spent = cipher.overhead if self._profile.protection and cipher is not None else 0
        return max(1, limit - spent) if limit else 0

    def _need(self, service: Conformance, sentence: str) -> None:
        if self.association is not None and service not in self.association.conformance:
            raise LocalProtocolError(sentence)


# ---------------------------------------------------------------- reading answers


def _ber(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + encode_length(len(content)) + content


def _content(octets: bytes) -> bytes:
    """What one BER element holds; b"" for nothing."""
    if not octets:
        return b""
    length, at = read_length(octets, 1)
    return octets[at : at + length]


def _integer(octets: bytes) -> int | None:
    content = _content(octets)
    return int.from_bytes(content, "big") if octets[:1] == b"\x02" and content else None


def _aare_fields(answer: bytes) -> dict[int, bytes]:
    """Tag -> content of the association response."""
    _raise_error(answer)
    if answer[:1] != bytes((_AARE,)):
        raise RemoteProtocolError(
            f"The meter answered the association request with {answer[:3].hex(' ').upper() or 'nothing'}.", answer
        )
    length, at = read_length(answer, 1)
    end = at + length
    if end > len(answer):
        raise RemoteProtocolError("The meter's association response is cut off.", answer)
    fields: dict[int, bytes] = {}
    while at < end:
        tag = answer[at]
        length, at = read_length(answer, at + 1)
        if at + length > end:
            raise RemoteProtocolError("A field of the meter's association response is cut off.", answer)
        fields[tag] = answer[at : at + length]
        at += length
    return fields


def _block(answer: bytes, service: int, what: str) -> tuple[bool, int, bytes]:
    """Last, number and raw octets of a block of GET or ACTION."""
    if answer[1] != 2 or len(answer) < 9:
        raise RemoteProtocolError(f"The meter's answer of kind {answer[1]} is not one of a block.", answer)
    at = 8
    if service == _GET:
        _check_access(answer[8:9], answer[9:10], what, answer)
        at = 9
    length, at = read_length(answer, at)
    if at + length != len(answer):
        raise RemoteProtocolError(f"A block should have {length} octets and has {len(answer) - at}.", answer)
    return answer[3] != 0, int.from_bytes(answer[4:8], "big"), answer[at:]


def _check_access(choice: bytes, result: bytes, what: str, answer: bytes) -> None:
    """``choice`` 00: data follows, 01: ``result`` says why not."""
    if choice == b"\x01" and result:
        raise _denied(result[0], what)
    if choice != b"\0":
        raise RemoteProtocolError("The meter's answer is neither data nor a result.", answer)


def _check_result(answer: bytes, what: str) -> None:
    """A SET response, also that of the last block."""
    if answer[1] not in (1, 3):
        raise RemoteProtocolError(f"The meter answered the writing with kind {answer[1]}.", answer)
    if answer[3] != 0:
        raise _denied(answer[3], what)


def _denied(result: int, what: str) -> MeterRefusal:
    said = _words(names.DataAccessResult, result, "data access result")
    return MeterRefusal(
        _code(names.DataAccessResult, result, "ACCESS_RESULT"), f"The meter did not {what}: {result} {said}."
    )


def _returned(octets: bytes, what: str, answer: bytes) -> Value | None:
    """Action result and optional data."""
    result, has_data = octets[0], octets[1:2]
    if result != 0:
        said = _words(names.ActionResultStatus, result, "action result")
        code = _code(names.ActionResultStatus, result, "ACTION_RESULT")
        raise MeterRefusal(code, f"The meter did not {what}: {result} {said}.")
    if has_data != b"\x01":
        return None
    _check_access(octets[2:3], octets[3:4], what, answer)
    return dv.decode(octets[3:])


_ERROR_KINDS: Final[Mapping[int, type[IntEnum]]] = MappingProxyType(
    {
        0: names.ApplicationReferenceError, 1: names.HardwareResourceError, 2: names.VdeStateError,
        3: names.ServiceError, 4: names.DefinitionError, 5: names.AccessError, 6: names.InitiateError,
        7: names.LoadDataError, 8: names.DataScopeError, 9: names.TaskError, 10: names.OtherError,
    }
)  # fmt: skip


def _raise_error(apdu: bytes) -> None:
    """An exception response and a confirmed service error, by name."""
    if apdu[:1] == bytes((_EXCEPTION,)):
        number = apdu[1] if len(apdu) > 1 else 0
        state = _words(names.StateException, number, "state")
        service = apdu[2] if len(apdu) > 2 else 0
        said = _words(names.ServiceException, service, "service error")
        more = ""
        if service == names.ServiceException.INVOCATION_COUNTER_ERROR and len(apdu) >= 7:
            wanted = int.from_bytes(apdu[3:7], "big")
            more = f" It expects at least {wanted}, which is used from now on; send the command again."
        code = _code(names.ServiceException, service, "EXCEPTION")
        raise MeterRefusal(
            code, f"The meter reports an exception: {state}, {said}.{more}",
            is_unassociated=number == names.StateException.SERVICE_NOT_ALLOWED,
        )  # fmt: skip
    if apdu[:1] == bytes((_SERVICE_ERROR,)):
        raise MeterRefusal("SERVICE_ERROR", f"The meter reports an error of the service: {_service_error(apdu[2:4])}.")


def _service_error(octets: bytes) -> str:
    if len(octets) < 2:
        return "it does not say which"
    kind = _ERROR_KINDS.get(octets[0])
    if kind is None:
        return f"{octets[0]}/{octets[1]}"
    title = "".join(f" {c.lower()}" if c.isupper() else c for c in kind.__name__).strip()
    return f"{title}, {_words(kind, octets[1], 'value')}"


def _initiate_error(field_be: bytes) -> str:
    """Of a refused association, where the user information says more."""
    content = _content(field_be)
    if content[:1] != bytes((_SERVICE_ERROR,)):
        return ""
    return f" Its {_service_error(content[2:4])}."


def _words(kind: type[IntEnum], value: int, what: str) -> str:
    known = next((one for one in kind if int(one) == value), None)
    return f"unknown {what} {value}" if known is None else known.name.replace("_", " ").lower()


def _code(kind: type[IntEnum], value: int, otherwise: str) -> str:
    known = next((one for one in kind if int(one) == value), None)
    return otherwise if known is None else known.name
