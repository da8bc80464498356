"""`searcher jobs`: run searches as jobs on a Ray cluster's head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from searcher.commands.console import Format, Output, print_rows, print_text
from searcher.display import without_colours

if TYPE_CHECKING:
    from searcher.integrations.ray_jobs import Jobs

app = typer.Typer(help="Searches as jobs on a Ray cluster.", no_args_is_help=True)

Address = Annotated[
    str,
    typer.Option(
        help="The cluster's job server: http://HOST:8265; or the cluster: HOST:6379 or auto.",
        envvar=["SEARCHER_JOBS_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    ),
]
JobId = Annotated[str, typer.Argument(help="Id of the job, as `submit` and `list` show it.")]
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
SUCCEEDED = "SUCCEEDED"


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    command: Annotated[
        list[str] | None, typer.Argument(help="Command to run, after --: launch --study-name NAME, or resume NAME.")
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the log, and wait until it has ended.")
    ] = True,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the job's environment; no secrets. May be repeated.")
    ] = None,
) -> None:
    """Run a searcher command on the cluster's head, and print the job's id."""
    from searcher.integrations.ray_jobs import BadJob, command_of, public

    if bad := [pair for pair in env or [] if not pair.partition("=")[0] or "=" not in pair]:
        raise BadJob(f"--env {bad[0]!r} is not NAME=VALUE")
    variables = dict(pair.split("=", 1) for pair in env or [])
    command_of(command or [])  # finds wrong requests before the server is asked
    public(variables)
    jobs = _jobs(address)
    job = jobs.submit(command or [], variables)
    if not follow:
        print_text(job)
        return
    print_text(f"job {job}; Ctrl-C leaves it running", error=True)
    _follow(jobs, job)


@app.command("list")
def list_jobs(address: Address = DEFAULT_ADDRESS, output: Output = Format.table) -> None:
    """List the cluster's jobs, newest first."""
    print_rows(_jobs(address).listed(), output)


@app.command()
def status(job: JobId, address: Address = DEFAULT_ADDRESS, output: Output = Format.table) -> None:
    """Show the status of a job."""
    found = _jobs(address).status(job)
    if output is Format.table:
        print_rows([{"": key, " ": value} for key, value in found.items() if value], output)
    else:
        print_rows([found], output)


@app.command()
def logs(
    job: JobId,
    address: Address = DEFAULT_ADDRESS,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
) -> None:
    """Print the output of a job."""
    jobs = _jobs(address)
    if follow:
        _follow(jobs, job)
    else:
        _print_log(jobs.log(job))


@app.command()
def stop(job: JobId, address: Address = DEFAULT_ADDRESS) -> None:
    """Stop a job cleanly; its running trials wait for a resume."""
    running, how = _jobs(address).stop(job)
    print_text(f"job {job} is {how}" if running else f"job {job} had ended before: {how}")


def _jobs(address: str) -> Jobs:
    from searcher.integrations.ray_jobs import Jobs

    return Jobs(address)


def _follow(jobs: Jobs, job: str) -> None:
    """Print the output until the job ends. Exit with status 1 if the job failed, 130 after Ctrl-C."""
    try:
        how = jobs.follow(job, _print_log)
    except KeyboardInterrupt:
        print_text(f"\njob {job} goes on; see: searcher jobs logs {job} --follow", error=True)
        raise typer.Exit(130) from None
    if how != SUCCEEDED:
        print_text(f"job {job} is {how}", error=True)
        raise typer.Exit(1)


def _print_log(text: str) -> None:
    print_text(without_colours(text), end="")
