"""Run vectors of protocol ``quecpython-rfc1662`` against framer and bodies (specs/quecpython-rfc1662.md section 11).

Frames are compared as a whole and in order. Every ``decode`` vector runs as its chunks say, as one chunk, octet by
octet and cut in two at each position; all must give the same. Where errors are strict, their words and what they say
of length and FCS are compared in order, "noise" left out; ``bytes`` is informative, as is ``reference``. A ``build`` or
``reply`` whose ``frame_hex`` is null must be refused.
"""

from __future__ import annotations

import binascii
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from app.errors import ParameterError
from app.protocols import quecpython, rfc1662
from app.protocols.conformance import Report, same_value, type_name
from app.protocols.conformance_kinds import Format, Kind, Malformed, check_kinds, cuts, members
from app.protocols.crc16 import fcs
from app.protocols.rfc1662 import ErrorKind, Event, Frame, FrameError, Profile

PROTOCOL: Final = "quecpython-rfc1662"
FORMAT: Final = "rfc1662-vectors/1"
MAX_CUT_OCTETS: Final = 1 << 24  # fed for all cuts of a stream; a long one is cut at fewer places, evenly spread
_MANY: Final = 1 << 31
_ID: Final = re.compile(r"0x(?:[0-9A-F]{2}){1,4}")


def check(document: Any) -> Report:
    """Check every vector of ``document`` (the parsed JSON file); see ``conformance.run``.

    A vector that cannot be understood is a failure. Raises nothing.
    """
    return check_kinds(document, _FORMAT)


# ---------------------------------------------------------------- reading members


def _octets(given: Any, name: str) -> bytes:
    try:
        if isinstance(given, str) and given == given.lower():
            return binascii.unhexlify(given)
    except ValueError:
        pass
    raise Malformed(f"{name} must be a text of lower case hex digit pairs")


def _number(given: Any, name: str, most: int) -> int:
    """A JSON number, or an id as text, as wide as ``most``."""
    if isinstance(given, str) and _ID.fullmatch(given) and len(given) == len(f"0x{most:X}"):
        given = int(given, 16)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= most:
        return given
    raise Malformed(f"{name} must be a number from 0 to {most}, or such a number as 0x..")


def _id(given: Any, name: str, most: int) -> int:
    if not isinstance(given, str):
        raise Malformed(f"{name} must be a text like 0x2100")
    return _number(given, name, most)


def _truth(given: Any, name: str) -> bool:
    if isinstance(given, bool):
        return given
    raise Malformed(f"{name} must be true or false")


def _profile(vector: Mapping[str, Any]) -> Profile:
    name = vector["profile"]
    if not isinstance(name, str) or name not in rfc1662.PROFILES:
        raise Malformed(f"the profile {reprlib.repr(name)} is not known; there are {', '.join(rfc1662.PROFILES)}")
    maps = [_id(vector.get(key, "0x00000000"), key, 0xFFFFFFFF) for key in ("tx_accm", "rx_accm")]
    return replace(rfc1662.PROFILES[name], accm_tx=maps[0], accm_rx=maps[1])


# ---------------------------------------------------------------- fcs and frames


def _check_fcs(vector: Mapping[str, Any]) -> Iterator[str]:
    found = fcs(_octets(vector["data_hex"], "data_hex"))
    expected = _id(vector["fcs"], "fcs", 0xFFFF)
    if found != expected:
        yield f"the FCS is 0x{found:04X}, expected 0x{expected:04X}"
    for profile in rfc1662.PROFILES.values():
        if (name := f"wire_{profile.name}") in vector:
            yield from _same(_octets(vector[name], name), rfc1662.fcs_octets(found, profile.fcs_order), name)


def _same(expected: bytes, found: bytes, name: str) -> Iterator[str]:
    if expected != found:
        yield f"{name} is {reprlib.repr(found.hex())}, expected {reprlib.repr(expected.hex())}"


def _check_stuffed(vector: Mapping[str, Any]) -> Iterator[str]:
    profile = _profile(vector)
    content = _octets(vector["content_hex"], "content_hex")
    frame = _octets(vector["frame_hex"], "frame_hex")
    yield from _same(frame, rfc1662.encode_content(content, profile), "frame_hex")
    decoder = rfc1662.Decoder(profile)
    events = [event for event in decoder.feed(frame) if isinstance(event, Frame)]
    is_frame = len(content) > 6 and content.startswith(rfc1662.HEADER)
    if is_frame and int.from_bytes(content[4:6], "big") == len(content) - 6:
        found = [rfc1662.HEADER + bytes(event[:2]) + content[4:6] + bytes(event[2:3]) + event.body for event in events]
        if found != [content]:
            yield "the frame read back is another one"


