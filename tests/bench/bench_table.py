"""The log table on ten million rows, beside a static model with the same columns in the same view.

    python -m tests.bench.bench_table [--quick] [--keep FOLDER]

``wheel`` and ``jump`` are processor time of the window's thread for one move of the scroll bar, everything included:
the move, reading the answer, and every repaint until the rows stand there. ``frame`` is the longest single turn of the
event loop. Memory is what the table's process holds more than the static one's, after the same moves.
Each case runs in its own process, offscreen; figures are medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QAbstractTableModel, QEventLoop, QModelIndex, QPersistentModelIndex, Qt, QTimer
from PySide6.QtWidgets import QApplication, QTableView

from app.interaction_log.reader import LogReader
from app.interaction_log.rows import WordIds, failure_json, mapping_json
from app.interaction_log.schema import migrate
from tests.ui.fakes import FakeWorkbench, site
from tests.ui.log_fakes import interaction
from ui.log_access import LogAccess
from ui.models.log_table import NUMBERS, Column, make_row
from ui.panels.log import LogPanel
from ui.theme import Theme, ThemeMode, fixed_font

ROOT = QModelIndex()
ROWS = 10_000_000
QUICK_ROWS = 1_000_000
JUMPS = 150
STEPS = 300
RUNS = 3
BUDGET = 1.25
MEMORY_MB = 30.0
_CHUNK = 50_000


def build(path: Path, count: int) -> None:
    """A workspace of ``count`` interactions by bare SQL, ids without gaps."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    migrate(db, path)
    db.execute("PRAGMA synchronous=OFF")
    indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type='index' AND sql IS NOT NULL").fetchall()
    for name, _sql in indexes:  # made again at the end, which is faster
        db.execute(f"DROP INDEX {name}")
    words = WordIds(db)
    samples = [interaction(number) for number in range(1, 1321)]
    cells = []
    for item in samples:
        failure = item.failure
        cells.append(
            (
                3, words[item.device], words["fake-http"], words[item.command], words[item.kind.value],
                words[item.status.value], words[item.origin.value], 0, 10, item.attempts,
                None if failure is None else words[failure.code],
                None if failure is None else failure_json(failure),
                None if item.result is None else mapping_json(item.result),
            )
        )  # fmt: skip
    start = 1_790_000_000_000_000

    def rows(first: int, stop: int) -> Iterator[tuple[Any, ...]]:
        for number in range(first, stop):
            cell = cells[number % len(cells)]
            created = start + number * 100_000
            yield (number, *cell[:8], created, created + 131_000, created + 131_000, *cell[8:])

    insert = (
        "INSERT INTO interaction(id, seq, device_w, adapter_w, command_w, kind_w, status_w, origin_w, is_open, created,"
        " updated, finished, priority, attempts, code_w, failure, result) VALUES (" + ",".join("?" * 17) + ")"
    )
    for first in range(1, count + 1, _CHUNK):
        db.execute("BEGIN")
        db.executemany(insert, rows(first, min(count + 1, first + _CHUNK)))
        db.execute("COMMIT")
    for _name, sql in indexes:
        db.execute(sql)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def rss_mb() -> float:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class StaticModel(QAbstractTableModel):
    """As many rows, each the same constants in the same columns, fonts and colours: the bound."""

    def __init__(self, count: int, theme: Theme) -> None:
        super().__init__()
        self._count = count
        row = make_row(interaction(7), None)
        self._texts = [*row.texts]
        self._texts[Column.STATUS] = "done"
        self._icon = theme.status_icon(row.status)
        self._colour = theme.status_colour(row.status)
        self._display = int(Qt.ItemDataRole.DisplayRole)
        self._decoration = int(Qt.ItemDataRole.DecorationRole)
        self._foreground = int(Qt.ItemDataRole.ForegroundRole)
        self._alignment = int(Qt.ItemDataRole.TextAlignmentRole)
        self._font_role = int(Qt.ItemDataRole.FontRole)
        self._font = fixed_font()
        right = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        left = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self._alignments = [right if column in NUMBERS else left for column in Column]
        self._fonts = [self._font if column in NUMBERS else None for column in Column]

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = ROOT) -> int:
        return 0 if parent.isValid() else self._count

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self._texts)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = 0) -> Any:
        if role == self._display:
            return self._texts[index.column()]
        if role == self._alignment:
            return self._alignments[index.column()]
        if role == self._font_role:
            return self._fonts[index.column()]
        if role == self._decoration:
            return self._icon if index.column() == Column.STATUS else None
        if role == self._foreground:
            return self._colour if index.column() == Column.STATUS else None
        return None


