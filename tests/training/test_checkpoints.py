"""Checkpoints are restored bit for bit, and unreadable ones are reported."""

import json
import logging
import os
import resource
import shutil

import jax
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.errors import UserError
from yolox_jax.mesh import make_mesh, place
from yolox_jax.tools.checkpoints import table
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.save_due import SaveDue
from yolox_jax.weights import checkpoint, manifest, meta


def _accept(meta: checkpoint.Meta) -> None:
    """Accepts any meta."""


def _table(workdir, verify=False):
    return table(checkpoint.list_checkpoints(workdir, verify))


def _restore(workdir, like=None, check=_accept):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore_latest(like or toy.create_state(), check)
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """A run with checkpoints 1 to 4; step 2 is the best."""
    workdir = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(workdir, keep_last=2)
    state = toy.create_state()
    for step, ap in ((1, 0.1), (2, 0.9), (3, 0.2), (4, 0.3)):
        state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
        checkpoints.save(state, toy.meta(step))
        checkpoints.record_ap(step, ap)
    checkpoints.close()
    return workdir, state


@pytest.fixture
def run(saved_run, tmp_path):
    """A copy of that run, which a test may damage."""
    workdir, state = saved_run
    return shutil.copytree(workdir, tmp_path / "run"), state


def test_too_few_files_that_may_be_opened_are_known_before_a_save(tmp_path, monkeypatch):
    checkpoints, limit = Checkpoints(tmp_path), len(os.listdir("/proc/self/fd")) + 15
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    with pytest.raises(UserError, match=rf"of {limit} files .* are open, and saving .* at least 20: raise the limit"):
        checkpoints.save(toy.create_state(), toy.meta(1))
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_restored_bit_for_bit_on_another_mesh(run):
    workdir, state = run
    restored, found = _restore(workdir, place(toy.create_state(), make_mesh(8)))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(restored))
    assert found == toy.meta(4)
    assert found.packages["jax"] == jax.__version__


def test_the_version_of_a_package_that_is_not_installed_is_unknown(monkeypatch):
    monkeypatch.setattr(meta, "_PACKAGES", ("jax", "opencv-of-another-name"))
    assert toy.meta(1).packages == {"jax": jax.__version__, "opencv-of-another-name": "unknown"}


def test_nothing_is_restored_if_nothing_was_saved(tmp_path):
    assert _restore(tmp_path) is None


def test_an_error_of_the_check_is_raised_as_it_is(run):
    workdir, _ = run

    def refuse(meta):
        raise ValueError("another run")

    with pytest.raises(ValueError, match="another run"):
        _restore(workdir, check=refuse)


def _files(checkpoint_dir, part):
    return [path for path in (checkpoint_dir / part).rglob("*") if path.is_file() and path.stat().st_size > 0]


@pytest.mark.parametrize("part", ["ema", "raw", "train", "meta"])
@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "deleted"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_used(run, part, damage, caplog):
    workdir, _ = run
    newest = workdir / "checkpoints" / "4"
    for path in _files(newest, part):
        content = path.read_bytes()
        if damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "flipped bit":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :])
        else:
            path.unlink()
    left = sorted(workdir.rglob("*"))
    with caplog.at_level(logging.WARNING):
        _, found = _restore(workdir)
    assert found.step == 3
    assert caplog.text.count(f"{newest} cannot be read") == 1
    assert sorted(workdir.rglob("*")) == left


def test_after_a_fallback_new_checkpoints_are_kept_and_the_unreadable_one_is_set_aside(run):
    workdir, state = run
    folder = workdir / "checkpoints"
    (folder / "4").rename(folder / "9")
    (folder / "9" / "meta" / "metadata").write_text("{")
    checkpoints = Checkpoints(workdir, keep_last=2)
    _, found = checkpoints.restore_latest(toy.create_state(), _accept)
    assert found.step == 3
    for step in (5, 6, 7):
        checkpoints.save(state, toy.meta(step))
    checkpoints.close()
    assert checkpoints.steps() == [2, 6, 7, 9]  # the best, the last two, and the damaged one
    assert _restore(workdir)[1].step == 7
    checkpoints.save(state, toy.meta(9))
    checkpoints.close()
    assert checkpoints.steps() == [2, 7, 9]
    assert (folder / "9.unreadable-1" / "meta" / "metadata").read_text() == "{"
    assert _restore(workdir)[1].step == 9
    assert _table(workdir).splitlines()[-1].endswith("set aside: cannot be read")


