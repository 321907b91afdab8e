"""``resolve`` replaces each ``auto`` by a value that suits the machine, or refuses the flags.

It does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.model.backbones import ImageSizes
from seedtf.model.presets import Preset
from seedtf.training.machine import Machine
from seedtf.training.plan import batch_norm_momentum
from seedtf.training.resolve import Settings, resolve

AMPERE, VOLTA = (8, 0), (7, 0)  # compute capabilities of two generations of NVIDIA GPUs


def resolved(machine: Machine | None = None, **flags: object) -> Settings:
    return resolve(TrainConfig(data_dir="x", **flags), machine or Machine(cores=4))


def test_the_modules_that_resolve_flags_import_no_tensorflow() -> None:
    modules = ("resolve", "plan", "segments", "machine")
    imports = "; ".join(f"import seedtf.training.{name}" for name in modules)
    check = "import sys; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", f"{imports}; {check}"], capture_output=True, text=True, check=True
    )
    assert process.stdout == "[]\n"


def test_on_a_cpu_auto_means_float32_no_xla_and_augmentation_on_the_host() -> None:
    settings = resolved()
    assert settings.precision.policy == "float32"
    assert not settings.compilation.enabled
    assert not settings.augments_on_device
    assert settings.devices.kind == "none"
    assert settings.config.threads == 4


def test_on_a_gpu_auto_means_16_bits_xla_and_augmentation_on_the_gpu() -> None:
    settings = resolved(Machine(gpus=(AMPERE,)))
    assert settings.precision.policy == "mixed_bfloat16"
    assert settings.compilation.enabled
    assert settings.augments_on_device


@pytest.mark.parametrize(
    ("name", "value"), [("augment_impl", "tf_image"), ("data_service", "server:5000")]
)
def test_the_help_names_the_flags_that_keep_augmentation_on_the_host(name: str, value: str) -> None:
    settings = resolved(Machine(gpus=(AMPERE,)), **{name: value})
    assert not settings.augments_on_device
    assert settings.placement_reason.startswith(f"on the host: --{name}")
    (placement,) = (f for f in dataclasses.fields(TrainConfig) if f.name == "placement")
    assert f"--{name} is" in placement.metadata["help"]


def test_the_gpu_with_the_lowest_compute_capability_decides_the_precision() -> None:
    assert resolved(Machine(gpus=(AMPERE, VOLTA))).precision.policy == "mixed_float16"


@pytest.mark.parametrize(
    ("flags", "lr"),
    [
        ({"weights": "none"}, 1e-3),
        ({"weights": "imagenet"}, 1e-4),
        ({"weights": "imagenet", "model": "efficientnetb0"}, 2.5e-3),
        ({"weights": "imagenet", "recipe": "fast"}, 1e-4),
        ({"weights": "imagenet", "model": "convnexttiny"}, 1e-4),
        ({"weights": "imagenet", "optimizer": "sgd"}, 5e-3),
        ({"weights": "none", "recipe": "finetune"}, 1e-3),
        ({"weights": "none", "optimizer": "sgd"}, 5e-2),
        ({"weights": "none", "lr": 0.25}, 0.25),
    ],
)
def test_the_default_learning_rate_follows_optimizer_weights_recipe_and_network(
    flags: dict[str, object], lr: float
) -> None:
    machine = Machine(networks=("ResNet50", "ConvNeXtTiny", "EfficientNetB0"))
    assert resolved(machine, **flags).lr == pytest.approx(lr)


@pytest.mark.parametrize(
    ("name", "lr"), [("EfficientNetBackbone", 2.5e-3), ("VGGBackbone", 1e-4), ("ViTBackbone", 1e-4)]
)
def test_only_presets_of_efficientnets_are_finetuned_at_a_high_rate(name: str, lr: float) -> None:
    # ``resolve`` does not read the files of the preset, so the folder need not exist.
    preset = Preset(
        source="/gone",
        backbone={"class_name": name, "config": {}},
        scale=1.0,
        offset=0.0,
        sizes=ImageSizes(),
        licence="mit",
        parameters=0,
    )
    config = TrainConfig(data_dir="x", model="/gone")
    assert resolve(config, Machine(hub=True), preset).lr == pytest.approx(lr)


def test_with_a_warm_up_the_learning_rate_is_set_at_every_step() -> None:
    assert not resolved(schedule_per_step=False).lr_per_step
    assert resolved(schedule_per_step=False, warmup_epochs=1.0).lr_per_step


def test_optimizers_of_addons_have_no_decay_by_default() -> None:
    machine = Machine(keras_2=True, addons=True)
    assert resolved(machine, optimizer="radam").weight_decay == 0.0
    assert resolved(machine, optimizer="adamw").weight_decay == 0.05
    # With Keras 2, lamb is the optimizer of TensorFlow Addons.
    assert resolved(machine, optimizer="lamb").weight_decay == 0.0
    assert resolved(Machine(), optimizer="lamb").weight_decay == 0.05


WORKERS = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": %d}}'


def test_every_gpu_of_every_worker_is_a_replica() -> None:
    settings = resolved(Machine(gpus=(AMPERE, AMPERE), tf_config=WORKERS % 1))
    assert settings.devices.kind == "multi_worker"
    assert (settings.devices.replicas, settings.devices.workers) == (4, 2)
    assert not settings.devices.chief
    assert not settings.compilation.enabled


def test_only_a_given_batch_size_must_be_a_multiple_of_the_number_of_gpus() -> None:
    machine = Machine(gpus=(AMPERE, AMPERE, AMPERE))
    assert resolved(machine).devices.replicas == 3
    with pytest.raises(UserError, match=r"--batch_size=32: 3 replicas .* pass 30 or 33"):
        resolved(machine, batch_size=32)


@pytest.mark.parametrize(
    ("machine", "flags", "message"),
    [
        (Machine(), {"model": "resnet5O"}, "--model=resnet5O is not a known network.*ResNet50"),
        (Machine(), {"image_size": 16}, "--image_size=16 is too small for --model=ResNet50"),
        (Machine(), {"progressive_sizes": "8"}, "--progressive_sizes=8: pass rising sizes from 32"),
        (Machine(), {"warmup_epochs": 99.0}, "--warmup_epochs=99"),
        (Machine(), {"min_lr": 0.5}, "--min_lr=0.5"),
        (Machine(), {"optimizer": "ranger"}, "--optimizer=ranger: needs TensorFlow Addons"),
        (Machine(), {"augment_impl": "addons"}, "--augment_impl=addons: needs TensorFlow Addons"),
        (Machine(trackers=frozenset()), {"track": "mlflow"}, "--track=mlflow: .* not installed"),
        (Machine(), {"strategy": "multi_worker"}, "--strategy=multi_worker: TF_CONFIG is not set"),
        (Machine(tf_config="{"), {}, "TF_CONFIG is not JSON"),
        (
            Machine(tf_config=WORKERS % 0),
            {"dry_run": True},
            "--dry_run: works on one machine only; unset TF_CONFIG, or",
        ),
        (
            Machine(slurm_config=WORKERS % 0),
            {"dry_run": True},
            "--dry_run: works on one machine only; start seedtf without srun, or",
        ),
        (Machine(tf_config=WORKERS % 0), {"batch_size": 31}, "--batch_size=31: 2 replicas"),
        (
            Machine(tf_config=WORKERS % 0),
            {"ema_horizon": 0.1},
            "--ema_horizon=0.1: averages on one",
        ),
        (
            Machine(tf_config=WORKERS % 0, keras_2=True),
            {},
            "--strategy=auto: TF_CONFIG names 2 workers, which needs Keras 3",
        ),
        (
            Machine(gpus=(AMPERE, AMPERE), keras_2=True),
            {"jit_compile": "on"},
            "--jit_compile=on: 2 replicas share a step",
        ),
        (
            Machine(gpus=(AMPERE, AMPERE), keras_2=True, addons=True),
            {"optimizer": "swa"},
            "--optimizer=swa: trains on one device only",
        ),
        (
            Machine(),
            {"placement": "device", "augment_impl": "tf_image"},
            "--placement=device: --augment_impl=tf_image cannot be compiled",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_data_is_read(
    machine: Machine, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolved(machine, **flags)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 10**6))
def test_after_an_epoch_of_50_or_more_steps_the_earlier_batch_norm_statistics_hardly_count(
    steps_per_epoch: int,
) -> None:
    momentum = batch_norm_momentum(steps_per_epoch)
    assert 0.8 <= momentum <= 0.99
    if steps_per_epoch >= 50:
        assert momentum**steps_per_epoch < 1e-4


def test_batch_norm_momentum_rises_with_the_steps_per_epoch_up_to_the_default_of_keras() -> None:
    assert batch_norm_momentum(74) == pytest.approx(1 - 10 / 74)
    assert batch_norm_momentum(100_000) == 0.99
    assert batch_norm_momentum(3) == 0.8
