"""A release as a folder: written whole or not at all, and verified whole before anything of it is loaded."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import DTypeLike, NDArray

from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.errors import UserError
from mmrec_stream.releases.manifest import FORMAT, FileEntry, Manifest, decode_manifest, encode_manifest
from mmrec_stream.releases.signing import MAX_SIGNATURE_BYTES, PublicKeys, key_name, signature_of

Half = Literal["user", "item"]
"""Of the mix: p_user or p_item."""

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
"""Of the manifest; a release may be without."""

ITEM_ENCODER = "item_encoder.onnx"
RANKER = "ranker.onnx"
USER_ENCODER = "user_encoder.onnx"
ITEM_VECTORS = "item_vectors.npy"
ITEMS = "items.json"
NEIGHBOURS = "neighbours.npy"
NEIGHBOUR_WEIGHTS = "neighbour_weights.npy"
VOCABULARIES = "vocabularies.json"
GOLDEN = "golden.npz"
REPURCHASES = "repurchases.npy"
SIMILAR = "similar.npy"
COMPLEMENTARY = "complementary.npy"
RERANKER = "reranker.onnx"
COUNTS = "counts.npy"

FILES = (ITEM_ENCODER, USER_ENCODER, RANKER, ITEM_VECTORS, ITEMS, NEIGHBOURS, NEIGHBOUR_WEIGHTS, VOCABULARIES, GOLDEN)
"""What a release consists of, beside its manifest."""

TABLES = (SIMILAR, COMPLEMENTARY)
"""What it may have besides: which items go with each. A release of a version that made none serves all the same."""

OPTIONAL = (*TABLES, REPURCHASES)
"""Everything that it may have besides; the last where its log says what is bought again."""

ASSOCIATION = np.dtype([("item", "<i4"), ("weight", "<f4"), ("count", "<i4")])
"""One place in a row of `TABLES`: the item's row, −1 where there is none; its share of the row; and how often the two
were seen together, 0 where content alone says it."""

RERANKING = (RERANKER, COUNTS)
"""What a release has where re-ranking gained, both or neither."""

COUNTED = np.dtype(
    [("of", "<i4"), ("item", "<i4"), ("users", "<f4"), ("after", "<f4"), ("before", "<f4"), ("next", "<f4")]
)
"""One entry of `COUNTS`, of a pair of items by their rows: how many users liked both; how often `item` came within five
likings after `of`, and before it, each time weighing 1 / distance; and how often right after it. Sorted by `of`; each
item's first entry is of the item itself, with how many liked it."""

GRAPHS = (RANKER, USER_ENCODER, ITEM_ENCODER)
"""The models among `FILES`."""

MAX_MANIFEST_BYTES = 1 << 20
"""A manifest has a few kilobytes; more is not one, and is not read into memory."""

MAX_FILE_BYTES = 32 << 30
"""Ten million item vectors of 256 floats take 10 GiB; three times that is a mistake, or an attack on the disk."""

_CHUNK = 1 << 20
"""Bytes hashed at a time: 1 MiB keeps sha256 at full speed and memory flat."""


@dataclass(frozen=True)
class Expected:
    """What a release has to be, beside whole."""

    version: str | None = None
    """The version that was announced; None where nobody said."""
    manifest_sha256: str | None = None
    """What the manifest's own hash was announced as."""
    keys: PublicKeys | None = None
    """One of which must have signed it; None takes unsigned ones."""

    @classmethod
    def of(cls, told: ReleaseAnnouncement, keys: PublicKeys | None) -> "Expected":
        """What an announced release has to be."""
        return cls(told.version, told.manifest_sha256, keys)


ANY = Expected()


@dataclass(frozen=True)
class Release:
    """A verified release, its arrays mapped from disk."""

    path: Path
    manifest: Manifest
    item_ids: list[str]
    item_vectors: NDArray[np.float32]
    """(items, vector)."""
    neighbours: NDArray[np.int32]
    """(items, K), −1 where there is none."""
    neighbour_weights: NDArray[np.float32]
    """(items, K), 0 where there is none."""
    vocabularies: dict[str, list[str]]
    golden: dict[str, NDArray[np.generic]]
    """Inputs and outputs of its graphs, by `graph/in/name` and `graph/out/name`; the lists of each half of the mix
    alone, by `ranker/user/name` (α = 1) and `ranker/item/name` (α = 0)."""
    similar: NDArray[np.void] | None = None
    """What is like each item, `ASSOCIATION` by weight, (items, any number); None where there is no such table."""
    complementary: NDArray[np.void] | None = None
    """What completes each item; as `similar`."""
    repurchases: NDArray[np.float32] | None = None
    """After how long each item is bought again, s, (items,), NaN where that is not known; None where of no item."""
    counts: NDArray[np.void] | None = None
    """What its re-ranker goes by, `COUNTED`; None where it has none."""

    def golden_of(self, graph: str, side: Literal["in", "out"] | Half) -> dict[str, NDArray[np.generic]]:
        """Golden inputs or outputs of a graph (one of `GRAPHS`), by the names of its tensors.

        The user encoder has the ranker's inputs. Halves are the ranker's only. Of the re-ranker, lists go in, of the
        ranker's users, and the features of their places and the logits come out.
        """
        prefix = f"{graph.removesuffix('.onnx')}/{side}/"
        return {name.removeprefix(prefix): array for name, array in self.golden.items() if name.startswith(prefix)}


