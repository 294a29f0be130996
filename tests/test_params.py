"""Every mistake in params.yaml is reported in one line that says how to fix it."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import modify_yaml

from cifar import UserError, params
from cifar.model import NetworkOptions
from cifar.params.train import Train

HOSTILE = pytest.mark.hostile  # one case of these is one input; other cases are variants of it
FILE = Path(__file__).parent.parent / "params.yaml"


def altered(**sections: dict[str, Any]) -> dict[str, Any]:
    """The repository's parameters with these changes."""
    values = params.read(FILE)
    for name, changes in sections.items():
        values[name] |= changes
    return values


def problem(**sections: dict[str, Any]) -> str:
    """The error about the repository's parameters with these changes."""
    with pytest.raises(UserError) as caught:
        params.check(altered(**sections))
    assert "params.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_names_the_remedy(tmp_path):
    """Without a params.yaml, the message says where to run the command."""
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
    ("model", "vggg", "not a file in cifar/models; choose from"),
    pytest.param("model", "../../evil", "not a file in cifar/models; choose from", marks=HOSTILE),
    ("model", None, "valid string"),
    pytest.param("device", "gpu", "must be auto, cpu, cuda, cuda:N or mps", marks=HOSTILE),
    ("device", "cuda:x", "must be auto, cpu, cuda, cuda:N or mps"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_is_named(key, value, expected):
    """For a value of the wrong type or range, the error gives the key, the value and the rule."""
    line = problem(train={key: value})
    assert f"train.{key} = {value!r}: must be " in line or "not a file" in line
    assert expected in line
    assert line.endswith("(params.yaml): each key's comment gives its valid values")


def test_whole_numbers_serve_as_floats():
    """An integer is accepted as a float: `train.lr: 1` is 1.0."""
    lr = params.check(altered(train={"lr": 1}))["train"].lr
    assert lr == 1.0
    assert type(lr) is float


@pytest.mark.hostile
def test_an_unknown_key_is_met_with_the_nearest():
    """A misspelt key is refused, and the error suggests the nearest one."""
    assert "unknown key train.droput (did you mean dropout?)" in problem(train={"droput": 0.1})


def test_a_key_that_is_no_text_is_refused():
    """A key that is not text, such as 1, is refused in one line."""
    assert "train.1" in problem(train={1: 0.1})


@pytest.mark.hostile
def test_an_unknown_section_is_met_with_the_nearest():
    """A misspelt section is refused, and the error suggests the nearest one."""
    with pytest.raises(UserError, match=r"unknown section trian \(did you mean train\?\)"):
        params.check(altered() | {"trian": {}})


@pytest.mark.parametrize("name", params.sections())
def test_a_missing_section_is_named(name):
    """There are no defaults: a section that is missing, empty or not a mapping is reported."""
    values = altered()
    del values[name]
    for rest in (values, values | {name: None}, values | {name: [1]}, values | {name: "x"}):
        with pytest.raises(UserError, match=f"section {name} is missing or empty"):
            params.check(rest)


def test_every_missing_key_is_named():
    """One message lists all missing keys, with their off-values if they have one."""
    off = params.off_values()
    values = {name: {} for name in params.sections()} | {"seed": 0}
    with pytest.raises(UserError) as caught:
        params.check(values)
    for name, section in params.sections().items():
        for key in section.model_fields:
            value = f" (off: {json.dumps(off[name][key])})" if key in off.get(name, {}) else ""
            assert f"{name}.{key} is missing{value}" in str(caught.value)
    assert "`python -m recipes upgrade` adds what is missing" in str(caught.value)


def test_a_renamed_key_is_one_mistake():
    """An unknown key that resembles a missing one is reported once, as a misspelling."""
    values = altered()
    values["train"]["droput"] = values["train"].pop("dropout")
    with pytest.raises(UserError) as caught:
        params.check(values)
    assert "unknown key train.droput (did you mean dropout?)" in str(caught.value)
    assert "missing" not in str(caught.value)


def test_off_values_of_a_network_are_its_defaults():
    """The defaults of a network's options are the off-values in off.yaml."""
    off = params.off_values()["train"]
    assert asdict(NetworkOptions()) == {key: off[key] for key in asdict(NetworkOptions())}


def test_off_values_are_valid_and_explained_as_in_params():
    """All off-values together are valid, and they have the comments of params.yaml."""
    params.check(altered(**params.off_values()))
    comments = {}
    for path in (FILE, params.OFF):
        section = ""
        for line in path.read_text().splitlines():
            section = line if re.fullmatch(r"\w+:", line) else section
            if found := re.fullmatch(r"  (\w+):.*?(#.*)", line):
                comments.setdefault((section, found[1]), []).append(found[2])
    both = [pair for pair in comments.values() if len(pair) == 2]
    assert len(both) == sum(map(len, params.off_values().values()))
    assert all(one == other for one, other in both)


@pytest.mark.parametrize("seed", [None, True, 1.0, "0", pytest.param(-1, marks=HOSTILE), 2**32])
def test_the_seed_is_an_integer_of_32_bits(seed):
    """A seed that is missing or that a generator cannot use is refused."""
    with pytest.raises(UserError, match=r"seed = .*must be an integer from 0 to 4294967295"):
        params.check(altered() | {"seed": seed})


def test_mistakes_in_all_sections_are_listed_at_once():
    """One run reports the mistakes in all sections."""
    line = problem(fetch={"dataset": "mnist"}, plot={"dpi": 1, "mistake": 3})
    assert "fetch.dataset = 'mnist'" in line
    assert "plot.dpi = 1" in line
    assert "plot.mistake (did you mean mistakes?)" in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset": "images"}, "fetch.dataset: images needs fetch.source"),
        ({"dataset": "digits", "source": "x.zip"}, "does not use fetch.source"),
        ({"sha256": "abc"}, "fetch.sha256 = 'abc': must be 64 hexadecimal digits"),
        ({"sha256": "A" * 64}, "fetch.sha256"),
        ({"dataset": "digits", "sha256": "0" * 64}, "does not use fetch.sha256"),
    ],
)
def test_sources_that_do_not_fit_are_named(changes, expected):
    """Reports a source that the data set needs or cannot have, and an invalid checksum."""
    assert expected in problem(fetch=changes)


