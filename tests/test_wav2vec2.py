"""wav2vec 2.0: the model is Hugging Face's with the same weights, loss and masks are the formulas."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile
from torch.nn import functional as F

from dyt.config.compose import load
from dyt.data import Spec, open_data
from dyt.data.order import Order, seed_all
from dyt.data.spec import frames_of
from dyt.tasks import Place, build_task
from dyt.tasks.hearing import best_layer, log_mel, mel_bands, picture_of, probed
from dyt.tasks.wav2vec2 import distractors, hide
from eval import evaluate_run, parse
from models import build_model
from models.wav2vec2 import samples_for

from .helpers import TINY_WAV2VEC2, one_line, python, train

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "logger.mode=disabled", "model.wav2vec2.probe=0"]


def made(*words):
    config = load([*TINY_WAV2VEC2, *words])
    seed_all(0)
    model, factory = build_model(config["model"], config["norm"], Spec("audio", "", {}))
    return model, factory, build_task(config, 10), config


def waves(count=3, samples=2400, dtype=torch.float32):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, samples, generator=g, dtype=dtype), torch.tensor([samples, samples - 700, 900])[:count]


# -- the model ---------------------------------------------------------------------------------------------------------


def theirs_of(model, config):
    """Hugging Face's model with `model`'s weights."""
    transformers = pytest.importorskip("transformers")
    m = config["model"]
    about = transformers.Wav2Vec2Config(
        hidden_size=m["dim"], num_hidden_layers=m["depth"], num_attention_heads=m["heads"],
        intermediate_size=4 * m["dim"], conv_dim=[m["conv_dim"]] * len(m["conv_kernels"]),
        conv_kernel=m["conv_kernels"], conv_stride=m["conv_strides"], num_feat_extract_layers=len(m["conv_kernels"]),
        num_conv_pos_embeddings=m["position_kernel"], num_conv_pos_embedding_groups=m["position_groups"],
        do_stable_layer_norm=m["norm_first"], feat_extract_norm="group", num_codevectors_per_group=m["codes"],
        num_codevector_groups=m["code_groups"], codevector_dim=m["vector_dim"], proj_codevector_dim=m["output_dim"],
        layer_norm_eps=config["norm"]["eps"], layerdrop=0.0, hidden_dropout=0.0, attention_dropout=0.0,
        feat_proj_dropout=0.0, activation_dropout=0.0, num_negatives=m["wav2vec2"]["negatives"],
        diversity_loss_weight=config["model"]["wav2vec2"]["diversity"], vocab_size=8,
    )  # fmt: skip
    theirs = transformers.Wav2Vec2ForPreTraining(about)
    names = {
        "wav2vec2.masked_spec_embed": "mask",
        "wav2vec2.feature_extractor.conv_layers.0.layer_norm": "extractor.group_norm",
        "wav2vec2.feature_projection.layer_norm": "stem_norm",
        "wav2vec2.feature_projection.projection": "project",
        "wav2vec2.encoder.pos_conv_embed.conv": "positions.conv",
        "wav2vec2.encoder.layer_norm": "norm" if m["norm_first"] else "embed_norm",
        "quantizer.weight_proj": "quantizer.scores",
        "project_hid": "from_context",
        "project_q": "from_codes",
    }
    for i in range(len(m["conv_kernels"])):
        names[f"wav2vec2.feature_extractor.conv_layers.{i}.conv"] = f"extractor.convs.{i}"
    for i in range(m["depth"]):
        block = f"wav2vec2.encoder.layers.{i}"
        ours = {"attention.out_proj": "out", "layer_norm": "attn_norm", "feed_forward.intermediate_dense": "up"}
        ours |= {"feed_forward.output_dense": "down", "final_layer_norm": "mlp_norm"}
        names |= {f"{block}.{a}": f"blocks.{i}.{b}" for a, b in ours.items()}
    weights, found = model.state_dict(), {}
    for name, value in theirs.state_dict().items():
        if name == "quantizer.codevectors":
            found[name] = weights["quantizer.vectors"].flatten(0, 1)[None]
        elif name.split(".attention.")[-1].startswith(("q_proj", "k_proj", "v_proj")):
            block, part = name.split("layers.")[1].split(".")[0], "qkv".index(name.split(".attention.")[1][0])
            found[name] = weights[f"blocks.{block}.qkv.{name.rpartition('.')[2]}"].chunk(3)[part]
        else:
            start = next(n for n in names if name.startswith(n))
            found[name] = weights[names[start] + name.removeprefix(start)]
        assert found[name].shape == value.shape, name
    theirs.load_state_dict(found)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.parameters())
    return theirs.double().eval()


@pytest.mark.parametrize("norm_first", ["false", "true"])
def test_the_model_and_its_contrast_are_those_of_hugging_face(norm_first):
    """Base and Large, with frames hidden, distractors given, and a recording that is shorter than the window."""
    model, _, task, config = made("norm=layernorm", "norm.eps=1e-5", f"model.norm_first={norm_first}")
    model = model.double().eval()
    theirs = theirs_of(model, config)
    x, lengths = waves(dtype=torch.float64)
    lengths[:] = x.shape[1]  # their loss counts frames of all recordings alike
    (_, _, hidden), targets = task.prepare((x, lengths), torch.zeros(3), Place(("val",), 0))
    got = model(x, lengths, hidden)
    out = theirs(x, mask_time_indices=hidden, sampled_negative_indices=_flat(targets[1]))
    torch.testing.assert_close(got[0], out.projected_states)
    torch.testing.assert_close(got[1], out.projected_quantized_states)
    contrast, _ = task.contrast(*got[:3], *targets)
    counts = hidden.sum(dim=1)
    torch.testing.assert_close((contrast * counts).sum().float(), out.contrastive_loss)  # theirs is in float32
    # Every recording weighs the same in ours, so with one recording the other term is theirs too.
    one = theirs(x[:1], mask_time_indices=hidden[:1], sampled_negative_indices=_flat(targets[1][:1]))
    first = model(x[:1], lengths[:1], hidden[:1])
    unused = 1 - one.codevector_perplexity / (2 * config["model"]["codes"])
    # theirs takes the chosen codes in evaluation, the softmax in training
    shares = F.one_hot(_codes(first[2], config), config["model"]["codes"]).double()
    torch.testing.assert_close(task.unused(shares, hidden[:1], False), unused, rtol=1e-5, atol=1e-6)
    # A short recording is heard as if nothing followed it; their attention mask says so.
    lengths = torch.tensor([2400, 1700, 900])
    mask = (torch.arange(2400) < lengths[:, None]).long()
    layers = model(x * mask, lengths)
    last = theirs.wav2vec2(x * mask, attention_mask=mask).last_hidden_state
    for row, count in enumerate(frames_of(lengths, *model.conv).tolist()):
        torch.testing.assert_close(layers[-1][row, :count], last[row, :count])


def _flat(others):
    """Places among the frames of all recordings, as Hugging Face counts them."""
    B, T, _ = others.shape
    return others + T * torch.arange(B)[:, None, None]


def _codes(ids, config):
    codes = config["model"]["codes"]
    return torch.stack([ids // codes**group % codes for group in range(config["model"]["code_groups"])], dim=-1)


def test_what_follows_a_recording_changes_nothing_but_the_group_norm():
    """With a window that ends with the recording, and the first norm out of the way."""
    model = made("norm=dyt")[0].double().eval()
    model.extractor.group_norm = torch.nn.Identity()
    x, _ = waves(1, dtype=torch.float64)
    lengths = torch.tensor([1500])
    whole = model(F.pad(x[:, :1500], (0, 900)), lengths)
    noise = model(torch.cat((x[:, :1500], 9 * x[:, 1500:]), dim=1), lengths)
    count = int(frames_of(1500, *model.conv))
    for a, b in zip(whole[1:], noise[1:], strict=True):
        torch.testing.assert_close(a[:, :count], b[:, :count])


def test_frames_are_counted_as_the_convolutions_make_them():
    model, *_ = made()
    for samples in (samples_for(3, *model.conv), 901, 2400):
        assert model.extractor(torch.randn(1, samples)).shape[1] == frames_of(samples, *model.conv)
    assert (
        frames_of(samples_for(3, *model.conv), *model.conv)
        == 3
        > frames_of(samples_for(3, *model.conv) - 1, *model.conv)
    )
    base = load(["model=wav2vec2_base"])["model"]
    assert frames_of(16000, base["conv_kernels"], base["conv_strides"]) == 49  # as published: 49 Hz, 25 ms, 20 ms apart
    assert samples_for(1, base["conv_kernels"], base["conv_strides"]) == 400


@pytest.mark.parametrize(
    "name, millions, sites",
    [
        ("wav2vec2_base", 95.0, {"stem": 1, "embed": 1, "attn": 12, "mlp": 12}),
        ("wav2vec2_large", 317.4, {"stem": 1, "attn": 24, "mlp": 24, "final": 1}),
    ],
)
def test_published_sizes_and_the_group_norm_that_stays(name, millions, sites):
    with torch.device("meta"):
        config = load([f"model={name}", "norm=dyt"])
        model, factory = build_model(config["model"], config["norm"], Spec("audio", "", {}))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert dict(factory.count) == sites
    assert [n for n, m in model.named_modules() if isinstance(m, torch.nn.GroupNorm)] == ["extractor.group_norm"]


def test_the_gradient_of_the_convolutions_is_scaled_and_nothing_else_is():
    grads = []
    for scale in (1.0, 0.1):
        model, _, task, _ = made(f"model.gradient_scale={scale}", "model.wav2vec2.feature_penalty=0")
        inputs = task.prepare(waves(), torch.zeros(3), Place(("train", 0, 0), 0))
        task.loss(model.train(), *inputs).backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad * (0.1 if name.startswith("extractor") else 1.0), msg=name)


def test_what_is_dropped_is_what_fairseq_drops(monkeypatch):
    """The features that the quantizer hears too, and nothing between the two matrices of an MLP."""
    model, _, task, _ = made("model.dropout=0.5", "norm=layernorm")
    heard = []
    model.quantizer.register_forward_pre_hook(lambda m, args: heard.append(args[0]))
    for training in (False, True):
        inputs = task.prepare(waves(), torch.zeros(3), Place(("train", 0, 0), 0))
        task.loss(model.train(training), *inputs)
    whole, dropped = heard
    kept = dropped != 0
    assert 0.4 < kept.float().mean() < 0.6
    block, calls = model.blocks[0], []
    monkeypatch.setattr("models.wav2vec2.F.dropout", lambda x, *_: calls.append(x.shape) or x)
    block.mlp(torch.ones(1, 2, 16))
    assert calls == [(1, 2, 16)]


def test_the_quantizer_is_straight_through_and_draws_by_its_scores():
    model = made()[0].double()
    quantizer = model.quantizer
    features = torch.randn(2, 5, model.quantizer.scores.in_features, dtype=torch.float64)
    noise = torch.zeros(2, 5, quantizer.groups, quantizer.codes, dtype=torch.float64)
    drawn, ids, shares = quantizer(features, noise, torch.tensor(0.7))
    best, same, _ = quantizer(features, None, None)
    torch.testing.assert_close(drawn, best)
    assert torch.equal(ids, same) and torch.allclose(shares.sum(-1), torch.ones(()).double())
    by_hand = torch.cat([quantizer.vectors[g, ids[0, 0] // quantizer.codes**g % quantizer.codes] for g in (0, 1)])
    torch.testing.assert_close(best[0, 0], by_hand)
    noise[..., 3] = 1e4
    assert (quantizer(features, noise, torch.tensor(0.7))[1] == 3 * (1 + quantizer.codes)).all()
    # The gradient is that of the soft choice.
    scores = quantizer.scores(features).unflatten(2, (quantizer.groups, quantizer.codes))
    soft = torch.einsum("btgv,gvd->btgd", (scores / 0.7).softmax(-1), quantizer.vectors.detach()).flatten(2)
    (want,) = torch.autograd.grad(soft.square().sum(), quantizer.scores.bias)
    model.zero_grad()
    quantizer.vectors.requires_grad_(False)
    hard, _, _ = quantizer(features, 0 * noise, torch.tensor(0.7))
    (2 * soft.detach() * hard).sum().backward()
    torch.testing.assert_close(quantizer.scores.bias.grad, want)


# -- the task ----------------------------------------------------------------------------------------------------------


def test_spans_are_hidden_within_each_recording():
    chance = torch.rand(200, 1 + 60, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([60, 30, 8, 3]).repeat(50)
    hidden = hide(chance, counts, 0.65, 5)
    for row, count in zip(hidden, counts.tolist(), strict=True):
        assert not row[count:].any() and 2 <= row.sum() < count
        spans = "".join("x" if h else " " for h in row[:count]).split()
        assert all(len(span) >= min(5, (count - 1) // 2) for span in spans)
    # 0.65 60 / 5 = 7.8 spans: eight in four of five recordings, seven in the others, at different places.
    share = hidden[counts == 60].float().mean().item()
    expected = 1 - math.exp(sum(math.log(1 - k / 56) for k in [5] * 7) + 0.8 * math.log(1 - 5 / 56))
    assert share == pytest.approx(expected, abs=0.03)


def test_distractors_are_other_hidden_frames_of_the_recording():
    g = torch.Generator().manual_seed(0)
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    hidden[0, [1, 4, 5, 9]] = True
    hidden[1, [0, 11]] = True
    found = distractors(torch.rand(2, 12, 400, generator=g), hidden)
    for t in (1, 4, 5, 9):
        values, counts = found[0, t].unique(return_counts=True)
        assert values.tolist() == sorted({1, 4, 5, 9} - {t}) and counts.min() > 100
    assert (found[1, 0] == 11).all() and (found[1, 11] == 0).all()


def test_the_contrast_is_the_papers_formula_and_leaves_equal_sounds_out():
    task = made()[2]
    g = torch.Generator().manual_seed(0)
    context, vectors = (torch.randn(1, 6, 8, generator=g, dtype=torch.float64) for _ in range(2))
    hidden = torch.tensor([[True, True, False, True, True, False]])
    others = distractors(torch.rand(1, 6, 7, generator=g), hidden)
    ids = torch.tensor([[1, 2, 3, 1, 5, 6]])  # frames 0 and 3 sound alike
    error, known = task.contrast(context, vectors, ids, hidden, others)
    want, hits = [], []
    for t in (0, 1, 3, 4):
        score = (F.cosine_similarity(context[0, t], vectors[0], dim=-1) / 0.1).tolist()
        wrong = [score[k] for k in others[0, t].tolist() if ids[0, k] != ids[0, t]]
        want.append(-score[t] + math.log(sum(map(math.exp, [score[t], *wrong]))))
        hits.append(score[t] > max(wrong))
    assert error.item() == pytest.approx(sum(want) / 4) and known.item() == pytest.approx(sum(hits) / 4)
    assert task.contrast(context, vectors, ids * 0, hidden, others)[0].item() == 0  # all alike: nothing to tell apart


def test_unused_codes_cost():
    task, hidden = made()[2], torch.ones(1, 4, dtype=torch.bool)
    even, one = torch.full((1, 4, 2, 8), 1 / 8), F.one_hot(torch.zeros(1, 4, 2).long(), 8).float()
    assert task.unused(even, hidden, False).item() == pytest.approx(0, abs=1e-4)
    assert task.unused(one, hidden, False).item() == pytest.approx(1 - 1 / 8, abs=1e-4)


def test_the_temperature_is_a_function_of_the_step():
    task = made("model.wav2vec2.temperature=[2.0,0.5,0.99]")[2]
    assert task.temperature(0) == 2 and task.temperature(10) == pytest.approx(2 * 0.99**10)
    assert task.temperature(10_000) == 0.5
    base = made("model.wav2vec2.temperature=[2.0,0.5,0.999995]")[2]
    assert base.temperature(400_000) == 0.5 < base.temperature(200_000) == pytest.approx(2 * 0.999995**200_000)
    inputs, _ = task.prepare(waves(), torch.zeros(3), Place(("train", 3, 10), 0))
    assert inputs[4].item() == pytest.approx(task.temperature(10))


def test_what_is_drawn_depends_on_seed_step_and_place_alone():
    task, (x, lengths) = made()[2], waves(3)

    def prepared(rows, *place):
        inputs, targets = task.prepare((x[rows], lengths[rows]), torch.zeros(3)[rows], Place(*place))
        return [inputs[2], inputs[3], *targets]

    whole = prepared(slice(0, 3), ("train", 1, 5), 0)
    parts = [prepared(slice(i, i + 1), ("train", 1, 5), i) for i in range(3)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole, zip(*parts, strict=True), strict=True))
    for other in (("train", 2, 5), ("train", 1, 6)):
        assert not any(torch.equal(a, b) for a, b in zip(whole, prepared(slice(0, 3), other, 0), strict=True))
    held, _ = task.prepare((x, lengths), torch.zeros(3), Place(("val",), 0))
    assert len(held) == 3  # no noise in an evaluation


def test_the_loss_is_the_sum_of_its_terms_and_the_evaluation_the_contrast():
    model, _, task, config = made()
    inputs, targets = task.prepare(waves(), torch.zeros(3), Place(("val",), 0))
    got = model.eval()(*inputs)
    contrast, known = task.contrast(*got[:3], *targets)
    want = contrast.mean() + 0.1 * task.unused(got[3], targets[0], False) + 10 * got[4].mean()
    torch.testing.assert_close(task.loss(model, inputs, targets), want)
    torch.testing.assert_close(
        task.measure(model, inputs, targets), torch.stack([contrast.sum(), known.sum(), torch.tensor(3.0)])
    )


# -- recordings --------------------------------------------------------------------------------------------------------


def audio(*words):
    return open_data(load([*TINY_WAV2VEC2, *words])["data"])


def write(file: Path, samples: np.ndarray, rate: int = 8000) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(file, rate, samples)


def sine(rate: int, seconds: float, hz: float = 440) -> np.ndarray:
    return (20_000 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Wav files, a folder for each label, of several kinds that hold the same sound."""
    for label in ("no", "yes"):
        for i in range(6):
            write(tmp_path / "wavs" / label / f"{i}.wav", sine(8000, 0.3 + 0.05 * i))
    write(tmp_path / "wavs/yes/stereo.wav", np.stack([sine(8000, 0.3)] * 2, axis=1))
    write(tmp_path / "wavs/yes/float.wav", sine(8000, 0.3).astype(np.float32) / 32768)
    write(tmp_path / "wavs/yes/wide.wav", sine(8000, 0.3).astype(np.int32) * 65536)
    return tmp_path / "wavs"


