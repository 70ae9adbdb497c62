"""The main job, end to end, on one machine: fit, film, judge, store, prove, report.

`plan` chooses photos, `run` does the job on a running stack, `watch` reads how far it is, `screen`
shows it, `report` writes it down. Not a test double: every part is the one that production runs.
"""
