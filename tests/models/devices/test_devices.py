"""Device files: every number sourced, physically sensible, dense."""

from __future__ import annotations

import json

import pytest

from fxmeter.models.devices import device, device_names
from fxmeter.models.errors import DeviceError

DEVICES = [device(name) for name in device_names()]
HALF = ("bf16", "fp16")


@pytest.mark.parametrize("one", DEVICES, ids=lambda one: one.name)
def test_the_table_makes_physical_sense(one):
    peaks = one.matrix_flops_per_s
    sixteen = max((peaks[dtype] for dtype in HALF if dtype in peaks), default=None)
    assert 1e11 < one.bandwidth_bytes_per_s < 2e13
    assert 1e9 < one.memory_bytes < 1e12
    # reading all of the memory once takes from a hundredth of a second to a few seconds
    assert 0.01 < one.memory_bytes / one.bandwidth_bytes_per_s < 2
    if sixteen is not None:
        assert sixteen >= one.vector("fp32") * 0.9
        for dtype, most in (("fp8", 2), ("int8", 8), ("fp4", 8)):
            # a sparse figure beside a dense one would show as a ratio of 4 from 16 to 8 bits; GeForce's int8 is 4 times
            # its halved float16, DP4A on V100 half of it
            assert peaks.get(dtype, 0) <= most * 1.03 * sixteen
        # FLOP per byte at the ridge: a chip for language models has some tens to hundreds
        assert 10 < one.ridge("bf16") < 800
    assert one.power_w is None or 30 < one.power_w <= 1500


@pytest.mark.parametrize("one", DEVICES, ids=lambda one: one.name)
def test_every_number_says_where_it_is_from(one):
    from importlib.resources import files

    fields = json.loads(files("fxmeter.models.devices").joinpath(f"{one.name}.json").read_text(encoding="utf-8"))
    rows = [row for row in fields.values() if isinstance(row, dict) and "value" in row]
    rows += [row for key in ("matrix_flops_per_s", "vector_flops_per_s") for row in fields[key].values()]
    assert len(rows) >= 3
    for row in rows:
        assert row["sources"]
        assert all(one.sources[key] for key in row["sources"])
        assert row.get("unconfirmed", False) == (set(row["sources"]) == {"m"})


def test_peaks_are_dense():
    """The datasheets' columns with sparsity are 1,979 (H100, bfloat16), 624 (A100) and 242 (L4)."""
    for name, dense in (("h100", 989.4e12), ("a100", 312e12), ("l4", 121e12)):
        assert device(name).matrix("bf16") == ("bf16", dense)


def test_names_aliases_case_and_files(tmp_path):
    assert device("H100-SXM5-80G") is device("h100") is device("h100_sxm")
    file = tmp_path / "mine.json"
    rates = {"matrix_flops_per_s": {"fp32": 1e12}, "bandwidth_bytes_per_s": 1e11, "memory_bytes": 2**34}
    file.write_text(json.dumps(rates))
    assert device(file).name == "mine"
    assert device(str(file)).matrix("bf16") == ("fp32", 1e12)
    aliases = [alias for one in DEVICES for alias in one.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(device_names())


BAD = [
    ("{", "not valid JSON"),
    ("[]", "holds a list"),
    ("{}", "matrix_flops_per_s is missing"),
    ('{"matrix_flops_per_s": {}, "bandwidth_bytes_per_s": 1, "memory_bytes": 1}', "must map dtypes to rates"),
    ('{"matrix_flops_per_s": {"bf16": -1}, "bandwidth_bytes_per_s": 1, "memory_bytes": 1}', "above 0, not -1"),
    ('{"matrix_flops_per_s": {"bf16": NaN}, "bandwidth_bytes_per_s": 1, "memory_bytes": 1}', "above 0"),
    (
        '{"matrix_flops_per_s": {"bf16": 1}, "bandwidth_bytes_per_s": 1, "memory_bytes": 1, "efficiency": {"x": 1}}',
        "efficiency has no x",
    ),
    (
        '{"matrix_flops_per_s": {"bf16": 1}, "bandwidth_bytes_per_s": 1, "memory_bytes": 1,'
        ' "efficiency": {"bandwidth": 2}}',
        "efficiency.bandwidth must be",
    ),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said for _, said in BAD])
def test_a_file_that_cannot_be_is_one_line(tmp_path, text, said):
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(DeviceError, match=said):
        device(file)


def test_an_unknown_device_is_told_its_neighbours(tmp_path):
    with pytest.raises(DeviceError, match="did you mean h100"):
        device("h100-smx")
    with pytest.raises(DeviceError, match="cannot be read"):
        device(tmp_path / "none.json")
