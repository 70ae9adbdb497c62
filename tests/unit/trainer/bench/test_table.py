"""Records become rows: means over seeds, intervals of photos, protocols apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.trainer.bench.protocols import Protocol
from services.trainer.bench.table import columns_for, markdown, rows_of, sections
from tests.unit.trainer.bench.made import TRIAL, record, with_seed

DOCUMENT = {
    "date": "2026-03-01",
    "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 24.0, "load": 0.5},
    "command": "loupe bench --seeds 0-1",
}


def test_seeds_are_averaged_into_one_row() -> None:
    records = [record(with_seed(0), image_auroc=0.8), record(with_seed(1), image_auroc=1.0)]
    (row,) = rows_of(records)
    assert row.mean("metrics", "image_auroc") == pytest.approx(0.9)
    assert row.seeds == 2


def test_more_seeds_do_not_make_intervals_narrower() -> None:
    one = rows_of([record(recall_ratio=0.8)])[0].interval("recall_ratio")
    ten = rows_of([record(with_seed(seed), recall_ratio=0.8) for seed in range(10)])[0]
    assert ten.interval("recall_ratio") == one == (0.5, 1.0)


def test_two_protocols_never_stand_in_one_table() -> None:
    records = [record(), record(replace(TRIAL, protocol=Protocol.SUPERVISED))]
    titles = [title for title, rows in sections(records) if len(rows) == 1]
    assert [title.split(":")[0] for title in titles] == ["Normals only", "Supervised"]


def test_markdown_names_date_machine_and_command_and_every_figure() -> None:
    made = record(image_auroc=0.9956, aupro=0.93, false_reject_ratio=0.05, recall_ratio=0.95)
    text = markdown({**DOCUMENT, "trials": [made]})
    first, *lines = text.splitlines()
    for told in ("2026-03-01", "A CPU, 2 cores, 24 GiB", "`loupe bench --seeds 0-1`"):
        assert told in first
    heading, _, row = (line for line in lines if line.startswith("|"))
    cells = dict(zip(heading.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    assert cells == {
        "set": "plates",
        "train; test": "8; 6 + 10",
        "families": "auto (memory)",
        "backbone": "default",
        "seeds": "1",
        "image AUROC": ".996",
        "AUPRO": ".930",
        "false rejects": ".05",
        "recall": ".95 [.50–1.00]",
        "fit s": "2.5",
        "ms fp32": "5.0",
        "ms serving": "2.5 int8",
        "MiB": "4.0",
        "peak MiB": "512",
    }


def test_a_configuration_that_cannot_be_is_told_in_a_sentence() -> None:
    failed = {**record(), "reason": "No mask was drawn."}
    text = markdown({**DOCUMENT, "trials": [failed]})
    assert "plates, auto: not possible. No mask was drawn." in text
    assert "|---|" not in text


def test_types_are_told_by_name() -> None:
    made = {**record(), "types": [{"name": "cracked", "f1": 0.9512, "mean_iou": 0.6}]}
    (row,) = rows_of([made])
    cells = {one.name: one.cell(row) for one in columns_for([row])}
    assert cells["type F1 / mean IoU"] == "cracked .951 / .600"
