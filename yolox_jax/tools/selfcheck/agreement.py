"""Compares the device with the reference's arrays, and eight training steps with those of the CPU."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from yolox_jax.boxes import cxcywh_to_xyxy
from yolox_jax.cli import from_config
from yolox_jax.detection import losses, simota
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.mesh import AXIS, place, shard_batch
from yolox_jax.models import yolox
from yolox_jax.tools.selfcheck import reference
from yolox_jax.tools.selfcheck.report import Line, verdict
from yolox_jax.tools.selfcheck.setting import Record, Setting
from yolox_jax.training import parallel, state
from yolox_jax.training.compilation import CompileCounter
from yolox_jax.training.step import train_step
from yolox_jax.types import Batch

# float32 summed in another order moves the outputs, which are near 0.01, by 1e-7, the loss by 1e-7 and the norm of the
# gradient by 1e-4. With the ten bits of float16 or TensorFloat-32 in its place the first two move by 5e-5 and 1e-3.
_OUTPUT_LIMIT, _LOSS_LIMIT, _GRADIENT_LIMIT = 1e-5, 1e-4, 1e-3
# Rounding grows a hundredfold in each update (docs/architecture.md, "float32 and chaos"): the third step is the last
# that can be compared.
_THIRD_STEP_LIMIT = 1e-2
# In the card's own type, beyond these something is wrong: bfloat16 moves outputs by 6e-6 on average, the loss by 7e-3.
_OWN_OUTPUT_LIMIT, _OWN_LOSS_LIMIT = 1e-4, 0.05
_NUM_STEPS = 8


def golden_in_float32(setting: Setting, record: Record) -> None:
    """The reference's outputs, assignments and loss, in float32 at the highest precision of matrix products."""
    arrays = reference.arrays()
    with jax.default_matmul_precision("highest"):
        for name in setting.size.golden:
            largest, _ = _output_difference(arrays, name, jnp.dtype(jnp.float32))
            text = f"differ from the reference's by {largest:.1e} at most (limit {_OUTPUT_LIMIT:.0e}), in float32"
            record(Line(f"outputs of {name}", verdict(largest <= _OUTPUT_LIMIT), text, {"difference": largest}))
        record(_assignments(arrays))
        loss, num_fg = _loss_difference(arrays, jnp.dtype(jnp.float32))
    text = f"differs from the reference's by {loss:.1e}, positives by {num_fg:.1e}, relative (limit {_LOSS_LIMIT:.0e})"
    passed = loss <= _LOSS_LIMIT and num_fg <= _LOSS_LIMIT
    record(Line("loss", verdict(passed), text, {"difference": loss, "positives": num_fg}))


def golden_in_own_type(setting: Setting, record: Record) -> None:
    """The same outputs and loss as train.py computes them by default: in the type and precision of the card."""
    arrays, dtype = reference.arrays(), yolox.compute_dtype("auto")
    differences = [_output_difference(arrays, name, dtype) for name in setting.size.golden]
    largest, mean = np.max(differences, axis=0).tolist()  # NaN stays NaN
    loss, num_fg = _loss_difference(arrays, dtype)
    text = (
        f"{dtype}: outputs differ from the reference's by {mean:.1e} on average, {largest:.1e} at most (mean limit "
        f"{_OWN_OUTPUT_LIMIT:.0e}); loss {loss:.1e} (limit {_OWN_LOSS_LIMIT}), positives {num_fg:.1e}, relative"
    )
    figures = {"dtype": str(dtype), "mean": mean, "largest": largest, "loss": loss, "positives": num_fg}
    record(Line("own type", verdict(mean <= _OWN_OUTPUT_LIMIT and loss <= _OWN_LOSS_LIMIT), text, figures))


def _output_difference(arrays: dict[str, np.ndarray], name: str, dtype: jnp.dtype) -> tuple[float, float]:
    """The largest and the mean difference of raw outputs, with the sigmoid on objectness and classes."""
    model = yolox.create(name, reference.NUM_CLASSES, dtype)
    images_BHW3 = jnp.asarray(arrays["models/images_nchw"].transpose(0, 2, 3, 1))
    predictions: Any = jax.jit(model.apply)(reference.variables(model), images_BHW3)
    obj_BA1, cls_BAC = jax.nn.sigmoid(predictions.obj_logits)[..., None], jax.nn.sigmoid(predictions.cls_logits)
    ours = np.concatenate([predictions.box_deltas, obj_BA1, cls_BAC], axis=-1)
    difference = np.abs(ours - arrays[f"models/{name}/raw"])
    print(f"outputs of {name} in {dtype}: {difference.max()}", flush=True)
    return float(difference.max()), float(difference.mean())


def _loss_difference(arrays: dict[str, np.ndarray], dtype: jnp.dtype) -> tuple[float, float]:
    """The relative differences of the loss and of the number of positives, in training mode."""
    model = yolox.create("nano", reference.NUM_CLASSES_OF_LOSS, dtype)

    @jax.jit
    def loss_of(variables: Any, batch: Batch) -> losses.Metrics:
        predictions: Any
        predictions, _ = model.apply(variables, batch.images, train=True, mutable=["batch_stats"])
        anchors = make_anchors(batch.images.shape[1:3])
        boxes = batch.gt_boxes, batch.gt_labels, batch.gt_mask
        return losses.detection_loss(predictions, anchors, *boxes, l1_weight=0.0)[1]

    metrics = jax.device_get(loss_of(reference.variables(model), reference.batch(arrays)))
    loss = abs(metrics["loss"] / arrays["trajectory/loss"][0] - 1)
    num_fg = abs(metrics["num_fg_per_gt"] / arrays["trajectory/num_fg"][0] - 1)
    print(f"loss in {dtype}: {metrics['loss']}", flush=True)
    return float(loss), float(num_fg)


