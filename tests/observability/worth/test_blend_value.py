"""What a champion adds to the blend, by what it loses itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.worth import blend_value, worth
from observability.worth.blend_value import BlendValue
from observability.worth.worth import RetrainConfig
from tests.observability.makers import make_worth

aheads = st.floats(-1.0, 1.0)
widths = st.floats(0.0, 1.0)


@given(aheads, widths, st.floats(0.0, 1.0))
def test_a_better_champion_never_adds_less(ahead: float, width: float, better: float) -> None:
    """It adds at least what it is ahead, at least nothing, and gains no more than it is better."""
    value = BlendValue(ahead, width)
    assert value.adds(better) >= value.adds() >= max(ahead, 0.0) - 1e-12
    assert -1e-12 <= value.gain(better) <= better + 1e-9


@given(aheads, st.floats(0.0, 0.5))
def test_what_was_measured_is_what_the_value_says(ahead: float, adds: float) -> None:
    """The width makes it so, unless even none, or the largest one, would say more or less."""
    value = blend_value.of(ahead, adds)
    most = BlendValue(ahead, blend_value.MOST_WIDTH).adds()
    assert value.adds() == pytest.approx(min(max(adds, ahead, 0.0), most), abs=1e-6)


def test_a_fit_pays_nothing_where_the_blend_is_better_without_any_champion() -> None:
    """The champion has lost half of what the baseline does, and nobody hears it."""
    alone = make_worth(lost=0.5, lost_error=0.02)
    assert worth.judge(alone, RetrainConfig())
    decision = worth.judge(
        make_worth(lost=0.5, lost_error=0.02, champion_ahead=-0.8, champion_adds=0.001),
        RetrainConfig(),
    )
    assert not decision
    assert decision.facts["expected_gain"] == pytest.approx(0.0, abs=1e-3)
    assert "loses 0.8 more than the blend without it, to which it adds 0.001" in decision.because


def test_a_champion_that_is_far_better_than_the_rest_counts_in_full() -> None:
    """All that it lost is lost in what is served."""
    alone = {"lost": 0.1, "lost_error": 0.001}
    found = worth.weigh(make_worth(**alone, champion_ahead=0.6), RetrainConfig())
    plain = worth.weigh(make_worth(**alone), RetrainConfig())
    assert found is not None
    assert plain is not None
    assert found.gain == pytest.approx(plain.gain, rel=1e-6)
    assert found.own == plain.gain


def test_only_what_passes_the_rest_is_gained() -> None:
    """A champion that will lose half of the baseline's less, and is 0.4 behind, adds a tenth."""
    facts = make_worth(lost=0.5, lost_error=0.001, champion_ahead=-0.4, loss_share=1.0)
    found = worth.weigh(facts, RetrainConfig())
    assert found is not None
    assert found.lost == pytest.approx(0.1, abs=0.01)


def test_growth_that_may_pass_the_rest_is_promised_by_the_chance_of_it() -> None:
    """With the mean exponent a champion of more rows adds nothing; with a larger one it does."""
    known = {"lost": 0.0, "champion_ahead": -0.08, "curve_scale": 0.75}
    rows = {"rows_then": 500.0, "rows_now": 4000.0}
    sure = worth.weigh(make_worth(**known, **rows), RetrainConfig())
    unsure = worth.weigh(make_worth(**known, **rows, curve_error=0.1), RetrainConfig())
    assert sure is not None
    assert unsure is not None
    assert sure.growth == pytest.approx(0.0, abs=1e-9)
    assert unsure.growth > 0.01


def test_an_archived_version_is_compared_by_its_own_loss() -> None:
    """What it gains is said of what is served, and a fit that adds nothing does not stop it."""
    facts = make_worth(
        lost=0.5,
        lost_error=0.02,
        champion_ahead=-0.4,
        archived_version="old",
        archived_count=1,
        archived_gain=0.5,
        archived_error=0.01,
    )
    decision = worth.judge(facts, RetrainConfig())
    assert decision.facts["answer"] == "reuse"
    assert decision.facts["expected_gain"] == pytest.approx(0.1)


@given(aheads, st.floats(0.0, 0.5), st.floats(0.0, 1.0))
def test_what_is_noisy_is_believed_less(ahead: float, adds: float, error: float) -> None:
    """A width that noise alone has shown would promise gains."""
    assert blend_value.of(ahead, adds, error).width <= blend_value.of(ahead, adds).width


def test_where_it_is_not_known_what_the_champion_adds_the_decision_says_so() -> None:
    """By a metric that is no mean over records, or before enough of them."""
    decision = worth.judge(make_worth(), RetrainConfig())
    assert "what the champion adds to the blend is not known" in decision.because


def test_a_loss_that_is_plainly_no_noise_is_believed_in_full() -> None:
    """Ten standard errors are not drawn to what changes usually cost."""
    found = worth.weigh(make_worth(lost=1.77, lost_error=0.166), RetrainConfig())
    assert found is not None
    assert found.lost == pytest.approx(1.77, rel=0.02)
    noisy = worth.weigh(make_worth(lost=0.17, lost_error=0.166), RetrainConfig())
    assert noisy is not None
    assert noisy.lost < 0.1


@pytest.mark.parametrize(
    ("unit_now", "nature", "expected"),
    [
        (0.25, None, 0.4),  # nothing has become easier
        (0.10, "virtual", 1.0),  # all lose less: it may lose what it did, 0.4 of 0.25
        (0.10, "real", 0.4),  # the error has risen: it should lose less, too
        (0.50, "virtual", 0.4),  # all lose more: so may it
    ],
)
def test_a_baseline_that_loses_less_is_no_loss_of_the_champion(
    unit_now: float, nature: str | None, expected: float
) -> None:
    """Its loss was 0.4 of what the baseline lost, which was 0.25."""
    assert worth.attainable(0.4, 0.25, unit_now, nature) == pytest.approx(expected)
