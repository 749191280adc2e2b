"""Tables of token numbers on disk: complete, found again, proven, built once, and rebuilt."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubix_token_sync.audit.authenticity import WholeToken
from rubix_token_sync.audit.limits import Form, package_limits
from rubix_token_sync.audit.table_files import open_or_build
from rubix_token_sync.audit.token_numbers import (
    BLOCK_ENTRIES,
    HEADER_BYTES,
    TableSpec,
    TokenTable,
    ids_spec,
    make_header,
    numbers_spec,
    unpack,
)
from rubix_token_sync.errors import TokenTableError

LIMITS = package_limits()
NUMBERS = numbers_spec(LIMITS, up_to=3_000)
SEVERAL_BLOCKS = numbers_spec(LIMITS, up_to=2 * BLOCK_ENTRIES + 99)
IDS = ids_spec(LIMITS, levels=(1, 2, 78), newlines=True, up_to=150)


def key(digest: bytes) -> int:
    return int.from_bytes(digest[:8])


def number_key(number: int) -> int:
    return key(hashlib.sha256(str(number).encode()).digest())


def find(table: TokenTable, *keys: int) -> list[int]:
    return [int(value) for value in table.find(np.array(keys, np.uint64))]


def test_every_number_is_found_and_nothing_else(tmp_path: Path) -> None:
    table = open_or_build(str(tmp_path), NUMBERS)
    wanted = list(range(3_001))
    assert find(table, *map(number_key, wanted)) == wanted
    assert find(table, number_key(3_001), 0, 2**64 - 1, number_key(7)) == [-1, -1, -1, 7]
    assert find(table) == []
    assert table.find_all(number_key(7)) == [7]
    assert table.find_all(12345) == []


def test_every_level_and_form_is_found(tmp_path: Path) -> None:
    table = open_or_build(str(tmp_path), IDS)
    tokens = [
        WholeToken(level, number, form)
        for level in (1, 2, 78)
        for form in Form
        for number in range(151)
        if form.digits == 3 or level == 1
    ]
    assert IDS.entries == len(tokens) == 8 * 151
    values = table.find(np.array([key(token.digest()) for token in tokens], np.uint64))
    found = [
        WholeToken(*map(int, parts[:2]), Form(parts[2]))
        for parts in zip(*unpack(values), strict=True)
    ]
    assert found == tokens


def test_what_is_in_it_by_default() -> None:
    assert numbers_spec(LIMITS).entries == 6_000_001
    spans = ids_spec(LIMITS).ranges
    assert {(span.level, span.form) for span in spans} == {
        (1, Form.TWO_DIGITS),
        *((level, Form.THREE_DIGITS) for level in (1, 2, 3, 4)),
    }
    assert {span.last for span in spans if span.level == 3} == {2_303_750}
    assert ids_spec(LIMITS).size == 203_044_968
    with pytest.raises(ValueError, match="level 79"):
        ids_spec(LIMITS, levels=(1, 79))


def test_it_is_found_again_by_name_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "tables"
    first = open_or_build(str(directory), NUMBERS)
    before = os.stat(first.path)
    again = open_or_build(str(directory), NUMBERS)
    after = os.stat(again.path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert stat.S_IMODE(after.st_mode) == 0o600
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert after.st_size == NUMBERS.size
    assert os.path.basename(again.path).startswith(f"token-numbers-2-{LIMITS.version}-")


def test_other_versions_go_and_other_settings_stay(tmp_path: Path) -> None:
    directory = str(tmp_path)
    old = open_or_build(directory, replace(NUMBERS, limits="2025-01"))
    ids_of_old = open_or_build(directory, replace(IDS, limits="2025-01"))
    smaller = open_or_build(directory, numbers_spec(LIMITS, up_to=10))
    (tmp_path / "notes.txt").write_text("mine")
    new = open_or_build(directory, NUMBERS)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert os.path.basename(old.path) not in left
    assert {os.path.basename(t.path) for t in (ids_of_old, smaller, new)} <= left
    assert "notes.txt" in left
    assert find(old, number_key(7)) == [7], "who has it open goes on"


def test_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_or_build(str(tmp_path), IDS, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (IDS.entries, IDS.entries)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 12)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 12)


def swap_headers(path: Path) -> None:
    data = path.read_bytes()
    other = replace(NUMBERS, limits="2025-01")
    path.write_bytes(make_header(other, bytes(16)) + data[HEADER_BYTES:])


def empty_header(path: Path) -> None:
    """With a right checksum of its own, but nothing in it."""
    body = b"[]".ljust(HEADER_BYTES - 40, b"\0")
    head = b"RBTNUM\r\n" + hashlib.blake2b(body, digest_size=32).digest() + body
    path.write_bytes(head + path.read_bytes()[HEADER_BYTES:])


def byte(at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return change


def link(path: Path) -> None:
    kept = path.with_name("elsewhere")
    path.rename(kept)
    path.symlink_to(kept)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def gone(path: Path) -> None:
    path.unlink()


DAMAGES = {
    "cut": cut,
    "empty": empty,
    "longer": grow,
    "another's header": swap_headers,
    "a header that says nothing": empty_header,
    "magic": byte(0),
    "header": byte(60),
    "first key": byte(HEADER_BYTES),
    "a key": byte(HEADER_BYTES + 8 * 1_000 + 3),
    "a value": byte(HEADER_BYTES + 8 * 3_001 + 4 * 77),
    "last byte": byte(-1),
    "a link": link,
    "a pipe": pipe,
    "gone": gone,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_built_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    directory = str(tmp_path)
    path = Path(open_or_build(directory, NUMBERS).path)
    whole = path.read_bytes()
    damage(path)
    table = open_or_build(directory, NUMBERS)
    assert not path.is_symlink()
    assert path.read_bytes() == whole
    assert find(table, number_key(2_999)) == [2_999]


@pytest.fixture(scope="module")
def several_blocks(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a table of three blocks."""
    directory = str(tmp_path_factory.mktemp("blocks"))
    return Path(open_or_build(directory, SEVERAL_BLOCKS).path).read_bytes()


