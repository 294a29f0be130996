"""The data sets that can be downloaded, as plain data.

To add another data set in CIFAR's layout, add an entry here. The sha256 sums of the official files
are taken from Keras and other loaders, because the official page has only md5 sums.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from cifar import UserError

MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")


@dataclass(frozen=True)
class Archive:
    """One archive of a data set: its name and checksum, and the files to read from it."""

    name: str
    size: int  # bytes
    sha256: str
    train: tuple[str, ...]  # file names in order, without their folder
    test: tuple[str, ...]
    classes: str  # the file with the class names


@dataclass(frozen=True)
class Binary(Archive):
    """Records of label bytes and pixels, and a text file of class names."""

    label_bytes: int  # before the pixels; the last one is the label


@dataclass(frozen=True)
class Pickled(Archive):
    """Pickled dictionaries."""

    labels_key: str
    classes_key: str


@dataclass(frozen=True)
class OfficialDataset:
    """A data set in both of its official layouts."""

    binary: Binary  # the layout to download, because it contains no pickle
    python: Pickled  # accepted if the user already has a copy
    image_shape: tuple[int, int, int] = (32, 32, 3)  # height, width, channels
    mirrors: tuple[str, ...] = MIRRORS  # in the order to try them


CIFAR10 = OfficialDataset(
    binary=Binary(
        name="cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        classes="batches.meta.txt",
        label_bytes=1,
    ),
    python=Pickled(
        name="cifar-10-python.tar.gz",
        size=170_498_071,
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        classes="batches.meta",
        labels_key="labels",
        classes_key="label_names",
    ),
)

CIFAR100 = OfficialDataset(
    binary=Binary(
        name="cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        train=("train.bin",),
        test=("test.bin",),
        classes="fine_label_names.txt",
        label_bytes=2,
    ),
    python=Pickled(
        name="cifar-100-python.tar.gz",
        size=169_001_437,
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        train=("train",),
        test=("test",),
        classes="meta",
        labels_key="fine_labels",
        classes_key="fine_label_names",
    ),
)

DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def locate(
    dataset: OfficialDataset, paths: Iterable[str], where: str
) -> tuple[Binary | Pickled, dict[str, str]]:
    """Return the layout of a copy, and a dictionary that maps the name of each file to its path.

    The files may be in any folder.

    Raises:
        UserError: a file is missing, or exists twice.
    """
    paths = list(paths)
    matches: dict[str, str] = {}
    layouts: tuple[Binary | Pickled, ...] = (dataset.binary, dataset.python)
    wanted = {name for kind in layouts for name in (*kind.train, *kind.test, kind.classes)}
    for path in paths:
        name = PurePosixPath(path).name
        if name not in wanted:
            continue
        if name in matches:
            raise UserError(f"two files named {name} ({where}): keep only one of them")
        matches[name] = path
    names = {kind: (*kind.train, *kind.test, kind.classes) for kind in layouts}
    # the layout with the most files present, so that the message names the missing file
    kind = max(
        layouts, key=lambda kind: (len(matches.keys() & names[kind]), kind.classes in matches)
    )
    missing = [name for name in names[kind] if name not in matches]
    if missing and len(missing) > len(matches):
        raise UserError(
            f"file {missing[0]} not found ({where}): this is not CIFAR in an official layout; for "
            "your own pictures, set fetch.dataset to images"
        )
    if missing:
        raise UserError(f"file {missing[0]} not found ({where}): get a complete copy")
    return kind, matches
