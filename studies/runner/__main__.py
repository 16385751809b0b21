"""Run the studies that need long training, in the order of `studies/order.yaml`; run again, it resumes.

make studies ARGS="--data arrays:cifar10.npz"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from study_order import ORDER_FILE, Order
from study_records import UNFINISHED, collect, save_unfinished
from study_runner import Options, Place, Runner
from study_table import code_line, list_table, status_table

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import BudgetnetError, BusyError, RecordError

REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run studies, or show or collect their results; return the exit code.

    0: all are finished; 1: a study failed or is not ready; 2: bad input; 130: interrupted.
    """
    parser = argparse.ArgumentParser(prog="studies", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="cifar10", help="cifar10 (default), cifar10:PATH or arrays:PATH.npz")
    parser.add_argument(
        "--declare", choices=["cifar10"], help="declare the images to be CIFAR-10, as for budgetnet reproduce"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path.home() / "budgetnet-studies",
        help="folder of checkout, runs, logs, records and status.json (default: %(default)s)",
    )
    parser.add_argument("--only", metavar="NAME", help="run only this study, again if it is finished")
    parser.add_argument(
        "--update", action="store_true", help="update the checkout to the repository's HEAD before each study"
    )
    parser.add_argument(
        "--priority",
        choices=["idle", "normal"],
        default="idle",
        help="idle (default): commands run only on cores that are otherwise idle; normal: normal priority",
    )
    parser.add_argument(
        "--threads",
        type=int,
        choices=range(1, available_cores() + 1),
        default=1,
        help="threads of a training; default: 1",
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--list", action="store_true", help="list the studies and run none")
    actions.add_argument("--status", action="store_true", help="show the state of each study and run none")
    actions.add_argument(
        "--collect", action="store_true", help="copy the records of finished studies into this repository's studies/"
    )
    actions.add_argument(
        "--save-unfinished",
        action="store_true",
        help="copy the unfinished runs, with checkpoints, into this repository's studies/unfinished, from where a "
        "runner on another machine resumes them",
    )
    options = parser.parse_args(arguments)
    place = Place(options.out.expanduser().absolute())
    try:
        return _act(options, place)
    except BudgetnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return 130


def _act(options: argparse.Namespace, place: Place) -> int:
    """Perform the requested action; return the exit code."""
    if options.list:
        _console().print(list_table(Order.load(REPOSITORY / ORDER_FILE), REPOSITORY))
        return 0
    if options.status:
        _console().print(status_table(_order(place), place))
        print(code_line(REPOSITORY, place.checkout))
        return 0
    if options.collect:
        return _collect(place, only=options.only)
    if options.save_unfinished:
        return _save_unfinished(place, only=options.only)
    idle = options.priority == "idle"
    settings = Options(options.data, options.declare, options.only, options.update, idle, options.threads)
    all_finished = Runner(REPOSITORY, place, settings).run()
    print(f"records: {place.folder / 'records'}; --collect (make studies-records) copies them into studies/")
    return 0 if all_finished else 1


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False, emoji=False)


def _order(place: Place) -> Order:
    """Read the list of studies from the checkout, or from the repository before the first run."""
    checked_out = place.checkout / ORDER_FILE
    return Order.load(checked_out if checked_out.exists() else REPOSITORY / ORDER_FILE)


def _collect(place: Place, *, only: str | None) -> int:
    status, order = place.status(), _order(place)
    if status is None:
        raise RecordError("--out", str(place.folder), "no study has been started here")
    wanted = order.studies if only is None else (order.get(only),)
    for study in wanted:
        state = status.studies.get(study.name)
        if state is not None and state.state == "finished":
            count = collect(study, records=place.records(study), repository=REPOSITORY)
            print(f"{study.name}: {count} files copied into studies/{study.folder}, from commit {state.commit[:10]}")
        elif only is not None:
            raise RecordError("--only", only, "is not finished")
    return 0


def _save_unfinished(place: Place, *, only: str | None) -> int:
    order = _order(place)
    if place.is_locked():
        raise BusyError("--out", str(place.folder), "a runner is running these studies; interrupt it first")
    studies = order.studies if only is None else (order.get(only),)
    # Studies may share a folder.
    folders = {study.runs_folder: place.runs(study) for study in studies}
    saved = {name: save_unfinished(runs, REPOSITORY / UNFINISHED / name) for name, runs in folders.items()}
    for name, run in ((name, run) for name, names in saved.items() for run in names):
        print(f"{run} copied into {UNFINISHED / name}")
    if not any(saved.values()):
        print(f"no unfinished runs in {place.folder / 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
