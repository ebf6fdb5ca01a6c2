"""What Aviora gateways and the meters behind them offer, and what their answers become: tables and pure functions.

Section numbers are those of specs/aviora-protocolzd.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.adapters import _meter_results as results
from app.adapters._meter_results import visible as visible
from app.errors import ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, ReplyPattern, Resend, Risk
from app.model.reading import Finding, SampleSet, Severity
from app.ports import Answer, Execution
from app.protocols import aviora as av
from app.protocols import iec62056_21 as iec
from app.protocols.aviora_stream import (
    BlockVerdict,
    DirectiveEntry,
    DirectiveResult,
    TextResult,
    has_end_line,
    show,
)

GRACE_S: Final = 60
READOUT_S: Final = 180
PROFILE_S: Final = 600
BACKSTOP_S: Final = 60.0  # the pipeline's own time-out comes so much later than the adapter's, which says more
UPDATE_S: Final = 1800.0  # a firmware order whose file is served from here waits for the transfer
MAX_HEAD: Final = 16 << 10  # bytes in which a meter names itself

METER_JOBS: Final[Mapping[str, av.Function]] = {
    "READOUT": av.Function.READOUT,
    "LOAD_PROFILE": av.Function.LOAD_PROFILE,
}
UNASKED: Final[Mapping[str, str]] = {
    av.Function.READOUT: "READOUT_RESULT",
    av.Function.LOAD_PROFILE: "LOAD_PROFILE_RESULT",
}


# ---------------------------------------------------------------- the connection form


def _port(name: str, title: str, default: int, description: str) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.INTEGER, required=False, default=default, minimum=0, maximum=65535,
        help=description,
    )  # fmt: skip


def _seconds(name: str, title: str, default: int, description: str) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.INTEGER, required=False, default=default, minimum=1, maximum=86_400,
        unit="s", help=description,
    )  # fmt: skip


FORM: Final[tuple[ParamSpec, ...]] = (
    ParamSpec(
        name="listen_host", title="Listen on", required=False, default="127.0.0.1", max_bytes=253,
        help="Address of this computer that gateways dial; 127.0.0.1: only from here. The link is in clear text and "
             "has no login.",
    ),
    _port("listen_port", "Listen on port", av.PUSH_PORT, "The gateway's server port, mostly 8722; 0: any free one."),
    ParamSpec(
        name="pull_host", title="Address of the gateway", required=False, default="", max_bytes=253,
        help="Empty: the address from which it dials in, or the one it tells.",
    ),
    _port("pull_port", "Port of the gateway", 0, f"0: the one it tells, else {av.PULL_PORT}."),
    ParamSpec(
        name="accept", title="Accept its registration", type=ParamType.BOOLEAN, required=False, default=True,
        help="A gateway that was accepted once stays registered for ever.",
    ),
    _seconds("readout_timeout_s", "Wait for a readout", READOUT_S, "From the gateway's acknowledgement to the result."),
    _seconds("profile_timeout_s", "Wait for a load profile", PROFILE_S, "From the acknowledgement to the result."),
    _seconds("grace_s", "Wait for a late result", GRACE_S,
             "After a time-out no other meter job is sent to the gateway for so long."),
)  # fmt: skip


def seconds(settings: Mapping[str, Any], name: str, default: int) -> float:
    """A time of a device's settings as they stand there: a number, its text, or nothing."""
    try:
        return float(settings.get(name) or default)
    except (TypeError, ValueError):
        return float(default)


# ---------------------------------------------------------------- commands

_SERIAL: Final = ParamSpec(
    name="serial", title="Meter serial", max_bytes=av.MAX_METER_SERIAL_CHARS, pattern=r"[!#-Z^-z|~]+",
    help="Up to 15 characters, as on the meter.",
)  # fmt: skip
_ID: Final = ParamSpec(
    name="id", title="Directive", pattern=r"\*|[A-Za-z0-9_-]{1,63}",
    help="Letters, digits, _ and -, at most 63; * means all.",
)  # fmt: skip
_JOB_DIRECTIVE: Final = ParamSpec(
    name="directive", title="Directive", required=False, default="", pattern=r"[A-Za-z0-9_-]{1,63}",
    help="The known firmware does not use it.",
)  # fmt: skip


