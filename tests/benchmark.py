"""How fast, against the libraries that are installed beside it: ``python -m tests.benchmark --help``."""

import argparse
import importlib
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

import minigan as mg
from minigan import backend
from minigan.data import load_images, sampler
from minigan.fast import replay, sharing
from minigan.fast.threads import cores, kernels, threads_for, use_threads
from minigan.run import pictures
from minigan.run.files import write
from minigan.settings import Settings
from minigan.training import WGANGP

LR, BETAS, EPS = 1e-4, (0.5, 0.9), 1e-8
WEIGHT = 10  # of the penalty
MNIST = load_images().reshape(-1, 784)

SIZES = {  # the critic's widths, which are the generator's backwards; of the noise, of a batch; critic steps
    "article": ((128, 32), 10, 100, 5),
    "default": ((256, 128), 32, 64, 1),
    "middle": ((512, 256), 100, 64, 5),
    "large": ((1024, 1024), 128, 256, 5),
}
for label, (critic, *others) in SIZES.items():
    numbers = dict(zip(("noise_dim", "batch_size", "critic_steps"), others))
    SIZES[label] = Settings(learning_rate=LR, betas=BETAS, average=0, critic=critic, generator=critic[::-1], **numbers)


def widths(size):
    """Of the critic's layers, and of the generator's."""
    return [784, *size.critic, 1], [size.noise_dim, *size.generator, 784]


def weights(size):
    """What the networks of other libraries begin with, and our critic: each a list weight, bias, weight, bias, ..."""
    rng = np.random.default_rng(0)
    shapes = [[shape for a, b in pairwise(ends) for shape in ((a, b), (b,))] for ends in widths(size)]
    return [[rng.normal(0, (2 / shape[0]) ** 0.5, shape).astype("float32") for shape in net] for net in shapes]


# --- What is compared: an iteration, draws included, of a size on a device --------------------------


class Minigan:
    """As run_mnist.py trains, by default or with so many threads or workers."""

    package, devices, replay = "minigan", ("cpu", "gpu"), "program"

    def __init__(self, size, device, threads=0, workers=1):
        backend.use(device)
        self.model = WGANGP(size, sampler(MNIST), 784)
        self.workers, self.threads = workers, threads or threads_for(size, 784)
        self.critic = self.model.critic
        for parameter, array in zip(self.critic.parameters(), weights(size)[0]):
            parameter.data = backend.on_device(array)

    @contextmanager
    def ready(self):
        """Inside, it computes with its threads, and the workers are there."""
        how = {"replay": bool(self.replay), "graph": self.replay == "graph"}
        with use_threads(self.threads), sharing(self.model, self.workers, self.threads, **how) as shared:
            self.fast = shared
            yield

    def iteration(self):
        self.fast.iteration()

    def wait(self):
        backend.to_numpy(self.critic.parameters()[-1])

    def gradients(self, real, fake, eps):
        """Of the critic's whole loss, for its parameters; only where built for the CPU, as in all libraries."""
        penalty = mg.penalties.FORMS["two-sided"](mg.penalties.gradient_norm(self.critic, fake + eps * (real - fake)))
        loss = mg.losses.critic_loss(self.critic(real), self.critic(fake)) + WEIGHT * penalty
        return [g.data for g in mg.grad(loss, self.critic.parameters())]


class Eager(Minigan):
    replay = None


class Graph(Minigan):
    devices, replay = ("gpu",), "graph"


class Floor:
    """The matrix products of an iteration alone, as few as the mathematics allows, into ready buffers."""

    package, devices, ready = "minigan", ("cpu", "gpu"), nullcontext

    def __init__(self, size, device):
        backend.use(device)
        use_threads(threads_for(size, 784))
        rng, self.products, (critic, generator), n = np.random.default_rng(0), [], widths(size), size.batch_size
        # Which way, through layers of which widths, with how many rows. Real and generated rows go together; nothing
        # reads the critic's output at the interpolates.
        scores = [("forward", critic, 2 * n), ("to weights", critic, 2 * n), ("to inputs", critic[1:], 2 * n)]
        slopes = [("forward", critic[:-1], n), ("to inputs", critic, n)]
        through_the_slopes = [("to weights", critic, n), ("forward", critic[:-1], n)]
        sweeps = [("forward", generator, n * size.critic_steps)]
        sweeps += (scores + slopes + through_the_slopes) * size.critic_steps
        sweeps += [("forward", generator, n), ("forward", critic, n), ("to inputs", critic, n)]
        sweeps += [("to weights", generator, n), ("to inputs", generator[1:], n)]
        for way, (a, b), n in ((way, ends, n) for way, layers, n in sweeps for ends in pairwise(layers)):
            x, w, y = (backend.on_device(rng.normal(size=s), dtype="float32") for s in ((n, a), (a, b), (n, b)))
            left, right = {"forward": (x, w), "to inputs": (w, y.T), "to weights": (x.T, y)}[way]
            self.products.append((left, right, backend.xp.empty((len(left), right.shape[1]), "float32")))

    def iteration(self):
        for left, right, out in self.products:
            backend.xp.matmul(left, right, out=out)

    def wait(self):
        backend.to_numpy(self.products[-1][2][:1])


