"""Random programs of primitives: what one works out, others use again, and its derivatives are checked as a whole.

``python -m pytest tests/test_programs.py --hypothesis-profile=long`` tries ten thousand.
"""

import hypothesis
import numpy as np
from hypothesis import strategies as st

import minigan as mg
from minigan import gradcheck, ops

ELEMENTWISE = (
    ops.tanh,
    ops.sigmoid,
    ops.softplus,
    ops.neg,
    lambda x: ops.exp(ops.tanh(x)),
    lambda x: ops.sqrt(1 + x * x),
    lambda x: ops.log(1.5 + ops.sigmoid(x)),
    lambda x: 0.1 * x**3,
    lambda x: 2 - x,
)
KINKED = (ops.relu, lambda x: ops.leaky_relu(x, 0.2), lambda x: ops.maximum(x, 0.5 - x))
PAIRS = (ops.add, ops.sub, ops.mul, lambda x, y: x / (1.5 + ops.tanh(y)), lambda x, y: ops.tanh(x) * y)
REDUCTIONS = (ops.sum, ops.mean, ops.logsumexp, ops.norm)


def shapes_fit(*shapes):
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


@st.composite
def steps(draw, values):
    """A function of the values so far, Tensors, to one more; it is smooth around these."""
    pick = st.integers(0, len(values) - 1)
    i = draw(pick)
    x = values[i]
    kind = draw(st.sampled_from(("elementwise", "kinked", "pair", "reduce", "shape", "index", "concatenate", "matmul")))
    if kind == "kinked" and (np.abs(x.data) > 0.01).all() and (np.abs(2 * x.data - 0.5) > 0.01).all():
        f = draw(st.sampled_from(KINKED))
        return lambda v: f(v[i])
    if kind == "pair":
        others = [j for j, y in enumerate(values) if shapes_fit(x.shape, y.shape) is not None]
        j, f = draw(st.sampled_from(others)), draw(st.sampled_from(PAIRS))
        return lambda v: f(v[i], v[j])
    if kind == "reduce" and x.ndim:
        f, keepdims = draw(st.sampled_from(REDUCTIONS)), draw(st.booleans())
        axis = draw(st.none() | st.integers(-x.ndim, x.ndim - 1))
        if f is not ops.norm or (np.linalg.norm(x.data.ravel() if axis is None else x.data, axis=axis) > 0.1).all():
            return lambda v: f(v[i], axis, keepdims)
    if kind == "shape":
        shape = draw(st.sampled_from([(-1,), (1, -1), (-1, 1), x.shape[::-1]]))
        wide = (2, *x.shape)
        changes = (lambda v: v[i].reshape(shape), lambda v: v[i].T, lambda v: ops.broadcast_to(v[i], wide))
        return changes[draw(st.integers(0, 2 if x.data.size <= 4 else 1))]
    if kind == "index" and x.ndim:
        n = x.shape[0]
        index = draw(
            st.integers(-n, n - 1) | st.just(slice(None, None, -1)) | st.lists(st.integers(0, n - 1), min_size=1)
        )
        return lambda v: v[i][np.array(index) if isinstance(index, list) else index]
    if kind == "concatenate" and x.ndim:
        others = [j for j, y in enumerate(values) if y.ndim == x.ndim and y.shape[1:] == x.shape[1:]]
        j = draw(st.sampled_from(others))
        return lambda v: ops.concatenate((v[i], v[j], v[i]), 0)
    if kind == "matmul" and x.ndim == 2:
        others = [j for j, y in enumerate(values) if y.ndim == 2 and y.shape[0] == x.shape[1]]
        if others:
            j = draw(st.sampled_from(others))
            return lambda v: ops.tanh(v[i] @ v[j])
    f = draw(st.sampled_from(ELEMENTWISE))
    return lambda v: f(v[i])


@st.composite
def programs(draw):
    """A function of some Tensors to one, and arrays to check its derivatives at."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shapes = draw(st.lists(st.sampled_from([(), (1,), (2,), (2, 2), (1, 2), (2, 1), (3,)]), min_size=1, max_size=3))
    arrays = [rng.uniform(-1.5, 1.5, shape) for shape in shapes]
    values, program = [mg.tensor(a) for a in arrays], []
    for _ in range(draw(st.integers(1, 8))):
        step = draw(steps(values))
        value = step(values)
        if value.data.size <= 24 and np.abs(value.data).max() < 20:
            values.append(value)
            program.append(step)

    def run(*tensors):
        values = list(tensors)
        for step in program:
            values.append(step(values))
        return values[-1]

    return run, [np.asarray(a) for a in arrays]


@hypothesis.settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(programs())
def test_the_derivatives_of_random_programs(program):
    f, arrays = program
    gradcheck(f, *arrays)
