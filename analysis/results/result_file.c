// SPDX-License-Identifier: Apache-2.0
// Columns that grow row by row and become tensors.
#include "analysis/results/result_file.h"

#include <stdlib.h>

#include "sim/base/files.h"
#include "sim/base/guard.h"
#include "sim/base/memory.h"
#include "sim/model/safetensors.h"

// numbers: of a row
static const struct {
    const char *name, *dtype;
    uint32_t numbers;
} columns[KV_N_RESULT_COLUMNS] = {[KV_ITEM_KEY] = {"item.key", "U64", 1},
                                  [KV_ITEM_INDEX] = {"item.index", "U32", 1},
                                  [KV_ITEM_GOLD] = {"item.gold", "I32", 1},
                                  [KV_ITEM_N_CHOICES] = {"item.n_choices", "U32", 1},
                                  [KV_ITEM_N_TOKENS] = {"item.n_tokens", "U32", 1},
                                  [KV_ITEM_KL_NATS] = {"item.kl_nats", "F64", 1},
                                  [KV_ITEM_RIGHT] = {"item.right", "F64", KV_N_SCORERS},
                                  [KV_ITEM_RIGHT16] = {"item.right16", "F64", KV_N_SCORERS},
                                  [KV_ITEM_MARGIN] = {"item.margin", "F64", 1},
                                  [KV_ITEM_BITS] = {"item.bits", "F64", 3},
                                  [KV_CHOICE_LOGPROB] = {"choice.logprob", "F64", 1},
                                  [KV_CHOICE_LOGPROB16] = {"choice.logprob16", "F64", 1},
                                  [KV_CHOICE_KL_NATS] = {"choice.kl_nats", "F64", 1},
                                  [KV_CHOICE_TOKENS] = {"choice.tokens", "U32", 1},
                                  [KV_CHOICE_CHARS] = {"choice.chars", "U32", 1},
                                  [KV_CHOICE_BYTES] = {"choice.bytes", "U32", 1},
                                  [KV_TOKEN_ID] = {"token.id", "U32", 1},
                                  [KV_TOKEN_LOGPROB] = {"token.logprob", "F64", 1},
                                  [KV_TOKEN_LOGPROB16] = {"token.logprob16", "F64", 1},
                                  [KV_TOKEN_KL_NATS] = {"token.kl_nats", "F64", 1}};

struct kv_result_file {
    struct column {
        size_t n, room; // bytes
        uint8_t *bytes;
    } of[KV_N_RESULT_COLUMNS];
};

struct kv_result_file *kv_result_file_new(void) {
    return kv_alloc(1, sizeof(struct kv_result_file));
}

void kv_result_file_free(struct kv_result_file *f) {
    for (size_t c = 0; f && c < KV_N_RESULT_COLUMNS; c++) free(f->of[c].bytes);
    free(f);
}

static void put(struct kv_result_file *f, enum kv_result_column c, uint64_t raw) {
    struct column *to = &f->of[c];
    size_t bytes = kv_dtype_bytes(columns[c].dtype);
    if (to->n + bytes > to->room) {
        to->room = to->room ? 2 * to->room : 4096;
        to->bytes = kv_grow(to->bytes, to->room, 1);
    }
    for (size_t i = 0; i < bytes; i++) to->bytes[to->n++] = (uint8_t)(raw >> 8 * i);
}

void kv_result_put(struct kv_result_file *f, enum kv_result_column c, double x) {
    uint64_t raw;
    if (*columns[c].dtype == 'F')
        memcpy(&raw, &x, sizeof raw);
    else
        raw = (uint64_t)(int64_t)x;
    put(f, c, raw);
}

void kv_result_put_key(struct kv_result_file *f, uint64_t key) {
    put(f, KV_ITEM_KEY, key);
}

int kv_result_file_write(const struct kv_result_file *f, const char *path, const char *const *texts,
                         size_t n_texts, struct kv_error *e) {
    KV_GUARD(e);
    struct kv_tensor t[KV_N_RESULT_COLUMNS] = {0};
    const struct column *of[KV_N_RESULT_COLUMNS];
    size_t n = 0, header_bytes;
    uint64_t total;
    char *header;
    for (size_t c = 0; c < KV_N_RESULT_COLUMNS; c++) {
        if (f->of[c].n == 0) continue;
        size_t row = columns[c].numbers * kv_dtype_bytes(columns[c].dtype);
        snprintf(t[n].name, sizeof t[n].name, "%s", columns[c].name);
        snprintf(t[n].dtype, sizeof t[n].dtype, "%s", columns[c].dtype);
        t[n].dims[0] = f->of[c].n / row;
        t[n].dims[1] = columns[c].numbers;
        t[n].n_dims = columns[c].numbers > 1 ? 2 : 1;
        of[n++] = &f->of[c];
    }
    int rc = kv_safetensors_layout(t, n, texts, n_texts, &header, &header_bytes, &total, e);
    if (rc) return rc;
    uint8_t *file = kv_alloc(total, 1);
    memcpy(file, header, header_bytes);
    for (size_t i = 0; i < n; i++) memcpy(file + t[i].offset, of[i]->bytes, of[i]->n);
    rc = kv_write_file(path, file, total, e);
    free(header);
    free(file);
    return rc;
}

