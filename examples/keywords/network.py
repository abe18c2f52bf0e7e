"""Keywords from frames of features: the network as it is trained.

Five ternary convolutions over time, each of three frames that lie ever farther apart (WaveNet's
dilated convolutions, arXiv 1609.03499), and a ternary layer for the scores. Training sees whole
clips, with zeros before them, and keeps float weights that it rounds in the forward pass only
(arXiv 1605.04711, 1308.3432).
"""

import torch
from features import BANDS
from speech import CLASSES
from streaming import DILATIONS, TAPS, WIDTH
from torch import Tensor, nn


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass, with the gradient of `x` in the backward pass."""
    return x + (rounded - x).detach()


def trits(w: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in {-1, 0, 1}, and the scale mean(|w|) of each output: w is about codes * scale."""
    scale = w.abs().mean((1, 2), keepdim=True).clamp(min=1e-5)
    return (w / scale).round().clamp(-1, 1), scale


class Keywords(nn.Module):
    """Features [n, 20, t] in 1/32 -> scores [n, 12, t]."""

    def __init__(self, low_bit: bool) -> None:
        super().__init__()
        self.low_bit = low_bit
        sizes = [BANDS, *(WIDTH for _ in DILATIONS)]
        self.convs = nn.ModuleList(
            nn.Conv1d(a, WIDTH, TAPS, dilation=d) for a, d in zip(sizes, DILATIONS, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in DILATIONS)
        self.head = nn.Conv1d(WIDTH, len(CLASSES), 1)
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("tops", torch.zeros(len(DILATIONS)))  # of activations, for scales

    def weight(self, conv: nn.Conv1d) -> Tensor:
        """A layer's weights, as the forward pass takes them."""
        if not self.low_bit:
            return conv.weight
        codes, scale = trits(conv.weight)
        return straight_through(conv.weight, codes * scale)

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            (dilation,) = conv.dilation
            x = nn.functional.pad(x, ((TAPS - 1) * dilation, 0))
            x = nn.functional.conv1d(x, self.weight(conv), conv.bias, dilation=dilation)
            x = norm(x).relu()
            if self.low_bit:
                if self.training:
                    top = x.detach().max()
                    self.tops[i] = top if self.tops[i] == 0 else self.tops[i].lerp(top, 0.05)
                scale = self.tops[i] / 255
                x = straight_through(x, (x / scale).round().clamp(0, 255) * scale)
            x = self.dropout(x)
        return nn.functional.conv1d(x, self.weight(self.head), self.head.bias)

    @torch.no_grad()
    def constants(self) -> dict:
        """What `streaming.keywords` makes the ONNX file of."""
        found = {}
        for i, layer in enumerate((*self.convs, self.head)):
            codes, scale = trits(layer.weight)
            scale, bias = scale.flatten(), layer.bias
            if i < len(self.norms):  # a norm is a scale and a bias of each output
                norm = self.norms[i]
                by = norm.weight / (norm.running_var + norm.eps).sqrt()
                scale, bias = scale * by, (bias - norm.running_mean) * by + norm.bias
                found[f"scale{i + 1}"] = self.tops[i] / 255
            codes = codes * torch.where(scale < 0, -1, 1)[:, None, None]
            found |= {f"w{i}": codes.to(torch.int8), f"w{i}_scale": scale.abs(), f"b{i}": bias}
        return {name: value.numpy() for name, value in found.items()}
