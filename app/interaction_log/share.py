"""A part of a log for somebody else: a smaller workspace, JSON Lines, CSV, a page to read (HTML) or frames (pcapng).

``share`` writes; ``preview`` says beforehand what would be replaced by what. Both read the log twice at one moment:
once to learn what there is to hide, once to show it without. Secrets never leave, whatever is chosen, nor do tokens and
the workspace's settings. Memory is bounded by a page of interactions and by the different words that are replaced.

An attachment goes along as it is or not at all: not under pseudonyms, as nobody takes names out of a picture, nor with
a secret in it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from app.errors import ParameterError, StoreError
from app.interaction_log import rows as r
from app.interaction_log import transfer
from app.interaction_log.filters import Filter
from app.interaction_log.flow_rows import KINDS
from app.interaction_log.html_export import write_html
from app.interaction_log.pcapng import PcapWriter
from app.interaction_log.pseudonyms import Redaction, Replacement
from app.interaction_log.reader import LogReader, Page, Series, Story
from app.interaction_log.schema import explain
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.flow import FlowRecord
from app.model.interaction import Attempt, AttemptEnd, Frame, Interaction, Message, StepEntry
from app.model.reading import DeviceState, Finding, LinkState, SampleSet
from app.model.records import Attachment, Change
from app.ports import Secrets, Snapshot

F = TypeVar("F", bound=FlowRecord)

PAGE: Final = 512
POINTS: Final = 1_000  # samples of one hand-over
KEYRING: Final = "keyring:"


class Form(StrEnum):
    """What can be written."""

    MWK = "mwk"
    JSONL = "jsonl"
    CSV = "csv"
    HTML = "html"
    PCAPNG = "pcapng"


TITLES: Final[Mapping[Form, str]] = {
    Form.MWK: "A smaller workspace (*.mwk)",
    Form.JSONL: "JSON Lines, everything (*.jsonl)",
    Form.CSV: "A table of the interactions (*.csv)",
    Form.HTML: "A page to read and print (*.html)",
    Form.PCAPNG: "Frames for Wireshark (*.pcapng)",
}
SUFFIXES: Final[Mapping[str, Form]] = {
    ".mwk": Form.MWK,
    ".jsonl": Form.JSONL,
    ".csv": Form.CSV,
    ".html": Form.HTML,
    ".htm": Form.HTML,
    ".pcapng": Form.PCAPNG,
}


@dataclass(frozen=True, slots=True)
class Samples:
    """That samples go along: those of the shared devices with ``since`` <= time < ``until``. JSON Lines and *.mwk."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What was written; ``replaced`` is what stands there under a pseudonym."""

    file: Path
    form: Form
    interactions: int
    frames: int
    replaced: tuple[Replacement, ...]
    attachments: int = 0
    attachments_left_out: int = 0


Progress = Callable[[int, int], None]
"""Told now and then: interactions done and to do, both passes together. What it raises ends the export."""


def form_of(file: Path) -> Form:
    """By the end of the file's name.

    Raises:
        ParameterError: it has another one.
    """
    form = SUFFIXES.get(file.suffix.lower())
    if form is None:
        raise ParameterError(f"{file.name}: the name must end with {', '.join(SUFFIXES)}, or say the form.", "file")
    return form


def secrets_of(devices: Sequence[Device], secrets: Secrets) -> frozenset[str]:
    """The words that the settings of ``devices`` name in the keyring: what must not leave, in whatever encoding."""
    names = {
        value.removeprefix(KEYRING)
        for device in devices
        for settings in (device.settings, *(route.settings for route in device.routes))
        for value in settings.values()
        if isinstance(value, str) and value.startswith(KEYRING)
    }
    return frozenset(words for name in sorted(names) if (words := secrets.get(name)))


def preview(
    reader: LogReader,
    redaction: Redaction,
    where: Filter | None = None,
    *,
    samples: Samples | None = None,
    on_progress: Progress | None = None,
) -> list[Replacement]:
    """What ``share`` with the same arguments would replace, by what and how often; nothing is written.

    Raises:
        StoreError: the log cannot be read, or there are too many different words (see ``Redaction.learn``).
    """
    with _opened(reader, redaction, where, samples, on_progress) as source:
        redaction.counts.clear()
        source.snapshot()
        for _story in source.stories():
            pass
        for _record in source.loose():
            pass
        source.series()
    return redaction.found()


