"""The documents name fields, flags and files that exist, and leave out nothing of what they promise to cover."""

import re

import pytest
from ml_collections import ConfigDict

from configs import base
from tests.material import ROOT

_DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# The arguments of the official programs and the fields of its Exp, at the official HEAD of 2025.
_OFFICIAL = {
    "tools/train.py": "--experiment-name --name --dist-backend --dist-url --batch-size --devices --exp_file --resume --ckpt "
    "--start_epoch --num_machines --machine_rank --fp16 --cache --occupy --logger opts",
    "tools/eval.py": "--experiment-name --dist-backend --dist-url --num_machines --machine_rank --ckpt --conf --nms --tsize "
    "--seed --fp16 --fuse --trt --legacy --test --speed opts",
    "tools/demo.py": "demo --path --camid --save_result --experiment-name --name --exp_file --ckpt --device --conf --nms "
    "--tsize --fp16 --legacy --fuse --trt",
    "tools/export_onnx.py": "--output-name --input --output --opset --batch-size --dynamic --no-onnxsim opts "
    "--decode_in_inference",
    "Exp, yolox/exp/yolox_base.py": "num_classes depth width act data_num_workers input_size multiscale_range random_size "
    "data_dir train_ann val_ann test_ann mosaic_prob mixup_prob hsv_prob flip_prob degrees translate mosaic_scale "
    "enable_mixup mixup_scale shear warmup_epochs max_epoch warmup_lr min_lr_ratio basic_lr_per_img scheduler "
    "no_aug_epochs ema weight_decay momentum print_interval eval_interval save_history_ckpt exp_name output_dir "
    "test_size test_conf nmsthre seed dataset get_model get_dataset get_data_loader random_resize preprocess "
    "get_optimizer get_lr_scheduler get_eval_dataset get_eval_loader get_evaluator get_trainer eval",
}


def _fields(config: ConfigDict, prefix: str = "") -> set[str]:
    """Every field and every section, by its whole name."""
    names = set()
    for name in config:
        names.add(prefix + name)
        if isinstance(config[name], ConfigDict):
            names |= _fields(config[name], f"{prefix}{name}.")
    return names


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_field_that_a_document_names_is_one(document):
    named = re.findall(r"\bconfig\.((?:[a-z_0-9]+\.)*[a-z_0-9]+)", document.read_text())
    placeholders = {"name", "field", "x"}  # --config.field=value
    assert set(named) - placeholders <= _fields(base.get_config())


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_tool_that_a_document_names_is_there(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), target
    for tool in re.findall(r"-m yolox_jax\.tools\.([a-z_]+)", text):
        assert (ROOT / "yolox_jax" / "tools" / f"{tool}.py").is_file(), tool
    for config in re.findall(r"\bconfigs/[a-z_0-9]+\.py", text):
        assert (ROOT / config).is_file(), config


@pytest.mark.parametrize("program", _OFFICIAL)
def test_everything_official_is_accounted_for(program):
    text = (ROOT / "docs" / "from_pytorch_yolox.md").read_text()
    section = text[text.index(f"## {program}\n") :].split("\n## ")[0]
    in_code = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`\n]+)`", section))))
    assert set(_OFFICIAL[program].split()) <= in_code
