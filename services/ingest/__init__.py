"""Ingest: turns what a camera shows into records on `loupe.frames` (arrow 1). One process, a thread a camera.

In: a source: a folder of images (once, in a loop, or watched for new files), or the synthetic line.
Out: `loupe.frames` (the encoded image as it is) and `loupe.ledger` (captured and shed sequences, arrow 8).
Order: per camera; sequences are dense from 0 within the run's epoch, and Kafka keeps them by key.
Guarantee: at least once. Every captured frame is acknowledged by Kafka or declared shed with a reason.
Back-pressure: what is on its way is bounded in frames and bytes; when full, the source waits and the
schedule begins anew after it. Frames are held in memory; those that the producer gives up (its delivery
timeout passed) are declared shed, `broker-unavailable`. SIGTERM stops it: flush, declare, leave.
"""
