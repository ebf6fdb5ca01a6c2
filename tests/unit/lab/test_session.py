"""Recordings and notes: what may be done with them, and their form in the workspace's settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, ParameterError
from app.lab import session
from app.lab.series import SeriesKey
from app.lab.session import (
    Note,
    Recording,
    add,
    annotate,
    end,
    new_id,
    notes_from_json,
    notes_to_json,
    recordings_from_json,
    recordings_to_json,
    remove,
    rename,
)
from app.model.jsonable import jsonable

RUNNING = Recording(id=1, name="warm up", start_us=100)
ENDED = Recording(
    id=4, name="load 5 A", start_us=200, end_us=300, note="fan on", keys=(SeriesKey("m-1", "voltage", "V"),)
)
NOTE = Note(id=2, t_us=150, text="door opened", device="m-1")

moments = st.integers(-(10**15), 10**16)
texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
keys = st.builds(SeriesKey, texts, texts, texts)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[Recording, ...]:
    found = []
    for number in draw(st.lists(st.integers(1, 10**6), unique=True, max_size=6)):
        start = draw(moments)
        found.append(
            Recording(
                id=number,
                name=draw(names),
                start_us=start,
                end_us=draw(st.none() | st.integers(start, 2 * 10**16)),
                note=draw(texts),
                keys=draw(st.none() | st.lists(keys, max_size=3).map(tuple)),
            )
        )
    return tuple(found)


notes = st.lists(
    st.builds(Note, id=st.integers(1, 10**6), t_us=moments, text=names, device=texts),
    unique_by=lambda note: note.id,
    max_size=6,
).map(tuple)


# ---- JSON


def test_the_form_in_the_settings() -> None:
    running, ended = recordings_to_json([RUNNING, ENDED])
    assert running == {"id": 1, "name": "warm up", "start_us": 100, "end_us": None, "note": "", "keys": None}
    assert ended["keys"] == [["m-1", "voltage", "V"]]
    assert (ended["id"], ended["name"], ended["end_us"], ended["note"]) == (4, "load 5 A", 300, "fan on")
    assert notes_to_json([NOTE]) == [{"id": 2, "t_us": 150, "text": "door opened", "device": "m-1"}]


@given(rows=recordings())
def test_recordings_come_back_from_the_settings(rows: tuple[Recording, ...]) -> None:
    assert recordings_from_json(json.loads(json.dumps(jsonable(recordings_to_json(rows))))) == rows


@given(rows=notes)
def test_notes_come_back_from_the_settings(rows: tuple[Note, ...]) -> None:
    assert notes_from_json(json.loads(json.dumps(jsonable(notes_to_json(rows))))) == rows


def test_a_setting_that_was_never_made_is_empty_and_optional_fields_may_be_missing() -> None:
    assert recordings_from_json(None) == ()
    assert notes_from_json(None) == ()
    assert recordings_from_json([{"id": 1, "name": "warm up", "start_us": 100}]) == (RUNNING,)
    assert notes_from_json([{"id": 2, "t_us": 0, "text": "x"}]) == (Note(id=2, t_us=0, text="x"),)


GOOD: dict[str, Any] = {"id": 1, "name": "a", "start_us": 5}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "recordings: an object of 0 stands there (expected a list"),
        ("x" * 90, "recordings: a text of 90 characters stands there"),
        ([3], "recordings[0]: 3 stands there (expected an object)"),
        ([GOOD, {**GOOD, "id": 1}], "recordings[1].id: 1 is there twice"),
        ([{**GOOD, "colour": "red"}], "recordings[0].colour: is not known (expected end_us, id,"),
        ([{"id": 1, "start_us": 5}], "recordings[0].name: is missing (expected a text of 1 to 200 characters)"),
        ([{**GOOD, "name": " "}], "recordings[0].name: ' ' stands there"),
        ([{**GOOD, "name": "x" * 201}], "recordings[0].name: a text of 201 characters stands there"),
        ([{**GOOD, "id": 0}], "recordings[0].id: 0 stands there (expected a whole number from 1 on)"),
        ([{**GOOD, "id": True}], "recordings[0].id: True stands there"),
        ([{**GOOD, "start_us": 1.5}], "recordings[0].start_us: 1.5 stands there (expected whole microseconds"),
        ([{**GOOD, "start_us": 10**18}], "recordings[0].start_us"),
        ([{**GOOD, "end_us": "now"}], "recordings[0].end_us: 'now' stands there"),
        ([{**GOOD, "end_us": 4}], "recordings[0].end_us: 4 stands there (expected a time that is not before start_us)"),
        ([{**GOOD, "note": None}], "recordings[0].note: None stands there"),
        ([{**GOOD, "keys": "all"}], "recordings[0].keys: 'all' stands there (expected null, or at most 1000 rows"),
        ([{**GOOD, "keys": [["m-1", "voltage"]]}], "recordings[0].keys: a list of 1 stands there"),
        ([{**GOOD, "keys": [["m-1", "voltage", 1]]}], "recordings[0].keys"),
        ([{**GOOD, "keys": [["m-1"] * 3] * 1001}], "recordings[0].keys"),
    ],
)
def test_bad_recordings_are_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recordings_from_json(value)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"id": 1, "t_us": 0}], "notes[0].text: is missing"),
        ([{"id": 1, "t_us": None, "text": "x"}], "notes[0].t_us: None stands there"),
        ([{"id": 1, "t_us": 0, "text": "x" * 10_001}], "notes[0].text: a text of 10001 characters"),
        ([{"id": 1, "t_us": 0, "text": "x", "device": 7}], "notes[0].device: 7 stands there"),
        ([{"id": 1, "t_us": 0, "text": "x"}] * 2, "notes[1].id: 1 is there twice"),
        (7, "notes: 7 stands there"),
    ],
)
def test_bad_notes_are_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        notes_from_json(value)
    assert str(caught.value).startswith(words)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "start_us", "end_us", "keys", "t_us", "text"]), inner, max_size=7
        )
    ),
    max_leaves=12,
)


@given(value=json_values)
def test_any_other_value_is_refused_as_a_setting(value: Any) -> None:
    for read in (recordings_from_json, notes_from_json):
        try:
            found = read(value)
        except ConfigError:
            continue
        assert len(found) == len(value or [])


# ---- changes


def test_one_is_added_and_gets_a_number_of_its_own() -> None:
    rows = add(add((), RUNNING), ENDED)
    assert rows == (RUNNING, ENDED)
    assert (new_id(rows), new_id(())) == (5, 1)
    assert add((NOTE,), Note(id=3, t_us=0, text="x"))[0] is NOTE


def test_what_could_not_be_read_again_is_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="The number 1 is taken"):
        add((RUNNING,), RUNNING)
    with pytest.raises(ParameterError, match="1 to 200 characters") as caught:
        add((), Recording(id=1, name="", start_us=0))
    assert caught.value.parameter == "name"
    with pytest.raises(ParameterError, match="not before start_us"):
        add((), Recording(id=1, name="x", start_us=10, end_us=9))
    with pytest.raises(ParameterError, match="1 to 10000 characters"):
        add((), Note(id=1, t_us=0, text=" "))
    monkeypatch.setattr(session, "MAX_RECORDS", 1)
    with pytest.raises(ParameterError, match="There are 1 already"):
        add((RUNNING,), ENDED)


def test_names_texts_and_remarks_change() -> None:
    assert rename((RUNNING, ENDED), 4, "load 6 A")[1].name == "load 6 A"
    assert rename((RUNNING, ENDED), 4, "load 6 A")[0] is RUNNING
    assert rename((NOTE,), 2, "door shut") == (Note(id=2, t_us=150, text="door shut", device="m-1"),)
    assert annotate((ENDED,), 4, "")[0].note == ""
    with pytest.raises(ParameterError, match="1 to 200"):
        rename((RUNNING,), 1, "")
    with pytest.raises(ParameterError, match="no record with the number 9"):
        rename((RUNNING,), 9, "x")


def test_a_recording_ends_once_and_not_before_its_start() -> None:
    rows = end((RUNNING, ENDED), 1, 100)
    assert [row.end_us for row in rows] == [100, 300]
    assert (RUNNING.is_running, rows[0].is_running) == (True, False)
    with pytest.raises(ParameterError, match="'warm up' has ended already"):
        end(rows, 1, 200)
    with pytest.raises(ParameterError, match="not before start_us"):
        end((RUNNING,), 1, 99)
    with pytest.raises(ParameterError, match="no record with the number 7"):
        end((RUNNING,), 7, 200)


def test_one_is_removed() -> None:
    assert remove((RUNNING, ENDED), 1) == (ENDED,)
    assert remove((NOTE,), 2) == ()
    with pytest.raises(ParameterError, match="no record with the number 1"):
        remove((ENDED,), 1)


@given(rows=recordings(), name=names, t_us=moments)
def test_what_was_changed_can_be_stored(rows: tuple[Recording, ...], name: str, t_us: int) -> None:
    rows = add(rows, Recording(id=new_id(rows), name=name, start_us=t_us))
    rows = end(rename(rows, rows[-1].id, name + "!"), rows[-1].id, t_us)
    assert recordings_from_json(recordings_to_json(rows)) == rows
