"""The table of several seeds: mean and standard error against numpy."""

import numpy as np

from yolox_jax.evaluation.ap_result import UNDEFINED, ApResult
from yolox_jax.evaluation.seed_table import seed_table


def test_the_table_has_each_seed_the_mean_and_its_standard_error():
    aps = [0.395, 0.422, 0.429, 0.379]
    stats = [{"AP": ap, "AP_small": UNDEFINED if ap == 0.422 else 0.1} for ap in aps]
    header, ap, small = seed_table({seed: ApResult(each, ()) for seed, each in enumerate(stats)}).splitlines()
    assert header.endswith("  mean ± standard error") and header.count("seed") == 4
    error = 100 * np.std(aps, ddof=1) / 2
    assert ap.split() == ["AP", "39.5", "42.2", "42.9", "37.9", f"{100 * np.mean(aps):.2f}", "±", f"{error:.2f}"]
    assert small.split() == ["AP_small", "10.0", "-", "10.0", "10.0", "-"]
    assert len({len(line) for line in (header, ap, small)}) == 1
