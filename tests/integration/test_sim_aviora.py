"""The Aviora gateway simulator over raw sockets, judged from aviora-protocolzd.md and its vectors; no adapter, no codec
of the app's side. Section numbers are those of the specification."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError, LinkError
from app.protocols.aviora_device import MeterOperation
from app.simulators import catalog
from app.simulators._http import SimClock
from app.simulators.aviora import (
    FAULTS,
    GATEWAY_FAULTS,
    AvioraConfig,
    AvioraGatewaySimulator,
    JobState,
    LineMeter,
    line_meters,
    read_ftp_address,
)

DEADLINE_S = 10.0  # longest wait for anything in this file; all of it is on one machine
FAST = 200.0  # simulated seconds per second
START = datetime(2026, 7, 3, 8, 0, tzinfo=UTC)
SERIAL = "AVI2026070001"
METER = "23660088"
HEAD = '{"device":{"flag":"AVI","serialNumber":"AVI2026070001"},"function":'
ACK = f'{HEAD}"ack"}}'.encode()
NACK = f'{HEAD}"nack"}}'.encode()
ACCEPT = f'{HEAD}"ident","response":{{"register":true}}}}'.encode()
LOG = f'{HEAD}"log"}}'.encode()
SAMPLES = {
    sample["id"]: sample
    for sample in json.loads((Path(__file__).parents[1] / "vectors" / "aviora.json").read_text("utf-8"))["samples"]
}


def request(function: str, contents: object = None) -> bytes:
    """Compact, ASCII, in the order of 3.2."""
    whole: dict[str, Any] = {"device": {"flag": "AVI", "serialNumber": SERIAL}, "function": function}
    if contents is not None:
        whole["request"] = contents
    return json.dumps(whole, separators=(",", ":")).encode("ascii")


def readout(meter: str = METER) -> bytes:
    return request("readout", {"directive": "ReadoutDirective1", "parameters": {"METERSERIALNUMBER": meter}})


def profile(start: str, end: str, meter: str = METER) -> bytes:
    return request("loadprofile", {"METERSERIALNUMBER": meter, "startDate": start, "endDate": end})


def setting(*entries: tuple[str, str], **meter: object) -> bytes:
    return request(
        "setting",
        {"meters": [{"operation": name, "meter": {"serialNumber": serial} | meter} for name, serial in entries]},
    )


def directive(name: str, parameter: str = "300") -> bytes:
    return request(
        "directiveAdd", {"directive": {"id": name, "directive": [{"operation": "setBaud", "parameter": parameter}]}}
    )


def listing(name: str = "*") -> bytes:
    return request("directiveList", {"filter": {"id": name}})


def delete(name: str) -> bytes:
    return request("directiveDelete", {"filter": {"id": name}})


def texts(data: bytes) -> list[tuple[int, bool, bytes]]:
    """(packetNum, packetStream, text) of every packet of meter data."""
    found = re.findall(
        rb'"packetNum":(\d+),"packetStream":(true|false),"response":\{"data":\{"id":"[^"]*","readout":"(.*?)"\}\}\}',
        data,
        re.DOTALL,
    )
    return [(int(number), more == b"true", text) for number, more, text in found]


def joined(data: bytes) -> bytes:
    return b"".join(text for _, _, text in texts(data))


class Link:
    """One TCP connection; ``data`` is what came and was not taken."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.data = b""

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, is_enough: Callable[[bytes], bool]) -> bytes:
        """All that came up to then; the connection stays open."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_enough(self.data):
                piece = await self.reader.read(65536)
                assert piece, self.data
                self.data += piece
        found, self.data = self.data, b""
        return found

    async def objects(self, number: int) -> bytes:
        return await self.until(lambda data: data.count(b'{"device":') >= number and data.endswith(b"}"))

    async def last_packet(self) -> bytes:
        return await self.until(lambda data: b'"packetStream":false' in data and data.endswith(b"}}"))

    async def ask(self, data: bytes) -> bytes:
        self.write(data)
        return await self.objects(1)

    async def end(self) -> bytes:
        """What comes until the peer closes, in order or by a reset."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                self.data += await self.reader.read()
            except ConnectionResetError:
                self.data += b"<reset>"
        found, self.data = self.data, b""
        return found

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


