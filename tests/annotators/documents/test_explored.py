"""An explored folder: goes on where it ended, holds every architecture once, and says so in every file."""

from __future__ import annotations

import csv
import json
import sqlite3

import pytest

from fxmeter import FxmeterError, decode, prefill
from fxmeter.annotators.documents.tables.explored import explored
from fxmeter.annotators.documents.tables.explored_files import write_beside
from fxmeter.annotators.studies.architectures.explore import exploration
from fxmeter.annotators.studies.architectures.pareto import front_of, read_pareto
from tests.tracer.tiny import LLAMA

SETS = {"num_hidden_layers": "1:3", "hidden_size": "32,48,50"}
PASSES = (prefill(24), decode(40))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def asked(config, sets=SETS, **options):
    return exploration(config, sets, scenarios=PASSES, devices=["h100"], **options)


def written(folder, found, most=None):
    """Do what is left, up to so many batches; the keys of what was done now, and all rows there are."""
    with explored(folder, found.question, found.space.defaults) as table:
        now = []
        for count, batch in enumerate(found.run(batch=2, skip=table.known())):
            if count == most:
                break
            table.add(batch)
            now += [each.key for each in batch]
        return now, list(table.rows())


def test_a_second_start_goes_on_where_the_first_ended(config, tmp_path):
    whole, rows = written(tmp_path / "whole", asked(config))
    first, _ = written(tmp_path / "parts", asked(config), most=2)
    second, again = written(tmp_path / "parts", asked(config))
    third, _ = written(tmp_path / "parts", asked(config))
    assert 0 < len(first) < 9 and not set(first) & set(second)
    assert sorted(first + second) == sorted(whole) and len(whole) == 9
    assert again == rows and len(rows) == 6
    assert third == []


def test_a_wider_space_and_another_condition_add_what_is_new(config, tmp_path):
    small = {"num_hidden_layers": "1", "hidden_size": "32,48"}
    kept, few = written(tmp_path, asked(config, small, keep=["parameters < 12e3"]))
    assert len(kept) == 2 and [row["fields"]["hidden_size"] for row in few] == [32]
    more, rows = written(tmp_path, asked(config, {**small, "num_hidden_layers": "1:2"}))
    assert len(more) == 3 and len(rows) == 4  # the one that was left out, and two that are new


def test_a_folder_with_another_question_is_left_alone(config, tmp_path):
    written(tmp_path, asked(config, {"num_hidden_layers": "1"}))
    before = (tmp_path / "explore.sqlite").read_bytes()
    with pytest.raises(FxmeterError, match="was asked with another attention; name another folder"):
        written(tmp_path, asked(config, {"num_hidden_layers": "1"}, attention="eager"))
    assert (tmp_path / "explore.sqlite").read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00" + bytes(200)])
def test_what_is_no_table_of_ours_is_refused_in_one_line(config, tmp_path, content):
    (tmp_path / "explore.sqlite").write_bytes(content)
    with pytest.raises(FxmeterError) as refusal:
        written(tmp_path, asked(config, {"num_hidden_layers": "1"}))
    assert str(refusal.value).startswith(f"--out {tmp_path}: explore.sqlite")
    assert "\n" not in str(refusal.value)


def test_another_programs_database_is_not_written_to(config, tmp_path):
    with sqlite3.connect(tmp_path / "explore.sqlite") as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(FxmeterError, match="is no exploration of this release"):
        written(tmp_path, asked(config, {"num_hidden_layers": "1"}))


def test_parquet_and_csv_have_what_the_table_has(config, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = asked(config, {**SETS, "attention_bias": "true,false"})
    written(tmp_path, found)
    with explored(tmp_path, found.question, found.space.defaults) as table:
        rows = list(table.rows())
        front = front_of(rows, *read_pareto("tpot,parameters", found.question))
        assert write_beside(table, front, {"a.svg": b"<svg/>"}) == ["explore.parquet", "pareto.csv", "a.svg"]
    read = parquet.read_table(tmp_path / "explore.parquet").to_pylist()
    names = [column.name for column in found.question.columns]
    expected = [{"key": row["key"], **row["fields"], **{name: row[name] for name in names}} for row in rows]
    assert read == expected and len(read) == 12
    lines = list(csv.DictReader((tmp_path / "pareto.csv").read_text().splitlines()))
    assert [int(line["parameters"]) for line in lines] == [row["parameters"] for row in front.rows]


def test_a_whole_number_beyond_64_bits_stays_whole(config, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = exploration(config, {"vocab_size": "1000000000"}, scenarios=[prefill(900_000_000)])
    with explored(tmp_path, found.question, found.space.defaults) as table:
        for batch in found.run():
            table.add(batch)
        (row,) = table.rows()
        write_beside(table, None, {})
    assert row["prefill_matmul_flops"] > 2 * 32 * 10**9 * 900_000_000 > 2**63
    (read,) = parquet.read_table(tmp_path / "explore.parquet").to_pylist()
    assert read["prefill_matmul_flops"] == row["prefill_matmul_flops"]


def test_the_front_has_what_none_beats(config):
    question = asked(config).question
    first, second = read_pareto("tpot,parameters", question)
    points = [(3, 9), (1, 5), (2, 5), (1, 4), (4, 9), (2, 7), (5, 12), (1, 5)]
    rows = [{"tpot": a, "parameters": b, "fields": {}} for a, b in points]
    front = front_of(iter(rows), first, second)
    assert [(row["tpot"], row["parameters"]) for row in front.rows] == [(1, 5), (2, 7), (3, 9), (5, 12)]
    least = front_of(iter(rows), *read_pareto("tpot,parameters:min", question))
    assert [(row["tpot"], row["parameters"]) for row in least.rows] == [(1, 4)]
    for text, message in (
        ("tpot", "name two figures"),
        ("tpot,tpot", "name two figures"),
        ("tpot,params", "no figure is called params"),
        ("tpot,parameters:least", "ends in neither :max nor :min"),
        ("tpot,decode_h100_sxm5_80g_bound_by", "no figure is called"),
    ):
        with pytest.raises(FxmeterError, match=message):
            read_pareto(text, question)
