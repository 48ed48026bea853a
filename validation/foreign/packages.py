"""Models of packages that are not transformers, small enough to really run: name → a module and its inputs.

Only :mod:`validation.foreign.check` imports this, once the packages are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from validation.foreign.call import Call

PACKAGES = (
    "torchvision==0.28.0 timm x-transformers litgpt diffusers open_clip_torch peft einops einx frozendict loguru ftfy "
    "wcwidth torch-einops-utils lightning lightning-utilities torchmetrics pytorch-lightning accelerate psutil "
    "requests urllib3 certifi charset-normalizer idna importlib-metadata zipp"
)
"""Installed without what they depend on: torch and transformers are the project's own."""


def define_torchvisions_operators() -> None:
    """Stand-ins for two operators without which torchvision, built for another torch than this one, is not imported."""
    for name in ("nms", "qnms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{name}", schema)


def _image(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size)


def _tokens(length: int = 16, *, vocabulary: int = 100) -> Tensor:
    return torch.randint(vocabulary, (2, length))


def _torchvision(name: str, size: int = 64, **options: Any) -> Call:
    import torchvision

    return Call(torchvision.models.get_model(name, weights=None, **options), (_image(size),))


def _timm(name: str, size: int = 64, **options: Any) -> Call:
    import timm

    return Call(timm.create_model(name, num_classes=10, **options), (_image(size),))


def _x_decoder(**options: Any) -> Call:
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(dim=64, depth=2, heads=4, attn_dim_head=16, **options)
    return Call(TransformerWrapper(num_tokens=100, max_seq_len=32, attn_layers=layers), (_tokens(),))


def _x_encoder() -> Call:
    from x_transformers import Encoder, ViTransformerWrapper

    layers = Encoder(dim=64, depth=2, heads=4, attn_dim_head=16)
    return Call(ViTransformerWrapper(image_size=32, patch_size=8, num_classes=10, attn_layers=layers), (_image(32),))


def _x_cross() -> Call:
    from x_transformers import CrossAttender

    return Call(CrossAttender(dim=64, depth=2, heads=4), (torch.randn(2, 8, 64),), {"context": torch.randn(2, 12, 64)})


def _litgpt(**options: Any) -> Call:
    from litgpt.config import Config
    from litgpt.model import GPT

    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 32, "padded_vocab_size": 100, "vocab_size": 100}
    return Call(GPT(Config(**{**sizes, **options})), (_tokens(),))


def _litgpt_llama() -> Call:
    return _litgpt(
        n_query_groups=2, rotary_percentage=1.0, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
        intermediate_size=128, bias=False, parallel_residual=False,
    )  # fmt: skip


def _litgpt_moe() -> Call:
    return _litgpt(
        norm_class_name="RMSNorm", mlp_class_name="LLaMAMoE", n_expert=4, n_expert_per_token=2, intermediate_size=128,
        bias=False, parallel_residual=False,
    )  # fmt: skip


def _unet() -> Call:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return Call(unet, (torch.randn(2, 4, 16, 16), torch.tensor([7, 7]), torch.randn(2, 6, 32)), {"return_dict": False})


def _dit() -> Call:
    from diffusers import DiTTransformer2DModel

    dit = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=16
    )
    options = {"timestep": torch.tensor([7, 7]), "class_labels": torch.tensor([1, 2]), "return_dict": False}
    return Call(dit, (torch.randn(2, 4, 16, 16),), options)


def _vae() -> Call:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return Call(vae, (_image(32),), {"return_dict": False})


def _basic_block() -> Call:
    from diffusers.models.attention import BasicTransformerBlock

    block = BasicTransformerBlock(64, 4, 16, cross_attention_dim=32)
    return Call(block, (torch.randn(2, 24, 64),), {"encoder_hidden_states": torch.randn(2, 6, 32)})


def _resnet_block() -> Call:
    from diffusers.models.resnet import ResnetBlock2D

    return Call(
        ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=32), (torch.randn(2, 32, 8, 8), torch.randn(2, 32))
    )


def _clip(name: str) -> Call:
    import open_clip

    vision = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32}
    if name == "resnet":
        vision = {"layers": (1, 1, 1, 1), "width": 16, "patch_size": None, "image_size": 64}
    text = {"context_length": 16, "vocab_size": 100, "width": 64, "heads": 4, "layers": 2}
    clip = open_clip.model.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text)
    return Call(clip, (_image(vision["image_size"]), _tokens()))


def _coca() -> Call:
    from open_clip.coca_model import CoCa

    vision = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32, "attentional_pool": True,
              "attn_pooler_heads": 4, "output_tokens": True}  # fmt: skip
    decoder = {"context_length": 16, "vocab_size": 100, "width": 64, "heads": 4, "layers": 2}
    text = {**decoder, "embed_cls": True, "output_tokens": True}
    return Call(CoCa(embed_dim=64, vision_cfg=vision, text_cfg=text, multimodal_cfg=decoder), (_image(32), _tokens()))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
    )
    config._attn_implementation = "eager"
    return LlamaForCausalLM(config)


