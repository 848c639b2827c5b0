"""What clients notice of swaps: the service follows a hundred new bundles under load.

    python -m benchmarks.serve_swaps [--swaps 100] [--connections 8] [--per-second 100]

A pipeline learns elec2, and copies of its checkpoints are taken on the way. `thermodrift serve`
then answers one record over connections that are kept alive, at a steady pace: first with nothing
new, then while one copy after the other is put into the checkpoint's place, with another champion
each time. Every answer is compared with what the bundle of its versions predicts, computed
beforehand: an answer that mixed two bundles would differ. Prints one JSON line: requests that
failed, answers that were mixed, and the latencies of both phases.

Records that are predicted together may differ in the last bit from one that is predicted alone, as
sums of linear algebra do: what is closer than `SAME` is equal, and bundles are further apart.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks import serve
from flows.api import following
from flows.config import pipeline
from models.persistence.signing import SigningKey
from models.registry.registry import Registry
from models.serving.bundle import Predicted
from observability.core import atomic_file
from observability.core.paths import PipelinePlaces, Places

SAME = 1e-12
PAUSE_S = 0.02
SWAP_WITHIN_S = 60.0


class Versions(NamedTuple):
    """Which bundle answered."""

    champion: str | None
    position: int


class Stage(NamedTuple):
    """A checkpoint to be put into place."""

    position: int
    content: bytes


@dataclass
class Seen:
    """What the clients saw in one phase."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    mixed: int = 0
    serves: Versions | None = None
    """What answered last."""

    def milliseconds(self, share: float) -> float:
        """A quantile of the latencies."""
        ordered = sorted(self.seconds)
        return round(ordered[int(share * (len(ordered) - 1))] * 1e3, 2)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--per-second", type=float, default=100.0)
    parser.add_argument("--idle-requests", type=int, default=2_000)
    parser.add_argument("--stages", type=int, default=5)
    parser.add_argument("--records", type=int, default=6_000)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        file = serve.learned(Path(folder), 1_000)
        stages = checkpoints_of(file, asked.stages, asked.records)
        champions = champions_of(places_of(file))
        request, record = request_of(file)
        expected = expectations(file, stages, champions, record)
        with served(file) as port:
            load = Load(port, request, expected, asked.connections, asked.per_second)
            began_s = time.perf_counter()
            idle, swapping = asyncio.run(
                measure(load, places_of(file), stages, champions, asked.swaps, asked.idle_requests)
            )
            took_s = time.perf_counter() - began_s
    print(  # noqa: T201
        json.dumps(
            {
                "benchmark": "serve_swaps",
                "swaps": asked.swaps,
                "connections": asked.connections,
                "per_second": asked.per_second,
                "seconds": round(took_s, 1),
                "requests": len(swapping.seconds),
                "failed": idle.failed + swapping.failed,
                "mixed": idle.mixed + swapping.mixed,
                **{
                    f"{name}_{phase}_ms": seen.milliseconds(share)
                    for phase, seen in (("idle", idle), ("swapping", swapping))
                    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
                },
            }
        )
    )


def places_of(file: Path) -> PipelinePlaces:
    """The pipeline's folder, in the home beside its file."""
    return Places(file.parent / "home").pipeline("bench")


