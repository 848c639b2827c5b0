"""Every route does what its page says: answers, errors, codes, limits, the open protocol."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.api import openapi
from flows.api.routes import ROUTES
from tests.flows.api.makers import Learned, Running, running
from tests.pace import until

RECORD = {"load": 0.3, "site": "a"}
VERSIONS = {"champion": "v000000200", "position": 600}


def ask(
    client: httpx.Client, path: str, body: Any = None, code: int = 200, **options: Any
) -> dict[str, Any]:
    """The document that a route answers: POST with a body, GET without."""
    method = "GET" if body is None else "POST"
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    answer = client.request(method, path, content=content, **options)
    assert code == answer.status_code, answer.text
    assert "application/json" == answer.headers["content-type"]
    document: dict[str, Any] = answer.json()
    return document


def versions(document: dict[str, Any]) -> dict[str, Any]:
    """The versions of a document, without the lineage, which is drawn by chance."""
    found = dict(document["versions"])
    assert found.pop("lineage")
    return found


def test_one_record_is_answered_with_prediction_probabilities_id_and_versions(
    client: httpx.Client, served: Running
) -> None:
    """What the caller needs to act, and to say later how it came out."""
    said = ask(client, "/predict", {"record": RECORD, "id": "one"})
    assert ("small", "one", VERSIONS) == (said["pipeline"], said["id"], versions(said))
    assert said["prediction"] == max(said["probabilities"], key=said["probabilities"].get)
    assert {"busy", "idle"} == set(said["probabilities"])
    kept = served.inbox().given["one"]
    assert RECORD == kept.features
    assert said["prediction"] == kept.answers["served"]["value"]
    assert said["versions"] == kept.versions
    assert kept.predicted_at > 1_600_000_000


def test_several_records_are_answered_in_order_with_ids_of_their_own(
    client: httpx.Client, served: Running
) -> None:
    """Ids that were not given are made, each once; the answers are those of single records."""
    records = [{"load": each / 10} for each in range(5)]
    rows = ask(client, "/predict/small", {"records": records})["predictions"]
    assert 5 == len({row["id"] for row in rows})
    assert {row["id"] for row in rows} <= set(served.inbox().given)
    alone = [ask(client, "/predict", {"record": each}) for each in records]
    assert [each["prediction"] for each in alone] == [row["prediction"] for row in rows]
    named = ask(client, "/predict", {"records": records[:2], "ids": ["a", "b"]})["predictions"]
    assert ["a", "b"] == [row["id"] for row in named]


def test_a_column_that_the_stream_leaves_out_is_named(client: httpx.Client) -> None:
    """A typing error in a key is seen; a record without one says nothing of it."""
    assert ["lode"] == ask(client, "/predict", {"record": {**RECORD, "lode": 1}})["left_out"]
    assert "left_out" not in ask(client, "/predict", {"record": RECORD})


def test_a_value_of_another_kind_names_record_and_field(
    client: httpx.Client, served: Running
) -> None:
    """What came, what was allowed, and that nothing of the request was predicted or kept."""
    records = [RECORD, {"load": "high", "site": 4}]
    said = ask(client, "/predict", {"records": records, "ids": ["good", "bad"]}, 422)
    assert said == {
        "error": "record 1, field 'load': a number was expected, 'high' came (and 1 more); "
        "nothing of this request was predicted",
        "faults": [
            {"record": 1, "field": "load", "reason": "a number was expected, 'high' came"},
            {"record": 1, "field": "site", "reason": "a text was expected, the number 4 came"},
        ],
    }
    assert {"good", "bad"}.isdisjoint(served.inbox().given)


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"{", 400, "the body must be one JSON document; it is broken"),
        (b"", 400, "the body must be one JSON document"),
        ([], 422, "Input should be an object"),
        ({}, 422, "either `record` (an object) or `records` (a list) was expected"),
        ({"record": RECORD, "records": []}, 422, "either `record`"),
        ({"records": []}, 422, "at least one record was expected, none came"),
        ({"record": 5}, 422, "record: Input should be an object; came: 5"),
        ({"record": RECORD, "is": "a"}, 422, "is: there is no such key"),
        ({"record": RECORD, "id": ""}, 422, "id: String should have at least 1 character"),
        ({"record": RECORD, "id": "x" * 201}, 422, "at most 200 characters"),
        ({"record": RECORD, "ids": ["a"]}, 422, "`id` was expected beside `record`"),
        ({"records": [RECORD], "id": "a"}, 422, "`ids` was expected beside `records`"),
        ({"records": [RECORD], "ids": ["a", "b"]}, 422, "as many ids as records were expected"),
        ({"records": [RECORD] * 2, "ids": ["a", "a"]}, 422, "'a' came twice"),
        ({"record": {"laod": 1}}, 422, "an object with columns of the schema was expected"),
    ],
)
def test_a_body_of_another_shape_is_told_what_was_expected(
    client: httpx.Client, body: Any, code: int, says: str
) -> None:
    """The message alone is enough to correct the request."""
    assert says in ask(client, "/predict", body, code)["error"]


@pytest.mark.parametrize(
    ("route", "body", "faults"),
    [
        ("/predict", {"records": [1] * 50_000}, 1),
        ("/predict", {"records": [RECORD], "ids": [1] * 50_000}, 1),
        ("/label", {"labels": [1] * 50_000}, 1),
        ("/v2/models/small/infer", {"inputs": [1] * 50_000}, 1),
        ("/predict", {str(index): 1 for index in range(5_000)}, 0),
    ],
)
def test_a_million_mistakes_are_not_a_million_errors(
    client: httpx.Client, route: str, body: Any, faults: int
) -> None:
    """To describe them all would keep everybody waiting: the first one of a list ends it."""
    said = ask(client, route, body, 422)
    assert faults == len(said.get("faults", []))
    assert "another shape" in said["error"]


def test_what_does_not_exist_is_told_with_what_there_is(client: httpx.Client) -> None:
    """Another pipeline, another path, another method."""
    assert "served are: small" in ask(client, "/predict/large", {"record": RECORD}, 404)["error"]
    assert "/openapi.json lists all" in ask(client, "/nothing", None, 404)["error"]
    answer = client.get("/predict")
    assert (405, "POST") == (answer.status_code, answer.headers["allow"])
    assert 405 == client.post("/healthz").status_code


def test_labels_are_answered_with_what_became_of_them(client: httpx.Client) -> None:
    """Joined once; the same again is a duplicate, another one conflicts, and some are unknown."""
    ask(client, "/predict", {"records": [RECORD] * 2, "ids": ["l1", "l2"]})
    labels = [{"id": "l1", "label": "busy"}, {"id": "l2", "label": "idle"}]
    said = ask(client, "/label", {"labels": labels})
    assert {"joined": 2} == said["counts"]
    first, second = (each["position"] for each in said["outcomes"])
    assert second == first + 1
    again = [*labels[:1], {"id": "l2", "label": "busy"}, {"id": "l3", "label": "busy"}]
    assert ask(client, "/label/small", {"labels": again})["outcomes"] == [
        {"id": "l1", "outcome": "duplicate", "position": first},
        {"id": "l2", "outcome": "conflicting", "position": second},
        {"id": "l3", "outcome": "unknown", "position": None},
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"labels": []}, "at least one"),
        ({"labels": [{"id": "a"}]}, "labels.0.label: this key is needed and is not there"),
        ({"labels": [{"id": "a", "label": None}]}, "label 0: a label was expected, None came"),
        ({"labels": [{"id": "a", "label": ["busy"]}]}, "label 0: a text was expected, a list came"),
    ],
)
def test_a_label_that_is_none_is_refused(client: httpx.Client, body: Any, says: str) -> None:
    """Nothing of the request is joined."""
    assert says in ask(client, "/label", body, 422)["error"]


def test_the_model_is_described(client: httpx.Client) -> None:
    """What it predicts, from which columns, by whom, and since when."""
    said = ask(client, "/model")
    assert said == ask(client, "/model/small") | {"age_s": said["age_s"]}
    assert ("small", "classification", "label") == tuple(
        said[key] for key in ("pipeline", "task", "target")
    )
    assert (VERSIONS, ["load", "site"], None) == (versions(said), said["columns"], said["trouble"])
    assert {"batch", "baseline", "linear"} <= set(said["members"])


def test_it_is_live_and_ready(client: httpx.Client) -> None:
    """For whoever starts and restarts it."""
    assert {"live": True} == ask(client, "/healthz")
    said = ask(client, "/readyz")
    assert said["ready"]
    assert (VERSIONS, None) == (
        versions(said["pipelines"]["small"]),
        said["pipelines"]["small"]["trouble"],
    )
    assert b"" == client.head("/healthz").content


def test_a_body_that_is_too_large_is_refused_before_it_is_read(learned: Learned) -> None:
    """Whether its length is announced or not, and so are too many records."""
    with running(learned, most_body_bytes=1_000, most_records=3) as served, served.client() as to:
        assert "at most 1000 bytes" in ask(to, "/predict", b" " * 1_001, 413)["error"]
        chunks = iter([b" " * 600, b" " * 600])
        assert 413 == to.post("/predict", content=chunks).status_code
        told = ask(to, "/predict", {"records": [RECORD] * 4}, 413)["error"]
        assert "at most 3 records at once were allowed, 4 came" in told
        labels = [{"id": "a", "label": "busy"}] * 4
        assert 413 == to.post("/label", json={"labels": labels}).status_code
        assert ask(to, "/predict", {"records": [RECORD] * 3})


def test_an_id_is_of_one_prediction(client: httpx.Client, served: Running) -> None:
    """It would not be known to which of the two a label belongs."""
    ask(client, "/predict", {"record": RECORD, "id": "once"})
    kept = served.inbox().given["once"]
    said = ask(client, "/predict", {"records": [{"load": 1}, RECORD], "ids": ["n", "once"]}, 409)
    assert "'once' was recorded before with other content" in said["error"]
    assert kept == served.inbox().given["once"]
    assert "n" not in served.inbox().given


def test_a_request_that_comes_again_gets_the_answer_of_before(
    learned: Learned, tmp_path: Path
) -> None:
    """The client lost the answer; meanwhile another bundle serves, and the label has come."""
    own = learned.copy(tmp_path / "own")
    body = {"records": [{**RECORD, "lode": 1}, {"load": 0.9}], "ids": ["a", "b"]}
    with running(own) as served, served.client() as to:
        first = ask(to, "/predict", body)
        kept = dict(served.inbox().given)
        own.learn(100)
        served.service.look()
        ask(to, "/label", {"labels": [{"id": "a", "label": "busy"}]})
        assert 700 == ask(to, "/predict", {"record": RECORD})["versions"]["position"]
        assert first == ask(to, "/predict", body)
        assert ["lode"] == first["predictions"][0]["left_out"]
        assert {key: served.inbox().given[key] for key in "ab"} == kept
        name = "thermodrift_repeated_requests_total"
        counted = served.service.metrics.registry.get_sample_value(name, {"pipeline": "small"})
        assert 1.0 == counted


@pytest.mark.parametrize(
    "body",
    [
        {"record": {**RECORD, "load": 0.31}, "id": "a"},
        {"record": {"load": RECORD["load"]}, "id": "a"},
        {"record": {**RECORD, "load": "0.3"}, "id": "a"},
        {"records": [RECORD, RECORD], "ids": ["a", "never seen"]},
        {"records": [RECORD, RECORD], "ids": ["a", "of another bundle"]},
    ],
    ids=["value", "column", "type", "some ids", "two versions"],
)
def test_what_is_not_the_same_request_is_a_conflict(
    learned: Learned, tmp_path: Path, body: dict[str, Any]
) -> None:
    """Nothing of it is answered or recorded: it must not be half of then and half of now."""
    own = learned.copy(tmp_path / "own")
    with running(own) as served, served.client() as to:
        ask(to, "/predict", {"record": RECORD, "id": "a"})
        own.learn(100)
        served.service.look()
        ask(to, "/predict", {"record": RECORD, "id": "of another bundle"})
        before = dict(served.inbox().given)
        assert "was recorded before" in ask(to, "/predict", body, 409)["error"]
        assert before == served.inbox().given


def test_ids_that_the_service_makes_are_not_looked_up(
    client: httpx.Client, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot have come before."""

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(served.inbox(), "find", never)
    assert ask(client, "/predict", {"records": [RECORD, RECORD]})


