"""Processes that decode images, because threads would mostly wait for each other at the interpreter's lock.

They are plain programs spoken to through pipes, not those of ``multiprocessing``: these would run the caller's main
program once more, which fails in a notebook, in a script from standard input and in one without a ``__main__`` guard.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image

from budgetnet.data import image_files
from budgetnet.data.image_files import Images, NotGrey, Reader, UnreadableError

# With the caller's path for imports, as programs may have lengthened theirs.
_PROGRAM = "import runpy, sys; sys.path[:] = sys.argv[2:]; runpy.run_path(sys.argv[1], run_name='__main__')"


def can_start() -> bool:
    """Whether this is a plain Python, which can be started once more, and not a program with Python inside."""
    return not getattr(sys, "frozen", False) and "python" in Path(sys.executable or "").name.lower()


class DecodingProcess:
    """A process that fills arrays as a reader does; it ends when closed, or when this process ends, however it does."""

    def __init__(self, work: Reader) -> None:
        """Starts the process.

        Raises:
            OSError: it cannot be started.
        """
        path = [entry for entry in sys.path if isinstance(entry, str)]
        self._process = subprocess.Popen(  # noqa: S603 - this very Python, with nothing that was typed in
            # -P, or the working folder could slip modules of its own beneath the first imports.
            [sys.executable, "-P", "-c", _PROGRAM, image_files.__file__, *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Out of reach of the terminal's Ctrl-C, which is answered here, once, by ending these processes too.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._questions = cast(BinaryIO, self._process.stdin)
        self._answers = cast(BufferedReader, self._process.stdout)
        # Sent with the first files, so that nobody waits here for the process to come up.
        self._pending = _line(asdict(work) | {"max_image_pixels": Image.MAX_IMAGE_PIXELS})

    def fill(self, files: Sequence[str], images: Images) -> None:
        """Decodes files into an array, as ``Reader.fill`` does; one call at a time.

        Raises:
            UnreadableError: as there, or the process has ended.
            NotGrey: as there.
        """
        answer = b""
        with suppress(OSError):  # a process that has ended takes no questions
            self._questions.write(self._pending + _line(list(files)))
            self._questions.flush()
            self._pending = b""
            answer = self._answers.readline()
        if answer == image_files.NOT_GREY:
            raise NotGrey
        if answer == image_files.UNREADABLE:
            raise UnreadableError(json.loads(self._answers.readline()))
        if answer != image_files.PIXELS or self._answers.readinto(images.data.cast("B")) != images.nbytes:
            self.kill()
            rule = "was ended from outside, or found too little memory"
            raise UnreadableError(f"a process that decodes images {rule} (exit status {self._process.wait()})")

    def kill(self) -> None:
        """Ends the process at once; whoever waits for its answer is told that it has ended."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process, waits until it is gone and closes the pipes; nobody may be waiting for an answer."""
        self.kill()
        self._process.wait()
        self._answers.close()
        with suppress(OSError):  # what it did not take any more
            self._questions.close()


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
