"""Networks, assignment, losses, training steps and schedules of the official code, as arrays."""

from typing import Any

import cv2
import numpy as np

from tests.golden.official_yolox import VARIANTS, Arrays, Official, seeded

_LOSSES = ("total_loss", "iou_loss", "l1_loss", "conf_loss", "cls_loss", "num_fg")
_WHOLE_GRADIENTS = (
    "head.reg_preds.0.weight",
    "head.obj_preds.1.bias",
    "head.cls_preds.2.weight",
    "backbone.backbone.stem.conv.conv.weight",
)
_WHOLE_STATISTICS = (
    "backbone.backbone.stem.conv.bn.running_mean",
    "backbone.backbone.stem.conv.bn.running_var",
    "head.stems.0.bn.running_var",
)
_ASSIGN_CASES = (  # height, width, boxes, classes, kind
    (640, 640, 20, 80, "random"),
    (320, 320, 1, 80, "random"),
    (320, 320, 0, 80, "random"),
    (416, 416, 8, 80, "random"),
    (320, 512, 15, 20, "random"),
    (320, 320, 12, 80, "edge"),
    (320, 320, 30, 80, "tiny"),
    (256, 256, 6, 3, "duplicate"),
    (320, 320, 40, 80, "crowd"),
    (320, 320, 9, 80, "outside"),
    (320, 320, 4, 80, "huge"),
    (640, 640, 120, 80, "random"),
    (256, 256, 7, 1, "random"),
    (96, 96, 3, 2, "edge"),
)


def make_models(official: Official) -> dict[str, Any]:
    """Runs every network, and lists the names and shapes of its state dict."""
    images = seeded("images").uniform(0, 255, (2, 3, 64, 96)).astype(np.float32)
    arrays, described = {"images_nchw": images}, {}
    for name in VARIANTS:
        network = official.network(name).eval()
        network.head.decode_in_inference = False
        described[name] = {
            "params": sum(parameter.numel() for parameter in network.parameters()),
            "state_dict": {key: list(tensor.shape) for key, tensor in network.state_dict().items()},
        }
        with official.torch.no_grad():
            inputs = official.torch.from_numpy(images)
            arrays[f"{name}/raw"] = network(inputs).numpy()
            if name == "nano":
                network.head.decode_in_inference = True
                arrays["nano/decoded"] = network(inputs).numpy()
                for level, features in enumerate(network.backbone(inputs), start=3):
                    arrays[f"nano/p{level}"] = features.numpy()
    return {"models.npz": arrays, "models.json": described}


def make_assign(official: Official) -> dict[str, Any]:
    """Assigns every case; predictions lie near the boxes, so that IoUs spread over 0 to 1."""
    arrays: Arrays = {}
    for index, case in enumerate(_ASSIGN_CASES):
        height, width, num_boxes, classes, kind = case
        key = f"{index:02d}_{kind}_{height}x{width}_g{num_boxes}_c{classes}"
        arrays |= {
            f"{key}/{name}": value for name, value in _assign_case(official, seeded("assign", key), *case).items()
        }
    return {"assign.npz": arrays}


