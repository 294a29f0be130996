"""Rows of large arrays, read from disk before they are needed."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

AHEAD = 3  # results in memory besides the one in use

Key = TypeVar("Key")
Value = TypeVar("Value")


def ahead(read: Callable[[Key], Value], keys: Iterable[Key]) -> Iterator[Value]:
    """Yield `read(key)` for each key in order, while other threads read a few keys ahead.

    An exception in `read` is raised in place of its value. The threads end with the iterator.
    """
    pool = ThreadPoolExecutor(AHEAD)
    pending: deque[Future[Value]] = deque()
    try:
        for key in keys:
            pending.append(pool.submit(read, key))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_rows(array: np.memmap, index: np.ndarray, out: np.ndarray) -> None:
    """Copy the rows `index` of a memory-mapped .npy file to `out`.

    It reads the file instead of the memory map, so that a disk error raises OSError and does not
    kill the process with SIGBUS.

    Args:
        array: (N, ...) in C order, from `files.read_array`.
        index: (B,) int64.
        out: (B, ...) of the same dtype, contiguous.
    """
    with open(array.filename, "rb", buffering=0) as file:  # type: ignore[arg-type]
        for row, i in zip(out, index.tolist(), strict=True):
            if os.preadv(file.fileno(), [row], array.offset + i * row.nbytes) != row.nbytes:
                raise OSError(errno.EIO, "truncated while it was read", str(array.filename))
