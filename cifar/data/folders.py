"""Trees of folders: listed from a disk, or built from a list of file names."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cifar import UserError, leftovers
from cifar.data import names

DOCUMENTS = frozenset(  # suffixes of files that lie beside pictures, but are not pictures
    [
        *(".cfg", ".ini", ".json", ".jsonl", ".log", ".md5", ".sha256", ".xml", ".yaml", ".yml"),
        *(".csv", ".parquet", ".tsv", ".xls", ".xlsx"),
        *(".doc", ".docx", ".htm", ".html", ".md", ".pdf", ".rst", ".txt"),
        *(".ipynb", ".m", ".py", ".sh"),
        *(".mat", ".npy", ".npz", ".pickle", ".pkl"),
        *(".aae", ".avi", ".m4v", ".mov", ".mp4", ".webm", ".xmp"),  # videos and edits of phones
        *(".3gp", ".mkv", ".mp3", ".mpeg", ".mpg", ".ogg", ".opus", ".wmv"),  # video and sound
        *(".lnk", ".url"),  # Windows shortcuts
        *(".bak", ".crdownload", ".part", ".tmp"),  # unfinished downloads and old copies
    ]
)
ARCHIVES = frozenset([".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"])
NO_PICTURES = tuple(DOCUMENTS | ARCHIVES)
MAX_DEPTH = 16  # nested folders; published data sets have up to five


@dataclass
class Folder:
    files: dict[str, str] = field(default_factory=dict)  # file name -> full name
    folders: dict[str, "Folder"] = field(default_factory=dict)

    def everything(self) -> Iterator[str]:
        """Yield the full name of each file, also of those in subfolders."""
        yield from self.files.values()
        for folder in self.folders.values():
            yield from folder.everything()


def tree(files: Iterable[str], where: str) -> tuple[Folder, list[str]]:
    """Return the tree of all pictures, and the names of all documents."""
    root = Folder()
    documents = []
    for name in sorted(files):
        parts = names.components(name)
        if not parts or leftovers.hidden(parts):
            continue
        if len(parts) > MAX_DEPTH:
            raise UserError(
                f"folders nested too deeply ('{names.escaped(name)}', {where}): "
                "move the pictures up"
            )
        if parts[-1].lower().endswith(NO_PICTURES):
            documents.append(name)
            continue
        folder = root
        for part in parts[:-1]:
            folder = folder.folders.setdefault(part, Folder())
        folder.files[parts[-1]] = name
    return root, documents


def walk(folder: Path) -> list[str]:
    """List every file below `folder` by its name relative to it, following links.

    Raises:
        UserError: a link points to a folder around it, folders are nested too deeply, a folder is
            empty, or an entry is neither a file nor a folder.
    """
    return list(visit(folder, "", (folder.resolve(),)))


def visit(folder: Path, inside: str, above: tuple[Path, ...]) -> Iterator[str]:
    """Yield the names of all files below `folder`; `above` is it and the folders around it."""
    paths = [path for path in sorted(folder.iterdir()) if not leftovers.leftover(path.name)]
    if not paths and inside:
        raise UserError(f"empty folder ({folder}): add pictures to it, or remove it")
    for path in paths:
        name = f"{inside}{path.name}"
        if path.is_dir():
            real = path.resolve()
            if real in above or len(above) > MAX_DEPTH:
                raise UserError(
                    f"folders nested without end or too deeply ({path}): remove the link to a "
                    "folder around it, or move the pictures up"
                )
            yield from visit(path, f"{name}/", (*above, real))
        elif path.is_file():
            yield name
        else:
            raise UserError(f"neither a file nor a folder ({path}): remove it, or fix the link")
