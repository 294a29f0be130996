"""Divides what stage fetch left into splits, and writes their images.

Every parameter of `preprocess` is read as `p.NAME` and passed on under its name: here or in
stages/preprocess.py.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cifar import UserError
from cifar.data import split
from cifar.data.names import escaped
from cifar.data.parts import Part
from cifar.data.pictures import NO_MEMORY
from cifar.data.splits import Images, Skipped, Split, written_images
from cifar.params.preprocess import Preprocess


class BadPicturesError(Exception):
    """Some pictures cannot be decoded; nothing was written."""


def write_images(
    p: Preprocess, source: dict[str, Part], classes: list[str], skipped: Skipped, folder: Path
) -> tuple[dict[str, Split], Images, int]:
    """Divide the images, and write images.npy of each split into `folder`, all or none of them.

    If some pictures cannot be decoded and may be left out, a second pass does the same without
    them.

    Returns:
        The splits, what was learnt from their images, and the number of test images that are also
        among the training or validation images.

    Raises:
        UserError: pictures or duplicates that the parameters do not allow.
    """
    splits = divide(p, find_usable(source, classes, skipped), classes)
    try:
        with written_images(source, splits, image_size=p.image_size, folder=folder) as images:
            if images.bad != skipped:
                report_bad(p, source, images.bad)
                raise BadPicturesError  # so that nothing is written
            duplicates = count_duplicates(p, splits["test"], images.digests)
    except BadPicturesError:
        if any(skipped.values()):
            raise UserError(
                "pictures changed while they were read (data/fetched): run `dvc repro` again"
            ) from None
        return write_images(p, source, classes, images.bad, folder)
    return splits, images, duplicates


def find_usable(source: dict[str, Part], classes: list[str], skipped: Skipped) -> dict[str, Split]:
    """Map each part's name to its images, without the skipped pictures.

    Raises:
        UserError: too few remain to train and to test.
    """
    usable = {}
    for name, part in source.items():
        index = np.delete(np.arange(len(part.labels)), list(skipped[name]))
        usable[name] = Split(part, index)
        if not len(index) and name != "train":
            raise UserError(f"no usable {name} picture (fetch.source): add some")
    trained = set(usable["train"].labels.tolist())
    if missing := [name for i, name in enumerate(classes) if i not in trained]:
        raise UserError(
            f"no usable training picture of class '{missing[0]}' (fetch.source): add some"
        )
    return usable


def divide(p: Preprocess, usable: dict[str, Split], classes: list[str]) -> dict[str, Split]:
    """The three splits; one that the source does not have is held out of the training images."""
    train = usable["train"]
    val = usable.get("val")
    test = usable.get("test")
    if val and p.folds:
        raise UserError(
            f"preprocess.folds = {p.folds}, but the source has a validation part (params.yaml): "
            "set it to 0, or merge the val folder into train"
        )
    if not test:
        key = "preprocess.test_fraction"
        kept, held = split.hold_out(
            train.labels,
            fraction=p.test_fraction,
            split_seed=p.split_seed,
            key=key,
            classes=classes,
        )
        train, test = train.take(kept), train.take(held)
    train, test = limited(p, train), limited(p, test)
    if val:
        print("note: the val folder is the validation part; preprocess.val_fraction is not used")
        return {"train": train, "val": limited(p, val), "test": test}
    if p.folds:
        key = "preprocess.folds"
        kept, held = split.fold(
            train.labels,
            folds=p.folds,
            fold=p.fold,
            split_seed=p.split_seed,
            key=key,
            classes=classes,
        )
    else:
        key = "preprocess.val_fraction"
        kept, held = split.hold_out(
            train.labels, fraction=p.val_fraction, split_seed=p.split_seed, key=key, classes=classes
        )
    return {"train": train.take(kept), "val": train.take(held), "test": test}


def limited(p: Preprocess, images: Split) -> Split:
    """At most `per_class` images of each class."""
    index = split.per_class(images.labels, per_class=p.per_class, split_seed=p.split_seed)
    return images.take(index)


def reasons(source: dict[str, Part], skipped: Skipped) -> Iterator[tuple[str, str]]:
    """Yield the name of each picture that cannot be used, and the reason."""
    for name, problems in skipped.items():
        index = np.array(list(problems), np.int64)
        texts = map(escaped, problems.values())  # they may quote a stranger's file
        yield from zip(source[name].names(index).tolist(), texts, strict=True)


def report_bad(p: Preprocess, source: dict[str, Part], skipped: Skipped) -> None:
    """List all bad pictures.

    Raises:
        UserError: on_bad_image is error, or a picture was too large for the memory.
    """
    for name, reason in reasons(source, skipped):
        print(f"{escaped(name)}: {reason}", file=sys.stderr)
    if any(NO_MEMORY in problems.values() for problems in skipped.values()):
        # Leaving them out would depend on the machine.
        raise UserError(
            "pictures do not fit into memory, listed above (fetch.source): free memory, or make "
            "them smaller and run `dvc repro --force fetch && dvc repro`"
        )
    if p.on_bad_image == "error":
        bad = sum(map(len, skipped.values()))
        total = sum(len(part.labels) for part in source.values())
        raise UserError(
            f"{bad} of {total} pictures cannot be used, listed above (fetch.source): fix "
            "or remove them and run `dvc repro --force fetch && dvc repro`, or set "
            "preprocess.on_bad_image: skip"
        )


def count_duplicates(p: Preprocess, test: Split, digests: dict[str, bytearray]) -> int:
    """The number of test images that the network sees in training, which flatter its accuracy.

    Raises:
        UserError: it is not 0, and on_duplicate is error.
    """
    index = split.duplicates(digests["train"] + digests["val"], digests["test"])
    text = f"{len(index)} of {len(test.index)} test images are also among the training images"
    if len(index) and p.on_duplicate == "error":
        names = test.part.names(test.index[index])
        print(*map(escaped, names.tolist()), sep="\n", file=sys.stderr)
        raise UserError(
            f"{text}, listed above (fetch.source): remove them and run `dvc repro --force fetch && "
            "dvc repro`, or set preprocess.on_duplicate: report"
        )
    if len(index):
        print(f"note: {text}")
    return len(index)
