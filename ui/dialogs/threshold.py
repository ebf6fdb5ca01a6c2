"""A threshold: which curves, which value, above or below, and how a crossing is told."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.errors import ParameterError
from app.lab.series import SeriesKey
from app.model.command import ParamSpec, ParamType
from app.model.reading import Severity
from ui.dialogs.lab import CurveChoice, CurvePicker, LabDialog
from ui.panels.command import ParamField
from ui.theme import Role, Theme, severity_word, space
from ui.widgets.chart.curve import Threshold
from ui.widgets.sentence_panel import tint, words_label

WIDTH: Final = 76  # letters
MAX_NAME: Final = 200
POINTED_DIGITS: Final = 5  # of a value that was pointed at

_Target = str | SeriesKey  # every curve with a unit, or one curve


class ThresholdDialog(LabDialog):
    """Sets a threshold, or changes one that is there.

    Args:
        curves: those on the chart; their units are what a threshold may be of.
        threshold: the one to change; None makes a new one.
        unit, value: where a new one was asked for; a unit of None leaves the choice open.
    """

    taken = Signal(object)  # Threshold
    removed = Signal()

    def __init__(
        self,
        theme: Theme,
        curves: Sequence[CurveChoice],
        parent: QWidget | None = None,
        *,
        threshold: Threshold | None = None,
        unit: str | None = None,
        value: float | None = None,
    ) -> None:
        super().__init__(theme, parent, "threshold")
        self._is_new = threshold is None
        if self._is_new:
            self.name_it(self.tr("Add a threshold"), self.tr("Leave without adding"), self.tr("Add the threshold"))
        else:
            self.name_it(self.tr("Threshold"), self.tr("Leave as it was"), self.tr("Save the threshold"))
        self._texts = {choice.key: choice.text for choice in curves}
        units = dict.fromkeys(choice.key.unit for choice in curves)
        if threshold is not None:
            unit = threshold.unit
            if threshold.key is not None:
                self._texts.setdefault(threshold.key, CurveChoice(threshold.key).text)
        if unit is not None:
            units = dict.fromkeys((unit, *units))
        self._build(units)
        if threshold is not None:
            self._fill(threshold)
        elif unit is not None:
            self.target.set_key(unit)
            if value is not None:
                self.value.set_value(_number_text(float(f"{value:.{POINTED_DIGITS}g}")))
        for field in (self.value, self.way, self.hysteresis, self.severity, self.text):
            field.edited.connect(self._check)
        self.target.chosen.connect(self._check)
        self._colour()
        self._check()
        self.fit(WIDTH)
        editor = self.value.editor
        editor.setFocus()
        if isinstance(editor, QLineEdit):
            editor.selectAll()

    def _build(self, units: dict[str, None]) -> None:
        self.target = CurvePicker(self.tr("Which curves"))
        self.target.set_choices(
            [(unit, self._every_text(unit)) for unit in units]
            + [(key, self.tr("Only {curve}").format(curve=text)) for key, text in self._texts.items()]
        )
        title = QLabel(self.tr("Which curves"))
        title.setBuddy(self.target)
        box = QVBoxLayout()
        box.setSpacing(space(1))
        box.addWidget(title)
        box.addWidget(self.target)
        self.way = ParamField(
            ParamSpec(
                name="way",
                title=self.tr("Tell when a value is"),
                type=ParamType.CHOICE,
                default="above",
                choices=(("above", self.tr("above the threshold")), ("below", self.tr("below the threshold"))),
            ),
            self._theme,
        )
        self.value = ParamField(ParamSpec(name="value", title=self.tr("Value"), type=ParamType.DECIMAL), self._theme)
        self.hysteresis = ParamField(
            ParamSpec(
                name="hysteresis",
                title=self.tr("Hysteresis"),
                type=ParamType.DECIMAL,
                minimum=Decimal(0),
                default=Decimal(0),
                help=self.tr("How far it has to come back before it counts as within again."),
            ),
            self._theme,
        )
        self.severity = ParamField(
            ParamSpec(
                name="severity",
                title=self.tr("Told as"),
                type=ParamType.CHOICE,
                default=Severity.WARNING.value,
                choices=tuple((one.value, severity_word(one)) for one in Severity),
            ),
            self._theme,
        )
        self.text = ParamField(
            ParamSpec(
                name="name",
                title=self.tr("Name"),
                required=False,
                default="",
                help=self.tr("Stands at its line."),
            ),
            self._theme,
        )
        if isinstance(self.text.editor, QLineEdit):
            self.text.editor.setMaxLength(MAX_NAME)
        self.sentence = words_label()
        self.sentence.setObjectName("threshold.sentence")
        self.sentence.setAccessibleName(self.tr("What will be told"))
        self.form.addLayout(box)
        for field in (self.way, self.value, self.hysteresis, self.severity, self.text):
            self.form.addWidget(field)
        self.form.addWidget(self.sentence)
        self.form.addStretch(1)
        self.remove = QPushButton(self.tr("Remove the threshold"))
        self.remove.setObjectName("threshold.remove")
        self.remove.setAutoDefault(False)
        self.remove.setVisible(not self._is_new)
        self.remove.clicked.connect(self._remove)
        self.foot.insertWidget(0, self.remove)
        self.go.clicked.connect(self._take)

    def _fill(self, threshold: Threshold) -> None:
        self.target.set_key(threshold.unit if threshold.key is None else threshold.key)
        self.way.set_value("above" if threshold.is_upper else "below")
        self.value.set_value(_number_text(threshold.value))
        self.hysteresis.set_value(_number_text(threshold.hysteresis))
        self.severity.set_value(threshold.severity.value)
        self.text.set_value(threshold.text)

    def threshold(self) -> Threshold:
        """What the fields say.

        Raises:
            ParameterError: one is missing or wrong; the sentence already stands under it.
        """
        target: _Target | None = self.target.key()
        if target is None:
            raise ParameterError(self.tr("Choose which curves the threshold is of."), "target")
        unit, key = (target, None) if isinstance(target, str) else (target.unit, target)
        return Threshold(
            unit,
            float(self.value.check()),
            str(self.text.check()).strip(),
            Severity(self.severity.check()),
            self.way.check() == "above",
            float(self.hysteresis.check()),
            key,
        )

    def _every_text(self, unit: str) -> str:
        if not unit:
            return self.tr("Every curve without a unit")
        return self.tr("Every curve in {unit}").format(unit=unit)

    def _check(self) -> None:
        """Say in a sentence what will be told, or what is still needed."""
        target: _Target | None = self.target.key()
        unit = "" if target is None else target if isinstance(target, str) else target.unit
        for field in (self.value, self.hysteresis):
            name = f"{field.spec.title} ({unit})" if unit else field.spec.title
            field.title.setText(name)
            field.editor.setAccessibleName(name)
        needed = []
        if target is None:
            needed.append(self.tr("which curves"))
        if self.value.raw() is None:
            needed.append(self.tr("a value"))
        is_wrong = any(field.fault() for field in (self.value, self.hysteresis, self.text))
        if self.value.raw() is not None and self.value.fault():
            needed.append(self.tr("a value that is a number"))
        self.missing.setText(self.tr("Still needed: {what}.").format(what=", ".join(needed)) if needed else "")
        is_good = target is not None and not is_wrong
        self.go.setEnabled(is_good)
        self.sentence.setText(self._words(self.threshold()) if is_good else "")

    def _words(self, threshold: Threshold) -> str:
        who = self._every_text(threshold.unit) if threshold.key is None else self._texts[threshold.key]
        limit, reach = _number(threshold.value), _number(threshold.hysteresis)
        if threshold.is_upper:
            text = self.tr("{who}: a {severity} as soon as a value is above {limit}, over when one is {back} or less.")
        else:
            text = self.tr("{who}: a {severity} as soon as a value is below {limit}, over when one is {back} or more.")
        return text.format(
            who=who,
            severity=severity_word(threshold.severity),
            limit=f"{limit:f} {threshold.unit}".rstrip(),
            back=f"{limit - reach if threshold.is_upper else limit + reach:f} {threshold.unit}".rstrip(),
        )

    def _take(self) -> None:
        try:
            threshold = self.threshold()
        except ParameterError:
            return  # it stands under its field
        self.taken.emit(threshold)
        self.accept()

    def _remove(self) -> None:
        self.removed.emit()
        self.accept()

    def _colour(self) -> None:
        super()._colour()
        tint(self.sentence, self._theme, Role.DIMMED)


def _number(value: float) -> Decimal:
    """The shortest decimal that is the same float."""
    return Decimal(repr(value)).normalize()


def _number_text(value: float) -> str:
    """A number as people type it."""
    return f"{_number(value):f}"
