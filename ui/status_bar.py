"""The bottom line: links, what waits, how fast it goes, how large the log is, and whether this is live."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QLocale, QSize, Qt, QTimer
from PySide6.QtGui import QAction, QPalette
from PySide6.QtWidgets import QHBoxLayout, QLabel, QStatusBar, QToolButton, QWidget

from app.errors import WorkbenchError
from app.model.flow import Batch
from app.model.interaction import Interaction
from app.model.reading import DeviceState, LinkState, SampleSet
from app.model.records import Change
from app.model.status import Status
from ui.theme import Role, Theme, space, status_word

if TYPE_CHECKING:
    from app.team.live import PushStatus
    from app.workbench import Workbench

BEAT_MS: Final = 1000  # nothing here moves faster than once a second (ui-guide: 1 Hz)
LINKS_SHOWN: Final = 2
RATE_OVER_S: Final = 5.0
COUNTED: Final = (Status.QUEUED, Status.DEFERRED, Status.SUSPENDED, Status.PROCESSING)


class Mode(Enum):
    NONE = "none"
    LIVE = "live"
    READ_ONLY = "read only"
    REPLAY = "replay"


@dataclass(slots=True)
class _Traffic:
    """Bytes of one link since the last beat, and whether its marks are lit."""

    out: int = 0
    into: int = 0
    is_out: bool = False
    is_in: bool = False
    last: float = 0.0


class StatusBar(QStatusBar):
    """Counts what the bridge brings and shows it once a second."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("status")
        self._theme = theme
        self._workbench: Workbench | None = None
        self._traffic: dict[str, _Traffic] = {}
        self._messages: deque[tuple[float, int]] = deque()
        self._latencies: deque[float] = deque(maxlen=50)
        self._counts_are_old = True
        self._mode = Mode.NONE
        self._team: PushStatus | None = None  # None while it is off

        self.links = self._label("status.links", self.tr("Links"))
        self.links.setToolTip(self.tr("Links with traffic; a filled mark means bytes in the last second."))
        self.counts = self._label("status.counts", self.tr("Commands under way"))
        self.batch = self._label("status.batch", self.tr("Batch under way"))
        self._batches: dict[int, Batch] = {}  # open ones
        self.rate = self._label("status.rate", self.tr("Messages a second"))
        self.log = self._label("status.log", self.tr("Log size"))
        self.team_icon = QLabel()
        self.team = self._label("status.team", self.tr("Team database"))
        self.team_item = _pair(self.team_icon, self.team)
        self.mode_icon = QLabel()
        self.mode = self._label("status.mode", self.tr("Mode"))
        for widget in (
            self.links, self.counts, self.batch, self.rate, self.log, self.team_item, _pair(self.mode_icon, self.mode)
        ):  # fmt: skip
            self.addPermanentWidget(widget)
        self.team_item.hide()
        self.messageChanged.connect(self._make_room)
        self.arming: list[QToolButton] = []

        self._beat = QTimer(self, interval=BEAT_MS)
        self._beat.timeout.connect(self.beat)
        self._beat.start()
        theme.changed.connect(self._show_mode)
        theme.changed.connect(self._show_team)
        self._show_mode()

    # ---------------------------------------------------------------- in

    def attach(self, workbench: Workbench, mode: Mode) -> None:
        self._workbench = workbench
        self._mode = mode
        self._counts_are_old = True
        self._traffic.clear()
        self._batches = {one.id: one for one in workbench.batches() if one.completed_at is None}
        self._show_batch()
        self._show_mode()
        self.beat()

    def detach(self) -> None:
        self._workbench = None
        self._mode = Mode.NONE
        self._traffic.clear()
        self._batches.clear()
        for label in (self.links, self.counts, self.batch, self.rate, self.log):
            label.clear()
        self.set_team(None)
        self._show_mode()

    def set_team(self, status: PushStatus | None) -> None:
        """What the push to a team's database does; nothing is shown while it is off or there is none."""
        if status is None:
            self._team = None
            self.team_item.hide()
            return
        from app.team.live import PushState  # later than the first paint

        if status.state is PushState.CONNECTING and self._team is not None and self._team.state is PushState.WAITING:
            return  # one more try: what is known stays until it is another
        self._team = status if status.state is not PushState.OFF else None
        if status.state is not PushState.PUSHING:  # which is over in a moment, or seen at the next beat
            self._show_team()

    def on_batch(self, changes: Sequence[Change]) -> None:
        done = 0
        for change in changes:
            if isinstance(change, Interaction):
                self._counts_are_old = True
                if change.is_settled:
                    done += 1
                    if change.attempts and change.finished is not None:
                        self._latencies.append((change.finished - change.created).total_seconds())
            elif isinstance(change, DeviceState) and change.link is LinkState.OFF:
                self._traffic.pop(change.device, None)
            elif isinstance(change, Batch):
                self._batches.pop(change.id, None)
                if change.completed_at is None:
                    self._batches[change.id] = change
                self._show_batch()
        self._count(done)
        if self._counts_are_old and self._workbench is not None:
            self._counts_are_old = False
            self._show_counts(self._workbench)

    def _show_batch(self) -> None:
        """How far the open batches are, all together."""
        batches = self._batches.values()
        total, done = sum(one.total for one in batches), sum(one.processed for one in batches)
        failed = sum(one.failed + one.superseded for one in batches)
        text = self.tr("Batch {done} of {total}").format(done=done, total=total) if batches else ""
        if failed:
            text += self.tr(", {n} failed", "", failed).format(n=failed)
        if batches and all(one.is_stopped for one in batches):
            text += self.tr(", stopped")
        self.batch.setText(text)

    def on_samples(self, samples: Sequence[SampleSet]) -> None:
        self._count(len(samples))

    def on_traffic(self, device: str, direction: str, nbytes: int) -> None:
        traffic = self._traffic.setdefault(device, _Traffic())
        traffic.last = monotonic()
        if direction == "out":
            traffic.out += nbytes
        else:
            traffic.into += nbytes

    def add_arming(self, *actions: QAction) -> None:
        """Show actions as buttons at the right end, each while it is visible."""
        for action in actions:
            button = QToolButton()
            button.setObjectName(f"status.{action.objectName()}")
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            button.setAutoRaise(True)
            button.setDefaultAction(action)
            self.arming.append(button)
            self.addPermanentWidget(button)
            action.changed.connect(self._show_arming)
        self._show_arming()

    def _show_arming(self) -> None:
        for button in self.arming:
            action = button.defaultAction()
            button.setVisible(action.isVisible())
            button.setAccessibleName(action.text().replace("&", ""))
            button.setAccessibleDescription(action.iconText())

    def set_log(self, interactions: int | None, nbytes: int) -> None:
        """Interactions in the log (None: not counted yet) and its size."""
        size = QLocale().formattedDataSize(nbytes, 0)
        if interactions is None:
            self._set(self.log, self.tr("log {size}").format(size=size))
        else:
            self._set(self.log, self.tr("log {count}, {size}").format(count=short_number(interactions), size=size))

    # ---------------------------------------------------------------- out

    def beat(self) -> None:
        """Bring everything up to date. Once a second."""
        self._show_links()
        self._show_team()
        if self._workbench is None:
            return
        if self._counts_are_old:
            self._counts_are_old = False
            self._show_counts(self._workbench)
        now = monotonic()
        while self._messages and self._messages[0][0] < now - RATE_OVER_S:
            self._messages.popleft()
        rate = sum(n for _at, n in self._messages) / RATE_OVER_S
        text = self.tr("{rate} msg/s").format(rate=f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}")
        if self._latencies:
            middle = sorted(self._latencies)[len(self._latencies) // 2]
            text = self.tr("{rate}, {time}").format(rate=text, time=short_time(middle))
        self._set(self.rate, text)

    def _show_links(self) -> None:
        latest = sorted(self._traffic.items(), key=lambda item: item[1].last, reverse=True)
        for _device, traffic in latest:
            traffic.is_out, traffic.is_in = traffic.out > 0, traffic.into > 0
            traffic.out = traffic.into = 0
        parts = [
            self.tr("{device} {out}TX {into}RX").format(
                device=device, out="▲" if t.is_out else "△", into="▼" if t.is_in else "▽"
            )
            for device, t in sorted(latest[:LINKS_SHOWN])
        ]
        if len(latest) > LINKS_SHOWN:
            active = sum(1 for _d, t in latest if t.is_out or t.is_in)
            parts.append(self.tr("{n} of {total} links busy").format(n=active, total=len(latest)))
        self._set(self.links, "   ".join(parts))

    def _show_counts(self, workbench: Workbench) -> None:
        try:
            counts = workbench.counts()
        except WorkbenchError:
            return
        parts = [f"{status_word(s)} {counts.get(s, 0)}" for s in COUNTED if counts.get(s, 0)]
        self._set(self.counts, " · ".join(parts) if parts else self.tr("nothing waits"))

    def _show_team(self) -> None:
        status = self._team
        self.team_item.setVisible(status is not None)
        if status is None:
            return
        from ui.team_state import team_look, team_text, team_word

        side = self.fontMetrics().height()
        icon = self._theme.icon(team_look(status), side)
        self.team_icon.setPixmap(icon.pixmap(QSize(side, side), self.devicePixelRatioF()))
        self._set(self.team, self.tr("team: {word}").format(word=team_word(status)))
        self.team_item.setToolTip(team_text(status))

    def _show_mode(self) -> None:
        words = {
            Mode.NONE: "",
            Mode.LIVE: self.tr("live"),
            Mode.READ_ONLY: self.tr("read only"),
            Mode.REPLAY: self.tr("REPLAY"),
        }
        links = {Mode.LIVE: LinkState.ONLINE, Mode.READ_ONLY: LinkState.OFF, Mode.REPLAY: LinkState.REPLAY}
        self.mode.setText(words[self._mode])
        link = links.get(self._mode)
        if link is None:
            self.mode_icon.clear()
            return
        side = self.fontMetrics().height()
        self.mode_icon.setPixmap(self._theme.link_icon(link).pixmap(QSize(side, side), self.devicePixelRatioF()))
        palette = self.mode.palette()
        palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(Role.TEXT))
        self.mode.setPalette(palette)

    def _make_room(self, message: str) -> None:
        """A sentence needs the width; the numbers come back after it."""
        for label in (self.links, self.rate, self.log):
            label.setVisible(not message)

    def _count(self, messages: int) -> None:
        if messages:
            self._messages.append((monotonic(), messages))

    def _set(self, label: QLabel, text: str) -> None:
        if label.text() != text:
            label.setText(text)

    def _label(self, name: str, accessible: str) -> QLabel:
        label = QLabel()
        label.setObjectName(name)
        label.setAccessibleName(accessible)
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setContentsMargins(space(1), 0, space(1), 0)
        return label


def _pair(icon: QLabel, label: QLabel) -> QWidget:
    """A shape and its word, as one item."""
    item = QWidget()
    row = QHBoxLayout(item)
    row.setContentsMargins(0, 0, space(2), 0)
    row.setSpacing(space(1))
    row.addWidget(icon)
    row.addWidget(label)
    return item


def short_number(number: int) -> str:
    """1234567 as "1.2 M"."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (1000 if letter == 'k' else size):.1f} {letter}"
    return str(number)


def short_time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
