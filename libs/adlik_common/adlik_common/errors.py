"""The one tree of errors: what was wrong, what to do, and how each edge says it.

    AdlikError                     code                    HTTP  gRPC                 retryable
    ├── InvalidName                INVALID_NAME            400   INVALID_ARGUMENT
    ├── InvalidRequest             INVALID_REQUEST         400   INVALID_ARGUMENT
    ├── InvalidModel               INVALID_MODEL           400   INVALID_ARGUMENT
    ├── UnsupportedFormat          UNSUPPORTED_FORMAT      400   INVALID_ARGUMENT
    ├── UnsupportedOperator        UNSUPPORTED_OPERATOR    400   INVALID_ARGUMENT
    ├── UnsafePath                 UNSAFE_PATH             400   INVALID_ARGUMENT
    ├── MissingExternalData        MISSING_EXTERNAL_DATA   400   INVALID_ARGUMENT
    ├── InvalidSamples             INVALID_SAMPLES         400   INVALID_ARGUMENT
    ├── InvalidPlan                INVALID_PLAN            400   INVALID_ARGUMENT
    ├── InvalidTensor              INVALID_TENSOR          400   INVALID_ARGUMENT
    ├── TooLarge                   TOO_LARGE               413   RESOURCE_EXHAUSTED
    ├── NotFound                   NOT_FOUND               404   NOT_FOUND
    ├── Conflict                   CONFLICT                409   ABORTED              yes
    ├── Overloaded                 OVERLOADED              429   RESOURCE_EXHAUSTED   yes
    ├── Unavailable                UNAVAILABLE             503   UNAVAILABLE          yes
    ├── DeadlineExceeded           DEADLINE_EXCEEDED       504   DEADLINE_EXCEEDED
    ├── Cancelled                  CANCELLED               499   CANCELLED
    ├── ResourceLimit              RESOURCE_LIMIT          422   RESOURCE_EXHAUSTED
    ├── EngineFailed               ENGINE_FAILED           500   INTERNAL
    ├── CorruptArtifact            CORRUPT_ARTIFACT        500   DATA_LOSS            yes
    └── Internal                   INTERNAL                500   INTERNAL

A retryable error may pass if the same request or event is tried again later; the bus redelivers
those and dead-letters the others at once.
"""

from __future__ import annotations

from typing import ClassVar

from adlik_proto.adlik.model.v1 import model_pb2


