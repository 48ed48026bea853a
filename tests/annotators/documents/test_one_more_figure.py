"""A figure is said in one place: a row more in the table, and every output has it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, "-m", "tests.annotators.documents.one_more_figure", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_has_it_for_the_stage_its_modules_and_its_ops(found):
    whole, mean, *parts = found["JSON"]
    assert whole["dust_bytes"] == 7 * found["written"] > 0
    assert mean["dust_bytes"] == 7 * found["written"] / 3
    assert all(cost["dust_bytes"] == 7 * cost["activation_write_bytes"] for cost in parts)


def test_the_console_has_a_row_of_it(found):
    (line,) = [line for line in found["console"].splitlines() if line.startswith("dust raised")]
    assert "B" in line
    assert "dust raised" in found["formulas"]


def test_sql_and_csv_have_a_column_of_it(found):
    assert found["SQL"]["dust_bytes"] == 7 * found["written"]
    first, second = csv.DictReader(io.StringIO(found["CSV"]))
    assert first["dust_bytes"] == str(7 * found["written"])
    assert second["dust_bytes"] == str(7 * int(second["activation_write_bytes"]))


def test_closed_forms_have_it(found):
    assert found["closed form"]["dust_bytes"] == 7 * found["written"]
    arrays = found["arrays"]
    assert arrays["dust_bytes"] == [7 * written for written in arrays["activation_write_bytes"]]


def test_a_plot_can_draw_it(found):
    assert found["plot"][0] == 7 * found["written"] / 3
