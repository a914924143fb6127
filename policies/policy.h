// SPDX-License-Identifier: Apache-2.0
// The policy interface: what a KV-cache precision policy is told, what it answers, and nothing
// else.
//
// A policy decides, for every cell (token, layer, KV head, K or V), at which width the cache stores
// it. It never sees weights, files or other tokens' future unless it declares so in `needs`. To
// write one, copy policies/template.c, rename it, add one line to policies/policies.def:
//
//     const struct kv_policy kv_policy_mine = {
//         .abi = KV_POLICY_ABI, .struct_bytes = sizeof(struct kv_policy),
//         .name = "mine", .summary = "...", .tag = "exact", .params = params,
//         .varies = KV_VARIES_TOKEN, .needs = KV_NEED(KV_ENTROPY_NATS),
//         .open = mine_open, .decide = mine_decide, .close = mine_close};
//
// This header depends on the C library alone, so that a policy can be built outside the repository.
#ifndef KV_POLICIES_POLICY_H
#define KV_POLICIES_POLICY_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(__GNUC__)
#define KV_PRINTF(a, b) __attribute__((format(printf, a, b)))
#define KV_MUST_CHECK __attribute__((warn_unused_result))
#else
#define KV_PRINTF(a, b)
#define KV_MUST_CHECK
#endif

#ifdef __cplusplus // what is declared between these has C's names
#define KV_BEGIN_DECLS extern "C" {
#define KV_END_DECLS }
#else
#define KV_BEGIN_DECLS
#define KV_END_DECLS
#endif

KV_BEGIN_DECLS

// ---- errors ---------------------------------------------------------------------------

// Return codes of every fallible call. Wrong usage ends the program with exit code 2, others
// with 1.
enum kv_code {
    KV_OK = 0,
    KV_EFAIL = -1,  // could not: a bad file, a full disk, an impossible request
    KV_EUSAGE = -2, // wrong usage: an unknown name, key or value
    KV_ENOMEM = -3,
    KV_EINTR = -4,       // interrupted by the user; what was finished is stored
    KV_ENOTOFFERED = -5, // wrong usage: a width that the format does not offer (expansions skip it)
};

// One sentence for the user and the place it speaks of ("file.gguf: byte 24", "spec
// 'static:bit=4'").
struct kv_error {
    int code;
    char where[192];
    char msg[448];
};

// Fills *e (which may be NULL) and returns code, so that failing reads `return kv_fail(e, ...)`.
KV_PRINTF(4, 5)
static inline int kv_fail(struct kv_error *e, int code, const char *where, const char *format,
                          ...) {
    if (e) {
        va_list ap;
        e->code = code;
        snprintf(e->where, sizeof e->where, "%s", where ? where : "");
        va_start(ap, format);
        vsnprintf(e->msg, sizeof e->msg, format, ap);
        va_end(ap);
    }
    return code;
}

// ---- parameters -----------------------------------------------------------------------

enum kv_type { KV_INT, KV_FLOAT, KV_CHOICE, KV_LIST, KV_TEXT };

// A row of a parameter table; a table ends with {0}. Help, checks and the canonical form come from
// it.
struct kv_param {
    const char *name;
    enum kv_type type;
    const char *fallback; // default, spelled as the user would; NULL = must be given; "" = not set
    double min, max;      // for KV_INT, KV_FLOAT and the elements of a KV_LIST
    const char *choices;  // for KV_CHOICE: "full/max3"
    const char *unit;     // "bits", "tokens", ... or NULL
    const char *help;
};

struct kv_value {
    const char *text; // as written or the default; "" = not set
    double number; // KV_INT, KV_FLOAT: the value; KV_CHOICE: index of the choice; else the list's
                   // length
    const double *list;
    size_t n_list;
    bool given; // the user wrote it
};

// Values in the order of `params`. Borrowed for the call unless said otherwise.
struct kv_args {
    size_t struct_bytes;
    const struct kv_param *params;
    const struct kv_value *values;
    size_t n;
    const char *inner; // of a wrapper "name(inner):...": the text inside the brackets, else NULL
};

// The value of a key that the parameter table holds.
static inline const struct kv_value *kv_arg(const struct kv_args *args, const char *name) {
    for (size_t i = 0; i < args->n; i++)
        if (strcmp(args->params[i].name, name) == 0) return &args->values[i];
    return NULL;
}
static inline double kv_number(const struct kv_args *args, const char *name) {
    return kv_arg(args, name)->number;
}

