"""What a step of a flow expects beside what was found: references filled in, values judged. Pure.

Numbers are compared as Decimals, also where a result carries them as text; a text is compared as a text. A value that
is missing is not met and says so. Units: ``convert`` turns a number from the unit that the result names into that of
the expectation; where the result names none, the expectation's is taken for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.errors import ParameterError
from app.model.device import Device
from app.model.flow import FlowCheck
from app.model.flow_parse import seconds_of, tolerance_of
from app.model.flow_paths import DEVICE_FIELDS, NOTHING, Found, fill, look_up, parse_path, whole_reference
from app.model.flow_spec import Evidence, Expectation, FlowSpec
from app.model.jsonable import jsonable

MAX_SHOWN: Final = 200  # characters of a value in a check
MAX_MATCHED: Final = 1000  # characters of a text that a regular expression is asked about
NOT_THERE: Final = "nothing"
NO_SERIAL: Final = "The device has no serial number in the tree: enter it first."

Convert = Callable[[Decimal, str, str], "Decimal | None"]
"""A number, the unit it is in, and the one wanted; None where one cannot be turned into the other."""

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_FALSE: Final = ("", "false", "no", "off", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where references and paths lead. ``settings`` hold no secrets. ``now`` is when the judged answer came."""

    device: Device
    now: datetime
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)  # with their proper types
    result: Mapping[str, Any] | None = None  # of the step itself
    answer: Any = NOTHING  # of the step itself
    result_of: Callable[[str], Mapping[str, Any] | None] = lambda _step: None
    answer_of: Callable[[str], Any] = lambda _step: NOTHING


def find(path: str, sources: Sources) -> Found:
    """Where a reference or a path of an expectation leads."""
    head, *rest = parse_path(path)
    match head.name:
        case "now":
            return Found(sources.now)
        case "input":
            return look_up(sources.inputs, rest)
        case "device":
            return look_up(_device(sources), rest)
        case "fact":
            return look_up(sources.facts, rest)
        case "result":
            return look_up(sources.result, rest)
        case "answer":
            return Found(sources.answer)
        case "steps" if len(rest) > 1 and rest[1].name == "answer":
            return Found(sources.answer_of(rest[0].name))
        case "steps" if len(rest) > 1:
            return look_up(sources.result_of(rest[0].name), rest[2:])
        case _:
            return Found(NOTHING)


def _device(sources: Sources) -> dict[str, Any]:
    node = sources.device
    fields = {name: getattr(node, name) for name in DEVICE_FIELDS}
    return {**fields, "setting": sources.settings, "attribute": node.attributes}


def resolve(value: Any, sources: Sources) -> Any:
    """A value with every reference in it replaced; one that is a whole reference keeps its type.

    Raises:
        ParameterError: a reference leads nowhere; the text names it.
    """
    if isinstance(value, str):
        whole = whole_reference(value)
        return _value(whole, sources) if whole else fill(value, lambda path: text_of(_value(path, sources)))
    if isinstance(value, Mapping):
        return {name: resolve(one, sources) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(one, sources) for one in value]
    return value


def _value(path: str, sources: Sources) -> Any:
    return _there(path, sources).value


def _there(path: str, sources: Sources) -> Found:
    """Where a reference leads. Raises ParameterError: nowhere, or to a serial number that nobody has entered."""
    found = find(path, sources)
    if found.value is NOTHING:
        raise ParameterError(f"{{{path}}} has no value here.", path)
    if path == "device.serial" and not found.value:
        raise ParameterError(NO_SERIAL, path)
    return found


def is_true(path: str, sources: Sources) -> bool:
    """Whether a condition holds: yes, a number other than 0, or a text other than no, off and false."""
    found = find(path, sources).value
    if found is NOTHING or found is None:
        return False
    if isinstance(found, str):
        return found.strip().lower() not in _FALSE
    return bool(found)


