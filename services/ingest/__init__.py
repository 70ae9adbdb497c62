"""Ingest: turns what cameras show into records on `loupe.frames` (arrow 1). One process, a thread a camera.

In: sources (`services.ingest.sources`): folders, films, RTSP, USB, HTTP pushes, object stores, triggers.
Out: `loupe.frames` (the encoded image as it is, cropped or scaled, or its claim check) and `loupe.ledger`
(captured and shed sequences as ranges, arrow 8).
Order: per camera. Sequences are dense from 0 within an epoch; epochs of a camera only grow, whatever the
clock does. Frames that are sent a second time come in order again.
Guarantee: at least once from the moment a frame is accepted: it is then on disk, in one transaction with its
sequence, its receipt and what the ledger is to hear (`services.ingest.spool`). Every accepted frame is
acknowledged by Kafka or declared shed with a reason, also when the process dies between any two steps.
A shot is settled (its file moved, its client answered) after that, so what dies before is captured again.
Back-pressure: frames on their way are bounded in number and bytes, those on disk in bytes, a camera by its
share. A full share makes the source wait, or drops by the camera's policy; a full disk makes every source
wait. An object store that is away makes waiting cameras wait and live ones shed after ten seconds.
What stops it: SIGTERM; cameras end, what Kafka does not have stays in the spool and is sent next time.
"""
