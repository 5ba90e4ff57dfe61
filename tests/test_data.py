"""The images to train on: IDX files, arrays, archives and folders of pictures, whole and damaged."""

import gzip
import hashlib
import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

import run_mnist
from minigan.data import DataError, sampler
from minigan.judge import Judge
from minigan.judge import __main__ as judge
from minigan.run import load
from minigan.run.cli import unbroken_output
from minigan.run.files import in_memory
from minigan.run.images import load_images, load_labels
from tests.running import TINY, fails, link, run

X = np.random.default_rng(0).integers(0, 256, (120, 6, 5), dtype="uint8")
Y = np.arange(120, dtype="uint8") % 3
SQUARE = X[:, :5]


def idx(shape=(5, 4, 3), data=None, kind=8, zeros=b"\0\0"):
    """The bytes of an IDX file, with anything in it made wrong on request."""
    data = np.arange(np.prod(shape), dtype="uint8").tobytes() if data is None else data
    return zeros + bytes([kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + data


def npy(array):
    return in_memory(np.save, array)


def npz(**arrays):
    return in_memory(np.savez, **arrays)


def pictures(folder, images, labels=None):
    for i, image in enumerate(images):
        inside = folder if labels is None else folder / f"class{labels[i]}"
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(inside / f"{i:04d}.png")
    return folder


def check(source, images, labels, split="train", size=None):
    np.testing.assert_array_equal(load_images(source, split, size), images)
    np.testing.assert_array_equal(load_labels(source, split), labels)


def refused(source, message, load=load_images):
    with pytest.raises(DataError, match=f"^{re.escape(str(source))}: {message}") as error:
        load(source)
    assert "\n" not in str(error.value)


# --- IDX files ----------------------------------------------------------------------------------


def test_mnist_loads_as_published():
    """By the SHA-256 of its files, uncompressed."""
    arrays = [load(split=split) for split in ("train", "test") for load in (load_images, load_labels)]
    assert [hashlib.sha256(idx(a.shape, a.tobytes())).hexdigest() for a in arrays] == [
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ]


def test_any_folder_and_any_image_size(tmp_path):
    (tmp_path / "c" / "train-images-idx3-ubyte").mkdir(parents=True)  # as Kaggle's has
    for name, content in {
        "a/train-images-idx3-ubyte": idx(),
        "b/train-images-idx3-ubyte.gz": gzip.compress(idx()),
        "c/train-images.idx3-ubyte": idx(),
        "d/train-images.idx3-ubyte.gz": gzip.compress(idx()[:20]) + gzip.compress(idx()[20:]),
        "e/train-images-idx3-ubyte.gz": idx(),
        "f/train-images-idx3-ubyte": gzip.compress(idx()),
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        np.testing.assert_array_equal(load_images(path.parent), np.arange(60).reshape(5, 4, 3))


BEGINS, HOLDS = "expected it to begin with 0, 0, 8", r"the header announces \({}\) bytes of data, the file holds"
DAMAGED = (
    (b"", BEGINS),
    (b"\0PNG" + bytes(100), BEGINS),
    (idx(kind=0x0D), BEGINS),
    (idx((60,)), BEGINS),
    (idx()[:11], HOLDS.format(".*")),
    (idx((0, 4, 3)), HOLDS.format("0, 4, 3")),
    (idx()[:-1], HOLDS.format("5, 4, 3") + " 59"),
    (idx() + b"x", HOLDS.format("5, 4, 3") + " 61"),
    (idx((2**31, 2**20, 2**12), b"x"), HOLDS.format(".*")),
)


def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path):
    good, inside = gzip.compress(idx()), "not an IDX file, or a damaged one"
    told = [(bad, f"{inside} .{message}") for bad, message in DAMAGED]
    cases = [("", *case) for case in told] + [(".gz", gzip.compress(bad, 1), message) for bad, message in told]
    cases += [(".gz", bad, "") for bad in (good[:-9], good[:30] + b"\xff" * 9 + good[39:])]
    for suffix, content, message in cases:
        path = tmp_path / f"train-images-idx3-ubyte{suffix}"
        path.write_bytes(content)
        refused(path, message, lambda path: load_images(path.parent))
        path.unlink()


def test_a_missing_file_or_folder_is_named(tmp_path):
    for name in ("empty", "held", "held/c"):
        (tmp_path / name).mkdir()
    for name in ("a.csv", "train-images-idx3-ubyte", "held/b.csv", "held/d", "held/e"):
        (tmp_path / name).touch()
    link(tmp_path / "link", "nothing")
    for name, found in {
        "nowhere": "there is no such file or folder",
        "nowhere.npy": "there is no such file or folder",
        "link": "there is no such file or folder",
        "a.csv": "is a file of another kind",
        "train-images-idx3-ubyte": "is one IDX file; its folder is what to give",
        "empty": "is empty",
        "held": "holds b.csv, c, d, ...",
    }.items():
        taken = r"expected a folder of IDX files \(train-images-idx3-ubyte\) or of pictures"
        refused(tmp_path / name, f"{found}; {taken}")
    refused(tmp_path, "expected a folder with a file train-labels-idx1-ubyte or", load_labels)


def test_batches_are_drawn_as_rows_of_pixels():
    images = np.arange(256, dtype="uint8").repeat(2).reshape(256, 1, 2)
    batch = sampler(images)(10_000, np.random.default_rng(0))
    assert (batch.shape, batch.dtype) == ((10_000, 2), "float32")
    np.testing.assert_array_equal(batch[:, 0], batch[:, 1])
    np.testing.assert_allclose(np.unique(batch) * 255, np.arange(256), rtol=1e-6)


# --- Arrays -------------------------------------------------------------------------------------


TINY_IMAGES = [  # of three or four pixels each way, as quantum circuits take them
    (np.resize(X, (40, 4, 4)), [(4, 4), (16,), (4, 4, 1), (1, 4, 4)]),
    (np.resize(X, (40, 3, 3)), [(3, 3), (9,)]),
]


def test_arrays(tmp_path):
    for array, expected in (
        (X, X),
        (X / 255, X),
        ((X / 255).astype("float32"), X),
        (SQUARE.reshape(120, 25), SQUARE),
        (SQUARE.reshape(120, 1, 25), SQUARE),
        (np.stack([X, X, X], axis=3), X),
        (np.stack([X, 0 * X, 0 * X], axis=3), (0.299 * X).round()),
        (X > 99, 255 * (X > 99)),
        (X.astype("float32"), X),
        (X.astype("int64"), X),
        (X / 100, (X / 100).round()),
        (X[:, :, :, None], X),
        (X[:, None], X),
        (np.stack([X, X, X], axis=1), X),
        (np.asfortranarray(X), X),
        *((small[0].reshape(40, *shape), small[0]) for small in TINY_IMAGES for shape in small[1]),
    ):
        for path, content in ((tmp_path / "a.npy", npy(array)), (tmp_path / "a.npz", npz(arr_0=array))):
            path.write_bytes(content)
            found = load_images(path)
            assert (found.dtype, found.flags.c_contiguous) == ("uint8", True)
            np.testing.assert_array_equal(found, expected)


def test_arrays_are_found_by_their_names(tmp_path):
    path, x, y = tmp_path / "a.npz", X[:9], Y[:9]
    for content in (
        npz(x_test=x, x_train=X, y_test=y, y_train=Y),  # Keras's, in this order
        npz(test_labels=y[:, None], train_images=X, train_labels=Y[:, None], test_images=x),
        npz(val_images=x, x=x, X_test=x, y_test=y, y=Y[::-1], labels=Y, images=X),
        npz(test=x, train=X, train_labels=Y, test_labels=y),
        npz(X_train=X, X_valid=x, y_train=Y, y_valid=y),
    ):
        path.write_bytes(content)
        check(path, X, Y)
        check(path, x, y, "test")


@pytest.mark.parametrize("others", [{}, {"labels": Y}, {"names": Y, "test_x": X[:9]}])
@pytest.mark.parametrize("name", ["input_data", "samples", "digits"])
def test_the_only_array_of_images_by_any_name(name, others, tmp_path):
    (tmp_path / "a.npz").write_bytes(npz(**others, **{name: X}))
    np.testing.assert_array_equal(load_images(tmp_path / "a.npz"), X)


def test_colours_take_no_memory_between(tmp_path):
    np.save(tmp_path / "a.npy", colours := np.ones((4000, 28, 28, 3), "uint8") * np.arange(28, dtype="uint8")[:, None])
    tracemalloc.start()
    assert load_images(tmp_path / "a.npy").shape == (4000, 28, 28)
    assert tracemalloc.get_traced_memory()[1] < 2 * colours.nbytes  # 1.3 are the two
    tracemalloc.stop()


def zipped(file, name, content):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)


def test_archives_without_images_or_labels(tmp_path):
    path, good = tmp_path / "a.npz", npz(train_images=X)
    kinds, named = (
        "expected numbers from 0 to 255, or floats from 0 to 1, got",
        "expected an array train_images in it, got",
    )
    shapes, few = (
        r"expected images \(n, height, width\), got",
        "expected more of them than pixels each way, and the axis",
    )
    labels, other = r"expected labels \(n,\), whole numbers or names, got", "not a file of arrays"
    huge = npy(X).replace(b"(120, 6, 5), }" + b" " * 14, b"(1000000000, 1000, 1000), } ")
    for content, message, *loaded_by in (
        (npy(X.astype("int64") - 1), f"{kinds} int64 from -1 to 254"),
        (npy(X / 200), f"{kinds} float64 from 0.0 to 1.275"),
        (npy(X / 127.5 - 1), f"{kinds} float64 from -1.0 to 1.0"),
        (npy(np.full((5, 5, 5), np.nan)), f"{kinds} float64 from nan"),
        (npy(np.zeros((6, 6, 6), [("a", "u1")])), rf"{kinds} \[\('a', 'u1'\)\] from nan"),
        (npy(np.zeros((40, 5, 5, 2), "uint8")), rf"{shapes} \(40, 5, 5, 2\)"),
        (npy(np.zeros((40, 30, 3), "uint8")), rf"{shapes} \(40, 30, 3\)"),
        (npy(X[:0]), rf"{shapes} \(0, 6, 5\)"),
        (npy(np.moveaxis(X, 0, 2)), rf"\(6, 5, 120\) would be 6 images of 120 x 5; {few}"),
        (npy(np.zeros((16, 32, 32))), rf"\(16, 32, 32\) would be 16 images of 32 x 32; {few}"),
        (npy(X.reshape(120, 30)), rf"{shapes} \(120, 30\)"),
        (npy(np.array("text")), rf"{shapes} \(\)"),
        (npz(x_test=X), f"{named} x_test"),
        (npz(labels=X), f"{named} labels"),
        (npz(test_images=X, test_labels=X), f"{named} test_images, test_labels"),
        (npz(one=X, other=X), f"{named} one, other"),
        (npz(y_train=Y[:0]), f"{labels} uint8 ", load_labels),
        (npz(y_train=np.array(3)), f"{labels} int64 ", load_labels),
        (npz(y_train=np.array([0.5, 1])), f"{labels} float64 ", load_labels),
        (npy(X), "holds training images only; expected an .npz file, for test images and labels", load_labels),
        (npz(images=0 * X), "all pixels of its train images are 0; there is nothing to be seen"),
        (npy(np.array([{}], dtype=object)), f"{other}, or a damaged one"),
        (in_memory(zipped, "readme.txt", b"hello"), rf"{other}, or a damaged one \(its member readme.txt is no array"),
        (in_memory(zipped, "train_images.npy", b"hello"), f"{other}, or a damaged one"),
        (in_memory(zipped, "x_train.npy", huge), rf"{other}, or a damaged one \(Unable to allocate 909"),
        (b"", f"{other}: it begins with b''"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS, and not the file itself, which git lfs"),
        (good[:-30], f"{other}, or a damaged one"),
        (good.replace(b"(120,", b"(199,"), f"{other}, or a damaged one"),
        (good, "expected an array test_images in it, got train_images", lambda path: load_images(path, "test")),
        (good, "a size can be chosen for folders of pictures, and this", lambda path: load_images(path, size=5)),
    ):
        path.write_bytes(content)
        refused(path, message, *loaded_by)


def test_what_does_not_fit_a_classifier(tmp_path, capsys):
    for n, more in ((120, 1), (40, 0)):  # test images of another class; too few
        (tmp_path / "a.npz").write_bytes(npz(x_train=X[:n], y_train=Y[:n], x_test=X[:40], y_test=Y[:40] + more))
        with pytest.raises(SystemExit):
            judge.main(["--data", str(tmp_path / "a.npz")])
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"{(tmp_path / 'a.npz').as_posix()}: expected 100 training images or more" in error


# --- Pictures -----------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def scandir(path, scandir=os.scandir):
        if str(path).endswith("class1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    pictures(tmp_path, SQUARE[:9], Y)
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"class1: Permission denied$"):
        load_images(tmp_path)


def test_folders_of_splits_by_any_name_and_of_classes(tmp_path):
    for train, test in (
        ("training", "testing"),
        ("Train", "Test"),
        ("train", "val"),
        ("training_set/training_set", "test_set/test_set"),
        ("mnist_png/training", "mnist_png/testing"),
    ):
        root = tmp_path / train.replace("/", "") / test.replace("/", "")
        pictures(root / train, SQUARE[:20], Y)
        pictures(root / test, SQUARE[:9], Y)
        check(root, SQUARE[:20], Y[:20], size=5)
        check(root, SQUARE[:9], Y[:9], "test", 5)
    for extra in ("validation", "chest"):  # a third part, and all once more one level deeper
        pictures(root / "mnist_png" / extra / "training", SQUARE[9:12], Y)
        check(root, SQUARE[:20], Y[:20], size=5)
        check(root, SQUARE[:9], Y[:9], "test", 5)
    pictures(root / "mnist_png" / "train_more", SQUARE[:3], Y)
    refused(root / "mnist_png", "holds train_more and training; which of them is for train")
    root, test = tmp_path / "train" / "val", "val"
    pictures(root / test, SQUARE[:9], Y + 1)
    refused(root, "has no training pictures of the class class3", lambda root: load_labels(root, "test"))
    refused(root / test / "class0", "expected 2 to 256 folders of pictures, one for each class, got 1", load_labels)
    refused(root / "train", "expected folders train and test in it", lambda root: load_images(root, "test"))


def test_a_class_may_be_named_train(tmp_path):
    for i, name in enumerate(("car", "plane", "train")):
        pictures(tmp_path / name, SQUARE[5 * i : 5 * i + 5])
    assert len(load_images(tmp_path, size=5)) == 15
    assert len(np.unique(load_labels(tmp_path))) == 3


def test_what_is_left_out_is_told_by_its_kind(tmp_path, capsys):
    pictures(tmp_path, SQUARE[:5])
    for name in ("a.heic", "b.heic", "notes.txt"):
        (tmp_path / name).write_text("")
    assert len(load_images(tmp_path, size=5)) == 5
    assert capsys.readouterr().err == "3 other files are left out: 2 .heic, 1 .txt\n"


def test_hidden_folders_and_links(tmp_path):
    """What an editor or an archiver left is no class; a class may be a link, even one that leads in a circle."""
    classes = pictures(tmp_path / "elsewhere", SQUARE[:20], Y)
    (tmp_path / "data").mkdir()
    for folder in classes.iterdir():
        link(tmp_path / "data" / folder.name, folder)
    for hidden in (".ipynb_checkpoints", "__MACOSX", ".thumbnails", "@eaDir", "$RECYCLE.BIN", "#recycle", "lost+found"):
        pictures(tmp_path / "data" / hidden, SQUARE[:3])
    link(classes / "class0" / "round", tmp_path / "data")
    check(tmp_path / "data", SQUARE[:20], Y[:20], size=5)


def test_damaged_pictures_are_named_and_left_out(tmp_path, capsys):
    pictures(tmp_path, SQUARE[:20], Y)
    bad = tmp_path / "class0" / "0003.png"
    bad.write_bytes(bad.read_bytes()[:40])
    (tmp_path / "class1" / "0100.gif").write_bytes(b"nothing")
    kept = [i for i in range(20) if i != 3]
    with unbroken_output():
        check(tmp_path, SQUARE[kept], Y[kept], size=5)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"2 of 21 pictures cannot be read and are left out: {bad.as_posix()}: " in line
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    refused(tmp_path, "none of its 21 train pictures can be read")


def test_pictures_of_other_kinds_look_as_they_do_elsewhere(tmp_path, capsys):
    ramp = np.arange(36, dtype="uint16").reshape(6, 6) * (65535 // 35)
    gray = ramp / 257
    turned = Image.fromarray(gray.astype("uint8"))
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    wide = np.pad(np.full((6, 6, 3), (255, 0, 0), "uint8"), ((0, 0), (3, 3), (0, 0)))  # its middle is cut out
    Image.fromarray(ramp).save(tmp_path / "a16bit.png")
    Image.fromarray((ramp / 65535).astype("float32")).save(tmp_path / "bfloat.tiff")
    Image.fromarray(np.dstack([np.zeros((6, 6, 3), "uint8"), gray.astype("uint8")])).save(tmp_path / "c.png")
    turned.save(tmp_path / "d.png", exif=exif)
    turned.convert("RGB").save(tmp_path / "e.ppm")
    turned.convert("RGB").save(tmp_path / "f.jfif", format="jpeg", quality=100)
    Image.fromarray(wide).save(tmp_path / "g.png")
    Image.fromarray(ramp.astype("float32")).save(tmp_path / "too_large.tiff")
    found = load_images(tmp_path, size=6).astype(int)
    assert "too_large.tiff: its pixels are from 0 to 65520, and not from 0 to 1" in capsys.readouterr().err
    expected = np.stack([gray, gray, 255 - gray, gray[::-1, ::-1], gray, gray, np.full((6, 6), 76)])
    assert np.abs(found - expected).max(axis=(1, 2)).tolist() == pytest.approx([0] * 7, abs=2)
    assert load_images(tmp_path).shape == (7, 28, 28)


# --- In a run -----------------------------------------------------------------------------------


def test_pictures_train_and_are_judged_as_arrays_of_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_mnist, "write_page", lambda *_: None)  # the page, which takes long to draw
    folder, array, out = tmp_path / "pictures", tmp_path / "a.npz", tmp_path / "out"
    array.write_bytes(npz(x_train=SQUARE, y_train=Y, x_test=SQUARE[:30], y_test=Y[:30]))
    pictures(folder / "train", SQUARE, Y)
    pictures(folder / "test", SQUARE[:30], Y)
    assert "lies in --data" in fails(capsys, *TINY, "--data", folder, "--out", folder / "out")
    assert judge.main(["--data", str(array)]) == judge.main(["--data", str(folder), "--size", "5"]) == 0
    assert (tmp_path / "a.classifier.npz").read_bytes() == (folder / judge.FILE).read_bytes()
    assert Judge(array).real == Judge(folder, 5).real

    run(*TINY, "--data", folder, "--size", 5, "--out", out)
    held = load(str(out))
    samples, scores = held.samples(np.zeros((3, 32))), held.scores(SQUARE)
    np.testing.assert_array_equal(held.scores(SQUARE / 255), scores)
    assert (samples.shape, samples.dtype, scores.shape, scores.dtype) == ((3, 5, 5), "float32", (120,), "float32")
    assert 0 <= samples.min() <= samples.max() <= 1
    with pytest.raises(ValueError, match=r"images \(n, 5, 5\)"):
        held.model(X)
    model = held.model(SQUARE)
    model.iteration()

    moved = folder.rename(tmp_path / "moved")
    assert run("--resume", "--iterations", 7, "--data", moved, "--out", out) == 0  # it knows the size
    assert run("--evaluate", "--out", out) == run("--report", "--out", out) == 0
    again = load(out).gan.state()
    for name, x in model.state().items():
        np.testing.assert_array_equal(again[name].data, x.data, err_msg=name)
