"""Every text a person sees can be translated, is in the files of translations, and comes out of the compiled ones."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QCoreApplication, QLocale, QModelIndex, QPoint, QSettings, Qt, QTranslator
from PySide6.QtGui import QAction
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QDoubleSpinBox,
    QGroupBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QListWidget,
    QMenu,
    QPlainTextEdit,
    QSpinBox,
    QTableView,
    QTabWidget,
    QTextEdit,
    QTreeView,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.adapters.registry import BUILT_IN, Registry
from app.config import profile
from app.crash_file import write_crash
from app.finding.kinds import KINDS
from app.finding.search import Candidate, Outcome, Tried, Waiting
from app.flow_files import FlowLibrary
from app.interaction_log.writer import LogWriter
from app.lab.series import SeriesKey
from app.lab.session import Note
from app.model.command import ParamSpec
from app.model.interaction import Attempt, AttemptEnd, Direction, Frame, Origin, Step, StepEntry
from app.model.status import Event, Status
from app.pipeline.gatekeeper import RULES as GATEKEEPERS_RULES
from app.text_redaction import TextRedactor
from tests.ui.fakes import (
    DISCONNECT_RELAY,
    POWER,
    SET_LIMIT,
    TOP_UP,
    VOLTAGE,
    DirectRunner,
    FakeSecrets,
    FakeWorkbench,
    prepaid_site,
    site,
)
from tests.ui.flow_bench import DEFINITION, METER, FlowBench, asking, failed, passed, undecided
from tests.ui.log_fakes import START, interaction, memory_log
from tests.ui.test_batch_panel import Asker, Bench, Reader, member
from ui import translations
from ui.actions import ACTIONS
from ui.dialogs.about import AboutDialog
from ui.dialogs.confirm import CommandQuestion
from ui.dialogs.connection import ConnectionDialog
from ui.dialogs.crash import CrashDialog
from ui.dialogs.derived import DerivedDialog
from ui.dialogs.directive import DirectiveDialog
from ui.dialogs.lab import CurveChoice
from ui.dialogs.note import NoteDialog
from ui.dialogs.outcome import OutcomeQuestion
from ui.dialogs.reference import ReferenceDialog
from ui.dialogs.settings import SettingsDialog
from ui.dialogs.share import ShareDialog
from ui.dialogs.shortcuts import ShortcutsDialog
from ui.dialogs.team import TeamDialog
from ui.dialogs.threshold import ThresholdDialog
from ui.log_access import LogAccess
from ui.main_window import MainWindow, Session
from ui.model_words import model_text, shown_command, shown_param
from ui.models.log_table import Column, make_row
from ui.panels.batch import BatchPanel
from ui.panels.log import LogPanel
from ui.preferences import Language, Preferences
from ui.record_words import ACTORS, EVENTS, RULES, actor_word, event_word, origin_word
from ui.theme import Theme, ThemeMode
from ui.translations import CLOSING, OPENING, PseudoTranslator, pseudo_text
from ui.widgets import port_picker
from ui.wizard.window import ConnectionWizard

ROOT = Path(__file__).resolve().parents[2]


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("meterwright_translations", ROOT / "packaging" / "translations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = _tool()


@pytest.fixture(scope="module")
def texts() -> Any:
    return tool.collect()


# --- what is shown ----------------------------------------------------------------------------------------------------


class Known:
    """The texts that were found; of the model also the titles that only the stand-ins of these tests have."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, tuple)
        return key[0] == tool.MODEL or tool.Key(*key) in self._texts


@pytest.fixture
def pseudo(qapp: QApplication, texts: Any) -> Iterator[None]:
    """Only what was found is translated: what the search for texts misses, stays without brackets, too."""
    translator = PseudoTranslator(qapp, known=Known(texts))
    qapp.installTranslator(translator)
    yield
    qapp.removeTranslator(translator)


