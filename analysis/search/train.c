// SPDX-License-Identifier: Apache-2.0
// A three-layer network, and a linear softmax beside it, trained by Adam on matrix products.
#include "analysis/search/train.h"

#include <stdlib.h>

#include "sim/base/blas.h"
#include "sim/base/memory.h"
#include "sim/base/talk.h"
#include "sim/base/work.h"

enum { LAYERS = 3, PERMUTATIONS = 5 };

static const double adam_first = 0.9, adam_second = 0.999, adam_epsilon = 1e-8;

void kv_train_defaults(struct kv_train_options *o) {
    *o = (struct kv_train_options){.struct_bytes = sizeof *o,
                                   .alpha = 1,
                                   .beta = 0.1,
                                   .gamma = 0.1,
                                   .rate = 3e-3,
                                   .hidden = 128,
                                   .batch = 256,
                                   .epochs = 60,
                                   .patience = 8,
                                   .holdout = 0.2};
}

// ---- the network -------------------------------------------------------------------------

struct net {
    size_t layers; // LAYERS, or 1: a linear softmax
    size_t width[LAYERS + 1];
    size_t n;         // parameters
    float *parameter; // weight 0, bias 0, weight 1, ...
    float *gradient, *first, *second;
    double first_power, second_power; // of Adam's bias correction
    // Of one batch: layer inputs and the output, [batch][width].
    float *value[LAYERS + 1], *delta[LAYERS + 1];
};

static float *weight_of(const struct net *t, float *base, size_t layer) {
    for (size_t l = 0; l < layer; l++) base += t->width[l + 1] * (t->width[l] + 1);
    return base;
}
static float *bias_of(const struct net *t, float *base, size_t layer) {
    return weight_of(t, base, layer) + t->width[layer + 1] * t->width[layer];
}

static void net_init(struct net *t, size_t layers, size_t hidden, size_t classes, size_t batch,
                     uint64_t seed) {
    *t = (struct net){.layers = layers,
                      .width = {KV_TRAIN_INPUTS, hidden, hidden, classes},
                      .first_power = 1,
                      .second_power = 1};
    t->width[layers] = classes;
    for (size_t l = 0; l < t->layers; l++) t->n += t->width[l + 1] * (t->width[l] + 1);
    float **arrays[] = {&t->parameter, &t->gradient, &t->first, &t->second};
    for (size_t i = 0; i < 4; i++) *arrays[i] = kv_alloc(t->n, sizeof(float));
    for (size_t l = 0; l <= t->layers; l++) {
        t->value[l] = kv_alloc(batch * t->width[l], sizeof(float));
        t->delta[l] = kv_alloc(batch * t->width[l], sizeof(float));
    }
    for (size_t l = 0; l < t->layers; l++) { // He et al. 2015, uniform; biases begin at zero
        double reach = sqrt(6.0 / (double)t->width[l]);
        float *w = weight_of(t, t->parameter, l);
        for (size_t i = 0; i < t->width[l + 1] * t->width[l]; i++)
            w[i] = (float)(reach * (2 * kv_draw(seed, 100 + l, i) - 1));
    }
}

static void net_fini(struct net *t) {
    free(t->parameter);
    free(t->gradient);
    free(t->first);
    free(t->second);
    for (size_t l = 0; l <= t->layers; l++) {
        free(t->value[l]);
        free(t->delta[l]);
    }
}

static void forward(struct net *t, size_t n) {
    for (size_t l = 0; l < t->layers; l++) {
        size_t in = t->width[l], out = t->width[l + 1];
        const float *bias = bias_of(t, t->parameter, l);
        float *y = t->value[l + 1];
        for (size_t r = 0; r < n; r++) memcpy(y + r * out, bias, out * sizeof *y);
        kv_sgemm(false, true, n, out, in, t->value[l], in, weight_of(t, t->parameter, l), in, 1, y,
                 out);
        for (size_t i = 0; l + 1 < t->layers && i < n * out; i++) y[i] = y[i] > 0 ? y[i] : 0;
    }
}

