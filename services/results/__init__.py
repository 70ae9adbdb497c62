"""The results service: verdicts become rows, events, metrics and a live view (arrows 4 and 8).

In: `loupe.inspections`, `loupe.ledger` and `loupe.frames.dlq`, in batches; groups `loupe-results`,
    `loupe-results-ledger` and `loupe-results-dlq`, from the earliest record on.
Out: rows of the database, `loupe.events` (CloudEvents JSON), metrics on LOUPE_RESULTS_PORT, a live view in
    Redis, and `<topic>.dlq` for records that cannot be read or stored. Pixels whose time has run out are
    deleted from the object store (`retention`).
Order: per camera, as on the topic; a batch is stored, then published, then counted, then shown.
Guarantee: at least once, committed last. One batch is one database transaction; the first write of an
    inspection wins, and events (of the stored row, with ids that never change) go out for every live row of
    a batch, known ones too. So nothing is lost and nothing counted twice, wherever the process dies.
Back-pressure: one batch of a topic at a time. While database or broker are away the batch waits, with
    growing pauses, and the lag stays in Kafka. Redis is never waited for. A flood of poison stops it all.
"""
