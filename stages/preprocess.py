"""Stage 2: raw images to three splits of one size, with the normalisation of the training part.

data/processed/{train,val,test} hold images.npy (N, H, W, C) uint8, labels.npy and names.npy each; the
facts that training needs (class names, image shape, mean, std) are in dataset.json.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar import UserError, files, params
from cifar.data import normalize, pictures, split
from cifar.dataset import Dataset
from cifar.params.preprocess import Preprocess

RAW, PROCESSED = Path("data/raw"), Path("data/processed")


class Split(NamedTuple):
    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,) int64
    names: np.ndarray  # (N,) str, where the image comes from

    def take(self, index: np.ndarray) -> "Split":
        return Split(self.images[index], self.labels[index], self.names[index])


def main() -> None:
    p, _ = params.load(Preprocess)
    dataset = files.read_json(RAW / "dataset.json")
    classes = dataset["classes"]
    found, skipped = (
        read_pictures(p, classes) if (RAW / "pictures.tar").exists() else (read_arrays(p), {})
    )
    splits = divide(p, found)
    mean, std = normalize.constants(p.normalize, splits["train"].images)
    record = Dataset(
        name=dataset["name"],
        classes=tuple(classes),
        image_size=p.image_size,
        channels=splits["train"].images.shape[3],
        normalize=p.normalize,
        mean=tuple(mean),
        std=tuple(std),
    )
    report = {  # what a person wants to know, and training must not depend on
        "counts": {
            name: np.bincount(s.labels, minlength=len(classes)).tolist()
            for name, s in splits.items()
        },
        "in_test_and_training": count_duplicates(p, splits),
        "skipped": skipped,
    }
    for name, s in splits.items():
        files.write_array(PROCESSED / name / "images.npy", s.images)
        files.write_array(PROCESSED / name / "labels.npy", s.labels)
        files.write_array(PROCESSED / name / "names.npy", s.names)
    files.write_json(PROCESSED / "report.json", report)
    files.write_record(PROCESSED / "dataset.json", record)
    print(", ".join(f"{len(s.labels)} {name}" for name, s in splits.items()), "images")


def read_arrays(p: Preprocess) -> dict[str, Split]:
    splits = {}
    for name in pictures.SPLITS:
        if (path := RAW / f"{name}_images.npy").exists():
            images = pictures.resize(files.read_array(path), p.image_size)
            names = np.array([f"{name}/{i}" for i in range(len(images))])
            splits[name] = Split(images, files.read_array(RAW / f"{name}_labels.npy"), names)
    return splits


def read_pictures(p: Preprocess, classes: list[str]) -> tuple[dict[str, Split], dict[str, str]]:
    """Decode every picture once; the bad ones are listed all at once, and skipped where the user says so."""
    names, contents = zip(*pictures.unpack(RAW / "pictures.tar"), strict=True)
    images, problems = pictures.decode_all(list(contents), p.image_size)
    skipped = {names[i]: problem for i, problem in problems.items()}
    for name, problem in skipped.items():
        print(f"{name}: {problem}", file=sys.stderr)
    if skipped and p.on_bad_image == "error":
        raise UserError(
            f"{len(skipped)} of {len(names)} pictures cannot be used, listed above (fetch.source): mend or remove "
            "them, or set preprocess.on_bad_image: skip"
        )
    labels = np.array([classes.index(name.split("/")[1]) for name in names])
    every = Split(images, labels, np.array(names))
    splits = {}
    for name in sorted(
        {name.split("/")[0] for name in names}
    ):  # train, and test where there is one
        splits[name] = every.take(
            np.array([n.startswith(f"{name}/") and n not in skipped for n in names])
        )
    if missing := set(classes) - {classes[label] for label in splits["train"].labels}:
        raise UserError(
            f"no usable training picture of class {min(missing)!r} (fetch.source): add some"
        )
    if not all(len(s.labels) for s in splits.values()):
        raise UserError("no usable test picture (fetch.source): add some")
    return splits, skipped


def divide(p: Preprocess, found: dict[str, Split]) -> dict[str, Split]:
    """Training, validation and test images; the test images come from the test part wherever there is one."""
    train, test = found["train"], found.get("test")
    if test is None:
        sides = split.hold_out(
            train.labels, p.test_fraction, p.split_seed, "preprocess.test_fraction"
        )
        train, test = train.take(sides[0]), train.take(sides[1])
    train, test = (
        s.take(split.per_class(s.labels, p.per_class, p.split_seed)) for s in (train, test)
    )
    if p.folds:
        sides = split.fold(train.labels, p.folds, p.fold, p.split_seed, "preprocess.folds")
    else:
        sides = split.hold_out(
            train.labels, p.val_fraction, p.split_seed, "preprocess.val_fraction"
        )
    return {"train": train.take(sides[0]), "val": train.take(sides[1]), "test": test}


def count_duplicates(p: Preprocess, splits: dict[str, Split]) -> int:
    """How many test images the network will have seen; such a test flatters it, and is refused where the user asks."""
    test, trained = splits["test"], np.concatenate([splits["train"].images, splits["val"].images])
    found = split.duplicates(trained, test.images)
    said = f"{len(found)} of {len(test.labels)} test images are also among the training images"
    if found and p.on_duplicate == "error":
        print(*test.names[found], sep="\n", file=sys.stderr)
        raise UserError(
            f"{said}, listed above (fetch.source): remove them, or set preprocess.on_duplicate: report"
        )
    if found:
        print(f"note: {said}")
    return len(found)


if __name__ == "__main__":
    stage.run(main)
