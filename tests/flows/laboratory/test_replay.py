"""A history's decisions are judged again by the product's own policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.laboratory import replay
from flows.loop import local_loop
from observability.core.errors import BadConfiguration
from observability.history.store import History
from tests.flows import plain_loop
from tests.flows.makers import NAME, make_pipeline

TRACE = """elapsed_s,uuid,temperature_c,memory_temperature_c,margin_c,power_w,power_limit_w,\
utilization,throttle_reasons
0,GPU-1,60,,30,100,300,50,
50,GPU-1,82,,8,100,300,50,
70,GPU-1,72,,18,100,300,50,
90,GPU-1,65,,25,100,300,50,
"""


@pytest.fixture(scope="module")
def pipeline_that_ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with alarms, retrains and deferrals in the history of its home."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "gpu.csv").write_text(TRACE)
    gate = {"source": "trace", "trace": "gpu.csv", "trace_s_per_record": 0.1}
    path = make_pipeline(folder, 1_000, gate=gate)
    with plain_loop.without_prefect():
        local_loop.run_loop.fn(path, folder / "home")
    History(folder / "home").flush()
    return path


def test_unchanged_knobs_change_nothing(pipeline_that_ran: Path) -> None:
    """Every decision is judged again, and every answer is the recorded one."""
    found = replay.collect(pipeline_that_ran, pipeline_that_ran.parent / "home", [])
    assert [] == found["different"]
    for question in ("worth", "drift", "gate"):
        count = found["questions"][question]
        assert count["judged"] == count["decisions"] > 0, question


def test_more_new_rows_would_have_refused_a_retrain(pipeline_that_ran: Path) -> None:
    """The answer that would be different names the knob that was changed."""
    home = pipeline_that_ran.parent / "home"
    found = replay.collect(pipeline_that_ran, home, ["worth.min_new_rows=100000"])
    assert found["questions"]["worth"]["different"] == len(found["different"]) > 0
    for each in found["different"]:
        assert (True, False) == (each["was"], each["would_be"])
        assert "(needed 100000)" in each["would_be_because"]


def test_an_alarm_that_would_not_have_come_asks_for_no_retrain(pipeline_that_ran: Path) -> None:
    """The worth of a retrain is judged with the answer about drift that would have been given."""
    home = pipeline_that_ran.parent / "home"
    deaf = [
        *("drift.number_threshold=1000", "drift.performance_drop=1000", "drift.target_votes=false"),
        *("drift.prediction_votes=false", "drift.error_votes=false"),
        "drift.relative_error_votes=false",
    ]
    found = replay.collect(pipeline_that_ran, home, deaf)
    assert {"worth", "drift"} == {each["question"] for each in found["different"]}
    assert not any(each["would_be"] for each in found["different"])


def test_another_margin_would_have_answered_otherwise(pipeline_that_ran: Path) -> None:
    """The gate is asked on the readings that were recorded with its decision."""
    home = pipeline_that_ran.parent / "home"
    wide = ["gate.pause_margin_c=60", "gate.resume_margin_c=70"]
    found = replay.collect(pipeline_that_ran, home, wide)
    gates = [each for each in found["different"] if each["question"] == "gate"]
    assert gates
    assert not any(each["would_be"] for each in gates)


@pytest.mark.parametrize("wrong", ["cooldown=1", "worth.cooldown_records", ".=1", "worth.=3"])
def test_a_setting_of_another_form_is_refused(wrong: str) -> None:
    """The message shows the form that was expected."""
    with pytest.raises(BadConfiguration, match=r"worth\.cooldown_records=500"):
        replay.knobs([wrong])


def test_text_needs_no_quotes() -> None:
    """A shell has eaten them."""
    assert {"drift": {"number_method": "ks", "every": 5}} == replay.knobs(
        ["drift.number_method=ks", "drift.every=5"]
    )


def test_a_home_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A typing error is no empty history."""
    with pytest.raises(BadConfiguration, match=NAME):
        replay.collect(make_pipeline(tmp_path, 100), tmp_path / "nowhere", [])
