"""``grad`` and the rules of the engine, each with a test that fails where it is broken."""

import copy
import gc
import pickle
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import Context
from functools import partial
from threading import Thread

import numpy as np
import pytest

import minigan as mg
from minigan import guards, ops
from minigan.penalties import interpolate
from minigan.settings import Settings
from minigan.training import WGANGP

CHANGED = "was changed in place since"


def leaf(*shape):
    return mg.tensor(np.random.default_rng(sum(shape)).normal(size=shape), requires_grad=True)


def add_one(x):
    """As code does that says so."""
    x.array += 1
    guards.note_write(x)


def gradient(y, x, **how):
    return mg.grad(y, x, **how)[0]


X, OTHER = leaf(3), leaf(2)


@pytest.fixture(scope="module")
def long_chain():
    """Many leaves, and their sum, by as many additions one after the other."""
    leaves = [leaf() for _ in range(10_000)]
    return leaves, sum(leaves[1:], leaves[0])


# --- Rules --------------------------------------------------------------------------------------


def test_only_the_asked_for_path_is_computed(monkeypatch):
    """The gradient at the points computes no weight's; that of the last layer does not go further back."""
    net, x, calls = mg.nn.MLP([4, 5, 3, 1], rng=0, dtype="float64"), leaf(6, 4), []

    def noting(call, vjp):
        return lambda *args: calls.append(call) or vjp(*args)

    for op in (ops.linear, ops.relu, ops.add, ops.exp, ops.mul):
        monkeypatch.setattr(op, "vjps", [noting(f"{op.__name__} {i}", vjp) for i, vjp in enumerate(op.vjps)])
    for y, inputs, expected in (
        (net(x), x, ["linear 0", "relu 0", "linear 0", "relu 0", "linear 0"]),
        (net(x), net.parameters()[-2:], ["linear 1", "linear 2"]),
        (net(x), net.parameters()[2], ["linear 0", "relu 0", "linear 1"]),
        (x * 2 + ops.exp(leaf(4)), x, ["add 0", "mul 0"]),
    ):
        calls.clear()
        mg.grad(y, inputs, grad_outputs=np.ones(y.shape))
        assert calls == expected


