"""What every finder is: an announced plan, a bounded search that tells each try with its bytes, and proposals.

``async with finder.searching() as events: async for event in events: ...`` - the last event is ``Ended``. Leaving the
block ends the search within a second and gives back every port. Secrets that were entered never stand in an event.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from app.adapters._live import beside
from app.errors import ConfigError, LinkError, LinkReason, WorkbenchError
from app.interaction_log.redaction import Redactor
from app.model.command import ParamType, check_params
from app.model.device import Device, NodeKind
from app.model.interaction import Direction
from app.ports import AdapterContext, AdapterType, Clock, Secrets, Tap
from app.secrets import SessionSecrets

MAX_BYTES: Final = 16 << 10  # of one try and direction; a person looks at them
MAX_TRIED: Final = 1000  # a listener may be scanned by strangers
PATIENCE_S: Final = 0.7  # a search that was left gets this long to say goodbye on its line
HURRY_S: Final = 0.1
UNUSABLE: Final = frozenset({LinkReason.BUSY, LinkReason.DENIED, LinkReason.UNREACHABLE, LinkReason.REFUSED})
"""Reasons for which a port or address is not tried again in another way."""


class Outcome(StrEnum):
    """How a try ended."""

    ANSWERED = "answered"
    SILENT = "silent"
    FAILED = "failed"  # it could not be tried, or the answer was no


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a search will cost, before it begins. ``longest_s`` is kept, whatever happens."""

    text: str
    tries: int
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One try. ``sent`` and ``got`` are as they crossed the wire, secrets redacted, at most 16 KiB each."""

    at: datetime
    where: str  # a port or an address
    what: str  # protocol and setting
    text: str
    outcome: Outcome
    sent: bytes = b""
    got: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A listener is open and a device has to dial it.

    ``entries``: what is to be entered in the device, title and value. ``qr``: the same as one line for a QR code.
    """

    at: datetime
    host: str
    port: int
    url: str
    entries: tuple[tuple[str, str], ...]
    qr: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that answered, and how it is reached.

    ``settings`` are those of the adapter's form without secrets; ``secrets`` are the words that were entered and that
    worked: keep them, and put their references into the settings. ``fingerprint`` is that of a certificate nobody has
    confirmed yet (SHA-256, AB:CD:...): a person compares it before the device is saved. ``gateways``: serial and name
    of what else the service knows.
    """

    at: datetime
    title: str
    adapter: str
    settings: Mapping[str, Any]
    text: str
    kind: NodeKind = NodeKind.METER
    serial: str = ""
    model: str = ""
    identity: str = ""  # as it called itself
    fingerprint: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    gateways: tuple[tuple[str, str], ...] = ()

    def devices(self, taken: Collection[str], parent: str = "") -> tuple[Device, ...]:
        """Proposals for the tree, the first is the one that was found; nothing is saved.

        Args:
            taken: ids that are in use.
            parent: id of the node that they are to stand in.
        """
        used = set(taken)
        shared: dict[str, Any] = {"parent": parent, "adapter": self.adapter, "settings": dict(self.settings)}
        rows = [(self.title, self.kind, self.serial, self.model)]
        if self.gateways:
            rows = [(name, NodeKind.GATEWAY, serial, "") for serial, name in self.gateways]
        found = []
        for name, kind, serial, model in rows:
            identity = free_id(name, used)
            used.add(identity)
            found.append(Device(id=identity, name=name, kind=kind, serial=serial, model=model, **shared))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The search is over. ``text`` says what was tried and what to do; ``found`` counts candidates."""

    at: datetime
    text: str
    tried: int
    found: int


Event: TypeAlias = Tried | Waiting | Candidate | Ended


def free_id(name: str, taken: Collection[str]) -> str:
    """A short id for ``name`` that is not taken."""
    base = re.sub(r"[^a-z0-9._-]+", "-", name.casefold()).strip("-._")[:48] or "device"
    number, found = 2, base
    while found in taken:
        found, number = f"{base}-{number}", number + 1
    return found


# ---------------------------------------------------------------- telling


