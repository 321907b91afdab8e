"""Converts the weights in weights.npz for timm's tf_efficientnet_lite0, and writes weights.pth.

python timm_weights.py RACE

RACE is the folder that ``benchmark_race.py prepare --out`` fills, where keras_weights.py wrote
weights.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import timm
import torch

TOLERANCE = 1e-4
"""The largest difference of a feature that is accepted; features are between 0 and 6."""


def pad_as_keras_hub(model: torch.nn.Module) -> None:
    """Makes strided depthwise convolutions pad equally on both sides; in timm they pad at the end."""
    for block in model.modules():
        conv = getattr(block, "conv_dw", None)
        if conv is not None and conv.stride != (1, 1):
            (side, _), channels = conv.kernel_size, conv.in_channels
            padded = torch.nn.Conv2d(
                channels, channels, side, conv.stride, side // 2, groups=channels, bias=False
            )
            padded.weight = conv.weight
            block.conv_dw = padded


def main(race: str) -> None:
    """Copies the weights in order; raises SystemExit if timm's features differ from KerasHub's."""
    arrays = dict(np.load(Path(race) / "weights.npz"))
    images, features = torch.from_numpy(arrays.pop("images")), arrays.pop("features")
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    targets = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            targets.append(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            targets += [module.weight, module.bias, module.running_mean, module.running_var]
    pad_as_keras_hub(model)  # only for the comparison: weights.pth does not contain the padding
    with torch.no_grad():
        for target, name in zip(targets, sorted(arrays), strict=True):
            if target.shape != arrays[name].shape:
                raise SystemExit(f"{name}: {arrays[name].shape} instead of {tuple(target.shape)}")
            target.copy_(torch.from_numpy(arrays[name]))
        converted = model.forward_features(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    difference = float(np.abs(converted - features).max())
    print(f"largest difference of a feature {difference:.2g}, largest feature {features.max():.3g}")
    if difference > TOLERANCE:
        raise SystemExit(
            f"weights.npz: a feature differs by {difference:.2g}, more than {TOLERANCE}"
        )
    torch.save(model.state_dict(), Path(race) / "weights.pth")


if __name__ == "__main__":
    main(*sys.argv[1:])
