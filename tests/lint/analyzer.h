/* analyzer.h - included before every file that clang-tidy reads, and by nothing else.
 *
 * The analyzer sees one file at a time, so it takes it that nn_fail may return 0, follows a caller that
 * goes on, and finds variables unset. Here it is told what core/nn.h promises. */
#include "../../core/nn.h"

static inline int nn_failed(const struct nn_error *err, int code) {
    if (!code || !err->code) __builtin_unreachable();
    return code;
}

#define nn_fail(err, ...)        nn_failed(err, nn_fail(err, __VA_ARGS__))
#define nn_fail_member(err, ...) nn_failed(err, nn_fail_member(err, __VA_ARGS__))
#define nn_fail_shape(err, ...)  nn_failed(err, nn_fail_shape(err, __VA_ARGS__))
#define nn_error_at(err, ...)    nn_failed(err, nn_error_at(err, __VA_ARGS__))