def _short(name: str, title: str, default: str, most: int, description: str = "") -> ParamSpec:
    return ParamSpec(
        name=name, title=title, required=False, default=default, max_bytes=most, pattern=r"[ !#-Z^-z|~]+",
        help=description,
    )  # fmt: skip


def steps_of(text: str) -> tuple[av.Step, ...]:
    """The operations of a directive from lines ``operation=parameter``; empty lines do not count.

    Raises:
        ParameterError: a line without an operation, or no line at all.
    """
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        operation, _, parameter = line.partition("=")
        if not operation.strip():
            raise ParameterError(f"Line {number} of the steps has no operation; write operation=parameter.", "steps")
        steps.append(av.Step(operation.strip(), parameter.strip()))
    if not steps:
        raise ParameterError("The directive has no steps; write operation=parameter, one a line.", "steps")
    return tuple(steps)


def _wrong_request(command: str, params: Mapping[str, Any]) -> str:
    """What the device would not take of parameters taken together; "" for nothing."""
    try:
        av.encode(av.Device("0" * av.MAX_DEVICE_SERIAL_CHARS), request_of(command, params, "0"))
    except ParameterError as exc:
        return str(exc)
    return ""


def _wrong_update(params: Mapping[str, Any]) -> str:
    if bool(params.get("address")) is bool(params.get("file")):
        return "Enter either the address of the firmware image or a file of this computer."
    return _wrong_request("UPDATE_FIRMWARE", params) if params.get("address") else ""


def _wrong_directive(params: Mapping[str, Any]) -> str:
    if params.get("id") == av.ALL_DIRECTIVES:
        return "A directive cannot be called *; that means all of them."
    return _wrong_request("ADD_DIRECTIVE", params)


