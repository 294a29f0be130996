"""Faults: a stage ends in one line and leaves no partial output; the next run is right."""

import os
import re
import shutil
import signal
import subprocess
from functools import partial

import forked
import pytest
from ruamel.yaml import YAML
from scratch import ROOT, content

# For each stage, a size in bytes below that of an output, and the number of files that it writes.
STAGES = {
    "fetch": (20_000, 3),
    "preprocess": (5_000, 11),
    "train": (5_000, 9),  # the owner files of two locks, three checkpoints and four outputs
    "evaluate": (1_000, 5),
    "plot": (5_000, 8),
}
RESULTS = ("data", "models", "metrics", "plots")
SLOW_APART = [
    pytest.param(stage, marks=pytest.mark.long) if stage == "plot" else stage for stage in STAGES
]
OUTPUTS = {
    "fetch": ["data/fetched"],
    "preprocess": ["data/processed"],
    "train": ["models/model.json", "models/model.safetensors", "plots/history.csv"],
    "evaluate": [
        "metrics/test.json",
        "models/card.md",
        "plots/classes.csv",
        "plots/gradients.npy",
        "plots/predictions.csv",
    ],
}


PROMISE = "A bad input ends in one line that says what, where, and how to fix it."
BAD_INPUTS = [  # a stage, a file that it reads, its damage, and what the error must name
    ("fetch", "params.yaml", ("dataset: digits", "dataset: cifar11"), "fetch.dataset"),
    ("preprocess", "params.yaml", ("image_size: 8", "image_size: big"), "preprocess.image_size"),
    ("preprocess", "data/fetched/dataset.json", "{}", "data/fetched/dataset.json"),
    ("preprocess", "data/fetched/train_images.npy", "cut", "train_images.npy"),
    ("train", "params.yaml", ("model: vgg", "model: vgh"), "train.model"),
    ("train", "params.yaml", ("dropout:", "droput:"), "did you mean dropout?"),
    ("train", "data/processed/train/labels.npy", "cut", "labels.npy"),
    ("evaluate", "models/model.safetensors", "cut", "models/model.safetensors"),
    ("plot", "plots/predictions.csv", "<<<<<<< HEAD", "plots/predictions.csv"),
]


def results(folder):
    """Every file that the stages have written in the folder, including temporary ones."""
    return {
        f"{name}/{file}": body for name in RESULTS for file, body in content(folder / name).items()
    }


def one_line(ended, message, code=1):
    """Assert that the run ended with this exit code and one error line with the message."""
    assert ended.code == code, ended
    assert re.fullmatch(r"error: [^\n]*\n", ended.errors), ended.errors
    assert message in ended.errors


@pytest.fixture(scope="module")
def finished(first_run, tmp_path_factory):
    """Code, parameters and results of a complete run, without Git and DVC."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(
        first_run.project.path,
        folder,
        ignore=shutil.ignore_patterns(".*", "tests", "docs", "recipes"),
    )
    return folder


@pytest.fixture
def before(finished, tmp_path):
    """A function that copies the project without one stage's outputs, as DVC removes them."""

    def make(stage):
        folder = shutil.copytree(finished, tmp_path / "project")
        pictures = [f"plots/{path.name}" for path in (folder / "plots").glob("*.png")]
        for name in {**OUTPUTS, "plot": pictures}[stage]:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
        return folder

    return make


@pytest.mark.hostile
def test_a_network_that_imports_another_file_is_one_line(before):
    """DVC watches the network's own file: an edit of the other one would rerun nothing."""
    folder = before("train")
    with (folder / "cifar/models/vgg.py").open("a") as handle:
        handle.write("from cifar.models import convpool\n")
    ended = forked.run(folder, "train", DVC_STAGE="train", DVC_ROOT=str(folder))
    one_line(ended, "stage train imports cifar/models/convpool.py, which is not among its depend")


@pytest.mark.hostile
@pytest.mark.parametrize(("stage", "name", "damage", "named"), BAD_INPUTS)
def test_a_bad_input_is_one_line(stage, name, damage, named, before):
    """README's promise holds for a bad value and for a damaged file of each stage."""
    assert PROMISE in (ROOT / "README.md").read_text().replace("\n", " ")
    folder = before(stage)
    text = damage
    if isinstance(damage, tuple):
        text = (folder / name).read_text()
        assert damage[0] in text
        text = text.replace(*damage, 1)
    (folder / name).write_text(text)
    ended = forked.run(folder, stage)
    one_line(ended, named)
    assert re.fullmatch(r"error: .+ \(.+\): .+\n", ended.errors), ended.errors


def check_rerun(folder, stage, finished):
    """Assert that the next, undisturbed run leaves exactly the results of a complete run."""
    assert forked.run(folder, stage)[::2] == (0, "")
    assert results(folder) == results(finished)


@pytest.mark.fault
@pytest.mark.parametrize("stage", SLOW_APART)
def test_a_full_disk(stage, before, finished):
    """A full disk is one line with the file; files written before and the next run are right."""
    folder = before(stage)
    one_line(
        forked.run(folder, stage, partial(forked.full_disk, STAGES[stage][0])), "File too large ("
    )
    assert results(folder).items() <= results(finished).items()
    check_rerun(folder, stage, finished)


