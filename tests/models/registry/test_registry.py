"""The store keeps models whole, refuses what is not ours, and flips its pointer last and once."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.batch import batch_model
from models.batch.batch_model import BatchModel
from models.batch.recipe_config import BatchRecipe
from models.core.record_schema import LabelKind, Task
from models.persistence import serialization
from models.persistence.signing import OtherFormat, SignatureMismatch, SigningKey
from models.registry import registry
from models.registry.registry import (
    NoEarlierChampion,
    NoSuchModel,
    NotAVersion,
    OtherLibraries,
    Registry,
    RegistryBusy,
    RegistryUnusable,
)
from observability.core import atomic_file, failpoints, file_lock
from observability.core.errors import TryAgainLater
from tests import ROOT
from tests.models.makers import (
    KEY,
    NOW,
    make_dummy,
    make_places,
    make_reference,
    make_schema,
    make_store,
    make_window,
    put,
)


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    """No fault point stays armed after a test."""
    yield
    failpoints.disarm()


def make_filled(folder: Path, *versions: str) -> Registry:
    """A store with these versions, a minute apart, none of them crowned."""
    kept = make_store(folder)
    for minute, version in enumerate(versions):
        put(kept, version, created_at=NOW + timedelta(minutes=minute))
    return kept


def file_of(folder: Path, name: str) -> Path:
    """A file of the store under `folder`."""
    return make_places(folder).models / name


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    """Real files, a real estimator, the same answers."""
    frame, labels = make_window(200)
    model = batch_model.fit(frame, labels, BatchRecipe(recipe="linear"), make_schema())
    put(make_store(tmp_path), "v1", model=model)
    again = make_store(tmp_path).load("v1")
    assert model.predict(frame).values == again.predict(frame).values


@pytest.mark.parametrize("kind", ["str", "int", "float"])
def test_a_reference_comes_back_as_it_was(tmp_path: Path, kind: LabelKind) -> None:
    """Missing cells, whole numbers beside missing ones and text keep their types."""
    task: Task = "regression" if kind == "float" else "classification"
    kept, reference = make_store(tmp_path), make_reference(kind)
    reference.loc[0, ["colour", "weight"]] = None
    put(kept, reference=reference, record_schema=make_schema(task, kind))
    pd.testing.assert_frame_equal(reference, kept.reference(kept.manifest("v1")))
    last = kept.reference(kept.manifest("v1"))["prediction"].tolist()[2]
    assert {"str": str, "int": int, "float": float}[kind] is type(last)


def test_whole_numbers_beyond_a_floats_reach_stay_exact(tmp_path: Path) -> None:
    """A class may be a large id."""
    large = 2**62 + 1
    reference = make_reference("int")
    reference["class"] = pd.Series([large] * 3, dtype=object)
    reference["prediction"] = pd.Series([None, None, large], dtype=object)
    kept = make_store(tmp_path)
    put(kept, reference=reference, record_schema=make_schema(label_kind="int"))
    assert [None, None, large] == kept.reference(kept.manifest("v1"))["prediction"].tolist()


def test_a_manifest_says_all_that_was_given(tmp_path: Path) -> None:
    """What put answered is what is read; hashes and sizes are those of the files."""
    kept = make_store(tmp_path)
    manifest = put(kept)
    assert manifest == kept.manifest("v1")
    model = file_of(tmp_path, "v1.model").read_bytes()
    reference = file_of(tmp_path, "v1.reference.parquet").read_bytes()
    assert registry._sha256(model) == manifest.sha256
    assert len(model) == manifest.size_bytes
    assert registry._sha256(reference) == manifest.reference_sha256
    assert len(reference) == manifest.reference_bytes
    assert registry.libraries() == manifest.libraries
    assert {"python", "scikit-learn", "numpy", "thermodrift"} == set(manifest.libraries)
    assert (NOW, make_schema(), ("high", "low")) == (
        manifest.created_at,
        manifest.record_schema,
        manifest.labels,
    )


def test_a_score_that_is_not_finite_is_unknown(tmp_path: Path) -> None:
    """JSON has no NaN, and a manifest makes none up."""
    kept = make_store(tmp_path)
    put(kept, scores={"holdout:champion": {"mae": math.nan, "rmse": math.inf, "r2": 0.5}})
    assert {"mae": None, "rmse": None, "r2": 0.5} == kept.manifest("v1").scores["holdout:champion"]


@pytest.mark.parametrize("labels", [(3, 7), ("3", "7"), ()])
def test_labels_keep_their_kind(tmp_path: Path, labels: tuple[Any, ...]) -> None:
    """The class 3 is not the class '3'."""
    kept = make_store(tmp_path)
    put(kept, labels=labels)
    assert labels == kept.manifest("v1").labels
    assert list(map(type, labels)) == list(map(type, kept.manifest("v1").labels))


def test_versions_are_listed_oldest_first(tmp_path: Path) -> None:
    """The pointer and other files are no versions."""
    kept = make_filled(tmp_path, "v9", "v1", "a")
    kept.promote("v1", "t1")
    assert ["v9", "v1", "a"] == [each.version for each in kept.ls()]
    assert ["a", "v1", "v9"] == kept.versions()


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    """Asking makes no folder and raises nothing."""
    kept = make_store(tmp_path)
    assert ([], [], None) == (kept.ls(), kept.versions(), kept.champion())
    assert not file_of(tmp_path, "").exists()


def test_putting_a_version_again_replaces_it(tmp_path: Path) -> None:
    """A retrain that is replayed after a crash ends as if there had been no crash."""
    kept = make_store(tmp_path)
    put(kept, model=make_dummy("first"), fit_s=1.0)
    manifest = put(kept, model=make_dummy("second"), fit_s=2.0)
    assert manifest == kept.verify("v1")
    assert ("low", "second") == kept.load("v1").labels


ASKING: dict[str, Callable[[Registry, str], object]] = {
    "manifest": Registry.manifest,
    "load": Registry.load,
    "verify": Registry.verify,
    "crown": lambda kept, version: kept.promote(version, "t"),
    "put": put,
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize(
    "version",
    [
        *("", "..", "../elec2/models/v1", "/etc/passwd", "v1.json", "V1", "v_1", "-v", "v" * 64),
        *("champion", "v1\n", "é"),
    ],
)
def test_only_ids_are_taken_never_paths(
    tmp_path: Path, ask: Callable[[Registry, str], object], version: str
) -> None:
    """Whatever could leave the folder, or name the pointer, is refused."""
    with pytest.raises(NotAVersion, match="a model's version is 1 to 63"):
        ask(make_filled(tmp_path, "v1"), version)


@pytest.mark.parametrize("ask", [ASKING[name] for name in list(ASKING)[:-1]])
def test_a_version_that_is_not_there_is_said_so(
    tmp_path: Path, ask: Callable[[Registry, str], object]
) -> None:
    """The message lists those that are."""
    with pytest.raises(NoSuchModel, match="'elec2' has no model 'v3'; stored are: v1, v2"):
        ask(make_filled(tmp_path, "v1", "v2"), "v3")


def test_a_model_of_another_pipeline_is_not_put(tmp_path: Path) -> None:
    """A mistake of the caller must not be signed."""
    with pytest.raises(ValueError, match="of pipeline 'elec2'; came a model of 'other'"):
        put(make_store(tmp_path), pipeline="other")


def test_what_cannot_be_pickled_leaves_nothing(tmp_path: Path) -> None:
    """The error comes before the first file."""
    model = BatchModel("classification", ("a", "b"), None, lambda frame: frame, None)
    with pytest.raises(serialization.CannotPickle):
        put(make_store(tmp_path), model=model)
    assert [] == make_store(tmp_path).versions()


@pytest.mark.parametrize("name", ["v1.model", "v1.reference.parquet", "v1.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    """One bit is enough, in any file; the message says what to do."""
    kept, file = make_filled(tmp_path, "v1"), file_of(tmp_path, name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b""}
    file.write_bytes(damaged[damage])
    with pytest.raises(SignatureMismatch, match=r"restore it from a backup") as caught:
        kept.verify("v1")
    assert str(file) in str(caught.value)
    with pytest.raises(SignatureMismatch):
        kept.promote("v1", "t1")


def test_a_changed_model_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpickling runs code, so every check comes before it."""
    kept = make_filled(tmp_path, "v1")
    monkeypatch.setattr(serialization, "loads", lambda content: pytest.fail("it was unpickled"))
    other = {**registry.libraries(), "numpy": "1.26.0"}
    monkeypatch.setattr(registry, "libraries", lambda: other)
    with pytest.raises(OtherLibraries):
        kept.load("v1")
    file_of(tmp_path, "v1.model").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SignatureMismatch):
        kept.load("v1")


