/* request.c - what handlers ask of a request: members, query, memory, clock. */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../pass/batch.h"
#include "client.h"
#include "../change/commit.h"
#include "../model/context.h"
#include "../model/model.h"
#include "service.h"

int api_point(struct api_request *request, const char *member, const char *name) {
    if (!request->pointer.text[0]) {
        api_pointer_add(&request->pointer, member);
        if (name) api_pointer_add(&request->pointer, name);
    }
    return (int)request->err.code;
}

void api_request_free(struct api_request *request) {
    if (!request) return;
    api_client_leave(request);
    nn_backward_free(request->backward);
    nn_run_free(request->run);
    api_batch_unref(request->batch);
    api_commit_fini(request);
    nn_grads_free(request->grads);
    nn_grads_free(request->sum);
    nn_params_unref(request->params);
    nn_params_unref(request->fresh);
    api_context_unclaim(request);
    if (request->context) api_context_unref(request->api, request->context);
    if (request->model) api_model_unref(request->api, request->model);
    if (request->restored) api_model_unref(request->api, request->restored);
    api_document_fini(&request->doc);
    json_decref(request->answer.members);
    free(request->answer.page);
    api_release(request->api, request->reserved);
    nn_arena_free(request->arena);
    api_tokens_unref(request->tokens);
    free(request->body);
    free(request->query);
    free(request);
}

void api_request_let_go(struct api_request *request) {
    nn_backward_free(request->backward);
    nn_run_free(request->run);
    nn_params_unref(request->params);
    size_t kept = request->papers;
    if (request->grads) kept += nn_graph_trainable_bytes(request->model->graph);
    if (api_commit_keeps_body(request)) {
        kept += request->size;
    } else {
        free(request->body);
        request->body = NULL;
        request->size = 0;
    }
    if (request->reserved > kept) {
        api_release(request->api, request->reserved - kept);
        request->reserved = kept;
    }
    request->backward = NULL;
    request->run = NULL;
    request->params = NULL;
    request->doc.n_tensors = 0;
}

/* What recovery may take at once, and of which it may take some times as much in all: the memory limit, or this where
 * the limit has been set below it since. */
#define RECOVERY_LEAST   ((size_t)64 << 20)
#define RECOVERY_BUDGETS ((size_t)2 * API_REPLAY_VERSIONS)

/* --- memory ---------------------------------------------------------------------------------------- */

/* What was there before has to find room again, with the versions that recovery keeps beside; and a checkpoint must come
 * some time. So the budget does not refuse it. But what could never have been within it is no record of this service. */
static int reserve_beyond(struct api_request *request, size_t bytes) {
    struct api *api = request->api;
    size_t limit = api->settings.limits.memory, held = atomic_fetch_add(&api->memory, bytes);
    if (limit < RECOVERY_LEAST) limit = RECOVERY_LEAST;
    if (bytes <= limit && held / RECOVERY_BUDGETS <= limit) {
        request->reserved += bytes;
        return NN_OK;
    }
    api_release(api, bytes);
    return nn_fail(&request->err, NN_E_NOMEM,
                   "what was stored takes %zu bytes more beside %zu, for which the memory limit is too small",
                   bytes, held);
}

/* More than the limit may be held, where that was set below what recovery found. */
static bool fits(size_t bytes, size_t held, size_t limit) {
    return bytes == 0 || (held <= limit && bytes <= limit - held);
}

int api_reserve(struct api_request *request, size_t bytes) {
    struct api *api = request->api;
    size_t limit = api->settings.limits.memory, held = atomic_load(&api->memory);
    if (atomic_load(&api->recovering) || request->beyond) return reserve_beyond(request, bytes);
    if (bytes > limit)
        return nn_fail(&request->err, NN_E_TOO_LARGE, "this takes %zu bytes, and the service has %zu for all",
                       bytes, limit);
    do {
        if (!fits(bytes, held, limit) && api_contexts_expire(api)) held = atomic_load(&api->memory);
        if (!fits(bytes, held, limit))
            return nn_fail(&request->err, NN_E_BUSY, "this takes %zu bytes, and %zu of %zu are taken", bytes,
                           held, limit);
    } while (!atomic_compare_exchange_weak(&api->memory, &held, held + bytes));
    request->reserved += bytes;
    return NN_OK;
}

static bool take_papers(void *self, size_t bytes) {
    struct api_request *request = self;
    if (api_reserve(request, bytes)) return false;
    request->papers += bytes;
    return true;
}

int api_count(struct api_request *request, size_t bytes) {
    return nn_arena_count(request->arena, bytes) ? NN_OK : (int)request->err.code;
}

void api_request_bound(struct api_request *request) {
    nn_arena_bound(request->arena, API_UNASKED, take_papers, request);
}

void api_release(struct api *api, size_t bytes) { atomic_fetch_sub(&api->memory, bytes); }

void api_reserve_move(struct api_request *request, size_t bytes) { request->reserved -= bytes; }

/* --- members --------------------------------------------------------------------------------------- */

static int wrong(struct api_request *request, const char *name, const char *what) {
    nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be %s", name, what);
    return api_point(request, name, NULL);
}

int api_get_string(struct api_request *request, const char *name, const char **value) {
    const json_t *json = json_object_get(request->doc.members, name);
    if (!json) return NN_OK;
    if (!json_is_string(json)) return wrong(request, name, "a string");
    *value = json_string_value(json);
    return NN_OK;
}

