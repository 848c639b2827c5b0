"""Has the world changed since the champion was trained? What was measured, the knobs, the answer.

Pure: it measures nothing and imports no library that does. The door `reports` brings the scores;
thresholds, and which side of them is drift, are owned here. A score that is not known is never
read as "no drift".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from observability.core.decision import Decision, Fact

Role = Literal["feature", "target", "prediction"]
Kind = Literal["number", "category"]
Outcome = Literal["alarm", "calm", "not_enough_data", "contract_broken"]
Unit = Literal["points", "baseline", "own"]

FEWEST_REFERENCE = 100
"""Values of a reference below which nothing is said, however few `min_rows` the reference has.

A reference does not grow until the next champion, so asking it for more than it has would switch a
vote off for ever. With 100 values against a window of 1,000 the noise of sampling alone crosses the
usual threshold of Jensen-Shannon (0.1, two equal classes) in 3 looks of 100, with 50 in 9, with 30
in 19; of Wasserstein (0.3) with 100 against 100 in 6, with 50 in 23 (1,000 simulated pairs each).
"""
NOISE_ERRORS = 2.0
"""Standard errors of the current score that a loss of performance must exceed to be an alarm."""

NumberMethod = Literal[
    "wasserstein",
    "jensenshannon",
    "hellinger",
    "psi",
    "kl_div",
    "ks",
    "anderson",
    "cramer_von_mises",
    "t_test",
]
CategoryMethod = Literal["jensenshannon", "hellinger", "psi", "kl_div", "chisquare"]


class Method(NamedTuple):
    """Which way a method's score points, and the threshold it gets when none is named."""

    larger_is_drift: bool
    usual_threshold: float


METHODS: Mapping[str, Method] = {
    # In standard deviations of the reference. 0.1, the usual advice, is what a month's season or
    # the noise of a thousand autocorrelated rows makes; 0.3 is what a person sees in a plot.
    "wasserstein": Method(larger_is_drift=True, usual_threshold=0.3),
    "jensenshannon": Method(larger_is_drift=True, usual_threshold=0.1),
    "hellinger": Method(larger_is_drift=True, usual_threshold=0.1),
    "psi": Method(larger_is_drift=True, usual_threshold=0.2),
    "kl_div": Method(larger_is_drift=True, usual_threshold=0.1),
    # Significance, not size: with enough rows every difference is significant.
    "ks": Method(larger_is_drift=False, usual_threshold=0.01),
    # Its p-value is never reported below 0.001.
    "anderson": Method(larger_is_drift=False, usual_threshold=0.01),
    "cramer_von_mises": Method(larger_is_drift=False, usual_threshold=0.01),
    "t_test": Method(larger_is_drift=False, usual_threshold=0.01),
    "chisquare": Method(larger_is_drift=False, usual_threshold=0.01),
}
"""The statistical tests of evidently that can be chosen, by evidently's names.

Left out on purpose, of those that evidently 0.7 has: `mannw` (one-sided: deaf to a shift one way),
`ed` (in the column's unit, so no threshold fits two columns), `g_test` and `fisher_exact` (need
windows of equal size), `z` (two categories only), `es` (fails on a column with little variety),
`TVD` and `empirical_mmd` (reseed numpy's global generator, or take seconds).
"""


class WatchedColumn(BaseModel):
    """One column that both windows must have: a term of the column contract."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    role: Role
    kind: Kind


class ColumnDrift(BaseModel):
    """How far one column has moved, by one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    role: Role
    kind: Kind
    method: str = Field(description="The statistical test, by evidently's name.")
    score: float | None = Field(description="What the test said; None or NaN is unknown.")
    larger_is_drift: bool = Field(description="True for a distance, false for a p-value.")
    enough: bool = Field(description="Were there values enough on both sides for the test?")
    unknown_because: str = Field(default="", description="Why there is no usable score.")
    remedy: str = Field(default="", description="What would make the score known.")
    reference_missing: float = Field(
        default=0.0, ge=0, le=1, description="Share of the reference that holds no value."
    )
    current_missing: float = Field(
        default=0.0, ge=0, le=1, description="Share of the current window that holds no value."
    )


