"""A run directory on any kind of store: what cannot lock or rename is a warning, what refuses is one message."""

import contextlib
import errno
import fcntl
import os
import shutil
import threading

import jax
import numpy as np
import pytest

from tests.faulty_proxy import faulty_proxy
from tests.training import toy
from tests.training.test_mirror import _Run
from yolox_jax import storage
from yolox_jax.errors import UserError
from yolox_jax.training import bucket_claim, hosts, mirror
from yolox_jax.training.checkpoints import Checkpoints
from yolox_jax.training.interruption import Stopped
from yolox_jax.training.open_directory import RunDirectory, opened
from yolox_jax.training.run_directory import RunDirectoryError
from yolox_jax.weights import bucket_copy, checkpoint, manifest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(bucket_claim, "_LOOK_SECONDS", 0.05)
    return tmp_path / "home"


@pytest.fixture
def refusing(tmp_path, monkeypatch):
    """Makes calls of the system fail below tmp_path/drive, as on a mount that does not have them."""

    def refuse(module, name, places=(0, 1)):
        function = getattr(module, name)

        def call(*arguments, **keywords):
            paths = [arguments[place] for place in places if place < len(arguments)]
            paths = [
                os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path) for path in paths
            ]
            if any(path.startswith(str(tmp_path / "drive")) for path in paths):
                raise OSError(errno.ENOSYS, "Function not implemented")
            return function(*arguments, **keywords)

        monkeypatch.setattr(module, name, call)

    return refuse


def _save(directory, step, resume=None):
    checkpoints = Checkpoints(directory.path, 2, directory.address)
    restored = checkpoints.restore_latest(toy.create_state(), lambda meta: None)
    assert (None if restored is None else restored[1].step) == resume
    state = toy.create_state() if restored is None else restored[0]
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    checkpoints.save(state, toy.meta(step))
    directory.copy(saving=step)
    checkpoints.close()
    return state


def test_a_mount_without_locks_is_a_warning(tmp_path, refusing, caplog):
    refusing(fcntl, "flock", places=(0,))
    with opened(tmp_path / "drive", resume=True) as directory:
        assert directory.path == directory.address == tmp_path / "drive"
        _save(directory, 1)
    assert f"{tmp_path / 'drive'} is on a file system without locks: a second run" in caplog.text


def test_a_mount_that_cannot_lock_rename_or_link_gets_whole_files_and_the_run_resumes(
    tmp_path, refusing, caplog, monkeypatch, home
):
    refusing(fcntl, "flock", places=(0,))
    for name in ("rename", "replace", "link"):
        refusing(os, name)
    drive = tmp_path / "drive"
    with opened(drive, resume=True) as directory:
        (directory.path / "metrics.jsonl").write_text("{}\n")
        _save(directory, 1)
    shutil.rmtree(home)
    monkeypatch.chdir(tmp_path)
    with opened(drive, resume=True) as directory:
        assert (directory.path / "metrics.jsonl").read_text() == "{}\n"
        state = _save(directory, 2, resume=1)
    assert caplog.text.count("drive is on a file system that cannot rename") == 2
    found = checkpoint.find(drive)
    assert found == drive / "checkpoints" / "2"
    jax.tree.map(np.testing.assert_array_equal, checkpoint.read_variables(found, state.ema), state.ema)
    with opened(drive, resume=False) as directory:
        _save(directory, 1)
    assert sorted(checkpoint.complete_steps(drive / "checkpoints")) == [1]
    assert sorted(checkpoint.complete_steps(drive / "earlier-1" / "checkpoints")) == [1, 2]


@pytest.mark.parametrize("name", ["runs[1]", "a*b", "what?", "plain, with (other) signs"])
def test_no_character_of_a_path_loses_the_run(tmp_path, name, caplog):
    run = tmp_path / name / "run"
    for resume in (None, 1):
        with opened(run, resume=True) as directory:
            state = _save(directory, 1 if resume is None else 2, resume)
    assert ("in its path: the run writes to" in caplog.text) == ("plain" not in name)
    found = checkpoint.find(run)
    assert found == run / "checkpoints" / "2"
    jax.tree.map(np.testing.assert_array_equal, checkpoint.read_variables(found, state.ema), state.ema)
    assert [each.condition for each in checkpoint.list_checkpoints(run, verify=True)] == ["verified", "verified"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("back\\slash", "has a backslash in its path"), ("gs:", "has gs:/ in"), ("\udc80", "is not UTF-8")],
)
def test_a_path_where_nothing_could_be_read_is_refused_at_the_start(tmp_path, name, message):
    refused = pytest.raises(RunDirectoryError, match=f"{message}.*: choose another --workdir")
    with refused, opened(tmp_path / name / "run", resume=True):
        pass
    assert not any(tmp_path.iterdir())
    with pytest.raises(RunDirectoryError, match=f"{message}.*: choose another folder"):
        Checkpoints(tmp_path / name / "run")