int api_get_bool(struct api_request *request, const char *name, bool *value) {
    const json_t *json = json_object_get(request->doc.members, name);
    if (!json) return NN_OK;
    if (!json_is_boolean(json)) return wrong(request, name, "true or false");
    *value = json_is_true(json);
    return NN_OK;
}

int api_get_integer(struct api_request *request, const char *name, int64_t min, int64_t max, int64_t *value) {
    const json_t *json = json_object_get(request->doc.members, name);
    if (!json) return NN_OK;
    int64_t i = json_integer_value(json);
    if (!json_is_integer(json) || i < min || i > max) {
        nn_fail(&request->err, NN_E_VALUE, "\"%s\" must be an integer from %lld to %lld", name,
                (long long)min, (long long)max);
        return api_point(request, name, NULL);
    }
    *value = i;
    return NN_OK;
}

int api_get_real(struct api_request *request, const char *name, double *value) {
    const json_t *json = json_object_get(request->doc.members, name);
    if (!json) return NN_OK;
    if (!json_is_number(json) || !isfinite(json_number_value(json))) return wrong(request, name, "a number");
    *value = json_number_value(json);
    return NN_OK;
}

/* --- the query ------------------------------------------------------------------------------------- */

/* The next name=value of what is left of the query: its name's length, and its value's; false past the end. */
static bool next_part(const char **query, const char **name, size_t *name_size, const char **value,
                      size_t *value_size) {
    const char *at = *query;
    if (!at || !*at) return false;
    size_t size = strcspn(at, "&");
    const char *equals = memchr(at, '=', size);
    *name = at;
    *name_size = equals ? (size_t)(equals - at) : size;
    *value = equals ? equals + 1 : at + size;
    *value_size = size - (size_t)(*value - at);
    *query = at + size + (at[size] == '&');
    return true;
}

/* Whether a word of `length` is one of `words`, which are separated by spaces. */
bool api_among(const char *words, const char *word, size_t length) {
    while (*words) {
        size_t size = strcspn(words, " ");
        if (size == length && memcmp(words, word, size) == 0) return true;
        words += size;
        words += strspn(words, " ");
    }
    return false;
}

int api_query_check(struct api_request *request, const char *known) {
    const char *left = request->query, *name, *value;
    size_t name_size, value_size;
    while (next_part(&left, &name, &name_size, &value, &value_size))
        if (!api_among(known, name, name_size))
            return nn_fail(&request->err, NN_E_UNKNOWN_MEMBER, "the query has no \"%.*s\" here",
                           (int)(name_size < 64 ? name_size : 64), name);
    return NN_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place; what is no escape stays, and none makes a NUL. */
static void decode_percent(char *text) {
    char *to = text;
    for (const char *c = text; *c; c++) {
        int high = *c == '%' ? hex_digit(c[1]) : -1, low = high < 0 ? -1 : hex_digit(c[2]);
        bool escape = low >= 0 && (high || low);
        *to++ = escape ? (char)(high * 16 + low) : *c;
        if (escape) c += 2;
    }
    *to = '\0';
}

int api_query(struct api_request *request, const char *wanted, const char **value) {
    const char *left = request->query, *name, *text;
    size_t name_size, value_size;
    *value = NULL;
    while (next_part(&left, &name, &name_size, &text, &value_size)) {
        if (strlen(wanted) != name_size || memcmp(name, wanted, name_size) != 0) continue;
        char *copy = nn_arena_alloc(request->arena, value_size + 1, 1);
        if (!copy) return nn_fail(&request->err, NN_E_NOMEM, "memory is out");
        *value = memcpy(copy, text, value_size);
        decode_percent(copy);
        return NN_OK;
    }
    return NN_OK;
}

int api_result_dtype(struct api_request *request, enum nn_dtype dtype, enum api_dtype *out) {
    const char *asked, *name;
    *out = api_dtype_of(dtype);
    if (api_query(request, "dtype", &asked)) return (int)request->err.code;
    name = asked;
    if (!asked && api_get_string(request, "dtype", &name)) return (int)request->err.code;
    if (!name) return NN_OK;
    *out = api_dtype_find(name);
    if (*out != API_DTYPES && api_dtype_is_float(*out)) return NN_OK;
    nn_fail(&request->err, NN_E_VALUE, "results come as F32, F64, F16 or BF16");
    return asked ? (int)request->err.code : api_point(request, "dtype", NULL);
}

/* --- the world ------------------------------------------------------------------------------------- */

int api_random(struct api_request *request, uint64_t *bits) {
    struct api_env *env = &request->api->env;
    const struct api_replay *replay = request->replay;
    const int room = (int)(sizeof request->drawn / sizeof request->drawn[0]);
    if (replay) {
        if (request->n_drawn == replay->n_drawn)
            return nn_fail(&request->err, NN_E_CORRUPT, "the record has too few random numbers");
        *bits = replay->drawn[request->n_drawn++];
        return NN_OK;
    }
    if (!env->entropy(env->self, bits, sizeof *bits))
        return nn_fail(&request->err, NN_E_INTERNAL, "the source of entropy failed");
    if (request->n_drawn < room) request->drawn[request->n_drawn++] = *bits;
    return NN_OK;
}

int64_t api_now_ms(struct api *api) { return api->env.now_ms(api->env.self); }

int64_t api_now_ns(struct api *api) {
    const struct api_env *env = &api->env;
    return env->now_ns ? env->now_ns(env->self) : env->now_ms(env->self) * 1000000;
}

const struct nn_parallel *api_parallel(struct api *api) { return &api->env.parallel; }
