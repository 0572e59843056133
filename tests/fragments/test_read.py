"""Channels of any model against what is read from it by hand, and the options that make distributions of values."""

import numpy as np
import pytest
import torch
from PIL import Image

from atom_hf.atoms.loss import StepAtoms
from atom_hf.data.load import load_data
from atom_hf.fragments import Channel
from atom_hf.fragments.calibration import noise_information, normal_scores
from atom_hf.fragments.read import read_channels
from atom_hf.generation.beta_vae import BetaVAEConfig, BetaVAEModel
from helpers.error_messages import error_message
from helpers.models import attached, batch_for, make_tokenizer, tiny, verse
from helpers.own_models import Around, own

TEXTS = [row["text"] for row in verse(60)][:12]
BATCHES = [batch_for("bert", 6), batch_for("bert", 6, 6)]


def pooled(model, texts, layer=-1):
    """Mean of the hidden states over the content tokens of each text, one text at a time."""
    found = []
    for text in texts:
        inputs = make_tokenizer()(text, return_tensors="pt", truncation=True, max_length=48)
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[layer][0]
        found.append(states[1:-1].mean(0))  # without [CLS] and [SEP]
    return torch.stack(found).double()


def means(channels):
    return torch.cat([channel.mean for channel in channels], 1)


@pytest.fixture(scope="module")
def bert():
    return tiny("bert").eval()


def read(model, kind, data=TEXTS, **options):
    return read_channels(model, data, kind=kind, **{"processor": make_tokenizer(), "batch_size": 5, **options})


def test_units_are_the_dimensions_of_a_layer(bert):
    units = read(bert, "units", layer=1, noise=0.3)
    assert [unit.name for unit in units[:2]] == ["layer 1 unit 0", "layer 1 unit 1"] and len(units) == 32
    assert all(unit.kind == "deterministic" and unit.noise == 0.3 for unit in units)
    assert units[0].run == "BertForSequenceClassification"
    torch.testing.assert_close(means(units), pooled(bert, TEXTS, 1), rtol=0, atol=1e-6)


def test_subspaces_and_the_space_are_of_the_same_values(bert):
    values = pooled(bert, TEXTS)
    (space,) = read(bert, "space", run="mine")
    assert space.name == "layer 2" and space.run == "mine"
    torch.testing.assert_close(space.mean, values, rtol=0, atol=1e-6)
    blocks = read(bert, "subspaces", size=12)
    assert [block.name for block in blocks] == [f"layer 2 units {span}" for span in ("0-11", "12-23", "24-31")]
    torch.testing.assert_close(means(blocks), values, rtol=0, atol=1e-6)
    blocks = read(bert, "subspaces", size=4, principal=True)
    assert blocks[0].name == "layer 2 components 0-3" and len(blocks) == 3
    components = means(blocks)
    centred = values - values.mean(0)
    torch.testing.assert_close(components @ components.T, centred @ centred.T, rtol=0, atol=1e-5)
    spread = components.square().sum(0)
    assert (spread[:-1] >= spread[1:] - 1e-9).all()


def test_bits_are_set_by_default_to_one(bert):
    for unit in read(bert, "units", layer=0)[:3]:
        assert noise_information(unit.mean, unit.noise) == pytest.approx(1, abs=1e-6)
    (space,) = read(bert, "space", bits=2)
    assert noise_information(space.mean, space.noise) == pytest.approx(2, abs=1e-6)


def test_ranks_do_not_change_under_increasing_maps(bert):
    units = read(bert, "units", quantile=True)
    assert len({unit.noise for unit in units}) == 1
    bent = normal_scores(means(read(bert, "units")).exp())
    torch.testing.assert_close(means(units), bent)


def test_several_layers_in_one_pass(bert):
    found = read(bert, "space", layer="all", noise=1.0)
    assert [one.name for one in found] == ["layer 0", "layer 1", "layer 2"]
    for layer, one in enumerate(found):
        torch.testing.assert_close(one.mean, pooled(bert, TEXTS, layer), rtol=0, atol=1e-6)
    assert [one.name for one in read(bert, "space", layer=[0, -1], noise=1.0)] == ["layer 0", "layer 2"]