// ---- what a policy is told ------------------------------------------------------------

enum kv_side { KV_KEY = 0, KV_VALUE = 1 };

struct kv_shape {
    uint32_t n_layers, n_heads, n_kv_heads, head_dim;
    uint32_t hidden, ffn, vocab, max_tokens;
};

#define KV_MAX_WIDTHS 12
#define KV_FLOAT32 0xFEu // decision: kept in float32, not even rounded to fp16
#define KV_EVICT 0xFFu   // decision: dropped; K and V of a (token, layer, head) go together

// Features of a token, as recorded (design: section 4). A feature not declared in `needs` reads
// NAN.
enum kv_feature {
    KV_ENTROPY_NATS, // of the distribution predicted at the token
    KV_CONFIDENCE,   // largest probability of that distribution
    KV_RARITY_NATS,  // -log((c + 1) / (N + V + 1)), counts over the benchmark's contexts, V the
                     // distinct tokens seen so far
    KV_ATTN_VAR,     // variance of the token's own attention row, last layer, mean over heads
    KV_KEY_RANGE,    // max - min of the key vector, mean over layers and heads
    KV_VALUE_RANGE,  // max - min of the value vector, mean over layers and heads
    KV_ATTN_SO_FAR,  // context: attention received from the context; choice: from itself.
                     // Mean over layers and heads. Known at the branch point, not earlier.
    KV_ATTN_FUTURE,  // attention received from all later tokens, choices averaged; a choice's token
                     // from its own choice. Oracles only.
    KV_N_FEATURES
};
#define KV_NEED(feature) (1u << (feature))
#define KV_NEED_CLASS (1u << 16)  // kv_token.kind
#define KV_NEED_DAMAGE (1u << 17) // kv_item.damage: expected KL of storing a cell at a width
#define KV_NEED_ERROR (1u << 18)  // kv_item.error: squared coding error of each cell at each width
#define KV_NEED_QUANTILES (1u << 19) // kv_item.quantiles: how features spread over the recording
#define KV_NEED_KV (1u << 20)        // kv_item.k, .v
#define KV_NEED_Q (1u << 21)         // kv_item.q
#define KV_NEED_HIDDEN (1u << 22)    // kv_item.hidden
#define KV_NEED_NORMS (1u << 23)     // kv_item.norms
#define KV_NEED_SURPRISAL (1u << 24) // kv_item.surprisal_nats
#define KV_NEEDS_FUTURE (KV_NEED(KV_ATTN_FUTURE) | KV_NEED_DAMAGE)

enum kv_token_kind {
    KV_WORD_START,
    KV_WORD_REST,
    KV_DIGIT,
    KV_PUNCTUATION,
    KV_SPACE,
    KV_FIRST,
    KV_N_KINDS
};

// What the attention of one layer and KV head tells of a token when its cell is coded: from the
// token's own query, key and value and the keys of earlier tokens. Weights are means over the query
// heads that share the KV head.
enum kv_cell_feature {
    KV_CELL_SELF,         // log of the token's attention weight on itself, at least e^-12
    KV_CELL_FIRST,        // log of its weight on position 0 (the oldest in a window), at least 1e-6
    KV_CELL_LARGEST,      // log of its largest weight, at least 1e-6
    KV_CELL_ENTROPY_NATS, // of its attention row
    KV_CELL_KEY_NORM,     // log |k|, at least 1e-6
    KV_CELL_VALUE_NORM,   // log |v|, at least 1e-6
    KV_N_CELL_FEATURES
};

struct kv_token {
    uint32_t pos; // position in its sequence, from 0
    uint32_t id;
    uint32_t segment; // 0 = context, 1.. = choice
    uint32_t kind;    // enum kv_token_kind
    float feature[KV_N_FEATURES];
};

struct kv_run;

// How each feature spreads over all tokens of the recording: quantile[f][i] is the value below
// which a share i / (KV_N_QUANTILES - 1) of them lies. The last row is the mean of entropy,
// confidence, rarity and attention variance, each normalised to 0..1 between its own least and
// largest value: kv_mean_of_four.
#define KV_N_QUANTILES 257
#define KV_MEAN_OF_FOUR KV_N_FEATURES
struct kv_quantiles {
    size_t struct_bytes;
    float quantile[KV_N_FEATURES + 1][KV_N_QUANTILES];
};

