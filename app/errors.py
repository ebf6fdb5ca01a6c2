"""The errors a person may meet, typed once (style-guide section 11).

Anything else that escapes is a bug and goes to the crash reporter. Every message is a sentence that says what
happened, where, and what to do next.
"""

from __future__ import annotations

from enum import StrEnum


class WorkbenchError(Exception):
    """Base of every expected failure."""


class LinkReason(StrEnum):
    """Why the wire failed; compared by identity, never by text."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CLOSED = "closed"
    SILENT = "silent"
    BUSY = "busy"
    TLS = "tls"
    DENIED = "denied"
    BROKEN = "broken"


class LinkError(WorkbenchError):
    """The wire failed: no connection, silence, a reset, broken framing of the transport itself.

    ``may_have_arrived`` is False only when it is certain that no byte of the request left this machine.
    """

    def __init__(self, text: str, reason: LinkReason, *, may_have_arrived: bool = True) -> None:
        super().__init__(text)
        self.reason = reason
        self.may_have_arrived = may_have_arrived


class ProtocolError(WorkbenchError):
    """The rules of a protocol were broken."""


class LocalProtocolError(ProtocolError):
    """We may not send or do this (an illegal move, an encoding that does not exist)."""


class RemoteProtocolError(ProtocolError):
    """The peer sent nonsense; the bytes are kept."""

    def __init__(self, text: str, data: bytes = b"") -> None:
        super().__init__(text)
        self.data = data


class ParameterError(WorkbenchError):
    """A command's parameter is missing or out of its limits."""

    def __init__(self, text: str, parameter: str = "") -> None:
        super().__init__(text)
        self.parameter = parameter


class ConfigError(WorkbenchError):
    """A file or setting is wrong: which one, which key, what was expected."""

    def __init__(self, text: str, *, file: str = "", key: str = "", expected: str = "") -> None:
        where = ": ".join(part for part in (file, key) if part)
        full = f"{where}: {text}" if where else text
        super().__init__(f"{full} (expected {expected})" if expected else full)
        self.file = file
        self.key = key
        self.expected = expected


class StoreError(WorkbenchError):
    """The workspace cannot be read or written. When it cannot be written, sending stops."""


class NotArmed(WorkbenchError):
    """Something would be changed while nobody has armed writing, or its time is over (``app.pipeline.arming``)."""


class FilterError(WorkbenchError):
    """A filter text is wrong; ``position`` counts characters from 0."""

    def __init__(self, text: str, position: int) -> None:
        super().__init__(f"{text} (at character {position + 1})")
        self.position = position


def unwrap(error: BaseException) -> WorkbenchError | None:
    """The one expected error inside an exception group, if that is all there is."""
    if isinstance(error, WorkbenchError):
        return error
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return unwrap(error.exceptions[0])
    return None
