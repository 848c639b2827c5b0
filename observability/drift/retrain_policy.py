"""The retrain policy: is a retrain worth requesting now?

Pure. Every distance is counted in records of the stream and not in wall time, so a replayed stream
gets the same decisions; the one exception is a budget per day, which only deployed runs have.
Whether the hardware may take the work is decided by the gate.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision


class RetrainFacts(BaseModel):
    """What is known when the question is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    drift_alarm: bool = Field(description="The last answer of drift.judge.")
    drift_because: str = Field(default="", description="Its reason.")
    contract_broken: bool = Field(
        default=False, description="Was that alarm about added or missing columns?"
    )
    performance_loss: float | None = Field(
        default=None,
        description="From drift.performance_loss: positive is worse; None or NaN: unknown.",
    )
    rows_available: int = Field(ge=0, description="Labelled rows that a fit could use.")
    new_rows: int = Field(ge=0, description="Of these, rows that arrived since the last training.")
    champion_present: bool
    champion_age_records: int | None = Field(
        default=None, ge=0, description="Records since the champion was trained."
    )
    records_since_retrain: int | None = Field(
        default=None,
        ge=0,
        description="Records since the last request ended, in any way; None: none has.",
    )
    records_since_change: int | None = Field(
        default=None,
        ge=0,
        description="Records since the labels left what was known (a new class, values outside the "
        "known range); None: they never did.",
    )
    open_request_position: int | None = Field(
        default=None,
        ge=0,
        description="Position at which the open request was made; None: none is open.",
    )
    fit_cost_s: float | None = Field(
        default=None,
        description="Seconds that a fit is expected to take; None or NaN: unknown.",
    )
    retrains_last_day: int | None = Field(
        default=None,
        ge=0,
        description="Retrains begun in the last 24 hours; None: a replay does not count hours.",
    )


class RetrainConfig(BaseModel):
    """Table ``[worth]``: when a retrain is worth its cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    min_rows: int = Field(
        default=500, ge=2, description="Rows that any fit needs; the first champion is asked here."
    )
    min_new_rows: int = Field(
        default=200, ge=0, description="New rows without which a fit would learn the same again."
    )
    cooldown_records: int = Field(
        default=2000,
        ge=0,
        description="Records after a request's end before the next one; not where the labels left "
        "what that one could know: a new class, values out of the range seen.",
    )
    max_retrains_per_day: int | None = Field(
        default=None,
        ge=1,
        description="Retrains that may begin within 24 hours; counted by deployed runs alone,"
        " since a stream that is replayed knows no hours.",
    )
    max_age_records: int | None = Field(
        default=None, ge=1, description="Retrain a champion of this age without any alarm."
    )
    costly_fit_s: float = Field(
        default=600.0,
        gt=0,
        allow_inf_nan=False,
        description="A fit expected to take this long needs a measured loss, not an alarm alone.",
    )
    costly_loss: float = Field(
        default=0.02,
        gt=0,
        allow_inf_nan=False,
        description="The loss of performance from which a costly fit pays.",
    )

    @property
    def since_change(self) -> int:
        """Records since a change of the labels below which a fit would learn the old world."""
        return 2 * self.min_new_rows


def judge(facts: RetrainFacts, config: RetrainConfig) -> Decision:
    """Decide whether to request a retrain now. The first reason that applies is the answer's."""
    yes, because = _verdict(facts, config)
    numbers = facts.model_dump(exclude={"drift_because"}) | config.model_dump()
    return Decision(question="worth", yes=yes, because=because, facts=numbers)


def _verdict(facts: RetrainFacts, config: RetrainConfig) -> tuple[bool, str]:
    if against := _obstacle(facts, config):
        return False, against
    if not facts.champion_present:
        return True, (
            f"there is no champion yet, and {facts.rows_available} rows are available "
            f"(needed {config.min_rows})"
        )
    age, limit = facts.champion_age_records, config.max_age_records
    too_old = age is not None and limit is not None and age >= limit
    if too_old:
        wanted = f"the champion is {age} records old (retrained from {limit})"
    elif facts.drift_alarm:
        wanted = f"drift: {facts.drift_because}"
    else:
        why = f": {facts.drift_because}" if facts.drift_because else ""
        return False, f"there is no drift alarm{why}"
    if facts.new_rows < config.min_new_rows:
        return False, (
            f"only {facts.new_rows} new rows since the last training "
            f"(needed {config.min_new_rows}), although {wanted}"
        )
    if not too_old and (against := _too_costly(facts, config)):
        return False, f"{against}, although {wanted}"
    return True, wanted


