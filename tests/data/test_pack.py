"""The tar of a user's pictures: their bytes, and nothing of who packed them when."""

import io
import tarfile

from cifar.data import pack

PAIRS = [
    ("train/dog/1.png", b"dog"),
    ("train/cat/ä.png", b""),
    (f"test/cat/{'n' * 150}.png", b"x" * 2000),
]


def test_the_index_finds_what_was_written(tmp_path):
    """Each content lies where its entry says, sorted by name: long names and empty files too."""
    path = tmp_path / "a.tar"
    with path.open("wb") as handle:
        pack.write(iter(PAIRS), handle)
    whole = path.read_bytes()
    found = [
        (entry.name, whole[entry.offset : entry.offset + entry.size]) for entry in pack.index(path)
    ]
    assert found == sorted(PAIRS)


def test_a_pack_carries_no_times_and_no_owners():
    """The same pictures are the same bytes, whoever packs them, and whenever."""
    packs = [io.BytesIO(), io.BytesIO()]
    for handle in packs:
        pack.write(PAIRS, handle)
    assert packs[0].getvalue() == packs[1].getvalue()
    packs[0].seek(0)
    with tarfile.open(fileobj=packs[0]) as tar:
        owners = {
            (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in tar
        }
    assert owners == {(0, 0, 0, "", "", 0o644)}