// From the last delta = d loss / d output to the gradient.
static void backward(struct net *t, size_t n) {
    for (size_t l = t->layers; l-- > 0;) {
        size_t in = t->width[l], out = t->width[l + 1];
        float *bias = bias_of(t, t->gradient, l);
        const float *delta = t->delta[l + 1];
        kv_sgemm(true, false, out, in, n, delta, out, t->value[l], in, 0,
                 weight_of(t, t->gradient, l), in);
        memset(bias, 0, out * sizeof *bias);
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < out; i++) bias[i] += delta[r * out + i];
        if (l == 0) return;
        kv_sgemm(false, false, n, in, out, delta, out, weight_of(t, t->parameter, l), in, 0,
                 t->delta[l], in);
        for (size_t i = 0; i < n * in; i++)
            if (t->value[l][i] <= 0) t->delta[l][i] = 0;
    }
}

// Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1).
static void adam(struct net *t, double rate) {
    t->first_power *= adam_first;
    t->second_power *= adam_second;
    float c1 = (float)(1 / (1 - t->first_power)), c2 = (float)(1 / (1 - t->second_power)),
          b1 = (float)adam_first, b2 = (float)adam_second;
    for (size_t i = 0; i < t->n; i++) {
        float g = t->gradient[i];
        t->first[i] = b1 * t->first[i] + (1 - b1) * g;
        t->second[i] = b2 * t->second[i] + (1 - b2) * g * g;
        t->parameter[i] -=
            (float)rate * c1 * t->first[i] / (sqrtf(c2 * t->second[i]) + (float)adam_epsilon);
    }
}

// ---- the loss ----------------------------------------------------------------------------

// Softmax of one row of scores and its loss; with `delta`, d loss / d score as well.
static double token_loss(const struct kv_train_data *d, const struct kv_train_options *o,
                         const float *score, uint8_t label, float *delta) {
    double p[KV_TRAIN_MAX_CLASSES], most = -INFINITY, sum = 0, latency = 0, quality = 0;
    for (size_t k = 0; k < d->n_classes; k++) most = fmax(most, (double)score[k]);
    for (size_t k = 0; k < d->n_classes; k++) sum += p[k] = exp((double)score[k] - most);
    for (size_t k = 0; k < d->n_classes; k++) {
        p[k] /= sum;
        latency += p[k] * d->latency[k];
        quality += p[k] * d->quality[k];
    }
    for (size_t k = 0; delta && k < d->n_classes; k++)
        delta[k] =
            (float)(o->alpha * (p[k] - (k == label)) + o->beta * p[k] * (d->latency[k] - latency) -
                    o->gamma * p[k] * (d->quality[k] - quality));
    return o->alpha * -((double)score[label] - most - log(sum)) + o->beta * latency +
           o->gamma * (1 - quality);
}

static size_t units(const struct kv_train_data *d) {
    return d->n_units ? d->n_units : 1;
}

// Loss of all units of a token, their mean; label, score and delta of the first.
static double row_loss(const struct kv_train_data *d, const struct kv_train_options *o,
                       const float *score, const uint8_t *label, float *delta) {
    double loss = 0;
    for (size_t u = 0; u < units(d); u++)
        loss += token_loss(d, o, score + u * d->n_classes, label[u],
                           delta ? delta + u * d->n_classes : NULL);
    return loss / (double)units(d);
}

static size_t pick(const float *score, size_t n) {
    size_t best = 0;
    for (size_t k = 1; k < n; k++)
        if (score[k] > score[best]) best = k;
    return best;
}

// ---- the split ---------------------------------------------------------------------------

struct drawn {
    double mean;
    uint32_t item;
};

static int by_mean(const void *a, const void *b) {
    const struct drawn *x = a, *y = b;
    if (x->mean != y->mean) return x->mean < y->mean ? -1 : 1;
    return (x->item > y->item) - (x->item < y->item);
}

