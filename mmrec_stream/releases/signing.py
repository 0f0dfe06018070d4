"""Who made a release, shown by an ed25519 signature of its manifest, which names every file by its hash.

Keys are PEM, as `openssl genpkey -algorithm ed25519` and key services write them. What is signed are the manifest's
bytes as they lie on disk.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings

MAX_SIGNATURE_BYTES = 1_024
"""A signature's file has 140 bytes; more is none, and is not read into memory."""

_PUBLIC = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class _Signature(msgspec.Struct, kw_only=True, frozen=True):
    """The content of a signature's file."""

    key: str
    """Name of the key (`key_name`)."""
    signature: str
    """Base64 of its 64 bytes."""


class PublicKeys:
    """The keys that are trusted. Several let a new one come in before the old one goes."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_name(key): key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def signer(self, content: bytes, signature: bytes) -> str:
        """Name of the key that has signed `content`.

        Args:
            content: what should be signed.
            signature: what `signature_of` gave.

        Raises:
            UserError: no trusted key has signed this content; says why, beginning in the middle of a sentence.
        """
        try:
            told = msgspec.json.decode(signature, type=_Signature)
            raw = base64.b64decode(told.signature, validate=True)
        except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError):
            raise UserError("its signature cannot be read; sign it again with `mmrec release sign`") from None
        key = self._keys.get(told.key)
        if key is None:
            raise UserError(
                f"it is signed with key {told.key[:64]!r}, which is none of those in MMREC_RELEASE_KEYS "
                f"({', '.join(self._keys)})"
            )
        try:
            key.verify(raw, content)
        except InvalidSignature:
            raise UserError(f"it was changed after it was signed, or not by key {told.key!r}") from None
        return told.key


def signature_of(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signature's file for some content."""
    raw = base64.b64encode(key.sign(content)).decode()
    return msgspec.json.encode(_Signature(key=key_name(key.public_key()), signature=raw)) + b"\n"


def key_name(key: Ed25519PublicKey) -> str:
    """What a key is called: the first 16 hex digits of the sha256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def new_key() -> tuple[str, str]:
    """A new pair of keys as PEM: the private one, and the public one."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode(), key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def trusted_keys(settings: Settings) -> PublicKeys | None:
    """The keys of which one must have signed a release before it is loaded; None where none is asked for.

    Raises:
        UserError: `MMREC_RELEASE_KEYS` is set, and holds anything but public ed25519 keys.
    """
    if not settings.release_keys:
        return None
    name = "MMREC_RELEASE_KEYS"
    blocks = _PUBLIC.findall(_text(name, settings.release_keys))
    if not blocks:
        raise UserError(
            f"{name} has no public key; `mmrec release new-key FILE` makes a pair and prints the public one"
        )
    found = []
    for block in blocks:
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise UserError(f"{name} has a key that cannot be read as PEM") from None
        if not isinstance(key, Ed25519PublicKey):
            raise UserError(f"{name} has a key of another kind than ed25519")
        found.append(key)
    return PublicKeys(found)


def signing_key(settings: Settings) -> Ed25519PrivateKey | None:
    """The key that releases are signed with; None where there is none. No error has anything of the key in it.

    Raises:
        UserError: `MMREC_RELEASE_SIGNING_KEY` is set, and is no private ed25519 key.
    """
    if settings.release_signing_key is None or not settings.release_signing_key.get_secret_value():
        return None
    name = "MMREC_RELEASE_SIGNING_KEY"
    try:
        key = load_pem_private_key(_text(name, settings.release_signing_key.get_secret_value()).encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError(f"{name} is no private key (PEM, no password); `mmrec release new-key` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{name} is a key of another kind than ed25519")
    return key


def _text(name: str, given: str) -> str:
    """A setting that is PEM itself or the path of a file of it."""
    if "-----BEGIN" in given:
        return given
    try:
        return Path(given).read_text()
    except (OSError, ValueError) as error:
        # The path is not repeated: where a key was meant and its first line left out, it would be the key.
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise UserError(f"{name} is neither PEM nor the path of a readable file of it: {reason}") from None