// One item of the recording as a policy may see it.
struct kv_item {
    size_t struct_bytes;
    const struct kv_run *run;
    uint64_t key; // identifies the item whatever the subset: seed random draws with it
    uint32_t n_tokens, n_context, n_choices;
    const struct kv_token *tokens; // [n_tokens], context first, then choice after choice
    // For those that declare KV_NEED_DAMAGE or KV_NEED_ERROR, else NULL; nats, summed over the
    // item's scored positions, and |e|^2. Entry of a token, width and cell: [(token * n_widths +
    // width) * cells + cell].
    const float *damage, *error;
    const struct kv_quantiles *quantiles; // NULL unless declared
    // Recorded vectors as fp16 bits (kv_half_to_float), NULL unless declared; keys and queries
    // after RoPE. k, v: [n_tokens][n_layers][n_kv_heads][head_dim]; q:
    // [n_tokens][n_layers][n_heads] [head_dim], query head h reads KV head h / (n_heads /
    // n_kv_heads); hidden: what enters each layer, [n_tokens][n_layers][hidden].
    const uint16_t *k, *v, *q, *hidden;
    const float *norms; // Frobenius norms of W_K and W_V, [n_layers][2]; NULL unless declared
    const float *surprisal_nats; // [n_tokens] -log p(token) where it was fed, 0 for the first; NULL
                                 // unless declared
    // Answers of a policy that decides by layers, where the host has run it: kv_ask hands them on.
    const uint8_t *decided;
};

struct kv_policy;

// The policy inside a wrapper "name(inner)", opened by the host before the wrapper. Ask it with
// kv_ask(inner->policy, inner->self, item, cells, e).
struct kv_inner {
    const struct kv_policy *policy;
    void *self;
    uint32_t varies, options, needs;
};

struct kv_shipped {
    const char *path;
    const unsigned char *data;
    size_t n;
};

// What stays the same for a whole run.
struct kv_run {
    size_t struct_bytes;
    struct kv_shape shape;
    size_t n_widths; // the format's width table, ascending
    uint8_t width_bits[KV_MAX_WIDTHS];
    float cell_bits[2][KV_MAX_WIDTHS]; // allocated bits per value of a cell, K and V apart
    const char *format;                // its name, for messages
    uint64_t seed;
    const struct kv_inner *inner; // of a wrapper, else NULL; lives as long as the wrapper
    // Files that travel with the host: the i-th whose path begins with `folder`, or false.
    bool (*shipped)(const char *folder, size_t i, struct kv_shipped *file);
    const char *format_text; // the format's canonical text
    double sequence_bits;    // allocated bits that a sequence holds besides its tokens' cells
};

// Cells of a token, in the order of decisions: [n_layers][n_kv_heads][2].
static inline size_t kv_cells(const struct kv_shape *s) {
    return (size_t)s->n_layers * s->n_kv_heads * 2;
}

// What a policy may be fitted to before it decides: the recording's first items, as the host
// measures them. An item judged later should not be among them.
struct kv_fitting {
    size_t struct_bytes;
    const struct kv_run *run;
    size_t n_items; // there are; a call about more takes these
    // Attention-output error of each layer, mean over the first n items, their rows and heads of
    // |o' - o|^2 / |o|^2, when all keys are held at width pair[i][0] (an index) and all values at
    // pair[i][1]: error[n_pairs][n_layers].
    int (*output_error)(const struct kv_fitting *f, size_t n, size_t n_pairs,
                        const uint8_t (*pair)[2], double *error, struct kv_error *e);
    // Expected divergence in nats a scored token of those items from each layer's keys and values
    // at each width: damage[n_layers][2][n_widths].
    int (*damage)(const struct kv_fitting *f, size_t n, double *damage, struct kv_error *e);
    const char *model_name, *model_digest; // of the model that was recorded
    // The recording by the XXH64 of its manifest, and by the one that stands in the manifest
    // (manifest_xxh64; "" in older recordings).
    const char *trace_digest, *trace_seal;
};

// ---- deciding by layers ---------------------------------------------------------------

