"""The images to train on, as people have them.

A source has a split "train", and for the evaluation of samples also a split "test", with classes. A source is

- a folder of IDX files, as MNIST's: ``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``, ..., gzipped or not;
- an .npy file: an array (n, height, width), of numbers from 0 to 255, or floats from 0 to 1; or with an axis of one or
  three colours, behind the first or last; or with rows of square images, (n, side * side). Training images only;
- an .npz file of such arrays, by their usual names: ``train_images``, ``x_train``, ``images``, ... and ``test_images``,
  ``x_test``, with labels ``train_labels``, ``y_train``, ...; or the only one of images. None is chosen by its position;
- a folder of pictures (PNG, JPEG, ...), in the order of their names, each made gray, cropped to a square and resized.
  Folders in it whose names begin with ``train`` and with ``test`` or ``val`` are the splits; folders inside these, or
  directly in it, are classes. A folder that holds but one folder stands for that; what a system keeps is left out.
"""

import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy
from PIL import Image, ImageOps
from tqdm import tqdm

from .. import data
from ..data import MNIST, DataError, reading
from ..settings import Number

SIZE = 28
SIZES = Number(int, 1, 2049)  # pixels each way that pictures can be resized to
PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2")
PICTURES = (*PICTURES, ".tga", ".ico", ".pbm", ".pgm", ".ppm", ".pnm")  # type: ignore[assignment]
MOST = 50_000_000  # pixels of a picture
ARRAYS = (".npy", ".npz")
SYSTEMS = ("__MACOSX", "lost+found", "System Volume Information")  # folders; others begin with one of . @ # $
SPLITS = {"train": ("train",), "test": ("test", "val")}  # how names of folders begin, and of arrays, or end
IMAGES, LABELS = ("images", "imgs", "data", "x", "arr_0"), ("labels", "targets", "y")  # names of arrays
BLOCK = 100  # images that are converted at a time
GRAY = numpy.array([299, 587, 114]) / 1000  # weights of red, green, blue: ITU-R BT.601, as Pillow's


def load_images(source: Path | str = MNIST, split: str = "train", size: int | None = None) -> numpy.ndarray:
    """The images of a split: (n, height, width), uint8; pictures are resized to ``size`` (28 if None) each way.

    Raises DataError where there are no images, or all pixels are equal, or files are damaged or not of the kinds above;
    single pictures that cannot be read are left out, and named on standard error.
    """
    source = Path(source)
    kind = kind_of(source)
    if size and kind != "pictures":
        raise DataError(f"{source}: a size can be chosen for folders of pictures, and this has {kind}")
    if kind == "pictures":
        images = _pictures(source, split, size or SIZE)
    elif kind == "arrays":
        images = _gray(source, _array(source, split, IMAGES))
    else:
        images = data.load_images(source, split)
    if images.min() == images.max():
        raise DataError(f"{source}: all pixels of its {split} images are {images.min()}; there is nothing to be seen")
    return images


def load_labels(source: Path | str = MNIST, split: str = "train") -> numpy.ndarray:
    """The classes of the images of a split, (n,): their names, whole numbers or text.

    Raises DataError where they are missing or damaged.
    """
    source = Path(source)
    kind = kind_of(source)
    if kind == "pictures":
        return _classes(source, split)
    if kind == "IDX files":
        return data.load_labels(source, split)
    labels = _array(source, split, LABELS)
    if labels.dtype.kind not in "iubUS" or not labels.size or labels.shape[:1] != (labels.size,):
        raise DataError(f"{source}: expected labels (n,), whole numbers or names, got {labels.dtype} {labels.shape}")
    return labels.reshape(-1)


def kind_of(source: Path) -> str:
    """The kind of a source: "arrays", "IDX files" or "pictures". Raises DataError for anything else."""
    try:
        is_file = source.is_file()
    except OSError as error:  # for example for a name that is too long
        raise DataError(f"{str(source)[:100]}...: {error.strerror}") from None
    if source.suffix in ARRAYS and is_file:
        return "arrays"
    taken = "a folder of IDX files (train-images-idx3-ubyte) or of pictures (.png, .jpg, ...), or an .npy or .npz file"
    if not source.is_dir():
        found = "is a file of another kind" if is_file else "there is no such file or folder"
        one = "IDX file" if "-ubyte" in source.name else "picture" if source.name.lower().endswith(PICTURES) else ""
        found = f"is one {one}; its folder is what to give" if one and is_file else found
        raise DataError(f"{source}: {found}; expected {taken}")
    if any(source.glob("*-ubyte*")):
        return "IDX files"
    if any(map(_is_picture, _files(source))):
        return "pictures"
    names = sorted(path.name for path in source.iterdir())
    held = f"holds {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "is empty"
    raise DataError(f"{source}: {held}; expected {taken}")


