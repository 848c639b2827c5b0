"""A log of fifty million predictions: what each question of the cookbook takes, and the disk.

    python -m benchmarks.history_scale [--millions 50] [--patience-s 300] [--seed 0]

The log is written as upkeep leaves it, a file per million records, with columns like those of the
example on elec2; beside it a history of as many batches of 500 records: scores, drift decisions,
runs, requests, models, costs, rejects, readings. Every question of docs/history.md is then asked
through the history's door, each in a fresh process; imports are not counted, and the files are in
the operating system's memory if it has room. Peak memory is the process's own, the empty question
`SELECT 1` for comparison. A question that takes longer than `patience_s` is ended and has no time.

The alternative for one of them: pandas over the first five million records, the columns that it
needs alone, against our door over the same ones; and DuckDB by itself over all the files. Prints
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from observability.core.paths import Places

ROOT = Path(__file__).resolve().parent.parent
MILLION = 1_000_000
PANDAS_MILLIONS = 5
_SPAWN = multiprocessing.get_context("spawn")
_BLOCK = re.compile(r"^```sql\n(.*?)^```\n", re.MULTILINE | re.DOTALL)

BEATEN = (
    "How often did the served prediction beat both of its members, and how often was it beaten?"
)
"""The question that the alternatives answer too."""


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=50)
    parser.add_argument("--patience-s", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), **vars(asked))))  # noqa: T201 - the figure is the output


def measure(home: Path, millions: int, patience_s: float, seed: int) -> dict[str, object]:
    """Fill `home`, and ask it everything."""
    # All in processes of their own: a process begins with the peak of the one that started it.
    filled = alone(_fill, home, millions * MILLION, seed)
    answers = {
        told: alone(ask, home, sql, patience_s=patience_s) for told, sql in questions().items()
    }
    took = {told: answer["seconds"] for told, answer in answers.items() if answer}
    memory = {told: answer["peak_mb"] for told, answer in answers.items() if answer}
    return {
        "benchmark": "history_scale",
        "records": millions * MILLION,
        **(filled or {}),
        "questions": answers,
        "slowest": max(took, key=took.__getitem__),
        "heaviest": max(memory, key=memory.__getitem__),
        "no_answer_in_time": [told for told, answer in answers.items() if answer is None],
        "empty_question": alone(ask, home, "SELECT 1"),
        "against": _against(home, min(PANDAS_MILLIONS, millions)),
    }


def questions() -> dict[str, str]:
    """The SQL of docs/history.md, by what is said just before it."""
    page = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    told, asked = (_BLOCK.split(page)[each::2] for each in (0, 1))
    paragraphs = (prose.strip().rpartition("\n\n")[2] for prose in told)
    return {" ".join(prose.split()): sql for prose, sql in zip(paragraphs, asked, strict=False)}


def alone(
    work: Callable[..., dict[str, Any]], *arguments: object, patience_s: float | None = None
) -> dict[str, Any] | None:
    """What `work` answers in a fresh process; None where that takes longer than `patience_s`."""
    heard, said = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_tell, args=(said, work, arguments))
    process.start()
    said.close()
    try:
        if not heard.poll(patience_s):
            return None
        answer: dict[str, Any] = heard.recv()
    except EOFError as cause:
        raise RuntimeError(f"{work.__name__} of {arguments} failed: see above") from cause
    else:
        return answer
    finally:
        process.kill()
        process.join()


def _tell(
    said: Connection, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> None:
    said.send(work(*arguments))


def ask(home: Path, sql: str) -> dict[str, Any]:
    """Seconds, rows and peak memory of one question through the history's door."""
    import pyarrow as pa

    from observability.history.store import History

    began_s = time.perf_counter()
    answer = History(home).ask(sql)
    assert isinstance(answer, pa.Table)
    return _spent(began_s, answer.num_rows)


def ask_duckdb(home: Path, sql: str) -> dict[str, Any]:
    """The same by DuckDB itself, over the files."""
    import duckdb

    files = Places(home).pipeline("elec2").predictions / "*.parquet"
    began_s = time.perf_counter()
    session = duckdb.connect()
    session.execute(f"CREATE VIEW predictions AS FROM read_parquet('{files}')")
    answer = session.execute(sql).to_arrow_table()
    return _spent(began_s, answer.num_rows)


def ask_pandas(home: Path, millions: int) -> dict[str, Any]:
    """The question of `BEATEN` by pandas, over the first files."""
    import pandas as pd  # noqa: F401 - imports are not counted

    began_s = time.perf_counter()
    beaten_by_pandas(home, millions)
    return _spent(began_s, 1)


def beaten_by_pandas(home: Path, millions: int) -> dict[str, int]:
    """How often the served prediction beat both of its members, and how often it was beaten."""
    import pandas as pd

    files = sorted(Places(home).pipeline("elec2").predictions.glob("*.parquet"))[:millions]
    columns = ["label", "online", "batch", "served"]
    log = pd.concat([pd.read_parquet(file, columns=columns) for file in files])
    right = {who: log[who] == log["label"] for who in ("online", "batch", "served")}
    # A comparison with a missing prediction is false here and NULL in SQL: neither is counted.
    wrong = {who: log[who].notna() & ~right[who] for who in right}
    return {
        "beat_both": int((right["served"] & wrong["online"] & wrong["batch"]).sum()),
        "beaten": int((wrong["served"] & (right["online"] | right["batch"])).sum()),
    }


def _fill(home: Path, records: int, seed: int) -> dict[str, Any]:
    from benchmarks import history_home

    return history_home.fill(home, records, seed)


def _spent(began_s: float, rows: int) -> dict[str, Any]:
    seconds = time.perf_counter() - began_s
    # Kilobytes on Linux, bytes on macOS.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"seconds": round(seconds, 3), "peak_mb": round(peak_mb), "rows": rows}


def _against(home: Path, millions: int) -> dict[str, object]:
    sql = questions()[BEATEN]
    fewer = sql.replace(
        "FROM predictions\n", f'FROM predictions WHERE "position" < {millions * MILLION}\n'
    )
    ours, theirs = alone(ask, home, fewer), alone(ask_pandas, home, millions)
    whole, bare = alone(ask, home, sql), alone(ask_duckdb, home, sql)
    if not (ours and theirs and whole and bare):
        raise RuntimeError("without a limit of time, each of these has an answer")
    return {
        "question": BEATEN,
        "of_records": millions * MILLION,
        "history": ours,
        "pandas": theirs,
        "times_faster_than_pandas": round(theirs["seconds"] / ours["seconds"], 2),
        "of_all_records": {"history": whole, "duckdb": bare},
        "times_as_long_as_duckdb": round(whole["seconds"] / bare["seconds"], 2),
    }


if __name__ == "__main__":
    main()
