"""``grad`` and the rules of the engine, each with a test that fails where it is broken."""

import asyncio
import contextlib
import copy
import functools
import gc
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import minigan as mg
from minigan import guards, ops
from minigan.settings import Settings
from minigan.training import WGANGP
from tests.running import ROOT


def leaf(*shape, dtype="float64"):
    rng = np.random.default_rng(sum(shape))
    return mg.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)


def ancestors(y):
    """Every Tensor in the graph of ``y``."""
    found, stack = [], [y]
    while stack:
        x = stack.pop()
        if not any(x is f for f in found):
            found.append(x)
            stack += [a for a in x.args if isinstance(a, mg.Tensor) and a.requires_grad]
    return found


@pytest.fixture
def calls(monkeypatch):
    """Counts, under (op, operand), the calls of every vjp."""
    counts = {}

    def counted(op, i, vjp):
        def wrapper(*args, **static):
            counts[op.__name__, i] = counts.get((op.__name__, i), 0) + 1
            return vjp(*args, **static)

        return wrapper

    for op in vars(ops).values():
        if hasattr(op, "vjps"):
            monkeypatch.setattr(op, "vjps", tuple(counted(op, i, vjp) for i, vjp in enumerate(op.vjps)))
    return counts


# --- The rules ----------------------------------------------------------------------------------


def test_the_gradient_of_a_gradient_is_an_ordinary_gradient():
    """Rule 1: any order works, by calling grad again."""
    x = mg.tensor(np.array([0.3, -0.7]), requires_grad=True)
    y = ops.exp(2 * x)
    for order in range(1, 6):
        (y,) = mg.grad(y.sum(), x, create_graph=True)
        np.testing.assert_allclose(y.data, 2**order * np.exp(2 * x.data))


def test_only_the_asked_for_path_is_computed(calls):
    """Rule 2: the gradient at the points computes no weight's; that of the last layer does not go further back."""
    net = mg.nn.MLP([4, 5, 3, 1], rng=0, dtype="float64")
    x = leaf(6, 4)
    for inputs, expected in (
        (x, {("linear", 0): 3, ("relu", 0): 2}),
        (net.parameters()[-2:], {("linear", 1): 1, ("linear", 2): 1}),
        (net.parameters()[2], {("linear", 0): 1, ("relu", 0): 1, ("linear", 1): 1}),
    ):
        calls.clear()
        mg.grad(net(x).sum(), inputs)
        assert {call: n for call, n in calls.items() if call[0] in ("linear", "relu")} == expected


def peak(f):
    """The most memory, in MiB, that is in use at a time."""
    tracemalloc.start()
    f()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def test_memory_does_not_grow_with_the_square_of_the_uses():
    """Contributions to a gradient are added up as they come."""
    x = leaf(1000, 100)  # 0.8 MiB
    assert peak(lambda: mg.grad(sum(ops.norm(row) for row in x), x)) < 10

    w, h = leaf(50, 50), leaf(2, 50)  # 20 KiB

    def chain(uses):
        y = h
        for _ in range(uses):
            y = ops.tanh(y @ w)
        return lambda: mg.grad(y.sum(), w, create_graph=True)

    assert peak(chain(400)) < 3 * peak(chain(200))


def test_a_branch_that_leads_nowhere_is_not_visited(calls):
    x, other = leaf(3), leaf(3)
    mg.grad((x * 2 + ops.exp(other)).sum(), x)
    assert ("exp", 0) not in calls and ("add", 1) not in calls


@pytest.mark.parametrize("hidden, reached", [("relu", False), ("leaky_relu", False), ("tanh", True)])
def test_a_mask_adds_nothing_to_the_second_graph(hidden, reached, calls):
    """Rule 3: dD/dx of a piecewise linear critic depends on its weights, but on no activation and no bias."""
    net = mg.nn.MLP([4, 5, 1], hidden=hidden, rng=0, dtype="float64")
    x = leaf(6, 4)
    (g,) = mg.grad(net(x).sum(), x, create_graph=True)
    graph = ancestors(g)
    made_by = {y.op.__name__ for y in graph if y.op}
    assert any(y is net.layers[0].weight for y in graph)
    assert (hidden in made_by) == reached
    assert any(y is net.layers[0].bias for y in graph) == reached
    calls.clear()
    mg.grad((g * g).sum(), net.parameters(), allow_unused=True)
    assert ((hidden, 0) in calls) == reached


