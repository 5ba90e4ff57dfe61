"""A run's settings and networks in one file."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy

from .. import backend
from ..data import DataError
from ..nn import MLP
from ..settings import Settings
from ..tensor import Tensor
from ..tools.files import replacing
from ..training import networks

VERSION = 1


@dataclass
class Checkpoint:
    """Two networks after ``iteration`` iterations on images of ``shape`` (height, width)."""

    settings: Settings
    iteration: int
    shape: tuple[int, int]
    critic: MLP
    generator: MLP


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write an npz file: a JSON header, and the parameters as ``critic.0``, ``critic.1``, ..., ``generator.0``, ..."""
    header = {
        "version": VERSION,
        "settings": asdict(checkpoint.settings),
        "iteration": checkpoint.iteration,
        "shape": checkpoint.shape,
    }
    arrays = {name: backend.to_numpy(p) for name, p in _parameters(checkpoint.critic, checkpoint.generator)}
    with replacing(path) as part:
        numpy.savez(part, header=json.dumps(header), **arrays)


def load(path: Path) -> Checkpoint:
    """Read what ``save`` wrote, onto the device in use. Raises DataError where that cannot be done."""
    try:
        with open(path, "rb") as raw, numpy.load(raw, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["version"] != VERSION:
                raise DataError(f"{path}: has version {header['version']}; expected {VERSION}")
            settings = {name: tuple(v) if isinstance(v, list) else v for name, v in header["settings"].items()}
            checkpoint = Checkpoint(Settings(**settings), int(header["iteration"]), tuple(header["shape"]), None, None)
            height, width = checkpoint.shape
            checkpoint.critic, checkpoint.generator = networks(checkpoint.settings, height * width)
            for name, p in _parameters(checkpoint.critic, checkpoint.generator):
                if file[name].shape != p.shape:
                    raise DataError(
                        f"{path}: is of another network: {name} is {file[name].shape}; its settings say {p.shape}"
                    )
                p.data = backend.asarray(file[name], dtype=p.dtype)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a checkpoint, or a damaged one ({error})") from None
    return checkpoint


def _parameters(critic: MLP, generator: MLP) -> Iterator[tuple[str, Tensor]]:
    for name, network in (("critic", critic), ("generator", generator)):
        for i, p in enumerate(network.parameters()):
            yield f"{name}.{i}", p