class Peer:
    """Another library, imported where it is built, and what the iteration is in both of them.

    A network is a list of parameters, as of ``weights``.
    """

    devices, ready, no_grad = ("cpu", "gpu"), nullcontext, nullcontext

    def __init__(self, size, device):
        self.lib, self.on = importlib.import_module(self.package), {"cpu": "cpu", "gpu": "cuda"}[device]
        self.size, self.images = size, self.array(MNIST)
        self.networks = [[self.array(a) for a in arrays] for arrays in weights(size)]

    def iteration(self):
        for _ in range(self.size.critic_steps):
            chosen, noise, eps = self.draw()
            with self.no_grad():
                fake = self.generated(self.networks[1], noise)
            self.step(0, self.critic_loss, self.images[chosen] / np.float32(255), fake, eps)
        self.step(1, self.generator_loss, self.draw()[1])

    def forward(self, network, x):
        *hidden, last = zip(network[::2], network[1::2])
        for layer in hidden:
            x = self.relu(self.linear(x, *layer))
        return self.linear(x, *last)

    def generated(self, generator, noise):
        return self.sigmoid(self.forward(generator, noise))

    def critic_loss(self, critic, real, fake, eps):
        off = self.slopes(critic, fake + eps * (real - fake)) - 1
        difference = self.forward(critic, real).mean() - self.forward(critic, fake).mean()
        return difference + WEIGHT * (off * off).mean()

    def generator_loss(self, generator, noise):
        return self.forward(self.networks[0], self.generated(generator, noise)).mean()

    def gradients(self, *batch):
        return [np.asarray(g) for g in self.gradient(self.critic_loss, self.networks[0], *map(self.array, batch))]


class PyTorch(Peer):
    """Eager, since its compiler refuses a double backward."""

    package = "torch"

    def __init__(self, size, device):
        super().__init__(size, device)
        lib = self.lib
        self.adams = [lib.optim.Adam(network, LR, BETAS, EPS, fused=True) for network in self.networks]
        self.relu, self.sigmoid, self.linear = lib.relu, lib.sigmoid, lambda x, w, b: lib.addmm(b, x, w)
        self.no_grad, self.wait = lib.no_grad, lib.cuda.synchronize if device == "gpu" else lambda: None

    def array(self, x):
        return self.lib.tensor(x, device=self.on, requires_grad=x.dtype == "float32")

    def draw(self):
        n, lib = self.size.batch_size, self.lib
        noise = lib.randn(n, self.size.noise_dim, device=self.on)
        return lib.randint(len(MNIST), (n,), device=self.on), noise, lib.rand(n, 1, device=self.on)

    def slopes(self, critic, points):
        points.requires_grad_()
        (g,) = self.lib.autograd.grad(self.forward(critic, points).sum(), points, create_graph=True)
        return g.norm(dim=1)

    def gradient(self, loss, network, *args):
        return self.lib.autograd.grad(loss(network, *args), network)

    def step(self, which, loss, *args):
        for p, g in zip(self.networks[which], self.gradient(loss, self.networks[which], *args)):
            p.grad = g
        self.adams[which].step()


