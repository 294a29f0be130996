"""One file from the first mirror that has it, right or not at all."""

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from tqdm import tqdm

from cifar import UserError

ATTEMPTS = 3  # per mirror, for what may pass: no answer, a cut connection, 429, 5xx
CHUNK = 1 << 20


class TransientError(Exception):
    """A failure that may be gone at the next attempt."""


FAULTS = (
    TransientError,
    requests.RequestException,
    ValueError,
)  # the last of an address, as in a redirect


def download(
    urls: Sequence[str],
    target: Path,
    sha256: str | None,
    size: int | None = None,
    *,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> str:
    """Bring the first of `urls` that works to `target`; return its sha256.

    The file has the name `target` only once its checksum is right. `timeout` is in seconds, for the
    connection and for each silence; `pause` seconds are waited after a failure, and twice as many
    after the next. With `sha256=None` any content is taken: the caller decides on the returned sum.

    Raises:
        UserError: no mirror gave the right file; it says what each of them did.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    failures = []
    try:
        for url in urls:
            try:
                got = insist(url, part, sha256, size, timeout, pause)
            except FAULTS as error:
                failures.append(f"{url}: {describe(error)}")
            else:
                os.replace(part, target)
                return got
    except OSError as error:  # a full disk, for which the system names no file
        error.filename = error.filename or str(target)
        raise
    finally:
        part.unlink(missing_ok=True)
    raise UserError("; ".join(failures))


def insist(
    url: str, part: Path, sha256: str | None, size: int | None, timeout: float, pause: float
) -> str:
    """`stream` and the check of its sum, tried again after what may pass."""
    attempt = 1
    while True:
        try:
            got = stream(url, part, size, timeout)
            if sha256 and got != sha256:
                raise TransientError(f"wrong content, sha256 {got} instead of {sha256[:12]}…")
            return got
        except FAULTS as error:
            if attempt == ATTEMPTS or permanent(error):
                raise
            print(f"{url}: {describe(error)}, trying again", flush=True)
        time.sleep(pause)
        attempt, pause = attempt + 1, pause * 2


def stream(url: str, part: Path, size: int | None, timeout: float) -> str:
    """Write the body of `url` to `part` and return its sha256; more or fewer bytes than `size` are an error."""
    digest, received = hashlib.sha256(), 0
    # Identity: some servers call a .tar.gz gzip-encoded, and it would be unpacked on the way.
    with requests.get(
        url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}
    ) as answer:
        answer.raise_for_status()
        answer.raw.headers.pop(
            "Content-Encoding", None
        )  # … and some do so even when asked for identity
        announced = answer.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else size
        if size and total != size:
            raise TransientError(f"{total} bytes announced instead of {size}")
        bar = tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            desc=part.name[1:-5],
            disable=not sys.stderr.isatty(),
        )
        with part.open("wb") as handle, bar:
            for chunk in answer.iter_content(CHUNK):
                received += len(chunk)
                if total is not None and received > total:
                    raise TransientError(f"more than the {total} bytes announced")
                handle.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
            handle.flush()
            os.fsync(handle.fileno())
    if total is not None and received != total:
        raise TransientError(f"cut after {received} of {total} bytes")
    return digest.hexdigest()


def permanent(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code != 429 and error.response.status_code < 500
    return isinstance(
        error, requests.TooManyRedirects | ValueError
    )  # errors of an address are ValueErrors


def describe(error: Exception) -> str:
    """The error in a few words; requests' own messages repeat the address and the object's memory address."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.TooManyRedirects):
        return "redirects without end"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, ValueError):
        return "not a web address"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "no connection" if "Max retries" in str(error) else "connection cut"
    return str(error)