def test_a_manifest_that_was_forged_to_fit_is_refused(tmp_path: Path) -> None:
    """Whoever can write the folder but has no key cannot bring in a model."""
    kept = make_filled(tmp_path, "v1")
    evil = b"cos\nsystem\n(S'true'\ntR."
    file_of(tmp_path, "v1.model").write_bytes(evil)
    file = file_of(tmp_path, "v1.json")
    document = json.loads(file.read_text())
    document["content"] |= {"sha256": registry._sha256(evil), "size_bytes": len(evil)}
    file.write_text(json.dumps(document))
    with pytest.raises(SignatureMismatch):
        kept.load("v1")


def test_the_layout_of_a_manifest_is_not_signed(tmp_path: Path) -> None:
    """A person may have formatted it: what it says is what counts."""
    kept, file = make_filled(tmp_path, "v1"), file_of(tmp_path, "v1.json")
    before = kept.manifest("v1")
    file.write_text(json.dumps(json.loads(file.read_text()), indent=8, sort_keys=True))
    assert before == kept.manifest("v1")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "null",
        '{"content": 1}',
        '{"format": "manifest 2", "content": {}, "signature": "00"}',
        "\ud800",
        "[" * 9999,
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """Any JSON and any bytes end in one error."""
    kept = make_filled(tmp_path, "v1")
    file_of(tmp_path, "v1.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(SignatureMismatch):
        kept.manifest("v1")


def test_a_store_of_an_earlier_version_is_said_so(tmp_path: Path) -> None:
    """Its manifests and its pointer are sound, and of another format."""
    kept = make_filled(tmp_path, "v1")
    for name in ("v1.json", "champion.json"):
        file_of(tmp_path, name).write_text('{"content": {}, "hmac_sha256": "00"}')
    for ask in (lambda: kept.manifest("v1"), kept.champion):
        with pytest.raises(OtherFormat, match=r"an earlier version.*remove the pipeline's folder"):
            ask()


def test_another_homes_model_is_refused(tmp_path: Path) -> None:
    """A key of its own makes a home a home."""
    make_filled(tmp_path, "v1").promote("v1", "t1")
    foreign = make_store(tmp_path, key=bytes(32))
    for ask in (lambda: foreign.manifest("v1"), foreign.champion):
        with pytest.raises(SignatureMismatch, match="not what this home signed"):
            ask()


def test_a_renamed_manifest_is_refused(tmp_path: Path) -> None:
    """Our own signature under another name is not that version."""
    kept = make_filled(tmp_path, "v1", "v2")
    shutil.copy(file_of(tmp_path, "v1.json"), file_of(tmp_path, "v2.json"))
    with pytest.raises(SignatureMismatch, match="is the manifest of 'v1'"):
        kept.manifest("v2")


def test_another_pipelines_files_are_refused(tmp_path: Path) -> None:
    """Signed in the same home, but for another stream."""
    make_filled(tmp_path, "v1").promote("v1", "t1")
    other = make_places(tmp_path, "other")
    shutil.copytree(make_places(tmp_path).models, other.models)
    copied = Registry(other, SigningKey(KEY))
    with pytest.raises(SignatureMismatch, match="of pipeline 'elec2'"):
        copied.manifest("v1")
    with pytest.raises(SignatureMismatch, match="the pointer of pipeline 'elec2'"):
        copied.champion()


def test_a_manifest_is_no_pointer(tmp_path: Path) -> None:
    """A signature is for its kind of document alone."""
    kept = make_filled(tmp_path, "v1")
    shutil.copy(file_of(tmp_path, "v1.json"), file_of(tmp_path, "champion.json"))
    with pytest.raises(SignatureMismatch, match="does not say that it is a champion"):
        kept.champion()


def test_a_signed_document_of_another_release_is_refused(tmp_path: Path) -> None:
    """Keys that this release does not know are not guessed at."""
    kept, file = make_filled(tmp_path, "v1"), file_of(tmp_path, "v1.json")
    content = json.loads(file.read_text())["content"] | {"colour": "red"}
    file.write_bytes(SigningKey(KEY).pack(registry.MANIFEST, {"content": content}))
    with pytest.raises(SignatureMismatch, match="not understood by this thermodrift"):
        kept.manifest("v1")


@pytest.mark.parametrize("name", ["v1.model", "v1.reference.parquet"])
def test_a_file_that_is_gone_is_said_so(tmp_path: Path, name: str) -> None:
    """The message names the file, and the way back."""
    kept = make_filled(tmp_path, "v1")
    file_of(tmp_path, name).unlink()
    with pytest.raises(NoSuchModel, match="is gone, though its manifest is there") as caught:
        kept.verify("v1")
    assert name in str(caught.value)


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    """The disk's reason is kept."""
    kept, file = make_filled(tmp_path, "v1"), file_of(tmp_path, "v1.model")
    file.unlink()
    file.mkdir()
    with pytest.raises(RegistryUnusable, match="cannot be read") as caught:
        kept.load("v1")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("name", "version", "refused"),
    [
        ("scikit-learn", "1.8.9", True),
        ("numpy", "1.26.4", True),
        ("python", "3.10.1", True),
        ("thermodrift", "9.9.9", False),
    ],
)
def test_other_libraries_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, refused: bool
) -> None:
    """The message says which, which are here, and what to do."""
    here = registry.libraries()
    monkeypatch.setattr(registry, "libraries", lambda: here | {name: version})
    kept = make_filled(tmp_path, "v1")
    monkeypatch.setattr(registry, "libraries", lambda: here)
    if refused:
        reason = rf"{name} {version} \(here {here[name]}\).*train the model again"
        for ask in (kept.load, kept.verify):
            with pytest.raises(OtherLibraries, match=reason):
                ask("v1")
    else:
        assert kept.load("v1")


