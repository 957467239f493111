"""Computes AP on a data set: python eval.py --config=configs/yolox_s.py --weights=yolox_s [--config.field=value …]

The weights are a run directory, a checkpoint, an official .pth file, or a name like yolox_s. A run is evaluated with
its own config.model, config.input_size, and of config.data sixteen_bit, classes and single_class, unless they are given
on the command line. Several processes share the images, as they do in train.py (config.parallel.coordinator), and
process 0 prints and writes the results.
"""

from yolox_jax.cli import at_start  # noqa: F401  # isort: skip  (before the libraries)
import dataclasses
import json
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from yolox_jax import storage
from yolox_jax.cli import run_summary
from yolox_jax.cli.as_trained import as_trained
from yolox_jax.cli.outputs import output_file, output_folder
from yolox_jax.cli.same_weights import agreed
from yolox_jax.cli.terminal import joined, quiet_libraries, run_program
from yolox_jax.errors import UserError
from yolox_jax.evaluation import plots
from yolox_jax.evaluation.evaluate import EvalResult
from yolox_jax.run.evaluate import evaluate_weights, plot
from yolox_jax.training import compilation, hosts
from yolox_jax.training.host_memory import keep_freed_memory
from yolox_jax.types import Source
from yolox_jax.weights.load import WHAT_WEIGHTS_ARE, FoundWeights, find_weights, identify

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config of model and data set, such as configs/yolox_s.py.", lock_config=True
)
_WEIGHTS = flags.DEFINE_string("weights", None, WHAT_WEIGHTS_ARE)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")
_PLOTS = flags.DEFINE_string(
    "plots",
    None,
    "A folder for curves, the confusion matrix, tables, the worst images, and report.html with all of it.",
)
_AGAINST = flags.DEFINE_string("against", None, "Other weights, with which the report of --plots compares the first.")
_DETECTIONS = flags.DEFINE_string("detections", None, "A JSON file for all detections, in COCO's result format.")


def main() -> None:
    keep_freed_memory()
    quiet_libraries()
    compilation.enable_compilation_cache()
    where = _CONFIG.value.parallel
    with joined(where.coordinator, where.num_processes, where.process_id):
        writes = hosts.is_primary()
        with (
            output_file(_OUTPUT.value if writes else None) as output,
            output_file(_DETECTIONS.value if writes else None) as detections,
            output_folder(_PLOTS.value if writes else None) as plots_folder,
        ):
            if _AGAINST.value and not _PLOTS.value:
                raise UserError("--against compares in the report of --plots", "add --plots=DIR, or leave it out")
            if plots_folder:
                plots.prepare(plots_folder)
            # Every process reads the same checkpoint; the results name what was given.
            both = [
                dataclasses.replace(find_weights(agreed(spec)), spec=spec)
                for spec in (str(_WEIGHTS.value), _AGAINST.value)
                if spec
            ]
            given = config_flags.get_override_values(flags.FLAGS["config"])
            runs: list[tuple[FoundWeights, EvalResult, Source]] = []
            files = output, detections
            for weights in both:
                result, source = evaluate_weights(as_trained(_CONFIG.value, weights, given), weights)
                if writes:
                    report(result, weights, *files)
                files = None, None  # those written are of the first weights
                runs.append((weights, result, source))
            if writes and plots_folder:
                plot(plots_folder, runs, str(_PLOTS.value))
        hosts.barrier("results")  # the others wait for the plots


def report(result: EvalResult, weights: FoundWeights, output: Path | None, detections: Path | None) -> None:
    """Prints the result and writes the files that are not None; before the plots: an error there then loses nothing."""
    run_summary.print_ap(result)
    if output:
        result.write(output, identify(weights))
    if detections:
        storage.write_bytes(detections, json.dumps(result.detections).encode())


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "weights"])
    run_program(main)
