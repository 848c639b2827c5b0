"""Every policy on every stream, side by side, under one prequential rule.

A stream is worked on in one process, piece by piece: the online members, each candidate, the runs
of the product. A finished piece is a file, so an experiment that was killed goes on. From the
pieces each policy is a cheap replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flows.config.pipeline import PipelineFile
from flows.laboratory import candidates, members, optimum, product_run, records, simulation
from flows.laboratory.candidates import FittedCandidate
from flows.laboratory.members import BASELINE, CHAMPION, Members
from flows.laboratory.optimum import Candidate, Schedule
from flows.laboratory.pieces import Pieces
from flows.laboratory.product_run import EVERY_ALARM, ProductRun
from flows.laboratory.records import Floats, LabConfig, StreamRecords
from flows.laboratory.simulation import Served

PRODUCT = "worth"
"""The policy that is the product's own, with the pipeline's knobs."""
POINTS = 40
"""Points of a line of the score over time."""
_FITS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100)
"""Numbers of fits at which the optimum is tried through the blend."""

Tick = Callable[[str, int, int], None]
"""Called with a stream, its finished pieces and all of them."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What a policy did: who served, and what was spent."""

    policy: str
    champion: Floats | None
    """The answers of its champion; None: it has none."""
    retrains: int
    promotions: int
    fit_s: float
    alone: Floats | None = None
    """The answers of one member that serves without the blend."""


class Bench:
    """One stream with all that its policies share."""

    def __init__(self, read: StreamRecords, online: Members, config: LabConfig) -> None:
        self.records, self.online, self.config = read, online, config
        baseline = read.losses(online.answers[BASELINE])
        self.stand_in = baseline
        """The losses of the baseline, which counts where a member has no answer."""
        self.price = config.fit_price * float(baseline.mean())

    def losses(self, answers: Floats) -> Floats:
        """The loss of each record, by a member's answers."""
        return self.records.losses(answers, self.stand_in)

    def cost(self, losses: Floats, retrains: int) -> float:
        """The loss of all records and the price of the fits."""
        return float(losses.sum()) + self.price * retrains

    def served(self, champion: Floats | None) -> Floats:
        """The losses of what the product's blend serves with this champion."""
        return self.losses(members.serve(self.records, self.online, champion))


def examine(
    home: Path, file: PipelineFile, config: LabConfig, tick: Tick = lambda *_: None
) -> dict[str, Any]:
    """Compare all policies on one stream; returns the document of the stream.

    Raises what reading the stream raises.
    """
    pieces = Pieces.of(home, file, config)
    return pieces.document("comparison", lambda: _examine(pieces, file, config, tick))


def _examine(pieces: Pieces, file: PipelineFile, config: LabConfig, tick: Tick) -> dict[str, Any]:
    read = records.read(file, config)
    places = candidates.positions(read, config)
    steps = len(places) + 4
    tick(file.name, 0, steps)
    online = Members(pieces.arrays("members", partial(_learned, read)))
    tick(file.name, 1, steps)
    fitted: list[FittedCandidate] = []
    for number, position in enumerate(places):
        arrays = pieces.arrays(
            f"candidate-{position:09d}",
            partial(_fitted, read, position),
        )
        candidate = candidates.from_arrays(arrays)
        if candidate is not None:
            fitted.append(candidate)
        tick(file.name, 2 + number, steps)
    runs: dict[str, ProductRun] = {}
    for number, (policy, knobs) in enumerate((("drift", EVERY_ALARM), (PRODUCT, {}))):
        runs[policy] = of_product(pieces, read, policy, knobs)
        tick(file.name, len(places) + 2 + number, steps)
    document = judged(Bench(read, online, config), fitted, runs)
    tick(file.name, steps, steps)
    return document


def _learned(read: StreamRecords) -> Iterable[tuple[str, Floats]]:
    return members.learn(read).answers.items()


def _fitted(read: StreamRecords, position: int) -> Iterable[tuple[str, Floats]]:
    return candidates.to_arrays(candidates.fit(read, position))


def of_product(
    pieces: Pieces, read: StreamRecords, name: str, knobs: product_run.Knobs
) -> ProductRun:
    """The product's run with these knobs: from its piece, or made now."""
    arrays = pieces.arrays(
        f"product-{name}",
        lambda: product_run.run(read, pieces.scratch(name), knobs).to_arrays(),
    )
    pieces.scratch(name).rmdir()
    return ProductRun.from_arrays(arrays)


