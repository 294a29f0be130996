"""The data sets that can be downloaded, as plain data. Adding one with CIFAR's layout is an entry here.

Checksums: the md5 sums are on the official page, the sha256 sums are those of the same files as Keras
and other loaders state them.
"""

from dataclasses import dataclass

MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")


@dataclass(frozen=True)
class Layout:
    """One archive of a data set: what it is called, and what of it is read."""

    archive: str
    size: int  # bytes
    sha256: str
    train: tuple[str, ...]  # members, in order
    test: tuple[str, ...]
    classes: str  # the member with the class names
    labels_key: str = ""  # python layout: the key of the labels and of the class names
    classes_key: str = ""
    label_bytes: int = 0  # binary layout: bytes before the pixels; the last one is the label


@dataclass(frozen=True)
class Dataset:
    binary: Layout  # the one that is downloaded: no pickle in it
    python: Layout  # accepted as a copy that the user already has
    image_shape: tuple[int, int, int] = (32, 32, 3)  # height, width, channels
    mirrors: tuple[str, ...] = MIRRORS  # in the order in which they are tried


CIFAR10 = Dataset(
    binary=Layout(
        archive="cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        train=tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
        test=("cifar-10-batches-bin/test_batch.bin",),
        classes="cifar-10-batches-bin/batches.meta.txt",
        label_bytes=1,
    ),
    python=Layout(
        archive="cifar-10-python.tar.gz",
        size=170_498_071,
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        train=tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)),
        test=("cifar-10-batches-py/test_batch",),
        classes="cifar-10-batches-py/batches.meta",
        labels_key="labels",
        classes_key="label_names",
    ),
)

CIFAR100 = Dataset(
    binary=Layout(
        archive="cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        train=("cifar-100-binary/train.bin",),
        test=("cifar-100-binary/test.bin",),
        classes="cifar-100-binary/fine_label_names.txt",
        label_bytes=2,
    ),
    python=Layout(
        archive="cifar-100-python.tar.gz",
        size=169_001_437,
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        train=("cifar-100-python/train",),
        test=("cifar-100-python/test",),
        classes="cifar-100-python/meta",
        labels_key="fine_labels",
        classes_key="fine_label_names",
    ),
)

DATASETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
