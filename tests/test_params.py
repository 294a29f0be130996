"""params.yaml means to the code what it means to DVC, and every mistake in it is named in one line."""

import re
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import modify_yaml, parse_yaml

from cifar import UserError, params
from cifar.params.train import Train

HOSTILE = pytest.mark.hostile  # one case of these is one input; other cases are variants of it
FILE = Path(__file__).parent.parent / "params.yaml"


def message(text: str | bytes, folder: Path) -> str:
    """The one line that is said about params.yaml with this content."""
    path = folder / "params.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        params.load(Train, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def altered(**sections: dict[str, Any]) -> dict[str, Any]:
    values = params.read(FILE)
    for name, changes in sections.items():
        values[name] |= changes
    return values


def problem(**sections: dict[str, Any]) -> str:
    """The one line that is said about the repository's parameters with these changes."""
    with pytest.raises(UserError) as caught:
        params.check(altered(**sections))
    assert "params.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


MEANINGS = {
    "1e-3": 0.001,
    "5e-05": 0.00005,
    "1E3": 1000.0,
    ".5": 0.5,
    "no": "no",
    "on": "on",
    "017": 17,
    "0o17": 15,
    "12:30": "12:30",
    "1_000": 1000,
    "true": True,
    "": None,
    "~": None,
    "'0.1'": "0.1",
}


@pytest.mark.parametrize("text", MEANINGS)
def test_scalars_mean_what_dvc_records(text, tmp_path):
    """A scalar is read with YAML 1.2's meaning, value and type, which is the one that DVC hashes."""
    path = tmp_path / "params.yaml"
    path.write_text(f"key: {text}\n")
    value = params.read(path)["key"]
    assert (value, type(value)) == (MEANINGS[text], type(MEANINGS[text]))
    assert parse_yaml(path.read_text(), str(path)) == {"key": value}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("seed: 0\nseed: 1\n", 'duplicate key "seed"', marks=HOSTILE, id="a key twice"),
        ("seed: {0\n", "params.yaml:2"),
        pytest.param("seed:\n\tx: 1\n", "cannot start any token", marks=HOSTILE, id="a tab"),
        ("seed: *x\n", "undefined alias"),
        pytest.param(
            "seed: !!python/object:os.system {}\n",
            "could not determine a constructor",
            marks=HOSTILE,
            id="code",
        ),
        ("seed: 2026-02-30\n", "day is out of range"),
        ("seed: " + "9" * 5000, "4300 digits"),
        pytest.param("[" * 500, "recursion", marks=HOSTILE, id="nested without end"),
        ("seed: \0\n", "unacceptable character"),
        ("a: 1\n---\nb: 2\n", "another document"),
        pytest.param(b"seed: \xe9\n", "UTF-8", marks=HOSTILE, id="another encoding"),
        pytest.param("", "no sections", marks=HOSTILE, id="nothing"),
        ("# only a comment\n", "no sections"),
        ("- seed\n", "no sections"),
        ("seed\n", "no sections"),
    ],
)
def test_a_file_that_is_not_such_yaml_is_one_line(text, said, tmp_path):
    """What is not YAML, not text or no mapping is refused with the file, the line where there is one, and the cause."""
    assert said in message(text, tmp_path)


def test_a_missing_file_names_the_remedy(tmp_path):
    """Without a params.yaml the message says where to run the command."""
    with pytest.raises(UserError, match="run this in the root of the repository"):
        params.load(Train, tmp_path / "params.yaml")


