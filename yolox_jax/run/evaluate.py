"""Evaluates weights on the validation split of a config's data set."""

from ml_collections import ConfigDict

from yolox_jax.cli import from_config
from yolox_jax.cli.terminal import print_progress
from yolox_jax.data.sources.open import check_classes
from yolox_jax.detection.anchors import check_size
from yolox_jax.evaluation.evaluate import EvalResult, check_metric, evaluate
from yolox_jax.inference.predict import make_predict
from yolox_jax.mesh import check_batch_size, make_mesh, place, platform_of
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.types import Source
from yolox_jax.weights import download
from yolox_jax.weights.load import FoundWeights, load_weights


def evaluate_weights(config: ConfigDict, weights: FoundWeights) -> tuple[EvalResult, Source]:
    """Evaluates the weights on the validation split of the config's data set. Returns the result and the split."""
    download.local_file(weights.spec)  # a bucket that refuses is known before the data set is copied from one
    mesh = make_mesh()
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    size_hw = check_size(config.input_size)
    metric = check_metric(config.eval.metric)
    source = from_config.open_source(config, "val")
    check_classes(config.num_classes, source.class_names, source.class_names)

    detect_config = from_config.detect_config(config)
    model = from_config.model(config, len(source.class_names))
    variables = load_weights(weights, config.model, source.class_names)
    result = evaluate(
        make_predict(model, mesh, detect_config, repeatable=True),
        place(fold_batch_norm(model, variables, platform_of(mesh)), mesh),
        source,
        size_hw=size_hw,
        # All tiles of an image are one batch.
        batch_size=mesh.size if detect_config.tiling else config.eval.batch_size,
        mesh=mesh,
        metric=metric,
        threads=config.data.threads,
        tiling=detect_config.tiling,
        progress=print_progress,
    )
    return result, source
