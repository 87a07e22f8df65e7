/* classes.h - what the losses over classes share: x [C, d...], class ids [d...], a weight for each class. */
#ifndef NN_CLASSES_H
#define NN_CLASSES_H

#include "axis.h"

/* The first row of their attribute tables. */
enum { NN_CLASS_WEIGHT };
#define NN_CLASS_WEIGHT_ROW                                                                                  \
    {                                                                                                        \
        .name = "weight", .type = NN_REALS, NN_AT_LEAST_0, .list_min = 1, .list_max = NN_MAX_ELEMENTS,       \
        .text = "a weight for each class; empty: all 1"                                                      \
    }

static inline double nn_class_weight(const struct nn_pass *pass, int64_t class) {
    const union nn_attr_value *weight = &pass->attrs[NN_CLASS_WEIGHT];
    return weight->list.n ? weight->list.reals[class] : 1;
}

/* The classes of a row are its first dimension. */
static inline struct nn_axis nn_classes_of(const struct nn_pass *pass) { return nn_axis_at(1, &pass->in[0]); }

/* The unreduced loss is [d...], and ids of that shape are the first form of the target. */
static inline int nn_classes_infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    const int64_t weights = infer->attrs[NN_CLASS_WEIGHT].list.n;
    if (in->rank < 1) return nn_fail(err, NN_E_SHAPE, "the input needs a dimension of classes");
    if (weights && weights != in->dim[0])
        return nn_fail_member(err, NN_E_VALUE, "weight", "\"weight\" has %lld numbers for %lld classes",
                              (long long)weights, (long long)in->dim[0]);
    infer->out = (struct nn_shape){.rank = in->rank - 1};
    for (int i = 1; i < in->rank; i++) infer->out.dim[i - 1] = in->dim[i];
    infer->n_forms = 1;
    infer->form[0] = (struct nn_target_form){.ids = true, .shape = infer->out};
    return NN_OK;
}

static inline int nn_classes_check(const struct nn_pass *pass, struct nn_error *err) {
    const struct nn_axis classes = nn_classes_of(pass);
    const int64_t *id = pass->target;
    for (int64_t v = 0; pass->target_ids && v < pass->rows * classes.inner; v++)
        if (id[v] < 0 || id[v] >= classes.length)
            return nn_fail(err, NN_E_VALUE, "row %lld holds the class %lld, and classes are 0 to %lld",
                           (long long)(v / classes.inner), (long long)id[v], (long long)(classes.length - 1));
    return NN_OK;
}

/* Σ weight[class] for ids, else the count. */
static inline double nn_classes_normalizer(const struct nn_pass *pass) {
    const int64_t *id = pass->target, n = pass->rows * nn_classes_of(pass).inner;
    if (!pass->target_ids) return (double)n;
    double sum = 0;
    for (int64_t v = 0; v < n; v++) sum += nn_class_weight(pass, id[v]);
    return sum;
}

#endif
