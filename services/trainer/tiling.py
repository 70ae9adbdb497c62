"""One backbone over a picture larger than its input: overlapping tiles, blended feature maps (arrow 6).

A picture is cut into n x n tiles of the backbone's own size; they run as one batch, and their features
are put back into one map, weighted so that the shares of the tiles that see a cell sum to one. Heads see
one map as without tiles. Everything happens inside the graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from services.domain.errors import BadRequest
from services.domain.model_version import MAX_TILES
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.graph_builder import GraphBuilder

PIXELS = "pixels"
# Two cells of stride 16: enough to fade from one tile to the next, 15 % of the arithmetic at 224 px.
OVERLAP_PX = 32


def tiled_px(tile_px: int, tiles: int) -> int:
    """Return the side of the picture that `tiles` x `tiles` tiles cover.

    >>> tiled_px(224, 1), tiled_px(224, 2)
    (224, 416)
    """
    return tiles * tile_px - (tiles - 1) * OVERLAP_PX


def check_tiles(tiles: int) -> None:
    """Refuse a number of tiles that makes no sense.

    Raises:
        BadRequest: not 1 to 4.
    """
    if not 1 <= tiles <= MAX_TILES:
        message = f"{tiles} tiles along each side make no sense; give 1 to {MAX_TILES}."
        raise BadRequest(message, tiles=tiles)


def draw_backbone(backbone: BackboneFile, tiles: int = 1) -> tuple[GraphBuilder, dict[str, str]]:
    """Draw the backbone over the whole picture.

    Returns:
        The pen, with the input `pixels` (N, S, S, 3), S = `tiled_px`; and the names of the tensors
        behind each tap (N, C, S / stride, S / stride) and behind `pixels`.
    """
    model = onnx.load_model_from_string(backbone.model)
    names = [output.name for output in model.graph.output]
    if tiles == 1:
        return GraphBuilder.continuing(model), {name: name for name in [*names, PIXELS]}
    draw = GraphBuilder()
    side_px = tiled_px(backbone.input_px, tiles)
    draw.input(PIXELS, TensorProto.UINT8, ["N", side_px, side_px, 3])
    renamed = {name: f"{name}_of_tiles" for name in names}
    renamed[PIXELS] = _draw_cut(draw, backbone.input_px, tiles)
    _rename(model.graph, renamed)
    draw.include(model)
    for output in model.graph.output:
        _, channels, grid, _ = (axis.dim_value for axis in output.type.tensor_type.shape.dim)
        places = placement(grid, OVERLAP_PX * grid // backbone.input_px, tiles)
        _draw_blended(draw, output.name, renamed[output.name], (tiles, channels, grid), places)
    return draw, {name: name for name in [*names, PIXELS]}


def placement(grid: int, overlap: int, tiles: int) -> NDArray[np.float32]:
    """Return (G, tiles * grid): where the cells of a row of tiles go, and with which weight.

    Each tile fades in over the inner half of the `overlap` cells that it shares with the one before, as that
    one fades out: cells next to a tile's border saw the zeros beyond it, so they count nothing. Every row
    sums to one.
    """
    step = grid - overlap
    matrix = np.zeros((step * tiles + overlap, tiles * grid), np.float32)
    rising = np.clip(2 * (np.arange(overlap) + 0.5) / max(overlap, 1) - 0.5, 0, 1)
    cells = np.arange(grid)
    for tile in range(tiles):
        weights = np.ones(grid)
        if tile > 0:
            weights[:overlap] = rising
        if tile < tiles - 1:
            weights[step:] = 1 - rising
        matrix[tile * step + cells, tile * grid + cells] = weights
    return matrix


def _draw_cut(draw: GraphBuilder, tile_px: int, tiles: int) -> str:
    """Draw (tiles * tiles * N, P, P, 3): all first tiles, all second ones, row by row."""
    starts = [index * (tile_px - OVERLAP_PX) for index in range(tiles)]
    axes = draw.constant(np.array([1, 2]), "tile_axes")
    parts = []
    for top in starts:
        for left in starts:
            begin = draw.constant(np.array([top, left]), "tile_begin")
            end = draw.constant(np.array([top + tile_px, left + tile_px]), "tile_end")
            parts.append(draw.add("Slice", PIXELS, begin, end, axes, name=f"tile_{top}_{left}"))
    return draw.add("Concat", *parts, name="tiles", axis=0)


def _draw_blended(
    draw: GraphBuilder, name: str, tensor: str, sizes: tuple[int, int, int], places: NDArray[np.float32]
) -> None:
    """Draw `name`, the map (N, C, G, G) of features (tiles * tiles * N, C, g, g); sizes: tiles, C, g."""
    tiles, channels, grid = sizes
    apart = draw.constant(np.array([tiles, tiles, -1, channels, grid, grid]), "tiles_apart")
    in_rows = draw.add("Transpose", draw.add("Reshape", tensor, apart), perm=[2, 3, 0, 4, 1, 5])
    joined = draw.constant(np.array([-1, channels, tiles * grid, tiles * grid]), "tiles_joined")
    cells = draw.add("Reshape", in_rows, joined)
    down = draw.add("MatMul", draw.constant(places, "placement"), cells)
    draw.add("MatMul", down, draw.constant(places.T, "placement"), name=name)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Call some of the graph's tensors otherwise, in place; graphs inside of nodes never read them."""
    for node in graph.node:
        node.name = names.get(node.name, node.name)  # unique, too
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
