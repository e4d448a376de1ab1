"""The PyTorch transfer-learning tutorial's loop, written out plainly: batch 4, 4 workers, float32, ImageFolder.

    python benchmarks/peers/tutorial.py DATA BACKBONE WEIGHTS frozen|finetune EPOCHS

Prints `start` before the first epoch and `epoch N: accuracy` after each; the reader looks at the clock.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
TRANSFORMS = {
    "train": transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), NORMALIZE]
    ),
    "val": transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), NORMALIZE]),
}


def make_model(backbone: str, weights: str, num_classes: int, frozen: bool) -> tuple[nn.Module, list[nn.Parameter]]:
    """A network of torchvision's with a new last layer, as the tutorial has it, and the parameters that learn."""
    model = models.get_model(backbone, weights=None)
    model.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    model.requires_grad_(not frozen)
    if backbone.startswith("squeezenet"):
        model.classifier[1] = nn.Conv2d(512, num_classes, 1)
        model.num_classes = num_classes
    else:
        model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model, [parameter for parameter in model.parameters() if parameter.requires_grad]


def main() -> None:
    """Train and validate for some epochs."""
    root, backbone, weights, strategy, epochs = sys.argv[1:]
    sets = {
        split: datasets.ImageFolder(f"{root}/{split}", TRANSFORMS[split], is_valid_file=is_image)
        for split in TRANSFORMS
    }
    loaders = {split: DataLoader(sets[split], 4, shuffle=True, num_workers=4) for split in sets}
    model, parameters = make_model(backbone, weights, len(sets["train"].classes), strategy == "frozen")
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    print("start", flush=True)
    for epoch in range(int(epochs)):
        num_right = 0
        for split in ("train", "val"):
            model.train(split == "train")
            for inputs, labels in loaders[split]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(split == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if split == "train":
                        loss.backward()
                        optimizer.step()
                if split == "val":
                    num_right += int((outputs.argmax(1) == labels).sum())
            if split == "train":
                scheduler.step()
        print(f"epoch {epoch + 1}: {num_right / len(sets['val']):.4f}", flush=True)


def is_image(path: str) -> bool:
    """True for the data set's own images: one stray GIF lies among them."""
    return path.lower().endswith((".jpg", ".jpeg", ".png"))


if __name__ == "__main__":
    main()