def why_not(path: str, spec: FlowSpec, sources: Sources) -> str:
    """Why a condition that does not hold leaves its step out, in words."""
    head, *rest = parse_path(path)
    found = find(path, sources).value
    is_empty = found is NOTHING or found is None or found == ""
    if head.name == "input":
        title = next((one.title for one in spec.inputs if one.name == rest[0].name), rest[0].name)
        return f"Not wanted here: “{title}” is {'empty' if is_empty else text_of(found)}."
    step = spec.step(rest[0].name)
    title = step.title if step is not None else rest[0].name
    if rest[1].name == "answer":
        return f"Not wanted here: the answer to “{title}” is {NOT_THERE if is_empty else text_of(found)}."
    what = path.partition(".result.")[2]
    return f"Not wanted here: “{title}” told {'nothing' if is_empty else text_of(found)} of {what}."


def text_of(value: Any) -> str:
    """A value as it stands in a sentence."""
    if value is NOTHING:
        return NOT_THERE
    if isinstance(value, bool):
        return "yes" if value else "no"
    plain = jsonable(value)
    if plain is None:
        return "empty"
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def as_it_is(_number: Decimal, _source: str, _target: str) -> None:
    """A ``Convert`` that turns nothing."""


def evidence(one: Evidence, sources: Sources, convert: Convert = as_it_is) -> FlowCheck:
    """A value that the report shows beside the expectations, in its unit where it can be: nothing is wanted of it."""
    found = find(one.value, sources)
    value, note = _in_unit(found, one.unit, convert)
    unit = found.unit or (one.unit if number_of(found.value) is not None else "")
    if note and value is not NOTHING:  # it was turned
        found, unit = Found(value), one.unit
    return FlowCheck(
        what=one.title or one.value, found=_shown(found.value, unit), wanted="", is_met=True, unit=unit
    )


def met_or_why(checks: Iterable[FlowCheck]) -> str:
    """What is not met, in words; "" when all is."""
    unmet = [one for one in checks if not one.is_met]
    wrong = [f"{one.what} is {one.found}, wanted {one.wanted}" for one in unmet if one.wanted != NO_SERIAL]
    said = [NO_SERIAL] if len(wrong) < len(unmet) else []
    return " ".join((*said, f"{'; '.join(wrong)}.")) if wrong else "".join(said)


# ---------------------------------------------------------------- judging


@dataclass(frozen=True, slots=True)
class _Judged:
    wanted: str
    is_met: bool
    note: str = ""  # beside what was found


def judge(expectation: Expectation, sources: Sources, convert: Convert) -> FlowCheck:
    """One expectation beside what was found."""
    found = find(expectation.value, sources)
    unit = expectation.unit or found.unit
    try:
        judged = _judged(expectation, found, unit, sources, convert)
    except ParameterError as exc:
        text = str(exc)
        judged = _Judged(text if text == NO_SERIAL else f"what cannot be told: {text}".rstrip("."), False)
    shown = _shown(found.value, found.unit or (expectation.unit if number_of(found.value) is not None else ""))
    return FlowCheck(
        what=expectation.title or expectation.value,
        found=shown + (f" ({judged.note})" if judged.note else ""),
        wanted=judged.wanted,
        is_met=judged.is_met,
        unit=unit,
    )


def _judged(one: Expectation, found: Found, unit: str, sources: Sources, convert: Convert) -> _Judged:
    if one.exists is not None:
        is_there = found.value is not NOTHING and found.value not in (None, "")
        return _Judged("something" if one.exists else NOT_THERE, is_there is one.exists)
    if one.matches:
        text = text_of(found.value)
        fits = found.value is not NOTHING and len(text) <= MAX_MATCHED and re.fullmatch(one.matches, text) is not None
        return _Judged(f"a text of the form {one.matches}", fits)
    if one.near is not None:
        return _near(one, found, sources)
    if one.equals is not None or one.one_of:
        wanted = [_wanted(value, unit, sources, convert) for value in (one.one_of or (one.equals,))]
        value, note = _in_unit(found, unit, convert)
        is_met = found.value is not NOTHING and any(_is_equal(value, other) for other in wanted)
        listed = ", ".join(_shown(other, unit if number_of(other) is not None else "") for other in wanted)
        return _Judged(f"one of {listed}" if one.one_of else listed, is_met, note)
    return _bounds(one, found, unit, sources, convert)