def kill(folder, stage, fault, finished):
    """Kill the stage; assert that finished files are right, and at most three are temporary."""
    assert forked.run(folder, stage, fault).code in (-signal.SIGKILL, -signal.SIGXFSZ)
    wrong = [name for name, body in results(folder).items() if results(finished).get(name) != body]
    assert all(re.search(r"/\.[^/]+\.tmp$", name) for name in wrong) and len(wrong) <= 3


@pytest.mark.fault
@pytest.mark.parametrize("stage", SLOW_APART)
def test_a_kill(stage, before, finished):
    """A stage that is killed while it writes a file, or before it renames its last one, leaves
    only right files."""
    folder = before(stage)
    size, files = STAGES[stage]
    kill(folder, stage, partial(forked.killed_at, size), finished)
    kill(folder, stage, partial(forked.at_write, files, forked.die), finished)
    check_rerun(folder, stage, finished)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_every_file(stage, before, finished):
    """A stage that is killed at any of its files leaves only right files; the next run is right."""
    folder = before(stage)
    for number in range(1, STAGES[stage][1] + 1):
        shutil.rmtree(folder)
        kill(before(stage), stage, partial(forked.at_write, number, forked.die), finished)
        check_rerun(folder, stage, finished)


@pytest.fixture
def pictures(finished, tmp_path):
    """A project whose data are the user's own pictures, fetched into four shards."""
    folder = shutil.copytree(finished, tmp_path / "project")
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(name.encode() * 2000)
    yaml = YAML()
    values = yaml.load(folder / "params.yaml")
    values["fetch"] |= {"dataset": "images", "source": str(tmp_path / "pets")}
    yaml.dump(values, folder / "params.yaml")
    assert forked.run(folder, "fetch", forked.small_shards).code == 0
    return folder


SHARDS = {"pictures-00000.tar", "pictures-00001.tar", "pictures-00002.tar", "pictures-00003.tar"}


@pytest.mark.fault
@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[] if n in (1, 6) else pytest.mark.long) for n in range(1, 7)]
)
def test_a_kill_at_every_shard(number, pictures):
    """If fetch is killed before it renames any of its files, preprocess refuses its output; the
    next run gives the bytes of an undisturbed one, also with fewer shards."""
    expected = content(pictures / "data/fetched")
    assert expected.keys() == {"dataset.json", "index.npy", *SHARDS}
    fault = partial(forked.small_shards, partial(forked.at_write, number, forked.die))
    assert forked.run(pictures, "fetch", fault).code == -signal.SIGKILL
    one_line(forked.run(pictures, "preprocess"), "(data/fetched/dataset.json): `dvc repro` makes")
    assert forked.run(pictures, "fetch", forked.small_shards).code == 0
    assert content(pictures / "data/fetched") == expected
    forked.run(pictures, "fetch", fault)
    assert forked.run(pictures, "fetch").code == 0
    assert content(pictures / "data/fetched").keys() == {
        *("dataset.json", "index.npy", "pictures-00000.tar")
    }


@pytest.mark.fault
def test_a_shard_that_is_lost(pictures):
    """If a shard is missing, preprocess names it and the command that restores it; it writes
    nothing."""
    before = content(pictures / "data/processed")
    (pictures / "data/fetched/pictures-00001.tar").unlink()
    one_line(
        forked.run(pictures, "preprocess"),
        "(data/fetched/pictures-00001.tar): `dvc repro --force fetch` makes them again",
    )
    assert content(pictures / "data/processed") == before


@pytest.mark.fault
def test_a_stale_temporary_file(before, finished):
    """Temporary files of an earlier crash change nothing and are removed."""
    folder = before("plot")
    for name in ("curves", "filters"):
        (folder / f"plots/.{name}.png.tmp").write_bytes(b"half of another picture" * 10_000)
    check_rerun(folder, "plot", finished)


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["hard link", "symbolic link"])
def test_a_read_only_link_into_the_cache(kind, finished, before, tmp_path):
    """Read-only links into DVC's cache are replaced, never written through."""
    folder = before("evaluate")
    wrong, cache = b"results of other parameters", tmp_path / "cache"
    cache.write_bytes(wrong)
    cache.chmod(0o444)
    (os.link if kind == "hard link" else os.symlink)(cache, folder / "plots/predictions.csv")
    check_rerun(folder, "evaluate", finished)
    assert cache.read_bytes() == wrong


@pytest.mark.fault
def test_a_read_only_folder(before, finished):
    """A read-only folder is one line with its name; its files stay."""
    folder = before("evaluate")
    freeze, thaw = ("chattr", "+i"), ("chattr", "-i")
    if os.geteuid():
        freeze, thaw = ("chmod", "a-w"), ("chmod", "u+w")
    if subprocess.run([*freeze, folder / "plots"], capture_output=True).returncode:
        pytest.skip("root writes everywhere on this file system")
    try:
        ended = forked.run(folder, "evaluate")
    finally:
        subprocess.run([*thaw, folder / "plots"], check=True)
    one_line(ended, "plots/")
    assert results(folder).items() <= results(finished).items()
    check_rerun(folder, "evaluate", finished)


