"""An archive is read completely or refused, and nothing in it is ever written to disk."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import pickle
import random
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from cifar import UserError
from cifar.data import archive, decompress
from cifar.data.names import escaped

HOSTILE = pytest.mark.hostile  # one marked case per input; unmarked cases are variants
FILES = {"train/cat/1.png": b"cat" * 100, "train/dog/ä.png": b"dog" * 100, "test/cat/2.png": b""}
TARS = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path, monkeypatch):
    """Every test starts in an empty folder, and leaves it and its parent empty."""
    (tmp_path / "around" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "around" / "here")
    yield
    assert [path.name for path in (tmp_path / "around").rglob("*")] == ["here"]


def tar(path: Path, files: dict[str, bytes], mode: str = "w", **attributes) -> Path:
    """Write a tar of the files after a folder entry; `attributes` are set on each member."""
    with tarfile.open(path, mode) as made:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.mkdir("train")
        for name, content in files.items():
            made.writestr(name, content)
    return path


def make(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    path = folder / f"archive.{kind}"
    return zipped(path, files) if kind == "zip" else tar(path, files, TARS[kind])


def read(path: Path) -> list[tuple[str, bytes]]:
    """Name and content of every member."""
    with archive.members(path, path.parent / "scratch") as (members, read_member):
        return [(name, read_member(name)) for name in members]


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [*TARS, "zip"])
def test_all_kinds_read_alike(kind, tmp_path):
    """All kinds give the names and contents in the archive's order, without folders."""
    assert read(make(kind, tmp_path, FILES)) == list(FILES.items())


def test_the_kind_is_in_the_content_not_in_the_name(tmp_path):
    """A zip with the name of a tar is read as a zip."""
    assert dict(read(zipped(tmp_path / "a.tar.gz", FILES))) == FILES


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    """A stored zip at its end makes a tar look like a zip; the members of the tar are read."""
    inner = zipped(tmp_path / "inner.zip", {"c/1.png": b"c"}).read_bytes()
    path = tar(tmp_path / "a.tar", {"a/1.png": b"a", "z.zip": inner})
    assert zipfile.is_zipfile(path)
    assert read(path) == [("a/1.png", b"a"), ("z.zip", inner)]


@pytest.mark.parametrize("kind", [kind for kind in TARS if kind != "tar"])
def test_a_compressed_tar_is_unpacked_once(kind, tmp_path, monkeypatch):
    """It is opened once, however often and in whatever order its members are read."""
    opened = []

    def counting(opener):
        return lambda path: opened.append(path) or opener(path)

    openers = {start: counting(opener) for start, opener in decompress.OPENERS.items()}
    monkeypatch.setattr(decompress, "OPENERS", openers)
    path = make(kind, tmp_path, FILES)
    with archive.members(path, tmp_path / "scratch") as (members, read_member):
        for name in [*reversed(members), *members]:
            assert read_member(name) == FILES[name]
    assert opened == [path]


@pytest.mark.parametrize("name", ["./train/cat/1.png", "train//cat/1.png", "train/./cat/1.png"])
def test_names_are_made_plain(name, tmp_path):
    """`.` and empty parts are removed from a name."""
    assert read(tar(tmp_path / "a.tar", {name: b"x"})) == [("train/cat/1.png", b"x")]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=HOSTILE) for name in ("../evil", "C:\\evil")),
     "a/../../evil", "a/..", "..\\evil", "C:/evil"],
)  # fmt: skip
def test_names_that_point_outside_are_refused(name, kind, tmp_path):
    """A name with `..` or a drive is refused, and the message contains it."""
    message = refusal(make(kind, tmp_path, {"good": b"x", name: b"x"}))
    assert "points outside the archive" in message
    assert f"'{escaped(name)}'" in message


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", [pytest.param("/tmp/evil", marks=HOSTILE), "\\evil"])
def test_an_absolute_name_is_refused_without_alarm(name, kind, tmp_path):
    """`tar -P` writes such names: the message says what to do and does not mention trust."""
    message = refusal(make(kind, tmp_path, {"good": b"x", name: b"x"}))
    assert f"'{escaped(name)}' has an absolute name" in message
    assert "trust" not in message


@pytest.mark.hostile
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_letter_and_a_colon_may_begin_a_name(kind, tmp_path):
    """`A: good` is a class on a Mac or Linux, not a drive."""
    files = {"A: good/1.png": b"x", "B: bad/1.png": b"y"}
    assert read(make(kind, tmp_path, files)) == list(files.items())


