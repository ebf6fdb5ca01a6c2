"""The filter language of the log, version 2.

    device:lem-1 status:failed reason:LINK_* since:-2h not origin:RECONCILER "gateway offline" (relay or token)
    latency > 2s  result.voltage < 200  bytes.in ~ 68 ?? 71  site:north  finding:CLOCK  attempts > 1

Terms side by side must all hold; ``and``, ``or``, ``not`` and brackets do what they say. A word without a field is
searched in the interaction's text (device, command, reason, parameters, failure, result), as ``text:word`` is.

A field is followed by ``:`` or by one of ``= != < <= > >= ~`` (contains); ``:`` and ``=`` mean the same. A value may
stand in quotes (``\\"`` and ``\\\\`` inside), and behind ``:`` or ``=`` end with ``*`` for "begins with"; ``reason:*``
is "has a reason". Texts compare without regard to the case of A to Z. ``!=`` needs a value that is another one;
``not x = y`` holds without a value too.

===============================  ======================================================================================
device command status kind       texts of the interaction; ``code`` is another word for ``reason``
origin adapter reason
id batch commissioning attempts  whole numbers and ranges, ``100..200``, both included
parent follows                   the interaction it is a follow-up of; all that came of an interaction
since until created finished     times: ``2026-05-01T10:30``, ``2026-05-01`` (all of the day), ``10:30``, ``-2h``,
                                 ``today``, in the zone of ``now``; ``since:`` from it on, ``until:`` up to it, not
                                 included
latency duration waited          ``2s``, ``150 ms``, ``5 min``, ``2 h``, ``1s..2s``: from the first sending to the last
                                 answer; from creation to the end; from creation to the first sending
param.NAME result.NAME.NAME      numbers, texts, true and false; digits are a place in a list; of a value with a unit
                                 the value; a value in quotes is a text
bytes bytes.in bytes.out         octets in one frame, ``??`` for any: ``bytes ~ 68 ?? 71``
meter serial site grid gateway   of the device as the tree has it now: id, name or serial of the meter; a part of the
                                 tree by its id, with all that hangs below it
finding actor step               code of a finding; who did something; a step it has been through
is                               open, finished, failed
===============================  ======================================================================================

Devices are filtered in the same language by ``parse_for_devices``: device name adapter kind serial model link meter
site grid gateway fact.NAME and words.

The meaning is defined once, by the tree of nodes; ``Filter.sql`` and ``Filter.matches`` agree on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.interaction_log.filter_complete import Known, complete
from app.interaction_log.filter_match import NO_CONTEXT, Context, DeviceJudge, InteractionJudge
from app.interaction_log.filter_nodes import (
    CHOICES,
    FIELDS,
    KEYWORDS,
    LINKED_FIELDS,
    STATES,
    TREE_FIELDS,
    And,
    Bytes,
    Cell,
    Compare,
    Contains,
    Everything,
    Follows,
    Is,
    Kind,
    Literal,
    Match,
    Node,
    Not,
    Op,
    Or,
    Since,
    Span,
    Text,
    Until,
    all_of,
    any_of,
    leaves,
    words_of,
)
from app.interaction_log.filter_parse import MAX_TEXT, OF_DEVICES, OF_INTERACTIONS, parsed
from app.interaction_log.filter_print import printed, quoted
from app.interaction_log.filter_sql import condition
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import DeviceState

__all__ = [
    "CHOICES",
    "FIELDS",
    "KEYWORDS",
    "MAX_TEXT",
    "OF_DEVICES",
    "OF_INTERACTIONS",
    "STATES",
    "And",
    "Bytes",
    "Cell",
    "Compare",
    "Contains",
    "Context",
    "DeviceFilter",
    "Everything",
    "Filter",
    "Follows",
    "Is",
    "Kind",
    "Known",
    "Literal",
    "Match",
    "Node",
    "Not",
    "Op",
    "Or",
    "Since",
    "Span",
    "Text",
    "Until",
    "all_of",
    "any_of",
    "complete",
    "leaves",
    "parse",
    "parse_for_devices",
    "quoted",
    "words_of",
]

_LINKED: Final = {"finding": "findings", "actor": "steps", "step": "steps"}


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter of interactions."""

    node: Node

    @property
    def is_everything(self) -> bool:
        return isinstance(self.node, Everything)

    @property
    def needs(self) -> frozenset[str]:
        """The attributes of ``Context`` that decide; empty when the record alone does."""
        return frozenset(need for leaf in leaves(self.node) if (need := _need(leaf)))

    def sql(self) -> tuple[str, list[Any]]:
        """A condition over the columns of table ``interaction`` and its parameters; never NULL."""
        parameters: list[Any] = []
        return condition(self.node, parameters), parameters

    def matches(self, interaction: Interaction, text: str | None = None, *, context: Context = NO_CONTEXT) -> bool:
        """Whether a live record is meant.

        Args:
            text: what full text would hold of it (None: made from the record).
            context: what stands beside it, see ``needs``; what is not given counts as not there.
        """
        return InteractionJudge(interaction, text, context).holds(self.node)

    def among(self, first: int, last: int) -> Filter:
        """The same of the interactions ``first`` to ``last``: to ask the log where the record alone does not decide."""
        span = Span("id", first, last)
        return Filter(span if self.is_everything else all_of([span, self.node]))

    def __str__(self) -> str:
        """The canonical text; it parses to the same tree, whatever the time is by then."""
        return printed(self.node)


def _need(leaf: Node) -> str:
    match leaf:
        case Match(field) | Contains(field) if field in TREE_FIELDS:
            return "devices"
        case Match(field) | Contains(field) if field in LINKED_FIELDS:
            return _LINKED[field]
        case Compare("latency" | "waited"):
            return "attempts"
        case Bytes():
            return "frames"
        case Follows():
            return "chain"
        case _:
            return ""


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """A parsed filter of devices."""

    node: Node

    @property
    def is_everything(self) -> bool:
        return isinstance(self.node, Everything)

    def matches_device(
        self, device: Device, state: DeviceState, tree: Mapping[str, Device], *, shown: str | None = None
    ) -> bool:
        """Whether a node is meant.

        Args:
            tree: all nodes by id.
            shown: what a list shows of the node; words without a field are then looked for anywhere in it, as a
                plain search does, and not only as whole words of the device.
        """
        return DeviceJudge(device, state, tree, shown).holds(self.node)

    def __str__(self) -> str:
        """The canonical text."""
        return printed(self.node)


def parse(text: str, now: datetime) -> Filter:
    """Parse a filter text; the empty one means everything.

    Args:
        text: see the module's first lines.
        now: aware; relative times count from it, and its zone holds for times without one.

    Raises:
        FilterError: and nothing else, whatever the text is.
    """
    return Filter(parsed(text, now, OF_INTERACTIONS))


def parse_for_devices(text: str, now: datetime) -> DeviceFilter:
    """Parse a filter of devices; as ``parse``.

    Raises:
        FilterError: also for a field that interactions alone have.
    """
    return DeviceFilter(parsed(text, now, OF_DEVICES))