// Rows of one layer at the moment when it codes their keys and values: what a device has in its
// hands there. The host asks row after row, since the attention of a token reads the keys of
// earlier ones as they were stored.
struct kv_layer_rows {
    size_t struct_bytes;
    const struct kv_item *item; // with what the policy declared; tokens beyond these rows are not
                                // known yet
    uint32_t layer;
    size_t first, n;       // rows [first, first + n) of the item, one segment
    const float *features; // [n][n_kv_heads][KV_N_CELL_FEATURES] of their own attention
    const float *input;    // [n][hidden] what the layer's projections read: its normalised input
    const float *k, *v;    // [n][n_kv_heads][head_dim] as computed, keys after RoPE
    // Coding error of each cell at each width, sum over channels of m_i e_i^2 with the policy's
    // error_weights m (1 where it has none): [n][n_kv_heads][2][n_widths]. NULL where the policy
    // asks for none.
    const float *error;
    // Positions that a query of this layer sees, its own included; 0: all. Behind it the feature of
    // position 0 is that of the oldest position seen.
    uint32_t window;
};

// The cells of one layer when a context (or a window of text) has grown to n tokens, a multiple of
// KV_REVISE_TOKENS: a page's worth. Rows [0, n) are stored; the query at position n has not
// attended yet. At the end of the context that is before the choices; where nothing follows that
// could read what is stored, nothing is revised. A choice's own rows never are.
#define KV_REVISE_TOKENS 64
struct kv_layer_ages {
    size_t struct_bytes;
    const struct kv_item *item; // with what the policy declared; tokens from n on are not known yet
    uint32_t layer;
    size_t n;
};

// ---- the policy -----------------------------------------------------------------------

struct kv_plain_cells;

#define KV_POLICY_ABI 1u // bumped on any change that is not an append

// delay_tokens of a policy that decides when the whole prompt is read: about context tokens at the
// branch point, about a choice's tokens when they are appended. Attention received so far is known
// no earlier.
#define KV_DELAY_PROMPT 0xFFFFFFFFu

// In which read mode (kvsim replay --mode) a rule was published: where a query of the prompt and
// the first new token read what is stored. Others can be asked for; such rows are marked.
enum kv_published_mode {
    KV_PUBLISHED_ANY,      // its source leaves it open, or several are usual
    KV_PUBLISHED_INLINE,   // every query reads stored values, also inside the prompt
    KV_PUBLISHED_PREFILL,  // the prompt attends exactly and is stored coded
    KV_PUBLISHED_PREFILL1, // so does its last token, which scores the first new one
    KV_PUBLISHED_REQUANT   // as prefill; the cache is coded again whenever its window is full
};

// Along which axes decisions differ: sets how many width tags a token must carry in the cache. An
// answer that differs along another is refused. Position: tokens differ by their position and the
// sequence's length alone, which whoever reads the cache knows without tags.
enum kv_varies {
    KV_VARIES_TOKEN = 1,
    KV_VARIES_LAYER = 2,
    KV_VARIES_HEAD = 4,
    KV_VARIES_KV = 8,
    KV_VARIES_POSITION = 16
};

struct kv_policy {
    uint32_t abi;
    size_t struct_bytes;
    const char *name, *summary, *citation;
    const char *tag;               // exact | faithful | approximate | not published | baseline
    const struct kv_param *params; // ends with {0}; NULL = none
    uint32_t varies;               // KV_VARIES_*; tokens carry tags only if KV_VARIES_TOKEN is set
    uint32_t needs;                // KV_NEED_*; the host hides everything else
    uint32_t
        delay_tokens; // decides about token t only when token t + delay is known; or the prompt

