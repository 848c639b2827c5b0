"""A challenge that was given back goes on where it was; what is kept of it is ours, or not used."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from models.batch import evaluation
from models.batch.batch_model import BatchCannotLearn, BatchModel
from models.batch.challenger import UnfinishedChallenge
from models.batch.evaluation import Challenge
from models.batch.fit_guard import FitCheckpoint, Guard, Preempted
from models.batch.recipe_config import BatchRecipe
from models.persistence import serialization
from models.persistence.signing import SigningKey
from models.registry import partial_fits
from models.registry.partial_fits import FitIdentity
from observability.core import failpoints
from tests.models.makers import KEY, make_places, make_schema, make_window

SEAL = SigningKey(KEY)
FOREST = BatchRecipe(recipe="random_forest", params={"n_estimators": 4}, min_rows=50)
SEVERAL = BatchRecipe(
    recipes=("linear", "sgd", "random_forest"), params={"n_estimators": 3}, min_rows=50
)
OWN = """
class Failing:
    def fit(self, matrix, targets):
        raise RuntimeError("out of order")
    def predict(self, matrix):
        return matrix[:, 0] > 0
class Epochs:
    rounds_of_partial_fit = 4
    def partial_fit(self, matrix, targets):
        return self
    def fit(self, matrix, targets):
        return self
    def predict(self, matrix):
        return matrix[:, 0] > 0
"""


class Watcher:
    """A guard that counts its questions, and gives back at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.asked: list[float] = []
        self._at = at

    def __call__(self, done: float, /) -> None:
        self.asked.append(done)
        if len(self.asked) == self._at:
            raise Preempted("too warm")


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    """No fault point stays armed, and no module of a test's own stays loaded."""
    yield
    failpoints.disarm()
    sys.modules.pop("own_partials", None)


def fight(recipe: BatchRecipe = FOREST, seed: int = 0, **given: Any) -> Challenge:
    """A challenge on a window of 300 rows."""
    frame, labels = make_window(300, seed=seed)
    knobs: dict[str, Any] = {"clock": lambda: 0.0, "schema": make_schema()} | given
    return evaluation.evaluate(frame, labels, recipe=recipe, **knobs)


def given_back(at: int, **given: Any) -> UnfinishedChallenge | None:
    """What is kept of a challenge that was given back at its `at`-th question."""
    with pytest.raises(Preempted) as stopped:
        fight(guard=Watcher(at), **given)
    partial = stopped.value.partial
    assert partial is None or isinstance(partial, UnfinishedChallenge)
    return partial


def make_partial(at: int = 6, **given: Any) -> UnfinishedChallenge:
    """A challenge amid its first fit."""
    partial = given_back(at, **given)
    assert partial is not None
    return partial


def make_work(**changes: Any) -> FitIdentity:
    """The work of `evaluate`."""
    given: dict[str, Any] = {
        "pipeline": "elec2",
        "position": 300,
        "recipe": FOREST,
        "record_schema": make_schema(),
    }
    return FitIdentity(**given | changes)


def outcome(challenge: Challenge) -> tuple[object, ...]:
    """All that a challenge is believed on."""
    answered = challenge.model.predict(make_window(80, seed=5)[0])
    assert answered.probabilities is not None
    told = (challenge.scores, challenge.rows, challenge.first_row, challenge.holdout_rows)
    return (answered.probabilities.tobytes(), *told, challenge.reference.to_csv())


def put(
    folder: Path, at: int = 6, work: FitIdentity | None = None, seal: SigningKey = SEAL
) -> Path:
    """Keep a partial of `evaluate` under `folder`."""
    path = make_places(folder).fit_checkpoint
    partial_fits.save(path, make_partial(at), work or make_work(), seal)
    return path


def not_used(path: Path, *words: str, work: FitIdentity | None = None) -> None:
    """It is not used, and why says `words`."""
    found = partial_fits.find(path, work or make_work(), SEAL)
    assert found.partial is None
    assert all(word in found.because for word in (str(path), "begins anew", *words)), found.because


