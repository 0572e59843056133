"""The card of a denoiser that `atom-hf train` has trained."""

from pathlib import Path
from typing import Any

from ..data.load import TaskData
from ..finetune.arguments import RunArguments
from ..hub.card import CARD_NAME, MARK, is_own
from ..hub.escape import cell, literal, shown
from ..utils.files import write_atomically
from ..utils.tables import format_number
from .arguments import GenerationArguments

OBJECTIVE_NAMES = {"ddpm": "DDPM (the noise is predicted)", "flow": "flow matching (the velocity is predicted)"}


def write_generator_card(
    trainer: Any,
    run: RunArguments,
    options: GenerationArguments,
    data: TaskData,
    metrics: dict[str, float],
    samples: str,
) -> None:
    """Write README.md beside a saved pipeline, unless the user's own is there.

    Args:
        samples: the name of the grid of samples in the folder.
    """
    folder = Path(trainer.args.output_dir)
    if not is_own(folder):
        write_atomically(folder / CARD_NAME, card_text(trainer, run, options, data, metrics, samples))


def card_text(
    trainer: Any,
    run: RunArguments,
    options: GenerationArguments,
    data: TaskData,
    metrics: dict[str, float],
    samples: str,
) -> str:
    """The Markdown of the card."""
    args, denoiser = trainer.args, trainer.objective.denoiser
    atoms = getattr(denoiser, "atom_config", None)
    kind = "An unconditional" if not options.class_conditional else "A class-conditional"
    count = sum(value.numel() for name, value in denoiser.named_parameters() if not name.startswith("atom_heads."))
    batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    rows = [
        ("denoiser", f"{type(denoiser).__name__}, {count:,} parameters"),
        ("objective", OBJECTIVE_NAMES[options.objective]),
        ("data", f"{cell(data.name)}: {len(data.train):,} images to train on, {len(data.eval):,} to evaluate on"),
        ("steps", f"{trainer.state.global_step:,} of {batch} images"),
        ("learning rate", f"{args.learning_rate:g}"),
        ("moving average of weights", f"decay {options.ema_decay:g}" if options.ema_decay else "none"),
        ("seed", str(args.seed)),
    ]
    if options.class_conditional:
        rows.append(("classes", ", ".join(map(cell, data.labels[:20])) + (", ..." if len(data.labels) > 20 else "")))
    if atoms is not None:
        loss = f"form {atoms.form}, weight {atoms.weight:g} ({atoms.weighting}), read at {cell(atoms.place)}"
        rows.append(("atom loss", loss))
    rows.append(("evaluation loss", format_number(metrics["loss"])))
    folder = literal(folder_name(args.output_dir))
    if options.class_conditional:
        # No pipeline of diffusers without an encoder of images passes classes on.
        how = (
            "from atom_hf.generation.sampling import sample_images\nfrom diffusers import DDPMPipeline\n\n"
            f"pipeline = DDPMPipeline.from_pretrained({folder})\n"
            "images = sample_images(pipeline.unet, pipeline.scheduler, 16, labels=[0] * 16)  # [16, C, H, W] in [0, 1]"
        )
    else:
        how = (
            f"from diffusers import DDPMPipeline\n\npipeline = DDPMPipeline.from_pretrained({folder})\n"
            "images = pipeline(16, num_inference_steps=50).images"
        )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"---\nlibrary_name: diffusers\npipeline_tag: unconditional-image-generation\n---\n\n{MARK}\n\n"
        f"# {shown(folder_name(args.output_dir))}\n\n{kind} generator of images, trained by atom-hf.\n\n"
        f"![samples, not picked]({samples})\n\n| | |\n| --- | --- |\n{table}\n\n"
        f"```python\n{how}\n```\n\n"
        "The loss says how well noise is predicted, not how good samples are.\n"
    )


def folder_name(folder: str) -> str:
    """The last part of a path."""
    return Path(folder).resolve().name
