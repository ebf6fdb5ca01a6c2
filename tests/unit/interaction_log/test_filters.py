"""The filter language: its meaning in SQL and in memory is one, and no text breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import FilterError
from app.interaction_log import filters as f
from app.interaction_log.filters import Context, Filter, complete, parse, parse_for_devices
from app.interaction_log.reader import LogReader
from app.interaction_log.rows import to_us
from app.interaction_log.writer import LogWriter
from app.model.device import Device
from app.model.interaction import Interaction
from app.model.reading import DeviceState
from app.model.status import Status
from tests.unit.interaction_log.logs import START, fresh, queued

T = TypeVar("T")
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)

# ---------------------------------------------------------------- trees and texts

values = st.one_of(
    st.sampled_from(["lem-1", "calin-2", "LEM-1", "READ_LIVE", "read_", "timeout", "and", "a b", 'q"', "b\\s", "é*"]),
    st.text(max_size=6),
)
words = st.sampled_from(["voltage", "398.1", "lem-1", "read live", "größer", "Zeile", "offline", "x", "and", "a:b"])
moments = st.integers(-60_000_000, 480_000_000).map(lambda us: START + timedelta(microseconds=us))
numbers = st.one_of(st.none(), st.integers(0, 450))


def _span(field: str, low: int | None, high: int | None) -> f.Node:
    return f.Span(field, 5 if low is None and high is None else low, high)


COMPARISONS = [f.Op.EQUAL, f.Op.DIFFERENT, f.Op.BELOW, f.Op.AT_MOST, f.Op.ABOVE, f.Op.AT_LEAST]
durations = st.integers(0, 1 << 60) | st.sampled_from([0, 1_000, 2_000_000, 60_000_000, 86_400_000_000])
octets = st.lists(st.none() | st.integers(0, 255), min_size=1, max_size=6).map(tuple)
names = st.sampled_from(["voltage", "a.b", "1-0:1.8.0", "größer", "a b", "x>y", "12", "a'); --"])
paths = st.lists(names | st.integers(0, 999), min_size=1, max_size=3).map(tuple)
literals = st.one_of(
    values.map(lambda text: f.Literal(f.Kind.TEXT, text)),
    st.sampled_from(["200", "-5.5", "1e3", ".5", "true", "0200"]).map(lambda text: f.Literal(f.Kind.TEXT, text)),
    st.sampled_from(["200", "-5.5", "1e3", ".5", "+7"]).map(lambda text: f.Literal(f.Kind.NUMBER, text)),
)
heads = st.sampled_from(["param", "result"])
cells = st.one_of(
    st.builds(f.Cell, heads, paths, st.sampled_from(COMPARISONS), literals),
    st.builds(f.Cell, heads, paths, st.just(f.Op.EQUAL), st.just(f.Literal(f.Kind.FLAG, "true"))),
    st.builds(
        f.Cell,
        heads,
        paths,
        st.sampled_from([f.Op.CONTAINS, f.Op.BEGINS]),
        values.filter(bool).map(lambda text: f.Literal(f.Kind.TEXT, text)),
    ),
    st.builds(f.Cell, heads, paths, st.just(f.Op.EXISTS)),
)
leaf = st.one_of(
    st.builds(f.Match, st.sampled_from(["device", "command", "adapter", "reason"]), values, st.booleans()),
    st.one_of(
        *(st.builds(f.Match, st.just(name), st.sampled_from(f.CHOICES[name])) for name in ("status", "kind", "origin"))
    ),
    st.builds(f.Match, st.just("status"), st.sampled_from(["S", "su", "QUEUED"]), st.just(True)),
    st.builds(_span, st.sampled_from(["id", "batch", "commissioning"]), numbers, numbers),
    st.builds(f.Since, moments),
    st.builds(f.Until, moments),
    st.builds(f.Is, st.sampled_from(f.STATES)),
    st.builds(f.Text, words, st.booleans()),
    st.builds(f.Match, st.sampled_from(["finding", "actor", "site", "serial", "meter"]), values, st.booleans()),
    st.builds(f.Contains, st.sampled_from(["device", "reason", "gateway", "finding"]), values.filter(bool)),
    st.builds(f.Span, st.sampled_from(["batch", "parent"]), st.none(), st.none()),
    st.builds(f.Compare, st.sampled_from(["latency", "duration", "waited"]), st.sampled_from(COMPARISONS), durations),
    st.builds(f.Compare, st.just("finished"), st.sampled_from([f.Op.BELOW, f.Op.AT_LEAST]), moments.map(to_us)),
    st.builds(f.Compare, st.sampled_from(["latency", "finished"]), st.just(f.Op.EXISTS)),
    st.builds(f.Follows, st.integers(0, 450)),
    st.builds(f.Bytes, st.sampled_from(["bytes", "bytes.in", "bytes.out"]), octets),
    cells,
)
trees = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.builds(f.Not, inner),
        st.lists(inner, min_size=2, max_size=4).map(f.all_of),
        st.lists(inner, min_size=2, max_size=4).map(f.any_of),
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=200, deadline=None)
def test_a_tree_printed_parses_to_itself(node: f.Node) -> None:
    assert parse(str(Filter(node)), NOW).node == node
    assert parse(str(Filter(node)), NOW + timedelta(days=400)).node == node


@given(st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_gives_a_filter_or_a_filter_error(text: str) -> None:
    _try(text)


PIECES = [
    *("device:", "since:", "until:", "id:", "is:", "status:", "(", ")", '"', "not ", "and ", "or ", "*", "-2h", ".."),
    *("2026-05-01", "T10:00", "+02:00", "\\", " ", "lem-1", "failed", "today", "99:99", "0001-01-01", "9999-12-31"),
    *("latency", "result.", "param.a", '."a b"', "bytes", "finished", " > ", "!=", "~", "<=", "=", " 2s", "5 ms", "2 "),
    *("68 71", "??", "true", "1e3", "follows", "site:", "step", "created:", "text:", "fact.x", "actor", ".5", "9e999"),
    *("\0", "ſ", "-999999999w", "2026-02-30", "٣", "id:٣", "since:-٣h", "9" * 20),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=800, deadline=None)
def test_any_mixture_of_its_own_words_too(text: str) -> None:
    _try(text)


PIECES_OF_DEVICES = [
    *("name:", "link:", "status:on*", "fact.", "fact.x", " > ", "!=", "~", "site:", "serial", "kind:", "(", ")", '"'),
    *("not ", "or ", "a", "5", "*", " ", "latency", "result.x", "text:", ":"),
]


def _outcome(text: str, how: Callable[[str, datetime], T]) -> T | FilterError:
    try:
        return how(text, NOW)
    except FilterError as error:
        return error


def _try(text: str) -> None:
    where = _outcome(text, parse)
    if isinstance(where, FilterError):
        assert 0 <= where.position <= len(text)
        assert str(where)
        return
    assert parse(str(where), NOW) == where
    sql, parameters = where.sql()
    assert sql.count("?") == len(parameters)
    where.matches(fresh(1))
    complete(text, len(text), lambda field: ["a b", 'q"', field])


@given(st.lists(st.sampled_from([*PIECES_OF_DEVICES]), max_size=10).map("".join))
@settings(max_examples=300, deadline=None)
def test_any_mixture_gives_a_filter_of_devices_or_a_filter_error(text: str) -> None:
    where = _outcome(text, parse_for_devices)
    if isinstance(where, FilterError):
        assert 0 <= where.position <= len(text)
        return
    assert parse_for_devices(str(where), NOW) == where
    where.matches_device(Device(id="a", name="b"), DeviceState(device="a"), {})


@pytest.mark.parametrize("depth", [39, 3000])
def test_deep_nesting_is_bounded(depth: int) -> None:
    for text in ("(" * depth + "x" + ")" * depth, "not " * depth + "x"):
        if depth < 100:
            parse(text[: f.MAX_TEXT], NOW)
        else:
            with pytest.raises(FilterError):
                parse(text, NOW)


def test_too_many_terms_are_refused() -> None:
    with pytest.raises(FilterError, match="200 terms"):
        parse("a " * 300, NOW)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("device:lem-1 colour:red", 13, "no field colour"),
        ("status:broken", 7, "must be one of QUEUED"),
        ('device:"lem', 7, "closing quotation mark"),
        ("(device:a", 9, "closing bracket is missing"),
        ("device:a)", 8, "bracket too many"),
        ("device:", 7, "value is missing"),
        ("a and", 5, "term is missing"),
        ("or b", 0, "term is missing"),
        ("since:soon", 6, "takes a time"),
        ("id:x", 3, "takes a number"),
        ("id:..", 3, "takes a number"),
        ("since:2026*", 6, "takes no"),
        ("--", 0, "no letter or digit"),
        ("is:gone", 3, "must be one of open"),
        ("latency > 2", 10, "takes a duration such as 2s"),
        ("latency:5..6s", 8, "takes a duration"),
        ("latency >", 9, "value is missing after latency >"),
        ("latency ~ 2s", 8, "latency takes : or ="),
        ("a result > 5", 8, "needs a name behind it"),
        ("result.x:", 9, "missing after result.x:"),
        ("result.x < true", 9, "can be compared with = and !="),
        ("result.x > a*", 11, r"takes no \*"),
        ("colour > 5", 0, "no field colour"),
        ("fact.x:1", 0, "not known of interactions"),
        ("bytes = 68", 6, "bytes takes ~ or :"),
        ("bytes ~ 6", 8, "takes octets such as"),
        ("bytes.up ~ 68", 0, "bytes.in and bytes.out"),
        ("site != a", 5, "site takes"),
        ("status ~ zz", 9, "must be one of QUEUED"),
        ("step:lunch", 5, "must be one of click"),
        ("created ~ 5", 8, "created takes"),
        ("finished > 9999-12-31", 11, "takes a time"),
        ("id > 9223372036854775807", 5, "too large"),
        ("batch:5*", 6, r"takes no \*"),
        ("follows:1..2", 8, "whole number"),
        ("a \ud800 b", 2, "half of a character"),
        ("not " * 40 + "latency:1s..2s", 0, "too long when it is written out"),
        ("since:-2h " * 200, 0, "too long when it is written out"),
    ],
)
def test_faults_are_told_with_their_place(text: str, position: int, said: str) -> None:
    with pytest.raises(FilterError, match=said) as caught:
        parse(text, NOW)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("   ", ""),
        ("Device:lem-1 STATUS:failed", "device:lem-1 status:FAILED"),
        ("a AND b OR not c", "a b or not c"),
        ("(a or b) c", "(a or b) c"),
        ("((a))", "a"),
        ('"not" kind:READ*', '"not" kind:READ*'),
        ('device:"a b"*', 'device:"a b"*'),
        ("since:-2h", "since:2026-05-04T10:00:00Z"),
        ("since:today until:today", "since:2026-05-04T00:00:00Z until:2026-05-05T00:00:00Z"),
        ("until:2026-05-01", "until:2026-05-02T00:00:00Z"),
        ("since:2026-05-01", "since:2026-05-01T00:00:00Z"),
        ("since:10:30", "since:2026-05-04T10:30:00Z"),
        ("since:2026-05-01T10:30:00+02:00", "since:2026-05-01T08:30:00Z"),
        ('since:"2026-05-01 10:30"', "since:2026-05-01T10:30:00Z"),
        ("id:5..5 id:7.. id:..9", "id:5 id:7.. id:..9"),
        ('"1-0:1.8.0"', '"1-0:1.8.0"'),
        ("1-0:1.8.0", '"1-0:1.8.0"'),
        ("latency>150 ms", "latency > 150ms"),
        ("latency = 0.5s duration:1s..2s", "latency = 500ms duration >= 1s duration <= 2s"),
        ("not waited:..90s", "not waited <= 90s"),
        ("created > 2026-05-01", "since:2026-05-02T00:00:00Z"),
        ("created = yesterday", "since:2026-05-03T00:00:00Z until:2026-05-04T00:00:00Z"),
        ("finished <= 10:30", "finished < 2026-05-04T10:30:00.000001Z"),
        ("attempts > 1 parent:12 batch != 3", "attempts:2.. parent:12 batch:* not batch:3"),
        ("code != TIMEOUT device != a*", "reason:* not reason:TIMEOUT not device:a*"),
        ("device ~ em", "device ~ em"),
        ("Result.Voltage<200", "result.Voltage < 200"),
        ('result."1-0:1.8.0":5 result."a".b.0 = "5"', 'result."1-0:1.8.0" = 5 result.a.b.0 = "5"'),
        ("params.x = TRUE param.y:1*", "param.x = true param.y:1*"),
        ("bytes ~ 68 71 ?? ab status:failed", 'bytes ~ "68 71 ?? ab" status:FAILED'),
        ("bytes.in:6871 relay", 'bytes.in ~ "68 71" relay'),
        ('text:"gateway off"* text ~ relay', '"gateway off"* relay'),
        ("x=5 a<b", '"x=5" "a<b"'),
        ("latency result bytes", "latency result bytes"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert str(parse(text, NOW)) == canonical


def test_times_without_a_zone_are_in_the_zone_of_now() -> None:
    there = timezone(timedelta(hours=2))
    where = parse("since:2026-05-01T10:30 until:today", NOW.astimezone(there))
    assert str(where) == "since:2026-05-01T08:30:00Z until:2026-05-04T22:00:00Z"


# ---------------------------------------------------------------- meaning


@dataclass
class Kept:
    """A log that is open, with its interactions and what stands beside each."""

    reader: LogReader
    contexts: list[tuple[Interaction, Context]]


@pytest.fixture(scope="module")
def kept(kept_log: Path) -> Iterator[Kept]:
    with LogReader(kept_log) as reader:
        devices = {device.id: device for device in reader.snapshot().devices}
        chains: dict[int, set[int]] = {}
        contexts: list[tuple[Interaction, Context]] = []
        for item in reader.page(limit=1000):
            parent = item.followup_of
            chains[item.id] = set() if parent is None else {parent, *chains.get(parent, ())}
            story = reader.story(item.id)
            assert story is not None
            contexts.append((item, Context.of(story, devices, chains[item.id])))
        yield Kept(reader, contexts)


@given(trees)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_pages_counts_and_memory_agree(kept: Kept, node: f.Node) -> None:
    where, reader = Filter(node), kept.reader
    expected = [item.id for item, context in kept.contexts if where.matches(item, context=context)]
    sql, parameters = where.sql()
    bare = reader.query(f"SELECT id FROM interaction WHERE {sql} ORDER BY id", parameters)
    assert [row[0] for row in bare] == expected
    assert reader.page(where=where, limit=100_000).ids == expected
    assert reader.page(where=where, limit=7).ids == expected[-7:]
    assert reader.page(where=where, limit=7, before=150).ids == [n for n in expected if n < 150][-7:]
    assert reader.page(where=where, limit=7, after=150).ids == [n for n in expected if n > 150][:7]
    assert reader.count(where) == len(expected)
    assert reader.anchors(where, 5).tolist() == expected[::5]
    assert reader.more_anchors(reader.anchors(where, 5), where, 5).tolist() == expected[::5]


def test_a_log_whose_clock_was_set_back_is_searched_right(tmp_path: Path) -> None:
    path = tmp_path / "clock.mwk"
    rng = random.Random(3)
    with LogWriter(path) as writer:
        at = START
        for number in range(1, 300):
            at += timedelta(seconds=-4000 if number % 40 == 0 else rng.choice((1, 1, 1, 5, 60, -3, 0)))
            writer.put(replace(queued(number), created=at, updated=at))
        writer.flush()
    with LogReader(path) as reader:
        everything = list(reader.page(limit=1000))
        assert reader.query("SELECT count(*) FROM era").__next__()[0] > 3
        for _ in range(200):
            since = START + timedelta(seconds=rng.randrange(-100, 6000))
            until = since + timedelta(seconds=rng.randrange(0, 3000))
            where = Filter(f.all_of([f.Since(since), f.Until(until)]))
            expected = [i.id for i in everything if since <= i.created < until]
            assert reader.page(where=where, limit=1000).ids == expected
            assert reader.page(where=Filter(f.Since(since)), limit=5).ids == [
                i.id for i in everything if since <= i.created
            ][-5:]


VALUE = "zq'\\\");-- DROP"
ASKED = [
    *(f"{name}:{{}}" for name in ("device", "reason", "finding", "actor", "site", "meter", "serial", "text")),
    *(f"{name}:{{}}*" for name in ("device", "finding", "actor", "grid", "meter", "serial", "result.a", "text")),
    *(f"{name} ~ {{}}" for name in ("device", "finding", "gateway", "meter", "param.a")),
    *(f"result.a {sign} {{}}" for sign in ("=", "!=", "<", ">=")),
    '{}',
]


@pytest.mark.parametrize("asked", ASKED)
def test_values_are_parameters_only(kept_log: Path, asked: str) -> None:
    where = parse(asked.format(f.quoted(VALUE)), NOW)
    sql, parameters = where.sql()
    assert "zq" not in sql.lower()
    assert any("zq" in str(value) for value in parameters)
    assert "DROP" not in parse('result."a\'); DROP.b" > 1', NOW).sql()[0]
    with LogReader(kept_log) as reader:
        reader.page(where=where)
        assert reader.span()[2] == 400


INJECTIONS = ['"; DROP TABLE interaction; --', "device:\"' OR 1=1 --\"", '"a\\" OR b" NEAR(x y)', "body:*"]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_text_reaches_sql_as_sql(kept_log: Path, text: str) -> None:
    with LogReader(kept_log) as reader:
        try:
            where = parse(text, NOW)
        except FilterError:
            return
        assert reader.page(where=where) == []
        assert reader.span()[2] == 400


def test_words_are_cut_as_full_text_cuts_them(tmp_path: Path) -> None:
    texts = [
        *("Über-Größe 12.5", "naïve café", "ПРИВЕТ мир", "1-0:1.8.0*255", "a_b", "東京 tower", "x²", "Straße"),
        *("e\u0301t\u00e9", "line\nbreak\ttab", 'quo"te\\slash'),
    ]
    path = tmp_path / "w.mwk"
    items = [queued(n + 1, params={"t": text}) for n, text in enumerate(texts)]
    with LogWriter(path) as writer:
        writer.put(*items)
        writer.flush(text=True)
    asked = [
        *("größe", "GRÖSSE", "grosse", "grösse", "cafe", "café", "привет", "1.8.0", "a b", "a_b", "tower", "東京"),
        *("strasse", "12.5", "ete", "line break tab", "break", "quo te slash"),
    ]
    with LogReader(path) as reader:
        for text in asked:
            where = parse(f'"{text}"', NOW)
            assert reader.page(where=where).ids == [i.id for i in items if where.matches(i)], text


def test_matches_takes_the_text_it_is_given() -> None:
    where = parse('"gateway off"* status:queued', NOW)
    assert where.matches(queued(1), "the gateway offline since")
    assert not where.matches(queued(1), "gateway is off")
    assert not where.matches(queued(1))


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("text", "some"),
    [
        ("dev", "device:"),
        ("status:fa", "status:FAILED"),
        ("status:", "status:QUEUED"),
        ("(not sta", "status:"),
        ("since:", "since:-2h"),
        ("is:o", "is:open"),
        ("device:a a", "and"),
        ("origin:rec", "origin:RECONCILER"),
        ("step:ga", "step:gatekeeper"),
        ("status = fa", "FAILED"),
        ("status!=fa", "status!=FAILED"),
        ("not latency > 2", "2s"),
        ("latency>", "latency>2s"),
        ("created >= yes", "yesterday"),
        ("result.x = t", "true"),
    ],
)
def test_completion_offers(text: str, some: str) -> None:
    offered = complete(text, len(text))
    assert some in offered
    for one in offered:
        if one.endswith((":", " ", ".")):
            continue
        start = len(text) - len(text.split()[-1].lstrip("(")) if not text.endswith(" ") else len(text)
        if one not in f.KEYWORDS:
            parse(text[:start].lstrip("(") + one, NOW)


def test_completion_offers_what_it_is_told_of() -> None:
    occurring = {"device": ["lem-1", "Lem 2", "ems-1"], "result": ["voltage", "1-0:1.8.0", 'b"d'], "finding": ["CLOCK"]}

    def known(field: str) -> list[str]:
        return occurring.get(field, [])

    assert complete("x device:LE", 11, known) == ["device:lem-1", 'device:"Lem 2"']
    assert complete("device ~ e", 10, known) == ["ems-1"]
    assert complete("result.", 7, known) == ["result.voltage", 'result."1-0:1.8.0"']
    assert complete("result.vo", 9, known) == ["result.voltage"]
    assert complete("finding:", 8, known) == ["finding:CLOCK"]
    assert complete("fact.", 5, lambda _: ["serial"], language=f.OF_DEVICES) == ["fact.serial"]
    assert complete("status:o", 8, language=f.OF_DEVICES) == ["status:off", "status:online"]
    assert complete("bat", 3, known) == ["batch:"]
    assert complete("lat", 3) == ["latency > "]
    assert "result." in complete("re", 2)


def test_completion_stays_silent_in_quotes_and_values() -> None:
    assert complete('"sta', 4) == []
    assert complete("device:le", 9) == []
    assert complete("status:FAILED", 13) == []
    assert complete("", 0)[0] == "device:"
    assert complete("status:x dev", 3) == ["status:"]


def test_every_status_but_the_one_in_memory_can_be_asked_for() -> None:
    for status in Status:
        if status is not Status.NEW:
            assert parse(f"status:{status.lower()}", NOW).matches(fresh(1, status=status))
