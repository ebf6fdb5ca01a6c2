"""What the module link offers, and what its messages become: tables and pure functions.

Section numbers are those of specs/quecpython-rfc1662.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.adapters import _quecpython_answers as answers
from app.adapters import _quecpython_backends as backends
from app.adapters._quecpython_payload import Payload
from app.errors import ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, Resend, Risk
from app.model.line import LineFormat
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import (
    PROFILES,
    QUECTEL,
    ErrorKind,
    FcsOrder,
    Frame,
    FrameError,
    Profile,
    Spoil,
    encode_frame,
)

METER: Final = "meter"
MODULE: Final = "module"
SERVER: Final = "server"
PASSTHROUGH: Final = "passthrough"
TAP: Final = "tap"
MAX_DATA: Final = 20_000  # characters of a command's data, so octets at most
MAX_FRAME_PAYLOAD: Final = 1024  # one TCP read of the module is one frame (section 6)
DEFAULT_FORMAT: Final = "115200 8N1"
DEFAULT_PORT: Final = 10025
DEFAULT_ANSWERS: Final = (
    "0x8005 = text:204536110042\n0x8007 = text:METER\n0x8003 = u8:23\n0x8002 = u8:1\n0x2801 = str:internet\n"
    "0x2804 = u8:0\n0x280A = u8:23\n0x280B = str:89860000000000000000\n0x280C = str:860000000000000\n0x282B = u16:180"
)
EXTRA_S: Final = 30.0  # the pipeline's time-out comes so much later than the adapter's, which says more
MASK: Final = "***"
NO_HANDLER: Final = (
    "No answer is the expected result with the stock firmware: it has no handler for this channel. A firmware with "
    "one answers within the time set in the connection."
)
FIN_WARNING: Final = (
    "The stock firmware takes an orderly close for data: it spins at full load and never connects again until it is "
    "restarted. Close with a reset (DROP_MODULE) unless that is what you test."
)
_PASSWORD_ID: Final = re.compile(rb"\x28\x03|\x03\x28")


# ---------------------------------------------------------------- the connection form


def _choice(name: str, title: str, default: str, choices: Sequence[tuple[str, str]], description: str) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.CHOICE, required=False, default=default, choices=tuple(choices),
        help=description,
    )  # fmt: skip


def _number(name: str, title: str, default: int, least: int, most: int, unit: str, description: str) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, type=ParamType.INTEGER, required=False, default=default, minimum=least, maximum=most,
        unit=unit, help=description,
    )  # fmt: skip


def _text(name: str, title: str, default: str, most: int, description: str, pattern: str | None = None) -> ParamSpec:
    return ParamSpec(
        name=name, title=title, required=False, default=default, max_bytes=most, help=description, pattern=pattern
    )


_FIELDS: Final[tuple[ParamSpec, ...]] = (
    _choice(
        "role", "Role of this computer", METER,
        ((METER, "Meter: tests a module"), (MODULE, "Module: tests a meter"),
         (SERVER, "Server that modules connect to"), (PASSTHROUGH, "Passthrough between TCP and serial line")),
        "Who the program plays on the link.",
    ),
    ParamSpec(
        name="line", title="Line", type=ParamType.PORT, required=False, default="", max_bytes=255,
        help="Serial port or its URL; not used by the server.",
    ),
    _text("format", "Line format", DEFAULT_FORMAT, 20, "Rate and character, for example 115200 8N1 or 9600 8N1."),
    ParamSpec(
        name="rs485", title="RS-485 driver by RTS", type=ParamType.BOOLEAN, required=False, default=False,
        help="Switch the driver of an RS-485 adapter by RTS while sending.",
    ),
    _choice(
        "profile", "Frame profile", QUECTEL.name,
        (("quectel", "quectel: length, no stuffing, FCS high octet first"),
         ("rfc1662", "rfc1662: octet stuffing, FCS low octet first"),
         ("auto", "auto: begin with quectel and follow the peer")),
        "What the stock firmware does is quectel.",
    ),
    _choice(
        "fcs_order", "Order of the FCS", "profile",
        (("profile", "As the profile says"), ("msb", "High octet first"), ("lsb", "Low octet first")),
        "For a peer whose FCS order is not that of its profile.",
    ),
    _text("accm", "ACCM", "00000000", 8, "Characters that are escaped besides 7E and 7D, profile rfc1662; 8 hex "
          "digits, FFFFFFFF escapes all control characters.", "[0-9A-Fa-f]{8}"),
    _choice("dialect", "Dialect", "G2", (("G2", "G2: published since 2023"), ("G1", "G1: its predecessor")),
            "Order of the request id and form of strings."),
    _number("link_octet", "Link octet", 0, 0, 255, "", "Sent in each frame, for example the signal quality 0..31 or "
            "99. Other values than 0 are dropped by peers that compare 16 bits; the stock firmware is one."),
    _number("timeout_ms", "Wait for an answer", 2000, 50, 600_000, "ms", "From the frame to its answer."),
    _number("pause_ms", "Pause between frames", 20, 0, 5000, "ms", "The stock firmware loses two frames that arrive "
            "in one read."),
    _text("answers", "Answers", DEFAULT_ANSWERS, 20_000, "One line per parameter, for example 0x8005 = "
          "text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error."),
    _choice("unknown", "Parameters without answer", "error",
            (("error", "Answer with an error"), ("silent", "Do not answer"), ("accept", "Take what is written")),
            "What is said of a parameter that does not stand in the answers."),
    ParamSpec(name="apn_password", title="APN password", type=ParamType.SECRET, required=False, default="",
              max_bytes=251, help="Answer for 0x2803."),
    _choice("event_ack", "Acknowledge events", "auto",
            (("auto", "As the dialect does"), ("G2", "G2 form"), ("G1", "G1 form"), ("none", "Not at all")),
            "Role module and passthrough."),
    ParamSpec(name="at_lines", title="Answer AT lines", type=ParamType.BOOLEAN, required=False, default=True,
              help="Role module: text lines with AT next to frames. Values stand in the answers: AT+CSQ = 23."),
    _choice("backend", "Answer to transparent payload", "none", tuple(backends.NAMES.items()),
            "Role meter: what answers what the head-end sends."),
    _text("script", "Script", "", 20_000, "One line per answer: text:/?!\\r\\n => text:/MWT5METER\\r\\n, "
          "hex:00 01 => hex:00 02, re:.* => echo. The first that fits answers."),
    _number("split", "Octets per frame", MAX_FRAME_PAYLOAD, 1, MAX_FRAME_PAYLOAD, "", "A longer payload is sent in "
            "several frames."),
    _number("deaf_s", "Deaf after start", 0, 0, 3600, "s", "Role module: the UART is deaf until the network is up."),
    _text("listen_host", "Listen on", "127.0.0.1", 253, "Address of this computer that modules connect to; "
          "127.0.0.1: only from here, 0.0.0.0: from everywhere. The link is in clear text and has no login."),
    _number("listen_port", "Listen on port", DEFAULT_PORT, 0, 65535, "", "0: any free one."),
    _text("identity", "Identity of the module", "", 64, "Device below a server: the digits of its login (ICCID), or "
          "the address it connects from, with or without :port."),
    _text("poll", "Identify by asking", "", 500, "Server: sent to a module that does not log in, for example "
          "text:/?!\\r\\n or hex:7EA0...; its first digits are the identity. Empty: nothing is sent."),
    _choice("mode", "Passthrough", MODULE,
            ((MODULE, "As the module: TCP payload in frames"), (TAP, "Tap: octets as they are, with a decoded copy")),
            "What happens between the two sides."),
    ParamSpec(
        name="other", title="Other side", type=ParamType.PORT, required=False, default="", max_bytes=255,
        help="Passthrough: socket://HOST:PORT to connect to, or a second serial port; empty: listen on the address "
             "above.",
    ),
    _choice("other_channels", "Other channels", "answer",
            (("answer", "Answer from the table"), ("ignore", "Show only")),
            "Passthrough as the module: channels 22 to 24."),
)  # fmt: skip


_ON_A_LINE: Final = (METER, MODULE, PASSTHROUGH)
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {  # of what does not concern every role
    **dict.fromkeys(
        ("line", "format", "rs485", "profile", "fcs_order", "accm", "dialect", "link_octet", "pause_ms", "answers",
         "unknown", "apn_password", "split"),
        _ON_A_LINE,
    ),
    **dict.fromkeys(("backend", "script"), (METER,)),
    **dict.fromkeys(("at_lines", "deaf_s"), (MODULE,)),
    "event_ack": (MODULE, PASSTHROUGH),
    **dict.fromkeys(("listen_host", "listen_port"), (SERVER, PASSTHROUGH)),
    **dict.fromkeys(("identity", "poll"), (SERVER,)),
    **dict.fromkeys(("mode", "other", "other_channels"), (PASSTHROUGH,)),
}  # fmt: skip
FORM: Final[tuple[ParamSpec, ...]] = tuple(
    replace(
        spec,
        only_for={"role": _ROLES[spec.name]} if spec.name in _ROLES else {},
        is_multiline=spec.name in ("answers", "script"),
    )
    for spec in _FIELDS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A device's checked settings, parsed."""

    role: str
    mode: str
    line: str
    other: str
    format: LineFormat
    rs485: bool
    profile: Profile
    is_auto: bool
    dialect: quec.Dialect
    link: int
    timeout_s: float
    pause_s: float
    entries: Mapping[int, answers.Entry] = field(repr=False)
    at_values: Mapping[str, str] = field(repr=False)
    unknown: str
    ack: quec.Dialect | None
    at_lines: bool
    backend: str
    script: str = field(repr=False)
    split: int
    deaf_s: float
    host: str
    port: int
    poll: bytes
    answers_channels: bool


