"""Writes the model card of weights: the README.md that the Hugging Face Hub shows, from results.json of their run."""

import json
import logging
import math
from typing import Any, cast

from yolox_jax import storage
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.storage import Location, StorageError
from yolox_jax.weights import safetensors_file
from yolox_jax.weights.aps import read_aps

_log = logging.getLogger("yolox_jax.inference")

_UNDEFINED = -1.0  # COCO's value for an AP without boxes
_NAMED_CLASSES = 100
_SAME_AP = 1e-6  # it is written in two files


def results_of(checkpoint: Location | None, spec: str) -> dict[str, Any] | None:
    """Returns the run's results.json if it is of this checkpoint; else warns, and returns None.

    Args:
      checkpoint: in the run's folder of checkpoints; None if the weights are a file.
      spec: how the user named the weights.

    Raises:
      UserError: as `read_results`, or the run's ap.json is damaged.
    """
    path = None if checkpoint is None else checkpoint.parent.parent / "results.json"
    results = None if path is None else read_results(path)
    if results is None:
        _log.warning("%s has no results.json, so the model card has no AP", spec)
    elif not _is_of(results, cast(Location, checkpoint), spec):
        _log.warning(
            "%s is of other weights than %s, so the model card has no AP: run eval.py --config=CONFIG --weights=%s "
            "--output=%s",
            *(path, spec, spec, path),
        )
        return None
    return results


def _is_of(results: dict[str, Any], checkpoint: Location, spec: str) -> bool:
    """Returns whether results are of a checkpoint: those of eval.py name it, those of train.py have its AP."""
    if results.get("weights") == spec:
        return True
    recorded = read_aps(checkpoint.parent).get(int(checkpoint.name)) if checkpoint.name.isdecimal() else None
    return recorded is not None and math.isclose(recorded, results["AP"], abs_tol=_SAME_AP)


def read_results(path: Location) -> dict[str, Any] | None:
    """Reads results.json, which train.py and eval.py write; None if there is no such file.

    Raises:
      UserError: it cannot be read, or is not such a file.
    """
    try:
        results = json.loads(storage.read_bytes(path))
        _rows(results), float(results["AP"]), float(results["AP50"]), int(results["num_images"])
    except NotFoundError:
        return None
    except StorageError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a results.json ({error!r})", "write it again with eval.py --output") from error
    return dict(results)


def model_card(loaded: Pretrained, file: str, results: dict[str, Any] | None) -> str:
    """Returns the card as Markdown; `file` is the name of the weights beside it, `results` the content of results.json.

    The license is left to the owner of the weights.
    """
    height, width = loaded.size_hw
    names = ", ".join(_text(name) for name in loaded.class_names[:_NAMED_CLASSES])
    more = f" … ({len(loaded.class_names)} in all)" if len(loaded.class_names) > _NAMED_CLASSES else ""
    metrics = "" if results is None else _metrics(loaded, results)
    table = "" if results is None else _table(results)
    metadata = ", class names and input size in its metadata" if file.endswith(safetensors_file.ENDING) else ""
    return f"""---
library_name: yolox_jax
pipeline_tag: object-detection
tags: [object-detection, yolox, jax]
{metrics}---

# YOLOX-{loaded.name}, {len(loaded.class_names)} classes

A [YOLOX](https://arxiv.org/abs/2107.08430)-{loaded.name} for images of {height}x{width} pixels (height x width).
`{file}` has the tensors under the names of the official PyTorch code{metadata}.

Classes: {names}{more}.

```python
from yolox_jax import Detector

detector = Detector.from_pretrained("hf://OWNER/NAME")  # or the path of {file}
print(detector("street.jpg"))
```

To adapt it to data of your own: `python train.py --config=configs/finetune.py --config.model={loaded.name}
--config.init_from=hf://OWNER/NAME --config.data.root=DIR`.
{table}"""


def _metrics(loaded: Pretrained, results: dict[str, Any]) -> str:
    """Returns the model index, from which the Hub shows numbers beside the card."""
    entries = "".join(
        f"    - {{type: {name}, value: {results[name]:.4f}, name: {name}}}\n"
        for name in ("AP", "AP50")
        if results[name] != _UNDEFINED
    )
    return f"""model-index:
- name: YOLOX-{loaded.name}
  results:
  - task: {{type: object-detection}}
    dataset: {{type: custom, name: validation set}}
    metrics:
{entries}"""


def _table(results: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {_text(name)} | {_percent(ap)} | {_percent(ap50)} | {n} |" for name, ap, ap50, n in _rows(results)
    )
    return f"""
## Results

AP {_percent(results["AP"])}, AP50 {_percent(results["AP50"])} on {results["num_images"]} validation images, in percent.

| class | AP | AP50 | boxes |
|---|---|---|---|
{rows}
"""


def _rows(results: dict[str, Any]) -> list[tuple[str, float, float, int]]:
    return [(str(c["name"]), float(c["AP"]), float(c["AP50"]), int(c["num_boxes"])) for c in results["per_class"]]


def _percent(value: float) -> str:
    return "-" if value == _UNDEFINED else f"{100 * value:.1f}"


def _text(name: str) -> str:
    """Escapes what Markdown would not show as it is."""
    return "".join(f"\\{c}" if c in "|*_`<>[]\\" else " " if c in "\r\n" else c for c in name)
