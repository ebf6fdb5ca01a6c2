"""What the EMS adapter offers and says: connection form, commands, results, tokens (specs/ems-websocket.md).

Section numbers are those of the specification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from app.errors import ConfigError, ParameterError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType, ReplyPattern, Resend, Risk
from app.ports import Answer, Execution
from app.protocols import ems
from app.transports.tls_make import MadeCertificate

HUB: Final = "hub"
DASHBOARD: Final = "dashboard"
LISTEN_PORT: Final = 8765
PENDING_S: Final = 600
MAKE_CERTIFICATE: Final = "MAKE_CERTIFICATE"

# ---------------------------------------------------------------- tokens (section 2: only a salted hash is stored)

_SCRYPT: Final = "scrypt"
_COST: Final = (1 << 13, 8, 1)  # N, r, p: 8 MiB and some 20 ms for one try
_MAX_COST: Final = (1 << 16, 8, 4)
_MAX_MEMORY: Final = 1 << 27  # bytes


def keep_token(words: str) -> str:
    """What is kept of a token: ``scrypt$N$r$p$salt$hash``, salt and hash as base64. A kept one stays as it is."""
    if words.startswith(f"{_SCRYPT}$"):
        return words
    salt = os.urandom(16)
    parts = (base64.b64encode(part).decode("ascii") for part in (salt, _scrypt(words, salt, *_COST)))
    return "$".join((_SCRYPT, *map(str, _COST), *parts))


def _scrypt(words: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(words.encode(), salt=salt, n=n, r=r, p=p, dklen=32, maxmem=_MAX_MEMORY)


class TokenCheck:
    """Whether a token is the right one. Holds salted hashes only, compared in constant time.

    A kept token costs some 20 ms for the first try; once it was shown, a keyed hash of this run answers at once.

    Args:
        kept: as ``keep_token`` writes it, or the words themselves.
    Raises:
        ConfigError: neither.
    """

    def __init__(self, kept: str) -> None:
        self._salt = os.urandom(32)
        self._quick: bytes | None = None
        self._slow: tuple[bytes, bytes, tuple[int, int, int]] | None = None
        if kept.startswith(f"{_SCRYPT}$"):
            self._slow = _read_kept(kept)
        elif kept:
            self._quick = self._digest(kept)
        else:
            raise ConfigError("is missing", key="token", expected="the device's token")

    def at_once(self, token: str) -> bool | None:
        """None: only ``slowly`` can tell."""
        if self._quick is None:
            return None
        return hmac.compare_digest(self._digest(token), self._quick)

    def slowly(self, token: str) -> bool:
        """To be run in a thread."""
        if self._slow is None:
            return bool(self.at_once(token))
        salt, expected, cost = self._slow
        if not hmac.compare_digest(_scrypt(token, salt, *cost), expected):
            return False
        self._quick = self._digest(token)
        return True

    def _digest(self, words: str) -> bytes:
        return hmac.digest(self._salt, words.encode(), "sha256")


def _read_kept(kept: str) -> tuple[bytes, bytes, tuple[int, int, int]]:
    try:
        _scheme, n, r, p, salt, expected = kept.split("$")
        cost = (int(n), int(r), int(p))
        raw = base64.b64decode(salt, validate=True), base64.b64decode(expected, validate=True)
    except (ValueError, binascii.Error):
        cost, raw = (0, 0, 0), (b"", b"")
    is_bounded = all(1 <= one <= most for one, most in zip(cost, _MAX_COST, strict=True))
    if not is_bounded or cost[0] < 2 or cost[0] & (cost[0] - 1) or len(raw[0]) < 8 or len(raw[1]) != 32:
        raise ConfigError("cannot be read", key="token", expected="scrypt$N$r$p$salt$hash, or the token itself")
    return *raw, cost


# ---------------------------------------------------------------- the connection form

_HUB_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {"role": (HUB,)}
_DASHBOARD_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {"role": (DASHBOARD,)}

FORM: Final = (
    ParamSpec(
        name="role", title="Role", type=ParamType.CHOICE, required=False, default=HUB,
        choices=((HUB, "Bench hub: the device dials in here"), (DASHBOARD, "Dashboard: through the head-end")),
    ),
    ParamSpec(
        name="listen_host", title="Listen on", required=False, default="127.0.0.1", max_bytes=253,
        pattern=r"[^\s/@?#]+", only_for=_HUB_ONLY,
        help="This computer's address that the device reaches; 127.0.0.1 takes local ones only. All devices with the "
        "same address and port share one hub.",
    ),
    ParamSpec(
        name="listen_port", title="Listening port", type=ParamType.INTEGER, required=False, default=LISTEN_PORT,
        minimum=0, maximum=65535, only_for=_HUB_ONLY,
    ),
    ParamSpec(
        name="token", title="Token of the device", type=ParamType.SECRET, required=False, default="", max_bytes=512,
        kept_as=keep_token, only_for=_HUB_ONLY,
        help="The device shows it as Authorization: Bearer. Only a salted hash of it is kept.",
    ),
    ParamSpec(
        name="tls", title="Encrypt (wss)", type=ParamType.BOOLEAN, required=False, default=False, only_for=_HUB_ONLY,
        help="Needs a certificate: Make certificate makes one for the device to trust.",
    ),
    ParamSpec(
        name="certificate", title="Certificate of this hub", type=ParamType.PEM, required=False, default="",
        max_bytes=16 << 10, only_for=_HUB_ONLY,
        help="Made here by Make certificate; its key is in this computer's keyring. Give a copy to the device.",
    ),
    ParamSpec(
        name="url", title="Address of the head-end", required=False, default="", max_bytes=300,
        only_for=_DASHBOARD_ONLY, help="ws://host:port or wss://host:port, without user and query.",
    ),
    ParamSpec(
        name="path", title="Path", required=False, default=ems.DASHBOARD_PATH, max_bytes=200, only_for=_DASHBOARD_ONLY,
        help=f"{{device_id}} stands for the device; some head-ends want {ems.DEVICE_PATH}.",
    ),
    ParamSpec(
        name="bearer", title="Token of this dashboard", type=ParamType.SECRET, required=False, default="",
        max_bytes=512, only_for=_DASHBOARD_ONLY, help="Sent as Authorization: Bearer, never in the address.",
    ),
    ParamSpec(
        name="trusted", title="Trusted certificate", type=ParamType.PEM, required=False, default="", max_bytes=64 << 10,
        only_for=_DASHBOARD_ONLY, help="Of the head-end or its issuer; empty: the usual ones.",
    ),
    ParamSpec(
        name="commands", title="The head-end relays commands", type=ParamType.BOOLEAN, required=False, default=False,
        only_for=_DASHBOARD_ONLY, help="The reference head-end ignores what a dashboard sends.",
    ),
    ParamSpec(
        name="drift_s", title="Clocks may differ by", type=ParamType.DECIMAL, unit="s", required=False,
        default=Decimal(str(ems.DRIFT_S)), minimum=Decimal("0.1"), maximum=86_400,
    ),
    ParamSpec(
        name="answer_timeout_s", title="Command must show its effect within", type=ParamType.INTEGER, unit="s",
        required=False, default=int(ems.EFFECT_S), minimum=3, maximum=600, help="Three cycles of the device at least.",
    ),
    ParamSpec(
        name="pending_s", title="Command waits for an offline device", type=ParamType.INTEGER, unit="s",
        required=False, default=PENDING_S, minimum=1, maximum=86_400, help="After that it is given up unsent.",
    ),
)  # fmt: skip


def given(settings: Mapping[str, Any], name: str) -> Any:
    """A setting as it stands there, or its default."""
    value = settings.get(name)
    return next(spec.default for spec in FORM if spec.name == name) if value in (None, "") else value


def role_of(settings: Mapping[str, Any]) -> str:
    return str(given(settings, "role"))


def seconds(settings: Mapping[str, Any], name: str) -> float:
    """A time of unchecked settings: a number, its text, or the default."""
    try:
        return float(given(settings, name))
    except (TypeError, ValueError):
        return float(given({}, name))


# ---------------------------------------------------------------- commands (section 4)

READ_ONLY: Final = (
    "A dashboard of the reference head-end only listens. Where yours relays commands, switch on The head-end relays "
    "commands in the connection."
)
HUB_ONLY: Final = "Only a bench hub has a certificate of its own."
REVERTS: Final = (
    f"A manual mode is held by this program's connection: {ems.WATCHDOG_S:g} s after it is closed, the device goes "
    "back to AUTO by itself."
)


def mode_request(params: Mapping[str, Any]) -> ems.ModeRequest:
    """What SET_MODE asks for.

    Raises:
        ParameterError: no mode, two of them, or one that cannot be sent.
    """
    chosen, other = params.get("target_mode") or "", str(params.get("other_mode") or "").strip()
    if chosen and other and chosen != other:
        raise ParameterError("Choose a mode or enter another one, not both.", "other_mode")
    if not chosen and not other:
        raise ParameterError("Choose a mode, or enter another one.", "target_mode")
    return ems.ModeRequest(chosen or other, params.get("target_power"))


def _wrong_mode(params: Mapping[str, Any]) -> str:
    try:
        mode_request(params)
    except ParameterError as exc:
        return str(exc)
    return ""


def _mode_caution(params: Mapping[str, Any]) -> str:
    try:
        request = mode_request(params)
    except ParameterError:
        return ""
    holds = (REVERTS,) if request.target_mode.startswith(ems.Mode.MANUAL) else ()
    return " ".join((*request.warnings(), *holds))


def _nothing_to_reset(facts: Mapping[str, Any]) -> str:
    return ems.refuse_reset(str(facts.get("state") or ""), facts.get("error_flags") or ())


SET_MODE: Final = CommandSpec(
    name=ems.SET_MODE, title="Set mode", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS, resend=Resend.NEVER,
    pattern=ReplyPattern.EFFECT, verb="Set the mode of {device}", field_group="mode", check=_wrong_mode,
    caution=_mode_caution,
    params=(
        ParamSpec(name="target_mode", title="Mode", type=ParamType.CHOICE, required=False,
                  choices=tuple((mode, mode) for mode in ems.TARGET_MODES)),
        ParamSpec(name="target_power", title="Power", type=ParamType.DECIMAL, unit="W", required=False, minimum=0,
                  maximum=1_000_000, help=f"Of charging or discharging, without a sign; empty: the device chooses. "
                  f"Devices clamp to {ems.CHARGE_LIMIT_W} W charging and {ems.DISCHARGE_LIMIT_W} W discharging."),
        ParamSpec(name="other_mode", title="Other mode (expert)", required=False, default="", max_bytes=ems.MAX_TEXT,
                  help="Sent as it stands here instead of a mode of the list."),
    ),
    help="Confirmed by the device's telemetry: the protocol has no answer to a command.",
    warning="The device charges or discharges at once.",
)  # fmt: skip
RESET_ERROR: Final = CommandSpec(
    name=ems.RESET_ERROR, title="Reset error", kind=CommandKind.CONTROL, risk=Risk.DANGEROUS, resend=Resend.NEVER,
    pattern=ReplyPattern.EFFECT, verb="Reset the error of {device}", field_group="mode", forbidden=_nothing_to_reset,
    help="Confirmed by the device's telemetry: it leaves ERROR and shows no error flag.",
    warning="Inspect the device first: it switches its output on again as soon as it is asked for power.",
)  # fmt: skip
_MAKE_CERTIFICATE: Final = CommandSpec(
    name=MAKE_CERTIFICATE, title="Make certificate", kind=CommandKind.WRITE, risk=Risk.WRITE, reaches_device=False,
    verb="Make a certificate for the hub of {device}",
    params=(
        ParamSpec(name="names", title="Names and addresses of this computer", required=False, default="",
                  max_bytes=1000, help="As devices enter them, separated by commas; empty: the listening address."),
        ParamSpec(name="days", title="Valid for", type=ParamType.INTEGER, unit="days", required=False, default=825,
                  minimum=1, maximum=3650),
    ),
    help="Makes the certificate of the encrypted hub (wss) with its key. The result holds it for the device to trust; "
    "the key stays in this computer's keyring. Devices that trust an earlier one need the new one, and all devices of "
    "this hub connect anew.",
)  # fmt: skip


def commands(settings: Mapping[str, Any], setting_s: float = 1.0) -> tuple[CommandSpec, ...]:
    """What can be sent over a connection with these settings; see ``unsupported`` for the rest.

    ``setting_s``: what a second of the settings takes.
    """
    is_hub = role_of(settings) == HUB
    effect_s, pending_s = (seconds(settings, name) * setting_s for name in ("answer_timeout_s", "pending_s"))
    offered: list[CommandSpec] = []
    if is_hub or _is_yes(settings.get("commands")):
        offered = [replace(one, answer_timeout_s=effect_s, pending_ttl_s=pending_s) for one in (SET_MODE, RESET_ERROR)]
    return (*offered, _MAKE_CERTIFICATE) if is_hub else tuple(offered)


def unsupported(settings: Mapping[str, Any]) -> dict[str, str]:
    offered = {spec.name for spec in commands(settings)}
    reasons = {SET_MODE.name: READ_ONLY, RESET_ERROR.name: READ_ONLY, MAKE_CERTIFICATE: HUB_ONLY}
    return {name: reason for name, reason in reasons.items() if name not in offered}


def _is_yes(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "yes", "on", "1")


def request_of(command: str, params: Mapping[str, Any]) -> ems.Request:
    """A command by effect. Raises ParameterError."""
    return mode_request(params) if command == ems.SET_MODE else ems.ResetRequest()


def payload_of(request: ems.Request) -> Mapping[str, Any]:
    return request.payload() if isinstance(request, ems.ModeRequest) else {}


# ---------------------------------------------------------------- outcomes


def _shown(request: ems.Request, packet: ems.Packet) -> dict[str, Any]:
    """What was asked for beside what the device shows."""
    found: dict[str, Any] = {
        "mode": packet.mode, "state": packet.state, "error_flags": list(packet.error_flags),
        "battery_power_w": packet.battery_power, "telemetry_time": packet.timestamp_text,
    }  # fmt: skip
    if isinstance(request, ems.ModeRequest):
        found["target_mode"] = request.target_mode
        if request.target_power is not None:
            found["target_power_w"] = request.target_power
    return found


def effect_answer(request: ems.Request, packet: ems.Packet, verdict: ems.Verdict) -> Answer:
    """An outcome that telemetry has shown; ``reached_w`` stands in the result where another power was asked for."""
    result = {"summary": verdict.text, "confirmed_by": "telemetry", **_shown(request, packet)}
    if verdict.actual_w is not None:
        result["reached_w"] = verdict.actual_w
    if verdict.is_done:
        return Answer(result=result, text=verdict.text)
    return Answer(execution=Execution.FAILURE, code="NOT_POSSIBLE", result=result, text=verdict.text)


def no_effect_answer(request: ems.Request, packet: ems.Packet) -> Answer:
    """Read back: telemetry from after the send does not show it."""
    flags = f", error flags {', '.join(packet.error_flags)}" if packet.error_flags else ""
    power = f"{packet.battery_power:f} W"
    text = f"Telemetry from after the command shows mode {packet.mode}, state {packet.state}, {power}{flags}."
    return Answer(
        execution=Execution.FAILURE, code="NO_EFFECT", text=text, result={"summary": text, **_shown(request, packet)}
    )


def acknowledged_answer(found: ems.Acknowledgement) -> Answer:
    """The device's own word, which some implementations send (section 4)."""
    said = f"{found.status}{': ' + found.text if found.text else ''}"
    text = f"Confirmed by the device's acknowledgement ({said})."
    result = {"confirmed_by": "acknowledgement", "status": found.status, "text": found.text}
    if found.is_done:
        return Answer(result={"summary": text, **result}, text=text)
    text = f"The device refused ({said})."
    return Answer(execution=Execution.FAILURE, code="REFUSED", result={"summary": text, **result}, text=text)


def certificate_names(params: Mapping[str, Any], host: str) -> list[str]:
    """The names of a certificate to be made.

    Raises:
        ParameterError: none given, and the hub listens on every address.
    """
    names = [name.strip() for name in str(params.get("names") or "").split(",") if name.strip()]
    if not names and host in ("0.0.0.0", "::"):
        text = f"The hub listens on every address ({host}); enter the names or addresses by which devices reach it."
        raise ParameterError(text, "names")
    return names or [host]


def certificate_answer(made: MadeCertificate, key_name: str) -> Answer:
    """The certificate for export; its key stands in the keyring as ``key_name``."""
    public = made.certificate
    text = f"A certificate for {', '.join(public.names)} was made, valid until {public.not_after.date().isoformat()}."
    result = {
        "summary": text, "certificate": public.pem, "fingerprint": public.fingerprint, "names": list(public.names),
        "not_before": public.not_before, "not_after": public.not_after, "key": f"in the keyring as {key_name}",
    }  # fmt: skip
    return Answer(result=result, text=text, settings={"certificate": public.pem})


def key_name(fingerprint: str) -> str:
    """Where the keyring keeps the key of a certificate."""
    return f"ems-hub.{fingerprint.replace(':', '')[:32].lower()}"
