"""Conventions that ruff, mypy and import-linter cannot keep: sizes, contracts, units, the flow table."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.domain.topics import DEAD_LETTERS, TOPICS

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "services" / "wire" / "gen"
PIPELINES = ("services.ingest", "services.results", "services.trainer", "services.hosting", "serve")
CONTRACT = ("In:", "Out:", "Order:", "Guarantee:", "Back-pressure:")
UNITS = (
    "_s",
    "_ms",
    "_bytes",
    "_px",
    "_ratio",
    "_mb",
    "_fps",
    "port",
    "units",
    "count",
    "frames",
    "records",
    "cameras",
)


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if not path.is_relative_to(GENERATED)]


@pytest.mark.parametrize("path", sources("services", "serve", "tests", "loadtest", "proto"), ids=str)
def test_no_file_is_longer_than_600_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


@pytest.mark.parametrize("path", sources("services", "serve"), ids=str)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "a module docstring is missing"


@pytest.mark.parametrize("package", PIPELINES)
def test_a_pipeline_package_states_its_contract(package: str) -> None:
    docstring = importlib.import_module(package).__doc__ or ""
    for heading in CONTRACT:
        assert heading in docstring, heading


def test_folders_have_names_that_say_something() -> None:
    forbidden = {"common", "utils", "helpers", "core", "misc", "manager"}
    for path in sources("services", "serve", "tests", "loadtest"):
        assert not forbidden & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}, path


@pytest.mark.parametrize("path", sorted(ROOT.glob("s*/**/settings.py")), ids=str)
def test_numbers_in_settings_name_their_unit(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if ast.unparse(node.annotation) in {"int", "float"}:
            assert node.target.id.endswith(UNITS), f"{node.target.id} has no unit"


@pytest.mark.parametrize("topic", [t for t in TOPICS if t not in DEAD_LETTERS], ids=lambda t: t.name)
def test_the_flow_table_of_the_readme_names_every_topic_with_its_files(topic: object) -> None:
    from services.domain.topics import Topic

    assert isinstance(topic, Topic)
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if f"`{topic.name}`" in line]
    table = "\n".join(line for line in rows if line.startswith("|"))
    for path in (*topic.written_in, *topic.read_in):
        assert path in table, f"{topic.name}: {path} is not in its row"
        assert path == "anyone" or (ROOT / path).is_file(), f"{path} does not exist"


def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    made = tmp_path / "gen"
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", made], check=True)
    now = {p.relative_to(made): p.read_bytes() for p in made.rglob("*.py*") if "__pycache__" not in p.parts}
    kept = {
        p.relative_to(GENERATED): p.read_bytes()
        for p in GENERATED.rglob("*.py*")
        if "__pycache__" not in p.parts
    }
    assert now == kept, "run `make generate`"


def test_the_lock_has_hashes_and_no_index_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "--hash=sha256:" in lock
    assert not re.search(r"https?://|--index|--find-links|--extra-index", lock)


@pytest.mark.parametrize("module", ["services.cli.main", "serve.stream", "services.vision.decode"])
def test_importing_does_not_pull_in_torch_or_ray(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'ray', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
