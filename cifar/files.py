"""Files that are written atomically and reproducibly, and checked when they are read."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import tokenize
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cifar import UserError

Record = TypeVar("Record")


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[IO[bytes]]:
    """Open a file that appears under the name `path` only if the block ends without an error.

    Anything but a regular file, such as /dev/stdout, is written directly.

    Raises:
        OSError: its `filename` is set even if the system leaves it out, as for a full disk.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with path.open("wb") as handle:
            yield handle
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """Check that the disk has enough space before a long run starts.

    Raises:
        UserError: fewer than `needed` bytes are free on the disk of `folder`.
    """
    folder = folder.resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"not enough disk space, about {needed / 1e6:,.0f} MB needed and {free / 1e6:,.0f} MB "
            f"free ({folder}): free some space, see docs/troubleshooting.md"
        )


def write_bytes(path: Path | str, content: bytes) -> None:
    with atomic(path) as handle:
        handle.write(content)


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON with sorted keys and a newline at the end.

    Raises:
        ValueError: for NaN and infinity, which JSON does not allow.
    """
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_csv(path: Path | str, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write floats with six significant digits, so that the last bits of a sum do not matter."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows
    )
    write_bytes(path, buffer.getvalue().encode())


def write_array(path: Path | str, array: np.ndarray) -> None:
    """Write the bytes of np.save, which itself misses a disk that fills up in the last 4 KB."""
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise ValueError("an array of Python objects cannot be written")
    with atomic(path) as handle:
        np.lib.format.write_array_header_1_0(
            handle, np.lib.format.header_data_from_array_1_0(array)
        )
        handle.write(array.data)


@contextlib.contextmanager
def array_writer(
    path: Path | str, row_shape: tuple[int, ...], dtype: Any
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends rows to a .npy file; the bytes are those of `write_array`."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    count = 0
    with atomic(path) as handle:

        def append(rows: np.ndarray) -> None:
            nonlocal count
            handle.write(np.ascontiguousarray(rows, dtype).data)
            count += len(rows)

        # NumPy leaves room in the header for the length to grow.
        np.lib.format.write_array_header_1_0(handle, header | {"shape": (0, *row_shape)})
        yield append
        handle.seek(0)
        np.lib.format.write_array_header_1_0(handle, header | {"shape": (count, *row_shape)})


def read_json(path: Path | str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"damaged JSON ({path}): `dvc repro --force` makes it again") from None


def write_record(path: Path | str, record: Any) -> None:
    """Write a dataclass as JSON, for `read_record`."""
    write_json(path, asdict(record))


def read_record(path: Path | str, kind: type[Record]) -> Record:
    """Read a dataclass that `write_record` wrote, and check its types and ranges.

    Raises:
        UserError: the file is damaged, or holds another kind of record.
    """
    return parse_record(Path(path).read_bytes(), kind, path)


def parse_record(content: bytes | str, kind: type[Record], path: Path | str) -> Record:
    """Read a record from the content of a file, as `read_record` does; `path` is for messages."""
    try:
        record = TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        text = f"{key}: {problem['msg']}" if key else problem["msg"]
        raise unreadable(kind, text, path) from None
    if has_control_characters(json.loads(content)):  # they could reach a terminal
        raise unreadable(kind, "it has control characters", path)
    return record


def unreadable(kind: type, problem: str, path: Path | str) -> UserError:
    # The problem may quote a key of an untrusted file.
    text = "".join(c if c.isprintable() else " " for c in problem)[:200]
    return UserError(
        f"not a readable {kind.__name__.lower()} record, {text} ({path}): "
        "`dvc repro --force` makes it again"
    )


def has_control_characters(value: Any) -> bool:
    """Whether a key or a string in this JSON could move a terminal's cursor."""
    if isinstance(value, dict):
        return any(map(has_control_characters, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(has_control_characters, value))
    return isinstance(value, str) and any(unicodedata.category(c) == "Cc" for c in value)


def read_array(path: Path | str) -> np.memmap:
    """The array in a .npy file, memory-mapped and read-only.

    Raises:
        UserError: the file is truncated, damaged, or holds Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError):
        # a damaged header may raise any of these
        raise UserError(f"damaged array ({path}): `dvc repro --force` makes it again") from None


def sha256(path: Path | str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_sha256(content: bytes) -> str:
    """The first twelve hex digits of the sha256. Metrics identify their model by it."""
    return hashlib.sha256(content).hexdigest()[:12]


def git_name(content: bytes) -> str:
    """Git's object name of this content; `git log --find-object=<name>` lists its commits."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
