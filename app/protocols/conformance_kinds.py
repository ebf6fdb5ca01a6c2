"""Vector files whose vectors have a ``kind``: each kind has its check, the members it needs and those it may have."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from app.errors import ParameterError, RemoteProtocolError
from app.protocols.conformance import Report, check_list, document_failure, type_name

MAX_SENTENCES: Final = 5  # per vector
_NOTHING: Final[frozenset[str]] = frozenset()

Run: TypeAlias = Callable[[Mapping[str, Any]], Iterator[str]]


class Malformed(Exception):
    """A vector that does not have the form of its kind; the text says where."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``run`` yields one sentence for each fault of a vector that has the members ``required``."""

    run: Run
    required: frozenset[str]
    optional: frozenset[str] = _NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What a file says of itself, the kinds of its vectors, and the members that every kind may have.

    ``afterwards``: a check of every vector in which its kind found no fault.
    """

    protocol: str
    format: str
    kinds: Mapping[str, Kind]
    everywhere: frozenset[str]
    afterwards: Run | None = None


def check_kinds(document: Any, form: Format) -> Report:
    """Check every vector of ``document``. A vector that cannot be understood is a failure. Raises nothing."""
    if not isinstance(document, Mapping):
        return document_failure(f"the document must be an object, not {type_name(document)}")
    if document.get("protocol") != form.protocol:
        return document_failure(f"the protocol must be {form.protocol}")
    conventions = document.get("conventions")
    given = conventions.get("format") if isinstance(conventions, Mapping) else None
    if given != form.format:
        said = reprlib.repr(given)
        return document_failure(f"conventions.format {said} is not known; this program reads {form.format}")
    return check_list(document, "vectors", lambda vector: _faults(vector, form)[:MAX_SENTENCES])


def _faults(vector: Mapping[str, Any], form: Format) -> list[str]:
    name = vector.get("kind")
    if not isinstance(name, str) or name not in form.kinds:
        return [f"the kind {reprlib.repr(name)} is not known; there are {', '.join(form.kinds)}"]
    kind = form.kinds[name]
    try:
        members(vector, kind.required, kind.optional | form.everywhere, "the vector")
        found = list(kind.run(vector))
        return found if found or form.afterwards is None else list(form.afterwards(vector))
    except (Malformed, RemoteProtocolError, ParameterError) as fault:
        return [str(fault)]


def members(given: Any, required: frozenset[str], optional: frozenset[str], what: str) -> Mapping[str, Any]:
    """``given`` as an object with these members and no others. Raises Malformed."""
    if not isinstance(given, Mapping):
        raise Malformed(f"{what} must be an object, not {type_name(given)}")
    if missing := sorted(required - given.keys()):
        raise Malformed(f"{what} has no {missing[0]}")
    if unknown := [name for name in given if name not in required | optional]:
        raise Malformed(f"the member {reprlib.repr(unknown[0])} of {what} is not known")
    return given


def cuts(whole: bytes, most: int) -> Iterable[int]:
    """Places to cut a stream in two: all, or where that feeds more than ``most`` octets fewer, evenly spread."""
    return range(1, len(whole), max(1, len(whole) ** 2 // most))
