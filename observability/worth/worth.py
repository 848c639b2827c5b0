"""The worth policy: does a retrain pay now, and in which way?

Pure. What a retrain is expected to save is weighed against what it costs, in one unit: a record's
worth of the baseline's loss. So a model that is worse than it was by a tenth of what the baseline
loses costs a tenth of the unit with every record, on any stream and by any metric.

    lost      what the champion loses now beyond the level of the last comparison, times the chance
              that this is a change and no noise
    growth    what a fit on more rows would save, by the learning curve
    served    of both, what reaches what is served: a champion adds to the blend no more than what
              the blend loses without one (see `blend_value`)
    gain      of both, the share that past retrains for such reasons brought
    horizon   records until the next change, which end what is gained
    cost      seconds, energy and money of a fit, at the exchange rates of [worth]

The answer is now, capped, later, skip or reuse. Where a number is unknown, or past expectations did
not come true, a plain rule decides (an alarm and a cooldown), and the decision says so. A person's
rules come before both. Every distance is counted in records and not in wall time, and a fit's
seconds are counted in steps, so a replayed stream gets the same decisions; the one exception is a
budget per day, which only deployed runs have. Whether the hardware may take the work is decided by
the gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from observability.core.decision import Decision, Fact
from observability.worth import calibration
from observability.worth.blend_value import BlendValue
from observability.worth.calibration import Calibration
from observability.worth.learning_curve import LearningCurve
from observability.worth.season import Season

Answer = Literal["now", "capped", "later", "skip", "reuse"]
DecidedBy = Literal["obstacle", "archive", "first", "person", "labels", "alarm", "value"]

LEAST_FIT_S = 30.0
"""A shorter fit counts as this long, and a longer one in doublings of it: how long a fit took
differs from run to run, and a replay must decide the same."""
USUAL_CHANGE = 0.2
"""Least standard deviation of what a change costs, as a share of the baseline's loss."""
LEAST_CHANCE, MOST_CHANCE, REAL_CHANCE = 0.01, 0.5, 0.9
"""The chance of a change before the loss is looked at: its bounds, and where drift.judge says that
the error has risen."""
ARCHIVE_ERRORS = 2.0
"""Standard errors by which one archived version must beat the champion; more for several."""
LEAST_HORIZON = 500.0
"""Records that any gain is counted for at least."""


