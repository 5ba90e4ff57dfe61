"""The two devices, and the guards of the GPU path that need no GPU."""

import inspect
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import minigan as mg
from minigan import backend
from minigan.article import experiment, toys
from minigan.article.sections import SECTIONS
from minigan.data import sampler
from minigan.record import leaves
from minigan.run import Run, load
from minigan.settings import Settings
from minigan.training import WGANGP
from tests.cases import CASES, cases
from tests.running import ROOT, TINY
from tests.running import run as run_mnist
from tests.standin import DeviceArray, StandIn, run
from tests.test_ops import few

KERNELS = ("sigmoid", "softplus", "adam_step")
SMALL = Settings(batch_size=4, critic=(6, 5), generator=(5, 6), noise_dim=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 9), dtype="uint8")


def gan(settings=SMALL, replay=False):
    return WGANGP(settings, sampler(IMAGES), 9, replay)


@pytest.fixture(scope="session")
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed; it is optional, for --device gpu")


def put_in_place(monkeypatch, cupy=None):
    """The stand-in as the device in use; the fused kernels by their NumPy counterparts, called as the kernels are."""
    kernels = dict(zip(KERNELS, backend._fused_kernels(cupy))) if cupy else {}

    def stand_in(name):
        function, kernel = getattr(backend, f"_{name}"), kernels.get(name)

        def call(*args):
            assert kernel is None or name == "adam_step" or len(args) in (kernel.nin, kernel.nargs)
            assert all(isinstance(a, (DeviceArray, float, int)) for a in leaves(args))
            return run(function, *args)

        return backend.kernel(call)

    monkeypatch.setattr(backend, "xp", StandIn(cupy))
    monkeypatch.setattr(backend, "matmul", lambda x, y: backend.xp.matmul(x, y))
    for name in KERNELS:
        monkeypatch.setattr(backend, name, stand_in(name))
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(cutensor=SimpleNamespace(contraction=contraction)))


def contraction(alpha, a, ik, b, kj, beta, out, ij):
    """cuTENSOR's, as far as it is asked here."""
    assert (alpha, beta, ik, kj, ij) == (1, 0, "ik", "kj", "ij") and a.dtype == b.dtype == out.dtype
    assert 0 not in a.strides + b.strides  # it refuses to read a row twice
    return run(np.matmul, a, b, out=out)


def test_the_devices_by_name():
    backend.use("cpu")
    assert backend.xp is np and isinstance(mg.tensor([1.0]).data, np.ndarray)
    with pytest.raises(backend.DeviceError, match="unknown device 'tpu': expected 'cpu' or 'gpu'"):
        backend.use("tpu")


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(backend.DeviceError, match=r"CuPy is not installed.*pip install 'cupy-cuda13x\[ctk\]'") as error:
        backend.use("gpu")
    assert "\n" not in str(error.value) and backend.xp is np


def test_a_cupy_that_does_not_import_is_told_apart(monkeypatch, tmp_path):
    words = "====\nFailed to import CuPy.\n\nOriginal error:\n  ImportError: libcudart.so: cannot open\n====\n"
    (tmp_path / "cupy.py").write_text(f"raise ImportError({words!r})")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(backend.DeviceError, match=r"not import \(ImportError: libcudart.so: cannot open\); install it"):
        backend.use("gpu")


def test_with_cupy_but_no_device_the_error_says_so(cupy):
    if cupy.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(
        backend.DeviceError, match=r"CuPy [\d.]+ finds no usable CUDA device \(.*\); it needs .*\[ctk\]"
    ) as error:
        backend.use("gpu")
    assert "\n" not in str(error.value) and backend.xp is np


def test_cupy_is_not_imported_unless_asked_for():
    code = "import sys, minigan, run_mnist; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_numpy_and_cupy_meet_in_one_file_only():
    for path in Path(backend.__file__).parent.rglob("*.py"):
        assert ("import cupy" in path.read_text()) == (path.name == "backend.py"), path


