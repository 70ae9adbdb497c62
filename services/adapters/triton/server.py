"""tritonserver by gRPC. On loopback only: whoever can load models can run code there."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from services.adapters.triton.regions import Region, forget_regions
from services.domain.errors import CorruptModel, ModelUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Loading starts a Python process and opens the graph: 1.3-1.7 s idle, several times that on a busy machine.
LOAD_TIMEOUT_S = 60.0
CONTROL_TIMEOUT_S = 5.0
_CHANNEL = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits up to two minutes before it tries a restarted server again; promise P6 gives us 5 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # The server is on loopback, whatever proxy the user's shell names.
    ("grpc.enable_http_proxy", 0),
)
# One image is as fast by gRPC, and canaries are of one.
_SHARED_ABOVE_BYTES = 1 << 18
# Everything else that a load may answer is about the model.
_SERVER_IS_AWAY = frozenset(
    {"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}
)


class TritonServer:
    """See `ModelServer`. One gRPC client per thread, because the library's is not for several."""

    def __init__(self, address: str) -> None:
        """Use the server at `address` (host:port); connects with the first call."""
        self._address = address
        self._local = threading.local()
        self._clients: list[Any] = []
        self._regions: dict[str, list[Region]] = defaultdict(list)
        self._shares_memory = True
        self._lock = threading.Lock()

    def is_live(self) -> bool:
        """See `ModelServer.is_live`."""
        try:
            return bool(self._client().is_server_live(client_timeout=CONTROL_TIMEOUT_S))
        except InferenceServerException:
            return False

    def load(self, name: str) -> None:
        """See `ModelServer.load`."""
        try:
            self._client().load_model(name, client_timeout=LOAD_TIMEOUT_S)
        except InferenceServerException as error:
            if error.status() in _SERVER_IS_AWAY:
                raise _unavailable(name, error) from error
            message = f"Triton cannot load {name}: {error.message()}"
            raise CorruptModel(message, model=name) from error

    def unload(self, name: str) -> None:
        """See `ModelServer.unload`."""
        self._call(name, lambda client: client.unload_model(name, client_timeout=CONTROL_TIMEOUT_S))
        with self._lock:
            self._regions.pop(name, None)
        self._call(name, lambda client: forget_regions(client, name))

    def loaded(self) -> frozenset[str]:
        """See `ModelServer.loaded`."""
        index = self._call(
            "index", lambda client: client.get_model_repository_index(client_timeout=CONTROL_TIMEOUT_S)
        )
        return frozenset(model.name for model in index.models if model.state == "READY")

    def infer(
        self,
        name: str,
        *,
        input_name: str,
        batch: NDArray[np.uint8],
        outputs: Sequence[str],
        timeout_s: float,
    ) -> tuple[NDArray[np.float32], ...]:
        """See `ModelServer.infer`."""
        tensor = triton_grpc.InferInput(input_name, batch.shape, np_to_triton_dtype(batch.dtype))
        region = self._region_for(name, batch)
        if region is None:
            tensor.set_data_from_numpy(batch)
        else:
            region.write(batch)
            tensor.set_shared_memory(region.name, batch.nbytes)
        answer = self._call(
            name,
            lambda client: client.infer(
                name,
                [tensor],
                outputs=[triton_grpc.InferRequestedOutput(output) for output in outputs],
                client_timeout=timeout_s,
                # The server, too, drops what nobody waits for any more.
                timeout=int(timeout_s * 1e6),
            ),
        )
        # Not after a failure: the server may have forgotten the region, or may be reading it still.
        if region is not None:
            with self._lock:
                self._regions[name].append(region)
        return tuple(_whole(answer, name, output, len(batch)) for output in outputs)

    def _region_for(self, name: str, batch: NDArray[np.uint8]) -> Region | None:
        """Return a region that nobody uses and that holds the batch, None to send it by gRPC."""
        if not self._shares_memory or batch.nbytes < _SHARED_ABOVE_BYTES:
            return None
        with self._lock:
            free = self._regions[name]
            fitting = next((region for region in free if region.size_bytes >= batch.nbytes), None)
            if fitting is not None:
                free.remove(fitting)
                return fitting
        try:
            # Powers of two, so that a few regions serve batches of every size.
            return Region(self._client(), name, 1 << (batch.nbytes - 1).bit_length())
        except OSError as error:
            self._shares_memory = False
            logger.warning("batches go to Triton by gRPC, there is no shared memory: %s", error)
        except InferenceServerException as error:
            if error.status() in _SERVER_IS_AWAY:
                raise _unavailable(name, error) from error
            self._shares_memory = False
            logger.warning("batches go to Triton by gRPC, it sees no shared memory: %s", error.message())
        return None

    def close(self) -> None:
        """See `ModelServer.close`."""
        with self._lock:
            for client in self._clients:
                client.close()
            self._clients.clear()

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            client = triton_grpc.InferenceServerClient(self._address, channel_args=list(_CHANNEL))
            self._local.client = client
            with self._lock:
                self._clients.append(client)
        return client

    def _call(self, name: str, call: Callable[[Any], T]) -> T:
        try:
            return call(self._client())
        except InferenceServerException as error:
            raise _unavailable(name, error) from error


def _unavailable(name: str, error: InferenceServerException) -> ModelUnavailable:
    message = f"Triton did not answer for {name}: {error.message()}"
    return ModelUnavailable(message, model=name, status=error.status())


def _whole(answer: Any, name: str, output: str, count: int) -> NDArray[np.float32]:
    """Return one output; a Python backend under the wrong numpy sends shapes without data."""
    try:
        array = answer.as_numpy(output)
    except ValueError:  # fewer bytes than the shape says
        array = None
    if array is None or array.shape[:1] != (count,):
        message = f"Triton's answer for {name} lacks data of {output}."
        raise ModelUnavailable(message, model=name, output=output)
    return np.asarray(array, np.float32)