class RetrainFacts(BaseModel):
    """What is known when the question is asked. A None or NaN is unknown.

    Losses, gains and standard errors are shares of the baseline's loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    drift_alarm: bool = Field(description="The last answer of drift.judge.")
    drift_because: str = Field(default="", description="Its reason.")
    drift_nature: Literal["real", "virtual"] | None = Field(
        default=None,
        description="real: the champion's error has risen; virtual: features moved and the error "
        "did not; None: unknown, or no drift.",
    )
    contract_broken: bool = Field(
        default=False, description="Was that alarm about added or missing columns?"
    )
    labels_changed: bool = Field(
        default=False, description="Was it about labels that no model could know?"
    )
    performance_loss: float | None = Field(
        default=None, description="From drift.performance_loss: positive is worse."
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
    retrains_last_day: int | None = Field(
        default=None,
        ge=0,
        description="Retrains begun in the last 24 hours; None: a replay does not count hours.",
    )
    lost: float | None = Field(
        default=None,
        description="The champion's loss on the newest rows less that of the last comparison.",
    )
    lost_error: float | None = Field(default=None, description="Standard error of `lost`.")
    champion_ahead: float | None = Field(
        default=None,
        description="How much less the champion loses than the blend without it; None: not "
        "measured, and what the champion gains counts as gained by what is served.",
    )
    champion_adds: float | None = Field(
        default=None, description="What the blend would lose more without the champion."
    )
    champion_adds_error: float | None = Field(default=None, description="Its standard error.")
    blend_width: float = Field(
        default=0.0,
        ge=0,
        description="How much a champion adds that is as good as the blend without one, over the "
        "logarithm of 2.",
    )
    records_since_level: int = Field(default=0, ge=0, description="Records since that comparison.")
    rows_then: float | None = Field(
        default=None, description="Rows of the present concept that the last challenger had."
    )
    rows_now: float | None = Field(
        default=None, description="Rows of it that a challenger would have now."
    )
    rows_per_record: float = Field(
        default=0.8, ge=0, description="Rows that it has more with every record of waiting."
    )
    rows_most: float | None = Field(default=None, description="Rows that a window can hold.")
    deficit: float = Field(
        default=0.0, ge=0, description="How far the last challenger lost against the champion."
    )
    curve_scale: float | None = Field(
        default=None, description="Of the learning curve scale * rows^-exponent."
    )
    curve_exponent: float | None = None
    curve_error: float = Field(default=0.0, ge=0, description="Standard error of the exponent.")
    curve_sizes: int = Field(
        default=0, ge=0, description="Sizes that it was learned from; 0: its exponent is stated."
    )
    loss_share: float = Field(
        default=1.0, ge=0, le=1, description="Of what was lost, the share that retrains brought."
    )
    growth_share: float = Field(
        default=1.0, ge=0, le=1, description="Of what growth promised, the share that came."
    )
    calibration_count: int = Field(default=0, ge=0, description="Expectations that were checked.")
    calibration_ratio: float | None = Field(
        default=None, description="What came as a share of what was expected."
    )
    calibration_low: float | None = Field(default=None, description="Its interval of 95 %.")
    calibration_high: float | None = None
    records_seen: int = Field(default=0, ge=0, description="Records over which changes are known.")
    changes_known: float = Field(
        default=0, ge=0, description="Changes in these records; an uncertain one counts in part."
    )
    concept_age_records: int = Field(
        default=0, ge=0, description="Records since the last change; without one, all records."
    )
    fit_cost_s: float | None = Field(
        default=None, description="Seconds that a fit is expected to take."
    )
    fit_joules: float | None = Field(default=None, description="Energy of a fit.")
    fit_price: float | None = Field(default=None, description="Money for that energy.")
    capped_energy_share: float | None = Field(
        default=None,
        description="Energy of a fit under the best lower power limit, as a share of that without; "
        "None: no limit can be set, or none was measured.",
    )
    capped_time_share: float = Field(
        default=1.0, gt=0, description="Its seconds as a share of those without."
    )
    device_warm: bool = Field(
        default=False, description="Was the device too warm when it was asked for last?"
    )
    archived_version: str | None = Field(
        default=None, description="The best of the archived versions that were scored."
    )
    archived_count: int = Field(default=0, ge=0, description="Archived versions that were scored.")
    archived_gain: float | None = Field(
        default=None, description="What it saves against the champion on the newest rows."
    )
    archived_error: float | None = Field(
        default=None, description="Standard error of that difference, paired by row."
    )
    season_returns: int = Field(
        default=0,
        ge=0,
        description="How often concepts have come back, where they do at regular intervals.",
    )
    season_shortest: int | None = Field(
        default=None, description="Records after which they came back of late, at least."
    )
    season_longest: int | None = Field(default=None, description="The same, at most.")
    candidate_version: str | None = Field(
        default=None, description="A challenger that won, and waits for a person's word."
    )
    candidate_since: int | None = Field(default=None, description="Position at which it won.")
    last_without_model: bool = Field(
        default=False, description="Did the last request end without a challenger?"
    )


class RetrainConfig(BaseModel):
    """Table ``[worth]``: when a retrain is worth its cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    decide: Literal["value", "alarm", "person"] = Field(
        default="value",
        description="What asks for a retrain beside a person's rules. value: it is expected to "
        "save more than it costs; alarm: a drift alarm, with a cooldown; person: nothing else.",
    )
    fit_second_pays: float = Field(
        default=4.0,
        ge=0,
        allow_inf_nan=False,
        description="What a second of fitting must save: so many records' worth of the baseline's "
        "loss. Larger retrains less. A fit of less than 30 s counts as 30 s, a longer one in "
        "doublings of that, so that a replay decides the same.",
    )
    fit_kilojoule_pays: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="The same for a kilojoule that a fit uses, where energy is measured; a replay "
        "may then decide otherwise.",
    )
    fit_price_pays: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="The same for a unit of money, where the home's file has a price.",
    )
    most_horizon_records: int = Field(
        default=20_000,
        ge=500,
        description="Records for which a gain is counted at most, however rare changes are.",
    )
    archived_versions: int = Field(
        default=5,
        ge=0,
        description="Newest other versions that are scored on the newest rows where the champion "
        "loses: one that beats it soundly serves again without a fit. 0: none.",
    )
    min_rows: int = Field(
        default=500, ge=2, description="Rows that any fit needs; the first champion is asked here."
    )
    min_new_rows: int = Field(
        default=200, ge=0, description="New rows without which a fit would learn the same again."
    )
    cooldown_records: int = Field(
        default=2000,
        ge=0,
        description="Where an alarm decides: records after a request's end before the next one; "
        "not where the labels left what that one could know: a new class, values out of the range "
        "seen.",
    )
    every_records: int | None = Field(
        default=None,
        ge=1,
        description="A person's schedule: retrain so many records after the last retrain.",
    )
    every_new_rows: int | None = Field(
        default=None,
        ge=1,
        description="A person's amount: retrain once so many new labelled rows have come.",
    )
    max_age_records: int | None = Field(
        default=None, ge=1, description="Retrain a champion of this age without any alarm."
    )
    max_retrains_per_day: int | None = Field(
        default=None,
        ge=1,
        description="Retrains that may begin within 24 hours; counted by deployed runs alone,"
        " since a stream that is replayed knows no hours.",
    )
    costly_fit_s: float = Field(
        default=600.0,
        gt=0,
        allow_inf_nan=False,
        description="Where an alarm decides: a fit expected to take this long needs a measured "
        "loss, not an alarm alone.",
    )
    costly_loss: float = Field(
        default=0.02,
        gt=0,
        allow_inf_nan=False,
        description="The loss of performance from which such a costly fit pays.",
    )

    @property
    def since_change(self) -> int:
        """Records since a change of the labels below which a fit would learn the old world."""
        return 2 * self.min_new_rows


