"""The vault: what is sealed stays where it was put, and keys stay with their process."""

from __future__ import annotations

import pickle
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Barrier, get_context
from pathlib import Path

import pytest

from crm.adapters.vault import FileKeyVault, open_vault, own_key_file
from crm.domain.errors import SealBroken, VaultKeyUnusable

KEY = bytes(range(32))
PLACE = ("demo", "player-1", "email")


def test_a_sealed_value_comes_back_and_is_not_readable_in_between() -> None:
    vault = FileKeyVault(KEY)
    sealed = vault.seal(*PLACE, "ana@example.com")
    assert vault.unseal(*PLACE, sealed) == "ana@example.com"
    assert b"ana" not in sealed


def test_the_same_value_is_sealed_differently_each_time() -> None:
    vault = FileKeyVault(KEY)
    assert vault.seal(*PLACE, "x") != vault.seal(*PLACE, "x")


@pytest.mark.parametrize(
    "other",
    [
        ("trial", "player-1", "email"),
        ("demo", "player-2", "email"),
        ("demo", "player-1", "phone"),
        ("demo", "player-1email", ""),
        ("demoplayer-1", "", "email"),
    ],
)
def test_a_sealed_value_moved_to_another_row_cannot_be_read(other: tuple[str, str, str]) -> None:
    vault = FileKeyVault(KEY)
    with pytest.raises(SealBroken):
        vault.unseal(*other, vault.seal(*PLACE, "ana@example.com"))


def test_any_changed_or_missing_byte_breaks_the_seal() -> None:
    vault = FileKeyVault(KEY)
    sealed = vault.seal(*PLACE, "ana")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        for damaged in (bytes(changed), sealed[:index]):
            with pytest.raises(SealBroken) as refused:
                vault.unseal(*PLACE, damaged)
            assert "ana" not in str(refused.value)


def test_another_master_key_reads_nothing_and_makes_other_fingerprints() -> None:
    vault, stranger = FileKeyVault(KEY), FileKeyVault(bytes(32))
    with pytest.raises(SealBroken):
        stranger.unseal(*PLACE, vault.seal(*PLACE, "ana"))
    assert vault.fingerprint(b"content") != stranger.fingerprint(b"content")
    assert len(vault.fingerprint(b"content")) == 16


def test_a_vault_does_not_travel_and_does_not_show_its_keys() -> None:
    vault = FileKeyVault(KEY)
    with pytest.raises(TypeError, match="each opens its own"):
        pickle.dumps(vault)
    assert KEY.hex() not in repr(vault)


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    first = open_vault(own_key_file(tmp_path))
    path = tmp_path / "keys" / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_vault(own_key_file(tmp_path)).fingerprint(b"x") == first.fingerprint(b"x")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"ab" * 33, b"z" * 64, b"\xff" * 64])
def test_a_wrong_key_file_is_one_clear_error_and_is_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "keys" / "master.key"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(VaultKeyUnusable, match=r"master\.key must hold 64 hexadecimal digits"):
        open_vault(own_key_file(tmp_path))
    assert path.read_bytes() == content


def test_a_configured_key_file_is_used_and_never_made(tmp_path: Path) -> None:
    path = tmp_path / "operators.key"
    with pytest.raises(VaultKeyUnusable, match=r"operators\.key: No such file"):
        open_vault(path)
    path.write_text(KEY.hex())
    vault = open_vault(path)
    assert vault.fingerprint(b"x") == FileKeyVault(KEY).fingerprint(b"x")


def test_a_master_key_has_32_bytes() -> None:
    with pytest.raises(VaultKeyUnusable, match="32 bytes"):
        FileKeyVault(b"short")


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    processes = 4
    context = get_context("fork")
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_wait_at, initargs=(barrier,)
    ) as pool:
        for round_ in range(5):
            folder = [tmp_path / str(round_)] * processes
            assert len(set(pool.map(_fingerprint_after_the_barrier, folder))) == 1


_barrier = Barrier(1)


def _wait_at(barrier: Barrier) -> None:  # type: ignore[valid-type]  # what spawn passes on
    global _barrier  # noqa: PLW0603  # how a pool's worker is given a barrier
    _barrier = barrier


def _fingerprint_after_the_barrier(var_dir: Path) -> bytes:
    _barrier.wait()
    return open_vault(own_key_file(var_dir)).fingerprint(b"content")