@pytest.mark.parametrize(
    "name, projection, last",
    [
        ("bert", "bert.encoder.layer.{}.attention.output.dense", slice(1, -1)),
        ("gpt2", "transformer.h.{}.attn.c_proj", slice(1, -1)),
        ("vit", "vit.layers.{}.attention.o_proj", slice(1, None)),
    ],
)
def test_heads_are_what_the_output_projection_gets(name, projection, last):
    model, batches = tiny(name).eval(), [batch_for(name, 3)]
    given, module = [], model.get_submodule(projection.format(0))
    hook = module.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    heads = read_channels(
        model, batches, kind="heads", layer=1, noise=1.0, processor=None if name == "vit" else make_tokenizer()
    )
    hook.remove()
    assert [head.name for head in heads] == ["layer 1 head 0", "layer 1 head 1"]
    mask = batches[0].get("attention_mask", torch.ones(given[0].shape[:2]))
    expected = []
    for rows, row_mask in zip(given[0].detach(), mask.bool(), strict=True):
        expected.append(rows[row_mask][last].mean(0).double())
    torch.testing.assert_close(means(heads), torch.stack(expected), rtol=0, atol=1e-6)


def test_heads_that_are_not_there_are_rejected():
    error_message(
        lambda: read_channels(tiny("resnet"), [batch_for("resnet", 3)], kind="heads"), "kind 'heads'", "ResNet"
    )
    error_message(lambda: read(tiny("bert"), "heads", layer=0), "layer 0 is the embeddings", "from 1 on")


def test_the_self_attention_of_each_side_is_read():
    import transformers

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 4, "vocab_size": 60}
    torch.manual_seed(0)
    config = transformers.BartConfig(**sizes, **heads, max_position_embeddings=16, bos_token_id=0, eos_token_id=2)
    model = transformers.BartForConditionalGeneration(config).eval()
    batch = {"input_ids": torch.randint(3, 60, (4, 6)), "decoder_input_ids": torch.randint(3, 60, (4, 6))}
    for side, count in (("encoder", 2), ("decoder", 4)):
        given, layer = [], model.get_submodule(f"model.{side}.layers.0.self_attn.out_proj")
        hook = layer.register_forward_pre_hook(lambda _, args, given=given: given.append(args[0]))
        found = read_channels(model, [batch], kind="heads", side=side, of="tokens", noise=1.0)
        hook.remove()
        assert len(found) == count
        first = 0 if side == "encoder" else 1  # a decoder's start token is no part of its text
        torch.testing.assert_close(means(found), given[0][:, first:].flatten(0, 1).detach().double(), rtol=0, atol=1e-6)


