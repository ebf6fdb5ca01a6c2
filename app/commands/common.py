"""What all verbs share: output as sentences or JSON lines, exit statuses, the workspace option."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from app.config import Profile, profile
from app.errors import ConfigError, FilterError, LinkError, ParameterError, WorkbenchError, unwrap
from app.model.interaction import Interaction, StepEntry
from app.model.jsonable import jsonable

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
NOT_REACHABLE: Final = 3
LINK_CODES: Final = frozenset(
    {"LINK_DOWN", "DISCONNECTED", "LINK_REFUSED", "LINK_UNREACHABLE", "LINK_SILENT", "LINK_TLS"}
)


class Printer:
    """One JSON object a line on stdout, or sentences; messages always go to stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, record: dict[str, Any], sentence: str | None = None) -> None:
        if self.as_json:
            print(json.dumps(jsonable(record), ensure_ascii=False), flush=True)
        elif sentence is not None:
            print(printable(sentence), flush=True)

    @staticmethod
    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """What a device said must not steer the terminal: control characters stand there as their symbols."""
    plain = text.replace("\r\n", "\n")
    shown = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), plain)
    return re.sub(r"[\x7f-\x9f]", "\N{SYMBOL FOR DELETE}", shown)


def fail(text: str, status: int = FAILED) -> NoReturn:
    """End with a sentence on stderr."""
    print(text, file=sys.stderr, flush=True)
    raise SystemExit(status)


def status_of(error: BaseException) -> int:
    """Exit status of an expected failure."""
    if isinstance(error, (ParameterError, ConfigError, FilterError)):
        return WRONG_USE
    if isinstance(error, LinkError):
        return NOT_REACHABLE
    return FAILED


def finish(work: Callable[[], int | None]) -> NoReturn:
    """Run a verb; expected failures become a sentence and an exit status, everything else is a bug and shows itself."""
    try:
        status = work()
    except WorkbenchError as exc:
        fail(str(exc), status_of(exc))
    except BaseExceptionGroup as group:
        error = unwrap(group)
        if error is None:
            raise
        fail(str(error), status_of(error))
    except KeyboardInterrupt:
        fail("Stopped.", 130)
    except BrokenPipeError:
        raise SystemExit(DONE) from None  # the reader of our output has gone: nothing to complain about
    raise SystemExit(status or DONE)


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(main())


def on_signals(call: Callable[[], object]) -> None:
    """Ctrl-C and SIGTERM make the loop call ``call``."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: KeyboardInterrupt does it
            loop.add_signal_handler(number, call)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Ctrl-C and SIGTERM set ``stop``."""
    on_signals(stop.set)


def workspace_option(function: F) -> F:
    return click.option(
        "--workspace",
        "workspace",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The workspace file (*.mwk). Without it: the profile's own.",
    )(function)


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")(function)


def profile_option(function: F) -> F:
    return click.option(
        "--profile",
        "profile_dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Keep settings and data below this folder.",
    )(function)


def chosen_profile(context: click.Context) -> Profile:
    return profile(context.obj.get("profile") if isinstance(context.obj, dict) else None)


def chosen_workspace(context: click.Context, given: Path | None) -> Path:
    return given if given is not None else chosen_profile(context).make().default_workspace


def existing_workspace(context: click.Context, given: Path | None) -> Path:
    """The workspace, which must exist.

    Raises:
        ConfigError: there is none yet, and how to get one.
    """
    path = chosen_workspace(context, given)
    if not path.exists():
        raise ConfigError(
            "there is no such workspace. Import a site first: meterwright site import SITE.toml --workspace FILE",
            file=str(path),
        )
    return path


def interaction_json(interaction: Interaction, steps: list[StepEntry] | None = None) -> dict[str, Any]:
    """An interaction as the command line shows it; times are ISO 8601 UTC."""
    failure = interaction.failure
    record: dict[str, Any] = {
        "id": interaction.id,
        "device": interaction.device,
        "adapter": interaction.adapter,
        "command": interaction.command,
        "kind": interaction.kind,
        "status": interaction.status,
        "origin": interaction.origin,
        "params": dict(interaction.params),
        "result": interaction.result,
        "failure": None
        if failure is None
        else {
            "code": failure.code,
            "text": failure.text,
            "release": failure.release,
            "final": failure.is_final,
            "at": failure.at,
        },
        "attempts": interaction.attempts,
        "priority": interaction.priority,
        "created": interaction.created,
        "finished": interaction.finished,
    }
    for name in ("followup_of", "commissioning", "batch", "order", "replay_of"):
        if getattr(interaction, name) is not None:
            record[name] = getattr(interaction, name)
    if steps is not None:
        record["steps"] = [step_json(line) for line in steps]
    return record


def step_json(line: StepEntry) -> dict[str, Any]:
    record: dict[str, Any] = {"step": int(line.step), "at": line.at, "event": line.event}
    for name in ("status", "code", "text", "attempt"):
        if getattr(line, name):
            record[name] = getattr(line, name)
    return record


def interaction_sentence(interaction: Interaction) -> str:
    """One line a person reads."""
    text = f"#{interaction.id} {interaction.command} on {interaction.device}: {interaction.status}"
    if interaction.failure is not None:
        text += f". {interaction.failure.text} {interaction.failure.release}".rstrip()
    return text


def interaction_text(interaction: Interaction) -> str:
    """That line, and below it what the device answered."""
    lines = [interaction_sentence(interaction)]
    lines += [f"  {name}: {value}" for name, value in (interaction.result or {}).items()]
    return "\n".join(lines)


def parse_moment(text: str | None, name: str) -> datetime | None:
    """An ISO 8601 time with zone, from an option."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(f"{name} must be an ISO 8601 time, not {text!r}.", name) from None
    if moment.tzinfo is None:
        raise ParameterError(f"{name} needs a time zone, for example {text}Z.", name)
    return moment
