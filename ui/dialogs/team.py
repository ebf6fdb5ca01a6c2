"""The team database of a workspace: where it is, its password, whether the workspace is pushed there, and a test.

The address is a setting of the workspace and never holds the password, which goes to the keyring of this computer or
to the memory of this session. Connecting and the keyring are waited for beside the window.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import shiboken6
from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.errors import ConfigError, ParameterError, WorkbenchError
from app.model.command import ParamSpec, ParamType
from app.ports import Secrets
from app.secrets import SessionSecrets
from app.team.address import EXAMPLE, PASSWORD_VARIABLES, TeamAddress, team_address, team_password
from app.team.database import TeamDatabase, driver
from app.team.identity import ADDRESS, IDENTITY
from app.workbench import Workbench
from ui.dialogs.connection import SecretKeeper, Spawn
from ui.panels.command import ParamField
from ui.team_state import Team, team_look, team_text, team_word
from ui.theme import Role, Theme, space
from ui.widgets.result_box import ResultBox

SPARE_LINES: Final = 12  # for what a test says, and what is wrong with a field
TEST_S: Final = 30.0  # the whole of a test; a host that swallows packets is given up earlier, by the driver

Probe = Callable[[TeamAddress, str | None, str], Sequence[str]]
"""Address, password, id of the workspace -> what is there, in sentences. In a thread of its own."""


def probe_team(address: TeamAddress, password: str | None, workspace: str) -> Sequence[str]:
    """Look at a team's database without writing to it.

    Raises:
        ConfigError, LinkError, StoreError: as ``TeamDatabase.probe``
    """
    return TeamDatabase(address, password, workspace, "").probe()


class AddressField(ParamField):
    """The URL of a database; what is wrong with one is said in the words of ``team_address``."""

    def _parse(self) -> str:
        url = str(super()._parse())
        try:
            team_address(url)
        except ConfigError as fault:
            raise ParameterError(str(fault), self.spec.name) from None
        return url


class TeamDialog(QDialog):
    """Changes the setting ``app.team.identity.ADDRESS``; ``saved`` comes after the core has taken it.

    Args:
        team: the live push, to say how it is; None where there is none.
        probe, find_driver: what is called in a thread to test, and to see whether the library is installed.
    """

    saved = Signal()

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        spawn: Spawn,
        *,
        secrets: SecretKeeper,
        team: Team | None = None,
        environment: Mapping[str, str] = os.environ,
        probe: Probe = probe_team,
        find_driver: Callable[[], object] = driver,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("team")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self.setWindowTitle(self.tr("Team database"))
        self._workbench = workbench
        self._theme = theme
        self._spawn = spawn
        self._secrets = secrets
        self._team = team
        self._environment = environment
        self._probe = probe
        self._url = str(workbench.setting(ADDRESS) or "")
        self._refusal = ""  # why nothing can be pushed from this computer
        self._task: asyncio.Task[Any] | None = None
        self._test_number = 0
        self._is_testing = False
        self._is_saving = False
        self._build()
        theme.changed.connect(self._colour)
        self._colour()
        self.show_state()
        self._check()
        self._fit()
        self._spawn(self._look_for_driver(find_driver))

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.intro = QLabel(
            self.tr(
                "While this workspace is open, what is new in it is copied to a PostgreSQL that a team shares, for "
                "dashboards and reports. Nothing on the bench waits for it; what it misses is sent later."
            )
        )
        self.on = QCheckBox(self.tr("&Push this workspace to the team database"))
        self.on.setObjectName("team.on")
        self.on.setChecked(bool(self._url))
        self.on.toggled.connect(self._check)
        self.address = AddressField(
            ParamSpec(
                name="address",
                title=self.tr("Address"),
                help=self.tr("For example {example}; ?sslmode=verify-full behind it asks for encryption.").format(
                    example=EXAMPLE
                ),
            ),
            self._theme,
        )
        self.address.set_value(self._url)
        self.address.edited.connect(self._on_edit)
        self._build_password()
        facts = QGridLayout()
        facts.setHorizontalSpacing(space(6))
        facts.setVerticalSpacing(space(1))
        for column, (title, text) in enumerate(self._what_goes()):
            head, body = QLabel(title), QLabel(text)
            font = head.font()
            font.setBold(True)
            head.setFont(font)
            body.setWordWrap(True)
            body.setTextFormat(Qt.TextFormat.PlainText)
            facts.addWidget(head, 0, column)
            facts.addWidget(body, 1, column, Qt.AlignmentFlag.AlignTop)
            facts.setColumnStretch(column, 1)
        self.state_icon = QLabel()
        self.state_icon.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.state = QLabel()
        self.state.setObjectName("team.state")
        self.state.setAccessibleName(self.tr("How the push is now"))
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        state = QHBoxLayout()
        state.setSpacing(space(2))
        state.addWidget(self.state_icon)
        state.addWidget(self.state, 1)
        self.result_box = ResultBox(self._theme)
        self.result_box.setObjectName("team.result")
        self.result_box.stopRequested.connect(self._cancel_test)
        for label in (self.intro, self.state):
            label.setWordWrap(True)
        form = QVBoxLayout()
        form.setContentsMargins(0, 0, space(3), 0)
        form.setSpacing(space(3))
        for widget in (self.intro, self.on, self.address, self.password, self.session_only, _line()):
            form.addWidget(widget)
        form.addLayout(facts)
        form.addWidget(_line())
        form.addLayout(state)
        form.addStretch(1)
        self.page = QWidget()
        self.page.setLayout(form)
        self.form_area = QScrollArea()
        self.form_area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the fields in it are what is reached
        self.form_area.setWidgetResizable(True)
        self.form_area.setFrameShape(QFrame.Shape.NoFrame)
        self.form_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.form_area.setWidget(self.page)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        outer.addWidget(self.form_area, 1)
        outer.addWidget(self.result_box)
        outer.addLayout(self._make_buttons())

    def _build_password(self) -> None:
        variable = next((name for name in PASSWORD_VARIABLES if self._environment.get(name)), "")
        if variable:
            help_text = self.tr("{variable} is set in the environment of this program and is used.")
        else:
            help_text = self.tr("Left empty, the one that is kept for this address is used, or a .pgpass file.")
        self.password = ParamField(
            ParamSpec(
                name="password",
                title=self.tr("Password"),
                type=ParamType.SECRET,
                required=False,
                help=help_text.format(variable=variable),
            ),
            self._theme,
        )
        self.password.setEnabled(not variable)
        self.password.edited.connect(self._on_edit)
        self.session_only = QCheckBox(self.tr("Keep the password for this session only"))
        self.session_only.setObjectName("team.session_only")
        self.session_only.setToolTip(
            self.tr("Otherwise it goes to the keyring of this computer. It never stands in the workspace or the log.")
        )
        self.session_only.setEnabled(not variable)

    def _what_goes(self) -> tuple[tuple[str, str], ...]:
        return (
            (
                self.tr("What goes there"),
                self.tr(
                    "Samples: meter, quantity, unit, time, value, and the meter's own time.\n"
                    "Interactions: meter, command, status, times, parameters, result and failure.\n"
                    "The name of this workspace, and a random id for it."
                ),
            ),
            (
                self.tr("What never leaves"),
                self.tr(
                    "Frames: the bytes on the wire.\n"
                    "Secrets: passwords, keys and tokens, also those inside parameters and results.\n"
                    "Devices with their addresses and settings, and this workspace's file."
                ),
            ),
        )

    def _make_buttons(self) -> QHBoxLayout:
        self.missing = QLabel()
        self.missing.setObjectName("team.missing")
        self.missing.setWordWrap(True)
        self.test = QPushButton(self.tr("&Test the connection"))
        self.test.setObjectName("team.test")
        self.test.setToolTip(self.tr("Connects and looks. Nothing is written to the database."))
        self.test.setAutoDefault(False)
        self.test.clicked.connect(self._start_test)
        self.leave = QPushButton(self.tr("Leave without saving"))
        self.leave.setObjectName("team.leave")
        self.leave.setAutoDefault(False)
        self.leave.clicked.connect(self.reject)
        self.save = QPushButton()
        self.save.setObjectName("team.save")
        self.save.setDefault(True)
        self.save.clicked.connect(self._save)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.test)
        row.addWidget(self.missing, 1)
        row.addWidget(self.leave)
        row.addWidget(self.save)
        return row

    def _fit(self) -> None:
        """As tall as the form with some lines more, as far as the screen allows; the rest is scrolled to."""
        line, width = self.fontMetrics().height(), self.fontMetrics().averageCharWidth() * 110
        height = self.page.heightForWidth(width - space(8)) + self.save.sizeHint().height() + SPARE_LINES * line
        self.resize(QSize(width, height).boundedTo(self.screen().availableSize() * 0.9))

    # ---------------------------------------------------------------- what stands in it

    def show_state(self) -> None:
        """How the push is now; also why there can be none."""
        side = self.fontMetrics().height()
        if self._team is None:
            self.state.setText(self._refusal)
            return
        status = self._team.status
        self.state_icon.setPixmap(self._theme.pixmap(team_look(status), side, self.devicePixelRatioF()))
        words = self.tr("Now: {word}. {text}").format(word=team_word(status), text=team_text(status))
        self.state.setText("\n".join(part for part in (words, self._refusal) if part and part not in status.text))

    async def _look_for_driver(self, find: Callable[[], object]) -> None:
        """Importing it may take a moment; without it there is nothing to test and nothing to switch on."""
        try:
            await asyncio.to_thread(find)
        except ConfigError as fault:
            if shiboken6.isValid(self):
                self._refusal = str(fault)
                self.show_state()
                self._check()

    def _on_edit(self) -> None:
        if not self._is_testing:
            self.result_box.hide()  # it spoke of another address
        self._check()

    def _check(self) -> None:
        """Enable what can be done; the rest says why not."""
        is_on, was_on = self.on.isChecked(), bool(self._url)
        wrong = self.address.fault()
        self.on.setEnabled(was_on or not self._refusal)
        for widget in (self.address, self.password, self.session_only):
            if self._refusal:
                widget.setEnabled(False)
        self.test.setEnabled(not (wrong or self._refusal or self._is_testing))
        may_save = not (wrong or self._refusal) if is_on else was_on
        self.save.setEnabled(may_save and not self._is_saving)
        if not is_on and was_on:
            verb = self.tr("Stop the push")
        elif was_on:
            verb = self.tr("Save the changes")
        else:
            verb = self.tr("Start the push")
        self.save.setText(verb)
        if self._refusal:
            missing = ""  # it stands beside the state
        elif is_on and wrong:
            missing = self.tr("Still needed: an address of a database.")
        elif not is_on and not was_on:
            missing = self.tr("It is switched off.")
        else:
            missing = ""
        self.missing.setText(missing)

    # ---------------------------------------------------------------- testing

    def _start_test(self) -> None:
        try:
            address = team_address(str(self.address.check()))
        except ParameterError:
            return  # it stands under its field
        self._is_testing = True
        self.result_box.begin(self.tr("Connecting to {name}...").format(name=address.name))
        self._check()
        self._spawn(self._run_test(self._test_number, address, self.password.raw()))

    async def _run_test(self, number: int, address: TeamAddress, typed: str | None) -> None:
        if not shiboken6.isValid(self) or number != self._test_number:
            return  # stopped before it began
        self._task = asyncio.current_task()
        secrets: Secrets = self._secrets
        if typed:
            secrets = SessionSecrets()
            secrets.set(address.secret, typed)
        work = partial(
            _look, self._probe, address, self._environment, secrets, str(self._workbench.setting(IDENTITY) or "")
        )
        try:
            async with asyncio.timeout(TEST_S):
                sentences = await _beside(work)
        except TimeoutError:
            text = self.tr("There was no result in {n} s. Check the address, then test again.")
            self._end_test(number, text.format(n=round(TEST_S)), False)
        except WorkbenchError as fault:
            self._end_test(number, str(fault), False)
        else:
            self._end_test(number, "\n".join(sentences), True)

    def _cancel_test(self) -> None:
        if not self._is_testing:
            return
        task = self._task
        self._end_test(self._test_number, self.tr("The test was stopped."), None)
        if task is not None:
            task.cancel()

    def _end_test(self, number: int, text: str, is_good: bool | None) -> None:
        if not shiboken6.isValid(self) or number != self._test_number:
            return  # closed meanwhile, or stopped and started again
        self._test_number += 1
        self._is_testing = False
        self._task = None
        self.result_box.say(text, is_good)
        self._check()

    # ---------------------------------------------------------------- saving

    def _save(self) -> None:
        if not self.on.isChecked():
            self._hand_over(None)
            return
        try:
            address = team_address(str(self.address.check()))
        except ParameterError:
            return  # it stands under its field
        typed = self.password.raw()
        if not typed:
            self._hand_over(address.url)
            return
        self._is_saving = True
        self._check()
        self._spawn(self._keep(address, str(typed)))

    async def _keep(self, address: TeamAddress, password: str) -> None:
        """Put the password away, off the GUI thread: a keyring may ask the person to unlock it."""
        fault: WorkbenchError | None = None
        if not self.session_only.isChecked():
            try:
                await asyncio.to_thread(self._secrets.set, address.secret, password)
            except WorkbenchError as refused:
                fault = refused
        if fault is None:
            self._secrets.set_for_session(address.secret, password)  # one of this session would stand before it
        if not shiboken6.isValid(self):
            return
        self._is_saving = False
        self._check()
        if fault is not None:
            self.result_box.say(str(fault), False)
            return
        self._hand_over(address.url)

    def _hand_over(self, url: str | None) -> None:
        try:
            self._workbench.save_setting(ADDRESS, url)
        except WorkbenchError as fault:
            self.result_box.say(str(fault), False)
            return
        self.saved.emit()
        self.accept()

    def done(self, result: int) -> None:
        self._cancel_test()
        super().done(result)

    # ---------------------------------------------------------------- small things

    def _colour(self) -> None:
        for label in (self.intro, self.missing):
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(Role.DIMMED))
            label.setPalette(palette)
        self.show_state()


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setFrameShadow(QFrame.Shadow.Sunken)
    return line


def _look(
    probe: Probe, address: TeamAddress, environment: Mapping[str, str], secrets: Secrets, workspace: str
) -> Sequence[str]:
    return probe(address, team_password(address, environment, secrets), workspace)


async def _beside(work: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Do ``work`` in a thread that is left behind when nobody waits for it any more, also by the end of the program.

    Raises:
        what ``work`` raises
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def give(sentences: Sequence[str], fault: Exception | None) -> None:
        if answer.done():  # stopped
            return
        if fault is None:
            answer.set_result(sentences)
        else:
            answer.set_exception(fault)

    def run() -> None:
        sentences: Sequence[str] = ()
        fault: Exception | None = None
        try:
            sentences = work()
        except Exception as exc:  # noqa: BLE001 - the top of a thread: raised where it is waited for
            fault = exc
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(give, sentences, fault)

    threading.Thread(target=run, name="team test", daemon=True).start()
    return await answer
