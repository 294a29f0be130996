"""The user's pictures as one tar: their files unchanged, without times and owners."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple


class Entry(NamedTuple):
    """Where one picture is in the tar."""

    name: str  # <part>/<class>/<file>
    offset: int
    size: int


def write(files: Iterable[tuple[str, bytes]], handle: IO[bytes]) -> None:
    """Write (name, content) pairs as an uncompressed tar."""
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory


def index(path: Path) -> list[Entry]:
    """The entries of a tar that `write` made, sorted by name."""
    entries = []
    with tarfile.open(path, "r:") as tar:
        for info in iter(tar.next, None):
            entries.append(Entry(info.name, info.offset_data, info.size))
            tar.members.clear()  # type: ignore[attr-defined]
    return sorted(entries)
