// SPDX-License-Identifier: Apache-2.0
// The steps of a tokenizer.json, as https://github.com/huggingface/tokenizers computes them.
#include "sim/model/huggingface_pipeline.h"

#include "sim/base/memory.h"

#define SPACE_SIGN "\u2581"

// One tokenizer.json being read.
struct reader {
    const json_t *root;
    const char *path;
    struct kv_tokenizer_parts *parts;
    struct kv_model *m;
    size_t n_steps; // of parts->steps
    bool spaces_replaced, byte_level;
};

static const char *type_of(const json_t *step) {
    const char *type = json_string_value(json_object_get(step, "type"));
    return type ? type : "not stated";
}

static bool is_text(const json_t *object, const char *key, const char *text) {
    const char *s = json_string_value(json_object_get(object, key));
    return s && strcmp(s, text) == 0;
}

// ---- a list of steps ------------------------------------------------------------------

// What is done with one step; `last` tells whether another follows.
typedef int step_reader(struct reader *r, const json_t *step, bool last, struct kv_error *e);

// A step stands alone or in the list of a Sequence. Null is none.
static int each_step(struct reader *r, const char *key, const char *list_key, step_reader *read,
                     struct kv_error *e) {
    const json_t *top = json_object_get(r->root, key), *steps = top;
    if (!kv_json_is_set(r->root, key)) return KV_OK;
    bool sequence = strcmp(type_of(top), "Sequence") == 0;
    if (sequence) steps = json_object_get(top, list_key);
    size_t n = sequence ? json_array_size(steps) : 1;
    int rc = KV_OK;
    for (size_t i = 0; i < n && !rc; i++)
        rc = read(r, sequence ? json_array_get(steps, i) : top, i + 1 == n, e);
    return rc;
}

// ---- normalizer -----------------------------------------------------------------------

static int read_normalizer(struct reader *r, const json_t *step, bool last, struct kv_error *e) {
    (void)last;
    const char *type = type_of(step);
    bool characters = r->parts->characters, fine = false;
    if (strcmp(type, "NFC") == 0)
        fine = r->parts->nfc = !characters;
    else if (strcmp(type, "Prepend") == 0 && is_text(step, "prepend", SPACE_SIGN))
        fine = characters && (r->parts->space_prefix = KV_PREFIX_EACH);
    else if (strcmp(type, "Replace") == 0 && is_text(step, "content", SPACE_SIGN) &&
             is_text(json_object_get(step, "pattern"), "String", " "))
        fine = r->spaces_replaced = characters;
    return fine ? KV_OK
                : kv_fail(e, KV_EFAIL, r->path,
                          "the normalizer %.60s is not computed as it stands here; supported: NFC "
                          "before byte-level BPE, Prepend and Replace of spaces by " SPACE_SIGN
                          " with model.byte_fallback",
                          type);
}

// ---- pre_tokenizer --------------------------------------------------------------------

static int add_step(struct reader *r, const char *step, struct kv_error *e) {
    if (r->n_steps == KV_MAX_STEPS)
        return kv_fail(e, KV_EFAIL, r->path, "the pre_tokenizer has more than %d patterns",
                       KV_MAX_STEPS);
    r->parts->steps[r->n_steps++] = step;
    return KV_OK;
}

static int read_split(struct reader *r, const json_t *step, struct kv_error *e) {
    const json_t *pattern = json_object_get(step, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *known = regex ? kv_step_known(regex) : NULL;
    if (!known)
        return kv_fail(e, KV_EFAIL, r->path,
                       "the pre_tokenizer splits by \"%.160s\", a pattern that is not known",
                       regex ? regex : "no regular expression");
    if (!is_text(step, "behavior", "Isolated") || json_is_true(json_object_get(step, "invert")))
        return kv_fail(e, KV_EFAIL, r->path,
                       "the pre_tokenizer's Split does not isolate its matches, or is inverted");
    return add_step(r, known, e);
}

static int read_byte_level(struct reader *r, const json_t *step, struct kv_error *e) {
    r->byte_level = true;
    return json_is_false(json_object_get(step, "use_regex")) ? KV_OK : add_step(r, kv_step_gpt2, e);
}

static int read_pre_step(struct reader *r, const json_t *step, bool last, struct kv_error *e) {
    const char *type = type_of(step);
    if (!r->byte_level && strcmp(type, "Digits") == 0)
        return add_step(r,
                        json_is_true(json_object_get(step, "individual_digits")) ? kv_step_digit
                                                                                 : kv_step_digits,
                        e);
    if (strcmp(type, "Split") == 0) return read_split(r, step, e);
    if (strcmp(type, "ByteLevel") == 0 && last &&
        !json_is_true(json_object_get(step, "add_prefix_space")))
        return read_byte_level(r, step, e);
    return kv_fail(e, KV_EFAIL, r->path,
                   "the pre_tokenizer's step %.60s is not computed as it stands here; supported: "
                   "Split by a known pattern, Digits, and last ByteLevel without an added space",
                   type);
}

// Replaces spaces, and puts one in front. Cutting at spaces besides is not computed.
static bool read_metaspace(struct reader *r, const json_t *step) {
    static const struct {
        const char *name;
        enum kv_space_prefix prefix;
    } schemes[] = {{"always", KV_PREFIX_EACH_BARE},
                   {"first", KV_PREFIX_FIRST_BARE},
                   {"never", KV_PREFIX_NONE}};
    bool fine = strcmp(type_of(step), "Metaspace") == 0 && !r->spaces_replaced &&
                is_text(step, "replacement", SPACE_SIGN) &&
                json_is_false(json_object_get(step, "split"));
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes && fine; i++)
        if (is_text(step, "prepend_scheme", schemes[i].name)) {
            r->parts->space_prefix = schemes[i].prefix;
            return r->spaces_replaced = true;
        }
    return false;
}

