"""The paths of all files under the home. This module is pure: it names paths and touches none.

HOME/
  key                          32 random bytes that sign models and checkpoints
  thermodrift.toml             settings of the whole installation; optional
  history.duckdb               the history; a damaged file is renamed and stays beside it
  history.watermark            how many commits the file has had, to notice a loss
  history.outbox/              commits that wait, a file each; flushed/ has the newest flushed ones
  devices/                     of each device: its state, its lease, a power limit to be restored
  gate-override.json           an override of the gate by a person; optional
  metrics/                     figures that runs, flushes and upkeep leave for a service to show
  pending_states/              how deployed runs ended, until Prefect's server knows it
  prefect/                     Prefect's own database of runs; pipelines do not depend on it
  pipelines/NAME/
    checkpoint                 models that learn online, detectors, counters, next position
    fit_checkpoint             what a retrain had fitted when it was preempted
    predictions/               the prediction log: Parquet, a file per batch, merged by upkeep
    labels.json                how far a service has read its file of labels, and which wait
    shadow.sqlite              what versions in the shadow would have answered, and the labels
    inbox.sqlite               a service's predictions that wait for labels, and joined examples
    models/                    batch models with manifests; champion.json points at one
    reports/                   drift pages (HTML)
    lock                       held by the one process that runs this pipeline
    queue.lock                 held by the run that waits for that lock
    run_leases/                of deployed runs: which run has each kind of work
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PIPELINE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def device_file(folder: Path, uuid: str, ending: str) -> Path:
    """Return the file of a device in `folder`. No `uuid` of a driver can lead out of the folder."""
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', uuid).lstrip('.') or '_'}{ending}"


@dataclass(frozen=True)
class PipelinePlaces:
    """The folder of one pipeline."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    def sibling(self, name: str) -> PipelinePlaces:
        """Return the folder of another pipeline of this home, or of this one."""
        return PipelinePlaces(self.root.parent / name)

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint"

    @property
    def fit_checkpoint(self) -> Path:
        return self.root / "fit_checkpoint"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox.sqlite"

    @property
    def labels(self) -> Path:
        return self.root / "labels.json"

    @property
    def shadow(self) -> Path:
        return self.root / "shadow.sqlite"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def queue_lock(self) -> Path:
        return self.root / "queue.lock"

    @property
    def run_leases(self) -> Path:
        return self.root / "run_leases"


@dataclass(frozen=True)
class Places:
    """The home of one installation."""

    home: Path

    @property
    def key(self) -> Path:
        return self.home / "key"

    @property
    def settings(self) -> Path:
        return self.home / "thermodrift.toml"

    @property
    def history(self) -> Path:
        return self.home / "history.duckdb"

    @property
    def watermark(self) -> Path:
        return self.home / "history.watermark"

    @property
    def outbox(self) -> Path:
        return self.home / "history.outbox"

    @property
    def prefect(self) -> Path:
        return self.home / "prefect"

    @property
    def devices(self) -> Path:
        return self.home / "devices"

    @property
    def override(self) -> Path:
        return self.home / "gate-override.json"

    @property
    def metrics(self) -> Path:
        return self.home / "metrics"

    @property
    def pending_states(self) -> Path:
        return self.home / "pending_states"

    @property
    def pipelines(self) -> Path:
        return self.home / "pipelines"

    def pipeline(self, name: str) -> PipelinePlaces:
        """Return the folder of the pipeline `name`. Raises ValueError for another name."""
        if not PIPELINE_NAME.fullmatch(name):
            raise ValueError(
                f"a pipeline's name is 1 to 63 of a-z, 0-9, '-' and '_', "
                f"and begins with a letter or a digit; came: {name!r}"
            )
        return PipelinePlaces(self.pipelines / name)
