"""GANs with some hundred parameters, and images for them."""

import torch

from atom_hf.generation.gan import GANConfig, GANModel
from helpers.models import digits

SMALL = dict(image_size=8, latent_size=5, hidden_sizes=[12, 6], gradient_penalty=3.0)
VIT = dict(
    model_type="vit", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8
)
KINDS = {
    "convolutional": {},
    "dense": dict(architecture="dense"),
    "points": dict(architecture="dense", image_size=1, num_channels=2, bounded=False),
    "vit": dict(discriminator=dict(VIT, patch_size=4, num_channels=1, hidden_dropout_prob=0.0)),
}
IMAGES = torch.stack([2 * torch.from_numpy(image)[None] for image, _ in digits(60)[:6]])


def gan(name="convolutional", **options):
    torch.manual_seed(0)
    return GANModel(GANConfig(**{**SMALL, **KINDS[name], **options})).train()


def images_for(name):
    return (
        IMAGES[:, :, :1, :1].repeat(1, 2, 1, 1) * torch.tensor([1.0, 0.5])[None, :, None, None]
        if name == "points"
        else IMAGES
    )
