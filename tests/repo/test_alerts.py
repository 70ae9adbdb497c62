"""The alert rules ask for metrics that exist, and promtool finds that they fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.domain.camera import CameraState
from services.domain.metrics import METRICS

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
# Prometheus makes this one itself.
NOT_OURS = {"up"}
# States in which a camera does what it should, or is meant to do nothing. A spool has its own alert.
UNTROUBLED = {
    CameraState.NEW, CameraState.WAITING, CameraState.PAUSED, CameraState.STARTING, CameraState.RUNNING,
    CameraState.ENDED, CameraState.SPOOLING,
}  # fmt: skip


def rules() -> list[dict[str, Any]]:
    told = yaml.safe_load((FOLDER / "loupe-alerts.yaml").read_text())
    return [rule for group in told["groups"] for rule in group["rules"]]


def test_rules_ask_for_metrics_of_the_list_by_labels_that_they_have() -> None:
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    for rule in rules():
        names = set(re.findall(r"\b(loupe_[a-z_]+|up)\b", re.sub(r'"[^"]*"', "", rule["expr"])))
        assert names, rule["alert"]
        assert names <= labels.keys() | NOT_OURS, rule["alert"]
        grouped = re.findall(r"by \((\w+)\)", rule["expr"])
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        for name in names - NOT_OURS:
            assert {*grouped, *told} <= labels[name], rule["alert"]


def test_every_rule_says_how_bad_it_is_what_happened_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "what_to_do"} <= rule["annotations"].keys()


def test_the_troubled_states_are_all_but_the_untroubled() -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == "LoupeCameraTroubled"]
    (states,) = re.findall(r'state=~"([^"]*)"', rule["expr"])
    assert set(states.split("|")) == set(CameraState) - UNTROUBLED


def test_every_rule_is_tested() -> None:
    tested = yaml.safe_load((FOLDER / "tests.yaml").read_text())
    asked = {
        one["alertname"] for test in tested["tests"] for one in test["alert_rule_test"] if one["exp_alerts"]
    }
    assert asked == {rule["alert"] for rule in rules()}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool: tests/install-debian-packages.sh")
@pytest.mark.parametrize("words", [("check", "rules", "loupe-alerts.yaml"), ("test", "rules", "tests.yaml")])
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
