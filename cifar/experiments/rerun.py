"""Reproduce a recorded result from its raw data, in a clone of its commit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cifar import UserError
from cifar.experiments.consistency import check_code
from cifar.experiments.recorded import Recorded, md5

ROOT = Path("runs/verify")
RAW = "data/fetched"


class Rerun:
    """A rerun of one result. If it is interrupted, the same call resumes it.

    Args:
        recorded: the result to reproduce.
        from_scratch: fetch the raw data as well, instead of taking them from DVC.
    """

    def __init__(self, recorded: Recorded, from_scratch: bool) -> None:
        suffix = "-from-scratch" if from_scratch else ""
        self.recorded = recorded
        self.from_scratch = from_scratch
        self.folder = ROOT / f"{recorded.commit[:12]}{suffix}"
        self.clone = self.folder / "clone"
        self.done = self.folder / "done"  # one file per finished stage; removed at the end

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the folder's lock.

        Raises:
            UserError: another process holds it.
        """
        ROOT.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another process is verifying {self.recorded.title} ({self.folder}): "
                "wait until it ends"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def prepare(self) -> None:
        """Clone the commit, without any of its results.

        Raises:
            UserError: the result was made by different code.
        """
        if not self.done.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
            git("clone", "--quiet", "--shared", "--no-checkout", ".", str(self.clone))
            git("-C", str(self.clone), "update-ref", "--no-deref", "HEAD", self.recorded.commit)
            self.done.mkdir()
        results = [f":(exclude,literal){path}" for path in self.recorded.outputs]
        git("-C", str(self.clone), "checkout", self.recorded.commit, "--", ".", *results)
        self.take_tracked_files()
        check_code(self.recorded, self.clone)

    def take_tracked_files(self) -> None:
        """Bring the inputs that `dvc add` tracks, such as a folder of pictures, into the clone."""
        for stage in self.recorded.stages.values():
            for dep in stage.get("deps", []):
                path, target = dep["path"], self.clone / dep["path"]
                if f"{path}.dvc" in self.recorded.in_git and md5(target) != dep["md5"]:
                    shutil.rmtree(target, ignore_errors=True)  # of an interrupted copy
                    target.unlink(missing_ok=True)
                    self.recorded.copy(path, target)

    def run(self) -> None:
        """Run the stages that have not finished yet.

        Raises:
            UserError: the raw data are not available, or a stage fails.
        """
        for name in self.recorded.order:
            mark = self.done / name
            if mark.exists():
                print(f"{name}: done before the interruption", file=sys.stderr)
                continue
            outputs = [out["path"] for out in self.recorded.stages[name].get("outs", [])]
            if RAW in outputs and not self.from_scratch:
                self.take_raw_data()
            else:
                self.run_stage(name)
            mark.touch()

    def take_raw_data(self) -> None:
        target = self.clone / RAW
        shutil.rmtree(target, ignore_errors=True)
        print(f"fetch: not run, {RAW} comes from DVC's cache or remote", file=sys.stderr)
        try:
            self.recorded.copy(RAW, target)
        except UserError as error:
            raise UserError(f"{error}, or use --from-scratch") from None
        if md5(target) != self.recorded.outputs[RAW]:
            shutil.rmtree(target)
            raise UserError(
                f"{RAW} of {self.recorded.title} is damaged (DVC's cache or remote): "
                "fetch it again with --from-scratch"
            )

    def run_stage(self, name: str) -> None:
        command = self.recorded.stages[name]["cmd"]  # a line or a list of lines
        for line in [command] if isinstance(command, str) else command:
            print(f"{name}: {line}", file=sys.stderr, flush=True)
            # In a shell, as DVC does. Its output goes to stderr: stdout is for the verdict.
            shell = ["sh", "-c", line]
            done = subprocess.run(
                shell, cwd=self.clone, env=environment(), stdout=sys.stderr, check=False
            )
            if done.returncode:
                raise UserError(
                    f"stage {name} failed, see its message above ({self.clone}): "
                    "fix the cause and run the same command again, it resumes"
                )

    def finish(self, keep: bool) -> None:
        """Delete the clone, or keep it as a finished one, which no later call resumes."""
        shutil.rmtree(self.done if keep else self.folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """The environment variables of this process, without those that point outside the clone."""
    outside = ("DVC_", "GIT_", "PYTHONPATH")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return inherited | {"PATH": path}


def git(*arguments: str) -> None:
    """Run a Git command on the clone, even if GIT_DIR is set."""
    done = subprocess.run(
        ["git", *arguments], env=environment(), capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"cannot clone the commit, {line} ({ROOT}): fix this and run again")
