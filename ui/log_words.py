"""What a filter may name: the devices and commands of the workspace, and what its newest interactions hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.errors import WorkbenchError
from app.interaction_log.reader import LogReader
from app.model.device import NodeKind
from app.model.reading import Finding
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket

_NEWEST = 256  # interactions looked at for the names of results


@dataclass(frozen=True, slots=True)
class _Found:
    params: frozenset[str]
    results: frozenset[str]
    reasons: frozenset[str]


def _read_names(reader: LogReader) -> _Found:
    """Names of parameters and results, and reason codes. Runs in the reader thread."""
    items = reader.page(limit=_NEWEST)
    return _Found(
        _names(item.params for item in items),
        _names(item.result for item in items),
        frozenset(item.failure.code for item in items if item.failure is not None and item.failure.code),
    )


def _names(values: Iterable[Mapping[str, object] | None]) -> frozenset[str]:
    return frozenset(name for value in values if value for name in value)


def device_words(workbench: Workbench, field: str) -> Iterable[str]:
    """Values of a field of the tree, or of one that filters of interactions and of devices share."""
    devices = workbench.devices()
    match field:
        case "device":
            return (device.id for device in devices)
        case "name":
            return (device.name for device in devices)
        case "model":
            return (device.model for device in devices)
        case "meter":
            return (text for d in devices if d.kind is NodeKind.METER for text in (d.id, d.name, d.serial))
        case "serial":
            return (device.serial for device in devices)
        case "site" | "grid" | "gateway":
            return (device.id for device in devices if device.kind.value == field)
        case "adapter":
            return (device.adapter for device in devices)
        case "fact":
            return {name for device in devices for name in workbench.state(device.id).facts}
        case _:
            return ()


class LogWords:
    """Values that occur, by field of the filter language: the ``known`` of its completion."""

    def __init__(self, workbench: Workbench, log: LogAccess) -> None:
        self._workbench = workbench
        self._log = log
        self._found = _Found(frozenset(), frozenset(), frozenset())
        self._codes: set[str] = set()
        self._ticket: Ticket | None = None

    def refresh(self) -> None:
        """Look at the newest interactions again, in the reader thread; until then the names known before stand."""
        if self._ticket is None or not self._ticket.is_open:
            self._ticket = self._log.ask(_read_names, self._take, self._leave)

    def on_batch(self, changes: Sequence[object]) -> None:
        """Note the codes of findings that come by."""
        self._codes.update(change.code for change in changes if isinstance(change, Finding))

    def __call__(self, field: str) -> list[str]:
        return sorted({word for word in self._of(field) if word})

    def _of(self, field: str) -> Iterable[str]:
        devices = self._workbench.devices()
        match field:
            case "command":
                return (spec.name for device in devices for spec in self._workbench.commands(device.id))
            case "param":
                specs = (spec for device in devices for spec in self._workbench.commands(device.id))
                return {*self._found.params, *(param.name for spec in specs for param in spec.params)}
            case "result":
                return self._found.results
            case "reason":
                return self._found.reasons
            case "finding":
                return self._codes
            case _:
                return device_words(self._workbench, field)

    def _take(self, found: _Found) -> None:
        self._found = found

    def _leave(self, _error: WorkbenchError) -> None:
        """The list itself says when the log cannot be read; what was known stays."""
