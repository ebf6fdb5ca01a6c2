"""Verbs on kept logs: log, replay."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from app.adapters.registry import Registry
from app.commands.common import (
    DONE,
    FAILED,
    Printer,
    chosen_workspace,
    existing_workspace,
    finish,
    interaction_json,
    interaction_sentence,
    json_option,
    parse_moment,
    run_async,
    step_json,
    stop_on_signals,
    workspace_option,
)
from app.errors import ParameterError
from app.interaction_log import compare, transfer
from app.interaction_log.filters import Filter, parse
from app.interaction_log.open_any import open_for_reading
from app.interaction_log.reader import LogReader
from app.interaction_log.story import around
from app.interaction_log.stream import follow, heading, hex_lines
from app.interaction_log.transfer_csv import import_csv
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.interaction import Interaction
from app.model.reading import SampleSet
from app.model.records import Change
from app.replay_check import check, replayed
from app.secrets import KeyringSecrets
from app.team.address import TeamAddress, team_address, team_password
from app.team.database import driver
from app.team.identity import identity_of
from app.team.live import PERIOD_S, PushState, PushStatus, TeamPush, in_words
from app.team.push import BATCH, MOST_BATCH, Pushed, push

PROGRESS_S = 2.0  # between two lines of a push
STATUS_HELP = "For example: status:FAILED device:lem-1 since:-2h reason:LINK_DOWN not command:READ_STATUS"


@click.group()
def log() -> None:
    """The log of every interaction."""


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[LogReader]:
    """As ``_reader_of``, closed at the end."""
    with contextlib.closing(_reader_of(file)) as reader:
        yield reader


def _reader_of(file: Path) -> LogReader:
    """A workspace or an export of any age and state; what a person should know of it goes to stderr."""
    opened = open_for_reading(file)
    for note in opened.notes:
        Printer.note(note)
    return opened.reader


def _filter(text: str) -> Filter | None:
    return parse(text, datetime.now(UTC)) if text.strip() else None


@log.command("list")
@click.argument("filter_text", nargs=-1, metavar="[FILTER]...")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="Newest this many.")
@workspace_option
@json_option
@click.pass_context
def log_list(
    context: click.Context, filter_text: tuple[str, ...], limit: int, workspace: Path | None, as_json: bool
) -> None:
    """Newest interactions that match FILTER, oldest of them first."""

    def work() -> int:
        printer = Printer(as_json)
        where = _filter(" ".join(filter_text))
        with _reading(existing_workspace(context, workspace)) as reader:
            rows: list[Interaction] = []
            before: int | None = None
            while len(rows) < limit:
                page = reader.page(before=before, limit=min(256, limit - len(rows)), where=where)
                if not page:
                    break
                rows = [*page, *rows]
                before = page[0].id
            for interaction in rows:
                printer.show(
                    interaction_json(interaction),
                    f"{interaction.created:%Y-%m-%d %H:%M:%S} {interaction_sentence(interaction)}",
                )
        return DONE

    finish(work)


@log.command("show")
@click.argument("number", type=int)
@click.option(
    "--around", "around_s", type=click.FloatRange(0), default=None,
    help="Also what happened on its device, gateway and grid within so many seconds.",
)  # fmt: skip
@workspace_option
@json_option
@click.pass_context
def log_show(
    context: click.Context, number: int, around_s: float | None, workspace: Path | None, as_json: bool
) -> None:
    """One interaction with its steps, attempts and bytes."""

    def work() -> int:
        printer = Printer(as_json)
        with _reading(existing_workspace(context, workspace)) as reader:
            story = reader.story(number)
            if story is None:
                raise ParameterError(f"There is no interaction {number} in this workspace.", "number")
            nearby = None if around_s is None else around(reader, number, around_s)
        record = interaction_json(story.interaction, list(story.steps))
        record["attempt_list"] = [
            {"number": a.number, "started": a.started, "ended": a.ended, "end": a.end, "ref": a.ref, "code": a.code,
             "text": a.text}
            for a in story.attempts
        ]  # fmt: skip
        record["frames"] = [
            {"at": f.at, "direction": f.direction, "link": f.link, "attempt": f.attempt, "hex": f.data}
            for f in story.frames
        ]
        lines = [interaction_sentence(story.interaction)]
        for line in story.steps:
            told = step_json(line)
            extra = " ".join(str(told[name]) for name in ("status", "code", "text") if name in told)
            lines.append(f"  {int(line.step):2} {line.at:%H:%M:%S.%f} {line.event} {extra}".rstrip())
        for frame in story.frames:
            lines.append(f"  {frame.direction.value:3} {frame.at:%H:%M:%S.%f} {len(frame.data)} octets on {frame.link}")
            lines += [f"      {text}" for text in frame.data[:2000].decode("utf-8", "replace").splitlines()]
        if nearby is not None:
            record["around"] = [one.to_json() for one in nearby]
            lines.append(f"  around it ({len(nearby)}):")
            lines += [f"  {o.offset_s:+10.3f} s {o.place} {o.device} {o.kind}: {o.text}" for o in nearby]
        printer.show(record, "\n".join(lines))
        return DONE

    finish(work)


@log.command("follow")
@click.argument("number", type=int)
@click.option("--all-links", is_flag=True, help="Of all links of its device, not only that of its first bytes.")
@click.option("--hex", "as_hex", is_flag=True, help="Octets instead of text.")
@workspace_option
@json_option
@click.pass_context
def log_follow(
    context: click.Context, number: int, all_links: bool, as_hex: bool, workspace: Path | None, as_json: bool
) -> None:
    """All bytes of an interaction's link around it, in their order."""

    def work() -> int:
        printer = Printer(as_json)
        with _reading(existing_workspace(context, workspace)) as reader:
            found = follow(reader, number, all_links=all_links)
        if found.has_earlier:
            printer.note("There are earlier ones.")
        for frame_id, frame in found.frames:
            command = found.commands.get(frame.interaction or 0, "")
            record = {
                "id": frame_id, "at": frame.at, "direction": frame.direction, "link": frame.link,
                "interaction": frame.interaction, "command": command, "attempt": frame.attempt, "note": frame.note,
                "truncated": frame.truncated, "hex": frame.data,
            }  # fmt: skip
            link = "" if found.link else f"  {frame.link}"
            text = frame.data.decode("utf-8", "backslashreplace")
            lines = hex_lines(frame.data) if as_hex else text.splitlines()
            told = [f"{frame.at:%Y-%m-%d %H:%M:%S.%f} {heading(frame, command)}{link}", *(f"    {n}" for n in lines)]
            printer.show(record, "\n".join(told))
        if found.has_later:
            printer.note("There are later ones.")
        return DONE

    finish(work)


