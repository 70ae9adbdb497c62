"""`cut-paste`: a piece of the picture where it does not belong (arrow 6).

After CutPaste (Li et al., CVPR 2021): a patch from elsewhere, with other light, or a thin scar of it.
"""

from __future__ import annotations

import numpy as np

from services.trainer.synthesis.scene import Generator, Patch, Scene
from services.trainer.synthesis.shapes import bar, blot

_SCAR_RATIO = 0.4


def cut_paste(scene: Scene, rng: Generator) -> Patch:
    """Return a patch with a turned piece of this or the other photo in other light."""
    box = scene.box(rng, scene.aim(rng))
    source = scene.pixels if rng.random() < 0.5 else scene.other
    top = int(rng.integers(scene.side - box.height + 1))
    left = int(rng.integers(scene.side - box.width + 1))
    piece = source[top : top + box.height, left : left + box.width].astype(np.float32)
    if rng.random() < 0.5:
        piece = piece[::-1, ::-1]
    # From the same light to twice or half of it.
    piece = piece * np.float32(np.exp(rng.normal(0, 0.2))) + np.float32(rng.normal(0, 12))
    draw = bar if rng.random() < _SCAR_RATIO else blot
    cover = draw(rng, box.height, box.width)[..., None] * np.float32(rng.uniform(0.4, 1))
    ground = scene.cut(box)
    return Patch(box, ground + cover * (piece - ground))
