"""Files and folders that operating systems leave behind: neither pictures nor inputs of a stage."""

from collections.abc import Iterable

# Files and folders that operating systems create unasked, in lower case. Names with a leading dot
# (.DS_Store, ._cat.jpg, .ipynb_checkpoints, .nfs0001, .AppleDouble) are skipped as well.
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
LEFTOVER_ENDINGS = (":zone.identifier", ":afp_afpinfo", ":afp_resource")  # Windows file streams


def leftover(name: str) -> bool:
    """Whether an operating system left this file or folder; `name` is one part of a path."""
    lower = name.casefold()
    return name.startswith(".") or lower in LEFTOVERS or lower.endswith(LEFTOVER_ENDINGS)


def hidden(parts: Iterable[str]) -> bool:
    """Whether any part of a path is a leftover of an operating system."""
    return any(map(leftover, parts))
