"""Recorded frames of every system, decoded again (``app.ports.Rereader``): the same as recorded, or exactly that told.

One session of the demo site, simulators twenty times as fast, is recorded once; the tests read copies of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.adapters.registry import Registry
from app.composition import open_session, running
from app.demo import until
from app.errors import RemoteProtocolError, WorkbenchError
from app.interaction_log.reader import LogReader, Story
from app.model.command import CommandSpec
from app.model.device import Device
from app.model.interaction import Direction, Frame
from app.model.jsonable import jsonable
from app.model.reading import LinkState
from app.model.status import Status
from app.ports import Rereader
from app.replay_check import check, reread
from app.replaying import Difference
from app.simulators.dlms import (
    KEY_CLIENT,
    TEST_AUTHENTICATION_KEY,
    TEST_ENCRYPTION_KEY,
    DlmsConfig,
    DlmsMeterSimulator,
)
from tests.integration.test_demo_calin import village

ROWS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("lem-1", "READ_STATUS", {}),
    ("lem-1", "READ_LIVE", {}),
    ("lem-1", "READ_LEGAL", {}),
    ("lem-1", "READ_SETTINGS", {}),
    ("lem-1", "READ_CERTIFICATE", {}),
    ("lem-1", "READ_RECORD", {}),
    ("lem-1", "READ_LOGBOOK", {}),
    ("lem-1", "SYNC_TIME", {}),
    ("head-1", "SIGN_ON", {}),
    ("head-1", "READ_REGISTER", {"obis": "1.8.0"}),
    ("head-1", "READ_CLOCK", {}),
    ("dlms-1", "READ_OBJECTS", {}),
    ("dlms-1", "READ_REGISTERS", {}),
    ("dlms-1", "READ_REGISTER", {"obis": "1-0:2.8.0.255"}),
    ("dlms-1", "READ_ATTRIBUTE", {"class": 3, "obis": "1-0:1.8.0.255", "attribute": 2}),
    ("dlms-1", "READ_CLOCK", {}),
    ("module-1", "GET_PARAMETER", {"parameter": "0x280A"}),
    ("module-1", "AT", {"line": "AT+CSQ?"}),
    ("north-1", "READ_CREDIT", {}),
    ("north-2", "READ_VOLTAGE", {}),
    ("south-1", "READ_CREDIT", {}),
    ("south-2", "TURN_OFF", {}),
    ("south-3", "READ_CREDIT", {}),
    ("kiosk-1", "READ_CREDIT", {}),
    ("line", "READ_LOG", {}),
    ("line-1", "READOUT", {}),
    ("ems-1", "SET_MODE", {"target_mode": "MANUAL_DISCHARGE", "target_power": "200"}),
)
MOST = 12  # frames of a story that are changed
ALTERED: Mapping[tuple[str, str], tuple[bytes, bytes]] = {
    ("lem-1", "READ_LIVE"): (b'"voltage":', b'"voltage":1'),
    ("lem-1", "READ_RECORD"): (b"OCMF|", b"OCNF|"),
    ("lem-1", "SYNC_TIME"): (b'{"', b'{*'),
    ("head-1", "READ_REGISTER"): (b"kWh", b"kWi"),
    ("head-1", "READ_CLOCK"): (b":", b";"),
    ("dlms-1", "READ_ATTRIBUTE"): (b"\xc4\x01", b"\xc4\x02"),
    ("module-1", "GET_PARAMETER"): (b"\x28\x0a\x11", b"\x28\x0a\x12"),
    ("module-1", "AT"): (b"csq", b"csr"),
    ("north-1", "READ_CREDIT"): (b"\x68", b"\x69"),
    ("south-1", "READ_CREDIT"): (b'"Data": "', b'"Data": "9'),
    ("south-2", "TURN_OFF"): (b'"Status": "True"', b'"Status": "Trve"'),
    ("south-3", "READ_CREDIT"): (b'"status": 1', b'"status": 0'),
    ("kiosk-1", "READ_CREDIT"): (b'"kwhCreditAvailable":', b'"kwhCreditAvailable":9'),
    ("line", "READ_LOG"): (b'"log":"', b'"log":"9'),
    ("line-1", "READOUT"): (b"1.8.0(", b"1.8.0(9"),
    ("ems-1", "SET_MODE"): (b'"mode":"', b'"mode":"A'),
}  # what the last frame that holds it says instead


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reread") / "kept.mwk"
    asyncio.run(record(path))
    return path


async def record(path: Path) -> None:
    """Every device by itself; its commands one after the other."""
    async with asyncio.timeout(60), village(path) as held:
        day = held.workbench.clock.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        hour = {"start": day.isoformat(), "end": (day + timedelta(hours=1)).isoformat()}

        async def of(device: str) -> None:
            def is_there() -> bool:
                state = held.workbench.state(device)
                is_heard = state.last_contact is not None or not device.startswith("north")
                return state.link is LinkState.ONLINE and is_heard and (device != "ems-1" or "mode" in state.facts)

            assert await until(held.workbench, is_there, 30)
            wanted = [(command, params) for one, command, params in ROWS if one == device]
            if device == "dlms-1":
                wanted.append(("LOAD_PROFILE", hour))
            for command, params in wanted:
                done = await held.workbench.settled(held.workbench.submit(device, command, params))
                assert done.status is Status.SUCCESSFUL, done

        async with asyncio.TaskGroup() as group:
            for device in dict.fromkeys(one for one, _command, _params in ROWS):
                group.create_task(of(device))


def stories(path: Path) -> Iterator[Story]:
    """Of what succeeded and has frames."""
    with closing(LogReader(path)) as reader:
        for number in reader.page(limit=500).ids:
            story = reader.story(number)
            if story is not None and story.frames and story.interaction.status is Status.SUCCESSFUL:
                yield story


def again(story: Story, frames: tuple[Frame, ...]) -> Mapping[str, Any] | None:
    """What the adapter of a story makes of frames, in the form of the log."""
    row = story.interaction
    adapter = Registry()[row.adapter]
    assert isinstance(adapter, Rereader), f"{row.adapter} does not read its frames again"
    answer = adapter.reread(CommandSpec(name=row.command, title=row.command, kind=row.kind), row.params, frames)
    return None if answer is None else jsonable(answer.result)


async def told(path: Path) -> list[Difference]:
    return [difference async for difference in check(path, Registry())]


def copy_with(source: Path, folder: Path, *changes: Callable[[sqlite3.Connection], object]) -> Path:
    path = folder / "edited.mwk"
    shutil.copy(source, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for change in changes:
            change(db)
    return path


def alter(device: str, command: str) -> Callable[[sqlite3.Connection], object]:
    """Other bytes in the last answer to a command that has them, as in a file without sums of frames."""
    there, here = ALTERED[device, command]

    def change(db: sqlite3.Connection) -> None:
        frames = db.execute(
            "SELECT frame.id, frame.data FROM frame JOIN interaction ON interaction.id = frame.interaction"
            " JOIN word AS c ON c.id = command_w JOIN word AS w ON w.id = frame.direction_w"
            " JOIN word AS d ON d.id = interaction.device_w WHERE c.text = ? AND w.text = 'in' AND d.text = ?"
            " AND instr(frame.data, ?) ORDER BY frame.id DESC",
            (command, device, there),
        ).fetchall()
        assert frames, f"no answer to {command} of {device} holds {there!r}"
        number, data = frames[0]
        head, found, tail = bytes(data).rpartition(there)
        assert found
        db.execute("UPDATE frame SET crc = NULL, data = ? WHERE id = ?", (head + here + tail, number))

    return change


async def test_every_system_says_the_same_again(session: Path) -> None:
    assert await told(session) == []
    read = {(one.interaction.device, one.interaction.command): again(one, one.frames) for one in stories(session)}
    wanted = {(device, command) for device, command, _params in ROWS}
    assert wanted <= {key for key, result in read.items() if result is not None}
    empty = {key for key in wanted if not read[key]}
    assert empty == {("lem-1", "SYNC_TIME")}, "only that it was taken can be seen"
    assert read["dlms-1", "LOAD_PROFILE"]


async def test_one_alteration_in_each_system_is_told_as_exactly_that(session: Path, tmp_path: Path) -> None:
    differences = await told(copy_with(session, tmp_path, *(alter(*key) for key in ALTERED)))
    assert {one.what for one in differences} == {"reread"}
    assert sorted((one.device, one.command) for one in differences) == sorted(ALTERED)


@pytest.mark.parametrize(("device", "command"), ALTERED)
def test_an_altered_answer_is_told_alone(session: Path, tmp_path: Path, device: str, command: str) -> None:
    path = copy_with(session, tmp_path, alter(device, command))
    with closing(LogReader(path)) as reader:
        (found,) = reread(reader, Registry())
    assert (found.what, found.device, found.command) == ("reread", device, command)


def test_what_a_secret_was_taken_out_of_is_not_judged(session: Path) -> None:
    seen = set()
    for story in stories(session):
        hidden = tuple(
            replace(one, data=one.data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n[redacted]")
            if one.data.startswith(b"HTTP")
            else replace(one, data=b"[redacted]")
            for one in story.frames
            if one.direction is Direction.IN
        )
        out = tuple(one for one in story.frames if one.direction is Direction.OUT)
        assert again(story, out + hidden) is None, story.interaction
        seen.add(story.interaction.adapter)
    assert len(seen) == 10


def test_no_octets_raise_anything_else_than_a_word(session: Path) -> None:
    """Answers with one octet changed, cut or missing: read, or refused in words, and nothing else."""
    for story in stories(session):
        for place, frame in enumerate(story.frames):
            if frame.direction is Direction.OUT or place > MOST:
                continue
            ends = (0, len(frame.data) // 2, len(frame.data) - 1)
            datas = [frame.data[:end] for end in ends]
            datas += [frame.data[:end] + bytes((frame.data[end] ^ 0x41,)) + frame.data[end + 1 :] for end in ends[1:]
                      if frame.data]  # fmt: skip
            for data in datas:
                frames = (*story.frames[:place], replace(frame, data=data), *story.frames[place + 1 :])
                with contextlib.suppress(WorkbenchError):
                    again(story, frames)


@pytest.mark.parametrize(("ciphering", "is_read"), [("none", True), ("general", False)])
async def test_a_meter_that_ciphers_is_not_judged(tmp_path: Path, ciphering: str, *, is_read: bool) -> None:
    """The keys are not recorded; without ciphering the same meter is read again, frame by frame over HDLC."""
    path = tmp_path / "ciphered.mwk"
    settings = {
        "framing": "hdlc", "physical_address": 17, "client": KEY_CLIENT, "authentication": "gmac",
        "ciphering": ciphering, "cipher_key": TEST_ENCRYPTION_KEY, "authentication_key": TEST_AUTHENTICATION_KEY,
    }  # fmt: skip
    async with asyncio.timeout(30), DlmsMeterSimulator(DlmsConfig(framing="hdlc", max_pdu=512)) as meter:
        with open_session(path) as opened:
            workbench = opened.workbench
            async with running(workbench):
                workbench.save_device(
                    Device(id="dlms", name="Meter", adapter="dlms", settings={"address": meter.url, **settings})
                )
                assert await until(workbench, lambda: workbench.state("dlms").link is LinkState.ONLINE, 30)
                done = await workbench.settled(workbench.submit("dlms", "READ_REGISTERS"))
                assert done.status is Status.SUCCESSFUL, done
    (story,) = stories(path)
    result = again(story, story.frames)
    assert bool(result and result["rows"]) is is_read
    spoilt = [
        replace(one, data=one.data[:-3] + bytes((one.data[-3] ^ 1,)) + one.data[-2:])
        if one.direction is Direction.IN
        else one
        for one in story.frames
    ]
    with pytest.raises(RemoteProtocolError, match="frame check"):
        again(story, tuple(spoilt))
