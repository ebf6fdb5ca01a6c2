"""Run by test_window_screenshots in a process of its own: FILE FOLDER THEME DIRECTION (ltr or rtl)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from PySide6.QtCore import QSettings, Qt, QTimer
from PySide6.QtWidgets import QApplication

from tests.ui.fakes import (
    CURRENT,
    POWER,
    VOLTAGE,
    DirectRunner,
    FakeWorkbench,
    busy,
    heard_and_silent,
    prepaid_site,
)
from tests.ui.stand_ins import StandInPanels, log_at
from ui.main_window import MainWindow, Session
from ui.theme import Theme, ThemeMode


def main() -> int:
    target, folder, mode, direction = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    app = QApplication([])
    if direction == "rtl":
        app.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    theme = Theme(app, ThemeMode(mode))
    theme.install()
    workbench = FakeWorkbench(prepaid_site())
    session = Session(workbench=workbench, log=log_at(folder / "bench.mwk"), title="bench.mwk")
    settings = QSettings(str(folder / "window.ini"), QSettings.Format.IniFormat)
    window = MainWindow(theme, settings, DirectRunner(), session, panels=StandInPanels())
    window.resize(1280, 720)
    window.show()
    window.build_now()
    busy(workbench)
    heard_and_silent(workbench)
    workbench.fake_clock.move(180)
    workbench.measure("lem-1", (POWER, "49.7"), (VOLTAGE, "398.2"), (CURRENT, "124.4"))
    window.show_device("lem-1")
    assert window.devices is not None
    window.devices.model.age()

    def shoot() -> None:
        window.grab().save(str(target))
        window.allow_close()
        window.close()
        app.quit()

    QTimer.singleShot(400, shoot)
    return app.exec()


if __name__ == "__main__":
    sys.exit(main())
