"""The page of a pipeline with a long past: seconds until it can be used, and bytes.

    python -m benchmarks.page [--records 1000000] [--days 365] [--devices 1] [--rounds 10]

A home gets the log and the history of so many records, spread over so many days, with a reading a
minute of each device, and the head of a checkpoint of a real run. Its service is asked for the
page: first with nothing kept, then again, then after a commit. `open_s` is how long the history was
open meanwhile. Where a Chromium is installed, it opens the page: `usable_s` is from the request
until it is drawn and answers, on this machine; `explore_s` from the click until plotly has drawn.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from benchmarks import history_home
from benchmarks.history_home import NAME
from flows.api import server
from flows.api.safety import Guard
from flows.api.service import Service
from flows.config import pipeline
from flows.page import report, routes
from models.serving.fake_inbox import FakeInbox
from observability.core.paths import Places
from observability.core.serve_config import ServeConfig
from observability.history.records import DecisionRecord
from observability.history.store import History

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "examples" / "elec2.toml"
PAGE = f"/pages/{NAME}"
TIMES = {
    "score_rows": "at",
    "decision_rows": "decided_at",
    "request_rows": "at",
    "model_rows": "at",
}
TIMES |= {"cost_rows": "at", "run_rows": "at", "expectation_rows": "at"}
WAIT_MS = 120_000


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        fill(home, asked.records, asked.days, asked.devices)
        print(json.dumps({"benchmark": "page", **vars(asked), **measure(home, asked.rounds)}))  # noqa: T201


def fill(home: Path, records: int, days: int, devices: int) -> None:
    """A home with so long a past, until now."""
    history_home.fill(home, records, seed=0)
    began = home.parent / "began"
    words = ["--home", str(began), "run", str(FILE), "--limit", "2000", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "thermodrift", *words], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    shutil.copyfile(began / "key", home / "key")
    (home / "key").chmod(0o600)
    shutil.copyfile(Places(began).pipeline(NAME).checkpoint, Places(home).pipeline(NAME).checkpoint)
    history, until = History(home), datetime.now(UTC)
    since = until - timedelta(days=days)
    span_s = days * 86_400
    with history.exclusive(), history._backend.writing() as (duck, _), duck.transaction():
        for table, column in TIMES.items():
            duck.execute(
                f'UPDATE {table} SET "{column}" = ?::TIMESTAMPTZ + to_seconds(date_diff('
                f"'microsecond', ?::TIMESTAMPTZ, \"{column}\") / 1e6 * ?)",
                [since, history_home._DAWN, span_s / (records / 1000)],
            )
        # The metric that the pipeline of the checkpoint is judged by.
        duck.execute(
            "INSERT INTO score_rows SELECT * REPLACE ('brier' AS metric, (1 - \"value\") / 2 AS "
            "\"value\") FROM score_rows WHERE metric = 'accuracy'"
        )
        duck.execute("DELETE FROM gpu_reading_rows")
        duck.execute(
            'INSERT INTO gpu_reading_rows ("at", pipeline, run_id, source, uuid, elapsed_s, '
            "temperature_c, margin_c, power_w) "
            "SELECT ?::TIMESTAMPTZ + to_minutes(m), ?, 'run-0', 'nvml', 'GPU-' || d, m * 60.0, "
            "60 + 15 * sin(m / 200.0), 25 + 15 * cos(m / 200.0) + random(), 300 "
            "FROM range(?) AS minutes(m), range(?) AS devices(d)",
            [since, NAME, days * 1440, devices],
        )


def measure(home: Path, rounds: int) -> dict[str, Any]:
    """What the page takes, in seconds and bytes."""
    with served(home) as url, httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        first_s, text = _timed(client, PAGE)
        again_s = statistics.median(_timed(client, PAGE)[0] for _ in range(rounds))
        story = client.get(f"{PAGE}/story.json").json()
        hour_s, _ = _timed(client, f"{PAGE}?range=hour")
        renewed_s = statistics.median(_renewed(home, client) for _ in range(3))
        found = _in_browser(url)
    now = datetime.now(UTC)
    began_s = time.perf_counter()
    reported = report.html(report.collect(Places(home), [NAME], now), now)
    values = sum(each["values"] for each in (*story["scores"], *story["margins"]))
    points = sum(len(each["at"]) for each in (*story["scores"], *story["margins"]))
    return {
        "history_mb": round(Places(home).history.stat().st_size / 1e6, 1),
        "values": values,
        "points": points,
        "first_s": round(first_s, 3),
        "again_s": round(again_s, 4),
        "hour_s": round(hour_s, 3),
        "renewed_s": round(renewed_s, 3),
        "open_s": round(story["took_s"], 3),
        "html_kb": round(len(text) / 1000, 1),
        "sent_kb": round(len(gzip.compress(text, 3)) / 1000, 1),
        "report_s": round(time.perf_counter() - began_s, 3),
        "report_kb": round(len(reported.encode()) / 1000, 1),
        **found,
    }


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The address of the service of the home, with its pages."""
    config = ServeConfig(port=0)
    said: list[str] = []
    service = Service(
        [pipeline.read(FILE)], Places(home), config, lambda _: FakeInbox(), said.append
    )
    guard, ready = Guard(config, None), threading.Event()
    with server.bound(config) as listening, routes.opened(Places(home), service, guard) as more:
        running = server.server(service, guard, ready.set, more)
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        ready.wait()
        try:
            yield server.address(listening)
        finally:
            running.should_exit = True
            thread.join()
            service.close()


def _timed(client: httpx.Client, path: str) -> tuple[float, bytes]:
    """Seconds until the answer is here, and its content."""
    began_s = time.perf_counter()
    answer = client.get(path).raise_for_status()
    return time.perf_counter() - began_s, answer.content


def _renewed(home: Path, client: httpx.Client) -> float:
    """Seconds until a page is here that knows of a new decision, once one is due to be read."""
    at = datetime.now(UTC)
    row = DecisionRecord(
        decided_at=at,
        pipeline=NAME,
        run_id="r",
        position=0,
        question="override",
        yes=True,
        because=f"at {at.isoformat()}",
        facts={},
    )
    History(home).commit([row], f"override.{at.timestamp():.6f}")
    while True:
        took_s, text = _timed(client, PAGE)
        if row.because.encode() in text.replace(b"&#43;", b"+"):
            return took_s
        time.sleep(0.2)


def _in_browser(url: str) -> dict[str, Any]:
    """What a Chromium takes; nothing where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return {"usable_s": None, "explore_s": None}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(WAIT_MS)
        usable = []
        for _ in range(3):
            began_s = time.perf_counter()
            page.goto(f"{url}{PAGE}", wait_until="domcontentloaded")
            page.wait_for_selector("button[data-explore]:not([hidden])")
            page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
            usable.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        page.get_by_role("button", name="Zoom and compare").click()
        page.wait_for_selector("#explore .main-svg")
        explore_s = time.perf_counter() - began_s
        browser.close()
    return {"usable_s": round(statistics.median(usable), 3), "explore_s": round(explore_s, 3)}


if __name__ == "__main__":
    main()
