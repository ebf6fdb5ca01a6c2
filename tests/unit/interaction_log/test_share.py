"""Parts of a log for somebody else: complete, without secrets, under pseudonyms that agree with each other."""

from __future__ import annotations

import csv
import html.parser
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.__main__ import main
from app.commands import share as verbs
from app.errors import ParameterError, StoreError
from app.interaction_log import pseudonyms, transfer
from app.interaction_log import share as sharing
from app.interaction_log.filters import parse
from app.interaction_log.pseudonyms import Kind, Redaction
from app.interaction_log.reader import LogReader, QueryCancelled
from app.interaction_log.share import Form, Samples, form_of, preview, secrets_of, share
from app.interaction_log.verify import verify
from app.interaction_log.writer import LogWriter
from app.model.interaction import HIDDEN_TOKEN
from app.model.reading import LinkState
from app.model.status import Status
from app.secrets import SessionSecrets
from tests.unit.interaction_log import logs
from tests.unit.interaction_log.logs import START
from tests.unit.interaction_log.planted import (
    ADDRESS,
    HOST,
    ORIGINALS,
    OWNER,
    SECRETS,
    SERIAL,
    SITE,
    STS_TOKEN,
    betrayals,
    plant,
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "planted.mwk"
    plant(path, 14)
    return path


@pytest.fixture
def full(planted: Path) -> Iterator[LogReader]:
    with LogReader(planted) as opened:
        yield opened


def test_the_words_are_there_before(planted: Path) -> None:
    for word in (*ORIGINALS, *SECRETS):
        assert betrayals(planted, word), word


@pytest.mark.parametrize("text", ["", "reason:REFUSED device:lem-7"])
@pytest.mark.parametrize("form", Form)
def test_nothing_planted_leaves_under_a_redaction(full: LogReader, tmp_path: Path, form: Form, text: str) -> None:
    file = tmp_path / f"out.{form}"
    where = parse(text, START) if text else None
    done = share(full, file, Redaction(secrets=SECRETS), where, samples=Samples())
    assert done.interactions == 14
    assert betrayals(file, *SECRETS, *ORIGINALS) == []
    assert {one.original for one in done.replaced} >= {SERIAL, HOST, ADDRESS}


@pytest.mark.parametrize("form", Form)
def test_secrets_stay_here_even_when_nothing_else_is_hidden(full: LogReader, tmp_path: Path, form: Form) -> None:
    file = tmp_path / f"out.{form}"
    done = share(full, file, Redaction((), secrets=SECRETS), samples=Samples())
    assert betrayals(file, *SECRETS) == []
    assert done.replaced == ()
    assert SERIAL.encode() in file.read_bytes()


def test_every_kind_alone(full: LogReader, tmp_path: Path) -> None:
    for kind, word in ((Kind.SERIALS, SERIAL), (Kind.ADDRESSES, HOST), (Kind.NAMES, OWNER), (Kind.PLACES, SITE)):
        file = tmp_path / f"{kind}.jsonl"
        share(full, file, Redaction([kind], secrets=SECRETS))
        assert betrayals(file, word) == []
        others = [other for other in (SERIAL, HOST, OWNER, SITE) if other != word]
        assert all(betrayals(file, other) for other in others)


def test_relations_survive(full: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "out.mwk"
    share(full, file, Redaction(secrets=SECRETS))
    assert verify(file) == []
    with LogReader(file) as other:
        (meter,) = [device for device in other.snapshot().devices if device.adapter == "lem-dcbm"]
        story = other.story(1)
        assert story is not None
        assert story.interaction.device == meter.id
        assert story.interaction.result is not None
        assert story.interaction.result["serial"] == meter.serial
        assert story.interaction.failure is not None
        assert meter.serial in story.interaction.failure.text
        assert meter.settings["host"] in story.interaction.failure.text
        assert meter.attributes["dev_eui"] == "00000" + meter.serial
        request = next(frame.data for frame in story.frames if b"meterId" in frame.data)
        assert f"meterId={meter.serial}".encode() in request
        packed = bytes.fromhex("0" + meter.serial)[::-1]
        assert any(frame.data[1:7] == packed for frame in story.frames)
        assert other.page(where=parse(f"text:{meter.serial}", START)).ids == list(range(1, 15))
        assert other.token_of(1) == ""


def test_preview_says_what_is_replaced(full: LogReader, tmp_path: Path) -> None:
    redaction = Redaction(secrets=SECRETS)
    told = preview(full, redaction, samples=Samples())
    done = share(full, tmp_path / "out.mwk", redaction, samples=Samples())
    shown = {(one.kind, one.original, one.pseudonym) for one in told}
    assert {(one.kind, one.original, one.pseudonym) for one in done.replaced} <= shown
    serial = next(one for one in told if one.original == SERIAL)
    assert serial.kind is Kind.SERIALS
    assert serial.count > 14
    assert serial.pseudonym.encode() in (tmp_path / "out.mwk").read_bytes()
    assert not [one for one in told if one.original in SECRETS]


def test_the_filter_in_the_head_does_not_tell(full: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    where = parse("device:lem-7 not device:other-9", START)
    share(full, file, Redaction(), where)
    head = json.loads(file.read_text().splitlines()[0])
    assert "lem-7" not in head["filter"]
    assert "other-9" not in head["filter"]
    assert head["filter"].count("name-") == 2


# ---------------------------------------------------------------- what is shared


def test_a_part_as_a_workspace(reader: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "part.mwk"
    where = parse("device:lem-1 id:50..150", START)
    wanted = reader.page(where=where, limit=500)
    done = share(reader, file, Redaction(()), where, samples=Samples(until=START + timedelta(seconds=20)))
    assert done.interactions == len(wanted) > 5
    assert verify(file) == []
    with LogReader(file) as other:
        assert other.page(limit=500).ids == wanted.ids
        for item in wanted:
            one, two = reader.story(item.id), other.story(item.id)
            assert one is not None
            assert two is not None
            assert [f.data for f in one.frames] == [f.data for f in two.frames]
            assert len(one.attempts) == len(two.attempts)
            assert one.findings == two.findings
            if item.is_settled:
                assert one.steps == two.steps
                assert one.messages == two.messages
                assert two.interaction.params == item.params
            else:
                assert two.interaction.status in (Status.ABORTED, Status.OUTCOME_UNKNOWN)
        assert [device.id for device in other.snapshot().devices] == ["site", "lem-1"]
        assert all(state.link is LinkState.OFF for state in other.snapshot().states)
        assert other.snapshot().settings == {}
        assert other.frames(limit=1000)
        assert all(frame.interaction for _n, frame in other.frames(limit=1000))
        times, _values = other.samples("lem-1", "voltage")
        assert len(times) == 19
        assert other.info().text_mark == other.info().last_id


def test_all_of_it_as_json_lines_is_what_an_export_writes(reader: LogReader, tmp_path: Path) -> None:
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    transfer.export_jsonl(reader, one, samples=True)
    share(reader, other, Redaction(()), samples=Samples())
    assert one.read_text().splitlines()[1:] == other.read_text().splitlines()[1:]


def test_csv_is_what_an_export_writes(reader: LogReader, tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    where = parse("status:FAILED", START)
    transfer.export_csv(reader, one, where)
    done = share(reader, other, Redaction(()), where)
    with other.open(newline="") as rows:
        assert done.interactions == len(list(csv.reader(rows))) - 1 > 10
    assert one.read_text() == other.read_text()


def test_tokens_never_leave(full: LogReader, tmp_path: Path) -> None:
    for form in Form:
        share(full, tmp_path / f"a.{form}", Redaction([Kind.TOKENS]))
        assert STS_TOKEN.encode() not in (tmp_path / f"a.{form}").read_bytes()
    with LogReader(tmp_path / "a.mwk") as other:
        rows = list(other.query("SELECT DISTINCT token FROM interaction"))
        assert rows == [(HIDDEN_TOKEN,)]


# ---------------------------------------------------------------- the page


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_runs_and_fetches_nothing(full: LogReader, tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    share(full, file, Redaction((), secrets=SECRETS))
    page = _Page()
    page.feed(file.read_text("utf-8"))
    assert page.open == []
    tags = {tag for tag, _attributes in page.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "a", "svg", "base", "form"}
    names = {name for _tag, attributes in page.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "style")]
    shown = "".join(page.text)
    assert "<script>alert('1')</script>" in shown  # as text, not as markup
    assert "http" not in "".join(str(attributes) for tag, attributes in page.tags if tag != "meta")
    assert "@import" not in shown
    assert "url(" not in shown
    assert shown.count("READ_STATUS") == 14
    assert "default-src 'none'" in file.read_text("utf-8")


def test_the_page_shows_control_characters(tmp_path: Path) -> None:
    path, file = tmp_path / "a.mwk", tmp_path / "a.html"
    with LogWriter(path) as writer:
        writer.put(logs.queued(1, params={"x": "a\x1b[31m\x00\u202egnp.exe"}))
    with LogReader(path) as opened:
        share(opened, file, Redaction(()))
    text = file.read_text("utf-8")
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\u202e" not in text
    assert "[U+202E]" in text


# ---------------------------------------------------------------- what may go wrong


def test_the_log_itself_and_other_workspaces_are_never_replaced(full: LogReader, planted: Path, tmp_path: Path) -> None:
    before = planted.read_bytes()
    for form in Form:
        with pytest.raises(StoreError, match="log itself"):
            share(full, planted, Redaction(()), form=form)
    other = tmp_path / "other.mwk"
    other.write_bytes(before)
    with pytest.raises(StoreError, match="exists already"):
        share(full, other, Redaction(()))
    assert planted.read_bytes() == other.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.mwk"]


@pytest.mark.parametrize("form", Form)
def test_an_export_that_is_stopped_leaves_nothing(reader: LogReader, tmp_path: Path, form: Form) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert 0 < done <= total
        if done > 400:
            raise Stopped

    with pytest.raises(Stopped):
        share(reader, tmp_path / f"out.{form}", Redaction(), on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(reader: LogReader, tmp_path: Path) -> None:
    for form in Form:
        with pytest.raises(StoreError):
            share(reader, tmp_path / "none" / f"out.{form}", Redaction(()))


def test_forms_by_name() -> None:
    assert form_of(Path("A.MWK")) is Form.MWK
    assert form_of(Path("a.htm")) is Form.HTML
    with pytest.raises(ParameterError, match="must end with"):
        form_of(Path("a.doc"))


def test_what_is_written_meanwhile_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both passes see one moment: a serial that comes between them cannot slip through."""
    path, file = tmp_path / "a.mwk", tmp_path / "b.jsonl"
    with LogWriter(path) as writer, LogReader(path) as opened:
        writer.put(logs.queued(1, params={"serial": "11112222"}))
        writer.flush()
        teach = sharing.SharingReader.teach

        def and_more(self: sharing.SharingReader, redaction: Redaction) -> None:
            teach(self, redaction)
            writer.put(logs.queued(2, params={"serial": "33334444"}))
            writer.flush()

        monkeypatch.setattr(sharing.SharingReader, "teach", and_more)
        assert share(opened, file, Redaction()).interactions == 1
        assert opened.count() == 2
    assert betrayals(file, "11112222", "33334444") == []


def test_a_file_that_must_stay_as_it_is_does(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "sent.mwk"
    path.write_bytes(planted.read_bytes())
    before = path.stat()
    said = tmp_path / "sent.jsonl"
    said.write_text("what the workspace was made of")
    with LogReader(path, untouched=True, source=said) as opened:
        for form in Form:
            share(opened, tmp_path / f"out.{form}", Redaction())
        with pytest.raises(StoreError, match="log itself"):
            share(opened, said, Redaction())
        assert opened.count() == 14
        assert opened.interaction(1) is not None
    assert (path.stat().st_mtime_ns, path.read_bytes()) == (before.st_mtime_ns, planted.read_bytes())
    left = {"sent.mwk", "sent.jsonl", *(f"out.{form}" for form in Form)}
    assert {one.name for one in tmp_path.iterdir()} == left


def test_an_interrupt_ends_it(reader: LogReader, tmp_path: Path) -> None:
    rows = LogReader.query

    def interrupted(self: LogReader, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        if " FROM frame " in sql:
            self._db.set_progress_handler(lambda: reader.interrupt() or 0, 1)  # type: ignore[func-returns-value]
        return rows(self, sql, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogReader, "query", interrupted)
        with pytest.raises(QueryCancelled):
            share(reader, tmp_path / "out.jsonl", Redaction())
    reader._db.set_progress_handler(None, 1)
    assert list(tmp_path.iterdir()) == []
    assert reader.count() == 400


def test_memory_does_not_grow_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PAGE", 10)
    monkeypatch.setattr(transfer, "PAGE", 10)
    monkeypatch.setattr(pseudonyms, "CACHED", 20)
    peaks: list[int] = []
    for count in (60, 300):
        path = tmp_path / f"{count}.mwk"
        with LogWriter(path) as writer:
            for changes in logs.calls(count):
                writer.put(*changes)
        with LogReader(path) as opened:
            tracemalloc.start()
            try:
                share(opened, tmp_path / f"{count}.jsonl", Redaction())
                share(opened, tmp_path / f"{count}.pcapng", Redaction(()))
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5, peaks


def test_secrets_of_the_keyring(full: LogReader) -> None:
    kept = SessionSecrets()
    kept.set("lem-7.password", SECRETS[0])
    kept.set("another", "not asked for")
    assert secrets_of(full.snapshot().devices, kept) == {SECRETS[0]}


# ---------------------------------------------------------------- the verbs


def run(*words: str) -> tuple[int, list[dict[str, object]], str]:
    done = CliRunner().invoke(main, [*words, "--json"])
    return done.exit_code, [json.loads(text) for text in done.stdout.splitlines()], done.stderr


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SessionSecrets()
    kept.set("lem-7.password", SECRETS[0])
    monkeypatch.setattr(verbs, "KeyringSecrets", lambda: kept)


@pytest.mark.usefixtures("keyring")
def test_share_on_the_command_line(planted: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.pcapng"
    code, (record,), _said = run("log", "share", str(file), "--workspace", str(planted), "--filter", "id:1..3")
    assert (code, record["interactions"], record["form"]) == (0, 3, "pcapng")
    assert betrayals(file, SERIAL, HOST, SECRETS[0]) == []
    plain = tmp_path / "plain.txt"
    words = ("--to", "jsonl", "--redact", "none", "--workspace", str(planted))
    code, (record,), _said = run("log", "share", str(plain), *words)
    assert (code, record["replaced"]) == (0, 0)
    assert betrayals(plain, SECRETS[0]) == []
    assert betrayals(plain, SERIAL)


@pytest.mark.usefixtures("keyring")
def test_preview_on_the_command_line(planted: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.mwk"
    words = ("--redact", "serials, names", "--preview", "--workspace", str(planted))
    code, records, _said = run("log", "share", str(file), *words)
    assert code == 0
    assert not file.exists()
    assert {record["kind"] for record in records[:-1]} == {"serials", "names"}
    assert SERIAL in {record["original"] for record in records[:-1]}


@pytest.mark.usefixtures("keyring")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("out.doc",), "must end with"),
        (("out.mwk", "--redact", "serials,shoes"), "'shoes'"),
        (("out.mwk", "--since", "yesterday"), "ISO 8601"),
        (("out.mwk", "--filter", "latency >"), ""),
    ],
)
def test_wrong_use_is_said(planted: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    name, *rest = words
    code, records, told = run("log", "share", str(tmp_path / name), *rest, "--workspace", str(planted))
    assert (code, records) == (2, [])
    assert said in told
    assert list(tmp_path.iterdir()) == []