def test_no_reference_cycles():
    """Rule 4: with the garbage collector off, 2,000 critic steps leave memory flat."""
    rng = np.random.default_rng(0)
    critic = mg.nn.MLP([4, 8, 8, 1], hidden="tanh", rng=0)
    adam = mg.optim.Adam(critic.parameters())
    real, fake = (rng.random((5, 4), dtype="float32") for _ in range(2))

    def step():
        loss = mg.losses.critic_loss(critic(real), critic(fake))
        loss = loss + 10 * mg.penalties.gradient_penalty(critic, real, fake, rng)
        adam.step(mg.grad(loss, critic.parameters()))

    gc.collect()
    gc.disable()
    try:
        step()
        tensors = sum(isinstance(o, mg.Tensor) for o in gc.get_objects())
        tracemalloc.start()
        step()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for _ in range(1999):
            step()
        assert sum(isinstance(o, mg.Tensor) for o in gc.get_objects()) == tensors
        tracemalloc.start()
        step()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after <= before + 2000


def test_a_failed_grad_leaves_no_cycle_and_no_switch():
    x = leaf(3)
    with pytest.raises(ValueError):
        mg.grad(ops.exp(x).sum(), leaf(2))
    assert (x * 2).requires_grad


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept_through_the_penalty(dtype):
    """Rule 5, through the whole double backward."""
    critic = mg.nn.MLP([4, 5, 1], hidden="softplus", rng=0, dtype=dtype)
    real, fake = np.random.default_rng(0).random((2, 6, 4)).astype(dtype)
    loss = mg.losses.critic_loss(critic(real), critic(fake))
    loss = loss + 10 * mg.penalties.gradient_penalty(critic, real, fake, np.random.default_rng(0))
    assert loss.dtype == dtype
    assert {g.dtype for g in mg.grad(loss, critic.parameters(), create_graph=True)} == {np.dtype(dtype)}


def test_a_long_chain_is_neither_recursed_into_nor_freed_recursively():
    x = leaf()
    y = x
    for _ in range(50_000):
        y = y + 1
    assert mg.grad(y, x)[0].item() == 1
    del y


def test_as_many_inputs_as_one_likes():
    inputs = [leaf() for _ in range(16_000)]
    y = sum(inputs[1:], inputs[0])
    assert all(g.item() == 1 for g in mg.grad(y, inputs))


def changes():
    """Each a way to change an array that a graph was made of."""

    def assign(x, y):
        x.data = x.data + 1

    def in_place(x, y):
        x.data += 1

    def result(x, y):
        y.data *= 2

    def step(x, y):
        mg.optim.Adam([x]).step([mg.tensor(np.ones(3))])

    return [assign, in_place, result, step]


@pytest.mark.parametrize("change", changes())
def test_a_graph_whose_arrays_were_changed_is_refused(change):
    """Rule 8: its derivatives would be those of other numbers."""
    x = leaf(3)
    y = ops.exp(x)
    change(x, y)
    with pytest.raises(ValueError, match=r"grad: exp, shape \(3,\), or an operand of it was changed in place since"):
        mg.grad(y.sum(), x)
    mg.grad(ops.exp(x).sum(), x)


