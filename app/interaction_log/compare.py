"""What differs between two sessions, two devices or two readings; what is equal is not mentioned.

Interactions are aligned by device, command and parameters in the order in which they were asked for; those that are
left over on both sides are aligned by command alone. Rows of a readout are aligned by their OBIS code, those of a
profile by their time. Records are built pair by pair: of a session only numbers are held in memory.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from app.errors import ParameterError
from app.interaction_log import rows as r
from app.interaction_log.html_export import escaped
from app.interaction_log.reader import LogReader
from app.interaction_log.transfer import spreadsheet_cell
from app.model.interaction import Interaction
from app.model.jsonable import jsonable

MOST_PLACES: Final = 1_000  # places of one pair that are told
KEYS: Final = ("obis", "time", "name", "id")  # what tells the rows of a list apart
CSV_COLUMNS: Final = (
    "device", "other_device", "command", "occurrence", "one", "other", "what", "place", "here", "there",
)  # fmt: skip
_STYLE: Final = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "th,td{text-align:left;vertical-align:top;padding:.15rem .6rem;border-top:1px solid #8884;overflow-wrap:anywhere}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Times are never equal: only one that is longer by ``factor`` and by ``seconds`` differs."""

    seconds: float = 1.0
    factor: float = 2.0

    def differ(self, one: float, other: float) -> bool:
        short, long = sorted((one, other))
        return long - short > self.seconds and long > short * self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where two aligned interactions differ.

    ``what``: "presence", "params", "status", "reason", "attempts", "duration" or "result"; ``place`` is the path inside
    parameters or result, such as ``rows[1-0:1.8.0*255].value``. ``here`` and ``there`` are JSON-ready; None: not there.
    """

    device: str
    other_device: str
    command: str
    occurrence: int  # of the command on the device, from 1
    one: int | None  # the interactions
    other: int | None
    what: str
    place: str = ""
    here: Any = None
    there: Any = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: jsonable(getattr(self, name)) for name in CSV_COLUMNS}

    def __str__(self) -> str:
        devices = self.device if self.device == self.other_device else f"{self.device} and {self.other_device}"
        numbers = " and ".join("none" if number is None else f"#{number}" for number in (self.one, self.other))
        text = f"{self.command} number {self.occurrence} on {devices} ({numbers}): "
        if self.what == "presence":
            return text + f"only in the {'other' if self.one is None else 'first'}."
        place = f" {self.place}" if self.place else ""
        return text + f"{self.what}{place}: {said(self.here)} and {said(self.there)}."


def said(value: Any) -> str:
    """A value of ``Difference`` as it is written."""
    return "nothing" if value is None else value if isinstance(value, str) and value else r.to_json(value)


# ---------------------------------------------------------------- sessions and devices


def compare_logs(
    one: LogReader,
    other: LogReader,
    *,
    devices: tuple[str, str] | None = None,
    tolerance: Tolerance = Tolerance(),
) -> Iterator[Difference]:
    """Differences by device and command. ``devices``: that one of ``one`` with that one of ``other``, nothing else.

    Raises:
        ParameterError: a named device has nothing in its log.
        StoreError: a log cannot be read.
    """
    here = _asked(one, devices[0] if devices else None)
    there = _asked(other, devices[1] if devices else None)
    for log, found, name in ((one, here, devices and devices[0]), (other, there, devices and devices[1])):
        if name and not found:
            raise ParameterError(f"{log.path} holds no interaction of {name}.", "device")
    if devices:
        here = {("", command): asked for (_device, command), asked in here.items()}
        there = {("", command): asked for (_device, command), asked in there.items()}
    for device, command in sorted(here.keys() | there.keys()):
        mine, theirs = here.get((device, command), {}), there.get((device, command), {})
        names = devices or (device, device)
        for occurrence, (left, right) in enumerate(_aligned(mine, theirs), start=1):
            first = one.interaction(left) if left is not None else None
            second = other.interaction(right) if right is not None else None
            if first is not None and second is not None:
                yield from compare_interactions(first, second, occurrence=occurrence, tolerance=tolerance)
            else:
                yield Difference(
                    device=names[0],
                    other_device=names[1],
                    command=command,
                    occurrence=occurrence,
                    one=left,
                    other=right,
                    what="presence",
                    here=None if first is None else first.status.value,
                    there=None if second is None else second.status.value,
                )


_Asked = dict[tuple[str, str], dict[int, "array[int]"]]
"""(device, command) -> hash of the parameters -> ids in their order."""


def _asked(reader: LogReader, device: str | None) -> _Asked:
    sql = (
        "SELECT i.id, d.text, c.text, i.params FROM interaction AS i"
        " JOIN word AS d ON d.id = i.device_w JOIN word AS c ON c.id = i.command_w"
    )
    rows = reader.query(f"{sql} ORDER BY i.id") if device is None else reader.query(
        f"{sql} WHERE i.device_w = (SELECT id FROM word WHERE text = ?) ORDER BY i.id", (device,)
    )  # fmt: skip
    found: _Asked = {}
    for number, name, command, params in rows:
        key = hash(frozenset(_flat(r.json_mapping(params)))) if params else 0
        found.setdefault((name, command), {}).setdefault(key, array("q")).append(number)
    return found


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every leaf."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _flat(one, f"{path}.{name}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _flat(one, f"{path}[{index}]")
    else:
        yield path, value


def _aligned(
    mine: Mapping[int, Sequence[int]], theirs: Mapping[int, Sequence[int]]
) -> list[tuple[int | None, int | None]]:
    """Pairs of ids, in the order of the ids."""
    pairs: list[tuple[int | None, int | None]] = []
    left: list[int] = []
    right: list[int] = []
    for key in mine.keys() | theirs.keys():
        one, other = mine.get(key, ()), theirs.get(key, ())
        both = min(len(one), len(other))
        pairs += zip(one[:both], other[:both], strict=True)
        left += one[both:]
        right += other[both:]
    left.sort()
    right.sort()
    both = min(len(left), len(right))
    pairs += zip(left[:both], right[:both], strict=True)
    pairs += [(number, None) for number in left[both:]]
    pairs += [(None, number) for number in right[both:]]
    return sorted(pairs, key=lambda pair: (pair[0] if pair[0] is not None else pair[1] or 0, pair[0] is None))


# ---------------------------------------------------------------- two readings


def compare_interactions(
    one: Interaction,
    other: Interaction,
    *,
    occurrence: int = 1,
    tolerance: Tolerance = Tolerance(),
) -> list[Difference]:
    """Where two interactions differ: parameters, status, reason, attempts, duration, result; the first 1000 places."""
    found: list[Difference] = []

    def tell(what: str, here: Any, there: Any, place: str = "") -> None:
        found.append(
            Difference(
                device=one.device,
                other_device=other.device,
                command=one.command if one.command == other.command else f"{one.command} and {other.command}",
                occurrence=occurrence,
                one=one.id,
                other=other.id,
                what=what,
                place=place,
                here=here,
                there=there,
            )
        )

    for place, here, there in _places(one.params, other.params, ""):
        tell("params", here, there, place)
    if one.status is not other.status:
        tell("status", one.status.value, other.status.value)
    codes = [None if i.failure is None else i.failure.code for i in (one, other)]
    if codes[0] != codes[1]:
        tell("reason", codes[0], codes[1])
    if one.attempts != other.attempts:
        tell("attempts", one.attempts, other.attempts)
    if one.finished is not None and other.finished is not None:
        took = [round((i.finished - i.created).total_seconds(), 3) for i in (one, other) if i.finished is not None]
        if tolerance.differ(took[0], took[1]):
            tell("duration", took[0], took[1])
    for place, here, there in _places(one.result or {}, other.result or {}, ""):
        tell("result", here, there, place)
        if len(found) >= MOST_PLACES:
            tell("result", "more places differ", "only the first are told")
            break
    return found


def _places(here: Any, there: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Path and both values of every leaf that differs."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in [*here, *(name for name in there if name not in here)]:
            place = f"{path}.{name}" if path else str(name)
            yield from _places(here.get(name), there.get(name), place)
    elif isinstance(here, list) and isinstance(there, list):
        mine, theirs = _keyed(here, there)
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            yield from _places(mine.get(key), theirs.get(key), f"{path}[{key}]")
    elif here != there:
        yield path, here, there


def _keyed(here: list[Any], there: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both lists by what tells their rows apart; by place where nothing does."""
    rows = [*here, *there]
    for name in KEYS:
        if rows and all(isinstance(row, Mapping) and isinstance(row.get(name), str) and row[name] for row in rows):
            return _by(name, here), _by(name, there)
    return {str(n): row for n, row in enumerate(here)}, {str(n): row for n, row in enumerate(there)}


