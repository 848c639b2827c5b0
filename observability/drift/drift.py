"""The drift policy: has the data changed since the champion was trained?

Pure: it measures nothing and imports no library that does. `evidently_adapter` computes the scores
of columns and what sampling alone makes of them, `error_monitor` tests the errors; this file says
which of that is an alarm, of which kind, and what its nature is. An unknown score is never read as
"no drift".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from observability.core.decision import Decision, Fact
from observability.drift import error_monitor
from observability.drift.error_monitor import ErrorFinding

Role = Literal["feature", "target", "prediction"]
Kind = Literal["number", "category"]
Outcome = Literal["drift_detected", "no_drift", "not_enough_data", "contract_broken"]
Unit = Literal["points", "baseline", "own"]
EvidenceKind = Literal[
    "features",
    "target",
    "predictions",
    "labels",
    "errors",
    "relative errors",
    "missing evidence",
]
"""The kinds of evidence; `labels` is a change of theirs that no model can know.

`missing evidence` is a vote that is unknown.
"""
Nature = Literal["none", "virtual", "real", "outgrown", "unknown"]
"""What a drift is, as far as its evidence tells.

real: errors have risen, or the labels left what was known. outgrown: the champion errs no more than
it did, and another member errs less. virtual: features, the target or predictions have moved, and
no error has risen. unknown: they have moved, and nothing is known of errors.
"""

FEWEST_REFERENCE = 100
"""Values that a reference needs at least; a reference with fewer than `min_rows` needs only these.

A reference does not grow until the next champion, so a demand for more than it has would disable a
vote for ever. Fewer values make a threshold larger; with fewer than 100 it is a guess itself.
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


LARGER_IS_DRIFT: Mapping[str, bool] = {
    "wasserstein": True,
    "jensenshannon": True,
    "hellinger": True,
    "psi": True,
    "kl_div": True,
    "ks": False,
    "anderson": False,
    "cramer_von_mises": False,
    "t_test": False,
    "chisquare": False,
}
"""The statistical tests of evidently that can be chosen, by evidently's names.

True is a distance, false a p-value.

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
    threshold: float | None = Field(
        default=None,
        description="The score from which it has drifted: what sampling alone hardly ever reaches; "
        "None: unknown.",
    )
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
    change_position: int | None = Field(default=None, description="Where that change began.")
    findings: tuple[ErrorFinding, ...] = Field(
        default=(), description="What the sequential tests of errors found since the last check."
    )
    untested: tuple[str, ...] = Field(
        default=(), description="Members whose errors have no reference yet."
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
        description="A distance of this or more, a p-value of this or less, is drift; left out: "
        "what sampling alone reaches, for each column by its own reference.",
    )
    category_threshold: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="As number_threshold, for columns of categories.",
    )
    column_false_alarms: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="Chance that a look at columns which have not changed finds any of them "
        "drifted; the thresholds of all columns together follow from it.",
    )
    drifted_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="This share of the features drifted is an alarm; left out: one is enough.",
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
    error_votes: bool = Field(
        default=True, description="Is a member's error that has risen alone an alarm?"
    )
    relative_error_votes: bool = Field(
        default=True,
        description="Is a champion that another member beats, which it did not on the champion's "
        "hold-out, alone an alarm?",
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
    error_false_alarm_records: int = Field(
        default=20_000,
        ge=100,
        description="Records between two false alarms of the tests of errors, at least and in the "
        "mean, for each of their two kinds: a larger number sees less and later.",
    )
    error_reference_rows: int = Field(
        default=1000,
        ge=100,
        description="Losses of a member that its later ones are compared with, where it has no "
        "hold-out.",
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

    def named_threshold(self, kind: Kind) -> float | None:
        """Return the threshold that the file names for columns of this kind; None: it does not."""
        return self.number_threshold if kind == "number" else self.category_threshold


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

    A score counts only when it is finite, rests on enough values, has a threshold, and comes from
    the method that `config` names. A changed share of a feature's missing values is drift whatever
    the test reports, because the test never sees missing values.
    """
    if _missing_change(column) >= config.missing_change:
        return True
    score, threshold = _known_score(column, config), threshold_of(column, config)
    if score is None or threshold is None:
        return None
    return score >= threshold if column.larger_is_drift else score <= threshold


