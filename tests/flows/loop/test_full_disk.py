"""A disk that is really full: learning stops with one clear line, nothing is lost, and it goes on.

The home lies on a small disk that the tests fill to the last byte, at moments that they choose.
Whatever was refused where, the run that is repeated once there is space leaves what an undisturbed
run leaves. Read-only homes, and homes of other people, are refusals of the same kind.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from flows.stack.ephemeral_api import Api, PrefectUnavailable, use_api
from observability.core import failpoints
from tests import ROOT
from tests.flows.loop.small_disk import SmallDisk, fill, mounted
from tests.flows.loop.test_resume import left_behind
from tests.flows.makers import NAME, environment_of, make_pipeline, thermodrift
from tests.pace import PATIENCE_S, stretched

pytestmark = pytest.mark.slow

BOUND_S = 60.0
"""Within this much of the disk being full a command has ended, on a quiet machine."""
RECORDS = 1_000
NO_SPACE = "No space left on device"

FILLING = '''
import os
from pathlib import Path
from river.dummy import NoChangeClassifier

ORDER = Path(__file__).with_name("order")
learned = 0

class Filling(NoChangeClassifier):
    """Fills a disk while it learns the record that the order names, once."""

    def learn_one(self, x, y):
        global learned
        learned += 1
        if ORDER.exists():
            filler, at, leave = ORDER.read_text().split()
            if learned == int(at):
                fill(filler, int(leave))
        super().learn_one(x, y)

def fill(filler, leave):
    with open(filler, "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
        file.truncate(max(0, file.tell() - leave))
'''


@dataclass(frozen=True)
class Example:
    """A pipeline whose online model can fill a disk, and what its undisturbed run leaves."""

    pipeline: Path
    home: Path
    left: dict[str, Any]

    def order(self, filler: Path, at: int, leave_bytes: int) -> None:
        """Have `filler` grow at the `at`-th record of the next process, but for `leave_bytes`."""
        (self.pipeline.parent / "order").write_text(f"{filler} {at} {leave_bytes}")

    def withdraw(self) -> None:
        """Let the next run learn in peace."""
        (self.pipeline.parent / "order").unlink()


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    told: str
    took_s: float


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The undisturbed run: the whole command, on an ordinary disk."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "filling.py").write_text(FILLING)
    pipeline = make_pipeline(
        folder,
        RECORDS,
        online={"members": ["filling:Filling"]},
        # Fits cost nothing, so that there is a second champion.
        worth={"fit_second_pays": 0.0},
    )
    done = thermodrift("--home", folder / "home", "run", pipeline, "--json")
    assert done.returncode == 0, done.stderr
    left = left_behind(folder / "home", NAME, RECORDS)
    assert len(left["models"]) > 1
    assert left["champion"] is not None
    return Example(pipeline, folder / "home", left)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk with room for a run, but not for much more."""
    with mounted(tmp_path, "48m") as small:
        yield small


def call(disk: SmallDisk, *words: object, home: str = "home") -> Done:
    """Run the command line with its home on the disk."""
    began_s = time.monotonic()
    process = disk.start("--home", disk.inside / home, *words)
    try:
        out, told = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert "Traceback" not in told
    return Done(process.returncode, out, told, time.monotonic() - began_s)


def last_line(done: Done) -> str:
    """The one line in which a command says why it failed."""
    return done.told.strip().splitlines()[-1]


def left_on(disk: SmallDisk, copy: Path, home: str = "home") -> dict[str, Any]:
    """What a run left on the disk, read from a copy."""
    shutil.copytree(disk.seen / home, copy)
    return left_behind(copy, NAME, RECORDS)


def refused(done: Done, *told: str) -> None:
    """The outcome of every refusal: exit code 1, no answer, one line that says all of `told`."""
    assert (1, "") == (done.code, done.out)
    (line,) = [each for each in done.told.splitlines() if each.startswith("thermodrift: ")]
    for each in told:
        assert each in line
    assert done.took_s < stretched(BOUND_S)


