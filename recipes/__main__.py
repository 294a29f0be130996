"""Named recipes: small files of parameters that override those of params.yaml.

    python -m recipes list
    python -m recipes show NAME          print its values, and where params.yaml differs
    python -m recipes run NAME... [--queue] [-S train.epochs=3]
                                         run them as DVC experiments of these names
    python -m recipes apply NAME         write its values into params.yaml
    python -m recipes upgrade            add new parameters, off, to an older params.yaml

`run` is `dvc exp run --name NAME -S ...` with the values of the recipe; -S options override them.
All recipes and overrides are checked before anything runs. As with `dvc exp run`, the workspace
then holds the last experiment, params.yaml included (not with --queue). The name `all` stands for
all recipes with a published accuracy.
"""

from cifar import stage  # isort: skip  first, to report errors of the imports below

import argparse
from typing import Any

from cifar import UserError, files, params
from cifar.experiments.table import flatten
from recipes import edit, resolve
from recipes import run as runs

CHARTS = "curves, classes, confusion, calibration, mistakes, pixels, samples, filters (.png)"


def main() -> None:
    options = arguments()
    names = resolve.published() if options.names == ["all"] else options.names
    if options.command == "list":
        print_list()
    elif options.command == "upgrade":
        upgrade()
    elif not names:
        raise UserError("no recipe given (command line): `python -m recipes list` lists them")
    elif options.command == "apply" and len(names) > 1:
        raise UserError(f"{len(names)} recipes given (command line): pass only one to `apply`")
    else:
        recipes = [resolve.resolve(name) for name in names]
        chosen = {recipe.name: resolve.check(recipe, options.overrides) for recipe in recipes}
        if options.command == "show":
            for recipe in recipes:
                show(recipe, chosen[recipe.name])
        elif options.command == "apply":
            edit.apply(chosen[names[0]])
        elif options.demo:
            demo(chosen)
        else:
            runs.run(chosen, options.queue)


def arguments() -> argparse.Namespace:
    parser = stage.parser(__doc__)
    add = parser.add_argument
    add("command", choices=["list", "show", "run", "apply", "upgrade"])
    add("names", nargs="*", metavar="NAME", help="a recipe, or several for `run`; or `all`")
    add("--queue", action="store_true", help="queue the experiments; `dvc queue start` runs them")
    add("--demo", action="store_true", help="suggest at the end what to try next")
    text = "a value to use instead of the recipe's"
    add(
        "-S",
        "--set-param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help=text,
    )
    return parser.parse_args()


def print_list() -> None:
    """Print one line per recipe, of at most 100 columns, published recipes first."""
    recipes = sorted(map(resolve.resolve, resolve.known()), key=lambda recipe: not recipe.published)
    for recipe in recipes:
        print(f"{recipe.name:<22}{published(recipe):<21}{recipe.about}")
    count = sum(bool(recipe.published) for recipe in recipes)
    print(f"\n`all` stands for the {count} with a published test accuracy.")


def published(recipe: resolve.Recipe) -> str:
    """The published result as text, such as '66.86 %, 10 epochs'; empty if there is none."""
    if not recipe.published:
        return ""
    epochs = recipe.published.get("epochs")
    accuracy = f"{100 * recipe.published['accuracy']:.4g} %"
    return f"{accuracy}, {epochs} epochs" if epochs else accuracy


def show(recipe: resolve.Recipe, values: dict[str, Any]) -> None:
    """Print the resolved recipe as YAML; comments show the values in params.yaml that differ."""
    print(f"# {recipe.name}: {recipe.about}")
    if recipe.published:
        loss = recipe.published.get("loss")
        remarks = [f"loss {loss}" if loss else "", recipe.published.get("note", "")]
        print("# published:", "; ".join([published(recipe), *filter(None, remarks)]))
    if recipe.extends:
        print(f"# extends: {recipe.extends}")
    present = dict(flatten(params.read()))
    section = ""
    order = list(present | values)
    for key in sorted(values, key=order.index):
        name, _, last = key.partition(".")
        if last and name != section:
            print(f"{name}:")
            section = name
        line = f"{'  ' if last else ''}{last or name}: {text(values[key])}".rstrip()
        if values[key] != present.get(key):
            line = f"{line:<28}# params.yaml: {text(present.get(key)) or 'empty'}"
        print(line)


def text(value: Any) -> str:
    """A value as it is written in params.yaml."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def upgrade() -> None:
    added = edit.upgrade()
    for key, value in added.items():
        print(f"added {key}: {text(value)}".rstrip())
    params.check(params.read())
    print("params.yaml has all parameters" if added else "params.yaml is up to date")


def demo(chosen: dict[str, dict[str, Any]]) -> None:
    """Run recipes, then print what to try next."""
    edited = runs.keep_edits()
    runs.run(chosen, queue=False)
    test = files.read_json("metrics/test.json")["test"]
    name = list(chosen)[-1]
    who = ""
    if runs.identity():
        who = "\n  git config --global user.email you@...   and user.name: DVC needs both"
    print(f"""
Test accuracy {test["accuracy"]:.2%}, 95 % interval {test["accuracy_low"]:.2%} to \
{test["accuracy_high"]:.2%}.
Charts in plots/: {CHARTS}
The workspace holds the experiment `{name}`: parameters, model, metrics and plots. Next:
  source .venv/bin/activate               make the dvc command available in this terminal{who}
  dvc exp run -S train.dropout=0.3        change one value: train and later stages run again
  {f"dvc metrics diff {name}":<40}the effect; without `{name}`, compared with the commit
  {f"dvc plots diff {name}":<40}both runs in each chart
  make show                               all experiments in one table
To go back to the last commit, and then train on CIFAR-10:
  {runs.way_back(name, edited)}
  dvc repro""")


if __name__ == "__main__":
    stage.run(main)