def _assign_case(
    official: Official, rng: np.random.RandomState, height: int, width: int, num_boxes: int, classes: int, kind: str
) -> Arrays:
    xs, ys, strides = anchor_grid(height, width)
    numanchor_grid = xs.size
    sides = np.exp(rng.uniform(np.log(4), np.log(0.9 * min(height, width)), (num_boxes, 2)))
    centers = rng.uniform(0, 1, (num_boxes, 2)) * [width, height]
    if kind == "edge":
        is_left = rng.rand(num_boxes) < 0.5
        centers[:, 0] = np.where(is_left, rng.uniform(0, 3, num_boxes), width - rng.uniform(0, 3, num_boxes))
    elif kind == "tiny":
        sides = rng.uniform(1, 6, (num_boxes, 2))
    elif kind == "duplicate":
        centers[1::2], sides[1::2] = centers[0::2], sides[0::2]
    elif kind == "crowd":
        centers = np.array([[width / 2, height / 2]]) + rng.standard_normal((num_boxes, 2)) * 12
        sides = rng.uniform(20, 80, (num_boxes, 2))
    elif kind == "outside":
        centers[::3] = [[-40.0, -40.0]]
    elif kind == "huge":
        sides = np.tile([[width * 1.5, height * 1.5]], (num_boxes, 1))
    gt_cxcywh = np.concatenate([centers, sides], 1).astype(np.float32)
    gt_class = rng.randint(0, classes, num_boxes)
    if kind == "duplicate":
        gt_class[1::2] = gt_class[0::2]

    points = np.stack([(xs + 0.5) * strides, (ys + 0.5) * strides], 1)
    if num_boxes:
        base = gt_cxcywh[np.argmin(((points[:, None] - gt_cxcywh[None, :, :2]) ** 2).sum(-1), 1)]
    else:
        base = np.concatenate([points, np.tile(strides[:, None] * 4, (1, 2))], 1)
    boxes: Any = base + rng.standard_normal((numanchor_grid, 4)) * strides[:, None] * 0.5
    boxes[:, 2:] = base[:, 2:] * np.exp(0.3 * rng.standard_normal((numanchor_grid, 2)))
    obj_logits: Any = rng.standard_normal((numanchor_grid, 1)) * 2 - 1
    # Coarse logits keep the file small and make ties occur.
    cls_logits: Any = np.round((rng.standard_normal((numanchor_grid, classes)) * 2 - 2) * 8) / 8
    boxes, obj_logits, cls_logits = (array.astype(np.float32) for array in (boxes, obj_logits, cls_logits))

    arrays = {"gt_cxcywh": gt_cxcywh, "gt_class": gt_class, "box_cxcywh": boxes, "obj_logit": obj_logits[:, 0]}
    arrays |= {"cls_logit": cls_logits, "hw": np.array([height, width])}
    positive, gt_index = np.zeros(numanchor_grid, bool), np.full(numanchor_grid, -1)
    iou = np.zeros(numanchor_grid, np.float32)
    if num_boxes:
        tensor = official.torch.from_numpy
        grid = (tensor(array)[None] for array in (strides, xs, ys, cls_logits, obj_logits))
        _, mask, matched_iou, matched_index, _ = official.models.YOLOXHead(classes).get_assignments(
            0, num_boxes, tensor(gt_cxcywh), tensor(gt_class).float(), tensor(boxes), *grid
        )
        positive |= mask.numpy()
        gt_index[positive], iou[positive] = matched_index.numpy(), matched_iou.numpy()
    return arrays | {"fg": positive, "gt_index": gt_index, "iou": iou}


def anchor_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, row and stride of every anchor, as the official head has them: level by level, row by row."""
    levels = []
    for stride in (8, 16, 32):
        rows, columns = np.mgrid[: height // stride, : width // stride]
        levels.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)]))
    xs, ys, strides = np.concatenate(levels, axis=1).astype(np.float32)
    return xs, ys, strides


def make_losses(official: Official) -> dict[str, Any]:
    """Computes losses and gradients of nano with 7 classes in training mode, without and with L1."""
    arrays: Arrays = {}
    for tag, use_l1 in (("nol1", False), ("l1", True)):
        network = official.network("nano", 7).train()
        network.head.use_l1 = use_l1
        images, labels = random_batch("loss", 128, 160)
        losses = network(official.torch.from_numpy(images), official.torch.from_numpy(labels))
        losses["total_loss"].backward()
        of_case = {"images_nchw": images, "labels": labels} | {
            name: np.float64(float(losses[name])) for name in _LOSSES
        }
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        of_case |= {f"gradnorm/{name}": np.float64(grad.double().norm()) for name, grad in gradients.items()}
        of_case |= {f"grad/{name}": gradients[name].numpy() for name in _WHOLE_GRADIENTS}
        of_case |= {f"stats/{name}": network.state_dict()[name].numpy() for name in _WHOLE_STATISTICS}
        arrays |= {f"{tag}/{name}": value for name, value in of_case.items()}
    return {"losses.npz": arrays}


def random_batch(key: str, height: int, width: int, most: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Four smooth images [4, 3, H, W], and labels [4, 120, 5] (class, cxcywh) with 0, 1, 5 and `most` boxes."""
    rng = seeded("batch", key)
    images = cv2.GaussianBlur(rng.uniform(0, 255, (height, width * 4, 3)).astype(np.float32), (0, 0), 3)
    images = (images - images.min()) / (images.max() - images.min()) * 255
    images = images.reshape(height, 4, width, 3).transpose(1, 3, 0, 2).copy()
    labels = np.zeros((4, 120, 5), np.float32)
    for index, num in enumerate((0, 1, 5, most)):
        labels[index, :num, 0] = rng.randint(0, 7, num)
        labels[index, :num, 1:3] = rng.uniform(0.05, 0.95, (num, 2)) * [width, height]
        labels[index, :num, 3:] = np.exp(rng.uniform(np.log(6), np.log(0.7 * width), (num, 2)))
    return images.astype(np.float32), labels


