"""The whole program on the CPU, and the reference that it compares a device with."""

import json

import numpy as np
import pytest

from tests import programs
from tests.golden import selection
from yolox_jax.tools.selfcheck import reference, resuming
from yolox_jax.tools.selfcheck.checks import all_checks
from yolox_jax.tools.selfcheck.setting import SIZES


def test_the_installed_reference_is_a_part_of_the_golden_arrays():
    installed, golden = reference.arrays(), selection.selected()
    assert installed.keys() == golden.keys()
    for name, array in golden.items():
        assert installed[name].dtype == array.dtype, name
        np.testing.assert_array_equal(installed[name], array, err_msg=name)
    assert reference.FILE.stat().st_size < 600_000


def test_every_line_of_a_size_has_a_name_of_its_own():
    for size in SIZES.values():
        names = [name for check in all_checks(size) for name in check.lines]
        assert len(set(names)) == len(names)


def test_every_differing_bit_is_counted():
    ours = [np.array([1.0, 2.0], np.float32), np.array(3, np.int32)]
    theirs = [np.array([1.0, -2.0], np.float32), np.array(0, np.int32)]
    assert resuming._differing_bits(ours, ours) == (0, 96)
    assert resuming._differing_bits(ours, theirs) == (3, 96)  # a sign, and the two ones of 3


@pytest.mark.slow
def test_the_program_runs_on_the_cpu_and_finds_nothing_wrong(tmp_path):
    finished = programs.run("-m yolox_jax.tools.selfcheck", ["--size=small", "--output=out"], tmp_path, 0)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    lines = {line["name"]: line for line in report["lines"]}
    checks = all_checks(SIZES["small"])
    assert list(lines) == [name for check in checks for name in check.lines]
    assert list(report["seconds_by_check"]) == [check.name for check in checks]
    assert report["passed"] and {line["status"] for line in lines.values()} == {"pass", "measured", "skipped"}
    assert [name for name, line in lines.items() if line["status"] == "skipped"] == ["plan nano"]  # it is no TPU
    assert lines["kill and resume"]["figures"]["resumed_at"] >= 2
    assert lines["training nano"]["figures"]["images_per_s"] > 0
    assert 0 <= lines["waiting nano"]["figures"]["data_wait"] <= 1
    assert any((tmp_path / "out" / "profile" / "nano").rglob("*.xplane.pb"))
    for name, line in lines.items():
        assert f"{line['status']:<10}{name}" in finished.stdout
