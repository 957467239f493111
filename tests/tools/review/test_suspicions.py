"""Suspicions about labels: each kind of mistake is found as what it is, and a habit of the file ranks low."""

import dataclasses
import json
import re

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks.spoiled_labels import judge, spoil
from configs import base
from yolox_jax.boxes import xywh_to_xyxy
from yolox_jax.cli import from_config
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.views.classes import ClassesSource
from yolox_jax.errors import UserError
from yolox_jax.evaluation.image_boxes import ImageBoxes, by_image
from yolox_jax.inference.detections import ImageDetections
from yolox_jax.tools.review import labeling, sheet
from yolox_jax.tools.review.labels import Labels, corrected, index_of, read_ticks
from yolox_jax.tools.review.suspicions import Suspicion, gather, suspect

_BOXES = np.array([[10, 10, 50, 50], [100, 10, 150, 60], [10, 100, 60, 150], [100, 100, 160, 170]], np.float64)
_LABELS = np.array([0, 1, 0, 1])


def _image(boxes=_BOXES, labels=_LABELS, found=_BOXES, found_labels=_LABELS, scores=(0.9,) * 4, crowd=None):
    crowd = np.zeros(len(labels), bool) if crowd is None else crowd
    return ImageBoxes(7, boxes, labels, crowd, found, found_labels, np.array(scores))


def _suspect(*witnesses: ImageBoxes):
    return suspect([gather(witnesses[0], witnesses, 2)], 2)


def test_labels_that_all_witnesses_find_are_not_suspicious():
    assert all(each.doubt < 0.1 for each in _suspect(_image(), _image(scores=(0.8,) * 4)))


def test_each_kind_of_mistake_is_found_as_what_it_is():
    removed = _suspect(_image(_BOXES[1:], _LABELS[1:]))[0]
    assert (removed.kind, removed.gt_index, removed.new_label) == ("missing", None, 0)
    np.testing.assert_allclose(removed.new_box, _BOXES[0])

    changed = _suspect(_image(labels=np.array([0, 1, 1, 1])))[0]
    assert (changed.kind, changed.gt_index, changed.old_label, changed.new_label) == ("class", 2, 1, 0)

    shifted = _BOXES + np.array([[0], [0], [0], [25]])
    moved = _suspect(_image(shifted))[0]
    assert (moved.kind, moved.gt_index, moved.new_box) == ("moved", 3, tuple(_BOXES[3]))

    added = np.concatenate([_BOXES, [[200, 200, 240, 240]]])
    spurious = _suspect(_image(added, np.array([0, 1, 0, 1, 0])))[0]
    assert (spurious.kind, spurious.gt_index, spurious.new_box) == ("spurious", 4, None)


def test_what_one_witness_of_four_finds_ranks_below_what_all_find():
    more = np.concatenate([_BOXES, [[200, 200, 240, 240], [300, 10, 340, 50]]])
    labels = np.array([0, 1, 0, 1, 0, 0])
    sure = _image(found=more[:5], found_labels=labels[:5], scores=(0.9,) * 5)
    unsure = _image(found=more, found_labels=labels, scores=(0.9,) * 6)
    first, second = (each for each in _suspect(unsure, sure, sure, sure) if each.kind == "missing")
    assert first.doubt > 3 * second.doubt and first.new_box == tuple(more[4])


def test_a_class_that_the_file_often_leaves_out_is_doubted_less():
    few = _suspect(_image(_BOXES[1:], _LABELS[1:]))
    many = _suspect(_image(_BOXES[[1, 3]], _LABELS[[1, 3]]))
    assert max(each.doubt for each in many) < max(each.doubt for each in few)


def test_crowds_are_not_suspected():
    crowd = np.array([True, False, False, False])
    unseen = _image(found=_BOXES[1:], found_labels=_LABELS[1:], scores=(0.9,) * 3, crowd=crowd)
    changed = _image(labels=np.array([1, 1, 0, 1]), crowd=crowd)
    assert "spurious" not in {each.kind for each in _suspect(unseen)}
    assert "class" not in {each.kind for each in _suspect(changed)}


@pytest.mark.parametrize("num", [0, 1])
def test_an_image_without_labels_or_detections_is_no_error(num):
    none = np.zeros((0, 4)), np.zeros(0, int)
    found = (_BOXES[:num], _LABELS[:num], (0.9,) * num)
    assert len(_suspect(_image(*none, *found))) == num
    assert len(_suspect(_image(_BOXES[:num], _LABELS[:num], *none, ()))) == num