class HeadEnd:
    """Listens for push connections; the test gets them in order."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.all: list[Link] = []
        self.server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> HeadEnd:
        await self.listen()
        return self

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def deafen(self) -> None:
        """Stop listening and close what is open."""
        assert self.server is not None
        self.server.close()
        for link in self.all:
            link.writer.close()

    async def __aexit__(self, *exc: object) -> None:
        self.deafen()
        for link in self.all:
            await link.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer)
        self.all.append(link)
        self.links.put_nowait(link)

    async def link(self) -> Link:
        async with asyncio.timeout(DEADLINE_S):
            return await self.links.get()


class Bench:
    def __init__(self, sim: AvioraGatewaySimulator, head: HeadEnd) -> None:
        self.sim = sim
        self.head = head
        self.opened: list[Link] = []

    async def pull(self) -> Link:
        link = Link(*await asyncio.open_connection("127.0.0.1", self.sim.pull_port))
        self.opened.append(link)
        return link

    async def ask(self, data: bytes) -> bytes:
        """One exchange on a connection of its own; the gateway has let go of it when this returns."""
        link = await self.pull()
        answer = await link.ask(data)
        await self.leave(link)
        return answer

    async def leave(self, link: Link) -> None:
        await link.close()
        await self.until(lambda: self.sim._client is None)

    async def push(self) -> Link:
        """The next push connection of a registered gateway."""
        link = await self.head.link()
        await self.until(lambda: self.sim.is_push_up)
        return link

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.sim.wait_until(condition)

    async def pass_time(self, seconds: float) -> None:
        """With a clock that stands still: so many seconds in small steps, with turns for all that moves by them."""
        for _ in range(round(seconds / 0.05)):
            self.sim.clock.advance(0.05)
            await self.settle()

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)


@asynccontextmanager
async def bench(*faults: str, scale: float = FAST, **changes: Any) -> AsyncIterator[Bench]:
    """A head-end and a gateway, registered and past its first job unless told otherwise."""
    values: dict[str, Any] = {"is_registered": True, "has_first_job_nack": False, "faults": faults, "alive_s": 1e6}
    async with HeadEnd() as head:
        config = AvioraConfig(push_port=head.port, **(values | changes))
        async with AvioraGatewaySimulator(config, clock=SimClock(time_scale=scale, start=START)) as sim:
            found = Bench(sim, head)
            try:
                yield found
            finally:
                for link in found.opened:
                    await link.close()


# ------------------------------------------------------------------------------------------------------- registration


@pytest.mark.parametrize(("name", "revision", "serial"), [("S01", "B", SERIAL), ("S02", "A", "0123456789ABCDE")])
async def test_ident_is_sent_until_it_is_accepted(name: str, revision: str, serial: str) -> None:
    (said,) = SAMPLES[name]["segments"]
    date = re.search(r'"deviceDate":"([^"]*)"', said)
    assert date is not None
    async with bench(is_registered=False, revision=revision, serial=serial, device_date=date[1]) as found:
        link = await found.head.link()
        ident = (await link.objects(1)).decode()
        assert ident == re.sub(r'"pullPort":\d+', f'"pullPort":{found.sim.pull_port}', said)
        assert not found.sim.is_push_up
        link.write(ACCEPT)
        await found.until(lambda: found.sim.is_registered and found.sim.is_push_up)
        await link.close()
        again = await found.push()
        assert again.data == b""
        assert found.sim.idents == 1


@pytest.mark.parametrize(
    "answer",
    [
        ACK,
        ACK + ACCEPT,
        ACCEPT[:60],
        ACCEPT.replace(b":", b": "),
        ACCEPT.replace(b"true", b"false"),
        ACCEPT.replace(b"register", b"registered"),
    ],
)
async def test_any_other_first_bytes_cost_30_seconds(answer: bytes) -> None:
    async with bench(is_registered=False, scale=0.0) as found:
        link = await found.head.link()
        await link.objects(1)
        link.write(answer)
        assert await link.end() == b""
        await found.pass_time(29.5)
        assert found.sim.connects == 1
        found.sim.clock.advance(0.5)
        link = await found.head.link()
        await link.objects(1)
        link.write(ACCEPT.replace(b"true", b'"true"'))
        await found.until(lambda: found.sim.is_push_up)


async def test_an_unanswered_ident_is_repeated_after_60_seconds() -> None:
    async with bench(is_registered=False, scale=0.0) as found:
        link = await found.head.link()
        await link.objects(1)
        await found.pass_time(29.9)
        assert not link.reader.at_eof()
        await found.pass_time(0.2)
        assert await link.end() == b""
        await found.pass_time(29.5)
        assert found.sim.connects == 1
        found.sim.clock.advance(0.5)
        await (await found.head.link()).objects(1)
        assert found.sim.idents == 2


async def test_without_a_head_end_it_tries_every_40_seconds() -> None:
    async with bench(is_registered=False, scale=100.0) as found:
        await (await found.head.link()).objects(1)
        before = found.sim.clock.elapsed
        found.head.deafen()
        await found.until(lambda: "connection failed" in found.sim.log_lines[-1])
        await found.head.listen()
        await (await found.head.link()).objects(1)
        assert found.sim.clock.elapsed - before >= 30 + 40


async def test_a_registered_gateway_reconnects_at_once_and_silently() -> None:
    async with bench(device_date="2026-11-21 02:28:13", scale=1000.0, alive_s=300.0) as found:
        for _ in range(5):
            link = await found.head.link()
            await link.close()
        link = await found.push()
        assert (await link.objects(1)).decode() == SAMPLES["S04"]["segments"][0]  # its first words
        assert found.sim.clock.elapsed >= 300
        assert (found.sim.connects, found.sim.idents) == (6, 0)


async def test_alive_every_300_seconds_but_not_while_push_is_down() -> None:
    async with bench(scale=0.0, device_date="2026-11-21 02:28:13", alive_s=300.0) as found:
        link = await found.push()
        await found.pass_time(299)
        assert found.sim.alives == 0
        found.sim.clock.advance(1)
        assert (await link.objects(1)).decode() == SAMPLES["S04"]["segments"][0]
        found.head.deafen()
        await found.until(lambda: not found.sim.is_push_up)
        found.sim.clock.advance(300)
        await found.until(lambda: "connection failed" in found.sim.log_lines[-1])
        assert found.sim.alives == 1
        await found.head.listen()
        found.sim.clock.advance(0.2)
        link = await found.push()
        found.sim.clock.advance(300)
        await link.objects(1)
        assert found.sim.alives == 2


async def test_a_restart_keeps_the_flag_and_what_is_stored() -> None:
    async with bench(has_first_job_nack=True) as found:
        await found.push()
        await found.ask(directive("one"))
        assert await found.ask(readout()) == NACK
        await found.sim.restart()
        await found.push()
        assert found.sim.idents == 0
        assert b'"id":"one"' in await found.ask(listing())
        assert await found.ask(readout()) == NACK  # first job again
        assert [job.number for job in found.sim.jobs] == [0, 0]


# ---------------------------------------------------------------------------------------------------- pull as a channel


async def test_a_second_pull_client_is_reset() -> None:
    async with bench() as found:
        await found.push()
        first = await found.pull()
        assert await first.ask(listing()) == ACK
        second = await found.pull()
        assert await second.end() == b"<reset>"
        assert await first.ask(listing()) == ACK
        await found.leave(first)
        assert await found.ask(listing()) == ACK


async def test_a_pull_client_that_says_nothing_is_closed() -> None:
    async with bench(idle_s=360.0, scale=0.0) as found:
        await found.push()
        link = await found.pull()
        await found.until(lambda: found.sim._client is not None)
        await found.settle()
        found.sim.clock.advance(359)
        await found.settle()
        assert found.sim._client is not None
        found.sim.clock.advance(1)
        assert await link.end() == b""


@asynccontextmanager
async def stepped(**changes: Any) -> AsyncIterator[tuple[Bench, Link]]:
    """A pull connection to a gateway whose time stands still."""
    async with bench(scale=0.0, **changes) as found:
        await found.push()
        yield found, await found.pull()


async def arrive(found: Bench, link: Link, data: bytes) -> None:
    """``data`` is one read of the gateway."""
    number = found.sim.read_count + 1
    link.write(data)
    await found.until(lambda: found.sim.read_count == number)
    assert found.sim.reads[-1] == data


async def test_an_object_in_two_reads_is_two_nacks() -> None:
    async with stepped() as (found, link):
        first, _, second = SAMPLES["S29"]["send"]
        await arrive(found, link, first.encode())
        await found.pass_time(0.4)
        await arrive(found, link, second.encode())
        await found.pass_time(0.4)
        assert await link.objects(2) == NACK + NACK


async def test_the_second_of_two_objects_in_one_read_is_lost() -> None:
    async with stepped() as (found, link):
        await arrive(found, link, directive("one") + directive("two"))
        await found.pass_time(1)
        assert await link.objects(1) == ACK
        assert list(found.sim.directives) == ["one"]


async def test_one_of_two_close_messages_is_lost() -> None:
    async with stepped() as (found, link):
        await arrive(found, link, directive("overwritten"))
        await arrive(found, link, directive("looked-at"))
        await found.pass_time(0.05)
        await arrive(found, link, directive("cleared"))
        await found.pass_time(1)
        assert await link.objects(1) == ACK
        assert list(found.sim.directives) == ["looked-at"]


async def test_the_loss_can_be_switched_off() -> None:
    async with stepped(has_one_slot=False) as (found, link):
        for name in ("one", "two", "three"):
            await arrive(found, link, directive(name))
        await found.pass_time(1)
        assert await link.objects(3) == ACK * 3
        assert list(found.sim.directives) == ["one", "two", "three"]


async def test_blanks_around_are_harmless_and_1024_bytes_are_the_limit() -> None:
    async with stepped() as (found, link):
        await arrive(found, link, b" \r\n" + directive("one") + b"\r\n text")
        await found.pass_time(0.1)
        assert await link.objects(1) == ACK
        link.write(directive("two", "x" * 1100))
        await found.until(lambda: found.sim.read_count >= 3)
        await found.pass_time(1)
        assert await link.objects(1) == NACK
        assert list(found.sim.directives) == ["one"]


@pytest.mark.parametrize(
    "data",
    [
        LOG.replace(b":", b": "),
        request("inventory"),
        request("x" * 24),
        request("setting"),
        request("fwUpdate", {"port": 21}),
        request("readout", {"METERSERIALNUMBER": "1{2"}),
        readout("99999999"),
        b"no object",
    ],
)
async def test_what_is_refused(data: bytes) -> None:
    async with bench() as found:
        await found.push()
        assert await found.ask(data) == NACK
        assert found.sim.jobs == []


async def test_the_device_header_is_not_looked_at() -> None:
    async with bench() as found:
        await found.push()
        for data in (LOG.replace(SERIAL.encode(), b"nobody"), b'{"function":"log"}'):
            assert (await found.ask(data)).startswith(f'{HEAD}"log","packetNum":1'.encode())


async def test_pull_before_registration_is_answered_after_it_to_whoever_is_there() -> None:
    async with bench(is_registered=False) as found:
        push = await found.head.link()
        await push.objects(1)
        for number, name in enumerate(("one", "two"), 1):
            link = await found.pull()
            link.write(directive(name))
            await found.until(lambda number=number: found.sim.read_count == number)  # type: ignore[misc]
            await found.leave(link)
        link = await found.pull()
        await found.until(lambda: found.sim._client is not None)
        push.write(ACCEPT)
        assert await link.objects(1) == ACK
        assert list(found.sim.directives) == ["two"]


async def test_an_answer_without_a_client_goes_nowhere() -> None:
    async with stepped() as (found, link):
        await arrive(found, link, directive("one"))
        await found.leave(link)
        await found.pass_time(1)
        assert list(found.sim.directives) == ["one"]
        assert found.sim.lost_answers == 1


# ------------------------------------------------------------------------------------------------------------- vectors


def vector_meter(sample: dict[str, Any]) -> LineMeter:
    """A meter that sends what the meter of a readout sample sent."""
    text = joined("".join(sample["push_segments"]).encode("latin-1"))
    is_framed = text.startswith(b"\x02")
    rows, _, _ = text.lstrip(b"\x02").partition(b"!\r\n")
    return LineMeter(serial="12345678", data=rows, is_framed=is_framed)


@pytest.mark.parametrize("name", ["S12", "S13", "S15", "S16", "S17", "S18", "S21"])
async def test_meter_jobs_of_the_vectors(name: str) -> None:
    sample = SAMPLES[name]
    meter = vector_meter(sample) if sample["push_segments"] else LineMeter(serial="12345678")
    async with bench(meters=(meter,), has_first_job_nack=name == "S21") as found:
        push = await found.push()
        answer = await found.ask(sample["send"][0].encode())
        assert answer.decode("latin-1") == "".join(sample["receive_segments"])
        wanted = "".join(sample["push_segments"]).encode("latin-1")
        if wanted:
            assert await push.until(lambda data: len(data) >= len(wanted)) == wanted
        else:
            await found.until(lambda: found.sim.jobs[0].state is JobState.DISCARDED)
            assert push.data == b""


def prepare(name: str, sim: AvioraGatewaySimulator) -> None:
    if name == "S07":
        sim.stored["12345678"] = MeterOperation("add", "12345678")
    if name in ("S09", "S10"):
        text = sample_log(SAMPLES[name])
        sim.log_lines.clear()
        sim.log_lines.extend(text.splitlines())
    if name == "S25":
        for raw in re.findall(r'"directive":("id":.*?\])\}\}', "".join(SAMPLES[name]["receive_segments"])):
            sim.directives[raw.split('"')[3]] = raw.encode()


def sample_log(sample: dict[str, Any]) -> str:
    return "".join(re.findall(r'"log":"(.*?)"\}\}', "".join(sample["receive_segments"]), re.DOTALL))


@pytest.mark.parametrize(
    "name", ["S06", "S07", "S08", "S09", "S10", "S19", "S20", "S22", "S23", "S24", "S25", "S26", "S28", "S30"]
)
async def test_exchanges_of_the_vectors(name: str) -> None:
    sample = SAMPLES[name]
    wanted = "".join(sample["receive_segments"]).encode("latin-1")
    async with bench(meters=(LineMeter(serial="87654321"),), is_linux_build=name == "S08") as found:
        await found.push()
        prepare(name, found.sim)
        link = await found.pull()
        link.write(sample["send"][0].encode())
        assert await link.until(lambda data: len(data) >= len(wanted)) == wanted


# ------------------------------------------------------------------------------------------------------ settings of 8.4


async def test_meters_are_told_apart_by_prefix() -> None:
    async with bench(knows_meters=False) as found:
        await found.push()
        for data, answer, stored in (
            (setting(("add", "30000001")), ACK, ["30000001"]),
            (setting(("add", "3000")), NACK, ["30000001"]),
            (setting(("remove", "3000")), ACK, ["30000001"]),
            (setting(("remove", "4")), NACK, ["30000001"]),
            (setting(("update", "5")), ACK, ["30000001"]),
            (setting(("add", "1" * 16)), NACK, ["30000001"]),
            (setting(("add", "8"), brand="TOOLONG"), ACK, ["30000001", "8"]),
            (setting(("remove", "9"), ("remove", "30000001")), NACK, ["8"]),  # what works stays
            (setting(("add", "7"), x="y" * 400), ACK, ["8"]),
            (request("setting", {}), ACK, ["8"]),
        ):
            assert await found.ask(data) == answer, data
            assert list(found.sim.stored) == stored
        assert found.sim.stored["8"].brand == ""


async def test_revision_a_acks_the_add_of_a_meter_that_is_there() -> None:
    async with bench(revision="A") as found:
        await found.push()
        assert await found.ask(setting(("add", METER))) == ACK


async def test_the_linux_build_removes_the_meter_added_last_only() -> None:
    async with bench(knows_meters=False, is_linux_build=True) as found:
        await found.push()
        for serial in ("1", "2"):
            await found.ask(setting(("add", serial)))
        assert await found.ask(setting(("remove", "1"))) == NACK
        assert await found.ask(setting(("remove", "2"))) == ACK


async def test_a_server_change_closes_everything_and_moves() -> None:
    async with HeadEnd() as other, stepped() as (found, pull):
        old = found.head.all[0]
        await arrive(found, pull, request("setting", {"Server": {"ip": "127.0.0.1", "port": other.port}}))
        await found.pass_time(0.35)
        assert await pull.end() == b""  # not answered
        with pytest.raises(ConnectionRefusedError):
            await found.pull()
        await found.pass_time(0.9)
        assert found.sim.is_push_up
        await found.pass_time(0.1)
        assert await old.end() == b""
        await found.pass_time(0.7)
        new = await other.link()
        await found.until(lambda: found.sim.is_push_up)
        assert found.sim.server == ("127.0.0.1", other.port)
        pull = await found.pull()  # it listens again, on the same port
        await arrive(found, pull, listing())
        await found.pass_time(0.1)
        assert await pull.objects(1) == ACK
        assert (found.sim.idents, new.data) == (0, b"")
        assert found.head.links.empty()


async def test_a_server_elsewhere_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []

    async def refuse(*address: object) -> None:
        called.append(address)
        raise OSError

    async with bench() as found:
        await found.push()
        pull = await found.pull()
        monkeypatch.setattr(asyncio, "open_connection", refuse)
        pull.write(request("setting", {"Server": {"ip": "192.0.2.1", "port": 8722}}))
        assert await pull.end() == b""
        await found.until(lambda: "connection failed" in found.sim.log_lines[-1])
        assert called == []


# ---------------------------------------------------------------------------------------------------------- directives


async def test_directives_are_stored_listed_and_deleted() -> None:
    async with bench() as found:
        await found.push()
        assert await found.ask(directive("Alpha")) == ACK
        assert await found.ask(directive("Beta")) == ACK
        assert await found.ask(directive("Alpha", "9600")) == ACK
        one = f'{HEAD}"directiveList","packetNum":1,"packetStream":false,"response":{{"directive":"id":"Alpha",'
        assert (await found.ask(listing("Alpha"))).decode() == (
            one + '"directive":[{"operation":"setBaud","parameter":"9600"}]}}'
        )
        assert (await found.ask(request("directiveList"))).count(b'"packetNum"') == 2
        assert await found.ask(listing("Alph")) == ACK
        assert (await found.ask(listing("x" * 64))).count(b'"packetNum"') == 2  # too long an id is none
        assert await found.ask(delete("Alph")) == NACK
        assert await found.ask(request("directiveDelete", {"filter": {}})) == NACK
        assert await found.ask(delete("Alpha")) == ACK
        assert list(found.sim.directives) == ["Beta"]
        assert await found.ask(delete("*")) == ACK
        assert await found.ask(listing()) == ACK


async def test_there_is_room_for_64_directives() -> None:
    async with bench() as found:
        await found.push()
        link = await found.pull()
        for number in range(64):
            assert await link.ask(directive(f"d{number}")) == ACK
        assert await link.ask(directive("one-more")) == NACK
        assert await link.ask(directive("d7", "600")) == ACK
        assert await link.ask(directive("x" * 64)) == NACK
        assert await link.ask(directive("brace", "a{b")) == NACK


async def test_a_long_directive_overflows_with_foreign_bytes() -> None:
    async with bench() as found:
        await found.push()
        await found.ask(directive("long", "9" * 830))
        await found.ask(directive("short"))
        link = await found.pull()
        link.write(listing())
        data = await link.until(lambda data: b'"packetNum":2' in data and data.endswith(b"}}"))
        begin, _, rest = data.partition(b"\0")
        assert len(begin) == 1023
        assert begin.endswith(b"9")
        foreign, second, _ = rest.partition(b'{"device"')
        stored = found.sim.directives["long"]
        assert len(begin) + 1 + len(foreign) == len(begin.partition(b'"id"')[0] + stored + b"}}")
        assert foreign
        assert not foreign.isascii()
        assert second


# ----------------------------------------------------------------------------------------------------------- meter jobs


async def test_the_first_job_is_refused_and_its_slot_is_gone() -> None:
    async with bench(has_first_job_nack=True, scale=0.0) as found:
        push = await found.push()
        link = await found.pull()
        answers = []
        for _ in range(5):
            await arrive(found, link, readout())
            await found.pass_time(0.1)
            answers.append(await link.objects(1))
        assert answers == [NACK, ACK, ACK, ACK, NACK]  # 3 outstanding
        for _ in range(3):
            await found.pass_time(2.2)
            assert joined(await push.last_packet()).endswith(b"!\r\n")
            push.write(ACK)
            await found.settle()
        await found.pass_time(1)
        assert [job.state for job in found.sim.jobs] == [JobState.DISCARDED] + [JobState.SENT] * 3
        answers = []
        for _ in range(4):
            await arrive(found, link, readout())
            await found.pass_time(0.1)
            answers.append(await link.objects(1))
        assert answers == [ACK, ACK, ACK, NACK]


async def test_results_come_in_the_order_of_their_acks() -> None:
    async with bench() as found:
        push = await found.push()
        link = await found.pull()
        for data in (readout(), profile("2026-07-01 00:00", "2026-07-01 01:00"), readout()):
            assert await link.ask(data) == ACK
        # unacked, each waits its 10 s
        data = await push.until(lambda data: data.count(b'"packetStream":false') == 3 and data.endswith(b"}}}"))
        functions = re.findall(rb'"function":"(\w+)","packetNum":\d+,"packetStream":false', data)
        assert functions == [b"readout", b"loadprofile", b"readout"]


@pytest.mark.parametrize("answer", [ACK, NACK, b"x", b""])
async def test_pull_is_not_served_while_a_result_waits_for_bytes(answer: bytes) -> None:
    async with stepped() as (found, link):
        push = found.head.all[0]
        await arrive(found, link, readout())
        await found.pass_time(1.2)
        assert await link.objects(1) == ACK
        await push.last_packet()
        await arrive(found, link, listing())
        await found.pass_time(9)
        assert link.reader.at_eof() is False
        assert [job.state for job in found.sim.jobs] == [JobState.WAITING]
        if answer:
            push.write(answer)
            await found.until(lambda: found.sim.jobs[0].state is JobState.SENT)
        await found.pass_time(1.2)
        assert await link.objects(1) == ACK
        assert found.sim.jobs[0].state is JobState.SENT


async def test_a_result_is_dropped_when_push_is_down() -> None:
    async with stepped() as (found, link):
        found.head.deafen()
        await found.until(lambda: not found.sim.is_push_up)
        await arrive(found, link, readout())
        await found.pass_time(1.2)
        assert await link.objects(1) == ACK
        await arrive(found, link, listing())
        found.sim.clock.advance(9)
        await found.settle()
        assert found.sim.jobs[0].state is JobState.WAITING
        found.sim.clock.advance(1)
        await found.until(lambda: found.sim.jobs[0].state is JobState.DROPPED)
        await found.pass_time(0.1)
        assert await link.objects(1) == ACK


async def test_a_failed_job_is_never_reported() -> None:
    async with bench(alive_s=1e6) as found:
        push = await found.push()
        assert await found.ask(setting(("add", "555"))) == ACK  # stored, but not on the line
        for data in (readout("555"), profile("2026-02-30 00:00", "2026-02-30 03:00")):
            assert await found.ask(data) == ACK
        await found.until(lambda: [job.state for job in found.sim.jobs] == [JobState.FAILED] * 2)
        assert await found.ask(readout()) == ACK
        assert b"0.0.0(23660088)" in await push.last_packet()  # the first bytes of push


async def test_generated_meters() -> None:
    async with bench(meters=line_meters(2)) as found:
        push = await found.push()
        assert await found.ask(readout("23660089")) == ACK
        data = await push.last_packet()
        packets = texts(data)
        assert [(number, more) for number, more, _ in packets] == [(1, True), (2, False)]
        assert len(packets[0][2]) == 700
        text = joined(data)
        assert b'"id":"/MKL5<1>C500.T01"' in data
        assert b"C.1.0(23660089)\r\n" in text
        assert b"0.9.2(26-07-03)\r\n" in text
        total, *tariffs = (float(re.search(rb"1\.8\.%d\(([0-9.]{10})\*kWh" % n, text)[1]) for n in range(4))  # type: ignore[index]
        assert 2445.678 <= total < 2446
        assert round(sum(tariffs), 3) == total
        push.write(ACK)
        await found.ask(profile("2026-07-01T00:07", "2026-07-01 00:40:59"))
        assert joined(await push.last_packet()).split(b"\r\n") == [
            b"P.01(2607010015)(00000000)(15)(2)(1.5.0)(kW)(5.5.0)(kvar)",
            b"(001.370)(000.130)",
            b"(001.740)(000.260)",
            b"!",
            b"",
        ]
        push.write(ACK)
        await found.ask(profile("2026-07-02 00:00", "2026-07-01 00:00"))
        assert joined(await push.last_packet()).count(b"\r\n") == 2  # end before start: an empty profile


async def test_revision_a_drops_the_end_line_and_spoils_the_next_job() -> None:
    meters = (
        LineMeter(serial="1", data=b"1.8.0(000001.000*kWh)\r\n"),
        LineMeter(serial="2", data=b"F.F(00)\r\n", is_framed=True),
    )
    async with bench(revision="A", meters=meters) as found:
        push = await found.push()
        for serial, text in (("1", b"1.8.0(000001.000*kWh)\n"), ("2", b"\x02F.F(00)\n")):
            assert await found.ask(readout(serial)) == ACK
            assert joined(await push.last_packet()) == text
            push.write(ACK)
        assert await found.ask(readout("1")) == ACK
        await found.until(lambda: found.sim.jobs[-1].state is JobState.FAILED)
        assert await found.ask(readout("1")) == ACK
        assert joined(await push.last_packet()) == b"1.8.0(000001.000*kWh)\n"


async def test_a_block_check_passes_through_revision_b() -> None:
    async with bench(meters=(LineMeter(serial="1", data=b"F.F(01)\r\n", is_framed=True),)) as found:
        push = await found.push()
        await found.ask(readout("1"))
        text = joined(await push.last_packet())
        check = 0
        for byte in text[1:-1]:
            check ^= byte
        assert text == b"\x02F.F(01)\r\n!\r\n\x03" + bytes((check,))
        assert check


# ------------------------------------------------------------------------------------------------------------- firmware


class FtpDouble:
    """One image behind USER u, PASS p; ``commands`` is what came, "" at the end of the connection."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.commands: list[str] = []
        self.port = 0

    async def __aenter__(self) -> FtpDouble:
        self._server = await asyncio.start_server(self._control, "127.0.0.1", 0)
        self._data = await asyncio.start_server(self._send, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self._data.close()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._data.sockets[0].getsockname()[1]
        replies = {
            "USER": "331 password", "TYPE": "200 binary", "RETR": "150 comes",
            "PASV": f"227 Entering Passive Mode (127,0,0,1,{port >> 8},{port & 255})",
        }  # fmt: skip
        writer.write(b"220 ready\r\n")
        while line := (await reader.readline()).decode().strip():
            self.commands.append(line)
            reply = ("230 in" if line == "PASS p" else "530 no") if line.startswith("PASS") else replies[line[:4]]
            writer.write(f"{reply}\r\n".encode())
        self.commands.append("")
        writer.close()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.image)
        writer.close()


