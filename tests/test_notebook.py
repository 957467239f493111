"""Runs the notebook from its first to its last cell, with shorter trainings and weights from a file."""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.material import ROOT
from yolox_jax.models import yolox
from yolox_jax.training import state
from yolox_jax.weights import official, torch_writer

_NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
_FASTER = {
    "epochs": 2,
    "no_aug_epochs": 1,
    "warmup_epochs": 0,
    "data.shapes.num_train": 32,
    "data.shapes.num_val": 8,
    "multiscale.enabled": False,
    "input_size": (64, 64),
}


def _versions() -> dict[str, str]:
    return {each.name: each.version for each in metadata.distributions() if each.name.startswith(("jax", "libtpu"))}


def _printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs(tmp_path, monkeypatch):
    for name in ("yolox_jax", "configs", "train.py", "requirements.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    model = yolox.create("nano")
    variables = state.init_variables(model, 0)
    torch_writer.save_pth(tmp_path / "nano.pth", official.to_state_dict(variables, model))
    notebook = nbformat.read(_NOTEBOOK, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    parameters.source += f'\nWEIGHTS = "nano.pth"\nFASTER = {_FASTER}'
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # So that "python" is this interpreter.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    # While the kernel holds a TPU, the programs that the notebook starts cannot use it.
    notebook.cells.append(nbformat.v4.new_code_cell('!python -c "import jax; print(jax.config.jax_platforms)"'))
    before = _versions()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert _versions() == before
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    output = "\n".join(_printed(cell) for cell in cells)
    assert _printed(cells[-1]).split()[-1] == "cpu"  # after a warning of JAX, that "!" forks
    data = [each.get("data", {}) for cell in cells for each in cell.outputs]
    pages = [each["text/html"] for each in data if "text/html" in each]
    # Of each training; the first is so short that it logs no step.
    assert ["<svg" in page for page in pages] == 3 * [True] and all("<polyline" in page for page in pages[1:])
    assert len(re.findall(r"Average Precision|AP50 ", output)) >= 2
    assert Path(tmp_path / "mine.stablehlo").stat().st_size > 1e6
    assert sum("image/png" in each for each in data) == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"Set REPOSITORY in the first cell"),
        (
            {"train.py": "", "requirements.txt": "jax>=99,<100\n"},
            r"jax \d.* and >=99,<100 is known to work: run pip install",
        ),
    ],
)
def test_missing_files_or_versions_are_reported_before_anything_is_installed(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    notebook = nbformat.read(_NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    with pytest.raises(CellExecutionError) as error:
        NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert re.match(message, error.value.evalue)


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(_NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
