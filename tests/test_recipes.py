"""Recipes: named defaults, which a given flag overrides."""

import dataclasses

import pytest

from seedtf.config.recipes import RECIPES, recipe_changes
from seedtf.config.train_config import TrainConfig


def test_every_recipe_sets_the_same_flags_whose_own_default_is_none() -> None:
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
    }
    config = TrainConfig(data_dir="x", recipe="original")
    # values of the Kaggle solution that are the default of every recipe
    assert (config.cycle_epochs, config.cycle_decay, config.decay) == (10.0, 0.8, 0.0)


def test_a_flag_overrides_its_recipe_even_with_another_recipes_value() -> None:
    config = TrainConfig(data_dir="x", recipe="fast", epochs=7, label_smoothing=0.0)
    assert (config.epochs, config.label_smoothing) == (7, 0.0)
    assert config.optimizer == RECIPES["fast"]["optimizer"]
    assert recipe_changes("fast", config.as_dict()) == {"epochs": 7, "label_smoothing": 0.0}


def test_the_help_names_the_default_of_every_recipe() -> None:
    field = {each.name: each for each in dataclasses.fields(TrainConfig)}["epochs"]
    assert field.metadata["default_text"] == "original 200, fast 20"


def test_a_flagfile_holds_the_values_that_the_recipe_set() -> None:
    lines = TrainConfig(data_dir="/x", recipe="original").flagfile().splitlines()
    assert "--recipe=original" in lines
    assert "--epochs=200" in lines


def test_the_fast_recipe_is_the_default_and_has_the_measured_values() -> None:
    config = TrainConfig(data_dir="x")
    assert (config.recipe, config.epochs, config.optimizer) == ("fast", 20, "adamw")
    assert (config.schedule, config.schedule_per_step) == ("one_cycle", True)
    assert (config.label_smoothing, config.zero_init_residual) == (0.1, True)
    assert (config.weight_decay, config.bn_momentum) == ("auto", "auto")
