"""Two networks with ternary weights: the form that is trained, and the form that is exported.

Training keeps float weights and rounds them, and the activations, in the forward pass only (the
straight-through estimator). `freeze` then stores the rounded weights as int8 {-1, 0, 1} beside
their scale, which is the form in which such networks are shipped.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5
CLASSES = 10


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass, with the gradient of `x` in the backward pass."""
    return x + (rounded - x).detach()


def ternary(w: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Codes in {-1, 0, 1} and the scale mean(|w|) over `dims`: w is about codes * scale."""
    scale = w.abs().mean(dims, keepdim=True).clamp(min=EPS)
    return (w / scale).round().clamp(-1, 1), scale


def int8_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in -128..127 and the scale 127 / max(|x|) of each row: x is about codes / scale."""
    scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=EPS)
    return (x * scale).round().clamp(-128, 127), scale


class BitLinear(nn.Linear):
    """x @ w.T + bias as BitNet b1.58 trains it: one scale for w, one for each row of x."""

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = int8_codes(x)
        trits, w_scale = ternary(self.weight, (0, 1))
        x = straight_through(x, codes / scale)
        return F.linear(x, straight_through(self.weight, trits * w_scale), self.bias)

    def freeze(self) -> nn.Module:
        return FrozenBitLinear(self)


class FrozenBitLinear(nn.Module):
    """A trained BitLinear: a dot of int8 codes and trits, then one division by both scales."""

    def __init__(self, trained: BitLinear) -> None:
        super().__init__()
        trits, scale = ternary(trained.weight.detach(), (0, 1))
        self.register_buffer("weight", trits.to(torch.int8))
        self.register_buffer("weight_scale", scale.reshape(()).reciprocal())
        self.register_buffer("bias", trained.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = int8_codes(x)
        return F.linear(codes, self.weight.float()) / (self.weight_scale * scale) + self.bias


class Quantize8(nn.Module):
    """x >= 0 rounded to scale * {0, ..., 255}; training sets the scale, inference reads it."""

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.calibrated = scale is None
        self.register_buffer("scale", torch.tensor(EPS if scale is None else scale))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.calibrated:
            top = x.detach().max() / 255
            self.scale.copy_(torch.where(self.scale == EPS, top, self.scale.lerp(top, 0.05)))
        rounded = (x / self.scale).round().clamp(0, 255) * self.scale
        return straight_through(x, rounded) if self.training else rounded


class TernaryConv2d(nn.Conv2d):
    """A convolution trained with ternary weights, one scale an output channel."""

    def forward(self, x: Tensor) -> Tensor:
        trits, scale = ternary(self.weight, (1, 2, 3))
        return self._conv_forward(x, straight_through(self.weight, trits * scale), self.bias)

    def freeze(self) -> nn.Module:
        return FrozenConv2d(self)


class FrozenConv2d(nn.Module):
    """A trained TernaryConv2d: int8 trits times their scale are the weights."""

    def __init__(self, trained: TernaryConv2d) -> None:
        super().__init__()
        trits, scale = ternary(trained.weight.detach(), (1, 2, 3))
        self.register_buffer("weight", trits.to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.padding, self.groups = trained.padding, trained.groups

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() * self.weight_scale
        return F.conv2d(x, weight, padding=self.padding, groups=self.groups)


class TernaryLinear(nn.Linear):
    """x @ w.T + bias trained with ternary weights, one scale an output."""

    def forward(self, x: Tensor) -> Tensor:
        trits, scale = ternary(self.weight, (1,))
        return F.linear(x, straight_through(self.weight, trits * scale), self.bias)

    def freeze(self) -> nn.Module:
        return FrozenLinear(self)


class FrozenLinear(nn.Module):
    """A trained TernaryLinear: int8 trits times their scale are the weights."""

    def __init__(self, trained: TernaryLinear) -> None:
        super().__init__()
        trits, scale = ternary(trained.weight.detach(), (1,))
        self.register_buffer("weight", trits.to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias", trained.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.float() * self.weight_scale, self.bias)


def freeze(model: nn.Sequential) -> nn.Sequential:
    """The inference form of a trained network."""
    layers = (m.freeze() if hasattr(m, "freeze") else m for m in model)
    return nn.Sequential(*layers).eval()


def digits_mlp(hidden: int = 128) -> nn.Sequential:
    """[batch, 64] -> [batch, 10]: three BitLinear layers, each behind an RMSNorm."""
    return nn.Sequential(
        nn.RMSNorm(64, eps=EPS),
        BitLinear(64, hidden),
        nn.ReLU(),
        nn.RMSNorm(hidden, eps=EPS),
        BitLinear(hidden, hidden),
        nn.ReLU(),
        nn.RMSNorm(hidden, eps=EPS),
        BitLinear(hidden, CLASSES),
    )


def conv(inputs: int, outputs: int, size: int, groups: int = 1) -> list[nn.Module]:
    """A ternary convolution that keeps height and width, batch normalisation, ReLU."""
    layer = TernaryConv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def digits_cnn() -> nn.Sequential:
    """[batch, 1, 8, 8] -> [batch, 10]: ternary convolutions on activations of 8 bits."""
    return nn.Sequential(
        Quantize8(1 / 16),  # the grid of the pixels: nothing is lost
        *conv(1, 16, 3),
        Quantize8(),
        *conv(16, 16, 3, groups=16),
        Quantize8(),
        *conv(16, 32, 1),
        nn.MaxPool2d(2),
        Quantize8(),
        *conv(32, 32, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Quantize8(),
        TernaryLinear(32, CLASSES),
    )
