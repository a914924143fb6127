// SPDX-License-Identifier: Apache-2.0
// kvsim train: trains what policies ask, the controller of mlp or the widths by cell of cells.
#include "sim/cli/train_kinds.h"

#include <string.h>

static const struct kv_option options[] = {
    {"out", 'o', "FILE", NULL,
     "weights of the network (default: " KV_TRAIN_MLP_OUT ", of cells " KV_TRAIN_CELLS_OUT
     "); of mlp a folder when several are trained"},
    {"rate", 0, "X", "0.003", "Adam's step"},
    {"holdout", 0, "SHARE", NULL,
     "of mlp (default 0.2) the share of the items that pick the epoch, and of those that are only "
     "reported on; of cells (0.1) that of the tokens, by item, that are only reported on"},
    {"grain", 0, "GRAIN", NULL,
     "what shares a width: cell (nothing), kv (the heads of a token's K or V in a layer), layer, "
     "token; of cells cell, of mlp token where it is not given; of mlp others by oracle labels"},
    // of cells
    {"features", 0, "LIST", "attention,probe",
     "cells: what is known of a cell: place, paper, token, attention, probe"},
    {"net", 0, "N", "64", "cells: units of each hidden layer; 0: no network, linear alone"},
    {"widths", 0, "LIST", "2/3/4/5/6/8", "cells: widths to choose from"},
    {"passes", 0, "N", "14", "cells: passes over the tokens"},
    {"again", 0, "FILE", NULL,
     "cells: train nothing; take FILE's weights and budgets and measure on these traces what other "
     "grains and widths start from, and the table of policy frozen"},
    {"items-out", 0, "FILE", NULL, "cells: write trace, task, id and part of every item there"},
    // of mlp
    {"figures", 0, "DIR", NULL, "mlp: folder for the learning curve of each network"},
    {"labels", 0, "LIST", "quartile",
     "mlp: what a token should get: quartile (of the mean of its features), oracle (the narrowest "
     "width "
     "whose expected damage stays under --bound)"},
    {"bound", 0, "NATS", "0.01",
     "mlp: damage a token may do, summed over scored positions (oracle)"},
    {"bits", 0, "LIST", "2,4,8,16", "mlp: widths to choose from"},
    {"format", 0, "FORMAT", "sym", "mlp: whose damage counts"},
    {"alpha", 0, "LIST", "1", "mlp: weight of the cross-entropy with the labels"},
    {"beta", 0, "LIST", "0.1", "mlp: weight of the expected latency"},
    {"gamma", 0, "LIST", "0.1", "mlp: weight of 1 - expected quality"},
    {"device", 0, "DEVICE", NULL, "mlp: whose latency counts (default: the first that is shipped)"},
    {"context", 0, "TOKENS", "2048", "mlp: context at which it does"},
    {"latency", 0, "LIST", NULL, "mlp: latency of each width, 0..1, instead of the device's"},
    {"quality", 0, "LIST", NULL,
     "mlp: quality of each width, 0..1 (default: exp(-KL) of storing everything at it, predicted "
     "from "
     "the trace's sensitivities)"},
    {"hidden", 0, "N", "128", "mlp: units of each hidden layer"},
    {"batch", 0, "N", "256", "mlp: tokens a step"},
    {"epochs", 0, "N", "60", "mlp: epochs at most"},
    {"patience", 0, "N", "8", "mlp: epochs without a better validation loss before training stops"},
    {0}};

static const struct kv_note columns_said[] = {
    {"labels ... gamma", "what the network was asked for: --labels, --alpha, --beta, --gamma"},
    {"epochs", "epochs trained"},
    {"valid_loss", "its least loss on the items that pick the epoch (a share of --holdout)"},
    {"accuracy", "share of tokens whose label it picks; here and to verdict on items that neither "
                 "trained it nor picked the epoch (another share of --holdout, seeded)"},
    {"majority", "the same of always picking the most frequent label"},
    {"linear", "the same of a softmax without hidden layers, trained the same way"},
    {"n", "items that it is judged on; 0: the trace holds no sensitivities (record --keep sens)"},
    {"pick_bits", "mean width of its picks"},
    {"pick_kl", "KL that the sensitivities foretell for its picks, nats a scored token"},
    {"shuffle_kl", "of the same picks on the wrong tokens of their item"},
    {"threshold_kl", "of policy threshold's rule, cut so that it stores as many tokens at each "
                     "width"},
    {"verdict", "better: pick_kl is lower than threshold_kl by more than two standard errors of "
                "their difference over items"},
    {"mean_bits, shares", "of its picks on all tokens"},
    {"spec", "the policy that asks it"},
    {"asked", "of cells: which features the model is asked with: all; without a group, whose "
              "values then come from other held-out tokens; place alone"},
    {"deviance", "of cells: mean of t exp(-f) + f over the cells held out, t the sensitivity over "
                 "its place's mean, exp(f) the one foretold"},
    {"gain", "of cells: share of the way from place alone to all"},
    {0}};

// ---- command --------------------------------------------------------------------------

static const struct kind {
    const char *name;
    int (*train)(struct kv_cli *c, struct kv_error *e);
} kinds[] = {{"mlp", kv_train_mlp}, {"cells", kv_train_cells}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

// Options say in their help whose they are: "mlp: ..."; one of the other kind is refused.
static int check_options(const struct kv_cli *c, const char *kind, struct kv_error *e) {
    for (const struct kv_option *o = options; o->name; o++)
        for (size_t k = 0; k < N_KINDS; k++) {
            size_t n = strlen(kinds[k].name);
            bool its = strncmp(o->help, kinds[k].name, n) == 0 && o->help[n] == ':';
            if (its && strcmp(kinds[k].name, kind) != 0 && kv_opt_given(c, o->name))
                return kv_fail(e, KV_EUSAGE, "train", "--%s is an option of %s, not of %s", o->name,
                               kinds[k].name, kind);
        }
    return 0;
}

static int train(struct kv_cli *c, struct kv_error *e) {
    for (size_t k = 0; k < N_KINDS; k++) {
        if (strcmp(c->args[0], kinds[k].name) != 0) continue;
        int rc = check_options(c, kinds[k].name, e);
        return rc ? rc : kinds[k].train(c, e);
    }
    return kv_fail(e, KV_EUSAGE, "train", "'%s': mlp and cells are what can be trained",
                   c->args[0]);
}

const struct kv_command kv_cmd_train = {
    .name = "train",
    .summary = "trains the controller of policy mlp, or the widths by cell of policy cells",
    .usage = "mlp|cells TRACE...",
    .example = "kvsim train mlp work/samples.trace --beta 0.1,0.5,1 -o work/mlp",
    .options = options,
    .columns = columns_said,
    .min_args = 2,
    .max_args = KV_TRAIN_MAX_TRACES + 1,
    .run = train};
