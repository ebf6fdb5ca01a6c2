"""What IEC 62056-21 meters offer and what their answers become: tables and pure functions.

Section numbers are those of specs/iec62056-and-dlms.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from app.adapters import _meter_results as results
from app.errors import ParameterError, RemoteProtocolError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Resend, Risk
from app.model.line import LineFormat, plain
from app.model.reading import Finding, SampleSet, Severity
from app.protocols import iec62056_21 as iec
from app.protocols import iec62056_session as sess

BAUD: Final = 300
AUTO: Final = "auto"
LISTEN: Final = "listen"
MODE_D: Final = "D"
SOFTWARE: Final = "software"
PORT: Final = "port"
DRIFT_LIMIT_S: Final = 60
SET_LIMIT_S: Final = 10  # a clock that was set and still differs by more was not set; reading takes seconds at 300 Bd
SHORT_S: Final = 240.0  # a line that has to fall silent, four sign-ons of a silent meter, a few registers at 300 Bd
DETECT_S: Final = 120.0
MAX_WAIT_MIN: Final = 24 * 60
LONGEST_MIN: Final = 60  # a full readout of 48 kB takes 27 minutes at 300 Bd (A4)


class Style(StrEnum):
    """National practice (A7): which kinds of commands are used, and how times are written."""

    TURKISH = "turkish"
    VDEW = "vdew"
    STANDARD = "standard"


KINDS: Final[Mapping[Style, str]] = {Style.TURKISH: "2", Style.VDEW: "5", Style.STANDARD: "1"}
WRITE_KINDS: Final[Mapping[str, str]] = {"1": "1", "2": "2", "3": "1", "4": "2", "5": "5", "6": "5"}
TIME: Final = "0.9.1"
DATE: Final = "0.9.2"
RELAY: Final = "96.3.10"
LISTED_PROFILES: Final = (1, 2, 3)  # those of which 97.1.0 to 97.3.0 list the columns (A8)
CONNECTED: Final = "0"  # relay passive
DISCONNECTED: Final = "1"


# ---------------------------------------------------------------- the connection form


def _choice(
    name: str, title: str, default: str, choices: Sequence[tuple[str, str]], description: str = ""
) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.CHOICE, required=False, default=default, choices=tuple(choices),
        help=description,
    )  # fmt: skip


def _whole(name: str, title: str, default: int, low: int, high: int, unit: str, description: str = "") -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.INTEGER, required=False, default=default, minimum=low, maximum=high,
        unit=unit, help=description,
    )  # fmt: skip


FORM: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(
        name="address", title="Line", type=ParamType.PORT, max_bytes=500,
        help="Optical head, RS-485 adapter or serial server. Several meters may share one line.",
    ),
    _whole("baud", "First baud rate", BAUD, 50, 921_600, "Bd", "300 on the head; mostly 9600 on RS-485 and TCP."),
    _choice("frame", "Characters", "7E1", [(one, one) for one in ("7E1", "8N1", "7N1", "7O1", "8E1")]),
    _choice(
        "parity", "Parity by", PORT, ((PORT, "the port"), (SOFTWARE, "software")),
        "Software: for ports and serial servers that only do 8N1; the meter still sees 7E1.",
    ),
    ParamSpec(
        name="meter_address", title="Meter address", required=False, default="", pattern=r"[0-9A-Za-z ]{0,32}",
        help="Empty: whichever meter is there. Needed where several share a line. Turkish meters: manufacturer and "
             "serial number.",
    ),
    _choice(
        "table", "Readout table", "?", (("?", "standard"), ("1", "1"), ("2", "2"), ("3", "3"), ("4", "4")),
        "EMH meters: 1 to 4, together with the meter address.",
    ),
    _whole("max_baud", "Highest baud rate", 19_200, 300, 19_200, "Bd", "A lower one helps a bad head or a long line."),
    _choice(
        "mode", "Mode", AUTO,
        ((AUTO, "as the meter says"), ("A", "A"), ("B", "B"), ("C", "C"), (MODE_D, "D: the meter sends by itself"),
         ("E", "E: its readable part, as C"), (LISTEN, "Listen only")),
        "Listen only: nothing is ever sent, every message on the line becomes a row.",
    ),
    ParamSpec(
        name="password", title="Password", type=ParamType.SECRET, required=False, default="", max_bytes=32,
        pattern=r"[!-'*-.0-~]*", help="Of programming mode, mostly 8 digits. Empty: without.",
    ),
    _choice("level", "Password kind", "1", (("1", "P1"), ("2", "P2"))),
    _choice(
        "password_use", "Give the password", AUTO,
        ((AUTO, "as usual"), ("always", "always"), ("writes", "for writes only")),
        "As usual: Turkish meters are read without, others with.",
    ),
    _choice(
        "style", "National practice", AUTO,
        ((AUTO, "by the meter"), (Style.TURKISH.value, "Turkish (R2, W2)"), (Style.VDEW.value, "VDEW (R5, W5)"),
         (Style.STANDARD.value, "standard (R1, W1)")),
        "By the meter: Turkish where it names its generation, else VDEW, else standard.",
    ),
    _choice(
        "read_command", "Read with", AUTO, ((AUTO, "national practice"), *((kind, f"R{kind}") for kind in "123456")),
    ),
    _choice(
        "timing", "Times", AUTO,
        ((AUTO, "by the meter"), ("standard", "standard"), ("turkish-2", "Turkish generation 2"),
         ("turkish-3", "Turkish generation 3")),
    ),
    _choice(
        "wakeup", "Wake-up", sess.Wakeup.NONE.value,
        ((sess.Wakeup.NONE.value, "none"), (sess.Wakeup.BATTERY.value, "battery meter"),
         (sess.Wakeup.HEAT.value, "heat meter (UH50, T550)")),
    ),
    _choice("sign_off", "Break", "0", (("0", "B0"), ("1", "B1: battery meter")), "What ends every conversation."),
    ParamSpec(
        name="rs485", title="RS-485 by RTS", type=ParamType.BOOLEAN, required=False, default=False,
        help="Switch the driver by RTS while sending; most adapters do it by themselves.",
    ),
    _whole("first_data_s", "Wait for data", 5, 1, 60, "s", "Until the first character of an answer."),
    _whole("push_wait_s", "Wait for a message", 120, 1, 86_400, "s", "Mode D: until the meter sends."),
    _whole("longest_min", "Longest readout", LONGEST_MIN, 1, MAX_WAIT_MIN, "min", "Then it is broken off."),
)  # fmt: skip
TIMINGS: Final[Mapping[str, sess.Timing]] = {
    "standard": sess.STANDARD, "turkish-2": sess.TURKISH_2, "turkish-3": sess.TURKISH_3,
}  # fmt: skip


def value_of(settings: Mapping[str, Any], name: str) -> Any:
    """A setting as it stands at a device, or the form's default."""
    default = next(spec.default for spec in FORM if spec.name == name)
    found = settings.get(name)
    return default if found is None or found == "" else found


