"""Thresholds that are crossed: told once, kept in the log, and cleared when the value is back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from PySide6.QtCore import QObject, Signal

from app.errors import WorkbenchError
from app.model.reading import Finding, Severity
from ui.lab_records import said
from ui.numbers import measured_text
from ui.widgets.chart.curve import CurveKey, Threshold, from_us

if TYPE_CHECKING:
    from app.workbench import Workbench

CODE: Final = "THRESHOLD"  # begins the codes of its findings


class Subject(NamedTuple):
    """Whose value it is: the device that the finding is of, and how a person calls the curve."""

    device: str
    name: str


class ThresholdAlarms(QObject):
    """Hears the charts of one workspace. Several of them may show the same curve; it is told of it once."""

    raised = Signal(str, object)  # a sentence, Severity
    cleared = Signal(str, str)  # the sentence that was said, and the one that holds now

    def __init__(
        self, workbench: Workbench, subject: Callable[[CurveKey], Subject], parent: QObject | None, *, is_live: bool
    ) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._subject = subject
        self._is_live = is_live  # otherwise nothing is kept
        self._last_us: dict[tuple[CurveKey, Threshold], int] = {}  # of the crossing that was heard last
        self._beyond: dict[tuple[CurveKey, Threshold], tuple[Subject, str]] = {}  # and what was said of it

    def on_crossed(self, key: CurveKey, threshold: Threshold, t_us: int, value: float, is_beyond: bool) -> None:
        """A chart saw a sample beyond a threshold, or one that is back."""
        pair = key, threshold
        if t_us <= self._last_us.get(pair, -1) or is_beyond == (pair in self._beyond):
            return
        self._last_us[pair] = t_us
        number = f"{measured_text(Decimal(f'{value:.9g}'), key.unit)} {key.unit}".rstrip()
        if is_beyond:
            subject = self._subject(key)
            words = self.tr("{name} is {value}, above the threshold {threshold}.")
            if not threshold.is_upper:
                words = self.tr("{name} is {value}, below the threshold {threshold}.")
            text = words.format(name=subject.name, value=number, threshold=said(threshold))
            self._beyond[pair] = subject, text
            self._keep(pair, subject, t_us, threshold.severity, text, is_over=False)
            self.raised.emit(text, threshold.severity)
        else:
            words = self.tr("{name} is {value} again, within the threshold {threshold}.")
            self._end(pair, t_us, words, number)

    def watch(self, keys: Collection[CurveKey], thresholds: Sequence[Threshold], now_us: int) -> None:
        """These are on the charts now: whatever else was beyond a threshold is not watched any more."""
        for pair in [pair for pair in self._beyond if pair[0] not in keys or pair[1] not in thresholds]:
            self._end(pair, now_us, self.tr("{name} is no longer watched for the threshold {threshold}."), "")
        self._last_us = {pair: at for pair, at in self._last_us.items() if pair[0] in keys and pair[1] in thresholds}

    def forget(self) -> None:
        """A replay went to another moment."""
        self._last_us.clear()
        self._beyond.clear()

    def _end(self, pair: tuple[CurveKey, Threshold], t_us: int, words: str, value: str) -> None:
        subject, before = self._beyond.pop(pair)
        text = words.format(name=subject.name, value=value, threshold=said(pair[1]))
        self._keep(pair, subject, t_us, Severity.INFO, text, is_over=True)
        self.cleared.emit(before, text)

    def _keep(
        self,
        pair: tuple[CurveKey, Threshold],
        subject: Subject,
        t_us: int,
        severity: Severity,
        text: str,
        *,
        is_over: bool,
    ) -> None:
        if not self._is_live or not subject.device:
            return
        key, threshold = pair
        code = f"{CODE}_{key.name}_{'above' if threshold.is_upper else 'below'}_{threshold.value:.9g}"
        finding = Finding(
            at=from_us(t_us), device=subject.device, severity=severity, code=code, text=text, cleared=is_over
        )
        try:
            self._workbench.tell(finding)
        except WorkbenchError:
            return  # the device was removed a moment ago: there is nothing to keep it with