def nearby(source: Path, name: str) -> Path:
    """The path of a file that belongs to a source: in the source's folder, or next to the source's file."""
    return source.with_name(f"{source.stem}.{name}") if source.suffix in ARRAYS else source / name


def read_arrays(path: Path) -> dict[str, numpy.ndarray]:
    """All arrays of an npz file; to be called inside ``reading``."""
    with open(path, "rb") as file:
        return dict(numpy.load(file, allow_pickle=False))


# --- Arrays -------------------------------------------------------------------------------------


def _array(source: Path, split: str, kinds: tuple[str, ...]) -> numpy.ndarray:
    """The array of a split by its name; for training images also a single array, if not named as labels or test."""
    with reading(source, "a file of arrays"), open(source, "rb") as file:
        if (begins := file.read(4)) not in (b"\x93NUM", b"PK\x03\x04"):
            raise DataError(f"{source}: not a file of arrays: it begins with {begins!r}")
        file.seek(0)
        arrays = numpy.load(file, allow_pickle=False)
        if isinstance(arrays, numpy.ndarray):
            arrays = {"train_images": arrays}
            if (split, kinds) != ("train", IMAGES):
                raise DataError(
                    f"{source}: holds training images only; expected an .npz file, for test images and labels"
                )
        words = ("test", "val", "valid", "validation") if split == "test" else (split,)
        names = [name for word in words for kind in kinds for name in (f"{word}_{kind}", f"{kind}_{word}")]
        names += words if kinds is IMAGES else ()
        names += kinds if split == "train" else ()
        found = sorted((n for n in arrays if n.lower() in names), key=lambda n: names.index(n.lower()))
        if not found and split == "train" and kinds is IMAGES:  # the only array of images, by whatever name
            found = [name for name in arrays if not re.search("test|val|label|target|^y", name.lower())]
            found = [name for name in found if len(found) == 1 or numpy.ndim(arrays[name]) > 2]
            found = found if len(found) == 1 else []
        if not found:
            raise DataError(f"{source}: expected an array {split}_{kinds[0]} in it, got {', '.join(arrays) or 'none'}")
        array = arrays[found[0]]
        if not isinstance(array, numpy.ndarray):
            raise ValueError(f"its member {found[0]} is no array")
        return array


def _gray(source: Path, x: numpy.ndarray) -> numpy.ndarray:
    """Images (n, height, width), uint8, of an array of any shape and type that people have them in."""
    shape = x.shape
    if x.ndim == 4 and 1 in (x.shape[1], x.shape[3]):
        x = x[:, 0] if x.shape[1] == 1 else x[:, :, :, 0]
    elif x.ndim == 4 and x.shape[1] == 3 != x.shape[3]:
        x = numpy.moveaxis(x, 1, 3)
    side = math.isqrt(math.prod(x.shape[1:]))
    if (x.ndim == 2 or (x.ndim == 3 and 1 in x.shape[1:])) and side**2 == math.prod(x.shape[1:]):
        x = x.reshape(-1, side, side)
    colours = x.ndim == 4 and x.shape[3] == 3
    picture = len(shape) == 3 and shape[2] in (3, 4) and shape[0] < 10 * shape[1]  # and no long row of small images
    if not (colours or x.ndim == 3) or picture or 0 in x.shape:
        one = ", which may be one picture in colours" if picture else ""
        raise DataError(f"{source}: expected images (n, height, width), got {shape}{one}")
    if len(x) < max(x.shape[1:]):
        raise DataError(
            f"{source}: {x.shape} would be {len(x)} images of {x.shape[2]} x {x.shape[1]}; expected more of them than"
            " pixels each way, and the axis that counts them first"
        )
    kind = x.dtype.kind
    low, high = (x.min(), x.max()) if kind in "biuf" else (math.nan, math.nan)
    unit = kind == "b" or (kind == "f" and 0 <= low <= high <= 1)
    if not unit and not (0 <= low <= high <= 255 and (kind != "f" or high >= 2)):
        found = f"{x.dtype} from {low} to {high}"
        raise DataError(f"{source}: expected numbers from 0 to 255, or floats from 0 to 1, got {found}")
    if x.dtype == numpy.uint8 and not colours:
        return numpy.ascontiguousarray(x)
    images = numpy.empty(x.shape[:3], "uint8")
    for start in range(0, len(x), BLOCK):  # so that what lies between takes no memory to speak of
        part = x[start : start + BLOCK] * (255 if unit else 1)
        images[start : start + BLOCK] = (part @ GRAY if colours else part).round()
    return images


# --- Pictures -----------------------------------------------------------------------------------