MOMENTS = [
    # Half of each file that must not be lost fits; of the smallest, its name alone.
    "/predictions/@4-4096",
    "/checkpoint@9-32768",
    "/history.outbox/@6-0",
    ".model@2-0",
    ".reference.parquet@2-4096",
    "/models/v@6-0",
    "/champion.json@2-0",
    *(
        f"{point}@{4 if point.startswith('loop') else 2}-0"
        for point in failpoints.POINTS
        if not point.startswith(
            ("atomic_file.", "inbox.", "labels.", "power_limit.", "replay.", "run.", "upkeep.")
        )
    ),
    # The fold's log fits, and then not what it is checkpointed into.
    "history.before_flush@3-300000",
]
BRIEF = ["history.before_flush@3-0+", "history.inside_flush@3-0+", "history.before_checkpoint@3-0+"]


def test_a_disk_that_fills_at_any_moment_loses_and_doubles_nothing(
    example: Example, tmp_path: Path
) -> None:
    """At each write and each fault point: ended at once, nothing half, and then all as it was."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "192m") as disk:
        process = disk.python(
            "-m", "tests.flows.loop.full_disk_loop", disk.inside, example.pipeline, *MOMENTS, *BRIEF
        )
        out, told = process.communicate()
        assert process.returncode == 0, told
        found = [json.loads(line) for line in out.splitlines()]
        assert [*MOMENTS, *BRIEF] == [each["moment"] for each in found]
        for each in found:
            assert each["after_s"] is not None, f"{each['moment']} was not reached"
            assert each["after_s"] < stretched(BOUND_S)
            assert each["whole"], each
            if each["moment"] in BRIEF:
                assert "finished" == each["met"]
            else:
                assert NO_SPACE in each["met"]
            assert "finished" == each["again"]
            assert example.left == left_on(disk, tmp_path / each["home"], each["home"]), each


def test_a_full_disk_stops_the_command_and_space_lets_it_go_on(
    example: Example, disk: SmallDisk, tmp_path: Path
) -> None:
    """Prefect included: one line, exit code 1, in seconds; and afterwards as if it had not been."""
    example.order(disk.inside / "filler", at=350, leave_bytes=0)
    stopped = call(disk, "run", example.pipeline, "--json")
    example.withdraw()
    refused(stopped, NO_SPACE, "0.0 MB are free", str(disk.inside / "home"), "make space")
    assert time.time() - (disk.seen / "filler").stat().st_mtime < stretched(BOUND_S)
    refused(
        call(disk, "run", example.pipeline, "--json"), NO_SPACE, "make space", "changed nothing"
    )
    disk.free()
    done = call(disk, "run", example.pipeline, "--json")
    assert "finished" == json.loads(done.out)["outcome"], done.told
    assert example.left == left_on(disk, tmp_path / "copy")


def test_a_full_disk_can_still_be_asked(example: Example, disk: SmallDisk) -> None:
    """What only reads answers; the history too, unless rows wait that do not fit into it."""
    shutil.copytree(example.home, disk.seen / "home")
    disk.fill()
    (known,) = json.loads(call(disk, "status", "--json").out)
    assert (RECORDS, "resting") == (known["position"], known["state"])
    assert len(example.left["models"]) == len(json.loads(call(disk, "models", "ls", "--json").out))
    counted = call(disk, "history", "sql", "SELECT count(*) AS n FROM decisions", "--json")
    assert [{"n": len(example.left["decisions"])}] == json.loads(counted.out)
    refused(call(disk, "models", "rollback"), NO_SPACE, "make space")
    examined = call(disk, "doctor", "--json")
    (home,) = [each for each in json.loads(examined.out) if each["what"] == "home"]
    assert (1, "broken") == (examined.code, home["state"])
    assert NO_SPACE in home["told"]


def test_nothing_begins_on_a_full_disk(example: Example, disk: SmallDisk) -> None:
    """Not even Prefect: the run says so at once, and leaves an empty home that is its user's."""
    disk.fill()
    refused(call(disk, "run", example.pipeline), NO_SPACE, "16 MB", "make space", "changed nothing")
    assert [] == list((disk.seen / "home").iterdir())
    assert 0o700 == (disk.seen / "home").stat().st_mode & 0o777
    assert (0, []) == ((asked := call(disk, "status", "--json")).code, json.loads(asked.out))
    assert 78 == call(disk, "models", "ls").code
    refused(call(disk, "history", "sql", "FROM runs"), NO_SPACE)
    assert 1 == call(disk, "doctor").code
    refused(call(disk, "init", disk.inside / "new"), NO_SPACE, "make space")
    assert [] == list((disk.seen / "new").iterdir())


