"""Sweeps through DVC's queue on small digits, and how `tools.compare` shows them."""

import csv
import re
import time

import pytest
from conftest import Run, once

from cifar import UserError
from tools import compare


def work_off(project, experiments):
    """Start the queue and wait for the experiments; maps each name to what it printed."""
    try:
        # The worker keeps its standard output open, so it is redirected.
        project.run("bash", "-c", "dvc queue start > /dev/null 2>&1")
        deadline = time.monotonic() + 3600  # however busy the machine is
        while len(names := finished(project)) < experiments:
            status = project.run("dvc", "queue", "status", ok=False).stdout
            assert time.monotonic() < deadline, status
            time.sleep(0.5)
        return {name: project.run("dvc", "queue", "logs", name, ok=False).stdout for name in names}
    finally:
        project.run("dvc", "queue", "stop", "--kill", ok=False)
        project.end()


def finished(project):
    """The names of the experiments that a project has."""
    return re.findall(r"refs/exps/\w\w/\w+/(\S+)", project.run("git", "show-ref").stdout)


@pytest.fixture(scope="session")
def sweep(dropout_run, tmp_path_factory):
    """Two dropouts times two seeds, queued and done; one that failed; and one still queued."""

    def make(folder):
        project = dropout_run.project.copy(folder / "project")
        project.run("git", "checkout", "--quiet", ".")
        project.run(
            "dvc", "exp", "run", "--queue", "--name", "wrong", "-S", "fetch.dataset=nothing"
        )
        project.run(
            "dvc",
            "exp",
            "run",
            "--queue",
            "-S",
            "train.dropout=0.0,0.3",
            "-S",
            "seed=range(2)",
            "evaluate",
        )
        logs = work_off(project, 5)
        project.run("dvc", "exp", "run", "--queue", "--name", "waiting", "-S", "seed=9")
        (folder / "output").write_text("\n".join(logs.values()))

    folder = once(tmp_path_factory, "sweep", make)
    return Run(type(dropout_run.project)(folder / "project"), (folder / "output").read_text())


def compare_in(project, *words):
    return project.run("python", "-m", "tools.compare", *words).stdout


@pytest.mark.long
def test_a_sweep_trains_and_nothing_else(sweep):
    """Queued runs take data and earlier trainings from DVC's cache: two of four train."""
    assert sorted(sweep.project.ran(sweep.output)) == ["evaluate", "evaluate", "train", "train"]
    assert sweep.output.count("Stage 'preprocess' didn't change, skipping") == 4


@pytest.mark.long
def test_groups_over_seeds(sweep, tmp_path):
    """By default there is a row for each dropout, best first; runs left out are listed."""
    path, picture = tmp_path / "table.csv", tmp_path / "picture.png"
    printed = compare_in(sweep.project, "--csv", str(path), "--plot", str(picture))
    with path.open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["dataset"] for row in rows} == {"digits"} and "\ndigits\n" in printed
    counts = {row["group"]: row["n"] for row in rows}
    assert counts == {"train.dropout=0": "2", "train.dropout=0.3": "2"}
    means = [float(row["mean"]) for row in rows]
    assert means == sorted(means, reverse=True)
    for row in rows:
        line = rf"^ *{100 * float(row['mean']):.2f} % .* 2  {row['group']}$"
        assert re.search(line, printed, re.MULTILINE)
    assert "left out, failed: wrong" in printed and "left out, queued: waiting" in printed
    (again,) = re.findall(r"not counted, the same run again: (.*)", printed)
    assert set(again.split(", ")) >= {"HEAD", "workspace"} and len(again.split(", ")) == 3
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_two_groups_and_two_runs(sweep):
    """Two groups are compared over seeds and per image, consistent with their accuracies."""
    printed = compare_in(sweep.project, "train.dropout=0.0", "train.dropout=0.3")
    line = r"^train.dropout=0.3 minus .* points, 95 % interval .* \(Welch\)$"
    assert re.search(line, printed, re.MULTILINE)
    assert printed.count("on the same test images") == 2
    assert "left out, failed: wrong" in printed
    words = ("--metric", "val.accuracy", "train.dropout=0", "train.dropout=0.3")
    assert "same test images" not in compare_in(sweep.project, *words)
    printed = compare_in(sweep.project, "HEAD", "more", "--markdown")
    pattern = r"^\| ([\d.]+) % \| - \| one run: none \| 1 \| (\w+) \|$"
    rows = {name: float(mean) for mean, name in re.findall(pattern, printed, re.MULTILINE)}
    (only,) = re.findall(r"HEAD alone is right on (\d+), more alone on (\d+)", printed)
    images = 200
    assert int(only[1]) - int(only[0]) == round((rows["more"] - rows["HEAD"]) * images / 100)
    assert sweep.project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["HEAD", "train.dropuot=0.3"],
            "no group or experiment matches train.dropuot=0.3 (did you mean train.dropout=0.3?)",
        ),
        (["HEAD"], "1 group given (command line): pass two groups"),
        (["--metric", "test.acuracy"], "no run has test.acuracy (--metric): choose one of "),
        (["HEAD", "HEAD"], "HEAD is given twice"),
        (["HEAD", "workspace"], "HEAD and workspace share a run, HEAD as workspace"),
        (["train.dropout=0", "HEAD"], "train.dropout=0 and HEAD share a run, "),
        (
            ["train.dropout=0", "train.dropout=0.0"],
            "train.dropout=0 and train.dropout=0.0 share a run, ",
        ),
        (["--over", "sed"], "no parameter sed (did you mean seed?)"),
    ],
)
def test_what_cannot_be_compared(sweep, words, message, monkeypatch):
    """A missing group, metric or parameter is an error that names it."""
    monkeypatch.chdir(sweep.project.path)
    monkeypatch.setattr("sys.argv", ["compare", *words])
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        compare.main()


@pytest.mark.long
def test_nothing_to_compare(project):
    """Before the first run, a one-line error says how to start one."""
    for path in (project.path / "metrics").glob("*.json"):
        path.unlink()
    (project.path / "note").write_text("without the committed result\n")
    project.commit()
    done = project.run("python", "-m", "tools.compare", ok=False)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: no finished run") and len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_folds(reproduced):
    """The loop over folds in docs/experiments.md runs, here with two, and gives their mean."""
    page = (reproduced.path / "docs/experiments.md").read_text()
    (loop,) = re.findall(r"^    (for fold in .*; done)$", page, re.MULTILINE)
    loop = (
        loop.replace("0 1 2 3 4", "0 1")
        .replace("folds=5", "folds=2")
        .replace("fold=$fold;", "fold=$fold evaluate;")
    )
    reproduced.run("bash", "-ec", loop)
    logs = work_off(reproduced, 2)
    ran = [reproduced.ran(log) for log in logs.values()]
    assert ran == [["preprocess", "train", "evaluate"]] * 2
    printed = compare_in(reproduced, "--over", "preprocess.fold", "--metric", "val.accuracy")
    assert re.search(r" to .* % +2  preprocess.folds=2$", printed, re.MULTILINE)
