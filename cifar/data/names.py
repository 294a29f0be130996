"""Names of files and classes: their parts, what cannot be shown, and names that look alike."""

import unicodedata
from collections.abc import Iterable

from cifar import UserError

JOINERS = "\u200c\u200d"  # part of emoji, and of words in Persian, Hindi and others


def components(name: str) -> list[str]:
    """Split a relative name into its folders and file, without `.` and empty parts."""
    return [part for part in name.split("/") if part not in ("", ".")]


def clean(name: str) -> str:
    """The name as a person reads it: composed (NFC), without surrounding spaces."""
    return unicodedata.normalize("NFC", name).strip()


def folded(name: str) -> str:
    """The form under which two names look equal to a reader or a case-insensitive disk."""
    return unicodedata.normalize("NFC", clean(name).casefold())


def escaped(name: str) -> str:
    """The name with all characters escaped that a terminal would interpret or could not show."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name
    )


def is_text(name: str) -> bool:
    """Whether a name can be written to a text file: UTF-8, one line, no control characters."""
    unfit = ("Cc", "Cs", "Zl", "Zp")
    return name.isprintable() or not any(unicodedata.category(c) in unfit for c in name)


def check_class(name: str, where: str) -> None:
    """Refuse a class name that is empty or has invisible characters.

    Raises:
        UserError: the name is refused; the message shows it escaped.
    """
    unseen = any(unicodedata.category(c) == "Cf" and c not in JOINERS for c in name)
    if not name.strip() or unseen or not is_text(name):
        raise UserError(
            f"invalid class name '{escaped(name)}' ({where}): rename it, without invisible "
            "or control characters"
        )


def check_classes(train: Iterable[str], test: Iterable[str], where: str) -> None:
    """Refuse classes that cannot be trained on, or that a reader cannot tell apart.

    Args:
        train: the classes with training images, each once.
        test: the classes with validation or test images.

    Raises:
        UserError: there are fewer than two classes, a class has no training images, two names look
            equal, or `check_class` refuses a name.
    """
    known: dict[str, str] = {}
    for name in sorted(train):
        check_class(name, where)
        key = folded(name)
        if key in known:
            raise UserError(
                f"classes {describe(known[key])} and {describe(name)} have the same name, apart "
                f"from case, spaces or Unicode form ({where}): rename or merge them"
            )
        known[key] = name
    for name in sorted(test):
        if folded(name) not in known:
            raise UserError(
                f"class '{escaped(name)}' has no training images ({where}): add some, or remove "
                "the class"
            )
    if len(known) < 2:
        only = f", '{escaped(next(iter(known.values())))}'" if known else ""
        raise UserError(
            f"found {len(known)} class{'' if len(known) == 1 else 'es'}{only} ({where}): "
            "a classifier needs at least two"
        )


def describe(name: str) -> str:
    """The name in quotes; escaped if it only looks like its clean form."""
    return f"'{escaped(name)}'" if name == clean(name) else ascii(name)
