"""What the maker of a zip archive called its members."""

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
    """The name of a member; without the UTF-8 flag Info-ZIP's field, ZIP_ENCODING, or UTF-8.

    macOS writes UTF-8 without the flag. Bytes of another encoding are hardly ever valid UTF-8, and
    nothing says which one it is: a guess would train on classes of a wrong name.

    Raises:
        UserError: a name in another encoding than the environment variable says, or than UTF-8.
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
            f"no encoding of text: {encoding[:40]!a} (ZIP_ENCODING): set it to one such as cp437 "
            "or gbk"
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
