"""Aviora ProtocolZD: the shared vectors, the device's habits of specs/aviora-protocolzd.md one by one, and noise."""

from __future__ import annotations

import copy
import itertools
import json
import random
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import ParameterError, RemoteProtocolError
from app.protocols import aviora, aviora_device, aviora_stream, conformance
from app.protocols import conformance_aviora as checker
from app.protocols.aviora import AnswerMeaning, Device, Function
from app.protocols.aviora_device import Refused, read_registration, read_request
from app.protocols.aviora_stream import (
    START,
    BlockVerdict,
    Damaged,
    DirectiveResult,
    Event,
    Garbage,
    Message,
    Reassembler,
    Result,
    Splitter,
    TextResult,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "aviora.json"
TEXT = VECTORS.read_text("utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
BY_ID: dict[str, dict[str, Any]] = {sample["id"]: sample for sample in DOCUMENT["samples"]}
DEVICE = Device("AVI2026070001")
HEADER = b'{"device":{"flag":"AVI","serialNumber":"AVI2026070001"},"function":"'
ACK = HEADER + b'ack"}'
ALIVE = HEADER + b'alive","response":{"deviceDate":"2026-11-21 02:28:13"}}'
IDENTIFICATION = b"/LGZ5\\2ZMG405000b.P07"


def wire(identity: str, name: str = "segments") -> bytes:
    return b"".join(segment.encode("latin-1") for segment in BY_ID[identity][name])


def split(*segments: bytes, ends: bool = True) -> list[Event]:
    """Events of ``segments`` read at once, and of the end of the connection."""
    splitter = Splitter()
    events = [event for segment in segments for event in splitter.feed(segment, 0.0)]
    return events + splitter.close() if ends else events


def messages(events: Sequence[Event]) -> list[bytes]:
    return [event.raw for event in events if isinstance(event, Message)]


def only(events: Sequence[Event]) -> Message:
    (event,) = events
    assert isinstance(event, Message)
    return event


def log(text: bytes, number: int = 1, more: bool = False) -> bytes:
    told = b"true" if more else b"false"
    return HEADER + b'log","packetNum":%d,"packetStream":%s,"response":{"log":"%s"}}' % (number, told, text)


def readout(text: bytes, number: int = 1, more: bool = False, identification: bytes = IDENTIFICATION) -> bytes:
    told = b"true" if more else b"false"
    return (
        HEADER
        + b'readout","packetNum":%d,"packetStream":%s,"response":{"data":{"id":"' % (number, told)
        + identification
        + b'","readout":"%s"}}}' % text
    )


def join(*objects: bytes) -> list[Result]:
    joiner = Reassembler()
    results = [
        result for event in split(*objects) if not isinstance(event, Garbage) for result in joiner.feed(event, 0.0)
    ]
    return results + joiner.close()


def text_result(*objects: bytes) -> TextResult:
    (result,) = join(*objects)
    assert isinstance(result, TextResult)
    return result


# ---------------------------------------------------------------- conformance


@pytest.mark.parametrize("parse_float", [float, Decimal])
def test_the_shared_vectors_pass(parse_float: Any) -> None:
    report = conformance.run(json.loads(TEXT, parse_float=parse_float))
    assert report.failures == ()
    assert (report.summary, report.is_good) == ("32 passed, 0 failed", True)


def check_one(sample: Any) -> tuple[int, str]:
    report = checker.check({**DOCUMENT, "samples": [sample]})
    assert report.passed + report.failed == 1
    return report.failed, "; ".join(map(str, report.failures))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from leaves(item, (*path, name))


def others_of(value: Any) -> list[Any]:
    others: list[Any] = [None, "other", {"x": 1}, [value], -1, 1.5]
    if isinstance(value, bool):
        others += [not value, int(value), str(value)]
    elif isinstance(value, int):
        others += [value + 1, str(value), True]
    elif isinstance(value, str):
        others += [value + "x", value[:-1], value.swapcase() if value.swapcase() != value else value + "1"]
    elif isinstance(value, dict):
        others += [{**value, "x": 1}, dict(list(value.items())[1:])]
    elif isinstance(value, list) and value:
        others += [value[1:], [*value, value[-1]]]
    return [other for other in others if type(other) is not type(value) or other != value]


@pytest.mark.parametrize("identity", [name for name in BY_ID if name not in ("S11", "S14")])  # re-cut S10 and S13
def test_every_altered_expectation_fails(identity: str) -> None:
    for path in leaves(BY_ID[identity]["expect"]):
        sample = copy.deepcopy(BY_ID[identity])
        place: Any = sample["expect"]
        for step in path[:-1]:
            place = place[step]
        value = place[path[-1]]
        for other in others_of(value):
            place[path[-1]] = other
            if path == ("push",) and not value["messages"] and other == {}:
                continue
            failed, sentence = check_one(sample)
            assert failed, (path, other)
            assert sentence.startswith(identity)
        if path[-1] != "length" and value != [] and path != ("push",):
            del place[path[-1]]
            assert path[-1] == "messages" or check_one(sample)[0], path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "strem"}, "the kind 'strem' is not known"),
        ({"kind": ["stream"]}, "is not known"),
        ({"channel": "side"}, "channel must be push or pull"),
        ({"direction": "server_to_device"}, "direction of a stream"),
        ({"segments": "abc"}, "segments must be a list"),
        ({"segments": [7]}, "segments must be a list"),
        ({"segments": ["\u0100"]}, "above U+00FF"),
        ({"expect": {}}, "no object of expectations"),
        ({"expect": {"message": []}}, "'message' is not known"),
        ({"expect": {"messages": {}}}, "must be a list"),
        ({"segments": []}, "there are 0 messages, expected 1"),
    ],
)
def test_a_sample_that_is_not_understood_fails(change: dict[str, Any], words: str) -> None:
    failed, sentence = check_one({**BY_ID["S01"], **change})
    assert failed
    assert words in sentence


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {**DOCUMENT, "protocol": "aviora"},
        {**DOCUMENT, "format": 2},
        {**DOCUMENT, "format": True},
        {**DOCUMENT, "samples": []},
        {**DOCUMENT, "samples": {}},
        {**DOCUMENT, "samples": [7]},
        {**DOCUMENT, "samples": [{"kind": "stream"}]},
        {**DOCUMENT, "samples": [BY_ID["S01"], BY_ID["S01"]]},
    ],
)
def test_a_document_that_is_not_understood_fails(document: Any) -> None:
    assert not checker.check(document).is_good