def _check_build(vector: Mapping[str, Any]) -> Iterator[str]:
    operation = vector["op"]
    if operation == "tcp_to_meter_packet":
        args = members(vector["args"], frozenset({"data_hex"}), frozenset(), "args")
        data = _octets(args["data_hex"], "args.data_hex")
        yield from _check_made(vector, lambda: quecpython.tcp_to_meter_packet(data))
    elif operation == "module_to_meter_packet":
        args = members(vector["args"], frozenset({"mode", "param_id"}), frozenset({"data_hex"}), "args")
        mode, pid = _number(args["mode"], "args.mode", 0xFF), _number(args["param_id"], "args.param_id", 0xFFFF)
        given = args.get("data_hex")
        block = None if given is None else _octets(given, "args.data_hex")
        yield from _check_made(vector, lambda: quecpython.module_to_meter_packet(mode, pid, block))
    else:
        raise Malformed(f"the operation {reprlib.repr(operation)} is not known for build")


def _check_made(vector: Mapping[str, Any], make: Callable[[], Frame]) -> Iterator[str]:
    profile = _profile(vector)
    given = vector["frame_hex"]
    expected = None if given is None else _octets(given, "frame_hex")
    try:
        frame = rfc1662.encode_frame(make(), profile)
    except ParameterError as refusal:
        if expected is not None:
            yield f"it is refused: {refusal}"
        return
    if expected is None:
        yield f"frame_hex is {reprlib.repr(frame.hex())}, expected a refusal"
    else:
        yield from _same(expected, frame, "frame_hex")


def _check_reply(vector: Mapping[str, Any]) -> Iterator[str]:
    if vector.get("reference_frame_hex") is not None:
        _octets(vector["reference_frame_hex"], "reference_frame_hex")
    events = rfc1662.Decoder(_profile(vector)).feed(_octets(vector["request_frame_hex"], "request_frame_hex"))
    if len(events) != 1 or not isinstance(events[0], Frame):
        raise Malformed("request_frame_hex is not one good frame")
    request = quecpython.decode(events[0])
    operation = vector["op"]
    if operation == "replay_get":
        args = members(vector["args"], frozenset(), frozenset({"t", "d", "success"}), "args")
        success = _truth(args.get("success", True), "args.success")
        if success and "d" not in args:
            raise Malformed("args has no d")
        tag = None if args.get("t") is None else _number(args["t"], "args.t", 0xFF)
        data = _value(args.get("d"))
        yield from _check_made(vector, lambda: quecpython.replay_get(request, tag, data, success=success))
    elif operation == "replay_set":
        args = members(vector["args"], frozenset(), frozenset({"success"}), "args")
        done = _truth(args.get("success", True), "args.success")
        yield from _check_made(vector, lambda: quecpython.replay_set(request, done))
    elif operation == "reply_event":
        members(vector["args"], frozenset(), frozenset(), "args")
        yield from _check_made(vector, lambda: quecpython.reply_event(request))
    else:
        raise Malformed(f"the operation {reprlib.repr(operation)} is not known for reply")


def _value(given: Any) -> int | bytes:
    """A number, or octets in hex."""
    if given is None:
        return b""
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    return _octets(given, "args.d")


# ---------------------------------------------------------------- decode


def _check_decode(vector: Mapping[str, Any]) -> Iterator[str]:
    chunks = vector["chunks"]
    if not isinstance(chunks, list) or not chunks:
        raise Malformed("chunks must be a list with at least one text")
    if not isinstance(vector["expect"], list):
        raise Malformed(f"expect must be a list, not {type_name(vector['expect'])}")
    pieces = [_octets(chunk, f"chunks[{place}]") for place, chunk in enumerate(chunks)]
    profile = _profile(vector)
    is_flushed = _truth(vector["flush_at_end"], "flush_at_end")
    is_strict = _truth(vector["strict_errors"], "strict_errors")
    expected = [_expectation(entry, place) for place, entry in enumerate(vector["expect"])]
    events = _received(pieces, profile, is_flushed)
    yield from _compare_frames([one for one in expected if "frame" in one], events)
    yield from _compare_errors([one for one in expected if "error" in one], events, is_strict)
    whole = b"".join(pieces)
    for how, others in _other_ways(whole):
        if _received(others, profile, is_flushed) != events:
            yield f"{how} the events are others"


def _other_ways(whole: bytes) -> Iterator[tuple[str, Sequence[bytes]]]:
    yield "in one chunk", [whole]
    yield "octet by octet", [whole[at : at + 1] for at in range(len(whole))]
    for at in cuts(whole, MAX_CUT_OCTETS):
        yield f"cut at octet {at}", [whole[:at], whole[at:]]


def _received(pieces: Sequence[bytes], profile: Profile, is_flushed: bool) -> list[Event]:
    decoder = rfc1662.Decoder(profile)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.flush() if is_flushed else events


