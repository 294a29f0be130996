"""Read YAML as DVC does: version 1.2, where `1e-3` is a number and `no` a word; keys are unique.

PyYAML itself reads YAML 1.1, which differs, so the code would use other values than DVC records.
The patterns are those of ruamel.yaml, DVC's reader; a test compares the two.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from cifar import UserError

SCALARS = {  # tag: (what a plain scalar must match, the characters that it can start with)
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (
        r"[-+]?0b[01_]+|[-+]?0o[0-7_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?[0-9_]+",
        list("-+0123456789"),
    ),
    "float": (
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
KEPT = (":timestamp", ":merge", ":value")  # scalars that are the same in both versions
BASES = {"0b": 2, "0o": 8, "0x": 16}


def loads(text: str, name: Path | str) -> Any:
    """Parse a YAML document; `name` is for messages.

    Raises:
        UserError: not YAML, a duplicate key, or several documents; the message gives the line.
    """
    if odd := re.search("[\x85\u2028\u2029]|^%YAML (?!1.2)", text, re.MULTILINE):
        raise UserError(f"{odd[0]!r} is not YAML 1.2 ({name}): remove it")
    try:
        return yaml.load(text, Loader)  # noqa: S506  # it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem).partition("\n")[0]
        raise UserError(f"{problem} ({name}{line}): correct it") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-02-30, thousands of digits
        raise UserError(f"{str(error).partition(chr(10))[0]} ({name}): correct it") from None
    except RecursionError:
        raise UserError(f"nested too deeply ({name}): correct it") from None


def read(path: Path | str) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        UserError: the file does not exist, or is not UTF-8, not YAML, or not a mapping.
    """
    try:
        values = loads(Path(path).read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run this in the root of the repository") from None
    except UnicodeDecodeError:
        raise UserError(f"not a text file ({path}): save it as UTF-8") from None
    if not isinstance(values, dict):
        raise UserError(f"no sections ({path}): restore it with `git checkout {path}`")
    return values


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2. It refuses duplicate keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML expects it
        initial: [entry for entry in resolvers if entry[0].endswith(KEPT)]
        for initial, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # later keys may replace merged ones
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise error(f"a key must be a word or a number, not {key!r}", key_node)
            if key in keys:
                raise error(f'duplicate key "{key}"', key_node)
            keys.add(key)
        return super().construct_mapping(node, deep)


def error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def construct_int(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    digits = text.lstrip("+-")
    value = int(digits[2:], BASES[digits[:2]]) if digits[:2] in BASES else int(digits)
    return -value if text.startswith("-") else value


def construct_float(loader: Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(re.sub(r"\.(?=inf|nan)", "", text))


for tag, (pattern, initials) in SCALARS.items():
    regex = re.compile(rf"(?:{pattern})\Z")
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", regex, initials)
Loader.add_constructor("tag:yaml.org,2002:int", construct_int)
Loader.add_constructor("tag:yaml.org,2002:float", construct_float)
