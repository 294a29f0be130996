"""params.yaml: read as DVC reads it, checked whole, handed out one section at a time.

DVC reads YAML 1.2 with ruamel.yaml, so this does too: `1e-3` is a number, `no` is a word, and a
duplicate key is an error. What the code uses is then what DVC has recorded.

One file beside this one per section: what each key may hold, checked by pydantic. There are no
defaults: a default in code would be a value that DVC does not hash.
"""

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from cifar import UserError


class Section(BaseModel):
    """Base of all sections: types are strict, unknown keys and NaN are errors, values are read-only."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def read(path: Path | str = "params.yaml") -> dict[str, Any]:
    """The raw content of a YAML file.

    Raises:
        UserError: no such file, not YAML, duplicate keys, or not a mapping.
    """
    try:
        values = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path} here: run this in the root of the repository") from None
    except UnicodeDecodeError:
        raise UserError(f"not a text file ({path}): save it as UTF-8") from None
    except (
        YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # the last two: 2026-02-30, digits by the thousand, [[[[…
        mark, problem = (
            getattr(error, "problem_mark", None),
            getattr(error, "problem", None) or error,
        )
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{str(problem).partition(chr(10))[0]} ({path}{line}): correct it"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"no sections ({path}): restore it with `git checkout {path}`")
    return values


def sections() -> dict[str, type[Section]]:
    """All sections by name, from the files beside this one: fetch -> Fetch, and so on."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {
        name: getattr(importlib.import_module(f"{__name__}.{name}"), name.capitalize())
        for name in names
    }


def check(values: dict[str, Any], path: Path | str = "params.yaml") -> dict[str, Any]:
    """Every section of `values` as its frozen object, and `seed` as the integer that it is.

    Raises:
        UserError: with everything that is wrong in any section, in one line.
    """
    known, problems, checked = sections(), [], {}
    for name in values:
        if name in known or name == "seed":
            continue
        problems.append(f"unknown section {name}{did_you_mean(str(name), [*known, 'seed'])}")
    for name, section in known.items():
        if not isinstance(values.get(name), dict):
            problems.append(f"section {name} is missing or empty")
            continue
        try:
            checked[name] = section.model_validate(values[name])
        except ValidationError as error:
            problems += [explain(name, section, problem) for problem in error.errors()]
    seed = values.get("seed")
    if type(seed) is not int or not 0 <= seed < 2**32:
        problems.append(f"seed = {seed!r}: must be an integer from 0 to 4294967295")
    if problems:
        raise UserError(f"{'; '.join(problems)} ({path}): each key's comment says what it may hold")
    return checked | {"seed": seed}


def load(section: type[S], path: Path | str = "params.yaml") -> tuple[S, int]:
    """One section and the seed, after the whole file was checked: no late surprise in another stage."""
    checked = check(read(path), path)
    return checked[section.__name__.lower()], checked["seed"]


def explain(name: str, section: type[Section], problem: Any) -> str:
    """One pydantic problem as one clause that names the key."""
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    key, message = str(problem["loc"][0]), problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {name}.{key}{did_you_mean(key, section.model_fields)}"
    if problem["type"] == "missing":
        return f"{name}.{key} is missing"
    message = message.removeprefix("input ").removeprefix("value error, ")
    return f"{name}.{key} = {problem['input']!r}: {message}"


def did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
