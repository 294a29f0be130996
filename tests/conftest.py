"""Fixtures: scratch copies of the repository, one of which runs `dvc repro` once for all tests."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

# Tests share the cores: a waiting OpenMP thread must not spin while another test needs its core.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

ROOT = Path(__file__).parent.parent
TINY = """\
# Takes seconds on two cores: small digits, a small network, small charts.
fetch: {dataset: digits, source: null, sha256: null}
preprocess: {image_size: 8, per_class: 20}
train: {model: vgg, depth: 1, width: 4, batch_norm: false, epochs: 2, batch_size: 64,
  optimizer: sgd, lr: 0.05, schedule: constant, keep: last, flip: none, shift: 1,
  small_epochs: 0, device: cpu, threads: 1}
evaluate: {device: cpu}
plot: {dpi: 50, samples_per_class: 1, mistakes: 6}
"""
# Python runs this when it starts. It logs what a stage imports, opens and renames, and which file
# of the project does so.
AUDIT = """
import os, sys
if stage := os.environ.get("DVC_STAGE"):
    root = os.getcwd() + os.sep
    log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def inside(path):
        full = os.path.abspath(os.fsdecode(path))
        ours = full.startswith(root) and "<" not in full and "__pycache__" not in full
        return full[len(root):] if ours else ""
    def note(event, args):
        if event == "import":
            what, name = "import", args[0] if "." not in args[0] else ""
        elif event == "open" and not isinstance(args[0], int):
            what = "write" if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "read"
            name = inside(args[0])
        elif event == "os.rename":
            what, name = "write", inside(args[1])
        else:
            return
        frame = sys._getframe()
        while frame and not inside(frame.f_code.co_filename):
            frame = frame.f_back
        if name:
            by = inside(frame.f_code.co_filename) if frame else ""
            os.write(log, f"{stage}|{what}|{name}|{by}\\n".encode())
    sys.addaudithook(note)
"""


# The commands of the environment that runs the tests, however it was started.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

CODE = ("benchmarks", "cifar", "recipes", "stages", "tests", "tools")
RESULTS = ("data", "metrics", "models", "plots")
COMMANDS = {"project", "first_run", "dropout_run", "reproduced", "sweep"}  # slow fixtures
HANG_SECONDS = 1800  # limit for a command that hangs; no test depends on the machine's speed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run stages or commands in a project as slow, before -m selects."""
    for item in items:
        if item.path.parent.name == "stages" or COMMANDS & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


