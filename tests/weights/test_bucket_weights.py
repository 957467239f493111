"""Weights files in a bucket are copied to the cache folder once, and again when they change."""

import json
import shutil

import numpy as np
import pytest

from tests.material import ROOT
from yolox_jax import storage
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.inference.export import model_card
from yolox_jax.weights import download, torch_writer
from yolox_jax.weights.load import read_official


@pytest.fixture
def folder(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    return storage.resolve(bucket.address) / "weights"


def _upload(state_dict, path, tmp_path):
    torch_writer.save_pth(tmp_path / "local.pth", state_dict)
    storage.upload(tmp_path / "local.pth", path)


def test_a_pth_file_is_read_from_a_bucket(folder, tmp_path):
    path, lines = folder / "a.pth", []
    for value in (1.0, 2.0):
        _upload({"head.x": np.full(3, value, np.float32)}, path, tmp_path)
        assert read_official(str(path))["head.x"].tolist() == [value] * 3
    local = download.local_file(str(path), lines.append)
    assert lines == [] and local.startswith(str(tmp_path / "home"))  # it is there already


def test_the_results_beside_a_checkpoint_in_a_bucket_get_into_the_model_card(folder):
    results = {"AP": 0.25, "AP50": 0.5, "num_images": 1, "per_class": []}
    storage.write_bytes(folder / "results.json", json.dumps(results).encode())
    storage.write_bytes(folder / "checkpoints" / "ap.json", b'{"2": 0.125, "4": 0.25}')
    assert model_card.results_of(folder / "checkpoints" / "4", "run") == results
    assert model_card.results_of(folder / "checkpoints" / "2", "run") is None


def test_a_file_that_does_not_exist_is_named(folder):
    with pytest.raises(NotFoundError, match=f"there is no file, run or checkpoint {folder}/b.pth"):
        read_official(str(folder / "b.pth"))


def test_a_disk_that_is_too_small_is_one_message(folder, tmp_path, monkeypatch):
    _upload({"head.x": np.zeros(1000, np.float32)}, folder / "a.pth", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 0, 1000))
    with pytest.raises(UserError, match=r"copy of .*a\.pth needs 0\.0 MB, .*YOLOX_JAX_HOME"):
        read_official(str(folder / "a.pth"))


def test_local_weights_and_names_stay_as_they_are():
    for spec in ("yolox_s", str(ROOT / "train.py"), "runs/x"):
        assert download.local_file(spec) == spec
