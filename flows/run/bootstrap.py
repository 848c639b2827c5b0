"""Load or begin the state of a pipeline, and check that it fits the pipeline file.

What a user must correct is found here, before anything is learned: a stream that does not exist, a
recipe that cannot be built, knobs other than those the models have learned with, a full disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.config.pipeline import PipelineFile
from flows.run.state import PipelineState
from models.batch import batch_model, recipe_config
from models.core import user_code
from models.core.record_schema import Schema
from models.online import learner, online_model
from models.persistence import checkpoint
from models.persistence.signing import SigningKey
from models.stream.source import Cursor, Stream
from observability.core import atomic_file
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import PipelinePlaces
from observability.drift.error_monitor import ErrorMonitor

ROOM_BYTES = 16_000_000
"""What a run may write before its first record: Prefect's database alone takes six million."""


class InsufficientDiskSpace(ThermodriftError, OSError):
    """The home cannot be written, or its disk is nearly full."""


def state_and_stream(
    file: PipelineFile, places: PipelinePlaces, key: SigningKey
) -> tuple[PipelineState, Stream]:
    """The checkpoint's state or a new one, and the stream with its schema pinned.

    Raises BadConfiguration, StreamChanged, CheckpointUnusable and what the signing key raises.
    """
    find_factories(file)
    begun = load(places, key) if places.checkpoint.exists() else None
    task = file.pipeline.pipeline.task
    if begun is None and any(places.predictions.glob("*.parquet")):
        # A checkpoint is written before anything is logged: this log has lost its checkpoint, and
        # to begin at the start would remove the log.
        raise checkpoint.CheckpointUnusable(
            f"checkpoint {places.checkpoint} is gone, and the predictions beside it are there: "
            "restore it from a backup, or remove the pipeline's folder to learn from the start"
        )
    if begun is not None and begun.schema.task != task:
        raise BadConfiguration(
            f"{file.path}: pipeline.task: {task!r} was asked, but pipeline {file.name} has learned "
            f"{begun.schema.task}; give the new task another pipeline.name"
        )
    stream = open_stream(file, places, begun.schema if begun is not None else None)
    _refuse_unfit(file, stream.schema)
    if begun is None:
        return fresh(file, stream), stream
    _same_knobs(file, begun)
    if begun.learner.measure != file.pipeline.pipeline.measure:
        # Members keep the loss that they learned with; everything else may change from here on.
        begun.learner.judge_by(file.pipeline.pipeline.measure)
    return begun, stream


def fresh(file: PipelineFile, stream: Stream) -> PipelineState:
    """The state of a pipeline that has read no record yet."""
    schema = stream.schema
    return PipelineState(schema, _learner(file, schema), Cursor(), knobs(file))


def load(places: PipelinePlaces, key: SigningKey) -> PipelineState:
    """The state in the checkpoint. Raises FileNotFoundError, CheckpointUnusable."""
    state = checkpoint.load(places.checkpoint, key)
    if not isinstance(state, PipelineState):
        raise checkpoint.CheckpointUnusable(
            f"checkpoint {places.checkpoint} holds a {type(state).__name__}, not a pipeline's state"
        )
    return state


def validate_stream(file: PipelineFile, places: PipelinePlaces) -> None:
    """Check that the stream exists and can be read. Raises BadConfiguration."""
    options = file.pipeline.stream
    path = file.beside(options.path)
    if options.has_file and not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise BadConfiguration(
            f"{file.path}: stream.path: {what}; name one CSV, Parquet or JSON lines file, relative "
            "to the pipeline file"
        )
    if not places.checkpoint.exists():
        _ = open_stream(file, places).schema


def check_disk_space(home: Path) -> None:
    """Check that the home can be written and has room. Raises InsufficientDiskSpace."""
    try:
        # Rejects hold raw data: only the user may read a home that is created here.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_file.ensure_room(home, ROOM_BYTES)
    except OSError as error:
        raise InsufficientDiskSpace(
            f"the home cannot take the {ROOM_BYTES / 1e6:.0f} MB that a run needs to begin: "
            f"{error}: {atomic_file.remedy(error)}, then run again; this run has changed nothing"
        ) from error


