"""Orders: money to energy, what the customer may be told, and when (command-flow 6.6, D-40, D-41). Pure."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from app.errors import ParameterError
from app.model.command import ParamSpec, ParamType
from app.model.device import Device
from app.model.evolve import evolve
from app.model.flow import DELIVERY_ENDED, DeliveryStatus, Notification, Order
from app.model.interaction import Interaction
from app.model.status import SETTLED, Status
from app.pipeline.meter_state import FS, HPS, METER_TYPE, TARIFF, TARIFF_ESSENTIAL, TARIFF_FULL_SERVICE

STEPS_PER_KWH: Final = 10
MAX_MONEY: Final = Decimal("1e12")
MIN_MONEY: Final = Decimal("1e-6")


def kwh_for(amount: Decimal, tariff: Decimal) -> Decimal:
    """Energy in kWh for ``amount`` at ``tariff`` per kWh, rounded up to 0.1 kWh in the customer's favour.

    The division is exact: 1000 at 270 is 3.8, and 27 at 270 is 0.1 and not 0.2.

    Raises:
        ParameterError: one of the two is not a number above zero, or out of all proportion.
    """
    for name, value in (("amount", amount), ("tariff", tariff)):
        if not value.is_finite() or value <= 0:
            raise ParameterError(f"The {name} must be a number above 0, not {value}.", name)
        if not MIN_MONEY <= value <= MAX_MONEY:
            raise ParameterError(f"The {name} must be between 0.000001 and {MAX_MONEY:f}, not {value}.", name)
    return Decimal(math.ceil(Fraction(amount) * STEPS_PER_KWH / Fraction(tariff))) / STEPS_PER_KWH


def tariff_of(meter: Device, grid: Device | None) -> Decimal:
    """Currency per kWh that an order of this meter pays: the meter's own, else the grid's for its type.

    Raises:
        ParameterError: none is set, the one that counts is 0 or no number, or the meter has no type to choose by.
    """
    own = meter.attributes.get(TARIFF)
    if not _is_empty(own):
        return _positive(TARIFF, own, f"The tariff of {meter.name}")
    if grid is None:
        raise ParameterError(f"{meter.name} has no tariff and stands in no grid that has one; set its tariff.", TARIFF)
    match meter.attributes.get(METER_TYPE):
        case "HPS":
            name = TARIFF_ESSENTIAL
        case "FS":
            name = TARIFF_FULL_SERVICE
        case other:
            said = "has no type" if _is_empty(other) else f"is of the unknown type {other!r}"
            text = f"{meter.name} has no tariff and {said}; set its tariff, or its {METER_TYPE} to {HPS} or {FS}."
            raise ParameterError(text, METER_TYPE)
    value = grid.attributes.get(name)
    if _is_empty(value):
        raise ParameterError(f"Neither {meter.name} nor {grid.name} has a tariff; set {name} of the grid.", name)
    return _positive(name, value, f"The tariff of {grid.name}")


def delivery_of(interaction: Interaction | None) -> DeliveryStatus:
    """What a customer is told of the top-up of a paid order (D-41)."""
    if interaction is None:
        return DeliveryStatus.NOT_CREATED
    if interaction.status is Status.SUCCESSFUL:
        return DeliveryStatus.DELIVERED
    if interaction.status is Status.PROCESSING:
        return DeliveryStatus.SENDING
    if interaction.status not in SETTLED:
        return DeliveryStatus.WAITING
    return DeliveryStatus.NOT_DELIVERED_TOKEN_AVAILABLE if interaction.token else DeliveryStatus.NOT_DELIVERED


def notify(order: Order, interaction: Interaction | None, now: datetime) -> Order:
    """The order as its top-up stands, with the words to its owner that are due; the same order when nothing changed.

    One word as soon as there is a token, whatever the verdict; one for each terminal status it reaches. A retry that
    ends as the first try did says nothing again.
    """
    delivery = delivery_of(interaction)
    token = interaction is not None and bool(interaction.token)
    told = list(order.notifications)
    if token and not any(word.status is DeliveryStatus.WAITING for word in told):
        told.append(Notification(at=now, status=DeliveryStatus.WAITING, shows_token=True))
    if delivery in DELIVERY_ENDED and not any(word.status is delivery for word in told):
        shows = delivery is DeliveryStatus.NOT_DELIVERED_TOKEN_AVAILABLE
        told.append(Notification(at=now, status=delivery, shows_token=shows))
    failure = interaction.failure if interaction is not None else None
    after = evolve(
        order,
        interaction=interaction.id if interaction is not None else order.interaction,
        delivery=delivery,
        notifications=tuple(told),
        text=failure.text if failure is not None and delivery is not DeliveryStatus.DELIVERED else "",
    )
    return order if after == order else evolve(after, updated=now)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _positive(name: str, value: Any, title: str) -> Decimal:
    parsed: Decimal = ParamSpec(name=name, title=title, type=ParamType.DECIMAL).parse(value)
    if parsed <= 0:
        raise ParameterError(f"{title} is {parsed}; an order needs one above 0.", name)
    return parsed
