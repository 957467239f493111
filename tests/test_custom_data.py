"""Follows docs/custom_data.md as a reader does: every command, in order, on a few drawn images."""

import ast
import json
import re
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest

from configs import finetune
from tests import programs
from tests.material import ROOT, golden_shapes, golden_state_dict
from yolox_jax.data.sources.open import check_classes, open_split
from yolox_jax.inference import pretrained
from yolox_jax.weights.torch_writer import save_pth

_TEXT = (ROOT / "docs" / "custom_data.md").read_text()
_SHIP = (ROOT / "docs" / "ship.md").read_text().replace("runs/mine", "runs/finetune").replace("=DIR", "=datasets/mine")
# Appended to the page's commands to shorten its half-hour run for a test. Size and optimizer are those of
# tests/programs.py, so that both share one compiled program.
_SMALL = [
    "--config.input_size=(64, 64)",
    "--config.multiscale.enabled=false",
    "--config.hsv.enabled=false",
    "--config.data.max_boxes=8",
    "--config.batch_size=4",
    "--config.optimizer=adamw",
    f"--config.lr_per_image={1e-2 / 8}",
    "--config.weight_decay=0.05",
    "--config.ema_decay=0.998",
    "--config.epochs=2",
    "--config.no_aug_epochs=1",
    "--config.eval.every_epochs=2",
    "--config.eval.batch_size=8",
    "--config.eval.detect.conf=0.0001",  # six steps train little
]


def _commands(text: str = _TEXT) -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def _arguments_of_formats() -> list[str]:
    return re.findall(r"^```args\n(.*?)^```", _TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's folder: the programs and datasets/mine."""
    for name in ("train.py", "eval.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    mine = tmp_path / "datasets" / "mine"
    programs.make_data_set(mine)
    for split in ("train", "val"):
        shutil.copy(mine / "all.json", mine / f"{split}.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_works(reader):
    weights = reader / "nano.pth"  # instead of the download
    save_pth(weights, golden_state_dict(golden_shapes("nano")))
    outputs = []
    (export,) = (command for command in _commands(_SHIP) if any("--card" in each for each in command))
    (evaluate,) = (command for command in _commands(_SHIP) if "eval.py" in command)
    for python, *command in (*_commands(), evaluate, export):
        assert python == "python"
        program, arguments = (" ".join(command[:2]), command[2:]) if command[0] == "-m" else (command[0], command[1:])
        if any(argument.startswith("--config=") for argument in arguments):
            arguments = [*arguments, *_SMALL, f"--config.init_from={weights}"]
        if "soup" in program:
            shutil.copytree(reader / "runs" / "finetune", reader / "runs" / "second")  # for it to be averaged with
        is_doctor = "doctor" in program
        # The doctor reports the same images in both splits as an error.
        finished = programs.run(program, arguments, reader, 1 if is_doctor else 0)
        assert "Traceback" not in finished.stderr
        outputs.append(finished.stdout)
    printed = "\n".join(outputs)
    assert "train: 12 images" in printed and "error: image-in-train-and-val in val (12)" in printed
    assert "batch.jpg: 4 images of step 0" in printed
    assert "6 steps of 4 images, 2 epochs" in printed
    assert "best F1" in printed
    assert "objects in 12 images: found" in printed
    for how in ("averaged", "measured anew"):
        ending = f"  the average of 2, BatchNorm statistics {how}$"
        assert re.search(rf"^AP \d\.\d{{4}}{ending}", printed, flags=re.MULTILINE)
    assert "measured BatchNorm on 1/1 batches\n" in printed
    assert "soup.safetensors is written: give it to --weights" in printed
    assert "mine.onnx: YOLOX-nano at 64x64, 4 classes" in printed
    results = json.loads((reader / "runs" / "finetune" / "results.json").read_text())
    assert results["weights"] == "runs/finetune/best"
    card = (reader / "mine" / "README.md").read_text()
    assert f"{{type: AP, value: {results['AP']:.4f}, name: AP}}" in card and "| triangle | " in card
    for name in ("doctor.jpg", "batch.jpg", "runs/finetune/predictions.jpg", "runs/finetune/plots/f1.png"):
        assert cv2.imread(str(reader / name)) is not None, name
    assert len(list((reader / "found").glob("*.jpg"))) == programs.NUM_IMAGES
    assert (reader / "mine.onnx").stat().st_size > 1e6
    assert pretrained.load(str(reader / "soup.safetensors")).class_names == ("circle", "square", "triangle", "star")


def test_the_arguments_for_each_format_open_both_splits(reader):
    mine = reader / "datasets" / "mine"
    for split in ("train", "val"):
        shutil.copytree(mine / "images", mine / split)
    _write_yolo(mine, reader / "datasets" / "yolo")
    _write_voc(mine, reader / "datasets" / "VOCdevkit" / "VOC2007")
    formats = _arguments_of_formats()
    assert len(formats) == 4
    for arguments in formats:
        data = finetune.get_config().data
        for argument in shlex.split(arguments):
            name, _, value = argument.removeprefix("--config.data.").partition("=")
            assert name in data, argument
            data[name] = ast.literal_eval(value) if name == "also" else value
        train, val = open_split(data, "train"), open_split(data, "val")
        check_classes(None, train.class_names, val.class_names)
        assert len(train) == len(val) == (1 + len(data.also)) * programs.NUM_IMAGES, arguments
        assert sum(train.num_boxes(index) for index in range(len(train))) > programs.NUM_IMAGES
        assert not train.problems and not val.problems


def _boxes(mine: Path) -> list[tuple[dict, list[tuple[int, list[float]]]]]:
    """Each image of the json with the category index and xywh of its boxes."""
    content = json.loads((mine / "train.json").read_text())
    index_of = {category["id"]: index for index, category in enumerate(content["categories"])}
    boxes: dict[int, list[tuple[int, list[float]]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]].append((index_of[annotation["category_id"]], annotation["bbox"]))
    return [(image, boxes[image["id"]]) for image in content["images"]]


def _write_yolo(mine: Path, root: Path) -> None:
    shutil.copytree(mine / "images", root / "images")
    (root / "labels").mkdir()
    for image, boxes in _boxes(mine):
        width, height = image["width"], image["height"]
        lines = [
            f"{c} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}" for c, (x, y, w, h) in boxes
        ]
        (root / "labels" / f"{image['id']}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [circle, square, triangle, star]\n")


def _write_voc(mine: Path, root: Path) -> None:
    shutil.copytree(mine / "images", root / "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for image, boxes in _boxes(mine):
        annotation = ElementTree.Element("annotation")
        ElementTree.SubElement(annotation, "filename").text = image["file_name"]
        size = ElementTree.SubElement(annotation, "size")
        for side in ("width", "height"):
            ElementTree.SubElement(size, side).text = str(image[side])
        for category, (x, y, w, h) in boxes:
            thing = ElementTree.SubElement(annotation, "object")
            ElementTree.SubElement(thing, "name").text = f"class{category}"
            box = ElementTree.SubElement(thing, "bndbox")
            for name, value in (("xmin", x + 1), ("ymin", y + 1), ("xmax", x + w), ("ymax", y + h)):
                ElementTree.SubElement(box, name).text = str(value)
        ElementTree.ElementTree(annotation).write(root / "Annotations" / f"{image['id']}.xml")
    ids = "\n".join(str(image["id"]) for image, _ in _boxes(mine))
    for name in ("trainval", "test"):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(ids)
