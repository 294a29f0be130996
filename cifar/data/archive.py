"""Read tar and zip archives that may be malicious, without unpacking their members to disk.

Nothing here calls extract or extractall: on Python 3.11 they follow `../`, absolute names and links
out of the target folder by default.
"""

import contextlib
import errno
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from cifar import UserError, leftovers
from cifar.data import names
from cifar.data.decompress import check_total, decompressor, size_limit, unpacked
from cifar.data.zipnames import zip_name

MAX_MEMBERS = 5_000_000
MAX_MEMBER_BYTES = 1 << 30

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
# Damage raises these too. RuntimeError may also mean an encrypted member or an unknown compression.
ODD = (RuntimeError, ValueError, IndexError, OSError)

ENCRYPTED = 1  # flag bit of a zip member
ISO_9660 = 32_769  # offset of the signature of a disk image
OTHER_FILES = {  # pattern of the first bytes -> what the file is, if it is not an archive
    rb"\Z": "an empty file",
    rb"Rar!": "a RAR archive",
    rb"7z\xbc\xaf": "a 7z archive",
    rb"\x28\xb5\x2f\xfd": "a zstd archive",
    rb"\x04\x22\x4d\x18": "an lz4 archive",
    rb"LZIP": "an lzip archive",
    rb"MSCF": "a cabinet (.cab) archive",
    rb"\x1f\x9d": "a compress (.Z) archive",
    rb"PK(\x03\x04|\x07\x08|00)": "a zip archive, but cut off, damaged, split or compressed twice",
    rb"\x1f\x8b|BZh\d|\xfd7zXZ\0": "a gzip, bzip2 or xz file",
    rb".{%d}CD001" % ISO_9660: "a disk image (ISO 9660)",
    rb"MZ.*\0": "a Windows program",
    rb"\x89PNG|\xff\xd8\xff|GIF8|BM.*\0|II[*+]\0|MM\0[*+]|RIFF....WEBP": "a single picture",
    rb".{4}ftyp(avi[fs]|hei[cfmsx]|mif1|msf1)": "a single picture",
    rb".{4}ftyp|RIFF....AVI |\x1aE\xdf\xa3": "a video",
    rb"%PDF": "a PDF",
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself",
    rb"\x89HDF": "an HDF5 file",
    rb"PAR1": "a Parquet file",
    rb"ARROW1": "an Arrow (Feather) file",
    rb"SQLite format": "an SQLite database",
    rb"MATLAB": "a MATLAB file",
    rb"\x93NUMPY": "a NumPy array",
    rb"\0\0[\x08-\x0e][\x01-\x04]": "an IDX file, the format of MNIST",
    rb"\x80[\x02-\x05][^\0]": "a pickle",
    rb".{6}\0\0\{\x22": "a safetensors file",
    rb"(?i).{,400}<(html|!doctype html|error>)": "a web page or a server's error message",
    rb"\0+\Z": "nothing but zeros",
    rb"[^\0-\x08\x0e-\x1a\x1c-\x1f]+\Z|\xff\xfe|\xfe\xff": "a text file",
}

PACKAGES = {  # telltale member -> what a zip archive with it is, instead of a data set
    "[Content_Types].xml": "an Office document",
    "META-INF/MANIFEST.MF": "a Java or Android package",
    "AndroidManifest.xml": "an Android package",
}


class Member(NamedTuple):
    """A regular file in an archive."""

    name: str  # relative, with / between folders
    size: int  # bytes, unpacked
    location: int | zipfile.ZipInfo  # the first byte in a tar; the entry of a zip


Members = dict[str, Member]  # maps name to member, in the archive's order


