"""Recipes: small files over params.yaml, shown, applied and run as experiments."""

import hashlib
import io
import json
import math
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar import UserError, networks, params, tensors
from cifar.params.train import Train
from cifar.training.distributed import World
from recipes import __main__ as recipes
from stages import train

ROOT = Path(__file__).parent.parent
HARDWARE = {"device", "threads", "processes", "stream", "precision", "compile"}
PARAMS = (ROOT / "params.yaml").read_text()


def lines(text):
    """(key, value, comment) of every line of params.yaml."""
    return [
        re.fullmatch(r"( *(?:\w+:)?)(.*?)( *#.*)?", line).groups() for line in text.splitlines()
    ]


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
    classes, channels = {"digits": (10, 1), "cifar100": (100, 3)}.get(
        checked["fetch"].dataset, (10, 3)
    )
    facts = {
        "num_classes": classes,
        "in_channels": channels,
        "image_size": size,
        "mean": [0.0],
        "std": [1.0],
    }
    assert networks.build(train.model, networks.arguments(train.model, train, facts), seed=0)


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
    assert [line.split()[0] for line in listed] == sorted(
        path.stem for path in (ROOT / "recipes").glob("*.yaml")
    )
    digits = (ROOT / "recipes/digits.yaml").read_text()
    assert digits.splitlines()[0].removeprefix("# ") in [
        line.split(maxsplit=1)[1] for line in listed
    ]
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
    (project.path / "recipes/wrong.yaml").write_text(
        "# not for this pipeline\ntrain: {droput: 0.3}\n"
    )
    project.commit()
    done = project.run("python", "-m", "recipes", "run", "digits", "wrong", ok=False)
    assert done.returncode == 1 and not project.ran(done.stdout)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(
        "error: unknown key train.droput"
    )
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_recipes_run_as_experiments_of_their_names(reproduced):
    """Each recipe runs from the user's params.yaml and not from the one before; with `--demo` the file stays as is."""
    for name, values in {"sharp": "plot: {dpi: 60}", "few": "plot: {mistakes: 6}"}.items():
        (reproduced.path / f"recipes/{name}.yaml").write_text(f"# {name}\n{values}\n")
    reproduced.commit()
    done = reproduced.run("python", "-m", "recipes", "run", "sharp", "few")
    assert reproduced.ran(done.stdout) == ["plot"], (
        "few has the values of the last commit, whose results are cached"
    )
    assert set(reproduced.run("dvc", "exp", "list", "--name-only").stdout.split()) == {
        "sharp",
        "few",
    }
    difference = json.loads(
        reproduced.run("dvc", "params", "diff", "few", "sharp", "--json").stdout
    )
    assert [(k, v["new"]) for k, v in difference["params.yaml"].items()] == [("plot.dpi", 60)]

    reproduced.edit(
        "params.yaml",
        lambda text: text.replace("mistakes: 6", "mistakes:   5") + "\n# my own remark\n",
    )
    mine = (reproduced.path / "params.yaml").read_bytes()
    demo = reproduced.run(
        "python", "-m", "recipes", "run", "sharp", "--demo", "-S", "plot.mistakes=6"
    )
    assert (reproduced.path / "params.yaml").read_bytes() == mine
    assert "Test accuracy" in demo.stdout and "dvc exp apply sharp" in demo.stdout


@pytest.mark.long
def test_a_machine_where_git_has_no_name_runs_recipes(reproduced):
    """Git without user.name and user.email, and an edited params.yaml: the recipe runs, and its end names the mend."""
    reproduced.run("git", "config", "--unset", "user.name")
    reproduced.run("git", "config", "--unset", "user.email")
    reproduced.edit("params.yaml", lambda text: text.replace("dpi: 50", "dpi: 55"))
    (reproduced.path / "recipes/few.yaml").write_text("# fewer mistakes\nplot: {mistakes: 5}\n")
    done = reproduced.run("python", "-m", "recipes", "run", "few", "--demo")
    assert (
        reproduced.ran(done.stdout) == ["plot"] and "git config --global user.email" in done.stdout
    )


def test_queued_recipes_wait(reproduced):
    """`run --queue` queues each recipe under its name, with text of any alphabet as it is, and runs nothing."""
    name = "bücher 1, “x”"
    override = f"fetch.source={name}"
    command = (
        "python",
        "-m",
        "recipes",
        "run",
        "digits",
        "--queue",
        "-S",
        "fetch.dataset=images",
        "-S",
        override,
    )
    before = (reproduced.path / "params.yaml").read_bytes()
    done = reproduced.run(*command)
    assert (
        not reproduced.ran(done.stdout) and (reproduced.path / "params.yaml").read_bytes() == before
    )
    assert re.search(r"digits .*Queued", reproduced.run("dvc", "queue", "status").stdout)
    stash = reproduced.run("git", "rev-parse", "refs/exps/celery/stash").stdout.strip()
    assert (
        name
        in reproduced.run(
            "git", "-c", "core.quotePath=false", "show", f"{stash}:params.yaml"
        ).stdout
    )


