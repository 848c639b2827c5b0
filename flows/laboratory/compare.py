"""Every policy on every stream, side by side, under one prequential rule.

A stream is worked on in one process, piece by piece: the online members, each candidate, the runs
of the product. A finished piece is a file, so an experiment that was killed goes on. From the
pieces each policy is a cheap replay.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from flows.config import pipeline
from flows.laboratory import candidates, members, optimum, product_run, records, simulation
from flows.laboratory.candidates import FittedCandidate
from flows.laboratory.crew import Work
from flows.laboratory.members import CHAMPION, Members
from flows.laboratory.optimum import Candidate
from flows.laboratory.pieces import Pieces
from flows.laboratory.product_run import EVERY_ALARM, ProductRun
from flows.laboratory.records import Floats, LabConfig, StreamRecords
from flows.laboratory.simulation import Served
from models.online.learner import BASELINE

PRODUCT = "worth"
"""The policy that is the product's own, with the pipeline's knobs."""
OPTIMUM = "optimum"
"""The schedule that hindsight finds best."""
POINTS = 40
"""Points of a line of the score over time."""
_FITS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100)
"""Numbers of fits at which the optimum is tried through the blend."""

_PARTS = 4
"""Steps among which the candidates of a stream are divided."""
_RUNS: Mapping[str, product_run.Knobs] = {"drift": EVERY_ALARM, PRODUCT: {}}
"""The policies that are runs of the product, and the knobs that each changes."""


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
        self._served: dict[tuple[int, ...], Floats] = {}

    def losses(self, answers: Floats) -> Floats:
        """The loss of each record, by a member's answers."""
        return self.records.losses(answers, self.stand_in)

    def cost(self, losses: Floats, retrains: int) -> float:
        """The loss of all records and the price of the fits."""
        return float(losses.sum()) + self.price * retrains

    def served(self, champion: Floats | None) -> Floats:
        """The losses of what the product's blend serves with this champion."""
        return self.losses(members.serve(self.records, self.online, champion))

    def champion(self, fits: Sequence[FittedCandidate]) -> Floats:
        """What the champion answers where these models are fitted."""
        return simulation.champion_answers(self.records, simulation.serving(fits, self.config))

    def served_by(self, fits: Sequence[FittedCandidate]) -> Floats:
        """The losses of what is served where these models are fitted; computed once."""
        key = tuple(each.position for each in fits)
        if key not in self._served:
            self._served[key] = self.served(self.champion(fits))
        return self._served[key]

    def cost_of_schedule(self, fits: Sequence[FittedCandidate]) -> float:
        """What is lost and paid where these models are fitted."""
        return self.cost(self.served_by(fits), len(fits))


def works(home: Path, files: Sequence[Path], config: LabConfig) -> list[Work[dict[str, Any]]]:
    """The steps that compare all policies on these pipelines; each result is a document."""
    return [
        Work(
            pipeline.read(path).name,
            [
                partial(_members, home, path, config),
                *(partial(_candidates, home, path, config, part) for part in range(_PARTS)),
                *(partial(_product, home, path, config, policy) for policy in _RUNS),
            ],
            partial(document, home, path, config),
        )
        for path in files
    ]


def document(home: Path, path: Path, config: LabConfig) -> dict[str, Any]:
    """The comparison on one pipeline; what is not computed yet is computed now.

    Raises what reading the pipeline and its stream raises.
    """
    pieces, read = opened(home, path, config)

    def made() -> dict[str, Any]:
        fitted = [_candidate(pieces, read, at) for at in candidates.positions(read, config)]
        return judged(
            Bench(read, online(pieces, read), config),
            [each for each in fitted if each is not None],
            {policy: of_product(pieces, read, policy, knobs) for policy, knobs in _RUNS.items()},
        )

    return pieces.document("comparison", made)


@lru_cache(maxsize=1)
def opened(home: Path, path: Path, config: LabConfig) -> tuple[Pieces, StreamRecords]:
    """The pieces and the records of a pipeline; a process mostly stays with one of them."""
    file = pipeline.read(path)
    return Pieces.of(home, file, config), records.read(file, config)


def _members(home: Path, path: Path, config: LabConfig) -> None:
    online(*opened(home, path, config))


def _candidates(home: Path, path: Path, config: LabConfig, part: int) -> None:
    pieces, read = opened(home, path, config)
    for position in candidates.positions(read, config)[part::_PARTS]:
        _candidate(pieces, read, position)


def _product(home: Path, path: Path, config: LabConfig, policy: str) -> None:
    of_product(*opened(home, path, config), policy, _RUNS[policy])


def online(pieces: Pieces, read: StreamRecords) -> Members:
    """What the online members answer: from its piece, or computed now."""
    return Members(pieces.arrays("members", partial(_learned, read)))


def _candidate(pieces: Pieces, read: StreamRecords, position: int) -> FittedCandidate | None:
    name = f"candidate-{position:09d}"
    return candidates.from_arrays(pieces.arrays(name, partial(_fitted, read, position)))


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
    shutil.rmtree(pieces.folder / f"{name}.scratch", ignore_errors=True)
    return ProductRun.from_arrays(arrays)


