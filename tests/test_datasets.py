"""Images of one's own: arrays and folders of pictures, whole and damaged."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from minigan import judge
from minigan.cli import unbroken_output
from minigan.data import DataError, load_images, load_labels
from minigan.run import load
from tests.running import TINY, fails, run, state

X = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8")
Y = np.arange(40, dtype="uint8") % 3


def pictures(folder, images, labels=None):
    for i, image in enumerate(images):
        inside = folder if labels is None else folder / f"class{labels[i]}"
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(inside / f"{i:04d}.png")
    return folder


def test_arrays(tmp_path):
    for name, array, expected in (
        ("bytes", X, X),
        ("floats", X / 255, X),
        ("floats32", (X / 255).astype("float32"), X),
        ("rows", X[:, :5].reshape(40, 25), X[:, :5]),
        ("colours", np.repeat(X[..., None], 3, axis=3), X),
        ("lines", X[:, None, :5].reshape(40, 1, 25), X[:, :5]),
        ("bits", X > 99, np.uint8(255) * (X > 99)),
        ("fortran", np.asfortranarray(X), X),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        np.savez_compressed(tmp_path / f"{name}.npz", array)
        for kind in ("npy", "npz"):
            found = load_images(tmp_path / f"{name}.{kind}")
            assert found.dtype == "uint8" and found.flags.c_contiguous
            np.testing.assert_array_equal(found, expected)


def test_an_archive_with_test_images_and_labels(tmp_path):
    path = tmp_path / "medical.npz"
    np.savez(
        path, val_images=X[:1], train_images=X, test_images=X[:9], train_labels=Y[:, None], test_labels=Y[:9, None]
    )
    assert (load_images(path) == X).all() and (load_images(path, "test") == X[:9]).all()
    assert (load_labels(path) == Y).all() and (load_labels(path, "test") == Y[:9]).all()


@pytest.mark.parametrize(
    "order, names",
    [
        ("tTLl", "x_test x_train y_test y_train"),  # Keras's, in this order
        ("lTLt", "test_images train_images test_labels train_labels"),
        ("tlLT", "X_test images y_test labels"),
    ],
)
def test_arrays_are_found_by_their_names(order, names, tmp_path):
    named = dict(zip("tTlL", zip(names.split(), (X[:9], X, Y[:9], Y))))
    np.savez(tmp_path / "a.npz", **dict(named[which] for which in order))
    assert (load_images(tmp_path / "a.npz") == X).all() and (load_images(tmp_path / "a.npz", "test") == X[:9]).all()
    assert (load_labels(tmp_path / "a.npz") == Y).all() and (load_labels(tmp_path / "a.npz", "test") == Y[:9]).all()


@pytest.mark.parametrize("names", [("x_test",), ("labels",), ("test_images", "test_labels"), ("one", "other")])
def test_no_array_is_chosen_by_its_place(names, tmp_path):
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, X))
    with pytest.raises(DataError, match=rf"expected an array train_images in it, got {', '.join(names)}"):
        load_images(tmp_path / "a.npz")


def test_folders_of_splits_by_any_name(tmp_path):
    for train, test in (("training", "testing"), ("Train", "Test"), ("train", "val")):
        pictures(tmp_path / train / train, X[:, :5], Y)
        pictures(tmp_path / train / test, X[:9, :5], Y[:9])
        assert (load_images(tmp_path / train, size=5) == X[:, :5]).all()
        assert (load_images(tmp_path / train, "test", 5) == X[:9, :5]).all()
        assert (load_labels(tmp_path / train) == Y).all()


def test_hidden_folders_and_links(tmp_path):
    """What an editor or an archiver left is no class; a class may be a link, even one that leads in a circle."""
    classes = pictures(tmp_path / "elsewhere", X[:, :5], Y)
    (tmp_path / "data").mkdir()
    for folder in classes.iterdir():
        (tmp_path / "data" / folder.name).symlink_to(folder)
    for hidden in (".ipynb_checkpoints", "__MACOSX", ".thumbnails"):
        pictures(tmp_path / "data" / hidden, X[:3, :5])
    (classes / "class0" / "round").symlink_to(tmp_path / "data")
    assert (load_images(tmp_path / "data", size=5) == X[:, :5]).all()
    assert (load_labels(tmp_path / "data") == Y).all()


@pytest.mark.parametrize(
    "array, message",
    [
        (X.astype("int64"), "expected uint8, or floats from 0 to 1, got int64"),
        (X / 100, "expected uint8, or floats from 0 to 1, got float64 from 0.0 to 2.55"),
        (np.full((5, 5, 5), np.nan), "expected uint8, or floats from 0 to 1, got float64 from nan"),
        (X[:, :, :, None], r"expected images \(n, height, width\), .* got \(40, 6, 5, 1\)"),
        (np.zeros((40, 30, 3), "uint8"), r"and more of them than pixels each way, got \(40, 30, 3\)"),
        (X[:0], r"got \(0, 6, 5\)"),
        (np.moveaxis(X, 0, 2), r"expected images \(n, height, width\), and more of them .*, got \(6, 5, 40\)"),
        (X.reshape(40, 30), r"got \(40, 30\)"),
        (np.array("text"), r"got \(\)"),
        (np.zeros((6, 6, 6), [("a", "u1")]), r"expected uint8, or floats from 0 to 1, got \[\('a', 'u1'\)\]$"),
        (np.array([{}], dtype=object), "not a file of arrays, or a damaged one"),
    ],
)
def test_arrays_that_are_no_images(array, message, tmp_path):
    np.save(tmp_path / "images.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"images\.npy: .*{message}"):
        load_images(tmp_path / "images.npy")


def test_an_array_beyond_memory(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("x_train.npy", "w") as member,
    ):
        shape = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000)}
        np.lib.format.write_array_header_1_0(member, shape)
    with pytest.raises(DataError, match=r"a\.npz: not a file of arrays, or a damaged one \(Unable to allocate 909"):
        load_images(tmp_path / "a.npz")


def test_damaged_archives(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, train_images=X)
    good = path.read_bytes()
    with pytest.raises(DataError, match="expected an array test_images in it"):
        load_images(path, "test")
    for bad in (b"", b"version https://git-lfs", good[:-30], b"PK\x03\x04" + bytes(50), good.replace(b"(40,", b"(99,")):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"images\.npz: "):
            load_images(path)
    with pytest.raises(DataError, match=r"nowhere\.npy: there is no such file"):
        load_images(tmp_path / "nowhere.npy")


def test_members_that_are_no_arrays(tmp_path):
    for name in ("readme.txt", "train_images", "train_images.npy"):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            file.writestr(name, "hello")
        with pytest.raises(DataError, match=r"x\.npz: not a file of arrays, or a damaged one"):
            load_images(tmp_path / "x.npz")


def test_pictures_are_made_gray_and_square(tmp_path):
    colour = np.zeros((30, 60, 3), "uint8")
    colour[:, 15:45] = 255, 0, 0  # the middle, which is what is cut out
    Image.fromarray(colour).save(tmp_path / "b.jpg", quality=100)
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    images = load_images(tmp_path, size=8)
    assert images.shape == (2, 8, 8) and abs(int(images[1].mean()) - 76) < 3
    assert load_images(tmp_path).shape == (2, 28, 28)


def test_pictures_of_the_size_are_kept_as_they_are(tmp_path):
    pictures(tmp_path, X[:, :5], Y)  # in the order of their names, whatever their classes
    assert (load_images(tmp_path, size=5) == X[:, :5]).all() and (load_labels(tmp_path) == Y).all()
    with pytest.raises(DataError, match="expected folders train and test in it"):
        load_images(tmp_path, "test")


def test_damaged_pictures_are_named_and_left_out(tmp_path, capsys):
    pictures(tmp_path, X[:, :5], Y)
    bad = sorted(tmp_path.rglob("*.png"), key=lambda p: p.name)[3]
    bad.write_bytes(bad.read_bytes()[:40])
    (tmp_path / "class1" / "0100.gif").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("no picture")
    kept = [i for i in range(40) if i != 3]
    with unbroken_output():
        assert (load_images(tmp_path, size=5) == X[kept, :5]).all()
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"2 of 41 pictures cannot be read and are left out: {bad}: " in line
    assert (load_labels(tmp_path) == Y[kept]).all()
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of its 41 train pictures can be read"):
        load_images(tmp_path)


def test_pictures_of_other_kinds_look_as_they_do_elsewhere(tmp_path, capsys):
    ramp = np.arange(36, dtype="uint16").reshape(6, 6) * (65535 // 35)
    Image.fromarray(ramp).save(tmp_path / "a16bit.png")
    Image.fromarray((ramp / 65535).astype("float32")).save(tmp_path / "bfloat.tiff")
    Image.fromarray(ramp.astype("float32")).save(tmp_path / "too_large.tiff")
    Image.fromarray(np.dstack([np.zeros((6, 6, 3), "uint8"), (ramp // 257).astype("uint8")])).save(tmp_path / "c.png")
    turned = Image.fromarray((ramp // 257).astype("uint8"))
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "d.png", exif=exif)
    for name in ("e.ppm", "f.jfif"):
        turned.convert("RGB").save(tmp_path / name, format={"e.ppm": "ppm", "f.jfif": "jpeg"}[name])
    a, b, c, d, e, _ = load_images(tmp_path, size=6).astype(int)
    assert "too_large.tiff: its pixels are from 0 to 65520, and not from 0 to 1" in capsys.readouterr().err
    gray = ramp / 257
    for found, expected in ((a, gray), (b, gray), (c, 255 - gray), (d, gray[::-1, ::-1]), (e, gray)):
        assert np.abs(found - expected).max() <= 1.5


def test_what_does_not_fit_a_classifier(tmp_path, capsys):
    more = {"train_images": np.repeat(X, 3, axis=0), "train_labels": np.repeat(Y, 3), "test_images": X}
    for name, labels in (("others", Y + 1), ("none", Y[:0]), ("one", np.array(3)), ("words", np.array(["a"] * 40))):
        np.savez(tmp_path / f"{name}.npz", **more, test_labels=labels)
    np.savez(tmp_path / "few.npz", train_images=X, train_labels=Y, test_images=X, test_labels=Y)
    for path in tmp_path.iterdir():
        with pytest.raises(SystemExit):
            judge.main(["--data", str(path)])
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"{path}: expected " in error
    pictures(tmp_path / "p" / "train", X, Y)
    pictures(tmp_path / "p" / "test", X, Y + 1)
    with pytest.raises(DataError, match="has no training pictures of the class class3"):
        load_labels(tmp_path / "p", "test")


def test_a_moved_folder_and_one_inside_of_itself(tmp_path, capsys):
    folder = pictures(tmp_path / "before", X)
    assert "lies in --data" in fails(capsys, *TINY, "--data", folder, "--out", folder / "out")
    run(*TINY, "--data", folder, "--size", 5, "--out", tmp_path / "out")
    folder.rename(tmp_path / "after")
    assert run("--resume", "--iterations", 8, "--data", tmp_path / "after", "--out", tmp_path / "out") == 0


def test_one_class_is_none(tmp_path):
    pictures(tmp_path, X)
    with pytest.raises(DataError, match="expected 2 to 256 folders of pictures, one for each class, got 1"):
        load_labels(tmp_path)


def test_pictures_train_and_are_judged_as_the_same_idx_files(tmp_path, judged, capsys):
    folder = tmp_path / "pictures"
    for split, name in (("train", "train"), ("test", "test")):
        images = np.ascontiguousarray(load_images(judged, split)[:, :5])
        pictures(folder / name, images, load_labels(judged, split))
    assert judge.main(["--data", str(folder), "--size", "5"]) == 0
    given = [*TINY, "--evaluate-every", 6]
    run(*given, "--data", folder, "--size", 5, "--out", tmp_path / "a")
    array = tmp_path / "images.npz"
    sets = {
        f"{name}_{what}": f(folder, split, *more)
        for split, name in (("train", "train"), ("test", "test"))
        for what, f, more in (("images", load_images, (5,)), ("labels", load_labels, ()))
    }
    np.savez(array, **sets)
    assert judge.main(["--data", str(array)]) == 0
    run(*given, "--data", array, "--out", tmp_path / "b")
    assert state(tmp_path / "a") == state(tmp_path / "b")
    a, b = (load(tmp_path / name) for name in "ab")
    assert {**a.evaluations[0], "seconds": 0} == {**b.evaluations[0], "seconds": 0}
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["size"] == 5

    for flags in (["--resume", "--iterations", 8], ["--evaluate"], ["--report"]):
        assert run(*flags, "--out", tmp_path / "a") == 0  # it knows the size
    capsys.readouterr()
    assert "a size can be chosen for folders of pictures" in fails(capsys, *TINY, "--data", array, "--size", 5)


def test_a_run_in_python(tmp_path, images):
    run(*TINY, "--data", images, "--out", tmp_path / "out")
    held = load(str(tmp_path / "out"))
    noise = np.random.default_rng(0).standard_normal((3, 32))
    samples = held.samples(noise)
    assert samples.shape == (3, 6, 5) and samples.dtype == "float32" and 0 <= samples.min() <= samples.max() <= 1
    scores = held.scores(load_images(images))
    assert scores.shape == (40,) and scores.dtype == "float32"
    model = held.model(load_images(images))
    for _ in range(6):
        model.iteration()
    run("--resume", "--out", tmp_path / "out", "--iterations", 12)
    again = load(tmp_path / "out").model(load_images(images))
    assert all((again.state()[name].data == x.data).all() for name, x in model.state().items())
    with pytest.raises(ValueError, match=r"images \(n, 6, 5\)"):
        held.model(X[:, :5])
