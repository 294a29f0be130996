"""The commands that a user types, in scratch copies of the repository, on small digits."""

import json
import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from cifar.leftovers import leftover

PIPELINE = YAML(typ="safe").load((Path(__file__).parent.parent / "dvc.yaml").read_text())
STAGES = list(PIPELINE["stages"])
COMPARED = {
    "test.accuracy",
    "test.loss",
    "val.accuracy",
    "val.loss",
    "train.accuracy",
    "train.loss",
}


def params(project):
    return YAML(typ="safe").load((project.path / "params.yaml").read_text())


def same(output):
    """The stages that a dvc command skipped because nothing had changed."""
    return re.findall(r"Stage '(\w+)' didn't change, skipping", output)


def restored(output):
    """The stages whose outputs a dvc command restored from the run-cache."""
    return re.findall(r"Stage '(\w+)' is cached - skipping run", output)


def charts(project, *command):
    """Maps the title of each chart of a dvc command, or an image's path, to its entries."""
    data = json.loads(project.run("dvc", "plots", *command, "--json").stdout)["data"]
    titled = {}
    for name, entries in data.items():
        first = entries[0]
        titled[name if first["type"] == "image" else first["content"]["title"]["text"]] = entries
    return titled


def rows(entries):
    return [row for entry in entries for row in entry["content"]["data"]["values"]]


