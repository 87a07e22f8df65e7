/* linear - y = x Wᵀ + b on the last dimension.
 *   x [..., in], W [out, in], b [out], y [..., out]
 *   dx = dy W,  dW = dyᵀ x,  db = Σ over all leading dimensions of dy */
#include "affine.h"

static const struct nn_attr_def attrs[] = {
    NN_SIZE_ROW("out_features", "size of the output's last dimension"),
    {.name = "bias", .type = NN_BOOL, .by_default = true, .text = "whether b is added"},
    {0},
};

NN_AFFINE(linear, NN_TRANSPOSED, "false",
          .summary = "Affine map of the last dimension, with PyTorch's weight layout.",
          .forward = "y = x Wᵀ + b", .backward = "dx = dy W, dW = dyᵀ x, db = Σ dy",
          .source = "initial values: He et al., \"Delving deep into rectifiers\", 2015, section 2.2");
