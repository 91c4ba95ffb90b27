"""Real photographs that come inside packages, as files and as samples to calibrate with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from adlik.pictures import preprocess
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
    samples = []
    for picture in photos().values():
        samples.append(preprocess(picture, SIZE))
        for _ in range(CROPS - 1):
            side = int(min(picture.size) * rng.uniform(0.75, 1.0))
            left, top = (int(rng.integers(0, full - side + 1)) for full in picture.size)
            crop = picture.crop((left, top, left + side, top + side))
            if rng.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            samples.append(preprocess(crop, SIZE))
    np.savez(path, input=np.concatenate(samples))
    return len(samples)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "photos")
    write_photos(target)
    print(write_samples(target / "calibration.npz"), "samples and the photographs are in", target)
