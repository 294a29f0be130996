"""Decompress a tar from gzip, bzip2 or xz, and limit how much an archive may unpack to."""

import bz2
import contextlib
import gzip
import lzma
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from cifar import UserError

MAX_RATIO = 200  # unpacked to packed, above MAX_UNPACKED_GB; photographs and CIFAR stay below 2
MAX_UNPACKED_GB = 4.0  # overridden by the environment variable of this name
CHUNK = 1 << 20
OPENERS: dict[bytes, Callable[..., Any]] = {  # maps the first bytes of a file to its opener
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,
}


def size_limit(path: Path) -> float:
    """How many bytes the archive may unpack to."""
    text = os.environ.get("MAX_UNPACKED_GB", str(MAX_UNPACKED_GB))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes >= 0:  # NaN is not
        raise UserError(f"not a number: {text[:40]!a} (MAX_UNPACKED_GB): set it to a number of GB")
    return max(gigabytes * 1e9, float(MAX_RATIO * path.stat().st_size))


def check_total(total: int, limit: float, path: Path) -> None:
    if total > limit:
        raise UserError(
            f"unpacks to more than {limit / 1e9:g} GB and {MAX_RATIO} times its size ({path}): if "
            "you trust it, raise the environment variable MAX_UNPACKED_GB"
        )


@contextlib.contextmanager
def unpacked(path: Path, scratch: Path) -> Iterator[IO[bytes]]:
    """Yield a plain tar: the file itself, or its decompressed content in a temporary file."""
    opener = decompressor(path)
    if not opener:
        with path.open("rb") as handle:
            yield handle
        return
    scratch.mkdir(parents=True, exist_ok=True)
    limit = size_limit(path)
    with tempfile.TemporaryFile(dir=scratch) as target:
        with opener(path) as source:
            while chunk := source.read(CHUNK):
                check_total(target.tell() + len(chunk), limit, path)
                write(target, chunk, scratch)
        target.seek(0)
        yield target


def write(target: IO[bytes], chunk: bytes, scratch: Path) -> None:
    try:
        target.write(chunk)
        target.flush()
    except OSError as error:  # on a full disk, the error of the system names no file
        error.filename = error.filename or str(scratch)
        raise


def decompressor(path: Path) -> Callable[[Path], IO[bytes]] | None:
    """Return the function that opens the compressed file; None if it is not compressed."""
    with path.open("rb") as handle:
        start = handle.read(6)
    for signature, opener in OPENERS.items():
        if start.startswith(signature):
            return opener
    return None
