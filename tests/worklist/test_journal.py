"""The journal: what holds, what a killed or crowded out process leaves, and that nothing acknowledged is lost."""

import concurrent.futures
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
    return journal.add(folder, lambda held: entries)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["glioma", "encephalitis", "skip", "undo"]))))
def test_what_holds_is_the_last_answer_that_was_not_taken_back(tmp_path_factory, actions):
    folder, stacks, order = tmp_path_factory.mktemp("j"), {i: [] for i in range(3)}, []
    held = add(folder)
    for number, (slice_, what) in enumerate(actions):
        if what != "undo":
            held = add(folder, entry(f"e{number}", f"s{slice_}", what))
            stacks[slice_].append((number, what))
        elif last := held.last(0):
            held = add(folder, entry(f"e{number}", last.slice, "", undoes=last.id))
            newest = max((s for s in stacks.values() if s), key=lambda s: s[-1][0])
            assert last.id == f"e{newest[-1][0]}"
            newest.pop()
        order.append(what)
    for slice_, stack in stacks.items():
        answer = held.answer(0, f"s{slice_}")
        assert (answer and answer.label) == (stack[-1][1] if stack else None)
    assert journal.read(folder) == held


@pytest.mark.parametrize("rest", [b"{", b'{"id": "e9", "round": 0', b"\xff\xfe", b"[]"])
def test_a_line_that_a_killed_process_left_unfinished_does_not_count_and_makes_room(rest, tmp_path):
    add(tmp_path, entry("e0"))
    with open(tmp_path / journal.FILE, "ab") as file:
        file.write(rest)
    assert list(journal.read(tmp_path).entries) == ["e0"]
    assert list(add(tmp_path, entry("e1")).entries) == ["e0", "e1"]


def test_a_last_line_whose_end_an_editor_took_away_still_counts(tmp_path):
    add(tmp_path, entry("e0"), entry("e1"))
    path = tmp_path / journal.FILE
    path.write_bytes(path.read_bytes()[:-1])
    assert list(journal.read(tmp_path).entries) == ["e0", "e1"]
    assert list(add(tmp_path, entry("e2")).entries) == ["e0", "e1", "e2"]


def test_a_damaged_line_is_named(tmp_path):
    add(tmp_path, entry("e0"), entry("e1"))
    data = (tmp_path / journal.FILE).read_bytes()
    (tmp_path / journal.FILE).write_bytes(data.replace(b'"e1"', b'"e1', 1))
    with pytest.raises(UserError, match=r"journal\.jsonl line 2 is damaged"):
        journal.read(tmp_path)


def test_what_is_refused_writes_nothing(tmp_path):
    def refuse(held):
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  # its own
        journal.add(tmp_path, refuse)
    assert not (tmp_path / journal.FILE).exists()


@pytest.mark.parametrize("room", [0, 1, 60, 150, 200])
def test_on_a_full_disk_the_journal_stays_as_it_was(room, tmp_path):
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


def test_many_writers_lose_nothing(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: add(tmp_path, entry(f"e{i}", f"s{i}")), range(64)))
    assert len(journal.read(tmp_path).entries) == 64