def _bounds(one: Expectation, found: Found, unit: str, sources: Sources, convert: Convert) -> _Judged:
    low, high, around = (
        None if limit is None else _limit(limit, unit, sources, convert)
        for limit in (one.minimum, one.maximum, one.about)
    )
    if around is not None:
        size, is_share = tolerance_of(one.tolerance) or (Decimal(0), False)
        allowed = abs(around) * size / 100 if is_share else size
        low, high = around - allowed, around + allowed
        wanted = f"{_shown(around, unit)} within {one.tolerance if is_share else _shown(size, unit)}"
    elif low is not None and high is not None:
        wanted = f"from {low} to {_shown(high, unit)}"
    elif low is not None:
        wanted = f"at least {_shown(low, unit)}"
    else:
        assert high is not None
        wanted = f"at most {_shown(high, unit)}"
    value, note = _in_unit(found, unit, convert)
    number = number_of(value)
    if number is None:
        return _Judged(wanted, False, note or ("" if found.value is NOTHING else "not a number"))
    return _Judged(wanted, (low is None or number >= low) and (high is None or number <= high), note)


def _near(one: Expectation, found: Found, sources: Sources) -> _Judged:
    given = sources.now if one.near == "now" else resolve(one.near, sources)
    centre = _moment(given)
    if centre is None:
        raise ParameterError(f"{one.near} is {text_of(given)}, which is no time.")
    wanted = f"within {one.tolerance} of {centre.isoformat(' ', 'seconds')}"
    at = _moment(found.value)
    if at is None:
        return _Judged(wanted, False, "" if found.value is NOTHING else "not a time")
    away = Decimal(str((at - centre).total_seconds()))
    said = f"{abs(away).normalize():f} s {'behind' if away < 0 else 'ahead'}" if away else "exact"
    return _Judged(wanted, abs(away) <= (seconds_of(one.tolerance) or 0), said)


def _wanted(value: Any, unit: str, sources: Sources, convert: Convert) -> Any:
    """What is expected, in ``unit`` where it comes from a result with one of its own."""
    path = whole_reference(value) if isinstance(value, str) else ""
    if not path:
        return resolve(value, sources)
    return _in_unit(_there(path, sources), unit, convert)[0]


def _limit(value: Any, unit: str, sources: Sources, convert: Convert) -> Decimal:
    wanted = _wanted(value, unit, sources, convert)
    number = number_of(wanted)
    if number is None:
        raise ParameterError(f"{value} is {text_of(wanted)}, which is no number.")
    return number


def _in_unit(found: Found, unit: str, convert: Convert) -> tuple[Any, str]:
    """What was found as a number in ``unit``, and what to say of that; as it is where no unit is concerned."""
    number = number_of(found.value)
    if number is None or not found.unit or not unit or found.unit == unit:
        return found.value, ""
    turned = convert(number, found.unit, unit)
    if turned is None:
        return NOTHING, f"{found.unit} cannot be turned into {unit}"
    return turned, _shown(turned, unit)


def _is_equal(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool):
        return found is wanted or (isinstance(wanted, str) and text_of(found) == wanted)
    if isinstance(wanted, datetime):
        return _moment(found) == wanted
    if isinstance(wanted, (int, float, Decimal)):
        number = number_of(wanted)
        return number is not None and number_of(found) == number
    return text_of(found).strip() == text_of(wanted).strip()


def number_of(value: Any) -> Decimal | None:
    """A number, also one that is written as a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    text = str(value).strip()
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _moment(value: Any) -> datetime | None:
    """A time; one without a zone is this computer's local time, as everywhere."""
    try:
        at = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if not isinstance(at, datetime):
            return None
        return at if at.tzinfo is not None else at.astimezone()
    except (OverflowError, OSError, ValueError):
        return None


def _shown(value: Any, unit: str = "") -> str:
    text = text_of(value)
    if len(text) > MAX_SHOWN:
        text = f"{text[: MAX_SHOWN - 1]}…"
    return f"{text} {unit}" if unit and value is not NOTHING else text


def judge_all(
    expected: Sequence[Expectation], shown: Sequence[Evidence], sources: Sources, convert: Convert
) -> tuple[FlowCheck, ...]:
    """Every expectation of a step, then what is shown beside them."""
    return (
        *(judge(one, sources, convert) for one in expected),
        *(evidence(one, sources, convert) for one in shown),
    )
