"""Images of one's own: besides folders of IDX files, arrays in .npy or .npz files, and folders of pictures.

A source has a split "train", and if it can be judged by, a split "t10k" of test images:

- a folder of IDX files, as MNIST's;
- an .npy file: an array (n, height, width), uint8 or floats in [0, 1]; or with colours, (n, height, width, 3), or with
  rows of square images, (n, side * side). Training images only;
- an .npz file of such arrays, by the names in use: ``train_images``, ``x_train``, ``images``, ... and ``test_images``,
  ``x_test``, with labels ``train_labels``, ``y_train``, ...; or of a single one. None is chosen by its place;
- a folder of pictures (PNG, JPEG, ...), in the order of their names, each made gray, cut to a square and brought to a
  size. Folders ``train`` and ``test`` in it are the splits, and folders inside of these, or of it, the classes.
"""

import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy
from PIL import Image, ImageOps
from tqdm import tqdm

from .. import data
from ..data import DataError, reading
from ..settings import Number

SIZE = 28
SIZES = Number(int, 1, 2049)  # pixels each way that pictures can be brought to
PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
MOST = 50_000_000  # pixels of a picture
NAMES = {"train": "train", "t10k": "test"}  # of the splits, outside of IDX files
FOLDERS = {"train": ("train", "training"), "t10k": ("test", "testing", "val", "valid", "validation")}
IMAGES, LABELS = ("images", "imgs", "data", "x", "arr_0"), ("labels", "targets", "y")  # as arrays are called
GRAY = numpy.array([299, 587, 114]) / 1000  # of red, green, blue: ITU-R BT.601, as Pillow's


def load_images(source: Path, split: str = "train", size: int | None = None) -> numpy.ndarray:
    """The images of a split: (n, height, width), uint8; pictures are brought to ``size`` (28 if None) each way.

    Raises DataError where there are none, or where they are damaged or not of the kinds above; single pictures that
    cannot be read are left out, and named on standard error.
    """
    if source.suffix in (".npy", ".npz"):
        if size:
            raise DataError(f"{source}: is an array; a size can be chosen for folders of pictures")
        return _gray(source, _array(source, split, IMAGES))
    if not has_pictures(source):
        if size and source.exists():
            raise DataError(f"{source}: a size can be chosen for folders of pictures, and there are none")
        return data.load_images(source, split)
    images, bad = [], []
    paths = _paths(source, split)
    for path in tqdm(paths, desc=f"{split} pictures", unit="", disable=None, leave=False):
        try:
            images.append(_picture(path, size or SIZE))
        except Exception:  # whatever a parser makes of other bytes
            bad.append(path)
    if not images:
        raise DataError(f"{source}: none of its {len(paths)} {NAMES[split]} pictures can be read")
    if bad:
        named = ", ".join(str(path).replace("\n", " ") for path in bad[:3]) + (", ..." if len(bad) > 3 else "")
        tqdm.write(f"{len(bad)} of {len(paths)} pictures cannot be read and are left out: {named}", file=sys.stderr)
    return numpy.stack(images)


def load_labels(source: Path, split: str = "train") -> numpy.ndarray:
    """The classes of those images: (n,), uint8. Raises DataError."""
    if source.suffix in (".npy", ".npz"):
        labels = _array(source, split, LABELS)
        right = labels.dtype.kind in "iu" and labels.size and labels.shape[:1] == (labels.size,)
        if not right or not 0 <= labels.min() <= labels.max() < 256:
            raise DataError(f"{source}: expected labels (n,) from 0 to 255, got {labels.dtype} {labels.shape}")
        return labels.reshape(-1).astype("uint8")
    if not has_pictures(source):
        return data.load_labels(source, split)
    folders = [path.parent.relative_to(_root(source, split)) for path in _paths(source, split) if _readable(path)]
    classes = sorted({path.parent.relative_to(_root(source, "train")) for path in _paths(source, "train")})
    if len(classes) < 2 or len(classes) > 256:
        raise DataError(f"{source}: expected 2 to 256 folders of pictures, one for each class, got {len(classes)}")
    if unknown := set(folders) - set(classes):
        raise DataError(f"{source}: has no training pictures of the class {min(unknown)}")
    return numpy.array([classes.index(folder) for folder in folders], "uint8")


def beside(source: Path, name: str) -> Path:
    """Where a file that belongs to a source lies: in its folder, or beside its file."""
    return source.with_name(f"{source.stem}.{name}") if source.suffix in (".npy", ".npz") else source / name


