"""A detector exported to one file, with a toy network: the file detects the same and needs no code of the network."""

import dataclasses
import functools
import json
import re
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
from yolox_jax.inference.export import certificate, exported_file, runtimes, stablehlo
from yolox_jax.inference.export.exported_file import Description, is_exported
from yolox_jax.inference.export.stablehlo import Exported
from yolox_jax.inference.predict import DetectConfig, of_one_image, predict_images

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


@pytest.mark.slow
def test_a_file_with_slices_takes_an_image_in_any_number_of_tiles(loaded, tmp_path):
    config = dataclasses.replace(_CONFIG, slices="1x2", overlap=0.3)
    detect = functools.partial(predict_images, loaded.model, loaded.variables, config=config)
    run = of_one_image(pretrained.make_detect(loaded, config), config, _SIZE)
    certified = certificate.make(run, _NAMES, _SIZE, config, certificate.FLOAT32)
    exported = stablehlo.export(detect, _NAMES, _SIZE, None, ("cpu",), tiling=config.tiling)
    exported.write(tmp_path / "tiles.zip", certified.to_json())
    read, file = runtimes.open_exported(tmp_path / "tiles.zip")
    assert read.num_detections and certificate.compare(read, file).is_within(read.bound)
    assert Exported.read(tmp_path / "tiles.zip").tiling == config.tiling
    theirs = _silent(tmp_path / "tiles.zip")
    ours = Detector(pretrained.make_detect(loaded, config), _NAMES, _SIZE, log=str, tiling=config.tiling)
    rng = np.random.default_rng(0)
    for image_hw in ((50, 60), (100, 120)):
        image = rng.integers(0, 256, (*image_hw, 3), np.uint8)
        one, other = ours(image), theirs(image)
        assert len(one)
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_options_that_the_file_fixes_are_refused_by_name(path):
    with pytest.raises(
        UserError, match="^size, conf cannot be changed: .*toy.* was exported with its own: leave these options out"
    ):
        _silent(path, conf=0.5, size=(96, 96))


def test_other_files_are_not_recognized_as_exported_and_a_damaged_one_is_by_its_name(path, tmp_path):
    assert is_exported(path)
    (tmp_path / "text").write_text("text")
    (tmp_path / "cut.stablehlo.zip").write_bytes(path.read_bytes()[:1000])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert not any(is_exported(tmp_path / name) for name in ("text", "other.zip", "absent"))
    with pytest.raises(UserError, match="cut.stablehlo.zip is damaged .*: copy or export it again"):
        _silent(tmp_path / "cut.stablehlo.zip")


def test_16_bit_images_are_read_as_in_training(detect, tmp_path):
    stablehlo.export(detect, _NAMES, _SIZE, 1, ("cpu",), sixteen_bit="range").write(tmp_path / "deep.zip")
    assert _silent(tmp_path / "deep.zip").image_config.sixteen_bit == "range"


