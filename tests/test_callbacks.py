"""The callbacks of training, in the ``fit`` of a tiny model; clocks and terminals are fakes."""

from __future__ import annotations

import fcntl
import io
import math
import os
import pty
import re
import struct
import sys
import termios
import time
import types

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from seedtf.errors import UserError
from seedtf.report import silent
from seedtf.runs.history import best_epoch, read_history, strength_varies
from seedtf.runs.paths import RunPaths
from seedtf.training.callbacks import (
    BestCheckpoint,
    ConsoleLine,
    EpochTimer,
    HistoryLog,
    LastCheckpoint,
    LearningRate,
    LiveCurves,
    Patience,
    Position,
    SavePolicy,
    SaveState,
    StopOnNaN,
    TimeLimit,
    live_view,
)
from seedtf.training.stop_signal import StopSignal

STEPS = 4
BATCH = 8
# Earlier versions of seedtf wrote history.csv without a column for the augmentation strength.
OLD_HEADER = "epoch,lr,loss,accuracy,val_loss,val_accuracy"
HEADER = f"{OLD_HEADER},augment_strength"


class Clock:
    """A clock that is set by hand and advances by ``step`` at every reading."""

    def __init__(self, step=0.0):
        self.now = 100.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Losses(keras.callbacks.Callback):
    """Replaces the measured ``val_loss`` by values from a list, for the callbacks after this one."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.losses[epoch]


@pytest.fixture(scope="module")
def compiled():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def fit(compiled):
    """A function that fits the model. Every test starts from the same weights."""
    images = np.random.default_rng(0).normal(size=(STEPS * BATCH, 3)).astype("float32")
    labels = (images[:, 0] > 0).astype("int32")
    weights = compiled.get_weights()

    def run(callbacks, epochs=2, initial_epoch=0, images=images):
        compiled.fit(
            images,
            labels,
            batch_size=BATCH,
            validation_data=(images, labels),
            epochs=epochs,
            initial_epoch=initial_epoch,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
        return compiled

    yield run
    compiled.set_weights(weights)
    compiled.optimizer.learning_rate = 0.01


def make_log(folder, timer=None, **kwargs):
    timer = timer or EpochTimer(BATCH, clock=Clock())
    return HistoryLog(folder / "history.csv", folder / "timing.csv", timer, **kwargs)


def resumed_log(folder, losses):
    """The log of a run that was interrupted after epochs with these validation losses."""
    first = make_log(folder)
    for epoch, loss in enumerate(losses):
        first.on_epoch_end(epoch, {"val_loss": loss})
    return make_log(folder, completed_epochs=len(losses))


# --- learning rate -----------------------------------------------------------------------------


class Rates(keras.callbacks.Callback):
    """Records the learning rate before each step, and the ``lr`` in the logs of each epoch."""

    def __init__(self):
        super().__init__()
        self.step_rates = []
        self.logged_rates = []

    def on_train_batch_begin(self, batch, logs=None):
        self.step_rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        self.logged_rates.append(logs["lr"])


def make_position_and_rate(schedule, *, per_step, **resumed):
    position = Position(**resumed)
    return position, LearningRate(
        schedule, per_step=per_step, steps_per_epoch=STEPS, position=position
    )


def test_a_rate_per_epoch_is_set_before_the_first_step_of_its_epoch(fit):
    position, rate = make_position_and_rate(lambda epoch: 0.1 + epoch, per_step=False)
    seen = Rates()
    fit([position, rate, seen], epochs=2)
    assert seen.step_rates == pytest.approx([0.1] * STEPS + [1.1] * STEPS)
    assert seen.logged_rates == [0.1, 1.1] == rate.planned(2)


def test_a_rate_per_step_is_set_before_every_step(fit):
    position, rate = make_position_and_rate(lambda epoch: 0.1 + epoch, per_step=True)
    seen = Rates()
    fit([position, rate, seen], epochs=2)
    assert seen.step_rates == pytest.approx([0.1 + step / STEPS for step in range(2 * STEPS)])
    assert seen.logged_rates == [0.85, 1.85] == rate.planned(2)


def test_a_second_fit_continues_the_schedule(fit):
    position, rate = make_position_and_rate(lambda epoch: 1 + epoch, per_step=False)
    seen = Rates()
    fit([position, rate, seen], epochs=1)
    fit([position, rate, seen], epochs=3, initial_epoch=1)
    assert seen.logged_rates == [1, 2, 3]


def test_a_resumed_epoch_starts_at_the_saved_step_and_the_next_epoch_at_step_0(fit):
    position, rate = make_position_and_rate(
        lambda epoch: 0.1 + epoch, per_step=True, resumed_epoch=1, resumed_step=3
    )
    seen = Rates()
    fit([position, rate, seen], epochs=3, initial_epoch=1)
    # The `fit` of this test always has four steps, so the resumed epoch runs past its end.
    rates_of_resumed_epoch = [1.1 + step / STEPS for step in range(3, 3 + STEPS)]
    rates_of_next_epoch = [2.1 + step / STEPS for step in range(STEPS)]
    assert seen.step_rates == pytest.approx(rates_of_resumed_epoch + rates_of_next_epoch)
    assert (position.epoch, position.step) == (2, STEPS - 1)


# --- checkpoints -------------------------------------------------------------------------------


def make_policy(busy: bool = False, stopping: bool = False) -> SavePolicy:
    return SavePolicy(3, busy=lambda: busy, stopping=lambda: stopping)


def test_only_a_new_minimum_is_saved_as_best(fit, tmp_path):
    saved = []
    log = make_log(tmp_path)
    best = BestCheckpoint(
        tmp_path / "best.keras",
        lambda model, path: saved.append((model, path, log.rows[-1]["epoch"])),
        log,
    )
    losses = [math.nan, math.inf, 3.0, 4.0, 2.0, 2.0, math.nan]
    model = fit([Losses(losses), log, best], epochs=7)
    assert saved == [(model, tmp_path / "best.keras", epoch) for epoch in (3, 5)]
    assert best_epoch(log.rows) == 5


def test_a_resumed_run_knows_its_best_epoch(fit, tmp_path):
    log = resumed_log(tmp_path, [3.0, 1.0])
    saved = []
    best = BestCheckpoint(tmp_path, lambda *what: saved.append(what), log)
    fit([Losses([0.0, 0.0, 2.0, 1.0]), log, best], epochs=4, initial_epoch=2)
    assert saved == []
    assert best_epoch(log.rows) == 2


def test_the_last_model_is_saved_after_every_epoch(fit, tmp_path):
    saved = []
    last = LastCheckpoint(
        tmp_path / "last.keras", lambda _, path: saved.append(path.name), make_policy()
    )
    fit([Losses([1.0, 2.0, math.nan]), last], epochs=3)
    assert saved == ["last.keras"] * 3


def test_while_earlier_files_are_being_written_only_the_last_epoch_is_saved(fit, tmp_path):
    saved = []
    policy = make_policy(busy=True)
    last = LastCheckpoint(tmp_path, lambda *_: saved.append("last"), policy)
    state = SaveState(
        lambda _, epoch, step: saved.append((epoch, step)),
        StopSignal(),
        lambda: "",
        Position(),
        policy=policy,
        skip_state=lambda: saved.append("skipped"),
        minutes=0,
        run_dir="",
    )
    fit([last, state], epochs=3)
    assert saved == ["skipped", "skipped", "last", (3, 0)]
    assert make_policy(busy=True, stopping=True).saves_after(0)


# --- timer -------------------------------------------------------------------------------------


def test_validation_counts_neither_in_images_per_second_nor_in_the_data_wait_fraction():
    clock = Clock()
    waited = iter([99.0, 1.5])  # the 99 s of waiting before the epoch do not count
    timer = EpochTimer(BATCH, take_data_wait=lambda: next(waited), clock=clock)
    timer.on_epoch_begin(0)
    for batch in (0, 2, 1):  # Keras 3 may report steps in another order
        clock.now += 2
        timer.on_train_batch_end(batch)
    assert timer.images_per_second == pytest.approx(3 * BATCH / 6)
    clock.now += 4
    timer.on_epoch_end(0)
    assert (timer.seconds, timer.data_wait) == (10.0, 1.5)
    assert timer.data_wait_fraction == pytest.approx(0.25)
    assert timer.images_per_second == pytest.approx(3 * BATCH / 6)


def test_the_time_left_ignores_the_first_epoch_which_compiles():
    clock = Clock()
    timer = EpochTimer(BATCH, clock=clock)
    assert timer.remaining(5) == 0.0
    for seconds, left in [(100, 500), (10, 50), (12, 55)]:
        timer.on_epoch_begin(0)
        clock.now += seconds
        timer.on_epoch_end(0)
        assert timer.remaining(5) == pytest.approx(left)


# --- history -----------------------------------------------------------------------------------


def test_history_csv_and_timing_csv_have_a_row_for_each_epoch(fit, tmp_path):
    timer = EpochTimer(BATCH, take_data_wait=lambda: 0.25, clock=Clock(step=0.5))
    log = make_log(tmp_path, timer)
    position, rate = make_position_and_rate(lambda epoch: 0.1 / (epoch + 1), per_step=False)
    fit([position, timer, rate, log], epochs=2)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0] == HEADER
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "0.1"], ["2", "0.05"]]
    assert read_history(tmp_path / "history.csv") == log.rows
    assert all(0 < row["val_accuracy"] <= 1 for row in log.rows)
    timing = (tmp_path / "timing.csv").read_text().splitlines()
    # The clock is read at the start and end of an epoch, after each of four steps, and before and after
    # validation: seven intervals of 0.5 s in an epoch, and another one between two epochs.
    assert timing == [
        "epoch,seconds,images_per_second,data_wait,validation,between",
        "1,3.5,16.0,0.25,0.5,0.0",
        "2,3.5,16.0,0.25,0.5,0.5",
    ]


def test_a_row_is_on_disk_when_its_epoch_ends(fit, tmp_path):
    log = make_log(tmp_path)
    seen = []
    count_lines = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            (tmp_path / "history.csv").read_text().count("\n")
        )
    )
    fit([log, count_lines], epochs=2)
    assert seen == [2, 3]


def test_a_value_that_was_not_reported_is_nan(tmp_path):
    log = make_log(tmp_path)
    log.on_epoch_end(0, {"loss": 0.1})
    assert (tmp_path / "history.csv").read_text() == f"{HEADER}\n1,nan,0.1,nan,nan,nan,1.0\n"


def test_resuming_drops_epochs_that_will_be_repeated(tmp_path):
    first = make_log(tmp_path)
    for epoch in range(3):
        first.on_epoch_end(epoch, {"loss": 0.1 + epoch})
    with (tmp_path / "history.csv").open("a") as file:
        file.write("1,0.5,0.")  # an incomplete line
    log = make_log(tmp_path, completed_epochs=2)
    assert [row["loss"] for row in log.rows] == [0.1, 1.1]
    log.on_epoch_end(2, {"loss": 9.0})
    assert [row["loss"] for row in read_history(tmp_path / "history.csv")] == [0.1, 1.1, 9.0]
    assert [line[0] for line in (tmp_path / "timing.csv").read_text().splitlines()] == [*"e123"]
    assert make_log(tmp_path).rows == []


def test_the_strength_of_each_epoch_is_a_column(tmp_path):
    seen = []

    def strength(epoch):
        seen.append((epoch, len(log.rows)))
        return 1 + epoch / 3

    log = make_log(tmp_path, strength=strength)
    for epoch in range(2):
        log.on_epoch_end(epoch, {"augment_strength": 9.0})
    assert seen == [(0, 0), (1, 1)]  # called before the epoch is part of the history
    assert [row["augment_strength"] for row in log.rows] == [1.0, 4 / 3]
    # The other values are NaN, which does not equal itself, so the texts are compared.
    assert repr(read_history(tmp_path / "history.csv")) == repr(log.rows)
    assert repr(make_log(tmp_path, completed_epochs=2).rows) == repr(log.rows)


def test_an_old_history_without_a_strength_is_read_and_continued(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(f"{OLD_HEADER}\n1,0.1,3.0,0.2,2.0,0.25\n2,0.1,2.0,0.5,1.5,0.5\n")
    old = read_history(path)
    assert [row["val_accuracy"] for row in old] == [0.25, 0.5]
    assert all(math.isnan(row["augment_strength"]) for row in old)
    log = make_log(tmp_path, completed_epochs=2)
    log.on_epoch_end(2, {"loss": 1.0})
    assert path.read_text().splitlines() == [
        HEADER,
        "1,0.1,3.0,0.2,2.0,0.25,nan",
        "2,0.1,2.0,0.5,1.5,0.5,nan",
        "3,nan,1.0,nan,nan,nan,1.0",
    ]
    assert best_epoch(log.rows) == 2


@pytest.mark.parametrize(
    ("strengths", "varies"),
    [([], False), ([1.5] * 3, False), ([math.nan, math.nan, 1.0], False), ([1.0, 1.0, 1.1], True)],
)
def test_the_strength_varies_if_two_known_values_differ(strengths, varies):
    assert strength_varies([{"augment_strength": strength} for strength in strengths]) == varies


def test_the_best_epoch_is_the_first_finite_minimum():
    def rows(*losses):
        return [{"epoch": e, "val_loss": loss} for e, loss in enumerate(losses, start=1)]

    assert best_epoch(rows(math.nan, 2.0, 1.0, 1.0)) == 3
    assert best_epoch(rows(math.inf, 2.0)) == 2
    assert best_epoch(rows(math.nan)) is None
    assert best_epoch(rows(math.inf)) is None
    assert best_epoch([]) is None


# --- stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "completed", "stops_after"),
    [
        ([3.0, 2.0, 2.0, 2.5, 9.9], 0, 4),
        ([3.0, 4.0, 2.0, 3.0, 1.0], 0, 5),
        ([math.nan] * 5, 0, 2),
        ([1.0, 3.0, 3.0, 3.0, 3.0], 1, 3),
    ],
)
def test_patience_counts_epochs_without_a_new_minimum(
    fit, tmp_path, losses, completed, stops_after
):
    log = resumed_log(tmp_path, losses[:completed])
    patience = Patience(2, log)
    fit([Losses(losses), log, patience], epochs=5, initial_epoch=completed)
    assert len(log.rows) == stops_after
    assert bool(patience.reason) == (stops_after < 5)


@pytest.mark.parametrize(
    ("losses", "exhausted"),
    [([3.0, 2.0, 1.0, 4.0, 4.0], True), ([3.0, 2.0, 1.0, 4.0], False), ([], False)],
)
def test_exhausted_patience_stays_exhausted_after_a_resume(tmp_path, losses, exhausted):
    assert bool(Patience(2, resumed_log(tmp_path, losses)).reason) == exhausted


def test_a_time_limit_that_passes_in_the_first_epoch_stops_training_after_it(fit, tmp_path):
    clock = Clock()
    limit = TimeLimit(1.0, Position(), clock)
    reasons = []

    def end(batch, logs):
        clock.now += 30.0  # the minute ends within the first epoch
        reasons.append(limit.reason)

    log = make_log(tmp_path)
    fit([limit, log, keras.callbacks.LambdaCallback(on_train_batch_end=end)], epochs=5)
    assert reasons == [""] * STEPS
    assert len(log.rows) == 1
    assert limit.reason == "the time limit of 1 min was reached at the end of epoch 1"


def test_a_time_limit_that_passes_in_a_later_epoch_only_sets_the_reason(fit):
    clock = Clock()
    position = Position()
    limit = TimeLimit(1.0, position, clock)
    seen = []

    def begin(batch, logs):
        seen.append(limit.reason)
        clock.now += 12.0  # the minute ends after five steps, in the second epoch

    callbacks = [position, limit, keras.callbacks.LambdaCallback(on_train_batch_begin=begin)]
    fit(callbacks, epochs=2)
    assert seen[: STEPS + 1] == [""] * (STEPS + 1)
    assert seen[-1] == "the time limit of 1 min was reached before step 2 of epoch 2"


def test_the_time_limit_counts_all_calls_of_fit_together(fit, tmp_path):
    clock = Clock()
    limit, log = TimeLimit(1.0, Position(), clock), make_log(tmp_path)

    def slow_validation(logs):
        clock.now += 40.0

    slow = keras.callbacks.LambdaCallback()
    slow.on_test_end = slow_validation
    fit([slow, limit, log], epochs=1)
    assert limit.reason == ""
    fit([slow, limit, log], epochs=5, initial_epoch=1)
    assert len(log.rows) == 2
    assert limit.reason == "the time limit of 1 min was reached at the end of epoch 2"


def test_a_loss_that_is_not_finite_stops_training_with_a_remedy(fit):
    images = np.full((STEPS * BATCH, 3), np.nan, "float32")
    with pytest.raises(UserError, match=r"epoch 3, step \d+: the loss became nan .*0\.01.*--lr"):
        position = Position()
        fit(
            [position, StopOnNaN(position, lambda *_: 0.01)],
            epochs=3,
            initial_epoch=2,
            images=images,
        )


@pytest.mark.parametrize("loss", [math.nan, math.inf, np.array([math.nan])])
def test_the_error_names_the_first_step_whose_loss_is_not_finite(compiled, loss):
    position = Position()
    stop = StopOnNaN(position, lambda epoch, step: 0.1)
    stop.set_model(compiled)
    position.on_epoch_begin(1)
    for batch in range(3):
        position.on_train_batch_begin(batch)
    stop.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(UserError, match=r"epoch 2, step 3: the loss became (nan|inf)"):
        stop.on_train_batch_end(2, {"loss": loss})
    with pytest.raises(UserError, match="epoch 2, step 3: the loss became"):
        stop.on_epoch_end(1, {"loss": loss})


# --- console -----------------------------------------------------------------------------------


def console_run(fit, folder, stream):
    clock = Clock()
    timer = EpochTimer(BATCH, take_data_wait=lambda: 0.5, clock=clock)
    position, rate = make_position_and_rate(lambda epoch: 0.001, per_step=False)
    log = make_log(folder, timer)
    line = ConsoleLine(log, position, epochs=3, steps_per_epoch=STEPS, stream=stream)
    advance_clock = keras.callbacks.LambdaCallback()
    advance_clock.on_train_batch_begin = lambda batch, logs=None: clock.advance(0.5)
    fit([Losses([1.0, 2.0, 0.5]), position, advance_clock, timer, rate, log, line], epochs=3)
    return stream.getvalue()


def test_without_a_terminal_there_is_one_plain_line_per_epoch(fit, tmp_path):
    text = console_run(fit, tmp_path, io.StringIO())
    lines = text.splitlines()
    assert len(lines) == 3
    assert text.isascii() and text.replace("\n", "").isprintable()
    pattern = (
        r"epoch 1/3  loss \d\.\d{4} acc \d\.\d{4}  val_loss 1\.0000 val_acc \d\.\d{4} best"
        r"  lr 1\.00e-03  16 img/s  data wait 25%  left 0:00:04"
    )
    assert re.fullmatch(pattern, lines[0])
    assert ["best" in line for line in lines] == [True, False, True]


def test_the_line_names_the_strength_after_it_has_changed(tmp_path):
    stream = io.StringIO()
    log = make_log(tmp_path, strength=lambda epoch: (1.0, 1.0, 1.231)[epoch])
    line = ConsoleLine(log, Position(), epochs=3, steps_per_epoch=STEPS, stream=stream)
    for epoch in range(3):
        log.on_epoch_end(epoch, {})
        line.on_epoch_end(epoch)
    lines = stream.getvalue().splitlines()
    assert ["strength" in text for text in lines] == [False, False, True]
    assert "  lr nan  strength 1.23  " in lines[2]


def test_on_a_terminal_a_bar_is_redrawn_within_the_width_of_the_terminal(
    fit, tmp_path, monkeypatch
):
    monkeypatch.setattr("tqdm.std.time", Clock(step=0.2))
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    stream = Terminal()
    stream.fileno = lambda: follower  # tqdm reads the width from this descriptor
    text = console_run(fit, tmp_path, stream)
    os.close(leader)
    os.close(follower)
    epochs = text.split("\n")
    assert len(epochs) == 4 and epochs[-1] == ""
    for number, epoch in enumerate(epochs[:-1], start=1):
        *live, blank, final = epoch.split("\r")[1:]
        # Keras 3 may report two steps in the wrong order. The bar then skips a step.
        assert 2 <= len(live) <= 1 + STEPS and all(50 < len(draw) <= 60 for draw in live[1:])
        assert all(draw.startswith(f"epoch {number}/3  [") for draw in live)
        assert blank.strip() == "" and len(blank) == max(map(len, live))
        assert "val_loss" in final


def test_a_bar_that_is_closed_within_its_epoch_is_removed(tmp_path):
    stream, position = Terminal(), Position(resumed_epoch=0, resumed_step=2)
    line = ConsoleLine(make_log(tmp_path), position, epochs=1, steps_per_epoch=4, stream=stream)
    line.close()
    assert stream.getvalue() == ""
    position.on_epoch_begin(0)
    line.on_epoch_begin(0)
    line.close()
    line.close()
    assert re.fullmatch(r"\repoch 1/1  \[={10} {10}\] 2/4\r +\r", stream.getvalue())


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_silent_run_has_no_console_line(fit, tmp_path, stream):
    with silent():
        assert console_run(fit, tmp_path, stream) == ""


def test_the_bar_is_not_redrawn_more_than_ten_times_a_second(tmp_path, monkeypatch):
    clock, stream = Clock(), Terminal()
    monkeypatch.setattr("tqdm.std.time", clock)
    log = make_log(tmp_path, EpochTimer(BATCH, clock=clock))
    line = ConsoleLine(log, Position(), epochs=1, steps_per_epoch=1000, stream=stream)
    line.on_epoch_begin(0)
    for batch in range(1000):
        clock.now += 0.001
        line.on_train_batch_end(batch, {"loss": 1.0})
    assert 5 <= stream.getvalue().count("\r") - 1 <= 10  # the draw at the start is not counted


def test_a_late_step_does_not_move_the_bar_back(tmp_path, monkeypatch):
    clock, stream = Clock(step=1.0), Terminal()
    monkeypatch.setattr("tqdm.std.time", clock)
    log = make_log(tmp_path, EpochTimer(BATCH, clock=clock))
    line = ConsoleLine(log, Position(), epochs=1, steps_per_epoch=STEPS, stream=stream)
    line.on_epoch_begin(0)
    for batch in (0, 2, 1):
        line.on_train_batch_end(batch, {"loss": np.array([0.5])})
    assert re.findall(r"\[[^\r]*?\] [^\r]*?, loss 0.5000", stream.getvalue()) == [
        "[=====               ] 1/4, loss 0.5000",
        "[===============     ] 3/4, loss 0.5000",
    ]


# --- live curves -------------------------------------------------------------------------------


def live_run(fit, folder, epochs=2, **kwargs):
    log = make_log(folder)
    live = LiveCurves(RunPaths(folder), log, planned_lr=[0.1] * 3, pause=0.0, **kwargs)
    fit([Losses([1.0, 2.0, 3.0]), log.timer, log, live], epochs=epochs)
    return live


def drawn_page(folder, text):
    """The text of live.html as soon as it contains ``text``; a thread writes this file."""
    for _ in range(600):
        page = folder / "live.html"
        if page.exists() and text in (content := page.read_text(encoding="utf-8")):
            return content
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in live.html after 30 seconds")


def test_the_live_page_needs_no_other_file_and_reloads_until_finished(fit, tmp_path):
    live = live_run(fit, tmp_path, title="seedlings")
    page = drawn_page(tmp_path, "2 / 3")
    assert 'http-equiv="refresh"' in page
    assert "2 / 3" in page and 'class="best"><td>1</td>' in page
    assert not re.search(r"<script|<link|https?://|@import|url\(", page)
    assert re.findall(r' src="(.{22})', page) == ["data:image/png;base64,"]
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and min(image.size) > 500
    live.finish("stopped: no new low")
    page = (tmp_path / "live.html").read_text(encoding="utf-8")
    assert "refresh" not in page and "stopped: no new low" in page


def test_the_live_page_exists_before_the_first_epoch_ends(tmp_path):
    live = LiveCurves(RunPaths(tmp_path), make_log(tmp_path), title="run", planned_lr=[0.1] * 3)
    live.on_train_begin()
    page = drawn_page(tmp_path, "0 / 3")
    assert "refresh" in page and "<img" not in page
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("strengths", [[1.0, 1.0], [1.0, 1.25]])
def test_the_page_and_the_curves_show_a_strength_that_varies(tmp_path, strengths):
    log = make_log(tmp_path, strength=lambda epoch: strengths[epoch])
    live = LiveCurves(RunPaths(tmp_path), log, title="run", planned_lr=[0.1] * 2, pause=0.0)
    numbers = dict.fromkeys(("lr", "loss", "accuracy", "val_loss", "val_accuracy"), 0.5)
    for epoch in range(2):
        log.on_epoch_end(epoch, numbers)
    live.finish()
    page = (tmp_path / "live.html").read_text(encoding="utf-8")
    varies = strengths[1] != strengths[0]
    assert ("<dt>augmentation strength</dt><dd>1.25</dd>" in page) == varies
    assert ('<th scope="col">strength</th>' in page) == ("<td>1.25</td></tr>" in page) == varies
    # A strength that varies has a panel of its own, which makes the figure higher.
    with Image.open(tmp_path / "curves.png") as image:
        assert image.height / image.width == pytest.approx(8 / 5.4 if varies else 6.8 / 5.4, 0.01)


def test_a_title_is_escaped_in_the_page(fit, tmp_path):
    live_run(fit, tmp_path, title="<script>alert('x')</script>&小\udcff", epochs=1)
    page = drawn_page(tmp_path, "1 / 3")
    assert "<script" not in page
    assert "&lt;script&gt;" in page and "&amp;小?" in page


def test_a_missing_folder_for_the_curves_warns_once_and_training_continues(fit, tmp_path, capsys):
    log = make_log(tmp_path)
    live = LiveCurves(
        RunPaths(tmp_path / "gone"), log, title="run", planned_lr=[0.1] * 3, pause=0.0
    )
    fit([log, live], epochs=2)
    live.finish()
    assert len(log.rows) == 2
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: no curves written to {tmp_path / 'gone'}: ")


def test_show_without_a_display_warns_once(fit, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    live_run(fit, tmp_path, title="run", show=True).finish()
    assert capsys.readouterr().err.count("no display") == 1
    assert (tmp_path / "curves.png").exists()


def test_a_notebook_shows_one_image_that_is_replaced(fit, tmp_path, monkeypatch):
    shown, replaced = [], []

    def display(image, display_id):
        shown.append(image["data"])
        return types.SimpleNamespace(update=lambda new: replaced.append(new["data"]))

    module = types.ModuleType("IPython.display")
    module.Image, module.display = dict, display
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    live_run(fit, tmp_path, title="run", show=True)
    assert (len(shown), len(replaced)) == (1, 1)
    assert all(data.startswith(b"\x89PNG") for data in shown + replaced)


def test_a_window_is_updated_until_the_user_closes_it(fit, tmp_path, monkeypatch):
    plt.switch_backend("agg")
    figure = plt.figure()
    monkeypatch.setattr(
        "seedtf.training.callbacks.live_curves.open_view", lambda title: live_view._Window(figure)
    )
    live = live_run(fit, tmp_path, title="run", show=True, epochs=1)
    assert len(figure.axes) == 3
    axes_before_closing = figure.axes[0]
    figure.canvas.callbacks.process("close_event", None)
    live.on_train_batch_begin(0)
    live.on_epoch_end(1)
    assert figure.axes[0] is axes_before_closing
    plt.close(figure)


def test_a_backend_that_only_writes_files_opens_no_window(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    plt.switch_backend("agg")
    before = plt.get_fignums()
    assert live_view.open_view("run") is None
    assert plt.get_fignums() == before
