"""docs/history.md says what is: each view, each column, and SQL that answers on a lived history."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from pyarrow import parquet

import thermodrift
from flows import maintenance
from flows.loop import local_loop
from flows.run import power_source
from observability.core.paths import Places
from observability.history.store import History
from power.devices.nvml import NvmlAdapter
from tests import ROOT
from tests.flows import plain_loop
from tests.flows.loop.test_run import make_example
from tests.flows.makers import make_pipeline
from tests.observability.history.makers import make_forecast, python
from tests.power.makers import HOT_C, make_twin, write_trace

PAGE = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COOKBOOK = PAGE.partition("\n## Cookbook\n")[2].partition("\n## ")[0]

KNOBS = """
trace_s_per_record = 0.5

[batch]
recipe = "linear"
window = 1000
older_rows = 500

[drift]
every = 500
window = 500

[worth]
min_rows = 400
cooldown_records = 500
fit_second_pays = 0.0
"""
"""The example in small steps, where fits cost nothing: its device is hot at first, and once more
when a champion serves."""

RATES = """
[energy]
price_per_kwh = 0.28
carbon_g_per_kwh = 380
pue = 1.4
"""

KILLED = """
import sys
from pathlib import Path
from flows.loop import local_loop
from observability.core import failpoints
from tests.flows import plain_loop
failpoints.arm("loop.after_checkpoint", "kill", after=3)
with plain_loop.without_prefect():
    local_loop.run_loop.fn(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def without_prefect() -> Iterator[pytest.MonkeyPatch]:
    """The loop needs no server; a stand-in for NVIDIA's library is this machine's."""
    with pytest.MonkeyPatch.context() as patch, plain_loop.without_prefect():
        patch.setattr(power_source, "NvmlAdapter", partial(NvmlAdapter, twin=make_twin()))
        yield patch


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory, without_prefect: pytest.MonkeyPatch
) -> History:
    """What real runs left in one home: in them has happened whatever the page asks about."""
    folder = tmp_path_factory.mktemp("lived")
    home, pipeline = folder / "home", make_market(folder)
    home.mkdir(mode=0o700)
    (home / "thermodrift.toml").write_text(RATES)
    killed = python(KILLED, pipeline, home)
    killed.communicate()
    assert -signal.SIGKILL == killed.returncode
    local_loop.run_loop.fn(pipeline, home, 2_500)
    backup = shutil.copyfile(Places(home).history, folder / "backup")
    roll_back(home)
    local_loop.run_loop.fn(pipeline, home)
    # Somebody brings back an old copy of the file: the history makes up for it, and says so.
    backup.replace(Places(home).history)
    local_loop.run_loop.fn(make_load(folder), home)
    local_loop.run_loop.fn(make_oven(folder), home)
    History(home).commit([make_forecast(at=datetime.now(UTC))], "forecast")
    (home / "thermodrift.toml").write_text(f"{RATES}[upkeep]\nkeep_days = 365\n")
    assert "done" == maintenance.upkeep.fn(home)["state"]
    return History(home)


def make_market(folder: Path) -> Path:
    """The example's first 5,500 records, of which three are damaged."""
    path = make_example(folder, 5_500, KNOBS)
    path.write_text(path.read_text().replace('target = "class"', 'target = "class"\nbatch = 250'))
    table = parquet.read_table(folder / "elec2.parquet")
    for column, position, cell in (
        ("nswprice", 1_234, float("inf")),
        ("nswprice", 2_345, float("inf")),
        ("class", 3_456, None),
    ):
        cells = table[column].to_pylist()
        cells[position] = cell
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(cells, table[column].type))
    parquet.write_table(table, folder / "elec2.parquet", row_group_size=2_000)
    return path


def make_load(folder: Path) -> Path:
    """A regression whose device tells its energy: a stand-in for NVIDIA's library is read."""
    room = folder / "load"
    room.mkdir()
    return make_pipeline(room, 800, "regression", "load", gate={"source": "nvml"})


def make_oven(folder: Path) -> Path:
    """A pipeline whose device never cools: its request is open at the end."""
    room = folder / "oven"
    room.mkdir()
    write_trace(room / "hot.csv", *({"elapsed_s": 10 * i, "margin_c": HOT_C} for i in range(9)))
    return make_pipeline(room, 400, name="oven", gate={"source": "trace", "trace": "hot.csv"})


def roll_back(home: Path) -> None:
    """What a person does who trusts the last champion less than the one before it."""
    command = typer.main.get_command(thermodrift.app)
    command.main(["--home", str(home), "models", "rollback", "elec2"], standalone_mode=False)


def documented() -> dict[str, dict[str, str]]:
    """Columns with their types, by view, as the page has them."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        table = section.partition("| column | type |")[2].partition("\n\n")[0]
        columns = re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE)
        if columns:
            found[section.split("\n", 1)[0]] = dict(columns)
    return found


def test_every_view_and_column_is_documented_and_every_documented_one_exists(
    history: History,
) -> None:
    """Names, order and types on the page are those of the file."""
    kinds = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    label = {"label": "see below", "online": "as label", "batch": "as label"}
    label |= {"baseline": "as label", "served": "as label", "members": "see below"}
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


def test_the_cookbook_has_at_least_fifteen_questions() -> None:
    """Each in words that a user would use, and then in SQL."""
    asked = re.findall(r"^(?:[^`|\n].*\n)+\n```sql$", COOKBOOK, re.MULTILINE)
    assert len(asked) == COOKBOOK.count("```sql") >= 15


NOT_RECORDED = {
    *("forecast", "forecast_trust", "rest"),  # parts of an admission, or of a simulated device's
    "clock",  # about a server and not about a pipeline
    "calibration",  # a part of worth's
    *("look", "change", "window", "profile", "refusals"),  # how a run goes on, or that it fails
}
"""Questions whose decisions are used at once and are not rows of the history."""


def test_every_kind_of_decision_is_documented() -> None:
    """The page lists the questions that are recorded, and no other."""
    asked = {
        question
        for room in ("flows", "models", "power", "observability")
        for path in (ROOT / room).rglob("*.py")
        for question in re.findall(r'(?:question=|QUESTION = )"(\w+)"', path.read_text("utf-8"))
    }
    table = PAGE.partition("| question | asks |\n")[2].partition("\n\n")[0]
    assert asked - NOT_RECORDED == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
