"""Accuracy tests as the window knows them: what a person entered, what is kept, and a record as tables and as a page.

A ``Draft`` is the form as it stands, right or wrong; ``plan_of`` makes the plan of ``app.lab.accuracy`` of it or says
what is wrong with which entry. Everything measured comes from the record of a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from html import escape
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QObject, Qt, Signal
from PySide6.QtGui import QIcon

from app.errors import ParameterError
from app.lab.accuracy import (
    MOST_POINTS,
    MOST_REPEATS,
    AccuracyPlan,
    AccuracyRun,
    Certificate,
    Kind,
    LoadPoint,
    MeterInput,
    Phase,
    Role,
    Verdict,
    plus_minus,
    rows,
)
from app.lab.classes import Connection, Limit, Load, PowerFactor, Ratings, Standard, find_limit, standards
from app.lab.series import SeriesKey
from app.model.command import ParamSpec, ParamType
from app.model.reading import Quantity, SampleSet
from ui.models.readings import ROOT, AnyIndex, TableModel
from ui.numbers import measured_text
from ui.theme import QT_TRANSLATE_NOOP, Look, Shape, Theme
from ui.theme import Role as Colour

translate: Final = QCoreApplication.translate

SETTING: Final = "accuracy"  # key in the workspace's settings
MOST_RECORDS: Final = 10  # results that are kept in the workspace; files keep any
_LEAST: Final = Decimal("0.001")  # of entries that must be above 0
FINEST: Final = 6  # decimals of a value that may be a meter's resolution; more come from a conversion

_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        **dict.fromkeys(("Wh", "kWh", "MWh"), Kind.REGISTER),
        **dict.fromkeys(("W", "kW", "MW"), Kind.POWER),
        "": Kind.PULSES,
    }
)
_DISPLAY: Final = int(Qt.ItemDataRole.DisplayRole)
_EDIT: Final = int(Qt.ItemDataRole.EditRole)
_RIGHT: Final = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

VERDICT_LOOKS: Final[Mapping[Verdict, Look]] = MappingProxyType(
    {
        Verdict.PASS: Look(QT_TRANSLATE_NOOP("Accuracy", "pass"), Colour.GOOD, Shape.TICK, context="Accuracy"),
        Verdict.FAIL: Look(QT_TRANSLATE_NOOP("Accuracy", "fail"), Colour.BAD, Shape.CROSS, context="Accuracy"),
        Verdict.UNDECIDED: Look(
            QT_TRANSLATE_NOOP("Accuracy", "undecided"), Colour.WARNING, Shape.QUESTION, context="Accuracy"
        ),
        Verdict.NONE: Look(
            QT_TRANSLATE_NOOP("Accuracy", "no verdict"), Colour.NEUTRAL, Shape.BARRED_CIRCLE, context="Accuracy"
        ),
    }
)
PHASE_LOOKS: Final[Mapping[Phase, Look]] = MappingProxyType(
    {
        Phase.LOAD: Look(
            QT_TRANSLATE_NOOP("Accuracy", "set the load"), Colour.ACCENT, Shape.HOLLOW_CIRCLE, context="Accuracy"
        ),
        Phase.SETTLING: Look(
            QT_TRANSLATE_NOOP("Accuracy", "settling"), Colour.VIOLET, Shape.HOURGLASS, context="Accuracy"
        ),
        Phase.MEASURING: Look(
            QT_TRANSLATE_NOOP("Accuracy", "measuring"), Colour.ACCENT, Shape.FILLED_CIRCLE, context="Accuracy"
        ),
        Phase.DONE: Look(QT_TRANSLATE_NOOP("Accuracy", "done"), Colour.GOOD, Shape.TICK, context="Accuracy"),
        Phase.ABORTED: Look(
            QT_TRANSLATE_NOOP("Accuracy", "broken off"), Colour.WARNING, Shape.BARRED_CIRCLE, context="Accuracy"
        ),
    }
)
LATER: Final = Look(QT_TRANSLATE_NOOP("Accuracy", "later"), Colour.NEUTRAL, Shape.SMALL_CIRCLE, context="Accuracy")


def role_title(role: Role) -> str:
    if role is Role.DUT:
        return translate("Accuracy", "Meter under test")
    return translate("Accuracy", "Reference")


# ---------------------------------------------------------------- what the devices have told


class Told(NamedTuple):
    """A quantity with its last value, when that came, and the fewest decimals that hold every value so far."""

    quantity: Quantity
    value: Decimal
    at: datetime
    decimals: int

    @property
    def text(self) -> str:
        return f"{measured_text(self.value, self.quantity.unit)} {self.quantity.unit}".rstrip()


class Quantities:
    """The quantities from which energy can be taken, by device, as their samples come."""

    def __init__(self) -> None:
        self._told: dict[str, dict[tuple[str, str], Told]] = {}

    def take(self, sample: SampleSet) -> bool:
        """True where a quantity is new."""
        is_new = False
        for quantity, value in sample.values:
            if quantity.unit not in _KINDS:
                continue
            of_device = self._told.setdefault(sample.device, {})
            key = (quantity.name, quantity.unit)
            before = of_device.get(key)
            exponent = value.as_tuple().exponent
            decimals = max(0, -exponent) if isinstance(exponent, int) else 0
            if before is not None:
                decimals = max(decimals, before.decimals)
            of_device[key] = Told(quantity, value, sample.received, decimals)
            is_new |= before is None
        return is_new

    def forget(self, device: str) -> None:
        self._told.pop(device, None)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self._told)

    def of(self, device: str) -> tuple[Quantity, ...]:
        return tuple(told.quantity for told in self._told.get(device, {}).values())

    def last(self, key: SeriesKey) -> Told | None:
        return self._told.get(key.device, {}).get((key.name, key.unit))

    def resolution(self, key: SeriesKey) -> str:
        """The step that the decimals of the values so far suggest; empty where they say nothing of the meter."""
        told = self.last(key)
        if told is None or told.decimals > FINEST:
            return ""
        return f"{Decimal(1).scaleb(-told.decimals):f}"


# ---------------------------------------------------------------- what a person enters


class Length(StrEnum):
    """How a repeat ends."""

    TIME = "time"
    ENERGY = "energy"


class Column(IntEnum):
    """Of the table of load points."""

    TITLE = 0
    VOLTAGE = 1
    CURRENT = 2
    FACTOR = 3
    PHASES = 4
    LOAD = 5
    LIMIT = 6
    SOURCE = 7


class Fault(NamedTuple):
    """What is wrong with an entry. ``place`` is the key of its field, ``dut.key``, ``points``, or empty."""

    place: str
    text: str


Cells = tuple[str, ...]  # one load point, by Column
NEW_POINT: Final[Cells] = ("", "230", "5", "1", "1", Load.BALANCED.value, "", "")
POWER_FACTORS: Final = ("1", "0.5 inductive", "0.8 capacitive", "0.25 inductive", "0.5 capacitive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The form as it stands: raw values by the keys of ``fields``, the two quantities, the load points' cells."""

    values: Mapping[str, Any] = field(default_factory=dict)
    dut: SeriesKey | None = None
    reference: SeriesKey | None = None
    points: tuple[Cells, ...] = (NEW_POINT,)

    def key(self, role: Role) -> SeriesKey | None:
        return self.dut if role is Role.DUT else self.reference

    def to_json(self) -> dict[str, Any]:
        return {
            "values": dict(self.values),
            "dut": list(self.dut) if self.dut is not None else None,
            "reference": list(self.reference) if self.reference is not None else None,
            "points": [list(cells) for cells in self.points],
        }

    @classmethod
    def from_json(cls, data: object) -> Draft:
        """The draft of ``to_json``; of anything else what can be made out."""
        given = data if isinstance(data, dict) else {}
        values = given.get("values")
        points = given.get("points")
        cells = [tuple(map(str, one)) for one in points if isinstance(one, list)] if isinstance(points, list) else []
        return cls(
            values=values if isinstance(values, dict) else {},
            dut=_key_of(given.get("dut")),
            reference=_key_of(given.get("reference")),
            points=tuple(one for one in cells if len(one) == len(Column))[:MOST_POINTS] or (NEW_POINT,),
        )


