"""A resumed run keeps its log and its APs without a gap and without a doubled step, and sets aside what was changed."""

import json
import os
import random
import re
import shutil

import pytest

from tests.mutated import mutated, mutated_json
from tests.training import toy
from yolox_jax.training import history
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.run_log import RunLog

_APS = {4: 0.25, 8: 0.5}
_SCHEDULE = {"total_steps": 20, "steps_per_epoch": 4, "batch_size": 2, "max_bad_steps": 3}


class _Run:
    """A run that logs every step, evaluates after steps 4 and 8, and has saved step 8 last."""

    def __init__(self, workdir, with_mark=True):
        self.workdir, self.log_file = workdir, workdir / "metrics.jsonl"
        self.ap_file = workdir / "checkpoints" / "ap.json"
        self.ap_file.parent.mkdir(parents=True)
        log = RunLog(workdir, **_SCHEDULE)
        log.write({"step": 0, "event": "batch", "picture": "pictures/batch_0.jpg", "height_width": [2, 4]})
        for step in range(11):
            log.write({"step": step, "loss": 1 / (1 + step), "num_dropped_boxes": 0, "grad_norm": float("inf")})
            if step == 5:
                log.write({"step": 3, "event": "skipped", "image_ids": [["a\udcff", 1]]})  # is reported later
            if step == 7:
                self.meta = toy.meta(8, log=log.mark if with_mark else None)
            if step + 1 in _APS:
                log.write({"step": step, "event": "predictions", "picture": "pictures/a.jpg", "height_width": [2, 4]})
                log.write({"step": step, "event": "evaluation", "AP": _APS[step + 1]})
        log.close()
        self.ap_file.write_text(json.dumps(_APS))
        self.log, self.aps = self.log_file.read_bytes(), self.ap_file.read_bytes()
        self.expected = [line.record for line in history.read_lines(self.log)[0] if line.record["step"] < 8]

    def resume(self):
        """Resumes from step 8. Returns the records and the APs that are kept."""
        checkpoints = Checkpoints(self.workdir)
        past = history.resumed(self.workdir, self.workdir, self.meta, checkpoints)
        RunLog(self.workdir, history=past, **_SCHEDULE).close()  # TensorBoard's file too is made of the records
        assert self.log_file.read_bytes() == past.text
        assert json.loads(self.ap_file.read_text()) == {str(step): ap for step, ap in checkpoints.aps().items()}
        return past.records, checkpoints.aps()

    def set_aside(self):
        folder = self.workdir / "damaged"
        return {path.name: path for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def run(tmp_path):
    return _Run(tmp_path / "run")


def test_a_run_continues_its_log_byte_by_byte(run, caplog):
    for _ in range(2):
        assert run.resume() == (run.expected, _APS)
    assert run.log.startswith(run.log_file.read_bytes()) and not caplog.messages and not run.set_aside()
    assert len(run.expected) == 14


def test_a_line_that_a_killed_run_left_half_written_is_no_damage(run, caplog):
    run.log_file.write_bytes(run.log + b'{"step": 11, "lo')
    assert run.resume() == (run.expected, _APS) and not caplog.messages


def test_an_evaluation_whose_ap_was_not_recorded_runs_again(run, caplog):
    run.ap_file.write_text('{"4": 0.25}')
    records, aps = run.resume()
    assert records == [each for each in run.expected if each["step"] < 7 or "event" not in each] and aps == {4: 0.25}
    assert not caplog.messages


def test_a_run_of_a_version_without_marks_continues_too(tmp_path, caplog):
    run = _Run(tmp_path / "run", with_mark=False)
    assert run.resume() == (run.expected, _APS) and not caplog.messages


def test_a_run_that_begins_drops_the_log_of_one_that_saved_nothing(run, caplog):
    run.meta = None
    run.ap_file.write_text("{}")
    assert run.resume() == ([], {}) and not caplog.messages


_DAMAGES = {
    "truncated": (lambda log: log[: len(log) // 2], None, "is not what it was when step 8 was saved"),
    "edited": (lambda log: log.replace(b'"loss": 0.5', b'"loss": 0.4'), 14, "is not what it was"),
    "without a line": (lambda log: log.replace(log.splitlines(keepends=True)[3], b""), 13, "is not what it was"),
    "with an empty line": (lambda log: log.replace(b"\n", b"\n\n", 1), 14, "is not what it was .*2 faults in all"),
    "doubled": (lambda log: log + log, 14, r"line 18 has step 0 after step 0 .\d+ faults in all"),
    "backwards": (lambda log: b"".join(reversed(log.splitlines(keepends=True))), None, "is not what it was"),
    "of Windows": (lambda log: log.replace(b"\n", b"\r\n"), 14, "is not what it was"),
    "empty": (lambda log: b"", 0, "is not what it was"),
    "binary": (lambda log: bytes(range(256)) * 40, 0, "is not what it was"),
    "one huge line": (lambda log: b'{"step": 1, "a": "' + b"x" * 10**7 + b'"}\n', 1, "is not what it was"),
    "of another run": (lambda log: log.replace(b'"AP": 0.25', b'"AP": 0.75'), 0, "is not what .*2 faults in all"),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_log_that_was_changed_is_named_and_kept_beside(run, damage, caplog):
    change, num_kept, message = _DAMAGES[damage]
    damaged = change(run.log)
    run.log_file.write_bytes(damaged)
    records, aps = run.resume()
    assert num_kept in (None, len(records)) and aps[4] == 0.25
    (line,) = caplog.messages
    assert line.startswith(f"{run.log_file} ") and re.search(message, line), line
    assert f"; {len(records)} records of the steps before 8 are kept" in line
    if damaged:
        assert f"set aside as {run.workdir}/damaged/metrics-1.jsonl;" in line
        assert run.set_aside()["metrics-1.jsonl"].read_bytes() == damaged


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "/dev/zero", "/nowhere"])
def test_a_log_that_is_no_file_is_named_and_kept_beside(run, kind, caplog):
    run.log_file.unlink()
    make = {"missing": id, "a folder": os.mkdir, "a pipe": os.mkfifo}
    make.get(kind, lambda path: path.symlink_to(kind))(run.log_file)
    assert run.resume()[0] == []
    (line,) = caplog.messages
    assert line.startswith(f"{run.log_file} ") and "; 0 records of the steps before 8 are kept" in line
    assert set(run.set_aside()) == (set() if kind == "missing" else {"metrics-1.jsonl"})


def test_picture_names_of_an_edited_log_lead_nowhere_else(run):
    for picture in ("/dev/zero", "pictures/../../secret", "secret"):
        run.log_file.write_bytes(run.log.replace(b"pictures/batch_0.jpg", picture.encode()))
        assert run.resume()[0] == run.expected[1:]
    assert set(run.set_aside()) == {f"metrics-{number}.jsonl" for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("text", "aps"),
    [
        ("", {4: 0.25}),
        ("null", {4: 0.25}),
        ('{"4": 0.9, "8": 0.5}', _APS),  # edited: the log says otherwise
        ('{"8": 0.5}', _APS),
        ('{"4": 0.25, "6": 0.1, "8": 0.5}', _APS),
        ('{"4": 0.25, "8": 0.6}', {4: 0.25}),  # the last one is evaluated again
        (None, {4: 0.25}),
    ],
)
def test_an_ap_json_that_was_changed_is_kept_beside_and_made_again_from_the_log(run, text, aps, caplog):
    run.ap_file.unlink()
    if text is not None:
        run.ap_file.write_text(text)
    assert run.resume()[1] == aps
    if text in (None, '{"4": 0.25, "8": 0.6}'):
        assert not run.set_aside()
    else:
        assert run.set_aside()["ap-1.json"].read_text() == text and "ap.json" in caplog.text


def test_mutated_logs_and_aps_are_corrected_or_named_and_never_lost(tmp_path, caplog):
    rng, run = random.Random(0), _Run(tmp_path / "run")
    num_marked = len(run.expected) - 2  # the evaluation of step 7 and its picture come after the mark
    for number in range(50):
        shutil.rmtree(run.workdir / "damaged", ignore_errors=True)
        run.log_file.write_bytes(run.log)
        run.ap_file.write_bytes(run.aps)
        caplog.clear()
        changed = run.log
        if number % 2:
            changed = mutated(run.log, rng)
            run.log_file.write_bytes(changed)
        else:
            run.ap_file.write_bytes(next(mutated_json(run.aps, rng, 1)))
        records, aps = run.resume()
        keys = [(record.get("event"), record["step"]) for record in records]
        assert len(keys) == len(set(keys)) and all(record["step"] < 8 for record in records)
        if not caplog.messages:  # of what was logged after the checkpoint, only the AP is known from elsewhere
            assert records[:num_marked] == run.expected[:num_marked] and len(records) <= len(run.expected)
            assert aps in (_APS, {4: 0.25})
        if changed[: run.meta.log.num_bytes] != run.log[: run.meta.log.num_bytes] and changed:
            assert run.set_aside()["metrics-1.jsonl"].read_bytes() == changed