def test_a_folder_of_wav_files_is_read_whatever_their_kind(folder):
    data = audio(f"data.path={folder}", "data.source=files", "data.normalize=false", "data.val_fraction=0.2")
    assert data.spec.names == ("no", "yes") and sum(data.spec.sizes.values()) == 15
    rows = {p.name: rows.read(i, data.data) for rows in data.splits.values() for i, p in enumerate(rows.cells)}
    for name in ("stereo.wav", "float.wav", "wide.wav"):
        np.testing.assert_allclose(rows[name], rows["0.wav"], atol=1e-4)
    assert rows["0.wav"].max() == pytest.approx(20_000 / 32768, abs=1e-3)
    (x, lengths), labels = next(iter(data.eval_batches("val")))
    assert x.shape[1] == 2400 and lengths.max() == 2400 and set(labels.tolist()) == {0, 1}
    short = lengths.argmin()
    assert not x[short, lengths[short] :].any() and x[short, lengths[short] - 2].abs() > 0


def test_another_rate_is_resampled_and_said(folder, caplog):
    for i in range(3):
        write(folder / "no" / f"fast{i}.wav", sine(22050, 0.25, 300), rate=22050)
    data = audio(f"data.path={folder}", "data.source=files")
    assert "recordings of 22050 samples a second are resampled to data.sample_rate=8000" in caplog.text
    rows = data.splits["train"]
    at = next(i for i, p in enumerate(rows.cells) if p.name.startswith("fast"))
    got = rows.read(at, data.data)
    want = 20_000 / 32768 * np.sin(2 * np.pi * 300 * np.arange(len(got)) / 8000)
    assert len(got) == rows.counts[at] == -(-int(22050 * 0.25) * 8000 // 22050)
    np.testing.assert_allclose(got[100:-100], want[100:-100], atol=0.01)


def test_a_window_of_a_longer_recording_is_a_function_of_seed_and_epoch(folder):
    write(folder / "no/long.wav", sine(8000, 1.0, 100) + np.arange(8000, dtype=np.int16))
    data = audio(f"data.path={folder}", "data.source=files", "data.normalize=false", "data.val_fraction=0.2")
    at = next(i for i, p in enumerate(data.splits["train"].cells) if p.name == "long.wav")
    whole = data.splits["train"].read(at, data.data)
    from dyt.data.audio import Windows

    found = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        (x, lengths), _ = Windows(data, "train", seed).__getitems__([(epoch, at)])
        places = [b for b in range(len(whole) - 2400 + 1) if np.array_equal(whole[b : b + 2400], x[0].numpy())]
        assert lengths.tolist() == [2400] and len(places) == 1
        found += places
    assert found[0] == found[1] and len(set(found)) == 3
    (x, _), _ = Windows(data, "train", None).__getitems__([(0, at)])
    assert np.array_equal(x[0].numpy(), whole[:2400])  # an evaluation hears its beginning


@pytest.mark.parametrize("new", [9, "nine"])
def test_other_splits_may_have_speakers_of_their_own_but_no_label(new, tmp_path):
    import datasets

    def split(name, labels, speakers):
        cells = [sine(8000, 0.3, 200).tobytes()] * len(labels)
        rows = {"pcm": cells, "label": labels, "speaker": list(map(type(new), speakers))}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / f"{name}.parquet")

    words = [f"data.path={tmp_path}", "data.pcm_rate=8000", "data.source=files"]
    split("train", [0, 1] * 4, [1, 1, 2, 2] * 2)
    split("validation", [0, 1], [1, new])
    found = audio(*words).labels
    assert found["label"]["val"].tolist() == [0, 1]
    assert found["speaker"]["val"][0] == found["speaker"]["train"][0]
    assert found["speaker"]["val"][1] not in found["speaker"]["train"]
    split("validation", [0, 2], [1, new])
    with pytest.raises(ValueError, match="data.label_key=label: val has the class 2, which train has not"):
        audio(*words)