def _assignments(arrays: dict[str, np.ndarray]) -> Line:
    names = sorted({key.split("/")[1] for key in arrays if key.startswith("assign/")})
    num_differing, num_anchors = 0, 0
    for name in names:
        case = {key.split("/")[2]: value for key, value in arrays.items() if key.startswith(f"assign/{name}/")}
        assignment = jax.jit(simota.assign)(
            cxcywh_to_xyxy(jnp.asarray(case["gt_cxcywh"])),
            jnp.asarray(case["gt_class"], jnp.int32),
            jnp.ones(len(case["gt_class"]), bool),
            cxcywh_to_xyxy(jnp.asarray(case["box_cxcywh"])),
            jnp.asarray(case["cls_logit"]),
            jnp.asarray(case["obj_logit"]),
            make_anchors(tuple(case["hw"].tolist())),
        )
        gt_index_A = np.where(assignment.positive, assignment.gt_index, -1)
        num_differing += int((gt_index_A != case["gt_index"]).sum())
        num_anchors += len(gt_index_A)
    text = f"{num_differing} of {num_anchors} anchors in {len(names)} images assigned otherwise than by the reference"
    return Line("assignments", verdict(num_differing == 0), text, {"differing": num_differing, "anchors": num_anchors})


@dataclasses.dataclass(frozen=True)
class _Trained:
    """Eight steps on one device."""

    losses: np.ndarray  # [8]
    gradient_norm: float  # of the first step
    num_arrays: int  # of a state
    num_kept: int  # of them, still there after they were donated
    num_later_programs: int  # compiled after the first step


def eight_steps(setting: Setting, record: Record) -> None:
    """Trains on the reference's batch in float32, on the device and on the CPU beside it."""
    with jax.default_matmul_precision("highest"):
        ours = _train(setting, jax.devices()[0])
        text = f"{ours.num_kept} of {ours.num_arrays} arrays of an old state are still there after a step"
        record(Line("donation", verdict(ours.num_kept == 0), text, {"kept": ours.num_kept, "arrays": ours.num_arrays}))
        text = f"{ours.num_later_programs} programs compiled after the first step"
        later = {"later_programs": ours.num_later_programs}
        record(Line("no recompilation", verdict(ours.num_later_programs == 0), text, later))
        # If the device is the CPU, there is nothing beside it: its steps are compared with themselves.
        is_cpu = jax.devices()[0].platform == "cpu"
        cpus = ours if is_cpu else _train(setting, jax.local_devices(backend="cpu")[0])
    difference = np.abs(ours.losses / cpus.losses - 1)
    gradient = abs(ours.gradient_norm / cpus.gradient_norm - 1)
    from_reference = abs(float(ours.losses[0] / reference.arrays()["trajectory/loss"][0]) - 1)
    passed = (
        from_reference <= _LOSS_LIMIT
        and difference[:2].max() <= _LOSS_LIMIT
        and difference[2] <= _THIRD_STEP_LIMIT
        and gradient <= _GRADIENT_LIMIT
        and bool(np.isfinite(difference).all())
    )
    beside_cpu = (
        f"losses differ from the CPU's by {', '.join(f'{each:.0e}' for each in difference)} (limits {_LOSS_LIMIT:.0e}, "
        f"{_LOSS_LIMIT:.0e}, {_THIRD_STEP_LIMIT:.0e}; then rounding grows), the first gradient norm by {gradient:.0e} "
        f"(limit {_GRADIENT_LIMIT:.0e})"
    )
    text = (
        f"the first loss differs from the reference's by {from_reference:.0e} (limit {_LOSS_LIMIT:.0e}); "
        f"{'this device is the CPU itself' if is_cpu else beside_cpu}; all relative"
    )
    figures = {"from_reference": from_reference, "differences": difference.tolist(), "gradient": gradient}
    record(Line("eight steps", verdict(passed), text, figures))


def _train(setting: Setting, device: jax.Device) -> _Trained:
    config, arrays = setting.config(), reference.arrays()
    config.update({"batch_size": 4, "epochs": 5, "warmup_epochs": 1, "no_aug_epochs": 1})  # those of the trajectory
    mesh = Mesh(np.array([device]), (AXIS,))
    model = yolox.create("nano", reference.NUM_CLASSES_OF_LOSS)
    optimizer = from_config.optimizer(config)
    step_config = from_config.step_config(config, from_config.schedule(config, num_images=16))
    step = functools.partial(train_step, model=model, optimizer=optimizer, config=step_config)
    train_state = place(state.create(reference.variables(model), optimizer), mesh)
    batch = reference.batch(arrays)
    compiled = parallel.compile_step(parallel.map_step(step, mesh), train_state, batch, mesh)
    found, num_kept, counter = [], 0, None
    for number in range(_NUM_STEPS):
        old = jax.tree.leaves(train_state)
        train_state, metrics = compiled(train_state, shard_batch(batch, mesh))
        found.append(jax.device_get(metrics))
        num_kept = max(num_kept, sum(not leaf.is_deleted() for leaf in old))
        counter = counter or CompileCounter()  # from the second step on
        print(f"step {number} on {device.platform}: loss {found[-1]['loss']}", flush=True)
    assert counter is not None
    of_steps = np.array([float(metrics["loss"]) for metrics in found])
    return _Trained(of_steps, float(found[0]["grad_norm"]), len(old), num_kept, counter.num_programs)