@pytest.mark.fault
@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_too_little_memory_on_the_device(stage, before, finished):
    """CUDA's out-of-memory error is one line that names the batch size; no file is written."""
    folder = before(stage)
    there = results(folder)
    one_line(
        forked.run(folder, stage, forked.no_memory),
        "error: out of memory (params.yaml): lower train.batch_size",
    )
    assert results(folder) == there
    check_rerun(folder, stage, finished)


@pytest.mark.fault
def test_a_loss_that_is_not_a_number(before, finished):
    """Training stops and names the epoch; it writes no result, and resumes from the good epochs."""
    folder = before("train")
    there = results(folder)
    ended = forked.run(folder, "train", partial(forked.hang_up, 5))  # an epoch has three steps
    one_line(ended, "error: the loss is not finite in epoch 2 (params.yaml, train.lr)")
    assert results(folder) == there
    again = forked.run(folder, "train")
    assert "resuming an interrupted run after epoch 1" in again.printed
    assert results(folder) == results(finished)


EDITS = {
    "a parameter": "params.yaml",
    "data": "data/processed/train/labels.npy",
    "code": "cifar/training/optim.py",
}


@pytest.mark.fault
@pytest.mark.parametrize("what", EDITS)
def test_an_edit_while_training_runs(what, before, finished):
    """An edit during training fails the stage, and the next run uses the edited file."""
    folder = before("train")
    change = partial(forked.at_write, 1, partial(forked.edit, EDITS[what]))
    ended = forked.run(folder, "train", change, DVC_STAGE="train", DVC_ROOT=str(folder))
    one_line(ended, f"{EDITS[what]}")
    assert "changed while this stage ran (dvc.yaml): run `dvc repro` again" in ended.errors
    again = forked.run(folder, "train", DVC_STAGE="train", DVC_ROOT=str(folder))
    assert again[::2] == (0, "") and "resuming" not in again.printed
    assert (folder / "models/model.json").read_bytes() != (
        finished / "models/model.json"
    ).read_bytes()


@pytest.fixture(scope="module")
def interrupted(finished, tmp_path_factory):
    """A training that was killed after its first epoch, and its checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted") / "project"
    shutil.copytree(finished, folder)
    kill(folder, "train", partial(forked.at_write, 4, forked.die), finished)
    return folder


def checkpoint(folder):
    (path,) = (folder / ".checkpoints").glob("*/0.pt")
    return path


def flip(content):
    return content[:1000] + bytes([content[1000] ^ 16]) + content[1001:]


def replace(name, change):
    """A function that changes one file of a folder."""

    def edit(folder):
        before = (folder / name).read_bytes()
        assert change(before) != before, name
        (folder / name).write_bytes(change(before))

    return edit


STRANGERS = {  # changes between the interruption and the next run
    "one bit of the checkpoint": lambda folder: checkpoint(folder).write_bytes(
        flip(checkpoint(folder).read_bytes())
    ),
    "an emptied checkpoint": lambda folder: checkpoint(folder).write_bytes(b""),
    "a cut checkpoint": lambda folder: checkpoint(folder).write_bytes(
        checkpoint(folder).read_bytes()[:-1]
    ),
    "parameters": replace("params.yaml", lambda content: content.replace(b"lr: 0.05", b"lr: 0.06")),
    "data": replace("data/processed/train/images.npy", lambda content: content[:-1] + b"\7"),
    "code": replace(
        "cifar/training/trainer.py",
        lambda content: content.replace(b"self.loss(logits,", b"self.loss(2 * logits,"),
    ),
    "versions": lambda folder: None,
}


@pytest.mark.fault
@pytest.mark.parametrize("what", STRANGERS)
def test_a_checkpoint_that_does_not_fit(what, interrupted, tmp_path):
    """A damaged checkpoint, or one from other parameters, data, code or versions, is not used."""
    found, none = (shutil.copytree(interrupted, tmp_path / name) for name in ("found", "none"))
    shutil.rmtree(none / ".checkpoints")
    fault = forked.other_version if what == "versions" else None
    for folder in (found, none):
        STRANGERS[what](folder) if folder == found or "checkpoint" not in what else None
        ended = forked.run(folder, "train", fault)
        assert ended[::2] == (0, "") and "resuming" not in ended.printed
        assert ("damaged and is not used" in ended.printed) == (
            folder == found and "checkpoint" in what
        )
    assert results(found) == results(none)


def test_a_checkpoint_that_fits(interrupted, finished, tmp_path):
    """An unchanged checkpoint is used, and leaves no trace in the results."""
    folder = shutil.copytree(interrupted, tmp_path / "project")
    assert "resuming an interrupted run after epoch 1" in forked.run(folder, "train").printed
    assert results(folder) == results(finished)
