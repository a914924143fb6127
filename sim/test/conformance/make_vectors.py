# SPDX-License-Identifier: Apache-2.0
"""Writes the conformance vectors of the cache formats: inputs, codes and checksums of what they decode to.

Shares no code with kvsim: ggml's types come from the gguf package, 8-bit and bfloat16 numbers from
ml_dtypes, everything else is the published rule written out in numpy. Needs numpy, gguf, ml_dtypes:

    python3 -m venv venv && venv/bin/pip install numpy gguf==0.19.0 ml_dtypes==0.6.0
    venv/bin/python sim/test/conformance/make_vectors.py

input.f32   64 rows of 64 float32, little-endian
codes.bin   the expected bytes of all cases, one after the other
cases.tsv   spec, side, bits, KV heads, offset and bytes in codes.bin, CRC-32 of these bytes and of the decoded float32,
            and who made them. bits 0: cell i (token x heads + head) has 2 bits where 5 i mod 7 < 3,
            else 4
"""
import os
import zlib

import gguf
import ml_dtypes
import numpy as np

f32, f16 = np.float32, np.float16
ROWS, DIM = 64, 64
HERE = os.path.dirname(os.path.abspath(__file__))


def make_input():
    r = np.random.default_rng(2026)
    x = r.standard_normal((ROWS, DIM)).astype(f32)
    x[8:16] *= f32(2.0) ** r.integers(-12, 9, (8, 1)).astype(f32)  # a scale a row
    x[16:24] = r.standard_t(2.5, (8, DIM)).astype(f32)  # heavy tails
    x[24:32, 5] *= 40  # a channel of outliers, as keys have
    x[32:36] = r.integers(-7, 8, (4, DIM)).astype(f32)  # quotients on halves
    x[36:40] = r.integers(-40, 41, (4, DIM)).astype(f32) / 2
    x[40] = 0
    x[41] = f32(0.37)
    x[42] = f32(-3.0)
    x[43] = np.linspace(-1, 1, DIM).astype(f32)
    x[44] *= f32(1e-6)
    x[45] *= f32(1e-9)
    x[46] *= f32(2e4)
    x[47] = np.abs(x[47]) + f32(100)  # far from zero
    x[48:56] += r.standard_normal((1, DIM)).astype(f32) * 3  # a mean a channel
    return x


def half(x):
    """Rounded to fp16 and back, saturated as the formats do."""
    return np.clip(x, f32(-65504), f32(65504)).astype(f16)