    // Checks the arguments and makes the policy's state. *self may stay NULL.
    int (*open)(void **self, const struct kv_run *run, const struct kv_args *args,
                struct kv_error *e);
    // Decides a whole item at once (static plans, oracles).
    // Fills cells[item->n_tokens][n_layers][n_kv_heads][2] with indices into run->width_bits.
    int (*plan)(void *self, const struct kv_item *item, uint8_t *cells, struct kv_error *e);
    // Or: decides tokens [first, first + n) of one segment causally; `cells` points at token
    // `first`. After open, *self is read-only: workers call plan and decide at once, in any order.
    // What a decision needs of earlier tokens it reads from item->tokens.
    int (*decide)(void *self, const struct kv_item *item, size_t first, size_t n, uint8_t *cells,
                  struct kv_error *e);
    // Optional: the policy's canonical text where parameters overlap (else: all keys, sorted).
    void (*canonical)(void *self, const struct kv_run *run, char *text, size_t room);
    // Optional: `varies` once the arguments are known (else: the field above).
    uint32_t (*varies_as_opened)(void *self);
    // Optional: how many different answers a cell may get (else: all widths); sizes the tags.
    uint32_t (*options_as_opened)(void *self);
    void (*close)(void *self); // frees what open made, also after open failed; NULL is fine
    bool wraps;                // a spec names another policy in brackets: run->inner
    // Optional: `needs` once the arguments are known, a part of the field above.
    uint32_t (*needs_as_opened)(void *self);
    // Optional: one line on the answers given so far ("" = nothing to say); printed after a run.
    // Must not depend on the order of the items.
    void (*remark)(void *self, char *text, size_t room);
    // Optional: how often the prompt is coded, each time from what was read (a cache handed on).
    // Once where it is missing.
    uint32_t (*hops_as_opened)(void *self);
    // Optional: called before a replay's first question and again before the next one's; one that
    // is fitted returns at once.
    int (*fit)(void *self, const struct kv_fitting *f, struct kv_error *e);
    // Optional, for those that declare KV_NEED_DAMAGE: in how many rounds it decides. After each
    // but the last the host measures the damage again where the answer has taken the cache, and
    // asks with what it then knows; only the last answer stands. Once where it is missing.
    uint32_t (*rounds_as_opened)(void *self);
    uint32_t published_mode; // enum kv_published_mode
    // Or, instead of plan and decide: decides inside the running pass, layer by layer. Fills
    // cells[rows->n][n_kv_heads][2]. state: what the policy remembers of this layer along a
    // sequence, layer_state_bytes of it, zero at the sequence's start; a choice goes on from a copy
    // of the context's. An answer may depend on rows, state and *self alone.
    int (*decide_layer)(void *self, const struct kv_layer_rows *rows, void *state, uint8_t *cells,
                        struct kv_error *e);
    // Optional, with decide_layer: bytes of state a layer needs (else: none).
    size_t (*layer_state_bytes)(void *self);
    // Optional, with decide_layer: m of the errors, [n_layers][n_kv_heads][2][head_dim] >= 0, and
    // at which widths they are wanted (a bit a width; else: all).
    const float *(*error_weights)(void *self);
    uint32_t (*error_widths)(void *self);
    // Optional, with decide_layer: whether attention features read earlier keys as they were before
    // coding (else: as stored).
    bool (*reads_exact_keys)(void *self);
    // Optional: for widths that must meet a budget over a whole set of items. Told the set's
    // mean allocated bits a value under the present setting (NAN: nothing was run yet), it changes
    // the setting and returns 1 to be run (again), 0 when it has settled; the host then asks for
    // the canonical text anew.
    int (*settle)(void *self, double allocated_bits);
    // Optional, with decide_layer: lowers widths as tokens age. cells[ages->n][n_kv_heads][2] holds
    // the widths that the layer's rows are stored at and takes what they shall be stored at from
    // now on: the same or narrower (an answer that is wider, evicts or asks for float32 is
    // refused). The host codes what has changed again, from the decoded values that were stored;
    // every later query and every choice reads the new values, earlier ones have read the old. The
    // ledger counts the widths of the end; its entropy counts both codings. Where the prompt
    // attends exactly (modes prefill, prefill1) it is stored as decided and then revised in the
    // same steps before anything reads it; without a model (recorded features), and of a policy
    // inside a wrapper, the last widths are stored from the start. state: as of decide_layer, the
    // context's; choices go on from a copy of what this leaves.
    int (*revise)(void *self, const struct kv_layer_ages *ages, void *state, uint8_t *cells,
                  struct kv_error *e);
    // Optional, with decide_layer: policy cells' numbers, by which a GPU decides as it does
    // (policies/cells_plain.h); arrays live as long as *self. And what token `row` brings of its
    // own: x[n_token].
    int (*plain_cells)(void *self, struct kv_plain_cells *to, struct kv_error *e);
    void (*plain_token)(void *self, const struct kv_item *item, size_t row, float *x);
};

// A shared object exports this; the host hands its ABI number and gets NULL for one it cannot
// serve.
const struct kv_policy *kv_policy_entry(uint32_t host_abi);

// ---- helpers for policies -------------------------------------------------------------

// Index of a width in the run's table, or -1 when the format does not offer it.
static inline int kv_width_index(const struct kv_run *run, double bits) {
    for (size_t i = 0; i < run->n_widths; i++)
        if ((double)run->width_bits[i] == bits) return (int)i;
    return -1;
}

// Index of the narrowest width of at least `bits`, or of the widest where none is.
static inline uint8_t kv_width_at_least(const struct kv_run *run, double bits) {
    size_t i = 0;
    while (i + 1 < run->n_widths && (double)run->width_bits[i] < bits) i++;
    return (uint8_t)i;
}

