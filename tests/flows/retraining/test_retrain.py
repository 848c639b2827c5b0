"""Retraining with models of other people: a fit that brings nothing ends no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.learning import drift_check, learn_batch
from flows.loop import local_loop
from flows.retraining import retrain
from models.persistence.signing import SigningKey
from models.registry.registry import Registry
from observability.core.paths import Places
from observability.history.store import History
from tests.flows.makers import NAME, ask, make_pipeline
from tests.flows.nursery import Nursery

MODEL = """
from sklearn.dummy import DummyClassifier

class Unloadable:
    def __reduce__(self):
        return int, ("no number",)

class Kept(DummyClassifier):
    def fit(self, X, y):
        self.kept_ = {kept}
        return super().fit(X, y)
"""


@pytest.mark.parametrize(
    ("kept", "reason"),
    [("lambda: 1", "cannot be saved"), ("Unloadable()", "do not load"), ("exit(0)", "SystemExit")],
)
def test_a_batch_model_that_cannot_be_kept_is_refused_and_the_run_goes_on(
    kept: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every further run would end at this very place, and nothing would be learned."""
    for room, name in ((learn_batch, "learn"), (drift_check, "check"), (retrain, "retrain")):
        monkeypatch.setattr(room, name, getattr(room, name).fn)
    # Python keeps modules by their name.
    module = f"own_kept_{len(kept)}"
    (tmp_path / f"{module}.py").write_text(MODEL.format(kept=kept))
    path = make_pipeline(tmp_path, 600, batch={"recipe": f"{module}:Kept"})
    told = local_loop.run_loop.fn(path, tmp_path / "home")
    assert (600, 0, None) == (told["learned"], told["promotions"], told["champion"])
    refused = History(tmp_path / "home").ask(
        "SELECT because FROM decisions WHERE question = 'retrain' AND NOT yes"
    )
    assert refused.num_rows > 0
    assert all(reason in because for because in refused["because"].to_pylist())


def test_a_champion_knows_all_rows_and_the_next_one_is_judged_on_none_of_them(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Manifests say which recipes competed, what was trained on, and that scores are of before."""
    path = make_pipeline(tmp_path, batch={"recipe": None, "recipes": ["linear", "sgd"]})
    done = nursery.loop(path, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    home = Places(tmp_path / "home")
    made = Registry(home.pipeline(NAME), SigningKey.open(home.key)).ls()
    promoted = ask(tmp_path / "home", "SELECT version FROM models WHERE state = 'promoted'")
    names = {each["version"] for each in promoted}
    assert len(names) > 1
    trained_to = 0
    for manifest in made:
        assert manifest.holdout_from >= trained_to
        (chosen,) = [each for each in manifest.candidates if each.chosen]
        assert {"linear", "sgd"} == {each.recipe for each in manifest.candidates}
        assert (manifest.recipe, manifest.train_from) == (chosen.recipe, chosen.train_from)
        assert chosen.loss == manifest.scores["holdout:challenger"]["brier"]
        assert (manifest.version in names) == manifest.refitted
        if manifest.refitted:
            trained_to = manifest.train_to
            assert manifest.holdout_to == trained_to
            assert manifest.rows > chosen.rows
        else:
            assert manifest.holdout_from == manifest.train_to
            assert manifest.rows == chosen.rows


def test_a_champion_that_knows_nearly_all_rows_cannot_be_judged_yet(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Half of the rows since then must be enough for a comparison; the reason counts the rest."""
    path = make_pipeline(
        tmp_path,
        worth={"cooldown_records": 0, "min_new_rows": 0, "max_age_records": 1},
        promotion={"min_holdout_rows": 101},
        drift={"every": 100},
        batch={"holdout": 0.6},
    )
    done = nursery.loop(path, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    told = ask(
        tmp_path / "home", "SELECT because FROM decisions WHERE question = 'retrain' AND NOT yes"
    )
    assert any("wait for" in each["because"] for each in told)