@pytest.mark.parametrize(
    ("recipe", "promoted"),
    [
        (FOREST, None),
        (FOREST, False),
        (FOREST, True),
        (FOREST.model_copy(update={"recent_share": 1.0}), None),
        (BatchRecipe(params={"max_iter": 3}, min_rows=50), None),
        (BatchRecipe(recipe="linear", params={"max_iter": 3}, min_rows=50), True),
        (BatchRecipe(recipe="sgd", min_rows=50), None),
        (SEVERAL, True),
    ],
)
def test_a_watched_challenge_has_the_same_outcome(
    recipe: BatchRecipe, promoted: bool | None
) -> None:
    """Undisturbed, or given back at any question and gone on: model, rows and scores are equal."""
    watcher, promotes = Watcher(), None if promoted is None else lambda _: promoted
    knobs: dict[str, Any] = {"recipe": recipe, "promotes": promotes}
    expected = outcome(fight(**knobs))
    assert expected == outcome(fight(**knobs, guard=watcher))
    assert 0.0 == watcher.asked[0]
    assert 1.0 == pytest.approx(watcher.asked[-1]) or watcher.asked[-1] < 1.0
    assert sorted(watcher.asked) == watcher.asked
    for at in range(1, len(watcher.asked) + 1):
        partial = serialization.loads(serialization.dumps(given_back(at, **knobs)))
        assert partial is None or isinstance(partial, UnfinishedChallenge)
        # Of the first fit its rounds alone can be kept; later a whole model at least.
        assert partial is not None or watcher.asked[at - 1] < 0.58
        assert partial is None or at > 1
        assert expected == outcome(fight(**knobs, guard=Watcher(), partial=partial))
    assert expected == outcome(fight(**knobs, partial=partial))


def test_a_challenge_with_a_refit_ends_at_the_whole_of_its_work() -> None:
    """All windows are tried here, and the refit is the last part."""
    watcher = Watcher()
    once = FOREST.model_copy(update={"recent_share": 1.0})
    found = fight(once, guard=watcher, promotes=lambda _: True)
    assert (300, 540) == (found.rows, found.fitted_rows)
    assert 1.0 == pytest.approx(watcher.asked[-1])


def test_a_candidate_that_failed_before_the_preemption_is_not_fitted_again(tmp_path: Path) -> None:
    """Its failure is kept beside the models, so that the others go on from their numbers."""
    (tmp_path / "own_partials.py").write_text(OWN)
    recipe = BatchRecipe(recipes=("own_partials:Failing", "random_forest"), min_rows=50)
    knobs: dict[str, Any] = {"recipe": recipe, "beside": tmp_path}
    expected = fight(**knobs)
    assert "" == expected.trials[1].failure
    assert "RuntimeError: out of order" in expected.trials[0].failure
    kept = serialization.loads(serialization.dumps(given_back(4, **knobs)))
    assert isinstance(kept, UnfinishedChallenge)
    assert isinstance(kept.models[0], BatchCannotLearn)
    watcher = Watcher()
    assert outcome(expected) == outcome(fight(**knobs, guard=watcher, partial=kept))
    assert kept.done == watcher.asked[0]


def test_what_is_fitted_is_not_fitted_again() -> None:
    """Amid the second fit the first is whole, and the second goes on where it was."""
    asked = Watcher()
    fight(guard=asked)
    amid = len(asked.asked) - 2
    kept = make_partial(amid)
    assert [BatchModel] == [type(each) for each in kept.models]
    assert isinstance(kept.part, FitCheckpoint)
    assert asked.asked[amid - 1] == kept.done
    rest = Watcher()
    fight(guard=rest, partial=kept)
    assert asked.asked[amid - 1 :] == rest.asked


