"""A lock keeps other processes and threads out, and ends with the process that held it."""

import errno
import fcntl
import subprocess
import sys
import threading

import pytest

from yolox_jax.locks import locked

_HOLDER = """
import sys
from pathlib import Path
from yolox_jax.locks import locked

with locked(Path(sys.argv[1]), on_busy=lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


class _Busy(Exception):
    pass


def _refuse():
    raise _Busy


def test_a_lock_of_another_process_is_noticed_and_ends_when_that_process_is_killed(tmp_path):
    file = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(_Busy), locked(file, on_busy=_refuse):
            pytest.fail("locked twice")
        holder.kill()
    with locked(file, on_busy=_refuse):
        assert file.exists()


def test_threads_wait_for_each_other(tmp_path):
    inside, waits = [], threading.Event()

    def work():
        with locked(tmp_path / ".lock", on_busy=waits.set):
            inside.append("second")

    thread = threading.Thread(target=work)
    with locked(tmp_path / ".lock", on_busy=_refuse):
        thread.start()
        assert waits.wait(10)
        inside.append("first")
    thread.join()
    assert inside == ["first", "second"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_holds_no_lock_and_keeps_no_marker_file(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "not supported")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        for _ in range(2):
            with locked(tmp_path / ".lock", on_busy=_refuse):
                assert (tmp_path / ".lock").read_bytes() == b""
    with locked(tmp_path / ".lock", on_busy=_refuse):
        pass


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OSError), locked(tmp_path / "absent" / ".lock", on_busy=_refuse):
        pytest.fail("nothing to lock")