def _key_of(data: object) -> SeriesKey | None:
    is_key = isinstance(data, list) and len(data) == 3 and all(isinstance(part, str) for part in data)
    return SeriesKey(*data) if isinstance(data, list) and is_key else None


def kind_of(unit: str) -> Kind | None:
    """What values in a unit are; None where no energy can be taken from them."""
    return _KINDS.get(unit)


def class_key(standard: str, accuracy_class: str) -> str:
    return f"{standard}/{accuracy_class}"


def _class_of(key: str | None) -> tuple[Standard | None, str]:
    standard, _, name = (key or "").rpartition("/")
    return standards().get(standard), name


def fields(draft: Draft) -> dict[str, ParamSpec]:
    """Every entry of the form by its key, in order; those that mean nothing beside the others are left out."""
    number = ParamType.DECIMAL
    found: dict[str, ParamSpec] = {"title": _spec(translate("Accuracy", "Name of the test"), required=False)}
    for role in Role:
        found |= _meter_fields(role, draft)
    found |= {
        "certificate.number": _spec(translate("Accuracy", "Certificate number"), required=False),
        "certificate.expanded": _spec(
            translate("Accuracy", "Expanded uncertainty"),
            number,
            "%",
            minimum=0,
            required=False,
            help=translate("Accuracy", "From the certificate."),
        ),
        "certificate.coverage": _spec(
            translate("Accuracy", "Coverage factor k"),
            number,
            default=Decimal(2),
            help=translate("Accuracy", "Of that uncertainty; mostly 2."),
        ),
        "certificate.class": _spec(
            translate("Accuracy", "Limit of its class"),
            number,
            "%",
            minimum=0,
            required=False,
            help=translate("Accuracy", "Where there is no certificate."),
        ),
        "certificate.drift": _spec(
            translate("Accuracy", "Drift since"),
            number,
            "%",
            minimum=0,
            required=False,
            help=translate("Accuracy", "What it may have moved since."),
        ),
        "certificate.error": _spec(
            translate("Accuracy", "Known error"),
            number,
            "%",
            required=False,
            help=translate("Accuracy", "It is corrected."),
        ),
        "class": _spec(
            translate("Accuracy", "Class"),
            ParamType.CHOICE,
            required=False,
            choices=tuple(
                (
                    class_key(one.id, name),
                    translate("Accuracy", "class {name}, {standard}").format(name=name, standard=one.id),
                )
                for one in standards().values()
                for name in one.classes
            ),
            help=translate("Accuracy", "Without one, state a limit for each load point."),
        ),
    }
    standard, name = _class_of(draft.values.get("class"))
    if standard is not None:
        found |= _rating_fields(standard, name, draft)
    is_energy = draft.values.get("length.by") == Length.ENERGY
    found["length.by"] = _spec(
        translate("Accuracy", "A repeat ends after"),
        ParamType.CHOICE,
        default=Length.TIME.value,
        choices=(
            (Length.TIME.value, translate("Accuracy", "a time")),
            (Length.ENERGY.value, translate("Accuracy", "an energy of the reference")),
        ),
    )
    if is_energy:
        found["length.energy"] = _spec(translate("Accuracy", "Energy"), number, "Wh", minimum=_LEAST)
    else:
        found["length.time"] = _spec(
            translate("Accuracy", "Duration"), number, "s", default=Decimal(60), minimum=_LEAST
        )
    found |= {
        "repeats": _spec(
            translate("Accuracy", "Repeats"), ParamType.INTEGER, default=3, minimum=1, maximum=MOST_REPEATS
        ),
        "warm_up": _spec(
            translate("Accuracy", "Warm-up"),
            number,
            "s",
            default=Decimal(0),
            minimum=0,
            help=translate("Accuracy", "Before the first load point."),
        ),
        "settle": _spec(
            translate("Accuracy", "Settling"),
            number,
            "s",
            default=Decimal(0),
            minimum=0,
            help=translate("Accuracy", "Before every load point."),
        ),
        "max_gap": _spec(
            translate("Accuracy", "Longest gap"),
            number,
            "s",
            default=Decimal(10),
            minimum=_LEAST,
            help=translate("Accuracy", "A meter silent for longer breaks it off."),
        ),
        "anchor": _spec(
            translate("Accuracy", "Start and stop at readings of"),
            ParamType.CHOICE,
            default=Role.DUT.value,
            choices=tuple((role.value, role_title(role)) for role in Role),
            help=translate("Accuracy", "Take the meter that is read more seldom."),
        ),
    }
    return found


