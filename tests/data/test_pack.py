"""The shards of a user's pictures: their bytes, without owners and times."""

import tarfile

import numpy as np
import pytest

from cifar import UserError
from cifar.data import pack

FILES = {
    "train/dog/1.png": b"dog",
    "train/cat/\u00e4.png": b"",
    f"test/cat/{'n' * 150}.png": b"x" * 2000,
    **{f"train/cat/{i}.png": bytes([i]) * 3000 for i in range(9)},
}


def write(folder, files=FILES):
    with pack.written(files, files.__getitem__, folder):
        assert not list(folder.glob("[!.]*")), "no file gets its final name before the block ends"


def content(folder):
    """The name and content of each picture, read through the index."""
    return [
        (name.decode(), (folder / pack.shard_name(shard)).read_bytes()[start : start + size])
        for name, shard, start, size in pack.read_index(folder).tolist()
    ]


def shards(folder):
    return sorted(folder.glob("pictures-*.tar"))


@pytest.mark.parametrize("size", [10**9, 30_720, 20_480, 10_240])
def test_the_index_finds_what_was_written(size, tmp_path, monkeypatch):
    """Each row points to its content, sorted by name; no shard is larger than allowed."""
    monkeypatch.setattr(pack, "SHARD_BYTES", size)
    write(tmp_path)
    assert content(tmp_path) == sorted(FILES.items())
    sizes = [path.stat().st_size for path in shards(tmp_path)]
    assert len(sizes) == {10**9: 1, 30_720: 2, 20_480: 3, 10_240: 6}[size]
    assert max(sizes) <= size


def test_a_large_picture_stands_alone(tmp_path, monkeypatch):
    """A picture larger than a shard gets its own shard; its neighbours are not affected."""
    monkeypatch.setattr(pack, "SHARD_BYTES", 10_240)
    files = {"train/a/1": b"1", "train/a/2": b"2" * 50_000, "train/b/1": b"3", "train/b/2": b"4"}
    write(tmp_path, files)
    assert content(tmp_path) == sorted(files.items())
    assert pack.read_index(tmp_path)["shard"].tolist() == [0, 1, 2, 2]


def test_shards_are_tars_without_times_and_owners(tmp_path, monkeypatch):
    """Python's tarfile reads the files in order; the same pictures give the same bytes."""
    monkeypatch.setattr(pack, "SHARD_BYTES", 20_480)
    for name, files in (("a", FILES), ("b", dict(reversed(FILES.items())))):
        (tmp_path / name).mkdir()
        write(tmp_path / name, files)
    forwards, backwards = (sorted((tmp_path / name).iterdir()) for name in "ab")
    assert [path.read_bytes() for path in forwards] == [path.read_bytes() for path in backwards]
    members = []
    for path in shards(tmp_path / "a"):
        with tarfile.open(path) as tar:
            members += [(info, tar.extractfile(info).read()) for info in tar]
    assert [(info.name, body) for info, body in members] == sorted(FILES.items())
    assert {
        (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info, _ in members
    } == {(0, 0, 0, "", "", 0o644)}


def test_one_shard_has_the_bytes_of_pythons_tarfile(tmp_path):
    """Headers, padding and end are the same as the standard library's."""
    write(tmp_path)
    with tarfile.open(tmp_path / "expected.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, body in sorted(FILES.items()):
            (tmp_path / "body").write_bytes(body)
            info = tarfile.TarInfo(name)
            info.size = len(body)
            with (tmp_path / "body").open("rb") as handle:
                tar.addfile(info, handle)
    assert shards(tmp_path)[0].read_bytes() == (tmp_path / "expected.tar").read_bytes()


def edited(key, value):
    """A function that damages the index: it changes one field of the second row."""

    def edit(folder):
        rows = np.load(folder / pack.INDEX)
        rows[key][1] = value
        np.save(folder / pack.INDEX, rows)

    return edit


DAMAGES = {
    "a name out of order": (edited("name", b"train/zebra/1"), "index.npy"),
    "a name twice": (edited("name", sorted(FILES)[0].encode()), "index.npy"),
    "a negative shard": (edited("shard", -1), "index.npy"),
    "a shard that is none": (edited("shard", 3), "pictures-00003.tar"),
    "a negative offset": (edited("offset", -1), "index.npy"),
    "an offset behind the end": (edited("offset", 2**63 - 1), "pictures-00000.tar"),
    "a negative size": (edited("size", -(2**63)), "index.npy"),
    "a size beyond the end": (edited("size", 2**62), "pictures-00000.tar"),
    "other fields": (
        lambda folder: np.save(folder / pack.INDEX, np.zeros(3, [("name", "S9"), ("x", "<i8")])),
        "index.npy",
    ),
    "no fields": (lambda folder: np.save(folder / pack.INDEX, np.zeros(3)), "index.npy"),
    "two dimensions": (
        lambda folder: np.save(folder / pack.INDEX, np.load(folder / pack.INDEX)[None]),
        "index.npy",
    ),
    "no rows": (
        lambda folder: np.save(folder / pack.INDEX, np.load(folder / pack.INDEX)[:0]),
        "index.npy",
    ),
    "objects": (
        lambda folder: np.save(folder / pack.INDEX, np.array([{}]), allow_pickle=True),
        "index.npy",
    ),
    "a cut index": (
        lambda folder: (folder / pack.INDEX).write_bytes((folder / pack.INDEX).read_bytes()[:-1]),
        "index.npy",
    ),
    "a cut shard": (lambda folder: shards(folder)[1].write_bytes(b"x" * 512), "pictures-00001.tar"),
    "a missing shard": (lambda folder: shards(folder)[1].unlink(), "pictures-00001.tar"),
}


@pytest.mark.fault
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_index_is_refused(what, tmp_path, monkeypatch):
    """Impossible rows are reported in one line with the file and the command to make it again."""
    monkeypatch.setattr(pack, "SHARD_BYTES", 20_480)
    write(tmp_path)
    damage, file = DAMAGES[what]
    damage(tmp_path)
    with pytest.raises(UserError, match="`dvc repro --force fetch` makes them again") as caught:
        pack.read_index(tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)