def line_format(baud: int, frame: str, parity: str) -> LineFormat:
    """How the port stands: parity by software needs 8N1. Raises ParameterError."""
    return LineFormat(baud, 8, "N", 1) if parity == SOFTWARE else LineFormat.parse(f"{baud} {frame}")


def initial_format(settings: Mapping[str, Any]) -> LineFormat:
    return line_format(settings["baud"], settings["frame"], settings["parity"])


def is_passive(settings: Mapping[str, Any]) -> bool:
    return bool(value_of(settings, "mode") == LISTEN)


def config_of(
    settings: Mapping[str, Any], *, password: bool = False, is_write: bool = False, packet: str = "0"
) -> sess.Config:
    """A meter's settings as the session takes them.

    Args:
        password: give it in programming mode, where ``password_use`` wants it for a write or for a read.
    """
    mode = settings["mode"]
    return sess.Config(
        initial=initial_format(settings),
        software_parity=settings["parity"] == SOFTWARE,
        request=iec.Request(settings["meter_address"], settings["table"]),
        mode=iec.Mode(mode) if mode in tuple(iec.Mode) else None,
        max_baud=settings["max_baud"],
        timing=TIMINGS.get(settings["timing"]),
        data_s=float(settings["first_data_s"]),
        wakeup=sess.Wakeup(settings["wakeup"]),
        packet=packet,
        password=settings["password"] if password and wants_password(settings, is_write=is_write) else None,
        spares_mass=settings["password_use"] == AUTO and not is_write,
        level=settings["level"],
        sign_off=settings["sign_off"],
    )


