"""Resolve a recipe: its values, over those of the recipe that it extends, over the off-values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar import UserError, params, yaml12
from cifar.experiments.table import flatten

FOLDER = Path(__file__).parent
OFF = "off"  # a recipe that extends `off` starts from cifar/params/off.yaml
HEAD = ("about", "published", "extends")
# A recipe says how to train. The data, the hardware and how strict the checks are is the user's
# choice: these keys keep their values in params.yaml unless a recipe sets them.
YOURS = {
    *("preprocess.test_fraction", "preprocess.split_seed"),
    *("preprocess.on_bad_image", "preprocess.on_animated", "preprocess.on_duplicate"),
    *("train.device", "train.threads", "train.processes"),
    *("train.load", "train.precision", "train.compile"),
}


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    `values` are like {"train.lr": 0.01}. `published` is empty, or has the test `accuracy` that the
    author stated, and optionally `loss`, `epochs`, a `note`, the `history` of the epochs, and in
    `also` the results published for other values.
    """

    name: str
    about: str
    extends: str
    published: dict[str, Any]
    values: dict[str, Any]


def known() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def published() -> list[str]:
    """The recipes with a published accuracy, for which `all` stands."""
    return [name for name in known() if resolve(name).published]


def resolve(name: str, below: tuple[str, ...] = ()) -> Recipe:
    """The recipe of this name.

    Args:
        below: the recipes that extend it, to detect a circle.

    Raises:
        UserError: there is no such recipe, it extends itself, or its file is not a recipe.
    """
    path = Path(FOLDER.name, f"{name}.yaml")
    if name not in known():
        hint = params.did_you_mean(name, known())
        where = f"recipes/{below[-1]}.yaml, extends" if below else "recipes/"
        raise UserError(f"no recipe {name!r}{hint} ({where}): see `python -m recipes list`")
    if name in below:
        raise UserError(f"{' extends '.join([*below, name])} ({path}): break the circle")
    tree = yaml12.read(FOLDER / f"{name}.yaml")
    head = {key: tree.pop(key) for key in HEAD if key in tree}
    published = head.get("published") or {}
    if published and not (
        isinstance(published, dict) and isinstance(published.get("accuracy"), float)
    ):
        raise UserError(f"published has no accuracy ({path}): write published: {{accuracy: 0.7}}")
    extends = str(head.get("extends") or "")
    values = base(extends, (*below, name)) | dict(flatten(tree))
    return Recipe(name, head.get("about", ""), extends, published, values)


def base(extends: str, below: tuple[str, ...]) -> dict[str, Any]:
    """The values that a recipe starts from."""
    if not extends:
        return {}
    if extends != OFF:
        return resolve(extends, below).values
    flat = dict(flatten(params.off_values()))
    sections = ("preprocess", "train")
    return {k: v for k, v in flat.items() if k not in YOURS and k.startswith(sections)}


def check(recipe: Recipe, overrides: list[str]) -> dict[str, Any]:
    """The recipe's values updated by the overrides, checked together with params.yaml.

    Raises:
        UserError: an override is not KEY=VALUE, or a value is invalid in params.yaml.
    """
    values = recipe.values | dict(map(parse, overrides))
    tree = params.read()
    for key, value in values.items():
        put(tree, key, value)
    params.check(tree, f"params.yaml with recipe {recipe.name}")
    return values


def parse(override: str) -> tuple[str, Any]:
    """Split 'train.epochs=3' into key and value. No message shows the value: it may be a secret."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"{key!r} has no value (-S): write for example -S train.epochs=3")
    try:
        return key, yaml12.loads(text, key)
    except UserError:
        raise UserError(f"the value of {key} is not YAML (-S): put quotes around it") from None


def put(tree: Any, key: str, value: Any) -> None:
    """Set tree['train']['lr'] for the key 'train.lr'."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise UserError(f"{section} is not a section of params.yaml ({key}): write SECTION.KEY")
    tree[last] = value
