// SPDX-License-Identifier: Apache-2.0
// The recording run: one forward pass an item, features from every row, scores from the scored
// ones.
#include "traces/record.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "sim/base/blas.h"
#include "sim/base/cpu.h"
#include "sim/base/finite.h"
#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/version.h"
#include "sim/base/work.h"
#include "sim/model/compute.h"
#include "sim/model/forward.h"
#include "traces/angles.h"
#include "traces/cells.h"
#include "traces/item_pass.h"
#include "traces/items.h"
#include "traces/numbers.h"
#include "traces/sensitivity.h"
#include "traces/tables.h"
#include "traces/windows.h"
#include "traces/writer.h"

struct recorder {
    const struct kv_model *m;
    const struct kv_items *items;
    struct kv_trace_writer *writer;
    uint32_t keep;
    const struct kv_trace_info *info;
    struct kv_adjoint_info adjoint;
    struct kv_cell_errors *cells; // or NULL
    size_t tape_bytes;
    size_t n_tables;
    struct kv_format **formats;            // [n_tables]
    struct kv_cell_table_writer *tables;   // [n_tables]
    struct kv_cell_table_scratch **coding; // [jobs][n_tables]
    size_t *first_token;                   // [n_items]
    struct kv_scratch **scratch;           // [jobs]
    struct kv_progress *progress;
    atomic_bool refused; // an item is not finite, and would not be the next time
};

// Item i's floats of table t.
static float *table_rows(const struct recorder *r, size_t t, size_t i, size_t *n) {
    size_t token = r->formats[t]->n_widths * kv_cells(&r->m->shape);
    *n = r->items->items[i].n_tokens * token;
    return r->tables[t].data + r->first_token[i] * token;
}

// A checksum of what an item has in all tables; 0 = there are none.
static uint64_t tables_sum(const struct recorder *r, size_t i) {
    uint64_t sum = 0;
    for (size_t t = 0; t < r->n_tables; t++) {
        size_t n;
        const float *rows = table_rows(r, t, i, &n);
        sum = kv_hash(rows, n * sizeof *rows, sum);
    }
    return sum;
}

// Squared gradients of an item over its tape, weighed with the cells' coding errors where those are
// asked for.
static int measure(const struct recorder *r, unsigned worker, const struct kv_item_pass *p,
                   struct kv_tape *tape, const float *final, struct kv_sensitivity *sens,
                   struct kv_error *e) {
    struct kv_trace_item item = *p->item;
    float *error = NULL;
    int rc = 0;
    if (r->cells) {
        item.k = p->k;
        item.v = p->v;
        error =
            kv_alloc(item.n_tokens * kv_cells(&r->m->shape) * r->m->shape.head_dim, sizeof *error);
        rc = kv_cell_errors_fill(r->cells, worker, r->info, &item, error, e);
    }
    if (rc == 0)
        kv_sensitivity_measure(r->m, &item, &r->adjoint, r->keep & KV_KEEP_GRAD, tape, final, error,
                               r->scratch[worker], sens);
    free(error);
    return rc;
}

static bool wants_gradients(uint32_t keep, size_t n_tables) {
    return n_tables || (keep & (KV_KEEP_SENS | KV_KEEP_GRAD | KV_KEEP_CELLS));
}

