"""How large a restoring network is and how long it learns: a CPU profile and a GPU profile (arrow 6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """A network's size and its training.

    Attributes:
        widths: channels of each level, finest first; four at most, see `network`.
        fold_steps: steps of each of the two networks that only calibrate.
        final_steps: steps of the one that serves.
        batch_photos: photos a step.
        learning_rate: the highest, after warming up.
    """

    widths: tuple[int, ...]
    fold_steps: int
    final_steps: int
    batch_photos: int
    learning_rate: float


# 230 million multiplications a photo: about as many as the backbone. 600 steps of some 0.1 s on two cores
# leave a third of the 100 s that a fit may train for.
CPU_PROFILE = Profile((16, 32, 64, 96), 150, 300, 8, 3e-3)
# A graphics card waits for defects, which one core draws at some 2 ms a photo: 2,000 steps in about 70 s.
GPU_PROFILE = Profile((48, 96, 192, 384), 400, 1200, 16, 2e-3)
