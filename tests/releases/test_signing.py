"""Who signed a release is known before anything of it is loaded; whoever did not is refused by name."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from mmrec_stream.errors import UserError
from mmrec_stream.releases import Expected, announcement, sign_release, verify_release, write_release
from mmrec_stream.releases.signing import PublicKeys, key_name, new_key, signature_of, signing_key, trusted_keys
from mmrec_stream.settings import Settings
from tests.releases.test_releases import contents, manifest

ONE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUSTED = PublicKeys([ONE.public_key()])


def set_to(**given: object) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[call-arg, arg-type]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    path = tmp_path / "r1"
    write_release(path, contents(), manifest("r1"))
    return path


def why(release: Path, keys: PublicKeys = TRUSTED) -> str:
    with pytest.raises(UserError) as refusal:
        verify_release(release, Expected(keys=keys))
    return str(refusal.value)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_is_good_for_what_was_signed_alone(content: bytes, other: bytes) -> None:
    signature = signature_of(content, ONE)
    assert TRUSTED.signer(content, signature) == key_name(ONE.public_key())
    if other != content:
        with pytest.raises(UserError, match="changed after it was signed"):
            TRUSTED.signer(other, signature)


@given(st.data())
def test_no_other_bytes_are_a_signature(data: st.DataObject) -> None:
    signature = json.loads(signature_of(b"content", ONE))
    raw = bytearray(base64.b64decode(signature["signature"]))
    raw[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
    signature["signature"] = base64.b64encode(raw).decode()
    with pytest.raises(UserError, match="changed after it was signed"):
        TRUSTED.signer(b"content", json.dumps(signature).encode())
    with pytest.raises(UserError, match=r"cannot be read|none of those"):
        TRUSTED.signer(b"content", data.draw(st.binary(max_size=300)))


def test_an_unsigned_a_foreign_and_a_changed_release_are_refused_each_with_its_reason(release: Path) -> None:
    assert "it is not signed, and MMREC_RELEASE_KEYS asks for it" in why(release)
    sign_release(release, OTHER)
    assert f"signed with key '{key_name(OTHER.public_key())}', which is none of those" in why(release)
    sign_release(release, ONE)
    assert verify_release(release, Expected(keys=TRUSTED)).version == "r1"
    assert announcement(release, TRUSTED).version == "r1"
    file = release / "manifest.json"
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"r1"', b'"r2"'))
    assert "it was changed after it was signed" in why(release)
    file.write_bytes(content)
    (release / "ranker.onnx").write_bytes(b"Ranker")
    assert "ranker.onnx was changed" in why(release)


def test_a_signature_of_another_release_is_none_of_this(release: Path, tmp_path: Path) -> None:
    second = tmp_path / "r2"
    write_release(second, contents(), manifest("r2"))
    sign_release(second, ONE)
    (release / "manifest.sig").write_bytes((second / "manifest.sig").read_bytes())
    assert "it was changed after it was signed" in why(release)
    (release / "manifest.sig").unlink()
    (release / "manifest.sig").symlink_to(second / "manifest.sig")
    assert "manifest.sig is no signature" in why(release)
    (release / "manifest.sig").unlink()
    (release / "manifest.sig").write_bytes(b" " * 2_000)
    assert "manifest.sig is no signature" in why(release)


def test_a_key_comes_in_before_another_goes(release: Path) -> None:
    both = PublicKeys([OTHER.public_key(), ONE.public_key()])
    for key in (ONE, OTHER):
        sign_release(release, key)
        verify_release(release, Expected(keys=both))
    assert "none of those" in why(release, PublicKeys([ONE.public_key()]))


def test_signing_changes_nothing_else_and_is_not_asked_for_without_keys(release: Path) -> None:
    before = {file.name: file.read_bytes() for file in release.iterdir()}
    sign_release(release, ONE)
    sign_release(release, ONE)
    after = {file.name: file.read_bytes() for file in release.iterdir()}
    assert after.pop("manifest.sig")
    assert after == before
    assert [path.name for path in release.parent.iterdir()] == ["r1"]
    verify_release(release)
    (release / "ranker.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"ranker\.onnx has 1 bytes"):
        sign_release(release, ONE)


def test_keys_are_given_as_text_or_as_files_and_openssl_knows_them(tmp_path: Path) -> None:
    private, public = new_key()
    (tmp_path / "release.pem").write_text(private)
    other = OTHER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    (tmp_path / "release.pub").write_text(f"# of the trainer\n{public}\n# of before\n{other}")
    for given_private, given_public in (
        (private, public),
        (str(tmp_path / "release.pem"), str(tmp_path / "release.pub")),
    ):
        key = signing_key(set_to(release_signing_key=SecretStr(given_private)))
        keys = trusted_keys(set_to(release_keys=given_public))
        assert key is not None
        assert keys is not None
        assert keys.signer(b"x", signature_of(b"x", key)) == key_name(key.public_key())
        count = len(keys)
    assert count == 2
    assert signing_key(set_to()) is None
    assert trusted_keys(set_to()) is None
    read = subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "release.pem", "-pubout"], capture_output=True, text=True, check=True
    )
    assert read.stdout == public


def test_what_is_no_key_is_refused_without_repeating_it() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    foreign = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    private = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    broken = "-----BEGIN PUBLIC KEY-----\nc2VjcmV0\n-----END PUBLIC KEY-----"
    for given_keys, reason in (
        (foreign, "another kind than ed25519"),
        (broken, "cannot be read"),
        ("-----BEGIN-----", "has no public key"),
        (private, "has no public key"),
        ("MC4CAQAwBQYDK2VwBCIEIsecret", "neither PEM nor the path of a readable file"),
    ):
        with pytest.raises(UserError, match=f"MMREC_RELEASE_KEYS.*{reason}") as refusal:
            trusted_keys(set_to(release_keys=given_keys))
        assert "secret" not in str(refusal.value)
    for given_key, reason in (
        (private, "another kind than ed25519"),
        (broken, "no private key"),
        ("MC4CAQAwBQYDK2VwBCIEIsecret", "neither PEM nor the path of a readable file"),
    ):
        with pytest.raises(UserError, match=f"MMREC_RELEASE_SIGNING_KEY.*{reason}") as refusal:
            signing_key(set_to(release_signing_key=SecretStr(given_key)))
        assert "secret" not in str(refusal.value)
