"""Process start to the first painted window, against a bare PySide6 window with tree, table and docks; memory at that
moment. ``python -m tests.bench.bench_start [--quick] [--rows N]`` prints one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
QUICK = "--quick" in sys.argv
ROWS = int(sys.argv[sys.argv.index("--rows") + 1]) if "--rows" in sys.argv else 1_000_000

BARE = """
import resource, sys, time
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QApplication, QDockWidget, QMainWindow, QTableView, QTabWidget, QTreeView
app = QApplication([])
app.setStyle("Fusion")
class W(QMainWindow):
    def paintEvent(self, event):
        super().paintEvent(event)
        QTimer.singleShot(0, self.done)
    def done(self):
        print(time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
        app.quit()
w = W()
def model(columns):
    m = QStandardItemModel(0, columns)
    for n in range(20):
        m.appendRow([QStandardItem(f"cell {n} {c}") for c in range(columns)])
    return m
tree, table, tabs = QTreeView(), QTableView(), QTabWidget()
tree.setModel(model(2)); table.setModel(model(8)); tabs.addTab(table, "Log")
sides = (Qt.LeftDockWidgetArea, tree), (Qt.RightDockWidgetArea, QTableView()), (Qt.BottomDockWidgetArea, QTableView())
for area, inner in sides:
    dock = QDockWidget("dock"); dock.setWidget(inner); w.addDockWidget(area, dock)
w.setCentralWidget(tabs); w.addToolBar("bar"); w.statusBar().showMessage("ready"); w.menuBar().addMenu("File")
w.resize(1440, 900); w.show(); app.exec()
"""


def run(arguments: list[str]) -> tuple[float, int]:
    """Seconds from spawn to the first paint, and peak memory in KiB by then."""
    environment = dict(os.environ, QT_QPA_PLATFORM="offscreen")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.monotonic()
    out = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True
    ).stdout
    painted, memory = out.strip().splitlines()[-1].split()[:2]
    return float(painted) - begun, int(memory)


def item(name: str, value: float, bound: float, budget: float, unit: str) -> dict[str, Any]:
    ratio = value / bound
    return {
        "name": f"{name}, {unit}", "value": value, "bound": bound, "ratio": ratio, "budget": f"<= {budget}",
        "ok": ratio <= budget,
    }  # fmt: skip


def main() -> None:
    times: dict[str, list[float]] = {"bare": [], "empty": [], "large": []}
    memory: dict[str, list[int]] = {"bare": [], "empty": [], "large": []}
    with tempfile.TemporaryDirectory() as folder:
        from tests.bench.bench_log import build

        large = Path(folder) / "large.mwk"
        build(large, 20_000 if QUICK else ROWS)
        runs = {
            "bare": ["-c", BARE],
            "empty": ["-m", "ui", "--first-paint", "--profile", f"{folder}/empty"],
            "large": ["-m", "ui", "--first-paint", "--profile", f"{folder}/large", str(large)],
        }
        for arguments in runs.values():
            run(arguments)  # warm: bytecode, page cache
        for _ in range(3 if QUICK else 7):  # interleaved
            for name, arguments in runs.items():
                took, peak = run(arguments)
                times[name].append(took)
                memory[name].append(peak)
    median = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    peak_mb = {name: statistics.median(values) / 1024 for name, values in memory.items()}
    rows = f"{20_000 if QUICK else ROWS:,} interactions"
    items = [
        item("start to first painted window", median["empty"], median["bare"], 1.5, "ms"),
        item(f"the same with {rows}", median["large"], median["empty"], 1.3, "ms"),
        item("memory at first paint", peak_mb["empty"], peak_mb["bare"], 1.7, "MB"),
    ]
    sys.stdout.write(json.dumps({"bench": "start", "items": items, "ok": all(i["ok"] for i in items)}) + "\n")


if __name__ == "__main__":
    main()
