/* budget.c - the service's memory budget: every byte is reserved before it is allocated. */
#include "request.h"
#include "service.h"

/* Recovery may reserve this much at once, and this many times as much in all, even if the memory limit was set lower
 * since the last start. */
#define RECOVERY_LEAST   ((size_t)64 << 20)
#define RECOVERY_BUDGETS ((size_t)2 * API_REPLAY_VERSIONS)

/* Reserves beyond the limit. Recovery must find room for all that was there before, and for the versions that it keeps
 * besides; and a checkpoint must succeed some time. The bound that stays is for records that this service can never
 * have written. */
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

/* Recovery may have taken more than a limit that was lowered since. */
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
        if (!fits(bytes, held, limit) && api->make_room(api)) held = atomic_load(&api->memory);
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

size_t api_memory_in_use(const struct api *api) { return atomic_load(&((struct api *)api)->memory); }