READ_LOG: Final = CommandSpec(
    name="READ_LOG", title="Read log", kind=CommandKind.READ,
    help="Whether the gateway keeps what it has told once is up to its storage.",
)  # fmt: skip
LIST_DIRECTIVES: Final = CommandSpec(
    name="LIST_DIRECTIVES", title="List directives", kind=CommandKind.READ, params=(replace(_ID, required=False,
    default=av.ALL_DIRECTIVES),), help="The known firmware stores directives and does not execute them.",
)  # fmt: skip
ADD_DIRECTIVE: Final = CommandSpec(
    name="ADD_DIRECTIVE", title="Store directive", kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER,
    verb="Store on {device}", field_group="directives", check=_wrong_directive,
    params=(_ID, ParamSpec(name="steps", title="Steps", max_bytes=av.MAX_DIRECTIVE_CHARS,
                           help="One operation=parameter a line, for example setBaud=300.")),
    help="One of the same id is replaced. The known firmware stores directives and does not execute them.",
)  # fmt: skip
DELETE_DIRECTIVE: Final = CommandSpec(
    name="DELETE_DIRECTIVE", title="Delete directive", kind=CommandKind.WRITE, risk=Risk.DANGEROUS,
    resend=Resend.NEVER, verb="Delete on {device}", field_group="directives", params=(_ID,),
    warning="With * every directive on the gateway is deleted.",
)  # fmt: skip
ADD_METER: Final = CommandSpec(
    name="ADD_METER", title="Add meter", kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER,
    verb="Add to {device}", field_group="meters", check=lambda params: _wrong_request("ADD_METER", params),
    params=(
        _SERIAL,
        _short("protocol", "Protocol", "IEC62056", av.MAX_METER_TYPE_CHARS),
        _short("type", "Type", "electricity", av.MAX_METER_TYPE_CHARS),
        _short("brand", "Brand", "MKL", av.MAX_BRAND_CHARS, "Three letters."),
        _short("port", "Serial port", "port-1", av.MAX_PORT_CHARS),
        ParamSpec(name="baud", title="First baud rate", type=ParamType.INTEGER, required=False, default=300,
                  minimum=50, maximum=921_600),
        ParamSpec(name="fix_baud", title="Fixed baud rate", type=ParamType.BOOLEAN, required=False, default=False),
        _short("frame", "Frame", "7E1", av.MAX_PORT_CHARS),
    ),
    help="Only the serial number has an effect today. To change a meter, remove it first. The gateway lists no "
         "meters; what was sent is kept here.",
)  # fmt: skip
REMOVE_METER: Final = CommandSpec(
    name="REMOVE_METER", title="Remove meter", kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER,
    verb="Remove from {device}", field_group="meters",
    params=(replace(_SERIAL, max_bytes=av.MAX_REMOVED_SERIAL_CHARS),),
    help="The beginning of a serial number is acknowledged and removes nothing.",
)  # fmt: skip
SET_SERVER: Final = CommandSpec(
    name="SET_SERVER", title="Set server", kind=CommandKind.WRITE, risk=Risk.TOP, resend=Resend.NEVER,
    verb="Send {device} to another server", check=lambda params: _wrong_request("SET_SERVER", params),
    params=(
        ParamSpec(name="ip", title="Server address", pattern=r"[0-9.]{7,15}", help="IPv4; the gateway knows no names."),
        ParamSpec(name="port", title="Server port", type=ParamType.INTEGER, required=False, default=av.PUSH_PORT,
                  minimum=1, maximum=65535),
    ),
    warning="The gateway leaves this program and dials the other server, for ever and without introducing itself "
            "there. If the address is wrong, somebody has to go to it.",
)  # fmt: skip
UPDATE_FIRMWARE: Final = CommandSpec(
    name="UPDATE_FIRMWARE", title="Update firmware", kind=CommandKind.WRITE, risk=Risk.TOP, resend=Resend.NEVER,
    verb="Update {device}", check=_wrong_update, answer_timeout_s=UPDATE_S,
    params=(
        ParamSpec(name="address", title="Address of the image", type=ParamType.SECRET, required=False, default="",
                  max_bytes=av.MAX_ADDRESS_CHARS, help="ftp://user:password@192.168.1.5:21/path/file.bin"),
        ParamSpec(name="file", title="File", type=ParamType.FILE, required=False, default="", max_bytes=4096,
                  help="Served to the gateway from here instead, as long as the order runs."),
        ParamSpec(name="serve_host", title="Serve on", required=False, default="", pattern=r"[0-9.]{7,15}",
                  help="IPv4 address of this computer that the gateway reaches; empty: the one that leads to it."),
        ParamSpec(name="serve_port", title="Serve on port", type=ParamType.INTEGER, required=False, default=0,
                  minimum=0, maximum=65535, help="0: any free one."),
    ),
    warning="The gateway checks neither format nor signature of the image, and never tells the outcome.",
)  # fmt: skip
GATEWAY_COMMANDS: Final = (
    READ_LOG, LIST_DIRECTIVES, ADD_DIRECTIVE, DELETE_DIRECTIVE, ADD_METER, REMOVE_METER, SET_SERVER, UPDATE_FIRMWARE,
)  # fmt: skip
READOUT: Final = CommandSpec(
    name="READOUT", title="Read out", kind=CommandKind.READ, pattern=ReplyPattern.PUSH, params=(_JOB_DIRECTIVE,),
    help="The gateway tells no failures of the meter: then nothing comes at all.",
)  # fmt: skip
LOAD_PROFILE: Final = CommandSpec(
    name="LOAD_PROFILE", title="Read load profile", kind=CommandKind.READ, pattern=ReplyPattern.PUSH,
    check=lambda params: _wrong_request("LOAD_PROFILE", params),
    params=(
        ParamSpec(name="start", title="From", type=ParamType.TIME, help="The meter's clock is taken to show this "
                  "computer's local time."),
        ParamSpec(name="end", title="To", type=ParamType.TIME, help="A few days at most: the text comes in one piece."),
        _JOB_DIRECTIVE,
    ),
)  # fmt: skip


