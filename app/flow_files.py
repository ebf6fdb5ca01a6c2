"""Flow files: those that come with the program, and those in the profile's folder ``flows``.

One TOML file is one flow (``app/model/flow_spec.py`` names its parts, ``app/model/flow_parse.py`` checks them). Units
of expectations are compared with the unit of the result where it names one, and converted where both are known.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

from app.errors import ConfigError
from app.model.device import NodeKind
from app.model.flow_parse import SHIPPED, FlowFileError, parse_flow
from app.model.flow_spec import FlowSpec
from app.site_file import read_text

__all__ = ["FOLDER", "FlowFileError", "FlowLibrary", "load_flows", "parse_flow", "parse_text", "read_flow"]

FOLDER: Final = "flows"  # below the profile's configuration
MAX_BYTES: Final = 1 << 20
MAX_FILES: Final = 500


@dataclass(frozen=True, slots=True)
class FlowLibrary:
    """Every flow that can be run, by name; what is wrong in files, and what a person should know, in sentences."""

    flows: Mapping[str, FlowSpec] = field(default_factory=dict)
    problems: tuple[ConfigError, ...] = ()
    notes: tuple[str, ...] = ()

    def for_adapter(self, adapter: str, kind: NodeKind | None = None) -> tuple[FlowSpec, ...]:
        """Those that are made for a system, and for a kind of node where one is given, by title."""
        fitting = [
            flow for flow in self.flows.values() if adapter in flow.adapters and (kind is None or flow.suits(kind))
        ]
        return tuple(sorted(fitting, key=lambda flow: (flow.title, flow.name)))


def load_flows(folder: Path | None = None) -> FlowLibrary:
    """The shipped flows, and those of ``folder``; an own one takes the place of the shipped one of its name.

    Files that cannot be used are left out and stand in ``problems``.
    """
    problems: list[ConfigError] = []
    shipped = _by_name(_shipped(problems), problems)
    own = _by_name(_own(folder, problems), problems) if folder is not None else {}
    notes = [
        f"{flow.source} takes the place of the shipped flow {name}, version {shipped[name].version}."
        for name, flow in own.items()
        if name in shipped
    ]
    return FlowLibrary({**shipped, **own}, tuple(problems), tuple(notes))


def read_flow(path: Path) -> FlowSpec:
    """One file.

    Raises:
        FlowFileError: it is no TOML, or names the key that is wrong and what is allowed there.
        ConfigError: it cannot be read.
    """
    return parse_text(read_text(path, MAX_BYTES, "a flow file"), str(path))


def parse_text(text: str, source: str) -> FlowSpec:
    """The TOML text of a flow.

    Raises:
        FlowFileError: as ``read_flow``.
    """
    try:
        mapping = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise FlowFileError(f"is not TOML: {exc}", file=source) from None
    except (ValueError, RecursionError):
        raise FlowFileError("is not usable TOML: a number or a nesting is too large", file=source) from None
    return parse_flow(mapping, source)


def _by_name(found: Iterable[FlowSpec], problems: list[ConfigError]) -> dict[str, FlowSpec]:
    flows: dict[str, FlowSpec] = {}
    for flow in found:
        earlier = flows.setdefault(flow.name, flow)
        if earlier is not flow:
            problems.append(
                FlowFileError(
                    f"{flow.name!r} is the name of {earlier.source} already, so this one is left out",
                    file=flow.source, key="name", expected="a name of its own",
                )
            )  # fmt: skip
    return flows


def _shipped(problems: list[ConfigError]) -> list[FlowSpec]:
    folder = resources.files("resources").joinpath(FOLDER)
    if not folder.is_dir():
        return []
    flows: list[FlowSpec] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        try:
            flows.append(parse_text(file.read_text("utf-8"), SHIPPED))
        except FlowFileError as exc:
            problems.append(FlowFileError(f"the shipped {file.name} is wrong: {exc}"))
    return flows


def _own(folder: Path, problems: list[ConfigError]) -> list[FlowSpec]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".toml") if folder.is_dir() else []
    except OSError as exc:
        problems.append(FlowFileError(f"cannot be read: {exc.strerror}", file=str(folder)))
        return []
    if len(files) > MAX_FILES:
        problems.append(
            FlowFileError(f"holds {len(files)} flow files; the first {MAX_FILES} are read", file=str(folder))
        )
    flows: list[FlowSpec] = []
    for path in files[:MAX_FILES]:
        try:
            flows.append(read_flow(path))
        except ConfigError as exc:
            problems.append(exc)
    return flows
