"""DVC's experiments as plain data, and their groups."""

import json

import pytest

from cifar import UserError
from cifar.experiments import table as experiments
from cifar.experiments.table import Result


def result(name, **facts):
    return Result(name, "", {key.replace("__", "."): value for key, value in facts.items()}, {})


def names(groups):
    return {group: [result.name for result in members] for group, members in groups.items()}


def test_groups_are_named_by_what_sets_them_apart():
    """Runs that differ only by their seed are one group; its name has the parameters that vary, in order, no others."""
    runs = [
        result("a", seed="0", train__lr="0.1", train__dropout="0", train__epochs="8"),
        result("b", seed="1", train__lr="0.1", train__dropout="0", train__epochs="8"),
        result("c", seed="0", train__lr="0.2", train__dropout="0.5", train__epochs="8"),
    ]
    assert names(experiments.group(runs, ["seed"])) == {
        "train.lr=0.1,train.dropout=0": ["a", "b"],
        "train.lr=0.2,train.dropout=0.5": ["c"],
    }
    assert names(experiments.group(runs[:2], ["seed"])) == {"all": ["a", "b"]}
    folds = ["seed", "train.lr", "train.dropout"]
    assert names(experiments.group(runs, folds)) == {"all": ["a", "b", "c"]}


def test_edited_code_sets_apart_and_another_network_s_file_does_not():
    """The file of another network is no difference of its own; another content of the same file is one."""
    runs = [
        result("fast", train__model="fast", cifar_fast="1", train_py="x"),
        result("vgg", train__model="vgg", cifar_vgg="2", train_py="x"),
    ]
    assert list(experiments.group(runs, ["seed"])) == ["train.model=fast", "train.model=vgg"]
    edited = result("edited", train__model="vgg", cifar_vgg="2", train_py="y")
    assert list(experiments.group([*runs, edited], ["seed"]))[1:] == [
        "train.model=vgg,train_py=x",
        "train.model=vgg,train_py=y",
    ]


def test_the_same_run_counts_once():
    """Of two runs of one seed the first counts; seeds are in the order of numbers."""
    runs = [
        result(name, seed=seed) for name, seed in (("a", "10"), ("b", "9"), ("c", "10"), ("d", "1"))
    ]
    chosen, again = experiments.one_each(runs, ["seed"])
    assert [run.name for run in chosen] == ["d", "b", "a"] and [run.name for run in again] == ["c"]


LOCK = {
    "fetch": {
        "params": {"fetch": {"source": None}},
        "deps": {"stages/fetch.py": "f" * 32},
        "outs": {"data/raw": "r"},
    },
    "preprocess": {
        "params": {"preprocess": {"fold": 0}},
        "deps": {"data/raw": "r"},
        "outs": {"data/processed": "p"},
    },
    "train": {
        "params": {"train": {"lr": 0.1}, "seed": 1},
        "deps": {"data/processed": "p"},
        "outs": {"model": "m"},
    },
    "evaluate": {"params": {"evaluate": {"tta": "none"}}, "deps": {"model": "m"}},
    "plot": {"params": {"plot": {"dpi": 50}}, "deps": {"stages/plot.py": "g"}},
}


def lock(**changes):
    stages = {name: dict(stage) for name, stage in LOCK.items()}
    for name, deps in changes.items():
        stages[name]["deps"] = deps
    listed = {kind: [] for kind in ("deps", "outs")}
    for name, stage in stages.items():
        for kind in listed:
            stage[kind] = [{"path": path, "md5": md5} for path, md5 in stage.get(kind, {}).items()]
        stages[name]["params"] = {"params.yaml": stage["params"]}
    return stages


def test_a_run_is_what_its_lock_file_says():
    """Parameters, code and raw data are what a number was made from; made data and the pictures' stage are not."""
    assert experiments.made_from(lock()) == {
        "fetch.source": "null",
        "stages/fetch.py": "fffffff",
        "preprocess.fold": "0",
        "data/raw": "r",
        "train.lr": "0.1",
        "seed": "1",
        "evaluate.tta": "none",
    }


@pytest.mark.parametrize("stages", [lock(evaluate={"model": "older"}), {"fetch": lock()["fetch"]}])
def test_a_half_finished_run_is_none(stages):
    """Where a stage has not met the outputs of the one before it, or has not run, the numbers are another run's."""
    assert experiments.made_from(stages) == {}


def test_a_stage_that_has_not_met_the_newest_outputs():
    """It is named, the pictures' stage too; of a finished run none is."""
    assert experiments.stale(lock()) == []
    assert experiments.stale(lock(evaluate={"model": "older"}, plot={"model": "older"})) == [
        "evaluate",
        "plot",
    ]


@pytest.mark.parametrize(("one", "other"), [(0, 0.0), (8, 8.0), (-1, -1.0)])
def test_a_number_is_one_value_however_it_is_written(one, other):
    """0 and 0.0 are no two groups, and a word on the command line means both; 10 is not 1, and 0.05 stays."""
    written = []
    for value in (one, other):
        stages = lock()
        stages["train"]["params"]["params.yaml"] = {
            "train": {"lr": value, "dropout": 0.05, "epochs": 10},
            "seed": 1,
        }
        facts = experiments.made_from(stages)
        written.append(facts["train.lr"])
        assert (facts["train.dropout"], facts["train.epochs"]) == ("0.05", "10")
    assert written == [str(one)] * 2 and experiments.plain(f"train.lr={other}") == f"train.lr={one}"


def test_a_parameter_that_older_runs_have_not():
    """Runs of a commit from before the parameter are a sample of their own, and no traceback."""
    runs = [result("new", seed="0", fold="1"), result("old", seed="0")]
    assert experiments.label(runs[1], ["fold"]) != experiments.label(runs[0], ["fold"])
    assert experiments.one_each(runs, ["fold"]) == ([runs[1], runs[0]], [])


def test_a_commit_without_a_lock_file_is_left_out(monkeypatch, tmp_path):
    """A commit, or a workspace, with numbers and without dvc.lock is named as left out; the others count."""
    data = {"metrics": {"metrics/test.json": {"data": {"test": {"accuracy": 0.5}}}}}
    commits = [
        {"rev": rev, "data": data, "experiments": None} for rev in ("workspace", "a" * 40, "b" * 40)
    ]

    def run(*command):
        if command[:2] == ("dvc", "exp"):
            return json.dumps(commits)
        if command[1] == "rev-parse":
            return "a" * 40
        assert command[2].endswith(":./dvc.lock"), (
            "also where the project is a folder of a larger repository"
        )
        if command[2].startswith("b"):
            raise UserError("fatal: path 'dvc.lock' does not exist")
        return json.dumps({"stages": lock()})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "run", run)
    results, remarks = experiments.finished("test.accuracy", all_commits=False)
    assert [found.name for found in results] == ["HEAD"]
    assert remarks == [
        "left out, without dvc.lock: workspace",
        "left out, without dvc.lock: bbbbbbb",
    ]
