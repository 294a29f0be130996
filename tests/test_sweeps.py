"""Sweeps through DVC's queue, and what `python -m tools.compare` makes of them, on small digits."""

import csv
import re
import time

import pytest
from conftest import Run, once

from cifar import UserError
from tools import compare


def work_off(project, experiments):
    """Start the queue and wait until so many experiments are there; what a queued run printed, by its name."""
    try:
        project.run(
            "bash", "-c", "dvc queue start > /dev/null 2>&1"
        )  # the worker keeps what it could print to
        deadline = time.monotonic() + 6000
        while (
            len(
                names := re.findall(
                    r"refs/exps/\w\w/\w+/(\S+)", project.run("git", "show-ref").stdout
                )
            )
            < experiments
        ):
            assert time.monotonic() < deadline, project.run(
                "dvc", "queue", "status", ok=False
            ).stdout
            time.sleep(0.5)
        return {name: project.run("dvc", "queue", "logs", name, ok=False).stdout for name in names}
    finally:
        project.run("dvc", "queue", "stop", "--kill", ok=False)
        project.end()


@pytest.fixture(scope="session")
def sweep(dropout_run, tmp_path_factory):
    """Two dropouts times two seeds, queued and worked off, after one that fails; and one that waits."""

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


def test_a_sweep_trains_and_nothing_else(sweep):
    """Queued runs take the data from DVC's cache, and trainings done before from there, too: of four runs two train."""
    assert sorted(sweep.project.ran(sweep.output)) == ["evaluate", "evaluate", "train", "train"]
    assert sweep.output.count("Stage 'preprocess' didn't change, skipping") == 4


def test_groups_over_seeds(sweep, tmp_path):
    """Without names: a row for each dropout, best first, of two seeds each; what failed or waits is said."""
    table, picture = tmp_path / "table.csv", tmp_path / "picture.png"
    done = sweep.project.run(
        "python", "-m", "tools.compare", "--csv", str(table), "--plot", str(picture)
    )
    with table.open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["group"]: row["n"] for row in rows} == {
        "train.dropout=0": "2",
        "train.dropout=0.3": "2",
    }
    means = [float(row["mean"]) for row in rows]
    assert means == sorted(means, reverse=True)
    for row in rows:
        assert re.search(
            rf"^ *{100 * float(row['mean']):.2f} % .* 2  {row['group']}$", done.stdout, re.MULTILINE
        )
    assert "left out, failed: wrong" in done.stdout and "left out, queued: waiting" in done.stdout
    assert (
        done.stdout.count("not counted, the same run again: ") == 3
    )  # `more`, HEAD and the workspace
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_groups_and_two_runs(sweep):
    """The difference of two groups over their seeds, and of each seed on its images: as much as accuracy says."""
    done = sweep.project.run(
        "python", "-m", "tools.compare", "train.dropout=0.0", "train.dropout=0.3"
    )
    assert re.search(
        r"^train.dropout=0.3 minus .* points, 95 % interval .* \(Welch\)$",
        done.stdout,
        re.MULTILINE,
    )
    assert (
        done.stdout.count("on the same test images") == 2
        and "left out, failed: wrong" in done.stdout
    )
    words = ("--metric", "val.accuracy", "train.dropout=0", "train.dropout=0.3")
    assert (
        "same test images" not in sweep.project.run("python", "-m", "tools.compare", *words).stdout
    )
    done = sweep.project.run("python", "-m", "tools.compare", "HEAD", "more", "--markdown")
    rows = dict(
        re.findall(
            r"^\| ([\d.]+) % \| - \| one run: none \| 1 \| (\w+) \|$", done.stdout, re.MULTILINE
        )
    )
    (more, head) = (float(accuracy) for accuracy in sorted(rows, key=rows.get, reverse=True))
    (only,) = re.findall(r"HEAD alone is right on (\d+), more alone on (\d+)", done.stdout)
    assert int(only[1]) - int(only[0]) == round((more - head) * 200 / 100)
    assert sweep.project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["HEAD", "train.dropuot=0.3"],
            "no group or experiment train.dropuot=0.3 (did you mean train.dropout=0.3?)",
        ),
        (["HEAD"], "one group named"),
        (["--metric", "test.acuracy"], "no run has test.acuracy (--metric): there are "),
        (["HEAD", "HEAD"], "HEAD twice"),
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
    """A group, a metric or a parameter that is not there is an error that names the mistake."""
    monkeypatch.chdir(sweep.project.path)
    monkeypatch.setattr("sys.argv", ["compare", *words])
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        compare.main()


def test_nothing_to_compare(project):
    """Before the first run there is one line that says how to make one."""
    done = project.run("python", "-m", "tools.compare", ok=False)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: no finished run") and len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_folds_of_the_readme(reproduced):
    """The README's loop over folds, with two of them, and their mean: each is validated on its own part."""
    page = (reproduced.path / "README.md").read_text()
    (loop,) = re.findall(r"^    (for fold in .*; done)$", page, re.MULTILINE)
    loop = (
        loop.replace("0 1 2 3 4", "0 1")
        .replace("folds=5", "folds=2")
        .replace("fold=$fold;", "fold=$fold evaluate;")
    )
    reproduced.run("bash", "-ec", loop)
    logs = work_off(reproduced, 2)
    assert [reproduced.ran(log) for log in logs.values()] == [
        ["preprocess", "train", "evaluate"]
    ] * 2
    command = (
        "python",
        "-m",
        "tools.compare",
        "--over",
        "preprocess.fold",
        "--metric",
        "val.accuracy",
    )
    assert re.search(
        r" to .* % +2  preprocess.folds=2$", reproduced.run(*command).stdout, re.MULTILINE
    )
