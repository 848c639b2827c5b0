"""The drift policy: has the data changed since the champion was trained?

Pure: it measures nothing and imports no library that does. `evidently_adapter` computes the scores;
this file owns the thresholds, and which side of them is drift. An unknown score is never read as
"no drift".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from observability.core.decision import Decision, Fact

Role = Literal["feature", "target", "prediction"]
Kind = Literal["number", "category"]
Outcome = Literal["drift_detected", "no_drift", "not_enough_data", "contract_broken"]
Unit = Literal["points", "baseline", "own"]

FEWEST_REFERENCE = 100
"""Values that a reference needs at least; a reference with fewer than `min_rows` needs only these.

A reference does not grow until the next champion, so a demand for more than it has would disable a
vote for ever. With 100 values against a window of 1,000 the noise of sampling alone crosses the
default threshold of Jensen-Shannon (0.1, two equal classes) in 3 checks of 100, with 50 values in
9, with 30 in 19; that of Wasserstein (0.3) with 100 against 100 values in 6, with 50 in 23 (1,000
simulated pairs each).
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
    """The direction of a method's score, and its threshold where none is configured."""

    larger_is_drift: bool
    default_threshold: float


METHODS: Mapping[str, Method] = {
    # In standard deviations of the reference. 0.1, the usual advice, is reached by the season of a
    # month, or by the noise of a thousand autocorrelated rows; 0.3 is visible in a plot.
    "wasserstein": Method(larger_is_drift=True, default_threshold=0.3),
    "jensenshannon": Method(larger_is_drift=True, default_threshold=0.1),
    "hellinger": Method(larger_is_drift=True, default_threshold=0.1),
    "psi": Method(larger_is_drift=True, default_threshold=0.2),
    "kl_div": Method(larger_is_drift=True, default_threshold=0.1),
    # Significance, not size: with enough rows every difference is significant.
    "ks": Method(larger_is_drift=False, default_threshold=0.01),
    # Its p-value is never reported below 0.001.
    "anderson": Method(larger_is_drift=False, default_threshold=0.01),
    "cramer_von_mises": Method(larger_is_drift=False, default_threshold=0.01),
    "t_test": Method(larger_is_drift=False, default_threshold=0.01),
    "chisquare": Method(larger_is_drift=False, default_threshold=0.01),
}
"""The statistical tests of evidently that can be chosen, by evidently's names.

Of the tests in evidently 0.7 these are left out on purpose: `mannw` (one-sided: it misses a shift
in one direction), `ed` (in the column's unit, so no threshold fits two columns), `g_test` and
`fisher_exact` (need windows of equal size), `z` (two categories only), `es` (fails on a column with
few distinct values), `TVD` and `empirical_mmd` (reseed numpy's global generator, or take seconds).
"""


class WatchedColumn(BaseModel):
    """One column of the column contract: both windows must have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    role: Role
    kind: Kind


class ColumnDrift(BaseModel):
    """The drift of one column, measured by one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    role: Role
    kind: Kind
    method: str = Field(description="The statistical test, by evidently's name.")
    score: float | None = Field(description="The test's result; None or NaN is unknown.")
    larger_is_drift: bool = Field(description="True for a distance, false for a p-value.")
    enough: bool = Field(description="Did both windows have enough values for the test?")
    unknown_because: str = Field(default="", description="Why there is no usable score.")
    remedy: str = Field(default="", description="What would make the score known.")
    reference_missing: float = Field(
        default=0.0, ge=0, le=1, description="Share of missing values in the reference."
    )
    current_missing: float = Field(
        default=0.0, ge=0, le=1, description="Share of missing values in the window."
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
        description="How a loss is counted: in points, against the baseline's loss, or as a share "
        "of the reference (own); None: points for a score, own for an error.",
    )
    baseline: float | None = Field(
        default=None, description="The baseline's score over the reference."
    )
    standard_error: float | None = Field(
        default=None, description="Standard error of the current score; None: unknown."
    )
    unknown_because: str = Field(default="", description="Why a score is unknown.")
    remedy: str = Field(default="", description="What would make it known.")

    @property
    def loss_unit(self) -> Unit:
        """How a loss of performance is counted."""
        return self.unit or ("points" if self.larger_is_better else "own")


