// SPDX-License-Identifier: Apache-2.0
// Building, keeping and finding tables.
#include "traces/tables.h"
#include "traces/recorded.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/files.h"
#include "sim/base/finite.h"
#include "sim/base/guard.h"
#include "sim/base/half.h"
#include "sim/base/hash.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"
#include "sim/model/safetensors.h"
#include "sim/quant/code.h"
#include "traces/products.h"

const char *const kv_cell_table_kinds[] = {"iso",   "element",  "vector", "channel",
                                           "error", "relative", NULL};

// ---- one item -------------------------------------------------------------------------

struct kv_cell_table_scratch {
    void *code;
    float *error; // [n_tokens][n_layers][n_kv_heads][2][head_dim]
    float *side;  // [n_tokens][n_kv_heads][head_dim] of one layer and side, and its decoded copy
    uint8_t *cells;
    size_t n_tokens;
};

struct kv_cell_table_scratch *kv_cell_table_scratch_new(const struct kv_format *f) {
    KV_GUARD_ELSE(return NULL);
    struct kv_cell_table_scratch *s = kv_alloc(1, sizeof *s);
    s->code = kv_alloc(kv_code_scratch_bytes(f), 1);
    return s;
}

void kv_cell_table_scratch_free(struct kv_cell_table_scratch *s) {
    if (!s) return;
    void *blocks[] = {s->code, s->error, s->side, s->cells, s};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
}

static void make_room(struct kv_cell_table_scratch *s, const struct kv_shape *sh, size_t n) {
    if (s->n_tokens >= n) return;
    size_t cells = kv_cells(sh);
    free(s->error);
    free(s->side);
    free(s->cells);
    s->error = s->side = NULL;
    s->cells = NULL;
    s->n_tokens = 0;
    s->error = kv_alloc(n * cells * sh->head_dim, sizeof(float));
    s->side = kv_alloc(2 * n * sh->n_kv_heads * sh->head_dim, sizeof(float));
    s->cells = kv_alloc(n * cells, 1);
    s->n_tokens = n;
}

static int code_side(const struct kv_trace_item *it, const struct kv_shape *sh,
                     const struct kv_format *f, uint32_t layer, enum kv_side side,
                     const uint8_t *cells, void *scratch, const float *x, float *y,
                     struct kv_error *e) {
    int rc = 0;
    for (uint32_t b = 0; b <= it->n_choices && rc == 0; b++) {
        struct kv_vectors rows =
            kv_branch_rows(sh, layer, side, it->n_context, it->first, b, cells, x, y);
        rc = kv_code_rows(f, &rows, scratch, NULL, e);
    }
    return rc;
}

int kv_coding_error(const struct kv_trace_info *in, const struct kv_trace_item *it,
                    const struct kv_format *f, const uint8_t *cells,
                    struct kv_cell_table_scratch *s, float *error, struct kv_error *e) {
    KV_GUARD(e);
    const struct kv_shape *sh = &in->shape;
    size_t d = sh->head_dim, width = (size_t)sh->n_kv_heads * d, n = it->n_tokens;
    make_room(s, sh, n);
    float *x = s->side, *y = s->side + n * width;
    for (uint32_t l = 0; l < sh->n_layers; l++)
        for (int side = 0; side < 2; side++) {
            bool turn = side == KV_KEY && f->keys_before_rope;
            kv_recorded_rows(in, it, l, (enum kv_side)side, turn, x);
            int rc = code_side(it, sh, f, l, (enum kv_side)side, cells, s->code, x, y, e);
            if (rc) return rc;
            for (size_t row = 0; row < n; row++)
                for (size_t h = 0; h < sh->n_kv_heads; h++) {
                    float *to =
                        error +
                        (((row * sh->n_layers + l) * sh->n_kv_heads + h) * 2 + (size_t)side) * d;
                    const float *xs = x + row * width + h * d, *ys = y + row * width + h * d;
                    for (size_t i = 0; i < d; i++) to[i] = ys[i] - xs[i];
                    if (turn)
                        kv_recorded_turn(in, l, to, kv_trace_position(it, row),
                                         1); // RoPE is linear
                }
        }
    return 0;
}

