"""The Triton kernel as PTX that TensorRT can embed and launch by itself.

TensorRT passes a plugin kernel its inputs, its extra scalars and its outputs, nothing
else; Triton appends two scratch pointers of its own. Here they are proven unused and
taken out, the newest PTX dialect is replaced by the oldest that serves, and ``ptxas``
proves that the result is still a program.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sa_runtime.errors import BuildError
from sa_runtime.system.extras import require
from sa_runtime.tensorrt.tactics import NORMALIZE_CODES, TACTICS, Plan, Pool, plan

PARAMETERS = 2
"""The kernel's declared parameters: the map and the windows."""
MAX_SHARED_BYTES = 48 * 1024
"""What a launch may use without asking the driver for more, which TensorRT does not do."""
_PTX_VERSIONS = ((110, 90), (103, 88), (121, 88), (120, 87), (100, 86), (75, 80))


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        name: entry point.
        ptx: text with exactly the declared parameters.
        threads: per block.
        shared_bytes: dynamic shared memory of a block.
    """

    name: str
    ptx: str
    threads: int
    shared_bytes: int


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What ``ptxas`` says a thread and a block need.

    Attributes:
        registers: of a thread.
        spill_bytes: stored to and loaded from local memory by a thread.
        shared_bytes: static shared memory of a block.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int


def ptx_version(compute_capability: int) -> int:
    """The oldest PTX dialect that knows the architecture; 80 is 8.0. Older drivers load it.

    Triton writes the newest its own assembler knows: 9.3 for Blackwell, which drivers below CUDA
    13.3 refuse.

    >>> ptx_version(90), ptx_version(120)
    (80, 87)
    """
    for architectures, version in _PTX_VERSIONS:
        if compute_capability == architectures:
            return version
    return _PTX_VERSIONS[-1][1]


@functools.lru_cache(maxsize=256)
def kernel_from_pool(pool: Pool, tactic: int, compute_capability: int) -> Kernel:
    """Compile the kernel for one pool, one tactic and one architecture. Needs no GPU.

    Args:
        pool: the node.
        tactic: its number, from 1.
        compute_capability: 80 for 8.0.

    Raises:
        MissingPackageError: Triton is not installed.
        BuildError: Triton cannot compile for that architecture, or its output is not as expected.
    """
    triton = require("triton", extra="gpu", purpose="building the fused attention-pool plugin")
    require("triton.backends.nvidia.compiler", extra="gpu", purpose="building for NVIDIA GPUs")
    from sa_runtime.tensorrt.kernel import attention_pool_kernel

    cut = plan(pool, TACTICS[tactic - 1])
    fixed = constants(pool, cut)
    pointer = f"*{pool.element}"
    aligned = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(
        fn=attention_pool_kernel,
        signature={"x_ptr": pointer, "y_ptr": pointer, **dict.fromkeys(fixed, "constexpr")},
        constexprs=fixed,
        attrs={(0,): aligned, (1,): aligned},
    )
    target = triton.backends.compiler.GPUTarget("cuda", compute_capability, 32)
    options = {
        "num_warps": cut.warps,
        "ptx_version": ptx_version(compute_capability),
        "enable_fp_fusion": True,  # said, because Triton 3.9 warns where it is not
    }
    try:
        with triton.knobs.compilation.scope():
            # Line tables would put this machine's paths into every engine.
            triton.knobs.compilation.disable_line_info = True
            compiled = triton.compile(source, target=target, options=options)
    except Exception as exc:  # Triton maps LLVM's, ptxas' and its own errors to no common base
        raise BuildError(
            f"AttentionPool kernel: Triton {triton.__version__} cannot compile it for compute "
            f"capability {compute_capability / 10}: {exc}; build with `plugin=False`"
        ) from exc
    return _checked(compiled, cut.warps * 32)


def constants(pool: Pool, cut: Plan) -> dict[str, int]:
    """The kernel's compile-time constants by parameter name."""
    return {
        "C": pool.channels,
        "H": pool.height,
        "W": pool.width,
        "P": pool.parts,
        "STEP": cut.step,
        "SIZE": cut.size,
        "NORMALIZE": NORMALIZE_CODES[pool.normalize],
        "SPLITS": cut.splits,
        "TILE_C": cut.tile[0],
        "TILE_HW": cut.tile[1],
    }


def _checked(compiled: object, threads: int) -> Kernel:
    metadata = compiled.metadata  # type: ignore[attr-defined]
    scratch = metadata.global_scratch_size + metadata.profile_scratch_size
    if scratch or metadata.num_ctas != 1 or metadata.shared > MAX_SHARED_BYTES:
        raise BuildError(
            f"AttentionPool kernel: Triton wants {scratch} bytes of scratch memory, "
            f"{metadata.num_ctas} blocks per cluster and {metadata.shared} bytes of shared memory; "
            f"expected 0, 1 and at most {MAX_SHARED_BYTES}, which is all that TensorRT can launch"
        )
    return Kernel(
        name=metadata.name,
        ptx=without_hidden_parameters(compiled.asm["ptx"], metadata.name, PARAMETERS),  # type: ignore[attr-defined]
        threads=threads,
        shared_bytes=metadata.shared,
    )


def without_hidden_parameters(ptx: str, name: str, declared: int) -> str:
    """Take the parameters after the first ``declared`` out of an entry point.

    Args:
        ptx: text with one entry point ``name``.
        name: of the entry point.
        declared: how many parameters the kernel declares.

    Raises:
        BuildError: there is no such entry point, it has fewer parameters, or its body names one
            of those to be removed.

    >>> text = ".visible .entry k(.param .u64 k_param_0, .param .u64 k_param_1) {ret;}"
    >>> " ".join(without_hidden_parameters(text, "k", 1).split())
    '.visible .entry k( .param .u64 k_param_0 ) {ret;}'
    """
    head = re.search(rf"\.entry\s+{re.escape(name)}\s*\(([^)]*)\)", ptx)
    if head is None:
        raise BuildError(f"PTX of {name}: no entry point of that name")
    parameters = [text.strip() for text in head[1].split(",") if text.strip()]
    if len(parameters) < declared:
        raise BuildError(
            f"PTX of {name}: {len(parameters)} parameters, expected at least {declared}"
        )
    body = ptx[head.end() :]
    for hidden in parameters[declared:]:
        symbol = hidden.split()[-1]
        if re.search(rf"\b{re.escape(symbol)}\b", body):
            raise BuildError(
                f"PTX of {name}: its body reads {symbol}, a parameter that only Triton's launcher "
                "passes; install another Triton version, or build with `plugin=False`"
            )
    kept = ",\n\t".join(parameters[:declared])
    return f"{ptx[: head.start(1)]}\n\t{kept}\n{ptx[head.end(1) :]}"


def resources(ptx: str, compute_capability: int) -> Resources:
    """Assemble PTX with the ``ptxas`` that comes with Triton and read what it needs.

    Raises:
        MissingPackageError: Triton is not installed.
        BuildError: ``ptxas`` does not accept the text.
    """
    require("triton", extra="gpu", purpose="assembling PTX")
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    architecture = sm_arch_from_capability(compute_capability)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        done = subprocess.run(
            [
                get_ptxas(compute_capability).path,
                "--verbose",
                f"--gpu-name={architecture}",
                f"--output-file={source.with_suffix('.cubin')}",
                str(source),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise BuildError(f"ptxas for {architecture} refuses the kernel: {done.stderr.strip()}")

    def figure(pattern: str) -> int:
        return sum(int(value) for value in re.findall(pattern, done.stderr))

    return Resources(
        registers=figure(r"Used (\d+) registers"),
        spill_bytes=figure(r"(\d+) bytes spill"),
        shared_bytes=figure(r"(\d+) bytes smem"),
    )