class DriftReading(BaseModel):
    """What was measured between a reference window and the current one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reference_rows: int = Field(ge=0)
    current_rows: int = Field(ge=0)
    columns: tuple[ColumnDrift, ...] = ()
    missing_columns: tuple[str, ...] = Field(
        default=(), description="Watched columns that at least one of the windows lacks."
    )
    extra_columns: tuple[str, ...] = Field(
        default=(), description="Columns that are not watched, or that a window has more than once."
    )
    performance: Performance | None = None
    change: str = Field(
        default="",
        description="A change of the labels that no model can know, such as a new class or values "
        "outside the known range; empty: there is none, or the champion has learned from it.",
    )
    drift_detector: bool = Field(
        default=False, description="Has the online detector fired since the last check?"
    )


class DriftConfig(BaseModel):
    """Table ``[drift]``: how much change is an alarm, and how often it is checked."""

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
    detector_votes: bool = Field(
        default=True, description="Is a detection of the online drift detector alone an alarm?"
    )
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
        """Return how many values are needed of a reference that has `values`."""
        return min(self.min_rows, max(values, FEWEST_REFERENCE))

    def method(self, kind: Kind) -> str:
        """Return the name of the test for columns of this kind."""
        return self.number_method if kind == "number" else self.category_method

    def threshold(self, kind: Kind) -> float:
        """Return the threshold for columns of this kind, in the unit of the kind's method."""
        named = self.number_threshold if kind == "number" else self.category_threshold
        return METHODS[self.method(kind)].default_threshold if named is None else named


def watched(
    features: Mapping[str, Kind],
    *,
    label_kind: Kind,
    target: str | None = None,
    prediction: str | None = None,
) -> tuple[WatchedColumn, ...]:
    """Return the column contract: features, then the target and the prediction where named."""
    labels: list[tuple[str | None, Role]] = [(target, "target"), (prediction, "prediction")]
    return (
        *(WatchedColumn(name=name, role="feature", kind=kind) for name, kind in features.items()),
        *(
            WatchedColumn(name=name, role=role, kind=label_kind)
            for name, role in labels
            if name is not None
        ),
    )


def drifted(column: ColumnDrift, config: DriftConfig) -> bool | None:
    """Return whether this column has drifted; None where that is unknown.

    A score counts only when it is finite, rests on enough values, and comes from the method that
    `config` names. A changed share of a feature's missing values is drift whatever the test
    reports, because the test never sees missing values.
    """
    if _missing_change(column) >= config.missing_change:
        return True
    score = _known_score(column, config)
    if score is None:
        return None
    threshold = config.threshold(column.kind)
    return score >= threshold if column.larger_is_drift else score <= threshold


def performance_loss(performance: Performance) -> float | None:
    """Return how much was lost since the reference: positive is worse, None is unknown.

    For a score, whose best is 1, it is the fall in points. For an error, which has the target's
    unit, it is the growth as a share of the reference; infinite where the reference made no error.
    For a proper score of probabilities, whose size depends on how rare the classes are, it is the
    growth in points of which the baseline's loss is half a point.
    """
    reference, current = performance.reference, performance.current
    if reference is None or current is None:
        return None
    if not (math.isfinite(reference) and math.isfinite(current)):
        return None
    growth = reference - current if performance.larger_is_better else current - reference
    if performance.loss_unit == "points":
        return growth
    whole = abs(reference)
    if performance.loss_unit == "baseline":
        if performance.baseline is None or not math.isfinite(performance.baseline):
            return None
        whole = 2.0 * performance.baseline
    if whole == 0:
        return math.copysign(math.inf, growth) if growth else 0.0
    return growth / whole


def due(
    position: int,
    checked_at: int,
    ripe_at: int | None,
    drift_detector: bool,
    config: DriftConfig,
) -> Decision:
    """Decide whether to check for drift at `position`, after the last check at `checked_at`.

    `ripe_at` is the position from which a fit could learn from a change of the labels; None: there
    was no change. `drift_detector` is whether the online detector has fired since the last check.
    """
    since = position - checked_at
    every = f"{since} records since the last look (every {config.every})"
    why = ""
    if since > 0:
        if since >= config.every:
            why = every
        elif drift_detector:
            why = f"the drift detector fired, {since} records after the last look"
        elif ripe_at is not None and checked_at < ripe_at <= position:
            why = f"a fit could learn from a change of the labels since position {ripe_at}"
    return Decision(
        question="look",
        yes=bool(why),
        because=why or f"not yet time to look: {every}",
        facts={
            "records_since": since,
            "every": config.every,
            "drift_detector": drift_detector,
            "ripe_at": ripe_at,
        },
    )


