"""The scratch projects of the tests: what they take from the workspace."""

import pytest
from conftest import create


@pytest.fixture
def workspace(project):
    """A repository to copy, which also has results and parameters of another run."""
    for name in ("metrics/test.json", "plots/history.csv", "dvc.lock"):
        (project.path / name).parent.mkdir(exist_ok=True)
        (project.path / name).write_text("committed by mistake: {")
    project.commit()
    (project.path / "models/model.safetensors").write_bytes(b"half a model")
    (project.path / "notes.txt").write_text("a note")
    (project.path / "recipes/mine.yaml").write_text("train: {epochs: 1}\n")
    project.edit("dvc.lock", lambda text: text + "[damaged")
    project.edit("params.yaml", lambda text: text.replace("\nseed: 0", "\nseed: 7"))
    return project


def tree(project):
    return {
        path.relative_to(project.path).as_posix(): path.read_bytes()
        for path in project.path.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project.path).parts
    }


def test_a_used_workspace_gives_the_project_of_a_fresh_clone(project, workspace, tmp_path):
    """A project does not get results, a damaged dvc.lock, edited parameters or stray files."""
    fresh = create(tmp_path / "fresh")
    assert tree(create(tmp_path / "copy", workspace.path)) == tree(fresh)
    assert "seed: 7" not in (tmp_path / "copy/params.yaml").read_text()
    assert not list((tmp_path / "copy/metrics").glob("*"))


def test_edited_files_and_new_modules_are_tested(workspace, tmp_path):
    """A project has edits of tracked files and new modules, and lacks deleted files."""
    workspace.edit("stages/fetch.py", lambda text: text + "# edited\n")
    (workspace.path / "recipes/vgg1.yaml").unlink()
    (workspace.path / "cifar/models/linear.py").write_text('"""New."""\n')
    copy = tree(create(tmp_path / "copy", workspace.path))
    assert copy["stages/fetch.py"].endswith(b"# edited\n")
    assert "recipes/vgg1.yaml" not in copy
    assert copy["cifar/models/linear.py"] == b'"""New."""\n'


def test_a_new_parameter_is_tested_before_its_commit(workspace, tmp_path):
    """If the keys of params.yaml differ from the commit, the edited file is used."""
    workspace.edit("params.yaml", lambda text: text.replace("\nfetch:\n", "\nfetch:\n  new: 1\n"))
    create(tmp_path / "copy", workspace.path)
    assert "  new: 1\n" in (tmp_path / "copy/params.yaml").read_text()


def test_a_damaged_params_file_is_not_tested(workspace, tmp_path):
    """If params.yaml cannot be read, the committed one is used."""
    workspace.edit("params.yaml", lambda text: "train: [")
    create(tmp_path / "copy", workspace.path)
    assert "\nseed: 0" in (tmp_path / "copy/params.yaml").read_text()
