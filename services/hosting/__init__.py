"""Hosting: which model version serves with how many inference units, made true on Ray Serve (arrow 7).

In: `loupe.models` (group `loupe-hosting`); at start also versions that were registered while nobody
    listened.
Out: the tables `hostings` and `routes` (read), the whole declarative configuration of Ray Serve, and
    the status that came of it, back in `hostings`.
Order: per project; the newest version wins, an older one that is announced late changes nothing.
Guarantee: at least once in; the desired state is in the database before the offset is committed. There
    is one writer of the configuration, this process, and it converges again after any failure of Ray.
Back-pressure: one announcement at a time; the rest waits in Kafka. While Ray is away, it is asked with
    growing pauses.
Stops on: bad settings.

Why `PUT` of the whole configuration and never `serve.run`: `serve.run` restarts every replica of the
application it is given, so a changed number of units or a new model version would be a gap. The
declarative configuration changes bounds and `user_config` of living replicas in place.
"""
