"""The one-machine stack that `loupe up` runs: real parts, as an ordinary user, under `supervisord`.

Read `stack` (what callers use), then `programs` (every process as data), then `parts` (what set-up
installs). Nothing here knows frames or verdicts; processes meet only on the addresses given to them.
"""
