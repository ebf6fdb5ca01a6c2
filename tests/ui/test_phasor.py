"""Phasors: angles as meters write them, power factors in their place, what is assumed, and how it is drawn."""

from __future__ import annotations

import math

import pytest
from PySide6.QtCore import QPointF, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.ui.meter_fakes import phasor_rows, reading_row
from ui.models.phasor import AngleSource, Phasors, Rotation, lag_text, phasors_of, rotation_text, spoken_text
from ui.theme import Theme, ThemeMode
from ui.widgets.phasor import PhasorView, phase_pen


def made(rows: object) -> Phasors:
    found = phasors_of(rows)
    assert found is not None
    return found


def angles(phasors: Phasors) -> dict[str, float]:
    return {one.name: round(one.angle, 1) for one in phasors.all}


@pytest.mark.parametrize(
    "told",
    [
        {"e1": "119.5", "e2": "-120.0"},  # "01" and "02"
        {"e10": "119.5", "e20": "240.0"},  # "10" and "20"
        {"e1": "119.5", "e12": "120.5", "e20": "120.0"},  # the circle: U1 lags U3
        {"e10": "119.5", "e21": "120.5"},  # the third by way of the second
    ],
)
def test_both_ways_of_writing_a_pair_are_one_field(told: dict[str, str]) -> None:
    phasors = made(phasor_rows(**told, e4="32.0", e15="51.0", e26="-10.0"))
    assert angles(phasors) == {"U1": 0.0, "U2": 119.5, "U3": 240.0, "I1": 32.0, "I2": 170.5, "I3": 230.0}
    assert phasors.rotation is Rotation.RIGHT
    assert phasors.notes == ()
    assert {one.source for one in phasors.all} == {AngleSource.MEASURED}
    assert [lag_text(one) for one in phasors.currents] == ["32.0° behind U1", "51.0° behind U2", "10.0° before U3"]


def test_currents_to_the_first_voltage_are_turned_to_their_own() -> None:
    phasors = made(phasor_rows(e1="120", e2="240", e40="30", e50="150", e60="270"))
    assert [round(one.lag or 0.0, 1) for one in phasors.currents] == [30.0, 30.0, 30.0]


def test_a_left_field_and_none_at_all() -> None:
    assert made(phasor_rows(e1="240", e2="120", e4="0")).rotation is Rotation.LEFT
    none = made(phasor_rows(e1="1", e2="0", e4="0"))
    assert none.rotation is Rotation.NONE
    assert "wiring" in rotation_text(none.rotation)


def test_angles_between_voltages_are_assumed_in_words() -> None:
    phasors = made(phasor_rows(e4="32.0", e15="51.0"))
    assert angles(phasors) == {"U1": 0.0, "U2": 120.0, "U3": 240.0, "I1": 32.0, "I2": 171.0}
    assert [one.source for one in phasors.voltages] == [
        AngleSource.MEASURED,
        AngleSource.ASSUMED,
        AngleSource.ASSUMED,
    ]
    assert phasors.rotation is Rotation.UNKNOWN
    assert "120° from phase to phase is assumed for U2, U3." in phasors.notes[0]
    assert phasors.notes[1].endswith("not in the readout: I3.")


@pytest.mark.parametrize(
    ("powers", "lag"),
    [
        ({"23.7.0": "0.4"}, 60.0),  # quadrant I
        ({"22.7.0": "0.8", "23.7.0": "0.4"}, 120.0),  # II: exports active power
        ({"22.7.0": "0.8", "24.7.0": "0.4"}, 240.0),  # III
        ({"21.7.0": "0.8", "24.7.0": "0.4"}, 300.0),  # IV: leads
        ({"36.7.0": "-0.8", "23.7.0": "0.4"}, 120.0),  # net power with its sign
    ],
)
def test_power_factors_stand_in_for_angles(powers: dict[str, str], lag: float) -> None:
    rows = [*phasor_rows(), reading_row("33.7.0", "0.5")]
    phasors = made([*rows, *(reading_row(obis, value, "kW") for obis, value in powers.items())])
    (current,) = phasors.currents
    assert (round(current.angle, 3), current.source) == (lag, AngleSource.POWER_FACTOR)
    assert not any("lagging" in note for note in phasors.notes)