def _parts(path):
    """The description and the program of a file, as its two members."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("yolox_jax.json")), archive.read("program.stablehlo")


def _write(path, content, program, sealed=True):
    """Writes the two members; `sealed` with the hash that belongs to them, as somebody who means harm would."""
    if sealed:
        fields = {name: content[name] for name in content if name not in ("format_version", "sha256")}
        content = content | {"sha256": exported_file._hash(fields, program)}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("yolox_jax.json", json.dumps(content))
        archive.writestr("program.stablehlo", program)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format_version", 99, "format 99.*reads format 2: export it again"),
        ("platforms", ["tpu"], "exported for tpu, but JAX runs on cpu here: export it for cpu"),
    ],
)
def test_a_file_of_another_version_or_platform_is_refused_with_advice(path, tmp_path, field, value, message):
    content, program = _parts(path)
    _write(tmp_path / "new.zip", content | {field: value}, program)
    with pytest.raises(UserError, match=message):
        Exported.read(tmp_path / "new.zip")


def test_the_version_is_checked_before_the_other_fields(path, tmp_path):
    _write(tmp_path / "new.zip", {"format_version": 1}, b"", sealed=False)
    with pytest.raises(UserError, match="format 1.*reads format 2"):
        Exported.read(tmp_path / "new.zip")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("format_version", value) for value in (None, "2", True)],
        *[("class_names", value) for value in (None, [], "abc", ["a", 1], {"a": 1})],
        *[
            ("size_hw", value)
            for value in (None, 64, [64], [64, 65], [64.0, 64.0], ["64", "64"], [-32, 32], [True, 32])
        ],
        *[("batch", value) for value in (0, -1, 1.5, "1", True, [1], float("nan"))],
        *[("platforms", value) for value in (None, [], "cpu", [1], [["cpu"]])],
        *[("sixteen_bit", value) for value in (None, "half", 1, ["full"])],
        ("run", "rm"),
        ("batch", 3),
        ("size_hw", [32, 32]),
        ("platforms", ["cpu"]),
    ],
)
def test_a_field_of_a_wrong_type_or_range_or_that_differs_from_the_program_is_one_message(path, tmp_path, field, value):
    content, program = _parts(path)
    _write(tmp_path / "new.zip", content | {field: value}, program)
    with pytest.raises(UserError, match=r"new.zip is damaged \(.*\): copy or export it again"):
        Exported.read(tmp_path / "new.zip")


_REQUIRED = [f.name for f in dataclasses.fields(Description) if f.default is dataclasses.MISSING]


@pytest.mark.parametrize("field", ["format_version", *_REQUIRED, "sha256"])
def test_a_missing_field_is_reported_as_damaged(path, tmp_path, field):
    content, program = _parts(path)
    _write(tmp_path / "new.zip", {name: content[name] for name in content if name != field}, program, field != "sha256")
    with pytest.raises(UserError, match=r"is damaged \(.*\): copy or export it again"):
        Exported.read(tmp_path / "new.zip")


@pytest.mark.parametrize("content", ["", "null", "[]", "3", '"text"', "[" * 100_000, "{", '{"format_version": 2}'])
def test_a_json_of_another_form_is_reported_as_damaged(path, tmp_path, content):
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as new:
        new.writestr("yolox_jax.json", content)
    with pytest.raises(UserError, match="is damaged"):
        Exported.read(tmp_path / "new.zip")


def test_a_description_and_a_program_of_two_files_do_not_pass_for_one(path, detect, tmp_path):
    stablehlo.export(detect, ("a", "b", "c"), _SIZE, None).write(tmp_path / "other.zip")
    for content, program in (
        (_parts(path)[0], _parts(tmp_path / "other.zip")[1] + b"\0"),
        (_parts(tmp_path / "other.zip")[0] | {"class_names": ["c", "b", "a"]}, _parts(path)[1]),
    ):
        _write(tmp_path / "new.zip", content, program, sealed=False)
        with pytest.raises(UserError, match="are not those that were written together"):
            Exported.read(tmp_path / "new.zip")


def test_flipped_bytes_and_cuts_are_one_message_or_change_nothing(path, tmp_path):
    data, (content, program) = path.read_bytes(), _parts(path)
    rng = np.random.default_rng(0)
    for number in range(80):
        changed = bytearray(data)
        # Half of the changes are near the ends, where the headers are.
        place = int(rng.integers(len(data)) if number % 2 else rng.choice([rng.integers(90), -rng.integers(1, 200)]))
        changed[place] ^= 1 << int(rng.integers(8))
        if number % 5 == 0:
            del changed[int(rng.integers(len(data))) :]
        (tmp_path / "new.zip").write_bytes(changed)
        try:
            described, read = exported_file.read(tmp_path / "new.zip")
        except UserError as error:
            assert "new.zip is damaged" in error.what
        else:
            assert read == program and list(described.class_names) == content["class_names"]


def test_a_member_that_unpacks_to_more_than_any_program_is_refused_unread(path, tmp_path, monkeypatch):
    monkeypatch.setitem(exported_file._MOST_BYTES, "program.stablehlo", 1000)
    with pytest.raises(UserError, match="is damaged .program.stablehlo has more than 1000 bytes"):
        Exported.read(path)


@pytest.mark.parametrize(
    ("target", "shown"), [("xla_ffi_python_cpu_callback", "xla_ffi_python_cpu_callback"), ("a name", "?")]
)
def test_a_program_that_calls_code_outside_itself_is_refused_before_it_is_compiled(tmp_path, target, shown):
    def detect(images):
        boxes = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((1, 5, 4), jnp.float32))(images)
        return boxes, boxes[..., 0], jnp.zeros((1, 5), jnp.int32), jnp.zeros((1, 5), bool)

    checks = [jax.export.DisabledSafetyCheck.custom_call(target)]
    images = jax.ShapeDtypeStruct((1, *_SIZE, 3), jnp.uint8)
    program = jax.export.export(jax.jit(detect), platforms=("cpu",), disabled_checks=checks)(images)
    Exported(program, _NAMES, _SIZE, 1).write(tmp_path / "calls.zip")
    with pytest.raises(UserError, match=rf"calls code outside itself \({re.escape(shown)}\), which is not run"):
        Exported.read(tmp_path / "calls.zip")


def test_only_the_check_of_the_number_of_images_is_allowed():
    assert stablehlo._unknown_calls("stablehlo.custom_call @shape_assertion(%1)") == []
    text = '"stablehlo.custom_call"(%1) stablehlo.custom_call @mine.x(%2) "stablehlo.infeed"(%3) stablehlo.send'
    assert stablehlo._unknown_calls(text) == ["?", "infeed", "mine.x", "send"]


def test_a_program_of_more_classes_than_the_description_names_is_an_error(path, tmp_path):
    content, program = _parts(path)
    _write(tmp_path / "new.zip", content | {"class_names": ["one"]}, program)
    with pytest.raises(UserError, match="more than its 1 named classes"):
        Exported.read(tmp_path / "new.zip").predict(toy.random_batch(0, 3).images)


def test_a_program_that_takes_one_number_is_refused(path, tmp_path):
    platforms = Exported.read(path).program.platforms
    takes_a_number = jax.export.export(jax.jit(lambda x: (x, x, x, x)), platforms=platforms)
    program = takes_a_number(jax.ShapeDtypeStruct((), jnp.uint8)).serialize()
    _write(tmp_path / "new.zip", _parts(path)[0], bytes(program))
    with pytest.raises(UserError, match="program and description differ"):
        Exported.read(tmp_path / "new.zip")


def test_a_program_of_another_version_of_jax_is_refused(path, tmp_path, monkeypatch):
    _write(tmp_path / "bytes.zip", _parts(path)[0], b"of a later serialization")
    with pytest.raises(UserError, match="bytes.zip holds a program that jax .* cannot read .*: export it again"):
        Exported.read(tmp_path / "bytes.zip")
    version = Exported.read(path).program.calling_convention_version
    monkeypatch.setattr(jax.export, "maximum_supported_calling_convention_version", version - 1)
    with pytest.raises(UserError, match=rf"cannot read \(version {version}, not \d+ to {version - 1}\)"):
        Exported.read(path)


def test_an_unwritable_file_is_named(detect, tmp_path):
    exported = stablehlo.export(detect, _NAMES, _SIZE, 1, platforms=("cpu",))
    (tmp_path / "no").write_text("")
    with pytest.raises(UserError, match="no/toy.zip cannot be written .File exists.: "):
        exported.write(tmp_path / "no" / "toy.zip")
