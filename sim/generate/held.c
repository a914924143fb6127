// SPDX-License-Identifier: Apache-2.0
// A sequence's stored vectors: appended, coded when they are due, read.
#include "sim/generate/held.h"

#include <stdlib.h>

#include "sim/base/finite.h"
#include "sim/base/half.h"
#include "sim/base/memory.h"
#include "sim/quant/code.h"
#include "sim/replay/ask.h"
#include "sim/replay/plugin.h"
#include "traces/features.h"

struct kv_held {
    const struct kv_model *m;
    const struct kv_replay_spec *spec; // NULL: the 16-bit run
    bool codes;                        // spec is there and is not `none`
    bool self_exact, apart;            // apart: what is generated is a branch of its own
    bool evicts, not_finite;
    bool late; // a token is decided about with the next one
    uint32_t n_prompt, prompt_rows, exact_rows, n, room;
    size_t width, n_q, n_cells, ld;
    uint64_t key;
    const struct kv_tokenizer *tokenizer;
    const float *rarity, *rarity_of; // [n_prompt], [vocab], or NULL
    uint32_t *ids, *positions;       // [room]
    struct kv_token *tokens;         // [room]
    uint8_t *cells;                  // [room][n_cells]
    float *k_raw, *k, *v;   // [n_layers][room][width] as computed; NULL where nobody asks again
    float *input, *q;       // [n_layers][room][hidden], [n_layers][room][n_q] or NULL
    float *read_k, *read_v; // [n_layers][width][ld] and [n_layers][room][width]
    uint8_t *evicted;       // [n_kv_heads][ld] of the layer at hand
    uint32_t *upto;         // [n_layers][2] positions that are read coded
    float *rows;            // [room][width] on the way from codes to reads
    void *code_scratch;
    struct kv_item view;
    struct kv_tree tree;
    struct kv_layered layered; // of the step at hand
};

// ---- what can be asked without a recording --------------------------------------------

int kv_held_answers(const struct kv_replay_spec *spec, enum kv_mode mode, bool self_exact,
                    struct kv_error *e) {
    uint32_t features = kv_by_layers(spec) ? 0 : spec->needs & KV_HELD_FEATURES,
             unknown = spec->needs & ~(KV_NEED_CLASS | features);
    if (mode == KV_REQUANT)
        return kv_fail(e, KV_EUSAGE, "--mode",
                       "requant: a sequence that is generated is stored once; inline, prefill or "
                       "prefill1 is expected");
    for (uint32_t bit = 0; bit < 32; bit++)
        if (unknown >> bit & 1)
            return kv_fail(e, KV_EUSAGE, spec->canonical,
                           "policy %s reads %s, which a recording has and a sequence that is being "
                           "generated has not",
                           spec->policy_name, kv_need_name(1u << bit));
    if (features && !self_exact)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "policy %s reads %s of a token, known when its own query has read it: "
                       "--self exact is expected",
                       spec->policy_name, kv_need_name(features & -features));
    if (spec->delay_tokens)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "policy %s decides about a token when later ones are known; here each is "
                       "stored as it arrives",
                       spec->policy_name);
    if (kv_by_layers(spec) && kv_by_layers(spec) != spec)
        return kv_fail(e, KV_EUSAGE, spec->canonical,
                       "policy %s wraps one that decides by layers: its answers go to tokens of a "
                       "finished sequence",
                       spec->policy_name);
    return kv_layered_answers(spec, mode, false, e);
}

static int no_recording(const struct kv_fitting *f, struct kv_error *e) {
    (void)f;
    return kv_fail(e, KV_EUSAGE, "policy",
                   "is fitted to a recording, and a sequence that is being generated has none");
}

static int no_output_error(const struct kv_fitting *f, size_t n, size_t n_pairs,
                           const uint8_t (*pair)[2], double *error, struct kv_error *e) {
    (void)n, (void)n_pairs, (void)pair, (void)error;
    return no_recording(f, e);
}

static int no_damage(const struct kv_fitting *f, size_t n, double *damage, struct kv_error *e) {
    (void)n, (void)damage;
    return no_recording(f, e);
}

