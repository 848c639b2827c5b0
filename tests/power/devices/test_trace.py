"""The door to recorded traces, and the trace of the elec2 example."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from observability.core.errors import ThermodriftError
from power.core.gate_config import GateConfig
from power.devices.trace import COLUMNS, OPTIONAL, Trace, TraceUnreadable
from power.policy import gate
from power.policy.gate import GateState
from tests import ROOT
from tests.power.makers import make_reading, write_trace

EXAMPLE = ROOT / "examples" / "elec2-gpu.csv"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a trace is written."""
    return tmp_path / "trace.csv"


def test_a_trace_gives_the_readings_that_were_recorded(path: Path) -> None:
    """Each row is one reading, its moment being elapsed_s."""
    trace = Trace.load(write_trace(path, {}, {"margin_c": 12.5}))
    expected = (make_reading(), make_reading(read_at_s=1.0, margin_c=12.5))
    assert expected == trace.readings


def test_a_blank_cell_is_unknown_and_never_zero(path: Path) -> None:
    """All numbers and the reasons may be blank."""
    blanks = dict.fromkeys(COLUMNS[2:], "")
    (reading,) = Trace.load(write_trace(path, blanks)).readings
    assert {None} == {getattr(reading, name) for name in COLUMNS[2:]}


def test_a_trace_may_have_the_energy_counter_as_well(path: Path) -> None:
    """Newer recordings have it, older ones need none; a blank cell is unknown here too."""
    header = ",".join((*COLUMNS, "energy_j"))
    rows: list[dict[str, object]] = [{"energy_j": 12.5}, {"energy_j": ""}]
    readings = Trace.load(write_trace(path, *rows, header=header)).readings
    assert [12.5, None] == [reading.energy_j for reading in readings]
    path.write_text(path.read_text() + "\n9,GPU-a,,,,,,,\n")
    with pytest.raises(TraceUnreadable, match=r"9 cells, must have 10 .*energy_j"):
        Trace.load(path)


def test_an_absurd_number_stays_absurd_for_the_gate_to_judge(path: Path) -> None:
    """The door repairs nothing: what a driver said is what is handed on."""
    trace = Trace.load(write_trace(path, {"temperature_c": 644245923, "margin_c": "nan"}))
    (reading,) = trace.readings
    assert 644245923.0 == reading.temperature_c
    assert reading.margin_c is not None
    assert math.isnan(reading.margin_c)


def test_between_excludes_its_beginning_and_includes_its_end(path: Path) -> None:
    """Windows that follow each other hand out each reading exactly once."""
    trace = Trace.load(write_trace(path, {}, {}, {}, {}))
    windows = [trace.between(-math.inf, 0), trace.between(0, 2), trace.between(2, 9)]
    assert [[0.0], [1.0, 2.0], [3.0]] == [[r.read_at_s for r in window] for window in windows]


def test_after_its_last_row_a_trace_lets_the_gate_close(path: Path) -> None:
    """Nothing more is read, so the last reading grows old."""
    trace = Trace.load(write_trace(path, {}))
    limits = GateConfig()
    opened = gate.judge(trace.survey(-1, 0), GateState(), limits, 0)
    ended = gate.judge(trace.survey(0, 61), opened.state, limits, 61)
    assert (True, False) == (opened.decision.yes, ended.decision.yes)
    assert trace.ends_at_s == 0.0


def test_rows_out_of_order_are_handed_on_as_they_were_recorded(path: Path) -> None:
    """A clock that went back is for the gate to judge, not for the door to hide."""
    trace = Trace.load(write_trace(path, {"elapsed_s": 10}, {"elapsed_s": 5}))
    assert [10.0, 5.0] == [reading.read_at_s for reading in trace.survey(0, 10).readings]
    assert 10.0 == trace.ends_at_s


def test_a_trace_without_rows_is_empty(path: Path) -> None:
    """A header alone is a recording in which nothing was recorded."""
    trace = Trace.load(write_trace(path))
    assert ((), 0.0) == (trace.readings, trace.ends_at_s)


def test_an_empty_line_and_a_byte_order_mark_say_nothing(path: Path) -> None:
    """What editors leave in a file does not make it another one."""
    write_trace(path, {})
    path.write_text("\ufeff" + path.read_text() + "\n\n", encoding="utf-8")
    assert 1 == len(Trace.load(path).readings)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"margin_c": "warm"}, "row 3, column margin_c: must be a number, .* came: 'warm'"),
        ({"elapsed_s": ""}, "row 3, column elapsed_s: must be a finite number .* came: ''"),
        ({"elapsed_s": "inf"}, "row 3, column elapsed_s: must be a finite number"),
        ({"elapsed_s": "soon"}, "row 3, column elapsed_s"),
        ({"uuid": "  "}, "row 3, column uuid: must be the device's name"),
        ({"throttle_reasons": "a,b"}, "row 3: has 10 cells, must have 9"),
    ],
)
def test_a_bad_row_is_told_by_file_row_and_column(
    path: Path, row: dict[str, object], told: str
) -> None:
    """The message leads to the cell, with what was allowed and what came."""
    write_trace(path, {}, row)
    with pytest.raises(TraceUnreadable, match=told) as caught:
        Trace.load(path)
    assert str(path) in str(caught.value)