def test_the_words_of_an_outcome_are_checked() -> None:
    for identity, outcome in (
        ("S06", "nack"),
        ("S06", "two acks"),
        ("S06", "ack then result on push"),
        ("S06", "perhaps"),
        ("S12", "ack"),
        ("S23", "ack"),
        ("S25", "ack meaning empty list"),
        ("S29", "nack"),
        ("S31", "ack"),
        ("S06", "ack, no result on"),
    ):
        failed, _ = check_one({**BY_ID[identity], "expect": {**BY_ID[identity]["expect"], "outcome": outcome}})
        assert failed, (identity, outcome)
    assert check_one({**BY_ID["S06"], "device_closes_connection": True})[0]


def test_unseen_samples_of_the_same_format_work() -> None:
    ident = wire("S03").replace(b"true", b"false").decode()
    refused = {"meaning": "device does not register", "length": 105}
    assert check_one({**BY_ID["S03"], "segments": [ident], "expect": refused}) == (0, "")
    cut = log(b"a\n")[:-2] + log(b"b\n")
    expect = {
        "messages": [
            {
                "flag": "AVI",
                "serialNumber": DEVICE.serial,
                "function": "log",
                "strict_json": False,
                "packetNum": 1,
                "packetStream": False,
                "payload": "b\n",
            }
        ],
        "results": [
            {"function": "log", "packets": 1, "payload": "", "complete": False},
            {"function": "log", "packets": 1, "payload": "b\n", "complete": True},
        ],
    }
    sample = {"id": "N1", "kind": "stream", "channel": "pull", "segments": [cut.decode()], "expect": expect}
    failed, sentence = check_one(sample)
    assert not failed, sentence
    merged = {**BY_ID["S08"], "send": [BY_ID["S08"]["send"][0][:30], BY_ID["S08"]["send"][0][30:]]}
    assert check_one(merged) == (0, "")


# ---------------------------------------------------------------- splitter


WORDS = st.sampled_from([b'"', b'"}', b"}}", b"}", b"{", b"\\", b"\r\n", b"\x02", b"\x03", b"\xff", b"\xc3\xa9", b"!"])
ALL_MARKS = (b'"}}', b'","readout":"', START)


@st.composite
def texts(draw: st.DrawFn, size: int) -> bytes:
    """What a meter may send: anything but NUL, a message start, or an end mark."""
    text = b"".join(draw(st.lists(st.one_of(WORDS, st.binary(max_size=12)), max_size=60)))[:size].replace(b"\0", b"0")
    for mark in ALL_MARKS:
        text = text.replace(mark, b"_")
    while text.endswith((b'"', b'"}', b"}")):
        text = text[:-1]  # with the mark behind it, the end would come earlier
    return text


@st.composite
def results_on_the_wire(draw: st.DrawFn) -> list[bytes]:
    """The objects of one result as the device writes them."""
    function = draw(st.sampled_from([Function.LOG, Function.READOUT, Function.LOAD_PROFILE]))
    full = draw(st.lists(texts(aviora_stream.TEXT_BYTES), max_size=2))
    text = b"".join(part.ljust(aviora_stream.TEXT_BYTES, b".") for part in full) + draw(texts(600)) + b"!"
    return aviora_device.say_text(DEVICE, function, text, draw(texts(aviora_stream.MAX_ID_BYTES)))


STORED = b'"id":"%s","directive":[{"operation":"sendData","parameter":"/?![0D][0A]"}]'
OBJECTS = st.one_of(
    results_on_the_wire(),
    st.sampled_from(
        [[ACK], [ACK.replace(b"ack", b"nack")], [ALIVE], [wire("S01")], [wire("S02")], [log(aviora.NO_LOG)]]
    ),
    st.lists(st.sampled_from([STORED % b"A", STORED % b"B1"]), min_size=1, max_size=3).map(
        lambda stored: aviora_device.say_directives(DEVICE, stored)
    ),
    st.just([HEADER + b'later","response":{"a":[1,{"b":"}}"}]}}']),
)
CUTS = st.lists(st.integers(0, 6000), max_size=12)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@settings(max_examples=150, deadline=None)
@given(st.lists(OBJECTS, max_size=5), CUTS)
def test_any_segmentation_gives_the_same_messages(groups: list[list[bytes]], cuts: list[int]) -> None:
    objects = [one for group in groups for one in group]
    events = split(*pieces(b"".join(objects), cuts), ends=False)
    assert [event.raw if isinstance(event, Message) else event for event in events] == objects


@settings(max_examples=20, deadline=None)
@given(results_on_the_wire())
def test_one_byte_at_a_time(objects: list[bytes]) -> None:
    data = b"".join(objects)
    assert messages(split(*(data[at : at + 1] for at in range(len(data))), ends=False)) == objects


def is_apart(noise: bytes) -> bool:
    """Closing braces and end marks would belong to the object before."""
    return b'"}}' not in noise and not noise.startswith(b"}")


NOISE = st.one_of(
    st.binary(min_size=1, max_size=80).filter(is_apart),
    st.sampled_from(
        [
            b"/?!\r\n",
            b"\0" * 5,
            b"\r\n  ",
            START,
            START[:7],
            START + b'AVI","serialNumber":"1"},"fun',
            HEADER,
            HEADER + b'ack"',
            HEADER + b'alive","response":{"deviceDate":"2026',
            HEADER + b'ident","response":',
            HEADER + b'log","packetNum":1,"packetStre',
            log(b"cut here")[:-9],
            log(b"x" * 700, more=True)[:-300],
            readout(b"cut here")[:-9],
            readout(b"cut")[:-1],
            HEADER + b'directiveList","packetNum":1,"packetStream":false,"response":{"directive":"id":"A',
        ]
    ),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(NOISE, OBJECTS), min_size=1, max_size=4), CUTS)
@example([(log(b"cut")[:-9], [ALIVE])], [])
@example([(readout(b"cut")[:-9], [readout(b"1")])], [])
@example([(log(b"cut")[:-9], [ACK]), (b"\0\0", [ACK])], [80])
def test_noise_never_loses_a_following_message(parts: list[tuple[bytes, list[bytes]]], cuts: list[int]) -> None:
    data = b"".join(noise + b"".join(objects) for noise, objects in parts)
    events = split(*pieces(data, cuts))
    wanted = [one for _, objects in parts for one in objects]
    found = iter(messages(events))
    assert all(one in found for one in wanted), events
    blanks = bytes.maketrans(b"", b"")
    kept = b"".join(event.raw if isinstance(event, Message) else event.data for event in events)
    hidden = sum(event.hidden for event in events if isinstance(event, Damaged))
    drop = aviora_stream.BLANKS
    assert len(kept.translate(blanks, drop)) + hidden >= len(data.translate(blanks, drop))  # nothing disappears


