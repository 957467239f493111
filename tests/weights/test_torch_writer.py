"""Files written without PyTorch are read by our reader, and by PyTorch where it is installed."""

import numpy as np
import pytest

from tests.material import golden_shapes, golden_state_dict
from yolox_jax.models import yolox
from yolox_jax.weights import official
from yolox_jax.weights.torch_file import load_pth, verify_pth
from yolox_jax.weights.torch_writer import save_pth


@pytest.fixture(scope="module")
def state_dict():
    """The nano's, its batch counters among them: int64 without a dimension."""
    return golden_state_dict(golden_shapes("nano"))


@pytest.fixture(scope="module")
def path(state_dict, tmp_path_factory):
    path = tmp_path_factory.mktemp("pth") / "nano.pth"
    save_pth(path, state_dict)
    return path


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_our_reader_reads_every_bit(path, state_dict):
    verify_pth(path)
    _assert_same(load_pth(path), state_dict)


def test_pytorch_reads_every_bit_and_runs_nothing(path, state_dict):
    torch = pytest.importorskip("torch")
    content = torch.load(path, weights_only=True)
    assert list(content) == ["model"]
    _assert_same({name: tensor.numpy() for name, tensor in content["model"].items()}, state_dict)


def test_pytorch_maps_the_file_into_memory(path, state_dict):
    torch = pytest.importorskip("torch")
    model = torch.load(path, weights_only=True, mmap=True)["model"]
    _assert_same({name: tensor.numpy() for name, tensor in model.items()}, state_dict)
    assert all(tensor.data_ptr() % 64 == 0 for tensor in model.values())


def test_variables_come_back_through_a_file(state_dict, tmp_path):
    model = yolox.create("nano", 80)
    variables = official.from_state_dict(state_dict, model)
    save_pth(tmp_path / "again.pth", official.to_state_dict(variables, model))
    _assert_same(dict(sorted(load_pth(tmp_path / "again.pth").items())), dict(sorted(state_dict.items())))


def test_layouts_other_than_c_order_are_written_as_they_read(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    save_pth(tmp_path / "t.pth", {"a": array, "empty": np.zeros((0, 3), np.float32)})
    _assert_same(load_pth(tmp_path / "t.pth"), {"a": array, "empty": np.zeros((0, 3), np.float32)})


def test_another_type_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="tensor w is float64: expected float32 or int64"):
        save_pth(tmp_path / "t.pth", {"w": np.zeros(3)})
    assert not (tmp_path / "t.pth").exists()