def share(
    reader: LogReader,
    file: Path,
    redaction: Redaction,
    where: Filter | None = None,
    *,
    form: Form | None = None,
    samples: Samples | None = None,
    on_progress: Progress | None = None,
) -> Shared:
    """Write the interactions that match (all, when ``where`` is None) with all that hangs on them.

    A filter leaves out traffic and findings that belong to no interaction, and the devices that are not concerned.
    The file appears under its name only when it is whole.

    Args:
        redaction: ``Redaction(())`` hides secrets only.
        form: None: by the file's name.

    Raises:
        ParameterError: no form goes with the name.
        StoreError: the log cannot be read, or the file not be written; then it is as it was.
    """
    form = form_of(file) if form is None else form
    if file.exists() and reader.path.exists() and file.samefile(reader.path):
        raise StoreError(f"{file} is the log itself. Choose another name.")
    with _opened(reader, redaction, where, samples, on_progress) as source:
        redaction.counts.clear()
        match form:
            case Form.JSONL:
                transfer.export_jsonl(source, file, source.shown_filter(), samples=samples is not None)
            case Form.CSV:
                transfer.export_csv(source, file, source.shown_filter())
            case Form.MWK:
                _write_workspace(source, file)
            case Form.HTML:
                with transfer.whole_file(file) as text:
                    write_html(text, source.stories(), source.snapshot().devices, source.filter_text())
            case Form.PCAPNG:
                _write_pcapng(source, file)
        return Shared(
            file=file, form=form, interactions=source.shown, frames=source.frames_shown,
            replaced=tuple(redaction.found()), attachments=source.attachments_shown,
            attachments_left_out=source.attachments_left_out,
        )  # fmt: skip


# ---------------------------------------------------------------- a reader that shows what may be seen


class _Records(r.Records):
    """Builds nouns as another one does, and hides what is to be hidden."""

    def __init__(self, inner: r.Records, redaction: Redaction) -> None:
        vars(self).update(vars(inner))
        self._redaction = redaction

    def interaction(self, row: r.Row, *, with_token: bool = False) -> Interaction:
        return self._redaction.record(super().interaction(row))

    def step(self, row: r.Row) -> StepEntry:
        return self._redaction.record(super().step(row))

    def message(self, row: r.Row) -> Message:
        return self._redaction.record(super().message(row))

    def attempt(self, row: r.Row) -> Attempt:
        return self._redaction.record(super().attempt(row))

    def frame(self, row: r.Row) -> Frame:
        return self._redaction.record(super().frame(row))

    def finding(self, row: r.Row) -> Finding:
        return self._redaction.record(super().finding(row))


class _Shown(Filter):
    """A filter whose text does not say what is hidden."""

    __slots__ = ("_text",)
    _text: str

    def __init__(self, inner: Filter, text: str) -> None:
        super().__init__(inner.node)
        object.__setattr__(self, "_text", text)

    def __str__(self) -> str:
        return self._text