def test_a_patch_release_is_no_other_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles hold within a minor release."""
    here = registry.libraries()
    patched = {name: ".".join([*text.split(".")[:2], "99"]) for name, text in here.items()}
    monkeypatch.setattr(registry, "libraries", lambda: patched)
    kept = make_filled(tmp_path, "v1")
    monkeypatch.setattr(registry, "libraries", lambda: here)
    assert kept.load("v1")


def test_a_pickle_of_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed or not, it must be a batch model."""
    kept = make_filled(tmp_path, "v1")
    monkeypatch.setattr(serialization, "loads", lambda content: {"a": 1})
    with pytest.raises(serialization.CannotLoad, match="holds a dict and not a batch model"):
        kept.load("v1")


def test_a_model_of_ones_own_loads_in_another_process(tmp_path: Path) -> None:
    """The factory's file is found beside the pipeline file before unpickling needs its class."""
    (tmp_path / "own_majority.py").write_text(
        "class Majority:\n"
        "    def fit(self, matrix, targets):\n        return self\n"
        "    def predict(self, matrix):\n        return [1] * len(matrix)\n"
    )
    frame, labels = make_window(200)
    recipe = BatchRecipe(recipe="own_majority:Majority")
    model = batch_model.fit(frame, labels, recipe, make_schema(), tmp_path)
    put(make_store(tmp_path), model=model, recipe=recipe.recipe)
    sys.modules.pop("own_majority")
    loaded = make_store(tmp_path).load("v1", tmp_path / "elec2.toml")
    assert ["low"] * 200 == loaded.predict(frame).values
    sys.modules.pop("own_majority")


