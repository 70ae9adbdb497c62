"""What Loupe talks about, in pure Python: no library, no clock, no I/O.

Read `frame`, `inspection`, `ledger` first; `errors` is the map of everything that can go wrong,
`topics` and `metrics` are the only lists of their names.
"""