@pytest.fixture
def content():
    annotations = [
        {"id": 5 + i, "image_id": 7, "category_id": int(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "note": i}
        for i, ((x1, y1, x2, y2), label) in enumerate(zip(_BOXES.tolist(), _LABELS, strict=True))
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    image = {"id": 7, "file_name": "a.png", "width": 400, "height": 300}
    return {"images": [image], "annotations": annotations, "categories": categories}


def test_ticks_put_each_kind_right_and_leave_the_rest_of_the_file(content, tmp_path):
    """The labels are spoiled by hand; correcting all suspicions gives the boxes back."""
    spoiled = json.loads(json.dumps(content))
    spoiled["annotations"][1]["bbox"][0] += 22
    spoiled["annotations"][2]["category_id"] = 2
    extra = {"id": 30, "image_id": 7, "category_id": 1, "bbox": [300, 200, 40, 40]}
    spoiled["annotations"] = [*spoiled["annotations"][1:], extra]
    image = by_image(spoiled, [])[0]
    seen = dataclasses.replace(image, pred_xyxy_D4=_BOXES, pred_label_D=_LABELS, score_D=np.full(4, 0.9))
    found = suspect([gather(image, [seen], 2)], 2)
    records = [Labels(spoiled, spoiled).record(each) for each in found]
    records = [each for each in records if each["doubt"] > 0 and each["kind"] != "spurious"] + [
        each for each in records if each["annotation_id"] == 30
    ]
    assert {each["kind"] for each in records} == {"missing", "spurious", "class", "moved"}
    (tmp_path / "ticks.json").write_text(json.dumps({"split": "train", "ticked": records}))
    mended = corrected(spoiled, read_ticks(tmp_path / "ticks.json", "train"))

    def boxes(annotations):
        return sorted((each["category_id"], *map(float, each["bbox"])) for each in annotations)

    assert boxes(mended["annotations"]) == boxes(content["annotations"])
    assert mended["annotations"][2] == content["annotations"][3]  # what is right keeps its own fields
    assert len({each["id"] for each in mended["annotations"]}) == 4


def test_labels_of_a_single_class_are_a_file_of_its_own_and_several_data_sets_are_refused(content, tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(content))
    shapes = ShapesSource(2, seed=0)

    def labels(source, **changes):
        data = {"kind": "coco", "root": str(tmp_path), "train": "train.json", "also": (), "single_class": False}
        return Labels.of(ConfigDict({"data": data | changes}), "train", source)

    assert labels(shapes).content == content
    assert labels(ClassesSource(shapes, (), True), single_class=True).content["categories"] == [
        {"id": 1, "name": "object"}
    ]
    with pytest.raises(UserError, match="config.data.also names more data sets: review one data set at a time"):
        labels(shapes, also=({"root": "more"},))


def test_ticks_of_another_file_are_refused(content, tmp_path):
    tick = {"kind": "moved", "image_id": 7, "annotation": 1, "old_bbox": [0, 0, 9, 9], "old_category_id": 1}
    tick |= {"new_bbox": [1, 1, 9, 9], "new_category_id": 1}
    for wrong in ({}, {"annotation": 99}, {"image_id": 8}, {"kind": "missing", "image_id": 8}):
        with pytest.raises(UserError, match="apply the ticks to the file that was reviewed"):
            corrected(content, [tick | wrong])
    for text in ("", "[]", '{"split": "val", "ticked": [{}]}', '{"split": "val", "ticked": 3}', '{"ticked": []}'):
        (tmp_path / "ticks.json").write_text(text)
        with pytest.raises(UserError, match="is not a file of ticks .*: export it from the sheet"):
            read_ticks(tmp_path / "ticks.json", "val")
    (tmp_path / "ticks.json").write_text('{"split": "val", "ticked": []}')
    with pytest.raises(UserError, match="gs://b/ticks.json is an address"):
        read_ticks("gs://b/ticks.json", "train")
    with pytest.raises(UserError, match="ticks.json has ticks of the split val: give --split=val"):
        read_ticks(tmp_path / "ticks.json", "train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_is_read_as_the_source_reads_it(content, tmp_path, monkeypatch, encoding):
    """In its encoding, below ~, and with the boxes of masks, which stay as they are in what is not ticked."""
    content["categories"][0]["name"] = "Kätzchen"
    for annotation, empty in zip(content["annotations"], ([0, 0, 0, 0], None), strict=False):
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotation["bbox"] = empty
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((300, 400, 3), np.uint8))
    (tmp_path / "all.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    monkeypatch.setenv("HOME", str(tmp_path))
    config = base.get_config()
    config.data.update({"kind": "coco", "root": "~", "train": "all.json", "train_images": "."})
    labels = Labels.of(config, "train", from_config.open_source(config, "train"))
    doubted = [labels.record(Suspicion("spurious", 0.5, 7, index, None, None, None, None)) for index in range(4)]
    assert [each["annotation"] for each in doubted] == [0, 1, 2, 3]
    assert corrected(labels.content, doubted[1:2])["annotations"] == [content["annotations"][i] for i in (0, 2, 3)]


def test_an_image_that_training_repeats_is_reviewed_once(tmp_path):
    config = base.get_config()
    config.data.update({"kind": "shapes", "repeat_threshold": 1.0})
    source = from_config.open_source(config, "train")
    ids = [source.image_id(index) for index in range(len(source))]
    indices = index_of(source)
    assert len(ids) > len(indices) == len(set(ids)) and all(ids[indices[id]] == id for id in ids)


def test_spoiled_labels_are_of_three_kinds_and_found_again_by_a_perfect_review(content):
    many = [{**each, "id": 100 * i + each["id"]} for i in range(30) for each in content["annotations"]]
    spoiled = spoil({**content, "annotations": many}, share=0.25, seed=0)
    assert len(spoiled["spoiled"]) == 30 and len(spoiled["annotations"]) == 120 - 10
    suspicions = []
    for each in spoiled["spoiled"]:
        place = None if each["kind"] == "removed" else each["id"]
        suspicions.append({"annotation_id": place, "image_id": 7, "new_bbox": each["bbox"]})
    kinds = judge(spoiled["spoiled"], [*suspicions, {"annotation_id": 1, "image_id": 7, "new_bbox": None}])
    assert kinds[-1] is None and kinds.count("shifted") == kinds.count("class") == 10
    shifted = {each["id"]: each["bbox"] for each in spoiled["spoiled"] if each["kind"] == "shifted"}
    for each in spoiled["annotations"]:
        if each["id"] in shifted:
            move = np.abs(np.subtract(each["bbox"], shifted[each["id"]]))
            assert (move[2:] == 0).all() and (move[:2] >= 0.2 * np.array(each["bbox"][2:])).any()


def test_a_card_shows_both_boxes_in_the_pixels_of_its_crop(tmp_path):
    image = np.zeros((300, 400, 3), np.uint8)
    record = {"kind": "moved", "doubt": 0.5, "image_id": 7, "old_category_id": 1, "new_category_id": 1}
    record |= {"old_bbox": [350, 10, 40, 40], "new_bbox": [360, 20, 40, 40]}
    card = sheet.card(record, image, {1: "<!--<script></script><b>cat"}, "a.png")
    for box in (card["old"], card["new"]):
        assert 0 <= box[0] and box[0] + box[2] <= 240 and box[2] == pytest.approx(240 * 40 / (2.2 * 50), abs=0.1)
    sheet.write(tmp_path / "index.html", "1 <suspicion>", "val", [record], [card])
    page = (tmp_path / "index.html").read_text()
    assert page.count("</script>") == 2 and "1 &lt;suspicion&gt;" in page  # a name ends no script
    assert page.count("<script") == 2 and "<!--" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def test_the_ticks_of_a_sheet_are_those_of_its_suspicions_and_its_split(tmp_path):
    record = {"kind": "missing", "doubt": 0.5, "image_id": 7}
    keys = set()
    for split, doubt in (("train", 0.5), ("train", 0.4), ("val", 0.5), ("train", 0.5)):
        sheet.write(tmp_path / "index.html", "1 suspicion", split, [record | {"doubt": doubt}], [])
        page = (tmp_path / "index.html").read_text()
        data = json.loads(re.search(r'id="data">(.*)</script>', page)[1])
        assert data["split"] == split
        keys.add(data["key"])
    assert len(keys) == 3 and '"review " + data.key' in page and "{ split: data.split, ticked: chosen }" in page


def test_new_images_are_those_of_a_folder_of_this_machine(tmp_path):
    with pytest.raises(UserError, match="no image is in "):
        labeling.images_in(str(tmp_path))
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    assert labeling.images_in(str(tmp_path)) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    with pytest.raises(UserError, match="gs://b/new is an address"):
        labeling.images_in("gs://b/new")


def test_new_images_get_boxes_above_the_threshold_and_the_unsure_ones_come_first():
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    labels = _LABELS.astype(np.int32)
    sure = ImageDetections(_BOXES.astype(np.float32), np.full(4, 0.95, np.float32), labels, ("a", "b"))
    nothing = ImageDetections(*none, ("a", "b"))
    assert labeling.disagreement([nothing, nothing], 2) == 0
    assert labeling.disagreement([sure, nothing], 2) > 3 and labeling.disagreement([sure, sure], 2) < 1
    unsure = dataclasses.replace(sure, scores=np.array([0.95, 0.4, 0.6, 0.5], np.float32))
    content = labeling.to_coco(("a", "b"), [("x.jpg", 400, 300)], [unsure], 0.5)
    assert [each["score"] for each in content["annotations"]] == [pytest.approx(s) for s in (0.95, 0.6, 0.5)]
    xywh = np.array([each["bbox"] for each in content["annotations"]])
    np.testing.assert_allclose(xywh_to_xyxy(xywh), _BOXES[[0, 2, 3]])
