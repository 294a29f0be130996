"""Named recipes: small files of parameters laid over params.yaml.

    python -m recipes list
    python -m recipes show NAME
    python -m recipes run NAME... [--queue] [-S train.epochs=3]     as DVC experiments of these names
    python -m recipes apply NAME                                    write its values into params.yaml

`run` is `dvc exp run --name NAME -S …` with the recipe's values; later -S options win. Everything is
checked, all recipes and all overrides, before anything runs. As with `dvc exp run`, the values of the last one stay in
params.yaml (not with --queue or --demo): `git checkout params.yaml` takes the committed ones back.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cifar import UserError, files, params, stage
from cifar.experiments.table import flatten

FOLDER = Path(__file__).parent
PARAMS = Path("params.yaml")


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m recipes", description=__doc__, formatter_class=style
    )
    parser.add_argument("command", choices=["list", "show", "run", "apply"])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="recipes; all is all the published ones"
    )
    parser.add_argument(
        "--queue", action="store_true", help="queue the experiments; `dvc queue start` runs them"
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="put params.yaml back at the end and say what comes next",
    )
    parser.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", dest="overrides"
    )
    options = parser.parse_args()
    published = [
        name for name in known() if "# Published:" in (FOLDER / f"{name}.yaml").read_text()
    ]
    names = published if options.names == ["all"] else options.names
    if options.command == "list":
        for name in known():
            print(
                f"{name:<22}{(FOLDER / f'{name}.yaml').read_text().splitlines()[0].removeprefix('# ')}"
            )
        return
    if not names:
        raise UserError("no recipe named (command line): `python -m recipes list` shows them")
    if options.command == "apply" and len(names) > 1:
        raise UserError(
            f"{len(names)} recipes named (command line): params.yaml takes one at a time"
        )
    chosen = {name: values(name, options.overrides) for name in names}
    if options.command == "show":
        for name in chosen:
            print((FOLDER / f"{name}.yaml").read_text(), end="")
    elif options.command == "apply":
        apply(chosen[names[0]])
    else:
        run(chosen, options.queue, options.demo)


def known() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def values(name: str, overrides: list[str]) -> dict[str, Any]:
    """The recipe's values as {'train.lr': 0.01, …}, overrides last, checked together with params.yaml.

    Raises:
        UserError: no such recipe, or a key or value that params.yaml could not hold.
    """
    if name not in known():
        raise UserError(
            f"no recipe {name!r}{params.did_you_mean(name, known())} ({FOLDER.name}/): `python -m recipes list`"
        )
    flat = dict(flatten(params.read(FOLDER / f"{name}.yaml")))
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator:
            raise UserError(
                f"{item!r} is no KEY=VALUE (command line, -S): write for example -S train.epochs=3"
            )
        try:
            flat[key] = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError, RecursionError):
            raise UserError(
                f"{item!r} has no value that YAML can read (command line, -S): quote it"
            ) from None
    whole = params.read(PARAMS)
    for key, value in flat.items():
        put(whole, key, value)
    params.check(whole, f"{PARAMS} with recipe {name}")
    return flat


def put(tree: Any, key: str, value: Any) -> None:
    """tree['train']['lr'] = value for the key 'train.lr'."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UserError(f"{section} is no section of {PARAMS} ({key}): write SECTION.KEY")
    tree[last] = value


def apply(flat: dict[str, Any]) -> None:
    """Write values into params.yaml; its comments stay."""
    yaml = YAML()
    yaml.width = 200
    tree = yaml.load(PARAMS.read_text())
    for key, value in flat.items():
        put(tree, key, value)
    with files.atomic(PARAMS) as handle:
        yaml.dump(tree, handle)


def run(chosen: dict[str, dict[str, Any]], queue: bool, demo: bool) -> None:
    """One DVC experiment per recipe, of its name, on the data set that params.yaml or an override names.

    An older experiment of the name is replaced once this one is done; one that is queued leaves it as NAME-before.
    """
    if not shutil.which("dvc"):
        raise UserError("no dvc command (PATH): `source .venv/bin/activate` first")
    before = PARAMS.read_bytes()
    for name, flat in chosen.items():
        files.write_bytes(PARAMS, before)  # without the values of the recipe before
        dvc("exp", "remove", f"{name}-before")
        dvc(
            "exp", "rename", name, f"{name}-before"
        )  # where there is one; kept until its successor is there
        sets = [
            f"--set-param={key}={json.dumps(value, ensure_ascii=False)}"
            for key, value in flat.items()
        ]
        command = ["dvc", "exp", "run", "--name", name, *(["--queue"] if queue else []), *sets]
        print(
            f"{name} on {flat.get('fetch.dataset', params.read(PARAMS)['fetch']['dataset'])}",
            flush=True,
        )
        code = 1
        try:
            code = subprocess.run(command, check=False, env=os.environ | identity()).returncode
        finally:
            if demo or queue:
                files.write_bytes(PARAMS, before)
            if code or not queue:
                dvc(
                    *(
                        ("exp", "rename", f"{name}-before", name)
                        if code
                        else ("exp", "remove", f"{name}-before")
                    )
                )
        if code:
            sys.exit(code)
    if queue:
        print("next: `dvc queue start` runs them, `dvc queue status` shows how far they are")
    elif demo:
        next_steps(name)


def identity() -> dict[str, str]:
    """A name for the commits that DVC stores experiments in, on a new machine where Git has none."""
    if (
        subprocess.run(["git", "config", "user.email"], capture_output=True, check=False).returncode
        == 0
    ):
        return {}
    roles = ("AUTHOR", "COMMITTER")
    return {f"GIT_{role}_NAME": "nobody" for role in roles} | {
        f"GIT_{role}_EMAIL": "nobody@localhost" for role in roles
    }


def dvc(*words: str) -> None:
    """A command that may have nothing to do, and then says so to nobody."""
    subprocess.run(["dvc", *words, "--quiet"], capture_output=True, check=False)


def next_steps(name: str) -> None:
    test = files.read_json("metrics/test.json")["test"]
    who = (
        "\n  git config --global user.email you@…    and user.name: DVC needs them"
        if identity()
        else ""
    )
    print(f"""
Test accuracy {test["accuracy"]:.2%}, 95 % interval {test["accuracy_low"]:.2%} to {test["accuracy_high"]:.2%}.
Pictures: plots/curves.png, classes.png, confusion.png, calibration.png, mistakes.png, pixels.png, samples.png, …
params.yaml is as it was; this run is the experiment `{name}`. Next:
  source .venv/bin/activate               the dvc command, in this terminal{who}
  {f"dvc exp apply {name}":<40}take up the experiment: its parameters and results
  dvc exp run -S train.dropout=0.3        change one value: only train and what follows runs again
  {f"dvc metrics diff {name}":<40}what it did
  make show                               all experiments in one table
  git checkout params.yaml && dvc repro   the real thing: CIFAR-10""")


if __name__ == "__main__":
    stage.run(main)
