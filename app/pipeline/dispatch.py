"""Steps 5 to 12: messages leave their lanes, go through an adapter, and come back as outcomes.

Every attempt is durable before the adapter is called. What follows a failure is one table (``_after_failure``): retry,
give up, or lose sight of it; a command that may have had its effect is never sent again by itself
(design.md section 4, specs/command-flow.md sections 4.4 to 4.7).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.errors import (
    ConfigError,
    LinkError,
    LinkReason,
    LocalProtocolError,
    ParameterError,
    ProtocolError,
    RemoteProtocolError,
    StoreError,
)
from app.model.command import CommandKind, CommandSpec, ReplyPattern, Resend, TokenUse, check_params
from app.model.device import Device
from app.model.interaction import (
    Attempt,
    AttemptEnd,
    Direction,
    Failure,
    Interaction,
    Message,
    Step,
    StepEntry,
)
from app.model.jsonable import jsonable
from app.model.reading import Finding, LinkState, Severity
from app.model.records import Change, OutboxItem
from app.model.status import CANCELLABLE, IN_FLIGHT, Delivery, Event, Move, Status
from app.pipeline import phases
from app.pipeline.correlate import Correlator, Expectation
from app.pipeline.effects import closing_lines, is_doubtful, outbox_of
from app.pipeline.field_twin import FieldTwin
from app.pipeline.lanes import Lanes
from app.pipeline.ledger import Ledger, entry, is_over
from app.pipeline.links import Links
from app.ports import (
    RESTART,
    Accepted,
    Adapter,
    Answer,
    DeliveryFailure,
    Dispatch,
    Disposition,
    Execution,
    LateOrPushed,
    Limits,
    Progress,
    Reach,
    RefUplink,
    Refused,
    Tap,
    Telemetry,
)

_log = logging.getLogger(__name__)

IDLE_S: Final = 3600.0
CANNOT_TELL: Final = "CANNOT_TELL"  # code of the line that says that nothing can be read back
NOTHING_SHOWS: Final = "No read shows whether it took effect. Look at the meter, then say what it shows."
NOT_CANCELLED: Final = "not cancelled"
"""Event of the history line that says why a command was not called back."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


@dataclass(frozen=True, slots=True)
class Site:
    """What the dispatcher asks about a device; the workbench answers."""

    device: Callable[[str], Device | None]
    spec: Callable[[str, str], CommandSpec | None]
    limits: Callable[[str], Limits]
    trouble: Callable[[str, dict[object, str]], str]  # why the field between here and the device is down (D-26)
    secrets: Callable[[int], Mapping[str, Any]]  # parameters that are never written down
    settled: Callable[[Interaction, Event], None]  # told after the outcome was written
    bring_back: Callable[[int], bool]  # a row that ended long ago, into the ledger again; False: there is none


@dataclass(slots=True)
class _Crossing:
    """When an attempt's bytes first left and last came back."""

    first_out: datetime | None = None
    last_in: datetime | None = None


