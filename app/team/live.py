"""The live push: a thread with a read-only connection of its own that keeps a team's database up to date.

Nothing of the live path waits for it, and it never writes to the workspace. A database that is away is tried again
for ever, a little later each time; what came meanwhile is in the file.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from app.errors import ConfigError, LinkError, LinkReason, StoreError
from app.interaction_log.reader import LogReader
from app.team.address import TeamAddress
from app.team.database import TeamDatabase
from app.team.push import BATCH, Pushed, Pusher, Stopped

_log = logging.getLogger(__name__)

PERIOD_S: Final = 5.0
BACK_OFF_S: Final = (1.0, 60.0)
THOROUGH_S: Final = 300.0  # how often to look for what the marks cannot know
THOROUGH_SHARE: Final = 100  # and it may take one part in so many of the time
STOP_S: Final = 3.0  # a thread that waits for a dead network longer than that is left behind


class PushState(StrEnum):
    OFF = "off"
    CONNECTING = "connecting"
    PUSHING = "pushing"
    UP_TO_DATE = "up to date"
    WAITING = "waiting"  # for a database that is away or refuses; tried again by itself
    FAILED = "failed"  # not tried again


_LASTING: Final = (PushState.UP_TO_DATE, PushState.WAITING, PushState.FAILED)


@dataclass(frozen=True, slots=True)
class PushStatus:
    """What the live push is doing. ``text`` says why where it waits or has failed, else what there is to know."""

    state: PushState = PushState.OFF
    text: str = ""
    pushed: Pushed = field(default_factory=Pushed)  # since the start
    last: datetime | None = None  # when the database was known to have everything
    waiting: int = 0  # while it pushes: rows of the file that were counted and are not there yet
    again: datetime | None = None  # while it waits: when it is tried again
    is_away: bool = False  # it waits for a database that cannot be reached, and was not refused


def in_words(tell: Callable[[str], None]) -> Callable[[PushStatus], None]:
    """A listener for ``TeamPush`` that tells a state which lasts in a sentence, and only once until it changes."""
    said = (PushState.OFF, "")

    def listen(status: PushStatus) -> None:
        nonlocal said
        now = (status.state, status.text)
        if status.state in _LASTING and now != said:
            said = now
            tell(f"Team database: {status.state.value}. {status.text}".rstrip())

    return listen


class TeamPush:
    """One workspace to one database until ``stop``. ``start``, ``stop``, ``nudge`` and ``status``: from any thread.

    Args:
        path: the workspace; ``workspace`` is its id in the database (``app.team.identity``).
        password: or where it comes from, asked once on the push's thread: a keyring may wait for a person.
        on_status: told of every change of the status, on the push's own thread.
        period_s: how long to rest when everything is there.
    """

    def __init__(
        self,
        path: Path,
        address: TeamAddress,
        password: str | Callable[[], str | None] | None,
        workspace: str,
        *,
        batch: int = BATCH,
        period_s: float = PERIOD_S,
        back_off_s: tuple[float, float] = BACK_OFF_S,
        on_status: Callable[[PushStatus], None] = lambda _status: None,
    ) -> None:
        self._path = path
        self._address = address
        self._password = password
        self._workspace = workspace
        self._batch = batch
        self._period_s = period_s
        self._back_off_s = back_off_s
        self._on_status = on_status
        self._status = PushStatus()
        self._before = Pushed()  # by the connections before this one
        self._ending = threading.Event()
        self._wake = threading.Event()
        self._mutex = threading.Lock()
        self._reader: LogReader | None = None
        self._database: TeamDatabase | None = None
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> PushStatus:
        return self._status

    def start(self) -> None:
        """Begin; a push that has ended is not started again.

        Raises:
            RuntimeError: it was started before.
        """
        if self._thread is not None:
            raise RuntimeError("this push was started before")
        self._thread = threading.Thread(target=self._run, name="team push", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Look for news now."""
        self._wake.set()

    def leave(self) -> None:
        """As ``stop``, without waiting for the end."""
        self._ending.set()
        self._wake.set()
        with self._mutex:
            if self._reader is not None:
                self._reader.interrupt()

    def stop(self) -> None:
        """End soon, whatever the network does; what was sent is kept. Harmless when repeated or never started."""
        self.leave()
        with self._mutex:
            if self._database is not None:
                self._database.cancel()
        if self._thread is not None:
            self._thread.join(STOP_S)
            if self._thread.is_alive():  # a daemon: it ends with the program
                _log.warning("the push to the team database has not ended after %.0f s", STOP_S)

    # ---------------------------------------------------------------- the thread

    def _tell(
        self,
        state: PushState,
        text: str = "",
        *,
        pushed: Pushed | None = None,
        waiting: int = 0,
        again: datetime | None = None,
        is_away: bool = False,
    ) -> None:
        last = datetime.now(UTC) if state is PushState.UP_TO_DATE else self._status.last
        status = replace(
            self._status, state=state, text=text, last=last, waiting=waiting, again=again, is_away=is_away
        )
        if pushed is not None:
            both = (self._before.samples + pushed.samples, self._before.interactions + pushed.interactions)
            status = replace(status, pushed=Pushed(*both))
        self._status = status
        try:
            self._on_status(status)
        except Exception:  # noqa: BLE001 - crash boundary: a broken view must not end the push
            _log.exception("a listener of the push to the team database failed")

    def _run(self) -> None:
        try:
            with LogReader(self._path) as reader:
                with self._mutex:
                    self._reader = reader
                password = self._password() if callable(self._password) else self._password
                try:
                    self._keep_pushing(reader, password)
                finally:
                    with self._mutex:
                        self._reader = None
            self._tell(PushState.OFF)
        except (ConfigError, StoreError) as exc:
            self._tell(PushState.OFF if self._ending.is_set() else PushState.FAILED, str(exc))
        except Exception as exc:  # noqa: BLE001 - the top of a thread: reported; the bench goes on without it
            _log.exception("the push to the team database failed")
            self._tell(PushState.FAILED, f"The push to the team database failed: {type(exc).__name__}.")

    def _keep_pushing(self, reader: LogReader, password: str | None) -> None:
        shortest, longest = self._back_off_s
        patience = shortest
        while not self._ending.is_set():
            self._tell(PushState.CONNECTING)
            begun = self._status.last
            try:
                self._until_lost(reader, password)
            except Stopped:
                return
            except (LinkError, StoreError) as exc:
                if self._ending.is_set():
                    return
                if self._status.last is not begun:  # it worked for a while
                    patience = shortest
                self._before = self._status.pushed
                self._tell(
                    PushState.WAITING,
                    str(exc),
                    again=datetime.now(UTC) + timedelta(seconds=patience),
                    is_away=isinstance(exc, LinkError) and exc.reason is not LinkReason.DENIED,
                )
            self._rest(patience)
            patience = min(2 * patience, longest)

    def _until_lost(self, reader: LogReader, password: str | None) -> None:
        """One connection's life.

        Raises:
            Stopped, ConfigError, LinkError, StoreError
        """
        with TeamDatabase(self._address, password, self._workspace, self._path.stem) as database:
            with self._mutex:
                self._database = database
            try:
                pusher = Pusher(
                    reader,
                    database,
                    self._workspace,
                    batch=self._batch,
                    stopped=self._ending.is_set,
                    on_progress=lambda pushed: self._tell(
                        PushState.PUSHING, database.notice, pushed=pushed, waiting=pusher.waiting
                    ),
                )
                seen = -1
                thorough_at = 0.0
                while True:
                    began = time.monotonic()
                    ((version,),) = reader.query("PRAGMA data_version")  # grows when somebody has written
                    thorough = began >= thorough_at
                    if version != seen or thorough:
                        pusher.catch_up(thorough=thorough)
                        seen = version
                        self._tell(PushState.UP_TO_DATE, database.notice)
                    if thorough:
                        now = time.monotonic()
                        thorough_at = now + max(THOROUGH_S, THOROUGH_SHARE * (now - began))
                    self._rest(self._period_s)
                    if self._ending.is_set():
                        return
            finally:
                with self._mutex:
                    self._database = None

    def _rest(self, seconds: float) -> None:
        if not self._ending.is_set():
            self._wake.wait(seconds)
        if not self._ending.is_set():
            self._wake.clear()
