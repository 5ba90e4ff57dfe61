"""The same checks on the GPU, and the GPU beside the CPU."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import backend
from minigan.data import load_images, sampler
from minigan.settings import Settings
from minigan.training import WGANGP
from tests.cases import CASES, cases
from tests.checking import check_derivatives
from tests.test_ops import few

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def on_the_gpu():
    try:
        backend.use("gpu")
    except backend.DeviceError as error:
        pytest.skip(str(error))
    yield
    backend.use("cpu")


class HostRng:
    """Draws NumPy's numbers and puts them on the device in use, so that two devices see the same ones."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def __getattr__(self, name):
        return lambda *args, **kwargs: backend.asarray(getattr(self._rng, name)(*args, **kwargs))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@few
def test_first_and_second_derivatives(name, data):
    check_derivatives(*(lambda case: (case[0], *case[1]))(data.draw(cases(name))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_kernels_agree_with_numpy(dtype):
    rng = np.random.default_rng(0)
    tolerance = {"rtol": 1e-5} if dtype == "float32" else {"rtol": 1e-12}
    x = np.concatenate([rng.normal(0, 5, 1000), [-1e4, 1e4, 0]]).astype(dtype)
    g, p, m, v = rng.uniform(0.1, 1, (4, 1000)).astype(dtype)
    numbers = 0.5, 0.9, 0.01, 1e-8
    device = [backend.asarray(a.copy()) for a in (x, g, p, m, v)]
    sigmoid, softplus = backend.sigmoid(device[0]), backend.softplus(device[0])
    backend.adam_step(device[1], *numbers, *device[2:])
    backend.use("cpu")
    np.testing.assert_allclose(backend.to_numpy(sigmoid), backend.sigmoid(x), **tolerance)
    np.testing.assert_allclose(backend.to_numpy(softplus), backend.softplus(x), **tolerance)
    backend.adam_step(g, *numbers, p, m, v)
    for got, expected in zip(device[2:], (p, m, v)):
        np.testing.assert_allclose(backend.to_numpy(got), expected, **tolerance)


def test_a_short_training_agrees_with_numpy():
    """The same numbers drawn on both devices; float32 sums in another order drift apart slowly."""
    images = load_images()[:1000]
    figures = {}
    for device in ("gpu", "cpu"):
        backend.use(device)
        model = WGANGP(Settings(batch_size=32, critic=(64, 32), generator=(32, 64)), sampler(images), 784)
        model.rng = HostRng(0)
        figures[device] = [[backend.to_numpy(x).item() for x in model.iteration()] for _ in range(20)]
    np.testing.assert_allclose(figures["gpu"], figures["cpu"], rtol=1e-2)
    np.testing.assert_allclose(figures["gpu"][0], figures["cpu"][0], rtol=1e-4)


def test_new_tensors_live_on_the_device():
    import cupy

    assert isinstance(mg.tensor([1.0]).data, cupy.ndarray)
    assert isinstance(backend.to_numpy(mg.tensor([1.0])), np.ndarray)


@pytest.mark.parametrize("others", [{}, {"constraint": "spectral"}, {"constraint": "clip", "noise": "uniform"}])
def test_a_recorded_iteration_is_the_iteration(others):
    """The same seed draws the same numbers; cuTENSOR and cuBLAS differ by rounding, which grows slowly."""
    pytest.importorskip("cupyx.cutensor", reason="cuTENSOR is not installed; it is optional, for --graph")
    images = load_images()[:1000]
    settings = Settings(batch_size=32, critic=(64, 32), generator=(32, 64), iterations=20, **others)
    eager, replayed = (WGANGP(settings, sampler(images), 784, replay) for replay in (False, True))
    figures = [
        [[backend.to_numpy(x).item() for x in model.iteration()] for _ in range(20)] for model in (eager, replayed)
    ]
    np.testing.assert_allclose(figures[1], figures[0], rtol=1e-2)
    assert len(np.unique(figures[1][4:])) > 16


@pytest.mark.parametrize("graph", [False, True])
def test_real_training_on_the_device_alone(graph):
    if graph:
        pytest.importorskip("cupyx.cutensor", reason="cuTENSOR is not installed; it is optional, for --graph")
    model = WGANGP(Settings(seed=1), sampler(load_images()), 784, graph)
    for _ in range(200):
        l1, slope = model.iteration()
    model.check_finite()
    assert 0 < l1.item() < 3 and 0.8 < slope.item() < 1.3