def test_garbage_is_told_with_its_bytes_and_blanks_are_not() -> None:
    events = split(b" \r\n/?!\r\n" + ACK + b"\r\n" + ACK + b"\0\0" + log(b"a") + b"/?!\r\n" + log(b"b") + b"\0")
    assert messages(events) == [ACK, ACK, log(b"a"), log(b"b")]
    assert [event.data for event in events if isinstance(event, Garbage)] == [b"/?!\r\n", b"\0\0", b"/?!\r\n", b"\0"]


@pytest.mark.parametrize(
    "text",
    [
        b'say "hello" {twice} \\n "}} and on',
        b'tail "}}}',
        b'RX {"device":{"flag":"AVI","serialNumber":"1"},"function":"log"}\n20260703 next line',
        b"RX " + ACK + b"\nnext line",
        b"TX " + ALIVE + b"\nnext line",
        b"TX " + log(b"x") + b" and on",
        b"TX " + START + b" is how a message begins\n",
        b"",
    ],
)
def test_a_text_may_quote_what_looks_like_an_end_or_a_message(text: bytes) -> None:
    for whole in (log(text) + ALIVE, log(text)):
        assert messages(split(whole))[0] == log(text)
    assert only(split(log(text))).text == text


@pytest.mark.parametrize("quoted", [ACK, ALIVE, HEADER + b'log"}'])
def test_a_quoted_message_is_no_message_wherever_tcp_cuts(quoted: bytes) -> None:
    data = log(b"TX " + quoted + b"\nnext line") + readout(b"1")
    for cut in range(len(data)):
        if data[:cut].rstrip(aviora_stream.BLANKS).endswith(b'"}}') and cut < data.index(b"next"):
            continue  # rule 4: it looks complete
        assert messages(split(data[:cut], data[cut:], ends=False))[-1] == readout(b"1")
        assert len(split(data[:cut], data[cut:])) == 2, cut


def test_a_full_packet_ends_where_it_is_full() -> None:
    first = log((b'"}}' + HEADER + b'later"').ljust(700, b"."), more=True)
    assert messages(split(first + log(b"rest", 2))) == [first, log(b"rest", 2)]


def test_a_message_inside_json_is_no_message_wherever_tcp_cuts() -> None:
    data = HEADER + b'later","response":' + ACK + b"}"
    for cut in range(len(data)):
        assert messages(split(data[:cut], data[cut:], ends=False)) == [data]


def test_a_full_packet_may_hold_the_end_mark_and_a_message_start() -> None:
    text = (b'"}}' + START + b'"}}').ljust(700, b".")
    first, last = log(text, more=True), log(b"rest", 2)
    data = first + last
    for cut in range(0, len(data), 7):
        assert messages(split(data[:cut], data[cut:], ends=False)) == [first, last]


def test_a_packet_that_a_nul_made_shorter_is_found_when_the_next_comes() -> None:
    first, last = aviora_device.say_text(DEVICE, Function.READOUT, b"1.8.0(1)\0".ljust(700, b"x") + b"!\r\n", b"/A")
    splitter = Splitter()
    assert splitter.feed(first, 0.0) == []
    assert messages(splitter.feed(last, 0.1)) == [first, last]
    assert text_result(first, last).data == b"1.8.0(1)!\r\n"


def test_ten_seconds_of_silence_decide() -> None:
    splitter = Splitter()
    idle = splitter.silent_at
    assert idle is None
    assert splitter.feed(log(b"cut")[:-2], 100.0) == []
    assert splitter.silent_at == 110.0
    assert splitter.tick(109.9) == []
    (damaged,) = splitter.tick(110.0)
    assert isinstance(damaged, Damaged)
    assert (damaged.function, damaged.serial, damaged.packet, damaged.more) == ("log", DEVICE.serial, 1, False)
    assert damaged.data == log(b"cut")[:-2]
    assert splitter.feed(ACK[:9], 111.0) == []
    late = splitter.feed(ACK, 130.0)  # nobody ticked
    assert [type(event) for event in late] == [Garbage, Message]
    assert splitter.pending == 0


def test_close_reports_what_is_unfinished() -> None:
    for whole in (ACK, ALIVE, log(b"a"), readout(b"a"), STORED):
        (event,) = split(whole[:-1])
        assert not isinstance(event, Message)
    assert Splitter().close() == []


