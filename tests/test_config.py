"""``TrainConfig`` and the groups of flags in it: help, ranges, choices, and the flagfile of a run."""

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from seedtf.commands.arguments import parse_config
from seedtf.config.augment_flags import AugmentFlags
from seedtf.config.data_flags import DataFlags
from seedtf.config.flags import default_cache_dir
from seedtf.config.network_flags import NetworkFlags
from seedtf.config.optim_flags import OptimFlags
from seedtf.config.recipes import RecipeFlags
from seedtf.config.run_flags import DeviceFlags, RunFlags
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.runs.saved_config import resumed_config

PACKAGE = Path(__file__).resolve().parent.parent / "seedtf"
# Flags of seedtf train on which users rely: none of them may disappear.
RELIED_ON_FLAGS = [
    "data_dir",
    "val_dir",
    "val_fraction",
    "labels_csv",
    "split_csv",
    "run_dir",
    "image_size",
    "cache",
    "model",
    "weights",
    "freeze_epochs",
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "min_lr",
    "schedule",
    "cycle_epochs",
    "cycle_decay",
    "warmup_epochs",
    "crop",
    "stretch",
    "rotate",
    "shear",
    "flip",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "augment_strength",
    "augment_impl",
    "precision",
    "jit_compile",
    "patience",
    "time_limit",
    "seed",
    "track",
]


def parse(*arguments: str) -> TrainConfig:
    return parse_config(TrainConfig, "train", list(arguments))


def test_no_flag_on_which_users_rely_has_disappeared() -> None:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(RELIED_ON_FLAGS) <= names


def test_the_help_of_a_flag_is_a_sentence_and_gives_the_range_of_a_number() -> None:
    for field in dataclasses.fields(TrainConfig):
        text, is_number = field.metadata["help"], str(field.type).split(" ")[0] in ("int", "float")
        assert text.endswith("."), field.name
        if is_number:
            assert any(character.isdigit() for character in text), field.name


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("val_fraction", 0.0, "0.01 to 0.9"),
        ("image_size", 7, "8 to 2048"),
        ("epochs", 0, "1 or more"),
        ("crop", 0.95, "0 to 0.9"),
        ("hue", -1.0, "0 to 180"),
        ("lr", 0.0, "1e-12 to 100"),
        ("augment_strength", float("nan"), "0 to 10"),
        ("time_limit", float("inf"), "0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float, allowed: str) -> None:
    with pytest.raises(UserError) as refusal:
        TrainConfig(data_dir="x", **{name: value})
    assert str(refusal.value) == f"--{name}={value}: out of range; pass {allowed}"


@pytest.mark.parametrize("name", ["cache", "optimizer", "schedule", "flip", "precision", "recipe"])
def test_an_unknown_choice_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name}=bogus: choose one of "):
        TrainConfig(data_dir="x", **{name: "bogus"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--data_dir is missing"),
        ({"data_dir": "x", "val_dir": "y", "split_csv": "z"}, "exclude each other"),
        ({"data_dir": "x", "lr": 1e-4, "min_lr": 1e-3}, "--min_lr=0.001 exceeds --lr=0.0001"),
        ({"data_dir": "x", "epochs": 2, "freeze_epochs": 2}, "--freeze_epochs=2 leaves no epoch"),
        ({"data_dir": "x", "snapshots": True}, "--schedule=one_cycle has no cycles"),
        (
            {"data_dir": "x", "snapshots": True, "schedule": "cyclic", "epochs": 9},
            "no cycle of --cycle_epochs=10 ends within --epochs=9",
        ),
    ],
)
def test_missing_or_contradictory_flags_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**options)


GROUPS = (DataFlags, RecipeFlags, NetworkFlags, OptimFlags, AugmentFlags, RunFlags, DeviceFlags)


def test_the_configuration_has_the_flags_of_all_groups_in_order() -> None:
    names = [name for group in GROUPS for name in inspect.get_annotations(group)]
    flags = [name for name in names if name != "HEADING"]
    assert flags == [field.name for field in dataclasses.fields(TrainConfig)]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_has_the_defaults_of_the_configuration(group: type) -> None:
    config = TrainConfig(data_dir="x")
    defaults = dataclasses.asdict(group())
    defaults.pop("data_dir", None)
    assert defaults == {name: getattr(config, name) for name in defaults}


def test_a_group_alone_checks_its_flags_and_its_recipe() -> None:
    assert OptimFlags(recipe="original").epochs == 200
    assert NetworkFlags(recipe="original").bn_momentum == 0.99
    with pytest.raises(UserError, match="--val_dir and --split_csv exclude each other"):
        DataFlags(val_dir="a", split_csv="b")
    with pytest.raises(UserError, match="--hue=400: out of range; pass 0 to 180"):
        AugmentFlags(hue=400)
    with pytest.raises(UserError, match="--recipe=slow: choose one of auto, original, fast"):
        OptimFlags(recipe="slow")


def test_path_objects_become_strings(tmp_path) -> None:
    config = TrainConfig(data_dir=tmp_path, run_dir=tmp_path / "run", weights=tmp_path / "w.keras")
    assert (config.data_dir, config.run_dir) == (str(tmp_path), str(tmp_path / "run"))
    assert config.weights == str(tmp_path / "w.keras")
    assert config.has_weights_file


