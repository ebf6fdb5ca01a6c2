"""Many commands to many meters with 5 % faults: the promises of issue 3, on the fleet of ``bench_fleet``."""

from __future__ import annotations

from collections import Counter

import pytest

from app.model.status import Status
from tests.bench.bench_fleet import INITIAL_KWH, MEMORY_BUDGET, MIX, Fault, Result, explain, run_fleet


def check(seed: int, meters: int, commands: int, *, is_short: bool = True) -> Result:
    result = run_fleet(seed, meters, commands, is_short=is_short)
    offences = result.offences()
    assert not offences, explain(seed, meters, commands, offences, is_short=is_short)
    return result


def test_every_command_ends_and_says_why() -> None:
    result = check(1, meters=60, commands=500)
    statuses = Counter(row.status for row in result.judge.rows.values())
    assert {Status.SUCCESSFUL, Status.FAILED, Status.ABORTED, Status.SUPERSEDED} <= set(statuses)
    assert statuses[Status.SUCCESSFUL] > 400
    assert {row.command for row in result.judge.rows.values()} >= set(MIX)
    assert result.fleet.struck.total() > 0.03 * result.fleet.attempts
    assert result.memory[-1] <= MEMORY_BUDGET * result.memory[0]


def test_the_judge_sees_what_is_wrong() -> None:
    """Meters that take a token twice, credit nobody reported, and rows whose history does not fit are all named."""
    result = check(3, meters=10, commands=150)
    judge, fleet = result.judge, result.fleet
    number, row = next((n, r) for n, r in judge.rows.items() if r.command == "TOP_UP" and r.status is Status.SUCCESSFUL)
    one = fleet.meter_of(row.device)
    done = next(entry for entry in one.effects if entry.via == str(number))
    one.executed.append(done)
    assert (number, f"{row.device} executed TOP_UP twice") in result.offences()
    one.executed.remove(done)
    one.executed.remove(done)
    assert (number, "it is SUCCESSFUL, and the meter never did it") in result.offences()
    one.executed.append(done)
    one.set_credit(one.credit + INITIAL_KWH)
    assert any(f"{row.device} has" in text for _number, text in result.offences())
    other = next(n for n, r in judge.rows.items() if r.status is Status.FAILED)
    judge.rows[other].status = Status.PROCESSING
    assert any(at == other and "never ended" in text for at, text in result.offences())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_commands_to_a_thousand_meters() -> None:
    result = check(7, meters=1000, commands=10_000, is_short=False)
    assert {fault.value for fault in Fault} - {Fault.NONE.value} <= set(result.fleet.struck)
    assert result.memory[-1] <= MEMORY_BUDGET * result.memory[0]
