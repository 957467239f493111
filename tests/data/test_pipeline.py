import math
import pickle
import threading
import time

import numpy as np
import pytest

from yolox_jax.data import pipeline
from yolox_jax.data.example import Example
from yolox_jax.data.samples import index_at, sample_rng
from yolox_jax.data.sources.shapes import ShapesSource

SIZE_HW = (48, 64)


class OneImageSource:
    """A single image with given boxes, as often as asked for."""

    class_names = ("thing",)

    def __init__(self, image, boxes_xyxy, length=1):
        self.image = image
        self.boxes_xyxy = np.array(boxes_xyxy, np.float32).reshape(-1, 4)
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return Example(self.image, self.boxes_xyxy, np.arange(len(self.boxes_xyxy), dtype=np.int32), f"image {index}")

    def image_id(self, index):
        return f"image {index}"


class FailingSource(OneImageSource):
    def __getitem__(self, index):
        if index == 3:
            raise ValueError("three.jpg cannot be decoded")
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def source():
    return ShapesSource(10, seed=0, max_side=64)


@pytest.fixture
def striped():
    """[24, 32, 3], no two columns alike."""
    return np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 7, (24, 32, 3)).copy()


def load(source, **options):
    defaults = {"size_hw": SIZE_HW, "global_batch": 4, "num_slots": 6, "seed": 5, "num_steps": 6}
    return pipeline.train_loader(source, **(defaults | options))


def assert_same_batch(left, right):
    assert left.image_ids == right.image_ids
    assert left.num_dropped_boxes == right.num_dropped_boxes
    for field in ("images", "gt_boxes", "gt_labels", "gt_mask"):
        np.testing.assert_array_equal(getattr(left.batch, field), getattr(right.batch, field))


def assert_same_batches(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert_same_batch(one, other)


def sample_of(source, *, flip_prob=0.0, num_slots=4, size_hw=SIZE_HW):
    rng = np.random.default_rng(0)
    return pipeline.train_sample(source, 0, rng, size_hw=size_hw, num_slots=num_slots, flip_prob=flip_prob)


def test_a_batch_has_the_shapes_and_types_of_batch(source):
    batch = next(load(source)).batch
    assert (batch.images.shape, batch.images.dtype) == ((4, 48, 64, 3), np.uint8)
    assert (batch.gt_boxes.shape, batch.gt_boxes.dtype) == ((4, 6, 4), np.float32)
    assert (batch.gt_labels.shape, batch.gt_labels.dtype) == ((4, 6), np.int32)
    assert (batch.gt_mask.shape, batch.gt_mask.dtype) == ((4, 6), np.bool_)


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (2, 8), (8, 1), (2, 0)])
def test_the_batches_are_the_same_whatever_the_number_of_threads(source, threads, prefetch):
    assert_same_batches(load(source, threads=0), load(source, threads=threads, prefetch=prefetch))


@pytest.mark.parametrize("start_step", [1, 3, 5])
def test_a_run_started_at_a_step_goes_on_as_the_whole_run_does(source, start_step):
    whole = list(load(source))
    assert_same_batches(whole[start_step:], load(source, start_step=start_step, num_steps=6 - start_step))


def test_a_saved_state_goes_on_in_any_loader_of_the_run(source):
    iterator = load(source, start_step=1, num_steps=5)
    next(iterator)
    state = iterator.get_state()
    rest = list(iterator)
    assert len(rest) == 4
    for fresh in (load(source), load(source, start_step=4, num_steps=2), iterator):
        fresh.set_state(state)
        assert_same_batches(rest, fresh)


