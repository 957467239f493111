"""Measures exported files by their own runtimes: size, time of an image, and AP."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolox_jax.errors import UserError
from yolox_jax.evaluation.evaluate import evaluate
from yolox_jax.inference.export import runtimes
from yolox_jax.inference.export.certificate import Run
from yolox_jax.inference.export.formats import FORMATS, ExportConfig
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.types import Detections, Source

_ROUNDS, _WARM_UP = 20, 3


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a file is like."""

    path: Path
    megabytes: float
    milliseconds: float  # of an image, NMS included: the median of interleaved calls, over the images of a call
    ap: float | None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Images with ground truth, and how AP is computed from them."""

    source: Source
    detect: DetectConfig  # its thresholds replace those of the files
    metric: str = "coco"


def measure(
    files: Mapping[str, tuple[str, ExportConfig]],
    loaded: Pretrained,
    image_HW3: np.ndarray,
    evaluation: Evaluation | None,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Measured]:
    """Writes each file to a folder and runs it.

    Args:
      files: by a name of yours, the format (a key of FORMATS) and its settings.
      loaded: network and weights.
      image_HW3: what the files are timed with, letterboxed, uint8 BGR.
      evaluation: for AP; None leaves it out.
      folder: an empty one.
      progress: called with the number of evaluated images, of all files, and how many there will be.
    """
    paths, runs, aps = {}, {}, {}
    for number, (name, (form, config)) in enumerate(files.items()):
        ending, write = FORMATS[form]
        paths[name] = path = folder / f"{number}{ending}"
        write(path, loaded, config)
        if evaluation is not None:
            judged = _open_judged(path, form, loaded, config, evaluation.detect)
            aps[name] = _ap(judged, config.size_hw, evaluation, number, len(files), progress)
        runs[name] = runtimes.open_run(path, config.detect or DetectConfig())
    times = _milliseconds(runs, image_HW3)
    return {
        name: Measured(paths[name], paths[name].stat().st_size / 1e6, times[name] / (config.batch or 1), aps.get(name))
        for name, (_, config) in files.items()
    }


def check_drop(path: str | Path, before: float, after: float, max_drop: float) -> None:
    """Raises UserError if quantizing cost more AP than allowed, or AP cannot say it: then `path` is not written."""
    if not before > 0:  # without ground truth it is -1
        raise UserError(
            f"the AP of float32 is {before:.4f}, which says nothing about INT8, so {path} is not written",
            "give a --config whose validation images have boxes that the weights find",
        )
    if before - after > max_drop:
        raise UserError(
            f"INT8 loses {before - after:.4f} AP, more than --max_drop={max_drop:g}, so {path} is not written",
            "calibrate with images more like those that the network will see, or raise --max_drop",
        )


def _open_judged(path: Path, form: str, loaded: Pretrained, config: ExportConfig, detect: DetectConfig) -> Run:
    """Opens a file with the thresholds of the evaluation. Those of StableHLO are compiled in: it is written again."""
    if form != "stablehlo":
        return runtimes.open_network(path, detect)
    _, write = FORMATS[form]
    judged = path.with_name(f"judged_{path.name}")
    write(judged, loaded, dataclasses.replace(config, detect=detect, certificate=None))
    return runtimes.open_run(judged, detect)


def _ap(
    run: Run,
    size_hw: tuple[int, int],
    evaluation: Evaluation,
    number: int,
    num_files: int,
    progress: Callable[[int, int], None] | None,
) -> float:
    def predict(_: Any, images_BHW3: Any) -> Detections:
        return run(np.asarray(images_BHW3))

    def done(num_done: int, num_all: int) -> None:
        if progress is not None:
            progress(number * num_all + num_done, num_files * num_all)

    result = evaluate(
        predict, None, evaluation.source, size_hw=size_hw, batch_size=1, metric=evaluation.metric, progress=done
    )
    return float(result.ap.stats["AP"])


def _milliseconds(runs: Mapping[str, Run], image_HW3: np.ndarray) -> dict[str, float]:
    """Calls the files in turns, so that a slow moment of the machine affects all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(_WARM_UP + _ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            np.asarray(run(image_HW3[None]).scores)
            if turn >= _WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(each) for name, each in seconds.items()}
