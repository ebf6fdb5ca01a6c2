"""From the mapping of a flow file to a ``FlowSpec``, every key checked; nothing unknown is taken over.

The same function reads a file's content and the definition that a run keeps: what is parsed is the JSON-ready form of
the mapping (times as ISO 8601), whose canonical JSON gives the SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from app.errors import ConfigError, ParameterError
from app.model import flow_paths
from app.model.command import ParamSpec, ParamType
from app.model.device import NodeKind
from app.model.flow_spec import Evidence, Expectation, FlowSpec, OnFailure, Photo, Question, StepSpec

E = TypeVar("E", OnFailure, Photo)

MAX_STEPS: Final = 100
MAX_INPUTS: Final = 50
MAX_ITEMS: Final = 200  # of any other list or table
MAX_DEPTH: Final = 10
MAX_TEXT: Final = 4000  # characters of a text
MAX_NAME: Final = 60
MAX_PATTERN: Final = 200  # characters of a regular expression
MAX_RETRIES: Final = 100
MAX_WAIT_S: Final = Decimal(24 * 3600)

SHIPPED: Final = "shipped"
INPUT_TYPES: Final = (
    ParamType.TEXT, ParamType.INTEGER, ParamType.DECIMAL, ParamType.BOOLEAN, ParamType.CHOICE, ParamType.TIME,
)  # fmt: skip
WAYS: Final = ("equals", "one_of", "min and max", "about", "near", "matches", "exists")

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
_COMMAND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*")
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|min|h)")
_TOLERANCE: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(%?)")
_SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600)}
_SPAN_WORDS: Final = 'a duration such as "5 s", "500 ms", "2 min" or "1 h"'
_FLOW_KEYS: Final = ("name", "version", "title", "text", "adapters", "kinds", "inputs", "steps")
_INPUT_KEYS: Final = (
    "name", "title", "type", "unit", "default", "minimum", "maximum", "choices", "required", "help", "pattern",
)  # fmt: skip
_STEP_KEYS: Final = (
    "name", "title", "text", "command", "params", "ask", "answer", "photo", "note_required", "commissioning", "expect",
    "evidence", "on_failure", "retries", "wait", "only_if", "optional", "always", "after",
)  # fmt: skip
_OF_COMMANDS: Final = ("params", "retries", "optional", "always", "after")
_OF_QUESTIONS: Final = ("answer", "photo", "note_required")
_EVIDENCE_KEYS: Final = ("value", "title", "unit")
_TO_DO: Final = "exactly one of command, ask and commissioning = true, or only checks of what earlier steps brought"
_EXPECT_KEYS: Final = (
    "value", "title", "unit", "equals", "one_of", "min", "max", "about", "near", "tolerance", "matches", "exists",
)  # fmt: skip
_JUDGED_BY: Final = ("equals", "one_of", "min", "max", "about", "near", "matches", "exists")
# an alternation or a repetition inside a group that is repeated itself takes for ever on some texts
_NESTED: Final = re.compile(
    r"\((?:[^()\\]|\\.)*(?:[*+|]|\{[0-9]*,[0-9]*\})(?:[^()\\]|\\.)*\)(?:[*+]|\{[0-9]+,?[0-9]*\})"
)


class FlowFileError(ConfigError):
    """A flow file is wrong: which one, at which key, and what is allowed there."""


def parse_flow(mapping: Mapping[str, Any], source: str) -> FlowSpec:
    """Check a flow as it was read from TOML, or as a run keeps it.

    Args:
        source: "shipped", or the file; it stands in errors and in ``FlowSpec.source``.

    Raises:
        FlowFileError: names the source, the key and what is allowed.
    """
    definition = _plain(mapping, "", 0, source)
    top = _Table(definition, "", source)
    top.only(_FLOW_KEYS)
    name = top.name("name")
    version = top.integer("version", 1, 1_000_000)
    inputs = tuple(_input(one) for one in top.tables("inputs", MAX_INPUTS))
    _unique(top, "inputs", [one.name for one in inputs])
    known = _Known({one.name for one in inputs})
    steps: list[StepSpec] = []
    for table in top.tables("steps", MAX_STEPS):
        step = _step(table, known)
        steps.append(step)
        known.after(step)
    if not steps:
        raise top.error("steps", "holds no step", "at least one [[steps]] table")
    _unique(top, "steps", [step.name for step in steps])
    adapters = top.texts("adapters")
    if not adapters:
        raise top.error("adapters", "names no system", 'the adapters it is for, such as ["lem-dcbm"]')
    return FlowSpec(
        name=name,
        version=version,
        title=top.text("title", is_required=True),
        text=top.text("text"),
        adapters=adapters,
        kinds=_kinds(top),
        inputs=inputs,
        steps=tuple(steps),
        definition=definition,
        sha256=sha256_of(definition),
        source=source,
    )


def canonical(definition: Mapping[str, Any]) -> str:
    """The one JSON text of a definition: keys sorted, no blanks."""
    return json.dumps(definition, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(definition: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(definition).encode()).hexdigest()


def seconds_of(text: str) -> Decimal | None:
    """A duration such as "5 s" in seconds; None when it is none."""
    match = _SPAN.fullmatch(text.strip())
    return None if match is None else Decimal(match[1]) * _SECONDS[match[2]]


def tolerance_of(text: str) -> tuple[Decimal, bool] | None:
    """A tolerance such as "0.5" or "5 %", and whether it is a share in percent; None when it is none."""
    match = _TOLERANCE.fullmatch(text.strip())
    return None if match is None else (Decimal(match[1]), bool(match[2]))


# ---------------------------------------------------------------- what is in the file


@dataclass(slots=True)
class _Known:
    """What references of a step may name."""

    inputs: set[str]
    results: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    commands: set[str] = field(default_factory=set)

    def after(self, step: StepSpec) -> None:
        if step.question is not None:
            self.answers.add(step.name)
        elif step.command or step.commissioning:
            self.results.add(step.name)
        if step.command:
            self.commands.add(step.name)

    def wrong(self, path: str) -> str:
        return flow_paths.wrong_reference(path, self.inputs, self.results, self.answers)


def _plain(value: Any, key: str, depth: int, source: str) -> Any:
    """The JSON-ready form, which reads back as itself."""
    if depth > MAX_DEPTH:
        raise FlowFileError("is nested too deeply", file=source, key=key, expected=f"at most {MAX_DEPTH} levels")
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= 1 << 63:
            raise FlowFileError("is too large a number", file=source, key=key, expected="at most 19 digits")
        return value
    if isinstance(value, (float, Decimal)):
        number = float(value)
        if not math.isfinite(number):
            raise FlowFileError("is no finite number", file=source, key=key, expected="a number")
        return number
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise FlowFileError(
                f"{value.isoformat()} has no time zone", file=source, key=key, expected="such as 2026-05-01T10:00:00Z"
            )
        return value.isoformat()
    if isinstance(value, str):
        if len(value) > MAX_TEXT or any(_is_unfit(letter) for letter in value):
            raise FlowFileError(
                f"{value[:20]!r} is no usable text", file=source, key=key,
                expected=f"at most {MAX_TEXT} characters and no control characters",
            )  # fmt: skip
        return value
    if isinstance(value, Mapping):
        if len(value) > MAX_ITEMS:
            raise FlowFileError("is too large", file=source, key=key, expected=f"at most {MAX_ITEMS} entries")
        return {
            _plain_key(name, key, source): _plain(one, f"{key}.{name}" if key else str(name), depth + 1, source)
            for name, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        if len(value) > MAX_ITEMS:
            raise FlowFileError("is too long", file=source, key=key, expected=f"at most {MAX_ITEMS} entries")
        return [_plain(one, f"{key}[{place + 1}]", depth + 1, source) for place, one in enumerate(value)]
    raise FlowFileError(
        f"{str(value)[:20]!r} stands there", file=source, key=key,
        expected="a text, a number, true or false, a time with its zone, a list or a table",
    )  # fmt: skip


def _plain_key(name: Any, key: str, source: str) -> str:
    if not isinstance(name, str) or len(name) > MAX_NAME or any(_is_unfit(letter) for letter in name):
        raise FlowFileError("holds a name that cannot be one", file=source, key=key, expected="a short text")
    return name


def _is_unfit(letter: str) -> bool:
    code = ord(letter)
    return (code < 0x20 and letter not in "\n\t") or code == 0x7F or 0xD800 <= code <= 0xDFFF


class _Table:
    """One table of the file, with its place for errors."""

    def __init__(self, values: Any, path: str, source: str) -> None:
        self.path = path
        self.source = source
        if not isinstance(values, dict):
            raise FlowFileError(f"{values!r:.40} stands there", file=source, key=path, expected="a table")
        self.values: dict[str, Any] = values

    def error(self, key: str, text: str, expected: str) -> FlowFileError:
        where = f"{self.path}.{key}" if self.path and key else key or self.path
        return FlowFileError(text, file=self.source, key=where, expected=expected)

    def only(self, allowed: Sequence[str]) -> None:
        for key in self.values:
            if key not in allowed:
                raise self.error(key, "is not known", f"one of {', '.join(allowed)}")

    def has(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str, *, is_required: bool = False) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise self.error(key, f"{value!r:.40} stands there", "a text")
        if is_required and not value.strip():
            raise self.error(key, "is missing" if key not in self.values else "is empty", "a text")
        return value

    def name(self, key: str) -> str:
        value = self.text(key, is_required=True)
        if len(value) > MAX_NAME or not _NAME.fullmatch(value):
            raise self.error(key, f"{value!r:.40} stands there", "small letters, digits, _ and -, a letter first")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"{value!r:.40} stands there", "true or false")
        return bool(value)

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if value is None:
            raise self.error(key, "is missing", f"a whole number from {least} to {most}")
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(key, f"{value!r:.40} stands there", f"a whole number from {least} to {most}")
        return int(value)

    def items(self, key: str) -> list[Any]:
        value = self.values.get(key, [])
        if not isinstance(value, list):
            raise self.error(key, f"{value!r:.40} stands there", "a list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.items(key)
        if not all(isinstance(one, str) and one for one in found):
            raise self.error(key, f"{found!r:.40} stands there", "a list of texts")
        return tuple(found)

    def tables(self, key: str, most: int) -> list[_Table]:
        found = self.items(key)
        if len(found) > most:
            raise self.error(key, f"holds {len(found)} tables", f"at most {most}")
        place = f"{self.path}.{key}" if self.path else key
        return [_Table(one, f"{place}[{number}]", self.source) for number, one in enumerate(found, 1)]

    def choice(self, key: str, kind: type[E], default: E) -> E:
        value = self.values.get(key, default.value)
        for one in kind:
            if value == one.value:
                return one
        raise self.error(key, f"{value!r:.40} stands there", f"one of {', '.join(one.value for one in kind)}")

    def pattern(self, key: str) -> str:
        """A regular expression that cannot take for ever on a text of a device."""
        text = self.text(key)
        if not text:
            if key in self.values:
                raise self.error(key, "is empty", "a regular expression over the whole text")
            return text
        if len(text) > MAX_PATTERN or _NESTED.search(text):
            raise self.error(
                key,
                "is too heavy",
                f"at most {MAX_PATTERN} characters, and no alternative or repetition inside a repeated group",
            )
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as exc:
            raise self.error(key, f"is no regular expression: {exc}", "one of Python's re") from None
        return text


def _unique(top: _Table, key: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise top.error(f"{key}[{place + 1}].name", f"{name!r} stands there twice", "a name of its own")


def _kinds(top: _Table) -> tuple[NodeKind, ...]:
    allowed = [kind.value for kind in NodeKind]
    for name in (names := top.texts("kinds")):
        if name not in allowed:
            raise top.error("kinds", f"{name!r:.40} stands there", f"a list of {', '.join(allowed)}; none: any of them")
    return tuple(NodeKind(name) for name in names)


def _input(table: _Table) -> ParamSpec:
    table.only(_INPUT_KEYS)
    return _param(table, table.name("name"), table.text("title", is_required=True))


def _param(table: _Table, name: str, title: str) -> ParamSpec:
    allowed = f"one of {', '.join(INPUT_TYPES)}"
    given = table.text("type") or ParamType.TEXT.value
    if given == ParamType.SECRET:
        raise table.error("type", "asks for a secret, which a flow may not: its inputs are kept and reported", allowed)
    kind = next((one for one in INPUT_TYPES if one.value == given), None)
    if kind is None:
        raise table.error("type", f"{given!r:.40} stands there", allowed)
    numeric = kind in (ParamType.INTEGER, ParamType.DECIMAL)
    limits = {key: _limit(table, key, numeric) for key in ("minimum", "maximum")}
    if limits["minimum"] is not None and limits["maximum"] is not None and limits["minimum"] > limits["maximum"]:
        raise table.error("maximum", f"{limits['maximum']} stands there", f"at least the minimum, {limits['minimum']}")
    if table.has("pattern") and kind is not ParamType.TEXT:
        raise table.error("pattern", "stands there", 'a pattern only beside type = "text"')
    choices = _choices(table)
    if (kind is ParamType.CHOICE) != bool(choices) and kind is not ParamType.TEXT:
        raise table.error("choices", "does not fit the type", 'a list of values beside type = "choice"')
    spec = ParamSpec(
        name=name, title=title, type=kind, unit=table.text("unit"), help=table.text("help"), choices=choices,
        required=table.flag("required") if table.has("required") else True,
        minimum=limits["minimum"], maximum=limits["maximum"], pattern=table.pattern("pattern") or None,
    )  # fmt: skip
    if not table.has("default"):
        return spec
    try:
        default = spec.parse(table.values["default"])
    except ParameterError as exc:
        raise table.error("default", str(exc).rstrip("."), f"a value of the type {kind}") from None
    return ParamSpec(
        name=spec.name, title=spec.title, type=spec.type, unit=spec.unit, help=spec.help, choices=spec.choices,
        required=spec.required, minimum=spec.minimum, maximum=spec.maximum, pattern=spec.pattern, default=default,
    )  # fmt: skip


def _limit(table: _Table, key: str, numeric: bool) -> Decimal | None:
    value = table.values.get(key)
    if value is None:
        return None
    if not numeric or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise table.error(key, f"{value!r:.40} stands there", "a number, beside the types integer and decimal")
    return Decimal(str(value))


def _choices(table: _Table) -> tuple[tuple[Any, str], ...]:
    made: list[tuple[Any, str]] = []
    for place, one in enumerate(table.items("choices"), 1):
        pair = one if isinstance(one, list) else [one, str(one)]
        is_usable = len(pair) == 2 and isinstance(pair[0], (str, int)) and isinstance(pair[1], str)
        if not is_usable or isinstance(pair[0], bool):
            raise table.error(
                f"choices[{place}]", f"{one!r:.40} stands there", "a text, a whole number, or a pair [value, title]"
            )
        made.append((pair[0], pair[1]))
    return tuple(made)


# ---------------------------------------------------------------- steps


def _step(table: _Table, known: _Known) -> StepSpec:
    table.only(_STEP_KEYS)
    name = table.name("name")
    kinds = [key for key in ("command", "ask", "commissioning") if table.has(key)]
    does_nothing = not kinds and (
        not (table.has("expect") or table.has("evidence")) or any(map(table.has, (*_OF_COMMANDS, *_OF_QUESTIONS)))
    )
    if len(kinds) > 1 or does_nothing:
        said = f"has {' and '.join(kinds)}" if kinds else "says nothing that is to be done"
        raise table.error("", said, _TO_DO)
    kind = kinds[0] if kinds else ""
    if kind == "commissioning" and not table.flag("commissioning"):
        raise table.error("commissioning", "is false", "true, or a command or a question instead")
    _only_with(table, "command", kind, _OF_COMMANDS)
    _only_with(table, "ask", kind, _OF_QUESTIONS)
    command = table.text("command")
    if command and (len(command) > MAX_NAME or not _COMMAND.fullmatch(command)):
        raise table.error("command", f"{command!r:.40} stands there", "the name of a command")
    params = table.values.get("params", {})
    if not isinstance(params, dict):
        raise table.error("params", f"{params!r:.40} stands there", "a table of parameters")
    _check_references(table, "params", params, known)
    for key in ("text", "ask"):
        _check_references(table, key, table.text(key), known)
    question = _question(table) if kind == "ask" else None
    expect = tuple(_expectation(one, kind, known) for one in table.tables("expect", MAX_ITEMS))
    wait = table.text("wait")
    wait_s = Decimal(0) if not table.has("wait") else seconds_of(wait)
    if wait_s is None or wait_s > MAX_WAIT_S:
        raise table.error("wait", f"{wait!r:.40} stands there", f"{_SPAN_WORDS}, at most 24 h")
    only_if = table.text("only_if")
    if table.has("only_if"):
        head = only_if.partition(".")[0]
        wrong = known.wrong(only_if) if head in ("input", "steps") else "it is no condition"
        if wrong:
            raise table.error("only_if", f"{only_if!r:.60}: {wrong}", "input.NAME or steps.NAME.result.PATH")
    return StepSpec(
        name=name,
        title=table.text("title", is_required=True),
        text=table.text("text"),
        command=command,
        params=params,
        question=question,
        commissioning=kind == "commissioning",
        expect=expect,
        evidence=_evidence(table, kind, known),
        on_failure=table.choice("on_failure", OnFailure, OnFailure.ASK),
        retries=table.integer("retries", 0, MAX_RETRIES, default=0),
        wait_s=wait_s,
        only_if=only_if,
        optional=table.flag("optional"),
        always=table.flag("always"),
        after=_after(table, known),
    )


def _after(table: _Table, known: _Known) -> tuple[str, ...]:
    """The steps that an ``always`` step undoes: one name or a list of them."""
    allowed = "the name of an earlier step with a command, or a list of such names"
    is_always = table.flag("always")
    if not table.has("after"):
        if is_always:
            raise table.error("after", "is missing beside always", allowed)
        return ()
    if not is_always:
        raise table.error("after", "stands alone", "after only beside always = true")
    value = table.values["after"]
    names = (value,) if isinstance(value, str) else table.texts("after")
    for name in names or ("",):
        if name not in known.commands:
            raise table.error("after", f"{name!r:.40} stands there", allowed)
    return names


def _evidence(table: _Table, kind: str, known: _Known) -> tuple[Evidence, ...]:
    """Paths, or tables of a path with its title and unit."""
    made = []
    for place, one in enumerate(table.items("evidence"), 1):
        key = f"evidence[{place}]"
        if isinstance(one, str):
            _check_path(table, key, one, kind, known)
            made.append(Evidence(value=one))
            continue
        inner = _Table(one, f"{table.path}.{key}", table.source)
        inner.only(_EVIDENCE_KEYS)
        value = inner.text("value", is_required=True)
        _check_path(inner, "value", value, kind, known)
        made.append(Evidence(value=value, title=inner.text("title"), unit=inner.text("unit")))
    return tuple(made)


def _only_with(table: _Table, owner: str, kind: str, keys: Sequence[str]) -> None:
    for key in keys:
        if kind != owner and table.has(key):
            raise table.error(key, f"stands beside {kind}", f"{key} only in a step with {owner}")


def _question(table: _Table) -> Question:
    text = table.text("ask", is_required=True)
    answer: ParamSpec | None = None
    if table.has("answer"):
        inner = _Table(table.values["answer"], f"{table.path}.answer", table.source)
        inner.only([key for key in _INPUT_KEYS if key not in ("name", "default")])
        answer = _param(inner, "answer", inner.text("title") or "Answer")
    return Question(
        text=text,
        answer=answer,
        photo=table.choice("photo", Photo, Photo.NO),
        note_required=table.flag("note_required"),
    )


def _check_references(table: _Table, key: str, value: Any, known: _Known) -> None:
    """Every reference in a value, however deep."""
    if isinstance(value, str):
        for path in flow_paths.references_in(value):
            if wrong := known.wrong(path):
                raise table.error(key, f"{{{path}}}: {wrong}", f"one of {flow_paths.REFERENCES}")
    elif isinstance(value, dict):
        for name, one in value.items():
            _check_references(table, f"{key}.{name}", one, known)
    elif isinstance(value, list):
        for place, one in enumerate(value, 1):
            _check_references(table, f"{key}[{place}]", one, known)


def _check_path(table: _Table, key: str, path: str, kind: str, known: _Known) -> None:
    """``kind``: of the step, "" of one that only judges what earlier steps brought."""
    names = [segment.name for segment in flow_paths.parse_path(path)]
    match names:
        case ["answer"] if kind == "ask":
            return
        case ["result", _first, *_rest] if kind in ("command", "commissioning"):
            return
        case ["fact", _name, *_rest]:
            return
        case ["steps", _name, "result", _first, *_rest]:
            if wrong := known.wrong(path):
                raise table.error(key, f"{path!r:.60}: {wrong}", "steps.NAME.result.PATH of an earlier step")
        case _:
            own = {"ask": "answer", "": "steps.NAME.result.PATH"}.get(kind, flow_paths.PATHS)
            more = {"ask": " in a question", "": " where nothing is done"}.get(kind, ", or steps.NAME.result.PATH")
            raise table.error(key, f"{path!r:.60} stands there", f"{own} or fact.NAME{more}")


def _expectation(table: _Table, kind: str, known: _Known) -> Expectation:
    table.only(_EXPECT_KEYS)
    value = table.text("value", is_required=True)
    _check_path(table, "value", value, kind, known)
    for key in _JUDGED_BY:
        if key != "matches" and table.has(key):
            _check_references(table, key, table.values[key], known)
    given = [key for key in _JUDGED_BY if table.has(key)]
    ways = {"min" if key == "max" else key for key in given}
    if len(ways) != 1:
        said = f"judges by {', '.join(given)}" if given else "says nothing to judge by"
        raise table.error("", said, f"exactly one of {', '.join(WAYS)}")
    (way,) = ways
    tolerance = table.text("tolerance")
    if table.has("tolerance") != (way in ("about", "near")):
        raise table.error("tolerance", f"does not fit {way}", "a tolerance beside about and near, and only there")
    values = table.values
    match way:
        case "equals":
            _judged_by(table, "equals", (str, int, float, bool), "a text, a number, true or false")
        case "one_of":
            items = table.items("one_of")
            if not items or not all(isinstance(one, (str, int, float, bool)) for one in items):
                raise table.error("one_of", f"{items!r:.40} stands there", "a list of texts or numbers")
        case "min":
            for key in ("min", "max"):
                if table.has(key):
                    _number(table, key)
            low, high = values.get("min"), values.get("max")
            if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low > high:
                raise table.error("max", f"{high} stands there", f"at least min, {low}")
        case "about":
            _number(table, "about")
            if tolerance_of(tolerance) is None:
                raise table.error("tolerance", f"{tolerance!r:.40} stands there", 'such as "0.5" or "5 %"')
        case "near":
            near = table.text("near", is_required=True)
            if near != "now" and not flow_paths.whole_reference(near) and _moment(near) is None:
                raise table.error("near", f"{near!r:.40} stands there", '"now", a time with its zone, or a reference')
            if seconds_of(tolerance) is None:
                raise table.error("tolerance", f"{tolerance!r:.40} stands there", _SPAN_WORDS)
        case _:
            pass
    return Expectation(
        value=value, title=table.text("title"), unit=table.text("unit"), equals=values.get("equals"),
        one_of=tuple(table.items("one_of")), minimum=values.get("min"), maximum=values.get("max"),
        about=values.get("about"), near=values.get("near"), tolerance=tolerance, matches=table.pattern("matches"),
        exists=table.flag("exists") if way == "exists" else None,
    )  # fmt: skip


def _judged_by(table: _Table, key: str, kinds: tuple[type, ...], expected: str) -> None:
    if not isinstance(table.values[key], kinds):
        raise table.error(key, f"{table.values[key]!r:.40} stands there", expected)


def _number(table: _Table, key: str) -> None:
    value = table.values[key]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and flow_paths.whole_reference(value)):
        raise table.error(key, f"{value!r:.40} stands there", "a number or one reference")


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