def test_the_whole_iteration_stays_on_the_device(monkeypatch):
    """No silent conversion (it raises), and not one transfer to the host."""
    put_in_place(monkeypatch)
    model = gan()
    model.iteration()
    DeviceArray.transfers = 0
    metrics = model.iteration()
    assert DeviceArray.transfers == 0
    assert isinstance(metrics, DeviceArray) and np.isfinite(backend.to_numpy(metrics)).all()
    assert DeviceArray.transfers == 1


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_of_the_article_stays_on_the_device(monkeypatch, tmp_path, name):
    drawn = []
    put_in_place(monkeypatch)
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: drawn.append(1))  # to render it takes longest
    monkeypatch.setattr(experiment, "FEWEST", 5)
    SECTIONS[name](tmp_path / "picture.png", 0.001)
    assert drawn


ABOUT = {"data": "", "size": None, "crc32": 0, "workers": 1, "threads": 1, "kernels": "", "device": "gpu"}


def begun(settings, pixels):
    run = Run(settings, pixels.shape[1:], ABOUT)
    run.model(pixels, replay=False)
    return run


def test_a_run_goes_on_on_the_other_device_and_back(monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 2), dtype="uint8")
    run = begun(Settings(batch_size=4, critic=(5,), generator=(5,), noise_dim=3), pixels)
    run.iterate()
    run.save(tmp_path)

    def goes_on(i):
        run = load(tmp_path)
        before = {name: backend.to_numpy(x).copy() for name, x in run.gan.state().items()}
        run.model(pixels, replay=False)
        run.iterate()
        assert run.iteration == i and np.isfinite(run.rows[-1]).all()
        assert any((backend.to_numpy(x) != before[name]).any() for name, x in run.gan.state().items())
        run.save(tmp_path)

    with monkeypatch.context() as patch:
        put_in_place(patch)
        goes_on(2)
    goes_on(3)


def test_a_run_goes_on_with_the_draws_of_its_device(monkeypatch, tmp_path):
    """CuPy takes no NumPy array among its own; and another model of GPU has a state of another size."""
    put_in_place(monkeypatch)
    pixels = IMAGES[:, :6].reshape(-1, 3, 2)
    run = begun(SMALL, pixels)
    run.iterate()
    run.save(tmp_path)
    expected = run.iterate()[:3]

    def next_row():
        run = load(tmp_path)
        run.model(pixels)
        return run.iterate()[:3]

    assert next_row() == expected
    backend.xp.multiprocessors = 2
    assert next_row() != expected


def test_a_whole_run(monkeypatch, judged, capsys):
    """Through all that the command line does; and what is compiled at the first iteration costs no training time."""
    put_in_place(monkeypatch)
    monkeypatch.setattr(backend, "use", lambda device: None)
    happened, iteration, iterate = [], WGANGP.iteration, Run.iterate
    monkeypatch.setattr(WGANGP, "iteration", lambda model: happened.append("iteration") or iteration(model))
    monkeypatch.setattr(Run, "iterate", lambda run: happened.append("timed") or iterate(run))
    given = ["--device", "gpu", "--out", "out"]
    assert run_mnist(*TINY, *given, "--evaluate-every", 6, "--data", judged) == 0
    assert happened == ["iteration", *["timed", "iteration"] * 6]
    assert run_mnist("--resume", "--graph", "--iterations", 9, *given) == 0
    for flags in (["--generate", 3], ["--evaluate"], ["--report"]):
        assert run_mnist(*flags, *given) == 0
    assert capsys.readouterr().err == ""


def test_the_clock_is_read_once_the_figures_are_there(monkeypatch):
    """Until then the device may still be at work on them."""
    run, waited, to_numpy = begun(SMALL, IMAGES[:, :6].reshape(-1, 3, 2)), [], backend.to_numpy
    monkeypatch.setattr(backend, "to_numpy", lambda x: waited.append(1) or to_numpy(x))
    monkeypatch.setattr(time, "perf_counter", lambda: len(waited))
    assert run.iterate()[3] == run.seconds == 1


