"""Output files appear whole or not at all, and the same content gives the same bytes."""

import errno
import hashlib
import os
import resource
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from cifar import UserError, files

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)


def names(folder: Path) -> list[str]:
    """The names of all files in the folder, including hidden ones."""
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_when_its_block_ends(tmp_path):
    """The file does not exist before its block ends; then it is complete, and the only file."""
    path = tmp_path / "folder" / "file"
    with files.atomic(path) as handle:
        handle.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failing_block_changes_nothing(error, tmp_path):
    """If the block fails, also on a signal, the old file stays and no temporary file is left."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), files.atomic(path) as handle:
        handle.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_reported_with_the_file(tmp_path):
    """An error without a file name gets the path; one with a file name keeps it."""
    with pytest.raises(OSError, match="No space left") as caught, files.atomic(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")
    with pytest.raises(FileNotFoundError) as caught, files.atomic(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")
    assert names(tmp_path) == []


def test_a_folder_in_the_way_is_reported(tmp_path):
    """If a folder has the file's name, an OSError names the path, and nothing is left behind."""
    (tmp_path / "name" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="name"):
        files.write_bytes(tmp_path / "name", b"x")
    assert names(tmp_path) == ["name"]


def test_json_is_the_same_bytes_for_the_same_content(tmp_path):
    """Keys are sorted, text is not escaped, and the last line ends with a newline."""
    files.write_json(tmp_path / "a", {"b": 1.5, "a": ["ä", None]})
    assert (
        tmp_path / "a"
    ).read_bytes() == '{\n  "a": [\n    "ä",\n    null\n  ],\n  "b": 1.5\n}\n'.encode()
    assert files.read_json(tmp_path / "a") == {"a": ["ä", None], "b": 1.5}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(value, tmp_path):
    """NaN and infinity, which are not JSON, are refused before a byte is written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a", {"loss": value})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b'{"a": "\xff"}'])
def test_damaged_json_is_reported(content, tmp_path):
    """Empty, truncated or badly encoded JSON is an error that names the file."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged JSON \(.*a\.json\)"):
        files.read_json(tmp_path / "a.json")


def test_csv_has_fixed_line_ends_and_digits(tmp_path):
    """Lines end with one newline; floats have six significant digits; integers and text are
    unchanged."""
    rows = [
        (1, 1 / 3, "a,b"),
        (2, 2e-7 / 3, 'say "x"'),
        (10**9, 1e9 / 3, "ä"),
        (None, np.float64(0.5), True),
    ]
    files.write_csv(tmp_path / "a.csv", ["epoch", "loss", "name"], rows)
    expected = (
        'epoch,loss,name\n1,0.333333,"a,b"\n2,6.66667e-08,"say ""x"""\n'
        "1000000000,3.33333e+08,ä\n,0.5,True\n"
    )
    assert (tmp_path / "a.csv").read_bytes() == expected.encode()


def test_arrays_come_back_mapped_and_read_only(tmp_path):
    """An array is mapped instead of loaded, with its values, type and shape, and is read-only."""
    files.write_array(tmp_path / "a.npy", ARRAY)
    array = files.read_array(tmp_path / "a.npy")
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, ARRAY)


def test_an_array_is_the_same_bytes_however_it_lies_in_memory(tmp_path):
    """An array's memory layout does not change its file, which has the bytes that NumPy writes."""
    for array in (ARRAY, np.arange(3), np.array(["ä", "bc"]), np.zeros((0, 2)), np.array(True)):
        files.write_array(tmp_path / "a.npy", array)
        files.write_array(tmp_path / "b.npy", np.asfortranarray(array))
        np.save(tmp_path / "c.npy", np.atleast_1d(array))
        assert len({(tmp_path / f"{name}.npy").read_bytes() for name in "abc"}) == 1