static int record_item(void *self, unsigned worker, size_t i, struct kv_error *e) {
    struct recorder *r = self;
    const struct kv_shape *s = &r->m->shape;
    if (kv_trace_writer_holds(r->writer, i, tables_sum(r, i))) {
        kv_progress_step(r->progress, 1);
        return 0;
    }
    struct kv_trace_item item = r->items->items[i];
    size_t n = item.n_tokens;
    struct kv_tree tree = {item.n_tokens, item.n_context, item.n_choices, item.first, item.ids};
    struct kv_item_pass *p =
        kv_item_pass_new(r->m, &item, r->keep | (r->n_tables ? KV_KEEP_KV : 0));
    float *stats = kv_alloc(3 * n, sizeof *stats), *final = kv_alloc(n * s->hidden, sizeof *final);
    struct kv_attention_stats attention = {stats, stats + n, stats + 2 * n};
    float *next_logprob = kv_alloc(n, sizeof *next_logprob);
    double *score = kv_alloc(item.n_choices + 1, sizeof *score);
    float *kept = kv_alloc(item.n_final * (size_t)s->hidden, sizeof *kept);
    uint32_t *others = kv_alloc(n, sizeof *others);
    struct kv_forward job = {.tree = &tree,
                             .store = kv_item_pass_store,
                             .observe = kv_item_pass_observe,
                             .self = p,
                             .stats = &attention,
                             .final = final};
    struct kv_sensitivity sens = {0};
    if (wants_gradients(r->keep, r->n_tables)) job.tape = kv_tape_new(r->m, n, r->tape_bytes);
    int rc = kv_forward(r->m, &job, r->scratch[worker], e);
    if (p->refused) atomic_store(&r->refused, true); // unlike an accelerator that failed
    if (rc == 0 && job.tape) rc = measure(r, worker, p, job.tape, final, &sens, e);
    kv_tape_free(job.tape);
    if (rc == 0) {
        size_t n_others = 0;
        for (uint32_t row = 0, f = 0; row < n; row++) {
            next_logprob[row] = NAN;
            if (f < item.n_final && item.final_rows[f] == row) {
                memcpy(kept + f++ * s->hidden, final + row * s->hidden, s->hidden * sizeof *kept);
                continue;
            }
            others[n_others++] = row;
        }
        kv_item_pass_judge(p, r->scratch[worker], final, item.final_rows, item.n_final,
                           next_logprob, score);
        kv_item_pass_judge(p, r->scratch[worker], final, others, n_others, next_logprob, NULL);
        for (size_t row = 0; row < n; row++) {
            float *f = p->features + row * KV_N_FEATURES;
            f[KV_RARITY_NATS] = r->items->rarity[i][row];
            f[KV_ATTN_VAR] = attention.variance[row];
            f[KV_ATTN_SO_FAR] = attention.so_far[row];
            f[KV_ATTN_FUTURE] = attention.future[row];
        }
        item.features = p->features;
        item.next_logprob = next_logprob;
        item.final = kept;
        item.score = score;
        item.k = p->k;
        item.v = p->v;
        item.q = p->q;
        item.hidden = p->hidden;
        item.sens = sens.sens;
        item.sens_spread = sens.spread;
        item.evict = sens.evict;
        item.k_grad = sens.k_grad;
        item.v_grad = sens.v_grad;
        item.channel_gradient = sens.channel;
        item.cells_numerator = sens.numerator;
        item.cells_attention = p->attention;
        item.cells_input = p->input;
        item.surprisal = p->surprisal;
        rc = kv_item_check_numbers(r->info, &item, UINT32_MAX, r->m->name, e);
        if (rc) atomic_store(&r->refused, true);
        for (size_t t = 0; t < r->n_tables && rc == 0; t++)
            rc = kv_cell_table_fill(r->info, &item, r->formats[t], KV_TABLE_ISO, NULL,
                                    r->coding[worker * r->n_tables + t],
                                    table_rows(r, t, i, &(size_t){0}), e);
        if (rc == 0) rc = kv_trace_writer_put(r->writer, i, &item, tables_sum(r, i), e);
    }
    kv_item_pass_free(p);
    void *blocks[] = {stats, final, next_logprob, score, kept, others};
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) free(blocks[b]);
    kv_sensitivity_fini(&sens);
    if (rc == 0) kv_progress_step(r->progress, 1);
    return rc;
}

static int open_tables(struct recorder *r, const struct kv_record_options *o, struct kv_error *e) {
    struct kv_format_setting setting = kv_trace_setting(r->info);
    int rc = 0;
    r->formats = kv_alloc(o->n_tables, sizeof(struct kv_format *));
    r->tables = kv_alloc(o->n_tables, sizeof *r->tables);
    r->coding = kv_alloc(o->n_tables * o->jobs, sizeof(struct kv_cell_table_scratch *));
    r->first_token = kv_alloc(r->items->n, sizeof *r->first_token);
    for (size_t i = 1; i < r->items->n; i++)
        r->first_token[i] = r->first_token[i - 1] + r->items->items[i - 1].n_tokens;
    for (size_t t = 0; t < o->n_tables && rc == 0; t++) {
        rc = kv_format_open(&r->formats[t], o->table_formats[t], &setting, e);
        if (rc == 0)
            rc = kv_cell_table_writer_open(&r->tables[t], o->dir, r->info, r->formats[t],
                                           KV_TABLE_ISO, true, e);
        if (rc) break;
        r->n_tables++;
    }
    for (unsigned w = 0; w < o->jobs; w++)
        for (size_t t = 0; t < r->n_tables && rc == 0; t++)
            r->coding[w * r->n_tables + t] = kv_cell_table_scratch_new(r->formats[t]);
    return rc;
}

