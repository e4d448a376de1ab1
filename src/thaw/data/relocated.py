"""The paths of a run's data, as seen from another folder than the one that it was started in."""

from dataclasses import replace
from pathlib import Path

from thaw.config import DatasetConfig
from thaw.data.places import locate
from thaw.data.sources import data_folder


def find_again(options: DatasetConfig, base: Path, image: str = ".") -> DatasetConfig:
    """The options with paths as seen from the folder that they were given in, or, where that leads nowhere, from here.

    Args:
        options: Those of some data.
        base: The folder that their paths were seen from when they were given.
        image: One of the data, which tells it from other data in a folder of that name.
    """
    if base.absolute() == Path.cwd():
        return options
    folder = data_folder(options.name, base / options.root)
    there = replace(options, root=str(base / options.root), csv=_find_file(options.csv, (folder, base)))
    there = _find_lists(there, (_folder(there), base))
    places = [place for name in (image, ".") for place in (there, options) if _holds(place, name)]
    found = places[0] if places else options
    return _find_lists(found, (_folder(found), Path(), base))


def _holds(options: DatasetConfig, name: str) -> bool:
    """Whether the data lies where the options say, as seen from here, with a file of that name; false of an address."""
    folder, csv = _folder(options), locate(options).csv if options.name == "folder" else None
    return (folder / name).exists() and (csv is None or (folder / csv).is_file())


def _folder(options: DatasetConfig) -> Path:
    """The data set's folder, or that of its CSV file, as seen from here."""
    return data_folder(options.name, Path(locate(options).root))


def _find_lists(options: DatasetConfig, folders: tuple[Path, ...]) -> DatasetConfig:
    """The options with the files of `dataset.exclude` and `dataset.relabel` found in one of some folders."""
    exclude, relabel = (_find_file(name, folders) for name in (options.exclude, options.relabel))
    return replace(options, exclude=exclude, relabel=relabel)


def _find_file(name: str | None, folders: tuple[Path, ...]) -> str | None:
    """A file's name: in full if it lies in the last of some folders and in none of the others, else as it is."""
    if name is None:
        return None
    *others, last = (folder / name for folder in folders)
    return str(last) if last.is_file() and not any(map(Path.is_file, others)) else name
