"""What all tests share.

Garbage is collected between tests, on the main thread: a collection by itself may run in a thread of the program under
test and destroy widgets there (see ui/garbage.py). Examples of hypothesis have no time limit of their own: the machine
may be busy, and every test has one.
"""

from __future__ import annotations

import gc
import itertools
import warnings

import pytest
from hypothesis import HealthCheck, settings

EVERYTHING_EVERY = 200  # tests
FEW, MANY = 50, 100  # examples of a property that says nothing else: in the usual run, and with the slow tests

_ended = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()
    examples = FEW if config.getoption("markexpr") == "not slow" else MANY
    slow_is_fine = [HealthCheck.too_slow]
    settings.register_profile("busy", deadline=None, suppress_health_check=slow_is_fine, max_examples=examples)
    settings.load_profile("busy")


def pytest_runtest_teardown() -> None:
    gc.unfreeze()  # a window that was opened has frozen what was there
    with warnings.catch_warnings():
        # asyncio leaves the server's side of a refused TLS handshake to the collector (Python 3.11), which may find it
        # many tests later: it would strike one that has nothing to do with it.
        warnings.filterwarnings("ignore", "unclosed (transport|<socket)", ResourceWarning)
        gc.collect() if next(_ended) % EVERYTHING_EVERY == 0 else gc.collect(1)
