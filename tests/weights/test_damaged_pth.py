"""Files that ask for endless time or memory, and damaged ones, are one message that names the file."""

import itertools
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

from tests.weights.pickle_writer import Call, Global, New, save, tensor
from yolox_jax.errors import UserError
from yolox_jax.weights.pickle_bounds import check_bounds
from yolox_jax.weights.torch_file import load_pth, verify_pth


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def _doubled(first, instruction, depth=60):
    """The instructions of [[first, first], [first, first]] … : `depth` times as deep, 2**depth entries."""
    level = first + b"q\x00"
    for _ in range(depth):
        level += b"h\x00" + instruction + b"q\x00"
    return level


_BOMBS = {
    "a tuple as a key": b"}" + _doubled(b")", b"\x86") + b"Ns.",
    "a tuple as a key of an OrderedDict": b"ccollections\nOrderedDict\n)R" + _doubled(b")", b"\x86") + b"Ns.",
    "tuples as the value": b"}X\x05\x00\x00\x00model" + _doubled(b")", b"\x86") + b"s.",
    "lists to torch.Size": b"ctorch\nSize\n" + _doubled(b")", b"2\x86]q\x01h\x01a") + b"\x85R.",
    "a frozen set": b"(" + _doubled(b")", b"\x86") + b"\x91.",
    "DUP": b"}" + b")" + b"2\x86" * 60 + b"Ns.",
    "a deep tuple as a key": b"})" + b"\x85" * 100_000 + b"Ns.",
    "a huge index": b"Nr\xff\xff\xff\x7f.",
    "a huge text": b"X\xff\xff\xff\x7f.",
    "huge bytes": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",
    "a huge frame": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "a number of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
}


@pytest.mark.parametrize("bomb", _BOMBS)
def test_a_pickle_bomb_is_refused_at_once(path, bomb):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04" + _BOMBS[bomb])
    for read in (load_pth, verify_pth):
        with pytest.raises(UserError, match=r"weights\.pth is refused and none of it was run: "):
            read(path)


@pytest.mark.parametrize("protocol", range(6))
def test_an_ordinary_pickle_is_within_the_bounds(protocol):
    shared = ("a", 1.5, None)
    check_bounds(pickle.dumps({"list": [shared] * 1000, "set": {1, 2}, 3: [[[[{}]]]], "n": np.float64(2)}, protocol))


def test_the_size_counts_repetitions_and_the_depth_follows_lists_and_dicts():
    for nested, is_bounded in ((48, True), (50, False)):
        value = 0
        for number in range(nested):
            value = [value] if number % 2 else {"a": value}
        if is_bounded:
            check_bounds(pickle.dumps(value))
        else:
            with pytest.raises(ValueError, match="it nests 51 objects, "):
                check_bounds(pickle.dumps(value))
    wide = tuple(range(1000))
    check_bounds(pickle.dumps((wide,) * 9_000))
    with pytest.raises(ValueError, match=r"it nests 3 objects, 10\d{6} in all"):
        check_bounds(pickle.dumps((wide,) * 10_000))


_ONE = {"w": tensor("Float", "0", 4, (4,), (1,))}


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"model": {7: _ONE["w"]}}, "no dict of only tensors"),
        ({"model": {"\n": _ONE["w"]}}, "no dict of only tensors"),
        ({("a",) * 9: 1}, r"top-level keys: \('a', 'a', 'a', 'a', 'a', 'a', ...\)"),
        (
            {"model": {"w": tensor("Float", "0", 4, (1,) * 9, (1,) * 9)}},
            "calls torch._utils._rebuild_tensor_v2 in a way",
        ),
        ({"model": New(Global("torch", "Size"), ([],))}, "is refused and none of it was run"),
        ({"model": Call(Global("torch", "Size"), ([[[[]]]],))}, "is refused and none of it was run"),
    ],
)
def test_a_file_whose_contents_are_no_state_dict_is_named(path, contents, message):
    save(path, contents, {"0": bytes(16)})
    with pytest.raises(UserError, match=rf"weights\.pth(?s:.)*{message}"):
        load_pth(path)


def test_many_tensors_in_one_storage_are_refused(path):
    size = 10_000
    described = {f"w{number}": tensor("Float", "0", size, (size,), (1,)) for number in range(100)}
    save(path, {"model": described}, {"0": bytes(4 * size)})
    with pytest.raises(UserError, match="its tensors have 4000000 bytes, many times those of the file"):
        load_pth(path)


def test_compressed_members_and_members_that_share_bytes_are_refused(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(UserError, match="'archive/data.pkl' is compressed or encrypted"):
        load_pth(path)
    whole = save(path, {"model": _ONE}, {"0": bytes(16)}).read_bytes()
    size_field = whole.rindex(b"PK\x01\x02") + 20  # of the last member in the directory: both of its sizes
    path.write_bytes(whole[:size_field] + struct.pack("<II", 2**30, 2**30) + whole[size_field + 8 :])
    with pytest.raises(UserError, match=r"has \d+ bytes, but states members of \d+ bytes"):
        load_pth(path)


def test_a_damaged_file_is_one_message_whatever_is_damaged(path):
    whole = save(path, {"model": _ONE}, {"0": np.arange(4, dtype="<f4").tobytes()}).read_bytes()
    random_number = random.Random(0)
    starts = [whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")]
    places = [*range(0, 60, 2), *range(starts[0], len(whole), 2), *random_number.sample(range(len(whole)), 60)]
    for place, value in itertools.product(places, (0xFF, 0)):
        damaged = bytearray(whole)
        damaged[place] ^= value or random_number.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            load_pth(path)
        except UserError as error:
            assert "weights.pth" in str(error)
