"""The journal: which answers count, what a killed process or a full disk leaves, nothing acknowledged is lost."""

import concurrent.futures
import os
import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.errors import UserError
from lesion.worklist import journal
from lesion.worklist.journal import PAGE, Entry


def entry(name, slice_="s0", label="glioma", **fields):
    return Entry(**{"id": name, "round": 0, "slice": slice_, "label": label, "source": PAGE} | fields)


def add(folder, *entries):
    return journal.add(folder, lambda state: entries)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["glioma", "encephalitis", "cannot_tell", "undo"]))))
def test_last_answer_that_was_not_undone_counts(actions):
    entries, stacks = [], {i: [] for i in range(3)}
    state = journal.replay(entries)
    for number, (slice_, action) in enumerate(actions):
        if action != "undo":
            entries.append(entry(f"e{number}", f"s{slice_}", action))
            stacks[slice_].append((number, action))
        elif last := state.last_page_answer(0):
            entries.append(entry(f"e{number}", last.slice, "", undoes=last.id))
            newest = max((stack for stack in stacks.values() if stack), key=lambda stack: stack[-1][0])
            assert last.id == f"e{newest[-1][0]}"
            newest.pop()
        state = journal.replay(entries)
    for slice_, stack in stacks.items():
        answer = state.answer(0, f"s{slice_}")
        assert (answer and answer.label) == (stack[-1][1] if stack else None)


def test_journal_on_disk_replays_to_the_same_state(tmp_path):
    entries = [entry("e0"), entry("e1", "s1", "cannot_tell"), entry("e2", label="encephalitis")]
    entries.append(entry("e3", label="", undoes="e2"))
    for line in entries:
        state = add(tmp_path, line)
        assert journal.read(tmp_path) == state
    assert [line._replace(at="") for line in state.entries.values()] == entries
    assert state == journal.replay(state.entries.values())
    assert [state.answer(0, slice_).id for slice_ in ("s0", "s1")] == ["e0", "e1"]
    assert state.last_page_answer(0).id == "e1"


@pytest.mark.parametrize("rest", [b"{", b'{"id": "e9", "round": 0', b"\xff\xfe", b"[]"])
def test_unfinished_last_line_does_not_count_and_is_overwritten(rest, tmp_path):
    add(tmp_path, entry("e0"))
    with open(tmp_path / journal.FILE, "ab") as file:
        file.write(rest)
    assert list(journal.read(tmp_path).entries) == ["e0"]
    assert list(add(tmp_path, entry("e1")).entries) == ["e0", "e1"]


def test_a_group_that_may_write_the_folder_may_write_the_journal(tmp_path):
    before = os.umask(0o002)
    try:
        add(tmp_path, entry("e0"))
    finally:
        os.umask(before)
    assert (tmp_path / journal.FILE).stat().st_mode & 0o777 == 0o664


def test_last_line_without_line_break_counts(tmp_path):
    add(tmp_path, entry("e0"), entry("e1"))
    path = tmp_path / journal.FILE
    path.write_bytes(path.read_bytes()[:-1])
    assert list(journal.read(tmp_path).entries) == ["e0", "e1"]
    assert list(add(tmp_path, entry("e2")).entries) == ["e0", "e1", "e2"]


@pytest.mark.parametrize("blank", [b"\n", b"\n\n", b"  \n", b"\r\n", b"   "])
def test_blank_last_line_is_not_damage(blank, tmp_path):
    add(tmp_path, entry("e0"), entry("e1"))
    with open(tmp_path / journal.FILE, "ab") as file:
        file.write(blank)
    assert list(journal.read(tmp_path).entries) == ["e0", "e1"]
    assert list(add(tmp_path, entry("e2")).entries) == ["e0", "e1", "e2"]


def test_damaged_line_is_named(tmp_path):
    add(tmp_path, entry("e0"), entry("e1"))
    data = (tmp_path / journal.FILE).read_bytes()
    (tmp_path / journal.FILE).write_bytes(data.replace(b'"e1"', b'"e1', 1))
    with pytest.raises(UserError, match=r"journal\.jsonl line 2 is damaged"):
        journal.read(tmp_path)


def test_refusal_writes_nothing(tmp_path):
    def refuse(state):
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # raised above
        journal.add(tmp_path, refuse)
    assert not (tmp_path / journal.FILE).exists()


@pytest.mark.parametrize("room", [0, 1, 60, 150, 200])
def test_full_disk_leaves_the_journal_as_it_was(room, tmp_path):
    add(tmp_path, entry("e0"))
    path = tmp_path / journal.FILE
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
        with pytest.raises(OSError, match="too large"):
            add(tmp_path, entry("e1"), entry("e2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert list(add(tmp_path, entry("e1")).entries) == ["e0", "e1"]


def test_concurrent_writers_lose_nothing(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: add(tmp_path, entry(f"e{i}", f"s{i}")), range(64)))
    assert len(journal.read(tmp_path).entries) == 64
