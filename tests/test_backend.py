"""How a device is chosen; and that CuPy, by a stand-in for it, is asked for nothing that it has not, nor for copies."""

import operator
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from matplotlib.figure import Figure

import minigan as mg
from minigan import backend
from minigan.article import sections, toys
from minigan.article.experiment import critic_alone
from minigan.fast import replay
from minigan.fast.record import leaves
from minigan.run import Run, load, pictures
from minigan.training import WGANGP
from tests.cases import CASES
from tests.running import ROOT, TINY
from tests.running import run as run_mnist
from tests.standin import DeviceArray, Stream, cupy, standing_in
from tests.test_replay import SMALL, beginning_with, fast, model, move, train

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3, 2), dtype="uint8")
needs_cupy = pytest.mark.skipif(not cupy, reason="CuPy is not installed; it is optional, for --device gpu")


@pytest.fixture
def standin():
    with standing_in() as standin:
        yield standin


# --- A device is chosen -------------------------------------------------------------------------

BROKEN = "====\nFailed to import CuPy.\n\nOriginal error:\n  ImportError: libcudart.so: cannot open\n===="


@pytest.mark.parametrize(
    "device, module, message",
    [
        ("tpu", "", "unknown device 'tpu': expected 'cpu' or 'gpu'"),
        ("gpu", "raise ModuleNotFoundError", r"CuPy is not installed.*pip install 'cupy-cuda13x\[ctk\]'"),
        ("gpu", f"raise ImportError({BROKEN!r})", r"CuPy does not import \(ImportError: libcudart.so: .*; install it"),
    ],
)
def test_what_the_error_says_where_there_is_no_cupy(monkeypatch, tmp_path, device, module, message):
    (tmp_path / "cupy.py").write_text(module)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(backend.DeviceError, match=rf"^{message}.*\Z"):  # in one line
        backend.use(device)
    assert backend.xp is np


@needs_cupy
def test_with_cupy_but_no_device_the_error_says_so():
    if cupy.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(backend.DeviceError, match=r"^CuPy [\d.]+ finds no usable CUDA device \(.*\); it.*\[ctk\].*\Z"):
        backend.use("gpu")
    assert backend.xp is np


def test_without_cutensor_the_error_says_what_to_install(standin, monkeypatch):
    """CuPy's module does not import without its second library, and does not look for that in what pip installed."""
    cupyx = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(backend.DeviceError, match=r"^a CUDA graph needs cuTENSOR.*pip install cutensor-cu13.*\Z"):
        fast(model(how="graph"))
    library = SimpleNamespace(load_nvidia_dynamic_lib=partial(setattr, cupyx, "cutensor"))
    for name in ("cuda", "cuda.pathfinder"):
        monkeypatch.setitem(sys.modules, name, library)
    fast(model(how="graph"))
    assert cupyx.cutensor == "cutensorMg"


def test_numpy_and_cupy_meet_in_one_file_and_large_packages_are_imported_where_they_are_asked_for():
    assert {path.name for path in ROOT.rglob("minigan/**/*.py") if "import cupy" in path.read_text()} == {"backend.py"}
    code = "import sys, minigan, run_mnist; sys.exit(not {'cupy', 'matplotlib'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- All stays on the device --------------------------------------------------------------------


def test_the_whole_iteration_stays_on_the_device(standin):
    """No silent conversion (it raises), and not one transfer to the host."""
    m = model(how=None)
    m.iteration()
    DeviceArray.transfers = 0
    metrics = m.iteration()
    assert (type(metrics), DeviceArray.transfers) == (DeviceArray, 0)
    m.check_finite()
    assert DeviceArray.transfers == len(m.state())


@pytest.mark.parametrize("name", sections.SECTIONS)
def test_every_section_of_the_article_stays_on_the_device(standin, monkeypatch, tmp_path, name):
    """Tiny networks are trained for three iterations, and panels draw on nothing."""

    def drawn(panels, *_):
        axes = MagicMock()
        for panel in panels:
            panel(axes)
        assert DeviceArray not in map(type, leaves([list(call.args) for call in axes.mock_calls]))
        return b"a picture"

    tiny = {"iterations": 3, "batch_size": 4, "critic_steps": 1, "critic": (3,), "generator": (3,)}
    monkeypatch.setattr(pictures, "panels", drawn)
    monkeypatch.setattr(sections, "scaled", lambda settings, _: replace(settings, **tiny))
    monkeypatch.setattr(sections, "critic_alone", lambda settings, draw, _: critic_alone(settings, draw, 2))
    monkeypatch.setattr(sections, "real", lambda draw, n=64, seed=99: toys.real(draw, 64, seed))
    monkeypatch.setattr(WGANGP, "generate", lambda m, n, generate=WGANGP.generate: generate(m, min(n, 64)))
    sections.SECTIONS[name](tmp_path / "picture.png", 0.001)
    assert (tmp_path / "picture.png").read_bytes() == b"a picture"