def test_augment_strength_multiplies_the_ranges_of_the_policy() -> None:
    flags = AugmentFlags(crop=0.2, rotate=90.0, flip="none", augment_strength=0.5, cutmix=1.0)
    assert (flags.make_policy().crop, flags.make_policy().rotate, flags.make_policy().flip) == (
        0.1,
        45.0,
        "none",
    )
    assert AugmentFlags(crop=0.2, augment_strength="auto").make_policy().crop == 0.2
    assert (flags.make_mixing().mixup, flags.make_mixing().cutmix) == (0.0, 1.0)


def test_no_list_of_choices_is_written_twice_in_the_package() -> None:
    choice_lists = {field.metadata["choices"] for field in dataclasses.fields(TrainConfig)} - {()}
    written: dict[frozenset, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                values = [each.value for each in node.elts if isinstance(each, ast.Constant)]
                written.setdefault(frozenset(map(str, values)), []).append(path.name)
    for choices in choice_lists:
        # A list of choices may also be written without auto.
        spellings = {frozenset(choices), frozenset(choices) - {"auto"}}
        places = [place for spelling in spellings for place in written.get(spelling, [])]
        assert len(places) <= 1, (choices, places)


def test_flags_become_fields_and_dashes_count_as_underscores() -> None:
    config = parse("--data-dir=a-b", "--image-size=64", "--lr=0.01", "--show", "--cache=off")
    assert (config.data_dir, config.image_size, config.lr) == ("a-b", 64, 0.01)
    assert config.show is True
    assert config.cache == "off"
    assert config.epochs == TrainConfig(data_dir="x").epochs


def test_the_last_value_of_a_flag_that_is_given_twice_is_used() -> None:
    config = parse("--data_dir=x", "--show", "--noshow", "--seed=1", "--seed=2")
    assert config.show is False
    assert config.seed == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--image_sise=3", "unknown flag --image_sise; did you mean 'image_size'?; see --help"),
        ("--epochs=many", "--epochs=many: pass a whole number"),
        ("--crop=half", "--crop=half: pass a number"),
        ("--show=perhaps", "--show=perhaps: pass true or false"),
        ("stray", "'stray': one argument too many; flags are written --name=value; see --help"),
        ("--flagfile=/no/such/file", "/no/such/file"),
    ],
)
def test_a_mistyped_command_line_gives_a_one_line_error(argument: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse("--data_dir=x", argument)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["augment_strength", "bn_momentum", "rotate", "weight_decay"])
def test_a_flag_that_takes_a_number_or_auto_is_read_from_text_and_from_a_saved_run(
    name: str, tmp_path
) -> None:
    # The defaults of this recipe are numbers, so that auto can only come from the flag.
    assert getattr(parse("--data_dir=x", f"--{name}=auto", "--recipe=original"), name) == "auto"
    assert getattr(parse("--data_dir=x", f"--{name}=0.5"), name) == 0.5
    with pytest.raises(UserError, match=f"--{name}=much: pass a number from 0 to .*, or auto"):
        parse("--data_dir=x", f"--{name}=much")
    for value in ("auto", 0.5):
        config = TrainConfig(data_dir="x", **{name: value})
        (tmp_path / "config.json").write_text(json.dumps(config.as_dict()), encoding="utf-8")
        assert getattr(resumed_config(str(tmp_path), {name: str(value)}), name) == value
        with pytest.raises(UserError, match=f"--{name}=0.25: the run in .* has {value!r}"):
            resumed_config(str(tmp_path), {name: "0.25"})


def test_the_flagfile_repeats_the_configuration(tmp_path) -> None:
    config = TrainConfig(
        data_dir="sample", run_dir="runs/x", val_dir="some dir", lr=3e-4, show=True, seed=7
    )
    (tmp_path / "flags.txt").write_text(config.to_flagfile(), encoding="utf-8")
    repeated = parse(f"--flagfile={tmp_path / 'flags.txt'}")
    assert repeated.run_dir == ""  # left out, because the folder of the first run exists already
    assert repeated.val_dir.startswith("/")
    assert dataclasses.replace(repeated, run_dir="runs/x", val_dir="some dir") == config


def test_a_flagfile_of_a_release_without_zoom_out_repeats_its_run(tmp_path, capsys) -> None:
    config = TrainConfig(data_dir="sample", crop=0.2, zoom_out=0.0)
    lines = config.to_flagfile().splitlines()
    lines.remove("--zoom_out=0.0")
    (tmp_path / "flags.txt").write_text("\n".join(lines), encoding="utf-8")
    assert parse(f"--flagfile={tmp_path / 'flags.txt'}") == config
    assert "flagfile  --zoom_out=0, because" in capsys.readouterr().out
    assert parse("--data_dir=sample", "--recipe=finetune", "--crop=0.2").zoom_out == 0.1


def test_the_cache_folder_follows_xdg(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "seedtf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "seedtf"


def test_help_needs_no_tensorflow() -> None:
    script = (
        "import sys; from seedtf.commands.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "main(['--help'])\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in RELIED_ON_FLAGS:
        assert f"--{name}\n" in done.stdout
