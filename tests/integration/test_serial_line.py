"""Lines over pseudo terminals, TCP and RFC 2217: what arrives, what is refused, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo terminals are POSIX", allow_module_level=True)

import termios
import tty

import serial
from serial.rfc2217 import PortManager

from app.errors import LinkError, LinkReason, ParameterError
from app.model.line import LineFormat
from app.transports import open_line as open_line_module
from app.transports import serial_line, serial_ports, stream_line
from app.transports.line import Line, LineOpener
from app.transports.open_line import open_line, parse_address
from app.transports.serial_line import SerialLine
from app.transports.serial_ports import list_ports, resolve
from app.transports.stream_line import StreamLine
from app.transports.tcp_link import TcpListener, TcpStream

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

AT_ONCE = LineFormat(4_000_000, 8, "N", 1)  # a rate at which the computed time on the wire is nothing
WHOSE = "meter 7"
LIMIT_S = 20.0
LINE_THREADS = ("line ", "reader of ", "pySerial")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - of threads and of the system, which set no event
            await asyncio.sleep(0.001)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(LINE_THREADS)]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + LIMIT_S
    while threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threads() == []


class Pty:
    """A pseudo terminal in raw mode: the device's end (``far``), and the name our end is opened by."""

    def __init__(self) -> None:
        self.far, self.near = os.openpty()
        tty.setraw(self.near)
        self.name = os.ttyname(self.near)
        os.set_blocking(self.far, False)

    def rate(self) -> int:
        return int(termios.tcgetattr(self.near)[5])

    def send(self, data: bytes) -> None:
        assert os.write(self.far, data) == len(data)

    def waiting(self) -> bytes:
        try:
            return os.read(self.far, 1 << 16)
        except BlockingIOError:
            return b""

    async def receive(self, count: int) -> bytes:
        data = b""

        def take() -> bool:
            nonlocal data
            data += self.waiting()
            return len(data) >= count

        await until(take)
        return data

    def hang_up(self) -> None:
        for end in ("far", "near"):
            if (number := getattr(self, end)) >= 0:
                os.close(number)
                setattr(self, end, -1)


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.hang_up()


@pytest.fixture
async def line(pty: Pty) -> AsyncIterator[SerialLine]:
    made = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)
    yield made
    await made.close()


async def failure(opening: Any) -> LinkError:
    with pytest.raises(LinkError) as caught:
        await opening
    assert str(caught.value).endswith((".", "again."))
    return caught.value


# ---------------------------------------------------------------- octets


async def test_octets_go_both_ways_unchanged(pty: Pty, line: SerialLine) -> None:
    everything = bytes(range(256))
    await line.write(everything)
    assert await pty.receive(256) == everything
    pty.send(everything)
    got = b""
    while len(got) < 256:
        got += await line.read(LIMIT_S)
    assert got == everything
    assert line.name == pty.name
    assert line.has_rate


async def test_silence_is_a_timeout_and_the_line_stays_good(pty: Pty, line: SerialLine) -> None:
    with pytest.raises(TimeoutError):
        await line.read(0.01)
    pty.send(b"late")
    assert await line.read(LIMIT_S)
    assert line.take_waiting() in (b"", b"ate")


async def test_every_message_wakes_the_reader(pty: Pty, line: SerialLine) -> None:
    for number in range(20):
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(line.read(LIMIT_S))
            await asyncio.sleep(0)
            pty.send(bytes([number]))
        assert reading.result() == bytes([number])


async def test_what_waits_is_taken_without_waiting(pty: Pty, line: SerialLine) -> None:
    assert line.take_waiting() == b""
    pty.send(b"abc")
    await until(lambda: len(line._unread) == 3)
    assert line.take_waiting() == b"abc"
    assert line.take_waiting() == b""


async def test_nobody_reads_and_the_oldest_octets_go(
    pty: Pty, line: SerialLine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serial_line, "MAX_UNREAD", 100)
    pty.send(bytes(range(250)))
    await until(lambda: line.dropped + len(line._unread) == 250)
    assert line.dropped == 150
    assert line.take_waiting() == bytes(range(150, 250))
    assert [record.message for record in caplog.records if "nobody reads" in record.message]


# ---------------------------------------------------------------- the port's own calls, recorded


class Recorder(serial.Serial):  # type: ignore[misc]  # pyserial has no types
    """pyserial's port; says what was done to it, in order. ``faults`` are raised by the call of that name."""

    calls: list[tuple[str, object]]
    faults: dict[str, Exception]
    has_kernel_rs485 = False

    def _note(self, name: str, value: object = None) -> None:
        if name in self.faults:
            raise self.faults[name]
        self.calls.append((name, value))

    def open(self) -> None:
        self._note("open")
        super().open()

    def write(self, data: bytes) -> int:
        self._note("write", bytes(data))
        return int(super().write(data))

    def flush(self) -> None:
        self._note("flush")
        super().flush()

    def reset_output_buffer(self) -> None:
        self._note("drop")
        super().reset_output_buffer()

    def _reconfigure_port(self, force_update: bool = False) -> None:
        self._note("format", f"{self._baudrate} {self._bytesize}{self._parity}{self._stopbits}")
        super()._reconfigure_port(force_update=force_update)

    def _update_rts_state(self) -> None:
        self._note("rts", self._rts_state)

    def _update_break_state(self) -> None:
        self._note("break", self._break_state)

    def _set_rs485_mode(self, settings: object) -> None:
        if not self.has_kernel_rs485:
            raise ValueError("Failed to set RS485 mode")
        self._note("kernel rs485")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    class Fresh(Recorder):
        calls: list[tuple[str, object]] = []  # noqa: RUF012 - one list for each test
        faults: dict[str, Exception] = {}  # noqa: RUF012

    monkeypatch.setattr(serial, "Serial", Fresh)
    return Fresh


