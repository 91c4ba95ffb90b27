"""Checks a running mesh with the real tritonclient package, and stops at the first wrong thing.

tritonclient needs an older protobuf than Adlik, so this runs in a virtual environment of its own:
python triton_client.py --http 127.0.0.1:8000 --grpc 127.0.0.1:8001 --model NAME
"""

from __future__ import annotations

import argparse
import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

ROWS = 2
MISSING = "no-such-model"


def check(fact: object, what: str) -> None:
    """Ends the program unless a fact holds."""
    if not fact:
        sys.exit(f"WRONG: {what}")
    sys.stdout.write(f"ok: {what}\n")


def fails(call, *words: str) -> bool:
    """Returns whether a call raises the client's error, with all these words in it."""
    try:
        call()
    except InferenceServerException as error:
        return all(word in f"{error.status()} {error.message()}" for word in words)
    return False


class Model:
    """What metadata says of the model, random data for it, and inputs made of that."""

    def __init__(self, name: str, metadata: dict) -> None:
        self.name = name
        self.version = metadata["versions"][-1]
        self.outputs = [output["name"] for output in metadata["outputs"]]
        random = np.random.default_rng(0)
        self.arrays = {}
        self.datatypes = {}
        for tensor in metadata["inputs"]:
            size = [int(n) for n in tensor["shape"]]
            shape = [ROWS if n == -1 and axis == 0 else max(n, 1) for axis, n in enumerate(size)]
            dtype = triton_to_np_dtype(tensor["datatype"])
            self.arrays[tensor["name"]] = random.random(shape).astype(dtype)
            self.datatypes[tensor["name"]] = tensor["datatype"]

    def inputs(self, module, **options):
        """Returns inputs of one of the client's modules."""
        made = []
        for name, array in self.arrays.items():
            tensor = module.InferInput(name, list(array.shape), self.datatypes[name])
            tensor.set_data_from_numpy(array, **options)
            made.append(tensor)
        return made

    def same(self, result, expected: dict[str, np.ndarray]) -> bool:
        """Returns whether a result has the expected outputs."""
        return all(
            np.allclose(result.as_numpy(name), expected[name], rtol=1e-3, atol=1e-4)
            for name in self.outputs
        )


def check_server(client, name: str) -> None:
    """Checks what both protocols say of the server and its models."""
    kind = type(client).__module__.split(".")[1]
    check(client.is_server_live(), f"{kind}: the server lives")
    check(client.is_server_ready(), f"{kind}: the server is ready")
    check(client.is_model_ready(name), f"{kind}: the model is ready")
    check(not client.is_model_ready(MISSING), f"{kind}: a missing model is not ready")
    check(
        fails(lambda: client.get_model_metadata(MISSING), MISSING),
        f"{kind}: metadata of a missing model is an error that names it",
    )


def described(client, name: str) -> tuple[dict, dict, dict, dict, list]:
    """Returns metadata, config, statistics, server metadata and index, as JSON has them."""
    options = {"as_json": True} if isinstance(client, triton_grpc.InferenceServerClient) else {}
    config = client.get_model_config(name, **options)
    index = client.get_model_repository_index(**options)
    return (
        client.get_model_metadata(name, **options),
        config.get("config", config),
        client.get_inference_statistics(name, **options),
        client.get_server_metadata(**options),
        index.get("models", []) if isinstance(index, dict) else index,
    )


def check_descriptions(client, name: str) -> Model:
    """Checks metadata, configuration and index, and returns the model they describe."""
    kind = type(client).__module__.split(".")[1]
    metadata, config, statistics, server, index = described(client, name)
    check(metadata["name"] == name and bool(metadata["inputs"]), f"{kind}: model metadata")
    shapes = [[int(n) for n in tensor["shape"]] for tensor in metadata["inputs"]]
    batched = int(config.get("max_batch_size", 0)) > 0
    dims = [[int(n) for n in tensor["dims"]] for tensor in config["input"]]
    check(dims == [shape[1:] if batched else shape for shape in shapes], f"{kind}: model config")
    check(statistics["model_stats"][0]["name"] == name, f"{kind}: statistics")
    check("binary_tensor_data" in server["extensions"], f"{kind}: server metadata")
    check(any(e["name"] == name and e["state"] == "READY" for e in index), f"{kind}: index")
    return Model(name, metadata)


def check_grpc(client, model: Model) -> dict[str, np.ndarray]:
    """Checks inference over gRPC and returns the outputs, the reference for the rest."""
    inputs = model.inputs(triton_grpc)
    result = client.infer(model.name, inputs, request_id="seven")
    outputs = {name: result.as_numpy(name) for name in model.outputs}
    check(all(array is not None and array.size for array in outputs.values()), "grpc: infer")
    check(result.get_response().id == "seven", "grpc: the request's id comes back")
    check(result.get_response().model_name == model.name, "grpc: the model's name comes back")
    result = client.infer(model.name, inputs, model_version=model.version, client_timeout=30)
    check(model.same(result, outputs), "grpc: infer of a version with a deadline")
    wanted = [triton_grpc.InferRequestedOutput(model.outputs[0])]
    result = client.infer(model.name, inputs, outputs=wanted, compression_algorithm="gzip")
    got = [output.name for output in result.get_response().outputs]
    check(got == model.outputs[:1], "grpc: one wanted output, with gzip")
    check(
        fails(lambda: client.infer(MISSING, inputs), "NOT_FOUND", MISSING),
        "grpc: a missing model is NOT_FOUND",
    )
    check(
        fails(lambda: client.infer(model.name, inputs, model_version="999"), "NOT_FOUND"),
        "grpc: a missing version is NOT_FOUND",
    )
    check(
        fails(lambda: client.infer(model.name, wrong_inputs(triton_grpc)), "INVALID_ARGUMENT"),
        "grpc: a wrong input is INVALID_ARGUMENT",
    )
    return outputs