def test_the_stand_in_gives_numpys_numbers(monkeypatch):
    expected = gan().iteration()
    put_in_place(monkeypatch)
    got = gan().iteration()
    assert backend.to_numpy(got).tolist() == expected.tolist()


@pytest.fixture
def standin(monkeypatch):
    put_in_place(monkeypatch)
    return backend.xp


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"constraint": "clip", "penalty": "one-sided-max", "noise": "uniform"},
        {"constraint": "spectral", "slope": "difference", "schedule": "linear"},
        {"game": "gan", "where": "real", "hidden": "leaky_relu"},
        {"game": "ls-gan", "hidden": "tanh"},
    ],
)
@pytest.mark.parametrize("how", [True, "graph"])
def test_an_iteration_recorded_once_can_be_replayed(standin, how, others):
    """As a program or a graph: each replay draws, decays the rate, corrects Adam's bias and learns anew."""
    settings = Settings(**{**vars(SMALL), "iterations": 8, **others})
    eager, replayed = gan(settings), gan(settings, replay=how)
    metrics = [backend.to_numpy(eager.iteration()).tolist() for _ in range(8)]
    assert len({tuple(row) for row in metrics}) == 8
    same = np.testing.assert_array_equal if how is True else partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    same([backend.to_numpy(replayed.iteration()).tolist() for _ in range(8)], metrics)
    assert replayed.replayed.proven
    for name, tensor in eager.state().items():
        same(backend.to_numpy(replayed.state()[name]), backend.to_numpy(tensor))


def test_a_graph_is_captured_once_then_proven_and_then_launched(standin):
    model = gan(replay="graph")
    for _ in range(5):
        model.iteration()
    assert standin.asked == ["aside", "begin", "end", "back", *4 * ["launch"]]  # the first of these is its proof


def test_a_graph_multiplies_by_another_product(standin, monkeypatch):
    """CuPy does not let cuBLAS be captured, which the stand-in refuses too; outside of the graph all is as before."""
    before, used, product = backend.matmul, [], backend.cutensor_matmul()
    monkeypatch.setattr(backend, "cutensor_matmul", lambda: lambda x, y: used.append(1) or product(x, y))
    model = gan(replay="graph")
    model.iteration()
    assert used and model.replayed.recorded and backend.matmul is before


def test_what_cannot_be_captured_says_why_and_goes_on(standin, monkeypatch):
    """The cause is told, not that the capture was cut short, which raises too; and no half graph is launched."""
    model, end = gan(replay="graph"), type(backend.xp.cuda.Stream(True)).end_capture
    steps = model.device_steps

    def fails():
        if standin.asked[-1:] == ["begin"]:
            raise NotImplementedError("no such luck\nduring capture")
        return steps()

    model.device_steps = fails
    stream = type(backend.xp.cuda.Stream(True))

    def cut_short(self):
        end(self)
        raise RuntimeError("invalidated")

    monkeypatch.setattr(stream, "end_capture", cut_short)
    with pytest.warns(UserWarning, match=r"run as they are: no CUDA graph can be captured \(no such luck\)$"):
        for _ in range(6):
            model.iteration()
    assert "launch" not in standin.asked


def test_a_graph_that_computes_something_else_is_not_used(standin):
    """What the host decides is not captured."""
    models = gan(replay="graph"), gan()
    for m in models:

        def steps(m=m, steps=m.device_steps):
            m.generator.parameters()[1].data += m.iterations
            return steps()

        m.device_steps = steps
    with pytest.warns(UserWarning, match="a replayed one comes to another result in"):
        metrics = [[backend.to_numpy(m.iteration()).tolist() for _ in range(8)] for m in models]
    assert metrics[0] == metrics[1]


def test_without_cutensor_the_error_says_what_to_install(monkeypatch):
    put_in_place(monkeypatch)
    monkeypatch.setitem(sys.modules, "cupyx", None)
    with pytest.raises(backend.DeviceError, match=r"cuTENSOR, which does not import \(.*\).*pip install cutensor-cu13"):
        gan(replay="graph")


