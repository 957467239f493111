"""What is saved comes back bit for bit, and what cannot be read says so."""

import json

import jax
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.training import checkpoint, parallel


def _meta(step: int, ap: float = 0.5) -> checkpoint.Meta:
    return checkpoint.Meta("nano", ("cat", "dog"), step, ap, {"seed": 0}, {"next_step": step})


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints 1 to 4, of which 2 was the best."""
    checkpoints = checkpoint.Checkpoints(tmp_path, keep_last=2)
    state = toy.create_state()
    for step, ap in ((1, 0.1), (2, 0.9), (3, 0.2), (4, 0.3)):
        state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
        checkpoints.save(state, _meta(step, ap))
    checkpoints.close()
    return tmp_path, state


def test_a_state_comes_back_bit_for_bit_on_another_mesh(run):
    workdir, state = run
    mesh = parallel.make_mesh(8)
    like = parallel.replicate(toy.create_state(), mesh)
    checkpoints = checkpoint.Checkpoints(workdir)
    restored = checkpoints.restore(checkpoints.latest_step(), like)
    meta = checkpoints.read_meta(checkpoints.latest_step())
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(restored))
    assert meta == _meta(4, 0.3)


def test_the_last_two_and_the_best_are_kept(run):
    workdir, _ = run
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()) == [2, 3, 4]


def test_averaged_weights_are_read_alone(run):
    workdir, state = run
    found = checkpoint.find(workdir)
    assert found == workdir / "checkpoints" / "4" == checkpoint.find(found)
    assert checkpoint.read_meta(found).class_names == ("cat", "dog")
    jax.tree.map(np.testing.assert_array_equal, checkpoint.read_ema(found, state.ema), state.ema)


def test_a_folder_without_checkpoints_is_none(tmp_path):
    assert checkpoint.find(tmp_path) is None
    assert checkpoint.find(tmp_path / "absent") is None


def test_another_format_version_is_refused_with_both(tmp_path):
    content = {**_meta(1).to_json(), "format_version": 99}
    with pytest.raises(ValueError, match="format 99, this version of yolox_jax reads 2"):
        checkpoint.Meta.from_json(json.loads(json.dumps(content)), tmp_path)