class Performance(BaseModel):
    """The served model's score over the reference and over the current window."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    metric: str
    reference: float | None = Field(description="None or NaN is unknown.")
    current: float | None = Field(description="None or NaN is unknown.")
    larger_is_better: bool = Field(description="True for accuracy, false for an error such as MAE.")
    unit: Unit | None = Field(
        default=None,
        description="How a loss is counted: in points, in what the baseline loses, or as a share "
        "of the reference; None: points for a score, a share for an error.",
    )
    baseline: float | None = Field(
        default=None, description="What the baseline scored where the reference was taken."
    )
    standard_error: float | None = Field(
        default=None, description="Of the current score, by sampling; None: not known."
    )
    unknown_because: str = Field(default="", description="Why a score is not known.")
    remedy: str = Field(default="", description="What would make it known.")


class DriftReading(BaseModel):
    """What was measured between a reference window and the current one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reference_rows: int = Field(ge=0)
    current_rows: int = Field(ge=0)
    columns: tuple[ColumnDrift, ...] = ()
    missing_columns: tuple[str, ...] = Field(
        default=(), description="Watched, but absent from at least one of the windows."
    )
    extra_columns: tuple[str, ...] = Field(
        default=(), description="In a window, but not watched, or there more than once."
    )
    performance: Performance | None = None
    change: str = Field(
        default="",
        description="What the labels show that no model can know: a new class, values out of the "
        "range seen; empty: nothing, or the champion has learned from it.",
    )
    tripwire: bool = Field(
        default=False, description="Has the online detector fired since the last check?"
    )


class DriftConfig(BaseModel):
    """The knobs of the table ``[drift]``: how much change is too much, and how often to look."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number_method: NumberMethod = Field(
        default="wasserstein", description="Test for columns of numbers."
    )
    category_method: CategoryMethod = Field(
        default="jensenshannon", description="Test for columns of categories."
    )
    number_threshold: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="A distance of this or more, a p-value of this or less, is drift; "
        "left out: the method's usual one.",
    )
    category_threshold: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="As number_threshold, for columns of categories.",
    )
    drifted_share: float = Field(
        default=0.5, gt=0, le=1, description="This share of the features drifted is an alarm."
    )
    missing_change: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="A feature whose share of missing values moves by this much has drifted.",
    )
    target_votes: bool = Field(default=True, description="Is a drifted target alone an alarm?")
    prediction_votes: bool = Field(
        default=True, description="Are drifted predictions alone an alarm?"
    )
    tripwire_votes: bool = Field(default=True, description="Is a fired tripwire alone an alarm?")
    performance_drop: float = Field(
        default=0.1,
        gt=0,
        allow_inf_nan=False,
        description="Loss of performance beyond which there is an alarm: points for a score "
        "(accuracy .85 to .75 is 0.1), growth relative to the reference for an error "
        "(MAE 10 to 11 is 0.1), and for log_loss and brier points of which the baseline's loss is "
        "half a one, as a coin's is in accuracy. A loss within two standard errors is no alarm.",
    )
    min_rows: int = Field(
        default=200,
        ge=2,
        description="Values needed on each side to compare. A reference that has fewer, and 100 at "
        "least, is compared all the same, since it cannot grow.",
    )
    rows_per_category: int = Field(
        default=20,
        ge=1,
        description="Values needed on each side per distinct category; with fewer, the noise of "
        "sampling alone looks like drift.",
    )
    every: int = Field(default=1000, ge=1, description="Records between two checks.")
    window: int = Field(default=1000, ge=2, description="Rows of the current window.")
    reference_rows: int = Field(default=2000, ge=2, description="Rows kept as the reference.")
    detector_delta: float = Field(
        default=0.0001,
        gt=0,
        lt=1,
        description="Chance of a false alarm allowed to the online detector (ADWIN): smaller fires "
        "less often. Errors that come in runs make it fire more than that.",
    )
    page: bool = Field(
        default=True, description="Write an HTML page when an alarm leads to a retrain?"
    )
    pages_kept: int = Field(
        default=5, ge=1, description="Newest pages that are kept; each is about 4 MB."
    )

    @model_validator(mode="after")
    def _windows_can_hold_enough(self) -> DriftConfig:
        smaller = min(self.window, self.reference_rows)
        if self.min_rows > smaller:
            raise ValueError(
                f"min_rows is {self.min_rows}, but the smaller window holds {smaller} rows, so no "
                "check could ever tell anything; lower min_rows, or raise window or reference_rows"
            )
        return self

    def reference_needs(self, values: int) -> int:
        """Values that a reference which has so many must have: no more than it has, but a floor."""
        return min(self.min_rows, max(values, FEWEST_REFERENCE))

    def method(self, kind: Kind) -> str:
        """Name of the test for columns of this kind."""
        return self.number_method if kind == "number" else self.category_method

    def threshold(self, kind: Kind) -> float:
        """Threshold for columns of this kind, in the unit of the kind's method."""
        named = self.number_threshold if kind == "number" else self.category_threshold
        return METHODS[self.method(kind)].usual_threshold if named is None else named


