"""The same checks on the GPU, and the GPU beside the CPU."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import backend, gradcheck
from minigan.data import load_images, sampler
from minigan.settings import Settings
from minigan.training import WGANGP
from tests.cases import CASES, cases
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


def needs_cutensor():
    try:
        backend.cutensor_matmul()
    except backend.DeviceError as error:
        pytest.skip(str(error))


def drift_apart(metrics, others):
    """Figures of 20 iterations that rounding parts: summed the other way round, the worst of 100 seeds ends 9 % off."""
    np.testing.assert_allclose(metrics[0], others[0], rtol=1e-4)
    np.testing.assert_allclose(metrics, others, rtol=0.2)


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
    gradcheck(*(lambda case: (case[0], *case[1]))(data.draw(cases(name))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_kernels_agree_with_numpy(dtype):
    rng = np.random.default_rng(0)
    tolerance = {"rtol": 1e-5} if dtype == "float32" else {"rtol": 1e-12}
    x = np.concatenate([rng.normal(0, 5, 1000), [-1e4, 1e4, 0]]).astype(dtype)
    g, p, m, v = rng.uniform(0.1, 1, (4, 1000)).astype(dtype)
    numbers = np.array(4.0), np.array(0.01)
    device = [backend.asarray(a.copy()) for a in (x, g, p, m, v)]
    sigmoid, softplus = backend.sigmoid(device[0]), backend.softplus(device[0])
    backend.adam_step(*([a] for a in device[1:]), *(backend.asarray(a.copy()) for a in numbers), (0.5, 0.9), 1e-8)
    backend.use("cpu")
    np.testing.assert_allclose(backend.to_numpy(sigmoid), backend.sigmoid(x), **tolerance)
    np.testing.assert_allclose(backend.to_numpy(softplus), backend.softplus(x), **tolerance)
    backend.adam_step([g], [p], [m], [v], *numbers, (0.5, 0.9), 1e-8)
    for got, expected in zip(device[2:], (p, m, v)):
        np.testing.assert_allclose(backend.to_numpy(got), expected, **tolerance)


def test_a_short_training_agrees_with_numpy():
    """The same numbers drawn on both devices."""
    images = load_images()[:1000]
    metrics = {}
    for device in ("gpu", "cpu"):
        backend.use(device)
        model = WGANGP(Settings(batch_size=32, critic=(64, 32), generator=(32, 64)), sampler(images), 784, False)
        model.rng = HostRng(0)
        metrics[device] = [[backend.to_numpy(x).item() for x in model.iteration()] for _ in range(20)]
    drift_apart(metrics["gpu"], metrics["cpu"])


def test_new_tensors_live_on_the_device():
    import cupy

    assert isinstance(mg.tensor([1.0]).data, cupy.ndarray)
    assert isinstance(backend.to_numpy(mg.tensor([1.0])), np.ndarray)


def test_a_number_indexed_with_a_new_axis():
    x = mg.tensor(3.0, requires_grad=True)
    assert mg.grad(x[None].sum(), x)[0].shape == ()


def test_the_generator_goes_on_from_a_state_that_was_in_a_file():
    rng = backend.default_rng(0)
    state = backend.to_numpy(backend.rng_state(rng))
    first = backend.to_numpy(rng.random(5))
    assert backend.set_rng_state(rng, state) and (backend.to_numpy(rng.random(5)) == first).all()
    assert not backend.set_rng_state(rng, state[:-8])  # of a GPU with fewer multiprocessors


@pytest.mark.parametrize("how", [True, "graph"])
@pytest.mark.parametrize("others", [{}, {"constraint": "spectral"}, {"constraint": "clip", "noise": "uniform"}])
def test_a_recorded_iteration_is_the_iteration(how, others):
    """The same seed draws the same numbers."""
    if how == "graph":
        needs_cutensor()
    images = load_images()[:1000]
    settings = Settings(batch_size=32, critic=(64, 32), generator=(32, 64), iterations=20, **others)
    eager, replayed = (WGANGP(settings, sampler(images), 784, replay) for replay in (False, how))
    metrics = [
        [[backend.to_numpy(x).item() for x in model.iteration()] for _ in range(20)] for model in (eager, replayed)
    ]
    drift_apart(metrics[1], metrics[0])
    assert len(np.unique(metrics[1][4:])) > 16 and replayed.replayed.proven


@pytest.mark.parametrize("how", [False, True, "graph"])
def test_real_training_on_the_device_alone(how):
    if how == "graph":
        needs_cutensor()
    model = WGANGP(Settings(seed=1), sampler(load_images()), 784, how)
    for _ in range(200):
        l1, slope = model.iteration()
    model.check_finite()
    assert 0 < l1.item() < 3 and 0.8 < slope.item() < 1.3
