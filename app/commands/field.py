"""Verbs that talk to devices: site, devices, commands, send, run, watch."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from app.adapters.registry import Registry
from app.commands.cancel import ACTOR, ANSWER_S, Followed, show_story, status_of_interaction
from app.commands.common import (
    DONE,
    NOT_REACHABLE,
    Printer,
    chosen_workspace,
    existing_workspace,
    finish,
    interaction_json,
    interaction_sentence,
    json_option,
    on_signals,
    run_async,
    stop_on_signals,
    workspace_option,
)
from app.composition import Session, open_session, running, team_link
from app.errors import ConfigError, ParameterError, StoreError
from app.interaction_log.reader import LogReader
from app.model.command import CommandSpec, ParamSpec, Risk
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import Finding, SampleSet
from app.model.records import Change
from app.model.status import PENDING, Status
from app.site_file import read_site, write_site
from app.team.live import in_words
from app.workbench import Workbench

# ---------------------------------------------------------------- site


@click.group()
def site() -> None:
    """The device tree, in and out."""


@site.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@workspace_option
@json_option
@click.pass_context
def site_import(context: click.Context, file: Path, workspace: Path | None, as_json: bool) -> None:
    """Read a device tree from TOML or CSV into the workspace."""

    def work() -> int:
        devices = read_site(file, Registry())
        printer = Printer(as_json)
        with open_session(chosen_workspace(context, workspace)) as session:
            for device in devices:
                session.workbench.save_device(device)
        record = {"imported": len(devices), "devices": [device.id for device in devices]}
        printer.show(record, f"{len(devices)} devices imported.")
        return DONE

    _finish_with_loop(work)


@site.command("export")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@workspace_option
@click.pass_context
def site_export(context: click.Context, file: Path | None, workspace: Path | None) -> None:
    """Write the device tree as TOML (to FILE, or to stdout)."""

    def work() -> int:
        text = write_site(_snapshot_devices(existing_workspace(context, workspace)))
        if file is None:
            print(text, end="")
            return DONE
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise ConfigError(f"cannot be written: {exc.strerror}", file=str(file)) from None
        return DONE

    finish(work)


@site.command("show")
@workspace_option
@json_option
@click.pass_context
def site_show(context: click.Context, workspace: Path | None, as_json: bool) -> None:
    """Print the device tree."""
    finish(lambda: _show_devices(existing_workspace(context, workspace), Printer(as_json), tree=True))


@site.command("switch")
@click.argument("device")
@click.argument("way")
@workspace_option
@json_option
@click.pass_context
def site_switch(context: click.Context, device: str, way: str, workspace: Path | None, as_json: bool) -> None:
    """Reach DEVICE by another WAY from now on.

    `site show` names the ways of each device. It is refused while commands of the device are not finished.
    """

    def work() -> int:
        with open_session(existing_workspace(context, workspace)) as session:
            session.workbench.switch(device, way)
            node = session.workbench.device(device)
        record = {"device": node.id, "way": node.route, "ways": list(node.ways), "adapter": node.adapter}
        Printer(as_json).show(record, f"{node.name} is reached {node.route} ({node.adapter}) from now on.")
        return DONE

    _finish_with_loop(work)


@click.command()
@workspace_option
@json_option
@click.pass_context
def devices(context: click.Context, workspace: Path | None, as_json: bool) -> None:
    """What is there."""
    finish(lambda: _show_devices(existing_workspace(context, workspace), Printer(as_json), tree=False))


def _snapshot_devices(path: Path) -> list[Device]:
    with contextlib.closing(LogReader(path)) as reader:
        return sorted(reader.snapshot().devices, key=lambda device: (device.position, device.id))


def _nested(nodes: list[Device]) -> list[tuple[int, Device]]:
    """Every node below its parent, wherever it was put in, and how deep it stands."""
    known = {node.id for node in nodes}
    below: dict[str, list[Device]] = {}
    for node in nodes:
        below.setdefault(node.parent if node.parent in known else "", []).append(node)
    shown: list[tuple[int, Device]] = []
    waiting = [(0, node) for node in reversed(below.get("", []))]
    while waiting:
        depth, node = waiting.pop()
        shown.append((depth, node))
        waiting += [(depth + 1, child) for child in reversed(below.get(node.id, []))]
    return shown


def _show_devices(path: Path, printer: Printer, *, tree: bool) -> int:
    with contextlib.closing(LogReader(path)) as reader:
        snapshot = reader.snapshot()
    states = {state.device: state for state in snapshot.states}
    nodes = sorted(snapshot.devices, key=lambda device: (device.position, device.id))
    for depth, device in _nested(nodes) if tree else [(0, device) for device in nodes]:
        state = states.get(device.id)
        seen = state.last_contact if state is not None else None
        record = {
            "id": device.id,
            "name": device.name,
            "kind": device.kind,
            "parent": device.parent,
            "adapter": device.adapter,
            "serial": device.serial,
            "enabled": device.enabled,
            "last_contact": seen,
            "facts": dict(state.facts) if state is not None else {},
        }
        if device.ways:
            record |= {"way": device.route, "ways": list(device.ways)}
        indent = "  " * depth
        contact = f", last contact {seen:%Y-%m-%d %H:%M:%S} UTC" if seen is not None else ""
        others = f", else {', '.join(device.ways[1:])}" if device.ways else ""
        way = f" {device.route}{others}" if device.ways else ""
        off = ", off" if not device.enabled else ""
        how = f" ({device.adapter}{way}{off}{contact})" if device.adapter else ""
        printer.show(record, f"{indent}{device.id}: {device.name}{how}")
    if not nodes and not printer.as_json:
        printer.note("The tree is empty. Import a site: meterwright site import SITE.toml")
    return DONE


@click.command()
@click.argument("device")
@workspace_option
@json_option
@click.pass_context
def commands(context: click.Context, device: str, workspace: Path | None, as_json: bool) -> None:
    """What DEVICE can do, with parameters, units, limits and risk."""

    def work() -> int:
        printer = Printer(as_json)
        with contextlib.closing(LogReader(existing_workspace(context, workspace))) as reader:
            snapshot = reader.snapshot()
        nodes = {node.id: node for node in snapshot.devices}
        if device not in nodes:
            raise ParameterError(f"There is no device {device!r}; there are: {', '.join(nodes) or 'none'}.", "device")
        node = nodes[device]
        if not node.adapter:
            raise ParameterError(f"{node.name} is a {node.kind}; it has no adapter and takes no commands.", "device")
        adapter_type = Registry()[node.adapter]
        facts: Mapping[str, Any] = next((state.facts for state in snapshot.states if state.device == device), {})
        for spec in adapter_type.commands(node, facts):
            printer.show(_spec_json(spec), _spec_text(spec))
        for name, reason in adapter_type.unsupported(node, facts).items():
            printer.show({"command": name, "unsupported": reason}, f"{name}: not on this device: {reason}")
        return DONE

    finish(work)


def _spec_json(spec: CommandSpec) -> dict[str, Any]:
    return {
        "command": spec.name,
        "title": spec.title,
        "kind": spec.kind,
        "risk": spec.risk.name.lower(),
        "resend": spec.resend,
        "replies": spec.pattern,
        "help": spec.help,
        "params": [_param_json(param) for param in spec.params],
    }


def _param_json(param: ParamSpec) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": param.name,
        "title": param.title,
        "type": param.type,
        "required": param.required and param.default is None,
    }
    for name in ("unit", "default", "minimum", "maximum", "max_bytes", "help"):
        value = getattr(param, name)
        if value not in (None, ""):
            record[name] = value
    if param.choices:
        record["choices"] = [[key, title] for key, title in param.choices]
    return record


def _spec_text(spec: CommandSpec) -> str:
    lines = [f"{spec.name}  [{spec.kind.value}, risk {spec.risk.name.lower()}]  {spec.title}"]
    for param in spec.params:
        limits = []
        if param.minimum is not None or param.maximum is not None:
            low, high = ("" if bound is None else str(bound) for bound in (param.minimum, param.maximum))
            limits.append(f"{low}..{high}")
        if param.unit:
            limits.append(param.unit)
        if param.max_bytes is not None:
            limits.append(f"at most {param.max_bytes} bytes")
        if param.choices:
            limits.append("one of " + ", ".join(str(key) for key, _title in param.choices))
        if not param.required or param.default is not None:
            limits.append("optional" if param.default is None else f"default {param.default}")
        lines.append(f"    {param.name} ({param.type.value}{': ' + '; '.join(limits) if limits else ''}) {param.title}")
    return "\n".join(lines)


# ---------------------------------------------------------------- send


@click.command()
@click.argument("device")
@click.argument("command")
@click.argument("assignments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait."
)
@click.option("--yes", is_flag=True, help="Answer the question that a command with an effect asks.")
@click.option("--force", is_flag=True, help="Do not wait for the end of a commissioning.")
@click.option("--leave", is_flag=True, help="Do not call back what a service has taken when nobody waits any longer.")
@workspace_option
@json_option
@click.pass_context
def send(
    context: click.Context,
    device: str,
    command: str,
    assignments: tuple[str, ...],
    wait_s: float,
    yes: bool,
    force: bool,
    leave: bool,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Send one COMMAND to DEVICE through all fourteen steps, and print the interaction.

    After --wait seconds, or with Ctrl-C, a command that still waits here is cancelled. A service that keeps commands
    for its devices (a head-end may need hours) is asked to give it back, and what comes of that is awaited for a few
    seconds; a second Ctrl-C ends that too.

    For a command that may take long, wait longer (--wait 18000), or leave it with the service: with --leave, and
    wherever it is not given back, its answer is taken in by the next `run` or window. `log show ID` shows it, and
    `cancel ID` calls it back.

    Exit status: 0 the device did it, 1 it did not, or nobody knows yet, 3 the device is not reachable.
    """

    def work() -> int:
        params = _assignments(assignments)
        printer = Printer(as_json)
        path = existing_workspace(context, workspace)
        number, status = run_async(
            lambda: _send(path, device, command, params, wait_s, yes, force, leave, printer)
        )
        show_story(path, number, printer)
        return status

    finish(work)


