"""The choice of the device, and of the number of threads."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from cifar import UserError, hardware

ARCHES = ["sm_75", "sm_90a", "sm_120", "compute_120"]
DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 12020). "
    "Please update your GPU driver (Triggered internally at /c10/cuda/CUDAFunctions.cpp:119.)"
)
MISMATCH = (
    "CUDA initialization: Unexpected error from cudaGetDeviceCount(). Did you run some cuda "
    "functions before calling NumCudaDevices() that might have already set an error? Error 804: "
    "forward compatibility was attempted on non supported HW (Triggered internally at /c10.cpp:9.)"
)


@pytest.fixture
def machine(monkeypatch):
    """A function that makes torch report this many CUDA devices, and whether MPS exists.

    Args:
        warning: what torch says if CUDA does not start.
        capabilities: of the cards; PyTorch is built for 7.5 and newer here.
        arches: what PyTorch is built for.
    """
    monkeypatch.setattr(hardware, "make_deterministic", lambda device: None)

    def pretend(cuda, mps, warning="", capabilities=((9, 0),) * 9, arches=ARCHES):
        def is_available():
            if warning:
                warnings.warn(warning, stacklevel=1)
            return bool(cuda) and not warning

        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capabilities[i])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "Old Card")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: arches)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda:0"),
        (1, True, "auto", "cuda:0"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (2, True, "mps", "mps"),
        (2, True, "cpu", "cpu"),
    ],
)
def test_the_device_of_that_name(machine, cuda, mps, name, expected):
    """auto is the first of CUDA, MPS and CPU; cuda is the first GPU; a full name is that device."""
    machine(cuda, mps)
    assert hardware.pick(name, "train.device") == torch.device(expected)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "there"),
    [
        (0, False, "cuda:0", "cpu"),
        (0, False, "mps", "cpu"),
        (2, False, "cuda:2", "cuda:0, cuda:1, cpu"),
        (1, True, "cuda:1", "cuda:0, mps, cpu"),
    ],
)
def test_an_absent_device_is_an_error_that_lists_what_there_is(machine, cuda, mps, name, there):
    """For a device that is absent, one line gives its name, the available devices and the key."""
    machine(cuda, mps)
    with pytest.raises(
        UserError,
        match=rf"^device {name} is not available, only {there} \(params\.yaml, evaluate\.device\)",
    ):
        hardware.pick(name, "evaluate.device")


OLD = [
    ({"warning": DRIVER}, "the NVIDIA driver is too old for CUDA 13.0"),
    (
        {"warning": MISMATCH},
        "CUDA does not start, Error 804: forward compatibility was attempted on non supported HW",
    ),
    ({"warning": "CUDA initialization: broken"}, "CUDA does not start"),
    ({"capabilities": [(6, 1)]}, "Old Card is too old for this build of PyTorch"),
]


@pytest.mark.hostile
@pytest.mark.parametrize(("state", "reason"), OLD)
def test_auto_falls_back_from_a_gpu_that_cannot_be_used(machine, capsys, state, reason):
    """If the driver or the GPU is too old, auto uses another device, and a note says why."""
    for mps, expected in ((False, "cpu"), (True, "mps")):
        machine(1, mps, **state)
        assert hardware.pick("auto", "train.device") == torch.device(expected)
        assert capsys.readouterr().err == f"note: {reason}: computing on {expected}\n"
    assert hardware.pick("cpu", "train.device") == torch.device("cpu")
    assert capsys.readouterr().err == ""


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
@pytest.mark.parametrize(("state", "reason"), OLD)
def test_a_named_gpu_that_cannot_be_used_is_refused(machine, name, state, reason):
    """If such a GPU is chosen by name, one line gives the reason and the available devices."""
    machine(1, False, **state)
    with pytest.raises(UserError) as caught:
        hardware.pick(name, "train.device")
    where = "only cpu (params.yaml, train.device): choose one of them"
    assert str(caught.value) == f"device cuda:0 is not available ({reason}), {where}"


def test_a_card_as_old_as_the_build_is_used(machine):
    """The oldest GPU that PyTorch is built for is used, and so is one newer than all of these."""
    for capability in ((7, 5), (8, 0), (13, 0)):
        machine(1, False, capabilities=[capability])
        assert hardware.pick("auto", "train.device") == torch.device("cuda:0")


@pytest.mark.hostile
def test_an_old_card_beside_a_new_one(machine):
    """The new card is used, also by its name, and the old one is refused."""
    machine(2, False, capabilities=[(6, 1), (9, 0)])
    for name in ("auto", "cuda", "cuda:1"):
        assert hardware.pick(name, "train.device") == torch.device("cuda:1")
    with pytest.raises(
        UserError, match=r"^device cuda:0 is not available \(Old Card .*only cuda:1, c"
    ):
        hardware.pick("cuda:0", "train.device")
    with pytest.raises(UserError, match=r"^device GPU 2 is not available \(Old Card .*cuda:1,"):
        hardware.pick("auto", "train.device", gpu=1)


@pytest.mark.hostile
def test_what_torch_says_of_a_new_card_is_one_line(machine, monkeypatch, capsys):
    """A warning of torch about a card that is used is passed on in one line."""
    machine(1, False)

    def capability(gpu):
        warnings.warn("\n  Card with sm_130 is not\n  compatible.\n", stacklevel=1)
        return 13, 0

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    assert hardware.pick("auto", "train.device") == torch.device("cuda:0")
    assert capsys.readouterr().err == "note: Card with sm_130 is not compatible.\n"


@pytest.mark.hostile
def test_a_build_for_cards_of_amd(machine):
    """Its architectures are not numbered as NVIDIA's, and its devices are called cuda as well."""
    machine(1, False, arches=["gfx90a", "gfx942"])
    assert hardware.pick("auto", "train.device") == torch.device("cuda:0")


