"""Run vectors of protocol ``iec62056-21`` against the parser (specs/iec62056-and-dlms.md parts A and D).

An outcome is made in the vectors' form and compared as a whole, both ways: a member too many fails like one too few.
A vector is a failure too when anything in it could not be read, its block check is not the standard's, or its octets
give other messages when they come one by one or in two parts, whatever the place of the cut.
"""

from __future__ import annotations

import binascii
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from app.model.line import plain
from app.protocols import iec62056_21 as iec
from app.protocols import obis
from app.protocols.conformance import Report, same_value
from app.protocols.conformance_kinds import Format, Kind, Malformed, check_kinds, cuts

PROTOCOL: Final = "iec62056-21"
FORMAT: Final = "iec62056-vectors/1"
MAX_CUT_OCTETS: Final = 1 << 22  # fed for all cuts of a text; a long one is cut at fewer places, evenly spread
REPLIES: Final[Mapping[bytes, str]] = MappingProxyType({iec.ACK: "ACK", iec.NAK: "NAK"})
FRAMINGS: Final[Mapping[str, iec.Verdict]] = MappingProxyType(
    {"stx-etx-bcc": iec.Verdict.GOOD, "mode-d": iec.Verdict.NO_CHECK}
)


def check(document: Any) -> Report:
    """Check every vector of ``document`` (the parsed JSON file); see ``conformance.run``.

    A vector that cannot be understood is a failure. Raises nothing.
    """
    return check_kinds(document, _FORMAT)


def _differences(expected: Any, actual: Any, path: str) -> Iterator[str]:
    """Sentences for what differs. Descends only where ``actual`` does, whose depth is small."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for name in {**expected, **actual}:
            inner = f"{path}.{name}".lstrip(".")[:80]
            if name not in actual:
                yield f"there is no {inner}, expected {reprlib.repr(expected[name])}"
            elif name not in expected:
                yield f"{inner} is {reprlib.repr(actual[name])}, which is not expected"
            else:
                yield from _differences(expected[name], actual[name], inner)
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{path} has {len(actual)} items, expected {len(expected)}"
            return
        for place, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(wanted, found, f"{path}[{place}]")
    elif not same_value(expected, actual):
        yield f"{path or 'the outcome'} is {reprlib.repr(actual)}, expected {reprlib.repr(expected)}"


def _raw(vector: Mapping[str, Any]) -> bytes:
    text = vector["raw"]
    if not isinstance(text, str) or not text or not text.isascii():
        raise Malformed("raw must be a text of 7-bit characters")
    return text.encode("ascii")


def _raw_hex(vector: Mapping[str, Any]) -> bytes:
    text = vector["raw_hex"]
    try:
        if isinstance(text, str) and text:
            return binascii.unhexlify(text)
    except ValueError:
        pass
    raise Malformed("raw_hex must be a text of hex digit pairs")


def _octet_text(octet: int | None) -> str | None:
    return None if octet is None else f"0x{octet:02X}"


# ---------------------------------------------------------------- chunks


def _cut_faults(vector: Mapping[str, Any]) -> Iterator[str]:
    octets = plain(_raw_hex(vector)) if "raw_hex" in vector else _raw(vector)
    for is_passive in (False, True):
        whole = _messages([octets], is_passive)
        if _messages([octets[at : at + 1] for at in range(len(octets))], is_passive) != whole:
            yield "octet by octet the messages are others"
        for at in cuts(octets, MAX_CUT_OCTETS):
            if _messages([octets[:at], octets[at:]], is_passive) != whole:
                yield f"cut at octet {at} the messages are others"
                break


def _messages(chunks: Sequence[bytes], is_passive: bool) -> list[iec.Incoming]:
    framer = iec.Framer(is_passive=is_passive)
    found: list[iec.Incoming] = []
    for chunk in chunks:
        framer.feed(chunk)
        while (message := framer.next()) is not None:
            found.append(message)
    return found


# ---------------------------------------------------------------- the kinds


def _check_identification(vector: Mapping[str, Any]) -> Iterator[str]:
    octets = _raw(vector)
    found = iec.parse_identification(octets)
    yield from _differences(vector["expect"], identification_form(found), "")
    if iec.encode(found).rstrip(iec.LINE_END) != octets.rstrip(iec.LINE_END):
        yield "the identification written again is another one"


def identification_form(found: iec.Identification) -> dict[str, Any]:
    """An identification in the vectors' form."""
    form: dict[str, Any] = {
        "manufacturer": found.manufacturer,
        "baud_char": found.baud_char,
        "baud": found.baud,
        "enhanced_char": found.enhanced_char,
        "hdlc_capable": found.is_hdlc_capable,
        "ident": found.ident,
        "min_reaction_ms": found.min_reaction_ms,
        "mode_guess": found.mode.value,
    }
    if found.mass is not None:
        form |= dict(zip(("mass_generation", "mass_operator", "mass_type"), found.mass, strict=True))
    return form


