"""The commands of the models: list, show and verify versions, promote one and roll back.

Decides nothing: `promote` and `rollback` are a person's own word, recorded in the history as such.
"""

from __future__ import annotations

import tomllib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import Places

if TYPE_CHECKING:
    from models.registry.registry import Manifest, Registry

models_app = typer.Typer(
    help="Batch models: which there are, which one serves.", no_args_is_help=True
)

PipelineArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[PIPELINE]",
        help="A pipeline's name or its TOML file; may be left out if the home has only one.",
    ),
]
WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PIPELINE] [VERSION]",
        help="The pipeline may be left out if the home has only one; without a version: the "
        "champion (show), or all (verify).",
    ),
]
PromotedArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="[PIPELINE] VERSION",
        help="The version to serve from now on; the pipeline may be left out if there is only one.",
    ),
]


@models_app.command("ls")
def list_models(
    context: typer.Context, pipeline: PipelineArgument = None, as_json: JsonOption = False
) -> None:
    """List all versions of a pipeline, oldest first."""
    _, store = _opened(context, [pipeline] if pipeline else [])
    champion, manifests = store.champion(), store.ls()
    if as_json:
        cli_output.print_json([_document(each, champion) for each in manifests])
        return
    cli_output.print_table(
        (
            *("version", "champion", "recipe", "rows", "positions"),
            *("score on hold-out", "loss on hold-out", "judged by", "created"),
        ),
        [_row(each, champion) for each in manifests],
    )


@models_app.command()
def show(context: typer.Context, words: WordsArgument = None, as_json: JsonOption = False) -> None:
    """Show one version's manifest: its scores, positions, hashes and libraries."""
    version, store = _opened(context, words or [])
    champion = store.champion()
    chosen = version or champion
    if chosen is None:
        raise BadConfiguration("there is no champion yet to show; name a version: models ls")
    manifest = store.manifest(chosen)
    document = _document(manifest, champion)
    if as_json:
        cli_output.print_json(document)
        return
    apart = {"scores", "record_schema"}
    cli_output.print_table(
        ("key", "value"), [item for item in document.items() if item[0] not in apart]
    )
    cli_output.print_table(
        ("scored", "metric", "value"),
        [
            (who, metric, value)
            for who, each in manifest.scores.items()
            for metric, value in each.items()
        ],
    )


@models_app.command()
def verify(
    context: typer.Context, words: WordsArgument = None, as_json: JsonOption = False
) -> None:
    """Check signatures, hashes and libraries of one version, or of all; exit 1 if one fails."""
    version, store = _opened(context, words or [])
    found = [_verdict(store, each) for each in ([version] if version else store.versions())]
    if as_json:
        cli_output.print_json(found)
    else:
        cli_output.print_table(
            ("version", "sound", "because"),
            [(each["version"], each["sound"], each["because"]) for each in found],
        )
    if not all(each["sound"] for each in found):
        raise typer.Exit(ThermodriftError.exit_code)


@models_app.command()
def promote(context: typer.Context, words: PromotedArgument, as_json: JsonOption = False) -> None:
    """Make a version the champion by hand, whatever the judge said of it."""
    version, store = _opened(context, words)
    if version is None:
        raise BadConfiguration(f"which version of {words[0]!r}? models promote PIPELINE VERSION")
    before, token = store.champion(), f"hand-{uuid.uuid4().hex}"
    store.promote(version, token)
    _record(context, store, version, token, "promoted", f"promoted by hand; before: {before}")
    _say(as_json, store, version, before)


@models_app.command()
def rollback(
    context: typer.Context, pipeline: PipelineArgument = None, as_json: JsonOption = False
) -> None:
    """Bring back the champion before the present one."""
    _, store = _opened(context, [pipeline] if pipeline else [])
    before, token = store.champion(), f"hand-{uuid.uuid4().hex}"
    version = store.rollback(token)
    _record(context, store, version, token, "rolled_back", f"rolled back by hand from {before}")
    _say(as_json, store, version, before)


