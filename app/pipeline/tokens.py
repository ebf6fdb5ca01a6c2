"""Prepayment tokens: made once for an interaction, stored with it, and sent again as they are (command-flow 1.5).

A row that needs a token is on disk as QUEUED before anybody is asked, because making one may be a sale; its message
follows in the transaction that stores the token. The issue time of a meter's next token is kept in the same commit
that reserves it (D-14), together with the interaction it is for: after a crash, a token that may have been sold is
not bought a second time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.errors import ConfigError, LinkError, LocalProtocolError, ParameterError, RemoteProtocolError, StoreError
from app.model.command import CommandSpec, TokenUse
from app.model.interaction import Failure, Interaction, Step
from app.model.records import Change
from app.model.status import Event, Status
from app.pipeline.dispatch import Dispatcher, fault_text
from app.pipeline.field_twin import FieldTwin
from app.pipeline.ledger import Ledger, entry
from app.pipeline.links import Links
from app.pipeline.tree import Tree
from app.ports import DeliveryFailure, Dispatch, Disposition, TokenMaker

_log = logging.getLogger(__name__)

STS_SPACING: Final = timedelta(seconds=60)
PAUSES_S: Final = (1.0, 3.0)  # between the three tries (D-16)
CALL_S: Final = 300.0  # an adapter's own limits are shorter; this one only keeps a row from hanging
ISSUED_AT: Final = "last_sts_token_issued_at"
MAKING: Final = "sts_tokens_being_made"  # the interactions they are for

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why there is no token."""

    text: str
    again: bool  # another try may bring one
    is_known: bool = True  # False: one may exist all the same
    issued: datetime | None = None


def wants_token(interaction: Interaction, spec: CommandSpec) -> bool:
    """Whether one has to be made before this can leave."""
    return spec.token is TokenUse.MADE and not interaction.token


def _making(facts: Mapping[str, Any]) -> list[int]:
    found = facts.get(MAKING)
    return [number for number in found if isinstance(number, int)] if isinstance(found, list) else []


def _is_given_up(interaction: Interaction) -> bool:
    """A paid order keeps its right to a token whatever becomes of the command (D-15)."""
    return interaction.is_settled and not interaction.order