def test_the_second_repro_runs_nothing(first_run, reproduced):
    """`dvc repro` in a fresh clone runs all stages; the next one none, with light imports."""
    assert first_run.project.ran(first_run.output) == STAGES
    done = reproduced.run("dvc", "repro", PYTHONPROFILEIMPORTTIME="1")
    assert same(done.stdout) == STAGES
    loaded = set(re.findall(r"\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "dvc" in loaded and not loaded & {
        "torch",
        "torchvision",
        "matplotlib",
        "pandas",
        "sklearn",
    }


def test_files_of_file_managers_rerun_nothing(reproduced):
    """What a file manager or a notebook leaves in a data folder changes no dependency."""
    lines = (reproduced.path / ".dvcignore").read_text().splitlines()
    patterns = [
        line for line in lines if line and not line.startswith(("#", "__pycache__", "*.pyc"))
    ]
    assert len(patterns) > 10
    for folder in ("data/fetched", "data/processed/train"):
        for pattern in patterns:
            name = pattern.replace("*", "0001").replace("._0001", "._images.npy")
            path = reproduced.path / folder / (f"{name}x.py" if name.endswith("/") else name)
            path.parent.mkdir(exist_ok=True)
            path.write_text("not data")
            assert leftover(name.rstrip("/"))
    assert same(reproduced.run("dvc", "repro").stdout) == STAGES
    assert reproduced.run("git", "status", "--porcelain").stdout == ""


def test_a_parameter_changes_the_stage_of_its_section(reproduced):
    """A change in a section reruns only the stage of that name; the seed reruns train."""
    values = params(reproduced) | {"seed": 1}
    for section in STAGES:
        values[section] |= {list(values[section])[-1]: "other"}
    with (reproduced.path / "params.yaml").open("w") as handle:
        YAML().dump(values, handle)
    status = json.loads(reproduced.run("dvc", "status", "--json").stdout)
    changed = {
        stage: set(change["changed deps"]["params.yaml"]) for stage, (change,) in status.items()
    }
    assert changed == {
        stage: {stage} | ({"seed"} if stage == "train" else set()) for stage in STAGES
    }


def test_a_training_parameter_reruns_training_and_what_follows(dropout_run):
    """`dvc exp run -S train.dropout=0.3` runs train, evaluate and plot, but no earlier stage."""
    assert dropout_run.project.ran(dropout_run.output) == STAGES[STAGES.index("train") :]
    assert same(dropout_run.output) == STAGES[: STAGES.index("train")]


def test_metrics_and_parameters_are_compared_with_the_last_commit(dropout_run):
    """`dvc metrics` and `dvc params` show and compare the numbers and the changed parameter."""
    project = dropout_run.project
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    numbers = {
        f"{part}.{name}"
        for file in shown.values()
        for part in ("train", "val", "test")
        for name in file["data"].get(part, {})
    }
    assert numbers >= COMPARED
    metrics = json.loads(project.run("dvc", "metrics", "diff", "--json").stdout)
    changes = {name: change for file in metrics.values() for name, change in file.items()}
    assert (
        set(changes) >= {"train.loss", "val.loss", "test.loss"}
        and changes["train.loss"]["diff"] != 0
    )
    parameters = json.loads(project.run("dvc", "params", "diff", "--json").stdout)["params.yaml"]
    assert list(parameters) == ["train.dropout"] and parameters["train.dropout"]["new"] == 0.3


def test_plots_show_what_there_is_to_see(dropout_run):
    """`dvc plots show` draws loss and accuracy of both parts, the learning rate and every image."""
    shown = charts(dropout_run.project, "show")
    for title in ("Loss", "Accuracy"):
        series = {row["field"] for row in rows(shown[title])}
        assert series == {f"train_{title.lower()}", f"val_{title.lower()}"}
    assert all(float(row["lr"]) > 0 for row in rows(shown["Learning rate"]))
    pictures = [
        path
        for stage in PIPELINE["stages"].values()
        for path in stage.get("plots", [])
        if "png" in path
    ]
    assert pictures and set(pictures) <= set(shown)


def test_plots_diff_draws_both_versions_in_one_chart(dropout_run, tmp_path):
    """`dvc plots diff HEAD` draws both revisions in every chart, on one page."""
    compared = charts(dropout_run.project, "diff", "HEAD", "--out", str(tmp_path / "page"))
    for title, entries in compared.items():
        assert {name for entry in entries for name in entry["revisions"]} == {
            "workspace",
            "HEAD",
        }, title
    assert (
        len({tuple(row.values()) for row in rows(compared["Loss"]) if row["rev"] == "HEAD"}) == 4
    )  # 2 epochs
    dropout_run.project.run("dvc", "plots", "diff", "HEAD", "--out", str(tmp_path / "page"))
    page = (tmp_path / "page/index.html").read_text()
    assert all(f'"{title}"' in page for title in ("Loss", "Accuracy", "Learning rate"))


def test_going_back_is_free_and_experiments_are_comparable(dropout_run, tmp_path):
    """The earlier dropout restores the earlier results without training; experiments compare."""
    project = dropout_run.project.copy(tmp_path / "project")
    dropout = YAML(typ="safe").load(project.run("git", "show", "HEAD:params.yaml").stdout)["train"][
        "dropout"
    ]
    done = project.run("dvc", "exp", "run", "--name", "back", "-S", f"train.dropout={dropout}")
    assert project.ran(done.stdout) == []
    assert restored(done.stdout) == STAGES[STAGES.index("train") :]
    assert project.run("git", "status", "--porcelain").stdout == ""

    table = project.run("dvc", "metrics", "diff", "more", "back", "--all", "--md").stdout
    assert {
        cells[2].strip() for line in table.splitlines() if len(cells := line.split("|")) > 2
    } >= COMPARED
    parameters = json.loads(project.run("dvc", "params", "diff", "more", "back", "--json").stdout)[
        "params.yaml"
    ]
    assert (
        parameters["train.dropout"]["old"] == 0.3 and parameters["train.dropout"]["new"] == dropout
    )
    text = project.run("dvc", "exp", "show", "--csv", "--only-changed", "--drop", ".*/").stdout
    columns = text.splitlines()[0].split(",")
    assert set(columns) >= {"Experiment", "train.loss", "val.loss", "test.loss", "train.dropout"}
    assert not [name for name in columns if "/" in name]


@pytest.mark.long
def test_code_that_changes_no_result_stops_there(reproduced):
    """An edit of code that changes no output reruns only its stage; a new network reruns none."""
    reproduced.edit("stages/evaluate.py", lambda text: text + "# another remark\n")
    (reproduced.path / "cifar/models/another.py").write_text("raise SystemExit('not chosen')\n")
    done = reproduced.run("dvc", "repro")
    assert reproduced.ran(done.stdout) == ["evaluate"]
    assert same(done.stdout) == [stage for stage in STAGES if stage != "evaluate"]


def test_a_misspelt_parameter_is_refused_by_dvc(reproduced):
    """`-S train.droput=0.3` runs nothing and leaves params.yaml unchanged."""
    done = reproduced.run("dvc", "exp", "run", "-S", "train.droput=0.3", ok=False)
    assert done.returncode and "droput" in done.stderr and not reproduced.ran(done.stdout)
    assert reproduced.run("git", "status", "--porcelain").stdout == ""


def test_bad_parameters_are_refused_before_any_work(project):
    """A new key and wrong types anywhere in params.yaml end the first stage in one line."""
    options = ("-S", "+train.droput=0.3", "-S", "plot.dpi=high", "-S", "seed=-1")
    done = project.run("dvc", "exp", "run", *options, ok=False)
    assert done.returncode and project.ran(done.stdout) == [STAGES[0]]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        "train.droput (did you mean dropout?)" in line
        and "plot.dpi = 'high'" in line
        and "seed = -1" in line
    )
    assert "Traceback" not in done.stderr and not (project.path / "data/fetched").exists()


