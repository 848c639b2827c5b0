"""A state, found or begun: what does not fit the file is said before anything happens."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from flows.config import pipeline
from flows.config.pipeline import PipelineFile
from flows.run import bootstrap
from flows.run.progress import Display
from flows.run.session import opened
from flows.run.shutdown import Stop
from models.online import online_model
from models.persistence.checkpoint import CheckpointUnusable
from models.prediction_log import prediction_log
from observability.core.errors import BadConfiguration
from observability.core.paths import Places


def make_file(
    folder: Path, more: str = "", name: str = "small", target: str = "y", batch: int = 1_000
) -> PipelineFile:
    """A pipeline of ten records, with further tables."""
    path = folder / "stream.csv"
    if not path.exists():
        path.write_text("x,y\n" + "".join(f"{index},{index % 2}\n" for index in range(10)))
    file = folder / "small.toml"
    file.write_text(
        f'[pipeline]\nname = "{name}"\ntask = "classification"\n'
        f'[stream]\npath = "stream.csv"\ntarget = "{target}"\n'
        f'batch = {batch}\n[gate]\nsource = "off"\n{more}'
    )
    return pipeline.read(file)


def learn_ten(file: PipelineFile, home: Path) -> None:
    """Learn the stream's ten records."""
    from flows.learning.learn_batch import learn

    with opened(file, home, Stop(), Display("test")) as work:
        work.commit([])
        learn.fn(work)
        work.wait()


def begin(file: PipelineFile, home: Path) -> str:
    """Open a run and name the online models that it would learn with."""
    with opened(file, home, Stop(), Display("test")) as work:
        work.commit([])
        return str([each.model for each in work.state.learner.online.members.values()])


def test_a_model_may_be_corrected_before_anything_was_learned(tmp_path: Path) -> None:
    """A pipeline that was begun with some members and learned nothing takes others."""
    home = tmp_path / "home"
    assert "HoeffdingAdaptiveTree" in begin(make_file(tmp_path), home)
    linear = make_file(tmp_path, '[online]\nmembers = ["linear"]\n')
    begun = begin(linear, home)
    assert "SoftmaxRegression" in begun
    assert "HoeffdingAdaptiveTree" not in begun


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            '[online]\nmembers = ["linear"]\n',
            "online.members was ['linear', 'linear_fast', 'hoeffding_adaptive_tree']",
        ),
        ("[online]\nseed = 3\n", "online.seed was 0 and is 3"),
        (
            "[blend]\nlearning_rates = [0.1]\n",
            "blend.learning_rates was [0.05, 0.02, 0.005] and is [0.1]",
        ),
        ("[drift]\nerror_reference_rows = 500\n", "drift.error_reference_rows was 1000 and is 500"),
    ],
)
def test_knobs_of_what_has_learned_cannot_be_changed_under_it(
    more: str, said: str, tmp_path: Path
) -> None:
    """The message says what it was, what it is, and what to do."""
    home = tmp_path / "home"
    learn_ten(make_file(tmp_path), home)
    with pytest.raises(BadConfiguration) as caught:
        begin(make_file(tmp_path, more), home)
    assert said in str(caught.value)
    assert "another pipeline.name" in str(caught.value)


def test_other_knobs_may_be_changed_at_any_time(tmp_path: Path) -> None:
    """Drift, worth, gate, batch and promotion decide anew at every look."""
    home = tmp_path / "home"
    learn_ten(make_file(tmp_path), home)
    more = (
        "[drift]\nevery = 7\n[worth]\nmin_rows = 9\n[batch]\nseed = 4\n[promotion]\nmin_gain = 1\n"
    )
    assert begin(make_file(tmp_path, more), home)


def test_a_lost_checkpoint_is_said_and_its_log_is_left_alone(tmp_path: Path) -> None:
    """To begin again in silence would remove every prediction that was ever logged."""
    file, home = make_file(tmp_path), tmp_path / "home"
    learn_ten(file, home)
    places = Places(home).pipeline("small")
    places.checkpoint.unlink()
    with pytest.raises(CheckpointUnusable, match="is gone"):
        learn_ten(file, home)
    assert 10 == prediction_log.read(places.predictions, 0, 10).num_rows
    shutil.rmtree(places.root)
    learn_ten(file, home)


def test_another_task_needs_another_name(tmp_path: Path) -> None:
    """What learned classes cannot go on with values."""
    home = tmp_path / "home"
    file = make_file(tmp_path)
    learn_ten(file, home)
    file.path.write_text(file.path.read_text().replace("classification", "regression"))
    with pytest.raises(BadConfiguration, match=r"pipeline\.task"):
        begin(pipeline.read(file.path), home)