// The usual refusal of a width, naming those offered.
static inline int kv_width_refused(const struct kv_run *run, double bits, struct kv_error *e) {
    char offered[64] = "";
    for (size_t i = 0, n = 0; i < run->n_widths && n < sizeof offered - 4; i++)
        n += (size_t)snprintf(offered + n, sizeof offered - n, "%s%u", i ? "/" : "",
                              run->width_bits[i]);
    return kv_fail(e, KV_ENOTOFFERED, "spec", "format %s does not offer %g bits; it offers %s",
                   run->format, bits, offered);
}

// The value below which a share p of the recording's tokens has feature f (KV_MEAN_OF_FOUR too).
static inline float kv_quantile_of(const struct kv_quantiles *q, size_t f, double p) {
    double at = p * (KV_N_QUANTILES - 1);
    size_t i = at <= 0 ? 0 : at >= KV_N_QUANTILES - 1 ? KV_N_QUANTILES - 2 : (size_t)at;
    const float *x = q->quantile[f] + i;
    return x[0] + (x[1] - x[0]) * (float)(at - (double)i);
}

// Mean of entropy, confidence, rarity and attention variance, each between the recording's
// extremes.
static inline float kv_mean_of_four(const struct kv_quantiles *q, const struct kv_token *t) {
    float sum = 0;
    for (size_t f = KV_ENTROPY_NATS; f <= KV_ATTN_VAR; f++) {
        float low = q->quantile[f][0], high = q->quantile[f][KV_N_QUANTILES - 1];
        sum += high > low ? (t->feature[f] - low) / (high - low) : 0;
    }
    return sum / 4;
}

// IEEE binary16 to float.
static inline float kv_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7FFFu, bits;
    float x;
    if (rest < 0x0400u) { // zero or subnormal: a multiple of 2^-24
        x = (float)rest * 0x1p-24f;
        return sign ? -x : x;
    }
    bits = sign | (rest < 0x7C00u ? (rest << 13) + 0x38000000u : (rest << 13) | 0x7F800000u);
    memcpy(&x, &bits, sizeof x);
    return x;
}

// One row past the last token of the segment that token `row` belongs to.
static inline size_t kv_segment_end(const struct kv_item *item, size_t row) {
    size_t end = row + 1;
    while (end < item->n_tokens && item->tokens[end].segment == item->tokens[row].segment) end++;
    return end;
}

// Asks a policy about a whole item: by plan, or segment by segment by decide.
static inline int kv_ask(const struct kv_policy *p, void *self, const struct kv_item *item,
                         uint8_t *cells, struct kv_error *e) {
    if (p->plan) return p->plan(self, item, cells, e);
    if (p->decide_layer) {
        if (!item->decided)
            return kv_fail(e, KV_EFAIL, p->name, "decides inside a running pass, and none was run");
        memcpy(cells, item->decided, item->n_tokens * kv_cells(&item->run->shape));
        return 0;
    }
    size_t n_cells = kv_cells(&item->run->shape);
    for (size_t row = 0, end; row < item->n_tokens; row = end) {
        end = kv_segment_end(item, row);
        int rc = p->decide(self, item, row, end - row, cells + row * n_cells, e);
        if (rc) return rc;
    }
    return 0;
}

// Bits of width tags that each token carries for these answers (as the ledger counts them).
static inline double kv_tag_bits(const struct kv_shape *s, uint32_t varies, uint32_t options) {
    if (!(varies & KV_VARIES_TOKEN) || options < 2) return 0;
    double answers = (varies & KV_VARIES_LAYER ? s->n_layers : 1) *
                     (varies & KV_VARIES_HEAD ? s->n_kv_heads : 1) *
                     (varies & KV_VARIES_KV ? 2 : 1);
    return answers * ceil(log2(options));
}

// A uniform draw in [0, 1) that depends on its three keys only (SplitMix64's finalizer,
// Steele, Lea and Flood 2014), so that a decision never depends on the order of work.
static inline double kv_draw(uint64_t seed, uint64_t item_key, uint64_t index) {
    uint64_t z = seed * 0x9E3779B97F4A7C15u ^ item_key;
    for (int i = 0; i < 2; i++) {
        z += 0x9E3779B97F4A7C15u * (index + 1);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1.0p-53;
}

KV_END_DECLS

#endif