WRONG = [
    pytest.param("lr", True, "valid number", marks=HOSTILE),
    pytest.param("lr", "0.1", "valid number", marks=HOSTILE),
    ("lr", "1e-3 ", "valid number"),
    pytest.param("lr", None, "valid number", marks=HOSTILE),
    pytest.param("lr", [0.1], "valid number", marks=HOSTILE, id="lr-list"),
    pytest.param("lr", {"start": 0.1}, "valid number", marks=HOSTILE, id="lr-mapping"),
    pytest.param("lr", float("nan"), "finite", marks=HOSTILE),
    ("lr", float("inf"), "finite"),
    ("lr", 0, "greater than 0"),
    ("dropout", 1, "less than 1"),
    pytest.param("dropout", 1.5, "less than 1", marks=HOSTILE),
    ("dropout", -0.1, "greater than or equal to 0"),
    ("epochs", True, "valid integer"),
    pytest.param("epochs", 1.0, "valid integer", marks=HOSTILE),
    ("epochs", "10", "valid integer"),
    ("epochs", None, "valid integer"),
    pytest.param("epochs", 0, "greater than or equal to 1", marks=HOSTILE),
    ("epochs", 10**30, "less than or equal to"),
    pytest.param("batch_size", 1, "greater than or equal to 2", marks=HOSTILE),
    pytest.param("width", 10**30, "less than or equal to", marks=HOSTILE, id="width-huge"),
    ("shift", 10**30, "less than or equal to"),
    ("threads", 10**9, "less than or equal to"),
    ("batch_norm", 1, "valid boolean"),
    pytest.param("batch_norm", "yes", "valid boolean", marks=HOSTILE),
    pytest.param("optimizer", "adma", "adam", marks=HOSTILE),
    ("optimizer", 1, "sgd"),
    ("model", "vggg", "no such file in cifar/models; there are"),
    pytest.param("model", "../../evil", "no such file in cifar/models; there are", marks=HOSTILE),
    ("model", None, "valid string"),
    pytest.param("device", "gpu", "match pattern", marks=HOSTILE),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_value_is_named(key, value, said):
    """A value of the wrong type or out of its range is refused with its key, the value and what is wanted."""
    line = problem(train={key: value})
    assert f"train.{key} = {value!r}: " in line
    assert said in line
    assert "value error" not in line


def test_whole_numbers_serve_as_floats():
    """An integer where a float is meant is that float: `train.lr: 1` is 1.0."""
    lr = params.check(altered(train={"lr": 1}))["train"].lr
    assert lr == 1.0
    assert type(lr) is float


@pytest.mark.hostile
def test_an_unknown_key_is_met_with_the_nearest():
    """A misspelt key is refused, and the key that was probably meant is proposed."""
    assert "unknown key train.droput (did you mean dropout?)" in problem(train={"droput": 0.1})


def test_a_key_that_is_no_text_is_refused():
    """A key such as 1 is refused in one line too."""
    assert "train.1" in problem(train={1: 0.1})


@pytest.mark.hostile
def test_an_unknown_section_is_met_with_the_nearest():
    """A misspelt section is refused, and the section that was probably meant is proposed."""
    with pytest.raises(UserError, match=r"unknown section trian \(did you mean train\?\)"):
        params.check(altered() | {"trian": {}})


@pytest.mark.parametrize("name", params.sections())
def test_a_missing_section_or_key_is_named(name):
    """Nothing has a default: each section, and each key of each section, is missed by its name."""
    values = altered()
    section = values.pop(name)
    for rest in (values, values | {name: None}, values | {name: [1]}, values | {name: "x"}):
        with pytest.raises(UserError, match=f"section {name} is missing or empty"):
            params.check(rest)
    for key in section:
        with pytest.raises(UserError, match=f"{name}.{key} is missing"):
            params.check(
                values | {name: {other: section[other] for other in section if other != key}}
            )


@pytest.mark.parametrize("seed", [None, True, 1.0, "0", pytest.param(-1, marks=HOSTILE), 2**32])
def test_the_seed_is_an_integer_of_32_bits(seed):
    """A seed that a generator could not take is refused, a missing one too."""
    with pytest.raises(UserError, match=r"seed = .*must be an integer from 0 to 4294967295"):
        params.check(altered() | {"seed": seed})


def test_mistakes_in_all_sections_are_listed_at_once():
    """One run shows every mistake, from the first section to the last."""
    line = problem(fetch={"dataset": "mnist"}, plot={"dpi": 1, "mistake": 3})
    assert "fetch.dataset = 'mnist'" in line
    assert "plot.dpi = 1" in line
    assert "plot.mistake (did you mean mistakes?)" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "images"}, "fetch.dataset: images needs fetch.source"),
        ({"dataset": "digits", "source": "x.zip"}, "takes no fetch.source"),
        ({"sha256": "abc"}, "fetch.sha256 = 'abc'"),
        ({"sha256": "A" * 64}, "fetch.sha256"),
        ({"dataset": "digits", "sha256": "0" * 64}, "takes no fetch.sha256"),
    ],
)
def test_values_that_do_not_go_together_are_named(changes, said):
    """A source that the data set needs or cannot have, and a checksum that is none, are refused by name."""
    assert said in problem(fetch=changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"optimizer": "adam"}, "train.momentum has no effect with train.optimizer: adam: set it to 0",
                     marks=HOSTILE, id="momentum of adam"),
        ({"optimizer": "adamw"}, "train.momentum has no effect with train.optimizer: adamw"),
        ({"optimizer": "adam", "momentum": 0.0, "nesterov": True}, "train.nesterov has no effect with train.optimizer"),
        pytest.param({"optimizer": "muon", "nesterov": True}, "train.nesterov has no effect with train.optimizer: muon",
                     marks=HOSTILE, id="nesterov of muon"),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, "train.nesterov needs train.momentum"),
        ({"model": "resnet18"}, "train.optimizer: muon is for train.model: fast, not resnet18: try -S train.optimizer"),
        ({"schedule": "plateau", "warmup": 1}, "plateau takes no train.warmup"),
        ({"warmup": 8, "epochs": 8}, "train.warmup = 8 leaves none of train.epochs = 8"),
        ({"backbone": "resnet18"}, "train.model: pretrained and train.backbone go together"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_named(changes, said):
    """What is switched on and would do nothing is refused with the value that switches it off."""
    assert said in problem(train={"momentum": 0.6} | changes)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_optimizer_goes_without_momentum(name):
    """With momentum and Nesterov's form off, every optimizer is accepted."""
    params.check(altered(train={"optimizer": name, "momentum": 0.0, "nesterov": False}))


def test_a_section_is_read_only():
    """Nobody can change a parameter after DVC has recorded it."""
    section, seed = params.load(Train, FILE)
    assert type(seed) is int
    with pytest.raises(ValueError, match="frozen"):
        section.lr = 1.0


def test_the_repositorys_file_is_in_dvcs_form(tmp_path):
    """`dvc exp run -S` rewrites params.yaml with ruamel: the file is already what that writes, byte for byte."""
    copy = tmp_path / "params.yaml"
    copy.write_bytes(FILE.read_bytes())
    with modify_yaml(str(copy)) as values:
        assert values == params.read(FILE)
    assert copy.read_bytes() == FILE.read_bytes()


def test_the_repositorys_file_is_valid_and_explained():
    """Every parameter has a comment on its own line, holds one value, and is one that the code knows."""
    values = params.read(FILE)
    params.check(values)
    keys = [
        line
        for line in FILE.read_text().splitlines()
        if re.match(r" *\w+:", line) and line.rstrip(":") not in values
    ]
    assert all(re.match(r" *\w+: .*\B# \S", line) for line in keys), keys
    scalars = [
        value
        for section in values.values()
        for value in (section.values() if type(section) is dict else [section])
    ]
    assert all(isinstance(value, str | int | float | None) for value in scalars)
    assert len(keys) == len(scalars)
