"""Trains with Ultralytics for scripts/benchmark_race.py.

From random weights it trains Ultralytics' own network YOLO26n-cls. From ImageNet weights it trains
EfficientNet-Lite0, because those of YOLO26n-cls would have to be downloaded. The trainer then overrides
``get_model``, as Ultralytics' documentation advises for other networks.
"""

from __future__ import annotations

import timm
import torch
from race_runner import RaceArgs, main
from ultralytics import YOLO
from ultralytics.models.yolo.classify import ClassificationTrainer


class LiteNetwork(torch.nn.Module):
    """EfficientNet-Lite0 for images with values from 0 to 1, as one layer of an Ultralytics model."""

    def __init__(self, file: str, classes: int) -> None:
        super().__init__()
        # Ultralytics reads three attributes of each layer: the index of its input (-1 is the previous
        # layer), its own index, and its type.
        self.f, self.i, self.type = -1, 0, "timm"
        overlay = {"file": file}
        # If ``file`` is empty, the weights are random.
        self.net = timm.create_model(
            "tf_efficientnet_lite0", bool(file), pretrained_cfg_overlay=overlay, num_classes=classes
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        return self.net(images * 2 - 1)


def lite_trainer(file: str) -> type[ClassificationTrainer]:
    """The trainer class for EfficientNet-Lite0 with the weights in ``file``."""

    class LiteTrainer(ClassificationTrainer):
        def get_model(self, *args: object, **kwargs: object) -> torch.nn.Module:
            model = super().get_model(*args, **kwargs)
            model.model = torch.nn.Sequential(LiteNetwork(file, self.data["nc"]))
            return model

    return LiteTrainer


def default(args: RaceArgs, **options: object) -> None:
    """Trains with Ultralytics' defaults, except for data, number of epochs and image size."""
    model = YOLO("yolo26n-cls.yaml")
    model.add_callback("on_train_batch_end", args.record_first_step)
    model.train(
        data=str(args.data), epochs=args.epochs, imgsz=args.image_size,
        project=str(args.out), name="run", **options,
    )  # fmt: skip


def best(args: RaceArgs, lr0: float = 1e-3, **options: object) -> None:
    """Trains with the recipe of scripts/measured/race.md, images in memory, and two threads."""
    model = YOLO("yolo26n-cls.yaml")
    model.add_callback("on_train_batch_end", args.record_first_step)
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(2))
    model.train(
        data=str(args.data), epochs=args.epochs, imgsz=args.image_size,
        project=str(args.out), name="run", optimizer="AdamW", lr0=lr0, weight_decay=0.05,
        warmup_epochs=1.0, warmup_bias_lr=0.0, cos_lr=True, batch=32, nbs=32, cache="ram", workers=2,
        flipud=0.5, scale=0.4, auto_augment=None, erasing=0.0, plots=False, **options,
    )  # fmt: skip


def default_pretrained(args: RaceArgs) -> None:
    """``default`` with EfficientNet-Lite0 and ImageNet weights."""
    default(args, trainer=lite_trainer(args.network))


def best_pretrained(args: RaceArgs) -> None:
    """``best`` with EfficientNet-Lite0 and ImageNet weights."""
    best(args, lr0=2.5e-3, trainer=lite_trainer(args.network))


if __name__ == "__main__":
    main(
        {
            "default": default,
            "default_pretrained": default_pretrained,
            "best": best,
            "best_pretrained": best_pretrained,
        }
    )
