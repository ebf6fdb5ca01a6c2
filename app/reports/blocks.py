"""A report as a row of blocks to read: what HTML and PDF both show, in the same words and order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from app.interaction_log.html_export import ROW, dump_line, printable
from app.reports.build import PICTURES, digest
from app.reports.charts import HEIGHT, WIDTH, chart_svg, number_text

SHOWN_OCTETS: Final = 256  # of one frame; the JSON form holds more
SHOWN_VALUES: Final = 24  # of one result
SHOWN_TEXT: Final = 600  # characters of a cell
SHOWN_LINES: Final = 24  # of a cell
RASTER: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
UTC_NOTE: Final = "All times are UTC."


@dataclass(frozen=True, slots=True)
class Heading:
    """``level`` 1 begins a part of the report, 2 what is inside it."""

    text: str
    level: int = 1
    mark: str = ""  # a verdict


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph; lines end where the text says so. ``tone``: "", "dimmed", or a verdict's name."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, to be seen from afar."""

    status: str
    word: str
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, two pairs side by side where there is room."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """``share`` of the table's width."""

    title: str
    share: float
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """``note`` stands below the text, dimmed; ``mark`` is a verdict whose shape and colour go with the text."""

    text: str = ""
    note: str = ""
    mark: str = ""
    is_bold: bool = False
    is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """``begins`` says that it heads the rows below it: the line above it is stronger."""

    cells: tuple[Cell, ...]
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart."""

    svg: str
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True, slots=True)
class Picture:
    data: bytes
    media_type: str
    caption: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Photos, two side by side."""

    items: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Dump:
    """Octets, ``ROW`` in a line."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signatures:
    """Lines to be signed by hand: who, then place for name, signature, and place and date."""

    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewPage:
    """What follows begins on a page of its own."""


Block: TypeAlias = Heading | Words | Verdict | Facts | Table | Drawing | Pictures | Dump | Signatures | NewPage


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """``subject`` says whose report it is, on every page; ``sha256`` is of the report's JSON."""

    title: str
    subject: str
    program: str
    sha256: str
    file_name: str  # of the JSON that goes with it
    blocks: tuple[Block, ...]


def document(report: Mapping[str, Any]) -> Document:
    """What ``build`` or ``build_batch`` made, to be shown."""
    program = f"{report['program']['name']} {report['program']['version']}"
    sha256 = digest(report)
    if report["kind"] == "batch":
        batch = report["batch"]
        title = "Batch report"
        subject = batch["name"] or f"Batch {batch['id']}"
        name = f"batch-{batch['id']}.json"
        blocks = [*_batch(report, _check(sha256, name))]
    else:
        title = "Commissioning report"
        subject = f"{report['device']['name']}, {report['flow']['title']}"
        name = f"report-{report['run']['id']}.json"
        blocks = [*_front(report), *_sign(report), *_check(sha256, name), *_measured(report), *_log(report)]
    return Document(
        title=title,
        subject=printable(subject),
        program=printable(program),
        sha256=sha256,
        file_name=name,
        blocks=tuple(blocks),
    )


# ---------------------------------------------------------------- the first pages


