"""May the challenger be promoted? Losses of challenger, champion and baseline in, Decision out.

Pure. A loss is what the pipeline's metric makes of held-out rows: an error as it is, a score as
what it lacks of 1. Lower is better, and NaN is a loss that nobody knows, which never promotes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision

QUESTION = "promotion"


class PromotionConfig(BaseModel):
    """When a challenger replaces the champion: the table [promotion]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_gain: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Least loss that the challenger must save against the champion on the same "
        "held-out rows, in the unit of [pipeline] metric. Equal never promotes.",
    )
    beat_baseline: bool = Field(
        default=True, description="The challenger must lose less than the baseline."
    )
    max_forgetting: float = Field(
        default=0.5,
        ge=0,
        allow_inf_nan=False,
        description="Most that the challenger may lose on older rows beyond what it gains on the "
        "held-out ones, both against the champion, as a share of the baseline's loss.",
    )
    min_holdout_rows: int = Field(
        default=30, ge=1, description="Fewest held-out rows that a comparison is believed on."
    )


class Comparison(BaseModel):
    """What the contestants lost; None where there is no champion or no older window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holdout_rows: int = Field(ge=0, description="Rows that all were scored on.")
    metric: str = Field(default="", description="What the losses are of.")
    challenger_loss: float
    baseline_loss: float
    champion_loss: float | None = None
    older_challenger_loss: float | None = Field(
        default=None, description="On rows from before the training window."
    )
    older_champion_loss: float | None = None


def by_hand(pointed: str | None, served: str | None) -> Decision:
    """Did somebody else make another version the champion? `pointed` is what the store names."""
    if pointed == served:
        because = f"the store's champion is {pointed}, as this run knows"
        return Decision(question="champion", yes=False, because=because)
    return Decision(
        question="champion",
        yes=True,
        because=f"the store's champion is {pointed}, changed by hand from {served}",
        facts={"champion": pointed, "before": served},
    )


def no_model(why: str) -> Decision:
    """The answer to a retrain that brought no challenger, because of `why`."""
    return Decision(question="retrain", yes=False, because=why)


def unseen_holdout(positions: Sequence[int], held_out_from: int, trained_to: int) -> Decision:
    """Is no held-out row among those that the champion was trained on?

    Scores on rows that the champion was trained on do not say which model is better. With constant
    knobs a hold-out lies behind all training; a larger one may reach back. `positions` are of the
    window's rows, `held_out_from` is the first row that is held out, and the champion was trained
    on positions up to `trained_to` (exclusive).
    """
    held_out = positions[held_out_from:]
    if not held_out or held_out[0] >= trained_to:
        because = "the hold-out begins after all rows that the champion was trained on"
        return Decision(question=QUESTION, yes=True, because=because)
    because = (
        f"the hold-out would begin at position {held_out[0]}, among rows that the champion was "
        f"trained on (up to {trained_to}); it is fair from position {trained_to + len(held_out)} "
        "on, or with a smaller batch.holdout"
    )
    return Decision(question=QUESTION, yes=False, because=because)


def comparable(compared_with: str | None, champion: str | None) -> Decision:
    """Was the challenger compared with the version that is the champion by now?"""
    if compared_with == champion:
        because = f"the champion is {champion}, as when the fit began"
        return Decision(question=QUESTION, yes=True, because=because)
    because = (
        f"the champion was {compared_with} when the fit began and is {champion} now: "
        "they were not compared"
    )
    return Decision(question=QUESTION, yes=False, because=because)


def judge(contest: Comparison, rules: PromotionConfig) -> Decision:
    """Yes where the challenger is better on rows that nobody trained on, and forgets little.

    Without a champion it need only beat the baseline. Forgetting is net: what it loses more than
    the champion on older rows, less what it gains on new ones, as a share of the baseline's loss.
    So a world that turned round, where losing the old is the price of the new, does not block it.
    """
    why_not = _why_not(contest, rules)
    return Decision(
        question=QUESTION,
        yes=why_not is None,
        because=why_not or _why(contest),
        facts={
            **contest.model_dump(),
            "gain": _gain(contest),
            "forgetting": _forgetting(contest),
            **rules.model_dump(),
        },
    )


def _why_not(contest: Comparison, rules: PromotionConfig) -> str | None:
    losses = {
        "challenger's loss": contest.challenger_loss,
        "baseline's loss": contest.baseline_loss,
        "champion's loss": contest.champion_loss,
        "challenger's loss on older rows": contest.older_challenger_loss,
        "champion's loss on older rows": contest.older_champion_loss,
    }
    unknown = [
        name for name, loss in losses.items() if loss is not None and not math.isfinite(loss)
    ]
    gain, forgetting = _gain(contest), _forgetting(contest)
    if contest.holdout_rows < rules.min_holdout_rows:
        return (
            f"only {contest.holdout_rows} rows were held out, and min_holdout_rows is "
            f"{rules.min_holdout_rows}"
        )
    if unknown:
        return (
            f"not a finite number{_by(contest)}: the {', the '.join(unknown)}; a person may "
            "promote by hand"
        )
    if rules.beat_baseline and contest.challenger_loss >= contest.baseline_loss:
        return (
            f"the challenger's loss {contest.challenger_loss:.4g} is not below the baseline's "
            f"{contest.baseline_loss:.4g}{_by(contest)}"
        )
    if gain is not None and (gain <= 0 or gain < rules.min_gain):
        wanted = f"at least {rules.min_gain:.4g}" if rules.min_gain > 0 else "more than 0"
        return (
            f"the challenger's loss {contest.challenger_loss:.4g} against the champion's "
            f"{contest.champion_loss:.4g} is a gain of {gain:.4g}{_by(contest)}; {wanted} is wanted"
        )
    if forgetting is not None and forgetting > rules.max_forgetting:
        return (
            f"on older rows the challenger's loss {contest.older_challenger_loss:.4g} against the "
            f"champion's {contest.older_champion_loss:.4g} outweighs its gain of {gain:.4g} by "
            f"{forgetting:.3g} of the baseline's loss; max_forgetting is {rules.max_forgetting:.3g}"
        )
    return None


def _by(contest: Comparison) -> str:
    return f" (by {contest.metric})" if contest.metric else ""


def _gain(contest: Comparison) -> float | None:
    if contest.champion_loss is None:
        return None
    return contest.champion_loss - contest.challenger_loss


def _forgetting(contest: Comparison) -> float | None:
    """Net forgetting as a share of the baseline's loss; infinite where that loss is 0."""
    gain = _gain(contest)
    if gain is None or contest.older_challenger_loss is None or contest.older_champion_loss is None:
        return None
    net = contest.older_challenger_loss - contest.older_champion_loss - gain
    if net <= 0:
        return 0.0
    return net / contest.baseline_loss if contest.baseline_loss > 0 else math.inf


def _why(contest: Comparison) -> str:
    if contest.champion_loss is None:
        return (
            f"the first champion: its loss {contest.challenger_loss:.4g} on "
            f"{contest.holdout_rows} held-out rows, the baseline's {contest.baseline_loss:.4g}"
            f"{_by(contest)}"
        )
    return (
        f"the challenger's loss {contest.challenger_loss:.4g} on {contest.holdout_rows} held-out "
        f"rows is {_gain(contest):.4g} below the champion's {contest.champion_loss:.4g}"
        f"{_by(contest)}"
    )
