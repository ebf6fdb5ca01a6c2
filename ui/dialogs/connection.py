"""Connect a meter: which kind, where it stands in the tree, and the fields its adapter asks for.

The form is built from ``AdapterType.form()`` and, where there is one, ``attribute_form()``; a new system needs no line
here. What is wrong stands under its field. *Test* tries the connection and says in sentences what was found; it is
recommended and not forced. ``WayDialog`` asks the same of another way to a meter that is there already.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, Protocol

import shiboken6
from PySide6.QtCore import QCoreApplication, QObject, QSignalBlocker, Qt, Signal
from PySide6.QtGui import QFont, QPalette
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from app.errors import ParameterError, WorkbenchError
from app.model.command import ParamSpec, ParamType
from app.model.device import Device, NodeKind
from app.ports import AttributeForm, Secrets
from app.workbench import Workbench
from ui.model_words import model_text
from ui.panels.command import ParamField
from ui.routes import GATEWAY, secret_name, suggested_name
from ui.theme import Role, Theme, space
from ui.widgets.result_box import ResultBox

Spawn = Callable[[Coroutine[Any, Any, None]], object]
translate: Final = QCoreApplication.translate

KEYRING: Final = "keyring:"
TEST_S: Final = 60.0  # longer than any adapter's own limits; a driver that hangs must not hold the form for ever
GROUP: Final = ""  # the list's entry without an adapter
_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}"


class SecretKeeper(Secrets, Protocol):
    """The keyring, with this session's memory before it."""

    def set_for_session(self, name: str, value: str) -> None: ...


class ConnectionTest(QObject):
    """*Test* of one form: one at a time, told in its result box. What comes after ``stop`` is dropped."""

    ended = Signal()  # by itself, or stopped

    def __init__(self, workbench: Workbench, spawn: Spawn, box: ResultBox, parent: QWidget) -> None:
        super().__init__(parent)
        self._workbench = workbench
        self._spawn = spawn
        self._box = box
        self._task: asyncio.Task[Any] | None = None
        self._number = 0
        self.is_under_way = False
        self.is_passed = False  # the last one
        box.stopRequested.connect(self.stop)

    def begin(self, adapter: str, settings: Mapping[str, Any]) -> None:
        """Try a connection; ``settings`` with secrets in words."""
        self.is_under_way, self.is_passed = True, False
        self._box.begin(self.tr("Trying the connection..."))
        self._spawn(self._probe(self._number, adapter, settings))

    def stop(self) -> None:
        """End the test that is under way."""
        if not self.is_under_way:
            return
        task = self._task
        self._end(self._number, self.tr("The test was stopped."), None)
        if task is not None:
            task.cancel()

    def forget(self) -> None:
        """The last result speaks of other values."""
        self.stop()
        self.is_passed = False
        self._box.hide()

    async def _probe(self, number: int, adapter: str, settings: Mapping[str, Any]) -> None:
        if not shiboken6.isValid(self) or number != self._number:
            return  # stopped before it began
        self._task = asyncio.current_task()
        try:
            async with asyncio.timeout(TEST_S):
                sentences = await self._workbench.probe(adapter, settings)
        except TimeoutError:
            text = self.tr("There was no result in {n} s. Check the address and the cable, then test again.")
            self._end(number, text.format(n=round(TEST_S)), False)
        except WorkbenchError as fault:
            self._end(number, str(fault), False)
        else:
            self._end(number, "\n".join(sentences) or self.tr("The connection works."), True)

    def _end(self, number: int, text: str, is_good: bool | None) -> None:
        if not shiboken6.isValid(self) or number != self._number:
            return  # closed meanwhile, or stopped and started again
        self._number += 1
        self.is_under_way = False
        self.is_passed = is_good is True
        self._task = None
        self._box.say(text, is_good)
        self.ended.emit()


