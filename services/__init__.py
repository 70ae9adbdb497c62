"""Loupe's processes, in the order in which a frame meets them; `serve/` is the Ray cluster between them.

    camera -> ingest -> loupe.frames -> serve -> loupe.inspections -> results -> events, database, metrics
                                          ^                               |
              hosting <- loupe.models <- trainer <- loupe.labels <- people, consoles

- `domain`: what it is all about, pure; `vision`: pixels; `wire`: bytes; `adapters`: the outside world.
- `ingest` (arrows 1, 8), `results` (4, 8), `trainer` (5, 6), `hosting` (7): one process each, which never
  import each other. They meet on topics, in the registry and in `proto/`.
- `embedded`: the one-machine stack that `loupe up` runs, and the demo; `cli`: the `loupe` command.

Read the `pipeline.py` of each in arrow order, with `serve/stream.py` second: that is reading the system.
"""