def update(address: str) -> bytes:
    return request("fwUpdate", {"address": address})


async def test_a_firmware_image_is_fetched_after_the_ack() -> None:
    image = bytes(range(256)) * 300
    async with FtpDouble(image) as ftp, bench() as found:
        await found.push()
        assert await found.ask(update(f"ftp://u:p@127.0.0.1:{ftp.port}/fw/aviora_1.2.0.bin")) == ACK
        await found.until(lambda: found.sim.firmware is not None)
        assert found.sim.firmware == image
        assert found.sim.updates[0].outcome == "stored"
        assert ftp.commands[:5] == ["USER u", "PASS p", "TYPE I", "PASV", "RETR /fw/aviora_1.2.0.bin"]
        assert "QUIT" not in ftp.commands
        assert "u:p@" not in repr(found.sim.updates)


async def test_a_firmware_order_is_acked_whatever_its_address() -> None:
    async with bench() as found:
        await found.push()
        for address in ("http://127.0.0.1/x", "ftp://192.0.2.1/x", "ftp://127.0.0.1:x/y"):
            assert await found.ask(update(address)) == ACK
        assert [one.outcome for one in found.sim.updates] == ["failed: the address is not on this machine"]


@pytest.mark.parametrize("is_linux", [True, False])
async def test_a_refused_login_blocks_the_linux_build(is_linux: bool) -> None:
    async with FtpDouble(b"image") as ftp, bench(is_linux_build=is_linux) as found:
        await found.push()
        await found.ask(update(f"ftp://u:wrong@127.0.0.1:{ftp.port}/x"))
        await found.until(lambda: bool(found.sim.updates) and found.sim.updates[0].outcome == "failed: error_perm")
        assert await found.ask(update(f"ftp://u:p@127.0.0.1:{ftp.port}/x")) == ACK
        if is_linux:
            assert len(found.sim.updates) == 1
            await found.sim.restart()
            await found.push()
            await found.ask(update(f"ftp://u:p@127.0.0.1:{ftp.port}/x"))
        await found.until(lambda: found.sim.firmware == b"image")


