"""tools/clean.py: files that can be generated again are removed, and nothing else."""

import pytest
from filelock import FileLock

STAY = {
    "data/fetched/images.npy",
    "models/model.safetensors",
    ".dvc/cache/files/md5/00/11",
    ".downloads/archive.tar.gz",
    "runs/search.db",
    "runs/params.yaml",
    "runs/mine/notes.txt",
    "runs/gpu/card/results.json",
    "metrics/test.json",
    "notes.txt",
}
GO = {
    ".checkpoints/folder.lock",
    ".checkpoints/0a1b",
    ".checkpoints/0a1b.lock",
    ".checkpoints/.0a1b.tmp",
    "runs/times/train-0a1b",
    "runs/mine/epochs.jsonl",
    "runs/digits/epochs.jsonl",
    "runs/digits/events.out.tfevents.1",
    "runs/recipes/commit",
    "runs/verify/c0ffee/clone/params.yaml",
    "runs/verify/c0ffee.lock",
    "dvc_plots/index.html",
    "report.html",
    ".pytest_cache/README.md",
    ".coverage.host.1",
    "cifar/__pycache__/files.pyc",
}


@pytest.fixture
def used(project):
    """A project with one file of each kind in its workspace."""
    for name in STAY | GO:
        path = project.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    return project


def clean(project):
    return project.run("python", "-m", "tools.clean", PYTHONDONTWRITEBYTECODE="1").stdout


def files(project, names):
    return {name for name in names if (project.path / name).exists()}


def test_clean_removes_what_can_be_made_again(used):
    """Checkpoints, logs, pages and caches are removed, with a line for each; the rest is kept."""
    printed = clean(used)
    assert files(used, GO) == set()
    assert files(used, STAY) == STAY
    assert "removed: .checkpoints (4 files, 0.0 MB)\n" in printed
    assert clean(used) == "", "nothing is left to remove"


def test_clean_keeps_the_checkpoint_of_a_running_training(used):
    """Neither a lock that another process holds nor the files that it protects are removed."""
    other = used.path / ".checkpoints/ffff"
    other.write_text("another training")
    with FileLock(used.path / ".checkpoints/0a1b.lock"):
        printed = clean(used)
    assert "kept: the checkpoint of a running training" in printed
    kept = {".checkpoints/0a1b", ".checkpoints/0a1b.lock", ".checkpoints/.0a1b.tmp"}
    assert files(used, GO) == kept
    assert not other.exists()


def test_clean_removes_a_link_and_not_what_it_points_to(used, tmp_path):
    """A link in place of a folder is removed; the folder that it points to keeps its files."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/index.html").touch()
    (used.path / "dvc_plots/index.html").unlink()
    (used.path / "dvc_plots").rmdir()
    (used.path / "dvc_plots").symlink_to(tmp_path / "elsewhere")
    clean(used)
    assert not (used.path / "dvc_plots").is_symlink()
    assert (tmp_path / "elsewhere/index.html").exists()


def test_clean_keeps_the_work_of_a_running_runner(used):
    """Otherwise hours of checkpoints would be lost."""
    with FileLock(used.path / "runs/recipes/lock"):
        clean(used)
    assert (used.path / "runs/recipes/commit").exists()


def test_clean_keeps_the_clone_of_a_running_verification(used):
    """The clone that tools.verify works in stays, and so does its lock; those of others go."""
    other = used.path / "runs/verify/decade-from-scratch"
    other.mkdir()
    with FileLock(used.path / "runs/verify/c0ffee.lock"):
        printed = clean(used)
    assert "kept: the clone of a running tools.verify" in printed
    kept = {"runs/verify/c0ffee.lock", "runs/verify/c0ffee/clone/params.yaml"}
    assert files(used, GO) == kept
    assert not other.exists()
