"""tritonserver by gRPC. On loopback only: whoever can load models can run code there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from services.domain.errors import CorruptModel, ModelUnavailable

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
        tensor.set_data_from_numpy(batch)
        wanted = [triton_grpc.InferRequestedOutput(output) for output in outputs]
        answer = self._call(
            name,
            lambda client: client.infer(
                name,
                [tensor],
                outputs=wanted,
                client_timeout=timeout_s,
                # The server, too, drops what nobody waits for any more.
                timeout=int(timeout_s * 1e6),
            ),
        )
        return tuple(_whole(answer, name, output, len(batch)) for output in outputs)

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
