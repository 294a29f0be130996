"""Download a file from the first working mirror; keep it only if its checksum matches."""

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from cifar import UserError

ATTEMPTS = 3  # per mirror, if a failure may be temporary: no answer, lost connection, 429, 5xx
CHUNK = 1 << 20


class TransientError(Exception):
    """A failure that may not occur at the next attempt."""


FAULTS = (TransientError, requests.RequestException, ValueError)  # ValueError: invalid address


def download(
    urls: Sequence[str],
    target: Path,
    sha256: str | None,
    size: int | None = None,
    *,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> str:
    """Download `target` from the first of `urls` that works; return its sha256.

    The file gets the name `target` only after its checksum is verified. With `sha256=None`, any
    content is accepted, and the caller has to check the returned checksum.

    Args:
        timeout: seconds to wait for the connection, and for more data.
        pause: seconds to wait after a failure; doubled after each further one.

    Raises:
        UserError: no mirror had the right file; the message says what went wrong with each.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    failures = []
    try:
        for url in urls:
            try:
                received = download_with_retries(url, part, sha256, size, timeout, pause)
            except FAULTS as error:
                failures.append(f"{without_secrets(url)}: {describe(error)}")
            else:
                os.replace(part, target)
                return received
    except OSError as error:  # on a full disk, the error of the system names no file
        error.filename = error.filename or str(target)
        raise
    finally:
        part.unlink(missing_ok=True)
    raise UserError("; ".join(failures))


def download_with_retries(
    url: str, part: Path, sha256: str | None, size: int | None, timeout: float, pause: float
) -> str:
    """Download and verify `part`; try again after a failure that may be temporary."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            received = stream(url, part, size, timeout)
            if sha256 and received != sha256:
                raise TransientError(f"wrong content, sha256 {received} instead of {sha256[:12]}…")
            return received
        except FAULTS as error:
            if attempt == ATTEMPTS or permanent(error):
                raise
            print(f"{without_secrets(url)}: {describe(error)}, trying again", flush=True)
        time.sleep(pause)
        pause *= 2
    raise AssertionError("the last attempt returns or raises")


def stream(url: str, part: Path, size: int | None, timeout: float) -> str:
    """Write the body of `url` to `part`, check its `size` if given, and return its sha256."""
    digest = hashlib.sha256()
    received = 0
    # Some servers call a .tar.gz gzip-encoded, so that requests would decompress it.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=timeout, headers=headers) as answer:
        answer.raise_for_status()
        # Some servers do so even when asked for identity.
        answer.raw.headers.pop("Content-Encoding", None)
        announced = answer.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else size
        if size and total != size:
            raise TransientError(f"{total} bytes announced instead of {size}")
        with part.open("wb") as handle, progress(part.name[1:-5], total) as bar:
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
        raise TransientError(f"connection closed after {received} of {total} bytes")
    return digest.hexdigest()


def progress(name: str, total: int | None) -> Any:
    hidden = not sys.stderr.isatty()
    return tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=hidden)


def permanent(error: Exception) -> bool:
    """Whether another attempt cannot help."""
    if isinstance(error, requests.HTTPError):
        return error.response.status_code != 429 and error.response.status_code < 500
    return isinstance(error, requests.TooManyRedirects | ValueError)  # ValueError: invalid address


def describe(error: Exception) -> str:
    """Describe the error in a few words; requests' own messages contain the address and secrets."""
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, ValueError):
        return "not a web address"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "no connection" if "Max retries" in str(error) else "connection lost"
    return str(error) if isinstance(error, TransientError) else type(error).__name__


def without_secrets(url: str) -> str:
    """The address without user, password, query and fragment, which may hold keys."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    if not parts.netloc:
        return url.partition("?")[0]
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
