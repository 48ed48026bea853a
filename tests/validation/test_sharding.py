"""Every type with a tensor-parallel plan: what ranks do is a share, or the same on all of them."""

from __future__ import annotations

import pytest

from validation import sharding


@pytest.mark.parametrize("model_type", ["gemma3_text", "bailing_hybrid", "gpt_oss"])
def test_tied_hybrid_and_transposed_models_are_shared(model_type):
    assert sharding.held(model_type, 2) == sharding.Held()


@pytest.mark.slow
@pytest.mark.parametrize("tp", [2, 4])
def test_every_type_with_a_plan_is_shared(tp):
    found = {model_type: sharding.held(model_type, tp) for model_type in sharding.types_with_a_plan()}
    assert len(found) > 100
    assert {model_type for model_type, held in found.items() if not held.holds} == set(sharding.NOT_SHARED)
