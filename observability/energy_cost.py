"""The cost of energy, in money and in grams of carbon dioxide.

Pure: it computes the cost from joules and the facility's tariff. With unknown joules, or a price
that is not set, the cost is unknown, never zero.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

JOULES_PER_KWH: Final = 3.6e6


class Tariff(BaseModel):
    """Table ``[energy]``: the price of energy at the site of the home's machines."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    price_per_kwh: float | None = Field(
        default=None, ge=0, le=1e6, description="Price of a kilowatt-hour; left out: unknown."
    )
    currency: str = Field(
        default="EUR",
        pattern=r"^[A-Z]{3}$",
        description="Currency of the price, as three capital letters (ISO 4217).",
    )
    carbon_g_per_kwh: float | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Grams of carbon dioxide, or what equals them, that a kilowatt-hour causes;"
        " left out: unknown.",
    )
    pue: float = Field(
        default=1.0,
        ge=1,
        le=10,
        description="Power usage effectiveness: energy of the whole facility, cooling included, for"
        " each unit that its machines use.",
    )


class EnergyCost(NamedTuple):
    """The cost of an amount of energy, for the whole facility. None is unknown, never zero."""

    price: float | None = None
    """In `currency`, cooling included: the devices' own energy costs `price / pue`."""
    currency: str | None = None
    """None where the price is unknown."""
    carbon_g: float | None = None
    """Grams, cooling included: the devices' own energy causes `carbon_g / pue`."""
    pue: float | None = None
    """The factor of the devices' energy; None where price and grams are both unknown."""


UNKNOWN: Final = EnergyCost()


def cost_of(joules: float | None, tariff: Tariff) -> EnergyCost:
    """Return the cost of the devices' `joules` times the facility's PUE, at its tariff."""
    # This form of the comparison is false for NaN as well.
    if joules is None or not 0 <= joules < float("inf"):
        return UNKNOWN
    kwh = joules / JOULES_PER_KWH * tariff.pue
    price = None if tariff.price_per_kwh is None else kwh * tariff.price_per_kwh
    carbon_g = None if tariff.carbon_g_per_kwh is None else kwh * tariff.carbon_g_per_kwh
    return EnergyCost(
        price=price,
        currency=None if price is None else tariff.currency,
        carbon_g=carbon_g,
        pue=None if price is None and carbon_g is None else tariff.pue,
    )