class Value(NamedTuple):
    """What a retrain is expected to save and to cost, in records' worth of the baseline's loss.

    What is saved is of what is served, where it is known what the champion adds to that.
    """

    lost: float
    """Per record, of what the champion loses now: what a retrain could save of it."""
    growth: float
    """Per record, what more rows would save beyond that."""
    own: float
    """Per record, what the champion's own loss would gain, whatever the blend makes of it."""
    gain: float
    """Of both, what is expected to come."""
    horizon: float
    """Records."""
    cost: float
    capped_cost: float | None
    """Under a lower power limit; None: there is none."""
    later: int | None
    """Records after which it would pay more; None: now is best, or it never pays."""
    total: float
    """gain times horizon."""
    waiting: float
    """What 1,000 records of waiting lose."""
    chance: float
    """That what the champion loses is a change and no noise; 0 where it loses nothing."""

    @property
    def pays(self) -> bool:
        """Whether a retrain now saves more than it costs."""
        return self.total > self.cost

    @property
    def raw_gain(self) -> float:
        """What was lost and promised, before past retrains are taken into account."""
        return self.lost + self.growth

    @property
    def evidence(self) -> str:
        """What the larger part of the gain is for."""
        return "growth" if self.growth > self.lost else "loss"


class _Verdict(NamedTuple):
    answer: Answer
    by: DecidedBy
    because: str
    later: int | None = None


