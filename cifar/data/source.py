"""Find or download a data set: from a path, an address, or the official mirrors."""

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from cifar import UserError, files
from cifar.data.datasets import OfficialDataset
from cifar.data.download import download, without_secrets

DOWNLOADS = ".downloads"
BUCKETS = {
    "s3": "aws s3 cp",
    "gs": "gcloud storage cp",
    "gcs": "gcloud storage cp",
    "az": "az storage blob download",
    "hf": "hf download",
    "ftp": "wget",
    "sftp": "scp",
    "ssh": "scp",
}
NAME_LENGTH = 100  # characters of a file name; file systems allow 255 bytes


def find(
    address: str | None, sha256: str | None, dataset: OfficialDataset | None, root: Path
) -> Path:
    """Return the local file or folder to read, after downloading it if needed.

    Args:
        address: fetch.source, a path or URL; None for the official mirrors.
        sha256: fetch.sha256, the checksum of that file.
        dataset: one of CIFAR's; None for pictures, which need a checksum only if downloaded.
        root: the folder that relative paths start from, and that downloads are kept in.

    Raises:
        UserError: the file does not exist, or its checksum is missing or wrong.
    """
    if not address:
        assert dataset, "the parameters require a source for pictures"
        return official(dataset, sha256, root)
    known = {sha256} if sha256 else official_sums(dataset)
    if "://" in address:
        path = root / DOWNLOADS / file_name(address)
        fetch([address], path, known, sha256)
        check_sum(path, known, "was downloaded and needs a checksum")
        return path
    path = root / os.path.expanduser(address)  # noqa: PTH111  Path's own fails on ~unknown
    if path.is_dir() and sha256:
        raise UserError(
            f"a folder has no checksum: {path} (params.yaml, fetch.sha256): set it to null"
        )
    if not path.exists():
        raise UserError(
            f"no such file or folder: {path} (params.yaml, fetch.source): set it to an "
            "archive or a folder"
        )
    if path.is_file() and known:
        check_sum(path, known)
    return path


def official(dataset: OfficialDataset, sha256: str | None, root: Path) -> Path:
    """Download CIFAR's archive from the official mirrors, or from those in CIFAR_MIRRORS."""
    archive = dataset.binary
    mirrors = os.environ.get("CIFAR_MIRRORS", "").split() or dataset.mirrors
    urls = [f"{mirror.rstrip('/')}/{archive.name}" for mirror in mirrors]
    path = root / DOWNLOADS / archive.name
    wanted = sha256 or archive.sha256
    fetch(urls, path, {wanted}, wanted, None if sha256 else archive.size)
    return path


def official_sums(dataset: OfficialDataset | None) -> set[str]:
    return {dataset.binary.sha256, dataset.python.sha256} if dataset else set()


def fetch(
    urls: list[str], path: Path, known: set[str], sha256: str | None, size: int | None = None
) -> None:
    """Download `path` from one of `urls`, unless it exists and has one of the `known` checksums.

    With `sha256`, a download with another checksum is refused and deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):  # queued experiments share this folder
        if path.is_file() and files.sha256(path) in known:
            return
        try:
            download(urls, path, sha256, size)
        except UserError as error:
            raise UserError(
                f"cannot download {path.name} ({error}): set fetch.source to the path or URL of a "
                "copy, or fetch.dataset to digits, which is built in"
            ) from None


def check_sum(path: Path, known: set[str], without: str = "") -> None:
    """Refuse a file whose checksum is not `known`; `without` is the reason if `known` is empty."""
    checksum = files.sha256(path)
    if checksum not in known:
        problem = "is not the expected file" if known else without
        raise UserError(
            f"{path} {problem} (params.yaml, fetch.sha256): if you trust this file, set "
            f"fetch.sha256 to {checksum}"
        )


def file_name(url: str) -> str:
    """The name of a downloaded file: the end of its address, without the query.

    Raises:
        UserError: not a web address; the message says how to copy the file.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UserError(
            f"not a web address: {without_secrets(url)} (params.yaml, fetch.source): correct it"
        ) from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        advice = (
            f"copy the file first, with `{BUCKETS[scheme]}`,"
            if scheme in BUCKETS
            else "copy the file first"
        )
        raise UserError(
            f"not a web address: {without_secrets(url)} (params.yaml, fetch.source): {advice} and "
            "set fetch.source to the copy"
        )
    name = re.sub(r"[^\w.+-]", "_", unquote(PurePosixPath(parts.path).name)).lstrip(".")
    return name[-NAME_LENGTH:] or "download"
