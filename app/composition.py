"""Composition roots share this: a workspace opened, a workbench built on it, everything closed in order."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.adapters.registry import Registry
from app.clock import SystemClock
from app.interaction_log.reader import LogReader
from app.interaction_log.redaction import Redactor
from app.interaction_log.writer import LogWriter
from app.model.interaction import Interaction, Message
from app.ports import AdapterType, Clock, Secrets, Snapshot
from app.secrets import KeyringSecrets
from app.workbench import Workbench


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
) -> Iterator[Session]:
    """Open (or create) a workspace for writing and build a workbench on it.

    Raises:
        StoreError: it cannot be opened, is newer than this program, or another Meterwright holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = LogWriter(path)
    try:
        with contextlib.closing(LogReader(path)) as reader:
            snapshot: Snapshot = reader.snapshot()
        redactor = Redactor()

        def recall(number: int) -> tuple[Interaction, tuple[Message, ...]] | None:
            with contextlib.closing(LogReader(path)) as reader:
                return reader.recall(number)

        used_secrets = secrets if secrets is not None else KeyringSecrets()
        workbench = Workbench(
            store=writer,
            snapshot=snapshot,
            adapter_types=adapter_types if adapter_types is not None else Registry(),
            clock=clock if clock is not None else SystemClock(),
            secrets=used_secrets,
            redact=redactor.redact,
            register_secret=redactor.add,
            recall=recall,
        )
        yield Session(path, writer, workbench, redactor, used_secrets)
    finally:
        writer.close()


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
