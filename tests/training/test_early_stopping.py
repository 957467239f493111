"""Training stops early if AP has not risen for a while, and a resumed run stops at the same step."""

import pytest

from yolox_jax.errors import UserError
from yolox_jax.training.save_due import has_stalled

_APS = {10: 0.1, 20: 0.3, 30: 0.3, 40: 0.2, 50: 0.4, 60: 0.4, 70: 0.39, 80: 0.1}


def test_it_stops_after_so_many_evaluations_that_do_not_beat_the_best_before_them():
    stalled = {patience: [step for step in _APS if has_stalled(_APS, patience, step)] for patience in (1, 2, 3, 4, 8)}
    assert stalled == {1: [30, 40, 60, 70, 80], 2: [40, 70, 80], 3: [80], 4: [], 8: []}


def test_patience_starts_with_the_first_ap_that_is_not_negative():
    aps = {10: -1.0, 20: -1.0, 30: -1.0, 40: 0.0, 50: 0.0, 60: 0.0, 70: 0.1}
    assert [step for step in aps if has_stalled(aps, 2, step)] == [60]
    assert not any(has_stalled(dict.fromkeys(aps, -1.0), 1, step) for step in aps)


def test_later_evaluations_and_the_order_of_records_change_nothing():
    shuffled = dict(sorted(_APS.items(), key=lambda item: -item[0]))
    assert not has_stalled(shuffled, 2, 30)
    assert has_stalled(shuffled, 2, 40)


def test_without_patience_or_evaluations_it_never_stops():
    assert not has_stalled(_APS, None, 80)
    assert not has_stalled({}, 1, 80)


def test_a_patience_of_no_evaluation_is_refused():
    with pytest.raises(UserError, match="config.patience is 0: give 1 or more"):
        has_stalled({}, 0, 80)