def threshold_of(column: ColumnDrift, config: DriftConfig) -> float | None:
    """Return from which score this column has drifted: a person's word, else its own noise."""
    named = config.named_threshold(column.kind)
    return column.threshold if named is None else named


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
    errors_rose: bool,
    config: DriftConfig,
) -> Decision:
    """Decide whether to check for drift at `position`, after the last check at `checked_at`.

    `ripe_at` is the position from which a fit could learn from a change of the labels; None: there
    was no change. `errors_rose` is whether a test of errors has fired since the last check.
    """
    since = position - checked_at
    every = f"{since} records since the last look (every {config.every})"
    why = ""
    if since > 0:
        if since >= config.every:
            why = every
        elif errors_rose:
            why = f"the errors of a model rose, {since} records after the last look"
        elif ripe_at is not None and checked_at < ripe_at <= position:
            why = f"a fit could learn from a change of the labels since position {ripe_at}"
    return Decision(
        question="look",
        yes=bool(why),
        because=why or f"not yet time to look: {every}",
        facts={
            "records_since": since,
            "every": config.every,
            "errors_rose": errors_rose,
            "ripe_at": ripe_at,
        },
    )


def judge(reading: DriftReading | None, config: DriftConfig) -> Decision:
    """Decide whether there is an alarm: yes for drift and for a broken column contract.

    ``facts["outcome"]`` says which. ``contract_broken`` is a yes: a window without a column that
    the models were trained on is the greatest change there is, and a no would hide it. Whether a
    retrain would help is another question (`worth.judge` answers it with no).
    ``no_drift`` needs every vote known and below its threshold, or so few unknown votes that they
    cannot change the answer; otherwise the no is ``not_enough_data``. That is also the answer
    without a `reading`, while there is no champion.

    ``facts["kinds"]`` names the kinds of evidence for the answer, ``facts["nature"]`` what they
    come to, and ``facts["change_estimate"]`` the position where the change is estimated to have
    begun (None: that is unknown).
    """
    if reading is None:
        return Decision(
            question="drift",
            yes=False,
            because=NO_CHAMPION.because,
            facts={"outcome": "not_enough_data", "kinds": "missing evidence", "nature": "none"},
        )
    if broken := _broken_contract(reading):
        return _answer("contract_broken", broken, reading, config, ())
    votes = list(_votes(reading, config)) or [
        _Vote("missing evidence", None, "nothing was measured: no column and no performance votes")
    ]
    if alarms := [vote for vote in votes if vote.alarm]:
        return _answer("drift_detected", _reasons(alarms), reading, config, votes)
    if unknown := [vote for vote in votes if vote.alarm is None]:
        return _answer("not_enough_data", _reasons(unknown), reading, config, votes)
    return _answer("no_drift", _reasons(votes), reading, config, votes)


def _reasons(votes: Iterable[_Vote]) -> str:
    return "; ".join(vote.because for vote in votes)


class UnknownVote(BaseModel):
    """A vote that is unknown now: it is neither an alarm nor a sign of no drift."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    vote: str = Field(description="window, feature NAME, target, prediction or performance.")
    because: str
    remedy: str = Field(description="What would make it known.")


NO_CHAMPION = UnknownVote(
    vote="all",
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
    found += [
        UnknownVote(
            vote=f"errors of {member}",
            because=f"it is not known what {member} lost before, to compare its losses with",
            remedy=f"{config.error_reference_rows} labelled records that it predicts",
        )
        for member in reading.untested
    ]
    return tuple(found)


def _too_few(reading: DriftReading, config: DriftConfig) -> UnknownVote | None:
    """Return why only errors have a vote, where a whole window is too short."""
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

    It is the share of the features that drifted, or the loss of performance or the rise of the
    champion's mean loss relative to twice the allowed drop, whichever is largest. It makes a
    retrain urgent.
    """
    facts = decision.facts
    drifted_share = _share(facts.get("features_drifted"), facts.get("features"))
    allowed = facts.get("performance_drop_allowed")
    loss_share = _share(facts.get("performance_loss"), allowed) / 2
    rise_share = _share(facts.get("error_rise"), allowed) / 2
    return min(max(drifted_share, loss_share, rise_share, 0.0), 1.0)


def _share(part: Fact, whole: Fact) -> float:
    """Return a part's share of a whole; 0 where either is unknown or there is no whole."""
    if not isinstance(part, int | float) or not isinstance(whole, int | float) or whole <= 0:
        return 0.0
    return part / whole


