"""The only door of the core (SKELETON: signatures are binding, bodies follow)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from app.model.command import CommandSpec
from app.model.device import Device
from app.model.interaction import Interaction, Origin
from app.model.reading import DeviceState
from app.model.status import Status
from app.pipeline.changes import ChangeFeed
from app.ports import AdapterType, Clock, Secrets, Snapshot, Store


class CancelResult(StrEnum):
    CANCELLED = "CANCELLED"
    NOT_CANCELLABLE = "NOT_CANCELLABLE"
    NOT_FOUND = "NOT_FOUND"


class Workbench:
    """Commands in, changes out. Built once by a composition root and run on one asyncio loop."""

    feed: ChangeFeed
    clock: Clock

    def __init__(
        self,
        *,
        store: Store,
        snapshot: Snapshot,
        adapter_types: Mapping[str, AdapterType],
        clock: Clock,
        secrets: Secrets,
        rng: random.Random | None = None,
    ) -> None: ...

    # -- the tree
    def devices(self) -> tuple[Device, ...]: raise NotImplementedError
    def device(self, device: str) -> Device: raise NotImplementedError  # WorkbenchError when unknown
    def state(self, device: str) -> DeviceState: raise NotImplementedError
    def adapter_types(self) -> Mapping[str, AdapterType]: raise NotImplementedError
    def commands(self, device: str) -> tuple[CommandSpec, ...]: raise NotImplementedError
    def unsupported(self, device: str) -> Mapping[str, str]: raise NotImplementedError
    def live_quantities(self, device: str) -> tuple[str, ...]: raise NotImplementedError
    def save_device(self, device: Device) -> None: raise NotImplementedError  # add or replace; reconnects when it must
    def remove_device(self, device: str) -> None: raise NotImplementedError
    def connect(self, device: str) -> None: raise NotImplementedError
    def disconnect(self, device: str) -> None: raise NotImplementedError
    async def probe(self, adapter: str, settings: Mapping[str, Any]) -> Sequence[str]: raise NotImplementedError

    # -- commands (thread-safe; they return at once, the outcome comes back on the feed)
    def submit(
        self,
        device: str,
        command: str,
        params: Mapping[str, Any] | None = None,
        *,
        origin: Origin = Origin.USER,
        force: bool = False,
        actor: str = "user",
    ) -> int: raise NotImplementedError  # id; ParameterError / WorkbenchError for what is wrong at the door
    def cancel(self, interaction: int, actor: str = "user") -> CancelResult: raise NotImplementedError
    def retry(self, interaction: int, actor: str = "user") -> None: raise NotImplementedError  # only from FAILED
    def verify(self, interaction: int, actor: str = "user") -> None: raise NotImplementedError  # OUTCOME_UNKNOWN: read back
    def interaction(self, interaction: int) -> Interaction | None: raise NotImplementedError  # unfinished or recent ones
    def counts(self) -> Mapping[Status, int]: raise NotImplementedError  # unfinished by status
    def setting(self, key: str) -> Any: raise NotImplementedError
    def save_setting(self, key: str, value: Any) -> None: raise NotImplementedError

    # -- life
    async def run(self) -> None: raise NotImplementedError  # until stop(); ends every task, flushes the store
    def stop(self) -> None: raise NotImplementedError
    async def settled(self, interaction: int) -> Interaction: raise NotImplementedError  # waits for a settled status
