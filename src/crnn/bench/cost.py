"""What one word costs the network, counted from its layers."""

from __future__ import annotations

from crnn.spec import ModelSpec

_HIDDEN = 256


def multiply_adds(spec: ModelSpec) -> int:
    """Multiplications with an addition that the network of ``spec`` does for one word: convolutions, LSTMs, linears.

    These are those of the layers in "An End-to-End Trainable Neural Network for Image-based Sequence Recognition"
    (Shi, Bai, Yao 2015), table 1, with LSTMs of 256; what is added, compared or squashed besides is below one percent.
    """
    wider = 1 if spec.trunk == "crnn" else 0  # the paper's last two pools add a column each
    width, half, quarter, eighth = spec.width, spec.width // 2, spec.width // 4, spec.height // 8
    convolutions = (
        # output pixels, output channels, input channels x kernel
        (spec.height * width, 64, spec.channels * 9),
        (spec.height // 2 * half, 128, 64 * 9),
        (spec.height // 4 * quarter, 256, 128 * 9),
        (spec.height // 4 * quarter, 256, 256 * 9),
        (eighth * (quarter + wider), 512, 256 * 9),
        (eighth * (quarter + wider), 512, 512 * 9),
        ((spec.height // 16 - 1) * spec.steps, 512, 512 * 4),
    )
    # Each direction has four gates, of the input and of its own last output.
    lstms = sum(2 * 4 * _HIDDEN * (inputs + _HIDDEN) for inputs in (512, _HIDDEN))
    linears = 2 * _HIDDEN * (_HIDDEN + spec.charset.classes)
    return sum(pixels * out * taps for pixels, out, taps in convolutions) + spec.steps * (lstms + linears)
