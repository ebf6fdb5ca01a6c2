"""What a person keeps of a session: recordings, which are named ranges over the log, and notes at a time.

The workspace's settings hold them as JSON, in the order in which they were made; the functions here return new rows
and change none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from app.errors import ConfigError, ParameterError
from app.lab.series import SeriesKey

RECORDINGS: Final = "recordings"  # keys in the workspace's settings
NOTES: Final = "notes"
MAX_NAME: Final = 200  # characters
MAX_TEXT: Final = 10_000
MAX_RECORDS: Final = 10_000
MAX_KEYS: Final = 1000

_LAST_US: Final = 253_402_300_799_999_999  # the end of the year 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A named range of the log; ``end_us`` is None while it runs, ``keys`` is None where it is of every curve."""

    id: int
    name: str
    start_us: int
    end_us: int | None = None
    note: str = ""
    keys: tuple[SeriesKey, ...] | None = None

    @property
    def is_running(self) -> bool:
        return self.end_us is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a person remarked on a moment; ``device`` is empty where it is of none."""

    id: int
    t_us: int
    text: str
    device: str = ""


R = TypeVar("R", bound=Recording | Note)


# ---------------------------------------------------------------- changes


def new_id(records: Sequence[Recording | Note]) -> int:
    """A number that no record has."""
    return max((record.id for record in records), default=0) + 1


def add(records: Sequence[R], record: R) -> tuple[R, ...]:
    """The records and one more.

    Raises:
        ParameterError: there are too many, the id is taken, or a field breaks a rule of the JSON form.
    """
    if len(records) >= MAX_RECORDS:
        raise ParameterError(f"There are {MAX_RECORDS} already: remove one that is no longer needed.")
    if any(one.id == record.id for one in records):
        raise ParameterError(f"The number {record.id} is taken: use another one.", "id")
    return (*records, _checked(record))


def rename(records: Sequence[R], record_id: int, name: str) -> tuple[R, ...]:
    """A recording gets another name, a note another text.

    Raises:
        ParameterError: there is no such record, or the text is empty or too long.
    """
    return _changed(records, record_id, **{"text" if isinstance(_of(records, record_id), Note) else "name": name})


def annotate(recordings: Sequence[Recording], record_id: int, note: str) -> tuple[Recording, ...]:
    """A recording gets another remark.

    Raises:
        ParameterError: there is no such recording, or the remark is too long.
    """
    return _changed(recordings, record_id, note=note)


def end(recordings: Sequence[Recording], record_id: int, t_us: int) -> tuple[Recording, ...]:
    """A running recording ends.

    Raises:
        ParameterError: there is no such recording, it has ended, or the end lies before its start.
    """
    recording = _of(recordings, record_id)
    if not recording.is_running:
        raise ParameterError(f"The recording {recording.name!r} has ended already: start another one.", "end_us")
    return _changed(recordings, record_id, end_us=t_us)


def remove(records: Sequence[R], record_id: int) -> tuple[R, ...]:
    """The records without one; what was measured stays in the log.

    Raises:
        ParameterError: there is no such record.
    """
    gone = _of(records, record_id)
    return tuple(record for record in records if record is not gone)


def _of(records: Sequence[R], record_id: int) -> R:
    for record in records:
        if record.id == record_id:
            return record
    raise ParameterError(f"There is no record with the number {record_id}: it may have been removed.", "id")


def _changed(records: Sequence[R], record_id: int, **fields: Any) -> tuple[R, ...]:
    old = _of(records, record_id)
    new = _checked(replace(old, **fields))
    return tuple(new if record is old else record for record in records)


def _checked(record: R) -> R:
    """The record, by the rules that its JSON form is read with."""
    try:
        if isinstance(record, Recording):
            _recording(_recording_json(record), "")
        else:
            _note(_note_json(record), "")
    except ConfigError as exc:
        raise ParameterError(str(exc), exc.key) from None
    return record


# ---------------------------------------------------------------- JSON


def recordings_to_json(recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """The recordings in the form of the setting ``recordings``."""
    return [_recording_json(one) for one in recordings]


def notes_to_json(notes: Sequence[Note]) -> list[dict[str, Any]]:
    """The notes in the form of the setting ``notes``."""
    return [_note_json(one) for one in notes]


def recordings_from_json(value: Any) -> tuple[Recording, ...]:
    """The recordings that the setting holds; none where there is no setting.

    Raises:
        ConfigError: names the entry and the field, and what was expected.
    """
    return _distinct([_recording(one, where) for one, where in _entries(value, RECORDINGS)], RECORDINGS)


def notes_from_json(value: Any) -> tuple[Note, ...]:
    """The notes that the setting holds; none where there is no setting.

    Raises:
        ConfigError: names the entry and the field, and what was expected.
    """
    return _distinct([_note(one, where) for one, where in _entries(value, NOTES)], NOTES)


def _recording_json(recording: Recording) -> dict[str, Any]:
    return {
        "id": recording.id,
        "name": recording.name,
        "start_us": recording.start_us,
        "end_us": recording.end_us,
        "note": recording.note,
        "keys": None if recording.keys is None else [list(key) for key in recording.keys],
    }


def _note_json(note: Note) -> dict[str, Any]:
    return {"id": note.id, "t_us": note.t_us, "text": note.text, "device": note.device}


def _recording(value: Any, where: str) -> Recording:
    entry = _Entry(value, where, {"id", "name", "start_us", "end_us", "note", "keys"})
    start_us = entry.number("start_us")
    end_us = None if entry.get("end_us") is None else entry.number("end_us")
    if end_us is not None and end_us < start_us:
        raise entry.error("end_us", "a time that is not before start_us")
    return Recording(
        id=entry.number("id", least=1),
        name=entry.text("name", MAX_NAME, is_needed=True),
        start_us=start_us,
        end_us=end_us,
        note=entry.text("note", MAX_TEXT),
        keys=_keys(entry),
    )


def _keys(entry: _Entry) -> tuple[SeriesKey, ...] | None:
    value = entry.get("keys")
    if value is None:
        return None
    expected = f"null, or at most {MAX_KEYS} rows of device, quantity and unit"
    if not isinstance(value, list) or len(value) > MAX_KEYS:
        raise entry.error("keys", expected)
    keys: list[SeriesKey] = []
    for row in value:
        if not isinstance(row, list) or len(row) != 3:
            raise entry.error("keys", expected)
        if not all(isinstance(part, str) and len(part) <= MAX_NAME for part in row):
            raise entry.error("keys", expected)
        keys.append(SeriesKey(*row))
    return tuple(keys)


def _note(value: Any, where: str) -> Note:
    entry = _Entry(value, where, {"id", "t_us", "text", "device"})
    return Note(
        id=entry.number("id", least=1),
        t_us=entry.number("t_us"),
        text=entry.text("text", MAX_TEXT, is_needed=True),
        device=entry.text("device", MAX_NAME),
    )


class _Entry:
    """One entry of a setting, and the errors that name its fields."""

    def __init__(self, value: Any, where: str, known: set[str]) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{_shown(value)} stands there", key=where, expected="an object")
        self._value = value
        self._where = where
        for name in value:
            if name not in known:
                raise ConfigError("is not known", key=self._key(str(name)[:40]), expected=", ".join(sorted(known)))

    def _key(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def get(self, name: str) -> Any:
        return self._value.get(name)

    def error(self, name: str, expected: str) -> ConfigError:
        found = f"{_shown(self._value[name])} stands there" if name in self._value else "is missing"
        return ConfigError(found, key=self._key(name), expected=expected)

    def number(self, name: str, *, least: int = -_LAST_US) -> int:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LAST_US:
            expected = "a whole number from 1 on" if least == 1 else "whole microseconds since 1970"
            raise self.error(name, expected)
        return value

    def text(self, name: str, most: int, *, is_needed: bool = False) -> str:
        value = self._value.get(name, None if is_needed else "")
        if not isinstance(value, str) or len(value) > most or (is_needed and not value.strip()):
            raise self.error(name, f"a text of {'1' if is_needed else '0'} to {most} characters")
        return value


def _entries(value: Any, name: str) -> list[tuple[Any, str]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_RECORDS:
        raise ConfigError(f"{_shown(value)} stands there", key=name, expected=f"a list of at most {MAX_RECORDS}")
    return [(one, f"{name}[{index}]") for index, one in enumerate(value)]


def _distinct(records: list[R], name: str) -> tuple[R, ...]:
    seen: set[int] = set()
    for index, record in enumerate(records):
        if record.id in seen:
            raise ConfigError(f"{record.id} is there twice", key=f"{name}[{index}].id", expected="a number of its own")
        seen.add(record.id)
    return tuple(records)


def _shown(value: Any) -> str:
    """A wrong value in an error, short."""
    if isinstance(value, (list, Mapping)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, str) and len(value) > 40:
        return f"a text of {len(value)} characters"
    return repr(value)[:40]