def config_of(settings: Mapping[str, Any]) -> Config:
    """Parse checked settings.

    Raises:
        ParameterError: which setting is wrong, and how.
    """
    table = answers.parse(settings["answers"])
    entries = dict(table.entries)
    if settings["apn_password"]:
        octets = settings["apn_password"].encode()
        before = entries.get(answers.APN_PASSWORD, answers.Entry(answers.APN_PASSWORD))
        entries[answers.APN_PASSWORD] = replace(before, tag=quec.Tag.STR, octets=octets)
    backends.make(settings["backend"], settings["script"], "")  # tells what is wrong with the script
    is_auto = settings["profile"] == "auto"
    profile = replace(QUECTEL if is_auto else PROFILES[settings["profile"]], accm_tx=int(settings["accm"], 16))
    if settings["fcs_order"] != "profile":
        profile = replace(profile, fcs_order=FcsOrder(settings["fcs_order"]))
    dialect = quec.G1 if settings["dialect"] == "G1" else quec.G2
    ack = {"auto": dialect, "G2": quec.G2, "G1": quec.G1, "none": None}[settings["event_ack"]]
    if settings["role"] != SERVER and not settings["line"].strip():
        raise ParameterError("Choose the line: a serial port, or the URL of one.", "line")
    return Config(
        role=settings["role"], mode=settings["mode"], line=settings["line"].strip(), other=settings["other"].strip(),
        format=LineFormat.parse(settings["format"]), rs485=settings["rs485"], profile=profile, is_auto=is_auto,
        dialect=dialect, link=settings["link_octet"], timeout_s=settings["timeout_ms"] / 1000,
        pause_s=settings["pause_ms"] / 1000, entries=entries, at_values=table.at_values, unknown=settings["unknown"],
        ack=ack, at_lines=settings["at_lines"], backend=settings["backend"], script=settings["script"],
        split=settings["split"], deaf_s=float(settings["deaf_s"]), port=settings["listen_port"],
        host=settings["listen_host"].strip() or "127.0.0.1", poll=_poll_of(settings["poll"]),
        answers_channels=settings["other_channels"] == "answer",
    )  # fmt: skip