def test_the_sample_at_a_position_is_the_one_its_seed_and_position_give(source):
    batches = list(load(source))
    for position in (0, 7, 13, 23):
        index = index_at(position, len(source), seed=5)
        expected = pipeline.train_sample(
            source, index, sample_rng(position, seed=5), size_hw=SIZE_HW, num_slots=6, flip_prob=0.5
        )
        batch, row = batches[position // 4], position % 4
        assert batch.image_ids[row] == expected.image_id == source.image_id(index)
        np.testing.assert_array_equal(batch.batch.images[row], expected.image)
        np.testing.assert_array_equal(batch.batch.gt_boxes[row], expected.boxes)


def test_two_processes_have_the_halves_of_each_batch(source):
    halves = [load(source, process_index=index, process_count=2) for index in range(2)]
    for whole, first, second in zip(load(source), *halves, strict=True):
        assert first.image_ids + second.image_ids == whole.image_ids
        images = np.concatenate([first.batch.images, second.batch.images])
        np.testing.assert_array_equal(images, whole.batch.images)


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own():
    epochs = [[index_at(epoch * 50 + place, 50, seed=1) for place in range(50)] for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(50))
    other_seed = [index_at(place, 50, seed=2) for place in range(50)]
    assert len({tuple(order) for order in [*epochs, other_seed, range(50)]}) == 5


def test_an_epoch_may_end_inside_a_batch(source):
    image_ids = [image_id for batch in load(source, num_steps=5) for image_id in batch.image_ids]
    assert sorted(image_ids[:10]) == sorted(image_ids[10:]) == list(range(1, 11))
    assert image_ids[:10] != image_ids[10:]


def test_boxes_are_scaled_with_the_image(striped):
    sample = sample_of(OneImageSource(striped, [[2, 4, 12, 20]]))
    np.testing.assert_array_equal(sample.boxes[0], [4, 8, 24, 40])
    assert sample.mask.tolist() == [True, False, False, False]
    assert not sample.boxes[1:].any()


def test_image_and_boxes_are_flipped_together_before_the_letterbox(striped):
    sample = sample_of(OneImageSource(striped, [[2, 4, 12, 20]]), flip_prob=1.0, size_hw=(24, 40))
    np.testing.assert_array_equal(sample.image[:, :32], striped[:, ::-1])
    assert (sample.image[:, 32:] == 114).all()
    np.testing.assert_array_equal(sample.boxes[0], [20, 4, 30, 20])


def test_about_half_the_samples_are_flipped(striped):
    images = next(load(OneImageSource(striped, [[2, 4, 12, 20]]), global_batch=200, size_hw=(24, 32))).batch.images
    flipped = (images == striped[:, ::-1]).all(axis=(1, 2, 3))
    straight = (images == striped).all(axis=(1, 2, 3))
    assert (flipped ^ straight).all()
    assert 70 < flipped.sum() < 130


def test_boxes_of_an_input_pixel_or_less_are_left_out(striped):
    boxes = [[0, 0, 2, 20], [0, 0, 2.5, 20], [0, 0, 20, 1]]
    sample = sample_of(OneImageSource(striped, boxes), size_hw=(12, 16))
    assert sample.mask.sum() == 1
    assert sample.labels[0] == 1
    assert sample.num_dropped_boxes == 0


def test_where_no_box_is_larger_the_image_stays_unflipped_with_all_its_boxes(striped):
    sample = sample_of(OneImageSource(striped, [[0, 0, 1, 20], [4, 0, 20, 1]]), flip_prob=1.0, size_hw=(24, 32))
    np.testing.assert_array_equal(sample.image, striped)
    np.testing.assert_array_equal(sample.boxes[:2], [[0, 0, 1, 20], [4, 0, 20, 1]])
    assert sample.mask.sum() == 2


def test_an_image_without_boxes_is_a_negative(striped):
    sample = sample_of(OneImageSource(striped, []), flip_prob=1.0, size_hw=(24, 32))
    np.testing.assert_array_equal(sample.image, striped)
    assert not sample.mask.any()


def test_boxes_beyond_the_slots_are_counted(striped):
    boxes = [[number, 0, number + 5, 9] for number in range(7)]
    (loaded,) = load(OneImageSource(striped, boxes), num_slots=4, num_steps=1, global_batch=3)
    assert loaded.num_dropped_boxes == 9
    assert loaded.batch.gt_mask.all()
    assert loaded.batch.gt_labels.tolist() == [[0, 1, 2, 3]] * 3


def test_evaluation_reads_each_image_once_in_order_with_its_size_and_ratio(source):
    batches = list(pipeline.eval_loader(source, size_hw=SIZE_HW, batch=5))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert all(batch.mask.all() for batch in batches)
    for index in (0, 9):
        batch, image = batches[index // 5], source[index].image
        assert batch.sizes_hw[index % 5].tolist() == list(image.shape[:2])
        assert batch.ratios[index % 5] == np.float32(min(48 / image.shape[0], 64 / image.shape[1]))


def test_the_last_evaluation_batch_is_padded_and_masked(source):
    *_, last = pipeline.eval_loader(source, size_hw=SIZE_HW, batch=4)
    assert last.mask.tolist() == [True, True, False, False]
    assert last.indices[:2].tolist() == [8, 9]
    assert last.images.shape == (4, 48, 64, 3)
    assert (last.images[2:] == 114).all()
    assert (last.images.dtype, last.ratios.dtype, last.sizes_hw.dtype) == (np.uint8, np.float32, np.int32)
    assert (last.ratios > 0).all()


@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_three_processes_evaluate_in_equally_many_batches_and_each_image_once(source, batch):
    parts = [
        list(pipeline.eval_loader(source, size_hw=SIZE_HW, batch=batch, process_index=index, process_count=3))
        for index in range(3)
    ]
    assert {len(part) for part in parts} == {math.ceil(10 / (3 * batch))}
    seen = [index for part in parts for loaded in part for index in loaded.indices[loaded.mask].tolist()]
    assert sorted(seen) == list(range(10))


def test_an_evaluation_loader_may_be_iterated_again(source):
    loader = pipeline.eval_loader(source, size_hw=SIZE_HW, batch=4)
    first, second = ([batch.indices.tolist() for batch in loader] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_in_a_sample_names_the_image(striped, threads):
    failing = FailingSource(striped, [], length=5)
    with pytest.raises(pipeline.SampleError, match=r"'image 3' \(index 3 of the source\): three\.jpg cannot") as caught:
        list(load(failing, threads=threads))
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(pipeline.SampleError, match="'image 3'"):
        list(pipeline.eval_loader(failing, size_hw=SIZE_HW, batch=2, threads=threads))


def test_a_loader_left_early_stops_its_threads(source):
    def readers():
        return {thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")}

    before = readers()
    iterator = load(source, num_steps=1000, threads=3)
    next(iterator)
    own = readers() - before
    assert own
    iterator.close()
    deadline = time.monotonic() + 60  # a busy machine takes its time
    while own & readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own & readers()


def test_the_steps_of_a_loader_end(source):
    iterator = load(source, start_step=2, num_steps=1)
    assert len(list(iterator)) == 1
    assert list(load(source, start_step=2, num_steps=0)) == []


def test_what_reads_a_sample_can_be_sent_to_a_worker_process(source):
    reader = pipeline._ReadTrainSample(source, pipeline._Shard(4, 0, 1), 5, SIZE_HW, 6, 0.5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))(7).image, reader(7).image)


def test_a_batch_that_does_not_divide_and_a_process_out_of_range_are_refused(source):
    with pytest.raises(ValueError, match="global_batch 4 does not divide by 3 processes"):
        load(source, process_count=3)
    with pytest.raises(ValueError, match="process 2 of 2"):
        load(source, process_index=2, process_count=2)
