"""A part of the log, or a support bundle, for somebody else: what, in which form, what is hidden, and where to.

What would be replaced is shown before anything is written. The log is read beside the window; writing can be stopped,
and then nothing is left behind. A file that exists is never replaced.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

from PySide6.QtCore import QCoreApplication, QStandardPaths, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from app.config import Profile
from app.doctor import Check, run_checks
from app.errors import FilterError, ParameterError, StoreError, WorkbenchError
from app.interaction_log.filters import Filter, parse
from app.interaction_log.pseudonyms import ALL_KINDS, Kind, Redaction, Replacement
from app.interaction_log.pseudonyms import TITLES as KIND_TITLES
from app.interaction_log.reader import LogReader
from app.interaction_log.replay import span as recorded_span
from app.interaction_log.schema import explain
from app.interaction_log.share import TITLES as FORM_TITLES
from app.interaction_log.share import Form, Samples, preview, secrets_of, share
from app.model.command import ParamSpec, ParamType
from app.ports import Secrets
from app.support_bundle import Part, bundle_name, write_bundle
from ui.dialogs.lab import Errand, LabDialog, TimeField
from ui.model_words import model_text
from ui.panels.command import ParamField
from ui.panels.detail import LinesModel, LinesView
from ui.theme import Role, Theme, space
from ui.widgets.chart.curve import from_us, in_years, to_us
from ui.widgets.filter_line import FilterLine
from ui.widgets.result_box import ResultBox
from ui.widgets.sentence_panel import SentencePanel, tint, words_label
from ui.widgets.text_view import visible_text

translate: Final = QCoreApplication.translate

WIDTH: Final = 150  # letters
SPARE_LINES: Final = 6  # for what became of it
LEFT_SHARE, RIGHT_SHARE = 5, 6  # of the width
TYPING_MS: Final = 350
POLL_MS: Final = 100
LOOKS_AT_ONCE: Final = 2_000  # interactions; of more the preview is asked for
HIDDEN: Final = "•••"
WITH_SAMPLES: Final = (Form.MWK, Form.JSONL)
COUNT_COLUMN: Final = 3


class What(StrEnum):
    """What is written."""

    LOG = "log"
    BUNDLE = "bundle"


# ---------------------------------------------------------------- beside the window


class Stopped(WorkbenchError):
    """A person stopped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the work in a thread is done with; nothing of the window.

    Attributes:
        path: the workspace; None where there is none.
        secrets: where the secrets of its devices are looked up; None where that is not possible.
        words: more words to hide.
        profile: the folders whose logs and settings a bundle holds; None: no bundle can be made.
        log_texts: lines of the program's log that are in memory only.
    """

    path: Path | None
    secrets: Secrets | None
    words: frozenset[str]
    profile: Profile | None
    log_texts: tuple[str, ...]
    open_reader: Callable[[Path], LogReader]
    checks: Callable[[], Sequence[Check]]

    def __repr__(self) -> str:
        return f"Source({self.path})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a person chose, but for the file. ``where`` is None for everything."""

    what: What
    where: Filter | None
    form: Form
    kinds: frozenset[Kind]
    samples: Samples | None = None
    part: Part | None = None  # of the log, in a bundle
    about: str = ""

    def same_words(self) -> tuple[object, ...]:
        """Two choices with the same of these replace the same words."""
        log = (str(self.where or ""), self.samples) if self.what is What.LOG else (self.part, self.about)
        return (self.what, self.kinds, *log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of it. ``count``: interactions, or frames of a capture; ``names`` of the files in a bundle."""

    file: Path
    count: int
    names: tuple[str, ...]
    replaced: tuple[Replacement, ...]
    left_out: int = 0  # attachments


@dataclass(frozen=True, slots=True)
class Looked:
    """What a choice replaces, and the redaction that says so: what was seen is what is written."""

    words: tuple[object, ...]
    redaction: Redaction
    replaced: tuple[Replacement, ...]


class Job:
    """One piece of work on the log: how far it is, and a way to stop it from another thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._reader: LogReader | None = None
        self._is_final = False
        self.is_stopped = False
        self.progress: tuple[int, int] = (0, 0)  # interactions done and to do

    def stop(self) -> None:
        """End it soon; may be called again, as an interrupt between two queries is lost. Too late once it is whole."""
        with self._guard:
            if self._is_final:
                return
            self.is_stopped = True
            if self._reader is not None:
                self._reader.interrupt()

    def tell(self, done: int, total: int) -> None:
        """As ``app.interaction_log.share.Progress``.

        Raises:
            Stopped: nobody wants it any more.
        """
        self.progress = (done, total)
        self.check()

    def check(self) -> None:
        if self.is_stopped:
            raise Stopped("It was stopped.")

    @contextmanager
    def reading(self, source: Source) -> Iterator[LogReader | None]:
        """The log of the workspace, if there is one."""
        self.check()
        if source.path is None:
            yield None
            return
        with source.open_reader(source.path) as reader:
            with self._guard:
                self._reader = reader
            try:
                self.check()
                yield reader
            finally:
                with self._guard:
                    self._reader = None

    def put(self, made: Path, file: Path) -> None:
        """Give a whole file its name, unless the work was stopped before.

        Raises:
            Stopped, StoreError: there is a file of that name by now.
        """
        with self._guard:
            self.check()
            if file.exists():
                raise StoreError(f"{file} exists already. Choose another name.")
            os.replace(made, file)
            self._is_final = True


@dataclass(frozen=True, slots=True)
class Counted:
    """Interactions that match, and all; the first and the last moment of the log, unless it is empty."""

    matching: int
    total: int
    span: tuple[datetime, datetime] | None


def count(source: Source, where: Filter | None, job: Job) -> Counted:
    """How much there is."""
    with job.reading(source) as reader:
        assert reader is not None
        total = reader.count()
        return Counted(total if where is None else reader.count(where), total, recorded_span(reader))


def look(source: Source, choice: Choice, job: Job) -> Looked:
    """What would be replaced. A bundle is made for that, in a place of its own, and thrown away.

    Raises:
        Stopped, StoreError
    """
    with job.reading(source) as reader:
        redaction = _redaction(source, choice, reader)
        if choice.what is What.LOG:
            assert reader is not None
            found = preview(reader, redaction, choice.where, samples=choice.samples, on_progress=job.tell)
            return Looked(choice.same_words(), redaction, tuple(found))
        try:
            with tempfile.TemporaryDirectory(prefix="meterwright-", ignore_cleanup_errors=True) as folder:
                written = _make(source, choice, redaction, Path(folder) / "bundle.zip", reader, job)
        except OSError as exc:
            raise explain(tempfile.gettempdir(), exc) from exc
        return Looked(choice.same_words(), redaction, written.replaced)


def write(source: Source, choice: Choice, file: Path, looked: Looked | None, job: Job) -> Written:
    """Write the file; it appears under its name only when it is whole and was not stopped.

    Args:
        looked: what was shown of this very choice; its pseudonyms are kept.

    Raises:
        Stopped, StoreError
    """
    with job.reading(source) as reader:
        redaction = _redaction(source, choice, reader) if looked is None else looked.redaction
        try:
            with tempfile.TemporaryDirectory(
                prefix=".meterwright-", suffix=".part", dir=file.parent, ignore_cleanup_errors=True
            ) as folder:
                made = Path(folder) / file.name
                try:
                    written = _make(source, choice, redaction, made, reader, job)
                except StoreError as fault:  # it names a place that a person never saw
                    places = re.escape(folder) + ".*" + re.escape(file.name)
                    raise StoreError(re.sub(places, lambda _found: str(file), str(fault))) from fault
                job.put(made, file)
        except OSError as exc:
            raise explain(file, exc) from exc
    return replace(written, file=file)


def _make(
    source: Source, choice: Choice, redaction: Redaction, file: Path, reader: LogReader | None, job: Job
) -> Written:
    redaction.counts.clear()
    if choice.what is What.LOG:
        assert reader is not None
        done = share(
            reader, file, redaction, choice.where, form=choice.form, samples=choice.samples, on_progress=job.tell
        )
        number = done.frames if choice.form is Form.PCAPNG else done.interactions
        left_out = done.attachments_left_out
        return Written(file=file, count=number, names=(), replaced=done.replaced, left_out=left_out)
    assert source.profile is not None
    bundle = write_bundle(
        file,
        redaction,
        profile=source.profile,
        reader=reader,
        part=choice.part,
        log_texts=source.log_texts,
        about=choice.about,
        checks=source.checks,
        on_progress=job.tell,
    )
    return Written(file=file, count=0, names=bundle.names, replaced=bundle.replaced)


def _redaction(source: Source, choice: Choice, reader: LogReader | None) -> Redaction:
    """A new one, which knows the secrets of the workspace's devices."""
    words = source.words
    if reader is not None and source.secrets is not None:
        words |= secrets_of(reader.snapshot().devices, source.secrets)
    return Redaction(choice.kinds, secrets=words)


# ---------------------------------------------------------------- parts of the dialog


class TargetField(ParamField):
    """The file that is going to be written. One that exists is refused."""

    def __init__(self, theme: Theme, folder: Path) -> None:
        self.folder = folder  # of names without one
        self.suffix = ""
        self.suffix_title = ""
        title = translate("Share", "File")
        super().__init__(ParamSpec(name="file", title=title, type=ParamType.FILE), theme)

    def _parse(self) -> Path:
        path = self.folder / os.path.expanduser(str(super()._parse()).strip())
        if path.suffix.lower() != self.suffix:
            fault = self.tr("The name must end with {suffix}.").format(suffix=self.suffix)
        elif not os.path.isdir(path.parent):
            fault = self.tr("There is no folder {folder}. Choose another one.").format(folder=path.parent)
        elif os.path.lexists(path):
            fault = self.tr("{name} exists already. Choose another name.").format(name=path.name)
        else:
            return path
        raise ParameterError(fault, self.spec.name)

    def _choose_file(self) -> None:
        dialog = QFileDialog(self, self.spec.title, str(self.folder))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)  # it is refused
        dialog.setNameFilters([self.suffix_title])
        dialog.setDefaultSuffix(self.suffix.removeprefix("."))
        dialog.selectFile(str(self.raw() or ""))
        dialog.fileSelected.connect(self._take_file)
        dialog.open()


