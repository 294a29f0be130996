"""Store the user's picture files, unchanged, in tar shards, with an index of where each one is.

A shard is a plain tar without times and owners, which any tar program can read. With the index,
the headers of the members need not be read again.
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
    """The type of an index row: a member's name, its shard, and the position of its content there.

    Args:
        width: length in UTF-8 bytes of the longest name, <part>/<class>/<file>.
    """
    return np.dtype([("name", f"S{width}"), ("shard", "<i4"), ("offset", "<i8"), ("size", "<i8")])


@contextlib.contextmanager
def written(names: Collection[str], read: Callable[[str], bytes], folder: Path) -> Iterator[None]:
    """Write the named pictures, sorted, as shards with an index.

    The files get their final names, the index last, when the block ends without an error. A new
    shard begins when the next picture would make the current one larger than SHARD_BYTES, which
    only a single picture may exceed.

    Args:
        read: returns the content of a picture, given its name.
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
    """Open a file for members; when the block ends, complete the tar and name it `path`."""
    with files.atomic(path) as handle:
        yield handle
        handle.truncate(tar_bytes(handle.tell()))


def tar_bytes(end: int) -> int:
    """The size of a tar whose members end at `end`: plus two blocks of zeros, in whole records."""
    return -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def read_index(folder: Path) -> np.ndarray:
    """Return the index, memory-mapped: rows of `row_type`, sorted by name, each inside its shard.

    Raises:
        UserError: the index is damaged, or a shard is missing or truncated.
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
        raise damaged(folder / shard_name(numbers[cut.argmax()]), "truncated")
    return rows


def shard_lengths(folder: Path) -> list[int]:
    """The size of each shard in bytes, up to the first missing one."""
    lengths: list[int] = []
    while (path := folder / shard_name(len(lengths))).exists():
        lengths.append(path.stat().st_size)
    return lengths


def damaged(path: Path, what: str = "damaged") -> UserError:
    return UserError(f"{what} pictures ({path}): `dvc repro --force fetch` makes them again")
