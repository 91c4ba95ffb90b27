"""The client: every question that can be asked of a mesh, over HTTP."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar
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
# What reading an answer raises that has another form than Adlik's.
_NOT_ADLIKS = (ValueError, LookupError, TypeError, AttributeError, struct.error)

T = TypeVar("T")


class Client:
    """Talks to one mesh.

    Args:
        url: The gateway's HTTP address; by default ADLIK_URL, else that of a local `adlik up`.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, url: str | None = None, *, timeout: float = 300.0) -> None:
        self.url = (url or default_url()).rstrip("/")
        limits = httpx.Timeout(timeout, connect=5.0)
        try:
            self._http = httpx.Client(base_url=self.url, timeout=limits, trust_env=False)
        except httpx.InvalidURL as error:
            raise ConnectionFailed(self.url, str(error)) from error

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
        attempt = 0
        while True:
            try:
                return self._push(name, Path(model), samples, plan, external)
            except AdlikError as error:
                if error.code == "MISSING_EXTERNAL_DATA" and not external:
                    external = _found_beside(Path(model), error.details.get("files", ""))
                    if external:
                        continue
                attempt += 1
                if not error.retryable or attempt == PUSH_ATTEMPTS:
                    raise
                time.sleep(0.1 * 2**attempt)

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
            return self._ask(_reads(Pushed), "POST", path, files=files)

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
        try:
            return oip.decode(response.content, int(length) if length else None)
        except _NOT_ADLIKS as error:
            raise _unexpected(response) from error

    def metadata(self, name: str) -> dict[str, Any]:
        """Returns a served model's inputs and outputs, in the protocol's form."""
        return self._ask(dict, "GET", f"/v2/models/{_quoted(name)}")

    def ready(self) -> bool:
        """Says whether the mesh takes inferences."""
        try:
            return self._http.get("/v2/health/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def models(self) -> list[Model]:
        """Returns all models."""
        return self._ask(_reads_all(Model, "models"), "GET", "/v1/models")

    def model(self, name: str) -> Model:
        """Returns a model with its versions, variants and release."""
        return self._ask(_reads(Model), "GET", f"/v1/models/{_quoted(name)}")

    def version(self, name: str, version: int = 0) -> ModelVersion:
        """Returns a version, the newest for 0."""
        path = f"/v1/models/{_quoted(name)}/versions/{version}"
        return self._ask(_reads(ModelVersion), "GET", path)

    def delete(self, name: str) -> None:
        """Deletes a model and all its versions."""
        self._send("DELETE", f"/v1/models/{_quoted(name)}")

    def release(self, name: str, variant: str, version: int = 0) -> Release:
        """Serves a chosen variant, until a newer version is pushed."""
        body = {"version": version, "variant": variant}
        path = f"/v1/models/{_quoted(name)}/release"
        return self._ask(_reads(Release), "POST", path, json=body)

    def rollback(self, name: str) -> Release:
        """Serves again what was served before."""
        return self._ask(_reads(Release), "POST", f"/v1/models/{_quoted(name)}/rollback")

    def replicas(self) -> list[Replica]:
        """Returns every running service process."""
        return self._ask(_reads_all(Replica, "replicas"), "GET", "/v1/replicas")

    def jobs(self) -> Jobs:
        """Returns what waits, runs and was given up."""
        return self._ask(_reads(Jobs), "GET", "/v1/jobs")

    def trace(
        self, trace_id: str | None = None, *, model: str | None = None, last: bool = False
    ) -> Trace:
        """Returns a trace by id, of a model's newest push, or of the last recorded inference."""
        if trace_id:
            return self._ask(_reads(Trace), "GET", f"/v1/traces/{_quoted(trace_id)}")
        query = {"last": "inference"} if last else {"model": model or ""}
        return self._ask(_reads(Trace), "GET", "/v1/traces", params=query)

    def download(self, name: str, version: int, variant: str, target: Path) -> None:
        """Writes a variant's compiled model to a file."""
        path = f"/v1/models/{_quoted(name)}/versions/{version}/variants/{variant}/artifact"
        try:
            with self._http.stream("GET", path) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _error(response)
                with target.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error

    def watch(self, name: str | None = None, *, timeout: float | None = None) -> Iterator[Change]:
        """Yields the current state, then every change.

        Args:
            name: One model; by default all.
            timeout: Seconds after which it ends with `ConnectionFailed` or a time-out error. Until
                then a lost connection is made again and the state told anew; without a time-out
                losing it ends the watch.
        """
        give_up = time.monotonic() + timeout if timeout else None
        while True:
            try:
                yield from self._changes(name, give_up)
            except AdlikError as error:  # e.g. the gateway stops and will start again
                if not error.retryable or give_up is None or time.monotonic() > give_up:
                    raise
            time.sleep(0.3)

    def _changes(self, name: str | None, give_up: float | None) -> Iterator[Change]:
        query = {"name": name} if name else {}
        limits = httpx.Timeout(_IDLE_SECONDS)
        try:
            with self._http.stream("GET", "/v1/watch", params=query, timeout=limits) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise _error(response)
                yield from _told(response, give_up)
        except httpx.HTTPError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error

    def _ask(self, read: Callable[[Any], T], method: str, path: str, **options: Any) -> T:
        """Returns what `read` makes of the JSON of an answer."""
        response = self._send(method, path, **options)
        try:
            return read(response.json())
        except _NOT_ADLIKS as error:
            raise _unexpected(response) from error

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ConnectionFailed(self.url, str(error) or type(error).__name__) from error
        if not response.is_success:
            raise _error(response)
        return response


def _told(response: httpx.Response, give_up: float | None) -> Iterator[Change]:
    """Yields the changes that a stream of server-sent events tells of."""
    event = ""
    for line in response.iter_lines():
        if give_up is not None and time.monotonic() > give_up:
            raise AdlikError("DEADLINE_EXCEEDED", "It took longer than the time-out.")
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            try:
                said = json.loads(line.removeprefix("data: "))
                change = _said(said) if event == "Error" else from_json(Change, said)
            except _NOT_ADLIKS as error:
                raise _unexpected(response) from error
            if isinstance(change, AdlikError):
                raise change
            yield change


def _found_beside(model: Path, names: str) -> list[str]:
    """Returns the names of a model's weight files if all of them lie beside it, else none."""
    asked = names.split(",")
    for name in asked:
        # The mesh may ask for what lies with the model, not for any other file of this machine.
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not (name and inside and (model.parent / name).is_file()):
            return []
    return asked


def _error(response: httpx.Response) -> AdlikError:
    try:
        return _said(response.json())
    except _NOT_ADLIKS:
        return _unexpected(response)


def _unexpected(response: httpx.Response) -> AdlikError:
    return AdlikError(
        "UNEXPECTED_ANSWER",
        f"{response.url} answered {response.status_code} {response.reason_phrase}, "
        "in a form that is not Adlik's.",
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


def _reads(cls: type[T]) -> Callable[[Any], T]:
    return partial(from_json, cls)


def _reads_all(cls: type[T], field: str) -> Callable[[Any], list[T]]:
    return lambda body: [from_json(cls, item) for item in body.get(field, [])]


def _quoted(name: str) -> str:
    return quote(name, safe="")