class Feed:
    """What a search tells, in order; iterate it once. Secrets are taken out on the way in."""

    def __init__(self, clock: Clock, redactor: Redactor) -> None:
        self._clock = clock
        self._redactor = redactor
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()
        self._is_over = False
        self.tried = 0
        self.found = 0

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Event:
        if self._is_over:
            raise StopAsyncIteration
        event = await self._waiting.get()
        self._is_over = isinstance(event, Ended)
        return event

    def tell_try(
        self, where: str, what: str, text: str, outcome: Outcome, *, sent: bytes = b"", got: bytes = b""
    ) -> None:
        """Tell one try; beyond ``MAX_TRIED`` it is counted only."""
        self.tried += 1
        if self.tried <= MAX_TRIED:
            clean, bare = self._redactor.redact_text, self._redactor.redact
            event = Tried(
                at=self._clock.now(), where=clean(where), what=clean(what), text=clean(text), outcome=outcome,
                sent=bare(sent)[:MAX_BYTES], got=bare(got)[:MAX_BYTES],
            )  # fmt: skip
            self._waiting.put_nowait(event)

    def tell_waiting(
        self, *, host: str, port: int, url: str, entries: tuple[tuple[str, str], ...], qr: str, text: str
    ) -> None:
        """Tell that devices can dial now."""
        event = Waiting(at=self._clock.now(), host=host, port=port, url=url, entries=entries, qr=qr, text=text)
        self._waiting.put_nowait(event)

    def tell_candidate(self, *, text: str, **fields: Any) -> None:
        """Tell what was found; the fields of ``Candidate``."""
        self.found += 1
        self._waiting.put_nowait(Candidate(at=self._clock.now(), text=self._redactor.redact_text(text), **fields))

    def end(self, text: str) -> None:
        """Nothing follows."""
        clean = self._redactor.redact_text(text)
        self._waiting.put_nowait(Ended(at=self._clock.now(), text=clean, tried=self.tried, found=self.found))


class Record:
    """A tap that keeps what crossed in both directions, bounded."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.got = bytearray()

    def __call__(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        kept = self.sent if direction is Direction.OUT else self.got
        kept += data[: max(0, MAX_BYTES - len(kept))]


# ---------------------------------------------------------------- finders


class Finder(ABC):
    """One search. Made anew for each.

    Args:
        types: the adapter types there are, by key.
        secrets: where an adapter may look for words that are kept already.
    """

    def __init__(self, *, types: Mapping[str, AdapterType], clock: Clock, secrets: Secrets | None = None) -> None:
        self._types = types
        self._clock = clock
        self._secrets = secrets if secrets is not None else SessionSecrets()
        self._redactor = Redactor()

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """What will be tried and how long it takes at most."""

    @abstractmethod
    async def _search(self, feed: Feed) -> str:
        """Search, tell, and return the closing sentence. WorkbenchError ends the search with its sentence."""

    def searching(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Begin. Leaving the block, however it is left, ends the search and releases what it holds."""
        return self._searching()

    @asynccontextmanager
    async def _searching(self) -> AsyncIterator[AsyncIterator[Event]]:
        feed = Feed(self._clock, self._redactor)
        async with beside() as group:
            task = group.create_task(self._run(feed), name=f"search {type(self).__name__}")
            try:
                yield feed
            finally:
                patience = PATIENCE_S
                while not task.done():  # what still says goodbye is cut short, so that this takes a second at most
                    task.cancel()
                    await asyncio.wait({task}, timeout=patience)
                    patience = HURRY_S

    async def _run(self, feed: Feed) -> None:
        plan = self.plan
        try:
            async with asyncio.timeout(plan.longest_s) as limit:
                text = await self._search(feed)
        except TimeoutError:
            if not limit.expired():
                raise
            text = f"The search was ended after {plan.longest_s:g} s and {counted(feed.tried, 'try', 'tries')}."
        except WorkbenchError as exc:
            text = str(exc)
        feed.end(text)

    def _type(self, key: str) -> AdapterType:
        """Raises ConfigError: it cannot be used here."""
        found = self._types.get(key)
        if found is None:
            raise ConfigError("cannot be used here; install what it needs", key=key, expected=", ".join(self._types))
        return found

    def _context(
        self, key: str, settings: Mapping[str, Any], tap: Tap, whose: str, *, serial: str = ""
    ) -> AdapterContext:
        """As for the dialog's *Test*; secrets among the settings are hidden from now on.

        Raises:
            ParameterError, ConfigError: a setting is wrong.
        """
        form = self._type(key).form()
        checked = check_params(form, settings, f"The connection of {whose}")
        for spec in form:
            if spec.type is ParamType.SECRET and checked[spec.name]:
                self._redactor.add(str(checked[spec.name]))
        device = Device(id="found", name=whose, adapter=key, serial=serial, settings=settings)
        return AdapterContext(
            devices=(device,), settings=checked, clock=self._clock, tap=tap, secrets=self._secrets,
            taps={device.id: tap}, each={device.id: checked},
        )  # fmt: skip

    def _split(self, key: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Settings as a device keeps them, and the words that belong in the keyring."""
        hidden = {spec.name for spec in self._type(key).form() if spec.type is ParamType.SECRET}
        shown = {name: value for name, value in settings.items() if name not in hidden}
        return shown, {name: str(value) for name, value in settings.items() if name in hidden and value}


def is_unusable(exc: WorkbenchError) -> bool:
    """Whether no other way to the same port or address is worth a try."""
    return isinstance(exc, LinkError) and exc.reason in UNUSABLE


def outcome_of(exc: WorkbenchError) -> Outcome:
    """Silence, or a failure."""
    return Outcome.SILENT if isinstance(exc, LinkError) and exc.reason is LinkReason.SILENT else Outcome.FAILED


def counted(number: int, one: str, many: str) -> str:
    """``1 try``, ``3 tries``."""
    return f"{number} {one if number == 1 else many}"
