"""`mmrec release` shows what is announced and what a release is, and refuses by name what would do harm."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmrec_stream.kafka.reader import read
from mmrec_stream.releases import folder, load_release, write_release
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from model_export.release import npy_bytes
from tests.conftest import Outcome
from tests.tiny import tiny_release

Mmrec = Callable[..., Outcome]


def keep(settings: Settings, version: str, **other: bytes) -> Path:
    """The tiny release where releases are kept, as `version`, with other content of some files (`.` as `_`)."""
    known = load_release(tiny_release())
    files = {name: other.get(name.replace(".", "_"), (known.path / name).read_bytes()) for name in folder.FILES}
    path = settings.releases_dir / version
    write_release(path, files, msgspec.structs.replace(known.manifest, version=version))
    return path


def listed(mmrec: Mmrec, settings: Settings) -> dict[str, tuple[str, str]]:
    """Stage and reason by version, as the table has them, in its order."""
    head, *rows = mmrec(settings, "release", "list").stdout.splitlines()
    assert head.split() == ["release", "stage", "since", "why"]
    cells = [row.split(maxsplit=4) for row in rows]
    return {version: (stage, why.strip()) for version, stage, _, _, why in cells}


def refused(outcome: Outcome) -> str:
    """Why a command ended: one line, and status 1."""
    assert outcome.exit_code == 1, outcome.output
    (line,) = outcome.stderr.splitlines()
    assert outcome.stdout == ""
    return line


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    """Settings of commands that ask no broker."""
    return Settings(_env_file=None, data_dir=tmp_path, bootstrap="127.0.0.1:1", provider="cpu")  # type: ignore[call-arg]


def test_a_release_is_taken_from_trial_to_everybody_and_back(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    for version in ("r1", "r2", "r3"):
        keep(settings, version)
    assert "no release is announced" in mmrec(settings, "release", "list").stdout
    first = mmrec(settings, "release", "announce", "r1")
    assert first.stdout == "r1 is announced: shadow, and live at once, as no other release is\n"
    # Nobody's worker runs here, which would have promoted it.
    assert mmrec(settings, "release", "promote").stdout == "r1: shadow → live\n"
    assert mmrec(settings, "release", "announce", "r2").stdout == "r2 is announced: shadow\n"
    assert listed(mmrec, settings) == {"r1": ("live", "by hand"), "r2": ("shadow", "announced")}
    assert mmrec(settings, "release", "promote", "--to", "canary").stdout == "r2: shadow → canary\n"
    reason = "[bold]seen[/] \x1b[31m enough"
    assert mmrec(settings, "release", "promote", "--reason", reason).stdout == "r2: canary → live\n"
    assert listed(mmrec, settings) == {
        "r1": ("replaced", "by hand"),
        "r2": ("live", "[bold]seen[/] \\x1b[31m enough"),
    }
    assert mmrec(settings, "release", "rollback", "--reason", "shoes").stdout == "r2: live → withdrawn\n"
    assert listed(mmrec, settings) == {"r1": ("live", "by hand"), "r2": ("withdrawn", "shoes")}
    mmrec(settings, "release", "announce", "r3", "--stage", "canary", "--share", "0.3", "--canary", "5")
    assert mmrec(settings, "release", "rollback").stdout == "r3: canary → withdrawn\n"


def test_what_would_do_harm_or_nothing_is_refused_and_leaves_no_record(
    settings: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    (keep(settings, "torn") / "ranker.onnx").write_bytes(b"x")
    keep(settings, "r1")
    keep(settings, "r2")

    def why(*arguments: str) -> str:
        return refused(mmrec(settings, "release", *arguments))

    assert "ranker.onnx has 1 bytes" in why("announce", "torn")
    assert f"none of that name in {settings.releases_dir}" in why("announce", "r9")
    assert "`$.shadow_s`" in why("announce", "r1", "--shadow", "inf")
    assert "no release is on trial" in why("promote")
    assert "no release is on trial" in why("rollback")
    assert list(read(settings, topics.releases)) == []
    mmrec(settings, "release", "announce", "r1", "--stage", "live")
    assert "the only one that is live" in why("rollback")
    assert "r1 is live; on trial again" in why("announce", "r1")
    assert "no release r9 is announced" in why("promote", "r9")
    assert "r1 is live; announce it again" in why("promote", "r1")
    mmrec(settings, "release", "announce", "r2")
    assert "`$.reason`" in why("promote", "--reason", "x" * 1_001)
    mmrec(settings, "release", "announce", "r1", "--stage", "live")
    assert "a later release has the place of r2" in why("promote", "r2")
    assert listed(mmrec, settings) == {"r2": ("replaced", "announced"), "r1": ("live", "announced")}
    assert list(read(settings, topics.rollouts)) == []


def test_without_topics_nothing_is_announced(settings: Settings, mmrec: Mmrec) -> None:
    keep(settings, "r1")
    for arguments in (("list",), ("announce", "r1"), ("promote",), ("rollback",)):
        assert "`mmrec topics` creates ours" in refused(mmrec(settings, "release", *arguments))


def test_a_release_is_shown_and_verified_by_version_or_folder(local: Settings, mmrec: Mmrec) -> None:
    path = keep(local, "r1")
    shown = mmrec(local, "release", "show", "r1").stdout
    assert shown == mmrec(local, "release", "show", str(path)).stdout
    facts = {line[:16].strip(): line[17:] for line in shown.splitlines()}
    known = load_release(path).manifest
    assert facts["version"] == "r1"
    assert facts["size"].startswith(f"{known.dimensions.items} products, vectors of {known.dimensions.vector},")
    assert facts["users"] == known.user_encoder
    assert facts["ndcg@10"] == f"{known.metrics['ndcg@10']:.4f}"
    assert facts["bytes"] == f"{sum(entry.size for entry in known.files.values()):,}"
    verified = mmrec(local, "release", "verify", "r1")
    assert verified.exit_code == 0
    assert verified.stdout.startswith("r1: 9 files, every size and sha256")
    assert "golden outputs come out the same on CPU" in verified.stdout


def test_a_release_that_a_worker_would_refuse_is_refused(local: Settings, mmrec: Mmrec) -> None:
    known = load_release(tiny_release())
    keep(local, "nan", item_vectors_npy=npy_bytes(np.full_like(known.item_vectors, np.nan)))
    assert "other results than where it was exported" in refused(mmrec(local, "release", "verify", "nan"))
    (local.releases_dir / "empty").mkdir()
    for command in ("show", "verify"):
        assert "manifest.json is missing" in refused(mmrec(local, "release", command, "empty"))
        assert "no release r9" in refused(mmrec(local, "release", command, "r9"))


def test_two_releases_differ_where_they_do(local: Settings, mmrec: Mmrec) -> None:
    ids = load_release(tiny_release()).item_ids
    keep(local, "r1")
    keep(local, "r2", items_json=msgspec.json.encode([f"new-{item}" for item in ids[:5]] + ids[5:]))
    lines = mmrec(local, "release", "diff", "r1", "r2").stdout.splitlines()
    assert "version          r1 → r2" in lines
    assert "products         5 more, 5 gone, 55 in both" in lines
    (same,) = (line for line in lines if line.startswith("same files"))
    assert "ranker.onnx" in same
    assert "items.json" not in same
    assert not [line for line in lines if line.startswith(("size", "encoders", "ndcg"))]
    assert "no release r9" in refused(mmrec(local, "release", "diff", "r1", "r9"))


def test_a_release_is_signed_and_without_a_trusted_signature_neither_verified_nor_announced(
    settings: Settings, topics: Topics, mmrec: Mmrec, tmp_path: Path
) -> None:
    keep(settings, "r1")
    private = tmp_path / "release.pem"
    made = mmrec(settings, "release", "new-key", str(private))
    assert private.stat().st_mode & 0o777 == 0o600
    assert "File exists" in refused(mmrec(settings, "release", "new-key", str(private)))
    assert "MMREC_RELEASE_SIGNING_KEY is not set" in refused(mmrec(settings, "release", "sign", "r1"))
    demanding = settings.model_copy(update={"release_keys": made.stdout})
    for command in ("verify", "announce"):
        assert "it is not signed" in refused(mmrec(demanding, "release", command, "r1"))
    assert list(read(settings, topics.releases)) == []
    signing = settings.model_copy(update={"release_signing_key": private})
    signed = mmrec(signing, "release", "sign", "r1").stdout
    assert signed.startswith("r1: signed with key ")
    verified = mmrec(demanding, "release", "verify", "r1").stdout
    assert verified.startswith("r1: 9 files, every size and sha256")
    assert signed.split()[-1] in verified
    assert mmrec(demanding, "release", "announce", "r1").exit_code == 0
