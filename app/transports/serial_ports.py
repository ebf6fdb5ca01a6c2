"""The serial ports of this computer, and addresses that find a USB adapter again wherever it is plugged in.

    usb:VID:PID                     the only such adapter without a serial number
    usb:VID:PID:SERIAL              hexadecimal ids; odd characters of the serial number as %XX
    usb:VID:PID[:SERIAL]@LOCATION   where several are alike: the one in this USB socket

Everything here asks the system and may take seconds: call it in a thread.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

from app.errors import LinkError, LinkReason, ParameterError

USB: Final = "usb:"
_USB: Final = re.compile(r"usb:([0-9A-F]{4}):([0-9A-F]{4})(?::([^:@\s]+))?(?:@([^:@\s]+))?", re.IGNORECASE)
_PORT_IN_BRACKETS: Final = re.compile(r"\s*\((?:COM\d+|/dev/\S+)\)$")
_ATTEMPTS: Final = 3  # an adapter that is pulled out while it is described
_NAMED: Final = 12


@dataclass(frozen=True, slots=True)
class PortInfo:
    """A port: its device name, how a person reads it, and the address to keep."""

    name: str
    title: str
    address: str


@dataclass(frozen=True, slots=True)
class UsbId:
    """What an address says of a USB adapter; "" for what it leaves open."""

    vid: int
    pid: int
    serial: str = ""
    location: str = ""

    def __str__(self) -> str:
        words = f"{self.vid:04X}:{self.pid:04X}"
        if self.serial:
            words += f", {self.serial}"
        return f"{words}, socket {self.location}" if self.location else words

    @property
    def address(self) -> str:
        text = f"{USB}{self.vid:04X}:{self.pid:04X}"
        if self.serial:
            text += f":{quote(self.serial, safe='')}"
        return f"{text}@{quote(self.location, safe='')}" if self.location else text


def parse_usb(address: str) -> UsbId:
    """Raises ParameterError when this is no usb: address."""
    if (found := _USB.fullmatch(address)) is None:
        raise ParameterError(
            f"{address[:60]!r} names no USB adapter; write usb:VID:PID:SERIAL as in usb:0403:6001:A50285BI.", "port"
        )
    vid, pid, serial, location = found.groups(default="")
    return UsbId(int(vid, 16), int(pid, 16), unquote(serial), unquote(location))


@dataclass(frozen=True, slots=True)
class _Adapter:
    """What the system says of one port; ``usb`` holds serial number and location as they are, None without USB."""

    name: str
    words: str
    usb: UsbId | None


def _natural(name: str) -> list[str | int]:
    """COM9 before COM10: words and numbers by turns."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]


def _adapter(item: Any) -> _Adapter:
    name = str(item.device)
    is_usb = item.vid is not None and item.pid is not None
    words = _PORT_IN_BRACKETS.sub("", str(item.product or item.description or ""))
    if words in ("n/a", name, os.path.basename(name)):
        words = ""
    maker = str(item.manufacturer or "") if is_usb else ""
    if maker and not words.casefold().startswith(maker.casefold()):
        words = f"{maker} {words}".rstrip()
    usb = UsbId(item.vid, item.pid, str(item.serial_number or ""), str(item.location or "")) if is_usb else None
    return _Adapter(name, words, usb)


def _adapters() -> list[_Adapter]:
    from serial.tools import list_ports as pyserial_ports

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found = [_adapter(item) for item in pyserial_ports.comports()]
        except (OSError, TypeError, ValueError) as exc:  # pyserial reads files of an adapter that has just gone
            if attempt == _ATTEMPTS:
                raise LinkError(
                    f"The system could not list its serial ports: {exc}. Try again.",
                    LinkReason.BROKEN,
                    may_have_arrived=False,
                ) from exc
        else:
            break
    return sorted(found, key=lambda adapter: _natural(adapter.name))


def list_ports() -> tuple[PortInfo, ...]:
    """The ports of this computer by name. Raises LinkError when the system cannot list them."""
    adapters = _adapters()
    alike = Counter((one.usb.vid, one.usb.pid, one.usb.serial) for one in adapters if one.usb is not None)
    return tuple(_info(one, alike) for one in adapters)


def _info(adapter: _Adapter, alike: Counter[tuple[int, int, str]]) -> PortInfo:
    usb = adapter.usb
    if usb is None:
        return PortInfo(adapter.name, f"{adapter.words}  {adapter.name}".lstrip(), adapter.name)
    is_one = alike[usb.vid, usb.pid, usb.serial] == 1
    kept = UsbId(usb.vid, usb.pid, usb.serial) if is_one else usb
    address = kept.address if is_one or usb.location else adapter.name
    return PortInfo(adapter.name, f"{adapter.words}  ({kept})  {adapter.name}".lstrip(), address)


def resolve(address: str) -> str:
    """The device name an address stands for now; a device name stands for itself.

    Raises:
        ParameterError: a malformed usb: address. LinkError: no such adapter, or several.
    """
    if address[: len(USB)].lower() != USB:
        return address
    wanted = parse_usb(address)
    adapters = _adapters()
    found = [one for one in adapters if one.usb is not None and _fits(one.usb, wanted)]
    if len(found) > 1 and not wanted.serial:
        found = [one for one in found if one.usb is not None and not one.usb.serial] or found
    if not found:
        raise LinkError(
            f"The USB adapter {wanted} is not connected. Plug it in, or choose another port. {_there_are(adapters)}",
            LinkReason.UNREACHABLE,
            may_have_arrived=False,
        )
    if len(found) > 1:
        raise LinkError(
            f"Several USB adapters are {wanted}: {_names(found)}. Choose one of them from the list of ports.",
            LinkReason.UNREACHABLE,
            may_have_arrived=False,
        )
    return found[0].name


def _fits(usb: UsbId, wanted: UsbId) -> bool:
    return (
        (usb.vid, usb.pid) == (wanted.vid, wanted.pid)
        and wanted.serial in ("", usb.serial)
        and wanted.location in ("", usb.location)
    )


def ports_there_are() -> str:
    """A sentence that names the ports of this computer."""
    try:
        return _there_are(_adapters())
    except LinkError as exc:
        return str(exc)


def _there_are(adapters: Sequence[_Adapter]) -> str:
    if not adapters:
        return "No serial port is connected now."
    return f"Ports that are there: {_names(adapters)}."


def _names(adapters: Sequence[_Adapter]) -> str:
    names = [adapter.name for adapter in adapters[:_NAMED]]
    return ", ".join(names) + (" and more" if len(adapters) > _NAMED else "")


def owning_group(path: str) -> str | None:
    """The name of the group a device belongs to (dialout on Debian, uucp on Arch); None where unknown."""
    if sys.platform == "win32":
        return None
    import grp

    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return None


def permission_fix(path: str) -> str:
    """What to do so that this user may open ``path``."""
    group = owning_group(path)
    if group is None or group == "root":
        return f"Give yourself the right to read and write {path} (a udev rule)."
    return f"sudo usermod -aG {group} $USER   then log out and in again."
