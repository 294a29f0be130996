"""Reading tar and zip archives from strangers: members are read, never unpacked to disk.

Nothing here calls extract or extractall: on Python 3.11 their default follows `../`, absolute names
and links out of the target folder.
"""

import contextlib
import errno
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from cifar import UserError
from cifar.data import names
from cifar.data.decompress import check_total, size_limit, unpacked
from cifar.data.zipnames import zip_name

MAX_MEMBERS = 5_000_000
MAX_MEMBER_BYTES = 1 << 30

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
ODD = (RuntimeError, ValueError, IndexError, OSError)  # damage raises these too, and so does
# RuntimeError: an encrypted member or an unknown method of compression

OTHER_FILES = {  # first bytes of what people name instead of an archive
    b"": "an empty file",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"PK\x03\x04": "a zip archive that is cut or damaged",
    b"\x1f\x9d": "a compress (.Z) archive",
    b"\x89PNG": "a single picture",
    b"\xff\xd8\xff": "a single picture",
    b"GIF8": "a single picture",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\x93NUMPY": "a NumPy array",
}


@dataclass(frozen=True)
class Member:
    """A regular file in an archive."""

    name: str  # relative, with / between folders
    size: int  # bytes, unpacked
    read: Callable[[], bytes]


@contextlib.contextmanager
def members(path: Path, scratch: Path) -> Iterator[list[Member]]:
    """Every regular file of a tar or zip archive, to be read in any order while the block lasts.

    A compressed tar is unpacked once, into an unnamed temporary file in the folder `scratch`.

    Raises:
        UserError: not an archive, damaged, or holding what a data set has no use for: links,
            devices, absolute names, `..`, two members of one name, or far more than its own size.
    """
    with contextlib.ExitStack() as stack:
        with one_line_errors(path):
            if zipfile.is_zipfile(path):
                found = zip_members(stack.enter_context(zipfile.ZipFile(path)), path)
            else:
                found = tar_members(stack.enter_context(unpacked(path, scratch)), path)
            checked = list(check(found, path))
        yield checked


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """What damage raises, as a UserError; an error of the disk stays as it is."""
    try:
        yield
    except (*DAMAGE, *ODD) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = kind(path) or str(error).partition("\n")[0].rstrip(": ") or "it is damaged or cut"
        raise UserError(
            f"not a readable tar or zip archive, {reason} ({path}): get it again, or unpack it and "
            "name the folder"
        ) from None


def kind(path: Path) -> str:
    """What a file is that is no archive, or empty if it is unknown."""
    with path.open("rb") as handle:
        start = handle.read(512)
    for first, what in OTHER_FILES.items():
        if start.startswith(first) if first else not start:
            return f"it is {what}"
    if b"<html" in start.lower() or b"<!doctype html" in start.lower():
        return "it is a web page"
    return ""


def check(found: Iterator[Member], path: Path) -> Iterator[Member]:
    """The members, their names made plain; refuses names and sizes that no data set has."""
    limit = size_limit(path)
    total = 0
    seen = set()
    for member in found:
        name = plain_name(member.name, path)
        if names.hidden(PurePosixPath(name).parts):
            continue
        if name in seen:
            raise UserError(
                f"two members named '{names.escaped(name)}' ({path}): make the archive again"
            )
        seen.add(name)
        total += member.size
        if member.size > MAX_MEMBER_BYTES or len(seen) > MAX_MEMBERS:
            raise UserError(
                f"a member of more than {MAX_MEMBER_BYTES} bytes, or more than {MAX_MEMBERS} "
                f"members ({path}): unpack it and name the folder"
            )
        check_total(total, limit, path)
        yield Member(name, member.size, partial(read, member, path))


def read(member: Member, path: Path) -> bytes:
    with one_line_errors(path):
        return member.read()


def plain_name(name: str, path: Path) -> str:
    """The name with / between folders, as a Windows program may not have written it."""
    pure = PurePosixPath(name.replace("\\", "/"))
    # `A: good` is a folder on a Mac; only a drive has a slash behind the colon
    if ".." in pure.parts or re.match(r"[A-Za-z]:[\\/]", name) or "\0" in name:
        raise UserError(
            f"member '{names.escaped(name)}' points outside the archive ({path}): do not trust "
            "this file"
        )
    if pure.is_absolute():
        raise UserError(
            f"member '{names.escaped(name)}' has an absolute name ({path}): make the archive "
            "without `tar -P`, or unpack it and name the folder"
        )
    return str(pure)


def tar_members(handle: IO[bytes], path: Path) -> Iterator[Member]:
    """The files of a tar; anything but files and folders is an error."""
    with tarfile.open(fileobj=handle, mode="r:") as tar:
        for info in iter(tar.next, None):
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            if info.isdir():
                continue
            if info.isreg() and not info.issparse():
                read = partial(read_at, handle, info.offset_data, info.size)
                yield Member(info.name, info.size, read)
            elif not names.hidden(PurePosixPath(info.name).parts):
                raise not_plain(info.name, path)
        handle.seek(tar.offset)
        # tarfile takes a damaged or missing header for the end, which is a block of zeros
        if handle.read(512) != bytes(512):
            raise tarfile.ReadError("it is damaged or cut")


def read_at(handle: IO[bytes], offset: int, size: int) -> bytes:
    handle.seek(offset)
    return handle.read(size)


def zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    """The files of a zip; links and devices, which its mode bits tell, are an error."""
    for info in archive.infolist():
        name = zip_name(info, path)
        if info.is_dir() or name.endswith("\\"):
            continue
        if (info.external_attr >> 16) & 0o170000 in (0, 0o100000):
            yield Member(name, info.file_size, partial(archive.read, info))
        elif not names.hidden(PurePosixPath(name).parts):
            raise not_plain(name, path)


def not_plain(name: str, path: Path) -> UserError:
    return UserError(
        f"member '{names.escaped(name)}' is a link, device or the like ({path}): make the "
        "archive of plain files"
    )
