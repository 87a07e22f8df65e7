/* The process: what it prints, what it refuses to start with, and how it stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void tells(void **state) {
    (void)state;
    static struct test_run run;
    test_gradd_run(&run, FLAGS("--help"), NULL);
    assert_int_equal(run.status, 0);
    assert_non_null(strstr(run.out, "--listen"));
    assert_non_null(strstr(run.out, "--memory"));
    assert_string_equal(run.err, "");
    test_gradd_run(&run, FLAGS("--version"), NULL);
    assert_int_equal(run.status, 0);
    assert_memory_equal(run.out, "gradd ", 6);
    assert_non_null(strstr(run.out, "OpenBLAS"));
    assert_string_equal(run.err, "");
}

/* Settings that it does not start with: a word on standard error, and status 2. */
static void refuses(void **state) {
    (void)state;
    const struct {
        const char *const *flags, *const *environment;
        const char *says;
    } cases[] = {
        {FLAGS("--nonsense"), NULL, "nonsense"},
        {FLAGS("stray"), NULL, "stray"},
        {FLAGS("--listen"), NULL, "listen"},
        {FLAGS("--listen", "nowhere"), NULL, "nowhere"},
        {FLAGS("--listen", "127.0.0.1:70000"), NULL, "70000"},
        {FLAGS("--compute-threads", "0"), NULL, "compute"},
        {FLAGS("--compute-threads", "two"), NULL, "two"},
        {FLAGS("--memory", "12X"), NULL, "12X"},
        {FLAGS("--log", "loudly"), NULL, "loudly"},
        {FLAGS("--config", "/nowhere/gradd.conf"), NULL, "/nowhere/gradd.conf"},
        {FLAGS("--tls-cert", "/nowhere/cert"), NULL, "--tls-key"},
        {FLAGS("--tls-client-ca", "/nowhere/ca"), NULL, "--tls-cert"},
        {FLAGS("--tls-cert", "/nowhere/cert", "--tls-key", "/nowhere/key"), NULL, "/nowhere/cert"},
        {FLAGS("--token-file", "/nowhere/token"), NULL, "/nowhere/token"},
        {FLAGS("--allowed-hosts", "http://gradd"), NULL, "http://gradd"},
        {NULL, FLAGS("GRADD_QUEUE=none"), "none"},
        {NULL, FLAGS("GRADD_LISTEN=0.0.0.0:0"), "token"},
        {FLAGS("--listen", "0.0.0.0:0"), NULL, "token"},
        {FLAGS("--listen", "[::]:0"), NULL, "token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct test_run run;
        test_gradd_run(&run, cases[i].flags, cases[i].environment);
        if (run.status != 2 || !strstr(run.err, cases[i].says))
            fail_msg("case %zu: status %d, \"%s\", without \"%s\"", i, run.status, run.err, cases[i].says);
        assert_string_equal(run.out, "");
    }
}

/* A variable that is no setting is told of, by its name alone; the daemon goes on, here to the address that is none. */
static void warns_of_variables(void **state) {
    (void)state;
    static struct test_run run;
    test_gradd_run(&run, FLAGS("--listen", "nowhere"),
                   FLAGS("GRADD_QUUE=hidden", "GRADD_QUEUE=5", "GRADDY=1", "GRADD_=x"));
    assert_int_equal(run.status, 2);
    static const char expected[] = "gradd: GRADD_QUUE has no effect: there is no such setting; see --help\n"
                                   "gradd: GRADD_ has no effect: there is no such setting; see --help\n"
                                   "gradd: listen: \"nowhere\"";
    assert_memory_equal(run.err, expected, sizeof expected - 1);
}

/* A port that another has: status 1, as nothing is wrong with the settings. */
static void a_taken_port(void **state) {
    (void)state;
    static struct test_run run;
    char address[64];
    service_start(NULL, NULL);
    snprintf(address, sizeof address, "127.0.0.1:%d", service.port);
    test_gradd_run(&run, FLAGS("--listen", address), NULL);
    assert_int_equal(run.status, 1);
    service_is_alive();
    service_stop();
}

/* A flag wins over the environment, and that over a file. */
static void precedence(void **state) {
    (void)state;
    char path[] = "/tmp/gradd-config-XXXXXX";
    static const char text[] = "# a comment\nmax-models = 1\nmax-contexts = 0\nmax-body = 1K\nend\n";
    int fd = mkstemp(path);
    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    service_start(FLAGS("--config", path, "--max-body", "1M"),
                  FLAGS("GRADD_MAX_MODELS=3", "GRADD_MAX_BODY=2K"));
    unlink(path);
    for (int i = 0; i < 4; i++)
        ask_bytes(i < 3 ? 201 : 503, "POST", "/models",
                  (const char *[]){
                      "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'relu'}]}",
                      "{'name': 'b', 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'relu'}]}",
                      "{'name': 'c', 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'relu'}]}",
                      "{'name': 'd', 'inputs': {'x': {'shape': [1]}}, 'layers': [{'op': 'relu'}]}"}[i]);
    refused(503, "busy", NULL, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1]]}, 'retain': true}");
    char *spaces = service_keep(malloc(100001));
    memset(spaces, ' ', 100000);
    spaces[100000] = '\0';
    ask(200, "POST", "/forward", "{'model': 'm', 'inputs': {'x': [[1]]}%s}", spaces);
    service_stop();
}

