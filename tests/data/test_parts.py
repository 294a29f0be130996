"""What stage fetch left, in batches; and the splits that are written of it."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar import files
from cifar.data import normalize, pack, parts, split, splits

CLASSES = ["cat", "dog"]


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def fetched(folder) -> None:
    """Twelve training, two validation and four test pictures, the red of each its number."""
    named = [
        *((f"train/{CLASSES[i % 2]}/{i:02}.png", picture(i)) for i in range(12)),
        *((f"val/{CLASSES[i % 2]}/{i:02}.png", picture(100 + i)) for i in range(2)),
        *((f"test/{CLASSES[i % 2]}/{i:02}.png", picture(200 + i)) for i in range(4)),
    ]
    with (folder / "pictures.tar").open("wb") as handle:
        pack.write(named, handle)


def arrays(folder) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    made = {"train": images[:10], "test": images[10:]}
    for part, pixels in made.items():
        files.write_array(folder / f"{part}_images.npy", pixels)
        files.write_array(folder / f"{part}_labels.npy", np.arange(len(pixels)) % 2)
    return made


def test_the_parts_of_pictures(tmp_path):
    """Each part has its own pictures in the order of their names."""
    fetched(tmp_path)
    found = parts.read_pictures(tmp_path / "pictures.tar", CLASSES, first_frame=False)
    assert list(found) == ["train", "val", "test"]
    for name, part in found.items():
        assert part.names.tolist() == sorted(part.names.tolist())
        assert all(path.startswith(f"{name}/") for path in part.names)
        assert part.labels.tolist() == [int("dog" in path) for path in part.names]
        reds = [
            int(path[-6:-4]) + {"train": 0, "val": 100, "test": 200}[name] for path in part.names
        ]
        batches = [batch for batch, problems in part.batches(4)]
        assert np.concatenate(batches)[:, 0, 0, 0].tolist() == reds


@pytest.mark.hostile
def test_a_cameras_raw_file_is_a_bad_picture(tmp_path):
    """Some are TIFF files inside, of which only a small preview would be read."""
    with (tmp_path / "pictures.tar").open("wb") as handle:
        pack.write([("train/cat/1.NEF", picture(1)), ("train/dog/1.png", picture(1))], handle)
    found = parts.read_pictures(tmp_path / "pictures.tar", CLASSES, first_frame=False)
    (batch,) = found["train"].batches(4)
    assert batch[1] == {0: "a camera's raw file: export it as JPEG"}


@pytest.mark.parametrize("size", [4, 3])
def test_batches_of_any_length_hold_the_same(size, tmp_path, monkeypatch):
    """Images come in order and unchanged, however many are in memory at a time."""
    fetched(tmp_path)
    made = arrays(tmp_path)
    sources = [
        parts.read_arrays(tmp_path, 2),
        parts.read_pictures(tmp_path / "pictures.tar", CLASSES, first_frame=False),
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


def test_splits_are_written_as_they_pass(tmp_path, monkeypatch):
    """Each split has its images in the bytes of np.save."""
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
    """An error, and so a picture that cannot be read, leaves no file of any split."""
    arrays(tmp_path)
    source = parts.read_arrays(tmp_path, 2)
    chosen = {"train": splits.Split(source["train"], np.arange(3))}
    with (
        pytest.raises(ZeroDivisionError),
        splits.written_images(source, chosen, 4, tmp_path / "out"),
    ):
        raise ZeroDivisionError
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
