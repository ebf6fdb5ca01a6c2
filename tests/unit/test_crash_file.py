"""Crash files and the program's log: nothing secret in them in whatever form; bounded, private, never in the way."""

from __future__ import annotations

import base64
import json
import logging
import stat
import sys
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import program_log
from app.crash_file import FAULT_FILE, KEPT, earlier_fault, place_of, write_crash, write_facts
from app.program_log import FILE, ProgramLog
from app.text_redaction import HIDDEN, TextRedactor

PASSWORD = "Zähler/42+geheim"
TOKEN = "eyJhbGciOi.JzdWIiOiIx.c2lnbmF0dXJl"
KEY = "000102030405060708090A0B0C0D0E0FF0E1D2C3B4A59687"  # of a DLMS security context
SECRETS = (PASSWORD, TOKEN, KEY)
START = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def forms(secret: str) -> Iterator[str]:
    """The ways in which a secret gets into a text, each made by what makes it so in practice."""
    raw = secret.encode()
    octets = [raw, *([bytes.fromhex(secret)] if secret == KEY else [])]
    yield secret
    yield repr(secret)
    yield repr({"value": secret})
    yield json.dumps({"password": secret})
    yield json.dumps(secret)
    yield urllib.parse.quote(secret)
    yield urllib.parse.quote_plus(secret)
    yield f"https://user:{urllib.parse.quote(secret, safe='')}@192.0.2.1/"
    yield f"https://192.0.2.1/api?key={urllib.parse.quote(secret)}&page=2"
    yield f"Authorization: Bearer {secret}"
    for one in octets:
        yield one.hex()
        yield one.hex().upper()
        yield one.hex(" ")
        yield one.hex(":").upper()
        yield repr(one)
        yield repr(bytearray(one))
        yield str(list(one))
        yield "".join(f"\\x{byte:02x}" for byte in one)
        yield ", ".join(f"0x{byte:02X}" for byte in one)
        yield base64.b64encode(one).decode()
        yield base64.urlsafe_b64encode(one).decode()
        yield base64.b64encode(b"user:" + one).decode()


def pieces(secret: str) -> tuple[str, ...]:
    """What must not stand in a text: the secret as such and its bytes in hex and base64, also a good part of them."""
    raw = bytes.fromhex(secret) if secret == KEY else secret.encode()
    return (secret[:10], raw.hex()[:16], raw.hex().upper()[:16], raw.hex(" ")[:23], base64.b64encode(raw).decode()[:12])


def raised(text: str) -> Exception:
    try:
        try:
            raise ValueError(text)
        except ValueError as cause:
            raise RuntimeError(f"while handling {text}") from cause
    except RuntimeError as fault:
        return fault


@pytest.mark.parametrize("secret", SECRETS, ids=("password", "token", "key"))
def test_no_secret_in_any_form(secret: str, tmp_path: Path) -> None:
    for number, form in enumerate(forms(secret)):
        crash = write_crash(
            tmp_path / str(number),
            raised(form),
            TextRedactor(SECRETS),
            where=form,
            facts={"Open": form},
            log_lines=[f"sent {form}", form],
            now=START,
        )
        assert crash.file is not None
        written = crash.file.read_text("utf-8")
        for told in (written, crash.text, crash.summary, crash.place):
            for piece in pieces(secret):
                assert piece not in told, f"{form} leaves {piece}"
        assert HIDDEN in written


@pytest.mark.parametrize(
    "text",
    [
        "GET https://192.0.2.1/api?key=PLANTED99&page=2",
        "GET https://192.0.2.1/api?page=2&access_token=PLANTED99",
        "GET https://user:PLANTED99@192.0.2.1/",
        "Authorization: Bearer PLANTED99",
        "{'Authorization': 'Basic PLANTED99'}",
        '{"password": "PLANTED99"}',
        "connect(password='PLANTED99')",
        "password = PLANTED99",
        "API key: PLANTED99",
        "postgresql://bench:PLANTED99@db.example/meters",
    ],
)
def test_what_nobody_registered_is_hidden_by_its_place(text: str, tmp_path: Path) -> None:
    crash = write_crash(tmp_path, raised(text), TextRedactor(), where="the window", facts={})
    assert "PLANTED99" not in crash.text


@pytest.mark.parametrize(
    "text",
    [
        "the key 000102030405060708090a0b0c0d0e0f",
        "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        "token 1234 5678 9012 3456 7890 of meter 47003333771",
        "12345678901234567890",
    ],
)
def test_keys_and_prepaid_tokens_go_by_their_form(text: str) -> None:
    assert HIDDEN in TextRedactor().redact(text)


def test_what_is_no_secret_stays() -> None:
    text = "Meter 47003333771 at 192.0.2.7:4059 did not answer 7EA00A in 12 s, interaction 1832."
    assert TextRedactor(SECRETS).redact(text) == text


def test_a_short_secret_does_not_leave_the_rest_of_a_longer_one() -> None:
    redactor = TextRedactor(["secret", "secretly-long"])
    assert redactor.redact("it is secretly-long!") == f"it is {HIDDEN}!"


def test_the_home_folder_is_not_named() -> None:
    redactor = TextRedactor(home=Path("/srv/somebody"))
    assert redactor.redact("in /srv/somebody/bench.mwk") == "in ~/bench.mwk"
    assert TextRedactor(home=Path("/")).redact("/tmp/a") == "/tmp/a"


