"""Denoisers of diffusers with a few thousand parameters, and inputs for them."""

import diffusers
import torch

SIZES = dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
BLOCKS = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), **SIZES
)
CROSS = dict(
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=12,
    attention_head_dim=4,
    **SIZES,
)
VIDEO = {**CROSS, "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D")}
HEADS = dict(num_attention_heads=2, attention_head_dim=8)
IMAGE = dict(in_channels=4, out_channels=4)
# The class, how small, and the inputs beside the sample and the timestep.
DENOISERS = {
    "unet": ("UNet2DModel", dict(in_channels=1, out_channels=1, **BLOCKS)),
    "unet-text": ("UNet2DConditionModel", dict(IMAGE, **CROSS)),
    "unet-video": (
        "UNet3DConditionModel",
        dict(IMAGE, **{**VIDEO, "up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D")}),
    ),
    "unet-signal": (
        "UNet1DModel",
        dict(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 8),
            down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
            up_block_types=("UpResnetBlock1D",),
            mid_block_type="MidResTemporalBlock1D",
            out_block_type="OutConv1DBlock",
            time_embedding_type="positional",
            use_timestep_embedding=True,
            act_fn="swish",
            layers_per_block=1,
            norm_num_groups=4,
        ),
    ),
    "dit": (
        "DiTTransformer2DModel",
        dict(
            HEADS, in_channels=1, num_layers=4, sample_size=8, patch_size=2, num_embeds_ada_norm=10, norm_num_groups=1
        ),
    ),
    "sd3": (
        "SD3Transformer2DModel",
        dict(
            HEADS, **IMAGE, sample_size=8, patch_size=2, num_layers=3, joint_attention_dim=12, caption_projection_dim=16
        )
        | dict(pooled_projection_dim=20),
    ),
}


def denoiser(name, *, seed=0, **overrides):
    """A model made from its configuration, the same one for the same seed, in training mode."""
    kind, sizes = DENOISERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(diffusers, kind)(**{**sizes, **overrides}).train()


def inputs_for(name, count=4, seed=0):
    """The arguments of a forward pass of `count` samples, by name."""
    random = torch.Generator().manual_seed(seed)

    def make(*shape):
        return torch.randn(count, *shape, generator=random)

    shapes = {"unet": (1, 8, 8), "unet-video": (4, 3, 8, 8), "unet-signal": (3, 16), "dit": (1, 8, 8)}
    sample = make(*shapes.get(name, (4, 8, 8)))
    inputs = {"hidden_states" if name in ("dit", "sd3") else "sample": sample}
    inputs["timestep"] = torch.randint(0, 1000, (count,), generator=random)
    if name in ("unet-text", "unet-video", "sd3"):
        inputs["encoder_hidden_states"] = make(5, 12)
    if name == "sd3":
        inputs["pooled_projections"] = make(20)
    if name == "dit":
        inputs["class_labels"] = torch.arange(count)
    return inputs
