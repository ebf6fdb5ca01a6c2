"""Settings, recent files, dropped files, the log folder, shortcuts, about: as a person uses them in the window."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from unittest.mock import Mock

import pytest
from PySide6.QtCore import QCoreApplication, QLocale, QMimeData, QPoint, QPointF, QSettings, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent, QGuiApplication, QShortcut
from PySide6.QtWidgets import QApplication, QFileDialog, QLineEdit, QMainWindow, QMenu, QWidget
from pytestqt.qtbot import QtBot

from app.config import profile
from app.errors import WorkbenchError
from app.interaction_log.transfer import INTERACTION_CSV
from app.model.device import Device
from app.model.reading import Severity
from app.model.status import Event
from tests.ui.fakes import DirectRunner, FakeWorkbench, site
from tests.ui.stand_ins import log_at
from tests.ui.test_main_window import Bench
from tests.ui.test_window_screenshots import Recording as Standing
from ui import translations
from ui.actions import ACTIONS, RECENT, Actions
from ui.arrivals import Arrivals, FileKind, kind_of
from ui.dialogs.about import AboutDialog
from ui.dialogs.confirm import Question
from ui.dialogs.connection import ConnectionDialog
from ui.dialogs.lab import Errand
from ui.dialogs.settings import SettingsDialog
from ui.dialogs.shortcuts import LOCAL_KEYS, ShortcutsDialog, shown_keys
from ui.main_window import Session
from ui.preferences import ARM_MINUTES, LISTEN_HOST, Language, Preferences, Times
from ui.recent import KEPT, RecentFiles
from ui.replay_bar import ReplayBar
from ui.theme import Theme, ThemeMode
from ui.widgets.live_chart import LiveChart

TURKISH = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="tr_TR"><context><name>Actions</name>
<message><source>&amp;File</source><translation>&amp;Dosya</translation></message></context></TS>
"""

SITE = """
[[device]]
id = "south"
name = "Site South"
kind = "site"

[[device]]
id = "lem-1"
name = "LEM renamed"
adapter = "fake-http"
parent = "south"
[device.settings]
address = "192.0.2.9"
"""


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture
def bench(qtbot: QtBot, theme: Theme, tmp_path: Path) -> Bench:
    made = Bench(qtbot, theme, tmp_path, FakeWorkbench(site()))
    made.window.profile = profile(tmp_path / "profile").make()
    return made


class Host(QWidget):
    """A window that files are dropped onto, and what it is told."""

    def __init__(self, theme: Theme, workbench: FakeWorkbench | None) -> None:
        super().__init__()
        self.workbench = workbench
        self.opened: list[str] = []
        self.batches: list[str] = []
        self.said = ""
        self.undo: Callable[[], bool] = bool
        self.arrivals = Arrivals(self, self, theme, lambda: self.workbench)
        self.arrivals.done.connect(self._on_done)

    def _on_done(self, _what: str, back: Callable[[], bool]) -> None:
        self.undo = back

    def open_file(self, path: str) -> None:
        self.opened.append(path)

    def take_batch(self, path: str) -> None:
        self.batches.append(path)

    def say(self, text: str, severity: Severity = Severity.INFO) -> None:
        self.said = text

    @property
    def question(self) -> Question:
        (found,) = [one for one in self.findChildren(Question) if one.isVisible()]
        return found


@pytest.fixture
def host(qtbot: QtBot, theme: Theme) -> Host:
    made = Host(theme, FakeWorkbench(site()))
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture
def preferences(tmp_path: Path) -> Preferences:
    return Preferences(QSettings(str(tmp_path / "own.ini"), QSettings.Format.IniFormat))


def settings_dialog(qtbot: QtBot, theme: Theme, preferences: Preferences) -> SettingsDialog:
    dialog = SettingsDialog(
        theme,
        preferences,
        keyring=lambda: [(True, "Secrets are kept by the keyring.", "")],
        addresses=lambda: [("127.0.0.1", "this computer only"), ("192.0.2.7", "network at eth0")],
    )
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.waitUntil(lambda: not Errand.under_way)
    return dialog


# ---------------------------------------------------------------- settings


