"""Two networks with ternary weights: the form that is trained, and the form that is exported.

Training keeps float weights and rounds them, and the activations, in the forward pass only (the
straight-through estimator). `freeze` then stores the rounded weights as int8 {-1, 0, 1} beside
their scale, which is the form in which such networks are shipped.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

EPS = 1e-5
PIXELS = 64
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


class Frozen(nn.Module):
    """The parameters of a trained layer as they are shipped: int8 {-1, 0, 1}, scales, the bias."""

    def __init__(self, trained: nn.Linear | nn.Conv2d, dims: tuple[int, ...]) -> None:
        super().__init__()
        trits, scale = ternary(trained.weight.detach(), dims)
        self.register_buffer("weight", trits.to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("bias", None if trained.bias is None else trained.bias.detach())


class BitLinear(nn.Linear):
    """x @ w.T + bias as BitNet b1.58 trains it: one scale for w, one for each row of x."""

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = int8_codes(x)
        trits, w_scale = ternary(self.weight, (0, 1))
        x = straight_through(x, codes / scale)
        return nn.functional.linear(x, straight_through(self.weight, trits * w_scale), self.bias)

    def freeze(self) -> nn.Module:
        return FrozenBitLinear(self)


class FrozenBitLinear(Frozen):
    """A dot of int8 codes and trits, then one division by both scales."""

    def __init__(self, trained: BitLinear) -> None:
        super().__init__(trained, (0, 1))
        self.weight_scale = self.weight_scale.reshape(()).reciprocal()

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = int8_codes(x)
        sums = nn.functional.linear(codes, self.weight.float())
        return sums / (self.weight_scale * scale) + self.bias


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
        weight = straight_through(self.weight, trits * scale)
        return nn.functional.conv2d(x, weight, self.bias, 1, self.padding, 1, self.groups)

    def freeze(self) -> nn.Module:
        return FrozenConv2d(self)


class FrozenConv2d(Frozen):
    """A convolution whose weights are trits times the scale of their channel."""

    def __init__(self, trained: TernaryConv2d) -> None:
        super().__init__(trained, (1, 2, 3))
        self.padding, self.groups = trained.padding, trained.groups

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() * self.weight_scale
        return nn.functional.conv2d(x, weight, self.bias, 1, self.padding, 1, self.groups)


class TernaryLinear(nn.Linear):
    """x @ w.T + bias trained with ternary weights, one scale an output."""

    def forward(self, x: Tensor) -> Tensor:
        trits, scale = ternary(self.weight, (1,))
        return nn.functional.linear(x, straight_through(self.weight, trits * scale), self.bias)

    def freeze(self) -> nn.Module:
        return FrozenLinear(self, (1,))


class FrozenLinear(Frozen):
    """x @ w.T + bias, where w is trits times the scale of their output."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.float() * self.weight_scale, self.bias)


def freeze(model: nn.Module) -> nn.Module:
    """The inference form of a trained network."""
    if isinstance(model, nn.Sequential):
        return chain(**{name: freeze(layer) for name, layer in model.named_children()}).eval()
    return model.freeze() if hasattr(model, "freeze") else model


def chain(**layers: nn.Module) -> nn.Sequential:
    """The layers one after the other, under names that the exported file keeps."""
    return nn.Sequential(OrderedDict(layers))


def bit_layer(inputs: int, outputs: int) -> nn.Sequential:
    return chain(norm=nn.RMSNorm(inputs, eps=EPS), linear=BitLinear(inputs, outputs))


def conv_layer(
    inputs: int, outputs: int, size: int, *, groups: int = 1, scale: float | None = None
) -> nn.Sequential:
    """Quantiser, ternary convolution that keeps height and width, batch normalisation, ReLU."""
    return chain(
        quantize=Quantize8(scale),
        conv=TernaryConv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False),
        norm=nn.BatchNorm2d(outputs),
        relu=nn.ReLU(),
    )


def digits_mlp(hidden: int = 128) -> nn.Sequential:
    """[batch, 64] -> [batch, 10]: three BitLinear layers, each behind an RMSNorm."""
    return chain(
        first=bit_layer(PIXELS, hidden),
        relu1=nn.ReLU(),
        second=bit_layer(hidden, hidden),
        relu2=nn.ReLU(),
        head=bit_layer(hidden, CLASSES),
    )


def digits_cnn() -> nn.Sequential:
    """[batch, 1, 8, 8] -> [batch, 10]: ternary convolutions on activations of 8 bits."""
    return chain(
        stem=conv_layer(1, 16, 3, scale=1 / 16),  # the grid of the pixels: nothing is lost
        depthwise=conv_layer(16, 16, 3, groups=16),
        pointwise=conv_layer(16, 32, 1),
        pool=nn.MaxPool2d(2),
        mix=conv_layer(32, 32, 3),
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        quantize=Quantize8(),
        head=TernaryLinear(32, CLASSES),
    )