def watched(
    features: Mapping[str, Kind],
    *,
    label_kind: Kind,
    target: str | None = None,
    prediction: str | None = None,
) -> tuple[WatchedColumn, ...]:
    """The column contract: features by name, then the target and the prediction where named."""
    labels: list[tuple[str | None, Role]] = [(target, "target"), (prediction, "prediction")]
    return (
        *(WatchedColumn(name=name, role="feature", kind=kind) for name, kind in features.items()),
        *(
            WatchedColumn(name=name, role=role, kind=label_kind)
            for name, role in labels
            if name is not None
        ),
    )


def drifted(column: ColumnDrift, tolerance: DriftConfig) -> bool | None:
    """Has this column drifted? None where that is not known.

    A score counts only when it is finite, rests on enough values, and comes from the method that
    the tolerance names. A changed share of a feature's missing values is drift whatever the test
    says, because the test never sees them.
    """
    if _missing_change(column) >= tolerance.missing_change:
        return True
    score = _known_score(column, tolerance)
    if score is None:
        return None
    threshold = tolerance.threshold(column.kind)
    return score >= threshold if column.larger_is_drift else score <= threshold


def performance_loss(performance: Performance) -> float | None:
    """How much was lost since the reference: positive is worse, None is unknown.

    For a score, whose best is 1, the fall in points. For an error, which is in the target's own
    unit, its growth as a share of the reference; infinite where the reference made no error. For a
    proper score of probabilities, whose size depends on how rare the classes are, the growth in
    points of which the baseline's loss is half a one.
    """
    reference, current = performance.reference, performance.current
    if reference is None or current is None:
        return None
    if not (math.isfinite(reference) and math.isfinite(current)):
        return None
    growth = reference - current if performance.larger_is_better else current - reference
    whole = _whole(performance, reference)
    if whole is None:
        return None
    if whole == 0:
        return math.copysign(math.inf, growth) if growth else 0.0
    return growth / whole


def _whole(performance: Performance, reference: float) -> float | None:
    """What counts as 1 in a loss; None where that is not known."""
    unit = performance.unit or ("points" if performance.larger_is_better else "own")
    if unit == "points":
        return 1.0
    if unit == "own":
        return abs(reference)
    baseline = performance.baseline
    return 2.0 * baseline if baseline is not None and math.isfinite(baseline) else None


def within_noise(performance: Performance) -> bool:
    """Whether what was lost may be chance: less than two standard errors of the current score."""
    error = performance.standard_error
    if error is None or performance.reference is None or performance.current is None:
        return False
    return abs(performance.reference - performance.current) <= NOISE_ERRORS * error


def due(
    position: int,
    checked_at: int,
    ripe_at: int | None,
    tripwire: bool,
    tolerance: DriftConfig,
) -> Decision:
    """Is it time to check for drift at `position`, when the last check was at `checked_at`?

    `ripe_at` is the position from which a fit could learn from a change of the labels; None: there
    was no change. `tripwire` says whether the tripwire fired since.
    """
    since = position - checked_at
    every = f"{since} records since the last look (every {tolerance.every})"
    why = ""
    if since > 0:
        if since >= tolerance.every:
            why = every
        elif tripwire:
            why = f"the tripwire fired, {since} records after the last look"
        elif ripe_at is not None and checked_at < ripe_at <= position:
            why = f"a fit could learn from a change of the labels since position {ripe_at}"
    return Decision(
        question="look",
        yes=bool(why),
        because=why or f"not yet time to look: {every}",
        facts={
            "records_since": since,
            "every": tolerance.every,
            "tripwire": tripwire,
            "ripe_at": ripe_at,
        },
    )


