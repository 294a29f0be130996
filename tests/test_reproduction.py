"""The same bytes from `dvc repro`, wherever and whenever it runs, and whatever happens to it on the way."""

import contextlib
import datetime
import re
import socket
import subprocess
import time

import psutil
import pytest

STAGES = ["fetch", "preprocess", "train", "evaluate", "plot"]
# Loaded by Python at its start. In every stage it is ten years later, and the machine has another name.
ELSEWHERE = """
import os, socket, time
if "DVC_STAGE" in os.environ:
    LATER = 10 * 365.25 * 86400
    now, host, uname = time.time, "elsewhere", os.uname()
    time.time = lambda: now() + LATER
    time.time_ns = lambda: int(time.time() * 1e9)
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, lambda seconds=None, plain=getattr(time, name): plain(seconds or time.time()))
    socket.gethostname = lambda: host
    os.uname = lambda: type(uname)((uname[0], host, *uname[2:]))
"""
# A training that stands still when its first checkpoint is to get its name.
AT_CHECKPOINT = """
import os, signal, sys
if os.environ.get("DVC_STAGE") == "train":
    first = [None]
    def hook(event, args):
        if event == "os.rename" and ".checkpoints" in os.fsdecode(args[1]) and first:
            first.pop()
            os.kill(os.getpid(), signal.SIGSTOP)
    sys.addaudithook(hook)
"""


def python_with(folder, code):
    """The variable that makes every Python run this code first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def clean(project):
    """Whether every output that Git or dvc.lock knows is the one of the last commit."""
    return project.run("git", "status", "--porcelain").stdout == ""


def test_the_same_inputs_give_the_same_bytes(first_run, tmp_path):
    """Every stage again, in another folder, with another hash seed, time zone, language, date and host name: no output
    changes by a bit, and dvc.lock stays as it is."""
    project = first_run.project.copy(tmp_path / "an other place")
    there = python_with(tmp_path / "later", ELSEWHERE)
    there |= {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "tr_TR.UTF-8"}
    script = "import platform, time; print(time.localtime().tm_year, platform.node())"
    year = datetime.datetime.now().year
    assert (
        project.run("python", "-c", script, DVC_STAGE="x", **there).stdout
        == f"{year + 10} elsewhere\n"
    )
    done = project.run("dvc", "repro", "--force", **there)
    assert project.ran(done.stdout) == STAGES
    assert clean(project)


def test_no_output_holds_a_time_a_path_or_a_host(first_run):
    """Nothing that differs between two equal runs stands in what the stages write."""
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
    """`dvc repro` of a training that stands still after its first epoch: dvc's process and that of the training."""
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
    """What the condition gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.fault
def test_two_repros_at_once(halted, reproduced):
    """While `dvc repro` trains, a second one is refused and runs nothing, and the first ends with the right bytes."""
    dvc, training = halted
    second = reproduced.run("dvc", "repro", "--force", "--single-item", "train", ok=False)
    assert second.returncode and not reproduced.ran(second.stdout)
    assert "is busy, it is being blocked by" in second.stderr and "Traceback" not in second.stderr
    training.resume()
    assert dvc.wait(120) == 0
    assert clean(reproduced)


@pytest.mark.fault
def test_dvc_is_killed_and_its_training_lives_on(halted, reproduced):
    """When `dvc` alone is killed, its training ends nothing but itself: meanwhile another one is refused in one line,
    and afterwards `dvc repro` gives the right bytes."""
    dvc, training = halted
    dvc.kill()
    dvc.wait()
    command = ("dvc", "repro", "--force", "--single-item", "train")
    second = reproduced.run(*command, ok=False)
    lines = [line for line in second.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and lines[0].startswith(
        "error: another training of this experiment or in this folder runs"
    )
    assert "Traceback" not in second.stderr
    training.resume()
    wait(lambda: ended(training))
    reproduced.run(*command)
    assert clean(reproduced)


@pytest.mark.fault
@pytest.mark.long
def test_a_queued_experiment_is_killed_and_queued_again(reproduced):
    """A queued training that is killed fails its experiment; queued again it goes on in its new folder, from the
    checkpoint in the user's repository, and ends with the lock file of an undisturbed run."""
    options = [
        f"-Strain.{option}"
        for option in ("epochs=60", "ensemble=2", "ema=0.9", "schedule=plateau", "keep=best")
    ]
    try:
        reproduced.run("dvc", "exp", "run", "--queue", "--name", "first", *options)
        start_queue(reproduced)
        wait(
            lambda: [
                path
                for path in (reproduced.path / ".checkpoints").iterdir()
                if len(path.name) == 32
            ],
            200,
        )
        training(reproduced).kill()
        wait(
            lambda: re.search(r"first .*Failed", reproduced.run("dvc", "queue", "status").stdout),
            200,
        )
        reproduced.run("dvc", "exp", "run", "--queue", "--name", "second", *options)
        # The worker of the first one may be about to end, and then starts nothing: ask again.
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
    assert "going on after epoch" in logs
    reproduced.run("dvc", "exp", "run", "--name", "whole", "--force", *options)
    refs = [line.split() for line in reproduced.run("git", "show-ref").stdout.splitlines()]
    commits = {name.rpartition("/")[2]: commit for commit, name in refs}
    locks = [
        reproduced.run("git", "show", f"{commits[name]}:dvc.lock").stdout
        for name in ("second", "whole")
    ]
    assert locks[0] == locks[1]


def start_queue(project):
    """Its worker keeps the output open until the queue is empty, so nobody listens to it."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(
        ["dvc", "queue", "start"],
        cwd=project.path,
        env=project.environment(),
        check=True,
        **streams,
    )


def training(project):
    """The process of a training in a folder within the project."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        inside = process.info["cwd"] and process.info["cwd"].startswith(str(project.path))
        if inside and process.info["cmdline"][1:] == ["-m", "stages.train"]:
            return process
    raise AssertionError("no training runs")
