"""Trains restoring networks and makes a head of them (arrow 6).

Three networks: two on halves of the groups of photos, which only measure photos that they did not learn
from, and one on all photos, which serves. Those of the halves know less, so cross-fitted distances are
rather too large than too small, and a threshold from them keeps its promise.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.trainer.families.protocol import MAP_STRIDE_PX, Budget, Candidate, FitData, StageProgress
from services.trainer.families.restoration.network import DISTANCE, SIDE_MULTIPLE_PX, Network
from services.trainer.families.restoration.profiles import CPU_PROFILE, GPU_PROFILE, Profile
from services.trainer.features import Features
from services.trainer.graph_builder import GraphBuilder
from services.trainer.tiling import PIXELS
from services.vision.runtime import open_session

if TYPE_CHECKING:
    import onnxruntime

# Half of fewer photos is too little to learn from: the halves' networks would measure nothing but that.
MIN_NORMALS = 10


@dataclass(frozen=True)
class RestorationHead:
    """What the network would change, in grey levels.

    Attributes:
        grid: cells of 4 px along each side.
        final: the network that serves.
        folds: those that calibrate.
        left_out_by: group -> index of the fold that did not learn from it.
    """

    grid: int
    final: Network
    folds: tuple[Network, ...]
    left_out_by: Mapping[int, int]
    threads: int = 2
    _sessions: dict[int, onnxruntime.InferenceSession] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Return its short name."""
        return "restoration"

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, g, g) float32, 0-255; see `Head.distances`."""
        pixels = features[PIXELS]
        groups = [None] * len(pixels) if left_out is None else left_out
        which = np.array([len(self.folds) if g is None else self._network_for(g) for g in groups])
        found = np.empty((len(pixels), self.grid, self.grid), np.float32)
        for index in np.unique(which):
            chosen = which == index
            found[chosen] = self._session(int(index)).run([DISTANCE], {PIXELS: pixels[chosen]})[0]
        return found

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw the final network; see `Head.draw`."""
        return self.final.draw(draw, taps[PIXELS])

    def _network_for(self, group: int) -> int:
        """Return the fold that did not learn from a group; the final one for a group that taught nothing."""
        return self.left_out_by.get(int(group), len(self.folds))

    def _session(self, index: int) -> onnxruntime.InferenceSession:
        """Return the opened network: a fold, or behind the last of them the final one."""
        if index not in self._sessions:
            network = (*self.folds, self.final)[index]
            model = network.model(self.grid * MAP_STRIDE_PX).SerializeToString()
            self._sessions[index] = open_session(model, self.threads)
        return self._sessions[index]


class RestorationFamily:
    """Trains a U-Net that undoes synthetic defects."""

    name = "restoration"

    def __init__(self, profile: Profile | None = None) -> None:
        """Use a profile; None: what the machine can do."""
        self._given = profile

    @property
    def is_slow(self) -> bool:
        """It takes minutes."""
        return True

    @cached_property
    def _profile(self) -> Profile:
        if self._given is not None:
            return self._given
        import torch  # seconds: only where a network is really trained

        return GPU_PROFILE if torch.cuda.is_available() else CPU_PROFILE

    def why_not(self, data: FitData) -> str | None:
        """See `Family.why_not`."""
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed, and a network is trained with it."
        if len(data.normals) < MIN_NORMALS:
            return f"A network learns from {MIN_NORMALS} good photos or more; there are {len(data.normals)}."
        if len(np.unique(data.groups)) < 2:
            return "All photos show one object, so none is left to measure what was learnt."
        if data.extractor.input_px % SIDE_MULTIPLE_PX:
            return (
                f"The network needs a side that {SIDE_MULTIPLE_PX} divides, not {data.extractor.input_px} px."
            )
        return None

    def fit(self, data: FitData, budget: Budget, seed: int, progress: StageProgress) -> Candidate:
        """Train the networks; see `Family.fit`."""
        from services.trainer.families.restoration.training import train  # imports torch

        profile = self._profile
        fold_of = _halves(data.groups, seed)
        everyone = np.arange(len(data.normals))
        plan = [(everyone[fold_of != fold], profile.fold_steps) for fold in (0, 1)]
        plan.append((everyone, profile.final_steps))
        all_steps = sum(steps for _, steps in plan)
        networks, done = [], 0
        for number, (chosen, steps) in enumerate(plan):
            networks.append(
                train(
                    data.normals,
                    chosen.tolist(),
                    profile,
                    steps=steps,
                    seed=seed + number,
                    threads=budget.threads,
                    limit_s=budget.train_s * steps / all_steps,
                    progress=partial(_tell, progress, done / all_steps, steps / all_steps),
                )
            )
            done += steps
        groups = {int(group): int(fold) for group, fold in zip(data.groups, fold_of, strict=True)}
        head = RestorationHead(
            grid=data.extractor.input_px // MAP_STRIDE_PX,
            final=networks[2],
            folds=(networks[0], networks[1]),
            left_out_by=groups,
            threads=budget.threads,
        )
        return Candidate(self.name, (head,))


def _tell(progress: StageProgress, from_ratio: float, of_ratio: float, done_ratio: float) -> None:
    """Report the share done of a part as a share of the whole."""
    progress(from_ratio + of_ratio * done_ratio)


def _halves(groups: NDArray[np.int32], seed: int) -> NDArray[np.int32]:
    """Return (n,) 0 or 1 for each photo: groups in random order, each to the half with fewer photos."""
    numbers = np.random.default_rng(seed).permutation(np.unique(groups))
    fold_of = np.zeros(len(groups), np.int32)
    counts = [0, 0]
    for group in numbers:
        fold = int(counts[1] < counts[0])
        fold_of[groups == group] = fold
        counts[fold] += int((groups == group).sum())
    return fold_of
