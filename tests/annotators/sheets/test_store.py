"""The cache: whole answers or none, to the very same question, whatever happens to the disk."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from fxmeter.annotators.sheets.kept import store as store_module
from fxmeter.annotators.sheets.kept.sealed import sealed, unsealed
from fxmeter.annotators.sheets.kept.store import Question, Store

QUESTION = Question("sheet", {"model": {"hidden_size": 64}, "stage": "decode"})
ANSWER = {"figures": list(range(40)), "name": "größe", "share": 0.1}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def entry(store):
    ((path, _),) = store.entries()
    return path


def test_an_answer_comes_back_and_is_forgotten(store):
    assert store.get(QUESTION) is None
    store.put(QUESTION, ANSWER)
    assert store.get(QUESTION) == ANSWER
    assert store.clear() == 1
    assert store.get(QUESTION) is None


def test_another_question_has_no_answer(store, monkeypatch):
    store.put(QUESTION, ANSWER)
    assert store.get(Question("sheet", {"model": {"hidden_size": 65}, "stage": "decode"})) is None
    assert store.get(Question("report", QUESTION.facts)) is None
    monkeypatch.setattr(store_module, "versions", lambda: {"torch": "9.9"})
    assert store.get(QUESTION) is None
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "source_sha256", lambda: "another checkout")
    assert store.get(QUESTION) is None


def test_an_entry_cut_at_any_byte_is_none(store):
    store.put(QUESTION, ANSWER)
    path = entry(store)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert store.get(QUESTION) is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.get(QUESTION) is None
    path.write_bytes(whole)
    assert store.get(QUESTION) == ANSWER


def test_a_document_survives():
    assert unsealed(sealed(ANSWER)) == ANSWER
    assert unsealed(sealed({"n": 10**40})) == {"n": 10**40}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "cache")
    store.put(QUESTION, ANSWER)
    assert store.get(QUESTION) is None
    assert store.entries() == []
    assert store.clear() == 0


def test_a_full_disk_is_no_error_and_leaves_nothing(store, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store.put(QUESTION, ANSWER)
    assert store.entries() == []


def test_entries_not_read_for_longest_go_first(tmp_path):
    size = len(sealed(ANSWER))
    store = Store(tmp_path, most_bytes=3 * size)
    questions = [Question("sheet", {"number": number}) for number in range(4)]
    for question in questions[:3]:
        store.put(question, ANSWER)
    assert store.get(questions[0]) == ANSWER
    store.put(questions[3], ANSWER)
    assert [store.get(question) is not None for question in questions] == [True, False, True, True]


def test_two_hundred_writers_at_once_leave_whole_answers(tmp_path):
    code = f"""
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from fxmeter.annotators.sheets.kept.store import Question, Store
store = Store(Path({str(tmp_path)!r}), most_bytes=200_000)
def write(number):
    question = Question("sheet", {{"number": number % 5}})
    for _ in range(4):
        store.put(question, {{"number": number % 5, "filling": "x" * 20_000 * (1 + number % 5)}})
        kept = store.get(question)
        assert kept is None or (kept["number"] == number % 5 and len(kept["filling"]) == 20_000 * (1 + number % 5))
with ThreadPoolExecutor(50) as pool:
    list(pool.map(write, range(50)))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    for writer in writers:
        _, problem = writer.communicate()
        assert writer.returncode == 0, problem.decode()
    files = list((tmp_path / "answers").iterdir())
    assert sum(file.stat().st_size for file in files) <= 200_000
    assert not [file for file in files if file.name.startswith(".")]
    assert all(unsealed(file.read_bytes()) for file in files)
