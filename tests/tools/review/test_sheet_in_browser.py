"""The review sheet in Chromium: what is ticked there is what a corrected file has."""

import json

import numpy as np
import pytest

from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.tools.review import sheet
from yolox_jax.tools.review.labels import Labels, corrected, read_ticks
from yolox_jax.tools.review.suspicions import Suspicion


@pytest.fixture
def labels():
    truth = ShapesSource(num_images=4, seed=0).ground_truth()
    return Labels(truth, json.loads(json.dumps(truth)))


@pytest.fixture
def records(labels):
    """One suspicion of each kind: the first label of three images, and a box without a label."""
    ids = [image["id"] for image in labels.truth["images"]]
    box = (5.0, 6.0, 25.0, 36.0)
    suspicions = (
        Suspicion("moved", 0.9, ids[0], 0, 0, 0, box, None),
        Suspicion("class", 0.8, ids[1], 0, 0, 1, box, None),
        Suspicion("spurious", 0.7, ids[2], 0, 0, None, None, None),
        Suspicion("missing", 0.6, ids[3], None, None, 2, box, None),
    )
    return [labels.record(each) for each in suspicions]


@pytest.mark.slow
def test_what_is_ticked_is_exported_and_corrected(browser, labels, records, tmp_path):
    image = np.zeros((96, 96, 3), np.uint8)
    cards = [sheet.card(record, image, {1: "<b>cat"}, "a.png") for record in records]
    sheet.write(tmp_path / "index.html", "4 suspicions", "train", records, cards)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    boxes = page.locator(".card")
    assert boxes.count() == 4

    boxes.nth(0).click()
    page.keyboard.press("ArrowRight")  # to the second card
    page.keyboard.press("Space")
    page.keyboard.press("Space")  # and back
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert [each.get_attribute("aria-checked") for each in boxes.all()] == ["true", "false", "true", "false"]

    page.locator("#kinds button", has_text="missing 1").click()
    assert [each.is_visible() for each in boxes.all()] == [False, False, False, True]
    boxes.nth(3).click()
    page.locator("#kinds button", has_text="all 4").click()
    assert page.locator(".card:visible").count() == 4

    page.reload()  # the browser keeps the ticks
    assert page.inner_text("#count") == "3 of 4 ticked"
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "ticks.json"
    ticked = read_ticks(download.value.path(), "train")
    assert ticked == [records[0], records[2], records[3]]

    content = corrected(labels.content, ticked)
    before = labels.content["annotations"]
    moved, removed = records[0]["annotation"], records[2]["annotation"]
    assert len(content["annotations"]) == len(before)  # one is gone, one is new
    assert content["annotations"][moved]["bbox"] == records[0]["new_bbox"]
    assert before[removed] not in content["annotations"]
    assert content["annotations"][-1]["bbox"] == records[3]["new_bbox"]
    page.close()
