# SPDX-License-Identifier: Apache-2.0
# Log-probabilities of small models of random weights by `transformers`, apart from the C code they judge.
"""make_small_models.py OUT.json

Each model is a Hugging Face folder: config.json as given below, weights drawn by a formula that the C test
(sim/model/test/test_small_models.c) draws by too. `transformers` opens the folder as it would any other; OUT.json holds
what the test needs to make it again, 48 token ids, and the log-probability of each of the last 47.
"""
import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from draws import draw

N_IDS = 48
VOCAB = 261  # pieces of the test's tokenizer: 256 bytes and five merges


def shape(layers, heads, kv_heads, head_dim, hidden, ffn, vocab=VOCAB, tokens=64, eps=1e-6):
    return {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "head_dim": head_dim, "hidden_size": hidden, "intermediate_size": ffn, "vocab_size": vocab,
            "max_position_embeddings": tokens, "rms_norm_eps": eps}


def kind(name, model_type, act="silu", key="hidden_act"):
    return {"architectures": [name], "model_type": model_type, key: act}


LLAMA = kind("LlamaForCausalLM", "llama")
QWEN2 = kind("Qwen2ForCausalLM", "qwen2")
QWEN3 = kind("Qwen3ForCausalLM", "qwen3")
GEMMA3 = kind("Gemma3ForCausalLM", "gemma3_text", "gelu_pytorch_tanh", "hidden_activation")
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
V4, V5 = {"torch_dtype": "float32", "transformers_version": "4.51.3"}, {"dtype": "float32", "transformers_version": "5.2.0"}
SLIDING = ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]

def plain(theta):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