int kv_held_fit(const struct kv_model *m, const struct kv_replay_spec *spec, struct kv_error *e) {
    int rc = 0;
    for (const struct kv_replay_spec *s = spec; s && rc == 0; s = s->inner) {
        const struct kv_fitting f = {.struct_bytes = sizeof f,
                                     .run = &s->run,
                                     .output_error = no_output_error,
                                     .damage = no_damage,
                                     .model_name = m->name,
                                     .model_digest = m->digest,
                                     .trace_digest = "",
                                     .trace_seal = ""};
        const char *before = kv_plugin_enter(kv_spec_plugin(s));
        if (s->policy->fit) rc = s->policy->fit(s->self, &f, e);
        kv_plugin_leave(before);
    }
    return rc;
}

// ---- the prompt -----------------------------------------------------------------------

static void prompt_room(struct kv_prompt *p, const struct kv_shape *s, bool seen) {
    size_t n = (size_t)p->rows * s->n_kv_heads * s->head_dim,
           n_q = (size_t)s->n_heads * s->head_dim, wide = (size_t)p->rows * (s->hidden + n_q);
    p->layers = kv_alloc(s->n_layers, sizeof *p->layers);
    p->block = kv_alloc(3 * n * s->n_layers, sizeof(float));
    p->final = kv_alloc(s->hidden, sizeof(float));
    if (seen) p->seen = kv_alloc(s->n_layers, sizeof *p->seen);
    if (seen) p->seen_block = kv_alloc(wide * s->n_layers, sizeof(float));
    for (size_t l = 0; l < s->n_layers; l++) {
        float *kv = p->block + 3 * l * n, *at = seen ? p->seen_block + l * wide : NULL;
        p->layers[l] = (struct kv_layer_kv){kv, kv + n, kv + 2 * n};
        if (seen) p->seen[l] = (struct kv_pass_rows){at, at + (size_t)p->rows * s->hidden};
    }
}

void kv_prompt_fini(struct kv_prompt *p) {
    void *owned[] = {p->layers, p->seen, p->block, p->seen_block, p->final, p->features};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *p = (struct kv_prompt){0};
}

// features: [KV_N_FEATURES], or NULL where they are not known yet.
static void show_token(struct kv_token *t, uint32_t position, uint32_t id,
                       const struct kv_tokenizer *tokenizer, uint32_t needs,
                       const float *features) {
    *t = (struct kv_token){.pos = position, .id = id};
    if (needs & KV_NEED_CLASS)
        t->kind = position ? (uint32_t)kv_tokenizer_kind(tokenizer, id) : KV_FIRST;
    for (int f = 0; f < KV_N_FEATURES; f++)
        t->feature[f] = features && needs & KV_NEED(f) ? features[f] : NAN;
}

static struct kv_item shown(const struct kv_replay_spec *spec, uint64_t key, uint32_t n,
                            const struct kv_token *tokens) {
    return (struct kv_item){.struct_bytes = sizeof(struct kv_item),
                            .run = &spec->run,
                            .key = key,
                            .n_tokens = n,
                            .n_context = n,
                            .tokens = tokens};
}

static const float *known_at(const struct kv_prompt_ask *ask, size_t row) {
    return ask->known ? ask->known + row * KV_N_FEATURES : NULL;
}

// Lets the prompt's pass read what the spec stores of it.
static int code_prompt(struct kv_pass *p, const struct kv_prompt_ask *ask,
                       const struct kv_tree *tree, struct kv_token *tokens, struct kv_item *view,
                       struct kv_layered *y, uint8_t *cells, uint32_t *upto, struct kv_error *e) {
    const struct kv_replay_spec *spec = ask->spec;
    int rc = 0;
    for (uint32_t i = 0; i < ask->rows; i++) {
        show_token(&tokens[i], i, ask->ids[i], ask->tokenizer, spec->needs, known_at(ask, i));
        for (int side = 0; side < 2; side++) {
            uint32_t *to = &upto[2 * i + (uint32_t)side];
            *to = (uint32_t)kv_coded_upto(spec->format, (enum kv_side)side, 0, i, ask->self_exact);
            p->reads_exact |= *to <= i;
        }
    }
    *view = shown(spec, ask->key, ask->rows, tokens);
    p->spec = spec;
    p->cells = cells;
    p->code_scratch = kv_alloc(kv_code_scratch_bytes(spec->format), 1);
    if (kv_by_layers(spec)) {
        kv_layered_init(y, spec, view, ask->rows);
        y->tree = tree;
        kv_pass_layered(p, y, cells, 0, NULL);
    } else
        rc = kv_ask_checked(spec, view, "generated", cells, e);
    return rc;
}