def test_parquet_of_raw_samples_and_of_wav_files(tmp_path):
    import io

    import datasets

    pcm = [sine(8000, 0.3, 200 + 10 * i) for i in range(40)]
    rows = {
        "pcm": [p.tobytes() for p in pcm],
        "label": [i % 2 for i in range(40)],
        "speaker": [i % 4 for i in range(40)],
    }
    (tmp_path / "raw").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "raw/train.parquet")
    words = ["data.source=files", "data.normalize=false"]
    raw = audio(f"data.path={tmp_path / 'raw'}", "data.pcm_rate=8000", *words)
    assert set(raw.labels) == {"label", "speaker"} and raw.spec.sizes == {"train": 36, "val": 4}
    files = []
    for p in pcm:
        wavfile.write(stream := io.BytesIO(), 8000, p)
        files.append({"bytes": stream.getvalue(), "path": None})
    (tmp_path / "wav").mkdir()
    datasets.Dataset.from_dict({"audio": files, "label": rows["label"]}).to_parquet(tmp_path / "wav/train.parquet")
    wav = audio(f"data.path={tmp_path / 'wav'}", *words)
    a, b = (next(iter(data.eval_batches("val"))) for data in (raw, wav))
    assert torch.equal(a[0][0], b[0][0]) and torch.equal(a[1], b[1])
    with pytest.raises(ValueError, match="data.pcm_rate: type how many raw samples a second pcm of data.path="):
        audio(f"data.path={tmp_path / 'raw'}", *words)
    with pytest.raises(ValueError, match="data.label_key=digit: no such column; choose from pcm, label, speaker"):
        audio(f"data.path={tmp_path / 'raw'}", "data.pcm_rate=8000", "data.label_key=digit", *words)


