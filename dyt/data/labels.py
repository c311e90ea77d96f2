"""Labels of every storage as class numbers with names: ClassLabel, text, booleans, whole numbers.

Classes go by name: between the splits of a set, and between a set and the run whose weights know some classes already.
"""

import logging
import re

import numpy as np

log = logging.getLogger(__name__)
USUAL = {
    "image_key": ("image", "img", "pixels", "pixel_values"),
    "label_key": ("label", "labels", "fine_label", "class"),
}


def columns(rows, data: dict) -> tuple[str, str]:
    """The image and label columns: named in the config, or found by usual name and type.

    Raises:
        ValueError: no such column, or several that it could be.
    """
    import datasets

    found = []
    for key, kind in (("image_key", datasets.Image), ("label_key", datasets.ClassLabel)):
        name = data[key]
        if name is None:
            typed = [n for n, feature in rows.features.items() if isinstance(feature, kind)]
            usual = [n for n in USUAL[key] if n in typed] + [n for n in USUAL[key] if n in rows.column_names]
            if not usual and len(typed) > 1:
                raise ValueError(f"data.{key}: choose from {', '.join(typed)}")
            name = (usual + typed + [None])[0]
        if name not in rows.column_names:
            raise ValueError(f"data.{key}={name}: no such column; choose from {', '.join(rows.column_names)}")
        found.append(name)
    return found[0], found[1]


def numbered(splits: dict, key: str, data: dict, known: list[str] | None, new: bool = False) -> tuple[dict, list[str]]:
    """``{split: class number of each row, -1 where it has no label}`` (int64), and the classes' names.

    Args:
        known: the names that a trained model's outputs have, in its order.
        new: whether other splits may have some that the training split has not, as with speakers.

    Raises:
        ValueError: no labels, too many or too few classes, or one that the model or the training split has not.
    """
    found = {split: _named(rows, key, split) for split, rows in splits.items()}
    values, fixed = found["train"][0], found["train"][2]
    used = {split: {names[i] for i in np.unique(codes[codes >= 0])} for split, (names, codes, _) in found.items()}
    if fixed:
        classes = list(values)
    else:
        classes = sorted(set().union(*used.values()), key=_order)
        count = int((found["train"][1] >= 0).sum())
        if count >= 20 and 2 * len(used["train"]) > count:
            raise ValueError(f"data.label_key={key}: {len(used['train'])} different labels in {count} rows are no "
                             "classes; choose another column")  # fmt: skip
    if not any(used.values()):
        raise ValueError(f"data.label_key={key}: no row has a label")
    for split, names in used.items():
        if (unknown := sorted(names - (set(classes) if fixed else used["train"]), key=_order)) and not new:
            raise ValueError(f"data.label_key={key}: {split} has the class {unknown[0]}, which train has not "
                             f"({_some(classes if fixed else sorted(used['train'], key=_order))})")  # fmt: skip
    if known is not None:
        if unknown := sorted(set().union(*used.values()) - set(known)):
            raise ValueError(f"class {unknown[0]} is unknown to the weights, whose classes are {_some(known)}; rename "
                             "it, or use data of their classes")  # fmt: skip
        classes = list(known)
    if len(classes) < 2:
        without = int((found["train"][1] < 0).sum())
        why = f"{without} rows have none (null or -1); number classes from 0" if without else (
            "each class of pictures is a folder or a label of its own")  # fmt: skip
        raise ValueError(f"data.label_key={key}: one class only ({classes[0]}): nothing to tell apart; {why}")
    place = {name: i for i, name in enumerate(classes)}
    numbers_of = {}
    for split, (names, codes, _) in found.items():
        table = np.array([place.get(name, -1) for name in names] + [-1], dtype=np.int64)
        numbers_of[split] = table[codes]
    return numbers_of, classes


def labelled(splits: dict, labels: dict, key: str, data: dict) -> tuple[dict, dict]:
    """Splits and labels without rows that have no label; a test split of such rows alone is left out.

    Raises:
        ValueError: a row has none, and ``data.on_error`` is not skip.
    """
    splits, labels = dict(splits), dict(labels)
    for split in list(splits):
        missing = np.flatnonzero(labels[split] < 0)
        if split == "test" and len(missing) == len(labels[split]):  # ImageNet's: its labels are secret
            del splits[split], labels[split]
        elif len(missing):
            if data["on_error"] != "skip":
                raise ValueError(f"data.label_key={key}: row {missing[0]} of {split} has no label; data.on_error=skip "
                                 "leaves such rows out and counts them")  # fmt: skip
            log.warning("%s: %d rows without a label left out", split, len(missing))
            keep = np.flatnonzero(labels[split] >= 0)
            splits[split], labels[split] = splits[split].select(keep), labels[split][keep]
    return splits, labels


def _named(rows, key: str, split: str) -> tuple[list[str], np.ndarray, bool]:
    """(names, each row's place among them or -1, whether the column itself says which classes there are)."""
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    feature = rows.features[key]
    table = rows.with_format("arrow")[:] if rows._indices is not None else rows.data
    try:
        encoded = pc.dictionary_encode(table.column(key))
    except pa.ArrowNotImplementedError as error:
        kind = table.column(key).type
        raise ValueError(f"data.label_key={key}: holds {kind}, not one class a row; name another column") from error
    encoded = encoded.unify_dictionaries().combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    values = encoded.dictionary.to_pylist()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    if isinstance(feature, datasets.ClassLabel):
        names = list(feature.names)
        outside = [v for v in values if v >= len(names)]
        if outside:
            raise ValueError(
                f"data.label_key={key}: {split} holds the label {outside[0]}, and names {len(names)} classes"
            )
        return names, np.array([v if v >= 0 else -1 for v in values] + [-1], dtype=np.int64)[codes], True
    named = [_name(v, key, split) for v in values]
    names = sorted({n for n in named if n is not None}, key=_order)
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place.get(n, -1) for n in named] + [-1], dtype=np.int64)[codes], False


def _name(value, key: str, split: str) -> str | None:
    """A label's name; None where there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        if value < -1:
            raise ValueError(
                f"data.label_key={key}: {split} holds the negative label {value}; a row without a class is null"
            )
        return None if value == -1 else str(value)
    if isinstance(value, str):
        return value or None
    if isinstance(value, float):
        raise ValueError(f"data.label_key={key}: {split} holds {value:g}, which is no class")
    if value is None:
        return None
    raise ValueError(f"data.label_key={key}: holds {type(value).__name__}, not classes")


def _order(name: str):
    """Numbers by value, before texts; no two names are alike in it, so that the order is the same in every process."""
    return (0, int(name), name) if re.fullmatch(r"-?[0-9]{1,99}", name) else (1, 0, name)


def _some(names) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
