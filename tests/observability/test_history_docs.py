"""docs/history.md says what is: every view, every column, and SQL that runs."""

from __future__ import annotations

import re

import pytest

from observability.history import History
from tests.observability.history_makers import (
    ROOT,
    at,
    make_cost,
    make_decision,
    make_gpu_row,
    make_model,
    make_reject,
    make_request,
    make_run,
    make_score,
    write_predictions,
)

PAGE = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A small history in which every kind of thing has happened."""
    home = tmp_path_factory.mktemp("home")
    write_predictions(
        home,
        position=[1000, 1001, 1600],
        label=[1, 0, 1],
        online=[0, 0, 1],
        batch=[None, 1, 0],
        baseline=[0, 0, 0],
        served=[1, 0, 0],
        served_probability=[0.9, 0.6, 0.7],
        model_version=["v1", "v1", "v2"],
    )
    history = History(home)
    history.commit(
        [
            make_run(),
            make_run(at=at(-60), run_id="run-0"),
            make_run(event="ended", position=900, outcome="finished", records=900, seconds=3.0),
            make_decision(),
            make_decision(question="gate", because="3 C short", facts={"margin_c": 7.0}),
            make_request(deadline_s=60.0),
            make_request(at=at(5), event="deferred", waited_s=5.0),
            make_request(at=at(9), event="promoted", position=1500, waited_s=9.0),
            make_request(request_id="retrain-2"),
            make_model(rows=1000, fit_s=2.0, size_bytes=10_000),
            make_model(event="promoted", position=1100),
            *(make_score(member=member) for member in ("served", "online", "batch", "baseline")),
            make_score(position_from=1000, position_to=1500),
            make_score(position_from=1400, position_to=1500, member="holdout:champion"),
            make_score(
                position_from=1400, position_to=1500, member="holdout:challenger", value=0.9
            ),
            make_cost(),
            make_reject(),
            make_gpu_row(energy_j=5_000.0),
            make_gpu_row(at=at(10), energy_j=8_000.0),
        ],
        "all",
    )
    return history


def documented() -> dict[str, dict[str, str]]:
    """Columns with their types, by view, as the page has them."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        columns = re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE)
        if columns:
            found[section.split("\n", 1)[0]] = dict(columns)
    return found


def test_every_view_and_column_is_documented_and_every_documented_one_exists(
    history: History,
) -> None:
    """Names, order and types on the page are those of the file."""
    kinds = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    label = {"label": "see below", "online": "as label", "batch": "as label"}
    label |= {"baseline": "as label", "served": "as label"}
    expected = {
        shape.name: {
            name: label.get(name, kinds.get(kind, kind)) for name, kind in shape.columns.items()
        }
        for shape in history.views()
    }
    page = documented()
    assert list(expected) == list(page)
    assert {view: list(columns.items()) for view, columns in expected.items()} == {
        view: list(columns.items()) for view, columns in page.items()
    }


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_every_question_of_the_page_has_an_answer(history: History, question: str) -> None:
    """Each block of SQL runs on a real history and finds something in it."""
    assert history.ask(question).num_rows > 0


def test_every_view_has_a_question(history: History) -> None:
    """No section without an example, and no example without a view."""
    asked = " ".join(QUESTIONS)
    for shape in history.views():
        assert re.search(rf"(FROM|JOIN) {shape.name}\b", asked), shape.name
