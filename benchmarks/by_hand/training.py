"""The whole job in plain PyTorch, as an expert writes it for photos and masks side by side in JPEGs.

Pillow decodes, NumPy takes the nearest colour, a DataLoader has two workers, AdamW goes along a cosine, each epoch is
validated and the best weights are kept; curves, confusion matrix and eight predictions are drawn at the end. Nothing of
what semseg adds: no check of the data, no repair of borders, no scores at the masks' own size, no report.

    python benchmarks/by_hand/training.py DATA OUTPUT EPOCHS

It prints a line when its imports are done, when the first step may begin, and after each epoch.
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from unet import CLASSES, IGNORE, TorchUnet, torch_loss

SIZE, BATCH, FILTERS = 128, 2, 16
FARTHEST = 60  # from the nearest colour: beyond it a pixel is ignored
COLORS = np.array([
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
])  # fmt: skip  # of Cityscapes, by train id


class Pairs(Dataset):
    """Photos uint8 `(128, 128, 3)` and ids uint8 `(128, 128)`; half of those to learn from are flipped."""

    def __init__(self, folder: Path, learn: bool):
        self.paths, self.learn = sorted(folder.glob("*.jpg")), learn

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        pair = np.asarray(Image.open(self.paths[index]).convert("RGB"))
        half = pair.shape[1] // 2
        distances = ((pair[:, half:, None].astype(np.int32) - COLORS) ** 2).sum(-1)
        ids = np.where(distances.min(-1) < FARTHEST**2, distances.argmin(-1), IGNORE).astype(np.uint8)
        photo = np.array(Image.fromarray(pair[:, :half]).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        mask = np.array(Image.fromarray(ids).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        if self.learn and random.random() < 0.5:
            photo, mask = photo[:, ::-1].copy(), mask[:, ::-1].copy()
        return photo, mask


class Training:
    """Network, optimiser and schedule, and passes over the photos."""

    def __init__(self, steps: int):
        self.network = TorchUnet(FILTERS).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)

    def go_through(self, loader: DataLoader, learn: bool) -> tuple[float, torch.Tensor]:
        """Mean loss and confusion matrix."""
        self.network.train(learn)
        total, cells = 0.0, torch.zeros(CLASSES**2, dtype=torch.int64)
        for photos, masks in loader:
            truth = masks.long()
            with torch.set_grad_enabled(learn):
                logits = self.network(photos.permute(0, 3, 1, 2))
                loss = torch_loss(logits, truth)
            if learn:
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
            total += loss.item()
            counted = truth != IGNORE
            pairs = truth[counted] * CLASSES + logits.detach().argmax(1)[counted]
            cells += torch.bincount(pairs, minlength=len(cells))
        return total / len(loader), cells.reshape(CLASSES, CLASSES)


def mean_iou(matrix: torch.Tensor) -> float:
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return (matrix.diagonal()[union > 0] / union[union > 0]).mean().item()


def draw(training: Training, photos: Pairs, history: list, matrix: torch.Tensor, output: Path) -> None:
    figure = Figure((10, 4))
    left, right = figure.subplots(1, 2)
    left.plot([row[:2] for row in history])
    right.imshow((matrix / matrix.sum(1, keepdim=True).clamp(min=1)).numpy())
    figure.savefig(output / "curves.png")
    painted = np.concatenate([COLORS, np.zeros((IGNORE + 1 - CLASSES, 3), int)]).astype(np.uint8)
    for number, (photo, mask) in zip(range(8), photos, strict=False):
        with torch.no_grad():
            ids = training.network(torch.from_numpy(photo)[None].permute(0, 3, 1, 2)).argmax(1)[0].numpy()
        figure = Figure((12, 4))
        for axis, picture in zip(figure.subplots(1, 3), (photo, painted[mask], painted[ids]), strict=True):
            axis.imshow(picture)
            axis.axis("off")
        figure.savefig(output / f"pred_{number}.png")


def main(data: Path, output: Path, epochs: int) -> None:
    print("imported", flush=True)
    torch.manual_seed(0)
    train, val = Pairs(data / "train", learn=True), Pairs(data / "val", learn=False)
    loaders = [
        DataLoader(one, BATCH, shuffle=one.learn, num_workers=2, persistent_workers=True) for one in (train, val)
    ]
    training = Training(epochs * len(loaders[0]))
    output.mkdir(parents=True)
    print("ready", flush=True)
    history, best = [], -1.0
    for _ in range(epochs):
        loss, _ = training.go_through(loaders[0], learn=True)
        val_loss, matrix = training.go_through(loaders[1], learn=False)
        history.append((loss, val_loss, mean_iou(matrix)))
        if history[-1][-1] > best:
            best = history[-1][-1]
            torch.save(training.network.state_dict(), output / "best.pt")
        print("epoch", *history[-1], flush=True)
    training.network.load_state_dict(torch.load(output / "best.pt"))
    _, matrix = training.go_through(loaders[1], learn=False)
    draw(training, val, history, matrix, output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
