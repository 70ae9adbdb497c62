"""Load on a running stack, and what it made of it. Not part of the product's packages.

`generator` sends, `verdicts` reads what was stored, `bare_loop` is the yardstick, `bench_stream` puts
them together. Numbers and how they were taken: `README.md`.
"""
