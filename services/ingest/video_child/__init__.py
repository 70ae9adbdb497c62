"""Reads one film or camera in a process of its own, for `services.ingest.sources.video` (arrow 1).

A hang or a crash in FFmpeg's native code ends this process and no other. `python -m
services.ingest.video_child` takes a `Job` on standard input (never arguments: they would show the
password), then one byte for every picture that it may send; it answers with `messages` on standard
output. It ends when its standard input closes or its parent dies. It is a package of its own, beside
`sources` and not below it: importing that takes 0.3 s and 24 MB, numpy above all, for each camera.
"""