// Items in order of their mean label, cut into runs of 1 / holdout: one of each run validates,
// another is reported on. So the three parts have like labels, and no token of an item that picks
// the epoch or is reported on trains.
static void split(const struct kv_train_data *d, const struct kv_train_options *o, uint8_t *part) {
    struct drawn *items = kv_alloc(d->n_items, sizeof *items);
    size_t *tokens = kv_alloc(d->n_items, sizeof *tokens), run = (size_t)round(1 / o->holdout);
    for (size_t i = 0; i < d->n_items; i++) items[i].item = (uint32_t)i;
    for (size_t t = 0; t < d->n_tokens; t++) {
        for (size_t u = 0; u < units(d); u++) items[d->item[t]].mean += d->label[t * units(d) + u];
        tokens[d->item[t]]++;
    }
    for (size_t i = 0; i < d->n_items; i++)
        if (tokens[i]) items[i].mean /= (double)tokens[i];
    qsort(items, d->n_items, sizeof *items, by_mean);
    for (size_t i = 0; i < d->n_items; i += run) {
        size_t n = d->n_items - i < run ? d->n_items - i : run;
        if (n < run && i > 0) break; // a run cut short trains
        size_t one = (size_t)(kv_draw(o->seed, 50, i) * (double)n);
        size_t step = 1 + (size_t)(kv_draw(o->seed, 51, i) * (double)(n - 1));
        part[items[i + one].item] = KV_TRAIN_VALIDATES;
        part[items[i + (one + step) % n].item] = KV_TRAIN_REPORTED;
    }
    free(items);
    free(tokens);
}

// ---- training ----------------------------------------------------------------------------

struct trainer {
    const struct kv_train_data *d;
    const struct kv_train_options *o;
    struct net net;
    float *x; // [n_tokens][4] standardised
    double mean[KV_TRAIN_INPUTS], scale[KV_TRAIN_INPUTS];
    uint32_t *of[KV_TRAIN_N_PARTS]; // token indices
    size_t n[KV_TRAIN_N_PARTS];
};

static void standardise(struct trainer *t) {
    for (size_t i = 0; i < KV_TRAIN_INPUTS; i++) {
        double sum = 0, squares = 0;
        for (size_t k = 0; k < t->n[KV_TRAIN_LEARNS]; k++)
            sum += (double)t->d->x[t->of[KV_TRAIN_LEARNS][k] * KV_TRAIN_INPUTS + i];
        t->mean[i] = sum / (double)t->n[KV_TRAIN_LEARNS];
        for (size_t k = 0; k < t->n[KV_TRAIN_LEARNS]; k++)
            squares += pow(
                (double)t->d->x[t->of[KV_TRAIN_LEARNS][k] * KV_TRAIN_INPUTS + i] - t->mean[i], 2);
        t->scale[i] = sqrt(squares / (double)t->n[KV_TRAIN_LEARNS]);
        if (!(t->scale[i] > 0)) t->scale[i] = 1; // a feature that never changes
        for (size_t k = 0; k < t->d->n_tokens; k++)
            t->x[k * KV_TRAIN_INPUTS + i] =
                (float)(((double)t->d->x[k * KV_TRAIN_INPUTS + i] - t->mean[i]) / t->scale[i]);
    }
}

static void load(struct trainer *t, const uint32_t *tokens, size_t n) {
    for (size_t r = 0; r < n; r++)
        memcpy(t->net.value[0] + r * KV_TRAIN_INPUTS, t->x + tokens[r] * KV_TRAIN_INPUTS,
               KV_TRAIN_INPUTS * sizeof(float));
}