# What each tutorial states: the share of its training images that validates, and the parameters of its training.
VGG = {
    "model": "vgg",
    "batch_size": 64,
    "optimizer": "sgd",
    "lr": 0.001,
    "momentum": 0.9,
    "epochs": 100,
}
SHIFTED = {"flip": "random", "shift": 3}
DENSE = {"model": "dense_head", "epochs": 100, "batch_size": 50, "optimizer": "adam", "lr": 0.001}
PLAIN = {
    "dropout": 0.0,
    "dropout_step": 0.0,
    "batch_norm": False,
    "weight_decay": 0.0,
    "flip": "none",
    "shift": 0,
}
PUBLISHED = {
    "convpool": (
        0.1,
        {
            "model": "convpool",
            "epochs": 10,
            "batch_size": 10,
            "optimizer": "sgd",
            "lr": 0.01,
            "momentum": 0.0,
        },
    ),
    "gap": (
        0.1,
        {
            "model": "gap",
            "epochs": 10,
            "batch_size": 100,
            "optimizer": "adam",
            "lr": 0.001,
            "dropout": 0.25,
        },
    ),
    "vgg1": (0.1, VGG | {"depth": 1}),
    "vgg2": (0.1, VGG | {"depth": 2}),
    "vgg3": (0.1, VGG | {"depth": 3}),
    "vgg3-dropout": (0.1, VGG | {"depth": 3, "dropout": 0.2}),
    "vgg3-decay": (0.1, VGG | {"depth": 3, "weight_decay": 2 * 0.001}),
    "vgg3-augment": (0.1, VGG | {"depth": 3} | SHIFTED),
    "vgg3-rising-dropout": (
        0.1,
        VGG | {"depth": 3, "epochs": 200, "dropout": 0.2, "dropout_step": 0.1},
    ),
    "vgg3-dropout-augment": (0.1, VGG | {"depth": 3, "epochs": 200, "dropout": 0.2} | SHIFTED),
    "vgg3-full": (
        0.1,
        VGG
        | {"depth": 3, "epochs": 400, "dropout": 0.2, "dropout_step": 0.1, "batch_norm": True}
        | SHIFTED,
    ),
    "dense-head": (0.2, DENSE),
    "dense-head-100": (0.2, DENSE),
    "sgd-cnn": (
        0.2,
        {
            "model": "sgd_cnn",
            "epochs": 100,
            "batch_size": 64,
            "optimizer": "sgd",
            "lr": 0.01,
            "momentum": 0.9,
        },
    ),
}


def test_every_published_recipe_is_there():
    """The fourteen recipes of the five tutorials are those that name what was published."""
    stated = {
        path.stem
        for path in (ROOT / "recipes").glob("*.yaml")
        if "\n# Published: " in path.read_text()
    }
    assert stated == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_was_published_and_trains(name, monkeypatch):
    """Its parameters are the published ones, whatever params.yaml had before, and two steps change the weights."""
    monkeypatch.chdir(ROOT)
    share, stated = PUBLISHED[name]
    flat = recipes.values(name, [])
    off = {
        "nesterov": False,
        "schedule": "constant",
        "label_smoothing": 0.0,
        "ema": 0.0,
        "keep": "last",
        "cutout": 0,
    }
    for key, value in (PLAIN | off | stated).items():
        assert flat[f"train.{key}"] == value, key
    scaling = "standardize" if name == "gap" else "unit"  # gap does not state it
    assert (flat["preprocess.val_fraction"], flat["preprocess.normalize"]) == (share, scaling)
    own = {key.split(".")[1] for key in flat if key.startswith("train.")}
    assert set(Train.model_fields) - own <= {
        "drop",
        "drop_epochs",
        "monitor",
        "small_scale",
        *HARDWARE,
    }

    p = Train(
        **params.read("params.yaml")["train"]
        | {k.split(".")[1]: v for k, v in flat.items() if "train." in k}
    )
    p = p.model_copy(update={"epochs": 1})
    count, classes = 2 * p.batch_size, 100 if name.endswith("100") else 10
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,))
    facts = {"num_classes": classes, "in_channels": 3, "image_size": 32}
    net = networks.build(p.model, networks.arguments(p.model, p, facts), 0)
    before = [value.clone() for value in net.parameters()]
    normalize = tensors.normalizer([0.0] * 3, [1.0] * 3, torch.device("cpu"))
    data = train.Data(
        train.augmented(p, images, labels, normalize), images[:10], labels[:10], normalize, World()
    )
    trainer = train.make_trainer(net, p, count, World())
    list(train.run_epochs(trainer, p, 0, data))
    assert len(trainer.history) == 1 and math.isfinite(trainer.history[0].train_loss)
    assert any(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_dense_head_100_runs_on_an_archive_in_the_official_layout(project):
    """From an archive of CIFAR-100's binary layout to top-5 accuracies of both held-out parts."""
    rng, folder = np.random.default_rng(0), project.path.parent
    with tarfile.open(folder / "made.tar.gz", "w:gz") as tar:
        for name, labels in (
            ("train.bin", np.repeat(np.arange(100), 5)),
            ("test.bin", np.arange(100)),
        ):
            rows = rng.integers(0, 256, (len(labels), 3074), dtype=np.uint8)
            rows[:, 1] = labels
            add(tar, f"cifar-100-binary/{name}", rows.tobytes())
        add(
            tar,
            "cifar-100-binary/fine_label_names.txt",
            "\n".join(f"thing {i}" for i in range(100)).encode(),
        )
    sha256 = hashlib.sha256((folder / "made.tar.gz").read_bytes()).hexdigest()
    settings = (
        f"fetch.source={folder}/made.tar.gz",
        f"fetch.sha256={sha256}",
        "train.epochs=1",
        "plot.dpi=50",
    )
    done = project.run(
        "python", "-m", "recipes", "run", "dense-head-100", *(f"-S{item}" for item in settings)
    )
    assert project.ran(done.stdout) == ["fetch", "preprocess", "train", "evaluate", "plot"]
    for split, file in (("test", "test"), ("val", "train")):
        numbers = json.loads((project.path / f"metrics/{file}.json").read_text())[split]
        assert numbers["accuracy"] <= numbers["top5_accuracy"] < 0.5


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
