"""The doctor's printed report, its files and its exit code."""

import json

import cv2
import numpy as np
import pytest

from tests import programs
from tests.material import ROOT
from yolox_jax.tools.doctor import examination, findings_report
from yolox_jax.tools.doctor.examination import Report
from yolox_jax.tools.doctor.findings import Finding
from yolox_jax.visualize import sheets


def test_a_report_shows_ten_findings_of_a_kind_and_their_advice_once():
    of_code = [Finding("error", "box-outside", "val", "v.json", f"annotation {i}", "far", "go") for i in range(12)]
    text = findings_report.text(Report([*of_code, Finding("note", "quiet", "train", "", "class cat", "so", "do")], {}))
    lines = text.splitlines()
    assert "error: box-outside in val (12)" in lines
    assert lines.count("  v.json: annotation 9: far") == 1 and "  and 2 more; --json=FILE lists all" in lines
    assert not any("annotation 10" in line for line in lines)
    assert lines.count("  advice: go") == 1
    assert "note: quiet in train" in lines and "  class cat: so" in lines and "  advice: do" in lines
    assert lines[-1] == "12 errors, 0 warnings, 1 note"


def test_the_sheet_begins_with_the_images_that_have_findings():
    shapes = {"num_train": 3, "num_val": 2, "seed": 0}
    report = examination.examine({"kind": "shapes", "shapes": shapes}, size_hw=(96, 96), max_boxes=10)
    of_image = Finding("warning", "strange", "val", "", "image 1", "so", "do", image=1)
    sheet = findings_report.contact_sheet(Report([of_image], report.splits))
    assert sheet.shape == (2 * 320, 4 * 320, 3)  # each of the five images once
    pictures = [sheets.fit(report.splits["val"].source[index].image, 320 - 18)[0] for index in (1, 0)]
    shown = [(sheet[18 : 18 + p.shape[0], : p.shape[1]] == p).all(axis=2).mean() for p in pictures]
    assert shown[0] > 0.5 > shown[1]  # boxes and captions cover the rest


@pytest.mark.parametrize("is_clean", [True, False])
def test_the_exit_code_is_1_for_errors_and_0_for_warnings_on_a_terminal_of_any_encoding(
    tmp_path, is_clean, monkeypatch
):
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)  # ASCII, which has no 盒
    image = {"id": 1, "file_name": "1.png", "width": 40, "height": 40}
    box = {"id": 1, "image_id": 1, "category_id": 1 if is_clean else 7, "bbox": [5, 5, 20, 20]}
    for level, split in enumerate(("train", "val")):
        (tmp_path / split).mkdir()
        cv2.imwrite(str(tmp_path / split / "1.png"), np.full((40, 40, 3), 50 * level, np.uint8))
        content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "盒"}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    fields = {"kind": "coco", "root": tmp_path, "train": "train.json", "train_images": "train", "val": "val.json"}
    fields["val_images"] = "val"
    arguments = [f"--config={ROOT / 'configs' / 'yolox_nano.py'}", "--json=found.json", "--sheet=sheet.png"]
    arguments += [f"--config.data.{name}={value}" for name, value in fields.items()]
    finished = programs.run("-m yolox_jax.tools.doctor", arguments, tmp_path, 0 if is_clean else 1)
    assert rf"train: 1 images, {int(is_clean)} boxes: \u76d2" in finished.stdout and finished.stderr == ""
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["splits"]["val"]["boxes_of_class"] == {"盒": int(is_clean)}
    kinds = {(finding["severity"], finding["code"]) for finding in written["findings"]}
    assert ("error", "unknown-category") in kinds or is_clean
    assert ("warning", "class-with-few-boxes" if is_clean else "class-without-boxes") in kinds
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
