"""Every field, file and program that a document names exists, and the official programs are covered completely."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base
from tests import test_architecture
from tests.material import ROOT

_DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_NOTES = [ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "NOTES.md", ROOT / "tests" / "golden" / "README.md"]

# A document for users says what is so, not what was: no history.
_HISTORY = (
    r"\bcommits? [0-9a-f]{7,}",
    r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b",  # a commit's hash
    r"\bbars?\b",
    r"\bnot met\b",
    r"\bearlier (machine|commit|version)\b",
    r"\bslower machine\b",
    r"\bbefore (this|the) change\b",
    r"\bas it was\b",
)

# The arguments of the official programs and the fields of its Exp, at the official HEAD of 2025.
_OFFICIAL = {
    "tools/train.py": "--experiment-name --name --dist-backend --dist-url --batch-size --devices --exp_file --resume "
    "--ckpt --start_epoch --num_machines --machine_rank --fp16 --cache --occupy --logger opts",
    "tools/eval.py": "--experiment-name --dist-backend --dist-url --num_machines --machine_rank --ckpt --conf --nms "
    "--tsize --seed --fp16 --fuse --trt --legacy --test --speed opts",
    "tools/demo.py": "demo --path --camid --save_result --experiment-name --name --exp_file --ckpt --device --conf "
    "--nms --tsize --fp16 --legacy --fuse --trt",
    "tools/export_onnx.py": "--output-name --input --output --opset --batch-size --dynamic --no-onnxsim opts "
    "--decode_in_inference",
    "Exp, yolox/exp/yolox_base.py": "num_classes depth width act data_num_workers input_size multiscale_range "
    "random_size data_dir train_ann val_ann test_ann mosaic_prob mixup_prob hsv_prob flip_prob degrees translate "
    "mosaic_scale enable_mixup mixup_scale shear warmup_epochs max_epoch warmup_lr min_lr_ratio basic_lr_per_img "
    "scheduler no_aug_epochs ema weight_decay momentum print_interval eval_interval save_history_ckpt exp_name "
    "output_dir test_size test_conf nmsthre seed dataset get_model get_dataset get_data_loader random_resize "
    "preprocess get_optimizer get_lr_scheduler get_eval_dataset get_eval_loader get_evaluator get_trainer eval",
}


def _fields(config: ConfigDict, prefix: str = "") -> set[str]:
    """The full names of all fields and sections."""
    names = set()
    for name in config:
        names.add(prefix + name)
        if isinstance(config[name], ConfigDict):
            names |= _fields(config[name], f"{prefix}{name}.")
    return names


def _is_program(module: str) -> bool:
    path = ROOT / module
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def _named_paths(text: str) -> set[str]:
    """Paths with a folder of this project in them, in inline code: `data/order.py`, `models/kernels/`."""
    in_code = re.findall(r"`([\w./-]+)`", text)
    return {name for name in in_code if "/" in name and re.search(r"/$|\.(py|md|npz|json|yml|ipynb|toml|txt)$", name)}


def _is_there(name: str) -> bool:
    return any((folder / name).exists() for folder in (ROOT, ROOT / "yolox_jax", ROOT / "docs"))


# Names that are not paths of this project: files of the official code, of a run and of a data set.
_ELSEWHERE = {
    "tools/train.py",
    "tools/eval.py",
    "tools/demo.py",
    "yolox/exp/yolox_base.py",
    "annotations/",
    "images/",
    "labels/",
    "pictures/",
    "damaged/",
    "checkpoints/",
    "tensorboard/",
    "tools/NAME.py",
    "checkpoints/ap.json",
}


def _check(documents: list[Path], find: Callable[[Path], Iterable[object]]) -> None:
    """Asserts that `find` finds nothing in any document; the message lists all that it finds."""
    faults = [f"{document.relative_to(ROOT)}: {fault}" for document in documents for fault in find(document)]
    assert not faults, "\n".join(faults)


def test_every_field_that_a_document_names_is_one():
    known = _fields(base.get_config()) | {"name", "field", "x"}  # --config.field=value

    def unknown(document):
        return set(re.findall(r"\bconfig\.((?:[a-z_0-9]+\.)*[a-z_0-9]+)", document.read_text())) - known

    _check(_DOCUMENTS, unknown)


def test_every_file_and_program_that_a_document_names_is_there():
    def missing(document):
        text = document.read_text()
        for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
            if not (document.parent / target).exists():
                yield target
        for tool in re.findall(r"\byolox_jax\.tools\.([a-z_]+)", text):
            if not _is_program(f"yolox_jax/tools/{tool}"):
                yield tool
        for module in re.findall(r"-m ((?:benchmarks|tests)[a-z_.]*)", text):
            if not _is_program(module.replace(".", "/")):
                yield module
        for file in re.findall(r"(?<![\w/])((?:configs|tests|benchmarks)/[\w/]+\.(?:py|npz|json|md))", text):
            if not (ROOT / file).is_file():
                yield file

    _check([*_DOCUMENTS, *_NOTES], missing)


def test_every_path_in_code_that_a_document_names_is_there():
    def missing(document):
        return (name for name in _named_paths(document.read_text()) - _ELSEWHERE if not _is_there(name))

    _check(_DOCUMENTS, missing)


def test_links_into_a_page_find_their_heading():
    def missing(document):
        for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", document.read_text()):
            page = document.parent / target if target else document
            headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            if anchor not in anchors:
                yield anchor

    _check(_DOCUMENTS, missing)


@pytest.mark.parametrize("pattern", _HISTORY)
def test_a_document_has_no_history(pattern):
    def history(document):
        text = re.sub(r"https?://\S+", "", document.read_text())
        return (found[0] for found in re.finditer(pattern, text, flags=re.IGNORECASE))

    _check(_DOCUMENTS, history)


def test_a_line_has_120_columns_at_most():
    def too_long(document):
        # A row of a table cannot be wrapped, which the laboratory's notes may need.
        is_exempt = document in _NOTES
        lines = enumerate(document.read_text().splitlines(), start=1)
        return ((n, line) for n, line in lines if len(line) > 120 and not (is_exempt and line.startswith("|")))

    _check([*_DOCUMENTS, *_NOTES], too_long)


def _section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text()
    return text[text.index(f"## {heading}\n") :].split("\n## ")[0]


def test_the_layers_of_the_page_are_those_that_are_enforced():
    block = re.search(r"```\n(.*?)```", _section("architecture.md", "Import rules"), flags=re.DOTALL).group(1)
    _, *layers = [tuple(sorted(line.split())) for line in block.strip().splitlines()]
    assert layers[::-1] == [tuple(sorted(layer)) for layer in test_architecture._LAYERS][:-1]


def test_the_fences_of_the_page_are_those_that_are_enforced():
    rows = re.findall(r"^\| ([\w., ]+) \| (`.*) \|$", _section("architecture.md", "Import rules"), flags=re.MULTILINE)
    page = {library: set(re.findall(r"`([^`]+)`", places)) for names, places in rows for library in names.split(", ")}
    for library, places in test_architecture._FENCES.items():
        assert page[library] == {place.removeprefix("yolox_jax/") for place in places}, library


@pytest.mark.parametrize("program", _OFFICIAL)
def test_everything_official_is_accounted_for(program):
    text = (ROOT / "docs" / "from_pytorch_yolox.md").read_text()
    section = text[text.index(f"## {program}\n") :].split("\n## ")[0]
    in_code = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`\n]+)`", section))))
    assert set(_OFFICIAL[program].split()) <= in_code
