"""Programs are compiled ahead, in order, on another thread; whoever needs one waits for it."""

import functools
import sys
import threading
import time
import zlib

import jax
import jax.numpy as jnp
import pytest
from jax._src import compilation_cache

from tests.test_cache_folder import no_home_folder
from yolox_jax.training import compilation


def _traced_at_once(compile_by_key):
    return {key: lambda compile_one=compile_one: compile_one for key, compile_one in compile_by_key.items()}


def test_programs_are_compiled_one_after_another_in_the_given_order_on_another_thread():
    done = []

    def compile_one(key):
        done.append((key, threading.current_thread()))
        return f"program {key}"

    keys = [(64, 64), (32, 32), "predict"]
    with compilation.Programs(_traced_at_once({key: lambda key=key: compile_one(key) for key in keys})) as programs:
        assert [programs.get(key) for key in reversed(keys)] == [f"program {key}" for key in reversed(keys)]
    assert [key for key, _ in done] == keys
    assert {thread for _, thread in done}.isdisjoint({threading.main_thread()})


@pytest.mark.parametrize("late", [[], ["third"]])
def test_the_next_program_is_traced_while_one_compiles_and_no_more_than_the_next(late):
    begun, keys = [], ["first", "second", "third", "fourth"]
    ends = {key: threading.Event() for key in [*keys, "update"]}

    def trace(key):
        begun.append(f"trace {key}")
        return lambda: compile_one(key)

    def compile_one(key):
        begun.append(f"compile {key}")
        ends[key].wait()
        return key

    def begins(*expected):
        """Waits until these have begun. No others do: a few milliseconds would be enough for them."""
        end = time.monotonic() + 60
        while len(begun) < len(expected) and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(0.05)
        assert sorted(begun) == sorted(expected)
        begun.clear()

    by_key = {key: functools.partial(trace, key) for key in ends}
    update = {"update": by_key.pop("update")}
    with compilation.Programs(by_key, update, late) as programs:
        programs._late_begin.set()
        begins("trace first", "trace update", "trace second", "compile first", "compile update")
        ends["update"].set()
        begins("compile second")
        ends["first"].set()
        begins(*[] if late else ["trace third"])
        ends["second"].set()
        begins("compile third", "trace fourth", *["trace third"] if late else [])
        for event in ends.values():
            event.set()
        assert [programs.get(key) for key in ends] == list(ends)


def test_waiting_can_be_given_up_and_a_running_compilation_is_known():
    may_finish = threading.Event()
    programs = compilation.Programs(_traced_at_once({"slow": may_finish.wait, "never": pytest.fail}))
    with pytest.raises(KeyboardInterrupt), programs:
        asked = iter([False, True])
        assert programs.get("slow", give_up=lambda: next(asked)) is None
        assert compilation.is_compiling()
        raise KeyboardInterrupt  # if no error is raised, leaving the block waits for the compilation
    may_finish.set()
    assert programs.get("slow") is True  # it finishes, and the next one does not start
    compilation.wait()
    assert not compilation.is_compiling()


@pytest.mark.parametrize("closed_early", [False, True])
def test_a_program_waits_for_one_beside_it_and_not_for_one_that_is_no_longer_compiled(closed_early):
    begins, may_finish = threading.Event(), threading.Event()

    def compile_both():
        begins.set()
        return "gradients", programs.wait("update")

    def trace_update():
        may_finish.wait()
        return lambda: "update"

    programs = compilation.Programs({"step": lambda: compile_both}, {"update": trace_update})
    with programs:
        begins.wait()
        if closed_early:
            programs._closed = True  # as on leaving the block, which then waits for both threads
        may_finish.set()
        if not closed_early:
            assert programs.get("step") == ("gradients", "update")


@pytest.mark.parametrize("ends_by", ["first steps", "another step", "the late program", "leaving"])
def test_a_late_program_is_compiled_after_the_first_steps_or_once_a_program_is_needed_that_is_not_the_first(ends_by):
    compiled = []
    in_order = {key: lambda key=key: compiled.append(key) for key in ("step", "late", "other")}
    with compilation.Programs(_traced_at_once(in_order), late=["late"]) as programs:
        for _ in range(compilation._FIRST_STEPS):
            programs.get("step")
        assert not programs._results["late"].done() and compiled == ["step"]
        if ends_by != "leaving":
            programs.get({"first steps": "step", "another step": "other", "the late program": "late"}[ends_by])
            programs.wait("late")
    assert compiled[1:2] == ([] if ends_by == "leaving" else ["late"])


def test_a_late_program_that_is_needed_first_is_compiled_at_once():
    in_order = {"late": lambda: "program", "step": lambda: "step"}
    with compilation.Programs(_traced_at_once(in_order), late=["late"]) as programs:
        assert programs.get("late") == "program"


def test_threads_take_turns_more_often_while_programs_compile_and_as_before_afterwards():
    usual = sys.getswitchinterval()
    with pytest.raises(KeyboardInterrupt), compilation.Programs({}):
        assert sys.getswitchinterval() < usual / 2
        raise KeyboardInterrupt
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("part", ["tracing", "compiling"])
def test_an_error_of_tracing_or_compiling_is_raised_to_whoever_needs_the_program(part):
    def fail():
        raise TimeoutError("no such layer")  # not to be mistaken for a program that is not ready

    bad = fail if part == "tracing" else lambda: fail
    with compilation.Programs({"bad": bad, "good": lambda: lambda: 1}) as programs:
        with pytest.raises(TimeoutError, match="no such layer"):
            programs.get("bad")
        assert programs.get("good") == 1


def test_programs_are_counted_when_they_are_compiled_and_not_when_they_run():
    counter = compilation.CompileCounter()
    double = jax.jit(lambda x: 2 * x + 0.125)
    double(jnp.ones(3)).block_until_ready()
    once = counter.num_programs
    assert once >= 1
    double(jnp.zeros(3)).block_until_ready()
    assert counter.num_programs == once
    double(jnp.ones(4)).block_until_ready()
    assert counter.num_programs > once


@pytest.fixture
def jax_cache():
    """Undoes the changes of jax's own settings."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_compilation_cache_is_below_the_cache_folder_unless_jax_has_its_own(jax_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    compilation.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "programs")
    assert "autotune" in jax.config.jax_persistent_cache_enable_xla_caches  # on a GPU, beside the programs
    monkeypatch.setenv("YOLOX_JAX_HOME", "/elsewhere")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/jax")
    compilation.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "programs")


def test_small_programs_are_kept_too_unless_the_user_says_otherwise(jax_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path))
    for said, expected in ((None, 0.0), ("7", 5.0)):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 5.0)
        if said:
            monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", said)
        else:
            monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
        compilation.enable_compilation_cache()
        assert jax.config.jax_persistent_cache_min_compile_time_secs == expected


def test_without_a_home_folder_the_compilation_cache_stays_off_with_a_warning(jax_cache, monkeypatch, caplog):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    no_home_folder(monkeypatch)
    before = jax.config.jax_compilation_cache_dir
    compilation.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    assert "the compilation cache is off: this user has no home folder" in caplog.text


def test_the_compilation_cache_has_checksums(jax_cache, monkeypatch):
    """With zstandard, which JAX takes if it is installed, a flipped bit in a file of the cache crashes the process."""
    for library in ("zstd", "zstandard"):
        monkeypatch.setattr(compilation_cache, library, object(), raising=False)
    compilation.enable_compilation_cache()
    compressed = bytearray(compilation_cache.compress_executable(b"a program" * 9))
    compressed[12] ^= 1
    with pytest.raises(zlib.error):
        compilation_cache.decompress_executable(bytes(compressed))
