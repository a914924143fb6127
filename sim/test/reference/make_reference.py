# SPDX-License-Identifier: Apache-2.0
# Reference log-probabilities of SmolLM2-135M in plain numpy, apart from the C code it judges.
"""Four uses (the exact commands are in README.md beside this file):

  make_reference.py MODEL.gguf tokens TOKENS.json            check the tokenizer
  make_reference.py MODEL.gguf check  REFERENCE.json [N]     recompute N items of a reference file
  make_reference.py MODEL.gguf score  SENTENCES.jsonl        accuracy over a HellaSwag file, float32
  make_reference.py MODEL.gguf write  SENTENCES.jsonl OUT N  N items over the file, all formats
"""
import json
import sys

import numpy as np
from gguf import GGUFReader, dequantize
from tokenizers import Tokenizer, models, pre_tokenizers

f32 = np.float32


def sym(bits):
    """One scale for each vector of 64; codes are signed and symmetric."""
    top = f32(2 ** (bits - 1) - 1)

    def code(x):
        scale = (np.abs(x).max(-1, keepdims=True) / top).astype(np.float16).astype(f32)
        return np.clip(np.rint(x / np.where(scale == 0, f32(1), scale)), -top, top) * scale

    return code


def asym4_g32(x):
    """A minimum and a scale for each half of the vector; 16 levels."""
    g = x.reshape(*x.shape[:-1], -1, 32)
    low = g.min(-1, keepdims=True).astype(np.float16).astype(f32)
    scale = ((g.max(-1, keepdims=True) - low) / f32(15)).astype(np.float16).astype(f32)
    codes = np.clip(np.rint((g - low) / np.where(scale == 0, f32(1), scale)), 0, 15)
    return (codes * scale + low).reshape(x.shape)


