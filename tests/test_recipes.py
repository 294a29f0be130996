"""Recipes: files that override params.yaml, resolved, shown, applied and run as experiments."""

import hashlib
import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sample import PROVENANCE

from cifar import UserError, params, yaml12
from cifar.dataset import Shape
from cifar.experiments.table import flatten
from cifar.params.train import Train
from cifar.training import fit, inspection
from cifar.training.checkpoint import Checkpoints
from cifar.training.distributed import World
from cifar.training.splits import Arrays, load_splits
from recipes import edit, resolve
from recipes import run as runs

ROOT = Path(__file__).parent.parent
PARAMS = (ROOT / "params.yaml").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with copies of params.yaml and of the recipes."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for path in (ROOT / "recipes").glob("*.yaml"):
        (recipes / path.name).write_bytes(path.read_bytes())
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "FOLDER", recipes)
    return tmp_path


def shape_of(values):
    classes, channels = {"digits": (10, 1), "cifar100": (100, 3)}.get(
        values.get("fetch.dataset"), (10, 3)
    )
    size = values["preprocess.image_size"]
    return Shape(classes, channels, size, (0.0,) * channels, (1.0,) * channels)


def section(values):
    """The train section of params.yaml, updated by a recipe."""
    own = {key[6:]: value for key, value in values.items() if key.startswith("train.")}
    return Train(**params.read(ROOT / "params.yaml")["train"] | own)


@pytest.mark.slow
@pytest.mark.parametrize("name", resolve.known())
def test_every_recipe_fits(name, folder):
    """A recipe has a one-line description, and its network can be built and trained."""
    recipe = resolve.resolve(name)
    values = resolve.check(recipe, [])
    assert 10 < len(recipe.about) < 58
    p = section(values)
    assert inspection.inspect(p, shape_of(values), fit.network_options(p))


@pytest.mark.slow
@pytest.mark.parametrize("name", resolve.known())
def test_a_recipe_is_independent_of_params(name, folder):
    """Over any params.yaml a recipe gives the same values, except those left to the user."""
    values = resolve.check(resolve.resolve(name), [])
    edited = dict(flatten(params.read()))
    odd = {"preprocess.folds": 5, "preprocess.fold": 3, "preprocess.split_seed": 9,
           "train.model": "pretrained", "train.backbone": "resnet18", "train.ema": 0.5,
           "train.epochs": 3, "train.small_epochs": 3, "train.cutout": 7,
           "train.optimizer": "sgd", "train.nesterov": True, "train.device": "cpu"}  # fmt: skip
    edit.apply(odd)
    edit.apply(values)
    after = dict(flatten(params.read()))
    yours = {key for key in after if key in resolve.YOURS or key not in values}
    assert {k: v for k, v in after.items() if k not in yours} == values
    results = [key for key in edited if key.startswith(("preprocess.", "train."))]
    assert set(results) - set(values) == resolve.YOURS
    assert after["train.device"] == "cpu"


def test_off_is_the_start_of_every_recipe(folder):
    """Every chain of recipes starts from the off-values, so a new parameter is off in each."""
    for name in resolve.known():
        recipe = resolve.resolve(name)
        while recipe.extends != resolve.OFF:
            recipe = resolve.resolve(recipe.extends)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: b", "b": "extends: a"}, "a extends b extends a (recipes/a.yaml)"),
        ({"a": "extends: a"}, "a extends a (recipes/a.yaml)"),
        ({"a": "extends: vgg33"}, "no recipe 'vgg33' (did you mean vgg3?) (recipes/a.yaml"),
        ({"a": "- 1"}, "no sections"),
        ({"a": "train: [1"}, "a.yaml:1"),
    ],
)  # fmt: skip
def test_a_chain_without_an_end_is_refused(folder, files, message):
    """A circle, an unknown parent and a damaged file are errors that name the recipe."""
    for name, text in files.items():
        (folder / f"recipes/{name}.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        resolve.resolve("a")


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("digit", [], "no recipe 'digit' (did you mean digits?)"),
        ("../params", [], "no recipe '../params'"),
        ("digits", ["train.droput=0.3"], "unknown key train.droput (did you mean dropout?)"),
        ("digits", ["tran.dropout=0.3"], "unknown section tran (did you mean train?)"),
        ("digits", ["train.epochs=many"], "train.epochs = 'many'"),
        ("digits", ["train.epochs"], "'train.epochs' has no value"),
        ("digits", ["train.lr=["], "the value of train.lr is not YAML"),
        ("digits", ["train.lr.high=1"], "lr is not a section of params.yaml (train.lr.high)"),
        ("digits", ["train=1"], "section train is missing"),
    ],
)
def test_what_params_could_not_hold_is_refused(folder, name, override, message):
    """An unknown recipe and an override that is invalid in params.yaml are named."""
    with pytest.raises(UserError, match=re.escape(message)):
        resolve.check(resolve.resolve(name), override)