@pytest.mark.parametrize("filler", [b"x", b'"]]', b"{", b"[", b"\0", b" "])
def test_an_object_without_end_is_bounded(filler: bytes) -> None:
    splitter = Splitter()
    events: list[Event] = []
    data = HEADER + b'zzz","x":' + filler * (200_000 // len(filler))
    begin = time.perf_counter()
    for at in range(0, len(data), 50):
        events += splitter.feed(data[at : at + 50], 0.0)
        assert splitter.pending <= aviora_stream.MAX_BUFFER_BYTES
    assert time.perf_counter() - begin < 2.0
    assert messages([*events, *splitter.feed(ACK, 0.0)]) == [ACK]
    assert any(isinstance(event, Damaged) for event in events)


def test_a_start_that_the_bound_cuts_is_not_lost() -> None:
    for shift in range(40):
        splitter = Splitter()
        filler = HEADER + b'zzz","x":"'
        filler += b"x" * (aviora_stream.MAX_BUFFER_BYTES - 4096 - len(filler) - shift)
        events = [event for part in (filler + ACK[:40], ACK[40:]) for event in splitter.feed(part, 0.0)]
        assert messages(events) == [ACK], shift


@pytest.mark.parametrize("is_hostile", [False, True])
def test_random_bytes_are_fast_and_bounded(is_hostile: bool) -> None:
    dice = random.Random(20260703)
    noise = dice.randbytes(200_000)
    if is_hostile:
        words = [START, HEADER, HEADER + b'log"', log(b""), b'"}}', b"}}", b'"', b" ", b"\0", HEADER + b'x",']
        noise = b"".join(dice.choice(words) for _ in range(8_000))[:200_000]
    splitter = Splitter()
    tracemalloc.start()
    try:
        begin, at = time.perf_counter(), 0
        while at < len(noise):
            size = dice.randint(1, 2000)
            splitter.feed(noise[at : at + size], 0.0)
            at += size
            assert splitter.pending <= aviora_stream.MAX_BUFFER_BYTES
        took = time.perf_counter() - begin
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < (4.0 if is_hostile else 1.0)
    assert peak < 2 << 20
    assert messages([*splitter.feed(ACK, 0.0), *splitter.close()])[-1:] == [ACK]


# ---------------------------------------------------------------- results


def test_packets_are_joined_over_their_borders() -> None:
    text = "Köhler ".encode() * 250
    result = text_result(*aviora_device.say_text(DEVICE, Function.READOUT, text, b"/KHL"))
    assert (result.data, result.text, result.packets) == (text, text.decode(), 3)
    assert (result.identification, result.is_complete, result.reason) == (b"/KHL", True, "")


@pytest.mark.parametrize(("size", "packets"), [(1, 1), (700, 1), (701, 2), (1400, 2)])
def test_a_full_text_has_no_empty_last_packet(size: int, packets: int) -> None:
    assert text_result(*aviora_device.say_text(DEVICE, Function.LOG, b"x" * size)).packets == packets
    assert aviora_device.say_text(DEVICE, Function.LOG, b"") == []


@pytest.mark.parametrize(
    ("objects", "data", "words"),
    [
        ([readout(b"a" * 700, 1, True), readout(b"c", 3)], b"a" * 700 + b"c", "packet 2 is missing, 3 came"),
        ([readout(b"b", 2)], b"b", "packet 1 is missing, 2 came"),
        ([readout(b"a" * 700, 1, True), readout(b"a", 1, False)], b"a" * 700, "packet 1 of the next result"),
        ([readout(b"a" * 700, 1, True)], b"a" * 700, "closed before the last packet"),
        ([readout(b"a" * 700, 1, True), readout(b"b", 2, identification=b"/X")], b"a" * 700 + b"b", "identification"),
        ([readout(b"a" * 700, 1, True), readout(b"b", 2)[:-2], ALIVE, ACK], b"a" * 700, "a packet was damaged"),
        ([readout(b"a" * 700, 1, True), readout(b"b" * 700, 1, True)[:-2]], b"a" * 700, "packet 1 of the next"),
    ],
)
def test_incomplete_results(objects: list[bytes], data: bytes, words: str) -> None:
    result = join(*objects)[0]
    assert isinstance(result, TextResult)
    assert (result.is_complete, result.data) == (False, data)
    assert words in result.reason


def test_a_result_that_stops_is_incomplete_after_fifteen_seconds() -> None:
    joiner = Reassembler()
    idle = joiner.silent_at
    assert idle is None
    assert joiner.feed(only(split(readout(b"a" * 700, 1, True))), 50.0) == []
    assert joiner.silent_at == 65.0
    assert joiner.tick(64.9) == []
    (result,) = joiner.tick(65.0)
    assert "within 15 s" in result.reason
    assert joiner.close() == []


def test_functions_are_joined_apart() -> None:
    results = join(log(b"a" * 700, 1, True), readout(b"r"), log(b"b", 2))
    assert [(result.function, result.is_complete) for result in results if isinstance(result, TextResult)] == [
        ("readout", True),
        ("log", True),
    ]


def test_a_result_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aviora_stream, "MAX_RESULT_BYTES", 1500)
    result = text_result(*(log(b"a" * 700, number, number < 4) for number in range(1, 5)))
    assert (len(result.data), result.is_complete, result.packets) == (1400, False, 4)
    assert "larger" in result.reason


# ---------------------------------------------------------------- text


def test_literal_text_keeps_its_backslashes() -> None:
    result = text_result(log(b"C:\\new\r\n"))
    assert (result.text, result.is_literal) == ("C:\\new\r\n", True)
    assert text_result(readout(b"1.8.0(1)", identification=b"/A\\n")).text == "1.8.0(1)"


def test_escapes_are_undone_only_when_the_whole_result_is_strict() -> None:
    escaped = text_result(readout(b"F.F(00)\\r\\n", identification=b"/LGZ5\\\\2"))
    assert (escaped.text, escaped.identification_text, escaped.is_literal) == ("F.F(00)\r\n", "/LGZ5\\2", False)
    assert escaped.data == b"F.F(00)\\r\\n"
    mixed = text_result(log(b"a\\q".ljust(700, b"."), 1, True), log(b"\\n", 2))
    assert mixed.is_literal
    assert mixed.text.endswith("\\n")
    assert text_result(log(b"C:\\new".ljust(700, b"."), 1, True), log(b"\n", 2)).is_literal
    assert text_result(log(b'a","x":"\\n')).text == 'a","x":"\\n'  # strict JSON by accident
    assert text_result(readout(b"1.8.0\\n", identification=b"/A\\2")).text == "1.8.0\\n"
    assert text_result(log(b"\\ud800")).text == "\\ud800"


def test_an_escaped_text_may_be_longer() -> None:
    text = b"\\r\\n" * 200
    whole = readout(b'\\"}}}' + text, identification=b"/A")
    assert only(split(whole)).text == b'\\"}}}' + text
    assert only(split(whole[:800], whole[800:], ends=False)).text == b'\\"}}}' + text


def test_bytes_are_shown_as_utf8_or_latin1_and_kept() -> None:
    assert text_result(log("Köhler".encode())).text == "Köhler"
    latin = text_result(log("Köhler".encode("latin-1")))
    assert (latin.text, latin.data, latin.is_literal) == ("Köhler", b"K\xf6hler", True)


def test_block_check() -> None:
    captured = text_result(wire("S15", "push_segments"))
    assert captured.block_check.verdict is BlockVerdict.LOST_ZERO  # its check character is 0x00
    body = b"1.8.0(000001.0)\r\n!\r\n\x03"
    right = 0
    for byte in body:
        right ^= byte
    assert right
    for tail, verdict in (
        (bytes([right]), BlockVerdict.GOOD),
        (bytes([right ^ 1]), BlockVerdict.BAD),
        (b"", BlockVerdict.MISSING),
    ):
        found = aviora_stream.block_check(b"\x02" + body + tail)
        assert (found.verdict, found.computed) == (verdict, right)
        assert found.sentence
    assert aviora_stream.block_check(body).verdict is BlockVerdict.NONE
    assert aviora_stream.block_check(b"\x02no end").verdict is BlockVerdict.NONE