def judged(
    bench: Bench, fitted: Sequence[FittedCandidate], runs: Mapping[str, ProductRun]
) -> dict[str, Any]:
    """The figures of every policy, from what was computed before."""
    read, config = bench.records, bench.config
    best, best_losses = hindsight(bench, fitted)
    entries = [*_simulated(bench, fitted), *_of_runs(bench, runs), *_alone(bench, runs)]
    rows = [_row(bench, each) for each in entries]
    chosen = [fitted[index] for index in best.chosen]
    champion = simulation.champion_answers(read, simulation.serving(chosen, config))
    fit_s = sum(each.fit_s for each in chosen)
    rows.append(
        _row(bench, Entry("optimum", champion, len(chosen), len(chosen), fit_s), best_losses)
    )
    least = rows[-1]["cost"]
    alone = optimum.cheapest(bench.stand_in, _to_choose(bench, fitted), bench.price)
    for row in rows:
        row["regret"] = row["cost"] / least - 1.0 if least > 0 else None
        cost = row.pop("champion_cost")
        row["champion_regret"] = None if cost is None else cost / alone.cost - 1.0
    return {
        "stream": read.file.name,
        "task": read.schema.task,
        "records": len(read),
        "score": "accuracy" if read.loss == "accuracy" else read.loss,
        "larger_is_better": read.larger_is_better,
        "price_of_a_fit": bench.price,
        "optimum_fits_at": [each.position for each in chosen],
        "retrains_at": {
            name: [each.position for each in run.retrains] for name, run in runs.items()
        },
        "alarms_at": {name: list(run.alarms) for name, run in runs.items()},
        "policies": rows,
    }


def hindsight(bench: Bench, fitted: Sequence[FittedCandidate]) -> tuple[Schedule, Floats]:
    """The cheapest schedule in hindsight, and the losses of what the blend serves with it.

    For each number of fits there is one schedule that is best for the champion alone; of these the
    one whose served cost is least. A few numbers of fits are left out where there are many.
    """
    found: list[tuple[float, Schedule, Floats]] = []
    for schedule in optimum.front(bench.stand_in, _to_choose(bench, fitted)):
        count = len(schedule.chosen)
        if count not in _FITS:
            continue
        chosen = [fitted[index] for index in schedule.chosen]
        models = simulation.serving(chosen, bench.config)
        losses = bench.served(simulation.champion_answers(bench.records, models))
        found.append((bench.cost(losses, count), schedule, losses))
        least = min(range(len(found)), key=lambda index: found[index][0])
        # The loss falls by less with every fit, and the price does not.
        if len(found) - least > 3:
            break
    _, schedule, losses = min(found, key=lambda each: each[0])
    return Schedule(schedule.chosen, schedule.loss, bench.price), losses


def _to_choose(bench: Bench, fitted: Sequence[FittedCandidate]) -> list[Candidate]:
    """The candidates as the optimum takes them; those that are ready too late are left out.

    They are the last ones, so that indexes stay the same.
    """
    rows = len(bench.records)
    found = []
    for each in fitted:
        ready = each.ready(bench.config)
        if ready >= rows:
            break
        losses = bench.losses(
            simulation.champion_answers(bench.records, [Served(ready, each.row, each.answers)])
        )
        found.append(Candidate(each.row, ready, losses[ready:]))
    return found


def _simulated(bench: Bench, fitted: Sequence[FittedCandidate]) -> list[Entry]:
    entries = []
    for name, asks in simulation.policies(bench.config).items():
        fits = simulation.chosen(asks, fitted, bench.config)
        answers = simulation.champion_answers(bench.records, simulation.serving(fits, bench.config))
        entries.append(Entry(name, answers, len(fits), len(fits), sum(each.fit_s for each in fits)))
    return entries


def _of_runs(bench: Bench, runs: Mapping[str, ProductRun]) -> list[Entry]:
    return [
        Entry(
            name,
            simulation.champion_answers(bench.records, run.serving(bench.records, bench.config)),
            len(run.retrains),
            len(run.promoted),
            sum(each.fit_s for each in run.retrains),
        )
        for name, run in runs.items()
    ]


def _alone(bench: Bench, runs: Mapping[str, ProductRun]) -> list[Entry]:
    """Single members without the blend, and the blend without a batch model."""
    entries = [
        Entry(f"{name} alone", None, 0, 0, 0.0, bench.online.answers[name])
        for name in bench.online.names
    ]
    own = next(each for each in _of_runs(bench, runs) if each.policy == PRODUCT)
    return [
        *entries,
        Entry(
            f"{CHAMPION} alone", own.champion, own.retrains, own.promotions, own.fit_s, own.champion
        ),
        Entry("blend without batch", None, 0, 0, 0.0),
    ]


def _row(bench: Bench, entry: Entry, losses: Floats | None = None) -> dict[str, Any]:
    read = bench.records
    if losses is None:
        alone = entry.alone
        losses = bench.served(entry.champion) if alone is None else bench.losses(alone)
    of_members = {name: bench.losses(each) for name, each in bench.online.answers.items()}
    champion = None if entry.champion is None else bench.losses(entry.champion)
    if champion is not None:
        of_members[CHAMPION] = champion
    best = min(of_members, key=lambda name: float(of_members[name].sum()))
    mean, least = float(losses.mean()), float(of_members[best].mean())
    parts = [float(part.mean()) for part in np.array_split(losses, min(POINTS, len(losses)))]
    return {
        "policy": entry.policy,
        "score": read.score(mean),
        "best_member": best,
        "best_member_score": read.score(least),
        # Positive where what is served is better than the best member.
        "against_best_member": least - mean,
        "retrains": entry.retrains,
        "promotions": entry.promotions,
        "fit_s": entry.fit_s,
        "joules": entry.fit_s * bench.config.cpu_watts,
        "cost": bench.cost(losses, entry.retrains),
        "champion_cost": None if champion is None else bench.cost(champion, entry.retrains),
        "over_time": [read.score(part) for part in parts],
    }
