/* main.c - gradd, from its settings to its end. */
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../api/api.h"
#include "allocator.h"
#include "config.h"
#include "http.h"
#include "listen.h"
#include "pool.h"
#include "tls.h"
#include "tokens.h"

#define TICK_NS 50000000
#define VERSION "0.1.0"

/* Exit statuses: what is wrong with the settings is told from what is wrong with the machine. */
enum { SERVED = 0, FAILED = 1, MISUSED = 2 };

/* --- what the API sees of the world -------------------------------------------------------------- */

static int64_t now_ns(void *self) {
    (void)self;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int64_t now_ms(void *self) { return now_ns(self) / 1000000; }

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

static void load(void *self, struct api_load *load) { srv_pool_load(self, load); }

static struct api *new_api(const struct srv_settings *settings, struct srv_pool *pool, struct nn_error *err) {
    struct api_settings api = {
        .limits = api_default_limits,
        .token = settings->token,
        .version = VERSION,
        .tile = {nn_blas_tile(NN_F32), nn_blas_tile(NN_F64)},
    };
    api.limits.memory = (size_t)settings->memory;
    api.limits.body = (size_t)settings->max_body;
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
        .execute = execute,
        .execute_after = execute_after,
        .parallel = {.run = srv_pool_parallel, .pool = pool},
        .load = load,
    };
    return api_new(&api, &env, err);
}

/* --- a daemon's life ----------------------------------------------------------------------------- */

/* Raised by every signal that asks us to stop. Handlers and not sigwait, because the BLAS library begins
 * threads of its own when it is loaded, and they block no signals. */
static sem_t stops;

static void on_stop(int signal_number) {
    (void)signal_number;
    sem_post(&stops);
}

static volatile sig_atomic_t to_reload;

static void on_reload(int signal_number) {
    (void)signal_number;
    to_reload = 1;
}

static void handle_signals(void) {
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction reload = {.sa_handler = on_reload, .sa_flags = SA_RESTART};
    sem_init(&stops, 0, 0);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGHUP, &reload, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Until a signal comes; meanwhile the API does what is due. `token_file` may be NULL. */
static void wait_for_stop(struct api *api, struct srv_http *http, const char *token_file) {
    struct timespec until;
    int64_t trimmed = now_ms(NULL);
    do {
        api_tick(api);
        srv_http_tick(http);
        if (to_reload) {
            to_reload = 0;
            if (token_file) srv_tokens_reload(api, token_file);
        }
        if (now_ms(NULL) - trimmed >= SRV_TRIM_MS) {
            srv_allocator_trim();
            trimmed = now_ms(NULL);
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    } while (sem_timedwait(&stops, &until) != 0);
}

static void raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* Whether all requests in flight came to their end: within the time, and before a second signal. */
static bool drain(struct api *api, struct srv_http *http, int64_t seconds) {
    static const struct timespec tick = {.tv_nsec = 10000000};
    int64_t deadline = now_ms(NULL) + seconds * 1000;
    srv_http_drain(http);
    while (!srv_http_finished(http)) {
        if (now_ms(NULL) >= deadline || sem_trywait(&stops) == 0) return false;
        api_tick(api);
        srv_http_tick(http);
        nanosleep(&tick, NULL);
    }
    return true;
}

/* The listener's addresses begin with "http:" or "unix:". */
static void tell_address(const char *url, bool tls) {
    bool secured = tls && strncmp(url, "http:", 5) == 0;
    printf("listening on %s%s\n", secured ? "https" : "", secured ? url + 4 : url);
    fflush(stdout);
}

static int serve(const struct srv_settings *settings, struct nn_error *err) {
    handle_signals();
    raise_file_limit();
    nn_blas_init();
    int code = nn_blas_check(err);
    struct srv_listener *listener = NULL;
    struct srv_pool *pool = NULL;
    struct api *api = NULL;
    struct srv_http *http = NULL;
    struct srv_tls tls = {0};
    if (code) goto out;
    if (srv_tls_load(&tls, settings->tls_cert, settings->tls_key, settings->tls_client_ca, err)) goto out;

    listener = srv_listener_new(settings->listen, settings->token || settings->token_file,
                                (mode_t)settings->socket_mode, err);
    if (!listener) goto out;
    pool = srv_pool_new((int)settings->compute_threads, (size_t)settings->queue, err);
    if (!pool) goto out;
    api = new_api(settings, pool, err);
    if (!api || (settings->token_file && srv_tokens_load(api, settings->token_file, err))) goto out;
    struct srv_http_options options = {
        .io_threads = (unsigned)settings->io_threads,
        .connections = (int)settings->connections,
        .address_connections = (int)settings->address_connections,
        .header_timeout_ms = settings->header_timeout * 1000,
        .body_timeout_ms = settings->body_timeout * 1000,
        .idle_timeout_ms = settings->idle_timeout * 1000,
        .body_rate = settings->body_rate,
        .max_head = (size_t)settings->max_head,
        .log = settings->log == SRV_LOG_REQUESTS,
        .guard = {settings->listen, settings->allowed_hosts, settings->allowed_origins},
        .tls = tls,
    };
    if (srv_guard_check(&options.guard, err)) goto out;
    http = srv_http_new(api, listener, &options, err);
    if (!http) goto out;
    tell_address(srv_listener_url(listener), tls.cert != NULL);

    wait_for_stop(api, http, settings->token_file);
    api_set_draining(api, true);
    if (!drain(api, http, settings->drain_timeout)) {
        /* Jobs cannot be broken off, so what is still in flight ends with the process. */
        fputs("gradd: stopped with requests in flight\n", stderr);
        _exit(SERVED);
    }

out:
    srv_pool_free(pool);
    srv_http_free(http);
    api_free(api);
    srv_listener_free(listener);
    srv_tls_fini(&tls);
    return (int)err->code;
}

int main(int argc, char **argv) {
    struct srv_settings settings;
    struct nn_error err = {0};
    enum srv_wish wish;
    int code = srv_settings_load(&settings, argc, argv, environ, &wish, &err);
    if (!code && wish == SRV_HELP)
        srv_settings_help(stdout);
    else if (!code && wish == SRV_VERSION)
        printf("gradd %s\n%s\n", VERSION, nn_blas_name());
    else if (!code)
        code = serve(&settings, &err);
    srv_settings_fini(&settings);
    if (!code) return SERVED;
    fprintf(stderr, "gradd: %s\n", err.text);
    return code == NN_E_INTERNAL || code == NN_E_NOMEM || code == NN_E_BUSY ? FAILED : MISUSED;
}
