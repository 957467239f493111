"""Reads damaged and hostile inputs, each in a process with limits, and counts what becomes of them.

python -m benchmarks.fuzz [--inputs=2000] [--seed=1] [--kinds=coco,voc] [--jobs=2]
python -m benchmarks.fuzz --seed=1 --repeat=coco:17 --keep=FOLDER      (one input again; its files stay in FOLDER)

Only "right", "one message" and, for formats without checksums, "unknowable" may occur: otherwise the exit code is 1.
"""

import argparse
import collections
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # forking is safe in a process of one thread
os.environ["JAX_PLATFORMS"] = "cpu"

from benchmarks import machine
from benchmarks.fuzz import isolation
from benchmarks.fuzz.change import Kind
from benchmarks.fuzz.isolation import ALLOWED, OUTCOMES, Outcome
from benchmarks.fuzz.kinds import coco, config, exported, image, pth, run_directory, tfds, voc, yolo

_OF_DATA = (coco.KIND, voc.KIND, yolo.KIND, tfds.KIND, image.KIND)
_OF_WEIGHTS = (pth.KIND, exported.KIND, run_directory.CHECKPOINT, run_directory.DIRECTORY)
KINDS = {kind.name: kind for kind in (*_OF_DATA, *_OF_WEIGHTS, config.KIND)}

_LONGEST = 3000  # characters of a message or traceback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="of all kinds together")
    parser.add_argument("--seed", default="1", help="any text, such as a date")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="inputs at a time")
    parser.add_argument("--repeat", help="KIND:NUMBER, an input that a line of the output names")
    parser.add_argument("--keep", type=Path, help="a new folder for the files of --repeat")
    arguments = parser.parse_args()
    machine.describe()
    kinds = [KINDS[name] for name in arguments.kinds.split(",")]
    inputs = [(kind, number) for number in range(-(-arguments.inputs // len(kinds))) for kind in kinds]
    if arguments.repeat:
        name, number = arguments.repeat.split(":")
        kinds, inputs = [KINDS[name]], [(KINDS[name], int(number))]
    outcomes = run(kinds, inputs, arguments.seed, arguments.jobs, arguments.keep, is_loud=bool(arguments.repeat))
    print(table(outcomes))
    print(f"\n{len(outcomes)} inputs, seed {arguments.seed}")
    sys.exit(1 if any(each.outcome not in ALLOWED for each in outcomes) else 0)


def run(
    kinds: Sequence[Kind],
    inputs: Sequence[tuple[Kind, int]],
    seed: str,
    jobs: int,
    kept: Path | None = None,
    is_loud: bool = False,
) -> list[Outcome]:
    """Reads the inputs, and prints each outcome that must not be, or all of them."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="fuzz_") as originals:
        isolation.make_all(kinds, Path(originals))
        for each in isolation.read_all(inputs, Path(originals), seed, jobs, kept):
            outcomes.append(each)
            if is_loud or each.outcome not in ALLOWED:
                _print(f"{each.kind}:{each.number} {each.outcome} ({each.seconds:.1f} s): {each.change}")
                _print("    " + each.detail.strip()[-_LONGEST:].replace("\n", "\n    "))
    return outcomes


def _print(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), flush=True)  # also half of a surrogate pair


def table(outcomes: Sequence[Outcome]) -> str:
    """Formats the number of inputs by kind and outcome."""
    counts = collections.Counter((each.kind, each.outcome) for each in outcomes)
    rows = [["kind", "inputs", *OUTCOMES], ["---"] + ["---:"] * (1 + len(OUTCOMES))]
    for kind in dict.fromkeys(sorted(each.kind for each in outcomes)):
        numbers = [counts[kind, outcome] for outcome in OUTCOMES]
        rows.append([kind, str(sum(numbers)), *map(str, numbers)])
    totals = collections.Counter(each.outcome for each in outcomes)
    rows.append(["all", str(len(outcomes)), *(str(totals[outcome]) for outcome in OUTCOMES)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