def judge(facts: RetrainFacts, config: RetrainConfig) -> Decision:
    """Decide whether to request a retrain now. The first reason that applies is the answer's.

    `answer` among the decision's facts is now, capped, later, skip or reuse; `decided_by` says what
    decided, `evidence` what for, and `expected_gain`, `horizon_records`, `cost_records` and
    `waiting_loses` (per 1,000 records) are what it rests on; None is unknown.
    """
    value = weigh(facts, config)
    verdict = _verdict(facts, config, value)
    wanted = verdict.answer in ("now", "capped", "reuse")
    numbers: dict[str, Fact] = {
        "answer": verdict.answer,
        "decided_by": verdict.by,
        "evidence": _evidence(verdict, value),
        "later_records": verdict.later,
        "expected_raw_gain": None if value is None else value.raw_gain,
        "expected_gain": None if value is None else value.gain,
        "horizon_records": None if value is None else value.horizon,
        "cost_records": None if value is None else value.cost,
        "capped_cost_records": None if value is None else value.capped_cost,
        "waiting_loses": None if value is None else value.waiting,
        "change_chance": None if value is None else value.chance,
    }
    if verdict.answer == "reuse":
        expected = None if facts.archived_gain is None else served_gain(facts, facts.archived_gain)
        numbers |= {
            "expected_raw_gain": expected,
            "expected_gain": expected,
            "horizon_records": horizon(facts, config),
        }
    known = facts.model_dump(exclude={"drift_because"}) | config.model_dump()
    return Decision(question="worth", yes=wanted, because=verdict.because, facts=known | numbers)


def _evidence(verdict: _Verdict, value: Value | None) -> str | None:
    if verdict.answer not in ("now", "capped", "reuse"):
        return None
    if verdict.by == "value" and value is not None:
        return value.evidence
    return verdict.by


def _verdict(facts: RetrainFacts, config: RetrainConfig, value: Value | None) -> _Verdict:
    if facts.contract_broken:
        return _skip(
            "a retrain would learn from columns that are not those agreed; "
            f"a person must look first: {facts.drift_because}"
        )
    may_reuse = facts.champion_present and config.decide != "person"
    if may_reuse and (found := _archived(facts, value)):
        return _Verdict("reuse", "archive", found)
    if against := _obstacle(facts, config):
        return _skip(against)
    if not facts.champion_present:
        return _first(facts, config)
    if wish := _persons_wish(facts, config):
        return _if_new_rows(_Verdict("now", "person", wish), facts, config)
    if config.decide == "person":
        return _skip("no rule of a person asks for a retrain, and no other may (decide = person)")
    if facts.labels_changed and facts.drift_alarm:
        return _plain(facts, config, "labels", "")
    if config.decide == "alarm":
        return _plain(facts, config, "alarm", "")
    if value is None:
        why = f"what a retrain would bring is unknown ({_unknown(facts)}): an alarm decides; "
        return _plain(facts, config, "alarm", why)
    trusted = calibration.judge(
        Calibration(
            facts.calibration_count,
            facts.calibration_ratio,
            facts.calibration_low,
            facts.calibration_high,
        )
    )
    if not trusted:
        why = f"expectations did not come true ({trusted.because}): an alarm decides; "
        return _plain(facts, config, "alarm", why)
    return _if_new_rows(_by_value(facts, value), facts, config)


def _skip(because: str) -> _Verdict:
    return _Verdict("skip", "obstacle", because)


def _first(facts: RetrainFacts, config: RetrainConfig) -> _Verdict:
    """The first champion is asked for at once; after a rejected one, once the rows doubled."""
    since = facts.records_since_retrain
    doubled = (
        facts.rows_then is not None
        and facts.rows_now is not None
        and facts.rows_now >= 2 * facts.rows_then
    )
    if since is not None and not doubled and (against := _cooldown(facts, config)):
        return _skip(against)
    return _Verdict(
        "now",
        "first",
        f"there is no champion yet, and {facts.rows_available} rows are available "
        f"(needed {config.min_rows})",
    )


def _persons_wish(facts: RetrainFacts, config: RetrainConfig) -> str:
    """The rule of a person that asks for a retrain now; empty: none does."""
    since, every = facts.records_since_retrain, config.every_records
    if every is not None and (since is None or since >= every):
        ago = "no retrain ended yet" if since is None else f"the last one ended {since} records ago"
        return f"{ago}, and the schedule is one every {every} records"
    amount = config.every_new_rows
    if amount is not None and facts.new_rows >= amount:
        return f"{facts.new_rows} new rows have come (a retrain every {amount})"
    age, limit = facts.champion_age_records, config.max_age_records
    if age is not None and limit is not None and age >= limit and not _cooldown(facts, config):
        return f"the champion is {age} records old (retrained from {limit})"
    return ""