def test_the_promotion_moves_and_rolls_back(tmp_path: Path) -> None:
    """Rolling back goes one champion back, in the order in which they were crowned."""
    kept = make_filled(tmp_path, "v1", "v2", "v3")
    for version in ("v1", "v3", "v2"):
        assert kept.promote(version, f"token of {version}")
        assert version == kept.champion()
    assert "v3" == kept.rollback("back once")
    assert "v1" == kept.rollback("back twice")
    assert "v1" == make_store(tmp_path).champion()
    with pytest.raises(NoEarlierChampion, match=r"no champion before 'v1'.*by its id.*v1, v2, v3"):
        kept.rollback("back thrice")
    assert kept.promote("v2", "by hand")
    assert "v1" == kept.rollback("back again")


def test_a_replayed_promotion_does_not_undo_a_rollback(tmp_path: Path) -> None:
    """After a crash the same wish comes again; a person has decided otherwise since."""
    kept = make_filled(tmp_path, "v1", "v2")
    kept.promote("v1", "first")
    kept.promote("v2", "second")
    kept.rollback("by hand")
    assert not kept.promote("v2", "second")
    assert "v1" == kept.champion()


def test_a_promotion_that_was_done_is_known_by_its_token(tmp_path: Path) -> None:
    """Whoever follows a checkpoint knows whether its promotion is still to come."""
    kept = make_filled(tmp_path, "v1")
    assert not kept.has_used("first")
    kept.promote("v1", "first")
    assert (True, False) == (kept.has_used("first"), kept.has_used("second"))


