"""The cost of energy where this installation stands, in money and in grams of carbon dioxide.

Pure: it computes a bill from joules and the facility's rates. With unknown joules, or a rate that
is not set, the cost is unknown, never zero.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

JOULES_PER_KWH: Final = 3.6e6


class Tariff(BaseModel):
    """The price of energy where the home's machines stand, table ``[energy]``."""

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
    """What an amount of energy cost, facility and all. None is unknown, never zero."""

    price: float | None = None
    """In `currency`, cooling included: of the devices' own energy it is `price / pue`."""
    currency: str | None = None
    """None where the price is unknown."""
    carbon_g: float | None = None
    """Grams, cooling included: of the devices' own energy they are `carbon_g / pue`."""
    pue: float | None = None
    """What the devices' energy was multiplied by; None where price and grams are both unknown."""


UNKNOWN: Final = EnergyCost()


def cost_of(joules: float | None, rates: Tariff) -> EnergyCost:
    """The bill of what devices used: `joules` times the facility's PUE, at its rates."""
    # This form of the comparison is false for NaN as well.
    if joules is None or not 0 <= joules < float("inf"):
        return UNKNOWN
    kwh = joules / JOULES_PER_KWH * rates.pue
    price = None if rates.price_per_kwh is None else kwh * rates.price_per_kwh
    carbon_g = None if rates.carbon_g_per_kwh is None else kwh * rates.carbon_g_per_kwh
    return EnergyCost(
        price=price,
        currency=None if price is None else rates.currency,
        carbon_g=carbon_g,
        pue=None if price is None and carbon_g is None else rates.pue,
    )