def _if_new_rows(verdict: _Verdict, facts: RetrainFacts, config: RetrainConfig) -> _Verdict:
    """The same, unless a retrain would learn the same rows again."""
    if verdict.answer not in ("now", "capped") or facts.new_rows >= config.min_new_rows:
        return verdict
    return verdict._replace(
        answer="skip",
        because=f"only {facts.new_rows} new rows since the last training "
        f"(needed {config.min_new_rows}), although {verdict.because}",
    )


def _plain(facts: RetrainFacts, config: RetrainConfig, by: DecidedBy, why: str) -> _Verdict:
    """The plain rule: an alarm asks for a retrain, a cooldown after the last one forbids it."""
    if not facts.drift_alarm:
        reason = f": {facts.drift_because}" if facts.drift_because else ""
        return _Verdict("skip", by, f"{why}there is no drift alarm{reason}")
    if against := _cooldown(facts, config):
        return _Verdict("skip", by, f"{why}{against}")
    wanted = _Verdict("now", by, f"{why}drift: {facts.drift_because}")
    verdict = _if_new_rows(wanted, facts, config)
    if verdict.answer == "now" and (against := _too_costly(facts, config)):
        return _Verdict("skip", by, f"{against}, although {wanted.because}")
    return verdict


def _by_value(facts: RetrainFacts, value: Value) -> _Verdict:
    told = (
        f"a retrain is expected to save {value.gain:.3g} of the baseline's loss per record "
        f"({_parts(facts, value)}) for {value.horizon:.0f} records, {value.total:.0f} records' "
        f"worth, and costs {value.cost:.0f}"
    )
    if value.later is not None:
        better = "it pays more" if value.pays else "it is expected to pay"
        return _Verdict("later", "value", f"{told}: {better} in {value.later} records", value.later)
    capped = value.capped_cost
    if value.pays and facts.device_warm and capped is not None:
        return _Verdict("capped", "value", f"{told}; the device is warm: under a lower power limit")
    if value.pays:
        return _Verdict("now", "value", told)
    if capped is not None and value.total > capped:
        because = f"{told}, and {capped:.0f} under a lower power limit"
        return _Verdict("capped", "value", because)
    return _Verdict("skip", "value", told)


def _parts(facts: RetrainFacts, value: Value) -> str:
    virtual = ", features alone moved" if facts.drift_nature == "virtual" else ""
    adds = "; what the champion adds to the blend is not known, so all of it counts"
    if facts.champion_ahead is not None:
        than = f"{abs(facts.champion_ahead):.3g} {'less' if facts.champion_ahead >= 0 else 'more'}"
        adds = f"; the champion loses {than} than the blend without it"
        if facts.champion_adds is not None:
            adds += f", to which it adds {facts.champion_adds:.3g}"
    return (
        f"{value.lost:.3g} of it lost now{virtual}, {value.growth:.3g} by more rows, of which past "
        f"retrains brought {facts.loss_share:.0%} and {facts.growth_share:.0%}{adds}"
    )


def _archived(facts: RetrainFacts, value: Value | None) -> str:
    """Why the archived version serves better than champion and fit; empty: it does not.

    The bound grows with the number of versions that were scored, as Bonferroni's does: the best of
    several looks better than it is.
    """
    gain, error, count = facts.archived_gain, facts.archived_error, facts.archived_count
    if facts.archived_version is None or gain is None or error is None or count < 1:
        return ""
    if facts.candidate_version is not None and not _overtakes(facts):
        return ""
    errors = math.sqrt(ARCHIVE_ERRORS**2 + 2 * math.log(count))
    expected = 0.0 if value is None else value.own
    if not (math.isfinite(gain) and gain > errors * error >= 0 and gain >= expected):
        return ""
    return (
        "a concept has come back: "
        f"archived version {facts.archived_version} loses {gain:.3g} of the baseline's loss less "
        f"than the champion on the newest rows (standard error {error:.2g}, the best of {count}), "
        f"and a fit is expected to save {expected:.3g}{_season(facts)}"
    )


