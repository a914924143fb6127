# SPDX-License-Identifier: Apache-2.0
"""Holds files of `kvsim export` against the runtimes' own parsers, and against spoiled copies of them.

Usage: check_plans.py TARGET=FILE...    (transformers, openvino, mlx-lm, kvtuner, modelopt)
Each line: the target, what judged it, and "accepts it, refuses N of N spoiled copies". Ends with 1 where not.

transformers reads a folder with generation_config.json, and does not look into cache_config: its keys and
ranges are those of QuantizedCache's signature and checks (cache_utils.py of 5.24.0), written down here.
OpenVINO compiles a model of one addition with the properties. mlx codes an array as its cache would.
KVTuner's and ModelOpt's readers need torch: their files are loaded by PyYAML and json, and indexed as
those readers do (per_layer_config[layer_idx]["nbits_key"]; module names by layer).
"""
import json
import os
import shlex
import sys
import tempfile


def transformers_reads(text):
    from transformers import GenerationConfig

    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "generation_config.json"), "w") as f:
            f.write(text)
        config = GenerationConfig.from_pretrained(folder)
        config.validate(strict=True)
    own = config.cache_config
    if own is None:
        return
    keys = {"backend", "nbits", "axis_key", "axis_value", "q_group_size", "residual_length"}
    ranges = {"quanto": ((2, 4), (0, -1)), "hqq": ((1, 2, 3, 4, 8), (0, 1))}
    assert set(own) <= keys, set(own) - keys
    if own["backend"] == "fp8":
        assert set(own) == {"backend"}
        return
    widths, axes = ranges[own["backend"]]
    assert own["nbits"] in widths and own["axis_key"] in axes and own["axis_value"] in axes
    assert own["q_group_size"] > 0 and own["residual_length"] >= 0


def openvino_reads(text):
    import openvino as ov
    from openvino import opset13 as op

    x = op.parameter([1, 4], dtype=ov.Type.f32)
    model = ov.Model([op.add(x, x)], [x])
    properties = json.loads(text)
    compiled = ov.Core().compile_model(model, "CPU", properties)
    for name, value in properties.items():
        got = compiled.get_property(name)
        got = got.to_string() if hasattr(got, "to_string") else str(got)
        got = got if not got.startswith("<Type: '") else got[8:-2]
        allowed = ("u3", "u4", "u8", "f16", "bf16", "f32")
        assert got == value, (name, got, value)
        assert not name.endswith("PRECISION") or value in allowed, value
        assert not name.endswith("SIZE") or int(value) >= 0, value


def mlx_reads(text):
    import mlx.core as mx

    words = shlex.split(text)
    value = {words[i]: int(words[i + 1]) for i in range(len(words) - 1) if words[i + 1].isdigit()}
    assert words[0] == "mlx_lm.generate"
    known = {"--kv-bits", "--kv-group-size", "--quantized-kv-start"}
    assert {w for w in words if w.startswith("--")} == known | {"--model"}, words
    keys = mx.random.normal((1, 3, 8, 64))
    codes, scales, biases = mx.quantize(keys, group_size=value["--kv-group-size"], bits=value["--kv-bits"])
    mx.eval(codes, scales, biases)
    assert codes.nbytes * 8 == keys.size * value["--kv-bits"]


def kvtuner_reads(text):
    import yaml

    plan = yaml.safe_load(text)
    for layer in range(len(plan)):
        rows = [plan[layer]] if "nbits_key" in plan[layer] else [plan[layer][h] for h in range(len(plan[layer]))]
        for row in rows:
            assert set(row) == {"nbits_key", "nbits_value"}, row
            assert {row["nbits_key"], row["nbits_value"]} <= {2, 3, 4, 8}, row


def modelopt_reads(text):
    own = json.loads(text)["quantization"]
    if own["kv_cache_quant_algo"] is None:
        return
    assert own["kv_cache_schema_version"] == 1
    layers = own["kv_cache_quantized_layers"]
    algos = {row["quant_algo"] for row in layers.values()}
    assert algos <= {"FP8", "NVFP4", "FP8_K_NVFP4_V"} and algos
    assert own["kv_cache_quant_algo"] in (algos if len(algos) == 1 else set()) | {"MIXED_PRECISION"}
    for name in layers:
        prefix, number, rest = name.rsplit(".", 2)
        assert prefix == "model.layers" and rest == "self_attn" and int(number) >= 0


TARGETS = {  # who reads it, and (what stands in the file, what spoils it)
    "transformers": (transformers_reads, "transformers 5.24.0 and the signature of QuantizedCache",
                     [('"quantized"', '"quantised"'), ('"nbits": ', '"nbits": 7'), ('"backend": "', '"backend": "x'),
                      ("}\n}", "}\n")]),
    "openvino": (openvino_reads, "openvino 2026.4.1",
                 [('"u', '"q'), ("KEY_CACHE_PRECISION", "KEY_CACHE_PRECISON"), ('"VALUE_CACHE_PRECISION": "', '"VALUE_CACHE_PRECISION": "1')]),
    "mlx-lm": (mlx_reads, "mlx 0.32.4",
               [("--kv-bits ", "--kv-bits 7"), ("--kv-group-size ", "--kv-group-size 7"), ("--kv-bits", "--kv-bit")]),
    "kvtuner": (kvtuner_reads, "PyYAML and its reader's indexing",
                [("0:", '"0":'), ("nbits_key: ", "nbits_key: 7"), ("1:", "99:"), ("nbits_value", "nbits_values")]),
    "modelopt": (modelopt_reads, "json and schema 1 of pull 2272",
                 [('"FP8"', '"FP7"'), ("self_attn", "attn"), ('version": 1', 'version": 2'), ("quant_algo", "quant_alg")]),
}


def refuses(reads, text):
    try:
        reads(text)
    except Exception:
        return True
    return False


def main(arguments):
    good = True
    for argument in arguments:
        target, path = argument.split("=", 1)
        reads, judge, spoils = TARGETS[target]
        with open(path) as f:
            text = f.read()
        accepted, refused = not refuses(reads, text), 0
        for found, put in spoils:
            assert found in text, (path, found)
            refused += refuses(reads, text.replace(found, put, 1))
        good = good and accepted and refused == len(spoils)
        print(f"{target}: {judge} {'accepts' if accepted else 'REFUSES'} it, "
              f"refuses {refused} of {len(spoils)} spoiled copies")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
