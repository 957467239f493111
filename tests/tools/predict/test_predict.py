"""predict on files of all kinds, with a detector that finds white pixels."""

import functools
import json
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import programs
from tests.inference.white_pixels import CLASS_NAMES, WhitePixels, white_box
from tests.material import ROOT
from tests.training import toy
from yolox_jax.data.prefetch import Shard
from yolox_jax.inference.detector import Detector
from yolox_jax.inference.export import stablehlo
from yolox_jax.inference.predict import DetectConfig, predict_images
from yolox_jax.tools.predict import media
from yolox_jax.tools.predict.extras import Extras
from yolox_jax.tools.predict.prediction import Prediction


@pytest.fixture
def folder(tmp_path):
    """Three images of different sizes, two with equal names, a damaged one, a text and a video of seven frames."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), white_box(64, 64, (8, 8, 24, 24)))
    cv2.imwrite(str(tmp_path / "in" / "b.JPG"), white_box(128, 100, (40, 40, 80, 100)))
    cv2.imwrite(str(tmp_path / "in" / "sub" / "a.png"), white_box(50, 90, (10, 10, 40, 40)))
    (tmp_path / "in" / "damaged.jpg").write_bytes((tmp_path / "in" / "b.JPG").read_bytes()[:200])
    (tmp_path / "in" / "notes.txt").write_text("no image")
    writer = cv2.VideoWriter(str(tmp_path / "in" / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for frame in range(7):
        writer.write(white_box(64, 96, (8 * frame, 16, 8 * frame + 24, 48)))
    writer.release()
    return tmp_path / "in"


@pytest.fixture
def predict(tmp_path):
    """Runs a Prediction on files; the copies are in tmp_path / "out"."""
    (tmp_path / "out").mkdir()

    def run(*named, max_frames=None):
        detector = Detector(WhitePixels(), CLASS_NAMES, (64, 64), (1, 4), log=lambda text: None)
        prediction = Prediction(detector, tmp_path / "out", max_frames)
        prediction.run(list(map(str, named)))
        return prediction

    return run


def test_all_images_of_a_folder_are_processed_and_damaged_ones_reported(folder, predict, tmp_path):
    prediction = predict(folder, folder / "sub", "nowhere/*.jpg")
    missing, damaged = map(str, prediction.unreadable)
    assert "no image or video matches nowhere/*.jpg" in missing and "damaged.jpg is truncated" in damaged
    found = {entry["file"]: entry for entry in prediction.entries if "frame" not in entry}
    assert list(found) == [str(folder / name) for name in ("a.png", "b.JPG", "sub/a.png")]
    entry = found[str(folder / "b.JPG")]
    assert (entry["width"], entry["height"]) == (100, 128)
    np.testing.assert_allclose(entry["detections"][0]["box_xyxy"], [40, 40, 80, 100], atol=4)
    for name, shape in (("a.jpg", (64, 64, 3)), ("a-2.jpg", (50, 90, 3)), ("b.jpg", (128, 100, 3))):
        assert cv2.imread(str(tmp_path / "out" / name)).shape == shape


def test_several_processes_share_the_inputs_and_write_what_one_writes(folder, predict, tmp_path):
    named = [str(folder), str(folder / "sub"), "nowhere/*.jpg"]
    alone = predict(*named)
    copies = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "shared").mkdir()
    detector = Detector(WhitePixels(), CLASS_NAMES, (64, 64), (1, 4), log=lambda text: None)
    processes = [Prediction(detector, tmp_path / "shared", shard=Shard(i, 3)) for i in range(3)]
    for process in processes:
        process.run(named)
        assert len({entry["file"] for entry in process.entries}) < 3
    processes[0].combine([process.as_part() for process in processes])
    assert processes[0].as_json() == alone.as_json()
    assert {path.name: path.read_bytes() for path in (tmp_path / "shared").iterdir()} == copies


def test_no_input_is_overwritten(folder):
    cv2.imwrite(str(folder / "c.jpg"), white_box(64, 64, (8, 8, 24, 24)))
    before = (folder / "c.jpg").read_bytes()
    detector = Detector(WhitePixels(), CLASS_NAMES, (64, 64), log=lambda text: None)
    Prediction(detector, folder).run([str(folder / "c.jpg")])
    assert (folder / "c.jpg").read_bytes() == before
    assert (folder / "c-2.jpg").exists()


def test_every_frame_of_a_video_is_processed_in_order(folder, predict, tmp_path):
    prediction = predict(folder / "film.avi")
    assert not prediction.unreadable
    assert [entry["frame"] for entry in prediction.entries] == list(range(7))
    for entry in prediction.entries:
        x1 = 8 * entry["frame"]
        np.testing.assert_allclose(entry["detections"][0]["box_xyxy"], [x1, 16, x1 + 24, 48], atol=4)
    copy = media.Video(media.Media("copy", "video", tmp_path / "out" / "film.mp4"))
    assert len(list(copy)) == 7
    assert copy.frames_per_second == 10


def test_max_frames_stops_a_video(folder, predict):
    prediction = predict(folder / "film.avi", max_frames=3)
    assert not prediction.unreadable and len(prediction.entries) == 3


def test_a_truncated_video_is_reported_and_its_frames_are_kept(folder, predict):
    data = (folder / "film.avi").read_bytes()
    cut = folder / "cut.avi"
    cut.write_bytes(data[: len(data) // 2])
    prediction = predict(cut, folder / "a.png")
    assert "cut.avi" in str(prediction.unreadable[0])
    assert prediction.entries[-1]["file"] == str(folder / "a.png")


class _Camera:
    """Replaces cv2.VideoCapture: three frames, then Ctrl-C."""

    def __init__(self, number):
        assert number == 0
        self._frames = iter([white_box(64, 96, (8 * frame, 16, 8 * frame + 24, 48)) for frame in range(3)])

    def isOpened(self):
        return True

    def get(self, what):
        return -1.0 if what == cv2.CAP_PROP_FRAME_COUNT else 0.0  # as cameras return

    def read(self):
        for frame in self._frames:
            return True, frame
        raise KeyboardInterrupt

    def release(self):
        pass


def test_ctrl_c_ends_a_webcam_and_the_next_input_follows(folder, predict, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoCapture", _Camera)
        prediction = predict("0", folder / "a.png")
    assert not prediction.unreadable
    assert [(entry["file"], entry.get("frame")) for entry in prediction.entries] == [
        *(("webcam 0", frame) for frame in range(3)),
        (str(folder / "a.png"), None),
    ]
    np.testing.assert_allclose(prediction.entries[2]["detections"][0]["box_xyxy"], [16, 16, 40, 48], atol=4)
    assert len(list(media.Video(media.Media("copy", "video", tmp_path / "out" / "webcam0.mp4")))) == 3


def test_ctrl_c_in_a_video_file_ends_the_program(folder, tmp_path):
    def interrupted(images_BHW3):
        raise KeyboardInterrupt

    detector = Detector(interrupted, CLASS_NAMES, (64, 64), log=lambda text: None)
    with pytest.raises(KeyboardInterrupt):
        Prediction(detector, tmp_path).run([str(folder / "film.avi")])


def test_a_webcam_stops_at_max_frames(predict, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    prediction = predict("0", max_frames=2)
    assert not prediction.unreadable and len(prediction.entries) == 2


def test_a_pattern_stands_for_the_files_it_matches_and_a_number_for_a_webcam(folder):
    found, errors = media.find([f"{folder}/**/*.png", "0"])
    assert [each.kind for each in found] == ["image", "image", "webcam"]
    assert not errors
    with pytest.raises(media.MediaError, match="webcam 99 cannot be opened"):
        media.Video(media.find(["99"])[0][0])


def test_an_address_in_a_bucket_is_one_error_and_the_other_inputs_are_found(folder):
    found, errors = media.find(["gs://b/*.jpg", f"{folder}/a.png", "https://host/film.mp4"])
    assert [each.path.name for each in found] == ["a.png"]
    assert [str(error) for error in errors] == [
        "gs://b/*.jpg is an address, and this takes files of this machine: copy it here first",
        "there is no file or folder https://host/film.mp4: check the path",
    ]


def test_the_name_of_a_folder_is_not_a_pattern(folder):
    folder = folder.rename(folder.parent / "holiday [2021]*")
    (folder / ".a.png").write_bytes((folder / "a.png").read_bytes())  # a hidden file, as other systems leave behind
    found, errors = media.find([str(folder)])
    assert [each.path.name for each in found] == ["a.png", "b.JPG", "damaged.jpg", "film.avi"]
    assert not errors


def _run_main(before, *arguments):
    """Runs predict's main after statements that may replace parts of it."""
    imports = "from absl import app\nfrom yolox_jax.tools.predict import __main__ as predict"
    program = f"{imports}\n{before}\napp.run(predict.main)"
    return programs.Program([sys.executable, "-c", program, *arguments], ROOT, programs.environment()).end()


