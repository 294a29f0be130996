"""The loader reads YAML as DVC does, and reports every mistake in one line."""

import itertools
import math
import random

import pytest
from dvc.utils.serialize import parse_yaml
from ruamel.yaml import YAML, YAMLError

from cifar import UserError, params, yaml12

HOSTILE = pytest.mark.hostile  # one case of these is one input; other cases are variants of it
REFUSED = object()
# Pieces whose combinations meet every branch of the patterns for numbers, words and dates.
PIECES = ["+", "-", ".", "0", "1", "12", "_", "e", "E", "e-3", "0x", "0o", "0b", "inf", "nan", ":",
          "true", "no", "~", "null", "2026-01-30", "f", "=", " ", "T", "#", "<<"]  # fmt: skip
MEANINGS = {
    "1e-3": 0.001,
    "5e-05": 0.00005,
    "1E3": 1000.0,
    ".5": 0.5,
    "no": "no",
    "on": "on",
    "017": 17,
    "0o17": 15,
    "-0x1f": -31,
    "12:30": "12:30",
    "1_000": 1000,
    "-.inf": -math.inf,
    "true": True,
    "": None,
    "~": None,
    "'0.1'": "0.1",
}
# Documents that DVC reads in its own way and we refuse, since PyYAML would read another thing.
EXOTIC = ["a: b\u2028c\n", "%YAML 1.1\n---\na: no\n", "? [a, b]\n: 1\n", "2026-01-30: 1\n"]
SAME = ["a: {b: 1, c: [x:y, 'z']}\n", "a: &x {k: 1}\nb: {<<: *x, k: 2}\n", "a: 1 # c\n", "a: 1#c\n",
        "a: !!int '3'\n", "a: !!str 1\n", "? a\n: 1\n", "1: a\n", "a: |\n  x\n  y\n", "a: b:c\n",
        "\ufeffa: 1\n", "a: 'it''s'\n", 'a: "\\x41\\u00e9\\/"\n', "a: 1\r\nb: 2\r\n",
        "---\na: 1\n...\n", "a:\n- 1\n- 2\n", "a: @x\n", "a: %x\n",
        "a: !x 1\n", "a: *x\n", "a: [\n", "a: b: c\n", "",
        "%YAML 1.2\n---\na: no\n", "a: b\x85c: 1\n", "\ta: 1\n", "a: {b: 1, b: 2}\n"]  # fmt: skip


def ours(text):
    try:
        return yaml12.loads(text, "params.yaml")
    except UserError as error:
        assert "\n" not in str(error)
        return REFUSED


def dvcs(text):
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        return REFUSED


def same(one, other):
    return type(one) is type(other) and repr(one) == repr(other)


def generated(count):
    """At most `count` plain scalars: all pairs of pieces, then random longer ones."""
    rng = random.Random(0)
    longer = ("".join(rng.choices(PIECES, k=rng.randint(3, 5))) for _ in range(count))
    pairs = map("".join, itertools.product(PIECES, repeat=2))
    return sorted(
        {text.strip() for text in itertools.islice(itertools.chain(pairs, longer), count)}
    )


@pytest.mark.parametrize("text", MEANINGS)
def test_a_scalar_means_what_dvc_records(text):
    """A scalar has the value and type of YAML 1.2, which DVC records."""
    value = ours(f"key: {text}\n")["key"]
    assert (value, type(value)) == (MEANINGS[text], type(MEANINGS[text]))
    assert parse_yaml(f"key: {text}\n", "params.yaml") == {"key": value}


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.long)])
def test_generated_scalars_mean_what_dvc_reads(count):
    """Thousands of scalars have the value and type that DVC reads, or both readers refuse them."""
    for text in generated(count):
        document = f"key: {text}\n"
        assert same(ours(document), dvcs(document)), text


@pytest.mark.parametrize("text", SAME)
def test_a_document_means_what_dvc_reads(text):
    """Collections, anchors, tags and quotes are read as by DVC, or both readers refuse them."""
    assert same(ours(text), dvcs(text))


@pytest.mark.parametrize("text", EXOTIC)
def test_what_dvc_reads_differently_is_refused(text):
    """The few exotic documents that would be read differently from DVC are refused."""
    assert dvcs(text) is not REFUSED
    assert ours(text) is REFUSED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: 0\nb: 1\na: 1\n", 'duplicate key "a" (x.yaml:3)',
                     marks=HOSTILE, id="a key twice"),
        ("seed: {0\n", "(x.yaml:2)"),
        pytest.param("seed:\n\tx: 1\n", "cannot start any token (x.yaml:2)",
                     marks=HOSTILE, id="a tab"),
        ("seed: *x\n", "undefined alias"),
        pytest.param("seed: !!python/object:os.system {}\n", "could not determine a constructor",
                     marks=HOSTILE, id="code"),
        ("seed: 2026-02-30\n", "day is out of range"),
        ("seed: " + "9" * 5000, "4300 digits"),
        pytest.param("[" * 1000, "nested too deeply", marks=HOSTILE, id="nested without end"),
        ("seed: \0\n", "special characters are not allowed"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("%YAML 1.1\n---\na: 1\n", "is not YAML 1.2"),
        ("[a]: 1\n", "a key must be a word or a number"),
        pytest.param(b"seed: \xe9\n", "UTF-8", marks=HOSTILE, id="another encoding"),
        pytest.param("", "no sections", marks=HOSTILE, id="nothing"),
        ("# only a comment\n", "no sections"),
        ("- seed\n", "no sections"),
        ("seed\n", "no sections"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_mapping_is_one_line(text, expected, tmp_path, monkeypatch):
    """A file that is not YAML, text or a mapping is refused; one line gives file and cause."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        yaml12.read("x.yaml")
    assert expected in str(caught.value)
    assert "x.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.hostile
def test_aliases_of_aliases_take_no_memory():
    """A billion strings from nested aliases are read, and refused in a short line."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    values = params.read() | {"seed": yaml12.loads("\n".join(levels), "x")["a8"]}
    with pytest.raises(UserError) as caught:
        params.check(values)
    assert len(str(caught.value)) < 500