@pytest.mark.parametrize("name", CASES)
@needs_cupy
def test_cupy_has_all_that_the_primitives_and_their_derivatives_call(name, standin):
    for f, arrays in CASES[name]:
        inputs = [mg.tensor(a, requires_grad=True) for a in arrays]
        y = f(*inputs)
        parts = [g.sum() for g in mg.grad(y.sum(), inputs, create_graph=True, materialize_grads=True)]
        assert {type(x.data) for x in (y, *parts)} == {DeviceArray}
        mg.grad(sum(parts), inputs, materialize_grads=True)


# --- A run --------------------------------------------------------------------------------------


def begun():
    about = {"data": "", "size": None, "crc32": 0, "workers": 1, "threads": 1, "kernels": "", "device": "gpu"}
    return Run(SMALL, PIXELS.shape[1:], about)


def goes_on(run):
    return run.advance(run.model(PIXELS).iteration)[:3]


def state(run):
    return {name: backend.to_numpy(x).tobytes() for name, x in run.gan.state().items()}


def test_a_run_goes_on_on_the_other_device_and_back(tmp_path):
    run = begun()
    run.save(tmp_path)
    for i, device in enumerate((standing_in, nullcontext, standing_in), 1):
        saved = state(run)
        with device():
            run = load(tmp_path)
            assert state(run) == saved
            row = goes_on(run)
            run.save(tmp_path)
        assert row[0] == i
        assert np.isfinite(row).all()
        assert state(run) != saved


def test_a_run_goes_on_with_the_draws_of_its_device(standin, tmp_path):
    """CuPy takes no NumPy array among its own; and another model of GPU has a state of another size."""
    run = begun()
    goes_on(run)
    run.save(tmp_path)
    expected = goes_on(run)
    assert goes_on(load(tmp_path)) == expected
    standin.multiprocessors = 2
    assert goes_on(load(tmp_path)) != expected


def test_a_whole_run(judged, standin, monkeypatch, capsys):
    """Through all that the command line does; and what is compiled at the first iteration costs no training time."""
    happened, prepare, advance = [], WGANGP.prepare, Run.advance
    monkeypatch.setattr(WGANGP, "prepare", lambda model: happened.append("iteration") or prepare(model))
    monkeypatch.setattr(Run, "advance", lambda *given: happened.append("timed") or advance(*given))
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # it takes longest
    given = ["--device", "gpu", "--out", "out"]
    assert run_mnist(*TINY, *given, "--evaluate-every", 6, "--data", judged) == 0
    assert happened == ["iteration", *["timed", "iteration"] * 6]
    assert run_mnist("--resume", "--graph", "--iterations", 9, *given) == 0
    for flags in (["--generate", 3], ["--evaluate"], ["--report"]):
        assert run_mnist(*flags, *given) == 0
    assert capsys.readouterr().err == ""


def test_the_clock_is_read_once_the_figures_are_there(monkeypatch):
    """Until then the device may still be at work on them."""
    run, waited = begun(), []
    monkeypatch.setattr(backend, "to_numpy", lambda x: waited.append(1) or x)
    monkeypatch.setattr(time, "perf_counter", lambda: len(waited))
    goes_on(run)
    assert run.seconds == 1


# --- An iteration as a CUDA graph ---------------------------------------------------------------


def test_a_graph_is_captured_once_then_proven_and_then_launched(standin):
    """Aside, and with another product than CuPy's, which cannot be captured; outside of the graph all is as before."""
    before = backend.matmul
    train(model(how="graph"), 5)
    assert standin.asked == ["aside", "begin", "end", "back", *4 * ["launch"]]  # the first of these is its proof
    assert backend.matmul is before