def open_stream(
    file: PipelineFile, places: PipelinePlaces | None = None, schema: Schema | None = None
) -> Stream:
    """The pipeline's stream. Raises BadConfiguration where it cannot be read.

    Without `places`, as in the laboratory, it is the file alone, whatever follows it.
    """
    options, task = file.pipeline.stream, file.pipeline.pipeline.task
    if places is None or options.service is None:
        alone = options.model_copy(update={"then": ""})
        return Stream(file.beside(options.path), task, alone, schema)
    inbox = places.sibling(options.service).inbox
    stream = Stream(
        file.beside(options.path) if options.has_file else inbox, task, options, schema, inbox
    )
    never = schema is None and not options.has_file and options.service == file.name
    if never and not stream.total_hint:
        raise BadConfiguration(
            f"{file.path}: stream.path: {options.path} is the service of this pipeline itself, "
            "which can answer nothing before the pipeline has learned something: write under "
            f'[stream] the file that it begins with as path, and then = "{options.path}"'
        )
    return stream


def knobs(file: PipelineFile) -> Mapping[str, Any]:
    """The knobs that what learns online is built from, by their keys, as the file has them."""
    pipeline = file.pipeline
    online, blend = (each.model_dump(mode="json") for each in (pipeline.online, pipeline.blend))
    return {
        **{f"online.{key}": value for key, value in online.items()},
        **{f"blend.{key}": value for key, value in blend.items()},
        "drift.error_false_alarm_records": pipeline.drift.error_false_alarm_records,
        "drift.error_reference_rows": pipeline.drift.error_reference_rows,
    }


def _learner(file: PipelineFile, schema: Schema) -> learner.Learner:
    pipeline = file.pipeline
    measure = pipeline.pipeline.measure
    return learner.Learner(
        online_model.build(pipeline.online, schema, measure, file.folder),
        schema.task,
        pipeline.blend,
        ErrorMonitor(
            bounded=schema.task == "classification",
            false_alarm_records=pipeline.drift.error_false_alarm_records,
            reference_records=pipeline.drift.error_reference_rows,
        ),
        measure,
    )


def _same_knobs(file: PipelineFile, state: PipelineState) -> None:
    """Refuse changed knobs once anything was learned; before that, build the models anew."""
    if state.totals.learned == 0:
        state.learner, state.knobs = _learner(file, state.schema), knobs(file)
        return
    changed = [
        f"{key} was {state.knobs.get(key)!r} and is {value!r}"
        for key, value in knobs(file).items()
        if state.knobs.get(key) != value
    ]
    if changed:
        raise BadConfiguration(
            f"{file.path}: {'; '.join(changed)}: pipeline {file.name} has learned "
            f"{state.totals.learned} records with the old knobs, which cannot be changed any more. "
            "Restore them, or give the new ones another pipeline.name"
        )


def find_factories(file: PipelineFile) -> None:
    """Import a user's own modules before anything pickled from them is loaded."""
    for recipe in (*file.pipeline.online.members, *file.pipeline.batch.recipes):
        if ":" in recipe:
            user_code.find(recipe, file.folder)


def _refuse_unfit(file: PipelineFile, schema: Schema) -> None:
    """Refuse now what would make the first retrain fail, hours later."""
    if batch_model.PREDICTION in {*schema.names, schema.target}:
        raise BadConfiguration(
            f"{file.path}: stream: a column is called {batch_model.PREDICTION!r}, which is the "
            "name of the models' answers; rename that column in the data, or name it in "
            "stream.ignore"
        )
    wanted = file.pipeline.batch
    plain = set(wanted.recipes) <= set(recipe_config.PLAIN) and not wanted.params
    if plain and wanted.class_weight == "none":
        # scikit-learn takes seconds to import, and the first retrain may be hours away.
        return
    from models.batch import recipes

    for one in map(wanted.alone, wanted.recipes):
        made = recipes.build(one.recipe, one.params, schema.task, one.seed, schema, file.folder)
        if one.class_weight == "balanced":
            recipes.weigh(made.estimator, one.recipe, schema.task, None)