def _season(facts: RetrainFacts) -> str:
    """What is known of the interval at which concepts come back, as part of a sentence."""
    if facts.season_shortest is None or facts.season_longest is None:
        return ""
    known = Season(facts.season_shortest, facts.season_longest, facts.season_returns)
    return f"; {known.describe()}"


def weigh(facts: RetrainFacts, config: RetrainConfig) -> Value | None:
    """What a retrain now is expected to save and to cost; None where a number is unknown."""
    if _unknown(facts):
        return None
    assert facts.lost is not None
    assert facts.rows_then is not None
    assert facts.rows_now is not None
    lost, ahead = _real_loss(facts), horizon(facts, config)
    cost = _cost(facts, config)
    capped = None
    if facts.capped_energy_share is not None:
        capped = _cost(facts, config, facts.capped_time_share, facts.capped_energy_share)
    blend = _blend(facts)
    parts = _gain(facts, blend, lost, 0.0)
    gain = _expected(facts, parts)
    plans = [(gain * ahead - cost, 0)]
    for wait in _waits(facts, ahead):
        then = _expected(facts, _gain(facts, blend, lost, wait))
        plans.append((then * (ahead - wait) - cost, wait))
        # A fit now and another one later; one that brings nothing by now is no part of a plan.
        if gain > 0:
            plans.append((gain * wait + then * (ahead - wait) - 2 * cost, 0))
    # Of plans that are worth the same, the one that begins now.
    best, wait = max(plans, key=lambda plan: (plan[0], -plan[1]))
    return Value(
        lost=parts[0],
        growth=parts[1],
        own=gain if blend is None else _expected(facts, _gain(facts, None, lost, 0.0)),
        gain=gain,
        horizon=ahead,
        cost=cost,
        capped_cost=capped,
        later=wait if best > 0 and wait > 0 else None,
        total=gain * ahead,
        waiting=1000 * gain,
        chance=_chance(facts),
    )


def _unknown(facts: RetrainFacts) -> str:
    """What is missing for an expectation; empty: nothing is."""
    needed: dict[str, float | None] = {
        "what the champion loses": facts.lost,
        "its standard error": facts.lost_error,
        "the rows of the last challenger": facts.rows_then,
        "the rows of the next one": facts.rows_now,
        "the learning curve": facts.curve_scale,
        "how long a fit takes": facts.fit_cost_s,
    }
    missing = [what for what, value in needed.items() if value is None or not math.isfinite(value)]
    return ", ".join(missing)


def _real_loss(facts: RetrainFacts) -> float:
    """What the champion is expected to lose beyond the level, given what was measured.

    Either nothing has changed and what was measured is noise, or there was a change whose cost is
    normal around 0; the expectation weighs both. It grows with the loss, and a loss of two standard
    errors that was looked for at every check is mostly noise.
    Source: T. J. Mitchell and J. J. Beauchamp, "Bayesian Variable Selection in Linear Regression",
    JASA 83 (1988).
    """
    assert facts.lost is not None
    return _chance(facts) * _kept(facts) * max(facts.lost, 0.0)


def _kept(facts: RetrainFacts) -> float:
    """Of a loss that is a change, the share that is not noise."""
    noise, usual = _variances(facts)
    return usual / (usual + noise)


def _variances(facts: RetrainFacts) -> tuple[float, float]:
    """Of the noise, and of what a change costs: of one that large, where it is plainly no noise."""
    assert facts.lost is not None
    assert facts.lost_error is not None
    noise = max(facts.lost_error, 1e-9) ** 2
    return noise, max(USUAL_CHANGE**2, facts.lost**2 - noise)


