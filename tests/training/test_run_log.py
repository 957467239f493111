"""RunLog records every report once, and stops a run that diverges."""

import json
import shutil

import numpy as np
import pytest

from benchmarks.crash_test import read_events
from yolox_jax.errors import UserError
from yolox_jax.training import hosts
from yolox_jax.training.history import History, read_lines
from yolox_jax.training.run_directory import RunDirectoryError
from yolox_jax.training.run_log import RunLog, TrainingBrokeDown

_METRICS = {"loss": 3.0, "loss_iou": 1.0, "loss_obj": 1.0, "loss_cls": 1.0, "loss_l1": 0.0}
_METRICS |= {"num_fg_per_gt": 2.0, "learning_rate": 0.1, "grad_norm": 5.0, "skipped": 0.0}


@pytest.fixture
def log(tmp_path):
    log = RunLog(tmp_path, total_steps=100, steps_per_epoch=10, batch_size=2, max_bad_steps=3)
    yield log
    log.close()


def _add(log: RunLog, step: int, bad: bool = False):
    metrics = _METRICS | ({"loss": np.nan, "skipped": 1.0} if bad else {})
    log.add(step, metrics, ((f"image{step}", 7),))


def _records(tmp_path):
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(record.pop("time") > 0 for record in records)
    return records


def test_a_report_has_the_last_step_with_its_losses_speed_and_time_left(log, tmp_path, capsys):
    for step in range(10):
        _add(log, step)
    log.report()
    (record,) = _records(tmp_path)
    assert record["step"] == 9 and record["loss"] == 3.0 and record["images_per_second"] > 0
    line = capsys.readouterr().out
    for part in ("step 10/100", "epoch 1/10", "loss_iou 1.000", "lr 1.00e-01", "images/s", "ETA"):
        assert part in line


def test_a_report_returns_the_line_that_it_writes_with_its_time_and_a_text_for_what_is_not_finite(log, tmp_path):
    _add(log, 0, bad=True)
    record = log.report()
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == record
    assert record["loss"] == "nan" and record["time"] > 0


def test_a_skipped_step_is_reported_with_its_images(log, tmp_path, capsys):
    _add(log, 0)
    _add(log, 1, bad=True)
    _add(log, 2)
    log.report()
    assert "step 1" in capsys.readouterr().out
    assert {"step": 1, "event": "skipped", "image_ids": [["image1", 7]]} in _records(tmp_path)
    assert _records(tmp_path)[-1]["num_skipped"] == 1


def test_enough_bad_steps_in_a_row_stop_the_run_even_with_a_report_between_them(log):
    _add(log, 0, bad=True)
    _add(log, 1, bad=True)
    log.report()
    _add(log, 2, bad=True)
    with pytest.raises(TrainingBrokeDown, match="3 steps in a row up to step 2"):
        log.report()


def test_an_overflow_of_float16_is_counted_and_recorded_but_is_not_a_bad_step(log, tmp_path, capsys):
    scaled = {"loss_scale": 65536.0, "overflowed": 0.0}
    overflow = {"grad_norm": np.inf, "skipped": 1.0, "overflowed": 1.0}
    _add(log, 0, bad=True)
    for step in range(1, 5):
        log.add(step, _METRICS | scaled | overflow, ())
    log.add(5, _METRICS | scaled, ())
    log.report()
    line = "step 1: the gradients overflow float16: update skipped, loss scale halved to 32768"
    assert line in capsys.readouterr().out
    records = _records(tmp_path)
    assert {"step": 1, "event": "overflowed", "loss_scale": 65536.0} in records
    assert (records[-1]["num_overflowed"], records[-1]["num_skipped"], records[-1]["loss_scale"]) == (4, 1, 65536.0)

    past = History(6, tuple(read_lines((tmp_path / "metrics.jsonl").read_bytes())[0]))
    resumed = RunLog(tmp_path, history=past, total_steps=100, steps_per_epoch=10, batch_size=2, max_bad_steps=2)
    resumed.add(6, _METRICS | scaled, ())
    resumed.report()
    assert _records(tmp_path)[-1]["num_overflowed"] == 4
    lowest = {"loss_scale": 1.0, "overflowed": 0.0, "grad_norm": np.inf, "skipped": 1.0}
    for step in (7, 8):
        resumed.add(step, _METRICS | lowest, ())
    with pytest.raises(TrainingBrokeDown, match="norm inf at loss scale 1.*or train with --config.dtype=float32"):
        resumed.report()
    resumed.close()


