#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ids of whole benchmark files by other programs, as digests.

  make_token_digests.py DATA MODEL.gguf... > token_digests.json

Byte-level BPE by the `tokenizers` library with the pattern as its model publishes it, SentencePiece's
by the `sentencepiece` package, both made of the GGUF's own pieces, merges, scores and types. DATA holds
the files. Digested (CRC-32) is, text after text, the number of ids and the ids, little-endian uint32,
without BOS: of an item the harness prompt, then prompt + " " + choice for each choice; of WikiText the
whole file as one text. `odd` are random texts of many scripts, with their ids' digest.
"""
import gzip
import json
import pathlib
import random
import re
import struct
import sys
import zlib

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

# tokenizer.json of Qwen2.5-Coder.
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
USER_DEFINED = 4
BPE = 2
ODD = ["abcdefgXYZ'sStTlLvVdDrReEmM", "0123456789\u00b2\u00bd\u0663\u096d",
       "  \t\n\r\u00a0\u3000\u2003\u0085\u180e\u200b", "éüñßøÅ日本語中文한국어ひらカタ",
       "\u0301\u0327\u0308\u0345\u0915\u093f\u0e01\u0e34\u05d0\u05b0", "👨\u200d👩👧😀🇩🇪①ⅣﬁK\u017f\u212a",
       "!?.,;:-–—…“”‘’()[]{}<>/\\|@#$%^&*~`\u2581", "ሀაⴰ𐐀𝒜Ⅷ"]


def byte_level(meta):
    vocab = {piece: i for i, piece in enumerate(meta["tokens"])}
    t = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in meta["merges"]]))
    if meta["pre"] == "qwen2":
        t.normalizer = normalizers.NFC()
        steps = [pre_tokenizers.Split(Regex(QWEN2), "isolated")]
    else:
        assert meta["pre"] == "smollm"
        steps = [pre_tokenizers.Digits(individual_digits=True)]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=meta["pre"] == "smollm"))
    t.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return lambda texts: [e.ids for e in t.encode_batch(texts, add_special_tokens=False)]


def scored(meta):
    m = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in zip(meta["tokens"], meta["scores"], meta["token_type"]):
        piece = m.pieces.add()
        piece.piece = text.replace(" ", "\u2581") if kind == USER_DEFINED else text
        piece.score = score
        piece.type = 2 if text == "<unk>" else kind
    m.trainer_spec.model_type = BPE
    m.trainer_spec.byte_fallback = True
    m.normalizer_spec.name = "identity"
    m.normalizer_spec.add_dummy_prefix = bool(meta.get("add_space_prefix", True))
    m.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString()).encode


def encoder(path):
    fields = gguf.GGUFReader(path).fields
    meta = {k[len("tokenizer.ggml."):]: fields[k].contents() for k in fields
            if k.startswith("tokenizer.ggml.")}
    return (scored if meta["model"] == "llama" else byte_level)(meta)


def harness(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def hellaswag(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            item = json.loads(line)
            query = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}"
            yield harness(query), [harness(x) for x in item["endings"]]


def arc(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            question = json.loads(line)["question"]
            yield (f"Question: {question['stem']}\nAnswer:",
                   [x["text"] for x in question["choices"]])


def texts_of(items):
    return [text for query, choices in items
            for text in [query] + [f"{query} {choice}" for choice in choices]]


def odd_texts():
    r = random.Random(5)
    return ["".join(r.choice(r.choice(ODD)) for _ in range(r.randint(1, 40))) for _ in range(400)] + [
        " " * r.randint(1, 80) + "x" + "\n" * r.randint(0, 70) + "\t" * r.randint(0, 50)
        for _ in range(20)]


def digest(encode, texts):
    crc = n = 0
    for at in range(0, len(texts), 4000):
        for ids in encode(texts[at:at + 4000]):
            crc = zlib.crc32(struct.pack(f"<I{len(ids)}I", len(ids), *ids), crc)
            n += len(ids)
    return {"ids": n, "crc32": crc}


def main():
    data = pathlib.Path(sys.argv[1])
    files = {"hellaswag_val.jsonl.gz": texts_of(hellaswag(data / "hellaswag_val.jsonl.gz"))}
    for name in ("arc_easy_test", "arc_challenge_train", "arc_challenge_dev", "arc_challenge_test"):
        files[name + ".jsonl"] = texts_of(arc(data / (name + ".jsonl")))
    files["wikitext2_test.raw.txt"] = [(data / "wikitext2_test.raw.txt").read_bytes().decode()]
    files["odd"] = odd_texts()
    out = {"odd": files["odd"], "models": {}}
    for path in sys.argv[2:]:
        encode = encoder(path)
        out["models"][pathlib.Path(path).name] = {
            name: digest(encode, texts) for name, texts in files.items()}
    json.dump(out, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
