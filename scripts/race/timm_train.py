"""Trains as timm's ``train.py`` does, with those of its flags that scripts/benchmark_race.py uses.

The flags have the defaults of ``train.py``, and the script calls the same functions of timm. It exists
because ``train.py`` is in timm's repository, but not in its package. ``prepare --timm_script`` takes a
copy of ``train.py`` instead.
"""

from __future__ import annotations

import argparse
import os

import torch
from timm import create_model, utils
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

FLAGS = {
    "data_dir": "", "train_split": "train", "val_split": "validation", "model": "resnet50",
    "num_classes": 1000, "img_size": 224, "batch_size": 128, "opt": "sgd", "momentum": 0.9,
    "weight_decay": 2e-5, "sched": "cosine", "lr": 0.0, "lr_base": 0.1, "warmup_lr": 1e-5,
    "epochs": 300, "warmup_epochs": 5, "hflip": 0.5, "vflip": 0.0, "color_jitter": 0.4,
    "smoothing": 0.1, "train_interpolation": "random", "workers": 4, "seed": 42, "log_interval": 50,
    "output": "", "experiment": "",
}  # fmt: skip


def parse_flags() -> argparse.Namespace:
    """Reads the flags; their names and defaults are those of ``train.py``."""
    parser = argparse.ArgumentParser()
    for name, value in FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    for name in ("--pretrained", "--channels-last", "--sched-on-updates"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--scale", type=float, nargs=2, default=[0.08, 1.0])
    parser.add_argument("--model-kwargs", nargs="*", default={}, action=utils.ParseKwargs)
    return parser.parse_args()


def main() -> None:
    """Trains, and validates after each epoch."""
    args = parse_flags()
    utils.random_seed(args.seed, 0)
    model = create_model(
        args.model, pretrained=args.pretrained, num_classes=args.num_classes, **args.model_kwargs
    )
    config = resolve_data_config(vars(args), model=model)
    layout = torch.channels_last if args.channels_last else torch.preserve_format
    model.to(memory_format=layout)
    args.lr = args.lr or args.lr_base * args.batch_size / 256
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=args))
    common = {
        **{name: config[name] for name in ("input_size", "mean", "std")},
        "batch_size": args.batch_size, "num_workers": args.workers, "device": torch.device("cpu"),
    }  # fmt: skip
    folders = {"root": args.data_dir, "batch_size": args.batch_size}
    train = create_loader(
        create_dataset("", split=args.train_split, is_training=True, **folders),
        is_training=True, scale=args.scale, ratio=[3 / 4, 4 / 3], hflip=args.hflip, vflip=args.vflip,
        color_jitter=args.color_jitter, interpolation=args.train_interpolation, **common,
    )  # fmt: skip
    val = create_loader(
        create_dataset("", split=args.val_split, is_training=False, **folders),
        interpolation=config["interpolation"], crop_pct=config["crop_pct"], **common,
    )  # fmt: skip
    criterion = LabelSmoothingCrossEntropy(args.smoothing)
    folder = utils.get_outdir(args.output, args.experiment)
    saver = utils.CheckpointSaver(
        model, optimizer, args, checkpoint_dir=folder, recovery_dir=folder
    )
    scheduler, epochs = create_scheduler_v2(
        optimizer, **scheduler_kwargs(args), updates_per_epoch=len(train)
    )
    for epoch in range(epochs):
        model.train()
        losses, top1 = utils.AverageMeter(), utils.AverageMeter()
        for step, (images, labels) in enumerate(train):
            optimizer.zero_grad()
            loss = criterion(model(images.contiguous(memory_format=layout)), labels)
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), images.size(0))
            scheduler.step_update(num_updates=epoch * len(train) + step + 1, metric=losses.avg)
            if step % args.log_interval == 0:
                print(
                    f"Train: {epoch} [{step:>4d}/{len(train)}]  Loss: {losses.avg:#.3g}", flush=True
                )
        model.eval()
        with torch.no_grad():
            for images, labels in val:
                output = model(images.contiguous(memory_format=layout))
                top1.update(utils.accuracy(output, labels)[0].item(), images.size(0))
        summary = os.path.join(folder, "summary.csv")
        utils.update_summary(epoch, {"loss": losses.avg}, {"top1": top1.avg}, summary)
        saver.save_checkpoint(epoch, metric=top1.avg)
        scheduler.step(epoch + 1, top1.avg)


if __name__ == "__main__":
    main()