@pytest.mark.hostile
def test_no_message_shows_the_value_of_an_override(folder):
    """An address with a signature on the command line is not printed."""
    for value in ("https://host/x?sig=S3CRET", "[S3CRET"):
        with pytest.raises(UserError) as caught:
            resolve.check(resolve.resolve("few-images"), [f"fetch.source={value}"])
        assert "S3CRET" not in str(caught.value)


@pytest.mark.hostile
@pytest.mark.parametrize("published", ["5", "{epochs: 3}", "{accuracy: much}"])
def test_a_published_number_that_is_none_is_one_line(published, tmp_path, monkeypatch):
    """Without this check, one such recipe would make `recipes list` fail."""
    monkeypatch.setattr(resolve, "FOLDER", tmp_path / "recipes")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/mine.yaml").write_text(f"published: {published}\nextends: off\n")
    with pytest.raises(UserError, match=r"^published has no accuracy \(recipes/mine.yaml\): write"):
        resolve.resolve("mine")


def test_list_says_what_is_published(project):
    """`list` prints a line of at most 100 columns per recipe, and says what `all` stands for."""
    lines = project.run("python", "-m", "recipes", "list").stdout.splitlines()
    assert sorted(line.split()[0] for line in lines[:-2]) == resolve.known()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if " %" in line[:30]] == resolve.published()
    assert "gap                   73.05 %, 10 epochs   " in "\n".join(lines)
    assert lines[-1] == "`all` stands for the 14 with a published test accuracy."


def test_a_closed_pipe_is_no_error(project):
    """If the list is not read to its end, as by `| head -1`, the program ends without a message."""
    done = project.run("bash", "-c", "python -m recipes list | true")
    assert done.stderr == ""


def test_show_marks_what_differs(project):
    """`show` prints the resolved recipe as YAML, with the value of params.yaml where it differs."""
    shown = project.run("python", "-m", "recipes", "show", "vgg3-dropout").stdout
    values = dict(flatten(yaml12.loads(shown, "shown")))
    assert values == resolve.resolve("vgg3-dropout").values
    present = dict(flatten(params.read(ROOT / "params.yaml")))
    marked = {
        line.partition(":")[0].strip() for line in shown.splitlines() if "# params.yaml: " in line
    }
    assert marked == {key.split(".")[1] for key in values if values[key] != present[key]}
    assert "# extends: vgg3" in shown
    assert "# published: 83.45 %, 100 epochs" in shown
    assert "dropout: 0.2              # params.yaml: 0.0" in shown


def lines_of(text):
    """(key, comment) of every line of params.yaml."""
    return [re.fullmatch(r"( *(?:\w+:)?).*?(#.*)?", line).groups() for line in text.splitlines()]


def test_apply_changes_the_values_and_nothing_else(folder):
    """`apply` writes a recipe's values, and keeps all other values and all comments."""
    values = resolve.check(resolve.resolve("digits"), ["train.epochs=3"])
    edit.apply(values)
    after = dict(flatten(params.read()))
    assert after == dict(flatten(params.read(ROOT / "params.yaml"))) | values
    assert after["train.epochs"] == 3
    assert lines_of((folder / "params.yaml").read_text()) == lines_of(PARAMS)