def test_given_back_between_the_two_fits_the_first_is_kept() -> None:
    """Before the second one's first round there is nothing of it, and the first is whole."""
    asked = Watcher()
    fight(guard=asked)
    between = next(n for n in range(1, 20) if asked.asked[n - 1] == asked.asked[n])
    ended, begun = make_partial(between), make_partial(between + 1)
    assert ((), True) == (ended.models, isinstance(ended.part, FitCheckpoint))
    assert (1, None) == (len(begun.models), begun.part)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"recipe": FOREST.model_copy(update={"seed": 5})},
        {"recipe": FOREST.model_copy(update={"window": 250})},
    ],
)
def test_what_is_kept_of_other_rows_or_knobs_is_not_used(other: dict[str, Any]) -> None:
    """The challenge begins anew, and ends as if nothing had been kept."""
    watcher = Watcher()
    found = fight(guard=watcher, partial=make_partial(), **other)
    assert outcome(fight(**other)) == outcome(found)
    assert 0.0 == watcher.asked[0]


def test_pauses_are_not_counted_as_work() -> None:
    """A fit's seconds are those of the fit, over all attempts."""
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    def waits(watcher: Watcher) -> Guard:
        def guard(done: float, /) -> None:
            nonlocal now_s
            now_s += 1000.0
            watcher(done)

        return guard

    whole = fight(guard=waits(Watcher()), clock=clock).fit_s
    assert 10 < whole < 100
    with pytest.raises(Preempted) as stopped:
        fight(guard=waits(Watcher(6)), clock=clock)
    kept = stopped.value.partial
    assert isinstance(kept, UnfinishedChallenge)
    rest = fight(guard=waits(Watcher()), clock=clock, partial=kept).fit_s
    assert 0 < kept.fit_s < rest < 100


def test_a_challenge_tells_how_it_was_watched() -> None:
    """For the history: the way and its reason, or that there was no guard."""
    assert "no guard" == fight().guarded
    assert fight(guard=Watcher()).guarded.startswith("rounds by warm_start: asked between rounds")
    sgd = BatchRecipe(recipe="sgd", min_rows=50)
    assert fight(sgd, guard=Watcher()).guarded.startswith("unguarded: SGDClassifier: ")


def test_what_is_kept_is_found_and_gone_on_from(tmp_path: Path) -> None:
    """Once through the disk, and the outcome is that of an undisturbed challenge."""
    path = put(tmp_path)
    found = partial_fits.find(path, make_work(), SEAL)
    assert found.partial is not None
    assert found.because.startswith("resumes at ")
    assert outcome(fight()) == outcome(fight(partial=found.partial))


def test_putting_again_replaces_and_dropping_forgets(tmp_path: Path) -> None:
    """There is one partial, or none; to drop none is no error."""
    put(tmp_path, 4)
    path = put(tmp_path, 7)
    assert [path] == list(path.parent.iterdir())
    found = partial_fits.find(path, make_work(), SEAL)
    assert make_partial(7).done == (found.partial.done if found.partial else None)
    for _ in range(2):
        partial_fits.drop(path)
    nothing = partial_fits.find(path, make_work(), SEAL)
    assert (None, "there is none") == (nothing.partial, nothing.because)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"pipeline": "taxi"}, "pipeline"),
        ({"position": 301}, "position"),
        ({"recipe": FOREST.model_copy(update={"seed": 1})}, "recipe"),
        ({"recipe": FOREST.model_copy(update={"params": {"n_estimators": 5}})}, "recipe"),
        ({"record_schema": make_schema(target="label")}, "record_schema"),
    ],
)
def test_a_partial_of_other_work_is_not_used(
    tmp_path: Path, other: dict[str, Any], named: str
) -> None:
    """What is asked for is what it must be of, and the reason names the difference."""
    not_used(put(tmp_path), "of other work", named, work=make_work(**other))


