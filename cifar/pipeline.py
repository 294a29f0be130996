"""The running stage as dvc.yaml declares it: its inputs, its outputs, and how long they took."""

import contextlib
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from cifar import UserError, leftovers, yaml12

SMALL = 1 << 20  # bytes; a larger file is identified by its metadata instead of its content
KEPT_TIMES = 20  # files per stage


def root() -> Path:
    """The folder for state that outlives a run: the user's repository.

    DVC may run a stage in a temporary copy of it.
    """
    return Path(os.environ.get("DVC_ROOT", "."))


def inputs() -> dict[str, Any]:
    """A fingerprint of each dependency and section of params.yaml that the running stage declares.

    YAML that cannot be read is not an error here: the stage itself reports it.
    """
    if not running():  # nothing will be recorded
        return {}
    try:
        declared = declaration(running())
    except UserError:
        return {"dvc.yaml": "unreadable"}
    try:
        values = yaml12.read("params.yaml")
        fingerprints = {
            f"params.yaml: {section}": values[section] for section in declared.get("params", [])
        }
        names = dependencies(declared, values)
    except (UserError, LookupError, TypeError):
        return {"params.yaml": "unreadable"}
    for name in names:
        for path in sorted(Path(name).rglob("*")) if Path(name).is_dir() else [Path(name)]:
            if not leftovers.hidden(path.relative_to(name).parts):
                fingerprints[str(path)] = fingerprint(path)
    return fingerprints


def dependencies(declared: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The paths that a stage depends on, with `${...}` replaced by values of params.yaml."""
    return [
        re.sub(r"\$\{(\w+)\.(\w+)\}", lambda m: str(values[m[1]][m[2]]), name)
        for name in declared["deps"]
    ]


def check_imports() -> None:
    """Check that the running stage declares every file of this repository that it imports.

    An edit of an undeclared file would rerun nothing, and the old result would pass for the new.

    Raises:
        UserError: a file is not declared; the message names it.
    """
    if not running():
        return
    try:
        declared = dependencies(declaration(running()), yaml12.read("params.yaml"))
    except (UserError, LookupError, TypeError):
        return  # the stage itself says what is wrong with these files
    here = f"{Path.cwd()}{os.sep}"
    installed = (sys.prefix + os.sep, sys.base_prefix + os.sep)  # Python may be in the repository
    # The other sections of params.yaml are only checked, which changes no output.
    declared.append("cifar/params/")
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        path = Path(file.removeprefix(here)).as_posix()
        ours = file.startswith(here) and not file.startswith(installed)
        if ours and not path.startswith(tuple(declared)) and Path(path).stat().st_size:
            raise UserError(
                f"stage {running()} imports {path}, which is not among its dependencies "
                "(dvc.yaml): add it to `deps`, because an edit of it would rerun nothing"
            )


def stages() -> dict[str, dict[str, Any]]:
    """Map the names of the stages to their entries in dvc.yaml.

    Raises:
        UserError: it has no stages.
    """
    entries = yaml12.read("dvc.yaml").get("stages")
    if (
        not entries
        or not isinstance(entries, dict)
        or not all(isinstance(entry, dict) for entry in entries.values())
    ):
        raise UserError("no stages (dvc.yaml): restore it with `git checkout dvc.yaml`")
    return entries


def declaration(name: str) -> dict[str, Any]:
    """The entry of a stage in dvc.yaml.

    Raises:
        UserError: it has no such stage.
    """
    entries = stages()
    if name not in entries:
        raise UserError(f"no stage {name} (dvc.yaml): restore it with `git checkout dvc.yaml`")
    return entries[name]


def running() -> str:
    """The name of the stage that DVC runs; empty for a program that was started by hand."""
    return os.environ.get("DVC_STAGE", "").rpartition(":")[2]


def fingerprint(path: Path) -> Any:
    if not path.is_file():
        return None
    status = path.stat()
    if status.st_size > SMALL:
        return status.st_size, status.st_mtime_ns
    return hashlib.sha256(path.read_bytes()).hexdigest()


def note_time(seconds: float) -> None:
    """Record how long this stage took, for the report.

    An output must not contain a time, because then no two runs would give the same bytes.
    """
    if not (name := running()):
        return
    with contextlib.suppress(OSError, UserError):  # the time is not worth a failure
        path = time_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{seconds:.1f}\n")
        notes = sorted(path.parent.glob(f"{name}-*"), key=lambda note: note.stat().st_mtime)
        for old in notes[:-KEPT_TIMES]:
            old.unlink(missing_ok=True)


def time_file(name: str) -> Path:
    """The file that records how long the stage took to make its current outputs.

    Its name contains a hash of their names, their sizes, and the content of small files.

    Raises:
        UserError: dvc.yaml is damaged, or has no such stage.
    """
    declared = declaration(name)
    try:
        entries = [e for kind in ("outs", "metrics", "plots") for e in declared.get(kind, [])]
        outputs = [Path(e if isinstance(e, str) else next(iter(e))) for e in entries]
    except (TypeError, StopIteration):
        raise UserError(
            f"no outputs of {name} (dvc.yaml): restore it with `git checkout dvc.yaml`"
        ) from None
    digest = hashlib.sha256()
    for output in sorted(outputs):
        for file in sorted(output.rglob("*")) if output.is_dir() else [output]:
            size = file.stat().st_size
            digest.update(f"{file.as_posix()} {size} ".encode())
            digest.update(file.read_bytes() if size <= SMALL else b"")
    return root() / "runs" / "times" / f"{name}-{digest.hexdigest()[:16]}"
