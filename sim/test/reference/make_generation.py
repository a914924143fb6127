#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Greedy continuations of SmolLM2-135M in plain numpy (float32), a token at a time over a cache of its own.

    make_generation.py MODEL.gguf samples.json OUT.json [PROMPTS [TOKENS]]    20 prompts, 64 tokens

Prompts are the contexts of samples.json. Beside each token stands how far the second logit is below the first:
two programs that round differently may part where that is small.
"""
import json
import sys

import numpy as np

from make_reference import Model, f32


class Decoder:
    def __init__(self, model, prompts):
        self.m, self.lengths = model, [0] * len(prompts)
        empty = lambda: [[None] * len(prompts) for _ in range(model.n_layers)]
        self.k, self.v = empty(), empty()

    def attend(self, q, k, v):
        """One query [heads, d] over keys [n, kv heads, d]."""
        group = self.m.n_heads // self.m.n_kv
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        s = np.einsum("hd,nhd->hn", q, k) / f32(np.sqrt(q.shape[-1]))
        p = np.exp(s - s.max(-1, keepdims=True))
        return np.einsum("hn,nhd->hd", p / p.sum(-1, keepdims=True), v)

    def feed(self, ids, which):
        """Logits behind one token of each of the sequences `which`."""
        m, w, n = self.m, self.m.w, len(ids)
        pos = np.array([self.lengths[i] for i in which])
        x = w["token_embd.weight"][ids]
        for layer in range(m.n_layers):
            b = f"blk.{layer}."
            h = m.norm(x, b + "attn_norm.weight")
            q = m.rope((h @ w[b + "attn_q.weight"].T).reshape(n, m.n_heads, -1), pos)
            k = m.rope((h @ w[b + "attn_k.weight"].T).reshape(n, m.n_kv, -1), pos)
            v = (h @ w[b + "attn_v.weight"].T).reshape(n, m.n_kv, -1)
            rows = []
            for r, i in enumerate(which):
                held = self.k[layer][i], self.v[layer][i]
                grown = [new[None] if old is None else np.vstack([old, new[None]])
                         for old, new in zip(held, (k[r], v[r]))]
                self.k[layer][i], self.v[layer][i] = grown
                rows.append(self.attend(q[r], *grown).reshape(-1))
            x = x + np.stack(rows) @ w[b + "attn_output.weight"].T
            h = m.norm(x, b + "ffn_norm.weight")
            gate, up = h @ w[b + "ffn_gate.weight"].T, h @ w[b + "ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[b + "ffn_down.weight"].T
        for i in which:
            self.lengths[i] += 1
        return m.norm(x, "output_norm.weight") @ w.get("output.weight", w["token_embd.weight"]).T


def generate(model, prompts, n_tokens):
    d = Decoder(model, prompts)
    last = [None] * len(prompts)
    for t in range(max(map(len, prompts))):  # prompts are fed beside each other until each ends
        which = [i for i, p in enumerate(prompts) if t < len(p)]
        for i, row in zip(which, d.feed([prompts[i][t] for i in which], which)):
            last[i] = row
    out = [([], []) for _ in prompts]
    for _ in range(n_tokens):
        for i, row in enumerate(last):
            second, first = np.partition(row, -2)[-2:]
            out[i][0].append(int(row.argmax()))
            out[i][1].append(round(float(first - second), 5))
        last = d.feed([o[0][-1] for o in out], list(range(len(prompts))))
    return out


def main(path, samples, to, n_prompts="20", n_tokens="64"):
    prompts = [i["context_ids"] for i in json.load(open(samples))["items"][:int(n_prompts)]]
    rows = [json.dumps({"prompt": p, "tokens": tokens, "gap": gap})
            for p, (tokens, gap) in zip(prompts, generate(Model(path), prompts, int(n_tokens)))]
    name = "SmolLM2-135M-Instruct Q4_1 GGUF dequantized to float32"
    with open(to, "w") as f:
        f.write(f'{{"model": "{name}", "prompts": [\n' + ",\n".join(rows) + "\n]}\n")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
