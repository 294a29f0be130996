"""tools/official.py: results of the default on the official archive, ready to commit."""

import hashlib
import io
import json
import re
import shutil
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from conftest import TINY

from cifar.data.datasets import CIFAR10

CLASSES = [f"class {i}" for i in range(10)]


def official(project, **options):
    return project.run("python", "-m", "tools.official", **options)


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def mirror(tmp_path):
    """The address of a server of a small CIFAR-10 archive, and the archive's checksum."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    path = folder / CIFAR10.binary.name
    draws = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as tar:
        for name in (*CIFAR10.binary.train, *CIFAR10.binary.test):
            records = draws.integers(0, 256, (60, 3073), dtype=np.uint8)
            records[:, 0] = np.arange(60) % 10
            add(tar, name, records.tobytes())
        add(tar, CIFAR10.binary.classes, "\n".join(CLASSES).encode())
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", hashlib.sha256(path.read_bytes()).hexdigest()
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_the_results_are_ready_to_commit(project, mirror):
    """After the printed commands, a clone has the metrics and plots, and is up to date."""
    address, sha256 = mirror
    recipe = TINY.replace("{dataset: digits, source: null, sha256: null}", f"{{sha256: {sha256}}}")
    (project.path / "recipes/tiny.yaml").write_text(recipe)
    project.run("python", "-m", "recipes", "apply", "tiny")
    project.commit()
    printed = official(project, CIFAR_MIRRORS=address, NO_PROXY="*").stdout
    commands = re.search(r"To commit this result:\n((?:  .*\n)+)", printed)[1]
    project.run("bash", "-ec", commands)
    assert project.run("git", "status", "--porcelain").stdout == ""
    added = project.run("git", "show", "--name-only", "--format=").stdout.split()
    tables = {"plots/classes.csv", "plots/history.csv"}
    assert {"dvc.lock", "metrics/test.json", "metrics/train.json", *tables} <= set(added)
    project.run("git", "clone", "--quiet", ".", "clone")
    clone = type(project)(project.path / "clone")
    metrics = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)
    assert "accuracy" in metrics[""]["data"]["metrics/test.json"]["data"]["test"]
    dry = clone.run("dvc", "repro", "--dry", "--allow-missing").stdout
    assert clone.ran(dry) == []


@pytest.mark.parametrize("name", ["params.yaml", "cifar/models/fast.py", "stages/new.py"])
def test_changed_inputs_are_refused(project, name):
    """If a file that the result depends on differs from the commit, nothing runs."""
    with (project.path / name).open("a") as file:
        file.write("# edited\n")
    done = official(project, ok=False)
    expected = f"error: {name} differs from the commit (git diff HEAD): "
    assert done.returncode == 1 and done.stderr.startswith(expected)
    assert done.stdout == "" and not (project.path / "data/fetched").exists()


@pytest.mark.hostile
def test_without_git_there_is_nothing_to_commit(project):
    """Outside of a repository one line says so."""
    shutil.rmtree(project.path / ".git")
    done = project.run("python", "-m", "tools.official", ok=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: fatal: not a git repository")
    assert done.stderr.count("\n") == 1


def test_data_from_elsewhere_are_refused(project):
    """A result of the user's own copy is not one of the official archive."""
    project.edit("params.yaml", lambda text: re.sub(r"(\n  source:) ", r"\1 /copy.tar.gz ", text))
    project.commit()
    done = official(project, ok=False)
    assert done.returncode == 1
    assert "not from the official archive (params.yaml, fetch.source)" in done.stderr
