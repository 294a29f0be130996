"""Remove files that can be generated again: checkpoints, logs, pages and caches.

    python -m tools.clean

Data, models and DVC's cache are kept. So are the checkpoints of running trainings, downloaded
archives, and the files in runs/ that cannot be generated again: the studies of tools.search, GPU
measurements, the edits of params.yaml that `recipes run` saved, and your own files.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import shutil
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).parent.parent
CACHES = (".mypy_cache", ".pytest_cache", ".ruff_cache", ".coverage*", "htmlcov")
LOGS = ("epochs.jsonl", "events.out.tfevents.*")
CODE = ("benchmarks", "cifar", "recipes", "stages", "tests", "tools")


def main() -> None:
    remove_locked(ROOT / ".checkpoints", "the checkpoint of a running training")
    remove_locked(ROOT / "runs/verify", "the clone of a running tools.verify")
    remove_logs(ROOT / "runs")
    remove("dvc_plots", ROOT.glob("dvc_plots"))
    remove("report.html", ROOT.glob("report.html"))
    bytecode = [path for name in CODE for path in (ROOT / name).rglob("__pycache__")]
    remove("caches", [*bytecode, *(path for name in CACHES for path in ROOT.glob(name))])


def remove_locked(folder: Path, running: str) -> None:
    """Remove the files of all runs in a folder whose locks no other process holds.

    The locks are held meanwhile, so that no run can start while its files are removed.

    Args:
        running: what is kept if a process holds a lock, in words.
    """
    paths = list(folder.glob("*"))  # without those of a run that starts from here on
    with ExitStack() as held:
        in_use = {run_of(lock) for lock in folder.glob("*.lock") if not hold(lock, held)}
        if in_use:
            print(f"kept: {running}")
        remove(
            str(folder.relative_to(ROOT)), [path for path in paths if run_of(path) not in in_use]
        )


def remove_logs(folder: Path) -> None:
    """Remove logs of trainings, times of stages, and the work of `benchmarks recipes`, if ended."""
    logs = [path for name in LOGS for path in folder.glob(f"*/{name}")]
    with ExitStack() as held:
        work = [path for path in folder.glob("recipes") if hold(path / "lock", held)]
        remove("runs", [*logs, *folder.glob("times"), *work])
    for path in folder.glob("*/"):
        with suppress(OSError):  # the folder has other files
            path.rmdir()


def run_of(path: Path) -> str:
    """The name of the run that a file belongs to: files, lock and temporary files begin with it."""
    return path.name.lstrip(".").split(".")[0]


def hold(lock: Path, held: ExitStack) -> bool:
    """Hold the lock until `held` is closed; False if another process has it."""
    try:
        held.enter_context(FileLock(lock).acquire(timeout=0))
    except Timeout:
        return False
    return True


def remove(name: str, paths: Iterable[Path]) -> None:
    """Remove files, links and whole folders, and print their number and size."""
    sizes = []
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            sizes += [file.lstat().st_size for file in path.rglob("*") if not file.is_dir()]
            shutil.rmtree(path)
        else:
            sizes.append(path.lstat().st_size)
            path.unlink()
    if sizes:
        print(f"removed: {name} ({len(sizes)} files, {sum(sizes) / 1e6:.1f} MB)")


if __name__ == "__main__":
    stage.run(main, __doc__)
