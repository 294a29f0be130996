"""The running stage in dvc.yaml; test_stage.py has what happens when its inputs change."""

from pathlib import Path

import pytest
from test_stage import PIPELINE, running  # noqa: F401  a fixture

from cifar import UserError, pipeline


def test_the_root_is_the_users_repository(monkeypatch):
    """In DVC's temporary copies, lasting state is stored in the original repository."""
    monkeypatch.setenv("DVC_ROOT", "/original")
    assert pipeline.root() == Path("/original")
    monkeypatch.delenv("DVC_ROOT")
    assert pipeline.root() == Path()


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("outputs", ["[5]", "[{}]", "null"])
def test_a_stage_of_odd_outputs_has_no_time(outputs):
    """Asking for the time of a stage without proper outputs is one line."""
    Path("dvc.yaml").write_text(f"stages: {{work: {{deps: [], outs: {outputs}}}}}\n")
    with pytest.raises(UserError, match=r"^no outputs of work \(dvc.yaml\): "):
        pipeline.time_file("work")
    with pytest.raises(UserError, match=r"^no stage other \(dvc.yaml\): restore it with `git"):
        pipeline.time_file("other")


@pytest.mark.usefixtures("running")
def test_a_pipeline_with_a_byte_order_mark_is_read():
    """Editors on Windows write a byte order mark, which DVC accepts too."""
    Path("dvc.yaml").write_bytes(b"\xef\xbb\xbf" + PIPELINE.encode())
    assert list(pipeline.stages()) == ["work"]
