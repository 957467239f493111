"""Checks the guarantee that the batch of a step is a pure function of (seed, step), however it is read."""

import errno
import pickle
import threading
import time
from multiprocessing import shared_memory

import numpy as np
import pytest

from tests.data.made_source import CountingSource, MadeSource, striped
from tests.recipe import augment_config, loader_config, read_config
from yolox_jax.augment.sample import train_sample
from yolox_jax.data.images import ImageError
from yolox_jax.data.order import index_at, partner_at, sample_rng
from yolox_jax.data.prefetch import Shard, worker_errors
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.data.views.cache import FittedSource
from yolox_jax.data.views.naming import SampleError
from yolox_jax.errors import UserError
from yolox_jax.weights import meta

SIZE_HW = (48, 64)


class FailingSource(MadeSource):
    """Image 3 raises an error."""

    def error(self):
        return ImageError("three.jpg is odd", "replace it")

    def __getitem__(self, index):
        if index == 3:
            raise self.error()
        return super().__getitem__(index)


class BrokenSource(FailingSource):
    """Image 3 runs into a bug."""

    def error(self):
        raise ZeroDivisionError("a bug")


@pytest.fixture(scope="module")
def source():
    return ShapesSource(10, seed=0, max_side=64)


NO_AUG = augment_config().no_aug()


def load(source, *, num_steps=6, start_step=0, shard=None, threads=2, workers=0, prefetch=4, cache=1 << 20, **options):
    config = loader_config(**({"size_hw": SIZE_HW, "global_batch": 4, "seed": 5, "num_slots": 30} | options))
    read = read_config(threads=threads, workers=workers, prefetch=prefetch, cache_bytes=cache)
    return TrainLoader(source, config, num_steps, start_step=start_step, shard=shard or Shard(), read=read)


def assert_same_batch(left, right):
    assert left.image_ids == right.image_ids
    assert left.num_dropped_boxes == right.num_dropped_boxes
    for field in ("images", "gt_boxes", "gt_labels", "gt_mask", "hsv_shift", "content_hw"):
        np.testing.assert_array_equal(getattr(left.batch, field), getattr(right.batch, field))


def assert_same_batches(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert_same_batch(one, other)


def test_a_batch_has_the_shapes_and_types_of_batch(source):
    batch = next(load(source)).batch
    assert (batch.images.shape, batch.images.dtype) == ((4, 48, 64, 3), np.uint8)
    assert (batch.gt_boxes.shape, batch.gt_boxes.dtype) == ((4, 30, 4), np.float32)
    assert (batch.gt_labels.shape, batch.gt_labels.dtype) == ((4, 30), np.int32)
    assert (batch.gt_mask.shape, batch.gt_mask.dtype) == ((4, 30), np.bool_)
    assert (batch.hsv_shift.shape, batch.hsv_shift.dtype) == ((4, 3), np.float32)
    assert (batch.content_hw.shape, batch.content_hw.dtype) == ((4, 2), np.int32)


def test_without_color_shifts_the_batch_has_none(source):
    batch = next(load(source, augment=augment_config(hsv=None))).batch
    assert batch.hsv_shift is None and batch.content_hw is None


@pytest.mark.parametrize(
    "read",
    [
        {"threads": 1, "prefetch": 1},
        {"threads": 2, "prefetch": 8},
        {"threads": 8, "prefetch": 1},
        {"threads": 2, "prefetch": 0},
        {"threads": 2, "cache": 0},
        {"threads": 2, "cache": 20_000},  # two images
    ],
)
def test_the_batches_do_not_depend_on_threads_prefetch_or_cache(source, read):
    for mosaic_window in (0, 4):
        one = load(source, threads=0, mosaic_window=mosaic_window)
        assert_same_batches(one, load(source, mosaic_window=mosaic_window, **read))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "threads"), [(1, 0), (2, 0), (3, 2)])
def test_the_batches_are_the_same_from_worker_processes(source, workers, threads):
    with load(source, workers=workers, threads=threads) as loader:
        assert_same_batches(load(source, threads=0), loader)
        loader.set_state(loader.get_state() | {"next_step": 4})
        assert_same_batches(load(source, start_step=4), loader)


@pytest.mark.parametrize("start_step", [1, 3, 5])
def test_a_run_started_at_a_step_has_the_same_batches_as_the_whole_run(source, start_step):
    assert_same_batches(list(load(source))[start_step:], load(source, start_step=start_step))


def test_a_saved_state_resumes_in_any_loader_of_the_run(source):
    loader = load(source)
    next(loader), next(loader)
    state = pickle.loads(pickle.dumps(loader.get_state()))
    rest = list(loader)
    assert len(rest) == 4
    for other in (load(source, threads=3, prefetch=1), load(source, start_step=5), loader):
        other.set_state(state)
        assert_same_batches(rest, other)


def test_resuming_reads_no_image_of_earlier_steps(source):
    counting = CountingSource(striped(), [[2, 4, 12, 20]], length=1000)
    loader = load(counting, num_steps=10**6, threads=0, mosaic_window=8)
    loader.set_state(loader.get_state() | {"next_step": 10**6 - 1})
    assert len(list(loader)) == 1
    assert len(counting.read) <= 4 * 5


