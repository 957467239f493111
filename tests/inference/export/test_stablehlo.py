"""A detector in one file, on a toy network: what comes back detects the same, and needs no network."""

import json
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.material import ROOT
from tests.training import toy
from yolox_jax import Detector
from yolox_jax.inference import pretrained
from yolox_jax.inference.export.stablehlo import Exported, is_exported
from yolox_jax.inference.predict import DetectConfig

_NAMES = ("circle", "square", "star")
_SIZE = (toy.SIZE, toy.SIZE)
_CONFIG = DetectConfig(conf=0.05, iou=0.5, max_detections=20, num_candidates=50)


@pytest.fixture(scope="module")
def loaded():
    variables = toy.MODEL.init(jax.random.key(0), jnp.zeros((1, *_SIZE, 3)))
    return pretrained.Pretrained("toy", toy.MODEL, variables, _NAMES, _SIZE)


@pytest.fixture(scope="module")
def path(loaded, tmp_path_factory):
    """Exported for any number of images."""
    path = tmp_path_factory.mktemp("exported") / "toy.stablehlo.zip"
    pretrained.export(loaded, _SIZE, None, _CONFIG).write(path)
    return path


def _silent(path, **options):
    return Detector.from_pretrained(path, log=lambda text: None, **options)


def test_what_is_read_back_detects_what_the_network_detects_in_any_number_of_images(loaded, path):
    images = toy.random_batch(0, 3).images
    predict, program = pretrained.make_predict(loaded, _CONFIG), Exported.read(path)
    for batch in (images, images[:1]):
        ours, theirs = predict(batch), program.predict(batch)
        assert ours.mask.any()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_one_file_is_for_cpu_gpu_and_tpu(path):
    assert Exported.read(path).program.platforms == ("cpu", "cuda", "tpu")


def test_the_detector_takes_the_file_with_its_classes_and_its_size(path):
    detector = _silent(path, batch_size=2)
    assert (detector.class_names, detector.size_hw, detector.batch_sizes) == (_NAMES, _SIZE, [1, 2])
    pictures = [np.full((40, 80, 3), 90, np.uint8), np.full((100, 30, 3), 20, np.uint8)]
    for one, other in zip(detector(pictures), map(detector, pictures), strict=True):
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


def test_a_fixed_number_of_images_is_the_detectors_only_batch(loaded, tmp_path):
    pretrained.export(loaded, _SIZE, 2, _CONFIG, platforms=("cpu",)).write(tmp_path / "two.zip")
    detector = _silent(tmp_path / "two.zip")
    assert detector.batch_sizes == [2]
    assert len(detector(np.zeros((50, 50, 3), np.uint8))) <= 20
    assert len(detector([np.zeros((50, 50, 3), np.uint8)] * 3)) == 3


def test_the_file_is_run_without_the_networks_code(path):
    program = f"""
import sys
import numpy as np
from yolox_jax import Detector
Detector.from_pretrained({str(path)!r})(np.zeros((9, 9, 3), np.uint8))
print([name for name in sys.modules if name.startswith(("yolox_jax.models", "yolox_jax.training"))])
"""
    environment = {"JAX_PLATFORMS": "cpu", "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_what_is_fixed_in_the_file_cannot_be_asked_otherwise(path):
    with pytest.raises(ValueError, match="exported with its own conf, size: leave that out"):
        _silent(path, conf=0.5, size=(96, 96))


def test_other_files_are_not_taken_for_one(path, tmp_path):
    assert is_exported(path)
    (tmp_path / "text").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert not any(is_exported(tmp_path / name) for name in ("text", "other.zip", "absent"))


def _write_with_meta(new_path, path, change):
    """A copy whose json is `change` of the file's."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new_path, "w") as new:
        new.writestr("yolox_jax.json", json.dumps(change(json.loads(old.read("yolox_jax.json")))))
        new.writestr("program.stablehlo", old.read("program.stablehlo"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("format_version", 99, "format 99.*reads 1"), ("platforms", ["tpu"], "is for tpu, this is cpu")],
)
def test_a_file_for_others_says_so(path, tmp_path, field, value, message):
    _write_with_meta(tmp_path / "new.zip", path, lambda meta: {**meta, field: value})
    with pytest.raises(ValueError, match=message):
        Exported.read(tmp_path / "new.zip")


def test_a_file_of_a_later_version_may_have_other_fields(path, tmp_path):
    _write_with_meta(tmp_path / "new.zip", path, lambda meta: {"format_version": 2})
    with pytest.raises(ValueError, match="format 2.*reads 1"):
        Exported.read(tmp_path / "new.zip")


@pytest.mark.parametrize("field", ["format_version", "class_names", "size_hw", "batch", "platforms"])
def test_a_file_without_a_field_is_damaged(path, tmp_path, field):
    _write_with_meta(tmp_path / "new.zip", path, lambda meta: {key: meta[key] for key in meta if key != field})
    with pytest.raises(ValueError, match=f"is damaged \\('{field}'\\): copy or export it again"):
        Exported.read(tmp_path / "new.zip")


def test_a_damaged_file_says_so(path, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as new:
        new.writestr("yolox_jax.json", "{}")
    data = bytearray(path.read_bytes())
    begin = len("yolox_jax.json") + 30  # of the compressed json, after a zip file's first header
    data[begin] ^= 0xFF
    (tmp_path / "changed.zip").write_bytes(data)
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    for name in ("empty.zip", "changed.zip", "cut.zip"):
        with pytest.raises(ValueError, match="is damaged"):
            Exported.read(tmp_path / name)
