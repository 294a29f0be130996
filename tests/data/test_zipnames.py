"""The names of a zip's members, decoded as their authors intended."""

import io
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest

from cifar import UserError
from cifar.data.archive import plain_name
from cifar.data.zipnames import zip_name

PATH = Path("pets.zip")
NFD = unicodedata.normalize("NFD", "café")


def zip_with(name: bytes, extra: bytes = b"") -> zipfile.ZipInfo:
    """A zip member whose name has exactly these bytes, without the UTF-8 flag."""
    info = zipfile.ZipInfo("q" * len(name))
    info.extra = extra
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(info, b"x")
    content = buffer.getvalue().replace(b"q" * len(name), name)
    (found,) = zipfile.ZipFile(io.BytesIO(content)).infolist()
    assert not found.flag_bits & 0x800
    return found


def unicode_path(name: str, plain: bytes) -> bytes:
    body = struct.pack("<BL", 1, zlib.crc32(plain)) + name.encode()
    return struct.pack("<HH", 0x7075, len(body)) + body


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (zip_with(b"cat/1.jpg"), "cat/1.jpg"),
        (zip_with(NFD.encode() + b"/1.jpg"), f"{NFD}/1.jpg"),  # macOS
        (zip_with(b"caf?", unicode_path("café", b"caf?")), "café"),  # Info-ZIP
        (zip_with(b"caf?", b"\x99\x99\x01\0x" + unicode_path("犬", b"caf?")), "犬"),
        (zip_with(b"caf?", unicode_path("dog", b"cat?")), "caf?"),  # of another name
    ],
    ids=["plain", "macOS", "Info-ZIP", "after another field", "renamed since"],
)
def test_names_without_the_utf8_flag(member, expected):
    """Info-ZIP's extra field has precedence, then UTF-8, as macOS writes it."""
    assert zip_name(member, PATH) == expected


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("gbk", "狗/1.jpg"),
        ("shift_jis", "表/ソ.jpg"),  # the second byte of both is that of a backslash
        ("cp866", "кот/1.jpg"),
        ("latin-1", "Bär/1.jpg"),
        ("cp437", "café/1.jpg"),
    ],
)
def test_names_in_another_encoding_are_read_only_as_the_user_says(encoding, name, monkeypatch):
    """Another encoding is refused, with the name, until ZIP_ENCODING is set to it."""
    raw = name.encode(encoding)
    message = r"^the name '.*\\x.*' is not utf-8 \(pets\.zip\): .* ZIP_ENCODING"
    with pytest.raises(UserError, match=message):
        zip_name(zip_with(raw), PATH)
    monkeypatch.setenv("ZIP_ENCODING", encoding)
    assert plain_name(zip_name(zip_with(raw), PATH), PATH) == name


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "ascii"])
def test_an_encoding_that_does_not_fit_is_refused(encoding, monkeypatch):
    """An unknown encoding, one that is not for text, and one that does not fit are refused."""
    monkeypatch.setenv("ZIP_ENCODING", encoding)
    with pytest.raises(UserError, match=f"{encoding}.*ZIP_ENCODING"):
        zip_name(zip_with(b"caf\x82/1.jpg"), PATH)


def test_names_with_the_utf8_flag():
    """A name that is marked as UTF-8 is used as it is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("犬/ä.png", b"x")
    assert zip_name(zipfile.ZipFile(buffer).infolist()[0], PATH) == "犬/ä.png"
