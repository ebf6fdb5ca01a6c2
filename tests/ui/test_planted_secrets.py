"""Secrets that an adapter lets slip wherever it can: none of them stands in anything that is written, in any encoding.

One session is run with five secrets of a connection (a password, a bearer token, a DLMS key, a key in a URL, one with
control characters). Its adapter repeats them in bytes, notes, answers, errors, findings, facts and the program's log;
then the log is read with its write-ahead log, shared in every form, bundled and reported on.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication

from app.composition import open_session, running
from app.config import profile
from app.crash_file import write_crash
from app.errors import LinkError, LinkReason
from app.interaction_log.pseudonyms import Redaction
from app.interaction_log.reader import LogReader
from app.interaction_log.share import Form, Samples, secrets_of, share
from app.model.command import ParamSpec, ParamType
from app.model.device import Device
from app.model.flow import FlowRun, FlowStepRun, RunStatus, StepStatus
from app.model.interaction import Direction
from app.model.reading import Finding, LinkState, Severity
from app.model.status import Status
from app.ports import (
    Accepted,
    Adapter,
    AdapterContext,
    Answer,
    Dispatch,
    Execution,
    Facts,
    Found,
    Limits,
    LinkChange,
    RetryPolicy,
    Uplink,
)
from app.program_log import ProgramLog
from app.reports import build, write_report
from app.secrets import SessionSecrets
from app.support_bundle import Part, write_bundle
from app.text_redaction import TextRedactor
from tests.pipeline.harness import BenchAdapter, BenchType, Field
from tests.unit.interaction_log.planted import SECRETS, betrayals, carriers
from ui.report_pdf import write_pdf

COMMANDS = ("READ_DIRECT", "SET_DIRECT", "SAFE_DIRECT")
said = logging.getLogger("app.adapters.leaky")


def sentences(word: str) -> list[str]:
    """The word as errors and answers of services hold it."""
    return [
        f"GET https://user:{word}@head.example/api?key={word}&page=2 was refused: {word}",
        *(data.decode("latin-1") for data in carriers(word)),
    ]


@dataclass
class LeakyType(BenchType):
    """A bench meter whose connection needs secrets."""

    def form(self) -> tuple[ParamSpec, ...]:
        return tuple(ParamSpec(name=f"secret_{n}", title=f"{n}", type=ParamType.SECRET) for n in range(len(SECRETS)))

    def create(self, context: AdapterContext) -> Adapter:
        return LeakyAdapter(context, self.field_, can_verify=False)


class LeakyAdapter(BenchAdapter):
    """Tells everybody what it was given."""

    def __init__(self, context: AdapterContext, field_: Field, *, can_verify: bool) -> None:
        super().__init__(context, field_, can_verify=can_verify)
        self._words = [context.settings[f"secret_{number}"] for number in range(len(SECRETS))]
        self._texts = [text for word in self._words for text in sentences(word)]

    async def uplinks(self) -> AsyncIterator[Uplink]:
        device, now = self._context.devices[0].id, self._context.clock.now()
        yield LinkChange(device, LinkState.ONLINE, " ".join(self._texts))
        yield Facts(device, {"firmware": "1.0", "said": self._texts})
        for word in self._words:
            for data in carriers(word):
                self._context.tap(Direction.IN, data, f"polled with {word}", link="memory")
        for text in self._texts:
            yield Found(Finding(at=now, device=device, severity=Severity.BAD, code="LEAK", text=text))
        async for uplink in super().uplinks():
            yield uplink

    async def submit(self, request: Dispatch) -> Accepted | Answer:
        for word in self._words:
            for data in carriers(word):
                request.tap(Direction.OUT, data, f"with {word}", link="memory")
            said.warning("asking with %s", sentences(word))
        match request.spec.name:
            case "SET_DIRECT":
                raise LinkError(" ".join(self._texts), LinkReason.REFUSED, may_have_arrived=False)
            case "SAFE_DIRECT":
                return Answer(execution=Execution.FAILURE, code="REFUSED", text=" ".join(self._texts))
            case _:
                result = {"value": 1, "voltage": "230.1", "said": self._texts, "deep": [{"er": self._texts}]}
                return Answer(result=result, text=" ".join(self._texts), facts={"note": self._texts})


@dataclass(frozen=True)
class Made:
    """A finished session and the folder of its files."""

    folder: Path
    secrets: SessionSecrets
    redactor: TextRedactor
    log: ProgramLog

    @property
    def workspace(self) -> Path:
        return self.folder / "bench.mwk"


@asynccontextmanager
async def session(made: Made) -> AsyncIterator[Any]:
    limits = Limits(needs_link=True, accept_timeout_s=5.0, retry=RetryPolicy(retries=0))
    kinds = {"bench": LeakyType(Field(), base=limits)}
    hide = made.redactor.add
    with open_session(made.workspace, adapter_types=kinds, secrets=made.secrets, on_secret=hide) as opened:
        settings = {f"secret_{number}": f"keyring:s{number}" for number in range(len(SECRETS))}
        opened.workbench.save_device(Device(id="m1", name="Meter 1", adapter="bench", settings=settings))
        async with running(opened.workbench):
            yield opened.workbench


async def record(made: Made) -> None:
    async with asyncio.timeout(30), session(made) as workbench:
        ends = []
        for command in COMMANDS:
            params = {} if command.startswith("READ") else {"value": 7}
            ends.append(await workbench.settled(workbench.submit("m1", command, params)))
        assert [end.status for end in ends] == [Status.SUCCESSFUL, Status.FAILED, Status.FAILED], ends
        await workbench.saved(ends[-1].id)
        wal = made.workspace.with_name("bench.mwk-wal")
        assert wal.stat().st_size, "the newest rows stand in the write-ahead log"
        shutil.copyfile(wal, made.folder / "kept.wal")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("planted")
    secrets = SessionSecrets()
    for number, word in enumerate(SECRETS):
        secrets.set(f"s{number}", word)
    redactor = TextRedactor()
    log = ProgramLog(folder, redactor)
    log.start()
    try:
        done = Made(folder, secrets, redactor, log)
        asyncio.run(record(done))
        yield done
    finally:
        log.stop()


def nothing_in(file: Path) -> None:
    assert file.stat().st_size
    assert betrayals(file, *SECRETS) == []


def test_the_log_and_its_write_ahead_log(made: Made) -> None:
    nothing_in(made.workspace)
    nothing_in(made.folder / "kept.wal")
    with closing(LogReader(made.workspace)) as reader:
        stories = [reader.story(number) for number in reader.page(limit=9).ids]
        assert len(stories) == len(COMMANDS)
        for story in stories:
            assert story is not None
            assert len(story.frames) == len(SECRETS) * len(carriers("x"))
            told = [frame for frame in story.frames if b"[redacted]" in frame.data]
            assert len(told) == len(SECRETS) * (len(carriers("x")) - 1), "all but base64 within base64"
        result = next(story.interaction.result for story in stories if story and story.interaction.result)
        assert (result["value"], result["voltage"]) == (1, "230.1")
        assert "[redacted]" in result["said"][0]


def test_the_program_log_and_a_crash_file(made: Made) -> None:
    assert "asking with" in made.log.file.read_text("utf-8")
    nothing_in(made.log.file)
    lines = [text for word in SECRETS for text in sentences(word)]
    try:
        raise LinkError(" ".join(lines), LinkReason.REFUSED, may_have_arrived=False)
    except LinkError as fault:
        crash = write_crash(made.folder, fault, made.redactor, where=lines[0], facts={"x": lines[1]}, log_lines=lines)
    assert crash.file is not None
    nothing_in(crash.file)


@pytest.mark.parametrize("form", Form)
def test_what_is_shared_and_bundled(made: Made, tmp_path: Path, form: Form) -> None:
    with closing(LogReader(made.workspace)) as reader:
        words = secrets_of(reader.snapshot().devices, made.secrets)
        assert words == set(SECRETS)
        share(reader, tmp_path / f"part.{form}", Redaction((), secrets=words), samples=Samples())
        texts = [text for word in SECRETS for text in sentences(word)]
        write_bundle(
            tmp_path / "bundle.zip", Redaction((), secrets=words), reader=reader, part=Part(form=form),
            profile=profile(made.folder / "profile").make(), log_texts=texts, about=" ".join(texts), checks=lambda: [],
        )  # fmt: skip
    nothing_in(tmp_path / f"part.{form}")
    nothing_in(tmp_path / "bundle.zip")


@pytest.mark.parametrize("suffix", [".json", ".html", ".pdf"])
def test_a_report(made: Made, tmp_path: Path, qapp: QApplication, suffix: str) -> None:
    texts = " ".join(text for word in SECRETS for text in sentences(word))
    with closing(LogReader(made.workspace)) as reader:
        rows = list(reader.page(limit=9))
        step = FlowStepRun(
            name="read", interactions=tuple(row.id for row in rows), started=rows[0].created, ended=rows[-1].finished,
            status=StepStatus.FAILED, text=texts, note=texts,
        )  # fmt: skip
        run = FlowRun(
            id=1, device="m1", flow="check", created=rows[0].created, updated=rows[-1].updated, ended=rows[-1].updated,
            status=RunStatus.FAILED, text=texts, header={"site": SECRETS[0]},
            definition={"name": "check", "title": "Check", "steps": [{"name": "read", "command": "READ_DIRECT"}]},
            steps=(step, replace(step, interactions=(rows[0].id,))),
        )  # fmt: skip
        report = build(run, reader, version="1", secrets=secrets_of(reader.snapshot().devices, made.secrets))
    file = tmp_path / f"report{suffix}"
    write_report(report, file, pdf=write_pdf)
    nothing_in(file)
