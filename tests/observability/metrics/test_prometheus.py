"""Samples as Prometheus reads them: as text, as a textfile, and at a Pushgateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from observability.metrics import definitions, prometheus, samples

HOSTILE = 'a"\\\n}'
SAMPLES = [
    *samples.sample(definitions.RECORDS, 7, "small"),
    *samples.sample(definitions.MARGIN, -2.5, HOSTILE),
    *samples.summary(definitions.SCORE, 80.0, 100, "small", "served", "accuracy"),
]


def parsed(text: str) -> dict[str, tuple[dict[str, str], float]]:
    """Each value by its name, with its labels."""
    families = text_string_to_metric_families(text)
    return {each.name: (each.labels, each.value) for family in families for each in family.samples}


EXPECTED = {
    "thermodrift_records_total": ({"pipeline": "small"}, 7.0),
    "thermodrift_device_margin_celsius": ({"UUID": HOSTILE}, -2.5),
    "thermodrift_score_count": (
        {"pipeline": "small", "member": "served", "metric": "accuracy"},
        100.0,
    ),
    "thermodrift_score_sum": (
        {"pipeline": "small", "member": "served", "metric": "accuracy"},
        80.0,
    ),
}


class Gateway(BaseHTTPRequestHandler):
    """A Pushgateway that remembers what came."""

    came: list[tuple[str, str, str]]
    code = 202

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.came.append((self.command, self.path, body))
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def gateway(code: int = 202) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The address of a Pushgateway, and what came to it."""
    came: list[tuple[str, str, str]] = []
    handler = type("Here", (Gateway,), {"came": came, "code": code})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


def test_a_textfile_is_replaced_as_a_whole_and_is_read_by_prometheus(tmp_path: Path) -> None:
    """Values, labels with quotes and line ends, sums and counts come back; no other file stays."""
    path = tmp_path / "thermodrift.prom"
    path.write_text("old", encoding="utf-8")
    prometheus.write_textfile(path, SAMPLES)
    assert EXPECTED == parsed(path.read_text(encoding="utf-8"))
    assert [path] == list(tmp_path.iterdir())


def test_a_push_replaces_what_the_gateway_has_of_this_instance() -> None:
    """PUT replaces a whole group: a version that serves no more must not stay there."""
    with gateway() as (url, came):
        prometheus.push(url, "host-a", SAMPLES)
    ((method, path, body),) = came
    assert ("PUT", "/metrics/job/thermodrift/instance/host-a") == (method, path)
    assert EXPECTED == parsed(body)


@pytest.mark.parametrize("code", [400, 500])
def test_a_push_that_is_refused_says_by_whom(code: int) -> None:
    """With the address, and what to do."""
    with (
        gateway(code) as (url, _),
        pytest.raises(prometheus.PushFailed, match=rf"{url}.*{code}.*metrics.push"),
    ):
        prometheus.push(url, "host-a", SAMPLES)


def test_a_push_to_nobody_says_so() -> None:
    """A gateway that is down."""
    with gateway() as (url, _):
        pass
    with pytest.raises(prometheus.PushFailed, match="did not take the figures"):
        prometheus.push(url, "host-a", SAMPLES)
