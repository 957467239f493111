"""Random ground truth and detections in COCO's format, full of special cases."""

import numpy as np

CATEGORY_IDS = [7, 2, 9, 4]  # neither sorted nor dense; the last has no boxes


def random_case(seed, num_images=12):
    """Draws boxes of all sizes, crowds, images and a class without boxes, and many equal scores."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image_id in rng.permutation(num_images) * 3 + 5:
        for _ in range(rng.integers(0, 7)):
            x, y, w, h = rng.uniform([0, 0, 4, 4], [300, 300, 200, 200])
            category_id = int(rng.choice(CATEGORY_IDS[:3]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": int(image_id),
                    "category_id": category_id,
                    "bbox": [x, y, w, h],
                    "area": w * h * 0.7,
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                bbox = (np.array([x, y, w, h]) + rng.normal(0, 0.08 * min(w, h), 4)).tolist()
                found_category = category_id if rng.random() < 0.8 else int(rng.choice(CATEGORY_IDS))
                detections.append({"image_id": int(image_id), "category_id": found_category, "bbox": bbox})
    for detection in detections:
        detection["score"] = float(np.round(rng.random(), 1))
    images = [{"id": i * 3 + 5, "file_name": f"{i}.jpg", "width": 500, "height": 500} for i in range(num_images)]
    categories = [{"id": i, "name": f"class {i}"} for i in CATEGORY_IDS]
    return {"images": images, "annotations": annotations, "categories": categories}, detections
