"""Small data sets in YOLO's and Pascal VOC's format on disk; each writer returns the data section of their config."""

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
NUM_IMAGES = 12  # per split


def yolo_txt(root, lines):
    """A YOLO data set of twelve images per split, all with these lines as labels."""
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for number in range(NUM_IMAGES):
            picture = np.random.default_rng([number, len(split)]).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), picture)
            (root / "labels" / split / f"{number}.txt").write_text(lines)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return {"kind": "yolo_txt", "root": str(root)}


def voc(root, corners, difficult):
    """A Pascal VOC data set of twelve images per split, each with one object at these corners."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / "VOC" / part).mkdir(parents=True)
    for split in ("train", "val"):
        names = [f"{split}{number}" for number in range(NUM_IMAGES)]
        (root / "VOC" / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for number, name in enumerate(names):
            picture = np.random.default_rng([number, len(split)]).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(root / "VOC" / "JPEGImages" / f"{name}.jpg"), picture)
            box = "".join(
                f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            )
            (root / "VOC" / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size><object><name>cat</name>"
                f"<difficult>{difficult}</difficult><bndbox>{box}</bndbox></object></annotation>"
            )
    return {"kind": "voc", "root": str(root), "train": "VOC/train", "val": "VOC/val"}