def test_a_trace_may_tell_what_else_a_device_told(path: Path) -> None:
    """Optional columns in any order; a blank source follows from the margin, as without it."""
    header = ",".join((*COLUMNS, *reversed(OPTIONAL)))
    told: dict[str, object] = {
        "power_limit_max_w": 700,
        "power_limit_min_w": 200,
        "memory_total_bytes": 80_000_000_000,
        "memory_used_bytes": 1024,
        "memory_clock_mhz": 2619,
        "clock_mhz": 1980,
        "threshold_c": 92,
        "margin_source": "threshold",
        "energy_j": 12.5,
    }
    blank: dict[str, object] = dict.fromkeys(told, "")
    trace = write_trace(path, told, blank, blank | {"margin_c": ""}, header=header)
    readings = Trace.load(trace).readings
    assert told == {name: getattr(readings[0], name) for name in told}
    assert ["threshold", "margin", "unknown"] == [each.margin_source for each in readings]
    assert {None} == {getattr(readings[1], name) for name in told if name != "margin_source"}


@pytest.mark.parametrize(
    ("column", "cell"),
    [("margin_source", "ladder"), ("memory_used_bytes", 1.5), ("memory_used_bytes", "nan")],
)
def test_an_optional_cell_that_cannot_be_is_refused(path: Path, column: str, cell: object) -> None:
    """The file, the row and the column are named."""
    trace = write_trace(path, {column: cell}, header=",".join((*COLUMNS, column)))
    with pytest.raises(TraceUnreadable, match=rf"row 2, column {column}: .*came: "):
        Trace.load(trace)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "elapsed_s,uuid",
        ",".join(reversed(COLUMNS)),
        ",".join(("energy_j", *COLUMNS)),
        ",".join((*COLUMNS, "energy_j", "energy_j")),
        ",".join((*COLUMNS, "colour")),
        ",".join((*COLUMNS, "joules")),
    ],
)
def test_another_header_is_refused(path: Path, header: str) -> None:
    """Columns are not guessed from another order or another tool's names."""
    write_trace(path, {}, header=header)
    with pytest.raises(TraceUnreadable, match="must begin with the header elapsed_s,uuid"):
        Trace.load(path)


def test_an_empty_file_is_refused(path: Path) -> None:
    """No header at all is no trace."""
    path.write_bytes(b"")
    with pytest.raises(TraceUnreadable, match="came: nothing"):
        Trace.load(path)


def test_a_missing_file_is_told_with_its_path(path: Path) -> None:
    """The error is ours and an OSError, with the cause kept."""
    with pytest.raises(TraceUnreadable, match="No such file") as caught:
        Trace.load(path)
    assert isinstance(caught.value, ThermodriftError)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'"unclosed'])
def test_what_is_no_text_or_no_csv_is_refused(path: Path, content: bytes) -> None:
    """Bytes that are not UTF-8, and quotes that never close."""
    path.write_bytes(content)
    with pytest.raises(TraceUnreadable, match="not a CSV in UTF-8"):
        Trace.load(path)


def test_the_example_trace_tells_the_story_of_its_stream() -> None:
    """Hot at first, open from about 310 s, one hot spell in the middle, open at the end."""
    trace = Trace.load(EXAMPLE)
    limits, state, answers = GateConfig(), GateState(), {}
    for reading in trace.readings:
        survey = trace.survey(reading.read_at_s - 5, reading.read_at_s)
        decision, state = gate.judge(survey, state, limits, reading.read_at_s)
        answers[reading.read_at_s] = decision.yes
    assert {False} == {yes for at_s, yes in answers.items() if at_s < 300}
    assert {True} == {yes for at_s, yes in answers.items() if 330 <= at_s <= 1900}
    assert {False} == {yes for at_s, yes in answers.items() if 2200 <= at_s <= 2350}
    # Each of the three short spells is followed by its dwell.
    assert [1905, 1910, 3250, 3255, 3940, 3945] == [
        at_s for at_s, yes in answers.items() if not yes and not (at_s < 330 or 2200 <= at_s < 2400)
    ]
    # 45,312 records at 0.1 s each: the trace outlasts the stream that it is replayed with.
    assert trace.ends_at_s >= 4531.2
    assert EXAMPLE.stat().st_size < 100_000
