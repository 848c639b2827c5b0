"""The door to evidently, against the real evidently: scores, contract, odd columns, the page."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from observability.core import failpoints
from observability.drift import drift, evidently_adapter
from observability.drift.drift import DriftConfig
from tests import ROOT
from tests.observability.makers import make_window

KINDS: dict[str, drift.Kind] = {"load": "number", "price": "number", "region": "category"}
WATCHED = drift.watched(KINDS, label_kind="category", target="class")
TOLERANCE = DriftConfig()
ROWS = 400


def measure_one(
    reference: Any, current: Any, kind: drift.Kind = "number", **knobs: Any
) -> drift.ColumnDrift:
    """The reading of a single feature."""
    reading = evidently_adapter.measure(
        pd.DataFrame({"x": reference}),
        pd.DataFrame({"x": current}),
        drift.watched({"x": kind}, label_kind="number"),
        DriftConfig(**knobs),
    )
    (column,) = reading.columns
    return column


def page_verdicts(snapshot: Any) -> tuple[bool | None, dict[str, tuple[float, bool]]]:
    """What evidently's report says: of the features together, and of each column."""
    found = snapshot.dict()
    failed = {
        test["metric_config"]["metric_id"] for test in found["tests"] if test["status"] == "FAIL"
    }
    whole: bool | None = None
    columns = {}
    for metric in found["metrics"]:
        if "column" in metric["config"]:
            verdict = metric["id"] in failed
            columns[metric["config"]["column"]] = (float(metric["value"]), verdict)
        else:
            whole = metric["id"] in failed
    return whole, columns


def test_a_reading_names_every_column_with_its_method_role_and_direction() -> None:
    """Features first, then the target; numbers and categories by their own methods."""
    reading = evidently_adapter.measure(
        make_window(), make_window(shift=1.0, seed=1), WATCHED, TOLERANCE
    )
    assert [
        ("load", "feature", "wasserstein", True),
        ("price", "feature", "wasserstein", True),
        ("region", "feature", "jensenshannon", True),
        ("class", "target", "jensenshannon", True),
    ] == [
        (column.name, column.role, column.method, column.larger_is_drift)
        for column in reading.columns
    ]
    assert [True, False, False, False] == [
        drift.drifted(column, TOLERANCE) for column in reading.columns
    ]
    assert (ROWS, ROWS) == (reading.reference_rows, reading.current_rows)


def test_thresholds_that_are_known_are_not_computed_again() -> None:
    """A reading has the thresholds that it was given; a column without one is unknown."""
    reading = evidently_adapter.measure(
        make_window(), make_window(shift=9.0), WATCHED, TOLERANCE, thresholds={"load": 0.25}
    )
    assert [0.25, None, None, None] == [column.threshold for column in reading.columns]
    assert [True, None, None, None] == [
        drift.drifted(column, TOLERANCE) for column in reading.columns
    ]


def test_the_same_reference_has_the_same_thresholds_for_windows_of_nearly_the_same_size() -> None:
    """They are computed once a champion, and a few missing values more change nothing."""
    one, other = (
        evidently_adapter.noise_thresholds(
            make_window(2000), make_window(rows, seed=rows), WATCHED, TOLERANCE
        )
        for rows in (1000, 960)
    )
    assert one == other
    assert {"load", "price", "region", "class"} == set(one)
    sizes = [
        evidently_adapter.window_sizes(make_window(2000), make_window(rows), WATCHED)
        for rows in (1000, 960, 500)
    ]
    assert sizes[0] == sizes[1] != sizes[2]


def test_a_smaller_window_needs_a_larger_distance() -> None:
    """The noise of sampling shrinks with the number of values."""
    few, many = (
        evidently_adapter.noise_thresholds(
            make_window(2000), make_window(rows), WATCHED, TOLERANCE
        )["load"]
        for rows in (250, 2000)
    )
    assert few > 1.2 * many


def test_a_category_that_comes_once_after_one_category_alone_is_no_drift() -> None:
    """A thousand equal predictions do not rule out another one of a thousand; a hundred do."""
    alone = ["ok"] * 1_000
    for others, expected in ((1, False), (100, True)):
        now = [*["fraud"] * others, *["ok"] * (1_000 - others)]
        assert expected is drift.drifted(measure_one(alone, now, "category"), TOLERANCE)


def test_a_threshold_that_a_person_names_is_not_computed() -> None:
    """It wins, so its column needs no noise of its own."""
    named = TOLERANCE.model_copy(update={"number_threshold": 0.3})
    found = evidently_adapter.noise_thresholds(make_window(), make_window(), WATCHED, named)
    assert {"region", "class"} == set(found)


