"""Stage preprocess: three disjoint splits, and the same bytes each time."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scratch import ROOT, content, run_stage

from cifar import UserError, params
from cifar.data import pack, pictures, prepare
from cifar.data.parts import ArrayPart
from cifar.params.preprocess import Preprocess

SPLITS = ("train", "val", "test")


def raw_arrays(folder: Path, channels: int = 3, test: int = 20) -> dict[str, np.ndarray]:
    """Write as stage fetch does: 60 training images of 3 classes, 4 x 4 pixels, and a test part."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", 60), ("test", test)):
        if count:
            arrays[f"{name}_images"] = rng.integers(0, 256, (count, 4, 4, channels), dtype=np.uint8)
            arrays[f"{name}_labels"] = np.arange(count) % 3
    (folder / "data" / "fetched").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / "data" / "fetched" / f"{name}.npy", array)
    (folder / "data" / "fetched" / "dataset.json").write_text(
        '{"name": "made", "classes": ["a", "b", "c"]}'
    )
    return arrays


def raw_pictures(folder: Path, pictures: dict[str, bytes]) -> None:
    (folder / "data" / "fetched").mkdir(parents=True, exist_ok=True)
    with pack.written(pictures, pictures.__getitem__, folder / "data" / "fetched"):
        pass
    classes = sorted({name.split("/")[1] for name in pictures})
    (folder / "data" / "fetched" / "dataset.json").write_text(
        json.dumps({"name": "images", "classes": classes})
    )


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def pets(**more: bytes) -> dict[str, bytes]:
    """Ten training pictures and one test picture of each of two classes, all different in red."""
    cats = {f"train/cat/{i}.png": picture(i) for i in range(10)}
    dogs = {f"train/dog/{i}.png": picture(100 + i) for i in range(10)}
    return cats | dogs | {"test/cat/0.png": picture(50), "test/dog/0.png": picture(150)} | more


def preprocess(
    folder: Path, env: dict[str, str] | None = None, **values
) -> tuple[dict, dict[str, np.ndarray]]:
    """Run the stage with changed parameters; return all metadata, and the arrays by name."""
    run = run_stage(
        folder, "preprocess", env=env, preprocess={"image_size": 4, "val_fraction": 0.25} | values
    )
    assert run.returncode == 0, run.stderr
    out = folder / "data" / "processed"
    expected = {f"{split}/{kind}.npy" for split in SPLITS for kind in ("images", "labels", "names")}
    assert content(out).keys() == {"dataset.json", "report.json", *expected}
    facts = json.loads((out / "dataset.json").read_text())
    assert not facts.keys() & {"counts", "in_test_and_training", "skipped"}, (
        "training depends on this file"
    )
    facts |= json.loads((out / "report.json").read_text())
    return facts, {name[:-4]: np.load(out / name) for name in expected}