TYPES = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "character device": tarfile.CHRTYPE,
         "block device": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE, "unknown": b"Z"}  # fmt: skip


@HOSTILE
@pytest.mark.parametrize("type_", TYPES.values(), ids=TYPES.keys())
def test_what_is_no_plain_file_is_refused_in_a_tar(type_, tmp_path):
    """Links, devices, pipes and unknown types are refused, even if they point inside."""
    path = tar(tmp_path / "a.tar", {"link": b""}, type=type_, linkname="train/cat/1.png")
    assert "'link' is a link, device or other special file" in refusal(path)


@pytest.mark.parametrize(
    "mode", [pytest.param(0o120777, marks=HOSTILE, id="link"), 0o010644, 0o020644]
)
def test_what_is_no_plain_file_is_refused_in_a_zip(mode, tmp_path):
    """Links and devices in a zip are recognised by their mode bits, and refused."""
    info = zipfile.ZipInfo("link")
    info.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, "/etc/passwd")
    assert "'link' is a link, device or other special file" in refusal(tmp_path / "a.zip")


@pytest.mark.hostile
def test_sparse_members_are_refused(tmp_path):
    """A sparse file, far larger than its stored content, is refused."""
    sparse = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "x",
        "GNU.sparse.realsize": "9999",
    }
    path = tar(tmp_path / "a.tar", {"x": b"1\n0\n512\n".ljust(1024, b"\0")}, pax_headers=sparse)
    assert "link, device or other special file" in refusal(path)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    "again",
    [pytest.param("train/cat/1.png", marks=HOSTILE), "./train/cat/1.png", "train//cat/1.png"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(again, kind, tmp_path):
    """Two members of the same name are refused, also if it is spelled differently."""
    path = tmp_path / "a"
    if kind == "tar":
        with tarfile.open(path, "w") as made:
            made.addfile(tarfile.TarInfo("train/cat/1.png"))
            made.addfile(tarfile.TarInfo(again))
    else:
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("train/cat/1.png", "1")
            made.writestr(again, "2")
    assert "two members named" in refusal(path)


@pytest.mark.hostile
@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind, tmp_path, monkeypatch):
    """Content far larger than the archive is refused, in one member or in many."""
    monkeypatch.setenv("MAX_UNPACKED_GB", "0.001")
    zeros = bytes(1_500_000)
    assert "unpacks to more than" in refusal(make(kind, tmp_path, {"bomb": zeros}))
    assert "unpacks to more than" in refusal(
        make(kind, tmp_path, {str(i): zeros[:200_000] for i in range(8)})
    )


@pytest.mark.hostile
@pytest.mark.parametrize("text", ["much", "", "nan", "-1", "-inf", "4 GB"])
def test_a_limit_that_is_no_number_is_one_line(text, tmp_path, monkeypatch):
    """The message names the variable, and no other limit is used instead."""
    path = make("zip", tmp_path, FILES)
    monkeypatch.setenv("MAX_UNPACKED_GB", text)
    with pytest.raises(UserError, match=r"^not a number: '.*' \(MAX_UNPACKED_GB\): set it to a n"):
        read(path)


def test_what_packs_well_is_no_bomb(tmp_path):
    """A small archive of uniform pictures is read."""
    content = b"\xff" * 5_000_000
    for kind in ("tar.xz", "zip"):
        path = make(kind, tmp_path, {"white.bmp": content})
        assert len(content) > 900 * path.stat().st_size
        assert read(path) == [("white.bmp", content)]


@pytest.mark.hostile
def test_a_member_of_gigabytes_is_refused(tmp_path):
    """A member that would fill the memory is refused, however large the archive."""
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("x")
    header.size = 2 << 30
    path.write_bytes(header.tobuf())
    os.truncate(path, 3 << 30)  # uses no disk space: the rest is a hole
    assert "a member of more than 1073741824 bytes" in refusal(path)


@pytest.mark.hostile
def test_a_size_that_lies_is_refused(tmp_path):
    """A tar whose header announces more bytes than follow is refused."""
    path, header = tmp_path / "a.tar", tarfile.TarInfo("x")
    for size in (2 << 20, 4096):
        header.size = size
        path.write_bytes(header.tobuf() + b"x" * 512 + bytes(1024))
        assert "unexpected end of data" in refusal(path)