VIEWS = {
    "transpose": lambda x: x.T,
    "reshape": lambda x: x.reshape(-1),
    "index": lambda x: x[:1],
    "detach": lambda x: x.detach(),
    "broadcast": lambda x: ops.broadcast_to(x, (2, 2, 3)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("through", ["the weight", "the view"])
def test_whoever_shares_the_memory_shares_the_change(name, through):
    """A view of a weight is no longer what it was after a step; nor is a weight after its view was written to."""
    w, v = leaf(2, 3), leaf(2, 3)
    view = VIEWS[name](w)
    made = (v.sum() * view).sum(), (v * w).sum()
    if through == "the view" and view.data.flags.writeable:
        view.data += 1
    else:
        mg.optim.Adam([w]).step([mg.tensor(np.ones((2, 3)))])
    for y in made:
        with pytest.raises(ValueError, match="was changed in place since"):
            mg.grad(y, v)
    assert mg.grad((v.sum() * VIEWS[name](w)).sum(), v)


def same_array(x):
    y = mg.tensor(np.zeros(x.shape))
    y.data = x.data
    return y


def the_operand(x):
    return mg.primitive(lambda g, out, x: g)(lambda x: x)(x)


@pytest.mark.parametrize("share", [same_array, copy.copy, the_operand, lambda x: mg.Tensor(x.data), lambda x: x])
def test_however_two_tensors_came_to_one_array(share):
    x, w = leaf(2, 2), leaf(2, 2)
    view, other = x[:1], share(x)
    x.data = x.data.T  # another view of the same memory
    z = (w[:1] * view).sum() + (w * other.detach()).sum()
    mg.optim.Adam([x]).step([mg.tensor(np.ones((2, 2)))])
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(z, w)


def test_nothing_is_noted_of_arrays_that_are_gone():
    before = len(guards._written)
    for _ in range(100):
        x = leaf(3)
        x.data += 1
    assert len(guards._written) <= before + 1


def test_the_packages_own_writes_are_noticed():
    layer = mg.nn.SpectralLinear(3, 2, mg.nn.INITS["he"], np.random.default_rng(0), "float64")
    y = layer(leaf(4, 3)).sum()
    layer.power_iteration()
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(y, layer.weight)

    model = WGANGP(Settings(critic=(4,), generator=(4,)), lambda n, rng: rng.random((n, 9), dtype="float32"), 9)
    loss = model.critic(model.generate(4)).sum()
    model.restore({name: x.data.copy() for name, x in model.state().items()}, 0)
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(loss, model.critic.parameters())


def test_a_graph_whose_other_inputs_were_changed_is_not():
    x, y = leaf(3), leaf(3)
    z = ops.exp(x)
    y.data += 1
    assert mg.grad((z * y).sum(), [x, y])[1].data is not None


def test_threads_record_each_for_itself():
    """A thread under no_grad stops no other's recording, and none is left switched off."""
    x, inside, done = leaf(3), threading.Event(), threading.Event()

    def sampler():
        with mg.no_grad():
            inside.set()
            done.wait()
            assert not (x * 2).requires_grad

    thread = threading.Thread(target=sampler)
    thread.start()
    inside.wait()
    assert (x * 2).requires_grad
    done.set()
    thread.join()
    assert (x * 2).requires_grad


# --- The meaning of grad's arguments ------------------------------------------------------------


def test_inputs_in_whatever_can_be_gone_through():
    x, y = leaf(3), leaf(3)
    named = {"x": x, "y": y}
    for inputs in (named.values(), (t for t in (x, y)), [x, y]):
        assert [g.data.tolist() for g in mg.grad((x + 2 * y).sum(), inputs)] == [[1] * 3, [2] * 3]
    with pytest.raises(TypeError, match="grad: expected Tensors as outputs and inputs, got ndarray"):
        mg.grad(x.sum(), x.data)


def test_several_outputs_and_inputs():
    x, y = leaf(3), leaf(3)
    u, v = x * y, ops.exp(y)
    gx, gy = mg.grad([u, v], [x, y], grad_outputs=[mg.tensor(np.ones(3)), np.full(3, 2.0)])
    np.testing.assert_allclose(gx.data, y.data)
    np.testing.assert_allclose(gy.data, x.data + 2 * np.exp(y.data))


def test_an_intermediate_and_a_leaf_together():
    x = leaf(3)
    y = x * x
    z = (y * y).sum()
    gx, gy, gz = mg.grad(z, [x, y, z])
    np.testing.assert_allclose(gx.data, 4 * x.data**3)
    np.testing.assert_allclose(gy.data, 2 * y.data)
    assert gz.item() == 1


def test_one_input_used_many_times_and_asked_for_twice():
    x = leaf(2, 2)
    g, again = mg.grad((x * x + x @ x - x).sum(), [x, x])
    ones = np.ones((2, 2))
    np.testing.assert_allclose(g.data, 2 * x.data + ones @ x.data.T + x.data.T @ ones - 1)
    np.testing.assert_allclose(again.data, g.data)


def test_grad_outputs_can_be_differentiated():
    """A gradient is linear in grad_outputs: with create_graph, its derivative there is the Jacobian's product."""
    x, v = leaf(3), leaf(3)
    (g,) = mg.grad(ops.exp(x), x, grad_outputs=v, create_graph=True)
    np.testing.assert_allclose(mg.grad(g.sum(), v)[0].data, np.exp(x.data))


def test_grad_outputs_may_be_numbers():
    x = leaf(3)
    for how in (2.0, [2.0], [np.float32(2)], np.array(2.0)):
        assert mg.grad(x.sum(), x, grad_outputs=how)[0].data.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="1 outputs and 2 grad_outputs"):
        mg.grad(x * 1, x, grad_outputs=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"grad_outputs 0 is float64 \(\); its output is float64 \(3,\)"):
        mg.grad(x * 1, x, grad_outputs=2.0)


def test_without_create_graph_there_is_no_graph():
    x = leaf(3)
    (g,) = mg.grad((x**3).sum(), x)
    assert not g.requires_grad and g.op is None
    with pytest.raises(ValueError, match="create_graph=True"):
        mg.grad(g.sum(), x)


def forgotten(x, w):
    """A penalty on a gradient without a record, beside something that is differentiated: it would not be trained on."""
    (g,) = mg.grad((x**2 * w).sum(), x)
    return g, (w * x).sum() + 10 * ((g - 1) ** 2).sum()


FORGOTTEN = (
    "grad: an output depends on a gradient that was computed without create_graph=True, so its derivative would be"
    r" lost: pass create_graph=True there, or detach\(\) it if a constant is meant"
)


def test_a_forgotten_create_graph_is_an_error():
    x, w = leaf(3), leaf(3)
    g, loss = forgotten(x, w)
    for inputs in ([w], [x], [x, w]):
        for how in ({}, {"create_graph": True}, {"materialize_grads": True}):
            with pytest.raises(ValueError, match=FORGOTTEN):
                mg.grad(loss, inputs, **how)
    with pytest.raises(ValueError, match=FORGOTTEN):
        mg.grad(g.sum(), w, materialize_grads=True)


def test_a_forgotten_create_graph_is_found_on_every_way():
    """Where the input is an intermediate result, where only the seed depends on it, and where the seed is recorded."""
    x = leaf(3)
    h = x * x
    (g,) = mg.grad((h**3).sum(), x)
    with pytest.raises(ValueError, match=FORGOTTEN):
        mg.grad((g * g).sum() + h.sum(), h)

    w = leaf(3)
    y = x * 2
    (g,) = mg.grad(y, x, grad_outputs=w * w)
    with pytest.raises(ValueError, match=FORGOTTEN):
        mg.grad((g * w).sum(), w)

    (seed,) = mg.grad((x**3).sum(), x, create_graph=True)
    (g,) = mg.grad(y, x, grad_outputs=seed)
    with pytest.raises(ValueError, match=FORGOTTEN):
        mg.grad((g * x).sum(), x)


def test_a_gradient_without_a_record_is_a_constant_where_that_is_right():
    x, w = leaf(3), leaf(3)
    g, loss = forgotten(x, w)
    (constant,) = mg.grad((w * x).sum() + (g.detach() * w).sum(), w)
    np.testing.assert_allclose(constant.data, (x.data + g.data))
    later = leaf(3)  # made after it, so that it cannot depend on this
    np.testing.assert_allclose(mg.grad((g * later).sum(), later)[0].data, g.data)
    with mg.no_grad():
        step = w - 0.1 * g
    assert not step.unrecorded and mg.grad((step * later).sum(), later)
    moved = mg.tensor(w.data - 0.1 * g.data, requires_grad=True)
    assert mg.grad((moved**2).sum(), moved)
    del loss


def test_gradient_descent_as_it_is_written_down():
    """Each step's weights are made of a gradient without a record, and are the inputs of the next one."""
    w = leaf(3)
    for _ in range(100):
        (g,) = mg.grad(((w - 1) ** 2).sum(), w)
        w = w - 0.1 * g
    np.testing.assert_allclose(w.data, 1, atol=1e-6)


def test_zeros_for_what_no_output_depends_on():
    x, other = leaf(3), leaf(2)
    g, zeros = mg.grad((3 * x).sum(), [x, other], create_graph=True, materialize_grads=True)
    assert g.data.tolist() == [3, 3, 3] and zeros.data.tolist() == [0, 0] and zeros.dtype == other.dtype
    assert mg.grad(g.sum(), x, materialize_grads=True)[0].data.tolist() == [0, 0, 0]  # of a constant
    with pytest.raises(ValueError, match="materialize_grads=True zeros"):
        mg.grad((3 * x).sum(), other)


def test_no_grad_is_not_left_by_a_yield():
    """The caller of a generator that is suspended there would not record either."""
    x = leaf(3)

    def samples():
        with mg.no_grad():
            yield x * 2

    with pytest.raises(
        TypeError, match="no_grad: samples is a generator or coroutine, and where it yields, its caller"
    ):
        next(samples())
    with pytest.raises(TypeError, match="no_grad: samples is a generator"):
        mg.no_grad()(samples)
    assert (x * 2).requires_grad

    @mg.no_grad()
    def twice(x):
        return x * 2

    assert not twice(x).requires_grad and (x * 2).requires_grad

    def stacked():
        with contextlib.ExitStack() as stack:
            stack.enter_context(mg.no_grad())
            yield x * 2

    async def later():
        return x * 2

    for lazy in (lambda: next(stacked()), lambda: mg.no_grad()(later)):
        with pytest.raises(TypeError, match="is a generator or coroutine"):
            lazy()
    assert not mg.no_grad()(functools.partial(ops.mul, x, 2))().requires_grad and (x * 2).requires_grad


def test_one_switch_may_be_used_again_and_within_itself():
    x, off = leaf(3), mg.no_grad()
    with off:
        with off:
            assert not (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_create_graph_records_under_no_grad_too():
    x = leaf(3)
    y = (x**3).sum()
    with mg.no_grad():
        (g,) = mg.grad(y, x, create_graph=True)
    assert g.requires_grad


def test_no_grad_and_detach():
    x = leaf(3)
    with mg.no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    assert not x.detach().requires_grad and x.detach().data is x.data
    with pytest.raises(ZeroDivisionError), mg.no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad


def test_unused_inputs():
    x, other = leaf(3), leaf(2)
    y = (x * 2).sum()
    assert mg.grad(y, [x, other], allow_unused=True)[1] is None
    with pytest.raises(ValueError, match=r"no output depends on input 1, shape \(2,\)"):
        mg.grad(y, [x, other])


def test_errors_say_what_is_wrong():
    x = leaf(3)
    with pytest.raises(ValueError, match=r"output 0 has shape \(3,\); without grad_outputs"):
        mg.grad(x * 2, x)
    with pytest.raises(ValueError, match=r"grad_outputs 0 is float64 \(2,\); its output is float64 \(3,\)"):
        mg.grad(x * 2, x, grad_outputs=np.ones(2))
    with pytest.raises(ValueError, match="grad_outputs 0 is float32"):
        mg.grad(x * 2, x, grad_outputs=np.ones(3, "float32"))
    with pytest.raises(ValueError, match=r"output 0, shape .*has no graph.*no_grad"):
        mg.grad(mg.tensor([1.0]), x)
    with pytest.raises(ValueError, match=r"input 0, shape .*requires_grad=False"):
        mg.grad(x.sum(), mg.tensor([1.0]))
    with pytest.raises(ValueError, match="2 outputs and 1 grad_outputs"):
        mg.grad([x.sum(), x.sum()], x, grad_outputs=[None])


# --- Tensor -------------------------------------------------------------------------------------


def test_tensor_keeps_float_dtypes_and_makes_float32_of_the_rest():
    for dtype in ("float32", "float64"):
        assert mg.tensor(np.ones(2, dtype)).dtype == dtype
    for data in ([1, 2], [1.5, 2.5], 3, 3.5, np.arange(3), np.array([True]), [np.float64(1)]):
        assert mg.tensor(data).dtype == "float32"
    with pytest.raises(TypeError, match="complex"):
        mg.tensor([1j])
    with pytest.raises(TypeError, match="real numbers"):
        mg.tensor("one")


def test_tensor_copies():
    data = np.ones(3)
    x = mg.tensor(data)
    data[:] = 2
    assert x.data.tolist() == [1, 1, 1]
    assert mg.tensor(x).data is not x.data


def test_tensor_as_people_use_it():
    x = leaf(2, 3)
    assert (x.shape, x.ndim, len(x), x.dtype) == ((2, 3), 2, 2, np.float64)
    assert x.sum().item() == pytest.approx(x.data.sum())
    assert [row.shape for row in x] == [(3,), (3,)]
    assert "requires_grad=True" in repr(x)
    assert (np.ones((2, 3)) + x).shape == (2, 3) and isinstance(np.ones((2, 3)) * x, mg.Tensor)


def test_what_a_tensor_refuses_says_what_to_write():
    x = leaf(2)
    with pytest.raises(TypeError, match=r"x\.data == y\.data"):
        _ = x == x.detach()
    with pytest.raises(TypeError, match=r"x\.data == y\.data"):
        _ = x != 1
    for convert in (np.array, np.asarray, lambda x: np.concatenate([x, x])):
        with pytest.raises(TypeError, match=r"write x.data, or minigan.backend.to_numpy\(x\)"):
            convert(x)
    with pytest.raises(TypeError, match="unsized"):
        iter(leaf())
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    assert {x: 1}[x] == 1 and bool(mg.tensor(1.0)) and not mg.tensor([0.0]) and not mg.tensor(0)


def test_a_copy_has_no_history():
    x = leaf(3)
    y = x
    for _ in range(10_000):
        y = y + 1
    for z in (copy.deepcopy(y), copy.copy(y), pickle.loads(pickle.dumps(y))):
        assert z.op is None and z.requires_grad and (z.data == y.data).all()
    assert copy.deepcopy(y).data is not y.data


def test_networks_and_tensors_go_to_another_process(tmp_path):
    """Where births are counted anew: what is read there is made there."""
    net, x = mg.nn.MLP([3, 4, 1], rng=0, dtype="float64"), leaf(2, 3)
    for _ in range(1000):
        x = mg.tensor(x, requires_grad=True)
    (tmp_path / "pickle").write_bytes(pickle.dumps((net, x)))
    code = f"""
import pickle, minigan as mg
net, x = pickle.load(open({str(tmp_path / "pickle")!r}, "rb"))
print(*mg.grad(net(x).sum(), [x])[0].data.ravel())
"""
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    np.testing.assert_allclose(np.array(printed.split(), float), mg.grad(net(x).sum(), x)[0].data.ravel())


# --- What a hostile reading found ----------------------------------------------------------------


def test_constants_and_odd_views_that_were_written_to():
    """A constant is held, not copied: also where it is a Tensor's own memory, or a view that does not say so."""
    for view in (
        lambda a: a,
        lambda a: np.lib.stride_tricks.sliding_window_view(a, 1)[:, 0],
        lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)),
        lambda a: np.asarray(memoryview(a)),
    ):
        x, a = leaf(3), mg.tensor(np.arange(3.0))
        outputs = x * view(a.data), x * mg.Tensor(view(a.data))
        a.data += 1
        for y in outputs:
            with pytest.raises(ValueError, match="was changed in place since"):
                mg.grad(y.sum(), x)


