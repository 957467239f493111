"""Programs compiled ahead: in order, on another thread, waited for where they are wanted."""

import threading

import jax
import jax.numpy as jnp
import pytest

from yolox_jax.training import compilation


def test_programs_are_compiled_one_after_another_in_the_given_order_on_another_thread():
    done = []

    def compile_one(key):
        done.append((key, threading.current_thread()))
        return f"program {key}"

    keys = [(64, 64), (32, 32), "predict"]
    with compilation.Programs({key: lambda key=key: compile_one(key) for key in keys}) as programs:
        assert [programs.get(key) for key in reversed(keys)] == [f"program {key}" for key in reversed(keys)]
    assert [key for key, _ in done] == keys
    assert {thread for _, thread in done}.isdisjoint({threading.main_thread()})


def test_who_waits_may_give_up_and_what_is_under_way_is_known():
    go_on = threading.Event()
    programs = compilation.Programs({"slow": go_on.wait, "never": pytest.fail})
    with pytest.raises(KeyboardInterrupt), programs:
        asked = iter([False, True])
        assert programs.get("slow", give_up=lambda: next(asked)) is None
        assert compilation.is_compiling()
        raise KeyboardInterrupt  # a run that ends in peace waits
    go_on.set()
    assert programs.get("slow") is True  # what was begun is ended, what was not is left
    programs._thread.join()
    assert not compilation.is_compiling()


def test_an_error_is_raised_where_the_program_is_wanted():
    def fail():
        raise ValueError("no such layer")

    with compilation.Programs({"bad": fail, "good": lambda: 1}) as programs:
        with pytest.raises(ValueError, match="no such layer"):
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
