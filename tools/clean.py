"""Remove what can be made again: checkpoints, logs, pages and caches.

    python -m tools.clean

Data, models and DVC's cache stay. So do the checkpoint of a training that runs, downloaded
archives, and in runs/ what is not made again: the studies of tools.search, the figures of a GPU,
the edits of params.yaml that `recipes run` kept, and files of yours.
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
WORK = ("recipes", "times", "verify")  # folders in runs/
CODE = ("benchmarks", "cifar", "recipes", "stages", "tests", "tools")


def main() -> None:
    remove_checkpoints(ROOT / ".checkpoints")
    remove_logs(ROOT / "runs")
    remove("dvc_plots", ROOT.glob("dvc_plots"))
    remove("report.html", ROOT.glob("report.html"))
    bytecode = [path for name in CODE for path in (ROOT / name).rglob("__pycache__")]
    remove("caches", [*bytecode, *(path for name in CACHES for path in ROOT.glob(name))])


def remove_checkpoints(folder: Path) -> None:
    """Remove the files of each training that does not run.

    Its lock is held meanwhile, so that it cannot start again while its files go.
    """
    with ExitStack() as held:
        running = {lock.stem for lock in folder.glob("*lock") if not hold(lock, held)}
        if running:
            print("kept: the checkpoint of a training that runs")
        paths = folder.glob("*")
        remove(".checkpoints", [path for path in paths if training(path) not in running])


def remove_logs(folder: Path) -> None:
    """Remove logs of trainings, times of stages, and the work of runners that do not run."""
    logs = [path for name in LOGS for path in folder.glob(f"*/{name}")]
    with ExitStack() as held:
        work = [folder / name for name in WORK if (folder / name).exists()]
        remove("runs", logs + [path for path in work if hold(path / "lock", held)])
    for path in folder.glob("*/"):
        with suppress(OSError):  # a folder with other files
            path.rmdir()


def training(path: Path) -> str:
    """The training that a file in .checkpoints belongs to."""
    return path.name.lstrip(".").split(".")[0]


def hold(lock: Path, held: ExitStack) -> bool:
    """Hold the lock until `held` ends; false where another process has it."""
    try:
        held.enter_context(FileLock(lock).acquire(timeout=0))
    except Timeout:
        return False
    return True


def remove(name: str, paths: Iterable[Path]) -> None:
    """Remove files, links and whole folders, and say how much it was."""
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
