"""A trace has the steps that the config asks for."""

import jax
import jax.numpy as jnp
import pytest

from yolox_jax.errors import UserError
from yolox_jax.training.profiling import StepTrace


def _run(folder, num_steps: int, num_traced: int) -> None:
    double = jax.jit(lambda x: 2 * x)
    value = jnp.ones(3)
    with StepTrace(folder, 10, num_traced) as trace:
        for step in range(10, 10 + num_steps):
            trace.at(step, value)
            value = double(value)


@pytest.mark.parametrize("num_steps", [5, 8])  # the run ends during the trace, and after it
def test_perfetto_and_tensorboard_get_their_files(tmp_path, num_steps, capsys):
    _run(tmp_path, num_steps, 3)
    for name in ("perfetto_trace.json.gz", "*.xplane.pb"):
        assert len(list(tmp_path.glob(f"plugins/profile/*/{name}"))) == 1
    assert ("traced steps 14 to 16" in capsys.readouterr().out) == (num_steps == 8)


def test_no_steps_leave_no_trace_and_no_output(tmp_path, capsys):
    _run(tmp_path, 8, 0)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_negative_number_of_steps_is_refused(tmp_path):
    with pytest.raises(UserError, match="config.profile is -1: give the number of steps"):
        StepTrace(tmp_path, 0, -1)