@pytest.mark.parametrize("size", [100, 5000, 1_000_000])
def test_a_disk_that_fills_up_is_noticed(size, tmp_path):
    """A write that ends a few bytes early is an error with the path, for any size, and leaves no
    file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + size - 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            files.write_array(tmp_path / "a.npy", np.zeros(size, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "a.npy")
    assert names(tmp_path) == []


def test_object_arrays_are_refused(tmp_path):
    """Python objects are neither written nor read, because reading them would run code."""
    with pytest.raises(ValueError, match="Python objects"):
        files.write_array(tmp_path / "a.npy", np.array([{}], dtype=object))
    assert names(tmp_path) == []
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged array"):
        files.read_array(tmp_path / "b.npy")


def test_every_cut_of_an_array_is_noticed(tmp_path):
    """An array file that is truncated at any byte is an error that names it."""
    files.write_array(tmp_path / "a.npy", ARRAY)
    whole = (tmp_path / "a.npy").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "a.npy").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"damaged array \(.*a\.npy\)"):
            files.read_array(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("old", "new"), [(b"NUMPY", b"NUMPI"), (b"(2, 2", b"(9, 2"), (b"}", b"{"), (b"|u1", b"zzz")]
)
def test_a_damaged_array_header_is_reported(old, new, tmp_path):
    """A header that is invalid, or that promises more data than the file has, is an error with the
    file's name."""
    files.write_array(tmp_path / "a.npy", ARRAY)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes().replace(old, new, 1))
    with pytest.raises(UserError, match=r"damaged array \(.*a\.npy\)"):
        files.read_array(tmp_path / "a.npy")


@pytest.mark.hostile
@pytest.mark.parametrize("shape", ["(10**30,)", "(True,)", "(-1,)", "('a',)"])
def test_an_impossible_shape_is_reported(shape, tmp_path):
    """A header with a shape that no array has is an error that names the file."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged array \(.*a\.npy\)"):
        files.read_array(tmp_path / "a.npy")


def test_an_archive_of_arrays_is_no_array(tmp_path):
    """A .npz archive where an array is expected is refused."""
    np.savez(tmp_path / "a.npz", ARRAY)
    with pytest.raises(UserError, match="damaged array"):
        files.read_array(tmp_path / "a.npz")


def test_sha256_is_that_of_the_content(tmp_path):
    """The checksum of a file equals hashlib's of its bytes."""
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_short_sums_are_the_start_of_the_long_ones():
    """The short checksum, which identifies a model, is the first twelve digits of the full one."""
    assert files.short_sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()[:12]


def test_a_content_is_named_as_git_names_it(tmp_path):
    """A file's hash is the one that `git log --find-object` accepts."""
    for content in (b"", b"what is up, doc?", bytes(range(256)) * 500):
        (tmp_path / "file").write_bytes(content)
        command = ["git", "hash-object", tmp_path / "file"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert files.git_name(content) == done.stdout.strip()


@dataclass(frozen=True)
class Point:
    """A record for these tests."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    x: int
    y: tuple[float, ...]
    name: str | None = None


@pytest.mark.parametrize("point", [Point(1, (0.1, 1e-300)), Point(-2, (), "ä")])
def test_a_record_comes_back(point, tmp_path):
    """A dataclass is read back as it was written: floats to the last bit, tuples as tuples."""
    files.write_record(tmp_path / "p.json", point)
    assert files.read_record(tmp_path / "p.json", Point) == point


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"x": 1}', "y: "),
        ('{"x": "1", "y": []}', "x: "),
        ('{"x": true, "y": []}', "x: "),
        ('{"x": 1.5, "y": []}', "x: "),
        ('{"x": 1, "y": [null]}', "y.0: "),
        ('{"x": 1, "y": [NaN]}', "y.0: "),
        ('{"x": 1, "y": [], "z": 2}', "z: "),
        ("{}", "x: "),
        ("[]", ""),
        ("", ""),
        ('{"x": 1, "y"', ""),
    ],
)
def test_a_record_is_checked_when_it_is_read(text, problem, tmp_path):
    """Wrong types, missing or unknown keys, NaN and damage give one line with key and file."""
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UserError) as caught:
        files.read_record(tmp_path / "p.json", Point)
    message = str(caught.value)
    assert message.startswith(f"not a readable point record, {problem}")
    assert str(tmp_path / "p.json") in message and "\n" not in message


def test_a_disk_that_is_too_small_is_noticed_before_the_work(tmp_path):
    """The error says how much space is needed, how much is free, and where."""
    free = shutil.disk_usage(tmp_path).free
    files.check_space(tmp_path, needed=free // 2)
    needed = 2 * free
    message = (
        f"^not enough disk space, about {needed / 1e6:,.0f} MB needed and .* MB free .{tmp_path}.: "
    )
    with pytest.raises(UserError, match=message):
        files.check_space(tmp_path, needed)


@pytest.mark.fault
def test_a_pipe_is_written_and_not_replaced(tmp_path):
    """A path such as /dev/stdout is written to, not replaced; for a folder the error names it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: seen.append(pipe.read_bytes()))
    seen = []
    reader.start()
    files.write_bytes(pipe, b"content")
    reader.join(60)
    assert seen == [b"content"] and pipe.is_fifo()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_bytes(tmp_path, b"content")
    assert caught.value.filename == str(tmp_path)