def test_named_labels_of_parquet_go_by_name_between_files(tmp_path):
    """One file numbers yes and no the other way round."""
    import datasets

    for split, names in (("train", ["yes", "no"]), ("validation", ["no", "yes"])):
        rows = {
            "pcm": [sine(8000, 0.3, 200).tobytes()] * 4,
            "word": [names.index(w) for w in ("yes", "no", "yes", "no")],
        }
        made = datasets.Dataset.from_dict(rows).cast_column("word", datasets.ClassLabel(names=names))
        made.to_parquet(tmp_path / f"{split}.parquet")
    found = audio(f"data.path={tmp_path}", "data.pcm_rate=8000", "data.source=files")
    assert found.spec.names == ("no", "yes")
    assert found.labels["label"]["train"].tolist() == found.labels["label"]["val"].tolist() == [1, 0, 1, 0]


def test_splits_by_folder_and_recordings_without_labels(tmp_path):
    for split in ("train", "val"):
        for label in ("a", "b"):
            for i in range(3):
                write(tmp_path / "split" / split / label / f"{i}.wav", sine(8000, 0.3))
    data = audio(f"data.path={tmp_path / 'split'}", "data.source=files")
    assert data.spec.sizes == {"train": 6, "val": 6} and data.spec.names == ("a", "b")
    for i in range(10):
        write(tmp_path / "flat" / f"{i}.wav", sine(8000, 0.3 + 0.01 * i))
    data = audio(f"data.path={tmp_path / 'flat'}", "data.source=files")
    assert data.spec.sizes == {"train": 9, "val": 1} and data.labels == {} and data.spec.classes == 0
    write(tmp_path / "flat/more/x.wav", sine(8000, 0.3))
    with pytest.raises(ValueError, match="0.wav lies in no folder that is its label, and others do"):
        audio(f"data.path={tmp_path / 'flat'}", "data.source=files")


