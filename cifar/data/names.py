"""Names of files and classes: which systems leave behind, and which a person can tell apart."""

import unicodedata
from collections.abc import Iterable

from cifar import UserError

# Files and folders that systems leave without being asked, in lower case; names with a dot in front
# (.DS_Store, ._cat.jpg, .ipynb_checkpoints, .nfs0001, .AppleDouble) are left out as well.
LEFTOVERS = {
    "__macosx",
    "icon\r",
    "thumbs.db",
    "thumbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "found.000",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "__pycache__",
}
LEFTOVER_ENDINGS = (":zone.identifier", ":afp_afpinfo", ":afp_resource")  # streams of Windows files
JOINERS = "\u200c\u200d"  # part of words in Persian, Hindi and others, and of emoji


def leftover(name: str) -> bool:
    """Whether a system left this file or folder behind; `name` is one component of a path."""
    lower = name.casefold()
    return name.startswith(".") or lower in LEFTOVERS or lower.endswith(LEFTOVER_ENDINGS)


def components(name: str) -> list[str]:
    """The folders and the file in a relative name, without detours through `.` and `//`."""
    return [part for part in name.split("/") if part not in ("", ".")]


def hidden(parts: Iterable[str]) -> bool:
    """Whether any component of a path is a leftover of a system."""
    return any(map(leftover, parts))


def clean(name: str) -> str:
    """The name as a person reads it: composed (NFC), without blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def folded(name: str) -> str:
    """What two names have in common that a person, or a case-insensitive disk, takes for one."""
    return unicodedata.normalize("NFC", clean(name).casefold())


def escaped(name: str) -> str:
    """The name with everything escaped that a terminal would act on or could not show."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name
    )


def is_text(name: str) -> bool:
    """Whether a file could hold the name: UTF-8, on one line, without control characters."""
    unfit = ("Cc", "Cs", "Zl", "Zp")
    return name.isprintable() or not any(unicodedata.category(c) in unfit for c in name)


def check_class(name: str, where: str) -> None:
    """Refuse a class name that is empty or has characters that nobody sees.

    Raises:
        UserError: with the characters escaped.
    """
    unseen = any(unicodedata.category(c) == "Cf" and c not in JOINERS for c in name)
    if not name.strip() or unseen or not is_text(name):
        raise UserError(
            f"invalid class name '{escaped(name)}' ({where}): rename it, without invisible "
            "or control characters"
        )


def check_classes(train: Iterable[str], test: Iterable[str], where: str) -> None:
    """Refuse classes that no classifier can be trained on, or that a person takes for one.

    Args:
        train: the classes with training images, each once.
        test: the classes with validation or test images.

    Raises:
        UserError: one class alone, a class without training images, two names that are the same
            to a person, a name as in `check_class`.
    """
    known: dict[str, str] = {}
    for name in sorted(train):
        check_class(name, where)
        key = folded(name)
        if key in known:
            raise UserError(
                f"classes {describe(known[key])} and {describe(name)} have the same name to a "
                f"reader ({where}): rename or merge them"
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
            f"{len(known)} class{'' if len(known) == 1 else 'es'}{only} ({where}): "
            "a classifier needs at least two"
        )


def describe(name: str) -> str:
    """The name in quotes; escaped where it looks like its clean form and is not."""
    return f"'{escaped(name)}'" if name == clean(name) else ascii(name)
