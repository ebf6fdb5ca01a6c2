"""Replay: a kept log goes through a pipeline of its own, at a chosen speed, and reaches no hardware.

The player reads the timeline of the recording and plays it into a workbench whose adapters are all ``ReplayType``: each
recorded command is submitted again (gatekeeper, lanes, dispatch, correlation, effects and log are the real ones) and
answered from the recording; samples come back as telemetry. That workbench writes to a scratch workspace; the recording
itself is opened read-only. Its clock shows recorded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from app.adapters.replay import Recorded, ReplayType, Stage
from app.errors import StoreError
from app.interaction_log import replay as recording
from app.interaction_log.reader import LogReader, Story
from app.model.command import CommandKind
from app.model.device import Device
from app.model.interaction import Interaction, Origin
from app.model.reading import Finding, SampleSet
from app.model.status import Status
from app.ports import AdapterType, Answer, Execution, Found, Report, Telemetry
from app.workbench import Workbench

TICK_S: Final = 0.05
MAX_SPEED: Final = 1000.0


class ReplayClock:
    """Recorded time: runs at the replay's speed, stands still in a pause."""

    def __init__(self, start: datetime) -> None:
        self._recorded = start
        self._at = time.monotonic()
        self._speed = 0.0

    def now(self) -> datetime:
        if self._speed <= 0 or math.isinf(self._speed):
            return self._recorded
        return self._recorded + timedelta(seconds=(time.monotonic() - self._at) * self._speed)

    def monotonic(self) -> float:
        return time.monotonic()

    def set(self, moment: datetime, speed: float) -> None:
        self._recorded, self._at, self._speed = moment, time.monotonic(), speed


@dataclass(frozen=True, slots=True)
class Difference:
    """A command that ended otherwise in the replay than in the recording."""

    recorded: int
    replayed: int
    command: str
    expected: str
    got: str


