"""Following a stream: what one device said and was told, frame by frame, around a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.errors import ParameterError
from app.interaction_log.reader import LogReader
from app.model.interaction import Direction, Frame

BEFORE: Final = 20  # frames before the command
PAGE: Final = 200  # frames that are read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stretch of the frames of a device, oldest first. ``commands``: interaction -> its command.

    ``at``: place of the first frame of the interaction that was followed; None in a later stretch.
    """

    device: str
    link: str  # "": all links of the device
    frames: tuple[tuple[int, Frame], ...]
    commands: dict[int, str]
    has_earlier: bool
    has_later: bool
    at: int | None = None


def follow(reader: LogReader, number: int, *, all_links: bool = False) -> Stream:
    """Around an interaction, on the link of its first frame or on all links of its device.

    Raises:
        ParameterError: there is no such interaction, or it has no frame.
    """
    if reader.interaction(number) is None:
        raise ParameterError(f"There is no interaction {number} in this workspace.", "number")
    found = reader.first_frame(number)
    if found is None:
        raise ParameterError(
            f"Interaction {number} has no bytes: nothing was sent for it, or they were not kept.", "number"
        )
    first, frame = found
    link = "" if all_links else frame.link
    before = reader.stream(frame.device, link, before_id=first, limit=BEFORE + 1)
    behind = reader.stream(frame.device, link, since_id=first, limit=PAGE + 1)
    has_earlier, has_later = len(before) > BEFORE, len(behind) > PAGE
    before, behind = before[-BEFORE:], behind[:PAGE]
    return _stream(reader, frame.device, link, [*before, *behind], has_earlier, has_later, len(before))


def earlier(reader: LogReader, stream: Stream) -> Stream:
    """The stretch before one that has earlier frames."""
    found = reader.stream(stream.device, stream.link, before_id=stream.frames[0][0], limit=PAGE + 1)
    return _stream(reader, stream.device, stream.link, found[-PAGE:], len(found) > PAGE, True, None)


def later(reader: LogReader, stream: Stream) -> Stream:
    """The stretch behind one that has later frames, or may have by now."""
    found = reader.stream(stream.device, stream.link, since_id=stream.frames[-1][0], limit=PAGE + 2)[1:]
    return _stream(reader, stream.device, stream.link, found[:PAGE], True, len(found) > PAGE, None)


def _stream(
    reader: LogReader,
    device: str,
    link: str,
    frames: list[tuple[int, Frame]],
    has_earlier: bool,
    has_later: bool,
    at: int | None,
) -> Stream:
    commands: dict[int, str] = {}
    for _number, frame in frames:
        whose = frame.interaction
        if whose is not None and whose not in commands:
            row = reader.interaction(whose)
            commands[whose] = "" if row is None else row.command
    return Stream(
        device=device, link=link, frames=tuple(frames), commands=commands, has_earlier=has_earlier,
        has_later=has_later, at=at,
    )  # fmt: skip


def heading(
    frame: Frame, command: str, *, octets: str = "bytes", attempt: str = "try", truncated: str = "cut off"
) -> str:
    """What stands over a frame, but for its time: way, length, whose it is. The words may be translated ones."""
    way = "->" if frame.direction is Direction.OUT else "<-"
    whose = f" #{frame.interaction} {command}" if frame.interaction is not None else ""
    tried = f" {attempt} {frame.attempt}" if frame.attempt is not None and frame.attempt > 1 else ""
    cut = f", {truncated}" if frame.truncated else ""
    note = f" {frame.note}" if frame.note else ""
    return f"{way} {len(frame.data)} {octets}{cut}{whose}{tried}{note}"


def hex_lines(data: bytes, width: int = 16) -> list[str]:
    """Offset, octets and characters, sixteen octets a line."""
    lines = []
    for start in range(0, len(data), width):
        row = data[start : start + width]
        shown = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in row)
        lines.append(f"{start:06x}  {row.hex(' '):<{width * 3 - 1}}  {shown}")
    return lines
