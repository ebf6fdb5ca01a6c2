"""Moments as microseconds since 1970-01-01 UTC, exact over all years."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Of an aware moment."""
    return (at - EPOCH) // MICROSECOND
