"""What every deployed run does around its work: begin, correct the server, end by a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from pydantic import BaseModel

from flows.config import pipeline, settings
from flows.config.overrides import over
from flows.config.pipeline import PipelineFile
from flows.deployed import exit_deadline, pending_states, reconciler, run_lease
from flows.deployed.run_lease import HeldLease, RunKind
from flows.run.progress import Display
from flows.run.shutdown import Stop, StopRequested
from flows.stack import prefect_client
from observability.core import failpoints
from observability.core.errors import ThermodriftError, TryAgainLater
from observability.core.paths import PipelinePlaces, Places

EVENTS = "thermodrift."
"""What the names of our events begin with."""


@dataclass
class DeployedRun:
    """One deployed run of one pipeline."""

    file: PipelineFile
    home: Path
    run_id: str
    """Prefect's id of the flow run; the history uses it as well."""
    stop: Stop
    display: Display
    lease: HeldLease | None = None

    @property
    def places(self) -> PipelinePlaces:
        """Where the pipeline lies."""
        return Places(self.home).pipeline(self.file.name)

    def ends(self, name: str, because: str) -> State:
        """End the run as completed, with a state of this name; kept until the server knows it."""
        return pending_states.save(self.home, self.run_id, True, name, because)

    def emit(self, what: str, labels: dict[str, str] | None = None, **payload: Any) -> None:
        """Report to the server what happened to this pipeline."""
        here = {"pipeline": str(self.file.path), "home": str(self.home), "run_id": self.run_id}
        prefect_client.emit(EVENTS + what, self.file.name, labels or {}, {**here, **payload})

    def show_table(self, key: str, table: str, description: str) -> None:
        """Put a table, as JSON, beside the run on the server's page."""
        # Prefect's keys have no underscore.
        key = f"{key}-{self.file.name.replace('_', '-')}"
        prefect_client.show(self.run_id, key, "table", table, description)


def run_flow(
    kind: RunKind,
    path: Path,
    home: Path | None,
    work: Callable[[DeployedRun], State],
    **knobs: BaseModel | None,
) -> State:
    """Do `work` for a pipeline; the state that the run ends with.

    What only means "not now" ends the run as Busy or Stopped. Raises BadConfiguration, and what the
    work raises; a failure is reported as an event as well.
    """
    with exit_deadline.exit_within():
        file = over(pipeline.read(path), **knobs)
        run = DeployedRun(file, home_of(home), run_id(), Stop(), Display(file.name))
        pending_states.forget(run.home, run.run_id)
        try:
            with (
                run.stop.listening(),
                run.display,
                run_lease.held(run.places, kind, run.run_id) as run.lease,
            ):
                reconciler.report_pending(run.home)
                for orphan in reconciler.reap_orphans(run.places, run.lease):
                    # A run that waited, and that a person cancelled meanwhile, did not fail.
                    if orphan.lease.back_at_s is None:
                        run.emit(
                            f"{orphan.lease.kind}.failed",
                            because=orphan.because,
                            killed_run=orphan.lease.run_id,
                        )
                return work(run)
        except TryAgainLater as later:
            return run.ends("Busy", str(later))
        except StopRequested:
            return run.ends("Stopped", "a signal stopped it; what was begun is done again")
        except (ThermodriftError, OSError, RuntimeError, ValueError) as error:
            because = f"{type(error).__name__}: {error}"
            pending_states.save(run.home, run.run_id, False, None, because)
            run.emit(f"{kind}.failed", because=because)
            raise


def home_of(given: Path | None) -> Path:
    """The home of a run: as given, or as the worker's environment says."""
    settings.silence_telemetry()
    environment = settings.Settings()
    failpoints.arm_from(environment.faults)
    return (given or environment.home).resolve()


def run_id() -> str:
    """Prefect's id of the flow run that this process is doing."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return str(context.flow_run.id)
