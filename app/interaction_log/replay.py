"""What happened, in the order in which it happened: the timeline of a kept log (read only)."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, TypeAlias

from app.interaction_log.reader import LogReader, Story
from app.model.interaction import Frame, Origin, StepEntry
from app.model.reading import Finding, Quantity, SampleSet
from app.model.status import Event

_PAGE: Final = 256
_FRAMES: Final = 64  # of one page; a frame may hold a megabyte
_SAMPLES: Final = 4096
_US: Final = 1_000_000
VERDICTS: Final = (Event.ADMIT, Event.SUSPEND, Event.DEFER, Event.ABORT)


@dataclass(frozen=True, slots=True)
class Command:
    """A command was asked for (or a report came, when its origin is UNSOLICITED)."""

    story: Story


@dataclass(frozen=True, slots=True)
class Moved:
    """A command that had not left yet was judged again."""

    interaction: int
    step: StepEntry


@dataclass(frozen=True, slots=True)
class Ended:
    """A command came to its end."""

    interaction: int


Item: TypeAlias = Command | Moved | Frame | Ended | SampleSet | Finding
Entry: TypeAlias = tuple[float, int, int, Item]  # (seconds since the epoch, kind, number, item)


def timeline(reader: LogReader, since: datetime | None = None, until: datetime | None = None) -> Iterator[Entry]:
    """What happened between two moments, oldest first; memory stays bounded by pages and by what is under way.

    What belongs to a command comes after it, also where the computer's clock was set back meanwhile, and also when it
    is later than ``until``: a command that is begun comes to its end.
    """
    sources: list[Iterator[Entry]] = [
        _commands(reader, since, until),
        _findings(reader, since, until),
        _loose_frames(reader, since, until),
    ]
    for number, (device, quantity, *_rest) in enumerate(reader.series()):
        sources.append(_samples(reader, device, quantity, number, since, until))
    under_way: list[Entry] = []
    numbers = itertools.count()
    for entry in heapq.merge(*sources, key=lambda entry: entry[:3]):
        while under_way and under_way[0][:3] <= entry[:3]:
            yield heapq.heappop(under_way)
        yield entry
        if isinstance(entry[3], Command):
            for later in _of_story(entry[3].story, numbers):
                heapq.heappush(under_way, later)
    while under_way:
        yield heapq.heappop(under_way)


def first_verdict(story: Story) -> StepEntry | None:
    """The line of the history in which the gatekeeper said what becomes of the command; None where there is none."""
    moves = (line for line in story.steps if line.status is not None)
    first = next(moves, None)
    return first if first is not None and first.event in VERDICTS else None


def span(reader: LogReader) -> tuple[datetime, datetime] | None:
    """First and last moment of the log; None when it is empty."""
    moments: list[float] = []
    first, last, count = reader.span()
    if count:
        for number in (first, last):
            interaction = reader.interaction(number)
            if interaction is not None:
                moments += [interaction.created.timestamp(), (interaction.finished or interaction.updated).timestamp()]
    for device, quantity, *_rest in reader.series():
        times, _values = reader.samples(device, quantity.name, None, None, 1)
        if len(times):
            moments.append(float(times[0]) / _US)
        last_time = reader.last_sample_time(device, quantity.name)
        if last_time is not None:
            moments.append(last_time.timestamp())
    if not moments:
        return None
    return datetime.fromtimestamp(min(moments), UTC), datetime.fromtimestamp(max(moments), UTC)


def _commands(reader: LogReader, since: datetime | None, until: datetime | None) -> Iterator[Entry]:
    after = 0
    while page := reader.page(after=after, limit=_PAGE):
        for interaction in page:
            after = interaction.id
            if since is not None and interaction.created < since:
                continue
            if until is not None and interaction.created > until:
                return
            story = reader.story(interaction.id)
            if story is not None:
                yield interaction.created.timestamp(), 0, interaction.id, Command(story)


def _of_story(story: Story, numbers: Iterator[int]) -> Iterator[Entry]:
    """Kinds 1 to 3: verdicts after the first one, bytes, the end."""
    was = story.interaction
    first = first_verdict(story)
    for line in story.steps:
        if line.status is not None and line is not first and line.event in VERDICTS and line.event is not Event.ABORT:
            yield line.at.timestamp(), 1, next(numbers), Moved(was.id, line)
    is_report = was.origin is Origin.UNSOLICITED
    for frame in story.frames:  # a report has no attempt that its bytes could belong to
        yield frame.at.timestamp(), 2, next(numbers), replace(frame, interaction=None) if is_report else frame
    if was.is_settled and not is_report:
        yield (was.finished or was.updated).timestamp(), 3, next(numbers), Ended(was.id)


def _loose_frames(reader: LogReader, since: datetime | None, until: datetime | None) -> Iterator[Entry]:
    """Frames of no command: polling, opening the connection, what came unasked."""
    after: int | None = None
    while page := reader.frames(since=since, until=until, after_id=after, limit=_FRAMES):
        for number, frame in page:
            after = number
            if frame.interaction is None:
                yield frame.at.timestamp(), 4, number, frame


def _findings(reader: LogReader, since: datetime | None, until: datetime | None) -> Iterator[Entry]:
    rows = sorted(reader.findings(), key=lambda finding: finding.at)
    for number, finding in enumerate(rows):
        if (since is None or finding.at >= since) and (until is None or finding.at <= until):
            yield finding.at.timestamp(), 5, number, finding


def _samples(
    reader: LogReader, device: str, quantity: Quantity, number: int, since: datetime | None, until: datetime | None
) -> Iterator[Entry]:
    start = since
    while True:
        times, values = reader.samples(device, quantity.name, start, until, _SAMPLES)
        for time_us, value in zip(times.tolist(), values.tolist(), strict=True):
            moment = datetime.fromtimestamp(time_us / _US, UTC)
            yield (
                time_us / _US,
                6,
                number,
                SampleSet(device=device, received=moment, values=((quantity, Decimal(repr(value))),)),
            )
        if len(times) < _SAMPLES:
            return
        start = datetime.fromtimestamp((int(times[-1]) + 1) / _US, UTC)