def style_of(settings: Mapping[str, Any], ident: iec.Identification | None) -> Style | None:
    """What is entered, or Turkish where the meter says so; None: not known."""
    entered = value_of(settings, "style")
    if entered != AUTO:
        return Style(entered)
    return Style.TURKISH if ident is not None and ident.mass is not None else None


def read_kinds(settings: Mapping[str, Any], style: Style | None) -> tuple[str, ...]:
    """Kinds of R to try, in order."""
    entered = value_of(settings, "read_command")
    if entered != AUTO:
        return (entered,)
    return (KINDS[Style.VDEW], KINDS[Style.STANDARD]) if style is None else (KINDS[style],)


def wants_password(settings: Mapping[str, Any], *, is_write: bool) -> bool:
    """Whether there is a password to give (A7)."""
    return bool(settings["password"]) and (is_write or settings["password_use"] != "writes")


# ---------------------------------------------------------------- commands

_FROM: Final = ParamSpec(
    name="start", title="From", type=ParamType.TIME, required=False,
    help="Empty: from the beginning. The meter's clock is taken to show this computer's local time.",
)  # fmt: skip
_TO: Final = ParamSpec(name="end", title="To", type=ParamType.TIME, required=False, help="Empty: up to now.")
_OBIS: Final = ParamSpec(
    name="obis", title="Register", pattern=r"[\"-'*-.0-~]{1,32}", help="As the meter names it, for example 1.8.0."
)  # fmt: skip
_DATA: Final = r"[ -'*-.0-~]{0,128}"

