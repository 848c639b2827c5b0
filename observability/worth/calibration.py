"""How well past expectations agree with what came: a ratio of sums, with an interval.

Pure. The ratio of the sums is used and not the mean of the ratios, since an expectation near zero
has a wild ratio. Its interval is that of a ratio estimator, with Student's quantile.
Source: W. G. Cochran, "Sampling Techniques" (1977), chapter 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from observability.core.decision import Decision

FEWEST = 8
"""Expectations that came to something, without which calibration is unknown."""
FACTOR = 2.0
"""Expectations are bad where even the interval is wrong by more than this factor."""
_QUANTILE = 1.959964
"""Of the normal distribution, for an interval of 95 %."""


class Pair(NamedTuple):
    """One expectation, and what came, in the same unit."""

    expected: float
    realised: float


class Calibration(NamedTuple):
    """What came as a share of what was expected; None is unknown."""

    checked: int
    """Expectations that came to something."""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None


def of(pairs: Sequence[Pair]) -> Calibration:
    """The ratio of the sums, and its interval of 95 % from two pairs on."""
    known = [each for each in pairs if math.isfinite(each.expected + each.realised)]
    count, total = len(known), sum(each.expected for each in known)
    if not known or total <= 0:
        return Calibration(count)
    ratio = sum(each.realised for each in known) / total
    if count < 2:
        return Calibration(count, ratio)
    squares = sum((each.realised - ratio * each.expected) ** 2 for each in known)
    error = math.sqrt(count * squares / (count - 1)) / total
    # Student's quantile by its first correction; source: Abramowitz and Stegun, 26.7.5.
    wide = _QUANTILE + (_QUANTILE**3 + _QUANTILE) / (4 * (count - 1))
    return Calibration(count, ratio, ratio - wide * error, ratio + wide * error)


def judge(found: Calibration) -> Decision:
    """Decide whether expectations may be relied on; too few of them are no reason against."""
    facts = {"checked": found.checked, "ratio": found.ratio, "low": found.low, "high": found.high}
    if found.checked < FEWEST or found.ratio is None or found.low is None or found.high is None:
        because = f"{found.checked} expectations came to something (judged from {FEWEST})"
        return Decision(question="calibration", yes=True, because=because, facts=facts)
    interval = (
        f"{found.ratio:.2f} of what {found.checked} retrains were expected to bring came "
        f"(95 %: {found.low:.2f} to {found.high:.2f})"
    )
    if found.high < 1 / FACTOR or found.low > FACTOR:
        because = f"{interval}, which is wrong by more than a factor of {FACTOR:g}"
        return Decision(question="calibration", yes=False, because=because, facts=facts)
    return Decision(question="calibration", yes=True, because=interval, facts=facts)


def share_that_comes(pairs: Sequence[Pair], prior: float, prior_weight: float) -> float:
    """The share of an expectation that is likely to come, between 0 and 1.

    It begins at `prior`, which counts as much as `prior_weight` expectations of the mean size. Each
    expectation counts as what came of it, but as nothing at least, and twice itself at most.
    """
    known = [each for each in pairs if math.isfinite(each.expected + each.realised)]
    total = sum(each.expected for each in known)
    if total <= 0:
        return prior
    weight = prior_weight * total / len(known)
    # One retrain that harmed, or a lucky one, must not decide for all later ones: with a share of
    # zero nothing would ever be tried again.
    came = sum(min(max(each.realised, 0.0), 2.0 * each.expected) for each in known)
    return min((prior * weight + came) / (weight + total), 1.0)