def test_one_value_far_out_is_not_the_whole_distance() -> None:
    """Values beyond what the reference has count as far as its central part is wide again."""
    far = NORMAL.copy()
    far[0] = 1e12
    score = measure_one(NORMAL, far).score
    assert score is not None
    assert 0.0 < score < 0.1


@pytest.mark.parametrize(
    ("number_method", "category_method"),
    [
        ("wasserstein", "jensenshannon"),
        ("ks", "chisquare"),
        ("anderson", "psi"),
        ("hellinger", "hellinger"),
    ],
)
def test_the_page_and_the_decision_agree(number_method: str, category_method: str) -> None:
    """evidently's own report has our scores, our verdicts, and our answer about the features."""
    tolerance = DriftConfig.model_validate(
        {"number_method": number_method, "category_method": category_method}
    )
    for shift in (0.0, 2.0):
        reference, current = make_window(), make_window(shift=shift, seed=1)
        current.loc[:20, "price"] = np.nan
        current["price"] += shift
        reading = evidently_adapter.measure(reference, current, WATCHED, tolerance)
        whole, columns = page_verdicts(
            evidently_adapter.snapshot(reference, current, WATCHED, tolerance)
        )
        assert {column.name: drift.drifted(column, tolerance) for column in reading.columns} == {
            name: verdict for name, (_, verdict) in columns.items()
        }
        assert {column.name: column.score for column in reading.columns} == pytest.approx(
            {name: score for name, (score, _) in columns.items()}, abs=1e-12
        )
        assert drift.judge(reading, tolerance).yes is whole
        assert whole is (shift > 0)


def test_the_page_agrees_although_it_leaves_columns_out() -> None:
    """One drifted of four is no drift, also where the page can show only two of the four."""
    kinds: dict[str, drift.Kind] = dict.fromkeys("abcd", "number")
    rng = np.random.default_rng(0)
    reference, current = (
        pd.DataFrame({"a": rng.normal(shift, 1, ROWS), "b": rng.normal(0, 1, ROWS), "c": 1, "d": 2})
        for shift in (0, 3)
    )
    watched = drift.watched(kinds, label_kind="number")
    half = TOLERANCE.model_copy(update={"drifted_share": 0.5})
    decision = drift.judge(evidently_adapter.measure(reference, current, watched, half), half)
    whole, columns = page_verdicts(evidently_adapter.snapshot(reference, current, watched, half))
    assert (False, 1, {"a", "b"}) == (
        decision.yes,
        decision.facts["features_drifted"],
        set(columns),
    )
    assert whole is False
    current["b"] += 3
    assert (
        page_verdicts(evidently_adapter.snapshot(reference, current, watched, TOLERANCE))[0] is True
    )


@pytest.mark.parametrize(
    ("lost_from", "added_to", "missing", "extra"),
    [
        ("reference", None, ("price",), ()),
        ("current", None, ("price",), ()),
        (None, "reference", (), ("spare",)),
        (None, "current", (), ("spare",)),
        ("current", "reference", ("price",), ("spare",)),
    ],
)
def test_a_column_that_came_or_went_breaks_the_contract(
    lost_from: str | None, added_to: str | None, missing: tuple[str], extra: tuple[str]
) -> None:
    """evidently reads a missing column as no drift: it is never asked."""
    frames = {"reference": make_window(), "current": make_window(seed=1)}
    if lost_from:
        frames[lost_from] = frames[lost_from].drop(columns="price")
    if added_to:
        frames[added_to]["spare"] = 1.0
    reading = evidently_adapter.measure(frames["reference"], frames["current"], WATCHED, TOLERANCE)
    assert (missing, extra, ()) == (
        reading.missing_columns,
        reading.extra_columns,
        reading.columns,
    )
    assert "contract_broken" == drift.judge(reading, TOLERANCE).facts["outcome"]


def test_a_column_that_is_there_twice_breaks_the_contract() -> None:
    """Nobody can tell which of the two was agreed."""
    twice = pd.concat([make_window(), make_window()[["load"]]], axis=1)
    reading = evidently_adapter.measure(make_window(), twice, WATCHED, TOLERANCE)
    assert ("load",) == reading.extra_columns


RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=ROWS)
CONSTANT = np.full(ROWS, 3.0)
NOTHING = np.full(ROWS, np.nan)
ODD: dict[str, tuple[Any, Any]] = {
    "empty": ([], []),
    "one row": ([1.0], [1.0]),
    "one side empty": (NORMAL, []),
    "all missing": (NOTHING, NOTHING),
    "lost": (NORMAL, NOTHING),
    "infinite": (NORMAL, np.full(ROWS, np.inf)),
    "unchanging": (CONSTANT, CONSTANT),
    "frozen": (NORMAL, CONSTANT),
    "thawed": (CONSTANT, NORMAL),
    "another constant": (CONSTANT, CONSTANT + 1),
    "huge": (np.abs(NORMAL) * 1e307, np.abs(NORMAL) * 1e307),
    "tiny": (NORMAL * 1e-12, NORMAL * 1e-12),
    "bool": (NORMAL > 0, NORMAL < 0),
    "text": (["a", "b"] * (ROWS // 2), ["a", "c"] * (ROWS // 2)),
    "mixed": ([1, "a"] * (ROWS // 2), [None, 1.0] * (ROWS // 2)),
    "unhashable": ([[1], [2]] * (ROWS // 2), [[1], None] * (ROWS // 2)),
    "identifiers": (range(ROWS), range(ROWS, 2 * ROWS)),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("kind", "method"),
    [("number", method) for method in get_args(drift.NumberMethod)]
    + [("category", method) for method in get_args(drift.CategoryMethod)],
)
def test_no_content_of_a_column_raises_and_every_unknown_says_why(
    odd: str, kind: drift.Kind, method: str
) -> None:
    """A finite score that counts, or none with its reason; for every method and odd column."""
    column = measure_one(*ODD[odd], kind, **{f"{kind}_method": method})
    assert column.enough is (column.score is not None)
    assert column.enough is not bool(column.unknown_because)
    assert column.score is None or math.isfinite(column.score)


@pytest.mark.parametrize(
    ("odd", "kind", "expected"),
    [
        ("empty", "number", None),
        ("one row", "number", None),
        ("one side empty", "number", None),
        ("all missing", "number", None),
        ("lost", "number", True),
        ("infinite", "number", True),
        ("unchanging", "number", False),
        ("frozen", "number", True),
        ("thawed", "number", True),
        ("another constant", "number", True),
        ("huge", "number", None),
        ("tiny", "number", False),
        ("bool", "number", True),
        ("bool", "category", True),
        ("text", "number", None),
        ("text", "category", True),
        ("mixed", "category", True),
        ("lost", "category", True),
        ("unchanging", "category", False),
        ("another constant", "category", True),
        ("identifiers", "category", None),
    ],
)
def test_odd_columns_have_one_defined_outcome(
    odd: str, kind: drift.Kind, expected: bool | None
) -> None:
    """Drifted, steady or unknown: what each odd column means under the default tolerance."""
    assert expected is drift.drifted(measure_one(*ODD[odd], kind), TOLERANCE)


@pytest.mark.parametrize(
    ("odd", "kind", "said"),
    [
        ("one row", "number", "reference 1, current 1, needed 100 of the reference and 200 now"),
        ("lost", "number", "values: reference 400, current 0, needed 200 on each side"),
        ("huge", "number", "overflow"),
        ("identifiers", "category", "800 categories in 400 values, needed 20 values for each"),
    ],
)
def test_an_unknown_says_how_much_was_there_and_how_much_was_needed(
    odd: str, kind: drift.Kind, said: str
) -> None:
    """The reason carries its numbers, because it ends up in the decision."""
    assert said in measure_one(*ODD[odd], kind).unknown_because


def test_missing_and_infinite_values_are_left_out_and_counted() -> None:
    """A quarter without a usable value changes the share, not the score of the rest."""
    holed = NORMAL.copy()
    holed[:50], holed[50:100] = np.nan, np.inf
    column = measure_one(NORMAL, holed)
    assert (0.0, 0.25) == (column.reference_missing, column.current_missing)
    assert measure_one(NORMAL, NORMAL[100:]).score == column.score


def test_the_unit_of_a_column_does_not_matter() -> None:
    """In microamperes or in amperes, a shift of half a standard deviation is the same drift."""
    in_amperes = measure_one(NORMAL, NORMAL + 0.5)
    in_tiny_units = measure_one(NORMAL * 1e-6, (NORMAL + 0.5) * 1e-6)
    assert in_amperes.score == pytest.approx(0.5 / NORMAL.std())
    assert in_tiny_units.score == pytest.approx(in_amperes.score)


@pytest.mark.parametrize(
    ("one", "other"),
    [([0, 1], [0.0, 1.0]), ([0, 1], ["0", "1"]), ([True, False], ["True", "False"])],
)
def test_a_class_is_the_same_in_whatever_type_it_comes(one: list[Any], other: list[Any]) -> None:
    """A window with a missing label holds 1.0 where the reference holds 1: that is no drift."""
    assert 0.0 == measure_one(one * 200, other * 200, "category").score


def test_the_score_of_categories_is_evidentlys_distance_of_their_shares() -> None:
    """Half and half against one and three quarters, by the formula of Jensen and Shannon."""
    score = measure_one(["a", "b", "a", "b"] * 100, ["a", "b", "b", "b"] * 100, "category").score
    shares = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    middle = (shares[0] + shares[1]) / 2
    divergence = sum(float(np.sum(share * np.log(share / middle))) / 2 for share in shares)
    assert score == pytest.approx(math.sqrt(divergence))


def test_neither_frame_is_changed_and_their_indexes_do_not_matter() -> None:
    """The same frames give the same reading again, whatever rows are called."""
    reference, current = make_window(), make_window(shift=1.0, seed=1)
    current.loc[3, "load"] = np.inf
    kept = reference.copy(deep=True), current.copy(deep=True)
    reading = evidently_adapter.measure(reference, current, WATCHED, TOLERANCE)
    evidently_adapter.snapshot(reference, current, WATCHED, TOLERANCE)
    pd.testing.assert_frame_equal(kept[0], reference)
    pd.testing.assert_frame_equal(kept[1], current)
    shifted = current.set_index(np.repeat(7, ROWS))
    assert reading == evidently_adapter.measure(reference, shifted, WATCHED, TOLERANCE)


def test_a_page_is_written_whole_and_names_the_columns(tmp_path: Path) -> None:
    """One HTML file that a browser can open without anything beside it."""
    path = tmp_path / "page.html"
    assert evidently_adapter.page(make_window(), make_window(shift=1.0), WATCHED, TOLERANCE, path)
    html = path.read_text(encoding="utf-8")
    assert "</html>" in html
    assert "load" in html
    assert [path] == list(tmp_path.iterdir())


def test_nothing_is_written_where_nothing_can_be_shown(tmp_path: Path) -> None:
    """A broken contract, too few rows, or nothing but constants: false, and no file."""
    short, constant = make_window(rows=10), make_window().assign(load=1.0)[["load"]]
    path = tmp_path / "page.html"
    only_load = drift.watched({"load": "number"}, label_kind="number")
    assert not evidently_adapter.page(
        make_window(), make_window()[["load"]], WATCHED, TOLERANCE, path
    )
    assert not evidently_adapter.page(make_window(), short, WATCHED, TOLERANCE, path)
    assert not evidently_adapter.page(constant, constant, only_load, TOLERANCE, path)
    assert [] == list(tmp_path.iterdir())


@pytest.fixture
def full_disk() -> Iterator[None]:
    """The disk refuses the next durable write."""
    failpoints.arm("atomic_file.before_rename", "raise")
    yield
    failpoints.disarm()


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_refuses_leaves_no_half_page(tmp_path: Path) -> None:
    """The disk's error comes through as such, and no file is left."""
    with pytest.raises(OSError, match="no space left"):
        evidently_adapter.page(
            make_window(), make_window(), WATCHED, TOLERANCE, tmp_path / "page.html"
        )
    assert [] == list(tmp_path.iterdir())


def test_a_page_that_evidently_cannot_draw_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any failure inside evidently becomes one error of ours, its cause kept."""
    cause = KeyError("inside")

    def fail(*_: object) -> None:
        raise cause

    monkeypatch.setattr(evidently_adapter, "_drawings", fail)
    with pytest.raises(evidently_adapter.PageFailed, match="no decision rests on it") as caught:
        evidently_adapter.page(
            make_window(), make_window(), WATCHED, TOLERANCE, tmp_path / "page.html"
        )
    assert caught.value.__cause__ is cause


PROBE = """
import json, os, socket, sys
def refuse(*_): raise AssertionError("a connection was tried")
socket.socket.connect = socket.getaddrinfo = refuse
from observability.drift import evidently_adapter
early = sorted({"evidently", "pandas", "scipy"} & set(sys.modules))
from pathlib import Path
from tests.observability.drift.test_evidently_adapter import WATCHED, TOLERANCE
from tests.observability.makers import make_window
frames = make_window(), make_window(shift=1.0, seed=1)
drawn = evidently_adapter.page(*frames, WATCHED, TOLERANCE, Path(sys.argv[1]))
scores = [column.score for column in evidently_adapter.measure(*frames, WATCHED, TOLERANCE).columns]
print(json.dumps([early, drawn, os.environ["DO_NOT_TRACK"], scores]))
"""


def test_a_fresh_process_imports_late_tells_nobody_and_scores_the_same(tmp_path: Path) -> None:
    """No slow library at import, no connection, no warning, and scores equal to the last digit."""
    environment = {key: value for key, value in os.environ.items() if key != "DO_NOT_TRACK"}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, str(tmp_path / "page.html")],
        env=environment | {"PYTHONHASHSEED": "12345"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert 0 == finished.returncode, finished.stderr
    reading = evidently_adapter.measure(
        make_window(), make_window(shift=1.0, seed=1), WATCHED, TOLERANCE
    )
    expected = [[], True, "1", [column.score for column in reading.columns]]
    assert expected == json.loads(finished.stdout)
