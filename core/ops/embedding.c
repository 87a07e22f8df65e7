/* embedding - y = W[id]: a row of W for every id.
 *   ids [...], W [num_embeddings, embedding_dim], y [..., embedding_dim]
 *   dW[v] = Σ of dy over the places where id = v; ids have no gradient */
#include <string.h>

#include "../op.h"
#include "../real.h"

enum { NUM_EMBEDDINGS, EMBEDDING_DIM };
static const struct nn_attr_def attrs[] = {
    NN_SIZE_ROW("num_embeddings", "how many ids there are: 0 to num_embeddings - 1"),
    NN_SIZE_ROW("embedding_dim", "size of each vector"),
    {0},
};
enum { WEIGHT };

#define COLUMNS 64 /* of dW, in one task */

static int infer(struct nn_infer *infer, struct nn_error *err) {
    const struct nn_shape *in = &infer->in[0];
    if (in->rank + 1 > NN_MAX_RANK - 1)
        return nn_fail(err, NN_E_SHAPE, "embedding adds a dimension, and a sample has %d at most",
                       NN_MAX_RANK - 1);
    infer->out = *in;
    infer->out.dim[infer->out.rank++] = infer->attrs[EMBEDDING_DIM].i;
    infer->n_params = 1;
    infer->param[WEIGHT].suffix = "weight";
    infer->param[WEIGHT].shape =
        (struct nn_shape){2, {infer->attrs[NUM_EMBEDDINGS].i, infer->attrs[EMBEDDING_DIM].i}};
    infer->param[WEIGHT].init = (struct nn_init){.kind = NN_INIT_NORMAL, .scale = 1};
    return NN_OK;
}

static int check(const struct nn_pass *pass, struct nn_error *err) {
    const int64_t *id = pass->x[0], count = pass->attrs[NUM_EMBEDDINGS].i;
    int64_t per_row = nn_shape_elements(&pass->in[0]);
    for (int64_t i = 0; i < pass->rows * per_row; i++)
        if (id[i] < 0 || id[i] >= count)
            return nn_fail(err, NN_E_VALUE, "row %lld holds the id %lld, and ids are 0 to %lld",
                           (long long)(i / per_row), (long long)id[i], (long long)(count - 1));
    return NN_OK;
}

static void forward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    const int64_t *id = pass->x[0], dim = pass->attrs[EMBEDDING_DIM].i;
    int64_t per_row = nn_shape_elements(&pass->in[0]);
    const real *w = pass->w[WEIGHT];
    real *y = pass->y;
    for (int64_t i = begin * per_row; i < end * per_row; i++)
        memcpy(y + i * dim, w + id[i] * dim, (size_t)dim * sizeof *y);
}

/* One block of columns, the ids in their order: a row of dW may be met many times, by one task only. */
static void backward_columns(void *arg, int64_t begin, int64_t end) {
    const struct nn_pass *pass = arg;
    const int64_t *id = pass->x[0], dim = pass->attrs[EMBEDDING_DIM].i;
    int64_t ids = pass->rows * nn_shape_elements(&pass->in[0]);
    const real *d_y = pass->d_y;
    real *d_w = pass->d_w[WEIGHT];
    for (int64_t i = 0; i < ids; i++)
        for (int64_t j = begin; j < end; j++) d_w[id[i] * dim + j] += d_y[i * dim + j];
}

static void backward(const struct nn_pass *pass, int64_t begin, int64_t end) {
    (void)begin, (void)end;
    struct nn_pass copy = *pass; /* tasks take a plain pointer */
    if (pass->d_w[WEIGHT])
        nn_parallel_ranges(pass->par, pass->attrs[EMBEDDING_DIM].i, COLUMNS, backward_columns, &copy);
}

static const struct nn_example examples[] = {
    {.attrs = "\"num_embeddings\": 7, \"embedding_dim\": 3",
     .n_inputs = 1,
     .inputs = {{0, {0}}},
     .ids = true,
     .classes = 7},
    {.attrs = "\"num_embeddings\": 5, \"embedding_dim\": 2",
     .n_inputs = 1,
     .inputs = {{1, {4}}},
     .ids = true,
     .classes = 5},
    {.attrs = "\"num_embeddings\": 5, \"embedding_dim\": 70",
     .n_inputs = 1,
     .inputs = {{2, {2, 3}}},
     .ids = true,
     .classes = 5},
};

const struct nn_op NN_OP(embedding) = {
    NN_DEF(embedding, 1, 1, .summary = "A table of vectors, looked up by id.", .forward = "y = W[id]",
           .backward = "dW[v] = Σ dy where id = v", .attrs = attrs),
    .takes_ids = 1,
    .forward_split = NN_BY_ROW,
    .backward_split = NN_WHOLE,
    .reads = NN_READS_X,
    .infer = infer,
    .work = nn_work_none,
    .check = check,
    .forward = forward,
    .backward = backward,
};