def _front(report: Mapping[str, Any]) -> Iterator[Block]:
    run, device, flow = report["run"], report["device"], report["flow"]
    yield Verdict(run["status"], run["word"], _summary(report))
    if run["text"] and run["status"] != "PASSED":  # then it says what the summary says
        yield Words(_cut(run["text"]), "FAILED" if run["status"] == "FAILED" else "")
    if run["is_open"]:
        yield Words("Preliminary: the run has not ended. Make the report again when it has.", "WARNED")
    rows = [(one["title"], one["value"]) for one in report["header"]]
    rows += [
        ("Device", device["name"] if device["name"] == device["id"] else f"{device['name']} ({device['id']})"),
        ("Place", " / ".join(device["place"])),
        ("Model", device["model"]),
        ("Serial number", device["serial"]),
        ("Connected by", device["adapter"]),
        ("Began", _moment(run["created"])),
        ("Ended", _moment(run["ended"]) if run["ended"] else "not yet"),
        ("Took", _took(run["took_us"])),
        ("Started by", run["actor"] if run["attended"] else f"{run['actor']}, unattended"),
        ("Run", _run_text(run)),
        ("Registration", run["registration"].lower()),
        ("Software", f"{report['program']['name']} {report['program']['version']}"),
    ]
    yield _facts(rows)
    if report["instrument"]:
        yield Heading("What the instrument said of itself", 2)
        yield _facts([(one["title"], f"{one['value']}  (#{one['interaction']})") for one in report["instrument"]])
    yield Heading("Flow", 2)
    version = "" if flow["version"] is None else f", version {flow['version']}"
    told = [("Name", f"{flow['title']} ({flow['name']}{version})")]
    if flow["sha256"]:
        told.append(("Its SHA-256", flow["sha256"]))
    yield _facts(told)
    if flow["text"]:
        yield Words(_cut(flow["text"]), "dimmed")
    if report["inputs"]:
        yield Heading("Inputs", 2)
        yield _facts([(one["title"], _with_unit(one["value"], one["unit"])) for one in report["inputs"]])
    yield from _steps(report)
    yield from _pictures(report)


def _summary(report: Mapping[str, Any]) -> str:
    """ "9 steps: 7 passed, 1 warning, 1 skipped." """
    counts = report["counts"]
    words = {step["status"]: step["word"] for step in report["steps"]}
    told = ", ".join(f"{count} {words[status]}" for status, count in counts.items())
    number = len(report["steps"])
    return f"{number} step{'' if number == 1 else 's'}: {told}." if number else "The flow has no steps."


def _run_text(run: Mapping[str, Any]) -> str:
    text = f"number {run['id']}"
    if run["batch"] is not None:
        text += f", of batch {run['batch']}"
    if run["retry_of"] is not None:
        text += f", again after {run['retry_of']}"
    return text


_STEP_COLUMNS: Final = (
    Column("No.", 0.065, is_number=True),
    Column("Step, value", 0.305),
    Column("Found", 0.19),
    Column("Wanted", 0.20),
    Column("Verdict", 0.13),
    Column("Time", 0.11, is_number=True),
)