@log.command("stats")
@workspace_option
@json_option
@click.pass_context
def log_stats(context: click.Context, workspace: Path | None, as_json: bool) -> None:
    """Counts by status, command and device, and how long commands took."""

    def work() -> int:
        with _reading(existing_workspace(context, workspace)) as reader:
            stats = reader.stats()
        record = stats.to_json()
        Printer(as_json).show(record, "\n".join(_flat(record)))
        return DONE

    finish(work)


def _flat(record: dict[str, Any], indent: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in record.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_flat(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines


@log.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--filter", "filter_text", default="", help=STATUS_HELP)
@click.option("--samples", is_flag=True, help="With the samples (JSON Lines), or only them (CSV).")
@workspace_option
@json_option
@click.pass_context
def log_export(
    context: click.Context, file: Path, filter_text: str, samples: bool, workspace: Path | None, as_json: bool
) -> None:
    """Write the log to FILE: JSON Lines (*.jsonl), or CSV (*.csv)."""

    def work() -> int:
        where = _filter(filter_text)
        with _reading(existing_workspace(context, workspace)) as reader:
            if file.suffix.lower() == ".csv" and samples:
                rows = transfer.export_samples_csv(reader, file)
            elif file.suffix.lower() == ".csv":
                rows = transfer.export_csv(reader, file, where)
            else:
                rows = transfer.export_jsonl(reader, file, where, samples=samples)
        Printer(as_json).show({"file": str(file), "rows": rows}, f"{rows} rows written to {file}.")
        return DONE

    finish(work)


@log.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@workspace_option
@json_option
@click.pass_context
def log_import(context: click.Context, file: Path, workspace: Path | None, as_json: bool) -> None:
    """Read an export into a workspace: JSON Lines, or CSV of interactions or samples."""

    def work() -> int:
        path = chosen_workspace(context, workspace)

        async def main() -> int:
            writer = LogWriter(path)
            try:
                if file.suffix.lower() == ".csv":
                    return import_csv(file, writer)
                return transfer.import_jsonl(file, writer)
            finally:
                writer.close()

        rows = run_async(main)
        Printer(as_json).show({"workspace": str(path), "rows": rows}, f"{rows} rows imported.")
        return DONE

    finish(work)


@log.command("verify")
@workspace_option
@json_option
@click.pass_context
def log_verify(context: click.Context, workspace: Path | None, as_json: bool) -> None:
    """Check the log's integrity: every status is explained by its history, nothing dangles."""

    def work() -> int:
        printer = Printer(as_json)
        problems = verify(existing_workspace(context, workspace))
        for problem in problems:
            printer.show(
                {"code": problem.code, "interaction": problem.interaction, "text": problem.text}, problem.text
            )
        printer.show({"problems": len(problems)}, f"{len(problems)} problems found.")
        return FAILED if problems else DONE

    finish(work)


@log.command("push")
@click.argument("url")
@click.option("--follow", is_flag=True, help="Go on with what comes, until interrupted; a database that is away too.")
@click.option(
    "--every", type=click.FloatRange(0.1, 3600), default=PERIOD_S, show_default=True, help="Seconds between, following."
)
@click.option(
    "--batch", type=click.IntRange(1, MOST_BATCH), default=BATCH, show_default=True, help="Rows of one transaction."
)
@workspace_option
@json_option
@click.pass_context
def log_push(
    context: click.Context,
    url: str,
    follow: bool,
    every: float,
    batch: int,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Push samples and interactions to a team's PostgreSQL: postgresql://user@host/database

    Each row is there once, however often this runs or is stopped. The password comes from METERWRIGHT_TEAM_PASSWORD,
    PGPASSWORD or the keyring. Tables are in the schema "meterwright"; samples are a hypertable where TimescaleDB is.
    """

    def work() -> int:
        printer = Printer(as_json)
        address = team_address(url)
        path = existing_workspace(context, workspace)
        driver()  # without it the keyring need not be asked, nor the workspace be given an id
        password = team_password(address, os.environ, KeyringSecrets())
        identity = identity_of(path)
        record: dict[str, Any] = {"workspace": str(path), "workspace_id": identity, "database": address.name}
        if follow:
            status = run_async(lambda: _follow(path, address, password, identity, every, batch, printer))
            done = status.pushed
            record |= {"samples": done.samples, "interactions": done.interactions}
            printer.show(record, f"{done} pushed to {address.name}.")
            return FAILED if status.state is PushState.FAILED else DONE
        done, is_hypertable = push(
            path, address, password, identity, batch=batch, on_progress=_progress(printer), on_notice=printer.note
        )
        record |= {"samples": done.samples, "interactions": done.interactions, "hypertable": is_hypertable}
        printer.show(record, f"{done} pushed to {address.name}; everything is there.")
        return DONE

    finish(work)


def _progress(printer: Printer) -> Callable[[Pushed], None]:
    """Says how far a push is, every few seconds."""
    said = time.monotonic()

    def tell(pushed: Pushed) -> None:
        nonlocal said
        if time.monotonic() - said >= PROGRESS_S:
            said = time.monotonic()
            printer.note(f"{pushed} pushed so far")

    return tell


async def _follow(
    path: Path,
    address: TeamAddress,
    password: str | None,
    identity: str,
    every: float,
    batch: int,
    printer: Printer,
) -> PushStatus:
    """Push until a signal comes, or it cannot go on at all; says when it waits and when everything is there."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    stop_on_signals(stop)
    progress, note = _progress(printer), in_words(printer.note)

    def tell(status: PushStatus) -> None:  # on the push's thread
        note(status)
        if status.state is PushState.PUSHING:
            progress(status.pushed)
        if status.state is PushState.FAILED:
            loop.call_soon_threadsafe(stop.set)

    live = TeamPush(path, address, password, identity, batch=batch, period_s=every, on_status=tell)
    live.start()
    try:
        await stop.wait()
    finally:
        await asyncio.to_thread(live.stop)
    return live.status


@log.command("compare")
@click.argument("one", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--device", "devices", multiple=True, help="Only this one; given twice: that of ONE with that of OTHER.")
@click.option("--interaction", "numbers", multiple=True, type=int, help="Given twice: that of ONE with that of OTHER.")
@click.option("--slower", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds that are told.")
@click.option("--csv", "as_csv", is_flag=True, help="A table with a header on stdout.")
@click.option("--html", "as_html", is_flag=True, help="A page on stdout.")
@json_option
def log_compare(
    one: Path,
    other: Path,
    devices: tuple[str, ...],
    numbers: tuple[int, ...],
    slower: float,
    as_csv: bool,
    as_html: bool,
    as_json: bool,
) -> None:
    """Two logs, devices or readings side by side, aligned by command; only what differs. Exit status 1 when any."""

    def work() -> int:
        if as_csv + as_html + as_json > 1:
            raise ParameterError("Only one of --json, --csv and --html can be given.", "html")
        if len(devices) > 2 or len(numbers) not in (0, 2):
            raise ParameterError("--device is given once or twice, --interaction twice.", "device")
        tolerance = compare.Tolerance(seconds=slower)
        with _reading(one) as first, _reading(other) as second:
            if numbers:
                pair = [_known(log, number) for log, number in zip((first, second), numbers, strict=True)]
                found = iter(compare.compare_interactions(*pair, tolerance=tolerance))
            else:
                named = (devices[0], devices[-1]) if devices else None
                found = compare.compare_logs(first, second, devices=named, tolerance=tolerance)
            if as_csv:
                count = compare.write_csv(sys.stdout, found)
            elif as_html:
                count = compare.write_html(sys.stdout, found, str(one), str(other))
            else:
                count, printer = 0, Printer(as_json)
                for difference in found:
                    printer.show(difference.to_json(), str(difference))
                    count += 1
                printer.show({"differences": count}, f"{count} differences.")
        return FAILED if count else DONE

    finish(work)


def _known(reader: LogReader, number: int) -> Interaction:
    found = reader.interaction(number)
    if found is None:
        raise ParameterError(f"There is no interaction {number} in {reader.path}.", "interaction")
    return found


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--speed", default="inf", show_default=True, help="Times real speed (0.1 to 1000), or inf.")
@click.option("--from", "since", default=None, help="ISO 8601 time to start at.")
@click.option("--to", "until", default=None, help="ISO 8601 time to end at.")
@click.option("--check", "is_check", is_flag=True, help="Say only what differs from the recording; exit 1 if any.")
@json_option
def replay(file: Path, speed: str, since: str | None, until: str | None, is_check: bool, as_json: bool) -> None:
    """Feed a kept log through the pipeline again. Never reaches hardware, never writes to FILE.

    With --check: the bytes of every frame, the end of every command, and what can be read from the bytes once more.
    """

    def work() -> int:
        printer = Printer(as_json)
        if is_check:
            if speed != "inf" or since or until:
                raise ParameterError("--check takes the whole log as fast as possible: leave the others out.", "check")
            return run_async(lambda: _check(file, printer))
        try:
            factor = float(speed)
        except ValueError:
            raise ParameterError(f"--speed must be a number or inf, not {speed!r}.", "speed") from None
        if math.isnan(factor) or not (factor == math.inf or 0.1 <= factor <= 1000):
            raise ParameterError(f"--speed must be between 0.1 and 1000, or inf, not {speed}.", "speed")
        return run_async(lambda: _replay(file, factor, parse_moment(since, "from"), parse_moment(until, "to"), printer))

    finish(work)


async def _check(file: Path, printer: Printer) -> int:
    count = 0
    async for difference in check(file, Registry(), open_reader=_reader_of):
        count += 1
        printer.show({"difference": difference.to_json()}, str(difference))
    printer.show({"differences": count}, f"{count} differences.")
    return FAILED if count else DONE


async def _replay(
    file: Path, speed: float, since: datetime | None, until: datetime | None, printer: Printer
) -> int:
    samples = 0

    def show(change: Change) -> None:
        nonlocal samples
        if isinstance(change, Interaction) and change.is_settled:
            printer.show({"interaction": interaction_json(change)}, interaction_sentence(change))
        elif isinstance(change, SampleSet):
            samples += 1
            if printer.as_json:
                values = {quantity.name: [value, quantity.unit] for quantity, value in change.values}
                printer.show({"sample": {"at": change.received, "device": change.device, "values": values}})

    with contextlib.closing(_reader_of(file)) as reader:
        async with replayed(reader, Registry(), since=since, until=until, speed=speed) as (player, workbench):
            workbench.feed.subscribe(show)
            await player.play_to_end(workbench)
            different = list(player.differences())
    for difference in different:
        printer.note(str(difference))
    printer.show(
        {"played": player.played, "samples": samples, "differences": len(different)},
        f"{player.played} items replayed, {samples} sample sets, {len(different)} differences.",
    )
    return FAILED if different else DONE
