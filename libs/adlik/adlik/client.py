"""The client: every question that can be asked of a mesh, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx
import numpy as np

from adlik import oip
from adlik.errors import AdlikError, ConnectionFailed
from adlik.records import Change, Jobs, Model, ModelVersion, Pushed, Release, Replica, Trace
from adlik.settings import default_url
from adlik.wire import from_json

PUSH_ATTEMPTS = 5
_IDLE_SECONDS = 30.0  # the gateway sends a comment every 10 s


class Client:
    """Talks to one mesh.

    Args:
        url: The gateway's HTTP address; by default ADLIK_URL, else that of a local `adlik up`.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, url: str | None = None, *, timeout: float = 300.0) -> None:
        self.url = (url or default_url()).rstrip("/")
        limits = httpx.Timeout(timeout, connect=5.0)
        self._http = httpx.Client(base_url=self.url, timeout=limits, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def push(
        self,
        name: str,
        model: str | Path,
        *,
        samples: str | Path | None = None,
        plan: Mapping[str, Any] | None = None,
    ) -> Pushed:
        """Pushes a model file and returns its version; the same file and plan give the same one.

        Weights that the model keeps in other files are found beside it. A lost connection is tried
        again: pushing twice does no harm.

        Args:
            name: The model's name.
            model: ONNX file.
            samples: NPZ archive: one array per input (first axis: samples), optionally `labels`.
            plan: Recipes, targets and limits, as in docs/plans.md.

        Raises:
            AdlikError: The mesh refused it.
            ConnectionFailed: Nothing answered.
        """
        external: list[str] = []
        for attempt in range(PUSH_ATTEMPTS):
            try:
                return self._push(name, Path(model), samples, plan, external)
            except AdlikError as error:
                missing = error.details.get("files", "").split(",")
                if error.code == "MISSING_EXTERNAL_DATA" and not external:
                    external = [f for f in missing if (Path(model).parent / f).is_file()]
                    if len(external) == len(missing):
                        continue
                if not error.retryable or attempt == PUSH_ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _push(
        self,
        name: str,
        model: Path,
        samples: str | Path | None,
        plan: Mapping[str, Any] | None,
        external: Sequence[str],
    ) -> Pushed:
        with ExitStack() as stack:

            def opened(path: Path) -> BinaryIO:
                try:
                    return stack.enter_context(path.open("rb"))
                except OSError as error:
                    raise AdlikError(
                        "FILE_NOT_READABLE", f"'{path}' can't be read: {error.strerror}."
                    ) from error

            files: list[tuple[str, Any]] = []
            if plan:
                files.append(("plan", (None, json.dumps(plan).encode())))
            files.append(("model", (model.name, opened(model))))
            if samples is not None:
                files.append(("samples", (Path(samples).name, opened(Path(samples)))))
            files += [("external", (f, opened(model.parent / f))) for f in external]
            path = f"/v1/models/{_quoted(name)}/versions"
            return from_json(Pushed, self._json("POST", path, files=files))

    def infer(
        self,
        name: str,
        inputs: Mapping[str, np.ndarray],
        *,
        outputs: Sequence[str] = (),
        version: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a model and returns its outputs by name.

        Args:
            name: The model.
            inputs: Arrays by input name, with the batch as first axis where the model has one.
            outputs: Wanted outputs; empty: all.
            version: A certain version; by default whatever is released.
        """
        body, json_length = oip.encode(inputs, outputs)
        path = f"/v2/models/{_quoted(name)}"
        path += f"/versions/{version}/infer" if version else "/infer"
        response = self._send(
            "POST", path, content=body, headers={oip.JSON_LENGTH_HEADER: str(json_length)}
        )
        length = response.headers.get(oip.JSON_LENGTH_HEADER)
        return oip.decode(response.content, int(length) if length else None)

    def metadata(self, name: str) -> dict[str, Any]:
        """Returns a served model's inputs and outputs, in the protocol's form."""
        return dict(self._json("GET", f"/v2/models/{_quoted(name)}"))

    def ready(self) -> bool:
        """Says whether the mesh takes inferences."""
        try:
            return self._http.get("/v2/health/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def models(self) -> list[Model]:
        """Returns all models."""
        return [from_json(Model, m) for m in self._json("GET", "/v1/models").get("models", [])]

    def model(self, name: str) -> Model:
        """Returns a model with its versions, variants and release."""
        return from_json(Model, self._json("GET", f"/v1/models/{_quoted(name)}"))

    def version(self, name: str, version: int = 0) -> ModelVersion:
        """Returns a version, the newest for 0."""
        path = f"/v1/models/{_quoted(name)}/versions/{version}"
        return from_json(ModelVersion, self._json("GET", path))

    def delete(self, name: str) -> None:
        """Deletes a model and all its versions."""
        self._json("DELETE", f"/v1/models/{_quoted(name)}")

    def release(self, name: str, variant: str, version: int = 0) -> Release:
        """Serves a chosen variant, until a newer version is pushed."""
        body = {"version": version, "variant": variant}
        return from_json(
            Release, self._json("POST", f"/v1/models/{_quoted(name)}/release", json=body)
        )

    def rollback(self, name: str) -> Release:
        """Serves again what was served before."""
        return from_json(Release, self._json("POST", f"/v1/models/{_quoted(name)}/rollback"))

    def replicas(self) -> list[Replica]:
        """Returns every running service process."""
        found = self._json("GET", "/v1/replicas").get("replicas", [])
        return [from_json(Replica, replica) for replica in found]

    def jobs(self) -> Jobs:
        """Returns what waits, runs and was given up."""
        return from_json(Jobs, self._json("GET", "/v1/jobs"))

    def trace(
        self, trace_id: str | None = None, *, model: str | None = None, last: bool = False
    ) -> Trace:
        """Returns a trace by id, of a model's newest push, or of the last recorded inference."""
        if trace_id:
            return from_json(Trace, self._json("GET", f"/v1/traces/{_quoted(trace_id)}"))
        query = {"last": "inference"} if last else {"model": model or ""}
        return from_json(Trace, self._json("GET", "/v1/traces", params=query))

    def download(self, name: str, version: int, variant: str, target: Path) -> None:
        """Writes a variant's compiled model to a file."""
        path = f"/v1/models/{_quoted(name)}/versions/{version}/variants/{variant}/artifact"
        with self._http.stream("GET", path) as response, target.open("wb") as file:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _error(response)
            for chunk in response.iter_bytes():
                file.write(chunk)

    def watch(self, name: str | None = None, *, timeout: float | None = None) -> Iterator[Change]:
        """Yields the current state, then every change; goes on after a lost connection.

        Args:
            name: One model; by default all.
            timeout: Seconds after which it ends with `ConnectionFailed` or a time-out error.
        """
        give_up = time.monotonic() + timeout if timeout else None
        while True:
            try:
                yield from self._changes(name, give_up)
            except httpx.HTTPError as error:
                if give_up is None or time.monotonic() > give_up:
                    raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error
            except AdlikError as error:  # e.g. the gateway stops and will start again
                if not error.retryable or give_up is None or time.monotonic() > give_up:
                    raise
            time.sleep(0.3)

    def _changes(self, name: str | None, give_up: float | None) -> Iterator[Change]:
        query = {"name": name} if name else {}
        limits = httpx.Timeout(_IDLE_SECONDS)
        with self._http.stream("GET", "/v1/watch", params=query, timeout=limits) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise _error(response)
            event = ""
            for line in response.iter_lines():
                if give_up is not None and time.monotonic() > give_up:
                    raise AdlikError("DEADLINE_EXCEEDED", "It took longer than the time-out.")
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    said = json.loads(line.removeprefix("data: "))
                    if event == "Error":
                        raise _said(said)
                    yield from_json(Change, said)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._send(method, path, **options).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error
        if response.is_error:
            raise _error(response)
        return response


def _error(response: httpx.Response) -> AdlikError:
    try:
        return _said(response.json())
    except (ValueError, KeyError, TypeError):
        return AdlikError(
            "UNEXPECTED_ANSWER",
            f"{response.url} answered {response.status_code} {response.reason_phrase}.",
            "Is this the HTTP address of an Adlik gateway?",
        )


def _said(body: Mapping[str, Any]) -> AdlikError:
    return AdlikError(
        body["code"],
        body["message"],
        body["cure"],
        retryable=body["retryable"],
        details=body["details"],
    )


def _quoted(name: str) -> str:
    return quote(name, safe="")