def test_a_replayed_rollback_goes_back_once(tmp_path: Path) -> None:
    """The same token answers the champion that it brought back."""
    kept = make_filled(tmp_path, "v1", "v2", "v3")
    for version in ("v1", "v2", "v3"):
        kept.promote(version, version)
    assert ["v2", "v2"] == [kept.rollback("by hand") for _ in range(2)]


def test_a_champion_that_is_promoted_again_is_not_its_own_predecessor(tmp_path: Path) -> None:
    """Rolling back always changes the champion."""
    kept = make_filled(tmp_path, "v1", "v2")
    for token, version in enumerate(["v1", "v2", "v2"]):
        assert kept.promote(version, str(token))
    assert "v1" == kept.rollback("by hand")


def test_without_a_champion_there_is_nothing_to_roll_back(tmp_path: Path) -> None:
    """The message says so, with an empty store too."""
    with pytest.raises(NoEarlierChampion, match=r"before 'the first'.*none is stored"):
        make_store(tmp_path).rollback("by hand")


def test_a_champion_that_is_damaged_is_not_rolled_back_to(tmp_path: Path) -> None:
    """The pointer stays where it is."""
    kept = make_filled(tmp_path, "v1", "v2")
    kept.promote("v1", "1")
    kept.promote("v2", "2")
    file_of(tmp_path, "v1.model").write_bytes(b"")
    with pytest.raises(SignatureMismatch):
        kept.rollback("by hand")
    assert "v2" == kept.champion()