def meter_commands(settings: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
    """The two meter jobs with the time-outs of a device's settings."""
    return (
        replace(READOUT, answer_timeout_s=seconds(settings, "readout_timeout_s", READOUT_S) + BACKSTOP_S),
        replace(LOAD_PROFILE, answer_timeout_s=seconds(settings, "profile_timeout_s", PROFILE_S) + BACKSTOP_S),
    )


def job_seconds(function: av.Function, settings: Mapping[str, Any]) -> float:
    """How long a result may take after the ack (section 9 rule 2)."""
    if function is av.Function.READOUT:
        return seconds(settings, "readout_timeout_s", READOUT_S)
    return seconds(settings, "profile_timeout_s", PROFILE_S)


def request_of(command: str, params: Mapping[str, Any], meter: str) -> av.Request:
    """The message of a command; ``meter`` is the serial of the meter it is for.

    Raises:
        ParameterError: steps that are none.
    """
    match command:
        case "READ_LOG":
            return av.LogRequest()
        case "LIST_DIRECTIVES":
            return av.DirectiveListRequest(params["id"])
        case "ADD_DIRECTIVE":
            return av.DirectiveAdd(av.Directive(params["id"], steps_of(params["steps"])))
        case "DELETE_DIRECTIVE":
            return av.DirectiveDelete(params["id"])
        case "ADD_METER":
            return av.MeterAdd(
                av.Meter(
                    params["serial"], params["protocol"], params["type"], params["brand"], params["port"],
                    params["baud"], params["fix_baud"], params["frame"],
                )
            )  # fmt: skip
        case "REMOVE_METER":
            return av.MeterRemove(params["serial"])
        case "SET_SERVER":
            return av.ServerChange(params["ip"], params["port"])
        case "UPDATE_FIRMWARE":
            return av.FirmwareUpdate(params["address"])
        case "READOUT":
            return av.ReadoutRequest(meter, params["directive"])
        case "LOAD_PROFILE":
            return av.ProfileRequest(
                meter, meter_clock(params["start"]), meter_clock(params["end"]), params["directive"]
            )  # fmt: skip
        case _:
            raise ParameterError(f"An Aviora gateway knows no {command}.", "command")


def meter_clock(moment: datetime) -> datetime:
    """A moment as the meter's clock shows it: this computer's local time, without a zone."""
    return moment.astimezone().replace(tzinfo=None, microsecond=0)


# ---------------------------------------------------------------- results


def _octets(result: TextResult) -> bytes:
    """What the meter sent: the text without escapes where a firmware writes them."""
    return result.data if result.is_literal else result.text.encode("latin-1", "replace")


def serials_in(result: TextResult) -> tuple[str, ...]:
    """The numbers under which the meter names itself at the beginning of the data."""
    return iec.serials_of(iec.parse_readout(_octets(result)[:MAX_HEAD]).data_sets)


def incomplete_text(result: TextResult) -> str:
    return (
        f"The result is incomplete: {result.reason}. {result.packets} packets came. "
        "Ask again; what came is kept here and is no data."
    )


def job_answer(
    request: av.ReadoutRequest | av.ProfileRequest | None,
    result: TextResult,
    *,
    device: str,
    now: datetime,
    interaction: int | None,
    label: str = "",
    known_identification: str = "",
) -> Answer:
    """The answer that a result is.

    Args:
        request: what was asked; None where nobody knows.
        label: "late", "unsolicited" and the like; stands in text and result.
        known_identification: of earlier readouts of this meter; "" for none.
    """
    doubts = list(av.doubts(request, result)) if request is not None else []
    is_readout = result.function == av.Function.READOUT
    read, summary = (_readout, results.readout_summary) if is_readout else (_profile, results.profile_summary)
    found, samples, more = read(result, device, now, interaction)
    doubts += more
    identification = str(found.get("identification", ""))
    if known_identification and identification and identification != known_identification:
        doubts.append(
            f"The meter answered as {identification}, earlier as {known_identification}. "
            "On a line with several meters another one may have answered."
        )
    doubts = [visible(doubt) for doubt in doubts]
    content: dict[str, Any] = {
        "summary": summary(found), **found, "text": results.bounded(result.text),
        "packets": result.packets, "incomplete": not result.is_complete,
        "doubts": doubts,
    }  # fmt: skip
    if label:
        content["label"] = label
    findings: tuple[Finding, ...] = ()
    if doubts:
        findings = (
            Finding(at=now, device=device, severity=Severity.WARNING, code="DOUBTFUL_RESULT", text=" ".join(doubts),
                    interaction=interaction),
        )  # fmt: skip
    said = f"This result is {label}." if label else ""
    if not result.is_complete:
        text = f"{incomplete_text(result)} {said}".rstrip()
        return Answer(execution=Execution.FAILURE, code="INCOMPLETE", text=text, result=content, findings=findings)
    facts = {}
    if is_readout and not doubts:
        facts = {name: found[name] for name in ("identification", "meter_serial") if found[name]}
    text = " ".join([*([said] if said else []), *doubts])
    return Answer(result=content, text=text, samples=samples, facts=facts, findings=findings)


_Part = tuple[dict[str, Any], tuple[SampleSet, ...], list[str]]


def _readout(result: TextResult, device: str, now: datetime, interaction: int | None) -> _Part:
    parsed = iec.parse_readout(_octets(result))
    found = results.readout(
        parsed, identification=result.identification_text, check=result.block_check.verdict.value
    )  # fmt: skip
    doubts = _text_doubts(result, parsed.damages)
    if len(parsed.data_sets) > results.MAX_ROWS:
        doubts.append(results.CUT_ROWS)
    samples = results.readout_samples(parsed.data_sets, device, now, interaction) if result.is_complete else ()
    return found, samples, doubts


def _text_doubts(result: TextResult, damages: Sequence[iec.Damage]) -> list[str]:
    doubts = []
    check = result.block_check
    if check.verdict in (BlockVerdict.BAD, BlockVerdict.MISSING):
        doubts.append(check.sentence)
    if result.is_complete and not has_end_line(_octets(result)):
        doubts.append(results.NO_END)
    return doubts + results.damage_doubts(damages)


def _profile(result: TextResult, device: str, now: datetime, interaction: int | None) -> _Part:
    parsed = iec.parse_profile(_octets(result))
    tables = parsed.tables()
    doubts = [doubt for doubt in _text_doubts(result, parsed.damages) if doubt != results.NO_END]
    found = results.profile(parsed, tables, check=result.block_check.verdict.value)
    if any(len(table.rows) > results.MAX_ROWS for table in tables):
        doubts.append(results.CUT_ROWS)
    samples = results.profile_samples(tables, device, interaction) if result.is_complete else ()
    return found, samples, doubts


def log_answer(result: TextResult) -> Answer:
    """8.3. ``NO-LOG`` alone means that there is nothing."""
    is_empty = result.is_complete and result.data.strip() == av.NO_LOG
    text = "" if is_empty else visible(av.mask_address(result.text))
    content = {
        "text": text, "lines": text.splitlines(), "is_empty": is_empty, "incomplete": not result.is_complete,
    }  # fmt: skip
    if not result.is_complete:
        return Answer(execution=Execution.FAILURE, code="INCOMPLETE", text=incomplete_text(result), result=content)
    return Answer(result=content, text="The gateway has no log." if is_empty else "")


def directives_answer(result: DirectiveResult) -> Answer:
    """8.8. Damaged entries are told and cost the others nothing."""
    entries = [_directive(entry) for entry in result.entries]
    damaged = sum(1 for entry in entries if entry["fault"])
    content = {"directives": entries, "is_open_ended": result.is_open_ended, "incomplete": not result.is_complete}
    if not result.is_complete:
        text = f"The list is incomplete: {result.reason}. Ask again; what came is kept here."
        return Answer(execution=Execution.FAILURE, code="INCOMPLETE", text=text, result=content)
    said = [f"{damaged} of {len(entries)} entries are damaged."] if damaged else []
    if result.is_open_ended:
        said.append("The gateway said that more follows, and nothing came.")
    return Answer(result=content, text=" ".join(said))


def _directive(entry: DirectiveEntry) -> dict[str, Any]:
    directive = None if entry.value is None else av.directive_of(entry.value)
    known = directive is not None
    return {
        "number": entry.number,
        "id": directive.id if directive is not None else "",
        "steps": [
            {"operation": step.operation, "parameter": step.parameter}
            for step in (directive.steps if directive is not None else ())
        ],
        "warnings": list(av.directive_warnings(directive)) if directive is not None else [],
        "text": visible(show(entry.raw)),
        "fault": entry.fault or ("" if known else "it has a form that is not known"),
    }


NO_DIRECTIVES: Final = Answer(
    result={"directives": [], "is_open_ended": False, "incomplete": False}, text="The gateway stores no such directive."
)


def number_text(value: float) -> str:
    """Seconds for a sentence."""
    return format(Decimal(str(round(value, 1))).normalize(), "f")