def test_tones_are_always_the_same_and_differ():
    a, b = audio("data.source=tones"), audio("data.source=tones")
    assert a.spec == b.spec and a.spec.sizes == {"train": 600, "val": 120, "test": 120} and a.spec.classes == 10
    rows = a.splits["train"]
    assert all(np.array_equal(rows.read(i, a.data), b.splits["train"].read(i, b.data)) for i in (0, 7, 599))
    assert len({rows.read(i, a.data).tobytes() for i in range(0, 600, 7)}) == len(range(0, 600, 7))
    assert not np.array_equal(rows.read(0, a.data), a.splits["val"].read(0, a.data))


FAKE = """#!/usr/bin/env python3
import sys, wave
if "--version" in sys.argv:
    print("eSpeak NG text-to-speech: 1.51")
else:
    hz = 200 + 40 * len(sys.argv[-1]) + int(sys.argv[sys.argv.index("-p") + 1])
    with wave.open(sys.stdout.buffer, "wb") as out:
        out.setparams((1, 2, 22050, 6000, "NONE", ""))
        saw = ((i * hz // 50) % 20000 - 10000 for i in range(6000))
        out.writeframes(b"".join(x.to_bytes(2, "little", signed=True) for x in saw))
"""


@pytest.mark.slow
def test_espeak_speaks_where_it_is_installed(tmp_path, monkeypatch):
    """A stand-in for the program: how it is called and what is made of its output. Installed, it is asked itself."""
    program = tmp_path / "bin/espeak-ng"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("dyt.data.speech.TAKES", {"train": 1, "val": 1})
    data = audio("data.source=made", f"data.cache_dir={tmp_path}")
    assert data.spec.sizes == {"train": 60, "val": 60} and data.splits["train"].place == "data.source=espeak, train"
    counts = data.splits["train"].counts
    assert (counts == -(-6000 * 8000 // 22050)).all() and data.spec.sha256 != audio("data.source=tones").spec.sha256


def test_without_espeak_tones_stand_in_and_it_is_said(monkeypatch, caplog):
    monkeypatch.setattr("shutil.which", lambda _: None)
    made, tones = audio("data.source=made"), audio("data.source=tones")
    assert "espeak-ng is not installed, so these are tones" in caplog.text and made.spec.sha256 == tones.spec.sha256
    with pytest.raises(FileNotFoundError, match="espeak-ng is not installed; type apt-get install espeak-ng"):
        audio("data.source=espeak")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["data=stdlib"],
            "model=wav2vec2_nano is for recordings and data=stdlib is texts; choose data from librispeech",
        ),
        (["model=vit_nano", "data=speech"], "model=vit_nano is for images and data=speech is recordings"),
        (["model.wav2vec2.mask_prob=0"], "model.wav2vec2.mask_prob=0: must be above 0 and at most 1"),
        (["model.wav2vec2.temperature=[2,1]"], "model.wav2vec2.temperature=.*needs first, last and factor"),
        (["+model.wav2vec2.negative=3"], "model.wav2vec2.negative: unknown key; did you mean 'negatives'"),
        (["model.dim=18"], "model.dim=18 is not a multiple of model.position_groups=4"),
        (["model.conv_strides=[5,2]"], "model.conv_kernels and model.conv_strides: need equally many"),
        (["data=spoken_digits", "data.source=files"], "data=spoken_digits needs data.path=<Parquet, or folder of wav"),
        (["data.min_seconds=0.29"], "data.source=tones, train: recording .*: lasts .* s, and data.min_seconds=0.29"),
        (["data.min_seconds=0.4"], "data.seconds=0.3: must be at least data.min_seconds=0.4"),
    ],
)
def test_wrong_words_get_one_line(words, message):
    base = (
        [w for w in TINY_WAV2VEC2 if "data" not in w and "seconds" not in w] if "data=" in words[0] else TINY_WAV2VEC2
    )
    with pytest.raises((ValueError, OSError), match=message.replace("?", r"\?")):
        train(*([] if words[0].startswith("model=") else base), *SHORT[:3], *words)