// What a pass over the prompt makes known of its tokens: of K and V as fp16 holds them, as a
// recording has it.
static void find_features(const struct kv_model *m, struct kv_scratch *s,
                          const struct kv_prompt_ask *ask, const float *final,
                          const float *variance, struct kv_prompt *out) {
    size_t rows = ask->rows, n = rows * m->shape.n_kv_heads * m->shape.head_dim;
    float *half = kv_alloc(n, sizeof *half);
    uint32_t *all = kv_alloc(rows, sizeof *all);
    for (size_t l = 0; l < m->shape.n_layers; l++)
        for (int side = 0; side < 2; side++) {
            const float *x = side == KV_KEY ? out->layers[l].k : out->layers[l].v;
            for (size_t i = 0; i < n; i++) half[i] = kv_half_to_float(kv_f32_to_f16(x[i]));
            kv_add_ranges(&m->shape, half, 0, rows, side == KV_KEY ? KV_KEY_RANGE : KV_VALUE_RANGE,
                          out->features);
        }
    for (uint32_t row = 0; row < rows; row++) {
        float *f = out->features + (size_t)row * KV_N_FEATURES;
        f[KV_RARITY_NATS] = ask->rarity ? ask->rarity[row] : NAN;
        f[KV_ATTN_VAR] = variance[row];
        all[row] = row;
    }
    kv_predicted_features(m, s, final, 0, all, rows, out->features);
    free(all);
    free(half);
}

int kv_prompt_run(const struct kv_model *m, struct kv_scratch *s, const struct kv_prompt_ask *ask,
                  struct kv_prompt *out, struct kv_error *e) {
    *out = (struct kv_prompt){.rows = ask->rows};
    prompt_room(out, &m->shape, ask->seen);
    if (ask->rows == 0) return 0;
    struct kv_tree tree = {ask->rows, ask->rows, 0, NULL, ask->ids};
    struct kv_token *tokens = kv_alloc(ask->rows, sizeof *tokens);
    uint8_t *cells = kv_alloc(ask->rows * kv_cells(&m->shape), 1);
    uint32_t *upto = kv_alloc(2 * (size_t)ask->rows, sizeof *upto);
    float *final = kv_alloc((size_t)ask->rows * m->shape.hidden, sizeof *final),
          *variance = ask->features ? kv_alloc(ask->rows, sizeof *variance) : NULL;
    struct kv_attention_stats stats = {.variance = variance};
    struct kv_layered y = {0};
    struct kv_item view;
    struct kv_pass p;
    kv_pass_init(&p, m, &tree);
    p.kept = out->layers;
    p.seen = out->seen;
    bool coded = ask->spec;
    int rc = coded ? code_prompt(&p, ask, &tree, tokens, &view, &y, cells, upto, e) : 0;
    if (!coded) p.reads_exact = true;
    struct kv_forward job = {.tree = &tree,
                             .coded_upto = coded ? upto : NULL,
                             .store = kv_pass_store,
                             .observe = kv_pass_observe,
                             .age = y.ages ? kv_pass_age : NULL,
                             .age_tokens = KV_REVISE_TOKENS,
                             .self = &p,
                             .stats = variance ? &stats : NULL,
                             .final = final};
    if (rc == 0) rc = kv_forward(m, &job, s, e);
    if (rc == 0 && variance) {
        out->features = kv_alloc((size_t)ask->rows * KV_N_FEATURES, sizeof *out->features);
        find_features(m, s, ask, final, variance, out);
    }
    free(variance);
    memcpy(out->final, final + (size_t)(ask->rows - 1) * m->shape.hidden,
           m->shape.hidden * sizeof *final);
    out->not_finite = p.not_finite;
    if (y.spec) kv_layered_fini(&y);
    kv_pass_fini(&p);
    free(final);
    free(upto);
    free(cells);
    free(tokens);
    return rc;
}

