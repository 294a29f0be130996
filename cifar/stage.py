"""What every stage does around its work: watch its inputs, and end with one line and a code that stops DVC."""

import hashlib
import os
import re
import signal
import sys
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
    try:
        before = inputs()
        leftover = main()
        after = inputs()
        if changed := [key for key in after | before if after.get(key) != before.get(key)]:
            raise UserError(f"{changed[0]} changed while this stage ran (dvc.yaml): run `dvc repro` again")
        if leftover:
            leftover.unlink(missing_ok=True)
    except UserError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.strerror or error} ({error.filename or 'input or output'}): mend this and run again")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(r"out of memory|allocate memory", str(error)):
            raise
        fail("out of memory (params.yaml): lower train.batch_size, evaluate.batch_size or preprocess.image_size")
    except KeyboardInterrupt:
        fail(
            "interrupted (Ctrl-C): run the same command again; training goes on where it was",
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
        found = {f"params.yaml: {section}": values[section] for section in declared.get("params", [])}
        names = [re.sub(r"\$\{(\w+)\.(\w+)\}", lambda m: str(values[m[1]][m[2]]), name) for name in declared["deps"]]
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


def fail(message: str, code: int = 1) -> NoReturn:
    print("error:", " ".join(message.splitlines()), file=sys.stderr, flush=True)
    sys.exit(code)


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that temporary files are removed on the way out."""
    sys.exit(128 + number)


def root() -> Path:
    """Where state that outlives a run is kept: the user's repository, also in DVC's temporary copies of it."""
    return Path(os.environ.get("DVC_ROOT", "."))