def judge(
    reading: DriftReading | None, tolerance: DriftConfig, *, tripwire: bool = False
) -> Decision:
    """Is there an alarm? Yes for a drift or a broken column contract; ``facts["outcome"]`` tells.

    ``contract_broken`` is a yes: a window without a column that the models were trained on is the
    greatest change there is, and an answer that read as "no drift" would hide it. Whether a retrain
    would help is another question (`worth.judge` says no to it).
    ``calm`` needs every vote known and below its threshold, or unknown in too small a number to
    turn it; otherwise the no is ``not_enough_data``. So is the answer without a `reading`, while
    there is no champion: then `tripwire` says whether it fired.
    """
    if reading is None:
        return Decision(
            question="drift",
            yes=False,
            because=NO_CHAMPION.because,
            facts={"outcome": "not_enough_data", "tripwire": tripwire},
        )
    if broken := _broken_contract(reading):
        return _answer("contract_broken", broken, reading, tolerance)
    votes = _votes(reading, tolerance)
    alarms = [vote.because for vote in votes if vote.alarm]
    if alarms:
        return _answer("alarm", "; ".join(alarms), reading, tolerance)
    unknown = [vote.because for vote in votes if vote.alarm is None]
    if unknown:
        return _answer("not_enough_data", "; ".join(unknown), reading, tolerance)
    return _answer("calm", "; ".join(vote.because for vote in votes), reading, tolerance)


class UnknownVote(BaseModel):
    """A vote that nobody can cast now: it neither alarms nor calms."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vote: str = Field(description="window, feature NAME, target, prediction or performance.")
    because: str
    remedy: str = Field(description="What would make it known.")


NO_CHAMPION = UnknownVote(
    vote="all but the tripwire",
    because="there is no champion yet, so there is no reference to compare with",
    remedy="the first champion",
)


def unknown_votes(reading: DriftReading | None, tolerance: DriftConfig) -> tuple[UnknownVote, ...]:
    """The votes that are unknown, and each feature that is; empty where all is known."""
    if reading is None:
        return (NO_CHAMPION,)
    if _broken_contract(reading):
        return ()
    if few := _too_few(reading, tolerance):
        return (few,)
    columns = [column for column in reading.columns if column.role == "feature"]
    columns += _voting_labels(reading, tolerance)
    found = [
        UnknownVote(
            vote=f"feature {column.name}" if column.role == "feature" else column.role,
            because=_why_unknown(column, tolerance),
            remedy=column.remedy or "the next look may tell it",
        )
        for column in columns
        if drifted(column, tolerance) is None
    ]
    performance = reading.performance
    if performance is not None and performance_loss(performance) is None:
        because = performance.unknown_because or f"{performance.metric} is unknown in a window"
        remedy = performance.remedy or "the next look may tell it"
        found.append(UnknownVote(vote="performance", because=because, remedy=remedy))
    return tuple(found)


def _too_few(reading: DriftReading, tolerance: DriftConfig) -> UnknownVote | None:
    """No vote but the tripwire's where a whole window is too short."""
    reference, current = reading.reference_rows, reading.current_rows
    needed = tolerance.reference_needs(reference)
    if reference >= needed and current >= tolerance.min_rows:
        return None
    because = (
        f"too few rows to tell: reference {reference}, current {current}, "
        f"{needed_told(needed, tolerance)}"
    )
    return UnknownVote(
        vote="window", because=because, remedy=few_remedy(reference, current, tolerance)
    )


def needed_told(reference: int, tolerance: DriftConfig) -> str:
    """How many values were needed, in words: of the reference so many."""
    if reference == tolerance.min_rows:
        return f"needed {reference} on each side"
    return f"needed {reference} of the reference and {tolerance.min_rows} now"


def few_remedy(reference: int, current: int, tolerance: DriftConfig) -> str:
    """What makes a comparison known that has so many values on its sides."""
    if reference < tolerance.reference_needs(reference):
        return (
            f"a champion made from more rows: its reference needs "
            f"{tolerance.reference_needs(reference)} values"
        )
    return (
        f"{max(tolerance.min_rows - current, 0)} more values since the champion was made, of the "
        f"{tolerance.min_rows} that [drift] min_rows asks for"
    )


def severity(decision: Decision) -> float:
    """How bad the drift of an answer is, from 0 (none known) to 1: what makes a retrain urgent.

    The share of the features that drifted, or the loss of performance against twice the drop that
    is allowed, whichever is worse.
    """
    facts = decision.facts
    drifted_share = _share(facts.get("features_drifted"), facts.get("features"))
    loss_share = _share(facts.get("performance_loss"), facts.get("performance_drop_allowed")) / 2
    return min(max(drifted_share, loss_share, 0.0), 1.0)