class JAX(Peer):
    """The whole iteration in one jit."""

    package = "jax"

    def __init__(self, size, device):
        super().__init__(size, device)
        adam = importlib.import_module("jax.example_libraries.optimizers").adam
        begin, self.update, self.parameters = adam(LR, *BETAS, EPS)
        self.linear, self.relu, self.sigmoid = lambda x, w, b: x @ w + b, self.lib.nn.relu, self.lib.nn.sigmoid
        self.held = [begin(network) for network in self.networks], [0, 0], self.lib.random.key(2)
        self.compiled, self.pixels = self.lib.jit(self.changed), self.images  # beside it, so as not to be copied

    def array(self, x):
        return self.lib.device_put(x, self.lib.devices(self.on)[0])

    def draw(self):
        random, n = self.lib.random, self.size.batch_size
        self.rng, a, b, c = random.split(self.rng, 4)
        noise = random.normal(b, (n, self.size.noise_dim))
        return random.randint(a, (n,), 0, len(MNIST)), noise, random.uniform(c, (n, 1))

    def slopes(self, critic, points):
        g = self.lib.grad(lambda points: self.forward(critic, points).sum())(points)
        return self.lib.numpy.sqrt((g * g).sum(1))

    def gradient(self, loss, network, *args):
        return self.lib.grad(loss)(network, *args)

    def step(self, which, loss, *args):
        gradient = self.gradient(loss, self.networks[which], *args)
        self.adams[which] = self.update(self.steps[which], gradient, self.adams[which])
        self.networks[which] = self.parameters(self.adams[which])
        self.steps[which] += 1

    def changed(self, held, images):
        (self.adams, self.steps, self.rng), self.images = held, images
        self.networks = [*map(self.parameters, self.adams)]
        super().iteration()
        return self.adams, self.steps, self.rng

    def iteration(self):
        self.held = self.compiled(self.held, self.pixels)

    def wait(self):
        self.lib.block_until_ready(self.held)


# what is measured, and how many threads it is allowed, if it does not choose; for minigan, and how many workers
LIBRARIES = {"minigan": (Minigan,), "--threads 2": (Minigan, 2), "--workers 2": (Minigan, 1, 2), "eager": (Eager,)}
LIBRARIES |= {"graph": (Graph,), "products": (Floor,), "PyTorch, 1": (PyTorch, 1), "JAX, 1": (JAX, 1)}
LIBRARIES |= {"PyTorch, 2": (PyTorch, 2), "JAX, 2": (JAX, 2)}


# --- How it is measured ---------------------------------------------------------------------------


def check_gradients(size, names):
    """Assert that every library computes the same critic gradients, to float32 accuracy, on one batch, on the CPU."""
    rng = np.random.default_rng(1)
    batch = [rng.random((size.batch_size, width), dtype="float32") for width in (784, 784, 1)]
    ours = np.concatenate([g.ravel() for g in Minigan(size, "cpu").gradients(*batch)])
    for name in (name for name in names if issubclass(LIBRARIES[name][0], Peer)):
        theirs = np.concatenate([g.ravel() for g in LIBRARIES[name][0](size, "cpu").gradients(*batch)])
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(ours)
        assert (theirs.dtype, error < 1e-3) == ("float32", True), f"{name}: {theirs.dtype} gradients, {error:.1e} off"


def milliseconds(size, names, device, rounds, beside=nullcontext):
    """Median milliseconds an iteration of each library, timed in turn in each of ``rounds``, beside something.

    Each has a process of its own, which waits while others are timed, so that their threads do not meet.
    """
    times = {name: [] for name in names}
    with ExitStack() as stack:
        turns = {name: stack.enter_context(waiting(name, size, device)) for name in names}
        stack.enter_context(beside())
        for _ in range(rounds):
            for name, turn in turns.items():
                times[name].append(turn())
    return {name: median(values) for name, values in times.items()}


@contextmanager
def waiting(name, size, device):
    """A function that lets a library in a process of its own run for a while: its milliseconds an iteration."""
    code = f"from tests import benchmark; benchmark.take_turns({name!r}, benchmark.{size!r}, {device!r})"
    pipes, (kind, *numbers) = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}, LIBRARIES[name]
    env = dict(os.environ)
    if issubclass(kind, Peer) and device == "cpu":
        env |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(numbers[0]))
    with subprocess.Popen([sys.executable, "-c", code], env=env, **pipes) as child:

        def turn():
            time.sleep(0.3)  # another's threads may still look for work
            print(file=child.stdin, flush=True)
            return float(child.stdout.readline())

        child.stdout.readline()  # it is ready
        yield turn
        child.stdin.close()


def take_turns(name, size, device):
    """What such a process does: for each line that it reads, some iterations."""
    kind, *numbers = LIBRARIES[name]
    if numbers == [1] and hasattr(os, "sched_setaffinity"):  # JAX has as many threads as it may use cores
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    library = kind(size, device, *(numbers if issubclass(kind, Minigan) else ()))
    with library.ready():
        timed(library, 20)  # as it is, recorded, proven
        print("ready", flush=True)
        for _ in sys.stdin:
            print(timed(library, max(1, round(400 / timed(library, 2)))), flush=True)


