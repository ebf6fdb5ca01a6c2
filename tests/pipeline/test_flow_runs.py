"""Runs of flows: what they give, whom they ask, and that nothing with an effect happens twice unasked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app.clock import SystemClock
from app.errors import LocalProtocolError, ParameterError, WorkbenchError
from app.model.command import CommandKind, CommandSpec, ParamSpec, ParamType
from app.model.device import Device
from app.model.flow import FlowRun, FlowStatus, FlowStepRun, RunStatus, StepStatus
from app.model.flow_parse import parse_flow
from app.model.flow_spec import FlowSpec
from app.model.interaction import Interaction, Origin
from app.model.records import Attachment
from app.model.status import Status
from app.workbench import MAX_ATTACHMENT, Workbench
from tests.pipeline.harness import (
    BenchType,
    Field,
    MemoryStore,
    NoSecrets,
    VirtualClock,
    VirtualLoop,
    bench,
    bench_device,
    run_virtual,
)
from tests.pipeline.token_bench import World

READ: Mapping[str, Any] = {"name": "read", "title": "Read it", "command": "READ_DIRECT"}
SET: Mapping[str, Any] = {"name": "set", "title": "Set it", "command": "SET_DIRECT", "params": {"value": 5}}
LOOK: Mapping[str, Any] = {"name": "look", "title": "Look at it", "ask": "Does it show {steps.read.result.value}?"}
P, R, W, F, S = StepStatus.PENDING, StepStatus.RUNNING, StepStatus.WAITING, StepStatus.FAILED, StepStatus.SKIPPED


def flow(*steps: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]] = (), adapter: str = "bench") -> FlowSpec:
    made = {"name": "try", "version": 1, "title": "A try", "adapters": [adapter], "steps": [dict(s) for s in steps]}
    return parse_flow({**made, "inputs": [dict(one) for one in inputs]}, "test")


@dataclass
class Bench:
    """One meter and one disk that outlive the program."""

    far: Field = field(default_factory=Field)
    store: MemoryStore = field(default_factory=MemoryStore)
    kind: BenchType | None = None
    device: Device = field(default_factory=bench_device)

    @property
    def meter(self) -> Any:
        return self.far.meter("m1")

    def live(self, script: Callable[[Stage], Awaitable[None]], *, kill_after: int | None = None) -> None:
        """One life of the program: until the script ends, or until it is killed at a store call."""
        store = self.store
        store.dead = False
        store.kill_after = store.calls + kill_after if kill_after is not None else None

        async def main(loop: VirtualLoop) -> None:
            dead = asyncio.Event()
            store.on_kill = dead.set
            async with bench(loop, store, self.far, bench_type=self.kind or BenchType(self.far),
                             devices=[self.device]) as workbench:  # fmt: skip
                stage = Stage(workbench, self)
                work = loop.create_task(_run(script, stage))
                death = loop.create_task(dead.wait())
                await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
                work.cancel()
                death.cancel()
                found = await asyncio.gather(work, death, return_exceptions=True)
            if isinstance(found[0], Exception):
                raise found[0]

        run_virtual(main)
        store.volatile.clear()  # what was never committed is gone
        if kill_after is None:
            store.check()


async def _run(script: Callable[[Stage], Awaitable[None]], stage: Stage) -> None:
    await script(stage)


@dataclass
class Stage:
    """A running workbench and the run that a test looks at."""

    workbench: Workbench
    bench: Bench
    number: int = 0

    def start(self, spec: FlowSpec, inputs: Mapping[str, Any] | None = None, **more: Any) -> int:
        self.number = self.workbench.start_flow("m1", spec, inputs, **more)
        return self.number

    @property
    def run(self) -> FlowRun:
        found = self.workbench.flow_run(self.number)
        assert found is not None
        return found

    def step(self, name: str) -> FlowStepRun:
        return next(step for step in self.run.steps if step.name == name)

    def statuses(self) -> list[StepStatus]:
        return [step.status for step in self.run.steps]

    async def until(self, condition: Callable[[], bool], within_s: float = 3600.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.25)

    async def rests(self) -> FlowRun:
        """Until nothing moves by itself any more."""
        await self.until(lambda: self.run.status is not RunStatus.RUNNING)
        await asyncio.sleep(20)  # whatever wanted to follow has followed
        return self.run


def play(script: Callable[[Stage], Awaitable[None]], **more: Any) -> Bench:
    made = Bench(**more)
    made.live(script)
    return made


def off() -> Field:
    """A meter that cannot be reached."""
    far = Field()
    far.down.add("m1")
    return far


# ---------------------------------------------------------------- a whole run


def test_a_run_gives_its_commands_and_keeps_what_it_found() -> None:
    spec = flow(
        {**SET, "params": {"value": "{input.limit}"}},
        {
            **READ, "evidence": ["fact.value"],
            "expect": [{"value": "result.value", "title": "Limit", "unit": "W", "equals": "{input.limit}"}],
        },
        {**LOOK, "photo": "optional"},
        inputs=[{"name": "limit", "title": "Limit", "type": "integer", "unit": "W", "maximum": 100}],
    )  # fmt: skip
    feed: list[FlowRun] = []

    async def script(s: Stage) -> None:
        s.workbench.feed.subscribe(lambda change: feed.append(change) if isinstance(change, FlowRun) else None)
        with pytest.raises(ParameterError, match="at most 100 W"):
            s.start(spec, {"limit": 101})
        s.start(spec, {"limit": "42"}, header={"site": "North"}, actor="Ada")
        run = await s.rests()
        assert (run.status, run.text) == (RunStatus.WAITING, "Does it show 42?")
        with pytest.raises(LocalProtocolError, match="is in the flow try already"):
            s.start(spec, {"limit": 1})
        photo = s.workbench.add_attachment("display.png", "image/png", b"picture")
        s.workbench.answer_step(s.number, "look", "yes", note="clear", attachments=[photo], actor="Ada")
        assert (s.run.status, s.run.text) == (RunStatus.PASSED, "3 steps.")

    made = play(script)
    (run,) = {change.id: change for change in made.store.of(FlowRun)}.values()
    rows = made.store.latest()
    set_step, read, look = run.steps
    assert [rows[number].command for step in run.steps for number in step.interactions] == ["SET_DIRECT", "READ_DIRECT"]
    assert {(row.origin, row.priority) for row in rows.values()} == {(Origin.FLOW, 40), (Origin.FLOW, 30)}
    assert [(c.what, c.found, c.wanted, c.is_met, c.unit) for c in read.checks] == [
        ("Limit", "42 W", "42 W", True, "W"),
        ("fact.value", "42", "", True, ""),
    ]
    assert (look.answer, look.note, look.by) == ("yes", "clear", "Ada")
    (kept,) = made.store.of(Attachment)
    assert look.attachments == (kept.sha256,)
    assert kept.data == b"picture"
    assert (run.inputs, run.header, run.definition) == ({"limit": 42}, {"site": "North"}, spec.definition)
    assert (set_step.started, run.ended) == (run.created, look.ended)
    history = made.store.history(read.interactions[0])
    assert history[0].actor == f"flow {run.id}"
    assert [one.status for one in feed][-1] is RunStatus.PASSED
    first = next(index for index, change in enumerate(made.store.durable) if isinstance(change, Interaction))
    kept_with_it = next(c for c in made.store.durable[first:] if isinstance(c, FlowRun))
    assert kept_with_it.steps[0].interactions == (1,)  # in the transaction that creates it


# ---------------------------------------------------------------- what is not as expected


def test_a_read_that_is_not_as_expected_is_repeated_and_then_asks() -> None:
    spec = flow({**READ, "retries": 2, "wait": "10 s", "expect": [{"value": "result.value", "equals": 7}]})

    async def script(s: Stage) -> None:
        s.start(spec)
        run = await s.rests()
        (step,) = run.steps
        assert (run.status, step.status, len(step.interactions)) == (RunStatus.WAITING, W, 3)
        assert step.text.startswith("result.value is 0, wanted 7. Do it again")
        rows = [s.workbench.interaction(number) for number in step.interactions]
        begun = [row.created for row in rows if row is not None]
        assert [(b - a).total_seconds() for a, b in itertools.pairwise(begun)] == pytest.approx([10, 10])
        s.bench.meter.value = 7
        s.workbench.repeat_step(s.number, "read", actor="Ada")
        assert (await s.rests()).status is RunStatus.PASSED
        assert (len(s.step("read").interactions), s.step("read").by) == (4, "Ada")

    play(script)


@pytest.mark.parametrize(
    ("on_failure", "attended", "status", "steps"),
    [
        ("ask", True, RunStatus.WAITING, [W, P]),
        ("ask", False, RunStatus.FAILED, [F, P]),
        ("stop", True, RunStatus.FAILED, [F, P]),
        ("warn", True, RunStatus.PASSED, [StepStatus.WARNED, StepStatus.PASSED]),
        ("warn", False, RunStatus.PASSED, [StepStatus.WARNED, StepStatus.PASSED]),
    ],
)
def test_what_follows_a_command_that_failed(
    on_failure: str, attended: bool, status: RunStatus, steps: list[StepStatus]
) -> None:
    spec = flow({**SET, "on_failure": on_failure}, READ)

    async def script(s: Stage) -> None:
        s.bench.meter.refuse = 1
        s.start(spec, attended=attended)
        assert (await s.rests()).status is status
        assert s.statuses() == steps
        assert "refused by the meter" in s.step("set").text
        assert len(s.step("set").interactions) == 1
        if status is RunStatus.FAILED:
            assert s.run.text.startswith("Set it: ")
        if status is RunStatus.PASSED:
            assert s.run.text == "2 steps, 1 with a warning."

    assert play(script).meter.executed == []


def test_a_write_is_given_again_by_a_persons_word_only() -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.refuse = 1
        s.start(flow({**SET, "expect": [{"value": "result.value", "equals": 6}]}))
        await s.rests()
        for _time in range(2):
            s.workbench.pause_flow(s.number)
            s.workbench.resume_flow(s.number)
            await s.rests()
        assert (s.bench.meter.executed, s.run.status) == ([], RunStatus.WAITING)
        s.workbench.repeat_step(s.number, "set")
        run = await s.rests()
        assert (s.bench.meter.executed, run.status) == (["2"], RunStatus.WAITING)  # done, and not as expected
        s.workbench.stop_flow(s.number, actor="Ada")
        assert (s.run.status, s.run.text) == (RunStatus.STOPPED, "It was stopped by Ada.")
        assert "result.value is 5, wanted 6" in s.step("set").text

    play(script)


def test_what_did_not_pass_is_accepted_with_a_reason() -> None:
    spec = flow({**READ, "expect": [{"value": "result.value", "equals": 7}]}, LOOK)

    async def script(s: Stage) -> None:
        s.start(spec)
        await s.rests()
        with pytest.raises(ParameterError, match="say why"):
            s.workbench.accept_step(s.number, "read", "  ")
        s.workbench.accept_step(s.number, "read", "The old type shows 0.", actor="Ada")
        step = s.step("read")
        assert (step.status, step.by, [check.is_met for check in step.checks]) == (StepStatus.WARNED, "Ada", [False])
        assert step.text == "result.value is 0, wanted 7. Accepted: The old type shows 0."
        await s.rests()
        with pytest.raises(LocalProtocolError, match="has not been done"):
            s.workbench.accept_step(s.number, "look", "Why look?")
        s.workbench.answer_step(s.number, "look", False)
        await s.rests()
        s.workbench.accept_step(s.number, "look", "The glass is dirty.")
        assert (await s.rests()).text == "2 steps, 2 with a warning."

    play(script)


def test_a_flow_that_would_repeat_a_write_is_refused() -> None:
    async def script(s: Stage) -> None:
        with pytest.raises(LocalProtocolError, match="would repeat SET_DIRECT in its step set"):
            s.start(flow({**SET, "retries": 1}))

    play(script)


@pytest.mark.parametrize("attended", [True, False])
def test_an_outcome_that_nobody_saw_waits_for_a_person_and_is_not_sent_again(attended: bool) -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.silent = 1
        s.start(flow({**SET, "on_failure": "warn"}, READ), attended=attended)
        run = await s.rests()
        row = s.workbench.interaction(1)
        assert row is not None
        assert row.status is Status.OUTCOME_UNKNOWN
        assert run.status is (RunStatus.WAITING if attended else RunStatus.FAILED)
        assert "Whether SET_DIRECT took effect is not known" in s.step("set").text
        if attended:
            assert s.step("set").text.endswith("skip it with a reason, or stop the run.")
            with pytest.raises(ParameterError, match="say why"):
                s.workbench.skip_step(s.number, "set", " ")
            s.workbench.skip_step(s.number, "set", "The display shows 5.", actor="Ada")
            assert (await s.rests()).status is RunStatus.PASSED
            assert (s.step("set").status, s.step("set").text, s.step("set").by) == (S, "The display shows 5.", "Ada")
            assert s.run.text == "2 steps, 1 skipped."

    made = Bench()
    made.kind = BenchType(made.far, can_verify=False)
    made.live(script)
    assert [request["do"] for request in made.meter.received].count("set") == 1


@pytest.mark.parametrize("took_effect", [True, False])
def test_a_read_back_decides_what_nobody_saw(took_effect: bool) -> None:
    seen: list[str] = []

    async def script(s: Stage) -> None:
        s.workbench.feed.subscribe(lambda c: seen.append(c.text) if isinstance(c, FlowRun) else None)
        s.bench.meter.silent = 1  # it does not answer, and does it all the same
        s.bench.meter.executed += ["1"] if took_effect else []
        s.start(flow(SET, READ))
        run = await s.rests()
        assert any("it is not sent again by itself. Read it back" in text for text in seen)
        assert run.status is (RunStatus.PASSED if took_effect else RunStatus.WAITING)
        assert took_effect or "Read back: It did not take effect. Do it again, skip it with a reason" in run.text

    assert [request["do"] for request in play(script).meter.received].count("set") == 1


@pytest.mark.parametrize("took_effect", [True, False])
def test_an_unattended_run_waits_for_the_read_back_and_sends_nothing_again(took_effect: bool) -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.silent = 1
        s.bench.meter.executed += ["1"] if took_effect else []
        s.start(flow({**SET, "on_failure": "stop"}, READ), attended=False)
        run = await s.rests()
        assert run.status is (RunStatus.PASSED if took_effect else RunStatus.FAILED)
        assert took_effect or "Read back: It did not take effect." in run.text

    assert [request["do"] for request in play(script).meter.received].count("set") == 1


def test_an_answer_to_a_write_that_cannot_be_read_is_an_outcome_that_nobody_saw() -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.garble = 1
        s.start(flow({**SET, "on_failure": "warn"}))
        assert (await s.rests()).status is RunStatus.WAITING
        assert "is not JSON. Nobody saw whether it took effect." in s.run.text

    play(script)


# ---------------------------------------------------------------- a person steers


def test_a_pause_lets_the_command_end_and_begins_nothing() -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.answer_delay_s = 3.0
        s.start(flow(READ, {**READ, "name": "more"}))
        await s.until(lambda: s.bench.meter.received != [])
        s.workbench.pause_flow(s.number, actor="Ada")
        await asyncio.sleep(60)
        assert (s.run.status, s.run.text) == (RunStatus.PAUSED, "Paused by Ada.")
        assert s.statuses() == [StepStatus.PASSED, P]
        with pytest.raises(LocalProtocolError, match="paused already"):
            s.workbench.pause_flow(s.number)
        with pytest.raises(LocalProtocolError, match="Resume it first"):
            s.workbench.repeat_step(s.number, "more")
        s.workbench.resume_flow(s.number)
        assert (await s.rests()).status is RunStatus.PASSED
        with pytest.raises(LocalProtocolError, match="is over"):
            s.workbench.stop_flow(s.number)

    play(script)


def test_a_paused_run_and_an_open_question_outlive_the_program() -> None:
    made = Bench()

    async def begin(s: Stage) -> None:
        s.start(flow(READ, LOOK, SET))
        assert (await s.rests()).status is RunStatus.WAITING

    async def paused(s: Stage) -> None:
        s.number = 1
        await asyncio.sleep(10)
        assert (s.run.status, s.step("look").text) == (RunStatus.WAITING, "Does it show 0?")
        s.workbench.pause_flow(1)
        await asyncio.sleep(1)

    async def resumed(s: Stage) -> None:
        s.number = 1
        await asyncio.sleep(10)
        assert s.run.status is RunStatus.PAUSED
        s.workbench.resume_flow(1)
        assert (s.run.status, s.run.text) == (RunStatus.WAITING, "Does it show 0?")
        s.workbench.answer_step(1, "look", True)
        assert (await s.rests()).status is RunStatus.PASSED

    for script in (begin, paused, resumed):
        made.live(script)
    assert made.meter.executed == ["2"]


def test_a_pause_of_a_step_goes_on_where_it_stood_after_a_restart() -> None:
    made = Bench()
    spec = flow({**SET, "wait": "100 s"})

    async def begin(s: Stage) -> None:
        s.start(spec)
        assert s.step("set").text == "Begins after a pause of 100 s."
        s.workbench.save_setting("x", 1)
        await asyncio.sleep(40)
        await s.workbench.saved(s.workbench.submit("m1", "READ_DIRECT"))

    async def end(s: Stage) -> None:
        s.number = 1
        assert made.meter.executed == []
        assert (await s.rests()).status is RunStatus.PASSED

    made.live(begin)
    made.live(end)
    assert made.meter.executed == ["2"]


def test_steps_that_are_skipped() -> None:
    spec = flow(
        {**READ, "only_if": "input.wanted"},
        {**SET, "command": "SET_NOTHING", "params": {}, "optional": True, "wait": "5 s"},
        {**READ, "name": "fine", "command": "READ_FINE", "optional": True},
        {**SET, "name": "late"},
        {**READ, "name": "last", "only_if": "steps.read.result.value"},
        inputs=[{"name": "wanted", "title": "Wanted", "type": "boolean", "default": False}],
    )

    async def script(s: Stage) -> None:
        s.bench.meter.answer_delay_s = 1.0
        s.start(spec)
        s.workbench.skip_step(s.number, "late", "Not today.")
        assert (await s.rests()).status is RunStatus.PASSED
        assert s.statuses() == [S] * 5
        assert s.step("read").text == "Not wanted here: “Wanted” is no."
        assert "has no command 'SET_NOTHING'" in s.step("set").text
        assert s.step("fine").text == "Not offered here. This meter cannot do that."
        with pytest.raises(LocalProtocolError, match="is over"):
            s.workbench.skip_step(s.number, "late", "Twice.")

    made = Bench()
    made.kind = BenchType(made.far, missing={"READ_FINE": "This meter cannot do that."})
    made.live(script)
    assert made.meter.received == []


def test_what_waits_for_the_link_says_so_and_can_be_skipped_or_stopped() -> None:
    async def script(s: Stage) -> None:
        s.start(flow(SET, READ))
        await asyncio.sleep(20)
        assert (s.run.status, s.step("set").status) == (RunStatus.RUNNING, R)
        assert "The bench meter is off." in s.step("set").text
        with pytest.raises(LocalProtocolError, match="does not wait for a decision"):
            s.workbench.repeat_step(s.number, "set")
        s.workbench.skip_step(s.number, "set", "No meter.")
        assert s.statuses() == [S, R]
        await asyncio.sleep(20)
        s.workbench.stop_flow(s.number)
        assert s.run.status is RunStatus.STOPPED
        await asyncio.sleep(20)
        rows = [s.workbench.interaction(number) for number in (1, 2)]
        assert [row.status for row in rows if row is not None] == [Status.ABORTED, Status.ABORTED]

    assert play(script, far=off()).meter.received == []


def test_a_command_that_has_left_is_not_skipped_and_a_stop_says_so() -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.answer_delay_s = 4.0
        s.start(flow(SET))
        await s.until(lambda: s.bench.meter.received != [])
        with pytest.raises(LocalProtocolError, match="SET_DIRECT of interaction 1 has left"):
            s.workbench.skip_step(s.number, "set", "Impatience.")
        s.workbench.stop_flow(s.number)
        assert s.run.text.endswith("SET_DIRECT of interaction 1 has left and ends by itself.")
        await asyncio.sleep(20)
        row = s.workbench.interaction(1)
        assert row is not None
        assert row.status is Status.SUCCESSFUL

    play(script)


def test_a_failed_command_that_a_person_sends_again_from_the_log_is_taken_in() -> None:
    async def script(s: Stage) -> None:
        s.bench.meter.refuse = 1
        s.bench.meter.answer_delay_s = 1.0
        s.start(flow(SET))
        await s.rests()
        assert s.run.status is RunStatus.WAITING
        s.workbench.retry(1)
        await asyncio.sleep(0.5)
        assert (s.run.status, s.step("set").status) == (RunStatus.RUNNING, R)
        assert (await s.rests()).status is RunStatus.PASSED

    assert play(script).meter.executed == ["1"]


# ---------------------------------------------------------------- a person's check


def test_an_answer_is_checked_and_a_no_asks_again() -> None:
    spec = flow(
        {**LOOK, "ask": "Lit?", "note_required": True, "photo": "required"},
        {
            "name": "volts", "title": "Voltage", "ask": "What is the voltage?",
            "answer": {"type": "decimal", "unit": "V", "minimum": 0},
            "expect": [{"value": "answer", "unit": "V", "about": 230, "tolerance": "10 %"}],
        },
    )  # fmt: skip

    async def script(s: Stage) -> None:
        s.start(spec)
        answer = s.workbench.answer_step
        with pytest.raises(ParameterError, match="needs a note"):
            answer(s.number, "look", "yes")
        with pytest.raises(ParameterError, match="needs a photo"):
            answer(s.number, "look", "yes", note="a")
        with pytest.raises(ParameterError, match="SHA-256"):
            answer(s.number, "look", "yes", note="a", attachments=["me.png"])
        with pytest.raises(LocalProtocolError, match="it is at look"):
            answer(s.number, "volts", "230")
        photo = s.workbench.add_attachment("a.png", "image/png", b"a")
        answer(s.number, "look", "no", note="dark", attachments=[photo])
        assert (s.run.status, s.step("look").answer) == (RunStatus.WAITING, "no")
        assert s.step("look").text.startswith("Look at it is no, wanted yes.")
        s.workbench.repeat_step(s.number, "look")
        assert (s.step("look").status, s.step("look").text) == (W, "Lit?")
        answer(s.number, "look", "yes", note="lit", attachments=[photo])
        with pytest.raises(ParameterError, match="must be a number"):
            answer(s.number, "volts", "much")
        answer(s.number, "volts", "190")
        assert s.step("volts").text.startswith("answer is 190 V, wanted 230 V within 10 %.")
        answer(s.number, "volts", "231.5")
        assert s.run.status is RunStatus.PASSED

    play(script)


def test_an_unattended_run_takes_the_answers_that_came_with_it_and_asks_nobody() -> None:
    spec = flow({**LOOK, "ask": "Lit?"}, {**LOOK, "name": "note", "ask": "Sealed?", "note_required": True})

    async def script(s: Stage) -> None:
        for answers, why in (
            ({"nowhere": "yes"}, "asks nothing in a step 'nowhere'"),
            ({"look": "perhaps"}, "must be yes or no"),
            ({"note": "yes"}, "needs a note"),
            ({"look": {"answer": "yes", "by": "me"}}, "is a value, or has answer"),
            ({"look": {"answer": "yes", "attachments": 3}}, "is a value, or has answer"),
        ):
            with pytest.raises(ParameterError, match=why):
                s.start(spec, attended=False, answers=answers)
        s.start(spec, attended=False, answers={"look": True})
        run = await s.rests()
        assert (run.status, s.statuses()) == (RunStatus.FAILED, [StepStatus.PASSED, F])
        assert run.text.startswith("Look at it: Sealed? Nobody can be asked in an unattended run")
        again = {"look": "yes", "note": {"answer": "yes", "note": "by the crew"}}
        s.start(spec, attended=False, answers=again, retry_of=run.id)
        assert ((await s.rests()).status, s.run.retry_of) == (RunStatus.PASSED, run.id)
        assert [one.id for one in s.workbench.flow_runs("m1")] == [1, 2]
        assert s.workbench.flow_runs("m2") == ()

    play(script)


def test_a_run_is_steered_from_another_thread() -> None:
    made = Bench()

    async def main() -> None:
        workbench = Workbench(
            store=made.store, snapshot=made.store.snapshot(), adapter_types={"bench": BenchType(made.far)},
            clock=SystemClock(), secrets=NoSecrets(),
        )  # fmt: skip
        changed = asyncio.Event()
        workbench.feed.subscribe(lambda change: changed.set() if isinstance(change, FlowRun) else None)

        async def waits(number: int) -> None:
            while (run := workbench.flow_run(number)) is None or run.status is RunStatus.RUNNING:
                changed.clear()
                await changed.wait()

        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            group.create_task(workbench.run())
            spec = flow({**LOOK, "ask": "Lit?"}, READ)
            await asyncio.sleep(0)
            number = await asyncio.to_thread(workbench.start_flow, "m1", spec)
            await waits(number)
            with pytest.raises(ParameterError, match="must be yes or no"):
                await asyncio.to_thread(workbench.answer_step, number, "look", "perhaps")
            photo = await asyncio.to_thread(workbench.add_attachment, "a.png", "image/png", b"a")
            await asyncio.to_thread(workbench.answer_step, number, "look", "yes", attachments=[photo])
            await waits(number)
            run = workbench.flow_run(number)
            assert run is not None
            assert run.status is RunStatus.PASSED
            workbench.stop()
        with pytest.raises(LocalProtocolError, match="not running"):
            workbench.stop_flow(number)

    made.store.durable.append(made.device)
    asyncio.run(main())


def test_of_two_runs_begun_at_once_one_fails_in_words() -> None:
    made = Bench()
    made.store.durable.append(made.device)

    async def main(loop: VirtualLoop) -> list[FlowRun | None]:
        workbench = Workbench(
            store=made.store, snapshot=made.store.snapshot(), adapter_types={"bench": BenchType(made.far)},
            clock=VirtualClock(loop), secrets=NoSecrets(),
        )  # fmt: skip
        numbers = [workbench.start_flow("m1", flow(READ)) for _before_it_runs in range(2)]
        running = loop.create_task(workbench.run())
        await asyncio.sleep(20)
        workbench.stop()
        await running
        return [workbench.flow_run(number) for number in numbers]

    first, second = run_virtual(main)
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (RunStatus.PASSED, RunStatus.FAILED)
    assert second.text == f"Meter 1 was in the flow try already (run {first.id})."


# ---------------------------------------------------------------- what cannot be given


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({**SET, "command": "NONE", "params": {}}, "has no command 'NONE'"),
        ({**SET, "params": {"value": 1001}}, "must be at most 1000 W"),
        ({**SET, "params": {"value": "{device.attribute.limit}"}}, "{device.attribute.limit} has no value here."),
        ({**SET, "params": {"value": "{device.setting.code}"}}, "{device.setting.code} has no value here."),
        ({**LOOK, "ask": "Is it {fact.nothing}?"}, "{fact.nothing} has no value here."),
        ({"name": "c", "title": "All of it", "commissioning": True}, "cannot be commissioned from here"),
        ({**READ, "command": "LOGIN", "params": {"password": "open"}}, "takes a secret (password)"),
    ],
)
def test_a_step_that_cannot_be_done_says_why(step: Mapping[str, Any], why: str) -> None:
    made = Bench()
    password = ParamSpec(name="password", title="Password", type=ParamType.SECRET)
    login = CommandSpec(name="LOGIN", title="Log in", kind=CommandKind.CONTROL, params=(password,))
    kind = BenchType(made.far)
    kind.specs = (*kind.specs, login)
    code = ParamSpec(name="code", title="Code", type=ParamType.SECRET)
    kind.form = lambda: (code,)  # type: ignore[method-assign]
    made.kind = kind
    made.device = bench_device(settings={"code": 7})

    async def script(s: Stage) -> None:
        s.start(flow(step))
        run = await s.rests()
        assert (run.status, run.steps[0].interactions) == (RunStatus.WAITING, ())
        assert why in run.text
        s.workbench.repeat_step(s.number, run.steps[0].name)
        assert (s.run.status, why in s.run.text) == (RunStatus.WAITING, True)

    made.live(script)
    assert made.meter.received == []


def test_a_flow_starts_where_it_belongs_only() -> None:
    async def script(s: Stage) -> None:
        with pytest.raises(LocalProtocolError, match="A try is for lem-dcbm; Meter 1 is reached by bench"):
            s.start(flow(READ, adapter="lem-dcbm"))
        with pytest.raises(WorkbenchError, match="no device 'm9'"):
            s.workbench.start_flow("m9", flow(READ))
        with pytest.raises(ParameterError, match="A try has no parameter 'x'"):
            s.start(flow(READ), {"x": 1})
        with pytest.raises(ParameterError, match="header takes up to 20 lines"):
            s.start(flow(READ), header={"site": "x" * 501})
        with pytest.raises(LocalProtocolError, match="There is no run 7"):
            s.workbench.stop_flow(7)
        for data, name, kind, why in (
            (b"", "a", "b", "empty"),
            (bytes(MAX_ATTACHMENT + 1), "a", "b", "up to 10 MiB"),
            (b"x", " ", "b", "needs a name"),
        ):
            with pytest.raises(ParameterError, match=why):
                s.workbench.add_attachment(name, kind, data)

    play(script)


@pytest.mark.parametrize("verb", ["remove_device", "uninstall"])
def test_a_run_ends_with_its_device(verb: str) -> None:
    async def script(s: Stage) -> None:
        s.start(flow(READ))
        await asyncio.sleep(5)
        getattr(s.workbench, verb)("m1")
        await asyncio.sleep(5)
        assert (s.run.status, s.statuses()) == (RunStatus.FAILED, [F])
        assert s.run.text.startswith("Read it: ")

    play(script, far=off())


def test_a_run_whose_flow_cannot_be_read_any_more_fails_in_words() -> None:
    made = Bench()

    async def begin(s: Stage) -> None:
        s.start(flow({**LOOK, "ask": "Lit?"}))
        await s.rests()

    async def end(s: Stage) -> None:
        s.number = 1
        assert s.run.status is RunStatus.FAILED
        assert "cannot be read any more: run 1: steps[1].shape: is not known" in s.run.text

    made.live(begin)
    run = made.store.of(FlowRun)[-1]
    made.store.durable.append(
        replace(run, definition={**run.definition, "steps": [{**run.definition["steps"][0], "shape": 1}]})
    )
    made.live(end)


# ---------------------------------------------------------------- writes that triage reads back


@pytest.mark.parametrize(("mute", "status"), [(0, RunStatus.PASSED), (9, RunStatus.FAILED)])
def test_a_write_that_triage_reads_back_ends_the_run_after_that(mute: int, status: RunStatus) -> None:
    """A relay whose answer stays away: the read that follows shows what it did; nothing is sent again by the run."""
    spec = flow({"name": "off", "title": "Off", "command": "TURN_OFF", "on_failure": "stop"})
    world = World()
    world.meter().hold["TURN_OFF"] = 99
    world.meter().mute["READ_CREDIT"] = mute

    async def script(workbench: Workbench) -> FlowRun:
        workbench.set_field_state("g1", is_up=True)
        number = workbench.start_flow("m1", spec, attended=False)
        async with asyncio.timeout(36_000):
            while True:
                run = workbench.flow_run(number)
                if run is not None and run.status is not RunStatus.RUNNING:
                    return run
                await asyncio.sleep(5)

    run = world.live(script)
    assert run is not None
    assert (run.status, len(run.steps[0].interactions)) == (status, 1)
    assert [row.origin for row in world.rows("READ_CREDIT")] == [Origin.FOLLOW_UP]
    world.store.check()


# ---------------------------------------------------------------- the six steps as one


@pytest.mark.parametrize("refused", ["", "CLEAR_CREDIT"])
def test_a_commissioning_is_one_step(refused: str) -> None:
    step = {
        "name": "all", "title": "The six steps", "commissioning": True,
        "expect": [{"value": "result.READ_VOLTAGE.voltage", "unit": "V", "min": 207, "max": 253}],
    }  # fmt: skip
    spec = flow(step, {"name": "credit", "title": "Credit", "command": "READ_CREDIT"})
    world = World(token_is_sale=True)
    if refused:
        world.meter().no[refused] = 3

    async def script(workbench: Workbench) -> None:
        workbench.set_field_state("g1", is_up=True)
        number = workbench.start_flow("m1", spec)

        async def rest() -> FlowRun:
            async with asyncio.timeout(36_000):
                while True:
                    run = workbench.flow_run(number)
                    if run is not None and run.status is not RunStatus.RUNNING:
                        return run
                    await asyncio.sleep(5)

        run = await rest()
        record = workbench.commissioning("m1")
        assert record is not None
        assert record.actor == f"flow {number}"
        if refused:
            assert (run.status, record.status) == (RunStatus.WAITING, FlowStatus.FAILED)
            assert f"{refused} did not work" in run.text
            world.meter().no.clear()
            workbench.repeat_step(number, "all")
            run = await rest()
        assert (run.status, run.steps[0].checks[0].found) == (RunStatus.PASSED, "230.0 V")
        assert len(run.steps[0].interactions) == (12 if refused else 6)
        assert len(workbench.flow_runs()) == 1

    world.live(script)
    world.store.check()


# ---------------------------------------------------------------- what is undone whatever becomes of the run

WRONG: Mapping[str, Any] = {
    **READ, "name": "wrong", "title": "Wrong", "expect": [{"value": "result.value", "title": "Value", "equals": 99}],
}  # fmt: skip
UNDO: Mapping[str, Any] = {
    "name": "undo", "title": "Undo it", "command": "SET_DIRECT", "params": {"value": 0}, "always": True, "after": "set",
    "expect": [{"value": "result.value", "title": "Value", "equals": 0}],
}  # fmt: skip


@pytest.mark.parametrize("attended", [True, False])
def test_what_was_done_is_undone_though_the_run_has_failed(attended: bool) -> None:
    spec = flow(SET, {**WRONG, "on_failure": "stop"}, {**READ, "name": "more"}, UNDO, {**READ, "name": "last"})
    seen: list[FlowRun] = []

    async def script(s: Stage) -> None:
        s.workbench.feed.subscribe(lambda change: seen.append(change) if isinstance(change, FlowRun) else None)
        s.start(spec, attended=attended)
        run = await s.rests()
        assert (run.status, run.text) == (RunStatus.FAILED, "Wrong: Value is 5, wanted 99.")
        assert s.statuses() == [StepStatus.PASSED, F, P, StepStatus.PASSED, P]
        assert [check.found for check in s.step("undo").checks] == ["0"]
        assert (run.verdict, run.verdict_text) == (None, "")

    made = play(script)
    assert (made.meter.value, len(made.meter.executed)) == (0, 2)
    undoing = [one for one in seen if one.verdict is not None]
    assert {(one.status, one.verdict, one.text) for one in undoing} == {
        (RunStatus.RUNNING, RunStatus.FAILED, "Wrong: Value is 5, wanted 99."),
    }


def test_a_run_that_passes_undoes_once_and_one_that_did_nothing_undoes_nothing() -> None:
    spec = flow(
        {**WRONG, "expect": [{"value": "result.value", "equals": "{input.first}"}]}, {**SET, "only_if": "input.wanted"},
        {**READ, "name": "mid", "on_failure": "stop", "expect": [{"value": "result.value", "equals": "{input.mid}"}]},
        UNDO,
        inputs=[
            {"name": "wanted", "title": "Wanted", "type": "boolean"},
            {"name": "first", "title": "First", "type": "integer"}, {"name": "mid", "title": "Mid", "type": "integer"},
        ],
    )  # fmt: skip

    async def script(s: Stage) -> None:
        s.start(spec, {"wanted": True, "first": 0, "mid": 5}, attended=False)
        assert (await s.rests()).status is RunStatus.PASSED
        assert len(s.bench.meter.executed) == 2
        s.start(spec, {"wanted": False, "first": 0, "mid": 0}, attended=False)
        assert (await s.rests()).status is RunStatus.PASSED
        assert s.step("undo").text == "Nothing is to be undone of “Set it”."
        s.start(spec, {"wanted": False, "first": 0, "mid": 7}, attended=False)
        assert ((await s.rests()).status, s.statuses()) == (RunStatus.FAILED, [StepStatus.PASSED, S, F, P])
        s.start(spec, {"wanted": True, "first": 1, "mid": 7}, attended=False)
        assert ((await s.rests()).status, s.statuses()) == (RunStatus.FAILED, [F, P, P, P])
        assert len(s.bench.meter.executed) == 2

    play(script)


def test_a_stop_undoes_what_was_given_and_a_second_one_ends_the_undoing() -> None:
    ask = {**LOOK, "ask": "Well?"}

    async def script(s: Stage) -> None:
        s.start(flow(SET, ask, READ, UNDO))
        await s.rests()
        s.workbench.stop_flow(s.number, actor="Ada")
        with pytest.raises(LocalProtocolError, match="read is not done any more: run 1 only puts back what it did"):
            s.workbench.skip_step(s.number, "read", "Why not.")
        run = await s.rests()
        assert (run.status, run.text) == (RunStatus.STOPPED, "It was stopped by Ada.")
        assert (s.statuses(), s.bench.meter.value) == ([StepStatus.PASSED, F, P, StepStatus.PASSED], 0)

        s.start(flow(SET, ask, {**UNDO, "wait": "1 h"}))
        await s.rests()
        s.workbench.stop_flow(s.number, actor="Ada")
        s.workbench.stop_flow(s.number, actor="Eve")
        assert (s.run.status, s.bench.meter.value) == (RunStatus.STOPPED, 5)
        assert s.run.text == "It was stopped by Ada. Not undone: Undo it: It was stopped by Eve."

        s.start(flow(SET, ask, UNDO))
        await s.rests()
        with pytest.raises(ParameterError, match="say why"):
            s.workbench.skip_step(s.number, "undo", " ")
        s.workbench.skip_step(s.number, "undo", "It stays so.", actor="Ada")
        s.workbench.stop_flow(s.number, actor="Ada")
        assert (s.run.status, s.statuses(), s.bench.meter.value) == (RunStatus.STOPPED, [StepStatus.PASSED, F, S], 5)

    play(script)


def test_a_stop_in_the_midst_of_the_undoing_lets_it_end() -> None:
    async def script(s: Stage) -> None:
        for pause in ("20 s", "0 s"):
            s.bench.meter.answer_delay_s = 2.0
            s.start(flow(SET, {**UNDO, "wait": pause}))
            await s.until(lambda: s.step("undo").status is R)
            await asyncio.sleep(1)
            s.workbench.stop_flow(s.number, actor="Ada")
            assert s.run.status is RunStatus.RUNNING
            run = await s.rests()
            assert (run.status, run.text) == (RunStatus.STOPPED, "It was stopped by Ada.")
            assert (s.statuses(), s.bench.meter.value) == ([StepStatus.PASSED] * 2, 0)
        assert len(s.bench.meter.executed) == 4

    play(script)


def test_what_has_left_is_undone_after_its_end_and_what_was_called_back_is_not() -> None:
    async def left(s: Stage) -> None:
        s.bench.meter.answer_delay_s = 4.0
        s.start(flow(SET, UNDO))
        await s.until(lambda: s.bench.meter.received != [])
        s.workbench.stop_flow(s.number)
        assert s.step("undo").text == "Begins when SET_DIRECT of interaction 1 has ended."
        run = await s.rests()
        assert (run.status, s.statuses()) == (RunStatus.STOPPED, [F, StepStatus.PASSED])
        assert run.text.endswith("SET_DIRECT of interaction 1 has left and ends by itself.")
        assert (s.bench.meter.value, s.bench.meter.executed) == (0, ["1", "2"])

    async def called_back(s: Stage) -> None:
        s.start(flow(SET, UNDO))
        await asyncio.sleep(20)
        s.workbench.stop_flow(s.number)
        assert (s.run.status, s.statuses()) == (RunStatus.STOPPED, [F, P])

    play(left)
    assert play(called_back, far=off()).meter.received == []


@pytest.mark.parametrize("attended", [True, False])
def test_an_undoing_that_fails_says_so_and_the_next_one_is_done(attended: bool) -> None:
    spec = flow(
        SET, {**WRONG, "on_failure": "stop"}, {**UNDO, "params": {"value": "{device.attribute.none}"}},
        {**UNDO, "name": "other", "title": "The other", "after": ["set", "wrong"]},
    )  # fmt: skip

    async def script(s: Stage) -> None:
        s.start(spec, attended=attended)
        run = await s.rests()
        if attended:
            assert (run.status, run.verdict) == (RunStatus.WAITING, RunStatus.FAILED)
            assert "has no value here. Do it again, skip it with a reason, or stop the run." in run.text
            s.workbench.pause_flow(s.number)
            s.workbench.resume_flow(s.number)
            s.workbench.repeat_step(s.number, "undo")
            assert s.run.status is RunStatus.WAITING
            s.workbench.skip_step(s.number, "undo", "By hand.", actor="Ada")
            run = await s.rests()
            assert (s.step("undo").status, s.step("undo").text, s.step("undo").by) == (S, "By hand.", "Ada")
        words = "Wrong: Value is 5, wanted 99."
        more = "" if attended else " Not undone: Undo it: {device.attribute.none} has no value here."
        assert (run.status, run.text) == (RunStatus.FAILED, words + more)
        assert (s.step("other").status, s.bench.meter.value) == (StepStatus.PASSED, 0)

    play(script)


def test_an_undoing_whose_outcome_nobody_saw_is_not_sent_again() -> None:
    async def script(s: Stage) -> None:
        s.start(flow(SET, {**LOOK, "ask": "Well?"}, UNDO))
        await s.rests()
        s.bench.meter.silent = 1
        s.workbench.stop_flow(s.number, actor="Ada")
        run = await s.rests()
        assert (run.status, run.verdict) == (RunStatus.WAITING, RunStatus.STOPPED)
        s.workbench.stop_flow(s.number, actor="Ada")
        assert s.run.status is RunStatus.STOPPED
        assert s.run.text == "It was stopped by Ada. Not undone: Undo it: It was stopped by Ada."

    made = Bench()
    made.kind = BenchType(made.far, can_verify=False)
    made.live(script)
    assert [request["do"] for request in made.meter.received].count("set") == 2


def test_a_paused_run_that_fails_undoes_when_it_goes_on_and_after_a_restart() -> None:
    made = Bench()

    async def begin(s: Stage) -> None:
        s.start(flow(SET, {**WRONG, "on_failure": "stop"}, UNDO))
        s.bench.meter.answer_delay_s = 3.0
        await s.until(lambda: s.step("wrong").status is R)
        s.workbench.pause_flow(s.number, actor="Ada")
        await asyncio.sleep(20)
        assert (s.run.status, s.run.verdict) == (RunStatus.PAUSED, RunStatus.FAILED)
        assert s.run.text == "Paused by Ada. Wrong: Value is 5, wanted 99."

    async def end(s: Stage) -> None:
        s.number = 1
        await asyncio.sleep(10)
        assert made.meter.value == 5
        s.workbench.resume_flow(1)
        run = await s.rests()
        assert (run.status, run.text) == (RunStatus.FAILED, "Wrong: Value is 5, wanted 99.")

    made.live(begin)
    made.live(end)
    assert made.meter.value == 0


def test_a_device_that_is_gone_leaves_nothing_to_wait_for() -> None:
    async def script(s: Stage) -> None:
        s.start(flow(SET, {**LOOK, "ask": "Well?"}, UNDO, {**UNDO, "name": "other"}))
        await s.rests()
        s.workbench.remove_device("m1")
        await asyncio.sleep(5)
        assert (s.run.status, s.statuses()) == (RunStatus.FAILED, [StepStatus.PASSED, F, F, F])
        assert s.run.text.count("Not undone: Undo it: m1 was removed") == 2

    play(script)


def test_an_undoing_waits_for_arming_in_words() -> None:
    async def script(s: Stage) -> None:
        s.start(flow(SET, {**LOOK, "ask": "Well?"}, UNDO))
        await s.rests()
        s.workbench.arming.need(900)
        s.workbench.stop_flow(s.number, actor="Ada")
        assert "writing is not armed any more" in s.run.text
        s.workbench.arming.arm()
        s.workbench.repeat_step(s.number, "undo")
        run = await s.rests()
        assert (run.status, run.text, s.bench.meter.value) == (RunStatus.STOPPED, "It was stopped by Ada.", 0)

    play(script)


# ---------------------------------------------------------------- what was read once is judged by several steps


def test_a_step_judges_what_an_earlier_one_read_and_reads_it_anew_when_it_is_done_again() -> None:
    five = {"value": "steps.read.result.value", "title": "Value", "unit": "W", "equals": 5}
    spec = flow(
        READ, {"name": "five", "title": "Five", "expect": [five], "evidence": [{"value": "steps.read.result.value"}]},
        {**LOOK, "ask": "Is it {steps.read.result.value}?"},
        {"name": "same", "title": "Same", "expect": [five]},
    )  # fmt: skip

    async def script(s: Stage) -> None:
        s.start(spec)
        run = await s.rests()
        assert (run.status, s.step("five").interactions) == (RunStatus.WAITING, ())
        assert run.text.startswith("Value is 0 W, wanted 5 W. Do it again")
        s.bench.meter.value = 5
        s.workbench.repeat_step(s.number, "five")
        run = await s.rests()
        assert (s.step("five").status, run.text) == (StepStatus.PASSED, "Is it 5?")
        s.workbench.answer_step(s.number, "look", "yes")
        assert (await s.rests()).status is RunStatus.PASSED
        assert [request["do"] for request in s.bench.meter.received] == ["get", "get"]
        s.bench.meter.value = 6
        s.start(spec, attended=False, answers={"look": "yes"})
        assert (await s.rests()).text == "Five: Value is 6 W, wanted 5 W."
        s.start(spec)
        await s.rests()
        s.workbench.accept_step(s.number, "five", "It is enough.")
        assert s.step("five").status is StepStatus.WARNED

    play(script)


def test_a_device_without_a_serial_number_is_told_what_is_missing() -> None:
    serial = {"value": "result.value", "title": "Serial number", "equals": "{device.serial}"}

    async def script(s: Stage) -> None:
        s.start(flow({**LOOK, "ask": "Does it read {device.serial}?"}), attended=True)
        assert (await s.rests()).text.startswith("The device has no serial number in the tree: enter it first. Do it")
        s.workbench.stop_flow(s.number)
        s.start(flow({**READ, "expect": [serial, {"value": "result.value", "title": "Value", "equals": 1}]}))
        run = await s.rests()
        assert run.text.startswith(
            "The device has no serial number in the tree: enter it first. Value is 0, wanted 1. Do it again"
        )
        assert run.steps[0].checks[0].found == "0"

    play(script)


def test_a_flow_is_for_kinds_of_nodes() -> None:
    async def script(s: Stage) -> None:
        spec = flow(READ)
        with pytest.raises(LocalProtocolError, match="A try is for a gateway or site; Meter 1 is a meter"):
            s.start(parse_flow({**spec.definition, "kinds": ["gateway", "site"]}, "test"))

    play(script)


# ---------------------------------------------------------------- kill -9


CRASH = flow(
    {**SET, "params": {"value": 11}},
    {**READ, "retries": 1, "expect": [{"value": "result.value", "equals": 11}]},
    {**SET, "name": "pull", "command": "SET_PULL", "params": {"value": 12}, "wait": "3 s"},
    {**SET, "name": "safe", "command": "SAFE_PUSH", "params": {"value": 13}},
    LOOK,
    {**READ, "name": "last", "expect": [{"value": "result.value", "equals": 13}]},
)


async def begin_attended(s: Stage) -> None:
    s.start(CRASH)
    await to_the_end(s)


async def begin_unattended(s: Stage) -> None:
    s.start(CRASH, attended=False, answers={"look": True})
    await to_the_end(s)


async def to_the_end(s: Stage) -> None:
    """Answer what is asked; give nothing a second time."""
    for run in s.workbench.flow_runs():
        s.number = run.id
        await s.rests()
        if s.run.status is RunStatus.WAITING and s.run.text.startswith("Does it show"):
            s.workbench.answer_step(s.number, "look", "yes")
            await s.rests()


def judge(made: Bench, where: str) -> None:
    """What must be true of the disk and the meter once everything has come to rest."""
    rows = made.store.latest()
    once = [mark for mark in made.meter.executed if rows[int(mark)].command.startswith("SET")]  # not the repeatable one
    assert len(once) == len(set(once)), f"{where}: sent twice"
    for row in rows.values():
        assert row.is_settled, f"{where}: {row.command} of interaction {row.id} hangs: {row.status}"
    for run in {change.id: change for change in made.store.durable if isinstance(change, FlowRun)}.values():
        for step in run.steps:
            given = [rows[number] for number in step.interactions]
            if step.name in ("set", "pull", "safe"):
                assert len(given) <= 1, f"{where}: {step.name} was given again unasked"
            if step.status is StepStatus.PASSED and given:
                assert given[-1].status is Status.SUCCESSFUL, f"{where}: {step.name} passed, and {given[-1].status}"
        if run.status is RunStatus.PASSED:
            assert all(step.status is StepStatus.PASSED for step in run.steps)
        else:
            assert run.status in (RunStatus.WAITING, RunStatus.FAILED), f"{where}: it hangs: {run}"
            assert run.text, f"{where}: it says nothing"
    owned = {number for c in made.store.durable if isinstance(c, FlowRun) for s in c.steps for number in s.interactions}
    assert {row.id for row in rows.values() if row.origin is Origin.FLOW} <= owned, f"{where}: a row of no run"


UNDOING = flow(
    {**SET, "params": {"value": 11}},
    {**WRONG, "on_failure": "stop"},
    {**SET, "name": "pull", "command": "SET_PULL"},
    {**UNDO, "wait": "2 s"},
    {**UNDO, "name": "other", "command": "SET_PULL", "params": {"value": 1}, "expect": [], "after": "pull"},
    {**UNDO, "name": "more", "command": "SET_PULL", "params": {"value": 1}, "expect": []},
)


@pytest.mark.parametrize(("can_verify", "attended"), [(True, True), (False, False), (True, False)])
def test_an_undoing_killed_at_every_store_call(can_verify: bool, attended: bool) -> None:
    async def begin(s: Stage) -> None:
        s.start(UNDOING, attended=attended)
        await s.rests()

    def world() -> Bench:
        made = Bench()
        made.kind = BenchType(made.far, can_verify=can_verify)
        return made

    def told(made: Bench, where: str) -> None:
        judge(made, where)
        runs = {change.id: change for change in made.store.durable if isinstance(change, FlowRun)}
        for run in runs.values():
            by = {step.name: step for step in run.steps}
            assert by["other"].interactions == (), f"{where}: undid what was never done"
            for name in ("undo", "more"):
                assert len(by[name].interactions) <= 1, f"{where}: {name} was given again unasked"
            if run.status is RunStatus.FAILED and by["set"].interactions:
                assert {by["undo"].status, by["more"].status} <= {StepStatus.PASSED, F}, f"{where}: {run}"
                if by["wrong"].status is F:
                    assert run.text.startswith("Wrong: Value is 11, wanted 99."), f"{where}: {run.text}"
                    unsaid = [by[n] for n in ("undo", "more") if f"Not undone: Undo it: {by[n].text}" not in run.text]
                    assert all(step.status is StepStatus.PASSED for step in unsaid), f"{where}: {run.text}"
            elif run.status is RunStatus.WAITING:
                assert attended, where

    whole = world()
    whole.live(begin)
    told(whole, "not killed")
    (run,) = {change.id: change for change in whole.store.of(FlowRun)}.values()
    assert [step.status for step in run.steps] == [StepStatus.PASSED, F, P, StepStatus.PASSED, P, StepStatus.PASSED]
    assert len(whole.meter.executed) == 3
    for kill_after in range(whole.store.calls):
        made = world()
        made.live(begin, kill_after=kill_after)
        if kill_after % 3 == 0:  # and once more while it recovers
            made.live(to_the_end, kill_after=1 + kill_after * 7 % 11)
        made.live(to_the_end)
        told(made, f"killed after {kill_after} calls")


@pytest.mark.parametrize(("can_verify", "attended"), [(True, True), (False, True), (True, False)])
def test_a_flow_killed_at_every_store_call(can_verify: bool, attended: bool) -> None:
    begin = begin_attended if attended else begin_unattended

    def world() -> Bench:
        made = Bench()
        made.kind = BenchType(made.far, can_verify=can_verify)
        return made

    whole = world()
    whole.live(begin)
    judge(whole, "not killed")
    assert whole.store.of(FlowRun)[-1].status is RunStatus.PASSED
    assert whole.store.calls > 40
    for kill_after in range(whole.store.calls):
        made = world()
        made.live(begin, kill_after=kill_after)
        made.live(to_the_end)
        judge(made, f"killed after {kill_after} calls")


def test_a_flow_killed_again_while_it_recovers() -> None:
    whole = Bench()
    whole.live(begin_attended)
    for kill_after in range(1, whole.store.calls, 3):
        made = Bench()
        made.live(begin_attended, kill_after=kill_after)
        made.live(to_the_end, kill_after=1 + kill_after * 7 % 11)
        made.live(to_the_end)
        judge(made, f"killed after {kill_after} calls")