def bits_of(codes, bits):
    """Little-endian bit stream of a unit's codes, lowest bit first."""
    b = (codes.reshape(-1, 1).astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1
    return np.packbits(b.reshape(-1).astype(np.uint8), bitorder="little").tobytes()


def units(x, values):
    return x.reshape(-1, values)


# ---- uniform grids: [groups][n] in, (metadata bytes a group, codes, decoded) out -----------------


def sym(g, bits, levels=None, wide=False):
    top = f32(2 ** (bits - 1) - 1)
    low, high = -top, top
    if levels is not None:
        top, low, high = f32(3), f32(-4), f32(3)
    s = np.abs(g).max(axis=1, keepdims=True).astype(f32) / top
    stored = s.astype(f32) if wide else half(s)
    s = stored.astype(f32)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(s == 0, f32(0), g / s)
    q = np.clip(np.rint(q), low, high) + f32(0)  # codes are whole numbers: no -0
    meta = [row.tobytes() for row in stored]
    return meta, (q + 2 ** (bits - 1)).astype(np.uint8), (q * s).astype(f32)


def asym(g, bits, wide=False):
    top = f32(2**bits - 1)
    kind = (lambda v: v.astype(f32)) if wide else half
    m = kind(g.min(axis=1, keepdims=True) + f32(0))
    low = m.astype(f32)
    s = kind((g.max(axis=1, keepdims=True) - low) / top + f32(0))
    scale = s.astype(f32)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(scale <= 0, f32(0), (g - low) / scale)
    q = np.clip(np.rint(q), 0, top)
    meta = [a.tobytes() + b.tobytes() for a, b in zip(s, m)]
    return meta, q.astype(np.uint8), (q * scale + low).astype(f32)


def zero_point(g, bits, way, clip=1.0):
    """KVTuner: signed codes, z = round(min/s) + 2^(n-1) taken off before rounding. RotateKV: after."""
    top, middle = f32(2**bits - 1), f32(2 ** (bits - 1))
    lo = g.min(axis=1, keepdims=True) * f32(clip)
    hi = g.max(axis=1, keepdims=True) * f32(clip)
    step = np.maximum(hi - lo, f32(1e-5)) / top
    step = np.maximum(step, np.abs(lo) / f32(32000))
    stored = half(step)
    s = stored.astype(f32)
    z = np.clip(np.rint(lo / s), -32767, 32767)
    if way == "kvtuner":
        q = np.clip(np.rint(g / s - (z + middle)), -middle, middle - 1)
        codes = q + middle
    else:
        codes = np.clip(np.rint(g / s) - z, 0, top)
    meta = [a.tobytes() + b.astype(np.int16).tobytes() for a, b in zip(stored, z)]
    return meta, codes.astype(np.uint8), ((codes + z) * s).astype(f32)


def gridded(rule, x, values, group, bits):
    """A rule over groups, laid out unit by unit: metadata first, then one bit stream."""
    meta, codes, y = rule(x.reshape(-1, group))
    per = values // group
    codes = codes.reshape(-1, values)
    out = b"".join(
        b"".join(meta[u * per : (u + 1) * per]) + bits_of(codes[u], bits) for u in range(len(codes))
    )
    return out, y.reshape(x.shape)


# ---- others --------------------------------------------------------------------------------------


def rotate(x, size):
    """Orthonormal Walsh-Hadamard, widest butterfly first."""
    y, h = x.reshape(-1, size), size // 2
    while h:
        y = y.reshape(len(y), -1, 2, h)
        y = np.stack([y[:, :, 0] + y[:, :, 1], y[:, :, 0] - y[:, :, 1]], axis=2).reshape(len(y), size)
        h //= 2
    y = (y * (f32(1) / np.sqrt(f32(size)))).astype(f32)
    return y.reshape(x.shape)


def turn(x, angle, position):
    """RoPE of pairs (2i, 2i+1) by position x angle[i]."""
    by = np.float64(position) * angle
    c, s = np.cos(by).astype(f32), np.sin(by).astype(f32)
    y = np.empty_like(x)
    y[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
    y[..., 1::2] = x[..., 0::2] * s + x[..., 1::2] * c
    return y


def centred(rule, x, heads, tokens, before):
    """A rule on vectors less the mean of their sequence's first tokens. x: [rows][DIM], a token's
    heads one after the other. Means first, then what the rule makes of the rest."""
    seq = x.reshape(-1, heads, DIM)
    angle = 10000.0 ** (-np.arange(DIM // 2) / (DIM // 2)) if before else np.zeros(DIM // 2)
    first = np.stack([turn(v, angle, -t) for t, v in enumerate(seq[:tokens])]).astype(np.float64)
    mean = half((np.cumsum(first, axis=0)[-1] / len(first)).astype(f32))
    at = np.stack([turn(mean.astype(f32), angle, t) for t in range(len(seq))])
    data, y = rule((seq - at).reshape(x.shape))
    return mean.tobytes() + data, (y.reshape(seq.shape) + at).astype(f32)


def qaq(x, bits, alpha):
    """Outliers by torch.kthvalue, as QAQ's quantizer.py (f8d47e09): the order statistics below."""
    n = x.shape[1]
    low, last = int(np.ceil(alpha / 2 * n)), int(np.floor((1 - alpha / 2) * n))
    high = n - last
    out, decoded = [], []
    for row in x:
        lows = np.argsort(row, kind="stable")[:low]
        rest = np.setdiff1d(np.arange(n), lows)
        highs = rest[np.argsort(-row[rest], kind="stable")[:high]]
        if alpha > 0 and len(np.unique(row)) == n:  # the published selection, where nothing ties
            kth = np.sort(row)
            assert set(np.flatnonzero(row <= kth[low - 1])) == set(lows)
            assert set(np.flatnonzero(row > kth[last - 1])) == set(highs)
        inliers = np.setdiff1d(rest, highs)
        v = row[inliers]
        total = np.cumsum(v.astype(np.float64))[-1]  # one after the other
        s16 = half((v.max() - v.min()) / f32(2**bits))
        m16 = f32(total / len(v)).astype(f16)
        s, m, middle = f32(s16), f32(m16), 2 ** (bits - 1)
        q = np.zeros(n, f32)
        if s > 0:
            q[inliers] = np.clip(np.rint((v - m) / s), -middle, middle - 1) + f32(0)
        y = (q * s + m).astype(f32)
        data = s16.tobytes() + m16.tobytes()
        for i in list(lows) + list(highs):
            data += int(i).to_bytes(1 if n <= 256 else 2, "little") + half(row[i]).tobytes()
            y[i] = f32(half(row[i]))
        out.append(data + bits_of(q + middle, bits))
        decoded.append(y)
    return b"".join(out), np.array(decoded, f32)


def hqq(g, bits, steps):
    """HQQ's optimize_weights_proximal_legacy (e0b1d00e): lp 0.7, beta 10, one mean error over all
    groups, the last zeros kept, also those of the round that did not lower it."""
    top = f32(2**bits - 1)
    low = g.min(axis=1, keepdims=True)
    span = g.max(axis=1, keepdims=True) - low
    with np.errstate(divide="ignore"):
        scale = np.where(span <= f32(1e-4), f32(1), np.minimum(top / span, f32(2e4))).astype(f32)
    zero, best = -low * scale, np.inf
    for _ in range(steps):
        q = np.clip(np.rint(g * scale + zero), 0, top)
        e = g - (q - zero) / scale
        a = np.abs(e.astype(np.float64))
        with np.errstate(divide="ignore"):
            small = np.where(a > 0, np.maximum(a - a**-0.3 / 10.0, 0), 0)
        left = (q - (g - (np.sign(e) * small).astype(f32)) * scale).astype(np.float64)
        zero = (np.cumsum(left, axis=1)[:, -1:] / g.shape[1]).astype(f32)
        error = np.cumsum(a.reshape(-1))[-1]
        if not error < best:
            break
        best = error
    codes = np.clip(np.rint(g * scale + zero), 0, top) + f32(0)
    step, z = half(f32(1) / scale), half(zero)
    meta = [step[i].tobytes() + z[i].tobytes() for i in range(len(g))]
    return meta, codes.astype(np.uint8), ((codes - z.astype(f32)) * step.astype(f32)).astype(f32)


def zipcache(x, side, width):
    """ZipCache's mixed_channelwiseQ (K) and channel_separate_mixed_tokenwiseQ (V), b6932b99: the
    tokens of each width are gathered head by head. x: [tokens][heads][DIM], width: [tokens][heads]."""
    tokens, heads, _ = x.shape
    out, y, scale = b"", np.zeros_like(x), np.ones((heads, DIM), f32)
    if side == "v":
        scale = half(np.sqrt(np.abs(x).max(axis=0))).astype(f32)
        out = half(scale).tobytes()
    with np.errstate(divide="ignore", invalid="ignore"):
        v = np.where(scale > 0, x / scale, f32(0)).astype(f32)
    for bits in sorted(set(width.reshape(-1))):
        mine = [np.flatnonzero(width[:, h] == bits) for h in range(heads)]
        low, step = np.zeros_like(x), np.zeros_like(x)
        rows = max(len(m) for m in mine)
        if side == "k":  # a channel of a head
            groups = [[(t, h, c) for t in mine[h]] for h in range(heads) if len(mine[h]) for c in range(DIM)]
        else:  # a row: the i-th token of each head
            groups = [[(m[i], h, c) for h, m in enumerate(mine) if i < len(m) for c in range(DIM)]
                      for i in range(rows)]  # fmt: skip
        for cells in groups:
            at = tuple(np.array(cells).T)
            m = half(v[at].min() + f32(0))
            s = half((v[at].max() - f32(m)) / f32(2**bits - 1) + f32(0))
            out += s.tobytes() + m.tobytes()
            low[at], step[at] = f32(m), f32(s)
        with np.errstate(divide="ignore", invalid="ignore"):
            q = np.clip(np.where(step > 0, np.rint((v - low) / step), 0), 0, 2**bits - 1).astype(f32) + f32(0)
        chosen = width == bits
        out += bits_of(q[chosen], bits)
        y[chosen] = (((q * step).astype(f32) + low) * (scale if side == "v" else f32(1)))[chosen]
    return out, y


# Max 1960, table I
MAX = {1: [0.7980], 2: [0.4528, 1.510], 3: [0.2451, 0.7560, 1.344, 2.152],
       4: [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733]}  # fmt: skip


def turbo(x, bits):
    n = x.shape[1]
    upper = np.array(MAX[bits], f32) / np.sqrt(f32(n))
    levels = np.concatenate([-upper[::-1], upper])
    middle = (levels[:-1] + levels[1:]) * f32(0.5)
    sign = np.where(((np.arange(1, n + 1) * 0x9E3779B1) & 0xFFFFFFFF) >> 31, f32(-1), f32(1))
    n16 = half(np.sqrt(np.cumsum(x.astype(np.float64) ** 2, axis=1)[:, -1:]).astype(f32))
    norm = n16.astype(f32)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.where(norm == 0, f32(0), x / norm) * sign
    codes = (rotate(unit, n)[:, :, None] > middle).sum(axis=2).astype(np.uint8)
    y = (rotate(levels[codes], n) * sign * norm).astype(f32)
    return b"".join(n16[i].tobytes() + bits_of(codes[i], bits) for i in range(len(x))), y


NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
     0.7229568362236023, 1.0], f32)  # fmt: skip


def nf4(g):
    stored = half(np.abs(g).max(axis=1, keepdims=True))
    s = stored.astype(f32)
    middle = (NF4[:-1] + NF4[1:]) * f32(0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        v = np.where(s == 0, f32(0), g / s)
    codes = (v[:, :, None] > middle).sum(axis=2).astype(np.uint8)
    return [row.tobytes() for row in stored], codes, (NF4[codes] * s).astype(f32)


def fp8(x, kind, largest, scaled):
    s16 = half(np.abs(x).max(axis=1, keepdims=True) / f32(largest))
    s = s16.astype(f32) if scaled else np.ones((len(x), 1), f32)
    with np.errstate(divide="ignore", invalid="ignore"):
        v = np.where(s == 0, f32(0), x / s)
    codes = np.clip(v, -f32(largest), f32(largest)).astype(kind)
    rows = [(s16[i].tobytes() if scaled else b"") + codes[i].tobytes() for i in range(len(x))]
    return b"".join(rows), (codes.astype(f32) * s).astype(f32)


def ggml(x, name):
    kind = gguf.GGMLQuantizationType[name.upper()]
    codes = gguf.quants.quantize(x, kind)
    return codes.tobytes(), gguf.quants.dequantize(codes, kind).astype(f32)


def iq4_nl(x):
    """quantize_row_iq4_nl_ref of ggml's C; the gguf package decodes only."""
    levels = np.array(gguf.quants.IQ4_NL.kvalues, f32)
    b = x.reshape(-1, 32)
    largest = np.take_along_axis(b, np.abs(b).argmax(axis=1)[:, None], axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = f32(1) / (largest / levels[0])
        t = (inverse * b).astype(f32)
        t[~np.isfinite(t)] = 0
        distance = np.abs(t[:, :, None] - levels)
        codes = (15 - distance[:, :, ::-1].argmin(axis=2)).astype(np.uint8)  # ties to the upper
        sum_qx, sum_q2 = np.zeros(len(b), f32), np.zeros(len(b), f32)
        for i in range(32):
            q, w = levels[codes[:, i]], b[:, i] * b[:, i]
            sum_qx = sum_qx + w * q * b[:, i]
            sum_q2 = sum_q2 + w * q * q
        d = np.where(sum_q2 > 0, sum_qx / sum_q2, f32(0)).astype(f32)
    empty = np.abs(largest[:, 0]) < 1e-15
    codes[empty], d[empty] = 0, 0
    packed = codes[:, :16] | (codes[:, 16:] << 4)
    data = np.concatenate([d.astype(f16)[:, None].view(np.uint8), packed], axis=1)
    kind = gguf.GGMLQuantizationType.IQ4_NL
    return data.tobytes(), gguf.quants.dequantize(data.reshape(len(x), -1), kind).astype(f32)


# ---- the cases -----------------------------------------------------------------------------------


class Cases:
    def __init__(self):
        self.rows, self.codes = [], b""

    def add(self, spec, side, bits, heads, made, by):
        data, decoded = made
        crc = zlib.crc32(np.ascontiguousarray(decoded, f32).tobytes())
        self.rows.append((spec, side, bits, heads, len(self.codes), len(data), zlib.crc32(data), crc, by))
        self.codes += data


def grids(c, x):
    for bits in (2, 3, 4, 5, 6, 8):
        c.add("sym", "k", bits, 1, gridded(lambda g: sym(g, bits), x, 64, 64, bits), "numpy")
        c.add("asym", "k", bits, 1, gridded(lambda g: asym(g, bits), x, 64, 64, bits), "numpy")
        c.add("asym-zp", "k", bits, 1,
              gridded(lambda g: zero_point(g, bits, "kvtuner"), x, 64, 64, bits), "numpy")  # fmt: skip
    for bits in (2, 4, 8):
        c.add("sym:group=32", "v", bits, 1, gridded(lambda g: sym(g, bits), x, 64, 32, bits), "numpy")
        c.add("asym:group=16", "v", bits, 1, gridded(lambda g: asym(g, bits), x, 64, 16, bits), "numpy")
        c.add("sym:scale=fp32", "k", bits, 1,
              gridded(lambda g: sym(g, bits, wide=True), x, 64, 64, bits), "numpy")  # fmt: skip
        c.add("asym:group=layer", "k", bits, 4, gridded(lambda g: asym(g, bits), x, 256, 256, bits), "numpy")
        c.add("asym-zp:way=rotatekv,clip=0.9", "k", bits, 1,
              gridded(lambda g: zero_point(g, bits, "rotatekv", 0.9), x, 64, 64, bits), "numpy")  # fmt: skip
    c.add("sym:levels=max3", "k", 4, 1, gridded(lambda g: sym(g, 4, levels=3), x, 64, 64, 4), "numpy")


def kivi(c, x):
    for bits in (2, 4):
        channels = np.ascontiguousarray(x.reshape(2, 32, DIM).transpose(0, 2, 1))
        data, y = gridded(lambda g: asym(g, bits), channels, 32 * DIM, 32, bits)
        c.add("kivi", "k", bits, 1, (data, y.transpose(0, 2, 1)), "numpy")
        c.add("kivi", "v", bits, 1, gridded(lambda g: asym(g, bits), x, 64, 32, bits), "numpy")


def rotated(c, x):
    r = rotate(x, 64)
    h = np.array([[1.0]])
    while len(h) < 64:
        h = np.block([[h, h], [h, -h]])
    assert np.allclose(r, x.astype(np.float64) @ h / 8, rtol=1e-4, atol=1e-4 * np.abs(x).max(axis=1)[:, None])
    data, y = gridded(lambda g: sym(g, 4), r, 64, 64, 4)
    c.add("hadamard(sym)", "k", 4, 1, (data, rotate(y, 64)), "numpy")
    data, y = ggml(r, "q4_0")
    c.add("hadamard(q4_0)", "v", 4, 1, (data, rotate(y, 64)), "gguf after numpy")
    for bits in (2, 3, 4):
        clip = 0.8 if bits == 2 else 1.0
        four = rotate(x, 256)
        data, y = gridded(lambda g: zero_point(g, bits, "rotatekv", clip), four, 256, 64, bits)
        c.add("rotatekv:heads=4", "k", bits, 4, (data, rotate(y, 256)), "numpy")
        data, y = gridded(lambda g: zero_point(g, bits, "rotatekv", clip), r, 64, 64, bits)
        c.add("rotatekv", "v", bits, 1, (data, rotate(y, 64)), "numpy")


def centres(c, x):
    for bits in (2, 4, 8):
        four = lambda v: gridded(lambda g: asym(g, bits), v, 64, 32, bits)  # noqa: E731
        c.add("center(asym:group=32)", "k", bits, 1, centred(four, x, 1, 16, False), "numpy")
        c.add("center(asym:group=32):side=pre", "k", bits, 1, centred(four, x, 1, 16, True), "numpy")
    layer = lambda v: gridded(lambda g: sym(g, 4), v, 256, 256, 4)  # noqa: E731
    c.add("center(sym:group=layer):side=pre,tokens=5", "k", 4, 4, centred(layer, x, 4, 5, True), "numpy")
    c.add("center(q4_0):sides=both", "v", 4, 4, centred(lambda v: ggml(v, "q4_0"), x, 4, 16, False), "gguf after numpy")


def main():
    x = make_input()
    c = Cases()
    grids(c, x)
    kivi(c, x)
    for bits in (1, 2, 4, 8):
        c.add("qaq", "k", bits, 1, qaq(x, bits, 0.01), "numpy")
    c.add("qaq:group=layer", "v", 4, 4, qaq(x.reshape(-1, 256), 4, 0.01), "numpy")
    c.add("qaq:outliers=0", "v", 3, 1, qaq(x, 3, 0.0), "numpy")
    for bits in (1, 2, 4, 8):
        c.add("hqq", "k", bits, 1, gridded(lambda g: hqq(g, bits, 20), x, 64, 64, bits), "numpy")
    c.add("hqq:group=32,steps=0", "v", 4, 1, gridded(lambda g: hqq(g, 4, 0), x, 64, 32, 4), "numpy")
    c.add("hqq:group=32", "v", 3, 1, gridded(lambda g: hqq(g, 3, 20), x, 64, 32, 3), "numpy")
    cells = np.arange(ROWS).reshape(-1, 4)
    for side in "kv":
        for bits in (2, 4, 8):
            c.add("zipcache", side, bits, 4, zipcache(x.reshape(-1, 4, DIM), side, 0 * cells + bits), "numpy")
        mixed = np.where(cells * 5 % 7 < 3, 2, 4)  # "bits 0"
        c.add("zipcache", side, 0, 4, zipcache(x.reshape(-1, 4, DIM), side, mixed), "numpy")
    for bits in (1, 2, 3, 4):
        c.add("turbo", "k", bits, 1, turbo(x, bits), "numpy")
    rotated(c, x)
    centres(c, x)
    for name, bits in (("q8_0", 8), ("q5_0", 5), ("q5_1", 5), ("q4_0", 4), ("q4_1", 4)):
        c.add(name, "k", bits, 1, ggml(x, name), "gguf")
    c.add("iq4_nl", "k", 4, 1, iq4_nl(x), "numpy; decoded by gguf")
    c.add("nf4", "k", 4, 1, gridded(nf4, x, 64, 64, 4), "numpy")
    c.add("nf4:group=32", "k", 4, 1, gridded(nf4, x, 64, 32, 4), "numpy")
    for scaled in (False, True):
        key = ":scale=head" if scaled else ""
        c.add("fp8_e4m3" + key, "k", 8, 1, fp8(x, ml_dtypes.float8_e4m3fn, 448, scaled), "ml_dtypes")
        c.add("fp8_e5m2" + key, "k", 8, 1, fp8(x, ml_dtypes.float8_e5m2, 57344, scaled), "ml_dtypes")
    b16 = x.astype(ml_dtypes.bfloat16)
    c.add("bf16", "k", 16, 1, (b16.tobytes(), b16.astype(f32)), "ml_dtypes")
    h16 = x.astype(f16)
    c.add("fp16", "k", 16, 1, (h16.tobytes(), h16.astype(f32)), "numpy")
    x.tofile(os.path.join(HERE, "input.f32"))
    with open(os.path.join(HERE, "codes.bin"), "wb") as out:
        out.write(c.codes)
    with open(os.path.join(HERE, "cases.tsv"), "w") as out:
        out.write("spec\tside\tbits\theads\toffset\tbytes\tcodes_crc32\tdecoded_crc32\tmade_by\n")
        for row in c.rows:
            out.write("\t".join(map(str, row)) + "\n")
    print(len(c.rows), "cases,", len(c.codes), "bytes of codes")


if __name__ == "__main__":
    main()
