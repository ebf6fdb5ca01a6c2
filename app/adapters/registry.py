"""Adapters by key: one row each, imported on use, so that a missing driver hurts one adapter only.

Other packages add adapters through the entry-point group ``meterwright.adapters`` (name = key, value =
``module:Class``); a built-in key cannot be replaced. A new adapter of our own is one file and one row here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final

from app.ports import AdapterType

GROUP: Final = "meterwright.adapters"
BUILT_IN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "lem-dcbm": "app.adapters.lem_dcbm:LemDcbm",
        "iec62056": "app.adapters.iec62056:Iec62056",
        "dlms": "app.adapters.dlms:Dlms",
        "quecpython": "app.adapters.quecpython:QuecPython",
        "aviora": "app.adapters.aviora:Aviora",
        "ems": "app.adapters.ems:Ems",
        "calin-lorawan": "app.adapters.calin_lorawan:CalinLorawan",
        "calin-v1": "app.adapters.calin_api:CalinV1",
        "calin-v2": "app.adapters.calin_api:CalinV2",
        "device-messaging": "app.adapters.device_messaging:DeviceMessaging",
    }
)

# What importing a foreign module and making its class can reasonably do; anything else is a bug and stays loud.
_EXPECTED: Final = (ImportError, AttributeError, TypeError, ValueError, LookupError, OSError, RuntimeError, SyntaxError)


class Registry(Mapping[str, AdapterType]):
    """Adapter types that can be used here. ``missing`` says which cannot, and why.

    Args:
        rows: key -> "module:Class"; None: the built-in ones and those of installed packages.
    """

    def __init__(self, rows: Mapping[str, str] | None = None) -> None:
        self._rows = dict(rows) if rows is not None else _installed()
        self._types: dict[str, AdapterType] = {}
        self._missing: dict[str, str] = {}

    def __getitem__(self, key: str) -> AdapterType:
        found = self._load(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter([key for key in self._rows if self._load(key) is not None])

    def __len__(self) -> int:
        return sum(1 for _key in self)

    @property
    def known(self) -> tuple[str, ...]:
        """Every key there is a row for, loadable or not."""
        return tuple(self._rows)

    @property
    def missing(self) -> Mapping[str, str]:
        """Key -> sentence, for the adapters that cannot be used here."""
        for key in self._rows:
            self._load(key)
        return MappingProxyType(self._missing)

    def _load(self, key: str) -> AdapterType | None:
        if key in self._types:
            return self._types[key]
        if key not in self._rows or key in self._missing:
            return None
        target = self._rows[key]
        module, _, name = target.partition(":")
        try:
            found: Any = getattr(import_module(module), name)()
            if not isinstance(found.key, str) or found.key != key:
                raise ValueError(f"it calls itself {found.key!r}")
        except _EXPECTED as exc:
            self._missing[key] = (
                f"The adapter {key} cannot be used: {exc}. Install what it needs; the other adapters work without it."
            )
            return None
        adapter_type: AdapterType = found
        self._types[key] = adapter_type
        return adapter_type


def _installed() -> dict[str, str]:
    rows = {point.name: point.value for point in entry_points(group=GROUP)}
    return {**rows, **BUILT_IN}
