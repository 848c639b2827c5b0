"""Is a retrain worth asking for now? Evidence and policy in, an answer with its numbers out.

Pure. Every distance is counted in records of the stream and never in wall time, so that a stream
that is replayed is decided the same; but for one budget, which only deployed runs keep. Whether the
hardware may take the work is the gate's question.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision


class RetrainFacts(BaseModel):
    """All that is known when the question is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    drift_alarm: bool = Field(description="What drift.judge answered last.")
    drift_because: str = Field(default="", description="And why.")
    contract_broken: bool = Field(
        default=False, description="Was that alarm about columns that came or went?"
    )
    performance_loss: float | None = Field(
        default=None,
        description="As drift.performance_loss gives it: positive is worse; None or NaN: unknown.",
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
        description="Records since the last request ended, however it ended; None: none yet.",
    )
    records_since_change: int | None = Field(
        default=None,
        ge=0,
        description="Records since the labels left what was known (a new class, values out of the "
        "range seen); None: they never did.",
    )
    open_request_position: int | None = Field(
        default=None, ge=0, description="Where an open request was made; None: none is open."
    )
    fit_cost_s: float | None = Field(
        default=None,
        description="Seconds that a fit is expected to take; None or NaN: unknown.",
    )
    retrains_last_day: int | None = Field(
        default=None,
        ge=0,
        description="Retrains begun in the last 24 hours; None: a replay, which counts no hours.",
    )


class RetrainConfig(BaseModel):
    """The knobs of the table ``[worth]``: when a retrain pays."""

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


def judge(evidence: RetrainFacts, policy: RetrainConfig) -> Decision:
    """Yes: ask for a retrain now. The first reason that applies decides, and is the one told."""
    if against := _obstacle(evidence, policy):
        return _answer(False, against, evidence, policy)
    if not evidence.champion_present:
        return _answer(
            True,
            f"there is no champion yet, and {evidence.rows_available} rows are available "
            f"(needed {policy.min_rows})",
            evidence,
            policy,
        )
    wanted = _too_old(evidence, policy) or _alarmed(evidence)
    if not wanted:
        return _answer(False, _calm(evidence), evidence, policy)
    if evidence.new_rows < policy.min_new_rows:
        return _answer(
            False,
            f"only {evidence.new_rows} new rows since the last training "
            f"(needed {policy.min_new_rows}), although {wanted}",
            evidence,
            policy,
        )
    if not _too_old(evidence, policy) and (against := _too_costly(evidence, policy)):
        return _answer(False, f"{against}, although {wanted}", evidence, policy)
    return _answer(True, wanted, evidence, policy)


def unlearned_change(
    what: str,
    changed_at: int,
    *,
    trained_to: int,
    position: int,
    window: int,
    policy: RetrainConfig,
) -> Decision:
    """Does the champion know too little of a change of the labels at `changed_at`?

    `what` says how they changed. It was trained on records up to `trained_to`. After a `window` of
    records a champion that still serves has been left so on purpose.
    """
    trained = max(trained_to - changed_at, 0)
    return Decision(
        question="change",
        yes=trained < policy.min_rows and position - changed_at <= window,
        because=f"{what}; the champion was made from {trained} records since then",
        facts={"records_since": position - changed_at, "trained": trained, "window": window},
    )


def keeps_window(begun_at: int, position: int, window: int) -> Decision:
    """Is a fit that began at `begun_at` worth going on with, rather than one of the newest rows?

    It is not where less than half of its window is of the newest `window` records.
    """
    passed = position - begun_at
    return Decision(
        question="window",
        yes=passed <= window / 2,
        because=f"{passed} records came since the fit began, of a window of {window}",
        facts={"records_since": passed, "window": window},
    )


def _obstacle(evidence: RetrainFacts, policy: RetrainConfig) -> str:
    """What forbids any retrain, wanted or not."""
    if evidence.open_request_position is not None:
        return f"already asked at position {evidence.open_request_position}"
    if evidence.contract_broken:
        return (
            "a retrain would learn from columns that are not those agreed; "
            f"a person must look first: {evidence.drift_because}"
        )
    if evidence.rows_available < policy.min_rows:
        return f"only {evidence.rows_available} rows are available (needed {policy.min_rows})"
    changed = evidence.records_since_change
    if evidence.champion_present and changed is not None and changed < policy.since_change:
        return (
            f"only {changed} records came since the labels left what was known (needed "
            f"{policy.since_change}, half of them to be held out): a fit would learn the old world "
            "again"
        )
    since = evidence.records_since_retrain
    if since is not None and since < policy.cooldown_records and not _overtaken(evidence, policy):
        return (
            f"the last request ended {since} records ago "
            f"(cooldown {policy.cooldown_records} records)"
        )
    begun, most = evidence.retrains_last_day, policy.max_retrains_per_day
    if begun is not None and most is not None and begun >= most:
        return f"{begun} retrains began within the last 24 hours (at most {most})"
    return ""


def _overtaken(evidence: RetrainFacts, policy: RetrainConfig) -> bool:
    """Whether the last request knew too little of a change for its cooldown to bind.

    It ended before the labels left what was known, or so soon after that twice the records are
    there by now. Half of them are held out: once a fit could learn from `min_rows` of them it is a
    fit like others. So a change costs a few retrains more, each on twice the records, and never one
    at every look.
    """
    changed, since = evidence.records_since_change, evidence.records_since_retrain
    if changed is None or since is None:
        return False
    known = max(changed - since, 0)
    return known < 2 * policy.min_rows and changed >= 2 * known


def _too_old(evidence: RetrainFacts, policy: RetrainConfig) -> str:
    age, limit = evidence.champion_age_records, policy.max_age_records
    if age is None or limit is None or age < limit:
        return ""
    return f"the champion is {age} records old (retrained from {limit})"


def _alarmed(evidence: RetrainFacts) -> str:
    return f"drift: {evidence.drift_because}" if evidence.drift_alarm else ""


def _calm(evidence: RetrainFacts) -> str:
    why = f": {evidence.drift_because}" if evidence.drift_because else ""
    return f"there is no drift alarm{why}"


def _too_costly(evidence: RetrainFacts, policy: RetrainConfig) -> str:
    cost_s, loss = _known(evidence.fit_cost_s), _known(evidence.performance_loss)
    if cost_s is None or cost_s < policy.costly_fit_s:
        return ""
    if loss is not None and loss >= policy.costly_loss:
        return ""
    measured = "no loss of performance is known" if loss is None else f"the loss is {loss:.4g}"
    return (
        f"a fit is expected to take {cost_s:.0f} s (costly from {policy.costly_fit_s:g} s), "
        f"which pays from a loss of {policy.costly_loss:g}, and {measured}"
    )


def _known(value: float | None) -> float | None:
    """NaN is unknown; an infinite loss or cost is a number like others."""
    return None if value is None or math.isnan(value) else value


def _answer(yes: bool, because: str, evidence: RetrainFacts, policy: RetrainConfig) -> Decision:
    facts = evidence.model_dump(exclude={"drift_because"}) | policy.model_dump()
    return Decision(question="worth", yes=yes, because=because, facts=facts)
