/* main.c - the process gradd, from its settings to its end. */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../api/api.h"
#include "allocator.h"
#include "base/log.h"
#include "base/outlet.h"
#include "config.h"
#include "data.h"
#include "http/http.h"
#include "http/listen.h"
#include "http/tls.h"
#include "pool.h"
#include "store/repeat.h"
#include "store/store.h"
#include "tokens.h"
#include "world.h"

#define TICK_NS   50000000
#define MOMENT_MS 1000 /* several signals within this time count as one */

/* Exit statuses. Faults of the settings differ from faults of the machine. */
enum { SERVED = 0, FAILED = 1, MISUSED = 2 };

/* --- a daemon's life ----------------------------------------------------------------------------- */

/* Posted for every signal that asks the process to stop. There are handlers, and no sigwait, because the BLAS library
 * starts threads when it is loaded, and they block no signals. */
static sem_t stops;
static atomic_bool ready; /* a handler on any thread reads it */

static void on_alarm(int signal_number) {
    (void)signal_number;
    _exit(SERVED);
}

/* Before the daemon is ready it has answered nobody, and recovery changes nothing that it would not find again: so it
 * ends at once. An alarm ends this write if its reader is slow. */
static void on_stop(int signal_number) {
    static const char told[] = "gradd: stopped before it was ready\n";
    (void)signal_number;
    if (atomic_load(&ready)) {
        int error = errno;
        sem_post(&stops);
        errno = error;
        return;
    }
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL);
    alarm(1);
    ssize_t written = write(STDERR_FILENO, told, sizeof told - 1);
    (void)written;
    _exit(SERVED);
}

static atomic_bool to_reload;

static void on_reload(int signal_number) {
    (void)signal_number;
    atomic_store(&to_reload, true);
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

/* The daemon, for the threads that wait for its end. */
struct daemon {
    const struct srv_settings *settings;
    struct api *api;
    struct srv_http *http;
    struct srv_data data;
    int64_t stopped_ms; /* when it was asked to stop */
    int signals;        /* signals so far; one thread at a time counts them */
};

static struct srv_token_file token_file; /* its thread may outlive everything else */

/* Called about ten times a second. */
static void tick(struct daemon *daemon) {
    api_tick(daemon->api);
    srv_http_tick(daemon->http);
    if (atomic_exchange(&to_reload, false)) token_file.wanted = true;
    srv_token_file_tick(&token_file, daemon->api);
}

/* Waits for a signal. */
static void wait_for_stop(struct daemon *daemon) {
    struct timespec until;
    int64_t trimmed = srv_now_ms();
    do {
        tick(daemon);
        if (srv_now_ms() - trimmed >= SRV_TRIM_MS) {
            srv_allocator_trim();
            trimmed = srv_now_ms();
        }
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    } while (sem_clockwait(&stops, CLOCK_MONOTONIC, &until) != 0);
    daemon->signals = 1;
    daemon->stopped_ms = srv_now_ms();
}

static void raise_file_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* True if this many signals have come. Signals of the first moment are counted when it is over: `timeout` and shells
 * send two at once, and mean one. */
static bool is_pressed(struct daemon *daemon, int signals) {
    while (sem_trywait(&stops) == 0) daemon->signals++;
    return daemon->signals >= signals && srv_now_ms() - daemon->stopped_ms >= MOMENT_MS;
}

/* Waits until all requests are answered, the time is over, or a second signal comes. True: the API has no requests
 * left; peers may still be sending or reading slowly. */
static bool drain(struct daemon *daemon) {
    static const struct timespec pause = {.tv_nsec = 10000000};
    int64_t deadline = daemon->stopped_ms + daemon->settings->drain_timeout * 1000;
    api_set_draining(daemon->api, true);
    srv_http_drain(daemon->http);
    while (!srv_http_finished(daemon->http)) {
        if (srv_now_ms() >= deadline || is_pressed(daemon, 2)) return srv_http_close(daemon->http);
        tick(daemon);
        nanosleep(&pause, NULL);
    }
    return true;
}

static _Noreturn void end_at_once(int status) {
    srv_log_end();
    _exit(status);
}

/* Runs beside the last checkpoint, which may take long. A third signal ends the process without the checkpoint. */
static bool watch_over(void *self) {
    static const struct timespec pause = {.tv_nsec = 10000000};
    struct daemon *daemon = self;
    srv_http_tick(daemon->http);
    if (is_pressed(daemon, 3)) {
        srv_log_say("stopped at once, at the %d. signal", daemon->signals);
        srv_data_tell_lost(&daemon->data, daemon->api);
        end_at_once(FAILED);
    }
    nanosleep(&pause, NULL);
    return true;
}

/* Gives up requests that are not finished, and refuses changes that have not begun: so everything that was answered is
 * in the last checkpoint. */
static void stop(struct daemon *daemon, struct nn_error *err) {
    struct srv_repeat watching = {0};
    bool over = drain(daemon);
    api_set_ending(daemon->api);
    srv_repeat_begin(&watching, watch_over, daemon);
    if (srv_data_finish(&daemon->data, err)) srv_data_tell_lost(&daemon->data, daemon->api);
    srv_repeat_end(&watching);
    if (over || srv_http_close(daemon->http)) return;
    /* A node of a graph cannot be interrupted: a pass that is in one ends with the process. */
    srv_log_say("stopped with requests in flight");
    if (err->code) srv_log_say("%s", err->text);
    end_at_once(err->code ? FAILED : SERVED);
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

static struct srv_outlet output = {.fd = STDOUT_FILENO};

/* The listener's address begins with "http:" or "unix:". Its reader may be as slow as the log's. */
static void tell_address(const char *url, bool tls) {
    char line[SRV_OUTLET_LINE];
    bool secured = tls && strncmp(url, "http:", 5) == 0;
    int size =
        snprintf(line, sizeof line, "listening on %s%s\n", secured ? "https" : "", secured ? url + 4 : url);
    srv_outlet_put(&output, line, (size_t)size);
}

/* The process owns the path, because the thread that reads the file may outlive the settings. */
static int take_token_file(const struct srv_settings *settings, struct nn_error *err) {
    const char *path = settings->secret_file ? settings->secret_file : settings->token_file;
    token_file.secret = settings->secret_file != NULL;
    if (!path || (token_file.path = strdup(path))) return NN_OK;
    return nn_fail(err, NN_E_NOMEM, "no memory for a file's name");
}

static struct srv_http *serve_http(const struct srv_settings *settings, struct api *api,
                                   struct srv_listener *listener, const struct srv_tls *tls,
                                   struct nn_error *err) {
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
        .tls = *tls,
    };
    return srv_guard_check(&options.guard, err) ? NULL : srv_http_new(api, listener, &options, err);
}

static int serve(const struct srv_settings *settings, struct nn_error *err) {
    handle_signals();
    raise_file_limit();
    nn_blas_init();
    int code = nn_blas_check(err);
    struct srv_listener *listener = NULL;
    struct srv_pool *pool = NULL;
    struct srv_tls tls = {0};
    struct daemon daemon = {.settings = settings};
    if (code || take_token_file(settings, err) || srv_log_begin(err)) goto out;
    if (!srv_outlet_begin(&output, (size_t)2 * SRV_OUTLET_LINE)) {
        nn_fail(err, NN_E_INTERNAL, "the thread that writes the output cannot be started");
        goto out;
    }
    if (srv_data_open(&daemon.data, settings, err)) goto out;
    if (srv_tls_load(&tls, settings->tls_cert, settings->tls_key, settings->tls_client_ca, err)) goto out;

    listener = srv_listener_new(settings->listen, settings->token || token_file.path,
                                (mode_t)settings->socket_mode, err);
    if (!listener) goto out;
    pool = srv_pool_new((int)settings->compute_threads, (size_t)settings->queue, err);
    if (!pool) goto out;
    daemon.api = srv_world_api(settings, pool, srv_data_api(&daemon.data), err);
    if (!daemon.api || (token_file.path && srv_tokens_load(daemon.api, &token_file, err))) goto out;
    /* Probes are answered during recovery. All other requests get 503. */
    api_set_starting(daemon.api, true);
    daemon.http = serve_http(settings, daemon.api, listener, &tls, err);
    if (!daemon.http || recover(&daemon.data, daemon.api, daemon.http, err)) goto out;
    atomic_store(&ready, true);
    api_set_starting(daemon.api, false);
    tell_address(srv_listener_url(listener), tls.cert != NULL);

    wait_for_stop(&daemon);
    stop(&daemon, err);

out:
    /* During recovery only probes are served, and they read the pool's load. */
    if (!atomic_load(&ready)) {
        srv_http_free(daemon.http);
        daemon.http = NULL;
    }
    srv_pool_free(pool);
    srv_http_free(daemon.http);
    srv_data_close(&daemon.data); /* its thread may still be taking a checkpoint */
    srv_token_file_end(&token_file);
    api_free(daemon.api);
    srv_listener_free(listener);
    srv_tls_fini(&tls);
    return (int)err->code;
}

static bool is_machines_fault(int code) {
    return code == NN_E_INTERNAL || code == NN_E_NOMEM || code == NN_E_BUSY || code == NN_E_STORE ||
           code == NN_E_CORRUPT;
}

/* Descriptors 0 to 2 belong to whoever starts the process. If one is closed, the next file would get its number: the
 * journal, say, that of standard error. */
static bool reserve_standard_files(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) return false;
    return true;
}

