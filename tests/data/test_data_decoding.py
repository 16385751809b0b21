"""Decoding in processes, which real folders get from some thousand files on, and here from a few hundred."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from budgetnet.common.errors import DataError
from budgetnet.data import decoding, processes
from budgetnet.data.decoding import decode_images
from budgetnet.data.image_files import Reader
from budgetnet.data.processes import DecodingProcess

COUNT = 600
LIMITS = "decoding._FILES_A_PROCESS = 100; os.cpu_count = lambda: 2"


class Recorded(DecodingProcess):
    """A decoding process that a test can look at afterwards."""

    started: list[subprocess.Popen[bytes]]

    def __init__(self, work: Reader) -> None:
        super().__init__(work)
        self.started.append(self._process)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started, two where nothing is said against it; none may be left over."""
    monkeypatch.setattr(decoding, "_FILES_A_PROCESS", 100)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Recorded, "started", [], raising=False)
    monkeypatch.setattr(decoding, "DecodingProcess", Recorded)
    return Recorded.started


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Grey images 5x4, each of one value that tells its number."""
    for number in range(COUNT):
        Image.fromarray(np.full((4, 5), number % 251, np.uint8)).save(tmp_path / f"{number:03d}.bmp")
    return tmp_path


def files(root: Path) -> list[str]:
    return sorted(file.name for file in root.glob("*.bmp"))


def ended(started: list[subprocess.Popen[bytes]]) -> bool:
    return len(started) == 2 and all(process.returncode is not None for process in started)


VALUES = [number % 251 for number in range(COUNT)]


def test_two_processes_decode_all_images_in_their_order(root: Path, started: list[subprocess.Popen[bytes]]) -> None:
    told: list[tuple[int, int]] = []
    images = decode_images(files(root), root=root, name="x", progress=lambda *at: told.append(at))
    assert images.shape == (COUNT, 1, 4, 5)
    assert images[:, 0, 3, 4].tolist() == images[:, 0, 0, 0].tolist() == VALUES
    assert told == [(256, COUNT), (512, COUNT), (COUNT, COUNT)]
    assert ended(started)


def test_colour_found_by_a_process_makes_all_images_colour(root: Path, started: list[subprocess.Popen[bytes]]) -> None:
    Image.fromarray(np.full((4, 5, 3), (1, 2, 3), np.uint8)).save(root / "599.bmp")
    images = decode_images(files(root), root=root, name="x")
    assert images.shape == (COUNT, 3, 4, 5)
    assert images[:599, 2, 0, 0].tolist() == VALUES[:599]
    assert images[599, :, 2, 2].tolist() == [1, 2, 3]
    assert len(started) == 4  # two for grey, two for colour


def test_a_process_names_the_broken_file(root: Path, started: list[subprocess.Popen[bytes]]) -> None:
    (root / "300.bmp").write_bytes(b"no image")
    (root / "599.bmp").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"^data = 'x': 300.bmp is not a sound image: its content is of no known"):
            decode_images(files(root), root=root, name="x")
        assert ended(started)
        started.clear()


def test_a_process_knows_the_limit_of_pixels(
    root: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(root / "400.bmp")
    with pytest.raises(DataError, match=r"400.bmp is 6x4, but 000.bmp is 5x4"):
        decode_images(files(root), root=root, name="x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"400.bmp has too many pixels"):
        decode_images(files(root), root=root, name="x")


def test_a_killed_process_gives_one_clear_error(root: Path, started: list[subprocess.Popen[bytes]]) -> None:
    def kill(*_: int) -> None:
        for process in started:
            process.kill()
            process.wait()

    images = files(root) * 20  # so that there is something left to do when the first are decoded
    with pytest.raises(
        DataError, match=r"process that decodes images was ended from outside.*exit status -9"
    ) as caught:
        decode_images(images, root=root, name="x", progress=kill)
    assert "\n" not in str(caught.value)
    assert ended(started)


def test_an_interruption_leaves_no_process(root: Path, started: list[subprocess.Popen[bytes]]) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_images(files(root) * 20, root=root, name="x", progress=interrupt)
    assert ended(started)


def test_a_script_from_standard_input_without_a_guard_may_decode(root: Path) -> None:
    code = f"""
import os
from pathlib import Path
from budgetnet.data import decoding
{LIMITS}
print("once")
root = Path({str(root)!r})
print(decoding.decode_images(sorted(os.listdir(root)), root=root, name="x")[:, 0, 0, 0].tolist() == {VALUES})
"""
    answer = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False)
    assert (answer.stdout, answer.stderr) == ("once\nTrue\n", "")


def test_a_process_ends_with_the_one_that_asks_however_that_ends(root: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from budgetnet.data import decoding
{LIMITS}
def kill(*_):
    print(decoding.DecodingProcess.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
class Recorded(decoding.DecodingProcess):
    pids = []
    def __init__(self, work):
        super().__init__(work)
        self.pids.append(self._process.pid)
decoding.DecodingProcess = Recorded
root = Path({str(root)!r})
decoding.decode_images(sorted(os.listdir(root)) * 20, root=root, name="x", progress=kill)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # Its standard error is theirs too: it ends when they have, and nothing stands in it.
    assert (answer.returncode, answer.stderr) == (-signal.SIGKILL, "")
    pids = [int(pid) for pid in answer.stdout.strip("[]\n").split(",")]
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody asked about still has a number.
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


def test_where_no_process_can_be_started_this_one_decodes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(decoding, "_FILES_A_PROCESS", 100)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", fail)
    assert decode_images(files(root), root=root, name="x")[:, 0, 0, 0].tolist() == VALUES


def test_a_program_with_python_inside_is_not_started_again(
    root: Path, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for executable in ("/usr/bin/blender", "", None):
        monkeypatch.setattr(sys, "executable", executable)
        assert decode_images(files(root), root=root, name="x")[:, 0, 0, 0].tolist() == VALUES
    monkeypatch.undo()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not processes.can_start()
    assert started == []
