"""The user's pictures as tar shards, their files unchanged, and an index of where each one is.

A shard is a plain tar without times and owners, which any reader of tars reads. The index spares
reading the headers of all members again.
"""

import contextlib
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from cifar import UserError, files

INDEX = "index.npy"
SHARD_BYTES = 10**9


def shard_name(number: int) -> str:
    return f"pictures-{number:05}.tar"


def row_type(width: int) -> np.dtype:
    """A row of the index: the member's name, its shard, and where its content is in that.

    Args:
        width: bytes of UTF-8 of the longest name, <part>/<class>/<file>.
    """
    return np.dtype([("name", f"S{width}"), ("shard", "<i4"), ("offset", "<i8"), ("size", "<i8")])


@contextlib.contextmanager
def written(names: Collection[str], read: Callable[[str], bytes], folder: Path) -> Iterator[None]:
    """Write the pictures of these names, sorted, as shards and their index.

    The files get their names when the block ends without an error, the index last. A new shard
    begins where the next picture would make one larger than SHARD_BYTES; a single picture may.

    Args:
        read: the content of the picture of a name.
    """
    rows = row_type(max(len(name.encode()) for name in names))
    with contextlib.ExitStack() as stack:
        append = stack.enter_context(files.array_writer(folder / INDEX, (), rows))
        number, end = -1, SHARD_BYTES
        for name in sorted(names):
            content = read(name)
            header = member_header(name, len(content))
            padding = bytes(-len(content) % tarfile.BLOCKSIZE)
            length = len(header) + len(content) + len(padding)
            if end and tar_bytes(end + length) > SHARD_BYTES:
                number, end = number + 1, 0
                shard = stack.enter_context(tar_file(folder / shard_name(number)))
            for piece in (header, content, padding):
                shard.write(piece)
            row = (name.encode(), number, end + len(header), len(content))
            append(np.array([row], rows))
            end += length
        yield


def member_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@contextlib.contextmanager
def tar_file(path: Path) -> Iterator[IO[bytes]]:
    """A file for members, which becomes a whole tar with the name `path` when the block ends."""
    with files.atomic(path) as handle:
        yield handle
        handle.truncate(tar_bytes(handle.tell()))


def tar_bytes(end: int) -> int:
    """The size of a tar whose members end there: two blocks of zeros, and whole records."""
    return -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def read_index(folder: Path) -> np.ndarray:
    """The rows of `row_type`, sorted by name, memory-mapped; each lies inside its shard.

    Raises:
        UserError: the index is damaged, or a shard is missing or cut.
    """
    path = folder / INDEX
    try:
        rows = files.read_array(path)
    except UserError:
        raise damaged(path) from None
    if rows.ndim != 1 or not rows.dtype.names or rows.dtype != row_type(rows.dtype[0].itemsize):
        raise damaged(path)
    names, numbers = rows["name"], rows["shard"]
    if not len(rows) or min(rows[key].min() for key in ("shard", "offset", "size")) < 0:
        raise damaged(path)
    if not (names[1:] > names[:-1]).all():
        raise damaged(path)
    lengths = np.array(shard_lengths(folder))
    if numbers.max() >= len(lengths):
        raise damaged(folder / shard_name(len(lengths)), "missing")
    cut = rows["size"] > lengths[numbers] - rows["offset"]
    if cut.any():
        raise damaged(folder / shard_name(numbers[cut.argmax()]), "cut")
    return rows


def shard_lengths(folder: Path) -> list[int]:
    """The bytes of each shard, up to the first that is missing."""
    lengths: list[int] = []
    while (path := folder / shard_name(len(lengths))).exists():
        lengths.append(path.stat().st_size)
    return lengths


def damaged(path: Path, what: str = "damaged") -> UserError:
    return UserError(f"{what} pictures ({path}): `dvc repro --force fetch` makes them again")
