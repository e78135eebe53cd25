"""A copy of ONNX Runtime that does not see AVX-512, to measure what an AVX2 processor would do.

Run: ``python -m benchmarks.onnxruntime_avx2 FOLDER``, then ``PYTHONPATH=FOLDER python -m ...``.

ONNX Runtime has no setting for it. It takes AVX-512 where XCR0, which it reads by ``xgetbv``, says
that the system saves the wide registers; in the copy those reads answer 7: x87, SSE and AVX, as on
a processor with AVX2. So the kernels for AVX2 run, on the caches and at the clock of the processor
at hand. What else is in a run (OpenCV, PyTorch) is not changed by it.
"""

from __future__ import annotations

import argparse
import shutil
from importlib.util import find_spec
from pathlib import Path

READ = b"\x31\xc9\x0f\x01\xd0"  # xor ecx, ecx; xgetbv
ANSWER = b"\x31\xc9\x6a\x07\x58"  # xor ecx, ecx; push 7; pop rax


def write_copy(folder: Path) -> int:
    """Copy the installed package below ``folder``; returns how many reads were changed."""
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    copy = folder / "onnxruntime"
    shutil.copytree(Path(spec.origin).parent, copy)
    changed = 0
    for library in (copy / "capi").glob("onnxruntime_pybind11_state*.so"):
        code = library.read_bytes()
        changed += code.count(READ)
        library.write_bytes(code.replace(READ, ANSWER))
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="that holds no onnxruntime yet")
    folder = parser.parse_args().folder
    changed = write_copy(folder)
    if not changed:
        raise SystemExit(f"{folder}: no read of XCR0 was found; this build asks in another way")
    print(f"{folder}: {changed} reads of XCR0 changed")


if __name__ == "__main__":
    main()