def judged(
    bench: Bench, fitted: Sequence[FittedCandidate], runs: Mapping[str, ProductRun]
) -> dict[str, Any]:
    """The figures of every policy, from what was computed before."""
    read, config = bench.records, bench.config
    fixed = {
        name: simulation.chosen(asks, fitted, config)
        for name, asks in simulation.policies(config).items()
    }
    chosen = hindsight(bench, fitted, list(fixed.values()))
    rows = [_row_of_schedule(bench, name, fits) for name, fits in fixed.items()]
    rows += [_row(bench, each) for each in (*_of_runs(bench, runs), *_alone(bench, runs))]
    rows.append(_row_of_schedule(bench, OPTIMUM, chosen))
    least = rows[-1]["cost"]
    alone = optimum.cheapest(bench.stand_in, _to_choose(bench, fitted), bench.price)
    for row in rows:
        row["regret"] = row["cost"] / least - 1.0 if least > 0 else None
        cost = row.pop("champion_cost")
        # The schedule that is best through the blend need not be the best without it.
        told = cost is not None and row["policy"] != OPTIMUM and alone.cost > 0
        row["champion_regret"] = cost / alone.cost - 1.0 if told else None
    return {
        "stream": read.file.name,
        "task": read.schema.task,
        "records": len(read),
        "score": "accuracy" if read.loss == "accuracy" else read.loss,
        "larger_is_better": read.larger_is_better,
        "price_of_a_fit": bench.price,
        "optimum_fits_at": [each.position for each in chosen],
        "retrains_at": {name: [each.position for each in run.fits] for name, run in runs.items()},
        "alarms_at": {name: list(run.alarms) for name, run in runs.items()},
        "policies": rows,
    }


def hindsight(
    bench: Bench,
    fitted: Sequence[FittedCandidate],
    tried: Sequence[Sequence[FittedCandidate]] = (),
) -> Sequence[FittedCandidate]:
    """The schedule of models whose served cost is least, as hindsight knows it.

    For each number of fits there is one schedule that is best for the champion alone. These are
    tried through the blend, and so are the schedules that policies have `tried`. A few numbers of
    fits are left out where there are many.
    """
    found: list[Sequence[FittedCandidate]] = list(tried)
    costs: list[float] = []
    for schedule in optimum.front(bench.stand_in, _to_choose(bench, fitted)):
        if len(schedule.chosen) not in _FITS:
            continue
        found.append([fitted[index] for index in schedule.chosen])
        costs.append(bench.cost_of_schedule(found[-1]))
        # The loss falls by less with every fit, and the price does not.
        if len(costs) - costs.index(min(costs)) > 3:
            break
    return min(found, key=lambda fits: (bench.cost_of_schedule(fits), len(fits)))


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


def champion_of(bench: Bench, run: ProductRun) -> Floats:
    """The answers of the product's champions over the whole stream."""
    serving = run.serving(bench.records, bench.config)
    return simulation.champion_answers(bench.records, serving)


def _of_runs(bench: Bench, runs: Mapping[str, ProductRun]) -> list[Entry]:
    return [
        Entry(
            name,
            champion_of(bench, run),
            len(run.fits),
            len(run.promoted),
            sum(each.fit_s for each in run.fits),
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
        Entry("no batch", None, 0, 0, 0.0),
    ]


def _row_of_schedule(bench: Bench, name: str, fits: Sequence[FittedCandidate]) -> dict[str, Any]:
    fit_s = sum(each.fit_s for each in fits)
    entry = Entry(name, bench.champion(fits), len(fits), len(fits), fit_s)
    return _row(bench, entry, bench.served_by(fits))


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


def summary(documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each stream: the product's rule against its members, the schedules, and hindsight.

    `schedule` is the fixed schedule with the fewest processor seconds that is not worse than the
    product, beyond what `equal` calls equal; None where there is none. `saved` is the share of its
    seconds that the product does not need.
    """
    return [_summary(each) for each in documents]


def equal(document: Mapping[str, Any], score: float) -> float:
    """How much worse a score may be and still be called equal: 0.2 points, or 1 % of an error."""
    return 0.002 if document["task"] == "classification" else 0.01 * abs(score)


def _summary(document: Mapping[str, Any]) -> dict[str, Any]:
    rows = {row["policy"]: row for row in document["policies"]}
    own = rows[PRODUCT]
    sign = 1.0 if document["larger_is_better"] else -1.0
    allowed = equal(document, own["score"])
    fixed = [
        row
        for name, row in rows.items()
        if name.startswith("every ") and sign * (row["score"] - own["score"]) >= -allowed
    ]
    schedule = min(fixed, key=lambda row: row["fit_s"], default=None)
    saved = None
    if schedule is not None and schedule["fit_s"] > 0:
        saved = 1.0 - own["fit_s"] / schedule["fit_s"]
    return {
        "stream": document["stream"],
        "score": own["score"],
        "best_member": own["best_member"],
        "against_best_member": own["against_best_member"],
        "not_below_best_member": own["against_best_member"] >= -allowed,
        "schedule": None if schedule is None else schedule["policy"],
        "saved": saved,
        "regret": own["regret"],
    }
