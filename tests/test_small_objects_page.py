"""Every command of docs/small_objects_wrong_labels.md for a run of one's own, of a network that has learned nothing."""

import json
import re
import shlex
import shutil

import pytest

from tests import programs, small
from tests.material import ROOT
from tests.training import toy
from yolox_jax.cli import from_config
from yolox_jax.training import optim, state
from yolox_jax.training.checkpoints import Checkpoints

_CLASSES = ("circle", "square", "triangle", "star")
_PAGE = ROOT / "docs" / "small_objects_wrong_labels.md"
_MEASUREMENTS = ("-m benchmarks.", "--weights=yolox_nano")  # need photographs of COCO and official weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page supposes: a data set DIR, a run runs/mine, and photographs."""
    folder = tmp_path_factory.mktemp("page")
    programs.make_data_set(folder / "DIR")
    shutil.copytree(folder / "DIR" / "images", folder / "photos")
    config = small.get_config()
    model = from_config.model(config, len(_CLASSES))
    checkpoints = Checkpoints(folder / "runs" / "mine")
    for step in (1, 2):
        meta = toy.meta(step, model="pico", class_names=_CLASSES, config={"input_size": [64, 64], "optimizer": "sgd"})
        checkpoints.save(state.create(state.init_variables(model, seed=step), optim.sgd(0.9, 0.0)), meta)
    checkpoints.close()
    first = json.loads((folder / "DIR" / "all.json").read_text())["annotations"][0]
    tick = {"kind": "spurious", "image_id": first["image_id"], "annotation": 0, "old_bbox": first["bbox"]}
    tick |= {"old_category_id": first["category_id"], "new_bbox": None, "new_category_id": None}
    (folder / "ticks.json").write_text(json.dumps({"split": "train", "ticked": [tick]}))
    return folder


def _commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", _PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if line.startswith("python ")]
    return [shlex.split(line) for line in commands if not any(part in line for part in _MEASUREMENTS)]


@pytest.mark.slow
def test_every_command_of_the_page_runs_in_its_order(folder):
    commands = _commands()
    assert len(commands) == 7
    for _, *words in commands:
        program, rest = (f"-m tests.small {words[1]}", words[2:]) if words[0] == "-m" else (words[0], words[1:])
        if "--config=configs/finetune.py" in rest:
            known = [each for each in programs.arguments(folder / "DIR") if "epochs" not in each]
            own = {each.partition("=")[0] for each in known}
            rest = known + [each for each in rest if each.partition("=")[0] not in own]
        programs.run(program, rest, folder, 0)
    entries = json.loads((folder / "predictions" / "predictions.json").read_text())
    assert len(entries["images"]) == programs.NUM_IMAGES and entries["is_complete"]
    truth = json.loads((folder / "DIR" / "all.json").read_text())
    (first, *_), all_ = truth["annotations"], len(truth["annotations"])
    mended = json.loads((folder / "review" / "corrected.json").read_text())
    assert len(mended["annotations"]) == all_ - 1 and first not in mended["annotations"]
    assert len(json.loads((folder / "labels" / "labels.json").read_text())["images"]) == programs.NUM_IMAGES
    assert len((folder / "labels" / "next.txt").read_text().splitlines()) == programs.NUM_IMAGES