def test_what_is_chosen_is_kept_and_told(qtbot: QtBot, theme: Theme, preferences: Preferences, tmp_path: Path) -> None:
    dialog = settings_dialog(qtbot, theme, preferences)
    assert "kept by the keyring" in dialog.keyring.text()
    modes: list[ThemeMode] = []
    later: list[str] = []
    dialog.themeChosen.connect(modes.append)
    dialog.saved.connect(later.append)
    dialog.theme_field.set_value("dark")
    dialog.language.set_value("de")
    dialog.times.set_value("utc")
    dialog.scale.set_value("150")
    dialog.folder.editor.setText(str(tmp_path))
    dialog.listen.editor.setCurrentIndex(1)
    dialog.arm.set_value(30)
    dialog.go.click()
    assert modes == [ThemeMode.DARK]
    assert later == ["Language and size count from the next start of Meterwright."]
    assert (preferences.language, preferences.times, preferences.scale) == (Language.GERMAN, Times.UTC, 150)
    assert preferences.zone is UTC
    assert preferences.export_folder == tmp_path
    assert preferences.listen_host == "192.0.2.7"
    assert preferences.arm_minutes == 30


def test_leaving_changes_nothing(qtbot: QtBot, theme: Theme, preferences: Preferences) -> None:
    dialog = settings_dialog(qtbot, theme, preferences)
    dialog.language.set_value("tr")
    dialog.leave.click()
    assert preferences.language is Language.SYSTEM


@pytest.mark.parametrize("wrong", ["folder", "listen", "arm"])
def test_what_cannot_be_is_not_saved(qtbot: QtBot, theme: Theme, preferences: Preferences, wrong: str) -> None:
    dialog = settings_dialog(qtbot, theme, preferences)
    assert dialog.go.isEnabled()
    if wrong == "folder":
        dialog.folder.editor.setText("nowhere/at all")
    elif wrong == "listen":
        dialog.listen.editor.setEditText("not an address")
    else:
        line = dialog.arm.editor
        assert isinstance(line, QLineEdit)
        line.selectAll()
        qtbot.keyClicks(line, "0")  # type: ignore[no-untyped-call]
    assert not dialog.go.isEnabled()
    assert dialog.missing.text().startswith("Still needed:")


def test_a_spoilt_file_reads_as_a_new_profile(tmp_path: Path) -> None:
    settings = QSettings(str(tmp_path / "own.ini"), QSettings.Format.IniFormat)
    for key in ("window/language", "window/times", "network/listen_host", "files/export_folder"):
        settings.setValue(key, "klingon !")
    settings.setValue("window/scale", "9000")
    settings.setValue("safety/arm_minutes", "-3")
    kept = Preferences(settings)
    assert (kept.language, kept.times, kept.zone, kept.scale) == (Language.SYSTEM, Times.LOCAL, None, 0)
    assert (kept.export_folder, kept.listen_host, kept.arm_minutes) == (None, LISTEN_HOST, ARM_MINUTES)
    settings.setValue("window/language", ["a", "list"])
    assert kept.language is Language.SYSTEM


