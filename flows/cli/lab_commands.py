"""The commands of the laboratory: compare, drift, replay, tune. They import slow libraries late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from observability.core import cli_output
from observability.core.cli_output import JsonOption
from observability.core.errors import BadConfiguration

if TYPE_CHECKING:
    from flows.laboratory.crew import Work
    from flows.laboratory.streams import LabStream

lab_app = typer.Typer(
    no_args_is_help=True,
    help="A laboratory: what the rules and their knobs do, by figures.",
)

StreamsOption = Annotated[
    str | None,
    typer.Option(
        "--streams", help="Streams that ship, with commas between them.", show_default="all"
    ),
]
RecordsOption = Annotated[
    int | None,
    typer.Option("--records", min=1000, help="Records of each stream at most.", show_default="all"),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Processes at once.", show_default="one a core"),
]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print Markdown instead.")]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="2,000 records of each stream, to see how it looks.")
]
QUICK_RECORDS = 2_000


@lab_app.command("compare")
def compare(
    context: typer.Context,
    pipeline: Annotated[
        Path | None,
        typer.Argument(help="A pipeline's TOML file.", show_default="the streams that ship"),
    ] = None,
    streams: StreamsOption = None,
    records: RecordsOption = None,
    records_per_s: Annotated[
        float, typer.Option(min=0, help="How fast records arrive while a model is fitted.")
    ] = 100.0,
    wait_s: Annotated[
        float, typer.Option(min=0, help="Seconds that a retrain waits before it begins.")
    ] = 0.0,
    every: Annotated[
        int, typer.Option(min=20, help="Records between two models that may be fitted.")
    ] = 500,
    fit_price: Annotated[
        float, typer.Option(min=0, help="What a fit costs: the baseline's loss in so many records.")
    ] = 20.0,
    cpu_watts: Annotated[
        float, typer.Option(min=0.1, help="Watts of a busy core, to estimate joules.")
    ] = 15.0,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw the scores over time, as SVG.")
    ] = None,
    quick: QuickOption = False,
    jobs: JobsOption = None,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put retrain policies side by side: never, schedules, drift, the product, hindsight."""
    from flows.cli import lab_picture, lab_report
    from flows.laboratory import compare as comparison
    from flows.laboratory.records import LabConfig
    from observability.core import atomic_file

    config = LabConfig(
        records_per_s=records_per_s,
        wait_s=wait_s,
        every=every,
        fit_price=fit_price,
        cpu_watts=cpu_watts,
        records=_most(records, quick),
    )
    home = _home(context)
    if pipeline is not None and streams is not None:
        raise BadConfiguration("name a pipeline file or --streams, and not both")
    own = [] if pipeline is not None else shipped(streams, config.records)
    with cli_output.redirect_stdout():
        files = [pipeline] if pipeline is not None else written(own, home)
        documents = done(comparison.works(home, files, config), jobs)
    document = lab_report.compared(own, documents, config)
    if picture is not None:
        atomic_file.write(picture, lab_picture.over_time(document["streams"]).encode())
    if as_json:
        cli_output.print_json(document)
    elif markdown:
        typer.echo(lab_report.compared_markdown(document), nl=False)
    else:
        lab_report.render_compared(document)
        if picture is not None:
            cli_output.stdout().print(f"picture: {picture}", markup=False, soft_wrap=True)