def _share(part: Fact, whole: Fact) -> float:
    """Part of a whole; 0 where either is unknown or there is no whole."""
    if not isinstance(part, int | float) or not isinstance(whole, int | float) or whole <= 0:
        return 0.0
    return part / whole


class _Vote(NamedTuple):
    alarm: bool | None
    because: str


def _votes(reading: DriftReading, tolerance: DriftConfig) -> list[_Vote]:
    votes = [
        *_change_vote(reading, tolerance),
        *_window_votes(reading, tolerance),
        *_tripwire_vote(reading, tolerance),
    ]
    return votes or [_Vote(None, "nothing was measured: no column, performance or tripwire votes")]


def _window_votes(reading: DriftReading, tolerance: DriftConfig) -> list[_Vote]:
    if few := _too_few(reading, tolerance):
        return [_Vote(None, few.because)]
    return [
        *_features_vote(reading, tolerance),
        *(_label_vote(column, tolerance) for column in _voting_labels(reading, tolerance)),
        *_performance_vote(reading.performance, tolerance),
    ]


def _features_vote(reading: DriftReading, tolerance: DriftConfig) -> list[_Vote]:
    features = [column for column in reading.columns if column.role == "feature"]
    if not features:
        return []
    verdicts = [drifted(column, tolerance) for column in features]
    moved, unknown, total = verdicts.count(True), verdicts.count(None), len(features)
    alarm: bool | None = moved / total >= tolerance.drifted_share
    if not alarm and (moved + unknown) / total >= tolerance.drifted_share:
        alarm = None
    because = (
        f"{moved} of {total} features drifted, {unknown} unknown "
        f"(alarm at a share of {tolerance.drifted_share:g})"
    )
    shown = [column for column, verdict in zip(features, verdicts, strict=True) if verdict]
    if alarm is None:
        shown = [col for col, verdict in zip(features, verdicts, strict=True) if verdict is None]
    return [_Vote(alarm, f"{because}: {_worst(shown or features, tolerance)}")]


def _voting_labels(reading: DriftReading, tolerance: DriftConfig) -> list[ColumnDrift]:
    votes = {"target": tolerance.target_votes, "prediction": tolerance.prediction_votes}
    return [column for column in reading.columns if votes.get(column.role, False)]


def _label_vote(column: ColumnDrift, tolerance: DriftConfig) -> _Vote:
    verdict = drifted(column, tolerance)
    word = {True: "drifted", False: "steady", None: "unknown"}[verdict]
    return _Vote(verdict, f"{column.role} {word}: {_told(column, tolerance)}")


def _performance_vote(performance: Performance | None, tolerance: DriftConfig) -> Iterable[_Vote]:
    if performance is None:
        return
    loss = performance_loss(performance)
    if loss is None:
        why = performance.unknown_because
        yield _Vote(
            None,
            f"{performance.metric} is unknown in at least one of the windows"
            + (f": {why}" if why else ""),
        )
        return
    own = performance.unit == "own" or (
        performance.unit is None and not performance.larger_is_better
    )
    how = "of the reference added" if own else "points lost"
    large = loss > tolerance.performance_drop
    chance = large and within_noise(performance)
    yield _Vote(
        large and not chance,
        f"{performance.metric} went from {performance.reference:.4g} to {performance.current:.4g}: "
        f"{loss:.4g} {how} (allowed {tolerance.performance_drop:g})"
        + (f", {_chance(performance)}" if chance else ""),
    )


def _chance(performance: Performance) -> str:
    return f"which is within {NOISE_ERRORS:g} standard errors of {performance.standard_error:.2g}"


def _change_vote(reading: DriftReading, tolerance: DriftConfig) -> Iterable[_Vote]:
    if reading.change and tolerance.target_votes:
        yield _Vote(True, reading.change)


def _tripwire_vote(reading: DriftReading, tolerance: DriftConfig) -> Iterable[_Vote]:
    if not tolerance.tripwire_votes:
        return
    if reading.tripwire:
        yield _Vote(True, f"the online detector fired (ADWIN, delta {tolerance.detector_delta:g})")


def _broken_contract(reading: DriftReading) -> str:
    parts = []
    if reading.missing_columns:
        parts.append(f"missing: {', '.join(reading.missing_columns)}")
    if reading.extra_columns:
        parts.append(f"not expected: {', '.join(reading.extra_columns)}")
    return f"the columns are not those that were agreed ({'; '.join(parts)})" if parts else ""


