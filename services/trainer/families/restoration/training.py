"""Spoilt photos in, good photos out: training a restoring network with torch (arrow 6).

The number of steps is the profile's, so the same photos and seed give the same network on the same
machine and number of threads; the clock only ends what takes far too long, and that is logged. Batches
are drawn one at a time: memory does not grow with the number of photos.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from services.trainer.dataset import Dataset
from services.trainer.families.protocol import StageProgress
from services.trainer.families.restoration.network import GREY_LEVELS, Network, network_of
from services.trainer.families.restoration.profiles import Profile
from services.trainer.synthesis.spoil import spoil

logger = logging.getLogger(__name__)

# Larger pictures (tiles) are learnt from in crops of this side.
CROP_PX = 224
_MOST_DEFECTS = 4
# Lamps and exposures vary by about so much between photos of one camera.
_GAIN_SD, _OFFSET_SD = 0.05, 0.02
# Weight of the spoilt pixels beside all pixels; and how many of them a batch must have to count fully.
_SPOILT_WEIGHT, _SPOILT_PX = 0.5, 200.0
_WARM_UP_RATIO, _MAX_GRADIENT, _WEIGHT_DECAY = 0.15, 1.0, 1e-4
_PROGRESS_STEPS = 10
# Until half of the time is up, the clock has no say: it would make each training a different one.
_LATE_FROM = 0.5


def train(
    photos: Dataset,
    chosen: Sequence[int],
    profile: Profile,
    *,
    steps: int,
    seed: int,
    threads: int,
    limit_s: float,
    progress: StageProgress,
) -> Network:
    """Return a network that undoes defects, learnt from the photos at `chosen`.

    Args:
        photos: good parts, with sides that 16 divides.
        chosen: which of them; at least one.
        profile: how large it is, and the learning rate.
        steps: how many batches it sees.
        seed: of weights, photos and defects.
        threads: CPU threads.
        limit_s: seconds after which training ends early; logged.
        progress: told the share done.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _settled(seed, threads):
        net = _Net(profile.widths).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rates = torch.optim.AdamW(net.parameters(), profile.learning_rate, weight_decay=_WEIGHT_DECAY)
        batches = _batches(photos, chosen, profile.batch_photos, np.random.default_rng(seed))
        started_s = time.monotonic()
        for step in range(steps):
            used, clock = step / steps, (time.monotonic() - started_s) / limit_s
            if clock > max(used, _LATE_FROM):
                # The learning rate still comes down to nothing in time.
                used = clock
            if used >= 1:
                logger.warning("training ended early, after %d of %d steps in %.0f s", step, steps, limit_s)
                break
            for group in rates.param_groups:
                group["lr"] = profile.learning_rate * _rate(used)
            good, spoilt, mask = (one.to(device) for one in next(batches))
            loss = _loss(net(spoilt), good, mask)
            rates.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), _MAX_GRADIENT)
            rates.step()
            if step % _PROGRESS_STEPS == 0:
                progress(step / steps)
        progress(1.0)
        learnt: Network = net.network()
        return learnt


class _Block(nn.Module):
    """Convolution, batch norm, and a rectifier."""

    def __init__(self, channels_in: int, channels: int, kernel_px: int = 3, stride: int = 1) -> None:
        super().__init__()
        pad = (kernel_px - 1) // 2
        self.conv = nn.Conv2d(channels_in, channels, kernel_px, stride, pad, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h / stride, w / stride)."""
        return functional.relu(self.norm(self.conv(x)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return kernel and bias of one convolution that does the same as both."""
        norm = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


