"""Which instruction sets a processor has is told by the names that people know."""

import os
import platform
import subprocess
import sys

import pytest

from mmrec_stream.processor import ARM, instruction_sets, kernels, model_name, these_instruction_sets, this_processor

EPYC = dict.fromkeys(("sse2", "avx", "avx2", "fma", "f16c"), True) | {"avx512f": False, "avx512vnni": False}
XEON = EPYC | {"avx512f": True, "avx512vnni": True, "amx-int8": True}


@pytest.mark.parametrize(
    ("features", "machine", "told"),
    [
        (EPYC, "x86_64", ["AVX2", "FMA"]),
        (XEON, "AMD64", ["AVX2", "FMA", "AVX-512", "AVX-512 VNNI", "AMX-INT8"]),
        (EPYC | {"avxvnni": True}, "x86_64", ["AVX2", "FMA", "AVX-VNNI"]),
        ({"neon": True, "dotprod": True, "sve": True}, "aarch64", ["NEON", "DOTPROD", "SVE"]),
        ({}, "arm64", ["NEON"]),
        ({}, "riscv64", []),
    ],
)
def test_the_sets_that_matter_are_named(features: dict[str, bool], machine: str, told: list[str]) -> None:
    assert instruction_sets(features, machine) == told


def test_the_model_is_read_from_cpuinfo() -> None:
    text = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu avx2\n"
    assert model_name(text) == "AMD EPYC 7B13"
    assert model_name("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n") is None


def test_this_machine_is_described() -> None:
    assert this_processor()
    if platform.machine().lower() in (*ARM, "x86_64", "amd64"):
        assert these_instruction_sets()
    assert {"BLAS", "numba"} <= kernels().keys()
    assert all(kernels().values())


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names an x86 processor")
def test_what_libraries_are_held_to_is_told() -> None:
    held = os.environ | {"NUMBA_CPU_NAME": "nehalem", "OPENBLAS_CORETYPE": "Nehalem"}
    program = "from mmrec_stream.processor import kernels; print(kernels())"
    result = subprocess.run([sys.executable, "-c", program], env=held, capture_output=True, text=True, check=True)
    assert "'numba': 'nehalem'" in result.stdout
    assert "'BLAS': 'Nehalem'" in result.stdout
