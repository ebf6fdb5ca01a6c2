"""The team database without one: addresses, passwords, rows, and the id of a workspace."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigError, StoreError
from app.interaction_log.reader import LogReader
from app.interaction_log.writer import LogWriter
from app.model.interaction import Failure
from app.model.status import Event
from app.secrets import SessionSecrets
from app.team import push
from app.team.address import team_address, team_password
from app.team.database import TeamDatabase, driver
from app.team.identity import identity_of
from app.team.live import PushState, PushStatus, TeamPush, in_words
from app.team.rows import INTERACTION_COLUMNS, clean_text, interaction_row, json_cell, sample_block
from app.team.schema import START as START_MARK
from tests.unit.interaction_log.logs import START, calls, queued

ADDRESS = "postgresql://bench@db.example:6000/fleet"


# ---------------------------------------------------------------- addresses and passwords


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (ADDRESS, "bench@db.example:6000/fleet"),
        ("postgres://db.example/fleet?sslmode=verify-full", "db.example/fleet"),
        (" postgresql://a%40b@[::1]:5432/my%20db ", "a@b@[::1]:5432/my db"),
    ],
)
def test_an_address_is_named_for_people(url: str, name: str) -> None:
    address = team_address(url)
    assert (address.url, address.name) == (url.strip(), name)
    assert address.secret == f"team-database:{name}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bench:pass-4711@db/fleet",
        "postgresql://bench:@db/fleet",
        "postgresql://db/fleet?user=bench&password=pass-4711",
        "postgresql://db/fleet?%70assword=pass-4711",
        "postgresql://db/fleet?sslpassword=pass-4711",
        "postgresql://bench:12/pass-4711@db/fleet",
        "postgresql://bench:12/pass-4711@db",
    ],
)
def test_an_address_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="holds a password") as caught:
        team_address(url)
    assert "pass-4711" not in str(caught.value)
    assert "METERWRIGHT_TEAM_PASSWORD" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["", "fleet", "host=db dbname=fleet password=pass-4711", "mysql://db/fleet", "postgresql://db", "postgresql:///x",
     "postgresql://db/", "postgresql://db:port/fleet", "postgresql://db/a/b", "postgresql://db/fleet#password=pass-4711",
     "postgresql://bench:pass/4711@db/fleet", "postgresql://[db/fleet"],
)  # fmt: skip
def test_what_is_no_address_is_told_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match=r"postgresql://user@host:5432/database") as caught:
        team_address(url)
    assert "4711" not in str(caught.value)


def test_the_password_is_the_environments_then_the_keyrings() -> None:
    address, secrets = team_address(ADDRESS), SessionSecrets()
    assert team_password(address, {}, secrets) is None
    secrets.set(address.secret, "kept")
    assert team_password(address, {"METERWRIGHT_TEAM_PASSWORD": ""}, secrets) == "kept"
    assert team_password(address, {"PGPASSWORD": "general"}, secrets) == "general"
    both = {"PGPASSWORD": "general", "METERWRIGHT_TEAM_PASSWORD": "own"}
    assert team_password(address, both, secrets) == "own"


# ---------------------------------------------------------------- rows


def test_json_is_what_postgresql_takes() -> None:
    value = {"a\0": ["x\0y", math.nan, math.inf, 1.5, None, True, 10**30], "größe": {"b": "\\u0000"}}
    assert json.loads(json_cell(value)) == {
        "a␀": ["x␀y", None, None, 1.5, None, True, 10**30], "größe": {"b": "\\u0000"}
    }  # fmt: skip
    plain = {"text": "NaN and a 'quote'", "n": [1, {"x": "2.50"}]}
    assert json.loads(json_cell(plain)) == plain
    assert clean_text("a\0b") == "a␀b"


@pytest.mark.parametrize(
    "value",
    [
        {"password": "planted-word"},
        {"a": [{"API_key": "planted-word"}], "NaN": 1},
        {"note": "sent with Authorization: Bearer planted-word"},
        {"url": "http://user:planted-word@host/"},
        {"raw": json.dumps({"passphrase": "planted-word"})},
    ],
)
def test_secrets_stay_behind(value: dict[str, Any]) -> None:
    cell = json_cell(value)
    assert "planted-word" not in cell
    assert "[redacted]" in cell
    assert json.loads(cell).keys() == value.keys()


def test_a_number_under_a_secret_name_is_hidden_and_an_empty_one_is_not() -> None:
    value = {"token": 4711, "pwd": "", "n": 4711, "secret": {"is_set": True}, "jwt": True}
    assert json.loads(json_cell(value)) == {**value, "token": "[redacted]"}


def test_an_interaction_goes_without_its_token() -> None:
    failure = Failure(code="TIMEOUT", text="Nothing\0 came.", at=START, release="link")
    item = queued(7, token="12345678901234567890", params={"kWh": "2.5"}, order="A-1")
    item = item.after(Event.FAIL, START, failure=failure)
    row = dict(zip(INTERACTION_COLUMNS, interaction_row("w", item), strict=True))
    assert not any("12345678901234567890" in str(cell) for cell in row.values())
    assert (row["workspace"], row["id"], row["version"]) == ("w", 7, 2)
    assert (row["status"], row["failure_code"], row["order_ref"]) == ("FAILED", "TIMEOUT", "A-1")
    assert json.loads(row["failure"])["text"] == "Nothing␀ came."
    assert row["result"] is None
    assert json.loads(row["params"]) == {"kWh": "2.5"}


def test_samples_are_packed_as_postgresqls_binary_copy_says() -> None:
    at = (datetime(2000, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400_000_000
    block = sample_block([(3, at + 5, 1.5, None), (4, at - 1, -2.0, at)])
    assert block[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    assert block[19:].hex() == (
        "0004" "0000000400000003" "000000080000000000000005" "000000083ff8000000000000" "ffffffff"
        "0004" "0000000400000004" "00000008ffffffffffffffff" "00000008c000000000000000" "000000080000000000000000"
        "ffff"
    )  # fmt: skip
    assert sample_block([]) == block[:19] + struct.pack("!h", -1)


def test_samples_behind_marks_are_found_by_the_primary_key_in_order(tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    with LogWriter(path) as writer:
        for changes in calls(30):
            writer.put(*changes)
    with LogReader(path) as reader:
        plan = [row[3] for row in reader.query("EXPLAIN QUERY PLAN " + push._SAMPLES, ("[]", 1))]
        assert "SEARCH s USING PRIMARY KEY (series=? AND at>?)" in plan
        assert not any("TEMP B-TREE" in step for step in plan)
        mark = (START - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400_000_000
        rows = list(reader.query(push._SAMPLES, (json.dumps([[2, START_MARK], [1, mark]]), 40)))
    assert [row[0] for row in rows] == [2] * 30 + [1] * 10
    assert rows == sorted(rows, key=lambda row: (-row[0], row[1]))


# ---------------------------------------------------------------- the id of a workspace


def test_a_workspace_gets_one_id_and_keeps_it(tmp_path: Path) -> None:
    path, other = tmp_path / "w.mwk", tmp_path / "other.mwk"
    for one in (path, other):
        LogWriter(one).close()
    first = identity_of(path)
    assert len(first) == 32
    assert identity_of(path) == first != identity_of(other)
    with LogWriter(path):
        assert identity_of(path) == first, "one that is open elsewhere is only read"


def test_an_open_workspace_without_an_id_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "w.mwk"
    with LogWriter(path), pytest.raises(StoreError, match="open in another Meterwright"):
        identity_of(path)
    with pytest.raises(StoreError, match="does not exist"):
        identity_of(tmp_path / "missing.mwk")


# ---------------------------------------------------------------- the library, and what a person is told


def test_a_missing_library_is_a_sentence_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"meterwright\[timescale\]"):
        driver()
    with pytest.raises(ConfigError, match="psycopg"):
        TeamDatabase(team_address(ADDRESS), "word", "w", "w")


def test_nothing_of_the_library_is_imported_before_it_is_used() -> None:
    code = "import sys, app.composition, app.commands.logs; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_state_that_lasts_is_told_once() -> None:
    told: list[str] = []
    listen = in_words(told.append)
    for state, text in (
        (PushState.CONNECTING, ""), (PushState.UP_TO_DATE, ""), (PushState.PUSHING, ""), (PushState.UP_TO_DATE, ""),
        (PushState.WAITING, "It is away."), (PushState.CONNECTING, ""), (PushState.WAITING, "It is away."),
        (PushState.UP_TO_DATE, ""), (PushState.OFF, ""),
    ):  # fmt: skip
        listen(PushStatus(state, text))
    ready, away = "Team database: up to date.", "Team database: waiting. It is away."
    assert told == [ready, away, ready]


def test_a_push_that_was_never_started_stops_and_one_starts_once(tmp_path: Path) -> None:
    path = tmp_path / "missing.mwk"
    told: list[PushStatus] = []
    held = TeamPush(path, team_address(ADDRESS), None, "w", on_status=told.append)
    held.stop()
    assert held.status == PushStatus()
    held = TeamPush(path, team_address(ADDRESS), None, "w", on_status=told.append)
    held.start()
    with pytest.raises(RuntimeError):
        held.start()
    held.stop()
    assert told[-1].state in (PushState.FAILED, PushState.OFF)
    assert "does not exist" in told[-1].text
