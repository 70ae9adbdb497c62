"""Detector families: each turns photos into heads that are drawn into one fused graph (arrow 6)."""

from __future__ import annotations

from services.trainer.families.aligned import AlignedFamily
from services.trainer.families.memory import MemoryFamily
from services.trainer.families.protocol import Family
from services.trainer.families.restoration.family import RestorationFamily
from services.trainer.families.supervised import SupervisedFamily


def all_families() -> tuple[Family, ...]:
    """Return every family there is, in order of worth."""
    return (MemoryFamily(), AlignedFamily(), SupervisedFamily(), RestorationFamily())
