"""Only folders that are named by a plain number and have content are checkpoints, for this package and for orbax."""

import pytest

from tests.training import toy
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.weights import bucket_copy, checkpoint

_NO_STEPS = ("²", "-6", "007", "3.unreadable-1", "٣", "99999999999", "9" * 200)


def test_only_plain_numbers_are_steps(tmp_path):
    for name in ("3", *_NO_STEPS):
        (tmp_path / name / "meta").mkdir(parents=True)
    assert checkpoint.complete_steps(tmp_path) == [3]
    files = [f"checkpoints/{name}/meta/metadata" for name in ("3", *_NO_STEPS, "9" * 900)]
    assert list(bucket_copy.steps(files)) == [3]


def _save(workdir, step):
    checkpoints = Checkpoints(workdir)
    checkpoints.save(toy.create_state(), toy.meta(step))
    checkpoints.close()
    return checkpoints.steps()


def test_a_run_saves_and_resumes_beside_folders_that_are_no_steps(tmp_path):
    _save(tmp_path, 4)
    for name in (*_NO_STEPS, "5"):  # a folder 5 without any item is none either
        (tmp_path / "checkpoints" / name).mkdir()
    for step in (4, 6):
        assert Checkpoints(tmp_path).restore_latest(toy.create_state(), lambda meta: None)[1].step == step
        assert _save(tmp_path, 6) == [4, 6]
    assert all((tmp_path / "checkpoints" / name).is_dir() for name in _NO_STEPS)


@pytest.mark.parametrize("name", ["5", "005", "+5"])
def test_what_is_no_checkpoint_does_not_pass_for_one(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert _save(tmp_path, 5) == [5]
    assert (tmp_path / "checkpoints" / ("5.unreadable-1" if name == "5" else name)).is_dir()
