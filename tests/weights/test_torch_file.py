"""Reads .pth files that pickle_writer.py writes, valid and invalid ones, and runs no code in them."""

import pickle
import struct
import zipfile

import numpy as np
import pytest

from tests.material import golden_shapes, material
from tests.weights.pickle_writer import (
    ORDERED_DICT,
    Build,
    Call,
    Global,
    save,
    tensor,
)
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.weights.torch_file import load_pth, verify_pth


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def load_one(path, described, data, **kwargs):
    array = load_pth(save(path, {"model": {"w": described}}, {"0": data}, **kwargs))["w"]
    assert array.flags.owndata
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.dtype.isnative
    return array


# --- What is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Double", np.float64),
        ("Float", np.float32),
        ("Half", np.float16),
        ("Long", np.int64),
        ("Int", np.int32),
        ("Short", np.int16),
        ("Char", np.int8),
        ("Byte", np.uint8),
        ("Bool", np.bool_),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_every_number_type_is_read_in_either_byte_order(path, kind, dtype, order):
    expected = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    data = expected.astype(expected.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    array = load_one(path, tensor(kind, "0", 6, (2, 3), (3, 1)), data, byteorder=order)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("order", ["little", "big"])
def test_bfloat16_comes_as_float32(path, order):
    expected = np.array([1.0, -2.5, 3e38, 0.0, np.inf], np.float32).view(np.uint32) & 0xFFFF0000
    data = (expected >> 16).astype("<u2" if order == "little" else ">u2").tobytes()
    array = load_one(path, tensor("BFloat16", "0", 5, (5,), (1,)), data, byteorder=order)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.view(np.uint32), expected)
    assert load_one(path, tensor("BFloat16", "0", 5, (), (), offset=1), data, byteorder=order) == -2.5


def test_a_file_without_a_byte_order_is_little_endian_as_old_pytorch_wrote_it(path):
    data = np.arange(3, dtype="<f4").tobytes()
    np.testing.assert_array_equal(load_one(path, tensor("Float", "0", 3, (3,), (1,)), data, byteorder=None), [0, 1, 2])


def test_a_transposed_tensor_is_read_by_its_strides(path):
    data = np.arange(6, dtype="<f4").tobytes()
    array = load_one(path, tensor("Float", "0", 6, (3, 2), (1, 3)), data)
    np.testing.assert_array_equal(array, [[0, 3], [1, 4], [2, 5]])


def test_a_number_without_dimensions_stays_an_array(path):
    array = load_one(path, tensor("Long", "0", 1, (), ()), struct.pack("<q", 7))
    assert isinstance(array, np.ndarray)
    assert array.shape == ()
    assert array == 7


def test_an_empty_tensor_is_read(path):
    assert load_one(path, tensor("Float", "0", 0, (0, 3), (3, 1)), b"").shape == (0, 3)


def test_tensors_that_share_a_storage_become_separate_arrays(path):
    data = np.arange(6, dtype="<f4").tobytes()
    first, second = tensor("Float", "0", 6, (4,), (1,)), tensor("Float", "0", 6, (2, 2), (2, 1), offset=2)
    arrays = load_pth(save(path, {"model": {"a": first, "b": second}}, {"0": data}))
    np.testing.assert_array_equal(arrays["b"], [[2, 3], [4, 5]])
    arrays["a"][:] = -1
    np.testing.assert_array_equal(arrays["b"], [[2, 3], [4, 5]])


def test_a_parameter_is_its_tensor_and_a_size_is_a_tuple(path):
    size = Call(Global("torch", "Size"), ([2],))
    described = tensor("Float", "0", 2, size, (1,))
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (described, True, Call(ORDERED_DICT, ())))
    np.testing.assert_array_equal(load_one(path, parameter, np.array([1, 2], "<f4").tobytes()), [1, 2])


def test_the_state_dict_may_be_the_whole_file_and_keeps_its_order(path):
    names = ["z", "a", "m"]
    state = Call(ORDERED_DICT, ([(name, tensor("Float", "0", 1, (1,), (1,))) for name in names],))
    assert list(load_pth(save(path, Build(state, {"_metadata": {}}), {"0": bytes(4)}))) == names


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_best_ap_may_be_a_numpy_number_as_the_reference_saves_it(path, module):
    # The bytes as numpy writes them, and as protocol 2 does, which writes bytes as text.
    dtype = Build(Call(Global("numpy", "dtype"), ("f8", False, True)), (3, "<", None, None, None, -1, -1, 0))
    as_text = Call(Global("_codecs", "encode"), (struct.pack("<d", 40.5).decode("latin1"), "latin1"))
    for value in (struct.pack("<d", 40.5), as_text):
        best_ap = Call(Global(module, "scalar"), (dtype, value))
        contents = {"model": {"w": tensor("Float", "0", 1, (1,), (1,))}, "best_ap": best_ap}
        assert list(load_pth(save(path, contents, {"0": bytes(4)}))) == ["w"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("number", [np.float64(0.4), np.float32(0.4), np.int64(3), np.bool_(True)])
def test_a_number_pickled_by_numpy_itself_is_accepted(path, protocol, number):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"best_ap": number}, protocol=protocol))
    with pytest.raises(UserError, match="top-level keys: best_ap"):  # the pickle is read; only the tensors are missing
        load_pth(path)


