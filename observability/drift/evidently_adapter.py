"""Adapter of evidently: scores of two frames, and an HTML page for people on request.

It decides nothing: `drift` says what an alarm is, and `sampling_noise` where it begins. `measure`
calls evidently's
statistical tests by name and draws nothing, because a whole Report takes a second or more, nearly
all of it for plots. The library is imported at its first use (which takes seconds), with its
telemetry disabled.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from observability.core import atomic_file, errors
from observability.drift import drift, sampling_noise
from observability.drift.drift import (
    ColumnDrift,
    DriftConfig,
    DriftReading,
    WatchedColumn,
)

if TYPE_CHECKING:
    import pandas as pd

SMALLEST_SPREAD = 0.001
"""evidently divides a Wasserstein distance by at least this number, whatever the column's unit."""

CENTRAL = (0.01, 0.99)
"""Quantiles between which the central 98 % of a column lie."""

REACH = 3.0
"""How far beyond these a value counts, in widths between them."""

LARGEST_VALUE = 1e150
"""Squares of larger values overflow, and a distance divided by an infinite spread reads as zero."""


SEED = 20260729
"""The thresholds of a reference are the same, whenever they are computed."""
SIZE_STEP = 1.1
"""Windows whose numbers of values differ by less than this factor have the same thresholds."""


class PageFailed(errors.ThermodriftError, RuntimeError):
    """evidently could not draw a page. No decision rests on the page."""


def measure(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    config: DriftConfig,
    thresholds: Mapping[str, float] | None = None,
) -> DriftReading:
    """Score every watched column of `current` against `reference` by the config's methods.

    `thresholds` are those of `noise_thresholds`; None: they are computed here, which takes longer
    than all the rest.

    Frames have the shape (records, columns), one row per example; their indexes do not matter. The
    column contract is checked first: where it is broken nothing is scored. Missing and infinite
    values are left out, column by column, and their share is reported. A column that cannot be
    scored is reported as unknown with its reason; no content of a column raises an error. Neither
    frame is changed.
    """
    agreed = {column.name for column in watched}
    counts = [Counter(map(str, frame.columns)) for frame in (reference, current)]
    missing = sorted(name for name in agreed if any(name not in count for count in counts))
    extra = sorted(
        {name for count in counts for name in count if name not in agreed or count[name] > 1}
    )
    scored = () if missing or extra else watched
    if thresholds is None and scored:
        thresholds = noise_thresholds(reference, current, watched, config)
    limits = thresholds or {}
    return DriftReading(
        reference_rows=len(reference),
        current_rows=len(current),
        columns=tuple(
            _measured(reference[column.name], current[column.name], column, config).model_copy(
                update={"threshold": limits.get(column.name)}
            )
            for column in scored
        ),
        missing_columns=tuple(missing),
        extra_columns=tuple(extra),
    )


def window_sizes(
    reference: pd.DataFrame, current: pd.DataFrame, watched: Sequence[WatchedColumn]
) -> tuple[tuple[int, int], ...]:
    """Return how many values each column has on both sides, in steps of a tenth, rounded down.

    Thresholds depend on the reference and on these alone.
    """

    def rounded(frame: pd.DataFrame, column: WatchedColumn) -> int:
        count = int(frame[column.name].notna().sum()) if column.name in frame else 0
        return int(SIZE_STEP ** math.floor(math.log(count, SIZE_STEP))) if count else 0

    return tuple((rounded(reference, each), rounded(current, each)) for each in watched)


def noise_thresholds(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    config: DriftConfig,
) -> dict[str, float]:
    """Return from which score each column has drifted, by the noise of the reference alone.

    Of `current` only the numbers of values count. A column that cannot be scored has none, nor has
    one whose threshold `config` names. It is meant to be called once a champion: 20 columns of
    2,000 rows take about a second.
    """
    scores: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    sizes = window_sizes(reference, current, watched)
    for index, (column, (_, now)) in enumerate(zip(watched, sizes, strict=True)):
        method = config.method(column.kind)
        if config.named_threshold(column.kind) is not None:
            continue
        sides = _usable(reference[column.name], current[column.name], column, method)
        if _obstacle(sides, column, config)[0]:
            continue
        # A generator of its own: a column more or less changes no other one's threshold much.
        chance = np.random.default_rng([SEED, index])
        if len(found := _scores_by_chance(sides.reference, now, column, method, chance)):
            scores[column.name] = found
    directions = {each.name: drift.LARGER_IS_DRIFT[config.method(each.kind)] for each in watched}
    return sampling_noise.thresholds(scores, directions, config.column_false_alarms)


