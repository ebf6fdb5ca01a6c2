"""Keeping secrets out of words: what a service, a library or a meter says may quote an address with a key in it.

Bytes are redacted where they are tapped (``Ledger.tap``). Here everything is looked at that is said in words, and what
a meter answered, before it is kept or shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from app.model.flow import FlowRun
from app.model.interaction import Attempt, Frame, Interaction, Message, StepEntry
from app.model.reading import DeviceState, Finding
from app.model.records import Change, OutboxDone, OutboxItem

NUMBERS: Final = 16  # characters; a shorter answer without letters is a measured value, whatever a password looks like


class Hiding:
    """Changes without secrets. ``redact`` takes them out of bytes (``app.interaction_log.redaction``)."""

    def __init__(self, redact: Callable[[bytes], bytes]) -> None:
        self._redact = redact

    def text(self, text: str) -> str:
        """``text`` without secrets; never fails."""
        if not text:
            return text
        data = text.encode("utf-8", "surrogatepass")
        clean = self._redact(data)
        return text if clean == data else clean.decode("utf-8", "replace")

    def __call__(self, change: Change) -> Change:
        """``change`` itself where nothing was found in it."""
        match change:
            case StepEntry(text=said) | Attempt(text=said) | Finding(text=said):
                clean = self.text(said)
                return change if clean is said else replace(change, text=clean)
            case Frame(note=said):
                clean = self.text(said)
                return change if clean is said else replace(change, note=clean)
            case Interaction():
                return self._interaction(change)
            case Message(hold_reason=said):
                clean = self.text(said)
                return change if clean is said else replace(change, hold_reason=clean)
            case DeviceState(link_text=said):
                facts, clean = self._value(change.facts), self.text(said)
                same = clean is said and facts is change.facts
                return change if same else replace(change, link_text=clean, facts=facts)
            case OutboxItem():
                payload = self._value(change.payload)
                return change if payload is change.payload else replace(change, payload=payload)
            case OutboxDone(failed=said):
                clean = self.text(said)
                return change if clean is said else replace(change, failed=clean)
            case FlowRun():
                return self._run(change)
            case _:
                return change

    def _run(self, run: FlowRun) -> FlowRun:
        """What its steps say, and what persons noted with them."""
        said = [(self.text(step.text), self.text(step.note)) for step in run.steps]
        clean = self.text(run.text)
        if clean is run.text and all(
            text is step.text and note is step.note for (text, note), step in zip(said, run.steps, strict=True)
        ):
            return run
        steps = (replace(step, text=text, note=note) for (text, note), step in zip(said, run.steps, strict=True))
        return replace(run, text=clean, steps=tuple(steps))

    def _interaction(self, interaction: Interaction) -> Interaction:
        failure, result = interaction.failure, self._value(interaction.result)
        if failure is not None and (said := self.text(failure.text)) is not failure.text:
            failure = replace(failure, text=said)
        if failure is interaction.failure and result is interaction.result:
            return interaction
        return replace(interaction, failure=failure, result=result)

    def _value(self, value: Any) -> Any:
        """A JSON-ready value; the same object where nothing was found in it."""
        if isinstance(value, str):
            is_number = len(value) < NUMBERS and not any(map(str.isalpha, value))
            return value if is_number else self.text(value)
        if isinstance(value, Mapping):
            members = {name: self._value(inner) for name, inner in value.items()}
            return value if all(members[name] is inner for name, inner in value.items()) else members
        if isinstance(value, (list, tuple)):
            items = [self._value(inner) for inner in value]
            return value if all(map(lambda a, b: a is b, items, value)) else items
        return value
