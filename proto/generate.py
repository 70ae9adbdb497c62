"""Generate `services/wire/gen` from `proto/`: `make generate`; a test in `tests/repo` holds the result.

Plain protoc output, but for imports: `loupe.v1` is not on the path, `services.wire.gen.loupe.v1` is.
Usage: `python proto/generate.py [DESTINATION]`.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
DESTINATION = PROTO.parent / "services" / "wire" / "gen"
BIN = Path(sys.executable).parent
_FOREIGN_IMPORT = re.compile(r"^(from|import) loupe\.v1", re.MULTILINE)
_HAS_SERVICE = re.compile(r"^service ", re.MULTILINE)


def generate(destination: Path) -> None:
    """Write all generated modules under `destination`, replacing what is there.

    Raises:
        SystemExit: protoc refused a file; it has printed why.
    """
    sources = sorted(PROTO.glob("loupe/v1/*.proto"))
    google_include = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as scratch:
        # The plug-ins lie beside this Python, which need not be on the path.
        plugins = [
            f"--plugin=protoc-gen-{name}={BIN / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")
        ]
        flags = ["protoc", f"-I{PROTO}", f"-I{google_include}", *plugins]
        every = [f"--python_out={scratch}", f"--mypy_out=quiet:{scratch}"]
        if code := protoc.main([*flags, *every, *map(str, sources)]):
            raise SystemExit(code)
        serving = [str(p) for p in sources if _HAS_SERVICE.search(p.read_text())]
        grpc = [f"--grpc_python_out={scratch}", f"--mypy_grpc_out=quiet:{scratch}"]
        if code := protoc.main([*flags, *grpc, *serving]):
            raise SystemExit(code)
        shutil.rmtree(destination, ignore_errors=True)
        for made in sorted(Path(scratch).rglob("*.py*")):
            target = destination / made.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = made.read_text()
            text = _FOREIGN_IMPORT.sub(r"\1 services.wire.gen.loupe.v1", text)
            target.write_text(text.replace(" loupe.v1.", " services.wire.gen.loupe.v1."))
    for folder in (destination, destination / "loupe", destination / "loupe" / "v1"):
        (folder / "__init__.py").write_text(
            '"""Generated from `proto/` by `make generate`; do not edit."""\n'
        )


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else DESTINATION)
