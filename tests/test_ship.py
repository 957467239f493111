"""Follows docs/ship.md as a reader does: every command in order, and the Python of the page.

tests/test_custom_data.py evaluates a run and writes its model card with the commands of this page.
"""

import json
import re
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests import programs
from tests.browser import npm_registry
from tests.inference.white_pixels import CLASS_NAMES, WhitePixels, white_box
from tests.material import ROOT, golden_shapes, golden_state_dict
from tests.weights.hub_server import HubServer
from yolox_jax.errors import UserError
from yolox_jax.inference import pretrained
from yolox_jax.inference.detector import Detector
from yolox_jax.inference.export import model_card, runtimes, web_page
from yolox_jax.weights import safetensors_file
from yolox_jax.weights.safetensors_file import About

_TEXT = (ROOT / "docs" / "ship.md").read_text()
_NAMES = ("cell|red", "cell_white")
_RESULTS = {
    "AP": 0.41239,
    "AP50": 0.7,
    "num_images": 12,
    "per_class": [
        {"name": "cell|red", "AP": 0.41239, "AP50": 0.7, "num_boxes": 3},
        {"name": "cell_white", "AP": -1.0, "AP50": -1.0, "num_boxes": 0},
    ],
}

_COCO = {  # one image with one box that the weights find, as one of many: INT8 cannot lose more than 0.02
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 68, "bbox": [10, 33, 10, 13], "area": 130, "iscrowd": 0}],
    "categories": [{"id": k + 1, "name": f"kind {k}"} for k in range(80)],
}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights at 64x64, which find a little, in place of the page's `runs/mine/best`."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    state_dict = golden_state_dict(golden_shapes("nano"))
    state_dict |= {name: array + 12 for name, array in state_dict.items() if re.search("obj_preds.*bias", name)}
    safetensors_file.save(path, state_dict, About("nano", tuple(f"kind {k}" for k in range(80)), (64, 64), "full"))
    return path


def _run_commands(weights, folder, is_chosen) -> str:
    """Runs the commands of the page that `is_chosen` chooses, in order. Returns what they print."""
    printed = []
    lines = [line for line in "".join(_blocks("sh")).replace("\\\n", " ").splitlines() if "eval.py" not in line]
    for python, dash_m, program, *arguments in map(shlex.split, filter(is_chosen, lines)):
        assert (python, dash_m) == ("python", "-m")
        if program == "benchmarks.exported":
            arguments = ["--despite-load", *arguments]
        arguments = [f"--weights={weights}" if each.startswith("--weights=") else each for each in arguments]
        printed.append(programs.run(f"-m {program}", arguments, folder, 0).stdout)
    return "".join(printed)


def _needs_npm(command: str) -> bool:
    return "mine_web" in command


@pytest.mark.slow
def test_the_commands_for_a_browser_work(weights, tmp_path, monkeypatch):
    with npm_registry("onnxruntime-web", web_page.VERSION) as address:
        monkeypatch.setenv("npm_config_registry", address)
        monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
        text = _run_commands(weights, tmp_path, _needs_npm)
    assert "mine_web: YOLOX-nano at 64x64, 80 classes, " in text
    assert "in 3 test images; largest difference of boxes" in text


@pytest.mark.slow
def test_every_other_command_of_the_page_works(weights, tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("litert_quantizer")
    for folder in ("photos", "DIR/images"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "a.png"), white_box(64, 64, (8, 8, 24, 24)))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "DIR" / "val.json").write_text(json.dumps(_COCO))
    text = _run_commands(weights, tmp_path, lambda command: not _needs_npm(command))
    assert "mine.onnx: YOLOX-nano at 64x64, 80 classes" in text and "mine/README.md: model card" in text
    assert len(re.findall(r"in 3 test images; largest difference of boxes", text)) == 7  # 3 at the export
    measured = r" +\d\.\d\d MB +\d+\.\d ms, AP 0\.\d{4}\n"
    assert re.search(rf"^float32{measured}INT8{measured}", text, flags=re.MULTILINE)
    assert len(re.findall(r"^\| (?:StableHLO|(?:ONNX|LiteRT)(?:, INT8)?) \| ", text, flags=re.MULTILINE)) == 5
    certified, _ = runtimes.open_exported(tmp_path / "mine.onnx")  # the last one, of the photographs
    assert len(certified.images) == 1
    assert safetensors_file.load(tmp_path / "mine" / "model.safetensors")[1] == safetensors_file.load(weights)[1]
    assert (tmp_path / "found" / "labels" / "a.txt").is_file()
    monkeypatch.chdir(tmp_path)
    (program,) = (block for block in _blocks("python") if "ai_edge_litert" in block)
    exec(program, scope := {"images": np.zeros((1, 64, 64, 3), np.uint8)})  # noqa: S102  (the page is ours)
    assert {name: array.shape for name, array in scope["found"].items()} == {"boxes": (1, 84, 4), "scores": (1, 84, 80)}


def _loaded():
    return pretrained.Pretrained("nano", None, {}, _NAMES, (416, 416))


def test_the_model_card_has_the_results_of_the_run():
    card = model_card.model_card(_loaded(), "model.safetensors", _RESULTS)
    front = card.split("---\n")[1]
    assert "library_name: yolox_jax" in front and "{type: AP, value: 0.4124, name: AP}" in front
    assert "| cell\\|red | 41.2 | 70.0 | 3 |\n| cell\\_white | - | - | 0 |" in card
    assert "AP 41.2, AP50 70.0 on 12 validation images" in card and "model.safetensors" in card


