"""For every public function of ``minigan.ops``: how to call it, and on what arrays to check its derivatives.

A case draws its shapes with hypothesis and fills them from a seeded generator, inside the function's domain and away
from its kinks, where a finite difference means nothing.
"""

import hypothesis.strategies as st
import numpy as np
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from minigan import ops

SHAPES = array_shapes(min_dims=0, max_dims=3, max_side=3)
PAIRS = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)


def uniform(rng, shape, low=-2.0, high=2.0):
    return np.asarray(rng.uniform(low, high, shape))


def off_zero(rng, shape):
    return np.asarray(rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape))


def positive(rng, shape):
    return uniform(rng, shape, 0.3, 2)


def unary(f, fill=uniform):
    return lambda draw, rng: (f, [fill(rng, draw(SHAPES))])


def binary(f, fill=uniform, fill_right=None):
    def case(draw, rng):
        left, right = draw(PAIRS).input_shapes
        return f, [fill(rng, left), (fill_right or fill)(rng, right)]

    return case


def reduction(f, fill=uniform, most=3):
    def case(draw, rng):
        shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=3))
        some = st.lists(st.integers(-len(shape), -1), min_size=1, max_size=min(most, len(shape)), unique=True).map(
            tuple
        )
        axis = draw(st.none() | st.integers(0, len(shape) - 1) | some)
        keepdims = draw(st.booleans())
        return lambda x: f(x, axis, keepdims), [fill(rng, shape)]

    return case


def maximum(draw, rng):
    left, right = draw(PAIRS).input_shapes
    x = uniform(rng, left)
    return ops.maximum, [x, np.resize(uniform(rng, ()) + 10 * rng.choice([-1, 1], right), right)]


def power(draw, rng):
    exponent = draw(st.sampled_from([0, 1, 2, 3, -1, 0.5, -1.5]))
    fill = uniform if exponent in (0, 1, 2, 3) else positive
    return lambda x: x**exponent, [fill(rng, draw(SHAPES))]


def leaky_relu(draw, rng):
    slope = draw(st.sampled_from([0.0, 0.2, 1.5]))
    return lambda x: ops.leaky_relu(x, slope), [off_zero(rng, draw(SHAPES))]


def broadcast_to(draw, rng):
    shape, out = draw(PAIRS.map(lambda p: (p.input_shapes[0], p.result_shape)))
    return lambda x: ops.broadcast_to(x, out), [uniform(rng, shape)]


def sum_to(draw, rng):
    shape, out = draw(PAIRS.map(lambda p: (p.input_shapes[0], p.result_shape)))
    return lambda x: ops.sum_to(x, shape), [uniform(rng, out)]


def reshape(draw, rng):
    shape = draw(SHAPES)
    new = draw(st.sampled_from([-1, (1, -1), tuple(reversed(shape))]))
    return lambda x: ops.reshape(x, new), [uniform(rng, shape)]


def transpose(draw, rng):
    shape = draw(SHAPES)
    axes = draw(st.none() | st.permutations(range(len(shape))).map(tuple))
    return lambda x: ops.transpose(x, axes), [uniform(rng, shape)]


INDICES = [1, -1, slice(1, None), (slice(None), 2), (..., None, 0), [0, 0, 2], ([1, 1], [0, 0])]


def getitem(draw, rng):
    index = draw(st.sampled_from(INDICES))
    return lambda x: x[index], [uniform(rng, (3, 4))]


def scatter_add(draw, rng):
    index = draw(st.sampled_from(INDICES))
    return lambda x: ops.scatter_add(x, index, (3, 4)), [uniform(rng, np.empty((3, 4))[index].shape)]


def concatenate(pieces, join):
    def case(draw, rng):
        shape = list(draw(array_shapes(min_dims=1, max_dims=3, max_side=3)))
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        arrays = []
        for _ in range(pieces):
            shape[axis] = draw(st.integers(1, 3))
            arrays.append(uniform(rng, tuple(shape)))
        return lambda *xs: join(xs, axis), arrays

    return case


def product(f, transposed):
    def case(draw, rng):
        n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
        left, right = draw(st.sampled_from([((), ()), ((2,), ()), ((), (2,)), ((1, 2), (3, 1))]))
        x, y = uniform(rng, (*left, n, k)), uniform(rng, (*right, k, m))
        if transposed == "x":
            x = x.swapaxes(-1, -2)
        if transposed == "y":
            y = y.swapaxes(-1, -2)
        return f, [x, y]

    return case


def linear(draw, rng):
    n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
    lead = draw(st.sampled_from([(), (2,)]))
    return ops.linear, [uniform(rng, (*lead, n, k)), uniform(rng, (k, m)), uniform(rng, (m,))]


CASES = {
    "add": binary(ops.add),
    "sub": binary(ops.sub),
    "mul": binary(ops.mul),
    "div": binary(ops.div, uniform, off_zero),
    "neg": unary(ops.neg),
    "power": power,
    "safe_reciprocal": unary(ops.safe_reciprocal, off_zero),
    "exp": unary(ops.exp),
    "log": unary(ops.log, positive),
    "sqrt": unary(ops.sqrt, positive),
    "tanh": unary(ops.tanh),
    "sigmoid": unary(ops.sigmoid),
    "softplus": unary(ops.softplus),
    "relu": unary(ops.relu, off_zero),
    "leaky_relu": leaky_relu,
    "maximum": maximum,
    "sum": reduction(ops.sum),
    "mean": reduction(ops.mean),
    "logsumexp": reduction(ops.logsumexp),
    "softmax": lambda draw, rng: reduction(lambda x, axis, _: ops.softmax(x, axis))(draw, rng),
    "norm": reduction(ops.norm, off_zero, most=2),
    "broadcast_to": broadcast_to,
    "sum_to": sum_to,
    "reshape": reshape,
    "transpose": transpose,
    "getitem": getitem,
    "scatter_add": scatter_add,
    "concatenate_pair": concatenate(2, lambda xs, axis: ops.concatenate_pair(*xs, axis)),
    "concatenate": concatenate(3, ops.concatenate),
    "matmul": product(ops.matmul, None),
    "matmul_nt": product(ops.matmul_nt, "y"),
    "matmul_tn": product(ops.matmul_tn, "x"),
    "linear": linear,
}


@st.composite
def cases(draw, name):
    """A function of Tensors and the float64 arrays to check it on."""
    return CASES[name](draw, np.random.default_rng(draw(st.integers(0, 1000))))