@pytest.mark.parametrize(
    ("data", "has"), [(b"1(2)\r\n!\r\n", True), (b"!", True), (b"1(2)\r\n!\r\n\x03", True), (b"1(2!)\r\n", False)]
)
def test_end_line(data: bytes, has: bool) -> None:
    assert aviora_stream.has_end_line(data) is has


# ---------------------------------------------------------------- directives


def directives(*objects: bytes, now: float = 0.0, until: float | None = None) -> DirectiveResult:
    joiner = Reassembler()
    results = [
        result for event in split(*objects) if not isinstance(event, Garbage) for result in joiner.feed(event, now)
    ]
    results += joiner.close() if until is None else joiner.tick(until)
    (result,) = results
    assert isinstance(result, DirectiveResult)
    return result


def test_listed_directives_are_repaired() -> None:
    result = directives(wire("S25", "receive_segments"))
    assert result.is_complete
    first, second = (aviora.directive_of(entry.value or {}) for entry in result.entries)
    assert first is not None
    assert second is not None
    assert (first.id, len(first.steps), second.id) == ("ReadoutDirective1", 9, "ProfileDirective1")
    assert aviora.directive_warnings(first) == ()
    sent = aviora.encode(DEVICE, aviora.DirectiveAdd(first))
    assert [sent] == [segment.encode() for segment in BY_ID["S24"]["send"]]


def test_a_directive_with_its_braces_and_one_with_the_id_last() -> None:
    braced, last = b'{"id":"A","directive":[]}', b'"directive":[{"operation":"wait","parameter":"1}}"}],"id":"B"'
    result = directives(*aviora_device.say_directives(DEVICE, [braced, last, b'"id":"C\n\\x"']))
    assert [entry.value for entry in result.entries] == [
        {"id": "A", "directive": []},
        {"directive": [{"operation": "wait", "parameter": "1}}"}], "id": "B"},
        {"id": "C\n\\x"},
    ]


def test_an_overlong_directive_is_damaged_and_the_others_are_kept() -> None:
    foreign = b"FOREIGN}}" * 3
    stored = [STORED % b"A", STORED % b"B" + b" " * 900, STORED % b"C"]
    packets = aviora_device.say_directives(DEVICE, stored, foreign)
    assert packets[1][1023] == 0
    for cut in (0, 500, 1300, 1500):
        result = directives(b"".join(packets)[:cut], b"".join(packets)[cut:])
        assert result.is_complete
        assert [entry.value is None for entry in result.entries] == [False, True, False]
        assert "too long" in result.entries[1].fault
        assert b"FOREIGN" not in result.entries[1].raw
    events = split(*packets[:2])
    assert isinstance(damaged := events[1], Damaged)
    assert damaged.hidden == len(packets[1]) - 1023


def test_a_list_may_end_by_silence() -> None:
    packets = aviora_device.say_directives(DEVICE, [STORED % b"A", STORED % b"B"])
    result = directives(packets[0], until=3.0)
    assert (result.is_complete, result.is_open_ended, len(result.entries)) == (True, True, 1)
    assert not directives(packets[0]).is_complete  # the connection was closed


@pytest.mark.parametrize("raw", [b"", b"{", b'"id":', b"[]", b'"a":NaN', b"[" * 3000])
def test_what_is_no_directive_is_told(raw: bytes) -> None:
    entry = aviora_stream.read_directive(raw, 1)
    assert (entry.value is None) == (raw != b"")
    assert bool(entry.fault) == (raw != b"")


def test_directive_warnings() -> None:
    odd = aviora.Directive("A", (aviora.Step("dance"), aviora.Step("setBaud", "301"), aviora.Step("sendData", "[XX]")))
    assert len(aviora.directive_warnings(odd)) == 3
    assert aviora.directive_of({"id": "A", "directive": [{"operation": 1}]}) is None
    assert aviora.directive_of({"id": "A", "directive": [7]}) is None
    assert aviora.directive_of({"id": "A"}) is None


# ---------------------------------------------------------------- what the app sends


START_DATE, END_DATE = datetime(2026, 7, 1), datetime(2026, 7, 1, 3)  # noqa: DTZ001 - the meter's clock has no zone
METER = aviora.Meter("12345678")
PROFILE = aviora.ProfileRequest("12345678", START_DATE, END_DATE, "ProfileDirective1")


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("S06", aviora.MeterAdd(METER)),
        ("S08", aviora.LogRequest()),
        ("S12", aviora.ReadoutRequest("12345678", "ReadoutDirective1")),
        ("S17", PROFILE),
        ("S23", aviora.DirectiveListRequest()),
        ("S26", aviora.DirectiveDelete("ProfileDirective1")),
        ("S27", aviora.FirmwareUpdate("ftp://user:pass@127.0.0.1:2121/fw/aviora_1.2.0.bin")),
        ("S31", aviora.ServerChange("127.0.0.1", 8722)),
    ],
)
def test_requests_are_what_was_captured(identity: str, message: aviora.Request) -> None:
    assert [aviora.encode(DEVICE, message).decode()] == BY_ID[identity]["send"]


def test_answers_on_push_are_what_was_captured() -> None:
    assert aviora.encode(DEVICE, aviora.IdentAnswer(register=True)) == wire("S03")
    assert aviora.encode(DEVICE, aviora.Ack()) == wire("S05") == aviora_device.say(DEVICE, aviora.Ack())