def test_broken_and_short_recordings_get_one_line(folder, tmp_path, caplog):
    words = [f"data.path={folder}", "data.source=files"]
    write(folder / "no/short.wav", sine(8000, 0.05))
    with pytest.raises(ValueError, match=r"short.wav: lasts 0.05 s, and data.min_seconds=0.1; data.on_error=skip"):
        audio(*words)
    assert sum(audio(*words, "data.on_error=skip").spec.sizes.values()) == 15
    assert "1 recordings shorter than 0.1 s left out" in caplog.text
    (folder / "no/short.wav").unlink()
    (folder / "yes/no_wav.wav").write_bytes(b"ID3\x03 this is an mp3")
    with pytest.raises(
        ValueError, match=r"no_wav.wav: no wav file that can be read .*; make one: ffmpeg -i no_wav.wav"
    ):
        audio(*words)
    (tmp_path / "flac").mkdir()
    (tmp_path / "flac/a.flac").write_bytes(b"fLaC")
    with pytest.raises(FileNotFoundError, match="no wav file and no Parquet .*; a.flac is none, make one: ffmpeg"):
        audio(f"data.path={tmp_path / 'flac'}", "data.source=files")


def test_recordings_of_one_folder_have_no_labels(tmp_path, monkeypatch):
    """There is nothing to tell apart, and the model asks for no labels."""
    monkeypatch.chdir(tmp_path)
    for i in range(20):
        write(tmp_path / "read" / "anna" / f"{i}.wav", sine(8000, 0.3, 200 + 20 * i))
    data = audio("data.source=made", "data.path=read")
    assert data.labels == {} and data.spec.names == ()
    probing = ["data.source=made", "data.path=read", "data.batch_size=4", *SHORT[:-1]]
    summary, _ = train(*TINY_WAV2VEC2, *probing)
    assert summary["status"] == "finished" and not any("label" in name for name in summary["final"])


