"""Learning rate, L1 weight and the start of the no-aug epochs, as functions of the step."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from yolox_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Learning rate and loss weights as functions of the step alone, so there is no state to save or restore.

    Source: the reference's yolox_warm_cos_lr.
    """

    base_lr: float  # for the global batch
    steps_per_epoch: int
    epochs: int
    warmup_epochs: int
    no_aug_epochs: int
    min_lr_ratio: float

    def __post_init__(self) -> None:
        if not 0 <= self.base_lr < math.inf:
            raise UserError(f"config.lr_per_image gives a learning rate of {self.base_lr}", "give 0 or more")
        if not 0 <= self.min_lr_ratio <= 1:
            raise UserError(f"config.min_lr_ratio is {self.min_lr_ratio}", "give a number from 0 to 1")
        if self.steps_per_epoch < 1:
            raise UserError("the training set has no images", "check config.data")
        for name, least in (("epochs", 1), ("warmup_epochs", 0), ("no_aug_epochs", 0)):
            if getattr(self, name) < least:
                raise UserError(f"config.{name} is {getattr(self, name)}", f"give {least} or more")
        if self.warmup_epochs + self.no_aug_epochs > self.epochs:
            raise UserError(
                f"config.warmup_epochs {self.warmup_epochs} and config.no_aug_epochs {self.no_aug_epochs} do not fit "
                f"into config.epochs {self.epochs}",
                "lower the first two, or train for more epochs",
            )

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def no_aug_step(self) -> int:
        """The first step of the no-aug epochs: no mosaic or mixup, L1 loss on, learning rate at its minimum."""
        return self.total_steps - self.no_aug_epochs * self.steps_per_epoch

    def learning_rate(self, step: jax.Array | int) -> jax.Array:
        """Quadratic warm-up from 0, then a cosine to the minimum, which the no-aug epochs keep."""
        step = jnp.asarray(step, jnp.float32)
        warmup_steps = self.warmup_epochs * self.steps_per_epoch
        min_lr = self.base_lr * self.min_lr_ratio
        warm = self.base_lr * (step / max(warmup_steps, 1)) ** 2
        progress = (step - warmup_steps) / max(self.no_aug_step - warmup_steps, 1)
        cosine = min_lr + 0.5 * (self.base_lr - min_lr) * (1 + jnp.cos(jnp.pi * progress))
        after_warmup = jnp.where(step >= self.no_aug_step, min_lr, cosine)
        return jnp.where((step <= warmup_steps) & (warmup_steps > 0), warm, after_warmup)

    def l1_weight(self, step: jax.Array | int, no_aug_step: jax.Array | None = None) -> jax.Array:
        """1 in the no-aug epochs, which begin in `no_aug_step` (None for the schedule's), 0 before them."""
        begin = self.no_aug_step if no_aug_step is None else no_aug_step
        return (jnp.asarray(step) >= begin).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class EvaluationDue:
    """Decides when a run evaluates: every `every_epochs` epochs, after each no-aug epoch, and at the end."""

    schedule: Schedule
    every_epochs: int

    def __post_init__(self) -> None:
        if self.every_epochs < 1:
            raise UserError(f"config.eval.every_epochs is {self.every_epochs}", "give 1 or more")

    def __call__(self, step: int) -> bool:
        """True if an evaluation is due after step `step`, counted from 0."""
        schedule = self.schedule
        epoch, steps_into_next = divmod(step + 1, schedule.steps_per_epoch)
        is_no_aug = epoch > schedule.epochs - schedule.no_aug_epochs
        return steps_into_next == 0 and (epoch % self.every_epochs == 0 or is_no_aug or epoch == schedule.epochs)

    def next_from(self, step: int) -> int:
        """Returns the first step, from `step` on, that an evaluation follows, or the last step if none is left."""
        steps_per_epoch, total_steps = self.schedule.steps_per_epoch, self.schedule.total_steps
        ends = range((step // steps_per_epoch + 1) * steps_per_epoch - 1, total_steps, steps_per_epoch)
        return next(filter(self, ends), total_steps - 1)
