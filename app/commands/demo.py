"""The verb ``demo``: the simulated site and the engine without a window."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click

from app.commands.common import DONE, FAILED, Printer, fail, finish, json_option, run_async
from app.composition import open_session, running
from app.demo import Stop, demo_site, tour
from app.interaction_log.verify import verify
from app.secrets import KeyringSecrets


@click.command()
@click.option("--headless", is_flag=True, help="Without a window (the window: `meterwright --demo`).")
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="Go on measuring this long after the tour.")
@click.option(
    "--workspace", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Keep the log in this file."
)
@json_option
def demo(headless: bool, seconds: float, workspace: Path | None, as_json: bool) -> None:
    """Start the simulated site and the engine, tour every system, print what succeeded."""

    def work() -> int:
        if not headless:
            fail("The window's demo is `meterwright --demo`; without a window: `meterwright demo --headless`.", 2)
        printer = Printer(as_json)
        if workspace is not None:
            return _demo(workspace, seconds, printer)
        with tempfile.TemporaryDirectory() as folder:
            return _demo(Path(folder) / "demo.mwk", seconds, printer)

    finish(work)


def _demo(path: Path, seconds: float, printer: Printer) -> int:
    def show(stop: Stop) -> None:
        word = "ok  " if stop.passed else "FAIL"
        record = {"stop": stop.title, "passed": stop.passed, "text": stop.text, "interaction": stop.interaction}
        printer.show(record, f"{word} {stop.title}: {stop.text}")

    async def main() -> list[Stop]:
        secrets = KeyringSecrets()
        with demo_site(secrets) as site, open_session(path, secrets=secrets) as session:
            for device in site.devices:
                session.workbench.save_device(device)
            async with running(session.workbench):
                stops = await tour(session.workbench, show)
                await asyncio.sleep(seconds)
                return stops

    stops = run_async(main)
    problems = verify(path)
    for problem in problems:
        printer.note(f"The log has a problem: {problem.text}")
    failed = sum(not stop.passed for stop in stops) + len(problems)
    printer.show(
        {"passed": sum(stop.passed for stop in stops), "failed": failed, "workspace": str(path)},
        f"{sum(stop.passed for stop in stops)} of {len(stops)} stops succeeded.",
    )
    return FAILED if failed else DONE