def test_the_report_says_what_where_and_with_what(tmp_path: Path) -> None:
    crash = write_crash(
        tmp_path, raised("the scale is 0"), TextRedactor(), where="the window", facts=write_facts(), now=START
    )
    assert crash.file == tmp_path / "crash-20260504-120000.txt"
    assert crash.summary == "RuntimeError: while handling the scale is 0"
    for part in (crash.summary, "ValueError: the scale is 0", "At: the window", "2026-05-04T12:00:00", "Python: 3."):
        assert part in crash.text
    assert "raise RuntimeError" in crash.text
    assert crash.place.startswith("RuntimeError at test_crash_file.py:")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_the_person_may_read_it(tmp_path: Path) -> None:
    crash = write_crash(tmp_path, raised("x"), TextRedactor(), where="", facts={})
    assert crash.file is not None
    assert stat.S_IMODE(crash.file.stat().st_mode) == 0o600


def test_the_oldest_go_and_two_of_one_second_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "crash-notes.md").write_text("a person's own")
    for number in range(KEPT + 5):
        at = START + timedelta(seconds=number // 2)
        write_crash(tmp_path, raised("x"), TextRedactor(), where="", facts={}, now=at)
    kept = sorted(file.name for file in tmp_path.glob("crash-*.txt"))
    assert len(kept) == KEPT
    assert kept[-1] == "crash-20260504-120012.txt"
    assert (tmp_path / "crash-notes.md").exists()


def test_a_report_that_cannot_be_written_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    crash = write_crash(tmp_path / "logs", raised("x"), TextRedactor(), where="", facts={})
    assert crash.file is None
    assert "could not be written" in crash.why_not
    assert "RuntimeError" in crash.text


def test_deep_recursion_and_errors_without_a_text_are_reported(tmp_path: Path) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def deep() -> None:
        deep()

    def mute() -> None:
        raise Mute

    for make in (deep, mute):
        try:
            make()
        except Exception as fault:  # noqa: BLE001 - any of them
            crash = write_crash(tmp_path, fault, TextRedactor(), where="", facts={})
            assert crash.file is not None
            assert len(crash.text) < 1 << 20
    group = ExceptionGroup("tasks", [raised("inner")])
    assert place_of(group).startswith("RuntimeError at")
    assert write_crash(tmp_path, group, TextRedactor(), where="", facts={}).summary.startswith("RuntimeError")


def test_what_the_interpreter_wrote_last_time_is_found_once(tmp_path: Path) -> None:
    assert earlier_fault(tmp_path) is None
    (tmp_path / FAULT_FILE).write_text("")
    assert earlier_fault(tmp_path) is None
    assert not (tmp_path / FAULT_FILE).exists()
    (tmp_path / FAULT_FILE).write_text("Fatal Python error: Segmentation fault")
    file = earlier_fault(tmp_path)
    assert file is not None
    assert file.name.startswith("crash-")
    assert "Segmentation" in file.read_text()
    assert earlier_fault(tmp_path) is None


# ---------------------------------------------------------------- the program's log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ProgramLog]:
    made = ProgramLog(tmp_path, TextRedactor(SECRETS))
    yield made
    made.stop()


def test_the_log_is_written_without_secrets(log: ProgramLog, capsys: pytest.CaptureFixture[str]) -> None:
    log.start()
    said = logging.getLogger("app.test")
    said.info("opened with %s", PASSWORD)
    said.warning("refused: Authorization: Bearer %s", TOKEN)
    said.debug("not kept")
    logging.getLogger("httpx").info("HTTP Request: GET http://192.0.2.1/")
    written = log.file.read_text("utf-8")
    assert "INFO app.test: opened with [redacted]" in written
    assert "refused" in written
    assert "not kept" not in written
    assert "httpx" not in written, "a library's every request is not kept"
    for told in (written, "".join(log.last.lines), capsys.readouterr().err):
        assert PASSWORD not in told
        assert TOKEN not in told
    assert len(log.last.lines) == 2


def test_the_log_has_a_size_and_its_parts_are_found_as_logs(
    log: ProgramLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_log, "BYTES", 2000)
    log.start()
    for number in range(400):
        logging.getLogger("app.test").info("line %s of many", number)
    files = sorted(file.name for file in tmp_path.glob("*.log"))
    assert files == ["meterwright.1.log", "meterwright.2.log", "meterwright.3.log", "meterwright.4.log", FILE]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 12_000
    assert "line 399" in log.file.read_text()


def test_stopping_leaves_logging_as_it_was(log: ProgramLog) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    log.start()
    assert root.level == logging.INFO
    log.stop()
    assert (root.level, root.handlers) == before


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    made = ProgramLog(tmp_path, TextRedactor())
    made.start()
    try:
        assert "cannot be written" in made.fault
        logging.getLogger("app.test").info("all the same")
        assert made.last.lines
    finally:
        made.stop()


def test_the_second_process_of_a_profile_leaves_the_file_alone(log: ProgramLog) -> None:
    log.start(has_file=False)
    logging.getLogger("app.test").info("here")
    assert not log.file.exists()
    assert log.last.lines