@dataclass(frozen=True)
class Project:
    """A copy of the repository in a folder of its own, under Git."""

    path: Path

    def environment(self, **variables: str) -> dict[str, str]:
        """The environment of a user's fresh shell, with the packages of these tests."""
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "PYTHON"))
        }
        own = {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_SITE_CACHE_DIR": f"{self.path}.site",
        }
        return inherited | own | variables

    def run(
        self, *command: str, ok: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here; it must succeed unless `ok` is false."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        assert not ok or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "state")

    def edit(self, file: str, change: Callable[[str], str]) -> None:
        path = self.path / file
        path.write_text(change(path.read_text()))

    def copy(self, path: Path) -> "Project":
        shutil.copytree(self.path, path)
        return Project(path)

    @staticmethod
    def ran(output: str) -> list[str]:
        """The stages that a dvc command ran, in order, from what it printed."""
        return [
            line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")
        ]

    def end(self) -> None:
        """Kill all processes that still run in this folder."""
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(self.path):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may just have ended
                    process.kill()


@dataclass(frozen=True)
class Run:
    """A project after a command.

    `output` is what the command printed; `notes` has what its stages did: (stage, what, name, by).
    """

    project: Project
    output: str
    notes: frozenset[tuple[str, ...]] = frozenset()


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout


def is_work(name: str) -> bool:
    """Whether a tracked file is part of the work rather than a result of it."""
    if name == "dvc.lock":
        return False
    return name.split("/")[0] not in RESULTS or name.endswith(".gitignore")


def work_files(root: Path) -> list[str]:
    """The tracked files that exist, and new modules that are not tracked yet."""
    tracked = git(root, "ls-files", "-z").split("\0")
    new = git(root, "ls-files", "-oz", "--exclude-standard", *(f"{name}/*.py" for name in CODE))
    names = [name for name in [*tracked, *new.split("\0")] if is_work(name)]
    return [name for name in names if (root / name).is_file()]


def layout(parameters: str) -> dict[str, set[str]] | None:
    """The keys of each section of a params.yaml; None if it cannot be read."""
    try:
        sections = YAML(typ="safe").load(parameters)
        return {
            name: set(keys) if isinstance(keys, dict) else set() for name, keys in sections.items()
        }
    except (YAMLError, AttributeError):
        return None


def work_parameters(root: Path) -> str:
    """The committed params.yaml; the edited one if keys were added or removed."""
    committed = git(root, "show", "HEAD:params.yaml")
    edited = (root / "params.yaml").read_text() if (root / "params.yaml").is_file() else committed
    return committed if layout(edited) in (layout(committed), None) else edited


def create(path: Path, root: Path = ROOT) -> Project:
    """Create a repository with one commit: the code in `root`, edits included.

    Left out are results, edited values in params.yaml, and untracked files other than new modules
    (`git add` those that tests need).
    """
    for name in work_files(root):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, path / name)
    (path / "params.yaml").write_text(work_parameters(root))
    project = Project(path)
    project.run("git", "init", "--quiet")
    project.run("git", "config", "user.name", "Test")
    project.run("git", "config", "user.email", "test@example.org")
    project.commit()
    return project


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, called only by the first test process that needs it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            Path(f"{folder}.done").touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, as the current folder."""
    path = tmp_path / "folder"
    path.mkdir()
    shutil.copy(ROOT / "params.yaml", path)
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def add_network(tmp_path, monkeypatch):
    """A function that adds a network's file to cifar.models, in a temporary folder."""
    import cifar.models

    folder = tmp_path / "cifar/models"
    folder.mkdir(parents=True)
    monkeypatch.setattr(cifar.models, "__path__", [*cifar.models.__path__, str(folder)])
    before = set(sys.modules)

    def write(code, name="mine"):
        (folder / f"{name}.py").write_text(code)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("cifar.models."):
            del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create(tmp_path / "project")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`dvc repro` of the tiny recipe in a fresh clone, committed. Change its copy, `reproduced`."""

    def make(folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(AUDIT)
        project = create(folder / "project")
        (project.path / "recipes/tiny.yaml").write_text(TINY)
        # Without bytecode, Python reads every module from its source, and the notes show it.
        source = {"PYTHONDONTWRITEBYTECODE": "1"}
        project.run("python", "-m", "recipes", "apply", "tiny", **source)
        project.commit()
        watched = {"PYTHONPATH": str(folder), "AUDIT_LOG": str(folder / "log")}
        (folder / "output").write_text(project.run("dvc", "repro", **source, **watched).stdout)
        project.commit()

    folder = once(tmp_path_factory, "first_run", make)
    notes = frozenset(tuple(line.split("|")) for line in (folder / "log").read_text().splitlines())
    return Run(Project(folder / "project"), (folder / "output").read_text(), notes)


@pytest.fixture(scope="session")
def dropout_run(first_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The experiment `more`, with another dropout, in the workspace after its run."""

    def make(folder: Path) -> None:
        project = first_run.project.copy(folder / "project")
        done = project.run("dvc", "exp", "run", "--name", "more", "-S", "train.dropout=0.3")
        (folder / "output").write_text(done.stdout)

    folder = once(tmp_path_factory, "dropout_run", make)
    return Run(Project(folder / "project"), (folder / "output").read_text())


@pytest.fixture
def reproduced(first_run: Run, tmp_path: Path) -> Project:
    """A copy of the project of `first_run`, with everything up to date and committed."""
    return first_run.project.copy(tmp_path / "project")
