"""Peak memory and speed of the stages, at a tiny size."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import busy, memory
from cifar import UserError

ROOT = Path(__file__).parents[2]
HOLD = """
import subprocess, sys, time
block = bytearray(60 * 2**20)
if len(sys.argv) > 1:
    subprocess.run([sys.executable, "-c", *sys.argv[1:]])
time.sleep(0.4)
"""


@pytest.fixture
def tar(tmp_path):
    path = tmp_path / "pictures.tar"
    memory.write_tar(path, 130, 16)
    return path


def content(tar, position):
    """The file at a position in the order of the names."""
    offset, size = memory.members(tar)[position]
    return tar.read_bytes()[offset : offset + size]


@pytest.mark.slow
def test_memory_is_that_of_a_command_and_its_children(tmp_path):
    """Two processes with a block each have two blocks; the block of the caller does not count."""
    block = np.ones(200 * 2**20, np.uint8)
    seconds, kilobytes = memory.watch([sys.executable, "-c", HOLD, HOLD], tmp_path)
    assert seconds >= 0.8 and 120 * 1024 < kilobytes < 160 * 1024
    assert memory.anonymous(2**22 + 1) == 0, "no process has this number"
    assert block[0] == 1


def test_a_command_that_fails_is_an_error(tmp_path):
    """Otherwise its figures would be meaningless."""
    with pytest.raises(UserError, match="failed"):
        memory.watch([sys.executable, "-c", "raise SystemExit(1)"], tmp_path)


def test_pictures_are_jpegs_in_class_folders(tar):
    """Their number and side are as requested, and they have ten classes."""
    with tarfile.open(tar) as opened:
        names = opened.getnames()
    assert len(names) == 130
    assert {name.split("/")[0] for name in names} == set("0123456789")
    assert Image.open(io.BytesIO(content(tar, 0))).size == (16, 16)


def test_a_digit_that_comes_again_looks_different():
    """There are 1,797 digits; the noise tells their copies apart."""
    (first_name, first), *_, (last_name, last) = memory.pictures(1798, 16)
    assert first_name.split("/")[0] == last_name.split("/")[0]
    assert first != last


@pytest.mark.slow
def test_the_bare_loop_writes_every_picture(tar, tmp_path):
    """The pixels of each picture are at its position."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.memory", str(tar), str(out), "16"]
    subprocess.run(command, cwd=ROOT, check=True)
    pixels = np.fromfile(out, np.uint8).reshape(130, 16, 16, 3)
    for position in (0, 101, 129):
        expected = np.asarray(Image.open(io.BytesIO(content(tar, position))))
        np.testing.assert_array_equal(pixels[position], expected)


def test_a_step_is_measured_without_its_start(monkeypatch, tmp_path):
    """The seconds of the command with --help are subtracted from those of the step."""
    monkeypatch.setattr(busy, "others_running", lambda: 1.0)
    seconds = {True: 2.0, False: 12.0}
    monkeypatch.setattr(memory, "watch", lambda words, _: (seconds["--help" in words], 10**6))
    step = memory.measure("train", 500, ["program"], tmp_path)
    assert memory.cells(step) == ["train", "10.0", "50", "1,024", "1"]
