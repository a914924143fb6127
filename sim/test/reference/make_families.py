# SPDX-License-Identifier: Apache-2.0
# Reference log-probabilities of Qwen2.5 and Gemma 3 by `transformers`, apart from the C code they judge.
"""Two uses (the exact commands are in README.md beside this file):

  make_families.py MODEL.gguf samples SENTENCES.jsonl TEXT.txt OUT.json N   N items and the beginning of a text
  make_families.py MODEL.gguf facts   FAMILIES.json NAME HELLASWAG.jsonl.gz WIKITEXT.txt [N]   recompute N items

Weights are the GGUF's, dequantized by the gguf package; ids are those of `tokenizers` and `sentencepiece`
(make_token_digests.py). Every choice is a sequence of its own.
"""
import gzip
import json
import re
import sys
import zlib

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Qwen2Config, Qwen2ForCausalLM

from make_token_digests import encoder, harness

TEXT_IDS = 700  # beyond Gemma's window of 512

LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
         "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
QWEN2 = LAYER | {"ffn_norm": "post_attention_layernorm"}
GEMMA3 = LAYER | {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
                  "post_ffw_norm": "post_feedforward_layernorm"}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load_weights(model, reader, layer_names, norms_less_1):
    weights = {}
    for t in reader.tensors:
        block, _, kind = t.name.rpartition(".")
        layer = re.fullmatch(r"blk\.(\d+)\.(.+)", block)
        name = f"model.layers.{layer[1]}.{layer_names[layer[2]]}" if layer else WHOLE[block]
        x = np.array(dequantize(t.data, t.tensor_type), np.float32)
        if norms_less_1 and "norm" in name:
            x -= 1  # what llama.cpp's converter has added
        weights[f"{name}.{kind}"] = torch.from_numpy(x)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown and set(missing) <= {"lm_head.weight"}, (missing, unknown)
    model.tie_weights()
    return model.eval()


def common(meta, family):
    return {"num_hidden_layers": meta[f"{family}.block_count"], "hidden_size": meta[f"{family}.embedding_length"],
            "intermediate_size": meta[f"{family}.feed_forward_length"],
            "num_attention_heads": meta[f"{family}.attention.head_count"],
            "num_key_value_heads": meta[f"{family}.attention.head_count_kv"],
            "rms_norm_eps": meta[f"{family}.attention.layer_norm_rms_epsilon"],
            "max_position_embeddings": meta[f"{family}.context_length"],
            "vocab_size": len(meta["tokenizer.ggml.tokens"]), "attn_implementation": "eager"}


def qwen2(reader, meta):
    untied = any(t.name == "output.weight" for t in reader.tensors)
    config = Qwen2Config(**common(meta, "qwen2"), tie_word_embeddings=not untied, rope_parameters={
        "rope_type": "default", "rope_theta": meta["qwen2.rope.freq_base"]})
    return load_weights(Qwen2ForCausalLM(config), reader, QWEN2, False)


def gemma3(reader, meta):
    # What the GGUF does not say is in config.json of google/gemma-3-270m.
    config = Gemma3TextConfig(
        **common(meta, "gemma3"), head_dim=meta["gemma3.attention.key_length"], query_pre_attn_scalar=256,
        sliding_window=meta["gemma3.attention.sliding_window"], tie_word_embeddings=True,
        layer_types=["sliding_attention" if (i + 1) % 6 else "full_attention"
                     for i in range(meta["gemma3.block_count"])],
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": meta["gemma3.rope.freq_base"]},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})
    return load_weights(Gemma3ForCausalLM(config), reader, GEMMA3, True)


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        meta = {k: field.contents() for k, field in reader.fields.items()}
        self.model = {"qwen2": qwen2, "gemma3": gemma3}[meta["general.architecture"]](reader, meta)
        self.ids_of = encoder(path)
        self.bos = [meta["tokenizer.ggml.bos_token_id"]] if meta["tokenizer.ggml.add_bos_token"] else []

    def encode(self, text):
        return self.bos + self.ids_of([text])[0]


@torch.no_grad()
def score(model, ids, n_context):
    """Log-probability of each token after the first n_context."""
    logits = model.model(torch.tensor([ids])).logits[0, n_context - 1:-1].double()
    return torch.log_softmax(logits, -1)[torch.arange(len(ids) - n_context), torch.tensor(ids[n_context:])]


def tokens_of(model, context, endings):
    """Ids of the context and of each whole, as lm-evaluation-harness cuts them."""
    ids = model.encode(context)
    return ids, [model.encode(f"{context} {e}") for e in endings]


def crc(ids):
    return zlib.crc32(np.array(ids, "<u4").tobytes())


def beginning(model, path, n):
    with open(path, encoding="utf-8", newline="") as f:
        ids = model.encode(f.read(8 * n))
    ids = ids[:len(model.bos) + n]
    return ids, score(model, ids, len(model.bos) + 1)


def samples(model, sentences, text, out, n):
    items, rows = [json.loads(line) for line in open(sentences)], []
    for item in (items[i * len(items) // int(n)] for i in range(int(n))):
        text_of = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}".strip()
        context, wholes = tokens_of(model, text_of, item["endings"])
        rows.append(json.dumps({
            "ind": item["ind"], "gold": item["label"], "context_ids": context,
            "choice_ids": [w[len(context):] for w in wholes],
            "logprob": {"float32": [round(float(score(model, w, len(context)).sum()), 5) for w in wholes]}}))
        print(rows[-1][:60], flush=True)
    ids, scores = beginning(model, text, TEXT_IDS)
    whole = json.dumps({"ids": ids, "logprob": [round(float(x), 5) for x in scores]})
    with open(out, "w") as f:
        f.write(f'{{"text": {whole},\n"items": [\n' + ",\n".join(rows) + "\n]}\n")


def facts(model, families, name, hellaswag, wikitext, n="30"):
    known = json.load(open(families))[name]
    items = [json.loads(line) for line in gzip.open(hellaswag)]
    off, wrong = [], 0
    for row in known["items"][:int(n)]:
        item = items[row["ind"]]
        ctx = item["ctx_a"] + " " + item["ctx_b"].capitalize()
        context, wholes = tokens_of(model, harness(item["activity_label"] + ": " + ctx),
                                    [harness(e) for e in item["endings"]])
        wrong += [crc(w) for w in wholes] != row["crc32"]
        off += [float(score(model, w, len(context)).sum()) - x for w, x in zip(wholes, row["logprob"]["float32"])]
        print(f"{row['ind']}: up to {np.abs(off[-4:]).max():.5f}, {wrong} items of other ids", flush=True)
    print(f"{len(off)} choices: up to {np.abs(off).max():.5f}; {wrong} items of other ids")
    ids, scores = beginning(model, wikitext, 1024)
    theirs = known["wikitext"]
    print(f"WikiText: {float(scores.sum()):.3f}, theirs {theirs['float32']:.3f}; "
          f"ids {'as theirs' if crc(ids) == theirs['crc32'] else 'differ'}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[2] not in ("samples", "facts"):
        sys.exit(__doc__)
    torch.set_num_threads(2)
    globals()[sys.argv[2]](Model(sys.argv[1]), *sys.argv[3:])