def checkpoints_of(file: Path, stages: int, records: int) -> list[Stage]:
    """The checkpoints at the ends of as many runs, the last one at `records` more."""
    path, found = places_of(file).checkpoint, []
    home = str(file.parent / "home")
    for _ in range(stages):
        words = ["--home", home, "run", str(file), "--limit", str(records // stages), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "thermodrift", *words],
            cwd=serve.ROOT,
            check=True,
            capture_output=True,
        )
        found.append(Stage(json.loads(done.stdout)["position"], path.read_bytes()))
    return found


def champions_of(places: PipelinePlaces) -> list[str]:
    """The versions in the registry; a swap changes the champion between the two newest."""
    names = Registry(places, SigningKey.open(places.root.parents[1] / "key")).versions()
    if len(names) < 2:
        raise RuntimeError("the pipeline has not two versions: nothing could be mixed")
    return names[-2:]


def request_of(file: Path) -> tuple[bytes, dict[str, Any]]:
    """One request, and the record in it."""
    request = serve.requests_of(file)[0]
    return request, json.loads(request.partition(b"\r\n\r\n")[2])["record"]


def expectations(
    file: Path, stages: Sequence[Stage], champions: Sequence[str], record: dict[str, Any]
) -> dict[Versions, dict[str, float]]:
    """What each checkpoint predicts with each champion, and nothing else may be answered."""
    places = places_of(file)
    found = {}
    for stage, champion in itertools.product(stages, champions):
        put(places, stage, champion)
        bundle = following.load(pipeline.read(file), Places(file.parent / "home"))
        (row,) = bundle.predict([record])
        assert isinstance(row, Predicted)
        assert row.probabilities is not None
        found[Versions(champion, stage.position)] = dict(row.probabilities)
    if any(distance(*two) < 1_000 * SAME for two in itertools.combinations(found.values(), 2)):
        raise RuntimeError("two bundles predict the same: a mixture of them would not be seen")
    return found


def distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """How far the probabilities of the same classes are apart, at most."""
    return max(abs(share - second[name]) for name, share in first.items())


def put(places: PipelinePlaces, stage: Stage, champion: str) -> None:
    """Put a checkpoint and a champion into place, in the order in which a run does."""
    atomic_file.write(places.checkpoint, stage.content)
    registry = Registry(places, SigningKey.open(places.root.parents[1] / "key"))
    if registry.champion() != champion:
        registry.promote(champion, f"swap.{secrets.token_hex(8)}")


@dataclass
class Load:
    """Clients that ask at a steady pace, each over a connection of its own."""

    port: int
    request: bytes
    expected: dict[Versions, dict[str, float]]
    connections: int
    per_second: float

    async def ask(self, seen: Seen, over: asyncio.Event) -> None:
        """Ask until it is over; a connection that breaks is opened anew."""
        while not over.is_set():
            try:
                await self._ask(seen, over)
            except (OSError, RuntimeError, asyncio.IncompleteReadError):
                seen.failed += 1

    async def _ask(self, seen: Seen, over: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while not over.is_set():
                began_s = time.perf_counter()
                writer.write(self.request)
                told = await serve.answer(reader)
                took_s = time.perf_counter() - began_s
                seen.seconds.append(took_s)
                self._compare(told, seen)
                await asyncio.sleep(max(self.connections / self.per_second - took_s, 0.0))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _compare(self, told: dict[str, Any], seen: Seen) -> None:
        versions = Versions(told["versions"]["champion"], told["versions"]["position"])
        seen.serves = versions
        expected = self.expected.get(versions)
        seen.mixed += expected is None or distance(expected, told["probabilities"]) > SAME


async def measure(
    load: Load,
    places: PipelinePlaces,
    stages: Sequence[Stage],
    champions: Sequence[str],
    swaps: int,
    idle_requests: int,
) -> tuple[Seen, Seen]:
    """What clients saw while nothing was new, and during the swaps."""
    idle, swapping = Seen(), Seen()

    async def nothing_new() -> None:
        while len(idle.seconds) < idle_requests:
            await asyncio.sleep(PAUSE_S)

    async def swap() -> None:
        for number in range(swaps):
            stage, champion = stages[number % len(stages)], champions[number % len(champions)]
            put(places, stage, champion)
            over_s = time.monotonic() + SWAP_WITHIN_S
            while swapping.serves != (champion, stage.position):
                if time.monotonic() > over_s:
                    raise RuntimeError(f"{stage.position} with {champion} does not serve")
                await asyncio.sleep(PAUSE_S)

    for seen, phase in ((idle, nothing_new), (swapping, swap)):
        over = asyncio.Event()
        clients = [asyncio.create_task(load.ask(seen, over)) for _ in range(load.connections)]
        try:
            await phase()
        finally:
            over.set()
            await asyncio.gather(*clients)
    return idle, swapping


@contextmanager
def served(file: Path) -> Iterator[int]:
    """`thermodrift serve` as users start it; its port."""
    words = ["--home", str(file.parent / "home"), "serve", str(file), "--port", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "thermodrift", *words],
        cwd=serve.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError("the service did not begin")
            port = urlsplit(json.loads(line)["address"]).port
            assert port is not None
            yield port
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