READOUT: Final = CommandSpec(
    name="READOUT", title="Read out", kind=CommandKind.READ,
    params=(
        ParamSpec(
            name="packet", title="What", type=ParamType.CHOICE, required=False, default="0",
            choices=(("0", "everything"), ("6", "short readout"), ("7", "history"), ("8", "warnings"),
                     ("9", "outages"), ("5", "power quality")),
            help="Others than everything: Turkish meters.",
        ),
    ),
)  # fmt: skip
READ_REGISTER: Final = CommandSpec(
    name="READ_REGISTER", title="Read register", kind=CommandKind.READ, answer_timeout_s=SHORT_S,
    params=(_OBIS, ParamSpec(name="operand", title="Operand", required=False, default="", pattern=_DATA,
                             help="What stands in the brackets of the request; mostly nothing.")),
)  # fmt: skip
WRITE_REGISTER: Final = CommandSpec(
    name="WRITE_REGISTER", title="Write register", kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER,
    verb="Write to {device}", field_group="registers", answer_timeout_s=SHORT_S,
    params=(
        _OBIS,
        ParamSpec(name="value", title="Value", required=False, default="", pattern=_DATA,
                  help="As the meter writes it, unit included."),
        ParamSpec(name="write_with", title="Write with", type=ParamType.CHOICE, required=False, default=AUTO,
                  choices=((AUTO, "national practice"), *((kind, f"W{kind}") for kind in "12345"))),
    ),
    help="The register is read before and after. Turkish meters lock writing for 6 h after three wrong passwords.",
)  # fmt: skip
LOAD_PROFILE: Final = CommandSpec(
    name="LOAD_PROFILE", title="Read load profile", kind=CommandKind.READ,
    params=(
        ParamSpec(name="profile", title="Profile", required=False, default="P.01", pattern=r"P\.[0-9]{2}",
                  help="P.01, P.02 and so on."),
        _FROM, _TO,
    ),
)  # fmt: skip
READ_EVENTS: Final = CommandSpec(
    name="READ_EVENTS", title="Read events", kind=CommandKind.READ,
    params=(
        ParamSpec(name="profile", title="Log", type=ParamType.CHOICE, required=False, default="P.98",
                  choices=(("P.98", "events (P.98)"), ("P.99", "changed parameters (P.99)"))),
        _FROM, _TO,
    ),
)  # fmt: skip
READ_CLOCK: Final = CommandSpec(
    name="READ_CLOCK", title="Read clock", kind=CommandKind.READ, answer_timeout_s=SHORT_S,
)  # fmt: skip
SET_CLOCK: Final = CommandSpec(
    name="SET_CLOCK", title="Set clock", kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER,
    verb="Set the clock of {device}", field_group="clock", answer_timeout_s=SHORT_S, changes="meter_time",
    shadow={"meter_time": "new_time"},
    params=(ParamSpec(name="time", title="Time", type=ParamType.TIME, required=False,
                      help="Empty: this computer's time at the moment of sending."),),
)  # fmt: skip
SIGN_ON: Final = CommandSpec(
    name="SIGN_ON", title="Sign on", kind=CommandKind.READ, answer_timeout_s=SHORT_S,
    help="Ask the meter who it is, and end.",
)  # fmt: skip
DETECT: Final = CommandSpec(
    name="DETECT", title="Detect", kind=CommandKind.READ, answer_timeout_s=DETECT_S,
    help="Try the usual rates and formats, two times each; what works is entered in the connection.",
)  # fmt: skip
EXECUTE: Final = CommandSpec(
    name="EXECUTE", title="Execute", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS, resend=Resend.NEVER,
    verb="Execute on {device}", answer_timeout_s=SHORT_S,
    params=(ParamSpec(name="data", title="Data", pattern=r"[ -~]{1,128}", help="As address(value)."),),
    warning="What E2 does is up to the manufacturer; it may reset the meter.",
)  # fmt: skip
DISCONNECT_SUPPLY: Final = CommandSpec(
    name="DISCONNECT_SUPPLY", title="Disconnect supply", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS,
    resend=Resend.NEVER, verb="Disconnect {device}", field_group="relay", answer_timeout_s=SHORT_S,
    warning="The customer's supply is switched off.",
)  # fmt: skip
CONNECT_SUPPLY: Final = CommandSpec(
    name="CONNECT_SUPPLY", title="Connect supply", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS,
    resend=Resend.NEVER, verb="Connect {device}", field_group="relay", answer_timeout_s=SHORT_S,
    warning="The customer's supply is switched on; nobody may be working on the installation.",
)  # fmt: skip
RAW: Final = CommandSpec(
    name="RAW", title="Send octets", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS, resend=Resend.NEVER,
    verb="Send to {device}", answer_timeout_s=SHORT_S,
    params=(
        ParamSpec(name="data", title="Octets", pattern=r"(?:\s*[0-7][0-9A-Fa-f]){1,512}\s*",
                  help="Hex, seven bits each; parity is added as the connection says."),
        ParamSpec(name="wait_s", title="Wait", type=ParamType.INTEGER, required=False, default=3, minimum=1, maximum=60,
                  unit="s", help="For the first octet of an answer."),
    ),
    warning="The octets go to the meter as they are; a write among them is carried out.",
)  # fmt: skip

