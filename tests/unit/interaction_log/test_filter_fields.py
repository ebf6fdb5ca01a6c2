"""Every field and operator of the filter language against an oracle in plain Python, on a random log."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.interaction_log.filters import Context, parse
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.command import CommandKind
from app.model.device import Device, NodeKind
from app.model.interaction import (
    STEP_TITLES,
    Attempt,
    AttemptEnd,
    Direction,
    Failure,
    Frame,
    Interaction,
    Origin,
    Step,
    StepEntry,
)
from app.model.reading import Finding, Severity
from app.model.status import Status
from tests.unit.interaction_log.logs import START, message

NOW = START + timedelta(hours=4)
COUNT = 240

# ---------------------------------------------------------------- a random log


@dataclass
class Made:
    """An interaction and all that hangs on it, as it was generated."""

    item: Interaction
    steps: list[StepEntry] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def tree() -> list[Device]:
    def node(number: str, kind: NodeKind, parent: str = "", **more: Any) -> Device:
        return Device(**{"id": number, "name": number, "kind": kind, "parent": parent, **more})

    return [
        node("north", NodeKind.SITE),
        node("south", NodeKind.SITE),
        node("g-1", NodeKind.GRID, "north"),
        node("g-2", NodeKind.GRID, "south"),
        node("gw-1", NodeKind.GATEWAY, "g-1", serial="GW4711"),
        node("m-1", NodeKind.METER, "gw-1", serial="0123", name="Shop é", adapter="lem"),
        node("m-2", NodeKind.METER, "g-1", serial="0124", name="m-1 spare"),
        node("m-3", NodeKind.METER, "south"),
        node("odd-1", NodeKind.METER, "odd-2"),  # two nodes that stand in each other
        node("odd-2", NodeKind.SITE, "odd-1"),
    ]


DEVICES = {device.id: device for device in tree()}
NUMBERS: list[Any] = [0, 1, -5, 200, 199.5, 1e3, 230, "398.1", "200", "200.0", "-5", "0200", " 12 ", "1E+1", ".5", "5."]
TEXTS: list[Any] = ["", "idle", "Idle", "CHARGING", "true", "false", "größer", 'q"x\\y', "0x10", "1e", "inf", "12 V"]
OTHERS: list[Any] = [True, False, None, [], [1, "idle"], {}, {"x": 1}, 12345678901234567, 10**25]
CODES = ("CLOCK", "clock_drift", "LINK_DOWN")


def _value(rng: random.Random) -> Any:
    value = rng.choice(rng.choice((NUMBERS, NUMBERS, TEXTS, OTHERS)))
    return {"value": value, "unit": "V"} if rng.random() < 0.3 else value


def make(seed: int) -> list[Made]:
    rng = random.Random(seed)
    frame_at = itertools.count()
    found: list[Made] = []
    for number in range(1, COUNT + 1):
        created = START + timedelta(seconds=number, microseconds=rng.randrange(1000))
        device = rng.choice([*DEVICES, "gone-1"])
        status = rng.choice([Status.QUEUED, Status.PROCESSING, Status.SUCCESSFUL, Status.SUCCESSFUL, Status.FAILED])
        is_over = status in (Status.SUCCESSFUL, Status.FAILED)
        finished = created + timedelta(milliseconds=rng.choice((0, 100, 150, 2000, 61_000))) if is_over else None
        failure = Failure(code=rng.choice(("TIMEOUT", "LINK_DOWN")), text="No answer.", at=created)
        result = {name: _value(rng) for name in ("voltage", "state", "1-0:1.8.0") if rng.random() < 0.8}
        if rng.random() < 0.5:
            result["deep"] = {"er": _value(rng), "list": [_value(rng), _value(rng)]}
        made = Made(
            Interaction(
                id=number,
                device=device,
                adapter=rng.choice(("lem", "calin")),
                command=rng.choice(("READ_LIVE", "SET_RELAY")),
                kind=rng.choice((CommandKind.READ, CommandKind.CONTROL)),
                created=created,
                updated=finished or created,
                finished=finished,
                status=status,
                params={"amount": _value(rng)} if rng.random() < 0.7 else {},
                origin=rng.choice((Origin.USER, Origin.FOLLOW_UP)),
                result=result if status is Status.SUCCESSFUL else None,
                failure=failure if status is Status.FAILED else None,
                attempts=rng.randrange(4),
                followup_of=rng.randrange(1, number) if number > 1 and rng.random() < 0.5 else None,
                batch=rng.choice((None, 3, 4)),
                seq=1,
            )
        )
        at = created
        for title in rng.sample(list(Step), 3):
            at += timedelta(milliseconds=1)
            actor = rng.choice(("app", "User", "reconciler"))
            made.steps.append(StepEntry(interaction=number, at=at, step=title, event="x", actor=actor))
        for attempt in range(rng.choice((0, 0, 1, 1, 2))):
            at += timedelta(milliseconds=rng.choice((0, 50, 100, 3000)))
            end = rng.choice((AttemptEnd.ANSWERED, AttemptEnd.ANSWERED, AttemptEnd.FAILED, AttemptEnd.OPEN))
            ended = None if end is AttemptEnd.OPEN else at + timedelta(milliseconds=rng.choice((1, 100, 2500)))
            made.attempts.append(
                Attempt(interaction=number, message=number, number=attempt + 1, started=at, end=end, ended=ended)
            )
        for _ in range(rng.choice((0, 1, 2))):
            when = START + timedelta(milliseconds=next(frame_at))
            data = bytes(rng.choice((0x00, 0x68, 0x06, 0x86, 0x16)) for _ in range(rng.randrange(9)))
            direction = rng.choice((Direction.IN, Direction.OUT))
            made.frames.append(
                Frame(at=when, device=device, link="l", direction=direction, data=data, interaction=number)
            )
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            code = rng.choice(CODES)
            made.findings.append(
                Finding(at=at, device=device, severity=Severity.WARNING, code=code, text="t", interaction=number)
            )
        found.append(made)
    return found


LOG = make(7)
BY_ID = {made.item.id: made for made in LOG}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogReader]:
    path: Path = tmp_path_factory.mktemp("fields") / "log.mwk"
    with LogWriter(path) as writer:
        writer.put(*DEVICES.values())
        for made in LOG:
            jobs = [message(made.item.id, made.item)] if made.attempts else []
            writer.put(made.item, *made.steps, *jobs, *made.attempts, *made.frames, *made.findings)
        stray = Frame(at=START, device="m-1", link="l", direction=Direction.IN, data=b"\x68\x16\x68")
        writer.put(stray, Finding(at=START, device="m-1", severity=Severity.INFO, code="CLOCK", text=""))
        writer.flush(text=True)
    with LogReader(path) as opened:
        yield opened


# ---------------------------------------------------------------- the oracle: what a term means, said once more

Oracle = Callable[[Made], bool]
Term = tuple[str, Oracle]

COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
signs = st.sampled_from(list(COMPARE))


def same(a: str, b: str) -> bool:
    return a.translate(ASCII_LOWER) == b.translate(ASCII_LOWER)


ASCII_LOWER = {code: code + 32 for code in range(65, 91)}


def low(text: str) -> str:
    return text.translate(ASCII_LOWER)


def text_terms(name: str, texts: Callable[[Made], list[str]], values: list[str], *, single: bool) -> Any:
    @st.composite
    def build(draw: Any) -> Term:
        value = draw(st.sampled_from(values))
        shape = draw(st.sampled_from(["is", "equals", "begins", "holds", "any", *(["other"] if single else [])]))
        written = f'"{value}"' if draw(st.booleans()) else value
        match shape:
            case "is":
                return f"{name}:{written}", lambda made: any(same(one, value) for one in texts(made))
            case "equals":
                return f"{name} = {written}", lambda made: any(same(one, value) for one in texts(made))
            case "begins":
                return f"{name}:{value[:2]}*", lambda made: any(low(o).startswith(low(value[:2])) for o in texts(made))
            case "holds":
                return f"{name} ~ {value[1:3]}", lambda made: any(low(value[1:3]) in low(o) for o in texts(made))
            case "any":
                return f"{name}:*", lambda made: bool(texts(made))
            case _:
                return f"{name}!={written}", lambda made: any(not same(one, value) for one in texts(made))

    return build()


def above(made: Made, kind: NodeKind) -> list[str]:
    """Nodes of a kind that the device stands in, or is."""
    name, found = made.item.device, []
    for _ in DEVICES:
        if name not in DEVICES:
            break
        if DEVICES[name].kind is kind and name not in found:
            found.append(name)
        name = DEVICES[name].parent
    return found


def meter_texts(made: Made) -> list[str]:
    device = DEVICES.get(made.item.device)
    if device is None or device.kind is not NodeKind.METER:
        return []
    return [device.id, device.name, *([device.serial] if device.serial else [])]


def serials(made: Made) -> list[str]:
    device = DEVICES.get(made.item.device)
    return [device.serial] if device is not None and device.serial else []


def codes(made: Made) -> list[str]:
    return [made.item.failure.code] if made.item.failure else []


texts = st.one_of(
    text_terms("device", lambda m: [m.item.device], ["m-1", "M-2", "gone-1", "g-1", "x-1"], single=True),
    text_terms("command", lambda m: [m.item.command], ["READ_LIVE", "set_relay"], single=True),
    text_terms("status", lambda m: [m.item.status.value], ["FAILED", "successful", "queued"], single=True),
    text_terms("kind", lambda m: [m.item.kind.value], ["read", "CONTROL"], single=True),
    text_terms("origin", lambda m: [m.item.origin.value], ["USER", "follow_up"], single=True),
    text_terms("adapter", lambda m: [m.item.adapter], ["lem", "calin", "ems"], single=True),
    *(text_terms(name, codes, ["TIMEOUT", "link_down"], single=True) for name in ("reason", "code")),
    text_terms("finding", lambda m: [f.code for f in m.findings], ["clock", "CLOCK_DRIFT", "LINK_DOWN"], single=False),
    text_terms("actor", lambda m: [s.actor for s in m.steps], ["user", "app", "reconciler", "nobody"], single=False),
    text_terms("step", lambda m: [STEP_TITLES[s.step] for s in m.steps], ["saved", "Queue", "meter"], single=False),
    text_terms("site", lambda m: above(m, NodeKind.SITE), ["north", "SOUTH", "odd-2", "g-1"], single=False),
    text_terms("grid", lambda m: above(m, NodeKind.GRID), ["g-1", "g-2", "north"], single=False),
    text_terms("gateway", lambda m: above(m, NodeKind.GATEWAY), ["gw-1", "m-1"], single=False),
    text_terms("meter", meter_texts, ["m-1", "0123", "Shop", "odd-1", "gw-1"], single=False),
    text_terms("serial", serials, ["0123", "gw4711", "m-1"], single=False),
)


@st.composite
def number_terms(draw: Any) -> Term:
    name, get = draw(
        st.sampled_from(
            [
                ("id", lambda m: m.item.id),
                ("batch", lambda m: m.item.batch),
                ("parent", lambda m: m.item.followup_of),
                ("attempts", lambda m: m.item.attempts),
            ]
        )
    )
    one, other = draw(st.integers(-1, COUNT)), draw(st.integers(0, 9))
    shape = draw(st.sampled_from(["is", "range", "from", "to", "sign", "sign", "sign"]))
    sign = draw(signs)

    def has(test: Callable[[int], bool]) -> Oracle:
        return lambda made: get(made) is not None and test(get(made))

    match shape:
        case "is":
            return f"{name}:{other}", has(lambda number: number == other)
        case "range":
            return f"{name}:{other}..{one}", has(lambda number: other <= number <= one)
        case "from":
            return f"{name}:{one}..", has(lambda number: one <= number)
        case "to":
            return f"{name} = ..{one}", has(lambda number: number <= one)
        case _:
            return f"{name} {sign} {other}", has(lambda number: COMPARE[sign](number, other))


def came_of(made: Made, number: int) -> bool:
    parent = made.item.followup_of
    while parent is not None:
        if parent == number:
            return True
        parent = BY_ID[parent].item.followup_of
    return False


follows_terms: Any = st.integers(1, 60).map(lambda number: (f"follows:{number}", lambda made: came_of(made, number)))


def took(made: Made, name: str) -> timedelta | None:
    started = sorted(attempt.started for attempt in made.attempts)
    answers = sorted(a.ended for a in made.attempts if a.end is AttemptEnd.ANSWERED and a.ended)
    match name:
        case "duration":
            return made.item.finished - made.item.created if made.item.finished else None
        case "waited":
            return started[0] - made.item.created if started else None
        case _:
            return answers[-1] - started[0] if answers else None


@st.composite
def duration_terms(draw: Any) -> Term:
    name = draw(st.sampled_from(["latency", "duration", "waited"]))
    ms = draw(st.sampled_from([0, 1, 53, 100, 150, 2000, 2500, 3003, 60_000]))
    forms = [f"{ms}ms", f"{ms} ms", f"{Decimal(ms) / 1000:f}s", f'"{ms * 1000} us"']
    if ms % 60_000 == 0:
        forms.append(f"{ms // 60_000} min")
    value = draw(st.sampled_from(forms))
    sign = draw(signs)
    limit = timedelta(milliseconds=ms)

    def has(test: Callable[[timedelta], bool]) -> Oracle:
        return lambda made: (taken := took(made, name)) is not None and test(taken)

    if draw(st.integers(0, 9)) == 0:
        return f"{name}:*", has(lambda taken: True)
    if draw(st.integers(0, 9)) == 0:
        return f"{name}:1ms..{ms}ms", has(lambda taken: timedelta(milliseconds=1) <= taken <= limit)
    return f"{name} {sign} {value}", has(lambda taken: COMPARE[sign](taken, limit))


@st.composite
def time_terms(draw: Any) -> Term:
    name = draw(st.sampled_from(["created", "finished"]))
    sign = draw(signs)

    def has(test: Callable[[datetime], bool]) -> Oracle:
        return lambda made: (at := getattr(made.item, name)) is not None and test(at)

    if draw(st.integers(0, 3)) == 0:  # a whole day
        day = draw(st.sampled_from(["2026-05-03", "2026-05-04", "2026-05-05"]))
        return f"{name} {sign} {day}", has(lambda at: COMPARE[sign](f"{at:%Y-%m-%d}", day))
    at = draw(st.sampled_from([made.item.finished or made.item.created for made in LOG]))
    if draw(st.integers(0, 4)) == 0:
        return f"{name}:{at:%Y-%m-%dT%H:%M:%S.%f}Z..", has(lambda moment: moment >= at)
    return f"{name} {sign} {at:%Y-%m-%dT%H:%M:%S.%f}", has(lambda moment: COMPARE[sign](moment, at))


# ---------------------------------------------------------------- parameters and results


def reach(cells: Mapping[str, Any] | None, path: list[str | int]) -> Any:
    here: Any = cells
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return here


def single(here: Any) -> Any:
    if isinstance(here, dict):
        here = here.get("value")
    return None if isinstance(here, (dict, list)) else here


def decimal_of(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        is_number = re.fullmatch(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", value, re.ASCII)
        return Decimal(value.strip()) if is_number else None
    return Decimal(repr(value))


def told_text(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    return value if isinstance(value, str) else None


def cell_means(sign: str, written: str, kind: str, here: Any) -> bool:
    here = single(here)
    if here is None:
        return False
    if sign == "!=":
        return not cell_means("=", written, kind, here)
    if kind == "number" and sign != "~":
        number = decimal_of(here)
        return number is not None and COMPARE[sign](number, Decimal(written))
    if kind == "flag" and sign != "~":
        return here is (written == "true") or (isinstance(here, str) and low(here) == written)
    text = told_text(here)
    if text is None:
        return False
    return low(written) in low(text) if sign == "~" else COMPARE[sign](low(text), low(written))


PATHS: list[tuple[str, str, list[str | int]]] = [
    ("param", ".amount", ["amount"]),
    ("params", ".amount", ["amount"]),
    ("result", ".voltage", ["voltage"]),
    ("result", ".voltage.value", ["voltage", "value"]),
    ("result", ".voltage.unit", ["voltage", "unit"]),
    ("result", ".state", ["state"]),
    ("result", '."1-0:1.8.0"', ["1-0:1.8.0"]),
    ("result", ".deep", ["deep"]),
    ("result", ".deep.er", ["deep", "er"]),
    ("result", ".deep.list.1", ["deep", "list", 1]),
    ("result", ".Voltage", ["Voltage"]),
]
LITERALS = [
    *(("number", text) for text in ("200", "-5", "199.5", "398.1", "1e3", "0", ".5", "12345678901234567")),
    *(("text", text) for text in ("idle", "IDLE", "größer", "0200", "12 V", "true", "200", "inf", "v", 'q"x\\y')),
    *(("flag", text) for text in ("true", "false")),
]


@st.composite
def cell_terms(draw: Any) -> Term:
    head, path, parts = draw(st.sampled_from(PATHS))
    kind, written = draw(st.sampled_from(LITERALS))

    def here(made: Made) -> Any:
        return reach(made.item.params if head.startswith("param") else made.item.result, parts)

    shape = draw(st.sampled_from(["exists", "begins", "sign", "sign", "sign", "sign"]))
    if shape == "exists":
        return f"{head}{path}:*", lambda made: here(made) is not None
    escaped = written.replace("\\", "\\\\").replace('"', '\\"')
    if shape == "begins":
        return f'{head}{path}:"{escaped}"*', lambda made: (
            (text := told_text(single(here(made)))) is not None and low(text).startswith(low(written))
        )
    sign = draw(st.sampled_from([*COMPARE, "~"] if kind != "flag" else ["=", "!=", "~"]))
    spelt = f'"{escaped}"' if kind == "text" else written
    return f"{head}{path} {sign} {spelt}", lambda made: cell_means(sign, written, kind, here(made))


@st.composite
def bytes_terms(draw: Any) -> Term:
    octets = draw(st.lists(st.sampled_from(["00", "68", "06", "86", "16", "??"]), min_size=1, max_size=5))
    name = draw(st.sampled_from(["bytes", "bytes.in", "bytes.out"]))
    spelt = draw(st.sampled_from([" ".join(octets), "".join(octets), f'"{" ".join(octets)}"']))
    wanted = re.compile(b"".join(b"[\\x00-\\xff]" if o == "??" else re.escape(bytes.fromhex(o)) for o in octets))

    def holds(made: Made) -> bool:
        frames = [one for one in made.frames if name == "bytes" or name == f"bytes.{one.direction.value}"]
        return any(wanted.search(frame.data) for frame in frames)

    return f"{name} ~ {spelt}", holds


FAMILIES: dict[str, st.SearchStrategy[Term]] = {
    "text": texts,
    "number": number_terms(),
    "follows": follows_terms,
    "duration": duration_terms(),
    "time": time_terms(),
    "cell": cell_terms(),
    "bytes": bytes_terms(),
}


def _not(term: Term) -> Term:
    return f"not ({term[0]})", lambda made: not term[1](made)


def _all(items: list[Term]) -> Term:
    return " ".join(f"({text})" for text, _ in items), lambda made: all(test(made) for _, test in items)


def _any(items: list[Term]) -> Term:
    return " or ".join(text for text, _ in items), lambda made: any(test(made) for _, test in items)


mixed: st.SearchStrategy[Term] = st.recursive(
    st.one_of(*FAMILIES.values()),
    lambda inner: st.one_of(
        inner.map(_not),
        st.lists(inner, min_size=2, max_size=3).map(_all),
        st.lists(inner, min_size=2, max_size=3).map(_any),
    ),
    max_leaves=6,
)


def context_of(made: Made) -> Context:
    chain = [number for number in BY_ID if came_of(made, number)]
    return Context.of(_AsStory(made), DEVICES, chain)


class _AsStory:
    def __init__(self, made: Made) -> None:
        self.steps, self.attempts = made.steps, made.attempts
        self.frames, self.findings = made.frames, made.findings


CONTEXTS = {made.item.id: context_of(made) for made in LOG}


def check(reader: LogReader, term: Term) -> list[int]:
    text, test = term
    where = parse(text, NOW)
    again = parse(str(where), NOW + timedelta(days=400))
    assert again == where, text
    expected = [made.item.id for made in LOG if test(made)]
    assert [m.item.id for m in LOG if where.matches(m.item, context=CONTEXTS[m.item.id])] == expected, text
    sql, parameters = where.sql()
    bare = reader.query(f"SELECT id FROM interaction WHERE {sql} ORDER BY id", parameters)
    assert [row[0] for row in bare] == expected, text
    assert reader.page(where=where, limit=COUNT).ids == expected, text
    assert reader.page(where=where, limit=5).ids == expected[-5:], text
    assert reader.count(where) == len(expected), text
    return expected


patient = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60
)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_means_what_the_oracle_says(reader: LogReader, family: str) -> None:
    hits: list[int] = []

    @given(FAMILIES[family])
    @settings(patient, max_examples=150 if family in ("text", "cell") else 60)
    def run(term: Term) -> None:
        hits.append(len(check(reader, term)))

    run()
    assert any(0 < count < COUNT for count in hits)  # it was not all or nothing


@given(mixed)
@settings(patient, max_examples=120)
def test_terms_together_too(reader: LogReader, term: Term) -> None:
    expected = check(reader, term)
    where = parse(term[0], NOW)
    assert reader.anchors(where, 5).tolist() == expected[::5]
    assert reader.page(where=where, limit=7, before=150).ids == [n for n in expected if n < 150][-7:]
    assert reader.page(where=where.among(100, 140), limit=99).ids == [n for n in expected if 100 <= n <= 140]


@pytest.mark.parametrize(
    "text",
    ["result.voltage:*", "result.voltage ~ 9", "param.amount != 1", "bytes ~ ??", "bytes ~ 68 ??", "latency:*",
     "waited < 1h", "actor:app", "not step:meter", "attempts > 0", "finished < 2027-01-01", "not finding:CLOCK",
     "not bytes ~ 68 68 68 68", "site:* actor:app"],
)  # fmt: skip
def test_a_page_reads_no_further_than_it_must(reader: LogReader, text: str) -> None:
    where = parse(text, NOW)

    def steps_of(limit: int) -> int:
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        reader._db.set_progress_handler(step, 10)
        try:
            assert len(reader.page(where=where, limit=limit)) >= 1
        finally:
            reader._db.set_progress_handler(None, 0)
        return steps

    steps_of(1)
    assert steps_of(1) * 3 < steps_of(COUNT)