def _chance(facts: RetrainFacts) -> float:
    """The chance that what the champion loses is a change; 0 where it loses nothing."""
    lost, error = facts.lost, facts.lost_error
    assert lost is not None
    assert error is not None
    if not lost > 0:
        return 0.0
    noise, usual = _variances(facts)
    if facts.drift_nature == "real":
        chance = REAL_CHANCE
    else:
        usually = max(facts.records_seen / (facts.changes_known + 1), 1.0)
        passed = 1.0 - math.exp(-facts.records_since_level / usually)
        chance = min(max(passed, LEAST_CHANCE), MOST_CHANCE)
    # The logarithm of the odds of a change; it may be large.
    odds = (
        math.log(chance / (1.0 - chance))
        + 0.5 * math.log(noise / (noise + usual))
        + 0.5 * lost * lost / noise * _kept(facts)
    )
    return 1.0 / (1.0 + math.exp(-min(odds, 700.0))) if odds > -700.0 else 0.0


def _gain(
    facts: RetrainFacts, blend: BlendValue | None, lost: float, wait: float
) -> tuple[float, float]:
    """What a fit after so many records would save: of the loss, and beyond it by more rows.

    With fewer rows of the present concept than the last challenger had, it saves less of the loss.
    It is the mean over the exponents that the learning curve may have: where a champion adds only
    once it is good enough, the mean exponent alone would never promise that.
    """
    assert facts.rows_then is not None

    def adds(better: float) -> float:
        return better if blend is None else blend.adds(better)

    rows = _rows(facts, wait)
    of_loss = growth = 0.0
    for weight, curve in _curves(facts):
        saved = curve.saved(facts.rows_then, rows)
        of_loss += weight * max(adds(lost + min(saved, 0.0)) - adds(0.0), 0.0)
        growth += weight * (adds(lost + max(saved - facts.deficit, 0.0)) - adds(lost))
    return of_loss, growth


def attainable(loss: float, unit: float, unit_now: float, nature: Fact) -> float:
    """What a champion may lose now that has not changed, as a share of the baseline's loss now.

    `loss` was its share when the baseline lost `unit`; it loses `unit_now` now. Where labels become
    rarer, or spread less, all lose less: unless drift.judge says that the error has risen (`nature`
    is real), a champion that loses as much as it did has not changed.
    """
    return loss if nature == "real" else loss * max(unit / unit_now, 1.0)


def served_gain(facts: RetrainFacts, gain: float) -> float:
    """What is served gains where the champion's own loss falls by so much."""
    blend = _blend(facts)
    return gain if blend is None else blend.gain(gain)


def _blend(facts: RetrainFacts) -> BlendValue | None:
    """What champions add to the blend; None: it is not known."""
    if facts.champion_ahead is None:
        return None
    return BlendValue(facts.champion_ahead, facts.blend_width)


def _expected(facts: RetrainFacts, parts: tuple[float, float]) -> float:
    return facts.loss_share * parts[0] + facts.growth_share * parts[1]


def _rows(facts: RetrainFacts, wait: float) -> float:
    assert facts.rows_now is not None
    rows = facts.rows_now + facts.rows_per_record * wait
    return rows if facts.rows_most is None else max(min(rows, facts.rows_most), facts.rows_now)


def _waits(facts: RetrainFacts, ahead: float) -> Iterator[int]:
    """Waits, in records, until the rows are half as many more, twice, three times, ... as many."""
    assert facts.rows_now is not None
    rate = facts.rows_per_record
    if rate <= 0:
        return
    for times in (1.5, 2.0, 3.0, 4.0, 8.0, 16.0):
        rows = max(facts.rows_now, 1.0) * times
        wait = (rows - facts.rows_now) / rate
        if wait >= ahead or (facts.rows_most is not None and rows > facts.rows_most):
            return
        yield math.ceil(wait)


def _curves(facts: RetrainFacts) -> Iterator[tuple[float, LearningCurve]]:
    """The learning curve with each exponent that is tried, and its weight.

    Three exponents stand for a normal distribution, as Gauss and Hermite chose them. All curves go
    through the last challenger.
    """
    assert facts.curve_scale is not None
    assert facts.rows_then is not None
    curve = LearningCurve(facts.curve_scale, facts.curve_exponent or 0.0)
    apart = math.sqrt(3.0) * facts.curve_error
    for weight, moved in ((1 / 6, -apart), (2 / 3, 0.0), (1 / 6, apart)):
        yield weight, curve.turned(facts.rows_then, curve.exponent + moved)


