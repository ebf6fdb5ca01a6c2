"""What a kept log holds of one device, for the simulator that stands in for it (``sim recorded``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from app.errors import ParameterError
from app.interaction_log.open_any import open_for_reading
from app.interaction_log.reader import LogReader
from app.model.device import Device
from app.model.interaction import Frame

PAGE: Final = 1000  # frames read at once
MAX_BYTES: Final = 512 << 20  # kept in memory while the simulator runs
NAMED: Final = 10  # devices that a refusal names


class RecordedDevice(NamedTuple):
    """Its serial number ("" where the log has none), its frames, oldest first, and what is to be said of the file."""

    serial: str
    frames: tuple[Frame, ...]
    notes: tuple[str, ...]


def recorded_device(path: Path, device: str) -> RecordedDevice:
    """Read the frames of a device and of all that stands below it in the tree; the file is never changed.

    Raises:
        StoreError: the file is no log. ParameterError: it holds no frames of this device, or too many.
    """
    opened = open_for_reading(path)
    with contextlib.closing(opened.reader) as reader:
        devices = {one.id: one for one in reader.snapshot().devices}
        found: list[tuple[int, Frame]] = []
        size = 0
        for name in _family(devices, device):
            for number, frame in _frames(reader, name):
                found.append((number, frame))
                size += len(frame.data)
                if size > MAX_BYTES:
                    text = (
                        f"{path.name} holds more than {MAX_BYTES >> 20} MiB of {device}; share a part of the log first."
                    )
                    raise ParameterError(text, "device")
        if not found:
            raise ParameterError(_nothing(reader, path, device), "device")
        found.sort(key=lambda one: one[0])
        known = devices.get(device)
        return RecordedDevice(known.serial if known is not None else "", tuple(one[1] for one in found), opened.notes)


def _family(devices: dict[str, Device], device: str) -> list[str]:
    family = [device]
    for name in family:  # grows while it is walked through: parents first
        family += [one.id for one in devices.values() if one.parent == name and one.id not in family]
    return family


def _frames(reader: LogReader, device: str) -> Iterator[tuple[int, Frame]]:
    after: int | None = None
    while page := reader.frames(device, after_id=after, limit=PAGE):
        yield from page
        after = page[-1][0]


def _nothing(reader: LogReader, path: Path, device: str) -> str:
    names = sorted({name for name, *_rest in reader.catalogue()})
    if not names:
        return f"{path.name} holds no commands of any device."
    others = ", ".join(names[:NAMED]) + (" and others" if len(names) > NAMED else "")
    return f"{path.name} holds no bytes of a device {device!r}. It has commands of: {others}."
