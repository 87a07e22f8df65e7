/* def.h - what the tables of operators, losses and optimizers say to the world, and the attributes that a request
 * gives. Part of nn.h, which says how functions are named, own and fail; nobody else includes it. */
#ifndef NN_DEF_H
#define NN_DEF_H

#include "base.h"

/* --- what the tables say ------------------------------------------------------------------------ */

enum nn_attr_type { NN_INT, NN_REAL, NN_BOOL, NN_CHOICE, NN_INTS, NN_REALS };

/* The bound of a number that only overflow limits, such as a learning rate. It is finite
 * in float. Messages about an attribute's range leave it out. */
#define NN_UNBOUNDED 1e30

/* One attribute of an operator, loss or optimizer. Names and defaults are PyTorch's. */
struct nn_attr_def {
    const char *name;
    enum nn_attr_type type;
    bool required;
    bool nullable;              /* null may be given: NaN, of REAL */
    bool min_open, max_open;    /* whether the bound itself is excluded */
    double min, max;            /* of a number, or of each number of a list; both 0: unbounded */
    double by_default;          /* of INT, REAL, BOOL and CHOICE (an index) */
    const double *list_default; /* of REALS and INTS, `list_min` long; NULL: empty */
    int list_min, list_max;     /* how long a list is when given */
    const char *const *choices; /* of CHOICE, NULL-terminated */
    const char *text;           /* one line */
};

/* The value of one attribute, by its type. Lists live in the graph's or optimizer's arena. */
union nn_attr_value {
    int64_t i; /* INT; CHOICE: the index into `choices` */
    double r;
    bool b;
    struct {
        int64_t n;
        const double *reals; /* REALS */
        const int64_t *ints; /* INTS */
    } list;
};

enum nn_flags {
    NN_COUPLES_ROWS = 1, /* in some mode, a row of the output depends on other rows of the batch */
    NN_HAS_KINKS = 2,    /* not differentiable everywhere: keep gradient checks away from kinks */
    NN_USES_RNG = 4,     /* draws from the counter-based generator in train mode */
    NN_IS_LOSS = 8,      /* takes a target; its output is the unreduced loss */
};

/* One use of an operator or optimizer, for documents and tests: its attributes as JSON, and sample shapes
 * (an optimizer has none). */
struct nn_example {
    const char *attrs;         /* members of a JSON object, without the braces; "" for none */
    struct nn_shape inputs[3]; /* as many as the example has; the rest have rank -1 or are zero */
    int n_inputs;
    bool ids;        /* inputs (a loss: the target) are I64 class indices or ids */
    int64_t classes; /* ids lie in 0..classes-1 */
};

/* What a row of ops.def or optimizers.def says to the world. */
struct nn_def {
    const char *name;
    const char *summary;             /* one line */
    const char *forward;             /* the formula; optimizers: the update rule */
    const char *backward;            /* the gradients */
    const char *source;              /* where the formula is from: paper and section, or NULL */
    int min_inputs, max_inputs;      /* max -1: any number */
    const char *const *more_outputs; /* names of the outputs behind the first, NULL-terminated; NULL: none */
    unsigned flags;
    const struct nn_attr_def *attrs; /* ends with a NULL name; NULL: none */
    const struct nn_example *examples;
    int n_examples;
};

/* The tables, in their order; NULL past the end. Layers and losses share one table. */
const struct nn_def *nn_op_def(int index);
const struct nn_def *nn_optimizer_def(int index);
/* By name; NULL if there is none. */
const struct nn_def *nn_op_find(const char *name);
const struct nn_def *nn_optimizer_find(const char *name);

/* --- attributes as they are given ---------------------------------------------------------------- */

/* An attribute's value as a request writes it, not yet held against the table. */
struct nn_given {
    enum { NN_GIVEN_INT, NN_GIVEN_REAL, NN_GIVEN_BOOL, NN_GIVEN_TEXT, NN_GIVEN_LIST, NN_GIVEN_NULL } kind;
    int64_t i;
    double r; /* set for INT too */
    bool b;
    const char *text;
    const double *list;
    int64_t n;
};

struct nn_attrs; /* values for every attribute of one definition */
/* All at their defaults. Lives in `arena`, as all it is given later. NULL when memory is out. */
struct nn_attrs *nn_attrs_new(const struct nn_def *def, struct nn_arena *arena);
/* Sets one. NN_E_UNKNOWN_MEMBER, NN_E_VALUE, NN_E_NOMEM; err->member is the name. */
int nn_attrs_set(struct nn_attrs *attrs, const char *name, const struct nn_given *value,
                 struct nn_error *err);

#endif
