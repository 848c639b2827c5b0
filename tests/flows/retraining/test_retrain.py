"""Retraining with models of other people: a fit that brings nothing ends no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.learning import drift_check, learn_batch
from flows.loop import local_loop
from flows.retraining import retrain
from observability.history.store import History
from tests.flows.makers import make_pipeline

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
