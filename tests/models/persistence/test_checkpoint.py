"""The checkpoint: believed only if it is ours and whole; after a kill the old or the new one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.online import online_model
from models.online.blend import BlendConfig
from models.online.learner import Learner
from models.online.online_model import OnlineConfig
from models.persistence import checkpoint
from models.persistence.checkpoint import CheckpointUnusable
from models.persistence.serialization import CannotPickle
from models.persistence.signing import SigningKey
from observability.core import failpoints
from tests import ROOT
from tests.models.makers import KEY, make_label, make_rows, make_schema

SEAL = SigningKey(KEY)
OTHERS_SEAL = SigningKey(KEY[::-1])
STATE = {"position": 250, "weights": [0.1, -0.2], "name": "elec2"}
BRIEF = {"position": 250, "scores": {"served": 0.875, "batch": None}, "champion": "größte"}


class Bomb:
    """What an attacker would put into a pickle: loading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture(autouse=True)
def disarm() -> Iterator[None]:
    """No fault point stays armed."""
    yield
    failpoints.disarm()


def put(folder: Path, state: object = STATE, seal: SigningKey = SEAL) -> Path:
    """Save a checkpoint in `folder`."""
    path = folder / "checkpoint"
    checkpoint.save(path, state, seal, BRIEF)
    return path


def rewrite_head(path: Path, **changes: object) -> None:
    """Change the first line and leave the rest as it is."""
    line, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(line), **changes}).encode() + b"\n" + body)


def refused(path: Path, *words: str) -> None:
    """Loading is refused with a message that names the file and says `words`."""
    with pytest.raises(CheckpointUnusable) as error:
        checkpoint.load(path, SEAL)
    assert all(word in str(error.value) for word in (str(path), *words)), str(error.value)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """The state comes back, and so does what was said of it in brief."""
    path = put(tmp_path / "not" / "there" / "yet")
    assert STATE == checkpoint.load(path, SEAL)
    assert BRIEF == checkpoint.header(path)


def test_a_learner_goes_on_from_its_checkpoint_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Saved and loaded half way, it answers to the last bit what it would have answered."""
    schema = make_schema()
    rows = make_rows(200)
    labels = [make_label(row) for row in rows]
    members = online_model.build(OnlineConfig(), schema)
    undisturbed = Learner(members, "classification", BlendConfig())
    undisturbed.learn(rows[:100], labels[:100], None)
    path = put(tmp_path, undisturbed)
    resumed = checkpoint.load(path, SEAL)
    assert isinstance(resumed, Learner)
    expected = undisturbed.learn(rows[100:], labels[100:], None)
    assert expected == resumed.learn(rows[100:], labels[100:], None)
    assert undisturbed.tallies == resumed.tallies


def test_saving_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    """There is one checkpoint, the newest, and nothing beside it."""
    put(tmp_path)
    path = put(tmp_path, {"position": 500})
    assert {"position": 500} == checkpoint.load(path, SEAL)
    assert [path] == list(tmp_path.iterdir())


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    """A missing file is told as such: a pipeline that has not begun is not a damaged one."""
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "checkpoint", SEAL)
    with pytest.raises(FileNotFoundError):
        checkpoint.header(tmp_path / "checkpoint")


def test_loading_runs_what_is_pickled(tmp_path: Path) -> None:
    """The bomb of these tests goes off: where it does not, nothing was unpickled."""
    path = put(tmp_path, Bomb(tmp_path / "ran"))
    checkpoint.load(path, SEAL)
    assert (tmp_path / "ran").exists()


def test_what_another_key_signed_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    """An attacker without the home's key runs nothing."""
    path = put(tmp_path, Bomb(tmp_path / "ran"), OTHERS_SEAL)
    refused(path, "not what this home signed", "restore it from a backup")
    assert not (tmp_path / "ran").exists()


def test_a_body_under_another_head_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    """A genuine first line vouches for its own body and for no other."""
    line, _, _ = put(tmp_path).read_bytes().partition(b"\n")
    path = put(tmp_path, Bomb(tmp_path / "ran"), OTHERS_SEAL)
    _, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(line + b"\n" + body)
    refused(path, "not what this home signed")
    assert not (tmp_path / "ran").exists()


