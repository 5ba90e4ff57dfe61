"""The training of WGAN-GP and related GANs: one iteration, and the two metrics of its progress."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy

from . import backend, ops
from .autodiff import grad
from .backend import Array, kernel
from .guards import note_write
from .losses import GAMES
from .nn import CONSTRAINTS, MLP
from .optim import Adam
from .penalties import FORMS, slopes
from .settings import DECAYS, NOISES, Settings
from .tensor import Tensor, no_grad


class WGANGP:
    """The two networks, and all that their training takes.

    >>> gan = WGANGP(Settings(batch_size=16), sampler(load_images()), dim=784)
    >>> l1, slope = gan.iteration()
    >>> outputs(gan.ema, gan.draw_noise(5)).shape  # five samples
    (5, 784)

    ``ema`` is a generator with the exponential average of the generator's weights over the iterations; it draws better
    samples than the weights of the moment (Yazici et al. 2019, arXiv 1806.04498). With ``average`` 0 ``ema`` is the
    generator itself. ``sample_real(n, rng)`` gives n real rows (n, dim), float32, on the device in use, that depend on
    random numbers of ``rng`` only; it may be None until the first iteration. The same settings and ``sample_real`` give
    the same numbers, bit for bit, on the same machine's CPU, for the same number of threads.
    """

    def __init__(self, settings: Settings, sample_real: Callable[[int, Any], Array] | None, dim: int) -> None:
        self.settings = settings
        self.sample_real: Any = sample_real
        self.game, self.penalty = GAMES[settings.game], FORMS[settings.penalty]
        self.decay, self.noise = DECAYS[settings.decay], NOISES[settings.noise]
        _, self.constrain = CONSTRAINTS[settings.constraint]
        for_networks, for_training = numpy.random.SeedSequence(settings.seed).spawn(2)
        self.critic, self.generator = networks(settings, dim, numpy.random.default_rng(for_networks))
        self.ema = deepcopy(self.generator) if settings.average else self.generator
        self.ema_step = Tensor(backend.zeros_kernel((), "float32"))
        self.rng = backend.default_rng(int(for_training.generate_state(1, numpy.uint64)[0]))
        self.critic_adam = Adam(self.critic.parameters(), settings.learning_rate, settings.betas)
        self.generator_adam = Adam(self.generator.parameters(), settings.learning_rate, settings.betas)
        self.done = 0

    def iteration(self) -> Array:
        """``critic_steps`` steps of the critic and one of the generator: the article's game, section "the fight".

        Returns L1 and the mean slope at the last critic step, as an array (2,) that stays on the device: no code in
        here waits for the device. The next iteration may overwrite the array.
        """
        self.prepare()
        return self.device_steps()

    def prepare(self) -> None:
        """Set the numbers that an iteration goes by: the learning rate, and the step of the running average."""
        s = self.settings
        if s.decay != "constant":
            lr = s.learning_rate * self.decay(self.done / s.iterations)
            self.critic_adam.lr = self.generator_adam.lr = lr
        # At first the average is over the last eighth of the iterations, so that the initial weights are forgotten.
        self.ema_step.array.fill(1 - min(s.average, (1 + self.done) / (9 + self.done)))
        note_write(self.ema_step)
        self.done += 1

    def device_steps(self) -> Array:
        """The part of an iteration on the device: changes the arrays of ``state``; returns L1 and the mean slope."""
        n, times = self.settings.batch_size, self.settings.critic_steps
        reals = kernel(self.sample_real)(n * times, self.rng)
        fakes = self.generate(n * times)  # by one forward, since the generator stands still while the critic learns
        for i in range(times):
            seen = self.critic_step(part(reals, i * n, (i + 1) * n), part(fakes, i * n, (i + 1) * n))
        metrics = l1_and_mean_slope(*seen)
        self.generator_step()
        if self.settings.average:
            for a, p in zip(self.ema.parameters(), self.generator.parameters()):
                update_ema(a.array, p.array, self.ema_step.array)
                note_write(a)
        return metrics

    def critic_step(self, real: Array, fake: Array) -> tuple[Array, Array, Array]:
        """One Adam step of the critic on real and generated rows; returns its scores of both, and slopes, before it."""
        scores = self.critic(ops.concatenate((real, fake)))
        d_real, d_fake = scores[: len(real)], scores[len(real) :]
        s = slopes(self.critic, real, fake, self.rng, self.settings.slope, self.settings.where)
        loss = self.game.critic(d_real, d_fake, real, fake) + self.settings.lambda_ * self.penalty(s)
        self.critic_adam.step(grad(loss, self.critic.parameters()))
        self.constrain(self.critic, self.settings.clip)
        return d_real.array, d_fake.array, s.array

    def generator_step(self) -> None:
        """One Adam step of the generator against the present critic."""
        noise = self.draw_noise(self.settings.batch_size)
        loss = self.game.generator(self.critic(self.generator(noise)))
        self.generator_adam.step(grad(loss, self.generator.parameters()))

    def draw_noise(self, n: int) -> Array:
        """Fresh noise (n, noise_dim), float32, on the device."""
        return kernel(self.noise)(self.rng, (n, self.settings.noise_dim))

    def generate(self, n: int) -> Array:
        """n samples (n, dim) of the present generator, from fresh noise."""
        return outputs(self.generator, self.draw_noise(n))

    def state(self) -> dict[str, Tensor]:
        """The Tensors whose arrays ``device_steps`` reads and changes, by name."""
        tensors = {"ema.step": self.ema_step}
        nets = {"critic": self.critic, "generator": self.generator}
        if self.settings.average:
            nets["ema"] = self.ema
        for name, network in nets.items():
            tensors |= {f"{name}.{parameter}": p for parameter, p in network.named_parameters().items()}
        for name, adam in (("critic", self.critic_adam), ("generator", self.generator_adam)):
            for moment, held in (("m", adam.m), ("v", adam.v)):
                tensors |= {f"{name}.{moment}.{p}": x for p, x in zip(nets[name].named_parameters(), held)}
            tensors |= {f"{name}.t": adam.t, f"{name}.lr": adam.rate}
        if self.settings.constraint == "spectral":
            for i, layer in enumerate(self.critic.layers, 1):
                tensors |= {f"critic.spectral.u{i}": layer.u, f"critic.spectral.v{i}": layer.v}
        return tensors

    def restore(self, arrays: dict[str, Array]) -> None:
        """Set the arrays of ``state``; the generator ``rng``, and the number of iterations, are set separately."""
        for name, tensor in self.state().items():
            if arrays[name].shape != tensor.shape:
                raise ValueError(f"restore: {name} is {arrays[name].shape}; expected {tensor.shape}")
            tensor.array[...] = backend.on_device(arrays[name])
            note_write(tensor)

    def check_finite(self) -> None:
        """Raises DivergenceError where an array of ``state`` is not finite (on the GPU this waits for the device)."""
        for name, x in self.state().items():
            if not backend.xp.isfinite(x.array).all():
                what = f"the {name.partition('.')[0]}'s parameters are" if x.requires_grad else f"{name} is"
                raise DivergenceError(f"training diverged: {what} no longer finite")


@kernel
def part(rows: Array, start: int, stop: int) -> Array:
    return rows[start:stop]


@kernel
def update_ema(average: Array, x: Array, step: Array) -> None:
    change = x - average
    change *= step
    average += change


@kernel
def l1_and_mean_slope(d_real: Array, d_fake: Array, s: Array) -> Array:
    """L1 and the mean slope."""
    l1 = (d_fake.sum() - d_real.sum()) / len(d_real)  # mean() of a few numbers takes four times as long
    return backend.xp.stack((l1, s.sum() / len(s)))


def outputs(network: MLP, rows: Array) -> Array:
    """What a network makes of rows (n, ...), float32: an array, without a record."""
    with no_grad():
        return network(rows).array


def networks(settings: Settings, dim: int, rng: numpy.random.Generator) -> tuple[MLP, MLP]:
    """A new critic, (n, dim) to (n, 1), and a new generator, (n, noise_dim) to (n, dim)."""
    layer, _ = CONSTRAINTS[settings.constraint]
    kind: dict[str, Any] = {"hidden": settings.hidden, "init": settings.init, "rng": rng}
    critic = MLP([dim, *settings.critic, 1], output=settings.critic_output, layer=layer, **kind)
    generator = MLP([settings.noise_dim, *settings.generator, dim], output=settings.output, **kind)
    return critic, generator


class DivergenceError(ArithmeticError):
    """A metric or a parameter is NaN or infinite; the message says what."""
