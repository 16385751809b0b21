"""A separate git checkout for the studies, so that the repository can change while they run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from budgetnet.common.errors import BudgetnetError


def head_of(repository: Path) -> str:
    """Return the full hash of HEAD.

    Raises:
        BudgetnetError: the folder is not a git repository with a commit.
    """
    return _git("rev-parse", "--verify", "HEAD^{commit}", folder=repository)


def describe(repository: Path) -> str:
    """Return hash and subject of HEAD, and the number of files with uncommitted changes."""
    changed = len(_git("status", "--porcelain", folder=repository).splitlines())
    head = _git("log", "-1", "--format=%h %s", folder=repository)
    return f"commit {head}" + (f"; uncommitted changes of {changed} files are not included" if changed else "")


def clone(repository: Path, checkout: Path) -> None:
    """Clone a repository at its HEAD; an interrupted clone is repeated.

    Raises:
        BudgetnetError: git failed.
    """
    unfinished = checkout.with_name(f".{checkout.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    checkout.parent.mkdir(parents=True, exist_ok=True)
    # HEAD is checked out by hash, because the clone of a linked worktree has another HEAD.
    _git("clone", "--quiet", "--local", "--no-checkout", str(repository), str(unfinished), folder=repository)
    _git("checkout", "--quiet", "--detach", head_of(repository), folder=unfinished)
    unfinished.rename(checkout)


def update(repository: Path, checkout: Path) -> None:
    """Update a clone to the HEAD of its repository.

    Raises:
        BudgetnetError: git failed.
    """
    commit = head_of(repository)
    if head_of(checkout) != commit:
        _git("fetch", "--quiet", str(repository), "HEAD", folder=checkout)
        _git("checkout", "--quiet", "--force", "--detach", commit, folder=checkout)


def _git(*arguments: str, folder: Path) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    except OSError as error:
        raise BudgetnetError(f"git cannot be run: {error.strerror}") from None
    if done.returncode:
        first = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise BudgetnetError(f"git {arguments[0]} failed in {folder}: {first}")
    return done.stdout.strip()
