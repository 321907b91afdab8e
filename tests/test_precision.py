"""The choice of precision and compilation for a device."""

from __future__ import annotations

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seedtf.errors import UserError
from seedtf.model.precision import choose_jit, choose_precision
from seedtf.training.machine import gpu_compute_capabilities

# compute capabilities of GPUs: major and minor version
CAPABILITY = st.tuples(st.integers(3, 12), st.integers(0, 9))


@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        ([], "float32"),
        ([(6, 1)], "float32"),
        ([(7, 0)], "mixed_float16"),
        ([(7, 5)], "mixed_float16"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(9, 0), (9, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 5)], "mixed_float16"),
        ([(9, 0), (6, 1)], "float32"),
    ],
)
def test_auto_chooses_the_precision_at_which_every_gpu_is_fast(
    capabilities: list[tuple[int, int]], policy: str
) -> None:
    assert choose_precision("auto", capabilities).policy == policy


@given(st.lists(CAPABILITY, max_size=4))
def test_the_order_of_gpus_does_not_matter(capabilities: list[tuple[int, int]]) -> None:
    assert choose_precision("auto", capabilities) == choose_precision("auto", capabilities[::-1])


@given(
    st.sampled_from(["float32", "mixed_bfloat16", "mixed_float16"]),
    st.lists(CAPABILITY, max_size=4),
)
def test_a_requested_precision_is_used_and_explained_in_one_line(
    requested: str, capabilities: list[tuple[int, int]]
) -> None:
    precision = choose_precision(requested, capabilities)
    assert precision.policy == requested
    assert precision.reason.endswith(".")
    assert "\n" not in precision.reason


@pytest.mark.parametrize(
    ("requested", "capabilities", "is_slow"),
    [
        ("mixed_bfloat16", [], True),
        ("mixed_bfloat16", [(7, 5)], True),
        ("mixed_bfloat16", [(8, 6)], False),
        ("mixed_float16", [(6, 1)], True),
        ("mixed_float16", [(7, 0)], False),
        ("float32", [], False),
    ],
)
def test_the_reason_warns_if_a_requested_16_bit_precision_is_slow(
    requested: str, capabilities: list[tuple[int, int]], is_slow: bool
) -> None:
    assert ("slow" in choose_precision(requested, capabilities).reason) == is_slow


def test_an_unknown_precision_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"--precision=int8 .* pass auto, float32"):
        choose_precision("int8", [])


@pytest.mark.parametrize(
    ("requested", "num_gpus", "is_enabled"),
    [("auto", 0, False), ("auto", 2, True), ("on", 0, True), ("off", 2, False)],
)
def test_only_with_auto_the_device_decides_whether_xla_compiles(
    requested: str, num_gpus: int, is_enabled: bool
) -> None:
    assert choose_jit(requested, num_gpus).enabled is is_enabled


def test_the_reason_warns_if_xla_is_requested_on_a_cpu() -> None:
    assert "slower" in choose_jit("on", 0).reason
    assert "slower" not in choose_jit("on", 1).reason


def test_an_unknown_jit_choice_is_a_user_error() -> None:
    with pytest.raises(UserError, match="--jit_compile=maybe"):
        choose_jit("maybe", 0)


def test_an_unknown_compute_capability_counts_as_the_lowest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    details = {"a": {"compute_capability": (9, 0)}, "b": {}}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(details))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    assert gpu_compute_capabilities() == [(9, 0), (0, 0)]
    assert choose_precision("auto", gpu_compute_capabilities()).policy == "float32"


def test_the_reason_for_float32_names_tf32_if_every_gpu_has_it() -> None:
    """A GPU with TF32 multiplies float32 numbers with only 10 bits of mantissa."""
    assert "TF32" in choose_precision("float32", [(8, 0), (9, 0)]).reason
    for without_tf32 in ([], [(8, 0), (7, 5)]):
        assert "TF32" not in choose_precision("float32", without_tf32).reason


def test_xla_is_off_with_deterministic() -> None:
    choice = choose_jit("auto", 1, deterministic=True)
    assert not choice.enabled and "--deterministic" in choice.reason
    with pytest.raises(UserError, match="--jit_compile=on: XLA does not have a deterministic"):
        choose_jit("on", 1, deterministic=True)
