"""Official state dicts become variables and come back bit for bit."""

import jax
import numpy as np
import pytest

from tests.material import golden_shapes, golden_state_dict, material
from yolox_jax.errors import UserError
from yolox_jax.models import yolox
from yolox_jax.weights import official


@pytest.fixture(scope="module")
def state_dict():
    return golden_state_dict(golden_shapes("nano"))


@pytest.fixture(scope="module")
def model():
    return yolox.create("nano", 80)


def _assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


def test_a_state_dict_comes_back_bit_for_bit(state_dict, model):
    variables = official.from_state_dict(state_dict, model)
    _assert_same_bits(official.to_state_dict(variables, model), state_dict)


def test_the_real_file_comes_back_bit_for_bit(model):
    state_dict = official.load_pth(material("weights/yolox_nano_coco.pth"))
    variables = official.from_state_dict(state_dict, model)
    _assert_same_bits(official.to_state_dict(variables, model), state_dict)


def test_a_missing_tensor_is_named(state_dict, model):
    broken = {name: tensor for name, tensor in state_dict.items() if name != "head.stems.1.bn.running_var"}
    with pytest.raises(UserError, match=r"1 missing: head\.stems\.1\.bn\.running_var"):
        official.from_state_dict(broken, model)


def test_a_left_over_tensor_is_named(state_dict, model):
    with pytest.raises(UserError, match="1 left over: head.extra.weight"):
        official.from_state_dict({**state_dict, "head.extra.weight": np.zeros(3, np.float32)}, model)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(state_dict, model):
    broken = {**state_dict, "head.stems.0.conv.weight": np.zeros((64, 65, 1, 1), np.float32)}
    with pytest.raises(UserError, match=r"head\.stems\.0\.conv\.weight is \(64, 65, 1, 1\), not \(64, 64, 1, 1\)"):
        official.from_state_dict(broken, model)


def test_the_weights_of_another_model_are_refused(state_dict):
    with pytest.raises(UserError, match="not of this model"):
        official.from_state_dict(state_dict, yolox.create("tiny", 80))


def test_with_another_number_of_classes_only_the_class_layers_are_random_and_a_warning_says_so(state_dict, caplog):
    model = yolox.create("nano", 5)
    variables = official.from_state_dict(state_dict, model)
    assert "80 classes, the model 5" in caplog.text
    ours = official.to_state_dict(variables, model)
    for name, tensor in state_dict.items():
        if name.startswith("head.cls_preds."):
            assert ours[name].shape == (5, *tensor.shape[1:])
        else:
            np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    np.testing.assert_allclose(jax.nn.sigmoid(ours["head.cls_preds.0.bias"]), 0.01, rtol=1e-5)
    again = official.from_state_dict(state_dict, model)
    jax.tree.map(np.testing.assert_array_equal, variables, again)


def test_variables_of_another_model_are_not_written(state_dict, model):
    variables = official.from_state_dict(state_dict, model)
    del variables["params"]["head"]["stems"]
    with pytest.raises(ValueError, match="not those of this model: params/head/stems/0"):
        official.to_state_dict(variables, model)