@pytest.mark.parametrize("name", ["home[1]", "a*", "what?"])
def test_orbax_does_not_write_to_a_path_that_it_takes_for_a_pattern(tmp_path, monkeypatch, name):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / name))
    refused = pytest.raises(RunDirectoryError, match=r"one of the characters \[]\*\? in its path: set YOLOX_JAX_HOME")
    with refused, opened(tmp_path / "runs[1]", resume=True):
        pass
    with pytest.raises(RunDirectoryError, match=r"one of the characters \[]\*\? in its path: choose another folder"):
        Checkpoints(tmp_path / name)


def test_starting_over_in_a_bucket_sets_the_earlier_run_aside(gs_bucket, capsys):
    address = storage.resolve(gs_bucket.address) / "run"
    with opened(address, resume=True) as directory:
        _save(directory, 2)
    with opened(address, resume=False) as directory:
        assert f"moved the earlier run in {address} to {address}/earlier-1" in capsys.readouterr().out
        _save(directory, 1)
    assert checkpoint.find(address).name == "1" and checkpoint.find(address / "earlier-1").name == "2"


@pytest.mark.parametrize("end", [None, Stopped()])
def test_processes_that_end_together_wait_until_everything_is_in_the_bucket(gs_bucket, monkeypatch, end):
    """JAX's runtime ends a run whose first process to finish waits for the last one for more than a minute."""
    address, at_barrier = storage.resolve(gs_bucket.address) / "run", []

    def barrier(name, seconds=0):
        at_barrier.append((seconds, storage.exists(address / "checkpoints" / "1" / manifest.NAME)))

    monkeypatch.setattr(hosts, "barrier", barrier)
    with contextlib.suppress(Stopped), opened(address, resume=True) as directory:
        _save(directory, 1)
        if end is not None:
            raise end
    assert at_barrier == [(0, False), (hosts.WORK_SECONDS, True)]


def test_a_process_that_fails_alone_does_not_wait_for_the_others(gs_bucket, monkeypatch):
    names = []
    monkeypatch.setattr(hosts, "barrier", lambda name, seconds=0: names.append(name))
    with pytest.raises(UserError), opened(storage.resolve(gs_bucket.address) / "run", resume=True):
        raise UserError("the disk is full", "free some space")
    assert names == ["run directory"]


def test_a_second_run_on_this_machine_is_refused_at_once(gs_bucket):
    address = storage.resolve(gs_bucket.address) / "run"
    refused = pytest.raises(RunDirectoryError, match=f"another run is writing to {address}: wait for it, or")
    with opened(address, resume=True), refused, opened(address, resume=True):
        pass


@pytest.mark.parametrize(
    ("status", "message"), [(403, "is refused .status 403.: check"), (401, "needs credentials"), (404, "there is no")]
)
def test_a_bucket_that_refuses_is_one_message_before_the_work(gs_bucket, monkeypatch, status, message):
    with faulty_proxy(gs_bucket.endpoint) as proxy:
        for name, value in gs_bucket.through(proxy.endpoint).environment.items():
            monkeypatch.setenv(name, value)
        proxy.errors, proxy.status = 1.0, status
        with pytest.raises(UserError, match=message), opened(storage.resolve(gs_bucket.address) / "run", resume=True):
            pass


def test_a_bucket_that_does_not_exist_is_one_message_before_the_work(gs_bucket):
    absent = storage.resolve("gs://no-such-bucket/run")
    with pytest.raises(UserError, match="there is no gs://no-such-bucket"), opened(absent, resume=True):
        pass


def test_a_run_can_wait_until_its_last_save_is_in_the_bucket(tmp_path, monkeypatch):
    address, copy_out, held = tmp_path / "bucket", bucket_copy.copy_out, threading.Event()

    def held_up(*arguments):
        assert held.wait(60)
        copy_out(*arguments)

    monkeypatch.setattr(bucket_copy, "copy_out", held_up)
    run = _Run(tmp_path / "local", address)
    directory = RunDirectory(address, run.local, run.mirror)
    directory.wait_for_save()  # nothing was saved
    run.train(2)
    run.checkpoints.wait()
    waiting = threading.Thread(target=directory.wait_for_save)
    waiting.start()
    waiting.join(2 * mirror._POLL_SECONDS)
    assert waiting.is_alive()
    held.set()
    waiting.join(60)
    assert not waiting.is_alive() and set(bucket_copy.steps(storage.list_files(address))) == {2}
    run.end()
