"""The first line of a checkpoint: what `thermodrift status` reads without unpickling anything."""

from __future__ import annotations

from dataclasses import asdict

from flows.run.context import RunContext
from flows.run.state import PipelineState
from models.core import scoring
from models.online.learner import Learner
from models.stream.source import StreamOptions


def header(run: RunContext, state: PipelineState) -> dict[str, object]:
    """What is known at this position, fit for JSON."""
    request, candidate = state.request, state.worth.candidate
    return {
        "pipeline": run.name,
        "task": state.schema.task,
        "position": state.position,
        "at": run.now().isoformat(),
        "learned_at": None if state.learned_at is None else state.learned_at.isoformat(),
        "run_id": run.run_id,
        "champion": state.champion,
        "totals": vars(state.totals),
        "intake": state.intake.brief(),
        "scores": {name: tally.mean for name, tally in state.learner.tallies.items()},
        "score_sums": {name: tally.total for name, tally in state.learner.tallies.items()},
        "scored": {name: tally.count for name, tally in state.learner.tallies.items()},
        **judged(state.learner),
        "unknown_votes": unknown_votes(state),
        "open_request": None if request is None else asdict(request),
        "waited_s": None
        if request is None
        else run.power.request_s(state.position) - request.asked_s,
        "candidate": None if candidate is None else asdict(candidate),
        "reads_from": run.file.pipeline.gate.reads_from,
        "service": vars(state.service),
        "unlabelled_look": unlabelled_look(state),
        "estimate": estimate(state),
        "reads_labels": reads_labels(run.file.pipeline.stream, state),
    }


def reads_labels(options: StreamOptions, state: PipelineState) -> dict[str, object]:
    """The service whose labels are learned (null: none), and how many of its examples were."""
    place = state.cursor.inbox
    return {"service": options.service, "examples": 0 if place is None else place.read}


def unlabelled_look(state: PipelineState) -> dict[str, object] | None:
    """The last look at predictions without a label; None: there was none."""
    return None if state.unlabelled.position is None else asdict(state.unlabelled)


def estimate(state: PipelineState) -> dict[str, object] | None:
    """The score that is expected of what has no label, and how far off that was; None: unknown."""
    known = state.stretches.estimate()
    metric = scoring.metric_name(state.schema.task)
    return None if known is None else {"metric": metric, **asdict(known)}


def unknown_votes(state: PipelineState) -> list[dict[str, object]]:
    """Votes that the last drift check could not cast: vote, since, because, remedy."""
    return [{"vote": vote, **asdict(each)} for vote, each in state.unknown.items()]


def calibration(learner: Learner) -> dict[str, object] | None:
    """How far the served probabilities are from what they promise; None in regression."""
    known = learner.reliability
    if known is None:
        return None
    return {"error": known.error, "ranges": [asdict(each) for each in known.ranges]}


def champion_value(learner: Learner) -> dict[str, object] | None:
    """What the champion adds to the blend, in the judged metric's loss; None: it is not known."""
    known = learner.champion_value.value()
    return None if known is None else {**known._asdict(), "adds": known.adds}


def judged(learner: Learner) -> dict[str, object]:
    """The score of each member by the judged metric."""
    return {
        "judged_by": learner.measure.name,
        "judged": {name: each.value() for name, each in learner.judged.items()},
        "judged_over": {name: each.count for name, each in learner.judged.items()},
        "calibration": calibration(learner),
        "champion_value": champion_value(learner),
        "threshold": learner.threshold.value if learner.threshold is not None else None,
    }
