"""The village of the demo site with a workbench of its own, over real sockets: what a person can see there.

The simulators live twenty times as fast, the radio's lane leaves no pause, and the vendor's tasks are looked at often;
the end-to-end test of the verb ``demo`` takes the same tour at the real pace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.adapters.calin_api import CalinV1, CalinV2
from app.adapters.calin_lorawan import CalinLorawan, Pace
from app.adapters.registry import Registry
from app.composition import open_session, running
from app.demo import DemoSite, Stop, demo_site, tour, until
from app.interaction_log.verify import verify
from app.model.flow import Commissioning, FlowStatus
from app.model.interaction import Interaction
from app.model.status import Status
from app.ports import AdapterType, Limits
from app.secrets import KeyringSecrets
from app.workbench import Workbench

DEADLINE_S = 20.0
FAST = 20.0
KEYRING = "keyring:"
STEPS = ["CLEAR_TAMPER", "CLEAR_CREDIT", "SET_POWER_LIMIT", "READ_VOLTAGE", "READ_POWER", "TOP_UP"]


class BriskLorawan(CalinLorawan):
    """Leaves no pause between two messages of a grid."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return replace(super().limits(settings), spacing_s=0.0)


def _brisk(limits: Limits) -> Limits:
    return replace(limits, first_poll_s=0.05, poll_s=(), poll_late_s=0.05, poll_grid_s=0.0)


