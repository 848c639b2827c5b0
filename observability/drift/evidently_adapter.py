"""Door to evidently: two frames in, scores out, and a page for people when one is asked for.

It decides nothing: thresholds and their directions live in `drift`. `measure` calls evidently's own
statistical tests by name and draws nothing, because a whole Report takes a second or more, nearly
all of it for plots. The library is imported when first used (it takes seconds), with its telemetry
switched off.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from observability.core import atomic_file, errors
from observability.drift import drift
from observability.drift.drift import (
    ColumnDrift,
    DriftConfig,
    DriftReading,
    Performance,
    WatchedColumn,
)

if TYPE_CHECKING:
    import pandas as pd

SMALLEST_SPREAD = 0.001
"""evidently divides a Wasserstein distance by this at least, whatever the column's unit."""

LARGEST_VALUE = 1e150
"""Squares of larger values overflow, and a distance divided by an infinite spread reads as zero."""


class PageFailed(errors.ThermodriftError, RuntimeError):
    """evidently could not draw a page. No decision rests on the page."""


def measure(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    tolerance: DriftConfig,
    *,
    performance: Performance | None = None,
    tripwire: bool = False,
    change: str = "",
) -> DriftReading:
    """Score every watched column of `current` against `reference` by the tolerance's methods.

    Frames are of shape (records, columns), one row per example; their indexes do not matter. The
    column contract is checked first: where it is broken nothing is scored. Missing and infinite
    values are left out, column by column, and their share is reported. What cannot be scored is
    reported as unknown with its reason; no content of a column raises. Neither frame is changed.
    """
    missing, extra = _contract(reference, current, watched)
    scored = () if missing or extra else watched
    return DriftReading(
        reference_rows=len(reference),
        current_rows=len(current),
        columns=tuple(
            _measured(reference[column.name], current[column.name], column, tolerance)
            for column in scored
        ),
        missing_columns=missing,
        extra_columns=extra,
        performance=performance,
        tripwire=tripwire,
        change=change,
    )


def page(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    tolerance: DriftConfig,
    path: Path,
    unknown: Sequence[drift.UnknownVote] = (),
) -> bool:
    """Write evidently's HTML page of the same frames, methods and thresholds to `path`, durably.

    It shows the columns that can be scored and that vary, and its share of drifted features is set
    so that it says what `drift.judge` says of the scores. True when it was written; false when the
    column contract is broken or no column can be shown. Votes that are `unknown` stand above all
    else, since evidently leaves out what it cannot score. A page takes seconds and about 4 MB.
    Raises PageFailed where evidently does, and OSError where the disk refuses.
    """
    try:
        drawn = snapshot(reference, current, watched, tolerance)
        if drawn is None:
            return False
        with _quiet():
            html: str = drawn.get_html_str(as_iframe=False)
        html = _with_unknown(html, unknown)
    except Exception as cause:
        raise PageFailed(
            f"evidently could not draw the drift page {path.name} ({type(cause).__name__}: "
            f"{cause}); the decision stands without it, and page = false in [drift] turns pages off"
        ) from cause
    atomic_file.write(path, html.encode())
    return True


def snapshot(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    watched: Sequence[WatchedColumn],
    tolerance: DriftConfig,
) -> Any:
    """evidently's own Snapshot over the columns that can be shown, or None without any."""
    reading = measure(reference, current, watched, tolerance)
    whole = _drawable(reference, current, [each for each in reading.columns if each.enough])
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
        drawings = _drawings(shown, tolerance, _count_features(reading.columns))
        return Report(drawings, include_tests=True).run(now, before)


def _with_unknown(html: str, unknown: Sequence[drift.UnknownVote]) -> str:
    """The page with what it cannot show, said first."""
    if not unknown:
        return html
    told = "".join(
        f"<li>{escape(f'{each.vote}: {each.because}. Known with: {each.remedy}.')}</li>"
        for each in unknown
    )
    note = f"<section><h2>Unknown, and not on this page</h2><ul>{told}</ul></section>"
    head, body, rest = html.partition("<body>")
    return f"{head}{body}{note}{rest}" if body else note + html