class TokenOffice:
    """Asks for tokens, one at a time for each interaction."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        twin: FieldTwin,
        links: Links,
        tree: Tree,
        dispatcher: Dispatcher,
        spawn: Spawn,
        ready: Callable[[Interaction, CommandSpec], None],
        register_secret: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._twin = twin
        self._links = links
        self._tree = tree
        self._dispatcher = dispatcher
        self._spawn = spawn
        self._ready = ready
        self._register_secret = register_secret
        self.refused: Callable[[Interaction], None] | None = None  # told of rows that were settled before
        self._asked: set[int] = set()
        self._in_doubt = self._left_open()
        self._linked = asyncio.Event()

    def ask(self, interaction: Interaction) -> None:
        """Make the token; ``ready`` is called once it is on the row, on disk."""
        if interaction.id not in self._asked:
            self._asked.add(interaction.id)
            self._spawn(self._make(interaction.id), f"token:{interaction.id}")

    def is_asked(self, interaction: int) -> bool:
        return interaction in self._asked

    def link_changed(self) -> None:
        """An adapter may have come up."""
        self._linked.set()

    def _left_open(self) -> set[int]:
        """Rows for which a token was being made when the program ended: it may have been sold."""
        return {number for state in self._twin.states() for number in _making(state.facts)}

    async def _make(self, number: int) -> None:
        try:
            refusal: _Refusal | None = None
            issued: datetime | None = None
            for pause in (0.0, *PAUSES_S):
                await asyncio.sleep(pause)
                outcome = await self._try(number, issued)
                issued = outcome.issued if isinstance(outcome, _Refusal) else None
                if not isinstance(outcome, _Refusal):
                    return
                refusal = outcome
                if not refusal.again:
                    break
            present = self._ledger.interaction(number)
            if present is not None and refusal is not None:
                self._refuse(present, refusal.text)
        finally:
            self._asked.discard(number)

    async def _try(self, number: int, issued: datetime | None) -> _Refusal | None:
        """One try, with the issue time of the one before it; None when it is done, either way."""
        maker, interaction = await self._maker(number)
        spec = self._tree.spec(interaction.device, interaction.command) if interaction is not None else None
        if interaction is None or spec is None or not wants_token(interaction, spec):
            return None
        if number in self._in_doubt and self._tree.limits(interaction.device).token_is_sale:
            text = "The program stopped while the token was being made. One may exist; look at the vendor's list."
            self._in_doubt.discard(number)  # a person who has looked may ask again
            self._ledger.keep(*self._made(interaction.device, number))
            return _Refusal(text, again=False)
        if maker is None:
            return _Refusal("This connection cannot make tokens.", again=False)
        request = self._dispatcher.request(interaction, attempt=0)
        if isinstance(request, DeliveryFailure):
            return _Refusal(str(request), again=False)
        issued = issued if issued is not None else self._issue_time(interaction.device)
        making = [*_making(self._twin.state(interaction.device).facts), number]
        rows = self._reserve(interaction.device, {ISSUED_AT: issued.isoformat(), MAKING: making})
        line = entry(interaction, self._ledger.clock.now(), Step.ENCODE, "token asked")
        secured = self._ledger.keep(*rows, line, durable=True)
        if secured is None:
            return None  # halted
        try:
            await secured
        except StoreError:
            return None
        present = self._ledger.interaction(number)
        if present is None or _is_given_up(present):
            return None  # cancelled before anything was asked
        made = await self._call(maker, request, issued)
        if isinstance(made, _Refusal):
            if made.is_known:
                self._ledger.keep(*self._made(interaction.device, number))
            return replace(made, issued=issued)
        present = self._ledger.interaction(number) or interaction
        self._register_secret(made)
        now = self._ledger.clock.now()
        after = present.edited(now, token=made)
        over = self._made(interaction.device, number)
        if after.status is Status.QUEUED:
            self._ready(after, spec)
            self._ledger.keep(*over)
        else:
            text = f"The token came and is kept; the command itself is {after.status}."
            self._ledger.keep(after, entry(after, now, Step.ENCODE, "token", text=text), *over, durable=True)
        return None

    def _made(self, device: str, number: int) -> list[Change]:
        """It is known what became of one."""
        left = [other for other in _making(self._twin.state(device).facts) if other != number]
        return self._reserve(device, {MAKING: left or None})

    def _reserve(self, device: str, facts: dict[str, Any]) -> list[Change]:
        """Facts of the issue, whatever a clock that was set back says."""
        now = self._ledger.clock.now()
        newest = max((self._twin.state(device).facts_at.get(name, now) for name in facts), default=now)
        self._twin.learn(device, facts, max(now, newest))
        return [self._twin.state(device)]

    async def _maker(self, number: int) -> tuple[TokenMaker | None, Interaction | None]:
        """The adapter that makes this one's token, as soon as it is open; the interaction as it is then."""
        while True:
            self._linked.clear()
            present = self._ledger.interaction(number)
            if present is None or present.token or _is_given_up(present):
                return None, None
            adapter: Any = self._links.adapter(present.device)
            if adapter is not None:
                return (adapter if hasattr(adapter, "make_token") else None), present
            await self._linked.wait()

    async def _call(self, maker: TokenMaker, request: Dispatch, issued: datetime) -> str | _Refusal:
        is_sale = self._tree.limits(request.device.id).token_is_sale
        try:
            async with asyncio.timeout(CALL_S):
                return await maker.make_token(request, issued)
        except TimeoutError:
            text = f"Whoever makes the tokens did not answer in {CALL_S:g} s."
            return _Refusal(text, again=not is_sale, is_known=not is_sale)
        except DeliveryFailure as exc:
            is_known = exc.disposition is not Disposition.UNKNOWN
            return _Refusal(str(exc), again=exc.disposition is Disposition.RETRY, is_known=is_known)
        except LinkError as exc:
            is_known = not (is_sale and exc.may_have_arrived)
            return _Refusal(str(exc), again=is_known, is_known=is_known)
        except RemoteProtocolError as exc:  # an answer that nobody can read: a sale may stand behind it
            return _Refusal(str(exc), again=not is_sale, is_known=not is_sale)
        except (ConfigError, LocalProtocolError, ParameterError) as exc:
            return _Refusal(str(exc), again=False)
        except Exception as exc:  # noqa: BLE001 - crash boundary of one token (DECISIONS D-005)
            _log.exception("the adapter of %s failed on a token", request.device.id)
            return _Refusal(fault_text(exc), again=False, is_known=not is_sale)

    def _issue_time(self, device: str) -> datetime:
        """Now, or a minute after the last one where that is later (1.5, item 2)."""
        now = self._ledger.clock.now()
        last = self._twin.state(device).facts.get(ISSUED_AT)
        return max(now, datetime.fromisoformat(last) + STS_SPACING) if isinstance(last, str) else now

    def _refuse(self, interaction: Interaction, text: str) -> None:
        """No token, no command: the full after-effects of a failure; an ABORTED verdict stands (D-16)."""
        if interaction.is_settled:
            line = entry(interaction, self._ledger.clock.now(), Step.ENCODE, "no token", code="TOKEN_FAILED", text=text)
            self._ledger.keep(line)
            self._asked.discard(interaction.id)
            if self.refused is not None:
                self.refused(interaction)
            return
        failure = Failure(
            code="TOKEN_FAILED", text=f"No token was made: {text}", at=self._ledger.clock.now(), is_final=True
        )
        self._dispatcher.settle(interaction, Event.REFUSE_TOKEN, failure=failure, step=Step.ENCODE)