def test_a_clone_pulls_the_results(reproduced, tmp_path):
    """After `dvc push`, a clone is up to date by its dvc.lock; `dvc pull` gets its files."""
    store, clone = tmp_path / "store", type(reproduced)(tmp_path / "clone")
    reproduced.run("dvc", "remote", "add", "--default", "store", str(store))
    reproduced.commit()
    reproduced.run("dvc", "push")
    reproduced.run("git", "clone", "--quiet", ".", str(clone.path))
    assert same(clone.run("dvc", "repro", "--dry", "--allow-missing").stdout) == STAGES
    clone.run("dvc", "pull")
    assert same(clone.run("dvc", "repro").stdout) == STAGES
    assert clone.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.long
def test_a_queued_experiment_runs_in_its_own_folder(reproduced):
    """A queued experiment does not change the workspace, and skips stages that are up to date.

    `-S train.lr=0.00005`, which DVC writes as 5e-05, trains with that rate.
    """
    options = (
        "-S",
        "preprocess.val_fraction=0.2",
        "-S",
        "train.lr=0.00005",
        "-S",
        "seed=1",
        "train",
    )
    reproduced.run("dvc", "exp", "run", "--queue", "--name", "later", *options)
    try:
        reproduced.run("dvc", "queue", "start")
        deadline = time.monotonic() + 1200
        while not (
            found := re.search(
                r"refs/exps/\S+/later$", reproduced.run("git", "show-ref").stdout, re.MULTILINE
            )
        ):
            assert time.monotonic() < deadline, reproduced.run(
                "dvc", "queue", "logs", "later", ok=False
            ).stdout
            time.sleep(0.5)
        logs = reproduced.run("dvc", "queue", "logs", "later").stdout
    finally:
        reproduced.run("dvc", "queue", "stop", "--kill", ok=False)
        reproduced.end()
    assert same(logs) == ["fetch"] and reproduced.ran(logs) == ["preprocess", "train"]
    assert reproduced.run("git", "status", "--porcelain").stdout == ""
    assert "lr: 5e-05" in reproduced.run("git", "show", f"{found[0]}:params.yaml").stdout
    header, first, *_ = reproduced.run(
        "git", "show", f"{found[0]}:plots/history.csv"
    ).stdout.splitlines()
    assert float(dict(zip(header.split(","), first.split(","), strict=True))["lr"]) == 0.00005


