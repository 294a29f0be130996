"""Names of files and classes, as a person and as a system sees them."""

import pytest

from cifar import UserError
from cifar.data import names

HOSTILE = pytest.mark.hostile


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Dachshund (lang)", "Dachshund (lang)"),
        ("犬", "犬"),
        ("👩\u200d🔬", r"👩\u200d🔬"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        ("\udcff", r"\udcff"),
        ("\u202egpj", r"\u202egpj"),
    ],
)
def test_names_are_escaped_for_a_terminal(name, expected):
    """What a terminal would interpret or could not show is escaped; letters are not."""
    assert names.escaped(name) == expected
    names.escaped(name).encode()


@pytest.mark.parametrize("name", ["cat", "$5_$10", "<b>", "a/b", "می\u200cخواهم", "x" * 300])
def test_class_names_that_are_allowed(name):
    """Any visible name is a class name, also with characters that are special in charts or HTML."""
    names.check_class(name, "x")


@HOSTILE
@pytest.mark.parametrize(
    "name",
    [
        *("", "  ", "\0", "a\x1bb", "\ufeffcat"),
        *("a\u200bb", "\u2066a", "a\nb", "a\u2028b", "\udc80"),
    ],
)
def test_class_names_that_are_refused(name):
    """An empty name, or one with invisible characters, is refused in one printable line."""
    with pytest.raises(UserError, match="invalid class name") as caught:
        names.check_class(name, "here")
    assert str(caught.value).isprintable()
    assert "(here)" in str(caught.value)


def test_classes_need_training_images():
    """Every class needs training images, in any spelling, and there must be at least two."""
    names.check_classes(["cat", "dog"], ["DOG", "cat "], "x")
    with pytest.raises(UserError, match="class 'cow' has no training images"):
        names.check_classes(["cat", "dog"], ["cow"], "x")
    with pytest.raises(UserError, match=r"0 classes \(x\)"):
        names.check_classes([], [], "x")
    with pytest.raises(UserError, match="1 class, 'cat'"):
        names.check_classes(["cat"], ["cat"], "x")