static double train_epoch(struct trainer *t, size_t epoch) {
    size_t n_units = units(t->d), classes = t->d->n_classes * n_units;
    double loss = 0;
    for (size_t i = t->n[KV_TRAIN_LEARNS]; i-- > 1;) {
        size_t j = (size_t)(kv_draw(t->o->seed, 1000 + epoch, i) * (double)(i + 1));
        uint32_t swap = t->of[KV_TRAIN_LEARNS][i];
        t->of[KV_TRAIN_LEARNS][i] = t->of[KV_TRAIN_LEARNS][j];
        t->of[KV_TRAIN_LEARNS][j] = swap;
    }
    for (size_t from = 0; from < t->n[KV_TRAIN_LEARNS]; from += t->o->batch) {
        size_t n =
            t->n[KV_TRAIN_LEARNS] - from < t->o->batch ? t->n[KV_TRAIN_LEARNS] - from : t->o->batch;
        load(t, t->of[KV_TRAIN_LEARNS] + from, n);
        forward(&t->net, n);
        for (size_t r = 0; r < n; r++)
            loss += row_loss(t->d, t->o, t->net.value[t->net.layers] + r * classes,
                             t->d->label + t->of[KV_TRAIN_LEARNS][from + r] * n_units,
                             t->net.delta[t->net.layers] + r * classes);
        for (size_t i = 0; i < n * classes; i++)
            t->net.delta[t->net.layers][i] /= (float)(n * n_units);
        backward(&t->net, n);
        adam(&t->net, t->o->rate);
    }
    return loss / (double)t->n[KV_TRAIN_LEARNS];
}

// Mean loss and accuracy on the tokens of a part; with `confusion`, what was picked for what.
static double judge(struct trainer *t, enum kv_train_part part, double *accuracy,
                    size_t (*confusion)[KV_TRAIN_MAX_CLASSES]) {
    size_t classes = t->d->n_classes, n_units = units(t->d), right = 0, all = t->n[part];
    const uint32_t *tokens = t->of[part];
    double loss = 0;
    for (size_t from = 0; from < all; from += t->o->batch) {
        size_t n = all - from < t->o->batch ? all - from : t->o->batch;
        load(t, tokens + from, n);
        forward(&t->net, n);
        for (size_t r = 0; r < n; r++) {
            const float *score = t->net.value[t->net.layers] + r * classes * n_units;
            const uint8_t *label = t->d->label + tokens[from + r] * n_units;
            loss += row_loss(t->d, t->o, score, label, NULL);
            for (size_t u = 0; u < n_units; u++) {
                size_t picked = pick(score + u * classes, classes);
                right += picked == label[u];
                if (confusion) confusion[label[u]][picked]++;
            }
        }
    }
    *accuracy = (double)right / (double)(all * n_units);
    return loss / (double)all;
}

static int fit(struct trainer *t, const char *what, struct kv_train_result *r, struct kv_error *e) {
    float *best = kv_alloc(t->net.n, sizeof *best);
    double best_loss = INFINITY;
    int rc = 0;
    r->epochs = kv_alloc(t->o->epochs, sizeof *r->epochs);
    struct kv_progress *progress = kv_progress_start(what, t->o->epochs, "epochs");
    for (size_t epoch = 0; epoch < t->o->epochs && rc == 0; epoch++) {
        struct kv_epoch *log = &r->epochs[r->n_epochs++];
        log->epoch = r->n_epochs;
        log->train_loss = train_epoch(t, epoch);
        log->valid_loss = judge(t, KV_TRAIN_VALIDATES, &log->valid_accuracy, NULL);
        kv_progress_step(progress, 1);
        if (kv_interrupted()) rc = kv_fail(e, KV_EINTR, "train", "interrupted");
        if (log->valid_loss < best_loss) {
            best_loss = log->valid_loss;
            r->best_epoch = epoch;
            memcpy(best, t->net.parameter, t->net.n * sizeof *best);
        }
        if (epoch - r->best_epoch >= t->o->patience) break;
    }
    kv_progress_end(progress);
    memcpy(t->net.parameter, best, t->net.n * sizeof *best);
    free(best);
    return rc;
}