def test_an_id_that_no_text_can_be_is_refused(client: httpx.Client) -> None:
    """Half a surrogate pair: JSON can escape it, and nothing can store it."""
    body = b'{"record": {"load": 0.3}, "id": "\\ud800"}'
    assert ask(client, "/predict", body, 400)


def test_a_full_disk_is_told_and_may_be_repeated(
    client: httpx.Client, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: nothing is wrong with the request, and nothing of it was kept."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/secret/inbox.sqlite")

    monkeypatch.setattr(served.inbox(), "record", full)
    monkeypatch.setattr(served.inbox(), "label", full)
    said = ask(client, "/predict", {"record": RECORD, "id": "full"}, 503)
    assert "nothing of this request was kept" in said["error"]
    labels = {"labels": [{"id": "full", "label": "busy"}]}
    said = ask(client, "/label", labels, 503)
    assert "No space left" in said["error"]
    assert "/srv/secret" not in said["error"]
    assert 1 == sum("/srv/secret/inbox.sqlite" in each for each in served.said), "once in the log"
    monkeypatch.undo()
    ask(client, "/predict", {"record": RECORD, "id": "full"})
    assert {"joined": 1} == ask(client, "/label", labels)["counts"]


def test_what_json_does_not_have_is_kept_as_null(client: httpx.Client, served: Running) -> None:
    """NaN is a missing value, as in a stream; an integer stays one."""
    body = b'{"records": [{"load": NaN, "site": "a"}, {"load": 1}], "ids": ["nan", "whole"]}'
    ask(client, "/predict", body)
    assert {"load": None, "site": "a"} == served.inbox().given["nan"].features
    kept = served.inbox().given["whole"].features
    assert ({"load": 1}, int) == (kept, type(kept["load"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.dictionaries(st.sampled_from(["load", "site", "label", "x"]), JSON, max_size=4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        JSON,
        st.fixed_dictionaries({"record": ROWS}),
        st.fixed_dictionaries({"records": st.lists(ROWS, max_size=3)}),
        st.fixed_dictionaries({"labels": st.lists(st.fixed_dictionaries({"id": JSON}))}),
    ),
    path=st.sampled_from(["/predict", "/label", "/v2/models/small/infer"]),
)
def test_no_document_breaks_the_service(client: httpx.Client, body: Any, path: str) -> None:
    """Whatever JSON comes, it is answered or refused; it is never our failure."""
    assert client.post(path, content=json.dumps(body)).status_code in (200, 400, 422)


def test_a_client_that_goes_away_is_no_failure_of_ours(served: Running) -> None:
    """It had not sent all that it announced; the log stays clean."""
    labels = {"route": "/predict", "code": "400"}

    def count() -> float:
        found = served.service.metrics.registry.get_sample_value(
            "thermodrift_requests_total", labels
        )
        return found or 0.0

    before, said = count(), len(served.said)
    where = httpx.URL(served.url)
    with socket.create_connection((where.host, where.port)) as going:
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        going.sendall(head.encode())
    until(lambda: count() > before, "the end of that request")
    assert said == len(served.said)


def test_an_error_of_ours_shows_no_traceback(
    client: httpx.Client, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears that it is our fault; the log has the place."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(served.inbox(), "record", broken)
    said = ask(client, "/predict", {"record": RECORD}, 500)
    assert {"error": "the service failed on this request; its log says where and why"} == said
    assert "RuntimeError: secret" in served.said[-1]
    monkeypatch.undo()
    assert ask(client, "/predict", {"record": RECORD})


def test_the_protocols_server_is_described(client: httpx.Client) -> None:
    """Server metadata, live and ready, as the Open Inference Protocol wants them."""
    said = ask(client, "/v2")
    assert ("thermodrift", []) == (said["name"], said["extensions"])
    assert said["version"]
    assert {"live": True} == ask(client, "/v2/health/live")
    assert {"ready": True} == ask(client, "/v2/health/ready")
    assert {"name": "small", "ready": True} == ask(client, "/v2/models/small/ready")


def test_the_protocols_model_has_tensors(client: httpx.Client) -> None:
    """A tensor for each column of the stream, and the versions that serve."""
    said = ask(client, "/v2/models/small")
    assert (["v000000200", "600"], "thermodrift") == (said["versions"], said["platform"])
    assert said["inputs"] == [
        {"name": "load", "datatype": "FP64", "shape": [-1]},
        {"name": "site", "datatype": "BYTES", "shape": [-1]},
    ]
    assert {"prediction": "BYTES", "id": "BYTES", "probabilities": "FP64", "classes": "BYTES"} == {
        each["name"]: each["datatype"] for each in said["outputs"]
    }


def tensors(**changes: Any) -> dict[str, Any]:
    """A request of two records in the protocol's form."""
    inputs = [
        {"name": "load", "shape": [2], "datatype": "FP64", "data": [0.3, None]},
        {"name": "site", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b"]]},
    ]
    return {"id": "q", "inputs": inputs, **changes}


def test_tensors_are_answered_as_records(client: httpx.Client, served: Running) -> None:
    """The same predictions in the protocol's form, and kept with ids for their labels."""
    said = ask(client, "/v2/models/small/infer", tensors())
    assert ("small", "v000000200", "q") == (said["model_name"], said["model_version"], said["id"])
    outputs = {each["name"]: each for each in said["outputs"]}
    records = [{"load": 0.3, "site": "a"}, {"load": None, "site": "b"}]
    rows = ask(client, "/predict", {"records": records})["predictions"]
    assert [row["prediction"] for row in rows] == outputs["prediction"]["data"]
    classes = outputs["classes"]["data"]
    assert ([2, 2], [2]) == (outputs["probabilities"]["shape"], outputs["prediction"]["shape"])
    assert outputs["probabilities"]["data"] == [
        row["probabilities"][name] for row in rows for name in classes
    ]
    assert 2 == len(set(outputs["id"]["data"]))
    assert set(outputs["id"]["data"]) <= set(served.inbox().given)
    again = ask(client, "/v2/models/small/infer", tensors(id=None, outputs=[{"name": "id"}]))
    assert ["id"] == [each["name"] for each in again["outputs"]]
    assert "id" not in again


@pytest.mark.parametrize("version", ["v000000200", "600"])
def test_a_version_that_serves_answers_by_name(client: httpx.Client, version: str) -> None:
    """Both the champion's and the position's name, on all three routes."""
    path = f"/v2/models/small/versions/{version}"
    assert "small" == ask(client, path)["name"]
    assert ask(client, f"{path}/ready")["ready"]
    assert version == ask(client, f"{path}/infer", tensors())["model_version"]


@pytest.mark.parametrize(("ending", "body"), [("", None), ("/ready", None), ("/infer", tensors())])
def test_a_version_that_does_not_serve_is_not_there(
    client: httpx.Client, ending: str, body: Any
) -> None:
    """Never another one in its place; the message says what serves."""
    said = ask(client, f"/v2/models/small/versions/v9{ending}", body, 404)
    assert ["v000000200", "600"] == said["versions"]
    assert "what serves now is v000000200 or 600" in said["error"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"outputs": [{"name": "x"}]}, "output 'x' was wanted; there are prediction"),
        ({"shape": [2, 2]}, "input 'load': a shape of [n] or [n, 1] was expected, [2, 2] came"),
        ({"shape": [3]}, "input 'load': 3 values were expected"),
        ({"datatype": "TEXT"}, "a datatype of BOOL, BYTES"),
        ({"name": "site"}, "each input once was expected"),
        ({"data": ["x", 1.0]}, "record 0, field 'load': a number was expected, 'x' came"),
    ],
)
def test_tensors_of_another_shape_are_refused(
    client: httpx.Client, served: Running, change: dict[str, Any], says: str
) -> None:
    """The message names the tensor, and nothing is kept."""
    body = tensors()
    inner = {key: value for key, value in change.items() if key not in ("inputs", "outputs")}
    body["inputs"][0].update(inner)
    body |= {key: value for key, value in change.items() if key not in inner}
    kept = dict(served.inbox().given)
    assert says in ask(client, "/v2/models/small/infer", body, 422)["error"]
    assert kept == served.inbox().given


def test_the_figures_have_their_names(client: httpx.Client, served: Running) -> None:
    """What a dashboard was built on stays."""
    ask(client, "/predict", {"record": RECORD, "id": "metrics"})
    ask(client, "/label", {"labels": [{"id": "metrics", "label": "busy"}]})
    answer = client.get("/metrics")
    assert "text/plain" in answer.headers["content-type"]
    for line in (
        'thermodrift_requests_total{code="200",route="/predict"}',
        'thermodrift_request_seconds_bucket{le="0.005",route="/predict"}',
        'thermodrift_gathered_records_count{pipeline="small"}',
        'thermodrift_gathered_requests_sum{pipeline="small"}',
        'thermodrift_bundle_swaps_total{pipeline="small"} 1.0',
        'thermodrift_bundle_ready{pipeline="small"} 1.0',
        'thermodrift_bundle_position{pipeline="small"} 600.0',
        'thermodrift_bundle_age_seconds{pipeline="small"}',
        'thermodrift_waiting_records{pipeline="small"} 0.0',
        'thermodrift_labels_total{outcome="joined",pipeline="small"}',
        "# TYPE thermodrift_bundle_swap_failures_total counter",
    ):
        assert line in answer.text, line


def test_the_document_of_the_routes_has_each_route(client: httpx.Client) -> None:
    """With its method, an example of what is asked, and one of what is answered."""
    said = ask(client, "/openapi.json")
    assert {path: method.lower() for path, (method, _, _) in ROUTES.items()} == {
        path: next(iter(methods)) for path, methods in said["paths"].items()
    }
    predict = said["paths"]["/predict/{pipeline}"]["post"]
    assert ["small"] == predict["parameters"][0]["schema"]["enum"]
    for path, (method, _, example) in openapi.PATHS.items():
        told = said["paths"][path][method]
        (content,) = told["responses"]["200"]["content"].values()
        assert content == ({} if example is None else {"example": example})
        if method == "post":
            assert told["requestBody"]["content"]["application/json"]["example"]


def test_the_examples_of_the_document_are_requests(client: httpx.Client) -> None:
    """What is copied from it is answered by the service, not by a shape error."""
    said = ask(client, "/openapi.json")
    for path in ("/predict", "/label", "/v2/models/{pipeline}/infer"):
        body = said["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        answer = client.post(path.format(pipeline="small"), json=body)
        assert answer.status_code in (200, 422), answer.text
        assert "shape" not in answer.text.partition("outputs")[0]


def test_where_several_are_served_a_request_names_one(
    learned: Learned, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The short routes would be a guess; those with a name answer."""
    folder = tmp_path_factory.mktemp("two")
    other = learned.copy(folder)
    text = other.file.read_text().replace('name = "small"', 'name = "large"')
    second = Learned(other.file.with_name("large.toml"), other.home)
    second.file.write_text(text)
    with running(other, second) as served, served.client() as to:
        told = ask(to, "/predict", {"record": RECORD}, 404)["error"]
        assert "several pipelines are served; name one of them: small, large" in told
        assert ask(to, "/predict/small", {"record": RECORD})
        assert "has no checkpoint" in ask(to, "/predict/large", {"record": RECORD}, 503)["error"]
        assert not ask(to, "/readyz", None, 503)["ready"]
        assert {"ready": False} == ask(to, "/v2/health/ready", None, 503)
