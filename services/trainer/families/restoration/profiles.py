"""How large a restoring network is and how long it learns: a CPU profile and a GPU profile (arrow 6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """A network's size and its training.

    Attributes:
        name: for logs.
        widths: channels of each level, finest first; four at most, see `network.SIDE_MULTIPLE_PX`.
        fold_steps: steps of each of the two networks that only calibrate.
        final_steps: steps of the one that serves.
        batch_photos: photos a step.
        learning_rate: the highest, after warming up.
    """

    name: str
    widths: tuple[int, ...]
    fold_steps: int
    final_steps: int
    batch_photos: int
    learning_rate: float


# 230 million multiplications a photo.
CPU_PROFILE = Profile("cpu", (16, 32, 64, 96), 150, 300, 8, 3e-3)
GPU_PROFILE = Profile("gpu", (48, 96, 192, 384), 1500, 4000, 16, 2e-3)
