"""The doctor finds one fault put into a clean set of YOLO or VOC; every kind of problem is tried in some format."""

import pytest

from tests.tools.doctor.made_data_sets import NUM_IMAGES, voc, yolo_txt
from tests.tools.doctor.test_examination import FAULTS
from yolox_jax.data.sources import problems
from yolox_jax.tools.doctor import examination, findings
from yolox_jax.types import Problem

_LINES = "0 0.2 0.3 0.3 0.4\n1 0.7 0.5 0.4 0.5\n"


@pytest.mark.parametrize(
    ("lines", "code", "expected"),
    [
        (_LINES, None, ""),
        ("1 0.2 0.3 0.3 0.4\n2 0.7 0.5 0.4 0.5\n", "shifted-categories", "1 to 2 are used, 0 to 1 are listed"),
        ("0 0.05 0.1 0.35 0.5\n1 0.5 0.25 0.9 0.75\n", "wrong-box-format", "lie inside if read as x1, y1, x2, y2"),
        ("0 0.05 0.1 0.3 0.4\n1 0.5 0.25 0.4 0.5\n", "wrong-box-format", "lie inside if read as x, y, w, h"),
    ],
)
def test_shifted_classes_and_another_box_format_are_found_in_yolo_files(tmp_path, lines, code, expected):
    found = examination.examine(yolo_txt(tmp_path, lines), size_hw=(64, 64), max_boxes=10).findings
    assert {finding.code for finding in found} == ({code} if code else set())
    assert all(expected in finding.what for finding in found)


@pytest.mark.parametrize(
    ("corners", "difficult", "codes"),
    [
        ((5, 5, 30, 30), 1, set()),
        ((0.1, 0.2, 0.5, 0.6), 0, {"normalised-boxes"}),
        ((30, 30, 9, 9), 0, {"box-without-size", "training-would-stop"}),
    ],
)
def test_difficult_boxes_of_pascal_voc_count_as_boxes_and_its_faulty_boxes_are_found(
    tmp_path, corners, difficult, codes
):
    found = examination.examine(voc(tmp_path, corners, difficult), size_hw=(64, 64), max_boxes=10).findings
    assert {finding.code for finding in found if finding.severity == "error"} == codes
    assert found == [] or codes


def _add_line(line):
    return lambda root: (root / "labels" / "train" / "3.txt").write_text(f"{_LINES}{line}\n")


def _list_an_image_twice(root):
    names = [f"images/train/{number}.png\n" for number in (*range(NUM_IMAGES), 3)]
    (root / "train.txt").write_text("".join(names))
    yaml = root / "data.yaml"
    yaml.write_text(yaml.read_text().replace("train: images/train", "train: train.txt"))


def _rename_image(root):
    (root / "images" / "train" / "3.png").rename(root / "images" / "train" / "3.heic")


def _change_xml(old, new):
    def change(root):
        file = root / "VOC" / "Annotations" / "train3.xml"
        file.write_text(file.read_text().replace(old, new))

    return change


def _label_no_image(root):
    (root / "labels" / "train" / "other.txt").write_text(_LINES)


def _add_keypoints(root):
    for file in (root / "labels" / "train").glob("*.txt"):
        file.write_text("0 0.2 0.3 0.3 0.4 0.15 0.3 2 0.25 0.2 1\n1 0.7 0.5 0.4 0.5 0 0 0 0.7 0.6 2\n")


_FAULTS_OF_YOLO = {
    "more-columns": ("note", "data.yaml", "train", _add_keypoints),
    "unmatched-labels": ("error", "labels/train/other.txt", "file", _label_no_image),
    "not-numbers": ("error", "labels/train/3.txt", "line 3", _add_line("0 0.2 0.3 0.3 cat")),
    "not-a-box": ("error", "labels/train/3.txt", "line 3", _add_line("0 0.2 0.3 0.3")),
    "not-normalised": ("error", "labels/train/3.txt", "line 3", _add_line("0 12 20 9 9")),
    "not-an-image": ("warning", "images/train", "file", lambda root: (root / "images/train/read.me").touch()),
    "unknown-format": ("error", "images/train", "file", _rename_image),
    "repeated-image": ("warning", "train.txt", "line 13", _list_an_image_twice),
}
_TWO_NAMES = "<object><name>cat</name><name>dog</name></object></annotation>"
_FAULTS_OF_VOC = {
    "missing-annotations": ("error", "train.txt", "line 4", lambda r: (r / "VOC/Annotations/train3.xml").unlink()),
    "unreadable-annotations": ("error", "train3.xml", "file", _change_xml("</annotation>", "")),
    "no-image-size": ("warning", "train3.xml", "size", _change_xml("size>", "extent>")),
    "repeated-field": ("error", "train3.xml", "object 2 (cat)", _change_xml("</annotation>", _TWO_NAMES)),
    "not-a-flag": ("warning", "train3.xml", "object 1 (cat)", _change_xml("<difficult>0", "<difficult>no")),
}


@pytest.mark.parametrize("code", [*_FAULTS_OF_YOLO, *_FAULTS_OF_VOC])
def test_faults_in_yolo_and_voc_files_are_found_with_file_and_record(tmp_path, code):
    data = yolo_txt(tmp_path, _LINES) if code in _FAULTS_OF_YOLO else voc(tmp_path, (5, 5, 30, 30), 0)
    severity, file, record, spoil = (_FAULTS_OF_YOLO | _FAULTS_OF_VOC)[code]
    spoil(tmp_path)
    (finding,) = examination.examine(data, size_hw=(64, 64), max_boxes=10).findings
    assert (finding.code, finding.severity, finding.record) == (code, severity, record)
    assert finding.file.endswith(file) and finding.what and finding.advice


def test_every_kind_of_problem_is_tested_here():
    kinds = [text for name, text in vars(problems).items() if name.isupper() and isinstance(text, str)]
    codes = {findings.from_problem(Problem(kind, "", "", "", ""), "train").code for kind in kinds}
    assert len(codes) == len(kinds) > 0
    assert codes <= {*FAULTS, *_FAULTS_OF_YOLO, *_FAULTS_OF_VOC, "few-usable"}