def has_pictures(source: Path) -> bool:
    return not any(source.glob("*-ubyte*")) and any(_pictures(source))


def _pictures(folder: Path) -> Iterator[Path]:
    """All pictures in a folder and those below it, links to folders too, but for hidden ones, as of an editor."""
    seen = set()
    for at, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        if (real := os.path.realpath(at)) not in seen:  # a link may lead back to where it is
            seen.add(real)
            yield from (Path(at, name) for name in files if name[0] != "." and name.lower().endswith(PICTURES))
        else:
            folders.clear()


def _root(source: Path, split: str) -> Path:
    """The folder of a split: the one that is called so; or all, where there are no such folders."""
    found = {name: [p for p in source.iterdir() if p.is_dir() and p.name.lower() in FOLDERS[name]] for name in FOLDERS}
    if not found["train"] or not found["t10k"]:
        if split != "train" or found["t10k"]:
            raise DataError(f"{source}: expected folders train and test in it, for pictures to judge by")
        return found["train"][0] if found["train"] else source
    return min(found[split], key=lambda path: FOLDERS[split].index(path.name.lower()))


def _paths(source: Path, split: str) -> list[Path]:
    return sorted(_pictures(_root(source, split)), key=lambda path: (path.name, path))


def _picture(path: Path, size: int) -> numpy.ndarray:
    with reading(path, "a picture"), warnings.catch_warnings(), Image.open(path) as picture:
        warnings.simplefilter("ignore")
        if math.prod(picture.size) > MOST:
            raise DataError(f"{path}: has more than {MOST:,} pixels")
        picture = ImageOps.exif_transpose(picture)
        if picture.mode[0] in "IF":  # 16 bits, or floats: Pillow would cut them off at 255
            x, most = numpy.asarray(picture, "float64"), 1 if picture.mode == "F" else 65535
            if not 0 <= x.min() <= x.max() <= most:
                raise ValueError(f"its pixels are not from 0 to {most}")
            picture = Image.fromarray((x * 255 / most).round().astype("uint8"))
        if "A" in picture.getbands() or "transparency" in picture.info:  # as it is seen on white
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        gray = picture.convert("L")
        return numpy.asarray(gray if gray.size == (size, size) else ImageOps.fit(gray, (size, size)))


def _readable(path: Path) -> bool:
    try:
        _picture(path, 1)
    except Exception:
        return False
    return True


def _array(source: Path, split: str, kinds: tuple[str, ...]) -> numpy.ndarray:
    """The array of a split by its name; of images to train on, a single one of any name but a test set's."""
    with reading(source, "a file of arrays"), open(source, "rb") as file:
        held = numpy.load(file, allow_pickle=False)
        if isinstance(held, numpy.ndarray):
            held = {"train_images": held}
        of = NAMES[split]
        known = [name for kind in kinds for name in (f"{of}_{kind}", f"{kind}_{of}")]
        known += kinds if split == "train" else ()
        found = sorted((n for n in held if n.lower() in known), key=lambda n: known.index(n.lower()))
        if not found and split == "train" and kinds is IMAGES and len(held) == 1 and "test" not in min(held).lower():
            found = list(held)
        if not found:
            raise DataError(f"{source}: expected an array {of}_{kinds[0]} in it, got {', '.join(held) or 'none'}")
        array = held[found[0]]
        if not isinstance(array, numpy.ndarray):
            raise ValueError(f"its member {found[0]} is no array")
        return array


def _gray(source: Path, x: numpy.ndarray) -> numpy.ndarray:
    side = math.isqrt(x.shape[1]) if x.ndim == 2 else 0
    if side and side**2 == x.shape[1]:
        x = x.reshape(-1, side, side)
    colours = x.ndim == 4 and x.shape[3] == 3
    if not (x.ndim == 3 or colours) or 0 in x.shape:
        raise DataError(f"{source}: expected images (n, height, width), got {x.shape}")
    if x.dtype.kind == "f" and 0 <= x.min() <= x.max() <= 1:
        x = x * 255
    elif x.dtype != numpy.uint8:
        found = f" from {x.min()} to {x.max()}" if x.dtype.kind in "iuf" else ""
        raise DataError(f"{source}: expected uint8, or floats from 0 to 1, got {x.dtype}{found}")
    x = x @ GRAY if colours else x
    return numpy.ascontiguousarray(x.round().astype("uint8"))