def test_a_full_disk_of_prefects_own_is_named(example: Example, disk: SmallDisk) -> None:
    """The home has space, and Prefect's folder in it has none: the line names that folder."""
    prefect = disk.seen / "home" / "prefect"
    prefect.mkdir(parents=True)
    disk.mount(disk.inside / "home" / "prefect", "8m")
    fill(prefect / "filler")
    stopped = call(disk, "run", example.pipeline, "--json")
    refused(stopped, "Prefect's embedded API", NO_SPACE, str(disk.inside / "home" / "prefect"))
    api = Api("http://a", "b", prefect)
    with pytest.raises(PrefectUnavailable, match=NO_SPACE), use_api(api):
        raise failed_request(api.url)


def test_a_read_only_home_is_refused_and_can_be_asked(example: Example, disk: SmallDisk) -> None:
    """The same line and exit code, with what to do about this one."""
    shutil.copytree(example.home, disk.seen / "home")
    disk.remount("ro")
    refused(call(disk, "run", example.pipeline), "Read-only file system", "mount it")
    (known,) = json.loads(call(disk, "status", "--json").out)
    assert RECORDS == known["position"]
    assert 0 == call(disk, "models", "ls").code
    assert 1 == call(disk, "doctor").code
    asked = call(disk, "history", "sql", "FROM runs")
    assert asked.code == 0 or "Read-only file system" in last_line(asked)


def test_a_home_that_is_closed_to_us_is_refused(example: Example, tmp_path: Path) -> None:
    """Who may not write there is told so, by whatever would have to; the rest answers."""
    home = tmp_path / "home"
    shutil.copytree(example.home, home)
    (home / "key").chmod(0)
    home.chmod(0o555)
    for words in (["run", example.pipeline], ["models", "ls"]):
        refused(without_privileges(home, *words), "Permission denied", "give this user rights")
    assert 0 == without_privileges(home, "status").code
    assert 0 == without_privileges(home, "history", "sql", "FROM runs").code
    assert 1 == without_privileges(home, "doctor").code
    home.chmod(0o755)


def without_privileges(home: Path, *words: object) -> Done:
    """Run the command line as this user, who if it is root is one like any other."""
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if drop and shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv here to make it an other")
    began_s = time.monotonic()
    done = subprocess.run(
        [*drop, sys.executable, "-m", "thermodrift", "--home", str(home), *map(str, words)],
        cwd=ROOT,
        env=environment_of(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began_s)


def failed_request(url: str) -> PrefectHTTPStatusError:
    """What Prefect raises where its API answers 500."""
    request = httpx.Request("POST", url)
    response = httpx.Response(500, request=request)
    return PrefectHTTPStatusError("it answered 500\nmore", request=request, response=response)


def test_what_ended_a_run_is_told_though_prefect_failed_after_it() -> None:
    """The disk was full for both: the run's own error names the file."""
    ours = OSError(errno.ENOSPC, NO_SPACE, "checkpoint")

    def fail_twice() -> None:
        try:
            raise ours
        except OSError:
            raise failed_request("http://a") from None

    with pytest.raises(OSError, match="checkpoint") as error, use_api(Api("http://a", "b")):
        fail_twice()
    assert ours is error.value


def test_what_prefect_alone_failed_in_is_told_in_one_line(tmp_path: Path) -> None:
    """With space on the disk, the reason is Prefect's own."""
    api = Api("http://a", "b", tmp_path)
    with (
        pytest.raises(PrefectUnavailable, match=r"it answered 500\. What was learned"),
        use_api(api),
    ):
        raise failed_request(api.url)