def write_release(folder: Path, files: Mapping[str, bytes], manifest: Manifest) -> Manifest:
    """Write a release into `folder`, which must not exist: beside it first, flushed to disk, then renamed.

    Args:
        folder: Where the release is to lie; its parent is created.
        files: Content by file name: all of `FILES`, and what there is of `OPTIONAL` and `RERANKING`.
        manifest: What it says of itself; its `files` are filled in here.

    Returns:
        The manifest as written.

    Raises:
        UserError: The folder exists, or a file is missing or unknown.
    """
    if different := unexpected(files):
        raise UserError(f"a release consists of {', '.join(FILES)}; missing or unknown: {', '.join(sorted(different))}")
    if folder.exists():
        raise UserError(f"{folder} exists; a release is never overwritten, choose another version")
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in sorted(files.items())
    }
    complete = msgspec.structs.replace(manifest, files=entries)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files.items():
            _write(beside / name, content)
        _write(beside / MANIFEST, msgspec.json.format(encode_manifest(complete), indent=1))
        # mkdtemp gives the folder to its owner alone; workers may run as another user.
        beside.chmod(0o755)
        _sync_folder(beside)
        beside.rename(folder)
        _sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return complete


def verify_release(path: Path, expected: Expected = ANY) -> Manifest:
    """Check a release whole: manifest, signature, format, every file's size and sha256, nothing besides.

    Args:
        path: The release's folder.
        expected: What it has to be beside that.

    Raises:
        UserError: Something is wrong; names the file and what to do.
    """
    if not path.is_dir():
        raise UserError(f"release {path}: no such folder; check MMREC_DATA_DIR, or write one with `mmrec train`")
    content = _manifest_bytes(path)
    if expected.manifest_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(f"release {path}: {MANIFEST} is not the one that was announced; copy the release again")
    if expected.keys is not None:
        signer_of(path, content, expected.keys)
    try:
        version = msgspec.json.decode(content, type=_Versioned).format
        if version != FORMAT:
            raise UserError(
                f"release {path}: {MANIFEST} has format {version}, this version reads {FORMAT}; "
                "export it again with the `mmrec train` of this installation"
            )
        manifest = decode_manifest(content)
    except msgspec.DecodeError as error:
        raise UserError(f"release {path}: {MANIFEST} cannot be read: {error}") from None
    if expected.version not in (None, manifest.version):
        raise UserError(f"release {path}: it was announced as {expected.version}, and is {manifest.version}")
    if different := unexpected(manifest.files):
        raise UserError(f"release {path}: {MANIFEST} lacks or adds {', '.join(sorted(different))}")
    for file in sorted(path.iterdir()):
        if file.name not in (MANIFEST, SIGNATURE) and file.name not in manifest.files:
            raise UserError(f"release {path}: {file.name} does not belong to it; remove it, or export again")
    for name, entry in manifest.files.items():
        _verify_file(path, name, entry)
    return manifest


def sign_release(path: Path, key: Ed25519PrivateKey) -> str:
    """Sign a release that verifies; an earlier signature is replaced. Returns the name of the key.

    Raises:
        UserError: As `verify_release`.
    """
    verify_release(path)
    content = signature_of(_manifest_bytes(path), key)
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False) as beside:
        beside.write(content)
        beside.flush()
        os.fsync(beside.fileno())
    file = Path(beside.name)
    file.chmod(0o644)
    file.rename(path / SIGNATURE)
    _sync_folder(path)
    return key_name(key.public_key())


def signer_of(path: Path, content: bytes, keys: PublicKeys) -> str:
    """Name of the trusted key that has signed the manifest with these bytes.

    Raises:
        UserError: None has.
    """
    file = path / SIGNATURE
    if not file.is_symlink() and not file.exists():
        raise UserError(
            f"release {path}: it is not signed, and MMREC_RELEASE_KEYS asks for it; `mmrec release sign` signs one"
        )
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_SIGNATURE_BYTES:
        raise UserError(f"release {path}: {SIGNATURE} is no signature; sign it again with `mmrec release sign`")
    try:
        return keys.signer(content, file.read_bytes())
    except UserError as error:
        raise UserError(f"release {path}: {error}") from None


