"""Colouring rules of the log: what matches a filter gets a colour, a mark and the rule's name in its tooltip.

The first rule that matches counts. Only the rows in sight are asked about, in the reader thread, so a rule may use all
of the filter language; until the answer is there a row is plain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from app.errors import FilterError, WorkbenchError
from app.interaction_log.filters import Filter, parse
from app.interaction_log.reader import LogReader
from app.workbench import Workbench
from ui.log_access import LogAccess, Ticket
from ui.models.log_table import Mark, Row, runs, touched
from ui.saved_filters import saved_filters
from ui.theme import QT_TRANSLATE_NOOP, Look, Role, Shape, Theme

SETTING: Final = "colours"  # a list of {"name": ..., "filter": ..., "role": ...}; the first that matches counts
MOST: Final = 20
_CONTEXT: Final = "LogColours"
LOOKS: Final[Mapping[Role, Look]] = {
    look.role: look
    for look in (
        Look(
            QT_TRANSLATE_NOOP("LogColours", "Blue, filled circle"), Role.ACCENT, Shape.FILLED_CIRCLE, context=_CONTEXT
        ),
        Look(
            QT_TRANSLATE_NOOP("LogColours", "Cyan, hollow diamond"), Role.INFO, Shape.HOLLOW_DIAMOND, context=_CONTEXT
        ),
        Look(
            QT_TRANSLATE_NOOP("LogColours", "Violet, half diamond"), Role.VIOLET, Shape.HALF_DIAMOND, context=_CONTEXT
        ),
        Look(
            QT_TRANSLATE_NOOP("LogColours", "Amber, triangle"), Role.WARNING, Shape.WARNING_TRIANGLE, context=_CONTEXT
        ),
        Look(QT_TRANSLATE_NOOP("LogColours", "Red, octagon"), Role.BAD, Shape.OCTAGON, context=_CONTEXT),
        Look(
            QT_TRANSLATE_NOOP("LogColours", "Green, filled diamond"), Role.GOOD, Shape.FILLED_DIAMOND, context=_CONTEXT
        ),
    )
}
_KEPT: Final = 4096  # rows whose colour is remembered
_TRIES: Final = 30  # how often a version that is not committed yet is asked for again


@dataclass(frozen=True, slots=True)
class ColourRule:
    """What matches ``text`` looks like ``LOOKS[role]``."""

    name: str
    text: str
    role: Role


def colour_rules(workbench: Workbench) -> list[ColourRule]:
    """Those of the workspace, in order; what is no rule there is left out."""
    kept = workbench.setting(SETTING)
    found: list[ColourRule] = []
    for entry in kept if isinstance(kept, list | tuple) else ():
        if not isinstance(entry, Mapping):
            continue
        name, text, role = (entry.get(key) for key in ("name", "filter", "role"))
        if all(isinstance(part, str) and part for part in (name, text, role)) and role in LOOKS:
            found.append(ColourRule(str(name), str(text), Role(str(role))))
    return found


def _read_colours(reader: LogReader, wheres: Sequence[Filter], ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Version and number of the first filter that matches (-1: none), by id; for ascending ids. Reader thread."""
    seqs: dict[int, int] = {}
    for first, last in runs(ids):
        items = reader.page(after=first - 1, before=last + 1, limit=last - first + 1)
        seqs.update((item.id, item.seq) for item in items)
    left = [key for key in ids if key in seqs]
    colours = {key: (seqs[key], -1) for key in left}
    for number, where in enumerate(wheres):
        for first, last in runs(left):
            for item in reader.page(limit=last - first + 1, where=where.among(first, last)):
                if item.id in colours and colours[item.id][1] < 0:
                    colours[item.id] = (seqs[item.id], number)
        left = [key for key in left if colours[key][1] < 0]
    return colours


