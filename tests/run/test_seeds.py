"""Several seeds at once, on eight simulated devices: each run has the bits of the run alone, checkpoints and AP too."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests import programs, small
from yolox_jax.errors import UserError
from yolox_jax.evaluation.seed_table import seed_table
from yolox_jax.mesh import make_mesh
from yolox_jax.run import prepare, seeds, train
from yolox_jax.run.callbacks import Callbacks
from yolox_jax.training.open_directory import opened
from yolox_jax.training.run_log import TrainingBrokeDown

_STEPS = (3, 6)


def _config():
    config = small.get_config()
    config.input_size, config.batch_size, config.eval.batch_size = (64, 64), 8, 8
    config.data.shapes.update({"num_train": 24, "num_val": 10})
    config.epochs, config.no_aug_epochs, config.warmup_epochs, config.eval.every_epochs = 2, 1, 0, 1
    config.log_every_steps, config.eval.detect.conf = 1, 1e-4
    config.seed, config.num_runs = 5, 2
    return config


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of two runs, and their results by seed."""
    folder = tmp_path_factory.mktemp("together")
    return folder, seeds.train_seeds(_config(), folder)


def _arrays(run, step):
    """Everything in a checkpoint but its meta, by item."""
    restored = {}
    for item in ("ema", "raw", "train"):
        with ocp.StandardCheckpointer() as checkpointer:
            restored[item] = checkpointer.restore(run / "checkpoints" / str(step) / item)
    return restored


def _records(run):
    by_process = ("time", "images_per_second", "data_wait", "num_programs")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in by_process} for record in records]


def _meta(run, step):
    meta = json.loads((run / "checkpoints" / str(step) / "meta" / "metadata").read_text())
    return {name: value for name, value in meta.items() if name != "log"}  # lengths of the log, with its times


@pytest.mark.slow
def test_each_run_has_the_checkpoints_the_log_and_the_results_of_the_run_alone(together, tmp_path, monkeypatch):
    folder, results = together
    assert list(results) == [5, 6]
    _check_is_as_alone(folder, results, _config(), 4, tmp_path / "alone", monkeypatch)


def _check_is_as_alone(folder, results, config, num_devices, alone_folder, monkeypatch):
    """Trains the run with seed 6 alone, in halves, and compares everything."""
    monkeypatch.setattr(prepare, "make_mesh", lambda: make_mesh(num_devices))
    with opened(alone_folder, resume=True) as directory:
        alone = train.train(seeds.config_of(config, 6), directory, Callbacks())
    assert results[6].ap == alone.ap and results[6].detections == alone.detections != results[5].detections
    for step in _STEPS:
        mine, others = _arrays(folder / "seed_6", step), _arrays(alone_folder, step)
        jax.tree.map(np.testing.assert_array_equal, mine, others)
        assert _meta(folder / "seed_6", step) == _meta(alone_folder, step)
    assert _records(folder / "seed_6") == _records(alone_folder)
    assert _records(folder / "seed_5") != _records(folder / "seed_6")


@pytest.mark.slow
def test_the_program_ends_with_the_table_of_all_seeds(together, tmp_path):
    folder, results = together
    shutil.copytree(folder, tmp_path / "done")
    (tmp_path / "own.py").write_text(
        "from tests.run import test_seeds\n\n\ndef get_config():\n    return test_seeds._config()\n"
    )
    printed = programs.run("train.py", ["--config=own.py", "--workdir=done"], tmp_path, 0, num_devices=8).stdout
    table = seed_table({seed: result.ap for seed, result in results.items()})
    assert printed.endswith(
        f"\n{table}\n\nEach run is written to a folder in done, which --weights takes: seed_5, seed_6\n"
    )
    assert "mean" in table and "standard error" in table


@pytest.mark.slow
def test_runs_on_one_device_each_have_the_bits_of_the_run_alone(tmp_path, monkeypatch):
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    config = _config()
    results = seeds.train_seeds(config, tmp_path)
    _check_is_as_alone(tmp_path, results, config, 1, tmp_path / "alone", monkeypatch)


@pytest.fixture
def breaks_down(monkeypatch):
    """Instead of the first step, a run breaks down."""

    def break_down(*_):
        raise TrainingBrokeDown("seed 6: 10 steps in a row", "lower config.lr_per_image")

    monkeypatch.setattr(seeds, "_compile_ahead", lambda *_: None)
    monkeypatch.setattr(seeds, "loop", break_down)