class SlowTime(SimpleNamespace):
    """The working thread's clock: sleeping is all that takes time."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(monotonic=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_the_format_changes_once_on_the_open_port_after_everything_has_left(
    pty: Pty, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_line, "_PSEUDO_TERMINAL", re.compile("none"))
    clock = SlowTime()
    line = await SerialLine.open(pty.name, LineFormat(300, 8, "N", 1), whose=WHOSE)
    monkeypatch.setattr(serial_line, "time", clock)
    descriptor = line._port.fileno()
    assert pty.rate() == termios.B300
    recorder.calls.clear()
    await line.write(b"\x06050\r\n")
    assert clock.now - 100 == pytest.approx(6 * 10 / 300 + serial_line.TX_MARGIN_S)
    assert pty.waiting() == b"\x06050\r\n"
    assert pty.rate() == termios.B300
    await line.set_format(LineFormat(9600, 8, "E", 2))
    assert recorder.calls == [("write", b"\x06050\r\n"), ("flush", None), ("format", "9600 8E2")]
    assert pty.rate() == termios.B9600
    assert line._port.fileno() == descriptor
    assert str(line.format) == "9600 8E2"
    monkeypatch.undo()
    await line.close()


async def test_a_pseudo_terminal_takes_every_frame(pty: Pty) -> None:
    line = await SerialLine.open(pty.name, LineFormat(300, 7, "E", 1), whose=WHOSE)
    for text in ("9600 7E1", "9600 8N1", "9600 7O2", "300 7E1"):
        await line.set_format(LineFormat.parse(text))
        assert str(line.format) == text
    assert pty.rate() == termios.B300
    await line.close()


async def test_a_rate_the_driver_replaces_is_refused_and_the_old_one_stays(
    pty: Pty, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await SerialLine.open(pty.name, LineFormat(9600), whose=WHOSE)
    real = Recorder._reconfigure_port

    def at_most_9600(self: Recorder, force_update: bool = False) -> None:
        self._baudrate = self._baudrate if self._baudrate <= 9600 else 4800
        real(self, force_update)

    monkeypatch.setattr(Recorder, "_reconfigure_port", at_most_9600)
    error = await failure(line.set_format(LineFormat(19200)))
    assert "19200 8N1" in str(error)
    assert str(line.format) == "9600 8N1"
    assert pty.rate() == termios.B9600
    await line.write(b"still good")
    assert await pty.receive(10) == b"still good"
    await line.close()
    error = await failure(SerialLine.open(pty.name, LineFormat(19200), whose=WHOSE))
    assert "19200 8N1" in str(error)
    assert not error.may_have_arrived


@pytest.mark.parametrize("fault", [ValueError("Invalid baud rate"), termios.error(errno.EINVAL, "Invalid argument")])
async def test_a_format_the_port_refuses(pty: Pty, recorder: type[Recorder], fault: Exception) -> None:
    line = await SerialLine.open(pty.name, LineFormat(9600), whose=WHOSE)
    recorder.faults["format"] = fault
    error = await failure(line.set_format(LineFormat(12345)))
    assert error.reason is LinkReason.BROKEN
    recorder.faults.clear()
    await line.write(b"x")
    assert await pty.receive(1) == b"x"
    await line.close()


async def test_a_break_has_its_length_and_ends(
    pty: Pty, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)
    monkeypatch.setattr(serial_line, "time", clock := SlowTime())
    recorder.calls.clear()
    await line.send_break(0.4)
    monkeypatch.undo()
    assert recorder.calls == [("break", True), ("break", False)]
    assert clock.now - 100 == pytest.approx(0.4)
    await line.close()


async def test_rs485_by_hand_switches_the_driver_around_what_is_sent(pty: Pty, recorder: type[Recorder]) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, rs485=True)
    assert recorder.calls[-1] == ("rts", False)
    recorder.calls.clear()
    await line.write(b"ab")
    assert recorder.calls == [("rts", True), ("write", b"ab"), ("flush", None), ("rts", False)]
    await line.close()


async def test_rs485_by_hand_lets_the_bus_go_when_the_port_takes_nothing(pty: Pty, recorder: type[Recorder]) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, rs485=True)
    recorder.faults["write"] = serial.SerialTimeoutException("Write timeout")
    assert "takes nothing" in str(await failure(line.write(b"ab")))
    assert recorder.calls[-3:] == [("rts", True), ("drop", None), ("rts", False)]
    await line.close()


async def test_rs485_by_the_kernel_leaves_rts_alone(pty: Pty, recorder: type[Recorder]) -> None:
    recorder.has_kernel_rs485 = True
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, rs485=True)
    assert recorder.calls[-1][0] == "kernel rs485"
    recorder.calls.clear()
    await line.write(b"ab")
    assert [name for name, _ in recorder.calls] == ["write", "flush"]
    await line.close()


async def test_rs485_on_a_port_without_rts_is_left_to_the_adapter(pty: Pty, recorder: type[Recorder]) -> None:
    recorder.faults["rts"] = OSError(errno.ENOTTY, "Inappropriate ioctl for device")
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, rs485=True)
    await line.write(b"ab")
    assert await pty.receive(2) == b"ab"
    await line.close()


# ---------------------------------------------------------------- the line goes


async def assert_gone(line: Line) -> None:
    async with asyncio.timeout(LIMIT_S):
        await line.wait_closed()
    for again in (line.read(1), line.write(b"x"), line.set_format(AT_ONCE), line.send_break(0.01)):
        assert (await failure(again)).reason is LinkReason.CLOSED
    await until(lambda: threads() == [])
    await line.close()
    await line.close()


async def test_a_hang_up_while_reading(pty: Pty, line: SerialLine) -> None:
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(failure(line.read()))
        await asyncio.sleep(0)
        pty.hang_up()
    assert reading.result().reason is LinkReason.CLOSED
    assert pty.name == line.name
    assert "Plug it in again" in str(reading.result())
    await assert_gone(line)


async def test_a_hang_up_while_idle(pty: Pty, line: SerialLine) -> None:
    pty.hang_up()
    await assert_gone(line)


async def test_a_hang_up_while_writing(pty: Pty) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, stall_s=600)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(failure(line.write(bytes(1 << 20))))
        await pty.receive(1)
        pty.hang_up()
    assert writing.result().reason is LinkReason.CLOSED
    await assert_gone(line)


async def test_a_hang_up_while_changing_the_format(pty: Pty, line: SerialLine) -> None:
    async def changing() -> None:
        for baud in range(9600, 9600 + 100_000):
            await line.set_format(LineFormat(baud))

    async with asyncio.TaskGroup() as group:
        change = group.create_task(failure(changing()))
        await until(lambda: line.format.baud > 9610)
        pty.hang_up()
    assert change.result().reason is LinkReason.CLOSED
    await assert_gone(line)


async def test_a_hang_up_while_nothing_is_heard_and_a_long_break_is_sent(pty: Pty, line: SerialLine) -> None:
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(failure(line.send_break(600)))
        await asyncio.sleep(0)
        pty.hang_up()
    assert sending.result().reason is LinkReason.CLOSED
    await assert_gone(line)


async def test_what_came_before_the_hang_up_is_read_first(pty: Pty, line: SerialLine) -> None:
    pty.send(b"last words")
    await until(lambda: len(line._unread) == 10)
    pty.hang_up()
    await line.wait_closed()
    assert await line.read(0.01) == b"last words"
    await assert_gone(line)


async def test_a_port_can_be_opened_again_after_each_end(pty: Pty) -> None:
    for _ in range(3):
        line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)
        await line.write(b"x")
        assert await pty.receive(1) == b"x"
        await line.close()
    other = Pty()
    line = await SerialLine.open(other.name, AT_ONCE, whose=WHOSE)
    other.hang_up()
    await assert_gone(line)


async def test_closing_ends_what_is_under_way(pty: Pty) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, stall_s=600)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(failure(line.read()))
        writing = group.create_task(failure(line.write(bytes(1 << 20))))
        waiting = group.create_task(failure(line.set_format(LineFormat(300))))
        await pty.receive(1)
        await line.close()
    for task in (reading, writing, waiting):
        assert "closed here" in str(task.result())
    await until(lambda: threads() == [])
    assert pty.rate() != termios.B300


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors by /proc")
async def test_a_thousand_cycles_leave_no_thread_and_no_descriptor(pty: Pty) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = -1
    for cycle in range(1000):
        line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)
        await line.close()
        await until(lambda: threads() == [])
        if cycle == 0:
            before = descriptors()
    assert descriptors() == before


async def test_a_port_that_takes_nothing_fails_in_time_and_blocks_nobody(pty: Pty) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, stall_s=0.2)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        busy = group.create_task(others())
        error = await failure(line.write(bytes(1 << 20)))
        busy.cancel()
    assert "takes nothing" in str(error)
    assert turns > 100
    while pty.waiting():
        pass
    await line.write(b"good again")
    assert (await pty.receive(10)).endswith(b"good again")
    await line.close()


async def test_a_driver_that_keeps_the_octets_is_given_up(
    pty: Pty, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [5, 5, 4, 3, 3]
    monkeypatch.setattr(Recorder, "out_waiting", property(lambda _self: kept.pop(0) if len(kept) > 1 else kept[0]))
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, stall_s=0.05)
    assert "takes nothing" in str(await failure(line.write(b"hello")))
    assert kept == [3]
    assert ("flush", None) not in recorder.calls
    await line.close()


async def test_a_cancelled_write_is_sent_before_what_follows(pty: Pty, recorder: type[Recorder]) -> None:
    line = await SerialLine.open(pty.name, LineFormat(1200), whose=WHOSE)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(line.write(b"request"))
        waiting = group.create_task(line.write(b"never begun"))
        await until(lambda: ("write", b"request") in recorder.calls)
        writing.cancel()
        waiting.cancel()
    await line.write(b"break")
    sent = [call for call in recorder.calls if call[0] in ("write", "flush")]
    assert sent == [("write", b"request"), ("flush", None), ("write", b"break"), ("flush", None)]
    assert await pty.receive(12) == b"requestbreak"
    await line.close()


@pytest.mark.parametrize("call", ["flush", "write"])
async def test_a_fault_of_this_program_ends_the_line_and_is_told(
    pty: Pty, recorder: type[Recorder], caplog: pytest.LogCaptureFixture, call: str
) -> None:
    line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)
    recorder.faults[call] = ZeroDivisionError("a bug")
    assert (await failure(line.write(b"x"))).reason is LinkReason.CLOSED
    assert "fault of this program" in caplog.text
    await assert_gone(line)


# ---------------------------------------------------------------- not opened


def ports(monkeypatch: pytest.MonkeyPatch, *found: object) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(found))


def usb(device: str, **facts: object) -> SimpleNamespace:
    common = {"vid": 0x0403, "pid": 0x6001, "serial_number": "A50285BI", "location": "1-1.4", "manufacturer": "FTDI"}
    return SimpleNamespace(**{"device": device, "product": "FT232R", "description": "n/a", **common, **facts})


def plain(device: str, description: str = "n/a") -> SimpleNamespace:
    return usb(device, vid=None, pid=None, serial_number=None, location=None, manufacturer=None, product=None,
               description=description)  # fmt: skip


async def test_no_such_port_names_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ports(monkeypatch, plain("/dev/ttyS10"), plain("/dev/ttyS9"))
    error = await failure(SerialLine.open("/dev/ttyUSB77", AT_ONCE, whose=WHOSE))
    assert error.reason is LinkReason.UNREACHABLE
    assert not error.may_have_arrived
    assert "/dev/ttyUSB77 of meter 7 is not there" in str(error)
    assert "/dev/ttyS9, /dev/ttyS10." in str(error)
    ports(monkeypatch)
    assert "No serial port is connected" in str(await failure(SerialLine.open("/dev/tty77", AT_ONCE, whose=WHOSE)))


async def test_a_port_in_use_is_busy(pty: Pty, line: SerialLine) -> None:
    error = await failure(SerialLine.open(pty.name, AT_ONCE, whose=WHOSE))
    assert error.reason is LinkReason.BUSY
    assert "in use by another program" in str(error)
    await line.write(b"unharmed")
    assert await pty.receive(8) == b"unharmed"


async def test_a_port_this_user_may_not_open_names_the_group_and_the_command(
    pty: Pty, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def denied(path: Any, *args: Any, **more: Any) -> int:
        if path == pty.name:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *args, **more)

    monkeypatch.setattr("serial.serialposix.os.open", denied)
    monkeypatch.setattr(serial_ports, "owning_group", lambda _path: "uucp")
    monkeypatch.setattr(serial_line, "owning_group", lambda _path: "uucp")
    error = await failure(SerialLine.open(pty.name, AT_ONCE, whose=WHOSE))
    monkeypatch.undo()
    assert error.reason is LinkReason.DENIED
    assert "belongs to the group uucp" in str(error)
    assert "sudo usermod -aG uucp $USER   then log out and in again." in str(error)


async def test_what_is_no_serial_port(tmp_path: Path) -> None:
    plain_file = tmp_path / "ttyUSB0"
    plain_file.write_text("octets")
    for path in (str(plain_file), str(tmp_path), "/dev/null"):
        error = await failure(SerialLine.open(path, AT_ONCE, whose=WHOSE))
        assert "is no serial port" in str(error), path
    assert plain_file.read_text() == "octets"


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (serial.SerialException("Could not configure port: (5, 'Input/output error')"),
         LinkReason.UNREACHABLE, "hardware"),
        (serial.SerialException(errno.EBUSY, "busy"), LinkReason.BUSY, "in use"),
        (serial.SerialException("could not open port 'COM5': PermissionError(13, 'Access is denied.', None, 5)"),
         LinkReason.BUSY, "in use"),
        (serial.SerialException("could not open port 'COM5': FileNotFoundError(2, 'not found', None, 2)"),
         LinkReason.UNREACHABLE, "not there"),
        (serial.SerialException("could not open port 'COM5': OSError(22, 'timed out', None, 121)"),
         LinkReason.BROKEN, "timed out"),
        (ValueError("Invalid baud rate"), LinkReason.BROKEN, "does not take"),
    ],
)  # fmt: skip
async def test_other_failures_of_opening(
    pty: Pty, recorder: type[Recorder], fault: Exception, reason: LinkReason, words: str
) -> None:
    if "Input/output" in str(fault):
        fault.__cause__ = termios.error(errno.EIO, "Input/output error")
    recorder.faults["open"] = fault
    error = await failure(SerialLine.open(pty.name, AT_ONCE, whose=WHOSE))
    assert error.reason is reason
    assert words in str(error)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_driver_that_does_not_open_is_left_behind_and_then_closed(
    pty: Pty, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    release, real = threading.Event(), Recorder.open

    def slow(self: Recorder) -> None:
        release.wait(LIMIT_S)
        real(self)

    monkeypatch.setattr(Recorder, "open", slow)
    if is_cancelled:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(SerialLine.open(pty.name, AT_ONCE, whose=WHOSE))
            await until(threads)
            opening.cancel()
    else:
        error = await failure(SerialLine.open(pty.name, AT_ONCE, whose=WHOSE, open_s=0.02))
        assert error.reason is LinkReason.SILENT
    release.set()
    await until(lambda: threads() == [])
    assert ("open", None) in recorder.calls
    monkeypatch.undo()
    await (await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)).close()


# ---------------------------------------------------------------- which ports there are


def test_ports_by_title_and_by_an_address_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ports(
        monkeypatch,
        usb("COM10", product=None, description="USB Serial Port (COM10)", serial_number="0:1/ü@ b"),
        usb("COM5"),
        usb("/dev/ttyUSB1", vid=0x1A86, pid=0x7523, serial_number=None, manufacturer=None, product="USB Serial"),
        plain("COM1", "Communications Port (COM1)"),
        plain("/dev/ttyS0"),
    )
    assert [(port.name, port.title, port.address) for port in list_ports()] == [
        ("/dev/ttyS0", "/dev/ttyS0", "/dev/ttyS0"),
        ("/dev/ttyUSB1", "USB Serial  (1A86:7523)  /dev/ttyUSB1", "usb:1A86:7523"),
        ("COM1", "Communications Port  COM1", "COM1"),
        ("COM5", "FTDI FT232R  (0403:6001, A50285BI)  COM5", "usb:0403:6001:A50285BI"),
        ("COM10", "FTDI USB Serial Port  (0403:6001, 0:1/ü@ b)  COM10", "usb:0403:6001:0%3A1%2F%C3%BC%40%20b"),
    ]
    for port in list_ports():
        assert resolve(port.address) == port.name
        assert parse_address(port.address).text == port.address
    assert resolve("USB:0403:6001:a50285bi".replace("a50285bi", "A50285BI")) == "COM5"


def test_adapters_that_are_alike_are_told_apart_by_their_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    without: dict[str, Any] = {"vid": 0x1A86, "pid": 0x7523, "serial_number": ""}
    ports(
        monkeypatch,
        usb("/dev/ttyUSB0", **without, location="1-1.4"),
        usb("/dev/ttyUSB1", **without, location="1-1.5"),
        usb("/dev/ttyUSB2", pid=0x6011, location="1-2:1.0"),
        usb("/dev/ttyUSB3", pid=0x6011, location="1-2:1.1"),
        usb("/dev/ttyUSB4", pid=0x6015, location=None),
        usb("/dev/ttyUSB5", pid=0x6015, location=None),
    )
    assert [port.address for port in list_ports()] == [
        "usb:1A86:7523@1-1.4",
        "usb:1A86:7523@1-1.5",
        "usb:0403:6011:A50285BI@1-2%3A1.0",
        "usb:0403:6011:A50285BI@1-2%3A1.1",
        "/dev/ttyUSB4",
        "/dev/ttyUSB5",
    ]
    for port in list_ports():
        assert resolve(port.address) == port.name
    with pytest.raises(LinkError, match=r"Several USB adapters are 1A86:7523: /dev/ttyUSB0, /dev/ttyUSB1\."):
        resolve("usb:1A86:7523")
    with pytest.raises(LinkError, match=r"adapter 0403:6001, X is not connected.*Ports that are there: /dev/ttyUSB0,"):
        resolve("usb:0403:6001:X")
    with pytest.raises(ParameterError, match="usb:VID:PID:SERIAL"):
        resolve("usb:403:6001")


def test_an_address_without_serial_number_prefers_the_adapter_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ports(monkeypatch, usb("/dev/ttyUSB0"), usb("/dev/ttyUSB1", serial_number=None))
    assert [port.address for port in list_ports()] == ["usb:0403:6001:A50285BI", "usb:0403:6001"]
    assert resolve("usb:0403:6001") == "/dev/ttyUSB1"


def test_an_adapter_that_goes_while_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception] = [TypeError("int() argument must be a string"), OSError("gone")]

    def comports() -> list[object]:
        if answers:
            raise answers.pop()
        return [plain("/dev/ttyS0")]

    monkeypatch.setattr("serial.tools.list_ports.comports", comports)
    assert [port.name for port in list_ports()] == ["/dev/ttyS0"]
    answers += [OSError("no permission")] * 3
    with pytest.raises(LinkError, match="could not list its serial ports: no permission"):
        list_ports()


async def test_an_adapter_plugged_in_again_is_found_under_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Pty(), Pty()
    ports(monkeypatch, usb(first.name))
    line = await open_line("usb:0403:6001:A50285BI", AT_ONCE, whose=WHOSE)
    assert line.name == first.name
    first.hang_up()
    await assert_gone(line)
    ports(monkeypatch)
    error = await failure(open_line("usb:0403:6001:A50285BI", AT_ONCE, whose=WHOSE))
    assert "The USB adapter 0403:6001, A50285BI is not connected" in str(error)
    ports(monkeypatch, usb(second.name))
    line = await open_line("usb:0403:6001:A50285BI", AT_ONCE, whose=WHOSE)
    assert line.name == second.name
    await line.close()
    second.hang_up()


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "kind", "kept", "host", "port"),
    [
        (" COM5 ", "device", "COM5", "", 0),
        ("/dev/ttyUSB0", "device", "/dev/ttyUSB0", "", 0),
        ("socket://192.0.2.7:4059", "socket", "socket://192.0.2.7:4059", "192.0.2.7", 4059),
        ("Socket://meter-7.example:01024", "socket", "socket://meter-7.example:1024", "meter-7.example", 1024),
        ("rfc2217://[2001:db8::7]:2217", "rfc2217", "rfc2217://[2001:db8::7]:2217", "2001:db8::7", 2217),
        ("usb:0403:60af", "usb", "usb:0403:60AF", "", 0),
    ],
)
def test_addresses(text: str, kind: str, kept: str, host: str, port: int) -> None:
    found = parse_address(text)
    assert (found.kind, found.text, found.host, found.port) == (kind, kept, host, port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  ", "empty"),
        ("COM5\x00", "cannot be printed"),
        ("x" * 501, "too long"),
        ("spy://COM5", "no known scheme"),
        ("http://192.0.2.7", "no known scheme"),
        ("192.0.2.7:4059", "write socket://192.0.2.7:4059"),
        ("socket://192.0.2.7", "lacks host or port"),
        ("socket://:4059", "lacks host or port"),
        ("socket://192.0.2.7:", "port number"),
        ("socket://192.0.2.7:0", "port number"),
        ("socket://192.0.2.7:65536", "port number"),
        ("socket://192.0.2.7:4059/path", "port number"),
        ("rfc2217://192.0.2.7:22?logging=debug", "port number"),
        ("socket://a@b:1", "no host name"),
        ("socket://a b:1", "no host name"),
        ("socket://2001:db8::7:4059", "in brackets"),
        ("socket://[192.0.2.7]:4059", "no IPv6 address"),
        ("usb:0403", "usb:VID:PID:SERIAL"),
        ("usb:0403:6001:a:b", "usb:VID:PID:SERIAL"),
    ],
)
async def test_wrong_addresses_are_told_without_opening_anything(text: str, words: str) -> None:
    opener: LineOpener = open_line
    with pytest.raises(ParameterError) as caught:
        await opener(text, AT_ONCE, whose=WHOSE)
    assert words in str(caught.value)
    assert caught.value.parameter == "port"


async def test_open_line_opens_a_device(pty: Pty) -> None:
    line = await open_line(pty.name, LineFormat(2400), whose=WHOSE)
    assert pty.rate() == termios.B2400
    await line.close()


def test_pyserial_is_loaded_on_use() -> None:
    code = f"import sys, {open_line_module.__name__}; print('serial' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


# ---------------------------------------------------------------- TCP


class Peer:
    """The other end of a dialled connection: a blocking socket, used after the connection is made."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> None:
        self._listening = socket.socket(family)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listening.bind((host, 0))
        self._listening.listen()
        self.host, self.port = self._listening.getsockname()[:2]
        self.socket = self._listening

    async def line(self, **more: Any) -> StreamLine:
        line = await StreamLine.open(self.host, self.port, whose=WHOSE, **more)
        self.socket, _ = self._listening.accept()
        self._listening.close()
        self.socket.settimeout(LIMIT_S)
        return line

    def read_to_the_end(self) -> None:
        while self.socket.recv(1 << 20):
            pass

    def close(self) -> None:
        self.socket.close()
        self._listening.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


