"""tools/install.py: an environment from a lock file, and torch from another index."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import install

ROOT = Path(__file__).parent.parent


def wheel(folder, name, version):
    """A wheel of one empty module; returns its lines for a lock file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name}=={version.split('+')[0]} \\\n    --hash=sha256:{digest}\n    # via a test\n"


def index(folder, name, version):
    """A package index in a folder, with one wheel in it."""
    wheel(folder / name, name, version)
    links = [f'<a href="{path.name}">{path.name}</a>' for path in (folder / name).glob("*.whl")]
    (folder / name / "index.html").write_text("".join(links))


@pytest.fixture
def lock(tmp_path):
    """A lock file of which only the packages in the folder `wheels` can be installed."""
    pins = [wheel(tmp_path / "wheels", name, "1.0") for name in ("setuptools", "six")]
    unknown = hashlib.sha256(b"").hexdigest()
    for name in ("torch", "torchvision", "triton", "nvidia-nccl-cu13", "cuda-toolkit[cublas]"):
        pins.append(f"{name}==2.0 \\\n    --hash=sha256:{unknown}\n")
    (tmp_path / "requirements.lock").write_text("# a comment\n" + "".join(pins))
    return tmp_path / "requirements.lock"


def make_environment(lock, **variables):
    """Run the program in the folder of `lock`, with `wheels` as the only source of packages."""
    own = {"PIP_FIND_LINKS": str(lock.parent / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    (lock.parent / "empty").mkdir(exist_ok=True)
    own["PIP_INDEX_URL"] = (lock.parent / "empty").as_uri()
    return subprocess.run(
        [sys.executable, ROOT / "tools/install.py", lock.name],
        cwd=lock.parent,
        env=os.environ | own | variables,
        capture_output=True,
        text=True,
    )


def installed(lock):
    site = next((lock.parent / ".venv/lib").glob("python*")) / "site-packages"
    return {path.name.split("-")[0]: path.name for path in site.glob("*.dist-info")}


@pytest.mark.long
def test_torch_comes_from_the_index_that_the_user_names(lock, tmp_path):
    """torch and torchvision come from TORCH_INDEX, without CUDA; the rest is as in the lock."""
    for name in ("torch", "torchvision"):
        index(tmp_path / "index", name, "2.0+cpu")
    done = make_environment(lock, TORCH_INDEX=(tmp_path / "index").as_uri())
    assert done.returncode == 0, done.stderr
    found = installed(lock)
    assert found["torch"] == "torch-2.0+cpu.dist-info"
    assert found.keys() - {"pip"} == {"setuptools", "six", "torch", "torchvision"}


@pytest.mark.long
def test_a_file_with_another_hash_is_not_installed(lock):
    """If a package does not match its hash, the installation fails."""
    wheel(lock.parent / "wheels", "six", "1.0")
    text = lock.read_text()
    lock.write_text(text[: text.index("torch==")].replace("sha256:", "sha256:00")[:-2])
    done = make_environment(lock)
    assert done.returncode == 1
    assert done.stderr.endswith("see above, then run make again\n")


def test_an_older_python_is_refused(monkeypatch):
    """A Python that is too old is a one-line error, which says how to choose another."""
    monkeypatch.setattr(install, "OLDEST", (9, 0))
    with pytest.raises(SystemExit) as ended:
        install.main()
    expected = "error: Python 9.0 or later is needed (python3): use `make PYTHON=…`"
    assert str(ended.value) == expected


def test_every_requirement_of_the_locks_is_read():
    """Names, extras and markers in the lock files are parsed, and no line is lost."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pins = install.read_lock(ROOT / name)
        assert text.endswith("".join(pins.values()))
        assert {"torch", "setuptools", "cuda-toolkit", "antlr4-python3-runtime"} <= pins.keys()
        assert len([pin for pin in pins if install.CUDA.fullmatch(pin)]) > 10