def test_what_cannot_be_captured_says_why_and_goes_on(standin, monkeypatch):
    """The cause is told, not that the capture was cut short, which raises too; and no half graph is launched."""

    def fails(m, bias):
        if standin.asked[-1:] == ["begin"]:
            raise NotImplementedError("no such luck\nduring capture")

    def cut_short(stream, end=Stream.end_capture):
        end(stream)
        raise RuntimeError("invalidated")

    monkeypatch.setattr(Stream, "end_capture", cut_short)
    captured, eager = beginning_with(fails, "graph")
    with pytest.warns(UserWarning, match=r"run as they are: no CUDA graph can be captured \(no such luck\)$"):
        trained = train(captured, 6)
    assert trained[:2] == train(eager, 6)[:2]
    assert "launch" not in standin.asked


def test_a_graph_that_computes_something_else_is_not_used(standin):
    """What the host decides is not captured."""
    captured, eager = beginning_with(lambda m, bias: move(bias, m.done), "graph")
    with pytest.warns(UserWarning, match="a replayed one comes to another result in"):
        trained = train(captured, 8)
    assert trained[:2] == train(eager, 8)[:2]


@pytest.mark.parametrize("transpose", ["", "x", "y"])
def test_the_recorded_product_is_the_product(standin, transpose):
    matmul, rng = replay.cutensor_matmul(), np.random.default_rng(0)
    x = rng.random((3, 2)).T if transpose == "x" else rng.random((2, 3))
    y = rng.random((4, 3)).T if transpose == "y" else rng.random((3, 4))
    for a, b in ((x, y), (x, np.broadcast_to(y[:, :1], (3, 4))), (np.stack([x, x]), y)):
        np.testing.assert_allclose(matmul(standin.asarray(a), standin.asarray(b)).get(), a @ b)
    with pytest.raises(ValueError):
        matmul(standin.asarray(x), standin.asarray(x))


# --- The stand-in can fail ----------------------------------------------------------------------


def test_it_refuses_what_cupy_refuses(standin):
    x, zeros = standin.ones(2, "float32"), np.zeros(2, "float32")
    for call, *args in ((np.add, x, 1), (np.asarray, x), (operator.add, x, zeros), (operator.setitem, x, ..., zeros)):
        with pytest.raises(TypeError):
            call(*args)


@needs_cupy
def test_it_refuses_what_cupy_has_not(standin):
    x = standin.ones(2, "float32")
    with pytest.raises(AttributeError):
        _ = standin.emath
    with pytest.raises(AssertionError):
        standin.maximum(x, 0, where=True)
    for call, args in ((standin.concatenate, [[x]]), (x.sum, []), (backend.default_rng(0).random, [3])):
        with pytest.raises(TypeError):
            call(*args, where=True)


def test_it_captures_as_cuda_does(standin):
    x, stream = standin.ones((1, 1), "float32"), Stream(non_blocking=True)
    stream.begin_capture()
    x += 1
    for call, *args in ((x.item,), (x.get,), (standin.asarray, [1.0]), (standin.matmul, x, x), (stream.synchronize,)):
        with pytest.raises(RuntimeError, match="cannot be captured"):
            call(*args)
    graph, before = stream.end_capture(), x.item()
    graph.launch()
    assert x.item() == before + 1


@needs_cupy
@pytest.mark.parametrize("architecture", ["compute_80", "compute_90"])
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_the_fused_kernels_compile(dtype, architecture):
    """By NVIDIA's compiler, which needs no device; and what computes in float computes nothing in double."""
    from cupy_backends.cuda.libs import nvrtc

    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed ({str(error).splitlines()[0]}); it comes with nvidia-cuda-nvrtc")
    _, kernel = backend._adam_kernels(cupy)
    names = {p.name: "const T" for p in kernel.in_params} | {p.name: "T" for p in kernel.out_params}
    parameters = ", ".join(f"{kind}* {name}_" for name, kind in names.items())
    elements = "".join(f"{kind}& {name} = {name}_[threadIdx.x]; " for name, kind in names.items())
    code = f'typedef {dtype} T; extern "C" __global__ void {kernel.name}({parameters}) {{ {elements}'
    program = nvrtc.createProgram(f"{code} {kernel.operation}; }}", f"{kernel.name}.cu", [], [])
    nvrtc.compileProgram(program, [f"--gpu-architecture={architecture}"])
    assert (b".f64" in nvrtc.getPTX(program)) == (dtype == "double"), kernel.name