SUPPLY: Final = (DISCONNECT_SUPPLY, CONNECT_SUPPLY)
PROGRAMMING: Final = (
    READ_REGISTER, LOAD_PROFILE, READ_EVENTS, READ_CLOCK, SET_CLOCK, WRITE_REGISTER, EXECUTE, *SUPPLY,
)  # fmt: skip
ALL: Final = (READOUT, *PROGRAMMING, SIGN_ON, DETECT, RAW)
_ONLY_TURKISH: Final = (
    "Only Turkish national meters have this (96.3.10). Sign on once, or choose the national practice in the connection."
)
_ONLY_LISTENS: Final = "This connection only listens; choose another mode in it."
_NO_PROGRAMMING: Final = "Modes A, B and D have no programming mode; read the meter out instead."
_NOTHING_SENT: Final = "In mode D nothing is sent to the meter; read it out, which waits for its next message."
STYLE: Final = "style"  # fact of a meter


def unsupported(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """Commands that a meter of such settings does not have, and why."""
    mode = value_of(settings, "mode")
    if mode == LISTEN:
        return {spec.name: _ONLY_LISTENS for spec in ALL}
    why: dict[str, str] = {}
    if mode == MODE_D:
        why |= {spec.name: _NOTHING_SENT for spec in ALL if spec is not READOUT}
    if mode in ("A", "B"):
        why |= {spec.name: _NO_PROGRAMMING for spec in PROGRAMMING}
    style = value_of(settings, "style")
    if Style.TURKISH.value not in (style, facts.get(STYLE) if style == AUTO else style):
        why = {spec.name: _ONLY_TURKISH for spec in SUPPLY} | why
    return why


def commands(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
    missing = unsupported(settings, facts)
    return tuple(_timed(spec, settings) for spec in ALL if spec.name not in missing)


def _timed(spec: CommandSpec, settings: Mapping[str, Any]) -> CommandSpec:
    """Long reads end when the connection says so; the rest within minutes."""
    if spec.answer_timeout_s is not None:
        return spec
    return replace(spec, answer_timeout_s=longest_s(settings))


def longest_s(settings: Mapping[str, Any]) -> float:
    """The most a command may take. Settings may be unchecked."""
    try:
        minutes = float(value_of(settings, "longest_min"))
        push = float(value_of(settings, "push_wait_s"))
    except (TypeError, ValueError):
        return LONGEST_MIN * 60.0 + SHORT_S
    return max(60 * minutes, push) + SHORT_S


# ---------------------------------------------------------------- times


def local_clock(moment: datetime) -> datetime:
    """A moment as a meter's clock shows it: this computer's local time."""
    return moment.astimezone()


def season_of(moment: datetime) -> int:
    """1 in summer time, else 0."""
    return 1 if local_clock(moment).dst() else 0


def span(profile: str, start: datetime | None, end: datetime | None, style: Style | None) -> str:
    """``P.01(start;end)`` in the meter's way of writing times (A8). Raises ParameterError for a year out of range."""

    def written(moment: datetime | None) -> str:
        if moment is None:
            return ""
        local = local_clock(moment)
        return iec.format_mass(local) if style is Style.TURKISH else iec.format_vdew(local, season_of(moment))

    return f"{profile}({written(start)};{written(end)})"


_PLAIN: Final = re.compile(r"([0-2]?)[0-9]{6}")
_UTC: Final = "2"  # season digit


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The meter's clock as it was read: both texts, and what they mean. ``at`` is aware."""

    time_text: str
    date_text: str
    at: datetime
    computer: datetime

    @property
    def drift_s(self) -> float:
        """Meter minus computer."""
        return round((self.at - self.computer).total_seconds(), 1)


def clock_of(time_text: str, date_text: str, computer: datetime) -> ClockReading | None:
    """None when the texts are no time. Without season digit 2 the meter is taken to show this computer's local time."""
    naive = iec.meter_time(
        [iec.DataSet(TIME, (iec.Value(time_text),)), iec.DataSet(DATE, (iec.Value(date_text),))]
    )  # fmt: skip
    if naive is None:
        return None
    at = naive.replace(tzinfo=UTC) if _season(time_text) == _UTC else naive.astimezone()
    return ClockReading(time_text, date_text, at, computer)


def _season(text: str) -> str:
    found = _PLAIN.fullmatch(text.strip())
    return "" if found is None else found[1]


def written_like(text: str, moment: datetime, plain: str, marked: str) -> str:
    """``moment`` as a meter writes it that wrote ``text``: with season digit, in plain digits, or with marks."""
    found = _PLAIN.fullmatch(text.strip())
    if found is None:
        return f"{local_clock(moment):{marked}}"
    if not found[1]:
        return f"{local_clock(moment):{plain}}"
    if found[1] == _UTC:
        return f"{_UTC}{moment.astimezone(UTC):{plain}}"
    return f"{season_of(moment)}{local_clock(moment):{plain}}"


def time_like(text: str, moment: datetime) -> str:
    return written_like(text, moment, "%H%M%S", "%H:%M:%S" if text.count(":") != 1 else "%H:%M")


def date_like(text: str, moment: datetime) -> str:
    return written_like(text, moment, "%y%m%d", "%y-%m-%d")


def shown_time(moment: datetime) -> str:
    """ISO 8601 in this computer's local time, whole seconds."""
    return local_clock(moment).replace(microsecond=0).isoformat()


def clock_result(reading: ClockReading) -> dict[str, Any]:
    return {
        "meter_time": shown_time(reading.at),
        "computer_time": shown_time(reading.computer),
        "drift_s": reading.drift_s,
        "summary": f"The meter's clock is {drift_words(reading.drift_s)}.",
    }


def drift_words(seconds: float) -> str:
    if abs(seconds) < 1:
        return "right"
    return f"{abs(seconds):g} s {'fast' if seconds > 0 else 'slow'}"


def set_result(old: ClockReading, new: ClockReading) -> dict[str, Any]:
    return {
        "old_time": shown_time(old.at),
        "new_time": shown_time(new.at),
        "drift_before_s": old.drift_s,
        "drift_after_s": new.drift_s,
        "summary": f"The clock was {drift_words(old.drift_s)} and is {drift_words(new.drift_s)}.",
    }


def clock_facts(reading: ClockReading) -> dict[str, Any]:
    return {"meter_time": shown_time(reading.at), "clock_drift_s": reading.drift_s}


def clock_finding(reading: ClockReading, device: str, interaction: int | None) -> Finding:
    """Raised above a minute, else cleared."""
    is_off = abs(reading.drift_s) > DRIFT_LIMIT_S
    text = f"The meter's clock is {drift_words(reading.drift_s)}."
    if is_off:
        text += " Compare this computer's clock, then set the meter's."
    return Finding(
        at=reading.computer, device=device, severity=Severity.WARNING, code="CLOCK_DRIFT", text=text,
        interaction=interaction, cleared=not is_off,
    )  # fmt: skip


# ---------------------------------------------------------------- results


def model_of(ident: iec.Identification) -> str:
    mass = ident.mass
    return f"{ident.manufacturer} {mass[2] if mass is not None else ident.ident.strip()}".strip()


def model_key(ident: iec.Identification) -> str:
    """What meters of one model have in common: the manufacturer and the name without the digits at its end."""
    return f"{ident.manufacturer} {re.sub(r'[-_. ]*[0-9]+$', '', ident.ident.strip())}".strip()


def identity_facts(ident: iec.Identification, mode: iec.Mode, settings: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"identification": str(ident), "model": model_of(ident), "mode": mode.value}
    if (style := style_of(settings, ident)) is not None:
        facts[STYLE] = style.value
    return facts


def identity_result(ident: iec.Identification, mode: iec.Mode) -> dict[str, Any]:
    mass = ident.mass
    return {
        "summary": f"{ident}, mode {mode.value}",
        "identification": str(ident),
        "manufacturer": ident.manufacturer,
        "model": model_of(ident),
        "mode": mode.value,
        "baud": ident.baud,
        "has_hdlc": ident.is_hdlc_capable,
        "generation": None if mass is None else mass[0],
    }


@dataclass(frozen=True, slots=True)
class Found:
    """A result on its way to an answer."""

    result: dict[str, Any]
    samples: tuple[SampleSet, ...]
    doubts: tuple[str, ...]


def readout(
    data: bytes, check: iec.BlockCheck, ident: iec.Identification | None, *, device: str, now: datetime,
    interaction: int | None, is_complete: bool, parity_faults: int = 0,
) -> Found:  # fmt: skip
    """A data block as a result of shape READOUT."""
    parsed = iec.parse_readout(data)
    found = results.readout(parsed, identification="" if ident is None else str(ident), check=check.verdict.value)
    doubts = [] if check.verdict in (iec.Verdict.GOOD, iec.Verdict.NO_CHECK) else [check.sentence]
    if is_complete and not parsed.is_terminated:
        doubts.append(results.NO_END)
    doubts += results.damage_doubts(parsed.damages)
    if parity_faults:
        doubts.append(f"{parity_faults} characters came with wrong parity.")
    if len(parsed.data_sets) > results.MAX_ROWS:
        doubts.append(results.CUT_ROWS)
    text = plain(data).decode("latin-1")
    content = {
        "summary": results.readout_summary(found), **found, "text": results.bounded(text),
        "doubts": [results.visible(doubt) for doubt in doubts], "incomplete": not is_complete,
    }  # fmt: skip
    samples = results.readout_samples(parsed.data_sets, device, now, interaction) if is_complete else ()
    return Found(content, samples, tuple(content["doubts"]))


def damage_code(check: iec.BlockCheck) -> str:
    """Why a data block is not to be trusted, "" where it is; one that was sent without a check is."""
    return {iec.Verdict.WRONG: sess.Fault.CHECK, iec.Verdict.CUT: sess.Fault.INCOMPLETE}.get(check.verdict, "")


def profile(text: str, columns: tuple[iec.Channel, ...], *, device: str, interaction: int | None) -> Found:
    """A load profile or log whose blocks were all checked, as a result of shape LOAD_PROFILE.

    Args:
        columns: as the meter lists them apart, used where the answer does not name its own.
    """
    parsed = iec.parse_profile(text).with_columns(columns)
    tables = parsed.tables()
    found = results.profile(parsed, tables, check=iec.Verdict.GOOD.value)
    doubts = results.damage_doubts(parsed.damages)
    if any(not channel.id for table in tables for channel in table.columns):
        doubts.append("The meter does not name the columns; their order is the one of its type.")
    if any(len(table.rows) > results.MAX_ROWS for table in tables):
        doubts.append(results.CUT_ROWS)
    content = {
        "summary": results.profile_summary(found), **found, "text": results.bounded(text),
        "doubts": [results.visible(doubt) for doubt in doubts], "incomplete": False,
    }  # fmt: skip
    return Found(content, results.profile_samples(tables, device, interaction), tuple(content["doubts"]))


def doubt_findings(doubts: Sequence[str], device: str, now: datetime, interaction: int | None) -> tuple[Finding, ...]:
    if not doubts:
        return ()
    return (
        Finding(at=now, device=device, severity=Severity.WARNING, code="DOUBTFUL_RESULT", text=" ".join(doubts),
                interaction=interaction),
    )  # fmt: skip


def register_of(text: str, obis: str) -> tuple[dict[str, Any], iec.DataSet] | None:
    """The answer to a read as a row of shape READ_REGISTER; None when it holds no data set."""
    sets, _damages = iec.parse_sets(text)
    if not sets:
        return None
    first = sets[0] if sets[0].address else replace(sets[0], address=obis)
    row = results.register(first)
    unit = f" {row['unit']}" if row["unit"] else ""
    row["summary"] = f"{first.address} = {row['value']}{unit}"
    if sets[1:]:
        row["others"] = [results.register(one) for one in sets[1 : results.MAX_OTHERS]]
    return row, first


def message_result(message: iec.Message | iec.Damaged, octets: int) -> dict[str, Any]:
    """A message of a line that is listened to; passwords are not shown."""
    match message:
        case iec.Request(address, table):
            kind, text = "sign-on", f"/{table}{address}!"
        case iec.Identification():
            kind, text = "identification", str(message)
        case iec.Option(protocol, baud, mode):
            kind, text = "option select", f"{protocol}{baud}{mode}"
        case iec.Command("P", kind_, _) if kind_ != "0":
            kind, text = "password", f"P{kind_}"
        case iec.Command(name, kind_, data):
            kind, text = "command", f"{name}{kind_} {data or ''}".strip()
        case iec.Data(words, _):
            kind, text = "data", words
        case iec.ErrorMessage(words):
            kind, text = "error", words
        case iec.Acknowledge():
            kind, text = "acknowledgement", "ACK"
        case iec.Refuse():
            kind, text = "refusal", "NAK"
        case iec.Damaged(sentence, _):
            kind, text = "damaged", sentence
    shown = results.visible(text)
    return {"summary": f"{kind}: {shown[: iec.EXCERPT]}", "kind": kind, "text": shown, "octets": octets}


# ---------------------------------------------------------------- auto-detection (A9)


@dataclass(frozen=True, slots=True)
class Place:
    """One setting of the line to try; ``frame`` is what the meter sees."""

    baud: int
    frame: str
    parity: str = PORT

    def __str__(self) -> str:
        return f"{self.baud} {self.frame} {self.parity}"

    @property
    def format(self) -> str:
        return f"{self.baud} {self.frame}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"baud": self.baud, "frame": self.frame, "parity": self.parity}


PLACES: Final = (
    Place(300, "7E1"), Place(9600, "7E1"), Place(300, "7E1", SOFTWARE), Place(9600, "7E1", SOFTWARE),
    Place(2400, "7E1"), Place(19200, "7E1"),
)  # fmt: skip
SECOND: Final[Mapping[Place, Place]] = {Place(9600, "7E1", SOFTWARE): Place(9600, "8N1")}
"""What the second round tries instead: an 8N1 port serves meters with parity by software, and those without any."""
MAX_PLACES: Final = 8
DETECT_TIMING: Final = sess.Timing(margin_s=0.2, ident_s=3.0)


def parse_place(text: Any) -> Place | None:
    """What ``Answer.learnt`` told earlier; None for anything else."""
    words = text.split() if isinstance(text, str) else []
    if len(words) != 3 or words[2] not in (PORT, SOFTWARE):
        return None
    try:
        parsed = LineFormat.parse(f"{words[0]} {words[1]}")
    except ParameterError:
        return None
    return Place(parsed.baud, parsed.frame, words[2])


def places(learnt: Mapping[str, Any], identification: str, own: Place, *, has_rate: bool) -> tuple[Place, ...]:
    """The first round, in order: what this model needed, what other models needed, the usual ones (A9).

    Args:
        identification: as the meter gave it earlier; "" for none.
        own: what the connection says; on a line without a rate only its parity can differ.
    """
    known = {key: place for key, text in learnt.items() if (place := parse_place(text)) is not None}
    order: list[Place] = []
    try:
        key = model_key(iec.parse_identification(identification)) if identification else ""
    except RemoteProtocolError:
        key = ""
    if key in known:
        order.append(known[key])
    order += [place for place, _count in Counter(known.values()).most_common()]
    order += PLACES
    if not has_rate:
        order = [replace(own, frame="7E1", parity=place.parity) for place in order]
    return tuple(dict.fromkeys(order))[:MAX_PLACES]


def second_round(first: Sequence[Place]) -> tuple[Place, ...]:
    return tuple(SECOND.get(place, place) for place in first)


def verdict_of(sent: bytes, received: bytes, *, is_identified: bool) -> str:
    """``identified``, ``noise``, or ``silent`` also where only our own octets came back."""
    if is_identified:
        return "identified"
    heard = received.replace(b"\0", b"")
    return "silent" if not heard or sent.startswith(heard) else "noise"
