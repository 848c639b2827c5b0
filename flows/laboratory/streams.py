"""The streams that ship with the laboratory, and where each of them changes.

Most are drawn by river's generators from a seed, so that the truth about their drift is known; two
are real and lie beside the project. A stream is written to a file and read by the product's own
reader, like any other.

Sources: SEA (Street and Kim 2001), Agrawal et al. (1993), hyperplane (Hulten et al. 2001), LED
(Breiman et al. 1984), random RBF (Bifet et al. 2009), Friedman (1991; with drift, Ikonomovska
2012).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from models.core.record_schema import Task
from observability.core import atomic_file
from observability.core.errors import BadConfiguration, ThermodriftError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["abrupt", "gradual", "incremental", "recurring", "virtual", "none", "real"]
"""How a stream changes; of a real one nobody knows."""
TARGET = "target"
"""The column to predict of a stream that is generated."""
RECORDS = 20_000
"""Records of a generated stream, unless others are asked for."""
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Rows = Iterator[tuple[dict[str, float], Any]]
"""Features and label of each record, without end."""


class StreamNotHere(ThermodriftError, FileNotFoundError):
    """A real stream's file is not part of this installation."""


@dataclass(frozen=True)
class Drift:
    """One change of a stream: from a position on, over a number of records; 0 is at once."""

    position: int
    width: int = 0

    @property
    def ends(self) -> int:
        """The first position at which only the new world is drawn."""
        return self.position + self.width


@dataclass(frozen=True)
class LabStream:
    """A stream of the laboratory and the truth about it."""

    name: str
    task: Task
    kind: Kind
    about: str
    """One sentence for people."""
    records: int
    metric: str = "auto"
    """The pipeline's metric, as in [pipeline] metric."""
    seed: int = 0
    shares: tuple[tuple[float, float], ...] = ()
    """Each change, by its beginning and its width as shares of the stream."""
    target: str = TARGET
    worlds: Callable[[int], Sequence[Rows]] | None = None
    """From a seed: one endless source for each world; None for a real stream."""
    file: str | None = None
    """The file of a real stream, in examples/."""

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Where the stream changes, in order."""
        return tuple(
            Drift(round(begin * self.records), round(width * self.records))
            for begin, width in self.shares
        )

    def shortened(self, records: int) -> LabStream:
        """The same stream with at most so many records; its changes move along.

        A real stream is cut, and never made longer.
        """
        wanted = min(records, self.records) if self.worlds is None else records
        return replace(self, records=wanted)

    def reseeded(self, seed: int) -> LabStream:
        """The same stream drawn anew; a real one stays as it is."""
        return replace(self, seed=seed)


def table(stream: LabStream) -> pa.Table:
    """All records of a stream as an Arrow table, the target last. Raises StreamNotHere."""
    import pyarrow as pa
    from pyarrow import parquet

    if stream.worlds is None:
        path = EXAMPLES / str(stream.file)
        if not path.is_file():
            raise StreamNotHere(
                f"the stream {stream.name!r} is the file {stream.file} in the folder examples of "
                "the project, which is not part of this installation: leave it out with --streams, "
                "or work in a checkout of the project"
            )
        return parquet.read_table(path).slice(0, stream.records)
    rows = list(generated(stream))
    names = list(rows[0][0])
    columns = {name: [row[name] for row, _ in rows] for name in names}
    return pa.table({**columns, TARGET: [label for _, label in rows]})


def generated(stream: LabStream) -> Rows:
    """The records of a generated stream, features in a fixed order.

    In the width of a change the new world is drawn with a chance that rises from 0 to 1, in a
    straight line. What a source would have given while the other one was drawn is not skipped.
    """
    assert stream.worlds is not None
    chance = Random(stream.seed)
    sources = list(stream.worlds(stream.seed))
    drifts = stream.drifts
    for position in range(stream.records):
        world = 0
        for number, drift in enumerate(drifts, start=1):
            begun = position - drift.position
            if begun < 0:
                break
            if begun >= drift.width or chance.random() < begun / drift.width:
                world = number
        features, label = next(sources[world % len(sources)])
        named_as_text = {
            f"x{name}" if isinstance(name, int) else name: float(value)
            for name, value in features.items()
        }
        yield named_as_text, label


def write(stream: LabStream, home: Path) -> Path:
    """Write a stream and its pipeline file of four keys under `home`, unless they are there.

    Returns the pipeline file. Raises StreamNotHere.
    """
    import pyarrow as pa
    from pyarrow import parquet

    drawn_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    name = f"{stream.name}-{stream.records}-{stream.seed}-{drawn_by}"
    folder = home / "streams" / name
    path = folder / "pipeline.toml"
    if path.exists():
        return path
    sink = pa.BufferOutputStream()
    parquet.write_table(table(stream), sink, compression="zstd")
    folder.mkdir(parents=True, exist_ok=True)
    atomic_file.write(folder / "stream.parquet", sink.getvalue().to_pybytes())
    metric = "" if stream.metric == "auto" else f'metric = "{stream.metric}"\n'
    text = (
        f'[pipeline]\nname = "{stream.name}"\ntask = "{stream.task}"\n{metric}'
        f'[stream]\npath = "stream.parquet"\ntarget = "{stream.target}"\n'
    )
    # The pipeline file comes last: where it is, the stream is whole.
    atomic_file.write(path, text.encode())
    return path


def named(names: str | None = None) -> list[LabStream]:
    """The streams of a list of names with commas between them; None: all.

    Raises BadConfiguration for a name that is none.
    """
    if names is None:
        return list(STREAMS)
    known = {stream.name: stream for stream in STREAMS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise BadConfiguration(
            f"--streams: {', '.join(unknown) or 'nothing'} is no stream of the laboratory; choose "
            f"from {', '.join(known)}"
        )
    return [known[name] for name in dict.fromkeys(wanted)]


def _draw(generator: Any) -> Rows:
    """The endless records of one of river's generators, labels as int or float."""
    for features, label in generator:
        yield features, float(label) if isinstance(label, float) else int(label)