def timed(library, count):
    """Milliseconds an iteration, of so many."""
    library.wait()
    start = time.perf_counter()
    for _ in range(count):
        library.iteration()
    library.wait()
    return 1000 * (time.perf_counter() - start) / count


@contextmanager
def busy():
    """Beside a process that keeps one core busy."""
    code = "import numpy as np; x = np.ones((1000, 1000), 'f'); y = x.copy()\nwhile True: np.matmul(x, x, out=y)"
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) as process:
        try:
            time.sleep(1)
            yield
        finally:
            process.kill()


# --- What is shown ----------------------------------------------------------------------------------


def row(*cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def compare(names, device, rounds, sizes, crowd):
    """Milliseconds an iteration of every library, by sizes; with ``crowd``, and beside a process on one core."""
    for beside in (nullcontext, busy)[: 1 + crowd]:
        print(f"\nmilliseconds an iteration{' beside a busy process' if beside is busy else ''}\n")
        row("size", *names)
        row(*["---"] * (1 + len(names)))
        for size in sizes:
            check_gradients(SIZES[size], names)
            took = milliseconds(SIZES[size], names, device, rounds, beside)
            row(size, *(f"{took[name]:.3g}" for name in names))


def growth(device, rounds):
    """Milliseconds an iteration over batch size and width, and memory over 20,000 iterations."""
    base, memory, panels = replace(SIZES["article"], critic=(128, 128), generator=(128, 128), critic_steps=1), {}, []
    smallest = Minigan(replace(base, critic=(16,), generator=(16,), batch_size=8), device)
    with smallest.ready():
        for start, end in pairwise((0, 1_000, 5_000, 10_000, 20_000)):
            timed(smallest, (end - start) * rounds // 3)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory[end * rounds // 3] = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    batches = {n: replace(base, batch_size=n) for n in (32, 64, 128, 256, 512, 1024)}
    wider = {n: replace(base, critic=(n, n), generator=(n, n)) for n in (128, 256, 512, 1024, 2048)}
    for what, sizes in (("batch size", batches), ("width", wider)):
        took = {n: milliseconds(size, ["minigan", "products"], device, rounds) for n, size in sizes.items()}
        curves = {name: ([*took], [round(ms[name], 2) for ms in took.values()]) for name in ("minigan", "products")}
        print(what, curves)
        panels.append(pictures.lines("", curves, what, "ms an iteration", scale=("log", "log")))
    print("MiB after so many iterations", memory)
    panels.append(pictures.lines("", {"": ([*memory], [*memory.values()])}, "iterations", "MiB in use", marks=[0]))
    Path("out").mkdir(exist_ok=True)
    write(Path("out/growth.png"), pictures.panels(panels, columns=2))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="[cpu]")
    parser.add_argument("--rounds", type=int, default=3, help="each times every library once [3]")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES], help="[all]")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=[*LIBRARIES], help="[all that are installed]")
    parser.add_argument("--crowd", action="store_true", help="once more, beside a process that keeps one core busy")
    parser.add_argument("--growth", action="store_true", help="instead: a picture over batch size, width and time")
    args = parser.parse_args(argv)
    if args.growth and not Path("/proc/self/statm").exists():
        parser.error("--growth reads how much memory is in use from /proc, as Linux has it")
    print(f"{processor()}, {cores()} cores, NumPy {np.__version__}, kernels for {kernels()}")
    if args.growth:
        return growth(args.device, args.rounds)
    names = [name for name in args.only if args.device in LIBRARIES[name][0].devices]
    names = [name for name in names if find_spec(LIBRARIES[name][0].package)]
    if args.device == "gpu":
        backend.use("gpu")
        names = [name for name in names if not name[-1].isdigit() or name.endswith(", 1")]
        try:
            replay.cutensor_matmul()
        except backend.DeviceError as error:
            print(f"no graph: {error}")
            names.remove("graph")
    compare(names, args.device, args.rounds, args.sizes, args.crowd)


def processor():
    """Its name, as Linux has it."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return next((line.split(": ")[1] for line in about.splitlines() if line.startswith("model name")), "a processor")


if __name__ == "__main__":
    main()