def test_after_a_fallback_the_aps_of_the_steps_that_run_again_are_dropped(run):
    workdir, _ = run
    (workdir / "checkpoints" / "4" / "meta" / "metadata").write_text("{")
    assert sorted(Checkpoints(workdir).aps()) == [1, 2, 3, 4]
    assert _restore(workdir)[1].step == 3
    assert sorted(Checkpoints(workdir).aps()) == [1, 2, 3]


def test_a_run_that_resumes_before_its_newest_checkpoint_keeps_what_it_saves_from_then_on(run):
    workdir, state = run
    assert Checkpoints(workdir).steps()[-2:] == [3, 4]
    checkpoints = Checkpoints(workdir, keep_last=2)
    _, found = checkpoints.restore_latest(toy.create_state(), _accept, newest=2)
    assert found.step == 2
    checkpoints.set_aside_after(2)
    assert checkpoint.find(workdir / "last").name == "2"
    for step in (3, 4):
        checkpoints.save(state, toy.meta(step))
        checkpoints.wait()
        assert checkpoints.steps()[-1] == step
    checkpoints.close()
    assert checkpoints.steps() == [2, 3, 4]  # the best, and the last two
    assert _table(workdir).count("set aside: the other seeds lacked this step") == 2


def test_if_all_checkpoints_are_damaged_all_are_named(run):
    workdir, _ = run
    for step in (2, 3, 4):
        (workdir / "checkpoints" / str(step) / "meta" / "metadata").write_text("{")
    with pytest.raises(
        checkpoint.CheckpointError, match=r"none of the checkpoints .*/4, .*/3, .*/2 can be read: restore one"
    ):
        _restore(workdir)


def test_a_step_that_is_already_saved_is_left_as_it_is(run):
    workdir, state = run
    checkpoints = Checkpoints(workdir)
    checkpoints.save(toy.create_state(), toy.meta(4))
    checkpoints.close()
    restored, _ = _restore(workdir)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_save_is_due_every_so_many_steps_and_minutes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("yolox_jax.training.save_due.time.monotonic", lambda: clock[0])
    due = SaveDue(every_steps=4, every_minutes=1.0)
    found = []
    for step in range(12):
        clock[0] += 25.0
        if due(step):
            due.note_save()
            found.append(step)
    assert found == [2, 3, 6, 7, 10, 11]
    assert not any(SaveDue(None, None)(step) for step in range(100))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((0, None), "checkpoint.every_steps is 0"),
        ((None, -1.0), "checkpoint.every_minutes is -1"),
        ((None, None, 0), "log_every_steps is 0"),
    ],
)
def test_a_number_that_is_too_small_for_its_field_is_refused(arguments, field):
    with pytest.raises(UserError, match=f"config.{field}.*: give"):
        SaveDue(*arguments)


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(UserError, match="config.checkpoint.keep_last is 0: give 1 or more"):
        Checkpoints(tmp_path, keep_last=0)


def test_the_last_two_and_the_best_are_kept(run):
    workdir, _ = run
    assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()) == [2, 3, 4]


def test_ema_and_raw_weights_are_read_without_the_rest(run):
    workdir, state = run
    found = checkpoint.find(workdir)
    assert found == workdir / "checkpoints" / "4" == checkpoint.find(found)
    assert checkpoint.read_meta(found).class_names == ("cat", "dog")
    jax.tree.map(np.testing.assert_array_equal, checkpoint.read_variables(found, state.ema), state.ema)
    raw = checkpoint.read_variables(found, state.ema, "raw")
    jax.tree.map(np.testing.assert_array_equal, raw, {"params": state.params, "batch_stats": state.batch_stats})


def test_a_folder_without_checkpoints_has_none_to_find(tmp_path):
    assert checkpoint.find(tmp_path) is None
    assert checkpoint.find(tmp_path / "absent") is None


def test_another_format_version_is_refused_and_both_are_named(tmp_path):
    content = {**toy.meta(1).to_json(), "format_version": 99, "of_a_later_version": 1}
    with pytest.raises(checkpoint.OtherFormatError, match="format 99, this version of yolox_jax reads 3"):
        checkpoint.Meta.from_json(json.loads(json.dumps(content)))


def test_a_list_shows_step_ap_size_devices_and_condition(run):
    workdir, _ = run
    folder = workdir / "checkpoints"
    (folder / "5.orbax-checkpoint-tmp-1").mkdir()
    (folder / "3" / "meta" / "metadata").write_text("{")
    lines = _table(workdir).splitlines()
    columns = [line.split(maxsplit=4) for line in lines[1:]]
    assert [(each[0], each[1]) for each in columns[:3]] == [("2", "0.9000"), ("3", "0.2000"), ("4", "0.3000")]
    assert lines[1].endswith("1  best, complete") and lines[3].endswith("1  complete")
    assert "cannot be read" in lines[2] and lines[4].endswith("half-written")