class ReplacedPanel(SentencePanel):
    """Originals and what stands in their place, to be searched through; originals can be hidden."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._replaced: tuple[Replacement, ...] = ()
        self.search = QLineEdit()
        self.search.setObjectName("share.search")
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setAccessibleName(self.tr("Search in what is replaced"))
        self.search.setClearButtonEnabled(True)
        self.search.textChanged.connect(self._fill)
        self.hide_originals = QCheckBox(self.tr("&Hide the originals"))
        self.hide_originals.setObjectName("share.hide_originals")
        self.hide_originals.setToolTip(self.tr("On this screen only, for example while others look on."))
        self.hide_originals.toggled.connect(self._fill)
        self.found = QLabel()
        self.found.setObjectName("share.found")
        self.found.setAccessibleName(self.tr("How much is replaced"))
        titles = (self.tr("Kind"), self.tr("Original"), self.tr("Pseudonym"), self.tr("Times"))
        self.model = LinesModel(titles, frozenset({COUNT_COLUMN}), self)
        self.table = LinesView(self.model, self.tr("What is replaced by what"))
        self.table.setObjectName("share.table")
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.search, 1)
        row.addWidget(self.hide_originals)
        page = QWidget()
        column = QVBoxLayout(page)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(space(1))
        column.addLayout(row)
        column.addWidget(self.table, 1)
        column.addWidget(self.found)
        self._add_pages(page)
        QShortcut(QKeySequence.StandardKey.Find, self, self._find, context=Qt.ShortcutContext.WindowShortcut)

    def say(self, text: str) -> None:
        """A sentence in place of the table."""
        self._replaced = ()
        self._fill()
        self._say_instead(text)

    def show_replaced(self, replaced: Sequence[Replacement]) -> None:
        self._replaced = tuple(replaced)
        self._fill()
        self._show_page()

    def colour(self) -> None:
        """The theme has changed."""
        for label in (self.found, self._empty):
            self._tint(label, Role.DIMMED)

    def _find(self) -> None:
        if self._has_page():
            self.search.setFocus(Qt.FocusReason.ShortcutFocusReason)
            self.search.selectAll()

    def _fill(self, *_args: object) -> None:
        hides, wanted = self.hide_originals.isChecked(), self.search.text().strip().casefold()
        lines = [
            (kind_word(one.kind), HIDDEN if hides else _line(one.original), _line(one.pseudonym), f"{one.count:,}")
            for one in self._replaced
        ]
        shown = [line for line in lines if any(wanted in text.casefold() for text in line[:COUNT_COLUMN])]
        self.model.set_rows(shown)
        self.table.refit()
        text = self.tr("{n} different words, {times} times")
        if len(shown) < len(lines):
            text = self.tr("{shown} of {n} different words")
        times = sum(one.count for one in self._replaced)
        self.found.setText(text.format(shown=f"{len(shown):,}", n=f"{len(lines):,}", times=f"{times:,}"))


def kind_word(kind: Kind) -> str:
    """What is replaced, in one word."""
    words = {
        Kind.KEYS: translate("Replaced", "keys"),
        Kind.TOKENS: translate("Replaced", "tokens"),
        Kind.SERIALS: translate("Replaced", "serial numbers"),
        Kind.CUSTOMERS: translate("Replaced", "customers"),
        Kind.ADDRESSES: translate("Replaced", "addresses"),
        Kind.NAMES: translate("Replaced", "names"),
        Kind.PLACES: translate("Replaced", "places"),
    }
    return words[kind]


def _line(text: str) -> str:
    return visible_text(text).replace("\n", " ")


def _heading(text: str, buddy: QWidget | None = None) -> QLabel:
    label = QLabel(text)
    if buddy is not None:
        label.setBuddy(buddy)
    return label


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------- the dialog


class ShareDialog(LabDialog):
    """Writes a part of a log, or a support bundle; stays open to say what became of it.

    Args:
        path: the workspace; None where none is open: then only a bundle can be made.
        wanted: the filter to begin with.
        secrets: where the secrets of the workspace's devices are kept; they are hidden whatever is chosen.
        words: more words to hide, as the passwords this program was given.
        profile: what a support bundle is made of; None: none is offered.
        log_texts: lines of the program's log that are in memory only, for a bundle.
        zone: of the times in a filter that name none; None: the computer's.
        folder: where files go unless another one is chosen; None: the person's documents.
        open_reader, checks, open_url: how the log is opened and the doctor asked, both in a thread, and a folder shown.
    """

    taken = Signal(object)  # Path: it was written

    def __init__(
        self,
        theme: Theme,
        path: Path | None,
        wanted: str = "",
        secrets: Secrets | None = None,
        parent: QWidget | None = None,
        *,
        words: Sequence[str] = (),
        what: What = What.LOG,
        profile: Profile | None = None,
        log_texts: Sequence[str] = (),
        zone: tzinfo | None = None,
        folder: Path | None = None,
        open_reader: Callable[[Path], LogReader] = LogReader,
        checks: Callable[[], Sequence[Check]] = run_checks,
        open_url: Callable[[QUrl], bool] = QDesktopServices.openUrl,
    ) -> None:
        super().__init__(theme, parent, "share")
        self._source = Source(
            path=path,
            secrets=secrets,
            words=frozenset(words),
            profile=profile,
            log_texts=tuple(log_texts),
            open_reader=open_reader,
            checks=checks,
        )
        self._zone = zone
        self._folder = folder if folder is not None else _documents()
        self._open_url = open_url
        self._where: Filter | None = None
        self._filter_fault = ""
        self._matching: int | None = None  # interactions; None: not counted
        self._is_named = False  # the file, by the person
        self._looks_alone = True  # what would be replaced, without being asked: until something is written
        self._count: tuple[Job, Errand] | None = None
        self._look: tuple[Job, Errand] | None = None
        self._write: tuple[Job, Errand] | None = None
        self._looked: Looked | None = None
        self._written: Path | None = None
        self._soon = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._soon.timeout.connect(self._begin)
        self._poll = QTimer(self, interval=POLL_MS)
        self._poll.timeout.connect(self._show_progress)
        self._build()
        self.fit(WIDTH, SPARE_LINES)  # with all that one of the two has
        is_bundle = path is None or (what is What.BUNDLE and profile is not None)
        (self.what_bundle if is_bundle else self.what_log).setChecked(True)
        self.filter.setText(wanted)
        self._on_what()
        self._colour()
        self.filter.setFocus()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        left = QVBoxLayout()
        left.setSpacing(space(3))
        for part in (self._build_what(), self._build_log(), self._build_kinds()):
            left.addLayout(part)
        self.about = ParamField(
            ParamSpec(
                name="about",
                title=self.tr("What happened, and what did you expect?"),
                type=ParamType.TEXT,
                required=False,
                is_multiline=True,
            ),
            self._theme,
        )
        self.about.edited.connect(self._on_choice)
        left.addWidget(self.about)
        self.file = TargetField(self._theme, self._folder)
        self.file.edited.connect(self._on_file)
        left.addWidget(self.file)
        left.addStretch(1)
        columns = QHBoxLayout()
        columns.setSpacing(space(6))
        columns.addLayout(left, LEFT_SHARE)
        columns.addLayout(self._build_preview(), RIGHT_SHARE)
        self.form.addLayout(columns, 1)
        self.box = ResultBox(self._theme)
        self.box.setObjectName("share.result")
        self.box.sentences.setAccessibleName(self.tr("What became of it"))
        self.box.progress.setAccessibleName(self.tr("The file is being written"))
        self.box.stop.setText(self.tr("Stop writing"))
        self.box.stopRequested.connect(self._stop)
        outer = self.layout()
        assert isinstance(outer, QVBoxLayout)
        outer.insertWidget(1, self.box)
        self.show_folder = QPushButton(self.tr("Show in &folder"))
        self.show_folder.setObjectName("share.show_folder")
        self.show_folder.setAutoDefault(False)
        self.show_folder.clicked.connect(self._show_folder)
        self.show_folder.hide()
        self.foot.insertWidget(0, self.show_folder)
        self.go.clicked.connect(self._begin_writing)

    def _build_what(self) -> QVBoxLayout:
        self.what_log = QRadioButton(self.tr("A &part of the log"))
        self.what_log.setEnabled(self._source.path is not None)
        self.what_bundle = QRadioButton(self.tr("A support &bundle"))
        self.what_bundle.setVisible(self._source.profile is not None)
        self.what_bundle.setToolTip(
            self.tr(
                "One ZIP file that says how this installation stands: versions, the doctor's findings, settings, "
                "devices and the program's log, all without secrets."
            )
        )
        self._whats = QButtonGroup(self)
        row = QHBoxLayout()
        row.setSpacing(space(4))
        for button in (self.what_log, self.what_bundle):
            self._whats.addButton(button)
            row.addWidget(button)
        row.addStretch(1)
        self.what_log.toggled.connect(self._on_what)
        self.with_log = QCheckBox(self.tr("With a part of the &log"))
        self.with_log.setObjectName("share.with_log")
        self.with_log.setEnabled(self._source.path is not None)
        self.with_log.toggled.connect(self._on_what)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        box.addLayout(row)
        box.addWidget(self.with_log)
        return box

    def _build_log(self) -> QVBoxLayout:
        self.filter = FilterLine(self._theme)
        self.filter.setObjectName("share.filter")
        self.filter.setAccessibleName(self.tr("Filter"))
        self.filter.setPlaceholderText(self.tr("Everything; or, for example,  status:failed device:lem-1"))
        self.filter.setClearButtonEnabled(True)
        self.filter.textChanged.connect(self._on_choice)
        self.counted = words_label()
        self.counted.setObjectName("share.counted")
        self.counted.setAccessibleName(self.tr("How many interactions"))
        self.forms = QComboBox()
        self.forms.setObjectName("share.form")
        self.forms.setAccessibleName(self.tr("Form"))
        for form in Form:
            self.forms.addItem(model_text(FORM_TITLES[form]), form)
        self.forms.currentIndexChanged.connect(self._on_what)
        self.samples = QCheckBox(self.tr("With the &samples of the devices"))
        self.samples.setObjectName("share.samples")
        self.samples.toggled.connect(self._on_what)
        self.ranged = QCheckBox(self.tr("Onl&y those of a time"))
        self.ranged.setObjectName("share.ranged")
        self.ranged.toggled.connect(self._on_what)
        self.since = TimeField(self.tr("From"), 0, self._zone, self._theme)
        self.until = TimeField(self.tr("To before"), 0, self._zone, self._theme)
        self._is_ranged_by_hand = False
        self.times = QWidget()
        times = QVBoxLayout(self.times)
        times.setContentsMargins(space(4), 0, 0, 0)
        times.setSpacing(space(1))
        for field in (self.since, self.until):
            field.editor.setObjectName("share.since" if field is self.since else "share.until")
            field.edited.connect(self._on_time)
            times.addWidget(field)
        self.log_fields = QWidget()
        box = QVBoxLayout(self.log_fields)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(space(1))
        box.addWidget(_heading(self.tr("F&ilter"), self.filter))
        box.addWidget(self.filter)
        box.addWidget(self.counted)
        box.addSpacing(space(2))
        for widget in (_heading(self.tr("F&orm"), self.forms), self.forms, self.samples, self.ranged, self.times):
            box.addWidget(widget)
        outer = QVBoxLayout()
        outer.addWidget(self.log_fields)
        return outer

    def _build_kinds(self) -> QVBoxLayout:
        box = QVBoxLayout()
        box.setSpacing(space(1))
        title = _heading(self.tr("Replaced by pseudonyms, the same ones everywhere"))
        box.addWidget(title)
        self.kinds: dict[Kind, QCheckBox] = {}
        for kind in Kind:
            check = QCheckBox(_capital(model_text(KIND_TITLES[kind])))
            check.setObjectName(f"share.kind.{kind}")
            check.setAccessibleDescription(title.text())
            check.setChecked(True)
            check.toggled.connect(self._on_choice)
            self.kinds[kind] = check
            box.addWidget(check)
        self.secret_note = words_label()
        self.secret_note.setText(self.tr("Passwords and other secrets are hidden in any case."))
        box.addWidget(self.secret_note)
        return box

    def _build_preview(self) -> QVBoxLayout:
        self.look_title = QLabel()
        self.look_title.setObjectName("share.look_title")
        self.look = QPushButton()
        self.look.setObjectName("share.look")
        self.look.setAutoDefault(False)
        self.look.clicked.connect(self._on_look)
        head = QHBoxLayout()
        head.setSpacing(space(2))
        head.addWidget(self.look_title, 1)
        head.addWidget(self.look)
        self.replaced = ReplacedPanel(self._theme)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        box.addLayout(head)
        box.addWidget(self.replaced, 1)
        return box

    # ---------------------------------------------------------------- what is chosen

    def what(self) -> What:
        return What.BUNDLE if self.what_bundle.isChecked() else What.LOG

    def choice(self) -> Choice:
        """What is chosen now; the filter must have been understood."""
        form = Form(self.forms.currentData())
        kinds = ALL_KINDS & {kind for kind, check in self.kinds.items() if check.isChecked()}
        if self.what() is What.LOG:
            takes = self.samples.isEnabled() and self.samples.isChecked()
            samples = self._wanted_samples() if takes else None
            return Choice(what=What.LOG, where=self._where, form=form, kinds=kinds, samples=samples)
        part = Part(where=self._where, form=form) if self.with_log.isChecked() else None
        about = str(self.about.raw() or "")
        return Choice(what=What.BUNDLE, where=None, form=form, kinds=kinds, part=part, about=about)

    def _wanted_samples(self) -> Samples:
        if not self.ranged.isChecked():
            return Samples()
        return Samples(from_us(in_years(self.since.t_us())), from_us(in_years(self.until.t_us())))

    def _on_time(self) -> None:
        self._is_ranged_by_hand = True
        self._on_choice()

    def _has_log(self) -> bool:
        """Whether a part of the log goes along."""
        return self.what() is What.LOG or self.with_log.isChecked()

    def _on_what(self, *_args: object) -> None:
        """Another kind of file: other fields, another end of its name."""
        is_bundle = self.what() is What.BUNDLE
        self.with_log.setVisible(is_bundle)
        self.about.setVisible(is_bundle)
        self.log_fields.setVisible(self._has_log())
        self.samples.setVisible(not is_bundle)
        form = Form(self.forms.currentData())
        self.samples.setEnabled(form in WITH_SAMPLES)
        takes_samples = not is_bundle and self.samples.isEnabled() and self.samples.isChecked()
        self.ranged.setVisible(takes_samples)
        self.times.setVisible(takes_samples and self.ranged.isChecked())
        self.samples.setToolTip("" if form in WITH_SAMPLES else self.tr("This form holds no samples."))
        if is_bundle:
            self.file.suffix, self.file.suffix_title = ".zip", self.tr("Support bundle (*.zip)")
            self.name_it(self.tr("Share: support bundle"), self.tr("Close"), self.tr("Write the bundle"))
        else:
            self.file.suffix, self.file.suffix_title = f".{form}", model_text(FORM_TITLES[form])
            self.name_it(self.tr("Share a part of the log"), self.tr("Close"), self.tr("Write the file"))
        self._name_file()
        self._on_choice()

    def _name_file(self) -> None:
        """Suggest a file, or give the one that was named the right end."""
        path = Path(str(self.file.raw() or ""))
        known = {".zip", *(f".{form}" for form in Form)}
        if not self._is_named:
            self.file.set_value(str(self._suggested()))
        elif path.name and path.suffix.lower() in known:
            self.file.set_value(str(path.with_suffix(self.file.suffix)))
        self.file.show_error(self.file.fault() if self._is_named else "")

    def _suggested(self) -> Path:
        if self.what() is What.BUNDLE or self._source.path is None:
            return self._folder / bundle_name(datetime.now(UTC))
        stem = self.tr("{name}, a part").format(name=self._source.path.stem)
        names = (f"{stem}{number}{self.file.suffix}" for number in ("", *(f" {n}" for n in range(2, 1000))))
        return next((path for name in names if not os.path.lexists(path := self._folder / name)), self._folder / stem)

    def _on_file(self) -> None:
        self._is_named = True
        self.file.show_error(self.file.fault() if self.file.raw() else "")
        self._check()

    def _on_choice(self, *_args: object) -> None:
        """Something of the choice was edited: what was seen of the one before may be wrong."""
        self._parse_filter()
        self._looks_alone = True
        if self._looked is None or self._looked.words != self.choice().same_words() or self._filter_fault:
            self._end_look()
            self._looked = None
            self._show_wait()
        self._matching = None
        self._end_count()
        self._show_count()
        self._soon.start()
        self._check()

    def _parse_filter(self) -> None:
        self._filter_fault = ""
        self._where = None
        at = -1
        if self._has_log() and self.filter.text().strip():
            try:
                where = parse(self.filter.text(), datetime.now(UTC).astimezone(self._zone))
                self._where = None if where.is_everything else where
            except FilterError as fault:
                self._filter_fault = str(fault)
                at = fault.position
        self.filter.set_wrong(at)
        self.filter.setAccessibleDescription(self._filter_fault)

    def _check(self) -> None:
        """Enable what can be done; the rest says why not."""
        if self._filter_fault:
            needed = self.tr("Still needed: a filter that can be read.")
        elif self._has_log() and self._where is not None and self._matching == 0:
            needed = self.tr("Still needed: a filter that something matches.")
        elif not self.times.isHidden() and self.since.t_us() >= self.until.t_us():
            needed = self.tr("Still needed: an end of the samples that is behind their beginning.")
        elif fault := self.file.fault():
            needed = fault if self.file.raw() else self.tr("Still needed: a file.")
        else:
            needed = ""
        self.missing.setText(needed)
        is_free = self._write is None
        self.page.setEnabled(is_free)
        self.go.setEnabled(is_free and not needed)
        self.look.setEnabled(is_free and not self._filter_fault)

    # ---------------------------------------------------------------- counting

    def _begin(self) -> None:
        """The person has stopped typing."""
        self._soon.stop()
        if self._filter_fault or not self._has_log() or self._source.path is None:
            return
        job = Job()
        work = partial(count, self._source, self._where, job)
        self._count = (job, Errand(work, self._on_count, self._on_no_count, self))

    def _end_count(self) -> None:
        self._soon.stop()
        _end(self._count)
        self._count = None

    def _on_count(self, counts: Counted) -> None:
        self._count = None
        self._matching = counts.matching
        if counts.span is not None and not self._is_ranged_by_hand:
            first, last = map(to_us, counts.span)
            self.since.set_us(first - first % 1_000)
            self.until.set_us(last + 1_000)  # milliseconds are shown
        self._show_count(counts)
        self._check()
        is_quick = counts.matching <= LOOKS_AT_ONCE and self.what() is What.LOG
        if is_quick and self._looks_alone and self._looked is None and self._look is None:
            self._begin_look()

    def _on_no_count(self, fault: WorkbenchError) -> None:
        self._count = None
        self._say_count(str(fault), Role.BAD)

    def _show_count(self, counts: Counted | None = None) -> None:
        if self._filter_fault:
            self._say_count(self._filter_fault, Role.BAD)
        elif counts is None:
            self._say_count(self.tr("Counting…"), Role.DIMMED)
        elif self._where is None:
            self._say_count(self.tr("All {n} interactions.").format(n=f"{counts.total:,}"), Role.DIMMED)
        elif not counts.matching:
            self._say_count(self.tr("None of {all} interactions matches.").format(all=f"{counts.total:,}"), Role.BAD)
        else:
            text = self.tr("{n} of {all} interactions.")
            self._say_count(text.format(n=f"{counts.matching:,}", all=f"{counts.total:,}"), Role.DIMMED)

    def _say_count(self, text: str, role: Role) -> None:
        self._count_role = role
        self.counted.setText(text)
        tint(self.counted, self._theme, role)

    # ---------------------------------------------------------------- looking

    def _on_look(self) -> None:
        if self._look is not None:
            self._end_look()
            self._show_wait()
        else:
            self._begin_look()

    def _begin_look(self) -> None:
        self._end_look()
        self._looked = None
        job = Job()
        work = partial(look, self._source, self.choice(), job)
        self._look = (job, Errand(work, self._on_looked, self._on_no_look, self))
        self.look.setText(self.tr("Stop loo&king"))
        self.replaced.say(self.tr("Looking for what is to be replaced…"))
        self._poll.start()

    def _end_look(self) -> None:
        _end(self._look)
        self._look = None

    def _on_looked(self, looked: Looked) -> None:
        self._look = None
        self._looked = looked
        self.look_title.setText(self.tr("What would be replaced"))
        self.look.setText(self.tr("Look &again"))
        self._show_replaced(looked.replaced, self.tr("Nothing would be replaced."))

    def _on_no_look(self, fault: WorkbenchError) -> None:
        self._look = None
        self._show_wait()
        self.replaced.say(str(fault))

    def _show_wait(self) -> None:
        """Nothing was looked at yet."""
        self.look_title.setText(self.tr("What would be replaced"))
        self.look.setText(self.tr("Look &now"))
        if self._filter_fault:
            text = self.tr("Correct the filter, then what is replaced by what stands here.")
        elif self.what() is What.BUNDLE:
            text = self.tr("Press “Look now” to see what is replaced by what. The doctor takes some seconds.")
        else:
            text = self.tr("Press “Look now” to see what is replaced by what. Nothing is written for that.")
        self.replaced.say(text)

    def _show_replaced(self, replaced: Sequence[Replacement], nothing: str) -> None:
        if replaced:
            self.replaced.show_replaced(replaced)
        else:
            self.replaced.say(f"{nothing} {self.secret_note.text()}")

    def _show_progress(self) -> None:
        """Asked, not told: the thread holds nothing of the window."""
        if self._write is None and self._look is None:
            self._poll.stop()
            return
        if self._look is not None:
            done, total = self._look[0].progress
            if total:
                text = self.tr("Looking for what is to be replaced… {percent} %")
                self.replaced.say(text.format(percent=done * 100 // total))
        if self._write is not None:
            job = self._write[0]
            done, total = job.progress
            if job.is_stopped:
                job.stop()  # again: an interrupt between two queries is lost
            elif total:
                self.box.progress.setRange(0, 100)
                self.box.progress.setValue(done * 100 // total)

    # ---------------------------------------------------------------- writing

    def _begin_writing(self) -> None:
        if self._write is not None or not self.go.isEnabled():
            return
        try:
            file = self.file.check()
        except ParameterError:
            self._check()
            return  # it stands under its field
        self._end_look()
        self._looks_alone = False
        self.show_folder.hide()
        choice, looked = self.choice(), self._looked
        self._looked = None  # for one thread at a time
        job = Job()
        work = partial(write, self._source, choice, file, looked, job)
        self._write = (job, Errand(work, partial(self._on_written, choice), self._on_not_written, self))
        self.box.progress.setRange(0, 0)
        self.box.stop.setEnabled(True)
        self.box.begin(self.tr("Writing {name}…").format(name=file.name))
        self._check()
        self.box.stop.setFocus()
        self._poll.start()

    def _stop(self) -> None:
        if self._write is None:
            return
        self._write[0].stop()
        if self._write[0].is_stopped:
            self.box.sentences.setText(self.tr("Stopping…"))
            self.box.stop.setEnabled(False)

    def _on_written(self, choice: Choice, written: Written) -> None:
        self._write = None
        self._written = written.file
        self.box.say(self._result_text(choice, written), True)
        self.look_title.setText(self.tr("What was replaced"))
        self.look.setText(self.tr("Look &now"))
        self._show_replaced(written.replaced, self.tr("Nothing was replaced."))
        self._is_named = False
        self._name_file()
        self._check()
        self.show_folder.show()
        self.show_folder.setFocus()
        self.taken.emit(written.file)

    def _result_text(self, choice: Choice, written: Written) -> str:
        if choice.what is What.BUNDLE:
            text = self.tr("{file} holds {names}. Look through it before you send it.")
            return text.format(file=written.file, names=", ".join(written.names))
        if choice.form is Form.PCAPNG:
            text = self.tr("{n} frames were written to {file}.", "", written.count)
        else:
            text = self.tr("{n} interactions were written to {file}.", "", written.count)
        text = text.format(n=f"{written.count:,}", file=written.file)
        if written.left_out:
            left = self.tr(
                "{n} attachments were left out: what stands in a picture cannot be replaced.", "", written.left_out
            )
            text = f"{text} {left.format(n=f'{written.left_out:,}')}"
        kinds = Counter(one.kind for one in written.replaced)
        if not kinds:
            return text
        told = ", ".join(f"{number:,} {kind_word(kind)}" for kind, number in kinds.items())
        return f"{text} " + self.tr("Replaced in it: {kinds}.").format(kinds=told)

    def _on_not_written(self, fault: WorkbenchError) -> None:
        assert self._write is not None
        is_stopped = self._write[0].is_stopped
        self._write = None
        if is_stopped:
            self.box.say(self.tr("It was stopped. Nothing was written."), None)
        else:
            self.box.say(str(fault), False)
        self._on_choice()
        self.go.setFocus()

    def _show_folder(self) -> None:
        if self._written is None:
            return
        folder = self._written.parent
        if not self._open_url(QUrl.fromLocalFile(str(folder))):
            text = self.tr("This computer has nothing to show a folder with. The file is {file}.")
            self.box.say(text.format(file=self._written), None)

    # ---------------------------------------------------------------- the end

    def reject(self) -> None:
        """Stop what is being written; leave when nothing is, or when it is stopping already."""
        if self._write is not None and not self._write[0].is_stopped:
            self._stop()
            return
        super().reject()

    def done(self, result: int) -> None:
        self._end_count()
        self._end_look()
        _end(self._write)
        self._write = None
        self._poll.stop()
        super().done(result)

    def dimmed_labels(self) -> Sequence[QLabel]:
        return (self.missing, self.secret_note, self.look_title)

    def _colour(self) -> None:
        super()._colour()
        self.replaced.colour()
        tint(self.counted, self._theme, self._count_role)


def _end(under_way: tuple[Job, Errand] | None) -> None:
    """Nobody wants it any more."""
    if under_way is not None:
        job, errand = under_way
        job.stop()
        errand.drop()


def _documents() -> Path:
    found = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
    return Path(found) if found else Path.home()
