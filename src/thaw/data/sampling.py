"""Which image, or which view of it, a training step sees: a function of (seed, epoch, draw)."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from thaw.config import AugmentConfig
from thaw.data.images import read_image
from thaw.data.rows import Sample
from thaw.data.transforms import EvaluationTransform, ImageTransform, training_transform
from thaw.seeding import derive_seed, seeded

Batch = tuple[Tensor, Tensor]
"""Images (B, 3, S, S) or features (B, F), and labels (B,)."""
Position = tuple[int, int]
"""The epoch, and a draw in it: of N images, the first draw of image i is i, and further ones are i + N, i + 2 N, …"""

FILLER = -1
"""Draw of an image that is no part of the epoch: a process that has run out of images makes a last step with it."""
NO_LABEL = -1
"""Its label, by which the data module leaves it out again."""


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images after a transform, and their labels; a sample depends on nothing but (seed, epoch, draw).

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

    def transform_in(self, epoch: int) -> ImageTransform:
        """The transform in an epoch: the same in each."""
        return self.transform

    def through(self, transform: ImageTransform) -> "ImageDataset":
        """The same images after another transform."""
        return ImageDataset(self.samples, transform, self.seed, self.read)

    @property
    def labels(self) -> Tensor:
        """Labels (N,) of all images."""
        return torch.tensor([sample.label for sample in self.samples])

    def __getitem__(self, position: Position) -> tuple[Tensor, int]:
        epoch, draw = position
        index = draw % len(self)
        sample = self.samples[index]
        image = self.read(sample.path)
        with seeded(self.seed, epoch, index if draw == FILLER else draw):
            return self.transform_in(epoch)(image), NO_LABEL if draw == FILLER else sample.label


class GrowingImages(ImageDataset):
    """Training images in crops that grow from `augment.start_size` to what is evaluated.

    Args:
        images: The images.
        options: How they are augmented.
        evaluation: The evaluation transform.
        sides: Side of the crops in each epoch, in pixels; later ones are as the last.
    """

    def __init__(
        self, images: ImageDataset, options: AugmentConfig, evaluation: EvaluationTransform, sides: Sequence[int]
    ) -> None:
        super().__init__(images.samples, images.transform, images.seed, images.read)
        self.sides = sides
        self.transforms = {side: training_transform(options, replace(evaluation, crop=side)) for side in {*sides}}

    def side(self, epoch: int) -> int:
        """Side of the crops in an epoch, in pixels."""
        return self.sides[min(epoch, len(self.sides) - 1)]

    def transform_in(self, epoch: int) -> ImageTransform:
        """The transform to that side."""
        return self.transforms[self.side(epoch)]


class EpochSampler(Sampler[Position]):
    """(epoch, draw) of every image in an order that is a function of (seed, epoch).

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
        draws = self.draws(self.epoch)[: self.num_drawn]
        return ((self.epoch, draw) for draw in _share(draws, self.rank, self.num_processes))

    def draws(self, epoch: int) -> list[int]:
        """As many draws as there are images, for all processes, in order; an epoch takes the first `num_drawn`."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        if self.weights is None:
            return torch.randperm(self.num_images, generator=generator).tolist()
        drawn = torch.multinomial(self.weights, self.num_images, replacement=True, generator=generator)
        offsets: dict[int, Iterator[int]] = defaultdict(lambda: count(step=self.num_images))
        return [index + next(offsets[index]) for index in drawn.tolist()]


class SequentialPositions(Sampler[Position]):
    """(epoch, draw) of draws in the order given; of several processes, each takes every n-th, none twice."""

    def __init__(self, draws: Sequence[int], rank: int = 0, num_processes: int = 1, epoch: int = 0) -> None:
        self.num_processes = num_processes
        self.draws = _share(draws, rank, num_processes)
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.draws)

    def __iter__(self) -> Iterator[Position]:
        return ((self.epoch, draw) for draw in self.draws)


def _share(draws: Sequence[int], rank: int, num_processes: int) -> list[int]:
    """One process's part: all make the same number of steps, or the others would wait for ever."""
    own = draws[rank::num_processes]
    return [*own, *[FILLER] * (-(-len(draws) // num_processes) - len(own))]


class FeatureDataset(Dataset[tuple[Tensor, Tensor]]):
    """Stored features in place of images: whole batches (B, F) and labels (B,).

    Args:
        views: Features (V, N, F) of V views of N images; the seed draws which one of them an image's first draw in an
            epoch sees, and each further one sees the next.
        labels: Labels (N,).
        seed: Seed of the run.
        draws: In ascending order, the draws (N,) that the features are of, if not of each image.
    """

    def __init__(self, views: Tensor, labels: Tensor, seed: int, draws: Tensor | None = None) -> None:
        self.views = views
        self.labels = labels
        self.seed = seed
        self.draws = draws
        self.epoch = -1
        self.drawn = torch.zeros(len(labels), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: list[Position]) -> tuple[Tensor, Tensor]:
        draws = torch.tensor([draw for _, draw in positions])
        indices, further = draws % len(self), draws // len(self)
        self._draw(positions[0][0])
        views = (self.drawn[indices] + further) % len(self.views)
        rows = indices if self.draws is None else torch.searchsorted(self.draws, draws)
        return self.views[views, rows], self.labels[indices].masked_fill(draws == FILLER, NO_LABEL)

    def _draw(self, epoch: int) -> None:
        """Draw a view of each image, if there are several and it has not been done for this epoch."""
        if len(self.views) > 1 and epoch != self.epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, len(self.views)))
            self.drawn = torch.randint(len(self.views), (len(self),), generator=generator)
            self.epoch = epoch
