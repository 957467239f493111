"""Every command of docs/small_objects_wrong_labels.md, of a network that has learned nothing but finds something."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import small_objects, spoiled_labels
from tests import programs, small
from tests.material import ROOT
from tests.training import toy
from yolox_jax.cli import from_config
from yolox_jax.data.images import read
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints

_CLASSES = ("circle", "square", "triangle", "star")
_PAGE = ROOT / "docs" / "small_objects_wrong_labels.md"
# What the page trains with, made small.
_SHORT = {"--config.input_size": "(64, 64)", "--config.epochs": "2", "--config.no_aug_epochs": "1"}
_BENCHMARKS = {"benchmarks.small_objects": small_objects, "benchmarks.spoiled_labels": spoiled_labels}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page supposes: a data set DIR, a run runs/mine, photographs, and some with COCO boxes."""
    folder = tmp_path_factory.mktemp("page")
    programs.make_data_set(folder / "DIR")
    shutil.copy(folder / "DIR" / "all.json", folder / "DIR" / "train.json")
    shutil.copytree(folder / "DIR" / "images", folder / "photos")
    programs.make_data_set(folder / "coco_val100", num_images=20)  # as many as a canvas takes
    shutil.move(folder / "coco_val100" / "all.json", folder / "coco_val100" / "annotations.json")
    config = small.get_config()
    model = from_config.model(config, len(_CLASSES))
    checkpoints = Checkpoints(folder / "runs" / "mine")
    for step in (1, 2):
        meta = toy.meta(step, model="pico", class_names=_CLASSES, config={"input_size": [64, 64], "optimizer": "sgd"})
        variables = _sure(state.init_variables(model, seed=step))
        checkpoints.save(state.create(variables, optim.sgd(0.9, 0.0)), meta)
    checkpoints.close()
    first = json.loads((folder / "DIR" / "all.json").read_text())["annotations"][0]
    tick = {"kind": "spurious", "image_id": first["image_id"], "annotation": 0, "old_bbox": first["bbox"]}
    tick |= {"old_category_id": first["category_id"], "new_bbox": None, "new_category_id": None}
    (folder / "ticks.json").write_text(json.dumps({"split": "train", "ticked": [tick]}))
    return folder


def _sure(variables):
    """Returns variables that find something in every image: objectness and classes have scores around 0.7."""

    def with_bias(path, x):
        names = jax.tree_util.keystr(path)
        return np.ones_like(x) if "bias" in names and ("obj_preds" in names or "cls_preds" in names) else x

    return jax.tree_util.tree_map_with_path(with_bias, variables)


def _commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", _PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines]
    assert {command[0] for command in commands} == {"python"}
    return [command[1:] for command in commands]


def _run(words: list[str], folder) -> subprocess.CompletedProcess[str]:
    """Runs a program in `folder` to its end, with a small network in place of those of the page."""
    program, rest = (f"-m tests.small {words[1]}", words[2:]) if words[0] == "-m" else (words[0], words[1:])
    if any(each.startswith("--config=") for each in rest):
        given = dict(each.split("=", 1) for each in rest)
        given |= {name: value for name, value in _SHORT.items() if name in given}
        known = [each for each in programs.arguments(given["--config.data.root"]) if "epochs" not in each]
        del given["--config"]
        rest = [each for each in known if each.partition("=")[0] not in given]
        rest += [f"{name}={value}" for name, value in given.items()]
    return programs.run(program, rest, folder, 0)


def _run_benchmark(name: str, arguments: list[str], monkeypatch) -> None:
    """Runs it in this process, which has imported everything it needs; one canvas, one round."""
    more = {"make": ["--canvases=1"], "time": ["--rounds=1", "--despite-load"]}.get(arguments[0], [])
    monkeypatch.setattr(sys, "argv", [name, *arguments, *more])
    _BENCHMARKS[name].main()


@pytest.mark.slow
def test_every_command_of_the_page_runs_in_its_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    commands = _commands()
    assert len(commands) == 14
    evaluated = []
    for words in commands:
        words = ["--weights=runs/mine" if each == "--weights=yolox_nano" else each for each in words]
        if words[1] in _BENCHMARKS:
            _run_benchmark(words[1], words[2:], monkeypatch)
            continue
        finished = _run(words, folder)
        evaluated += [finished.stdout] if words[0] == "eval.py" else []
    entries = json.loads((folder / "predictions" / "predictions.json").read_text())
    assert len(entries["images"]) == programs.NUM_IMAGES and entries["is_complete"]
    truth = json.loads((folder / "DIR" / "all.json").read_text())
    (first, *_), all_ = truth["annotations"], len(truth["annotations"])
    mended = json.loads((folder / "review" / "corrected.json").read_text())
    assert len(mended["annotations"]) == all_ - 1 and first not in mended["annotations"]
    assert len(json.loads((folder / "labels" / "labels.json").read_text())["images"]) == programs.NUM_IMAGES
    assert len((folder / "labels" / "next.txt").read_text().splitlines()) == programs.NUM_IMAGES
    assert len(read(folder / "small" / "images" / "0.jpg")) == 1500
    printed = capsys.readouterr().out
    assert "10 tiles with the whole image" in printed and "first " in printed
    counts = [
        re.findall(r"^compiling for up to (\d+) tiles at 64x64, once for", text, re.MULTILINE) for text in evaluated
    ]
    assert counts == [["5", "7"], ["37"]] and all(re.search(r" AP_small +[\d-]", text) for text in evaluated)
    assert "warning: an image of 1500x2000 would need more than 36 tiles of 64x64 pixels" in evaluated[1]
    _check_review(folder / "review")


def _check_review(folder) -> None:
    """The review lists suspicions of known kinds, the most doubtful first, and its sheet has a card of each."""
    suspicions = json.loads((folder / "review.json").read_text())["suspicions"]
    doubts = [each["doubt"] for each in suspicions]
    assert doubts == sorted(doubts, reverse=True) and doubts[0] > doubts[-1]
    assert "missing" in {each["kind"] for each in suspicions} <= {"missing", "spurious", "class", "moved"}
    (data,) = re.findall(r'id="data">(.*)</script>', (folder / "index.html").read_text())
    assert len(json.loads(data)["cards"]) == len(suspicions) > 0