def test_the_second_library_of_cutensor_is_loaded_first(monkeypatch):
    """CuPy's module does not import without it, and does not look for it in what pip installed."""
    loaded = set()

    class Cupyx:
        @property
        def cutensor(self):
            if not loaded:
                raise ImportError("libcutensorMg.so.2: cannot open shared object file")
            return SimpleNamespace(contraction=contraction)

    monkeypatch.setitem(sys.modules, "cupyx", Cupyx())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(backend.DeviceError, match=r"does not import \(libcutensorMg.so.2: cannot open"):
        backend.cutensor_matmul()
    for name in ("cuda", "cuda.pathfinder"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(load_nvidia_dynamic_lib=loaded.add))
    assert backend.cutensor_matmul() and loaded == {"cutensorMg"}


@pytest.mark.parametrize("transpose", ["", "x", "y"])
def test_the_recorded_product_is_the_product(standin, transpose):
    matmul = backend.cutensor_matmul()
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 3)), rng.random((3, 4))
    x, y = (x.T.copy().T if transpose == "x" else x), (y.T.copy().T if transpose == "y" else y)
    for a, b in ((x, y), (x, np.broadcast_to(y[:, :1], (3, 4))), (np.stack([x, x]), y)):
        np.testing.assert_allclose(matmul(standin.asarray(a), standin.asarray(b)).get(), a @ b)
    with pytest.raises(ValueError):
        matmul(standin.asarray(x), standin.asarray(x))


def test_the_stand_in_refuses_what_cupy_refuses(monkeypatch):
    put_in_place(monkeypatch)
    x = mg.tensor([1.0, 2.0])
    for silently in (lambda: np.add(x.data, 1), lambda: np.asarray(x.data), lambda: x.data + np.ones(2, "float32")):
        with pytest.raises(TypeError):
            silently()
    assert isinstance((x + 1).data, DeviceArray)
    with pytest.raises(TypeError):
        backend.default_rng(0).bit_generator._state[...] = np.zeros(400, "int8")


@pytest.mark.parametrize(
    "steps",
    [
        lambda x: x.item(),
        lambda x: backend.to_numpy(x),
        lambda x: backend.asarray([1.0]),
        lambda x: backend.xp.matmul(x, x),
        lambda x: backend.xp.cuda.Device().synchronize(),
    ],
)
def test_the_stand_in_refuses_to_capture_what_cuda_refuses(standin, steps):
    x, stream = backend.xp.ones((1, 1), "float32"), standin.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    try:
        x += 1
        with pytest.raises(RuntimeError, match="cannot be captured"):
            steps(x)
    finally:
        graph = stream.end_capture()
    assert x.item() == 1  # nothing was computed
    graph.launch()
    assert x.item() == 2


def test_a_number_indexed_with_a_new_axis(standin):
    x = mg.tensor(3.0, requires_grad=True)
    assert mg.grad(x[None].sum(), x)[0].shape == ()


def test_cupy_has_all_that_an_iteration_calls(monkeypatch, cupy):
    """Every function and method, with the arguments it is given, against CuPy's own signatures."""
    put_in_place(monkeypatch, cupy)
    model = gan()
    model.iteration()
    model.check_finite()
    for others in (
        {"noise": "uniform", "penalty": "one-sided-max", "constraint": "clip"},
        {"slope": "difference", "constraint": "spectral"},
        {"penalty": "none", "game": "ls-gan"},
        {"game": "gan", "where": "real", "hidden": "leaky_relu"},
    ):
        gan(Settings(**{**vars(SMALL), **others})).iteration()
    for target in (toys.normal, toys.bimodal, toys.eight_gaussians, toys.tilted(1), toys.swiss_roll):
        assert isinstance(target(5, backend.default_rng(0)), DeviceArray)
    assert begun(SMALL, IMAGES[:, :6].reshape(-1, 3, 2)).iterate()[0] == 1


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@few
def test_cupy_has_all_that_the_primitives_and_their_derivatives_call(name, cupy, data):
    f, arrays = data.draw(cases(name))
    with pytest.MonkeyPatch.context() as monkeypatch:
        put_in_place(monkeypatch, cupy)
        inputs = [mg.tensor(a, requires_grad=True) for a in arrays]
        y = f(*inputs)
        assert isinstance(y.data, DeviceArray)
        parts = [g.sum() for g in mg.grad(y.sum(), inputs, create_graph=True, materialize_grads=True)]
        assert all(isinstance(g.data, DeviceArray) for g in parts)
        mg.grad(sum(parts), inputs, materialize_grads=True)


