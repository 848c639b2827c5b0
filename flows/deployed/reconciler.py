"""Correct what Prefect's server shows, where it and the home disagree: the home is right.

The server shows a run killed with SIGKILL as running for ever; a lease without a process proves the
opposite. It also shows as running a run whose end was not reported; the home has kept the final
state. No run takes up a request whose event was lost; the home says that it is open.
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

    lease: RunLease
    because: str


def report_pending(home: Path) -> None:
    """Report final states that the server does not know; without an answer they are kept."""
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
    """Find runs that were killed, mark them at the server, and remove their leases.

    Of the caller's own kind, that is the run that had the lease before it.
    """
    kind, before = held.lease.kind, held.before
    found = [run_lease.find_orphan(places, each) for each in run_lease.KINDS if each != kind]
    if before is not None and before.back_at_s is None and before.run_id != held.lease.run_id:
        found.append(before)
    lost = [mark_crashed(places, each) for each in found if each is not None]
    return [each for each in lost if each is not None]


def mark_crashed(places: PipelinePlaces, lease: RunLease) -> OrphanedRun | None:
    """Mark the run of a lease without a process as crashed, unless it is to come back."""
    because = (
        f"its process {lease.pid} on {lease.host} is gone; nothing that it had acknowledged is lost"
    )
    try:
        state = prefect_client.state_of(lease.run_id)
        if lease.back_at_s is not None and state is not None and not state.is_final():
            # It waits to come back, and its worker may be late.
            if state.is_scheduled() or time.time() < lease.back_at_s + GRACE_S:
                return None
        elif lease.back_at_s is None and state is not None and state.is_completed():
            # It completed, and was killed before it released its lease.
            run_lease.clear(places, lease)
            return None
        if state is not None and state.type in (StateType.RUNNING, StateType.PENDING):
            prefect_client.mark(lease.run_id, Crashed(message=because))
    except prefect_client.ServerUnavailable:
        # A later run finds the lease again.
        return None
    run_lease.clear(places, lease)
    return OrphanedRun(lease, because)


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
