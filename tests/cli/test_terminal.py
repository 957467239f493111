"""What all programs do for a person at a terminal."""

import pytest

from tests import programs
from tests.material import ROOT


@pytest.mark.parametrize(
    ("program", "arguments", "outputs"),
    [
        ("eval.py", ["--weights=none"], ["output", "detections"]),
        ("-m yolox_jax.tools.doctor", [], ["json", "sheet"]),
        ("-m yolox_jax.tools.plan", ["--topology=none"], ["json"]),
    ],
)
def test_folders_of_what_is_to_be_written_are_made_before_the_work(tmp_path, program, arguments, outputs):
    config = [f"--config={ROOT / 'configs' / 'yolox_nano.py'}", "--config.data.root=none"]
    files = [f"--{name}=new/{name}/file.jpg" for name in outputs]
    programs.run(program, [*config, *arguments, *files], tmp_path, 1)
    assert sorted(folder.name for folder in (tmp_path / "new").iterdir()) == sorted(outputs)