@pytest.mark.parametrize("char", ['"', "\\", "{", "}", "\n", "\0", "\x7f", "é", "€", "["])
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda text: aviora.MeterAdd(aviora.Meter(text)), "meter"),
        (lambda text: aviora.MeterAdd(aviora.Meter("1", brand=text)), "brand"),
        (lambda text: aviora.MeterAdd(aviora.Meter("1", protocol=text)), "protocol"),
        (lambda text: aviora.MeterAdd(aviora.Meter("1", type=text)), "type"),
        (lambda text: aviora.MeterAdd(aviora.Meter("1", serial_port=text)), "serial_port"),
        (lambda text: aviora.MeterAdd(aviora.Meter("1", frame=text)), "frame"),
        (aviora.MeterRemove, "meter"),
        (aviora.ServerChange, "ip"),
        (aviora.ReadoutRequest, "meter"),
        (lambda text: aviora.ReadoutRequest("1", text), "id"),
        (lambda text: aviora.FirmwareUpdate(f"ftp://h/{text}"), "address"),
        (aviora.DirectiveListRequest, "id"),
        (aviora.DirectiveDelete, "id"),
        (lambda text: aviora.DirectiveAdd(aviora.Directive(text, ())), "id"),
        (lambda text: aviora.DirectiveAdd(aviora.Directive("A", (aviora.Step(text),))), "steps"),
        (lambda text: aviora.DirectiveAdd(aviora.Directive("A", (aviora.Step("wait", text),))), "steps"),
    ],
)
def test_characters_the_device_cannot_take_are_refused(make: Any, field: str, char: str) -> None:
    with pytest.raises(ParameterError) as caught:
        aviora.encode(DEVICE, make("a" + char))
    assert caught.value.parameter == field
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (aviora.MeterAdd(aviora.Meter("1" * 16)), "meter serial must have at most 15"),
        (aviora.MeterRemove("1" * 20), "at most 19"),
        (aviora.MeterAdd(aviora.Meter("1", brand="MAKE")), "brand must have at most 3"),
        (aviora.MeterAdd(aviora.Meter("1", serial_port="rs485-10")), "serial port must have at most 7"),
        (aviora.MeterAdd(aviora.Meter("", brand="MKL")), "meter serial must not be empty"),
        (aviora.MeterAdd(aviora.Meter("1", init_baud=0)), "baud"),
        (aviora.MeterAdd(aviora.Meter("1", init_baud=True)), "baud"),
        (aviora.ServerChange("example.org"), "IPv4"),
        (aviora.ServerChange("1.2.3.4", 0), "server port"),
        (aviora.ServerChange("1.2.3.4", 65536), "server port"),
        (aviora.DirectiveDelete("a" * 64), "1 to 63"),
        (aviora.DirectiveDelete(""), "1 to 63"),
        (aviora.DirectiveDelete("../x"), "1 to 63"),
        (aviora.DirectiveAdd(aviora.Directive("A", (aviora.Step("wait", "1"),) * 30)), "takes 860"),
        (aviora.ProfileRequest("1", END_DATE, START_DATE), "before its start"),
        (aviora.ProfileRequest("1", START_DATE, datetime(2026, 7, 2, tzinfo=UTC)), "without a zone"),
        (aviora.ProfileRequest("1", datetime(1999, 1, 1), START_DATE), "2000 and 2099"),  # noqa: DTZ001
        (aviora.FirmwareUpdate("http://h/x"), "ftp://"),
        (aviora.FirmwareUpdate("ftp://h"), "ftp://"),
        (aviora.FirmwareUpdate("ftp://u:p@ss@h/x"), "ftp://"),
        (aviora.FirmwareUpdate(f"ftp://h/{'x' * 63}"), "path"),
        (aviora.FirmwareUpdate(f"ftp://{'u' * 32}:p@h/x"), "FTP user"),
        (aviora.FirmwareUpdate(f"ftp://u:{'p' * 32}@h/x"), "FTP password"),
        (aviora.FirmwareUpdate("ftp://h:70000/x"), "FTP port"),
        (aviora.FirmwareUpdate("ftp://h/" + "x" * 190), "at most 191"),
    ],
)
def test_values_out_of_limits_are_refused(message: aviora.Outgoing, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        aviora.encode(DEVICE, message)


def test_a_password_is_never_shown() -> None:
    update = aviora.FirmwareUpdate("ftp://joe:hush@1.2.3.4/a.bin")
    assert update.masked == "ftp://joe:***@1.2.3.4/a.bin"
    assert aviora.mask_address("ftp://joe:hu@sh@1.2.3.4/a") == "ftp://joe:***@1.2.3.4/a"
    assert "hush" not in repr(update) + repr(aviora.parse_ftp_address(update.address))
    assert "hush" not in aviora.mask_address(aviora.encode(DEVICE, update).decode())
    with pytest.raises(ParameterError) as caught:
        aviora.encode(DEVICE, aviora.FirmwareUpdate("ftp://joe:hush\\@1.2.3.4/a.bin"))
    assert "hush" not in str(caught.value)
    parsed = aviora.parse_ftp_address(update.address)
    assert (parsed.host, parsed.port, parsed.user, parsed.password, parsed.path) == (
        "1.2.3.4",
        21,
        "joe",
        "hush",
        "/a.bin",
    )
    assert aviora.parse_ftp_address("ftp://h/x").user == "anonymous"


PLAIN = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\{}[]'), min_size=1, max_size=7
)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True)
STEPS = st.lists(st.builds(aviora.Step, PLAIN, PLAIN), max_size=9).map(tuple)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31))  # noqa: DTZ001
REQUESTS: st.SearchStrategy[aviora.Request] = st.one_of(
    st.just(aviora.LogRequest()),
    st.builds(
        aviora.MeterAdd,
        st.builds(aviora.Meter, PLAIN, PLAIN, PLAIN, PLAIN.map(lambda text: text[:3]), PLAIN, st.integers(1, 99999999)),
    ),
    st.builds(aviora.MeterRemove, PLAIN),
    st.builds(aviora.ServerChange, st.ip_addresses(v=4).map(str), st.integers(1, 65535)),
    st.builds(aviora.ReadoutRequest, PLAIN, NAMES),
    st.builds(lambda a, b: aviora.ProfileRequest("1", min(a, b), max(a, b)), MOMENTS, MOMENTS),
    st.builds(aviora.DirectiveListRequest, NAMES),
    st.builds(aviora.DirectiveDelete, NAMES),
    st.builds(aviora.DirectiveAdd, st.builds(aviora.Directive, NAMES, STEPS)),
)


