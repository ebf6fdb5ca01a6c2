"""Recorded answers of the module link, read as the roles read them (``app.ports.Rereader``). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from app.adapters import _quecpython_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._quecpython_core import Ear, Heard
from app.adapters._quecpython_payload import Payload
from app.adapters._quecpython_roles import (
    METER_SIDE,
    MODULE_SIDE,
    SERIAL_ID,
    event_result,
    get_result,
    lines_of,
    set_result,
    transparent_result,
)
from app.adapters._quecpython_server import identity_of, payloads_result
from app.errors import RemoteProtocolError
from app.model.command import CommandSpec
from app.model.interaction import Frame
from app.ports import Answer
from app.protocols import quecpython as quec
from app.protocols.rfc1662 import FrameError

_CONFIG: Final = rules.config_of({spec.name: spec.default for spec in rules.FORM} | {"line": "recorded"})
_UNTOLD: Final = ((quec.G1, METER_SIDE), (quec.G2, MODULE_SIDE))
"""What frames do not tell, differently: the generation, and which role sent what both roles can."""
_MESSAGES: Final = (
    "GET_PARAMETER", "GET_METER_PARAMETER", "READ_SERIAL", "START_UP", "SET_PARAMETER", "SET_METER_PARAMETER",
    "SEND_EVENT",
)  # fmt: skip


def reread(spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
    """See ``QuecPython.reread``."""
    came = rereading.incoming(frames)
    if not came or any(rules.MASK in one.note for one in came):
        return None
    match spec.name:
        case "SEND":
            return Answer(result=payloads_result([Payload(one.note, one.data) for one in came]))
        case "POLL_SERIAL":
            return Answer(result={"identity": identity_of([Payload(one.note, one.data) for one in came])})
        case "AT":
            return Answer(result={"lines": lines_of(_heard(came, quec.G2))})
        case "SEND_TRANSPARENT":
            read = [transparent_result(_messages(came, dialect), side) for dialect, side in _UNTOLD]
            return Answer(result=rereading.agreed(read))
        case name if name in _MESSAGES:
            read = [_result(name, params, _messages(came, dialect)[-1]) for dialect, _side in _UNTOLD]
            return Answer(result=rereading.agreed(read))
        case _:
            return None


def _heard(came: Sequence[Frame], dialect: quec.Dialect) -> list[Heard]:
    """What each frame of the log holds; the profile of the frames shows in their octets."""
    found: list[Heard] = []
    for frame in came:
        ear = Ear(replace(_CONFIG, is_auto=True, dialect=dialect))
        found += [*ear.feed(frame.data), *ear.flush()]
    return found


def _messages(came: Sequence[Frame], dialect: quec.Dialect) -> list[quec.Message]:
    """Raises RemoteProtocolError: a frame is damaged."""
    found: list[quec.Message] = []
    for one in _heard(came, dialect):
        match one:
            case quec.Message():
                found.append(one)
            case FrameError() if not one.is_informative:
                raise RemoteProtocolError(f"a frame cannot be read: {one.sentence}", one.octets)
            case _:
                pass
    if not found:
        raise RemoteProtocolError("no frame can be read in what came.", came[-1].data)
    return found


def _result(command: str, params: Mapping[str, Any], message: quec.Message) -> dict[str, Any]:
    match command:
        case "GET_PARAMETER":
            return get_result(rules.parameter_id(params["parameter"]), message, MODULE_SIDE)
        case "GET_METER_PARAMETER":
            return get_result(rules.parameter_id(params["parameter"]), message, METER_SIDE)
        case "SET_PARAMETER":
            return set_result(rules.parameter_id(params["parameter"]), message, MODULE_SIDE)
        case "SET_METER_PARAMETER":
            return set_result(rules.parameter_id(params["parameter"]), message, METER_SIDE)
        case "SEND_EVENT":
            return event_result(message, MODULE_SIDE)
        case _:
            return get_result(SERIAL_ID, message, METER_SIDE)