class SharingReader(LogReader):
    """Shows one moment of a log, under a redaction once it has one.

    Args:
        reader: whose connection it borrows; it stays open, and ``reader.interrupt`` ends an export.
        where: which interactions.
        samples: which samples; None: none.
    """

    def __init__(self, reader: LogReader, where: Filter | None, samples: Samples | None) -> None:
        vars(self).update(vars(reader))
        self._plain = self._records
        self._redaction: Redaction | None = None
        self._where = None if where is None or where.is_everything else where
        self._samples_of = samples
        self._is_held = False
        self._page: Page | None = None
        self._stories: dict[int, Story] = {}
        self._wanted: frozenset[str] | None = None  # devices by their own ids; None: all
        self._curves: dict[tuple[str, str, str], tuple[Series, str, str]] = {}  # and own names of device and quantity
        self.on_page: Callable[[int], None] = lambda _count: None
        self.shown = 0
        self.frames_shown = 0
        self.attachments_shown = 0
        self.attachments_left_out = 0

    # -- one moment

    @contextmanager
    def held(self) -> Iterator[None]:
        """All that is read is of one moment."""
        with super().one_moment():
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        if self._is_held:
            yield
        else:
            with super().one_moment():
                yield

    # -- learning and hiding

    def choose_devices(self) -> None:
        """With a filter only the devices that are concerned are shown, and what they hang on."""
        if self._where is None:
            return
        wanted: set[str] = set()
        after = -1
        while page := super().page(after=after, limit=PAGE, where=self._where):
            wanted.update(interaction.device for interaction in page)
            after = page.ids[-1]
        devices = {device.id: device for device in self._devices()}
        for name in sorted(wanted):
            device = devices.get(name)
            while device is not None and device.parent and device.parent not in wanted:
                wanted.add(device.parent)
                device = devices.get(device.parent)
        self._wanted = frozenset(wanted)

    def teach(self, redaction: Redaction) -> None:
        """Let a redaction see everything that is going to be shown."""
        for noun in (*self._devices(), *self._states()):  # also of those not shown: texts and the filter name them
            redaction.learn(noun)
        for story in self.stories():
            redaction.learn(story)
        for record in self.loose():
            redaction.learn(record)
        for series in super().series() if self._samples_of is not None else ():
            redaction.learn(series)

    def hide(self, redaction: Redaction) -> None:
        """Show everything under the redaction from now on."""
        self._redaction = redaction
        self._records = _Records(self._plain, redaction)
        self._curves = {}
        for device, quantity in super().series():
            shown = Series(device=redaction.text(device), quantity=redaction.record(quantity))
            self._curves[shown.device, shown.quantity.name, quantity.unit] = (shown, device, quantity.name)
        self.shown = self.frames_shown = 0
        self._stories.clear()

    def shown_filter(self) -> Filter | None:
        """The filter, with a text that may be seen."""
        return None if self._where is None else _Shown(self._where, self.filter_text())

    def filter_text(self) -> str:
        if self._where is None:
            return ""
        text = str(self._where)
        return text if self._redaction is None else self._redaction.text(text)

    # -- what is read

    def page(
        self, *, before: int | None = None, after: int | None = None, limit: int = 256, where: Filter | None = None
    ) -> Page:
        self._page = super().page(before=before, after=after, limit=limit, where=where)
        self._stories.clear()
        if self._redaction is not None:
            self.shown += len(self._page)
        self.on_page(len(self._page))
        return self._page

    def stories(self) -> Iterator[Story]:
        """Every chosen interaction with all that hangs on it but its relations, in the order of ids."""
        after = -1
        while page := self.page(after=after, limit=PAGE, where=self._where):
            for number in page.ids:
                story = self.story(number)
                if story is not None:
                    yield story
            after = page.ids[-1]

    def story(self, number: int) -> Story | None:
        """As of any reader, without ``related``; those of a page are read together."""
        if number not in self._stories and self._page is not None:
            self._stories = self._stories_of(self._page)
        return self._stories.pop(number, None)

    def _stories_of(self, page: Page) -> dict[int, Story]:
        interactions = {interaction.id: interaction for interaction in page}
        records = self._records
        steps = self._of_page("step", r.STEP_COLUMNS, "id", records.step, page)
        messages = self._of_page("message", r.MESSAGE_COLUMNS, "id", records.message, page)
        attempts = self._of_page("attempt", r.ATTEMPT_COLUMNS, "interaction, message, number", records.attempt, page)
        frames = self._of_page("frame", r.FRAME_COLUMNS, "id", records.frame, page)
        findings = self._of_page("finding", r.FINDING_COLUMNS, "id", records.finding, page)
        if self._redaction is not None:
            self.frames_shown += sum(map(len, frames.values()))
        return {
            number: Story(
                interaction=interaction,
                steps=tuple(steps.get(number, ())),
                messages=tuple(messages.get(number, ())),
                attempts=tuple(attempts.get(number, ())),
                frames=tuple(frames.get(number, ())),
                findings=tuple(findings.get(number, ())),
            )
            for number, interaction in interactions.items()
        }

    def _of_page(
        self, table: str, columns: str, order: str, make: Callable[[r.Row], Any], page: Page
    ) -> dict[int, list[Any]]:
        self._plain.words.refresh()
        found: dict[int, list[Any]] = {}
        sql = (
            f"SELECT {columns} FROM {table} WHERE interaction IN (SELECT value FROM json_each(?)) ORDER BY {order}"
        )
        for row in self.query(sql, (r.to_json(page.ids),)):
            noun = make(row)
            found.setdefault(noun.interaction, []).append(noun)
        return found

    def loose(self) -> Iterator[Frame | Finding | FlowRecord]:
        """Frames, then findings, that belong to no interaction, then flow records; none of them with a filter."""
        if self._where is not None:
            return
        after: int | None = None
        while page := self.frames(after_id=after, limit=PAGE):
            after = page[-1][0]
            yield from (frame for _number, frame in page)
        yield from self.findings()
        for noun in KINDS:
            yield from self.flows(noun, limit=None)

    def frames(
        self,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after_id: int | None = None,
        limit: int = 1000,
    ) -> list[tuple[int, Frame]]:
        """Those that belong to no interaction; the others come with their stories."""
        if device is not None or since is not None or until is not None:
            raise NotImplementedError("an export takes all frames in the order of their ids")
        self._plain.words.refresh()
        sql = f"SELECT {r.FRAME_COLUMNS} FROM frame WHERE id > ? AND interaction IS NULL ORDER BY id LIMIT ?"
        rows = self._all(sql, (0 if after_id is None else after_id, limit))
        if self._redaction is not None:
            self.frames_shown += len(rows)
        return [(int(row[0]), self._records.frame(row)) for row in rows]

    def findings(
        self,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        after_id: int | None = None,
        limit: int | None = None,
    ) -> list[Finding]:
        """Those that belong to no interaction; the others come with their stories."""
        if device is not None or since is not None or until is not None or after_id is not None or limit is not None:
            raise NotImplementedError("an export takes all findings")
        self._plain.words.refresh()
        rows = self._all(f"SELECT {r.FINDING_COLUMNS} FROM finding WHERE interaction IS NULL ORDER BY id")
        return [self._records.finding(row) for row in rows]

    def attachments(self) -> Iterator[Attachment]:
        """None with a filter: the flow records that name them do not come either."""
        redaction = self._redaction
        for one in () if self._where is not None else super().attachments():
            if redaction is not None and (redaction.kinds or redaction.data(one.data) != one.data):
                self.attachments_left_out += 1
                continue
            self.attachments_shown += 1
            yield one if redaction is None else replace(one, name=redaction.text(one.name))

    def _devices(self) -> list[Device]:
        return [r.device_of(row) for row in self._all(f"SELECT {r.DEVICE_COLUMNS} FROM device ORDER BY position, id")]

    def _states(self) -> list[DeviceState]:
        return [r.state_of(row) for row in self._all(f"SELECT {r.STATE_COLUMNS} FROM device_state ORDER BY device")]

    def snapshot(self) -> Snapshot:
        """Devices and their states; nothing of what the engine would go on with."""
        devices = [device for device in self._devices() if self._wanted is None or device.id in self._wanted]
        states = [state for state in self._states() if self._wanted is None or state.device in self._wanted]
        if self._redaction is not None:
            devices = [self._redaction.record(device) for device in devices]
            states = [self._redaction.record(state) for state in states]
        return Snapshot(devices=tuple(devices), states=tuple(states))

    def flows(self, kind: type[F], *, device: str | None = None, limit: int | None = 256) -> tuple[F, ...]:
        found = super().flows(kind, device=device, limit=limit)
        if self._redaction is None:
            return found
        return cast(tuple[F, ...], tuple(map(self._redaction.record, found)))

    def series(self) -> list[Series]:
        if self._samples_of is None:
            return []
        return [shown for shown, own, _name in self._curves.values() if self._wanted is None or own in self._wanted]

    def samples_with_meter_time(
        self, device: str, quantity: str, unit: str, after_us: int | None, limit: int
    ) -> list[tuple[int, float, int | None]]:
        span = self._samples_of
        known = self._curves.get((device, quantity, unit))
        if span is None or known is None:
            return []
        if after_us is None and span.since is not None:
            after_us = r.to_us(span.since) - 1
        _shown, own, name = known
        found = super().samples_with_meter_time(own, name, unit, after_us, limit)
        if span.until is not None:
            stop = r.to_us(span.until)
            found = [sample for sample in found if sample[0] < stop]
        return found

    def is_chosen(self, number: int) -> bool:
        """Whether an interaction is among those that are shared."""
        if self._where is None:
            return bool(self._all("SELECT 1 FROM interaction WHERE id = ?", (number,)))
        return bool(super().count(self._where.among(number, number)))


