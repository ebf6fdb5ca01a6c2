"""Commands in programming mode carried out once more on recorded answers (``app.ports.Rereader``). Loaded on use.

The commands are those of ``iec62056``: only what stands between them and the line is another, which takes the answer to
each command message out of the frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from app.adapters import _iec62056_rules as rules
from app.adapters import _rereading as rereading
from app.adapters._rereading import NoSecrets, Unrecorded, carried_out, unseen
from app.adapters.iec62056 import HANDLERS, Call, Iec62056Adapter, MeterSaysNo, Pace, RefusedPasswords
from app.clock import StandingClock
from app.errors import LinkError, LinkReason, RemoteProtocolError
from app.model.command import CommandSpec, check_params
from app.model.device import Device
from app.model.interaction import Direction, Frame, Interaction
from app.model.line import LineFormat, plain
from app.ports import AdapterContext, Answer, Dispatch, Execution
from app.protocols import iec62056_21 as iec
from app.protocols import iec62056_session as sess
from app.transports.line import Line
from app.transports.memory_line import memory_line

_UNTOLD: Final = (timedelta(0), timedelta(seconds=1))  # what this computer's clock may be off by
_STYLES: Final = (rules.AUTO, *(style.value for style in rules.Style))
_COMMAND: Final = re.compile("[RWE][0-9]")  # note of the frame of a command message


def reread(spec: CommandSpec, params: Mapping[str, Any], frames: Sequence[Frame]) -> Answer | None:
    """See ``Iec62056.reread``."""
    if rereading.incoming(frames) is None:
        return None
    spec = next(one for one in rules.PROGRAMMING if one.name == spec.name)  # also of a meter that moved away
    checked = check_params(spec.params, params, spec.title)
    said = _conversation(frames)
    why: MeterSaysNo | None = None
    for style in _STYLES:  # the national practice may have been entered
        try:
            results = [_result(spec, checked, said, style, off) for off in _UNTOLD]
        except Unrecorded:
            continue
        except MeterSaysNo as exc:
            why = exc
            continue
        return Answer(result=rereading.agreed(results))
    if why is not None:
        raise RemoteProtocolError(str(why))
    return None


# ---------------------------------------------------------------- frames to answers


@dataclass(frozen=True, slots=True)
class _Said:
    """What the meter answered to a command message of a kind (R, W or E)."""

    name: str
    answer: sess.Answered | sess.MeterError
    at: datetime


@dataclass(frozen=True, slots=True)
class _Conversation:
    begun: datetime
    identification: iec.Identification
    answers: tuple[_Said, ...]


def _conversation(frames: Sequence[Frame]) -> _Conversation:
    """Raises RemoteProtocolError: the last try of a command message has an answer that cannot be read, or there is no
    sign-on.
    """
    head: list[bytes] = []
    came: list[bytes] = []
    name = ""
    answers: list[_Said] = []
    damage: iec.Damaged | None = None
    last = frames[-1].at

    def end() -> None:
        nonlocal damage
        if name:
            found = _answer(b"".join(came))
            damage = found if isinstance(found, iec.Damaged) else damage
            if isinstance(found, sess.Answered | sess.MeterError):
                damage = None
                answers.append(_Said(name, found, last))
        came.clear()

    for frame in frames:
        if frame.direction is Direction.IN:
            (came if name else head).append(frame.data)
            last = frame.at
        elif _COMMAND.fullmatch(frame.note):
            end()
            name = frame.note[0]
    end()
    if damage is not None:
        raise RemoteProtocolError(damage.sentence)
    framer = iec.Framer()
    framer.feed(plain(b"".join(head)))
    messages = []
    while (found := framer.next()) is not None:
        messages.append(found.message)
    ident = next((one for one in reversed(messages) if isinstance(one, iec.Identification)), None)
    if ident is None or not any(isinstance(one, iec.Command) and one.name == "P" for one in messages):
        raise RemoteProtocolError("no identification, or no beginning of programming mode, can be read in what came.")
    return _Conversation(frames[0].at, ident, tuple(answers))


def _answer(data: bytes) -> sess.Answered | sess.MeterError | iec.Damaged | None:
    """What octets behind a command message say; None: nothing, so it was sent again."""
    framer = iec.Framer()
    framer.feed(plain(data))
    parts: list[str] = []
    damage: iec.Damaged | None = None
    while (found := framer.next()) is not None:
        match found.message:
            case iec.Data(text, more):
                parts.append(text)
                damage = None
                if not more:
                    return sess.Answered("".join(parts))
            case iec.ErrorMessage(text):
                return sess.MeterError(text)
            case iec.Acknowledge():
                return sess.Answered(None)
            case iec.Damaged() as damaged:
                damage = damaged
            case _:
                pass
    if damage is None and framer.pending:
        return iec.Damaged(f"An answer breaks off after {framer.pending} octets.", iec.BlockCheck(iec.Verdict.CUT))
    return damage


# ---------------------------------------------------------------- carrying out


def _result(
    spec: CommandSpec, params: Mapping[str, Any], said: _Conversation, style: str, off: timedelta
) -> Mapping[str, Any]:
    """Raises Unrecorded, MeterSaysNo; RemoteProtocolError: the answers cannot be read, or they are no success."""
    moment = said.begun + off
    settings = {one.name: one.default for one in rules.FORM} | {"style": style}
    device = Device(id="", name="the meter")
    context = AdapterContext(
        devices=(device,), settings=settings, clock=StandingClock(moment), tap=unseen, secrets=NoSecrets()
    )
    interaction = Interaction(
        id=0, device="", adapter="iec62056", command=spec.name, kind=spec.kind, created=moment, updated=moment
    )
    request = Dispatch(interaction=interaction, device=device, spec=spec, params=params, attempt=1, tap=unseen)
    call = _RecordedCall(context, device, settings, said, off)
    answer = carried_out(HANDLERS[spec.name](call, request))
    if answer.execution is not Execution.SUCCESS:
        raise RemoteProtocolError(answer.text)
    return answer.result


class _RecordedCall(Call):
    """A meter that answers as it did, at the time it did."""

    def __init__(
        self, context: AdapterContext, device: Device, settings: Mapping[str, Any], said: _Conversation, off: timedelta
    ) -> None:
        owner = Iec62056Adapter(context, open_line=_no_line, pace=Pace(), refused=RefusedPasswords())
        super().__init__(owner, memory_line()[0], device, settings, unseen)
        self.ident = said.identification
        self._answers = list(said.answers)
        self._off = off
        self._at = said.begun

    @property
    def clock(self) -> datetime:
        return self._at + self._off

    async def program(self, *, is_write: bool) -> None:
        """It was entered."""

    async def _command(self, command: iec.Command) -> sess.Answered | sess.MeterError:
        if not self._answers or self._answers[0].name != command.name:
            raise Unrecorded
        said = self._answers.pop(0)
        self._at = said.at
        return said.answer


async def _no_line(address: str, line_format: LineFormat, *, whose: str, rs485: bool = False) -> Line:
    raise LinkError("Recorded frames are read without a line.", LinkReason.CLOSED)
