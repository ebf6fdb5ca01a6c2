"""Is a kept log still what it was, and does today's program make the same of it? (``meterwright replay --check``)

Four questions: are the bytes of every frame those that were written; does the gatekeeper decide today as it did, on
what each verdict depended on; does every command, replayed through the pipeline, end with the recorded status, reason
and result; and does an adapter that can decode recorded bytes again (``app.ports.Rereader``) get the recorded result
from them. The file is only read, and nothing reaches a meter.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from app.composition import open_session, running
from app.errors import WorkbenchError
from app.interaction_log.frame_check import altered_frames
from app.interaction_log.reader import LogReader, Story
from app.model.command import CommandSpec
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.jsonable import jsonable
from app.model.status import Status
from app.pipeline.explaining import Judgement, judgement
from app.ports import AdapterType, Rereader
from app.replaying import Difference, Player, first_difference, scratch_path
from app.workbench import Workbench

_PAGE: Final = 256
TRIAGE: Final = "triage"  # actor of a later read that turned a failed write into a success


@asynccontextmanager
async def replayed(
    reader: LogReader,
    real_types: Mapping[str, AdapterType],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    speed: float = math.inf,
) -> AsyncIterator[tuple[Player, Workbench]]:
    """A player and the running workbench it plays into, on a scratch workspace that goes with the context.

    Raises:
        StoreError: the recording holds nothing to play, or there is no place for the scratch workspace.
    """
    player = Player(reader, real_types, since=since, until=until, speed=speed)
    with tempfile.TemporaryDirectory(prefix="meterwright-") as folder:
        path = scratch_path(Path(folder), reader.path)
        with open_session(path, adapter_types=player.adapter_types(), clock=player.clock) as session:
            for device in player.devices():
                session.workbench.save_device(device)
            async with running(session.workbench):
                yield player, session.workbench


async def check(
    path: Path,
    real_types: Mapping[str, AdapterType],
    *,
    open_reader: Callable[[Path], LogReader] = LogReader,
) -> AsyncIterator[Difference]:
    """Every difference: of the bytes, the verdicts, then of the ends, then of what was read from the bytes.

    An altered byte is told as that: bytes that are known not to be the recorded ones are not decoded again.

    Raises:
        StoreError: the file cannot be read, or holds nothing to play.
    """
    with contextlib.closing(open_reader(path)) as reader:
        altered: set[int] = set()
        for found in altered_frames(reader):
            if found.interaction is not None:
                altered.add(found.interaction)
            yield _of_frame(reader, found.interaction, str(found), found.frame, found.offset, found.was, found.now)
        for difference in verdicts(reader):
            yield difference
        async with replayed(reader, real_types) as (player, workbench):
            await player.play_to_end(workbench)
        for difference in player.differences():
            yield difference
        for difference in reread(reader, real_types, altered):
            yield difference


def _of_frame(
    reader: LogReader,
    interaction: int | None,
    text: str,
    frame: int,
    offset: int | None,
    was: int | None,
    now: int | None,
) -> Difference:
    row = reader.interaction(interaction) if interaction is not None else None
    return Difference(
        what="frame",
        text=text,
        recorded=f"{was:02X}" if was is not None else None,
        now=f"{now:02X}" if now is not None else None,
        interaction=interaction,
        device=row.device if row is not None else "",
        command=row.command if row is not None else "",
        frame=frame,
        offset=offset,
    )


def verdicts(reader: LogReader) -> Iterator[Difference]:
    """The gatekeeper asked again about every verdict whose inputs were kept; one difference for each other answer."""
    after = 0
    while lines := reader.verdict_lines(after, _PAGE):
        after = lines[-1][0]
        for _number, line in lines:
            row = reader.interaction(line.interaction)
            if row is not None and line.status is not None:
                yield from _of_verdict(row, judgement(row, line))


def _of_verdict(row: Interaction, found: Judgement) -> Iterator[Difference]:
    difference = Difference(what="verdict", text="", interaction=row.id, device=row.device, command=row.command)
    was = f"{found.status} {found.code}".rstrip()
    if found.again is None:
        yield replace(difference, text=f"the verdict {was} at {found.at.isoformat()}: {found.note}", recorded=was)
    elif found.differs:
        now = f"{found.again.status} {found.again.code}".rstrip()
        text = f"the gatekeeper said {was} at {found.at.isoformat()}, and says {now} now."
        yield replace(difference, text=text, recorded=was, now=now)


def reread(
    reader: LogReader, real_types: Mapping[str, AdapterType], left_out: Collection[int] = ()
) -> Iterator[Difference]:
    """Recorded bytes of successful commands decoded again, wherever their adapter can; ``left_out`` are not."""
    able = {key: kind for key, kind in real_types.items() if isinstance(kind, Rereader)}
    if not able:
        return
    devices = {device.id: device for device in reader.snapshot().devices}
    after = 0
    while page := reader.page(after=after, limit=_PAGE):
        after = page.ids[-1]
        for row in page:
            adapter = able.get(row.adapter)
            if adapter is None or row.status is not Status.SUCCESSFUL or row.id in left_out:
                continue
            story = reader.story(row.id)
            if story is not None and story.frames and not any(step.actor == TRIAGE for step in story.steps):
                device = devices.get(row.device) or Device(id=row.device, name=row.device)
                yield from _reread(adapter, real_types[row.adapter], device, story)


def _reread(adapter: Rereader, kind: AdapterType, device: Device, story: Story) -> Iterator[Difference]:
    row = story.interaction
    spec = CommandSpec(name=row.command, title=row.command, kind=row.kind)
    if device.adapter == row.adapter:
        with contextlib.suppress(WorkbenchError):
            spec = next((one for one in kind.commands(device, {}) if one.name == row.command), spec)
    difference = Difference(what="reread", text="", interaction=row.id, device=row.device, command=row.command)
    try:
        answer = adapter.reread(spec, row.params, story.frames)
    except WorkbenchError as exc:
        yield replace(difference, text=f"its bytes cannot be read any more: {exc}")
        return
    if answer is None:
        return
    recorded = row.result or {}
    for name, value in jsonable(answer.result).items():
        found = first_difference(recorded.get(name), value, name)
        if found is not None:
            where, was, now = found
            text = f"its bytes said {where} {was!r} and say {now!r} now."
            yield replace(difference, text=text, where=where, recorded=was, now=now)
            return
