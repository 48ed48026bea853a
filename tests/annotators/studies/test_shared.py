"""A report on a rank says what it shares, what all ranks need, and what they have alike."""

from __future__ import annotations

import json

import pytest

from tests.tracer.tiny import LLAMA, QWEN_MOE


@pytest.fixture
def config(tmp_path):
    def write(fields):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(fields))
        return path

    return write


def test_the_report_shows_a_rank_beside_one_device(run, config):
    printed = run("report", config(LLAMA), "--tp", 2, "--decode", 20, "--attention", "flash").stdout
    assert "· tp 2" in printed
    assert "Shared by 2 ranks" in printed
    assert "sent to others" in printed
    assert "replicated: model.layers.*.input_layernorm" in printed
    alone = run("report", config(LLAMA), "--decode", 20, "--attention", "flash").stdout
    assert "Shared by" not in alone
    assert "sent to others" not in alone


def test_json_has_what_several_ranks_have_alike(run, config):
    """Four attention heads over four ranks with two heads of keys and values: each of those is there twice."""
    arguments = ("report", config(LLAMA), "--tp", 4, "--decode", 20, "--attention", "flash", "--json")
    document = json.loads(run(*arguments).stdout)
    (shared,) = document["shared"]
    assert document["conventions"]["sharding"] == {"tp": 4}
    assert shared["ranks"] == 4
    assert shared["all_ranks"]["kv_bytes"] == 2 * shared["one_device"]["kv_bytes"]
    copies = 3 * 2 * (2 * 8 * 32) * 2  # layers, keys and values, two heads of 8 more, bfloat16
    norms = 3 * (2 * 3 + 1) * 32 * 2  # of three more ranks
    assert shared["all_ranks"]["weight_bytes"] - shared["one_device"]["weight_bytes"] == copies + norms
    assert shared["all_ranks"]["weight_bytes"] == 4 * document["stages"][0]["cost"]["weight_bytes"]


def test_groups_with_sequences_of_their_own_are_held_to_one_device_with_all_of_them(run, config):
    arguments = ("report", config(QWEN_MOE), "--ep", 2, "--decode", 20, "--batch", 3, "--attention", "flash", "--json")
    document = json.loads(run(*arguments).stdout)
    (shared,) = document["shared"]
    assert document["conventions"]["sharding"] == {"ep": 2, "dp": 2}
    assert shared["all_ranks"]["matmul_flops"] == shared["one_device"]["matmul_flops"]
    assert shared["all_ranks"]["kv_bytes"] == shared["one_device"]["kv_bytes"]


def test_ranks_in_several_nodes_need_the_bandwidth_between_them(run, config):
    arguments = ("report", config(QWEN_MOE), "--ep", 4, "--device", "h100", "--decode", 64, "--attention", "flash")
    near = run(*arguments, "--json")
    far = run(*arguments, "--node", 2, "--across", 1, "--json")
    fast, slow = (json.loads(done.stdout)["stages"][0]["time"][0]["estimate_s"] for done in (near, far))
    assert slow > fast
    assert "--node and --across go together" in run(*arguments, "--node", 2).stderr


def test_a_device_without_links_shares_no_model(run, config):
    refused = run("report", config(LLAMA), "--tp", 2, "--device", "apple-m1-max", "--decode", 64)
    assert refused.returncode == 1
    assert "nothing is known of its links" in refused.stderr


def test_pipeline_stages_are_shown_one_by_one(run, config):
    arguments = ("report", config(LLAMA), "--pp", 3, "--decode", 20, "--attention", "flash", "--device", "h100")
    document = json.loads(run(*arguments, "--json").stdout)
    (pipeline,) = document["pipelines"]
    parts, whole = pipeline["pipeline_stages"], document["stages"][0]["cost"]
    assert [part["layers"] for part in parts] == [[0, 0], [1, 1], [2, 2]]
    assert sum(part["cost"]["weight_bytes"] for part in parts) == whole["weight_bytes"]
    assert [part["sent_bytes"] for part in parts] == [32 * 2, 32 * 2, 0]
    assert all(part["estimate_s"]["h100-sxm5-80g"] > 0 for part in parts)
    printed = run(*arguments).stdout
    assert "3 pipeline stages: decode C=20, flash" in printed
    assert run("formula", config(LLAMA), "--pp", 3).returncode == 0
    fits = run("capacity", config(LLAMA), "--pp", 3, "--prefill", 8).stdout
    assert "3 pipeline stages with a pass of the batch in each" in " ".join(fits.split())
