"""Verbs that need no device: explain, conformance, ocmf, sim, doctor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from app.clock import SystemClock
from app.commands.common import (
    DONE,
    FAILED,
    Printer,
    existing_workspace,
    fail,
    finish,
    json_option,
    run_async,
    stop_on_signals,
    workspace_option,
)
from app.errors import ConfigError, ParameterError
from app.model.interaction import Frame

MAX_INPUT = 64 << 20


@click.command()
@click.option("--interaction", "number", type=int, default=None, help="Explain this one of a log, not stdin.")
@workspace_option
@json_option
@click.pass_context
def explain(context: click.Context, number: int | None, workspace: Path | None, as_json: bool) -> None:
    """Gatekeeper inputs as JSON on stdin -> verdict, code, reason, and what would release it.

    With --interaction: every verdict that the log keeps of it, rule by rule: the rules of today on what was recorded.
    Its "inputs" (--json) can be given on stdin again.
    """

    def work() -> int:
        if number is not None:
            return _explain_recorded(existing_workspace(context, workspace), number, Printer(as_json))
        from app.pipeline.gatekeeper import adjudicate, gate_input_from_json, trace

        gate = gate_input_from_json(_parse_json(sys.stdin.read(MAX_INPUT), "stdin"), SystemClock().now())
        verdict = adjudicate(gate)
        record = {**verdict.to_json(), "rules": trace(gate)}
        said = f"{verdict.status}"
        if verdict.code:
            said += f" {verdict.code}: {verdict.text}"
        if verdict.release:
            said += f"\nReleased when: {verdict.release}"
        Printer(as_json).show(record, said)
        return DONE

    finish(work)


def _explain_recorded(file: Path, number: int, printer: Printer) -> int:
    from app.interaction_log.open_any import open_for_reading
    from app.pipeline.explaining import judgements

    opened = open_for_reading(file)
    with contextlib.closing(opened.reader):
        for note in opened.notes:
            printer.note(note)
        story = opened.reader.story(number)
    if story is None:
        raise ParameterError(f"There is no interaction {number} in {file}.", "interaction")
    found = judgements(story.interaction, story.steps)
    if not found:
        printer.note(f"The log keeps no verdict of interaction {number}.")
    for one in found:
        lines = [f"{one.at:%Y-%m-%d %H:%M:%S} {one.status} {one.code} {one.text}".rstrip()]
        for rule in one.rules:
            applies = rule["applies"]
            saw = f": {rule['saw']}" if rule.get("saw") else ""
            lines.append(f"  {'?' if applies is None else 'yes' if applies else 'no':3} {rule['rule']}{saw}")
        printer.show(one.to_json(), "\n".join([*lines, f"  {one.note}"] if one.note else lines))
    return DONE


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def conformance(file: Path, as_json: bool) -> None:
    """Run the vectors of FILE against the codecs."""

    def work() -> int:
        from app.protocols.conformance import run

        report = run(_parse_json(_read_text(file), str(file)))
        printer = Printer(as_json)
        for failure in report.failures:
            printer.show({"id": failure.id, "failed": str(failure)}, str(failure))
        printer.show(
            {"passed": report.passed, "failed": report.failed}, f"{report.passed} passed, {report.failed} failed"
        )
        return DONE if report.failed == 0 and report.passed > 0 else FAILED

    finish(work)


@click.group()
def ocmf() -> None:
    """Signed records."""


@ocmf.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--public-key", "public_key", default=None, help="The key in any form, or @FILE.")
@json_option
def ocmf_verify(file: Path, public_key: str | None, as_json: bool) -> None:
    """Verdict on the signed record in FILE ("-": stdin)."""

    def work() -> int:
        from app.protocols.ocmf import KeyOrigin, Verdict, verify

        data = sys.stdin.buffer.read(MAX_INPUT) if str(file) == "-" else _read_bytes(file)
        key = public_key
        if key is not None and key.startswith("@"):
            key = _read_text(Path(key[1:]))
        result = verify(data, key, origin=KeyOrigin.PRINTED)
        record = result.to_json()
        lines = [f"{result.verdict.value}: {result.sentence}"]
        lines += [f"  {name}: {value}" for name, value in record.items() if name not in ("verdict", "sentence")]
        Printer(as_json).show(record, "\n".join(lines))
        return DONE if result.verdict is Verdict.VALID else FAILED

    finish(work)


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("name")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 chooses a free one.")
@click.option("--pty", is_flag=True, help="Listen on a pseudo terminal instead of a port.")
@click.option("--fault", "faults", multiple=True, metavar="NAME[=VALUE]", help="Misbehave; may be given several times.")
@click.option("--seed", type=int, default=0, help="Seed of everything random in it.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A setting of the simulator.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="`recorded`: the log it answers from.")
@click.option("--device", default="", metavar="ID", help="`recorded`: the device of that log it stands in for.")
@json_option
def sim(
    name: str,
    port: int,
    pty: bool,
    faults: tuple[str, ...],
    seed: int,
    extra: tuple[str, ...],
    log_file: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Run simulator NAME by itself, or `list` what there is. The first line says where it listens.

    `recorded` makes a device of a kept log (--log FILE --device ID), with what stands below it in the tree: a live
    connection gets the recorded answers.
    """

    def work() -> int:
        from app.simulators.catalog import CATALOG, RECORDED, SimOptions, find, listing

        if name == "list":
            if not as_json:
                print("\n".join(listing()))
                return DONE
            for entry in CATALOG.values():
                record = {"sim": entry.name, "title": entry.title, "help": entry.help}
                Printer(as_json).show({**record, "faults": dict(entry.fault_table())})
            return DONE
        entry = find(name)
        given = _pairs(extra)
        if pty and not entry.has_line:
            fail(f"The simulator {name} speaks over TCP, not over a pseudo terminal.", 2)
        if pty:
            given["link"] = "pty"
        if (name == RECORDED) is not (log_file is not None and bool(device)):
            fail(f"--log FILE and --device ID belong to the simulator {RECORDED}, and it needs both.", 2)
        frames: tuple[Frame, ...] = ()
        if log_file is not None:
            from app.commands.recorded import recorded_device

            recorded = recorded_device(log_file, device)
            for note in recorded.notes:
                Printer.note(note)
            given.setdefault("serial", recorded.serial)
            frames = recorded.frames
        options = SimOptions(port=port, faults=faults, seed=seed, extra=given, frames=frames)
        serve = entry.load()

        def announce(record: dict[str, object]) -> None:
            print(json.dumps(record), flush=True)

        async def main() -> None:
            stop = asyncio.Event()
            stop_on_signals(stop)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(serve(options, announce))
                waiter = group.create_task(stop.wait())
                await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
                task.cancel()
                waiter.cancel()

        run_async(main)
        return DONE

    finish(work)


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine: Qt libraries, serial ports and permissions, keyring, clock, writable folders."""

    def work() -> int:
        from app.doctor import run_checks

        printer = Printer(as_json)
        bad = 0
        for check in run_checks():
            bad += check.verdict == "bad"
            said = f"{check.verdict:8} {check.name}: {check.text}"
            if check.fix:
                said += f"\n         {check.fix}"
            printer.show({"check": check.name, "verdict": check.verdict, "text": check.text, "fix": check.fix}, said)
        return FAILED if bad else DONE

    finish(work)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} stands there", key="--set", expected="NAME=VALUE")
        pairs[key] = value
    return pairs


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_INPUT:
            raise ConfigError("is larger than 64 MiB", file=str(path))
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", file=str(path)) from None


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"is not UTF-8 text (byte {exc.start})", file=str(path)) from None


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"is not JSON: {exc}", file=where) from None