def test_samples_that_are_no_numbers_get_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(20):
        broken = np.where(np.arange(2400) == 7, np.nan, sine(8000, 0.3)).astype(np.float32)
        write(tmp_path / "broken" / f"{i}.wav", broken)
    with pytest.raises(ValueError, match=r"\.wav: holds samples that are not finite"):
        next(iter(audio("data.source=made", "data.path=broken").eval_batches("val")))


def test_a_recording_shorter_than_the_model_needs(folder):
    write(folder / "no/short.wav", sine(8000, 0.02))
    words = [*TINY_WAV2VEC2, *SHORT, f"data.path={folder}", "data.source=files", "data.min_seconds=0.01"]
    with pytest.raises(ValueError, match=r"the shortest recording has 160 samples, and this model's 3 frames take \d+; "
                                         r"type data.min_seconds=0.0\d+, with data.on_error=skip"):  # fmt: skip
        train(*words)


# -- hearing -----------------------------------------------------------------------------------------------------------


def test_a_tone_is_in_its_mel_band():
    bands = mel_bands(8000, 200)
    assert bands.shape == (40, 101) and (bands.sum(dim=1) > 0).all()
    mel = lambda hz: 2595 * math.log10(1 + hz / 700)  # noqa: E731
    for hz in (300, 1000, 2500):
        x = torch.sin(2 * math.pi * hz * torch.arange(4000) / 8000)[None]
        found = log_mel(x, 8000)[0, :, 20].argmax().item()
        assert abs(found + 1 - (mel(hz) - mel(60)) / (mel(4000) - mel(60)) * 41) <= 1


