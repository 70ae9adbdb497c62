"""The synthetic line: seeded pictures of parts on a belt, with planted defects and their masks (arrow 1).

`line` composes frames, `parts` draws what the line makes, `defects` damages it, `surface` and `shapes`
are the brushes. Films nothing and sends nothing: `services.ingest.sources` and the load generator do.
"""

from services.ingest.synthetic.defects import DEFECTS
from services.ingest.synthetic.line import SyntheticLine, SyntheticPart, write_folder
from services.ingest.synthetic.parts import KINDS

__all__ = ["DEFECTS", "KINDS", "SyntheticLine", "SyntheticPart", "write_folder"]
