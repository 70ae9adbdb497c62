"""The trainer: what people say of images becomes better models.

In: `loupe.labels` (arrow 5) and `loupe.training` (arrow 6), protobuf or JSON; group `loupe-trainer`.
    Projects with a policy ask on `loupe.training` by themselves.
Out: dataset entries with pixels in the object store, and every dataset that a training saw under its
    digest; model versions in object store and database, those promoted announced on `loupe.models`;
    jobs with their progress; what cannot be handled on `<topic>.dlq`.
Order: per project; both topics have one partition and are read record by record. A later label of an
    entry wins by its own time, in whatever order labels arrive.
Guarantee: at least once in, idempotent by entry id and training id. A version is announced after its
    upload and its row, and acknowledged last: a kill at any point ends in the same version set, never
    in half a model. A fit runs in a process of its own, or on Ray; a cancelled one publishes nothing.
Back-pressure: one record of each topic at a time; the rest waits in Kafka. A fit that would not fit
    into memory is refused before it starts. While Kafka, the object
    store or the database are away it waits, with growing pauses, and goes on by itself.
Stops on: too large a share of refused labels, a database that does not fit, bad settings.
"""
