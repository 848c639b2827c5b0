"""What a Prefect server runs: learn, watch, retrain, upkeep. `prefect.yaml` deploys these four.

    learn    on a schedule   Learned, NothingNew
    watch    on a schedule   NotDue, NotEnoughData, NoDrift, DriftDetected, RetrainRequested
    retrain  by an event     Promoted, Rejected, Skipped, NoModel, NoRequest; else AwaitingHeadroom
    upkeep   every night     Completed, Deferred

Each of them also ends as Busy, where another run has what it needs, and as Stopped, where a signal
ended it. The truth stands in the home. Each run first corrects what the server shows of earlier
runs. Alarms and endings are also events (docs/operations.md lists them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows import maintenance as tidying
from flows.deployed import (
    drift_run,
    exit_deadline,
    flow_run,
    learn_run,
    pending_states,
    retrain_run,
)
from flows.deployed.backoff import Backoff
from flows.deployed.flow_run import DeployedRun
from models.batch.promotion import PromotionConfig
from models.batch.recipe_config import BatchRecipe
from observability.drift.drift import DriftConfig
from observability.drift.retrain_policy import RetrainConfig
from power.core.gate_config import GateConfig
from power.forecast.config import ForecastConfig
from power.policy.power_cap import CapConfig

HEARD = [exit_deadline.cancel, pending_states.acknowledge]
PLAIN: dict[str, Any] = {
    # The state of a pipeline is in its checkpoint: nothing is pickled for Prefect to keep, and a
    # second try would only do again what the next run does anyhow.
    "persist_result": False,
    "retries": 0,
    "on_completion": HEARD,
    "on_failure": HEARD,
    "on_crashed": HEARD,
    "on_cancellation": HEARD,
}
Records = Annotated[int, Field(ge=1)]


@flow(name="thermodrift-learn", **PLAIN)
def learn(
    pipeline: Path, home: Path | None = None, limit: Records | None = None, to_look: bool = True
) -> State:
    """Learn what the stream has that is new.

    `pipeline` is the pipeline's TOML file, `home` the folder that keeps everything (else
    THERMODRIFT_HOME). It ends at the stream's end, after `limit` records, and, with `to_look`,
    where it is time to look for drift.
    """

    def work(job: DeployedRun) -> State:
        shift = learn_run.run_learn(
            job.file, job.home, job.run_id, job.stop, job.display, limit, to_look
        )
        if shift.look_due and shift.records:
            job.emit("drift_check.due", position=shift.position)
        name = "Stopped" if job.stop() else "Learned" if shift.records else "NothingNew"
        return job.ends(name, learn_run.describe(shift))

    return flow_run.run_flow("learn", pipeline, home, work)


@flow(name="thermodrift-watch", **PLAIN)
def watch(
    pipeline: Path,
    home: Path | None = None,
    drift: DriftConfig | None = None,
    worth: RetrainConfig | None = None,
) -> State:
    """Look whether the world has changed, and whether a retrain is worth asking for.

    `drift` and `worth` are knobs over those of the pipeline's file. A request is in the history
    before anybody is told of it; one that nobody is about to settle is told of again.
    """

    def work(job: DeployedRun) -> State:
        look = drift_run.run_drift_check(job)
        drift_run.announce(job, look)
        if look.looked is not None:
            job.emit("drift_check.completed", position=look.position)
        return job.ends(look.name, look.because)

    return flow_run.run_flow("watch", pipeline, home, work, drift=drift, worth=worth)


@flow(name="thermodrift-retrain", **PLAIN)
def retrain(
    pipeline: Path,
    request_id: str | None = None,
    home: Path | None = None,
    batch: BatchRecipe | None = None,
    gate: GateConfig | None = None,
    promotion: PromotionConfig | None = None,
    forecast: ForecastConfig | None = None,
    cap: CapConfig | None = None,
    patience: Backoff | None = None,
) -> State:
    """Settle the open request of a pipeline, when the machine may; come back later if it may not.

    `request_id` says which request this run was started for; whichever is open is settled.
    `patience` is for when no forecast says how long to wait; the others are knobs over those of the
    pipeline's file.
    """
    knobs = {
        "batch": batch,
        "gate": gate,
        "promotion": promotion,
        "forecast": forecast,
        "cap": cap,
    }

    def work(job: DeployedRun) -> State:
        return retrain_run.run_retrain(job, request_id, patience or Backoff())

    return flow_run.run_flow("retrain", pipeline, home, work, **knobs)


@flow(name="thermodrift-upkeep-daily", **PLAIN)
def upkeep(home: Path | None = None) -> State:
    """Merge the prediction logs of a home, and remove what its [upkeep] no longer keeps."""
    with exit_deadline.exit_within():
        home, run_id = flow_run.home_of(home), flow_run.run_id()
        pending_states.forget(home, run_id)
        document = tidying.upkeep.fn(home)
        told = "; ".join(
            f"{deed['pipeline'] or 'history'}: {deed['because']}" for deed in document["deeds"]
        )
        if document["state"] == "failed":
            return pending_states.save(home, run_id, False, None, told)
        name = "Completed" if document["state"] == "done" else "Deferred"
        return pending_states.save(home, run_id, True, name, told)
