/* base.h - what all of core stands on: errors, types and shapes, memory. Part of nn.h, which says how functions are
 * named, own and fail; nobody else includes it. */
#ifndef NN_BASE_H
#define NN_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- errors ------------------------------------------------------------------------------------ */

enum nn_code {
    NN_OK = 0,
#define NN_ERROR(code, slug, status, title) code,
#include "errors.def"
#undef NN_ERROR
    NN_CODE_COUNT
};

#define NN_MAX_RANK 8 /* dimensions of a tensor, the batch included */

/* Dimensions, outermost first. For a node: of one sample, so at most NN_MAX_RANK - 1 of them. */
struct nn_shape {
    int rank;
    int64_t dim[NN_MAX_RANK];
};

/* Which part of a model an error speaks of; `index` counts within that part. */
enum nn_site { NN_SITE_NONE, NN_SITE_INPUT, NN_SITE_LAYER, NN_SITE_LOSS, NN_SITE_TARGET, NN_SITE_OPTIMIZER };

struct nn_error {
    enum nn_code code;
    enum nn_site site;
    int index;                        /* within the site, counted from 0 */
    char member[64];                  /* the attribute or member at fault, "" if none */
    bool has_shapes;                  /* whether expected and actual are set (batch included where known) */
    struct nn_shape expected, actual; /* a dimension of -1 in `expected` may be any */
    char text[256];                   /* one sentence for a person */
};

/* Records an error unless one is recorded already. Returns `code`, so `return nn_fail(...)` works. */
int nn_fail(struct nn_error *err, enum nn_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* As nn_fail, naming the attribute at fault. */
int nn_fail_member(struct nn_error *err, enum nn_code code, const char *member, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* NN_E_SHAPE with both shapes. */
int nn_fail_shape(struct nn_error *err, const struct nn_shape *expected, const struct nn_shape *actual,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Says where a recorded error happened, unless that is said already. Returns err->code. */
int nn_error_at(struct nn_error *err, enum nn_site site, int index);

struct nn_code_info {
    const char *slug; /* stable, lower case, hyphenated */
    int status;       /* HTTP */
    const char *title;
};
const struct nn_code_info *nn_code_info(enum nn_code code);

/* --- types and shapes -------------------------------------------------------------------------- */

/* What core computes with. I64 holds ids and class indices; it has no gradient. */
enum nn_dtype { NN_F32, NN_F64, NN_I64 };

size_t nn_dtype_size(enum nn_dtype dtype);
const char *nn_dtype_name(enum nn_dtype dtype);

#define NN_MAX_ELEMENTS INT32_MAX /* of any one tensor: BLAS counts in int */

bool nn_shape_equal(const struct nn_shape *a, const struct nn_shape *b);
/* The number of elements; 1 for rank 0. Only for shapes that nn_shape_check has passed. */
int64_t nn_shape_elements(const struct nn_shape *shape);
/* Every dimension at least 1, at most NN_MAX_ELEMENTS elements. NN_E_SIZE, NN_E_VALUE. */
int nn_shape_check(const struct nn_shape *shape, struct nn_error *err);
/* [rows] followed by `sample`. */
struct nn_shape nn_shape_batch(int64_t rows, const struct nn_shape *sample);
/* "[2, 3]" into `text`, which is returned. Any size of at least 1 is safe. */
const char *nn_shape_text(const struct nn_shape *shape, char *text, size_t size);

/* --- arenas ------------------------------------------------------------------------------------ */

/* Memory that is freed all at once. What a graph or a request parses lives in one. */
struct nn_arena;
struct nn_arena *nn_arena_new(void);
void nn_arena_free(struct nn_arena *arena);
/* Zeroed, aligned for any type; NULL when memory is out. n * size is checked. */
void *nn_arena_alloc(struct nn_arena *arena, size_t n, size_t size);
char *nn_arena_strdup(struct nn_arena *arena, const char *text);
/* From here on the arena takes `unasked` bytes, and for more asks take(), which may refuse: then the allocation fails.
 * Nothing is given back before the arena is freed, and that is its owner's to do. */
void nn_arena_bound(struct nn_arena *arena, size_t unasked, bool (*take)(void *self, size_t bytes),
                    void *self);
/* Counts bytes that lie elsewhere as if they were the arena's. False: they were refused. */
bool nn_arena_count(struct nn_arena *arena, size_t bytes);

/* Bytes in an aligned block (64 bytes, one cache line), as malloc finds them, or zeroed. NULL when memory is
 * out. */
void *nn_block_new(size_t bytes);
void *nn_block_zeros(size_t bytes);
void nn_block_free(void *block);

#endif
