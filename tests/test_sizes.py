import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.errors import UserError
from seedtf.training.sizes import Stage, make_stages


def test_off_is_one_stage() -> None:
    assert make_stages("off", 64, 7, 32) == [Stage(64, 0, 7)]


def test_auto_is_two_thirds_for_the_first_half() -> None:
    assert make_stages("auto", 224, 20, 32) == [Stage(144, 0, 10), Stage(224, 10, 20)]
    assert make_stages("auto", 48, 12, 32) == [Stage(32, 0, 6), Stage(48, 6, 12)]


def test_auto_goes_no_lower_than_the_network_takes() -> None:
    assert make_stages("auto", 40, 12, 32) == [Stage(40, 0, 12)]


def test_named_sizes_share_the_epochs() -> None:
    stages = make_stages("32,48", 64, 9, 32)
    assert stages == [Stage(32, 0, 3), Stage(48, 3, 6), Stage(64, 6, 9)]


@given(st.lists(st.integers(32, 99), min_size=1, max_size=5, unique=True), st.integers(1, 60))
def test_stages_cover_every_epoch_once_in_rising_sizes(sizes: list[int], epochs: int) -> None:
    stages = make_stages(",".join(map(str, sorted(sizes))), 100, epochs, 32)
    covered = [epoch for stage in stages for epoch in range(stage.first, stage.last)]
    assert covered == list(range(epochs))
    assert [s.size for s in stages] == sorted({s.size for s in stages})
    assert stages[-1].size == 100


@pytest.mark.parametrize("text", ["48,32", "32,32", "16", "64", "a", "", "32,,48"])
def test_what_is_no_such_list_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--progressive_sizes="):
        make_stages(text, 64, 9, 32)
