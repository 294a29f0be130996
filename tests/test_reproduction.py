"""`dvc repro` gives the same bytes, wherever and whenever it runs, and whatever interrupts it."""

import contextlib
import datetime
import re
import socket
import subprocess
import time

import psutil
import pytest
from conftest import RESULTS, Project

from cifar import files

STAGES = ["fetch", "preprocess", "train", "evaluate", "plot"]
# Python loads this at its start: each stage then sees a date ten years later and another host.
ELSEWHERE = """
import os, socket, time
if "DVC_STAGE" in os.environ:
    LATER = 10 * 365.25 * 86400
    now, host, uname = time.time, "elsewhere", os.uname()
    time.time = lambda: now() + LATER
    time.time_ns = lambda: int(time.time() * 1e9)
    for name in ("localtime", "gmtime", "ctime"):
        plain = getattr(time, name)
        setattr(time, name, lambda seconds=None, plain=plain: plain(seconds or time.time()))
    socket.gethostname = lambda: host
    os.uname = lambda: type(uname)((uname[0], host, *uname[2:]))
"""
# Python loads this at its start: DVC can then not be imported.
WITHOUT_DVC = """
import sys
sys.modules["dvc"] = None
"""
# Python loads this at its start: a training then stops before it renames its first checkpoint.
AT_CHECKPOINT = """
import os, signal, sys
if os.environ.get("DVC_STAGE") == "train":
    first = [None]
    def hook(event, args):
        if event == "os.rename" and os.fsdecode(args[1]).endswith(".pt") and first:
            first.pop()
            os.kill(os.getpid(), signal.SIGSTOP)
    sys.addaudithook(hook)
"""


def python_with(folder, code):
    """The environment variable that makes every Python process run this code first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def outputs(project):
    """Maps the path of each file that the stages write to its sha256 sum."""
    paths = [path for folder in RESULTS for path in (project.path / folder).rglob("*")]
    return {
        path.relative_to(project.path).as_posix(): files.sha256(path)
        for path in paths
        if path.is_file() and path.name != ".gitignore"
    }


def clean(project):
    """Whether all outputs, tracked by Git or recorded in dvc.lock, are those of the last commit."""
    return project.run("git", "status", "--porcelain").stdout == ""


def test_the_same_inputs_give_the_same_bytes(first_run, tmp_path):
    """Run again in another environment, every stage gives the bytes that dvc.lock records.

    The folder, hash seed, time zone, language, date and host name are different.
    """
    project = first_run.project.copy(tmp_path / "an other place")
    there = python_with(tmp_path / "later", ELSEWHERE)
    there |= {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "tr_TR.UTF-8"}
    script = "import os, time; print(time.localtime().tm_year, os.uname().nodename)"
    year = datetime.datetime.now().year
    assert (
        project.run("python", "-c", script, DVC_STAGE="x", **there).stdout
        == f"{year + 10} elsewhere\n"
    )
    done = project.run("dvc", "repro", "--force", **there)
    assert project.ran(done.stdout) == STAGES
    assert clean(project)


@pytest.mark.long
def test_the_stages_do_without_dvc(first_run, tmp_path):
    """The stages give the bytes of `dvc repro` even if DVC cannot be imported."""
    project = Project(tmp_path / "project")
    first_run.project.run("git", "clone", "--quiet", ".", str(project.path))
    for path in outputs(project):  # metrics and tables, which Git keeps
        (project.path / path).unlink()
    alone = python_with(tmp_path / "alone", WITHOUT_DVC)
    assert project.run("python", "-c", "import dvc", ok=False, **alone).returncode
    for stage in STAGES:
        project.run("python", "-m", f"stages.{stage}", **alone)
    expected = outputs(first_run.project)
    assert len(expected) > 25
    assert outputs(project) == expected


def test_no_output_holds_a_time_a_path_or_a_host(first_run):
    """The outputs contain no value that differs between two equal runs."""
    project = first_run.project
    today = datetime.datetime.now()
    words = [
        str(project.path),
        str(project.path.parent),
        socket.gethostname(),
        today.strftime("%Y-%m-%d"),
    ]
    words += [today.strftime(form) for form in ("%d.%m.%Y", "%b %d", "%Y:%m:%d", "%d %b")]
    seen = 0
    for folder in ("data", "models", "metrics", "plots"):
        for path in (path for path in (project.path / folder).rglob("*") if path.is_file()):
            content = path.read_bytes()
            assert not [word for word in words if len(word) > 3 and word.encode() in content], path
            if path.suffix == ".png":
                chunks = set(re.findall(rb"IHDR|tIME|tEXt|iTXt|zTXt|eXIf", content))
                assert chunks == {b"IHDR"}, path
            seen += 1
    assert seen > 25


@pytest.fixture
def halted(reproduced, tmp_path):
    """The processes of a `dvc repro` and of its training, which is stopped after an epoch."""
    environment = reproduced.environment(**python_with(tmp_path / "start", AT_CHECKPOINT))
    command = ("dvc", "repro", "--force", "--single-item", "train")
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dvc = subprocess.Popen(command, cwd=reproduced.path, env=environment, **streams)
    try:
        yield dvc, wait(lambda: stopped(dvc))
    finally:
        reproduced.end()
        dvc.wait()


def stopped(dvc):
    for process in psutil.Process(dvc.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may just have ended
            if process.status() == psutil.STATUS_STOPPED:
                return process
    return None


def ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait(condition, seconds=1200):
    """Wait until the condition returns a true value, and return that value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.fault