def _by(name: str, rows: list[Any]) -> dict[str, Any]:
    """The second row of the same key is ``key#2``."""
    found: dict[str, Any] = {}
    met: dict[str, int] = {}
    for row in rows:
        key = row[name]
        met[key] = met.get(key, 0) + 1
        found[key if met[key] == 1 else f"{key}#{met[key]}"] = row
    return found


# ---------------------------------------------------------------- export


def write_csv(out: IO[str], differences: Iterable[Difference]) -> int:
    """One a row; what a spreadsheet would run is disarmed. Returns the rows."""
    table = csv.writer(out)
    table.writerow(CSV_COLUMNS)
    count = 0
    for difference in differences:
        record = difference.to_json()
        cells = [record[name] for name in CSV_COLUMNS[:-2]]
        cells += ["" if record[name] is None else said(record[name]) for name in ("here", "there")]
        table.writerow([spreadsheet_cell(cell) for cell in cells])
        count += 1
    return count


def write_json(out: IO[str], differences: Iterable[Difference]) -> int:
    """An array with one object a line. Returns the objects."""
    count = 0
    out.write("[")
    for difference in differences:
        out.write(("," if count else "") + "\n" + r.to_json(difference.to_json()))
        count += 1
    out.write("\n]\n")
    return count


def write_html(out: IO[str], differences: Iterable[Difference], one: str, other: str) -> int:
    """A page by itself: no script, nothing that is fetched, every text escaped. Returns the rows."""
    out.write(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Meterwright comparison</title><style>{_STYLE}</style></head><body>\n<h1>Comparison</h1>\n"
        f"<p>{escaped(one)} and {escaped(other)}; only what differs.</p>\n<table><thead><tr>"
        + "".join(f"<th>{escaped(name.replace('_', ' '))}</th>" for name in CSV_COLUMNS)
        + "</tr></thead><tbody>\n"
    )
    count = 0
    for difference in differences:
        record = difference.to_json()
        cells = ("" if record[name] is None else said(record[name]) for name in CSV_COLUMNS)
        out.write("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>\n")
        count += 1
    out.write(f"</tbody></table>\n<p>{count} differences.</p>\n</body></html>\n")
    return count