@settings(max_examples=200, deadline=None)
@given(REQUESTS)
def test_the_device_understands_what_we_encode(request: aviora.Request) -> None:
    data = aviora.encode(DEVICE, request)
    assert len(data) <= aviora.MAX_MESSAGE_BYTES
    assert data.isascii()
    wanted = read_request(data)
    match request, wanted:
        case aviora.LogRequest(), aviora_device.LogWanted():
            pass
        case aviora.MeterAdd(meter), aviora_device.Setting((one,), None):
            assert (one.operation, one.serial, one.brand, one.init_baud) == (
                "add",
                meter.serial,
                meter.brand,
                meter.init_baud,
            )
            assert (one.protocol, one.type, one.serial_port, one.frame, one.fix_baud) == (
                meter.protocol,
                meter.type,
                meter.serial_port,
                meter.frame,
                meter.fix_baud,
            )
        case aviora.MeterRemove(serial), aviora_device.Setting((one,), None):
            assert (one.operation, one.serial) == ("remove", serial)
        case aviora.ServerChange(ip, port), aviora_device.Setting((), server):
            assert server == (ip, port)
        case aviora.ReadoutRequest(number, directive), aviora_device.ReadoutWanted(meter_, directive_):
            assert (number, directive) == (meter_, directive_)
        case aviora.ProfileRequest(_, start, end), aviora_device.ProfileWanted(_, start_, end_):
            assert (start.strftime("%y%m%d%H%M"), end.strftime("%y%m%d%H%M")) == (start_, end_)
        case aviora.DirectiveListRequest(name), aviora_device.ListWanted(name_):
            assert name == name_
        case aviora.DirectiveDelete(name), aviora_device.DeleteWanted(name_):
            assert name == name_
        case aviora.DirectiveAdd(directive), aviora_device.StoreWanted(name_, stored):
            assert directive.id == name_
            (packet,) = aviora_device.say_directives(DEVICE, [stored])
            (entry,) = directives(packet).entries
            assert entry.value is not None
            assert aviora.directive_of(entry.value) == directive
        case _:
            pytest.fail(f"{request} is taken as {wanted}")


# ---------------------------------------------------------------- how the device reads


def sent(function: str, request: str = "") -> bytes:
    tail = f',"request":{request}' if request else ""
    return HEADER + f'{function}"{tail}}}'.encode()


@pytest.mark.parametrize(
    "data",
    [
        wire("S28", "send"),
        BY_ID["S29"]["send"][0].encode(),
        BY_ID["S29"]["send"][2].encode(),
        wire("S30", "send"),
        wire("S19", "send"),
        wire("S20", "send"),
        b"",
        b"\r\n",
        sent("dance"),
        sent("x" * 24),
        sent("setting"),
        sent("fwUpdate", "{}"),
        sent("fwUpdate", '{"address": "ftp://h/x"}'),
        sent("readout", '{"parameters":{"METERSERIALNUMBER":""}}'),
        sent("directiveAdd", '{"directive":{"directive":[]}}'),
        sent("directiveAdd", '{"directive":{"id":"%s"}}' % ("a" * 64)),
        sent("directiveAdd", '{"directive":{"id":"A","x":"}"}}'),
        sent("directiveDelete", '{"filter":{}}'),
        sent("log") + b" " * 1024,
        sent("log", '{"x":"{"}'),
        sent("loadprofile", '{"METERSERIALNUMBER":"1","startDate":"2026-13-01 00:00","endDate":"2026-01-01 00:00"}'),
        wire("S03"),
        ACK,
    ],
)
def test_the_device_refuses(data: bytes) -> None:
    with pytest.raises(Refused):
        read_request(data)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\r\n " + sent("log") + b"\r\n" + sent("fwUpdate", "{}"), aviora_device.LogWanted()),
        (b'{"x":{"function":"log"},"function":"fwUpdate"}', aviora_device.LogWanted()),
        (sent("setting", "{}"), aviora_device.Setting()),
        (sent("setting", '{"Server":{"ip":"1.2.3.4"}}'), aviora_device.Setting()),
        (sent("setting", '{"Server":{"ip":"1.2.3.4","port":"80"}}'), aviora_device.Setting((), ("1.2.3.4", 80))),
        (
            sent("setting", '{"meters":[{"operation":"add","meter":{"brand":"MAKE","serialNumber":"1"}}]}'),
            aviora_device.Setting((aviora_device.MeterOperation("add", "1"),)),
        ),
        (
            sent("setting", '{"meters":[{"operation":"add","meter":{"serialNumber":"%s"}}]}' % ("1" * 16)),
            aviora_device.Setting((aviora_device.MeterOperation("add", ""),)),
        ),
        (
            sent("setting", '{"meters":[{"operation":"x","meter":{"a":"%s"}}]}' % ("1" * 320)),
            aviora_device.Setting(),
        ),
        (sent("readout", '{"METERSERIALNUMBER":"1"}'), aviora_device.ReadoutWanted("1")),
        (sent("directiveList"), aviora_device.ListWanted()),
        (sent("directiveList", '{"filter":{"id":"*"}}'), aviora_device.ListWanted()),
        (sent("directiveList", '{"filter":{"id":"%s"}}' % ("a" * 64)), aviora_device.ListWanted()),
        (sent("directiveDelete", '{"filter":{"id":"*"}}'), aviora_device.DeleteWanted("*")),
        (sent("fwUpdate", '{"address":"http://x"}'), aviora_device.UpdateWanted("http://x")),
        (
            sent(
                "loadprofile",
                '{"parameters":{"METERSERIALNUMBER":"1","startDate":"2026-07-02T01:02","endDate":'
                '"2026-07-01 00:00:00"}}',
            ),
            aviora_device.ProfileWanted("1", "2607020102", "2607010000"),
        ),
    ],
)
def test_the_device_searches_text(data: bytes, wanted: aviora_device.Wanted) -> None:
    assert read_request(data) == wanted


def test_the_first_read_decides_on_registration() -> None:
    answer = wire("S03")
    assert read_registration(answer)
    assert read_registration(answer.replace(b"true", b'"true"'))
    for wrong in (
        answer.replace(b"true", b"false"),
        answer.replace(b'"register"', b'"registered"'),
        answer.replace(b":", b": "),
        answer[:40],
        ACK + answer,
        ACK,
        b"",
        answer.replace(b"}}", b',"x":"%s"}}' % (b"y" * 128)),
    ):
        assert not read_registration(wrong)


# ---------------------------------------------------------------- what the device says


def test_ident_and_alive() -> None:
    ident = aviora.decode(only(split(wire("S02"))))
    assert ident == aviora.Ident(False, "AVI", "AVIO2622", "2026-11-21 02:23:14", "127.0.0.1", 2642)
    assert aviora_device.say(Device("0123456789ABCDE"), ident) == wire("S02")
    alive = aviora.decode(only(split(ALIVE)))
    assert alive == aviora.Alive("2026-11-21 02:28:13")
    assert aviora_device.say(DEVICE, alive) == ALIVE