@contextmanager
def _opened(
    reader: LogReader,
    redaction: Redaction,
    where: Filter | None,
    samples: Samples | None,
    on_progress: Progress | None,
) -> Iterator[SharingReader]:
    """The log, held at one moment; the redaction has learnt what will be shown."""
    source = SharingReader(reader, where, samples)
    with source.held():
        source.choose_devices()
        if on_progress is not None:
            done, total = 0, source.count(where) * (2 if redaction.kinds else 1)

            def tell(count: int) -> None:
                nonlocal done
                done += count
                on_progress(done, max(done, total))

            source.on_page = tell
        if redaction.kinds:
            source.teach(redaction)
        source.hide(redaction)
        yield source


# ---------------------------------------------------------------- a smaller workspace


def _write_workspace(source: SharingReader, file: Path) -> None:
    """The same rows with the same numbers. What was still under way ends: it must not be sent from there."""
    if file.exists():
        raise StoreError(f"{file} exists already. A workspace is never replaced; choose another name.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", suffix=".part", dir=file.parent) as folder:
            made = Path(folder) / file.name
            with LogWriter(made) as writer:
                for changes in _changes(source):
                    writer.put(*changes)
                writer.flush(text=True)
            os.replace(made, file)
    except OSError as exc:
        raise explain(file, exc) from exc


