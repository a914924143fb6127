// SPDX-License-Identifier: Apache-2.0
// A dump as files: bytes, the same as $readmemh text, and where what lies.
#include "sim/replay/dump.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/base/print.h"

static int write_in(const char *dir, const char *name, const void *data, size_t n,
                    struct kv_error *e) {
    char *path = kv_format_text("%s/%s", dir, name);
    int rc = kv_write_file(path, data, n, e);
    free(path);
    return rc;
}

static int write_text(const char *dir, const char *name, struct kv_text *t, struct kv_error *e) {
    char *text = kv_text_take(t);
    int rc = write_in(dir, name, text, strlen(text), e);
    free(text);
    return rc;
}

// Words of a memory that is read lowest byte first; the last is filled up with zeros.
static char *hex_of(const uint8_t *bytes, size_t n, uint32_t word) {
    static const char digits[] = "0123456789abcdef";
    size_t words = (n + word - 1) / word;
    char *text = kv_alloc(words * (2 * (size_t)word + 1) + 1, 1), *to = text;
    for (size_t w = 0; w < words; w++) {
        for (uint32_t i = word; i-- > 0;) {
            size_t at = w * word + i;
            uint8_t b = at < n ? bytes[at] : 0;
            *to++ = digits[b >> 4];
            *to++ = digits[b & 15];
        }
        *to++ = '\n';
    }
    return text;
}

static int write_bytes(const char *dir, const char *stem, const uint8_t *bytes, size_t n,
                       uint32_t word, struct kv_error *e) {
    char *name = kv_format_text("%s.bin", stem), *hex = hex_of(bytes, n, word);
    int rc = write_in(dir, name, bytes, n, e);
    free(name);
    name = kv_format_text("%s.hex", stem);
    if (rc == 0) rc = write_in(dir, name, hex, strlen(hex), e);
    free(name);
    free(hex);
    return rc;
}

static const char *side_name(enum kv_side side) {
    return side == KV_KEY ? "K" : "V";
}

static int write_units(const struct kv_dump *d, const char *dir, struct kv_error *e) {
    struct kv_text t = {0};
    kv_text_addf(&t, "at_bytes\tbytes\ttoken\ttokens\tlayer\thead\theads\tside\theld\twidth_bits\t"
                     "code_bits\tmeta_bits\tpadding_bits\n");
    for (size_t i = 0; i < d->n_units; i++) {
        const struct kv_dump_unit *u = &d->units[i];
        kv_text_addf(&t, "%llu\t%u\t%u\t%u\t%u\t%u\t%u\t%s\t%s\t%u\t%u\t%u\t%u\n",
                     (unsigned long long)u->at, u->bytes, u->token, u->n_tokens, u->layer, u->head,
                     u->n_heads, side_name(u->side), kv_held_names[u->held], u->bits, u->code_bits,
                     u->meta_bits, 8 * u->bytes - u->code_bits - u->meta_bits);
    }
    return write_text(dir, "units.tsv", &t, e);
}

// ---- fields of each kind of unit that occurs ------------------------------------------

struct kind {
    struct kv_text *to;
    enum kv_side side;
    enum kv_held held;
    uint32_t bits;
};

#define FIELD_COLUMNS "what\ttype\tbits\tn\tat_bits\tstep_bits\tvalue\tnext\tcovers\tapart\n"

static void add_numbers(struct kv_text *t, const struct kv_field *x) {
    kv_text_addf(t, "%s\t%s\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%u\n", x->what, x->type, x->bits, x->n,
                 x->at, x->step, x->value, x->next, x->covers, x->apart);
}

static void add_field(void *self, const struct kv_field *x) {
    const struct kind *k = self;
    kv_text_addf(k->to, "%s\t%s\t%u\t", side_name(k->side), kv_held_names[k->held], k->bits);
    add_numbers(k->to, x);
}

static bool occurs(const struct kv_dump *d, const struct kind *k) {
    for (size_t i = 0; i < d->n_units; i++)
        if (d->units[i].side == k->side && d->units[i].held == k->held &&
            d->units[i].bits == k->bits)
            return true;
    return false;
}

static void add_exact(const struct kv_dump *d, const struct kind *k, const char *type) {
    const struct kv_field x = {.what = "code",
                               .type = type,
                               .bits = k->bits,
                               .n = d->spec->run.shape.head_dim,
                               .step = k->bits,
                               .next = 1,
                               .covers = 1,
                               .apart = 1};
    struct kind as = *k;
    if (occurs(d, k)) add_field(&as, &x);
}

static int write_fields(const struct kv_dump *d, const char *dir, struct kv_error *e) {
    const struct kv_format *f = d->spec->format;
    struct kv_text t = {0};
    kv_text_addf(&t, "side\theld\twidth_bits\t" FIELD_COLUMNS);
    for (int side = 0; side < 2; side++) {
        struct kind k = {&t, (enum kv_side)side, KV_HELD_CODED, 0};
        for (uint32_t w = 0; w < f->n_widths; w++) {
            k.bits = f->width_bits[w];
            if (occurs(d, &k)) (void)kv_format_fields(f, k.side, w, add_field, &k);
        }
        add_exact(d, &(struct kind){&t, k.side, KV_HELD_FP16, 16}, "fp16");
        add_exact(d, &(struct kind){&t, k.side, KV_HELD_FLOAT32, 32}, "fp32");
    }
    return write_text(dir, "fields.tsv", &t, e);
}