def wrong_inputs(module):
    """Returns an input that no model has."""
    tensor = module.InferInput("no-such-input", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.float32))
    return [tensor]


def check_grpc_callbacks(client, model: Model, outputs: dict[str, np.ndarray]) -> None:
    """Checks the asynchronous and the streaming call."""
    done: queue.Queue = queue.Queue()

    def took(result, error) -> None:
        done.put((result, error))

    client.async_infer(model.name, model.inputs(triton_grpc), callback=took)
    result, error = done.get(timeout=30)
    check(error is None and model.same(result, outputs), "grpc: async_infer")
    client.start_stream(callback=took)
    for number in range(20):
        name = MISSING if number == 10 else model.name
        client.async_stream_infer(name, model.inputs(triton_grpc), request_id=str(number))
    taken = [done.get(timeout=30) for _ in range(20)]
    client.stop_stream()
    good = [result for result, error in taken if error is None]
    check([r.get_response().id for r in good] == [str(n) for n in range(20) if n != 10], "stream")
    check(all(model.same(result, outputs) for result in good), "stream: outputs")
    errors = [str(error) for _, error in taken if error is not None]
    check(len(errors) == 1 and MISSING in errors[0], "stream: an error among the answers")


def check_http(client, model: Model, outputs: dict[str, np.ndarray]) -> None:
    """Checks inference over HTTP: JSON and binary both ways, compression, errors."""
    for binary_in in (True, False):
        for binary_out in (True, False):
            inputs = model.inputs(triton_http, binary_data=binary_in)
            wanted = [
                triton_http.InferRequestedOutput(name, binary_data=binary_out)
                for name in model.outputs
            ]
            result = client.infer(model.name, inputs, outputs=wanted, request_id="7")
            words = ("binary" if binary_in else "JSON", "binary" if binary_out else "JSON")
            check(model.same(result, outputs), f"http: {words[0]} in, {words[1]} out")
            check(result.get_response()["id"] == "7", "http: the request's id comes back")
    inputs = model.inputs(triton_http)
    check(model.same(client.infer(model.name, inputs), outputs), "http: no wanted outputs named")
    for encoding in ("gzip", "deflate"):
        result = client.infer(
            model.name,
            inputs,
            model_version=model.version,
            request_compression_algorithm=encoding,
            response_compression_algorithm=encoding,
        )
        check(model.same(result, outputs), f"http: {encoding}")
    result = client.async_infer(model.name, inputs).get_result(timeout=30)
    check(model.same(result, outputs), "http: async_infer")
    check(
        fails(lambda: client.infer(MISSING, inputs), "404", MISSING),
        "http: a missing model is 404",
    )
    check(
        fails(lambda: client.infer(model.name, wrong_inputs(triton_http)), "400"),
        "http: a wrong input is 400",
    )


def check_classification(client, model: Model, outputs: dict[str, np.ndarray]) -> None:
    """Checks the classification extension: the best class of each row as "value:index"."""
    name = model.outputs[0]
    wanted = [triton_grpc.InferRequestedOutput(name, class_count=1)]
    result = client.infer(model.name, model.inputs(triton_grpc), outputs=wanted)
    best = [int(text.split(b":")[1]) for text in result.as_numpy(name).ravel()]
    expected = outputs[name].reshape(len(best), -1).argmax(axis=1)
    check(best == expected.tolist(), "grpc: classification")


async def check_asyncio(http_url: str, grpc_url: str, model: Model, outputs: dict) -> None:
    """Checks the clients' asyncio modules, with many requests at once."""
    for kind, module, inputs, url in (
        ("http.aio", triton_http_aio, model.inputs(triton_http), http_url),
        ("grpc.aio", triton_grpc_aio, model.inputs(triton_grpc), grpc_url),
    ):
        async with module.InferenceServerClient(url) as client:
            results = await asyncio.gather(*(client.infer(model.name, inputs) for _ in range(16)))
        check(all(model.same(result, outputs) for result in results), f"{kind}: 16 at once")


def main() -> None:
    """Runs every check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", required=True, help="host:port of the HTTP API")
    parser.add_argument("--grpc", required=True, help="host:port of the gRPC API")
    parser.add_argument("--model", required=True)
    given = parser.parse_args()
    http = triton_http.InferenceServerClient(given.http, concurrency=4)
    grpc = triton_grpc.InferenceServerClient(given.grpc)
    for client in (http, grpc):
        check_server(client, given.model)
    model = check_descriptions(grpc, given.model)
    check(check_descriptions(http, given.model).version == model.version, "both say the same")
    outputs = check_grpc(grpc, model)
    check_grpc_callbacks(grpc, model, outputs)
    check_http(http, model, outputs)
    check_classification(grpc, model, outputs)
    asyncio.run(check_asyncio(given.http, given.grpc, model, outputs))
    stats = http.get_inference_statistics(given.model)["model_stats"][-1]
    check(stats["inference_stats"]["success"]["count"] >= 50, "statistics counted the requests")
    http.close()
    grpc.close()
    sys.stdout.write("all is well\n")


if __name__ == "__main__":
    main()
