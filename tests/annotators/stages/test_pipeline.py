"""Pipeline stages: they add up to the whole, and are those of transformers' own split."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoConfig
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.distributed.pipeline_parallel import PipelineStage
from transformers.distributed.utils import TransformersDeviceMesh

from fxmeter import annotate, closed_form, decode, deploy, generation, load_model, load_sheet, prefill
from fxmeter.annotators.stages.pipeline import pipeline, split_layers, times_of
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.planning.capacity import capacity
from fxmeter.annotators.studies.planning.rates import Measured
from fxmeter.annotators.studies.planning.serving import Demand
from fxmeter.annotators.studies.sweep import StageForms
from fxmeter.models.devices import device
from fxmeter.models.errors import DeploymentError
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import ADDITIVE, StageCost
from tests.tracer import tiny

EXACT = ("matmul_flops", "weight_bytes", "kv_bytes", "kv_read_bytes", "kv_write_bytes")
LLAMA = {**tiny.LLAMA, "num_hidden_layers": 4}
DEEPSEEK = {**tiny.DEEPSEEK, "num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("layers", "stages", "counts"), [(32, 4, (8, 8, 8, 8)), (61, 4, (15, 15, 16, 15)), (7, 4, (2, 2, 2, 1))]
)
def test_layers_left_over_go_to_the_stages_before_the_last(layers, stages, counts):
    assert split_layers(layers, stages) == counts


@pytest.mark.parametrize(("name", "itemsize"), [("llama-3.1-8b", 2), ("gemma-2-9b", 4), ("deepseek-v3", 2)])
@pytest.mark.parametrize("scenario", [prefill(100), decode(4096, batch=8)], ids=["prefill", "decode"])
def test_the_stages_add_up_to_the_whole(preset_model, name, itemsize, scenario):
    model = preset_model(name)
    stage = annotate(model, scenario)
    parts = pipeline(stage, 4)
    total = StageCost.total(part.cost for part in parts)
    assert {field for field in ADDITIVE if getattr(total, field) != getattr(stage.cost, field)} == set()
    hidden = scenario.batch * scenario.query_len * model.config.hidden_size * itemsize
    assert [part.sent_bytes for part in parts] == [hidden, hidden, hidden, 0]
    assert [part.first for part in parts[1:]] == [part.last + 1 for part in parts[:-1]]


def test_ranks_of_a_pipeline_are_stages_of_a_rank(preset_model):
    rank = annotate(preset_model("llama-3.1-8b"), decode(64), deployment=deploy(tp=4))
    parts = pipeline(rank, 8)
    assert sum(part.cost.network_bytes for part in parts) == rank.cost.network_bytes
    assert parts[1].cost.weight_bytes * 8 == rank.modules["model.layers.0"].cost.weight_bytes * 32


def test_the_time_of_the_stages_is_that_of_the_kernels(preset_model):
    stage = annotate(preset_model("llama-3.1-8b"), decode(64))
    time = stage.time("h100")
    parts = times_of(stage, time, pipeline(stage, 4))
    sends = 3 * 4096 * 2 / time.device.link_bytes_per_s  # three of the four hand their hidden states on
    assert sum(part.bound_s for part in parts) == pytest.approx(sum(item.all.bound_s for item in time.kernels) + sends)


def test_a_closed_form_is_that_of_all_stages():
    model, deployment = load_model(AutoConfig.for_model(**tiny.LLAMA)), deploy(pp=3)
    form = closed_form(model, deployment=deployment)
    stage = annotate(model, decode(77, batch=3), deployment=deployment)
    parts = pipeline(stage, 3)
    for name in ("matmul_flops", "io_bytes", "weight_bytes", "kv_bytes"):
        assert getattr(form.at(batch=3, past_len=77), name) == sum(getattr(part.cost, name) for part in parts)
    assert form.time("h100", batch=3, past_len=77).estimate_s == pytest.approx(stage.time("h100").estimate_s)
    steps = annotate(model, generation(20, steps=9), deployment=deployment)
    assert pipeline(steps, 3) == pipeline(annotate(model, decode(28)), 3)


@pytest.mark.parametrize(
    ("stage", "fields", "deployment"),
    [
        ("prefill", LLAMA, deploy(pp=3)),
        ("decode", LLAMA, deploy(pp=3)),
        ("decode", DEEPSEEK, deploy(pp=2, kernels="serving", kv="fp8")),
        ("decode", tiny.GEMMA3, deploy(pp=4)),
        ("prefill", {**tiny.QWEN_MOE, "num_hidden_layers": 4}, deploy(pp=2, tp=2)),
    ],
    ids=["prefill", "decode", "latent", "windows", "experts"],
)
def test_the_form_of_each_stage_is_that_of_the_recorded_one(stage, fields, deployment, tmp_path):
    """At random points, in every field and in seconds; and the stages' forms add up to the whole's."""
    model, chance = load_model(AutoConfig.for_model(**fields)), random.Random(f"{fields['model_type']}, {stage}")
    form = closed_form(model, stage=stage, deployment=deployment)
    points = [{"batch": chance.randint(1, 5), "query_len": chance.randint(2, 70), "past_len": 0} for _ in range(3)]
    if stage == "decode":
        points = [{**point, "query_len": 1, "past_len": chance.randint(1, 90)} for point in points]
    for sizes in points:
        scenario = Scenario(stage=stage, **sizes)
        recorded = annotate(model, scenario, deployment=deployment)
        parts = pipeline(recorded, deployment.pp, deployment.ranks)
        assert [each.at(**sizes) for each in form.stages] == [part.cost for part in parts]
        seconds = [time.estimate_s for time in times_of(recorded, recorded.time("h100"), parts)]
        assert [each.time("h100", **sizes).estimate_s for each in form.stages] == pytest.approx(seconds, rel=1e-12)
        whole, total = form.at(**sizes), StageCost.total(each.at(**sizes) for each in form.stages)
        assert [field for field in ADDITIVE if getattr(total, field) != getattr(whole, field)] == []
    if fields is not LLAMA:
        return
    if stage == "decode":
        steps = StageCost.total(each.generation(past_len=20, steps=30) for each in form.stages)
        assert steps.io_bytes == form.generation(past_len=20, steps=30).io_bytes
    form.save(tmp_path / "sheet.json")
    kept = load_sheet(tmp_path / "sheet.json")
    assert [each.at(**sizes) for each in kept.stages] == [part.cost for part in parts]
    assert [each.time("h100", **sizes) for each in kept.stages] == [each.time("h100", **sizes) for each in form.stages]


def test_a_capacity_is_of_the_fullest_device():
    """Three layers on three devices, with three passes in flight: each keeps the cache of one layer for all three."""
    model = load_model(AutoConfig.for_model(**tiny.LLAMA))
    deployment, point = deploy(pp=3), {"batch": 2, "past_len": 30}

    def held(batch):
        parts = pipeline(annotate(model, decode(30, batch=batch)), 3)
        return [part.cost.weight_bytes + 3 * part.cost.kv_bytes + part.cost.peak_activation_bytes for part in parts]

    room = max(held(11))
    forms = StageForms.of_model(model, deployment=deployment)
    (need,) = capacity(forms, Axes(decode=(30,), batch=(2,)), memory_bytes=room).needs
    whole = annotate(model, decode(**point)).cost
    assert (need.memory.total_bytes, need.memory.kv_bytes) == (max(held(2)), whole.kv_bytes)
    assert need.memory.place == held(2).index(max(held(2)))
    assert need.fit.largest_batch == 11
    assert need.tpot.tflops == whole.flops / need.tpot.seconds / 10**12


def test_what_is_served_is_paced_by_the_slowest_stage():
    model = load_model(AutoConfig.for_model(**tiny.LLAMA))
    forms = StageForms.of_model(model, deployment=deploy(pp=3))
    axes = Axes(prefill=(40,), steps=(5,))
    (need,) = capacity(forms, axes, demand=Demand(devices=(device("h100"),)), memory_bytes=2**22).needs
    served, batch = need.on[0].reached.served, need.on[0].fit.largest_batch

    def slowest(scenario):
        stage = annotate(model, scenario)
        return max(time.estimate_s for time in times_of(stage, stage.time("h100"), pipeline(stage, 3)))

    steps = sum(slowest(decode(past, batch=batch)) for past in range(40, 45))
    assert served.batch == batch
    assert served.tpot_s == pytest.approx(3 * steps / 5, rel=1e-9)
    assert served.requests_per_s == pytest.approx(batch / (slowest(prefill(40, batch=batch)) + steps), rel=1e-9)
    first = annotate(model, prefill(40))
    parts = times_of(first, first.time("h100"), pipeline(first, 3))
    whole = first.time("h100").estimate_s - sum(item.all.estimate_s for item in first.time("h100").kernels)
    assert need.on[0].reached.ttft.estimate_s == pytest.approx(sum(part.estimate_s for part in parts) + whole, rel=1e-9)


def test_pages_and_measured_times_are_of_one_device():
    forms = StageForms.of_model(load_model(AutoConfig.for_model(**tiny.LLAMA)), deployment=deploy(pp=3))
    with pytest.raises(DeploymentError, match="leave --pp out, or pages"):
        capacity(forms, Axes(crops=((0, 0),)))
    with pytest.raises(DeploymentError, match="held to one device"):
        capacity(forms, Axes(decode=(8,)), measured=Measured(decode_s=1.0))


def test_more_stages_than_layers_are_refused():
    with pytest.raises(DeploymentError, match="3 layers"):
        pipeline(annotate(load_model(AutoConfig.for_model(**tiny.LLAMA)), prefill(4)), 4)


def received(self, operation, *, device, dtype, tensor=None, shape=None):
    """In the place of what sends and receives, which needs the other stages: a tensor of that shape."""
    if operation == "recv_forward" and not self.pp_is_first_stage:
        return torch.empty(shape, dtype=dtype, device=device)
    return None


@pytest.mark.parametrize("fields", [LLAMA, DEEPSEEK], ids=["llama", "deepseek_v3"])
def test_stages_are_those_that_transformers_splits_a_model_into(fields):
    scenario = prefill(12, batch=2)
    expected = pipeline(annotate(load_model(AutoConfig.for_model(**fields)), scenario), 2)
    for rank, part in enumerate(expected):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=2)
        try:
            names = ("pp", "dp_replicate", "fsdp", "tp")
            dense, expert = (
                init_device_mesh("cpu", (2, 1, 1, 1), mesh_dim_names=n) for n in (names, ("pp", "a", "efsdp", "ep"))
            )
            model = load_model(AutoConfig.for_model(**fields))
            model = model.maybe_distribute_model(
                model, DistributedConfig(pp_size=2), TransformersDeviceMesh(dense, expert)
            )
            with (
                patch.object(PipelineStage, "communicate", received),
                patch.object(PipelineStage, "broadcast_from_last", lambda self, tensor, **kwargs: tensor),
            ):
                split = annotate(model, scenario).cost
        finally:
            dist.destroy_process_group()
        assert {name: getattr(split, name) for name in EXACT} == {name: getattr(part.cost, name) for name in EXACT}