// Behind a normalizer that leaves no space, a split at spaces does nothing (Gemma's file has one).
static int read_pre_of_characters(struct reader *r, const json_t *step, bool last,
                                  struct kv_error *e) {
    (void)last;
    bool idle = strcmp(type_of(step), "Split") == 0 && r->spaces_replaced &&
                is_text(json_object_get(step, "pattern"), "String", " ");
    return idle || read_metaspace(r, step)
               ? KV_OK
               : kv_fail(e, KV_EFAIL, r->path,
                         "the pre_tokenizer's step %.60s is not computed as it stands here with "
                         "model.byte_fallback; supported: Metaspace without split",
                         type_of(step));
}

// ---- post_processor -------------------------------------------------------------------

// The one token that may stand before the text: BOS.
static int read_template(struct reader *r, const json_t *step, struct kv_error *e) {
    const json_t *single = json_object_get(step, "single");
    size_t n = json_array_size(single), n_text = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(single, i);
        const json_t *special = json_object_get(one, "SpecialToken");
        const char *name = json_string_value(json_object_get(special, "id"));
        n_text += json_object_get(one, "Sequence") != NULL;
        if (!special) continue;
        const json_t *known = json_object_get(json_object_get(step, "special_tokens"), name);
        const json_t *ids = json_object_get(known, "ids");
        json_int_t id = json_integer_value(json_array_get(ids, 0));
        if (n_text || r->m->add_bos || json_array_size(ids) != 1)
            return kv_fail(
                e, KV_EFAIL, r->path,
                "the post_processor adds %.60s; only one token before a text is computed",
                name ? name : "a token without a name");
        if (id < 0 || id >= (json_int_t)r->parts->n_pieces)
            return kv_fail(e, KV_EFAIL, r->path,
                           "the post_processor's %.60s has no id below the model's %zu", name,
                           r->parts->n_pieces);
        r->m->add_bos = true;
        r->m->bos = (uint32_t)id;
    }
    return n_text == 1
               ? KV_OK
               : kv_fail(e, KV_EFAIL, r->path,
                         "the post_processor's template has the text %zu times, not once", n_text);
}

static int read_post_step(struct reader *r, const json_t *step, bool last, struct kv_error *e) {
    (void)last;
    if (strcmp(type_of(step), "TemplateProcessing") == 0) return read_template(r, step, e);
    return strcmp(type_of(step), "ByteLevel") == 0 // trims offsets, and adds nothing
               ? KV_OK
               : kv_fail(e, KV_EFAIL, r->path, "the post_processor %.60s is not computed",
                         type_of(step));
}

// ---- all of it ------------------------------------------------------------------------

static int check_model(struct reader *r, struct kv_error *e) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *model = json_object_get(r->root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE") != 0)
        return kv_fail(e, KV_EFAIL, r->path, "the tokenizer's model is %.60s; only BPE is read",
                       type);
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++)
        if (kv_json_is_set(model, affixes[i]) && !is_text(model, affixes[i], ""))
            return kv_fail(e, KV_EFAIL, r->path, "model.%s is set, which is not computed",
                           affixes[i]);
    r->parts->characters = kv_json_is_set(model, "byte_fallback");
    r->parts->ignore_merges = kv_json_is_set(model, "ignore_merges");
    return KV_OK;
}

int kv_huggingface_pipeline(const json_t *root, const char *path, struct kv_tokenizer_parts *parts,
                            struct kv_model *m, struct kv_error *e) {
    struct reader r = {.root = root, .path = path, .parts = parts, .m = m};
    m->add_bos = false;
    m->bos = 0;
    int rc = check_model(&r, e);
    if (!rc) rc = each_step(&r, "normalizer", "normalizers", read_normalizer, e);
    if (!rc)
        rc = each_step(&r, "pre_tokenizer", "pretokenizers",
                       parts->characters ? read_pre_of_characters : read_pre_step, e);
    if (!rc && parts->characters && !r.spaces_replaced)
        rc = kv_fail(e, KV_EFAIL, path,
                     "model.byte_fallback is set, but nothing replaces spaces by " SPACE_SIGN);
    if (!rc && !parts->characters && !r.byte_level)
        rc = kv_fail(e, KV_EFAIL, path, "the pre_tokenizer lacks its ByteLevel step");
    return rc ? rc : each_step(&r, "post_processor", "processors", read_post_step, e);
}