def test_the_last_hundred_tokens_are_remembered(tmp_path: Path) -> None:
    """The pointer does not grow without bound."""
    kept = make_filled(tmp_path, "v1", "v2")
    for turn in range(registry.REMEMBERED + 1):
        kept.promote(f"v{1 + turn % 2}", f"token {turn}")
    assert not kept.promote("v2", "token 1")
    pointer = kept._pointer()
    assert (100, 100) == (len(pointer.tokens), len(pointer.promoted))
    assert kept.promote("v2", "token 0")


def test_a_held_folder_says_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hands at one crown take turns; who waits too long is told so."""
    kept = make_filled(tmp_path, "v1")
    monkeypatch.setattr(registry, "LOCK_WAIT_S", 0.01)
    with (
        file_lock.held(file_of(tmp_path, ".lock")),
        pytest.raises(RegistryBusy, match="try again later") as caught,
    ):
        kept.promote("v1", "t1")
    assert isinstance(caught.value, TryAgainLater)
    assert kept.champion() is None


@pytest.mark.parametrize(
    "point", ["atomic_file.before_write", "atomic_file.before_rename", "registry.before_promotion"]
)
def test_a_full_disk_promotes_nothing(tmp_path: Path, point: str) -> None:
    """The old champion serves on, and the same wish comes through once there is room."""
    kept = make_filled(tmp_path, "v1", "v2")
    kept.promote("v1", "1")
    failpoints.arm(point, "raise")
    with pytest.raises(RegistryUnusable, match=r"no space left on device.*run it again"):
        kept.promote("v2", "2")
    failpoints.disarm()
    assert "v1" == kept.champion()
    assert kept.promote("v2", "2")


@pytest.mark.parametrize("passing", [1, 2, 3])
def test_a_full_disk_stores_nothing(tmp_path: Path, passing: int) -> None:
    """Whichever file did not fit, there is no version, and a second try finishes it."""
    kept = make_store(tmp_path)
    failpoints.arm("atomic_file.before_rename", "raise", passing)
    with pytest.raises(RegistryUnusable):
        put(kept)
    failpoints.disarm()
    assert [] == kept.versions()
    assert put(kept) == kept.verify("v1")


KILLED = """
import sys
from pathlib import Path
from observability.core import failpoints
from models.batch.batch_model import BatchModel
from tests.models.makers import make_store, put
folder, act, point, after = sys.argv[1:]
kept = make_store(Path(folder))
failpoints.arm(point, "kill", int(after))
if act == "put":
    put(kept, "v2", model=BatchModel("classification", ("low", "second"), None, None, None))
elif act == "crown":
    kept.promote("v2", "second")
else:
    kept.rollback("by hand")
print("survived")
"""


def kill(folder: Path, act: str, point: str, after: int = 1) -> None:
    """Do `act` in a process of its own, which dies at `point`."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), act, point, str(after)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (-9, "") == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize(
    ("point", "after", "stored"),
    [
        ("atomic_file.before_rename", 1, False),
        ("atomic_file.after_rename", 2, False),
        ("atomic_file.before_rename", 3, False),
        ("atomic_file.after_rename", 3, True),
    ],
)
def test_a_killed_put_leaves_a_whole_version_or_none(
    tmp_path: Path, point: str, after: int, stored: bool
) -> None:
    """The manifest is last; putting again overwrites cleanly and sweeps what lay aside."""
    kept = make_filled(tmp_path, "v1")
    put(kept, "v2", model=make_dummy("first"))
    kill(tmp_path, "put", point, after)
    assert (["v1", "v2"] if stored else ["v1"]) == kept.versions()
    if stored:
        assert ("low", "second") == kept.load("v2").labels
    put(kept, "v2", model=make_dummy("third"))
    assert ("low", "third") == kept.load("v2").labels
    assert kept.verify("v2")
    assert [] == list(file_of(tmp_path, "").glob(".*.tmp"))


