"""The fused AttentionPool as a Triton kernel: one launch, sums in FP32, any map.

One program owns a share of one image's channels. The attention needs the channel sum
of the whole image, so a program first sweeps every channel (pass 1) and then pools its
own share (pass 2). Programs of one image start their sweep at different channels and
end it with their own share: together they pull the image from memory once, and pass 2
finds its share in the caches. Where the whole image fits into one program's registers
there is only one pass, and without attention there is never a pass 1.

Shape names: C channels, H x W map, P windows of SIZE rows every STEP rows; ``TILE_*``
are the powers of two that hold the part of the image a program looks at in one step;
``NORMALIZE`` is one of :data:`sa_runtime.tensorrt.tactics.NORMALIZE_CODES`.
"""

# Triton reads annotations itself and allows none but tl.constexpr on kernel parameters.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load(
    x_ptr,
    tile,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    TILE_C: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """Channels from tile * TILE_C of the image as (TILE_C, TILE_H, TILE_W) FP32, 0 outside."""
    channel = (tile * TILE_C + tl.arange(0, TILE_C))[:, None, None]
    row = tl.arange(0, TILE_H)[None, :, None]
    column = tl.arange(0, TILE_W)[None, None, :]
    inside = (channel < C) & (row < H) & (column < W)
    x = tl.load(x_ptr + channel * (H * W) + row * W + column, mask=inside, other=0.0)
    return x.to(tl.float32)


@triton.jit
def _attention(
    total,
    H: tl.constexpr,
    W: tl.constexpr,
    NORMALIZE: tl.constexpr,
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """Channel sums (TILE_H, TILE_W) -> the attention of mean 1; uniform where all sums are 0."""
    weight = total
    if NORMALIZE == 2:
        inside = (tl.arange(0, TILE_H)[:, None] < H) & (tl.arange(0, TILE_W)[None, :] < W)
        peak = tl.max(tl.max(tl.where(inside, total, float("-inf")), axis=1), axis=0)
        weight = tl.where(inside, tl.exp(total - peak), 0.0)
    mean = tl.sum(tl.sum(weight, axis=1), axis=0) / (H * W)
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
    TILE_H: tl.constexpr,
):
    """Mean of every window of the weighted tile, to its place in (C, P)."""
    channel = tile * TILE_C + tl.arange(0, TILE_C)
    rows = tl.sum(weighted, axis=2)
    if STEP == SIZE and (SIZE & (SIZE - 1)) == 0:
        # Disjoint windows of 2^k rows: one reshape, so that a window is k shuffles, not one
        # full reduction each.
        windows: tl.constexpr = TILE_H // SIZE
        y = tl.sum(tl.reshape(rows, [TILE_C, windows, SIZE]), axis=2) / (SIZE * W)
        p = tl.arange(0, windows)[None, :]
        target = y_ptr + channel[:, None] * P + p
        tl.store(target, y.to(y_ptr.dtype.element_ty), mask=(channel < C)[:, None] & (p < P))
    else:
        row = tl.arange(0, TILE_H)
        for p in tl.static_range(P):
            window = (row >= p * STEP) & (row < p * STEP + SIZE)
            y = tl.sum(tl.where(window[None, :], rows, 0.0), axis=1) / (SIZE * W)
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
    TILE_H: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """(N, C, H, W) contiguous -> (N, C, P) over a grid of (N, SPLITS) programs."""
    image = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    x_ptr += image * (C * H * W)
    y_ptr += image * (C * P)
    tiles: tl.constexpr = (C + TILE_C - 1) // TILE_C
    share: tl.constexpr = (tiles + SPLITS - 1) // SPLITS

    if tiles == 1:
        x = _load(x_ptr, 0, C, H, W, TILE_C, TILE_H, TILE_W)
        if NORMALIZE != 0:
            x *= _attention(tl.sum(x, axis=0), H, W, NORMALIZE, TILE_H, TILE_W)[None, :, :]
        _store_windows(y_ptr, x, 0, C, W, P, STEP, SIZE, TILE_C, TILE_H)
    else:
        attention = tl.full([TILE_H, TILE_W], 1.0, tl.float32)
        if NORMALIZE != 0:
            partial = tl.zeros([TILE_C, TILE_H, TILE_W], tl.float32)
            for i in range(tiles):
                tile = ((split + 1) * share + i) % tiles
                partial += _load(x_ptr, tile, C, H, W, TILE_C, TILE_H, TILE_W)
            attention = _attention(tl.sum(partial, axis=0), H, W, NORMALIZE, TILE_H, TILE_W)
        for j in range(share):
            # Backwards: what pass 1 read last is the likeliest still to be in L1.
            tile = (split + 1) * share - 1 - j
            x = _load(x_ptr, tile, C, H, W, TILE_C, TILE_H, TILE_W) * attention[None, :, :]
            _store_windows(y_ptr, x, tile, C, W, P, STEP, SIZE, TILE_C, TILE_H)