def make_trajectory(official: Official) -> dict[str, Any]:
    """Trains that network for eight SGD steps, in float32 and again in float64."""
    arrays: Arrays = {}
    for step in range(8):
        images, labels = random_batch(f"traj{step}", 96, 128)
        arrays |= {f"images/{step}": images.astype(np.float16), f"labels/{step}": labels}
    exact = _train_eight_steps(official, arrays, np.float64)
    exact.pop("lr")
    as_json = {name: value.tolist() for name, value in exact.items()}
    return {
        "trajectory.npz": arrays | _train_eight_steps(official, arrays, np.float32),
        "trajectory_float64.json": as_json,
    }


def _train_eight_steps(official: Official, batches: Arrays, dtype: type) -> Arrays:
    torch = official.torch
    network = official.network("nano", 7).train()
    network.to(torch.from_numpy(np.zeros((), dtype)).dtype)
    optimizer = _official_optimizer(torch, network)
    schedule = official.schedules.LRScheduler(
        "yoloxwarmcos", 0.01 / 64 * 4, 4, 5, warmup_epochs=1, warmup_lr_start=0, no_aug_epochs=1, min_lr_ratio=0.05
    )
    ema = official.utils.ModelEMA(network, 0.9998)
    logged: dict[str, list[float]] = {"lr": [], "loss": [], "num_fg": []}
    for step in range(8):
        images, labels = (torch.from_numpy(batches[f"{name}/{step}"].astype(dtype)) for name in ("images", "labels"))
        losses = network(images, labels)
        optimizer.zero_grad()
        losses["total_loss"].backward()
        logged["lr"].append(optimizer.param_groups[0]["lr"])
        logged["loss"].append(float(losses["total_loss"]))
        logged["num_fg"].append(float(losses["num_fg"]))
        optimizer.step()
        ema.update(network)
        for group in optimizer.param_groups:
            group["lr"] = schedule.update_lr(step + 1)
    arrays: Arrays = {name: np.array(values) for name, values in logged.items()}
    for prefix, module in (("norm", network), ("ema_norm", ema.ema)):
        for name, tensor in module.state_dict().items():
            if tensor.dtype.is_floating_point:
                arrays[f"{prefix}/{name}"] = np.float64(tensor.double().norm())
    return arrays


def _official_optimizer(torch: Any, network: Any) -> Any:
    """SGD as the official Exp.get_optimizer builds it, at learning rate 0 for the first step."""
    norms, kernels, biases = [], [], []
    for name, module in network.named_modules():
        if isinstance(getattr(module, "bias", None), torch.nn.Parameter):
            biases.append(module.bias)
        if isinstance(module, torch.nn.BatchNorm2d) or "bn" in name:
            norms.append(module.weight)
        elif isinstance(getattr(module, "weight", None), torch.nn.Parameter):
            kernels.append(module.weight)
    optimizer = torch.optim.SGD(norms, lr=0.0, momentum=0.9, nesterov=True)
    optimizer.add_param_group({"params": kernels, "weight_decay": 5e-4})
    optimizer.add_param_group({"params": biases})
    return optimizer


def make_schedule(official: Official) -> dict[str, Any]:
    """Computes learning rates and EMA decays."""
    numbers = {"warmup_epochs": 5, "no_aug_epochs": 5, "min_lr_ratio": 0.05}
    schedule = official.schedules.LRScheduler("yoloxwarmcos", 0.01, 100, 30, warmup_lr_start=0, **numbers)
    steps, updates = list(range(0, 3001, 25)), [1, 10, 100, 1000, 5000, 100000]
    decay = official.utils.ModelEMA(official.torch.nn.Linear(1, 1), 0.9998).decay
    learning_rates = {"at": steps, "value": [schedule.update_lr(step) for step in steps]}
    lr = {"base_lr": 0.01, "iters_per_epoch": 100, "epochs": 30} | numbers | learning_rates
    return {
        "schedule.json": {
            "lr": lr,
            "ema_decay": {"base": 0.9998, "at": updates, "value": [decay(update) for update in updates]},
        }
    }
