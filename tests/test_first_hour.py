"""The first hour of a new user: the demo, the next steps that it prints, a mistake, and its fix."""

import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
from browser import CHROMIUM, shown

WIDTH = 100  # columns of a terminal
NUMBER = r"-?[\d.]+(?:e-\d+)?"


def results(project):
    """Maps each file that a run leaves in the workspace to its content."""
    folders = [project.path / name for name in ("metrics", "models", "plots")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in [*files, project.path / "dvc.lock"]}


def steps(printed):
    """The commands that the demo prints: those to try next, and the way back to the commit."""
    tail = printed[printed.index("Next:\n") :]
    following, back = tail.split("To go back to the last commit", 1)
    commands = [re.split("  +", line.strip())[0] for line in following.splitlines()[1:]]
    return commands, back.splitlines()[1].strip()


def check_a_rejected_value(project):
    """The error says what is wrong and how to restore the results, which then takes no training."""
    before = results(project)
    bad = project.run("dvc", "exp", "run", "-S", "train.dropout=1.0", ok=False)
    assert bad.returncode != 0
    (line,) = [line for line in bad.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: train.dropout = 1.0: must be less than 1 (params.yaml): ")
    assert line.endswith("`dvc repro` with the previous values restores the previous results")
    assert "Traceback" not in bad.stderr
    assert results(project) != before, "DVC removes them before the stage can reject a value"
    project.edit("params.yaml", lambda text: text.replace("dropout: 1.0", "dropout: 0.3"))
    assert project.ran(project.run("dvc", "repro").stdout) == []
    assert results(project) == before


def check_the_page(printed, profile):
    """A browser without network shows every chart, and the images of both experiments."""
    page = Path(urlparse(printed.strip().splitlines()[-1]).path)
    assert "cdn.jsdelivr.net" not in page.read_text()
    if CHROMIUM:
        found = shown(page, profile)
        assert len(found["charts"]) >= 3
        assert min(found["charts"]) > 0
        assert set(found["pictures"]) == {2}
        assert (found["broken"], found["asked"], found["too_wide"]) == (0, [], False)


def check_the_table(printed, experiments):
    """Every line fits into the terminal, and every experiment has two accuracies."""
    lines = printed.splitlines()
    assert max(map(len, lines)) <= WIDTH
    rows = [re.match(r"[* ] ([\w-]+) +([\d.]+) % +([\d.]+) % +\S+$", line) for line in lines]
    assert len([row for row in rows if row]) == experiments
    assert "dropout" in printed


@pytest.mark.long
def test_a_rejected_value_costs_no_result(dropout_run, tmp_path):
    """After a rejected value, the error's advice restores model, metrics and plots."""
    check_a_rejected_value(dropout_run.project.copy(tmp_path / "project"))


@pytest.mark.long
def test_the_first_hour(project, tmp_path):
    """`make demo` in a fresh clone, every command that it prints, and a rejected value all work."""
    (project.path / ".venv").mkdir()
    (project.path / ".venv/.ready").touch()  # the packages of these tests are the environment
    before = (project.path / "params.yaml").read_bytes()

    demo = project.run("make", "demo")
    assert project.ran(demo.stdout) == ["fetch", "preprocess", "train", "evaluate", "plot"]
    assert "WARNING" not in demo.stdout + demo.stderr
    accuracy = re.search(r"^Test accuracy ([\d.]+)%, 95 % interval ", demo.stdout, re.MULTILINE)
    assert float(accuracy[1]) > 97
    assert (project.path / "report.html").is_file()
    assert "up to date" in project.run("dvc", "status").stdout
    following, back = steps(demo.stdout)
    activate, change, metrics, plots, show = following
    assert activate == "source .venv/bin/activate"

    changed = project.run(*change.split())
    assert project.ran(changed.stdout) == ["train", "evaluate", "plot"]
    assert "WARNING" not in changed.stdout + changed.stderr

    difference = project.run(*metrics.split()).stdout
    assert re.search(rf"^\S+ +test\.loss +{NUMBER} +{NUMBER} +{NUMBER}$", difference, re.MULTILINE)

    check_the_page(project.run(*plots.split()).stdout, tmp_path / "profile")
    check_the_table(project.run(*show.split(), COLUMNS=str(WIDTH)).stdout, experiments=2)
    check_a_rejected_value(project)

    project.run("bash", "-ec", back)
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert (project.path / "params.yaml").read_bytes() == before
