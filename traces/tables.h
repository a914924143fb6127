// SPDX-License-Identifier: Apache-2.0
// Tables beside a trace: what storing each cell at each width of a format does, computed once and
// kept.
//
//     struct kv_cell_table *t;
//     if (kv_cell_table_open(&t, trace, format, KV_TABLE_ISO, jobs, &e)) ...
//     kv_cell_table_item(t, i)[(token * n_widths + width) * cells + cell]         cell = (layer, KV
//     head, K or V) kv_cell_table_close(t);
//
// No weights are opened. A table lies in the trace's folder under tables/, named by its contents'
// key, checksummed; in a folder that cannot be written it is built in memory each time.
#ifndef KV_TRACES_TABLES_H
#define KV_TRACES_TABLES_H

#include "traces/trace.h"

KV_BEGIN_DECLS

// With e the coding error of the recorded vector, g the recorded gradients, d the head's dimension:
enum kv_cell_table_kind {
    KV_TABLE_ISO,     // 0.5 mean |g|^2 |e|^2 / d: expected damage, nats, from the sensitivity alone
    KV_TABLE_ELEMENT, // 0.5 mean over draws of sum g_i^2 e_i^2: needs whole gradients
    KV_TABLE_VECTOR,  // 0.5 mean over draws of (g . e)^2: needs whole gradients
    KV_TABLE_CHANNEL, // 0.5 (mean |g|^2 / d) sum m_i e_i^2, m from kv_trace_channels
    KV_TABLE_ERROR,   // |e|^2
    KV_TABLE_RELATIVE // |e|^2 / |x|^2
};
extern const char
    *const kv_cell_table_kinds[]; // "iso", "element", "vector", "channel", "error", ..., NULL
// The finest form of damage that a trace keeps the makings of: element, channel, else iso. (vector
// is left to who asks for it: signed products of few draws are noisy.)
enum kv_cell_table_kind kv_cell_table_best(const struct kv_trace *t);

struct kv_cell_table;
// Opens the table, building it on `jobs` threads when it is not there. Errors: a trace without K
// and V or without what the kind needs, a full disk.
KV_MUST_CHECK int kv_cell_table_open(struct kv_cell_table **t, const struct kv_trace *trace,
                                     const struct kv_format *f, enum kv_cell_table_kind kind,
                                     unsigned jobs, struct kv_error *e);
void kv_cell_table_close(struct kv_cell_table *t); // NULL is fine
const float *kv_cell_table_item(const struct kv_cell_table *t,
                                size_t i); // [n_tokens][n_widths][n_layers][n_kv_heads][2]
size_t kv_cell_table_bytes_per_token(const struct kv_cell_table *t);

// Fills one item's part from its recorded arrays. channels: of kv_trace_channels for
// KV_TABLE_CHANNEL; other kinds do not read it.
struct kv_cell_table_scratch;
struct kv_cell_table_scratch *kv_cell_table_scratch_new(const struct kv_format *f);
void kv_cell_table_scratch_free(struct kv_cell_table_scratch *s);
KV_MUST_CHECK int kv_cell_table_fill(const struct kv_trace_info *info,
                                     const struct kv_trace_item *item, const struct kv_format *f,
                                     enum kv_cell_table_kind kind, const float *channels,
                                     struct kv_cell_table_scratch *s, float *out,
                                     struct kv_error *e);

// A table file while it is filled, item by item from any worker, through kv_cell_table_fill: for
// kv_cell_table_open, and for recordings that keep tables instead of what they are made from.
struct kv_cell_table_writer {
    float *data; // [n_tokens][n_widths][n_layers][n_kv_heads][2]
    const struct kv_format *format;
    enum kv_cell_table_kind kind;
    char *dir, *temporary;
    int fd;
    uint8_t *map;
    uint64_t total;
    struct kv_trace_info shape; // borrowed texts: only the shape and counts are used
    bool stays; // set before a close without `keep`: what is filled stays for another open
};
// Makes the file under dir/tables; `resume`: goes on with one that stayed, under a name that is the
// same in each process. Errors: a folder that cannot be written, a full disk.
KV_MUST_CHECK int kv_cell_table_writer_open(struct kv_cell_table_writer *w, const char *dir,
                                            const struct kv_trace_info *info,
                                            const struct kv_format *f, enum kv_cell_table_kind kind,
                                            bool resume, struct kv_error *e);
// Gives the finished table its name, for the trace with this digest (keep), or removes it.
KV_MUST_CHECK int kv_cell_table_writer_close(struct kv_cell_table_writer *w, bool keep,
                                             const char *trace_digest, struct kv_error *e);

// Decodes what the cache would return for given decisions:
// error[n_tokens][n_layers][n_kv_heads][2][head_dim] = decoded - recorded, keys as they lie in the
// trace (after RoPE).
KV_MUST_CHECK int kv_coding_error(const struct kv_trace_info *info,
                                  const struct kv_trace_item *item, const struct kv_format *f,
                                  const uint8_t *cells, struct kv_cell_table_scratch *s,
                                  float *error, struct kv_error *e);

KV_END_DECLS

#endif