// Names the tables after the trace; digest = NULL leaves or removes them, as the writer does with
// the shards.
static int close_tables(struct recorder *r, const struct kv_record_options *o, const char *digest,
                        struct kv_error *e) {
    int rc = 0;
    for (size_t i = 0; i < r->n_tables; i++) {
        r->tables[i].stays = kv_trace_writer_done(r->writer) > 0;
        int closed =
            kv_cell_table_writer_close(&r->tables[i], digest && rc == 0, digest, rc ? NULL : e);
        if (rc == 0) rc = closed;
    }
    for (size_t i = 0; r->coding && i < o->jobs * r->n_tables; i++)
        kv_cell_table_scratch_free(r->coding[i]);
    for (size_t i = 0; r->formats && i < o->n_tables; i++) kv_format_close(r->formats[i]);
    free(r->coding);
    free(r->formats);
    free(r->tables);
    free(r->first_token);
    return rc;
}

static float weight(const struct kv_matrix *w, size_t i) {
    return w->f32 ? w->f32[i] : kv_bf16_to_f32(w->bf16[i]);
}

// Frobenius norms of W_K and W_V, [n_layers][2].
static float *kv_norms(const struct kv_model *m) {
    size_t kv = (size_t)m->shape.n_kv_heads * m->shape.head_dim,
           q = (size_t)m->shape.n_heads * m->shape.head_dim;
    float *norms = kv_alloc(2 * m->n_layers, sizeof *norms);
    for (size_t l = 0; l < m->n_layers; l++)
        for (size_t side = 0; side < 2; side++) {
            const struct kv_matrix *w = &m->layers[l].qkv;
            double sum = 0;
            for (size_t i = (q + side * kv) * w->cols; i < (q + (side + 1) * kv) * w->cols; i++)
                sum += pow((double)weight(w, i), 2);
            norms[2 * l + side] = (float)sqrt(sum);
        }
    return norms;
}

// What the bytes depend on besides the manifest: processor, arithmetic, tables.
static char *how_recorded(const struct kv_model *m, const struct kv_record_options *o) {
    struct kv_text t = {0};
    kv_text_addf(&t, "%s %s %s", kv_cpu_level_name(kv_cpu_level()), kv_compute_name(m),
                 kv_compute_blas(m));
    for (size_t i = 0; i < o->n_tables; i++) kv_text_addf(&t, " %s", o->table_formats[i]);
    return kv_text_take(&t);
}

// What became of the work, added to the reason why it stopped.
static void say_what_stays(const struct recorder *r, size_t done, size_t n, const char *dir,
                           struct kv_error *e) {
    char *why = kv_strdup(e->code == KV_EINTR ? "interrupted" : e->msg);
    if (e->code == KV_EINTR) snprintf(e->where, sizeof e->where, "record");
    if (atomic_load(&r->refused))
        snprintf(
            e->msg, sizeof e->msg,
            "%s; the same command would meet it again, so no item is kept (--ids takes others)",
            why);
    else if (done)
        snprintf(e->msg, sizeof e->msg,
                 "%s; %zu of %zu items are kept in %s, and the same command goes on", why, done, n,
                 dir);
    else
        snprintf(e->msg, sizeof e->msg, "%s; no item was finished", why);
    free(why);
}

// Guarded, so that the folder is let go of whatever happens in it.
static int record_all(struct recorder *r, const struct kv_record_options *o, char digest[17],
                      struct kv_error *e) {
    KV_GUARD(e);
    size_t done = kv_trace_writer_done(r->writer);
    if (done) kv_say("going on: %zu of %zu items are there", done, r->items->n);
    int rc = o->n_tables ? open_tables(r, o, e) : 0;
    r->progress = kv_progress_start("recording", r->items->n, "items");
    if (rc == 0) rc = kv_parallel(r->items->n, o->jobs, record_item, r, e);
    kv_progress_end(r->progress);
    if (rc == 0) rc = kv_trace_writer_seal(r->writer, digest, e);
    return rc;
}

static int record_into(struct recorder *r, const struct kv_record_options *o, struct kv_error *e) {
    struct kv_error own, *why = e ? e : &own;
    char digest[17];
    int rc = record_all(r, o, digest, why);
    if (rc && atomic_load(&r->refused)) kv_trace_writer_forget(r->writer);
    size_t done = kv_trace_writer_done(r->writer);
    int closed = close_tables(r, o, rc ? NULL : digest, rc ? NULL : why);
    if (rc == 0) rc = closed;
    closed = kv_trace_writer_close(r->writer, rc == 0, rc ? NULL : why);
    if (rc == 0) rc = closed;
    if (rc && rc != KV_ENOMEM) say_what_stays(r, done, r->items->n, o->dir, why);
    return rc;
}