def _meter_fields(role: Role, draft: Draft) -> dict[str, ParamSpec]:
    number = ParamType.DECIMAL
    key = draft.key(role)
    kind = draft.values.get(f"{role}.kind") or (key is not None and kind_of(key.unit))
    unit = "" if key is None else translate("Accuracy", "pulses") if kind == Kind.PULSES else key.unit
    found = {
        "kind": _spec(
            translate("Accuracy", "Kind of value"),
            ParamType.CHOICE,
            choices=(
                (Kind.REGISTER.value, translate("Accuracy", "a counter of energy")),
                (Kind.PULSES.value, translate("Accuracy", "a counter of pulses")),
                (Kind.POWER.value, translate("Accuracy", "power")),
            ),
        ),
        "resolution": _spec(
            translate("Accuracy", "Resolution"),
            number,
            unit,
            minimum=0,
            help=translate("Accuracy", "The smallest step that the meter's value makes."),
        ),
    }
    if kind == Kind.PULSES:
        found["pulses"] = _spec(
            translate("Accuracy", "Meter constant"),
            number,
            "1/kWh",
            minimum=_LEAST,
            help=translate("Accuracy", "It stands on the meter."),
        )
    found["timing"] = _spec(
        translate("Accuracy", "Timing"),
        number,
        "s",
        default=Decimal(0),
        minimum=0,
        help=translate("Accuracy", "How far the time of a value may be off; a constant delay does not count."),
    )
    found["factor"] = _spec(
        translate("Accuracy", "Factor"),
        number,
        default=Decimal(1),
        help=translate("Accuracy", "Transformer ratio, else 1."),
    )
    return {f"{role}.{name}": spec for name, spec in found.items()}