async def test_a_silent_ftp_server_does_not_hold_the_end_up() -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with bench(scale=1.0) as found:
        await found.push()
        address = f"ftp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        assert await found.ask(update(address)) == ACK
        async with asyncio.timeout(DEADLINE_S):
            await came.wait()
    async with asyncio.timeout(DEADLINE_S):
        await gone.wait()
    server.close()


def test_the_gateway_reads_an_ftp_address_in_its_own_way() -> None:
    plain = read_ftp_address("ftp://192.168.1.5/a/b.bin")
    assert plain is not None
    assert (plain.host, plain.port, plain.user, plain.password, plain.path) == (
        "192.168.1.5", 21, "anonymous", "", "/a/b.bin",
    )  # fmt: skip
    cut = read_ftp_address(f"ftp://{'u' * 40}:{'p' * 40}@h:2121/{'x' * 80}")
    assert cut is not None
    assert (len(cut.user), len(cut.password), cut.port, len(cut.path)) == (31, 31, 2121, 63)
    first = read_ftp_address("ftp://u:a@b@h/x")
    assert first is not None
    assert (first.password, first.host) == ("a", "b@h")


# --------------------------------------------------------------------------------------------------------------- faults

PUSHED = "push/readout"


@asynccontextmanager
async def asked(*faults: str, **changes: Any) -> AsyncIterator[tuple[Bench, Link]]:
    """A readout of three packets was acked."""
    async with bench(*faults, **({"meters": line_meters(2, months=38)} | changes)) as found:
        push = await found.push()
        assert await found.ask(readout()) == ACK
        yield found, push


