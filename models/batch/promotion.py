"""Policy: may the challenger be promoted? Losses of all contestants in, a Decision out.

Pure. A loss comes from the pipeline's metric on held-out rows: an error as it is, or 1 minus a
score. Lower is better, and NaN is an unknown loss, which never promotes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision

QUESTION = "promotion"


class PromotionConfig(BaseModel):
    """When a challenger replaces the champion: the table [promotion]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote: Literal["auto", "ask"] = Field(
        default="auto",
        description="auto: a challenger that wins serves at once. ask: it waits as a candidate for "
        "`thermodrift models promote`, and no other is fitted meanwhile unless drift rises again.",
    )
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
    """The losses of the contestants; None without a champion or an older window."""

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
    """Was the champion changed by hand? `pointed` is the registry's, `served` that of this run."""
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
    """The decision for a retrain without a challenger; `why` is the reason."""
    return Decision(question="retrain", yes=False, because=why)


def reused(version: str, champion: str | None, gain: float) -> Decision:
    """The decision that an archived version serves again; `gain` is in the baseline's loss."""
    return Decision(
        question=QUESTION,
        yes=True,
        because=f"archived version {version} loses {gain:.3g} of the baseline's loss less than the "
        f"champion {champion} on the newest rows: it serves again without a fit",
        facts={"version": version, "champion": champion, "gain": gain},
    )


def asks(promoted: Decision, config: PromotionConfig) -> Decision:
    """Does a version that won wait for a person's word?"""
    yes = promoted.yes and config.promote == "ask"
    because = "a version that wins is promoted at once"
    if yes:
        because = (
            f"it waits for a person's word (promote = ask), although it has won: {promoted.because}"
        )
    return Decision(
        question="candidate", yes=yes, because=because, facts={"promote": config.promote}
    )


def unseen_holdout(
    positions: Sequence[int], held_out_from: int, trained_to: int, config: PromotionConfig
) -> Decision:
    """Are there enough rows to hold out that the champion was not trained on?

    Scores on rows that the champion was trained on do not say which model is better. `positions`
    are of the window's rows, `held_out_from` is the first row that would be held out, and the
    champion was trained on positions up to `trained_to` (exclusive). If that is among the rows that
    would be held out, the newer half of those since then is held out instead: see
    `models.batch.holdout`.
    """
    share = positions[held_out_from:]
    unseen = sum(position >= trained_to for position in share)
    if unseen == len(share):
        because = "the hold-out begins after all rows that the champion was trained on"
        return Decision(question=QUESTION, yes=True, because=because)
    needed = 2 * config.min_holdout_rows
    because = (
        f"{unseen} rows came after those that the champion was trained on (up to position "
        f"{trained_to}), and only the newer half of them can be held out"
    )
    if unseen < needed:
        because += f": wait for {needed - unseen} more (half of {needed} are min_holdout_rows)"
    return Decision(question=QUESTION, yes=unseen >= needed, because=because)


def comparable(compared_with: str | None, champion: str | None) -> Decision:
    """Was the challenger compared with the version that is the champion now?"""
    if compared_with == champion:
        because = f"the champion is {champion}, as when the fit began"
        return Decision(question=QUESTION, yes=True, because=because)
    because = (
        f"the champion was {compared_with} when the fit began and is {champion} now: "
        "they were not compared"
    )
    return Decision(question=QUESTION, yes=False, because=because)


def judge(comparison: Comparison, config: PromotionConfig) -> Decision:
    """Yes if the challenger is better on held-out rows, and not much worse on older ones.

    Without a champion it only has to beat the baseline. Forgetting is net: its additional loss on
    older rows against the champion, minus its gain on new ones, as a share of the baseline's loss.
    So an abrupt change, after which the old relation no longer holds, does not block it.
    """
    why_not = _why_not(comparison, config)
    because = why_not or (
        f"the first champion: its loss {comparison.challenger_loss:.4g} on "
        f"{comparison.holdout_rows} held-out rows, the baseline's {comparison.baseline_loss:.4g}"
        f"{_by(comparison)}"
    )
    if why_not is None and comparison.champion_loss is not None:
        because = (
            f"the challenger's loss {comparison.challenger_loss:.4g} on {comparison.holdout_rows} "
            f"held-out rows is {_gain(comparison):.4g} below the champion's "
            f"{comparison.champion_loss:.4g}{_by(comparison)}"
        )
    return Decision(
        question=QUESTION,
        yes=why_not is None,
        because=because,
        facts={
            **comparison.model_dump(),
            "gain": _gain(comparison),
            "forgetting": _forgetting(comparison),
            **config.model_dump(),
        },
    )


def _why_not(comparison: Comparison, config: PromotionConfig) -> str | None:
    losses = {
        "challenger's loss": comparison.challenger_loss,
        "baseline's loss": comparison.baseline_loss,
        "champion's loss": comparison.champion_loss,
        "challenger's loss on older rows": comparison.older_challenger_loss,
        "champion's loss on older rows": comparison.older_champion_loss,
    }
    unknown = [
        name for name, loss in losses.items() if loss is not None and not math.isfinite(loss)
    ]
    gain, forgetting = _gain(comparison), _forgetting(comparison)
    if comparison.holdout_rows < config.min_holdout_rows:
        return (
            f"only {comparison.holdout_rows} rows were held out, and min_holdout_rows is "
            f"{config.min_holdout_rows}"
        )
    if unknown:
        return (
            f"not a finite number{_by(comparison)}: the {', the '.join(unknown)}; a person may "
            "promote by hand"
        )
    if config.beat_baseline and comparison.challenger_loss >= comparison.baseline_loss:
        return (
            f"the challenger's loss {comparison.challenger_loss:.4g} is not below the baseline's "
            f"{comparison.baseline_loss:.4g}{_by(comparison)}"
        )
    if gain is not None and (gain <= 0 or gain < config.min_gain):
        wanted = f"at least {config.min_gain:.4g}" if config.min_gain > 0 else "more than 0"
        return (
            f"the challenger's loss {comparison.challenger_loss:.4g} against the champion's "
            f"{comparison.champion_loss:.4g} is a gain of {gain:.4g}{_by(comparison)}; "
            f"{wanted} is wanted"
        )
    if forgetting is not None and forgetting > config.max_forgetting:
        return (
            f"on older rows the challenger's loss {comparison.older_challenger_loss:.4g} against "
            f"the champion's {comparison.older_champion_loss:.4g} outweighs its gain of "
            f"{gain:.4g} by {forgetting:.3g} of the baseline's loss; max_forgetting is "
            f"{config.max_forgetting:.3g}"
        )
    return None


def _by(comparison: Comparison) -> str:
    return f" (by {comparison.metric})" if comparison.metric else ""


def _gain(comparison: Comparison) -> float | None:
    if comparison.champion_loss is None:
        return None
    return comparison.champion_loss - comparison.challenger_loss


def _forgetting(comparison: Comparison) -> float | None:
    """Net forgetting as a share of the baseline's loss; infinite where that loss is 0."""
    gain = _gain(comparison)
    if (
        gain is None
        or comparison.older_challenger_loss is None
        or comparison.older_champion_loss is None
    ):
        return None
    net = comparison.older_challenger_loss - comparison.older_champion_loss - gain
    if net <= 0:
        return 0.0
    return net / comparison.baseline_loss if comparison.baseline_loss > 0 else math.inf