class BriskV1(CalinV1):
    """Looks at a task at once and often."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _brisk(super().limits(settings))


class BriskV2(CalinV2):
    """Looks at a task at once and often."""

    def limits(self, settings: Mapping[str, Any]) -> Limits:
        return _brisk(super().limits(settings))


@dataclass
class Village:
    """The running demo site and the workbench on it."""

    site: DemoSite
    workbench: Workbench

    async def heard(self, *devices: str) -> None:
        assert await until(
            self.workbench, lambda: all(self.workbench.state(device).last_contact for device in devices), DEADLINE_S
        )

    def row(self, number: int) -> Interaction:
        present = self.workbench.interaction(number)
        assert present is not None
        return present

    async def send(self, device: str, command: str, **params: Any) -> Interaction:
        number = self.workbench.submit(device, command, params)
        assert await until(self.workbench, lambda: self.row(number).is_settled, DEADLINE_S)
        return self.row(number)

    def run_of(self, device: str) -> Commissioning:
        run = self.workbench.commissioning(device)
        assert run is not None
        return run

    async def ended(self, *devices: str) -> None:
        assert await until(
            self.workbench, lambda: not any(self.run_of(device).is_running for device in devices), DEADLINE_S
        )


@asynccontextmanager
async def village(path: Path) -> AsyncIterator[Village]:
    secrets = KeyringSecrets()
    brisk: tuple[AdapterType, ...] = (BriskLorawan(pace=Pace(gateway_poll_s=0.1)), BriskV1(), BriskV2())
    types = {**Registry(), **{kind.key: kind for kind in brisk}}
    with (
        demo_site(secrets, time_scale=FAST) as site,
        open_session(path, adapter_types=types, secrets=secrets) as session,
    ):
        for device in site.devices:
            session.workbench.save_device(device)
        async with running(session.workbench):
            yield Village(site, session.workbench)
    assert verify(path) == []
    for words in words_of(site, secrets):
        for file in path.parent.glob(f"{path.name}*"):
            assert words.encode() not in file.read_bytes(), "a secret stands in the workspace"


def words_of(site: DemoSite, secrets: KeyringSecrets) -> set[str]:
    """What stands behind every ``keyring:`` of the site."""
    named = {
        str(value).removeprefix(KEYRING)
        for device in site.devices
        for value in (*device.settings.values(), *device.attributes.values())
        if str(value).startswith(KEYRING)
    }
    words = {name: secrets.get(name) for name in named}
    assert all(words.values()), words.keys()
    return {word for word in words.values() if word}


async def test_a_commissioning_to_its_end_and_one_that_fails_at_step_3(tmp_path: Path) -> None:
    async with village(tmp_path / "demo.mwk") as held:
        await held.heard("north-4", "north-5")
        for device in ("north-4", "north-5"):
            held.workbench.commission(device)
        await held.ended("north-4", "north-5")

        done = held.run_of("north-4")
        assert (done.status, [step.command for step in done.steps]) == (FlowStatus.SUCCESSFUL, STEPS)
        assert {step.status for step in done.steps} == {Status.SUCCESSFUL}
        assert held.workbench.state("north-4").facts["power_limit"] == 200
        credit = await held.send("north-4", "READ_CREDIT")
        assert credit.result is not None
        assert 2 < float(credit.result["kwh_credit_available"]) <= 2.5, "the first credit of the grid"

        refused = [Status.SUCCESSFUL] * 2 + [Status.FAILED] + [Status.ABORTED] * 3
        failed = held.run_of("north-5")
        assert (failed.status, [step.status for step in failed.steps]) == (FlowStatus.FAILED, refused)
        failure = held.row(failed.steps[2].interaction).failure
        assert failure is not None
        assert "refused the token" in failure.text
        assert "SET_POWER_LIMIT" in failed.text

        held.workbench.retry_commissioning(failed.id)
        await held.ended("north-5")
        again = held.run_of("north-5")
        assert again.id != failed.id
        assert [step.status for step in again.steps] == refused


async def test_a_dark_grid_suspends_and_a_lit_one_takes_commands(tmp_path: Path) -> None:
    async with village(tmp_path / "demo.mwk") as held:
        await held.heard("north-1")
        held.workbench.set_field_state("north", is_up=False)
        number = held.workbench.submit("north-1", "READ_CREDIT")
        waiting = held.row(number)
        assert waiting.failure is not None
        assert (waiting.status, waiting.failure.code) == (Status.SUSPENDED, "GRID_DOWN")
        assert "Grid north" in waiting.failure.text
        assert "5 minutes" in waiting.failure.release
        gate, verdict = held.workbench.explain("south-1", "READ_CREDIT")
        assert verdict.status is Status.QUEUED, gate

        held.workbench.set_field_state("north", is_up=True)
        assert (await held.send("north-1", "READ_VOLTAGE")).status is Status.SUCCESSFUL
        assert held.row(number).status is Status.SUSPENDED, "it waits until the grid has been lit for five minutes"


async def test_meters_that_misbehave_one_at_a_time(tmp_path: Path) -> None:
    async with village(tmp_path / "demo.mwk") as held:
        await held.heard("north-1", "north-2")
        never = await held.send("north-3", "READ_CREDIT")
        assert never.failure is not None
        assert (never.status, never.failure.code) == (Status.ABORTED, "NEVER_SEEN")

        volts = await held.send("north-2", "READ_VOLTAGE")
        assert volts.result is not None
        assert set(volts.result["phase"]) == {"A", "B", "C"}

        held.site.fault("north-1", "refuse-token")
        assert (await held.send("north-1", "TOP_UP", transactive_kwh="1.5")).status is Status.FAILED
        held.site.clear("north-1", "refuse-token")
        assert (await held.send("north-1", "TOP_UP", transactive_kwh="1.5")).status is Status.SUCCESSFUL

        held.site.fault("gateway-1", "gateway-down")  # without a value: every gateway of its server
        gateways = ("gateway-1", "gateway-2")
        assert await until(
            held.workbench,
            lambda: not any(held.workbench.state(gateway).facts.get("is_online", True) for gateway in gateways),
            DEADLINE_S,
        )
        number = held.workbench.submit("north-1", "TURN_OFF")
        waiting = held.row(number)
        assert waiting.failure is not None
        assert (waiting.status, waiting.failure.code) == (Status.SUSPENDED, "ALL_GATEWAYS_DOWN")


async def test_every_stop_of_the_tour_succeeds_in_its_order(tmp_path: Path) -> None:
    async with village(tmp_path / "demo.mwk") as held:
        shown: list[Stop] = []
        stops = await tour(held.workbench, shown.append)
        assert [(stop.title, stop.text) for stop in stops if not stop.passed] == []
        assert shown == stops
        places = [stop.title.partition(":")[0] for stop in stops]
        assert list(dict.fromkeys(places)) == [
            "Bay 1", "Bay 2", "Bay 3", "House 1", "Mill", "Shop 1", "Shop 3", "Shop 2", "Shop 4", "Kiosk 1", "House 4",
            "House 5",
            "Aviora gateway", "Feeder 1", "Feeder 2", "Optical head", "DLMS", "Module",
            "Storage 1", "Grid north is dark",
        ]  # fmt: skip
        (order,) = held.workbench.orders()
        assert order.interaction is not None
        assert held.row(order.interaction).token not in str(stops), "the token is for the customer alone"


async def test_a_stop_that_goes_wrong_fails_and_the_tour_goes_on(tmp_path: Path) -> None:
    async with village(tmp_path / "demo.mwk") as held:
        held.site.fault("south-4", "refuse-token")
        held.site.fault("north-4", "refuse#1")
        stops = await tour(held.workbench, lambda _stop: None)
        failed = {stop.title: stop.text for stop in stops if not stop.passed}
        assert list(failed) == ["Shop 4: a paid order", "House 4: new: commissioning"]
        assert "READ_VOLTAGE" in failed["House 4: new: commissioning"]
