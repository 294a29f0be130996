"""What the maker of a zip archive called its members."""

import struct
import zipfile
import zlib

UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075  # an extra field of Info-ZIP: version, CRC-32 of the plain name, UTF-8 name


def zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member; without the UTF-8 flag Info-ZIP's field, UTF-8, or code page 437.

    macOS writes UTF-8 without the flag. Bytes of another encoding are hardly ever valid UTF-8.
    """
    if info.flag_bits & UTF8_FLAG:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")
    if name := unicode_path(info.extra, raw):
        return name
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return info.orig_filename


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