def _sea(*variants: int) -> Callable[[int], Sequence[Rows]]:
    def worlds(seed: int) -> Sequence[Rows]:
        from river.datasets import synth

        return [
            _draw(synth.SEA(variant=variant, noise=0.1, seed=1000 * seed + number))
            for number, variant in enumerate(variants)
        ]

    return worlds


def _agrawal(*functions: int) -> Callable[[int], Sequence[Rows]]:
    def worlds(seed: int) -> Sequence[Rows]:
        from river.datasets import synth

        return [
            _draw(
                synth.Agrawal(
                    classification_function=function, perturbation=0.05, seed=1000 * seed + number
                )
            )
            for number, function in enumerate(functions)
        ]

    return worlds


def _moved_sea(seed: int) -> Sequence[Rows]:
    """Features that move while the relation stays: records of the lower, then the upper values."""
    from river.datasets import synth

    def within(low: bool, source: Rows) -> Rows:
        # One of ten is from the other side, so that no value is new.
        for number, (features, label) in enumerate(source):
            if (features[0] < 5.0) is low or number % 10 == 0:  # type: ignore[index]
                yield features, label

    return [
        within(low, _draw(synth.SEA(variant=0, noise=0.1, seed=1000 * seed + number)))
        for number, low in enumerate((True, False))
    ]


def _hyperplane(seed: int) -> Sequence[Rows]:
    from river.datasets import synth

    moving = synth.Hyperplane(
        seed=seed, n_features=10, n_drift_features=5, mag_change=0.002, noise_percentage=0.05
    )
    return [_draw(moving)]


def _led(seed: int) -> Sequence[Rows]:
    from river.datasets import synth

    return [
        _draw(
            synth.LEDDrift(
                seed=1000 * seed + number,
                noise_percentage=0.1,
                irrelevant_features=True,
                n_drift_features=swapped,
            )
        )
        for number, swapped in enumerate((0, 5))
    ]


def _moving_rbf(seed: int) -> Sequence[Rows]:
    from river.datasets import synth

    moving = synth.RandomRBFDrift(
        seed_model=seed,
        seed_sample=seed + 1,
        n_classes=5,
        n_features=10,
        n_centroids=20,
        change_speed=0.0005,
        n_drift_centroids=20,
    )
    return [_draw(moving)]


def _recurring_rbf(seed: int) -> Sequence[Rows]:
    from river.datasets import synth

    return [
        _draw(
            synth.RandomRBF(
                seed_model=10 * seed + number,
                seed_sample=seed + number,
                n_classes=4,
                n_features=8,
                n_centroids=20,
            )
        )
        for number in (0, 1)
    ]


def _rare_sea(seed: int) -> Sequence[Rows]:
    """SEA with one positive of about forty records."""

    def thinned(source: Rows, chance: Random) -> Rows:
        for features, label in source:
            if label == 0 and chance.random() < 0.85:
                yield features, 0
            elif label == 1 and chance.random() < 0.012:
                yield features, 1

    return [
        thinned(source, Random(seed + number)) for number, source in enumerate(_sea(0, 2)(seed))
    ]