def judge(
    reading: DriftReading | None, config: DriftConfig, *, drift_detector: bool = False
) -> Decision:
    """Decide whether there is an alarm: yes for drift and for a broken column contract.

    ``facts["outcome"]`` says which. ``contract_broken`` is a yes: a window without a column that
    the models were trained on is the greatest change there is, and a no would hide it. Whether a
    retrain would help is another question (`worth.judge` answers it with no).
    ``no_drift`` needs every vote known and below its threshold, or so few unknown votes that they
    cannot change the answer; otherwise the no is ``not_enough_data``. That is also the answer
    without a `reading`, while there is no champion; `drift_detector` is then whether it has fired.
    """
    if reading is None:
        return Decision(
            question="drift",
            yes=False,
            because=NO_CHAMPION.because,
            facts={"outcome": "not_enough_data", "drift_detector": drift_detector},
        )
    if broken := _broken_contract(reading):
        return _answer("contract_broken", broken, reading, config)
    votes = list(_votes(reading, config)) or [
        _Vote(None, "nothing was measured: no column, performance or drift detector votes")
    ]
    if alarms := [vote.because for vote in votes if vote.alarm]:
        return _answer("drift_detected", "; ".join(alarms), reading, config)
    if unknown := [vote.because for vote in votes if vote.alarm is None]:
        return _answer("not_enough_data", "; ".join(unknown), reading, config)
    return _answer("no_drift", "; ".join(vote.because for vote in votes), reading, config)


class UnknownVote(BaseModel):
    """A vote that is unknown now: it is neither an alarm nor a sign of no drift."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vote: str = Field(description="window, feature NAME, target, prediction or performance.")
    because: str
    remedy: str = Field(description="What would make it known.")


NO_CHAMPION = UnknownVote(
    vote="all but the drift detector",
    because="there is no champion yet, so there is no reference to compare with",
    remedy="the first champion",
)
_REMEDY = "the next look may tell it"


def unknown_votes(reading: DriftReading | None, config: DriftConfig) -> tuple[UnknownVote, ...]:
    """Return the unknown votes, and each feature that is unknown; empty where all is known."""
    if reading is None:
        return (NO_CHAMPION,)
    if _broken_contract(reading):
        return ()
    if few := _too_few(reading, config):
        return (few,)
    columns = [column for column in reading.columns if column.role == "feature"]
    columns += _voting_labels(reading, config)
    found = [
        UnknownVote(
            vote=f"feature {column.name}" if column.role == "feature" else column.role,
            because=_why_unknown(column, config),
            remedy=column.remedy or _REMEDY,
        )
        for column in columns
        if drifted(column, config) is None
    ]
    performance = reading.performance
    if performance is not None and performance_loss(performance) is None:
        because = performance.unknown_because or f"{performance.metric} is unknown in a window"
        remedy = performance.remedy or _REMEDY
        found.append(UnknownVote(vote="performance", because=because, remedy=remedy))
    return tuple(found)


def _too_few(reading: DriftReading, config: DriftConfig) -> UnknownVote | None:
    """Return why no vote but the drift detector's counts, where a whole window is too short."""
    reference, current = reading.reference_rows, reading.current_rows
    needed = config.reference_needs(reference)
    if reference >= needed and current >= config.min_rows:
        return None
    because = (
        f"too few rows to tell: reference {reference}, current {current}, "
        f"{describe_needed(needed, config)}"
    )
    remedy = remedy_for_too_few(reference, current, config)
    return UnknownVote(vote="window", because=because, remedy=remedy)


def describe_needed(reference: int, config: DriftConfig) -> str:
    """Return a phrase for how many values are needed, of the reference `reference`."""
    if reference == config.min_rows:
        return f"needed {reference} on each side"
    return f"needed {reference} of the reference and {config.min_rows} now"


