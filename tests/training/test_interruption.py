"""A signal is noted whatever the program is doing when it comes."""

import builtins
import os
import signal

from yolox_jax.training.interruption import sigterm_noted, stop_request


def test_a_signal_that_comes_while_a_line_is_printed_is_noted(monkeypatch):
    def busy(*args, **kwargs):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    with stop_request() as stop:
        assert not stop.check()
        monkeypatch.setattr(builtins, "print", busy)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.check() and stop.signal_name == "SIGTERM"


def test_a_signal_does_not_end_the_last_work_of_a_program(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_noted("wait"):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert capsys.readouterr().out == 2 * "\nSIGTERM: wait\n"
    assert signal.getsignal(signal.SIGTERM) == before
