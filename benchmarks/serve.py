"""Predictions per second of the service, and of a conventional endpoint around the same bundle.

    python -m benchmarks.serve [--records 5000] [--requests 2000] [--rounds 3]

A pipeline learns elec2 once, until it has a champion. Then two servers run beside each other, each
in a process of its own: `thermodrift serve`'s application, and a FastAPI endpoint with pydantic
models in and out that calls the same bundle's `predict`. Both predict alone: neither keeps what it
predicted on a disk. Turn by turn, each is asked for single records over 1 and over 32 connections
that are kept alive; every answer is read. Prints one JSON line: requests per second and latencies,
the medians over the rounds, and their ratio, each a pair of neighbours in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flows.api import following, server
from flows.api.safety import Guard
from flows.api.service import Service
from flows.config import pipeline
from models.serving.bundle import Bundle, Predicted
from models.serving.fake_inbox import FakeInbox
from models.stream.source import Cursor, Stream
from observability.core.paths import Places
from observability.core.serve_config import ServeConfig

ROOT = Path(__file__).resolve().parents[1]
STREAM = ROOT / "examples" / "elec2.parquet"
KINDS = ("service", "conventional")
CONNECTIONS = (1, 32)


class Measured(NamedTuple):
    """What one server did in one turn."""

    per_s: float
    p50_ms: float
    p99_ms: float


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=5_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--be", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.be is not None:
        be(asked.be, asked.file)
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = learned(Path(folder), asked.records)
        ports = {kind: stack.enter_context(running(kind, file)) for kind in KINDS}
        bodies = requests_of(file)
        found = {
            str(connections): compare(ports, bodies, connections, asked.requests, asked.rounds)
            for connections in CONNECTIONS
        }
    sizes = {"records": asked.records, "requests": asked.requests, "rounds": asked.rounds}
    print(json.dumps({"benchmark": "serve", **sizes, "connections": found}))  # noqa: T201


def learned(folder: Path, records: int) -> Path:
    """The file of a pipeline that has learned so many records, and that has a champion."""
    file = folder / "bench.toml"
    file.write_text(
        '[pipeline]\nname = "bench"\ntask = "classification"\n'
        f'[stream]\npath = "{STREAM}"\ntarget = "class"\nbatch = 200\n'
        "[batch]\nmin_rows = 200\n[worth]\nmin_rows = 200\n[drift]\nevery = 200\n"
        '[gate]\nsource = "off"\n'
    )
    home = ["--home", str(folder / "home")]
    command = [*home, "run", str(file), "--limit", str(records), "--json"]
    subprocess.run(
        [sys.executable, "-m", "thermodrift", *command], cwd=ROOT, check=True, capture_output=True
    )
    if bundle_of(file).champion is None:
        raise RuntimeError("the pipeline has no champion: the bundle would be half of one")
    return file


def bundle_of(file: Path) -> Bundle:
    """The bundle of the pipeline, in the home beside its file."""
    return following.load(pipeline.read(file), Places(file.parent / "home"))


def requests_of(file: Path) -> list[bytes]:
    """HTTP requests of single records, which both servers take."""
    read = pipeline.read(file)
    records = Stream(STREAM, "classification", read.pipeline.stream).read(Cursor(), 100)
    bodies = [json.dumps({"record": row}).encode() for row in records.rows]
    return [
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    ]


def compare(
    ports: dict[str, int], bodies: Sequence[bytes], connections: int, requests: int, rounds: int
) -> dict[str, Any]:
    """Both servers turn by turn, over so many connections."""
    for port in ports.values():
        asyncio.run(load(port, bodies, connections, min(requests, 10 * connections)))
    turns = [
        {
            kind: asyncio.run(load(port, bodies, connections, requests))
            for kind, port in ports.items()
        }
        for _ in range(rounds)
    ]
    ratio = statistics.median(each["service"].per_s / each["conventional"].per_s for each in turns)
    return {
        **{
            f"{kind}_{name}": round(
                statistics.median(getattr(each[kind], name) for each in turns), 2
            )
            for kind in KINDS
            for name in Measured._fields
        },
        "ratio": round(ratio, 3),
    }


async def load(port: int, bodies: Sequence[bytes], connections: int, requests: int) -> Measured:
    """Ask so many times over so many connections, each for the next one as soon as it can."""
    seconds: list[float] = []
    coming = iter(range(requests))

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in coming:
            began_s = time.perf_counter()
            writer.write(bodies[number % len(bodies)])
            await answer(reader)
            seconds.append(time.perf_counter() - began_s)
        writer.close()
        await writer.wait_closed()

    began_s = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(connections)))
    took_s = time.perf_counter() - began_s
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(share * (len(ordered) - 1))] * 1e3 for share in (0.5, 0.99))
    return Measured(requests / took_s, p50, p99)


async def answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The document of one answer. Raises RuntimeError unless it is a prediction."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    body: dict[str, Any] = json.loads(await reader.readexactly(length))
    if b" 200 " not in head.partition(b"\r\n")[0] or body.get("prediction") is None:
        raise RuntimeError(f"no prediction came: {body}")
    return body


@contextmanager
def running(kind: str, file: Path) -> Iterator[int]:
    """One of the servers in a process of its own; its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", "--be", kind, "--file", str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError(f"the {kind} server did not begin")
            yield int(line)
        finally:
            process.terminate()


def be(kind: str, file: Path) -> None:
    """Be one of the servers, until a signal comes."""
    config = ServeConfig(port=0)
    with server.bound(config) as listening:
        port = listening.getsockname()[1]

        def ready() -> None:
            print(port, flush=True)  # noqa: T201 - whoever measures reads it

        if kind == "service":
            home = Places(file.parent / "home")
            files = [pipeline.read(file)]
            service = Service(files, home, config, lambda _: FakeInbox(), lambda _: None)
            service.look()
            server.server(service, Guard(config, None), ready).run([listening])
            service.close()
        else:
            import uvicorn

            ready()
            options = uvicorn.Config(conventional(bundle_of(file)), log_level="error")
            uvicorn.Server(options).run([listening])


def conventional(bundle: Bundle) -> Any:
    """The endpoint that a tutorial shows: models in, models out, a prediction for each request."""
    from fastapi import FastAPI, HTTPException
    from pydantic import BaseModel, create_model

    fields: dict[str, Any] = {
        column.source: ((float if column.kind == "number" else str) | None, None)
        for column in bundle.schema.columns
    }
    record: Any = create_model("Record", **fields)
    ask: Any = create_model("Ask", record=(record, ...))

    class Said(BaseModel):
        """What is answered."""

        prediction: str
        probabilities: dict[str, float]
        champion: str | None
        position: int

    app = FastAPI()

    async def predict(asked: Any) -> Said:
        (row,) = bundle.predict([asked.record.model_dump()])
        if not isinstance(row, Predicted) or row.probabilities is None:
            raise HTTPException(422, "no prediction")
        return Said(
            prediction=str(row.value),
            probabilities=dict(row.probabilities),
            champion=bundle.champion_version,
            position=bundle.position,
        )

    predict.__annotations__ = {"asked": ask, "return": Said}
    app.post("/predict", response_model=Said)(predict)
    return app


if __name__ == "__main__":
    main()
