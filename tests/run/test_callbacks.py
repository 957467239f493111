"""Callbacks get what they ask for, and the first error ends all of them."""

import pytest

from yolox_jax.errors import UserError
from yolox_jax.run.callbacks import Callbacks


class _Notes:
    def __init__(self, fails_at=None, error=ZeroDivisionError):
        self.notes, self._fails_at, self._error = [], fails_at, error

    def on_log(self, record):
        self.notes.append(record)
        if record == self._fails_at:
            raise self._error


def test_each_callback_gets_the_events_it_has_a_method_for():
    class OfStart:
        def on_start(self, start):
            self.start = start

    notes, of_start = _Notes(), OfStart()
    callbacks = Callbacks([notes, of_start])
    callbacks.start("start")
    callbacks.log({"step": 0})
    callbacks.evaluation(0, "result")
    assert notes.notes == [{"step": 0}] and of_start.start == "start"


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_after_an_error_no_callback_is_called_until_it_is_raised(error):
    first, second = _Notes(fails_at=1, error=error), _Notes()
    callbacks = Callbacks([first, second])
    for record in range(3):
        callbacks.log(record)
    assert first.notes == [0, 1] and second.notes == [0]
    with pytest.raises(error):
        callbacks.raise_error()


def test_an_interruption_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt):
        Callbacks([_Notes(fails_at=0, error=KeyboardInterrupt)]).log(0)


def test_an_error_at_the_start_or_after_an_evaluation_is_raised_at_once():
    class Failing:
        def on_start(self, start):
            raise ZeroDivisionError

        def on_evaluation(self, step, result):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Callbacks([Failing()]).start("start")
    with pytest.raises(ZeroDivisionError):
        Callbacks([Failing()]).evaluation(0, "result")


def test_an_object_without_a_known_method_is_refused():
    class Misspelt:
        def on_log(self, record): ...

        def on_evalutaion(self, step, result): ...

    for wrong, found in ((Misspelt(), "Misspelt .* has on_evalutaion"), (print, "has no method of a callback")):
        with pytest.raises(UserError, match=f"{found}: give an object with any of on_start, on_log, on_evaluation"):
            Callbacks([wrong])
    with pytest.raises(UserError, match=r"the class Misspelt is among the callbacks: give an object: Misspelt\(\)"):
        Callbacks([Misspelt])