def test_a_column_named_like_the_answers_is_refused_at_once(tmp_path: Path) -> None:
    """The first retrain would stumble over it, hours later."""
    (tmp_path / "stream.csv").write_text("prediction,y\n1,0\n2,1\n")
    with pytest.raises(BadConfiguration, match="rename that column"):
        begin(make_file(tmp_path), tmp_path / "home")


def test_a_batch_recipe_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    """A mistake in [batch] does not wait for the first retrain."""
    with pytest.raises(BadConfiguration, match=r"batch\.recipe"):
        begin(make_file(tmp_path, '[batch]\nrecipe = "magic"\n'), tmp_path / "home")


@pytest.mark.parametrize("lost", ["stream", "target"])
def test_a_stream_that_is_not_there_is_said_before_prefect_starts(
    lost: str, tmp_path: Path
) -> None:
    """Looking ahead names the file and the key."""
    file = make_file(tmp_path, target="z" if lost == "target" else "y")
    if lost == "stream":
        (tmp_path / "stream.csv").unlink()
    with pytest.raises(BadConfiguration, match="path" if lost == "stream" else "target"):
        bootstrap.validate_stream(file, Places(tmp_path / "home").pipeline("small"))


def test_a_member_that_answers_nan_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would never recover; history says so, the others carry on, and all that is served is
    finite.
    """
    from flows.learning.learn_batch import learn
    from models.prediction_log import prediction_log
    from observability.history.store import History

    class Nan:
        def predict_proba_one(self, record: object) -> dict[int, float]:
            return {0: float("nan"), 1: 0.5}

        def learn_one(self, record: object, label: object) -> None:
            pass

    file, home = make_file(tmp_path, batch=10), tmp_path / "home"
    with opened(file, home, Stop(), Display("test")) as work:
        work.commit([])
        members = work.state.learner.online.members
        kept, patience = members["linear"], work.state.learner.divergences["linear_fast"].patience
        members["linear_fast"] = online_model.OnlineMember(Nan(), "classification")
        learn.fn(work)
        work.wait()
        assert kept is members["linear"]
        assert "SoftmaxRegression" in str(members["linear_fast"].model)
        assert 2 * patience == work.state.learner.divergences["linear_fast"].patience
        log = prediction_log.read(work.run.places.predictions, 0, 10)
    told = [dict(each) for each in log["members"].to_pylist()]
    assert [None] * 10 == [each["linear_fast"] for each in told]
    assert None not in [each["linear"] for each in told[1:]]
    assert log["served"].null_count == log["online"].null_count == 1
    (row,) = (
        History(home).ask("SELECT because FROM decisions WHERE question = 'revive'").to_pylist()
    )
    assert "linear_fast gave 10 answers that are not finite" in row["because"]


class Liar:
    """A model that is sure of what is wrong."""

    def predict_proba_one(self, record: dict[str, float]) -> dict[int, float]:
        return {int(1 - record["x"] % 2): 1.0}

    def learn_one(self, record: object, label: object) -> None:
        pass


def test_a_member_that_diverged_is_reset_once_and_told(tmp_path: Path) -> None:
    """It was sure of what was wrong for 500 records; history names it, and its patience doubles."""
    from flows.learning.learn_batch import learn
    from observability.history.store import History

    # Coins that nobody can foretell, but x gives them away to whoever looks at it as the liar does.
    coins = [random.Random(index).randrange(2) for index in range(1_200)]
    (tmp_path / "stream.csv").write_text(
        "x,y\n" + "".join(f"{2 * index + coin},{coin}\n" for index, coin in enumerate(coins))
    )
    file, home = make_file(tmp_path, batch=400), tmp_path / "home"
    with opened(file, home, Stop(), Display("test")) as work:
        work.commit([])
        learner = work.state.learner
        learner.online.members["linear_fast"] = online_model.OnlineMember(Liar(), "classification")
        while work.state.position < 1_200:
            learn.fn(work)
        work.wait()
        assert "SoftmaxRegression" in str(learner.online.members["linear_fast"].model)
        assert 1_000 == learner.divergences["linear_fast"].patience
        assert 0 == learner.divergences["linear"].in_a_row
    (row,) = (
        History(home).ask("SELECT because FROM decisions WHERE question = 'revive'").to_pylist()
    )
    assert "the online member linear_fast lost more than 3 times as much" in row["because"]
