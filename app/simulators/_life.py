"""The life of a simulator: tasks that begin and end with a block, and changes that can be waited for."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, Self, TypeAlias, TypeVar

from app.simulators._http import FaultKind, Faults
from app.transports.line import Line

L = TypeVar("L", bound=Line)
Works: TypeAlias = Mapping[str, Callable[[], Coroutine[Any, Any, None]]]


class Running(ABC):
    """Tasks that end with ``async with``, and a condition that can be waited for."""

    name = ""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    @abstractmethod
    async def _prepare(self, stack: AsyncExitStack) -> None:
        """What can fail, before any task; ends after them."""

    @abstractmethod
    async def _begin(self, stack: AsyncExitStack) -> None:
        """Start the tasks; what this puts on ``stack`` ends before them."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_settle)
            await self._prepare(stack)
            self._group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._cancel)
            await self._begin(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _cancel(self) -> None:
        self._group = None
        for task in list(self._tasks):
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` until the simulator ends."""
        if self._group is None:
            work.close()
            return
        task = self._group.create_task(work, name=f"{self.name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def notify(self) -> None:
        """Something that ``wait_until`` may look at has changed."""
        passed, self._changed = self._changed, asyncio.Event()
        passed.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at after everything that happens. No deadline."""
        while not condition():
            await self._changed.wait()


async def _settle() -> None:
    """Transports close their sockets in the loop's next rounds."""
    for _ in range(3):
        await asyncio.sleep(0)


class LineSimulator(Running, Generic[L]):
    """A device at its end of a line.

    Args:
        kinds: the faults there are. first_faults: those that are in force from entering on.
    """

    def __init__(self, kinds: Mapping[str, FaultKind], first_faults: Sequence[str] = ()) -> None:
        super().__init__()
        self.faults = Faults(kinds, self._faults_changed)
        self._first_faults = first_faults
        self._line: L | None = None

    @abstractmethod
    def _opening(self) -> AbstractAsyncContextManager[L]:
        """Its end of the line, open as long as it runs."""

    @abstractmethod
    def _works(self) -> Works:
        """What runs from the beginning, by name."""

    def _faults_changed(self) -> None:
        self.notify()

    async def _prepare(self, stack: AsyncExitStack) -> None:
        for spec in self._first_faults:
            self.faults.set(spec)
        self._line = await stack.enter_async_context(self._opening())

    async def _begin(self, stack: AsyncExitStack) -> None:
        for name, work in self._works().items():
            self.spawn(work(), name)

    @property
    def line(self) -> L:
        """Its end of the line; only while the simulator runs."""
        if self._line is None:
            raise RuntimeError("the simulator is not running")
        return self._line
