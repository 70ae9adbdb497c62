"""A model folder in the layout of Triton's repository: graph, `model.py` and configuration (arrow 2).

Used by the replicas and by the trainer's own server, so that what is proved before a promotion is what
serves after it. Loads nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template

from services.domain.model_version import Manifest, TensorSpec, Variant

_TEMPLATE = Path(__file__).parent / "python_backend"
_GRAPH_FILE = "model.onnx"
_TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def write_model(place: Path, version: Path, manifest: Manifest, variant: Variant, threads: int) -> None:
    """Write one variant of a version to `place`, whose name is the model's, for the Python backend.

    Args:
        place: folder of the model in the repository; made if it is not there, and its graph replaced if so.
        version: a verified model folder.
        manifest: its manifest.
        variant: which of its graphs, see `services.vision.variants`.
        threads: CPU threads for the graph.
    """
    inside = place / "1"
    inside.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_TEMPLATE / "model.py", inside / "model.py")
    graph = inside / _GRAPH_FILE
    graph.unlink(missing_ok=True)
    try:
        graph.hardlink_to(version / variant.file)
    except OSError:  # another file system
        shutil.copyfile(version / variant.file, graph)
    (place / "config.pbtxt").write_text(config_of(place.name, manifest, threads))


def config_of(name: str, manifest: Manifest, threads: int) -> str:
    """Return Triton's configuration of a version: tensors as in its manifest, one instance."""
    tensors = (_tensors_text("input", manifest.inputs), _tensors_text("output", manifest.outputs))
    template = Template((_TEMPLATE / "config.pbtxt").read_text())
    return template.substitute(name=name, threads=threads, tensors="\n".join(tensors))


def _tensors_text(kind: str, specs: tuple[TensorSpec, ...]) -> str:
    inside = ", ".join(
        f'{{ name: "{s.name}" data_type: {_TRITON_TYPES[s.dtype]} dims: {list(s.shape)} }}' for s in specs
    )
    return f"{kind} [ {inside} ]"