async def test_tcp_carries_octets_and_has_no_rate(peer: Peer) -> None:
    line = await peer.line(line_format=LineFormat(300, 7, "E", 1))
    assert line.name == f"socket://127.0.0.1:{peer.port}"
    assert not line.has_rate
    assert str(line.format) == "300 7E1"
    await line.set_format(AT_ONCE)
    await line.send_break(600)
    await line.write(b"question")
    assert peer.socket.recv(100) == b"question"
    with pytest.raises(TimeoutError):
        await line.read(0.01)
    peer.socket.sendall(b"answer")
    assert await line.read(LIMIT_S) == b"answer"
    assert line.take_waiting() == b""
    await line.close()
    assert peer.socket.recv(1) == b""
    await assert_gone(line)


async def test_a_peer_that_ends_is_seen_though_nobody_reads(peer: Peer) -> None:
    line = await peer.line()
    peer.socket.sendall(b"last words")
    peer.socket.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(LIMIT_S):
        await line.wait_closed()
    assert await line.read() == b"last words"
    assert "closed by the other side" in str(await failure(line.read()))
    await assert_gone(line)


async def test_a_peer_that_resets_ends_a_read(peer: Peer) -> None:
    line = await peer.line()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(failure(line.read()))
        await asyncio.sleep(0)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, stream_line._RESET_ON_CLOSE)
        peer.socket.close()
    assert "broke: Connection reset by peer." in str(reading.result())
    await assert_gone(line)