def _poll_of(text: str) -> bytes:
    return payload_of(text, "poll") if text else b""


def payload_of(text: str, parameter: str) -> bytes:
    """Octets of ``text:...`` with escapes, or of hex digits with or without ``hex:``.

    Raises:
        ParameterError: it is neither.
    """
    try:
        if text.startswith("text:"):
            return answers.unescape(text.removeprefix("text:"))
        return answers.read_hex(text.removeprefix("hex:"))
    except ValueError as exc:
        raise ParameterError(f"{str(exc).rstrip('.')}. Write hex digits, or text: and the text.", parameter) from None


def setting(settings: Mapping[str, Any], name: str) -> Any:
    """A setting of a device as it stands there, or its default; unchecked."""
    given = settings.get(name)
    return given if given not in (None, "") else next(spec.default for spec in FORM if spec.name == name)


def role_of(settings: Mapping[str, Any]) -> str:
    """meter, module, server, passthrough or tap."""
    role = str(setting(settings, "role"))
    return TAP if role == PASSTHROUGH and setting(settings, "mode") == TAP else role


# ---------------------------------------------------------------- commands

_HEX_OR_TEXT: Final = "Hex digits, or text: and the text with \\r, \\n and \\xHH."
_ID: Final = r"0[xX][0-9A-Fa-f]{1,4}"
_PID: Final = ParamSpec(name="parameter", title="Parameter", pattern=_ID, help="For example 0x8005.")
_KIND: Final = ParamSpec(
    name="type", title="Type", type=ParamType.CHOICE, required=False, default="auto",
    choices=(("auto", "as the parameter has it, else STR"), ("str", "STR (09)"), ("char", "CHAR (0A)"),
             ("u8", "INT8U (11)"), ("u16", "INT16U (12)"), ("u32", "INT32U (06)"), ("time", "date-time (19)"),
             ("text", "raw text"), ("hex", "raw, in hex")),
)  # fmt: skip
_VALUE: Final = ParamSpec(name="value", title="Value", required=False, default="", max_bytes=4000)
_SECRET: Final = ParamSpec(
    name="secret", title="APN password", type=ParamType.SECRET, required=False, default="", max_bytes=251,
    help="Only for 0x2803, instead of the value; it is never shown.",
)  # fmt: skip
_CARRIER: Final = ParamSpec(
    name="carrier", title="Carrier id", required=False, default="0x8002", pattern=_ID,
    help="The parameter id that stands before the function command word; which one real meters use is not known.",
)  # fmt: skip
_DATA: Final = ParamSpec(name="data", title="Data", max_bytes=MAX_DATA, help=_HEX_OR_TEXT)
_WAIT: Final = ParamSpec(
    name="wait_ms", title="Listen for", type=ParamType.INTEGER, required=False, default=0, minimum=0, maximum=600_000,
    unit="ms", help="0: as long as an answer is waited for; a server waits 10 s at least.",
)  # fmt: skip
_AWAIT: Final = ParamSpec(
    name="await_answer", title="Wait for an answer", type=ParamType.BOOLEAN, required=False, default=True
)
_MODULE: Final = ParamSpec(
    name="module", title="Module", required=False, default="", max_bytes=64,
    help="Identity or address:port of the module as in the table; empty: the only one that is connected.",
)  # fmt: skip


