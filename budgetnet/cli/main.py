"""The ``budgetnet`` command: its subcommands, and how errors become messages and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from budgetnet.cli.ablate import ablate
from budgetnet.cli.bench import bench
from budgetnet.cli.dashboard import dashboard
from budgetnet.cli.device import device
from budgetnet.cli.ensemble import ensemble
from budgetnet.cli.evaluate import evaluate
from budgetnet.cli.export import export
from budgetnet.cli.fields import Command, Group
from budgetnet.cli.figures import figures
from budgetnet.cli.inspect import check, schema, specs, summary
from budgetnet.cli.leaderboard import leaderboard
from budgetnet.cli.predict import predict
from budgetnet.cli.quantize import quantize
from budgetnet.cli.report import report
from budgetnet.cli.reproduce import reproduce
from budgetnet.cli.search import search
from budgetnet.cli.space import space
from budgetnet.cli.termination import INTERRUPTED, TERMINATED, InterruptedCommandError, Termination, forget_interrupt
from budgetnet.cli.time_to_accuracy import time_to_accuracy
from budgetnet.cli.train import train
from budgetnet.cli.trials import trials
from budgetnet.common.errors import BudgetnetError, caused_by_interrupt, is_out_of_memory
from budgetnet.version import __version__

_HELP = "Find the best small image classifier under a hard parameter budget."
_EPILOG = (
    "SPEC is a name from `budgetnet specs`, a YAML or JSON file, or a run. Numbers may be written 5e6, 5M or 5000000. "
    "Exit codes: 0 success, 1 unexpected error, 2 bad input, 3 over budget, 4 not reproduced, 130 interrupted, "
    "141 output no longer read, 143 terminated by a signal."
)
_NOT_READ = 141
"""Exit code where the output is no longer read: what a shell reports of a program that the signal SIGPIPE ended."""
# Some versions of Typer bundle click and others import it; the base class of its public exceptions works with both.
_UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(
    cls=Group,
    help=_HELP,
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for function in (
    check,
    summary,
    specs,
    space,
    schema,
    train,
    evaluate,
    ensemble,
    time_to_accuracy,
    predict,
    export,
    quantize,
    figures,
    search,
    leaderboard,
    trials,
    dashboard,
    report,
    ablate,
):
    app.command(cls=Command)(function)
app.add_typer(bench, name="bench")
app.add_typer(device, name="device")
app.add_typer(reproduce, name="reproduce")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"budgetnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Define the options of ``budgetnet`` itself."""


@cache
def _command() -> Any:
    """Build the command with all its subcommands, once for a process: it has hundreds of options."""
    return get_command(app)


def _prepare_streams() -> None:
    """Make standard output and error usable, also where they are closed or lack characters."""
    # A process started with a closed stream has None here; discard its output.
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - same
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Print a question mark for characters that the encoding lacks, such as those of progress bars.
            stream.reconfigure(errors="replace")


def _lack_of_resources(error: Exception) -> str | None:
    """Return what this process may not have more of, or None if the error has another cause."""
    # Where memory is limited, oneDNN says no more than this.
    primitive = "could not create a primitive" in str(error) and _memory_is_limited()
    if is_out_of_memory(error) or primitive:
        loading = f" while loading {str(error).partition(':')[0]}" if isinstance(error, ImportError) else ""
        return f"out of memory: this machine, this device or the limit on memory (ulimit -v) is too small{loading}"
    if "new thread" in str(error) or isinstance(error, BlockingIOError):
        return "cannot start a thread or process: the limit on processes (ulimit -u) is reached"
    return None


def _memory_is_limited() -> bool:
    try:
        import resource
    except ImportError:  # Only Unix has limits.
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _message_and_code(error: BaseException, *, words: Sequence[str]) -> tuple[str, int]:
    """Return what is printed for an exception, and the exit code.

    Args:
        error: the exception; raised again if it was not to be expected.
        words: the command line.
    """
    if isinstance(error, typer.Abort) or (
        caused_by_interrupt(error) and not isinstance(error, InterruptedCommandError)
    ):
        return "interrupted", INTERRUPTED
    if isinstance(error, BudgetnetError):
        return str(error), error.exit_code
    if isinstance(error, _UsageError):
        # Without a subcommand, Typer prints the help text and raises an exception without a message.
        return (error.format_message() if hasattr(error, "format_message") else str(error)), 2
    if isinstance(error, Exception) and (lack := _lack_of_resources(error)):
        return f"{lack} during `{' '.join(['budgetnet', *words[:1]])}`", 2
    if isinstance(error, OSError):
        path = error.filename2 or error.filename or "system"
        # No existing path is too long: it was given.
        return f"{path}: {error.strerror or error}", 2 if error.errno == errno.ENAMETOOLONG else 1
    raise error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; user errors are printed in one line, without a traceback."""
    _prepare_streams()
    try:
        return _run(arguments)
    except (BrokenPipeError, SystemExit) as error:
        # Typer and rich end the command themselves while they handle a broken pipe.
        if not isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError):
            raise
        # The reader of the output has gone, such as `head`: flushing the buffers at exit must not raise again.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _NOT_READ


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code.

    Raises:
        BrokenPipeError: the output is no longer read.
    """
    termination = Termination()
    try:
        with termination.handled():
            code = _command()(args=arguments, prog_name="budgetnet", standalone_mode=False)
        # Typer returns this code where a command was interrupted.
        if code != INTERRUPTED:
            return code if isinstance(code, int) else 0
        message = "interrupted"
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        message, code = _message_and_code(error, words=sys.argv[1:] if arguments is None else arguments)
    if code == INTERRUPTED:
        forget_interrupt()
    if message:
        typer.echo(message if code == INTERRUPTED else f"error: {' '.join(message.split())}", err=True)
    return TERMINATED if code == INTERRUPTED and termination.received else code