def _rating_fields(standard: Standard, name: str, draft: Draft) -> dict[str, ParamSpec]:
    connection = draft.values.get("connection") or Connection.DIRECT.value
    of_class = [row for row in standard.rows if name in row.limits]
    rows_used = [row for row in of_class if row.connection in (None, connection)]
    bounds = {bound.of for row in rows_used for bound in (row.low, row.high)}
    found = {
        "connection": _spec(
            translate("Accuracy", "Connected"),
            ParamType.CHOICE,
            default=Connection.DIRECT.value,
            choices=(
                (Connection.DIRECT.value, translate("Accuracy", "directly")),
                (Connection.TRANSFORMER.value, translate("Accuracy", "through current transformers")),
            ),
            help="" if rows_used else translate("Accuracy", "This class has no limits for meters connected so."),
        )
    }
    for current in ("Imin", "Itr", "Ib", "In", "Imax"):
        if current in bounds:
            found[f"ratings.{current}"] = _spec(
                current, ParamType.DECIMAL, "A", help=translate("Accuracy", "From the meter's plate.")
            )
    return found


def _spec(title: str, kind: ParamType = ParamType.TEXT, unit: str = "", **more: Any) -> ParamSpec:
    return ParamSpec(name=title.lower().replace(" ", "_"), title=title, type=kind, unit=unit, **more)


_CELL_SPECS: Final[Mapping[Column, ParamSpec]] = MappingProxyType(
    {
        Column.VOLTAGE: _spec("Voltage", ParamType.DECIMAL, "V"),
        Column.CURRENT: _spec("Current", ParamType.DECIMAL, "A"),
        Column.PHASES: _spec("Phases", ParamType.INTEGER),
        Column.LIMIT: _spec("Limit", ParamType.DECIMAL, "%", required=False),
    }
)


def point_of(cells: Cells) -> LoadPoint:
    """Raises ParameterError: a cell is wrong; the sentence says which and why."""
    numbers = {column: spec.parse(cells[column]) for column, spec in _CELL_SPECS.items()}
    limit = numbers[Column.LIMIT]
    return LoadPoint(
        voltage_v=float(numbers[Column.VOLTAGE]),
        current_a=float(numbers[Column.CURRENT]),
        power_factor=PowerFactor.parse(cells[Column.FACTOR]),
        phases=numbers[Column.PHASES],
        load=Load.SINGLE if cells[Column.LOAD] == Load.SINGLE else Load.BALANCED,
        title=cells[Column.TITLE].strip(),
        limit_percent=None if limit is None else float(limit),
        limit_source=cells[Column.SOURCE].strip(),
    )


_PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {  # where an error of a plan or a part of it stands in the form
        "pulses_per_kwh": "pulses",
        "unit": "kind",
        "certificate": "certificate.expanded",
        "error_percent": "certificate.error",
        "accuracy_class": "class",
        "standard": "class",
        "settle_s": "settle",
        "max_gap_s": "max_gap",
        "dut": "reference.key",
        "ib_a": "ratings.Ib",
        "in_a": "ratings.In",
        "imin_a": "ratings.Imin",
        "itr_a": "ratings.Itr",
        "imax_a": "ratings.Imax",
    }
)


def plan_of(draft: Draft, title_of: Callable[[str], str]) -> tuple[AccuracyPlan | None, list[Fault]]:
    """The plan, or what is wrong. ``title_of`` says how a device is called in the report."""
    faults: list[Fault] = []
    typed: dict[str, Any] = {}
    why = translate("Accuracy", "Choose a device and one of its quantities.")
    faults += [Fault(f"{role}.key", why) for role in Role if draft.key(role) is None]
    for place, spec in fields(draft).items():
        try:
            raw = draft.values.get(place)
            value = spec.parse("" if raw is None and spec.type is ParamType.TEXT else raw)
        except ParameterError as wrong:
            faults.append(Fault(place, str(wrong)))
            continue
        typed[place] = float(value) if isinstance(value, Decimal) else value
    faults += [Fault("points", text) for text in point_sentences(point_faults(draft.points))]
    if faults:
        return None, faults
    made: dict[str, Any] = {}
    builders: Sequence[tuple[str, Callable[[], Any]]] = (
        ("dut", lambda: _meter(Role.DUT, draft, typed, title_of)),
        ("reference", lambda: _meter(Role.REFERENCE, draft, typed, title_of)),
        ("certificate", lambda: _certificate(typed)),
        ("", lambda: _plan(draft, typed, made)),
    )
    for prefix, build in builders:
        try:
            made[prefix] = build()
        except ParameterError as wrong:
            name = _PLACES.get(wrong.parameter, wrong.parameter)
            place = f"{prefix}.{name}" if prefix in tuple(Role) and name in _OF_METER else name
            faults.append(Fault(place, str(wrong)))
    return made.get(""), faults


