"""Edit params.yaml: write the values of a recipe, or add parameters that an older file lacks."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cifar import UserError, files, params, yaml12
from recipes.resolve import put

PARAMS = Path("params.yaml")


def apply(values: dict[str, Any]) -> None:
    """Write values like {"train.lr": 0.01} into params.yaml; its comments stay."""
    writer = YAML()  # ruamel, which keeps comments
    writer.width = 200
    tree = writer.load(PARAMS.read_text(encoding="utf-8"))
    for key, value in values.items():
        put(tree, key, value)
    with files.atomic(PARAMS) as handle:
        writer.dump(tree, handle)


def upgrade() -> dict[str, Any]:
    """Add the parameters that params.yaml lacks, switched off and with their comments.

    All other lines are kept byte for byte. Returns what was added: {"train.ema": 0.0}.

    Raises:
        UserError: params.yaml cannot be read, or does not have one key per line.
    """
    tree = params.read(PARAMS)
    for section, keys in tree.items():
        if isinstance(keys, str | float | list):
            raise UserError(f"{section} is not a section (params.yaml): restore its parameters")
    missing = {
        (section, key): value
        for section, keys in params.off_values().items()
        for key, value in keys.items()
        if key not in (tree.get(section) or {})
    }
    lines = PARAMS.read_bytes().decode().split("\n")
    for (section, key), value in missing.items():
        tree[section] = (tree.get(section) or {}) | {key: value}
        insert(lines, section, key)
    if missing and parsed(lines) != tree:
        names = ", ".join(f"{section}.{key}" for section, key in missing)
        raise UserError(f"cannot add {names} (params.yaml): write one key per line and try again")
    if missing:
        files.write_bytes(PARAMS, "\n".join(lines).encode())
    return {f"{section}.{key}": value for (section, key), value in missing.items()}


def insert(lines: list[str], section: str, key: str) -> None:
    """Insert the line of a key in off.yaml after the line of the key that precedes it there."""
    off = params.OFF.read_text(encoding="utf-8").split("\n")
    keys = list(params.sections()[section].model_fields)
    before = [*keys[: keys.index(key)], key]
    numbers = [find(lines, section, name) for name in ["", *before]]
    present = [number for number in numbers if number is not None]
    if present:
        lines.insert(present[-1] + 1, off[find(off, section, key) or 0])


def find(lines: list[str], section: str, key: str) -> int | None:
    """The number of the line of a key in a section, or of the section itself if `key` is empty."""
    inside = False
    for number, line in enumerate(lines):
        if line[:1] not in ("", " ", "#", "\r"):
            inside = line.startswith(f"{section}:")
            if inside and not key:
                return number
        elif inside and line.lstrip().startswith(f"{key}:"):
            return number
    return None


def parsed(lines: list[str]) -> Any:
    try:
        return yaml12.loads("\n".join(lines), PARAMS)
    except UserError:
        return None