async def state(found: Bench, wanted: JobState) -> None:
    await found.until(lambda: found.sim.jobs[0].state is wanted)


async def test_fault_silence() -> None:
    async with asked("silence@pull/log#1") as (found, push):
        await push.last_packet()
        push.write(ACK)
        link = await found.pull()
        link.write(LOG)
        await found.until(lambda: found.sim.read_count == 2)
        await found.until(lambda: not found.sim.faults.active())
        assert (await link.ask(LOG)).count(b'"function"') >= 1
        found.sim.faults.set(f"silence@{PUSHED}")
        assert await link.ask(readout()) == ACK
        await found.until(lambda: found.sim.jobs[1].state is JobState.DROPPED)
        found.sim.faults.set("silence@push/alive")
        await found.sim.send_alive()
        assert found.sim.alives == 0
    async with bench("silence@push/ident#1", is_registered=False) as found:
        assert await (await found.head.link()).end() == b""
        await (await found.head.link()).objects(1)


@pytest.mark.parametrize(
    ("fault", "answer", "is_done"), [("nack", NACK, False), ("close", b"", False), ("lose-answer", None, True)]
)
async def test_faults_of_pull(fault: str, answer: bytes | None, is_done: bool) -> None:
    async with bench(f"{fault}@directiveAdd#1") as found:
        await found.push()
        link = await found.pull()
        link.write(directive("one"))
        if answer == NACK:
            assert await link.objects(1) == NACK
        elif answer == b"":
            assert await link.end() == b""
        await found.until(lambda: not found.sim.faults.active())
        assert bool(found.sim.directives) is is_done
        if answer is None:
            assert (await link.ask(listing())).startswith(f'{HEAD}"directiveList"'.encode())


