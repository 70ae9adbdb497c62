"""A model version as a folder: written whole or not at all (arrow 6).

`model.onnx`, the golden photos, `card.html`, and `manifest.json` with the SHA-256
of all of them. The golden photos let a server prove that it computes the same numbers.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from services.domain.errors import BadRequest
from services.domain.model_version import Manifest
from services.vision.golden import Golden, golden_files
from services.vision.runtime import MANIFEST_FILE
from services.vision.variants import MODEL_FILE
from services.wire.manifest import encode_manifest

CARD_FILE = "card.html"


def write_folder(
    parent: Path,
    manifest: Manifest,
    *,
    model: bytes,
    golden: Golden,
    card: str,
    variants: Mapping[str, bytes] | None = None,
) -> tuple[Path, Manifest]:
    """Write `<parent>/<version>` and return it with the manifest, completed with hashes and size.

    The folder appears by one rename, so a reader sees all of it or nothing. `variants` are the files of
    faster precisions (`services.trainer.precision`), by their places in the folder.

    Raises:
        BadRequest: that version exists; versions never change.
    """
    folder = parent / manifest.version
    contents = {
        MODEL_FILE: model,
        **golden_files(golden),
        **(variants or {}),
        CARD_FILE: card.encode(),
    }
    complete = replace(
        manifest,
        files={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        metrics={**manifest.metrics, "file_bytes": float(len(model))},
    )
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{manifest.version}.", dir=parent))
    try:
        _write_all(temporary, {**contents, MANIFEST_FILE: encode_manifest(complete)})
        temporary.chmod(0o755)  # mkdtemp keeps others out; servers run as other users
        temporary.rename(folder)
    except FileExistsError as error:
        raise version_exists(folder) from error
    except OSError as error:
        if folder.exists():
            raise version_exists(folder) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(temporary)
    return folder, complete


def version_exists(folder: Path) -> BadRequest:
    """Return the error that says so."""
    message = f"{folder} exists already; a model version never changes. Choose another version."
    return BadRequest(message, folder=str(folder))


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