def error(run) -> str:
    """The last line that a failing stage prints."""
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    last = run.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_three_splits_of_the_arrays(tmp_path):
    """Validation is a fraction of each class, every image is in one split with its label, and the
    mean and standard deviation are those of the training images."""
    raw = raw_arrays(tmp_path)
    facts, out = preprocess(tmp_path)
    assert sorted([*out["train/names"], *out["val/names"]]) == sorted(
        f"train/{i}" for i in range(60)
    )
    assert out["test/names"].tolist() == [f"test/{i}" for i in range(20)]
    for split in SPLITS:
        images, labels, names = (out[f"{split}/{kind}"] for kind in ("images", "labels", "names"))
        assert (images.dtype, labels.dtype, images.shape[1:]) == (np.uint8, np.int64, (4, 4, 3))
        source, places = (
            ("test" if split == "test" else "train"),
            [int(name.split("/")[1]) for name in names],
        )
        assert places == sorted(places)
        np.testing.assert_array_equal(images, raw[f"{source}_images"][places])
        np.testing.assert_array_equal(labels, raw[f"{source}_labels"][places])
    train = out["train/images"] / 255
    np.testing.assert_allclose(facts.pop("mean"), train.mean((0, 1, 2)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(facts.pop("std"), train.std((0, 1, 2)), rtol=0, atol=1e-12)
    assert facts == {
        "name": "made",
        "classes": ["a", "b", "c"],
        "image_size": 4,
        "channels": 3,
        "normalize": "standardize",
        "counts": {"train": [15, 15, 15], "val": [5, 5, 5], "test": [7, 7, 6]},
        "in_test_and_training": 0,
        "skipped": {},
    }


def test_the_same_bytes_elsewhere_and_later(tmp_path):
    """Another folder, number of threads, hash seed and time zone give the same bytes."""
    outputs = []
    for name, env in (
        ("a", {"OMP_NUM_THREADS": "1"}),
        ("b", {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}),
    ):
        for kind in ("arrays", "pictures"):
            folder = tmp_path / name / kind
            folder.mkdir(parents=True)
            raw_arrays(folder) if kind == "arrays" else raw_pictures(
                folder, pets(**{"train/cat/x.png": b""})
            )
            preprocess(folder, env=env, on_bad_image="skip", image_size=3)
        outputs.append(content(tmp_path / name))
    assert outputs[0] == outputs[1]


def test_a_test_part_is_held_out_where_there_is_none(tmp_path):
    """Without a test part, a fraction of each class is held out; images are scaled, grey stays."""
    raw_arrays(tmp_path, channels=1, test=0)
    facts, out = preprocess(tmp_path, test_fraction=0.2, image_size=6)
    assert facts["counts"] == {"train": [12] * 3, "val": [4] * 3, "test": [4] * 3}
    assert (facts["channels"], facts["image_size"], len(facts["mean"])) == (1, 6, 1)
    assert out["val/images"].shape == (12, 6, 6, 1)
    assert sorted(np.concatenate([out[f"{split}/names"] for split in SPLITS])) == sorted(
        f"train/{i}" for i in range(60)
    )


def test_folds_take_turns(tmp_path):
    """Each fold has other validation images, and all have the same test images."""
    raw_arrays(tmp_path, test=0)
    _, whole = preprocess(tmp_path)
    folds = [preprocess(tmp_path, folds=2, fold=fold)[1] for fold in (0, 1)]
    for one, other in (folds, reversed(folds)):
        assert one["val/names"].tolist() == other["train/names"].tolist()
        assert one["test/names"].tolist() == whole["test/names"].tolist()
        assert np.bincount(one["val/labels"]).tolist() == [8] * 3


def test_few_images_for_quick_looks(tmp_path):
    """per_class limits the images of a class in training plus validation, and in the test."""
    raw_arrays(tmp_path)
    assert preprocess(tmp_path, per_class=4)[0]["counts"] == {
        "train": [3] * 3,
        "val": [1] * 3,
        "test": [4] * 3,
    }
    run = run_stage(tmp_path, "preprocess", preprocess={"per_class": 1})
    assert (
        "class 'a' has 1, of which the fraction 0.1 is held out (params.yaml, preprocess.val_frac"
        in error(run)
    )


def test_pictures_become_arrays(tmp_path):
    """Each picture is in the split and class of its folder, in the order of the names."""
    raw_pictures(tmp_path, dict(reversed(pets().items())))
    facts, out = preprocess(tmp_path)
    assert facts["classes"] == ["cat", "dog"]
    assert facts["counts"] == {"train": [8, 8], "val": [2, 2], "test": [1, 1]}
    for split in SPLITS:
        names, labels = out[f"{split}/names"].tolist(), out[f"{split}/labels"].tolist()
        assert names == sorted(names)
        assert labels == [int("dog" in name) for name in names]
        numbers = [
            int(name.split("/")[2][:-4]) + 100 * label
            for name, label in zip(names, labels, strict=True)
        ]
        red = out[f"{split}/images"][:, 0, 0].tolist()
        assert red == [[number + 50 * (split == "test"), 0, 255] for number in numbers]
    assert {name.split("/")[0] for name in out["test/names"]} == {"test"}


def test_a_val_folder_is_the_validation_part(tmp_path):
    """val/ is the validation split and train/ is not divided; folds are refused."""
    val = {f"val/{name}/{i}.png": picture(60 + i) for name in ("cat", "dog") for i in range(3)}
    raw_pictures(tmp_path, pets(**val))
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4})
    assert "note: the val folder is the validation part; preprocess.val_fraction" in run.stdout
    facts, out = preprocess(tmp_path)
    assert facts["counts"] == {"train": [10, 10], "val": [3, 3], "test": [1, 1]}
    assert out["val/names"].tolist() == sorted(val)
    assert preprocess(tmp_path, per_class=2)[0]["counts"] == {
        "train": [2, 2],
        "val": [2, 2],
        "test": [1, 1],
    }
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4, "folds": 2})
    assert "preprocess.folds = 2, but the source has a validation part" in error(run)
    raw_pictures(
        tmp_path, {name: body for name, body in pets(**val).items() if "test/" not in name}
    )
    assert preprocess(tmp_path)[0]["counts"] == {"train": [8, 8], "val": [3, 3], "test": [2, 2]}


