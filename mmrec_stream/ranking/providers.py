"""Where models run: CUDA if a test run on it succeeds, otherwise the CPU."""

import base64
import contextlib
import logging
from typing import Literal

import numpy as np
import onnxruntime as ort

from mmrec_stream.errors import UserError, first_line

Device = Literal["cpu", "cuda"]

_PROVIDERS: dict[Device, list[str]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}

PROBE = base64.b64decode(
    "CAo6XwoRCgFhCgFiEgFjIgZNYXRNdWwSBXByb2JlWhUKAWESEAoOCAESCgoDEgFuCgMSAW5aFQoBYhIQCg4I"
    "ARIKCgMSAW4KAxIBbmIVCgFjEhAKDggBEgoKAxIBbgoDEgFuQgQKABAU"
)
"""An ONNX model of one MatMul, `c = a @ b` for float32 (n, n), as `onnx.helper` serialises it (IR 10, opset 20)."""

_LOG_SEVERITY = 3
"""ONNX Runtime's errors are shown; its warnings are about optimisations that we can do nothing about."""

log = logging.getLogger(__name__)


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device to serve on.

    A listed CUDA provider says only that the package was built for it; the driver, the libraries and the GPU show
    themselves in a run, so one is made.

    Raises:
        UserError: CUDA was demanded and does not work; says what failed.
    """
    if wanted == "cpu":
        return "cpu"
    failure = cuda_failure()
    if failure is None:
        return "cuda"
    if wanted == "cuda":
        raise UserError(f"MMREC_PROVIDER=cuda, but CUDA does not work here: {failure}; use auto or cpu")
    log.debug("CUDA is not used: %s", failure)
    return "cpu"


def cuda_failure() -> str | None:
    """Why a model cannot run on CUDA here, or None if a test run on it gave the right result."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "this build of ONNX Runtime has no CUDA provider"
    left, right = np.eye(4, dtype=np.float32) * 2, np.arange(16, dtype=np.float32).reshape(4, 4)
    # What fails is returned in one line, so ONNX Runtime need not print it in six.
    ort.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()  # finds the CUDA libraries that pip installed
        session = ort.InferenceSession(PROBE, providers=_PROVIDERS["cuda"])
        if "CUDAExecutionProvider" not in session.get_providers():
            return "ONNX Runtime cannot load its CUDA libraries or finds no GPU"
        product = session.run(None, {"a": left, "b": right})[0]
    except Exception as error:
        return first_line(error)
    finally:
        ort.set_default_logger_severity(_LOG_SEVERITY)
    return None if np.allclose(product, left @ right) else "a test product came out wrong"


def session_on(path: str, device: Device, threads: int) -> ort.InferenceSession:
    """A session on the model file at `path`.

    By path and not from bytes: reading happens outside the interpreter lock, and large weights are mapped.

    Args:
        path: The .onnx file.
        device: Where it runs.
        threads: Threads of one run; 0 lets ONNX Runtime choose.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning helpers would take the cores that fold events between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _LOG_SEVERITY
    return ort.InferenceSession(path, options, providers=_PROVIDERS[device])
