"""The adapter that plays a kept log: it answers from the recording and reaches nothing outside this process.

One instance stands for one device. Commands come from the real adapter's specifications where they are installed, and
from the recording where they are not, so that a log of a foreign system can still be looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from app.adapters._live import NeverAsked
from app.errors import LinkError, LinkReason
from app.model.command import CommandKind, CommandSpec, ParamSpec, ReplyPattern
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
    Uplink,
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the recording says became of one command."""

    answer: Answer | None
    failure: tuple[str, str] | None = None  # code and text
    frames: tuple[Frame, ...] = ()


@dataclass
class Stage:
    """What the player puts in front of the adapters of one replay."""

    recorded: dict[int, Recorded] = field(default_factory=dict)  # by the recorded interaction's id
    _queues: dict[str, asyncio.Queue[Uplink]] = field(default_factory=dict)

    def queue(self, device: str) -> asyncio.Queue[Uplink]:
        return self._queues.setdefault(device, asyncio.Queue())


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
        return Limits(max_in_flight=1000, needs_link=True, accept_timeout_s=3600.0)

    def lane(self, device: Device) -> str:
        return device.id

    def connection(self, device: Device) -> str:
        return device.id

    def commands(self, device: Device, facts: Mapping[str, Any]) -> tuple[CommandSpec, ...]:
        specs: dict[str, CommandSpec] = {}
        if self._real is not None:
            for spec in self._real.commands(device, facts):
                # The recording has the answer and the follow-ups; limits of the time do not judge it again.
                specs[spec.name] = replace(
                    spec, params=(), pattern=ReplyPattern.DIRECT, follow_up="", follow_up_on_failure=""
                )
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


class ReplayAdapter(NeverAsked):
    """Answers from the recording."""

    def __init__(self, context: AdapterContext, stage: Stage) -> None:
        self._device = context.devices[0]
        self._stage = stage

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
        recorded = self._stage.recorded.get(request.interaction.replay_of or -1)
        if recorded is None:
            raise LinkError(
                "This is a replay: it answers only what was recorded and reaches no meter.",
                LinkReason.DENIED,
                may_have_arrived=False,
            )
        for frame in recorded.frames:
            request.tap(frame.direction, frame.data, frame.note, link=frame.link)
        if recorded.answer is not None:
            return recorded.answer
        code, text = recorded.failure or ("NO_OUTCOME", "The recording ends before this command did.")
        raise DeliveryFailure(code, text, Disposition.FINAL)

    async def verify(self, request: Dispatch) -> Answer | None:
        return None