def _assignments(texts: tuple[str, ...]) -> dict[str, str]:
    params: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ParameterError(f"{text!r} is not of the form name=value.", name)
        if name in params:
            raise ParameterError(f"{name} is given twice.", name)
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                raise ParameterError(f"{name}: the file {value[1:]} cannot be read ({exc}).", name) from None
        params[name] = value
    return params


def _confirm(session: Session, device: str, spec: CommandSpec, params: dict[str, str]) -> bool:
    """Ask on the terminal; True when the person agrees."""
    node = session.workbench.device(device)
    said = ", ".join(f"{name} = {value}" for name, value in params.items())
    return agreed(node, spec, f"{spec.title} on {node.name}{' with ' + said if said else ''}?")


def agreed(node: Device, spec: CommandSpec, question: str) -> bool:
    """Whether the person at the terminal says yes; the top tier asks for the serial number."""
    if spec.warning:
        question = f"{spec.warning}\n{question}"
    if spec.risk is Risk.TOP and node.serial:
        print(f"{question}\nType the serial number of {node.name} to go on: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() == node.serial
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _send(
    path: Path,
    device: str,
    command: str,
    params: dict[str, str],
    wait_s: float,
    yes: bool,
    force: bool,
    leave: bool,
    printer: Printer,
) -> tuple[int, int]:
    with open_session(path) as session:
        workbench = session.workbench
        spec = next((spec for spec in workbench.commands(device) if spec.name == command), None)
        if spec is not None and spec.risk >= Risk.WRITE and not yes:
            if not sys.stdin.isatty():
                raise ParameterError(
                    f"{command} changes something on {device}. Confirm with --yes; there is nobody to ask here.", "yes"
                )
            if not _confirm(session, device, spec, params):
                raise ParameterError(f"{command} was not sent: nobody confirmed it.", "yes")
        async with running(workbench):
            number = workbench.submit(device, command, params, force=force, actor=ACTOR)
            return number, await to_the_end(workbench, number, wait_s, leave, printer)


async def to_the_end(workbench: Workbench, number: int, wait_s: float, leave: bool, printer: Printer) -> int:
    """Follow a command that was given; returns the exit status."""
    followed = Followed(workbench, number)
    on_signals(followed.stop)
    await followed.until(lambda: followed.is_ended or followed.stops > 0, wait_s)
    present = followed.present
    if present is None:
        raise StoreError(f"Interaction {number} was not taken in; the workspace cannot be written.")
    status = status_of_interaction(present)
    if not present.is_settled:
        since = "It was stopped" if followed.stops else f"No answer came in {wait_s:g} s"
        await _give_up(followed, present, since, leave, printer)
        present = followed.present or present
        status = DONE if present.status is Status.SUCCESSFUL else status
    return status


async def _give_up(followed: Followed, present: Interaction, since: str, leave: bool, printer: Printer) -> None:
    """Nobody waits any longer: what waits here is cancelled, what a service has is called back unless it is left."""
    later = f"What comes of it is taken in by the next run or window on this workspace; see log show {present.id}."
    if leave and present.status is Status.PROCESSING:
        printer.note(f"{since}; it is left where it is. {later}")
        return
    if present.status in PENDING:
        printer.note(f"{since}; it still waits and is cancelled, so that it does not leave later.")
    else:
        printer.note(f"{since}; it is called off.")
    reason = await followed.call_off(ANSWER_S)
    if reason:
        printer.note(f"{reason} {later}")
    elif followed.present is not None and followed.present.status is Status.SUCCESSFUL:
        printer.note("Its answer came in the meantime.")


# ---------------------------------------------------------------- run, watch


@click.command()
@click.option("--seconds", type=click.FloatRange(min=0), default=None, help="Stop after this long.")
@workspace_option
@json_option
@click.pass_context
def run(context: click.Context, seconds: float | None, workspace: Path | None, as_json: bool) -> None:
    """Run the engine and its listeners without a window, until interrupted."""

    def work() -> int:
        path = existing_workspace(context, workspace)
        printer = Printer(as_json)

        async def main() -> None:
            with open_session(path) as session, team_link(session, in_words(printer.note)):

                def show(change: Change) -> None:
                    if isinstance(change, Interaction) and change.is_settled:
                        printer.show({"interaction": interaction_json(change)}, interaction_sentence(change))
                    elif isinstance(change, Finding):
                        printer.show({"finding": _finding_json(change)}, f"{change.device}: {change.text}")

                session.workbench.feed.subscribe(show)
                async with running(session.workbench):
                    printer.note(f"Running on {path}. Ctrl-C stops.")
                    await _until_stopped(seconds)

        run_async(main)
        return DONE

    finish(work)


@click.command()
@click.argument("device")
@click.argument("quantities", nargs=-1)
@click.option("--seconds", type=click.FloatRange(min=0), default=None, help="Stop after this long.")
@click.option("--count", type=click.IntRange(min=1), default=None, help="Stop after this many lines.")
@workspace_option
@json_option
@click.pass_context
def watch(
    context: click.Context,
    device: str,
    quantities: tuple[str, ...],
    seconds: float | None,
    count: int | None,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Live readings of DEVICE, one a line."""

    def work() -> int:
        path = existing_workspace(context, workspace)
        printer = Printer(as_json)
        lines = run_async(lambda: _watch(path, device, quantities, seconds, count, printer))
        return DONE if lines else NOT_REACHABLE

    finish(work)


async def _watch(
    path: Path, device: str, quantities: tuple[str, ...], seconds: float | None, count: int | None, printer: Printer
) -> int:
    with open_session(path) as session:
        session.workbench.device(device)
        enough = asyncio.Event()
        lines = 0

        def show(change: Change) -> None:
            nonlocal lines
            if isinstance(change, Finding) and change.device == device:
                printer.note(change.text)
            if not isinstance(change, SampleSet) or change.device != device:
                return
            for quantity, value in change.values:
                if (quantities and quantity.name not in quantities) or enough.is_set():
                    continue
                lines += 1
                record = {
                    "at": change.received,
                    "device": device,
                    "quantity": quantity.name,
                    "value": value,
                    "unit": quantity.unit,
                    "meter_time": change.meter_time_text or change.meter_time,
                }
                printer.show(record, f"{change.received:%H:%M:%S.%f} {quantity.name} {value} {quantity.unit}")
                if count is not None and lines >= count:
                    enough.set()

        session.workbench.feed.subscribe(show)
        async with running(session.workbench):
            await _until_stopped(seconds, enough)
        if not lines:
            state = session.workbench.state(device)
            printer.note(f"No reading came from {device}. {state.link_text}".rstrip())
        return lines


async def _until_stopped(seconds: float | None, enough: asyncio.Event | None = None) -> None:
    stop = enough or asyncio.Event()
    stop_on_signals(stop)
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "at": finding.at,
        "device": finding.device,
        "severity": finding.severity,
        "code": finding.code,
        "text": finding.text,
        "cleared": finding.cleared,
    }


def _finish_with_loop(work: Any) -> None:
    """The writer's commits need a running loop even where nothing else does."""

    async def main() -> int:
        return int(work())

    finish(lambda: run_async(main))