async def test_a_peer_that_floods_is_held_back_and_nothing_is_lost(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_line, "MAX_UNREAD", 5000)
    line = await peer.line()
    sent = bytes(range(251)) * 40_000
    sending = threading.Thread(target=peer.socket.sendall, args=(sent,))
    sending.start()
    await until(lambda: line._is_paused)
    assert len(line._unread) < 5000 + 256 * 1024 + 1
    got = bytearray()
    while len(got) < len(sent):
        got += await line.read(LIMIT_S)
    sending.join()
    assert got == sent
    await line.close()


async def test_a_peer_that_does_not_read_ends_the_line(peer: Peer) -> None:
    line = await peer.line(stall_s=0.2)
    error = await failure(line.write(bytes(16 << 20)))
    assert "takes nothing" in str(error)
    await line.close()
    with pytest.raises(ConnectionResetError):
        peer.read_to_the_end()


async def test_closing_ends_a_write_to_a_peer_that_does_not_read(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_line, "CLOSE_S", 0.05)
    line = await peer.line(stall_s=600)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(failure(line.write(bytes(16 << 20))))
        await asyncio.sleep(0)
        await line.close()
    assert "closed here" in str(writing.result())


async def test_nobody_listens() -> None:
    peer = Peer()
    peer.close()
    error = await failure(open_line(f"socket://127.0.0.1:{peer.port}", AT_ONCE, whose=WHOSE))
    assert error.reason is LinkReason.REFUSED
    assert not error.may_have_arrived


