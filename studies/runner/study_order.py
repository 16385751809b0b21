"""The list of studies that need long training, with their commands and records (`studies/order.yaml`)."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from budgetnet.common.documents import Document, Real
from budgetnet.common.errors import InputError

ORDER_FILE = Path("studies") / "order.yaml"
"""Path of the list in a checkout."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
FileName = Annotated[str, Field(pattern=r"^[\w-][\w.-]*$", max_length=100)]


class Command(Document):
    """One command of a study; it must resume when it is run again."""

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    """Arguments. ``budgetnet`` and ``python`` in the first place are the runner's. ``{data}``, ``{out}`` (folder of
    run folders), ``{records}`` (folder of records) and ``{seed}`` are replaced, ``{declare}`` by ``--declare cifar10``
    or nothing. An argument with an asterisk is replaced by all paths that match it."""
    stdout: FileName | None = None
    """File among the records for the standard output; null: the log."""
    exit_codes: tuple[int, ...] = (0,)
    """Exit codes that mean success; `budgetnet reproduce` exits with 4 if a result is not reproduced."""


class Study(Document):
    """One study: commands that run one after another, and the records to keep."""

    name: Name
    """Name in tables and options."""
    question: Annotated[str, Field(min_length=1, max_length=200)]
    """The question that the study answers, in one line."""
    folder: Name
    """Folder of its records under ``studies``."""
    out: Name | None = None
    """Folder of its run folders; studies with the same folder reuse each other's runs. Default: `name`."""
    needs: tuple[str, ...] = ()
    """Files of the repository that must exist, besides files under ``studies`` in its commands."""
    seeds: tuple[int, ...] = (0,)
    """A command with ``{seed}`` runs once per seed."""
    core_hours: Annotated[Real, Field(gt=0)]
    """Approximate duration in hours on one CPU core."""
    keep_runs: Literal["named", "all"] = "named"
    """Runs whose records are kept: those that a JSON file among the records names, or all runs of `out`."""
    commands: Annotated[tuple[Command, ...], Field(min_length=1)]

    @property
    def runs_folder(self) -> str:
        """Name of the folder of its run folders."""
        return self.out or self.name

    def missing(self, checkout: Path) -> list[str]:
        """List the files that the study needs and a checkout lacks."""
        named = [part for command in self.commands for part in command.argv if part.startswith("studies/")]
        wanted = dict.fromkeys([*self.needs, *(part for part in named if "{" not in part and "*" not in part)])
        return [path for path in wanted if not (checkout / path).exists()]


class Order(Document):
    """All studies, in the order in which they run."""

    document_kind: ClassVar[str] = "order"

    schema_version: Literal[1] = 1
    """Version of this format."""
    studies: Annotated[tuple[Study, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [study.name for study in self.studies]
        if len(set(names)) < len(names):
            raise InputError("studies", names, "must have different names")
        return self

    def get(self, name: str) -> Study:
        """Find a study by its name.

        Raises:
            InputError: unknown name.
        """
        for study in self.studies:
            if study.name == name:
                return study
        raise InputError("--only", name, f"must be one of {', '.join(study.name for study in self.studies)}")


class Values(NamedTuple):
    """What the fields of commands are filled in with."""

    data: str
    out: str
    records: str
    declare: str | None = None


def steps(study: Study) -> list[tuple[Command, int | None]]:
    """List the commands of a study with the seed of each; a command without a seed has None."""
    return [
        (command, seed)
        for command in study.commands
        for seed in (study.seeds if any("{seed}" in part for part in command.argv) else (None,))
    ]


def filled_in(command: Command, values: Values, *, seed: int | None, folder: Path) -> list[str]:
    """Fill in the fields of a command.

    Args:
        command: the command.
        values: what for.
        seed: likewise.
        folder: where the command is run, to which paths with an asterisk are relative.

    Raises:
        InputError: a path with an asterisk matches nothing.
    """
    filled: list[str] = []
    for part in command.argv:
        if part == "{declare}":
            filled += [] if values.declare is None else ["--declare", values.declare]
            continue
        text = part.replace("{data}", values.data).replace("{out}", values.out).replace("{records}", values.records)
        text = text.replace("{seed}", str(seed))
        if "*" not in part:
            filled.append(text)
            continue
        found = sorted(glob.glob(text, root_dir=folder))  # noqa: PTH207 - the paths shall stay relative
        if not found:
            raise InputError("argv", text, "matches no file")
        filled += found
    return filled
