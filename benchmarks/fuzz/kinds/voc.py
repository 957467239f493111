"""Pascal VOC: lists of names, and one xml for each image, judged by a plain loop over the xml files."""

import math
import random
import re
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.fuzz import file_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.kinds import data_set
from benchmarks.fuzz.kinds.data_set import HEIGHT, NUM_IMAGES, WIDTH, Box, ReadSet

_LIST = "VOC/ImageSets/Main/train.txt"
_TAGS = ("name", "difficult", "xmin", "ymin", "xmax", "ymax", "width", "height", "filename")
_VALUES = (
    *("", "0", "1", "-1", "1.5", "1e3", "1e400", "nan", "inf", "-5", "9" * 400, "x", "1,5", "0x10", "1_0", " 7 ", "٣"),
    *(
        "é",
        "a\nb",
        "../../x.jpg",
        "/dev/zero",
        "C:\\a\\2.jpg",
        "2.jpg",
        "&amp;",
        "<![CDATA[5]]>",
        "<!-- 5 -->6",
        "a" * 70_000,
    ),
)
_WHOLE = (
    *(
        "<a>" * 100_000,
        '<!DOCTYPE a [<!ENTITY b "5">]>',
        "&b;",
        "&#0;",
        "&#xd800;",
        "<object/>",
        "<object><name/></object>",
    ),
    *('<?xml version="1.0" encoding="utf-7"?>', '<?xml version="1.0" encoding="x"?>', '<a xmlns="b">', "</annotation>"),
)


def make(folder: Path) -> None:
    names = [f"image{number}" for number in range(NUM_IMAGES)]
    for number, name in enumerate(names):
        data_set.write_picture(folder / "VOC" / "JPEGImages" / f"{name}.png", number)
        objects = "".join(_object(number, box) for box in range(3))
        text = (
            f"<annotation>\n <filename>{name}.png</filename>\n"
            f" <size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>\n{objects}</annotation>\n"
        )
        file = folder / "VOC" / "Annotations" / f"{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (folder / _LIST).parent.mkdir(parents=True)
    (folder / _LIST).write_text("\n".join(names) + "\n")


def _object(number: int, box: int) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), (3 + box, 2 + number, 20 + box, 30), strict=True)
    bounds = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
    name = ("cat", "dog")[box % 2]
    return f" <object><name>{name}</name><difficult>0</difficult><bndbox>{bounds}</bndbox></object>\n"


def change(folder: Path, rng: random.Random) -> Change:
    chosen = rng.random()
    file = rng.choice((folder / _LIST, *(folder / "VOC").rglob("*.xml")))
    if chosen < 0.5:
        return _change_xml(file_faults.choose_file(folder / "VOC" / "Annotations", rng), rng)
    if chosen < 0.6:
        return _change_list(folder / _LIST, rng)
    return file_faults.change_file_or_image((chosen - 0.6) / 0.4, file, folder / "VOC" / "JPEGImages", rng)


def _change_xml(file: Path, rng: random.Random) -> Change:
    text = file.read_text()
    tag, value = rng.choice(_TAGS), rng.choice(_VALUES)
    kind = rng.choice(("value", "value", "value", "remove", "twice", "rename", "whole"))
    found = list(re.finditer(f"<{tag}>(.*?)</{tag}>", text))
    chosen = rng.choice(found)
    if kind == "value":
        text = text[: chosen.start(1)] + value + text[chosen.end(1) :]
    elif kind == "remove":
        text = text[: chosen.start()] + text[chosen.end() :]
    elif kind == "twice":
        text = text[: chosen.start()] + f"<{tag}>{value}</{tag}>" + text[chosen.start() :]
    elif kind == "rename":
        text = text[: chosen.start()] + f"<x>{chosen[1]}</x>" + text[chosen.end() :]
    else:
        value = rng.choice(_WHOLE)
        text = rng.choice((value + text, text.replace("<size>", value + "<size>"), text + value))
    file.write_text(text)
    return Change(f"{file.name}: {tag} {kind} {value[:40]!r}")


def _change_list(file: Path, rng: random.Random) -> Change:
    lines = file.read_text().splitlines()
    number = rng.randrange(len(lines))
    name = lines[number]
    lines[number] = rng.choice(
        (
            f"{name} 1",
            f"{name} -1",
            f"  {name}",
            f"{name}.png",
            name.upper(),
            "",
            "/dev/zero",
            "../x",
            "é",
            "a\0b",
            name * 500,
        )
        + (f"{name}\n{name}", "x y z", "\ufeff" + name, "image0", f"VOC/{name}", "\u2028")
    )
    file.write_text("\n".join(lines))
    return Change(f"{file.name}: line {number + 1} is {lines[number][:40]!r}")


def read(folder: Path) -> ReadSet:
    return data_set.read({"kind": "voc", "root": str(folder), "train": "VOC/train", "val": "VOC/train"})


def judge(folder: Path, change: Change, result: ReadSet) -> Judged:
    reported = " ".join(map(str, result.problems))
    found = {str(image.id): image for image in result.images}
    for number in range(NUM_IMAGES):
        name = f"image{number}"
        file = folder / "VOC" / "Annotations" / f"{name}.xml"
        picture = folder / "VOC" / "JPEGImages" / f"{name}.png"
        if name not in found:
            if name not in reported and name in (folder / _LIST).read_text(errors="replace").split():
                return Judged(f"{name} is left out without a word")
            continue
        wrong = _wrong_boxes(file, found[name], result.class_names)
        wrong = wrong or (data_set.wrong_pixels(found[name], picture) if _has_size(file) else "")
        if wrong:
            return Judged(f"{name}: {wrong}")
    return Judged()


def _wrong_boxes(file: Path, image: data_set.ReadImage, class_names: tuple[str, ...]) -> str:
    if image.pixels is None:
        return ""
    boxes: list[Box] = []
    for each in ElementTree.fromstring(file.read_bytes()).iterfind("{*}object"):
        name = (each.findtext("{*}name") or "").strip()
        corners = [_number(each.findtext(f"{{*}}bndbox/{{*}}{tag}")) for tag in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = corners[0] - 1, corners[1] - 1, corners[2], corners[3]
        is_inside = x1 < min(x2, WIDTH) and y1 < min(y2, HEIGHT) and x2 > 0 and y2 > 0
        if name in class_names and is_inside and all(map(math.isfinite, corners)):
            boxes.append(data_set.clipped(name, x1, y1, x2, y2))
    return data_set.difference(image.boxes, boxes)


def _has_size(file: Path) -> bool:
    size = ElementTree.fromstring(file.read_bytes()).find("{*}size")
    texts = [size.findtext(f"{{*}}{tag}") for tag in ("width", "height")] if size is not None else []
    return texts == [str(WIDTH), str(HEIGHT)]


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


KIND = Kind("voc", make, change, read, judge)