def test_what_is_made_of_an_input_of_its_own_gradients():
    """Descent as a function: the second step's parameters are made of the first's gradients, and that is right."""
    ps = [mg.tensor([1.0], True), mg.tensor([2.0], True)]
    for _ in range(2):
        gs = mg.grad((ps[0] * ps[1]).sum(), ps)
        ps = [p - 0.1 * g for p, g in zip(ps, gs)]
    assert ps[0].item() == pytest.approx(0.8 - 0.1 * 1.9)
    x = mg.tensor([2.0], True)
    (g,) = mg.grad(x * x * x, x)
    w = mg.tensor([5.0], True)
    assert mg.grad((g * 2) * w, w)[0].item() == 24  # g is older than w
    (g,) = mg.grad(w * w * w, w)
    moved = w - 0.1 * g
    assert mg.grad(moved * moved, moved)[0].item() == 2 * moved.item()
    with pytest.raises(ValueError, match="computed without create_graph=True"):
        mg.grad(moved * moved, [w, moved])  # w goes into moved through g as well


def test_a_switch_that_two_tasks_use_at_once():
    switch, seen = mg.no_grad(), []

    async def one():
        with switch:
            await asyncio.sleep(0.01)
        seen.append((mg.tensor([1.0], True) * 2).requires_grad)

    async def other():
        with mg.no_grad():
            await asyncio.sleep(0.005)
            with switch:
                await asyncio.sleep(0.02)
        seen.append((mg.tensor([1.0], True) * 2).requires_grad)

    async def both():
        await asyncio.gather(one(), other())

    asyncio.run(both())
    assert seen == [True, True]