def parameter_id(text: str) -> int:
    """``0x8005`` as a number."""
    return int(text, 16)


_KIND_OF_WORD: Final[Mapping[str, str]] = {"": "str", "raw": "text", "long": "hex", "datetime": "time"}


def value_of(params: Mapping[str, Any]) -> tuple[quec.Tag | None, bytes]:
    """Tag (None: raw) and octets of a command's value.

    Raises:
        ParameterError: what is wrong with it.
    """
    if parameter_id(params["parameter"]) == answers.APN_PASSWORD:
        if params.get("value"):
            raise ParameterError("The APN password has a field of its own, where it is not shown; leave the value "
                                 "empty.", "value")  # fmt: skip
        return quec.Tag.STR, str(params.get("secret") or "").encode()
    kind = params["type"]
    if kind == "auto":
        word = quec.words().get(parameter_id(params["parameter"]))
        kind = _KIND_OF_WORD.get(word.tag, word.tag) if word is not None else "str"
    try:
        return answers.read_value(kind, params["value"])
    except ValueError as exc:
        raise ParameterError(f"The value is wrong: {str(exc).rstrip('.')}.", "value") from None


def _wrong_value(params: Mapping[str, Any]) -> str:
    try:
        value_of(params)
    except ParameterError as exc:
        return str(exc)
    return ""


def _wrong_data(params: Mapping[str, Any]) -> str:
    try:
        is_empty = not payload_of(params["data"], "data")
    except ParameterError as exc:
        return str(exc)
    return "There is no data. An empty payload does not exist on this link." if is_empty else ""


def _wrong_frame(params: Mapping[str, Any]) -> str:
    try:
        raw = payload_of(params["raw"], "raw")
        payload_of(params["body"], "body")
    except ParameterError as exc:
        return str(exc)
    if raw and params["fault"] not in ("none", ""):
        return "Raw octets are sent as they are; choose no fault, or enter channel, command and body."
    return ""


