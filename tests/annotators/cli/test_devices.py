"""``fxmeter devices``: the table, one device, device files, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fxmeter.models.devices import device, device_names


def test_the_table_has_every_device_and_its_figures(run):
    done = run("devices")
    assert done.returncode == 0
    assert all(name in done.stdout for name in device_names())
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("h100-sxm5-80g")]
    assert line.split()[1:] == ["989.4", "1,979", "3.350", "80.00", "450.0", "700"]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("t4-16g")]
    assert line.split()[1:3] == ["65.00", "–"]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_one_device_has_its_sources_and_marks_what_is_unconfirmed(run):
    text = run("devices", "h100").stdout
    for piece in ("h100-sxm5-80g", "matrix bf16", "gk100, tt, aic", "50.00 MB?", "unconfirmed: l2_bytes", "88.0%"):
        assert piece in text
    assert "GEMV alone on H100" in " ".join(text.split())


@pytest.mark.parametrize("name", ["h100-sxm5-80g", "apple-m1-max", "h20-96g", "tpu-v5e"])
def test_the_json_of_a_device_is_a_device_file(run, tmp_path, name):
    path = tmp_path / f"{name}.json"
    assert run("devices", name, "--json", path).returncode == 0
    again, own = device(path), device(name)
    for field in ("matrix_flops_per_s", "vector_flops_per_s", "memory_bytes", "link_bytes_per_s", "sources", "notes"):
        assert getattr(again, field) == getattr(own, field)
    assert again.efficiency == own.efficiency
    assert set(again.unconfirmed) == set(own.unconfirmed)
    assert path.stem in run("devices", path).stdout


def test_all_devices_as_json(run):
    assert [entry["name"] for entry in json.loads(run("devices", "--json").stdout)] == list(device_names())


def test_a_mistake_is_one_line(run, tmp_path):
    (tmp_path / "bad.json").write_text('{"memory_bytes": 1}')
    for name, message in (
        ("h101", "no device named 'h101'"),
        (tmp_path / "none.json", "cannot be read"),
        (tmp_path / "bad.json", "matrix_flops_per_s is missing"),
    ):
        done = run("devices", name)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
        assert message in done.stderr


def test_devices_need_no_torch():
    code = "import sys; sys.argv = ['fxmeter', 'devices', 'h100']\nfrom fxmeter.annotators.cli.main import main\n"
    code += "try: main()\nfinally: print('TORCH' if 'torch' in sys.modules else 'LIGHT')"
    assert "LIGHT" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
