"""What the protocol tells of server and models: metadata, configuration, statistics, index."""

from __future__ import annotations

import importlib.metadata

from adlik_common.errors import AdlikError, NotFound
from adlik_proto.adlik.control.v1.control_pb2 import LoadedModel
from adlik_proto.adlik.model.v1.model_pb2 import TensorSpec
from adlik_proto.inference import open_inference_pb2 as oip

from adlik_gateway.inference.replicas import ReplicaTable
from adlik_gateway.inference.statistics import Statistics

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "statistics",
)
"""Of the protocol's extensions those that are here whole; of model_repository only the index is."""
_DATA_TYPES = {"BYTES": oip.TYPE_STRING}


class Metadata:
    """Answers questions about models from the replica table.

    Args:
        table: Which replica holds what.
        statistics: What was asked so far.
    """

    def __init__(self, table: ReplicaTable, statistics: Statistics) -> None:
        self._table, self._statistics = table, statistics
        self._version = importlib.metadata.version("adlik-gateway")

    def server(self) -> oip.ServerMetadataResponse:
        """Returns the server's name, version and extensions."""
        return oip.ServerMetadataResponse(
            name="adlik", version=self._version, extensions=EXTENSIONS
        )

    def server_ready(self) -> bool:
        """Returns whether inferences can be answered: the state is read, a replica lives."""
        return self._table.complete and bool(self._table.serving)

    def known(self, model: str) -> bool:
        """Returns whether something is released under a model's name."""
        return model in self._table.releases

    def model_ready(self, model: str, version: int) -> bool:
        """Returns whether a replica holds the model."""
        try:
            self._table.loaded(model, version)
        except AdlikError:
            return False
        return True

    def model(self, model: str, version: int) -> oip.ModelMetadataResponse:
        """Returns a model's versions and tensors; shapes include the batch axis."""
        loaded = self._table.loaded(model, version)
        return oip.ModelMetadataResponse(
            name=model,
            versions=[str(number) for number in self._table.versions(model)],
            platform=self._platform(loaded),
            inputs=[_tensor(spec) for spec in loaded.signature.inputs],
            outputs=[_tensor(spec) for spec in loaded.signature.outputs],
        )

    def config(self, model: str, version: int) -> oip.ModelConfig:
        """Returns a model's configuration; where requests are batched, dims lack the batch axis."""
        loaded = self._table.loaded(model, version)
        signature = loaded.signature
        batched = loaded.max_batch_size > 0 and all(
            spec.shape and spec.shape[0] == -1 for spec in (*signature.inputs, *signature.outputs)
        )
        first = 1 if batched else 0
        return oip.ModelConfig(
            name=model,
            platform=self._platform(loaded),
            backend=loaded.engine,
            max_batch_size=loaded.max_batch_size if batched else 0,
            input=[
                oip.ModelInput(name=s.name, data_type=_data_type(s), dims=s.shape[first:])
                for s in signature.inputs
            ],
            output=[
                oip.ModelOutput(name=s.name, data_type=_data_type(s), dims=s.shape[first:])
                for s in signature.outputs
            ],
            dynamic_batching=oip.ModelDynamicBatching() if batched else None,
        )

    def statistics(self, model: str, version: int) -> oip.ModelStatisticsResponse:
        """Returns the statistics of a model, or of all for ""; version 0: of all that are held."""
        if model:
            self._table.loaded(model, version)
        models = [model] if model else sorted(self._table.releases)
        return oip.ModelStatisticsResponse(
            model_stats=[
                self._statistics.of(name, number)
                for name in models
                for number in ([version] if version else self._table.versions(name))
            ]
        )

    def index(self, repository: str, *, only_ready: bool) -> oip.RepositoryIndexResponse:
        """Returns the released models and whether each can be asked; the one repository is ""."""
        if repository:
            raise NotFound(
                f"There is no repository '{repository[:128]}'.", cure="Leave the name out."
            )
        models = [
            self._entry(name, version)
            for name, release in sorted(self._table.releases.items())
            for version in sorted({release.pushed.version, *self._table.versions(name)})
        ]
        return oip.RepositoryIndexResponse(
            models=[entry for entry in models if entry.state == "READY" or not only_ready]
        )

    def _entry(self, model: str, version: int) -> oip.RepositoryIndexResponse.ModelIndex:
        state, reason = "READY", ""
        try:
            self._table.loaded(model, version)
        except AdlikError as error:
            state, reason = "UNAVAILABLE", str(error)
        return oip.RepositoryIndexResponse.ModelIndex(
            name=model, version=str(version), state=state, reason=reason
        )

    def _platform(self, loaded: LoadedModel) -> str:
        """Returns the protocol's "<project>_<format>", e.g. "onnxruntime_onnx"."""
        release = self._table.releases.get(loaded.name)
        if release is None or release.compiled.engine != loaded.engine:
            return loaded.engine
        return f"{loaded.engine}_{release.compiled.format}"


def _tensor(spec: TensorSpec) -> oip.ModelMetadataResponse.TensorMetadata:
    return oip.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _data_type(spec: TensorSpec) -> oip.DataType.ValueType:
    if spec.datatype in _DATA_TYPES:
        return _DATA_TYPES[spec.datatype]
    return oip.DataType.Value(f"TYPE_{spec.datatype}")
