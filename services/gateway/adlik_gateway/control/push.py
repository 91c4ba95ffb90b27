"""Takes a push in: stores its files, checks them, gives it a version and announces it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from adlik_common import names, spans, telemetry
from adlik_common.bundle import safe_name
from adlik_common.errors import InvalidRequest, MissingExternalData
from adlik_common.pipelines import resolve
from adlik_common.service import Context
from adlik_common.tensors import TensorSpec
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2

from adlik_gateway.catalog.view import CatalogView, key_of
from adlik_gateway.settings import GatewaySettings
from adlik_gateway.upload.onnx_file import OnnxFile, read_onnx
from adlik_gateway.upload.plans import check_names, check_plan
from adlik_gateway.upload.samples import check_samples
from adlik_gateway.upload.sniff import HEAD_BYTES, sniff

Header = control_pb2.PushHeader
File = control_pb2.FileHeader
Part = control_pb2.PushHeader | control_pb2.FileHeader | bytes

MAX_EXTERNAL_FILES = 100
_MEDIA_TYPES = {
    File.ROLE_MODEL: "application/x-onnx",
    File.ROLE_SAMPLES: "application/x-npz",
    File.ROLE_EXTERNAL: "application/octet-stream",
}


class Pusher:
    """Handles pushes; any number at the same time."""

    def __init__(self, context: Context, view: CatalogView) -> None:
        self._context, self._view = context, view
        self._settings: GatewaySettings = context.settings

    async def push(
        self, parts: AsyncIterator[Part], traceparent: str = ""
    ) -> control_pb2.PushModelResponse:
        """Returns the pushed version once it is stored and announced.

        Args:
            parts: A header; then per file a file header followed by its chunks.
            traceparent: W3C trace context of the caller.
        """
        with telemetry.tracer().start_as_current_span(
            spans.PUSH, context=telemetry.context_from(traceparent)
        ) as span:
            try:
                header = await anext(parts, None)
                if not isinstance(header, Header):
                    raise InvalidRequest("A push begins with its header: name and plan.")  # noqa: TRY301
                names.check_model_name(header.name)
                span.set_attribute(spans.MODEL, header.name)
                check_plan(header.plan, self._view.replicas.values())
                source = await self._store(parts)
                signature = await self._check(source, header.plan)
                response = await self._announce(header, source, signature)
                span.set_attribute(spans.VERSION, response.pushed.version)
            except Exception as error:
                telemetry.record_error(span, error)
                raise
            return response

    async def _store(self, parts: AsyncIterator[Part]) -> model_pb2.ModelSource:
        """Streams every file into the artifact store."""
        source = model_pb2.ModelSource(format="onnx")
        queue = _Parts(parts)
        while (file := await queue.next_file()) is not None:
            limit = self._settings.max_upload_bytes
            if file.role == File.ROLE_SAMPLES:
                limit = self._settings.max_samples_bytes
            if file.role not in _MEDIA_TYPES:
                raise InvalidRequest("A pushed file must say what it is: model, samples, external.")
            if len(source.external_files) >= MAX_EXTERNAL_FILES:
                raise InvalidRequest(f"A push may have {MAX_EXTERNAL_FILES} external files.")
            with telemetry.tracer().start_as_current_span(spans.STORE) as span:
                ref = await self._context.artifacts.put_stream(
                    queue.chunks(), _MEDIA_TYPES[file.role], limit=limit
                )
                span.set_attribute(spans.SIZE_BYTES, ref.size_bytes)
            if file.role == File.ROLE_MODEL:
                source.artifact.CopyFrom(ref)
            elif file.role == File.ROLE_SAMPLES:
                source.samples.CopyFrom(ref)
            else:
                source.external_files.add(name=safe_name(file.name), artifact=ref)
        if not source.HasField("artifact"):
            raise InvalidRequest("The push holds no model file.", cure="Send a part 'model'.")
        return source

    async def _check(
        self, source: model_pb2.ModelSource, plan: model_pb2.Plan
    ) -> model_pb2.Signature:
        """Returns the model's signature; raises where a file or the plan is not what it must be."""
        path = await self._context.artifacts.fetch(source.artifact)
        with path.open("rb") as file:
            source.format = sniff(file.read(HEAD_BYTES))
        found: OnnxFile = await asyncio.to_thread(read_onnx, path)
        pushed = {file.name for file in source.external_files}
        missing = sorted(set(found.external_files) - pushed)
        if missing:
            raise MissingExternalData(
                f"The model keeps weights in {', '.join(missing[:5])}, not pushed with it.",
                cure="Push those files too; `adlik push` finds them beside the model.",
                files=",".join(missing),
            )
        check_names(plan, found.inputs, found.outputs)
        if plan.HasField("pipeline"):
            resolve(plan.pipeline, found.inputs, found.outputs)
        if source.HasField("samples"):
            samples = await self._context.artifacts.fetch(source.samples)
            await asyncio.to_thread(
                check_samples, samples, found.inputs, max_bytes=4 * self._settings.max_samples_bytes
            )
        return model_pb2.Signature(
            inputs=[_spec(tensor) for tensor in found.inputs],
            outputs=[_spec(tensor) for tensor in found.outputs],
        )

    async def _announce(
        self, header: Header, source: model_pb2.ModelSource, signature: model_pb2.Signature
    ) -> control_pb2.PushModelResponse:
        version, created = await self._version(header, source)
        pushed = model_pb2.PushedModel(
            name=header.name,
            version=version,
            source=source,
            signature=signature,
            plan=header.plan,
        )
        pushed.pushed_at.GetCurrentTime()
        new = model_pb2.ModelVersion(
            pushed=pushed, trace_id=telemetry.current_trace_id(), traceparent=telemetry.inject()
        )
        record = await self._context.state.models.modify(
            key_of(new), lambda known: None if known else new
        )
        assert record is not None
        if created or not record.finished:
            await self._context.bus.publish(events_pb2.ModelPushed(pushed=record.pushed))
        return control_pb2.PushModelResponse(
            pushed=record.pushed, created=created, trace_id=record.trace_id
        )

    async def _version(self, header: Header, source: model_pb2.ModelSource) -> tuple[int, bool]:
        """Returns the version number of these bytes and plan, and whether it is new."""
        digest = _identity(source, header.plan)
        created = False

        def change(head: model_pb2.ModelHead | None) -> model_pb2.ModelHead | None:
            nonlocal created
            head = head or model_pb2.ModelHead(name=header.name)
            created = digest not in head.versions
            if not created:
                return None
            head.last_version += 1
            head.versions[digest] = head.last_version
            return head

        head = await self._context.state.heads.modify(names.token(header.name), change)
        assert head is not None
        return head.versions[digest], created


class _Parts:
    """Splits the stream of a push's parts into files."""

    def __init__(self, parts: AsyncIterator[Part]) -> None:
        self._parts = parts
        self._next_file: File | None = None

    async def next_file(self) -> File | None:
        """Returns the next file's header, None at the end."""
        if self._next_file is None:
            part = await anext(self._parts, None)
            if part is not None and not isinstance(part, File):
                raise InvalidRequest("Bytes must follow the header of their file.")
            return part
        found, self._next_file = self._next_file, None
        return found

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the current file's bytes."""
        async for part in self._parts:
            if isinstance(part, bytes):
                yield part
            elif isinstance(part, File):
                self._next_file = part
                return
            else:
                raise InvalidRequest("A push has one header, at its beginning.")


def _identity(source: model_pb2.ModelSource, plan: model_pb2.Plan) -> str:
    message = source.SerializeToString(deterministic=True)
    message += plan.SerializeToString(deterministic=True)
    return hashlib.sha256(message).hexdigest()


def _spec(tensor: TensorSpec) -> model_pb2.TensorSpec:
    return model_pb2.TensorSpec(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, axes=tensor.axes
    )
