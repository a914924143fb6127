// SPDX-License-Identifier: Apache-2.0
// kvsim dump: the bytes of one sequence's cache as a device would hold them, and the bits of each
// token.
#include <stdlib.h>

#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/cli/opening.h"
#include "sim/replay/dump.h"

static const struct kv_option options[] = {
    {"item", 0, "I", NULL, "which item of the trace, counted from 0"},
    {"choice", 0, "C", "0", "the choice that follows the context, counted from 0"},
    {"out", 'o', "DIR", NULL,
     "write the bytes there: cells.bin, cells.hex ($readmemh), units.tsv, fields.tsv, about.json, "
     "and tags"},
    {"word", 0, "BYTES", "4", "bytes of a word in .hex files"},
    {0}};

static const struct kv_note notes[] = {
    {"code_bits", "bits of codes; exact values count 16 or 32 a value. Of a unit of several "
                  "tokens at its first"},
    {"meta_bits", "scales, minima, zero points, outliers; as code_bits"},
    {"padding_bits", "that fill a unit's last byte"},
    {"tag_bits", "that tell the token's widths"},
    {0}};

struct line {
    const struct kv_dump *of;
    const struct kv_dump_token *token;
    const char *name; // of the sum
};
static long long position(const struct line *l) {
    return l->token - l->of->tokens;
}
static void name_cell(struct kv_table *t, const void *its_row) {
    const struct line *row = its_row;
    if (row->name)
        kv_table_text(t, row->name);
    else
        kv_table_count(t, position(row));
}
KV_CELL(id_cell, struct line,
        row->name ? kv_table_text(t, NULL) : kv_table_count(t, (long long)row->token->id))
KV_CELL(code_cell, struct line, kv_table_count(t, (long long)row->token->code_bits))
KV_CELL(meta_cell, struct line, kv_table_count(t, (long long)row->token->meta_bits))
KV_CELL(padding_cell, struct line, kv_table_count(t, (long long)row->token->padding_bits))
KV_CELL(tag_cell, struct line, kv_table_count(t, (long long)row->token->tag_bits))
static const struct kv_table_column columns[] = {{"token", KV_RIGHT, name_cell},
                                                 {"id", KV_RIGHT, id_cell},
                                                 {"code_bits", KV_RIGHT, code_cell},
                                                 {"meta_bits", KV_RIGHT, meta_cell},
                                                 {"padding_bits", KV_RIGHT, padding_cell},
                                                 {"tag_bits", KV_RIGHT, tag_cell},
                                                 {0}};

// In text a last line adds up; scripts add for themselves.
static int print(const struct kv_dump *d, enum kv_output how, struct kv_error *e) {
    struct kv_table *t = kv_table_begin(columns);
    struct kv_dump_token sum = {0};
    for (size_t i = 0; i < d->n_tokens; i++) {
        const struct kv_dump_token *x = &d->tokens[i];
        const struct line line = {d, x, NULL};
        kv_table_add_rows(t, columns, &line, 1, sizeof line);
        sum.code_bits += x->code_bits, sum.meta_bits += x->meta_bits;
        sum.padding_bits += x->padding_bits, sum.tag_bits += x->tag_bits;
    }
    const struct line all = {d, &sum, "sum"};
    if (how == KV_OUT_TEXT) kv_table_add_rows(t, columns, &all, 1, sizeof all);
    int rc = kv_table_print(t, how, e);
    if (rc == 0)
        kv_say("%u tokens in %llu bytes of cells and %llu of tags: %.4g bits a value allocated, "
               "%.4g effective, %.4g nominal",
               d->n_tokens, (unsigned long long)d->n_bytes, (unsigned long long)d->n_tag_bytes,
               d->ledger.allocated_bits, d->ledger.effective_bits, d->ledger.nominal_bits);
    return rc;
}

static int open_spec(struct kv_replay *r, struct kv_replay_spec *spec, const struct kv_cli *c,
                     struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(r->trace);
    struct kv_format_setting setting = kv_trace_setting(in);
    int rc = kv_replay_spec_open(spec, c->args[1], &setting, c->seed, e);
    if (rc) return rc;
    r->specs = spec;
    r->n_specs = 1;
    return kv_replay_open_tables(r, kv_cell_table_best(r->trace), c->jobs, e);
}

static int dump(struct kv_cli *c, struct kv_error *e) {
    long item, choice, word;
    struct kv_trace *trace = NULL;
    struct kv_replay_spec spec = {0};
    struct kv_dump *d = NULL;
    if (!kv_opt(c, "item"))
        return kv_fail(e, KV_EUSAGE, "dump", "--item I is needed: which item of the trace");
    int rc = kv_opt_int(c, "choice", 0, 1000, &choice, e);
    if (rc == 0) rc = kv_opt_int(c, "word", 1, 64, &word, e);
    if (rc == 0) rc = kv_trace_open(&trace, c->args[0], e);
    if (rc == 0) rc = kv_opt_int(c, "item", 0, (long)kv_trace_info(trace)->n_items - 1, &item, e);
    if (rc) {
        kv_trace_close(trace);
        return rc;
    }
    struct kv_replay r = {
        .trace = trace, .seed = c->seed, .first_item = (size_t)item, .n_items = 1};
    rc = open_spec(&r, &spec, c, e);
    if (rc == 0) rc = kv_opt_blame(c, kv_dump_new(&d, &r, 0, (size_t)item, (uint32_t)choice, e), e);
    if (rc == 0 && kv_opt(c, "out")) rc = kv_dump_write(d, kv_opt(c, "out"), (uint32_t)word, e);
    if (rc == 0) rc = print(d, c->output, e);
    kv_dump_free(d);
    kv_replay_close_tables(&r);
    kv_replay_spec_close(&spec);
    kv_trace_close(trace);
    return rc;
}

const struct kv_command kv_cmd_dump = {
    .name = "dump",
    .summary = "the packed bytes of one item's cache, and the bits of each token",
    .usage = "TRACE SPEC",
    .example = "kvsim dump work/samples.trace static:bits=4@sym --item 0 -o work/bytes",
    .options = options,
    .columns = notes,
    .min_args = 2,
    .max_args = 2,
    .run = dump};
