"""The team database in the window: the dialog, the item of the status bar, and the push of an open workspace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QFocusEvent
from PySide6.QtWidgets import QApplication, QDialog, QLineEdit, QWidget
from pytestqt.qtbot import QtBot

from app.composition import open_session, team_link
from app.errors import ConfigError, LinkError, LinkReason, StoreError, WorkbenchError
from app.secrets import SessionSecrets
from app.team.address import PASSWORD_VARIABLES, TeamAddress
from app.team.identity import ADDRESS, IDENTITY, identity_of
from app.team.live import PushState, PushStatus, TeamPush
from app.team.push import Pushed
from tests.e2e.test_window import AtDesk, at_desk, ready, shown, until
from tests.integration import test_team_push as live_push
from tests.integration.test_team_push import PASSWORD, Team, server, team
from tests.ui.fakes import DirectRunner, FakeSecrets, FakeWorkbench, busy, site
from tests.ui.test_window_screenshots import Recording, make_window
from ui.__main__ import Desk
from ui.dialogs import team as team_dialog
from ui.dialogs.team import TeamDialog, probe_team
from ui.status_bar import Mode, StatusBar
from ui.team_state import team_text, team_word
from ui.theme import Theme, ThemeMode

__all__ = ("at_desk", "server", "team")  # fixtures

URL = "postgresql://bench@team.example:5432/meters"
UNREACHABLE = "postgresql://bench@127.0.0.1:1/meters"
KEPT_AS = "team-database:bench@team.example:5432/meters"
MISSING = "A team database needs psycopg, which is not installed: install the extra meterwright[timescale]."
AT = datetime(2026, 5, 4, 12, 4, 10, tzinfo=UTC)
AWAY = "The team database bench@team.example:5432/meters cannot be reached (Connection refused). Check that it runs."

UP_TO_DATE = PushStatus(PushState.UP_TO_DATE, last=AT, pushed=Pushed(120_000, 40))
SENDING = PushStatus(PushState.PUSHING, pushed=Pushed(20_000, 0), waiting=12_000)
NOT_REACHABLE = PushStatus(PushState.WAITING, AWAY, last=AT, again=AT, is_away=True)
REFUSED = PushStatus(PushState.WAITING, "The team database refused the login.", again=AT)
STOPPED = PushStatus(PushState.FAILED, MISSING)
STATES = {
    "up-to-date": (UP_TO_DATE, "up to date"),
    "waiting": (SENDING, "12,000 waiting"),
    "sending": (PushStatus(PushState.PUSHING), "sending"),
    "connecting": (PushStatus(PushState.CONNECTING), "connecting"),
    "not-reachable": (NOT_REACHABLE, "not reachable"),
    "refused": (REFUSED, "held up"),
    "stopped": (STOPPED, "stopped"),
}


needs_driver = pytest.mark.skipif(
    find_spec("psycopg") is None, reason="psycopg is not installed; get it with: uv sync --extra timescale"
)


def needs_server(test: Any) -> Any:
    for mark in live_push.pytestmark:
        test = mark(test)
    return test


@dataclass
class FakeTeam:
    status: PushStatus = field(default_factory=PushStatus)


@dataclass
class FakeProbe:
    """Stands for the database; with ``gate`` it answers when that is set."""

    answer: Sequence[str] | WorkbenchError = ("meters answers: PostgreSQL 16.3.", "The tables are not there yet.")
    gate: threading.Event | None = None
    asked: list[tuple[str, str | None, str]] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)

    def __call__(self, address: TeamAddress, password: str | None, workspace: str) -> Sequence[str]:
        self.threads.add(threading.current_thread())
        self.asked.append((address.url, password, workspace))
        if self.gate is not None:
            assert self.gate.wait(30)
        if isinstance(self.answer, WorkbenchError):
            raise self.answer
        return self.answer


class NoKeyring(FakeSecrets):
    def set(self, name: str, value: str) -> None:
        raise ConfigError("This computer has no usable keyring. Keep the secret for this session only.")


def no_driver() -> None:
    raise ConfigError(MISSING)


def installed() -> None:
    pass


@pytest.fixture(autouse=True)
def _no_password_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSWORD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, ThemeMode.LIGHT)


@pytest.fixture(params=["light", "dark"])
def each_theme(request: pytest.FixtureRequest, qapp: QApplication) -> Iterator[Theme]:
    style, palette = qapp.style().objectName(), qapp.palette()
    theme = Theme(qapp, ThemeMode(request.param))
    theme.install()
    yield theme
    qapp.setStyle(style)
    qapp.setPalette(palette)


def make(
    qtbot: QtBot,
    theme: Theme,
    workbench: FakeWorkbench | None = None,
    *,
    secrets: FakeSecrets | None = None,
    spawn: Callable[[Any], object] | None = None,
    environment: Mapping[str, str] | None = None,
    find_driver: Callable[[], object] = installed,
    **more: Any,
) -> TeamDialog:
    dialog = TeamDialog(
        workbench or FakeWorkbench(),
        theme,
        spawn or DirectRunner(),
        secrets=secrets or FakeSecrets(),
        environment=environment or {},
        find_driver=find_driver,
        **{"team": FakeTeam(), "probe": FakeProbe(), **more},
    )
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(dialog)
    dialog.show()
    return dialog


def switched_on(url: str = URL) -> FakeWorkbench:
    workbench = FakeWorkbench()
    workbench.settings |= {ADDRESS: url, IDENTITY: "7e57"}
    return workbench


def type_into(qtbot: QtBot, editor: Any, text: str) -> None:
    assert isinstance(editor, QLineEdit)
    editor.clear()
    qtbot.keyClicks(editor, text)  # type: ignore[no-untyped-call]


def leave(editor: QWidget) -> None:
    """Without a screen no window is active, and the focus does not move by itself."""
    QApplication.sendEvent(editor, QFocusEvent(QEvent.Type.FocusOut))


# ---------------------------------------------------------------- the form


def test_a_fresh_form_is_off_and_says_what_would_go_there(qtbot: QtBot, theme: Theme) -> None:
    dialog = make(qtbot, theme)
    assert not dialog.on.isChecked()
    assert not dialog.save.isEnabled()
    assert not dialog.test.isEnabled()
    assert not dialog.address.error.isVisible(), "nobody is accused"
    assert dialog.state.text() == "Now: off. It is switched off; nothing leaves this computer."
    dialog.on.setChecked(True)
    assert dialog.missing.text() == "Still needed: an address of a database."
    assert not dialog.save.isEnabled()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://h/d", "a team database is a PostgreSQL"),
        ("postgresql://host", "names no host and database"),
        ("postgresql://u:a-word-4711@h/d", "the address holds a password"),
    ],
)
def test_a_wrong_address_is_told_in_the_words_of_the_check(qtbot: QtBot, theme: Theme, url: str, said: str) -> None:
    dialog = make(qtbot, theme)
    dialog.on.setChecked(True)
    type_into(qtbot, dialog.address.editor, url)
    assert not dialog.save.isEnabled()
    assert not dialog.test.isEnabled()
    leave(dialog.address.editor)
    assert dialog.address.error.isVisible()
    assert said in dialog.address.error.text()
    assert "a-word-4711" not in dialog.address.error.text()
    type_into(qtbot, dialog.address.editor, URL)
    assert not dialog.address.error.isVisible()
    assert dialog.save.isEnabled()


def test_saving_switches_it_on_and_keeps_the_password_in_the_keyring(qtbot: QtBot, theme: Theme) -> None:
    class Watched(FakeSecrets):
        def set(self, name: str, value: str) -> None:
            threads.append(threading.current_thread())
            super().set(name, value)

    threads: list[threading.Thread] = []
    workbench, secrets = FakeWorkbench(), Watched()
    dialog = make(qtbot, theme, workbench, secrets=secrets)
    dialog.on.setChecked(True)
    type_into(qtbot, dialog.address.editor, URL)
    type_into(qtbot, dialog.password.editor, "a word")
    assert dialog.save.text() == "Start the push"
    with qtbot.waitSignal(dialog.saved, timeout=1000):
        dialog.save.click()
    assert workbench.settings[ADDRESS] == URL
    assert secrets.kept == {KEPT_AS: "a word"}
    assert threading.main_thread() not in threads, "a keyring may ask the person"
    assert "a word" not in str(workbench.settings)
    assert not dialog.isVisible()


def test_a_password_for_this_session_only(qtbot: QtBot, theme: Theme) -> None:
    workbench, secrets = FakeWorkbench(), NoKeyring()
    dialog = make(qtbot, theme, workbench, secrets=secrets)
    dialog.on.setChecked(True)
    type_into(qtbot, dialog.address.editor, URL)
    type_into(qtbot, dialog.password.editor, "a word")
    dialog.save.click()
    assert "no usable keyring" in dialog.result_box.sentences.text()
    assert ADDRESS not in workbench.settings, "nothing is switched on without its password"
    dialog.session_only.setChecked(True)
    dialog.save.click()
    assert (secrets.kept, secrets.session) == ({}, {KEPT_AS: "a word"})
    assert workbench.settings[ADDRESS] == URL


def test_without_a_typed_password_the_kept_one_stays(qtbot: QtBot, theme: Theme) -> None:
    workbench, secrets = switched_on(), FakeSecrets()
    secrets.kept[KEPT_AS] = "kept"
    dialog = make(qtbot, theme, workbench, secrets=secrets)
    assert dialog.on.isChecked()
    assert dialog.address.raw() == URL
    assert dialog.password.raw() is None, "it is not shown"
    assert dialog.save.text() == "Save the changes"
    type_into(qtbot, dialog.address.editor, f"{URL}?sslmode=require")
    dialog.save.click()
    assert workbench.settings[ADDRESS] == f"{URL}?sslmode=require"
    assert secrets.kept == {KEPT_AS: "kept"}


def test_switching_off_needs_nothing(qtbot: QtBot, theme: Theme) -> None:
    workbench = switched_on()
    dialog = make(qtbot, theme, workbench)
    dialog.address.editor.clear()  # type: ignore[attr-defined]
    dialog.on.setChecked(False)
    assert dialog.save.text() == "Stop the push"
    dialog.save.click()
    assert workbench.settings[ADDRESS] is None


def test_what_the_core_refuses_is_said(qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_key: str, _value: Any) -> None:
        raise StoreError("The workspace cannot be written: the disk is full.")

    workbench = switched_on()
    monkeypatch.setattr(workbench, "save_setting", refuse)
    dialog = make(qtbot, theme, workbench)
    dialog.save.click()
    assert "the disk is full" in dialog.result_box.sentences.text()
    assert dialog.isVisible()


def test_without_the_library_it_can_only_be_switched_off(qtbot: QtBot, theme: Theme) -> None:
    dialog = make(qtbot, theme, find_driver=no_driver)
    assert MISSING in dialog.state.text()
    for widget in (dialog.on, dialog.address, dialog.password, dialog.session_only, dialog.test, dialog.save):
        assert not widget.isEnabled()
    workbench = switched_on()  # on another computer
    dialog = make(qtbot, theme, workbench, find_driver=no_driver, team=FakeTeam(STOPPED))
    assert dialog.state.text().count("meterwright[timescale]") == 1
    assert not dialog.save.isEnabled()
    dialog.on.setChecked(False)
    dialog.save.click()
    assert workbench.settings[ADDRESS] is None


# ---------------------------------------------------------------- the test


def test_a_test_says_what_was_found(qtbot: QtBot, theme: Theme) -> None:
    probe, secrets = FakeProbe(), FakeSecrets()
    secrets.kept[KEPT_AS] = "kept"
    workbench = switched_on()
    dialog = make(qtbot, theme, workbench, secrets=secrets, probe=probe)
    dialog.test.click()
    assert dialog.result_box.sentences.text() == "meters answers: PostgreSQL 16.3.\nThe tables are not there yet."
    type_into(qtbot, dialog.password.editor, "typed")
    assert not dialog.result_box.isVisible(), "the result spoke of another password"
    probe.answer = LinkError(AWAY, LinkReason.UNREACHABLE)
    dialog.test.click()
    assert dialog.result_box.sentences.text() == AWAY
    assert probe.asked == [(URL, "kept", "7e57"), (URL, "typed", "7e57")]
    assert threading.main_thread() not in probe.threads
    assert workbench.settings[ADDRESS] == URL, "a test changes nothing"
    assert secrets.kept == {KEPT_AS: "kept"}


def test_a_password_of_the_environment_is_the_one_that_is_tested(qtbot: QtBot, theme: Theme) -> None:
    probe = FakeProbe()
    dialog = make(qtbot, theme, switched_on(), probe=probe, environment={"PGPASSWORD": "outer"})
    assert not dialog.password.isEnabled()
    assert "PGPASSWORD is set in the environment" in dialog.password.hint.text()
    dialog.test.click()
    assert probe.asked[0][1] == "outer"


async def test_a_test_can_be_stopped(qtbot: QtBot, theme: Theme, caplog: pytest.LogCaptureFixture) -> None:
    probe = FakeProbe(gate=threading.Event())
    assert probe.gate is not None
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        dialog = make(
            qtbot, theme, switched_on(), spawn=lambda work: tasks.append(group.create_task(work)), probe=probe
        )
        dialog.test.click()
        assert dialog.result_box.stop.isVisible()
        assert not dialog.test.isEnabled()
        await until(lambda: probe.asked)
        dialog.result_box.show_progress()
        assert dialog.result_box.progress.isVisible()
        dialog.result_box.stop.click()
        assert dialog.result_box.sentences.text() == "The test was stopped."
        assert not dialog.result_box.progress.isVisible()
        assert dialog.test.isEnabled()
        dialog.test.click()
        await asyncio.sleep(0)
        dialog.reject()
    probe.gate.set()
    while probe.threads:
        probe.threads.pop().join(30)
    await asyncio.sleep(0)  # what they have to tell is told to nobody
    assert not caplog.records
    assert [task.cancelled() for task in tasks] == [False, True, True], "closing stops the test, too"


async def test_a_test_that_hangs_is_given_up(qtbot: QtBot, theme: Theme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_dialog, "TEST_S", 0.01)
    probe = FakeProbe(gate=threading.Event())
    async with asyncio.TaskGroup() as group:
        dialog = make(qtbot, theme, switched_on(), spawn=group.create_task, probe=probe)
        dialog.test.click()
    assert "There was no result" in dialog.result_box.sentences.text()
    assert dialog.test.isEnabled()
    assert probe.gate is not None
    probe.gate.set()


# ---------------------------------------------------------------- how it is, in words


@pytest.mark.parametrize("name", STATES)
def test_the_bar_shows_a_word_and_says_why(qtbot: QtBot, theme: Theme, name: str) -> None:
    status, word = STATES[name]
    assert team_word(status) == word
    bar = StatusBar(theme)
    qtbot.addWidget(bar)
    bar.show()
    assert not bar.team_item.isVisible()
    bar.set_team(status)
    bar.beat()
    assert bar.team_item.isVisible()
    assert bar.team.text() == f"team: {word}"
    assert not bar.team_icon.pixmap().isNull()
    assert status.text in bar.team_item.toolTip()
    bar.set_team(PushStatus())
    assert not bar.team_item.isVisible(), "off is nothing to look at"


def test_when_it_is_tried_again_is_told() -> None:
    text = team_text(NOT_REACHABLE)
    assert f"tried again at {AT.astimezone():%H:%M:%S %Z}." in text
    assert f"Last time everything was there: {AT.astimezone():%Y-%m-%d %H:%M:%S %Z}." in text
    assert "Sent so far: samples 120,000, interactions 40." in team_text(UP_TO_DATE)


def test_the_bar_is_calm(qtbot: QtBot, theme: Theme) -> None:
    bar = StatusBar(theme)
    qtbot.addWidget(bar)
    bar.show()
    bar.set_team(UP_TO_DATE)
    bar.set_team(SENDING)
    assert bar.team.text() == "team: up to date", "a short push is not worth a word"
    bar.beat()
    assert bar.team.text() == "team: 12,000 waiting"
    bar.set_team(NOT_REACHABLE)
    bar.set_team(PushStatus(PushState.CONNECTING))
    assert bar.team.text() == "team: not reachable", "until a try succeeds"
    bar.set_team(UP_TO_DATE)
    assert bar.team.text() == "team: up to date"
    bar.detach()
    assert not bar.team_item.isVisible()


def test_news_from_another_thread_reach_the_bar_and_the_dialog(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    push = FakeTeam(PushStatus(PushState.CONNECTING))
    window = make_window(qtbot, theme, tmp_path, FakeWorkbench(site()), team=push)
    assert window.status.team.text() == "team: connecting"
    window.verbs.action("team.edit").trigger()
    (dialog,) = window.findChildren(TeamDialog)
    push.status = UP_TO_DATE
    teller = threading.Thread(target=window.teamTold.emit)
    teller.start()
    teller.join()
    qtbot.waitUntil(lambda: window.status.team.text() == "team: up to date")
    qtbot.waitUntil(lambda: dialog.state.text().startswith("Now: up to date."))
    dialog.reject()
    window.detach()
    assert not window.status.team_item.isVisible()
    window.teamTold.emit()
    qtbot.wait(20)
    assert not window.status.team_item.isVisible()


def test_a_replay_has_no_team_and_says_why(qtbot: QtBot, theme: Theme, tmp_path: Path) -> None:
    window = make_window(qtbot, theme, tmp_path, FakeWorkbench(site()), mode=Mode.REPLAY, replay=Recording())
    action = window.verbs.action("team.edit")
    assert not action.isEnabled()
    assert "This is a replay" in action.toolTip()
    assert not window.status.team_item.isVisible()


# ---------------------------------------------------------------- pictures


def test_pictures(qtbot: QtBot, each_theme: Theme, artifacts: Path) -> None:
    def shoot(dialog: QDialog, name: str) -> None:
        qtbot.wait(30)
        assert dialog.grab().save(str(artifacts / f"team-{name}-{each_theme.mode.value}.png"))

    dialog = make(qtbot, each_theme)
    shoot(dialog, "fresh")
    dialog.on.setChecked(True)
    type_into(qtbot, dialog.address.editor, "postgresql://u:word@h/d")
    leave(dialog.address.editor)
    shoot(dialog, "wrong-address")
    probe = FakeProbe()
    push = FakeTeam(UP_TO_DATE)
    dialog = make(qtbot, each_theme, switched_on(), probe=probe, team=push)
    dialog.test.click()
    shoot(dialog, "tested")
    push.status = NOT_REACHABLE
    dialog.show_state()
    probe.answer = LinkError(AWAY, LinkReason.UNREACHABLE)
    dialog.test.click()
    shoot(dialog, "not-reachable")
    dialog.result_box.begin("Connecting to bench@team.example:5432/meters...")
    dialog.result_box.show_progress()
    shoot(dialog, "testing")
    shoot(make(qtbot, each_theme, find_driver=no_driver), "no-library")


@pytest.mark.parametrize("name", ["up-to-date", "waiting", "not-reachable"])
def test_pictures_of_the_bar(qtbot: QtBot, each_theme: Theme, tmp_path: Path, artifacts: Path, name: str) -> None:
    workbench = FakeWorkbench(site())
    push = FakeTeam(STATES[name][0])
    window = make_window(qtbot, each_theme, tmp_path, workbench, (1280, 720), team=push)
    busy(workbench)
    window.status.on_traffic("lem-1", "out", 40)
    window.status.set_log(1_234_567, 212 << 20)
    qtbot.waitUntil(lambda: "on its way" in window.status.counts.text())
    window.status.beat()
    assert window.status.team.text() == f"team: {STATES[name][1]}"
    qtbot.wait(30)
    assert window.grab().save(str(artifacts / f"team-bar-{name}-{each_theme.mode.value}.png"))


# ---------------------------------------------------------------- the desk


@needs_driver
def test_an_open_workspace_is_pushed_until_it_is_left_and_a_replay_is_not(at_desk: AtDesk, tmp_path: Path) -> None:
    path = tmp_path / "bench.mwk"
    live_push.add_samples(path, 8)
    with open_session(path) as session:
        session.workbench.save_setting(ADDRESS, UNREACHABLE)

    def pushes() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "team push"]

    async def act(desk: Desk) -> None:
        bar = desk.window.status
        await ready(desk)
        await until(lambda: bar.team.text() == "team: not reachable")
        assert bar.team_item.isVisible()
        assert "cannot be reached" in bar.team_item.toolTip()
        assert "It is tried again at" in bar.team_item.toolTip()
        assert pushes()
        await desk.open_replay(path)
        session = await ready(desk)
        assert session.team is None
        assert not bar.team_item.isVisible()
        assert not pushes()
        await desk.open_workspace(path)
        await ready(desk)
        assert pushes()

    at_desk(act, file=path)
    assert not pushes()


@needs_driver
def test_the_keyring_of_an_open_workspace_is_asked_beside_the_loop(tmp_path: Path) -> None:
    class Watched(SessionSecrets):
        def get(self, name: str) -> str | None:
            asked.append((name, threading.current_thread() is threading.main_thread()))
            return "a word"

    asked: list[tuple[str, bool]] = []
    told = live_push.Told()
    with open_session(tmp_path / "bench.mwk", adapter_types={}, secrets=Watched()) as session:
        session.workbench.save_setting(ADDRESS, UNREACHABLE)
        with team_link(session, told):
            told.until(lambda status: status.is_away)
        assert asked == [("team-database:bench@127.0.0.1:1/meters", False)]
        assert session.redactor.redact(b"a word") == b"[redacted]"


@needs_server
def test_from_the_menu_to_a_real_database_and_off_again(at_desk: AtDesk, team: Team, qtbot: QtBot) -> None:
    async def act(desk: Desk) -> None:
        window = desk.window
        await ready(desk)
        assert not window.status.team_item.isVisible()
        window.verbs.action("team.edit").trigger()
        await until(lambda: shown(window, TeamDialog))
        dialog = shown(window, TeamDialog)
        dialog.on.setChecked(True)
        type_into(qtbot, dialog.address.editor, team.address.url)
        type_into(qtbot, dialog.password.editor, "another-wrong-word")
        dialog.test.click()
        await until(lambda: "refused the login" in dialog.result_box.sentences.text())
        type_into(qtbot, dialog.password.editor, PASSWORD)
        dialog.test.click()
        await until(lambda: "The tables are not there yet." in dialog.result_box.sentences.text())
        assert "The connection is not encrypted" in dialog.result_box.sentences.text()
        assert not team.one("SELECT count(*) FROM pg_namespace WHERE nspname = 'meterwright'"), "a test only looks"
        dialog.session_only.setChecked(True)
        dialog.save.click()
        await until(lambda: window.status.team.text() == "team: up to date")
        assert team.one("SELECT count(*) FROM meterwright.workspaces") == 1
        window.verbs.action("team.edit").trigger()
        await until(lambda: shown(window, TeamDialog) not in (None, dialog))
        again = shown(window, TeamDialog)
        again.test.click()
        await until(lambda: "this one is among them" in again.result_box.sentences.text())
        again.on.setChecked(False)
        again.save.click()
        await until(lambda: not window.status.team_item.isVisible())

    at_desk(act)


@needs_server
def test_a_look_says_what_is_not_permitted(team: Team, tmp_path: Path) -> None:
    with live_push.held_connection(team.server.port, "chief", team.name) as chief:
        chief.execute(f"ALTER DATABASE {team.name} OWNER TO chief")
        with pytest.raises(StoreError, match="its tables cannot be made"):
            probe_team(team.address, PASSWORD, "")
        chief.execute(f"CREATE SCHEMA meterwright AUTHORIZATION {live_push.USER}")
        assert "The first push makes them" in " ".join(probe_team(team.address, PASSWORD, ""))
        path = live_push.make_log(tmp_path / "w.mwk", 2)
        team.push(path)
        sentences = " ".join(probe_team(team.address, PASSWORD, identity_of(path)))
        assert "Workspaces in them: 1; this one is among them." in sentences
        assert "TimescaleDB" in sentences
        chief.execute(f"REVOKE INSERT ON meterwright.sample_rows FROM {live_push.USER}")
        with pytest.raises(StoreError, match="its tables cannot be written"):
            probe_team(team.address, PASSWORD, "")


@needs_server
def test_a_refused_login_is_not_called_unreachable(team: Team, tmp_path: Path) -> None:
    path = live_push.make_log(tmp_path / "w.mwk", 1)
    told = live_push.Told()
    held = TeamPush(path, team.address, live_push.WRONG, identity_of(path), on_status=told)
    held.start()
    try:
        waiting = told.until(lambda status: status.state is PushState.WAITING)
    finally:
        held.stop()
    assert (waiting.is_away, team_word(waiting)) == (False, "held up")
    assert waiting.again is not None


@needs_server
def test_what_waits_is_counted_down(team: Team, tmp_path: Path) -> None:
    path = live_push.make_log(tmp_path / "w.mwk", 20)  # with 40 samples
    told = live_push.Told()
    held = TeamPush(path, team.address, lambda: PASSWORD, identity_of(path), batch=10, on_status=told)
    held.start()
    try:
        told.until(lambda status: status.state is PushState.UP_TO_DATE)
    finally:
        held.stop()
    waiting = [status.waiting for status in told.all if status.state is PushState.PUSHING]
    assert waiting[0] == 59
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[-1] == 0
    assert {10, 20, 30} <= set(waiting), "batches of samples"
