"""What every program here does around its work: watch a stage's inputs, end with one line and a code that stops DVC."""

import contextlib
import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cifar import UserError

SMALL = 1 << 20  # bytes; a larger file is known by size and time of change, not by content


def run(main: Callable[[], Path | None]) -> NoReturn:
    """Call `main` and exit: 0 when it returns, else one line on stderr and 1, or 128 + the signal.

    A training that catches Ctrl-C and exits 0 would be recorded by DVC as finished. And DVC hashes
    dependencies and parameters after the command, so what is edited meanwhile would be recorded as if it
    had been used: such a stage fails. `main` may return a file to delete when all is well, a checkpoint.
    """
    signal.signal(signal.SIGTERM, terminate)
    start = time.monotonic()
    try:
        before = inputs()
        leftover = main()
        after = inputs()
        if changed := [key for key in after | before if after.get(key) != before.get(key)]:
            raise UserError(
                f"{changed[0]} changed while this stage ran (dvc.yaml): run `dvc repro` again"
            )
        if leftover:
            leftover.unlink(missing_ok=True)
        note_time(time.monotonic() - start)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(
            f"{error.strerror or error} ({error.filename or 'input or output'}): mend this and run again"
        )
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(
            r"out of memory|allocate memory", str(error)
        ):
            raise
        fail(
            "out of memory (params.yaml): lower train.batch_size, evaluate.batch_size or preprocess.image_size"
        )
    except KeyboardInterrupt:
        fail(
            "interrupted (Ctrl-C): run the same command again; a training goes on where it was",
            128 + signal.SIGINT,
        )
    sys.exit(0)


def inputs() -> dict[str, Any]:
    """A fingerprint of each dependency and parameter section that dvc.yaml declares for the running stage.

    Of YAML that cannot be read there is none: at the start the stage itself says what is wrong with it.
    """
    if "DVC_STAGE" not in os.environ:  # started by hand: nothing will be recorded
        return {}
    yaml = YAML(typ="safe", pure=True)
    try:
        declared = yaml.load(Path("dvc.yaml"))["stages"][os.environ["DVC_STAGE"].rpartition(":")[2]]
        values = yaml.load(Path("params.yaml"))
        found = {
            f"params.yaml: {section}": values[section] for section in declared.get("params", [])
        }
        names = [
            re.sub(r"\$\{(\w+)\.(\w+)\}", lambda m: str(values[m[1]][m[2]]), name)
            for name in declared["deps"]
        ]
    except (YAMLError, ValueError, LookupError, TypeError):
        return {"params.yaml": "not to be read"}
    for name in names:
        for path in sorted(Path(name).rglob("*")) if Path(name).is_dir() else [Path(name)]:
            found[str(path)] = fingerprint(path)
    return found


def fingerprint(path: Path) -> Any:
    if not path.is_file():
        return None
    status = path.stat()
    if status.st_size > SMALL:
        return status.st_size, status.st_mtime_ns
    return hashlib.sha256(path.read_bytes()).hexdigest()


def note_time(seconds: float) -> None:
    """Leave for the report how long this stage took: no output may hold a time, it would never be the same again."""
    if "DVC_STAGE" in os.environ:
        with contextlib.suppress(OSError):  # a report without a time is no reason to fail
            path = time_file(os.environ["DVC_STAGE"].rpartition(":")[2])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{seconds:.1f}\n")


def time_file(name: str) -> Path:
    """Where the time of the stage is that made its present outputs: they are known by their names, their sizes and
    the content of the small ones, and so does the file's name know them."""
    declared = YAML(typ="safe", pure=True).load(Path("dvc.yaml"))["stages"][name]
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in declared.get(kind, [])]
    known = hashlib.sha256()
    for path in sorted(
        Path(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries
    ):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            size = file.stat().st_size
            known.update(
                f"{file.as_posix()} {size} ".encode()
                + (file.read_bytes() if size <= SMALL else b"")
            )
    return root() / "runs" / f"{name}-{known.hexdigest()[:16]}"


def fail(message: str, code: int = 1) -> NoReturn:
    line = " ".join(message.splitlines())
    sys.stderr.write(f"error: {line}\n")  # at once: several processes may say the same
    sys.stderr.flush()
    sys.exit(code)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that temporary files are removed on the way out."""
    sys.exit(128 + number)


def root() -> Path:
    """Where state that outlives a run is kept: the user's repository, also in DVC's temporary copies of it."""
    return Path(os.environ.get("DVC_ROOT", "."))
