"""Stage 2: split the images, scale them to one size, and compute the training normalisation.

data/processed/{train,val,test} each hold images.npy (N, H, W, C) uint8, labels.npy and names.npy.
The metadata that training needs (class names, image shape, mean, std) is in dataset.json. Images
are processed in batches, so that the memory used does not grow with their number.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

from pathlib import Path

import numpy as np

from cifar import files, params
from cifar.data import normalize
from cifar.data.parts import Part, read_arrays, read_pictures
from cifar.data.prepare import reasons, write_images
from cifar.data.report import Counts, Report
from cifar.data.splits import Skipped
from cifar.dataset import Dataset, Fetched
from cifar.params.preprocess import Preprocess

FETCHED, PROCESSED = Path("data/fetched"), Path("data/processed")
IMBALANCE = 10  # a note is printed if one class has this many times more images than another


def main() -> None:
    p, _ = params.load(Preprocess)
    fetched = files.read_record(FETCHED / "dataset.json", Fetched)
    classes = list(fetched.classes)
    source = read_source(p, fetched)
    skipped: Skipped = {name: {} for name in source}
    splits, images, duplicates = write_images(p, source, classes, skipped, PROCESSED)
    counts = {name: np.bincount(s.labels, minlength=len(classes)) for name, s in splits.items()}
    for name, s in splits.items():
        files.write_array(PROCESSED / name / "labels.npy", s.labels)
        s.write_names(PROCESSED / name / "names.npy")
    report = Report(
        counts=Counts(**{name: tuple(count.tolist()) for name, count in counts.items()}),
        in_test_and_training=duplicates,
        skipped=dict(reasons(source, images.bad)),
    )
    files.write_record(PROCESSED / "report.json", report)
    mean, std = normalize.constants(normalize=p.normalize, histogram=images.histogram)
    record = Dataset(
        name=fetched.name,
        classes=tuple(classes),
        image_size=p.image_size,
        channels=len(images.histogram),
        normalize=p.normalize,
        mean=tuple(mean),
        std=tuple(std),
    )
    files.write_record(PROCESSED / "dataset.json", record)
    note_imbalance(counts["train"], classes)
    print(", ".join(f"{len(s.index)} {name}" for name, s in splits.items()), "images")


def read_source(p: Preprocess, fetched: Fetched) -> dict[str, Part]:
    """Read the parts that stage fetch wrote."""
    if fetched.name == "images":
        first_frame = p.on_animated == "first"
        return read_pictures(FETCHED, list(fetched.classes), first_frame)
    return read_arrays(FETCHED, len(fetched.classes))


def note_imbalance(counts: np.ndarray, classes: list[str]) -> None:
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= IMBALANCE * counts[least]:
        print(
            f"note: class '{classes[most]}' has {counts[most]} training images and "
            f"'{classes[least]}' has {counts[least]}: accuracy alone may mislead"
        )


if __name__ == "__main__":
    stage.run(main, __doc__)
