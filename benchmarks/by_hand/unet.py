"""The U-Net and its loss as an expert writes them in PyTorch."""

import torch
from torch import nn
from torch.nn import functional

CLASSES, IGNORE = 19, 255


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class TorchUnet(nn.Module):
    """What an expert writes by hand."""

    def __init__(self, filters: int):
        super().__init__()
        widths = [filters * 2**step for step in range(5)]
        upwards = widths[-2::-1]
        self.down = nn.ModuleList(double_convolution(*pair) for pair in zip([3, *widths], widths[:-1], strict=False))
        self.bottom = double_convolution(widths[-2], widths[-1])
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in upwards)
        self.up = nn.ModuleList(double_convolution(2 * width, width) for width in upwards)
        self.head = nn.Conv2d(filters, CLASSES, 1)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        x, skips = photos.float() / 127.5 - 1, []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for enlarge, block, skip in zip(self.enlarge, self.up, reversed(skips), strict=True):
            x = block(torch.cat([skip, enlarge(x)], 1))
        return self.head(x)


def torch_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, and Dice over the classes present."""
    logits = logits.float()
    counted = truth != IGNORE
    p = logits.softmax(1) * counted[:, None]
    y = torch.zeros_like(p).scatter_(1, torch.where(counted, truth, 0)[:, None], counted[:, None].float())
    overlap, y_sum, p_sum = ((values).sum((0, 2, 3)) for values in (p * y, y, p))
    present = y_sum > 0
    dice = 1 - 2 * overlap / (y_sum + p_sum).clamp(min=1e-6)
    cross_entropy = functional.cross_entropy(logits, truth, ignore_index=IGNORE)
    return cross_entropy + (dice * present).sum() / present.sum().clamp(min=1)