class _Sides(NamedTuple):
    """One column's usable values on both sides: finite float64, or the codes of categories."""

    reference: pd.Series[Any]
    current: pd.Series[Any]


def _contract(
    reference: pd.DataFrame, current: pd.DataFrame, watched: Sequence[WatchedColumn]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that are missing from a frame, and names too many in one; sorted."""
    agreed = {column.name for column in watched}
    counts = [Counter(map(str, frame.columns)) for frame in (reference, current)]
    missing = {name for name in agreed if any(name not in count for count in counts)}
    extra = {
        name for count in counts for name, times in count.items() if name not in agreed or times > 1
    }
    return tuple(sorted(missing)), tuple(sorted(extra))


def _measured(
    reference: pd.Series[Any],
    current: pd.Series[Any],
    column: WatchedColumn,
    tolerance: DriftConfig,
) -> ColumnDrift:
    method = tolerance.method(column.kind)
    sides = _usable(reference, current, column, method)
    why, remedy = _unfit(sides, column, tolerance)
    score = None
    if not why:
        score, why = _score(sides, column, method)
        remedy = f"another [drift] {column.kind}_method" if why else ""
    return ColumnDrift(
        name=column.name,
        role=column.role,
        kind=column.kind,
        method=method,
        score=score,
        larger_is_drift=drift.METHODS[method].larger_is_drift,
        enough=score is not None,
        unknown_because=why,
        remedy=remedy,
        reference_missing=_missing_share(reference, sides.reference),
        current_missing=_missing_share(current, sides.current),
    )


def _missing_share(whole: pd.Series[Any], usable: pd.Series[Any]) -> float:
    return 1 - len(usable) / len(whole) if len(whole) else 0.0


def _unfit(sides: _Sides, column: WatchedColumn, tolerance: DriftConfig) -> tuple[str, str]:
    """Why the values do not fit any test, and what would make them; or nothing."""
    reference, current = map(len, sides)
    fewer = min(reference, current)
    needed = tolerance.reference_needs(reference)
    if reference < needed or current < tolerance.min_rows:
        return (
            f"values: reference {reference}, current {current}, "
            f"{drift.needed_told(needed, tolerance)}"
        ), drift.few_remedy(reference, current, tolerance)
    if column.kind == "category":
        distinct = max(int(side.max()) for side in sides) + 1
        if fewer < distinct * tolerance.rows_per_category:
            return (
                f"{distinct} categories in {fewer} values, "
                f"needed {tolerance.rows_per_category} values for each"
            ), (
                f"{distinct * tolerance.rows_per_category} values on each side (larger windows in "
                "[drift] and [batch]), or a smaller [drift] rows_per_category"
            )
        return "", ""
    largest = max(float(side.abs().max()) for side in sides)
    if largest > LARGEST_VALUE:
        return f"values as large as {largest:.3g} overflow", "values in another unit"
    return "", ""


def _score(sides: _Sides, column: WatchedColumn, method: str) -> tuple[float | None, str]:
    """The test's score, or None and why there is none."""
    if len({side.min() for side in sides} | {side.max() for side in sides}) == 1:
        # Some tests raise, and some answer NaN, where the answer is plain: nothing moved.
        return (0.0 if drift.METHODS[method].larger_is_drift else 1.0), ""
    registered, kinds = _library()
    kind = kinds[column.kind]
    test: Callable[..., Any] = registered(method, kind)
    try:
        with _quiet():
            # Given a threshold, evidently also gives a verdict; it is not looked at.
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
    numbers = _numbers(reference), _numbers(current)
    factor = _factor(numbers, method)
    return _Sides(*_series(*(part[~np.isnan(part)] * factor for part in numbers)))


def _series(*parts: np.ndarray[Any, Any]) -> list[pd.Series[Any]]:
    import pandas as pd

    return [pd.Series(part) for part in parts]


def _numbers(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """As float64; what is not a finite number is NaN."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _factor(sides: Sequence[np.ndarray[Any, np.dtype[np.float64]]], method: str) -> float:
    """A power of ten that lifts a column in tiny units above evidently's smallest spread.

    Below that spread its normed Wasserstein distance shrinks with the unit, so that a feature in
    microamperes could never drift. The other methods do not mind the unit.
    """
    both = np.concatenate(sides)
    both = both[~np.isnan(both)]
    if method != "wasserstein" or not len(both):
        return 1.0
    with np.errstate(over="ignore"):
        spread = float(np.std(both))
    return 10.0 ** math.ceil(-math.log10(spread)) if 0 < spread < SMALLEST_SPREAD else 1.0


def _codes(
    reference: pd.Series[Any], current: pd.Series[Any]
) -> tuple[np.ndarray[Any, np.dtype[np.intp]], list[str]]:
    """Categories of both sides as shared codes 0, 1, ... (reference first), and their names.

    A missing value is -1. By the text of the value, so that a class is the same whether one frame
    holds it as 1 and the other as 1.0. In order of appearance and not of a hash, so that a replay
    gives the same score to the last digit.
    """
    known: dict[str, int] = {}
    sides = []
    for side in (reference, current):
        codes, distinct = _coded(side)
        shared = [known.setdefault(_text(value), len(known)) for value in distinct]
        sides.append(np.array([*shared, -1], dtype=np.intp)[codes])
    return np.concatenate(sides), list(known)


def _coded(side: pd.Series[Any]) -> tuple[np.ndarray[Any, np.dtype[np.intp]], Sequence[object]]:
    """One side's codes, and its distinct values in order of appearance."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(side)
    except TypeError:  # a list or a dict in a cell
        codes, distinct = pd.factorize(side.map(_text, na_action="ignore"))
    return codes, distinct.tolist()


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _drawings(
    shown: Sequence[ColumnDrift], tolerance: DriftConfig, features_watched: int
) -> list[Any]:
    """The features together, with our share as the page's; each label by itself, as it votes."""
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    drawings: list[Any] = [
        ValueDrift(
            column=label.name, method=label.method, threshold=tolerance.threshold(label.kind)
        )
        for label in shown
        if label.role != "feature"
    ]
    if not _count_features(shown):
        return drawings
    preset = DataDriftPreset(
        columns=[column.name for column in shown if column.role == "feature"],
        drift_share=_share(tolerance.drifted_share, features_watched, _count_features(shown)),
        num_method=tolerance.number_method,
        num_threshold=tolerance.threshold("number"),
        cat_method=tolerance.category_method,
        cat_threshold=tolerance.threshold("category"),
    )
    return [preset, *drawings]


def _count_features(columns: Sequence[ColumnDrift]) -> int:
    return sum(column.role == "feature" for column in columns)


def _share(share: float, features_watched: int, features_shown: int) -> float:
    """The share of the shown features that takes as many of them as our share of the watched."""
    if features_shown == features_watched:
        return share
    needed = next(
        count for count in range(1, features_watched + 1) if count / features_watched >= share
    )
    # Half a feature less, so that no rounding falls on the wrong side.
    return (needed - 0.5) / features_shown


def _drawable(
    reference: pd.DataFrame, current: pd.DataFrame, scored: Sequence[ColumnDrift]
) -> pd.DataFrame:
    """Both frames in one, reference first, as `measure` saw them; categories by their names.

    Without the columns that hold one single value, which evidently's tests may refuse.
    """
    import pandas as pd

    drawn: dict[str, pd.Series[Any]] = {}
    for column in scored:
        before, now = reference[column.name], current[column.name]
        if column.kind == "category":
            codes, labels = _codes(before, now)
            drawn[column.name] = pd.Series(np.array([*labels, None], dtype=object)[codes])
        else:
            numbers = _numbers(before), _numbers(now)
            drawn[column.name] = pd.Series(
                np.concatenate(numbers) * _factor(numbers, column.method)
            )
    return pd.DataFrame({name: values for name, values in drawn.items() if values.nunique() > 1})


@cache
def _library() -> tuple[Callable[..., Any], dict[str, Any]]:
    """evidently's look-up of a test by name, and its words for our kinds of columns."""
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
    """Keep what evidently and its libraries warn about to themselves, inside one call of theirs.

    They warn of their own deprecated imports, and of divisions by zero whose outcome (a NaN, an
    infinity) is checked here by value.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, RuntimeWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield
