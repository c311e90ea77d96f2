"""How near made images are to true ones, by features of a small classifier that is trained here on the same data.

The papers take Inception's features, whose weights are not at hand; so no number here compares with an FID. The
classifier is trained once for a data set, from one seed, and kept in the data cache.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.cache import kept
from dyt.data.images import Pictures
from dyt.data.order import seed_all
from dyt.data.sources import cache_dir
from dyt.tasks.pictures import pixel_range, seen_as

WIDTH = 64  # features of an image
STEPS, BATCH, RATE = 600, 128, 3e-3
MOST = 1 << 28  # bytes of images that are looked at
NEIGHBOURS = 3  # whose distance says what is near; so many images and one more are needed


def classifier(channels: int, classes: int) -> nn.Sequential:
    """Three strided convolutions, their mean over places (the features), and a linear layer; BatchNorm as usual."""
    layers: list[nn.Module] = []
    for inside, outside in ((channels, 32), (32, 64), (64, WIDTH)):
        layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(WIDTH, classes))


class Features:
    """Features ``(N, 64)`` of images ``(N, C, H, W)`` from -1 to 1. `top1`: of held-out images it names rightly."""

    def __init__(self, net: nn.Sequential, top1: float):
        self.net, self.top1 = net.eval(), top1

    @classmethod
    def of(cls, data, device: torch.device) -> "Features":
        """Those of an image set: read from the cache, or trained."""
        parts = (*seen_as(data), STEPS, BATCH, RATE, "v3")
        folder, meta = kept(cache_dir(data.data) / "features", parts, lambda place: _train(data, place))
        net = classifier(data.spec.channels, data.classes)
        net.load_state_dict(torch.load(folder / "classifier.pt", weights_only=True))
        return cls(net.to(device), meta["top1"])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        with torch.autocast(device.type, enabled=False):
            return torch.cat([self.net[0](part.to(device).float()) for part in images.split(500)])

    @staticmethod
    def images(data, split: str) -> Tensor:
        """A split's images from -1 to 1."""
        return _read(data, split)[0]


def _read(data, split: str) -> tuple[Tensor, Tensor]:
    """Images from -1 to 1 and labels of a split as an evaluation sees them, evenly chosen from a large one."""
    size, count = 4 * data.spec.channels * data.data["img_size"] ** 2, data.spec.sizes[split]
    chosen = torch.linspace(0, count - 1, min(count, max(1, MOST // size)), dtype=torch.float64).round().long().tolist()
    images, labels = Pictures(data, split, None).__getitems__([(0, i) for i in chosen])
    return pixel_range(data.data)[0](images), labels


def _train(data, folder: Path) -> dict:
    """Writes ``classifier.pt`` and returns what it is worth. Trained on the CPU, in float32."""
    images, labels = _read(data, "train")
    seed_all("features")
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        net = classifier(data.spec.channels, data.classes)
        optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
        for _ in range(STEPS):
            chosen = torch.randint(len(labels), (BATCH,))
            F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
            optimizer.step(), schedule.step()
            optimizer.zero_grad(set_to_none=True)
    torch.save(net.state_dict(), folder / "classifier.pt")
    images, labels = _read(data, "val")
    with torch.no_grad():
        right = torch.cat([net.eval()(part).argmax(dim=-1) for part in images.split(500)]) == labels
    return {"top1": right.double().mean().item()}


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of the Gaussians with mean and covariance of ``(N, C)`` and ``(M, C)`` features."""
    a, b = a.double().cpu(), b.double().cpu()
    ours, theirs = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(ours)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ theirs @ root).clamp_min(0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + ours.trace() + theirs.trace() - 2 * cross).item()


def precision_recall(true: Tensor, made: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of made features near true ones, and of true near made: within a k-th neighbour (arXiv 1904.06991)."""
    true, made = true.double().cpu(), made.double().cpu()

    def within(points: Tensor, base: Tensor) -> float:
        reach = torch.cdist(base, base).kthvalue(k + 1, dim=1).values  # the nearest is the point itself
        return (torch.cdist(points, base) <= reach).any(dim=1).double().mean().item()

    return within(made, true), within(true, made)
