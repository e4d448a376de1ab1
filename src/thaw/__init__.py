"""Transfer learning for image classification: any torchvision backbone, by Lightning and Hydra.

The names below are the public Python API. Each is imported when it is first used, so `import thaw` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thaw.config import AugmentConfig as AugmentConfig
    from thaw.config import BackboneConfig as BackboneConfig
    from thaw.config import Config as Config
    from thaw.config import DatasetConfig as DatasetConfig
    from thaw.config import HeadConfig as HeadConfig
    from thaw.config import LoggerConfig as LoggerConfig
    from thaw.config import OptimizerConfig as OptimizerConfig
    from thaw.config import ScheduleConfig as ScheduleConfig
    from thaw.config import StrategyConfig as StrategyConfig
    from thaw.config import TrainerConfig as TrainerConfig
    from thaw.data.datamodule import ImageDataModule as ImageDataModule
    from thaw.data.transforms import EvaluationTransform as EvaluationTransform
    from thaw.errors import ThawError as ThawError
    from thaw.launch.composing import compose as compose
    from thaw.model.classifier import Classifier as Classifier
    from thaw.model.loading import load_weights as load_weights
    from thaw.model.weights import find_weights as find_weights
    from thaw.predict import Predictor as Predictor
    from thaw.run import Run as Run
    from thaw.training.learning_rate import find_lr as find_lr
    from thaw.training.train import train as train

_MODULES = {
    "thaw.launch.composing": ("compose",),
    "thaw.config": (
        "AugmentConfig",
        "BackboneConfig",
        "Config",
        "DatasetConfig",
        "HeadConfig",
        "LoggerConfig",
        "OptimizerConfig",
        "ScheduleConfig",
        "StrategyConfig",
        "TrainerConfig",
    ),
    "thaw.data.datamodule": ("ImageDataModule",),
    "thaw.data.transforms": ("EvaluationTransform",),
    "thaw.errors": ("ThawError",),
    "thaw.training.learning_rate": ("find_lr",),
    "thaw.model.classifier": ("Classifier",),
    "thaw.model.loading": ("load_weights",),
    "thaw.model.weights": ("find_weights",),
    "thaw.predict": ("Predictor",),
    "thaw.run": ("Run",),
    "thaw.training.train": ("train",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'thaw' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