// ---- a sequence -----------------------------------------------------------------------

// A whole part of a sequence's memory and how many bytes it takes.
struct part {
    void **at;
    size_t n;
};
enum { MOST_PARTS = 16 };

static size_t parts_of(struct kv_held *h, struct part *to) {
    const struct kv_shape *s = &h->m->shape;
    size_t all = s->n_layers * (size_t)h->room, n = 0;
    bool layered = h->codes && kv_by_layers(h->spec);
#define PART(member, count)                                                                        \
    to[n++] = (struct part){(void **)&h->member, (count) * sizeof *h->member}
    PART(ids, h->room);
    PART(positions, h->room);
    PART(read_k, s->n_layers * h->width * h->ld);
    PART(read_v, all * h->width);
    PART(upto, 2 * s->n_layers);
    PART(rows, h->room * h->width);
    if (h->codes) {
        PART(tokens, h->room);
        PART(cells, h->room * h->n_cells);
        PART(k, all * h->width);
        PART(v, all * h->width);
        PART(evicted, s->n_kv_heads * h->ld);
        if (h->spec->format->keys_before_rope) PART(k_raw, all * h->width);
    }
    if (layered) {
        PART(input, all * s->hidden);
        PART(q, all * h->n_q);
    }
#undef PART
    return n;
}

static struct kv_held shaped(const struct kv_model *m, const struct kv_replay_spec *spec,
                             uint32_t room) {
    const struct kv_shape *s = &m->shape;
    return (struct kv_held){.m = m,
                            .spec = spec,
                            .codes = spec && *spec->format_text,
                            .apart =
                                spec && (spec->format->scope == KV_SCOPE_TENSOR || spec->hops > 1),
                            .room = room,
                            .width = (size_t)s->n_kv_heads * s->head_dim,
                            .n_q = (size_t)s->n_heads * s->head_dim,
                            .n_cells = kv_cells(s),
                            .ld = ((size_t)room / KV_STEP_COLUMNS + 2) * KV_STEP_COLUMNS};
}

size_t kv_held_bytes(const struct kv_model *m, const struct kv_replay_spec *spec, uint32_t room) {
    struct kv_held h = shaped(m, spec, room);
    struct part part[MOST_PARTS];
    size_t bytes = 0;
    for (size_t n = parts_of(&h, part); n--;) bytes += part[n].n;
    return bytes;
}

static struct kv_held *held_room(const struct kv_held *like) {
    struct kv_held *h = kv_alloc(1, sizeof *h);
    struct part part[MOST_PARTS];
    *h = *like;
    for (size_t n = parts_of(h, part); n--;) *part[n].at = kv_alloc(part[n].n, 1);
    if (h->codes) h->code_scratch = kv_alloc(kv_code_scratch_bytes(h->spec->format), 1);
    h->layered = (struct kv_layered){0};
    return h;
}

struct kv_held *kv_held_copy(const struct kv_held *from) {
    struct kv_held *h = held_room(from), source = *from;
    struct part to[MOST_PARTS], of[MOST_PARTS];
    size_t n = parts_of(h, to);
    parts_of(&source, of);
    for (size_t i = 0; i < n; i++) memcpy(*to[i].at, *of[i].at, to[i].n);
    return h;
}

void kv_held_free(struct kv_held *h) {
    struct part part[MOST_PARTS];
    if (!h) return;
    for (size_t n = parts_of(h, part); n--;) free(*part[n].at);
    if (h->layered.spec) kv_layered_fini(&h->layered);
    free(h->code_scratch);
    free(h);
}

static void put(struct kv_held *h, uint32_t layer, enum kv_side side, uint32_t from, uint32_t n,
                const float *x) {
    h->not_finite |= !kv_all_finite(x, n * h->width);
    if (side == KV_VALUE) {
        memcpy(h->read_v + ((size_t)layer * h->room + from) * h->width, x,
               n * h->width * sizeof *x);
        return;
    }
    float *to = h->read_k + (size_t)layer * h->width * h->ld + from;
    for (size_t i = 0; i < h->width; i++)
        for (size_t t = 0; t < n; t++) to[i * h->ld + t] = x[t * h->width + i];
}

