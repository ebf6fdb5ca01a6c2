"""A commissioning flow as data: steps, what each expects, and what a person is asked.

The nouns of a flow file (``resources/flows/*.toml``, and a profile's own). ``app/flow_files.py`` reads the files,
``app/model/flow_parse.py`` names what is wrong in them; ``FlowRun.definition`` keeps one as the JSON-ready form of the
mapping it was read from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from app.model.command import ParamSpec
from app.model.device import NodeKind


class OnFailure(StrEnum):
    """What follows when a step does not meet what it expects."""

    STOP = "stop"  # the run has failed
    ASK = "ask"  # a person chooses: again, go on, stop. Unattended it is ``stop``
    WARN = "warn"  # said in the report, and the run goes on


class Photo(StrEnum):
    NO = "no"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One value and what it must be. Limits may be references such as ``{input.x}`` or ``{steps.a.result.b}``.

    ``value`` is a path (app/model/flow_paths.py): ``result.NAME[.NAME|.INDEX]``, ``steps.NAME.result.PATH`` of an
    earlier step, ``fact.NAME`` or ``answer``; of a commissioning ``result.COMMAND.NAME``. ``unit`` is that of the
    limits: a value whose result names another unit is turned into it, one whose result names none is taken to be in it.

    Exactly one way of judging is given: ``equals``; ``one_of``; ``minimum`` and/or ``maximum``; ``about`` with
    ``tolerance`` ("5 %", or a number in the unit); ``near`` (a time, or "now") with ``tolerance`` as a duration
    ("30 s"); ``matches`` (a regular expression over the whole text); ``exists``.
    """

    value: str
    title: str = ""
    unit: str = ""
    equals: Any = None
    one_of: tuple[Any, ...] = ()
    minimum: Any = None
    maximum: Any = None
    about: Any = None
    near: Any = None
    tolerance: str = ""
    matches: str = ""
    exists: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One value that the report shows beside the expectations. ``value`` is a path as there; ``unit``: shown in it."""

    value: str
    title: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A person's check. ``answer`` None: yes or no; otherwise the value to enter, checked by its ``ParamSpec``."""

    text: str
    answer: ParamSpec | None = None
    photo: Photo = Photo.NO
    note_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One step: one of ``command``, ``question`` and ``commissioning``; none of them where it only judges what earlier
    steps brought.

    An ``always`` step undoes what a step of ``after`` did: it is done also when the run has failed or was stopped, and
    only if one of those had given its command.
    """

    name: str
    title: str
    text: str = ""
    command: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)  # values may be references
    question: Question | None = None
    commissioning: bool = False  # the six steps of specs/command-flow.md section 7, as one step
    expect: tuple[Expectation, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    on_failure: OnFailure = OnFailure.ASK
    retries: int = 0  # only of commands without an effect outside
    wait_s: Decimal = Decimal(0)  # before it begins, and before each of its retries
    # ``input.NAME``, ``steps.NAME.result.PATH`` or ``steps.NAME.answer`` that must be true, else the step is skipped
    only_if: str = ""
    optional: bool = False  # skipped, with its reason, where the device does not offer the command
    always: bool = False
    after: tuple[str, ...] = ()  # names of earlier steps with a command, beside ``always``


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """One flow. ``sha256`` is of the canonical JSON of ``definition``."""

    name: str
    version: int
    title: str
    text: str = ""
    adapters: tuple[str, ...] = ()  # adapter types it is for
    kinds: tuple[NodeKind, ...] = ()  # of the nodes it is for; none: of any
    inputs: tuple[ParamSpec, ...] = ()
    steps: tuple[StepSpec, ...] = ()
    definition: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    source: str = ""  # "shipped", or the file it was read from

    def step(self, name: str) -> StepSpec | None:
        return next((step for step in self.steps if step.name == name), None)

    def suits(self, kind: NodeKind) -> bool:
        """Whether it is for nodes of a kind."""
        return not self.kinds or kind in self.kinds