class Driver:
    """Moves the scroll bar once every 16 ms and adds up the thread's processor time."""

    def __init__(self, view: QTableView, is_shown: Callable[[], bool]) -> None:
        self._loop = QEventLoop()  # QApplication.quit would close the windows
        self._view = view
        self._is_shown = is_shown
        self._timer = QTimer(interval=16, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._values: list[int] = []
        self._waits: list[float] = []
        self._moved_at: float | None = None
        self._deadline = 0.0

    def run(self, values: list[int]) -> tuple[float, float]:
        """Processor time a move, and median time until the rows stand there, in ms."""
        self._values = values[::-1]
        self._waits = []
        self._moved_at = None
        self._deadline = time.monotonic() + 120
        started = time.thread_time()
        self._timer.start()
        self._loop.exec()
        spent = (time.thread_time() - started) * 1000 / len(values)
        self._waits.sort()
        return spent, self._waits[len(self._waits) // 2] if self._waits else 0.0

    def _tick(self) -> None:
        if self._moved_at is not None:
            if not self._is_shown():
                if time.monotonic() > self._deadline:
                    raise SystemExit("rows did not come")
                return
            self._waits.append((time.perf_counter() - self._moved_at) * 1000)
        if not self._values:
            self._timer.stop()
            self._loop.quit()
            return
        self._moved_at = time.perf_counter()
        self._view.verticalScrollBar().setValue(self._values.pop())


def configured(model: QAbstractTableModel, like: QTableView | None) -> QTableView:
    """A bare view with the settings of the log's."""
    view = QTableView()
    view.setModel(model)
    if like is not None:
        view.verticalHeader().hide()
        view.verticalHeader().setMinimumSectionSize(1)
        view.verticalHeader().setDefaultSectionSize(like.verticalHeader().defaultSectionSize())
        view.setShowGrid(False)
        view.setWordWrap(False)
        view.setFrameShape(like.frameShape())
        view.setIconSize(like.iconSize())
        view.setSelectionBehavior(like.selectionBehavior())
        view.setHorizontalScrollMode(like.horizontalScrollMode())
        for column in range(model.columnCount()):
            view.setColumnWidth(column, like.columnWidth(column))
    return view


def case(kind: str, path: Path, count: int) -> dict[str, float]:
    """One measured process."""
    app = QApplication([])
    theme = Theme(app, ThemeMode.LIGHT)
    theme.install()
    log = LogAccess(path)
    workbench = FakeWorkbench(site())
    first_panel = LogPanel(workbench, log, theme)  # both cases have a panel; only one looks at the long log
    first_panel.resize(1200, 800)
    base = rss_mb()
    started = time.perf_counter()
    if kind == "static":
        log.close()
        model = StaticModel(count, theme)
        view = configured(model, first_panel.table)
        view.resize(1200, 800)
        view.show()
        shown: Callable[[], bool] = _always
    else:
        view = first_panel.table
        first_panel.show()

        def shown() -> bool:
            top = max(0, view.rowAt(0))
            height = view.viewport().height() // view.verticalHeader().defaultSectionSize()
            rows = range(top, min(top + height, first_panel.model.rowCount()))
            return not first_panel.table.is_held and all(first_panel.model.row_at(r) is not None for r in rows)

    view.viewport().repaint()
    _spin(lambda: kind == "static" or (first_panel.model.rowCount() == count and shown()))
    opened = (time.perf_counter() - started) * 1000
    if kind != "static":
        first_panel.follow.setChecked(False)
    bar = view.verticalScrollBar()
    bar.setValue(count // 3)
    driver = Driver(view, shown)
    chance = random.Random(5)
    top = bar.value()
    wheel, _wait = driver.run(list(range(top, top + STEPS * 3, 3)))
    jump, wait = driver.run([chance.randrange(bar.maximum()) for _ in range(JUMPS)])
    result = {"open": opened, "wheel": wheel, "jump": jump, "wait": wait, "memory": rss_mb() - base}
    log.close()
    return result


def _always() -> bool:
    return True


def _spin(is_done: Callable[[], bool]) -> None:
    loop = QEventLoop()
    deadline = time.monotonic() + 120
    timer = QTimer(interval=1)

    def look() -> None:
        if is_done() or time.monotonic() > deadline:
            timer.stop()
            loop.quit()

    timer.timeout.connect(look)
    timer.start()
    loop.exec()


def bare_page_ms(path: Path, count: int) -> float:
    """The keyset query of a random page of 256 with nothing around it, median."""
    with LogReader(path) as reader:
        chance = random.Random(6)
        times = []
        for _ in range(JUMPS):
            at = chance.randrange(count - 256)
            started = time.perf_counter()
            for _item in reader.page(after=at, limit=256):
                pass
            times.append((time.perf_counter() - started) * 1000)
        return sorted(times)[len(times) // 2]


def item(name: str, value: float, bound: float, budget: float, *, difference: bool = False) -> dict[str, Any]:
    """One figure; ``difference``: the budget is on ``value - bound`` instead of the ratio."""
    ratio = value / bound if bound else 0.0
    ok = value - bound <= budget if difference else ratio <= budget
    return {
        "name": name,
        "value": round(value, 3),
        "bound": round(bound, 3),
        "ratio": round(ratio, 3),
        "budget": budget,
        "ok": ok,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one million rows, one run")
    parser.add_argument("--keep", type=Path, help="folder for the workspace, used again by the next run")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        kind, path, count = given.case
        print(json.dumps(case(kind, Path(path), int(count))), flush=True)
        os._exit(0)
    count = QUICK_ROWS if given.quick else ROWS
    with tempfile.TemporaryDirectory() as temporary:
        path = (given.keep or Path(temporary)) / f"table-{count}.mwk"
        if not path.exists():
            build(path, count)
        runs: dict[str, list[dict[str, float]]] = {"static": [], "paged": []}
        for _ in range(1 if given.quick else RUNS):
            for kind in runs:
                command = [sys.executable, "-m", "tests.bench.bench_table", "--case", kind, str(path), str(count)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode or not done.stdout.strip():
                    print(done.stderr[-2000:], file=sys.stderr)
                    return 1
                runs[kind].append(json.loads(done.stdout.strip().splitlines()[-1]))
        page = bare_page_ms(path, count)

    def median(kind: str, name: str) -> float:
        values = sorted(run[name] for run in runs[kind])
        return values[len(values) // 2]

    items = [
        item("wheel, ms of the window's thread a step", median("paged", "wheel"), median("static", "wheel"), BUDGET),
        item("jump, ms of the window's thread", median("paged", "jump"), median("static", "jump"), BUDGET),
        item("memory, MB", median("paged", "memory"), median("static", "memory"), MEMORY_MB, difference=True),
        item("jump until the rows stand there, ms (16 ms ticks)", median("paged", "wait"), 16.0 + page, 2.0),
    ]
    told = {"bench": "table", "rows": count, "items": items, "ok": all(one["ok"] for one in items)}
    told["open_ms"] = round(median("paged", "open"), 1)
    print(json.dumps(told))
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