static void measure_importance(struct trainer *t, struct kv_train_result *r) {
    const uint32_t *tokens = t->of[KV_TRAIN_REPORTED];
    size_t n = t->n[KV_TRAIN_REPORTED];
    double base_loss = judge(t, KV_TRAIN_REPORTED, &r->accuracy, r->confusion);
    float *column = kv_alloc(n, sizeof *column);
    for (size_t i = 0; i < KV_TRAIN_INPUTS; i++)
        for (size_t round = 0; round < PERMUTATIONS; round++) {
            float *x = t->x + i;
            for (size_t k = 0; k < n; k++) column[k] = x[tokens[k] * KV_TRAIN_INPUTS];
            for (size_t k = n; k-- > 1;) {
                size_t j = (size_t)(kv_draw(t->o->seed, 7000 + i * PERMUTATIONS + round, k) *
                                    (double)(k + 1));
                float *a = &x[tokens[k] * KV_TRAIN_INPUTS], *b = &x[tokens[j] * KV_TRAIN_INPUTS],
                      swap = *a;
                *a = *b;
                *b = swap;
            }
            double accuracy, loss = judge(t, KV_TRAIN_REPORTED, &accuracy, NULL);
            r->accuracy_drop[i] += (r->accuracy - accuracy) / PERMUTATIONS;
            r->loss_rise[i] += (loss - base_loss) / PERMUTATIONS;
            for (size_t k = 0; k < n; k++) x[tokens[k] * KV_TRAIN_INPUTS] = column[k];
        }
    free(column);
}

// Accuracy of always saying what is most frequent among the labels that are learned from.
static double majority_accuracy(const struct trainer *t) {
    size_t count[KV_TRAIN_MAX_CLASSES] = {0}, most = 0, right = 0;
    const uint32_t *reported = t->of[KV_TRAIN_REPORTED];
    size_t n_units = units(t->d);
    for (size_t k = 0; k < t->n[KV_TRAIN_LEARNS]; k++)
        for (size_t u = 0; u < n_units; u++)
            count[t->d->label[t->of[KV_TRAIN_LEARNS][k] * n_units + u]]++;
    for (size_t c = 1; c < t->d->n_classes; c++)
        if (count[c] > count[most]) most = c;
    for (size_t k = 0; k < t->n[KV_TRAIN_REPORTED]; k++)
        for (size_t u = 0; u < n_units; u++)
            right += t->d->label[reported[k] * n_units + u] == most;
    return (double)right / (double)(t->n[KV_TRAIN_REPORTED] * n_units);
}

// Accuracy of a softmax without hidden layers, trained the same way on the same tokens.
static int train_linear(struct trainer *t, double *accuracy, struct kv_error *e) {
    struct trainer linear = *t;
    struct kv_train_result r = {0};
    net_init(&linear.net, 1, 0, t->d->n_classes * units(t->d), t->o->batch, t->o->seed);
    int rc = fit(&linear, "training the linear one", &r, e);
    if (rc == 0) judge(&linear, KV_TRAIN_REPORTED, accuracy, NULL);
    net_fini(&linear.net);
    kv_train_result_free(&r);
    return rc;
}

// Copies the weights; the first layer takes raw features: W (x - mean) / scale + b.
static void hand_out(struct trainer *t, struct kv_train_result *r) {
    for (size_t l = 0; l < LAYERS; l++) {
        size_t in = t->net.width[l], out = t->net.width[l + 1];
        r->weight[l] = kv_alloc(out * in, sizeof(float));
        r->bias[l] = kv_alloc(out, sizeof(float));
        memcpy(r->weight[l], weight_of(&t->net, t->net.parameter, l), out * in * sizeof(float));
        memcpy(r->bias[l], bias_of(&t->net, t->net.parameter, l), out * sizeof(float));
        for (size_t k = 0; l == 0 && k < out; k++) {
            double bias = (double)r->bias[0][k];
            for (size_t i = 0; i < in; i++) {
                double w = (double)r->weight[0][k * in + i] / t->scale[i];
                r->weight[0][k * in + i] = (float)w;
                bias -= w * t->mean[i];
            }
            r->bias[0][k] = (float)bias;
        }
    }
}

