"""`atom-hf train --task unconditional-image-generation` and `atom-hf sample`: runs, what they write, and bad input."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from PIL import Image

from atom_hf import load_atom_model
from atom_hf.data.columns import GENERATION
from atom_hf.data.load import load_data
from atom_hf.finetune.arguments import RunArguments, load_run_data
from atom_hf.generation.denoisers import load_pipeline, make_denoiser
from helpers.commands import closing, command, results
from helpers.denoisers import denoiser
from helpers.error_messages import error_message
from helpers.models import digits

TASK = "train --task unconditional-image-generation --use_cpu --report_to none"
SMALL = """--config_overrides '{"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}'"""
SHORT = "--max_steps 3 --per_device_train_batch_size 8 --max_eval_samples 16"
FLOW = f"{TASK} {SMALL} --dataset digits {SHORT} --max_train_samples 40 --objective flow --class_conditional --atom"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A flat folder of pictures, and two trained models beside it."""
    import datasets

    folder = tmp_path_factory.mktemp("generation")
    (folder / "flat").mkdir()
    for number, (pixels, _) in enumerate(digits(60)[:20]):
        image = Image.fromarray(np.kron(((pixels + 0.5) * 255).astype("uint8"), np.ones((2, 3), dtype=np.uint8)))
        image.convert("RGB").save(folder / "flat" / f"{number}.png")
    for name in ("empty", "one"):
        (folder / name).mkdir()
    image.save(folder / "one" / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr("atom_hf.generation.run.SHOWN_STEPS", 3)
        patch.chdir(folder)
        datasets.disable_progress_bars()
        outputs = {}
        for line in (
            f"{FLOW} --gradient_accumulation_steps 2 --atom_pair_batch 16 --save_steps 2 --output_dir flow",
            f"{TASK} {SMALL} --dataset flat {SHORT} --ema_decay 0 --output_dir ddpm",
        ):
            status, out, err = command(line)
            assert status in (0, None), err[-3000:]
            outputs[line.split()[-1]] = out
        yield folder, outputs


def test_a_run_writes_a_plain_pipeline_with_its_heads_and_its_card(place):
    folder, outputs = place
    header, rows, below = closing(outputs["flow"])
    assert header.split() == ["digits,", "flow", "atom"] and below["next"] == "atom-hf sample --model flow --n 64"
    assert float(rows["loss"]) == pytest.approx(results("flow")["loss"], rel=1e-3)
    pipeline = DDPMPipeline.from_pretrained("flow")
    assert type(pipeline.unet) is UNet2DModel and type(pipeline.scheduler) is FlowMatchEulerDiscreteScheduler
    assert pipeline.unet.config.num_class_embeds == 10 and pipeline.unet.config.sample_size == 8
    assert load_atom_model("flow/unet").atom_config.block == "down_blocks.0"
    card = (folder / "flow" / "README.md").read_text(encoding="utf-8")
    for words in (
        "A class-conditional generator",
        "flow matching",
        "3 of 16 images",
        "block down_blocks.0",
        "(samples.png)",
    ):
        assert words in card, card
    with Image.open("flow/samples.png") as image:
        assert image.size == (4 * 66 + 2, 4 * 66 + 2)


def test_a_folder_of_pictures_trains_a_plain_model_that_a_pipeline_samples(place):
    pipeline = DDPMPipeline.from_pretrained("ddpm")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.unet.config.sample_size == 16 and pipeline.unet.config.in_channels == 3
    assert pipeline.unet.config.num_class_embeds is None
    image = pipeline(1, torch.Generator().manual_seed(0), num_inference_steps=3).images[0]
    status, out, err = command("sample --model ddpm --n 1 --steps 3 --output one.png")
    assert status == 0 or status is None, err
    with Image.open("one.png") as grid:
        assert out.split() == ["written", "one.png"]
        assert (np.asarray(grid)[2:-2:4, 2:-2:4] == np.asarray(image)).all()
    assert "An unconditional generator" in (place[0] / "ddpm" / "README.md").read_text(encoding="utf-8")


def test_a_run_is_resumed_and_goes_on_from_a_model(place):
    status, _, err = command(f"{FLOW} --gradient_accumulation_steps 2 --atom_pair_batch 16 --output_dir flow")
    assert status == 2 and "holds another run" in err
    before = DDPMPipeline.from_pretrained("flow").unet.state_dict()
    line = f"{FLOW} --gradient_accumulation_steps 2 --atom_pair_batch 16 --save_steps 2 --output_dir flow"
    status, _, err = command(f"{line} --resume_from_checkpoint flow/checkpoint-2")
    assert status in (0, None), err
    after = DDPMPipeline.from_pretrained("flow").unet.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    again = f"{TASK} --model ddpm --dataset flat {SHORT} --output_dir again --save_strategy no"
    status, _, err = command(again)
    assert status in (0, None), err
    assert DDPMPipeline.from_pretrained("again").unet.config.sample_size == 16


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--dataset empty", "the folder holds no images"),
        ("--dataset one", "too few rows (1)"),
        ("--dataset nowhere/at/all", "there is no such file or folder"),
        ("--dataset verse", "needs a column of images"),
        ("--dataset flat --objective gan", "--objective must be ddpm or flow; got 'gan'"),
        ("--dataset flat --image_size 9", "must be a multiple of 2"),
        ("--dataset flat --ema_decay 1", "--ema_decay"),
        ("--dataset flat --model_type vit", "--model_type is not for --task unconditional-image-generation"),
        ("--dataset flat --config_overrides hidden_size=8", "is no JSON"),
        ("""--dataset flat --config_overrides '{"width": 3}'""", "a UNet2DModel has no width"),
        ("""--dataset flat --config_overrides '{"norm_num_groups": 7}'""", "does not fit a UNet2DModel"),
        ("--dataset flat --model nowhere", "no folder of a pipeline of diffusers"),
        ("--dataset flat --model ddpm --image_size 32", "is for images of 16"),
        ("--dataset flat --model ddpm --objective flow", "was trained with the other"),
        ("--dataset digits --model ddpm --class_conditional", "is conditional on no classes"),
        ("--dataset flat --atom --atom_block nowhere", "block 'nowhere' does not exist in UNet2DModel"),
        ("--dataset flat --atom --per_device_train_batch_size 1", "needs at least 2"),
        ("--dataset flat --dry_run", "--dry_run is not for"),
        ("--dataset flat --push_to_hub", "--push_to_hub is not for"),
        ("--dataset flat --eval_strategy epoch --metric_for_best_model accuracy", "is not measured"),
    ],
)
def test_bad_input_is_one_line_before_training(flags, words, place):
    status, _, err = command(f"{TASK} {SHORT} --output_dir rejected {flags}")
    assert status == 2 and words in err.splitlines()[-1] and "Traceback" not in err, err
    assert not (place[0] / "rejected").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        ("", "give --model"),
        ("--model nowhere", "no folder of a pipeline of diffusers"),
        ("--model ddpm --label 1", "is not conditional on classes"),
        ("--model flow --label 10", "has 10 classes, 0 to 9"),
        ("--model ddpm --n 0", "--n"),
        ("--model ddpm --steps 1001", "has 1000 steps"),
        ("--model ddpm --output flat", "--output 'flat' cannot be written"),
    ],
)
def test_what_cannot_be_sampled(flags, words, place):
    status, _, err = command(f"sample {flags}")
    assert status == 2 and words in err.splitlines()[-1] and "Traceback" not in err, err


