"""Times SimOTA: against the official loop, with growing numbers of boxes and anchors, and as a share of the step.

python -m benchmarks.assignment [--batch=8] [--threads=2] [--rounds=9] [--peer=PATH] [--step=s:640:8]

Every ground-truth slot holds a box. --peer also times the official get_assignments, from a checkout, image by image, in
interleaved rounds in the same process; it needs PyTorch. Memory is that of the compiled program of the whole batch,
without its arguments.
"""

import argparse
import functools
import importlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from benchmarks.official import Official
from benchmarks.train_step import our_step, random_batch
from benchmarks.turns import OURS, Times, print_times, slope, take_turns, use_cores
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import decode, make_anchors
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.models import yolox
from yolox_jax.training import state
from yolox_jax.training.host_memory import keep_freed_memory
from yolox_jax.types import Predictions

_SIZE, _BOXES = 640, (50, 120)
_SIZES, _MANY_BOXES = (320, 480, 640, 960, 1280), (15, 30, 60, 120, 240)
_NUM_CLASSES = 80


def random_case(
    size: int, boxes: int, batch: int, classes: int = _NUM_CLASSES
) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """Makes predictions distributed as a trained network's, boxes [B, G, 4] xyxy and labels [B, G]."""
    rng = np.random.default_rng(0)
    num_anchors = len(make_anchors((size, size)).strides)
    low_BG2 = rng.uniform(0, 0.8 * size, (batch, boxes, 2))
    high_BG2 = np.minimum(low_BG2 + rng.uniform(8, 0.5 * size, low_BG2.shape), size)
    arrays: dict[str, Any] = {
        "box_deltas": rng.normal(0, 1, (batch, num_anchors, 4)).astype(np.float32),
        "obj_logits": rng.normal(-3, 2, (batch, num_anchors)).astype(np.float32),
        "cls_logits": rng.normal(-3, 2, (batch, num_anchors, classes)).astype(np.float32),
    }
    gt_xyxy_BG4 = np.concatenate([low_BG2, high_BG2], axis=2).astype(np.float32)
    return Predictions(**arrays), gt_xyxy_BG4, rng.integers(0, classes, (batch, boxes)).astype(np.int32)


def ours(size: int, boxes: int, batch: int) -> tuple[Callable[[], int], int]:
    """Returns a function that assigns a batch and counts the positive anchors, and its program's memory in bytes."""
    predictions, gt_xyxy_BG4, gt_label_BG = random_case(size, boxes, batch)
    assign = functools.partial(losses.assign, config=SimOtaConfig())
    program = jax.jit(jax.vmap(assign, in_axes=(0, None, 0, 0, 0)))
    arguments = jax.device_put(
        (predictions, make_anchors((size, size)), gt_xyxy_BG4, gt_label_BG, np.ones(gt_label_BG.shape, bool))
    )
    compiled = program.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    assert memory is not None  # XLA:CPU reports it
    return lambda: int(jax.block_until_ready(compiled(*arguments)).positive.sum()), memory.temp_size_in_bytes


def theirs(peer: Official, size: int, boxes: int, batch: int) -> Callable[[], int]:
    """Returns a function that runs get_assignments on one image after the other, as get_losses does."""
    predictions, gt_xyxy_BG4, gt_label_BG = random_case(size, boxes, batch)
    anchors = make_anchors((size, size))
    head = importlib.import_module("yolox.models").YOLOXHead(_NUM_CLASSES)
    tensor = peer.torch.from_numpy
    pred_BA4 = tensor(np.array(decode(predictions.box_deltas, anchors)))
    stride_1A = tensor(np.array(anchors.strides)[None])
    x_1A, y_1A = (tensor(np.array(anchors.centers[:, i] / anchors.strides - 0.5)[None]) for i in range(2))
    cls_BAC, obj_BA1 = tensor(predictions.cls_logits), tensor(predictions.obj_logits[..., None])
    target_BG5 = peer.targets(gt_xyxy_BG4, gt_label_BG, np.ones(gt_label_BG.shape, bool))

    def run() -> int:
        num_positive = 0
        for image, target_G5 in enumerate(target_BG5):
            box_G4, label_G = target_G5[:, 1:], target_G5[:, 0]
            *_, num = head.get_assignments(
                *(image, boxes, box_G4, label_G, pred_BA4[image], stride_1A, x_1A, y_1A, cls_BAC, obj_BA1)
            )
            num_positive += num
        return num_positive

    return run