@pytest.mark.hostile
def test_a_broken_gpu_does_not_matter_on_the_cpu(machine, monkeypatch):
    """Who asks for the CPU gets it, whatever the GPU does."""
    machine(1, False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: 1 / 0)
    assert hardware.pick("cpu", "train.device") == torch.device("cpu")


def test_a_gpu_computes_deterministically(monkeypatch):
    """On a GPU, deterministic algorithms and full fp32 are requested; on a CPU nothing changes."""
    asked = []
    for name in ("benchmark", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, True)
    filled = torch.utils.deterministic
    monkeypatch.setattr(filled, "fill_uninitialized_memory", True)
    monkeypatch.setattr(
        torch,
        "use_deterministic_algorithms",
        lambda mode, warn_only: asked.append((mode, warn_only)),
    )
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    hardware.make_deterministic("cpu")
    assert not asked and torch.backends.cudnn.benchmark
    hardware.make_deterministic("cuda:0")
    assert asked == [(True, True)]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark and not torch.backends.cudnn.allow_tf32
    assert not filled.fill_uninitialized_memory


def test_threads():
    """The given number of threads is used; 0 uses all cores of the process."""
    before = torch.get_num_threads()
    try:
        assert hardware.set_threads(3) == torch.get_num_threads() == 3
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert hardware.set_threads(0) == torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "precision", "mode", "cast"),
    [
        ("cpu", "auto", "none", False),
        ("cuda", "auto", "none", True),
        ("mps", "auto", "none", False),
        ("cuda", "fp32", "reduce-overhead", False),
        ("cpu", "fp32", "default", False),
        ("cpu", "bf16", "reduce-overhead", True),
    ],
)
def test_how_training_calls_the_network(monkeypatch, device, precision, mode, cast):
    """auto is bf16 on CUDA only; a name is used on any device; the compile mode is passed on."""
    modes = []
    monkeypatch.setattr(torch, "compile", lambda net, mode, dynamic: modes.append(mode) or net)
    net = torch.nn.Linear(2, 2)
    call = hardware.forward(net, torch.device(device), precision, mode)
    assert modes == ([] if mode == "none" else [mode])
    assert (call is not net) == cast


def test_bf16_gives_float32_logits_and_gradients():
    """In bf16 the logits are rounded, but they and the weights' gradients are float32."""
    net = torch.nn.Linear(64, 3)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    logits = hardware.forward(net, torch.device("cpu"), "bf16", "none")(x)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, net(x))
    assert torch.allclose(logits, net(x), atol=0.05)
    logits.sum().backward()
    assert net.weight.grad.dtype == torch.float32


def test_threads_without_affinity(monkeypatch):
    """On a system without process affinity, the processes share all cores."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    before = torch.get_num_threads()
    try:
        assert hardware.set_threads(0) == 6
        assert hardware.set_threads(0, processes=4) == 1
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert hardware.set_threads(0) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_another_c_library_is_no_error(monkeypatch, error):
    """On Windows and systems without glibc, where mallopt cannot be called, nothing fails."""

    def fail(name):
        raise error

    monkeypatch.setattr(hardware.ctypes, "CDLL", fail)
    hardware.keep_memory()


@pytest.mark.parametrize("accepted", [True, False])
def test_freed_memory_is_kept(monkeypatch, accepted):
    """glibc gets a high threshold, and a lower one if it refuses that."""
    calls = []

    def mallopt(option, value):
        calls.append((option, value))
        return accepted

    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    hardware.keep_memory()
    thresholds = [value for option, value in calls if option == hardware.M_MMAP_THRESHOLD]
    assert thresholds == ([1 << 30] if accepted else [1 << 30, 1 << 25])
    assert calls[-1] == (hardware.M_TRIM_THRESHOLD, (1 << 31) - 1)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_total_memory_is_what_the_process_may_have():
    """Total memory is the machine's, or the process's limit if lower; usage does not count."""
    code = "import torch; from cifar import hardware as h; "
    code += "print(h.total_memory(torch.device('cpu')))"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [
        int(subprocess.check_output(["sh", "-c", f'{limit} {sys.executable} -c "{code}"']))
        for limit in ("", "ulimit -d 3000000;")
    ]
    assert found[0] <= machine
    assert found[1] == min(found[0], 3_000_000 * 1024)


def test_the_limits_of_a_container_count(tmp_path):
    """The limits of the process's control group and of its parents count; `max` is no limit."""
    groups = tmp_path / "cgroup"
    groups.write_text("1:cpu:/other\n0::/job/task\n")
    (tmp_path / "root/job/task").mkdir(parents=True)
    (tmp_path / "root/job/task/memory.max").write_text("max\n")
    (tmp_path / "root/job/memory.max").write_text("5000\n")
    (tmp_path / "root/memory.max").write_text("9000\n")
    assert hardware.container_limits(groups, tmp_path / "root") == [5000, 9000]
    assert hardware.container_limits(tmp_path / "none", tmp_path / "root") == []
