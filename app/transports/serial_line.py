"""A serial port, or a serial server that speaks RFC 2217, as a Line.

Each line has two daemon threads, so that it works on every loop and system (Windows knows no reader for a port): one
reads, one does what may block (open, write, change the format, close). Nothing here blocks the loop, and a driver that
never returns costs its thread, not the program.

* ``write`` waits until the driver's queue is empty and for the time the octets take at the present rate, whichever is
  later: USB adapters and serial servers cannot say when the last stop bit has left.
* Whoever does not read loses the oldest octets beyond ``MAX_UNREAD``; ``dropped`` counts them.
* RS-485: the kernel switches the driver where it can (Linux: TIOCSRS485, Windows: RTS_CONTROL_TOGGLE), else RTS by hand
  around each write. A port without RTS has an adapter that switches by itself, and a serial server does it too.
* RFC 2217 as pyserial speaks it asks for answers every 50 ms: a change of format takes a tenth of a second there.
* A pseudo terminal has no wire: it takes any rate, and its octets pass unchanged at every character format.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Final

from app.errors import LinkError, LinkReason
from app.model.line import LineFormat
from app.transports.line_base import LineBase
from app.transports.serial_ports import owning_group, permission_fix, ports_there_are, resolve

if sys.platform == "win32":
    _TTY_ERRORS: tuple[type[Exception], ...] = ()
else:
    import termios

    _TTY_ERRORS = (termios.error,)

_log = logging.getLogger(__name__)

RFC2217: Final = "rfc2217://"
OPEN_S: Final = 10.0
STALL_S: Final = 5.0  # how long a port may take no octet at all
CLOSE_S: Final = 8.0  # pyserial's RFC 2217 client waits up to 7 s for its own thread
MAX_UNREAD: Final = 1024 * 1024
TX_MARGIN_S: Final = 0.002  # a USB adapter takes its octets with the next frame, at most 1 ms later
_WAKE_S: Final = 0.25  # the reader looks this often whether it is to end, where a read cannot be cancelled
_STEP_S: Final = 0.001
_NAP_S: Final = 0.01

#: What pyserial raises when a port fails. ValueError: a refused setting, or a descriptor too high for select().
_FAULTS: Final = (OSError, ValueError, *_TTY_ERRORS)
_PSEUDO_TERMINAL: Final = re.compile(r"/dev/(pts/\d+|ttys\d{3}|tty[p-za-e][0-9a-f])")
_REFUSED: Final = (errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP)

_Job = tuple[Callable[[], None], "asyncio.Future[None]"]


class SerialLine(LineBase):
    """See Line. Made by ``SerialLine.open``."""

    has_rate: Final = True

    def __init__(self, address: str, line_format: LineFormat, whose: str, *, rs485: bool, stall_s: float) -> None:
        super().__init__(address, line_format)  # ``name`` becomes the device's once it is open
        self.dropped = 0
        self._whose = whose
        self._rs485 = rs485
        self._stall_s = stall_s
        self._is_remote = address.startswith(RFC2217)
        self._loop = asyncio.get_running_loop()
        # ---- of the loop
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._waiting: set[asyncio.Future[None]] = set()
        self._ended = asyncio.Event()
        # ---- of both sides
        self._guard = threading.Lock()  # of the three below
        self._unread = bytearray()
        self._is_announced = False
        self._port: Any = None
        self._is_ending = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # ---- of the working thread
        self._has_frames = True
        self._rts_by_hand = False

    @classmethod
    async def open(
        cls,
        address: str,
        line_format: LineFormat,
        *,
        whose: str,
        rs485: bool = False,
        open_s: float = OPEN_S,
        stall_s: float = STALL_S,
    ) -> SerialLine:
        """Open a port of this computer (a device name or usb:...) or rfc2217://HOST:PORT, for this program alone.

        Raises:
            LinkError: it cannot be opened; nothing was sent. ParameterError: a malformed usb: address.
        """
        line = cls(address, line_format, whose, rs485=rs485, stall_s=stall_s)
        threading.Thread(target=line._work, name=f"line {address}", daemon=True).start()
        try:
            async with asyncio.timeout(open_s):
                await line._opened
        except TimeoutError as exc:
            line._end()
            raise LinkError(
                f"The port {address} of {whose} did not open within {open_s:g} s. Check the adapter and its driver.",
                LinkReason.SILENT,
                may_have_arrived=False,
            ) from exc
        except BaseException:
            line._end()
            raise
        return line

    # ---------------------------------------------------------------- the loop's side

    def take_waiting(self) -> bytes:
        with self._guard:
            data = bytes(self._unread)
            self._unread.clear()
        return data

    async def write(self, data: bytes) -> None:
        """Send. A write that is cancelled once it has begun is sent all the same; what follows waits for it.

        Raises:
            LinkError: the line is gone; or the port took no octet for ``stall_s``, and the rest was dropped.
        """
        await self._do(lambda: self._send(bytes(data)))

    async def set_format(self, line_format: LineFormat) -> None:
        """Change the open port after what was written before has left. Raises LinkError; a refusal changes nothing."""
        await self._do(lambda: self._change(line_format))

    async def send_break(self, duration_s: float) -> None:
        await self._do(lambda: self._break(duration_s))

    async def close(self) -> None:
        self._lose(f"The port {self.name} was closed here.")
        self._end()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._ended.wait()
        except TimeoutError:
            _log.warning("the driver of %s does not give the port back", self.name)

    async def _do(self, work: Callable[[], None]) -> None:
        self._check_here()
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(done)
        self._jobs.put((work, done))
        try:
            await done
        finally:
            self._waiting.discard(done)

    def _lose(self, why: str) -> None:
        super()._lose(why)
        for done in self._waiting:
            _settle(done, self._lost())

    def _announce(self) -> None:
        with self._guard:
            self._is_announced = False
        self._arrived.set()

    # ---------------------------------------------------------------- of any thread

    def _post(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(call, *args)

    def _end(self) -> None:
        """Make both threads end soon, whatever they do."""
        self._is_ending = True
        with self._guard:
            if self._port is not None:
                _cancel(self._port, "cancel_read")
                _cancel(self._port, "cancel_write")
        self._jobs.put(None)

    def _hang_up(self) -> None:
        """The port failed in use."""
        if self._is_remote:
            why = f"The serial server at {self.name} has closed the connection. Check the server and the network"
        else:
            why = f"The port {self.name} is gone: its adapter was pulled out, or its driver failed. Plug it in again"
        self._post(self._lose, f"{why}; the connection is opened again by itself.")
        self._end()

    # ---------------------------------------------------------------- the reading thread

    def _listen(self, port: Any) -> None:
        try:
            while not self._is_ending:
                self._receive_from(port)
        except _FAULTS as exc:
            if not self._is_ending:
                _log.info("%s failed while reading: %s", self.name, exc)
                self._hang_up()
        except Exception:  # noqa: BLE001 - crash boundary of a thread: the line must end in words, never hang
            _log.exception("reading from %s ended after a fault of this program", self.name)
            self._hang_up()

    def _receive_from(self, port: Any) -> None:
        data = b""
        try:
            data = port.read(1)
            if data and (more := port.in_waiting):
                data += port.read(more)
        except _FAULTS:
            data += _held_back(port)
            raise
        finally:
            if data:
                self._keep(data)

    def _keep(self, data: bytes) -> None:
        with self._guard:
            self._unread += data
            if (too_many := len(self._unread) - MAX_UNREAD) > 0:
                del self._unread[:too_many]
                is_first = self.dropped == 0
                self.dropped += too_many
            else:
                is_first = False
            is_announced, self._is_announced = self._is_announced, True
        if is_first:
            _log.warning("%s receives and nobody reads: more than %d octets, the oldest go", self.name, MAX_UNREAD)
        if not is_announced:
            self._post(self._announce)

    # ---------------------------------------------------------------- the working thread

    def _work(self) -> None:
        try:
            port = self._open_port()
        except Exception as exc:  # noqa: BLE001 - raised where the port is opened, expected or not
            self._post(_settle, self._opened, exc)
            self._post(self._ended.set)
            return
        with self._guard:
            self._port = port
        reader = threading.Thread(target=self._listen, args=(port,), name=f"reader of {self.name}", daemon=True)
        reader.start()
        self._post(_settle, self._opened, None)
        while (job := self._jobs.get()) is not None:
            if not self._is_ending and not job[1].cancelled():
                self._run(*job)
        self._shut(port, reader)

    def _run(self, work: Callable[[], None], done: asyncio.Future[None]) -> None:
        try:
            work()
        except LinkError as exc:
            self._post(_settle, done, exc)
        except _FAULTS as exc:
            if not self._is_ending:
                _log.info("%s failed: %s", self.name, exc)
                self._hang_up()
        except Exception:  # noqa: BLE001 - crash boundary of a thread: the line must end in words, never hang
            _log.exception("work on %s ended after a fault of this program", self.name)
            self._hang_up()
        else:
            self._post(_settle, done, None)

    def _shut(self, port: Any, reader: threading.Thread) -> None:
        deadline = time.monotonic() + CLOSE_S / 2
        while reader.is_alive() and time.monotonic() < deadline:
            _cancel(port, "cancel_read")  # Windows: of no effect between two reads
            reader.join(_NAP_S)
        with self._guard:
            self._port = None
        if not self._is_remote:
            with contextlib.suppress(*_FAULTS):  # else closing waits until what is unsent has left
                port.reset_output_buffer()
        with contextlib.suppress(*_FAULTS):
            port.close()
        self._post(self._ended.set)

    # ---- opening

    def _open_port(self) -> Any:
        import serial

        if not self._is_remote:
            self.name = resolve(self.name)
            if (error := self._no_port_at_all()) is not None:
                raise error
            self._has_frames = not _is_pseudo_terminal(self.name)
        try:
            port = serial.serial_for_url(self.name, do_not_open=True, exclusive=True, timeout=_WAKE_S)
            self._describe(port, self._format)
            if not self._is_remote:
                port.write_timeout = self._stall_s
            port.open()
        except _FAULTS as exc:
            raise self._not_opened(exc) from exc
        try:
            self._check_rate(port, self._format)
            if self._rs485 and not self._is_remote:
                self._rts_by_hand = not _switched_by_system(port) and _can_switch_rts(port)
        except _FAULTS as exc:
            port.close()
            raise self._not_opened(exc) from exc
        return port

    def _no_port_at_all(self) -> LinkError | None:
        """Found without opening: a name that is there and is no device."""
        if sys.platform == "win32":
            return None
        with contextlib.suppress(OSError, ValueError):  # not there, or not to be looked at: opening says it
            if not stat.S_ISCHR(os.stat(self.name).st_mode):
                return self._no_serial_port()
        return None

    def _no_serial_port(self) -> LinkError:
        return _refused(
            f"{self.name}, entered for {self._whose}, is no serial port. {ports_there_are()}", LinkReason.UNREACHABLE
        )

    def _not_opened(self, exc: Exception) -> LinkError:
        """Why the port did not open, in words."""
        port = f"The port {self.name} of {self._whose}"
        number, text = _number(exc), str(exc)
        if self._is_remote:
            return self._not_dialled(exc)
        if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or "FileNotFoundError" in text:
            return _refused(
                f"{port} is not there. Plug the adapter in, or choose another port. {ports_there_are()}",
                LinkReason.UNREACHABLE,
            )
        if number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "PermissionError" in text:  # Windows: taken
            return _refused(
                f"{port} is in use by another program, or by another connection of this one. Close it there.",
                LinkReason.BUSY,
            )
        if number in (errno.EACCES, errno.EPERM):
            group = owning_group(self.name)
            whom = f"; it belongs to the group {group}" if group is not None else ""
            return _refused(
                f"{port} may not be opened by this user{whom}. {permission_fix(self.name)}", LinkReason.DENIED
            )
        if number == errno.ENOTTY:
            return self._no_serial_port()
        if number == errno.EIO:
            return _refused(
                f"{port} has no hardware behind its name. Choose another one. {ports_there_are()}",
                LinkReason.UNREACHABLE,
            )
        if isinstance(exc, ValueError) or number == errno.EINVAL:
            return _refused(f"{port} does not take {self._format}. Choose another rate or format.", LinkReason.BROKEN)
        return _refused(f"{port} did not open: {text}. Check the adapter and its driver.", LinkReason.BROKEN)

    def _not_dialled(self, exc: Exception) -> LinkError:
        server = f"the serial server of {self._whose} at {self.name}"
        if isinstance(exc, ValueError):
            return _refused(f"{server} does not take {self._format}. Choose another rate or format.", LinkReason.BROKEN)
        causes = list(_causes(exc))
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            return _refused(
                f"The connection to {server} is refused. Check the port, and that nobody else uses it.",
                LinkReason.REFUSED,
            )
        if len(causes) > 1:
            why = (getattr(causes[-1], "strerror", None) or str(causes[-1])).rstrip(".")
            return _refused(
                f"No connection to {server}: {why}. Check the address and the network.", LinkReason.UNREACHABLE
            )
        return _refused(
            f"The answers of {server} are not those of RFC 2217. Switch RFC 2217 on there and see that nobody else is "
            "connected, or use socket:// instead.",
            LinkReason.BROKEN,
        )

    # ---- format

    def _describe(self, port: Any, line_format: LineFormat) -> None:
        """Put rate and format into ``port``; an open port changes once, with the last assignment.

        pyserial's properties would each reconfigure the port, with wrong formats in between.
        """
        has_frames = self._has_frames
        port._bytesize = line_format.data_bits if has_frames else 8
        port._parity = line_format.parity if has_frames else "N"
        port._stopbits = line_format.stop_bits if has_frames else 1
        port.baudrate = line_format.baud

    def _check_rate(self, port: Any, line_format: LineFormat) -> None:
        """Raises ValueError where the driver silently took another rate."""
        if sys.platform == "win32" or self._is_remote:
            return
        wanted = getattr(termios, f"B{line_format.baud}", None)
        if wanted is not None and termios.tcgetattr(port.fileno())[5] != wanted:
            raise ValueError(f"the driver does not take {line_format.baud} Bd")

    def _change(self, line_format: LineFormat) -> None:
        port, before = self._port, self._format
        try:
            self._describe(port, line_format)
            self._check_rate(port, line_format)
        except _FAULTS as exc:
            if not isinstance(exc, ValueError) and _number(exc) not in _REFUSED:
                raise
            with contextlib.suppress(*_FAULTS):
                self._describe(port, before)
            raise LinkError(
                f"The port {self.name} does not take {line_format}. Choose another rate or format.", LinkReason.BROKEN
            ) from exc
        self._format = line_format

    # ---- sending

    def _send(self, data: bytes) -> None:
        port, octet_s = self._port, self._format.seconds(1)
        began = time.monotonic()
        with self._driving(port):
            self._hand_over(port, data, max(1, int(self._stall_s / 2 / octet_s)))
            if not self._is_remote:
                self._drain(port)
            self._rest(began + len(data) * octet_s + TX_MARGIN_S)

    @contextlib.contextmanager
    def _driving(self, port: Any) -> Iterator[None]:
        """RS-485 by hand: the driver is on while we send."""
        if not self._rts_by_hand:
            yield
            return
        port.rts = True
        try:
            yield
        finally:
            port.rts = False

    def _hand_over(self, port: Any, data: bytes, piece: int) -> None:
        """Give ``data`` to the driver, ``piece`` octets at a time: as many as leave within half the stall time."""
        from serial import SerialTimeoutException

        for start in range(0, len(data), piece):
            if self._is_ending:
                return
            try:
                port.write(data[start : start + piece])
            except SerialTimeoutException as exc:
                raise self._stalled(port) from exc

    def _drain(self, port: Any) -> None:
        least, since = port.out_waiting, time.monotonic()
        while least and not self._is_ending:
            time.sleep(_STEP_S)
            if (left := port.out_waiting) < least:
                least, since = left, time.monotonic()
            elif time.monotonic() - since > self._stall_s:
                raise self._stalled(port)
        if not self._is_ending:
            port.flush()

    def _stalled(self, port: Any) -> LinkError:
        port.reset_output_buffer()
        return LinkError(
            f"The port {self.name} takes nothing: no octet left within {self._stall_s:g} s. Check the adapter, or the "
            "program at the other end.",
            LinkReason.BROKEN,
        )

    def _rest(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and not self._is_ending:
            time.sleep(min(left, _NAP_S))

    def _break(self, duration_s: float) -> None:
        port = self._port
        port.break_condition = True
        try:
            self._rest(time.monotonic() + duration_s)
        finally:
            port.break_condition = False


# ---------------------------------------------------------------- pyserial


def _is_pseudo_terminal(name: str) -> bool:
    if sys.platform == "win32":  # has none, and looking at a device's path may open it
        return False
    return _PSEUDO_TERMINAL.fullmatch(os.path.realpath(name)) is not None


def _settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _cancel(port: Any, name: str) -> None:
    """RFC 2217 ports have no such method: their reads end by themselves, their writes by the connection."""
    if (cancel := getattr(port, name, None)) is not None:
        with contextlib.suppress(*_FAULTS):
            cancel()


def _held_back(port: Any) -> bytes:
    """What pyserial's RFC 2217 client received and does not give out once its connection has ended."""
    data, held = b"", getattr(port, "_read_buffer", None)
    if held is not None:
        with contextlib.suppress(Empty):
            while True:
                data += held.get_nowait() or b""
    return data


def _switched_by_system(port: Any) -> bool:
    from serial.rs485 import RS485Settings

    try:
        port.rs485_mode = RS485Settings(rts_level_for_tx=True, rts_level_for_rx=False)
    except _FAULTS:
        port.rs485_mode = None
        return False
    return True


def _can_switch_rts(port: Any) -> bool:
    try:
        port.rts = False
    except _FAULTS:
        return False
    return True


def _refused(text: str, reason: LinkReason) -> LinkError:
    return LinkError(text[:1].upper() + text[1:], reason, may_have_arrived=False)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """``exc`` and what it was raised of: pyserial raises its own error inside ``except``."""
    at: BaseException | None = exc
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__


def _number(exc: BaseException) -> int | None:
    """The system's error number behind ``exc``."""
    for cause in _causes(exc):
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        if isinstance(cause, _TTY_ERRORS) and cause.args and isinstance(cause.args[0], int):
            return cause.args[0]
    return None
