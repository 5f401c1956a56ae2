"""The vault: personal values encrypted under keys that never stand in the database."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crm.domain.errors import SealBroken, VaultKeyUnusable

KEY_BYTES = 32
NONCE_BYTES = 12
FINGERPRINT_BYTES = 16
_VERSION = b"\x01"  # names key and layout, so that keys can be rotated under old values


@dataclass(frozen=True)
class VaultSettings:
    """`key_file` holds the master key (64 hexadecimal digits); None: one of the instance's own."""

    key_file: Path | None = None


def open_vault(key_file: Path) -> FileKeyVault:
    """Open the vault with the master key in `key_file`; raises VaultKeyUnusable."""
    return FileKeyVault(_read(key_file))


class FileKeyVault:
    """AES-256-GCM and keyed BLAKE2b under keys derived from one master key (32 bytes).

    Each process opens its own: a vault is never pickled, so its keys never travel.
    """

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != KEY_BYTES:
            raise VaultKeyUnusable(f"the vault's master key must have {KEY_BYTES} bytes")
        self._cipher = AESGCM(_derived(master_key, b"crm vault: seal"))
        self._fingerprint_key = _derived(master_key, b"crm vault: fingerprint")

    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        """Encrypt one personal value, bound to its place: version, nonce, ciphertext and tag."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        place = _place(brand, player_id, field)
        return _VERSION + nonce + self._cipher.encrypt(nonce, value.encode(), place)

    def unseal(self, brand: str, player_id: str, field: str, sealed: bytes) -> str:
        """Return the value that was sealed for this place; raises SealBroken."""
        if not sealed.startswith(_VERSION):
            raise SealBroken("a sealed value has an unknown version")
        body = sealed[len(_VERSION) :]
        nonce, ciphertext = body[:NONCE_BYTES], body[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _place(brand, player_id, field)).decode()
        except (InvalidTag, ValueError):
            raise SealBroken(
                "a sealed value was changed, was moved, or is under another key"
            ) from None

    def fingerprint(self, content: bytes) -> bytes:
        """Return a keyed 16-byte digest: without the key nobody can try out likely contents."""
        return blake2b(content, digest_size=FINGERPRINT_BYTES, key=self._fingerprint_key).digest()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault is not sent between processes: each opens its own")


def _derived(master_key: bytes, purpose: bytes) -> bytes:
    """Return a key of its own for one purpose (HKDF, RFC 5869)."""
    return HKDF(SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(master_key)


def _place(*parts: str) -> bytes:
    """Return bytes that differ for every different tuple of parts (each with its length)."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _read(path: Path) -> bytes:
    """Return the key in `path`: 64 hexadecimal digits; the message never shows what was there."""
    try:
        key = bytes.fromhex(path.read_bytes().decode("ascii"))
    except OSError as error:
        raise VaultKeyUnusable(
            f"cannot read the vault's key file {path}: {error.strerror}"
        ) from error
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultKeyUnusable(
            f"the vault's key file {path} must hold {2 * KEY_BYTES} hexadecimal digits: restore it"
            " from its backup, or values sealed under it cannot be read again"
        )
    return key


def own_key_file(var_dir: Path) -> Path:
    """Return the instance's own key file, made on the first start; raises VaultKeyUnusable.

    A configured key file is never made: one that is missing is a mistake, and a new one in its
    place would make every sealed value unreadable.

    The key is written beside and linked into place: of processes that start at once one wins, the
    others use its key, and no one ever sees half a file.
    """
    path = var_dir / "keys" / "master.key"
    if path.exists():
        return path
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_key(path)
    except OSError as error:
        raise VaultKeyUnusable(
            f"cannot make the vault's key file {path}: {error.strerror}"
        ) from error
    return path


def _make_key(path: Path) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix="master.")  # O_EXCL, mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # a key that a power cut takes back would make its values unreadable
        finally:
            os.close(folder)
    finally:
        Path(draft).unlink()
