// SPDX-License-Identifier: Apache-2.0
// kvsim code: vectors through a format, standard input to standard output, for checks by other
// programs.
#include "sim/cli/options.h"
#include "sim/base/files.h"
#include "sim/base/memory.h"
#include "sim/quant/format.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 1 << 20 };

struct job {
    struct kv_format *f;
    struct kv_block block;
    struct kv_unit_size size;
    bool decode, round_trip;
    size_t in_bytes, out_bytes; // of a unit
    size_t room;                // units of a chunk
    uint8_t *in, *out, *codes;
};

static int find_width(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    long bits = 0;
    const struct kv_format *f = j->f;
    if (!kv_opt(c, "bits") && (f->n_widths == 1 || (f->n_widths == 2 && f->width_bits[1] == 16)))
        return 0; // the only width, beside fp16 storage
    if (!kv_opt(c, "bits"))
        return kv_fail(e, KV_EUSAGE, "code", "--bits is needed: %s has several widths",
                       f->type->name);
    int rc = kv_opt_int(c, "bits", 1, 16, &bits, e);
    if (rc) return rc;
    for (uint32_t w = 0; w < f->n_widths; w++)
        if (f->width_bits[w] == bits) {
            j->block.width = w;
            return 0;
        }
    return kv_fail(e, KV_EUSAGE, "code",
                   "format %s has no width of %ld bits; kvsim describe %s "
                   "shows its widths",
                   f->type->name, bits, f->type->name);
}

static int open_job(struct job *j, const struct kv_cli *c, struct kv_error *e) {
    const char *side = kv_opt(c, "side"), *order = kv_opt(c, "order");
    long dim, heads;
    int rc = kv_opt_int(c, "dim", 1, 1024, &dim, e);
    if (!rc) rc = kv_opt_int(c, "heads", 1, 1024, &heads, e);
    if (rc) return rc;
    if (strcmp(side, "k") != 0 && strcmp(side, "v") != 0)
        return kv_fail(e, KV_EUSAGE, "code", "--side is k or v, not '%s'", side);
    if (strcmp(order, "ggml") != 0 && strcmp(order, "hf") != 0)
        return kv_fail(e, KV_EUSAGE, "code", "--order is ggml or hf, not '%s'", order);
    struct kv_format_setting s = {.shape = {.n_layers = 1,
                                            .n_heads = (uint32_t)heads,
                                            .n_kv_heads = (uint32_t)heads,
                                            .head_dim = (uint32_t)dim},
                                  .order = strcmp(order, "hf") == 0 ? KV_ORDER_HF : KV_ORDER_GGML};
    rc = kv_format_open(&j->f, c->args[0], &s, e);
    if (!rc && !j->f->type->encode)
        rc = kv_fail(e, KV_EUSAGE, "code", "format %s codes whole tensors, not rows by themselves",
                     j->f->type->name);
    if (!rc && j->f->centre.tokens > 0)
        rc = kv_fail(e, KV_EUSAGE, "code",
                     "format %s takes the mean of a sequence's first tokens; rows by themselves "
                     "have none",
                     j->f->type->name);
    if (!rc) rc = find_width(j, c, e);
    if (rc) return rc;
    j->block.side = *side == 'k' ? KV_KEY : KV_VALUE;
    j->size = kv_format_size(j->f, j->block.side, j->block.width);
    j->decode = kv_opt_given(c, "decode");
    j->round_trip = kv_opt_given(c, "round-trip");
    if (j->decode && j->round_trip)
        return kv_fail(e, KV_EUSAGE, "code", "--decode and --round-trip exclude each other");
    size_t floats = (size_t)j->size.values * sizeof(float);
    j->in_bytes = j->decode ? j->size.bytes : floats;
    j->out_bytes = j->decode || j->round_trip ? floats : j->size.bytes;
    j->room = floats < CHUNK_BYTES ? CHUNK_BYTES / floats : 1;
    j->in = kv_alloc(j->room, j->in_bytes);
    j->out = kv_alloc(j->room, j->out_bytes);
    j->codes = kv_alloc(j->room, j->size.bytes);
    return 0;
}

