"""Checkpoints: the state of a training after each pass, so that an interrupted one goes on."""

import hashlib
import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.errors import UserError, first_line
from model_export.config import ModelConfig

State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's file, and the training that it belongs to."""

    path: Path
    training: str

    @classmethod
    def of(cls, path: Path, config: ModelConfig, log: Interactions) -> "Checkpoint":
        """The checkpoint at `path` for training with `config` on `log`; how long it may take makes no difference."""
        digest = hashlib.sha256(repr(replace(config, minutes=None, epochs=1)).encode())
        for column in (log.users, log.items, log.times, log.types, log.ratings):
            digest.update(column.tobytes())
        return cls(path, digest.hexdigest())

    def save(self, state: State) -> None:
        """Write the state beside the file and put it in its place, so that there is always a whole one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        torch.save(state | {"training": self.training}, beside)
        beside.replace(self.path)

    def load(self) -> State | None:
        """The saved state, or None where there is none. Only tensors and plain values are ever read.

        Raises:
            UserError: The file is no checkpoint, or one of another training.
        """
        if not self.path.exists():
            return None
        try:
            state: State = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
            raise UserError(f"checkpoint {self.path} cannot be read: {first_line(error)}; remove it") from None
        if state.get("training") != self.training:
            raise UserError(
                f"checkpoint {self.path} is of another training (other data or settings); "
                "remove it, or name another file"
            )
        return state