async def test_fault_open_list() -> None:
    async with bench("open-list") as found:
        await found.push()
        await found.ask(directive("one"))
        assert b'"packetStream":true' in await found.ask(listing())


async def test_fault_cut() -> None:
    async with asked(f"cut@{PUSHED}#1") as (_, push):
        data = await push.last_packet()
        assert data.count(b'{"device"') == 3
        assert [number for number, _, _ in texts(data[300:])] == [2, 3]
        assert b'"}}}' not in data[: data.index(b'"packetNum":2')]


async def test_fault_split() -> None:
    async with asked(f"split=1@{PUSHED}") as (_, push):
        pieces: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S):
            while not b"".join(pieces).endswith(b'!\r\n"}}}'):
                pieces.append(await push.reader.read(4096))
        assert len(pieces) > 500
        assert [number for number, _, _ in texts(b"".join(pieces))] == [1, 2, 3]


async def test_fault_merge() -> None:
    async with asked(f"merge@{PUSHED}") as (_, push):
        async with asyncio.timeout(DEADLINE_S):
            data = await push.reader.read(65536)
        assert data.startswith(f'{HEAD}"alive"'.encode())
        assert [number for number, _, _ in texts(data)] == [1, 2, 3]


async def test_fault_garbage() -> None:
    async with asked(f"garbage@{PUSHED}") as (_, push):
        data = await push.last_packet()
        assert data.startswith(b"/?!\r\n")
        assert data.count(b"/?!\r\n") == 3