class RowColours(QObject):
    """Knows which rule each row in sight matches."""

    changed = Signal()

    def __init__(self, log: LogAccess, now: Callable[[], datetime], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._log = log
        self._now = now
        self._rules: list[ColourRule] = []
        self._marks: list[Mark] = []
        self._known: OrderedDict[int, tuple[int, int]] = OrderedDict()  # id -> version, number of the rule
        self._ticket: Ticket | None = None
        self._tries = 0
        self._late: set[int] = set()  # changed while the log was asked

    def set_rules(self, rules: Iterable[ColourRule]) -> None:
        """Colour by these from now on; one whose filter cannot be read matches nothing."""
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        self._known.clear()
        self._rules, self._marks = [], []
        for rule in rules:
            if _fault(rule.text, self._now()) == "":
                self._rules.append(rule)
                self._marks.append(Mark(rule.name, LOOKS[rule.role]))
        self.changed.emit()

    def mark_of(self, interaction: int) -> Mark | None:
        """How a row is marked, as far as that is known yet."""
        known = self._known.get(interaction)
        return self._marks[known[1]] if known is not None and known[1] >= 0 else None

    def on_batch(self, changes: Sequence[object]) -> None:
        """What hangs on an interaction changed: a rule may say otherwise now."""
        self._doubt(touched(changes))

    def _doubt(self, ids: Iterable[int]) -> None:
        for interaction in ids:
            if self._ticket is not None:
                self._late.add(interaction)
            if interaction in self._known:
                self._known[interaction] = (-1, self._known[interaction][1])

    def want(self, rows: Iterable[Row]) -> None:
        """Find out about those in sight whose version is not known yet; ``changed`` tells when that is done."""
        if not self._rules or (self._ticket is not None and self._ticket.is_open):
            return
        asked = {row.id: row.seq for row in rows if self._known.get(row.id, (-1, -1))[0] < row.seq}
        if not asked:
            return
        now = self._now()
        wheres = [parse(rule.text, now) for rule in self._rules]
        ids = sorted(asked)
        self._late.clear()
        self._ticket = self._log.ask(
            lambda reader: _read_colours(reader, wheres, ids),
            lambda colours: self._take(asked, colours),
            self._leave,
            owner=self,
            background=True,
        )

    def _take(self, asked: Mapping[int, int], colours: Mapping[int, tuple[int, int]]) -> None:
        self._ticket = None
        is_behind = any(colours.get(key, (-1, -1))[0] < seq for key, seq in asked.items())
        self._tries = self._tries + 1 if is_behind else 0
        for key, seq in asked.items():
            held, number = colours.get(key, (-1, -1))
            self._known[key] = (max(held, seq) if self._tries > _TRIES else held, number)
            self._known.move_to_end(key)
        if self._tries > _TRIES:
            self._tries = 0
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        self._doubt(self._late)
        self.changed.emit()

    def _leave(self, _error: WorkbenchError) -> None:
        """The list itself says when the log cannot be read; the rows stay plain."""


def _fault(text: str, now: datetime) -> str:
    """Why a filter cannot be read; empty where it can."""
    try:
        parse(text, now)
    except FilterError as fault:
        return str(fault)
    return ""


class ColourButton(QToolButton):
    """Adds, orders and removes rules; the last change can be undone."""

    rulesChanged = Signal()
    chosen = Signal(str)  # the filter of a rule
    failed = Signal(str)  # a sentence

    def __init__(
        self, workbench: Workbench, theme: Theme, now: Callable[[], datetime], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._theme = theme
        self._now = now
        self._text = ""
        self._before: tuple[str, list[ColourRule]] | None = None
        self.setText(self.tr("Colours"))
        self.setToolTip(self.tr("Colour and mark the rows that match a filter"))
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.rules_menu = QMenu(self)
        self.rules_menu.setToolTipsVisible(True)
        self.rules_menu.aboutToShow.connect(self.fill_menu)
        self.setMenu(self.rules_menu)

    def set_filter(self, text: str) -> None:
        """Tell which filter is in force."""
        self._text = text

    def fill_menu(self) -> None:
        """Name the rules in their order, and offer what can be done with them."""
        menu = self.rules_menu
        menu.clear()
        rules = colour_rules(self._workbench)
        for place, rule in enumerate(rules):
            part = menu.addMenu(self._theme.icon(LOOKS[rule.role]), rule.name.replace("&", "&&"))
            fault = _fault(rule.text, self._now())
            part.menuAction().setToolTip(f"{rule.text}\n{fault}" if fault else rule.text)
            part.addAction(self.tr("Show what it colours"), partial(self.chosen.emit, rule.text))
            up = part.addAction(self.tr("Apply earlier"), partial(self.move_rule, place, place - 1))
            up.setEnabled(place > 0)
            down = part.addAction(self.tr("Apply later"), partial(self.move_rule, place, place + 1))
            down.setEnabled(place < len(rules) - 1)
            part.addAction(self.tr("Remove"), partial(self.remove_rule, place))
        if not rules:
            menu.addAction(self.tr("No rows are coloured yet")).setEnabled(False)
        menu.addSeparator()
        add = menu.addMenu(self.tr("Colour what the filter shows"))
        add.setEnabled(bool(self._text) and len(rules) < MOST)
        for role, look in LOOKS.items():
            add.addAction(self._theme.icon(look), look.text, partial(self.add_rule, role))
        if self._before is not None:
            menu.addAction(self.tr("Undo: {what}").format(what=self._before[0].replace("&", "&&")), self.undo)

    def add_rule(self, role: Role) -> None:
        """Colour what the filter in force shows; the rule is called like the saved filter, or like its text."""
        name = next((kept.name for kept in saved_filters(self._workbench) if kept.text == self._text), self._text)
        rules = [*colour_rules(self._workbench), ColourRule(name, self._text, role)]
        self._keep(rules, self.tr("colour {name}").format(name=name))

    def move_rule(self, place: int, to: int) -> None:
        """Apply a rule earlier or later than the others."""
        rules = colour_rules(self._workbench)
        rules.insert(to, rules.pop(place))
        self._keep(rules, self.tr("move {name}").format(name=rules[to].name))

    def remove_rule(self, place: int) -> None:
        rules = colour_rules(self._workbench)
        gone = rules.pop(place)
        self._keep(rules, self.tr("remove {name}").format(name=gone.name))

    def undo(self) -> None:
        """Put the rules back as they were before the last change."""
        if self._before is not None and self._save(self._before[1]):
            self._before = None

    def _keep(self, rules: Sequence[ColourRule], what: str) -> None:
        before = colour_rules(self._workbench)
        if self._save(rules):
            self._before = (what, before)

    def _save(self, rules: Sequence[ColourRule]) -> bool:
        kept = [{"name": rule.name, "filter": rule.text, "role": rule.role.value} for rule in rules]
        try:
            self._workbench.save_setting(SETTING, kept)
        except WorkbenchError as error:
            self.failed.emit(self.tr("The colours could not be saved. {why}").format(why=error))
            return False
        self.rulesChanged.emit()
        return True