@pytest.fixture
def theme(pseudo: None, qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


#: A line of every sort, by everybody who may act.
HISTORY = tuple(
    StepEntry(interaction=1, at=START, step=Step(n % 14 + 1), event=event, actor=actor, status=Status.QUEUED)
    for n, (event, actor) in enumerate(
        itertools.zip_longest(
            (*sorted(EVENTS), *Event, "phase 2 given up"), (*sorted(ACTORS), "flow 3"), fillvalue="app"
        )
    )
)


@pytest.fixture
def window(qtbot: QtBot, theme: Theme, tmp_path: Path) -> Iterator[MainWindow]:
    """The window with its real panels on a real log, curves on the chart, flows, and an interaction in the dock."""
    path = tmp_path / "bench.mwk"
    writer = LogWriter(path)
    writer.put(*(interaction(number, Status.SUCCESSFUL, origin=origin) for number, origin in enumerate(Origin, 1)))
    writer.put(*HISTORY)
    writer.put(Attempt(interaction=1, message=1, number=1, started=START, end=AttemptEnd.ANSWERED, ended=START))
    writer.put(Frame(interaction=1, at=START, device="p-1", direction=Direction.OUT, data=b"~", link="p-1"))
    writer.close()
    log = LogAccess(path)
    bench = FlowBench(prepaid_site())
    session = Session(workbench=bench, log=log, title="bench.mwk", secrets=FakeSecrets())
    settings = QSettings(str(tmp_path / "window.ini"), QSettings.Format.IniFormat)
    made = MainWindow(theme, settings, DirectRunner(), session)
    made.profile = profile(tmp_path / "profile").make()
    qtbot.addWidget(made, before_close_func=lambda w: w.allow_close())
    made.resize(1440, 900)
    made.show()
    made.build_now()
    made.show_device("p-1")
    for quantity in (VOLTAGE, POWER):
        made.add_curve("p-1", quantity)
    made.show_interaction(1)
    assert made.detail is not None
    steps = made.detail.steps_model
    qtbot.waitUntil(lambda: steps.rowCount() == len(HISTORY))
    yield made
    made.detach()
    log.close()


Seen = list[tuple[str, str]]  # where, the text
ROWS = 40  # of one level of a table that are looked at


def seen_in(top: QWidget) -> Seen:
    """Every text of a window: of its widgets, actions, tabs, headers and lists, hidden ones too."""
    found: Seen = []
    for one in (top, *top.findChildren(QWidget)):
        if one.objectName().startswith("qt_") or isinstance(one, QHeaderView):
            continue
        found += [(f"{_place(one)} {what}", text) for what, text in _of_widget(one)]
    for action in top.findChildren(QAction):
        name = f"action {action.objectName() or action.text()}"
        for what in ("text", "iconText", "toolTip", "statusTip", "whatsThis"):
            found.append((f"{name} {what}", str(action.property(what))))
    return found


def _of_widget(one: QWidget) -> Iterator[tuple[str, str]]:
    for what in ("toolTip", "statusTip", "whatsThis", "accessibleName", "accessibleDescription", "windowTitle"):
        yield what, str(one.property(what))
    if isinstance(one, QLabel | QAbstractButton):
        yield "text", one.text()
    if isinstance(one, QGroupBox | QMenu):
        yield "title", one.title()
    if isinstance(one, QLineEdit | QPlainTextEdit | QTextEdit):
        yield "placeholder", one.placeholderText()
    if isinstance(one, QSpinBox | QDoubleSpinBox):
        yield "prefix", one.prefix()
        yield "suffix", one.suffix()
    if isinstance(one, QAbstractSpinBox):
        yield "special value", one.specialValueText()
    if isinstance(one, QTabWidget):
        for at in range(one.count()):
            yield f"tab {at}", one.tabText(at)
            yield f"tab {at} tip", one.tabToolTip(at)
    if isinstance(one, QComboBox):
        for at in range(one.count()):
            yield f"item {at}", one.itemText(at)
    if isinstance(one, QAbstractItemView):
        yield from _of_view(one)


def _of_view(view: QAbstractItemView) -> Iterator[tuple[str, str]]:
    model = view.model()
    if model is not None and isinstance(view, QTableView | QTreeView):
        for section in range(model.columnCount()):
            for role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
                yield f"header {section}", str(model.headerData(section, Qt.Orientation.Horizontal, role) or "")
    if model is not None and isinstance(view, QTableView | QTreeView) and not isinstance(view, QTreeWidget):
        waiting_below = [QModelIndex()]
        while waiting_below:
            parent = waiting_below.pop()
            for row in range(min(model.rowCount(parent), ROWS)):
                waiting_below.append(model.index(row, 0, parent))
                for column in range(model.columnCount(parent)):
                    yield f"cell {row}, {column}", str(model.index(row, column, parent).data() or "")
    if isinstance(view, QListWidget):
        for at in range(view.count()):
            yield f"line {at}", view.item(at).text()
            yield f"line {at} tip", view.item(at).toolTip()
    if isinstance(view, QTreeWidget):
        waiting: list[QTreeWidgetItem | None] = [view.topLevelItem(at) for at in range(view.topLevelItemCount())]
        while waiting:
            item = waiting.pop()
            if item is not None:
                for column in range(view.columnCount()):
                    yield f"item column {column}", item.text(column)
                    yield f"item column {column} tip", item.toolTip(column)
                waiting += [item.child(at) for at in range(item.childCount())]


def _place(widget: QWidget) -> str:
    parts: list[str] = []
    above: QWidget | None = widget
    while above is not None and len(parts) < 4:
        parts.append(above.objectName() or type(above).__name__)
        above = above.parentWidget()
    return " in ".join(parts)


#: Reason -> what is data, and so in no language.
DATA = {
    "a device of these tests, by name and id": "|".join(
        rf"{re.escape(name)}( \({re.escape(id_)}\))?" for id_, name in ((d.id, d.name) for d in prepaid_site())
    ),
    "a file of these tests": r"\S*(bench\.mwk|pytest-of-\S*)",
    "a moment": r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]?[0-9:.]*Z?|UTC[+-][0-9:]{5}|UTC",
    "a unit": r"[\[(](kWh?|V|min)[\])]|\b[0-9.]+ (kW|kWh|V|A)\b|^(min|kWh?)$",
    "a command, as the log has it": r"\b[A-Z]+(_[A-Z]+)+\b",
    "the first line of a certificate": "-----BEGIN …",
    "a key": r"\((Return|Del)\)",
    "file names in a list of forms": r"\(\*\.[a-z]+\)",
    "the name of the program": "Meterwright",
    "the name of an error of Python": "RuntimeError",
    "sentences of the core with values in them, which are English for now": (
        r"Nothing held it up\.|The meter answered in 12 ms\.\nSerial number 4711\."
        r"|Power is 0\.2 kW.*|Set the power limit: LEM.*|LEM 4711 refused.*|5 steps, 1 with a warning\."
        r"|400 V within 5 %|from 1 to 50 kW|at least 1 A"
    ),
}
#: Reason -> the places whose texts are data, in no language.
PLACES = {
    "fields of an answer, as the device sends them": r"^ValueTree ",
    "names and licences of parts": r"^about\.parts .* column [02]",
    "words of a directive, as the gateway reads them": r"^QComboBox in .* in QTableWidget in directive",
    "a menu of pyqtgraph that is never shown": r"^action Export\.\.\.",
    "the device of an interaction, by its id, and its answer": r"^LogView .* cell [0-9]+, [26]$",
    "a list for a batch, and its faults": r"^batch\.preview .* (cell [0-9]+, [245]|header [34])$",
    "names of devices of a batch": r"^batch\.members .* cell [0-9]+, 0$",
    "the link that bytes went over": r"^LinesView in BytesTab .* cell [0-9]+, 4$",
}


