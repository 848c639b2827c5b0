"""Overrides of the pipeline file's knobs for one run, by a deployment or a user.

A flow's parameter is the same frozen model as the file's table, so Prefect shows it as a form and
refuses a misspelt knob. Only the knobs that were given count; the others are the file's.
"""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from flows.config.pipeline import Pipeline, PipelineFile
from observability.core.errors import BadConfiguration


def over(file: PipelineFile, **tables: BaseModel | None) -> PipelineFile:
    """`file` with the knobs that `tables` set, by the table's name.

    Raises BadConfiguration where they contradict what the file says.
    """
    given = {name: knobs for name, knobs in tables.items() if knobs is not None}
    changed = {name: _merged(file, name, knobs) for name, knobs in given.items()}
    return file.model_copy(update={"pipeline": file.pipeline.model_copy(update=changed)})


def _merged(file: PipelineFile, table: str, knobs: BaseModel) -> BaseModel:
    stands: BaseModel = getattr(file.pipeline, table)
    assert table in Pipeline.model_fields
    try:
        return type(stands).model_validate(
            {**stands.model_dump(), **knobs.model_dump(include=knobs.model_fields_set)}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise BadConfiguration(
            f"the run's parameter {table} does not go with [{table}] of {file.path}: "
            f"{'.'.join(map(str, first['loc'])) or table}: {first['msg']}; "
            "correct the deployment's parameters or the file"
        ) from error
