"""The streams that ship are the same everywhere, and change where they say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from flows.config import pipeline
from flows.laboratory import records, streams
from flows.laboratory.records import LabConfig
from flows.laboratory.streams import Drift, LabStream, StreamNotHere
from observability.core.errors import BadConfiguration

GENERATED = [each for each in streams.STREAMS if each.worlds is not None]


def made(name: str, size: int, seed: int | None = None) -> LabStream:
    """A stream of another length, and perhaps of another seed."""
    (found,) = streams.named(name)
    found = found.shortened(size)
    return found if seed is None else found.reseeded(seed)


def digest(stream: LabStream) -> object:
    """What a stream holds, comparable."""
    return streams.table(stream).to_pydict()


@pytest.mark.parametrize("name", [each.name for each in GENERATED])
def test_a_stream_is_the_same_each_time_and_another_one_from_another_seed(name: str) -> None:
    """A figure of the laboratory can be computed again."""
    stream = made(name, 1_000)
    assert digest(stream) == digest(stream)
    assert digest(stream) != digest(stream.reseeded(stream.seed + 1))


def test_every_kind_and_every_task_is_there() -> None:
    """Abrupt to virtual; two classes, a rare one, several, and values; generated and real."""
    kinds = {each.kind for each in streams.STREAMS}
    assert {"abrupt", "gradual", "incremental", "recurring", "virtual", "none", "real"} == kinds
    classes = {
        each.name: set(streams.table(each.shortened(1_000)).column(each.target).to_pylist())
        for each in GENERATED
        if each.task == "classification"
    }
    assert {2, 4, 5, 10} <= {len(each) for each in classes.values()}
    assert {"classification", "regression"} == {each.task for each in streams.STREAMS}
    rare = streams.table(made("rare-abrupt", 4_000)).column("target").to_pylist()
    assert 0.01 < sum(rare) / len(rare) < 0.06
    assert len(streams.STREAMS) == len({each.name for each in streams.STREAMS})


def sea_boundary(stream: LabStream, first: int, last: int) -> float:
    """The sum of two features that best divides the classes of a part of a SEA stream."""
    table = streams.table(stream).slice(first, last - first)
    total = np.array(table.column("x0")) + np.array(table.column("x1"))
    label = np.array(table.column("target"))
    places = np.arange(5.0, 12.0, 0.25)
    return float(places[np.argmax([np.mean((total > place) == label) for place in places])])


def test_an_abrupt_drift_is_where_it_is_said_to_be() -> None:
    """Between two changes the relation is one, and behind a change another one at once."""
    stream = made("sea-abrupt", 8_000)
    assert (Drift(2_000), Drift(4_000), Drift(6_000)) == stream.drifts
    found = [sea_boundary(stream, first, first + 2_000) for first in range(0, 8_000, 2_000)]
    assert found == pytest.approx([8.0, 9.5, 7.0, 9.0], abs=0.3)


def test_a_gradual_drift_is_a_mixture_for_as_long_as_it_says() -> None:
    """In the middle of a change both worlds are drawn, before and behind it only one."""
    stream = made("sea-gradual", 10_000)
    first, second = stream.drifts
    assert (3_000, 1_000, 4_000) == (first.position, first.width, first.ends)
    assert sea_boundary(stream, 0, 3_000) == pytest.approx(8.0, abs=0.3)
    assert sea_boundary(stream, first.ends, second.position) == pytest.approx(7.0, abs=0.3)


def test_a_recurring_world_comes_back() -> None:
    """The third part has the relation of the first one."""
    stream = made("sea-recurring", 8_000)
    found = [sea_boundary(stream, first, first + 2_000) for first in range(0, 8_000, 2_000)]
    assert found == pytest.approx([7.0, 9.5, 7.0, 9.5], abs=0.3)


def test_a_virtual_drift_moves_the_features_and_not_the_relation() -> None:
    """The same boundary divides the classes before and behind it, at other feature values."""
    stream = made("sea-virtual", 8_000)
    feature = np.array(streams.table(stream).column("x0"))
    assert feature[:4_000].mean() + 3.0 < feature[4_000:].mean()
    found = [sea_boundary(stream, first, first + 4_000) for first in (0, 4_000)]
    assert found == pytest.approx([8.0, 8.0], abs=0.3)


def test_a_regression_stream_changes_which_features_count() -> None:
    """Friedman's fourth feature, which counts most, is another one behind the change."""
    stream = made("friedman-abrupt", 6_000)
    table = streams.table(stream)
    target = np.array(table.column("target"))

    def strongest(first: int, last: int) -> int:
        part = [np.array(table.column(f"x{n}"))[first:last] for n in range(5)]
        return int(np.argmax([abs(np.corrcoef(x, target[first:last])[0, 1]) for x in part]))

    change = stream.drifts[0].position
    assert strongest(0, change) != strongest(change, stream.drifts[1].position)


def test_a_stream_goes_through_the_products_own_reader(tmp_path: Path) -> None:
    """Its pipeline file has the four keys that are enough, and is written once."""
    stream = made("led-abrupt", 1_000)
    path = streams.write(stream, tmp_path)
    assert {"pipeline", "stream"} == tomllib.loads(path.read_text()).keys()
    read = records.read(pipeline.read(path), LabConfig())
    assert (1_000, 10) == (len(read), len(read.classes))
    written = path.stat().st_mtime_ns
    assert path == streams.write(stream, tmp_path)
    assert written == path.stat().st_mtime_ns
    assert path != streams.write(stream.reseeded(9), tmp_path)


@pytest.mark.parametrize(("name", "size"), [("elec2", 45_312), ("flights", 30_000)])
def test_the_real_streams_are_whole(name: str, size: int) -> None:
    """They lie beside the project; a shorter one is their beginning, and none gets longer."""
    (stream,) = streams.named(name)
    assert size == streams.table(stream).num_rows == stream.shortened(10**6).records
    assert streams.table(stream).slice(0, 1_000) == streams.table(stream.shortened(1_000))
    assert () == stream.drifts


def test_a_stream_that_is_not_installed_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel has no examples; the message says how to go on."""
    monkeypatch.setattr(streams, "EXAMPLES", tmp_path)
    with pytest.raises(StreamNotHere, match="--streams"):
        streams.table(streams.named("elec2")[0])


@pytest.mark.parametrize("wrong", ["sea", "sea-abrupt,nowhere", " , "])
def test_a_name_that_is_none_is_refused(wrong: str) -> None:
    """The message lists the names that there are."""
    with pytest.raises(BadConfiguration, match="friedman-none"):
        streams.named(wrong)