def remedy_for_too_few(reference: int, current: int, config: DriftConfig) -> str:
    """Return what would make possible a comparison of so few values."""
    needed = config.reference_needs(reference)
    if reference < needed:
        return f"a champion made from more rows: its reference needs {needed} values"
    return (
        f"{max(config.min_rows - current, 0)} more values since the champion was made, of the "
        f"{config.min_rows} that [drift] min_rows asks for"
    )


def severity(decision: Decision) -> float:
    """Return how severe the drift of an answer is, from 0 (none known) to 1.

    It is the share of the features that drifted, or the loss of performance relative to twice the
    allowed drop, whichever is larger. It makes a retrain urgent.
    """
    facts = decision.facts
    drifted_share = _share(facts.get("features_drifted"), facts.get("features"))
    loss_share = _share(facts.get("performance_loss"), facts.get("performance_drop_allowed")) / 2
    return min(max(drifted_share, loss_share, 0.0), 1.0)


def _share(part: Fact, whole: Fact) -> float:
    """Return a part's share of a whole; 0 where either is unknown or there is no whole."""
    if not isinstance(part, int | float) or not isinstance(whole, int | float) or whole <= 0:
        return 0.0
    return part / whole


class _Vote(NamedTuple):
    alarm: bool | None
    because: str


def _votes(reading: DriftReading, config: DriftConfig) -> Iterator[_Vote]:
    """Yield the votes, in the order in which the answer names them."""
    if reading.change and config.target_votes:
        yield _Vote(True, reading.change)
    if few := _too_few(reading, config):
        yield _Vote(None, few.because)
    else:
        if features := [column for column in reading.columns if column.role == "feature"]:
            yield _features_vote(features, config)
        for column in _voting_labels(reading, config):
            verdict = drifted(column, config)
            word = {True: "drifted", False: "steady", None: "unknown"}[verdict]
            yield _Vote(verdict, f"{column.role} {word}: {_describe(column, config)}")
        if reading.performance is not None:
            yield _performance_vote(reading.performance, config)
    if reading.drift_detector and config.detector_votes:
        yield _Vote(True, f"the online detector fired (ADWIN, delta {config.detector_delta:g})")


def _features_vote(features: list[ColumnDrift], config: DriftConfig) -> _Vote:
    verdicts = [drifted(column, config) for column in features]
    moved, unknown, total = verdicts.count(True), verdicts.count(None), len(features)
    alarm: bool | None = moved / total >= config.drifted_share
    if not alarm and (moved + unknown) / total >= config.drifted_share:
        alarm = None
    shown = [
        column
        for column, verdict in zip(features, verdicts, strict=True)
        if verdict is (None if alarm is None else True)
    ]
    return _Vote(
        alarm,
        f"{moved} of {total} features drifted, {unknown} unknown "
        f"(alarm at a share of {config.drifted_share:g}): {_worst(shown or features, config)}",
    )


def _voting_labels(reading: DriftReading, config: DriftConfig) -> list[ColumnDrift]:
    votes = {"target": config.target_votes, "prediction": config.prediction_votes}
    return [column for column in reading.columns if votes.get(column.role, False)]


def _performance_vote(performance: Performance, config: DriftConfig) -> _Vote:
    loss = performance_loss(performance)
    if loss is None:
        why = f": {performance.unknown_because}" if performance.unknown_because else ""
        return _Vote(None, f"{performance.metric} is unknown in at least one of the windows{why}")
    because = (
        f"{performance.metric} went from {performance.reference:.4g} to {performance.current:.4g}: "
        f"{loss:.4g} {_LOST[performance.loss_unit]} (allowed {config.performance_drop:g})"
    )
    if loss <= config.performance_drop:
        return _Vote(False, because)
    error = performance.standard_error
    change = abs((performance.reference or 0.0) - (performance.current or 0.0))
    if error is not None and change <= NOISE_ERRORS * error:
        noise = f"which is within {NOISE_ERRORS:g} standard errors of {error:.2g}"
        return _Vote(False, f"{because}, {noise}")
    return _Vote(True, because)