def test_settings_count_in_the_window(
    bench: Bench, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.doctor.check_keyring", list)
    window = bench.window
    bench.trigger("settings")
    (dialog,) = window.findChildren(SettingsDialog)
    qtbot.waitUntil(lambda: not Errand.under_way)
    dialog.theme_field.set_value("dark")
    dialog.times.set_value("utc")
    dialog.folder.editor.setText(str(tmp_path))
    dialog.go.click()
    assert window.verbs.action("theme.dark").isChecked(), "colours count at once"
    bench.trigger("log.export")
    (chooser,) = window.findChildren(QFileDialog)
    assert Path(chooser.directory().absolutePath()) == tmp_path
    chooser.reject()
    window.attach(Session(workbench=FakeWorkbench(site()), log=log_at(tmp_path / "b.mwk"), title="b.mwk"))
    window.build_now()
    assert isinstance(window.chart, LiveChart)
    assert window.chart._axis_clock.name(0).endswith("UTC+00:00"), "times count from the next opening"


def test_a_replay_shows_utc_and_is_sought_in_it(qtbot: QtBot, theme: Theme) -> None:
    bar = ReplayBar(Standing(), theme, "bench.mwk", is_utc=True)
    qtbot.addWidget(bar)
    bar.look()
    at = Standing.position
    assert at is not None
    assert (bar.time.text(), bar.zone.text()) == (f"{at:%Y-%m-%d %H:%M:%S}", "UTC")
    assert bar.time.moment() == at


def test_a_new_device_is_offered_the_address_that_is_listened_at(qtbot: QtBot, theme: Theme) -> None:
    dialog = ConnectionDialog(
        FakeWorkbench(site()), theme, DirectRunner(), offered={"address": "192.0.2.7", "listen_host": "192.0.2.8"}
    )
    qtbot.addWidget(dialog)
    dialog.choose_adapter("fake-http")
    assert dialog.field("address").raw() == "192.0.2.7"


# ---------------------------------------------------------------- language


def test_a_language_without_a_file_stays_english(qapp: QApplication, tmp_path: Path) -> None:
    before = QLocale()
    try:
        assert translations.language_of(Language.FRENCH) == "fr"
        assert translations.install(qapp, Language.ENGLISH, tmp_path) == ()
        assert translations.install(qapp, Language.TURKISH, tmp_path) == ()
    finally:
        QLocale.setDefault(before)


def test_a_language_with_a_file_is_spoken(qapp: QApplication, tmp_path: Path) -> None:
    (tmp_path / "tr.ts").write_text(TURKISH, "utf-8")
    made = tmp_path / "meterwright_tr.qm"
    lrelease = Path(sys.executable).with_name("pyside6-lrelease")
    if not lrelease.exists():
        pytest.skip("pyside6-lrelease is not installed")
    subprocess.run([lrelease, tmp_path / "tr.ts", "-qm", made], check=True, capture_output=True, timeout=60)
    before = QLocale()
    installed = translations.install(qapp, Language.TURKISH, tmp_path)
    try:
        assert len(installed) == 2, "Qt's own words, too"
        assert QCoreApplication.translate("Actions", "&File") == "&Dosya"
        assert QCoreApplication.translate("QPlatformTheme", "Cancel") == "İptal"
        assert QLocale().language() is QLocale.Language.Turkish
    finally:
        for one in installed:
            qapp.removeTranslator(one)
        QLocale.setDefault(before)


def test_the_language_of_the_system_counts_where_it_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for spoken, shown in ((["de-AT", "en"], "de"), (["nl", "fr-BE"], "fr"), (["ja"], "en"), ([], "en")):
        monkeypatch.setattr(translations, "QLocale", Spoken(spoken))
        assert translations.language_of(Language.SYSTEM) == shown


class Spoken:
    def __init__(self, names: list[str]) -> None:
        self._names = names

    def system(self) -> Spoken:
        return self

    def uiLanguages(self) -> list[str]:
        return self._names


# ---------------------------------------------------------------- files used lately


def test_recent_files_stand_in_the_menu(qapp: QApplication, tmp_path: Path) -> None:
    recent = RecentFiles(QSettings(str(tmp_path / "own.ini"), QSettings.Format.IniFormat))
    menu = QMenu()
    recent.show_in(menu)
    chosen: list[str] = []
    recent.chosen.connect(chosen.append)
    assert [action.text() for action in menu.actions()] == ["No file was opened yet"]
    for number in range(KEPT + 2):
        recent.add(str(tmp_path / f"site & {number}.mwk"))
    texts = [action.text() for action in menu.actions()]
    assert len(texts) == KEPT + 2  # with a line and one that empties it
    assert texts[0] == f"&1  site && {KEPT + 1}.mwk   in {tmp_path}"
    menu.actions()[1].trigger()
    assert chosen == [str(tmp_path / f"site & {KEPT}.mwk")]
    menu.actions()[-1].trigger()
    assert recent.paths == []


def test_a_recent_file_is_opened_and_one_that_is_gone_not_made_anew(bench: Bench, tmp_path: Path) -> None:
    window, opened = bench.window, list[str]()
    window.openRequested.connect(opened.append)
    (tmp_path / "here.mwk").touch()
    for name in ("gone.mwk", "here.mwk"):
        window.set_recent(str(tmp_path / name))
    bench.trigger(RECENT)
    menu = window.verbs.submenu(RECENT)
    assert menu.isVisible(), "by the palette, too"
    menu.close()
    menu.actions()[0].trigger()
    assert opened == [str(tmp_path / "here.mwk")]
    window.welcome.fileChosen.emit(str(tmp_path / "gone.mwk"))
    assert len(opened) == 1
    assert "is not there any more" in window.notice.text.text()
    window.notice.action.click()
    assert window.habits.recent.paths == [str(tmp_path / "here.mwk")]
    assert window.welcome.recent.count() == 1


# ---------------------------------------------------------------- what is dropped


def drop(window: QWidget, *paths: Path, remote: str = "") -> bool:
    """Drag files onto the window as a file manager does; whether it takes them."""
    data = QMimeData()
    data.setUrls([QUrl(remote)] if remote else [QUrl.fromLocalFile(str(path)) for path in paths])
    copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(50, 50), copy, data, left, none)
    enter.ignore()
    QApplication.sendEvent(window, enter)
    if not enter.isAccepted():
        return False
    QApplication.sendEvent(window, QDropEvent(QPointF(50, 50), copy, data, left, none))
    return True


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.mwk", "", FileKind.LOG),
        ("a.bin", "SQLite format 3\0", FileKind.LOG),
        ("a.jsonl", '{"format": 1}', FileKind.LOG),
        ("a", '{"format": 1}', FileKind.LOG),
        ("a.csv", ",".join(INTERACTION_CSV), FileKind.LOG),
        ("a.csv", "\ufeffid,name,adapter\nm,M,lem-dcbm", FileKind.SITE),
        ("a.csv", "ID;Name;Adapter\n", FileKind.SITE),
        ("a.csv", "device,command\nm,READ", FileKind.BATCH),
        ("a.xlsx", "PK\x03\x04", FileKind.BATCH),
        ("a.toml", SITE, FileKind.SITE),
        ("a.toml", "[tool.ruff]\n", FileKind.UNKNOWN),
        ("a.pdf", "%PDF-1.7", FileKind.UNKNOWN),
        ("a.csv", "", FileKind.BATCH),
    ],
)
def test_a_file_is_told_by_its_content(name: str, text: str, kind: FileKind, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert kind_of(tmp_path / name) is kind


def test_a_log_that_is_dropped_is_opened(host: Host, tmp_path: Path) -> None:
    logs = [tmp_path / "one.mwk", tmp_path / "two.mwk"]
    for log in logs:
        log.touch()
    assert drop(host, *logs)
    assert host.opened == [str(logs[0])]
    assert host.said.startswith("One log is open at a time: one.mwk.")


def test_what_is_no_file_of_this_computer_is_left_to_others(host: Host) -> None:
    assert not drop(host, remote="https://192.0.2.1/bench.mwk")


def test_what_cannot_be_opened_is_said(host: Host, tmp_path: Path) -> None:
    (tmp_path / "paper.pdf").write_text("%PDF-1.7")
    assert drop(host, tmp_path / "paper.pdf")
    assert host.said.startswith("paper.pdf is nothing that can be opened here.")
    assert drop(host, tmp_path / "gone.mwk")
    assert host.said.startswith("gone.mwk cannot be read (No such file")


def test_a_site_file_is_read_after_a_question_and_can_be_undone(host: Host, tmp_path: Path, qtbot: QtBot) -> None:
    assert host.workbench is not None
    before = dict(host.workbench.tree)
    (tmp_path / "south.toml").write_text(SITE)
    assert drop(host, tmp_path / "south.toml")
    qtbot.waitUntil(lambda: bool(host.findChildren(Question)), timeout=3000)
    assert host.question.text.text() == "Read 2 devices from south.toml into this workspace?"
    assert host.question.go.text() == "Read 2 devices"
    host.question.go.click()
    assert set(host.workbench.tree) == {*before, "south"}
    assert host.workbench.tree["lem-1"].name == "LEM renamed"
    drop(host, tmp_path / "south.toml")
    qtbot.waitUntil(lambda: host.said.startswith("south.toml has nothing new"), timeout=3000)
    assert host.undo()
    assert host.workbench.tree == before


def test_a_site_file_that_is_wrong_names_the_place(host: Host, tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / "south.toml").write_text(SITE.replace('id = "lem-1"', 'id = "south"'))
    drop(host, tmp_path / "south.toml")
    qtbot.waitUntil(lambda: "used twice" in host.said, timeout=3000)
    assert "south.toml" in host.said


def test_a_site_file_stops_where_the_core_refuses(
    host: Host, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.workbench is not None
    (tmp_path / "south.toml").write_text(SITE)
    drop(host, tmp_path / "south.toml")
    qtbot.waitUntil(lambda: bool(host.findChildren(Question)), timeout=3000)
    save = host.workbench.save_device

    def refuse(device: Device) -> None:
        if device.id == "lem-1":
            raise WorkbenchError("A command of LEM 4711 is unfinished.")
        save(device)

    monkeypatch.setattr(host.workbench, "save_device", refuse)
    host.question.go.click()
    assert host.said == "1 of 2 devices of south.toml were read. A command of LEM 4711 is unfinished."
    assert host.undo()
    assert "south" not in host.workbench.tree


def test_a_site_file_needs_a_workspace(host: Host, tmp_path: Path) -> None:
    host.workbench = None
    (tmp_path / "south.toml").write_text(SITE)
    drop(host, tmp_path / "south.toml")
    assert "Open or make a workspace first" in host.said


def test_a_batch_file_goes_on(host: Host, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("device,command\nlem-1,READ_STATUS\n")
    drop(host, tmp_path / "rows.csv")
    assert host.batches == [str(tmp_path / "rows.csv")]


def test_the_window_takes_what_is_dropped_and_asks_while_a_write_is_under_way(
    bench: Bench, tmp_path: Path, qtbot: QtBot
) -> None:
    window, opened, batches = bench.window, list[str](), list[str]()
    window.openRequested.connect(opened.append)
    window.habits.on_batch = batches.append
    (tmp_path / "one.mwk").touch()
    (tmp_path / "rows.csv").write_text("device,command\nlem-1,READ_STATUS\n")
    drop(window, tmp_path / "rows.csv")
    assert batches == [str(tmp_path / "rows.csv")]
    drop(window, tmp_path / "one.mwk")
    assert opened == [str(tmp_path / "one.mwk")]
    number = bench.workbench.submit("lem-1", "DISCONNECT_RELAY")
    bench.workbench.advance(number, Event.SEND)
    qtbot.waitUntil(lambda: window.has_write_under_way)
    drop(window, tmp_path / "one.mwk")
    assert len(opened) == 1
    question = bench.question()
    assert question.go.text() == "Open one.mwk all the same"
    question.go.click()
    assert len(opened) == 2


# ---------------------------------------------------------------- help


def test_help_is_reached_from_the_menu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_url(url: QUrl) -> bool:
        opened.append(url.toLocalFile())
        return True

    monkeypatch.setattr(QDesktopServices, "openUrl", open_url)
    bench.trigger("logs.folder")
    assert bench.window.profile is not None
    assert opened == [str(bench.window.profile.logs)]
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _url: False)
    bench.trigger("logs.folder")
    assert str(bench.window.profile.logs) in bench.window.notice.text.text()
    for verb, kind in (("shortcuts", ShortcutsDialog), ("about", AboutDialog)):
        bench.trigger(verb)
        (dialog,) = bench.window.findChildren(kind)
        assert dialog.isVisible()
        dialog.close()


def test_the_shortcuts_page_has_every_key_of_the_table(qtbot: QtBot, theme: Theme) -> None:
    window = QMainWindow()
    qtbot.addWidget(window)
    verbs = Actions(Mock(), window)
    page = ShortcutsDialog(theme, verbs, window)
    page.show()
    shown = {item.text(1) for _group, items in page._groups for item in items}
    for spec in ACTIONS:
        if spec.shortcut:
            assert verbs.action(spec.id).shortcut().toString() in shown, spec.id
    page.search.setText("cursor middle")
    left = [item.text(0) for _group, items in page._groups for item in items if not item.isHidden()]
    assert left == ["Put cursor A or B in the middle"]
    page.search.setText("zzz")
    assert page.nothing.isVisible()


def test_the_keys_of_a_chart_are_those_that_it_has(qtbot: QtBot, theme: Theme) -> None:
    chart = LiveChart(theme)
    qtbot.addWidget(chart)
    has = {one.key().toString() for one in chart.findChildren(QShortcut)}
    assert has == {key for keys, _what in LOCAL_KEYS[0][1] for key in shown_keys(keys).split(" / ")}


def test_about_names_versions_licences_and_folders(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    folders = profile(tmp_path)
    dialog = AboutDialog(theme, folders)
    qtbot.addWidget(dialog)
    items = [item for row in range(99) if (item := dialog.list.topLevelItem(row)) is not None]
    assert [item.text(0) for item in items[:4]] == ["Meterwright", "Python", "Qt", "SQLite"]
    assert "httpx" in [item.text(0) for item in items]
    assert "Apache License" in dialog.licence.toPlainText()
    assert str(folders.logs) in dialog.folders.text()
    dialog.list.setCurrentItem(items[2])
    assert "LGPL" in dialog.licence.toPlainText()
    dialog.copy.click()
    assert "Meterwright " in QGuiApplication.clipboard().text()
