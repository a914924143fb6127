# SPDX-License-Identifier: Apache-2.0
# Accuracy, and divergence from the 16-bit run, against effective bits (codes and metadata).

do for [p = 1:panels] {
    x_title[p] = "effective bits a cached value"
    y_format[p] = "%g"
    y_title[p] = "accuracy, %"
    if (divergence[p]) { y_title[p] = "KL to 16 bit, nats a token" . (zero_drawn ? " (0 at the foot)" : "") }
}
