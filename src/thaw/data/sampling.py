"""Which image, or which view of it, a training step sees: a function of (seed, epoch, index)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from thaw.data.images import read_image
from thaw.data.splits import Sample
from thaw.data.transforms import ImageTransform
from thaw.seeding import derive_seed, seeded

Batch = tuple[Tensor, Tensor]
"""Images (B, 3, S, S) or features (B, F), and labels (B,)."""
Position = tuple[int, int]
"""The epoch, and the index of an image."""

FILLER = -1
"""Index of an image that is no part of the epoch: a process that has run out of images makes a last step with it."""
NO_LABEL = -1
"""Its label, by which the data module leaves it out again."""


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images after a transform, and their labels; a sample depends on nothing but (seed, epoch, index).

    Args:
        samples: Path and label of each image.
        transform: uint8 image (3, H, W) -> uint8 image (3, S, S); may draw from torch's default generator.
        seed: Seed of the run.
        read: Image file -> uint8 image (3, H, W).
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: ImageTransform,
        seed: int,
        read: Callable[[Path], Tensor] = read_image,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self.read = read

    def __len__(self) -> int:
        return len(self.samples)

    def through(self, transform: ImageTransform) -> "ImageDataset":
        """The same images after another transform."""
        return ImageDataset(self.samples, transform, self.seed, self.read)

    @property
    def labels(self) -> Tensor:
        """Labels (N,) of all images."""
        return torch.tensor([sample.label for sample in self.samples])

    def __getitem__(self, position: Position) -> tuple[Tensor, int]:
        epoch, index = position
        sample = self.samples[index]
        image = self.read(sample.path)
        with seeded(self.seed, epoch, index % len(self)):
            return self.transform(image), NO_LABEL if index == FILLER else sample.label


class EpochSampler(Sampler[Position]):
    """(epoch, index) of every image in an order that is a function of (seed, epoch).

    Lightning calls `set_epoch`.

    Args:
        num_images: Images in the data.
        seed: Seed of the run.
        rank: Of several processes, each takes every n-th image, none twice; this one begins with that of its rank.
        num_processes: n.
        weights: How often each image (N,) is drawn, with replacement; None takes each once.
        num_drawn: Images in an epoch; None takes as many as there are.
    """

    def __init__(
        self,
        num_images: int,
        seed: int,
        rank: int = 0,
        num_processes: int = 1,
        weights: Tensor | None = None,
        num_drawn: int | None = None,
    ) -> None:
        self.num_images = num_images
        self.num_drawn = num_images if num_drawn is None else num_drawn
        self.seed = seed
        self.rank = rank
        self.num_processes = num_processes
        self.weights = weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_drawn // self.num_processes)

    def __iter__(self) -> Iterator[Position]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.num_images, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.num_images, replacement=True, generator=generator)
        own = order[: self.num_drawn][self.rank :: self.num_processes].tolist()
        return ((self.epoch, index) for index in _fill(own, len(self)))


class SequentialPositions(Sampler[Position]):
    """(epoch, index) of every image in order; of several processes, each takes every n-th image, none twice."""

    def __init__(self, num_images: int, rank: int = 0, num_processes: int = 1, epoch: int = 0) -> None:
        self.num_processes = num_processes
        self.indices = _fill(range(rank, num_images, num_processes), -(-num_images // num_processes))
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Position]:
        return ((self.epoch, index) for index in self.indices)


def _fill(indices: Sequence[int], number: int) -> list[int]:
    """So many indices: all processes make the same number of steps, or the others would wait for ever."""
    return [*indices, *[FILLER] * (number - len(indices))]


class FeatureDataset(Dataset[tuple[Tensor, Tensor]]):
    """Stored features in place of images: whole batches (B, F) and labels (B,).

    Args:
        views: Features (V, N, F) of V views of N images; each (epoch, index) sees one of them, drawn by the seed.
        labels: Labels (N,).
        seed: Seed of the run.
    """

    def __init__(self, views: Tensor, labels: Tensor, seed: int) -> None:
        self.views = views
        self.labels = labels
        self.seed = seed
        self.epoch = -1
        self.drawn = torch.zeros(len(labels), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: list[Position]) -> tuple[Tensor, Tensor]:
        indices = torch.tensor([index for _, index in positions])
        self._draw(positions[0][0])
        features = self.views[self.drawn[indices], indices]
        return features, self.labels[indices].masked_fill(indices == FILLER, NO_LABEL)

    def _draw(self, epoch: int) -> None:
        """Draw a view of each image, if there are several and it has not been done for this epoch."""
        if len(self.views) > 1 and epoch != self.epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, len(self.views)))
            self.drawn = torch.randint(len(self.views), (len(self),), generator=generator)
            self.epoch = epoch
