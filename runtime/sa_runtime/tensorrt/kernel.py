"""The fused AttentionPool as a Triton kernel: one launch, sums in FP32, any map.

One program owns a share of one image's channels. The attention needs the channel sum
of the whole image, so a program first sweeps every channel (pass 1) and then pools its
own share (pass 2). Programs of one image start their sweep at different channels and
end it with their own share: together they pull the image from memory once, and pass 2
finds its share in the caches. Where the whole image fits into one program's registers
there is only one pass, and without attention there is never a pass 1.

Shape names: C channels, H x W map, P windows of SIZE rows every STEP rows. A map's pixels
lie in one row: that is how they lie in memory, so that neighbouring threads read
neighbouring bytes. ``TILE_C`` channels by ``TILE_HW`` pixels, powers of two, hold the part
of the image a program looks at in one step; ``NORMALIZE`` is one of
:data:`sa_runtime.tensorrt.tactics.NORMALIZE_CODES`.
"""

# Triton reads annotations itself and allows none but tl.constexpr on kernel parameters.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load(
    x_ptr, tile, C: tl.constexpr, HW: tl.constexpr, TILE_C: tl.constexpr, TILE_HW: tl.constexpr
):
    """Channels from tile * TILE_C of the image as (TILE_C, TILE_HW), 0 outside."""
    channel = (tile * TILE_C + tl.arange(0, TILE_C))[:, None]
    pixel = tl.arange(0, TILE_HW)[None, :]
    return tl.load(x_ptr + channel * HW + pixel, mask=(channel < C) & (pixel < HW), other=0.0)


@triton.jit
def _attention(total, HW: tl.constexpr, NORMALIZE: tl.constexpr, TILE_HW: tl.constexpr):
    """Channel sums (TILE_HW,) -> the attention of mean 1; uniform where all sums are 0."""
    weight = total
    if NORMALIZE == 2:
        inside = tl.arange(0, TILE_HW) < HW
        peak = tl.max(tl.where(inside, total, float("-inf")), axis=0)
        weight = tl.where(inside, tl.exp(total - peak), 0.0)
    mean = tl.sum(weight, axis=0) / HW
    uniform = mean == 0.0
    return tl.where(uniform, 1.0, weight / tl.where(uniform, 1.0, mean))


@triton.jit
def _store_windows(
    y_ptr,
    weighted,
    tile,
    C: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    TILE_C: tl.constexpr,
    TILE_HW: tl.constexpr,
):
    """Mean of every window of the weighted tile, to its place in (C, P)."""
    channel = tile * TILE_C + tl.arange(0, TILE_C)
    pixels: tl.constexpr = SIZE * W
    if STEP == SIZE and (pixels & (pixels - 1)) == 0:
        # Disjoint windows of 2^k pixels: one reshape, so that a window is k steps, not one full
        # reduction each.
        windows: tl.constexpr = TILE_HW // pixels
        y = tl.sum(tl.reshape(weighted, [TILE_C, windows, pixels]), axis=2) / pixels
        p = tl.arange(0, windows)[None, :]
        target = y_ptr + channel[:, None] * P + p
        tl.store(target, y.to(y_ptr.dtype.element_ty), mask=(channel < C)[:, None] & (p < P))
    else:
        pixel = tl.arange(0, TILE_HW)
        for p in tl.static_range(P):
            window = (pixel >= p * STEP * W) & (pixel < p * STEP * W + pixels)
            y = tl.sum(tl.where(window[None, :], weighted, 0.0), axis=1) / pixels
            tl.store(y_ptr + channel * P + p, y.to(y_ptr.dtype.element_ty), mask=channel < C)


@triton.jit
def attention_pool_kernel(
    x_ptr,
    y_ptr,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    P: tl.constexpr,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE_C: tl.constexpr,
    TILE_HW: tl.constexpr,
):
    """(N, C, H, W) contiguous -> (N, C, P) over a grid of (N, SPLITS) programs."""
    image = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    x_ptr += image * (C * H * W)
    y_ptr += image * (C * P)
    HW: tl.constexpr = H * W
    tiles: tl.constexpr = (C + TILE_C - 1) // TILE_C
    share: tl.constexpr = (tiles + SPLITS - 1) // SPLITS

    if tiles == 1:
        x = _load(x_ptr, 0, C, HW, TILE_C, TILE_HW).to(tl.float32)
        if NORMALIZE != 0:
            x *= _attention(tl.sum(x, axis=0), HW, NORMALIZE, TILE_HW)[None, :]
        _store_windows(y_ptr, x, 0, C, W, P, STEP, SIZE, TILE_C, TILE_HW)
    else:
        # The next tile is on its way while one is worked on: without, every step waits for memory.
        # The tile behind the last one is empty and is not fetched.
        attention = tl.full([TILE_HW], 1.0, tl.float32)
        if NORMALIZE != 0:
            first = (split + 1) * share
            partial = tl.zeros([TILE_C, TILE_HW], tl.float32)
            ahead = _load(x_ptr, first % tiles, C, HW, TILE_C, TILE_HW)
            for i in range(tiles):
                x = ahead
                tile = tl.where(i + 1 < tiles, (first + i + 1) % tiles, tiles)
                ahead = _load(x_ptr, tile, C, HW, TILE_C, TILE_HW)
                partial += x.to(tl.float32)
            attention = _attention(tl.sum(partial, axis=0), HW, NORMALIZE, TILE_HW)
        # Backwards: what pass 1 read last is the likeliest still to be in L1.
        last = (split + 1) * share - 1
        ahead = _load(x_ptr, last, C, HW, TILE_C, TILE_HW)
        for j in range(share):
            x = ahead
            tile = tl.where(j + 1 < share, last - j - 1, tiles)
            ahead = _load(x_ptr, tile, C, HW, TILE_C, TILE_HW)
            weighted = x.to(tl.float32) * attention[None, :]
            _store_windows(y_ptr, weighted, last - j, C, W, P, STEP, SIZE, TILE_C, TILE_HW)
