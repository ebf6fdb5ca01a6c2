"""Composition roots share this: a workspace opened, a workbench built on it, everything closed in order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.adapters.registry import Registry
from app.clock import StandingClock, SystemClock
from app.errors import ConfigError, StoreError
from app.interaction_log.open_any import devices_in
from app.interaction_log.reader import LogReader
from app.interaction_log.redaction import Redactor
from app.interaction_log.replay import span as recorded_span
from app.interaction_log.writer import LogWriter
from app.model.interaction import Interaction, Message
from app.model.records import Change, Setting
from app.pipeline.put_back import kept_before
from app.ports import AdapterType, Clock, KeptBatch, Secrets, Snapshot
from app.secrets import KeyringSecrets, SessionSecrets
from app.team.address import TeamAddress, team_address, team_password
from app.team.identity import ADDRESS, IDENTITY, new_identity
from app.team.live import PushState, PushStatus, TeamPush
from app.workbench import Workbench

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class Session:
    """One open workspace with its workbench."""

    path: Path
    writer: LogWriter
    workbench: Workbench
    redactor: Redactor
    secrets: Secrets


@contextmanager
def open_session(
    path: Path,
    *,
    adapter_types: Mapping[str, AdapterType] | None = None,
    clock: Clock | None = None,
    secrets: Secrets | None = None,
    on_secret: Callable[[str], None] = lambda _secret: None,
) -> Iterator[Session]:
    """Open (or create) a workspace for writing and build a workbench on it.

    ``on_secret`` is told of every secret that is hidden in the log, from any thread.

    Raises:
        StoreError: it cannot be opened, is newer than this program, or another Meterwright holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = LogWriter(path)
    try:
        with contextlib.closing(LogReader(path)) as reader:
            snapshot: Snapshot = reader.snapshot()
        identity = str(snapshot.settings.get(IDENTITY) or "")
        if not identity:
            identity = new_identity()
            named = Setting(key=IDENTITY, value=identity)
            writer.put(named)
            snapshot = replace(snapshot, settings={**snapshot.settings, named.key: named.value})
        redactor = Redactor()

        def register(secret: str) -> None:
            redactor.add(secret)
            on_secret(secret)

        def recall(number: int) -> tuple[Interaction, tuple[Message, ...]] | None:
            with contextlib.closing(LogReader(path)) as reader:
                return reader.recall(number)

        def recall_batch(number: int) -> KeptBatch | None:
            with contextlib.closing(LogReader(path)) as reader:
                return reader.batch(number)

        def look_back(row: Interaction, commands: Collection[str]) -> tuple[Mapping[str, Any], Sequence[Interaction]]:
            with contextlib.closing(LogReader(path)) as reader:
                return kept_before(reader.saved_lines(row.id)), reader.later(row, commands)

        used_secrets = secrets if secrets is not None else KeyringSecrets()
        workbench = Workbench(
            store=writer,
            snapshot=snapshot,
            adapter_types=adapter_types if adapter_types is not None else Registry(),
            clock=clock if clock is not None else SystemClock(),
            secrets=used_secrets,
            redact=redactor.redact,
            register_secret=register,
            recall=recall,
            recall_batch=recall_batch,
            look_back=look_back,
            identity=identity,
        )
        yield Session(path, writer, workbench, redactor, used_secrets)
    finally:
        writer.close()


class _NoStore:
    """Stands where a log is only read: a sealed workbench never comes here."""

    def __init__(self, sealed: str) -> None:
        self._sealed = sealed

    def put(self, *_changes: Change) -> None:
        raise StoreError(self._sealed)

    def commit(self, *_changes: Change) -> asyncio.Future[None]:
        raise StoreError(self._sealed)


def reading_workbench(reader: LogReader, *, adapter_types: Mapping[str, AdapterType] | None = None) -> Workbench:
    """A workbench on a log that is only read: it shows how everything stood at the end of the log.

    It has no engine: it opens no link, sends nothing, runs no task and writes nothing; whatever would raises StoreError
    in words. Its clock stands at the last moment of the log.

    Raises:
        StoreError: the log cannot be read.
    """
    sealed = f"{reader.path.name} is open for reading only: nothing is sent, and nothing in it is changed."
    span = recorded_span(reader)
    return Workbench(
        store=_NoStore(sealed),
        snapshot=replace(reader.snapshot(), devices=tuple(devices_in(reader).values())),
        adapter_types=adapter_types if adapter_types is not None else Registry(),
        clock=StandingClock(span[1]) if span is not None else SystemClock(),
        secrets=SessionSecrets(),
        sealed=sealed,
    )


@asynccontextmanager
async def running(workbench: Workbench) -> AsyncIterator[None]:
    """Run a workbench for the time of the context; its failure is raised here."""
    import asyncio

    async with asyncio.TaskGroup() as group:
        task = group.create_task(workbench.run(), name="workbench")
        await asyncio.sleep(0)  # let it take the loop before the first command
        try:
            yield
        finally:
            workbench.stop()
            await asyncio.wait([task])


class TeamLink:
    """The live push of an open workspace: on while its setting ``team:address`` holds a URL. On the engine's loop."""

    def __init__(self, session: Session, on_status: Callable[[PushStatus], None]) -> None:
        self._session = session
        self._on_status = on_status
        self._push: TeamPush | None = None
        self._status = PushStatus()  # while there is no push

    @property
    def status(self) -> PushStatus:
        return self._status if self._push is None else self._push.status

    def look(self, change: Change) -> None:
        """Follows the setting; a subscriber of the change feed."""
        if isinstance(change, Setting) and change.key == ADDRESS:
            if self._push is not None:
                self._push.leave()
                self._push = None
            self.begin()

    def begin(self) -> None:
        """Start what the setting says; a setting that is wrong is told as a status."""
        workbench = self._session.workbench
        url = workbench.setting(ADDRESS)
        self._status = PushStatus()
        if url:
            try:
                address = team_address(str(url))
            except ConfigError as exc:
                self._status = PushStatus(PushState.FAILED, str(exc))
            else:
                identity = str(workbench.setting(IDENTITY))
                password = partial(self._password, address)
                self._push = TeamPush(self._session.path, address, password, identity, on_status=self._on_status)
                self._push.start()
        self._on_status(self.status)

    def _password(self, address: TeamAddress) -> str | None:
        """On the push's thread."""
        password = team_password(address, os.environ, self._session.secrets)
        if password is not None:
            self._session.redactor.add(password)
        return password

    def nudge(self) -> None:
        """Look for news now."""
        if self._push is not None:
            self._push.nudge()

    def end(self) -> None:
        if self._push is not None:
            self._push.stop()


@contextmanager
def team_link(
    session: Session, on_status: Callable[[PushStatus], None] = lambda _status: None
) -> Iterator[TeamLink]:
    """Keep a team's database up to date while the workspace is open, if its settings say so.

    ``on_status`` is called on the push's thread, and on the engine's loop where the setting is wrong or taken away.
    """
    link = TeamLink(session, on_status)
    leave = session.workbench.feed.subscribe(link.look)
    link.begin()
    try:
        yield link
    finally:
        leave()
        link.end()
