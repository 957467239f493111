"""Times detection on one device, from letterboxed images on the host to detections on the host."""

import statistics
import time
from typing import Any

import jax
import numpy as np

from yolox_jax.cli import from_config
from yolox_jax.detection.anchors import check_size, make_anchors
from yolox_jax.inference.predict import DetectConfig, compile_predict, make_predict
from yolox_jax.mesh import make_mesh, place, platform_of
from yolox_jax.models import yolox
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.tools.selfcheck import reference
from yolox_jax.tools.selfcheck.report import Line
from yolox_jax.tools.selfcheck.setting import Record, Setting
from yolox_jax.training import state

_MIN_CALLS = 3
# With random weights no score is high. At threshold 0 every candidate enters NMS, which is the most work there is.
_CONFIG = DetectConfig(conf=0.0)


def check(setting: Setting, record: Record) -> None:
    """Times batches of one image, then larger ones."""
    name = setting.size.detecting
    config, mesh = setting.config(f"yolox_{name}"), make_mesh(1)
    model, (height, width) = from_config.model(config, reference.NUM_CLASSES), check_size(config.input_size)
    folded = fold_batch_norm(model, state.init_variables(model, config.seed), platform_of(mesh))
    variables = place(folded, mesh)
    predict = make_predict(model, mesh, _CONFIG)
    dtype, num_anchors = yolox.compute_dtype(config.dtype), len(make_anchors((height, width)).strides)
    num_boxes = min(num_anchors, _CONFIG.num_candidates)
    what = f"YOLOX-{name}, {dtype}, {height}x{width}, {num_boxes} boxes into NMS"
    for line, batch_size in (("latency", 1), ("throughput", setting.size.detect_batch)):
        images_BHW3 = np.random.default_rng(0).integers(0, 256, (batch_size, height, width, 3)).astype(np.uint8)
        start = time.perf_counter()
        compiled: Any = compile_predict(predict, variables, (height, width), batch_size)
        compile_s = time.perf_counter() - start
        jax.device_get(compiled(variables, images_BHW3))
        seconds = _times(lambda images=images_BHW3, run=compiled: run(variables, images), setting.size.seconds)
        median, slow = statistics.median(seconds), float(np.quantile(seconds, 0.95))
        print(f"{line}: {median} s", flush=True)
        text = (
            f"{1e3 * median:.1f} ms a batch of {batch_size} (95% within {1e3 * slow:.1f} ms), "
            f"{batch_size / median:.1f} images/s; {what}"
        )
        figures = {"batch_size": batch_size, "median_s": median, "slow_s": slow, "compile_s": compile_s}
        record(Line(f"detection {line}", "measured", text, figures))


def _times(run: Any, seconds: float) -> list[float]:
    """Calls until the time is up; a call ends when the detections are on the host."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < _MIN_CALLS:
        start = time.perf_counter()
        jax.device_get(run())
        times.append(time.perf_counter() - start)
    return times
