"""How grids and gateways stand, when a meter was heard, and open issues, in words.

What the tree, the window and the panels say of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from PySide6.QtCore import QCoreApplication

from app.errors import WorkbenchError
from app.model.device import Device, NodeKind
from app.model.flow import Issue, IssueKind
from app.model.reading import DeviceState
from app.pipeline.field_twin import HPS_ON, ONLINE, SWITCHED_OFF
from app.pipeline.gatekeeper import GatewayView
from app.ports import Limits, Reach
from app.workbench import Workbench
from ui.theme import HEARD_LOOKS, QT_TRANSLATE_NOOP, FieldState, Heard

translate: Final = QCoreApplication.translate

FACTS: Final[Mapping[NodeKind, str]] = MappingProxyType({NodeKind.GRID: HPS_ON, NodeKind.GATEWAY: ONLINE})

ISSUE_WORDS: Final[Mapping[IssueKind, str]] = MappingProxyType(
    {
        IssueKind.NO_COMMUNICATION: QT_TRANSLATE_NOOP("Issue", "no communication"),
        IssueKind.NO_CREDIT: QT_TRANSLATE_NOOP("Issue", "no credit"),
        IssueKind.UNEXPECTED_POWER_LIMIT: QT_TRANSLATE_NOOP("Issue", "unexpected power limit"),
        IssueKind.UNEXPECTED_METER_STATUS: QT_TRANSLATE_NOOP("Issue", "unexpected meter status"),
    }
)


def field_state(device: Device, state: DeviceState, now: datetime) -> FieldState | None:
    """How a grid or a gateway stands at ``now``; None for any other device.

    What a gateway reported more than ten minutes ago is stale, as it is for the gatekeeper (D-06). A grid's state, and
    a person's word that a gateway is off, stand until the next word.
    """
    fact = FACTS.get(device.kind)
    if fact is None:
        return None
    value = state.facts.get(fact, device.attributes.get(fact) if device.kind is NodeKind.GRID else None)
    known = value if isinstance(value, bool) else None
    if device.kind is NodeKind.GRID:
        return {True: FieldState.LIT, False: FieldState.DARK, None: FieldState.UNKNOWN}[known]
    view = GatewayView(
        id=device.id, is_online=known, updated_at=state.facts_at.get(fact), is_switched_off=is_switched_off(state)
    )
    is_up = view.state(now)
    if is_up is None:
        return FieldState.UNKNOWN if known is None else FieldState.STALE
    return FieldState.ONLINE if is_up else FieldState.OFFLINE


def field_limits(workbench: Workbench, device: Device) -> Limits | None:
    """The limits of a meter that is reached through a gateway; None for a direct one, and for every other device."""
    kind = workbench.adapter_types().get(device.adapter)
    if kind is None or device.kind is not NodeKind.METER:
        return None
    try:
        limits = kind.limits(device.settings)
    except WorkbenchError:
        return None  # its settings are wrong; its link says so
    return limits if limits.reach is not Reach.DIRECT else None


def heard(state: DeviceState, limits: Limits, now: datetime) -> Heard:
    """How long a meter behind a gateway has been silent, as it is for the gatekeeper (command-flow L6)."""
    if state.last_contact is None:
        return Heard.NEVER
    silence = (now - state.last_contact).total_seconds()
    most = limits.unreachable_after_s
    return Heard.SILENT if most is not None and silence > most else Heard.HEARD


def heard_text(which: Heard, state: DeviceState, now: datetime, *, is_brief: bool = False) -> str:
    """``heard 3 min ago`` (in brief ``3 min ago``), ``silent 26 h``, ``never heard``."""
    if state.last_contact is None:
        return HEARD_LOOKS[which].text
    seconds = max(0.0, (now - state.last_contact).total_seconds())
    if which is Heard.SILENT:
        return translate("Heard", "silent {age}").format(age=age_text(seconds))
    if seconds < 60:
        return translate("Heard", "just now") if is_brief else translate("Heard", "heard just now")
    words = translate("Heard", "{age} ago") if is_brief else translate("Heard", "heard {age} ago")
    return words.format(age=age_text(seconds))


def age_text(seconds: float) -> str:
    """How old something is, in the largest sensible unit."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} d"


def is_switched_off(gateway: DeviceState) -> bool:
    """Whether a person said that a gateway is off; that holds until a person says otherwise."""
    return bool(gateway.facts.get(SWITCHED_OFF))


def is_managed(grid: Device) -> bool:
    """Whether a dark grid holds commands back: only where its generation is managed (3.7)."""
    return bool(grid.attributes.get("is_generation_managed", False))


def said_text(device: Device, is_up: bool) -> str:
    """What follows from what a person has just said of a grid or a gateway."""
    is_gateway = device.kind is NodeKind.GATEWAY
    texts = {
        (False, False): translate(
            "FieldState", "{name} is dark: commands to its meters wait until it is lit for 5 minutes."
        ),
        (False, True): translate("FieldState", "{name} is lit. What waits for it goes on after 5 stable minutes."),
        (True, False): translate(
            "FieldState", "{name} is off: commands that need it wait until somebody says that it is online."
        ),
        (True, True): translate("FieldState", "{name} is online. What waits for it goes on after 5 stable minutes."),
    }
    return texts[is_gateway, is_up].format(name=device.name)


def issue_text(issue: Issue) -> str:
    """One open issue as a line: what, and what was seen."""
    word = translate("Issue", ISSUE_WORDS[issue.kind])
    return f"{word}: {issue.text}" if issue.text else word


def transfer_text(state: DeviceState) -> str:
    """How far the device has fetched the firmware that is served to it; "" while it fetches none."""
    transfer = state.facts.get("firmware_transfer")
    sent, size = (transfer.get("sent"), transfer.get("size")) if isinstance(transfer, Mapping) else (None, None)
    if not isinstance(sent, int) or not isinstance(size, int) or size <= 0:
        return ""
    text = translate("FieldState", "Firmware: {share} % of {size} bytes fetched.")
    return text.format(share=100 * sent // size, size=size)
