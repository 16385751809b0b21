"""Run folders below a URL, from which workers fetch interrupted runs and to which they copy their progress."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from budgetnet.common.errors import BusyError
from budgetnet.common.files import write_bytes
from budgetnet.runs.records import RunIdentity
from budgetnet.runs.store import RunFolder

_ATTEMPT = ".attempt"
"""File that holds the number of the attempt that owns the run."""
_CHECKPOINT, _RESULT = "checkpoint.safetensors", "result.json"


class RunStore:
    """Run folders below a URL that fsspec can open: a local path, ``s3://bucket/runs`` and others.

    Attempts to train the same run have increasing numbers. An attempt that another one has replaced, such as that of a
    machine that was out of reach for some time, cannot write any more.
    """

    def __init__(self, url: str) -> None:
        """Open the store.

        Args:
            url: URL or path of the folder of run folders.

        Raises:
            ValueError: the URL's protocol is unknown.
            ImportError: a package that the protocol needs is missing.
        """
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._pushed: dict[str, tuple[int, int]] = {}
        """Time of change and size of each file as it was copied last."""

    def pull(self, identity: RunIdentity, scratch: Path, *, attempt: int) -> RunFolder:
        """Copy a run to a folder on this machine and make this attempt its owner.

        Args:
            identity: identity of the run.
            scratch: local folder of run folders; its old content is deleted.
            attempt: number of the attempt.

        Returns:
            The local run folder, which does not exist if the run is new.

        Raises:
            BusyError: a later attempt owns the run.
        """
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self._pushed.clear()
        self.refresh()
        found = sorted(str(path) for path in self._files.glob(f"{self._root}/*-{identity.short_digest}"))
        name = PurePosixPath(found[0]).name if found else identity.run_id
        self._require_owner(name, attempt)
        if found:
            self.fetch(name, scratch)
        self._write(f"{name}/{_ATTEMPT}", str(attempt).encode())
        return RunFolder(scratch / name)

    def push(self, folder: RunFolder, *, attempt: int) -> None:
        """Copy the files of a local run folder that have changed, the result last.

        Raises:
            BusyError: a later attempt owns the run.
        """
        name = folder.path.name
        self._require_owner(name, attempt)
        files = [file for file in folder.path.rglob("*") if file.is_file() and not file.name.startswith(".")]
        for file in sorted(files, key=lambda file: (file.name == _RESULT, file.name)):
            relative = file.relative_to(folder.path).as_posix()
            state = file.stat()
            mark = state.st_mtime_ns, state.st_size
            if self._pushed.get(relative) != mark:
                self._write(f"{name}/{relative}", file.read_bytes())
                self._pushed[relative] = mark
        # A finished run has no checkpoint, and one that is trained on after it was pruned has no result.
        for gone in (_CHECKPOINT, _RESULT):
            if not (folder.path / gone).exists() and self._files.exists(f"{self._root}/{name}/{gone}"):
                self._files.rm_file(f"{self._root}/{name}/{gone}")

    def fetch(self, name: str, out: Path) -> None:
        """Copy a run folder to a local folder of run folders.

        Args:
            name: name of the run folder.
            out: local folder of run folders.
        """
        root = f"{self._root}/{name}"
        files = [str(path) for path in self._files.find(root)]
        for path in sorted(files, key=lambda path: (path.endswith(_RESULT), path)):
            relative = PurePosixPath(path).relative_to(PurePosixPath(root))
            if not relative.name.startswith("."):
                target = out / name / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(target, self._files.cat_file(path))

    def refresh(self) -> None:
        """Forget cached listings of folders, which other machines may have changed."""
        self._files.invalidate_cache()

    def _require_owner(self, name: str, attempt: int) -> None:
        path = f"{self._root}/{name}/{_ATTEMPT}"
        if self._files.exists(path) and int(self._files.cat_file(path)) > attempt:
            raise BusyError("run folder", name, "another worker has taken over this run")

    def _write(self, relative: str, content: bytes) -> None:
        path = f"{self._root}/{relative}"
        if isinstance(self._files, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(Path(path), content)
        else:
            # Object stores replace an object as a whole.
            self._files.pipe_file(path, content)
