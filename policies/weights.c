// SPDX-License-Identifier: Apache-2.0
// A network of three layers from the six tensors of a file.
#include "policies/weights.h"

#include <stdlib.h>

const char *const kv_net_grains[] = {"token", "layer", "kv", "cell", NULL};

static int take_layer(struct kv_net *net, size_t l, struct kv_error *e) {
    char name[16];
    size_t shape[2] = {0, l ? net->width[l] : 0};
    snprintf(name, sizeof name, "%zu.weight", 2 * l);
    int rc = kv_tensors_take(&net->file, name, 2, shape, &net->weight[l], e);
    if (rc) return rc;
    if (shape[0] > KV_NET_MAX_WIDTH || shape[1] > KV_NET_MAX_WIDTH)
        return kv_fail(e, KV_EFAIL, net->file.path, "tensor %s is wider than %d", name,
                       KV_NET_MAX_WIDTH);
    net->width[l] = shape[1];
    net->width[l + 1] = shape[0];
    snprintf(name, sizeof name, "%zu.bias", 2 * l);
    return kv_tensors_take(&net->file, name, 1, shape, &net->bias[l], e);
}

int kv_net_open(struct kv_net *net, const char *path, struct kv_error *e) {
    *net = (struct kv_net){0};
    int rc = kv_tensors_open(&net->file, path, e);
    for (size_t l = 0; l < KV_NET_LAYERS && rc == 0; l++) rc = take_layer(net, l, e);
    kv_tensors_text(&net->file, "inputs", net->inputs, sizeof net->inputs);
    if (rc) kv_net_close(net);
    return rc;
}

void kv_net_close(struct kv_net *net) {
    kv_tensors_close(&net->file);
}
