"""A filter's terms judged in memory: of a record as it goes by, and of a device of the tree."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from app.interaction_log import filter_nodes as n
from app.interaction_log.filter_nodes import Bytes, Cell, Compare, Contains, Kind, Match, Node, Op, text_matches
from app.interaction_log.rows import fold, search_text, to_us
from app.model.device import Device, NodeKind
from app.model.interaction import STEP_TITLES, Attempt, AttemptEnd, Frame, Interaction, StepEntry
from app.model.reading import DeviceState, Finding
from app.model.status import FAILED_GROUP


class Told(Protocol):
    """What a ``reader.Story`` holds."""

    @property
    def steps(self) -> Sequence[StepEntry]: ...
    @property
    def attempts(self) -> Sequence[Attempt]: ...
    @property
    def frames(self) -> Sequence[Frame]: ...
    @property
    def findings(self) -> Sequence[Finding]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What stands beside an interaction and decides terms that the record alone cannot.

    Attributes:
        devices: the tree, by id.
        chain: the interactions it came of: the one it follows up, the one that one follows up, and so on.
    """

    steps: Sequence[StepEntry] = ()
    attempts: Sequence[Attempt] = ()
    frames: Sequence[Frame] = ()
    findings: Sequence[Finding] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    chain: Collection[int] = ()

    @classmethod
    def of(cls, story: Told, devices: Mapping[str, Device], chain: Collection[int] = ()) -> Context:
        return cls(
            steps=story.steps,
            attempts=story.attempts,
            frames=story.frames,
            findings=story.findings,
            devices=devices,
            chain=chain,
        )


NO_CONTEXT: Final = Context()
_TESTS: Final[dict[Op, Callable[[Any, Any], bool]]] = {
    Op.EQUAL: operator.eq,
    Op.DIFFERENT: operator.ne,
    Op.BELOW: operator.lt,
    Op.AT_MOST: operator.le,
    Op.ABOVE: operator.gt,
    Op.AT_LEAST: operator.ge,
}


class InteractionJudge:
    """Judges one interaction.

    Args:
        text: what full text holds of it; None: made from the record.
    """

    def __init__(self, interaction: Interaction, text: str | None, context: Context) -> None:
        self._i = interaction
        self._text = text
        self._context = context
        self._words: list[str] | None = None

    def holds(self, node: Node) -> bool:
        i = self._i
        match node:
            case n.Everything():
                return True
            case Match() | Contains():
                return any(text_matches(node, text) for text in self._texts(node.field))
            case n.Span(name, low, high):
                number = {
                    "id": i.id, "batch": i.batch, "commissioning": i.commissioning, "parent": i.followup_of,
                    "attempts": i.attempts,
                }[name]  # fmt: skip
                return number is not None and (low is None or number >= low) and (high is None or number <= high)
            case n.Since(at):
                return i.created >= at
            case n.Until(at):
                return i.created < at
            case n.Is("open"):
                return not i.is_settled
            case n.Is("finished"):
                return i.is_settled
            case n.Is(_):
                return i.status in FAILED_GROUP
            case n.Text():
                if self._words is None:
                    self._words = n.words_of(search_text(i) if self._text is None else self._text)
                return stand_side_by_side(node, self._words)
            case Compare(name, op, us):
                taken = self._microseconds(name)
                return taken is not None and (op is Op.EXISTS or _TESTS[op](taken, us))
            case Cell():
                return cell_matches(node, i.params if node.head == "param" else i.result)
            case Bytes():
                return any(_holds_octets(node, frame) for frame in self._context.frames)
            case n.Follows(number):
                return number in self._context.chain
            case n.Not(item):
                return not self.holds(item)
            case n.And(items):
                return all(map(self.holds, items))
            case n.Or(items):
                return any(map(self.holds, items))

    def _texts(self, name: str) -> Iterator[str]:
        """The texts of a field."""
        i, context = self._i, self._context
        match name:
            case "device":
                yield i.device
            case "command":
                yield i.command
            case "status":
                yield i.status
            case "kind":
                yield i.kind
            case "origin":
                yield i.origin
            case "adapter":
                yield i.adapter
            case "reason":
                if i.failure is not None:
                    yield i.failure.code
            case "finding":
                yield from (finding.code for finding in context.findings)
            case "actor":
                yield from (line.actor for line in context.steps)
            case "step":
                yield from (STEP_TITLES[line.step] for line in context.steps)
            case _:
                if (device := context.devices.get(i.device)) is not None:
                    yield from tree_texts(name, device, context.devices)

    def _microseconds(self, name: str) -> int | None:
        i, attempts = self._i, self._context.attempts
        if name == "finished":
            return None if i.finished is None else to_us(i.finished)
        if name == "duration":
            return None if i.finished is None else to_us(i.finished) - to_us(i.created)
        if not attempts:
            return None
        sent = min(to_us(attempt.started) for attempt in attempts)
        if name == "waited":
            return sent - to_us(i.created)
        answered = [to_us(a.ended) for a in attempts if a.end is AttemptEnd.ANSWERED and a.ended is not None]
        return max(answered) - sent if answered else None