class _Vote(NamedTuple):
    kind: EvidenceKind
    alarm: bool | None
    because: str


def _votes(reading: DriftReading, config: DriftConfig) -> Iterator[_Vote]:
    """Yield the votes, in the order in which the answer names them."""
    if reading.change and config.target_votes:
        yield _Vote("labels", True, reading.change)
    if few := _too_few(reading, config):
        yield _Vote("missing evidence", None, few.because)
    else:
        if features := [column for column in reading.columns if column.role == "feature"]:
            yield _features_vote(features, config)
        for column in _voting_labels(reading, config):
            verdict = drifted(column, config)
            word = {True: "drifted", False: "steady", None: "unknown"}[verdict]
            kind: EvidenceKind = "target" if column.role == "target" else "predictions"
            yield _Vote(kind, verdict, f"{column.role} {word}: {_describe(column, config)}")
        if reading.performance is not None:
            yield _performance_vote(reading.performance, config)
    votes = {"errors": config.error_votes, "relative errors": config.relative_error_votes}
    for found in reading.findings:
        if votes[found.kind]:
            yield _Vote(found.kind, True, found.because)


def _features_vote(features: list[ColumnDrift], config: DriftConfig) -> _Vote:
    verdicts = [drifted(column, config) for column in features]
    moved, unknown, total = verdicts.count(True), verdicts.count(None), len(features)
    share = 1 / total if config.drifted_share is None else config.drifted_share
    alarm: bool | None = moved / total >= share
    if not alarm and (moved + unknown) / total >= share:
        alarm = None
    shown = [
        column
        for column, verdict in zip(features, verdicts, strict=True)
        if verdict is (None if alarm is None else True)
    ]
    limit = "one" if config.drifted_share is None else f"a share of {config.drifted_share:g}"
    return _Vote(
        "features",
        alarm,
        f"{moved} of {total} features drifted, {unknown} unknown "
        f"(alarm at {limit}): {_worst(shown or features, config)}",
    )


def _voting_labels(reading: DriftReading, config: DriftConfig) -> list[ColumnDrift]:
    votes = {"target": config.target_votes, "prediction": config.prediction_votes}
    return [column for column in reading.columns if votes.get(column.role, False)]


def _performance_vote(performance: Performance, config: DriftConfig) -> _Vote:
    loss = performance_loss(performance)
    if loss is None:
        why = f": {performance.unknown_because}" if performance.unknown_because else ""
        because = f"{performance.metric} is unknown in at least one of the windows{why}"
        return _Vote("errors", None, because)
    because = (
        f"{performance.metric} went from {performance.reference:.4g} to {performance.current:.4g}: "
        f"{loss:.4g} {_LOST[performance.loss_unit]} (allowed {config.performance_drop:g})"
    )
    if loss <= config.performance_drop:
        return _Vote("errors", False, because)
    error = performance.standard_error
    change = abs((performance.reference or 0.0) - (performance.current or 0.0))
    if error is not None and change <= NOISE_ERRORS * error:
        noise = f"which is within {NOISE_ERRORS:g} standard errors of {error:.2g}"
        return _Vote("errors", False, f"{because}, {noise}")
    return _Vote("errors", True, because)


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
    threshold = threshold_of(column, config)
    if threshold is None:
        return f"{column.name} {column.method} {score:.4g} ({_why_unknown(column, config)})"
    side = "from" if column.larger_is_drift else "up to"
    return f"{column.name} {column.method} {score:.4g} (drift {side} {threshold:.4g})"


def _why_unknown(column: ColumnDrift, config: DriftConfig) -> str:
    asked = config.method(column.kind)
    if column.method != asked:
        return f"measured by {column.method}, but the tolerance asks for {asked}"
    if column.unknown_because:
        return column.unknown_because
    if _known_score(column, config) is not None:
        return "it is not known what sampling alone makes of it"
    return f"{column.method} gave no finite score"


