"""A folder of pictures on a disk: links, cycles, empty folders, special files."""

import os
from pathlib import Path

import pytest

from cifar import UserError
from cifar.data import folders, layout

HOSTILE = pytest.mark.hostile  # one marked case per input; unmarked cases are variants


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def test_a_folder_is_read_sorted_and_without_leftovers(tmp_path):
    """Names are sorted, links are followed, and leftovers of operating systems are skipped."""
    fill(tmp_path / "a", "cat/2.png", "cat/10.png", ".git/refs/origin/HEAD", "cat/.DS_Store")
    fill(tmp_path / "b", "dog/1.png", "1.png")
    (tmp_path / "a" / "dog").symlink_to(tmp_path / "b" / "dog")
    (tmp_path / "a" / "cat" / "3.png").symlink_to(tmp_path / "b" / "1.png")
    expected = ["cat/10.png", "cat/2.png", "cat/3.png", "dog/1.png"]
    assert folders.walk(tmp_path / "a") == expected


@pytest.mark.parametrize("folder", [".", "cat", pytest.param("train/cat", marks=HOSTILE)])
def test_a_circle_of_links_ends(folder, tmp_path):
    """A link to a folder around it does not multiply pictures: it is an error that names it."""
    fill(tmp_path, "train/cat/1", "cat/1")
    (tmp_path / folder / "again").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match=r"folders nested without end .*again"):
        folders.walk(tmp_path)


def test_two_links_to_one_folder_are_no_circle(tmp_path):
    """Two links may point to one class folder."""
    fill(tmp_path / "all", "cat/1", "dog/1")
    for part in ("train", "test"):
        (tmp_path / "set" / part).mkdir(parents=True)
        for name in ("cat", "dog"):
            (tmp_path / "set" / part / name).symlink_to(tmp_path / "all" / name)
    assert len(folders.walk(tmp_path / "set")) == 4


@HOSTILE
@pytest.mark.parametrize("kind", ["pipe", "dangling", "itself"])
def test_what_is_no_file_is_refused(kind, tmp_path):
    """A pipe, which would block for ever, and links to nothing or to themselves are named."""
    path = fill(tmp_path, "cat/1", "dog/1") / "cat" / "strange"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing" if kind == "dangling" else path)
    with pytest.raises(UserError, match=r"neither a file nor a folder .*strange"):
        folders.walk(tmp_path)


@HOSTILE
def test_an_empty_class_folder_is_refused(tmp_path):
    """A class folder without pictures, or with leftovers only, is refused."""
    fill(tmp_path, "train/cat/1", "train/dog/1", "train/cow/.DS_Store")
    with pytest.raises(UserError, match=r"^empty folder \(.*train/cow\): add pictures to it"):
        folders.walk(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    """A file name in another encoding is refused, because no output file could contain it."""
    try:
        fill(tmp_path, "cat/\udce4.png", "dog/1.png")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(UserError, match="is not UTF-8"):
        layout.recognize(folders.walk(tmp_path), str(tmp_path))