_LOST: Mapping[Unit, str] = {
    "points": "points lost",
    "baseline": "points lost",
    "own": "of the reference added",
}


def _broken_contract(reading: DriftReading) -> str:
    parts = []
    if reading.missing_columns:
        parts.append(f"missing: {', '.join(reading.missing_columns)}")
    if reading.extra_columns:
        parts.append(f"not expected: {', '.join(reading.extra_columns)}")
    return f"the columns are not those that were agreed ({'; '.join(parts)})" if parts else ""


def _known_score(column: ColumnDrift, config: DriftConfig) -> float | None:
    usable = column.enough and column.method == config.method(column.kind)
    if not usable or column.score is None or not math.isfinite(column.score):
        return None
    return column.score


def _missing_change(column: ColumnDrift) -> float:
    """Return the change of the share of missing values; 0 for a label or a prediction.

    A missing label is late, and a missing prediction was not made yet.
    """
    if column.role != "feature":
        return 0.0
    return abs(column.current_missing - column.reference_missing)


def _describe(column: ColumnDrift, config: DriftConfig) -> str:
    """Return a phrase for one column: its score and threshold, or why there is no score."""
    if _missing_change(column) >= config.missing_change:
        return (
            f"{column.name} missing values went from {column.reference_missing:.2f} to "
            f"{column.current_missing:.2f} (allowed change {config.missing_change:g})"
        )
    score = _known_score(column, config)
    if score is None:
        return f"{column.name} ({_why_unknown(column, config)})"
    side = "from" if column.larger_is_drift else "up to"
    threshold = config.threshold(column.kind)
    return f"{column.name} {column.method} {score:.4g} (drift {side} {threshold:g})"


def _why_unknown(column: ColumnDrift, config: DriftConfig) -> str:
    asked = config.method(column.kind)
    if column.method != asked:
        return f"measured by {column.method}, but the tolerance asks for {asked}"
    return column.unknown_because or f"{column.method} gave no finite score"


def _worst(columns: Iterable[ColumnDrift], config: DriftConfig) -> str:
    """Return a phrase for the three columns that are the most times over their threshold."""

    def times_over(column: ColumnDrift) -> float:
        missing = _missing_change(column) / config.missing_change
        score = _known_score(column, config)
        if score is None:
            return missing
        threshold = config.threshold(column.kind)
        if column.larger_is_drift:
            return max(missing, score / threshold)
        return max(missing, math.inf if score <= 0 else threshold / score)

    ranked = sorted(columns, key=times_over, reverse=True)
    rest = f" and {len(ranked) - 3} more" if len(ranked) > 3 else ""
    return ", ".join(_describe(column, config) for column in ranked[:3]) + rest


def _answer(outcome: Outcome, because: str, reading: DriftReading, config: DriftConfig) -> Decision:
    verdicts = [drifted(column, config) for column in reading.columns if column.role == "feature"]
    facts: dict[str, Fact] = {
        "outcome": outcome,
        "reference_rows": reading.reference_rows,
        "current_rows": reading.current_rows,
        "min_rows": config.min_rows,
        "features": len(verdicts),
        "features_drifted": verdicts.count(True),
        "features_unknown": verdicts.count(None),
        "alarm_share": config.drifted_share,
        "number_method": config.number_method,
        "number_threshold": config.threshold("number"),
        "category_method": config.category_method,
        "category_threshold": config.threshold("category"),
        "missing_columns": ", ".join(reading.missing_columns),
        "extra_columns": ", ".join(reading.extra_columns),
        "drift_detector": reading.drift_detector,
        "change": reading.change,
    }
    for column in reading.columns:
        facts[f"{column.role}:{column.name}"] = _known_score(column, config)
        if _missing_change(column) > 0:
            facts[f"missing_change:{column.name}"] = _missing_change(column)
    if performance := reading.performance:
        facts |= {
            "performance_metric": performance.metric,
            "performance_reference": performance.reference,
            "performance_current": performance.current,
            "performance_loss": performance_loss(performance),
            "performance_standard_error": performance.standard_error,
            "performance_drop_allowed": config.performance_drop,
        }
    yes = outcome in {"drift_detected", "contract_broken"}
    return Decision(question="drift", yes=yes, because=because, facts=facts)
