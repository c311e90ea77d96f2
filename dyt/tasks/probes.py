"""What features are worth: the labels of held-out pictures, by their neighbours and by a linear classifier.

The pictures' own pixels go through the same, as the measure that features must beat; they are looked at once for a data
set, and kept in the data cache.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from dyt.data.cache import kept
from dyt.data.images import Pictures
from dyt.data.order import evenly
from dyt.data.sources import cache_dir
from dyt.tasks.pictures import seen_as

MOST = 20_000  # pictures of a split that are looked at, evenly chosen
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # of the linear classifier's weights
STEPS = 40  # of its solver for each


def chosen(data, split: str, most: int = MOST) -> list[int]:
    """Which of a split's rows are looked at: all of them, or so many that are evenly chosen."""
    return evenly(data.spec.sizes[split], most)


def pictures(data, split: str, rows: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images and labels of these rows of a split, as an evaluation sees them."""
    found, size = Pictures(data, split, None), data.data["eval_batch_size"]
    for at in range(0, len(rows), size):
        batch = found.__getitems__([(0, i) for i in rows[at : at + size]])
        if len(batch[1]):  # of which some could be read
            yield batch


def gathered(data, split: str, see: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What `see` makes of a split's images, (N, D) in float32, and their labels (N,)."""
    found = [(see(images).float(), labels) for images, labels in pictures(data, split, chosen(data, split))]
    return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found]).to(found[0][0].device)


def worth(known: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], classes: int) -> dict[str, float]:
    """``top1_knn`` and ``top1_linear`` of held-out features with their labels, by known ones with theirs."""
    with torch.autocast(known[0].device.type, enabled=False):
        return {"top1_knn": knn(*known, *held_out, classes), "top1_linear": linear(*known, *held_out, classes)}


def beside_pixels(data, split: str, see: Callable[[Tensor], Tensor]) -> tuple[dict[str, float], Tensor]:
    """`worth` of a split's features, which `see` makes of images, and of its pixels; and the features of training."""
    known = gathered(data, "train", see)
    return worth(known, gathered(data, split, see), data.classes) | worth_of_pixels(data, split), known[0]


def worth_of_pixels(data, split: str) -> dict[str, float]:
    """``top1_knn_pixels`` and ``top1_linear_pixels``: `worth` of a split's normalised pixels."""
    parts = (*seen_as(data), split, MOST, PENALTIES, STEPS, "v2")

    def measured(place) -> dict[str, float]:
        known, held_out = (gathered(data, part, lambda images: images.flatten(1)) for part in ("train", split))
        return worth(known, held_out, data.classes)

    _, meta = kept(cache_dir(data.data) / "pixels", parts, measured)
    return {f"{name}_pixels": meta[name] for name in ("top1_knn", "top1_linear")}


def nearest(known: Tensor, of: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(cosines, places) ``(M, k)`` of the k rows of `known` (N, D) that are nearest to each row of `of` (M, D)."""
    known = F.normalize(known, dim=-1)
    found = [(F.normalize(part, dim=-1) @ known.T).topk(min(k, len(known)), dim=-1) for part in of.split(1000)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def knn(
    known: Tensor, labels: Tensor, of: Tensor, truth: Tensor, classes: int, k: int = 20, temperature: float = 0.07
) -> float:
    """Share of rows whose label the k nearest say, each weighing ``exp(cosine / temperature)`` (arXiv 1805.01978)."""
    cosines, places = nearest(known, of, k)
    votes = torch.zeros(len(of), classes, device=of.device)
    votes.scatter_add_(1, labels[places], (cosines / temperature).exp())
    return (votes.argmax(dim=-1) == truth).double().mean().item()


def linear(known: Tensor, labels: Tensor, of: Tensor, truth: Tensor, classes: int) -> float:
    """Share of rows that logistic regression names rightly; its penalty is chosen on a tenth of the known rows."""
    mean, std = known.mean(dim=0), known.std(dim=0).clamp_min(1e-6)
    known, of = (known - mean) / std, (of - mean) / std
    aside = torch.arange(len(known), device=known.device) % 10 == 9

    def right(weight: Tensor, bias: Tensor, of: Tensor, truth: Tensor) -> float:
        return ((of @ weight.T + bias).argmax(dim=-1) == truth).double().mean().item()

    at, found = None, {}  # from the strongest penalty on, each from where the last one ended
    for penalty in PENALTIES:
        at = _regression(known[~aside], labels[~aside], classes, penalty, at)
        found[penalty] = right(*at, known[aside], labels[aside])
    return right(*_regression(known, labels, classes, max(found, key=found.get), at), of, truth)


@torch.enable_grad()
def _regression(x: Tensor, y: Tensor, classes: int, penalty: float, at=None) -> tuple[Tensor, Tensor]:
    """Weight (classes, D) and bias of the least cross-entropy plus ``penalty / 2 |weight|^2``, by L-BFGS from `at`."""
    weight, bias = at or (torch.zeros(classes, x.shape[1], device=x.device), torch.zeros(classes, device=x.device))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weight.detach(), bias.detach()
