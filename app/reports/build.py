"""The data of a report: one mapping from a kept run and its log, from which JSON, HTML and PDF are made.

Nothing here asks a clock or chance: the same workspace gives the same bytes of JSON. Times are ISO 8601 in UTC,
durations whole microseconds, decimals text. Every noun passes a redaction that hides secrets and prepayment tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.interaction_log import rows as r
from app.interaction_log.pseudonyms import HIDDEN, Redaction, names_a_secret
from app.interaction_log.reader import LogReader, Story
from app.model.device import Device
from app.model.flow import (
    Batch,
    Commissioning,
    CommissioningStep,
    FlowRun,
    FlowStatus,
    FlowStepRun,
    RunStatus,
    StepStatus,
)
from app.model.flow_parse import canonical
from app.model.flow_spec import Evidence
from app.model.interaction import STEP_TITLES, Frame, Interaction
from app.model.jsonable import jsonable
from app.model.records import Attachment
from app.model.status import FAILED_GROUP, Status
from app.pipeline.expectations import Sources, evidence
from app.reports.charts import charts_of

FORMAT: Final = 1
PICTURES: Final = "pictures"
"""Member of a report that holds attachments' bytes by SHA-256, for HTML and PDF. It is no part of the JSON."""

MOST_FRAMES: Final = 40  # of one interaction
MOST_OCTETS: Final = 4_096  # of one frame
MOST_SHOWN: Final = 6  # values of a commissioning's step, which names none itself

