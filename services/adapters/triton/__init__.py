"""Running models in a model server that holds them by name.

`protocol` says what callers may rely on, `server` is tritonserver by gRPC, `memory` the fake for
tests, with tritonserver's habits.
"""

from services.adapters.triton.protocol import ModelServer

__all__ = ["ModelServer"]
