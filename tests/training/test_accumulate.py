"""Any metric of the loss is that of the whole batch, however many parts and devices share it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.detection.simota import SimOtaConfig
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.training import parallel
from yolox_jax.training.accumulate import accumulate
from yolox_jax.training.step import train_step

_FROZEN_STATISTICS = ("bn/(mean|var)$",)  # so that an image's predictions do not depend on the images beside it
_loss_sums = losses.loss_sums


def _sums_with_new_metrics(*arguments, **options):
    """`loss_sums` with two new metrics: a mean over the positive anchors, and a count."""
    sums = _loss_sums(*arguments, **options)
    predictions, anchors, gt_boxes, gt_labels, gt_mask, _ = arguments
    per_image = jax.vmap(losses.assign, in_axes=(0, None, 0, 0, 0, None))
    assignment = per_image(predictions, anchors, gt_boxes, gt_labels, gt_mask, SimOtaConfig())
    means = {**sums.means, "iou_of_positives": jnp.where(assignment.positive, assignment.iou, 0).sum()}
    counts = {**sums.counts, "num_empty_images": (~gt_mask.any(axis=1)).sum().astype(jnp.float32)}
    return sums.replace(means=means, counts=counts)


def _metrics_by_a_loop_over_the_images(batch) -> dict[str, float]:
    state = toy.create_state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    predictions = toy.MODEL.apply(variables, batch.images.astype(np.float32))
    anchors = make_anchors((toy.SIZE, toy.SIZE))
    assign = jax.jit(functools.partial(losses.assign, config=SimOtaConfig()))
    ious, num_empty = [], 0
    for i in range(len(batch.images)):
        of_image = jax.tree.map(lambda x, i=i: x[i], predictions)
        found = assign(of_image, anchors, batch.gt_boxes[i], batch.gt_labels[i], batch.gt_mask[i])
        ious += np.asarray(found.iou)[np.asarray(found.positive)].tolist()
        num_empty += not batch.gt_mask[i].any()
    assert ious and num_empty
    return {"iou_of_positives": np.mean(ious), "num_empty_images": num_empty, "num_fg": len(ious)}


_SIMPLER = ((1, False, 1), (8, False, 1), (1, False, 4))  # device count, ZeRO-1 sharding, parts of a batch


@pytest.mark.parametrize(
    ("num_devices", "shard_state", "accumulate_steps"),
    [(2, True, 4), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(8, True, 1), *_SIMPLER])],
)
def test_a_metric_added_to_the_loss_is_that_of_the_whole_batch(monkeypatch, num_devices, shard_state, accumulate_steps):
    monkeypatch.setattr(losses, "loss_sums", _sums_with_new_metrics)
    batch = toy.random_batch(0)
    config = toy.step_config(freeze=_FROZEN_STATISTICS, shard_state=shard_state, accumulate_steps=accumulate_steps)
    mesh = make_mesh(num_devices)
    step = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config)
    state = toy.create_state()
    specs = parallel.state_specs(state, mesh, shard_state)
    mapped = parallel.map_step(step, mesh, state_specs=specs)
    _, metrics = mapped(place(state, mesh, specs), shard_batch(batch, mesh))
    for name, expected in _metrics_by_a_loop_over_the_images(batch).items():
        assert float(metrics[name]) == pytest.approx(expected, rel=1e-5), name


def test_parts_are_added_in_order_and_pass_their_statistics_on():
    """Compares with a loop written out for a function whose sums and statistics are numbers."""

    def forward_backward(batch_stats, batch):
        return 2 * batch_stats + batch.sum(), {"sum": batch.sum(), "product": batch_stats * batch.sum()}

    batch = jnp.arange(6.0)
    stats, sums = jax.jit(accumulate(forward_backward, 3))(jnp.float32(1), batch)
    expected_stats, expected_sum, expected_product = 1.0, 0.0, 0.0
    for part in (0 + 1, 2 + 3, 4 + 5):
        expected_sum, expected_product = expected_sum + part, expected_product + expected_stats * part
        expected_stats = 2 * expected_stats + part
    assert (stats, sums["sum"], sums["product"]) == (expected_stats, expected_sum, expected_product)
