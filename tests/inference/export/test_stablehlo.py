"""A detector exported to one file, with a toy network: the file detects the same and needs no code of the network."""

import functools
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
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.export import stablehlo
from yolox_jax.inference.export.stablehlo import Exported, is_exported
from yolox_jax.inference.predict import DetectConfig, predict_images

_NAMES = ("circle", "square", "star")
_SIZE = (toy.SIZE, toy.SIZE)
_CONFIG = DetectConfig(conf=0.05, iou=0.5, max_detections=20, num_candidates=50)


@pytest.fixture(scope="module")
def loaded():
    variables = toy.MODEL.init(jax.random.key(0), jnp.zeros((1, *_SIZE, 3)))
    return pretrained.Pretrained("toy", toy.MODEL, variables, _NAMES, _SIZE)


@pytest.fixture(scope="module")
def detect(loaded):
    return functools.partial(predict_images, loaded.model, loaded.variables, config=_CONFIG)


@pytest.fixture(scope="module")
def path(detect, tmp_path_factory):
    """A file exported for any number of images."""
    path = tmp_path_factory.mktemp("exported") / "toy.stablehlo.zip"
    stablehlo.export(detect, _NAMES, _SIZE, None).write(path)
    return path


def _silent(path, **options):
    return Detector.from_pretrained(path, log=lambda text: None, **options)


def test_the_file_detects_what_the_network_detects_in_any_number_of_images(loaded, path):
    images = toy.random_batch(0, 3).images
    in_memory, program = pretrained.make_detect(loaded, _CONFIG), Exported.read(path)
    for batch in (images, images[:1]):
        ours, theirs = in_memory(batch), program.predict(batch)
        assert ours.mask.any()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_one_file_is_for_cpu_gpu_and_tpu(path):
    assert Exported.read(path).program.platforms == ("cpu", "cuda", "tpu")


def test_the_detector_takes_class_names_and_input_size_from_the_file(path):
    detector = _silent(path, batch_size=2)
    assert (detector.class_names, detector.size_hw, detector.batch_sizes) == (_NAMES, _SIZE, [1, 2])
    pictures = [np.full((40, 80, 3), 90, np.uint8), np.full((100, 30, 3), 20, np.uint8)]
    for one, other in zip(detector(pictures), map(detector, pictures), strict=True):
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


def test_a_file_for_a_fixed_number_of_images_gives_the_detector_that_batch_size_only(detect, tmp_path):
    stablehlo.export(detect, _NAMES, _SIZE, 2, platforms=("cpu",)).write(tmp_path / "two.zip")
    detector = _silent(tmp_path / "two.zip")
    assert detector.batch_sizes == [2]
    assert len(detector(np.zeros((50, 50, 3), np.uint8))) <= 20
    assert len(detector([np.zeros((50, 50, 3), np.uint8)] * 3)) == 3


def test_the_file_runs_without_importing_the_networks_code(path):
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


def test_options_that_the_file_fixes_are_refused_by_name(path):
    with pytest.raises(
        UserError, match="^size, conf cannot be changed: .*toy.* was exported with its own: leave these options out"
    ):
        _silent(path, conf=0.5, size=(96, 96))


def test_other_files_are_not_recognized_as_exported(path, tmp_path):
    assert is_exported(path)
    (tmp_path / "text").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert not any(is_exported(tmp_path / name) for name in ("text", "other.zip", "absent"))


def _write_with_meta(new_path, path, change):
    """Writes a copy of the file with its json replaced by `change(json)`."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new_path, "w") as new:
        new.writestr("yolox_jax.json", json.dumps(change(json.loads(old.read("yolox_jax.json")))))
        new.writestr("program.stablehlo", old.read("program.stablehlo"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format_version", 99, "format 99.*reads format 1: export it again"),
        ("platforms", ["tpu"], "exported for tpu, but JAX runs on cpu here: export it for cpu"),
    ],
)
def test_a_file_of_another_version_or_platform_is_refused_with_advice(path, tmp_path, field, value, message):
    _write_with_meta(tmp_path / "new.zip", path, lambda meta: {**meta, field: value})
    with pytest.raises(UserError, match=message):
        Exported.read(tmp_path / "new.zip")


def test_the_version_is_checked_before_the_other_fields(path, tmp_path):
    _write_with_meta(tmp_path / "new.zip", path, lambda meta: {"format_version": 2})
    with pytest.raises(UserError, match="format 2.*reads format 1"):
        Exported.read(tmp_path / "new.zip")


@pytest.mark.parametrize("field", ["format_version", "class_names", "size_hw", "batch", "platforms"])
def test_a_file_that_lacks_a_field_is_reported_as_damaged(path, tmp_path, field):
    _write_with_meta(tmp_path / "new.zip", path, lambda meta: {key: meta[key] for key in meta if key != field})
    with pytest.raises(UserError, match=f"is damaged \\('{field}'\\): copy or export it again"):
        Exported.read(tmp_path / "new.zip")


def test_changed_and_truncated_files_are_reported_as_damaged(path, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as new:
        new.writestr("yolox_jax.json", "{}")
    data = bytearray(path.read_bytes())
    begin = len("yolox_jax.json") + 30  # where the compressed json begins, after the first header of a zip file
    data[begin] ^= 0xFF
    (tmp_path / "changed.zip").write_bytes(data)
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    for name in ("empty.zip", "changed.zip", "cut.zip"):
        with pytest.raises(UserError, match="is damaged"):
            Exported.read(tmp_path / name)


def test_a_program_of_another_version_of_jax_is_refused(path, tmp_path, monkeypatch):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bytes.zip", "w") as new:
        new.writestr("yolox_jax.json", old.read("yolox_jax.json"))
        new.writestr("program.stablehlo", b"of a later serialization")
    with pytest.raises(UserError, match="bytes.zip holds a program that jax .* cannot read .*: export it again"):
        Exported.read(tmp_path / "bytes.zip")
    version = Exported.read(path).program.calling_convention_version
    monkeypatch.setattr(jax.export, "maximum_supported_calling_convention_version", version - 1)
    with pytest.raises(UserError, match=rf"cannot read \(version {version}, not \d+ to {version - 1}\)"):
        Exported.read(path)


def test_an_unwritable_file_is_named(detect, tmp_path):
    exported = stablehlo.export(detect, _NAMES, _SIZE, 1, platforms=("cpu",))
    with pytest.raises(UserError, match="no/toy.zip cannot be written .No such file or directory.: "):
        exported.write(tmp_path / "no" / "toy.zip")