class Dispatcher:
    """Owner of messages in flight."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        links: Links,
        lanes: Lanes,
        site: Site,
        rng: random.Random,
        spawn: Spawn,
        add_effects: Callable[[list[OutboxItem]], None],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._links = links
        self._lanes = lanes
        self._site = site
        self._rng = rng
        self._spawn = spawn
        self._add_effects = add_effects
        self._clock = ledger.clock
        self._correlator = Correlator()
        self._heap: list[tuple[float, int, str, int]] = []
        self._armed: dict[tuple[str, int], int] = {}
        self._tokens = itertools.count(1)
        self._wake = asyncio.Event()
        self._started = self._clock.monotonic()
        self._again: float | None = None
        self._running = False
        self._reads: dict[int, asyncio.Timeout] = {}  # direct reads under way: interaction -> what can end them
        self._stopped: dict[int, str] = {}  # those that were told to end, and by whom
        self._read_back_said: dict[int, str] = {}  # interactions of unknown outcome: what their last read-back said

    # ---------------------------------------------------------------- the scheduler

    async def run(self) -> None:
        """Fire deadlines and pick messages, for ever."""
        self._running = True
        try:
            while True:
                self.kick()
                self._wake.clear()
                now = self._clock.monotonic()
                try:
                    async with asyncio.timeout(max(0.0, self._next(now) - now)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            self._running = False

    def kick(self) -> None:
        """Fire what is due and pick what may leave, now."""
        if not self._running or self._ledger.halted:
            return
        now = self._clock.monotonic()
        self._fire(now)
        asked: dict[object, str] = {}
        picks, held, self._again = self._lanes.pick(now, lambda message: self._hold(message, asked))
        for number, reason in held.items():
            message = self._ledger.message(number)
            if message is not None and message.hold_reason != reason:
                self._store(replace(message, hold_reason=reason))
        for message in picks:
            self._leave(message)
        if picks:
            self._wake.set()  # another lane slot may be free at once

    def _next(self, now: float) -> float:
        moments = [now + IDLE_S]
        if self._heap:
            moments.append(self._heap[0][0])
        if self._again is not None:
            moments.append(self._again)
        due = self._correlator.next_at()
        if due is not None:
            moments.append(due)
        return min(moments)

    def _arm(self, kind: str, number: int, at: float) -> None:
        token = next(self._tokens)
        self._armed[kind, number] = token
        heapq.heappush(self._heap, (at, token, kind, number))
        self._wake.set()

    def _disarm(self, number: int) -> None:
        for kind in ("stage", "poll", "due", "slot"):
            self._armed.pop((kind, number), None)
        dead = len(self._heap) - len(self._armed)
        if dead > 256 and dead > len(self._armed):
            self._heap = [item for item in self._heap if self._armed.get((item[2], item[3])) == item[1]]
            heapq.heapify(self._heap)

    def _fire(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            _at, token, kind, number = heapq.heappop(self._heap)
            if self._armed.get((kind, number)) != token:
                continue
            del self._armed[kind, number]
            match kind:
                case "due":
                    self._due(number)
                case "stage":
                    self._stage_over(number)
                case "poll":
                    self._spawn(self._poll(number), f"poll:{number}")
                case "slot":
                    self._free_slot(number)
                case "expire":
                    self._expire(number)
                case _:
                    raise AssertionError(kind)
        due = self._correlator.next_at()
        if due is not None and due <= now:
            swept = self._correlator.sweep(now)
            lost = {(scope, ref) for scope, ref, uplink in swept if isinstance(uplink, LateOrPushed)}
            for scope, ref in sorted(lost):
                self._unmatched(scope, ref)

    def _hold(self, message: Message, asked: dict[object, str]) -> str:
        """Why a message must wait now (D-26); "" when it need not."""
        device = message.device
        limits = self._site.limits(device)
        state = self._twin.state(device)
        if limits.needs_link and state.link not in (LinkState.ONLINE, LinkState.REPLAY):
            spec = self._spec_of(message)
            if spec is None or spec.reaches_device:
                return f"The link is {state.link.value}."
        if self._links.adapter(device) is None:
            return "The connection is not open."
        if state.busy_with:
            return f"Busy with {state.busy_with}."
        return self._site.trouble(device, asked)

    # ---------------------------------------------------------------- in and out of the lanes

    def enqueue(self, message: Message) -> None:
        self._lanes.limit(message.lane, self._site.limits(message.device))
        self._lanes.update(message)
        self.kick()

    def watch_expiry(self, interaction: Interaction) -> None:
        """Give the interaction up when it still waits at its ``expires_at`` (G6)."""
        if interaction.expires_at is not None:
            left = (interaction.expires_at - self._clock.now()).total_seconds()
            self._arm("expire", interaction.id, self._clock.monotonic() + max(0.0, left))

    def cancellable(self, interaction: int) -> list[Change] | None:
        """Its messages as cancelled, all or nothing (D-30), for the transaction that settles it; None: at least one
        was already handed over.
        """
        messages = [m for m in self._ledger.messages_of(interaction) if not is_over(m)]
        if any(message.state not in CANCELLABLE for message in messages):
            return None
        present = self._ledger.interaction(interaction)
        was_cut_off = present is not None and present.failure is not None and present.failure.code == RESTART
        if was_cut_off and any(self._site.limits(message.device).asks_first for message in messages):
            return None  # its service may have it, and says so when it is asked again
        now = self._clock.now()
        return [message.after(Move.CANCEL, now, holds_slot=False) for message in messages]

    def is_stoppable(self, interaction: int) -> bool:
        """A direct read is under way: ending it costs its answer and nothing else."""
        return interaction in self._reads and interaction not in self._stopped

    def stop(self, interaction: int, actor: str) -> bool:
        """End a direct read under way; its adapter puts the line in order first. False: there is none."""
        if not self.is_stoppable(interaction):
            return False
        self._stopped[interaction] = actor
        self._reads[interaction].reschedule(asyncio.get_running_loop().time())
        return True

    def is_recallable(self, interaction: int) -> bool:
        """All of it that has left lies with a service that may give it back."""
        present = self._ledger.interaction(interaction)
        flying = [m for m in self._ledger.messages_of(interaction) if m.state in IN_FLIGHT]
        if present is None or not flying or not all(message.ref for message in flying):
            return False
        return hasattr(self._links.adapter(present.device), "cancel")

    async def recall(self, interaction: int, actor: str) -> None:
        """Ask the service for what it has taken; what it gives back has failed as CANCELLED, the rest goes on."""
        for message in [m for m in self._ledger.messages_of(interaction) if m.state in IN_FLIGHT]:
            adapter: Any = self._links.adapter(message.device)
            present = self._ledger.interaction(interaction)
            request = self.request(present, message.attempt, message.phase) if present is not None else None
            if adapter is None or not isinstance(request, Dispatch):
                continue
            text = "It had been handed on already and goes on."
            given_back: Disposition | None = None
            gone: DeliveryFailure | None = None
            try:
                async with asyncio.timeout(self._site.limits(message.device).accept_timeout_s):
                    given_back = await adapter.cancel(request, message.ref)
            except DeliveryFailure as exc:
                text = str(exc)
                gone = exc if exc.disposition is not Disposition.RETRY else None
            except (TimeoutError, LinkError, ProtocolError, ParameterError) as exc:
                text = f"Calling it back failed: {exc or 'no answer in time.'} It goes on."
            except Exception as exc:  # noqa: BLE001 - crash boundary of one recall (DECISIONS D-005)
                _log.exception("the adapter of %s failed on a recall", message.device)
                text = fault_text(exc)
            current = self._current(message)
            if current is None:
                continue
            if gone is not None:
                self._after_failure(current, gone.code, text, gone.disposition)
            elif given_back is not None:
                disposition = given_back if request.spec.has_effect else Disposition.FINAL
                code = "CANCELLED" if disposition is Disposition.FINAL else "CANCELLED_LATE"  # it may have left before
                self._after_failure(current, code, f"{request.spec.name} was cancelled.", disposition)
            elif present is not None:
                line = entry(present, self._clock.now(), Step.NETWORK, NOT_CANCELLED, text=text, actor=actor)
                self._ledger.keep(line)
        self.kick()

    def reprioritise(self, message: Message, priority: int) -> None:
        """A waiting or flying message counts as more urgent from now on."""
        self._store(replace(message, priority=priority))

    def _store(self, message: Message, *more: Change, durable: bool = False) -> None:
        self._ledger.keep(message, *more, durable=durable)
        self._lanes.update(message)
        if is_over(message):
            self._disarm(message.id)

    def _due(self, number: int) -> None:
        message = self._ledger.message(number)
        if message is None or message.state is not Delivery.TO_RETRY:
            return
        self._store(message.after(Move.DUE, self._clock.now(), due=None))

    def _free_slot(self, number: int) -> None:
        """A polled task that has waited long gives its slot to others (D-53)."""
        message = self._ledger.message(number)
        if message is not None and message.state in IN_FLIGHT and message.holds_slot:
            self._store(replace(message, holds_slot=False))

    def _expire(self, number: int) -> None:
        interaction = self._ledger.interaction(number)
        if interaction is None or interaction.status not in (Status.QUEUED, Status.SUSPENDED, Status.DEFERRED):
            return
        if interaction.expires_at is None or interaction.expires_at > self._clock.now():
            return  # it was given more time since
        cancelled = self.cancellable(number)
        if cancelled is None:
            return
        now = self._clock.now()
        text = f"{interaction.command} waited longer than it may and was given up before it was sent."
        failure = Failure(code="EXPIRED", text=text, at=now, is_final=True)
        self.settle(interaction, Event.ABORT, failure=failure, step=Step.QUEUE, before=cancelled)

    # ---------------------------------------------------------------- one attempt

    def _leave(self, message: Message) -> None:
        """Pick: from here on the message is in flight; its attempt becomes durable before anything is sent."""
        now = self._clock.now()
        interaction = self._ledger.interaction(message.interaction)
        if interaction is None or interaction.is_settled:
            self._store(message.after(Move.CANCEL, now))
            return
        message = message.after(
            Move.PICK, now, attempt=message.attempt + 1, ref="", holds_slot=True, hold_reason="", accepted=None
        )
        number = message.attempt
        lines = [entry(interaction, now, Step.QUEUE, "picked", attempt=number)]
        if interaction.status is Status.QUEUED:
            interaction = interaction.after(Event.SEND, now, attempts=number, failure=None)
            lines.append(entry(interaction, now, Step.ENCODE, Event.SEND, changed=True, attempt=number))
        else:
            interaction = interaction.edited(now, attempts=number)
            lines.append(entry(interaction, now, Step.ENCODE, "again", attempt=number))
        attempt = Attempt(interaction=interaction.id, message=message.id, number=number, started=now)
        secured = self._ledger.keep(message, attempt, interaction, *lines, durable=True)
        self._lanes.update(message)
        self._spawn(self._carry(message, interaction, secured), f"send:{interaction.id}")

    async def _carry(
        self, message: Message, interaction: Interaction, secured: asyncio.Future[None] | None
    ) -> None:
        try:
            if secured is None:
                return  # halted: nothing may leave; the message waits in the file as it was
            await secured
        except StoreError:
            return
        crossing = _Crossing()
        request = self.request(interaction, message.attempt, message.phase, crossing)
        if isinstance(request, DeliveryFailure):
            self._after_failure(message, request.code, str(request), request.disposition)
            return
        adapter = self._links.adapter(message.device)
        limits = self._site.limits(message.device)
        limit = self._call_limit(request.spec, limits)
        try:
            if adapter is None:
                raise LinkError(
                    "The link was closed before the command could leave.", LinkReason.CLOSED, may_have_arrived=False
                )
            async with asyncio.timeout(limit) as ending:
                if request.spec.pattern is ReplyPattern.DIRECT and not request.spec.has_effect:
                    self._reads[interaction.id] = ending
                outcome = await adapter.submit(request)
        except TimeoutError:
            if actor := self._stopped.get(interaction.id):
                text = f"{request.spec.title} was stopped by {actor} under way. What came is in the frames."
                self._failed(message, crossing, "STOPPED", text, Disposition.FINAL)
            else:
                disposition = _unless_safe(request.spec, Disposition.RETRY)
                text = f"{request.device.name} did not answer {request.spec.title} in {limit:g} s."
                self._failed(message, crossing, "NS_ACCEPT_TIMEOUT", text, disposition)
        except DeliveryFailure as exc:
            self._failed(message, crossing, exc.code, str(exc), exc.disposition, exc.detail)
        except LinkError as exc:
            disposition = Disposition.RETRY
            if exc.may_have_arrived:
                disposition = _unless_safe(request.spec, disposition)
            self._failed(message, crossing, f"LINK_{exc.reason.name}", str(exc), disposition)
        except RemoteProtocolError as exc:  # it answered, and the answer cannot be read (D-29)
            answer = Answer(execution=Execution.FAILURE, code="UNDECODABLE", text=str(exc))
            self._answered(message.id, message.attempt, answer, crossing)
        except (ConfigError, LocalProtocolError, ParameterError) as exc:
            self._failed(message, crossing, "UNSUPPORTED", str(exc), Disposition.FINAL)
        except Exception as exc:  # noqa: BLE001 - crash boundary of one attempt (DECISIONS D-005)
            _log.exception("the adapter of %s failed", message.device)
            self._failed(message, crossing, FAULT, fault_text(exc), _unless_safe(request.spec, Disposition.FINAL))
        else:
            if isinstance(outcome, Accepted):
                self._accepted(message, outcome.ref, crossing)
            else:
                self._answered(message.id, message.attempt, outcome, crossing)
        finally:
            self._reads.pop(interaction.id, None)
            self._stopped.pop(interaction.id, None)
        self.kick()

    def request(
        self, interaction: Interaction, attempt: int, phase: str = "", crossing: _Crossing | None = None
    ) -> Dispatch | DeliveryFailure:
        """One attempt as an adapter gets it, or why there can be none."""
        device = self._site.device(interaction.device)
        if device is None:
            return DeliveryFailure("NO_DEVICE", f"{interaction.device} is no longer in the tree.", Disposition.FINAL)
        spec = self._site.spec(interaction.device, interaction.command)
        if spec is None:
            text = f"{device.name} does not offer {interaction.command} any more."
            return DeliveryFailure("UNSUPPORTED", text, Disposition.FINAL)
        params = {k: v for k, v in interaction.params.items() if v is not None}
        if interaction.replay_of is None:
            secrets = dict(self._site.secrets(interaction.id))
            if spec.token is TokenUse.GIVEN and interaction.token:
                secrets["token"] = interaction.token  # kept with the row, so that a restart does not lose it
            try:
                params = check_params(spec.params, {**params, **secrets}, spec.name)
            except ParameterError as exc:
                return DeliveryFailure("BAD_PARAMETER", str(exc), Disposition.FINAL)
        tap = self._ledger.tap(device.id, interaction.id, attempt)
        run = self._runs(interaction, phase)
        return Dispatch(
            interaction=interaction,
            device=device,
            spec=spec,
            params=params,
            attempt=attempt,
            tap=self._timed(tap, crossing) if crossing is not None else tap,
            phase=phase,
            was_sent_before=attempt > 1 or run > 1,
            run=run,
        )

    def _runs(self, interaction: Interaction, phase: str) -> int:
        """How many messages of this interaction have left this program; a retry is a new message."""
        return max(1, sum(1 for m in self._ledger.messages_of(interaction.id) if m.phase == phase and m.attempt > 0))

    def _timed(self, tap: Tap, crossing: _Crossing) -> Tap:
        def timed(direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
            now = self._clock.now()
            if direction is Direction.OUT:
                crossing.first_out = crossing.first_out or now
            else:
                crossing.last_in = now
            tap(direction, data, note, link=link)

        return timed

    @staticmethod
    def _call_limit(spec: CommandSpec, limits: Limits) -> float:
        if spec.pattern is ReplyPattern.DIRECT and spec.answer_timeout_s is not None:
            return spec.answer_timeout_s
        return limits.accept_timeout_s

    def _current(self, message: Message) -> Message | None:
        """The message as it is now, if its present attempt is still ours and open."""
        present = self._ledger.message(message.id)
        if present is None or present.attempt != message.attempt or present.state not in IN_FLIGHT:
            return None
        return present

    # ---------------------------------------------------------------- accepted: push, pull, by effect

    def _accepted(self, message: Message, ref: str, crossing: _Crossing) -> None:
        now = self._clock.now()
        present = self._current(message)
        if present is None or present.state is not Delivery.SENT_TO_NS:
            return
        interaction = self._ledger.interaction(message.interaction)
        if interaction is None:
            return
        present = present.after(Move.ACCEPT, now, ref=ref, accepted=now)
        lines = _crossing_lines(interaction, crossing, message.attempt)
        text = f"Reference {ref}."
        lines.append(entry(interaction, now, Step.NETWORK, "accepted", text=text, attempt=message.attempt))
        self._store(present, *lines, durable=True)
        self._await_answer(present)

    def _await_answer(self, message: Message) -> None:
        """Register the reference and set the deadlines of an accepted message."""
        spec = self._spec_of(message)
        limits = self._site.limits(message.device)
        scope = self._links.scope(message.device)
        try:
            early = self._correlator.expect(scope, message.ref, Expectation(message.id, message.attempt))
        except LocalProtocolError as exc:
            # Two commands under one reference: an answer could not be told apart, so none is believed.
            disposition = Disposition.RETRY if spec is None else _unless_safe(spec, Disposition.RETRY)
            self._after_failure(message, "DUPLICATE_REFERENCE", str(exc), disposition)
            return
        now = self._clock.monotonic()
        if message.state is Delivery.SENT_TO_DEVICE:
            self._arm("stage", message.id, now + limits.device_timeout_s)
        else:
            self._arm("stage", message.id, now + _stage_s(spec, limits))
        if spec is not None and spec.pattern is ReplyPattern.PULL:
            self._arm("poll", message.id, self._on_grid(now + limits.first_poll_s, limits))
            self._arm("slot", message.id, now + limits.slot_hold_s)
        for uplink in early:
            self.take(scope, uplink)

    def _on_grid(self, at: float, limits: Limits) -> float:
        grid = limits.poll_grid_s
        if grid <= 0:
            return at
        return self._started + math.ceil((at - self._started) / grid - 1e-9) * grid

    async def _poll(self, number: int) -> None:
        message = self._ledger.message(number)
        if message is None or message.state not in IN_FLIGHT:
            return
        interaction = self._ledger.interaction(message.interaction)
        adapter = self._links.adapter(message.device)
        limits = self._site.limits(message.device)
        crossing = _Crossing()
        request = None
        if interaction is not None:
            request = self.request(interaction, message.attempt, message.phase, crossing)
        if isinstance(request, Dispatch) and adapter is not None:
            try:
                async with asyncio.timeout(limits.accept_timeout_s):
                    answer = await adapter.poll(request, message.ref)
            except DeliveryFailure as exc:
                if exc.disposition is Disposition.FINAL:
                    self._failed(message, crossing, exc.code, str(exc), exc.disposition, exc.detail)
                    self.kick()
                    return
                answer = None
            except (TimeoutError, LinkError, RemoteProtocolError, LocalProtocolError, ParameterError) as exc:
                # D-28: a failed poll is polled again; it never sends the command a second time.
                _log.info("poll of %s failed: %s", message.ref, exc, extra={"interaction": message.interaction})
                answer = None
            except Exception:  # noqa: BLE001 - crash boundary of one poll (DECISIONS D-005)
                _log.exception("the adapter of %s failed on a poll", message.device)
                answer = None
            if answer is not None:
                self._answered(message.id, message.attempt, answer, crossing)
                self.kick()
                return
        present = self._current(message)
        if present is not None:
            age = (self._clock.now() - present.created).total_seconds()
            delay = next((delay for below, delay in limits.poll_s if age < below), limits.poll_late_s)
            self._arm("poll", number, self._on_grid(self._clock.monotonic() + delay, limits))

    def _stage_over(self, number: int) -> None:
        message = self._ledger.message(number)
        if message is None or message.state not in (Delivery.DELIVERED_TO_NS, Delivery.SENT_TO_DEVICE):
            return
        limits = self._site.limits(message.device)
        if message.state is Delivery.DELIVERED_TO_NS and limits.renewable:
            self._spawn(self._ask_still_waiting(message), f"ask:{message.interaction}")
            return
        self._stage_failed(message)

    async def _ask_still_waiting(self, message: Message) -> None:
        interaction = self._ledger.interaction(message.interaction)
        adapter = self._links.adapter(message.device)
        limits = self._site.limits(message.device)
        request = self.request(interaction, message.attempt, message.phase) if interaction is not None else None
        waiting = False
        if isinstance(request, Dispatch) and adapter is not None:
            try:
                async with asyncio.timeout(limits.accept_timeout_s):
                    waiting = await adapter.is_waiting(request, message.ref)
            except (TimeoutError, LinkError, ProtocolError, ParameterError, DeliveryFailure) as exc:
                _log.info("asking for %s failed: %s", message.ref, exc, extra={"interaction": message.interaction})
            except Exception:  # noqa: BLE001 - crash boundary of one question (DECISIONS D-005)
                _log.exception("the adapter of %s failed when asked for %s", message.device, message.ref)
        present = self._current(message)
        if present is None:
            return
        if waiting:
            self._arm("stage", message.id, self._clock.monotonic() + _stage_s(self._spec_of(message), limits))
        else:
            self._stage_failed(present)
            self.kick()

    def _stage_failed(self, message: Message) -> None:
        limits = self._site.limits(message.device)
        spec = self._spec_of(message)
        if message.state is Delivery.SENT_TO_DEVICE:
            code, seconds = "DEVICE_TIMEOUT", limits.device_timeout_s
        else:
            code, seconds = limits.stage_code, _stage_s(spec, limits)
        disposition = Disposition.FINAL if limits.stage_is_final else Disposition.RETRY
        if spec is not None:
            disposition = _unless_safe(spec, disposition)
        device = self._site.device(message.device)
        name = device.name if device is not None else message.device
        self._after_failure(message, code, f"{name} did not answer in {seconds:g} s.", disposition)

    # ---------------------------------------------------------------- uplinks

    def take(self, scope: str, uplink: RefUplink) -> None:
        """An uplink that names a reference."""
        found = self._correlator.find(scope, uplink.ref)
        if found is None or self._find_message(found.message) is None:
            row = self._long_over(scope, uplink)
            messages = self._ledger.messages_of(row.id) if row is not None else ()
            found = next((Expectation(m.id, m.attempt) for m in messages if m.ref == uplink.ref), None)
            if found is None and row is not None:
                self._came_late(row, f"An answer to an earlier attempt ({uplink.ref})")
                return
        if found is None:
            self._correlator.park(scope, uplink.ref, uplink, self._clock.monotonic())
            self._wake.set()
            return
        if isinstance(uplink, LateOrPushed):
            self._answered(found.message, found.attempt, uplink.answer, _Crossing())
        else:
            message = self._ledger.message(found.message)
            if message is None or message.attempt != found.attempt or message.state not in IN_FLIGHT:
                if isinstance(uplink, Refused) and uplink.interaction is not None:
                    self._refused_late(found, uplink)
                return  # about an attempt that is over
            if isinstance(uplink, Refused):
                self._after_failure(message, uplink.code, uplink.text, uplink.disposition, uplink.detail)
            elif isinstance(uplink, Progress):
                self._progressed(message, uplink)
            elif message.state is Delivery.DELIVERED_TO_NS:
                self._transmitted(message)
        self.kick()

    def _long_over(self, scope: str, uplink: RefUplink) -> Interaction | None:
        """The row that the reference of an end names: one that was forgotten since, or of an earlier run.

        None: it names none, one that is not over, or one of another connection.
        """
        if not isinstance(uplink, LateOrPushed | Refused) or uplink.interaction is None:
            return None
        number = uplink.interaction
        if self._ledger.interaction(number) is None and not self._site.bring_back(number):
            return None
        row = self._ledger.interaction(number)
        if row is None or not row.is_settled or self._links.scope(row.device) != scope:
            return None
        return row

    def _retire(self, message: Message) -> None:
        self._correlator.retire(message.id, self._clock.monotonic(), self._site.limits(message.device).late_s)

    def _refused_late(self, found: Expectation, uplink: Refused) -> None:
        """A refusal of a row that is over: it ends one of unknown outcome, and is a note at any other (D-20)."""
        message = self._find_message(found.message)
        interaction = self._ledger.interaction(message.interaction) if message is not None else None
        if message is None or interaction is None or not interaction.is_settled:
            return
        now = self._clock.now()
        is_unknown = interaction.status is Status.OUTCOME_UNKNOWN and message.state is Delivery.DELIVERY_FAILED
        if is_unknown and uplink.disposition is Disposition.FINAL and message.attempt == found.attempt:
            failure = Failure(code=uplink.code, text=uplink.text, at=now, detail=uplink.detail, is_final=True)
            self.settle(interaction, Event.LATE_FAILURE, failure=failure, step=Step.UPDATED, attempt=found.attempt)
            return
        self._came_late(interaction, f"A late end ({uplink.code})", found.attempt)

    def _came_late(self, interaction: Interaction, what: str, attempt: int | None = None) -> None:
        """A second end of a row, kept as a note (D-20)."""
        text = f"{what} changed nothing: {interaction.status}."
        line = entry(interaction, self._clock.now(), Step.MATCH, "late", code="LATE_ANSWER", text=text, attempt=attempt)
        self._ledger.keep(line)

    def _progressed(self, message: Message, uplink: Progress) -> None:
        interaction = self._ledger.interaction(message.interaction)
        if interaction is not None:
            line = entry(interaction, self._clock.now(), Step.NETWORK, uplink.event, code=uplink.code, text=uplink.text,
                         attempt=message.attempt)  # fmt: skip
            self._ledger.keep(line)

    def _transmitted(self, message: Message) -> None:
        now = self._clock.now()
        interaction = self._ledger.interaction(message.interaction)
        if interaction is None:
            return
        line = entry(interaction, now, Step.METER, "transmitted", attempt=message.attempt)
        message = message.after(Move.TRANSMIT, now)
        self._store(message, line)
        self._arm("stage", message.id, self._clock.monotonic() + self._site.limits(message.device).device_timeout_s)

    def judge_effects(self, telemetry: Telemetry) -> None:
        """By-effect replies: telemetry may show that a waiting command worked."""
        device = telemetry.samples.device
        if not self._lanes.is_busy(device):
            return
        adapter = self._links.adapter(device)
        if adapter is None:
            return
        for message in [m for m in self._ledger.messages.values() if m.device == device and m.state in IN_FLIGHT]:
            spec = self._spec_of(message)
            interaction = self._ledger.interaction(message.interaction)
            if spec is None or interaction is None or spec.pattern is not ReplyPattern.EFFECT:
                continue
            if message.state is Delivery.SENT_TO_NS:
                continue
            request = self.request(interaction, message.attempt, message.phase)
            answer = adapter.judge_effect(request, telemetry) if isinstance(request, Dispatch) else None
            if answer is not None:
                self._answered(message.id, message.attempt, answer, _Crossing())
                self.kick()

    def _unmatched(self, scope: str, ref: str) -> None:
        device = next((name for name in self._scope_devices(scope)), "")
        self._ledger.keep(
            Finding(
                at=self._clock.now(),
                device=device,
                severity=Severity.INFO,
                code="UNMATCHED_ANSWER",
                text=f"An answer came for reference {ref}, which no command of this workspace is waiting for.",
            )
        )

    def _scope_devices(self, scope: str) -> list[str]:
        return [state.device for state in self._twin.states() if self._links.scope(state.device) == scope]

    # ---------------------------------------------------------------- outcomes

    def _answered(self, number: int, attempt: int, answer: Answer, crossing: _Crossing) -> None:
        """An answer to one attempt, whatever became of the message since (D-24)."""
        now = self._clock.now()
        message = self._find_message(number)
        if message is None:
            return
        interaction = self._ledger.interaction(message.interaction)
        if interaction is None:
            return
        success = answer.execution is Execution.SUCCESS
        lines = _crossing_lines(interaction, crossing, attempt)
        lines.append(entry(interaction, crossing.last_in or now, Step.ANSWER, "answered", attempt=attempt))
        lines.append(entry(interaction, now, Step.DECODE, answer.execution.value, code=answer.code, attempt=attempt))
        extra: list[Change] = [*answer.samples, *answer.findings]
        event = _late_event(interaction.status, answer.execution)
        if event is None or message.state is Delivery.DELIVERY_SUCCESSFUL or message.state is Delivery.CANCELLED:
            # A second answer, or one to a command given up meanwhile: kept as a note (D-20), facts still count.
            text = f"A late answer ({answer.execution.value}) changed nothing: {interaction.status}."
            lines.append(entry(interaction, now, Step.MATCH, "late", code="LATE_ANSWER", text=text, attempt=attempt))
            self._ledger.keep(*lines, *extra)
            return
        is_late = message.attempt != attempt or message.state not in IN_FLIGHT
        lines.append(entry(interaction, now, Step.MATCH, "late" if is_late else "matched", attempt=attempt))
        message = message.after(Move.ANSWER, now, holds_slot=False, due=None)
        closed = self._ledger.closed_attempt(message, attempt, AttemptEnd.ANSWERED, now, answer.code, answer.text)
        self._lanes.update(message)
        self._disarm(message.id)
        self._retire(message)
        before: list[Change] = [message, closed, *lines, *extra]
        if message.phase:
            combined = self._phase_over(interaction, message, answer, before)
            if combined is None:
                return
            moved = _late_event(interaction.status, combined.execution)
            if moved is None:  # one more value of a read that stays failed
                edited = interaction.edited(now, result=jsonable(combined.result))
                self._ledger.keep(*before, edited, durable=True)
                return
            answer, event = combined, moved
            success = answer.execution is Execution.SUCCESS
        failure = None
        if not success:
            text = answer.text or "The device refused."
            release = "Reading back shows what happened." if event is Event.LOSE_SIGHT else ""
            failure = Failure(
                code=answer.code or "REFUSED", text=text, at=now, release=release, is_final=event is Event.FAIL
            )
        self.settle(
            interaction,
            event,
            failure=failure,
            step=Step.UPDATED,
            answer=answer,
            before=before,
            attempt=attempt,
            is_contact=answer.code != "UNDECODABLE" and self._speaks_for_the_meter(message),
        )

    def _speaks_for_the_meter(self, message: Message) -> bool:
        """Its answer is a word of a meter in the field, not of a server on the way."""
        spec = self._spec_of(message)
        is_direct = self._site.limits(message.device).reach is Reach.DIRECT
        return not is_direct and spec is not None and spec.reaches_device

    def _phase_over(
        self, interaction: Interaction, message: Message, answer: Answer | None, rows: list[Change]
    ) -> Answer | None:
        """One phase has ended, answered or given up (None). The answer of all three once none is missing."""
        spec = self._spec_of(message)
        if spec is None:
            return answer or Answer(execution=Execution.FAILURE, code="UNSUPPORTED")
        result = phases.with_phase(interaction, spec, message.phase, answer)
        if phases.is_complete(result):
            return phases.combined(result, spec)
        edited = interaction.edited(self._clock.now(), result=jsonable(result))
        self._ledger.keep(*rows, edited, durable=True)
        return None

    def _find_message(self, number: int) -> Message | None:
        message = self._ledger.message(number)
        if message is not None:
            return message
        return self._ledger.settled_message(number)

    def _failed(
        self,
        message: Message,
        crossing: _Crossing,
        code: str,
        text: str,
        disposition: Disposition,
        detail: str = "",
    ) -> None:
        present = self._current(message)
        interaction = self._ledger.interaction(message.interaction)
        if present is None or interaction is None:
            return  # the message went on without this attempt (a late answer to an earlier one)
        lines = _crossing_lines(interaction, crossing, message.attempt)
        if lines:
            self._ledger.keep(*lines)
        self._after_failure(present, code, text, disposition, detail)

    def _after_failure(
        self, message: Message, code: str, text: str, disposition: Disposition, detail: str = ""
    ) -> None:
        """Retry, give up, or lose sight of it (4.6)."""
        now = self._clock.now()
        interaction = self._ledger.interaction(message.interaction)
        if interaction is None:
            return
        limits = self._site.limits(message.device)
        closed = self._ledger.closed_attempt(message, message.attempt, AttemptEnd.FAILED, now, code, text)
        policy = limits.retry
        if disposition is Disposition.RETRY and message.retry_count < policy.retries:
            delay = min(policy.backoff_s * 2.0**message.retry_count, policy.cap_s)
            delay += delay * policy.jitter * self._rng.random()
            tries = policy.retries + 1
            said = f"{text} Try {message.attempt} of {tries}; the next in {delay:.0f} s."
            release = f"It is tried again in {delay:.0f} s."
            failure = Failure(code=code, text=text, at=now, detail=detail, release=release)
            message = message.after(
                Move.RETRY,
                now,
                retry_count=message.retry_count + 1,
                due=now + timedelta(seconds=delay),
                holds_slot=False,
            )
            edited = interaction.edited(now, failure=failure)
            line = entry(edited, now, Step.NETWORK, "retry", code=code, text=said, attempt=message.attempt)
            self._disarm(message.id)
            self._store(message, closed, edited, line, durable=True)
            self._arm("due", message.id, self._clock.monotonic() + delay)
            return
        message = message.after(Move.GIVE_UP, now, holds_slot=False)
        self._lanes.update(message)
        self._disarm(message.id)
        self._retire(message)
        event = Event.LOSE_SIGHT if disposition is Disposition.UNKNOWN else Event.FAIL
        release = ""
        combined = None
        if message.phase:
            line = entry(interaction, now, Step.NETWORK, f"phase {message.phase} given up", code=code, text=text,
                         attempt=message.attempt)  # fmt: skip
            combined = self._phase_over(interaction, message, None, [message, closed, line])
            if combined is None:
                return
            text = f"{text} {combined.text}"
        if event is Event.LOSE_SIGHT:
            text = f"{text} Whether {interaction.command} took effect is not known; it is not sent again by itself."
            release = "Reading back shows what happened."
        failure = Failure(
            code=code, text=text, at=now, detail=detail, release=release, is_final=event is Event.FAIL,
            disposition=disposition.value,
        )  # fmt: skip
        self.settle(
            interaction,
            event,
            failure=failure,
            step=Step.UPDATED,
            answer=combined,
            before=[message, closed],
            attempt=message.attempt,
        )

    def settle(
        self,
        interaction: Interaction,
        event: Event,
        *,
        failure: Failure | None,
        step: Step,
        answer: Answer | None = None,
        before: list[Change] | None = None,
        attempt: int | None = None,
        actor: str = "app",
        is_contact: bool = False,
    ) -> Interaction:
        """Write a settled status with its outbox in one durable transaction, and start the effects."""
        now = self._clock.now()
        self._read_back_said.pop(interaction.id, None)
        result = jsonable(answer.result) if answer is not None and answer.result else interaction.result
        after = interaction.after(event, now, failure=failure, result=result)
        text = failure.text if failure is not None else (answer.text if answer is not None else "")
        code = failure.code if failure is not None else (answer.code if answer is not None else "")
        line = entry(after, now, step, event, changed=True, code=code, text=text, attempt=attempt, actor=actor)
        spec = self._site.spec(after.device, after.command)
        sequence = max((change.sequence for change in before or [] if isinstance(change, Message)), default=0)
        items = outbox_of(self._ledger, after, spec, answer, is_contact=is_contact, sequence=sequence)
        moved = [*(before or []), *self._left_behind(after.id, before or [])]
        moved += self._open_attempts(moved, now)
        rows: list[Change] = [*moved, after, line, *items]
        if not items:
            rows += closing_lines(after, now)
        self._armed.pop(("expire", after.id), None)
        self._ledger.keep(*rows, durable=True)
        for change in moved:
            if isinstance(change, Message):
                self._lanes.update(change)
                if is_over(change):
                    self._disarm(change.id)
        if spec is not None and is_doubtful(after, spec):
            self._lanes.block(after.device, after.field_group)  # until its effect was read back (G8)
        if items:
            self._add_effects(items)
        self._site.settled(after, event)
        return after

    def _left_behind(self, interaction: int, moved: list[Change]) -> list[Change]:
        """Messages of a settled row that wait or fly for nothing: they give up their places."""
        ended = {change.id for change in moved if isinstance(change, Message)}
        now = self._clock.now()
        rows: list[Change] = []
        for message in self._ledger.messages_of(interaction):
            if message.id in ended or is_over(message):
                continue
            move = Move.CANCEL if message.state in CANCELLABLE else Move.GIVE_UP
            self._retire(message)
            rows.append(message.after(move, now, holds_slot=False, due=None))
        return rows

    def _open_attempts(self, moved: list[Change], now: datetime) -> list[Change]:
        """Attempts of messages that are over and that no answer of their own will end."""
        closed = {(change.message, change.number) for change in moved if isinstance(change, Attempt)}
        text = "Another attempt was answered, or the command was given up, while this one was under way."
        return [
            replace(attempt, end=AttemptEnd.LOST, ended=now, code="OVERTAKEN", text=text)
            for change in moved
            if isinstance(change, Message) and is_over(change)
            for attempt in self._ledger.open_attempts(change.id)
            if (attempt.message, attempt.number) not in closed
        ]

    def unblock(self, device: str, field_group: str) -> None:
        """Writes of a field may leave again."""
        self._lanes.unblock(device, field_group)
        self.kick()

    # ---------------------------------------------------------------- read back, restart

    def _tell_once(self, interaction: Interaction, text: str, code: str = "") -> None:
        """A line about a read-back; one that is repeated while a meter is away says the same once."""
        if self._read_back_said.get(interaction.id) != text:
            self._read_back_said[interaction.id] = text
            self._ledger.keep(entry(interaction, self._clock.now(), Step.EFFECTS, "read back", code=code, text=text))

    async def verify(self, interaction: Interaction) -> Interaction | None:
        """Ask the device, without side effect, whether a command of unknown outcome worked (design.md section 4).

        Returns the settled interaction, or None where nobody could tell.
        """
        adapter: Adapter | None = self._links.adapter(interaction.device)
        if adapter is None:
            return None
        request = self.request(interaction, interaction.attempts)
        if isinstance(request, DeliveryFailure):
            return None
        limits = self._site.limits(interaction.device)
        try:
            async with asyncio.timeout(self._call_limit(request.spec, limits)):
                answer = await adapter.verify(request)
        except (TimeoutError, LinkError, ProtocolError, ParameterError, DeliveryFailure) as exc:
            self._tell_once(interaction, f"Reading back failed: {exc}")
            return None
        except Exception as exc:  # noqa: BLE001 - crash boundary of one read-back (DECISIONS D-005)
            _log.exception("the adapter of %s failed on a read-back", interaction.device)
            self._tell_once(interaction, fault_text(exc))
            return None
        present = self._ledger.interaction(interaction.id)
        if answer is None:
            self._tell_once(interaction, NOTHING_SHOWS, CANNOT_TELL)
        if answer is None or present is None or present.status is not Status.OUTCOME_UNKNOWN:
            return present if present is not None and present.status is not Status.OUTCOME_UNKNOWN else None
        now = self._clock.now()
        if answer.execution is Execution.SUCCESS:
            return self.settle(present, Event.LATE_SUCCESS, failure=None, step=Step.EFFECTS, answer=answer)
        before = present.failure
        code = before.code if before is not None else answer.code or "NO_EFFECT"
        text = f"{before.text} Read back: {answer.text}" if before is not None else answer.text
        failure = Failure(code=code, text=text, at=now, detail=answer.code, is_final=True)
        return self.settle(present, Event.LATE_FAILURE, failure=failure, step=Step.EFFECTS, answer=answer)

    def adopt(self) -> None:
        """After a restart: put waiting messages back and take up those that were in flight (ARCHITECTURE.md)."""
        now = self._clock.now()
        mono = self._clock.monotonic()
        for message in sorted(self._ledger.messages.values(), key=lambda m: m.sequence):
            interaction = self._ledger.interaction(message.interaction)
            if interaction is None or is_over(message):
                continue
            self._lanes.limit(message.lane, self._site.limits(message.device))
            match message.state:
                case Delivery.QUEUED:
                    self._lanes.update(message)
                case Delivery.TO_RETRY:
                    self._lanes.update(message)
                    left = (message.due - now).total_seconds() if message.due is not None else 0.0
                    self._arm("due", message.id, mono + max(0.0, left))
                case Delivery.DELIVERED_TO_NS | Delivery.SENT_TO_DEVICE:
                    self._lanes.update(message)
                    self._ledger.keep(
                        entry(interaction, now, Step.NETWORK, "adopted", text="The program was restarted; "
                              "its answer is awaited again.", attempt=message.attempt)
                    )  # fmt: skip
                    self._await_answer(message)
                case _:
                    self._adopt_open(message, interaction, now)
        for interaction in list(self._ledger.interactions.values()):
            self.watch_expiry(interaction)

    def _adopt_open(self, message: Message, interaction: Interaction, now: datetime) -> None:
        """An attempt was open when the program died: nobody knows whether it left."""
        spec = self._spec_of(message)
        text = "The program stopped while this attempt was under way."
        lost = self._ledger.closed_attempt(message, message.attempt, AttemptEnd.LOST, now, RESTART, text)
        may_repeat = interaction.kind is CommandKind.READ or (spec is not None and spec.resend is Resend.SAFE)
        if may_repeat or self._site.limits(message.device).asks_first:
            message = message.after(Move.RETRY, now, due=now, holds_slot=False)
            interaction = interaction.edited(now, failure=Failure(code=RESTART, text=text, at=now))
            how = "It may be repeated without harm and is sent again." if may_repeat else "Its fate is asked for first."
            line = entry(interaction, now, Step.NETWORK, "retry", code=RESTART, attempt=message.attempt,
                         text=f"{text} {how}")  # fmt: skip
            self._lanes.update(message)
            self._ledger.keep(message, lost, interaction, line, durable=True)
            self._arm("due", message.id, self._clock.monotonic())
            return
        message = message.after(Move.GIVE_UP, now, holds_slot=False)
        self._lanes.update(message)
        failure = Failure(
            code=RESTART,
            text=f"{text} Whether {interaction.command} took effect is not known; it is not sent again by itself.",
            at=now,
            release="Reading back shows what happened.",
        )
        self.settle(
            interaction,
            Event.LOSE_SIGHT,
            failure=failure,
            step=Step.UPDATED,
            before=[message, lost],
            attempt=message.attempt,
        )

    def _spec_of(self, message: Message) -> CommandSpec | None:
        interaction = self._ledger.interaction(message.interaction)
        return self._site.spec(message.device, interaction.command) if interaction is not None else None


FAULT: Final = "ADAPTER_FAULT"


def fault_text(exc: Exception) -> str:
    """Said of an exception that no adapter should raise (DECISIONS D-005)."""
    return f"The adapter has a fault of its own ({type(exc).__name__}); the program's log has the details."


def _stage_s(spec: CommandSpec | None, limits: Limits) -> float:
    """How long an accepted command waits for the device."""
    if spec is not None and spec.answer_timeout_s is not None and spec.pattern is not ReplyPattern.DIRECT:
        return spec.answer_timeout_s
    return limits.stage_timeout_s


def _unless_safe(spec: CommandSpec, disposition: Disposition) -> Disposition:
    """UNKNOWN for a command whose second copy could do harm (design.md section 4, last paragraph)."""
    if spec.kind is CommandKind.READ or spec.resend is Resend.SAFE:
        return disposition
    return Disposition.UNKNOWN


def _late_event(status: Status, execution: Execution) -> Event | None:
    """What an answer does to an interaction of this status; None: nothing any more."""
    if execution is Execution.UNKNOWN:
        return Event.LOSE_SIGHT if status is Status.PROCESSING else None
    success = execution is Execution.SUCCESS
    match status:
        case Status.QUEUED | Status.PROCESSING:
            return Event.SUCCEED if success else Event.FAIL
        case Status.FAILED:
            return Event.LATE_SUCCESS if success else None
        case Status.OUTCOME_UNKNOWN:
            return Event.LATE_SUCCESS if success else Event.LATE_FAILURE
        case _:
            return None


def _crossing_lines(interaction: Interaction, crossing: _Crossing, attempt: int) -> list[StepEntry]:
    """Steps 7 and 8, from the moments at which the bytes crossed."""
    lines = []
    if crossing.first_out is not None:
        lines.append(entry(interaction, crossing.first_out, Step.NETWORK, "sent", attempt=attempt))
    if crossing.last_in is not None:
        lines.append(entry(interaction, crossing.last_in, Step.METER, "reached", attempt=attempt))
    return lines