def _worst(columns: Iterable[ColumnDrift], config: DriftConfig) -> str:
    """Return a phrase for the three columns that are the most times over their threshold."""

    def times_over(column: ColumnDrift) -> float:
        missing = _missing_change(column) / config.missing_change
        score, threshold = _known_score(column, config), threshold_of(column, config)
        if score is None or threshold is None:
            return missing
        if column.larger_is_drift:
            return max(missing, score / threshold if threshold else math.inf)
        return max(missing, math.inf if score <= 0 else threshold / score)

    ranked = sorted(columns, key=times_over, reverse=True)
    rest = f" and {len(ranked) - 3} more" if len(ranked) > 3 else ""
    return ", ".join(_describe(column, config) for column in ranked[:3]) + rest


def _nature(reading: DriftReading, kinds: Iterable[EvidenceKind], votes: Sequence[_Vote]) -> Nature:
    """Return what the kinds of evidence that fired come to."""
    fired = {*kinds} - {"missing evidence"}
    if not fired:
        return "none"
    if fired & {"errors", "labels"}:
        return "real"
    if "relative errors" in fired:
        return "outgrown"
    is_known = any(vote.kind == "errors" and vote.alarm is not None for vote in votes)
    return "virtual" if is_known or error_monitor.CHAMPION not in reading.untested else "unknown"


def _change_estimate(reading: DriftReading) -> int | None:
    """Return where the change began: by the champion's own errors, else by the strongest finding.

    A pair tells it later, since the other member must have learned what is new.
    """
    if reading.change and reading.change_position is not None:
        return reading.change_position
    own = [found for found in reading.findings if found.member == error_monitor.CHAMPION]
    ranked = sorted(own, key=lambda found: bool(found.against)) or list(reading.findings)
    return ranked[0].change if ranked else None


def _error_rise(reading: DriftReading) -> float | None:
    """Return how much the champion's mean loss has risen; None where that was not found."""
    for found in reading.findings:
        if (found.member, found.against) == (error_monitor.CHAMPION, ""):
            return None if found.mean_now is None else found.mean_now - found.mean_before
    return None


def _answer(
    outcome: Outcome,
    because: str,
    reading: DriftReading,
    config: DriftConfig,
    votes: Sequence[_Vote],
) -> Decision:
    kinds = list(dict.fromkeys(vote.kind for vote in votes if vote.alarm))
    if any(vote.alarm is None for vote in votes) or reading.untested:
        kinds.append("missing evidence")
    verdicts = [drifted(column, config) for column in reading.columns if column.role == "feature"]
    facts: dict[str, Fact] = {
        "outcome": outcome,
        "kinds": ", ".join(kinds),
        "nature": _nature(reading, kinds, votes),
        "change_estimate": _change_estimate(reading),
        "reference_rows": reading.reference_rows,
        "current_rows": reading.current_rows,
        "min_rows": config.min_rows,
        "features": len(verdicts),
        "features_drifted": verdicts.count(True),
        "features_unknown": verdicts.count(None),
        "alarm_share": config.drifted_share,
        "number_method": config.number_method,
        "number_threshold": config.number_threshold,
        "category_method": config.category_method,
        "category_threshold": config.category_threshold,
        "column_false_alarms": config.column_false_alarms,
        "missing_columns": ", ".join(reading.missing_columns),
        "extra_columns": ", ".join(reading.extra_columns),
        "change": reading.change,
        "untested": ", ".join(reading.untested),
        "error_rise": _error_rise(reading),
        "performance_drop_allowed": config.performance_drop,
        "error_false_alarm_records": config.error_false_alarm_records,
    }
    for found in reading.findings:
        name = f"{found.member} against {found.against}" if found.against else found.member
        facts |= {
            f"error_evidence:{name}": found.evidence,
            f"error_before:{name}": found.mean_before,
            f"error_now:{name}": found.mean_now,
            f"error_change:{name}": found.change,
            f"error_records:{name}": found.records_now,
        }
    for column in reading.columns:
        facts[f"{column.role}:{column.name}"] = _known_score(column, config)
        facts[f"threshold:{column.name}"] = threshold_of(column, config)
        if _missing_change(column) > 0:
            facts[f"missing_change:{column.name}"] = _missing_change(column)
    if performance := reading.performance:
        facts |= {
            "performance_metric": performance.metric,
            "performance_reference": performance.reference,
            "performance_current": performance.current,
            "performance_loss": performance_loss(performance),
            "performance_standard_error": performance.standard_error,
        }
    yes = outcome in {"drift_detected", "contract_broken"}
    return Decision(question="drift", yes=yes, because=because, facts=facts)