_OF_METER: Final = ("kind", "pulses", "factor", "resolution")


def point_faults(points: Sequence[Cells]) -> list[tuple[int, str]]:
    """The numbers (from 1) of the load points that are wrong, with why."""
    found = []
    for number, cells in enumerate(points, 1):
        try:
            point_of(cells)
        except ParameterError as wrong:
            found.append((number, str(wrong)))
    return found


def point_sentences(faults: Iterable[tuple[int, str]]) -> list[str]:
    text = translate("Accuracy", "Load point {number}: {text}")
    return [text.format(number=number, text=wrong) for number, wrong in faults]


def _meter(role: Role, draft: Draft, typed: Mapping[str, Any], title_of: Callable[[str], str]) -> MeterInput:
    key = draft.key(role)
    assert key is not None
    return MeterInput(
        key=key,
        kind=Kind(typed[f"{role}.kind"]),
        resolution=typed[f"{role}.resolution"],
        timing_s=typed[f"{role}.timing"],
        pulses_per_kwh=typed.get(f"{role}.pulses", 0.0),
        factor=typed[f"{role}.factor"],
        title=title_of(key.device),
    )


def _certificate(typed: Mapping[str, Any]) -> Certificate:
    return Certificate(
        number=typed["certificate.number"],
        expanded_percent=typed["certificate.expanded"] or 0.0,
        coverage=typed["certificate.coverage"],
        class_percent=typed["certificate.class"] or 0.0,
        drift_percent=typed["certificate.drift"] or 0.0,
        error_percent=typed["certificate.error"] or 0.0,
    )


def _ratings(typed: Mapping[str, Any]) -> Ratings:
    currents = {f"{name.lower()}_a": typed.get(f"ratings.{name}") for name in ("Ib", "In", "Imin", "Itr", "Imax")}
    return Ratings(connection=Connection(typed.get("connection") or Connection.DIRECT), **currents)


def limits_of(draft: Draft) -> Callable[[LoadPoint], Limit | None]:
    """What the class of the form allows at a load point; None while its entries do not tell."""
    standard, name = _class_of(draft.values.get("class"))
    wanted = fields(draft)
    typed: dict[str, Any] = {"connection": draft.values.get("connection")}
    try:
        for place in (place for place in wanted if place.startswith("ratings.")):
            typed[place] = float(wanted[place].parse(draft.values.get(place)))
    except ParameterError:
        return _no_limit
    if standard is None:
        return _no_limit
    known, ratings = standard.id, _ratings(typed)

    def limit_of(point: LoadPoint) -> Limit | None:
        try:
            return find_limit(known, name, ratings, point.current_a, point.power_factor, point.load)
        except ParameterError:
            return None

    return limit_of


def _plan(draft: Draft, typed: Mapping[str, Any], made: Mapping[str, Any]) -> AccuracyPlan | None:
    if not made.keys() >= {"dut", "reference", "certificate"}:
        return None
    standard, name = _class_of(typed["class"])
    return AccuracyPlan(
        dut=made["dut"],
        reference=made["reference"],
        points=tuple(point_of(cells) for cells in draft.points),
        certificate=made["certificate"],
        title=typed["title"].strip(),
        standard=standard.id if standard is not None else "",
        accuracy_class=name if standard is not None else "",
        ratings=_ratings(typed),
        repeats=typed["repeats"],
        duration_s=typed.get("length.time"),
        energy_wh=typed.get("length.energy"),
        warm_up_s=typed["warm_up"],
        settle_s=typed["settle"],
        max_gap_s=typed["max_gap"],
        anchor=Role(typed["anchor"]),
    )


