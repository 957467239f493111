"""Evaluates weights on the validation split of a config's data set, and plots the results."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from yolox_jax.cli import from_config
from yolox_jax.cli.progress import print_note, print_progress
from yolox_jax.data.sources.open import check_classes
from yolox_jax.detection.anchors import check_size
from yolox_jax.evaluation import plots
from yolox_jax.evaluation.diagnosis import diagnose
from yolox_jax.evaluation.evaluate import EvalResult, check_metric, evaluate
from yolox_jax.evaluation.report import Evaluated, write_report
from yolox_jax.inference.predict import make_predict
from yolox_jax.mesh import check_batch_size, make_mesh, place, platform_of
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.types import Source
from yolox_jax.weights import download
from yolox_jax.weights.load import FoundWeights, load_weights
from yolox_jax.weights.official import Variables


class Evaluator:
    """Evaluates weights on the validation split of a config's data set, all of them with one compiled program."""

    def __init__(self, config: ConfigDict):
        self._mesh = make_mesh()
        check_batch_size("eval.batch_size", config.eval.batch_size, self._mesh)
        self.size_hw = check_size(config.input_size)
        self._metric = check_metric(config.eval.metric)
        self.source = from_config.open_source(config, "val")
        check_classes(config.num_classes, self.source.class_names, self.source.class_names)
        self._config, self._detect = config, from_config.detect_config(config)
        self.model = from_config.model(config, len(self.source.class_names))
        self._predict = make_predict(self.model, self._mesh, self._detect, repeatable=True)

    def __call__(self, variables: Variables) -> EvalResult:
        return evaluate(
            self._predict,
            place(fold_batch_norm(self.model, variables, platform_of(self._mesh)), self._mesh),
            self.source,
            size_hw=self.size_hw,
            # All tiles of an image are one batch.
            batch_size=self._mesh.size if self._detect.tiling else self._config.eval.batch_size,
            mesh=self._mesh,
            metric=self._metric,
            threads=from_config.num_threads(self._config),
            tiling=self._detect.tiling,
            progress=print_progress,
            log=print_note,
        )


def evaluate_weights(config: ConfigDict, weights: FoundWeights) -> tuple[EvalResult, Source]:
    """Evaluates the weights on the validation split of the config's data set. Returns the result and the split."""
    download.local_file(weights.spec)  # a bucket that refuses is known before the data set is copied from one
    evaluator = Evaluator(config)
    variables = load_weights(weights, config.model, evaluator.source.class_names)
    return evaluator(variables), evaluator.source


def plot(folder: Path, runs: Sequence[tuple[FoundWeights, EvalResult, Source]], given: str) -> None:
    """Writes the plots of the first run, and the report of all, to a folder that `plots.prepare` has made.

    Prints that folder as the user has `given` it, and the best score threshold.
    """
    shown: list[Evaluated] = []
    for weights, result, source in runs:
        diagnosis = diagnose(source.ground_truth(), result.detections)
        pictures = plots.draw(diagnosis, source) if shown else plots.write_plots(folder, diagnosis, source)
        shown.append(Evaluated(weights.spec, result.ap, result.num_images, diagnosis, pictures))
    write_report(folder / "report.html", *shown)
    best = shown[0].diagnosis.best
    print(f"plots are in {given}; best F1 {best.f1:.3f} at score threshold {best.threshold:.3f}")