def _changes(source: SharingReader) -> Iterator[Sequence[Change]]:
    snapshot = source.snapshot()
    yield snapshot.devices
    for state in snapshot.states:
        told = {name: number for name, number in state.facts_from.items() if source.is_chosen(number)}
        yield (replace(state, link=LinkState.OFF, link_text="", facts_from=told),)
    for story in source.stories():
        yield _ended(story, source)
    for record in source.loose():
        if isinstance(record, (Frame, Finding)):
            yield (record,)  # flow records stay behind: a rule or order of somebody else's must not run there
    for attachment in source.attachments():
        yield (attachment,)
    for device, quantity in source.series():
        after: int | None = None
        while points := source.samples_with_meter_time(device, quantity.name, quantity.unit, after, POINTS):
            after = points[-1][0]
            for at, value, meter in points:
                values = ((quantity, Decimal(repr(value))),)
                yield (SampleSet(device=device, received=r.from_us(at), values=values, meter_time=r.opt_time(meter)),)


def _ended(story: Story, source: SharingReader) -> list[Change]:
    interaction = story.interaction
    leader = interaction.shared_with
    if leader is not None and not source.is_chosen(leader):
        interaction = replace(interaction, shared_with=None)
    changes: list[Change] = []
    closing: tuple[StepEntry, ...] = ()
    if not interaction.is_settled:
        interaction, closing = transfer.closed(interaction)
    changes += (interaction, *story.steps, *closing)
    for message in story.messages:
        over = replace(message, state=transfer.ended(message.state), holds_slot=False)
        changes.append(over if closing else message)
    for attempt in story.attempts:
        is_lost = closing and attempt.end is AttemptEnd.OPEN
        changes.append(replace(attempt, end=AttemptEnd.LOST) if is_lost else attempt)
    return [*changes, *story.frames, *story.findings]


# ---------------------------------------------------------------- frames


def _write_pcapng(source: SharingReader, file: Path) -> None:
    adapters = {device.id: device.adapter for device in source.snapshot().devices}
    with transfer.whole_binary(file) as out:
        capture = PcapWriter(out, source.filter_text())
        for story in source.stories():
            for frame in story.frames:
                capture.write(frame, story.interaction.adapter, story.interaction.command)
        for record in source.loose():
            if not isinstance(record, Frame):
                break  # frames come first
            capture.write(record, adapters.get(record.device, ""))
