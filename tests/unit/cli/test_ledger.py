"""What `loupe ledger` prints of balances and of a proof."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from services.cli.ledger_views import bars, print_balances, print_proof
from services.domain.ledger import CameraBalance
from services.results.proof import Proof

A = UUID(int=1)
BALANCED = CameraBalance(10, 7, 1, 2, shed_by_reason={"deadline": 1, "no-route": 1})
LOSSY = CameraBalance(9, 6, 0, 0, missing=(A,), unnamed=2)


def test_balances_show_sheds_by_reason_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    print_balances({"cam-1": BALANCED, "cam-2": LOSSY}, as_json=False)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if not line.startswith("missing")]
    lines = {words[1]: words[:7] for words in rows if len(words) > 1}
    assert lines["captured"] == ["camera", "captured", "judged", "quarantined", "shed", "missing"]
    # A terminal of 80 columns shows every number whole.
    assert lines["cam-1"] == ["✓", "cam-1", "10", "7", "1", "2", "0"]
    assert lines["cam-2"] == ["✗", "cam-2", "9", "6", "0", "0", "3"]
    assert lines["all"] == ["✗", "all", "19", "13", "1", "2", "3"]
    assert "shed: deadline 1," in out
    assert str(A) in out


def test_the_json_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_balances({"cam-2": LOSSY}, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["balanced"] is False
    assert told["cameras"]["cam-2"]["missing"] == [str(A)]
    assert told["cameras"]["cam-2"]["unnamed"] == 2


def test_nothing_captured_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_balances({}, as_json=False)
    assert "No frame" in capsys.readouterr().out


def proof_of(findings: int) -> Proof:
    proof = Proof({"cam-2": LOSSY})
    proof.check("equation").looked_at = 9
    for number in range(findings):
        proof.wrong("equation", "missing", {"camera": "[red]cam", "sequence": number})
    return proof


def test_a_proof_is_a_table_and_the_first_findings(capsys: pytest.CaptureFixture[str]) -> None:
    print_proof(proof_of(30), as_json=False)
    out = capsys.readouterr().out
    assert out.count("missing camera=[red]cam") == 20
    assert "and more: --json names them all" in out
    assert out.rstrip().endswith("not proved")


def test_the_json_of_a_proof_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    print_proof(proof_of(30), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [one["sequence"] for one in told["findings"]] == list(range(30))
    assert told["checks"]["equation"] == {
        "name": "equation", "looked_at": 9, "wrong": 30, "noted": 0, "told": "",
    }  # fmt: skip
    assert told["proved"] is False


def test_an_empty_proof_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    proof = Proof({"cam-1": BALANCED})
    print_proof(proof, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["proved"], told["findings"]) == (True, [])


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as progress:
        progress("pictures", 1, 2)
    assert capsys.readouterr().out == ""