static int open_cells(struct kv_cell_errors **c, const struct kv_model *m,
                      const struct kv_record_options *o, struct kv_error *e) {
    const struct kv_format_setting setting = {.shape = m->shape, .order = m->order};
    return kv_cell_errors_open(c, o->cells_format ? o->cells_format : KV_CELLS_FORMAT, &setting,
                               o->jobs, e);
}

int kv_record(const struct kv_model *m, const struct kv_tasks *tasks,
              const struct kv_record_options *o, struct kv_error *e) {
    KV_GUARD(e);
    struct kv_items *items;
    struct kv_cell_errors *cells = NULL;
    uint32_t keep = o->keep | (o->keep & KV_KEEP_CELLS ? KV_KEEP_KV : 0);
    if (!m->tokenizer) return kv_fail(e, KV_EFAIL, m->name, "has no tokenizer");
    int rc = keep & KV_KEEP_CELLS ? open_cells(&cells, m, o, e) : 0;
    if (rc) return rc;
    rc = kv_items_new(&items, m, tasks, o, e);
    if (rc) {
        kv_cell_errors_close(cells);
        return rc;
    }
    char digest[17];
    kv_hex64(kv_tokenizer_digest(m->tokenizer), digest);
    struct kv_trace_info info = {
        .shape = m->shape,
        .order = m->order,
        .model_name = (char *)m->name,
        .model_digest = (char *)m->digest,
        .model_source = (char *)m->source,
        .weights_as = (char *)m->weights_as,
        .task_name = tasks->name,
        .task_path = tasks->path,
        .task_prompt = tasks->prompt,
        .task_digest = (char *)tasks->digest,
        .subset = items->subset,
        .tokenizer_digest = digest,
        .window_tokens = tasks->kind == KV_TASK_TEXT ? tasks->window_tokens : 0,
        .rope_base = m->rope[0].base,
        .rope = kv_angles_of_model(m),
        .windows = kv_windows_of_model(m),
        .adjoint = o->adjoint,
        .keep = keep,
        .cells_format = cells ? (char *)kv_cell_errors_format(cells) : NULL,
        .n_items = items->n,
        .n_tokens = items->n_tokens,
        .tool_version = KV_VERSION,
        .blas = (char *)kv_blas_core(),
        .kv_norms = kv_norms(m),
    };
    if (!wants_gradients(keep, o->n_tables))
        info.adjoint = (struct kv_adjoint_info){.mode = "none", .self = "none", .score = "none"};
    size_t norm = kv_find_not_finite(info.kv_norms, 2 * (size_t)m->n_layers);
    if (norm < 2 * (size_t)m->n_layers) {
        rc = kv_fail(e, KV_EFAIL, m->name, "the %s projection of layer %zu has a norm of %g",
                     norm % 2 ? "value" : "key", norm / 2, (double)info.kv_norms[norm]);
        free(info.kv_norms);
        free(info.rope);
        free(info.windows);
        kv_items_free(items);
        kv_cell_errors_close(cells);
        return rc;
    }
    struct kv_trace_size size = kv_trace_size(&info, items->items, items->n);
    kv_say("recording %zu items (%s), %zu tokens: %.1f KB a token, %.2f GB in all, to %s", items->n,
           items->subset, items->n_tokens, 1e-3 * size.bytes_per_token,
           1e-9 * (double)size.total_bytes, o->dir);
    struct recorder r = {.m = m,
                         .items = items,
                         .keep = keep,
                         .cells = cells,
                         .adjoint = o->adjoint,
                         .tape_bytes = o->tape_bytes ? o->tape_bytes : KV_TAPE_BYTES,
                         .info = &info};
    r.scratch = kv_scratch_crew_new(o->jobs, items->n);
    char *how = how_recorded(m, o);
    rc = kv_trace_writer_open(&r.writer, o->dir, &info, how, items->items, items->n, e);
    free(how);
    if (rc == 0) rc = record_into(&r, o, e);
    kv_scratch_crew_free(r.scratch, o->jobs);
    free(info.kv_norms);
    free(info.rope);
    free(info.windows);
    kv_items_free(items);
    kv_cell_errors_close(cells);
    return rc;
}