def _known_score(column: ColumnDrift, tolerance: DriftConfig) -> float | None:
    usable = column.enough and column.method == tolerance.method(column.kind)
    if not usable or column.score is None or not math.isfinite(column.score):
        return None
    return column.score


def _missing_change(column: ColumnDrift) -> float:
    """Of a feature only: a label that is missing is late, and a prediction was not made yet."""
    if column.role != "feature":
        return 0.0
    return abs(column.current_missing - column.reference_missing)


def _told(column: ColumnDrift, tolerance: DriftConfig) -> str:
    """One column in words: its score beside its threshold, or why there is none."""
    if _missing_change(column) >= tolerance.missing_change:
        return (
            f"{column.name} missing values went from {column.reference_missing:.2f} to "
            f"{column.current_missing:.2f} (allowed change {tolerance.missing_change:g})"
        )
    score = _known_score(column, tolerance)
    if score is None:
        return f"{column.name} ({_why_unknown(column, tolerance)})"
    side = "from" if column.larger_is_drift else "up to"
    threshold = tolerance.threshold(column.kind)
    return f"{column.name} {column.method} {score:.4g} (drift {side} {threshold:g})"


def _why_unknown(column: ColumnDrift, tolerance: DriftConfig) -> str:
    asked = tolerance.method(column.kind)
    if column.method != asked:
        return f"measured by {column.method}, but the tolerance asks for {asked}"
    return column.unknown_because or f"{column.method} gave no finite score"


def _worst(columns: Iterable[ColumnDrift], tolerance: DriftConfig, few: int = 3) -> str:
    ranked = sorted(columns, key=lambda column: -_severity(column, tolerance))
    told = [_told(column, tolerance) for column in ranked[:few]]
    rest = len(ranked) - few
    return ", ".join(told) + (f" and {rest} more" if rest > 0 else "")


def _severity(column: ColumnDrift, tolerance: DriftConfig) -> float:
    """How many times over its threshold: only to put the worst first."""
    missing = _missing_change(column) / tolerance.missing_change
    score = _known_score(column, tolerance)
    if score is None:
        return missing
    threshold = tolerance.threshold(column.kind)
    if column.larger_is_drift:
        return max(missing, score / threshold)
    return max(missing, math.inf if score <= 0 else threshold / score)


def _answer(
    outcome: Outcome, because: str, reading: DriftReading, tolerance: DriftConfig
) -> Decision:
    return Decision(
        question="drift",
        yes=outcome in {"alarm", "contract_broken"},
        because=because,
        facts={"outcome": outcome, **_facts(reading, tolerance)},
    )


def _facts(reading: DriftReading, tolerance: DriftConfig) -> dict[str, Fact]:
    features = [column for column in reading.columns if column.role == "feature"]
    verdicts = [drifted(column, tolerance) for column in features]
    facts: dict[str, Fact] = {
        "reference_rows": reading.reference_rows,
        "current_rows": reading.current_rows,
        "min_rows": tolerance.min_rows,
        "features": len(features),
        "features_drifted": verdicts.count(True),
        "features_unknown": verdicts.count(None),
        "alarm_share": tolerance.drifted_share,
        "number_method": tolerance.number_method,
        "number_threshold": tolerance.threshold("number"),
        "category_method": tolerance.category_method,
        "category_threshold": tolerance.threshold("category"),
        "missing_columns": ", ".join(reading.missing_columns),
        "extra_columns": ", ".join(reading.extra_columns),
        "tripwire": reading.tripwire,
        "change": reading.change,
    }
    for column in reading.columns:
        facts[f"{column.role}:{column.name}"] = _known_score(column, tolerance)
        if _missing_change(column) > 0:
            facts[f"missing_change:{column.name}"] = _missing_change(column)
    return facts | _performance_facts(reading.performance, tolerance)


def _performance_facts(performance: Performance | None, tolerance: DriftConfig) -> dict[str, Fact]:
    if performance is None:
        return {}
    return {
        "performance_metric": performance.metric,
        "performance_reference": performance.reference,
        "performance_current": performance.current,
        "performance_loss": performance_loss(performance),
        "performance_standard_error": performance.standard_error,
        "performance_drop_allowed": tolerance.performance_drop,
    }