def _opened(context: typer.Context, words: Sequence[str]) -> tuple[str | None, Registry]:
    """The version that `words` name, if any, and the store of the pipeline that they name."""
    from models.persistence.signing import SigningKey
    from models.registry.registry import Registry

    places = Places(cli_output.cli_context(context).home)
    name, version = _pipeline_and_version(places, words)
    try:
        here = places.pipeline(name)
    except ValueError as error:
        raise BadConfiguration(str(error)) from error
    if not here.root.is_dir():
        raise BadConfiguration(
            f"the home {places.home} has no pipeline {name!r}; there are: "
            f"{', '.join(_pipelines(places)) or 'none, run one first'}"
        )
    return version, Registry(here, SigningKey.open(places.key))


def _pipeline_and_version(places: Places, words: Sequence[str]) -> tuple[str, str | None]:
    if len(words) > 2:
        raise BadConfiguration(f"a pipeline and a version are wanted; came: {' '.join(words)}")
    if len(words) == 2:
        return _name(words[0]), words[1]
    if words and (words[0].endswith(".toml") or words[0] in _pipelines(places)):
        return _name(words[0]), None
    here = _pipelines(places)
    if len(here) != 1:
        raise BadConfiguration(
            f"name the pipeline: the home {places.home} has {', '.join(here) or 'none yet'}"
            + (f"; {words[0]!r} is none of them" if words else "")
        )
    return here[0], words[0] if words else None


def _pipelines(places: Places) -> list[str]:
    if not places.pipelines.is_dir():
        return []
    return sorted(folder.name for folder in places.pipelines.iterdir() if folder.is_dir())


def _name(word: str) -> str:
    """The pipeline that `word` names: itself, or what the TOML file says."""
    if not word.endswith(".toml"):
        return word
    try:
        name = tomllib.loads(Path(word).read_text(encoding="utf-8"))["pipeline"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadConfiguration(
            f"{word} does not say [pipeline] name ({type(error).__name__}: {error}); "
            f"correct the file, or give the pipeline's name"
        ) from error
    return str(name)


def _document(manifest: Manifest, champion: str | None) -> dict[str, object]:
    return {"champion": manifest.version == champion, **manifest.model_dump(mode="json")}


def _row(manifest: Manifest, champion: str | None) -> tuple[object, ...]:
    from models.core import metrics, scoring

    scores = manifest.scores.get("holdout:challenger", {})
    task = manifest.record_schema.task
    plain = scoring.metric_name(task)
    judged = manifest.judged_by or plain
    value = scores.get(judged)
    return (
        manifest.version,
        "champion" if manifest.version == champion else "",
        manifest.recipe,
        manifest.rows,
        f"{manifest.train_from} to {manifest.holdout_to}",
        scores.get(plain),
        None if value is None else metrics.measure(judged, task).loss(value),
        judged,
        manifest.created_at.isoformat(timespec="seconds"),
    )


def _verdict(store: Registry, version: str) -> dict[str, object]:
    try:
        store.verify(version)
    except ThermodriftError as error:
        return {"version": version, "sound": False, "because": str(error)}
    return {"version": version, "sound": True, "because": "signature, hashes and libraries match"}


def _record(
    context: typer.Context,
    store: Registry,
    version: str,
    token: str,
    event: Literal["promoted", "rolled_back"],
    because: str,
) -> None:
    """Tell the history; the champion is changed already, and stays so if this fails."""
    from observability.history.records import ModelRecord
    from observability.history.store import History

    manifest = store.manifest(version)
    row = ModelRecord(
        at=datetime.now(UTC),
        pipeline=manifest.pipeline,
        run_id=token,
        version=version,
        event=event,
        position=_position(Places(cli_output.cli_context(context).home), manifest),
        recipe=manifest.recipe,
        rows=manifest.rows,
        train_from=manifest.train_from,
        train_to=manifest.train_to,
        fit_s=manifest.fit_s,
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        because=because,
    )
    history = History(cli_output.cli_context(context).home)
    history.commit([row], token)
    history.flush()


def _position(places: Places, manifest: Manifest) -> int:
    """Where the pipeline's stream stands, or the newest position that the model has seen."""
    from models.persistence import checkpoint

    try:
        position = checkpoint.header(places.pipeline(manifest.pipeline).checkpoint).get("position")
    except (FileNotFoundError, checkpoint.CheckpointUnusable):
        position = None
    return position if isinstance(position, int) else manifest.holdout_to


def _say(as_json: bool, store: Registry, version: str, before: str | None) -> None:
    answer = {"champion": version, "before": before}
    if as_json:
        cli_output.print_json(answer)
    else:
        cli_output.stdout().print(f"{version} serves from now on; before: {before or 'none'}")