STEP_WORDS: Final[Mapping[str, str]] = {
    "PENDING": "not begun",
    "RUNNING": "under way",
    "WAITING": "waits for a person",
    "PASSED": "passed",
    "WARNED": "warning",
    "FAILED": "failed",
    "SKIPPED": "skipped",
}
RUN_WORDS: Final[Mapping[str, str]] = {
    "RUNNING": "under way",
    "WAITING": "waits for a person",
    "PAUSED": "paused",
    "PASSED": "passed",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
# What an instrument says of itself: the names of such members, without case and separators, and what they are called.
_IDENTITY: Final[Mapping[str, frozenset[str]]] = {
    "Manufacturer": frozenset({"manufacturer", "vendor"}),
    "Model": frozenset({"model", "metertype", "devicetype"}),
    "Serial number": frozenset({"serial", "serialnumber", "meterserial", "meterid", "gatewayserial"}),
    "Identification": frozenset({"identification", "logicaldevicename", "identity"}),
    "Firmware": frozenset({"firmware", "firmwareversion", "swversion", "applicationversion", "version"}),
    "Hardware": frozenset({"hardware", "hardwareversion", "hwversion"}),
}
SIGNATURES: Final = ("Commissioning engineer", "For the customer")  # lines to be signed by hand
_HEADER: Final = ("customer", "site", "engineer", "instrument")  # come first, in this order
_OF_FLOW: Final[Mapping[FlowStatus, RunStatus]] = {
    FlowStatus.SUCCESSFUL: RunStatus.PASSED,
    FlowStatus.FAILED: RunStatus.FAILED,
}


# ---------------------------------------------------------------- JSON


def json_bytes(report: Mapping[str, Any]) -> bytes:
    """The canonical JSON in UTF-8: sorted members, no spaces, floats as their shortest exact text, no pictures."""
    return _octets({name: value for name, value in report.items() if name != PICTURES})


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 of ``json_bytes``, 64 hex digits."""
    return hashlib.sha256(json_bytes(report)).hexdigest()


def _octets(value: Mapping[str, Any]) -> bytes:
    return canonical(value).encode("utf-8", "replace")  # a log somebody sent may hold half a character


# ---------------------------------------------------------------- one run, and a batch


def build(
    run: FlowRun | Commissioning, reader: LogReader, *, version: str, secrets: Iterable[str] = ()
) -> dict[str, Any]:
    """The report of one run of a flow, or of a commissioning by the six steps.

    Args:
        reader: of the workspace that holds the run's interactions; what is missing there is named as missing.
        version: of this program.
        secrets: known words to hide in every encoding (``share.secrets_of``); what stands in a secret's place is
            hidden without them.

    Raises:
        StoreError: the workspace cannot be read.
    """
    return _Builder(reader, version, secrets).report(run)


def build_batch(
    batch: Batch,
    reader: LogReader,
    *,
    version: str,
    secrets: Iterable[str] = (),
    runs: Sequence[FlowRun] | None = None,
) -> dict[str, Any]:
    """One table over all members of a batch and, of a batch of flows, the report of each.

    Args:
        runs: the members; None: those that the workspace holds.
    """
    builder = _Builder(reader, version, secrets)
    if runs is None:
        runs = [run for run in reader.flows(FlowRun, limit=None) if run.batch == batch.id] if batch.flow else []
    return builder.batch(batch, sorted(runs, key=lambda run: run.id))


class _Builder:
    """One report being made: whose log, and what is hidden."""

    def __init__(self, reader: LogReader, version: str, secrets: Iterable[str]) -> None:
        self._reader = reader
        self._version = version
        self._redaction = Redaction((), secrets=secrets)
        self._pictures: dict[str, bytes] = {}

    def report(self, run: FlowRun | Commissioning) -> dict[str, Any]:
        return {**self._run(run), PICTURES: dict(self._pictures)}

    def batch(self, batch: Batch, runs: Sequence[FlowRun]) -> dict[str, Any]:
        members = [self._run(run) for run in runs]
        batch = self._redaction.record(batch)
        rows = [_row(member) for member in members] if batch.flow else list(self._interaction_rows(batch))
        return {
            "format": FORMAT,
            "kind": "batch",
            "program": self._program(),
            "batch": {
                "id": batch.id,
                "name": batch.name,
                "flow": batch.flow,
                "command": batch.command,
                "grid": batch.grid,
                "created": _iso(batch.created),
                "completed": _iso(batch.completed_at),
                "retry_of": batch.retry_of,
                "is_stopped": batch.is_stopped,
                "total": batch.total,
            },
            "counts": {
                word: sum(row["word"] == word for row in rows) for word in sorted({row["word"] for row in rows})
            },
            "rows": rows,
            "reports": members,
            PICTURES: dict(self._pictures),
        }

    def _program(self) -> dict[str, str]:
        return {"name": "Meterwright", "version": self._version}

    # ---------------------------------------------------------------- a run

    def _run(self, given: FlowRun | Commissioning) -> dict[str, Any]:
        kind = "flow"
        registration = ""
        if isinstance(given, Commissioning):
            kind, registration = "commissioning", given.registration.value
            given = self._as_run(given)
        numbers = sorted({number for step in given.steps for number in step.interactions})
        self._redaction.hide(*map(self._reader.token_of, numbers))
        run = self._shown(given)
        stories = {number: self._story(number) for number in numbers}
        until = run.ended or run.updated
        marks = [(at, one.started) for at, one in enumerate(run.steps, start=1) if one.started is not None]
        charts, left_out = charts_of(self._reader, run.device, run.created, max(run.created, until), marks)
        for chart in charts:
            for curve in chart["curves"]:
                curve["title"] = self._redaction.text(curve["title"])
        return {
            "format": FORMAT,
            "kind": kind,
            "program": self._program(),
            "header": self._header(run),
            "device": self._device(run.device),
            "instrument": list(_identity(stories)),
            "run": {
                "id": run.id,
                "status": run.status.value,
                "word": RUN_WORDS[run.status],
                "text": run.text,
                "is_open": run.is_open,
                "created": _iso(run.created),
                "ended": _iso(run.ended),
                "updated": _iso(run.updated),
                "took_us": _microseconds(run.created, run.ended),
                "actor": run.actor,
                "attended": run.attended,
                "batch": run.batch,
                "retry_of": run.retry_of,
                "registration": registration,
            },
            "flow": _flow(run, kind, given.definition),
            "inputs": _inputs(run),
            "counts": {
                status.value: sum(one.status is status for one in run.steps)
                for status in StepStatus
                if any(one.status is status for one in run.steps)
            },
            "steps": [_step(at, one, run) for at, one in enumerate(run.steps, start=1)],
            "attachments": self._attachments(run),
            "charts": charts,
            "curves_left_out": left_out,
            "interactions": [self._interaction(number, stories[number], run) for number in numbers],
            "signatures": list(SIGNATURES),
        }

    def _shown(self, run: FlowRun) -> FlowRun:
        """The run without secrets; what names something else stays, even where a secret is a part of it."""
        steps = tuple(
            replace(self._redaction.record(step), name=step.name, attachments=step.attachments) for step in run.steps
        )
        return replace(self._redaction.record(run), device=run.device, flow=run.flow, steps=steps)

    def _header(self, run: FlowRun) -> list[dict[str, str]]:
        names = [*_HEADER, *sorted(name for name in run.header if name not in _HEADER)]
        return [
            {"name": name, "title": _title(name), "value": str(run.header[name])}
            for name in names
            if run.header.get(name)
        ]

    def _device(self, name: str) -> dict[str, Any]:
        """The device and where it stands, outermost first. One that was removed has its id only."""
        known: dict[str, Device] = {}
        wanted = name
        while wanted and wanted not in known:
            rows = list(self._reader.query(f"SELECT {r.DEVICE_COLUMNS} FROM device WHERE id = ?", (wanted,)))
            if not rows:
                break
            kept = r.device_of(rows[0])
            known[wanted] = self._redaction.record(kept)
            wanted = kept.parent
        device = known.pop(name, None)
        return {
            "id": name,
            "name": device.name if device is not None else name,
            "adapter": device.adapter if device is not None else "",
            "serial": device.serial if device is not None else "",
            "model": device.model if device is not None else "",
            "place": [one.name for one in reversed(known.values())],
        }

    def _attachments(self, run: FlowRun) -> list[dict[str, Any]]:
        found = []
        for at, step in enumerate(run.steps, start=1):
            for sha256 in step.attachments:
                kept: Attachment | None = self._reader.attachment(sha256)
                told: dict[str, Any] = {"sha256": sha256, "step": at, "is_missing": kept is None}
                if kept is not None:
                    self._pictures[sha256] = kept.data
                    told |= {
                        "name": self._redaction.text(kept.name),
                        "media_type": kept.media_type,
                        "octets": len(kept.data),
                        "at": _iso(kept.at),
                    }
                found.append(told)
        return found

    def _as_run(self, record: Commissioning) -> FlowRun:
        """A commissioning of specs/command-flow.md section 7 in the shape of a run; what it read is shown."""
        steps = []
        written = []
        for number, step in enumerate(record.steps, start=1):
            item = self._reader.interaction(step.interaction)
            result = self._redaction.value(item.result or {}) if item is not None else {}
            sources = Sources(device=Device(id=record.device, name=""), now=record.updated, result=result)
            shown = [name for name in result if re.fullmatch("[A-Za-z0-9_-]+", name)][:MOST_SHOWN]
            name = f"step-{number}"
            title = step.command.replace("_", " ").capitalize()
            written.append({"name": name, "title": title, "command": step.command})
            steps.append(
                FlowStepRun(
                    name=name,
                    status=_status_of(step),
                    interactions=(step.interaction,),
                    checks=tuple(evidence(Evidence(value=f"result.{one}"), sources) for one in shown),
                    text=step.warning or (item.failure.text if item is not None and item.failure is not None else ""),
                    started=item.created if item is not None else None,
                    ended=item.finished if item is not None else None,
                )
            )
        return FlowRun(
            id=record.id,
            device=record.device,
            flow="commissioning",
            created=record.created,
            updated=record.updated,
            ended=None if record.is_running else record.updated,
            status=_OF_FLOW.get(record.status, RunStatus.RUNNING),
            definition={"title": "Commissioning of a prepaid meter", "steps": written},
            steps=tuple(steps),
            actor=record.actor,
            retry_of=record.retry_of,
            text=record.text,
        )

    # ---------------------------------------------------------------- the log

    def _story(self, number: int) -> Story | None:
        """An interaction with all that hangs on it, without secrets."""
        story = self._reader.story(number)
        if story is None:
            return None
        shown = self._redaction.record
        return Story(
            interaction=shown(story.interaction),
            steps=tuple(map(shown, story.steps)),
            attempts=tuple(map(shown, story.attempts)),
            frames=tuple(map(shown, story.frames)),
            findings=tuple(map(shown, story.findings)),
        )

    def _interaction(self, number: int, story: Story | None, run: FlowRun) -> dict[str, Any]:
        step = next(at for at, one in enumerate(run.steps, start=1) if number in one.interactions)
        if story is None:
            return {"id": number, "step": step, "is_missing": True}
        item = story.interaction
        return {
            "id": number,
            "step": step,
            "is_missing": False,
            "device": item.device,
            "adapter": item.adapter,
            "command": item.command,
            "kind": item.kind.value,
            "origin": item.origin.value,
            "status": item.status.value,
            "word": _plain_word(item.status),
            "created": _iso(item.created),
            "finished": _iso(item.finished),
            "took_us": _microseconds(item.created, item.finished),
            "params": jsonable(item.params),
            "result": jsonable(item.result),
            "failure": None if item.failure is None else {
                "code": item.failure.code,
                "text": item.failure.text,
                "release": item.failure.release,
                "detail": item.failure.detail,
                "at": _iso(item.failure.at),
            },
            "history": [
                {
                    "at": _iso(line.at),
                    "after_us": _microseconds(item.created, line.at),
                    "step": int(line.step),
                    "title": STEP_TITLES[line.step],
                    "event": line.event,
                    "status": line.status.value if line.status is not None else "",
                    "code": line.code,
                    "text": line.text,
                    "attempt": line.attempt,
                    "actor": line.actor,
                }
                for line in story.steps
            ],
            "attempts": [
                {
                    "number": one.number,
                    "message": one.message,
                    "started": _iso(one.started),
                    "ended": _iso(one.ended),
                    "took_us": _microseconds(one.started, one.ended),
                    "end": one.end.value,
                    "code": one.code,
                    "ref": one.ref,
                    "text": one.text,
                }
                for one in story.attempts
            ],
            "findings": [
                {
                    "at": _iso(one.at), "severity": one.severity.value, "code": one.code, "text": one.text,
                    "cleared": one.cleared,
                }
                for one in story.findings
            ],
            "frames": [_frame(frame) for frame in story.frames[:MOST_FRAMES]],
            "frames_left_out": max(0, len(story.frames) - MOST_FRAMES),
        }  # fmt: skip

    def _interaction_rows(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """Of a batch of commands: its members, of each device the newest (what was called back came again)."""
        newest = "SELECT max(id) FROM interaction WHERE batch = ? GROUP BY device_w ORDER BY 1"
        members = self._reader.query(newest, (batch.id,))
        for (number,) in list(members):
            item = self._reader.interaction(number)
            if item is not None:
                failure = "" if item.failure is None else self._redaction.text(item.failure.text)
                yield {
                    "device": self._device(item.device),
                    "run": None,
                    "interaction": item.id,
                    "status": _step_status(item).value,
                    "word": _plain_word(item.status),
                    "passed": None,
                    "steps": None,
                    "reason": failure,
                    "ended": _iso(item.finished),
                    "took_us": _microseconds(item.created, item.finished),
                }


# ---------------------------------------------------------------- parts


def _row(report: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a batch's table."""
    run = report["run"]
    broken = next((step for step in report["steps"] if step["status"] == StepStatus.FAILED), None)
    reason = run["text"]
    if not reason and broken is not None and run["status"] != RunStatus.PASSED:
        reason = f"{broken['title']}: {broken['reason']}"
    return {
        "device": report["device"],
        "run": run["id"],
        "interaction": None,
        "status": run["status"],
        "word": run["word"],
        "passed": sum(step["status"] in (StepStatus.PASSED, StepStatus.WARNED) for step in report["steps"]),
        "steps": len(report["steps"]),
        "reason": reason,
        "ended": run["ended"],
        "took_us": run["took_us"],
    }


def _flow(run: FlowRun, kind: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Which flow it was; ``sha256`` is of the canonical JSON of the definition as it is ``kept``, as the flow's own.

    Of the six steps of a prepaid meter, which are no flow, texts only.
    """
    written = run.definition
    told = {"name": run.flow, "title": str(written.get("title") or run.flow), "text": str(written.get("text") or "")}
    if kind != "flow":
        return {**told, "version": None, "sha256": "", "definition": None}
    definition = jsonable(written)
    sha256 = hashlib.sha256(_octets(jsonable(kept))).hexdigest()
    return {**told, "version": definition.get("version"), "sha256": sha256, "definition": definition}


def _inputs(run: FlowRun) -> list[dict[str, Any]]:
    specs = {str(one.get("name")): one for one in _tables(run.definition.get("inputs"))}
    return [
        {
            "name": name,
            "title": str(specs.get(name, {}).get("title") or _title(name)),
            "unit": str(specs.get(name, {}).get("unit") or ""),
            "value": HIDDEN if names_a_secret(name) else jsonable(value),
        }
        for name, value in run.inputs.items()
    ]


def _step(at: int, step: FlowStepRun, run: FlowRun) -> dict[str, Any]:
    """A step with what was found. A check of which nothing is wanted is a value that the flow wants to be shown."""
    written = _written(run, step.name)
    paths = [str(one.get("value", "")) for one in _tables(written.get("expect"))]
    shown = written.get("evidence")
    listed = shown if isinstance(shown, (list, tuple)) else ()
    paths += [str(one.get("value", "") if isinstance(one, Mapping) else one) for one in listed]
    if len(paths) + 1 == len(step.checks):  # the answer itself to a question of yes or no stands before
        paths.insert(0, step.checks[0].what)
    if len(paths) != len(step.checks):
        paths = [check.what for check in step.checks]
    return {
        "number": at,
        "name": step.name,
        "title": str(written.get("title") or step.name),
        "text": str(written.get("text") or ""),
        "command": str(written.get("command") or ""),
        "question": str(written.get("ask") or ""),
        "status": step.status.value,
        "word": STEP_WORDS[step.status],
        "reason": step.text,
        "checks": [
            {
                "what": _title(path.rpartition(".")[2]) if not check.wanted and check.what == path else check.what,
                "path": path,
                "found": HIDDEN if _names_a_secret(path) else check.found,
                "wanted": check.wanted,
                "unit": check.unit,
                "is_met": check.is_met if check.wanted else None,
            }
            for check, path in zip(step.checks, paths, strict=True)
        ],
        "answer": step.answer,
        "note": step.note,
        "by": step.by,
        "attachments": list(step.attachments),
        "interactions": list(step.interactions),
        "started": _iso(step.started),
        "ended": _iso(step.ended),
        "took_us": _microseconds(step.started, step.ended),
    }


def _tables(value: Any) -> list[Mapping[str, Any]]:
    """The tables of a list of a definition; none where it is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, (list, tuple)) else []


def _written(run: FlowRun, name: str) -> Mapping[str, Any]:
    """A step as the flow's file has it; empty where it has none of that name."""
    return next((one for one in _tables(run.definition.get("steps")) if one.get("name") == name), {})


def _identity(stories: Mapping[int, Story | None]) -> Iterator[dict[str, Any]]:
    """What the instrument said of itself first, and in which interaction."""
    found: dict[str, dict[str, Any]] = {}
    for number, story in stories.items():
        result = story.interaction.result if story is not None else None
        for level in (result or {}, *(part for part in (result or {}).values() if isinstance(part, Mapping))):
            for name, value in level.items():
                plain = "".join(filter(str.isalnum, str(name).lower()))
                title = next((title for title, names in _IDENTITY.items() if plain in names), None)
                if title is not None and title not in found and isinstance(value, (str, int)) and value != "":
                    found[title] = {"title": title, "value": str(value), "interaction": number}
    return (found[title] for title in _IDENTITY if title in found)


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "at": _iso(frame.at),
        "direction": frame.direction.value,
        "link": frame.link,
        "attempt": frame.attempt,
        "note": frame.note,
        "octets": len(frame.data),
        "is_cut": frame.truncated,
        "data": frame.data[:MOST_OCTETS].hex(),
    }


def _names_a_secret(path: str) -> bool:
    return any(names_a_secret(part) for part in re.split(r'[.=\[\]"]+', path))


def _title(name: str) -> str:
    """``meter_serial`` as people write it: "Meter serial"."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _plain_word(status: Status) -> str:
    return status.value.replace("_", " ").lower()


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _microseconds(since: datetime | None, until: datetime | None) -> int | None:
    return None if since is None or until is None else (until - since) // timedelta(microseconds=1)


# ---------------------------------------------------------------- the six steps of a prepaid meter


def _status_of(step: CommissioningStep) -> StepStatus:
    if step.status is Status.SUCCESSFUL:
        return StepStatus.WARNED if step.warning else StepStatus.PASSED
    if step.status in FAILED_GROUP:
        return StepStatus.FAILED
    return StepStatus.PENDING if step.status in (Status.NEW, Status.DEFERRED) else StepStatus.RUNNING


def _step_status(item: Interaction) -> StepStatus:
    return _status_of(CommissioningStep(command=item.command, interaction=item.id, status=item.status))
