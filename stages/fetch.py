"""Stage 1: the data set that params.yaml names, verified, as a few large files in data/raw.

Either arrays (train_images.npy, train_labels.npy, test_…) or, for the user's own pictures, pictures.tar with the
files as they are; and, last, dataset.json with the class names. Downloads stay in .downloads, outside DVC's outputs.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import os
import shutil
from pathlib import Path, PurePosixPath

import numpy as np
from filelock import FileLock

from cifar import UserError, files, params
from cifar.data import archive, datasets, pictures, records
from cifar.data import download as web
from cifar.params.fetch import Fetch

RAW = Path("data/raw")


def main() -> None:
    p, _ = params.load(Fetch)
    dataset = datasets.DATASETS.get(p.dataset)
    path = None if p.dataset == "digits" else source(p, dataset)
    shutil.rmtree(
        RAW, ignore_errors=True
    )  # what a stage run by hand left; DVC has done this already
    if not path:
        classes = write_digits()
    elif dataset:
        classes = write_cifar(path, dataset)
    else:
        classes = write_pictures(path)
    files.write_json(RAW / "dataset.json", {"name": p.dataset, "classes": classes})


def source(p: Fetch, dataset: datasets.Dataset | None) -> Path:
    """The local file or folder to read, downloaded if need be.

    CIFAR must be an official archive or the one of fetch.sha256, and a download of pictures needs fetch.sha256 too.
    """
    known = (
        [p.sha256]
        if p.sha256
        else [dataset.binary.sha256, dataset.python.sha256]
        if dataset
        else []
    )
    if p.source is None:
        assert dataset, "checked with params.yaml"
        name, size = dataset.binary.archive, None if p.sha256 else dataset.binary.size
        mirrors = os.environ.get("CIFAR_MIRRORS", "").split() or dataset.mirrors
        return cached([f"{mirror.rstrip('/')}/{name}" for mirror in mirrors], name, known[:1], size)
    is_url = p.source.startswith(("http://", "https://"))
    local = stage.root() / os.path.expanduser(p.source)  # noqa: PTH111  Path's own fails on ~unknown
    path = cached([p.source], PurePosixPath(p.source).name, known) if is_url else local
    if not path.is_file() and (known or not path.is_dir()):  # a folder has no checksum
        raise UserError(
            f"no such file: {path} (params.yaml, fetch.source): name a folder of pictures or an archive"
        )
    if (known or is_url) and (found := files.sha256(path)) not in known:
        problem = "is not the expected file" if known else "comes from the web and needs a checksum"
        raise UserError(
            f"{path} {problem} (params.yaml, fetch.sha256): if you trust it, set it to {found}"
        )
    return path


def cached(urls: list[str], name: str, known: list[str], size: int | None = None) -> Path:
    """The file of this name in .downloads where it has a known checksum, or else a new one from `urls`."""
    path = stage.root() / ".downloads" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{name}.lock")):  # queued experiments share this folder
        if path.is_file() and files.sha256(path) in known:
            return path
        try:
            web.download(urls, path, known[0] if len(known) == 1 else None, size)
        except UserError as error:
            ways = "set fetch.source to the path or URL of a copy, or fetch.dataset to digits, which is built in"
            raise UserError(f"no download of {name} ({error}): {ways}") from None
    return path


def write_cifar(path: Path, dataset: datasets.Dataset) -> list[str]:
    """Arrays from an archive in either official layout; returns the class names."""
    layouts, shape = (dataset.binary, dataset.python), dataset.image_shape
    wanted = {name for layout in layouts for name in (*layout.train, *layout.test, layout.classes)}
    found = {name: content for name, content in archive.members(path) if name in wanted}
    layout = next((layout for layout in layouts if layout.classes in found), dataset.binary)
    if missing := sorted({*layout.train, *layout.test, layout.classes} - found.keys()):
        raise UserError(
            f"no member {missing[0]} ({path}): it is not this data set's archive, or not all of it"
        )
    classes = records.read_classes(found[layout.classes], layout.classes, layout.classes_key)
    for split, members in (("train", layout.train), ("test", layout.test)):
        parts = [
            records.read(found[name], name, shape, layout.label_bytes, layout.labels_key)
            for name in members
        ]
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        records.check_labels(labels, classes, f"{path}, {split}")
        write_arrays(split, images, labels)
    return classes


def write_digits() -> list[str]:
    """1,797 handwritten digits of 8x8 pixels and 17 grey levels, from inside scikit-learn; no test split."""
    from sklearn.datasets import load_digits  # a second to import, and only this data set needs it

    bunch = load_digits()
    write_arrays(
        "train", np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None], bunch.target
    )
    return [str(name) for name in bunch.target_names]


def write_arrays(split: str, images: np.ndarray, labels: np.ndarray) -> None:
    files.write_array(RAW / f"{split}_images.npy", images)
    files.write_array(RAW / f"{split}_labels.npy", labels.astype(np.int64))


def write_pictures(path: Path) -> list[str]:
    """pictures.tar from a folder or archive of class folders; returns the class names."""
    if path.is_dir():
        found = pictures.folder_files(path)
        placed = pictures.place(found, str(path))
        contents = ((place, found[name].read_bytes()) for name, place in placed.items())
        print(
            f"note: DVC does not watch {path}: when its pictures change, run `dvc repro --force fetch`"
        )
    else:
        placed = pictures.place((name for name, _ in archive.members(path)), str(path))
        contents = (
            (placed[name], content) for name, content in archive.members(path) if name in placed
        )
    with files.atomic(RAW / "pictures.tar") as handle:
        pictures.pack(contents, handle)
    return sorted({place.split("/")[1] for place in placed.values()})


if __name__ == "__main__":
    stage.run(main)