def test_reading_in_brief_unpickles_nothing(tmp_path: Path) -> None:
    """`thermodrift status` answers whatever the models in the checkpoint need or do."""
    path = put(tmp_path, Bomb(tmp_path / "ran"))
    assert BRIEF == checkpoint.header(path)
    assert not (tmp_path / "ran").exists()


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_no_flipped_bit_changes_what_is_believed(tmp_path: Path, data: st.DataObject) -> None:
    """Wherever a bit is flipped the checkpoint is refused, or says the same as before.

    (1E-05 is 1e-05.) Both parts are under the signature: the state, and what is said of it.
    """
    path = put(tmp_path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(content)
    try:
        believed = checkpoint.load(path, SEAL)
    except CheckpointUnusable:
        return
    assert (STATE, BRIEF) == (believed, checkpoint.header(path))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    """However much of it is missing, the message says what to do."""
    path = put(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "backup")


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xfe", b"not JSON", b"[1]", b"null", b"{}", b'{"format": "2"}']
)
def test_a_damaged_first_line_is_refused(tmp_path: Path, head: bytes) -> None:
    """Both ways to read it say that it is damaged, and what to do."""
    path = put(tmp_path)
    path.write_bytes(head + b"\n" + path.read_bytes())
    refused(path, "cannot be read", "backup", "remove the pipeline's folder")
    with pytest.raises(CheckpointUnusable, match="cannot be read"):
        checkpoint.header(path)


@pytest.mark.parametrize("signature", [None, 5, "", "0" * 64, "\ud800", "é"])
def test_a_signature_that_is_none_is_refused(tmp_path: Path, signature: object) -> None:
    """Missing, of another type, or text that no signature can be."""
    path = put(tmp_path)
    rewrite_head(path, signature=signature)
    refused(path, "backup")


@pytest.mark.parametrize("change", [{"summary": {}}, {"libraries": {}}, {"more": 1}])
def test_the_first_line_is_signed_as_well(tmp_path: Path, change: dict[str, Any]) -> None:
    """Nobody can say of our models that other libraries wrote them, or another position."""
    path = put(tmp_path)
    rewrite_head(path, **change)
    refused(path, "not what this home signed")


@pytest.mark.parametrize(
    ("name", "version"), [("python", "3.10.1"), ("river", "0.25.0"), ("numpy", "1.26.4")]
)
def test_other_libraries_are_refused_before_anything_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    """A model of another minor version may load and predict wrongly; the message names both."""
    here = checkpoint._libraries()
    monkeypatch.setattr(checkpoint, "_libraries", lambda: {**here, name: version})
    path = put(tmp_path, Bomb(tmp_path / "ran"))
    monkeypatch.undo()
    refused(path, f"{name} {version}", f"(here {here[name]})", "Run it with that version")
    assert not (tmp_path / "ran").exists()
    assert BRIEF == checkpoint.header(path)


def test_a_patch_release_is_the_same_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug-fix release of a library, or any release of ours, does not end a pipeline."""
    here = checkpoint._libraries()
    others = {name: f"{version.rpartition('.')[0]}.99" for name, version in here.items()}
    monkeypatch.setattr(checkpoint, "_libraries", lambda: {**others, "thermodrift": "9.9"})
    path = put(tmp_path)
    monkeypatch.undo()
    assert STATE == checkpoint.load(path, SEAL)


def test_a_state_that_has_no_bytes_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A model of one's own that holds a lock or a lambda is refused before the disk is touched."""
    path = put(tmp_path)
    with pytest.raises(CannotPickle):
        put(tmp_path, {"model": lambda: 1})
    assert STATE == checkpoint.load(path, SEAL)


@pytest.mark.parametrize("point", ["atomic_file.before_write", "atomic_file.before_rename"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, point: str) -> None:
    """The error reaches the caller, the old state is whole, and nothing is left aside."""
    path = put(tmp_path)
    failpoints.arm(point, "raise")
    with pytest.raises(OSError, match="no space left"):
        put(tmp_path, {"position": 500})
    assert STATE == checkpoint.load(path, SEAL)
    assert [path] == list(tmp_path.iterdir())


VICTIM = """
import sys
from pathlib import Path
from observability.core import failpoints
from tests.models.persistence.test_checkpoint import put
failpoints.arm(sys.argv[2], "kill")
put(Path(sys.argv[1]), {"position": 500})
"""


@pytest.mark.parametrize(
    ("point", "position"),
    [
        ("atomic_file.before_write", 250),
        ("atomic_file.before_rename", 250),
        ("atomic_file.after_rename", 500),
    ],
)
def test_a_kill_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, point: str, position: int
) -> None:
    """Whatever instant the process dies at, one of the two is there, whole and signed."""
    path = put(tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path), point], cwd=ROOT, capture_output=True
    )
    assert -signal.SIGKILL == killed.returncode
    state = checkpoint.load(path, SEAL)
    assert isinstance(state, dict)
    assert position == state["position"]


@pytest.mark.parametrize(
    ("form", "version"),
    [(2, "an earlier"), ("checkpoint 2", "an earlier"), ("checkpoint 4", "another")],
)
def test_a_checkpoint_of_another_version_says_which_versions(
    tmp_path: Path, form: object, version: str
) -> None:
    """It is not damaged: the version that wrote it goes on with it."""
    path = put(tmp_path)
    rewrite_head(path, format=form)
    refused(path, f"{version} version", "reads 'checkpoint 3'", "the version that wrote it")
    with pytest.raises(CheckpointUnusable, match="the version that wrote it"):
        checkpoint.header(path)
