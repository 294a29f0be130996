"""Output files that appear whole or not at all, with the same bytes for the same content."""

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
    """A file handle whose content takes the name `path` only when the block ends without an error.

    What is no file, such as /dev/stdout, is written as it is.

    Raises:
        OSError: with `path` in it, also where the system names no file (a full disk).
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
    """Refuse a long run that would fill the disk.

    Raises:
        UserError: fewer than `needed` bytes are free where `folder` is.
    """
    folder = folder.resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"too little disk, about {needed / 1e6:,.0f} MB needed and {free / 1e6:,.0f} MB free "
            f"({folder}): free some, see docs/troubleshooting.md"
        )


def write_bytes(path: Path | str, content: bytes) -> None:
    with atomic(path) as handle:
        handle.write(content)


def write_json(path: Path | str, content: Any) -> None:
    """Sorted keys and a newline at the end; NaN is a ValueError, as it is not JSON."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_csv(path: Path | str, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Floats with six significant digits, so that the last bits of a sum do not show."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows
    )
    write_bytes(path, buffer.getvalue().encode())


def write_array(path: Path | str, array: np.ndarray) -> None:
    """The bytes of np.save. NumPy itself misses a disk that fills up in the last 4 KB."""
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise ValueError("Python objects are no array")
    with atomic(path) as handle:
        np.lib.format.write_array_header_1_0(
            handle, np.lib.format.header_data_from_array_1_0(array)
        )
        handle.write(array.data)


@contextlib.contextmanager
def array_writer(
    path: Path | str, row_shape: tuple[int, ...], dtype: Any
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends rows to a .npy file; in the end it has the bytes of `write_array`."""
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
    """A dataclass as JSON, in the form that `read_record` takes."""
    write_json(path, asdict(record))


def read_record(path: Path | str, kind: type[Record]) -> Record:
    """The dataclass that `write_record` wrote, its types and ranges checked.

    Raises:
        UserError: damaged, or not such a record.
    """
    return parse_record(Path(path).read_bytes(), kind, path)


def parse_record(content: bytes | str, kind: type[Record], path: Path | str) -> Record:
    """As `read_record`, from the content of `path`."""
    try:
        record = TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        text = f"{key}: {problem['msg']}" if key else problem["msg"]
        raise unreadable(kind, text, path) from None
    if has_control_characters(json.loads(content)):  # they may reach a terminal or a page
        raise unreadable(kind, "control characters in it", path)
    return record


def unreadable(kind: type, problem: str, path: Path | str) -> UserError:
    # The problem may name a stranger's key.
    text = "".join(c if c.isprintable() else " " for c in problem)[:200]
    return UserError(
        f"not a readable {kind.__name__.lower()} record, {text} ({path}): "
        "`dvc repro --force` makes it again"
    )


def has_control_characters(value: Any) -> bool:
    """Whether a text in this JSON, a key or a value, would move a terminal's cursor."""
    if isinstance(value, dict):
        return any(map(has_control_characters, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(has_control_characters, value))
    return isinstance(value, str) and any(unicodedata.category(c) == "Cc" for c in value)


def read_array(path: Path | str) -> np.memmap:
    """The array of a .npy file, memory-mapped and read-only.

    Raises:
        UserError: cut, damaged, or holding Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError):
        # all but the first: of a damaged header
        raise UserError(f"damaged array ({path}): `dvc repro --force` makes it again") from None


def sha256(path: Path | str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_sha256(content: bytes) -> str:
    """Twelve hex digits, by which metrics name the model that they are of."""
    return hashlib.sha256(content).hexdigest()[:12]


def git_name(content: bytes) -> str:
    """Git's name for a file of this content; `git log --find-object=<name>` lists its commits."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
