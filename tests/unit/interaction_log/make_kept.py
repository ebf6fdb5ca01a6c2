"""Make the kept workspace of one format: ``python -m tests.unit.interaction_log.make_kept N FILE``. Not a test."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

from app.interaction_log.schema import VERSION, migrate
from app.interaction_log.writer import LogWriter
from tests.unit.interaction_log import logs


def make(version: int, target: Path) -> None:
    """The rows are written by today's writer, and for an older format copied into its tables."""
    with tempfile.TemporaryDirectory() as folder:
        newest = Path(folder) / "newest.mwk"
        with LogWriter(newest) as writer:
            for changes in logs.calls(40):
                writer.put(*changes)
            writer.flush(text=True)
        if version == VERSION:
            shutil.copy(newest, target)
            return
        old = sqlite3.connect(target, isolation_level=None)
        migrate(old, target, upto=version)
        old.execute("ATTACH ? AS newest", (str(newest),))
        tables = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql LIKE '%STRICT%'"
        old.execute("BEGIN")
        for (table,) in old.execute(tables).fetchall():
            columns = ", ".join(name for _n, name, *_rest in old.execute(f"PRAGMA main.table_info({table})"))
            old.execute(f"INSERT OR REPLACE INTO main.{table}({columns}) SELECT {columns} FROM newest.{table}")
        old.execute("DELETE FROM main.meta WHERE key = 'text_mark'")
        old.execute("COMMIT")
        old.execute("DETACH newest")
        old.close()


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]))
