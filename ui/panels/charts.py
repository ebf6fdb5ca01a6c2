"""The charts of a workspace: one tab each, with curves of its own. What comes live goes to all of them.

Charts are remembered in the workspace's setting ``charts``; a replay remembers nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PySide6.QtCore import QPoint, QRect, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAction,
    QContextMenuEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDragMoveEvent,
    QDropEvent,
    QKeyEvent,
    QMouseEvent,
)
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QMenu, QStackedWidget, QTabBar, QToolButton, QVBoxLayout, QWidget

from app.errors import WorkbenchError
from app.lab.derived import Derived
from app.lab.series import Series, SeriesKey, Times, Values
from app.model.reading import DeviceState, Quantity, SampleSet
from ui.alarms import Subject, ThresholdAlarms
from ui.curves import CurveKeeper
from ui.derived_curves import DerivedDesk, key_of
from ui.dialogs.lab import CurveChoice
from ui.lab_records import LabRecords
from ui.theme import Look, Role, Shape, Theme, space
from ui.widgets.chart.curve import DERIVED_DEVICE, CurveKey, Marker, clock_us, from_us, quantity_of
from ui.widgets.live_chart import LiveChart

if TYPE_CHECKING:
    from app.workbench import Workbench
    from ui.log_access import LogAccess

SETTING: Final = "charts"
OLD_SETTING: Final = "chart"  # of the one chart that there was before
SAVE_MS: Final = 500
MOST_CHARTS: Final = 16
MOST_NAME: Final = 80  # letters
RECENT_S: Final = 3.0  # by then the log has what came live
RECENT_MOST: Final = 50_000  # packets
HOVER_MS: Final = 400  # over a tab with a quantity in hand, until its chart is shown
ELAPSED_MS: Final = 500
LOWER_LEAST: Final = 16  # steps: the tabs below the plots and one row
_STOPPED: Final = Look("", Role.BAD, Shape.HOLLOW_CIRCLE)
_RUNNING: Final = Look("", Role.BAD, Shape.FILLED_CIRCLE)


@dataclass(slots=True, eq=False)
class Sheet:
    """One chart of the book."""

    name: str
    chart: LiveChart
    keeper: CurveKeeper
    references: dict[str, tuple[Series, str]] = field(default_factory=dict)  # by id: the curve, and where it is from


class ChartTabs(QTabBar):
    """Names of the charts. A quantity that is dropped on one goes to its chart, beside them to a new one."""

    dropped = Signal(int, str, object)  # place (-1: beside the tabs), device, Quantity
    renamed = Signal(int, str)
    menuWanted = Signal(int, QPoint)  # place, where on the screen

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("charts.tabs")
        self.setAccessibleName(self.tr("Charts"))
        self.setMovable(True)
        self.setDrawBase(False)
        self.setExpanding(False)
        self.setElideMode(Qt.TextElideMode.ElideRight)
        self.setUsesScrollButtons(True)
        self.setAcceptDrops(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._editor: QLineEdit | None = None
        self._hovered = -1
        self._hover = QTimer(self, singleShot=True, interval=HOVER_MS)
        self._hover.timeout.connect(self._on_hover)
        self.tabBarDoubleClicked.connect(self.edit_name)

    def minimumSizeHint(self) -> QSize:
        """Room for one tab and the buttons to the others."""
        least = QSize(self.fontMetrics().averageCharWidth() * 18, super().minimumSizeHint().height())
        return least.boundedTo(self.sizeHint())

    # ---------------------------------------------------------------- closing

    def tabInserted(self, index: int) -> None:
        super().tabInserted(index)
        self._place_buttons()

    def tabRemoved(self, index: int) -> None:
        super().tabRemoved(index)
        self._place_buttons()

    def _place_buttons(self) -> None:
        """One that closes on every tab, unless there is only one tab."""
        side = QTabBar.ButtonPosition.RightSide
        for place in range(self.count()):
            old: QWidget | None = self.tabButton(place, side)
            if old is not None:
                if self.count() == 1:
                    self.setTabButton(place, side, None)
                    old.deleteLater()
                continue
            if self.count() == 1:
                continue
            button = QToolButton(self)
            button.setText("\N{MULTIPLICATION SIGN}")
            button.setAutoRaise(True)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            button.setToolTip(self.tr("Close this chart (Ctrl+W)"))
            button.setAccessibleName(self.tr("Close this chart"))
            button.clicked.connect(partial(self._on_close, button))
            self.setTabButton(place, side, button)

    def _on_close(self, button: QToolButton, _checked: bool = False) -> None:
        side = QTabBar.ButtonPosition.RightSide
        place = next((n for n in range(self.count()) if self.tabButton(n, side) is button), -1)
        if place >= 0:
            self.tabCloseRequested.emit(place)

    # ---------------------------------------------------------------- names

    def edit_name(self, place: int) -> None:
        """Write the name of a chart over its tab."""
        if not 0 <= place < self.count():
            return
        self._leave_editor()
        self.setCurrentIndex(place)
        editor = self._editor = _NameEditor(self.tabText(place).replace("&&", "&"), self)
        rect: QRect = self.tabRect(place)
        wanted = self.fontMetrics().averageCharWidth() * 20
        editor.setGeometry(rect.x(), rect.y(), min(max(rect.width(), wanted), self.width() - rect.x()), rect.height())
        editor.left.connect(self._leave_editor)
        editor.editingFinished.connect(partial(self._on_edited, place))
        editor.show()
        editor.setFocus(Qt.FocusReason.PopupFocusReason)
        editor.selectAll()

    def _on_edited(self, place: int) -> None:
        editor = self._editor
        if editor is not None:
            name = " ".join(editor.text().split())
            self._leave_editor()
            if name:
                self.renamed.emit(place, name)

    def _leave_editor(self) -> None:
        editor, self._editor = self._editor, None
        if editor is not None:
            editor.hide()
            editor.deleteLater()
            self.setFocus(Qt.FocusReason.PopupFocusReason)

    # ---------------------------------------------------------------- mouse

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        place = self.tabAt(event.pos())
        self.menuWanted.emit(place if place >= 0 else self.currentIndex(), event.globalPos())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        place = self.tabAt(event.position().toPoint())
        if event.button() is Qt.MouseButton.MiddleButton and place >= 0:
            self.tabCloseRequested.emit(place)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if quantity_of(event.mimeData()) is not None:
            event.acceptProposedAction()

    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        place = self.tabAt(event.position().toPoint())
        if place != self._hovered:
            self._hovered = place
            self._hover.start()
        event.acceptProposedAction()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self._hovered = -1
        self._hover.stop()

    def dropEvent(self, event: QDropEvent) -> None:
        found = quantity_of(event.mimeData())
        self._hovered = -1
        self._hover.stop()
        if found is not None:
            self.dropped.emit(self.tabAt(event.position().toPoint()), *found)
            event.acceptProposedAction()

    def _on_hover(self) -> None:
        if self._hovered >= 0:
            self.setCurrentIndex(self._hovered)


class _NameEditor(QLineEdit):
    """Return keeps the name, Esc leaves it as it was."""

    left = Signal()

    def __init__(self, name: str, parent: QWidget) -> None:
        super().__init__(name, parent)
        self.setObjectName("charts.name")
        self.setAccessibleName(self.tr("Name of the chart"))
        self.setMaxLength(MOST_NAME)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.left.emit()
        else:
            super().keyPressEvent(event)


class ChartBook(QWidget):
    """Holds the charts and feeds them.

    Args:
        make_chart: makes an empty chart.
        records: notes, recordings, thresholds and derived quantities, which all charts show.
        is_live: otherwise nothing is remembered, and there is no past.
        now_us: the clock of the samples.
    """

    activeChanged = Signal(object)  # LiveChart
    countChanged = Signal(int)
    sharingChanged = Signal(bool)
    curvesChanged = Signal()  # of the chart that is shown
    referencesChanged = Signal()
    markerActivated = Signal(int)
    noteWanted = Signal(object)  # microseconds
    noteActivated = Signal(int)
    thresholdWanted = Signal(str, float)
    recordWanted = Signal()
    newWanted = Signal()
    said = Signal(str)  # a sentence
    failed = Signal(str)  # a sentence: what was asked for is not done
    done = Signal(str, object, bool)  # what a person did, what takes it back, and whether something is gone by it

    def __init__(
        self,
        workbench: Workbench,
        log: LogAccess,
        theme: Theme,
        records: LabRecords,
        make_chart: Callable[[], LiveChart],
        parent: QWidget | None = None,
        *,
        is_live: bool,
        now_us: Callable[[], int] = clock_us,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("charts")
        self._workbench = workbench
        self._log = log
        self._theme = theme
        self._records = records
        self._make_chart = make_chart
        self._is_live = is_live
        self._now_us = now_us
        self._sheets: list[Sheet] = []
        self._met: set[str] = set()
        self._is_shared = False
        self._is_leading = False  # while one chart leads the others
        self._recent: deque[tuple[float, SampleSet]] = deque(maxlen=RECENT_MOST)
        self._last_reference = 0
        self._saver = QTimer(self, singleShot=True, interval=SAVE_MS)
        self._saver.timeout.connect(self.save)
        self.desk = DerivedDesk(now_us, log, self, has_past=is_live)
        self.alarms = ThresholdAlarms(workbench, self._subject, self, is_live=is_live)
        self.desk.computed.connect(self._on_computed)
        self._elapsed = QTimer(self, interval=ELAPSED_MS)
        self._elapsed.timeout.connect(self._show_elapsed)
        self._build()
        records.notesChanged.connect(self._show_notes)
        records.recordingsChanged.connect(self._show_recordings)
        records.thresholdsChanged.connect(self._show_thresholds)
        records.derivedChanged.connect(self._on_derived)
        theme.changed.connect(self._show_elapsed)
        self._restore()
        self._on_derived()
        self._show_recordings()
        self._saver.stop()

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.tabs = ChartTabs()
        self.tabs.currentChanged.connect(self._on_current)
        self.tabs.tabMoved.connect(self._on_moved)
        self.tabs.tabCloseRequested.connect(self.close_chart, Qt.ConnectionType.QueuedConnection)
        self.tabs.renamed.connect(self.rename)
        self.tabs.dropped.connect(self._on_dropped)
        self.tabs.menuWanted.connect(self._show_tab_menu)
        self.new_button = self._button("charts.new", "+", self.newWanted.emit)
        self.new_button.setAccessibleName(self.tr("New chart"))
        self.new_button.setToolTip(self.tr("Another chart beside these (Ctrl+T)"))
        self.share_button = self._button("charts.share", self.tr("Same time"), None)
        self.share_button.setCheckable(True)
        self.share_button.setToolTip(self.tr("All charts show the same range of time and move together"))
        self.share_button.toggled.connect(self.set_shared)
        self.record_button = self._button("charts.record", self.tr("Record"), self.recordWanted.emit)
        self.lab_button = self._button("charts.lab", self.tr("Lab"), None)
        self.lab_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.lab_button.setToolTip(self.tr("Notes, thresholds, derived quantities and references"))
        self._stack = QStackedWidget()
        row = QHBoxLayout()
        row.setContentsMargins(space(1), 0, space(1), 0)
        row.setSpacing(space(1))
        row.addWidget(self.tabs)
        row.addWidget(self.new_button)
        row.addStretch(1)
        for widget in (self.share_button, self.record_button, self.lab_button):
            row.addWidget(widget)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(row)
        box.addWidget(self._stack, 1)

    def _button(self, name: str, text: str, slot: Callable[[], object] | None) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setText(text)
        button.setAccessibleName(text)
        button.setAutoRaise(True)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if slot is not None:
            button.clicked.connect(lambda _checked=False: slot())
        return button

    # ---------------------------------------------------------------- the charts

    @property
    def sheets(self) -> Sequence[Sheet]:
        """In the order of their tabs."""
        return tuple(self._sheets)

    @property
    def active(self) -> Sheet:
        return self._sheets[max(0, self.tabs.currentIndex())]

    @property
    def chart(self) -> LiveChart:
        """The one that is shown."""
        return self.active.chart

    def add_chart(self, name: str = "") -> Sheet | None:
        """A new chart at the end, which is shown then."""
        sheet = self._add(name or self._free_name(), len(self._sheets))
        if sheet is None:
            return None
        if len(self._sheets) > 1:
            self._take_range(self.active.chart, sheet.chart)
        self.tabs.setCurrentIndex(len(self._sheets) - 1)
        self.done.emit(self.tr("{name} added").format(name=sheet.name), partial(self._drop, sheet), False)
        return sheet

    def duplicate_chart(self, place: int = -1) -> None:
        """The same once more, beside it."""
        place = place if place >= 0 else self.tabs.currentIndex()
        model = self._sheets[place]
        name = self._free_name(self.tr("{name} copy").format(name=model.name))
        sheet = self._add(name, place + 1)
        if sheet is None:
            return
        self._fill(sheet, {**self._sheet_state(model), "name": name})
        for reference_id, (series, source) in model.references.items():
            self._put_reference(sheet, series, model.chart.references[reference_id], source)
        self._take_range(model.chart, sheet.chart)
        self.tabs.setCurrentIndex(place + 1)
        self.done.emit(self.tr("{name} added").format(name=sheet.name), partial(self._drop, sheet), False)

    def close_chart(self, place: int = -1) -> None:
        """Take a chart away; the last one stays."""
        place = place if place >= 0 else self.tabs.currentIndex()
        if len(self._sheets) < 2:
            self.failed.emit(self.tr("This is the only chart; one stays. Its curves can be taken off."))
            return
        sheet = self._sheets[place]
        state, references = self._sheet_state(sheet), dict(sheet.references)
        shifts = sheet.chart.references
        view = *sheet.chart.visible_range_us, sheet.chart.is_following
        self._drop(sheet)

        def back() -> bool:
            again = self._add(sheet.name, min(place, len(self._sheets)))
            if again is None:
                return False
            self._fill(again, state)
            for reference_id, (series, source) in references.items():
                self._put_reference(again, series, shifts[reference_id], source)
            left, right, is_following = view
            again.chart.follow_range(left, right - left, is_following)
            self.tabs.setCurrentIndex(self._sheets.index(again))
            return True

        self.done.emit(self.tr("{name} closed").format(name=sheet.name), back, True)

    def rename(self, place: int, name: str) -> None:
        sheet = self._sheets[place]
        before = sheet.name
        if name == before:
            return
        self._rename(sheet, name)
        what = self.tr("{old} renamed to {new}").format(old=before, new=name)
        self.done.emit(what, partial(self._rename, sheet, before), False)

    def edit_name(self) -> None:
        """Write the name of the chart that is shown over its tab."""
        self.tabs.edit_name(self.tabs.currentIndex())

    def _rename(self, sheet: Sheet, name: str) -> bool:
        if sheet not in self._sheets:
            return True  # closed since: its name came back with it, or does not matter
        sheet.name = sheet.chart.title = name[:MOST_NAME]
        sheet.chart.setAccessibleName(self.tr("Chart {name}").format(name=sheet.name))
        place = self._sheets.index(sheet)
        self.tabs.setTabText(place, sheet.name.replace("&", "&&"))
        self.tabs.setTabToolTip(place, sheet.name)
        self._saver.start()
        return True

    def _free_name(self, wanted: str = "") -> str:
        taken = {sheet.name for sheet in self._sheets}
        names = (wanted if wanted and n == 1 else f"{wanted or self.tr('Chart')} {n}" for n in range(1, 1000))
        return next((name for name in names if name not in taken), wanted or self.tr("Chart"))

    def _add(self, name: str, place: int) -> Sheet | None:
        """An empty chart with what all charts show."""
        if len(self._sheets) >= MOST_CHARTS:
            text = self.tr("There are {n} charts, which is the most: close one that is no longer needed.")
            self.failed.emit(text.format(n=MOST_CHARTS))
            return None
        chart = self._make_chart()
        keeper = CurveKeeper(
            chart,
            self._workbench,
            self._log,
            is_live=self._is_live,
            met=self._met,
            takes_first=not self._sheets,
            desk=self.desk,
            recent=self._recents,
        )
        chart.tabs.setMinimumHeight(space(LOWER_LEAST))  # the plots come first where there is little room
        sheet = Sheet(name, chart, keeper)
        for marker in self._markers():
            chart.add_marker(from_us(marker.t_us), marker.interaction, marker.text, marker.kind.value)
        chart.set_notes(self._records.notes)
        chart.set_recordings(self._records.recordings)
        chart.set_thresholds(self._records.thresholds)
        keeper.changed.connect(partial(self._on_curves, sheet))
        chart.stateChanged.connect(self._saver.start)
        chart.markerActivated.connect(self.markerActivated)
        chart.noteWanted.connect(self.noteWanted)
        chart.noteActivated.connect(self.noteActivated)
        chart.thresholdWanted.connect(self.thresholdWanted)
        chart.refused.connect(self.failed)
        chart.exportFailed.connect(self.failed)
        chart.exported.connect(self._on_exported)
        chart.crossed.connect(partial(self._on_crossed, chart))
        chart.timeRangeChanged.connect(partial(self._on_range, sheet))
        chart.referenceRemoved.connect(partial(self._on_reference_removed, sheet))
        self._sheets.insert(place, sheet)
        self._stack.addWidget(chart)
        self.tabs.insertTab(place, name)
        self._rename(sheet, name)
        self._on_count()
        return sheet

    def _drop(self, sheet: Sheet) -> bool:
        """Take a chart out of the book."""
        if sheet not in self._sheets or len(self._sheets) < 2:
            return sheet not in self._sheets
        place = self._sheets.index(sheet)
        self._sheets.remove(sheet)
        if sheet.keeper.takes_first:
            self._sheets[0].keeper.takes_first = True
        self.tabs.removeTab(place)
        self._stack.removeWidget(sheet.chart)
        sheet.chart.blockSignals(True)
        sheet.chart.hide()
        sheet.chart.deleteLater()
        self._on_current(self.tabs.currentIndex())
        self._on_count()
        self._watch()
        self._saver.start()
        return True

    def _on_count(self) -> None:
        count = len(self._sheets)
        self.share_button.setVisible(count > 1)
        self.countChanged.emit(count)

    def _on_current(self, place: int) -> None:
        if 0 <= place < len(self._sheets):
            self._stack.setCurrentWidget(self._sheets[place].chart)
            self.activeChanged.emit(self._sheets[place].chart)
            self._saver.start()

    def _on_moved(self, since: int, to: int) -> None:
        self._sheets.insert(to, self._sheets.pop(since))
        self._saver.start()

    def _on_dropped(self, place: int, device: str, quantity: Quantity) -> None:
        """On the place beside the tabs a quantity opens a chart of its own."""
        sheet = self._sheets[place] if 0 <= place < len(self._sheets) else self.add_chart()
        if sheet is not None:
            sheet.keeper.add(device, quantity)
            self.tabs.setCurrentIndex(self._sheets.index(sheet))

    def _show_tab_menu(self, place: int, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Rename")).triggered.connect(partial(self.tabs.edit_name, place))
        menu.addAction(self.tr("Duplicate")).triggered.connect(partial(self.duplicate_chart, place))
        close: QAction = menu.addAction(self.tr("Close"))
        close.setEnabled(len(self._sheets) > 1)
        close.triggered.connect(partial(self.close_chart, place))
        menu.popup(at)

    # ---------------------------------------------------------------- one range of time for all

    @property
    def is_shared(self) -> bool:
        return self._is_shared

    def set_shared(self, is_shared: bool) -> None:
        """Let all charts show the same range of time: that of the one that is shown now."""
        if is_shared == self._is_shared:
            return
        self._is_shared = is_shared
        self.share_button.setChecked(is_shared)
        if is_shared:
            chart = self.chart
            self._on_range(self.active, chart.visible_range_us[0], chart.span_us, chart.is_following)
        self.sharingChanged.emit(is_shared)
        self._saver.start()

    def _on_range(self, sheet: Sheet, left_us: int, span_us: int, is_following: bool) -> None:
        self._saver.start()
        if not self._is_shared or self._is_leading:
            return
        self._is_leading = True
        try:
            for other in self._sheets:
                if other is not sheet:
                    other.chart.follow_range(left_us, span_us, is_following)
        finally:
            self._is_leading = False

    def _take_range(self, model: LiveChart, chart: LiveChart) -> None:
        left, right = model.visible_range_us
        chart.follow_range(left, right - left, model.is_following)

    # ---------------------------------------------------------------- what comes live

    def on_samples(self, samples: Sequence[SampleSet]) -> None:
        self._keep_recent(samples)
        for sheet in self._sheets:
            sheet.keeper.on_samples(samples)
        self.desk.on_samples(samples)

    def _on_computed(self, samples: Sequence[SampleSet]) -> None:
        self._keep_recent(samples)
        for sheet in self._sheets:
            sheet.keeper.on_derived(samples)

    def on_facts(self, states: Sequence[DeviceState]) -> None:
        for sheet in self._sheets:
            sheet.keeper.on_facts(states)

    def add_marker(self, at: datetime, interaction: int, text: str, kind: str) -> None:
        """Mark a moment on every chart."""
        for sheet in self._sheets:
            sheet.chart.add_marker(at, interaction, text, kind)

    def clear_samples(self) -> None:
        """A replay went to another moment: what was drawn until now is of no use."""
        self._recent.clear()
        self.alarms.forget()
        for sheet in self._sheets:
            sheet.chart.clear_samples()
        self.desk.forget()

    def _markers(self) -> Sequence[Marker]:
        return self._sheets[0].chart.markers if self._sheets else ()

    def _keep_recent(self, samples: Sequence[SampleSet]) -> None:
        now = time.monotonic()
        self._recent.extend((now, sample) for sample in samples)
        while self._recent and self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()

    def _recents(self) -> list[SampleSet]:
        return [sample for _arrived, sample in self._recent]

    # ---------------------------------------------------------------- curves

    def add_curve(self, device: str, quantity: Quantity) -> None:
        """Put a quantity on the chart that is shown."""
        self.active.keeper.add(device, quantity)

    def add_whole(self, device: str, known: Sequence[Quantity]) -> None:
        """Put the live quantities of a device on the chart that is shown."""
        self.active.keeper.add_whole(device, known)

    def add_derived(self, derived: Derived) -> None:
        """Put a derived quantity on the chart that is shown."""
        self.active.keeper.add_derived(derived)

    def sheets_with(self, key: CurveKey) -> list[Sheet]:
        return [sheet for sheet in self._sheets if key in sheet.chart.by_key]

    def choices(self) -> list[CurveChoice]:
        """The measured curves on all charts, those of the one that is shown first."""
        found: dict[CurveKey, CurveChoice] = {}
        for sheet in (self.active, *self._sheets):
            for curve in sheet.chart.curves:
                if curve.reference is None and curve.key.device != DERIVED_DEVICE:
                    found.setdefault(curve.key, CurveChoice(curve.key, curve.name, curve.device_name))
        return list(found.values())

    def column(self, key: SeriesKey) -> tuple[Times, Values] | None:
        """The samples of a curve as they are known now: what a chart has of it, else what came a moment ago."""
        for sheet in self.sheets_with(key):
            curve = sheet.chart.by_key[key]
            curve.take_pending()
            if len(curve.ring):
                return curve.ring.times.copy(), curve.ring.values.copy()
        found: dict[int, float] = {}
        for sample in self._recents():
            if sample.device == key.device:
                for quantity, value in sample.values:
                    if quantity.name == key.name and quantity.unit == key.unit and value.is_finite():
                        found.setdefault(round(sample.received.timestamp() * 1e6), float(value))
        if not found:
            return None
        times = sorted(found)
        return np.array(times, np.int64), np.array([found[at] for at in times], np.float64)

    def _on_curves(self, sheet: Sheet) -> None:
        self._saver.start()
        self._watch()
        if sheet in self._sheets and sheet is self.active:
            self.curvesChanged.emit()

    def _on_derived(self) -> None:
        self.desk.set_derived(self._records.derived)
        for sheet in self._sheets:
            sheet.keeper.on_definitions()

    # ---------------------------------------------------------------- references

    def add_references(self, series: Sequence[Series], shift_us: int, source: str) -> None:
        """Put curves of another time on the chart that is shown."""
        sheet = self.active
        added = [self._put_reference(sheet, one, shift_us, source) for one in series]

        def back() -> bool:
            for reference_id in added:
                sheet.references.pop(reference_id, None)
                if sheet in self._sheets:
                    sheet.chart.remove_reference(reference_id)
            return True

        what = self.tr("the reference of {source} added").format(source=source)
        self.done.emit(what, back, False)
        self.referencesChanged.emit()

    def _put_reference(self, sheet: Sheet, series: Series, shift_us: int, source: str) -> str:
        self._last_reference += 1
        reference_id = str(self._last_reference)
        sheet.references[reference_id] = series, source
        sheet.chart.add_reference(reference_id, series, shift_us)
        if reference_id not in sheet.chart.references:
            del sheet.references[reference_id]  # the chart is full, and has said so
        return reference_id

    def _on_reference_removed(self, sheet: Sheet, reference_id: str) -> None:
        sheet.references.pop(reference_id, None)
        self.referencesChanged.emit()

    # ---------------------------------------------------------------- what all charts show

    def _show_notes(self) -> None:
        for sheet in self._sheets:
            sheet.chart.set_notes(self._records.notes)

    def _show_recordings(self) -> None:
        for sheet in self._sheets:
            sheet.chart.set_recordings(self._records.recordings)
        self._show_elapsed()

    def _show_thresholds(self) -> None:
        for sheet in self._sheets:
            sheet.chart.set_thresholds(self._records.thresholds)
        self._watch()

    def _show_elapsed(self) -> None:
        """How long the recording has run, on its button."""
        running = self._records.running
        button = self.record_button
        button.setIcon(self._theme.icon(_RUNNING if running is not None else _STOPPED))
        if running is None:
            self._elapsed.stop()
            button.setText(self.tr("Record"))
            button.setToolTip(self.tr("Give the time from now on a name (Ctrl+R)"))
        else:
            self._elapsed.start()
            whole = max(0, self._now_us() - running.start_us) // 1_000_000
            hours = f"{whole // 3600}:" if whole >= 3600 else ""
            button.setText(self.tr("Stop {elapsed}").format(elapsed=f"{hours}{whole // 60 % 60:02d}:{whole % 60:02d}"))
            button.setToolTip(self.tr("End the recording {name} (Ctrl+R)").format(name=running.name))
        button.setAccessibleName(button.text())

    def _on_exported(self, path: str) -> None:
        self.said.emit(self.tr("The chart was written to {path}.").format(path=path))

    # ---------------------------------------------------------------- thresholds

    def _on_crossed(
        self, chart: LiveChart, key: CurveKey, number: int, t_us: int, value: float, is_beyond: bool
    ) -> None:
        threshold = chart.thresholds.get(number)
        if threshold is not None:
            self.alarms.on_crossed(key, threshold, t_us, value, is_beyond)

    def _watch(self) -> None:
        keys = {curve.key for sheet in self._sheets for curve in sheet.chart.curves if curve.reference is None}
        self.alarms.watch(keys, self._records.thresholds, self._now_us())

    def _subject(self, key: CurveKey) -> Subject:
        """A derived quantity is that of the device of its first curve."""
        sheets = self.sheets_with(key)
        curve = sheets[0].chart.by_key[key] if sheets else None
        title = curve.name if curve is not None else key.name
        derived = self.desk.find(key.name) if key.device == DERIVED_DEVICE else None
        if derived is not None:
            first = next(iter(derived.bindings.values()), None)
            return Subject(first.device if first is not None else "", title)
        return Subject(key.device, f"{title} of {curve.device_name}" if curve is not None else title)

    # ---------------------------------------------------------------- remembered with the workspace

    def save(self) -> None:
        """Remember the charts."""
        self._saver.stop()
        if self._is_live:
            with contextlib.suppress(WorkbenchError):  # a log that is only read keeps no charts
                self._workbench.save_setting(SETTING, self.state())

    def save_soon(self) -> None:
        """Before the session goes: what still waits is remembered now."""
        if self._saver.isActive():
            self.save()

    def state(self) -> dict[str, Any]:
        """The charts as JSON."""
        return {
            "charts": [self._sheet_state(sheet) for sheet in self._sheets],
            "current": max(0, self.tabs.currentIndex()),
            "is_shared": self._is_shared,
            "met": sorted(self._met),
        }

    def _sheet_state(self, sheet: Sheet) -> dict[str, Any]:
        return {
            "name": sheet.name,
            "takes_first": sheet.keeper.takes_first,
            "curves": sheet.keeper.state(),
            "view": sheet.chart.state(),
        }

    def _restore(self) -> None:
        kept = self._kept() if self._is_live else {}
        there = {device.id for device in self._workbench.devices()}
        met = kept.get("met")
        self._met |= {str(device) for device in met} & there if isinstance(met, list) else set()
        rows = kept.get("charts")
        for row in rows[:MOST_CHARTS] if isinstance(rows, list) else ():
            if isinstance(row, Mapping):
                sheet = self._add(self._free_name(str(row.get("name", ""))[:MOST_NAME]), len(self._sheets))
                if sheet is not None:
                    self._fill(sheet, row)
        if not self._sheets:
            self._add(self._free_name(), 0)
        if not any(sheet.keeper.takes_first for sheet in self._sheets):
            self._sheets[0].keeper.takes_first = True
        current = kept.get("current")
        self.tabs.setCurrentIndex(current if isinstance(current, int) and 0 <= current < len(self._sheets) else 0)
        self.set_shared(kept.get("is_shared") is True)

    def _kept(self) -> dict[str, Any]:
        """What the workspace remembers; of an older version the one chart that there was."""
        kept = self._workbench.setting(SETTING)
        if isinstance(kept, dict):
            return kept
        old = self._workbench.setting(OLD_SETTING)
        if isinstance(old, dict):
            return {"charts": [{"curves": old.get("curves"), "takes_first": True}], "met": old.get("met")}
        return {}

    def _fill(self, sheet: Sheet, state: Mapping[str, Any]) -> None:
        """Axes and hidden curves first: they wait for their curves."""
        view = state.get("view")
        if isinstance(view, Mapping):
            sheet.chart.restore(view)
        if state.get("takes_first") is True:
            for other in self._sheets:
                other.keeper.takes_first = other is sheet
        sheet.keeper.restore(state.get("curves"))

    def forget_derived(self, derived: Derived) -> Callable[[], bool]:
        """Before a derived quantity goes: what puts its curve back on the charts that have it."""
        sheets = self.sheets_with(key_of(derived))

        def back() -> bool:
            for sheet in sheets:
                if sheet in self._sheets:
                    sheet.keeper.add_derived(derived)
            return True

        return back
