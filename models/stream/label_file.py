"""A file of labels by key: each record names a prediction, and says what came true.

Part of the stream adapter: the file is read as a stream is, in any of its formats and packings, and
may grow. Of its columns only the key and the target count. It decides nothing: who reads it labels
the predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core.record_schema import Column, Label, Schema
from models.inbox import json_content
from models.inbox.errors import InvalidContent
from models.stream.batches import BadStream, Cursor, Format, StreamChanged, StreamOptions
from models.stream.source import Stream


class LabelFileConfig(BaseModel):
    """A file of labels that `thermodrift serve` follows, TOML table ``[labels]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(
        default=None,
        min_length=1,
        description="The file, relative to the pipeline file: CSV, JSON lines or Parquet, as a "
        "stream; it may grow. Left out: labels come over HTTP alone.",
    )
    key: str = Field(
        default="id",
        min_length=1,
        description="The column that names the prediction, by the id that it was asked with.",
    )
    target: str | None = Field(
        default=None,
        min_length=1,
        description="The column of the label. Left out: that of the stream.",
    )
    format: Format | None = Field(
        default=None, description="As `format` of [stream]; left out: by the ending."
    )
    delimiter: str = Field(default="auto", description="As `delimiter` of [stream].")
    encoding: str = Field(default="auto", description="As `encoding` of [stream].")
    most_early: int = Field(
        default=10_000,
        ge=0,
        le=1_000_000,
        description="Labels that wait for a prediction that is not there yet; beyond it the oldest "
        "are given up.",
    )
    early_s: float = Field(
        default=86_400.0,
        ge=0,
        le=100 * 365 * 86_400.0,
        description="Seconds that such a label waits before it is given up.",
    )

    def options(self, path: Path, target: str) -> StreamOptions:
        """How the file is read, as a stream. Raises ValueError for what no stream takes."""
        return StreamOptions(
            path=str(path),
            target=target,
            format=self.format or "auto",
            delimiter=self.delimiter,
            encoding=self.encoding,
            categories=(self.key,),
        )

    @model_validator(mode="after")
    def _can_be_a_stream(self) -> Self:
        self.options(Path("labels"), self.target or f"other than {self.key}")
        return self


@dataclass(frozen=True)
class LabelRows:
    """Some records of the file."""

    truths: list[tuple[str, Label]]
    """Key and label of each record that has both, in order."""
    without_label: int
    """Records whose label is missing: it may come in a later record."""
    rejected: int
    """Records that could not be read, or that name no prediction."""
    reason: str
    """Why the first of those was rejected; empty where none was."""
    after: Cursor
    ended: bool
    unfinished: int
    """Bytes of a last line whose end is not there: it may be half a label, and is not read."""


class LabelFile:
    """The file, read by the rules of the pipeline whose predictions it labels."""

    def __init__(self, path: Path, config: LabelFileConfig, schema: Schema) -> None:
        """Does not open the file. Raises BadStream for an ending that says nothing."""
        self._key = config.key
        target = config.target or schema.target
        if target == config.key:
            raise BadStream(
                f"labels.key: {target!r} is the column of the label too: name the column of the "
                "label as labels.target, and that of the id as labels.key"
            )
        options = config.options(path, target)
        # Numbers are written as in the stream, and classes are the classes of the stream.
        of_labels = Schema(
            columns=(Column(name=config.key, kind="category"),),
            target=target,
            task=schema.task,
            label_kind=schema.label_kind,
            label_spelling=schema.label_spelling,
        )
        self._path = path
        # A label is joined for good, and half a number is a number too.
        self._stream = Stream(path, schema.task, options, of_labels, whole_lines=True)

    def read(self, cursor: Cursor, size: int) -> LabelRows:
        """The next `size` records at most.

        Raises StreamChanged if the file is not that of the cursor, StreamUnreadable, BadStream.
        """
        try:
            batch = self._stream.read(cursor, size)
        except BadStream as error:
            # It is another table's file, with the same keys.
            raise BadStream(str(error).replace("stream.", "labels.")) from error
        except StreamChanged as error:
            raise StreamChanged(
                f"{self._path} is not the file that was read until its record {cursor.position}: "
                "put that back; or remove labels.json from the pipeline's folder, and it is read "
                "from its beginning: what was joined stays as it is"
            ) from error
        reasons = [each.reason for each in batch.rejects]
        truths: list[tuple[str, Label]] = []
        without_label = 0
        for row, label in zip(batch.rows, batch.labels, strict=True):
            try:
                key = self._id(row[self._key])
            except InvalidContent as error:
                reasons.append(f"column {self._key!r} names no prediction: {error}")
                continue
            if label is None:
                without_label += 1
            else:
                truths.append((key, label))
        return LabelRows(
            truths=truths,
            without_label=without_label,
            rejected=len(reasons),
            reason=reasons[0] if reasons else "",
            after=batch.after,
            ended=batch.ended,
            unfinished=batch.unfinished,
        )

    def _id(self, cell: object) -> str:
        """The id of a prediction. Raises InvalidContent for what can be none."""
        if cell is None:
            raise InvalidContent("it is blank")
        json_content.check_id(str(cell))
        return str(cell)