def test_a_power_factor_alone_does_not_tell_the_side() -> None:
    phasors = made([*phasor_rows(), reading_row("33.7", "0.866"), reading_row("53.7", "-1"), reading_row("73.7", "7")])
    assert [round(one.lag or 0.0) for one in phasors.currents] == [30, 180]
    assert any("drawn lagging" in note and "I1:" in note for note in phasors.notes)
    assert any(note.endswith(": I3.") for note in phasors.notes)


def test_no_diagram_without_voltages_or_any_angle() -> None:
    for rows in (
        None,
        [],
        [3, {"obis": None}],
        phasor_rows(),
        [reading_row("81.7.4", "30")],
        [*phasor_rows()[:1], reading_row("53.7.0", "0.9")],  # the factor of a phase without a voltage
        [reading_row("32.7.0", "0.0", "V"), reading_row("81.7.4", "30")],
        [reading_row("32.7.0*01", "230", "V"), reading_row("81.7.4", "30")],  # a historical value
        [reading_row("7-0:32.7.0", "230", "V"), reading_row("81.7.4", "30")],  # gas
    ):
        assert phasors_of(rows) is None


def test_units_and_dead_phases() -> None:
    rows = [
        reading_row("32.7.0", "0.2314", "kV"),
        reading_row("52.7.0", "0.0", "V"),
        reading_row("31.7.0", "412", "mA"),
        reading_row("51.7.0", "1", "furlong"),
        reading_row("81.7.4", "0", "deg"),
        reading_row("81.7.1", "0", "deg"),
    ]
    phasors = made(rows)
    assert [(one.name, one.magnitude) for one in phasors.all] == [("U1", 231.4), ("I1", 0.412)]
    assert phasors.rotation is Rotation.SINGLE
    assert phasors.notes == ("No voltage on L2: nothing is drawn for it.",)


def test_the_diagram_draws_and_says_it(qapp: QApplication, qtbot: QtBot) -> None:
    theme = Theme(qapp, ThemeMode.LIGHT)
    view = PhasorView(theme)
    qtbot.addWidget(view)
    phasors = made(phasor_rows(e1="120", e2="240", e4="90", e15="30", e26="30"))
    view.set_phasors(phasors)
    view.resize(900, 400)
    view.show()
    diagram = view.diagram
    tips = {one.name: diagram.tip(one) for one in phasors.all}
    centre = diagram._circle()[0]
    up, right = tips["U1"] - centre, tips["I1"] - centre
    assert up.y() < 0
    assert math.isclose(up.x(), 0, abs_tol=1e-6)
    assert right.x() > 0
    assert math.isclose(right.y(), 0, abs_tol=1e-6)
    longest = max(phasors.currents, key=lambda one: one.magnitude)
    shortest = min(phasors.currents, key=lambda one: one.magnitude)
    assert _length(diagram.tip(longest) - centre) > _length(diagram.tip(shortest) - centre)
    assert list(diagram.scale_texts()) == ["outer ring 232.0 V", "inner ring 12.31 A"]
    boxes = [box for _one, box in diagram._name_boxes(phasors.all)]
    assert not any(a.intersects(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])
    assert {phase_pen(theme, one).style() for one in phasors.voltages} == {
        Qt.PenStyle.SolidLine,
        Qt.PenStyle.DashLine,
        Qt.PenStyle.DotLine,
    }
    spoken = diagram.accessibleDescription()
    assert spoken == spoken_text(phasors)
    assert "I1 12.31 A, 90.0° behind U1, measured." in spoken
    assert "Rotating field L1-L2-L3 (right)." in spoken
    assert view.model.rows()[4] == ("I2", "8.070 A", "150.0°", "30.0° behind U2", "measured")
    view.resize(300, 500)
    assert view.orientation() is Qt.Orientation.Vertical
    view.grab()


def test_no_current_is_a_point_and_no_crash(qapp: QApplication, qtbot: QtBot) -> None:
    view = PhasorView(Theme(qapp, ThemeMode.DARK))
    qtbot.addWidget(view)
    rows = [reading_row("32.7.0", "230", "V"), reading_row("31.7.0", "0.0", "A"), reading_row("81.7.4", "0")]
    view.set_phasors(made(rows))
    view.resize(200, 200)
    assert not view.grab().isNull()


def _length(vector: QPointF) -> float:
    return math.hypot(vector.x(), vector.y())