@pytest.mark.hostile
def test_an_encrypted_zip_is_refused(tmp_path):
    """The message says that the archive is encrypted."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x", "x")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags of the member, and the same in the directory at the end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "it is encrypted" in refusal(path)


@pytest.mark.hostile
def test_an_unknown_method_of_compression_is_named(tmp_path):
    """A zip with Deflate64, as Windows writes large ones, is refused for that, not as damaged."""
    path = zipped(tmp_path / "a.zip", {"x": b"x"})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.rindex(signature) + offset] = 9
    path.write_bytes(content.replace(b"train/", b"Train/"))
    message = refusal(path)
    assert "compression method is not supported" in message and "unpack it" in message


@pytest.mark.parametrize(
    "kind",
    ["tar.bz2", "tar.xz", *(pytest.param(k, marks=HOSTILE) for k in ("tar", "tar.gz", "zip"))],
)
def test_every_cut_is_noticed(kind, tmp_path):
    """A truncated archive is refused wherever it ends, also between two members."""
    path = make(kind, tmp_path, FILES)
    whole = path.read_bytes()
    # A tar ends with a block of zeros, then padding, which some programs leave out.
    needed = len(whole.rstrip(b"\0")) + 512 if kind == "tar" else len(whole)
    for length in [*range(0, needed, 128 if kind == "tar" else 7), needed - 1]:
        path.write_bytes(whole[:length])
        assert "not a readable tar or zip archive" in refusal(path)


@pytest.mark.parametrize(
    "kind", ["tar.bz2", "tar.xz", *(pytest.param(k, marks=HOSTILE) for k in ("tar.gz", "zip"))]
)
def test_damage_is_noticed(kind, tmp_path):
    """A changed byte in the compressed data is detected by the checksum of the format."""
    path = make(kind, tmp_path, {"a": random.Random(0).randbytes(300_000).hex().encode()})
    content = bytearray(path.read_bytes())
    for place in range(10_000, 290_000, 40_000):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        assert "not a readable tar or zip archive" in refusal(path)


@pytest.mark.hostile
def test_a_damaged_tar_header_is_noticed(tmp_path):
    """A header with a wrong checksum is treated as damage, not as the end of the archive."""
    path = tar(tmp_path / "a.tar", FILES)
    content = bytearray(path.read_bytes())
    content[content.index(b"test/cat/2.png")] ^= 1
    path.write_bytes(content)
    assert "damaged or truncated" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", marks=HOSTILE, id="nothing"),
        pytest.param(b"<html></html>" * 100, marks=HOSTILE, id="a web page"),
        *(b"\0", b"hello", b"PK\x03\x04" + bytes(99), bytes(99)),
    ],
)
def test_what_is_no_archive_is_reported(content, tmp_path):
    """An empty file, a few bytes, a web page and the start of an archive are not archives."""
    (tmp_path / "a.tar.gz").write_bytes(content)
    assert "not a readable tar or zip archive" in refusal(tmp_path / "a.tar.gz")


def picture(form: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(content, form)
    return content.getvalue()


def database(folder: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(folder / "a.db")) as connection:
        connection.execute("CREATE TABLE a (b)")
        connection.commit()
    return (folder / "a.db").read_bytes()


TEXTS = {
    "JSON": b'{"a": 1}',
    "CSV": "größe;1\n".encode() * 9999,
    "Latin-1": "größe;1\n".encode("latin-1"),
    "UTF-16": "a;1\n".encode("utf-16"),
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "YAML": b"outs:\n- path: a\n",
}
PAGES = {
    "Google Drive": b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>",
    "S3": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
}
OTHERS = {
    b"Rar!\x1a\x07\x01\x00": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c\x00\x04": "a 7z archive",
    b"\x28\xb5\x2f\xfd\x04\x00": "a zstd archive",
    b"\x04\x22\x4d\x18\x64\x40\xa7": "an lz4 archive",
    b"LZIP\x01\x0c": "an lzip archive",
    b"MSCF\0\0\0\0": "a cabinet (.cab) archive",
    bytes(32768) + b"\x01CD001\x01": "a disk image (ISO 9660)",
    b"MZ\x90\0\x03": "a Windows program",
    b"\0\0\0\x20ftypisom": "a video",
    b"\0\0\0\x20ftypheic": "a single picture",
    b"ARROW1\0\0": "an Arrow (Feather) file",
    b"MATLAB 5.0 MAT-file".ljust(116): "a MATLAB file",
    b"\0\0\x08\x03\0\0\xea\x60": "an IDX file, the format of MNIST",
    b"PK\x07\x08PK\x03\x04": "a zip archive, but cut off, damaged, split",
    b"\x0b\x16\x21": "in an unknown format",
    b"": "nothing but zeros",
}


@pytest.mark.parametrize(("start", "what"), OTHERS.items(), ids=OTHERS.values())
def test_what_is_no_archive_is_named(start, what, tmp_path):
    """The message says what the file is, by its first bytes, and what is supported."""
    path = tmp_path / "a.tar.zst"
    path.write_bytes(start + bytes(2000))
    message = refusal(path)
    assert f"it is {what} (" in message or f"it is {what} or compressed twice (" in message
    assert "unpack it and use the folder; zip and tar (plain," in message


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_single_picture_is_named(form, tmp_path):
    """A picture instead of a data set is recognised in any format."""
    (tmp_path / "a").write_bytes(picture(form))
    assert "it is a single picture (" in refusal(tmp_path / "a")


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_text_is_named(content, tmp_path):
    """A table, a record or a vector drawing is a text file, in any encoding."""
    (tmp_path / "a").write_bytes(content)
    assert "it is a text file (" in refusal(tmp_path / "a")


@pytest.mark.parametrize("content", PAGES.values(), ids=PAGES)
def test_the_error_of_a_server_is_named(content, tmp_path):
    """A page that a server sent instead of the archive is recognised."""
    (tmp_path / "a").write_bytes(content)
    assert "it is a web page or a server's error message (" in refusal(tmp_path / "a")


def test_data_of_other_programs_are_named(tmp_path):
    """A database, a pickle and weights are recognised."""
    weights = safetensors.numpy.save({"a": np.zeros(2)})
    for what, content in (
        ("an SQLite database", database(tmp_path)),
        ("a safetensors file", weights),
        *(("a pickle", pickle.dumps({"a": [1, 2]}, protocol)) for protocol in (2, 3, 4, 5)),
    ):
        (tmp_path / "a").write_bytes(content)
        assert f"it is {what} (" in refusal(tmp_path / "a")


def test_a_compressed_file_that_is_no_tar_is_named(tmp_path):
    """The content is recognised: MNIST's files, a table, an array, and data compressed twice."""
    twice = gzip.compress(make("tar.gz", tmp_path, FILES).read_bytes())
    for content, what in (
        (gzip.compress(b"\0\0\x08\x03" + bytes(1000)), "an IDX file, the format of MNIST"),
        (bz2.compress(TEXTS["CSV"]), "a text file"),
        (lzma.compress(TEXTS["CSV"], lzma.FORMAT_ALONE), "a text file"),
        (lzma.compress(b"\x93NUMPY\x01\0v\0" + bytes(99)), "a NumPy array"),
        (gzip.compress(b""), "an empty file"),
        (twice, "a gzip, bzip2 or xz file"),
    ):
        (tmp_path / "a").write_bytes(content)
        assert f"it is {what}, compressed (" in refusal(tmp_path / "a")


