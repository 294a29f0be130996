"""Decode the names of the members of a zip archive."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

from cifar import UserError
from cifar.data import names

UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075  # an extra field of Info-ZIP: version, CRC-32 of the plain name, UTF-8 name


def zip_name(info: zipfile.ZipInfo, path: Path) -> str:
    """Return the name of a member.

    A name without the UTF-8 flag is taken from Info-ZIP's extra field if it exists, or decoded as
    the environment variable ZIP_ENCODING says, by default as UTF-8, which macOS writes without the
    flag. No other encoding is guessed: the archive does not name it, and a wrong guess would give
    wrong class names. Text in other encodings is hardly ever valid UTF-8.

    Raises:
        UserError: the name is not in the encoding of ZIP_ENCODING, or not in UTF-8 if it is unset.
    """
    if info.flag_bits & UTF8_FLAG:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")
    if name := unicode_path(info.extra, raw):
        return name
    encoding = os.environ.get("ZIP_ENCODING") or "utf-8"
    try:
        return raw.decode(encoding)
    except LookupError:
        raise UserError(
            f"not a text encoding: {encoding[:40]!a} (ZIP_ENCODING): set it to an encoding such as "
            "cp437 or gbk"
        ) from None
    except UnicodeDecodeError:
        text = names.escaped(raw.decode("ascii", "backslashreplace"))
        raise UserError(
            f"the name '{text}' is not {encoding} ({path}): set the environment variable "
            "ZIP_ENCODING to its encoding, such as cp437, gbk, shift_jis or cp866"
        ) from None


def unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's Unicode Path field, if it belongs to the plain name `raw`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field = extra[4 : 4 + size]
        extra = extra[4 + size :]
        if kind == UNICODE_PATH and size > 5:
            version, checksum = struct.unpack_from("<BL", field)
            if version == 1 and checksum == zlib.crc32(raw):
                return field[5:].decode("utf-8", "replace")
    return None