FORMATS = {"float32": lambda x: x, "sym8": sym(8), "sym4": sym(4), "asym4_g32": asym4_g32}


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        meta = {k: field.contents() for k, field in reader.fields.items()}
        self.w = {t.name: dequantize(t.data, t.tensor_type).astype(f32) for t in reader.tensors}
        self.n_layers = meta["llama.block_count"]
        self.n_heads = meta["llama.attention.head_count"]
        self.n_kv = meta["llama.attention.head_count_kv"]
        self.eps = f32(meta["llama.attention.layer_norm_rms_epsilon"])
        dim = meta["llama.rope.dimension_count"]
        self.freq = meta["llama.rope.freq_base"] ** (-np.arange(0, dim, 2) / dim)
        vocab = {token: i for i, token in enumerate(meta["tokenizer.ggml.tokens"])}
        merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
        self.tokenizer = Tokenizer(models.BPE(vocab, merges))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x, pos):
        """Rotates dims 2i and 2i+1 together, the order in which a GGUF holds Q and K."""
        angle = pos[:, None] * self.freq
        cos, sin = np.cos(angle).astype(f32)[:, None], np.sin(angle).astype(f32)[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    def hidden(self, ids, pos, visible, code):
        """Final hidden states [n, embedding]; token i attends to j where visible[i, j]."""
        w, n = self.w, len(ids)
        x = w["token_embd.weight"][ids]
        for layer in range(self.n_layers):
            b = f"blk.{layer}."
            h = self.norm(x, b + "attn_norm.weight")
            q = self.rope((h @ w[b + "attn_q.weight"].T).reshape(n, self.n_heads, -1), pos)
            k = self.rope((h @ w[b + "attn_k.weight"].T).reshape(n, self.n_kv, -1), pos)
            v = (h @ w[b + "attn_v.weight"].T).reshape(n, self.n_kv, -1)
            k, v = (np.repeat(code(t), self.n_heads // self.n_kv, axis=1) for t in (k, v))
            q, k, v = (t.transpose(1, 0, 2) for t in (q, k, v))
            s = np.where(visible, q @ k.transpose(0, 2, 1) / f32(np.sqrt(q.shape[-1])), -np.inf)
            p = np.exp(s - s.max(-1, keepdims=True))
            a = (p / p.sum(-1, keepdims=True)) @ v
            x = x + a.transpose(1, 0, 2).reshape(n, -1) @ w[b + "attn_output.weight"].T
            h = self.norm(x, b + "ffn_norm.weight")
            gate, up = h @ w[b + "ffn_gate.weight"].T, h @ w[b + "ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[b + "ffn_down.weight"].T
        return self.norm(x, "output_norm.weight")

    def logprobs(self, context, choices, code):
        """Summed log-probability of each choice; the choices branch off one context (a tree)."""
        branch = np.array([-1] * len(context) + [i for i, c in enumerate(choices) for _ in c])
        pos = np.array(list(range(len(context)))
                       + [len(context) + j for c in choices for j in range(len(c))])
        order = np.arange(len(branch))
        visible = (order[None] <= order[:, None]) & (
            (branch == -1)[None] | (branch[None] == branch[:, None]))
        h = self.hidden(context + sum(choices, []), pos, visible, code)
        sums, start = [], len(context)
        for c in choices:
            rows = np.vstack([h[len(context) - 1], h[start:start + len(c) - 1]])
            logits = rows @ self.w.get("output.weight", self.w["token_embd.weight"]).T
            top = logits.max(-1)
            total = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
            sums.append(float((logits[np.arange(len(c)), c] - total).sum()))
            start += len(c)
        return sums

    def tokens_of(self, item):
        """`prompt=harness`: the text of lm-evaluation-harness, ctx_b capitalised."""
        text = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}".strip()
        context = self.encode(text)
        return context, [self.encode(f"{text} {e}")[len(context):] for e in item["endings"]]


def wilson(k, n, z=1.959964):
    mid, half = k + z * z / 2, z * np.sqrt(k * (n - k) / n + z * z / 4)
    low, high = (mid - half) / (n + z * z), (mid + half) / (n + z * z)
    return f"{k}/{n} = {k / n:.4f} [{low:.4f}, {high:.4f}]"


def tokens(model, path):
    cases = json.load(open(path))
    bad = [c["text"] for c in cases if model.encode(c["text"]) != c["ids"]]
    print(f"{len(cases) - len(bad)} of {len(cases)} strings agree", *bad, sep="\n")


def check(model, path, n="8"):
    items = json.load(open(path))["items"]
    items = items[::max(1, len(items) // int(n))][:int(n)]
    for name, code in FORMATS.items():
        ours = [np.array(model.logprobs(i["context_ids"], i["choice_ids"], code)) for i in items]
        theirs = [np.array(i["logprob"][name]) for i in items]
        diff = np.concatenate(ours) - np.concatenate(theirs)
        picks = sum(a.argmax() == b.argmax() for a, b in zip(ours, theirs))
        if name == "float32":
            base, extra = ours, ""
        else:  # the shift against float32: its mean, spread, and correlation within items
            a, b = ([x - y for x, y in zip(s, base)] for s in (ours, theirs))
            centred = [np.concatenate([x - x.mean() for x in s]) for s in (a, b)]
            a, b = np.concatenate(a), np.concatenate(b)
            mean = np.array([(x - y).mean() for x, y in zip(ours, theirs)])
            error = mean.std(ddof=1) / np.sqrt(len(mean))
            extra = (f" shift mean {a.mean():.3f}/{b.mean():.3f} sd {a.std():.2f}/{b.std():.2f}"
                     f" correlation {np.corrcoef(*centred)[0, 1]:.2f}"
                     f" difference {mean.mean():.3f} +- {error:.3f}")
        print(f"{name}: |difference| mean {np.abs(diff).mean():.5f} max {np.abs(diff).max():.5f}"
              f" picks {picks}/{len(items)}{extra}", flush=True)


def score(model, path):
    acc = norm = n_tokens = 0
    items = [json.loads(line) for line in open(path)]
    for item in items:
        context, choices = model.tokens_of(item)
        lp = np.array(model.logprobs(context, choices, FORMATS["float32"]))
        chars = [len(e) for e in item["endings"]]
        acc += lp.argmax() == item["label"]
        norm += (lp / chars).argmax() == item["label"]
        n_tokens += len(context) + sum(map(len, choices))
    print(f"acc {wilson(acc, len(items))}\nacc_norm {wilson(norm, len(items))}")
    print(f"{n_tokens / len(items):.2f} tokens an item")


def write(model, path, out, n):
    items = [json.loads(line) for line in open(path)]
    rows = []
    for item in (items[i * len(items) // int(n)] for i in range(int(n))):
        context, choices = model.tokens_of(item)
        rows.append(json.dumps({
            "ind": item["ind"], "gold": item["label"],
            "context_ids": context, "choice_ids": choices,
            "logprob": {name: [round(x, 5) for x in model.logprobs(context, choices, code)]
                        for name, code in FORMATS.items()}}))
    with open(out, "w") as f:
        model_name = "SmolLM2-135M-Instruct Q4_1 GGUF dequantized to float32"
        f.write(f'{{"model": "{model_name}", "items": [\n' + ",\n".join(rows) + "\n]}\n")


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] not in ("tokens", "check", "score", "write"):
        sys.exit(__doc__)
    globals()[sys.argv[2]](Model(sys.argv[1]), *sys.argv[3:])
