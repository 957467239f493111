"""Exported detectors: a zip of a program and of its description, which a hash ties together."""

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.fuzz import file_faults, json_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from yolox_jax.inference.detector import Detector
from yolox_jax.inference.export import exported_file, stablehlo
from yolox_jax.types import Detections

_FILE, _NAMES, _SIDE = "small.stablehlo.zip", ("cat", "dog"), 32
_JSON, _PROGRAM = "yolox_jax.json", "program.stablehlo"


def make(folder: Path) -> None:
    stablehlo.export(_detect, _NAMES, (_SIDE, _SIDE), None, platforms=("cpu",)).write(folder / _FILE)


def _detect(images_BHW3: jax.Array) -> Detections:
    """Returns one box, whose score is the mean of the image."""
    scores_B1 = images_BHW3.astype(jnp.float32).mean(axis=(1, 2, 3))[:, None] / 255
    boxes = jnp.broadcast_to(jnp.array([2.0, 4.0, 20.0, 30.0]), (*scores_B1.shape, 4))
    return Detections(boxes, scores_B1, jnp.ones(scores_B1.shape, jnp.int32), scores_B1 > 0)


def change(folder: Path, rng: random.Random) -> Change:
    file = folder / _FILE
    chosen = rng.random()
    if chosen < 0.3:
        return file_faults.change_bytes(file, rng)
    if chosen < 0.35:
        return file_faults.replace_file(file, rng)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = rng.choice(("description", "description", "description, hashed", "program", "members"))
    text = ""
    if kind.startswith("description"):
        fields = json.loads(members[_JSON])
        changed, text = json_faults.change_value(fields, rng)
        members[_JSON] = json_faults.dump(changed).encode("utf-8", "surrogatepass")
    elif kind.startswith("program"):
        (folder / _PROGRAM).write_bytes(members[_PROGRAM])
        text = file_faults.change_bytes(folder / _PROGRAM, rng).text
        members[_PROGRAM] = (folder / _PROGRAM).read_bytes()
        (folder / _PROGRAM).unlink()
    else:
        name = rng.choice(sorted(members))
        text = rng.choice(("missing", "renamed", "huge"))
        data = members.pop(name)
        if text != "missing":
            members.update({f"../{name}": data} if text == "renamed" else {name: bytes(1 << 28)})
    if kind.endswith("hashed"):
        members[_JSON] = _hashed(members)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return Change(f"{kind}: {text}")


def _hashed(members: dict[str, bytes]) -> bytes:
    """Returns the description with the hash of what it says now, as whoever wanted to deceive would write it."""
    try:
        fields = json.loads(members[_JSON])
        version = fields.pop("format_version")
        del fields["sha256"]
        stated = exported_file._hash(fields, members[_PROGRAM])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return members[_JSON]
    return json.dumps({"format_version": version, **fields, "sha256": stated}).encode()


def read(folder: Path) -> tuple[tuple[str, ...], tuple[int, int], Any]:
    detector = Detector.from_pretrained(folder / _FILE, batch_size=2)
    return detector.class_names, detector.size_hw, detector(_image())


def _image() -> np.ndarray:
    return np.full((_SIDE, _SIDE, 3), 204, np.uint8)


def judge(folder: Path, change: Change, result: tuple[tuple[str, ...], tuple[int, int], Any]) -> Judged:
    names, size_hw, found = result
    with zipfile.ZipFile(folder / _FILE) as archive:
        described = json.loads(archive.read(_JSON))
    if list(names) != described["class_names"] or list(size_hw) != described["size_hw"]:
        return Judged(f"{names} at {size_hw}, described as {described}")
    if not np.allclose(found.boxes_xyxy, [[2, 4, 20, 30]]) or not np.allclose(found.scores, [0.8], atol=1e-6):
        return Judged(f"detects {found}")
    return Judged()


KIND = Kind("exported", make, change, read, judge)
