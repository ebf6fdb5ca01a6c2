"""Contrast, shapes and words of the theme are measured, not judged by eye."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPalette
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.model.flow import FlowStatus
from app.model.reading import LinkState, Severity
from app.model.status import Status
from ui import theme as theme_module
from ui.theme import (
    FIELD_LOOKS,
    FLOW_LOOKS,
    GROUND_ROLES,
    HEX_FIELDS,
    LINK_LOOKS,
    SEVERITY_LOOKS,
    STATUS_LOOKS,
    TEXT_ROLES,
    FieldState,
    Look,
    Role,
    Shape,
    Theme,
    ThemeMode,
    contrast,
    fixed_font,
    paint_shape,
    space,
    status_word,
)


@pytest.fixture
def app(qapp: QApplication) -> Iterator[QApplication]:
    """The application, with its palette and colour scheme put back afterwards."""
    before = qapp.palette()
    yield qapp
    qapp.styleHints().unsetColorScheme()
    qapp.setPalette(before)


@pytest.fixture(params=[ThemeMode.LIGHT, ThemeMode.DARK])
def theme(app: QApplication, request: pytest.FixtureRequest) -> Theme:
    return Theme(app, request.param)


def test_contrast_formula() -> None:
    assert contrast(QColor("#000000"), QColor("#ffffff")) == pytest.approx(21)
    # 4.54:1, the well-known darkest passing grey on white
    assert contrast(QColor("#767676"), QColor("#ffffff")) == pytest.approx(4.54, abs=0.01)


def test_text_roles_are_readable_on_every_ground(theme: Theme) -> None:
    low = {
        (text, ground): round(contrast(theme.colour(text), theme.colour(ground)), 2)
        for text, ground in itertools.product(TEXT_ROLES, GROUND_ROLES)
        if contrast(theme.colour(text), theme.colour(ground)) < 4.5
    }
    assert low == {}


def test_bytes_are_readable_on_every_field(theme: Theme) -> None:
    low = {
        ground: round(contrast(theme.colour(Role.TEXT), theme.colour(ground)), 2)
        for ground in (*HEX_FIELDS, Role.HEX_MARK, Role.HEX_BROKEN)
        if contrast(theme.colour(Role.TEXT), theme.colour(ground)) < 4.5
    }
    assert low == {}


def test_tooltip_and_focus(theme: Theme) -> None:
    assert contrast(theme.colour(Role.TOOLTIP_TEXT), theme.colour(Role.TOOLTIP)) >= 4.5
    for ground in (Role.GROUND, Role.PANEL, Role.RAISED):
        assert contrast(theme.colour(Role.FOCUS), theme.colour(ground)) >= 3


def test_curves_stand_out_and_differ(theme: Theme) -> None:
    ground = theme.colour(Role.PANEL)
    colours = [theme.curve_colour(i) for i in range(8)]
    assert [c.name() for c in colours if contrast(c, ground) < 3] == []
    assert len({c.name() for c in colours}) == 8
    for a, b in itertools.combinations(colours, 2):
        apart = abs(a.red() - b.red()) + abs(a.green() - b.green()) + abs(a.blue() - b.blue())
        assert apart > 60, (a.name(), b.name())


def test_curves_change_line_style_after_the_colours_and_stay_one_wide(theme: Theme) -> None:
    seen = {(theme.curve_pen(i).color().name(), theme.curve_pen(i).style()) for i in range(40)}
    assert len(seen) == 40
    assert theme.curve_pen(0).style() == Qt.PenStyle.SolidLine
    assert {theme.curve_pen(i).widthF() for i in range(40)} == {1.0}


def test_every_role_has_both_values() -> None:
    assert set(theme_module._COLOURS) == set(Role)


@pytest.mark.parametrize(
    ("looks", "states"),
    [
        (STATUS_LOOKS, set(Status)),
        (LINK_LOOKS, set(LinkState)),
        (SEVERITY_LOOKS, set(Severity)),
        (FIELD_LOOKS, set(FieldState)),
        (FLOW_LOOKS, set(FlowStatus)),
    ],
)
def test_every_state_has_its_own_word_and_shape(looks: Mapping[object, Look], states: set[object]) -> None:
    assert set(looks) == states
    assert len({look.shape for look in looks.values()}) == len(looks)
    assert len({look.text for look in looks.values()}) == len(looks)


def test_status_table_of_the_guide() -> None:
    assert status_word(Status.SUSPENDED) == "paused (suspended)"
    assert STATUS_LOOKS[Status.DEFERRED].shape is Shape.HOURGLASS
    assert STATUS_LOOKS[Status.OUTCOME_UNKNOWN].outlined


def ink(shape: Shape, side: int) -> bytes:
    image = QImage(side, side, QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(Qt.GlobalColor.white)
    painter = QPainter(image)
    paint_shape(painter, QRectF(0, 0, side, side), shape, QColor("black"))
    painter.end()
    return bytes(image.convertToFormat(QImage.Format.Format_Grayscale8).constBits())


def test_shapes_differ_in_ink_without_colour(qapp: QApplication) -> None:
    for a, b in itertools.combinations(Shape, 2):
        differing = sum(abs(x - y) > 96 for x, y in zip(ink(a, 16), ink(b, 16), strict=True))
        assert differing >= 8, (a, b, differing)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0])
def test_icon_is_sharp_at_each_scale(theme: Theme, scale: float) -> None:
    pixmap = theme.status_icon(Status.SUCCESSFUL, 16).pixmap(theme.pixmap(STATUS_LOOKS[Status.FAILED]).size(), scale)
    assert pixmap.width() == round(16 * scale)
    assert pixmap.devicePixelRatio() == scale


def test_icons_take_the_role_colour_and_are_kept(theme: Theme) -> None:
    icon = theme.status_icon(Status.PROCESSING)
    assert theme.status_icon(Status.PROCESSING) is icon
    centre = theme.pixmap(STATUS_LOOKS[Status.PROCESSING], 16).toImage().pixelColor(8, 8)
    assert centre.name() == theme.colour(Role.ACCENT).name()


def test_mode_changes_palette_and_tells(app: QApplication, qtbot: QtBot) -> None:
    theme = Theme(app, ThemeMode.LIGHT)
    theme.install()
    light = app.palette().color(QPalette.ColorRole.Base)
    icon = theme.status_icon(Status.FAILED)
    with qtbot.waitSignal(theme.changed, timeout=1000):
        theme.set_mode(ThemeMode.DARK)
    assert theme.is_dark
    assert app.palette().color(QPalette.ColorRole.Base).lightness() < light.lightness()
    assert theme.status_icon(Status.FAILED) is not icon
    with qtbot.assertNotEmitted(theme.changed):
        theme.set_mode(ThemeMode.DARK)


def test_system_mode_follows_the_style_hints(app: QApplication, qtbot: QtBot) -> None:
    theme = Theme(app, ThemeMode.SYSTEM)
    app.styleHints().setColorScheme(Qt.ColorScheme.Dark)
    theme._on_scheme()
    is_dark_known = app.styleHints().colorScheme() == Qt.ColorScheme.Dark
    assert theme.is_dark == is_dark_known or app.styleHints().colorScheme() == Qt.ColorScheme.Unknown


def test_forced_mode_ignores_the_system(app: QApplication) -> None:
    theme = Theme(app, ThemeMode.LIGHT)
    app.styleHints().setColorScheme(Qt.ColorScheme.Dark)
    theme._on_scheme()
    assert not theme.is_dark


def test_palette_pairs_are_readable(theme: Theme) -> None:
    palette, role = theme.palette(), QPalette.ColorRole
    for group in (QPalette.ColorGroup.Active, QPalette.ColorGroup.Inactive, QPalette.ColorGroup.Disabled):
        for fore, back in (
            (role.WindowText, role.Window),
            (role.Text, role.Base),
            (role.Text, role.AlternateBase),
            (role.ButtonText, role.Button),
            (role.HighlightedText, role.Highlight),
            (role.PlaceholderText, role.Base),
            (role.Link, role.Base),
        ):
            assert contrast(palette.color(group, fore), palette.color(group, back)) >= 4.5, (group, fore, back)


def test_spacing_and_fixed_font(qapp: QApplication) -> None:
    assert [space(n) for n in (1, 2, 4)] == [4, 8, 16]
    font = fixed_font()
    assert font.pointSizeF() == pytest.approx(qapp.font().pointSizeF())
