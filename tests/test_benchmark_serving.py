"""``seedtf benchmark serving``: the requests that it sends, and the numbers that it reports.

No test sets an upper limit for a duration.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

from seedtf.benchmark.serving import Send, measure, measure_all
from seedtf.commands.main import run_command
from seedtf.errors import UserError
from seedtf.export.warmup import example_jpeg
from seedtf.runs.saved_model import ServingSignature


class Stub(tf.Module):
    """A model with the input and the outputs of an export, which decodes no image."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        is_good = tf.strings.length(image_bytes) > 10
        lengths = tf.cast(tf.strings.length(image_bytes), tf.float32)
        return {
            "probabilities": lengths[:, None],
            "classes": tf.fill([tf.size(image_bytes), 1], "oak"),
            "status": tf.where(is_good, "ok", "truncated"),
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    stub = Stub()
    tf.saved_model.save(stub, str(folder / "3"), signatures={"serving_default": stub.serve})
    return folder


def test_every_caller_sends_requests_and_all_are_counted() -> None:
    sent: dict[int, int] = {}

    def send() -> None:
        caller = threading.get_ident()
        sent[caller] = sent.get(caller, 0) + 1
        time.sleep(0.002)

    load = measure(send, batch_size=5, callers=3, seconds=0.05)
    num_warm_up_requests = sent.pop(threading.get_ident())
    assert num_warm_up_requests >= 1
    assert len(sent) == 3
    assert load.requests == sum(sent.values()) >= 3
    assert (load.batch_size, load.callers) == (5, 3)
    assert 2 <= load.p50_ms <= load.p99_ms
    assert load.images_per_second > 0


def test_every_batch_size_is_sent_by_every_number_of_callers() -> None:
    sizes: list[int] = []

    def make_send(batch_size: int) -> Send:
        return lambda: sizes.append(batch_size)

    loads = measure_all(make_send, (5, 2), (1, 3), seconds=0.01)
    assert [(load.batch_size, load.callers) for load in loads] == [(5, 1), (5, 3), (2, 1), (2, 3)]
    assert sizes[0] == 5
    assert sizes[-1] == 2


def test_table_and_json_have_each_batch_size_and_number_of_callers(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("benchmark", ["serving", str(served), "--seconds=0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [
        "batch",
        "callers",
        "images/s",
        "p50",
        "ms",
        "p99",
        "ms",
        "requests",
    ]
    shown = [tuple(int(cell) for cell in line.split()[:2]) for line in lines[3:-1]]
    assert shown == [(batch, callers) for batch in (1, 8, 32) for callers in (1, 2, 4, 8)]
    assert len(json.loads(lines[-1].removeprefix("RESULT "))["loads"]) == 12
    assert run_command("benchmark", ["serving", str(served), "--seconds=0.05", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["export"] == str(served / "3")
    assert result["image_bytes"] == len(example_jpeg(512))


def test_a_wrong_argument_gives_a_one_line_error(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").write_bytes(b"x")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"damaged")
    for arguments, text in [
        (["serving", str(tmp_path / "none")], "no such folder"),
        (["serving", str(tmp_path)], "cannot be loaded as an export"),
        (["serving", str(served), f"--image={tmp_path / 'short'}"], "truncated"),
        (["serving", str(served), f"--image={tmp_path / 'none'}"], "No such file"),
        (["serving", str(served), "--seconds=0"], "out of range"),
        (["serve", str(served)], "did you mean 'serving'"),
    ]:
        assert run_command("benchmark", arguments) == 2
        line = capsys.readouterr().err
        assert text in line
        assert line.count("\n") == 1


def test_a_model_with_another_input_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    function = tf.function(lambda x: x).get_concrete_function(tf.TensorSpec([], name="x"))
    tf.saved_model.save(module, str(tmp_path), signatures=function)
    with pytest.raises(UserError, match="takes x; pass a seedtf export"):
        ServingSignature(tmp_path)