@pytest.mark.hostile
def test_unequal_classes_are_noted(tmp_path):
    """A class with ten times the training images of another is named, with nine times it is not."""
    more = {f"train/cat/more{i}.png": picture(i) for i in range(100)}
    raw_pictures(tmp_path, pets(**more))
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4})
    assert "note: class 'cat' has 99 training images and 'dog' has 9" in run.stdout
    raw_pictures(tmp_path, pets(**dict(list(more.items())[:79])))
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4})
    assert "training images and" not in run.stdout


@pytest.mark.hostile
def test_an_animation_is_bad_or_its_first_frame(tmp_path):
    """An animation is a bad picture, or its first frame is used, depending on on_animated."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    raw_pictures(tmp_path, pets(**{"train/cat/moving.gif": buffer.getvalue()}))
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4})
    assert "1 of 23 pictures cannot be used" in error(run)
    assert "train/cat/moving.gif: animated or multi-page (2 frames, see prepro" in run.stderr
    facts, out = preprocess(tmp_path, on_animated="first")
    names, images = (
        np.concatenate([out[f"{split}/{kind}"] for split in SPLITS]) for kind in ("names", "images")
    )
    (position,) = np.flatnonzero(names == "train/cat/moving.gif")
    assert images[position].tolist() == [[[255, 0, 0]] * 4] * 4
    assert facts["skipped"] == {}


@pytest.mark.fault
def test_pictures_too_large_for_the_memory_are_not_skipped(tmp_path, capsys):
    """A machine with more memory would train on them: the stage ends, also with `skip`."""
    images = np.zeros((3, 4, 4, 3), np.uint8)
    source = {"train": ArrayPart(images, np.arange(3), "train")}
    values = params.read(ROOT / "params.yaml")["preprocess"]
    p = Preprocess.model_validate(values | {"on_bad_image": "skip"})
    prepare.report_bad(p, source, {"train": {1: "damaged"}})
    with pytest.raises(UserError, match=r"^pictures do not fit into memory, .*: free memory"):
        prepare.report_bad(p, source, {"train": {1: "damaged", 2: pictures.NO_MEMORY}})
    assert "train/2: too little memory to decode it" in capsys.readouterr().err


@pytest.mark.hostile
def test_bad_pictures_are_listed_or_skipped(tmp_path):
    """All bad pictures are named with reasons; the stage fails, or skips and records them."""
    bad = {
        "train/cat/empty.png": b"",
        "train/dog/text.png": b"hello",
        "test/cat/cut.png": picture(1)[:-30],
    }
    raw_pictures(tmp_path, pets(**bad))
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4})
    assert "3 of 25 pictures cannot be used, listed above" in error(run)
    assert "run `dvc repro --force fetch && dvc repro`" in run.stderr
    assert "set preprocess.on_bad_image: skip" in run.stderr
    listed = dict(line.split(": ", 1) for line in run.stderr.splitlines()[:-1])
    assert listed.keys() == bad.keys()
    assert not content(tmp_path / "data" / "processed")
    facts, out = preprocess(tmp_path, on_bad_image="skip")
    assert facts["skipped"] == listed
    assert facts["skipped"]["train/cat/empty.png"] == "empty file"
    assert sum(len(out[f"{split}/names"]) for split in SPLITS) == 22
    assert not bad.keys() & {name for split in SPLITS for name in out[f"{split}/names"]}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("train/dog", "no usable training picture of class 'dog'"),
        ("train", "no usable training picture of class 'cat'"),
        ("test", "no usable test picture"),
    ],
)
def test_skipping_must_leave_something(lost, message, tmp_path):
    """A class without a usable training picture is refused, and so is an empty part."""
    raw_pictures(
        tmp_path, {name: b"" if name.startswith(lost) else body for name, body in pets().items()}
    )
    assert message in error(run_stage(tmp_path, "preprocess", preprocess={"on_bad_image": "skip"}))
    assert not content(tmp_path / "data" / "processed")


@pytest.mark.hostile
def test_test_images_that_are_also_trained_on_are_counted(tmp_path):
    """A test image whose pixels are among the training images is counted, printed, and recorded."""
    raw_pictures(
        tmp_path, pets(**{"test/cat/again.png": picture(3), "test/dog/again.png": picture(103)})
    )
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4})
    assert "note: 2 of 4 test images are also among the training images" in run.stdout
    assert (
        json.loads((tmp_path / "data/processed/report.json").read_text())["in_test_and_training"]
        == 2
    )


@pytest.mark.hostile
def test_test_images_that_are_also_trained_on_can_be_an_error(tmp_path):
    """With `on_duplicate: error`, all such test images are named, and nothing is written."""
    again = {"test/cat/again.png": picture(3), "test/dog/again.png": picture(103)}
    raw_pictures(tmp_path, pets(**again))
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4, "on_duplicate": "error"})
    assert "2 of 4 test images are also among the training images" in error(run)
    assert run.stderr.splitlines()[:-1] == list(again)
    assert not content(tmp_path / "data" / "processed")
    raw_pictures(tmp_path, pets())
    assert preprocess(tmp_path, on_duplicate="error")[0]["in_test_and_training"] == 0


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"val_fraction": 0.95}, "preprocess.val_fraction"),
        ({"folds": 11}, "class 'cat' has 10 for 11 folds"),
    ],
    ids=["for the share", "for the folds"],
)
def test_too_few_images_are_reported(values, message, tmp_path):
    """A class too small for the split is refused, with the parameter; nothing is written."""
    raw_pictures(tmp_path, pets())
    run = run_stage(tmp_path, "preprocess", preprocess={"image_size": 4} | values)
    assert message in error(run) and run.stderr.count("\n") == 1
    assert not content(tmp_path / "data" / "processed")


@pytest.mark.parametrize(
    "trouble", ["disk is full", "folder is a file", "nothing fetched", "damaged array"]
)
def test_trouble_with_the_disk_is_one_line(trouble, tmp_path):
    """If reading or writing fails, one line names the file, and no incomplete file is left."""
    raw_arrays(tmp_path)
    raw = tmp_path / "data" / "fetched"
    if trouble == "folder is a file":
        (tmp_path / "data" / "processed").write_bytes(b"")
    elif trouble == "nothing fetched":
        (raw / "dataset.json").unlink()
    elif trouble == "damaged array":
        (raw / "train_images.npy").write_bytes((raw / "train_images.npy").read_bytes()[:-1])
    limit = 2000 if trouble == "disk is full" else None  # the training images have 2,160 bytes
    run = run_stage(
        tmp_path, "preprocess", disk=limit, preprocess={"image_size": 4, "val_fraction": 0.25}
    )
    expected = {
        "nothing fetched": "fetched/dataset.json",
        "damaged array": "fetched/train_images.npy",
    }
    assert f"(data/{expected.get(trouble, 'processed')}" in error(run)
    assert run.stderr.count("\n") == 1
    left = content(tmp_path / "data" / "processed")
    preprocess(tmp_path, val_fraction=0.25) if trouble == "disk is full" else None
    assert left.items() <= content(tmp_path / "data" / "processed").items()