async def test_ipv6() -> None:
    try:
        peer = Peer(socket.AF_INET6, "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(open_line(f"socket://[::1]:{peer.port}", AT_ONCE, whose=WHOSE))
    line = opening.result()
    assert line.name == f"socket://[::1]:{peer.port}"
    await line.close()
    peer.close()


async def test_a_device_that_dials_in_becomes_a_line_and_can_be_reset() -> None:
    lines: list[StreamLine] = []

    async def serve(stream: TcpStream) -> None:
        line = await StreamLine.accepted(stream)
        lines.append(line)
        await line.write(b"echo " + await line.read())
        await line.read()
        line.abort()
        await assert_gone(line)

    listener = TcpListener("127.0.0.1", 0, serve)
    async with listener.open():
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"hello")
        assert await reader.readexactly(10) == b"echo hello"
        assert lines[0].name == f"socket://127.0.0.1:{writer.get_extra_info('sockname')[1]}"
        assert lines[0].peer == "127.0.0.1"
        writer.write(b"now reset")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_an_accepted_connection_keeps_what_came_before_it_became_a_line() -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(stream: TcpStream) -> None:
        await until(lambda: stream._reader._buffer)  # type: ignore[attr-defined]
        line = await StreamLine.accepted(stream)
        received.set_result(await line.read())
        await line.wait_closed()

    listener = TcpListener("127.0.0.1", 0, serve)
    async with listener.open():
        _reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"early")
        assert await received == b"early"
        writer.close()
        await writer.wait_closed()