def load_release(path: Path, expected: Expected = ANY) -> Release:
    """Verify a release and map its arrays.

    Raises:
        UserError: As `verify_release`, or the files do not fit each other.
    """
    manifest = verify_release(path, expected)
    try:
        item_ids = msgspec.json.decode((path / ITEMS).read_bytes(), type=list[str])
        vocabularies = msgspec.json.decode((path / VOCABULARIES).read_bytes(), type=dict[str, list[str]])
        vectors, neighbours, weights = (
            np.load(path / name, mmap_mode="r", allow_pickle=False)
            for name in (ITEM_VECTORS, NEIGHBOURS, NEIGHBOUR_WEIGHTS)
        )
        tables = {
            name: np.load(path / name, mmap_mode="r", allow_pickle=False) for name in TABLES if name in manifest.files
        }
        there = REPURCHASES in manifest.files
        repurchases = np.load(path / REPURCHASES, mmap_mode="r", allow_pickle=False) if there else None
        counts = np.load(path / COUNTS, mmap_mode="r", allow_pickle=False) if COUNTS in manifest.files else None
        with np.load(path / GOLDEN, allow_pickle=False) as archive:
            golden = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, KeyError, msgspec.DecodeError) as error:
        raise UserError(f"release {path}: a file cannot be read: {error}") from None
    size = manifest.dimensions
    _check_array(path, ITEM_VECTORS, vectors, np.float32, (size.items, size.vector))
    _check_array(path, NEIGHBOURS, neighbours, np.int32, (size.items, size.neighbours))
    _check_array(path, NEIGHBOUR_WEIGHTS, weights, np.float32, (size.items, size.neighbours))
    if len(item_ids) != size.items or len(set(item_ids)) != size.items:
        raise UserError(f"release {path}: {ITEMS} does not have {size.items} different ids")
    if size.items and (neighbours.min() < -1 or neighbours.max() >= size.items):
        raise UserError(f"release {path}: {NEIGHBOURS} points outside the {size.items} items")
    if repurchases is not None:
        _check_array(path, REPURCHASES, repurchases, np.float32, (size.items,))
        if (repurchases <= 0).any():
            raise UserError(f"release {path}: {REPURCHASES} has an interval that is not above 0")
    for name, table in tables.items():
        _check_array(path, name, table, ASSOCIATION, (size.items, *table.shape[1:2]))
        if table.size and (table["item"].min() < -1 or table["item"].max() >= size.items):
            raise UserError(f"release {path}: {name} points outside the {size.items} items")
    if counts is not None:
        _check_counts(path, counts, size.items)
    return Release(
        path,
        manifest,
        item_ids,
        vectors,
        neighbours,
        weights,
        vocabularies,
        golden,
        tables.get(SIMILAR),
        tables.get(COMPLEMENTARY),
        repurchases,
        counts,
    )


def release_files(path: Path) -> dict[str, bytes]:
    """The content of a release's files by name, as `write_release` takes them; its manifest is not among them.

    Raises:
        UserError: As `verify_release`.
    """
    return {name: (path / name).read_bytes() for name in verify_release(path).files}


def announcement(path: Path, keys: PublicKeys | None = None) -> ReleaseAnnouncement:
    """What to publish on the releases topic for a release that lies at `path` (verified here, signed by one of `keys`).

    Raises:
        UserError: As `verify_release`.
    """
    manifest = verify_release(path, Expected(keys=keys))
    return ReleaseAnnouncement(
        version=manifest.version,
        uri=path.resolve().as_uri(),
        manifest_sha256=hashlib.sha256(_manifest_bytes(path)).hexdigest(),
        created=manifest.created,
        metrics=manifest.metrics,
    )


def unexpected(names: Iterable[str]) -> set[str]:
    """What of a release is missing, or does not belong to one."""
    there = set(names)
    asked = set(FILES) | (set(RERANKING) if there & set(RERANKING) else set())
    return (asked - there) | (there - asked - set(OPTIONAL))


class _Versioned(msgspec.Struct):
    format: int


def _manifest_bytes(path: Path) -> bytes:
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        raise UserError(f"release {path}: {MANIFEST} is missing or no plain file; export the release again")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise UserError(f"release {path}: {MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes, so it is none")
    return file.read_bytes()


def _verify_file(path: Path, name: str, expected: FileEntry) -> None:
    file = path / name
    # A link could lead out of the folder, and what it leads to can change after the check.
    if file.is_symlink() or not file.is_file():
        raise UserError(f"release {path}: {name} is missing or no plain file; copy the release again")
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UserError(f"release {path}: {name} has {size} bytes, more than the {MAX_FILE_BYTES} allowed")
    if size != expected.size:
        raise UserError(f"release {path}: {name} has {size} bytes instead of {expected.size}; copy the release again")
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected.sha256:
        raise UserError(f"release {path}: {name} was changed (sha256 differs); copy the release again")


def _check_array(path: Path, name: str, array: NDArray[np.generic], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise UserError(f"release {path}: {name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape} by rows")


def _check_counts(path: Path, counts: NDArray[np.void], items: int) -> None:
    _check_array(path, COUNTS, counts, COUNTED, (len(counts),))
    of, item = counts["of"], counts["item"]
    first = np.r_[True, of[1:] != of[:-1]][: len(of)]
    if len(of) and (min(of.min(), item.min()) < 0 or max(of.max(), item.max()) >= items):
        raise UserError(f"release {path}: {COUNTS} points outside the {items} items")
    if (np.diff(of) < 0).any() or (item[first] != of[first]).any():
        raise UserError(f"release {path}: {COUNTS} is not in the order of its items; export the release again")


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames inside `folder` last through a power cut; where folders cannot be opened, the system sees to it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
