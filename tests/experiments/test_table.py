"""DVC's experiments as records: the inputs of a run, and the numbers that belong to it."""

import json

import pytest

from cifar import UserError
from cifar.experiments import table

HEAD, OLD = "a" * 40, "b" * 40
LOCK = {
    "fetch": {
        "params": {"fetch": {"dataset": "digits", "source": None}},
        "deps": {"stages/fetch.py": "f" * 32},
        "outs": {"data/fetched": "r"},
    },
    "preprocess": {
        "params": {"preprocess": {"fold": 0}},
        "deps": {"data/fetched": "r"},
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
TRAIN_INPUTS = {
    "fetch.dataset": "digits",
    "fetch.source": "null",
    "stages/fetch.py": "fffffff",
    "preprocess.fold": "0",
    "data/fetched": "r",
    "train.lr": "0.1",
    "seed": "1",
}


def lock(**changes):
    """The stages of a dvc.lock, with other dependencies of some of them."""
    stages = {name: dict(stage) for name, stage in LOCK.items()}
    for name, deps in changes.items():
        stages[name]["deps"] = deps
    for stage in stages.values():
        for kind in ("deps", "outs"):
            listed = stage.get(kind, {}).items()
            stage[kind] = [{"path": path, "md5": md5} for path, md5 in listed]
        stage["params"] = {"params.yaml": stage["params"]}
    return stages


def without(name):
    return {key: stage for key, stage in lock().items() if key != name}


def test_a_run_is_what_its_lock_file_says():
    """Inputs are parameters, code and raw data, but neither intermediate data nor charts."""
    assert table.inputs_of(lock()) == TRAIN_INPUTS | {"evaluate.tta": "none"}


@pytest.mark.parametrize("stages", [lock(evaluate={"model": "older"}), without("evaluate")])
def test_a_run_without_evaluation_is_a_training(stages):
    """If evaluate has not run on this model, its parameters do not belong to the run."""
    assert table.inputs_of(stages) == TRAIN_INPUTS


@pytest.mark.parametrize("stages", [lock(train={"data/processed": "older"}), without("train")])
def test_a_half_finished_training_is_none(stages):
    """If train has not run, or not on the latest outputs of preprocess, there is no run."""
    assert table.inputs_of(stages) == {}


def test_a_stage_that_has_not_met_the_newest_outputs():
    """It is listed, also if it is plot; after a finished run, no stage is."""
    assert table.stale(lock()) == []
    old = lock(evaluate={"model": "older"}, plot={"model": "older"})
    assert table.stale(old) == ["evaluate", "plot"]


@pytest.mark.parametrize(("integer", "decimal"), [(0, 0.0), (8, 8.0), (-1, -1.0)])
def test_a_number_is_one_value_however_it_is_written(integer, decimal):
    """0 and 0.0 are the same value, also on the command line; 10 and 0.05 do not change."""
    assert table.plain(integer) == table.plain(decimal) == str(integer)
    assert table.plain(f"train.lr={decimal}") == f"train.lr={integer}"
    assert (table.plain(10), table.plain(0.05)) == ("10", "0.05")


def metrics(test_model="m1", train_model="m1"):
    """The two metrics files, as `dvc exp show` prints them."""
    train = {"epoch": 2, "val": {"accuracy": 0.4}, "model": train_model}
    test = {"test": {"accuracy": 0.5}, "model": test_model}
    contents = {"metrics/train.json": train, "metrics/test.json": test}
    kept = {
        path: {key: value for key, value in content.items() if value is not None}
        for path, content in contents.items()
    }
    return {path: {"data": content} for path, content in kept.items()}


def commit(rev, numbers, experiments=None):
    recorded = {"seed": 1, "fetch": {"dataset": "cifar10"}, "plot": {"dpi": 50}}
    data = {"metrics": numbers, "params": {"params.yaml": {"data": recorded}}}
    return {"rev": rev, "data": data, "experiments": experiments}


def experiment(name, numbers, state=None):
    data = {"metrics": numbers}
    executor = {"state": state} if state else None
    return {"name": name, "executor": executor, "revs": [{"rev": name * 8, "data": data}]}


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Read results, where `dvc exp show` prints these commits and `git show` these lock files."""

    def show(commits, locks):
        def run(*command):
            if command[:3] == ("dvc", "exp", "show"):
                return json.dumps(commits)
            if command[:2] == ("git", "show"):
                assert command[2].endswith(":./dvc.lock"), "the project may be a subfolder"
                stages = locks.get(command[2].partition(":")[0])
                if not stages:
                    raise UserError("fatal: path 'dvc.lock' does not exist")
                return json.dumps({"stages": stages})
            return HEAD if command[1] == "rev-parse" else ""

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(table, "run", run)
        return table.read()

    return show


def numbers(results):
    return {result.name: sorted(result.metrics) for result in results}


ALL = ["epoch", "test.accuracy", "val.accuracy"]
TRAINING = ["epoch", "val.accuracy"]


@pytest.mark.parametrize(
    ("models", "stages", "expected"),
    [
        (("m1", "m1"), lock(), ALL),
        ((None, None), lock(), ALL),  # results of before there was a key
        (("m2", "m1"), lock(), TRAINING),
        (("m1", "m1"), lock(evaluate={"model": "older"}), TRAINING),
        ((None, None), without("evaluate"), TRAINING),
    ],
)
def test_foreign_test_numbers_are_left_out(shown, models, stages, expected):
    """Test numbers count if the models agree and evaluate is up to date; else a remark says so."""
    results, remarks = shown([commit(HEAD, metrics(*models))], {HEAD: stages})
    assert numbers(results) == {"HEAD": expected}
    line = "test numbers left out, they belong to another model: HEAD"
    assert remarks == ([] if expected == ALL else [line])


@pytest.mark.hostile
@pytest.mark.parametrize("content", [5, [1], "text", True])
def test_metrics_of_another_form_do_not_count(shown, content):
    """A metrics file that holds no mapping is left out, whatever a hand has written into it."""
    files = metrics() | {"metrics/test.json": {"data": content}}
    results, _ = shown([commit(HEAD, files)], {HEAD: lock()})
    assert numbers(results) == {"HEAD": TRAINING}


def test_what_has_no_numbers_of_its_own_is_named(shown):
    """Failed and queued runs and those without metrics or lock file are named, each reason once."""
    runs = [
        experiment("bad", {}, "failed"),
        experiment("worse", {}, "failed"),
        experiment("waiting", {}, "queued"),
        experiment("partial", {}),
        experiment("good", metrics()),
    ]
    commits = [commit("workspace", metrics()), commit(HEAD, {}, runs), commit(OLD, metrics())]
    results, remarks = shown(commits, {"good" * 8: lock()})
    assert [result.name for result in results] == ["good"]
    assert remarks == [
        "left out, failed: bad, worse",
        "left out, queued: waiting",
        "left out, without metrics: partial",
        f"left out, without dvc.lock: {OLD[:7]}, workspace",
    ]


def test_the_committed_result_of_a_fresh_clone_counts(shown):
    """HEAD has metrics but no dvc.lock: they count if both files belong to one model."""
    results, remarks = shown([commit(HEAD, metrics())], {})
    assert numbers(results) == {"HEAD": ALL} and remarks == []
    assert results[0].inputs == {"seed": "1", "fetch.dataset": "cifar10"}
    assert shown([commit(HEAD, metrics("m2"))], {})[0] == []


DAMAGED = {
    "conflict": b"<<<<<<< HEAD\nstages: {}\n=======\nstages: {train: 1}\n>>>>>>> x\n",
    "a list": b"- stages\n",
    "a list of stages": b"stages: [train]\n",
    "a text": b"stages: train\n",
    "null": b"stages:\n",
    "a stage of nothing": b"stages: {train: }\n",
    "a stage of text": b"stages: {train: cmd}\n",
    "no checksum": b"stages: {train: {outs: [{path: a}]}}\n",
    "a number": b"stages: {train: {deps: [5]}}\n",
    "parameters": b"stages: {train: {params: {params.yaml: 5}}}\n",
    "UTF-16": "stages: {}\n".encode("utf-16"),
}


@pytest.mark.hostile
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_lock_file_is_one_line(content, tmp_path, monkeypatch):
    """Whatever is wrong with it, the message names the file and says how to restore it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_bytes(content)
    with pytest.raises(UserError, match=r"^damaged \(dvc.lock\): .*`git checkout dvc.lock`"):
        table.read_lock("workspace")


@pytest.mark.parametrize("content", [b"", b"schema: '2.0'\n", b"\xef\xbb\xbfstages: {}\n"])
def test_a_lock_file_without_stages_is_none(content, tmp_path, monkeypatch):
    """Before the first run there are no stages in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_bytes(content)
    assert table.read_lock("workspace") == {}


def test_a_commit_of_a_damaged_lock_file_is_left_out(shown):
    """One such commit does not keep the others out of the table."""
    results, remarks = shown(
        [commit("workspace", {}), commit(HEAD, metrics()), commit(OLD, metrics())],
        {HEAD: lock(), OLD: {"train": None}},
    )
    assert [result.name for result in results] == ["HEAD"]
    assert remarks == [f"left out, its dvc.lock is damaged: {OLD[:7]}"]


def test_commits_with_experiments_or_results_are_asked_for(monkeypatch):
    """HEAD, every commit that changed dvc.lock, and the baseline of each experiment, once."""
    references = [f"refs/exps/cc/{'c' * 38}/x", "refs/exps/stash", "refs/exps/exec/EXEC_HEAD"]
    answers = {
        "rev-parse": HEAD,
        "log": f"{HEAD}\n{OLD}\n",
        "for-each-ref": "\n".join(references),
    }
    monkeypatch.setattr(table, "run", lambda *command: answers[command[1]])
    assert table.commits() == [HEAD, OLD, "c" * 40]


@pytest.mark.parametrize(
    ("printed", "error"),
    [
        ("WARNING: x\nERROR: no lock\n\nHaving any troubles? Hit us up at …\n", "no lock"),
        ("fatal: not a git repository\n", "not a git repository"),
        ("Killed: by someone\n", "Killed: by someone"),
        ("", "no message"),
    ],
)
def test_the_error_of_a_command_is_shown(printed, error):
    """It is what dvc or git printed, without its label and without the line about support."""
    assert table.error_of(printed) == error


def test_a_command_that_fails_is_one_line():
    """The message has its error, the command and what to do; so has that of a missing command."""
    with pytest.raises(UserError, match=r"^.*nothing.* \(git show nothing\): fix this"):
        table.run("git", "show", "nothing", "--")
    with pytest.raises(UserError, match=r"^command no-such-command not found \(PATH\): "):
        table.run("no-such-command")