@lab_app.command("drift")
def drift(
    context: typer.Context,
    streams: StreamsOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each stream is drawn.")] = 5,
    records: RecordsOption = None,
    quick: QuickOption = False,
    jobs: JobsOption = None,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how soon each method sees a drift, and how often it alarms for nothing."""
    from flows.cli import lab_report
    from flows.laboratory import drift_trial

    tried = shipped(streams or ",".join(drift_trial.STREAMS), _most(records, quick))
    real = [each.name for each in tried if each.worlds is None]
    if real:
        raise BadConfiguration(
            f"--streams: nobody knows where {', '.join(real)} changes; name generated streams"
        )
    with cli_output.redirect_stdout():
        trials = done(drift_trial.works(_home(context), tried, seeds), jobs)
    document = lab_report.tried(trials)
    if as_json:
        cli_output.print_json(document)
    elif markdown:
        typer.echo(lab_report.drift_markdown(document), nl=False)
    else:
        lab_report.render_drift(document)


@lab_app.command("replay")
def replay(
    context: typer.Context,
    pipeline: Annotated[Path, typer.Argument(help="The pipeline's TOML file.", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A knob to change: TABLE.KNOB=VALUE; may be given again."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the decisions in the history again with other knobs; nothing is changed."""
    from flows.cli import lab_report
    from flows.laboratory import replay as replays

    home = cli_output.cli_context(context).home.resolve()
    document = replays.collect(pipeline, home, settings or [])
    if as_json:
        cli_output.print_json(document)
    else:
        lab_report.render_replayed(document)


@lab_app.command("tune")
def tune(
    context: typer.Context,
    pipeline: Annotated[
        Path | None,
        typer.Argument(help="A pipeline's TOML file.", show_default="the streams that ship"),
    ] = None,
    streams: StreamsOption = None,
    trials: Annotated[int, typer.Option(min=2, max=200, help="Sets of knobs to try.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    records: RecordsOption = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the proposed knobs into the pipeline file.")
    ] = False,
    quick: QuickOption = False,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for knobs on the front of loss against joules, and propose some."""
    from flows.cli import lab_report
    from flows.config import pipeline as pipelines
    from flows.laboratory import tune as tuning
    from flows.laboratory.records import LabConfig

    if pipeline is not None and streams is not None:
        raise BadConfiguration("name a pipeline file or --streams, and not both")
    if write and pipeline is None:
        raise BadConfiguration("--write needs the pipeline file that it writes into")
    home, config = _home(context), LabConfig(records=_most(records, quick))
    before = b""
    if pipeline is not None:
        pipelines.read(pipeline)
        before = pipeline.read_bytes()
    tried = tuning.trials(trials, seed)
    with cli_output.redirect_stdout():
        files = [pipeline] if pipeline else written(shipped(streams, config.records), home)
        found = done(tuning.works(home, files, config, tried), jobs)
    document = {"seed": seed, "written": None, **tuning.judged(tried, found)}
    chosen = tried[document["proposed"]]
    if write and pipeline is not None and chosen:
        tuning.write(pipeline, before, chosen)
        document["written"] = pipeline
    if as_json:
        cli_output.print_json(document)
    else:
        lab_report.render_tuned(document)


def _most(records: int | None, quick: bool) -> int | None:
    """Records of each stream at most."""
    return QUICK_RECORDS if quick else records


def _home(context: typer.Context) -> Path:
    from flows.laboratory import records

    return records.folder(cli_output.cli_context(context).home.resolve())


def shipped(names: str | None, most: int | None) -> list[LabStream]:
    """The streams that were named, no longer than asked for."""
    from flows.laboratory import streams

    found = streams.named(names)
    return [each if most is None else each.shortened(min(most, each.records)) for each in found]


def written(own: Sequence[LabStream], home: Path) -> list[Path]:
    """The pipeline files of these streams, drawn now where they are not there."""
    from flows.laboratory import streams

    errors = cli_output.stderr()
    with errors.status("drawing the streams"):
        return [streams.write(each, home) for each in own]


def done(works: Sequence[Work[Any]], jobs: int | None) -> list[Any]:
    """Do the work, with a bar on stderr."""
    from flows.laboratory import crew

    with _progress(sum(work.steps for work in works)) as tick:
        return crew.done(works, jobs or crew.cores(), tick)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr while the block runs; where that is no terminal, one line in ten steps."""
    from rich.progress import Progress

    errors = cli_output.stderr()
    ended = 0
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("laboratory", total=steps)

        def tick(name: str) -> None:
            nonlocal ended
            ended += 1
            progress.update(bar, advance=1, description=name)
            if not errors.is_terminal and (ended % 10 == 0 or ended == steps):
                errors.print(f"laboratory: {ended} of {steps} steps, {name}", highlight=False)

        yield tick
