"""Colour roles, palette, status shapes, fonts and spacing of the window (ui-guide, Tokens).

Every colour on screen is a role with a light and a dark value; ``tests/ui/test_theme.py`` measures their contrast.
There is no style sheet and no global: ``ui/__main__.py`` makes one ``Theme`` and hands it to the widgets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, cast

from PySide6 import QtCore
from PySide6.QtCore import QCoreApplication, QObject, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QBrush,
    QColor,
    QFont,
    QFontDatabase,
    QGuiApplication,
    QIcon,
    QPainter,
    QPainterPath,
    QPalette,
    QPen,
    QPixmap,
    QPolygonF,
)
from PySide6.QtWidgets import QApplication

from app.model.flow import FlowStatus
from app.model.reading import LinkState, Severity
from app.model.status import Status

# Marks a text for lupdate; typed, which the binding's own stub is not.
QT_TRANSLATE_NOOP = cast("Callable[[str, str], str]", QtCore.QT_TRANSLATE_NOOP)

SPACE: Final = 4  # logical pixels; every margin and gap is a multiple


def space(steps: int = 1) -> int:
    """A gap of ``steps`` times four logical pixels."""
    return SPACE * steps


class ThemeMode(StrEnum):
    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


class Role(StrEnum):
    """What a colour means. Text roles keep 4.5:1 on every ground role."""

    # grounds
    GROUND = "ground"  # window
    PANEL = "panel"  # lists, editors, plots
    RAISED = "raised"  # buttons, headers, alternate rows
    SELECTION = "selection"
    TOOLTIP = "tooltip"
    # text and shapes
    TEXT = "text"
    DIMMED = "dimmed"
    ACCENT = "accent"
    INFO = "info"
    VIOLET = "violet"
    WARNING = "warning"
    BAD = "bad"
    BAD_DIMMED = "bad_dimmed"
    GOOD = "good"
    NEUTRAL = "neutral"
    SELECTION_TEXT = "selection_text"
    TOOLTIP_TEXT = "tooltip_text"
    # bytes: the colour of the digits by what they belong to
    HEX_OFFSET = "hex_offset"
    HEX_ASCII = "hex_ascii"
    HEX_OUT = "hex_out"  # bytes that left
    HEX_IN = "hex_in"  # bytes that came
    # bytes: grounds for the fields of a frame, in turn
    HEX_FIELD_1 = "hex_field_1"
    HEX_FIELD_2 = "hex_field_2"
    HEX_FIELD_3 = "hex_field_3"
    HEX_FIELD_4 = "hex_field_4"
    HEX_FIELD_5 = "hex_field_5"
    HEX_FIELD_6 = "hex_field_6"
    HEX_MARK = "hex_mark"  # ground of the field under the pointer
    HEX_BROKEN = "hex_broken"  # ground of bytes that do not fit
    # lines
    LINE = "line"
    GRID = "grid"
    FOCUS = "focus"


GROUND_ROLES: Final = (Role.GROUND, Role.PANEL, Role.RAISED, Role.SELECTION)
TEXT_ROLES: Final = (
    Role.TEXT,
    Role.DIMMED,
    Role.ACCENT,
    Role.INFO,
    Role.VIOLET,
    Role.WARNING,
    Role.BAD,
    Role.BAD_DIMMED,
    Role.GOOD,
    Role.NEUTRAL,
    Role.SELECTION_TEXT,
    Role.HEX_OFFSET,
    Role.HEX_ASCII,
    Role.HEX_OUT,
    Role.HEX_IN,
)
HEX_FIELDS: Final = (
    Role.HEX_FIELD_1,
    Role.HEX_FIELD_2,
    Role.HEX_FIELD_3,
    Role.HEX_FIELD_4,
    Role.HEX_FIELD_5,
    Role.HEX_FIELD_6,
)

# role: (light, dark)
_COLOURS: Final[Mapping[Role, tuple[str, str]]] = MappingProxyType(
    {
        Role.GROUND: ("#f1f3f5", "#1d2127"),
        Role.PANEL: ("#ffffff", "#15181d"),
        Role.RAISED: ("#e6e9ed", "#292e36"),
        Role.SELECTION: ("#c9e0f8", "#23405e"),
        Role.TOOLTIP: ("#fdf8e4", "#323944"),
        Role.TEXT: ("#181c21", "#e5e8ed"),
        Role.DIMMED: ("#525b66", "#a3acb9"),
        Role.ACCENT: ("#0a57a6", "#6cb6ff"),
        Role.INFO: ("#0b5c75", "#63c5de"),
        Role.VIOLET: ("#6a39b0", "#c4a5ff"),
        Role.WARNING: ("#7a4a00", "#f2b544"),
        Role.BAD: ("#a8201a", "#ff9a90"),
        Role.BAD_DIMMED: ("#87413c", "#d7a29d"),
        Role.GOOD: ("#14622b", "#73d391"),
        Role.NEUTRAL: ("#4f5965", "#aab3bf"),
        Role.SELECTION_TEXT: ("#0d1b2a", "#ffffff"),
        Role.TOOLTIP_TEXT: ("#2a2618", "#eef1f5"),
        Role.HEX_OFFSET: ("#525b66", "#a3acb9"),
        Role.HEX_ASCII: ("#3c4651", "#bfc7d1"),
        Role.HEX_OUT: ("#0a57a6", "#6cb6ff"),
        Role.HEX_IN: ("#14622b", "#73d391"),
        Role.HEX_FIELD_1: ("#dcebfb", "#1d3550"),
        Role.HEX_FIELD_2: ("#fbe9cf", "#473518"),
        Role.HEX_FIELD_3: ("#d9f0e2", "#17402c"),
        Role.HEX_FIELD_4: ("#ece2fa", "#392a55"),
        Role.HEX_FIELD_5: ("#fadfe6", "#4b2433"),
        Role.HEX_FIELD_6: ("#d8eef2", "#163f47"),
        Role.HEX_MARK: ("#ffe37a", "#5f5210"),
        Role.HEX_BROKEN: ("#f9c9c4", "#6b211c"),
        Role.LINE: ("#bfc6cf", "#434b57"),
        Role.GRID: ("#e2e5e9", "#2b313a"),
        Role.FOCUS: ("#0a57a6", "#6cb6ff"),
    }
)

# Okabe and Ito's colour-blind-safe cycle in their order, black last; each tone darkened or lightened until it has 3:1
# on the plot's ground.
_CURVES_LIGHT: Final = ("#c68000", "#2a8fc7", "#00855f", "#7f8600", "#005a9c", "#b83c00", "#b3568b", "#181c21")
_CURVES_DARK: Final = ("#e69f00", "#56b4e9", "#0fb488", "#f0e442", "#5f7df2", "#f26a2e", "#d98ab8", "#e5e8ed")
_LINE_STYLES: Final = (
    Qt.PenStyle.SolidLine,
    Qt.PenStyle.DashLine,
    Qt.PenStyle.DotLine,
    Qt.PenStyle.DashDotLine,
    Qt.PenStyle.DashDotDotLine,
)


class Shape(StrEnum):
    """Shapes that tell states apart without colour."""

    SMALL_CIRCLE = "small circle"
    HOLLOW_CIRCLE = "hollow circle"
    HOURGLASS = "hourglass"
    TWO_BARS = "two bars"
    FILLED_CIRCLE = "filled circle"
    TICK = "tick"
    CROSS = "cross"
    BARRED_CIRCLE = "barred circle"
    DOUBLE_ARROW = "double arrow"
    QUESTION = "question mark"
    HOLLOW_DIAMOND = "hollow diamond"
    HALF_DIAMOND = "half diamond"
    FILLED_DIAMOND = "filled diamond"
    WARNING_TRIANGLE = "warning triangle"
    PLAY = "play"
    INFO = "info"
    OCTAGON = "octagon"
    BOLT = "bolt"
    BARRED_BOLT = "barred bolt"
    BARRED_DIAMOND = "barred diamond"


class FieldState(StrEnum):
    """How a grid or a gateway stands, as far as anybody said."""

    LIT = "lit"
    DARK = "dark"
    ONLINE = "online"
    OFFLINE = "offline"
    STALE = "stale"  # somebody said so, too long ago to count (D-06)
    UNKNOWN = "unknown"


class Heard(StrEnum):
    """When a meter behind a gateway was last heard."""

    HEARD = "heard"
    SILENT = "silent"  # for longer than its adapter expects
    NEVER = "never heard"


@dataclass(frozen=True, slots=True)
class Look:
    """How one state is shown. ``word`` is the source text; ``text`` translates it."""

    word: str
    role: Role
    shape: Shape
    outlined: bool = False
    context: str = "Status"

    @property
    def text(self) -> str:
        return QCoreApplication.translate(self.context, self.word)


STATUS_LOOKS: Final[Mapping[Status, Look]] = MappingProxyType(
    {
        Status.NEW: Look(QT_TRANSLATE_NOOP("Status", "new"), Role.NEUTRAL, Shape.SMALL_CIRCLE),
        Status.QUEUED: Look(QT_TRANSLATE_NOOP("Status", "queued"), Role.INFO, Shape.HOLLOW_CIRCLE),
        Status.DEFERRED: Look(QT_TRANSLATE_NOOP("Status", "waits (deferred)"), Role.VIOLET, Shape.HOURGLASS),
        Status.SUSPENDED: Look(QT_TRANSLATE_NOOP("Status", "paused (suspended)"), Role.WARNING, Shape.TWO_BARS),
        Status.PROCESSING: Look(QT_TRANSLATE_NOOP("Status", "on its way"), Role.ACCENT, Shape.FILLED_CIRCLE),
        Status.SUCCESSFUL: Look(QT_TRANSLATE_NOOP("Status", "done"), Role.GOOD, Shape.TICK),
        Status.FAILED: Look(QT_TRANSLATE_NOOP("Status", "failed"), Role.BAD, Shape.CROSS),
        Status.ABORTED: Look(QT_TRANSLATE_NOOP("Status", "given up"), Role.BAD_DIMMED, Shape.BARRED_CIRCLE),
        Status.SUPERSEDED: Look(QT_TRANSLATE_NOOP("Status", "replaced"), Role.NEUTRAL, Shape.DOUBLE_ARROW),
        Status.OUTCOME_UNKNOWN: Look(QT_TRANSLATE_NOOP("Status", "unknown"), Role.WARNING, Shape.QUESTION, True),
    }
)

LINK_LOOKS: Final[Mapping[LinkState, Look]] = MappingProxyType(
    {
        LinkState.OFF: Look(
            QT_TRANSLATE_NOOP("LinkState", "off"), Role.NEUTRAL, Shape.HOLLOW_DIAMOND, context="LinkState"
        ),
        LinkState.CONNECTING: Look(
            QT_TRANSLATE_NOOP("LinkState", "connecting"), Role.ACCENT, Shape.HALF_DIAMOND, context="LinkState"
        ),
        LinkState.ONLINE: Look(
            QT_TRANSLATE_NOOP("LinkState", "online"), Role.GOOD, Shape.FILLED_DIAMOND, context="LinkState"
        ),
        LinkState.FAULT: Look(
            QT_TRANSLATE_NOOP("LinkState", "fault"), Role.BAD, Shape.WARNING_TRIANGLE, context="LinkState"
        ),
        LinkState.REPLAY: Look(QT_TRANSLATE_NOOP("LinkState", "replay"), Role.VIOLET, Shape.PLAY, context="LinkState"),
    }
)

FIELD_LOOKS: Final[Mapping[FieldState, Look]] = MappingProxyType(
    {
        FieldState.LIT: Look(QT_TRANSLATE_NOOP("FieldState", "lit"), Role.GOOD, Shape.BOLT, context="FieldState"),
        FieldState.DARK: Look(
            QT_TRANSLATE_NOOP("FieldState", "dark"), Role.WARNING, Shape.BARRED_BOLT, context="FieldState"
        ),
        FieldState.ONLINE: Look(
            QT_TRANSLATE_NOOP("FieldState", "online"), Role.GOOD, Shape.FILLED_DIAMOND, context="FieldState"
        ),
        FieldState.OFFLINE: Look(
            QT_TRANSLATE_NOOP("FieldState", "offline"), Role.WARNING, Shape.BARRED_DIAMOND, context="FieldState"
        ),
        FieldState.STALE: Look(
            QT_TRANSLATE_NOOP("FieldState", "stale"), Role.NEUTRAL, Shape.HOURGLASS, context="FieldState"
        ),
        FieldState.UNKNOWN: Look(
            QT_TRANSLATE_NOOP("FieldState", "unknown"), Role.NEUTRAL, Shape.QUESTION, context="FieldState"
        ),
    }
)

HEARD_LOOKS: Final[Mapping[Heard, Look]] = MappingProxyType(
    {
        Heard.HEARD: Look(QT_TRANSLATE_NOOP("Heard", "heard"), Role.GOOD, Shape.FILLED_DIAMOND, context="Heard"),
        Heard.SILENT: Look(QT_TRANSLATE_NOOP("Heard", "silent"), Role.WARNING, Shape.BARRED_DIAMOND, context="Heard"),
        Heard.NEVER: Look(
            QT_TRANSLATE_NOOP("Heard", "never heard"), Role.NEUTRAL, Shape.HOLLOW_DIAMOND, context="Heard"
        ),
    }
)

FLOW_LOOKS: Final[Mapping[FlowStatus, Look]] = MappingProxyType(
    {
        FlowStatus.NONE: Look(
            QT_TRANSLATE_NOOP("FlowStatus", "not begun"), Role.NEUTRAL, Shape.SMALL_CIRCLE, context="FlowStatus"
        ),
        FlowStatus.PENDING: Look(
            QT_TRANSLATE_NOOP("FlowStatus", "waits"), Role.VIOLET, Shape.HOURGLASS, context="FlowStatus"
        ),
        FlowStatus.PROCESSING: Look(
            QT_TRANSLATE_NOOP("FlowStatus", "under way"), Role.ACCENT, Shape.FILLED_CIRCLE, context="FlowStatus"
        ),
        FlowStatus.SUCCESSFUL: Look(
            QT_TRANSLATE_NOOP("FlowStatus", "done"), Role.GOOD, Shape.TICK, context="FlowStatus"
        ),
        FlowStatus.FAILED: Look(QT_TRANSLATE_NOOP("FlowStatus", "failed"), Role.BAD, Shape.CROSS, context="FlowStatus"),
    }
)

SEVERITY_LOOKS: Final[Mapping[Severity, Look]] = MappingProxyType(
    {
        Severity.INFO: Look(QT_TRANSLATE_NOOP("Severity", "note"), Role.INFO, Shape.INFO, context="Severity"),
        Severity.WARNING: Look(
            QT_TRANSLATE_NOOP("Severity", "warning"), Role.WARNING, Shape.WARNING_TRIANGLE, context="Severity"
        ),
        Severity.BAD: Look(QT_TRANSLATE_NOOP("Severity", "fault"), Role.BAD, Shape.OCTAGON, context="Severity"),
    }
)


def status_word(status: Status) -> str:
    """The translated word of a status; always shown next to its shape."""
    return STATUS_LOOKS[status].text


def link_word(state: LinkState) -> str:
    return LINK_LOOKS[state].text


def severity_word(severity: Severity) -> str:
    return SEVERITY_LOOKS[severity].text


def relative_luminance(colour: QColor) -> float:
    """Relative luminance of WCAG 2.1."""

    def linear(part: float) -> float:
        return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)

    return 0.2126 * linear(colour.redF()) + 0.7152 * linear(colour.greenF()) + 0.0722 * linear(colour.blueF())


def contrast(a: QColor, b: QColor) -> float:
    """Contrast ratio of WCAG 2.1, from 1 to 21."""
    dark, light = sorted((relative_luminance(a), relative_luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def fixed_font(of: QFont | None = None) -> QFont:
    """The system's fixed-width font in the size of ``of`` (the application's font unless given)."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setStyleHint(QFont.StyleHint.Monospace)
    base = of if of is not None else QApplication.font()
    if base.pointSizeF() > 0:
        font.setPointSizeF(base.pointSizeF())
    elif base.pixelSize() > 0:
        font.setPixelSize(base.pixelSize())
    return font