// One cell's entry for its error vector.
static float entry(const struct kv_trace_info *in, const struct kv_trace_item *it,
                   enum kv_cell_table_kind kind, const float *channels, size_t row, size_t cell,
                   const float *error) {
    size_t d = in->shape.head_dim, cells = kv_cells(&in->shape), head = cell / 2,
           draws = in->adjoint.draws;
    if (kind == KV_TABLE_ERROR) return kv_square(error, d);
    if (kind == KV_TABLE_ISO)
        return 0.5f * it->sens[row * cells + cell] * kv_square(error, d) / (float)d;
    if (kind == KV_TABLE_CHANNEL)
        return 0.5f * it->sens[row * cells + cell] *
               kv_square_by_channel(channels + cell * d, error, d) / (float)d;
    if (kind == KV_TABLE_RELATIVE) {
        const uint16_t *half = (cell & 1 ? it->v : it->k) + (row * cells / 2 + head) * d;
        double norm = 0;
        for (size_t i = 0; i < d; i++) norm += pow((double)kv_f16_to_f32(half[i]), 2);
        return norm > 0 ? (float)((double)kv_square(error, d) / norm) : 0;
    }
    const uint16_t *grad = cell & 1 ? it->v_grad : it->k_grad;
    double sum = 0;
    for (size_t r = 0; r < draws; r++) {
        const uint16_t *g = grad + ((row * draws + r) * cells / 2 + head) * d;
        struct kv_products p = kv_gradient_products(g, error, d);
        sum += kind == KV_TABLE_VECTOR ? (double)p.dot * (double)p.dot : (double)p.squares;
    }
    return (float)(0.5 * sum / (double)draws);
}

int kv_cell_table_fill(const struct kv_trace_info *in, const struct kv_trace_item *it,
                       const struct kv_format *f, enum kv_cell_table_kind kind,
                       const float *channels, struct kv_cell_table_scratch *s, float *out,
                       struct kv_error *e) {
    KV_GUARD(e);
    size_t cells = kv_cells(&in->shape), d = in->shape.head_dim;
    make_room(s, &in->shape, it->n_tokens);
    for (size_t w = 0; w < f->n_widths; w++) {
        memset(s->cells, (int)w, it->n_tokens * cells);
        int rc = kv_coding_error(in, it, f, s->cells, s, s->error, e);
        if (rc) return rc;
        for (size_t row = 0; row < it->n_tokens; row++)
            for (size_t c = 0; c < cells; c++)
                out[(row * f->n_widths + w) * cells + c] =
                    entry(in, it, kind, channels, row, c, s->error + (row * cells + c) * d);
    }
    // Policies choose widths by these numbers: one that is none would decide for all.
    size_t n = it->n_tokens * f->n_widths * cells, i = kv_find_not_finite(out, n);
    if (i == n) return 0;
    return kv_fail(e, KV_EFAIL, in->path,
                   "item %u (id %s): coding token %zu by %s at %u bits has an error that is not "
                   "finite, so no table of it can be made",
                   it->index, it->id, i / (f->n_widths * cells), f->canonical,
                   (unsigned)f->width_bits[i / cells % f->n_widths]);
}

// ---- the file -------------------------------------------------------------------------

struct kv_cell_table {
    const struct kv_trace *trace;
    size_t token_floats;
    size_t *first_token; // [n_items]
    struct kv_safetensors file;
    float *memory; // when it could not be kept
    const float *data;
};

// What the numbers depend on: the trace, the kind, the format, and which arithmetic its name meant.
static char *table_key(const char *digest, const struct kv_format *f,
                       enum kv_cell_table_kind kind) {
    struct kv_text t = {0};
    kv_text_addf(&t, "%s %s %s", digest, kv_cell_table_kinds[kind], f->canonical);
    for (const struct kv_format *in = f; in; in = in->inner)
        if (in->type->revision) kv_text_addf(&t, " %s#%u", in->type->name, in->type->revision);
    return kv_text_take(&t);
}

