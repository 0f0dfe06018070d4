"""What a worker demands of the machine before it starts."""

import sys
from typing import Any

import pytest

from mmrec_stream.errors import UserError
from mmrec_stream.ranking import providers
from mmrec_stream.settings import Settings
from streams.serving import check_scoring


def demanding(**wanted: Any) -> Settings:
    return Settings(_env_file=None, **wanted)  # type: ignore[call-arg]


def test_what_is_not_demanded_by_name_is_not_needed() -> None:
    check_scoring(demanding())


def test_cuda_by_name_has_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "cuda_failure", lambda: "no GPU")
    with pytest.raises(UserError, match="MMREC_PROVIDER=cuda, but CUDA does not work here: no GPU"):
        check_scoring(demanding(provider="cuda"))


def test_an_approximate_index_needs_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'mmrec-stream\[ann\]'"):
        check_scoring(demanding(retrieval="approximate"))
