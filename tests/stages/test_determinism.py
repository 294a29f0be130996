"""With any options, a run that was killed gives the same bytes as one that was not."""

import random
import shutil
import signal
from functools import partial
from pathlib import Path

import forked
import options
import pytest
from ruamel.yaml import YAML
from scratch import content

ROOT = Path(__file__).resolve().parents[2]
COUNT = 30
WRITES = {"preprocess": 9, "train": 8, "evaluate": 5}  # the least number of files that each writes
RESULTS = ("data/processed", "models", "metrics", "plots")


@pytest.mark.long
def test_the_drawn_combinations_have_every_value_of_every_option():
    """Every value of every option is drawn, also of options that are new in the schema."""
    drawn = options.draw_all(COUNT)
    assert len(drawn) == COUNT
    for key, allowed in options.choices().items():
        section, name = key.split(".")
        assert {entry[section][name] for entry in drawn} == set(allowed), key


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A folder with the code and the raw digits."""
    folder = tmp_path_factory.mktemp("fetched") / "project"
    for name in ("cifar", "stages"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    write_params(folder, fetch={"dataset": "digits", "source": None, "sha256": None})
    assert forked.run(folder, "fetch")[::2] == (0, "")
    return folder


def write_params(folder, seed=0, **sections):
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml") | {"seed": seed}
    for name, changes in sections.items():
        values[name] |= changes
    yaml.dump(values, folder / "params.yaml")


def run(folder, stage):
    ended = forked.run(folder, stage)
    assert ended.code == 0, ended
    return ended


def kill(folder, stage, number, processes):
    """Kill the process that writes files when it has written `number` of them."""
    faults = folder / "faults"
    faults.mkdir(exist_ok=True)
    text = f"import forked\nforked.at_write({number}, forked.die)\n"
    (faults / "sitecustomize.py").write_text(text)
    path = f"{faults}:{Path(forked.__file__).parent}"  # for the processes that torchrun starts
    ended = forked.run(folder, stage, partial(forked.at_write, number, forked.die), PYTHONPATH=path)
    assert ended.code == (-signal.SIGKILL if processes == 1 else 1), ended


def results(folder):
    return {
        f"{name}/{file}": body for name in RESULTS for file, body in content(folder / name).items()
    }


@pytest.mark.long
@pytest.mark.fault
@pytest.mark.parametrize("number", range(COUNT))
def test_any_combination_gives_the_same_bytes_killed_or_not(number, fetched, tmp_path):
    """Two runs of a drawn combination give the same bytes, although each stage of one was
    killed."""
    combination = options.draw_all(COUNT)[number]
    chance = random.Random(number)
    whole = shutil.copytree(fetched, tmp_path / "whole")
    killed = shutil.copytree(fetched, tmp_path / "killed")
    for stage, writes in WRITES.items():
        for folder in (whole, killed):
            write_params(folder, number, **combination)
        processes = combination["train"]["processes"] if stage == "train" else 1
        kill(killed, stage, chance.randint(1, writes), processes)
        run(killed, stage)
        run(whole, stage)
        assert results(killed) == results(whole), (stage, combination)