async def test_fault_endless() -> None:
    async with asked(f"endless=100@{PUSHED}") as (_, push):
        data = await push.until(lambda data: len(data) >= 100 << 10)
        assert len(data) == 100 << 10
        assert data.count(b'{"device"') == 1
        assert b'"}}' not in data


async def test_fault_slow_and_late() -> None:
    async with asked(f"slow=30@{PUSHED}", f"late=50@{PUSHED}") as (found, push):
        await push.last_packet()
        assert found.sim.clock.elapsed >= 50 + 3 * 30


async def test_fault_behind_next() -> None:
    async with asked(f"behind-next@{PUSHED}#1") as (found, push):
        assert await found.ask(readout()) == ACK
        await push.last_packet()
        assert [job.state for job in found.sim.jobs][1] is not JobState.SENT
        push.write(ACK)
        await push.last_packet()
        push.write(ACK)
        await found.until(lambda: [job.state for job in found.sim.jobs] == [JobState.SENT] * 2)


async def test_fault_wrong_serial() -> None:
    async with asked(f"wrong-serial=AVI9@{PUSHED}", "wrong-serial@push/alive") as (found, push):
        assert (await push.last_packet()).count(b'"serialNumber":"AVI9"') == 3
        await found.sim.send_alive()
        assert b'"serialNumber":"AVI2026079999"' in await push.objects(1)


