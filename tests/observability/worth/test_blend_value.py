"""What a champion adds to the blend, by what it loses itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.worth import blend_value, worth
from observability.worth.blend_value import BlendValue
from observability.worth.worth import RetrainConfig
from tests.observability.makers import make_worth

shares = st.floats(0.0, 2.0)
widths = st.floats(0.0, 1.0)


@given(shares, widths, shares, shares)
def test_a_better_champion_never_adds_less(
    rest: float, width: float, one: float, other: float
) -> None:
    """It adds at least what it is better, at least nothing, and no more than it is better by."""
    value = BlendValue(rest, width)
    better, worse = min(one, other), max(one, other)
    assert value.adds(better) >= value.adds(worse) >= max(rest - worse, 0.0) - 1e-12
    assert -1e-12 <= value.gain(worse, better) <= worse - better + 1e-9


@given(shares, shares, st.floats(0.0, 0.5))
def test_what_was_measured_is_what_the_value_says(rest: float, loss: float, adds: float) -> None:
    """The width makes it so, unless even none, or the largest one, would say more or less."""
    value = blend_value.of(rest, loss, adds)
    least, most = max(rest - loss, 0.0), BlendValue(rest, blend_value.MOST_WIDTH).adds(loss)
    assert value.adds(loss) == pytest.approx(min(max(adds, least), most), abs=1e-6)


def test_a_fit_pays_nothing_where_the_blend_is_better_without_any_champion() -> None:
    """The champion has lost half of what the baseline does, and nobody hears it."""
    config = RetrainConfig()
    alone = make_worth(lost=0.5, lost_error=0.02, level_loss=0.6)
    blended = make_worth(lost=0.5, lost_error=0.02, level_loss=0.6, rest_loss=0.3)
    assert worth.judge(alone, config)
    decision = worth.judge(blended, config)
    assert not decision
    assert decision.facts["expected_gain"] == pytest.approx(0.0, abs=1e-3)
    assert "loses 0.3 without it" in decision.because


def test_a_champion_that_is_far_better_than_the_rest_counts_in_full() -> None:
    """All that it lost is lost in what is served."""
    far = make_worth(lost=0.1, lost_error=0.001, level_loss=0.2, rest_loss=0.9)
    alone = make_worth(lost=0.1, lost_error=0.001, level_loss=0.2)
    found, plain = (worth.weigh(each, RetrainConfig()) for each in (far, alone))
    assert found is not None
    assert plain is not None
    assert found.gain == pytest.approx(plain.gain, rel=1e-6)
    assert found.own == plain.gain


def test_only_what_passes_the_rest_is_gained() -> None:
    """A champion that falls from 0.8 to 0.3, where the rest loses 0.4, adds a tenth."""
    facts = make_worth(lost=0.5, lost_error=0.001, level_loss=0.3, rest_loss=0.4, loss_share=1.0)
    found = worth.weigh(facts, RetrainConfig())
    assert found is not None
    assert found.lost == pytest.approx(0.1, abs=0.01)


def test_growth_that_may_pass_the_rest_is_promised_by_the_chance_of_it() -> None:
    """With the mean exponent a champion of more rows adds nothing; with a larger one it does."""
    known = {"lost": 0.0, "level_loss": 0.4, "rest_loss": 0.32, "curve_scale": 0.75}
    rows = {"rows_then": 500.0, "rows_now": 4000.0}
    sure = worth.weigh(make_worth(**known, **rows), RetrainConfig())
    unsure = worth.weigh(make_worth(**known, **rows, curve_exponent_error=0.1), RetrainConfig())
    assert sure is not None
    assert unsure is not None
    assert sure.growth == pytest.approx(0.0, abs=1e-9)
    assert unsure.growth > 0.01


def test_an_archived_version_is_compared_by_its_own_loss() -> None:
    """What it gains is said of what is served, and a fit that adds nothing does not stop it."""
    facts = make_worth(
        lost=0.5,
        lost_error=0.02,
        level_loss=0.5,
        rest_loss=0.6,
        archived_version="old",
        archived_count=1,
        archived_gain=0.5,
        archived_error=0.01,
    )
    decision = worth.judge(facts, RetrainConfig())
    assert decision.facts["answer"] == "reuse"
    assert decision.facts["expected_gain"] == pytest.approx(0.1)