@pytest.mark.parametrize("hidden, reached", [("relu", False), ("leaky_relu", False), ("tanh", True)])
def test_a_mask_adds_nothing_to_the_second_graph(hidden, reached):
    """dD/dx of a piecewise linear critic depends on its weights, but on no activation and no bias."""
    net, x = mg.nn.MLP([4, 5, 1], hidden=hidden, rng=0, dtype="float64"), leaf(6, 4)
    g = gradient(net(x).sum(), x, create_graph=True)
    second = mg.grad((g * g).sum(), net.parameters(), allow_unused=True)
    assert [h is not None for h in second] == [True, reached, True, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_are_no_reference_cycles(dtype):
    """Critic steps leave nothing behind, and nothing for the garbage collector. And they keep the dtype."""
    rng = np.random.default_rng(0)
    critic = mg.nn.MLP([4, 8, 8, 1], hidden="softplus", rng=0, dtype=dtype)
    adam = mg.optim.Adam(critic.parameters())
    real, fake = rng.random((2, 5, 4)).astype(dtype)

    def left_by(steps):
        for _ in range(steps):
            loss = mg.losses.critic_loss(critic(real), critic(fake))
            loss = loss + 10 * mg.penalties.gradient_penalty(critic, real, fake, rng)
            gradients = mg.grad(loss, critic.parameters(), create_graph=True)
            assert {x.dtype for x in (loss, *gradients)} == {np.dtype(dtype)}
            adam.step(gradients)
            add_one(gradients[0])  # nor is anything kept of arrays that were written to and are gone
        return gc.collect(), len(gc.get_objects())

    while gc.collect():  # what other tests have left may take several times
        pass
    _, before = left_by(1)
    garbage, after = left_by(30)
    assert (garbage, after < before + 20) == (0, True)


def test_memory_grows_neither_with_the_square_of_the_uses_nor_with_the_length_of_a_chain():
    """Contributions to a gradient are added up as they come, and a gradient that is used up is freed."""
    x = z = leaf(300, 300)  # 700 kB
    for _ in range(30):
        z = ops.tanh(z)
    for y in (sum(ops.norm(row) for row in x), z.sum()):
        tracemalloc.start()
        mg.grad(y, x)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1e7


def test_a_long_chain_is_not_recursed_into(long_chain):
    leaves, y = long_chain
    assert {g.item() for g in mg.grad(y, leaves)} == {1}


# --- A graph whose arrays were changed is refused: its derivatives would be those of other numbers -----------


VIEWS = {
    "itself": lambda w: w,
    "transpose": lambda w: w.T,
    "reshape": lambda w: w.reshape(-1),
    "index": lambda w: w[:1],
    "detach": lambda w: w.detach(),
    "broadcast": lambda w: ops.broadcast_to(w, (2, 3, 3)),
    "copy": copy.copy,
    "a primitive that returns its operand": mg.primitive(lambda g, out, x: g)(lambda x: x),
    "the array as a constant": lambda w: w.data,
    "a view that does not say so": lambda w: np.lib.stride_tricks.sliding_window_view(w.data, 1, 0)[..., 0],
    "strided": lambda w: mg.Tensor(np.lib.stride_tricks.as_strided(w.data, (3,), (8,))),
    "memory": lambda w: np.asarray(memoryview(w.data)),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("write", ["in place", "its view", "a step", "another view, a step", "the results", "assigned"])
def test_whoever_shares_the_memory_shares_the_change(view, write):
    w, v = leaf(3, 3), leaf(3, 3)
    z = VIEWS[view](w)
    made, other = [v * w, v.sum() * z], leaf(3, 3)
    add_one(other)
    assert mg.grad(made[0].sum() + made[1].sum(), v)
    if write == "another view, a step":
        w.array = w.array.T
    if write == "in place":
        add_one(w)
    elif write == "its view" and isinstance(z, mg.Tensor) and z.array.flags.writeable:
        add_one(z)
    elif write == "the results":
        add_one(made[0])
        add_one(made[1])
    elif write == "assigned":
        w.data = w.data + 1
        del made[1]  # which is of the other array
    else:
        mg.optim.Adam([w]).step([mg.tensor(np.ones((3, 3)))])
    for y in made:
        with pytest.raises(ValueError, match=rf"^grad: mul, shape \(.*\), or an operand of it {CHANGED}"):
            mg.grad(y.sum(), v)
    assert records()  # an error leaves the switch as it was
    assert mg.grad((v.sum() * VIEWS[view](w)).sum(), v)


@pytest.mark.parametrize("twice", ["one buffer", "dlpack"])
@pytest.mark.parametrize("dies", [[0, 1], [1, 0], []])
def test_memory_that_arrays_share(twice, dies):
    """Whoever it belongs to, though none is a view of another, and whichever that was written to dies first."""
    buffer, array = bytearray(48), np.ones(3)
    arrays = [np.frombuffer(buffer)[:3] for _ in range(3)]
    arrays = [array, array[:], np.from_dlpack(array)] if twice == "dlpack" else arrays
    first, second, v = tensors = [mg.Tensor(a, requires_grad=True) for a in arrays]
    mg.optim.Adam([first]).step([mg.tensor(np.ones(3))])
    made = (v * v).sum(), (v * 2).sum()
    assert mg.grad(made[0], v)
    mg.optim.Adam([second]).step([mg.tensor(np.ones(3))])
    del first, second, arrays
    for i in dies:  # the write is not forgotten with them
        tensors[i] = None
    for y in made:
        with pytest.raises(ValueError, match=CHANGED):
            mg.grad(y, v)


PARTS = {  # of one array of 4 x 6
    "rows": lambda w: [*w],
    "columns": lambda w: [*w.T],
    "some columns": lambda w: [w[:, :2], w[:, 2:]],
    "every other": lambda w: [w[::2, ::-2], w[::2, -2::-2]],
    "of a vector": lambda w: [w.reshape(-1)[:8].reshape(2, 4), w.reshape(-1)[8:]],
}


@pytest.mark.parametrize("parts", PARTS)
def test_parts_that_share_nothing_are_changed_alone(parts):
    ws = [mg.Tensor(w, requires_grad=True) for w in PARTS[parts](np.ones((4, 6)))]
    losses = [(w * w).sum() for w in ws]
    for w, loss in zip(ws, losses):
        mg.optim.Adam([w]).step(mg.grad(loss, w))
    for w, loss in zip(ws, losses):
        with pytest.raises(ValueError, match=CHANGED):
            mg.grad(loss, w)


def test_notes_of_writes_are_bounded_and_none_is_lost(monkeypatch):
    """Where there are many, the oldest are one for all the memory between them."""
    monkeypatch.setattr(guards, "MANY", 10)
    tensors = [leaf(2) for _ in range(40)]
    made = [(x * x).sum() for x in tensors]
    young = (tensors[0] * 2).sum()
    for x in tensors[1:]:
        add_one(x)
    assert len(guards._written) <= 10
    for x, y in zip(tensors[1:], made[1:]):
        with pytest.raises(ValueError, match=CHANGED):
            mg.grad(y, x)
    made, lone = (tensors[3] * 2).sum(), mg.tensor(np.ones(2), requires_grad=True)
    add_one(lone)
    assert mg.grad(made, tensors[3])
    assert young.requires_grad  # which may be refused, as may what lies between others


def test_the_times_of_writes_are_in_order_in_spite_of_threads(monkeypatch):
    """Another thread that would note a write between the time of one and its note has to wait."""
    x, y, others = leaf(3), leaf(3), []

    def clock(tick=mg.Tensor.clock):
        now = tick()
        if not others:
            others.append(Thread(target=guards.note_write, args=[y]))
            others[0].start()
            others[0].join(0.05)
        return now

    monkeypatch.setattr(mg.Tensor, "clock", staticmethod(clock))
    guards.note_write(x)
    others[0].join()
    times = [*guards._written.values()]
    assert times == sorted(times)
    assert guards._latest == times[-1] == guards._written[y.place]


ASSIGNED = [  # to a Tensor of shape (2, 3) and float32
    lambda: np.zeros((2, 3), "float32"),
    lambda: np.zeros((2, 3)),
    lambda: np.exp(-0.1) * np.ones((2, 3), "float32"),  # NumPy makes float64 of it
    lambda: np.zeros((2, 3), int),
    lambda: np.zeros(6, "float32").reshape(2, 3),
    lambda: leaf(2, 3).data,
]


@pytest.mark.parametrize("data", ASSIGNED)
def test_what_is_assigned_is_copied_and_keeps_the_dtype(data):
    """So two networks that are given one array, or slices of one, do not move together."""
    data, nets = data(), [mg.tensor(np.ones((2, 3), "float32"), requires_grad=True) for _ in range(2)]
    for x in nets:
        x.data = data
    adam, before = mg.optim.Adam(nets[:1]), data.copy()
    adam.step([mg.tensor(np.ones((2, 3), "float32"))])
    assert {x.dtype for x in nets} == {np.dtype("float32")}
    assert (nets[1].data == before.astype("float32")).all()
    assert (data == before).all()


def test_data_cannot_be_written_to_but_assigned():
    x, kept = leaf(3), leaf(3)
    before = x.data
    for write in (
        lambda: x.data.fill(0),
        lambda: np.add(x.data, 1, out=x.data),
        lambda: setattr(x, "data", x.data.sort()),
        lambda: x.data.__iadd__(1),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert "x.data = x.data - 0.1" in mg.Tensor.data.__doc__.partition("\n")[0]
    kept.data, x.data = x.data, x.data + 1
    x.data = kept.data  # weights that were exchanged for a while are put back
    assert (x.data == before).all()
    for shape in ((), (1,), (1, 3), (2,)):
        with pytest.raises(ValueError, match=rf"shape {re.escape(str(shape))} for a Tensor of shape \(3,\)"):
            x.data = np.zeros(shape)


def test_the_packages_own_writes_are_noticed():
    layer = mg.nn.SpectralLinear(3, 2, mg.nn.INITS["he"], np.random.default_rng(0), "float64")
    model = WGANGP(Settings(critic=(4,), generator=(4,)), lambda n, rng: rng.random((n, 9), dtype="float32"), 9)
    outputs = layer(leaf(4, 3)).sum(), model.critic(model.generate(4)).sum()
    layer.power_iteration()
    model.restore({name: x.data.copy() for name, x in model.state().items()})
    for output, inputs in zip(outputs, (layer.weight, model.critic.parameters())):
        with pytest.raises(ValueError, match=CHANGED):
            mg.grad(output, inputs)


# --- What grad is asked for, and what it gives --------------------------------------------------

ASKED = [  # of x = [1, 2], y = [3, 4], z = x * y
    (lambda x, y, z: mg.grad((x + 2 * y).sum(), {"x": x, "y": y}.values()), [[1, 1], [2, 2]]),
    (lambda x, y, z: mg.grad((x + 2 * y).sum(), (t for t in (x, y))), [[1, 1], [2, 2]]),
    (lambda x, y, z: mg.grad((x * x - x).sum(), [x, x]), [[1, 3], [1, 3]]),
    (lambda x, y, z: mg.grad((z * z).sum(), [x, z]), [[18, 64], [6, 16]]),
    (lambda x, y, z: mg.grad(z, z, y), [[3, 4]]),
    (lambda x, y, z: mg.grad([z, 3 * y], [x, y], [mg.tensor(y), np.full(2, 2, y.dtype)]), [[9, 16], [9, 14]]),
    (lambda x, y, z: mg.grad(gradient(x * x, x, grad_outputs=y, create_graph=True).sum(), y), [[2, 4]]),
    (lambda x, y, z: mg.grad(x.sum(), x, 2.0), [[2, 2]]),
    (lambda x, y, z: mg.grad(x.sum(), x, [np.float32(2)]), [[2, 2]]),
    (lambda x, y, z: mg.grad(x.sum(), x, np.array(2, x.dtype)), [[2, 2]]),
    (lambda x, y, z: mg.grad((3 * x).sum(), [x, y], materialize_grads=True), [[3, 3], [0, 0]]),
    (lambda x, y, z: mg.grad(y.detach(), x, materialize_grads=True), [[0, 0]]),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ask, expected", ASKED)
def test_what_is_asked_for_is_given(ask, expected, dtype):
    x, y = (mg.tensor(np.array(a, dtype), requires_grad=True) for a in ([1, 2], [3, 4]))
    gradients = ask(x, y, x * y)
    assert [g.data.tolist() for g in gradients] == expected
    assert {g.dtype for g in gradients} == {np.dtype(dtype)}


ARRAY = r"write x.data, or minigan.backend.to_numpy\(x\)"
MISUSES = [
    (lambda: mg.grad(X * 2, X), ValueError, r"output 0 has shape \(3,\); without grad_outputs it must have one"),
    (lambda: mg.grad(X * 2, X, OTHER), ValueError, r"grad_outputs 0 is float64 \(2,\); its output is float64 \(3,\)"),
    (lambda: mg.grad(X * 2, X, np.ones(3, "float32")), ValueError, "grad_outputs 0 is float32"),
    (lambda: mg.grad(X * 2, X, [1.0, 2.0]), ValueError, "1 outputs and 2 grad_outputs"),
    (lambda: mg.grad([X.sum(), X.sum()], X, [None]), ValueError, "2 outputs and 1 grad_outputs"),
    (lambda: mg.grad(mg.tensor([1.0]), X), ValueError, r"output 0, shape \(1,\), has no graph.*no_grad"),
    (lambda: mg.grad(X.sum(), X.detach()), ValueError, r"input 0, shape \(3,\), has requires_grad=False"),
    (lambda: mg.grad(X.sum(), [X, OTHER]), ValueError, r"no output depends on input 1, shape \(2,\) .*=True zeros"),
    (lambda: mg.grad(X.sum(), X.data), TypeError, "expected Tensors as outputs and inputs, got ndarray"),
    (lambda: mg.tensor([1j]), TypeError, "expected real numbers, got .*complex"),
    (lambda: mg.tensor(np.ma.array([1.0], mask=[1])), TypeError, "a MaskedArray is no plain array"),
    (
        lambda: mg.Tensor(np.ones((1, 1)).view(np.matrix)),
        TypeError,
        "expected an array of the device in use, got matrix",
    ),
    (
        lambda: mg.grad(X * 2, X, np.ma.array([1.0] * 3)),
        TypeError,
        "expected an array of the device in use, got Masked",
    ),
    (lambda: setattr(X, "data", "123"), TypeError, "a str is no plain array"),
    (lambda: setattr(X, "data", [0.0] * 3), TypeError, "a list is no plain array"),
    (lambda: setattr(X, "requires_grad", False), AttributeError, r"to freeze x nothing is needed: grad differentiates"),
    (lambda: X.detach() in [X], TypeError, r"for x in list, x in set\(list\)"),
    (lambda: type("Parameter", (mg.Tensor,), {}), TypeError, "Tensor has no subclasses"),
    (lambda: setattr(X, "data", np.ma.array([1.0])), TypeError, "a MaskedArray is no plain array"),
    (lambda: X * np.ma.array([1.0] * 3), TypeError, r"mul: got \(3,\), MaskedArray \(3,\); expected"),
    (lambda: mg.Tensor([1.0]) * 2, TypeError, r"expected an array of the device in use, got list; mg\.tensor\(x\)"),
    (lambda: mg.grad(gradient(X.sum(), X, create_graph=True), X), ValueError, "no graph.* or it is a constant, as the"),
    (lambda: interpolate(gradient(X**2, X, grad_outputs=X), X, 0), ValueError, "interpolate: got a gradient .* lost"),
    (lambda: X.detach() == X, TypeError, r"x\.data == y\.data"),
    (lambda: X != 1, TypeError, r"x\.data == y\.data"),
    (lambda: np.array(X), TypeError, ARRAY),
    (lambda: np.concatenate([X, X]), TypeError, ARRAY),
    (lambda: iter(leaf()), TypeError, "unsized"),
    (lambda: bool(X), ValueError, "ambiguous"),
]


@pytest.mark.parametrize("misuse, error, message", MISUSES)
def test_what_is_refused_says_what_to_write(misuse, error, message):
    with pytest.raises(error, match=message):
        misuse()


# --- A gradient that was made without create_graph: what flows through it would be lost -----------------------

LOST = [  # of x, w and h = x * x: an output, and an input that it depends on through such a gradient
    lambda x, w, h: ((w * x).sum() + 10 * ((gradient((h * w).sum(), x) - 1) ** 2).sum(), w),
    lambda x, w, h: (gradient((h * w).sum(), x).sum(), w),
    lambda x, w, h: ((gradient((h**3).sum(), x) ** 2).sum() + h.sum(), h),
    lambda x, w, h: ((gradient(h, x, grad_outputs=w * w) * w).sum(), w),
    lambda x, w, h: ((gradient(h, x, grad_outputs=gradient(h.sum(), x, create_graph=True)) * x).sum(), x),
    lambda x, w, h: ((w - 0.1 * gradient((w**3).sum(), w)).sum(), w),
    *(
        lambda x, w, h, of=of: ((of(gradient((h * w).sum(), x)) * w).sum(), w)
        for of in (copy.copy, copy.deepcopy, mg.no_grad()(lambda g: g * 1))
    ),
]


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("how", ["allow_unused", "create_graph", "materialize_grads"])
def test_a_forgotten_create_graph_is_an_error(lost, how):
    x, w = leaf(3), leaf(3)
    output, given = lost(x, w, x * x)
    message = "grad: an output depends on a gradient that was computed without create_graph=True, so its derivative"
    with pytest.raises(ValueError, match=rf"{message} would be lost: pass create_graph=True there, or detach\(\) it"):
        mg.grad(output, given, **{how: True})


def test_a_gradient_without_a_record_is_a_constant_where_that_is_right():
    """Where it is said to be one, and to whatever was made after it, as the weights of the next step of a descent."""
    x, w = leaf(3), leaf(3)
    g = gradient((x * x * w).sum(), x)
    assert (g.requires_grad, g.op) == (False, None)
    for constant in (g.detach(), mg.tensor(g), pickle.loads(pickle.dumps(g))):
        np.testing.assert_array_equal(gradient((constant * w).sum(), w).data, g.data)
    ps = mg.tensor([1.0], True), mg.tensor([2.0], True)
    for _ in range(2):
        ps = [p - 0.1 * g for p, g in zip(ps, mg.grad(ps[0] * ps[1], ps))]
    assert ps[0].item() == pytest.approx(0.8 - 0.1 * 1.9)


# --- Recording is switched ----------------------------------------------------------------------


def records():
    return (X * 2).requires_grad


def test_no_grad():
    """It may be used again, within itself and as a decorator, and an error leaves it too."""
    off, y = mg.no_grad(), (X**3).sum()
    with off:
        with off:
            assert not records()
        assert not records()
        assert gradient(y, X, create_graph=True).requires_grad
    with pytest.raises(ZeroDivisionError), off:
        raise ZeroDivisionError
    assert (off(records)(), off(records.__call__)(), records()) == (False, False, True)
    assert (X.detach().requires_grad, X.detach().array is X.array) == (False, True)


def samples():
    yield


async def later():
    pass


async def both():
    yield


class Called:
    __call__ = samples


@pytest.mark.parametrize("lazy", [samples, later, both, partial(samples), Called()])
def test_no_grad_decorates_nothing_that_runs_later(lazy):
    with pytest.raises(TypeError, match=r"^no_grad: .* is a generator or coroutine function; write the with inside"):
        mg.no_grad()(lazy)


def test_no_grad_before_a_yield_and_in_whatever_calls_it():
    """A generator that leaves it before it yields, a context manager, a stack, a function that contextlib wraps."""

    def history():
        for _ in range(2):
            with mg.no_grad():
                inside = records()
            yield inside, records()

    @contextmanager
    def without():
        with mg.no_grad():
            yield

    @without()
    def wrapped(_):
        with mg.no_grad():
            return records()

    assert [*history()] == [(False, True)] * 2
    assert [*map(wrapped, "ab"), *(wrapped(x) for x in "ab")] == [False] * 4
    with ExitStack() as stack, without():
        stack.enter_context(mg.no_grad())
        assert not records()
    batches = (x for x in "ab")
    assert next(mg.no_grad()(lambda: batches)()) == "a"  # what a function hands back is its caller's
    assert records()


def test_threads_and_tasks_record_each_for_itself():
    """Also where two use one switch, and leave it in the order in which they came, or another leaves it."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(mg.no_grad().__enter__).result()
        assert (pool.submit(records).result(), records()) == (False, True)
    switch, one, other = mg.no_grad(), Context(), Context()
    one.run(switch.__enter__)
    other.run(mg.no_grad().__enter__)
    other.run(switch.__enter__)
    one.run(switch.__exit__)
    assert (one.run(records), other.run(records)) == (True, False)
    switch.__exit__()
    assert (other.run(records), records()) == (False, True)


# --- Tensor -------------------------------------------------------------------------------------


def test_tensor_copies_and_keeps_float_dtypes_and_makes_float32_of_the_rest():
    for data in (np.ones(2), leaf(2)):
        x = mg.tensor(data)
        assert (x.dtype, np.shares_memory(x.data, mg.backend.to_numpy(data))) == ("float64", False)
    for data in (np.ones(2, "float32"), [1, 2], [1.5, 2.5], 3, 3.5, np.arange(3), np.array([True]), [np.float64(1)]):
        assert mg.tensor(data).dtype == "float32"


def test_tensor_as_people_use_it():
    x = leaf(2, 3)
    assert (x.shape, x.ndim, len(x), {x: 1}[x]) == ((2, 3), 2, 2, 1)
    assert [row.data.tolist() for row in x] == x.data.tolist()
    assert "requires_grad=True" in repr(x)
    assert x._repr_html_().startswith("<p>Tensor (2, 3), float64</p><pre>[[")
    assert [bool(mg.tensor(data)) for data in (1.0, [0.0], 0)] == [True, False, False]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_no_history(copied, long_chain):
    """It is made where it is copied, or read in another process, and so younger than all that is there."""
    y = long_chain[1]
    z = copied(y)
    assert (z.op, z.requires_grad, z.item(), z.array is y.array) == (None, True, y.item(), copied is copy.copy)
    assert z.birth > leaf().birth - 2


def test_what_is_unpickled_can_be_trained():
    """Also of buffers that cannot be written to, or of a file: so large networks reach other processes."""
    p, buffers = leaf(200, 3), []
    pickled = pickle.dumps(p, 5, buffer_callback=buffers.append)
    np.save("p.npy", p.data)
    mapped = mg.Tensor.__reduce__(mg.Tensor(np.load("p.npy", mmap_mode="r"), requires_grad=True))
    for x in (pickle.loads(pickled, buffers=[bytes(b) for b in buffers]), mapped[0](*mapped[1])):
        mg.optim.Adam([x], lr=1).step([mg.tensor(np.ones((200, 3)))])
        np.testing.assert_allclose(x.data, p.data - 1, rtol=1e-5)


def test_data_assigned_to_once_more_is_noted_where_it_lies_by_now():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    x.data = x.data + 1
    y = (x * x).sum()
    x.data = x.data + 1
    with pytest.raises(ValueError, match="changed in place since"):
        mg.grad(y, x)