async def put_away(
    keeper: SecretKeeper,
    secrets: Mapping[str, str],
    form: Iterable[ParamSpec],
    kept_as: Callable[[str], str],
    *,
    only_session: bool,
) -> None:
    """Put secrets away, off the GUI thread: a keyring may ask the person to unlock it.

    Args:
        secrets: words by the name of their field in ``form``.
        kept_as: what a field's words are called in the keyring.
    Raises:
        WorkbenchError: the keyring takes them not.
    """
    turned = {spec.name: spec.kept_as for spec in form if spec.kept_as is not None}
    for name, words in secrets.items():
        if (turn := turned.get(name)) is not None:
            words = await asyncio.to_thread(turn, words)
        if only_session:
            keeper.set_for_session(kept_as(name), words)
        else:
            await asyncio.to_thread(keeper.set, kept_as(name), words)


def session_only_box(name: str) -> QCheckBox:
    """The choice where secrets are kept. ``name`` of the object."""
    box = QCheckBox(translate("ConnectionDialog", "Keep passwords and keys for this session only"))
    box.setObjectName(name)
    text = translate(
        "ConnectionDialog",
        "Otherwise they go to the keyring of this computer. They never stand in the workspace or the log.",
    )
    box.setToolTip(text)
    return box


def basic_specs(places: Iterable[Device]) -> dict[str, ParamSpec]:
    """What every device is asked for, by name: name, id, parent, serial. ``places``: what it may stand in."""
    short = translate("ConnectionDialog", "Short and without blanks; used on the command line.")
    inside = translate("ConnectionDialog", "Stands in")
    choices = tuple((one.id, one.name) for one in places)
    serial = translate("ConnectionDialog", "Serial number")
    specs = (
        ParamSpec(name="name", title=translate("ConnectionDialog", "Name")),
        ParamSpec(name="id", title=translate("ConnectionDialog", "Id"), pattern=_ID, help=short),
        ParamSpec(name="parent", title=inside, type=ParamType.CHOICE, required=False, choices=choices),
        ParamSpec(name="serial", title=serial, required=False, default=""),
    )
    return {spec.name: spec for spec in specs}


def place_of(workbench: Workbench, hint: str) -> str:
    """Id of what a new device is offered to stand in: the chosen device ``hint``, or what that stands in; ""."""
    found = next((one for one in workbench.devices() if one.id == hint), None)
    if found is None:
        return ""
    return found.id if found.kind is not NodeKind.METER else found.parent


def taken_text(workbench: Workbench, wanted: str) -> str:
    """Whose id ``wanted`` is already; empty where it is free."""
    other = next((one for one in workbench.devices() if one.id == wanted), None)
    if other is None:
        return ""
    text = translate("ConnectionDialog", "{id} is already the id of {name}.")
    return text.format(id=wanted, name=other.name)


