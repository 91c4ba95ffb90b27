"""Real photographs that come inside packages, as files and as samples to calibrate with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from adlik.pictures import IMAGENET_MEAN, IMAGENET_STD, RESIZE_RATIO, preprocess
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

SIZE = (-1, 3, 224, 224)
CROPS = 12
SEED = 20
# What MobileNetV2 must see in some of them, as words of the ImageNet class.
EXPECTED = {"chelsea": "cat", "coffee": "espresso", "china": "palace"}


def photos() -> dict[str, Image.Image]:
    """Returns the photographs by name, RGB."""
    found = {name: getattr(data, name)() for name in ("chelsea", "coffee", "rocket", "astronaut")}
    found |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: Image.fromarray(pixels).convert("RGB") for name, pixels in found.items()}


def write_photos(folder: Path) -> dict[str, Path]:
    """Writes each photograph as JPEG; returns the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.jpg" for name in photos()}
    for name, picture in photos().items():
        picture.save(files[name], quality=95)
    return files


def write_samples(path: Path) -> int:
    """Writes seeded crops and flips of every photograph, preprocessed; returns their number."""
    rng = np.random.default_rng(SEED)
    shown = []
    for picture in photos().values():
        shown.append(picture)
        for _ in range(CROPS - 1):
            side = int(min(picture.size) * rng.uniform(0.75, 1.0))
            left, top = (int(rng.integers(0, full - side + 1)) for full in picture.size)
            crop = picture.crop((left, top, left + side, top + side))
            if rng.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            shown.append(crop)
    np.savez(path, input=prepared(shown))
    return len(shown)


def prepared(shown: list[Image.Image]) -> np.ndarray:
    """Returns pictures as one batch of MobileNetV2's input, [pictures, 3, 224, 224].

    The kernel library prepares them as a plan's pipeline does; without it Pillow and numpy do.
    """
    try:
        from adlik_kernels import ImageInput, stack
    except ImportError:
        return np.concatenate([preprocess(picture, SIZE) for picture in shown])
    return stack(
        [_centre(np.asarray(picture)) for picture in shown],
        ImageInput(*SIZE[2:], IMAGENET_MEAN, IMAGENET_STD),
    )


def _centre(pixels: np.ndarray) -> np.ndarray:
    """Returns the square in the middle that the model sees."""
    side = round(min(pixels.shape[:2]) / RESIZE_RATIO)
    top, left = ((size - side) // 2 for size in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "photos")
    write_photos(target)
    print(write_samples(target / "calibration.npz"), "samples and the photographs are in", target)