static char *table_path(const char *dir, const char *key, enum kv_cell_table_kind kind) {
    char hex[17];
    kv_hex64(kv_hash(key, strlen(key), 0), hex);
    return kv_format_text("%s/tables/%s-%s.safetensors", dir, kv_cell_table_kinds[kind], hex);
}

enum kv_cell_table_kind kv_cell_table_best(const struct kv_trace *t) {
    uint32_t keep = kv_trace_info(t)->keep;
    if (!(keep & KV_KEEP_KV)) return KV_TABLE_ISO; // made while recording, if there is one
    if (keep & KV_KEEP_GRAD) return KV_TABLE_ELEMENT;
    bool channels = keep & KV_KEEP_SENS && kv_trace_item(t, 0)->channel_gradient;
    return channels ? KV_TABLE_CHANNEL : KV_TABLE_ISO;
}

static int check_needs(const struct kv_trace *t, enum kv_cell_table_kind kind, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t);
    if (!(in->keep & KV_KEEP_KV))
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps no K and V, which tables are made from; record with --keep kv");
    if ((kind == KV_TABLE_ISO || kind == KV_TABLE_CHANNEL) && !(in->keep & KV_KEEP_SENS))
        return kv_fail(e, KV_EFAIL, in->path, "keeps no sensitivities; record with --keep kv,sens");
    if (kind == KV_TABLE_CHANNEL && !kv_trace_item(t, 0)->channel_gradient)
        return kv_fail(
            e, KV_EFAIL, in->path,
            "was recorded before squared gradients were summed by channel, which channel "
            "tables need; record it again, or ask for form iso");
    if ((kind == KV_TABLE_ELEMENT || kind == KV_TABLE_VECTOR) && !(in->keep & KV_KEEP_GRAD))
        return kv_fail(e, KV_EFAIL, in->path,
                       "keeps no whole gradients, which %s tables need; record with --keep kv,grad",
                       kv_cell_table_kinds[kind]);
    return 0;
}

struct builder {
    const struct kv_trace *trace;
    const struct kv_format *f;
    enum kv_cell_table_kind kind;
    struct kv_cell_table_scratch **scratch;
    const size_t *first_token;
    size_t token_floats;
    float *data;
};

static int build_item(void *self, unsigned worker, size_t i, struct kv_error *e) {
    const struct builder *b = self;
    int rc = kv_trace_check_item(b->trace, i, KV_KEEP_KV | KV_KEEP_SENS | KV_KEEP_GRAD, e);
    if (rc) return rc;
    return kv_cell_table_fill(kv_trace_info(b->trace), kv_trace_item(b->trace, i), b->f, b->kind,
                              kv_trace_channels(b->trace), b->scratch[worker],
                              b->data + b->first_token[i] * b->token_floats, e);
}

static int build(const struct builder *b, unsigned jobs, struct kv_error *e) {
    struct builder own = *b;
    own.scratch = kv_alloc(jobs, sizeof(struct kv_cell_table_scratch *));
    for (unsigned w = 0; w < jobs; w++) own.scratch[w] = kv_cell_table_scratch_new(b->f);
    int rc = kv_parallel(kv_trace_info(b->trace)->n_items, jobs, build_item, &own, e);
    for (unsigned w = 0; w < jobs; w++) kv_cell_table_scratch_free(own.scratch[w]);
    free(own.scratch);
    return rc;
}

// ---- writing -----------------------------------------------------------------------------

// The header for a trace digest; every digest is as long as every other, so the layout stands from
// the start.
static int table_header(struct kv_cell_table_writer *w, const char *digest, char **header,
                        size_t *n, uint64_t *offset, struct kv_error *e) {
    const struct kv_trace_info *in = &w->shape;
    struct kv_tensor tensor = {.name = "table", .dtype = "F32", .n_dims = 5};
    const uint64_t dims[5] = {in->n_tokens, w->format->n_widths, in->shape.n_layers,
                              in->shape.n_kv_heads, 2};
    memcpy(tensor.dims, dims, sizeof dims);
    char *key = table_key(digest, w->format, w->kind);
    const char *const meta[] = {"format", "kvsim-table-1", "key", key};
    int rc = kv_safetensors_layout(&tensor, 1, meta, 2, header, n, &w->total, e);
    free(key);
    *offset = tensor.offset;
    return rc;
}

