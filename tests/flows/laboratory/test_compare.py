"""All policies side by side: complete, resumable, the same figures from the same pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.cli import lab_picture, lab_report
from flows.laboratory import candidates, compare, crew, members, product_run
from flows.laboratory.records import LabConfig
from tests.flows.makers import make_pipeline

CONFIG = LabConfig(every=200, records_per_s=100.0)


class Killed(BaseException):
    """Stands for a kill between two steps."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose world turns round at half of its stream."""
    return make_pipeline(tmp_path_factory.mktemp("small"), 1_000)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the laboratory of these tests keeps its pieces."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def document(small: Path, home: Path) -> dict[str, Any]:
    """The comparison on that pipeline, computed once."""
    (found,) = crew.done(compare.works(home, [small], CONFIG), jobs=1)
    return found


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows by policy."""
    return {row["policy"]: row for row in document["policies"]}


def test_every_policy_is_there(document: dict[str, Any]) -> None:
    """Simulated ones, the product's, single members, the blend alone, and hindsight."""
    policies = [row["policy"] for row in document["policies"]]
    assert [
        *("never", "every 1,000", "every 2,000", "every 5,000", "amount", "drift", "worth"),
        *(f"{name} alone" for name in ("linear", "linear_fast", "hoeffding_adaptive_tree")),
        *("baseline alone", "batch alone", "no batch", "optimum"),
    ] == policies
    assert json.loads(json.dumps(document)) == document


def test_a_policy_that_never_retrains_pays_for_one_fit_and_a_member_for_none(
    document: dict[str, Any],
) -> None:
    """Fits, their seconds and their joules go together."""
    found = rows(document)
    assert 1 == found["never"]["retrains"]
    for policy in ("linear alone", "baseline alone", "no batch"):
        spent = [found[policy][name] for name in ("retrains", "promotions", "fit_s", "joules")]
        assert [0, 0, 0.0, 0.0] == spent
    for row in document["policies"]:
        assert row["joules"] == pytest.approx(15.0 * row["fit_s"])


def test_no_simulated_champion_is_cheaper_than_the_optimum(document: dict[str, Any]) -> None:
    """The optimum of dynamic programming is over the same candidates, ready as late."""
    for policy in ("never", "every 1,000", "amount"):
        assert rows(document)[policy]["champion_regret"] >= -1e-9
        assert rows(document)[policy]["regret"] >= 0.0
    assert 0.0 == rows(document)["optimum"]["regret"]


def test_scores_over_time_are_the_score(document: dict[str, Any]) -> None:
    """The mean of a line of equal parts is the whole."""
    for row in document["policies"]:
        assert row["score"] == pytest.approx(sum(row["over_time"]) / len(row["over_time"]))
        assert row["against_best_member"] == pytest.approx(row["score"] - row["best_member_score"])


def test_a_comparison_that_was_killed_goes_on_and_tells_the_same(
    document: dict[str, Any], small: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the finished pieces alone; nothing of them is computed again."""

    def again(*_: object) -> None:
        raise AssertionError("a finished piece was computed again")

    for path in home.rglob("comparison.json"):
        path.unlink()
    for module, name in ((candidates, "fit"), (members, "learn"), (product_run, "run")):
        monkeypatch.setattr(module, name, again)
    assert [document] == crew.done(compare.works(home, [small], CONFIG), jobs=1)


def test_a_kill_in_the_middle_loses_one_piece_at_most(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is used, and what a killed run of the product has left is cleared away."""
    tried: list[int] = []
    fit = candidates.fit

    def dies(read: Any, position: int) -> Any:
        tried.append(position)
        if len(tried) == 3:
            raise Killed
        return fit(read, position)

    monkeypatch.setattr(candidates, "fit", dies)
    works = compare.works(tmp_path, [small], CONFIG)
    with pytest.raises(Killed):
        crew.done(works, jobs=1)
    assert 2 == len(list(tmp_path.rglob("candidate-*.npz")))
    (found,) = crew.done(works, jobs=1)
    assert sorted(set(tried)) == [200, 400, 600, 800]
    assert 5 == len(tried)
    assert 14 == len(found["policies"])
    assert [] == list(tmp_path.rglob("*.scratch"))


def test_a_damaged_piece_is_made_again(small: Path, home: Path, document: dict[str, Any]) -> None:
    """Half a file is no piece."""
    (path,) = home.rglob("candidate-000000400.npz")
    path.write_bytes(path.read_bytes()[:100])
    for each in home.rglob("comparison.json"):
        each.write_text("{")
    (found,) = crew.done(compare.works(home, [small], CONFIG), jobs=1)
    assert [row["policy"] for row in found["policies"]] == list(rows(document))


def test_other_conditions_meet_no_old_figures(small: Path, tmp_path: Path) -> None:
    """The pieces of other knobs are removed, since nobody reads them again."""
    compare.opened(tmp_path, small, CONFIG)
    (before,) = (tmp_path / "pieces").glob("*/*")
    compare.opened(tmp_path, small, CONFIG.model_copy(update={"wait_s": 1.0}))
    (after,) = (tmp_path / "pieces").glob("*/*")
    assert before != after


def shown(document: dict[str, Any]) -> dict[str, Any]:
    """The document of the command."""
    streams = [{"kind": "abrupt", "about": "a & b", "drifts": [], **document}]
    streams[0]["drifts"] = [{"position": 500, "width": 0}, {"position": 700, "width": 50}]
    return {
        "conditions": CONFIG.model_dump(),
        "streams": streams,
        "summary": compare.summary([document]),
    }


def test_the_page_has_every_policy_and_says_what_is_estimated(document: dict[str, Any]) -> None:
    """A figure without its meaning would be believed for another one."""
    page = lab_report.compared_markdown(shown(document))
    for row in document["policies"]:
        assert f"| {row['policy']} | {row['score']:.4f} |" in page
    assert "estimated: 15 W" in page
    assert "It changes at 500, 700 to 750." in page


def test_the_picture_is_an_svg_with_a_line_a_policy(document: dict[str, Any]) -> None:
    """Of the policies that are drawn, and of where the stream changes."""
    picture = lab_picture.over_time(shown(document)["streams"])
    assert len(lab_picture.COLOURS) - ("every 1,000" not in rows(document)) == picture.count(
        "<polyline"
    )
    assert 2 == picture.count("stroke-dasharray")
    assert picture.startswith("<svg ")
    assert "nan" not in picture


@pytest.mark.parametrize(
    ("task", "own", "fixed", "expected"),
    [
        ("classification", (0.9, 2.0), (0.8979, 4.0), None),
        ("classification", (0.9, 2.0), (0.8981, 4.0), 0.5),
        ("regression", (10.0, 2.0), (10.09, 4.0), 0.5),
        ("regression", (10.0, 2.0), (10.2, 4.0), None),
        ("regression", (10.0, 6.0), (9.0, 4.0), -0.5),
    ],
)
def test_the_best_schedule_is_one_of_equal_score(
    task: str, own: tuple[float, float], fixed: tuple[float, float], expected: float | None
) -> None:
    """Within 0.2 points, or 1 % of an error; without one nothing is said to be saved."""
    found = [
        {"policy": policy, "score": score, "fit_s": fit_s, "best_member": "x", "regret": 0.0}
        for policy, (score, fit_s) in (("worth", own), ("every 1,000", fixed))
    ]
    for row in found:
        row["against_best_member"] = 0.0
    larger = task == "classification"
    document = {"stream": "s", "task": task, "larger_is_better": larger, "policies": found}
    (told,) = compare.summary([document])
    assert expected == (None if told["saved"] is None else pytest.approx(told["saved"]))
