"""The flags of ``run_mnist.py``: those of a run, and one for each setting, by its default, its values and its help."""

from argparse import SUPPRESS, Namespace
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from ..choices import Choices
from ..settings import COUNT, PRESETS, Number, Settings
from .cli import Parser, number, path
from .images import SIZES

# The modes that begin no new run, and the settings that each takes: in all else it goes by the run's.
LENGTHS = ("iterations", "sample_every", "evaluate_every")
MODES = {"resume": LENGTHS, "report": (), "evaluate": ("seed",), "generate": ("seed",)}


def parse(argv: list[str] | None) -> tuple[Parser, Namespace, dict[str, Any]]:
    """The parser, the flags of this program, and the settings that were given."""
    parser = Parser(
        prog="run_mnist.py",
        description="Train a WGAN-GP on MNIST and watch the digits appear, or generate digits from a trained one.",
        epilog="In brackets: the default, and after it what another --preset has instead.",
        argument_default=SUPPRESS,
    )
    count, add, instead = number(COUNT), parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("--device", choices=("cpu", "gpu"), help="NumPy or CuPy [cpu]")
    add("--workers", type=count, metavar="N", help="threads that share the hidden units of an iteration [1]")
    add(
        "--threads",
        type=count,
        metavar="N",
        help="of the matrix library [of half the cores, those that the sizes can use; 1 for each worker]",
    )
    add("--no-replay", action="store_true", help="run each iteration anew, instead of replaying a recorded one")
    add("--graph", action="store_true", help="on the GPU, replay an iteration as one CUDA graph (needs cuTENSOR)")
    add("--data", type=path, metavar="DATA", help="folder of IDX files or pictures, or .npy or .npz file [MNIST]")
    add("--size", type=number(SIZES), metavar="N", help="pixels each way that pictures are brought to [28]")
    add("--out", type=path, metavar="DIR", help="folder for all that the run leaves [out]")
    instead("--resume", action="store_true", help="go on with the run in --out, from its checkpoint")
    instead("--report", action="store_true", help="no training: the pictures and the page of the run in --out, anew")
    instead("--evaluate", action="store_true", help="no training: how good its samples are; and the page")
    instead("--generate", type=count, metavar="N", help="no training: N samples from the checkpoint")
    add("--preset", choices=PRESETS, help="where the settings below start from: digits fast, or well, or the article's")
    defaults = {"device": "cpu", "out": Path("out"), "preset": "default"}
    defaults |= dict.fromkeys(("workers", "threads", "no_replay", "graph", "data", "size", *MODES))  # None: not given
    add_settings(parser)

    given = vars(parser.parse_args(argv))
    mode = next((name for name in MODES if name in given), "")
    for action in parser._actions if mode else ():
        if action.dest in {"preset", *vars(Settings())} & given.keys() - {*MODES[mode]}:
            parser.error(f"--{mode} takes no {action.option_strings[0]}: it goes by the settings of the run")
    args = Namespace(mode=mode, **{name: given.pop(name, default) for name, default in defaults.items()})
    if args.graph and args.device == "cpu":
        parser.error("--graph records what runs on a GPU; it needs --device gpu")
    return parser, args, {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def add_settings(parser: Parser) -> None:
    """Add a flag for each setting; its help has the default in brackets, and the values of presets that differ."""
    for setting in fields(Settings):
        (_, default), *others = [(label, getattr(preset, setting.name)) for label, preset in PRESETS.items()]
        shown = [text(default), *(f"{label}: {text(value)}" for label, value in others if value != default)]
        words, kind = _kind(setting, setting.metadata["allowed"])
        parser.add_argument(
            flag(setting),
            dest=setting.name,
            default=SUPPRESS,
            help=f"{setting.metadata['help']}{words} [{', '.join(shown)}]",
            **kind,
        )


def flag(setting: Field) -> str:
    return f"--{setting.name.rstrip('_').replace('_', '-')}"


def _kind(setting: Field, allowed: Number | Choices) -> tuple[str, dict[str, Any]]:
    """The list of a setting's choices, for the help, and argparse's arguments for parsing the setting."""
    if isinstance(allowed, Choices):
        read = {"type": lambda word: None if word == "none" and None in allowed else word, "choices": list(allowed)}
        return f": {', '.join(map(text, allowed))}", {"metavar": "NAME", **read}
    nargs = 2 if setting.name == "betas" else "*" if isinstance(setting.default, tuple) else None
    return "", {"metavar": "N" if allowed.kind is int else "X", "type": number(allowed), "nargs": nargs}


def text(value: Any) -> str:
    """A setting's value as typed on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