def test_a_good_step_between_bad_ones_restarts_the_count(log):
    for step in range(12):
        _add(log, step, bad=step % 3 != 0)
    log.report()


def test_boxes_without_a_slot_are_counted_and_reported_once(log, tmp_path, capsys):
    for step, dropped in enumerate((0, 4, 3)):
        log.count_dropped_boxes(dropped, num_slots=120)
        _add(log, step)
    log.report()
    assert capsys.readouterr().out.count("an image has room for 120: raise config.data.max_boxes") == 1
    assert _records(tmp_path)[-1]["num_dropped_boxes"] == 7


def test_skipped_steps_and_dropped_boxes_are_those_of_all_processes(log, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hosts, "gather", lambda content: [content, b'[["theirs", 8]]'])
    monkeypatch.setattr(hosts, "sum_over_all", lambda value: value + 5)
    log.count_dropped_boxes(2, num_slots=120)
    _add(log, 0, bad=True)
    log.report()
    skipped, report = _records(tmp_path)
    assert skipped["image_ids"] == [["image0", 7], ["theirs", 8]]
    assert "Images [['image0', 7], ['theirs', 8]]" in (printed := capsys.readouterr().out)
    assert report["num_dropped_boxes"] == 7 and "7 boxes are left out" in printed
    _add(log, 1)
    log.report()
    assert _records(tmp_path)[-1]["num_dropped_boxes"] == 12  # five more of the other process, none here


def test_the_share_of_time_spent_waiting_for_data_is_logged(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("yolox_jax.training.run_log.time.perf_counter", lambda: clock[0])

    def batches():
        for wait in (1.0, 0.0, 3.0):
            clock[0] += wait
            yield wait

    log = RunLog(tmp_path, total_steps=100, steps_per_epoch=10, batch_size=2, max_bad_steps=3)
    for step, _ in enumerate(log.time_waits(batches())):
        clock[0] += 2.0  # training
        _add(log, step)
        if step == 1:
            log.report()
    log.report()
    log.close()
    assert [record["data_wait"] for record in _records(tmp_path)] == [1 / 5, 3 / 5]


def test_the_error_for_a_full_disk_says_how_to_resume(log):
    log._file.close()
    log._file = open("/dev/full", "a")  # noqa: SIM115  (closed by the log)
    with pytest.raises(
        RunDirectoryError, match=r"cannot be written \(No space left on device\): free some space; .* resumes"
    ):
        log.write({"step": 0, "loss": 1.0})
    log.close()


def test_a_tracker_that_fails_is_disabled_and_the_run_continues(tmp_path, caplog):
    class Failing:
        def add(self, numbers, step):
            raise ConnectionError("no network")

        def close(self):
            pytest.fail("called after its error")

    log = RunLog(tmp_path, total_steps=100, steps_per_epoch=10, batch_size=4, max_bad_steps=3, tracker=Failing())
    for step in range(2):
        log.write({"step": step, "loss": 1.0})
    log.close()
    assert [record["step"] for record in _records(tmp_path)] == [0, 1]
    assert caplog.text.count("tracker disabled after an error: no network (metrics.jsonl is complete)") == 1


def test_max_bad_steps_below_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="config.max_bad_steps is 0: give 1 or more"):
        RunLog(tmp_path, total_steps=100, steps_per_epoch=10, batch_size=4, max_bad_steps=0)


def test_a_log_that_is_deleted_begins_again_with_a_warning_and_loses_nothing_more(log, tmp_path, caplog):
    for step in range(3):
        if step == 1:
            (tmp_path / "metrics.jsonl").unlink()
            shutil.rmtree(tmp_path / "tensorboard")
        _add(log, step)
        log.report()
    assert [record["step"] for record in _records(tmp_path)] == [1, 2]
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert {event.step for event in read_events(file) if event.summary.value} == {1, 2}
    assert caplog.text.count("metrics.jsonl was deleted: it begins again at step 1") == 1