class DeviceJudge:
    """Judges one node of the tree. ``shown``: as of ``DeviceFilter.matches_device``."""

    def __init__(
        self, device: Device, state: DeviceState, tree: Mapping[str, Device], shown: str | None = None
    ) -> None:
        self._device = device
        self._state = state
        self._tree = tree
        self._shown = shown

    def holds(self, node: Node) -> bool:
        match node:
            case n.Everything():
                return True
            case Match() | Contains():
                return any(text_matches(node, text) for text in self._texts(node.field))
            case n.Text() if self._shown is not None:
                return node.value.casefold() in self._shown.casefold()
            case n.Text():
                device, state = self._device, self._state
                shown = (device.id, device.name, device.adapter, device.serial, device.model, state.link_text)
                return stand_side_by_side(node, n.words_of(" ".join(shown)))
            case Cell():
                return cell_matches(node, self._state.facts)
            case n.Not(item):
                return not self.holds(item)
            case n.And(items):
                return all(map(self.holds, items))
            case n.Or(items):
                return any(map(self.holds, items))
            case _:
                raise AssertionError(f"{node} does not ask about devices")

    def _texts(self, name: str) -> Iterator[str]:
        device = self._device
        match name:
            case "device":
                yield device.id
            case "name":
                yield device.name
            case "adapter":
                yield device.adapter
            case "kind":
                yield device.kind
            case "model":
                yield device.model
            case "link":
                yield self._state.link
            case _:
                yield from tree_texts(name, device, self._tree)


def tree_texts(name: str, device: Device, tree: Mapping[str, Device]) -> Iterator[str]:
    """The texts of a field of the tree: of the device itself, or of the nodes of that kind that it stands in."""
    if name in ("meter", "serial"):
        if device.serial and (name == "serial" or device.kind is NodeKind.METER):
            yield device.serial
        if name == "meter" and device.kind is NodeKind.METER:
            yield from (device.id, device.name)
        return
    seen: set[str] = set()
    node: Device | None = device
    while node is not None and node.id not in seen:
        seen.add(node.id)
        if node.kind == name:
            yield node.id
        node = tree.get(node.parent)


def stand_side_by_side(node: n.Text, words: Sequence[str]) -> bool:
    """Whether the words of a text term stand so among ``words``."""
    wanted = n.words_of(node.value)
    length = len(wanted)
    *whole, last = wanted
    for start in range(len(words) - length + 1):
        if list(words[start : start + length - 1]) == whole:
            here = words[start + length - 1]
            if here == last or (node.is_prefix and here.startswith(last)):
                return True
    return False


def _holds_octets(node: Bytes, frame: Frame) -> bool:
    _head, _dot, direction = node.field.partition(".")
    if direction and frame.direction != direction:
        return False
    data, octets, runs = frame.data, node.octets, node.runs()
    if not runs:
        return len(data) >= len(octets)
    anchor, longest = max(runs, key=lambda run: len(run[1]))
    at = data.find(longest, anchor)
    while at >= 0:
        start = at - anchor
        if start + len(octets) <= len(data) and all(data.startswith(run, start + place) for place, run in runs):
            return True
        at = data.find(longest, at + 1)
    return False


# ---------------------------------------------------------------- parameters, results, facts


def cell_matches(node: Cell, cells: Mapping[str, Any] | None) -> bool:
    """Whether the value at the path of a cell is meant; ``cells`` is JSON-ready."""
    here: Any = cells
    for part in node.path:
        if isinstance(part, int):
            here = here[part] if isinstance(here, (list, tuple)) and part < len(here) else None
        else:
            here = here.get(part) if isinstance(here, Mapping) else None
    if node.op is Op.EXISTS:
        return here is not None
    if isinstance(here, Mapping):
        here = here.get("value")
    if here is None or isinstance(here, (Mapping, list, tuple)):
        return False
    return _value_matches(node.op, node.value, here)


def _value_matches(op: Op, value: n.Literal, here: Any) -> bool:
    if op is Op.DIFFERENT:
        return not _value_matches(Op.EQUAL, value, here)
    if op not in (Op.CONTAINS, Op.BEGINS):
        if value.kind is Kind.FLAG:
            return (here if isinstance(here, str) else str(here)).lower() == value.text and isinstance(here, bool | str)
        if value.kind is Kind.NUMBER:
            number, wanted = _number(here), n.number_of(value.text)
            return number is not None and _TESTS[op](number, wanted)
    text = _text(here)
    if text is None:
        return False
    wanted_text, text = fold(value.text), fold(text)
    if op is Op.CONTAINS:
        return wanted_text in text
    return text.startswith(wanted_text) if op is Op.BEGINS else _TESTS[op](text, wanted_text)


def _number(here: Any) -> int | float | None:
    if isinstance(here, str):
        return n.number_of(here)
    if isinstance(here, bool):
        return None
    return n.number_of(str(here))


def _text(here: Any) -> str | None:
    """The text a value is compared by: its own, or the digits of a whole number."""
    if isinstance(here, str):
        return here
    is_whole = isinstance(here, int) and not isinstance(here, bool) and isinstance(n.number_of(str(here)), int)
    return str(here) if is_whole else None
