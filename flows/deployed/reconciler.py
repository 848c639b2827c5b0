"""Correct what Prefect's server shows, where it and the home disagree: the home is right.

To the server a run killed with SIGKILL runs for ever; a claim without a process says that it does
not. The same is true of a run whose ending the server did not hear of; the home has kept the
ending. A request whose event was lost is taken up by no run; the home says that it is open.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from flows.config import settings
from flows.deployed import pending_states, run_lease
from flows.deployed.run_lease import HeldLease, RunLease
from flows.stack import prefect_client
from observability.core.paths import PipelinePlaces

GRACE_S = 120.0
"""Seconds that a waiting run may come back late: its worker may start slowly."""
RETRAIN_FLOW = "thermodrift-retrain"


@dataclass(frozen=True)
class OrphanedRun:
    """A run that has no process any more, and had not ended."""

    claim: RunLease
    because: str


def report_pending(home: Path) -> None:
    """Report endings that the server does not know; those that it does not hear now stay."""
    bound_s = settings.Settings().exit_within_s
    for ended in pending_states.waiting(home):
        if ended.may_still_be_reported(bound_s):
            continue
        try:
            state = prefect_client.state_of(ended.run_id)
            if state is not None and pending_states.is_stale(state):
                prefect_client.mark(ended.run_id, ended.state())
        except prefect_client.ServerUnavailable:
            return
        pending_states.forget(home, ended.run_id)


def reap_orphans(places: PipelinePlaces, held: HeldLease) -> list[OrphanedRun]:
    """Find runs that were killed, mark them at the server, and remove their claims.

    Of the caller's own kind, which it holds, that is the run that had the claim before it.
    """
    kind, before = held.claim.kind, held.before
    found = [run_lease.find_orphan(places, each) for each in run_lease.KINDS if each != kind]
    if before is not None and before.back_at_s is None and before.run_id != held.claim.run_id:
        found.append(before)
    lost = [mark_crashed(places, each) for each in found if each is not None]
    return [each for each in lost if each is not None]


def mark_crashed(places: PipelinePlaces, claim: RunLease) -> OrphanedRun | None:
    """Mark the run of a claim without a process as crashed, unless it is to come back."""
    because = (
        f"the process {claim.pid} on {claim.host} that did it is gone; nothing that it "
        "had acknowledged is lost"
    )
    try:
        state = prefect_client.state_of(claim.run_id)
        if claim.back_at_s is not None and state is not None and not state.is_final():
            # It waits to come back, and its worker may be late.
            if state.is_scheduled() or time.time() < claim.back_at_s + GRACE_S:
                return None
        elif claim.back_at_s is None and state is not None and state.is_completed():
            # It ended well, and was killed before it released its claim.
            run_lease.clear(places, claim)
            return None
        if state is not None and state.type in (StateType.RUNNING, StateType.PENDING):
            prefect_client.mark(claim.run_id, Crashed(message=because))
    except prefect_client.ServerUnavailable:
        # A later run finds the claim again.
        return None
    run_lease.clear(places, claim)
    return OrphanedRun(claim, because)


def retrain_is_coming(places: PipelinePlaces, pipeline: str) -> bool:
    """Whether a run works on the pipeline's request, waits with it, or is about to start.

    A server that does not answer could not start one either: then no run is coming.
    """
    if run_lease.busy(places, "retrain") or run_lease.find_orphan(places, "retrain") is not None:
        return True
    try:
        runs = prefect_client.coming(RETRAIN_FLOW)
    except prefect_client.ServerUnavailable:
        return False
    return any(run.parameters.get("pipeline") == pipeline for run in runs)