# ---------------------------------------------------------------- RFC 2217


class TerminalPort(serial.Serial):  # type: ignore[misc]  # pyserial has no types
    """A pseudo terminal as the port of a serial server: without modem lines, and any format is kept in ``formats``."""

    cts = dsr = ri = cd = False

    def __init__(self, name: str, formats: list[str]) -> None:
        self.formats = formats
        super().__init__(name, timeout=0.02)

    def _update_rts_state(self) -> None:
        pass

    def _update_dtr_state(self) -> None:
        pass

    def _update_break_state(self) -> None:
        self.formats.append("break on" if self._break_state else "break off")

    def _reconfigure_port(self, force_update: bool = False) -> None:
        if self._baudrate == 12345:
            raise ValueError("not this rate")
        self.formats.append(f"{self._baudrate} {self._bytesize}{self._parity}{self._stopbits}")


class Server:
    """pyserial's own RFC 2217 server for one connection, in threads of the test."""

    def __init__(self, pty: Pty) -> None:
        self.formats: list[str] = []
        self._port = TerminalPort(pty.name, self.formats)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._socket: socket.socket | None = None
        self._is_over = False
        self.address = f"rfc2217://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def write(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def _serve(self) -> None:
        self._socket, _ = self._listening.accept()
        manager = PortManager(self._port, self)
        back = threading.Thread(target=self._send_back, args=(manager,))
        self._threads.append(back)
        back.start()
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1000):
                self._port.write(b"".join(manager.filter(data)))
        self._is_over = True

    def _send_back(self, manager: PortManager) -> None:
        with contextlib.suppress(OSError):
            while not self._is_over:
                if data := self._port.read(self._port.in_waiting or 1):
                    self.write(b"".join(manager.escape(data)))

    def hang_up(self) -> None:
        self._is_over = True
        self._listening.close()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        if self._socket is not None:
            self._socket.close()
        self._port.close()