static int check(const struct kv_train_data *d, const struct kv_train_options *o,
                 struct kv_error *e) {
    const char *why = d->n_tokens == 0 || d->n_items < 3            ? "three items with tokens"
                      : d->n_classes < 2                            ? "two widths at least"
                      : d->n_classes > KV_TRAIN_MAX_CLASSES         ? "fewer widths"
                      : !(o->holdout > 0 && o->holdout <= 1 / 3.0)  ? "a holdout above 0, up to 1/3"
                      : !(o->rate > 0) || o->rate > 1               ? "a rate above 0, up to 1"
                      : o->hidden == 0 || o->hidden > 512           ? "hidden from 1 to 512"
                      : o->batch == 0 || o->epochs == 0             ? "a batch and epochs above 0"
                      : o->alpha < 0 || o->beta < 0 || o->gamma < 0 ? "loss weights of at least 0"
                                                                    : NULL;
    if (why) return kv_fail(e, KV_EUSAGE, "train", "training needs %s", why);
    for (size_t i = 0; i < d->n_tokens * KV_TRAIN_INPUTS; i++)
        if (!isfinite(d->x[i]))
            return kv_fail(e, KV_EFAIL, "train", "a feature of token %zu is no number",
                           i / KV_TRAIN_INPUTS);
    return 0;
}

// The tokens of each part.
static void deal(struct trainer *t, const uint8_t *part) {
    for (size_t p = 0; p < KV_TRAIN_N_PARTS; p++)
        t->of[p] = kv_alloc(t->d->n_tokens, sizeof *t->of[p]);
    for (size_t k = 0; k < t->d->n_tokens; k++) {
        uint8_t p = part[t->d->item[k]];
        t->of[p][t->n[p]++] = (uint32_t)k;
    }
}

static int train_all(struct trainer *t, struct kv_train_result *r, struct kv_error *e) {
    net_init(&t->net, LAYERS, t->o->hidden, t->d->n_classes * units(t->d), t->o->batch, t->o->seed);
    int rc = fit(t, "training", r, e);
    if (rc == 0) {
        measure_importance(t, r);
        r->majority_accuracy = majority_accuracy(t);
        hand_out(t, r);
    }
    net_fini(&t->net);
    return rc ? rc : train_linear(t, &r->linear_accuracy, e);
}

int kv_train(const struct kv_train_data *d, const struct kv_train_options *o,
             struct kv_train_result *r, struct kv_error *e) {
    *r = (struct kv_train_result){0};
    int rc = check(d, o, e);
    if (rc == 0) rc = kv_blas_open(e);
    if (rc) return rc;
    struct trainer t = {
        .d = d, .o = o, .x = kv_alloc(d->n_tokens * KV_TRAIN_INPUTS, sizeof(float))};
    *r = (struct kv_train_result){.n_classes = d->n_classes,
                                  .hidden = o->hidden,
                                  .part = kv_alloc(d->n_items, 1),
                                  .n_units = units(d)};
    split(d, o, r->part);
    deal(&t, r->part);
    memcpy(r->n, t.n, sizeof r->n);
    for (size_t p = 0; p < KV_TRAIN_N_PARTS && rc == 0; p++)
        if (t.n[p] == 0)
            rc = kv_fail(e, KV_EFAIL, "train", "%zu items cannot be split at a holdout of %g",
                         d->n_items, o->holdout);
    if (rc == 0) {
        standardise(&t);
        rc = train_all(&t, r, e);
    }
    free(t.x);
    for (size_t p = 0; p < KV_TRAIN_N_PARTS; p++) free(t.of[p]);
    if (rc) kv_train_result_free(r);
    return rc;
}

void kv_train_result_free(struct kv_train_result *r) {
    for (size_t l = 0; l < LAYERS; l++) {
        free(r->weight[l]);
        free(r->bias[l]);
    }
    free(r->epochs);
    free(r->part);
    *r = (struct kv_train_result){0};
}