def test_a_partial_of_other_libraries_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-fitted, it holds what no release promises to keep: every version must be the same."""
    path, version = put(tmp_path), metadata.version
    monkeypatch.setattr(
        metadata,
        "version",
        lambda name: "1.9.2" if name == "scikit-learn" else version(name),
    )
    not_used(path, "other versions", "scikit-learn")


class Bomb:
    """What an attacker would put into a pickle: loading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_another_key_signed_is_never_unpickled(tmp_path: Path) -> None:
    """Neither is a body that was put under a signature of ours."""
    path, mark = put(tmp_path, seal=SigningKey(KEY[::-1])), tmp_path / "ran"
    not_used(path, "not what this home signed")
    line = put(tmp_path).read_bytes().partition(b"\n")[0]
    path.write_bytes(line + b"\n" + serialization.dumps(Bomb(mark)))
    not_used(path, "not what this home signed")
    assert not mark.exists()
    serialization.loads(path.read_bytes().partition(b"\n")[2])
    assert mark.exists()


def test_no_changed_byte_is_believed(tmp_path: Path) -> None:
    """At any place of the first line and at many of the rest: it is not used, nothing fails."""
    path = put(tmp_path)
    sound = path.read_bytes()
    head = sound.index(b"\n") + 1
    for place in [*range(head), *range(head, len(sound), max(1, len(sound) // 50))]:
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        not_used(path)
    for kept in (0, 1, head - 1, head, len(sound) - 1):
        path.write_bytes(sound[:kept])
        not_used(path)


@pytest.mark.parametrize(
    "content", [b"null\n", b"[]\n", b'"x"\n', b'{"signature": 5}\n', b"{}\n", b"[" * 100_000]
)
def test_whatever_lies_there_fails_nothing(tmp_path: Path, content: bytes) -> None:
    """Any JSON is read, and not used."""
    path = put(tmp_path)
    path.write_bytes(content)
    not_used(path, "damaged")


def test_what_cannot_be_read_fails_nothing(tmp_path: Path) -> None:
    """A folder in its place stands for a disk that refuses."""
    path = make_places(tmp_path).fit_checkpoint
    path.mkdir(parents=True)
    not_used(path, "cannot be read")


def test_a_signed_file_of_another_kind_is_not_used(tmp_path: Path) -> None:
    """Of another format, or with something else in it, though this home signed it."""
    path = put(tmp_path)
    head, _, body = path.read_bytes().partition(b"\n")
    for changes, content, word in (
        ({"format": "fit checkpoint 9"}, body, "format"),
        ({"work": "all of it"}, body, "of other work"),
        ({}, serialization.dumps({"position": 300}), "holds a dict"),
        ({}, b"no pickle", "do not load"),
    ):
        told = {**json.loads(head), **changes}
        del told["signature"]
        path.write_bytes(SEAL.pack(told.pop("format"), told, content))
        not_used(path, word)


def test_a_model_of_ones_own_is_found_beside_the_file(tmp_path: Path) -> None:
    """Its module is loaded before its pickle; where it is gone, the fit begins anew."""
    (tmp_path / "own_partials.py").write_text(OWN)
    recipe = BatchRecipe(recipe="own_partials:Epochs", min_rows=50)
    path, work = make_places(tmp_path).fit_checkpoint, make_work(recipe=recipe)
    partial_fits.save(path, make_partial(recipe=recipe, beside=tmp_path), work, SEAL)
    del sys.modules["own_partials"]
    assert partial_fits.find(path, work, SEAL, tmp_path).partial is not None
    del sys.modules["own_partials"]
    not_used(path, "own_partials", work=work)


def test_a_full_disk_leaves_what_was_kept(tmp_path: Path) -> None:
    """The disk's refusal is told, and the partial before is whole."""
    path = put(tmp_path, 4)
    failpoints.arm("atomic_file.before_rename", "raise")
    with pytest.raises(OSError, match="no space left"):
        put(tmp_path, 7)
    found = partial_fits.find(path, make_work(), SEAL)
    assert make_partial(4).done == (found.partial.done if found.partial else None)