// ---- of a store -----------------------------------------------------------------------

// Key and bits of each item, which kv_store_items does not read.
static int take_bits(void *self, size_t n, const char *const *names, const struct kv_sql_value *v,
                     struct kv_error *e) {
    struct kv_result_file *f = self;
    (void)n, (void)names, (void)e;
    kv_result_put_key(f, v[0].text ? strtoull(v[0].text, NULL, 16) : 0);
    for (int i = 1; i <= 3; i++)
        kv_result_put(f, KV_ITEM_BITS, v[i].kind == KV_SQL_REAL ? v[i].x : NAN);
    return 0;
}

static int put_items(struct kv_result_file *f, struct kv_store *s, long long group,
                     struct kv_error *e) {
    struct kv_item_result *items;
    size_t n;
    const struct kv_sql_value which = kv_sql_int(group);
    int rc = kv_store_items(s, group, &items, &n, e);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) {
        const struct kv_item_result *x = &items[i];
        kv_result_put(f, KV_ITEM_INDEX, x->item);
        kv_result_put(f, KV_ITEM_GOLD, x->gold);
        kv_result_put(f, KV_ITEM_KL_NATS, x->kl_nats);
        kv_result_put(f, KV_ITEM_MARGIN, x->margin);
        for (int k = 0; k < KV_N_SCORERS; k++) {
            kv_result_put(f, KV_ITEM_RIGHT, x->right[k]);
            kv_result_put(f, KV_ITEM_RIGHT16, x->right_ref[k]);
        }
    }
    kv_item_results_free(items, n);
    return kv_store_query(s,
                          "SELECT i.key, AVG(o.nominal_bits), AVG(o.effective_bits), "
                          "AVG(o.allocated_bits) FROM family AS f JOIN run AS r ON r.id = f.run "
                          "JOIN outcome_item AS o ON o.run = f.run JOIN item AS i ON i.trace = "
                          "r.trace AND i.item = o.item WHERE f.family = ? GROUP BY o.item ORDER BY "
                          "o.item",
                          &which, 1, take_bits, f, e);
}

static int put_choices(struct kv_result_file *f, struct kv_store *s, long long group,
                       struct kv_error *e) {
    struct kv_choice_result *rows;
    size_t n, of_item = 0;
    int rc = kv_store_choices(s, group, &rows, &n, e);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) {
        const struct kv_choice_outcome *o = &rows[i].outcome;
        if (rows[i].redraw == 0) {
            kv_result_put(f, KV_CHOICE_LOGPROB, o->logprob);
            kv_result_put(f, KV_CHOICE_LOGPROB16, o->logprob_ref);
            kv_result_put(f, KV_CHOICE_KL_NATS, o->kl_nats);
            kv_result_put(f, KV_CHOICE_TOKENS, o->tokens);
            kv_result_put(f, KV_CHOICE_CHARS, o->chars);
            kv_result_put(f, KV_CHOICE_BYTES, o->bytes);
            of_item++;
        }
        if (i + 1 == n || rows[i + 1].item != rows[i].item) {
            kv_result_put(f, KV_ITEM_N_CHOICES, (double)of_item);
            of_item = 0;
        }
    }
    kv_choice_results_free(rows, n);
    return 0;
}

int kv_result_file_of_run(struct kv_store *s, const struct kv_summary *run, const char *path,
                          struct kv_error *e) {
    KV_GUARD(e);
    struct kv_result_file *f = kv_result_file_new();
    char redraws[24];
    snprintf(redraws, sizeof redraws, "%zu", run->n_redraws);
    const char *const texts[] = {
        "format", "kvsim-scores-1",         "spec",     run->spec,
        "trace",  run->trace_digest,        "fidelity", kv_fidelity_names[run->fidelity],
        "mode",   kv_mode_names[run->mode], "redraws",  redraws};
    int rc = put_items(f, s, run->run_group, e);
    if (rc == 0) rc = put_choices(f, s, run->run_group, e);
    if (rc == 0) rc = kv_result_file_write(f, path, texts, sizeof texts / sizeof *texts / 2, e);
    kv_result_file_free(f);
    return rc;
}