class PointsModel(QAbstractTableModel):
    """The load points as they are typed in. Limits of the class stand dimmed where the person states none."""

    edited = Signal()

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._points: list[Cells] = []
        self._faults: dict[int, str] = {}
        self._limit_of: Callable[[LoadPoint], Limit | None] = _no_limit

    @property
    def points(self) -> tuple[Cells, ...]:
        return tuple(self._points)

    def titles(self) -> Sequence[str]:
        return (
            translate("Accuracy", "Name"),
            translate("Accuracy", "Voltage (V)"),
            translate("Accuracy", "Current (A)"),
            translate("Accuracy", "Power factor"),
            translate("Accuracy", "Phases"),
            translate("Accuracy", "Load"),
            translate("Accuracy", "Limit ± (%)"),
            translate("Accuracy", "Limit from"),
        )

    def set_points(self, points: Iterable[Cells]) -> None:
        self.beginResetModel()
        self._points = list(points)
        self._check()
        self.endResetModel()

    def set_limits(self, limit_of: Callable[[LoadPoint], Limit | None]) -> None:
        """What the class allows at a load point; None where nobody knows yet."""
        self._limit_of = limit_of
        if self._points:
            self._tell()

    def add(self, row: int) -> None:
        """A copy of a load point below it: the next one mostly differs in one cell."""
        cells = self._points[row] if 0 <= row < len(self._points) else NEW_POINT
        if len(self._points) >= MOST_POINTS:
            return
        self.beginInsertRows(ROOT, row + 1, row + 1)
        self._points.insert(row + 1, cells)
        self._check()
        self.endInsertRows()
        self.edited.emit()

    def remove(self, chosen: Iterable[int]) -> None:
        for row in sorted(chosen, reverse=True):
            self.beginRemoveRows(ROOT, row, row)
            del self._points[row]
            self._check()
            self.endRemoveRows()
        self.edited.emit()

    def faults(self) -> list[str]:
        """Sentences, each with the number of its load point."""
        return point_sentences(self._faults.items())

    def _check(self) -> None:
        self._faults = dict(point_faults(self._points))

    def _tell(self) -> None:
        self.dataChanged.emit(self.index(0, 0), self.index(len(self._points) - 1, len(Column) - 1))

    # Qt
    def rowCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(self._points)

    def columnCount(self, parent: AnyIndex = ROOT) -> int:
        return 0 if parent.isValid() else len(Column)

    def flags(self, index: AnyIndex) -> Qt.ItemFlag:
        return super().flags(index) | Qt.ItemFlag.ItemIsEditable

    def data(self, index: AnyIndex, role: int = _DISPLAY) -> Any:
        if not 0 <= index.row() < len(self._points):
            return None
        row, column = index.row(), Column(index.column())
        text = self._points[row][column]
        is_wrong = row + 1 in self._faults and column is Column.TITLE
        match role:
            case Qt.ItemDataRole.EditRole:
                return text
            case Qt.ItemDataRole.DisplayRole:
                return _load_text(text) if column is Column.LOAD else text or self._of_class(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._faults.get(row + 1) or text or self._of_class(row, column)
            case Qt.ItemDataRole.TextAlignmentRole if column in _CELL_SPECS:
                return _RIGHT
            case Qt.ItemDataRole.ForegroundRole if not text and column in (Column.LIMIT, Column.SOURCE):
                return self._theme.colour(Colour.DIMMED)
            case Qt.ItemDataRole.DecorationRole if is_wrong:
                return self._theme.icon(VERDICT_LOOKS[Verdict.FAIL])
            case Qt.ItemDataRole.AccessibleDescriptionRole if row + 1 in self._faults:
                return self._faults[row + 1]
            case _:
                return None

    def _of_class(self, row: int, column: Column) -> str:
        if column not in (Column.LIMIT, Column.SOURCE) or row + 1 in self._faults or self._points[row][Column.LIMIT]:
            return ""
        limit = self._limit_of(point_of(self._points[row]))
        if limit is None:
            return ""
        if column is Column.LIMIT:
            return translate("Accuracy", "none") if limit.percent is None else f"{limit.percent:g}"
        return limit.text if limit.percent is None else f"{limit.source}: {limit.text}"

    def setData(self, index: AnyIndex, value: Any, role: int = _EDIT) -> bool:
        if role != _EDIT or not 0 <= index.row() < len(self._points):
            return False
        cells = list(self._points[index.row()])
        cells[index.column()] = str(value).strip()
        self._points[index.row()] = tuple(cells)
        self._check()
        self._tell()
        self.edited.emit()
        return True

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _DISPLAY) -> Any:
        if role != _DISPLAY:
            return None
        return self.titles()[section] if orientation is Qt.Orientation.Horizontal else str(section + 1)


def _no_limit(_point: LoadPoint) -> None:
    return None


def load_choices() -> tuple[tuple[str, str], ...]:
    return (Load.BALANCED.value, translate("Accuracy", "all phases")), (
        Load.SINGLE.value,
        translate("Accuracy", "one phase"),
    )


def _load_text(load: str) -> str:
    return dict(load_choices()).get(load, load)