def test_two_repros_at_once(halted, reproduced):
    """While `dvc repro` trains, DVC refuses a second one; the first gives the right bytes."""
    dvc, training = halted
    second = reproduced.run("dvc", "repro", "--force", "--single-item", "train", ok=False)
    assert second.returncode and not reproduced.ran(second.stdout)
    assert "is busy, it is being blocked by" in second.stderr and "Traceback" not in second.stderr
    training.resume()
    assert dvc.wait(120) == 0
    assert clean(reproduced)


@pytest.mark.fault
def test_dvc_is_killed_and_its_training_lives_on(halted, reproduced):
    """If only `dvc` is killed, its training continues, and the next `dvc repro` waits for it.

    It then uses the finished training, and gives the right bytes.
    """
    dvc, training = halted
    dvc.kill()
    dvc.wait()
    command = ["dvc", "repro", "--force", "--single-item", "train"]
    options = {"cwd": reproduced.path, "env": reproduced.environment(), "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as second:
        next(line for line in second.stdout if line.startswith("waiting for the training"))
        training.resume()
        printed = second.stdout.read()
    assert second.returncode == 0
    assert "trained already" in printed and "epoch 1/" not in printed
    assert clean(reproduced)


@pytest.mark.fault
def test_a_comment_in_the_code_ends_at_the_model(reproduced):
    """After a new comment, training gives the same weights, so neither evaluate nor plot runs."""
    reproduced.edit("cifar/training/progress.py", lambda text: f"{text}# A comment.\n")
    done = reproduced.run("dvc", "repro")
    assert reproduced.ran(done.stdout) == ["train"]
    changed = reproduced.run("git", "diff", "--unified=0", "dvc.lock").stdout
    assert "models/model.json" not in changed or "model.safetensors" not in changed


@pytest.mark.fault
@pytest.mark.long
def test_two_queued_experiments_share_one_training(reproduced):
    """Two experiments that differ only in `evaluate` share one training, and both succeed."""
    try:
        reproduced.run(
            "dvc", "exp", "run", "--queue", "-S", "evaluate.tta=none,flip", "-S", "train.epochs=40"
        )
        start_queue(reproduced, "--jobs", "2")
        status = ("dvc", "queue", "status")
        wait(lambda: reproduced.run(*status).stdout.count("Success") == 2, 600)
        tasks = re.findall(r"^([0-9a-f]{7}) ", reproduced.run(*status).stdout, re.MULTILINE)
        logs = [reproduced.run("dvc", "queue", "logs", task).stdout for task in tasks]
        assert sorted("trained already, 40 epochs" in log for log in logs) == [False, True]
    finally:
        reproduced.run("dvc", "queue", "stop", "--kill", ok=False)
        reproduced.end()
    left = [path for path in (reproduced.path / ".checkpoints").iterdir() if path.is_dir()]
    assert len(left) <= 1


@pytest.mark.fault
@pytest.mark.long
def test_a_queued_experiment_is_killed_and_queued_again(reproduced):
    """A queued training that is killed and queued again resumes, and gives the right dvc.lock.

    The checkpoint is in the user's repository, not in the folder of the queued run.
    """
    options = [
        f"-Strain.{option}"
        for option in ("epochs=60", "ensemble=2", "ema=0.9", "schedule=plateau", "keep=best")
    ]
    try:
        reproduced.run("dvc", "exp", "run", "--queue", "--name", "first", *options)
        start_queue(reproduced)
        wait(
            lambda: list((reproduced.path / ".checkpoints").glob("*/0.pt")),
            200,
        )
        training(reproduced).kill()
        wait(
            lambda: re.search(r"first .*Failed", reproduced.run("dvc", "queue", "status").stdout),
            200,
        )
        reproduced.run("dvc", "exp", "run", "--queue", "--name", "second", *options)
        # The first worker may be about to end and then starts nothing, so start it again.
        wait(
            lambda: (
                start_queue(reproduced) or "/second\n" in reproduced.run("git", "show-ref").stdout
            ),
            600,
        )
        logs = reproduced.run("dvc", "queue", "logs", "second").stdout
    finally:
        reproduced.run("dvc", "queue", "stop", "--kill", ok=False)
        reproduced.end()
    assert "resuming an interrupted run after epoch" in logs
    reproduced.run("dvc", "exp", "run", "--name", "whole", "--force", *options)
    refs = [line.split() for line in reproduced.run("git", "show-ref").stdout.splitlines()]
    commits = {name.rpartition("/")[2]: commit for commit, name in refs}
    locks = [
        reproduced.run("git", "show", f"{commits[name]}:dvc.lock").stdout
        for name in ("second", "whole")
    ]
    assert locks[0] == locks[1]


def start_queue(project, *options):
    """Start the queue, and ignore its output, which the worker keeps open until the end."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        ["dvc", "queue", "start", *options],
        cwd=project.path,
        env=project.environment(),
        check=True,
        **streams,
    )


def training(project):
    """The process of a training that runs in a folder within the project."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        inside = process.info["cwd"] and process.info["cwd"].startswith(str(project.path))
        if inside and process.info["cmdline"][1:] == ["-m", "stages.train"]:
            return process
    raise AssertionError("no training runs")