class Known:
    """A data set of which the answers are known: layer 0 is noise, layer 1 has the label, and speakers shift it."""

    spec = Spec("audio", "", {}, rate=8000)

    def __init__(self, shift: float):
        g = np.random.default_rng(0)
        self.labels = {"label": {s: g.integers(0, 3, 90) for s in ("train", "val")}}
        self.labels["speaker"] = {s: g.integers(0, 3, 90) for s in ("train", "val")}
        self.shift = shift

    def evenly(self, split, most):
        y, speaker = (torch.from_numpy(self.labels[k][split]).float() for k in ("label", "speaker"))
        x = torch.zeros(90, 800)
        x[:, 0], x[:, 1] = y, y + self.shift * speaker
        chosen = np.arange(0, 90, 90 // most)
        return chosen, [((part, torch.full((len(part),), 800)), None) for part in x[chosen].split(40)]


def test_probes_choose_the_layer_and_tell_new_speakers_apart():
    def model(waves, lengths):
        noise = torch.randn(len(waves), 5, 2, generator=torch.Generator().manual_seed(len(waves)))
        return [noise, F.one_hot(waves[:, 1].long(), 12)[:, None].float().expand(-1, 5, -1)]

    near, far = (
        probed(model, Known(shift), "val", lambda n: torch.full_like(n, 5), most, torch.device("cpu"))
        for shift, most in ((0, 90), (4, 45))
    )
    assert near["top1_label"] == 1 == near["top1_label_new"] == far["top1_label"] == far["top1_speaker"]
    assert far["top1_label_new"] < 0.7 and near["top1_speaker"] < 0.6
    assert far["top1_label_all"] == 1 and far["top1_speaker_all"] == 1
    assert {"top1_label_mel", "top1_label_new_mel", "top1_speaker_mel"} <= near.keys()


@pytest.mark.parametrize("known, tested, has", [(0, 0, False), (0, 1, True), ((0, 1), 0, True)])
def test_a_single_known_speaker_is_no_others(known, tested, has):
    """`_new_speakers` leaves a metric out where every known recording is of the speaker that is asked for."""
    data = Known(0.0)
    data.labels["speaker"] = {"train": np.resize(known, 90), "val": np.resize(tested, 90)}
    model = lambda waves, lengths: [waves[:, None, :2].expand(-1, 5, -1)]  # noqa: E731
    found = probed(model, data, "val", lambda n: torch.full_like(n, 5), 90, torch.device("cpu"))
    assert {"top1_label_new", "top1_label_new_all", "top1_label_new_mel"} <= found.keys() or not has
    assert has or not [name for name in found if "_new" in name]
    assert found["top1_label"] == 1 and all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("rows, best", [(1, 1), (3, 0)])
def test_the_best_layer_of_a_few_rows(rows, best):
    y = np.array([0, 1, 1])[:rows]
    assert best_layer([y[:, None].astype(float), np.array([[1.0], [0.0], [0.4]])[:rows]], y) == best


def test_the_best_layer_is_chosen_by_rows_that_no_probe_learned():
    g = np.random.default_rng(0)
    y = g.integers(0, 2, 200)
    memory = np.where(np.arange(200) % 5 == 4, 0, y)[:, None] + 0.01 * g.standard_normal((200, 1))  # of four fifths
    good = y[:, None] + 0.5 * g.standard_normal((200, 1))
    assert best_layer([memory, good], y) == 1


def test_the_picture_shows_spectra_and_codes():
    ids = torch.full((2, 30), -1)
    ids[0, :20], ids[1, :10] = 5, 7
    x = torch.zeros(2, 2400)
    x[0] = torch.sin(2 * math.pi * 3000 * torch.arange(2400) / 8000)
    picture = picture_of(x, ids)
    pixels = np.asarray(picture)
    assert picture.size[1] == 2 * (65 + 10) + 3 and picture.size[0] == 3 * (2400 // 32 + 1)
    assert pixels[: 65 // 2, 60].mean() > pixels[65 // 2 : 65, 60].mean() + 20  # a high note is above
    assert len({tuple(pixels[70, x]) for x in (10, 100)}) == 1 and pixels[70, -5].tolist() == [255, 255, 255]
    assert not np.array_equal(pixels[70, 10], pixels[70 + 78, 10])


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_leaves_probes_and_a_picture_and_eval_gives_them(tmp_path):
    summary, folder = train(*TINY_WAV2VEC2, "norm=dyt", *SHORT[:3], "model.wav2vec2.probe=100")
    assert summary["status"] == "finished" and Image.open(folder / "samples.png").size[0] > 200
    names = {
        "loss",
        "top1",
        "codes",
        *(f"top1_{n}{e}" for n in ("label", "label_new", "speaker") for e in ("", "_mel")),
    }
    assert {f"val/{name}" for name in names} <= summary["final"].keys()
    found = (evaluate_run(parse([f"run={folder}", "ckpt=last", f"split={split}"])) for split in ("test", "val"))
    (got, picture), (again, _) = found
    assert {f"test/{name}" for name in names} <= got.keys() and picture.size[0] > 200
    for name in ("codes", "top1_label", "top1_label_new", "top1_speaker_mel"):
        assert again[f"val/{name}"] == pytest.approx(summary["final"][f"val/{name}"], rel=1e-5)


def test_the_demo_refuses_nothing_and_one_line_for_a_missing_folder(tmp_path):
    done = python("train.py", "model=wav2vec2_nano", "data=spoken_digits", "data.path=nowhere", cwd=tmp_path)
    assert one_line(done) == "train.py: data.path=nowhere: no such file or folder"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_third_of_the_demo_learns_which_sound_was_hidden():
    words = ["experiment=demo_speech", "norm=layernorm", "data.source=tones", "logger.mode=disabled"]
    learned, fresh = (
        train(*words, *more)[0]["final"] for more in (["trainer.max_steps=200"], ["trainer.max_steps=1", "optim.lr=0"])
    )
    assert learned["val/loss"] < fresh["val/loss"] - 0.5
    assert learned["val/top1"] > fresh["val/top1"] + 0.1


def test_steps_of_two_epochs_meet_each_recording_twice():
    data = audio("data.batch_size=60")
    order = Order(data.samples, 60, 0)
    seen = [labels for _, labels in data.train_batches(order, 0, 20)]
    assert torch.cat(seen).bincount().tolist() == [120] * 10
