#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""CRC-32s of decoded weights, as the gguf package decodes them; kvsim's decoders must give the same bits.

    make_weights.py blocks > weight_blocks.tsv       4,096 random blocks of each tensor type
    make_weights.py model FILE.gguf > NAME.tsv       every tensor of a file

Random byte i of a type is the top 8 bits of kv_draw(15, number of the type, i) (policies/policy.h).
Then numbers that stand in a block as floats are made finite, and 0 (with their sign) in each 16th block.
"""
import hashlib
import os
import sys
import zlib

import numpy as np
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from draws import words

N_BLOCKS = 4096
SEED = 15
HALF, BRAIN = 0x7C00, 0x7F80  # bits of the exponent: binary16; bfloat16, and float32's upper half
# Where floats stand in a block; a float32 is judged by its upper half.
FLOATS = {
    "F32": (BRAIN, [2]), "F16": (HALF, [0]), "BF16": (BRAIN, [0]),
    "Q4_0": (HALF, [0]), "Q4_1": (HALF, [0, 2]), "Q5_0": (HALF, [0]), "Q5_1": (HALF, [0, 2]),
    "Q8_0": (HALF, [0]), "Q2_K": (HALF, [80, 82]), "Q3_K": (HALF, [108]), "Q4_K": (HALF, [0, 2]),
    "Q5_K": (HALF, [0, 2]), "Q6_K": (HALF, [208]), "IQ4_NL": (HALF, [0]), "IQ4_XS": (HALF, [0]),
}


def random_blocks(kind):
    exponent, places = FLOATS[kind.name]
    size = GGML_QUANT_SIZES[kind][1]
    drawn = words(SEED, int(kind), N_BLOCKS * size) >> np.uint64(56)
    blocks = drawn.astype(np.uint8).reshape(N_BLOCKS, size)
    for at in places:
        x = blocks[:, at].astype(np.uint16) | blocks[:, at + 1].astype(np.uint16) << 8
        x[x & exponent == exponent] &= 0xBFFF
        x[::16] &= 0x8000
        blocks[:, at], blocks[:, at + 1] = x & 255, x >> 8
    return blocks


def values_crc(data, kind, crc=0):
    """CRC-32 of the float32s that rows of bytes decode to, 64 MB at a time."""
    rows = data.reshape(-1, data.shape[-1])
    step = max(1, (1 << 24) // rows.shape[1])
    for i in range(0, len(rows), step):
        values = dequantize(rows[i : i + step], kind).astype("<f4")
        crc = zlib.crc32(np.ascontiguousarray(values).tobytes(), crc)
    return crc


def write_blocks():
    print("type\tnumber\tblock_values\tblock_bytes\tblocks_crc\tvalues_crc")
    plain = {"F32": "<f4", "F16": "<f2"}
    for name in FLOATS:
        kind = GGMLQuantizationType[name]
        blocks = random_blocks(kind)
        data = blocks.view(plain[name]) if name in plain else blocks
        crcs = zlib.crc32(blocks.tobytes()), values_crc(data, kind)
        print(name, int(kind), *GGML_QUANT_SIZES[kind], *(f"{c:08x}" for c in crcs), sep="\t")


def write_model(path):
    with open(path, "rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    print(f"# {os.path.basename(path)}\t{os.path.getsize(path)}\t{sha256}")
    print("tensor\ttype\trows\tcols\tvalues_crc")
    for t in GGUFReader(path).tensors:
        cols, rows = int(t.shape[0]), int(np.prod(t.shape[1:], dtype=np.int64))
        crc = values_crc(t.data, t.tensor_type)
        print(t.name, t.tensor_type.name, rows, cols, f"{crc:08x}", sep="\t")


def main():
    if sys.argv[1:] == ["blocks"]:
        write_blocks()
    elif len(sys.argv) == 3 and sys.argv[1] == "model":
        write_model(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    np.seterr(over="ignore")
    main()