@contextlib.contextmanager
def members(path: Path, scratch: Path) -> Iterator[tuple[Members, Callable[[str], bytes]]]:
    """Open a tar or zip archive: yield its regular files, and a function that reads one by name.

    Inside the block, members can be read in any order. A compressed tar is unpacked once, into an
    unnamed temporary file in the folder `scratch`.

    Raises:
        UserError: the file is not an archive, is damaged, or contains links, devices, absolute
            names, `..`, two members of the same name, or far more data than its own size.
    """
    with contextlib.ExitStack() as stack:
        with one_line_errors(path):
            if is_zip(path):
                zipped = stack.enter_context(zipfile.ZipFile(path))
                checked = check(zip_members(zipped, path), path)
            else:
                tar = stack.enter_context(unpacked(path, scratch))
                checked = check(tar_members(tar, path), path)

        def read(name: str) -> bytes:
            member = checked[name]
            with one_line_errors(path):
                if isinstance(member.location, zipfile.ZipInfo):
                    return zipped.read(member.location)
                return os.pread(tar.fileno(), member.size, member.location)

        yield checked, read


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn any error that damage causes into a UserError; pass on errors of the disk."""
    try:
        yield
    except (*DAMAGE, *ODD) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        text = "" if getattr(error, "errno", None) else str(error).partition("\n")[0].rstrip(": ")
        reason = kind(path) or text or "it is damaged, truncated or one part of several"
        raise UserError(
            f"not a readable tar or zip archive, {reason} ({path}): get a new copy, or unpack it "
            "and use the folder; zip and tar (plain, gzip, bzip2 or xz) are supported"
        ) from None


def kind(path: Path) -> str:
    """Describe a file that is not an archive; return an empty text for a damaged archive."""
    opener = decompressor(path)
    try:
        if is_zip(path):
            return ""
        with opener(path) if opener else path.open("rb") as handle:
            start = handle.read(ISO_9660 + 5)
    except (*DAMAGE, *ODD):
        return ""
    if start[257:262] == b"ustar":
        return ""
    matches = (what for pattern, what in OTHER_FILES.items() if re.match(pattern, start, re.DOTALL))
    return f"it is {next(matches, 'in an unknown format')}{', compressed' if opener else ''}"


def is_zip(path: Path) -> bool:
    """Whether the file is a zip archive, and not a tar whose last member is one."""
    return zipfile.is_zipfile(path) and not tarfile.is_tarfile(path)


def check(members: Iterator[Member], path: Path) -> Members:
    """Return the members under normalised names; refuse names and sizes that no data set has."""
    limit = size_limit(path)
    total = 0
    checked: Members = {}
    for member in members:
        name = plain_name(member.name, path)
        if leftovers.hidden(name.split("/")):
            continue
        if name in checked:
            raise UserError(
                f"two members named '{names.escaped(name)}' ({path}): create the archive again"
            )
        checked[name] = Member(name, member.size, member.location)
        total += member.size
        if member.size > MAX_MEMBER_BYTES or len(checked) > MAX_MEMBERS:
            raise UserError(
                f"a member of more than {MAX_MEMBER_BYTES} bytes, or more than {MAX_MEMBERS} "
                f"members ({path}): unpack it and use the folder"
            )
        check_total(total, limit, path)
    if not checked:
        raise tarfile.ReadError("it contains no files")
    return checked


def plain_name(name: str, path: Path) -> str:
    """Return the name with / between folders; some Windows programs write a backslash."""
    slashed = name.replace("\\", "/")
    parts = names.components(slashed)
    # `A: good` may be a folder on a Mac; only a drive has a slash after the colon
    if ".." in parts or re.match(r"[A-Za-z]:[\\/]", name) or "\0" in name:
        raise UserError(
            f"member '{names.escaped(name)}' points outside the archive ({path}): do not trust "
            "this file"
        )
    if slashed.startswith("/"):
        raise UserError(
            f"member '{names.escaped(name)}' has an absolute name ({path}): create the "
            "archive without `tar -P`, or unpack it and use the folder"
        )
    return "/".join(parts)


def tar_members(handle: IO[bytes], path: Path) -> Iterator[Member]:
    """Yield the files of a tar; refuse anything but files and folders."""
    with tarfile.open(fileobj=handle, mode="r:") as tar:
        for info in iter(tar.next, None):
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            if info.isdir():
                continue
            if info.isreg() and not info.issparse():
                yield Member(info.name, info.size, info.offset_data)
            elif not leftovers.hidden(names.components(info.name)):
                raise not_plain(info.name, path)
        handle.seek(tar.offset)
        # tarfile also stops at a damaged or missing header; a whole tar ends in zeros
        if handle.read(512) != bytes(512):
            raise tarfile.ReadError("it is damaged or truncated")


def zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    """Yield the files of a zip; refuse links and devices, recognised by their mode bits."""
    for info in archive.infolist():
        if info.filename in PACKAGES:
            raise zipfile.BadZipFile(f"it is {PACKAGES[info.filename]}")
        name = zip_name(info, path)
        if info.is_dir() or name.endswith("\\"):
            continue
        if info.flag_bits & ENCRYPTED:
            raise zipfile.BadZipFile("it is encrypted")
        if (info.external_attr >> 16) & 0o170000 in (0, 0o100000):
            yield Member(name, info.file_size, info)
        elif not leftovers.hidden(names.components(name)):
            raise not_plain(name, path)


def not_plain(name: str, path: Path) -> UserError:
    return UserError(
        f"member '{names.escaped(name)}' is a link, device or other special file ({path}): "
        "create the archive from regular files only"
    )