/* --- stopping ----------------------------------------------------------------------------------------- */

enum { CLIENTS = 8 };

struct caller {
    pthread_t thread;
    struct http_client *client;
    const void *body;
    size_t size;
    atomic_int *begun;
    int answered, cut; /* whole answers; requests that began and got none, once one was answered */
};

/* Calls until it is told that the daemon stops, or finds it gone. */
static void *call_on(void *arg) {
    struct caller *caller = arg;
    for (;;) {
        struct http_answer answer;
        atomic_fetch_add(caller->begun, 1);
        bool whole = http_call(caller->client,
                               &(struct http_request){.method = "POST",
                                                      .path = "/backward",
                                                      .type = FILE_TYPE,
                                                      .body = caller->body,
                                                      .size = caller->size},
                               &answer);
        bool gone = !whole && (strstr((char *)answer.body, "connect to") != NULL);
        caller->answered += whole && answer.status == 200;
        caller->cut += !gone && !(whole && answer.status == 200);
        if (caller->cut) fprintf(stderr, "cut off: %d %.200s\n", answer.status, (char *)answer.body);
        char connection[256];
        bool last = !whole || strcmp(http_header(&answer, "Connection", connection), "close") == 0;
        http_answer_fini(&answer);
        if (last) return NULL;
    }
}

/* Some milliseconds of work a request: a hundred rows through three wide layers. */
static unsigned char *heavy_request(size_t *size) {
    struct test_writer writer = {0};
    enum { ROWS = 128, COLUMNS = 512 };
    float *x = service_keep(malloc(sizeof *x * ROWS * COLUMNS));
    for (int i = 0; i < ROWS * COLUMNS; i++) x[i] = (float)(i % 17) / 17;
    int64_t y[ROWS];
    for (int i = 0; i < ROWS; i++) y[i] = i % 10;
    test_write_text(&writer, "model", "m");
    test_write_f32(&writer, "inputs/x", SHAPE(ROWS, COLUMNS), x);
    test_write(&writer, "targets/y", "I64", SHAPE(ROWS), y);
    return service_keep(test_write_end(&writer, size));
}

/* SIGTERM while all of them are at it: every request that was taken is answered, and the exit is clean. */
static void stops_gracefully(void **state) {
    (void)state;
    struct caller callers[CLIENTS];
    atomic_int begun = 0;
    size_t size;
    service_start(NULL, NULL);
    ask(201, "POST", "/models",
        "{'name': 'm', 'seed': 1, 'inputs': {'x': {'shape': [512]}}, 'layers': [{'op': 'linear', "
        "'out_features': 512}, {'op': 'relu'}, {'op': 'linear', 'out_features': 512}, {'op': 'relu'}, {'op': "
        "'linear', 'out_features': 10}], 'loss': {'op': 'cross_entropy'}}");
    const unsigned char *body = heavy_request(&size);
    for (int i = 0; i < CLIENTS; i++) {
        callers[i] = (struct caller){
            .client = http_client_new(service.url), .body = body, .size = size, .begun = &begun};
        assert_non_null(callers[i].client);
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_on, &callers[i]), 0);
    }
    while (atomic_load(&begun) < 5 * CLIENTS) test_pause();
    test_daemon_signal(&service, SIGTERM);
    int answered = 0;
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(callers[i].thread, NULL);
        http_client_free(callers[i].client);
        answered += callers[i].answered;
    }
    assert_int_equal(test_daemon_wait(&service), 0);
    for (int i = 0; i < CLIENTS; i++) assert_int_equal(callers[i].cut, 0);
    assert_in_range(answered, 4 * CLIENTS, SIZE_MAX);
    service_stop();
}

static void stops_when_idle(void **state) {
    (void)state;
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        service_start(NULL, NULL);
        service_is_alive(); /* and the connection stays open */
        test_daemon_signal(&service, signals[i]);
        assert_int_equal(test_daemon_wait(&service), 0);
        assert_int_equal(raw_connect(service.port), -1);
        service_stop();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        service_test(tells),           service_test(refuses),    service_test(warns_of_variables),
        service_test(a_taken_port),    service_test(precedence), service_test(stops_gracefully),
        service_test(stops_when_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