GET_PARAMETER: Final = CommandSpec(
    name="GET_PARAMETER", title="Read module parameter", kind=CommandKind.READ, params=(_PID, _CARRIER),
    help="Channel 23. Expect no answer from the stock firmware.",
)  # fmt: skip
SET_PARAMETER: Final = CommandSpec(
    name="SET_PARAMETER", title="Write module parameter", kind=CommandKind.WRITE, risk=Risk.WRITE, resend=Resend.NEVER,
    verb="Write to {device}", params=(_PID, _KIND, _VALUE, _SECRET, _CARRIER), check=_wrong_value,
    help="Channel 23. Expect no answer from the stock firmware.",
)  # fmt: skip
SEND_EVENT: Final = CommandSpec(
    name="SEND_EVENT", title="Send event", kind=CommandKind.CONTROL, resend=Resend.NEVER, check=_wrong_data,
    params=(
        _DATA,
        ParamSpec(name="command", title="Command octet", type=ParamType.CHOICE, required=False, default="BF",
                  choices=(("BF", "BF"), ("C2", "C2 EVENT"))),
    ),
    help="Channel 24. Expect no acknowledgement from the stock firmware.",
)  # fmt: skip
SEND_TRANSPARENT: Final = CommandSpec(
    name="SEND_TRANSPARENT", title="Send transparent data", kind=CommandKind.CONTROL, resend=Resend.NEVER,
    check=_wrong_data,
    params=(
        _DATA,
        _AWAIT,
    ),
    help="Channel 21, in frames of at most the set size.",
)  # fmt: skip
SEND_FRAME: Final = CommandSpec(
    name="SEND_FRAME", title="Send a frame", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS, resend=Resend.NEVER,
    verb="Send to {device}", check=_wrong_frame,
    params=(
        ParamSpec(name="raw", title="Raw octets", required=False, default="", max_bytes=20_000,
                  help=f"{_HEX_OR_TEXT} Sent as they are; empty: the frame is built from the fields below."),
        ParamSpec(name="channel", title="Channel", required=False, default="0x2100",
                  pattern=r"0[xX][0-9A-Fa-f]{4}", help="For example 0x2100; the low octet is the link octet."),
        ParamSpec(name="command", title="Command octet", required=False, default="0xBF",
                  pattern=r"0[xX][0-9A-Fa-f]{1,2}"),
        ParamSpec(name="body", title="Body", required=False, default="", max_bytes=20_000, help=_HEX_OR_TEXT),
        ParamSpec(name="fault", title="Fault", type=ParamType.CHOICE, required=False, default="none",
                  choices=(("none", "none"), ("bad-fcs", "wrong FCS"), ("swapped-fcs", "FCS octets swapped"),
                           ("bad-length", "wrong length"), ("no-end-flag", "no closing flag"),
                           ("half", "half a frame"))),
        ParamSpec(name="profile", title="Frame profile", type=ParamType.CHOICE, required=False, default="connection",
                  choices=(("connection", "as the connection"), ("quectel", "quectel"), ("rfc1662", "rfc1662"))),
        _WAIT,
    ),
    warning="Whatever stands there is sent, right or wrong.",
)  # fmt: skip
BURST_TEST: Final = CommandSpec(
    name="BURST_TEST", title="Burst test", kind=CommandKind.CONTROL, resend=Resend.NEVER,
    params=(
        ParamSpec(name="what", title="Frames", type=ParamType.CHOICE, required=False, default="get",
                  choices=(("get", "two GET requests"), ("data", "two transparent payloads"))),
        ParamSpec(name="shared_flag", title="One flag between them", type=ParamType.BOOLEAN, required=False,
                  default=False),
        _WAIT,
    ),
    help="Two frames in one write. The stock firmware loses both.",
)  # fmt: skip
AT: Final = CommandSpec(
    name="AT", title="Send AT line", kind=CommandKind.CONTROL, resend=Resend.NEVER,
    params=(
        ParamSpec(name="line", title="Line", pattern=r"[Aa][Tt][ -~]{0,250}",
                  help="For example AT+CSQ?; CR LF is added. Only modules of the first generation answer."),
        ParamSpec(name="secret", title="Password", type=ParamType.SECRET, required=False, default="", max_bytes=200,
                  help="Added behind the line, for AT+MPWD=; it is never shown."),
    ),
)  # fmt: skip
METER_COMMANDS: Final = (
    GET_PARAMETER, SET_PARAMETER, SEND_EVENT, SEND_TRANSPARENT, SEND_FRAME, BURST_TEST, AT,
)  # fmt: skip

READ_SERIAL: Final = CommandSpec(
    name="READ_SERIAL", title="Read serial number", kind=CommandKind.READ, help="0x8005 over channel 22.",
)  # fmt: skip
GET_METER_PARAMETER: Final = CommandSpec(
    name="GET_METER_PARAMETER", title="Read meter parameter", kind=CommandKind.READ, params=(_PID,), help="Channel 22.",
)  # fmt: skip
SET_METER_PARAMETER: Final = CommandSpec(
    name="SET_METER_PARAMETER", title="Write meter parameter", kind=CommandKind.WRITE, risk=Risk.WRITE,
    resend=Resend.NEVER, verb="Write to {device}", check=_wrong_value,
    params=(
        _PID, _KIND, _VALUE, _SECRET,
        ParamSpec(name="request_id", title="Request id", required=False, default="", pattern=_ID,
                  help="Of a typed value; empty: the parameter itself."),
    ),
    help="Channel 22. 0x8003, 0x8005, 0x8007 and 0x3007 to 0x300A take raw values, the others typed ones.",
)  # fmt: skip
START_UP: Final = CommandSpec(
    name="START_UP", title="Play the start of a module", kind=CommandKind.READ,
    help="Deaf for the time that is set, then the serial number is read, then idle.",
)  # fmt: skip
MODULE_COMMANDS: Final = (
    READ_SERIAL, GET_METER_PARAMETER, SET_METER_PARAMETER, SEND_TRANSPARENT, START_UP, SEND_FRAME, BURST_TEST,
)  # fmt: skip