def test_odd_members_become_empty_and_a_missing_response_is_told() -> None:
    odd = HEADER + b'ident","response":{"brand":7,"pullPort":"70000","model":"K\xf6"}}'
    assert aviora.decode(only(split(odd))) == aviora.Ident(False, "", "Kö", "", "", None)
    for bad in (b'alive"}', b'alive","response":[1]}'):
        with pytest.raises(RemoteProtocolError, match="no response"):
            aviora.decode(only(split(HEADER + bad)))


def test_the_others() -> None:
    assert aviora.decode(only(split(ACK))) == aviora.Ack()
    assert aviora.decode(only(split(HEADER + b'nack"}'))) == aviora.Nack()
    assert aviora.decode(only(split(log(b"a")))) == aviora.Packet(Function.LOG, 1, False, b"", b"a")
    assert aviora.decode(only(split(HEADER + b'later","x":1}'))) == aviora.Unknown("later")
    assert aviora.decode(only(split(HEADER + b'log","x":1}'))) == aviora.Unknown("log")


@pytest.mark.parametrize(
    ("text", "is_read", "note"),
    [
        ("2026-11-21 02:23:14", True, ""),
        ("1970-01-01 00:00:12", True, "not set"),
        ("0000-00-00 00:00:00", False, "no time"),
        ("", False, "no time"),
        ("yesterday", False, "cannot be read"),
    ],
)
def test_the_clock_of_the_device(text: str, is_read: bool, note: str) -> None:
    clock = aviora.read_device_date(text)
    assert (clock.text, clock.moment is not None) == (text, is_read)
    assert clock.moment is None or clock.moment.tzinfo is None
    assert note in clock.note
    assert bool(clock.note) == bool(note)


@pytest.mark.parametrize(
    ("given_", "host", "port", "source"),
    [
        ({"entered_host": "gw.example", "pull_ip": "9.9.9.9", "peer": "8.8.8.8"}, "gw.example", 2622, "USER"),
        ({"pull_ip": "9.9.9.9", "pull_port": 2642, "peer": "8.8.8.8"}, "9.9.9.9", 2642, "DEVICE"),
        ({"pull_ip": "", "pull_port": 2642, "peer": "8.8.8.8"}, "8.8.8.8", 2642, "PEER"),
        ({"pull_ip": "127.0.0.1", "peer": "10.0.0.7"}, "10.0.0.7", 2622, "PEER"),
        ({"pull_ip": "0.0.0.0", "peer": "10.0.0.7"}, "10.0.0.7", 2622, "PEER"),
        ({"pull_ip": "300.1.1.1", "peer": "10.0.0.7"}, "10.0.0.7", 2622, "PEER"),
        ({"pull_ip": "192.168.1.5", "peer": "10.0.0.7"}, "192.168.1.5", 2622, "DEVICE"),
        ({"pull_ip": "192.168.1.5", "peer": "203.0.113.9"}, "203.0.113.9", 2622, "PEER"),
        ({"pull_ip": "192.168.1.5", "peer": "::ffff:203.0.113.9"}, "203.0.113.9", 2622, "PEER"),
        ({"pull_ip": "192.168.1.5", "peer": "127.0.0.1"}, "192.168.1.5", 2622, "DEVICE"),
        ({"pull_ip": "9.9.9.9", "entered_port": 5000, "pull_port": 1}, "9.9.9.9", 5000, "DEVICE"),
    ],
)
def test_the_pull_address(given_: dict[str, Any], host: str, port: int, source: str) -> None:
    chosen = aviora.choose_pull_address(**given_)
    assert chosen == aviora.PullAddress(host, port, aviora.AddressSource[source])


def test_without_any_address_there_is_none() -> None:
    assert aviora.choose_pull_address(pull_ip="127.0.0.1") is None


# ---------------------------------------------------------------- expectations


@pytest.mark.parametrize(
    ("request_", "answer", "meaning"),
    [
        (aviora.LogRequest(), log(b"a"), AnswerMeaning.DATA),
        (aviora.LogRequest(), ACK, AnswerMeaning.STALE),
        (aviora.MeterAdd(METER), log(b"a"), AnswerMeaning.STALE),
        (aviora.MeterAdd(METER), ACK, AnswerMeaning.DONE),
        (aviora.MeterAdd(METER), HEADER + b'nack"}', AnswerMeaning.REFUSED),
        (aviora.ReadoutRequest("1"), ACK, AnswerMeaning.QUEUED),
        (aviora.ReadoutRequest("1"), readout(b"a"), AnswerMeaning.STALE),
        (aviora.DirectiveListRequest(), ACK, AnswerMeaning.EMPTY),
        (aviora.FirmwareUpdate("ftp://h/x"), ACK, AnswerMeaning.STARTED),
        (aviora.FirmwareUpdate("ftp://h/x"), ALIVE, AnswerMeaning.STALE),
    ],
)
def test_answers(request_: aviora.Request, answer: bytes, meaning: AnswerMeaning) -> None:
    assert aviora.read_answer(request_, only(split(answer))) is meaning


def test_what_is_expected_of_each_function() -> None:
    jobs = {function for function, one in aviora.EXPECTATIONS.items() if one.is_meter_job}
    assert jobs == {Function.READOUT, Function.LOAD_PROFILE}
    assert all(aviora.EXPECTATIONS[job].tries == 2 and aviora.EXPECTATIONS[job].try_pause_s == 5.0 for job in jobs)
    assert set(Function) - set(aviora.EXPECTATIONS) == {Function.ALIVE}  # the app never sends it
    for one in aviora.EXPECTATIONS.values():
        assert (one.ack is None) == (one.ack_sentence == "")
    assert not aviora.is_answered(aviora.ServerChange("1.2.3.4"))
    assert aviora.is_answered(aviora.LogRequest())


def test_doubts_about_a_result() -> None:
    result = text_result(wire("S12", "push_segments"))
    (warning,) = aviora.doubts(aviora.ReadoutRequest("12345678"), result)
    assert "23660088" in warning
    assert aviora.doubts(aviora.ReadoutRequest("23660088"), result) == ()
    profile = text_result(wire("S17", "push_segments"))
    assert aviora.doubts(PROFILE, profile) == ()
    later = aviora.ProfileRequest("12345678", datetime(2026, 8, 1), datetime(2026, 8, 2))  # noqa: DTZ001
    assert len(aviora.doubts(later, profile)) == 1
    unknown = text_result(readout(b"1.8.0(1)", identification=b"unknown"))
    assert "identification" in aviora.doubts(aviora.ReadoutRequest("1"), unknown)[0]