def test_a_killed_training_is_not_done(reproduced):
    """If a training is killed, no experiment is recorded, and train still has to run."""
    command = ("dvc", "exp", "run", "--name", "endless", "-S", "train.epochs=100000", "train")
    running = subprocess.Popen(
        command,
        cwd=reproduced.path,
        env=reproduced.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        next(line for line in running.stdout if line.startswith("epoch 1/"))
        (stage,) = [
            process
            for process in psutil.Process(running.pid).children(recursive=True)
            if process.cmdline()[1:] == ["-m", "stages.train"]
        ]
        stage.terminate()
        output, _ = running.communicate(timeout=1200)
    finally:
        reproduced.end()
        running.wait()
    assert running.returncode and "stages.train, exited with" in output
    assert "endless" not in reproduced.run("dvc", "exp", "list", "--name-only").stdout
    assert reproduced.run("git", "diff", "--stat", "dvc.lock").stdout == ""
    assert "train" in json.loads(reproduced.run("dvc", "status", "--json").stdout)


@pytest.mark.long
def test_the_network_of_the_contributing_page_takes_one_file(reproduced):
    """The commands in CONTRIBUTING.md add a network and run it, exactly as they are printed."""
    page = (reproduced.path / "CONTRIBUTING.md").read_text()
    block = page[
        page.index("    cat > cifar/models/linear.py") : page.index("Nothing else changes")
    ]
    commands = re.sub("^    ", "", block, flags=re.MULTILINE).rstrip()
    done = reproduced.run("bash", "-ec", commands + " -S train.depth=0 -S train.width=0")
    assert reproduced.ran(done.stdout) == ["train", "evaluate", "plot"]
    model = json.loads((reproduced.path / "models/model.json").read_text())["model"]
    parameters = {layer["kind"]: layer["parameters"] for layer in model["layers"]}
    # 8 x 8 pixels and a bias for each of ten digits.
    assert parameters == {"Flatten": 0, "Dropout": 0, "Linear": 650}


def test_dvc_edits_one_line_of_the_pipeline(project):
    """`dvc freeze` adds a line per stage, `dvc unfreeze` removes it, and no other line changes.

    DVC itself refuses to freeze the stages whose dependencies name a parameter.
    """
    stages = [name for name, stage in PIPELINE["stages"].items() if "${" not in str(stage)]
    assert "fetch" in stages
    project.run("dvc", "freeze", *stages)
    changed = project.run("git", "diff", "--numstat").stdout
    assert changed == f"{len(stages)}\t0\tdvc.yaml\n"
    project.run("dvc", "unfreeze", *stages)
    assert project.run("git", "status", "--porcelain").stdout == ""
    with modify_yaml(project.path / "dvc.yaml"):
        pass
    assert project.run("git", "status", "--porcelain").stdout == ""
    for stage in PIPELINE["stages"].values():  # the order in which DVC writes them
        for kind in ("deps", "outs", "plots"):
            paths = [
                entry if isinstance(entry, str) else next(iter(entry))
                for entry in stage.get(kind, [])
            ]
            assert paths == sorted(paths)


def test_make_installs_once_and_lists_its_targets(project):
    """`make help` lists every target; a target installs only what it needs, and only once."""
    targets = set(re.findall(r"^make (\S+)", project.run("make", "help").stdout, re.MULTILINE))
    makefile = (project.path / "Makefile").read_text()
    assert targets == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))

    def plan(target):
        return project.run("make", "--dry-run", target).stdout

    assert "tools/install.py requirements.lock" in plan("demo")
    assert "tools/install.py requirements-dev.lock" in plan("test")
    (project.path / ".venv").mkdir()
    (project.path / ".venv/.ready").touch()
    assert "install.py" not in plan("demo") and "recipes run digits --demo" in plan("demo")
    assert "install.py" in plan("test"), "a user's environment cannot run the tests"