def unlearned_change(
    what: str,
    changed_at: int,
    *,
    trained_to: int,
    position: int,
    window: int,
    config: RetrainConfig,
) -> Decision:
    """Decide whether the champion knows too little of a change of the labels at `changed_at`.

    `what` describes the change. The champion was trained on records up to `trained_to`. If it still
    serves after a `window` of records, that is intended.
    """
    trained = max(trained_to - changed_at, 0)
    return Decision(
        question="change",
        yes=trained < config.min_rows and position - changed_at <= window,
        because=f"{what}; the champion was made from {trained} records since then",
        facts={"records_since": position - changed_at, "trained": trained, "window": window},
    )


def keeps_window(begun_at: int, position: int, window: int) -> Decision:
    """Decide whether to continue a fit that began at `begun_at`, rather than fit the newest rows.

    It is no where less than half of the fit's window is among the newest `window` records.
    """
    passed = position - begun_at
    return Decision(
        question="window",
        yes=passed <= window / 2,
        because=f"{passed} records came since the fit began, of a window of {window}",
        facts={"records_since": passed, "window": window},
    )


def _obstacle(facts: RetrainFacts, config: RetrainConfig) -> str:
    """Return what forbids any retrain; empty: nothing."""
    if facts.open_request_position is not None:
        return f"already asked at position {facts.open_request_position}"
    if facts.contract_broken:
        return (
            "a retrain would learn from columns that are not those agreed; "
            f"a person must look first: {facts.drift_because}"
        )
    if facts.rows_available < config.min_rows:
        return f"only {facts.rows_available} rows are available (needed {config.min_rows})"
    changed = facts.records_since_change
    if facts.champion_present and changed is not None and changed < config.since_change:
        return (
            f"only {changed} records came since the labels left what was known (needed "
            f"{config.since_change}, half of them to be held out): a fit would learn the old world "
            "again"
        )
    since = facts.records_since_retrain
    if since is not None and since < config.cooldown_records and not _overtaken(facts, config):
        return (
            f"the last request ended {since} records ago "
            f"(cooldown {config.cooldown_records} records)"
        )
    begun, most = facts.retrains_last_day, config.max_retrains_per_day
    if begun is not None and most is not None and begun >= most:
        return f"{begun} retrains began within the last 24 hours (at most {most})"
    return ""


def _overtaken(facts: RetrainFacts, config: RetrainConfig) -> bool:
    """Return whether the last request knew too little of a change for its cooldown to apply.

    It ended before the labels left what was known, or so soon after that there are twice as many
    records of the change now. Half of them are held out: once a fit could learn from `min_rows` of
    them, the cooldown applies again. So a change costs a few more retrains, each on twice the
    records, and never one at every drift check.
    """
    changed, since = facts.records_since_change, facts.records_since_retrain
    if changed is None or since is None:
        return False
    known = max(changed - since, 0)
    return known < 2 * config.min_rows and changed >= 2 * known


def _too_costly(facts: RetrainFacts, config: RetrainConfig) -> str:
    cost_s, loss = facts.fit_cost_s, facts.performance_loss
    # NaN is unknown; an infinite loss or cost is a number like others.
    if cost_s is None or not cost_s >= config.costly_fit_s:
        return ""
    if loss is not None and loss >= config.costly_loss:
        return ""
    is_unknown = loss is None or math.isnan(loss)
    measured = "no loss of performance is known" if is_unknown else f"the loss is {loss:.4g}"
    return (
        f"a fit is expected to take {cost_s:.0f} s (costly from {config.costly_fit_s:g} s), "
        f"which pays from a loss of {config.costly_loss:g}, and {measured}"
    )
