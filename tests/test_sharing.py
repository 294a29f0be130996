"""Sharing results: with another clone, through an S3 server, and with a linked cache."""

import hashlib
import re

import pytest
from conftest import Project

STAGES = ["fetch", "preprocess", "train", "evaluate", "plot"]
KEYS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def hub(reproduced):
    """A Git repository to clone, and the project whose `origin` it is."""
    path = reproduced.path.with_name("hub.git")
    reproduced.run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(path))
    reproduced.run("git", "remote", "add", "origin", str(path))
    return path


def publish(project, remote, *settings, **variables):
    """Commit the remote, then push commit, data and models."""
    project.run("dvc", "remote", "add", "--default", "storage", remote)
    for name, value in settings:
        project.run("dvc", "remote", "modify", "storage", name, value)
    project.commit()
    project.run("git", "push", "--quiet", "origin", "HEAD:main")
    project.run("dvc", "push", **variables)


def clone(project, hub):
    other = Project(hub.with_name("clone"))
    project.run("git", "clone", "--quiet", "--branch=main", str(hub), str(other.path))
    return other


@pytest.mark.long
def test_another_s_experiment(reproduced, hub):
    """After `dvc exp push` and `pull`, a clone has the experiment, complete without a run."""
    publish(reproduced, str(hub.with_name("store")))
    reproduced.run("dvc", "exp", "run", "--name", "fine", "-S", "plot.dpi=60")
    reproduced.run("dvc", "exp", "push", "origin", "fine")
    other = clone(reproduced, hub)
    assert "fine" in other.run("dvc", "exp", "list", "origin", "--name-only").stdout
    other.run("dvc", "exp", "pull", "origin", "fine")
    other.run("dvc", "exp", "apply", "fine")
    other.run("dvc", "pull")
    done = other.run("dvc", "repro")
    assert re.findall(r"Stage '(\w+)' didn't change", done.stdout) == STAGES and not other.ran(
        done.stdout
    )
    assert "dpi: 60" in (other.path / "params.yaml").read_text()


@pytest.mark.long
def test_a_server_that_speaks_s3(reproduced, hub):
    """Through a bucket with endpoint, keys and prefix, `dvc pull` completes a clone."""
    pytest.importorskip("dvc_s3", reason="dependency group s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="dependency group s3 is not installed")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        keys = {
            "aws_access_key_id": "tester",
            "aws_secret_access_key": "secret",
            "region_name": "us-east-1",
        }
        s3 = boto3.client("s3", endpoint_url=address, **keys)
        s3.create_bucket(Bucket="results")
        publish(reproduced, "s3://results/cifar", ("endpointurl", address), **KEYS)
        reproduced.run("dvc", "push", "--run-cache", **KEYS)
        stored = [entry["Key"] for entry in s3.list_objects_v2(Bucket="results")["Contents"]]
        assert (
            stored
            and all(key.startswith("cifar/") for key in stored)
            and any("/runs/" in key for key in stored)
        )
        other = clone(reproduced, hub)
        other.run("dvc", "pull", "--run-cache", **KEYS)
        assert (
            re.findall(r"Stage '(\w+)' didn't change", other.run("dvc", "repro").stdout) == STAGES
        )
    finally:
        server.stop()


@pytest.mark.long
def test_the_report_of_a_pull_request(reproduced):
    """.ci/report compares the demo with that of the merge base, and changes nothing else.

    It can be run again. If the demo of the base fails, it says so and succeeds; without a demo of
    this branch it fails.
    """

    def commit(file, change):
        reproduced.edit(file, change)
        reproduced.commit()
        return reproduced.run("git", "rev-parse", "HEAD").stdout.strip()

    def accuracy(value):
        return "metrics/test.json", lambda text: re.sub(
            r'("accuracy": )[\d.]+', rf"\g<1>{value}", text
        )

    broken = commit("Makefile", lambda _: "demo:\n\tfalse\n")
    reference = '"refs/exps/$${id:0:2}/$${id:2}/digits"'  # the experiment is what is committed
    demo = f"demo:\n\tid=$$(git rev-parse HEAD); git update-ref {reference} HEAD\n"
    commit("Makefile", lambda _: f"SHELL := /bin/bash\n{demo}")
    fork = commit(*accuracy(0.25))
    base = commit(*accuracy(0.75))
    reproduced.run("git", "checkout", "--quiet", "-b", "mine", fork)
    mine = commit(*accuracy(0.5))
    reproduced.edit("params.yaml", lambda text: f"{text}# not committed\n")
    done = reproduced.run("bash", ".ci/report", base, "report.tmp", ok=False)
    assert done.returncode == 1 and done.stderr.startswith("error: no demo of ")
    reproduced.run("git", "update-ref", f"refs/exps/{mine[:2]}/{mine[2:]}/digits", mine)

    def state():
        return [
            reproduced.run("git", *words).stdout for words in (["show-ref"], ["status"], ["diff"])
        ]

    before, report = state(), reproduced.path / "report.tmp"
    for _ in range(2):
        reproduced.run("bash", ".ci/report", base, report.name)
        assert re.search(r"\| test.accuracy +\| 0.25 +\| 0.5 +\| 0.25 ", report.read_text())
        assert (
            "| network | epoch | lr |" in report.read_text() and "No demo" not in report.read_text()
        )
    reproduced.run("bash", ".ci/report", broken, report.name)
    assert "No demo at the base." in report.read_text()
    assert state() == before


def cached(project):
    """Maps each file of DVC's cache, whose name is its MD5 sum, to its actual MD5 sum."""
    store = project.path / ".dvc/cache/files/md5"
    return {
        file.parent.name + file.name.removesuffix(".dir"): hashlib.md5(
            file.read_bytes()
        ).hexdigest()
        for file in store.glob("??/*")
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_outputs_that_are_links_into_the_cache(reproduced, kind):
    """The stages read outputs that are links, but never write through them into the cache."""
    reproduced.run("dvc", "config", "cache.type", kind)
    reproduced.run("dvc", "checkout", "--relink")
    images = reproduced.path / "data/processed/train/images.npy"
    assert images.is_symlink() if kind == "symlink" else images.stat().st_nlink == 2
    before = cached(reproduced)
    weights = (reproduced.path / "models/model.safetensors").read_bytes()
    for options in (["-S", "train.dropout=0.3", "-S", "preprocess.normalize=unit"], ["--force"]):
        reproduced.run("dvc", "exp", "run", *options)
        reproduced.run("git", "checkout", "--quiet", "params.yaml")
    reproduced.run("dvc", "repro")
    assert (reproduced.path / "models/model.safetensors").read_bytes() == weights
    after = cached(reproduced)
    assert all(name == content for name, content in after.items())
    assert before.items() <= after.items()
