"""The benchmarks of the history, small: they count what they say they count."""

from __future__ import annotations

import json
import random
from pathlib import Path

import duckdb
import pytest

from benchmarks import crew, history_home, history_scale, history_versus, lake
from benchmarks import history as storm
from models.prediction_log import prediction_log
from observability.core.paths import Places
from observability.history.store import History
from tests import postgres
from tests.observability.history.makers import rows_of
from tests.observability.history.test_history_page import QUESTIONS
from tests.postgres import Server


@pytest.mark.slow
def test_a_storm_with_a_kill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Writers, an analyst and a kill: every row once, every commit timed with one or without."""
    found = storm.measure(
        tmp_path, writers=2, commits=8, kills=1, straight=2, sitting_s=0.1, seed=1
    )
    assert (16, 1) == (found["commits"], found["kills"])
    assert (128, 0, 0) == (found["rows"], found["rows_lost"], found["rows_twice"])
    times = found["commit_ms"]
    assert isinstance(times, dict)
    # A commit that was acknowledged before the kill is repeated by its name, and timed again.
    assert sum(each["commits"] for each in times.values() if each) in (16, 17)
    ways = found["undisturbed"]
    assert isinstance(ways, dict)
    assert [(32, 0, 0)] * 2 == [
        (way["rows"], way["rows_lost"], way["rows_twice"])
        for way in (ways["history"], ways["straight"])
    ]


def test_lost_and_double_rows_are_seen(tmp_path: Path) -> None:
    """A row that is taken away counts as lost, one that is there again as twice."""
    history = History(tmp_path)
    for number in range(2):
        history.commit(crew.rows("writer-0", number), f"writer-0.{number}")
    history.flush()
    with duckdb.connect(str(Places(tmp_path).history)) as session:
        session.execute("DELETE FROM score_rows WHERE member = 'served' AND position_to = 1000")
        session.execute("INSERT INTO decision_rows FROM decision_rows LIMIT 1")
    expected = {"rows": 16, "rows_lost": 1, "rows_twice": 1}
    assert expected == crew.counted(tmp_path, writers=1, commits=2)


def test_kills_come_from_the_seed() -> None:
    """The same seed kills after the same numbers of commits, before the end."""
    moments = [crew.moments(5, 1600, random.Random(seed)) for seed in (0, 0, 1)]
    assert moments[0] == moments[1] != moments[2]
    assert sorted(moments[0]) == moments[0]
    assert all(0 < each <= 1440 for each in moments[0])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after twenty thousand records."""
    home = tmp_path_factory.mktemp("home")
    history_home.fill(home, 20_000, seed=0)
    return home


def test_the_filled_log_is_one_that_the_adapter_reads(home: Path) -> None:
    """Every position once, members about as good as they are said to be."""
    folder = Places(home).pipeline(history_home.NAME).predictions
    assert list(range(20_000)) == prediction_log.read(folder, 0, 20_000)["position"].to_pylist()
    shares = rows_of(
        History(home),
        "SELECT avg((served = label)::INT) AS served, avg((online = label)::INT) AS online, "
        "avg((batch = label)::INT) AS batch, avg((baseline = label)::INT) AS baseline "
        "FROM predictions",
    )[0]
    assert shares["served"] > shares["online"] > shares["batch"] > 0.7
    assert 0.83 < shares["baseline"] < 0.87


def test_the_filled_history_has_every_kind_of_row(home: Path) -> None:
    """Each view has something to answer from."""
    shapes = {shape.name: shape.rows for shape in History(home).views()}
    assert [] == [name for name, rows in shapes.items() if rows == 0]
    assert (280 + 2, 20_000) == (shapes["scores"], shapes["predictions"])


def test_every_question_of_the_page_is_asked() -> None:
    """None is missed, and no two have one name."""
    assert QUESTIONS == list(history_scale.questions().values())
    assert history_scale.BEATEN in history_scale.questions()


def test_every_way_answers_the_same_question(home: Path) -> None:
    """Our door, DuckDB and pandas count the same, or their times would mean nothing."""
    sql = history_scale.questions()[history_scale.BEATEN]
    answer = rows_of(History(home), sql)[0]
    log = history_scale.beaten_by_pandas(home, 1)
    assert answer == {"pipeline": history_home.NAME, "records": 20_000} | log
    assert 0 < answer["beat_both"] < answer["beaten"]


def test_a_question_that_takes_too_long_has_no_answer(home: Path) -> None:
    """It is ended, and the next one is asked."""
    assert history_scale.alone(history_scale.ask, home, "SELECT 1", patience_s=0) is None


def test_metric_rows_go_through_each_way_and_come_back(tmp_path: Path) -> None:
    """As many rows of one metric are read as were logged; MLflow is told to be missing."""
    found = history_versus.measure(tmp_path, commits=3, rows=10, rounds=1, mlflow_python=None)
    ours, theirs = found["history"], found["sqlite"]
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    assert 6 == ours["read_rows"] == theirs["read_rows"]
    assert found["mlflow_version"] is None
    assert "--mlflow-python" in str(found["mlflow_is_null_because"])


@pytest.mark.slow
def test_hosts_of_one_lake_with_a_kill_lose_and_double_nothing(
    tmp_path: Path, postgres_server: Server
) -> None:
    """Every row of every host once, with a kill and without, and as many in the file."""
    found = lake.measure(tmp_path, postgres_server, hosts=2, commits=4, kills=1, seed=1)
    assert (8, 1, 64, 0, 0) == tuple(
        found[name] for name in ("commits", "kills", "rows", "rows_lost", "rows_twice")
    )
    figures = found["undisturbed"]
    assert isinstance(figures, dict)
    assert [(0, 64, 0, 0)] * 4 == [
        (way["kills"], way["rows"], way["rows_lost"], way["rows_twice"])
        for figure in figures.values()
        for way in figure.values()
    ]


def test_without_postgresql_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads the lines sees that this one is no figure, and why."""
    monkeypatch.setattr("tests.postgres.found", lambda: None)
    monkeypatch.setattr("sys.argv", ["lake"])
    lake.main()
    line = json.loads(capsys.readouterr().out)
    assert {"benchmark": "lake", "skipped": postgres.MISSING} == line
