"""For every public function of ``minigan.ops``: ways to call it, and float64 arrays to check its derivatives at.

The arrays lie inside the function's domain and away from its kinks, where a finite difference means nothing.
"""

from functools import partial

import numpy as np

from minigan import ops

RNG = np.random.default_rng(0)
SHAPES = (), (2,), (1, 3), (2, 1, 2)
PAIRS = [((), ()), ((), (2,)), ((3,), ()), ((1,), (2,)), ((3, 2), (3, 2)), ((2, 3), (3,)), ((2, 1), (1, 3))]
PAIRS += [((2,), (2, 1, 2)), ((1, 1, 2), (2, 1)), ((2, 1, 2), (1, 2, 1))]
PRODUCTS = ((1, 4), (4, 3)), ((2, 1, 2), (2, 3)), ((3, 1), (2, 1, 2)), ((1, 2, 1, 3), (2, 1, 3, 2))
REDUCED = ((3,), None), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((2, 1, 2), (-1, 0)), ((2, 2, 2), (-3, -2, -1))
JOINED = ((2,), (1,), (2,), 0), ((1, 2), (2, 2), (1, 2), -2), ((1, 2, 1), (1, 2, 2), (1, 2, 1), 2)
ROOTS = [-1, 0.5, -1.5]
GRID, INDICES = np.empty((3, 3)), (1, -1, slice(1, None), (slice(None), 2), (..., None, 0), [0, 0, 2], ([1, 1], [0, 0]))


def uniform(shape):
    return np.asarray(RNG.uniform(-2, 2, shape))


def positive(shape):
    return np.asarray(RNG.uniform(0.3, 2, shape))


def off_zero(shape):
    return positive(shape) * RNG.choice([-1, 1], shape)


def turned(shape):
    return (*shape[:-2], shape[-1], shape[-2])


def each(*functions, shapes=SHAPES, fill=uniform):
    return [(f, [fill(shape)]) for f in functions for shape in shapes]


def pairs(f, fill_right=uniform, shapes=PAIRS):
    return [(f, [uniform(x), fill_right(y)]) for x, y in shapes]


def ways(f, **argument):
    """The function with each value of an argument that is not differentiated."""
    return [partial(f, **{name: value}) for name, values in argument.items() for value in values]


def reduced(f, fill=uniform):
    return [(partial(f, axis=axis, keepdims=k), [fill(shape)]) for shape, axis in REDUCED for k in (True, False)]


CASES = {
    **{f.__name__: pairs(f) for f in (ops.add, ops.sub, ops.mul)},
    "div": pairs(ops.div, off_zero),
    **{f.__name__: each(f) for f in (ops.neg, ops.exp, ops.tanh, ops.sigmoid, ops.softplus)},
    **{f.__name__: each(f, fill=positive) for f in (ops.log, ops.sqrt)},
    **{f.__name__: each(f, fill=off_zero) for f in (ops.relu, ops.safe_reciprocal)},
    "power": [*each(*ways(ops.power, exponent=[0, 1, 2, 3])), *each(*ways(ops.power, exponent=ROOTS), fill=positive)],
    "leaky_relu": each(*ways(ops.leaky_relu, slope=(0.0, 0.2, 1.5)), fill=off_zero),
    "maximum": pairs(ops.maximum, lambda shape: 10 * off_zero(shape)),  # never near the other
    **{f.__name__: reduced(f) for f in (ops.sum, ops.mean, ops.logsumexp)},
    "softmax": reduced(lambda x, axis, keepdims: ops.softmax(x, axis)),
    "norm": reduced(ops.norm, off_zero),
    "broadcast_to": [(partial(ops.broadcast_to, shape=np.broadcast_shapes(x, y)), [uniform(x)]) for x, y in PAIRS],
    "sum_to": [(partial(ops.sum_to, shape=x), [uniform(np.broadcast_shapes(x, y))]) for x, y in PAIRS],
    "reshape": each(*ways(ops.reshape, shape=(-1, (1, -1), (3, 2))), shapes=[(2, 3), (1, 2, 3)]),
    "transpose": each(ops.transpose) + each(*ways(ops.transpose, axes=[(1, 2, 0), (-1, 0, 1)]), shapes=[(2, 1, 3)]),
    "getitem": each(*ways(ops.getitem, index=INDICES), shapes=[(3, 3)]),
    "scatter_add": [(lambda x, i=i: ops.scatter_add(x, i, (3, 3)), [uniform(GRID[i].shape)]) for i in INDICES],
    "concatenate_pair": [(partial(ops.concatenate_pair, axis=i), [uniform(x), uniform(y)]) for x, y, _, i in JOINED],
    "concatenate": [(lambda *xs, i=i: ops.concatenate(xs, i), [uniform(s) for s in shapes]) for *shapes, i in JOINED],
    "matmul": pairs(ops.matmul, shapes=PRODUCTS),
    "matmul_nt": pairs(ops.matmul_nt, shapes=[(x, turned(y)) for x, y in PRODUCTS]),
    "matmul_tn": pairs(ops.matmul_tn, shapes=[(turned(x), y) for x, y in PRODUCTS]),
    "linear": [(ops.linear, [*map(uniform, (x, w, w[1:]))]) for x, w in (((2, 3), (3, 1)), ((2, 1, 2), (2, 3)))],
}