# ---------------------------------------------------------------- what is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the workspace remembers: the form, and the records of the last tests, the newest first."""

    draft: Draft = field(default_factory=Draft)
    records: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"draft": self.draft.to_json(), "records": [dict(record) for record in self.records]}

    @classmethod
    def from_json(cls, data: object) -> Kept:
        """What ``to_json`` made; of anything else what can be made out."""
        given = data if isinstance(data, dict) else {}
        records = given.get("records")
        found = [one for one in records if is_record(one)] if isinstance(records, list) else []
        return cls(draft=Draft.from_json(given.get("draft")), records=tuple(found[:MOST_RECORDS]))


def is_record(data: object) -> bool:
    """Whether the views can show it."""
    if not isinstance(data, dict):
        return False
    try:
        rows(data)
        verdict_of(data)
        record_moment(data)
        return bool(data["rules"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False  # of another version, or not one of ours


def verdict_of(record: Mapping[str, Any]) -> Verdict:
    return Verdict(record["verdict"])


def record_moment(record: Mapping[str, Any]) -> datetime | None:
    """When the last thing in it happened."""
    stops = [repeat["stop"] for point in record["points"] for repeat in point["repeats"]]
    moments = [datetime.fromisoformat(text) for text in (*stops, *(item["at"] for item in record["aborted"]))]
    return max(moments, default=None)


def record_title(record: Mapping[str, Any]) -> str:
    """What a person calls it: the name of the test, else its meter."""
    inputs = record["inputs"]
    return str(inputs["title"] or inputs["dut"]["title"] or inputs["dut"]["key"]["device"])


def record_sentence(record: Mapping[str, Any]) -> str:
    """What came out, in one sentence or two."""
    done, planned = len(record["points"]), len(record["inputs"]["points"])
    by_verdict = {
        verdict: [str(n) for n, point in enumerate(record["points"], 1) if point["verdict"] == verdict]
        for verdict in Verdict
    }
    parts = []
    if done < planned:
        parts.append(
            translate("Accuracy", "{done} of {planned} load points were measured.").format(done=done, planned=planned)
        )
    if by_verdict[Verdict.FAIL]:
        text = translate("Accuracy", "The error is beyond the limit at load point {points}.")
        parts.append(text.format(points=", ".join(by_verdict[Verdict.FAIL])))
    if by_verdict[Verdict.UNDECIDED]:
        text = translate(
            "Accuracy",
            "At load point {points} the limit lies within the uncertainty: measure longer, or with a better reference.",
        )
        parts.append(text.format(points=", ".join(by_verdict[Verdict.UNDECIDED])))
    if by_verdict[Verdict.NONE]:
        text = translate("Accuracy", "Load point {points} has no limit, so no verdict.")
        parts.append(text.format(points=", ".join(by_verdict[Verdict.NONE])))
    if verdict_of(record) is Verdict.PASS:
        parts.append(
            translate("Accuracy", "At every load point the error is within the limit, its uncertainty included.")
        )
    return " ".join(parts)


class ResultModel(TableModel):
    """A record as lines: what, verdict, value."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: Sequence[tuple[str, str, str]] = ()

    def set_record(self, record: Mapping[str, Any]) -> None:
        self.beginResetModel()
        self._rows = [(row.label, row.verdict, row.value) for row in rows(record)]
        self._reset(len(self._rows))
        self.endResetModel()

    def titles(self) -> Sequence[str]:
        return translate("Accuracy", "What"), translate("Accuracy", "Verdict"), translate("Accuracy", "Value")

    def cell(self, row: int, column: int) -> str:
        text = self._rows[row][column]
        return VERDICT_LOOKS[Verdict(text)].text if column == 1 and text else text

    def is_right(self, column: int) -> bool:
        return False

    def ink(self, row: int, column: int) -> Any:
        look = self._look(row, column)
        return self._theme.colour(look.role) if look is not None else None

    def mark(self, row: int, column: int) -> QIcon | None:
        look = self._look(row, column)
        return self._theme.icon(look) if look is not None else None

    def _look(self, row: int, column: int) -> Look | None:
        text = self._rows[row][1]
        return VERDICT_LOOKS[Verdict(text)] if column == 1 and text else None


class Standing(NamedTuple):
    """How one load point of a running test stands."""

    name: str
    look: Look
    error: str = ""
    limit: str = ""


def standings(run: AccuracyRun) -> list[Standing]:
    found = []
    done = run.results
    for number, point in enumerate(run.plan.points):
        limit = run.plan.limit(point).percent
        allowed = translate("Accuracy", "none") if limit is None else f"±{limit:g} %"
        if number < len(done):
            result = done[number]
            error = plus_minus(result.error_percent, result.expanded_percent)
            found.append(Standing(point.name, VERDICT_LOOKS[result.verdict], error, allowed))
        else:
            look = PHASE_LOOKS[run.phase] if number == len(done) else LATER
            found.append(Standing(point.name, look, "", allowed))
    return found


class StandingModel(TableModel):
    """The load points of a running test."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: list[Standing] = []

    def set_rows(self, rows: list[Standing]) -> None:
        """Lines stay where they are while their texts change."""
        if rows == self._rows:
            return
        if len(rows) == len(self._rows):
            self._rows = rows
            self.dataChanged.emit(self.index(0, 0), self.index(len(rows) - 1, self.columnCount() - 1))
            return
        self.beginResetModel()
        self._rows = rows
        self._reset(len(rows))
        self.endResetModel()

    def titles(self) -> Sequence[str]:
        return (
            translate("Accuracy", "No."),
            translate("Accuracy", "State"),
            translate("Accuracy", "Error"),
            translate("Accuracy", "Limit"),
            translate("Accuracy", "Load point"),
        )

    def cell(self, row: int, column: int) -> str:
        one = self._rows[row]
        return (str(row + 1), one.look.text, one.error, one.limit, one.name)[column]

    def is_right(self, column: int) -> bool:
        return column in (0, 2, 3)

    def ink(self, row: int, column: int) -> Any:
        return self._theme.colour(self._rows[row].look.role) if column == 1 else None

    def mark(self, row: int, column: int) -> QIcon | None:
        return self._theme.icon(self._rows[row].look) if column == 1 else None


# ---------------------------------------------------------------- a page for the report

_STYLE: Final = (
    "body{font-family:sans-serif;color:#181c21;background:#fff;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%;margin:1em 0}"
    "th,td{border:1px solid #bfc6cf;padding:.25em .5em;text-align:left;vertical-align:top}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".pass{color:#14622b}.fail{color:#a8201a}.undecided{color:#7a4a00}.none{color:#4f5965}"
)


def html_page(record: Mapping[str, Any]) -> str:
    """A record as a page that stands alone, for a report: the same text for the same record."""
    verdict = verdict_of(record)
    moment = record_moment(record)
    title = escape(translate("Accuracy", "Accuracy test: {name}").format(name=record_title(record)))
    head = f"<p>{escape(record_sentence(record))}</p>"
    if moment is not None:
        head += (
            f"<p>{escape(translate('Accuracy', 'Ended {time}').format(time=moment.isoformat(timespec='seconds')))}</p>"
        )
    lines = "".join(
        f'<tr><th scope="row">{escape(row.label)}</th><td>{escape(row.value)}</td>{_verdict_cell(row.verdict)}</tr>'
        for row in rows(record)
    )
    rules = "".join(f"<li>{escape(rule)}</li>" for rule in record["rules"])
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        f'<h2 class="{verdict.value}">{escape(VERDICT_LOOKS[verdict].text)}</h2>\n{head}\n'
        f"{_repeats_table(record)}\n<h2>{escape(translate('Accuracy', 'Everything that went in and came out'))}</h2>\n"
        f"<table>{lines}</table>\n<h2>{escape(translate('Accuracy', 'Rules'))}</h2><ul>{rules}</ul>\n</body></html>\n"
    )


def _verdict_cell(verdict: str) -> str:
    if not verdict:
        return "<td></td>"
    return f'<td class="{escape(verdict)}">{escape(VERDICT_LOOKS[Verdict(verdict)].text)}</td>'


def _repeats_table(record: Mapping[str, Any]) -> str:
    titles = (
        translate("Accuracy", "Load point"),
        translate("Accuracy", "Repeat"),
        translate("Accuracy", "Start (UTC)"),
        translate("Accuracy", "Duration (s)"),
        translate("Accuracy", "Meter under test (Wh)"),
        translate("Accuracy", "Reference (Wh)"),
        translate("Accuracy", "Mean power (W)"),
        translate("Accuracy", "Error (%)"),
    )
    lines = [
        f"<tr><td>{escape(point['name'])}</td>"
        + "".join(
            f'<td class="n">{escape(text)}</td>'
            for text in (
                str(number),
                str(repeat["start"])[:19].replace("T", " "),
                f"{repeat['duration']['value']:.3f}",
                f"{repeat['dut_energy']['value']:.6g}",
                f"{repeat['reference_energy']['value']:.6g}",
                f"{repeat['mean_power']['value']:.6g}",
                f"{repeat['error']['value']:+.4f}",
            )
        )
        + "</tr>"
        for point in record["points"]
        for number, repeat in enumerate(point["repeats"], 1)
    ]
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    return f"<table><tr>{heads}</tr>{''.join(lines)}</table>"
