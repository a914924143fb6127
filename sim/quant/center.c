// SPDX-License-Identifier: Apache-2.0
// Format center(inner): keys less their mean by channel; code.c takes it off and adds it again.
#include "sim/quant/own.h"

static const struct kv_param params[] = {
    {"side", KV_CHOICE, "post", 0, 0, "post/pre", NULL,
     "of RoPE on which keys have their mean taken: after it (post), or before it and turned to "
     "each "
     "token's position (pre)"},
    {"sides", KV_CHOICE, "k", 0, 0, "both/k/v", NULL, "what is centred: keys, values or both"},
    {"tokens", KV_INT, "16", 1, 65536, NULL, "tokens",
     "the first of a sequence, after its sinks, over which the mean is taken"},
    {0}};

static int center_open(struct kv_format *f, const struct kv_format_setting *s,
                       const struct kv_args *args, struct kv_error *e) {
    const struct kv_format *in = f->inner;
    bool before = kv_number(args, "side") == 1;
    double sides = kv_number(args, "sides");
    if (in->scope == KV_SCOPE_TENSOR)
        return kv_fail(e, KV_EUSAGE, "format center",
                       "%s sees a whole prompt at once and finds its own middle; it cannot be "
                       "centred",
                       in->canonical);
    if (in->centre.tokens > 0)
        return kv_fail(e, KV_EUSAGE, "format center", "%s is centred already", in->canonical);
    if (in->keys_before_rope && !before && sides != 2)
        return kv_fail(e, KV_EUSAGE, "format center",
                       "%s codes keys before RoPE, where only side=pre is at hand", in->canonical);
    kv_wrap(f);
    f->centre = (struct kv_centring){.sides = {sides != 2, sides != 1},
                                     .before_rope = before && sides != 2,
                                     .tokens = (uint32_t)kv_number(args, "tokens")};
    (void)s;
    return 0;
}

static void center_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                          size_t n_units, uint8_t *out) {
    kv_format_encode(f->inner, b, x, n_units, out);
}

static void center_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                          size_t n_units, float *y) {
    kv_format_decode(f->inner, b, codes, n_units, y);
}

const struct kv_format_type kv_format_type_center = {
    .name = "center",
    .summary = "keys less their mean by channel, which another format codes: center(asym)",
    .citation = "Zhang et al. 2024 (SageAttention), arXiv:2410.02367, section 4.2 (smoothing K); "
                "the mean before RoPE is this project's",
    .tag = "approximate",
    .layout = "as the inner format; a sequence holds once, for each layer and KV head, head_dim "
              "fp16 means",
    .formula = "as the inner format, and 16/T for each centred value, T the sequence's tokens",
    .rounding = "mean of the first tokens after the sinks in float64, rounded to fp16; x - mean in "
                "float32, then the inner format; its values + mean",
    .guards = "as the inner format; means saturate at 65504. Differs from its source, which takes "
              "the mean over all keys of a call: the mean is known when `tokens` have come (or the "
              "prompt has ended), and until then they are read exact. Width 16 is not centred",
    .params = params,
    .wraps = true,
    .open = center_open,
    .size = kv_wrapped_size,
    .encode = center_encode,
    .decode = center_decode,
    .codes = kv_wrapped_codes,
    .fields = kv_wrapped_fields,
    .plain = kv_plain_inner,
};
