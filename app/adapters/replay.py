"""The adapter that plays a kept log: it answers from the recording and reaches nothing outside this process.

One instance stands for one device. Commands come from the real adapter's specifications where they are installed, and
from the recording where they are not, so that a log of a foreign system can still be looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from app.adapters._live import NeverAsked
from app.errors import LinkError, LinkReason
from app.model.command import CommandKind, CommandSpec, ParamSpec
from app.model.device import Device
from app.model.interaction import Frame
from app.model.reading import LinkState
from app.ports import (
    Accepted,
    AdapterContext,
    AdapterType,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Limits,
    LinkChange,
    Tap,
    Uplink,
)

LONGEST_S: Final = 1e8  # three years; at a tenth of its speed a recorded command may well take hours


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the recording says became of one command: an answer, or a failure before any."""

    answer: Answer | None
    failure: tuple[str, str] = ("", "")  # code and text
    disposition: Disposition = Disposition.FINAL


class Part:
    """One recorded command on the stage: its bytes and its end, whichever of the two sides is first."""

    def __init__(self, outcome: Recorded) -> None:
        self._outcome = outcome
        self._frames: list[Frame] = []
        self._tap: Tap | None = None
        self._ended = asyncio.Event()

    def show(self, frame: Frame) -> None:
        """Bytes came or went; shown when somebody carries the command out."""
        if self._tap is None:
            self._frames.append(frame)
        else:
            show(self._tap, frame)

    def end(self) -> None:
        """From now on it is answered."""
        self._ended.set()

    async def carry_out(self, tap: Tap) -> Answer:
        """Show the bytes as they come, and wait for the end. Raises DeliveryFailure as it was recorded."""
        self._tap = tap
        for frame in self._frames:
            show(tap, frame)
        self._frames.clear()
        await self._ended.wait()
        if self._outcome.answer is not None:
            return self._outcome.answer
        raise DeliveryFailure(*self._outcome.failure, self._outcome.disposition)


def show(tap: Tap, frame: Frame) -> None:
    """Recorded bytes where a transport shows the bytes it moves."""
    tap(frame.direction, frame.data, frame.note, link=frame.link)


@dataclass
class Stage:
    """What the player puts in front of the adapters of one replay."""

    parts: dict[int, Part] = field(default_factory=dict)  # by the recorded interaction's id
    taps: dict[str, Tap] = field(default_factory=dict)  # of the link itself, by device
    _queues: dict[str, asyncio.Queue[Uplink]] = field(default_factory=dict)

    def queue(self, device: str) -> asyncio.Queue[Uplink]:
        return self._queues.setdefault(device, asyncio.Queue())

    def clear(self) -> None:
        """Nobody waits for the end of a command any more."""
        for part in self.parts.values():
            part.end()
        self.parts.clear()


class ReplayType:
    """AdapterType of one replayed adapter key."""

    summary = "Plays a kept log. Nothing outside this program is reached."

    def __init__(
        self,
        key: str,
        stage: Stage,
        real: AdapterType | None,
        commands: Callable[[str], Sequence[tuple[str, CommandKind]]],
    ) -> None:
        self.key = key
        self.title = f"{real.title if real is not None else key} (replay)"
        self._stage = stage
        self._real = real
        self._recorded_commands = commands

    def form(self) -> tuple[ParamSpec, ...]:
        """Nothing is connected, so nothing is asked: the player leaves the recorded settings out."""
        return ()

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return Limits(max_in_flight=1000, needs_link=True, accept_timeout_s=LONGEST_S)

    def lane(self, device: Device) -> str:
        return device.id

    def connection(self, device: Device) -> str:
        return device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        specs: dict[str, CommandSpec] = {}
        if self._real is not None:
            for spec in self._real.commands(device, facts):
                specs[spec.name] = as_played(spec)
        for name, kind in self._recorded_commands(device.id):
            specs.setdefault(name, CommandSpec(name=name, title=name, kind=kind))
        return tuple(specs.values())

    def unsupported(self, device: Device, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {}

    def live_quantities(self, device: Device) -> tuple[str, ...]:
        return self._real.live_quantities(device) if self._real is not None else ()

    def create(self, context: AdapterContext) -> ReplayAdapter:
        return ReplayAdapter(context, self._stage)

    async def probe(self, context: AdapterContext) -> Sequence[str]:
        return ["A recording needs no connection."]


def as_played(spec: CommandSpec) -> CommandSpec:
    """The command as it is shown, without all that would make the pipeline do more than the recording says: it holds
    the answer of all phases and the follow-ups, and what the gatekeeper and the clock said then.
    """
    return CommandSpec(
        name=spec.name,
        title=spec.title,
        kind=spec.kind,
        risk=spec.risk,
        verb=spec.verb,
        help=spec.help,
        shadow=spec.shadow,
        pending_ttl_s=LONGEST_S,
    )


class ReplayAdapter(NeverAsked):
    """Answers from the recording."""

    def __init__(self, context: AdapterContext, stage: Stage) -> None:
        self._device = context.devices[0]
        self._stage = stage
        stage.taps[self._device.id] = context.tap

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        yield

    async def uplinks(self) -> AsyncIterator[Uplink]:
        yield LinkChange(self._device.id, LinkState.REPLAY, "From the recording.")
        queue = self._stage.queue(self._device.id)
        while True:
            yield await queue.get()

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        part = self._stage.parts.get(request.interaction.replay_of or -1)
        if part is None:
            raise LinkError(
                "This is a replay: it answers only what was recorded and reaches no meter.",
                LinkReason.DENIED,
                may_have_arrived=False,
            )
        return await part.carry_out(request.tap)

    async def verify(self, request: Dispatch) -> Answer | None:
        return None