SEND: Final = CommandSpec(
    name="SEND", title="Send", kind=CommandKind.CONTROL, resend=Resend.NEVER, check=_wrong_data,
    params=(
        _DATA,
        _AWAIT,
        _WAIT,
    ),
    help="To the meter through the module, in writes of at most the set size: one write is one frame there.",
)  # fmt: skip
POLL_SERIAL: Final = CommandSpec(
    name="POLL_SERIAL", title="Ask who is there", kind=CommandKind.READ, params=(),
    help="Sends what is set under Identify by asking, and takes the first digits of the answer for the identity.",
)  # fmt: skip
DROP_MODULE: Final = CommandSpec(
    name="DROP_MODULE", title="Drop module", kind=CommandKind.CONTROL, risk=Risk.WRITE, verb="Drop {device}",
    help="Closes with a reset, which the stock firmware notices.",
)  # fmt: skip
CLOSE_IN_ORDER: Final = CommandSpec(
    name="CLOSE_IN_ORDER", title="Close in order (FIN)", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS,
    resend=Resend.NEVER, verb="Close {device}", warning=FIN_WARNING,
)  # fmt: skip
SERVER_CHILD_COMMANDS: Final = (SEND, POLL_SERIAL, DROP_MODULE, CLOSE_IN_ORDER)
LIST_MODULES: Final = CommandSpec(
    name="LIST_MODULES", title="List modules", kind=CommandKind.READ, reaches_device=False,
    help="Who is connected, with counters.",
)  # fmt: skip
SERVER_COMMANDS: Final = (
    LIST_MODULES, *(replace(spec, params=(_MODULE, *spec.params)) for spec in SERVER_CHILD_COMMANDS),
)  # fmt: skip
_BY_ROLE: Final[Mapping[str, tuple[CommandSpec, ...]]] = {
    METER: METER_COMMANDS, MODULE: MODULE_COMMANDS, PASSTHROUGH: MODULE_COMMANDS, TAP: (), SERVER: SERVER_COMMANDS,
}  # fmt: skip
ALL_COMMANDS: Final[Mapping[str, CommandSpec]] = {
    spec.name: spec for group in (*_BY_ROLE.values(), SERVER_CHILD_COMMANDS) for spec in group
}


def commands(settings: Mapping[str, Any], *, is_child: bool) -> tuple[CommandSpec, ...]:
    """What a device of these settings can do, with its time-outs."""
    role = role_of(settings)
    offered = SERVER_CHILD_COMMANDS if role == SERVER and is_child else _BY_ROLE.get(role, ())
    return tuple(_timed(spec, settings) for spec in offered)


def longest_s(settings: Mapping[str, Any]) -> float:
    """How long one exchange may take by the settings, with room for pauses."""
    return _seconds(settings, "timeout_ms") / 1000 * 2 + EXTRA_S


def _timed(spec: CommandSpec, settings: Mapping[str, Any]) -> CommandSpec:
    if spec.name == START_UP.name:
        return replace(spec, answer_timeout_s=_seconds(settings, "deaf_s") + longest_s(settings))
    if spec.param(_WAIT.name) is not None:
        return replace(spec, answer_timeout_s=float(_WAIT.maximum or 0) / 1000 + longest_s(settings))
    if spec.name == SEND_TRANSPARENT.name:
        return replace(spec, answer_timeout_s=_sending_s(settings) + longest_s(settings))
    return spec


def _sending_s(settings: Mapping[str, Any]) -> float:
    """How long the longest payload takes on the line."""
    try:
        line_format = LineFormat.parse(str(setting(settings, "format")))
    except ParameterError:
        line_format = LineFormat.parse(DEFAULT_FORMAT)
    frames = MAX_DATA / max(1.0, _seconds(settings, "split"))
    return line_format.seconds(MAX_DATA) + frames * (_seconds(settings, "pause_ms") / 1000 + line_format.seconds(11))


def _seconds(settings: Mapping[str, Any], name: str) -> float:
    try:
        return float(setting(settings, name))
    except (TypeError, ValueError):
        return float(next(spec.default for spec in FORM if spec.name == name))


def unsupported(settings: Mapping[str, Any], *, is_child: bool) -> dict[str, str]:
    """What other roles can do, with the reason why this one cannot."""
    role = role_of(settings)
    own = {spec.name for spec in commands(settings, is_child=is_child)}
    where = "module below this server" if role == SERVER and not is_child else "role that has it"
    reason = f"This connection plays {_ROLE_WORDS[role]}; choose a {where}."
    return {name: reason for name in ALL_COMMANDS if name not in own}


_ROLE_WORDS: Final = {
    METER: "the meter", MODULE: "the module", SERVER: "the server", PASSTHROUGH: "the module between TCP and a line",
    TAP: "the listener between two sides",
}  # fmt: skip


# ---------------------------------------------------------------- results

