# SPDX-License-Identifier: Apache-2.0
# Rare tokens' keys wide, all else narrow: decided here, replayed by kvsim, drawn.   python3 decide.py TRACE MODEL FOLDER
import json, subprocess, sys
import numpy as np
from safetensors.numpy import load_file, save_file

trace, model, folder = sys.argv[1:4]
manifest = json.load(open(f"{trace}/manifest.json"))
shards = [load_file(f"{trace}/{shard['file']}") for shard in manifest["shards"]]
items = {name: np.concatenate([s[name] for s in shards]) for name in ("item.key", "item.n_tokens")}
rarity = np.concatenate([s["token.features"][:, 2] for s in shards])  # column 2: see traces/format.md
rank = rarity.argsort(kind="stable").argsort() / len(rarity)
shape = [len(rarity)] + [manifest["model"]["shape"][n] for n in ("n_layers", "n_kv_heads")] + [2]

def replay(spec):
    command = ["kvsim", "replay", "-q", trace, spec, "-m", model, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)[0]

def rare_keys(share):  # this share of the tokens, the rarest, keep their keys at 8 bits
    widths = np.full(shape, 2, np.uint8)
    widths[rank >= 1 - share, :, :, 0] = 8
    file = f"{folder}/rare-{share}.safetensors"
    save_file({"widths": widths, **items}, file, {"trace": manifest["manifest_xxh64"], "causal": "yes"})
    return replay(f"plan:file={file}@asym")

lines = {"rare keys at 8 bits, all else at 2": [rare_keys(share) for share in (0, 0.25, 0.5, 0.75, 1)],
         "static keys, values at 2 bits": [replay(f"static:k={bits},v=2@asym") for bits in (2, 3, 4, 5, 6, 8)]}
json.dump(lines, open(f"{folder}/lines.json", "w"), indent=1)
import matplotlib.pyplot as plt
for name, rows in lines.items():
    plt.semilogy([r["allocated_bits"] for r in rows], [r["kl_nats"] for r in rows], "o-", label=name)
plt.xlabel("allocated bits a value"), plt.ylabel("KL to 16 bit (nats a scored token)"), plt.legend()
plt.savefig(f"{folder}/lines.svg")
