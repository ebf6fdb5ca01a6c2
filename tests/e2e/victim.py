"""A life of the engine that ends by ``kill -9``: commands a simulated meter without pause and says what is on disk.

``python -m tests.e2e.victim WORKSPACE SEED [STEPS]``; without STEPS it goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from app.composition import open_session, running
from app.model.interaction import Interaction
from app.model.reading import LinkState
from app.model.records import Change
from app.model.status import Status
from app.workbench import Workbench


def say(*words: object) -> None:
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


async def life(path: Path, seed: int, steps: int | None) -> None:
    rng = random.Random(seed)
    with open_session(path) as session:
        async with running(session.workbench):
            done = 0
            while steps is None or done < steps:
                await one_round(session.workbench, rng, f"tx-{seed}-{done}")
                done += 1
            if steps is not None:
                await rest(session.workbench)


async def one_round(workbench: Workbench, rng: random.Random, transaction: str) -> None:
    start = workbench.submit("lem-1", "START_TRANSACTION", {"evse_id": "DE*E2E*1", "transaction_id": transaction})
    await workbench.saved(start)
    say("saved", start)
    for command in rng.choices(("READ_STATUS", "READ_LIVE"), k=2):
        number = workbench.submit("lem-1", command)
        await workbench.saved(number)
        say("saved", number)
    stop = workbench.submit("lem-1", "STOP_TRANSACTION")
    await workbench.saved(stop)
    say("saved", stop)
    await workbench.settled(stop)


async def rest(workbench: Workbench) -> None:
    """Let everything that earlier lives left behind come to its end."""
    quiet = asyncio.Event()
    unknown = {n for n in range(1, 20000) if _is_unknown(workbench.interaction(n))}

    def look(change: Change) -> None:
        if isinstance(change, Interaction):
            unknown.discard(change.id)
            if _is_unknown(change):
                unknown.add(change.id)
        if workbench.state("lem-1").link is LinkState.ONLINE and not unknown and not sum(workbench.counts().values()):
            quiet.set()

    workbench.feed.subscribe(look)
    look(workbench.state("lem-1"))
    async with asyncio.timeout(60):
        await quiet.wait()
    await asyncio.sleep(0.3)  # the last effects


def _is_unknown(interaction: Interaction | None) -> bool:
    return interaction is not None and interaction.status is Status.OUTCOME_UNKNOWN


if __name__ == "__main__":
    asyncio.run(life(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