def rest(text: str) -> str:
    """What of a text is neither translated nor data."""
    before = None
    while before != text:
        before, text = text, re.sub(f"{OPENING}[^{OPENING}{CLOSING}]*{CLOSING}", " ", text)
    text = re.sub(r"<[^<>]*>|&\w+;", " ", text)
    for pattern in reversed(DATA.values()):  # whole sentences first
        text = re.sub(pattern, " ", text)
    return text.strip() if re.search("[A-Za-z]{2}", text) else ""


def is_data(where: str) -> bool:
    return any(re.search(place, where) for place in PLACES.values())


def untranslated(top: QWidget) -> list[str]:
    return sorted({f"{text!r}  ({where})" for where, text in seen_in(top) if rest(text) and not is_data(where)})


def test_every_text_of_the_window_can_be_translated(window: MainWindow) -> None:
    missed = untranslated(window)
    assert not missed, "\n".join(missed)


def test_every_text_of_a_flow_can_be_translated(window: MainWindow) -> None:
    assert window.session is not None
    assert window.flows is not None
    bench, page = window.session.workbench, window.flows.parentWidget()
    assert isinstance(bench, FlowBench)
    assert page is not None
    window.show_device(METER)
    window.tabs.setCurrentWidget(page)
    title = pseudo_text(str(DEFINITION["title"]))
    missed = []
    for stage in (undecided, asking, passed, failed):
        window.flows.show_run(stage(bench).id)
        assert any(title in text for _where, text in seen_in(window)), "no flow is shown"
        missed += [f"{stage.__name__}: {one}" for one in untranslated(window)]
    assert not missed, "\n".join(missed)