def without(text, keys):
    """params.yaml without the lines of these keys, such as {"train.ema"}."""
    kept, name = [], ""
    for line in text.splitlines(keepends=True):
        name = line.strip()[:-1] if re.match(r"\w+:$", line) else name
        key = re.match(r"  (\w+):", line)
        if not key or f"{name}.{key[1]}" not in keys:
            kept.append(line)
    return "".join(kept)


@pytest.mark.parametrize(
    "keys",
    [{"train.ema"}, {"train.depth", "train.width", "train.compile", "plot.dpi", "plot.mistakes"},
     {"fetch.source", "fetch.sha256"},
     {f"{s}.{key}" for s, keys in params.off_values().items() for key in keys}],
    ids=["one", "several", "empty ones", "all"],
)  # fmt: skip
def test_upgrade_adds_what_an_older_file_lacks(folder, keys):
    """The missing lines are added, off and with their comments, and no other line changes."""
    path = folder / "params.yaml"
    older = without(PARAMS, keys) + "# my own remark\n"
    path.write_text(older)
    added = edit.upgrade()
    assert set(added) == keys
    text = path.read_text()
    assert [line for line in text.splitlines() if line in older.splitlines()] == older.splitlines()
    values = dict(flatten(params.read()))
    for key, value in added.items():
        assert values[key] == value
        assert line_of(text, key) == line_of(params.OFF.read_text(), key)
    assert not edit.upgrade()
    assert path.read_text() == text


def line_of(text, key):
    lines = text.split("\n")
    return lines[edit.find(lines, *key.split("."))]


def test_an_upgraded_file_does_what_it_did(folder, project):
    """The error about an older file names the command, which makes the file valid."""
    project.edit("params.yaml", lambda text: without(text, {"train.cutout", "plot.dpi"}))
    done = project.run("python", "-m", "recipes", "show", "few-images", ok=False)
    assert "plot.dpi is missing (off: 120)" in done.stderr
    assert "`python -m recipes upgrade` adds what is missing" in done.stderr
    done = project.run("python", "-m", "recipes", "upgrade")
    assert done.stdout.splitlines() == [
        "added train.cutout: 0",
        "added plot.dpi: 120",
        "params.yaml has all parameters",
    ]
    again = project.run("python", "-m", "recipes", "upgrade").stdout
    assert again == "params.yaml is up to date\n"
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_upgrade_leaves_a_file_that_it_cannot_edit(folder):
    """A section on a single line is refused with the missing names, and is not changed."""
    text = without(PARAMS, {"plot.dpi", "plot.samples_per_class", "plot.mistakes"})
    text = text.replace("plot:\n", "plot: {samples_per_class: 8, mistakes: 24}\n")
    (folder / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"cannot add plot.dpi \(params.yaml\)"):
        edit.upgrade()
    assert (folder / "params.yaml").read_text() == text


def test_a_mistake_in_one_recipe_stops_all(project):
    """All recipes are checked before the first one runs: a one-line error, and nothing changes."""
    (project.path / "recipes/wrong.yaml").write_text("train: {droput: 0.3}\n")
    project.commit()
    done = project.run("python", "-m", "recipes", "run", "digits", "wrong", ok=False)
    assert done.returncode == 1
    assert not project.ran(done.stdout)
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: unknown key train.droput")
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.fixture
def history(folder):
    """A Git repository of one commit, in which experiments can be made without DVC."""
    for command in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "first"]):
        git(*command)