@pytest.mark.parametrize("name", ["[Content_Types].xml", "META-INF/MANIFEST.MF"])
def test_a_zip_of_another_program_is_named(name, tmp_path):
    """A document or program that is a zip archive is not read as a data set."""
    files = {"word/media/1.png": b"x", "b/1.png": b"x", name: b"x"}
    message = refusal(make("zip", tmp_path, files))
    assert "it is an Office document (" in message or "it is a Java or Android pack" in message


@pytest.mark.parametrize("kind", [*TARS, "zip"])
def test_an_archive_without_files_is_refused(kind, tmp_path):
    """The message says that an archive contains no files, only folders or nothing."""
    assert "it contains no files (" in refusal(make(kind, tmp_path, {}))


def test_a_part_of_a_zip_is_called_one(tmp_path):
    """The last of several parts is recognised: only its end is that of a zip archive."""
    path = make("zip", tmp_path, FILES)
    path.write_bytes(path.read_bytes()[60:])
    assert "damaged, truncated or one part of several" in refusal(path)


def test_a_zip_behind_a_program_is_read(tmp_path):
    """A self-extracting archive, a program with a zip at its end, is read."""
    path = make("zip", tmp_path, FILES)
    path.write_bytes(b"MZ\x90\0" + bytes(500) + path.read_bytes())
    assert read(path) == list(FILES.items())


@pytest.mark.hostile
def test_names_in_an_unknown_encoding_are_reported(tmp_path):
    """A zip whose name is marked as UTF-8, but is not, is refused in one line."""
    path = zipped(tmp_path / "a.zip", {"ä": b"x"})
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    assert "not a readable tar or zip archive" in refusal(path)


def test_a_missing_file_is_the_systems_error(tmp_path):
    """An error of the operating system passes unchanged; it names the file."""
    with pytest.raises(FileNotFoundError, match=r"a\.tar"):
        read(tmp_path / "a.tar")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