// Tensors are laid out each in its own way.
static int write_tensors(const struct kv_dump *d, const char *dir, struct kv_error *e) {
    struct kv_text t = {0};
    kv_text_addf(&t, "unit_at_bytes\t" FIELD_COLUMNS);
    for (size_t i = 0; i < d->n_units; i++)
        for (size_t k = 0; k < d->units[i].n_fields; k++) {
            kv_text_addf(&t, "%llu\t", (unsigned long long)d->units[i].at);
            add_numbers(&t, &d->fields[d->units[i].first_field + k]);
        }
    return write_text(dir, "tensors.tsv", &t, e);
}

static int write_tags(const struct kv_dump *d, const char *dir, uint32_t word, struct kv_error *e) {
    struct kv_text t = {0};
    int rc = write_bytes(dir, "tags", d->tags, d->n_tag_bytes, word, e);
    if (rc) return rc;
    kv_text_addf(&t, "tag\twidth_bits\n");
    for (size_t i = 0; i < d->n_tag_widths; i++) kv_text_addf(&t, "%zu\t%u\n", i, d->tag_width[i]);
    return write_text(dir, "tags.tsv", &t, e);
}

static int write_about(const struct kv_dump *d, const char *dir, uint32_t word,
                       struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(d->trace);
    const struct kv_format *f = d->spec->format;
    const struct kv_shape *s = &in->shape;
    uint32_t varies = d->n_tag_numbers ? d->spec->varies : 0;
    char *spec = kv_json_quoted(d->spec->canonical), *format = kv_json_quoted(f->canonical),
         *id = kv_json_quoted(kv_trace_item(d->trace, d->item)->id);
    struct kv_text t = {0};
    kv_text_addf(&t,
                 "{\n \"spec\": %s,\n \"format\": %s,\n \"trace\": \"%s\",\n \"item\": %zu,\n"
                 " \"id\": %s,\n \"choice\": %u,\n \"tokens\": %u,\n \"context_tokens\": %u,\n",
                 spec, format, in->digest, d->item, id, d->choice, d->n_tokens, d->n_context);
    kv_text_addf(&t,
                 " \"layers\": %u,\n \"kv_heads\": %u,\n \"head_dim\": %u,\n"
                 " \"key_channel_order\": \"%s\",\n \"value_channel_order\": \"%s\",\n"
                 " \"keys_before_rope\": %s,\n",
                 s->n_layers, s->n_kv_heads, s->head_dim, f->order == KV_ORDER_HF ? "hf" : "ggml",
                 in->order == KV_ORDER_HF ? "hf" : "ggml", f->keys_before_rope ? "true" : "false");
    kv_text_addf(&t,
                 " \"tags_of_a_token\": {\"layers\": %u, \"kv_heads\": %u, \"sides\": %u, "
                 "\"bits_each\": %u},\n",
                 !d->n_tag_numbers          ? 0
                 : varies & KV_VARIES_LAYER ? s->n_layers
                                            : 1,
                 !d->n_tag_numbers         ? 0
                 : varies & KV_VARIES_HEAD ? s->n_kv_heads
                                           : 1,
                 !d->n_tag_numbers       ? 0
                 : varies & KV_VARIES_KV ? 2
                                         : 1,
                 d->tag_number_bits);
    kv_text_addf(&t,
                 " \"cells_bytes\": %llu,\n \"tags_bytes\": %llu,\n \"word_bytes\": %u,\n"
                 " \"nominal_bits\": %.17g,\n \"effective_bits\": %.17g,\n"
                 " \"allocated_bits\": %.17g\n}\n",
                 (unsigned long long)d->n_bytes, (unsigned long long)d->n_tag_bytes, word,
                 d->ledger.nominal_bits, d->ledger.effective_bits, d->ledger.allocated_bits);
    free(spec);
    free(format);
    free(id);
    return write_text(dir, "about.json", &t, e);
}

int kv_dump_write(const struct kv_dump *d, const char *dir, uint32_t word, struct kv_error *e) {
    KV_GUARD(e);
    int rc = kv_make_dir(dir, e);
    if (rc == 0) rc = write_bytes(dir, "cells", d->cells, d->n_bytes, word, e);
    if (rc == 0) rc = write_units(d, dir, e);
    if (rc == 0) rc = write_fields(d, dir, e);
    if (rc == 0 && d->n_fields) rc = write_tensors(d, dir, e);
    if (rc == 0 && d->n_tag_numbers) rc = write_tags(d, dir, word, e);
    return rc ? rc : write_about(d, dir, word, e);
}
