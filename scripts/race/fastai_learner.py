"""Trains timm's EfficientNet-Lite0 with fastai for scripts/benchmark_race.py.

``default`` trains as fastai's quick start does, ``best`` with the recipe of scripts/measured/race.md.
"""

from __future__ import annotations

from fastai.vision.all import (
    Callback,
    CSVLogger,
    ImageDataLoaders,
    LabelSmoothingCrossEntropyFlat,
    Resize,
    accuracy,
    aug_transforms,
    vision_learner,
)
from race_runner import RaceArgs, main


def make_learner(args: RaceArgs, dls: ImageDataLoaders, **options: object) -> object:
    """A learner with EfficientNet-Lite0; with ``args.pretrained``, its weights are in a local file."""
    file = {"pretrained_cfg_overlay": {"file": args.network}} if args.pretrained else {}
    log = CSVLogger(args.out / "history.csv", append=True)
    learn = vision_learner(
        dls,
        "tf_efficientnet_lite0",
        pretrained=args.pretrained,
        metrics=accuracy,
        **file,
        **options,
    )
    learn.add_cbs([log, Callback(after_batch=args.record_first_step)])
    return learn


def default(args: RaceArgs) -> None:
    """``fine_tune`` from ImageNet weights, ``fit_one_cycle`` from random ones; no other settings."""
    dls = ImageDataLoaders.from_folder(args.data, valid="val", item_tfms=Resize(args.image_size))
    learn = make_learner(args, dls)
    if args.pretrained:
        learn.fine_tune(args.epochs - 1)  # fine_tune adds one epoch with a frozen body at the start
    else:
        learn.fit_one_cycle(args.epochs)


def best(args: RaceArgs) -> None:
    """Trains all layers from the first step, in one cycle with weight decay and batches of 32."""
    dls = ImageDataLoaders.from_folder(
        args.data, valid="val", item_tfms=Resize(args.image_size), bs=32,
        batch_tfms=aug_transforms(flip_vert=True, max_rotate=180.0, max_warp=0.0),
    )  # fmt: skip
    learn = make_learner(args, dls, wd=0.05, loss_func=LabelSmoothingCrossEntropyFlat())
    learn.unfreeze()
    learn.fit_one_cycle(args.epochs, 2.5e-3 if args.pretrained else 1e-3)


if __name__ == "__main__":
    main({"default": default, "best": best})
