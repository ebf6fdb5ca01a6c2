"""What tests of open adapters and running engines share: what was told, and waiting until it is as it should be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from app.errors import LinkError
from app.model.interaction import Interaction
from app.model.reading import Finding, LinkState
from app.model.records import Change
from app.ports import Adapter, Found, Kept, LinkChange, Uplink
from app.workbench import Workbench

DEADLINE_S = 20.0
LOOK_S = 0.02


@dataclass(kw_only=True)
class Waiter:
    """Waits for conditions. ``look_s``: looks so often by itself, for conditions that nothing told makes true."""

    look_s: ClassVar[float | None] = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """What ``condition`` gives as soon as it is true."""
        async with asyncio.timeout(DEADLINE_S):
            while not (found := condition()):
                self.moved.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.look_s):
                        await self.moved.wait()
        return found


@dataclass
class Followed(Waiter):
    """An open adapter, what it told, and how its link ended."""

    adapter: Adapter
    told: list[Uplink] = field(default_factory=list, kw_only=True)
    lost: LinkError | None = field(default=None, kw_only=True)

    async def follow(self) -> None:
        """Until the link is lost."""
        try:
            async for uplink in self.adapter.uplinks():
                self.hear(uplink)
                self.moved.set()
        except LinkError as exc:
            self.lost = exc
            self.moved.set()

    def hear(self, uplink: Uplink) -> None:
        if isinstance(uplink, Kept):  # here nothing is written: what came before is kept
            uplink.done.set_result(None)
            return
        self.told.append(uplink)

    def of(self, kind: type[Any]) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]

    def link_of(self, device: str) -> LinkState | None:
        changes = [one.link for one in self.of(LinkChange) if one.device == device]
        return changes[-1] if changes else None

    def findings(self, code: str) -> list[Finding]:
        return [one.finding for one in self.of(Found) if one.finding.code == code]


@dataclass
class Held(Waiter):
    """A running engine and what its feed said. Subscribe ``look``."""

    workbench: Workbench
    changes: list[Change] = field(default_factory=list, kw_only=True)

    def look(self, change: Change) -> None:
        self.changes.append(change)
        self.moved.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [change for change in self.changes if isinstance(change, kind)]

    def row(self, number: int) -> Interaction:
        found = self.workbench.interaction(number)
        assert found is not None
        return found

    async def settled(self, number: int) -> Interaction:
        async with asyncio.timeout(DEADLINE_S):
            return await self.workbench.settled(number)

    async def command(self, device: str, command: str, params: dict[str, Any]) -> Interaction:
        """Sent, and settled."""
        return await self.settled(self.workbench.submit(device, command, params))
