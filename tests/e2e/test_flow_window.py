"""A flow in the window, from the demo site to the report: real widgets, a real workbench, a simulated meter."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog

from app.model.flow import RunStatus, StepStatus
from tests.e2e.test_window import AtDesk, at_desk, pressed, ready, shown, until
from ui.__main__ import Desk
from ui.dialogs.confirm import Question
from ui.models.flow_run import is_asked

__all__ = ["at_desk"]  # a fixture

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)


@pytest.mark.slow
def test_the_shipped_flow_of_a_meter_and_its_report(at_desk: AtDesk, tmp_path: Path) -> None:
    pdf, artifacts = tmp_path / "report.pdf", tmp_path

    async def act(desk: Desk) -> None:
        window = desk.window
        workbench = (await ready(desk)).workbench
        meter = next(one for one in workbench.devices() if one.adapter == "iec62056")
        window.show_device(meter.id)
        window.verbs.action("device.commission").trigger()
        panel = window.flows
        assert panel is not None
        assert panel.device is not None
        page = panel.start_page
        await asyncio.sleep(0.2)
        assert window.grab().save(str(artifacts / "flow-window-start.png"))
        for one in page.fields:
            if one.spec.required and one.raw() is None:
                one.set_value("COMMISSIONING-1")
        page.header["engineer"].setText("A. Engineer")
        pressed(page.start)
        await until(lambda: panel.run is not None or shown(window, Question))
        if shown(window, Question):
            pressed(shown(window, Question).go)
        await until(lambda: panel.run is not None)
        number = panel.run.id if panel.run is not None else 0

        def run() -> RunStatus:
            found = workbench.flow_run(number)
            assert found is not None
            return found.status

        while True:
            await until(lambda: run() is not RunStatus.RUNNING)
            if run() is not RunStatus.WAITING:
                break
            await until(lambda: panel.run is not None and panel.run.status is RunStatus.WAITING)
            present = panel.run
            assert present is not None
            assert panel.run_page.spec is not None
            step = next(step for step in present.steps if step.status is StepStatus.WAITING)
            spec = panel.run_page.spec.step(step.name)
            assert window.grab().save(str(artifacts / f"flow-window-{step.name}.png"))
            assert spec is not None
            if not is_asked(step, spec):
                panel.run_page.reason.setText("The simulated meter does so.")
                pressed(panel.run_page.accept)
            else:
                check = panel.run_page.check
                if check.field is not None:
                    check.field.set_value(1)
                check.note.setPlainText("Seen.")
                pressed(check.yes if check.field is None else check.keep)
            await until(partial(_is_past, desk, number, step.name))
        await until(lambda: panel.run is not None and not panel.run.is_open)
        assert window.grab().save(str(artifacts / "flow-window-passed.png"))
        assert (run(), panel.run_page.sentence.text()[:9]) == (RunStatus.PASSED, "Passed in")
        window.verbs.action("flow.report").trigger()
        dialog = shown(window, QFileDialog)
        dialog.fileSelected.emit(str(pdf))
        dialog.close()
        await until(pdf.exists)

    at_desk(act, demo=True)
    assert pdf.read_bytes().startswith(b"%PDF")


def _is_past(desk: Desk, run: int, name: str) -> bool:
    """Whether a step waits no more."""
    session = desk.window.session
    assert session is not None
    found = session.workbench.flow_run(run)
    assert found is not None
    return all(step.status is not StepStatus.WAITING for step in found.steps if step.name == name)