// Rows as an exact read returns them: fp16, or float32 for policy none.
static void put_exact(struct kv_held *h, uint32_t layer, enum kv_side side, uint32_t from,
                      uint32_t n, const float *x) {
    bool rounds = !h->spec || h->codes;
    for (size_t i = 0; i < n * h->width; i++)
        h->rows[i] = rounds ? kv_half_to_float(kv_f32_to_f16(x[i])) : x[i];
    put(h, layer, side, from, n, h->rows);
}

struct kv_held *kv_held_new(const struct kv_model *m, const struct kv_replay_spec *spec,
                            const struct kv_prompt *p, const struct kv_prompt_ask *ask,
                            uint32_t n_prompt, uint32_t room, bool exact_prompt) {
    struct kv_held like = shaped(m, spec, room), *h = held_room(&like);
    size_t n = p->rows;
    h->self_exact = ask->self_exact;
    h->key = ask->key;
    h->tokenizer = ask->tokenizer;
    h->rarity = ask->rarity;
    h->rarity_of = ask->rarity_of;
    h->late = h->codes && spec->needs & KV_HELD_FEATURES;
    h->n_prompt = n_prompt;
    h->n = h->prompt_rows = p->rows;
    h->exact_rows = exact_prompt ? p->rows : 0;
    h->not_finite = p->not_finite;
    memcpy(h->ids, ask->ids, n * sizeof *h->ids);
    for (uint32_t i = 0; i < room; i++) h->positions[i] = i;
    for (uint32_t i = 0; h->codes && i < n; i++)
        show_token(&h->tokens[i], i, ask->ids[i], h->tokenizer, spec->needs, known_at(ask, i));
    for (size_t l = 0; l < m->shape.n_layers; l++) {
        size_t at = l * room * h->width, bytes = n * h->width * sizeof(float);
        float *k = h->k ? h->k + at : NULL;
        put_exact(h, (uint32_t)l, KV_KEY, 0, p->rows, p->layers[l].k);
        put_exact(h, (uint32_t)l, KV_VALUE, 0, p->rows, p->layers[l].v);
        if (k) memcpy(k, p->layers[l].k, bytes);
        if (k) memcpy(h->v + at, p->layers[l].v, bytes);
        if (h->k_raw) memcpy(h->k_raw + at, p->layers[l].k_raw, bytes);
        if (h->q) {
            memcpy(h->input + l * room * m->shape.hidden, p->seen[l].input,
                   n * m->shape.hidden * sizeof(float));
            memcpy(h->q + l * room * h->n_q, p->seen[l].q, n * h->n_q * sizeof(float));
        }
    }
    return h;
}

// ---- decisions ------------------------------------------------------------------------

// The policy is asked about the sequence so far; what was decided about earlier tokens stands.
static int decide(struct kv_held *h, uint32_t from, struct kv_error *e) {
    uint32_t n = h->view.n_tokens;
    uint8_t *answer = kv_alloc(n * h->n_cells, 1);
    int rc = kv_ask_checked(h->spec, &h->view, "generated", answer, e);
    for (size_t i = from * h->n_cells; i < n * h->n_cells && rc == 0; i++) {
        h->cells[i] = answer[i];
        h->evicts |= answer[i] == KV_EVICT;
    }
    free(answer);
    return rc;
}

// What is known of the token at hand before its pass, and what its pass adds up.
static void show_newest(struct kv_held *h, uint32_t id) {
    float known[KV_N_FEATURES] = {0};
    for (int f = 0; f < KV_N_FEATURES; f++)
        if (f != KV_KEY_RANGE && f != KV_VALUE_RANGE) known[f] = NAN;
    if (h->rarity_of)
        known[KV_RARITY_NATS] = h->n <= h->n_prompt ? h->rarity[h->n - 1] : h->rarity_of[id];
    show_token(&h->tokens[h->n - 1], h->n - 1, id, h->tokenizer, h->spec->needs, known);
}

