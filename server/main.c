/* main.c - gradd, from its settings to its end. */
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../api/api.h"
#include "allocator.h"
#include "config.h"
#include "data.h"
#include "http/http.h"
#include "http/listen.h"
#include "pool.h"
#include "store/repeat.h"
#include "http/tls.h"
#include "tokens.h"
#include "world.h"

#define TICK_NS 50000000

/* Exit statuses: what is wrong with the settings is told from what is wrong with the machine. */
enum { SERVED = 0, FAILED = 1, MISUSED = 2 };

/* --- a daemon's life ----------------------------------------------------------------------------- */

/* Raised by every signal that asks us to stop. Handlers and not sigwait, because the BLAS library begins
 * threads of its own when it is loaded, and they block no signals. */
static sem_t stops;
static volatile sig_atomic_t ready;

/* Until it is ready nobody was answered, and recovery, which may take minutes, has changed nothing that it does not
 * find again: so there is nothing to wait for. */
static void on_stop(int signal_number) {
    static const char told[] = "gradd: stopped before it was ready\n";
    (void)signal_number;
    if (ready) {
        sem_post(&stops);
        return;
    }
    ssize_t written = write(STDERR_FILENO, told, sizeof told - 1);
    (void)written;
    _exit(SERVED);
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
    int64_t trimmed = srv_now_ms();
    do {
        api_tick(api);
        srv_http_tick(http);
        if (to_reload) {
            to_reload = 0;
            if (token_file) srv_tokens_reload(api, token_file);
        }
        if (srv_now_ms() - trimmed >= SRV_TRIM_MS) {
            srv_allocator_trim();
            trimmed = srv_now_ms();
        }
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    } while (sem_clockwait(&stops, CLOCK_MONOTONIC, &until) != 0);
}

static void raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* Whether all requests that had come came to their end: within the time, and before a second signal. Who sends or reads
 * slowly is waited for as long, and no change is given up for it. */
static bool drain(struct api *api, struct srv_http *http, int64_t seconds) {
    static const struct timespec tick = {.tv_nsec = 10000000};
    int64_t deadline = srv_now_ms() + seconds * 1000;
    srv_http_drain(http);
    while (!srv_http_finished(http)) {
        if (sem_trywait(&stops) == 0) return false;
        if (srv_now_ms() >= deadline) return srv_http_close(http);
        api_tick(api);
        srv_http_tick(http);
        nanosleep(&tick, NULL);
    }
    return true;
}

static bool keep_deadlines(void *http) {
    static const struct timespec tick = {.tv_nsec = 5000000};
    srv_http_tick(http);
    nanosleep(&tick, NULL);
    return true;
}

/* Recovery may take minutes, in which slow peers could take all connections. */
static int recover(struct srv_data *data, struct api *api, struct srv_http *http, struct nn_error *err) {
    struct srv_repeat deadlines = {0};
    srv_repeat_begin(&deadlines, keep_deadlines, http);
    int code = srv_data_recover(data, api, err);
    srv_repeat_end(&deadlines);
    return code;
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
    struct srv_data data = {0};
    if (code) goto out;
    if (srv_data_open(&data, settings, err)) goto out;
    if (srv_tls_load(&tls, settings->tls_cert, settings->tls_key, settings->tls_client_ca, err)) goto out;

    listener = srv_listener_new(settings->listen, settings->token || settings->token_file,
                                (mode_t)settings->socket_mode, err);
    if (!listener) goto out;
    pool = srv_pool_new((int)settings->compute_threads, (size_t)settings->queue, err);
    if (!pool) goto out;
    api = srv_world_api(settings, pool, srv_data_api(&data), err);
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
    /* Probes are answered while models are recovered, and all else waits for them. */
    api_set_starting(api, true);
    http = srv_http_new(api, listener, &options, err);
    if (!http || recover(&data, api, http, err)) goto out;
    ready = 1;
    api_set_starting(api, false);
    tell_address(srv_listener_url(listener), tls.cert != NULL);

    wait_for_stop(api, http, settings->token_file);
    api_set_draining(api, true);
    if (!drain(api, http, settings->drain_timeout)) {
        /* Jobs cannot be broken off, so what is still in flight ends with the process. */
        fputs("gradd: stopped with requests in flight\n", stderr);
        _exit(SERVED);
    }
    srv_data_finish(&data, err);

out:
    /* Where requests are served still, they are probes alone, which ask for the pool's load. */
    if (!ready) {
        srv_http_free(http);
        http = NULL;
    }
    srv_pool_free(pool);
    srv_http_free(http);
    srv_data_close(&data); /* which may be at a checkpoint still */
    api_free(api);
    srv_listener_free(listener);
    srv_tls_fini(&tls);
    return (int)err->code;
}

static bool is_machines_fault(int code) {
    return code == NN_E_INTERNAL || code == NN_E_NOMEM || code == NN_E_BUSY || code == NN_E_STORE ||
           code == NN_E_CORRUPT;
}

/* gradd verify DIR */
static int verify(int argc, char *const *argv) {
    struct nn_error err = {0};
    if (argc != 3) {
        fputs("usage: gradd verify DIR\n", stderr);
        return MISUSED;
    }
    nn_blas_init();
    bool good = srv_data_verify(argv[2], stdout, &err);
    if (err.code) fprintf(stderr, "gradd: %s\n", err.text);
    return good ? SERVED : FAILED;
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "verify") == 0) return verify(argc, argv);
    struct srv_settings settings;
    struct nn_error err = {0};
    enum srv_wish wish;
    int code = srv_settings_load(&settings, argc, argv, environ, &wish, &err);
    if (!code && wish == SRV_HELP)
        srv_settings_help(stdout);
    else if (!code && wish == SRV_VERSION)
        printf("gradd %s\n%s\n", SRV_VERSION_TEXT, nn_blas_name());
    else if (!code)
        code = serve(&settings, &err);
    srv_settings_fini(&settings);
    if (!code) return SERVED;
    fprintf(stderr, "gradd: %s\n", err.text);
    return is_machines_fault(code) ? FAILED : MISUSED;
}
