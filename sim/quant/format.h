// SPDX-License-Identifier: Apache-2.0
// Cache formats: the rule that turns a block of K or V and a width into codes and back.
//
//     struct kv_format *f;
//     if (kv_format_open(&f, "asym:group=32", &setting, &e)) return e.code;
//     kv_format_encode(f, &(struct kv_block){.side = KV_KEY, .width = 1}, x, n_units, codes);
//     kv_format_decode(f, &block, codes, n_units, y);
//     kv_format_close(f);
//
// The unit is what shares codes and metadata: one head's vector (KV_SCOPE_VECTOR), all KV heads of
// a token (KV_SCOPE_TOKEN) or a run of tokens of one head (KV_SCOPE_GROUP). Cells of one unit must
// have one width; code.h gathers units from decisions, keeps windows and branch points, and counts
// bits. A format of KV_SCOPE_TENSOR looks at all tokens that are coded at once, K or V of a layer:
// the units of one call belong together, or it codes whole tensors (struct kv_whole).
#ifndef KV_QUANT_FORMAT_H
#define KV_QUANT_FORMAT_H

#include "policies/policy.h"

KV_BEGIN_DECLS

// Order of channels inside a head: pairwise RoPE (2i, 2i+1 rotate together: GGUF) or half-split
// (i, i + d/2: Hugging Face).
enum kv_order { KV_ORDER_GGML, KV_ORDER_HF };

#define KV_MAX_UNIT 8192 // floats of one unit: kernels keep its codes on the stack

enum kv_scope { KV_SCOPE_VECTOR, KV_SCOPE_TOKEN, KV_SCOPE_GROUP, KV_SCOPE_TENSOR };

// What a format must know of the model it codes for.
struct kv_format_setting {
    struct kv_shape shape;
    enum kv_order order; // of the model file
    // Radians a position by which RoPE turns each pair of channels, [n_layers][head_dim / 2];
    // borrowed for as long as the format codes. NULL: not known, and formats that turn cannot code.
    const double *rope;
    const uint32_t
        *windows; // [n_layers] tokens that a layer's queries see, 0: all; borrowed; or NULL
};

// Vectors are coded less a mean that each sequence holds (format center; centre.h).
struct kv_centring {
    bool sides[2];    // of keys, of values
    bool before_rope; // of keys before RoPE: turned to the position of each token
    uint32_t tokens;  // the first after the sinks, which the mean is of; 0: none is taken
};

// Exact size of one encoded unit at one width.
struct kv_unit_size {
    uint32_t values;    // floats a unit holds
    uint32_t code_bits; // codes alone: nominal bits x values
    uint32_t meta_bits; // scales, minima, zero points, outliers
    uint32_t bytes;     // as laid out in memory, padding included; 8 * bytes >= code + meta
};

struct kv_block {
    uint32_t layer;
    enum kv_side side;
    uint32_t width; // index into kv_format.width_bits
};

// What is coded at once under KV_SCOPE_TENSOR: tokens of one layer's K or V, each cell with a width
// of its own. Cells of equal width share what the format shares.
struct kv_whole {
    uint32_t layer;
    enum kv_side side;
    size_t n;             // tokens
    const uint8_t *width; // [n][n_kv_heads] indices; KV_EVICT: this cell is not stored here
};

struct kv_whole_size {
    uint64_t code_bits, meta_bits, bytes; // as kv_unit_size, of the whole
};

// A run of equal numbers in the bytes of a unit. Number i of `n` takes bits [at + i step,
// at + i step + bits), its lowest first; bit b is bit b mod 8 of byte b / 8. It is a number of
// `covers` values of the unit, counted as encode takes them: value + i next and every `apart`-th
// from there. covers 0: the values are told elsewhere in the unit.
struct kv_field {
    const char *what; // "scale", "minimum", "code", ...
    const char *type; // how its bits read: "fp16", "fp32", "bf16", "int16", "int8", "uint", "e4m3"
    uint32_t bits, n, at, step;
    uint32_t value, next, covers, apart;
};
typedef void kv_field_fn(void *self, const struct kv_field *field);

struct kv_format;
struct kv_plain_width;

