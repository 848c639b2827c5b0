"""The command `thermodrift models`: list, show and verify versions, promote one and roll back.

It decides nothing: `promote` and `rollback` do what a person asks, and record it in the history.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption
from observability.core.errors import BadConfiguration, ThermodriftError
from observability.core.paths import Places

if TYPE_CHECKING:
    from models.registry.by_hand import Changed
    from models.registry.registry import Manifest, Registry

models_app = typer.Typer(
    help="List, verify, promote and roll back batch models.", no_args_is_help=True
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
    _, registry = _select(context, [pipeline] if pipeline else [])
    from models.core import metrics, scoring

    waits = _candidate(registry)

    champion, manifests = registry.champion(), registry.ls()
    if as_json:
        cli_output.print_json([_document(each, champion) for each in manifests])
        return
    rows = []
    for manifest in manifests:
        scores = manifest.scores.get("holdout:challenger", {})
        task = manifest.record_schema.task
        basic = scoring.metric_name(task)
        judged = manifest.judged_by or basic
        value = scores.get(judged)
        rows.append(
            (
                manifest.version,
                "champion"
                if manifest.version == champion
                else "candidate"
                if manifest.version == waits
                else "",
                manifest.recipe,
                manifest.rows,
                f"{manifest.train_from} to {manifest.holdout_to}",
                scores.get(basic),
                None if value is None else metrics.measure(judged, task).loss(value),
                judged,
                manifest.created_at.isoformat(timespec="seconds"),
            )
        )
    cli_output.print_table(
        (
            *("version", "champion", "recipe", "rows", "positions"),
            *("score on hold-out", "loss on hold-out", "judged by", "created"),
        ),
        rows,
    )


@models_app.command()
def show(context: typer.Context, words: WordsArgument = None, as_json: JsonOption = False) -> None:
    """Show one version's manifest: its scores, positions, hashes and libraries."""
    version, registry = _select(context, words or [])
    champion = registry.champion()
    chosen = version or champion
    if chosen is None:
        raise BadConfiguration("there is no champion yet to show; name a version: models ls")
    manifest = registry.manifest(chosen)
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
    version, registry = _select(context, words or [])
    found: list[dict[str, object]] = []
    for each in [version] if version else registry.versions():
        problem = None
        try:
            registry.verify(each)
        except ThermodriftError as error:
            problem = str(error)
        because = problem or "signature, hashes and libraries match"
        found.append({"version": each, "valid": problem is None, "because": because})
    if as_json:
        cli_output.print_json(found)
    else:
        cli_output.print_table(
            ("version", "valid", "because"),
            [tuple(each.values()) for each in found],
        )
    if not all(each["valid"] for each in found):
        raise typer.Exit(ThermodriftError.exit_code)


@models_app.command()
def promote(context: typer.Context, words: PromotedArgument, as_json: JsonOption = False) -> None:
    """Make a version the champion by hand, whatever the promotion policy decided."""
    version, registry = _select(context, words)
    if version is None:
        raise BadConfiguration(f"which version of {words[0]!r}? models promote PIPELINE VERSION")
    from models.registry import by_hand

    _print_champion(as_json, by_hand.promote(_places(context), registry, version))


@models_app.command()
def rollback(
    context: typer.Context, pipeline: PipelineArgument = None, as_json: JsonOption = False
) -> None:
    """Make the previous champion the champion again."""
    _, registry = _select(context, [pipeline] if pipeline else [])
    from models.registry import by_hand

    _print_champion(as_json, by_hand.rollback(_places(context), registry))


def _places(context: typer.Context) -> Places:
    return Places(cli_output.cli_context(context).home)


def _select(context: typer.Context, words: Sequence[str]) -> tuple[str | None, Registry]:
    """The version that `words` name, if any, and the registry of the pipeline that they name."""
    from models.persistence.signing import SigningKey
    from models.registry.registry import Registry

    places = _places(context)
    pipelines, version = _pipelines(places), None
    listed = ", ".join(pipelines)
    if len(words) > 2:
        raise BadConfiguration(f"a pipeline and a version are wanted; came: {' '.join(words)}")
    if len(words) == 2 or (words and (words[0].endswith(".toml") or words[0] in pipelines)):
        name, version = _name(words[0]), words[1] if len(words) == 2 else None
    elif len(pipelines) == 1:
        name, version = pipelines[0], words[0] if words else None
    else:
        raise BadConfiguration(
            f"name the pipeline: the home {places.home} has {listed or 'none yet'}"
            + (f"; {words[0]!r} is none of them" if words else "")
        )
    try:
        here = places.pipeline(name)
    except ValueError as error:
        raise BadConfiguration(str(error)) from error
    if not here.root.is_dir():
        raise BadConfiguration(
            f"the home {places.home} has no pipeline {name!r}; there are: "
            f"{listed or 'none, run one first'}"
        )
    return version, Registry(here, SigningKey.open(places.key))


def _pipelines(places: Places) -> list[str]:
    if not places.pipelines.is_dir():
        return []
    return sorted(folder.name for folder in places.pipelines.iterdir() if folder.is_dir())


def _name(word: str) -> str:
    """The pipeline that `word` names, directly or as a TOML file."""
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


def _candidate(registry: Registry) -> str | None:
    """The version that won and waits for a person's word; None: none, or nothing has run yet."""
    from models.persistence import checkpoint

    with suppress(OSError, checkpoint.CheckpointUnusable):
        waits = checkpoint.header(registry.places.checkpoint).get("candidate")
        return str(waits["version"]) if isinstance(waits, dict) else None
    return None


def _print_champion(as_json: bool, changed: Changed) -> None:
    version, before = changed
    if as_json:
        cli_output.print_json({"champion": version, "before": before})
    else:
        cli_output.stdout().print(f"{version} serves from now on; before: {before or 'none'}")