def test_the_numbers_of_the_optimizer_are_not_read(path):
    contents = {
        "model": {"w": tensor("Float", "0", 1, (1,), (1,))},
        "optimizer": {"state": {0: {"momentum_buffer": tensor("Float", "absent", 9, (9,), (1,))}}},
    }
    assert list(load_pth(save(path, contents, {"0": bytes(4)}))) == ["w"]


# --- What is refused; pickles that try to run something are in test_torch_pickle.py ----------------------------------


@pytest.mark.parametrize("read", [load_pth, verify_pth])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty: download it again"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"<html>", "is a web page"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02...", r"before 1\.6.*torch\.save\(torch\.load"),
        (b"PK\x03\x04 and no more", "is cut off"),
        (b"GIF89a..", "is not a torch checkpoint: it begins with b'GIF89a"),
    ],
)
def test_a_file_of_another_kind_is_named(path, read, data, message):
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"weights\.pth (?s:.)*{message}"):
        read(path)


def good_file(path):
    data = np.arange(1000, dtype="<f4").tobytes()
    return save(path, {"model": {"w": tensor("Float", "0", 1000, (1000,), (1,))}}, {"0": data})


def test_a_truncated_file_is_named(path):
    whole = good_file(path).read_bytes()
    for size in (len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut off.*download it again"):
            load_pth(path)


@pytest.mark.parametrize("read", [load_pth, verify_pth])
def test_a_flipped_bit_is_found_by_its_checksum(path, read):
    whole = bytearray(good_file(path).read_bytes())
    whole[whole.index(struct.pack("<f", 500))] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"weights\.pth is damaged at archive/data/0 .*CRC.*again"):
        read(path)


def test_an_undamaged_file_passes_verification(path):
    verify_pth(good_file(path))


def test_another_zip_file_is_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="not a torch checkpoint: it has 0 members"):
        load_pth(path)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (tensor("Float", "0", 3, (3,), (1,)), "has 16 bytes instead of 3 numbers of 4 bytes"),
        (tensor("Double", "0", 4, (4,), (1,)), "has 16 bytes instead of 4 numbers of 8 bytes"),
        (tensor("Float", "1", 4, (4,), (1,)), "lacks its member archive/data/1"),
        (tensor("Float", "0", 4, (5,), (1,)), "larger than its storage"),
        (tensor("Float", "0", 4, (10**15,), (0,)), "larger than its storage"),
        (tensor("Float", "0", 4, (4,), (1,), offset=1), "does not fit its storage"),
        (tensor("Float", "0", 4, (2, 2), (3, 1)), "does not fit its storage"),
        (tensor("Float", "0", 4, (2,), (2**62,)), "does not fit its storage"),
    ],
)
def test_a_tensor_stays_inside_its_storage(path, described, message):
    with pytest.raises(UserError, match=rf"weights\.pth.*{message}"):
        load_one(path, described, bytes(16))


def test_an_unknown_byte_order_is_refused(path):
    with pytest.raises(UserError, match="neither little nor big"):
        load_one(path, tensor("Float", "0", 1, (1,), (1,)), bytes(4), byteorder="middle")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"state": {}, "epoch": 3}, "top-level keys: state, epoch"),
        ({"model": {"w": tensor("Float", "0", 1, (1,), (1,)), "lr": 3}}, "top-level keys: model"),
        ({"model": {}}, "top-level keys: model"),
        ({}, "top-level keys: none"),
        ([1, 2], "top-level keys: none"),
    ],
)
def test_a_file_without_a_state_dict_lists_what_it_has(path, contents, message):
    with pytest.raises(UserError, match=rf"weights\.pth has no dict of only tensors.*{message}"):
        load_pth(save(path, contents, {"0": bytes(4)}))


def test_a_missing_file_is_named(path):
    with pytest.raises(NotFoundError, match="there is no file .*weights.pth"):
        load_pth(path)


@pytest.mark.parametrize("name", ["yolox_nano_coco.pth", "yolox_nano_coco_fused.pth"])
def test_the_official_nano_has_the_names_and_shapes_of_the_reference(name):
    arrays = load_pth(material(f"weights/{name}"))
    assert [(key, array.shape) for key, array in arrays.items()] == list(golden_shapes("nano").items())
    assert all(np.isfinite(array).all() and array.flags.owndata for array in arrays.values())
