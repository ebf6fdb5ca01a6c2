"""Recorded frames of one command, as adapters read them again (``app.ports.Rereader``). Pure."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from app.errors import RemoteProtocolError
from app.model.interaction import HIDDEN_TOKEN, Direction, Frame

T = TypeVar("T")
_REDACTED: Final = HIDDEN_TOKEN.encode()


class Unrecorded(Exception):
    """The frames do not hold the answer to something that the command asks."""


def is_whole(frame: Frame) -> bool:
    """The log keeps all that crossed: nothing is cut, and no secret taken out."""
    return not frame.truncated and _REDACTED not in frame.data


def incoming(frames: Iterable[Frame], *, note: str | None = None) -> list[Frame] | None:
    """What came, in order; only frames with ``note`` where one is given. None: part of it was not kept."""
    came = [one for one in frames if one.direction is Direction.IN and note in (None, one.note)]
    return came if all(map(is_whole, came)) else None


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """A request and its whole answer, headers left out."""

    method: str
    target: str
    status: int
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def http_exchanges(frames: Iterable[Frame]) -> list[HttpExchange]:
    """Answers of which nothing is missing, in their order, each with the request before it. Where several phases of a
    meter are asked at the same time this may be that of another phase.
    """
    found: list[HttpExchange] = []
    asked: tuple[str, str] | None = None
    for frame in frames:
        head, _blank, body = frame.data.partition(b"\r\n\r\n")
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) < 2:
            continue
        if frame.direction is Direction.OUT:
            asked = words[0], words[1]
        elif asked is not None and words[1].isdecimal() and is_whole(frame):
            found.append(HttpExchange(*asked, int(words[1]), body))
    return found


def agreed(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Fields on which all readings agree: those that the frames decide, where a setting or clock is not known."""
    first, *others = readings
    return {name: value for name, value in first.items() if all(name in one and one[name] == value for one in others)}


def expect_success(frames: Sequence[Frame], text: str) -> None:
    """To be called where no frame shows the success. Returns where a secret was taken out of one, which may have.

    Raises:
        RemoteProtocolError: the frames of a successful command do not show the success; ``text`` says what is missing.
    """
    if incoming(frames):
        raise RemoteProtocolError(text)


def carried_out(work: Coroutine[Any, Any, T]) -> T:
    """What a live adapter's work returns on recorded answers: it waits for nothing but pauses of no length.

    Raises:
        Unrecorded: it waits for something. What ``work`` raises.
    """
    while True:
        try:
            awaited = work.send(None)
        except StopIteration as done:
            found: T = done.value
            return found
        if awaited is not None:
            work.close()
            raise Unrecorded


class NoSecrets:
    """``app.ports.Secrets`` without any: answers are read without."""

    def get(self, name: str) -> str | None:
        return None

    def set(self, name: str, value: str) -> None: ...

    def delete(self, name: str) -> None: ...


def unseen(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
    """``app.ports.Tap`` for nothing: no octet crosses a transport."""
