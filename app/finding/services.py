"""Accounts at services: credentials are tried with the harmless request of *Test*, and the answer is said in words.

For ChirpStack, CALIN v1 and v2, device messaging, and a head-end of EMS devices. What the service lists as its gateways
becomes proposals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.errors import WorkbenchError
from app.finding.search import Feed, Finder, Outcome, Plan, Record
from app.model.device import NodeKind
from app.model.interaction import Direction
from app.ports import AdapterContext, AdapterType, Clock, Secrets

LONGEST_S: Final = 60.0  # longer than any adapter's own limits
MAX_GATEWAYS: Final = 100  # proposals
NOT_TRIED: Final[Mapping[str, tuple[str, ...]]] = {
    "calin-v1": (
        "The maintenance account was tried. Those of administration and sales only make tokens, which costs money, so "
        "they were not tried.",
    ),
    "calin-v2": ("The administrator's login was tried. The password for sales only makes tokens and was not tried.",),
}


class _Exchanges(Record):
    """Tells each request with its answer as soon as the next begins."""

    def __init__(self, feed: Feed, where: str) -> None:
        super().__init__()
        self._feed = feed
        self._where = where

    def __call__(self, direction: Direction, data: bytes, note: str = "", *, link: str = "") -> None:
        if direction is Direction.OUT and self.sent:
            self.flush()
        super().__call__(direction, data, note, link=link)

    def flush(self, failure: str = "") -> None:
        """The present exchange is over; ``failure`` says why it was the last."""
        if not self.sent and not failure:
            return
        what = _first_line(bytes(self.sent)) or "connection"
        said = _first_line(bytes(self.got))
        outcome = Outcome.ANSWERED if said else Outcome.SILENT
        if failure:
            outcome = Outcome.FAILED
        text = failure or said or "No answer came."
        self._feed.tell_try(self._where, what, text, outcome, sent=bytes(self.sent), got=bytes(self.got))
        self.sent.clear()
        self.got.clear()


class ServiceTry(Finder):
    """Tries one account.

    Args:
        adapter: key of the adapter.
        settings: of its form, secrets in words.
        title: what the service is called in the tree.
        serial: of the one device that is behind it, where it has to be named.
    """

    def __init__(
        self,
        adapter: str,
        settings: Mapping[str, Any],
        *,
        title: str,
        types: Mapping[str, AdapterType],
        clock: Clock,
        secrets: Secrets | None = None,
        serial: str = "",
    ) -> None:
        super().__init__(types=types, clock=clock, secrets=secrets)
        self._serial = serial.strip()
        self._adapter = adapter
        self._settings = dict(settings)
        self._title = title

    @property
    def plan(self) -> Plan:
        """One account, a few requests."""
        text = f"{self._title} is asked for what these credentials may see. Nothing is written there."
        return Plan(text=text, tries=1, longest_s=LONGEST_S)

    async def _search(self, feed: Feed) -> str:
        adapter_type = self._type(self._adapter)
        record = _Exchanges(feed, self._title)
        context = self._context(self._adapter, self._settings, record, self._title, serial=self._serial)
        try:
            said = " ".join(await adapter_type.probe(context))
        except WorkbenchError as exc:
            record.flush(str(exc))
            raise
        record.flush()
        said = " ".join((said, *NOT_TRIED.get(self._adapter, ())))
        settings, secrets = self._split(self._adapter, self._settings)
        feed.tell_candidate(
            title=self._title, adapter=self._adapter, settings=settings, secrets=secrets, text=said,
            kind=NodeKind.METER if self._serial else NodeKind.GATEWAY, serial=self._serial,
            gateways=await _gateways(adapter_type, context),
        )  # fmt: skip
        return said


def _first_line(data: bytes) -> str:
    return data.partition(b"\r\n")[0].decode("utf-8", "replace")


async def _gateways(adapter_type: AdapterType, context: AdapterContext) -> tuple[tuple[str, str], ...]:
    """Serial and name of the gateways that the service lists; () where it lists none. It answered a moment ago."""
    from app.adapters.calin_api import CalinAdapter
    from app.adapters.calin_lorawan import LorawanAdapter

    adapter = adapter_type.create(context)
    try:
        match adapter:
            case CalinAdapter():
                rows = [(one.concentrator, f"Concentrator {one.concentrator}") for one in await adapter.concentrators()]
            case LorawanAdapter():
                rows = [(one.gateway_id, f"Gateway {one.gateway_id}") for one in await adapter.list_gateways()]
            case _:
                return ()
    except WorkbenchError:
        return ()
    finally:
        if isinstance(adapter, CalinAdapter | LorawanAdapter):
            await adapter.close()
    return tuple(rows[:MAX_GATEWAYS])
