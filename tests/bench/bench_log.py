"""The log: appending, durable commits, pages, filters and full text, each beside the bare SQLite that does the same.

``python -m tests.bench.bench_log [--rows N] [--quick] [--keep FILE]``; prints one JSON object. The bound of an item
is measured in the same run, turn and turn about; figures are medians. ``--keep`` builds the large log once and uses it
again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.interaction_log import rows as r
from app.interaction_log.filters import parse
from app.interaction_log.reader import LogReader, QueryCancelled
from app.interaction_log.schema import migrate
from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.interaction import Failure, Interaction
from app.model.reading import Quantity, SampleSet
from app.model.status import Event

START = datetime(2026, 5, 1, tzinfo=UTC)
COMMANDS = ("READ_LIVE", "READ_STATUS", "READ_METER", "SET_RELAY", "TOP_UP", "READ_PROFILE", "SET_CLOCK", "READ_EVENTS")
BATCH = 5_000
A_CALL = 100  # interactions of one call, as an import or a report of a fleet brings them
ROUNDS = 5
OPEN = 300  # commands under way in the large log
UNINDEXED = ("bytes", "param.", "result.")  # filters that read rows from the newest on until the page is full
SITES = 4  # of five grids each, which have fifty meters each
ADD_NODE = (
    "INSERT INTO device(id, name, kind, parent, serial, adapter, model, settings, attributes, enabled, position)"
    " VALUES (?1, ?1, ?2, ?3, ?4, 'lem', '', '{}', '{}', 1, 0)"
)

Item = dict[str, Any]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def rate(name: str, value: float, bound: float, budget: float) -> Item:
    """More is better."""
    ratio = value / bound
    return {"name": name, "value": round(value), "bound": round(bound), "ratio": round(ratio, 3), "budget": budget,
            "ok": ratio >= budget}  # fmt: skip


def cost(
    name: str, value: float, bound: float, budget: float, limit: float | None = None, floor: float = 0.0
) -> Item:
    """Milliseconds; less is better.

    Args:
        limit: milliseconds that may not be exceeded whatever the bound is.
        floor: so many milliseconds are never too many: what looking up words costs where the bound finds two rows.
    """
    ratio = value / bound if bound else 0.0
    ok = (ratio <= budget or value <= floor) and (limit is None or value <= limit)
    figures = {"value": round(value, 4), "bound": round(bound, 4), "ratio": round(ratio, 3)}
    return {"name": name, **figures, "budget": budget, "ok": ok}


def below(name: str, value: float, limit: float) -> Item:
    """A figure with an absolute budget."""
    return {"name": name, "value": round(value, 4), "bound": None, "ratio": None, "budget": limit, "ok": value <= limit}


# ---------------------------------------------------------------- appending


def interactions(count: int) -> list[Interaction]:
    """Finished interactions as a busy site makes them."""
    rng = random.Random(1)
    made: list[Interaction] = []
    for number in range(1, count + 1):
        created = START + timedelta(milliseconds=number)
        fresh = Interaction(
            id=number,
            device=f"meter-{rng.randrange(500):04d}",
            adapter="lem",
            command=rng.choice(COMMANDS),
            kind=CommandKind.READ,
            created=created,
            updated=created,
            params={"register": f"1-0:{rng.randrange(9)}.8.0"},
        )
        end = created + timedelta(milliseconds=130)
        if number % 10:
            result = {"value": str(rng.random()), "unit": "kWh", "state": "idle"}
            made.append(fresh.after(Event.REPORT, end, result=result))
        else:
            failure = Failure(code="TIMEOUT", text="The meter did not answer in 12 s (3rd of 12 tries).", at=end)
            made.append(fresh.after(Event.ABORT, end, failure=failure))
    return made


def bare(path: Path, sync: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={sync}")
    migrate(db, path)
    db.execute("PRAGMA cache_size=-32768")
    db.execute("PRAGMA wal_autocheckpoint=4000")
    return db


def appended_bare(path: Path, statement: str, table: Sequence[tuple[Any, ...]]) -> float:
    db = bare(path, "NORMAL")
    started = time.perf_counter()
    for start in range(0, len(table), BATCH):
        db.execute("BEGIN")
        db.executemany(statement, table[start : start + BATCH])
        db.execute("COMMIT")
    took = time.perf_counter() - started
    db.close()
    return len(table) / took


def appended(path: Path, changes: Sequence[Any], count: int, *, a_call: int, text: bool = False) -> float:
    """Rows a second through the writer, ``a_call`` changes a call, until they are durable."""
    with LogWriter(path) as writer:
        started = time.perf_counter()
        for start in range(0, len(changes), a_call):
            writer.put(*changes[start : start + a_call])
        writer.flush(text=text)
        return count / (time.perf_counter() - started)


def appending(folder: Path, count: int) -> list[Item]:
    made = interactions(count)
    quantities = [Quantity(name, "V") for name in ("voltage", "current", "power", "import", "export", "temperature")]
    sets = [
        SampleSet(
            device=f"meter-{n % 20:04d}",
            received=START + timedelta(milliseconds=n),
            values=tuple((quantity, Decimal("398.125")) for quantity in quantities),
        )
        for n in range(count // 2)
    ]
    source = folder / "rows.mwk"
    with LogWriter(source) as writer:
        writer.put(*made)
    db = sqlite3.connect(source)
    table = db.execute(f"{r.SELECT_INTERACTION} ORDER BY id").fetchall()
    db.close()
    samples = [
        (n % 20 * 6 + q, r.to_us(one.received), 398.125, None)
        for n, one in enumerate(sets)
        for q in range(len(quantities))
    ]
    insert_sample = "INSERT OR IGNORE INTO sample(series, at, value, meter_time) VALUES (?, ?, ?, ?)"
    names = ("bare", "ours", "one", "text", "bare samples", "our samples")
    figures: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    for turn in range(ROUNDS):
        def path(turn: int = turn) -> Path:
            return folder / f"append-{turn}-{random.random()}.mwk"

        figures["bare"].append(appended_bare(path(), r.INSERT_INTERACTION, table))
        figures["ours"].append(appended(path(), made, count, a_call=A_CALL))
        figures["one"].append(appended(path(), made, count, a_call=1))
        figures["text"].append(appended(path(), made, count, a_call=A_CALL, text=True))
        figures["bare samples"].append(appended_bare(path(), insert_sample, samples))
        figures["our samples"].append(appended(path(), sets, len(samples), a_call=1))
    gc.enable()
    mid = {name: median(values) for name, values in figures.items()}
    return [
        rate("interactions appended per s, text deferred", mid["ours"], mid["bare"], 0.7),
        rate("interactions appended per s, one a call", mid["one"], mid["bare"], 0.5),
        rate("interactions appended per s, text included", mid["text"], mid["bare"], 0.5),
        rate("samples appended per s", mid["our samples"], mid["bare samples"], 0.7),
        {"name": "samples appended per s, at least", "value": round(mid["our samples"]), "bound": None, "ratio": None,
         "budget": 100_000, "ok": mid["our samples"] >= 100_000},
    ]  # fmt: skip


def committing(folder: Path, count: int) -> list[Item]:
    made = interactions(2 * count)
    source = folder / "commit-rows.mwk"
    with LogWriter(source) as writer:
        writer.put(*made)
    db = sqlite3.connect(source)
    table = db.execute(f"{r.SELECT_INTERACTION} ORDER BY id").fetchall()
    db.close()
    ours: list[float] = []
    bound: list[float] = []

    async def work() -> None:
        other = bare(folder / "commit-bare.mwk", "FULL")
        with LogWriter(folder / "commit.mwk") as writer:
            await writer.commit(made[0])
            for index in range(1, count):
                started = time.perf_counter()
                await writer.commit(made[index])
                ours.append((time.perf_counter() - started) * 1e3)
                started = time.perf_counter()
                other.execute("BEGIN IMMEDIATE")
                other.execute(r.INSERT_INTERACTION, table[index])
                other.execute("COMMIT")
                bound.append((time.perf_counter() - started) * 1e3)
        other.close()

    asyncio.run(work())
    return [
        cost("durable commit p50 ms", median(ours), median(bound), 3.0),
        {**below("durable commit p99 ms", percentile(ours, 0.99), 5.0), "bound": round(percentile(bound, 0.99), 4)},
    ]


# ---------------------------------------------------------------- a large log


def build(path: Path, count: int) -> None:
    """``count`` finished interactions, made inside SQLite; one in ten failed, 1,000 devices, a little of everything.

    Each has an attempt, a frame and a history line; one in twenty a finding, one in a hundred a follow-up.
    """
    with LogWriter(path):
        pass
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=OFF")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA cache_size=-400000")
    texts = [f"meter-{n:04d}" for n in range(1000)] + list(COMMANDS)
    texts += ["lem", "read", "control", "QUEUED", "SUCCESSFUL", "FAILED", "OUTCOME_UNKNOWN", "USER"]
    texts += ["TIMEOUT", "CRC", "REFUSED", "ANSWERED", "in", "memory", "app", "warning", "CLOCK", "TAMPER"]
    db.executemany("INSERT INTO word(text) VALUES (?)", [(text,) for text in texts])
    words = {text: number for number, text in db.execute("SELECT id, text FROM word")}
    indexes = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for name, _sql in indexes:
        db.execute(f"DROP INDEX {name}")
    first = r.to_us(START)
    db.execute("BEGIN")
    db.execute(
        f"""
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}),
        k(i, h) AS (SELECT i, ((i * 2654435761) & 4294967295) FROM n)
        INSERT INTO interaction(id, seq, device_w, adapter_w, command_w, kind_w, status_w, origin_w, is_open, created,
            updated, finished, priority, attempts, code_w, followup_of, params, failure, result)
        SELECT i, 4, {words["meter-0000"]} + h % 1000, {words["lem"]}, {words["READ_LIVE"]} + (h >> 12) % 8,
            CASE WHEN (h >> 12) % 8 IN (3, 4, 6) THEN {words["control"]} ELSE {words["read"]} END,
            CASE WHEN i > {count - OPEN} THEN {words["QUEUED"]} WHEN (h >> 7) % 10 THEN {words["SUCCESSFUL"]}
                WHEN (h >> 4) % 100 THEN {words["FAILED"]} ELSE {words["OUTCOME_UNKNOWN"]} END,
            {words["USER"]}, i > {count - OPEN}, {first} + i * 1000000, {first} + i * 1000000 + 130000,
            {first} + i * 1000000 + 130000,
            10, 1, CASE WHEN (h >> 7) % 10 THEN NULL ELSE {words["TIMEOUT"]} + (h >> 9) % 3 END,
            CASE WHEN i % 100 = 0 THEN i - 1 WHEN i % 100 = 1 AND i > 1 THEN i - 1 END,
            '{{"register":"1-0:' || ((h >> 5) % 9) || '.8.0"}}',
            CASE WHEN (h >> 7) % 10 THEN NULL
                ELSE '["The meter did not answer in 12 s.","","",0,' || {first} || ']' END,
            CASE WHEN (h >> 7) % 10 THEN '{{"value":"' || h || '","unit":"kWh","state":"' ||
                CASE WHEN (h >> 3) % 5 THEN 'idle' ELSE 'charging' END || '"}}' ELSE NULL END
        FROM k"""
    )
    hanging = "SELECT id, created, device_w, ((id * 2654435761) & 4294967295) AS h FROM interaction"
    db.execute(
        "INSERT INTO attempt(interaction, message, number, started, end_w, ended)"
        f" SELECT id, id, 1, created + 1000, {words['ANSWERED']}, created + 100000 + CASE WHEN h % 1000 THEN 0"
        f" ELSE 5000000 END FROM ({hanging})"
    )
    db.execute(
        "INSERT INTO frame(at, device_w, link_w, direction_w, interaction, attempt, truncated, data)"
        f" SELECT created + 100000, device_w, {words['memory']}, {words['in']}, id, 1, 0,"
        " CAST('h' || char(h % 120) || 'h' || printf('%016d', h) || char((h >> 8) % 120) AS BLOB)"
        f" FROM ({hanging})"
    )
    db.execute(
        "INSERT INTO step(interaction, at, step, event_w, actor_w)"
        f" SELECT id, created, 5 + h % 8, {words['QUEUED']}, {words['app']} FROM ({hanging})"
    )
    db.execute(
        "INSERT INTO finding(at, device_w, severity_w, code_w, interaction, cleared, text)"
        f" SELECT created, device_w, {words['warning']}, CASE WHEN h % 5000 THEN {words['CLOCK']}"
        f" ELSE {words['TAMPER']} END, id, 0, 'The clock is late.' FROM ({hanging}) WHERE id % 20 = 0"
    )
    for site in range(SITES):
        db.execute(ADD_NODE, (f"site-{site}", "site", "", ""))
        for grid in range(5):
            db.execute(ADD_NODE, (f"grid-{site * 5 + grid:02d}", "grid", f"site-{site}", ""))
    for meter in range(1000):
        db.execute(ADD_NODE, (f"meter-{meter:04d}", "meter", f"grid-{meter % (SITES * 5):02d}", f"SN{meter:04d}"))
    db.execute("COMMIT")
    for _name, sql in indexes:
        db.execute(sql)
    db.execute(f"INSERT INTO log_text(rowid, body) {r.SEARCH_TEXT_SQL} ORDER BY i.id")
    db.execute("UPDATE meta SET value = ? WHERE key = 'text_mark'", (str(count),))
    db.close()


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def turns(ours: Callable[[], Any], bound: Callable[[], Any], count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of both, turn and turn about."""
    ours()
    bound()
    pairs = [(timed(ours), timed(bound)) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def paging(path: Path, count: int, pages: int) -> list[Item]:
    items: list[Item] = []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA cache_size=-32768")
    statement = f"{r.SELECT_INTERACTION} WHERE id > ? ORDER BY id LIMIT 256"
    with LogReader(path) as reader:
        for title, writing in (("", False), (" while writing", True)):
            rng = random.Random(2)
            ours: list[float] = []
            built: list[float] = []
            bound: list[float] = []
            stop = threading.Event()

            def write(stop: threading.Event = stop, writing: bool = writing) -> None:
                if not writing:
                    return
                with LogWriter(path) as writer:
                    number = reader.span()[1]
                    at = START + timedelta(seconds=number + 10)
                    while not stop.wait(0.02):
                        for _ in range(200):
                            number += 1
                            fresh = Interaction(
                                id=number, device="meter-0001", adapter="lem", command="READ_LIVE",
                                kind=CommandKind.READ, created=at, updated=at,
                            )  # fmt: skip
                            writer.put(fresh.after(Event.REPORT, at, result={"value": "1"}))

            thread = threading.Thread(target=write)
            thread.start()
            for _ in range(pages):
                at = rng.randrange(count - 256)
                db.execute(statement, (at,)).fetchall()  # both find the pages in the system's cache
                ours.append(timed(lambda at=at: reader.page(after=at)))  # type: ignore[misc]
                bound.append(timed(lambda at=at: db.execute(statement, (at,)).fetchall()))  # type: ignore[misc]
                built.append(timed(lambda at=at: list(reader.page(after=at))))  # type: ignore[misc]
            stop.set()
            thread.join()
            items.append(cost(f"page of 256{title}, ms", median(ours), median(bound), 2.0))
            items.append(cost(f"page of 256{title}, every row built, ms", median(built), median(bound), 10.0))
            items.append(below(f"page of 256{title} p99, ms", percentile(ours, 0.99), 20.0))
    db.close()
    return items


def filters(path: Path, count: int) -> list[Item]:
    first = r.to_us(START)
    now = START + timedelta(seconds=count)
    middle = START + timedelta(seconds=count // 2)
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA cache_size=-32768")
    words = {text: number for number, text in db.execute("SELECT id, text FROM word")}
    select = r.SELECT_INTERACTION
    newest = "ORDER BY id DESC LIMIT 200"
    text = "id IN (SELECT rowid FROM log_text WHERE log_text MATCH ? ORDER BY rowid DESC LIMIT 200)"
    device_in = "device_w IN (SELECT w.id FROM device AS d JOIN word AS w ON w.text = d.id WHERE d.parent = ?)"
    device_in_site = device_in.replace("= ?", "IN (SELECT g.id FROM device AS g WHERE g.parent = ?)")
    latency = (
        "(SELECT max(ended) - min(started) FROM attempt WHERE attempt.interaction = interaction.id) {} 2000000"
    )
    cases: list[tuple[str, str, tuple[Any, ...]]] = [
        ("device:meter-0042", "device_w = ?", (words["meter-0042"],)),
        ("command:SET_RELAY", "command_w = ?", (words["SET_RELAY"],)),
        ("status:FAILED", "status_w = ?", (words["FAILED"],)),
        ("status:OUTCOME_UNKNOWN", "status_w = ?", (words["OUTCOME_UNKNOWN"],)),
        ("kind:control", "kind_w = ?", (words["control"],)),
        ("reason:CRC", "code_w = ?", (words["CRC"],)),
        ("is:open", "is_open = 1", ()),
        ("device:meter-0042 status:FAILED", "device_w = ? AND +status_w = ?", (words["meter-0042"], words["FAILED"])),
        (f"until:{middle:%Y-%m-%dT%H:%M:%SZ}", "id < ?", (count // 2,)),
        (f"since:{middle:%Y-%m-%dT%H:%M:%SZ} until:{middle + timedelta(seconds=150):%Y-%m-%dT%H:%M:%SZ}",
         "id >= ? AND id < ?", (count // 2, count // 2 + 150)),
        ("charging", text, ('"charging"',)),
        ("charging live", text, ('"charging" AND "live"',)),
        ('"meter 0042" relay', text, ('"meter 0042" AND "relay"',)),
        ("charg*", text, ('"charg"*',)),
        ("device ~ r-0042", "device_w = ?", (words["meter-0042"],)),
        ("serial:SN0042", "device_w = ?", (words["meter-0042"],)),
        ("grid:grid-07", device_in, ("grid-07",)),
        ("site:site-1", device_in_site, ("site-1",)),
        (f"created > {middle:%Y-%m-%dT%H:%M:%SZ}", "id > ?", (count // 2,)),
        (f"parent:{count // 200 * 100 - 1}", "followup_of = ?", (count // 200 * 100 - 1,)),
        (f"follows:{count // 200 * 100 - 1}", "id IN (?, ?)", (count // 200 * 100, count // 200 * 100 + 1)),
        ("finding:CLOCK", "id IN (SELECT interaction FROM finding WHERE code_w = ?)", (words["CLOCK"],)),
        ("finding:TAMPER", "id IN (SELECT interaction FROM finding WHERE code_w = ?)", (words["TAMPER"],)),
        ("finding:CLOCK status:FAILED", "status_w = ? AND EXISTS (SELECT 1 FROM finding WHERE interaction ="
         " interaction.id AND code_w = ?)", (words["FAILED"], words["CLOCK"])),
        ("duration > 100ms", "finished - created > 100000", ()),
        ("latency < 2s", latency.format("<"), ()),
        ("step:meter", "EXISTS (SELECT 1 FROM step WHERE interaction = interaction.id AND step = 8)", ()),
        ("param.register:1-0:1.8.0", "json_extract(params, '$.register') = '1-0:1.8.0'", ()),
        ("result.value < 2000000000", "json_extract(result, '$.value') < CAST(2e9 AS REAL)", ()),
        ("bytes ~ 68 41 68", "EXISTS (SELECT 1 FROM frame WHERE interaction = interaction.id AND"
         " instr(data, X'684168') > 0)", ()),
        ("bytes.in ~ 68 ?? 68 30", "EXISTS (SELECT 1 FROM frame WHERE interaction = interaction.id AND"
         " hex(data) GLOB '*68??6830*')", ()),
    ]  # fmt: skip
    assert first
    items: list[Item] = []
    with LogReader(path) as reader:
        for query, condition, parameters in cases:
            where = parse(query, now)
            statement = f"{select} WHERE {condition} {newest}"
            found = reader.page(where=where, limit=200).ids
            assert found == [row[0] for row in db.execute(statement, parameters)][::-1], query
            ours, bound = turns(
                lambda where=where: reader.page(where=where, limit=200),  # type: ignore[misc]
                lambda s=statement, p=parameters: db.execute(s, p).fetchall(),  # type: ignore[misc]
                21,
            )
            # Without an index two readings of the JSON stand against one; how far back they go is the log's affair.
            budget, limit = (4.0, None) if query.startswith(UNINDEXED) else (2.0, 20.0)
            items.append(cost(f"newest 200 of {query}, ms", median(ours), median(bound), budget, limit, 0.2))
        took = timed(reader.anchors)
        items.append(below("row index of the whole log, ms", took, 1000.0))
        items.append(below("row index of the whole log, MB", reader.anchors().nbytes / 1e6 * 10_000_000 / count, 1.0))
        failed = parse("status:FAILED", now)
        items.append(below("row index of status:FAILED, ms", timed(lambda: reader.anchors(failed)), 2000.0))
        items.append(cancelling(reader, now))
    db.close()
    return items


def cancelling(reader: LogReader, now: datetime) -> Item:
    """How long a search that finds nothing goes on after it was cancelled."""
    worst = 0.0
    for query in (
        *("adapter:nothing-of-that-name or origin:BATCH", "not charging and not idle and not meter"),
        *("result.nothing > 5", "result.value ~ x", "bytes ~ 00 ?? 00 ?? 00", "latency > 1h", "waited > 1h or actor:x"),
    ):
        where = parse(query, now)
        ended: list[float] = []
        begun = threading.Event()

        def work(where: Any = where, ended: list[float] = ended, begun: threading.Event = begun) -> None:
            begun.set()
            try:
                while True:
                    reader.count(where)
            except QueryCancelled:
                ended.append(time.perf_counter())

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        thread.join(0.1)
        asked = time.perf_counter()
        while thread.is_alive():
            reader.interrupt()
            thread.join(0.005)
        worst = max(worst, (ended[0] - asked) * 1e3)
    return below("a search ends after it was cancelled, ms", worst, 100.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="100,000 rows and fewer turns")
    parser.add_argument("--keep", type=Path, default=None, help="build the large log here, or use the one that is here")
    options = parser.parse_args()
    count = 100_000 if options.quick else options.rows
    items: list[Item] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items += appending(folder, 20_000 if options.quick else 40_000)
        items += committing(folder, 1_000 if options.quick else 5_000)
        path = options.keep or folder / "large.mwk"
        if not path.exists():
            build(path, count)
        items += filters(path, count)
        items += paging(path, count, 100 if options.quick else 400)
    print(json.dumps({"bench": "log", "rows": count, "items": items, "ok": all(item["ok"] for item in items)}))
    return 0 if all(item["ok"] for item in items) else 1


if __name__ == "__main__":
    sys.exit(main())