def _check_readout(vector: Mapping[str, Any]) -> Iterator[str]:
    readout = iec.parse_readout(_raw(vector))
    framing = vector["framing"]
    if not isinstance(framing, str) or framing not in FRAMINGS:
        raise Malformed(f"the framing {reprlib.repr(framing)} is not known; there are {', '.join(FRAMINGS)}")
    if readout.check.verdict is not FRAMINGS[framing]:
        yield readout.check.sentence
    yield from _differences(vector.get("bcc"), _octet_text(readout.check.received), "bcc")
    yield from _differences(vector["expect"], readout_form(readout), "")
    yield from map(str, readout.damages)


def readout_form(readout: iec.Readout) -> dict[str, Any]:
    """A readout in the vectors' form."""
    found = readout.identification
    return {
        "identification": None if found is None else identification_form(found),
        "data_sets": [
            {
                "address": one.address,
                "values": [{"value": value.text, "unit": value.unit} for value in one.values],
                "reduced_id": None if one.code is None else _code_form(one.code),
            }
            for one in readout.data_sets
        ],
        "terminated": readout.is_terminated,
    }


def _code_form(code: obis.Obis) -> dict[str, Any]:
    return {"a": code.a, "b": code.b, "c": code.c, "d": code.d, "e": code.e, "f": code.f}


def _check_command(vector: Mapping[str, Any]) -> Iterator[str]:
    name, kind, data = vector["command"], vector["type"], vector["data"]
    if not isinstance(name, str) or not isinstance(kind, str) or not isinstance(data, str | None):
        raise Malformed("command and type must be texts, data a text or null")
    octets = _raw_hex(vector)
    command = iec.Command(name, kind, data)
    frame = iec.encode(command)
    yield from _differences(octets.hex(), frame.hex(), "raw_hex")
    yield from _differences(vector["bcc"], _octet_text(frame[-1]), "bcc")
    found = iec.take(octets)
    if found is None or found.message != command or found.length != len(octets):
        yield "the frame read back is another command"


def _check_profile(vector: Mapping[str, Any]) -> Iterator[str]:
    profile, form = iec.parse_profile(_raw(vector)), vector["format"]
    if form not in ("vdew", "mass"):
        raise Malformed(f"the format {reprlib.repr(form)} is not known; there are vdew, mass")
    sections = [_section_form(section) for section in profile.sections]
    if form == "vdew":
        yield from _differences(vector["expect"], sections, "")
    else:
        national = [{name: one[name] for name in ("channels", "rows")} for one in sections]
        yield from _differences(vector["expect"], national[0] if len(national) == 1 else national, "")
    if not profile.check.is_good:
        yield profile.check.sentence
    yield from map(str, profile.damages)


def _section_form(section: iec.ProfileSection) -> dict[str, Any]:
    channels = section.channels
    return {
        "profile": section.profile,
        "season": section.season,
        "start": _time_form(section.start),
        "status": section.status,
        "interval_min": section.interval_min,
        "channels": None if channels is None else [{"id": one.id, "unit": one.unit} for one in channels],
        "rows": [
            {
                "time": _time_form(row.at),
                "values": [None if value is None else str(value) for value in row.values],
            }
            for row in section.rows
        ],
    }


def _time_form(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _check_stream(vector: Mapping[str, Any]) -> Iterator[str]:
    octets = plain(_raw_hex(vector))
    found = iec.take(octets)
    if found is None:
        yield "there is no complete message in the stream"
        return
    yield from _differences(vector["expect"], incoming_form(found), "")
    if found.length != len(octets):
        yield f"{len(octets) - found.length} octets are left over"


def incoming_form(found: iec.Incoming) -> dict[str, Any]:
    """A message cut out of a stream, in the vectors' form; requests and options have none there."""
    form: dict[str, Any]
    match found.message:
        case iec.Damaged(_, outcome) if not outcome.is_good:
            values = {"received": _octet_text(outcome.received), "computed": _octet_text(outcome.computed)}
            form = {"result": "bcc_error", **values}
        case iec.Damaged():
            form = {"result": "damaged"}
        case iec.ErrorMessage(text):
            form = {"result": "error_message", "text": text}
        case iec.Identification() as identification:
            form = {"result": "identification", "ident": identification.ident}
        case iec.Refuse():
            form = {"result": "nak"}
        case iec.Acknowledge():
            form = {"result": "ack"}
        case iec.Data(more=True) | iec.Command(more=True):
            form = {"result": "partial"}
        case iec.Data(text):
            form = {"result": "data", "text": text}
        case _:
            form = {"result": type(found.message).__name__.lower()}
    if found.reply:
        form["reply"] = REPLIES[found.reply]
    if found.skipped:
        form["skipped"] = found.skipped.decode("latin-1")
    return form


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "identification": Kind(_check_identification, frozenset({"raw", "expect"})),
        "readout": Kind(_check_readout, frozenset({"raw", "framing", "expect"}), frozenset({"bcc"})),
        "command": Kind(_check_command, frozenset({"command", "type", "data", "raw_hex", "bcc"})),
        "load_profile": Kind(_check_profile, frozenset({"format", "raw", "expect"})),
        "stream": Kind(_check_stream, frozenset({"raw_hex", "expect"})),
    }
)
_FORMAT: Final = Format(
    protocol=PROTOCOL,
    format=FORMAT,
    everywhere=frozenset({"id", "kind", "title", "source", "note"}),
    afterwards=_cut_faults,
    kinds=KINDS,
)