def test_a_model_of_nans_is_not_sampled(place):
    unet = denoiser("unet")
    with torch.no_grad():
        unet.conv_out.bias.fill_(float("nan"))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained("nans")
    status, _, err = command("sample --model nans --n 2 --steps 2")
    assert status == 2 and "2 of 2 samples are not finite numbers" in err.splitlines()[-1]
    assert not (place[0] / "nans" / "samples.png").exists()


@pytest.mark.parametrize("flag", ["--objective flow", "--image_size 16", "--class_conditional", "--ema_decay 0"])
def test_other_tasks_have_none_of_the_flags(flag, place):
    status, _, err = command(f"train --model vit-fashion-mnist --dataset flat {flag}")
    assert status == 2 and f"{flag.split()[0]} is for --task unconditional" in err.splitlines()[-1], err


def test_each_class_in_turn_or_one(place):
    for flags in ("--n 3", "--n 3 --label 4"):
        status, _, err = command(f"sample --model flow --steps 2 --output grid.png {flags}")
        assert status in (0, None), err
    with Image.open("grid.png") as image:
        assert image.size == (2 * 66 + 2, 2 * 66 + 2)


def test_the_task_has_images_without_labels_and_is_one_of_train_alone(place):
    data = load_data("digits", task=GENERATION, max_eval_samples=10)
    assert data.train.column_names == ["image"] and data.labels is None and data.is_image and len(data.eval) == 10
    error_message(lambda: load_run_data(RunArguments(dataset="digits", task=GENERATION)), "atom-hf train alone")


def test_pipelines_of_another_kind(tmp_path):
    error_message(lambda: load_pipeline(str(tmp_path)), "no model_index.json")
    DDPMPipeline(denoiser("unet"), DDPMScheduler()).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "unet": ["diffusers", AutoencoderKL.__name__]}))
    error_message(lambda: load_pipeline(str(tmp_path)), "'DDPMPipeline'", "UNet2DModel")
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"none")
    error_message(lambda: load_pipeline(str(tmp_path)), "cannot be loaded")


@pytest.mark.parametrize("size, levels", [(8, 2), (16, 2), (24, 3), (32, 3), (64, 4)])
def test_a_new_denoiser_fits_the_images(size, levels):
    unet = make_denoiser(size, 3, None, '{"layers_per_block": 1}')
    assert len(unet.config.block_out_channels) == levels and unet.config.sample_size == size
    assert any("attentions.0" in name for name, _ in unet.down_blocks[-1].named_modules())
    with torch.device("meta"):
        images = torch.zeros(1, 3, size, size)
    assert unet.to("meta")(images, 3).sample.shape == images.shape