def test_a_state_of_other_batches_is_refused(source):
    state = load(source).get_state()
    assert set(state) == {"next_step", *meta._DATA_ORDER}  # what a checkpoint's meta may have
    with pytest.raises(UserError, match="num_images: 10 there, 9 here; .*seed: 5 there, 6 here"):
        load(ShapesSource(9, seed=0, max_side=64), seed=6).set_state(state)
    with pytest.raises(UserError, match="global_batch: 4 there, 8 here"):
        load(source, global_batch=8).set_state(state)
    same_size = ShapesSource(len(source), seed=1, max_side=64)
    with pytest.raises(UserError, match=r"another data set or other settings .data_set_crc: \d+ there, \d+ here.: "):
        load(same_size).set_state(state)


@pytest.mark.parametrize("mosaic_window", [0, 4])
def test_a_sample_is_determined_by_seed_and_position(source, mosaic_window):
    batches = list(load(source, mosaic_window=mosaic_window))
    for position in (0, 7, 13, 23):
        index = index_at(position, len(source), seed=5)
        expected = train_sample(
            FittedSource(source, SIZE_HW),
            index,
            sample_rng(position, seed=5),
            size_hw=SIZE_HW,
            num_slots=30,
            augment=augment_config(),
            draw_partner=lambda rng, position=position: partner_at(position, len(source), 5, mosaic_window, rng),
        )
        batch, row = batches[position // 4], position % 4
        assert batch.image_ids[row] == expected.image_ids
        assert expected.image_ids[0] == source.image_id(index)
        np.testing.assert_array_equal(batch.batch.images[row], expected.image)
        np.testing.assert_array_equal(batch.batch.gt_boxes[row], expected.boxes)


def test_mosaic_and_mixup_end_at_their_step_in_the_same_loader(source):
    with load(source, no_aug_step=3) as loader:
        num_images = [{len(ids) for ids in loaded.image_ids} for loaded in loader]
    assert all(1 not in of_step for of_step in num_images[:3])
    assert num_images[3:] == [{1}] * 3
    assert_same_batches(list(load(source, augment=NO_AUG))[3:], load(source, no_aug_step=3, start_step=3))


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_partition_each_batch_of_one(source, num_processes):
    parts = [load(source, shard=Shard(index, num_processes)) for index in range(num_processes)]
    for whole, *rows in zip(load(source), *parts, strict=True):
        assert sum((part.image_ids for part in rows), ()) == whole.image_ids
        images = np.concatenate([part.batch.images for part in rows])
        np.testing.assert_array_equal(images, whole.batch.images)


def test_two_processes_see_every_image_once_an_epoch(source):
    parts = [list(load(source, shard=Shard(index, 2), num_steps=5)) for index in range(2)]
    own = [[ids[0] for loaded in part for ids in loaded.image_ids] for part in parts]
    assert sorted(own[0] + own[1]) == sorted([*range(1, 11), *range(1, 11)])  # 5 steps of 4 are two epochs of 10


def test_every_epoch_has_every_image_once_in_a_different_order():
    epochs = [[index_at(epoch * 50 + place, 50, seed=1) for place in range(50)] for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(50))
    other_seed = [index_at(place, 50, seed=2) for place in range(50)]
    assert len({tuple(order) for order in [*epochs, other_seed, range(50)]}) == 5


def test_an_epoch_may_end_inside_a_batch(source):
    image_ids = [ids[0] for batch in load(source, num_steps=5) for ids in batch.image_ids]
    assert sorted(image_ids[:10]) == sorted(image_ids[10:]) == list(range(1, 11))
    assert image_ids[:10] != image_ids[10:]


def test_partners_come_from_the_window_before_a_position_with_equal_probability():
    num_images, seed, window = 100, 1, 8
    for position in (0, 5, 50, 103):  # the last one's window reaches into the epoch before
        rng = np.random.default_rng(0)
        drawn = [partner_at(position, num_images, seed, window, rng) for _ in range(4000)]
        first = max(0, position - window + 1)
        expected = [index_at(first + i, num_images, seed) for i in range(window)]
        counts = [drawn.count(index) for index in expected]
        assert sum(counts) == 4000
        assert all(400 < count for count in counts)  # 500 of each expected, with a standard deviation of 21
        assert index_at(position, num_images, seed) in expected


@pytest.mark.parametrize("window", [0, 100, 500])
def test_partners_come_from_the_whole_set_if_the_window_is_0_or_as_large(window):
    rng = np.random.default_rng(0)
    drawn = {partner_at(3, 100, 1, window, rng) for _ in range(2000)}
    assert drawn == set(range(100))


def test_a_cache_of_the_window_decodes_each_image_once():
    counting = CountingSource(striped(), [[2, 4, 12, 20]], length=400)
    cache = (8 + 4) * 48 * 64 * 3  # the window and one prefetched batch, in fitted images
    batches = list(load(counting, num_steps=100, threads=0, mosaic_window=8, cache=cache))
    assert min(len(ids) for loaded in batches for ids in loaded.image_ids) == 5
    assert len(counting.read) <= 1.05 * 400


def test_boxes_beyond_the_slots_are_counted():
    boxes = [[number, 0, number + 5, 9] for number in range(7)]
    (loaded,) = load(MadeSource(striped(), boxes), augment=NO_AUG, num_slots=4, num_steps=1, global_batch=3)
    assert loaded.num_dropped_boxes == 9
    assert loaded.batch.gt_mask.all()
    assert loaded.batch.gt_labels.tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("read", [{"threads": 0}, {"threads": 2}, {"workers": 1}])
def test_an_error_in_a_sample_names_the_image(read):
    failing = FailingSource(striped(), [], length=5)
    message = r"^image 'image 3' \(index 3 of the source\): three\.jpg is odd: replace it"
    with load(failing, augment=NO_AUG, **read) as loader, pytest.raises(SampleError, match=message):
        list(loader)


@pytest.mark.parametrize("read", [{"threads": 0}, {"threads": 2}, {"workers": 1}])
def test_an_unexpected_error_keeps_its_type_and_traceback_and_gets_a_note_with_the_image(read):
    broken = BrokenSource(striped(), [], length=5)
    with load(broken, augment=NO_AUG, **read) as loader, pytest.raises(ZeroDivisionError) as caught:
        list(loader)
    assert str(caught.value) == "a bug"
    assert caught.value.__notes__[:2] == [
        "while reading image 'image 3' (index 3 of the source)",
        "while making the sample of image 'image 3' (index 3 of the source)",
    ]
    assert any(entry.name == "error" for entry in caught.traceback)  # where it was raised


def test_a_failing_partner_is_named_and_not_the_image_it_was_read_for():
    failing = FailingSource(striped(), [], length=5)
    with pytest.raises(SampleError, match="^image 'image 3'"):
        for seed in range(20):
            list(load(failing, num_steps=1, global_batch=1, seed=seed))


def test_a_loader_left_early_stops_its_threads(source):
    def readers():
        return {thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")}

    before = readers()
    iterator = load(source, num_steps=1000, threads=3)
    next(iterator)
    own = readers() - before
    assert own
    iterator.close()
    deadline = time.monotonic() + 60  # a busy machine may be slow
    while own & readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own & readers()


def test_the_steps_of_a_loader_end(source):
    assert len(list(load(source, start_step=2, num_steps=3))) == 1
    assert list(load(source, start_step=2, num_steps=2)) == []


def test_a_batch_that_the_processes_cannot_share_evenly_and_a_process_out_of_range_are_refused(source):
    with pytest.raises(UserError, match=r"config\.batch_size is 4, not a multiple of 3 processes"):
        load(source, shard=Shard(0, 3))
    with pytest.raises(ValueError, match="process 2 of 2"):
        Shard(2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch": 0}, "batch_size is 0: give 1 or more"),
        ({"seed": -1}, "seed is -1: give 0 or more"),
        ({"num_slots": 0}, "data.max_boxes is 0: give 1 or more"),
        ({"mosaic_window": -1}, "data.mosaic_window is -1: give 0 or more"),
        ({"threads": -1}, "data.threads is -1: give 0 or more"),
        ({"workers": -1}, "data.workers is -1: give 0 or more"),
        ({"prefetch": -1}, "data.prefetch is -1: give 0 or more"),
        ({"cache": -1 << 20}, "data.cache_mb is -1: give 0 or more"),
    ],
)
def test_an_impossible_number_is_refused_by_the_name_of_its_field(source, changes, message):
    with pytest.raises(UserError, match=f"^config.{message}$"):
        load(source, **changes)


def test_loaders_that_are_opened_and_closed_leave_no_thread_behind(source):
    before = set(threading.enumerate())
    for start_step in range(20):
        with load(source, num_steps=30, start_step=start_step) as loader:
            next(loader)
    left = set(threading.enumerate()) - before
    for thread in left:  # close does not wait for the samples that are being made
        thread.join(60)
    assert len(left) <= 2 and not any(thread.is_alive() for thread in left)


def test_worker_processes_without_shared_memory_are_one_message(source, monkeypatch):
    """As on a machine whose /dev/shm is absent or read-only."""

    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(shared_memory, "SharedMemory", refuse)
    with pytest.raises(UserError, match=r"/dev/shm cannot be written \(Read-only file system\): .*workers=0"):
        next(load(source, workers=1))


@pytest.mark.parametrize(("code", "cause"), [(-7, "/dev/shm is full"), (-9, "memory ran out"), (1, "see above")])
def test_a_worker_process_that_is_killed_is_one_message(code, cause):
    with pytest.raises(UserError, match=f"exit code {code}, .*{cause}"), worker_errors():
        raise RuntimeError(f"Worker process was terminated unexpectedly with exit code {code}. Search the logs above")
    with pytest.raises(RuntimeError, match="a bug"), worker_errors():
        raise RuntimeError("a bug")