def test_the_front_matter_is_yaml_with_and_without_results():
    yaml = pytest.importorskip("yaml")
    for results in (_RESULTS, None):
        front = yaml.safe_load(model_card.model_card(_loaded(), "m.pth", results).split("---\n")[1])
        assert front["pipeline_tag"] == "object-detection"
        assert ("model-index" in front) == (results is not None)


def test_results_that_are_none_are_named(tmp_path):
    path = tmp_path / "results.json"
    assert model_card.read_results(path) is None
    path.write_text(json.dumps(_RESULTS))
    assert model_card.read_results(path) == _RESULTS
    for text in ("{", "[]", '{"AP": 1}', '{"AP": "x", "AP50": 0, "num_images": 0, "per_class": []}'):
        path.write_text(text)
        with pytest.raises(UserError, match="is not a results.json"):
            model_card.read_results(path)


def test_results_of_another_checkpoint_do_not_get_into_the_card(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "ap.json").write_text(json.dumps({"2": 0.5, "4": _RESULTS["AP"]}))

    def found(step, results=_RESULTS):
        (tmp_path / "results.json").write_text(json.dumps(results))
        caplog.clear()
        return model_card.results_of(folder / str(step), f"run/{step}")

    assert found(4) == _RESULTS and not caplog.messages
    for step in (2, 3):
        assert found(step) is None
        (warning,) = caplog.messages
        assert f"is of other weights than run/{step}, so the model card has no AP: run eval.py --config=" in warning
    evaluated = _RESULTS | {"weights": "run/3"}  # as that command writes it
    assert found(3, evaluated) == evaluated and found(2, evaluated) is None
    (tmp_path / "results.json").unlink()
    assert model_card.results_of(folder / "4", "run/4") is model_card.results_of(None, "x.pth") is None


@pytest.mark.filterwarnings("ignore")  # of supervision and trackers themselves
def test_the_tracker_of_the_page_follows_an_object_through_a_video(tmp_path, monkeypatch, capsys):
    pytest.importorskip("supervision")
    pytest.importorskip("trackers")
    writer = cv2.VideoWriter(str(tmp_path / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for frame in range(8):
        writer.write(white_box(64, 96, (4 * frame, 16, 4 * frame + 24, 48)))
    writer.release()
    detector = Detector(WhitePixels(), CLASS_NAMES, (64, 64), (1, 4), log=lambda text: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Detector, "from_pretrained", lambda weights: detector)
    (program,) = (block for block in _blocks("python") if "ByteTrackTracker" in block)
    exec(program, {})  # noqa: S102  (the page is ours)
    ids = [int(line.split("]")[0].strip("[ ")) for line in capsys.readouterr().out.splitlines()]
    assert len(ids) == 8 and len(set(ids[2:])) == 1 and ids[-1] >= 0


def test_the_conversions_of_the_page_exist(tmp_path, monkeypatch):
    (program,) = (block for block in _blocks("python") if "to_coco" in block)
    pytest.importorskip("supervision")
    pytest.importorskip("pandas")
    detector = Detector(WhitePixels(), CLASS_NAMES, (64, 64), (1, 4), log=lambda text: None)
    cv2.imwrite(str(tmp_path / "street.jpg"), white_box(64, 64, (8, 8, 24, 24)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Detector, "from_pretrained", lambda weights: detector)
    exec(program, {})  # noqa: S102  (the page is ours)


_BEFORE = """
from yolox_jax.inference import pretrained

pretrained.make_detect = lambda loaded, config: loaded.variables  # compiles nothing
"""
_AFTER = """
import sys

import jax
import numpy as np

from yolox_jax.weights.load import load_weights

path, url = sys.argv[1:]
expected = pretrained.load(path)
for found in detector, Detector.from_pretrained(url):
    assert found.class_names == expected.class_names and found.size_hw == expected.size_hw
    jax.tree.map(np.testing.assert_array_equal, found._predict, expected.variables)
for address in "hf://OWNER/NAME", url:
    variables = load_weights(address, "nano", expected.class_names)  # as config.init_from does
    jax.tree.map(np.testing.assert_array_equal, variables, expected.variables)
"""


@pytest.mark.slow
def test_the_addresses_of_the_page_give_the_weights_of_the_file(weights, tmp_path):
    pytest.importorskip("huggingface_hub")
    (program,) = (block for block in _blocks("python") if "hf://" in block)
    others = {
        name: value for name, value in programs.environment().items() if not name.startswith(("HF_", "YOLOX_JAX_CACHE"))
    }
    with HubServer({"OWNER/NAME": {"model.safetensors": weights.read_bytes()}}) as server:
        ours = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "no_proxy": "127.0.0.1"}
        ours |= {"YOLOX_JAX_HOME": str(tmp_path / "home")}
        url = f"{server.url}/OWNER/NAME/resolve/main/model.safetensors"
        command = [sys.executable, "-c", _BEFORE + program + _AFTER, str(weights), url]
        ended = subprocess.run(command, env=others | ours, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "hf" / "hub").is_dir() and list((tmp_path / "home").rglob("model.safetensors"))
