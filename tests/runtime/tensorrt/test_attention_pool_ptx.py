"""The kernel compiled without a GPU: PTX that TensorRT can launch, proven by the assembler."""

from __future__ import annotations

import re

import pytest

from sa_runtime.errors import BuildError
from sa_runtime.tensorrt import ptx
from sa_runtime.tensorrt.ptx import (
    MAX_SHARED_BYTES,
    kernel_from_pool,
    ptx_version,
    resources,
    without_hidden_parameters,
)
from sa_runtime.tensorrt.tactics import ELEMENTS, TACTICS, Element, Pool, tactics_for

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
RESNET = {"channels": 2048, "height": 24, "width": 8, "normalize": "sum"}


def pool(parts: int = 6, element: Element = "fp16", **changes: object) -> Pool:
    return Pool(**{**RESNET, "parts": parts, "element": element, **changes})  # type: ignore[arg-type]


def parameters(text: str, name: str) -> list[str]:
    head = re.search(rf"\.entry\s+{name}\s*\(([^)]*)\)", text)
    assert head is not None
    return [line.split()[-1] for line in head[1].split(",") if line.strip()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_it_assembles_with_the_declared_parameters_only(
    architecture: int, element: Element
) -> None:
    number = tactics_for(pool(element=element))[2]
    kernel = kernel_from_pool(pool(element=element), number, architecture)
    assert parameters(kernel.ptx, kernel.name) == [f"{kernel.name}_param_{i}" for i in (0, 1)]
    needs = resources(kernel.ptx, architecture)
    assert needs.spill_bytes == 0
    # All its threads fit into one multiprocessor's 65,536 registers at once.
    assert needs.registers * kernel.threads <= 65_536
    assert needs.shared_bytes + kernel.shared_bytes <= MAX_SHARED_BYTES
    assert kernel.threads == 32 * TACTICS[number - 1].warps
    assert f".reqntid {kernel.threads}" in kernel.ptx


def test_every_tactic_of_the_network_compiles_without_spilling() -> None:
    for number in tactics_for(pool()):
        kernel = kernel_from_pool(pool(), number, 80)
        assert resources(kernel.ptx, 80).spill_bytes == 0, number


@pytest.mark.parametrize("normalize", ["softmax", "none"])
def test_the_other_normalisations_and_overlapping_windows_compile(normalize: str) -> None:
    other = pool(height=8, width=4, normalize=normalize)
    kernel = kernel_from_pool(other, tactics_for(other)[0], 90)
    assert resources(kernel.ptx, 90).registers > 0


def test_triton_appends_parameters_that_tensorrt_would_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The trap that without_hidden_parameters is there for; when this fails it may go.
    monkeypatch.setattr(ptx, "without_hidden_parameters", lambda text, name, declared: text)
    kernel = kernel_from_pool.__wrapped__(pool(), 3, 80)
    assert len(parameters(kernel.ptx, kernel.name)) == ptx.PARAMETERS + 2


def test_maps_are_read_by_sixteen_bytes_at_a_time() -> None:
    # Rows of 8 half-precision pixels are 16 bytes: one instruction, fully coalesced.
    assert "ld.global.v4.b32" in kernel_from_pool(pool(), 3, 90).ptx


@pytest.mark.parametrize(
    ("architecture", "target", "version"),
    [(80, "sm_80", "8.0"), (90, "sm_90a", "8.0"), (120, "sm_120a", "8.7")],
)
def test_the_oldest_dialect_that_serves_is_written(
    architecture: int, target: str, version: str
) -> None:
    text = kernel_from_pool(pool(), 3, architecture).ptx
    assert f".target {target}\n" in text
    assert f".version {version}\n" in text
    assert ptx_version(architecture) == int(version.replace(".", ""))


def test_no_path_of_this_machine_gets_into_an_engine() -> None:
    text = kernel_from_pool(pool(), 3, 80).ptx
    assert ".loc" not in text
    assert "kernel.py" not in text


ENTRY = """.visible .entry k(
	.param .u64 .ptr .global .align 1 k_param_0,
	.param .u64 k_param_1,
	.param .u64 k_param_2
)
{
	ld.param.b64 %rd1, [k_param_0];
	ld.param.b64 %rd2, [k_param_1];
	ret;
}
"""


def test_removing_keeps_everything_else() -> None:
    got = without_hidden_parameters(ENTRY, "k", 2)
    assert parameters(got, "k") == ["k_param_0", "k_param_1"]
    assert got.partition("{")[2] == ENTRY.partition("{")[2]
    assert without_hidden_parameters(got, "k", 2) == got


@pytest.mark.parametrize(
    ("declared", "name", "text"),
    [
        (1, "k", "its body reads k_param_1, a parameter that only Triton's launcher passes"),
        (4, "k", "3 parameters, expected at least 4"),
        (2, "other", "no entry point of that name"),
    ],
)
def test_what_cannot_be_removed_is_refused(declared: int, name: str, text: str) -> None:
    with pytest.raises(BuildError, match=text):
        without_hidden_parameters(ENTRY, name, declared)


def test_the_assembler_refuses_what_is_not_a_program() -> None:
    broken = kernel_from_pool(pool(), 3, 80).ptx.replace("ret;", "return;")
    with pytest.raises(BuildError, match="ptxas for sm_80 refuses the kernel"):
        resources(broken, 80)


def test_an_architecture_triton_does_not_know_is_named() -> None:
    with pytest.raises(BuildError, match=r"compute capability 3.0: (.|\n)*`plugin=False`"):
        kernel_from_pool(pool(), 3, 30)
