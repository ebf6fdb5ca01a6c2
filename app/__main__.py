"""``python -m app``: the core without a window. Same verbs as ``meterwright VERB`` (design.md section 5)."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from app.commands.common import profile_option

# verb -> (module, object); imported on use, so that `--help` and a broken extra cost nothing
VERBS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("app.commands.demo", "demo"),
    "site": ("app.commands.field", "site"),
    "devices": ("app.commands.field", "devices"),
    "commands": ("app.commands.field", "commands"),
    "send": ("app.commands.field", "send"),
    "cancel": ("app.commands.cancel", "cancel"),
    "put-back": ("app.commands.put_back", "put_back"),
    "run": ("app.commands.field", "run"),
    "watch": ("app.commands.field", "watch"),
    "commission": ("app.commands.flows", "commission"),
    "batch": ("app.commands.batch", "batch"),
    "flow": ("app.commands.flow_runs", "flow"),
    "report": ("app.commands.flow_runs", "report"),
    "order": ("app.commands.flows", "order"),
    "issues": ("app.commands.flows", "issues"),
    "reconcile": ("app.commands.flows", "reconcile"),
    "log": ("app.commands.share", "log"),
    "replay": ("app.commands.logs", "replay"),
    "explain": ("app.commands.tools", "explain"),
    "conformance": ("app.commands.tools", "conformance"),
    "ocmf": ("app.commands.tools", "ocmf"),
    "sim": ("app.commands.tools", "sim"),
    "doctor": ("app.commands.tools", "doctor"),
}


SWITCH_S: Final = 0.001  # the loop and the writer thread take turns quickly (perf-baselines section 3)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = VERBS.get(cmd_name)
        if found is None:
            return None
        command: Any = getattr(import_module(found[0]), found[1])
        return command if isinstance(command, click.Command) else None


@click.group(
    cls=_LazyGroup,
    help="""Meterwright, the open bench for smart meters.

    \b
    Without a verb it opens the window:
      meterwright [FILE.mwk] [--demo] [--replay LOG.mwk] [--profile DIR]
    With a verb it runs headless:
      meterwright [--profile DIR] VERB ...""",
    epilog="Exit status: 0 done, 1 the command or check failed, 2 wrong use, 3 not reachable.",
)
@profile_option
@click.option("--verbose", "-v", count=True, help="Say more on stderr; twice shows the wire.")
@click.version_option(package_name="meterwright")
@click.pass_context
def main(context: click.Context, profile_dir: Path | None, verbose: int) -> None:
    """Entry of every verb."""
    sys.setswitchinterval(SWITCH_S)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    context.obj = {**(context.obj or {}), "profile": profile_dir}  # beside what the window's program gave along


if __name__ == "__main__":
    main(prog_name="meterwright")
