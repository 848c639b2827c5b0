"""What energy cost, in money and in grams: what is known, and what nobody set."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from observability import energy_cost
from observability.energy_cost import EnergyCost, Tariff

KWH_J = 3.6e6


def test_a_kilowatt_hour_costs_its_price_and_its_grams() -> None:
    """3.6 million joules are one."""
    rates = Tariff(price_per_kwh=0.3, currency="CHF", carbon_g_per_kwh=400.0)
    assert EnergyCost(0.3, "CHF", 400.0, 1.0) == energy_cost.cost_of(KWH_J, rates)
    assert EnergyCost(0.0, "CHF", 0.0, 1.0) == energy_cost.cost_of(0.0, rates)


def test_the_facility_uses_more_than_its_machines() -> None:
    """Price and grams are of the whole; divided by the PUE they are the devices' own."""
    rates = Tariff(price_per_kwh=0.5, carbon_g_per_kwh=100.0, pue=1.5)
    whole = energy_cost.cost_of(2 * KWH_J, rates)
    assert EnergyCost(1.5, "EUR", 300.0, 1.5) == whole
    assert whole.price is not None
    assert whole.pue is not None
    assert 2 * 0.5 == whole.price / whole.pue


def test_a_rate_that_nobody_set_leaves_its_part_unknown() -> None:
    """Not zero, and the other part is known all the same."""
    assert energy_cost.UNKNOWN == energy_cost.cost_of(KWH_J, Tariff(pue=2.0))
    assert EnergyCost(None, None, 50.0, 1.0) == energy_cost.cost_of(
        KWH_J, Tariff(carbon_g_per_kwh=50.0)
    )
    assert EnergyCost(2.0, "EUR", None, 1.0) == energy_cost.cost_of(
        KWH_J, Tariff(price_per_kwh=2.0)
    )
    assert EnergyCost(0.0, "EUR", None, 1.0) == energy_cost.cost_of(
        KWH_J, Tariff(price_per_kwh=0.0)
    )


@pytest.mark.parametrize("joules", [None, math.nan, math.inf, -1.0])
def test_unknown_energy_has_no_bill(joules: float | None) -> None:
    """What was not measured was not free."""
    assert energy_cost.UNKNOWN == energy_cost.cost_of(
        joules, Tariff(price_per_kwh=1.0, carbon_g_per_kwh=1.0)
    )


@given(st.floats(0, 1e13), st.floats(0, 1e6), st.floats(1, 10))
def test_the_pue_multiplies_and_nothing_is_less_than_nothing(
    joules: float, price_per_kwh: float, pue: float
) -> None:
    """For any energy and any rate."""
    alone = energy_cost.cost_of(joules, Tariff(price_per_kwh=price_per_kwh)).price
    whole = energy_cost.cost_of(joules, Tariff(price_per_kwh=price_per_kwh, pue=pue)).price
    assert alone is not None
    assert 0 <= alone
    assert pytest.approx(alone * pue) == whole


@pytest.mark.parametrize(
    "knobs",
    [
        {"pue": 0.9},
        {"pue": math.nan},
        {"price_per_kwh": -0.1},
        {"price_per_kwh": math.inf},
        {"carbon_g_per_kwh": -1.0},
        {"currency": "euro"},
        {"prise_per_kwh": 1.0},
    ],
)
def test_a_rate_that_cannot_be_is_refused(knobs: dict[str, object]) -> None:
    """No facility uses less than its machines, and a misspelt rate is not an unknown one."""
    with pytest.raises(ValidationError):
        Tariff.model_validate(knobs)
