"""A fit on a real Ray: the photos go there, the model folder comes back, and nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from services.trainer.backbones.efficientnet import default_backbone_path
from services.trainer.fit_ray import WAITING
from tests.unit.trainer.pictures import picture

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray"),
    pytest.mark.timeout(240),
]
# Ray itself takes half a minute to start where the cores are busy.
TAKES_S = 200


def test_a_fit_runs_on_ray_and_leaves_nothing_there(tmp_path: Path) -> None:
    if not default_backbone_path().is_file():
        pytest.skip("needs the backbone that `make setup` prepares")
    for seed in range(6):
        (tmp_path / f"{seed}").write_bytes(picture(seed))
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},  # noqa: TID251
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ray_fits.py"), tmp_path],
        env=environment, capture_output=True, text=True, timeout=TAKES_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["train_images"], seen["is_in_folder"]) == (4, True)
    assert set(seen["stages"]) - {WAITING}, "it told how far it was"
    assert "at least 2 different photos" in seen["refused"]
    assert seen["offered_bytes"] > 1 << 30
    assert seen["gone_after_s"] < 2
