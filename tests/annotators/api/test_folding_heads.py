"""Every head that transformers has for a decoder: folded and in full, the same in every field of every module."""

from __future__ import annotations

import pytest
import torch
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fxmeter.annotators import annotate_module
from fxmeter.models import FxmeterError
from validation.coverage_type import compare_folding
from validation.small_configs import small_config

HEADS = {
    "none": auto.MODEL_MAPPING,
    "pretraining": auto.MODEL_FOR_PRETRAINING_MAPPING,
    "masked": auto.MODEL_FOR_MASKED_LM_MAPPING,
    "sequence": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "token": auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "question": auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    "choice": auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING,
    "next sentence": auto.MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING,
}
TYPES = sorted(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
FEW = [("llama", "token"), ("gpt_oss", "sequence"), ("bert", "choice"), ("mbart", "none"), ("recurrent_gemma", "none")]


def _check(model_type: str, head: str) -> bool:
    """Compare them for eager and fused attention; False where transformers has no such head, or cannot run it."""
    try:
        config = small_config(model_type)
    except Exception:  # a config that its own class refuses
        return False
    config.pad_token_id = getattr(config, "pad_token_id", None) or 0  # a sequence's head looks for its last token
    if type(config) not in HEADS[head]:
        return False
    try:
        with torch.device("meta"):
            model = HEADS[head][type(config)](config).eval()
    except Exception:  # a head that wants fields of its own
        return False
    ids = torch.ones((2, 2, 12) if head == "choice" else (2, 12), dtype=torch.long)
    for attention in ("eager", "flash"):
        try:
            full = annotate_module(model, ids, attention=attention, fold=False)
        except FxmeterError:
            return False
        folded = annotate_module(model, ids, attention=attention)
        assert compare_folding(folded, full) == "equal", (model_type, head, attention)
    return True


@pytest.mark.parametrize(("model_type", "head"), FEW)
def test_a_head_is_the_same_folded_and_in_full(model_type, head):
    assert _check(model_type, head)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_all_heads_of_a_type_are_the_same_folded_and_in_full(model_type):
    if model_type not in CONFIG_MAPPING:
        pytest.skip("no config of that name")
    if not [head for head in HEADS if _check(model_type, head)]:
        pytest.skip("no head that runs")


@pytest.mark.parametrize("options", [{"output_attentions": True}, {"output_hidden_states": True}, {"use_cache": False}])
def test_what_a_model_is_asked_to_return_beside_is_there_of_every_layer(options):
    with torch.device("meta"):
        model = auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[type(small_config("llama"))](small_config("llama"))
    stages = [
        annotate_module(model, torch.ones(2, 12, dtype=torch.long), attention="eager", fold=fold, **options)
        for fold in (None, False)
    ]
    assert compare_folding(*stages) == "equal"
