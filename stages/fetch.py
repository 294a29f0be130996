"""Stage 1: get the data set that params.yaml names, verify it, and write it to data/fetched.

The result is a few large files: arrays (train_images.npy, train_labels.npy, test_…) or, for the
user's own pictures, the unchanged files in pictures-00000.tar and so on, with index.npy. The last
file is dataset.json, with the class names. Downloads stay in .downloads, outside DVC's outputs.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from cifar import UserError, files, leftovers, params, pipeline
from cifar.data import archive, datasets, folders, layout, names, pack, records, source
from cifar.dataset import Fetched
from cifar.params.fetch import Fetch

FETCHED = Path("data/fetched")
OUTPUTS = ("data/fetched", "data/processed", "models", "metrics", "plots")
WRITTEN = re.compile(  # earlier versions wrote pictures.tar
    r"dataset\.json|(train|test)_(images|labels)\.npy|index\.npy|pictures(-\d{5,})?\.tar"
)

Read = Callable[[str], bytes]  # from a file's name to its content


def main() -> None:
    p, _ = params.load(Fetch)
    check_folder()
    remove_temporary()
    dataset = datasets.DATASETS.get(p.dataset)
    if p.dataset == "digits":
        classes = write_digits()
    else:
        address = os.environ.get("FETCH_SOURCE") or p.source  # FETCH_SOURCE may hold a secret
        path = source.find(address, sha256=p.sha256, dataset=dataset, root=pipeline.root())
        check_source(path)
        classes = write_cifar(path, dataset) if dataset else write_pictures(path)
    files.write_record(FETCHED / "dataset.json", Fetched(name=p.dataset, classes=tuple(classes)))


def check_folder() -> None:
    """Reject files in data/fetched that this stage did not write: DVC would delete them one day."""
    for path in sorted(FETCHED.glob("*")):
        if not WRITTEN.fullmatch(path.name) and not leftovers.leftover(path.name):
            raise UserError(f"not an output of this stage ({path}): move it out of {FETCHED}")


def check_source(path: Path) -> None:
    """Reject a source that is inside a folder of outputs or contains one: DVC deletes outputs."""
    real = path.resolve()
    for name in OUTPUTS:
        for output in ((pipeline.root() / name).resolve(), Path(name).resolve()):
            if real.is_relative_to(output) or (path.is_dir() and output.is_relative_to(real)):
                raise UserError(
                    f"{path} contains the pipeline's folder {name}, or is inside it "
                    "(params.yaml, fetch.source): move your files to a folder of their own"
                )


def remove_temporary() -> None:
    """Remove the temporary files of a run that was killed, in case this run has fewer files."""
    for path in FETCHED.glob(".*.tmp"):
        if WRITTEN.fullmatch(path.name[1:-4]):
            path.unlink()


def remove_outputs() -> None:
    """Remove the outputs of an earlier run by hand; DVC removes outputs itself."""
    (FETCHED / "dataset.json").unlink(missing_ok=True)  # without it, no stage uses the rest
    for path in FETCHED.glob("*"):
        if WRITTEN.fullmatch(path.name):
            path.unlink()


def write_cifar(path: Path, dataset: datasets.OfficialDataset) -> list[str]:
    """Write arrays from an archive or folder in an official layout, and return the class names."""
    if path.is_dir():
        paths = folders.walk(path)
        print(f"note: a folder has no checksum: {path} is used as it is", flush=True)
        return write_records(paths, reader(path), path, dataset)
    with archive.members(path, pipeline.root() / ".downloads") as (members, read):
        return write_records(members, read, path, dataset)


def reader(folder: Path) -> Read:
    return lambda name: (folder / name).read_bytes()


def write_records(
    paths: Iterable[str], read: Read, path: Path, dataset: datasets.OfficialDataset
) -> list[str]:
    """Write arrays from the files of a copy, one at a time, and return the class names."""
    kind, sources = datasets.locate(dataset, paths, str(path))

    def content(name: str) -> tuple[bytes, str]:
        return read(sources[name]), f"{path}, {name}"

    classes = records.read_classes(*content(kind.classes), kind)
    labels: dict[str, np.ndarray] = {}
    with contextlib.ExitStack() as stack:  # no file gets its final name until all are valid
        for part, members in (("train", kind.train), ("test", kind.test)):
            writer = files.array_writer(
                FETCHED / f"{part}_images.npy", dataset.image_shape, np.uint8
            )
            append = stack.enter_context(writer)
            parts = []
            for name in members:
                images, numbers = records.read(*content(name), kind, dataset.image_shape)
                append(images)
                parts.append(numbers)
            labels[part] = np.concatenate(parts).astype(np.int64)
        records.check_labels(labels["train"], labels["test"], classes, str(path))
        remove_outputs()
    for part, numbers in labels.items():
        files.write_array(FETCHED / f"{part}_labels.npy", numbers)
    return classes


def write_digits() -> list[str]:
    """Write scikit-learn's 1,797 handwritten digits: 8 x 8 pixels, 17 grey levels, no test part."""
    from sklearn.datasets import load_digits  # takes a second; only this data set needs it

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    remove_outputs()
    files.write_array(FETCHED / "train_images.npy", images)
    files.write_array(FETCHED / "train_labels.npy", bunch.target.astype(np.int64))
    return [str(name) for name in bunch.target_names]


def write_pictures(path: Path) -> list[str]:
    """Write shards from a folder or archive of class folders, and return the class names."""
    if path.is_dir():
        paths = folders.walk(path)
        print(
            f"note: DVC does not watch {path}: when its pictures change, run "
            "`dvc repro --force fetch`, then `dvc repro`"
        )
        return pack_pictures(paths, reader(path), path)
    with archive.members(path, pipeline.root() / ".downloads") as (members, read):
        return pack_pictures(members, read, path)


def pack_pictures(paths: Iterable[str], read: Read, path: Path) -> list[str]:
    recognized = layout.recognize(paths, str(path))
    in_no_part = set(recognized.in_no_part)
    others = [name for name in recognized.left_out if name not in in_no_part]
    report_left_out(others, "not pictures in class folders")
    report_left_out(recognized.in_no_part, "outside the train, val and test folders")
    sources = recognized.sources
    with pack.written(sources, lambda target: read(sources[target]), FETCHED):
        remove_outputs()
    return recognized.classes


def report_left_out(left_out: list[str], reason: str) -> None:
    """Print the names of the first files that are left out for this reason."""
    if left_out:
        listed = ", ".join(names.escaped(name) for name in left_out[:3])
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        print(f"note: left out, {reason}: {listed}{more}", flush=True)


if __name__ == "__main__":
    stage.run(main, __doc__)
