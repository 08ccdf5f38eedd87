"""A small residual network that sees the error map and no image: Luo et al. 2024 (LaRE alone)."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from clare_cache.heads.features import Shapes
from clare_cache.heads.protocol import Head, HeadOutput

WIDTHS = (16, 32, 64)


class ErrorMapResNet(Head):
    """Three stages of two residual blocks, 16, 32 and 64 wide, mean over positions, one linear
    layer; cross-entropy, mean. `embedding` (B, 64) is that mean. He et al. 2016, section 4.2."""

    family = "error_map_resnet"
    stackable = True
    axes = {"error_map": ("channel", "row", "column")}  # noqa: RUF012

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes, {})
        self.conv = _conv(self.shapes["error_map"][0], WIDTHS[0])
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], stride=2)
        self.fc = nn.Linear(WIDTHS[2], 2)

    def forward(self, features: Mapping[str, Tensor]) -> HeadOutput:
        (error_map,) = self.read(features)
        found = self.bn(self.conv(error_map)).relu()
        for stage in (self.layer1, self.layer2, self.layer3):
            found = stage(found)
        embedding = found.mean(dim=(2, 3))
        return HeadOutput(self.fc(embedding), embedding)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.class_logits, labels.long())


class _Block(nn.Module):
    """x + two 3x3 convolutions of x; where the shape changes, x goes through one of its own."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(n_in, n_out, stride)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = _conv(n_out, n_out)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = nn.Sequential()
        if stride > 1 or n_in != n_out:
            self.downsample = nn.Sequential(_conv(n_in, n_out, stride), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        summed: Tensor = found + self.downsample(x)
        return summed.relu()


def _conv(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)


def _stage(n_in: int, n_out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(n_in, n_out, stride), _Block(n_out, n_out, 1))
