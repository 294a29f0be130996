"""Recipes: small files over params.yaml, shown, applied and run as experiments."""

import json
import re
from pathlib import Path

import pytest

from cifar import UserError, network, params
from recipes import __main__ as recipes

ROOT = Path(__file__).parent.parent
PARAMS = (ROOT / "params.yaml").read_text()


def lines(text):
    """(key, value, comment) of every line of params.yaml."""
    return [re.fullmatch(r"( *(?:\w+:)?)(.*?)( *#.*)?", line).groups() for line in text.splitlines()]


@pytest.mark.parametrize("name", recipes.known())
def test_every_recipe_fits(name, monkeypatch):
    """A recipe starts with a line that says what it is, params.yaml with its values is valid, and the network that
    they describe can be built for its images."""
    monkeypatch.chdir(ROOT)
    assert re.match("# .{10,}", (ROOT / f"recipes/{name}.yaml").read_text())
    whole = params.read()
    for key, value in recipes.values(name, []).items():
        recipes.put(whole, key, value)
    checked = params.check(whole)
    train, size = checked["train"], checked["preprocess"].image_size
    classes, channels = {"digits": (10, 1), "cifar100": (100, 3)}.get(checked["fetch"].dataset, (10, 3))
    facts = {"num_classes": classes, "in_channels": channels, "image_size": size, "mean": [0.0], "std": [1.0]}
    assert network.build(train.model, network.arguments(train.model, train, facts), seed=0)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("digit", [], "no recipe 'digit' (did you mean digits?)"),
        ("../params", [], "no recipe '../params'"),
        ("digits", ["train.droput=0.3"], "unknown key train.droput (did you mean dropout?)"),
        ("digits", ["tran.dropout=0.3"], "unknown section tran (did you mean train?)"),
        ("digits", ["train.epochs=many"], "train.epochs = 'many'"),
        ("digits", ["train.epochs"], "'train.epochs' is no KEY=VALUE"),
        ("digits", ["train.lr=["], "'train.lr=[' has no value that YAML can read"),
        ("digits", ["train.lr.high=1"], "lr is no section of params.yaml (train.lr.high)"),
        ("digits", ["train=1"], "section train is missing"),
    ],
)
def test_what_params_could_not_hold_is_refused(name, override, message, monkeypatch):
    """An unknown recipe and an override that params.yaml could not hold are errors that name the mistake."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=re.escape(message)):
        recipes.values(name, override)


def test_list_and_show(project):
    """`list` has every recipe with its first line, `show` is the file itself."""
    listed = project.run("python", "-m", "recipes", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    digits = (ROOT / "recipes/digits.yaml").read_text()
    assert digits.splitlines()[0].removeprefix("# ") in [line.split(maxsplit=1)[1] for line in listed]
    assert project.run("python", "-m", "recipes", "show", "digits").stdout == digits


def test_apply_changes_the_values_and_nothing_else(project):
    """`apply` writes a recipe's values into params.yaml and keeps every other value and every comment."""
    project.run("python", "-m", "recipes", "apply", "digits", "-S", "train.epochs=3")
    path = project.path / "params.yaml"
    recipe = recipes.flatten(params.read(ROOT / "recipes/digits.yaml"))
    wanted = params.read(ROOT / "params.yaml")
    for key, value in [*recipe, ("train.epochs", 3)]:
        section, name = key.split(".")
        wanted[section][name] = value
    assert params.read(path) == wanted
    old, new = lines(PARAMS), lines(path.read_text())
    assert [(key, comment and comment.strip()) for key, _, comment in new] == [
        (key, comment and comment.strip()) for key, _, comment in old
    ]


def test_a_mistake_in_one_recipe_stops_all(project):
    """Before the first of several recipes runs, all are checked: one error line, nothing run or changed."""
    (project.path / "recipes/wrong.yaml").write_text("# not for this pipeline\ntrain: {droput: 0.3}\n")
    project.commit()
    done = project.run("python", "-m", "recipes", "run", "digits", "wrong", ok=False)
    assert done.returncode == 1 and not project.ran(done.stdout)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: unknown key train.droput")
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_recipes_run_as_experiments_of_their_names(reproduced):
    """Each recipe runs from the user's params.yaml and not from the one before; with `--demo` the file stays as is."""
    for name, values in {"sharp": "plot: {dpi: 60}", "few": "plot: {mistakes: 6}"}.items():
        (reproduced.path / f"recipes/{name}.yaml").write_text(f"# {name}\n{values}\n")
    reproduced.commit()
    done = reproduced.run("python", "-m", "recipes", "run", "sharp", "few")
    assert reproduced.ran(done.stdout) == ["plot"], "few has the values of the last commit, whose results are cached"
    assert set(reproduced.run("dvc", "exp", "list", "--name-only").stdout.split()) == {"sharp", "few"}
    difference = json.loads(reproduced.run("dvc", "params", "diff", "few", "sharp", "--json").stdout)
    assert [(k, v["new"]) for k, v in difference["params.yaml"].items()] == [("plot.dpi", 60)]

    reproduced.edit("params.yaml", lambda text: text.replace("mistakes: 6", "mistakes:   5") + "\n# my own remark\n")
    mine = (reproduced.path / "params.yaml").read_bytes()
    demo = reproduced.run("python", "-m", "recipes", "run", "sharp", "--demo", "-S", "plot.mistakes=6")
    assert (reproduced.path / "params.yaml").read_bytes() == mine
    assert "Test accuracy" in demo.stdout and "dvc exp apply sharp" in demo.stdout


def test_queued_recipes_wait(reproduced):
    """`run --queue` queues each recipe under its name, with text of any alphabet as it is, and runs nothing."""
    name = "bücher 1, “x”"
    override = f"fetch.source={name}"
    command = ("python", "-m", "recipes", "run", "digits", "--queue", "-S", "fetch.dataset=images", "-S", override)
    before = (reproduced.path / "params.yaml").read_bytes()
    done = reproduced.run(*command)
    assert not reproduced.ran(done.stdout) and (reproduced.path / "params.yaml").read_bytes() == before
    assert re.search(r"digits .*Queued", reproduced.run("dvc", "queue", "status").stdout)
    stash = reproduced.run("git", "rev-parse", "refs/exps/celery/stash").stdout.strip()
    assert name in reproduced.run("git", "-c", "core.quotePath=false", "show", f"{stash}:params.yaml").stdout