def _expectation(entry: Any, place: int) -> Mapping[str, Any]:
    what = f"expect[{place}]"
    if isinstance(entry, Mapping) and "frame" in entry:
        members(entry, frozenset({"frame"}), frozenset(), what)
        required = frozenset({"link", "protocol", "cmd", "body_hex"})
        frame = members(entry["frame"], required, frozenset({"decoded"}), f"{what}.frame")
        if "decoded" in frame and not isinstance(frame["decoded"], Mapping):
            raise Malformed(f"{what}.frame.decoded must be an object, not {type_name(frame['decoded'])}")
        return entry
    error = members(entry, frozenset({"error"}), frozenset({"bytes", *_DETAILS}), what)
    if error["error"] not in tuple(ErrorKind):
        known = ", ".join(ErrorKind)
        raise Malformed(f"the error {reprlib.repr(error['error'])} of {what} is not known; there are {known}")
    if "bytes" in error:
        _number(error["bytes"], f"{what}.bytes", _MANY)
    return error


def _compare_frames(expected: Sequence[Mapping[str, Any]], events: Sequence[Event]) -> Iterator[str]:
    frames = [event for event in events if isinstance(event, Frame)]
    if len(frames) != len(expected):
        yield f"there are {len(frames)} frames, expected {len(expected)}"
    for number, (entry, frame) in enumerate(zip(expected, frames, strict=False), 1):
        wanted = entry["frame"]
        found: dict[str, Any] = {
            "link": frame.link,
            "protocol": f"0x{frame.protocol:04X}",
            "cmd": f"0x{frame.command:02X}",
            "body_hex": frame.body.hex(),
        }
        for name, value in found.items():
            if not same_value(wanted[name], value):
                yield f"{name} of frame {number} is {reprlib.repr(value)}, expected {reprlib.repr(wanted[name])}"
        if "decoded" in wanted:
            yield from _compare_decoded(wanted["decoded"], quecpython.decode(frame), number)


def _compare_decoded(expected: Mapping[str, Any], message: quecpython.Message, number: int) -> Iterator[str]:
    """Both ways; only what a person would call commentary may be left out: a text besides its octets, a status."""
    found = quecpython.form(message.body)
    if isinstance(expected.get("status"), str):  # a constant may stand as number or as 0x..
        expected = {**expected, "status": _number(expected["status"], "decoded.status", 0xFF)}
    for name in {**expected, **found}:
        if name not in found:
            yield f"there is no decoded.{str(name)[:40]} of frame {number}, expected {reprlib.repr(expected[name])}"
        elif name not in expected:
            if not (name == "status" or (name == "value" and not isinstance(found[name], int))):
                yield f"decoded.{name} of frame {number} is {reprlib.repr(found[name])}, which is not expected"
        elif not same_value(expected[name], found[name]):
            yield (
                f"decoded.{name} of frame {number} is {reprlib.repr(found[name])}, "
                f"expected {reprlib.repr(expected[name])}"
            )


_DETAILS: Final[Mapping[str, Callable[[FrameError], Any]]] = MappingProxyType(
    {
        "received": lambda error: None if error.received is None else f"0x{error.received:04X}",
        "computed": lambda error: None if error.computed is None else f"0x{error.computed:04X}",
        "swapped": lambda error: error.swapped,
        "length": lambda error: error.length,
    }
)


def _compare_errors(expected: Sequence[Mapping[str, Any]], events: Sequence[Event], is_strict: bool) -> Iterator[str]:
    wanted = [entry for entry in expected if entry["error"] != ErrorKind.NOISE]
    errors = [event for event in events if isinstance(event, FrameError) and event.kind is not ErrorKind.NOISE]
    if not is_strict:
        if wanted and not errors:
            yield "there is no error, expected at least one"
        return
    words, found = [entry["error"] for entry in wanted], [error.kind.value for error in errors]
    if words != found:
        yield f"the errors are {', '.join(found) or 'none'}, expected {', '.join(words) or 'none'}"
        return
    for entry, error in zip(wanted, errors, strict=True):
        for name, detail in _DETAILS.items():
            if name in entry and not same_value(entry[name], detail(error)):
                yield f"{name} of {error.kind.value} is {detail(error)}, expected {reprlib.repr(entry[name])}"


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "fcs": Kind(_check_fcs, frozenset({"data_hex", "fcs"}), frozenset({"wire_quectel", "wire_rfc1662"})),
        "build": Kind(_check_build, frozenset({"profile", "op", "args", "frame_hex"}), frozenset({"tx_accm"})),
        "reply": Kind(
            _check_reply,
            frozenset({"profile", "request_frame_hex", "op", "args", "frame_hex"}),
            frozenset({"reference_frame_hex", "tx_accm", "rx_accm"}),
        ),
        "decode": Kind(
            _check_decode,
            frozenset({"profile", "chunks", "flush_at_end", "expect", "strict_errors"}),
            frozenset({"rx_accm"}),
        ),
        "stuffed_encode": Kind(
            _check_stuffed,
            frozenset({"profile", "content_hex", "frame_hex"}),
            frozenset({"tx_accm", "rx_accm"}),
        ),
    }
)
_FORMAT: Final = Format(
    protocol=PROTOCOL,
    format=FORMAT,
    everywhere=frozenset({"id", "kind", "title", "source", "note", "reference"}),
    kinds=KINDS,
)
