"""Find the part and class of each picture from the folders that it is in.

The layouts are <class>/<picture>, and train/<class>/<picture>, optionally with test/ and val/ in
the same form. Folders around them are accepted, and so are the part names and extra files of
published data sets.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from cifar import UserError
from cifar.data import names
from cifar.data.folders import ARCHIVES, Folder, tree

EXPECTED = (
    "arrange the pictures as <class>/<picture>, or as train/<class>/<picture>, optionally with "
    "test/ and val/ in the same form"
)
PARTS = {
    "train": "train|training",
    "val": "val|valid|validation|dev",
    "test": "test|testing|evaluation|eval",
}
PART_NAME = r"(?:seg[_ -]?)?(?:{})(?:[_ -]?(?:set|data|images))?"  # train, Training_Set, seg_train
# Folder names that say nothing about the pictures inside. If all class folders have such a name or
# that of a part, the pictures have no classes, or have them in a table or in their file names.
NO_CLASSES = frozenset(
    [
        *("images", "image", "imgs", "img", "jpg", "jpeg", "png", "pictures", "photos"),
        *("annotation", "annotations", "label", "labels", "mask", "masks"),
    ]
)

Class = tuple[str, str, dict[str, str]]  # part, class, {file name: name in the source}


@dataclass
class Layout:
    sources: dict[str, str]  # <part>/<class>/<file> -> name of the picture in the source
    left_out: list[str]  # names of files outside class folders, and of documents
    in_no_part: list[str]  # those of them in class folders beside the parts

    @property
    def classes(self) -> list[str]:
        return sorted({target.split("/")[1] for target in self.sources})


def recognize(files: Iterable[str], where: str) -> Layout:
    """Return the part and class of each picture among `files`, names relative to the source.

    Leftovers of operating systems are skipped; documents and files outside class folders are left
    out.

    Raises:
        UserError: there are no class folders, more pictures are outside them than inside, a part
            exists twice, two pictures have the same name, a name is not printable text, or
            `names.check_classes` refuses the classes.
    """
    root, documents = tree(files, where)
    root = unwrap(root)
    parts, left_out, in_no_part = find_parts(root, where)
    classes: list[Class] = []
    nested = []
    for part, folder in parts.items():
        for class_name, child in folder.folders.items():
            inner = images_in(child, documents)
            if inner.files:
                classes.append((part, class_name, inner.files))
            deeper = [name for folder in inner.folders.values() for name in folder.everything()]
            left_out += deeper
            if deeper and not inner.files:
                nested.append(min(deeper))
    if len(left_out) > sum(len(pictures) for _, _, pictures in classes):
        raise UserError(explain(root, min(left_out), documents, where))
    if nested:
        raise UserError(
            f"'{names.escaped(min(nested))}' is in a folder inside a class folder ({where}): move "
            "the pictures of each class up one level"
        )
    if not classes:
        raise UserError(f"no pictures found ({where}): {hint(documents)}")
    if all(no_class(class_name) for _, class_name, _ in classes):
        raise UserError(outside(next(iter(classes[0][2].values())), documents, where))
    return Layout(assign(classes, where), sorted(left_out + documents), sorted(in_no_part))


def unwrap(folder: Folder) -> Folder:
    """Skip folders that hold a single folder; return the one with the class folders or parts."""
    while len(folder.folders) == 1 and not folder.files:
        ((name, child),) = folder.folders.items()
        if not child.folders or part_of(name) in ("val", "test"):
            break
        folder = child
    return folder


def part_of(name: str) -> str | None:
    """Return train, val or test if the folder name means one of them; otherwise None."""
    for part, pattern in PARTS.items():
        if re.fullmatch(PART_NAME.format(pattern), names.clean(name), re.IGNORECASE):
            return part
    return None


def no_class(name: str) -> bool:
    """Whether a folder name says nothing about its pictures, such as `images` and `test1`."""
    return names.folded(name) in NO_CLASSES or part_of(name.rstrip("0123456789")) is not None


def find_parts(root: Folder, where: str) -> tuple[dict[str, Folder], list[str], list[str]]:
    """Find the parts, and the files that belong to none.

    Returns:
        The folder of each part, with its class folders inside; the names of all files outside class
        folders of a part; and those of these names that are in class folders of another folder.
    """
    labelled = {name: child for name, child in root.folders.items() if child.folders}
    folders: dict[str, str] = {}
    for name in labelled:
        part = part_of(name)
        if part in folders:
            raise UserError(
                f"two folders of the {part} part, '{folders[part]}' and "
                f"'{names.escaped(name)}' ({where}): merge them or remove one"
            )
        if part:
            folders[part] = name
    if not folders:
        return {"train": root}, list(root.files.values()), []
    if {part_of(name.rstrip("0123456789")) for name in root.folders} == {"train", None}:
        check_alone(root, folders["train"], where)
    if "train" not in folders:
        name = names.escaped(min(folders.values()))
        deeper = train_below(root)
        fix = f"move it beside '{names.escaped(deeper)}'" if deeper else EXPECTED
        raise UserError(f"folder '{name}' has no folder 'train' beside it ({where}): {fix}")
    train = unwrap(root.folders[folders["train"]])
    parts = {"train": train}
    for part in ("val", "test"):
        if part in folders and (folder := with_classes(root.folders[folders[part]], train)):
            parts[part] = folder
    used = [folders[part] for part in parts]
    beside = [root.files, *(folder.files for folder in parts.values())]
    left_out = [name for files in beside for name in files.values()]
    for name in root.folders.keys() - used:
        left_out += root.folders[name].everything()
    in_no_part = [
        name
        for other in labelled.keys() - folders.values()
        for folder in labelled[other].folders.values()
        for name in folder.everything()
    ]
    return parts, left_out, in_no_part


def train_below(root: Folder) -> str:
    """The path of the first folder with a name of the train part, at any depth; empty if none."""
    for name in sorted(root.everything()):
        folders = PurePosixPath(name).parts[:-1]
        for depth, folder in enumerate(folders, 1):
            if part_of(folder) == "train":
                return "/".join(folders[:depth])
    return ""


def check_alone(root: Folder, train: str, where: str) -> None:
    """Refuse a `train` folder beside folders of pictures: it may be a class with subfolders."""
    beside = root.folders.keys() - {train}
    if full := [name for name in beside if root.folders[name].files and not no_class(name)]:
        other = names.escaped(min(full))
        raise UserError(
            f"folder '{other}' beside '{train}' contains pictures ({where}): if both are classes, "
            f"rename '{train}'; if not, remove '{other}'"
        )


def with_classes(folder: Folder, train: Folder) -> Folder | None:
    """The folder with the class folders of a val or test folder; None if it has none."""
    classes = {names.folded(name) for name in train.folders}
    while len(folder.folders) == 1 and not folder.files:
        ((name, child),) = folder.folders.items()
        if names.folded(name) in classes:
            return folder
        folder = child
    return folder if folder.folders else None


def images_in(folder: Folder, documents: list[str]) -> Folder:
    """The class folder, or the folder in it that has its pictures, such as `images` beside `masks`.

    Files beside `images` are not for training: their names are added to `documents`.
    """
    while not folder.files and folder.folders:
        images = [name for name in folder.folders if names.folded(name) == "images"]
        if len(folder.folders) > 1 and (len(images) != 1 or not all(map(no_class, folder.folders))):
            break
        (chosen,) = images if len(folder.folders) > 1 else folder.folders
        for name, child in folder.folders.items():
            documents += child.everything() if name != chosen else ()
        folder = folder.folders[chosen]
    return folder


def assign(classes: list[Class], where: str) -> dict[str, str]:
    """Map <part>/<class>/<file> to each picture's name, with classes spelled as in training."""
    train = {name for part, name, _ in classes if part == "train"}
    others = {name for part, name, _ in classes if part != "train"}
    names.check_classes(train, others, where)
    spelling = {names.folded(name): names.clean(name) for name in train}
    sources: dict[str, str] = {}
    for part, class_name, pictures in classes:
        folder = f"{part}/{spelling[names.folded(class_name)]}"
        for file, name in pictures.items():
            if not names.is_text(name):
                raise UserError(
                    f"the name '{names.escaped(name)}' is not UTF-8 or has control characters "
                    f"({where}): rename it"
                )
            target = f"{folder}/{unicodedata.normalize('NFC', file)}"
            if target in sources:
                raise UserError(
                    f"{sources[target]!a} and {name!a} have the same name, apart from case, spaces "
                    f"or Unicode form ({where}): rename one"
                )
            sources[target] = name
    return sources


def explain(root: Folder, name: str, documents: list[str], where: str) -> str:
    """The message if pictures are not in class folders; `name` is the first of them."""
    deeper = [name for name, child in root.folders.items() if child.folders]
    if len(deeper) > 1 and not any(child.files for child in root.folders.values()):
        listed = ", ".join(f"'{names.escaped(name)}'" for name in sorted(deeper)[:5])
        return (
            f"several folders contain class folders, {listed} ({where}): use only one of them, or, "
            "if they are classes, move their pictures up one level"
        )
    return outside(name, documents, where)


def outside(name: str, documents: list[str], where: str) -> str:
    return f"'{names.escaped(name)}' is not in a class folder ({where}): {hint(documents)}"


def hint(documents: list[str]) -> str:
    """How to fix pictures that are not in class folders."""
    for name in documents:
        if PurePosixPath(name).suffix.lower() in ARCHIVES:
            return f"unpack the archive '{names.escaped(name)}' in it, and {EXPECTED}"
    return EXPECTED
