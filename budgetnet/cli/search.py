"""The ``budgetnet search`` command."""

from __future__ import annotations

import typer

from budgetnet.cli.fields import takes_options_of
from budgetnet.cli.options import Json, Quiet, Verbose
from budgetnet.cli.parsing import read_verbosity
from budgetnet.cli.termination import interruption
from budgetnet.common.config import petaflops_text
from budgetnet.common.errors import BudgetnetError, OverBudgetError
from budgetnet.common.formatting import enough_petaflops, short_petaflops
from budgetnet.study.config import SearchConfig


@takes_options_of(SearchConfig)
def search(config: SearchConfig, quiet: Quiet = False, verbose: Verbose = False, as_json: Json = False) -> None:
    """Search for the best network within a budget; run the same command again to resume."""
    verbosity = read_verbosity(quiet=quiet, verbose=verbose)
    config.require_names()
    from budgetnet.api.search import run_search
    from budgetnet.cli.leaderboard import print_leaderboard
    from budgetnet.study.reading import failures
    from budgetnet.study.storage import storage_errors

    with interruption():
        request, outcome = run_search(config, verbosity=verbosity, say=lambda line: typer.echo(line, err=True))
    reached = f"at {outcome.trained} of {config.trials} candidates"
    if outcome.end == "exhausted":
        reasons_in_words = ", ".join(f"{count:,} {reason}" for reason, count in outcome.rejected.items())
        typer.echo(
            f"stopped {reached}: the last {sum(outcome.rejected.values()):,} proposals were nothing new that fits: "
            f"{reasons_in_words}; the study counts each network once",
            err=True,
        )
    if outcome.end == "time":
        waiting = "; finalists are trained after the last candidate" if config.finalists else ""
        typer.echo(f"timeout {reached}: run the same command to resume{waiting}", err=True)
    if config.max_train_flops is not None:
        line = f"{short_petaflops(outcome.train_flops)} of {petaflops_text(config.max_train_flops)} PFLOP used"
        if outcome.refused is not None:
            line = f"stopped {reached}: {line}, and the next one needs up to {enough_petaflops(outcome.refused)}"
            line += "; to resume, run the same command with a larger --max-train-flops"
        typer.echo(line, err=True)
    with storage_errors(request.context.storage):
        print_leaderboard(outcome.study, out=config.out, storage=config.storage, as_json=as_json)
        if reasons := failures(outcome.study):
            raise BudgetnetError(f"no candidate has a result: {reasons}")
    if outcome.end == "exhausted" and not outcome.trained and set(outcome.rejected) == {"over budget"}:
        hint = "; --sizing fit solves for widths that are" if config.sizing == "reject" else ""
        raise OverBudgetError(f"no proposed network is within the budget{hint}")