# Name, config, files, type of the weights; and what must move a log-probability when it is left out, or the figures
# would not judge it: keys of the config with another value, or tensors (part of their name) that are one constant.
MODELS = [
    ("qwen2", QWEN2 | shape(2, 4, 2, 16, 64, 96) | V4 | {
        "rope_theta": 1000000.0, "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": 32768,
        "max_window_layers": 2}, 1, "F32", [{"rope_theta": 10000.0}, "q_proj.bias", "k_proj.bias", "v_proj.bias"]),
    ("qwen2, tied, a padded vocabulary, shards of BF16", QWEN2 | shape(3, 2, 1, 32, 64, 96, vocab=288) | V5 | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "tie_word_embeddings": True,
        "use_sliding_window": False, "sliding_window": None, "layer_types": ["full_attention"] * 3}, 2, "BF16", [plain(10000.0)]),
    ("qwen2, yarn", QWEN2 | shape(2, 2, 2, 64, 128, 96) | V4 | {
        "rope_theta": 10000.0, "tie_word_embeddings": True, "use_sliding_window": False,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
     1, "F32", [{"rope_scaling": None}]),
    ("qwen3, heads of 128 apart from the width", QWEN3 | shape(2, 2, 1, 128, 64, 96) | V4 | {
        "rope_theta": 1000000.0, "rope_scaling": None, "tie_word_embeddings": True, "attention_bias": False,
        "use_sliding_window": False, "sliding_window": None}, 1, "F32", ["q_norm", "k_norm"]),
    ("qwen3, untied, shards", QWEN3 | shape(3, 4, 2, 32, 96, 64) | V5 | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0}, "tie_word_embeddings": False,
        "attention_bias": False, "use_sliding_window": False, "layer_types": ["full_attention"] * 3}, 3, "F32", [plain(10000.0)]),
    ("gemma3, windows of 8", GEMMA3 | shape(7, 2, 1, 32, 64, 96) | V4 | {
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window": 8,
        "sliding_window_pattern": 6, "query_pre_attn_scalar": 20}, 1, "F32",
     [{"sliding_window": 64}, {"sliding_window": 9}, {"sliding_window_pattern": 5}, {"rope_theta": 10000.0},
      {"rope_local_base_freq": 1000000.0}, {"query_pre_attn_scalar": 32}, "q_norm", "k_norm", "input_layernorm",
      "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]),
    ("gemma3, heads of 256, full layers stretched", GEMMA3 | shape(7, 2, 1, 256, 64, 96) | V5 | {
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        "sliding_window": 12, "layer_types": SLIDING, "query_pre_attn_scalar": 256, "tie_word_embeddings": True,
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "use_bidirectional_attention": False},
     1, "F32", [{"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                                     "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
                {"sliding_window": 64}, {"layer_types": SLIDING[1:] + SLIDING[:1]}]),
    ("llama, heads of 80, llama3 frequencies", LLAMA | shape(2, 2, 1, 80, 160, 96, eps=1e-5) | V4 | {
        "rope_theta": 500000.0, "rope_scaling": LLAMA3 | {"rope_type": "llama3"}, "tie_word_embeddings": True},
     1, "F32", [{"rope_scaling": None}]),
    ("llama, heads of 128, biases", LLAMA | shape(2, 2, 2, 128, 96, 64, eps=1e-5) | V5 | {
        "rope_parameters": LLAMA3 | {"rope_type": "llama3", "rope_theta": 10000.0}, "tie_word_embeddings": False,
        "attention_bias": True, "mlp_bias": True}, 2, "F32",
     [plain(10000.0), "q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias", "gate_proj.bias", "up_proj.bias", "down_proj.bias"]),
    ("llama, heads of 96, linear", LLAMA | shape(2, 2, 1, 96, 64, 96) | V4 | {
        "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}, "tie_word_embeddings": False},
     1, "F32", [{"rope_scaling": None}]),
    ("llama, yarn of its own corners", LLAMA | shape(2, 2, 2, 64, 128, 96, tokens=256) | V5 | {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0,
                            "original_max_position_embeddings": 32, "attention_factor": 1.25},
        "tie_word_embeddings": True}, 1, "F32", [plain(10000.0)]),
]


def tensors_of(config):
    """Name, shape, mean and half-width of each tensor's uniform draw: of the model's, and of every layer's."""
    h, f, d = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * d, config["num_key_value_heads"] * d
    family = config["model_type"]
    gemma = family == "gemma3_text"
    norm = [0.0 if gemma else 1.0, 0.5]  # Gemma's are stored less 1

    def matrix(name, rows, cols, gain=2.5):
        return [name + ".weight", [rows, cols], 0.0, round(gain / cols**0.5, 4)]

    model = [["model.embed_tokens.weight", [config["vocab_size"], h], 0.0, 0.5], ["model.norm.weight", [h], *norm]]
    tied = config.get("tie_word_embeddings", gemma)
    if not tied:
        model.append(matrix("lm_head", config["vocab_size"], h, 4))
    layer = [["input_layernorm.weight", [h], *norm], ["post_attention_layernorm.weight", [h], *norm]]
    if gemma:
        layer += [[f"{side}_feedforward_layernorm.weight", [h], *norm] for side in ("pre", "post")]
    if family in ("qwen3", "gemma3_text"):
        layer += [[f"self_attn.{x}_norm.weight", [d], *norm] for x in "qk"]
    bias = config.get("attention_bias", family == "qwen2")
    for x, rows in (("q", q), ("k", kv), ("v", kv)):
        layer.append(matrix(f"self_attn.{x}_proj", rows, h))
        if bias:
            layer.append([f"self_attn.{x}_proj.bias", [rows], 0.0, 4.0 if x == "k" else 1.0])
    layer.append(matrix("self_attn.o_proj", h, q))
    if bias and family == "llama":
        layer.append(["self_attn.o_proj.bias", [h], 0.0, 1.0])
    for x, rows, cols in (("gate", f, h), ("up", f, h), ("down", h, f)):
        layer.append(matrix(f"mlp.{x}_proj", rows, cols))
        if config.get("mlp_bias"):
            layer.append([f"mlp.{x}_proj.bias", [rows], 0.0, 1.0])
    return model, layer


def named_tensors(config, model, layer):
    every = [("", t) for t in model]
    return every + [(f"model.layers.{i}.", t) for i in range(config["num_hidden_layers"]) for t in layer]


def write_folder(folder, seed, config, n_files, dtype, every):
    weights = {}
    for key, (prefix, (name, dims, mean, half)) in enumerate(every):
        x = mean + half * (2 * draw(seed, key, int(np.prod(dims))) - 1)
        weights[prefix + name] = torch.from_numpy(x.astype(np.float32).reshape(dims))
        if dtype == "BF16":
            weights[prefix + name] = weights[prefix + name].to(torch.bfloat16)
    names, where = list(weights), {}
    for i in range(n_files):
        of_file = names[i * len(names) // n_files:(i + 1) * len(names) // n_files]
        file = "model.safetensors" if n_files == 1 else f"model-{i + 1:05}-of-{n_files:05}.safetensors"
        save_file({n: weights[n] for n in of_file}, folder / file, metadata={"format": "pt"})
        where |= {n: file for n in of_file}
    if n_files > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps(config))


@torch.no_grad()
def score(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    logits = model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits[:-1], -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()


def main(out):
    rows = []
    for number, (name, config, n_files, dtype, without) in enumerate(MODELS):
        seed = number + 1
        model, layer = tensors_of(config)
        ids = [int(x) for x in VOCAB * draw(seed, 1 << 32, N_IDS)]
        with tempfile.TemporaryDirectory() as folder:
            write_folder(pathlib.Path(folder), seed, config, n_files, dtype, named_tensors(config, model, layer))
            scores = score(folder, ids)
        print(f"{name}: {sum(scores):.4f}, from {min(scores):.2f} to {max(scores):.2f}", flush=True)
        rows.append({"name": name, "seed": seed, "files": n_files, "dtype": dtype, "config": config, "tensors": model,
                     "layer_tensors": layer, "without": without, "ids": ids, "logprob": [round(x, 6) for x in scores]})
    with open(out, "w") as f:  # a line for each key of each model
        f.write("[\n" + ",\n".join("{" + ",\n ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in row.items()) + "}"
                                   for row in rows) + "\n]\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
