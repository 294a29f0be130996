"""The chunks of a PNG file."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def essential_png(content: bytes) -> bytes:
    """The PNG without the chunks that its pixels do not need; empty if it is not a PNG."""
    if not content.startswith(SIGNATURE):
        return b""
    chunks = [SIGNATURE]
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 12 + length
        kind, body = content[position + 4 : position + 8], content[position + 4 : end - 4]
        intact = content[end - 4 : end] == struct.pack(">I", zlib.crc32(body))
        if kind[:1].isupper() or (intact and kind in (b"tRNS", b"eXIf", b"acTL")):
            chunks.append(content[position:end])
        position = end
    return b"".join(chunks)
