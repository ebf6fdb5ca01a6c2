"""The demo site: simulated meters on real sockets, the tree that reaches them, and a tour over every system.

The simulators run on a loop of their own in a thread, so that they are peers of the program and not part of it. They
listen on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from app.errors import WorkbenchError
from app.model.device import Device, NodeKind
from app.model.interaction import Interaction
from app.model.status import Status
from app.simulators.lem_dcbm import LemDcbmConfig, LemDcbmSimulator
from app.workbench import Workbench

START_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class DemoSite:
    """Devices of the running demo site, and what somebody can do to it."""

    devices: tuple[Device, ...]
    _loop: asyncio.AbstractEventLoop
    _meters: dict[str, LemDcbmSimulator]

    def fault(self, device: str, spec: str) -> None:
        """Make a simulated meter misbehave (the names of ``meterwright sim list``)."""
        self._loop.call_soon_threadsafe(self._meters[device].faults.set, spec)

    def clear(self, device: str, *names: str) -> None:
        self._loop.call_soon_threadsafe(lambda: self._meters[device].faults.clear(*names))


@contextmanager
def demo_site() -> Iterator[DemoSite]:
    """Start the simulators in a thread; they end with the context.

    Raises:
        WorkbenchError: they did not start within 30 s.
    """
    ready: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        async with _simulators() as (devices, meters):
            box["stop"] = asyncio.Event()
            box["site"] = DemoSite(devices, asyncio.get_running_loop(), meters)
            ready.set()
            await box["stop"].wait()

    def work() -> None:
        try:
            asyncio.run(main())
        except (WorkbenchError, OSError, ExceptionGroup) as exc:
            box["error"] = exc
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="demo site", daemon=True)
    thread.start()
    if not ready.wait(START_S) or "site" not in box:
        raise WorkbenchError(f"The demo site did not start: {box.get('error', 'no answer in 30 s')}.")
    site: DemoSite = box["site"]
    try:
        yield site
    finally:
        with contextlib.suppress(RuntimeError):  # its loop has ended by itself
            site._loop.call_soon_threadsafe(box["stop"].set)
        thread.join(START_S)


@asynccontextmanager
async def _simulators() -> AsyncIterator[tuple[tuple[Device, ...], dict[str, LemDcbmSimulator]]]:
    first = LemDcbmSimulator(
        LemDcbmConfig(
            meter_id="12024072805", uptime_s=86400, load="always", ripple=Decimal("0.02"), seed=1, history=3
        )
    )
    second = LemDcbmSimulator(
        LemDcbmConfig(
            meter_id="12124110932", firmware="0.2.1.0", tls_on=True, uptime_s=86400, load="transaction",
            voltage=Decimal("762.4"), current=Decimal("310.2"), ripple=Decimal("0.03"), seed=2,
        )
    )  # fmt: skip
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        async with first, second:
            park = Device(id="demo", name="Charging park", kind=NodeKind.SITE, position=0)
            common = {"poll_interval_ms": 1000, "initial_retry_delay_ms": 5000}
            devices = (
                park,
                Device(
                    id="lem-1", name="Bay 1: LEM 400", parent="demo", adapter="lem-dcbm", serial="12024072805",
                    model="DCBM 400", position=1, settings={**common, "host": first.host, "port": first.port},
                ),
                Device(
                    id="lem-2", name="Bay 2: LEM 600 TLS", parent="demo", adapter="lem-dcbm",
                    serial="12124110932", model="DCBM 600", position=2,
                    settings={**common, "host": second.host, "port": second.port,
                              "tls_certificate": second.certificate_pem},
                ),
                Device(
                    id="lem-3", name="Bay 3: cable out", parent="demo", adapter="lem-dcbm",
                    serial="12024072811", model="DCBM 400", position=3,
                    settings={**common, "host": "127.0.0.1", "port": unused.getsockname()[1]},
                ),
            )  # fmt: skip
            yield devices, {"lem-1": first, "lem-2": second}


# ---------------------------------------------------------------- the tour


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of the tour and what came of it."""

    title: str
    passed: bool
    text: str
    interaction: int | None = None


async def tour(
    workbench: Workbench, show: Callable[[Stop], None], *, answer_s: float = 30.0, charge_s: float = 0.0
) -> list[Stop]:
    """Every system of the demo site, by the same door as a person. Returns all stops; ``show`` sees each at once.

    Each transaction lasts ``charge_s`` seconds.
    """
    stops: list[Stop] = []

    async def send(title: str, device: str, command: str, params: dict[str, Any] | None = None) -> Interaction | None:
        number = workbench.submit(device, command, params, actor="tour")
        done: Interaction | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(answer_s):
                done = await workbench.settled(number)
        passed = done is not None and done.status is Status.SUCCESSFUL
        text = "no end within its time"
        if done is not None:
            text = done.failure.text if done.failure is not None else "done"
        record(Stop(title, passed, text, number))
        return done

    def record(stop: Stop) -> None:
        stops.append(stop)
        show(stop)

    for device in ("lem-1", "lem-2"):
        name = workbench.device(device).name
        await send(f"{name}: status", device, "READ_STATUS")
        identity = f"demo-{device}-{workbench.clock.now():%Y%m%d%H%M%S}"
        started = await send(
            f"{name}: start of a transaction",
            device,
            "START_TRANSACTION",
            {"evse_id": "DE*DEM*E1", "transaction_id": identity, "identification_data": "04AABBCC"},
        )
        await send(f"{name}: live values", device, "READ_LIVE")
        if started is not None and started.status is Status.SUCCESSFUL:
            await asyncio.sleep(charge_s)
            stopped = await send(f"{name}: end of the transaction", device, "STOP_TRANSACTION", {})
            result = (stopped.result or {}) if stopped is not None else {}
            verdict = (result.get("verification") or {}).get("verdict", "none")
            record(Stop(f"{name}: signed record", verdict == "VALID", f"verdict {verdict}"))
        await send(f"{name}: clock", device, "SYNC_TIME")
    waiting = workbench.submit("lem-3", "READ_STATUS", actor="tour")
    present = workbench.interaction(waiting)
    suspended = present is not None and present.status is Status.SUSPENDED
    text = present.failure.text if present is not None and present.failure is not None else "it was not suspended"
    record(Stop("Bay 3: a command waits while the cable is out", suspended, text, waiting))
    return stops
