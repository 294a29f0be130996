"""Reading the fetched data set in batches, and writing the splits."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar import UserError, files
from cifar.data import normalize, pack, parts, split, splits

CLASSES = ["cat", "dog"]


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def fetched(folder) -> None:
    """Twelve training, two validation and four test pictures; their red value is their number."""
    write(
        folder,
        {f"train/{CLASSES[i % 2]}/{i:02}.png": picture(i) for i in range(12)}
        | {f"val/{CLASSES[i % 2]}/{i:02}.png": picture(100 + i) for i in range(2)}
        | {f"test/{CLASSES[i % 2]}/{i:02}.png": picture(200 + i) for i in range(4)},
    )


def write(folder, named: dict[str, bytes]) -> None:
    with pack.written(named, named.__getitem__, folder):
        pass


def arrays(folder) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    made = {"train": images[:10], "test": images[10:]}
    for part, pixels in made.items():
        files.write_array(folder / f"{part}_images.npy", pixels)
        files.write_array(folder / f"{part}_labels.npy", np.arange(len(pixels)) % 2)
    return made


@pytest.mark.hostile
@pytest.mark.parametrize(
    "change",
    [
        lambda images, labels: (images / np.float32(255), labels),
        lambda images, labels: (images.astype(np.int64), labels),
        lambda images, labels: (images[..., 0], labels),
        lambda images, labels: (images, labels.astype(np.float64)),
        lambda images, labels: (images, labels[1:]),
        lambda images, labels: (images, labels + 1),
    ],
)
def test_arrays_of_another_kind_are_refused(change, tmp_path):
    """A fetch function of one's own must write uint8 images and whole numbers as labels."""
    arrays(tmp_path)
    images, labels = (np.load(tmp_path / f"train_{kind}.npy") for kind in ("images", "labels"))
    for kind, array in zip(("images", "labels"), change(images, labels), strict=True):
        files.write_array(tmp_path / f"train_{kind}.npy", array)
    with pytest.raises(UserError, match=r"^not uint8 images \(N, H, W, C\) with one class number"):
        parts.read_arrays(tmp_path, 2)


@pytest.mark.parametrize("size", [10**9, 10_240])
def test_the_parts_of_pictures(size, tmp_path, monkeypatch):
    """Each part has its pictures in the order of their names, in one shard or in several."""
    monkeypatch.setattr(pack, "SHARD_BYTES", size)
    monkeypatch.setattr(parts, "NAMES", 5)
    fetched(tmp_path)
    found = parts.read_pictures(tmp_path, CLASSES, first_frame=False)
    assert list(found) == ["train", "val", "test"]
    for name, part in found.items():
        paths = part.names(np.arange(len(part.labels))).tolist()
        assert paths == sorted(paths)
        assert all(path.startswith(f"{name}/") for path in paths)
        assert part.labels.tolist() == [int("dog" in path) for path in paths]
        reds = [int(path[-6:-4]) + {"train": 0, "val": 100, "test": 200}[name] for path in paths]
        batches = [batch for batch, problems in part.batches(4)]
        assert np.concatenate(batches)[:, 0, 0, 0].tolist() == reds


@pytest.mark.hostile
def test_a_cameras_raw_file_is_a_bad_picture(tmp_path):
    """Some raw files are TIFF inside, and only a small preview would be read."""
    write(tmp_path, {"train/cat/1.NEF": picture(1), "train/dog/1.png": picture(1)})
    found = parts.read_pictures(tmp_path, CLASSES, first_frame=False)
    (batch,) = found["train"].batches(4)
    assert batch[1] == {0: "camera raw file: export it as JPEG"}


@pytest.mark.hostile
@pytest.mark.parametrize(
    "name",
    [
        *("train/cow/1.png", "more/cat/1.png", "train/cat/a/1.png", "train/cat/", "train/cat"),
        *("1.png", "", "/train/cat/1.png"),
    ],
)
def test_an_index_of_other_names_is_refused(name, tmp_path):
    """A name without a known part and class, or without a file, is reported in one line."""
    write(tmp_path, {name: picture(1), "train/dog/1.png": picture(2)})
    with pytest.raises(UserError, match=r"index\.npy\): `dvc repro --force fetch`"):
        parts.read_pictures(tmp_path, CLASSES, first_frame=False)