REPORT_NAMES: Final[Mapping[type, str]] = {
    quec.Transparent: "TRANSPARENT", quec.GetRequest: "GET_REQUEST", quec.GetResponse: "GET_RESPONSE",
    quec.GetError: "GET_ERROR", quec.SetRequest: "SET_REQUEST", quec.SetResponse: "SET_RESPONSE",
    quec.Event: "EVENT", quec.EventAcknowledge: "EVENT_ACKNOWLEDGE", quec.Other: "MESSAGE", quec.Malformed: "MALFORMED",
}  # fmt: skip


def report_name(message: quec.Message) -> str:
    """Name of the row that a received message becomes."""
    return REPORT_NAMES.get(type(message.body), "MESSAGE")


def word_name(number: int) -> str:
    """``0x8005 meter serial number``."""
    word = quec.words().get(number)
    return f"0x{number:04X} {word.name}" if word is not None and word.name else f"0x{number:04X}"


def message_result(
    message: quec.Message, direction: str, *, fcs: str = "good", errors: Sequence[str] = ()
) -> dict[str, Any]:
    """The row of one message (design: module link)."""
    tree = quec.decoded(message)
    wrong = list(errors)
    if isinstance(message.body, quec.Malformed):
        wrong.append(message.body.sentence)
    return {
        "summary": summary(message),
        "direction": direction,
        "channel": f"0x{message.protocol:04X}",
        "command": f"0x{message.command:02X}",
        "link": message.link,
        "body": _masked_body(message).hex(),
        "decoded": tree,
        "fcs": fcs,
        "errors": wrong,
        "raw": quec.masked_raw(message).hex(),
    }


def _masked_body(message: quec.Message) -> bytes:
    body = message.frame.body
    content = getattr(message.body, "content", None)
    if not is_secret(message) or not isinstance(content, quec.Typed | quec.Raw) or not content.octets:
        return body
    head, _octets, tail = body.rpartition(content.octets)
    return head + b"*" * len(content.octets) + tail


def is_secret(message: quec.Message) -> bool:
    """Whether the message carries the value of a masked word."""
    return quec.masked_raw(message) != message.frame.raw


def summary(message: quec.Message) -> str:
    """One line for the log."""
    body = message.body
    match body:
        case quec.Transparent():
            return f"transparent, {len(body.payload)} octets{_shown(body.payload)}"
        case quec.GetRequest():
            asked = body.rid if body.rid is not None else body.pid
            return f"GET {word_name(asked)}"
        case quec.GetResponse():
            return f"GET response {word_name(_subject(body))}: {value_text(message)}"
        case quec.GetError():
            return f"GET error {word_name(body.pid)}: {quec.status_text(body.status)}"
        case quec.SetRequest():
            return f"SET {word_name(_subject(body))} = {value_text(message)}"
        case quec.SetResponse():
            said = quec.status_text(body.status) if body.status is not None else f"{len(body.block)} octets"
            return f"SET response {word_name(body.pid)}: {said}"
        case quec.Event():
            return f"event, {len(body.payload)} octets"
        case quec.EventAcknowledge():
            return "event acknowledged"
        case quec.Malformed():
            return f"malformed {quec.command_name(body.command)}"
        case _:
            return f"command 0x{message.command:02X}, {len(message.frame.body)} octets"


def _subject(body: quec.GetResponse | quec.SetRequest) -> int:
    return body.content.rid if isinstance(body.content, quec.Typed) else body.pid


def value_text(message: quec.Message) -> str:
    """The value in a GET response or SET request, masked where it is a secret."""
    if is_secret(message):
        return MASK
    content = getattr(message.body, "content", None)
    if isinstance(content, quec.Typed | quec.Raw):
        return content.text or content.octets.hex()
    return ""


def value_json(message: quec.Message) -> Any:
    """The same for a result: a number, a text, or hex."""
    if is_secret(message):
        return MASK
    content = getattr(message.body, "content", None)
    if isinstance(content, quec.Typed) and content.value is not None:
        return content.value
    return value_text(message)


def _shown(payload: bytes) -> str:
    """A short payload behind a colon, as text where it is."""
    if len(payload) > 60:
        return ""
    text = payload.decode("latin-1")
    plain = text.strip("\r\n")
    return f": {plain}" if plain and plain.isascii() and plain.isprintable() else f": {payload.hex()}"


def error_result(error: FrameError, profile: Profile, dialect: quec.Dialect, direction: str) -> dict[str, Any]:
    """The row of a damaged frame, decoded as far as it goes."""
    frame = _of_damaged(error, profile)
    fcs = "swapped" if error.swapped else "bad"
    if frame is not None:
        return message_result(quec.decode(frame, dialect), direction, fcs=fcs, errors=(error.sentence,))
    return {
        "summary": error.sentence,
        "direction": direction,
        "channel": "",
        "command": "",
        "link": None,
        "body": "",
        "decoded": {"kind": str(error.kind)},
        "fcs": fcs,
        "errors": [error.sentence],
        "raw": masked_damage(error.octets).hex(),
    }


