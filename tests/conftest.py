from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
NUM_IMAGES = {"train": {"blue": 4, "green": 6, "red": 8}, "val": {"blue": 3, "green": 3, "red": 3}}


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 training and 9 validation images in {train,val}/{blue,green,red}: the class's colour under noise. Read only."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, counts in NUM_IMAGES.items():
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(72, 96, 2)
                noise = generator.normal(0, 40, (height, width, 3))
                pixels = np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root