def compare(batch: int, rounds: int, peer: Official | None) -> Times:
    """Prints a line for each number of boxes and contender. Returns our times by number of boxes."""
    our_times: Times = {}
    for boxes in _BOXES:
        contenders = {OURS: ours(_SIZE, boxes, batch)[0]}
        if peer:
            contenders["official PyTorch"] = theirs(peer, _SIZE, boxes, batch)
        found = ", ".join(f"{contender} {run()}" for contender, run in contenders.items())
        print(f"       positive anchors: {found}")
        times = take_turns(contenders, rounds)
        print_times(f"{_SIZE} x{batch}, {boxes:>3} boxes", times, batch)
        our_times[str(boxes)] = times[OURS]
    return our_times


def grow(label: str, amounts: list[int], cases: list[tuple[int, int]], batch: int, rounds: int) -> None:
    """Prints time and memory for growing amounts of one quantity, and the slopes of their logarithms."""
    runs, memories = zip(*(ours(size, boxes, batch) for size, boxes in cases), strict=True)
    times = take_turns(dict(zip(map(str, amounts), runs, strict=True)), rounds)
    medians = [statistics.median(seconds) for seconds in times.values()]
    print(f"{label:<8}" + "".join(f"{amount:>9}" for amount in amounts) + "    slope")
    for name, values, unit in (("ms", medians, 1e-3), ("MB", memories, 1e6)):
        shown = "".join(f"{value / unit:>9.1f}" for value in values)
        print(f"  {name:<6}{shown}  {slope(amounts, values):>7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="cores and threads of each contender")
    parser.add_argument("--rounds", type=int, default=9, help="timed calls; the medians are printed")
    parser.add_argument("--peer", type=Path, help="a checkout of the official PyTorch YOLOX")
    parser.add_argument(
        "--step", help="MODEL:SIZE:BATCH: also times this training step, and prints the share of assignment"
    )
    arguments = machine.parse_quiet(parser)
    use_cores(arguments.threads)
    keep_freed_memory()  # as train.py does; affects the peer too
    peer = Official(arguments.peer, arguments.threads) if arguments.peer else None
    print(f"{arguments.threads} threads, float32")
    compare(arguments.batch, arguments.rounds, peer)
    grow("G", list(_MANY_BOXES), [(_SIZE, boxes) for boxes in _MANY_BOXES], arguments.batch, arguments.rounds)
    num_anchors = [len(make_anchors((size, size)).strides) for size in _SIZES]
    grow("A", num_anchors, [(size, _BOXES[0]) for size in _SIZES], arguments.batch, arguments.rounds)
    if arguments.step:
        share_of_step(arguments.step, arguments.rounds)


def share_of_step(case: str, rounds: int) -> None:
    """Times a training step, and the assignment of a batch of its size with all ground-truth slots full."""
    name, size, batch_size = case.split(":")
    batch = random_batch(int(size), int(batch_size))
    step = our_step(name, state.init_variables(yolox.create(name), seed=0), batch)
    assign, _ = ours(int(size), batch.gt_boxes.shape[1], int(batch_size))
    times: Any = take_turns({"step": step, "assignment": assign}, rounds)
    step_s, assign_s = (statistics.median(seconds) for seconds in times.values())
    print(
        f"{case}: step {1000 * step_s:.0f} ms, assignment {1000 * assign_s:.1f} ms, {assign_s / step_s:.1%} of the step"
    )


if __name__ == "__main__":
    main()