@pytest.fixture
def server(pty: Pty) -> Iterator[Server]:
    made = Server(pty)
    yield made
    made.hang_up()


#: pyserial 3.5 uses two methods of threads that Python would like to see written otherwise.
rfc2217 = pytest.mark.filterwarnings("ignore:set(Daemon|Name).. is deprecated:DeprecationWarning")


@rfc2217
async def test_a_serial_server_takes_octets_formats_and_breaks(pty: Pty, server: Server) -> None:
    line = await open_line(server.address, LineFormat(115200, 7, "E", 1), whose=WHOSE, rs485=True)
    assert line.name == server.address
    assert line.has_rate
    assert server.formats[-1] == "115200 7E1"
    everything = bytes(range(256))
    await line.write(everything)
    assert await pty.receive(256) == everything
    pty.send(everything)
    got = b""
    while len(got) < 256:
        got += await line.read(LIMIT_S)
    assert got == everything
    await line.set_format(LineFormat(9600, 8, "N", 1))
    assert server.formats[-1] == "9600 8N1"
    await line.send_break(0.01)
    assert server.formats[-2:] == ["break on", "break off"]
    error = await failure(line.set_format(LineFormat(12345)))
    assert "12345 8N1" in str(error)
    assert str(line.format) == "9600 8N1"
    await line.close()


