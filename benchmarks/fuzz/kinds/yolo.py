"""YOLO's text format: a yaml, images, and one text file of boxes for each, judged by a plain loop over the lines."""

import math
import random
from pathlib import Path

from benchmarks.fuzz import file_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.kinds import data_set
from benchmarks.fuzz.kinds.data_set import HEIGHT, NUM_IMAGES, WIDTH, Box, ReadSet

_YAML = "data.yaml"
_NAMES = ("cat", "dog")
_NUMBERS = (
    *(
        "",
        "0",
        "1",
        "-1",
        "0.5",
        "1.0",
        "1e-9",
        "1e400",
        "nan",
        "inf",
        "-0.2",
        "1.005",
        "7",
        "9" * 400,
        "x",
        "0,5",
        "٣",
        "1_0",
    ),
    *("0x1", "٠.٥", "0.5 0.5", "0.5\t", "\0", "é", "#", "0.25 0.25 0.25 0.25", "0.1 0.2 2", "a" * 70_000),
)
_YAMLS = (
    *(
        "names: [cat]",
        "names: []",
        "names: cat",
        "names: {0: cat, 1: dog}",
        "names: {1: dog, 0: cat}",
        "names: {0: cat, 2: dog}",
    ),
    *("names: [cat, cat]", "names: [no, yes]", "names: [[cat]]", "nc: 3", "nc: x", "nc: -1", "names: &a [*a]"),
    *(
        "train: /dev/zero",
        "train: ../../../..",
        "train: images/train.txt",
        "train: []",
        "train: [images/train, images/train]",
    ),
    *(
        "path: /nowhere",
        "path: .",
        "path: images",
        "path: '~'",
        "kpt_shape: [1, 3]",
        "kpt_shape: x",
        "kpt_shape: [0, 0]",
    ),
    *("x: !!python/object/apply:os.system ['touch ran']", "x: !!python/name:trapped.Feature", "\t- x", "a: b: c", "@"),
    *(
        "x: " + "[" * 50_000,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "train:\nval:",
        "? [a]\n: b",
        "%TAG ! x",
        "--- x\n--- y",
    ),
)


def make(folder: Path) -> None:
    for number in range(NUM_IMAGES):
        data_set.write_picture(folder / "images" / "train" / f"{number}.png", number)
        rows = [f"{box % 2} {0.3 + 0.1 * box:.2f} 0.5 0.2 {0.3 + 0.1 * number:.2f}" for box in range(3)]
        labels = folder / "labels" / "train" / f"{number}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(rows) + "\n")
    (folder / _YAML).write_text("path: .\ntrain: images/train\nval: images/train\nnames: [cat, dog]\n")


def change(folder: Path, rng: random.Random) -> Change:
    chosen = rng.random()
    labels = file_faults.choose_file(folder / "labels", rng)
    file = rng.choice((folder / _YAML, labels))
    if chosen < 0.4:
        return _change_labels(labels, rng)
    if chosen < 0.6:
        return _change_yaml(folder / _YAML, rng)
    return file_faults.change_file_or_image((chosen - 0.6) / 0.4, file, folder / "images", rng)


def _change_labels(file: Path, rng: random.Random) -> Change:
    lines = file.read_text().splitlines()
    number = rng.randrange(len(lines))
    words = lines[number].split()
    word, value = rng.randrange(len(words)), rng.choice(_NUMBERS)
    kind = rng.choice(("value", "value", "remove", "twice", "swap", "all"))
    if kind == "value":
        words[word] = value
    elif kind == "remove":
        del words[word]
    elif kind == "twice":
        words.insert(word, words[word])
    elif kind == "swap":
        rng.shuffle(words)
    lines[number] = " ".join(words)
    if kind == "all":
        lines = [f"{line} {value}" for line in lines]
    file.write_text("\n".join(lines))
    return Change(f"{file.name}: line {number + 1}, word {word + 1}: {kind} {value[:40]!r}")


def _change_yaml(file: Path, rng: random.Random) -> Change:
    added = rng.choice(_YAMLS)
    key = added.split(":")[0]
    lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{key}:")]
    file.write_text("\n".join([*lines, added]) + "\n")
    return Change(f"{file.name}: {added[:60]!r}")


def read(folder: Path) -> ReadSet:
    return data_set.read({"kind": "yolo_txt", "root": str(folder), "yaml": _YAML})


def judge(folder: Path, change: Change, result: ReadSet) -> Judged:
    is_of_yaml = change.text.startswith(_YAML)
    if result.class_names != _NAMES and not is_of_yaml:
        return Judged(f"classes {result.class_names}")
    reported = " ".join(map(str, result.problems))
    found = {Path(str(image.id)).name: image for image in result.images}
    for number in range(NUM_IMAGES):
        name, labels = f"{number}.png", folder / "labels" / "train" / f"{number}.txt"
        picture = folder / "images" / "train" / name
        if name not in found:
            if picture.exists() and not is_of_yaml and f"{number}.txt" not in reported and name not in reported:
                return Judged(f"{name} is left out without a word")
            continue
        wrong = data_set.wrong_pixels(found[name], picture)
        if not wrong and found[name].pixels is not None and not is_of_yaml:
            wrong = data_set.difference(found[name].boxes, _boxes(labels, result.class_names))
        if wrong:
            return Judged(f"{name}: {wrong}")
    return Judged()


def _boxes(file: Path, names: tuple[str, ...]) -> list[Box]:
    """Returns the boxes of a label file, none if there is no such file."""
    boxes: list[Box] = []
    text = _text(file.read_bytes()) if file.is_file() else ""
    for line in text.split("\n"):
        try:
            label, *values = map(float, line.split())
        except ValueError:
            continue
        is_fraction = all(-0.01 <= value <= 1.01 for value in values)
        if not (label.is_integer() and 0 <= label < len(names) and is_fraction and all(map(math.isfinite, values))):
            continue
        if len(values) >= 6 and len(values) % 2 == 0:
            corners = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
        elif len(values) == 4:
            x, y, width, height = values
            corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        else:
            continue
        x1, y1, x2, y2 = corners
        if x1 < min(x2, 1) and y1 < min(y2, 1) and x2 > 0 and y2 > 0:
            box = x1 * WIDTH, y1 * HEIGHT, x2 * WIDTH, y2 * HEIGHT
            boxes.append(data_set.clipped(names[int(label)], *box))
    return boxes


def _text(data: bytes) -> str:
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if is_utf16 else "utf-8-sig")


KIND = Kind("yolo", make, change, read, judge)
