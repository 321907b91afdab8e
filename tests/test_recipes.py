"""A recipe is a named set of defaults, which given flags override.

With ``--recipe=auto``, the default, the initial weights decide the recipe.
"""

import dataclasses
import json

import pytest

from seedtf.config.augment_flags import AugmentFlags
from seedtf.config.recipes import AUTO, RECIPES, recipe_changes
from seedtf.config.train_config import TrainConfig
from seedtf.runs.saved_config import continued_config, load_resumed, resumed_config


def test_every_recipe_sets_the_same_flags_and_only_those_without_a_default() -> None:
    fields = {each.name: each for each in dataclasses.fields(TrainConfig)}
    for values in RECIPES.values():
        assert set(values) == set(RECIPES["fast"])
        assert all(fields[name].default is None for name in values)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_sets_its_flags(recipe: str) -> None:
    config = TrainConfig(data_dir="x", recipe=recipe)
    assert {name: getattr(config, name) for name in RECIPES[recipe]} == RECIPES[recipe]
    assert recipe_changes(recipe, config.as_dict()) == {}


def test_the_recipe_original_is_the_kaggle_solution() -> None:
    assert RECIPES["original"] == {
        "epochs": 200,
        "optimizer": "adam",
        "schedule": "cyclic",
        "schedule_per_step": False,
        "bn_momentum": 0.99,
        "zero_init_residual": False,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "augment_strength": 1.0,
        "crop": 0.2,
        "zoom_out": 0.0,
        "rotate": 0.0,
    }
    config = TrainConfig(data_dir="x", recipe="original")
    assert config.weight_decay_in_use == 0.0
    # The cycles of the Kaggle solution are the defaults of every recipe.
    assert (config.cycle_epochs, config.cycle_decay) == (10.0, 0.8)


def test_a_given_flag_overrides_the_recipe_even_with_a_value_of_another_recipe() -> None:
    config = TrainConfig(data_dir="x", recipe="fast", epochs=7, label_smoothing=0.0)
    assert (config.epochs, config.label_smoothing) == (7, 0.0)
    assert config.optimizer == RECIPES["fast"]["optimizer"]
    assert recipe_changes("fast", config.as_dict()) == {"epochs": 7, "label_smoothing": 0.0}


def test_the_help_names_the_default_of_every_recipe() -> None:
    field = {each.name: each for each in dataclasses.fields(TrainConfig)}["epochs"]
    assert field.metadata["default_text"] == "original 200, fast 20, finetune 12"


def test_a_flagfile_holds_the_values_that_the_recipe_set() -> None:
    lines = TrainConfig(data_dir="/x", recipe="original").to_flagfile().splitlines()
    assert "--recipe=original" in lines
    assert "--epochs=200" in lines


@pytest.mark.parametrize(
    ("weights", "recipe"),
    [("none", "fast"), ("imagenet", "finetune"), ("some.keras", "finetune")],
)
def test_by_default_the_initial_weights_decide_the_recipe(weights: str, recipe: str) -> None:
    config = TrainConfig(data_dir="x", weights=weights)
    assert (config.recipe, config.recipe_in_use) == (AUTO, recipe)
    explicit = TrainConfig(data_dir="x", weights=weights, recipe=recipe)
    assert dataclasses.replace(config, recipe=recipe) == explicit


@pytest.mark.parametrize("weights", ["none", "imagenet"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_requested_recipe_does_not_depend_on_the_weights(recipe: str, weights: str) -> None:
    assert TrainConfig(data_dir="x", recipe=recipe, weights=weights).recipe_in_use == recipe


def test_the_fast_recipe_has_the_values_that_were_measured() -> None:
    config = TrainConfig(data_dir="x", weights="none")
    assert (config.recipe_in_use, config.epochs, config.optimizer) == ("fast", 20, "adamw")
    assert (config.schedule, config.schedule_per_step) == ("one_cycle", True)
    assert (config.label_smoothing, config.zero_init_residual) == (0.1, True)
    assert (config.weight_decay, config.bn_momentum) == ("auto", "auto")
    assert (config.augment_strength, config.make_policy().crop) == (0.5, 0.05)
    assert TrainConfig(data_dir="x").augment_strength == 1.0


@pytest.mark.parametrize(("recipe", "largest"), [("finetune", 0.1), ("fast", 0.05)])
def test_objects_have_on_average_the_size_of_evaluated_ones(recipe: str, largest: float) -> None:
    policy = TrainConfig(data_dir="x", recipe=recipe).make_policy()
    assert policy.crop == policy.zoom_out == largest


def test_a_run_of_a_release_without_zoom_out_resumes_and_continues_without_it(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"data_dir": "d", "recipe": "finetune", "crop": 0.2}')
    resumed = resumed_config(str(tmp_path), {})
    assert (resumed.crop, resumed.zoom_out) == (0.2, 0.0)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.keras").touch()
    continued = continued_config(str(tmp_path), {})
    assert (continued.crop, continued.zoom_out) == (0.2, 0.0)
    other = continued_config(str(tmp_path), {"recipe": "fast"})
    assert (other.crop, other.zoom_out) == (0.1, 0.1)


def test_finetune_rotates_by_up_to_180_degrees_if_flip_is_both() -> None:
    angles = {flip: AugmentFlags(rotate="auto", flip=flip).rotation for flip in ("both", "none")}
    assert angles == {"both": 180.0, "none": 0.0}
    assert AugmentFlags(rotate=15.0, flip="both").rotation == 15.0
    assert TrainConfig(data_dir="x", weights="none").rotation == 0.0
    assert TrainConfig(data_dir="x", flip="horizontal").rotation == 0.0


def write_run(folder, **flags) -> str:
    """Writes a run folder with the flags and an empty model file alone; returns its path."""
    config = TrainConfig(data_dir="x", **flags)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.keras").write_bytes(b"")
    (folder / "config.json").write_text(json.dumps(config.as_dict()), encoding="utf-8")
    return str(folder)


def test_a_run_saved_before_recipe_auto_existed_keeps_its_recipe(tmp_path) -> None:
    run_dir = write_run(tmp_path, recipe="fast")
    for config in (resumed_config(run_dir, {}), load_resumed(TrainConfig(resume=run_dir))):
        assert (config.recipe, config.recipe_in_use, config.epochs) == ("fast", "fast", 20)


@pytest.mark.parametrize(("weights", "recipe"), [("none", "fast"), ("imagenet", "finetune")])
def test_resume_and_continue_keep_the_recipe_that_auto_chose(tmp_path, weights, recipe) -> None:
    run_dir = write_run(tmp_path, weights=weights)
    resumed = resumed_config(run_dir, {"recipe": "auto"})
    assert (resumed.recipe, resumed.recipe_in_use) == ("auto", recipe)
    # The new run starts from trained weights, for which auto would choose finetune.
    continued = continued_config(run_dir, {"epochs": 3})
    assert (continued.recipe, continued.epochs) == (recipe, 3)
    assert recipe_changes(recipe, continued.as_dict()) == {"epochs": 3}
    chosen_again = continued_config(run_dir, {"recipe": "auto"})
    assert chosen_again.recipe_in_use == "finetune"
    assert recipe_changes("finetune", chosen_again.as_dict()) == {}