@pytest.mark.hostile
def test_an_index_that_is_not_utf8_is_refused(tmp_path):
    """Bytes that are not UTF-8 are reported in one line with the file."""
    write(tmp_path, {"train/cat/1.png": picture(1), "train/dog/1.png": picture(2)})
    rows = np.load(tmp_path / pack.INDEX)
    rows["name"][0] = b"train/cat/\xff"
    np.save(tmp_path / pack.INDEX, rows)
    with pytest.raises(UserError, match=r"index\.npy\): `dvc repro --force fetch`"):
        parts.read_pictures(tmp_path, CLASSES, first_frame=False)


def test_names_are_written_as_text_of_one_width(tmp_path, monkeypatch):
    """Names in any script are written as np.save does, as wide as the longest of the source."""
    monkeypatch.setattr(splits, "NAMES", 2)
    named = {f"train/{name}/{i}\u00e4\u72ac.png": b"" for i in range(3) for name in CLASSES}
    write(tmp_path, named | {"test/cat/a-longer-name.png": b""})
    part = parts.read_pictures(tmp_path, CLASSES, first_frame=False)["train"]
    splits.Split(part, np.array([0, 2, 3, 5])).write_names(tmp_path / "names.npy")
    expected = np.array([*sorted(named), "test/cat/a-longer-name.png"])[[0, 2, 3, 5]]
    np.save(tmp_path / "expected.npy", expected)
    assert (tmp_path / "names.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


@pytest.mark.parametrize("size", [4, 3])
def test_batches_of_any_length_hold_the_same(size, tmp_path, monkeypatch):
    """Images come in order and unchanged, whatever the length of a batch."""
    fetched(tmp_path)
    made = arrays(tmp_path)
    sources = [
        parts.read_arrays(tmp_path, 2),
        parts.read_pictures(tmp_path, CLASSES, first_frame=False),
    ]
    for source in sources:
        for name, part in source.items():
            whole = np.concatenate([batch for batch, _ in part.batches(size)])
            for length in (1, 2, 7):
                monkeypatch.setattr(parts, "BATCH_BYTES", 3 * 4 * 4 * length)
                batches = [batch for batch, _ in part.batches(size)]
                assert max(map(len, batches)) <= length * 16 // 9 + 1
                assert (np.concatenate(batches) == whole).all()
            monkeypatch.undo()
            if size == 4 and source is sources[0]:
                assert (whole == made[name]).all()


def test_a_batch_has_a_limit_in_bytes_and_one_in_images():
    """The number of images in memory is limited, also for small images."""
    assert [parts.batch_length(side) for side in (1, 8, 224, 10_000)] == [4096, 4096, 222, 1]


def test_splits_are_written_as_they_pass(tmp_path, monkeypatch):
    """Each split has its images, in the same bytes as np.save."""
    made = arrays(tmp_path)
    monkeypatch.setattr(parts, "BATCH_BYTES", 3 * 4 * 4 * 3)
    source = parts.read_arrays(tmp_path, 2)
    chosen = {
        "train": splits.Split(source["train"], np.array([0, 2, 3, 8])),
        "val": splits.Split(source["train"], np.array([1, 9])),
        "test": splits.Split(source["test"], np.arange(6)),
    }
    with splits.written_images(source, chosen, 4, tmp_path / "out") as images:
        assert not list((tmp_path / "out").rglob("images.npy"))
    for name, s in chosen.items():
        expected = made["test" if name == "test" else "train"][s.index]
        np.save(tmp_path / "expected.npy", expected)
        written = (tmp_path / "out" / name / "images.npy").read_bytes()
        assert written == (tmp_path / "expected.npy").read_bytes()
        assert images.digests[name] == split.digests(expected)
    assert (images.histogram == normalize.histogram(made["train"][[0, 2, 3, 8]])).all()


@pytest.mark.fault
def test_nothing_is_written_where_the_block_fails(tmp_path):
    """An error in the block, such as for an unreadable picture, leaves no file of any split."""
    arrays(tmp_path)
    source = parts.read_arrays(tmp_path, 2)
    chosen = {"train": splits.Split(source["train"], np.arange(3))}
    with (
        pytest.raises(ZeroDivisionError),
        splits.written_images(source, chosen, 4, tmp_path / "out"),
    ):
        raise ZeroDivisionError
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