class _Net(nn.Module):
    """`network.Network` while it learns; the two must agree, and a test holds them to it."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        above = (3, *widths)
        self.down = nn.ModuleList(
            _Block(above[n], width, kernel_px=3 if n else 4, stride=2) for n, width in enumerate(widths)
        )
        self.keep = nn.ModuleList(_Block(width, width) for width in widths)
        self.lift = nn.ModuleList(nn.Conv2d(below, width, 1) for width, below in pairwise(widths))
        self.join = nn.ModuleList(_Block(width, width) for width in widths[:-1])
        self.out = nn.Conv2d(widths[0], 12, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """(N, 3, S, S), -0.5 to 0.5 -> the same, restored."""
        x, kept = picture, []
        for down, keep in zip(self.down, self.keep, strict=True):
            x = keep(down(x))
            kept.append(x)
        for level in reversed(range(len(self.lift))):
            lifted = functional.interpolate(self.lift[level](x), scale_factor=2, mode="nearest")
            x = self.join[level](kept[level] + lifted)
        return functional.pixel_shuffle(self.out(x), 2)

    def network(self) -> Network:
        """Return what was learnt, for the graph."""
        found: dict[str, tuple[Tensor, Tensor]] = {"out": (self.out.weight, _bias(self.out))}
        for part in ("down", "keep", "join"):
            found |= {f"{n}.{part}": block.folded() for n, block in enumerate(getattr(self, part))}
        for number, one in enumerate(self.lift):
            assert isinstance(one, nn.Conv2d)
            found[f"{number}.lift"] = (one.weight, _bias(one))
        arrays = {}
        for name, (kernel, bias) in found.items():
            arrays[f"{name}.kernel"], arrays[f"{name}.bias"] = _array(kernel), _array(bias)
        return network_of(arrays, len(self.down))


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)


def _loss(restored: Tensor, good: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error, that where it was spoilt, and that of the gradients, added."""
    error = (restored - good).abs().mean(dim=1, keepdim=True)
    where_spoilt = (error * mask).sum() / (mask.sum() + _SPOILT_PX)
    slopes = [(restored.diff(dim=axis) - good.diff(dim=axis)).abs().mean() for axis in (2, 3)]
    return error.mean() + _SPOILT_WEIGHT * where_spoilt + slopes[0] + slopes[1]


def _rate(used: float) -> float:
    """Return the share of the highest learning rate: up in a line, down in a cosine."""
    if used < _WARM_UP_RATIO:
        return (used + 0.01) / (_WARM_UP_RATIO + 0.01)
    return 0.5 * (1 + math.cos(math.pi * (used - _WARM_UP_RATIO) / (1 - _WARM_UP_RATIO)))


def _batches(
    photos: Dataset, chosen: Sequence[int], size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (n, 3, s, s) good and spoilt pictures and (n, 1, s, s) where they differ (0 or 1), for ever."""
    while True:
        drawn = [_spoilt(photos, chosen, rng) for _ in range(size)]
        # The light of good and spoilt is one.
        gain = np.exp(rng.normal(0, _GAIN_SD, (size, 1, 1, 1))).astype(np.float32)
        offset = rng.normal(0, _OFFSET_SD, (size, 1, 1, 1)).astype(np.float32)
        good, spoilt = (
            (np.stack(one).astype(np.float32) / np.float32(GREY_LEVELS) - np.float32(0.5)) * gain + offset
            for one in list(zip(*drawn, strict=True))[:2]
        )
        mask = np.stack([one[2] for one in drawn])[:, None].astype(np.float32)
        # The views of (n, s, s, 3) as (n, 3, s, s) are channels-last already.
        yield (
            torch.from_numpy(good).permute(0, 3, 1, 2),
            torch.from_numpy(spoilt).permute(0, 3, 1, 2),
            torch.from_numpy(mask),
        )


def _spoilt(
    photos: Dataset, chosen: Sequence[int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a good picture, the same with none to four defects, and where they are."""
    at, other_at = (chosen[int(rng.integers(len(chosen)))] for _ in range(2))
    good, other = photos.pixels(at), photos.pixels(other_at)
    side = min(CROP_PX, good.shape[0])
    top, left = (int(rng.integers(good.shape[0] - side + 1)) for _ in range(2))
    good, other = (one[top : top + side, left : left + side] for one in (good, other))
    spoilt, mask = good, np.zeros((side, side), bool)
    for _ in range(int(rng.integers(_MOST_DEFECTS + 1))):
        one = spoil(spoilt, other, rng)
        spoilt, mask = one.pixels, mask | one.mask
    return good, spoilt, mask


@contextmanager
def _settled(seed: int, threads: int) -> Iterator[None]:
    """Fix torch's seed and threads, and leave them as they were."""
    before: Any = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
