"""The user's own function is found, called and checked, and docs/augmentation.md's examples run."""

import re
import sys

import numpy as np
import pytest

from tests.augment.test_sample import sample_of
from tests.data.made_source import MadeSource, striped
from tests.material import ROOT
from tests.recipe import augment_config
from yolox_jax.augment import hook
from yolox_jax.boxes import min_sides_xyxy
from yolox_jax.errors import UserError

# Mosaics move the box out of the picture. Fitted to 48x64, the image has 47 rows, and the box ends at 47.36.
BORDERING = MadeSource(np.random.default_rng(0).integers(0, 256, (37, 50, 3)).astype(np.uint8), [[4, 3, 50, 37]], 4)
IMAGE, BOXES, LABELS = striped(), np.array([[2, 4, 12, 20]], np.float32), np.array([0], np.int32)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the working directory; returns its name."""
    names = []

    def write(text):
        name = f"my_augment_{tmp_path.name.replace('-', '_')}_{len(names)}"
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_a_hook_changes_image_boxes_and_labels_of_a_sample(module):
    name = module(
        "def own(image, boxes, labels, rng):\n"
        "    image[:] = 255 - image\n"
        "    return image, [*boxes, [0, 0, 30, 10]], [*labels, 0]\n"
    )
    source = MadeSource(IMAGE, BOXES)
    augment = augment_config(mosaic_prob=0.0, flip_prob=0.0, hook=f"{name}:own")
    sample = sample_of(source, augment, size_hw=(24, 32))
    np.testing.assert_array_equal(sample.image, 255 - IMAGE)
    np.testing.assert_array_equal(sample.boxes[:2], [*BOXES, [0, 0, 30, 10]])
    assert sample.mask.sum() == 2
    assert (source[0].image == IMAGE).all()  # the hook got a copy
    plain = sample_of(source, augment.no_aug(), size_hw=(24, 32))
    np.testing.assert_array_equal(plain.image, IMAGE)


def test_an_image_of_another_size_is_resized_to_fit_with_its_boxes(module):
    name = module("def own(image, boxes, labels, rng):\n    return image[:12, :8], [[0, 2, 8, 90]], [0]\n")
    augment = augment_config(mosaic_prob=0.0, flip_prob=0.0, hook=f"{name}:own")
    sample = sample_of(MadeSource(IMAGE, BOXES), augment, size_hw=(24, 32))
    np.testing.assert_array_equal(sample.boxes[0], [0, 4, 16, 24])
    assert sample.content_hw == (24, 16)


def test_a_hook_gets_boxes_inside_the_picture_and_its_boxes_outside_are_left_out(module):
    name = module(
        "def own(image, boxes, labels, rng):\n"
        "    assert (boxes[:, 2:] - boxes[:, :2] > 1).all() and (boxes >= 0).all()\n"
        "    assert (boxes[:, 2:] <= image.shape[1::-1]).all()\n"
        "    return image, [*boxes, [-9, 0, 0, 9], [0, 99, 9, 999]], [*labels, 0, 0]\n"
    )
    for seed in range(30):
        sample = sample_of(BORDERING, augment_config(mosaic_prob=0.5, hook=f"{name}:own"), num_slots=8, seed=seed)
        assert (min_sides_xyxy(sample.boxes[sample.mask]) > 1).all()


def test_the_random_numbers_are_those_of_the_sample(module):
    name = module("def own(image, boxes, labels, rng):\n    return image, boxes * rng.random(), labels\n")
    augment = augment_config(mosaic_prob=0.0, flip_prob=0.0, hook=f"{name}:own")
    boxes = [sample_of(MadeSource(IMAGE, BOXES), augment, seed=seed).boxes[0].tolist() for seed in (0, 1, 0)]
    assert boxes[0] == boxes[2] != boxes[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("invert", ": give module:function, such as"),
        ("a:b:c", "give module:function"),
        ("absent_module:f", "there is no module absent_module: start in its folder"),
        ("json.absent:f", r"there is no module json\.absent"),
        ("json:absent", r"json has no such function: define absent\(image, boxes, labels, rng\)"),
    ],
)
def test_a_wrong_name_is_known_before_the_first_sample(name, message):
    with pytest.raises(UserError, match=rf"^config\.augment_hook is .*{message}"):
        augment_config(hook=name)


def test_an_error_inside_the_users_module_keeps_its_traceback(module):
    name = module("import absent_library\n")
    with pytest.raises(ModuleNotFoundError, match="absent_library") as caught:
        hook.load(f"{name}:f")
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        ("None", "NoneType instead of three values"),
        ("(image, boxes)", "tuple instead of three values"),
        ("(image / 255, boxes, labels)", "an image that is float64"),
        ("('image', boxes, labels)", "an image that is str"),
        ("(image[..., 0], boxes, labels)", r"an image of shape \(24, 32\)"),
        ("(image[:0], boxes, labels)", r"an image of shape \(0, 32, 3\)"),
        ("(image, boxes[:, :3], labels)", r"boxes of shape \(1, 3\) with labels of shape \(1,\)"),
        ("(image, boxes, [0, 0])", r"boxes of shape \(1, 4\) with labels of shape \(2,\)"),
        ("(image, boxes[:, ::-1], labels)", r"the box \[20\.0, 12\.0, 4\.0, 2\.0\]"),
        ("(image, boxes * float('nan'), labels)", r"the box \[nan, nan, nan, nan\]"),
        ("(image, boxes, [1])", "the label 1, of 1 classes"),
        ("(image, boxes, [0.5])", "the label 0.5, of 1 classes"),
        ("(image, boxes, ['cat'])", "labels that are not numbers"),
    ],
)
def test_anything_else_that_is_returned_is_one_message(module, returned, found):
    name = f"{module(f'def own(image, boxes, labels, rng):{chr(10)}    return {returned}')}:own"
    with pytest.raises(UserError, match=rf"^config\.augment_hook {name} returned {found}: return image"):
        hook.call(name, IMAGE, BOXES, LABELS, np.random.default_rng(0), 1)


def _examples():
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "augmentation.md").read_text(), re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize(("number", "function"), [(0, "invert"), (1, "weather")])
def test_the_examples_of_the_page_are_hooks(module, monkeypatch, number, function):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for its newest version
    if "albumentations" in _examples()[number]:
        pytest.importorskip("albumentations")
    name = f"{module(_examples()[number])}:{function}"
    changed = 0
    for seed in range(12):
        image = np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8)
        runs = [hook.call(name, image, BOXES, LABELS, np.random.default_rng(seed), 1) for _ in range(2)]
        for one, other in zip(*runs, strict=True):
            np.testing.assert_array_equal(one, other)
        changed += not np.array_equal(runs[0][0], image)
        hook.call(name, image, BOXES[:0], LABELS[:0], np.random.default_rng(seed), 1)
    assert changed
    for seed in range(30):
        sample_of(BORDERING, augment_config(mosaic_prob=0.5, hook=name), seed=seed)