def _files(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, linked folders included, and what is hidden or a system's excluded."""
    seen = set()
    for at, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
        folders[:] = filter(_visible, folders)
        if (real := os.path.realpath(at)) not in seen:  # a link may lead back to a folder above the link
            seen.add(real)
            yield from (Path(at, name) for name in filter(_visible, files))
        else:
            folders.clear()


def _visible(name: str) -> bool:
    return name[0] not in ".@#$" and name not in SYSTEMS


def _is_picture(path: Path) -> bool:
    return path.name.lower().endswith(PICTURES)


def _unreadable(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename}: {error.strerror}")


def _inside(folder: Path) -> Path:
    """The folder itself, or, where it holds nothing but one folder, that one, and so on."""
    inside = [path for path in folder.iterdir() if _visible(path.name)]
    return _inside(inside[0]) if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink() else folder


def _root(source: Path, split: str) -> Path:
    """The folder of a split, found by how its name begins; for training all, where no folders are named so."""
    source = _inside(source)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and _visible(path.name))
    found = {name: [p for p in folders if p.name.lower().startswith(words)] for name, words in SPLITS.items()}
    if not (found["train"] and found["test"]):
        if split == "train" and not found["test"]:
            return source  # one that is named train is then a class, or all that there is
        raise DataError(f"{source}: expected folders train and test in it, for pictures to judge by")
    first = [p for word in SPLITS[split] for p in found[split] if p.name.lower().startswith(word)]
    exact = [p for word in SPLITS[split] for p in first if p.name.lower() == word] or first
    if len({p.name.lower()[:4] for p in exact[:2]}) == 1 and len(exact) > 1:
        raise DataError(f"{source}: holds {exact[0].name} and {exact[1].name}; which of them is for {split}?")
    return _inside(exact[0])


def _paths(source: Path, split: str) -> list[Path]:
    return sorted(filter(_is_picture, _files(_root(source, split))), key=lambda path: (path.name, path))


def _pictures(source: Path, split: str, size: int) -> numpy.ndarray:
    images, bad = [], []
    paths = _paths(source, split)
    for path in tqdm(paths, desc=f"{split} pictures", unit="", disable=None, leave=False):
        try:
            images.append(_picture(path, size))
        except DataError as error:
            bad.append(" ".join(str(error).splitlines()))
    named = "; ".join(bad[:3]) + ("; ..." if len(bad) > 3 else "")
    if not images:
        raise DataError(f"{source}: none of its {len(paths)} {split} pictures can be read: {named}")
    if bad:
        tqdm.write(f"{len(bad)} of {len(paths)} pictures cannot be read and are left out: {named}", file=sys.stderr)
    if others := Counter(path.suffix for path in _files(_root(source, split)) if not _is_picture(path)):
        kinds = ", ".join(f"{n} {suffix or 'without a suffix'}" for suffix, n in others.most_common(3))
        tqdm.write(f"{others.total()} other files are left out: {kinds}", file=sys.stderr)
    return numpy.stack(images)


def _classes(source: Path, split: str) -> numpy.ndarray:
    folders = [path.parent.relative_to(_root(source, split)) for path in _paths(source, split) if _readable(path)]
    classes = sorted({path.parent.relative_to(_root(source, "train")) for path in _paths(source, "train")})
    if len(classes) < 2 or len(classes) > 256:
        raise DataError(f"{source}: expected 2 to 256 folders of pictures, one for each class, got {len(classes)}")
    if unknown := set(folders) - set(classes):
        raise DataError(f"{source}: has no training pictures of the class {min(unknown)}")
    return numpy.array([classes.index(folder) for folder in folders])


def _picture(path: Path, size: int) -> numpy.ndarray:
    with reading(path, "a picture"), warnings.catch_warnings(), Image.open(path) as opened:
        warnings.simplefilter("ignore")
        if math.prod(opened.size) > MOST:
            raise DataError(f"{path}: has more than {MOST:,} pixels")
        picture: Image.Image = ImageOps.exif_transpose(opened)
        if picture.mode[0] in "IF":  # 16 bits, or floats: Pillow would clip these at 255
            x, most = numpy.asarray(picture, "float64"), 1 if picture.mode == "F" else 65535
            if not 0 <= x.min() <= x.max() <= most:
                raise DataError(f"{path}: its pixels are from {x.min():g} to {x.max():g}, and not from 0 to {most}")
            picture = Image.fromarray((x * 255 / most).round().astype("uint8"))
        if "A" in picture.getbands() or "transparency" in picture.info:  # drawn on white
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        gray = picture.convert("L")
        return numpy.asarray(gray if gray.size == (size, size) else ImageOps.fit(gray, (size, size)))


def _readable(path: Path) -> bool:
    try:
        _picture(path, 1)
    except DataError:
        return False
    return True


def in_unit_range(x: numpy.ndarray) -> numpy.ndarray:
    """Images, uint8 or floats in [0, 1], as float32 in [0, 1]."""
    y = x.astype("float32", copy=False)
    return y / numpy.float32(255) if x.dtype == numpy.uint8 else y