def test_every_menu_made_on_demand_can_be_translated(window: MainWindow, qtbot: QtBot) -> None:
    window.add_curve("p-1", POWER)
    found, missed = 0, []
    for at in range(window.tabs.count()):
        window.tabs.setCurrentIndex(at)
        page = window.tabs.currentWidget()
        for view in page.findChildren(QAbstractItemView):
            if view.model() is not None and view.model().rowCount():
                view.setCurrentIndex(view.model().index(0, 0))
    for asked in window.findChildren(QWidget):
        if asked.contextMenuPolicy() is Qt.ContextMenuPolicy.CustomContextMenu:
            inner = asked.viewport() if isinstance(asked, QAbstractItemView) else asked
            before = set(window.findChildren(QMenu))
            asked.customContextMenuRequested.emit(QPoint(8, inner.fontMetrics().height() // 2))
            for menu in set(window.findChildren(QMenu)) - before:
                found += 1
                missed += untranslated(menu)
                menu.close()
    log = window.findChild(LogPanel)
    assert log is not None
    row = make_row(interaction(1, Status.FAILED), None)
    for column in Column:
        missed += untranslated(log.cell_menu(row, column))
    assert found > 3
    assert not missed, "\n".join(missed)


def test_every_text_of_a_batch_can_be_translated(theme: Theme, qtbot: QtBot) -> None:
    bench, rows = Bench(), [member(1, "m-1", Status.FAILED), member(2, "m-2", Status.QUEUED)]
    log = memory_log(Reader(rows))
    panel = BatchPanel(bench, log, theme, confirm=Asker(), flows=lambda: FlowLibrary({}), zone=UTC)
    qtbot.addWidget(panel)
    panel.show()
    bench.feed.subscribe(lambda change: panel.on_batch([change]))
    panel.set_chosen(["m-1", "m-2"])
    panel.take_chosen.click()
    missed = untranslated(panel)
    panel.what.setCurrentIndex(panel.what.count() - 1)
    missed += untranslated(panel)
    bench.new("4711", 2, command="SET_POWER_LIMIT")
    panel.show_batch(1)
    qtbot.waitUntil(lambda: bool(panel._members_model.rowCount() == 2))
    bench.turn(1, failed=1, pending=0, processing=1)
    missed += untranslated(panel)
    panel.stop.click()
    missed += untranslated(panel)
    assert not missed, "\n".join(missed)


def _crash(_window: MainWindow, theme: Theme, folder: Path) -> QDialog:
    dialog = CrashDialog(theme, write_crash(folder, RuntimeError("4711"), TextRedactor(), where="", facts={}), None)
    dialog.read.click()
    return dialog


def _settings(window: MainWindow, theme: Theme, folder: Path) -> QDialog:
    settings = QSettings(str(folder / "own.ini"), QSettings.Format.IniFormat)
    return SettingsDialog(theme, Preferences(settings), window.profile, keyring=tuple, addresses=tuple)


def _share(window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    assert window.session is not None
    return ShareDialog(theme, window.session.log.path)


def _connection(_window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    return ConnectionDialog(FakeWorkbench(prepaid_site()), theme, DirectRunner(), secrets=FakeSecrets())


def _team(_window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    return TeamDialog(
        FakeWorkbench(prepaid_site()), theme, DirectRunner(), secrets=FakeSecrets(), environment={}, find_driver=object
    )


def _question(spec: Any) -> Callable[[MainWindow, Theme, Path], QDialog]:
    def make(window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
        params = {param.name: "1" for param in spec.params}
        return CommandQuestion(window, device=site()[0], spec=spec, params=params, old_value=None, theme=theme)

    return make


def _derived(_window: MainWindow, theme: Theme, _folder: Path) -> QDialog:
    return DerivedDialog(theme, CURVES, lambda _key: (np.empty(0, np.int64), np.empty(0)))


CURVES = (CurveChoice(SeriesKey("p-1", "voltage", "V"), "4711", "4712"),)

DIALOGS: dict[str, Callable[[MainWindow, Theme, Path], QDialog]] = {
    "settings": _settings,
    "crash": _crash,
    "about": lambda window, theme, _folder: AboutDialog(theme, window.profile),
    "shortcuts": lambda window, theme, _folder: ShortcutsDialog(theme, window.verbs),
    "connection": _connection,
    "note": lambda _window, theme, _folder: NoteDialog(theme, Note(id=1, t_us=0, text="")),
    "share": _share,
    "team": _team,
    "write": _question(SET_LIMIT),
    "dangerous": _question(DISCONNECT_RELAY),
    "top": _question(TOP_UP),
    "directive": lambda _window, theme, _folder: DirectiveDialog(theme),
    "threshold": lambda _window, theme, _folder: ThresholdDialog(theme, CURVES),
    "reference": lambda _window, theme, _folder: ReferenceDialog(theme, 0),
    "derived": _derived,
    "outcome": lambda window, theme, _folder: OutcomeQuestion(window, theme, "4711", pseudo_text("It may be done.")),
    "wizard": lambda _window, theme, _folder: ConnectionWizard(
        FakeWorkbench(prepaid_site()), theme, DirectRunner(), secrets=FakeSecrets()
    ),
}


def test_every_text_of_the_dialogs_can_be_translated(
    window: MainWindow, theme: Theme, tmp_path: Path, qtbot: QtBot
) -> None:
    missed = []
    for name, make in DIALOGS.items():
        dialog = make(window, theme, tmp_path)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
        qtbot.addWidget(dialog)
        dialog.show()
        missed += [f"{name}: {one}" for one in untranslated(dialog)]
        if isinstance(dialog, DerivedDialog):
            missed += [words for _function, words in dialog._functions() if rest(words)]
        dialog.reject()
    assert not missed, "\n".join(missed)


def test_every_page_of_the_wizard_can_be_translated(
    theme: Theme, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_picker, "list_ports", tuple)
    workbench = FakeWorkbench(prepaid_site())
    monkeypatch.setattr(workbench, "adapter_types", lambda: Registry(BUILT_IN))
    wizard = ConnectionWizard(workbench, theme, DirectRunner(), secrets=FakeSecrets())
    wizard.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(wizard)
    wizard.show()
    missed = []
    for name, kind in KINDS.items():
        wizard.where.set_kind(kind)
        missed += [f"{name}: {one}" for one in untranslated(wizard)]
    candidate = Candidate(
        at=START, title="4711", adapter="lem-dcbm", settings={"host": "4711"}, text=pseudo_text("It answered."),
        serial="4711", fingerprint="01:02", gateways=(("4711", "4712"), ("4713", "4714")),
    )  # fmt: skip
    search = wizard.search
    for outcome in Outcome:
        search._take(Tried(at=START, where="4711", what="4711", text=pseudo_text("4711"), outcome=outcome))
    waiting = Waiting(at=START, host="", port=1, url="", entries=(), qr="4711", text=pseudo_text("Waits."))
    search._take(waiting)
    search._take(candidate)
    search._end("")
    for page in (search, wizard.trial, wizard.saving, wizard.done_page):
        if page is wizard.trial:
            wizard.trial.set_candidate(candidate)
        elif page is wizard.saving:
            wizard.saving.set_candidate(candidate, {}, is_tested=False)
        elif page is wizard.done_page:
            wizard.done_page.set_devices(candidate.devices(()))
        wizard._go_to(page)
        missed += [f"{type(page).__name__}: {one}" for one in untranslated(wizard)]
        missed += [text for text in (page.heading(), page.verb(), page.missing()) if rest(text)]
    assert not missed, "\n".join(sorted(set(missed)))


def test_what_cannot_be_translated_is_found(qtbot: QtBot, pseudo: None) -> None:
    top = QWidget()
    qtbot.addWidget(top)
    QLabel("Plain words", top)
    QLabel(QCoreApplication.translate("Actions", "&File"), top)
    QLabel(f"{QCoreApplication.translate('Actions', '&File')} and more", top)
    QLabel("Meter 0371, 12 kW, 2026-05-04 12:00:01 UTC", top)
    button = QAction(top)
    button.setToolTip("A tip")
    shown = [one.partition("  (")[0] for one in untranslated(top)]
    assert shown == ["'A tip'", "'Plain words'", f"'{pseudo_text('&File')} and more'"]


#: What shows its first texts to a person.
SHOWING = re.compile(
    r"set(Text|ToolTip|StatusTip|WhatsThis|WindowTitle|Title|PlaceholderText|AccessibleName|AccessibleDescription|Suffix"
    r"|Prefix|TabText|HeaderLabels|HorizontalHeaderLabels|LabelText|InformativeText|SpecialValueText)"
    r"|add(Action|Menu|Item|Items|Tab|Row)|drawText"
    r"|Q(Label|PushButton|CheckBox|RadioButton|GroupBox|Action|TreeWidgetItem|ListWidgetItem|TableWidgetItem)"
)


def words_in_code(code: str) -> Iterator[tuple[int, str]]:
    """Line and text of every literal that is shown without being translated."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if SHOWING.fullmatch(name) is None:
            continue
        args = node.args[:1] if name == "addItem" else node.args  # then comes what a person does not see
        for given in (*args, *(one.value for one in node.keywords)):
            for part in (given, *getattr(given, "values", ()), *getattr(given, "elts", ())):
                text = part.value if isinstance(part, ast.Constant) else None
                if isinstance(text, str) and re.search("[A-Za-z]{2}", text):
                    yield node.lineno, text


def test_no_words_are_written_where_they_are_shown() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in sorted((ROOT / "ui").rglob("*.py"))
        for line, text in words_in_code(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)
    assert list(words_in_code("QLabel('Plain words'); a.setText(f'{n} of {m}')")) == [(1, "Plain words"), (1, " of ")]


# --- the pseudo-locale ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Read", "⟦Ŕéåð~⟧"),
        ("&File", "⟦&Fîļé~~⟧"),
        ("{name} of %1: %n", "⟦{name} öf %1: %n~~~~~⟧"),
        ("<b>Now</b> &amp; then", "⟦<b>Ñöŵ</b> &amp; ţĥéñ~~~~~~⟧"),
        ("Logs (*.mwk *.csv)", "⟦Ļöĝš~⟧ (*.mwk *.csv)"),
        ("", ""),
        (" ", " "),
    ],
)
def test_a_text_of_the_pseudo_locale_keeps_what_is_no_word(text: str, shown: str) -> None:
    assert pseudo_text(text) == shown
    assert pseudo_text(shown) == shown


def test_the_pseudo_locale_comes_from_the_environment(qapp: QApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    before = QLocale()
    monkeypatch.setenv(translations.VARIABLE, "pseudo-rtl")
    installed = translations.install(qapp, Language.GERMAN)
    try:
        assert QCoreApplication.translate("Actions", "&File") == "⟦&Fîļé~~⟧"
        assert qapp.layoutDirection() is Qt.LayoutDirection.RightToLeft
    finally:
        _remove(qapp, installed)
    assert qapp.layoutDirection() is Qt.LayoutDirection.LeftToRight
    assert QLocale() == before, "numbers stay as they are"
    monkeypatch.setenv(translations.VARIABLE, "klingon")
    installed = translations.install(qapp, Language.PSEUDO)
    try:
        assert QCoreApplication.translate("Actions", "&File") == "⟦&Fîļé~~⟧"
        assert qapp.layoutDirection() is Qt.LayoutDirection.LeftToRight
    finally:
        _remove(qapp, installed)


def _remove(app: QApplication, installed: tuple[QTranslator, ...]) -> None:
    for one in installed:
        app.removeTranslator(one)


def test_english_counts(qapp: QApplication) -> None:
    before = QLocale()
    installed = translations.install(qapp, Language.ENGLISH)
    try:
        shown = [QCoreApplication.translate("ResultView", "%n rows are on the clipboard.", "", n) for n in (1, 2)]
        assert shown == ["1 row is on the clipboard.", "2 rows are on the clipboard."]
    finally:
        _remove(qapp, installed)
        QLocale.setDefault(before)


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", tool.LANGUAGES)
def test_the_files_are_up_to_the_sources(language: str, texts: Any) -> None:
    own = tool.texts_for(language, texts)
    entries = tool.read_ts(tool.ts_path(language))
    new = [key.source for key in own if key not in entries]
    gone = [key.source for key, entry in entries.items() if key not in own and not entry.is_vanished]
    assert not new + gone, "run: python packaging/translations.py update"
    assert tool.ts_path(language).read_text("utf-8") == tool.ts_text(language, own, entries)


@pytest.mark.parametrize("language", tool.LANGUAGES)
def test_the_compiled_files_are_up_to_theirs(language: str) -> None:
    translator = QTranslator()
    assert translator.load(str(tool.ts_path(language).with_suffix(".qm")))
    entries = tool.read_ts(tool.ts_path(language))
    wrong = []
    for key, entry in entries.items():
        numbers = (1, 1000) if entry.is_plural else (-1,)
        shown = {translator.translate(key.context, key.source, "", n) or "" for n in numbers}
        if shown - {""} != (set() if entry.is_vanished else set(entry.forms)):
            wrong.append(key.source)
    assert not wrong, "run: python packaging/translations.py update"


@pytest.mark.parametrize("language", tool.LANGUAGES)
def test_what_is_translated_may_be_shown(language: str) -> None:
    wrong = [
        f"{key.source!r}: {fault}"
        for key, entry in tool.read_ts(tool.ts_path(language)).items()
        for form in entry.forms
        for fault in tool.faults_of(key.source, form, is_plural=entry.is_plural)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", tool.LANGUAGES)
def test_no_letter_is_marked_twice_in_a_menu(language: str) -> None:
    entries = tool.read_ts(tool.ts_path(language))
    marked: dict[tuple[str, str], list[str]] = {}
    for spec in ACTIONS:
        entry = entries.get(tool.Key("Actions", spec.text))
        text = entry.forms[0] if entry is not None and entry.forms else spec.text
        if (letter := re.search(r"&(\w)", text.replace("&&", ""))) is not None:
            marked.setdefault((spec.menu, letter[1].lower()), []).append(text)
    assert [texts for texts in marked.values() if len(texts) > 1] == []


# --- the search for texts ---------------------------------------------------------------------------------------------

CODE = """
class Row(QObject):
    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        self.tr("One " "text")
        chart.tr("Of the chart")
        QCoreApplication.translate("Ctx", "Two")
        translate("Ctx", spec.text)
        QT_TRANSLATE_NOOP("Ctx", "Three")
        painter.translate(3, 4)
        self.tr("%n rows", "", 3)

    def later(self) -> None:
        box = self._chart
        box.tr("In a variable")
        self._chart.tr("In an attribute")
"""


def test_every_way_of_translating_is_found() -> None:
    found, faults = tool.texts_of_module(CODE, "ui/row.py")
    assert not faults
    assert [(one.key.context, one.key.source, one.is_plural) for one in found] == [
        ("Row", "One text", False),
        ("Chart", "Of the chart", False),
        ("Ctx", "Two", False),
        ("Ctx", "Three", False),
        ("Row", "%n rows", True),
        ("Chart", "In a variable", False),
        ("Chart", "In an attribute", False),
    ]


@pytest.mark.parametrize(
    "line",
    [
        'class A:\n    def f(self): self.tr(f"{n} rows")',
        'class A:\n    def f(self): self.tr("a" + b)',
        "class A:\n    def f(self): self.tr(text)",
        'self.tr("outside")',
        'other.tr("whose")',
        'translate("Ctx", f"{n} rows")',
        'translate("Ctx", "{n} rows".format(n=1))',
        'translate(context, "text")',
        'QT_TRANSLATE_NOOP("Ctx", text)',
        'translate("Ctx", "text", "comment")',
        "def (",
    ],
)
def test_what_cannot_be_extracted_is_a_defect(line: str) -> None:
    found, faults = tool.texts_of_module(line, "ui/a.py")
    assert not found
    assert len(faults) == 1
    assert faults[0].startswith("ui/a.py:")


def test_the_model_is_in_the_files(texts: Any) -> None:
    for words in ("Power limit", "LEM DCBM 400/600", "DC voltage", "Aviora gateway", "This meter holds no credit."):
        assert tool.Key(tool.MODEL, words) in texts


def test_what_the_core_declares_is_shown_translated(pseudo: None) -> None:
    assert model_text("Energy import, tariff 3") == "⟦⟦Éñéŕĝý împöŕţ~~~~⟧, ţåŕîff 3~~~~~~~⟧"
    assert model_text("") == ""
    shown = shown_command(SET_LIMIT)
    assert (shown.verb, shown.params[0].title) == (pseudo_text("Set the limit of {device}"), pseudo_text("Power limit"))
    assert shown.params[0].parse("12") == SET_LIMIT.params[0].parse("12")
    assert (shown.name, shown.risk, shown.changed_param) == (SET_LIMIT.name, SET_LIMIT.risk, SET_LIMIT.changed_param)
    assert shown_param(ParamSpec(name="x", title="X", choices=((1, "one"),))).choices == ((1, pseudo_text("one")),)


def test_the_words_of_the_log_are_known(pseudo: None) -> None:
    written = {"transmitted"}
    for path in (ROOT / "app").rglob("*.py"):
        code = path.read_text("utf-8")
        for node in ast.walk(ast.parse(code)) if re.search(r"\b(entry|Progress)\(", code) else ():
            if not isinstance(node, ast.Call):
                continue
            name, at = getattr(node.func, "id", ""), {"entry": 3, "Progress": 1}
            if name in at and len(node.args) > at[name]:
                written |= {
                    part.value
                    for part in (node.args[at[name]], *getattr(node.args[at[name]], "__dict__", {}).values())
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    assert {"asked", "handed on", "late"} <= written
    written |= {event.replace("_", " ").lower() for event in Event} | {"success", "failure", "unknown"}
    assert written <= EVENTS
    assert {rule.name for rule in GATEKEEPERS_RULES} | {"planned"} == RULES
    assert all(origin_word(origin).startswith(OPENING) for origin in Origin)
    assert event_word("LATE_SUCCESS") == pseudo_text("late success")
    assert event_word("phase 2 given up") == pseudo_text("phase {phase} given up").format(phase=2)
    assert actor_word("batch 12") == f"{pseudo_text('batch')} 12"
    assert (actor_word("Ada"), event_word("HUMMED")) == ("Ada", "hummed")


# --- the work of translators ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "translation", "fault"),
    [
        ("Read {name}", "Lies {name}", ""),
        ("Read {name}", "Lies", "{name} is missing"),
        ("Read {name}", "Lies {nahme}", "{nahme} is not in the source"),
        ("{a} of {b}", "{b}: {a}", ""),
        ("{n:.2f} kW", "{n} kW", "{n:.2f} is missing"),
        ("Read {name}", "Lies {name", "braces"),
        ("a { b", "ein { b", ""),
        ("%1 of %2", "%1 von", "%2 is missing"),
        ("&Open", "Ö&ffnen", ""),
        ("&Open", "Öffnen", "marked with &"),
        ("This && that", "Dies & das", "doubled &&"),
        ("<b>Now</b>", "Jetzt", "tags"),
        ("Logs (*.mwk)", "Logs (*.mkw)", "file patterns"),
        ("Name: ", "Name:", "ends with"),
        ("Sent.", "Gesendet", "ends with"),
        ("Open...", "Öffnen...", ""),
        ("Open...", "Öffnen.", "three dots"),
        ("Why?", "Pourquoi ?", ""),
    ],
)
def test_a_translation_that_would_break_the_window_is_refused(source: str, translation: str, fault: str) -> None:
    faults = tool.faults_of(source, translation)
    assert bool(faults) == bool(fault)
    assert fault in "; ".join(faults)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A program of four texts, and files of its own."""
    monkeypatch.setattr(tool, "FOLDER", tmp_path / "files")
    made = [
        tool.Text(tool.Key("A", "&Open {name}"), files=["ui/a.py"]),
        tool.Text(tool.Key("B", "&Open {name}"), files=["ui/b.py"]),
        tool.Text(tool.Key("A", "%n rows"), is_plural=True, files=["ui/a.py"]),
        tool.Text(tool.Key("A", 'Say "1 < 2"\nnow'), files=["ui/a.py"]),
    ]
    found = {one.key: one for one in made}
    monkeypatch.setattr(tool, "collect", lambda: found)
    return found


def test_pieces_are_handed_out_and_taken_back(few: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pieces"
    assert tool.main(["pieces", str(folder), "de"]) == 0
    piece = folder / "de" / "01.json"
    rows = json.loads(piece.read_text("utf-8"))
    assert [row["source"] for row in rows] == ["&Open {name}", "%n rows", 'Say "1 < 2"\nnow']
    assert rows[0]["also"] == ["B"]
    rows[0].update(translation="{name} ö&ffnen", other={"B": "&Auf: {name}"})
    rows[1]["translation"] = ["eine Zeile", "%n Zeilen"]
    rows[2]["translation"] = "Sag:"
    piece.write_text(json.dumps(rows), "utf-8")
    assert tool.main(["merge", "de", str(folder / "de")]) == 1
    told = capsys.readouterr().out
    assert "3 taken, 0 empty, 1 refused" in told
    assert "ends with ':'" in told
    rows[2]["translation"] = 'Sag „1 < 2"\njetzt'
    piece.write_text(json.dumps(rows), "utf-8")
    assert tool.main(["merge", "de", str(folder / "de")]) == 0
    assert tool.main(["check", "--complete", "de"]) == 0
    translator = QTranslator()
    assert translator.load(str(tool.ts_path("de").with_suffix(".qm")))
    assert translator.translate("B", "&Open {name}") == "&Auf: {name}"
    assert translator.translate("A", "&Open {name}") == "{name} ö&ffnen"
    assert translator.translate("A", "%n rows", "", 1) == "eine Zeile"
    assert translator.translate("A", 'Say "1 < 2"\nnow') == 'Sag „1 < 2"\njetzt'


def test_new_texts_become_new_pieces_and_old_words_are_kept(few: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pieces"
    first = tool.write_pieces(folder, "de", few, size=2)
    assert [path.name for path in first] == ["01.json", "02.json"]
    assert tool.write_pieces(folder, "de", few) == []
    tool.write("de", few, {tool.Key("A", "&Open {name}"): ("{name} ö&ffnen",)})
    shown = QTranslator()
    assert shown.load(str(tool.ts_path("de").with_suffix(".qm")))
    few[tool.Key("C", "&Open {name}")] = tool.Text(tool.Key("C", "&Open {name}"))
    (new,) = tool.write_pieces(folder, "de", few)
    (row,) = json.loads(new.read_text("utf-8"))
    assert (new.name, row["context"]) == ("03.json", "C")
    assert row["translation"] == "{name} ö&ffnen", "known words are offered"
    gone = few.pop(tool.Key("A", "&Open {name}"))
    tool.write("de", few)
    assert tool.read_ts(tool.ts_path("de"))[gone.key].is_vanished
    few[gone.key] = gone
    tool.write("de", few)
    assert shown.translate("A", "&Open {name}") == "{name} ö&ffnen", "what a window has open is not written over"
    assert tool.read_ts(tool.ts_path("de"))[gone.key].forms == ("{name} ö&ffnen",)


def test_a_changed_or_broken_piece_is_refused(few: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (piece,) = tool.write_pieces(tmp_path / "pieces", "tr", few)
    rows = json.loads(piece.read_text("utf-8"))
    rows[0].update(source="&Close {name}", translation="{name} &kapat")
    rows[1]["translation"] = ["bir", "%n"]
    piece.write_text(json.dumps(rows), "utf-8")
    (piece.parent / "02.json").write_text("[{", "utf-8")
    assert tool.main(["merge", "tr", str(piece.parent)]) == 1
    told = capsys.readouterr().out
    assert "context or source were changed" in told
    assert "tr has 1 form(s), 2 are given" in told
    assert "02.json cannot be read" in told
    assert "0 taken" in told