static uint64_t taken_bytes(int fd) {
    struct stat st;
    return fstat(fd, &st) ? 0 : 512 * (uint64_t)st.st_blocks;
}

int kv_cell_table_writer_open(struct kv_cell_table_writer *w, const char *dir,
                              const struct kv_trace_info *info, const struct kv_format *f,
                              enum kv_cell_table_kind kind, bool resume, struct kv_error *e) {
    *w = (struct kv_cell_table_writer){0};
    KV_GUARD(e);
    char *tables = kv_format_text("%s/tables", dir), *header;
    size_t n;
    uint64_t offset;
    *w = (struct kv_cell_table_writer){
        .format = f, .kind = kind, .fd = -1, .shape = *info, .dir = kv_strdup(dir)};
    int rc = kv_make_dir(tables, e);
    if (rc == 0) rc = table_header(w, "0000000000000000", &header, &n, &offset, e);
    if (rc == 0) {
        free(header);
        w->temporary =
            kv_format_text("%s/%s-%016llx.partial.%ld", tables, kv_cell_table_kinds[kind],
                           (unsigned long long)kv_hash(f->canonical, strlen(f->canonical), 0),
                           resume ? 0 : (long)getpid());
        w->fd = open(w->temporary, O_RDWR | O_CREAT | O_CLOEXEC | (resume ? 0 : O_TRUNC), 0666);
        if (w->fd < 0)
            rc = kv_fail(e, KV_EFAIL, w->temporary, "cannot be made: %s", strerror(errno));
    }
    if (rc == 0 && (w->total > kv_free_bytes(tables) + taken_bytes(w->fd) ||
                    posix_fallocate(w->fd, 0, (off_t)w->total) != 0))
        rc = kv_fail(e, KV_EFAIL, tables, "has no room for a table of %.2f GB",
                     1e-9 * (double)w->total);
    if (rc == 0) {
        w->map = mmap(NULL, w->total, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
        if (w->map == MAP_FAILED) {
            w->map = NULL;
            rc = kv_fail(e, KV_EFAIL, w->temporary, "cannot be mapped: %s", strerror(errno));
        } else
            w->data = (float *)(void *)(w->map + offset);
    }
    free(tables);
    if (rc) (void)!kv_cell_table_writer_close(w, false, NULL, NULL);
    return rc;
}

// The checksum lies beside the table, so that the table itself can be mapped and filled in any
// order.
static int write_sum(const char *path, struct kv_error *e) {
    struct kv_map map;
    char hex[18], *sum_path = kv_format_text("%s.xxh64", path);
    int rc = kv_map_open(&map, path, e);
    if (rc == 0) {
        kv_hex64(kv_hash(map.data, map.n, 0), hex);
        rc = kv_write_file(sum_path, hex, 16, e);
        kv_map_close(&map);
    }
    free(sum_path);
    return rc;
}

int kv_cell_table_writer_close(struct kv_cell_table_writer *w, bool keep, const char *digest,
                               struct kv_error *e) {
    KV_GUARD(e);
    int rc = 0;
    if (keep) {
        char *header, *key = table_key(digest, w->format, w->kind),
                      *path = table_path(w->dir, key, w->kind);
        size_t n;
        uint64_t offset;
        rc = table_header(w, digest, &header, &n, &offset, e);
        if (rc == 0) {
            memcpy(w->map, header, n);
            free(header);
            if (msync(w->map, w->total, MS_SYNC))
                rc = kv_fail(e, KV_EFAIL, path, "cannot be written: %s", strerror(errno));
            if (rc == 0) rc = kv_rename_file(w->temporary, path, e);
        }
        if (rc == 0) rc = write_sum(path, e);
        free(path);
        free(key);
    }
    if (w->map) munmap(w->map, w->total);
    if (w->fd >= 0) {
        close(w->fd);
        if ((!keep || rc) && !w->stays) unlink(w->temporary);
    }
    free(w->temporary);
    free(w->dir);
    *w = (struct kv_cell_table_writer){.fd = -1};
    return rc;
}

// ---- opening -----------------------------------------------------------------------------

// Opens a kept table if it is whole and made from this trace and format.
static bool open_kept(struct kv_cell_table *t, const char *path, const char *key) {
    char *sum_path = kv_format_text("%s.xxh64", path), *text = NULL, hex[17];
    const char *found = NULL;
    size_t n = 0;
    bool good = access(path, R_OK) == 0 && kv_read_file(sum_path, &text, &n, NULL) == 0 &&
                kv_safetensors_open(&t->file, path, NULL) == 0;
    if (good) {
        kv_hex64(kv_hash(t->file.map.data, t->file.map.n, 0), hex);
        found = kv_safetensors_meta(&t->file, "key");
        const struct kv_tensor *tensor = kv_safetensors_find(&t->file, "table");
        good =
            n == 16 && memcmp(hex, text, 16) == 0 && found && strcmp(found, key) == 0 && tensor &&
            tensor->n_bytes == kv_trace_info(t->trace)->n_tokens * t->token_floats * sizeof(float);
        if (good)
            t->data = (const float *)(const void *)tensor->data;
        else
            kv_safetensors_close(&t->file);
    }
    free(sum_path);
    free(text);
    return good;
}

// Builds the table into its file, or into memory where the folder cannot be written.
static int build_and_open(struct kv_cell_table *t, const struct kv_format *f,
                          enum kv_cell_table_kind kind, const char *key, const char *path,
                          unsigned jobs, struct kv_error *e) {
    const struct kv_trace_info *in = kv_trace_info(t->trace);
    struct builder b = {.trace = t->trace,
                        .f = f,
                        .kind = kind,
                        .first_token = t->first_token,
                        .token_floats = t->token_floats};
    struct kv_cell_table_writer w;
    int rc = check_needs(t->trace, kind, e);
    if (rc) return rc;
    if (kv_tolerate(kv_cell_table_writer_open(&w, in->path, in, f, kind, false, NULL), NULL) == 0) {
        b.data = w.data;
        rc = build(&b, jobs, e);
        int closed = kv_cell_table_writer_close(&w, rc == 0, in->digest, e);
        if (rc || closed) return rc ? rc : closed;
        if (open_kept(t, path, key)) return 0;
        return kv_fail(e, KV_EFAIL, path, "cannot be read back");
    }
    kv_say("%s/tables cannot be written: the %s table stays in memory", in->path,
           kv_cell_table_kinds[kind]);
    b.data = t->memory = kv_alloc(in->n_tokens * t->token_floats, sizeof(float));
    t->data = t->memory;
    return build(&b, jobs, e);
}

int kv_cell_table_open(struct kv_cell_table **out, const struct kv_trace *trace,
                       const struct kv_format *f, enum kv_cell_table_kind kind, unsigned jobs,
                       struct kv_error *e) {
    *out = NULL;
    KV_GUARD(e);
    const struct kv_trace_info *in = kv_trace_info(trace);
    struct kv_cell_table *t = kv_alloc(1, sizeof *t);
    t->trace = trace;
    t->token_floats = f->n_widths * kv_cells(&in->shape);
    t->first_token = kv_alloc(in->n_items, sizeof *t->first_token);
    for (size_t i = 1; i < in->n_items; i++)
        t->first_token[i] = t->first_token[i - 1] + kv_trace_item(trace, i - 1)->n_tokens;
    char *key = table_key(in->digest, f, kind), *path = table_path(in->path, key, kind);
    int rc = open_kept(t, path, key) ? 0 : build_and_open(t, f, kind, key, path, jobs, e);
    free(key);
    free(path);
    if (rc)
        kv_cell_table_close(t);
    else
        *out = t;
    return rc;
}

void kv_cell_table_close(struct kv_cell_table *t) {
    if (!t) return;
    kv_safetensors_close(&t->file);
    free(t->memory);
    free(t->first_token);
    free(t);
}

const float *kv_cell_table_item(const struct kv_cell_table *t, size_t i) {
    return t->data + t->first_token[i] * t->token_floats;
}

size_t kv_cell_table_bytes_per_token(const struct kv_cell_table *t) {
    return t->token_floats * sizeof(float);
}
