"""IDX files: the bundled MNIST, other files in the format, and damaged ones."""

import gzip
import hashlib
import tracemalloc

import numpy as np
import pytest

from minigan.data import MNIST, DataError, load_images, read_idx, sampler

# SHA-256 of the uncompressed files as published
SUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def idx(shape=(5, 4, 3), data=None, kind=8, zeros=b"\0\0"):
    """The bytes of an IDX file, with anything in it made wrong on request."""
    data = np.arange(np.prod(shape), dtype="uint8").tobytes() if data is None else data
    return zeros + bytes([kind, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + data


@pytest.mark.parametrize("name", SUMS)
def test_the_bundled_files_are_the_published_ones(name):
    assert hashlib.sha256(gzip.decompress((MNIST / f"{name}.gz").read_bytes())).hexdigest() == SUMS[name]


def test_mnist_loads_as_bytes():
    train, test = load_images(), load_images(split="test")
    assert (train.shape, test.shape, train.dtype) == ((60000, 28, 28), (10000, 28, 28), np.uint8)
    labels = read_idx(MNIST / "train-labels-idx1-ubyte.gz", ndim=1)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert 0.12 < train.mean() / 255 < 0.14


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images.idx3-ubyte"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_folder_and_any_image_size(tmp_path, name, suffix):
    content = idx()
    (tmp_path / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    np.testing.assert_array_equal(load_images(tmp_path), np.arange(60).reshape(5, 4, 3))


def test_several_gzip_members_are_one_file(tmp_path):
    content = idx()
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]))
    assert load_images(tmp_path).shape == (5, 4, 3)


BIG = (2**31, 2**20, 2**12)

DAMAGED = {
    "empty": (b"", "begin with two zero bytes"),
    "of another format": (b"\x89PNG" + bytes(100), "not an IDX file"),
    "of floats": (idx(kind=0x0D), "type 0x0d; expected 0x08, unsigned bytes"),
    "of labels": (idx((60,)), "has 1 dimensions; expected 3"),
    "cut in the header": (idx()[:11], "expected 3 dimensions"),
    "of no images": (idx((0, 4, 3)), r"dimensions of at least 1, got \(0, 4, 3\)"),
    "cut in the data": (idx()[:-1], r"announces 60 bytes of data, \(5, 4, 3\), but the file holds 59 bytes"),
    "too long": (idx() + b"x", "announces 60 bytes .* holds more"),
    "of an impossible size": (idx(BIG, b"x"), "holds 1 bytes"),
}


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, how, suffix):
    content, message = DAMAGED[how]
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    tracemalloc.start()
    with pytest.raises(DataError, match=f"^{path}: .*{message}") as error:
        load_images(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 4e6  # nothing is allocated on the header's word
    tracemalloc.stop()
    assert "\n" not in str(error.value)


def test_no_more_is_unpacked_than_the_header_announces(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx() + bytes(1 << 26)))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"announces 60 bytes .* holds more"):
        load_images(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:30] + b"\xff" * 9 + b[39:], lambda b: idx()])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(idx())))
    with pytest.raises(DataError, match=f"^{path}: damaged gzip file"):
        load_images(tmp_path)


def test_a_missing_file_or_folder_is_named(tmp_path):
    taken = r"expected a folder of IDX files \(train-images-idx3-ubyte\) or of pictures"
    (tmp_path / "a.csv").touch()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx())
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nothing")
    for name, found in {
        "nowhere": "there is no such file or folder",
        "link": "there is no such file or folder",
        "a.csv": "is a file of another kind",
        "train-images-idx3-ubyte": "is one IDX file; its folder is what to give",
        "empty": "is empty",
    }.items():
        with pytest.raises(DataError, match=f"^{tmp_path / name}: {found}; {taken}"):
            load_images(tmp_path / name)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=f"^{tmp_path}: holds a.csv, empty, link; {taken}"):
        load_images(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx())
    with pytest.raises(DataError, match=f"^{tmp_path}: expected a folder with a file train-images-idx3-ubyte or"):
        load_images(tmp_path)


def test_images_without_anything_in_them(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(data=bytes(60)))
    with pytest.raises(DataError, match="all pixels of its train images are 0; there is nothing to be seen"):
        load_images(tmp_path)


def test_a_folder_of_the_same_name_beside_the_file(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    (tmp_path / "train-images.idx3-ubyte").write_bytes(idx())
    assert load_images(tmp_path).shape == (5, 4, 3)


def test_batches_are_drawn_as_rows_of_pixels():
    images = np.arange(256, dtype="uint8").repeat(2).reshape(256, 1, 2)
    batch = sampler(images)(10_000, np.random.default_rng(0))
    assert batch.shape == (10_000, 2) and batch.dtype == "float32"
    assert batch.min() == 0 and batch.max() == 1 and (batch[:, 0] == batch[:, 1]).all()
    assert len(np.unique(batch)) == 256
    np.testing.assert_allclose(np.unique(batch) * 255, np.arange(256), rtol=1e-6)