def test_tokens_are_data_points_of_their_own(bert):
    (space,) = read(bert, "space", of="tokens", noise=1.0)
    counts = [len(make_tokenizer()(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    assert space.points == sum(counts)
    places = [name.split("/")[1] for name in space.ids]
    assert places == [str(place) for count in counts for place in range(count)]
    start = counts[0] + counts[1]
    torch.testing.assert_close(
        space.mean[start : start + counts[2]].mean(0), pooled(bert, TEXTS[2:3])[0], rtol=0, atol=1e-6
    )
    (some,) = read(bert, "space", of="tokens", noise=1.0, points=20, batch_size=3)
    again = read(bert, "space", of="tokens", noise=1.0, points=20, batch_size=12)[0]
    assert some.points == 20 and some.ids == again.ids and len(set(some.ids)) == 20
    rows = [space.ids.index(name) for name in some.ids]
    assert rows == sorted(rows)
    torch.testing.assert_close(some.mean, space.mean[rows], rtol=0, atol=1e-6)


def test_classes_are_the_probabilities(bert):
    (classes,) = read(bert, "classes", temperature=2.0)
    inputs = make_tokenizer()(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=48)
    with torch.no_grad():
        expected = (bert(**inputs).logits.double() / 2).softmax(1)
    assert classes.kind == "soft"
    torch.testing.assert_close(classes.probabilities, expected, rtol=0, atol=1e-6)


def test_of_several_classes_that_may_hold_each_is_a_channel():
    model = tiny("bert", num_labels=3, problem_type="multi_label_classification").eval()
    found = read(model, "classes")
    assert [one.name for one in found] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with torch.no_grad():
        logits = model(**BATCHES[0]).logits
    read_by_batches = read_channels(model, BATCHES[:1], kind="classes")
    torch.testing.assert_close(
        read_by_batches[1].probabilities[:, 0], logits[:, 1].double().sigmoid(), rtol=0, atol=1e-6
    )


def test_classes_of_tokens():
    import transformers

    config = tiny("bert").config
    torch.manual_seed(1)
    model = transformers.BertForTokenClassification(config).eval()
    (classes,) = read(model, "classes", of="tokens")
    assert classes.points == read(model, "space", of="tokens", noise=1.0)[0].points and classes.data.shape[1] == 2
    message = error_message(lambda: read(model, "classes"), "must give logits [B, 2] of samples")
    assert "[5, " in message


def test_importance_and_positions_are_those_of_the_atoms():
    model = attached("bert").eval()
    with torch.no_grad():
        outputs = model(**BATCHES[0], return_atoms=True)
    q, mask = outputs.atom_importance, ~outputs.atom_importance.isnan()
    (tokens,) = read_channels(model, BATCHES[:1], kind="importance", of="tokens")
    expected = (1 + q[mask].double()) / 2
    torch.testing.assert_close(tokens.probabilities, torch.stack([expected, 1 - expected], 1), rtol=0, atol=1e-6)
    (samples,) = read_channels(model, BATCHES[:1], kind="importance")
    torch.testing.assert_close(samples.probabilities[:, 0], (1 + q.nanmean(1).double()) / 2, rtol=0, atol=1e-6)
    (centres,) = read_channels(model, BATCHES[:1], kind="position", noise=1.0)
    atoms = StepAtoms.unpack(outputs.atoms, model.atom_config).shown
    torch.testing.assert_close(centres.mean, atoms.center.double(), rtol=0, atol=1e-6)
    (positions,) = read_channels(model, BATCHES[:1], kind="position", of="tokens", noise=1.0)
    # A centre is the mean of positions, of which a negative charge counts less (Eqs. 9 and 11 of the paper).
    weights = 1 - torch.relu(-q[0][mask[0]]).double()
    mean = (weights.unsqueeze(1) * positions.mean[: len(weights)]).mean(0)
    torch.testing.assert_close(mean, atoms.center[0].double(), rtol=0, atol=1e-5)


def test_a_posterior_is_read_latent_by_latent():
    torch.manual_seed(0)
    model = BetaVAEModel(BetaVAEConfig(image_size=8, latent_size=3, hidden_sizes=[16])).eval()
    pixels = torch.rand(6, 1, 8, 8)
    found = read_channels(model, [{"pixel_values": pixels[:4]}, {"pixel_values": pixels[4:]}], kind="posterior")
    assert [one.name for one in found] == ["latent 0", "latent 1", "latent 2"]
    mean, log_variance = model.encode(pixels)
    torch.testing.assert_close(means(found), mean.detach().double(), rtol=0, atol=1e-6)
    read_variance = torch.cat([one.log_variance for one in found], 1)
    torch.testing.assert_close(read_variance, log_variance.detach().double(), rtol=0, atol=1e-6)
    error_message(lambda: read(tiny("bert"), "posterior"), "gives no mean and log variance", "mu/logvar")


def test_dropout_gives_mean_and_variance_over_passes():
    model = tiny("bert", dropout=0.3).eval()
    (space,) = read(model, "space", dropout=80, batch_size=12)
    assert space.kind == "gaussian" and not any(module.training for module in model.modules())
    model.train()
    inputs = make_tokenizer()(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=48)
    mask = inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], torch.tensor([2, 3]))
    torch.manual_seed(5)
    with torch.no_grad():
        passes = [model(**inputs, output_hidden_states=True).hidden_states[-1] for _ in range(80)]
    values = torch.stack([torch.stack([row[m].mean(0) for row, m in zip(one, mask, strict=True)]) for one in passes])
    ratio = space.log_variance.exp() / values.var(0)
    assert (space.mean - values.mean(0)).abs().max() < 6 * (2 * values.var(0) / 80).sqrt().max()
    assert 0.8 < ratio.mean() < 1.2
    again = read(model, "space", dropout=20)[0]
    assert torch.equal(again.mean, read(model, "space", dropout=20)[0].mean)  # and whatever was drawn before
    error_message(lambda: read(tiny("bert"), "space", dropout=20), "dropout: nothing varies", "give noise or bits")


def test_batch_statistics_are_left_alone():
    model = tiny("resnet").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    error_message(lambda: read_channels(model, [batch_for("resnet", 3)], kind="space", dropout=20), "nothing varies")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_augmented_copies_give_mean_and_variance(bert):
    seen = []

    def change(row, rng):
        seen.append(row["text"])
        return {"text": row["text"] + " the" * int(rng.integers(3))}

    (space,) = read(bert, "space", augment=30, change=change, batch_size=12)
    assert len(seen) == 30 * len(TEXTS)
    copies = [np.random.default_rng((0, number, 4)).integers(3) for number in range(30)]
    by_hand = torch.stack([pooled(bert, [TEXTS[4] + " the" * int(n)])[0] for n in copies])
    torch.testing.assert_close(space.mean[4], by_hand.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(space.log_variance[4].exp(), by_hand.var(0), rtol=1e-3, atol=1e-9)
    (units,) = read(bert, "space", augment=20)  # words are left out
    assert units.kind == "gaussian" and units.points == len(TEXTS)


def test_data_of_every_form(bert, tmp_path, own_cache):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    file = tmp_path / "lines.csv"
    file.write_text("text,label\n" + "".join(f'"{text}",{n % 2}\n' for n, text in enumerate(TEXTS)), encoding="utf-8")
    by_name = read(bert, "space", str(file), noise=1.0, samples=8)[0]
    data = load_data(str(file))
    by_task = read(bert, "space", data, noise=1.0, samples=8)[0]
    rows = data.train.map(lambda row: row)
    assert by_name.ids == by_task.ids and by_name.points == 8  # of all rows: there is no evaluation split to read
    assert read(bert, "space", rows, noise=1.0)[0].points == len(rows)
    (listed,) = read(bert, "space", [{"text": text} for text in TEXTS], noise=1.0)
    assert listed.ids == read(bert, "space", TEXTS, noise=1.0)[0].ids
    digits = load_data("digits", max_eval_samples=20)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    (images,) = read_channels(tiny("vit"), digits, kind="space", processor=processor)
    assert images.points == 20
    (moved,) = read_channels(tiny("vit"), list(digits.eval["image"]), kind="units", processor=processor, augment=20)[:1]
    assert moved.kind == "gaussian"
    colours = [Image.new("RGB", (8, 8), (n * 20, 0, 255 - n * 20)) for n in range(4)]
    assert read_channels(tiny("vit"), colours, kind="space", processor=processor)[0].points == 4


def test_models_from_folders_and_live(tmp_path):
    for name, model in (("plain", tiny("bert")), ("atoms", attached("bert"))):
        model.save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
        (stored,) = read_channels(str(tmp_path / name), TEXTS, kind="space")
        (live,) = read(model, "space")
        assert stored.run == name and stored.ids == live.ids
        torch.testing.assert_close(stored.mean, live.mean, rtol=0, atol=1e-6)
    assert read_channels(str(tmp_path / "atoms"), TEXTS, kind="importance")[0].points == 12
    vae = BetaVAEModel(BetaVAEConfig(image_size=8, latent_size=2, hidden_sizes=[4]))
    vae.save_pretrained(tmp_path / "vae")
    found = read_channels(str(tmp_path / "vae"), [{"pixel_values": torch.rand(4, 1, 8, 8)}], kind="posterior")
    assert len(found) == 2 and all(isinstance(one, Channel) for one in found)


def test_a_model_of_ones_own():
    (classes,) = read(own(Around), "classes")
    (space,) = read(own(Around), "space")
    assert classes.data.shape == (12, 2)
    torch.testing.assert_close(space.mean, pooled(tiny("bert").eval(), TEXTS), rtol=0, atol=1e-6)


def test_choices_are_data_points(bert):
    import transformers

    torch.manual_seed(0)
    model = transformers.BertForMultipleChoice(bert.config).eval()
    ids = torch.randint(5, 40, (3, 2, 6))
    (space,) = read_channels(model, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], kind="space")
    assert space.points == 6 and space.ids == tuple("012345")


BAD = [
    ({"kind": "neurons"}, "kind must be one of units, subspaces, space"),
    ({"kind": "units", "of": "words"}, "of must be samples or tokens, got 'words'"),
    ({"kind": "posterior", "of": "tokens"}, "of tokens: kind 'posterior' is of whole samples"),
    ({"kind": "classes", "bits": 1.0}, "bits: kind 'classes' is a distribution as it is; leave it out"),
    ({"kind": "classes", "quantile": True}, "quantile: kind 'classes' is a distribution as it is"),
    ({"kind": "units", "bits": 1.0, "noise": 1.0}, "noise and bits: each makes a distribution of values; give one"),
    ({"kind": "units", "noise": 0.0}, "noise must be a finite number above 0, got 0.0"),
    ({"kind": "units", "noise": float("nan")}, "noise must be a finite number above 0, got nan"),
    ({"kind": "units", "bits": 5.0}, "bits must be above 0 and below log2 N"),
    ({"kind": "units", "dropout": 5}, "dropout must be at least 20 passes"),
    ({"kind": "units", "augment": 20, "quantile": True}, "augment and quantile: give one of them"),
    ({"kind": "units", "principal": True}, "principal is for kind subspaces"),
    ({"kind": "subspaces", "size": 0}, "size must be at least 1, got 0"),
    ({"kind": "classes", "temperature": 0.0}, "temperature must be a finite number above 0"),
    ({"kind": "units", "layer": 3}, "layer 3 does not exist"),
    ({"kind": "units", "layer": [0, 9]}, "layer 9 does not exist"),
    ({"kind": "units", "layer": "last"}, "layer must be a whole number, several, or 'all'"),
    ({"kind": "units", "side": "decoder"}, "side 'decoder'"),
    ({"kind": "units", "side": "left"}, "side must be 'encoder' or 'decoder'"),
    ({"kind": "importance"}, "kind 'importance': BertForSequenceClassification has no atom heads"),
    ({"kind": "units", "samples": 1}, "samples must be at least 2, got 1"),
    ({"kind": "units", "batch_size": 0}, "batch_size must be at least 1, got 0"),
    ({"kind": "units", "of": "tokens", "points": 1}, "points must be at least 2, got 1"),
    ({"kind": "units", "processor": None}, "processor: give the tokenizer or image processor"),
    ({"kind": "units", "data": []}, "data is empty"),
    ({"kind": "units", "data": ["one alone"]}, "a channel needs at least 2 data points, got 1"),
    ({"kind": "units", "data": [7, 8]}, "a sample must be a text, a PIL image or a row"),
    ({"kind": "units", "data": 7}, "data must name a data set or be one"),
    ({"kind": "units", "data": [Image.new("L", (8, 8))] * 3}, "takes input_ids, and the data are images"),
    ({"kind": "units", "data": "no/such.csv"}, "there is no such file or folder"),
]


@pytest.mark.parametrize("options, words", BAD)
def test_bad_input_is_one_line(bert, options, words):
    options = {"processor": make_tokenizer(), "data": TEXTS, **options}
    message = error_message(lambda: read_channels(bert, options.pop("data"), **options), words)
    assert "\n" not in message


def test_models_that_have_no_classes():
    error_message(lambda: read(tiny("gpt2"), "classes"), "GPT2LMHeadModel writes text and predicts no classes")
    error_message(lambda: read(tiny("bert", num_labels=1), "classes"), "predicts a number, not classes")
    error_message(lambda: read("./nowhere", "space"), "'./nowhere'")
    error_message(lambda: read(torch.nn.Linear(1, 1), "space"), "model must be a Transformers model", "Linear")


def test_numbers_that_are_not_finite_are_rejected():
    model = tiny("bert")
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    error_message(lambda: read(model, "space"), "numbers that are not finite", "dtype=torch.float32")
    assert read(model, "space", layer=1)[0].points == 12


def test_other_points_are_told_apart_by_their_ids(bert):
    from atom_hf.fragments import compare_channels

    one = read(bert, "space", TEXTS)
    other = read(bert, "space", TEXTS[::-1])
    error_message(lambda: compare_channels(one + other), "the same data points in the same order", "0:")


def test_a_sentence_transformer_is_read_inside(tmp_path):
    from helpers.sentence_trainers import sentences

    tiny("bert").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = sentences(tmp_path)
    (space,) = read(model, "space", processor=model.tokenizer)
    torch.testing.assert_close(space.mean, pooled(tiny("bert").eval(), TEXTS), rtol=0, atol=1e-6)
