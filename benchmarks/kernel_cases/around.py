"""Work around a model: pictures in, boxes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.kernel_cases.timing import Case


def image_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import ImageInput

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rng = np.random.default_rng(0)
    for rows, columns, size in ((480, 640, 224), (1080, 1920, 224), (1080, 1920, 640)):
        image = rng.integers(0, 256, (rows, columns, 3)).astype(np.uint8)
        prepare = ImageInput(size, size, mean, std, swap=True)
        out = np.empty((3, size, size), np.float32)
        calls = {
            "adlik": lambda prepare=prepare, image=image, out=out: prepare(image, out=out),
            **opencv_image(image, size, mean, std, threads),
            **pillow_image(image, size, mean, std),
            **torch_image(image, size, mean, std),
            **openvino_image(image, size, mean, std, threads),
        }
        yield Case(f"{columns}x{rows}->{size}", 0, "", calls)


def opencv_image(image, size, mean, std, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import cv2
    except ImportError:
        return {}
    import numpy as np

    cv2.setNumThreads(threads)
    means, stds = np.float32(mean), np.float32(std)

    def call():
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        real = cv2.cvtColor(small, cv2.COLOR_BGR2RGB).astype(np.float32)
        return np.ascontiguousarray(((real / 255 - means) / stds).transpose(2, 0, 1))

    return {"opencv": call}


def pillow_image(image, size, mean, std) -> dict[str, Callable[[], object]]:
    try:
        from PIL import Image
    except ImportError:
        return {}
    import numpy as np

    picture = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    means, stds = np.float32(mean), np.float32(std)

    def call():
        small = picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=1.0)
        real = np.asarray(small).astype(np.float32)
        return np.ascontiguousarray(((real / 255 - means) / stds).transpose(2, 0, 1))

    return {"pillow": call}


def torch_image(image, size, mean, std) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    given = torch.from_numpy(image)

    def call():
        planes = given.flip(-1).permute(2, 0, 1)[None].contiguous()
        small = torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear")
        return (small.float() / 255 - means) / stds

    return {"torch": call}


def openvino_image(image, size, mean, std, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import openvino as ov
        from openvino import opset13 as op
        from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm
    except ImportError:
        return {}
    import numpy as np

    given = op.parameter([1, 3, size, size], np.float32)
    steps = PrePostProcessor(ov.Model([op.relu(given)], [given]))
    steps.input().tensor().set_element_type(ov.Type.u8).set_shape([1, *image.shape]).set_layout(
        ov.Layout("NHWC")
    ).set_color_format(ColorFormat.BGR)
    steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(
        ColorFormat.RGB
    ).resize(ResizeAlgorithm.RESIZE_LINEAR).mean([255 * m for m in mean]).scale(
        [255 * s for s in std]
    )
    steps.input().model().set_layout(ov.Layout("NCHW"))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(steps.build(), "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(image[None], shared_memory=True))
    return {"openvino": request.infer}


def box_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import detect

    for objects in (10, 60, 300):
        table = detector_output(objects)
        calls = {
            "adlik": lambda table=table: detect(table),
            "numpy": lambda table=table: numpy_boxes(table, 0.25, 0.45),
            **opencv_boxes(table),
            **onnxruntime_boxes(table, threads),
        }
        assert len(detect(table, limit=10**6)) == len(numpy_boxes(table, 0.25, 0.45)), "they differ"
        assert np.isfinite(table).all()
        yield Case(f"{objects} objects", 0, "", calls)


def detector_output(objects: int, candidates: int = 8400, classes: int = 80):
    """A YOLOv8 head's output with twenty overlapping candidates for each object."""
    import numpy as np

    rng = np.random.default_rng(0)
    table = np.empty((4 + classes, candidates), np.float32)
    table[:2] = rng.uniform(0, 640, (2, candidates))
    table[2:4] = rng.uniform(8, 200, (2, candidates))
    table[4:] = rng.uniform(0, 0.2, (classes, candidates))
    places = rng.choice(candidates, objects * 20, replace=False).reshape(objects, 20)
    for where in places:
        box = np.array([*rng.uniform(50, 590, 2), *rng.uniform(30, 200, 2)])
        table[:4, where] = box[:, None] * (1 + 0.05 * rng.standard_normal((4, 20)))
        table[4 + rng.integers(classes), where] = rng.uniform(0.3, 0.95, 20)
    return table


def decoded(table, confidence: float):
    import numpy as np

    scores, classes = table[4:].max(0), table[4:].argmax(0)
    chosen = scores > confidence
    centre, half = table[:2, chosen].T, table[2:4, chosen].T / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return boxes, scores[chosen], classes[chosen]


def numpy_boxes(table, confidence: float, overlap: float):
    import numpy as np

    boxes, scores, classes = decoded(table, confidence)
    boxes = boxes + classes[:, None] * np.float32(4096)
    order, kept = np.argsort(-scores, kind="stable"), []
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[shared <= overlap * (area[first] + area[rest] - shared)]
    return kept


def opencv_boxes(table) -> dict[str, Callable[[], object]]:
    try:
        import cv2
    except ImportError:
        return {}

    def call():
        boxes, scores, classes = decoded(table, 0.25)
        boxes[:, 2:] -= boxes[:, :2]
        return cv2.dnn.NMSBoxesBatched(boxes, scores, classes, 0.25, 0.45)

    return {"opencv": call}


def onnxruntime_boxes(table, threads: int) -> dict[str, Callable[[], object]]:
    """The runtime's own suppression, which takes the head's output as it is."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return {}
    import numpy as np

    info, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    names = ["boxes", "scores", "limit", "overlap", "confidence"]
    node = onnx.helper.make_node("NonMaxSuppression", names, ["kept"], center_point_box=1)
    constants = {"limit": np.int64([300]), "overlap": [0.45], "confidence": [0.25]}
    graph = onnx.helper.make_graph(
        [node],
        "suppression",
        [
            info("boxes", kinds.FLOAT, [1, table.shape[1], 4]),
            info("scores", kinds.FLOAT, [1, table.shape[0] - 4, table.shape[1]]),
        ],
        [info("kept", kinds.INT64, None)],
        [
            onnx.numpy_helper.from_array(
                np.asarray(value, np.int64 if name == "limit" else np.float32), name
            )
            for name, value in constants.items()
        ],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    boxes, scores = np.ascontiguousarray(table[:4].T)[None], table[None, 4:]
    return {"onnxruntime": lambda: session.run(None, {"boxes": boxes, "scores": scores})}