def _files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.slow
def test_more_seeds_than_were_trained_are_refused_and_no_file_is_changed(together, tmp_path):
    shutil.copytree(together[0], tmp_path / "more")
    before = _files(tmp_path / "more")
    config = _config()
    config.num_runs = 4
    steps = "seed_5: 3, 6; seed_6: 3, 6; seed_7: none; seed_8: none"
    with pytest.raises(
        UserError, match=f"for each seed; the steps are {steps}: give another --workdir, or config.seed"
    ):
        seeds.train_seeds(config, tmp_path / "more")
    assert _files(tmp_path / "more") == before


@pytest.mark.slow
def test_a_step_that_cannot_be_read_of_one_run_is_left_out_for_all(together, breaks_down, tmp_path, capsys):
    shutil.copytree(together[0], tmp_path / "damaged")
    (tmp_path / "damaged" / "seed_6" / "checkpoints" / "6" / "meta" / "metadata").write_text("{")
    (tmp_path / "damaged" / "seed_5" / "checkpoints" / "3").rename(tmp_path / "3")
    before = _files(tmp_path / "damaged")
    with pytest.raises(UserError, match="the steps are seed_5: 6; seed_6: 3, 6: give another"):
        seeds.train_seeds(_config(), tmp_path / "damaged")
    assert _files(tmp_path / "damaged").keys() == before.keys()
    (tmp_path / "3").rename(tmp_path / "damaged" / "seed_5" / "checkpoints" / "3")
    with pytest.raises(TrainingBrokeDown):
        seeds.train_seeds(_config(), tmp_path / "damaged")
    assert "all resume from step 3, and the checkpoints seed_5/6, seed_6/6 are" in capsys.readouterr().out
    assert (tmp_path / "damaged" / "seed_6" / "checkpoints" / "6.unreadable-1").is_dir()


@pytest.mark.slow
def test_the_error_of_a_run_that_broke_down_says_how_the_others_go_on(breaks_down, tmp_path):
    alone = f"--config.seed=K --config.multiscale.seed=5 --workdir={tmp_path}/seed_K"
    with pytest.raises(TrainingBrokeDown, match=f"^seed 6: 10 .* a row: lower .*; every other run .* with {alone}$"):
        seeds.train_seeds(_config(), tmp_path)


@pytest.mark.slow
def test_runs_of_which_one_lacks_the_last_checkpoint_resume_from_the_newest_that_all_have(together, tmp_path, capsys):
    folder, results = together
    shutil.copytree(folder, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "seed_6" / "checkpoints" / "6")
    again = seeds.train_seeds(_config(), tmp_path / "again")
    line = "not all runs have been saved at the same step: all resume from step 3, and the checkpoints seed_5/6 are set"
    assert f"{line} aside as STEP.ahead-N\n" in capsys.readouterr().out
    folders = {seed: {path.name for path in tmp_path.glob(f"again/seed_{seed}/checkpoints/*/")} for seed in (5, 6)}
    assert folders == {5: {"3", "6", "6.ahead-1"}, 6: {"3", "6"}}
    for seed, result in again.items():
        assert result.ap == results[seed].ap
        own, before = (each / f"seed_{seed}" for each in (tmp_path / "again", folder))
        assert _records(own) == _records(before)
        jax.tree.map(np.testing.assert_array_equal, _arrays(own, 6), _arrays(before, 6))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_runs", 3, r"config.num_runs is 3, but 8 device\(s\) cannot be divided"),
        ("patience", 0, "config.patience is 0, but config.num_runs is 2: leave config.patience out"),
        ("patience", 2, "config.patience is 2, but config.num_runs is 2: leave config.patience out"),
        ("tracker", "wandb", "config.tracker is 'wandb', but config.num_runs is 2"),
        ("profile", 2, "config.profile is 2, but config.num_runs is 2"),
        ("parallel.kind", "pmap", "config.parallel.kind is 'pmap', but config.num_runs is 2: choose shard_map"),
        ("checkpoint.keep_last", 1, "config.checkpoint.keep_last is 1, but .* ahead of the others: give 2 or more"),
        ("batch_size", 6, r"config.batch_size is 6, which 4 device\(s\) cannot share evenly"),
    ],
)
def test_what_is_not_for_several_runs_is_one_message(field, value, message, tmp_path):
    config = _config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"^{message}"):
        seeds.train_seeds(config, tmp_path)


def test_all_runs_have_the_image_sizes_of_the_first_seed_and_are_else_the_config_with_their_own():
    config = _config()
    each = {seed: seeds.config_of(config, seed) for seed in (5, 6)}
    assert {seed: (own.seed, own.num_runs, own.multiscale.seed) for seed, own in each.items()} == {
        5: (5, 1, 5),
        6: (6, 1, 5),
    }
    config.multiscale.seed = 0
    assert seeds.config_of(config, 6).multiscale.seed == 0 and (config.seed, config.num_runs) == (5, 2)
