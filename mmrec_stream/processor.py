"""What the processor can do: the instruction sets that decide how fast this project computes, and its last digits."""

import platform
import sys
from collections.abc import Mapping
from pathlib import Path

NAMES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512vnni": "AVX-512 VNNI",
    "avxvnni": "AVX-VNNI",
    "amx-int8": "AMX-INT8",
    "dotprod": "DOTPROD",
    "i8mm": "I8MM",
    "sve": "SVE",
}
"""The names that people use, by LLVM's. Products in float32 are as wide as AVX2, AVX-512 or SVE; those of 8-bit codes
are exact and fast with VNNI, AMX, DOTPROD or I8MM."""

ARM = ("arm64", "aarch64")


def instruction_sets(features: Mapping[str, bool], machine: str) -> list[str]:
    """The instruction sets that matter, in the order of `NAMES`.

    Args:
        features: What the processor has, by LLVM's names.
        machine: Its architecture, as `platform.machine` names it.
    """
    # Every 64-bit Arm processor has NEON, and LLVM cannot ask all of them.
    found = ["NEON"] if machine.lower() in ARM else []
    return found + [name for feature, name in NAMES.items() if features.get(feature)]


def model_name(cpuinfo: str) -> str | None:
    """The processor's name in the text of Linux's /proc/cpuinfo; None where that has none, as on Arm."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def this_processor() -> str:
    """The name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    name = model_name(info.read_text(encoding="utf-8", errors="replace")) if info.exists() else None
    return name or platform.processor() or platform.machine()


def these_instruction_sets() -> list[str]:
    """Those of this machine, whatever libraries were told to use."""
    from llvmlite import binding

    try:
        features = dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot ask this processor
        features = {}
    return instruction_sets(features, platform.machine())


def kernels() -> dict[str, str]:
    """For which processor each library that can say so has chosen its code, by library.

    PyTorch is named only where it is loaded: loading it takes seconds.
    """
    import numba
    import numpy as np
    import scipy.linalg  # noqa: F401 - loads the BLAS that scipy brings
    from llvmlite import binding
    from threadpoolctl import threadpool_info

    chosen = sorted({pool["architecture"] for pool in threadpool_info() if "architecture" in pool})
    # Where it does not choose (Apple's Accelerate), the library's name is all there is to say.
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    compiled_for = numba.config.CPU_NAME or binding.get_host_cpu_name()  # type: ignore[attr-defined]
    found = {"BLAS": ", ".join(chosen) or blas, "numba": compiled_for}
    if torch := sys.modules.get("torch"):
        found["PyTorch"] = torch.backends.cpu.get_cpu_capability()
    return found