class ConnectionDialog(QDialog):
    """Adds a device, or edits one. ``saved`` carries it after the core has taken it.

    Args:
        offered: values that the fields of a new device begin with, where nothing else says one.
    """

    saved = Signal(Device)
    _unique = "id"  # name of the field that nothing else may be called
    _may_group = True  # a site or grid may be made

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        spawn: Spawn,
        *,
        secrets: SecretKeeper | None = None,
        device: Device | None = None,
        parent_hint: str = "",
        offered: Mapping[str, Any] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("connection")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowModality(Qt.WindowModality.WindowModal)
        self._workbench = workbench
        self._theme = theme
        self._spawn = spawn
        self._secrets = secrets
        self._device = device
        self._offered = offered or {}
        self._adapter = device.adapter if device is not None else GROUP
        self._fields: list[ParamField] = []  # of the connection
        self._own: list[ParamField] = []  # of the attributes that are of this device alone
        self._given: dict[ParamField, Any] = {}  # what a field was offered with
        self._typed: dict[tuple[str, bool, str], Any] = {}  # adapter, whether an attribute, name -> what was typed
        self._id_is_typed = device is not None
        self._is_saving = False
        self.setWindowTitle(self._title())
        self._build(parent_hint)
        theme.changed.connect(self._colour)
        self._colour()
        self._choose_first()
        self.resize(self.fontMetrics().averageCharWidth() * 140, self.fontMetrics().height() * 46)
        next(iter(self._basics.values())).editor.setFocus(Qt.FocusReason.OtherFocusReason)

    # ---------------------------------------------------------------- construction

    def _title(self) -> str:
        device = self._device
        if device is None:
            return self.tr("Connect a meter")
        if device.ways:
            return self.tr("Connection of {name}: {way}").format(name=device.name, way=device.route)
        return self.tr("Connection of {name}").format(name=device.name)

    def _build(self, parent_hint: str) -> None:
        self.kinds = QListWidget()
        self.kinds.setObjectName("connection.kinds")
        self.kinds.setAccessibleName(self.tr("How the device is reached"))
        self.kinds.setWordWrap(True)
        for key, kind in self._workbench.adapter_types().items():
            item = QListWidgetItem(model_text(kind.title))
            item.setData(Qt.ItemDataRole.UserRole, key)
            item.setToolTip(model_text(kind.summary))
            self.kinds.addItem(item)
        if self._may_group:
            group = QListWidgetItem(self.tr("Site or grid"))
            group.setData(Qt.ItemDataRole.UserRole, GROUP)
            group.setToolTip(self.tr("Only groups others; it has no connection."))
            self.kinds.addItem(group)
        self.kinds.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Expanding)
        self.kinds.setFixedWidth(self.fontMetrics().averageCharWidth() * 34)
        self.kinds.currentItemChanged.connect(self._on_kind)
        left = QVBoxLayout()
        left.setSpacing(space(1))
        left_title = QLabel(self.tr("&How is it reached?"))
        left_title.setBuddy(self.kinds)
        left.addWidget(left_title)
        left.addWidget(self.kinds, 1)

        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.setTextFormat(Qt.TextFormat.PlainText)
        self._basics = self._make_basics(parent_hint)
        grid = QGridLayout()
        grid.setHorizontalSpacing(space(4))
        grid.setVerticalSpacing(space(2))
        for place, one in enumerate(self._basics.values()):
            grid.addWidget(one, place // 2, place % 2, Qt.AlignmentFlag.AlignTop)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        self._form = QVBoxLayout()
        self._form.setSpacing(space(3))
        self.session_only = session_only_box("connection.session_only")
        form = QVBoxLayout()
        form.setContentsMargins(space(2), 0, space(3), 0)
        form.setSpacing(space(3))
        form.addWidget(self.summary)
        form.addLayout(grid)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        line.setFrameShadow(QFrame.Shadow.Sunken)
        form.addWidget(line)
        form.addLayout(self._form)
        form.addWidget(self.session_only)
        form.addStretch(1)
        page = QWidget()
        page.setLayout(form)
        self.form_area = QScrollArea()
        self.form_area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the fields in it are what is reached
        self.form_area.setWidgetResizable(True)
        self.form_area.setFrameShape(QFrame.Shape.NoFrame)
        self.form_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.form_area.setWidget(page)

        upper = QHBoxLayout()
        upper.setSpacing(space(4))
        upper.addLayout(left)
        upper.addWidget(self.form_area, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(space(4), space(4), space(4), space(4))
        outer.setSpacing(space(3))
        outer.addLayout(upper, 1)
        self.result_box = ResultBox(self._theme)
        self.result_box.setObjectName("connection.result")
        self._probing = ConnectionTest(self._workbench, self._spawn, self.result_box, self)
        self._probing.ended.connect(self._check)
        outer.addWidget(self.result_box)
        outer.addLayout(self._make_buttons())

    def _make_basics(self, parent_hint: str) -> dict[str, ParamField]:
        device = self._device
        groups = self._possible_parents()
        inside = device.parent if device is not None else place_of(self._workbench, parent_hint)
        kind = ParamSpec(name="kind", title=self.tr("Kind"), type=ParamType.CHOICE, choices=self._kind_choices())
        known = basic_specs(groups)
        specs = (known["name"], known["id"], kind, known["parent"], known["serial"])
        fields = {spec.name: ParamField(spec, self._theme) for spec in specs}
        fields["name"].edited.connect(self._on_name)
        fields["id"].edited.connect(self._on_id)
        fields["kind"].set_value(device.kind.value if device is not None else NodeKind.METER.value)
        fields["parent"].set_value(inside)
        for field in fields.values():
            field.edited.connect(self._check)
        for name in ("kind", "parent"):
            fields[name].edited.connect(self._fill_form)
        if device is not None:
            fields["name"].set_value(device.name)
            fields["id"].set_value(device.id)
            fields["id"].editor.setEnabled(False)
            fields["id"].editor.setToolTip(self.tr("The log refers to this id, so it stays."))
            fields["serial"].set_value(device.serial)
        return fields

    def _kind_choices(self) -> tuple[tuple[str, str], ...]:
        return (
            (NodeKind.METER.value, self.tr("Meter")),
            (NodeKind.GATEWAY.value, self.tr("Gateway")),
            (NodeKind.GRID.value, self.tr("Grid")),
            (NodeKind.SITE.value, self.tr("Site")),
        )

    def _make_buttons(self) -> QHBoxLayout:
        self.missing = QLabel()
        self.missing.setObjectName("connection.missing")
        self.missing.setWordWrap(True)
        self.test = QPushButton(self.tr("&Test the connection"))
        self.test.setObjectName("connection.test")
        self.test.setAutoDefault(False)
        self.test.clicked.connect(self._start_test)
        self.leave = QPushButton(self.tr("Leave without saving"))
        self.leave.setObjectName("connection.leave")
        self.leave.setAutoDefault(False)
        self.leave.clicked.connect(self.reject)
        self.save = QPushButton()
        self.save.setObjectName("connection.save")
        self.save.setDefault(True)
        self.save.clicked.connect(self._save)
        row = QHBoxLayout()
        row.setSpacing(space(2))
        row.addWidget(self.test)
        row.addWidget(self.missing, 1)
        row.addWidget(self.leave)
        row.addWidget(self.save)
        return row

    # ---------------------------------------------------------------- which adapter

    def _choose_first(self) -> None:
        wanted = self._adapter if self._device is not None else None
        for row in range(self.kinds.count()):
            if wanted is None or self.kinds.item(row).data(Qt.ItemDataRole.UserRole) == wanted:
                self.kinds.setCurrentRow(row)
                return

    def choose_adapter(self, key: str) -> None:
        """Show the form of one adapter."""
        for row in range(self.kinds.count()):
            if self.kinds.item(row).data(Qt.ItemDataRole.UserRole) == key:
                self.kinds.setCurrentRow(row)

    def begin_with(self, adapter: str, *, name: str = "", serial: str = "") -> None:
        """Begin a new device with what is known of it."""
        self.choose_adapter(adapter)
        self._basics["name"].set_value(name)
        self._basics["serial"].set_value(serial)
        self._on_name()
        self._check()

    def field(self, name: str) -> ParamField:
        """One field of the adapter's forms."""
        return next(field for field in self._all_fields() if field.spec.name == name)

    def basic(self, name: str) -> ParamField:
        """One of the fields every device has."""
        return self._basics[name]

    def _on_kind(self, item: QListWidgetItem | None, _before: QListWidgetItem | None) -> None:
        if item is None:
            return
        self._probing.stop()
        self._remember_typed()
        self._adapter = str(item.data(Qt.ItemDataRole.UserRole))
        kind = self._workbench.adapter_types().get(self._adapter)
        nothing = self.tr("Only groups others; it has no connection.")
        self.summary.setText(model_text(kind.summary) if kind is not None else nothing)
        self._offer_kinds()
        self._fill_form()
        self.test.setVisible(bool(self._adapter))
        self.result_box.hide()

    def _remember_typed(self) -> None:
        for field in self._all_fields():
            if (raw := field.raw()) != self._given[field]:
                self._typed[self._adapter, field in self._own, field.spec.name] = raw

    def _fill_form(self) -> None:
        """Ask for what the adapter wants to know of such a device in such a place."""
        self._remember_typed()
        while (taken := self._form.takeAt(0)) is not None:
            old = taken.widget()
            if old is not None:
                old.hide()
                old.deleteLater()
        self._given = {}
        self._own = [self._make_field(spec, is_own=True) for spec in self._own_specs()]
        self._fields = [self._make_field(spec) for spec in self._specs()]
        before: QWidget = list(self._basics.values())[-1].editor
        for title, fields in ((self.tr("Of this meter alone"), self._own), (self.tr("Connection"), self._fields)):
            if self._own:
                self._form.addWidget(self._heading(title))
            for field in fields:
                self._form.addWidget(field)
                QWidget.setTabOrder(before, field.editor)
                before = field.editor
        self.session_only.setVisible(
            self._secrets is not None and any(f.spec.type is ParamType.SECRET for f in self._fields)
        )
        self._show_fields()
        self._check()

    def _heading(self, text: str) -> QLabel:
        label = QLabel(text)
        font = QFont(label.font())
        font.setBold(True)
        label.setFont(font)
        return label

    def _all_fields(self) -> list[ParamField]:
        return [*self._own, *self._fields]

    def _offer_kinds(self) -> None:
        """A group is a site or a grid; what is reached is a meter or a gateway."""
        kind = self._basics["kind"]
        allowed = ("meter", "gateway") if self._adapter else ("site", "grid")
        if kind.raw() not in allowed:
            with QSignalBlocker(kind):
                kind.set_value(allowed[0])
        self._basics["serial"].setVisible(bool(self._adapter))

    def _specs(self) -> Sequence[ParamSpec]:
        kind = self._workbench.adapter_types().get(self._adapter)
        return kind.form() if kind is not None else ()

    def _own_specs(self) -> Sequence[ParamSpec]:
        kind = self._workbench.adapter_types().get(self._adapter)
        return kind.attribute_form(self._node_kind()) if isinstance(kind, AttributeForm) else ()

    def _node_kind(self) -> NodeKind:
        return NodeKind(self._basics["kind"].raw() or NodeKind.METER)

    def _make_field(self, spec: ParamSpec, *, is_own: bool = False) -> ParamField:
        stored = self._stored_attribute(spec) if is_own else self._stored(spec.name)
        is_kept = spec.type is ParamType.SECRET and isinstance(stored, str) and stored.startswith(KEYRING)
        if is_kept:
            kept = self.tr("One is kept already; type here to replace it.")
            spec = replace(spec, required=False, help=f"{kept} {model_text(spec.help)}".strip())
        field = ParamField(spec, self._theme)
        if stored is not None and not is_kept:
            field.set_value(stored)
        self._given[field] = field.raw()
        key = (self._adapter, is_own, spec.name)
        if key in self._typed:
            field.set_value(self._typed[key])
        field.edited.connect(self._on_field)
        return field

    def _stored(self, name: str) -> Any:
        """A setting as the device has it; one that is not connected so yet is offered what it will stand in has."""
        device = self._device
        if device is None or device.adapter != self._adapter:
            device = self._above()
        known = device.settings.get(name) if device is not None and device.adapter == self._adapter else None
        return self._offered.get(name) if known is None and self._device is None else known

    def _stored_attribute(self, spec: ParamSpec) -> Any:
        stored = self._device.attributes.get(spec.name) if self._device is not None else None
        try:
            return spec.parse(stored) if stored is not None else None
        except ParameterError:
            return stored  # it stands in the field, and what is wrong with it under it

    def _above(self) -> Device | None:
        """What the device will stand in."""
        chosen = self._basics["parent"].raw()
        return next((one for one in self._workbench.devices() if one.id == chosen), None)

    # ---------------------------------------------------------------- what stands in the form

    def _on_name(self) -> None:
        if not self._id_is_typed:
            self._basics["id"].set_value(self._free_id(str(self._basics["name"].raw() or "")))

    def _on_id(self) -> None:
        self._id_is_typed = bool(self._basics["id"].raw())

    def _on_field(self) -> None:
        if not self._probing.is_under_way:
            self.result_box.hide()  # it spoke of other values
        self._show_fields()
        self._check()

    def _show_fields(self) -> None:
        """Fields that mean nothing beside what others say are out of sight; what stands in them is kept."""
        said = {field.spec.name: field.raw() for field in self._all_fields()}
        for field in self._all_fields():
            wanted = field.spec.only_for
            field.setVisible(all(said.get(name) in allowed for name, allowed in wanted.items()))

    def _shown_fields(self) -> list[ParamField]:
        return [field for field in self._all_fields() if not field.isHidden()]

    def _free_id(self, name: str) -> str:
        base = re.sub(r"[^a-z0-9._-]+", "-", name.casefold()).strip("-._")[:48]
        taken = {one.id for one in self._workbench.devices()}
        number, found = 2, base
        while found in taken:
            found, number = f"{base}-{number}", number + 1
        return found

    def _check(self) -> None:
        """Enable *Save* once everything needed is there; say what is still missing."""
        wrong = [field.spec.title for field in (*self._shown_basics(), *self._shown_fields()) if not _is_fine(field)]
        clashing, clash = self._basics[self._unique], self._clash()
        clashing.show_error(clash)
        if clash and clashing.spec.title not in wrong:
            wrong.append(clashing.spec.title)
        self.save.setEnabled(not wrong and not self._is_saving)
        asked = [field for field in self._fields if not field.isHidden()]
        self.test.setEnabled(not self._probing.is_under_way and all(_is_fine(field) for field in asked))
        text = self.tr("Still needed: {fields}.").format(fields=", ".join(wrong)) if wrong else ""
        self.missing.setText(text)
        self.save.setText(self._save_text())

    def _save_text(self) -> str:
        name = str(self._basics["name"].raw() or "")
        return self.tr("Save {name}").format(name=short_name(name)) if name else self.tr("Save the device")

    def _shown_basics(self) -> list[ParamField]:
        return [f for key, f in self._basics.items() if key != "serial" or self._adapter]

    def _clash(self) -> str:
        """Why what must be unique is not; empty where it is."""
        wanted = self._basics["id"].raw()
        return taken_text(self._workbench, str(wanted)) if self._device is None and wanted else ""

    def _settings(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Checked values as JSON keeps them, and the secrets among them.

        Raises:
            ParameterError: a field is wrong; the sentence stands under it.
        """
        values: dict[str, Any] = {}
        secrets: dict[str, str] = {}
        first: ParameterError | None = None
        for field in self._fields:
            try:
                value = field.check()
            except ParameterError as fault:
                if not field.isHidden():
                    first = first or fault
                continue
            name = field.spec.name
            if field.spec.type is ParamType.SECRET:
                stored = self._stored(name)
                if value:
                    secrets[name] = str(value)
                elif isinstance(stored, str) and stored.startswith(KEYRING):
                    values[name] = stored
            elif value is not None:
                values[name] = for_json(value)
        if first is not None:
            raise first
        return values, secrets

    def show_errors(self) -> bool:
        """Check every field and show what is wrong; True when all is well."""
        fine = True
        for field in (*self._shown_basics(), *self._shown_fields()):
            try:
                field.check()
            except ParameterError:
                fine = False
        self._check()
        return fine

    # ---------------------------------------------------------------- testing

    def _start_test(self) -> None:
        try:
            values, secrets = self._settings()
        except ParameterError:
            return  # it stands under its field
        self.test.setEnabled(False)
        self._probing.begin(self._adapter, {**values, **secrets})

    # ---------------------------------------------------------------- saving

    def _save(self) -> None:
        if not self.show_errors() or self._clash():
            return
        values, secrets = self._settings()
        device = self._made(values)
        if secrets and self._secrets is not None:
            self._is_saving = True
            self._check()
            self._spawn(self._keep(self._secrets, device, secrets))
            return
        self._hand_over(device, secrets)

    def _made(self, values: Mapping[str, Any]) -> Device:
        basics = {key: field.check() for key, field in self._basics.items() if key != "serial"}
        serial = str(self._basics["serial"].check() or "") if self._adapter else ""
        before = self._device or Device(id=str(basics["id"]), name="")
        return replace(
            before,
            name=str(basics["name"]).strip(),
            kind=NodeKind(basics["kind"]),
            parent=str(basics["parent"] or ""),
            serial=serial.strip(),
            adapter=self._adapter,
            settings=dict(values),
            attributes=self._attributes(before),
        )

    def _attributes(self, before: Device) -> dict[str, Any]:
        """Those of the device, with what stands in the form; a field that is left empty leaves none."""
        found = dict(before.attributes)
        for field in self._own:
            if field.isHidden():
                continue
            value = field.check()
            name = field.spec.name
            if value is None or value == "":
                found.pop(name, None)
            elif name in found or value != field.spec.default:  # what goes without saying is not entered
                found[name] = for_json(value)
        return found

    def _kept_as(self, device: Device, name: str) -> str:
        """What a secret is called in the keyring: as before where it is this device's own."""
        before = self._device.settings.get(name) if self._device is not None else None
        own = f"{KEYRING}{device.id}."
        if isinstance(before, str) and before.startswith(own) and device.adapter == self._adapter:
            return before.removeprefix(KEYRING)
        return secret_name(device.id, device.route, name)

    async def _keep(self, keeper: SecretKeeper, device: Device, secrets: Mapping[str, str]) -> None:
        form = [field.spec for field in self._fields]
        only_session = self.session_only.isChecked()
        fault = ""
        try:
            await put_away(keeper, secrets, form, partial(self._kept_as, device), only_session=only_session)
        except WorkbenchError as refused:
            fault = str(refused)
        if not shiboken6.isValid(self):
            return
        self._is_saving = False
        self._check()
        if fault:
            self.result_box.say(fault, False)
            return
        self._hand_over(device, secrets)

    def _hand_over(self, device: Device, secrets: Mapping[str, str]) -> None:
        references = {name: f"{KEYRING}{self._kept_as(device, name)}" for name in secrets}
        complete = self._whole(replace(device, settings={**device.settings, **references}))
        try:
            self._workbench.save_device(complete)
        except WorkbenchError as fault:
            self.result_box.say(str(fault), False)
            return
        self.saved.emit(complete)
        self.accept()

    def _whole(self, made: Device) -> Device:
        """The device as the core takes it, from what the form says."""
        return made

    def done(self, result: int) -> None:
        self._probing.stop()
        super().done(result)

    # ---------------------------------------------------------------- small things

    def _possible_parents(self) -> list[Device]:
        devices = self._workbench.devices()
        below = {self._device.id} if self._device is not None else set()
        size = 0
        while len(below) != size:
            size = len(below)
            below |= {one.id for one in devices if one.parent in below}
        return [one for one in devices if one.kind is not NodeKind.METER and one.id not in below]

    def _colour(self) -> None:
        for label, role in ((self.summary, Role.DIMMED), (self.missing, Role.DIMMED)):
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, self._theme.colour(role))
            label.setPalette(palette)


class WayDialog(ConnectionDialog):
    """Asks for another way to a meter. ``saved`` carries the meter, still reached as before, with one way more."""

    _unique = "way"
    _may_group = False

    def __init__(
        self,
        workbench: Workbench,
        theme: Theme,
        spawn: Spawn,
        device: Device,
        *,
        secrets: SecretKeeper | None = None,
        parent: QWidget | None = None,
    ) -> None:
        self._meter = device
        self._way_is_typed = False
        self._parent_is_chosen = False
        super().__init__(workbench, theme, spawn, secrets=secrets, device=device, parent=parent)

    def _title(self) -> str:
        return self.tr("Another way to {name}").format(name=self._meter.name)

    def _make_basics(self, parent_hint: str) -> dict[str, ParamField]:
        meter = self._meter
        specs = [
            ParamSpec(
                name="way",
                title=self.tr("Name of the new way"),
                help=self.tr("As it is called in menus, for example: through the head-end."),
            ),
            ParamSpec(
                name="parent",
                title=self.tr("On the new way it stands in"),
                type=ParamType.CHOICE,
                required=False,
                choices=tuple((one.id, one.name) for one in self._possible_parents()),
            ),
        ]
        if not meter.ways:
            specs.append(
                ParamSpec(
                    name="present",
                    title=self.tr("Name of the way in use"),
                    help=self.tr("It had no name, because it was the only one."),
                )
            )
        fields = {spec.name: ParamField(spec, self._theme) for spec in specs}
        fields["parent"].set_value(meter.parent)
        if "present" in fields:
            above = next((one for one in self._workbench.devices() if one.id == meter.parent), None)
            fields["present"].set_value(suggested_name(meter.adapter, above, self._workbench.adapter_types()))
            fields["present"].edited.connect(self._suggest)
        fields["way"].edited.connect(self._on_way)
        fields["parent"].edited.connect(self._on_parent)
        for field in fields.values():
            field.edited.connect(self._check)
        return fields

    def _choose_first(self) -> None:
        """What gateways of the tree speak and the meter does not yet, else the first other adapter."""
        keys = [str(self.kinds.item(row).data(Qt.ItemDataRole.UserRole)) for row in range(self.kinds.count())]
        spoken = [one.adapter for one in self._gateways()]
        others = [key for key in keys if key != self._meter.adapter] or keys
        self.kinds.setCurrentRow(keys.index(next((key for key in others if key in spoken), others[0])))

    def _gateways(self) -> list[Device]:
        return [one for one in self._possible_parents() if one.kind is NodeKind.GATEWAY]

    def _offer_kinds(self) -> None:
        """Propose the one gateway that speaks so, unless a place was chosen."""
        fitting = [one.id for one in self._gateways() if one.adapter == self._adapter]
        if not self._parent_is_chosen:
            with QSignalBlocker(self._basics["parent"]):
                self._basics["parent"].set_value(fitting[0] if len(fitting) == 1 else self._group_of_meter())
        self._suggest()

    def _group_of_meter(self) -> str | None:
        """The nearest place of the meter that is no gateway."""
        nodes = {one.id: one for one in self._workbench.devices()}
        at = nodes.get(self._meter.parent)
        while at is not None and at.kind is NodeKind.GATEWAY:
            at = nodes.get(at.parent)
        return at.id if at is not None else None

    def _node_kind(self) -> NodeKind:
        return self._meter.kind

    def _on_parent(self) -> None:
        self._parent_is_chosen = True
        self._suggest()
        self._fill_form()

    def _on_way(self) -> None:
        self._way_is_typed = bool(self._basics["way"].raw())

    def _suggest(self) -> None:
        if not self._way_is_typed:
            name = suggested_name(self._adapter, self._above(), self._workbench.adapter_types(), self._taken())
            self._basics["way"].set_value(name)

    def _taken(self) -> tuple[str, ...]:
        return self._meter.ways or (str(self._basics["present"].raw() or ""),)

    def _clash(self) -> str:
        wanted = str(self._basics["way"].raw() or "").strip()
        if wanted.casefold() not in [name.strip().casefold() for name in self._taken()]:
            return ""
        return self.tr("{name} has a way of that name already.").format(name=self._meter.name)

    def _save_text(self) -> str:
        name = str(self._basics["way"].raw() or "")
        return self.tr("Add the way {name}").format(name=short_name(name)) if name else self.tr("Add the way")

    def _made(self, values: Mapping[str, Any]) -> Device:
        """The meter as it is reached by the new way alone."""
        return replace(
            self._meter,
            parent=str(self._basics["parent"].check() or ""),
            adapter=self._adapter,
            settings=dict(values),
            attributes={name: value for name, value in self._attributes(self._meter).items() if name != GATEWAY},
            route=str(self._basics["way"].check()).strip(),
            routes=(),
        )

    def _kept_as(self, device: Device, name: str) -> str:
        return secret_name(device.id, device.route, name)

    def _whole(self, made: Device) -> Device:
        meter = self._meter
        present = meter.route or str(self._basics["present"].check()).strip()
        return meter.with_way(present, meter.way_of(made, made.route))


def _is_fine(field: ParamField) -> bool:
    """Whether a field would pass, without saying anything yet."""
    raw = field.raw()
    if raw is None and field.spec.type is ParamType.TEXT:
        raw = field.spec.default if field.spec.default is not None else ""
    try:
        field.spec.parse(raw)
    except ParameterError:
        return False
    return True


def for_json(value: Any) -> Any:
    """A checked value as the settings of a device keep it."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def short_name(name: str) -> str:
    """As much of a name as a button takes."""
    return name if len(name) <= 24 else f"{name[:23]}…"
