"""Replay: a kept log goes through a pipeline of its own, at a chosen speed, and reaches no hardware.

The player reads the timeline of the recording and plays it into a workbench whose adapters are all ``ReplayType``: each
recorded command is submitted again (lanes, dispatch, correlation, effects and log are the real ones), gets the verdicts
that the gatekeeper gave it then, shows its bytes when they moved, and is answered when it was answered. Samples come
back as telemetry. That workbench writes to a scratch workspace; the recording itself is opened read-only. Its clock
shows recorded time.

How each command ends does not depend on the speed, nor on how fast this computer is. The bytes of one command keep
their order; those of different commands do where the replay is slow against the pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from app.adapters.replay import Part, Recorded, ReplayType, Stage, show
from app.errors import StoreError
from app.interaction_log import replay as recording
from app.interaction_log.open_any import devices_in
from app.interaction_log.reader import LogReader, Story
from app.model.command import CommandKind
from app.model.device import Device
from app.model.interaction import AttemptEnd, Failure, Frame, Interaction, Origin, StepEntry
from app.model.reading import Finding, LinkState, SampleSet
from app.model.records import Change
from app.model.status import Event, Status
from app.pipeline.gatekeeper import Verdict
from app.ports import AdapterType, Answer, Disposition, Execution, Found, Report, Telemetry
from app.workbench import Workbench

TICK_S: Final = 0.05
MIN_SPEED: Final = 0.1
MAX_SPEED: Final = 1000.0
LEAD: Final = 64  # commands that have ended in the recording and not yet in the pipeline, as fast as possible
STUCK_S: Final = 30.0  # nothing settles for so long: what has not ended does not end
LINKS_S: Final = 10.0  # for the replay's own links to open
PARTS_KEPT: Final = 256  # ended commands whose late bytes are still shown with them
_GIVEN_UP: Final = frozenset({Status.ABORTED, Status.SUPERSEDED})
_HELD: Final = Verdict(
    status=Status.SUSPENDED,
    code="RECORDED",
    text="In the recording it was given up, or has no end; here it never leaves.",
)
"""Nothing behind it may wait for an end that does not come: the pipeline sends one command of a device at a time."""


class Unit(StrEnum):
    """How far one step goes."""

    FRAME = "frame"  # bytes that moved
    INTERACTION = "interaction"  # the end of a command, or a report


class ReplayClock:
    """Recorded time: runs at the replay's speed, stands still in a pause."""

    def __init__(self, start: datetime, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._recorded = start
        self._at = monotonic()
        self._speed = 0.0

    def now(self) -> datetime:
        if self._speed <= 0 or math.isinf(self._speed):
            return self._recorded
        return self._recorded + timedelta(seconds=(self._monotonic() - self._at) * self._speed)

    def monotonic(self) -> float:
        return self._monotonic()

    def set(self, moment: datetime, speed: float) -> None:
        self._recorded, self._at, self._speed = moment, self._monotonic(), speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as it was recorded."""

    what: str  # status, code, result, end, extra, frame, reread, verdict
    text: str  # a sentence
    recorded: Any = None
    now: Any = None
    interaction: int | None = None  # of the recording
    device: str = ""
    command: str = ""
    where: str = ""  # of a result: the field that differs
    frame: int | None = None
    offset: int | None = None  # of the byte in the frame

    def __str__(self) -> str:
        whose = f"#{self.interaction} " if self.interaction is not None else ""
        called = f"{self.command} on {self.device}: " if self.command else ""
        return f"{whose}{called}{self.text}"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; what is not known is left out."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in told.items() if value not in (None, "")}


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
        loop: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``speed``: as of ``set_speed``. ``loop``: begin again at the end (``play`` only).

        Raises StoreError when the recording holds nothing to play.
        """
        whole = recording.span(reader)
        if whole is None:
            raise StoreError("This log holds no interactions and no samples; there is nothing to replay.")
        self._reader = reader
        self._real_types = real_types
        self.start = since or whole[0]
        self.end = until or whole[1]
        self._factor = _factor(speed)
        self.paused = False
        self.finished = False
        self.loop = loop
        self.clock = ReplayClock(self.start, monotonic)
        self.stage = Stage()
        self.on_seek: Callable[[], None] = lambda: None
        self.played = 0
        self._position = self.start
        self._entries = self._from(self.start)
        self._next: recording.Entry | None = None
        self._wake = asyncio.Event()
        self._steps: deque[Unit] = deque()
        self._ended: deque[int] = deque()  # of the recording, newest last
        self._numbers: dict[int, int] = {}  # recorded id -> replayed id, while it is under way in the recording
        self._expected: dict[int, Interaction] = {}  # recorded id -> how it ended there, until it has ended here
        self._waited: set[int] = set()  # those of them that have ended in the recording by now
        self._reports: dict[tuple[str, str], deque[Interaction]] = defaultdict(deque)
        self._differences: list[Difference] = []
        self._moved = asyncio.Event()
        self._is_stuck = False  # what ended there does not end here: it is not waited for any more
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
        self._steps.clear()
        self.paused = False
        self._reclock()

    def step(self, unit: Unit = Unit.INTERACTION) -> None:
        """Play up to and with the next frame, or the next end of a command or report, and stay paused."""
        self.pause()
        self._steps.append(unit)
        self._wake.set()

    def seek(self, moment: datetime) -> None:
        """Go on from another moment; what lies between is skipped, and what is under way is given up."""
        self._position = max(self.start, min(self.end, moment))
        self._give_up()
        self._entries = self._from(self._position)
        self._next = None
        self.finished = False
        self._reclock()
        self.on_seek()

    def set_speed(self, speed: float) -> None:
        """Times real speed, 0.1 to 1000; 0 is as fast as possible."""
        self._position = self.position
        self._factor = _factor(speed)
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
        """The recording's tree, parents first, and a node for every device that only its interactions name."""
        known = devices_in(self._reader)
        placed: dict[str, Device] = {}

        def place(device: Device) -> None:
            parent = known.get(device.parent)
            if parent is not None and parent.id not in placed:
                place(parent)
            kept = device.parent if parent is not None else ""
            placed[device.id] = replace(device, parent=kept, settings={}, route="", routes=(), enabled=True)

        for device in known.values():
            if device.id not in placed:
                place(device)
        return tuple(placed.values())

    async def play(self, workbench: Workbench) -> None:
        """Play until the end; afterwards ``seek`` starts it again. Runs until cancelled."""
        async with self._played_into(workbench):
            while True:
                await self._play_due()
                if self.finished and self.loop and self.played:
                    self.seek(self.start)
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()

    async def play_to_end(self, workbench: Workbench) -> None:
        """Play until the end and wait until every command that ended in the recording has ended here."""
        async with self._played_into(workbench):
            while not self.finished:
                await self._play_due()
                if not self.finished:
                    await asyncio.sleep(TICK_S)
            await self._catch_up(0)
            for was in [self._expected[number] for number in sorted(self._waited)]:
                self._differ(was, "end", f"it was {was.status} and does not end", was.status.value, None)
            for was in [was for reports in self._reports.values() for was in reports]:
                self._differ(was, "end", "this report does not come", was.status.value, None)

    def differences(self) -> Iterator[Difference]:
        """What went otherwise than recorded, as far as it was played."""
        return iter(tuple(self._differences))

    # -- playing
    @contextlib.asynccontextmanager
    async def _played_into(self, workbench: Workbench) -> AsyncIterator[None]:
        """Follow the workbench, from the moment in which all its links stand."""
        self._workbench = workbench
        leave = workbench.feed.subscribe(self._follow)
        names = [device.id for device in workbench.devices() if device.adapter]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINKS_S):
                    while any(workbench.state(name).link is not LinkState.REPLAY for name in names):
                        self._moved.clear()
                        await self._moved.wait()
            self._reclock()
            yield
        finally:
            leave()

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
                    self._steps.clear()
                    self._position = self.end
                    self.clock.set(self.end, 0.0)
                return
            moment = datetime.fromtimestamp(self._next[0], UTC)
            if self.paused:
                if not self._steps:
                    return
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
            if self._steps and _is_a(self._steps[0], item):
                self._steps.popleft()
            if math.isinf(self._factor) and self._left() > LEAD and not self._is_stuck:
                await self._catch_up(LEAD // 2)
            elif count % 64 == 63:
                await asyncio.sleep(0)  # the window stays responsive however fast it plays

    async def _catch_up(self, most: int) -> None:
        """Wait until so few of the commands that have ended in the recording are still under way here."""
        left = self._left()
        try:
            async with asyncio.timeout(STUCK_S) as limit:
                while left > most:
                    self._moved.clear()
                    await self._moved.wait()
                    if self._left() < left:
                        limit.reschedule(asyncio.get_running_loop().time() + STUCK_S)
                    left = self._left()
        except TimeoutError:
            self._is_stuck = True

    def _left(self) -> int:
        return len(self._waited) + sum(map(len, self._reports.values()))

    def _feed(self, item: recording.Item) -> None:
        match item:
            case SampleSet():
                self.stage.queue(item.device).put_nowait(Telemetry(item))
            case Finding():
                if item.device:
                    self.stage.queue(item.device).put_nowait(Found(item))
            case recording.Command(story):
                self._begin(story)
            case recording.Moved(interaction, step):
                self._move(interaction, step)
            case Frame():
                self._show(item)
            case recording.Ended(interaction):
                self._end(interaction)

    def _begin(self, story: Story) -> None:
        assert self._workbench is not None
        was = story.interaction
        if was.origin is Origin.UNSOLICITED:
            self._reports[was.device, was.command].append(was)
            report = Report(device=was.device, command=was.command, answer=Answer(result=was.result or {}))
            self.stage.queue(was.device).put_nowait(report)
            return
        self._expected[was.id] = was
        line = recording.first_verdict(story)
        verdict = _verdict(line, was) if line is not None else None
        if was.is_settled and was.status not in _GIVEN_UP:
            self.stage.parts[was.id] = Part(recorded_outcome(story))
        elif verdict is None or verdict.status is Status.QUEUED:
            verdict = _HELD
        self._numbers[was.id] = self._workbench.submit(
            was.device,
            was.command,
            was.params,
            origin=was.origin,
            actor="replay",
            clicked=was.created,
            replay_of=was.id,
            verdict=verdict,
        )

    def _move(self, interaction: int, step: StepEntry) -> None:
        number = self._numbers.get(interaction)
        is_held = interaction not in self.stage.parts and step.event == Event.ADMIT
        if number is not None and not is_held and self._workbench is not None:
            failure = Failure(code=step.code, text=step.text, at=step.at) if step.code else None
            self._workbench.follow(number, Event(step.event), failure)

    def _show(self, frame: Frame) -> None:
        part = self.stage.parts.get(frame.interaction or -1)
        tap = self.stage.taps.get(frame.device)
        if part is not None:
            part.show(frame)
        elif tap is not None:
            show(tap, frame)

    def _end(self, interaction: int) -> None:
        number, was = self._numbers.pop(interaction, None), self._expected.get(interaction)
        if number is None or self._workbench is None:
            return
        if was is not None:
            self._waited.add(interaction)
        part = self.stage.parts.get(interaction)
        if part is not None:
            self._workbench.follow(number, Event.ADMIT)  # what waited and was answered all the same
            part.end()
        elif was is not None:
            self._abandon(number, Event.SUPERSEDE if was.status is Status.SUPERSEDED else Event.ABORT, was.failure)
        self._ended.append(interaction)
        if len(self._ended) > PARTS_KEPT:
            self.stage.parts.pop(self._ended.popleft(), None)

    def _abandon(self, number: int, event: Event, failure: Failure | None) -> None:
        assert self._workbench is not None
        if not self._workbench.follow(number, event, failure):
            self._workbench.follow(number, Event.UNINSTALL, failure)  # from under way there is no other way there

    def _give_up(self) -> None:
        """Nothing of what is under way is waited for any more."""
        self._expected.clear()
        self._waited.clear()
        self._reports.clear()
        self._ended.clear()
        failure = Failure(
            code="REPLAY_MOVED", text="The replay went on from another moment before this ended.", at=self.clock.now()
        )
        for number in self._numbers.values():
            self._abandon(number, Event.ABORT, failure)
        self._numbers.clear()
        self.stage.clear()

    # -- comparing
    def _follow(self, change: Change) -> None:
        """What the replay's pipeline said."""
        self._moved.set()
        if not isinstance(change, Interaction) or not change.is_settled:
            return
        if change.replay_of is not None:
            self._waited.discard(change.replay_of)
            was = self._expected.pop(change.replay_of, None)
        elif change.origin is Origin.UNSOLICITED:
            reports = self._reports.get((change.device, change.command))
            was = reports.popleft() if reports else None
        else:
            text = f"the replay made this command itself, and it ended {change.status}"
            self._differ(replace(change, id=0), "extra", text, None, change.status.value)
            return
        if was is None:
            return
        code, code_now = _code(was), _code(change)
        if was.status is not change.status:
            text = f"it was {_said(was)} and is {_said(change)}"
            self._differ(was, "status", text, was.status.value, change.status.value)
        elif code != code_now:
            self._differ(was, "code", f"its reason was {code or 'none'} and is {code_now or 'none'}", code, code_now)
        elif (found := first_difference(was.result or {}, change.result or {})) is not None:
            where, recorded, now = found
            self._differ(was, "result", f"{where} was {recorded!r} and is {now!r}", recorded, now, where=where)

    def _differ(self, was: Interaction, what: str, text: str, recorded: Any, now: Any, where: str = "") -> None:
        self._differences.append(
            Difference(
                what=what, text=f"{text}.", recorded=recorded, now=now, interaction=was.id or None, device=was.device,
                command=was.command, where=where,
            )
        )  # fmt: skip


def _factor(speed: float) -> float:
    return math.inf if speed <= 0 or math.isinf(speed) else max(MIN_SPEED, min(speed, MAX_SPEED))


def _is_a(unit: Unit, item: recording.Item) -> bool:
    if unit is Unit.FRAME:
        return isinstance(item, Frame)
    is_report = isinstance(item, recording.Command) and item.story.interaction.origin is Origin.UNSOLICITED
    return is_report or isinstance(item, recording.Ended)


def _verdict(line: StepEntry, was: Interaction) -> Verdict:
    """What the gatekeeper said first; a line says in one text what a row says in two."""
    assert line.status is not None
    failure = was.failure
    if failure is not None and failure.code == line.code:
        text, release = failure.text, failure.release
    else:
        text, release = line.text, ""
    is_final = line.status is Status.ABORTED
    return Verdict(status=line.status, code=line.code, text=text, release=release, is_final=is_final)


def recorded_outcome(story: Story) -> Recorded:
    """What an adapter that plays this story answers."""
    was = story.interaction
    failure = was.failure
    if was.status is Status.SUCCESSFUL:
        return Recorded(Answer(result=was.result or {}, text=_last_text(story)))
    code, text = (failure.code, failure.text) if failure is not None else ("NO_OUTCOME", "The recording has no end.")
    is_unknown = was.status is Status.OUTCOME_UNKNOWN
    if was.result or any(attempt.end is AttemptEnd.ANSWERED for attempt in story.attempts):
        execution = Execution.UNKNOWN if is_unknown else Execution.FAILURE
        return Recorded(Answer(execution=execution, code=code, text=text, result=was.result or {}))
    return Recorded(None, (code, text), Disposition.UNKNOWN if is_unknown else Disposition.FINAL)


def _last_text(story: Story) -> str:
    return next((line.text for line in reversed(story.steps) if line.status is Status.SUCCESSFUL), "")


def _code(interaction: Interaction) -> str:
    return interaction.failure.code if interaction.failure is not None else ""


def _said(interaction: Interaction) -> str:
    code = _code(interaction)
    return f"{interaction.status} ({code})" if code else str(interaction.status)


def first_difference(one: Any, other: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Field, value there and value here of the first difference of two JSON-ready values; None: they are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            found = first_difference(one.get(name), other.get(name), f"{where}.{name}" if where else str(name))
            if found is not None:
                return found
        return None
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        for number, (left, right) in enumerate(itertools.zip_longest(one, other)):
            found = first_difference(left, right, f"{where}[{number}]")
            if found is not None:
                return found
        return None
    same = one == other and isinstance(one, bool) == isinstance(other, bool)
    return None if same else (where or "the result", one, other)


def scratch_path(folder: Path, source: Path) -> Path:
    """Where the replay's own workspace goes."""
    return folder / f"replay-of-{source.stem}.mwk"