def _of_damaged(error: FrameError, profile: Profile) -> Frame | None:
    """What a frame with a wrong FCS would say; None where it cannot be cut."""
    octets = error.octets
    if error.kind is not ErrorKind.BAD_FCS or profile.stuffing or len(octets) < 11:
        return None
    return Frame(octets[3], octets[4], octets[7], octets[8:-3], octets)


def masked_damage(octets: bytes) -> bytes:
    """Octets of a damaged frame, from the id of the APN password on hidden, and passwords of AT lines."""
    found = _PASSWORD_ID.search(octets)
    if found is not None:
        octets = octets[: found.end()] + b"*" * (len(octets) - found.end())
    return quec.masked(octets)


def line_text(line: quec.AtCommand | quec.AtReply | quec.TextLine) -> str:
    """A line of text without its end; passwords hidden."""
    octets = line.text.encode("ascii", "replace") if isinstance(line, quec.TextLine) else quec.encode_at(line)
    return quec.masked(octets).decode("ascii").rstrip()


def text_result(line: quec.AtCommand | quec.AtReply | quec.TextLine, direction: str, reply: str = "") -> dict[str, Any]:
    """The row of a line of text between frames."""
    text = line_text(line)
    kind = {quec.AtCommand: "at_command", quec.AtReply: "at_reply"}.get(type(line), "text")
    result: dict[str, Any] = {
        "summary": f"text line: {text}", "direction": direction, "channel": "", "command": "", "link": None,
        "body": text.encode("ascii").hex(), "decoded": {"kind": kind, "text": text}, "fcs": "", "errors": [],
    }  # fmt: skip
    if reply:
        result["reply"] = {"text": reply}
    return result


def payload_result(payload: Payload, direction: str) -> dict[str, Any]:
    """The row of one message on TCP."""
    return {
        "summary": f"{payload.kind}, {len(payload.data)} octets{_shown(payload.data)}",
        "direction": direction,
        "channel": "",
        "command": "",
        "link": None,
        "body": payload.data.hex(),
        "decoded": {"kind": payload.kind, "text": payload.text, "identity": payload.identity},
        "fcs": "",
        "errors": [],
    }


def swapped_text(profile: Profile) -> str:
    """What to do about a peer whose FCS comes in the other order."""
    if profile.fcs_order is FcsOrder.MSB:
        return (
            "The peer writes the FCS in RFC 1662 order, low octet first: choose profile rfc1662 in this connection, "
            "or, if the peer stuffs no octets, the FCS order low octet first. Its frames are not answered until then."
        )
    return (
        "The peer writes the FCS in the order of the QuecPython firmware, high octet first: choose profile quectel in "
        "this connection. Its frames are not answered until then."
    )


def burst_frames(what: str, role: str, dialect: quec.Dialect, link: int) -> tuple[Frame, Frame]:
    """The two frames of a burst."""
    bodies: tuple[quec.Body, quec.Body]
    if what == "data":
        protocol, bodies = quec.TRANSPARENT, (quec.Transparent(b"burst 1"), quec.Transparent(b"burst 2"))
    elif role == METER:
        protocol, bodies = quec.MODULE, (quec.GetRequest(0x8002, 0x2801), quec.GetRequest(0x8002, 0x280A))
    else:
        protocol, bodies = quec.METER, (quec.GetRequest(0x8005), quec.GetRequest(0x8007))
    first, second = bodies
    return quec.encode(protocol, first, dialect, link), quec.encode(protocol, second, dialect, link)


def burst_octets(first: bytes, second: bytes, *, shared_flag: bool) -> bytes:
    """Both in one piece."""
    return first + (second[1:] if shared_flag else second)


def spoil_of(fault: str) -> Spoil | None:
    """What a fault of SEND_FRAME is called in the codec."""
    return answers.SPOILS.get(fault)


def frame_of(params: Mapping[str, Any], link: int) -> Frame:
    """The frame of SEND_FRAME's fields. A channel whose low octet is not 00 brings its own link octet."""
    protocol = int(params["channel"], 16)
    own = protocol & 0xFF
    return Frame(own or link, protocol >> 8, int(params["command"], 16), payload_of(params["body"], "body"))


def wire(frame: Frame, profile: Profile) -> bytes:
    """A frame's octets on the line."""
    return encode_frame(frame, profile)


def digits_in(payload: Payload) -> str:
    """The identity in an answer to the poll: its longest run of digits, at least four; "" for none."""
    data = payload.data[5:] if payload.data.startswith(b"/") else payload.data  # behind maker and baud rate
    found = re.findall(rb"[0-9]{4,32}", data)
    return max(found, key=len).decode("ascii") if found else ""