def _peft(**options: Any) -> Call:
    import peft

    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj", "down_proj"], **options)
    return Call(peft.get_peft_model(_llama(), config), (), {"input_ids": _tokens(), "use_cache": False})


def _peft_other(kind: str) -> Call:
    import peft

    config = {
        "ia3": lambda: peft.IA3Config(
            task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
        "oft": lambda: peft.OFTConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], oft_block_size=8),
        "vera": lambda: peft.VeraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=8),
    }[kind]()
    return Call(peft.get_peft_model(_llama(), config), (), {"input_ids": _tokens(), "use_cache": False})


def _r3d() -> Call:
    import torchvision

    return Call(torchvision.models.video.r3d_18(weights=None), (torch.randn(1, 3, 4, 32, 32),))


TORCHVISION: Mapping[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (64, {}),
    "vgg11_bn": (64, {}),
    "resnet18": (64, {}),
    "resnext50_32x4d": (64, {}),
    "squeezenet1_1": (64, {}),
    "densenet121": (64, {}),
    "googlenet": (64, {"init_weights": False}),
    "inception_v3": (96, {"init_weights": False}),
    "mobilenet_v2": (64, {}),
    "mobilenet_v3_small": (64, {}),
    "shufflenet_v2_x0_5": (64, {}),
    "mnasnet0_5": (64, {}),
    "efficientnet_b0": (64, {}),
    "regnet_y_400mf": (64, {}),
    "convnext_tiny": (64, {}),
    "vit_b_16": (64, {"image_size": 64}),
    "swin_t": (64, {}),
    "swin_v2_t": (64, {}),
    "maxvit_t": (224, {}),
    "fcn_resnet50": (64, {"weights_backbone": None}),
    "deeplabv3_resnet50": (64, {"weights_backbone": None}),
}
"""Model → the side of its images, and options."""
TIMM: Mapping[str, tuple[int, bool]] = {
    "vit_tiny_patch16_224": (64, True),
    "deit_tiny_distilled_patch16_224": (64, True),
    "eva02_tiny_patch14_224": (56, True),
    "beit_base_patch16_224": (64, True),
    "xcit_nano_12_p16_224": (64, True),
    "mixer_s32_224": (64, True),
    "coatnet_nano_rw_224": (64, True),
    "mvitv2_tiny": (64, True),
    "volo_d1_224": (64, True),
    "lambda_resnet26t": (64, True),
    "poolformer_s12": (64, False),
    "mobilevit_xxs": (64, False),
    "edgenext_xx_small": (64, False),
    "fastvit_t8": (64, False),
    "convnextv2_atto": (64, False),
    "resnetv2_50": (64, False),
    "hrnet_w18_small": (64, False),
    "gcresnet33ts": (64, False),
    "nfnet_l0": (64, False),
    "pvt_v2_b0": (64, False),
    "levit_128s": (224, False),
    "ghostnet_050": (64, False),
    "gernet_s": (64, False),
    "repvit_m0_9": (64, False),
}
"""Model → the side of its images, and whether it has to be told."""
MODELS: Mapping[str, Callable[[], Call]] = {
    **{f"torchvision {n}": partial(_torchvision, n, size, **options) for n, (size, options) in TORCHVISION.items()},
    "torchvision r3d_18": _r3d,
    **{f"timm {n}": partial(_timm, n, size, **{"img_size": size} if told else {}) for n, (size, told) in TIMM.items()},
    "x-transformers decoder": _x_decoder,
    "x-transformers rotary, GLU, RMSNorm": partial(_x_decoder, rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True),
    "x-transformers ALiBi, one KV head": partial(_x_decoder, alibi_pos_bias=True, attn_one_kv_head=True),
    "x-transformers QK norm": partial(_x_decoder, attn_qk_norm=True),
    "x-transformers T5 bias, talking heads": partial(_x_decoder, rel_pos_bias=True, attn_pre_talking_heads=True),
    "x-transformers vision encoder": _x_encoder,
    "x-transformers cross-attender": _x_cross,
    "litgpt GPT-NeoX": _litgpt,
    "litgpt Llama": _litgpt_llama,
    "litgpt Mixtral": _litgpt_moe,
    "diffusers UNet2DConditionModel": _unet,
    "diffusers DiT": _dit,
    "diffusers AutoencoderKL": _vae,
    "diffusers BasicTransformerBlock": _basic_block,
    "diffusers ResnetBlock2D": _resnet_block,
    "open_clip ViT": partial(_clip, "vit"),
    "open_clip ResNet": partial(_clip, "resnet"),
    "open_clip CoCa": _coca,
    "peft LoRA": _peft,
    "peft DoRA": partial(_peft, use_dora=True),
    "peft IA3": partial(_peft_other, "ia3"),
    "peft OFT": partial(_peft_other, "oft"),
    "peft VeRA": partial(_peft_other, "vera"),
}