class AdlikError(Exception):
    """Something that a caller should hear about in words.

    Args:
        message: What was wrong and what was expected.
        cure: What the reader can do about it; by default what usually helps against such errors.
        details: Facts for programs, by name.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    usual_cure: ClassVar[str] = "See the service's log."

    def __init__(self, message: str, *, cure: str = "", **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure or self.usual_cure
        self.details = {name: str(value) for name, value in details.items()}

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".rstrip()


class InvalidName(AdlikError):
    """A model name that breaks the rule of names."""

    code, http_status, grpc_status = "INVALID_NAME", 400, "INVALID_ARGUMENT"
    usual_cure = "Use letters, digits, '-', '_' and '.'."


class InvalidRequest(AdlikError):
    """A request that does not follow its protocol."""

    code, http_status, grpc_status = "INVALID_REQUEST", 400, "INVALID_ARGUMENT"
    usual_cure = "See /docs for the form of each request."


class InvalidModel(AdlikError):
    """Bytes that are not the model they claim to be."""

    code, http_status, grpc_status = "INVALID_MODEL", 400, "INVALID_ARGUMENT"
    usual_cure = "Check the file with onnx.checker, and export it again."


class UnsupportedFormat(AdlikError):
    """A file of a format that no registered step reads."""

    code, http_status, grpc_status = "UNSUPPORTED_FORMAT", 400, "INVALID_ARGUMENT"
    usual_cure = "Export the model to ONNX."


class UnsupportedOperator(AdlikError):
    """A model with an operator that an engine does not know."""

    code, http_status, grpc_status = "UNSUPPORTED_OPERATOR", 400, "INVALID_ARGUMENT"
    usual_cure = "Export the model with the operators of ONNX only."


class UnsafePath(AdlikError):
    """A file name that points outside the upload."""

    code, http_status, grpc_status = "UNSAFE_PATH", 400, "INVALID_ARGUMENT"
    usual_cure = "Use names relative to the model file, without '..'."


class MissingExternalData(AdlikError):
    """A model that keeps weights in files that were not pushed with it."""

    code, http_status, grpc_status = "MISSING_EXTERNAL_DATA", 400, "INVALID_ARGUMENT"
    usual_cure = "Push the files with the model."


class InvalidSamples(AdlikError):
    """Calibration or verification data that does not fit the model."""

    code, http_status, grpc_status = "INVALID_SAMPLES", 400, "INVALID_ARGUMENT"
    usual_cure = (
        "Push an .npz with one array per model input "
        "(first axis: samples) and, optionally, 'labels'."
    )


class InvalidPlan(AdlikError):
    """A plan that names what does not exist or limits out of range."""

    code, http_status, grpc_status = "INVALID_PLAN", 400, "INVALID_ARGUMENT"
    usual_cure = "See docs/plans.md."


class InvalidTensor(AdlikError):
    """A request tensor whose name, shape or datatype the model does not take."""

    code, http_status, grpc_status = "INVALID_TENSOR", 400, "INVALID_ARGUMENT"
    usual_cure = "Compare with the model's metadata: names, datatypes and shapes of its inputs."


class TooLarge(AdlikError):
    """More bytes than the configured limit."""

    code, http_status, grpc_status = "TOO_LARGE", 413, "RESOURCE_EXHAUSTED"
    usual_cure = "Send less, or raise the limit."


class NotFound(AdlikError):
    """No such model, version, variant, artifact or trace."""

    code, http_status, grpc_status = "NOT_FOUND", 404, "NOT_FOUND"
    usual_cure = "See `adlik models` for what there is."


class Conflict(AdlikError):
    """Somebody else changed the same thing first."""

    code, http_status, grpc_status, retryable = "CONFLICT", 409, "ABORTED", True
    usual_cure = "Try again."


class Overloaded(AdlikError):
    """A full queue: try again a little later."""

    code, http_status, grpc_status, retryable = "OVERLOADED", 429, "RESOURCE_EXHAUSTED", True
    usual_cure = "Try again a little later."


class Unavailable(AdlikError):
    """Nothing is there to do the work right now."""

    code, http_status, grpc_status, retryable = "UNAVAILABLE", 503, "UNAVAILABLE", True
    usual_cure = "Try again a little later."


class DeadlineExceeded(AdlikError):
    """The caller's time ran out."""

    code, http_status, grpc_status = "DEADLINE_EXCEEDED", 504, "DEADLINE_EXCEEDED"
    usual_cure = "Allow more time."


class Cancelled(AdlikError):
    """The caller went away."""

    code, http_status, grpc_status = "CANCELLED", 499, "CANCELLED"
    usual_cure = "Ask again."


class ResourceLimit(AdlikError):
    """Work that was stopped because it took more time or memory than allowed."""

    code, http_status, grpc_status = "RESOURCE_LIMIT", 422, "RESOURCE_EXHAUSTED"
    usual_cure = "Use a smaller model, or raise the limit."


class EngineFailed(AdlikError):
    """An engine that could not load or run a model."""

    code = "ENGINE_FAILED"


class CorruptArtifact(AdlikError):
    """Stored bytes whose digest is not the one they were stored under."""

    code, grpc_status, retryable = "CORRUPT_ARTIFACT", "DATA_LOSS", True
    usual_cure = "Push the model again."


class Internal(AdlikError):
    """A fault of Adlik's own."""


_BY_CODE: dict[str, type[AdlikError]] = {cls.code: cls for cls in AdlikError.__subclasses__()}


def to_proto(error: BaseException) -> model_pb2.Error:
    """Returns the message for an error; anything outside the tree becomes INTERNAL."""
    if not isinstance(error, AdlikError):
        error = Internal(f"{type(error).__name__}: {error}", cure="See the service's log.")
    return model_pb2.Error(
        code=error.code,
        message=error.message,
        cure=error.cure,
        retryable=error.retryable,
        details=error.details,
    )


def from_proto(message: model_pb2.Error) -> AdlikError:
    """Returns the error that `to_proto` was given, by its code."""
    error = _BY_CODE.get(message.code, Internal)(message.message, cure=message.cure)
    error.details = dict(message.details)
    return error
