"""What happened, in the order in which it happened: the timeline of a kept log (read only)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from app.interaction_log.reader import LogReader, Story
from app.model.interaction import Origin
from app.model.reading import Finding, Quantity, SampleSet

_PAGE = 256
_SAMPLES = 4096
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Command:
    """A command was asked for (or a report came, when its origin is UNSOLICITED)."""

    story: Story


Item = Command | SampleSet | Finding
Entry = tuple[float, int, int, Item]  # (seconds since the epoch, kind, number, item)


def timeline(reader: LogReader, since: datetime | None = None, until: datetime | None = None) -> Iterator[Entry]:
    """Commands, samples and findings between two moments, oldest first. Memory stays bounded by pages."""
    sources: list[Iterator[Entry]] = [_commands(reader, since, until), _findings(reader, since, until)]
    for number, (device, quantity, *_rest) in enumerate(reader.series()):
        sources.append(_samples(reader, device, quantity, number, since, until))
    return heapq.merge(*sources, key=lambda entry: entry[:3])


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
            if interaction.origin is Origin.FOLLOW_UP:
                continue  # the pipeline makes its follow-ups itself
            story = reader.story(interaction.id)
            if story is not None:
                yield interaction.created.timestamp(), 0, interaction.id, Command(story)


def _findings(reader: LogReader, since: datetime | None, until: datetime | None) -> Iterator[Entry]:
    rows = sorted(reader.findings(), key=lambda finding: finding.at)
    for number, finding in enumerate(rows):
        if (since is None or finding.at >= since) and (until is None or finding.at <= until):
            yield finding.at.timestamp(), 1, number, finding


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
                2,
                number,
                SampleSet(device=device, received=moment, values=((quantity, Decimal(repr(value))),)),
            )
        if len(times) < _SAMPLES:
            return
        start = datetime.fromtimestamp((int(times[-1]) + 1) / _US, UTC)