@given(
    at=st.integers(0, SEVERAL_BLOCKS.size - 1),
    bit=st.integers(0, 7),
    absent=st.lists(st.integers(0, 2**64 - 1), max_size=3),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_wrong_bit_anywhere_never_hides_a_number(
    several_blocks: bytes, tmp_path: Path, at: int, bit: int, absent: list[int]
) -> None:
    """Who opens it without proving it is told where a number seems not to be there."""
    data = bytearray(several_blocks)
    data[at] ^= 1 << bit
    other = tmp_path / "changed"
    other.write_bytes(data)
    with pytest.raises(TokenTableError, match="changed is damaged: ") as raised:
        TokenTable(str(other), SEVERAL_BLOCKS).verify()
    assert raised.value.code == "token_table_damaged"
    for number in (0, 1, at % SEVERAL_BLOCKS.entries, SEVERAL_BLOCKS.entries - 1):
        try:
            table = TokenTable(str(other), SEVERAL_BLOCKS)
            found = find(table, number_key(number), *absent)
            # A wrong number does not have this hash; who sees that asks for all of its key.
            if found[0] != number:
                found[0] = table.find_all(number_key(number))[0]
        except TokenTableError:
            continue  # told, and judged by nobody
        assert found == [number, *[-1] * len(absent)]


def test_a_missing_number_is_proven_by_its_block(several_blocks: bytes, tmp_path: Path) -> None:
    """Damage elsewhere does not matter to it, and is found where it matters."""
    data = bytearray(several_blocks)
    data[HEADER_BYTES + 8 * BLOCK_ENTRIES + 6] ^= 1  # the first key of the second block
    path = tmp_path / "changed"
    path.write_bytes(data)
    table = TokenTable(str(path), SEVERAL_BLOCKS)
    assert find(table, 0, 2**64 - 1) == [-1, -1]
    keys = np.frombuffer(several_blocks, "<u8", SEVERAL_BLOCKS.entries, HEADER_BYTES)
    for missing in (keys[BLOCK_ENTRIES], keys[BLOCK_ENTRIES] + np.uint64(1)):
        with pytest.raises(TokenTableError, match="its checksum is wrong"):
            find(table, int(missing))
    # Between the last key of one block and the first of the next, both are looked at.
    with pytest.raises(TokenTableError, match="its checksum is wrong"):
        find(TokenTable(str(path), SEVERAL_BLOCKS), int(keys[BLOCK_ENTRIES - 1]) + 1)


def test_hits_need_no_proof_of_the_whole_file(tmp_path: Path) -> None:
    path = Path(open_or_build(str(tmp_path), NUMBERS).path)
    byte(HEADER_BYTES + 8 * 3_001 + 4)(path)  # the value of another number
    table = TokenTable(str(path), NUMBERS)
    hashes = {number_key(number): number for number in range(3_001)}
    second = sorted(hashes)[5]
    assert find(table, second) == [hashes[second]]
    with pytest.raises(TokenTableError, match="its checksum is wrong"):
        find(table, 1)


@pytest.mark.parametrize(
    "place", ["a file", "below a file", "no such device"], ids=lambda place: str(place)
)
def test_a_directory_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    directory = {
        "a file": str(tmp_path / "file"),
        "below a file": str(tmp_path / "file" / "tables"),
        "no such device": "/proc/self/tables",
    }[place]
    with pytest.raises(TokenTableError, match="cannot be written in") as raised:
        open_or_build(directory, NUMBERS)
    assert raised.value.code == "token_table_unwritable"
    assert directory in raised.value.message
    assert "MB of room" in raised.value.remedy


def test_no_room_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: both fail in the middle of a write."""
    directory = tmp_path / "tables"
    open_or_build(str(directory), numbers_spec(LIMITS, up_to=10))
    kept = {entry.name for entry in directory.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(TokenTableError, match="cannot be written in") as raised:
            open_or_build(str(directory), NUMBERS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "too large" in raised.value.message
    assert {entry.name for entry in directory.iterdir()} == kept
    assert find(open_or_build(str(directory), NUMBERS), number_key(5)) == [5]


def build_and_stop(directory: str, pipe: Connection) -> None:
    def stop(done: int, _total: int) -> None:
        pipe.send(done)
        pipe.recv()  # never comes

    open_or_build(directory, NUMBERS, progress=stop)


def test_a_killed_build_leaves_nothing_that_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    builder = context.Process(target=build_and_stop, args=(str(tmp_path), theirs), daemon=True)
    builder.start()
    assert ours.recv() == NUMBERS.entries
    assert len(list(tmp_path.glob("*.table.part"))) == 1
    assert not any(tmp_path.glob("*.table")), "it has no name before it is whole"
    builder.kill()
    builder.join()
    table = open_or_build(str(tmp_path), NUMBERS)
    assert find(table, number_key(5)) == [5]
    assert {entry.name for entry in tmp_path.iterdir()} == {".lock", NUMBERS.file_name}


def build_and_tell(directory: str, spec: TableSpec, told: str) -> None:
    with open(told, "a") as file:
        table = open_or_build(
            directory, spec, progress=lambda _done, _total: print("built", file=file, flush=True)
        )
        print(find(table, number_key(5)), file=file, flush=True)


def test_several_processes_build_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    directory, told = str(tmp_path / "tables"), str(tmp_path / "told")
    builders = [
        context.Process(target=build_and_tell, args=(directory, NUMBERS, told), daemon=True)
        for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
        assert builder.exitcode == 0
    lines = Path(told).read_text().splitlines()
    assert sorted(lines) == ["[5]"] * 4 + ["built"]


def test_many_parts_are_sorted_as_one(tmp_path: Path) -> None:
    """A table of many parts is byte for byte what one part gives."""
    whole = Path(open_or_build(str(tmp_path / "one"), NUMBERS).path).read_bytes()
    many = open_or_build(str(tmp_path / "many"), NUMBERS, part_entries=100)
    assert Path(many.path).read_bytes() == whole


@pytest.mark.long
@pytest.mark.timeout(900)  # 16 s of a processor
def test_the_tables_of_levels_1_to_4(tmp_path: Path) -> None:
    """Built in bounded memory; every 1,000th number and id is found."""
    directory = str(tmp_path)
    numbers = open_or_build(directory, numbers_spec(LIMITS))
    some = list(range(0, 6_000_001, 1_000))
    assert find(numbers, *map(number_key, some)) == some
    ids = open_or_build(directory, ids_spec(LIMITS))
    tokens = [
        WholeToken(span.level, number, span.form)
        for span in ids.spec.ranges
        for number in {*range(0, span.last, 1_000), span.last}
    ]
    levels, found, forms = unpack(
        ids.find(np.array([key(token.digest()) for token in tokens], np.uint64))
    )
    assert [*zip(levels, found, forms, strict=True)] == tokens