// A row of the table of formats (formats.def): a kind of format before its parameters are known.
struct kv_format_type {
    const char *name, *summary, *citation;
    const char *tag;      // exact | faithful | approximate: how it relates to its source
    const char *layout;   // bytes of a unit, in words
    const char *formula;  // effective bits
    const char *rounding; // rounding mode of the codes
    const char *guards;   // NaN, infinity, constant groups, subnormals
    const struct kv_param *params;
    bool wraps;  // "name(inner)": opened with f->inner
    bool stable; // decoded data codes to the same bytes again, while scales are normal fp16 numbers
    // Fills f->self, widths, scope and unit from the arguments.
    int (*open)(struct kv_format *f, const struct kv_format_setting *s, const struct kv_args *args,
                struct kv_error *e);
    struct kv_unit_size (*size)(const struct kv_format *f, enum kv_side side, uint32_t width);
    // x: n_units times [unit_tokens][unit_heads][head_dim] floats, contiguous. out: n_units times
    // size().bytes. Thread-safe; may not allocate, but under KV_SCOPE_TENSOR.
    void (*encode)(const struct kv_format *f, const struct kv_block *b, const float *x,
                   size_t n_units, uint8_t *out);
    void (*decode)(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                   size_t n_units, float *y);
    // Optional: one code a value (below 256), for the entropy figure of the ledger. Not called for
    // widths whose codes are floats.
    void (*codes)(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                  size_t n_units, uint8_t *q);
    void (*close)(struct kv_format *f); // NULL when self stays NULL
    // Says where the numbers of a unit lie, at a width below 16 (or the only one). NULL under
    // whole_encode, where no unit has bytes of its own: whole_fields does.
    void (*fields)(const struct kv_format *f, enum kv_side side, uint32_t width, kv_field_fn *take,
                   void *self);
    // Or, under KV_SCOPE_TENSOR, instead of encode, decode and codes; size() then says what a unit
    // takes without its share of what the tensor's cells share. x, y, q: [n][n_kv_heads][head_dim],
    // of which cells that are not stored are neither read nor written. Thread-safe.
    struct kv_whole_size (*whole_size)(const struct kv_format *f, const struct kv_whole *t);
    void (*whole_encode)(const struct kv_format *f, const struct kv_whole *t, const float *x,
                         uint8_t *out);
    void (*whole_decode)(const struct kv_format *f, const struct kv_whole *t, const uint8_t *in,
                         float *y);
    void (*whole_codes)(const struct kv_format *f, const struct kv_whole *t, const uint8_t *in,
                        uint8_t *q);
    // As fields, of the bytes of one tensor; values are counted as x is laid out.
    void (*whole_fields)(const struct kv_format *f, const struct kv_whole *t, kv_field_fn *take,
                         void *self);
    // Optional: writes down in plain numbers how a side is coded at a width below 16 (or the only
    // one); values, sizes and bits stand there already. NULL: it cannot be (plain.h).
    void (*plain)(const struct kv_format *f, enum kv_side side, uint32_t width,
                  struct kv_plain_width *to);
    uint32_t revision; // raised when the same spec codes otherwise than before: kept tables differ
    enum kv_published_mode published_mode; // in which its source reads what it stores
};

struct kv_format {
    const struct kv_format_type *type;
    void *self;
    struct kv_format *inner; // of a wrapper, owned; else NULL
    char *canonical; // "asym:group=32,order=ggml,scale=fp16,sinks=0,window=0": all keys, sorted
    struct kv_format_setting setting;
    size_t n_widths; // ascending
    uint8_t width_bits[KV_MAX_WIDTHS];
    enum kv_scope scope;
    uint32_t unit_tokens[2]; // K, V: tokens that share a unit; 1 unless KV_SCOPE_GROUP
    uint32_t unit_heads;     // 1, or n_kv_heads for KV_SCOPE_TOKEN
    enum kv_order order;     // the order encode expects; code.c permutes when the model's differs
    bool keys_before_rope;   // keys are coded before RoPE and rotated after decoding
    struct kv_centring centre;
    // Tokens kept exact (fp16): the first `sinks`, and for K and V at least the newest `window`,
    // which leave the window `flush` at a time (a multiple of unit_tokens; KIVI's keys leave 32 at
    // once).
    uint32_t sinks, window[2], flush[2];
    // Under KV_SCOPE_TENSOR the prompt is one tensor; tokens after it make one when so many have
    // gathered, and are exact until then. 1: each is a tensor of its own.
    uint32_t gathers;
};

// ---- the table of formats (formats.c) -------------------------------------------------

// Opens a format from its spec text. Errors: KV_EUSAGE with the nearest known name or key.
KV_MUST_CHECK int kv_format_open(struct kv_format **f, const char *spec,
                                 const struct kv_format_setting *s, struct kv_error *e);
void kv_format_close(struct kv_format *f); // NULL is fine

// The table of formats, for listings. NULL past the end.
const struct kv_format_type *kv_format_type_at(size_t i);
// Keys that every format takes: order, sinks, window. Ends with {0}.
extern const struct kv_param kv_format_common_params[];

// ---- an open format (format.c) --------------------------------------------------------

struct kv_unit_size kv_format_size(const struct kv_format *f, enum kv_side side, uint32_t width);
void kv_format_encode(const struct kv_format *f, const struct kv_block *b, const float *x,
                      size_t n_units, uint8_t *out);
void kv_format_decode(const struct kv_format *f, const struct kv_block *b, const uint8_t *codes,
                      size_t n_units, float *y);
// Calls take for each run of numbers that a unit of this width is made of, metadata first: together
// they are its code and metadata bits. Returns the unit's bytes. Where the format codes whole
// tensors itself, of one of KV_NOMINAL_TOKENS tokens, all at this width. (fields.c)
enum { KV_NOMINAL_TOKENS = 128 };
uint32_t kv_format_fields(const struct kv_format *f, enum kv_side side, uint32_t width,
                          kv_field_fn *take, void *self);

// Turns a head in place by RoPE: pair i by position x angle[i], [d / 2] radians; a negative
// position turns back.
void kv_turn(float *x, size_t d, enum kv_order order, const double *angle, double position);

KV_END_DECLS

#endif