def horizon(facts: RetrainFacts, config: RetrainConfig) -> float:
    """Records until the next change.

    After k changes in n records, concepts lasted n / (k + 1) records in the mean, the present one
    included. It is expected to go on for as long as that, or as it has lasted so far where that is
    more (the rule of Lindy). Without any change both are the same. Source: J. R. Gott,
    "Implications of the Copernican principle for our future prospects", Nature 363 (1993).
    """
    usually = facts.records_seen / (facts.changes_known + 1)
    ahead = max(usually, float(facts.concept_age_records), LEAST_HORIZON)
    return min(ahead, float(config.most_horizon_records))


def _cost(
    facts: RetrainFacts, config: RetrainConfig, time_share: float = 1.0, energy_share: float = 1.0
) -> float:
    """The cost of a fit in records' worth of the baseline's loss; unknown energy adds nothing."""
    assert facts.fit_cost_s is not None
    cost = _counted(facts.fit_cost_s * time_share) * config.fit_second_pays
    if facts.fit_joules is not None and math.isfinite(facts.fit_joules):
        cost += facts.fit_joules * energy_share / 1000.0 * config.fit_kilojoule_pays
    if facts.fit_price is not None and math.isfinite(facts.fit_price):
        cost += facts.fit_price * energy_share * config.fit_price_pays
    return cost


def _counted(seconds: float) -> float:
    """Seconds as they are counted: at least LEAST_FIT_S, in doublings of that."""
    if seconds <= LEAST_FIT_S:
        return LEAST_FIT_S
    doublings: int = math.ceil(math.log2(seconds / LEAST_FIT_S))
    return LEAST_FIT_S * 2.0**doublings


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
    """Return what forbids any fit; empty: nothing."""
    if facts.open_request_position is not None:
        return f"already asked at position {facts.open_request_position}"
    if facts.candidate_version is not None and not _overtakes(facts):
        return (
            f"version {facts.candidate_version} has won and waits for a person's word since "
            f"position {facts.candidate_since}, and drift has not risen since"
        )
    if facts.last_without_model and (against := _cooldown(facts, config)):
        return against
    if facts.rows_available < config.min_rows:
        return f"only {facts.rows_available} rows are available (needed {config.min_rows})"
    changed = facts.records_since_change
    if facts.champion_present and changed is not None and changed < config.since_change:
        return (
            f"only {changed} records came since the labels left what was known (needed "
            f"{config.since_change}, half of them to be held out): a fit would learn the old world "
            "again"
        )
    begun, most = facts.retrains_last_day, config.max_retrains_per_day
    if begun is not None and most is not None and begun >= most:
        return f"{begun} retrains began within the last 24 hours (at most {most})"
    return ""


def _overtakes(facts: RetrainFacts) -> bool:
    """Return whether drift has risen beyond what the waiting candidate was made for."""
    return facts.drift_alarm and (facts.labels_changed or loses(facts))


def loses(facts: RetrainFacts) -> bool:
    """Return whether what the champion loses is rather a change than noise."""
    if facts.lost is None or facts.lost_error is None:
        return False
    return _chance(facts) > 0.5


def look_again(position: int, checked_at: int, pays_at: int | None) -> Decision:
    """Decide whether to check at `position` since a retrain was expected to pay from `pays_at` on.

    The last check was at `checked_at`.
    """
    yes = pays_at is not None and checked_at < pays_at <= position
    because = f"a retrain was expected to pay from position {pays_at} on"
    if not yes:
        because = "no retrain was expected to pay by now"
    return Decision(
        question="look", yes=yes, because=because, facts={"pays_at": pays_at, "position": position}
    )


def _cooldown(facts: RetrainFacts, config: RetrainConfig) -> str:
    since = facts.records_since_retrain
    if since is None or since >= config.cooldown_records or _overtaken(facts, config):
        return ""
    return (
        f"the last request ended {since} records ago (cooldown {config.cooldown_records} records)"
    )


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