@rfc2217
async def test_a_serial_server_that_goes(pty: Pty, server: Server) -> None:
    line = await SerialLine.open(server.address, AT_ONCE, whose=WHOSE)
    pty.send(b"last words")
    await until(lambda: len(line._unread) == 10)
    server.hang_up()
    async with asyncio.timeout(LIMIT_S):
        await line.wait_closed()
    assert await line.read() == b"last words"
    assert "serial server" in str(await failure(line.read()))
    await assert_gone(line)


@rfc2217
async def test_what_pyserial_has_not_given_out_when_a_server_goes_is_kept(
    pty: Pty, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(port: Any, _size: int) -> bytes:
        port._thread.join(0.01)
        if port._thread.is_alive():
            return b""
        raise serial.SerialException("connection failed (reader thread died)")

    monkeypatch.setattr("serial.rfc2217.Serial.read", slow)
    line = await SerialLine.open(server.address, AT_ONCE, whose=WHOSE)
    held = line._port._read_buffer
    pty.send(b"last words")
    await until(lambda: held.qsize() == 10)
    server.hang_up()
    assert await line.read(LIMIT_S) == b"last words"
    await assert_gone(line)


def _impatient(port: Any, url: str) -> tuple[str, int]:
    port._network_timeout = 0.1
    return "127.0.0.1", int(url.rpartition(":")[2])


@rfc2217
async def test_a_server_without_rfc2217(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serial.rfc2217.Serial.from_url", _impatient)
    listening = socket.create_server(("127.0.0.1", 0))
    where = f"rfc2217://127.0.0.1:{listening.getsockname()[1]}"
    error = await failure(SerialLine.open(where, AT_ONCE, whose=WHOSE))
    assert error.reason is LinkReason.BROKEN
    assert "not those of RFC 2217" in str(error)
    listening.close()
    error = await failure(SerialLine.open(where, AT_ONCE, whose=WHOSE))
    assert error.reason is LinkReason.REFUSED


async def test_a_server_whose_name_is_unknown() -> None:
    error = await failure(SerialLine.open("rfc2217://meter.invalid:2217", AT_ONCE, whose=WHOSE))
    assert error.reason is LinkReason.UNREACHABLE
    assert "rfc2217://meter.invalid:2217" in str(error)


# ---------------------------------------------------------------- the program's own loop


def test_a_line_on_the_loop_of_the_window(pty: Pty, qapp: object) -> None:
    from PySide6.QtWidgets import QApplication

    from ui.event_loop import EventLoop

    async def main() -> None:
        line = await SerialLine.open(pty.name, AT_ONCE, whose=WHOSE)
        await line.write(b"question")
        assert await pty.receive(8) == b"question"
        with pytest.raises(TimeoutError):
            await line.read(0.01)
        pty.send(b"answer")
        got = b""
        while len(got) < 6:
            got += await line.read(LIMIT_S)
        assert got == b"answer"
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(failure(line.read()))
            await asyncio.sleep(0)
            pty.hang_up()
        assert reading.result().reason is LinkReason.CLOSED
        await assert_gone(line)

    assert isinstance(qapp, QApplication)
    loop = EventLoop(qapp)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(asyncio.wait_for(main(), LIMIT_S))
    finally:
        loop.close()
        asyncio.set_event_loop(None)