def test_the_guard_can_fail(monkeypatch, cupy):
    put_in_place(monkeypatch, cupy)
    x = mg.tensor([1.0]).data
    with pytest.raises(AttributeError):
        _ = backend.xp.emath
    with pytest.raises(TypeError):
        backend.xp.concatenate([x], where=True)
    with pytest.raises(TypeError):
        x.sum(where=True)
    with pytest.raises(AssertionError):
        backend.xp.maximum(x, 0, where=True)
    with pytest.raises(TypeError):
        backend.default_rng(0).random(3, endpoint=True)


def test_the_fused_kernels_hold_the_same_formulas(cupy):
    """Their loop bodies happen to be Python too: run on NumPy arrays, they give what the NumPy functions give."""
    rng = np.random.default_rng(0)
    scope = {
        "exp": np.exp,
        "log1p": np.log1p,
        "sqrt": np.sqrt,
        "abs": np.abs,
        "max": np.maximum,
        "T": float,
        "pow": pow,
    }

    def run(kernel, *args):
        names = [p.name for p in (*kernel.in_params, *kernel.out_params)]
        values = {**scope, **dict(zip(names, args))}
        exec(inspect.cleandoc(kernel.operation), values)
        return [values[p.name] for p in kernel.out_params]

    sigmoid, softplus, next_step, move = backend._fused_kernels(cupy)
    x = rng.normal(0, 5, 100)
    np.testing.assert_allclose(run(sigmoid, x)[0], backend.sigmoid(x))
    np.testing.assert_allclose(run(softplus, x)[0], backend.softplus(x))
    g, p, m, v = rng.uniform(0.1, 1, (4, 100))
    for steps in (4, 5):
        _, rates = run(next_step, 0.01, 0.5, 0.9, 1e-8, steps - 1, np.zeros(2))
        fused = run(move, g, 0.5, 0.9, *rates, p.copy(), m.copy(), v.copy())
        backend.adam_step([g], [p], [m], [v], np.array(steps - 1.0), np.array(0.01), (0.5, 0.9), 1e-8)
        for got, expected in zip(fused, (p, m, v)):
            np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("architecture", ["compute_80", "compute_90"])
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_the_fused_kernels_compile(cupy, dtype, architecture):
    """By NVIDIA's compiler, which needs no device; and what computes in float computes nothing in double."""
    from cupy_backends.cuda.libs import nvrtc

    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed ({str(error).splitlines()[0]}); it comes with nvidia-cuda-nvrtc")
    sigmoid, softplus, _, move = backend._fused_kernels(cupy)
    for kernel in (sigmoid, softplus, move):
        inputs, outputs = ([p.name for p in params] for params in (kernel.in_params, kernel.out_params))
        parameters = ", ".join([f"const T* {name}_" for name in inputs] + [f"T* {name}_" for name in outputs])
        read = "".join(f"const T {name} = {name}_[i]; " for name in inputs)
        write = "".join(f"T& {name} = {name}_[i]; " for name in outputs)
        code = f'typedef {dtype} T; extern "C" __global__ void {kernel.name}({parameters}) {{ int i = threadIdx.x;'
        program = nvrtc.createProgram(f"{code} {read}{write} {kernel.operation}; }}", f"{kernel.name}.cu", [], [])
        nvrtc.compileProgram(program, [f"--gpu-architecture={architecture}"])
        assert (b".f64" in nvrtc.getPTX(program)) == (dtype == "double"), kernel.name
