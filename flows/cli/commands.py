"""The commands of the whole: init, run, up, serve, report, upkeep, status, doctor, drift, rejects.

Nothing slow is imported before a command runs.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli.report_command import report
from observability.core import cli_output
from observability.core.cli_output import JsonOption

PipelineArgument = Annotated[
    Path, typer.Argument(help="The pipeline's TOML file.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (init, run, up, serve, report, upkeep, status, doctor, schema):
        app.command()(command)
    drift = typer.Typer(no_args_is_help=True, help="How far the data has drifted.")
    drift.command("show")(drift_show)
    app.add_typer(drift, name="drift")
    shadows = typer.Typer(no_args_is_help=True, help="Versions that answer, and are not served.")
    shadows.command("show")(shadow_show)
    app.add_typer(shadows, name="shadow")
    stream = typer.Typer(no_args_is_help=True, help="How a stream is read.")
    stream.command("show")(stream_show)
    app.add_typer(stream, name="stream")
    rejects = typer.Typer(
        cls=_ListByDefault, no_args_is_help=True, help="Rejected records: why, and replay them."
    )
    rejects.command("ls")(rejects_ls)
    rejects.command("replay")(rejects_replay)
    app.add_typer(rejects, name="rejects")


class _ListByDefault(TyperGroup):
    """`rejects PIPELINE` is `rejects ls PIPELINE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["ls", *args]
        return super().parse_args(ctx, args)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a commented pipeline file and sample data to start from."""
    from flows.config import template

    written = template.write(folder)
    if as_json:
        cli_output.print_json({"written": written})
        return
    out = cli_output.stdout()
    for path in written:
        out.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    command = shlex.join(["thermodrift", "run", str(written[0])])
    out.print(f"now run: {command}", highlight=False, markup=False, soft_wrap=True)


def run(
    context: typer.Context,
    pipeline: PipelineArgument,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many records of this run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on this machine, to the end of the stream; resumes where it stopped."""
    from flows.run.shutdown import Stop

    home = cli_output.cli_context(context).home.resolve()
    stop = Stop()
    with stop.listening(), cli_output.redirect_stdout():
        summary = _run(pipeline, home, limit, stop)
    if as_json:
        cli_output.print_json(summary)
    else:
        from flows.cli import run_summary

        run_summary.render(summary, str(pipeline))


def _run(pipeline: Path, home: Path, limit: int | None, stop: Any) -> dict[str, Any]:
    """Run the flow on an embedded Prefect API; a signal before its begin ends the command."""
    from flows.config import pipeline as pipelines
    from flows.config import prefect_env
    from flows.loop import summary
    from flows.run import schema_report
    from flows.run.bootstrap import check_disk_space, validate_stream
    from flows.run.shutdown import StopRequested
    from flows.stack import ephemeral_api
    from observability.core.paths import Places

    file = pipelines.read(pipeline)
    # Prefect takes seconds to start: mistakes that the user must correct are reported before that.
    places = Places(home)
    validate_stream(file, places.pipeline(file.name))
    if not places.pipeline(file.name).checkpoint.exists():
        schema_report.render(
            schema_report.collect(file, home), cli_output.stderr(), most=schema_report.MOST_SHOWN
        )
    check_disk_space(home)
    prefect_env.prepare_prefect(places.prefect)
    # Both take seconds; neither needs the other.
    threading.Thread(target=_import_flows, daemon=True).start()
    with ExitStack() as stack:
        try:
            with stop.breakable():
                api = stack.enter_context(
                    ephemeral_api.prefect_api(places.prefect / f"{file.name}.db")
                )
            with ephemeral_api.use_api(api):
                from flows.loop.local_loop import run_loop

                return run_loop(file.path, home, limit)
        except StopRequested:
            return summary.collect_unbegun(file, places)


def _import_flows() -> None:
    import flows.loop.local_loop  # noqa: F401 - imported for the time it takes


def up(
    context: typer.Context,
    pipelines: Annotated[
        list[Path], typer.Argument(help="The pipelines' TOML files.", show_default=False)
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the server, on 127.0.0.1; 0: any.")
    ] = 4200,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Answer predictions as well, as [serve] of the home says."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Deploy pipelines on this machine and keep them going: server, pools, deployments, workers.

    The server is a new one on 127.0.0.1, or the one that PREFECT_API_URL names. With --json the
    document is printed once all is up.
    """
    from flows.config import pipeline as files
    from flows.run.shutdown import Stop, StopRequested
    from flows.stack import local_stack
    from flows.stack.status_table import StatusTable

    home = cli_output.cli_context(context).home.resolve()
    read = [files.read(each) for each in pipelines]
    service = _service_address(home) if serve else None
    stop = Stop(hard_end_s=60.0)
    try:
        with stop.listening(), StatusTable() as table, ExitStack() as stack:
            with stop.breakable():
                document, programs, server = stack.enter_context(
                    local_stack.up(read, home, port, table, service)
                )
            if as_json:
                cli_output.print_json(document)
                sys.stdout.flush()
            local_stack.keep_running(programs, server, stop, table)
    except StopRequested:
        return


def _service_address(home: Path) -> Any:
    """Where `serve` would listen. Raises BadConfiguration before anything is started."""
    from flows.api import safety, server
    from flows.config import settings
    from flows.stack.local_stack import ServiceAddress
    from observability.core.paths import Places

    config = server.configured(Places(home))
    safety.read_token(config, settings.token(), home)
    return ServiceAddress(config.host, config.port)


def serve(
    context: typer.Context,
    pipelines: Annotated[
        list[Path], typer.Argument(help="The pipelines' TOML files.", show_default=False)
    ],
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: serve.host, or 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port (default: serve.port, or 8020); 0: any."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File whose first line is the token (or THERMODRIFT_TOKEN)."),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(help="PIPELINE=VERSION: it answers too, is logged, and never served."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer predictions over HTTP, with a page of each pipeline, beside runs; Ctrl-C ends it.

    With --json one line with the address is printed once it answers.
    """
    from flows.api import server
    from flows.page import routes
    from observability.core.paths import Places

    home = Places(cli_output.cli_context(context).home.resolve())
    token = None if token_file is None else str(token_file.resolve())
    shadows = tuple(shadow) if shadow else None
    config = server.configured(home, host=host, port=port, token_file=token, shadow=shadows)
    server.serve(pipelines, home, config, routes.opened, as_json=as_json)


def upkeep(context: typer.Context, as_json: JsonOption = False) -> None:
    """Merge the prediction logs, and remove what the home's table upkeep no longer keeps."""
    from flows.run.shutdown import Stop, StopRequested
    from observability.core.errors import BadConfiguration, TryAgainLater

    home = cli_output.cli_context(context).home.resolve()
    if not home.is_dir():
        # Otherwise a timer with a typing error would maintain an empty home for years.
        raise BadConfiguration(f"there is no home at {home}; name one where pipelines have run")
    stop = Stop()
    try:
        with stop.listening(), stop.breakable(), cli_output.redirect_stdout():
            document = _upkeep(home)
    except StopRequested as error:
        raise TryAgainLater("stopped before all was done; nothing is half done") from error
    if as_json:
        cli_output.print_json(document)
    else:
        from flows import maintenance

        maintenance.render(document)
    if document["state"] != "done":
        raise typer.Exit(TryAgainLater.exit_code if document["state"] == "later" else 1)


def _upkeep(home: Path) -> dict[str, Any]:
    """Run the flow on an embedded Prefect API of its own, so that it blocks no other run."""
    from flows.config import prefect_env
    from flows.stack import ephemeral_api
    from observability.core.paths import Places

    places = Places(home)
    prefect_env.prepare_prefect(places.prefect)
    with (
        ephemeral_api.prefect_api(places.prefect / "upkeep.db") as api,
        ephemeral_api.use_api(api),
    ):
        from flows.maintenance import upkeep as flow

        return flow(home)


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show each pipeline's state, and why: position, champion, scores, and open request."""
    from flows.cli import status as statuses

    home = cli_output.cli_context(context).home
    known = statuses.server(home)
    found = statuses.collect(home, known)
    if as_json:
        cli_output.print_json(found)
    else:
        statuses.render(found, known)


def doctor(context: typer.Context, as_json: JsonOption = False) -> None:
    """Check this installation: libraries, home, history, GPU; report what is missing."""
    from flows.cli import doctor as doctors

    findings = doctors.examine(cli_output.cli_context(context).home)
    if as_json:
        cli_output.print_json([vars(each) for each in findings])
    else:
        doctors.render(findings)
    if any(each.state == "broken" for each in findings):
        raise typer.Exit(1)


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/configuration.md, for people, instead.")
    ] = False,
) -> None:
    """Print the JSON schema of a pipeline file, for editors that validate as you type."""
    from flows.config import reference
    from flows.config.pipeline import Pipeline

    if markdown:
        typer.echo(reference.markdown(), nl=False)
        return
    cli_output.stdout().print_json(json.dumps(Pipeline.model_json_schema()))


def rejects_ls(
    context: typer.Context, pipeline: PipelineArgument, as_json: JsonOption = False
) -> None:
    """List the rejected records by reason: how many, where, an example, and the remedy."""
    from flows.cli import reject_report

    document = reject_report.collect(pipeline, cli_output.cli_context(context).home.resolve())
    if as_json:
        cli_output.print_json(document)
    else:
        reject_report.render(document, pipeline)


def rejects_replay(
    context: typer.Context, pipeline: PipelineArgument, as_json: JsonOption = False
) -> None:
    """Read the rejected records again with the present file, and replay those that fit."""
    from flows.config import settings
    from flows.learning import reject_replay
    from flows.run.shutdown import Stop

    home = cli_output.cli_context(context).home.resolve()
    # The loop's steps are Prefect's tasks, which read settings when they are imported.
    settings.silence_telemetry()
    stop = Stop()
    with stop.listening(), cli_output.redirect_stdout():
        document = reject_replay.replay(pipeline, home, stop)
    if as_json:
        cli_output.print_json(document)
    else:
        reject_replay.render(document)


def drift_show(
    context: typer.Context,
    pipeline: PipelineArgument,
    page: Annotated[bool, typer.Option(help="Write evidently's HTML page as well.")] = True,
    at: Annotated[
        int | None,
        typer.Option(min=1, help="Position of an earlier drift check, whose rows are still there."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the latest window with the champion's reference, as the pipeline itself does."""
    from flows.cli import drift_report

    document = drift_report.collect(
        pipeline, cli_output.cli_context(context).home.resolve(), page=page, at=at
    )
    if as_json:
        cli_output.print_json(document)
    else:
        drift_report.render(document)


def shadow_show(
    context: typer.Context, pipeline: PipelineArgument, as_json: JsonOption = False
) -> None:
    """Compare what versions in the shadow of the service answered with what was served."""
    from flows.cli import shadow_report

    document = shadow_report.collect(pipeline, cli_output.cli_context(context).home.resolve())
    if as_json:
        cli_output.print_json(document)
    else:
        shadow_report.render(document)


def stream_show(
    context: typer.Context, pipeline: PipelineArgument, as_json: JsonOption = False
) -> None:
    """Show each column of the stream, how it is read, and why; nothing is learned."""
    from flows.config import pipeline as pipelines
    from flows.run import schema_report

    file = pipelines.read(pipeline)
    document = schema_report.collect(file, cli_output.cli_context(context).home.resolve())
    if as_json:
        cli_output.print_json(document)
    else:
        schema_report.render(document)
