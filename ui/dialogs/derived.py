"""A derived quantity: its expression, the curves of its names, the unit of the result, and the value it has now."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import tzinfo
from typing import Final

import numpy as np
from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QLineEdit, QMenu, QPushButton, QVBoxLayout, QWidget

from app.errors import ParameterError, WorkbenchError
from app.lab.derived import MAX_DIGITS, Derived
from app.lab.expression import MAX_LENGTH, Expression, ExpressionError
from app.lab.series import SeriesKey, Times, Values
from app.lab.units import unit_of_text
from app.model.command import ParamSpec, ParamType
from ui.dialogs.lab import CurveChoice, CurvePicker, Errand, LabDialog, moment_text
from ui.panels.command import ParamField
from ui.theme import Role, Theme, fixed_font, space
from ui.widgets.filter_line import FilterLine
from ui.widgets.sentence_panel import tint, words_label

WIDTH: Final = 96  # letters
SPARE_LINES: Final = 8  # for the curves of two names, and sentences
MAX_TITLE: Final = 200
PREVIEW_SAMPLES: Final = 4096  # the newest of each curve
TYPING_MS: Final = 300
LIVE_MS: Final = 1000

Columns = Callable[[SeriesKey], "tuple[Times, Values] | None"]

_LETTERS: Final[Mapping[str, tuple[str, ...]]] = {  # what the letters of formulas are measured in
    "u": ("V", "kV", "mV"),
    "v": ("V", "kV", "mV"),
    "i": ("A", "mA", "kA"),
    "p": ("kW", "W", "MW"),
    "q": ("kvar", "var"),
    "s": ("kVA", "VA"),
    "e": ("kWh", "Wh"),
    "w": ("kWh", "Wh"),
    "f": ("Hz",),
    "t": ("°C",),
}


def likely_curve(name: str, choices: Sequence[CurveChoice]) -> SeriesKey | None:
    """The one curve that a name of an expression can mean; None where there is none, or a doubt."""
    wanted = name.casefold()
    named = [one.key for one in choices if wanted in (one.key.name.casefold(), one.title.casefold())]
    if not named:
        units = _LETTERS.get(wanted.partition("_")[0].rstrip("0123456789"), ())
        named = [one.key for one in choices if one.key.unit in units]
    return named[0] if len(named) == 1 else None


def new_id(title: str, taken: Collection[str]) -> str:
    """A short id for a title, one that is not taken."""
    base = re.sub(r"\W+", "_", title.strip().casefold()).strip("_")[:40] or "derived"
    free, count = base, 1
    while free in taken:
        count += 1
        free = f"{base}_{count}"
    return free


class DerivedDialog(LabDialog):
    """Makes a derived quantity, or changes one that is there.

    Args:
        curves: what its names may be bound to.
        columns: the samples of a curve as they are known now, for the preview; None where there are none.
        derived: the one to change; None makes a new one.
        taken_ids: ids of the others.
        zone: of the times that are shown; None: the computer's.
    """

    taken = Signal(object)  # Derived

    def __init__(
        self,
        theme: Theme,
        curves: Sequence[CurveChoice],
        columns: Columns,
        parent: QWidget | None = None,
        *,
        derived: Derived | None = None,
        taken_ids: Collection[str] = (),
        zone: tzinfo | None = None,
    ) -> None:
        super().__init__(theme, parent, "derived")
        self._columns = columns
        self._derived = derived
        self._taken_ids = taken_ids
        self._zone = zone
        self._choices = list(curves)
        self._bound: dict[str, SeriesKey] = dict(derived.bindings) if derived is not None else {}
        there = {one.key for one in self._choices}
        self._choices += [CurveChoice(key) for key in dict.fromkeys(self._bound.values()) if key not in there]
        self._names: tuple[str, ...] = ()
        self._pickers: dict[str, CurvePicker] = {}
        self._made: Derived | None = None
        self._has_units = False
        self._typing = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._typing.timeout.connect(self.check)
        self._live = QTimer(self, interval=LIVE_MS)
        self._live.timeout.connect(self.show_value)
        if derived is None:
            leave, go = self.tr("Leave without adding"), self.tr("Add the quantity")
            self.name_it(self.tr("Add a derived quantity"), leave, go)
        else:
            leave, go = self.tr("Leave as it was"), self.tr("Save the quantity")
            self.name_it(self.tr("Derived quantity {name}").format(name=derived.title or derived.id), leave, go)
        self._build()
        if derived is not None:
            self._fill(derived)
        self._colour()
        self.check()
        self.fit(WIDTH, SPARE_LINES)
        (self.name.editor if derived is None else self.line).setFocus()
        self._errand = Errand(lambda: unit_of_text("V"), self._on_units, self._on_no_units, self)

    # ---------------------------------------------------------------- construction

    def _build(self) -> None:
        self.name = ParamField(ParamSpec(name="name", title=self.tr("Name")), self._theme)
        if isinstance(self.name.editor, QLineEdit):
            self.name.editor.setMaxLength(MAX_TITLE)
        self.name.edited.connect(self._on_typed)
        self.form.addWidget(self.name)
        self.form.addLayout(self._build_expression())
        self._rows = QGridLayout()
        self._rows.setHorizontalSpacing(space(3))
        self._rows.setVerticalSpacing(space(1))
        self._rows.setColumnStretch(1, 1)
        self.curves_title = QLabel(self.tr("Curves of its names"))
        self.curves_title.hide()
        self.curves_error = QLabel()
        self.curves_error.setObjectName("derived.curves_error")
        box = QVBoxLayout()
        box.setSpacing(space(1))
        box.addWidget(self.curves_title)
        box.addLayout(self._rows)
        box.addWidget(self.curves_error)
        self.form.addLayout(box)
        self.unit = ParamField(
            ParamSpec(name="unit", title=self.tr("Unit of the result"), required=False, default=""), self._theme
        )
        self.unit.edited.connect(self._on_typed)
        self.unit_note = QLabel()
        self.unit_note.setObjectName("derived.unit_note")
        self.digits = ParamField(
            ParamSpec(
                name="digits",
                title=self.tr("Decimals shown"),
                type=ParamType.INTEGER,
                minimum=0,
                maximum=MAX_DIGITS,
                default=3,
            ),
            self._theme,
        )
        self.digits.edited.connect(self._on_typed)
        self.preview = words_label()
        self.preview.setObjectName("derived.preview")
        self.preview.setAccessibleName(self.tr("Value now"))
        for label in (self.expression_error, self.expression_hint, self.curves_error, self.unit_note):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        unit = QVBoxLayout()
        unit.setSpacing(space(1))
        unit.addWidget(self.unit)
        unit.addWidget(self.unit_note)
        self.form.addLayout(unit)
        self.form.addWidget(self.digits)
        self.form.addWidget(self.preview)
        self.form.addStretch(1)
        self.go.clicked.connect(self._take)

    def _build_expression(self) -> QVBoxLayout:
        self.line = FilterLine(self._theme)
        self.line.setObjectName("derived.expression")
        self.line.setAccessibleName(self.tr("Expression"))
        self.line.setFont(fixed_font())
        self.line.setMaxLength(MAX_LENGTH)
        self.line.setPlaceholderText("U * I")
        self.line.setLayoutDirection(Qt.LayoutDirection.LeftToRight)  # a formula, in every language
        self.line.textEdited.connect(self._on_typed)
        self.insert = QPushButton(self.tr("&Insert a function"))
        self.insert.setObjectName("derived.insert")
        self.insert.setAutoDefault(False)
        self.insert.clicked.connect(self._show_functions)
        title = QLabel(self.tr("&Expression"))
        title.setBuddy(self.line)
        self.expression_hint = QLabel(self.tr("Names, numbers, + - * / ** ( ) and functions, as in mean(U * I, 10 s)."))
        self.expression_error = QLabel()
        self.expression_error.setObjectName("derived.expression_error")
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.line, 1)
        row.addWidget(self.insert)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        box.addWidget(title)
        box.addLayout(row)
        box.addWidget(self.expression_hint)
        box.addWidget(self.expression_error)
        return box

    def _fill(self, derived: Derived) -> None:
        self.name.set_value(derived.title)
        self.line.setText(derived.expression.text)
        self.unit.set_value(derived.unit)
        self.digits.set_value(derived.digits)

    # ---------------------------------------------------------------- functions

    def _functions(self) -> tuple[tuple[str, str], ...]:
        """What is written, and what it is; x stands for what is selected."""
        return (
            ("mean(x, 10 s)", self.tr("mean of the last 10 s")),
            ("rate(x)", self.tr("change per second")),
            ("delta(x)", self.tr("change since the sample before")),
            ("integral(x)", self.tr("sum over time: energy of a power")),
            ("hold(x)", self.tr("last value, however old it is")),
            ("error(x, ref)", self.tr("error against a reference, in percent")),
            ("abs(x)", self.tr("without its sign")),
            ("sqrt(x)", self.tr("square root")),
            ("min(x, y)", self.tr("the smaller one")),
            ("max(x, y)", self.tr("the larger one")),
            ("clamp(x, 0, 1)", self.tr("kept between two limits")),
            ("sin(x)", self.tr("sine")),
            ("cos(x)", self.tr("cosine")),
            ("atan2(y, x)", self.tr("angle, in radians")),
            ("log10(x)", self.tr("logarithm to base 10")),
        )

    def _show_functions(self) -> None:
        menu = QMenu(self)
        menu.setObjectName("derived.functions")
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for text, words in self._functions():
            action = menu.addAction(f"{text}\t{words}")
            action.setData(text)
        menu.triggered.connect(lambda action: self.insert_function(str(action.data())))
        menu.popup(self.insert.mapToGlobal(self.insert.rect().bottomLeft()))

    def insert_function(self, text: str) -> None:
        """Write a function at the cursor, around what is selected there."""
        inside = self.line.selectedText()
        written = re.sub(r"\bx\b", lambda _match: inside, text, count=1) if inside else text
        start = self.line.selectionStart() if inside else self.line.cursorPosition()
        self.line.insert(written)
        if not inside:  # typing goes on in the place of x
            at = written.index("(") + 1
            self.line.setSelection(start + at, 1)
        self.line.setFocus()
        self._on_typed()

    # ---------------------------------------------------------------- checks

    def _on_typed(self) -> None:
        """Sentences wait until the hand rests."""
        self._made = None
        self._typing.start()

    def _on_units(self, _unit: object) -> None:
        self._has_units = True
        self.check()

    def _on_no_units(self, fault: WorkbenchError) -> None:
        self._tell(self.unit_note, str(fault), Role.BAD)

    def check(self) -> None:
        """Judge all of it now: what is wrong stands under its field, what is missing beside the buttons."""
        self._typing.stop()
        self._made = None
        self.unit.show_error("")
        for label in (self.curves_error, self.expression_error):
            self._tell(label, "", Role.BAD)
        self._tell(self.unit_note, self.tr("Left empty, it is the one that comes of the curves."), Role.DIMMED)
        expression = self._parsed()
        if expression is not None:
            self._offer(expression.names)
            if self._has_units and not self._unbound() and not self.digits.fault():
                self._make(expression)
        self._say_missing(expression)
        self.show_value()

    def _parsed(self) -> Expression | None:
        text = self.line.text()
        self.line.set_wrong(-1)
        self.line.setAccessibleDescription(self.expression_hint.text())
        if not text.strip():
            return None
        try:
            return Expression.parse(text)
        except ExpressionError as fault:
            self._accuse_expression(fault)
            return None

    def _accuse_expression(self, fault: ExpressionError) -> None:
        self.line.set_wrong(fault.position)
        self.line.setAccessibleDescription(f"{fault}.")
        self._tell(self.expression_error, f"{fault}.", Role.BAD)

    def _make(self, expression: Expression) -> None:
        title = str(self.name.raw() or "").strip()
        derived_id = self._derived.id if self._derived is not None else new_id(title, self._taken_ids)
        bindings = {name: self._bound[name] for name in expression.names}
        unit, digits = str(self.unit.raw() or "").strip(), int(self.digits.check())
        try:
            made = Derived(derived_id, title, expression, bindings, unit, digits)
        except ExpressionError as fault:
            self._accuse_expression(fault)
            return
        except ParameterError as fault:
            if fault.parameter == "unit":
                self.unit.show_error(str(fault))
            else:
                self._tell(self.curves_error, str(fault), Role.BAD)
            return
        self._made = made
        note, found = made.bound.note, made.result_unit
        if note:
            self._tell(self.unit_note, note, Role.WARNING)
        elif unit:
            self._tell(self.unit_note, self.tr("The numbers are converted to it."), Role.DIMMED)
        else:
            text = self.tr("It comes of the curves: {unit}. State another of its kind to have the numbers converted.")
            text = text if found else self.tr("The result is a pure number.")
            self._tell(self.unit_note, text.format(unit=found), Role.DIMMED)

    def _say_missing(self, expression: Expression | None) -> None:
        needed = []
        if not str(self.name.raw() or "").strip():
            needed.append(self.tr("a name"))
        if not self.line.text().strip():
            needed.append(self.tr("an expression"))
        if expression is not None:
            needed += [self.tr("the curve of {name}").format(name=name) for name in self._unbound()]
        self.missing.setText(self.tr("Still needed: {what}.").format(what=", ".join(needed)) if needed else "")
        self.go.setEnabled(self._made is not None and not needed)

    # ---------------------------------------------------------------- bindings

    def _unbound(self) -> list[str]:
        return [name for name in self._names if name not in self._bound]

    def _offer(self, names: tuple[str, ...]) -> None:
        """One row for each name; what was chosen for a name is remembered when it comes back."""
        if names == self._names:
            return
        self._names = names
        while (taken := self._rows.takeAt(0)) is not None:
            old = taken.widget()
            if old is not None:
                old.hide()
                old.deleteLater()
        self._pickers = {}
        choices = [(one.key, one.text) for one in self._choices]
        before: QWidget = self.insert
        for place, name in enumerate(names):
            picker = CurvePicker(self.tr("Curve of {name}").format(name=name))
            picker.setObjectName(f"derived.curve.{name}")
            picker.set_choices(choices)
            if name not in self._bound and (likely := likely_curve(name, self._choices)) is not None:
                self._bound[name] = likely
            picker.set_key(self._bound.get(name))
            picker.chosen.connect(lambda name=name: self._on_chosen(name))
            label = QLabel(name)
            label.setFont(fixed_font())
            label.setBuddy(picker)
            self._rows.addWidget(label, place, 0)
            self._rows.addWidget(picker, place, 1)
            QWidget.setTabOrder(before, picker)
            before = picker
            self._pickers[name] = picker
        self.curves_title.setVisible(bool(names))

    def picker(self, name: str) -> CurvePicker:
        """The field of one name's curve."""
        return self._pickers[name]

    def _on_chosen(self, name: str) -> None:
        key = self._pickers[name].key()
        if key is None:
            self._bound.pop(name, None)
        else:
            self._bound[name] = key
        self._on_typed()

    # ---------------------------------------------------------------- the value now

    def show_value(self) -> None:
        """Compute it of the newest samples."""
        made = self._made
        if made is None:
            is_waiting = bool(self._names) and not self._has_units
            self.preview.setText(self.tr("Units are being looked up…") if is_waiting else "")
            return
        columns: dict[SeriesKey, tuple[Times, Values]] = {}
        for key in dict.fromkeys(made.bindings.values()):
            column = self._columns(key)
            if column is None or not len(column[0]):
                choice = next(one for one in self._choices if one.key == key)
                text = self.tr("No value yet: there is no sample of {curve}.")
                self.preview.setText(text.format(curve=choice.text))
                return
            columns[key] = column[0][-PREVIEW_SAMPLES:], column[1][-PREVIEW_SAMPLES:]
        times, values = made.evaluate(columns)
        seen = max(len(column[0]) for column in columns.values())
        if not len(times):
            text = self.tr(
                "No value in the newest {count} samples: the curves are not there at the same time, or the result is "
                "not a number."
            )
            self.preview.setText(text.format(count=seen))
            return
        text = self.tr("Last value {value}, {time}. Lowest {low}, highest {high} of {count} values.")
        self.preview.setText(
            text.format(
                value=self._value_text(made, float(values[-1])),
                time=moment_text(int(times[-1]), self._zone),
                low=self._value_text(made, float(np.min(values))),
                high=self._value_text(made, float(np.max(values))),
                count=len(values),
            )
        )

    def _value_text(self, made: Derived, value: float) -> str:
        is_plain = value == 0 or -6 < math.log10(abs(value)) < 15
        text = f"{value:z.{made.digits}f}" if is_plain else f"{value:.{made.digits}e}"
        return f"{text} {made.result_unit}".rstrip()

    # ---------------------------------------------------------------- small things

    def _take(self) -> None:
        self.check()
        if self._made is None or not self.go.isEnabled():
            return
        self.taken.emit(self._made)
        self.accept()

    def _tell(self, label: QLabel, text: str, role: Role) -> None:
        label.setText(text)
        label.setVisible(bool(text))
        tint(label, self._theme, role)

    def _colour(self) -> None:
        super()._colour()
        for label in (self.expression_hint, self.preview):
            tint(label, self._theme, Role.DIMMED)
        for label in (self.expression_error, self.curves_error):
            tint(label, self._theme, Role.BAD)
        is_warning = self._made is not None and bool(self._made.bound.note)
        tint(self.unit_note, self._theme, Role.WARNING if is_warning else Role.DIMMED)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._live.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._live.stop()

    def done(self, result: int) -> None:
        self._errand.drop()
        super().done(result)
