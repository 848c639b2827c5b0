"""A process that has imported the loop, and forks a fresh one from itself for each run of a test.

To import everything takes a run longer than all that it does in a test of kills. A child begins
where the imports end: no thread has started and no file is open by then, so it is what a new
process is. What a child had to import on its way, those after it need not.
Each child drives the loop without Prefect, with fault points armed, and may be killed.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests import ROOT


class Nursery:
    """Runs of the loop, one after the other, each in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def loop(
        self, pipeline: Path, home: Path, armed: str = "", limit: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the loop to its end, through `limit` records, or to where a fault point ends it.

        On stdout is its summary, as JSON.
        """
        return self._run("cycle", pipeline, home, armed, limit)

    def replay(
        self, pipeline: Path, home: Path, armed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Read the rejects again, to the end or to where a fault point ends it; as `loop`."""
        return self._run("replay", pipeline, home, armed, None)

    def _run(
        self, what: str, pipeline: Path, home: Path, armed: str, limit: int | None
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            job = {"pipeline": str(pipeline), "home": str(home), "armed": armed, "limit": limit}
            job["what"] = what
            self._process.stdin.write(json.dumps({**job, "in": folder}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the nursery ended"
            said = [(Path(folder) / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess([], json.loads(answer)["code"], *said)


@contextmanager
def open_nursery() -> Iterator[Nursery]:
    """A nursery that ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.flows.nursery"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Nursery(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _born(job: dict[str, Any]) -> None:
    """Be a child: a run of the loop, and nothing after it."""
    from flows.learning import reject_replay
    from flows.loop import local_loop
    from flows.run.shutdown import Stop
    from observability.core import failpoints

    code = 0
    for number, name in ((1, "stdout"), (2, "stderr")):
        opened = os.open(f"{job['in']}/{name}", os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
    try:
        failpoints.arm_from(job["armed"])
        path, home = Path(job["pipeline"]), Path(job["home"])
        if job["what"] == "replay":
            told = reject_replay.replay(path, home, Stop())
        else:
            told = local_loop.run_loop.fn(path, home, job["limit"])
        sys.stdout.write(json.dumps(told))
    except BaseException:  # noqa: BLE001 - whatever ends a run is told as a process would
        traceback.print_exc()
        code = 1
    finally:
        Path(job["in"], "modules").write_text(json.dumps(_everybodys()))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _everybodys() -> list[str]:
    """The modules of this process, but for those that belong to its pipeline alone."""
    ours = (sys.prefix, sys.base_prefix, str(ROOT))
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return [name for name, file in files.items() if file is not None and file.startswith(ours)]


def _import(by_child: Path) -> None:
    """Import what a child had imported in the end; one that was killed does not tell."""
    if by_child.exists():
        for name in json.loads(by_child.read_text()):
            with suppress(ImportError):
                importlib.import_module(name)


def main() -> None:
    """Import what a run needs, and fork until nobody asks any more."""
    from tests.flows.plain_loop import without_prefect

    with without_prefect():
        for line in sys.stdin:
            job = json.loads(line)
            child = os.fork()
            if child == 0:
                _born(job)
            _, status = os.waitpid(child, 0)
            _import(Path(job["in"], "modules"))
            sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
