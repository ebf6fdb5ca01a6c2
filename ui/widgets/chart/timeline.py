"""Which range of time a chart shows: held where a person put it, or following the newest samples."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

DEFAULT_SPAN_US: Final = 60_000_000
SHORTEST_SPAN_US: Final = 10
LONGEST_SPAN_US: Final = 100 * 365 * 86_400_000_000
_FOLLOW_STEPS: Final = 50  # the window of time moves by a fiftieth


class Timeline(QWidget):
    """A widget with an axis of time, ``left_us`` to ``left_us + span_us``. Its subclass draws what happened then."""

    followingChanged = Signal(bool)
    timeRangeChanged = Signal(object, object, bool)  # left and width in microseconds, is it following: a person's doing

    def __init__(self, parent: QWidget | None, now_us: int) -> None:
        super().__init__(parent)
        self._is_following = True
        self._is_led = False  # while the range comes from another chart
        self._span_us = DEFAULT_SPAN_US
        self._left_us = now_us - self._span_us

    # ---------------------------------------------------------------- what the subclass knows
    def touch(self) -> None:
        """Something changed: draw it with the next frame."""
        raise NotImplementedError

    def newest_us(self) -> int:
        """The newest moment there is."""
        raise NotImplementedError

    def render_now(self) -> None:
        """Draw what has arrived until now."""
        raise NotImplementedError

    def _show_following(self) -> None:
        raise NotImplementedError

    def _show_span(self) -> None:
        raise NotImplementedError

    # ---------------------------------------------------------------- the range
    @property
    def is_following(self) -> bool:
        return self._is_following

    @property
    def visible_range_us(self) -> tuple[int, int]:
        return self._left_us, self._left_us + self._span_us

    @property
    def span_us(self) -> int:
        return self._span_us

    def follow(self) -> None:
        """Show the newest samples from now on."""
        if not self._is_following:
            self._is_following = True
            self.followingChanged.emit(True)
            self._ranged()
        self._show_following()
        self.touch()

    def pause(self) -> None:
        """Hold the picture; samples keep arriving."""
        if self._is_following:
            self.render_now()  # with what has arrived until now
            self._hold()
            self._ranged()
        self._show_following()
        self.touch()

    def toggle_pause(self) -> None:
        if self._is_following:
            self.pause()
        else:
            self.follow()

    @property
    def behind_s(self) -> float:
        """How far the right edge lies behind the newest moment."""
        return max(0.0, (self.newest_us() - self._left_us - self._span_us) / 1e6)

    def set_span(self, seconds: float) -> None:
        """Width of the time axis; following, the newest moment stays at the right."""
        self._set_span(round(seconds * 1e6), 1.0 if self._is_following else 0.5)

    def set_visible_range(self, left_us: int, right_us: int) -> None:
        """Show a range of time and hold it."""
        self._hold()
        self._span_us = min(max(right_us - left_us, SHORTEST_SPAN_US), LONGEST_SPAN_US)
        self._left_us = left_us
        self._show_span()
        self._ranged()
        self.touch()

    def show_time(self, t_us: int) -> None:
        """Bring a time into the middle and hold it."""
        self.set_visible_range(t_us - self._span_us // 2, t_us - self._span_us // 2 + self._span_us)

    def follow_range(self, left_us: int, span_us: int, is_following: bool) -> None:
        """Show the range of time of another chart, as its ``timeRangeChanged`` says."""
        self._is_led = True
        try:
            if is_following:
                self.follow()
                self.set_span(span_us / 1e6)
            else:
                self.set_visible_range(left_us, left_us + span_us)
        finally:
            self._is_led = False

    def _ranged(self) -> None:
        """The range of time is another one."""
        if not self._is_led:
            self.timeRangeChanged.emit(self._left_us, self._span_us, self._is_following)

    def zoom_time(self, factor: float, at: float = 0.5) -> None:
        """Zoom by ``factor`` about a place, 0 at the left edge to 1 at the right."""
        self._set_span(round(self._span_us * factor), 1.0 if self._is_following else at)

    def pan_time(self, share: float) -> None:
        """Move by a share of the width; leaves following."""
        self._hold()
        self._left_us += round(self._span_us * share)
        self._ranged()
        self.touch()

    def _hold(self) -> None:
        if self._is_following:
            self._is_following = False
            self.followingChanged.emit(False)
            self._show_following()

    def _set_span(self, span_us: int, at: float) -> None:
        span_us = min(max(span_us, SHORTEST_SPAN_US), LONGEST_SPAN_US)
        self._left_us += round((self._span_us - span_us) * at)
        self._span_us = span_us
        self._show_span()
        self._ranged()
        self.touch()

    def _follow_newest(self) -> None:
        newest = self.newest_us()
        step = max(1, self._span_us // _FOLLOW_STEPS)
        right = -(-newest // step) * step
        self._left_us = right - self._span_us

    # ---------------------------------------------------------------- positions
    def px_to_us(self, px: float, width: float) -> int:
        return self._left_us + round(self._span_us * px / max(1.0, width))

    def us_to_px(self, t_us: int, width: float) -> float:
        return (t_us - self._left_us) * width / self._span_us
