"""Who may ask: a token, the names of the service, web pages, and addresses that others reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.api import safety
from flows.api.errors import Forbidden, Misdirected, Unauthorized
from flows.api.safety import Guard, RateLimiter
from observability.core.errors import BadConfiguration
from observability.core.serve_config import ServeConfig
from tests.flows.api.makers import TOKEN, Learned, running

PREDICT = {"record": {"load": 0.3}}
LABEL = {"labels": [{"id": "a", "label": "busy"}]}
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def client(learned: Learned) -> Iterator[httpx.Client]:
    """A client of a service with a token."""
    with running(learned, token=TOKEN) as served, served.client() as found:
        yield found


def test_labels_need_the_token_and_predictions_do_not(client: httpx.Client) -> None:
    """What could teach a model wrongly is what is protected unless more is asked for."""
    assert 200 == client.post("/predict", json=PREDICT).status_code
    refused = client.post("/label", json=LABEL)
    assert (401, "Bearer") == (refused.status_code, refused.headers["www-authenticate"])
    assert "Authorization: Bearer TOKEN" in refused.json()["error"]
    assert 200 == client.post("/label", json=LABEL, headers=BEARER).status_code


@pytest.mark.parametrize(
    "given", ["", "Bearer", f"Bearer {TOKEN}x", f"bearer {TOKEN}", TOKEN, f"Basic {TOKEN}", "é"]
)
def test_another_token_is_none(client: httpx.Client, given: str) -> None:
    """Not one character more or less, in whatever form."""
    headers = {b"authorization": given.encode()}
    assert 401 == client.post("/label", json=LABEL, headers=headers).status_code


def test_what_is_protected_is_configured(learned: Learned) -> None:
    """Predictions in both forms, the model and the figures; health never, for what restarts it."""
    everything = ("predict", "model", "metrics")
    with running(learned, token=TOKEN, protected=everything) as served, served.client() as to:
        tensors: dict[str, Any] = {"inputs": []}
        for path, body in (
            ("/label", LABEL),
            ("/predict", PREDICT),
            ("/predict/small", PREDICT),
            ("/v2/models/small/infer", tensors),
            ("/v2/models/small/versions/600/infer", tensors),
        ):
            assert 401 == to.post(path, json=body).status_code
        for path in ("/model", "/v2/models/small", "/metrics"):
            assert 401 == to.get(path).status_code
            assert 200 == to.get(path, headers=BEARER).status_code
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/models/small/ready"):
            assert 200 == to.get(path).status_code


def test_a_page_of_another_name_cannot_reach_it(client: httpx.Client) -> None:
    """Its name resolves to 127.0.0.1, and the browser sends that name."""
    refused = client.get("/model", headers={"host": "evil.example.org"})
    assert 421 == refused.status_code
    assert "serve.hosts" in refused.json()["error"]
    assert 421 == client.get("/healthz", headers={"host": ""}).status_code


def test_a_page_of_another_origin_cannot_ask(client: httpx.Client) -> None:
    """Its own pages may."""
    own = {"origin": str(client.base_url).rstrip("/")}
    assert 200 == client.post("/predict", json=PREDICT, headers=own).status_code
    for origin in ("https://evil.example.org", "null", "http://127.0.0.1:1"):
        refused = client.post("/predict", json=PREDICT, headers={"origin": origin})
        assert 403 == refused.status_code


def check(named: str, config: ServeConfig, origin: str | None = None) -> None:
    """Check the head of a request that calls the service so; it needs no token."""
    headers = {"host": named} | ({} if origin is None else {"origin": origin})
    Guard(config, None).check(headers, None)


@pytest.mark.parametrize(
    ("bound", "host"),
    [
        ("127.0.0.1", "localhost:8020"),
        ("127.0.0.1", "LOCALHOST"),
        ("::1", "[::1]:8020"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2:8020"),
        ("0.0.0.0", "192.0.2.7:8020"),
        ("::", "[2001:db8::1]:8020"),
        ("0.0.0.0", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("models.example.org", "Models.example.org:8020"),
    ],
)
def test_the_names_of_what_it_is_bound_to_are_its_own(bound: str, host: str) -> None:
    """With or without the port, in capitals or not."""
    check(host, ServeConfig(host=bound))


@pytest.mark.parametrize(
    ("bound", "host"),
    [
        ("127.0.0.1", "192.0.2.7"),
        ("127.0.0.1", "localhost.example.org"),
        ("127.0.0.1", "127.0.0.1.example.org"),
        ("0.0.0.0", "evil.example.org"),
        ("192.0.2.7", "192.0.2.8"),
        ("192.0.2.7", "localhost"),
        ("127.0.0.1", ""),
        ("127.0.0.1", "[::2]"),
    ],
)
def test_other_names_are_not(bound: str, host: str) -> None:
    """Unless the home's file says so."""
    with pytest.raises(Misdirected, match="is not called"):
        check(host, ServeConfig(host=bound))


def test_names_and_origins_can_be_configured() -> None:
    """A name with a port is for that port alone."""
    config = ServeConfig(
        hosts=("Predict.example.org", "other.example.org:443"), origins=("https://app.example.org",)
    )
    check("predict.example.org:8020", config)
    check("other.example.org:443", config)
    with pytest.raises(Misdirected):
        check("other.example.org:8020", config)
    check("localhost", config, "https://app.example.org")
    with pytest.raises(Forbidden, match=r"serve\.origins"):
        check("localhost", config, "http://app.example.org")


def test_without_a_token_nothing_needs_one() -> None:
    """On this machine alone, as it is at first."""
    Guard(ServeConfig(), None).check({"host": "localhost"}, "label")
    with pytest.raises(Unauthorized):
        Guard(ServeConfig(), TOKEN).check({"host": "localhost"}, "label")