async def test_fault_meter_silent() -> None:
    async with asked("meter-silent") as (found, _):
        await state(found, JobState.FAILED)


async def test_fault_other_meter() -> None:
    async with asked("other-meter") as (_, push):
        assert b"0.0.0(23660089)" in await push.last_packet()


async def test_fault_nul() -> None:
    async with asked("nul=350") as (_, push):
        packets = texts(await push.last_packet())
        assert len(packets[0][2]) == 350  # the rest of that chunk is lost
        assert len(packets[1][2]) == 700


@pytest.mark.parametrize(("fault", "times"), [("duplicate", 2), ("flood=50", 50)])
async def test_faults_that_repeat_a_result(fault: str, times: int) -> None:
    async with asked(f"{fault}@{PUSHED}") as (found, push):
        data = await push.until(lambda data: data.count(b'"packetStream":false') == times and data.endswith(b'"}}}'))
        assert [number for number, _, _ in texts(data)] == [1, 2, 3] * times
        push.write(ACK)
        await state(found, JobState.SENT)


@pytest.mark.parametrize(("fault", "numbers"), [("lose-packet=2", [1, 3]), ("reorder", [1, 3, 2])])
async def test_faults_of_packets(fault: str, numbers: list[int]) -> None:
    async with asked(f"{fault}@{PUSHED}") as (found, push):
        await state(found, JobState.SENT)
        data = await push.until(lambda data: len(texts(data)) == len(numbers))
        assert [number for number, _, _ in texts(data)] == numbers


async def test_fault_drop_push() -> None:
    async with asked(f"drop-push@{PUSHED}") as (found, push):
        data = await push.end()
        assert [number for number, _, _ in texts(data)] == [1]
        assert not data.endswith(b"}")
        await found.push()
        assert found.sim.jobs[0].state is JobState.DROPPED


async def test_fault_storm() -> None:
    async with bench() as found:
        await found.push()
        found.sim.faults.set("storm=20")
        await found.until(lambda: found.sim.connects >= 10)
        found.sim.faults.clear("storm")
        while True:
            link = await found.head.link()
            if found.head.links.empty() and found.sim.is_push_up and found.sim.connects == len(found.head.all):
                break
        await found.sim.send_alive()
        assert (await link.objects(1)).startswith(f'{HEAD}"alive"'.encode())
        assert found.sim.idents == 0


def test_every_fault_is_tried_here() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [name for name in GATEWAY_FAULTS if not re.search(rf'["{{]{name}["=@#]', source)] == []
    assert set(FAULTS) == set(GATEWAY_FAULTS)


# -------------------------------------------------------------------------------------------------------- start and end


async def test_what_cannot_start() -> None:
    with pytest.raises(ConfigError):
        AvioraGatewaySimulator(AvioraConfig(revision="C"))
    with pytest.raises(ConfigError):
        AvioraGatewaySimulator(AvioraConfig(push_host="192.0.2.1"))
    with pytest.raises(ConfigError):
        async with AvioraGatewaySimulator(AvioraConfig(faults=("thunder",))):
            pass
    async with HeadEnd() as head:
        with pytest.raises(LinkError):
            async with AvioraGatewaySimulator(AvioraConfig(pull_port=head.port)):
                pass


async def test_the_catalog_serves_it() -> None:
    entry = catalog.find("aviora")
    assert set(entry.fault_table()) == set(GATEWAY_FAULTS)
    said: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
    async with HeadEnd() as head, AsyncExitStack() as stack:
        extra = {
            "serial": "AVI77", "push": f"127.0.0.1:{head.port}", "pull_port": "0", "revision": "a", "meters": "3",
            "one_slot": "no", "first_job_nack": "no", "linux_build": "yes", "time_scale": "50",
        }  # fmt: skip
        group = await stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(entry.load()(catalog.SimOptions(extra=extra), said.set_result))
        stack.callback(task.cancel)
        async with asyncio.timeout(DEADLINE_S):
            record = await said
        assert {name: record[name] for name in ("sim", "host", "serial", "meters")} == {
            "sim": "aviora", "host": "127.0.0.1", "serial": "AVI77", "meters": ["23660088", "23660089", "23660090"],
        }  # fmt: skip
        ident = await (await head.link()).objects(1)
        assert b'"serialNumber":"AVI77"' in ident
        assert f'"pullPort":{record["port"]}'.encode() in ident
        assert b'"pullIP":"127.0.0.1"' in ident


@pytest.mark.parametrize(
    "extra", [{"serial": ""}, {"serial": "x" * 20}, {"push": "127.0.0.1:0"}, {"push": "192.0.2.1:1"}, {"nothing": "1"}]
)
async def test_settings_that_cannot_be(extra: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        await catalog.find("aviora").load()(catalog.SimOptions(extra=extra), lambda _: None)