class Player:
    """Plays one recording into one workbench."""

    def __init__(
        self,
        reader: LogReader,
        real_types: Mapping[str, AdapterType],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        speed: float = 1.0,
    ) -> None:
        """Raises StoreError when the recording holds nothing to play."""
        whole = recording.span(reader)
        if whole is None:
            raise StoreError("This log holds no interactions and no samples; there is nothing to replay.")
        self._reader = reader
        self._real_types = real_types
        self.start = since or whole[0]
        self.end = until or whole[1]
        self._factor = speed
        self.paused = False
        self.finished = False
        self.clock = ReplayClock(self.start)
        self.stage = Stage()
        self.on_seek: Callable[[], None] = lambda: None
        self.played = 0
        self._position = self.start
        self._entries = self._from(self.start)
        self._next: recording.Entry | None = None
        self._wake = asyncio.Event()
        self._steps = 0
        self._sent: dict[int, int] = {}  # replayed id -> recorded id
        self._workbench: Workbench | None = None

    # -- what the window's replay bar uses
    @property
    def position(self) -> datetime:
        """Recorded time now."""
        if self.paused or math.isinf(self._factor) or self.finished:
            return self._position
        return min(self.clock.now(), self.end)

    @property
    def speed(self) -> float:
        """Times real speed; 0 is as fast as possible."""
        return 0.0 if math.isinf(self._factor) else self._factor

    def pause(self) -> None:
        self._position = self.position
        self.paused = True
        self._reclock()

    def resume(self) -> None:
        self.paused = False
        self._reclock()

    def step(self) -> None:
        """Play the next item and stay paused."""
        self.pause()
        self._steps += 1
        self._wake.set()

    def seek(self, moment: datetime) -> None:
        """Go on from another moment; what lies between is skipped."""
        self._position = max(self.start, min(self.end, moment))
        self._entries = self._from(self._position)
        self._next = None
        self.finished = False
        self._reclock()
        self.on_seek()

    def set_speed(self, speed: float) -> None:
        """Times real speed, 0.1 to 1000; 0 is as fast as possible."""
        self._position = self.position
        self._factor = math.inf if speed <= 0 or math.isinf(speed) else max(0.1, min(speed, MAX_SPEED))
        self._reclock()

    # -- what the composition root uses
    def adapter_types(self) -> dict[str, AdapterType]:
        commands: dict[str, set[tuple[str, CommandKind]]] = defaultdict(set)
        for device, _adapter, command, kind in self._reader.catalogue():
            commands[device].add((command, kind))
        keys = {device.adapter for device in self.devices() if device.adapter}
        return {
            key: ReplayType(key, self.stage, self._real_types.get(key), lambda device: sorted(commands[device]))
            for key in keys
        }

    def devices(self) -> tuple[Device, ...]:
        """The recording's tree, and a node for every device that only its interactions name."""
        devices = {device.id: replace(device, enabled=True) for device in self._reader.snapshot().devices}
        for name, adapter, _command, _kind in self._reader.catalogue():
            devices.setdefault(name, Device(id=name, name=name, adapter=adapter))
        return tuple(replace(device, settings={}) for device in devices.values())

    async def play(self, workbench: Workbench) -> None:
        """Play until the end; afterwards ``seek`` starts it again. Runs until cancelled."""
        self._workbench = workbench
        self._reclock()
        while True:
            await self._play_due()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    async def play_to_end(self, workbench: Workbench) -> None:
        """Play until the end and wait until every command has settled."""
        self._workbench = workbench
        self._reclock()
        while not self.finished:
            await self._play_due()
            if not self.finished:
                await asyncio.sleep(TICK_S)
        for number in list(self._sent):
            await workbench.settled(number)

    def differences(self) -> Iterator[Difference]:
        """Commands that ended otherwise than recorded (those that had an end in the recording)."""
        assert self._workbench is not None
        for replayed, recorded in self._sent.items():
            there = self._workbench.interaction(replayed)
            here = self._reader.interaction(recorded)
            if there is None or here is None or not here.is_settled:
                continue
            expected, got = _outcome(here), _outcome(there)
            if expected != got:
                yield Difference(recorded, replayed, here.command, expected, got)

    def _from(self, moment: datetime) -> Iterator[recording.Entry]:
        return recording.timeline(self._reader, moment, self.end)

    def _reclock(self) -> None:
        self.clock.set(self._position, 0.0 if self.paused else self._factor)
        self._wake.set()

    async def _play_due(self) -> None:
        for count in itertools.count():
            if self._next is None:
                self._next = next(self._entries, None)
            if self._next is None:
                if not self.finished:
                    self.finished = True
                    self._position = self.end
                    self.clock.set(self.end, 0.0)
                return
            moment = datetime.fromtimestamp(self._next[0], UTC)
            if self.paused:
                if self._steps == 0:
                    return
                self._steps -= 1
                self._position = moment
                self.clock.set(moment, 0.0)
            elif math.isinf(self._factor):
                self._position = moment
                self.clock.set(moment, 0.0)
            elif moment > self.clock.now():
                return
            item, self._next = self._next[3], None
            self._feed(item)
            self.played += 1
            if count % 64 == 63:
                await asyncio.sleep(0)  # the window stays responsive however fast it plays

    def _feed(self, item: recording.Item) -> None:
        match item:
            case SampleSet():
                self.stage.queue(item.device).put_nowait(Telemetry(item))
            case Finding():
                if item.device:
                    self.stage.queue(item.device).put_nowait(Found(item))
            case recording.Command(story):
                self._command(story)

    def _command(self, story: Story) -> None:
        assert self._workbench is not None
        was = story.interaction
        if was.origin is Origin.UNSOLICITED:
            report = Report(device=was.device, command=was.command, answer=Answer(result=was.result or {}))
            self.stage.queue(was.device).put_nowait(report)
            return
        self.stage.recorded[was.id] = recorded_outcome(story)
        number = self._workbench.submit(
            was.device,
            was.command,
            was.params,
            origin=was.origin,
            actor="replay",
            clicked=was.created,
            replay_of=was.id,
        )
        self._sent[number] = was.id


def recorded_outcome(story: Story) -> Recorded:
    """What an adapter that plays this story answers."""
    was = story.interaction
    frames = tuple(story.frames)
    if was.status is Status.SUCCESSFUL:
        return Recorded(Answer(result=was.result or {}, text=_last_text(story)), frames=frames)
    failure = was.failure
    answered = any(attempt.end.value == "ANSWERED" for attempt in story.attempts)
    if was.status is Status.FAILED and answered and failure is not None:
        return Recorded(
            Answer(execution=Execution.FAILURE, code=failure.code, text=failure.text, result=was.result or {}),
            frames=frames,
        )
    if failure is not None:
        return Recorded(None, (failure.code, failure.text), frames)
    return Recorded(None, None, frames)


def _last_text(story: Story) -> str:
    return next((line.text for line in reversed(story.steps) if line.status is Status.SUCCESSFUL), "")


def _outcome(interaction: Interaction) -> str:
    """What counts as the same end: success, or not, with the result. A refusal at the gate replays as a failure."""
    if interaction.status is Status.SUCCESSFUL:
        return f"SUCCESSFUL {_canonical(interaction.result)}"
    code = interaction.failure.code if interaction.failure is not None else ""
    return f"not successful {code}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def scratch_path(folder: Path, source: Path) -> Path:
    """Where the replay's own workspace goes."""
    return folder / f"replay-of-{source.stem}.mwk"
