"""Options as on the command line -> the checked options of a training. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from thaw.backbone_names import BACKBONE_NAMES
from thaw.config import Config, has_probe
from thaw.errors import ThawError
from thaw.launch.explain import explain, refuse_unknown
from thaw.launch.resume import as_begun, expand_resume, find_resume
from thaw.overrides import folder_of, readable
from thaw.run import Run

CONF = Path(__file__).parents[1] / "conf"
"""The presets: in a checkout a link to those at its top."""
MOST_HEAD_EPOCHS, MOST_THAWING_EPOCHS = 10, 3
UNSAID_ROOT = "${oc.env:THAW_DATA,data}"
"""`dataset.root` as `conf/config.yaml` has it: where the data sets lie that have names."""


def register() -> None:
    """Make the schema and every backbone name known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name in BACKBONE_NAMES:
        store.store(group="backbone", name=name, node={"name": name})


def compose(*options: str, conf: Path | str = CONF) -> Config:
    """The options of `thaw train OPTIONS`, from Python: `compose("strategy=gradual", "optimizer.lr=1e-3")`.

    `resume=RUN` brings the options of RUN along, as it does in a shell.

    Args:
        options: As they are typed, without the shell's quotes.
        conf: Folder of the presets; those installed with this package by default.

    Raises:
        ThawError: One of them is a mistake, or the presets are not there.
    """
    if not all(isinstance(option, str) for option in options):  # a list of them, as Hydra's own `compose` takes
        raise ThawError(f"compose takes options one by one, as compose('strategy=gradual', 'seed=1'): got {options}.")
    if not (Path(conf) / "config.yaml").is_file():
        raise ThawError(f"There are no presets in {conf}: give compose conf=FOLDER, Thaw's conf/.")
    register()
    try:
        with _without_hydra(), hydra.initialize_config_dir(str(Path(conf).absolute()), version_base="1.3"):
            arguments = expand_resume(readable(list(options)), in_python=True)
            values = hydra.compose("config", arguments)
            if resume := find_resume(arguments):
                values = as_begun(values, Run(folder_of(resume)), arguments)
            return accept(values)
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        raise ThawError(text) from error


@contextmanager
def _without_hydra() -> Iterator[None]:
    """Inside, Hydra may be initialized, as it is already where a program of the user's is one of Hydra's."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def head_epochs(max_epochs: int) -> int:
    """Epochs of the head alone, in the presets whose backbone learns later: 10, or two thirds if there are fewer.

    Of four, ants and bees, SqueezeNet, discriminative, five seeds: 0.9255 ± 0.0136 after three of them in 8 s,
    0.9229 ± 0.0029 after one in 18 s.
    """
    return max(1, min(MOST_HEAD_EPOCHS, round(2 / 3 * max_epochs)))


def unfreeze_epochs(max_epochs: int, head_epochs: int) -> int:
    """Epochs in which the backbone thaws, in the preset that thaws it stage by stage: 3, or three fifths of fewer."""
    return max(1, min(MOST_THAWING_EPOCHS, round(3 / 5 * (max_epochs - head_epochs))))


def joint_rate(from_probe: float, at_random: float, *, _root_: Any) -> float:
    """Rate of a preset whose backbone learns from the first step on: lower where the head knows something already.

    That is, where it begins as the probe, or as an earlier run's (`head.init=weights`).

    Last epoch, five seeds. Ants and bees, SqueezeNet, finetune: 0.8993 ± 0.0119 at random and 1e-3, 0.9176 ± 0.0150
    from the probe, there at 3e-4 0.9333 ± 0.0107; digits, ResNet-18: 0.8982 ± 0.0110, 0.9397 ± 0.0047, 0.9375 ± 0.0027.

    Args:
        from_probe: The lower rate.
        at_random: That of a random head.
        _root_: All options, from OmegaConf.
    """
    is_random = _root_.head.init in ("default", "xavier", "zeros") or not has_probe(_root_)
    return at_random if is_random else from_probe


def adamw_rate(of_all: float, of_head: float, *, _root_: Any) -> float:
    """Rate of the AdamW preset: lower where a pretrained backbone learns as fast as the head, and forgets at more.

    Ants and bees, SqueezeNet, finetune, three seeds: 0.6819 ± 0.0100 at 1e-3, 0.8802 ± 0.0136 at 1e-4.

    Args:
        of_all: The lower rate.
        of_head: That of a head which learns faster, or of a network from scratch.
        _root_: All options, from OmegaConf.
    """
    return of_all if _root_.strategy.backbone_factor > 0.5 and not _root_.strategy.from_scratch else of_head


for resolver in (head_epochs, unfreeze_epochs, joint_rate, adamw_rate):  # for conf/, and in a launcher's processes
    OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def accept(values: DictConfig) -> Config:
    """The options as what they are checked to be.

    Raises:
        ThawError: One is a mistake, or nothing says where images of one's own lie.
    """
    refuse_unknown(values)
    config = cast(Config, OmegaConf.to_object(values))
    unresolved = cast(dict[str, Any], OmegaConf.to_container(values.dataset, resolve=False))
    is_unsaid = unresolved["root"] == UNSAID_ROOT and config.dataset.csv is None
    if is_unsaid and config.dataset.name in ("folder", "stream"):
        raise ThawError(f"dataset={config.dataset.name} does not tell where the images lie: add dataset.root=FOLDER.")
    return config