def _friedman(*worlds_of: Sequence[int]) -> Callable[[int], Sequence[Rows]]:
    """Friedman's function with its features in other roles: one order of the first five a world."""

    def worlds(seed: int) -> Sequence[Rows]:
        from river.datasets import synth

        def in_roles(source: Any, order: Sequence[int]) -> Rows:
            for features, label in source:
                roles = {**features, **{new: features[old] for old, new in enumerate(order)}}
                yield roles, float(label)

        return [
            in_roles(synth.Friedman(seed=1000 * seed + number), order)
            for number, order in enumerate(worlds_of)
        ]

    return worlds


_AS_USUAL, _SWAPPED, _TURNED = (0, 1, 2, 3, 4), (3, 4, 2, 0, 1), (2, 0, 1, 4, 3)

STREAMS: tuple[LabStream, ...] = (
    LabStream(
        "sea-abrupt",
        "classification",
        "abrupt",
        "SEA; the boundary jumps three times",
        RECORDS,
        shares=((0.25, 0), (0.5, 0), (0.75, 0)),
        worlds=_sea(0, 3, 2, 1),
    ),
    LabStream(
        "sea-gradual",
        "classification",
        "gradual",
        "SEA; two worlds mixed for a tenth of the time",
        RECORDS,
        shares=((0.3, 0.1), (0.65, 0.1)),
        worlds=_sea(0, 2, 3),
    ),
    LabStream(
        "sea-recurring",
        "classification",
        "recurring",
        "SEA; two boundaries that take turns",
        RECORDS,
        shares=((0.25, 0), (0.5, 0), (0.75, 0)),
        worlds=_sea(2, 3),
    ),
    LabStream(
        "sea-virtual",
        "classification",
        "virtual",
        "SEA; a feature moves, the relation does not",
        RECORDS,
        shares=((0.5, 0),),
        worlds=_moved_sea,
    ),
    LabStream(
        "sea-none", "classification", "none", "SEA; nothing changes", RECORDS, worlds=_sea(0)
    ),
    LabStream(
        "agrawal-abrupt",
        "classification",
        "abrupt",
        "Agrawal; the rule of a loan changes twice",
        RECORDS,
        shares=((0.35, 0), (0.7, 0)),
        worlds=_agrawal(0, 3, 6),
    ),
    LabStream(
        "agrawal-gradual",
        "classification",
        "gradual",
        "Agrawal; an old rule fades into a new one",
        RECORDS,
        shares=((0.4, 0.2),),
        worlds=_agrawal(1, 4),
    ),
    LabStream(
        "agrawal-none",
        "classification",
        "none",
        "Agrawal; nothing changes",
        RECORDS,
        worlds=_agrawal(4),
    ),
    LabStream(
        "hyperplane-incremental",
        "classification",
        "incremental",
        "a plane that turns all the time",
        RECORDS,
        seed=1,
        worlds=_hyperplane,
    ),
    LabStream(
        "rare-abrupt",
        "classification",
        "abrupt",
        "SEA with a positive in forty; one jump",
        RECORDS,
        metric="brier",
        shares=((0.5, 0),),
        worlds=_rare_sea,
    ),
    LabStream(
        "led-abrupt",
        "classification",
        "abrupt",
        "ten digits; five segments change places",
        RECORDS,
        seed=1,
        shares=((0.5, 0),),
        worlds=_led,
    ),
    LabStream(
        "rbf-incremental",
        "classification",
        "incremental",
        "five classes of clouds that wander",
        RECORDS,
        seed=1,
        worlds=_moving_rbf,
    ),
    LabStream(
        "rbf-recurring",
        "classification",
        "recurring",
        "four classes; two sets of clouds in turns",
        RECORDS,
        seed=1,
        shares=((0.25, 0), (0.5, 0), (0.75, 0)),
        worlds=_recurring_rbf,
    ),
    LabStream(
        "friedman-abrupt",
        "regression",
        "abrupt",
        "Friedman; features change their roles twice",
        RECORDS,
        shares=((0.35, 0), (0.7, 0)),
        worlds=_friedman(_AS_USUAL, _SWAPPED, _TURNED),
    ),
    LabStream(
        "friedman-gradual",
        "regression",
        "gradual",
        "Friedman; the roles change little by little",
        RECORDS,
        shares=((0.4, 0.2),),
        worlds=_friedman(_AS_USUAL, _SWAPPED),
    ),
    LabStream(
        "friedman-none",
        "regression",
        "none",
        "Friedman; nothing changes",
        RECORDS,
        worlds=_friedman(_AS_USUAL),
    ),
    LabStream(
        "elec2",
        "classification",
        "real",
        "prices of electricity in New South Wales, half-hours",
        45_312,
        target="class",
        file="elec2.parquet",
    ),
    LabStream(
        "flights",
        "regression",
        "real",
        "minutes of delay of departures from New York City",
        30_000,
        target="arr_delay",
        file="flights.parquet",
    ),
)
"""The streams that ship, in the order of the tables."""
