"""Recordings take turns, refuse to nest, and leave everything as it was, however they end."""

from __future__ import annotations

import gc
import random
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.utils._python_dispatch import _get_current_dispatch_mode

from fxmeter import annotate, annotate_module, decode, load_model, prefill
from fxmeter.models.errors import TraceError
from tests.tracer.tiny import GEMMA3, LLAMA, QWEN_MOE, config


class Stack(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x


MODELS = {"llama": LLAMA, "gemma": GEMMA3, "moe": QWEN_MOE}


def test_two_hundred_threads_give_what_one_gives():
    shared = {name: load_model(config(fields), dtype="float32") for name, fields in MODELS.items()}

    def price(kind, size, count):
        if kind == "stack":
            return annotate_module(Stack(size, count), torch.empty(2, size)).cost
        scenario = (prefill if count % 2 else decode)(size)
        return annotate(shared[kind], scenario, attention="eager" if count < 2 else "flash").cost

    tasks = [("stack", 4 + number % 7, 1 + number % 3) for number in range(185)]
    tasks += [(list(MODELS)[number % 3], 5, number % 4) for number in range(15)]
    expected = {task: price(*task) for task in set(tasks)}
    random.Random(0).shuffle(tasks)
    got = [None] * len(tasks)

    def run(index):
        got[index] = price(*tasks[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected[task] for task in tasks]
    assert gc.isenabled()


def test_what_another_thread_runs_meanwhile_is_not_recorded():
    inside, done = threading.Event(), threading.Event()
    other = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            inside.set()
            assert done.wait(10)
            return self.mix(x)

    def elsewhere():
        assert inside.wait(10)
        other(torch.ones(3, 4))
        done.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    stage = annotate_module(Waits(), torch.empty(5, 4))
    thread.join()
    assert stage.cost.matmul_flops == 2 * 5 * 4 * 4
    assert set(stage.modules) == {"", "mix"}


@pytest.mark.parametrize("where", ["forward", "hook"])
def test_an_annotation_inside_a_recorded_forward_is_refused(where):
    inner = nn.Linear(4, 4)

    class Nested(nn.Module):
        def forward(self, x):
            if where == "forward":
                annotate_module(inner, x)
            return x + 1

    nested = Nested()
    if where == "hook":
        nested.register_forward_hook(lambda module, args, out: annotate_module(inner, args[0]) and None)
    with pytest.raises(TraceError, match="annotate was called from code that is being recorded"):
        annotate_module(nested, torch.empty(3, 4))
    assert annotate_module(inner, torch.empty(3, 4)).cost.matmul_flops == 2 * 3 * 4 * 4


def test_random_numbers_drawn_in_a_pass_are_drawn_again():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn(3, 4).sum()

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    annotate_module(Noisy(), torch.empty(3, 4))
    assert torch.equal(torch.rand(3), expected)


def state_of(model):
    """Whatever a recording changes for its time."""
    return (
        [{name: value for name, value in vars(module).items() if name != "_modules"} for module in model.modules()],
        [list(module._modules.items()) for module in model.modules()],
        model.config._attn_implementation,
        {code: dict(vars(sys.modules[code])) for code in {type(module).__module__ for module in model.modules()}},
        len(torch_modules._global_forward_hooks),
        len(torch_modules._global_forward_pre_hooks),
        _get_current_dispatch_mode(),
        gc.isenabled(),
    )


CLEANUP = {"restore", "choose_attention", "__exit__"}
"""What runs while a recording is being undone: an interrupt there is beyond a program."""


class Interrupt:
    """A trace function that raises KeyboardInterrupt at the ``number``-th call of a function of fxmeter's tracer."""

    def __init__(self, number):
        self.left = number
        self.ours = str(Path(sys.modules["fxmeter.tracer.run.passes"].__file__).parent.parent)

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename.startswith(self.ours) and not _undoing(frame):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


def _undoing(frame):
    while frame is not None and frame.f_code.co_name not in CLEANUP:
        frame = frame.f_back
    return frame is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where a tensor is just let go of
@pytest.mark.parametrize("scenario", [prefill(4), decode(4)], ids=["prefill", "decode"])
def test_an_interrupt_anywhere_leaves_everything_as_it_was(scenario):
    model = load_model(config(LLAMA), dtype="float32").train()
    expected = annotate(model, scenario).cost
    before = state_of(model)
    call, interrupted = 1, 0
    while True:
        interrupt = Interrupt(call)
        sys.settrace(interrupt)
        try:
            annotate(model, scenario)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        assert state_of(model) == before, call
        if interrupt.left > 0:
            break
        call += 1 + call // 8
    assert interrupted > 25
    assert annotate(model, scenario).cost == expected