static void code_chunk(const struct job *j, size_t n) {
    if (j->decode)
        kv_format_decode(j->f, &j->block, j->in, n, (float *)(void *)j->out);
    else if (!j->round_trip)
        kv_format_encode(j->f, &j->block, (const float *)(const void *)j->in, n, j->out);
    else {
        kv_format_encode(j->f, &j->block, (const float *)(const void *)j->in, n, j->codes);
        kv_format_decode(j->f, &j->block, j->codes, n, (float *)(void *)j->out);
    }
}

// A scale made from NaN or Inf spoils its whole group, and damaged scales decode to them.
static int check_finite(const struct job *j, const void *data, size_t n, size_t unit,
                        const char *what, struct kv_error *e) {
    const float *x = data;
    uint32_t dim = j->f->setting.shape.head_dim;
    for (size_t i = 0; i < n * j->size.values; i++)
        if (!isfinite(x[i]))
            return kv_fail(e, KV_EFAIL, "standard input", "row %zu, value %zu %s %s",
                           (unit * j->size.values + i) / dim, i % dim, what,
                           isnan(x[i]) ? "NaN" : "infinite");
    return 0;
}

static int run_job(const struct job *j, struct kv_error *e) {
    size_t got, whole, unit = 0;
    while ((got = fread(j->in, 1, j->room * j->in_bytes, stdin)) > 0) {
        whole = got / j->in_bytes;
        int rc = j->decode ? 0 : check_finite(j, j->in, whole, unit, "is", e);
        if (rc) return rc;
        code_chunk(j, whole);
        if (j->decode) rc = check_finite(j, j->out, whole, unit, "decodes to", e);
        if (rc) return rc;
        unit += whole;
        if (fwrite(j->out, j->out_bytes, whole, stdout) != whole) break; // said by the flush
        if (got % j->in_bytes)
            return kv_fail(e, KV_EFAIL, "standard input",
                           "ends %zu bytes after a whole unit; a unit of this format is %zu bytes "
                           "(%u rows of %u values)",
                           got % j->in_bytes, j->in_bytes,
                           j->size.values / j->f->setting.shape.head_dim,
                           j->f->setting.shape.head_dim);
    }
    if (ferror(stdin))
        return kv_fail(e, KV_EFAIL, "standard input", "cannot be read: %s", strerror(errno));
    return kv_flush_stdout(e);
}

static int code(struct kv_cli *c, struct kv_error *e) {
    struct job j = {0};
    int rc = open_job(&j, c, e);
    if (!rc) rc = run_job(&j, e);
    kv_format_close(j.f);
    free(j.in);
    free(j.out);
    free(j.codes);
    return rc;
}

static const struct kv_option options[] = {
    {"bits", 'b', "B", NULL, "width; not needed where the format has one"},
    {"dim", 'd', "D", "64", "values of a row: one head's vector, float32 little-endian"},
    {"decode", 0, NULL, NULL, "packed bytes in, float32 out"},
    {"round-trip", 0, NULL, NULL, "float32 in, decoded float32 out"},
    {"side", 0, "k|v", "k", "keys or values, where the format codes them differently"},
    {"heads", 0, "H", "1", "rows of a token, where the format shares a scale among heads"},
    {"order", 0, "ggml|hf", "ggml",
     "channel order that 'auto' stands for; rows are never reordered"},
    {0}};

const struct kv_command kv_cmd_code = {
    .name = "code",
    .summary = "codes float32 vectors from stdin, or decodes packed bytes",
    .usage = "FORMAT",
    .example = "head -c 25600 /dev/zero | kvsim code sym --bits 4 --dim 64 | wc -c",
    .options = options,
    .min_args = 1,
    .max_args = 1,
    .run = code,
};
