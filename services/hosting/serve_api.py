"""Ray Serve's REST door on the head: read what is applied, put the whole configuration (arrow 7).

Blocking. Only `PUT` and `GET` of `/api/serve/applications/`; knows nothing of projects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import httpx

from services.domain.errors import BadSettings, ModelUnavailable, Rejected

_PATH = "/api/serve/applications/"
_GET_TIMEOUT_S = 10.0
# The first PUT starts Serve's controller and proxies, which took up to 9 s on two busy cores.
_PUT_TIMEOUT_S = 60.0


class ServeApi(Protocol):
    """What the reconciler needs of Ray Serve."""

    def details(self) -> dict[str, Any]:
        """Return Serve's description of itself.

        Raises:
            ModelUnavailable: the head does not answer.
        """
        ...

    def put(self, config: dict[str, Any]) -> None:
        """Replace the whole configuration; returns when Serve took it, not when it is reached.

        Raises:
            ModelUnavailable: the head does not answer.
            Rejected: it does not take such a configuration.
        """
        ...


class RestServeApi:
    """The real thing."""

    def __init__(self, dashboard_url: str, token_path: Path | None) -> None:
        """Talk to the head at `dashboard_url`; the token is read at each call, since it may be renewed."""
        self._token_path = token_path
        # No proxy of the environment may see the token.
        self._client = httpx.Client(base_url=dashboard_url, trust_env=False)

    def details(self) -> dict[str, Any]:
        """See `ServeApi.details`."""
        found: dict[str, Any] = self._call("GET", None, _GET_TIMEOUT_S).json()
        return found

    def put(self, config: dict[str, Any]) -> None:
        """See `ServeApi.put`."""
        self._call("PUT", config, _PUT_TIMEOUT_S)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _call(self, method: str, body: dict[str, Any] | None, timeout_s: float) -> httpx.Response:
        try:
            response = self._client.request(
                method, _PATH, json=body, headers=self._headers(), timeout=timeout_s
            )
        except (httpx.HTTPError, OSError) as error:
            message = f"Ray's head does not answer at {self._client.base_url}: {error!r}."
            raise ModelUnavailable(message) from error
        if response.status_code == 200:
            return response
        said = " ".join(response.text.split())[:500]
        if response.status_code == 400:
            raise Rejected(f"Ray Serve does not take the configuration: {said}")
        raise ModelUnavailable(f"Ray's head answered {response.status_code}: {said}")

    def _headers(self) -> dict[str, str]:
        if self._token_path is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._token_path.read_text().strip()}"}
        except OSError as error:
            message = f"The token for Ray's head cannot be read from {self._token_path}: {error.strerror}."
            raise BadSettings(message) from error