def test_an_empty_text_is_no_value():
    """`-S fetch.source=` writes '', which means the same as an empty value."""
    changes = {"fetch": {"source": "", "sha256": ""}, "train": {"backbone": ""}}
    checked = params.check(altered(**changes))
    assert checked["fetch"].source is checked["fetch"].sha256 is checked["train"].backbone is None


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("https://b.s3.amazonaws.com/x.zip?X-Amz-Credential=S3CRET", marks=HOSTILE),
        "https://b.s3.amazonaws.com/x.zip?x-id=1&X-Amz-Signature=S3CRET",
        "https://b.s3.amazonaws.com/x.zip?AWSAccessKeyId=S3CRET&Signature=S3CRET&Expires=1",
        "https://storage.googleapis.com/x.zip?X-Goog-Signature=S3CRET",
        pytest.param("https://a.blob.core.windows.net/x.zip?sv=2025&sig=S3CRET", marks=HOSTILE),
        "https://www.dropbox.com/x.zip?rlkey=S3CRET&dl=1",
        "https://host/x.zip?access_token=S3CRET",
        "https://host/x.zip?%74oken=S3CRET",
        "https://host/x.zip?api_key=S3CRET",
        pytest.param("https://user:S3CRET@host/x.zip", marks=HOSTILE),
        "ftp://S3CRET@host/x.zip",
    ],
)
def test_a_credential_in_the_source_is_refused_and_not_shown(address):
    """A credential in the source is refused, because DVC would record it, and is not printed."""
    for changes in (
        {"source": address},
        {"source": address, "dataset": "image"},
        {"source": [address]},
    ):
        line = problem(fetch=changes)
        assert "fetch." in line
        assert "S3CRET" not in line
    line = problem(fetch={"source": address})
    assert "holds a credential" in line
    assert "environment variable FETCH_SOURCE" in line


