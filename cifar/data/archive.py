"""Reading tar and zip archives from strangers: members are read, never unpacked to disk.

Nothing here calls extract or extractall: on Python 3.11 their default follows `../`, absolute names
and links out of the target folder.
"""

import errno
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from cifar import UserError

Member = tuple[str, int, Callable[[], bytes]]  # name, size, reader of the content

MAX_MEMBERS = 5_000_000
MAX_MEMBER_BYTES = 1 << 30
MAX_RATIO = (
    200  # unpacked to packed; photographs and CIFAR stay below 2, deflate's own limit is 1032
)

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)  # what damaged data raise,
ODD = (
    RuntimeError,
    ValueError,
    IndexError,
    OSError,
)  # and these too; RuntimeError: encrypted or unknown methods


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every regular file in the archive, in its order.

    Raises:
        UserError: not an archive, damaged, or holding what a data set has no use for: links, devices,
            absolute names, `..`, two members of one name, or contents far larger than the archive.
    """
    packed, unpacked, seen = path.stat().st_size, 0, set()
    try:
        for name, size, content in (
            zip_members(path) if zipfile.is_zipfile(path) else tar_members(path)
        ):
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
                raise UserError(
                    f"member {name!r} points outside the archive ({path}): do not trust this file"
                )
            if str(pure) in seen:
                raise UserError(f"two members named {name!r} ({path}): make the archive again")
            seen.add(str(pure))
            unpacked += size
            if (
                size > MAX_MEMBER_BYTES
                or unpacked > MAX_RATIO * packed + (1 << 20)
                or len(seen) > MAX_MEMBERS
            ):
                raise UserError(
                    f"unpacks to far more than its {packed} bytes ({path}): do not trust this file"
                )
            yield str(pure), content()
    except (*DAMAGE, *ODD) as error:
        if isinstance(error, OSError) and error.errno not in (
            None,
            errno.EINVAL,
        ):  # a disk's own error
            raise
        raise UserError(
            f"not a readable tar or zip archive ({path}): {str(error).partition(chr(10))[0]}"
        ) from None


def tar_members(path: Path) -> Iterator[Member]:
    """(name, size, function that reads the content) of a tar's files; anything but files and folders is an error."""
    with tarfile.open(path, "r:*") as tar:
        for info in tar:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise UserError(
                    f"member {info.name!r} is a link, device or the like ({path}): make it of plain files"
                )
            yield info.name, info.size, partial(read_member, tar, info)
        assert tar.fileobj, "open"
        tar.fileobj.seek(
            tar.offset
        )  # tarfile takes a damaged or missing header for the end, which is a block of zeros
        if tar.fileobj.read(1 << 20)[:512] != bytes(
            512
        ):  # as far as the checksum of gzip, bzip2 or xz
            raise tarfile.ReadError("it is damaged or cut")


def read_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    handle = tar.extractfile(info)
    assert handle, "a regular file"
    return handle.read()


def zip_members(path: Path) -> Iterator[Member]:
    """(name, size, function that reads the content) of a zip's files."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000):
                raise UserError(
                    f"member {info.filename!r} is a link or the like ({path}): make it of plain files"
                )
            yield info.filename, info.file_size, partial(archive.read, info)
