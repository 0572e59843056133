"""Small runs of one ensemble: classifiers of digits with their image processor, as folders."""

from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from helpers.models import tiny


def save_ensemble(folder, count=4, **options):
    """Untrained classifiers of the digits, in `folder`/run-0, ...; each has a number "strength" in its configuration."""
    names = [str(digit) for digit in range(10)]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    for seed in range(count):
        model = tiny("vit", seed=seed, **{**labels, **options})
        model.config.strength = 1.0 + seed // 2
        own = folder / f"run-{seed}"
        model.save_pretrained(own)
        size = {"height": 8, "width": 8}
        ViTImageProcessorPil(size=size, image_mean=[0.5], image_std=[0.5]).save_pretrained(own)
    return [str(folder / f"run-{seed}") for seed in range(count)]