def test_the_programs_flags_reach_the_detector():
    before = """
from yolox_jax.errors import UserError

def from_pretrained(weights, **options):
    raise UserError({name: value for name, value in options.items() if value is not None}, "")

predict.Detector.from_pretrained = from_pretrained
"""
    flags = ("--size=64,96", "--conf=0.5", "--iou=0.6", "--batch_size=3", "--tta", "--multi_label")
    flags += ("--slices=2x3", "--overlap=0.1")
    expected = {"size": (64, 96), "conf": 0.5, "iou": 0.6, "multi_label": True, "tta": True}
    expected |= {"slices": "2x3", "overlap": 0.1, "batch_size": 3}
    assert _run_main(before, *flags, "a.png").stderr.endswith(f"error: {expected}: \n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("KeyboardInterrupt", 130, "interrupted"),
        ("UserError('b.jpg cannot be written', 'free space')", 1, "b.jpg cannot be written: free space"),
    ],
)
def test_detections_before_ctrl_c_or_an_error_are_written(tmp_path, error, code, message):
    before = f"""
from unittest import mock
from yolox_jax.errors import UserError

def run(prediction, named):
    prediction._entries.append((0, {{"file": named[0], "detections": []}}))
    raise {error}

predict.Prediction.run = run
predict.Detector.from_pretrained = mock.Mock(return_value=mock.Mock(class_names=["white"], batch_sizes=[1]))
"""
    result = _run_main(before, f"--output={tmp_path}", "a.png", "b.png")
    assert result.returncode == code
    assert message in result.stderr and "Traceback" not in result.stderr
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["file"] for entry in content["images"]] == ["a.png"] and not content["is_complete"]
    assert "predictions.json is incomplete" in result.stderr


