"""Writes the review sheet: one HTML file with a crop of every suspicion, to look through and tick."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolox_jax import storage

_SIDE = 240  # pixels of a crop
_CONTEXT = 2.2  # a crop's side, in sides of what it shows
_LEAST = 48  # pixels of the image in a crop
_PAGE = Path(__file__).with_name("sheet.html")
_WORDS = {
    "missing": "no label here",
    "spurious": "a label, nothing found",
    "class": "another class",
    "moved": "another place",
}


def card(suspicion: Mapping[str, Any], image: np.ndarray, names: Mapping[Any, str], file_name: str) -> dict[str, Any]:
    """Returns what the page shows of one suspicion: the crop as a JPEG, and both boxes in its pixels."""
    boxes = [box for box in (suspicion["old_bbox"], suspicion["new_bbox"]) if box]
    low = np.min([box[:2] for box in boxes], axis=0)
    high = np.max([np.add(box[:2], box[2:]) for box in boxes], axis=0)
    side = max(_CONTEXT * float((high - low).max()), _LEAST)
    x, y = ((low + high) / 2 - side / 2).tolist()
    scale = _SIDE / side
    matrix = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
    crop = cv2.warpAffine(image, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderValue=(60, 60, 60))
    jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()

    def shown(box: Sequence[float] | None) -> list[float] | None:
        if box is None:
            return None
        return [round(v, 1) for v in ((box[0] - x) * scale, (box[1] - y) * scale, *np.multiply(box[2:], scale))]

    old, new = (names.get(suspicion[f"{which}_category_id"], "") for which in ("old", "new"))
    text = {"missing": new, "spurious": old, "class": f"{old} → {new}", "moved": old}[suspicion["kind"]]
    return {
        "jpeg": base64.b64encode(jpeg).decode(),
        "old": shown(suspicion["old_bbox"]),
        "new": shown(suspicion["new_bbox"]),
        "title": text,
        "words": _WORDS[suspicion["kind"]],
        "file": file_name,
    }


def write(
    path: Path,
    title: str,
    split: str,
    suspicions: Sequence[Mapping[str, Any]],
    cards: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the page. A browser keeps its ticks under a key of their own for each list of suspicions."""
    key = hashlib.sha256(json.dumps([split, suspicions]).encode()).hexdigest()[:16]
    content = {"key": key, "split": split, "suspicions": suspicions, "cards": cards}
    data = json.dumps(content).replace("<", "\\u003c")  # "<!--<script" in a name would swallow the page
    page = _PAGE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title)).replace("{{data}}", data)
    storage.write_bytes(path, page.encode())
