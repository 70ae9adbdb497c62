"""Everything inside the Ray cluster: from frames on Kafka to verdicts on Kafka (arrows 1-3), and `Inspect`.

In: `loupe.frames` (group `loupe-stream`), and images by gRPC; what is hosted and which camera goes where
    comes as `user_config` from `services.hosting`, models and claim checks from the object store.
Out: `loupe.inspections`, `loupe.frames.dlq`, shed frames on `loupe.ledger`; kept pixels in the object
    store, by the route's policy, before the verdict is published.
Order: per camera, within a project. Frames that are delivered again may come late; readers go by the
    sequence.
Guarantee: at least once. Verdict, dead letter and ledger entry are acknowledged before the offset is
    committed, offsets without gaps. A frame is refused for what it is, never because a server is away.
    One verdict of a frame counts, live or canary; shadows are recorded where they can be, and no verdict
    waits for them.
Back-pressure: frames in flight are bounded in number and bytes; beyond that partitions are paused and
    Kafka keeps the rest. While nothing is hosted, frames wait there, too. The gateway refuses calls
    beyond its limit at once.
Stops on: a flood of poison (more than half of the last 1000 frames, 200 at least); Serve starts a new
    replica, which goes on behind what was quarantined. Also where Kafka does not take the largest record.

Read `stream` (the flow), `judging` (what may happen to a batch), `inspector` (the core), then `triton`
and `model_watch` (health and versions). `app` wires it all and is all that Ray Serve imports.
"""
