"""3D ResNet-50 (Hara et al. 2018, shortcuts of type B), whose features FID-VID compares, with the names of the published weights.

b n c f h w: batch, features, channels, frames, height, width.
"""

from torch import Tensor, nn

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4


class ResNet3D(nn.Module):
    """Clips (b, 3, f, h, w) -> features (b, 2048): what the published network has before its last layer, for 400 actions."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, 7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm3d(width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        channels = width
        for number, blocks in enumerate(BLOCKS):
            inner = width * 2**number
            layer = nn.Sequential()
            for k in range(blocks):
                layer.append(Bottleneck(channels, inner, stride=2 if number > 0 and k == 0 else 1))
                channels = inner * EXPANSION
            self.add_module(f"layer{number + 1}", layer)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        for number in range(len(BLOCKS)):
            x = getattr(self, f"layer{number + 1}")(x)
        return x.mean((2, 3, 4))


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut, of 1, 3 and 1 pixels and frames."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        out = inner * EXPANSION
        self.conv1, self.bn1 = nn.Conv3d(channels, inner, 1, bias=False), nn.BatchNorm3d(inner)
        self.conv2, self.bn2 = nn.Conv3d(inner, inner, 3, stride=stride, padding=1, bias=False), nn.BatchNorm3d(inner)
        self.conv3, self.bn3 = nn.Conv3d(inner, out, 1, bias=False), nn.BatchNorm3d(out)
        self.relu = nn.ReLU(inplace=True)
        changes = stride > 1 or channels != out
        shortcut = nn.Sequential(nn.Conv3d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm3d(out)) if changes else None
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))