def test_if_another_process_is_lost_the_results_say_that_they_are_incomplete(tmp_path):
    """JAX may end a process that waits for a lost one at once, without an exception."""
    before = """
import os
from unittest import mock

predict.Prediction.run = lambda prediction, named: prediction._entries.append((0, {"file": named[0], "detections": []}))
predict.Detector.from_pretrained = mock.Mock(return_value=mock.Mock(class_names=["white"], batch_sizes=[1]))
predict.hosts.barrier = lambda *arguments: os._exit(70)
"""
    (tmp_path / "predictions.json").write_text("of an earlier call")
    assert _run_main(before, f"--output={tmp_path}", "a.png", "b.png").returncode == 70
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["file"] for entry in content["images"]] == ["a.png"] and not content["is_complete"]


def test_the_program_writes_a_json_and_exits_with_1_if_an_input_is_unreadable(folder, tmp_path):
    size_hw = (toy.SIZE, toy.SIZE)
    variables = toy.MODEL.init(jax.random.key(0), jnp.zeros((1, *size_hw, 3)))
    config = DetectConfig(conf=0.0, iou=0.5, max_detections=5, num_candidates=20)
    detect = functools.partial(predict_images, toy.MODEL, variables, config=config)
    names = ("circle", "square", "star")
    stablehlo.export(detect, names, size_hw, 1, platforms=("cpu",)).write(tmp_path / "toy.zip")
    results = {}
    for name, named in (("good", ["a.png"]), ("bad", ["damaged.jpg", "a.png"])):
        arguments = [f"--weights={tmp_path / 'toy.zip'}", f"--output={tmp_path / name}"]
        arguments += [str(folder / n) for n in named]
        results[name] = programs.run("-m yolox_jax.tools.predict", arguments, tmp_path)
        content = json.loads((tmp_path / name / "predictions.json").read_text())
        assert [entry["file"] for entry in content["images"]] == [str(folder / "a.png")]
        assert (tmp_path / name / "a.jpg").exists()
        assert len(content["unreadable"]) == len(named) - 1 and content["is_complete"]
    assert results["good"].returncode == 0, results["good"].stderr
    assert "compiling for one image at 64x64, once" in results["good"].stdout
    assert results["bad"].returncode == 1
    assert "damaged.jpg is truncated" in results["bad"].stderr


def test_a_folder_has_each_file_once_and_names_the_pictures_that_are_not_read(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.jfif", "c.HEIC", "notes.txt", "sub/d.AVIF"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "e.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    found, errors = media.find([str(tmp_path)])
    assert [each.path.name for each in found] == ["a.jpg", "b.jfif"]
    assert [str(error) for error in errors] == [f"{tmp_path}/c.HEIC is of a kind that is not read: convert it to JPEG"]
    found, errors = media.find([f"{tmp_path}/**/*"])
    assert [each.path.name for each in found] == ["a.jpg", "b.jfif", "d.AVIF"]
    assert len(errors) == 1


def test_label_files_and_crops_are_written_beside_the_copies(folder, tmp_path):
    (tmp_path / "out").mkdir()
    detector = Detector(WhitePixels(), ("black", "a/b"), (64, 64), (1, 4), log=lambda text: None)
    prediction = Prediction(detector, tmp_path / "out", 2, extras=Extras(tmp_path / "out", labels=True, crops=True))
    prediction.run([str(folder / "a.png"), str(folder / "sub" / "a.png"), str(folder / "film.avi")])
    labels = {path.name: path.read_text().splitlines() for path in (tmp_path / "out" / "labels").iterdir()}
    assert labels.keys() == {"a.txt", "a-2.txt", "film_000000.txt", "film_000001.txt"}
    label, *box, score = map(float, labels["a.txt"][0].split())
    assert label == 1 and 0 < score <= 1
    np.testing.assert_allclose(box, [16 / 64, 16 / 64, 16 / 64, 16 / 64], atol=1 / 64)
    crops = {path.parent.name: path.parent for path in (tmp_path / "out" / "crops").rglob("*.jpg")}
    assert list(crops) == ["a_b"]
    names = sorted(path.name for path in crops["a_b"].iterdir())
    assert names == ["a-0.jpg", "a-2-0.jpg", "film_000000-0.jpg", "film_000001-0.jpg"]
    assert cv2.imread(str(crops["a_b"] / "a-0.jpg")).mean() > 200