/* gradd verify DIR: FAILED means damage; MISUSED means that the directory could not be read. */
static int verify(int argc, char *const *argv) {
    struct nn_error err = {0};
    if (argc != 3) {
        fputs("usage: gradd verify DIR\n", stderr);
        return MISUSED;
    }
    nn_blas_init();
    bool good = srv_data_verify(argv[2], stdout, &err);
    if (err.code) srv_log_say("%s", err.text);
    if (good) return SERVED;
    return err.code == NN_OK || err.code == NN_E_CORRUPT ? FAILED : MISUSED;
}

static void tell_version(void) {
    char fingerprint[SRV_FINGERPRINT];
    srv_store_fingerprint(fingerprint);
    printf("gradd %s\n%s\n", SRV_VERSION_TEXT, fingerprint);
}

int main(int argc, char **argv) {
    if (!reserve_standard_files()) return FAILED;
    if (argc > 1 && strcmp(argv[1], "verify") == 0) return verify(argc, argv);
    struct srv_settings settings;
    struct nn_error err = {0};
    enum srv_wish wish;
    int code = srv_settings_load(&settings, argc, argv, environ, &wish, &err);
    if (!code && wish == SRV_HELP)
        srv_settings_help(stdout);
    else if (!code && wish == SRV_VERSION)
        tell_version();
    else if (!code)
        code = serve(&settings, &err);
    srv_settings_fini(&settings);
    if (code) srv_log_say("%s", err.text);
    srv_log_end();
    srv_outlet_end(&output, 100); /* it was written long ago, or never will be */
    if (!code) return SERVED;
    return is_machines_fault(code) ? FAILED : MISUSED;
}