def _scores_by_chance(
    reference: pd.Series[Any],
    size: int,
    column: WatchedColumn,
    method: str,
    chance: np.random.Generator,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Score pairs of windows drawn from the reference; empty where the test fails on any."""
    values = reference.to_numpy()
    if column.kind == "category" and values.min() == values.max():
        # A category that never came in n values may well come in one of n + 1 (Laplace's rule of
        # succession): without it, a reference of one category alone has no noise at all.
        values = np.append(values, values.max() + 1)
    count = len(values)
    runs = values if column.kind == "number" else values == np.bincount(values).argmax()
    block = sampling_noise.block_length(runs.astype(np.float64), min(size, count))
    found = []
    for _ in range(sampling_noise.PAIRS):
        sides = _series(
            values[sampling_noise.draw(chance, count, count, block)],
            values[sampling_noise.draw(chance, count, size, block)],
        )
        score, _ = _score(_Sides(*sides), column, method)
        if score is None:
            return np.zeros(0)
        found.append(score)
    return np.array(found)


def page(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    config: DriftConfig,
    path: Path,
    unknown: Sequence[drift.UnknownVote] = (),
    thresholds: Mapping[str, float] | None = None,
) -> bool:
    """Write evidently's HTML page of the same frames, methods and thresholds to `path`, durably.

    The page shows the columns that can be scored and that vary, and its share of drifted features
    is set so that it agrees with `drift.judge` about the scores. Returns whether it was written; it
    is not where the column contract is broken or no column can be shown. `unknown` votes are listed
    at the top, because evidently leaves out what it cannot score. A page takes seconds and about
    4 MB. Raises PageFailed where evidently fails, and OSError where the disk refuses.
    """
    try:
        drawn = snapshot(reference, current, watched, config, thresholds)
        if drawn is None:
            return False
        with _quiet():
            html: str = drawn.get_html_str(as_iframe=False)
        if unknown:
            items = "".join(
                f"<li>{escape(f'{each.vote}: {each.because}. Known with: {each.remedy}.')}</li>"
                for each in unknown
            )
            note = f"<section><h2>Unknown, and not on this page</h2><ul>{items}</ul></section>"
            head, body, rest = html.partition("<body>")
            html = f"{head}{body}{note}{rest}" if body else note + html
    except Exception as cause:
        raise PageFailed(
            f"evidently could not draw the drift page {path.name} ({type(cause).__name__}: "
            f"{cause}); no decision rests on it"
        ) from cause
    atomic_file.write(path, html.encode())
    return True


def snapshot(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    config: DriftConfig,
    thresholds: Mapping[str, float] | None = None,
) -> Any:
    """Return evidently's Snapshot of the columns that can be shown; None where there is none."""
    reading = measure(reference, current, watched, config, thresholds=thresholds)
    known = [
        each
        for each in reading.columns
        if each.enough and drift.threshold_of(each, config) is not None
    ]
    whole = _drawable(reference, current, known)
    shown = [column for column in reading.columns if column.name in whole]
    if not shown:
        return None
    _library()
    with _quiet():
        from evidently import DataDefinition, Dataset, Report

        definition = DataDefinition(
            numerical_columns=[each.name for each in shown if each.kind == "number"],
            categorical_columns=[each.name for each in shown if each.kind == "category"],
        )
        frames = whole.iloc[: len(reference)], whole.iloc[len(reference) :]
        before, now = (
            Dataset.from_pandas(frame.reset_index(drop=True), definition) for frame in frames
        )
        features = sum(column.role == "feature" for column in reading.columns)
        drawings = _drawings(shown, config, features)
        return Report(drawings, include_tests=True).run(now, before)


class _Sides(NamedTuple):
    """The usable values of one column on both sides: finite float64, or codes of categories."""

    reference: pd.Series[Any]
    current: pd.Series[Any]


def _measured(
    reference: pd.Series[Any],
    current: pd.Series[Any],
    column: WatchedColumn,
    config: DriftConfig,
) -> ColumnDrift:
    method = config.method(column.kind)
    sides = _usable(reference, current, column, method)
    why, remedy = _obstacle(sides, column, config)
    score = None
    if not why:
        score, why = _score(sides, column, method)
        remedy = f"another [drift] {column.kind}_method" if why else ""
    missing_shares = [
        1 - len(usable) / len(whole) if len(whole) else 0.0
        for whole, usable in zip((reference, current), sides, strict=True)
    ]
    return ColumnDrift(
        name=column.name,
        role=column.role,
        kind=column.kind,
        method=method,
        score=score,
        larger_is_drift=drift.LARGER_IS_DRIFT[method],
        enough=score is not None,
        unknown_because=why,
        remedy=remedy,
        reference_missing=missing_shares[0],
        current_missing=missing_shares[1],
    )


def _obstacle(sides: _Sides, column: WatchedColumn, config: DriftConfig) -> tuple[str, str]:
    """Return why no test can use the values, and what would change that; both empty: it can."""
    reference, current = map(len, sides)
    fewer = min(reference, current)
    needed = config.reference_needs(reference)
    if reference < needed or current < config.min_rows:
        return (
            f"values: reference {reference}, current {current}, "
            f"{drift.describe_needed(needed, config)}"
        ), drift.remedy_for_too_few(reference, current, config)
    if column.kind == "category":
        distinct = max(int(side.max()) for side in sides) + 1
        if fewer < distinct * config.rows_per_category:
            return (
                f"{distinct} categories in {fewer} values, "
                f"needed {config.rows_per_category} values for each"
            ), (
                f"{distinct * config.rows_per_category} values on each side (larger windows in "
                "[drift] and [batch]), or a smaller [drift] rows_per_category"
            )
        return "", ""
    largest = max(float(side.abs().max()) for side in sides)
    if largest > LARGEST_VALUE:
        return f"values as large as {largest:.3g} overflow", "values in another unit"
    return "", ""


def _score(sides: _Sides, column: WatchedColumn, method: str) -> tuple[float | None, str]:
    """Return the test's score and an empty text, or None and the reason."""
    if len({side.min() for side in sides} | {side.max() for side in sides}) == 1:
        # All values are equal, so nothing moved; some tests raise here, and some return NaN.
        return (0.0 if drift.LARGER_IS_DRIFT[method] else 1.0), ""
    registered, kinds = _library()
    kind = kinds[column.kind]
    test: Callable[..., Any] = registered(method, kind)
    try:
        with _quiet():
            # With a threshold evidently also returns a verdict, which is not used.
            answer = test(sides.reference, sides.current, kind, 0.5)
    except (ValueError, ArithmeticError) as refused:
        return None, f"{method} could not be computed: {refused}"
    score = float(answer.drift_score)
    if not math.isfinite(score):
        return None, f"{method} gave {score}"
    return score, ""


def _usable(
    reference: pd.Series[Any], current: pd.Series[Any], column: WatchedColumn, method: str
) -> _Sides:
    if column.kind == "category":
        codes, _ = _codes(reference, current)
        split = len(reference)
        return _Sides(*(part[part >= 0] for part in _series(codes[:split], codes[split:])))
    numbers = _comparable(reference, current, method)
    return _Sides(*_series(*(part[~np.isnan(part)] for part in numbers)))


def _series(*parts: np.ndarray[Any, Any]) -> list[pd.Series[Any]]:
    import pandas as pd

    return [pd.Series(part) for part in parts]


def _numbers(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the values as float64; what is not a finite number is NaN."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _comparable(
    reference: pd.Series[Any], current: pd.Series[Any], method: str
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """Return both sides as evidently's normed Wasserstein distance can compare them; NaN stays.

    Other methods do not depend on the unit, nor much on single values. For this one, values that
    are further out of the reference's central 98 % than three times its width count as that far:
    otherwise one value in a thousand could be the whole distance, and no sample would tell how far
    such a value may lie.
    """
    sides = [_numbers(reference), _numbers(current)]
    before = sides[0][~np.isnan(sides[0])]
    if method != "wasserstein" or not len(before):
        return sides
    low, high = np.quantile(before, CENTRAL)
    width = high - low
    if 0.0 < width < math.inf:
        sides = [np.clip(side, low - REACH * width, high + REACH * width) for side in sides]
    factor = _factor(sides)
    return [side * factor for side in sides]


def _factor(sides: Sequence[np.ndarray[Any, np.dtype[np.float64]]]) -> float:
    """Return a power of ten that scales a column above evidently's smallest spread.

    Below that spread evidently's normed Wasserstein distance shrinks with the unit, so a feature in
    microamperes could never drift.
    """
    both = np.concatenate(sides)
    both = both[~np.isnan(both)]
    if not len(both):
        return 1.0
    with np.errstate(over="ignore"):
        spread = float(np.std(both))
    return 10.0 ** math.ceil(-math.log10(spread)) if 0 < spread < SMALLEST_SPREAD else 1.0


def _codes(
    reference: pd.Series[Any], current: pd.Series[Any]
) -> tuple[np.ndarray[Any, np.dtype[np.intp]], list[str]]:
    """Return the categories of both sides as shared codes 0, 1, ..., reference first, and names.

    A missing value is -1. Categories are compared by their text, so a class is the same where one
    frame holds it as 1 and the other as 1.0. They are numbered in order of appearance and not by a
    hash, so that a replay gives the same score to the last digit.
    """
    import pandas as pd

    numbers: dict[str, int] = {}
    sides = []
    for side in (reference, current):
        try:
            codes, distinct = pd.factorize(side)
        except TypeError:  # a list or a dict in a cell
            codes, distinct = pd.factorize(side.map(_text, na_action="ignore"))
        shared = [numbers.setdefault(_text(value), len(numbers)) for value in distinct.tolist()]
        sides.append(np.array([*shared, -1], dtype=np.intp)[codes])
    return np.concatenate(sides), list(numbers)


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _drawings(
    shown: Sequence[ColumnDrift], config: DriftConfig, features_watched: int
) -> list[Any]:
    """Return evidently's metrics: one for all features with our share, one for each label."""
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    drawings: list[Any] = [
        ValueDrift(
            column=label.name, method=label.method, threshold=drift.threshold_of(label, config)
        )
        for label in shown
        if label.role != "feature"
    ]
    features = [column for column in shown if column.role == "feature"]
    if not features:
        return drawings
    # As many of the shown features as our share takes of the watched ones; half a feature less, so
    # that rounding cannot change the answer.
    asked = 0.0 if config.drifted_share is None else config.drifted_share
    counts = range(1, features_watched + 1)
    needed = next(count for count in counts if count / features_watched >= asked)
    preset = DataDriftPreset(
        columns=[column.name for column in features],
        drift_share=(needed - 0.5) / len(features),
        num_method=config.number_method,
        cat_method=config.category_method,
        per_column_threshold={
            column.name: drift.threshold_of(column, config) for column in features
        },
    )
    return [preset, *drawings]


def _drawable(
    reference: pd.DataFrame, current: pd.DataFrame, scored: Sequence[ColumnDrift]
) -> pd.DataFrame:
    """Return both frames in one, reference first, as `measure` used them; categories by name.

    Columns with one single value are left out, because evidently's tests may refuse them.
    """
    import pandas as pd

    drawn: dict[str, pd.Series[Any]] = {}
    for column in scored:
        before, now = reference[column.name], current[column.name]
        if column.kind == "category":
            codes, labels = _codes(before, now)
            drawn[column.name] = pd.Series(np.array([*labels, None], dtype=object)[codes])
        else:
            sides = _comparable(before, now, column.method)
            drawn[column.name] = pd.Series(np.concatenate(sides))
    return pd.DataFrame({name: values for name, values in drawn.items() if values.nunique() > 1})


@cache
def _library() -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return evidently's function that finds a test by name, and its types for our kinds."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with _quiet():
        from evidently.legacy.calculations.stattests.registry import get_registered_stattest
        from evidently.legacy.core import ColumnType
    return get_registered_stattest, {
        "number": ColumnType.Numerical,
        "category": ColumnType.Categorical,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore the warnings of evidently and its libraries inside the block.

    They warn about their own deprecated imports, and about divisions by zero whose result (a NaN,
    an infinity) is checked here by value.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, RuntimeWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield
