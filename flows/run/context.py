"""What does not change during a run: its pipeline, its folders, its adapters and its id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from flows.config.pipeline import PipelineFile
from flows.run.power_source import PowerSource
from flows.run.progress import Display
from flows.run.shutdown import Stop
from models.persistence.signing import SigningKey
from models.registry.registry import Registry
from models.stream.source import Stream
from observability.core.paths import PipelinePlaces, Places
from observability.history.records import Record
from observability.history.store import History

Row = TypeVar("Row", bound=Record)


@dataclass(frozen=True)
class RunContext:
    """What every step of a run works with."""

    file: PipelineFile
    home: Places
    places: PipelinePlaces
    """Where the pipeline lies in the home."""
    signing_key: SigningKey
    registry: Registry
    history: History
    stream: Stream
    power: PowerSource
    stop: Stop
    display: Display
    limit: int | None
    """Most records that this run may read; None: no limit."""
    run_id: str

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.file.name

    def now(self) -> datetime:
        """The time for records."""
        return datetime.now(UTC)

    def row(self, kind: type[Row], /, **fields: object) -> Row:
        """A row of history, made here and now by this run of this pipeline."""
        here = {"at": self.now(), "pipeline": self.name, "run_id": self.run_id}
        return kind.model_validate({**here, **fields})