@pytest.mark.parametrize(
    "source",
    ["https://host/x.zip?dl=1&id=3", "https://host/@me/x.zip", "https://host/x.zip?author=me",
     "/data/x.zip?token=1", "http://[::1", "C:\\data\\x.zip", "s3://bucket/x.zip"],
)  # fmt: skip
def test_an_ordinary_source_is_accepted(source):
    """Paths and addresses without a credential are accepted."""
    assert params.check(altered(fetch={"source": source}))["fetch"].source == source


CONFLICTS = [
    pytest.param({"optimizer": "adam"}, "train.momentum has no effect with train.optimizer: adam",
                 "set train.momentum to 0", marks=HOSTILE, id="momentum of adam"),
    ({"optimizer": "adamw"}, "train.momentum has no effect", "set train.momentum to 0"),
    ({"optimizer": "adam", "momentum": 0.0, "nesterov": True},
     "train.nesterov has no effect with train.optimizer: adam", "set train.nesterov to false"),
    pytest.param({"optimizer": "muon", "nesterov": True},
                 "train.nesterov has no effect with train.optimizer: muon",
                 "set train.nesterov to false", marks=HOSTILE, id="nesterov of muon"),
    ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, "train.nesterov needs momentum",
     "set train.momentum above 0"),
    ({"schedule": "plateau", "warmup": 1}, "plateau does not use train.warmup",
     "set train.warmup to 0"),
    ({"warmup": 8, "epochs": 8}, "train.warmup = 8 uses up train.epochs = 8",
     "lower train.warmup"),
    ({"epochs": 3}, "train.small_epochs = 4 exceeds train.epochs = 3",
     "set train.small_epochs to 3 or less (0: none)"),
    ({"backbone": "resnet18"}, "train.backbone has no effect with train.model: fast",
     "set train.backbone to null"),
    ({"model": "pretrained"}, "train.model: pretrained needs train.backbone", "such as resnet18"),
    ({"processes": 300}, "train.batch_size = 500 is less than two images",
     "raise train.batch_size"),
    ({"processes": 2, "device": "cuda:1"}, "train.device: cuda:1 is one device",
     "set train.processes to 1, or train.device to cuda or cpu"),
    ({"processes": 2, "device": "mps"}, "train.device: mps is one device", "train.processes to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "what", "fix"), CONFLICTS)
def test_values_that_do_not_go_together_say_what_to_do(changes, what, fix):
    """An option without effect, or in conflict with another, is refused with its own fix."""
    line = problem(train={"momentum": 0.6} | changes)
    before, _, after = line.partition(" (params.yaml): ")
    assert what in before
    assert fix in after
    assert "comment" not in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"folds": 1}, "preprocess.folds = 1 (params.yaml): set it to 2 or more, or to 0 for none"),
        ({"folds": 5, "fold": 5}, "set preprocess.fold below preprocess.folds"),
        ({"fold": 1}, "set preprocess.fold to 0"),
    ],
)
def test_folds_count_from_zero(changes, expected):
    """One fold is refused, and the validation fold must be one of the folds."""
    assert expected in problem(preprocess=changes)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_optimizer_goes_without_momentum(name):
    """Without momentum and nesterov, every optimizer is accepted."""
    params.check(altered(train={"optimizer": name, "momentum": 0.0, "nesterov": False}))


def test_a_section_is_read_only():
    """A parameter cannot be changed in code after DVC has recorded it."""
    section, seed = params.load(Train, FILE)
    assert type(seed) is int
    with pytest.raises(ValueError, match="frozen"):
        section.lr = 1.0


def test_the_repositorys_file_is_in_dvcs_form(tmp_path):
    """`dvc exp run -S` rewrites params.yaml with ruamel, which changes nothing but the value."""
    copy = tmp_path / "params.yaml"
    copy.write_bytes(FILE.read_bytes())
    with modify_yaml(str(copy)) as values:
        assert values == params.read(FILE)
    assert copy.read_bytes() == FILE.read_bytes()


def test_the_repositorys_file_is_valid_and_explained():
    """Every parameter has a comment on its line and a single value, and the code knows it."""
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