@pytest.mark.parametrize(
    ("point", "crowned"),
    [
        ("registry.before_promotion", "v1"),
        ("atomic_file.before_write", "v1"),
        ("atomic_file.before_rename", "v1"),
        ("atomic_file.after_rename", "v2"),
    ],
)
def test_a_killed_promotion_is_finished_by_its_replay(
    tmp_path: Path, point: str, crowned: str
) -> None:
    """The pointer is the old one or the new one, and the same token makes it the new one, once."""
    kept = make_filled(tmp_path, "v1", "v2")
    kept.promote("v1", "first")
    kill(tmp_path, "crown", point)
    assert crowned == kept.champion()
    assert (crowned == "v1") == kept.promote("v2", "second")
    assert "v2" == kept.champion()
    assert "v1" == kept.rollback("by hand")


def test_a_killed_rollback_is_finished_by_its_replay(tmp_path: Path) -> None:
    """The same holds for a person's hand."""
    kept = make_filled(tmp_path, "v1", "v2", "v3")
    for version in ("v1", "v2", "v3"):
        kept.promote(version, version)
    kill(tmp_path, "rollback", "atomic_file.after_rename")
    assert "v2" == kept.rollback("by hand") == kept.champion()


class PointerMachine(RuleBasedStateMachine):
    """Crowns, rollbacks, replays and crashes in any order, against a plain list of champions."""

    versions = ("v1", "v2", "v3")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.kept = make_store(Path(self._folder.name))
        self.champions: list[str] = []
        self.used: list[tuple[str, str]] = []

    @initialize()
    def fill(self) -> None:
        """All versions are stored; none is crowned."""
        for version in self.versions:
            put(self.kept, version)

    def _crowned(self, version: str) -> None:
        if self.champions[-1:] != [version]:
            self.champions.append(version)

    @rule(version=st.sampled_from(versions))
    def crown(self, version: str) -> None:
        """A new wish moves the crown."""
        token = f"token {len(self.used)}"
        assert self.kept.promote(version, token)
        self.used.append((version, token))
        self._crowned(version)

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """An old wish moves nothing."""
        version, token = data.draw(st.sampled_from(self.used))
        assert not self.kept.promote(version, token)

    @rule()
    def rollback(self) -> None:
        """A person takes one champion back, if there is one before."""
        token = f"token {len(self.used)}"
        if len(self.champions) < 2:
            with pytest.raises(NoEarlierChampion):
                self.kept.rollback(token)
            return
        self.champions.pop()
        assert self.champions[-1] == self.kept.rollback(token)
        self.used.append((self.champions[-1], token))

    @rule(
        version=st.sampled_from(versions),
        point=st.sampled_from(
            ["registry.before_promotion", "atomic_file.before_rename", "atomic_file.after_rename"]
        ),
    )
    def crash(self, version: str, point: str) -> None:
        """The crown breaks off, and whoever comes next replays the wish."""
        token = f"token {len(self.used)}"
        failpoints.arm(point, "raise")
        with pytest.raises(RegistryUnusable):
            self.kept.promote(version, token)
        failpoints.disarm()
        self.kept = make_store(Path(self._folder.name))
        assert (point != "atomic_file.after_rename") == self.kept.promote(version, token)
        self.used.append((version, token))
        self._crowned(version)

    @invariant()
    def the_champion_is_the_last_that_was_crowned(self) -> None:
        """The pointer agrees with the list at every moment."""
        assert (self.champions[-1] if self.champions else None) == self.kept.champion()

    def teardown(self) -> None:
        """Nothing stays armed, and nothing stays on disk."""
        failpoints.disarm()
        self._folder.cleanup()


TestPointer = PointerMachine.TestCase
TestPointer.settings = settings(max_examples=8, stateful_step_count=15, deadline=None)


def test_the_folder_is_durable_before_it_holds_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new folder's name is on disk before anything in it is relied on."""
    synced: list[Path] = []
    monkeypatch.setattr(atomic_file, "sync_folder", synced.append)
    put(make_store(tmp_path))
    assert make_places(tmp_path).root == synced[0]
