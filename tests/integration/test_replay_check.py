"""``meterwright replay --check``: an untouched recording has no difference, an altered byte is told as that."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.__main__ import main
from app.adapters.registry import Registry
from app.commands.logs import replay
from app.composition import open_session, running
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.interaction import Origin
from app.model.status import Status
from app.replay_check import check
from app.replaying import Difference
from app.simulators.iec62056 import Iec62056Meter, MeterConfig
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from tests.unit.interaction_log import logs

Edit = Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "kept.mwk"
    asyncio.run(record(path))
    return path


async def record(path: Path) -> None:
    """A LEM meter and one on an optical head, with a failure and a command that never leaves."""
    config = MeterConfig(model="three-phase", speed=50.0)
    async with (
        asyncio.timeout(30),
        LemDcbmSimulator(LemDcbmConfig(uptime_s=3600, load="always")) as meter,
        Iec62056Meter(config, link="tcp") as head,
    ):
        with open_session(path) as opened:
            workbench = opened.workbench
            near = {"host": meter.host, "port": meter.port, "poll_interval_ms": 200}
            workbench.save_device(Device(id="lem", name="LEM", adapter="lem-dcbm", settings=near))
            line = {"address": head.address}
            workbench.save_device(Device(id="head", name="Head", adapter="iec62056", settings=line))
            away = {"host": "127.0.0.1", "port": 9, "poll_interval_ms": 200}
            workbench.save_device(Device(id="away", name="Away", adapter="lem-dcbm", settings=away))
            async with running(workbench):
                for device, command in (
                    ("lem", "READ_STATUS"), ("lem", "READ_LIVE"), ("lem", "READ_SETTINGS"), ("head", "SIGN_ON"),
                    ("head", "READOUT"),
                ):  # fmt: skip
                    done = await workbench.settled(workbench.submit(device, command))
                    assert done.status is Status.SUCCESSFUL, done
                meter.faults.set("http-error=500@GET/v1/settings")
                await workbench.settled(workbench.submit("lem", "READ_SETTINGS"))
                await workbench.saved(workbench.submit("away", "READ_STATUS"))


@pytest.fixture
def edited(session: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    def edit(change: Edit) -> Path:
        path = tmp_path / "edited.mwk"
        shutil.copy(session, path)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            change(db)
        return path

    return edit


async def differences(path: Path) -> list[Difference]:
    return [difference async for difference in check(path, Registry())]


def inbound(db: sqlite3.Connection, command: str) -> tuple[int, bytes]:
    """The last frame that came for a command."""
    number, data = db.execute(
        "SELECT frame.id, frame.data FROM frame JOIN interaction ON interaction.id = frame.interaction"
        " JOIN word AS c ON c.id = command_w JOIN word AS d ON d.id = direction_w"
        " WHERE c.text = ? AND d.text = 'in' AND instr(frame.data, x'31') ORDER BY frame.id DESC LIMIT 1",
        (command,),
    ).fetchone()
    return int(number), bytes(data)


async def test_an_untouched_session_has_no_difference(session: Path) -> None:
    before = session.read_bytes()
    assert await differences(session) == []
    assert session.read_bytes() == before


@pytest.mark.parametrize("command", ["READ_LIVE", "READOUT"])
async def test_one_altered_byte_is_exactly_that(edited: Callable[[Edit], Path], command: str) -> None:
    where: list[tuple[int, int]] = []

    def change(db: sqlite3.Connection) -> None:
        number, data = inbound(db, command)
        place = data.rindex(b"1")
        where.append((number, place))
        db.execute("UPDATE frame SET data = ? WHERE id = ?", (data[:place] + b"7" + data[place + 1 :], number))

    (found,) = await differences(edited(change))
    assert (found.what, found.command, (found.frame, found.offset)) == ("frame", command, where[0])
    assert (found.recorded, found.now) == ("31", "37")


@pytest.mark.parametrize(
    ("command", "there", "here", "field"),
    [("READ_LIVE", b'"voltage":', b'"voltage":1', "voltage_v"), ("SIGN_ON", b"/", b"/A", "identification")],
)
async def test_bytes_that_are_read_otherwise_today_are_told(
    edited: Callable[[Edit], Path], command: str, there: bytes, here: bytes, field: str
) -> None:
    """Nothing is wrong with the bytes as far as their sum tells, but they do not say what was recorded."""

    def change(db: sqlite3.Connection) -> None:
        number, data = inbound(db, command)
        db.execute("UPDATE frame SET crc = NULL, data = ? WHERE id = ?", (data.replace(there, here, 1), number))

    (found,) = await differences(edited(change))
    assert (found.what, found.command) == ("reread", command)
    assert found.where == field or found.where in ("manufacturer", "model")
    assert found.recorded != found.now


async def test_every_kind_of_end_of_a_mixed_log_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "mixed.mwk"
    with LogWriter(path) as writer:
        for changes in logs.calls(300):
            writer.put(*changes)
    with closing(sqlite3.connect(path)) as db:
        reports = {
            number
            for (number,) in db.execute(
                "SELECT interaction.id FROM interaction JOIN word ON word.id = origin_w WHERE text = ?",
                (Origin.UNSOLICITED.value,),
            )
        }
    # A report is complete on arrival; those of this log are not all.
    assert [one for one in await differences(path) if one.interaction not in reports] == []


def test_the_command_line_prints_one_record_a_difference(session: Path, edited: Callable[[Edit], Path]) -> None:
    runner = CliRunner()
    good = runner.invoke(replay, [str(session), "--check", "--json"])
    assert (good.exit_code, [json.loads(line) for line in good.output.splitlines()]) == (0, [{"differences": 0}])
    path = edited(lambda db: db.execute("UPDATE frame SET data = x'00' WHERE interaction IS NULL AND id < 3"))
    bad = runner.invoke(replay, [str(path), "--check", "--json"])
    *told, last = [json.loads(line) for line in bad.output.splitlines()]
    assert bad.exit_code == 1
    assert last == {"differences": len(told)}
    assert {one["difference"]["what"] for one in told} == {"frame"}
    refused = runner.invoke(replay, [str(session), "--check", "--speed", "2"])
    assert refused.exit_code not in (0, 1)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ("json_set(inputs, '$.link', 'online')", "QUEUED"),  # the rules would let it go on that
        ("json_set(inputs, '$.link', 'asleep')", None),  # nobody knows such a link
        ("json_set(inputs, '$.v', 9)", None),
    ],
)
async def test_one_altered_input_of_a_verdict_is_exactly_that(
    edited: Callable[[Edit], Path], change: str, now: str | None
) -> None:
    held = "SELECT min(step.id) FROM step JOIN interaction ON interaction.id = interaction"
    held += " JOIN word ON word.id = device_w WHERE inputs IS NOT NULL AND word.text = 'away'"
    path = edited(lambda db: db.execute(f"UPDATE step SET inputs = {change} WHERE id = ({held})"))
    (found,) = await differences(path)
    assert (found.what, found.device, found.command) == ("verdict", "away", "READ_STATUS")
    assert (found.recorded, found.now) == ("SUSPENDED LINK_DOWN", now)
    assert "SUSPENDED LINK_DOWN" in str(found)


def test_every_verdict_is_explained_on_what_was_recorded(session: Path) -> None:
    """Rule by rule on the command line; what is printed can be asked again on stdin."""
    runner = CliRunner()
    with LogReader(session) as reader:
        ids = reader.page(limit=100).ids
        away = next(row for row in reader.page(limit=100) if row.device == "away")
    for number in ids:
        asking = ["explain", "--workspace", str(session), "--interaction", str(number), "--json"]
        said = runner.invoke(main, asking)
        for record in map(json.loads, said.output.splitlines()):
            assert (record["again"]["verdict"], record["again"]["code"]) == (record["verdict"], record["code"])
            asked = runner.invoke(main, ["explain", "--json"], input=json.dumps(record["inputs"]))
            again = json.loads(asked.output)
            assert (again["verdict"], again["code"]) == (record["verdict"], record["code"])
            assert [rule["rule"] for rule in again["rules"]] == [rule["rule"] for rule in record["rules"]]
    words = runner.invoke(main, ["explain", "--workspace", str(session), "--interaction", str(away.id)]).output
    assert "SUSPENDED LINK_DOWN" in words
    assert "yes link down: The link is" in words
    assert "no  capability: The device offers it." in words
