"""What libraries warn of during a run: one sentence for each model, and never a raw line."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from flows.cli import run_summary
from flows.loop import local_loop
from tests.flows.makers import ask, make_pipeline
from tests.flows.plain_loop import without_prefect

OWN = """
import warnings
from river import dummy
from sklearn.linear_model import LogisticRegression

class Loud(LogisticRegression):
    def fit(self, X, y):
        warnings.warn("the classes are few")
        warnings.warn("the rows are few")
        return super().fit(X, y)

    def predict_proba(self, X):
        for _ in range(3):
            warnings.warn("the rows are odd")
        return super().predict_proba(X)

class LoudOnline(dummy.NoChangeClassifier):
    def learn_one(self, x, y):
        warnings.warn("a record came")
        super().learn_one(x, y)
"""


def test_each_model_is_told_of_once_with_its_recipe_and_the_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of a user's own models, too: counted, and the first of them is told."""
    (tmp_path / "own_loud.py").write_text(OWN)
    path = make_pipeline(
        tmp_path,
        600,
        batch={"recipe": "own_loud:Loud"},
        online={"members": ["own_loud:LoudOnline"]},
        worth={"decide": "person"},
    )
    with without_prefect(), warnings.catch_warnings():
        warnings.simplefilter("default")
        told = local_loop.run_loop.fn(path, tmp_path / "home")
        run_summary.render(told, "pipeline.toml")
    printed = capsys.readouterr()
    shown = printed.out + printed.err
    rows = ask(
        tmp_path / "home",
        "SELECT because, CAST(facts->>'warnings' AS INT) AS count, facts->>'recipe' AS recipe "
        "FROM decisions WHERE question = 'warnings' ORDER BY position",
    )
    said = {row["because"].partition(" warned ")[0]: row for row in rows}
    assert len(said) == len(rows)
    (fit,) = (row for who, row in said.items() if who.startswith("the fit at position"))
    assert "own_loud:Loud" == fit["recipe"]
    assert "first: UserWarning: the classes are few" in fit["because"]
    # Twice in each of the two fits, and thrice each time that it answered: for the choice of the
    # challenger, for the comparison, and after the refit.
    assert 2 * 2 + 3 * 3 == fit["count"]
    online = said["the online members (own_loud:LoudOnline)"]
    assert "first: UserWarning: a record came" in online["because"]
    (champion,) = (row for who, row in said.items() if who.startswith("the champion"))
    assert 3 == champion["count"]
    assert ".py:" not in shown
    for row in rows:
        assert 1 == shown.count(row["because"])
    assert told["run"]["warnings"] >= sum(row["count"] for row in rows)
    assert f"Libraries warned {told['run']['warnings']:,} times" in shown.replace("\n", " ")