def test_the_token_is_the_environments_or_the_files(tmp_path: Path) -> None:
    """The file is relative to the home; only its first line counts."""
    (tmp_path / "token").write_text("secret \nmore\n")
    config = ServeConfig(token_file="token")
    assert "secret" == safety.read_token(config, None, tmp_path)
    assert "other" == safety.read_token(config, "other", tmp_path)
    assert safety.read_token(ServeConfig(), None, tmp_path) is None


def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path) -> None:
    """Nobody could send it."""
    for token in ("t\u00f6k\u00e9n", "two\tparts"):
        with pytest.raises(BadConfiguration, match="choose another one"):
            safety.read_token(ServeConfig(), token, tmp_path)


@pytest.mark.parametrize("content", [None, "", "\nsecond"])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: str | None) -> None:
    """An empty token would be everybody's."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(BadConfiguration, match=r"serve\.token_file"):
        safety.read_token(ServeConfig(token_file="token"), None, tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "models.example.org"])
def test_an_address_that_others_reach_needs_a_token(tmp_path: Path, host: str) -> None:
    """The message says both ways out."""
    with pytest.raises(BadConfiguration, match=r"THERMODRIFT_TOKEN or serve\.token_file"):
        safety.read_token(ServeConfig(host=host), None, tmp_path)
    assert TOKEN == safety.read_token(ServeConfig(host=host), TOKEN, tmp_path)
    for own in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"):
        assert safety.read_token(ServeConfig(host=own), None, tmp_path) is None


class Clock:
    """A clock that only a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_client_may_ask_a_burst_at_once_and_then_at_its_rate() -> None:
    """What is refused takes nothing; another client is not touched."""
    clock = Clock()
    limiter = RateLimiter(rate=2.0, burst=3, clock=clock)
    assert [0.0, 0.0, 0.0, 0.5, 0.5] == [limiter.take("a") for _ in range(5)]
    assert 0.0 == limiter.take("b")
    clock.now_s += 0.5
    assert [0.0, 0.5] == [limiter.take("a") for _ in range(2)]
    clock.now_s += 1_000.0
    assert [0.0, 0.0, 0.0, 0.5] == [limiter.take("a") for _ in range(4)]


@given(
    rate=st.floats(0.1, 1_000.0),
    burst=st.integers(1, 20),
    steps=st.lists(st.floats(0.0, 3.0), max_size=60),
)
def test_nobody_is_answered_more_than_the_burst_and_the_rate(
    rate: float, burst: int, steps: list[float]
) -> None:
    """In whatever rhythm a client asks; and who waits as long as it is told is answered."""
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock=clock)
    answered = 0
    for step in steps:
        clock.now_s += step
        answered += limiter.take("a") == 0.0
        assert answered <= burst + rate * (clock.now_s - 100.0) + 1e-6
    wait_s = limiter.take("a")
    if wait_s:
        clock.now_s += wait_s + 1e-6
        assert 0.0 == limiter.take("a")


def test_the_least_recent_client_is_forgotten_beyond_the_bound() -> None:
    """A flood of addresses costs no memory, and forgets nobody who has just asked."""
    limiter = RateLimiter(rate=1.0, burst=1, most=2, clock=Clock())
    assert [0.0, 0.0] == [limiter.take(each) for each in "ab"]
    assert limiter.take("a") > 0
    assert 0.0 == limiter.take("c")
    assert limiter.take("a") > 0
    assert 0.0 == limiter.take("b"), "it was forgotten"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.9, 10.0.0.2"], "198.51.100.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.9:5678"], "198.51.100.9"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::/64"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::/64"),
        ("10.0.0.1", ["198.51.100.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("2001:db8::1", [], "2001:db8::/64"),
        ("2001:db8::ffff:1", [], "2001:db8::/64"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        (None, ["198.51.100.9"], ""),
    ],
)
def test_only_a_proxy_that_is_named_says_who_the_client_is(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    """Whatever a client writes before that, it stays one client."""
    assert client == safety.client_of(peer, forwarded, ["10.0.0.0/8"])


def test_a_proxy_that_is_no_address_is_refused() -> None:
    """With the key and what came."""
    with pytest.raises(ValueError, match="proxies"):
        ServeConfig(proxies=("proxy.example.org",))


def test_who_asks_too_often_is_told_when_to_come_again(learned: Learned) -> None:
    """429 before the token is looked at; health and figures are answered all the same."""
    with running(learned, token=TOKEN, rate=0.001, burst=2) as served, served.client() as to:
        codes = [to.post("/label", json=LABEL).status_code for _ in range(3)]
        assert [401, 401, 429] == codes
        refused = to.post("/predict", json=PREDICT)
        assert 429 == refused.status_code
        assert 900 < int(refused.headers["retry-after"]) <= 1_000
        assert "serve.rate" in refused.json()["error"]
        assert 429 == to.get("/no-such-route").status_code
        for path in ("/healthz", "/readyz", "/metrics", "/v2/health/ready"):
            assert 200 == to.get(path).status_code
        other = {"x-forwarded-for": "198.51.100.9"}
        assert 429 == to.post("/predict", json=PREDICT, headers=other).status_code


def test_behind_a_proxy_that_is_named_each_client_is_its_own(learned: Learned) -> None:
    """By the address that the proxy saw."""
    with (
        running(learned, rate=0.001, burst=1, proxies=["127.0.0.0/8"]) as served,
        served.client() as to,
    ):
        codes = [
            to.post("/predict", json=PREDICT, headers={"x-forwarded-for": who}).status_code
            for who in ("198.51.100.1", "198.51.100.1", "198.51.100.2", "9.9.9.9, 198.51.100.2")
        ]
    assert [200, 429, 200, 429] == codes