class Theme(QObject):
    """The colours in force. ``changed`` comes after the palette of the application has been set."""

    changed = Signal()

    def __init__(self, app: QGuiApplication, mode: ThemeMode = ThemeMode.SYSTEM) -> None:
        super().__init__()
        self._app = app
        self._mode = mode
        self._icons: dict[tuple[str, Role, Shape, bool, int], QIcon] = {}
        # Where the platform does not say, the palette it started with tells.
        start = app.palette()
        self._was_dark = start.color(QPalette.ColorRole.Window).lightness() < 96
        app.styleHints().colorSchemeChanged.connect(self._on_scheme)
        if mode is not ThemeMode.SYSTEM:
            self._ask_platform()
        self._is_dark = self._wants_dark()

    # ---- which
    @property
    def mode(self) -> ThemeMode:
        return self._mode

    @property
    def is_dark(self) -> bool:
        return self._is_dark

    def set_mode(self, mode: ThemeMode) -> None:
        """Follow the system, or stay light or dark."""
        if mode is self._mode:
            return
        self._mode = mode
        self._ask_platform()
        self._refresh()

    def install(self) -> None:
        """Give the application the Fusion style and this palette."""
        if isinstance(self._app, QApplication):
            self._app.setStyle("Fusion")
        self._app.setPalette(self.palette())

    # ---- colours
    def colour(self, role: Role) -> QColor:
        light, dark = _COLOURS[role]
        return QColor(dark if self._is_dark else light)

    def status_colour(self, status: Status) -> QColor:
        return self.colour(STATUS_LOOKS[status].role)

    def link_colour(self, state: LinkState) -> QColor:
        return self.colour(LINK_LOOKS[state].role)

    def severity_colour(self, severity: Severity) -> QColor:
        return self.colour(SEVERITY_LOOKS[severity].role)

    def hex_field(self, index: int) -> QColor:
        """Ground of the ``index``-th field of a frame."""
        return self.colour(HEX_FIELDS[index % len(HEX_FIELDS)])

    def curve_colour(self, index: int) -> QColor:
        cycle = _CURVES_DARK if self._is_dark else _CURVES_LIGHT
        return QColor(cycle[index % len(cycle)])

    def curve_style(self, index: int) -> Qt.PenStyle:
        """Line style: changes once all colours are used."""
        return _LINE_STYLES[index // len(_CURVES_LIGHT) % len(_LINE_STYLES)]

    def curve_pen(self, index: int) -> QPen:
        """Pen of the ``index``-th curve. Width 1: a width of 2 costs six to eleven times as much to draw."""
        pen = QPen(self.curve_colour(index), 1.0, self.curve_style(index))
        pen.setCosmetic(True)
        return pen

    def palette(self) -> QPalette:
        """Palette for the Fusion style."""
        c, group, role = self.colour, QPalette.ColorGroup, QPalette.ColorRole
        ground, text, line = c(Role.GROUND), c(Role.TEXT), c(Role.LINE)
        palette = QPalette()
        table: Mapping[QPalette.ColorRole, QColor] = {
            role.Window: ground,
            role.WindowText: text,
            role.Base: c(Role.PANEL),
            role.AlternateBase: c(Role.GROUND),
            role.Text: text,
            role.Button: c(Role.RAISED),
            role.ButtonText: text,
            role.BrightText: c(Role.BAD),
            role.ToolTipBase: c(Role.TOOLTIP),
            role.ToolTipText: c(Role.TOOLTIP_TEXT),
            role.PlaceholderText: c(Role.DIMMED),
            role.Highlight: c(Role.SELECTION),
            role.HighlightedText: c(Role.SELECTION_TEXT),
            role.Link: c(Role.ACCENT),
            role.LinkVisited: c(Role.VIOLET),
            role.Accent: c(Role.FOCUS),
            role.Light: c(Role.RAISED).lighter(112),
            role.Midlight: c(Role.RAISED).lighter(106),
            role.Mid: line,
            role.Dark: line.darker(125),
            role.Shadow: QColor("#000000") if self._is_dark else line.darker(160),
        }
        for which, colour in table.items():
            palette.setColor(which, colour)
        for which in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
            palette.setColor(group.Disabled, which, c(Role.DIMMED))
        palette.setColor(group.Disabled, role.Highlight, c(Role.RAISED))
        return palette

    # ---- shapes
    def status_icon(self, status: Status, size: int = 16) -> QIcon:
        return self.icon(STATUS_LOOKS[status], size)

    def link_icon(self, state: LinkState, size: int = 16) -> QIcon:
        return self.icon(LINK_LOOKS[state], size)

    def severity_icon(self, severity: Severity, size: int = 16) -> QIcon:
        return self.icon(SEVERITY_LOOKS[severity], size)

    def icon(self, look: Look, size: int = 16) -> QIcon:
        """Icon of a look, drawn for 100, 150, 200 and 300 % screens; kept until the theme changes."""
        key = (look.word, look.role, look.shape, look.outlined, size)
        if (known := self._icons.get(key)) is not None:
            return known
        icon = QIcon()
        for scale in (1.0, 1.5, 2.0, 3.0):
            icon.addPixmap(self.pixmap(look, size, scale))
        self._icons[key] = icon
        return icon

    def pixmap(self, look: Look, size: int = 16, scale: float = 1.0) -> QPixmap:
        """Picture of a look, ``size`` logical pixels wide on a screen with ``scale`` dots a pixel."""
        side = max(1, round(size * scale))
        pixmap = QPixmap(QSize(side, side))
        pixmap.setDevicePixelRatio(scale)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        self.paint(painter, QRectF(0, 0, side / scale, side / scale), look)
        painter.end()
        return pixmap

    def paint(self, painter: QPainter, rect: QRectF, look: Look, colour: QColor | None = None) -> None:
        """Draw a look's shape into ``rect`` (for delegates and own widgets)."""
        paint_shape(painter, rect, look.shape, colour or self.colour(look.role))

    # ---- inside
    def _wants_dark(self) -> bool:
        if self._mode is not ThemeMode.SYSTEM:
            return self._mode is ThemeMode.DARK
        scheme = self._app.styleHints().colorScheme()
        if scheme == Qt.ColorScheme.Unknown:
            return self._was_dark
        return scheme == Qt.ColorScheme.Dark

    def _ask_platform(self) -> None:
        """Let title bars and native dialogs follow."""
        hints = self._app.styleHints()
        if self._mode is ThemeMode.SYSTEM:
            hints.unsetColorScheme()
        else:
            dark = self._mode is ThemeMode.DARK
            hints.setColorScheme(Qt.ColorScheme.Dark if dark else Qt.ColorScheme.Light)

    def _on_scheme(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        dark = self._wants_dark()
        if dark == self._is_dark:
            return
        self._is_dark = dark
        self._icons.clear()
        self._app.setPalette(self.palette())
        self.changed.emit()


# ---- shapes, drawn in a square of 16 by 16 units


def paint_shape(painter: QPainter, rect: QRectF, shape: Shape, colour: QColor) -> None:
    """Draw ``shape`` centred in ``rect``."""
    side = min(rect.width(), rect.height())
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.translate(rect.center().x() - side / 2, rect.center().y() - side / 2)
    painter.scale(side / 16, side / 16)
    pen = QPen(colour, 1.8)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    _DRAW[shape](painter, QBrush(colour))
    painter.restore()


def _polygon(*points: tuple[float, float]) -> QPolygonF:
    return QPolygonF([QPointF(x, y) for x, y in points])


def _circle(painter: QPainter, radius: float) -> None:
    painter.drawEllipse(QPointF(8, 8), radius, radius)


def _small_circle(painter: QPainter, _fill: QBrush) -> None:
    _circle(painter, 2.6)


def _hollow_circle(painter: QPainter, _fill: QBrush) -> None:
    _circle(painter, 5.4)


def _filled_circle(painter: QPainter, fill: QBrush) -> None:
    painter.setBrush(fill)
    _circle(painter, 5.2)


def _hourglass(painter: QPainter, fill: QBrush) -> None:
    painter.drawPolygon(_polygon((4, 2.5), (12, 2.5), (4, 13.5), (12, 13.5)))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(fill)
    painter.drawPolygon(_polygon((8, 9), (11, 13), (5, 13)))


def _two_bars(painter: QPainter, fill: QBrush) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(fill)
    painter.drawRect(QRectF(3.6, 2.6, 3.2, 10.8))
    painter.drawRect(QRectF(9.2, 2.6, 3.2, 10.8))


def _tick(painter: QPainter, _fill: QBrush) -> None:
    _thicken(painter)
    painter.drawPolyline(_polygon((2.8, 8.6), (6.4, 12.2), (13.2, 4)))


def _cross(painter: QPainter, _fill: QBrush) -> None:
    _thicken(painter)
    painter.drawLine(QPointF(3.6, 3.6), QPointF(12.4, 12.4))
    painter.drawLine(QPointF(12.4, 3.6), QPointF(3.6, 12.4))


def _barred_circle(painter: QPainter, _fill: QBrush) -> None:
    _circle(painter, 5.6)
    reach = 5.6 * math.sqrt(0.5)
    painter.drawLine(QPointF(8 - reach, 8 + reach), QPointF(8 + reach, 8 - reach))


def _double_arrow(painter: QPainter, _fill: QBrush) -> None:
    painter.drawLine(QPointF(2.2, 8), QPointF(13.8, 8))
    painter.drawPolyline(_polygon((5.2, 4.6), (1.8, 8), (5.2, 11.4)))
    painter.drawPolyline(_polygon((10.8, 4.6), (14.2, 8), (10.8, 11.4)))


def _question(painter: QPainter, fill: QBrush) -> None:
    pen = painter.pen()
    pen.setWidthF(1.3)
    painter.setPen(pen)
    _circle(painter, 6.6)
    pen.setWidthF(1.6)
    painter.setPen(pen)
    hook = QPainterPath(QPointF(5.9, 6.5))
    hook.cubicTo(QPointF(5.9, 3.2), QPointF(10.2, 3.4), QPointF(10.1, 6.1))
    hook.cubicTo(QPointF(10.1, 7.7), QPointF(8, 7.7), QPointF(8, 9.2))
    painter.drawPath(hook)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(fill)
    painter.drawEllipse(QPointF(8, 11.6), 1.0, 1.0)


def _diamond() -> QPolygonF:
    return _polygon((8, 2.2), (13.8, 8), (8, 13.8), (2.2, 8))


def _hollow_diamond(painter: QPainter, _fill: QBrush) -> None:
    painter.drawPolygon(_diamond())


def _half_diamond(painter: QPainter, fill: QBrush) -> None:
    painter.drawPolygon(_diamond())
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(fill)
    painter.drawPolygon(_polygon((8, 2.2), (8, 13.8), (2.2, 8)))


def _filled_diamond(painter: QPainter, fill: QBrush) -> None:
    painter.setBrush(fill)
    painter.drawPolygon(_diamond())


def _warning_triangle(painter: QPainter, fill: QBrush) -> None:
    painter.drawPolygon(_polygon((8, 2.2), (14.2, 13.2), (1.8, 13.2)))
    painter.drawLine(QPointF(8, 6.4), QPointF(8, 9))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(fill)
    painter.drawEllipse(QPointF(8, 11.2), 0.95, 0.95)


def _play(painter: QPainter, fill: QBrush) -> None:
    painter.setBrush(fill)
    painter.drawPolygon(_polygon((5, 3), (13, 8), (5, 13)))


def _info(painter: QPainter, fill: QBrush) -> None:
    pen = painter.pen()
    pen.setWidthF(1.3)
    painter.setPen(pen)
    _circle(painter, 6.6)
    pen.setWidthF(1.8)
    painter.setPen(pen)
    painter.drawLine(QPointF(8, 7.6), QPointF(8, 11.4))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(fill)
    painter.drawEllipse(QPointF(8, 4.9), 1.1, 1.1)


def _octagon(painter: QPainter, _fill: QBrush) -> None:
    near, far, low, high = 5.4, 10.6, 1.8, 14.2
    painter.drawPolygon(
        _polygon((near, low), (far, low), (high, near), (high, far), (far, high), (near, high), (low, far), (low, near))
    )
    painter.drawLine(QPointF(5.9, 5.9), QPointF(10.1, 10.1))
    painter.drawLine(QPointF(10.1, 5.9), QPointF(5.9, 10.1))


def _bolt() -> QPolygonF:
    return _polygon((9.6, 1.6), (3.6, 9), (7.4, 9), (6.2, 14.4), (12.6, 6.6), (8.6, 6.6))


def _filled_bolt(painter: QPainter, fill: QBrush) -> None:
    painter.setBrush(fill)
    painter.drawPolygon(_bolt())


def _barred_bolt(painter: QPainter, _fill: QBrush) -> None:
    pen = painter.pen()
    pen.setWidthF(1.3)
    painter.setPen(pen)
    painter.drawPolygon(_bolt())
    _bar(painter)


def _barred_diamond(painter: QPainter, _fill: QBrush) -> None:
    painter.drawPolygon(_diamond())
    _bar(painter)


def _bar(painter: QPainter) -> None:
    painter.drawLine(QPointF(2.4, 2.4), QPointF(13.6, 13.6))


def _thicken(painter: QPainter) -> None:
    pen = painter.pen()
    pen.setWidthF(2.4)
    painter.setPen(pen)


_DRAW: Final[Mapping[Shape, Callable[[QPainter, QBrush], None]]] = MappingProxyType(
    {
        Shape.SMALL_CIRCLE: _small_circle,
        Shape.HOLLOW_CIRCLE: _hollow_circle,
        Shape.HOURGLASS: _hourglass,
        Shape.TWO_BARS: _two_bars,
        Shape.FILLED_CIRCLE: _filled_circle,
        Shape.TICK: _tick,
        Shape.CROSS: _cross,
        Shape.BARRED_CIRCLE: _barred_circle,
        Shape.DOUBLE_ARROW: _double_arrow,
        Shape.QUESTION: _question,
        Shape.HOLLOW_DIAMOND: _hollow_diamond,
        Shape.HALF_DIAMOND: _half_diamond,
        Shape.FILLED_DIAMOND: _filled_diamond,
        Shape.WARNING_TRIANGLE: _warning_triangle,
        Shape.PLAY: _play,
        Shape.INFO: _info,
        Shape.OCTAGON: _octagon,
        Shape.BOLT: _filled_bolt,
        Shape.BARRED_BOLT: _barred_bolt,
        Shape.BARRED_DIAMOND: _barred_diamond,
    }
)