int kv_held_feed(struct kv_held *h, uint32_t id, struct kv_error *e) {
    // The prompt is decided with its first step.
    uint32_t from = h->n == h->prompt_rows ? 0 : h->n - h->late;
    if (h->n == h->room)
        return kv_fail(e, KV_EFAIL, "generate", "a sequence has no room for token %u", h->n);
    h->ids[h->n++] = id;
    if (!h->codes) return 0;
    show_newest(h, id);
    h->view = shown(h->spec, h->key, h->n - h->late, h->tokens);
    if (!kv_by_layers(h->spec)) return decide(h, from, e);
    if (h->layered.spec) kv_layered_fini(&h->layered);
    kv_layered_init(&h->layered, h->spec, &h->view, h->n);
    h->tree = (struct kv_tree){h->n, h->n, 0, NULL, h->ids};
    h->layered.tree = &h->tree;
    h->layered.exact_rows = h->exact_rows;
    return 0;
}

struct kv_step_row kv_held_row(struct kv_held *h) {
    return (struct kv_step_row){.id = h->ids[h->n - 1], .position = h->n - 1, .self = h};
}

bool kv_held_not_finite(const struct kv_held *h) {
    return h->not_finite;
}

bool kv_held_wants(const struct kv_held *h) {
    return h->late;
}

void kv_held_tell(struct kv_held *h, float entropy_nats, float confidence, float attn_var) {
    struct kv_token *t = &h->tokens[h->n - 1];
    if (h->spec->needs & KV_NEED(KV_ENTROPY_NATS)) t->feature[KV_ENTROPY_NATS] = entropy_nats;
    if (h->spec->needs & KV_NEED(KV_CONFIDENCE)) t->feature[KV_CONFIDENCE] = confidence;
    if (h->spec->needs & KV_NEED(KV_ATTN_VAR)) t->feature[KV_ATTN_VAR] = attn_var;
}

const struct kv_token *kv_held_tokens(const struct kv_held *h) {
    return h->tokens;
}

const uint8_t *kv_held_cells(const struct kv_held *h, uint32_t *n) {
    *n = h->n;
    return h->cells;
}

// ---- what is read ---------------------------------------------------------------------

// Codes rows [from, to) of a side, which are whole blocks of the branch that begins at `start`, and
// has them read so.
static int code(struct kv_held *h, uint32_t layer, enum kv_side side, uint32_t start, uint32_t from,
                uint32_t to, const uint8_t *cells, struct kv_error *e) {
    const struct kv_format *f = h->spec->format;
    bool raw = side == KV_KEY && f->keys_before_rope;
    const float *x = (side == KV_VALUE ? h->v
                      : raw            ? h->k_raw
                                       : h->k) +
                     (size_t)layer * h->room * h->width;
    struct kv_vectors rows = {.layer = layer,
                              .side = side,
                              .start = start,
                              .first = from,
                              .n = to - from,
                              .x = x + from * h->width,
                              .x_stride = h->width,
                              .y = h->rows,
                              .y_stride = h->width,
                              .cells = cells + from * h->n_cells +
                                       layer * (h->n_cells / h->m->shape.n_layers) + side,
                              .cell_token_stride = h->n_cells,
                              .cell_head_stride = 2,
                              .opening = x,
                              .n_opening = h->n_prompt};
    if (from >= to) return 0;
    int rc = kv_code_rows(f, &rows, h->code_scratch, NULL, e);
    rows.x = rows.y;
    for (uint32_t hop = 1; start == 0 && hop < h->spec->hops && rc == 0; hop++)
        rc = kv_code_rows(f, &rows, h->code_scratch, NULL, e);
    if (rc) return rc;
    if (raw) kv_rope_keys(h->m, layer, h->rows, to - from, h->positions + from);
    put(h, layer, side, from, to - from, h->rows);
    return 0;
}

// Codes what has left the window, and whose block is full, with the token at hand.
static int code_due(struct kv_held *h, uint32_t layer, enum kv_side side, struct kv_error *e) {
    const struct kv_format *f = h->spec->format;
    uint32_t *upto = &h->upto[2 * layer + (uint32_t)side], was = *upto, branch = h->n_prompt;
    bool apart = h->apart && h->n > branch;
    uint32_t now = (uint32_t)kv_coded_upto(f, side, apart ? branch : 0, h->n - 1, h->self_exact);
    if (now <= was) return 0;
    *upto = now;
    if (!apart) return code(h, layer, side, 0, was, now, h->cells, e);
    int rc = code(h, layer, side, 0, was, now < branch ? now : branch, h->cells, e);
    return rc ? rc : code(h, layer, side, branch, was > branch ? was : branch, now, h->cells, e);
}