def git(*arguments):
    settings = ("user.name=Test", "user.email=test@example.org", "commit.gpgsign=false")
    options = [word for setting in settings for word in ("-c", setting)]
    done = subprocess.run(["git", *options, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_experiment(name, message, tree="HEAD^{tree}"):
    git("update-ref", runs.ref(name), git("commit-tree", tree, "-m", message))


def experiments():
    """{name: message} of all experiments."""
    found = git("for-each-ref", "--format=%(refname:lstrip=4) %(subject)", "refs/exps")
    return dict(line.split() for line in found.splitlines())


def run_and_kill(message, step=100, code=0):
    """Run a recipe whose result is `message`, and kill it before its Git command number `step`.

    The run ends with `code`; if that is None, it is killed in the middle. True if it was killed.
    """
    pid = os.fork()
    if pid:
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    steps = iter(range(step))
    real = runs.git

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(*arguments, text=""):
        if next(steps, None) is None:
            kill()
        return real(*arguments, text=text)

    def dvc(*arguments):
        if code is None:
            kill()
        if code == 0:
            make_experiment("exp", message)
        return code

    runs.git, runs.dvc = counted, dvc
    try:
        runs.run({"exp": {"train.epochs": 9}}, queue=False)
    finally:
        os._exit(0)


@pytest.mark.slow
@pytest.mark.fault
def test_a_kill_at_any_step_loses_no_result(history):
    """After a kill at any step, and another in the next run, the newest result still exists."""
    make_experiment("exp", "result-0")
    newest, step, killed = "result-0", 0, True
    while killed:
        killed = run_and_kill(f"result-{step}", step)
        newest = f"result-{step}" if f"result-{step}" in experiments().values() else newest
        assert newest in experiments().values(), step
        assert run_and_kill("never", code=None)
        assert newest in experiments().values(), step
        assert not run_and_kill("never", code=1)
        assert newest in experiments().values(), step
        step += 1
    assert step > 10
    assert not run_and_kill("last")
    assert experiments() == {"exp": "last"}


@pytest.mark.fault
def test_a_failed_run_gives_the_name_back(history):
    """After a run that fails, the earlier experiment has its name again."""
    make_experiment("exp", "result-0")
    assert not run_and_kill("never", code=1)
    assert experiments() == {"exp": "result-0"}


def test_settings_of_a_run_are_those_of_the_user(history, monkeypatch):
    """Each of several recipes starts from the original params.yaml with the user's edits."""
    edit.apply({"plot.dpi": 60})
    seen = []

    def dvc(*arguments):
        seen.append(params.read()["train"]["epochs"])
        edit.apply({"train.epochs": 77})
        return 0

    monkeypatch.setattr(runs, "dvc", dvc)
    runs.run({"one": {"train.epochs": 9}, "two": {}}, queue=False)
    assert seen == [8, 8]
    assert params.read()["plot"]["dpi"] == 60


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("edited", [False, True])
def test_the_way_back_restores_the_workspace(history, locked, edited):
    """The printed command undoes what an experiment changed, but not the user's own edits."""
    if locked:
        for name in ("dvc.lock", "metrics/test.json", "plots/.gitignore"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text("old")
        git("add", ".")
        git("commit", "-qm", "locked")
    if edited:
        edit.apply({"plot.dpi": 60})
    before = {path: path.read_text() for path in Path().rglob("*") if tracked(path)}
    assert runs.keep_edits() is edited
    edit.apply({"train.epochs": 9})
    for name in ("dvc.lock", "metrics/test.json", "plots/history.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("new")
    git("add", "dvc.lock", "metrics", "plots", "params.yaml")
    make_experiment("exp", "result", git("write-tree"))
    git("reset", "-q")
    Path("plots/mine.csv").write_text("mine")
    runs.touch()
    command = runs.way_back("exp", edited)
    subprocess.run(["bash", "-ec", f'dvc() {{ [ "$1" = checkout ]; }}; {command}'], check=True)
    after = {path: path.read_text() for path in Path().rglob("*") if tracked(path)}
    assert after == before | {Path("plots/mine.csv"): "mine"}
    assert ("dvc checkout" in command) == locked


def tracked(path):
    return path.is_file() and path.parts[0] not in (".git", "recipes", "runs")


@pytest.mark.hostile
def test_a_damaged_configuration_of_dvc_is_one_line(tmp_path, monkeypatch):
    """DVC's own command ends in a traceback; a recipe in a one-line error with what to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "identity", dict)
    # Handlers that an earlier test created write to its standard error, which is closed.
    monkeypatch.setattr(logging.getLogger("dvc"), "handlers", [])
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core\n")
    with pytest.raises(UserError, match=r"^config file error.* \(.dvc/config\): restore it with"):
        runs.dvc("exp", "run")


def test_recipes_run_as_experiments_of_their_names(reproduced):
    """Each recipe starts from the user's params.yaml, not from that of the previous recipe."""
    for name, values in {"sharp": "plot: {dpi: 60}", "few": "plot: {mistakes: 6}"}.items():
        (reproduced.path / f"recipes/{name}.yaml").write_text(f"{values}\n")
    reproduced.commit()
    done = reproduced.run("python", "-m", "recipes", "run", "sharp", "few")
    assert reproduced.ran(done.stdout) == ["plot"], "few has the values of the last commit"
    names = reproduced.run("dvc", "exp", "list", "--name-only").stdout.split()
    assert set(names) == {"sharp", "few"}
    text = reproduced.run("dvc", "params", "diff", "few", "sharp", "--json").stdout
    changed = json.loads(text)["params.yaml"]
    assert {key: value["new"] for key, value in changed.items()} == {"plot.dpi": 60}


@pytest.mark.long
def test_a_machine_where_git_has_no_name_runs_recipes(reproduced):
    """Without user.name and user.email the recipe runs, and the demo says how to set them."""
    reproduced.run("git", "config", "--unset", "user.name")
    reproduced.run("git", "config", "--unset", "user.email")
    reproduced.edit("params.yaml", lambda text: text.replace("dpi: 50", "dpi: 55"))
    (reproduced.path / "recipes/few.yaml").write_text("plot: {mistakes: 5}\n")
    done = reproduced.run("python", "-m", "recipes", "run", "few", "--demo")
    assert reproduced.ran(done.stdout) == ["plot"]
    assert "git config --global user.email" in done.stdout


@pytest.mark.long
def test_queued_recipes_wait(reproduced):
    """`--queue` queues each recipe under its name, with text of any alphabet, and runs nothing."""
    name = "bücher 1, “x”"
    settings = ("-S", "fetch.dataset=images", "-S", f"fetch.source={name}")
    before = (reproduced.path / "params.yaml").read_bytes()
    done = reproduced.run("python", "-m", "recipes", "run", "digits", "--queue", *settings)
    assert not reproduced.ran(done.stdout)
    assert (reproduced.path / "params.yaml").read_bytes() == before
    assert re.search(r"digits .*Queued", reproduced.run("dvc", "queue", "status").stdout)
    stash = reproduced.run("git", "rev-parse", "refs/exps/celery/stash").stdout.strip()
    show = ("git", "-c", "core.quotePath=false", "show", f"{stash}:params.yaml")
    assert name in reproduced.run(*show).stdout


# What each tutorial states: the fraction of training images for validation, and the training.
VGG = {"model": "vgg", "epochs": 100, "batch_size": 64, "optimizer": "sgd", "lr": 0.001,
       "momentum": 0.9}  # fmt: skip
VGG3 = VGG | {"depth": 3}
SHIFTED = {"flip": "random", "shift": 3}
RISING = {"dropout": 0.2, "dropout_step": 0.1}
DENSE = {"model": "dense_head", "epochs": 100, "batch_size": 50, "optimizer": "adam", "lr": 0.001}
CONVPOOL = {"model": "convpool", "epochs": 10, "batch_size": 10, "optimizer": "sgd", "lr": 0.01}
GAP = {"model": "gap", "epochs": 10, "batch_size": 100, "optimizer": "adam", "lr": 0.001,
       "dropout": 0.25}  # fmt: skip
SGD_CNN = {"model": "sgd_cnn", "epochs": 100, "batch_size": 64, "optimizer": "sgd", "lr": 0.01,
           "momentum": 0.9}  # fmt: skip
PUBLISHED = {
    "convpool": (0.1, CONVPOOL),
    "gap": (0.1, GAP),
    "vgg1": (0.1, VGG | {"depth": 1}),
    "vgg2": (0.1, VGG | {"depth": 2}),
    "vgg3": (0.1, VGG3),
    "vgg3-dropout": (0.1, VGG3 | {"dropout": 0.2}),
    "vgg3-decay": (0.1, VGG3 | {"weight_decay": 2 * 0.001}),
    "vgg3-augment": (0.1, VGG3 | SHIFTED),
    "vgg3-rising-dropout": (0.1, VGG3 | RISING | {"epochs": 200}),
    "vgg3-dropout-augment": (0.1, VGG3 | SHIFTED | {"dropout": 0.2, "epochs": 200}),
    "vgg3-full": (0.1, VGG3 | SHIFTED | RISING | {"batch_norm": True, "epochs": 400}),
    "dense-head": (0.2, DENSE),
    "dense-head-100": (0.2, DENSE),
    "sgd-cnn": (0.2, SGD_CNN),
}


def test_every_published_recipe_is_there():
    """`all` stands for the fourteen recipes of the five tutorials."""
    assert set(resolve.published()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_parameters(name):
    """A published recipe has the parameters that its author states; all others are off."""
    fraction, stated = PUBLISHED[name]
    recipe = resolve.resolve(name)
    assert 0.3 < recipe.published["accuracy"] < 0.9
    assert recipe.published.keys() <= {"accuracy", "loss", "epochs", "note", "also", "history"}
    assert recipe.published.get("epochs", 100) == stated["epochs"]
    scaling = "standardize" if name == "gap" else "unit"  # gap does not state it
    data = {"image_size": 32, "val_fraction": fraction, "normalize": scaling}
    off = params.off_values()
    expected = {f"preprocess.{key}": value for key, value in (off["preprocess"] | data).items()}
    expected |= {f"train.{key}": value for key, value in (off["train"] | stated).items()}
    expected |= {"fetch.dataset": "cifar100"} if name == "dense-head-100" else {}
    values = {key: value for key, value in expected.items() if key not in resolve.YOURS}
    assert recipe.values == values


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_trains(name, folder, tmp_path):
    """Two steps of a published recipe give a finite loss and change the weights."""
    values = resolve.check(resolve.resolve(name), ["train.epochs=1"])
    p, shape = section(values), shape_of(values)
    count = 2 * p.batch_size
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(count) % shape.num_classes
    arrays = Arrays(images, labels, images[:10], labels[:10])
    splits = load_splits(p, arrays, shape, torch.device("cpu"), processes=1)
    net = fit.build(p, shape, fit.network_options(p), 0, splits.sample, torch.device("cpu"))
    before = [value.clone() for value in net.parameters()]

    world = World()
    journal = fit.Journal(Checkpoints(tmp_path, PROVENANCE, {}), world, epochs=1)
    member = fit.fit_member(p, 0, 0, net, splits, world, journal)
    assert math.isfinite(member.history[0].train_loss)
    after = member.net.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.long
def test_dense_head_100_runs_on_an_archive_in_the_official_layout(project):
    """An archive in CIFAR-100's binary layout gives top-5 accuracies of both held-out parts."""
    rng, folder = np.random.default_rng(0), project.path.parent
    labels = {"train.bin": np.repeat(np.arange(100), 5), "test.bin": np.arange(100)}
    names = "\n".join(f"thing {i}" for i in range(100)).encode()
    with tarfile.open(folder / "made.tar.gz", "w:gz") as tar:
        for name, fine in labels.items():
            rows = rng.integers(0, 256, (len(fine), 3074), dtype=np.uint8)
            rows[:, 1] = fine
            add(tar, f"cifar-100-binary/{name}", rows.tobytes())
        add(tar, "cifar-100-binary/fine_label_names.txt", names)
    sha256 = hashlib.sha256((folder / "made.tar.gz").read_bytes()).hexdigest()
    settings = [f"fetch.source={folder}/made.tar.gz", f"fetch.sha256={sha256}",
                "train.epochs=1", "plot.dpi=50"]  # fmt: skip
    overrides = [f"-S{item}" for item in settings]
    done = project.run("python", "-m", "recipes", "run", "dense-head-100", *overrides)
    assert project.ran(done.stdout) == ["fetch", "preprocess", "train", "evaluate", "plot"]
    assert "WARNING" not in done.stdout + done.stderr, "the clone has no dvc.lock, as it should"
    for split, file in (("test", "test"), ("val", "train")):
        numbers = json.loads((project.path / f"metrics/{file}.json").read_text())[split]
        assert numbers["accuracy"] <= numbers["top5_accuracy"] < 0.5


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
