"""A run is divided into segments, in each of which the image size and the trained layers are fixed.

Each segment is one ``fit`` call. A resumed run starts with the segment of its epoch and step. A size
stage is a range of epochs with one image size, from ``--progressive_sizes``.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.errors import UserError
from seedtf.training.segments import SizeStage, parse_size_stages, plan_segments


def test_with_off_there_is_one_size_stage() -> None:
    assert parse_size_stages("off", 64, 7, 32) == [SizeStage(64, 0, 7)]


def test_auto_trains_the_first_half_at_about_two_thirds_of_the_size() -> None:
    assert parse_size_stages("auto", 224, 20, 32) == [SizeStage(144, 0, 10), SizeStage(224, 10, 20)]
    assert parse_size_stages("auto", 48, 12, 32) == [SizeStage(32, 0, 6), SizeStage(48, 6, 12)]


def test_auto_gives_one_stage_if_two_thirds_of_the_size_are_too_small_for_the_network() -> None:
    assert parse_size_stages("auto", 40, 12, 32) == [SizeStage(40, 0, 12)]


def test_given_sizes_divide_the_epochs_evenly() -> None:
    stages = parse_size_stages("32,48", 64, 9, 32)
    assert stages == [SizeStage(32, 0, 3), SizeStage(48, 3, 6), SizeStage(64, 6, 9)]


@given(st.lists(st.integers(32, 99), min_size=1, max_size=5, unique=True), st.integers(1, 60))
def test_stages_cover_every_epoch_once_in_rising_sizes(sizes: list[int], epochs: int) -> None:
    stages = parse_size_stages(",".join(map(str, sorted(sizes))), 100, epochs, 32)
    covered = [epoch for stage in stages for epoch in range(stage.first, stage.end)]
    assert covered == list(range(epochs))
    assert [s.size for s in stages] == sorted({s.size for s in stages})
    assert stages[-1].size == 100


@pytest.mark.parametrize("text", ["48,32", "32,32", "16", "64", "a", "", "32,,48"])
def test_a_value_that_is_not_a_list_of_rising_sizes_in_range_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--progressive_sizes="):
        parse_size_stages(text, 64, 9, 32)


STAGES = [SizeStage(32, 0, 3), SizeStage(64, 3, 6)]


def segments_from(**position: int) -> list[tuple[int, int, int, int, bool]]:
    """First epoch, end epoch, start step, image size and ``train_body`` of each segment."""
    found = plan_segments(STAGES, epochs=6, freeze_epochs=2, **position)
    return [(s.first_epoch, s.end_epoch, s.start_step, s.image_size, s.train_body) for s in found]


def test_a_segment_ends_where_the_image_size_or_the_trained_layers_change() -> None:
    assert segments_from() == [(0, 2, 0, 32, False), (2, 3, 0, 32, True), (3, 6, 0, 64, True)]


def test_an_interrupted_epoch_is_a_segment_of_its_own() -> None:
    assert segments_from(epoch=3, step=5) == [(3, 4, 5, 64, True), (4, 6, 0, 64, True)]
    assert segments_from(epoch=1, step=1)[0] == (1, 2, 1, 32, False)


def test_a_finished_run_has_no_segments() -> None:
    assert segments_from(epoch=6) == []


def test_what_is_restored_depends_on_the_epoch_and_step_of_the_state() -> None:
    def restored(epoch: int, step: int = 0) -> list[tuple[str, ...]]:
        found = plan_segments(STAGES, epochs=6, freeze_epochs=2, epoch=epoch, step=step)
        return [segment.restore for segment in found]

    assert restored(0) == [(), (), ()]
    assert restored(1) == [("optimizer",), (), ()]
    # The first two epochs train the head alone, the later ones all layers. The state after two epochs
    # has the optimizer of the head alone, so this optimizer is not restored.
    assert restored(2) == [(), ()]
    assert restored(2, 4) == [("optimizer", "metrics"), ()]
    assert restored(4) == [("optimizer",)]


def test_a_run_of_one_epoch_trains_at_the_full_size() -> None:
    assert parse_size_stages("32,33", 100, 1, 32) == [SizeStage(100, 0, 1)]


@given(
    epochs=st.integers(1, 12),
    freeze=st.integers(0, 11),
    num_sizes=st.integers(0, 3),
    every_epoch=st.booleans(),
    epochs_done=st.integers(0, 12),
    step=st.integers(0, 3),
)
def test_segments_cover_each_remaining_epoch_once_and_in_order(
    *, epochs: int, freeze: int, num_sizes: int, every_epoch: bool, epochs_done: int, step: int
) -> None:
    freeze, epochs_done = min(freeze, epochs - 1), min(epochs_done, epochs)
    step = step if epochs_done < epochs else 0
    text = ",".join(str(16 * (n + 1)) for n in range(num_sizes)) or "off"
    stages = parse_size_stages(text, 100, epochs, 8)
    found = plan_segments(
        stages,
        epochs=epochs,
        freeze_epochs=freeze,
        every_epoch=every_epoch,
        epoch=epochs_done,
        step=step,
    )
    covered = [epoch for s in found for epoch in range(s.first_epoch, s.end_epoch)]
    assert covered == list(range(epochs_done, epochs))
    assert [s.start_step for s in found] == [step, *[0] * (len(found) - 1)][: len(found)]
    for segment in found:
        assert segment.train_body == (segment.first_epoch >= freeze)
        assert segment.phase_start == (freeze if segment.train_body else 0)
        (stage,) = [s for s in stages if s.first <= segment.first_epoch < s.end]
        assert segment.image_size == stage.size
        assert segment.end_epoch <= stage.end
        assert not every_epoch or segment.end_epoch - segment.first_epoch == 1
