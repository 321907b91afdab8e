"""fastai: as in its quick start, with a network of timm; ``best`` has the recipe of the race."""

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
from race_runner import Race, main


def learner(race: Race, dls: ImageDataLoaders, **options: object) -> object:
    """A learner with EfficientNet-Lite0, whose weights are in a local file."""
    file = {"pretrained_cfg_overlay": {"file": race.network}} if race.pretrained else {}
    log = CSVLogger(race.out / "history.csv", append=True)
    learn = vision_learner(
        dls,
        "tf_efficientnet_lite0",
        pretrained=race.pretrained,
        metrics=accuracy,
        **file,
        **options,
    )
    learn.add_cbs([log, Callback(after_batch=race.first_step)])
    return learn


def default(race: Race) -> None:
    """``fine_tune`` with trained weights, ``fit_one_cycle`` without, and no other choice."""
    dls = ImageDataLoaders.from_folder(race.data, valid="val", item_tfms=Resize(race.image_size))
    learn = learner(race, dls)
    if race.pretrained:
        learn.fine_tune(race.epochs - 1)  # one more epoch is trained with a frozen body
    else:
        learn.fit_one_cycle(race.epochs)


def best(race: Race) -> None:
    """All layers from the first step, AdamW with one cycle, rotation, and batches of 32."""
    dls = ImageDataLoaders.from_folder(
        race.data, valid="val", item_tfms=Resize(race.image_size), bs=32,
        batch_tfms=aug_transforms(flip_vert=True, max_rotate=180.0, max_warp=0.0),
    )  # fmt: skip
    learn = learner(race, dls, wd=0.05, loss_func=LabelSmoothingCrossEntropyFlat())
    learn.unfreeze()
    learn.fit_one_cycle(race.epochs, 2.5e-3 if race.pretrained else 1e-3)


if __name__ == "__main__":
    main({"default": default, "best": best})
