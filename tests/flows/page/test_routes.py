"""The routes of the pages over HTTP: figures, safety, and what a person may decide."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.page import routes
from models.persistence.signing import SigningKey
from models.registry.registry import Registry
from observability.core.paths import Places
from observability.history.store import History
from observability.story.past import key_of
from power.policy import override_file
from tests.flows.api.makers import TOKEN, Learned, held, running
from tests.flows.makers import NAME, make_pipeline
from tests.flows.page.makers import HOSTILE, add_hostile

PAGE = f"/pages/{NAME}"
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def pages(told_once: Learned) -> Iterator[httpx.Client]:
    """A client of the pages of a pipeline, with a token, for all tests that change nothing."""
    with running(told_once, token=TOKEN, more=routes.opened) as served, served.client() as found:
        yield found


def registry(told: Learned) -> Registry:
    """The models of the pipeline."""
    return Registry(told.places.pipeline(NAME), SigningKey.open(told.places.key))


def act(client: httpx.Client, action: str, **form: Any) -> httpx.Response:
    """Send a form of the page."""
    return client.post(f"{PAGE}/{action}", data=form, headers=HTML)


def test_the_page_has_ten_answers_with_the_values_of_the_document(pages: httpx.Client) -> None:
    """Page and JSON are one story: each question, its answer and its sentence are on both."""
    text = html.unescape(pages.get(PAGE).text)
    document = pages.get(f"{PAGE}/story.json").json()
    assert 10 == len(document["answers"])
    for answer in document["answers"]:
        assert answer["question"] in text
        # How long it is is told anew with each answer.
        assert f"</span>{answer['short'].partition(', for ')[0]}" in text
    assert "brier" in document["answers"][0]["sentence"]
    assert document["sql"]["now"].strip() in text


def test_the_figures_are_those_of_the_history(pages: httpx.Client, told_once: Learned) -> None:
    """As many alarms, retrains and points as it has rows."""
    document = pages.get(f"{PAGE}/story.json").json()
    history = History(told_once.home)
    alarms = "SELECT count(*) AS n FROM decisions WHERE question = 'drift' AND yes"
    assert history.ask(alarms).to_pylist()[0]["n"] == sum(
        each["times"] for each in document["marks"] if each["question"] == "drift"
    )
    scores = "SELECT count(*) AS n FROM scores WHERE member = 'served' AND metric = 'brier'"
    (served,) = (each for each in document["scores"] if each["name"] == "served")
    assert history.ask(scores).to_pylist()[0]["n"] == served["values"]


def test_each_sql_on_the_page_can_be_asked_again(pages: httpx.Client, told_once: Learned) -> None:
    """It is the very text that was asked, and answers the same rows."""
    document = pages.get(f"{PAGE}/story.json").json()
    with History(told_once.home).asking() as ask:
        for name, rows in document["rows"].items():
            assert len(rows) == ask(document["sql"][name]).num_rows, name


def test_the_first_page_is_that_of_the_only_pipeline(pages: httpx.Client) -> None:
    """With several there is an overview."""
    assert PAGE == pages.get("/").headers["location"]
    assert f'href="{PAGE}"' in pages.get("/pages").text


@pytest.mark.parametrize(
    "path", [PAGE, "/pages", f"{PAGE}/story.json", f"{PAGE}/news", "/static/page.js"]
)
def test_nothing_may_be_loaded_from_elsewhere_and_no_script_be_inside(
    pages: httpx.Client, path: str
) -> None:
    """The policy stands at each answer."""
    headers = pages.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "nosniff" == headers["x-content-type-options"]


def test_the_page_has_no_script_and_no_style_of_its_own(pages: httpx.Client) -> None:
    """The policy would refuse them."""
    text = pages.get(PAGE).text
    assert [] == re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", text)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/pages/nobody", 404),
        (f"{PAGE}?range=century", 404),
        (f"{PAGE}/decisions/1-drift", 404),
        (f"{PAGE}/decisions/nonsense", 404),
        ("/static/page.py", 404),
        ("/static/..%2frouting.py", 404),
    ],
)
def test_what_is_not_there_is_said_to_people_and_to_programs(
    pages: httpx.Client, path: str, code: int
) -> None:
    """As a page for who reads HTML, else as JSON."""
    assert "error" in pages.get(path).json()
    found = pages.get(path, headers=HTML)
    assert (code, code) == (pages.get(path).status_code, found.status_code)


def test_news_are_an_event_with_the_stamp_of_the_page(pages: httpx.Client) -> None:
    """So a browser knows that nothing has changed; no connection is held open."""
    found = pages.get(f"{PAGE}/news")
    assert "text/event-stream; charset=utf-8" == found.headers["content-type"]
    (stamp,) = re.findall(r'data-stamp="(\w+)"', pages.get(PAGE).text)
    assert f'"stamp":"{stamp}"' in found.text
    assert found.text.startswith("retry: 3000\n")
    assert found.text.endswith("\n\n")


@pytest.mark.parametrize("name", ["page.css", "page.js", "plotly.min.js"])
def test_files_are_packed_and_kept_by_the_browser(pages: httpx.Client, name: str) -> None:
    """Their address changes with them."""
    packed = pages.get(f"/static/{name}")
    plain = pages.get(f"/static/{name}", headers={"accept-encoding": "identity"})
    assert packed.content == plain.content
    assert "immutable" in packed.headers["cache-control"]
    assert "gzip" == packed.headers["content-encoding"]


def test_hostile_values_are_text_wherever_they_stand(told: Learned) -> None:
    """Reasons, columns, devices and facts are named by others."""
    at = add_hostile(told)
    with running(told, token=TOKEN, more=routes.opened) as served, served.client() as client:
        texts = [
            client.get(PAGE).text,
            client.get("/pages").text,
            client.get(f"{PAGE}/decisions/{key_of(at, 'drift')}").text,
        ]
    for text in texts:
        assert "<script>alert" not in text
        assert "<img" not in text
    assert html.escape(HOSTILE) in texts[0].replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert "{{ 7*7 }}" in texts[2]


def test_a_form_of_the_page_promotes_and_rolls_back_as_the_command_does(told: Learned) -> None:
    """The pointer changes, and the history says that a person did it."""
    models = registry(told)
    before = models.champion()
    other = next(each for each in models.versions() if each != before)
    with running(told, token=TOKEN, more=routes.opened) as served, served.client() as client:
        done = act(client, "promote", version=other, token=TOKEN)
        assert (200, other) == (done.status_code, models.champion())
        assert f"{other} serves from now on; before: {before}" in done.text
        rolled = act(client, "rollback", version="", token=TOKEN)
        assert (200, before) == (rolled.status_code, models.champion())
        page = client.get(PAGE).text
    periods = History(told.home).ask("SELECT because FROM champion_periods ORDER BY period")
    assert [f"promoted by hand; before: {before}", f"rolled back by hand from {other}"] == (
        periods["because"].to_pylist()[-2:]
    )
    assert f"rolled back by hand from {other}" in page


def test_a_form_of_the_page_overrides_the_gate_and_takes_that_back(told: Learned) -> None:
    """For as long as it says, with its reason, and the page shows it."""
    with running(told, token=TOKEN, more=routes.opened) as served, served.client() as client:
        form = {"answer": "closed", "minutes": "30", "because": "<b>work</b>", "token": TOKEN}
        assert 200 == act(client, "override", **form).status_code
        found = override_file.read(told.places.override)
        assert found is not None
        assert ("closed", "<b>work</b>") == (found.answer, found.because)
        assert "The gate is closed, for 30 min more" in client.get(PAGE).text
        assert 200 == act(client, "take-back", token=TOKEN).status_code
    assert override_file.read(told.places.override) is None
    asked = "SELECT yes, facts->>'override' AS what FROM decisions WHERE question = 'override'"
    assert ["closed", "cleared"] == History(told.home).ask(asked)["what"].to_pylist()


@pytest.mark.parametrize(
    ("action", "form", "code"),
    [
        ("promote", {"version": "nobody"}, 422),
        ("promote", {"version": "../../key"}, 422),
        ("promote", {}, 422),
        ("override", {"answer": "ajar", "minutes": "5", "because": "x"}, 422),
        ("override", {"answer": "open", "minutes": "soon", "because": "x"}, 422),
        ("override", {"answer": "open", "minutes": "nan", "because": "x"}, 422),
        ("override", {"answer": "open", "minutes": "100000", "because": "x"}, 422),
        ("override", {"answer": "open", "minutes": "5", "because": ""}, 422),
        ("delete", {}, 404),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_why(
    pages: httpx.Client, told_once: Learned, action: str, form: Mapping[str, str], code: int
) -> None:
    """No traceback, and no half of it."""
    before = registry(told_once).champion()
    found = act(pages, action, **form, token=TOKEN)
    assert code == found.status_code, found.text
    assert "This did not work" in found.text
    assert (before, None) == (
        registry(told_once).champion(),
        override_file.read(told_once.places.override),
    )


@pytest.mark.parametrize(
    ("token", "headers", "code"),
    [
        (None, {}, 401),
        ("", {}, 401),
        ("another", {}, 401),
        (None, {"authorization": f"Basic {TOKEN}"}, 401),
        (None, {"authorization": TOKEN}, 401),
        (None, {"cookie": f"token={TOKEN}"}, 401),
        (TOKEN, {"origin": "http://elsewhere.example"}, 403),
        (TOKEN, {"origin": "null"}, 403),
    ],
)
def test_without_the_token_or_from_another_page_nothing_is_done(
    pages: httpx.Client, told_once: Learned, token: str | None, headers: dict[str, str], code: int
) -> None:
    """What a browser sends by itself does not count."""
    form = {"answer": "open", "minutes": "5", "because": "x"} | ({"token": token} if token else {})
    found = pages.post(f"{PAGE}/override", data=form, headers=headers)
    assert code == found.status_code
    assert override_file.read(told_once.places.override) is None


def test_a_service_without_a_token_decides_nothing_and_shows_the_commands(
    told_once: Learned,
) -> None:
    """Who may write must be known."""
    with running(told_once, more=routes.opened) as served, served.client() as client:
        form = {"answer": "open", "minutes": "5", "because": "x", "token": ""}
        assert 403 == act(client, "override", **form).status_code
        text = client.get(PAGE).text
    assert "<form" not in text
    assert f"models rollback {NAME}" in text


def test_a_protected_page_asks_a_browser_for_the_token(told_once: Learned) -> None:
    """As the password of any user; programs send it as a bearer."""
    with (
        running(told_once, token=TOKEN, more=routes.opened, protected=("page",)) as served,
        served.client() as client,
    ):
        refused = client.get(PAGE, headers=HTML)
        assert 401 == refused.status_code
        assert refused.headers["www-authenticate"].startswith("Basic ")
        for wrong in ("Basic !", "Basic eDp5", "Bearer", "Digest x"):
            assert 401 == client.get(PAGE, headers={"authorization": wrong}).status_code
        assert 200 == client.get(PAGE, auth=("anyone", TOKEN)).status_code
        bearer = {"authorization": f"Bearer {TOKEN}"}
        for path in (PAGE, "/pages", f"{PAGE}/news", f"{PAGE}/story.json"):
            assert (401, 200) == (
                client.get(path).status_code,
                client.get(path, headers=bearer).status_code,
            )
        # The address of the only pipeline's page has its name.
        assert (401, 302) == (
            client.get("/").status_code,
            client.get("/", headers=bearer, follow_redirects=False).status_code,
        )
        basic = httpx.BasicAuth("anyone", TOKEN)
        form = {"answer": "open", "minutes": "5", "because": "x"}
        assert 401 == client.post(f"{PAGE}/override", data=form, auth=basic).status_code


def test_a_page_that_others_can_reach_always_needs_the_token(told_once: Learned) -> None:
    """It has reasons, paths and names of machines."""
    with (
        running(told_once, token=TOKEN, more=routes.opened, host="0.0.0.0") as served,
        served.client() as client,
    ):
        url = served.url.replace("0.0.0.0", "127.0.0.1")
        assert 401 == client.get(f"{url}{PAGE}").status_code
        assert 200 == client.get(f"{url}{PAGE}", auth=("x", TOKEN)).status_code


def test_a_page_that_is_made_delays_no_answer_of_the_service(told_once: Learned) -> None:
    """It is made in a thread of its own: readiness is answered while that one is busy."""
    made: list[routes.Pages] = []

    def opened(places: Places, service: Any, guard: Any) -> Any:
        made.append(routes.Pages(places, service, guard))
        return routes.closing(made[0])

    with running(told_once, more=opened) as served, served.client() as client:
        with held(made[0]._worker):
            assert 200 == client.get("/readyz").status_code
        assert 200 == client.get(PAGE).status_code


def test_a_service_that_cannot_load_the_newest_files_says_so(told: Learned) -> None:
    """The page says it in its answer, and what to look at."""
    told.places.key.write_bytes(b"0" * 32)
    with running(told, more=routes.opened) as served, served.client() as client:
        found = client.get(f"{PAGE}/story.json").json()
    (serves,) = (each for each in found["answers"] if each["key"] == "serves")
    assert "act" == serves["state"]
    assert "Newer files do not serve: " in serves["sentence"]


def test_a_home_without_a_history_has_a_page_too(tmp_path: Path) -> None:
    """Before the first run; and looking at it begins nothing."""
    new = Learned(make_pipeline(tmp_path), tmp_path / "home")
    new.home.mkdir()
    with running(new, more=routes.opened) as served, served.client() as client:
        for path in (PAGE, "/pages", f"{PAGE}/story.json", f"{PAGE}/news"):
            assert 200 == client.get(path).status_code, path
        assert "Begin" in client.get(PAGE).text
    assert not new.places.history.exists()


def test_a_history_that_is_busy_from_the_start_has_a_page_that_says_so(told: Learned) -> None:
    """With what the checkpoint knows, and why there is no more."""
    with (
        running(told, more=routes.opened) as served,
        served.client() as client,
        History(told.home).exclusive(),
    ):
        text = client.get(PAGE).text
    assert "at position 1,000" in text
    assert "is open in" in text


def test_several_pipelines_have_an_overview(told: Learned) -> None:
    """Each with a link to its page, also one that has not begun."""
    (told.file.parent / "other").mkdir()
    other = Learned(make_pipeline(told.file.parent / "other", name="other"), told.home)
    with running(told, other, more=routes.opened) as served, served.client() as client:
        assert "/pages" == client.get("/").headers["location"]
        text = client.get("/pages").text
        assert 200 == client.get("/pages/other").status_code
    assert [NAME, "other"] == re.findall(r'<h2><a href="/pages/(\w+)">', text)


def test_a_pipeline_that_has_not_begun_has_a_page_that_says_how(told: Learned) -> None:
    """The command to begin with is the answer to what to do."""
    told.places.pipeline(NAME).checkpoint.unlink()
    with running(told, more=routes.opened) as served, served.client() as client:
        text = client.get(PAGE).text
    assert "Begin" in text
    assert html.escape(f"run {told.file}") in text
