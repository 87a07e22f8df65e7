/* world.c - see world.h. */
#include "world.h"

#include <sys/random.h>
#include <time.h>

#include "base/log.h"

static int64_t read_clock(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t srv_now_ms(void) { return read_clock(CLOCK_MONOTONIC) / 1000000; }
int64_t srv_wall_ms(void) { return read_clock(CLOCK_REALTIME) / 1000000; }

static int64_t now_ns(void *self) {
    (void)self;
    return read_clock(CLOCK_MONOTONIC);
}

static int64_t now_ms(void *self) {
    (void)self;
    return srv_now_ms();
}

static int64_t wall_ms(void *self) {
    (void)self;
    return srv_wall_ms();
}

static bool entropy(void *self, void *buffer, size_t size) {
    (void)self;
    for (char *at = buffer; size > 0;) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0) return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}

static bool execute(void *self, void (*job)(void *arg), void *arg, uint64_t cost) {
    return srv_pool_execute(self, job, arg, cost);
}

static bool execute_after(void *self, int64_t delay_us, void (*job)(void *arg), void *arg, uint64_t cost) {
    return srv_pool_execute_after(self, delay_us, job, arg, cost);
}

static void load(void *self, struct api_load *load) {
    srv_pool_load(self, load);
    load->lines_dropped = srv_log_dropped();
}

struct api *srv_world_api(const struct srv_settings *settings, struct srv_pool *pool,
                          const struct api_store *store, struct nn_error *err) {
    struct api_settings api = {
        .limits = api_default_limits,
        .token = settings->token,
        .version = SRV_VERSION_TEXT,
        .tile = {nn_blas_tile(NN_F32), nn_blas_tile(NN_F64)},
    };
    api.limits.memory = (size_t)settings->memory;
    api.limits.body = (size_t)settings->max_body;
    api.limits.work = (double)settings->max_work;
    api.limits.models = (int)settings->max_models;
    api.limits.contexts = (int)settings->max_contexts;
    api.limits.layers = (int)settings->max_layers;
    api.limits.rank = (int)settings->max_rank;
    api.limits.name = (int)settings->max_name;
    api.limits.tensors = (int)settings->max_tensors;
    api.limits.json_depth = (int)settings->max_json_depth;
    api.limits.json_values = (int)settings->max_json_values;
    api.limits.client_requests = (int)settings->client_requests;
    api.limits.keys = (int)settings->max_keys;
    api.limits.key_ttl_ms = settings->key_ttl * 1000;
    api.limits.batch_max = (int)settings->batch_max;
    api.limits.batch_window_us = settings->batch_window_us;
    api.limits.context_ttl_ms = settings->context_ttl * 1000;
    struct api_env env = {
        .self = pool,
        .now_ms = now_ms,
        .now_ns = now_ns,
        .entropy = entropy,
        .wall_ms = wall_ms,
        .store = store,
    };
    if (pool) {
        env.execute = execute;
        env.execute_after = execute_after;
        env.parallel = (struct nn_parallel){.run = srv_pool_parallel, .pool = pool};
        env.load = load;
    }
    return api_new(&api, &env, err);
}
