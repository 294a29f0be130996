"""Read params.yaml as DVC does, check the whole file, and return one section of it.

Each section has a file in this folder with the type and range of every key, which pydantic checks.
There are no defaults, because DVC would not hash a default in code. `off.yaml` has, for optional
keys, the value that has no effect.
"""

import difflib
import importlib
import json
import pkgutil
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from cifar import UserError, yaml12

OFF = Path(__file__).with_name("off.yaml")
SHORT = reprlib.Repr()  # shortens the values in messages
SHORT.maxlist = SHORT.maxdict = 3
SHORT.maxlevel = 2
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 100


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, no NaN, read-only values."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    hidden: ClassVar[frozenset[str]] = frozenset()  # keys whose values must not appear in messages


class ConflictError(ValueError):
    """Values that contradict each other: what is wrong, and how to fix it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


Problem = tuple[str, str]  # what is wrong, how to fix it
S = TypeVar("S", bound=Section)


def check_device(name: str) -> str:
    if not re.fullmatch("auto|cpu|mps|cuda(:[0-9]+)?", name):
        raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
    return name


def empty_is_none(text: Any) -> Any:
    """Turn '', which `dvc exp run -S fetch.source=` writes for an empty value, into None."""
    return None if text == "" else text


Device = Annotated[str, AfterValidator(check_device)]


def read(path: Path | str = "params.yaml") -> dict[str, Any]:
    """Read params.yaml without checking its values.

    Raises:
        UserError: as in `yaml12.read`.
    """
    return yaml12.read(path)


def sections() -> dict[str, type[Section]]:
    """Map the name of each section to its class, from the files in this folder: fetch to Fetch."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name.capitalize())
        for name in names
    }


def load(section: type[S], path: Path | str = "params.yaml") -> tuple[S, int]:
    """Return one section and the seed.

    The whole file is checked, so that no later stage fails because of it.

    Raises:
        UserError: the file has errors; the message lists them all.
    """
    checked = check(read(path), path)
    return checked[section.__name__.lower()], checked["seed"]


def check(values: dict[str, Any], path: Path | str = "params.yaml") -> dict[str, Any]:
    """Return every section of `values` as a frozen object, and `seed` as an integer.

    Raises:
        UserError: a section has errors; the message lists those of all sections, in one line.
    """
    known = sections()
    checked: dict[str, Any] = {}
    problems = [
        (f"unknown section {name}{did_you_mean(name, known)}", "rename or remove it")
        for name in values
        if name not in (*known, "seed")
    ]
    for name, section in known.items():
        if not isinstance(values.get(name), dict):
            fix = "`git checkout params.yaml` restores it"
            problems.append((f"section {name} is missing or empty", fix))
            continue
        problems += check_keys(name, section, values[name])
        try:
            checked[name] = section.model_validate(values[name])
        except ValidationError as error:
            kinds = ("missing", "extra_forbidden", "invalid_key")  # check_keys reports these
            others = [problem for problem in error.errors() if problem["type"] not in kinds]
            problems += [explain(name, section, problem) for problem in others]
    seed = values.get("seed")
    if type(seed) is not int or not 0 <= seed < 2**32:
        what = f"seed = {SHORT.repr(seed)}: must be an integer from 0 to 4294967295"
        problems.append((what, "correct it"))
    if problems:
        what = "; ".join(what for what, _ in problems)
        fix = "; ".join(dict.fromkeys(fix for _, fix in problems))
        raise UserError(f"{what} ({path}): {fix}")
    return checked | {"seed": seed}


def check_keys(name: str, section: type[Section], values: dict[str, Any]) -> list[Problem]:
    """The messages about unknown and missing keys of a section."""
    fields = section.model_fields
    missing = [key for key in fields if key not in values]
    problems = []
    for word in values:
        if word not in fields:
            near = close(word, missing) or close(word, fields)
            missing = [key for key in missing if key not in near]
            what = f"unknown key {name}.{word}{hint(near)}"
            problems.append((what, "rename or remove it"))
    off = off_values().get(name, {}) if missing else {}
    for key in missing:
        if key in off:
            what = f"{name}.{key} is missing (off: {json.dumps(off[key])})"
            problems.append((what, "`python -m recipes upgrade` adds what is missing"))
        else:
            problems.append((f"{name}.{key} is missing", "add it again"))
    return problems


def off_values() -> dict[str, dict[str, Any]]:
    """By section and key, the value that has no effect: off, neutral, or unused by itself."""
    return yaml12.read(OFF)


def explain(name: str, section: type[Section], problem: Any) -> Problem:
    """The message about an error that pydantic found."""
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ConflictError):
        return cause.what, cause.fix
    key = str(problem["loc"][0])
    message = str(cause or problem["msg"])
    message = re.sub(r"^(Input|String) should", "must", message)
    value = "" if key in section.hidden else f" = {SHORT.repr(problem['input'])}"
    return f"{name}.{key}{value}: {message}", "each key's comment gives its valid values"


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    return hint(close(word, known))


def close(word: Any, known: Iterable[str]) -> list[str]:
    """The most similar of the known names, or none if no name is similar."""
    return difflib.get_close_matches(str(word), list(known), n=1)


def hint(names: list[str]) -> str:
    return "".join(f" (did you mean {name}?)" for name in names)
