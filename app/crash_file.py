"""A crash file: what went wrong in this program itself, for whoever mends it. No secret stands in it.

It holds where it happened (without the values of variables), what was open, the versions and the last lines of the
program's log; everything goes through a ``TextRedactor``. Files stand beside the program's log, only the person may
read them, and the oldest go.
"""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.text_redaction import TextRedactor

KEPT: Final = 20  # files
PATTERN: Final = "crash-*.txt"
FAULT_FILE: Final = "fault.txt"  # where the interpreter writes when it is killed by its own memory
LONGEST: Final = 256 << 10  # characters of a traceback; one of deep recursion is cut in its middle
LINES: Final = 200  # of the program's log


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """What is told of one fault. Every text is redacted."""

    summary: str  # one line: the error and its text
    text: str  # the whole report
    place: str  # the last line of this program's own files that was reached; tells faults apart
    file: Path | None  # None: it could not be written
    why_not: str = ""  # and why


def write_crash(
    folder: Path,
    fault: BaseException,
    redactor: TextRedactor,
    *,
    where: str,
    facts: Mapping[str, str],
    log_lines: Sequence[str] = (),
    now: datetime | None = None,
) -> Crash:
    """Write a crash file; what cannot be written is told all the same. Never raises.

    Args:
        where: what the program was at, e.g. "a task of the event loop".
        facts: versions and what is open, title -> text.
        log_lines: the last lines of the program's log.
    """
    at = now if now is not None else datetime.now(UTC)
    summary = redactor.redact(_one_line(fault))
    text = redactor.redact(_report(summary, fault, where, facts, log_lines, at))
    file, why_not = _write(folder, text, at)
    return Crash(summary=summary, text=text, place=place_of(fault), file=file, why_not=redactor.redact(why_not))


def write_facts() -> dict[str, str]:
    """The versions that a report begins with."""
    from app.doctor import installed_version

    return {
        "Meterwright": installed_version("meterwright") or "from source",
        "Python": sys.version.split()[0],
        "PySide6": installed_version("PySide6-Essentials") or "not installed",
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Built program": "yes" if getattr(sys, "frozen", False) else "no",
    }


def place_of(fault: BaseException) -> str:
    """Type of a fault and the innermost line of the program that raised it; for a group, of its first fault."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    frames = traceback.extract_tb(fault.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent.name != "asyncio"] or list(frames)
    last = f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else "an unknown place"
    return f"{type(fault).__name__} at {last}"


def earlier_fault(folder: Path) -> Path | None:
    """What the interpreter wrote when the program died last time, moved to a crash file; None: it did not."""
    written = folder / FAULT_FILE
    with suppress(OSError):
        if written.stat().st_size:
            stamp = datetime.fromtimestamp(written.stat().st_mtime, UTC)
            return written.replace(_free_name(folder, stamp))
        written.unlink()
    return None


def _one_line(fault: BaseException) -> str:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    text = " ".join(_text_of(fault).split())
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def _text_of(fault: BaseException) -> str:
    try:
        return str(fault)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is must not hide that there was one
        return "(its text cannot be made)"


def _report(
    summary: str, fault: BaseException, where: str, facts: Mapping[str, str], log_lines: Sequence[str], at: datetime
) -> str:
    try:
        trace = "".join(traceback.TracebackException.from_exception(fault).format())
    except Exception as exc:  # noqa: BLE001 - as above
        trace = f"The traceback cannot be made ({type(exc).__name__}). {place_of(fault)}"
    if len(trace) > LONGEST:
        trace = f"{trace[: LONGEST // 2]}\n[cut]\n{trace[-LONGEST // 2 :]}"
    head = {"Time": at.astimezone(UTC).isoformat(timespec="seconds"), "At": where, **facts}
    return "\n".join(
        (
            "Crash report of Meterwright. Passwords, keys and tokens are left out.",
            "",
            summary,
            "",
            *(f"{title}: {text}" for title, text in head.items()),
            "",
            "Where it happened",
            "",
            trace,
            "Last lines of the program's log",
            "",
            *(log_lines[-LINES:] or ("(none)",)),
            "",
        )
    )


def _write(folder: Path, text: str, at: datetime) -> tuple[Path | None, str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _free_name(folder, at)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as out:
            out.write(text)
    except OSError as exc:
        return None, f"The report could not be written to {folder} ({exc.strerror or type(exc).__name__})."
    _drop_oldest(folder.glob(PATTERN))
    return file, ""


def _free_name(folder: Path, at: datetime) -> Path:
    stem = f"crash-{at.astimezone(UTC):%Y%m%d-%H%M%S}"
    names = (folder / f"{stem}{tail}.txt" for tail in ("", *(f"-{number}" for number in range(2, 1000))))
    return next((name for name in names if not name.exists()), folder / f"{stem}-{os.getpid()}.txt")


def _drop_oldest(files: Iterable[Path]) -> None:
    for old in sorted(files, key=lambda file: file.name)[:-KEPT]:
        with suppress(OSError):
            old.unlink()
