"""Money to energy without a lost cent, tariffs, and what a customer is told when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ParameterError
from app.model.command import CommandKind
from app.model.device import Device, NodeKind
from app.model.flow import DeliveryStatus, Order
from app.model.interaction import Failure, Interaction
from app.model.status import PENDING, SETTLED, Status
from app.pipeline.orders import delivery_of, kwh_for, notify, tariff_of

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
D = Decimal
FAILURE = Failure(code="DEVICE_TIMEOUT", text="The meter is silent.", at=NOW)


@pytest.mark.parametrize(
    ("amount", "tariff", "kwh"),
    [
        ("1000", "270", "3.8"),
        ("27", "270", "0.1"),  # exactly one step stays one step
        ("27.000001", "270", "0.2"),
        ("1", "3", "0.4"),
        ("0.01", "270", "0.1"),
        ("270", "270", "1"),
        ("0.3", "0.1", "3"),  # floats would give 3.1
        ("1000000000000", "0.000001", "1000000000000000000"),
    ],
)
def test_kwh_for(amount: str, tariff: str, kwh: str) -> None:
    assert kwh_for(D(amount), D(tariff)) == D(kwh)


MONEY = st.decimals(min_value="0.01", max_value=10**7, places=2)


@given(MONEY, MONEY)
def test_energy_is_rounded_up_by_less_than_a_step(amount: Decimal, tariff: Decimal) -> None:
    kwh = kwh_for(amount, tariff)
    assert kwh * 10 % 1 == 0
    assert kwh * tariff >= amount > (kwh - D("0.1")) * tariff


@pytest.mark.parametrize(
    ("amount", "tariff", "named"),
    [
        ("1000", "0", "tariff"),
        ("1000", "-1", "tariff"),
        ("0", "270", "amount"),
        ("nan", "270", "amount"),
        ("1", "inf", "tariff"),
        ("1e13", "270", "amount"),
        ("1", "1e-999999", "tariff"),
    ],
)
def test_no_energy_for_nonsense(amount: str, tariff: str, named: str) -> None:
    with pytest.raises(ParameterError) as caught:
        kwh_for(D(amount), D(tariff))
    assert caught.value.parameter == named


def meter(**attributes: Any) -> Device:
    return Device(id="m1", name="Meter 1", attributes=attributes)


def grid(**attributes: Any) -> Device:
    return Device(id="g", name="North", kind=NodeKind.GRID, attributes=attributes)


GRID = grid(tariff_essential=270, tariff_full_service="300.5")


@pytest.mark.parametrize(
    ("attributes", "tariff"),
    [
        ({"tariff": 100, "meter_type": "HPS"}, "100"),
        ({"tariff": "99.5"}, "99.5"),
        ({"meter_type": "HPS"}, "270"),
        ({"meter_type": "FS"}, "300.5"),
        ({"tariff": "", "meter_type": "FS"}, "300.5"),
        ({"tariff": None, "meter_type": "HPS"}, "270"),
    ],
)
def test_which_tariff_counts(attributes: dict[str, Any], tariff: str) -> None:
    assert tariff_of(meter(**attributes), GRID) == D(tariff)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (meter(tariff=0, meter_type="HPS"), GRID, r"tariff of Meter 1 is 0"),
        (meter(tariff=-5), GRID, r"tariff of Meter 1 is -5"),
        (meter(tariff="27O"), GRID, r"tariff of Meter 1 .*must be a number"),
        (meter(), GRID, r"Meter 1 has no tariff and has no type"),
        (meter(meter_type="XS"), GRID, r"unknown type 'XS'"),
        (meter(meter_type="HPS"), None, r"stands in no grid"),
        (meter(meter_type="FS"), grid(tariff_essential=270), r"Neither Meter 1 nor North .*tariff_full_service"),
        (meter(meter_type="HPS"), grid(tariff_essential=0), r"tariff of North is 0"),
    ],
)
def test_a_missing_or_zero_tariff_is_an_error_in_words(one: Device, other: Device | None, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        tariff_of(one, other)


def top_up(status: Status, token: str = "", failure: Failure | None = None) -> Interaction:
    return Interaction(
        id=7, device="m1", adapter="a", command="TOP_UP", kind=CommandKind.TOKEN, created=NOW, updated=NOW,
        status=status, token=token, failure=failure,
    )  # fmt: skip


ORDER = Order(id=1, reference="r-1", device="m1", kwh=D("3.8"), created=NOW, updated=NOW)
TOKEN = "1" * 20


@pytest.mark.parametrize("status", Status)
def test_delivery_of_every_status(status: Status) -> None:
    match status:
        case Status.SUCCESSFUL:
            expected = (DeliveryStatus.DELIVERED, DeliveryStatus.DELIVERED)
        case Status.PROCESSING:
            expected = (DeliveryStatus.SENDING, DeliveryStatus.SENDING)
        case _ if status in PENDING or status is Status.NEW:
            expected = (DeliveryStatus.WAITING, DeliveryStatus.WAITING)
        case _:
            assert status in SETTLED
            expected = (DeliveryStatus.NOT_DELIVERED, DeliveryStatus.NOT_DELIVERED_TOKEN_AVAILABLE)
    assert (delivery_of(top_up(status)), delivery_of(top_up(status, TOKEN))) == expected


def words(order: Order) -> list[tuple[str, bool]]:
    return [(word.status.value, word.shows_token) for word in order.notifications]


def test_nothing_is_said_without_a_command() -> None:
    assert delivery_of(None) is DeliveryStatus.NOT_CREATED
    assert notify(ORDER, None, LATER) is ORDER


def test_created_and_delivered_are_said_once_each() -> None:
    order = notify(ORDER, top_up(Status.QUEUED, TOKEN), NOW)
    assert (order.interaction, order.delivery) == (7, DeliveryStatus.WAITING)
    order = notify(order, top_up(Status.PROCESSING, TOKEN), LATER)
    assert (order.delivery, order.updated) == (DeliveryStatus.SENDING, LATER)
    order = notify(order, top_up(Status.SUCCESSFUL, TOKEN), LATER)
    assert words(order) == [("WAITING", True), ("DELIVERED", False)]


def test_an_abort_at_creation_shows_the_token_first() -> None:
    order = notify(ORDER, top_up(Status.ABORTED, TOKEN, FAILURE), NOW)
    assert words(order) == [("WAITING", True), ("NOT_DELIVERED_TOKEN_AVAILABLE", True)]
    assert order.text == "The meter is silent."


def test_a_deferred_order_says_nothing_before_it_has_a_token() -> None:
    order = notify(ORDER, top_up(Status.DEFERRED), NOW)
    assert words(order) == []
    assert words(notify(order, top_up(Status.QUEUED, TOKEN), NOW)) == [("WAITING", True)]


def test_a_retry_that_fails_again_says_nothing_new_and_one_that_works_does() -> None:
    order = notify(ORDER, top_up(Status.FAILED, TOKEN, FAILURE), NOW)
    said = words(order)
    order = notify(order, top_up(Status.PROCESSING, TOKEN), LATER)
    order = notify(order, top_up(Status.FAILED, TOKEN, FAILURE), LATER)
    assert words(order) == said
    order = notify(order, top_up(Status.SUCCESSFUL, TOKEN, FAILURE), LATER)
    assert words(order) == [*said, ("DELIVERED", False)]
    assert order.text == ""


@given(st.lists(st.tuples(st.sampled_from(Status), st.sampled_from(["", TOKEN])), max_size=8))
def test_the_same_input_twice_changes_nothing(steps: list[tuple[Status, str]]) -> None:
    order = ORDER
    for status, token in steps:
        order = notify(order, top_up(status, token), NOW)
        assert notify(order, top_up(status, token), LATER) is order
        assert len(set(words(order))) == len(order.notifications)
