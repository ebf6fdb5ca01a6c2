"""Reports: the same bytes for the same run, everything said, nothing given away, nothing that runs in a browser."""

from __future__ import annotations

import base64
import hashlib
import html as markup
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import ParameterError, StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.flow import FlowRun, FlowStatus, FlowStepRun, RunStatus, StepStatus
from app.model.flow_parse import sha256_of
from app.model.reading import Quantity, SampleSet
from app.reports import build, build_batch, check_form, digest, html_page, json_bytes, write_report
from app.reports.blocks import SHOWN_OCTETS, document
from app.reports.build import MOST_FRAMES, MOST_OCTETS, PICTURES
from app.reports.charts import BUCKETS, MOST_CHARTS, MOST_CURVES, chart_svg, charts_of, mark_colour, mark_svg
from tests.unit import report_runs as kept
from tests.unit.interaction_log.logs import START, queued
from tests.unit.interaction_log.planted import encodings

VOID = {"meta", "br", "img", "col"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "kept.mwk"
    kept.make_workspace(path)
    return path


@pytest.fixture(scope="module")
def reader(workspace: Path) -> Iterator[LogReader]:
    with LogReader(workspace) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(reader: LogReader) -> dict[str, Any]:
    return build(kept.make_run(), reader, version="1.2.3", secrets=[kept.SECRET])


class _Page(HTMLParser):
    """What a browser would see: tags, attributes and text; a tag that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# ---------------------------------------------------------------- JSON


def test_the_same_run_gives_the_same_bytes(workspace: Path, report: dict[str, Any], tmp_path: Path) -> None:
    again = tmp_path / "again.mwk"
    kept.make_workspace(again)
    for path in (workspace, again):
        with LogReader(path) as opened:
            made = build(kept.make_run(), opened, version="1.2.3", secrets=[kept.SECRET])
        assert json_bytes(made) == json_bytes(report)
        assert html_page(made) == html_page(report)


def test_the_json_is_canonical_and_holds_no_pictures(report: dict[str, Any]) -> None:
    data = json_bytes(report)
    told = json.loads(data)
    assert PICTURES not in told
    assert list(report[PICTURES]) == [kept.PHOTO.sha256, kept.MEMO.sha256]
    text = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert text.encode() == data
    assert digest(report) == hashlib.sha256(data).hexdigest()


def test_it_says_who_what_and_with_which_software(report: dict[str, Any]) -> None:
    assert report["program"] == {"name": "Meterwright", "version": "1.2.3"}
    assert [(one["name"], one["value"]) for one in report["header"]] == [
        ("customer", "Stadtwerke & Söhne"),
        ("site", "Charging park Nordhof"),
        ("engineer", "A. Engineer"),
        ("instrument", "Reference meter 4711-R"),
    ]
    assert report["device"]["place"] == ["Nordhof", "Row A"]
    assert {one["title"]: one["value"] for one in report["instrument"]} == {
        "Manufacturer": "LEM",
        "Serial number": kept.SERIAL,
        "Firmware": "0.1.5.0",
    }
    assert report["flow"]["sha256"] == sha256_of(kept.DEFINITION)
    assert report["flow"]["version"] == 3
    assert report["inputs"] == [{"name": "nominal", "title": "Nominal voltage", "unit": "V", "value": "400"}]


def test_steps_carry_values_limits_and_verdicts(report: dict[str, Any]) -> None:
    assert report["counts"] == {"PASSED": 3, "WARNED": 1, "FAILED": 1, "SKIPPED": 1}
    live = report["steps"][2]
    assert live["checks"] == [
        {"what": "DC voltage", "path": "result.voltage", "found": "371.2 V", "wanted": "400 V +- 2 %", "unit": "V",
         "is_met": False}
    ]  # fmt: skip
    assert (live["title"], live["word"], live["interactions"]) == ("Live values", "failed", [2, 3])
    assert live["took_us"] == 2_000_000
    shown = report["steps"][0]["checks"][2]
    assert (shown["what"], shown["found"], shown["is_met"]) == ("Time synced", "yes", None)
    wiring = report["steps"][1]
    assert wiring["attachments"] == [kept.PHOTO.sha256, kept.MEMO.sha256, "0" * 64]
    assert (wiring["answer"], wiring["by"]) == ("yes", "user")


def test_the_log_extract_has_the_way_and_the_octets(report: dict[str, Any]) -> None:
    first = report["interactions"][0]
    assert [(line["step"], line["title"]) for line in first["history"]] == [
        (2, "request"), (4, "gatekeeper"), (7, "network"), (9, "answer"), (12, "saved")
    ]  # fmt: skip
    assert [line["after_us"] for line in first["history"]] == [0, 0, 21_000, 214_000, 214_000]
    assert first["attempts"][0]["took_us"] == 193_000
    assert bytes.fromhex(first["frames"][0]["data"]).startswith(b"GET /v1/status")
    assert first["frames"][1]["octets"] > SHOWN_OCTETS
    assert report["interactions"][1]["failure"]["code"] == "TIMEOUT"
    (found,) = report["interactions"][3]["findings"]
    assert (found["text"], found["cleared"]) == ("The clock drifts.", False)


def test_what_is_missing_is_said(report: dict[str, Any]) -> None:
    assert report["interactions"][-1] == {"id": 99, "step": 5, "is_missing": True}
    assert [one["is_missing"] for one in report["attachments"]] == [False, False, True]
    page = _Page(html_page(report)).text
    assert f"the attachment {'0' * 64} is not in this workspace" in page
    assert "#99 5 not in this workspace" in page


def test_a_removed_device_is_reported_by_its_id(reader: LogReader) -> None:
    gone = build(kept.make_run(device="gone-1"), reader, version="1")
    assert gone["device"] == {"id": "gone-1", "name": "gone-1", "adapter": "", "serial": "", "model": "", "place": []}
    assert gone["charts"] == []


def test_a_run_that_goes_on_is_preliminary(reader: LogReader) -> None:
    run = kept.make_run(status=RunStatus.PAUSED, ended=None, text="")
    page = _Page(html_page(build(run, reader, version="1"))).text
    assert "PAUSED" in page
    assert "Preliminary: the run has not ended." in page


def test_no_steps_no_inputs_no_header(reader: LogReader) -> None:
    bare = FlowRun(id=1, device="lem-1", flow="empty", created=START, updated=START)
    page = _Page(html_page(build(bare, reader, version="1"))).text
    assert "The flow has no steps." in page


# ---------------------------------------------------------------- nothing is given away


@pytest.mark.parametrize("word", [kept.SECRET, kept.TOKEN])
def test_secrets_and_tokens_are_nowhere(report: dict[str, Any], word: str) -> None:
    forms = {"json": json_bytes(report), "html": html_page(report).encode()}
    frames = b"".join(bytes.fromhex(f["data"]) for one in report["interactions"] for f in one.get("frames", ()))
    forms["frames"] = frames
    found = [
        f"{name} as {encoding}"
        for name, data in forms.items()
        for encoding, spelled in encodings(word).items()
        if spelled in data
    ]
    assert found == []
    assert b"[redacted]" in forms["json"]


def test_what_stands_in_a_secrets_place_is_hidden_without_being_known(reader: LogReader) -> None:
    made = build(kept.make_run(inputs={"password": "unknown words"}), reader, version="1")
    assert made["inputs"][0]["value"] == "[redacted]"
    assert made["interactions"][0]["params"]["password"] == "[redacted]"
    assert made["steps"][0]["checks"][3]["found"] == "[redacted]"


def test_a_short_secret_damages_no_time_hash_or_frame(reader: LogReader, report: dict[str, Any]) -> None:
    short = ["2026", "4755", "4745", "0815", kept.PHOTO.sha256[:4], digest(report)[:4], "lem-1", "wiring"]
    made = build(kept.make_run(), reader, version="1", secrets=short)
    assert made["run"]["created"] == report["run"]["created"]
    assert [one["sha256"] for one in made["attachments"]] == [one["sha256"] for one in report["attachments"]]
    assert made["flow"]["sha256"] == report["flow"]["sha256"]
    assert bytes.fromhex(made["interactions"][0]["frames"][0]["data"]).startswith(b"GET /v1/status")
    assert made["device"]["serial"] == "DCBM-[redacted]-4711"
    assert len(made["charts"]) == 3
    _Page(html_page(made))


# ---------------------------------------------------------------- HTML


def test_the_page_stands_alone_and_runs_nothing(report: dict[str, Any]) -> None:
    text = html_page(report)
    page = _Page(text)
    tags = {tag for tag, _attributes in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert "@page { size: A4" in text
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert str(value).startswith("data:image/png;base64,"), tag
    assert kept.SCRIPT not in text
    assert markup.escape(kept.SCRIPT) in text


def test_the_page_shows_everything(report: dict[str, Any]) -> None:
    text = html_page(report)
    page = _Page(text)
    for step in report["steps"]:
        assert step["title"] in page.text
        assert step["word"] in page.text
    for words in ("400 V +- 2 %", "371.2 V", "Stadtwerke & Söhne", "Commissioning engineer", "0.214 s", "DC voltage"):
        assert words in page.text
    assert digest(report) in page.text
    source = next(a["src"] for tag, a in page.tags if tag == "img")
    assert source is not None
    assert base64.b64decode(source.partition(",")[2]) == kept.PHOTO.data
    assert kept.PHOTO.sha256 in page.text
    assert kept.MEMO.sha256 in page.text
    assert sum(tag == "figure" for tag, _a in page.tags) == len(report["charts"]) + 1


texts = st.text(max_size=40) | st.text("<>&\"'\x00\x1b\u202e\ud800\n ", max_size=40)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(note=texts, answer=texts, site=texts, title=texts)
def test_no_text_breaks_a_form(reader: LogReader, note: str, answer: str, site: str, title: str) -> None:
    step = FlowStepRun(name="s", status=StepStatus.PASSED, note=note, answer=answer, text=note, interactions=(1,))
    definition = {"title": title, "steps": [{"name": "s", "title": title}]}
    run = kept.make_run(steps=(step,), header={"site": site}, definition=definition, text=note)
    made = build(run, reader, version="1")
    told = json.loads(json_bytes(made))
    assert len(told["steps"]) == 1
    text = html_page(made)
    text.encode()
    tags = {tag for tag, _attributes in _Page(text).tags}
    assert "script" not in tags
    assert not {"\x00", "\x1b", "\u202e"} & set(text)


def test_a_definition_of_another_shape_is_no_obstacle(reader: LogReader) -> None:
    odd: Mapping[str, Any] = {"steps": "none", "inputs": 7, "title": ["x"], "half": float("nan")}
    made = build(kept.make_run(definition=odd), reader, version="1")
    assert made["steps"][0]["title"] == "identity"
    assert json.loads(json_bytes(made))["flow"]["definition"]["half"] is None


# ---------------------------------------------------------------- long logs


def test_many_frames_and_long_ones_are_cut_with_their_count(tmp_path: Path) -> None:
    path = tmp_path / "long.mwk"
    run = kept.make_workspace(path, samples=0)
    with LogReader(path) as opened:
        story = opened.story(4)
    assert story is not None
    long = replace(story.frames[0], data=bytes(range(256)) * 40)
    with LogWriter(path) as writer:
        writer.put(*(replace(long, at=long.at + timedelta(seconds=n)) for n in range(MOST_FRAMES + 5)))
    with LogReader(path) as opened:
        made = build(run, opened, version="1")
    item = made["interactions"][3]
    assert (len(item["frames"]), item["frames_left_out"]) == (MOST_FRAMES, 7)
    assert (item["frames"][5]["octets"], len(item["frames"][5]["data"])) == (10_240, 2 * MOST_OCTETS)
    page = _Page(html_page(made)).text
    assert f"The first {MOST_FRAMES} of {MOST_FRAMES + 7} frames are kept in this report." in page
    assert f"... and {10_240 - SHOWN_OCTETS} octets more" in page


# ---------------------------------------------------------------- charts


def test_charts_are_of_the_runs_time_and_end_at_gaps(report: dict[str, Any]) -> None:
    assert [chart["unit"] for chart in report["charts"]] == ["V", "A", "°C"]
    volts = report["charts"][0]["curves"][0]
    assert volts["samples"] == 106
    assert [len(piece["values"]) for piece in volts["pieces"]] == [80, 26]
    assert volts["pieces"][1]["offsets_us"][0] == 95_000_000
    assert volts["low"] == min(value for piece in volts["pieces"] for value in piece["values"])
    assert [curve["title"] for curve in report["charts"][2]["curves"]] == ["Temperature, plus", "Temperature, minus"]
    assert [mark["number"] for mark in report["charts"][0]["steps"]] == [1, 2, 3, 4, 5]


def test_values_are_those_of_the_log_to_the_last_bit(report: dict[str, Any], reader: LogReader) -> None:
    since, until = START, START + timedelta(seconds=80)
    _times, values = reader.samples("lem-1", "current", since, until)
    told = json.loads(json_bytes(report))["charts"][1]["curves"][0]["pieces"][0]["values"]
    assert told == values.tolist()


def test_a_long_curve_is_reduced_and_keeps_its_extremes(tmp_path: Path) -> None:
    path = tmp_path / "curve.mwk"
    count = 20_000
    rng = np.random.default_rng(7)
    values = np.round(rng.normal(230, 1, count), 3)
    values[12_345], values[777] = 400.0, 10.0
    volts = Quantity("voltage", "V")
    step = timedelta(milliseconds=10)
    with LogWriter(path) as writer:
        writer.put(
            *(SampleSet(device="m", received=START + n * step, values=((volts, Decimal(repr(float(v)))),))
              for n, v in enumerate(values))
        )  # fmt: skip
    with LogReader(path) as opened:
        charts, left_out = charts_of(opened, "m", START, START + count * step, [])
    (curve,) = charts[0]["curves"]
    (piece,) = curve["pieces"]
    assert left_out == 0
    assert curve["samples"] == count
    assert len(piece["values"]) <= 2 * BUCKETS + 2
    assert {400.0, 10.0, values[0], values[-1]} <= set(piece["values"])
    assert piece["offsets_us"] == sorted(set(piece["offsets_us"]))
    ElementTree.fromstring(chart_svg(charts[0]))


def test_more_curves_than_fit_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "many.mwk"
    title = "<b>x</b> & a title that is much too long to stand in a legend"
    names = [Quantity(f"q{n:02}", "V", title) for n in range(40)]
    with LogWriter(path) as writer:
        for second in (0, 1):
            values = tuple((name, Decimal(n)) for n, name in enumerate(names))
            writer.put(SampleSet(device="m", received=START + timedelta(seconds=second), values=values))
    with LogReader(path) as opened:
        charts, left_out = charts_of(opened, "m", START, START + timedelta(seconds=1), [(1, START)])
    assert len(charts) == MOST_CHARTS
    assert left_out == 40 - MOST_CHARTS * MOST_CURVES
    picture = ElementTree.fromstring(chart_svg(charts[0]))
    assert len(picture.findall(".//{*}polyline")) == MOST_CURVES
    assert not picture.findall(".//{*}b")


@pytest.mark.parametrize(
    ("low", "high", "span_us"),
    [(0.0, 0.0, 1), (-5.0, -5.0, 10**6), (1e-12, 2e-12, 10**9), (1e15, 1e15 + 1, 10**13), (-3e8, 4e8, 3 * 10**14)],
)
def test_any_range_can_be_drawn(low: float, high: float, span_us: int) -> None:
    curve = {
        "title": "x", "unit": "V", "samples": 2, "low": low, "high": high,
        "pieces": [{"offsets_us": [0, span_us], "values": [low, high]}],
    }  # fmt: skip
    chart = {"unit": "V", "start": START.isoformat(), "span_us": span_us, "curves": [curve], "steps": []}
    picture = ElementTree.fromstring(chart_svg(chart))
    words = [one.text for one in picture.findall(".//{*}text")]
    assert 3 <= len(words) <= 25
    (line,) = picture.findall(".//{*}polyline")
    ys = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert all(0 <= y <= 250 for y in ys)


def test_every_verdict_has_a_shape_of_its_own() -> None:
    shapes = {mark_svg(status) for status in StepStatus if status is not StepStatus.WAITING}
    assert len(shapes) == len(StepStatus) - 1
    for status in (*StepStatus, *RunStatus):
        ElementTree.fromstring(mark_svg(status))
        assert mark_colour(status).startswith("#")


# ---------------------------------------------------------------- commissionings of prepaid meters, batches


def test_a_commissioning_by_six_steps_can_be_reported(reader: LogReader) -> None:
    made = build(kept.make_commissioning(FlowStatus.FAILED), reader, version="1")
    assert made["kind"] == "commissioning"
    assert made["run"]["word"] == "failed"
    assert [(step["command"], step["status"]) for step in made["steps"]] == [
        ("CLEAR_TAMPER", "PASSED"), ("READ_VOLTAGE", "WARNED"), ("TOP_UP", "FAILED")
    ]  # fmt: skip
    assert made["steps"][1]["reason"] == "371 V is low."
    assert ("Voltage", "371.2 V") in [(check["what"], check["found"]) for check in made["steps"][1]["checks"]]
    assert made["steps"][2]["reason"] == "Meter 4711 did not answer in 12 s."
    assert "Commissioning of a prepaid meter" in _Page(html_page(made)).text


def test_a_batch_of_flows_has_one_table_and_every_report(reader: LogReader) -> None:
    runs = [kept.make_run(id=9, batch=3, status=RunStatus.PASSED, text=""), kept.make_run(batch=3)]
    made = build_batch(kept.make_batch(), reader, version="1", runs=runs)
    assert [(row["run"], row["word"], row["passed"], row["steps"]) for row in made["rows"]] == [
        (5, "failed", 4, 6), (9, "passed", 4, 6)
    ]  # fmt: skip
    assert made["counts"] == {"failed": 1, "passed": 1}
    assert [one["run"]["id"] for one in made["reports"]] == [5, 9]
    page = _Page(html_page(made)).text
    assert "2 of 2 devices: 1 failed, 1 passed." in page
    assert "NOT ALL PASSED" in page
    assert page.count("Signatures") == 2


def test_a_batch_finds_its_runs_in_the_workspace(tmp_path: Path) -> None:
    path = tmp_path / "batch.mwk"
    kept.make_workspace(path, kept.make_run(batch=3, status=RunStatus.PASSED, text=""), samples=0)
    with LogWriter(path) as writer:
        writer.put(kept.make_run(id=8, batch=4))
    with LogReader(path) as opened:
        made = build_batch(kept.make_batch(total=1), opened, version="1")
    assert [row["run"] for row in made["rows"]] == [5]
    assert document(made).title == "Batch report"


def test_a_batch_of_one_command_has_a_row_for_each_meter(tmp_path: Path) -> None:
    path = tmp_path / "command.mwk"
    with LogWriter(path) as writer:
        writer.put(*(queued(number, device=f"lem-{number}", batch=3 if number != 2 else 4) for number in (1, 2, 3)))
    with LogReader(path) as opened:
        made = build_batch(kept.make_batch(flow="", command="READ_LIVE"), opened, version="1")
    assert [(row["device"]["id"], row["interaction"], row["word"]) for row in made["rows"]] == [
        ("lem-1", 1, "queued"), ("lem-3", 3, "queued")
    ]  # fmt: skip
    assert made["reports"] == []
    assert "READ_LIVE" in _Page(html_page(made)).text


# ---------------------------------------------------------------- files


def test_the_name_says_the_form(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(report, tmp_path / "r.json")
    write_report(report, tmp_path / "r.HTML")
    assert (tmp_path / "r.json").read_bytes() == json_bytes(report)
    assert (tmp_path / "r.HTML").read_text("utf-8") == html_page(report)
    told: list[tuple[object, Path]] = []
    write_report(report, tmp_path / "r.pdf", lambda made, path: told.append((made, path)))
    assert told == [(report, tmp_path / "r.pdf")]


def test_a_pdf_without_a_window_and_other_endings_are_refused_in_words(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"a PDF needs the program with its window.*\.html or \.json"):
        write_report(report, tmp_path / "r.pdf")
    with pytest.raises(ParameterError, match=r"must end with \.pdf, \.html or \.json"):
        check_form(tmp_path / "r.docx", None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_said(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        write_report(report, tmp_path / "nowhere" / "r.json")
