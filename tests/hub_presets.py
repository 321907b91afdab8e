"""Writes small presets of KerasHub, and model folders as timm and transformers write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CONVERTER = {"scale": [0.02, 0.01, 0.03], "offset": [-2.0, -1.0, 0.5]}
"""How ``image_converter.json`` scales each channel: pixel * scale + offset."""

CARD = "---\nlibrary_name: keras-hub\nlicense: mit\n---\n# Tiny\n"

TINY = {
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0],
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [1, 1],
        "stackwise_input_filters": [8, 8],
        "stackwise_output_filters": [8, 8],
        "stackwise_expansion_ratios": [1, 2],
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        "stackwise_strides": [2, 1],
        "stackwise_block_types": ["v1", "unfused"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, True],
        "num_features": 24,
    },
    "ResNetBackbone": {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64],
        "stackwise_num_blocks": [1],
        "stackwise_num_strides": [1],
        "block_type": "basic_block",
    },
    "ViTBackbone": {
        "image_shape": [32, 32, 3],
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 32,
    },
    "DINOV2Backbone": {
        "patch_size": 14,
        "num_layers": 2,
        "hidden_dim": 16,
        "num_heads": 2,
        "intermediate_dim": 32,
        "num_register_tokens": 2,
        "image_shape": [56, 56, 3],
        "position_embedding_shape": [56, 56],
    },
}
"""The arguments of a small backbone of each family, by the name of its class."""

SIZES = {"EfficientNetBackbone": 32, "ResNetBackbone": 32, "ViTBackbone": 32, "DINOV2Backbone": 28}
"""An image size for each backbone. That of DINOv2 is not 56, the size of its position embeddings."""


def write_texts(folder: Path, name: str) -> Path:
    """Writes all files of a preset except its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"registered_name": f"keras_hub>{name}", "class_name": name, "config": TINY[name]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "image_converter.json").write_text(json.dumps({"config": CONVERTER}))
    (folder / "metadata.json").write_text(json.dumps({"parameter_count": 1234}))
    (folder / "README.md").write_text(CARD)
    return folder


def write_preset(folder: Path, name: str) -> Path:
    """Writes a complete preset with random weights, none of which is the 0 or 1 of an initializer."""
    import keras
    import keras_hub

    write_texts(folder, name)
    keras.utils.set_random_seed(0)
    backbone = getattr(keras_hub.models, name)(**TINY[name])
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(variable + 0.05 * random.random(variable.shape))
    backbone.save_weights(str(folder / "model.weights.h5"))
    return folder


def write_timm_resnet18(folder: Path) -> dict[str, np.ndarray]:
    """Writes ``config.json`` and ``model.safetensors`` as timm does; returns the tensors."""
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {}
    random = np.random.default_rng(0)

    def add_conv(name: str, outputs: int, inputs: int, size: int) -> None:
        scale = (2 / (inputs * size**2)) ** 0.5
        kernel = random.standard_normal((outputs, inputs, size, size), np.float32)
        tensors[f"{name}.weight"] = kernel * np.float32(scale)

    def add_norm(name: str, channels: int) -> None:
        for part, low in (("weight", 0.5), ("bias", 0), ("running_mean", 0), ("running_var", 0.5)):
            tensors[f"{name}.{part}"] = random.random(channels, np.float32) + np.float32(low)

    add_conv("conv1", 64, 3, 7)
    add_norm("bn1", 64)
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            if width != inputs:
                add_conv(f"{name}.downsample.0", width, inputs, 1)
                add_norm(f"{name}.downsample.1", width)
            for number in (1, 2):
                add_conv(f"{name}.conv{number}", width, inputs, 3)
                add_norm(f"{name}.bn{number}", width)
                inputs = width
    folder.mkdir(parents=True)
    save_file(tensors, str(folder / "model.safetensors"))
    pretrained_cfg = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    config = {"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def write_transformers_vit(folder: Path) -> None:
    """Writes a small ViT whose tensors are named as in Hugging Face's transformers."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, 16),
        "embeddings.position_embeddings": (1, 17, 16),
        "embeddings.patch_embeddings.projection.weight": (16, 3, 8, 8),
        "embeddings.patch_embeddings.projection.bias": (16,),
        "layernorm.weight": (16,),
        "layernorm.bias": (16,),
    }
    dense = {f"attention.attention.{part}": (16, 16) for part in ("query", "key", "value")}
    dense |= {"attention.output.dense": (16, 16)}
    dense |= {"intermediate.dense": (32, 16), "output.dense": (16, 32)}
    for part, shape in dense.items():
        shapes[f"encoder.layer.0.{part}.weight"] = shape
        shapes[f"encoder.layer.0.{part}.bias"] = shape[:1]
    for part in ("layernorm_before", "layernorm_after"):
        shapes[f"encoder.layer.0.{part}.weight"] = (16,)
        shapes[f"encoder.layer.0.{part}.bias"] = (16,)
    folder.mkdir(parents=True)
    tensors = {f"vit.{name}": random.random(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, str(folder / "model.safetensors"))
    config = {
        "model_type": "vit",
        "image_size": 32,
        "patch_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.2, 0.1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