// A layer of a policy that revises: all is stored as each row was decided first, then lowered as
// often as it was lowered.
static int code_aged(struct kv_held *h, uint32_t layer, enum kv_side side, struct kv_error *e) {
    const struct kv_ages *ages = h->layered.ages;
    uint32_t to = (uint32_t)kv_coded_upto(h->spec->format, side, 0, h->n - 1, h->self_exact);
    int rc = code(h, layer, side, 0, 0, to, h->layered.first, e);
    for (size_t i = 0; i < ages->n && rc == 0; i++)
        rc = kv_age_code(h->spec->format, layer, side, &ages->at[i], 0, h->rows, h->code_scratch,
                         NULL, e);
    if (rc == 0 && ages->n) put(h, layer, side, 0, to, h->rows);
    return rc;
}

static int decide_layer(struct kv_held *h, uint32_t layer, struct kv_error *e) {
    size_t at = (size_t)layer * h->room;
    struct kv_layer_pass p = {.layer = layer,
                              .q = h->q + at * h->n_q,
                              .input = h->input + at * h->m->shape.hidden,
                              .k = h->k + at * h->width,
                              .v = h->v + at * h->width};
    return kv_layered_layer(&h->layered, &p, h->cells, e);
}

static void mark_evicted(struct kv_held *h, uint32_t layer) {
    size_t per_layer = h->n_cells / h->m->shape.n_layers;
    for (size_t head = 0; head < h->m->shape.n_kv_heads; head++)
        for (size_t row = 0; row < h->n; row++)
            h->evicted[head * h->ld + row] =
                h->cells[row * h->n_cells + layer * per_layer + 2 * head] == KV_EVICT;
}

// Appends the row at hand to what is kept as computed.
static void keep(struct kv_held *h, uint32_t layer, const struct kv_step_kv *kv) {
    size_t row = (size_t)layer * h->room + h->n - 1, bytes = h->width * sizeof(float),
           hidden = h->m->shape.hidden;
    memcpy(h->k + row * h->width, kv->k, bytes);
    memcpy(h->v + row * h->width, kv->v, bytes);
    if (h->k_raw) memcpy(h->k_raw + row * h->width, kv->k_raw, bytes);
    if (!h->q) return;
    memcpy(h->input + row * hidden, kv->input, hidden * sizeof(float));
    memcpy(h->q + row * h->n_q, kv->q, h->n_q * sizeof(float));
}

int kv_held_store(void *self, uint32_t layer, const struct kv_step_kv *kv,
                  struct kv_step_view *view, struct kv_error *e) {
    struct kv_held *h = self;
    uint32_t last = h->n - 1;
    int rc = 0;
    if (h->codes) keep(h, layer, kv);
    for (int side = 0; side < 2; side++) {
        put_exact(h, layer, (enum kv_side)side, last, 1, side == KV_KEY ? kv->k : kv->v);
        enum kv_feature range = side == KV_KEY ? KV_KEY_RANGE : KV_VALUE_RANGE;
        if (h->late && h->spec->needs & KV_NEED(range))
            kv_add_ranges(&h->m->shape, h->rows, 0, 1, range, h->tokens[last].feature);
    }
    if (h->codes && kv_by_layers(h->spec)) rc = decide_layer(h, layer, e);
    for (int side = 0; side < 2 && h->codes && rc == 0; side++)
        rc = h->layered.ages ? code_aged(h, layer, (enum kv_side)side, e)
                             : code_due(h, layer, (enum kv_side)side, e);
    if (rc) return rc;
    if (h->evicts) mark_evicted(h, layer);
    *view = (struct kv_step_view){.k_t = h->read_k + (size_t)layer * h->width * h->ld,
                                  .ld = h->ld,
                                  .v = h->read_v + (size_t)layer * h->room * h->width,
                                  .evicted = h->evicts ? h->evicted : NULL};
    return 0;
}
