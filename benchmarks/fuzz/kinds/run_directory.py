"""Run directories: damaged checkpoints, and damaged or moved files beside them."""

import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np

from benchmarks.fuzz import file_faults, json_faults
from benchmarks.fuzz.change import Change, Judged, Kind
from benchmarks.fuzz.kinds import run
from benchmarks.fuzz.kinds.run import APS, STEPS, WORKDIR, Resumed
from yolox_jax.weights import manifest


def change_checkpoint(folder: Path, rng: random.Random) -> Change:
    """Changes the files of one checkpoint; its manifest, if the change leaves it, says otherwise."""
    checkpoints = folder / WORKDIR / "checkpoints"
    step = rng.choice(STEPS)
    chosen = rng.random()
    file = file_faults.choose_file(checkpoints / str(step), rng)
    place = f"{step}/{file.relative_to(checkpoints / str(step))}"
    if chosen < 0.5:
        return Change(f"{place}: {file_faults.change_bytes(file, rng).text}")
    if chosen < 0.65:
        return Change(f"{place}: {file_faults.replace_file(file, rng).text}")
    item = rng.choice(("ema", "raw", "train", "meta"))
    if chosen < 0.75:
        there, here = (checkpoints / str(each) / item for each in STEPS)
        shutil.move(there, folder / "item")
        shutil.move(here, there)
        shutil.move(folder / "item", here)
        return Change(f"{item} of both steps exchanged")
    if chosen < 0.85:
        shutil.rmtree(checkpoints / str(step) / item)
        return Change(f"{step}/{item} removed")
    (checkpoints / str(step) / manifest.NAME).write_bytes(
        rng.choice((b"", b"{}", b"null", b"[]", b"\xff", b'{"format_version": 1}', b'{"format_version": 2, "step": 0}'))
    )
    return Change(f"another manifest of {step}")


def change_directory(folder: Path, rng: random.Random) -> Change:
    """Changes what is beside the arrays: logs, APs, metadata that its manifest agrees with, names of folders."""
    workdir = folder / WORKDIR
    checkpoints = workdir / "checkpoints"
    chosen = rng.random()
    if chosen < 0.35:
        return _change_log(workdir / "metrics.jsonl", rng)
    if chosen < 0.55:
        file = checkpoints / "ap.json"
        return rng.choice((json_faults.change_json, file_faults.change_bytes, file_faults.replace_file))(file, rng)
    if chosen < 0.8:
        step = rng.choice(STEPS)
        file = next((checkpoints / str(step) / "meta").glob("[!.]*"))
        changed = json_faults.change_json(file, rng)
        if rng.random() < 0.5:
            (checkpoints / str(step) / manifest.NAME).unlink()
        else:
            manifest.write(checkpoints / str(step), step)
        return Change(f"{step}/{changed.text}, with a manifest to it or none")
    return _move(workdir, rng)


def _change_log(file: Path, rng: random.Random) -> Change:
    chosen = rng.random()
    if chosen < 0.3:
        return file_faults.change_bytes(file, rng)
    if chosen < 0.5:
        return file_faults.replace_file(file, rng)
    lines = file.read_text().splitlines()
    number = rng.randrange(len(lines))
    kind = rng.choice(("value", "value", "value", "remove", "twice", "order", "text"))
    if kind == "value":
        changed, text = json_faults.change_value(json.loads(lines[number]), rng)
        lines[number] = json_faults.dump(changed)
    elif kind == "remove":
        del lines[number]
    elif kind == "twice":
        lines.insert(number, lines[number])
    elif kind == "order":
        rng.shuffle(lines)
    else:
        lines[number] = rng.choice(("x", "{", "null", "[]", "3", '"step"', "{}", "[" * 50_000, "\0", "NaN"))
    file.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    return Change(f"{file.name}: line {number + 1}: {kind} {text if kind == 'value' else ''}")


def _move(workdir: Path, rng: random.Random) -> Change:
    checkpoints = workdir / "checkpoints"
    step = checkpoints / str(rng.choice(STEPS))
    kind = rng.choice(("none", "a file", "a link to nothing", "one step", "another step", "odd names", "both away"))
    if kind in ("none", "a file", "a link to nothing"):
        shutil.rmtree(checkpoints)
        if kind == "a file":
            checkpoints.write_text("")
        elif kind == "a link to nothing":
            checkpoints.symlink_to(workdir / "nowhere")
    elif kind == "one step":
        shutil.rmtree(step)
    elif kind == "another step":
        step.rename(checkpoints / rng.choice(("30", "15", "1", "99999999999999999999")))
    elif kind == "both away":
        for each in STEPS:
            shutil.move(checkpoints / str(each), workdir)
    else:
        for name in ("²", "-6", "6.orbax-checkpoint-tmp-1", "7.unreadable-1", "٣", "1e3", "007"):
            (checkpoints / name).mkdir()
    return Change(f"checkpoints: {kind}", is_harmless=kind == "odd names")


def judge(folder: Path, change: Change, result: Resumed) -> Judged:
    if result.step == 0:
        return Judged("the run begins again over a log of steps")
    if result.step not in STEPS:
        return Judged(f"resumes at step {result.step}")
    expected = run.state_of(result.step)
    found, wanted = jax.tree.leaves(result.state), jax.tree.leaves(expected)
    if len(found) != len(wanted) or not all(map(np.array_equal, found, wanted)):
        return Judged(f"the arrays are not those of step {result.step}")
    is_named = f"checkpoints/{STEPS[-1]} cannot be read" in result.output
    if result.step != STEPS[-1] and not is_named and not change.text.startswith("checkpoints:"):
        return Judged(f"resumes at step {result.step} without a word about step {STEPS[-1]}")
    wrong = _wrong_log(result)
    if not wrong and not _has_right_aps(result) and "ap.json" not in result.output:
        wrong = f"APs {result.aps} at step {result.step}"
    return Judged(wrong)


def _has_right_aps(result: Resumed) -> bool:
    """Returns whether the APs are right; without that of its step, a resumed run begins with the evaluation."""
    aps = {step: ap for step, ap in APS.items() if step <= result.step}
    return result.aps in (aps, {step: ap for step, ap in aps.items() if step < result.step})


def _wrong_log(result: Resumed) -> str:
    """Returns what is wrong with the log; one that was damaged may have fewer records if the output names it."""
    steps = [record["step"] for record in result.records if "loss" in record]
    losses = [record["loss"] for record in result.records if "loss" in record]
    is_whole = steps == list(range(result.step)) and losses == [2.0 - step / 16 for step in steps]
    if is_whole or "metrics.jsonl" in result.output:
        return ""
    return f"metrics.jsonl has steps {steps} with losses {losses}, without a word"


CHECKPOINT = Kind("checkpoint", run.write, change_checkpoint, run.resume, judge)
DIRECTORY = Kind("run directory", run.write, change_directory, run.resume, judge)