def _steps(report: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("Steps")
    yield Words(f"{UTC_NOTE} Numbers with # are those of the log extract.", "dimmed")
    rows: list[Row] = []
    for step in report["steps"]:
        rows += _step_rows(step)
    if rows:
        yield Table(_STEP_COLUMNS, tuple(rows))


def _step_rows(step: Mapping[str, Any]) -> Iterator[Row]:
    said = [step["reason"], f"Note: {step['note']}" if step["note"] else ""]
    if step["question"]:
        said.insert(0, step["question"])
    done = [step["command"], *(f"#{number}" for number in step["interactions"])]
    if step["by"]:
        done.append(f"by {step['by']}")
    said.append(" ".join(filter(None, done)))
    yield Row(
        (
            Cell(str(step["number"]), is_bold=True),
            Cell(_cut(step["title"]), note=_cut("\n".join(filter(None, said))), is_bold=True),
            Cell(_cut(step["answer"])),
            Cell(),
            Cell(step["word"], mark=step["status"], is_bold=True),
            Cell(_clock(step["started"]), note=_took(step["took_us"])),
        ),
        begins=True,
    )
    for check in step["checks"]:
        met = check["is_met"]
        verdict = Cell() if met is None else Cell("met" if met else "not met", mark="PASSED" if met else "FAILED")
        yield Row(
            (
                Cell(),
                Cell(_cut(check["what"])),
                Cell(_cut(check["found"])),
                Cell(_cut(check["wanted"])),
                verdict,
                Cell(),
            )
        )


def _pictures(report: Mapping[str, Any]) -> Iterator[Block]:
    """Photos as pictures, other files and what is missing by name."""
    if not report["attachments"]:
        return
    yield Heading("Photos and files")
    pictures: list[Picture] = []
    others: list[Words] = []
    for one in report["attachments"]:
        told = f"Step {one['step']}, {report['steps'][one['step'] - 1]['title']}"
        if one["is_missing"]:
            words = f"{told}: the attachment {one['sha256']} is not in this workspace."
            others.append(Words(_cut(words), "WARNED"))
            continue
        told = _cut(f"{told}: {one['name']}, {one['octets']} octets, {_moment(one['at'])}")
        data = report.get(PICTURES, {}).get(one["sha256"], b"")
        if data and one["media_type"] in RASTER:
            pictures.append(Picture(data, one["media_type"], told, one["sha256"]))
        else:
            others.append(Words(f"{told}\nSHA-256 {one['sha256']}", "dimmed"))
    if pictures:
        yield Pictures(tuple(pictures))
    yield from others


def _sign(report: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading("Signatures")
    yield Signatures(tuple(report["signatures"]))


# ---------------------------------------------------------------- what was measured


_FIGURES: Final = (
    Column("Quantity", 0.34),
    Column("Unit", 0.08),
    Column("Lowest", 0.12, is_number=True),
    Column("Mean", 0.12, is_number=True),
    Column("Highest", 0.12, is_number=True),
    Column("Last", 0.12, is_number=True),
    Column("Samples", 0.10, is_number=True),
)


def _measured(report: Mapping[str, Any]) -> Iterator[Block]:
    if not report["charts"]:
        return
    yield Heading("Measurements during the run")
    yield Words("What the device measured between beginning and end. The numbers above a chart are steps.", "dimmed")
    for chart in report["charts"]:
        yield Drawing(chart_svg(chart))
    yield Table(
        _FIGURES,
        tuple(
            Row(
                (
                    Cell(_cut(curve["title"])),
                    Cell(_cut(curve["unit"])),
                    *(Cell(number_text(curve[name])) for name in ("low", "mean", "high", "last")),
                    Cell(str(curve["samples"])),
                )
            )
            for chart in report["charts"]
            for curve in chart["curves"]
        ),
    )
    if report["curves_left_out"]:
        yield Words(f"{report['curves_left_out']} more curves are in the log and not shown here.", "dimmed")


# ---------------------------------------------------------------- the log


_OVERVIEW: Final = (
    Column("Number", 0.11, is_number=True),
    Column("Step", 0.08, is_number=True),
    Column("Command", 0.25),
    Column("Time", 0.24),
    Column("Took", 0.13, is_number=True),
    Column("Outcome", 0.19),
)
_HISTORY: Final = (
    Column("Time", 0.17),
    Column("After", 0.11, is_number=True),
    Column("Step", 0.16),
    Column("What happened", 0.42),
    Column("Status", 0.14),
)
_ATTEMPTS: Final = (
    Column("Attempt", 0.11, is_number=True),
    Column("Began", 0.17),
    Column("Took", 0.12, is_number=True),
    Column("End", 0.15),
    Column("Words", 0.45),
)


def _log(report: Mapping[str, Any]) -> Iterator[Block]:
    if not report["interactions"]:
        return
    yield NewPage()
    yield Heading("Log extract")
    yield Words(f"Every command of the run, its way through the fourteen steps, its octets. {UTC_NOTE}", "dimmed")
    yield Table(_OVERVIEW, tuple(map(_overview_row, report["interactions"])))
    for item in report["interactions"]:
        if not item["is_missing"]:
            yield from _interaction(item)


def _overview_row(item: Mapping[str, Any]) -> Row:
    if item["is_missing"]:
        return Row(
            (Cell(f"#{item['id']}"), Cell(str(item["step"])), Cell("not in this workspace"), Cell(), Cell(), Cell())
        )
    return Row(
        (
            Cell(f"#{item['id']}"),
            Cell(str(item["step"])),
            Cell(_cut(item["command"])),
            Cell(_moment(item["created"])),
            Cell(_took(item["took_us"])),
            Cell(item["word"], mark=_mark(item)),
        )
    )


def _mark(item: Mapping[str, Any]) -> str:
    if item["status"] == "SUCCESSFUL":
        return "PASSED"
    return "FAILED" if item["failure"] is not None else "RUNNING"


def _interaction(item: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading(f"#{item['id']} {_cut(item['command'])}: {item['word']}", 2, _mark(item))
    failure = item["failure"]
    if failure is not None:
        words = " ".join(filter(None, (f"{failure['code']}:", failure["text"], failure["release"], failure["detail"])))
        yield Words(_cut(words), "FAILED")
    for title, values in (("Parameters", item["params"]), ("Result", item["result"])):
        rows = list(_flat(values or {}))
        if rows:
            shown = [Row((Cell(_cut(path)), Cell(_cut(text)))) for path, text in rows[:SHOWN_VALUES]]
            yield Table((Column(title, 0.40), Column("", 0.60)), tuple(shown))
        if len(rows) > SHOWN_VALUES:
            yield Words(f"... and {len(rows) - SHOWN_VALUES} values more, in the JSON form.", "dimmed")
    if item["history"]:
        yield Table(_HISTORY, tuple(map(_history_row, item["history"])))
    if item["attempts"]:
        yield Table(
            _ATTEMPTS,
            tuple(
                Row(
                    (
                        Cell(str(one["number"])),
                        Cell(_clock(one["started"], exact=True)),
                        Cell(_took(one["took_us"])),
                        Cell(_cut(one["end"].lower())),
                        Cell(_cut(" ".join(filter(None, (one["code"], one["text"]))))),
                    )
                )
                for one in item["attempts"]
            ),
        )
    for one in item["findings"]:
        word, tone = ("cleared", "dimmed") if one["cleared"] else (one["severity"], "WARNED")
        yield Words(_cut(f"{word}, {one['code']}: {one['text']}"), tone)
    for frame in item["frames"]:
        yield _dump(frame)
    if item["frames_left_out"]:
        count = len(item["frames"]) + item["frames_left_out"]
        yield Words(f"The first {len(item['frames'])} of {count} frames are kept in this report.", "dimmed")


def _history_row(line: Mapping[str, Any]) -> Row:
    words = " ".join(filter(None, (line["event"], line["code"], line["text"])))
    if line["attempt"] is not None:
        words += f" (attempt {line['attempt']})"
    return Row(
        (
            Cell(_clock(line["at"], exact=True)),
            Cell(_took(line["after_us"])),
            Cell(f"{line['step']} {line['title']}"),
            Cell(_cut(words)),
            Cell(line["status"].replace("_", " ").lower()),
        )
    )


def _dump(frame: Mapping[str, Any]) -> Dump:
    way = "to the device" if frame["direction"] == "out" else "from the device"
    told = f"{_clock(frame['at'], exact=True)} {way}, {frame['octets']} octets on {frame['link']}"
    if frame["attempt"] is not None:
        told += f", attempt {frame['attempt']}"
    if frame["note"]:
        told += f": {frame['note']}"
    if frame["is_cut"]:
        told += " (cut when it was kept)"
    data = bytes.fromhex(frame["data"])
    shown = data[:SHOWN_OCTETS]
    lines = [dump_line(shown, at) for at in range(0, len(shown), ROW)]
    if frame["octets"] > len(shown):
        lines.append(f"... and {frame['octets'] - len(shown)} octets more")
    return Dump(_cut(told), tuple(lines))


# ---------------------------------------------------------------- a batch


_MEMBERS: Final = (
    Column("Device", 0.28),
    Column("Serial number", 0.17),
    Column("Verdict", 0.14),
    Column("Steps", 0.10, is_number=True),
    Column("Ended", 0.20),
    Column("Took", 0.11, is_number=True),
)


def _batch(report: Mapping[str, Any], check: Iterable[Block]) -> Iterator[Block]:
    batch = report["batch"]
    counts = ", ".join(f"{count} {word}" for word, count in report["counts"].items())
    number = len(report["rows"])
    is_good = bool(report["rows"]) and all(row["status"] in ("PASSED", "WARNED") for row in report["rows"])
    is_open = batch["completed"] is None
    status = "STOPPED" if batch["is_stopped"] else "RUNNING" if is_open else "PASSED" if is_good else "FAILED"
    word = {"STOPPED": "stopped", "RUNNING": "under way", "PASSED": "passed", "FAILED": "not all passed"}[status]
    yield Verdict(status, word, f"{number} of {batch['total']} devices: {counts}." if number else "It has no members.")
    yield _facts(
        [
            ("Batch", f"{batch['id']}, {batch['name']}" if batch["name"] else str(batch["id"])),
            ("Flow", batch["flow"]),
            ("Command", batch["command"]),
            ("Grid", batch["grid"]),
            ("Began", _moment(batch["created"])),
            ("Completed", _moment(batch["completed"]) if batch["completed"] else "not yet"),
            ("Again after", "" if batch["retry_of"] is None else f"batch {batch['retry_of']}"),
            ("Software", f"{report['program']['name']} {report['program']['version']}"),
        ]
    )
    yield Heading("Devices")
    yield Words(UTC_NOTE, "dimmed")
    if report["rows"]:
        yield Table(_MEMBERS, tuple(map(_member_row, report["rows"])))
    yield from check
    for member in report["reports"]:
        shown = {**member, PICTURES: report.get(PICTURES, {})}
        yield NewPage()
        yield Heading(f"{_cut(member['device']['name'])}: {_cut(member['flow']['title'])}")
        yield from _front(shown)
        yield from _sign(shown)
        yield from _measured(shown)
        yield from _log(shown)


def _member_row(row: Mapping[str, Any]) -> Row:
    number = f"#{row['interaction']}" if row["run"] is None else f"run {row['run']}"
    note = ", ".join(filter(None, (number, row["reason"])))
    return Row(
        (
            Cell(_cut(row["device"]["name"]), note=_cut(note)),
            Cell(_cut(row["device"]["serial"])),
            Cell(row["word"], mark=row["status"], is_bold=True),
            Cell("" if row["steps"] is None else f"{row['passed']} of {row['steps']}"),
            Cell(_moment(row["ended"])),
            Cell(_took(row["took_us"])),
        )
    )


def _check(sha256: str, name: str) -> Iterator[Block]:
    yield Heading("How to check this report", 2)
    yield Words(
        f"The data of this report is the JSON file {name}. Its SHA-256 is\n{sha256}\nand stands at the foot of every "
        "printed page. The PDF carries the file as an attachment; the program writes the same octets again from the "
        "workspace of the run."
    )


# ---------------------------------------------------------------- words


def _facts(rows: Iterable[tuple[str, str]]) -> Facts:
    return Facts(tuple((title, _cut(value)) for title, value in rows if value))


def _cut(text: str) -> str:
    """What of a text fits into a cell, without control characters."""
    lines = printable(text).split("\n")
    shown = "\n".join(lines[:SHOWN_LINES])
    if len(shown) > SHOWN_TEXT:
        return f"{shown[:SHOWN_TEXT]} ... ({len(text) - SHOWN_TEXT} characters more in the JSON form)"
    if len(lines) > SHOWN_LINES:
        return f"{shown}\n... ({len(lines) - SHOWN_LINES} lines more in the JSON form)"
    return shown


def _with_unit(value: Any, unit: str) -> str:
    text = _value(value)
    return f"{text} {unit}" if unit and text and not text.endswith(f" {unit}") else text


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) and value.keys() <= {"value", "unit"} and "value" in value:
        return _with_unit(value["value"], str(value.get("unit") or ""))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of every value inside a result."""
    if isinstance(value, Mapping) and value and not (value.keys() <= {"value", "unit"} and path):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(one, (Mapping, list)) for one in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{number}")
    elif value not in (None, "", {}, []):
        yield path, _value(value)


def _moment(text: str | None) -> str:
    return "" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"


def _clock(text: str | None, *, exact: bool = False) -> str:
    if text is None:
        return ""
    moment = datetime.fromisoformat(text)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}" if exact else f"{moment:%H:%M:%S}"


def _took(us: int | None) -> str:
    """ "0.214 s", "12.4 s", "3 min 20 s"."""
    if us is None:
        return ""
    sign, us = ("-", -us) if us <= -1_000 else ("", abs(us))
    if us < 10_000_000:
        return f"{sign}{us // 1_000_000}.{us % 1_000_000 // 1000:03} s"
    if us < 60_000_000:
        return f"{sign}{us / 1e6:.1f} s"
    minutes, seconds = divmod(us // 1_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes} min" if hours else f"{sign}{minutes} min {seconds} s"
