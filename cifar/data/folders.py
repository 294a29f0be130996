"""Files by the folders that they are in, on a disk or by their names alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cifar import UserError
from cifar.data import names

DOCUMENTS = frozenset(  # endings of files that lie beside pictures and are none
    [
        *(".cfg", ".ini", ".json", ".jsonl", ".log", ".md5", ".sha256", ".xml", ".yaml", ".yml"),
        *(".csv", ".parquet", ".tsv", ".xls", ".xlsx"),
        *(".doc", ".docx", ".htm", ".html", ".md", ".pdf", ".rst", ".txt"),
        *(".ipynb", ".m", ".py", ".sh"),
        *(".mat", ".npy", ".npz", ".pickle", ".pkl"),
        *(".aae", ".avi", ".m4v", ".mov", ".mp4", ".webm", ".xmp"),  # telephones' films and edits
        *(".3gp", ".mkv", ".mp3", ".mpeg", ".mpg", ".ogg", ".opus", ".wmv"),  # films and sound
        *(".lnk", ".url"),  # shortcuts of Windows
        *(".bak", ".crdownload", ".part", ".tmp"),  # downloads that did not end, and old copies
    ]
)
ARCHIVES = frozenset([".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"])
NO_PICTURES = tuple(DOCUMENTS | ARCHIVES)
MAX_DEPTH = 16  # folders in folders; published data sets have up to five


@dataclass
class Folder:
    files: dict[str, str] = field(default_factory=dict)  # file name -> whole name
    folders: dict[str, "Folder"] = field(default_factory=dict)

    def everything(self) -> Iterator[str]:
        """The whole name of each file, in folders below too."""
        yield from self.files.values()
        for folder in self.folders.values():
            yield from folder.everything()


def tree(files: Iterable[str], where: str) -> tuple[Folder, list[str]]:
    """The folders of all pictures and the documents beside them."""
    root = Folder()
    documents = []
    for name in sorted(files):
        parts = names.components(name)
        if not parts or names.hidden(parts):
            continue
        if len(parts) > MAX_DEPTH:
            raise UserError(
                f"folders nested too deep ('{names.escaped(name)}', {where}): make them shallower"
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
    """The name of every file below `folder`, relative to it; links are followed.

    Raises:
        UserError: a link to a folder that it is in, an empty folder, or what is no file.
    """
    return list(visit(folder, "", (folder.resolve(),)))


def visit(folder: Path, inside: str, above: tuple[Path, ...]) -> Iterator[str]:
    """The names of the files of one folder and below; `above` are the folders that it is in."""
    paths = [path for path in sorted(folder.iterdir()) if not names.leftover(path.name)]
    if not paths and inside:
        raise UserError(f"empty folder ({folder}): put pictures into it, or remove it")
    for path in paths:
        name = f"{inside}{path.name}"
        if path.is_dir():
            real = path.resolve()
            if real in above or len(above) > MAX_DEPTH:
                raise UserError(f"folders nested without end ({path}): remove the link in it")
            yield from visit(path, f"{name}/", (*above, real))
        elif path.is_file():
            yield name
        else:
            raise UserError(f"neither a file nor a folder ({path}): remove it, or fix the link")
