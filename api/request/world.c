/* world.c - the world outside of a request: clock, entropy, threads, and the peer that waits for the answer. */
#include "request.h"
#include "service.h"

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

void api_request_peer(struct api_request *request, bool (*left)(void *context)) { request->left = left; }

/* A brief request ends before the peer could leave, and a request of the service's own has no peer. */
bool api_is_wanted(const struct api_request *request) {
    if (request->quiet) return true;
    if (atomic_load(&request->api->ending)) return false;
    return request->brief || !request->left || !request->left(request->reply_context);
}

int api_give_up(struct api_request *request) {
    if (atomic_load(&request->api->ending))
        return nn_fail(&request->err, NN_E_BUSY, "the service is stopping");
    return nn_fail(&request->err, NN_E_LEFT, "nobody waits for the answer any more: the work was given up");
}

const struct nn_parallel *api_parallel(struct api *api) { return &api->env.parallel; }

int api_in_flight(const struct api *api) { return atomic_load(&((struct api *)api)->in_flight); }
