"""What docs/gate.md says of the knobs is what the models say."""

from __future__ import annotations

import re

from pydantic import BaseModel

from power.forecast.config import ForecastConfig
from tests import ROOT

PAGE = ROOT / "docs" / "gate.md"


def defaults(rules: BaseModel, before: str = "") -> dict[str, str]:
    """Every knob by its name, with its default as text; tables within by a dot."""
    told: dict[str, str] = {}
    for name in type(rules).model_fields:
        value = getattr(rules, name)
        told |= (
            defaults(value, f"{before}{name}.")
            if isinstance(value, BaseModel)
            else {f"{before}{name}": str(value).lower()}
        )
    return told


def test_the_page_lists_every_knob_with_its_default_and_no_other() -> None:
    """A knob that is added, renamed or set otherwise is on the page."""
    rows = re.findall(r"^\| `([\w.]+)` \| (-?[\d.]+|true) \|", PAGE.read_text("utf-8"), re.M)
    assert defaults(ForecastConfig()) == dict(rows)