def test_best_and_last_are_names_of_checkpoints(run):
    run, _ = run
    assert checkpoint.find(run / "best") == run / "checkpoints" / "2"
    assert checkpoint.find(run / "last") == checkpoint.find(run) == run / "checkpoints" / "4"


def test_a_run_that_was_never_evaluated_has_no_best_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(toy.create_state(), toy.meta(1))
    checkpoints.close()
    assert checkpoint.find(tmp_path / "last").name == "1"
    with pytest.raises(checkpoint.CheckpointError, match="was evaluated, so none is the best: .*/last is the newest"):
        checkpoint.find(tmp_path / "best")
    assert checkpoint.find(tmp_path / "elsewhere" / "best") is None


def test_a_damaged_checkpoint_that_the_user_names_is_an_error_with_advice(run):
    workdir, state = run
    newest = workdir / "checkpoints" / "4"
    (newest / "meta" / "metadata").write_text("{")
    (newest / "ema" / "_METADATA").write_text("{")
    for read in (checkpoint.read_meta, lambda path: checkpoint.read_variables(path, state.ema)):
        with pytest.raises(checkpoint.CheckpointError, match="4 cannot be read .*yolox_jax.tools.checkpoints .* lists"):
            read(newest)


def test_every_single_flipped_bit_of_a_file_is_found(run):
    folder = run[0] / "checkpoints" / "4"
    assert manifest.verify(folder)
    rng = np.random.default_rng(0)
    for name in manifest.file_names(folder):
        content = (folder / name).read_bytes()
        for byte in {0, len(content) - 1, int(rng.integers(len(content)))} if content else ():
            damaged = bytearray(content)
            damaged[byte] ^= 1 << int(rng.integers(8))
            (folder / name).write_bytes(damaged)
            with pytest.raises(manifest.ManifestError, match=f"{name} has"):
                manifest.verify(folder)
        (folder / name).write_bytes(content)
    assert manifest.verify(folder)


@pytest.mark.parametrize("item", ["ema", "raw", "train", "meta", "all"])
def test_items_of_another_step_are_never_mixed_in(run, item, caplog):
    workdir, _ = run
    folder = workdir / "checkpoints"
    for name in ("ema", "raw", "train", "meta", manifest.NAME) if item == "all" else (item,):
        found = folder / "3" / name
        if found.is_dir():
            shutil.rmtree(folder / "4" / name)
            shutil.copytree(found, folder / "4" / name)
        else:
            shutil.copy(found, folder / "4" / name)
    _, found = _restore(workdir)
    assert found.step == 3 and f"{folder / '4'} cannot be read" in caplog.text


def test_a_checkpoint_without_a_manifest_is_read_with_a_warning(run, caplog):
    workdir, state = run
    (workdir / "checkpoints" / "4" / manifest.NAME).unlink()
    restored, found = _restore(workdir)
    assert found.step == 4
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert "4 has no manifest" in caplog.text and "cannot be read" not in caplog.text


@pytest.mark.parametrize(
    "text",
    ["", "null", "[" * 10_000, "{}", '{"format_version": 2, "step": 4, "files": {}}']
    + [
        json.dumps({"format_version": 1, "step": step, "files": files})
        for step, files in ((5, {"meta/a": {"bytes": 1, "crc32c": "0"}}), (4, {}), (4, {"meta/../../a": {}}), ("4", {}))
    ],
)
def test_a_manifest_that_is_not_one_makes_the_checkpoint_unreadable(run, text, caplog):
    workdir, _ = run
    (workdir / "checkpoints" / "4" / manifest.NAME).write_text(text)
    assert _restore(workdir)[1].step == 3
    assert "4 cannot be read" in caplog.text


def test_verifying_names_the_damaged_checkpoints(run):
    workdir, _ = run
    folder = workdir / "checkpoints"
    (folder / "2" / manifest.NAME).unlink()
    largest = max((folder / "4" / "train").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(largest.read_bytes()[:-1])
    lines = _table(workdir, verify=True).splitlines()[1:]
    assert lines[0].endswith("complete, but has no manifest") and lines[1].endswith("verified")
    assert f"cannot be read: train/{largest.relative_to(folder / '4' / 'train')} has" in lines[2]
    assert [each.is_damaged for each in checkpoint.list_checkpoints(workdir, verify=True)] == [False, False, True]
