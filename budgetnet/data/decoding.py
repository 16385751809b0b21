"""Image files to one array, on all cores, without ever holding more than that array and a few images."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from budgetnet.common.cpu import available_cores
from budgetnet.common.errors import DataError
from budgetnet.data.image_files import Images, NotGrey, Reader, UnreadableError, doubtful_sizes_refused, look_at
from budgetnet.data.processes import DecodingProcess, can_start

_log = logging.getLogger(__name__)

_CHUNK = 256
"""How many images are asked for at a time."""

_SMALL = 64 * 64
"""Pixels below which opening a file costs more than decoding it. Threads then only wait for the interpreter's lock."""

_FILES_A_PROCESS = 2_000
"""What a process must be given to be worth its start: that takes as long as decoding 1,000 small files or so."""


def decode_images(
    files: Sequence[str], *, root: Path, name: str, progress: Callable[[int, int], None] | None = None
) -> Images:
    """Decodes image files of one common size: some thousands in processes, one a core, fewer in this one.

    Args:
        files: at least one image file, as a path from the root on.
        root: the folder the files lie in.
        name: what was asked for; errors name it.
        progress: called with (images decoded, images in all) from the calling thread.

    Returns:
        uint8 (n, channels, height, width): one channel if all images are grey, else red, green and blue.

    Raises:
        DataError: a file is no sound image, is larger than Pillow deems safe, has more than 8 bits a channel, or has
            another size than the first; there is not enough memory for all of them; or a process was killed.
    """
    folder = os.fspath(root)
    try:
        with doubtful_sizes_refused():
            size, grey = look_at(folder, files[0])
            if grey:
                with contextlib.suppress(NotGrey):
                    return _decode(files, Reader(root=folder, first=files[0], size=size, mode="L"), progress)
            return _decode(files, Reader(root=folder, first=files[0], size=size, mode="RGB"), progress)
    except UnreadableError as error:
        raise DataError("data", name, str(error)) from None


def _decode(files: Sequence[str], reader: Reader, progress: Callable[[int, int], None] | None) -> Images:
    width, height = reader.size
    try:
        images = np.empty((len(files), len(reader.mode), height, width), dtype=np.uint8)
    except MemoryError:
        rule = f"{len(files):,} images of {width}x{height} do not fit into memory; make them smaller"
        raise UnreadableError(rule) from None
    with contextlib.ExitStack() as ending:
        decoders = _decoders(len(files), reader, ending)
        idle: SimpleQueue[Reader | DecodingProcess] = SimpleQueue()
        for decoder in decoders:
            idle.put(decoder)

        def decode_chunk(start: int) -> int:
            stop = min(start + _CHUNK, len(files))
            decoder = idle.get()
            try:
                decoder.fill(files[start:stop], images[start:stop])
            finally:
                idle.put(decoder)
            return stop

        threads = ThreadPoolExecutor(len(decoders), thread_name_prefix="decode")
        ending.callback(threads.shutdown, cancel_futures=True)
        for decoder in decoders:
            if isinstance(decoder, DecodingProcess):
                # Before the threads are waited for, as they wait for it: the last put on the stack is the first taken.
                ending.callback(decoder.kill)
        for decoded in threads.map(decode_chunk, range(0, len(files), _CHUNK)):
            if progress:
                progress(decoded, len(files))
    return images


def _decoders(count: int, reader: Reader, ending: contextlib.ExitStack) -> Sequence[Reader | DecodingProcess]:
    """Who decodes so many files, each in a thread of this process; processes among them are closed with the stack."""
    cores = available_cores()
    processes = min(cores, count // _FILES_A_PROCESS)
    if processes > 1 and can_start():
        started: list[DecodingProcess] = []
        try:
            for _ in range(processes):
                started.append(DecodingProcess(reader))
                ending.callback(started[-1].close)
        except OSError as error:
            _log.info("no more than %d processes for decoding can be started: %s", len(started), error)
        if started:
            return started
    width, height = reader.size
    return [reader] * (1 if width * height < _SMALL else cores)
