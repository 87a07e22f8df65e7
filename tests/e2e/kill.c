/* kill -9 at any moment, under load: eight clients train one model, each change with a key of its own, and ask until they
 * are told that it is made. In the end the model's version is the number of changes that were told of, and its numbers
 * are, to the bit, those of a daemon that was never killed and was given the same changes in the same order, each
 * gradient computed at the version that it was computed at. GRADD_TEST_KILLS: how often, 20 unless it is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../support/e2e.h"

enum { CLIENTS = 8, FEATURES = 16, ROWS = 2, MOST_UPDATES = 100000 };

#define MODEL                                                                                                \
    "\"name\": \"m\", \"seed\": 1, \"inputs\": {\"x\": {\"shape\": [16]}},"                                  \
    " \"layers\": [{\"op\": \"linear\", \"out_features\": 32}, {\"op\": \"relu\"},"                          \
    "              {\"op\": \"dropout\", \"p\": 0.25}, {\"op\": \"batch_norm\"},"                            \
    "              {\"op\": \"linear\", \"out_features\": 1}],"                                              \
    " \"loss\": {\"op\": \"mse\"}, \"optimizer\": {\"op\": \"adam\", \"lr\": 0.001}}"

/* --- what is shared ----------------------------------------------------------------------------------- */

/* A change that was told of as made. */
struct update {
    char *body;  /* of the request, without what makes it a change: it ends before its brace */
    bool pushed; /* a gradient that the client made; otherwise the service computes it */
    int64_t version, applied;
    char *gradient; /* of one that was not, while the other daemon is fed */
};

static struct {
    pthread_mutex_t lock;
    char url[64]; /* of the daemon that lives now */
    struct update updates[MOST_UPDATES];
    size_t n;
    int64_t replayed, refused; /* answers that came again; pushes that met another incarnation */
    char wrong[512];           /* what a client found amiss */
    atomic_bool stop;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void amiss(const char *what, const struct http_answer *answer) {
    pthread_mutex_lock(&shared.lock);
    if (!shared.wrong[0])
        snprintf(shared.wrong, sizeof shared.wrong, "%s: %d %.300s", what, answer->status,
                 (char *)answer->body);
    pthread_mutex_unlock(&shared.lock);
    atomic_store(&shared.stop, true);
}

/* --- a client ------------------------------------------------------------------------------------------ */

struct trainer {
    int id, count;
    uint64_t random;
    char url[64];
    struct http_client *http;
    char incarnation[32]; /* as it last heard */
    int64_t version;
};

static double draw(struct trainer *trainer) { /* multiples of 1/64 in -2..2 */
    trainer->random = trainer->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return ((int)(trainer->random >> 56) - 128) / 64.0;
}

/* To whoever serves now; false: nobody does. */
static bool call(struct trainer *trainer, const struct http_request *request, struct http_answer *answer) {
    pthread_mutex_lock(&shared.lock);
    if (!trainer->http || strcmp(trainer->url, shared.url) != 0) {
        snprintf(trainer->url, sizeof trainer->url, "%s", shared.url);
        http_client_free(trainer->http);
        trainer->http = http_client_new(trainer->url);
    }
    pthread_mutex_unlock(&shared.lock);
    *answer = (struct http_answer){0};
    return trainer->http && http_call(trainer->http, request, answer);
}

static int64_t integer_in(const json_t *json, const char *name) {
    return json_integer_value(json_object_get(json, name));
}

static json_t *read_answer(const struct http_answer *answer) {
    return answer->size ? json_loadb((char *)answer->body, answer->size, 0, NULL) : NULL;
}

/* Until somebody answers. */
static void pull(struct trainer *trainer) {
    const struct http_request request = {.method = "GET", .path = "/models/m/parameters?names=4.bias"};
    struct http_answer answer;
    for (bool done = false; !done; http_answer_fini(&answer)) {
        done = call(trainer, &request, &answer) && answer.status == 200;
        if (!done) test_pause();
        if (!done) continue;
        json_t *json = read_answer(&answer);
        const char *incarnation = json_string_value(json_object_get(json, "incarnation"));
        snprintf(trainer->incarnation, sizeof trainer->incarnation, "%s", incarnation ? incarnation : "");
        trainer->version = integer_in(json, "version");
        json_decref(json);
    }
}

/* Text as it grows. */
struct text {
    char *data;
    size_t size;
    FILE *file;
};

static FILE *text_begin(struct text *text) {
    *text = (struct text){0};
    text->file = open_memstream(&text->data, &text->size);
    if (!text->file) abort();
    return text->file;
}

static char *text_end(struct text *text) {
    if (fclose(text->file)) abort();
    return text->data;
}

static char *describe_backward(struct trainer *trainer) {
    struct text text;
    FILE *to = text_begin(&text);
    fprintf(to, "{\"model\": \"m\", \"seed\": %d, \"inputs\": {\"x\": [[",
            1000000 * (trainer->id + 1) + trainer->count);
    for (int i = 0; i < ROWS * FEATURES; i++)
        fprintf(to, "%s%g", i == 0 ? "" : i % FEATURES ? "," : "],[", draw(trainer));
    fprintf(to, "]]}, \"targets\": {\"y\": [");
    for (int i = 0; i < ROWS; i++) fprintf(to, "%s[%g]", i ? "," : "", draw(trainer));
    fprintf(to, "]}");
    return text_end(&text);
}

static char *describe_push(struct trainer *trainer) {
    struct text text;
    FILE *to = text_begin(&text);
    fprintf(to, "{\"gradients\": {\"0.bias\": [");
    for (int i = 0; i < 2 * FEATURES; i++) fprintf(to, "%s%g", i ? "," : "", draw(trainer));
    fprintf(to, "]}");
    return text_end(&text);
}

static char *complete(const struct update *update, const char *incarnation, int64_t version) {
    struct text text;
    FILE *to = text_begin(&text);
    if (update->pushed)
        fprintf(to, "%s, \"incarnation\": \"%s\", \"version\": %lld}", update->body, incarnation,
                (long long)version);
    else
        fprintf(to, "%s, \"apply\": true}", update->body);
    return text_end(&text);
}

static const char *path_of(const struct update *update) {
    return update->pushed ? "/models/m/gradients" : "/backward";
}

/* Consumes the update's body. */
static void accept(struct update *update, const json_t *answer) {
    update->version = integer_in(answer, "version");
    update->applied = integer_in(answer, "applied_version");
    pthread_mutex_lock(&shared.lock);
    shared.replayed += json_is_true(json_object_get(answer, "replayed"));
    if (shared.n < MOST_UPDATES) shared.updates[shared.n++] = *update;
    pthread_mutex_unlock(&shared.lock);
}

/* Until it is known what became of it. A push may be too late: its incarnation is gone. */
static void train_once(struct trainer *trainer) {
    struct update update = {.pushed = trainer->count % 4 == 3};
    char key[32];
    snprintf(key, sizeof key, "%d-%d", trainer->id, trainer->count);
    update.body = update.pushed ? describe_push(trainer) : describe_backward(trainer);
    if (update.pushed) pull(trainer);
    char *body = complete(&update, trainer->incarnation, trainer->version);
    const struct http_request request = {.method = "POST",
                                         .path = path_of(&update),
                                         .type = JSON_TYPE,
                                         .key = key,
                                         .body = body,
                                         .size = strlen(body)};
    for (bool known = false; !known;) {
        struct http_answer answer;
        call(trainer, &request, &answer);
        json_t *json = read_answer(&answer);
        known = true;
        if (answer.status == 200 && json) {
            if (integer_in(json, "durable_version") < integer_in(json, "applied_version") &&
                !json_is_true(json_object_get(json, "replayed")))
                amiss("answered before it is durable", &answer);
            accept(&update, json);
        } else if (update.pushed && answer.status == 412) {
            pthread_mutex_lock(&shared.lock);
            shared.refused++;
            pthread_mutex_unlock(&shared.lock);
            free(update.body);
        } else if (answer.status == 0 || answer.status == 409 || answer.status == 503) {
            known = false;
            test_pause();
        } else {
            amiss("a change", &answer);
            free(update.body);
        }
        json_decref(json);
        http_answer_fini(&answer);
    }
    free(body);
}

static void *train(void *arg) {
    struct trainer *trainer = arg;
    for (; !atomic_load(&shared.stop); trainer->count++) train_once(trainer);
    http_client_free(trainer->http);
    return NULL;
}

/* --- the killing --------------------------------------------------------------------------------------- */

static char directory[64];

static void remove_directory(void) {
    DIR *dir = opendir(directory);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        unlink(path);
    }
    if (dir) closedir(dir);
    rmdir(directory);
}

static void start_stored(struct test_daemon *daemon) {
    test_daemon_start(daemon,
                      (const char *const[]){"--data", directory, "--key-ttl", "86400",
                                            "--checkpoint-interval", "1", "--journal-size", "1M", NULL},
                      NULL);
    pthread_mutex_lock(&shared.lock);
    snprintf(shared.url, sizeof shared.url, "%s", daemon->url);
    pthread_mutex_unlock(&shared.lock);
}

static void sleep_ms(long ms) {
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int kills_asked(void) {
    const char *asked = getenv("GRADD_TEST_KILLS");
    long n = asked ? strtol(asked, NULL, 10) : 0;
    return n > 0 ? (int)n : 20;
}

/* One that answers what is asked of it, or fails the test. */
static json_t *ask_daemon(struct http_client *http, int status, const char *method, const char *path,
                          const char *body) {
    struct http_answer answer;
    http_call(http,
              &(struct http_request){.method = method,
                                     .path = path,
                                     .type = body ? JSON_TYPE : NULL,
                                     .body = body,
                                     .size = body ? strlen(body) : 0},
              &answer);
    if (answer.status != status)
        fail_msg("%s %s: %d: %.500s", method, path, answer.status, (char *)answer.body);
    json_t *json = read_answer(&answer);
    assert_non_null(json);
    http_answer_fini(&answer);
    return json;
}

/* Lives of between nothing and a third of a second, and then the end of one that is let finish. */
static void train_and_kill(struct test_daemon *daemon) {
    struct trainer trainers[CLIENTS] = {0};
    pthread_t threads[CLIENTS];
    unsigned seed = (unsigned)time(NULL);
    int kills = kills_asked();
    for (int i = 0; i < CLIENTS; i++) {
        trainers[i].id = i;
        trainers[i].random = (uint64_t)i * 77 + 5;
        assert_int_equal(pthread_create(&threads[i], NULL, train, &trainers[i]), 0);
    }
    for (int i = 0; i < kills && !atomic_load(&shared.stop); i++) {
        sleep_ms(rand_r(&seed) % 330);
        test_daemon_signal(daemon, SIGKILL);
        assert_int_equal(test_daemon_wait(daemon), 128 + SIGKILL);
        start_stored(daemon);
    }
    sleep_ms(100);
    atomic_store(&shared.stop, true);
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], NULL);
    if (shared.wrong[0]) fail_msg("%s", shared.wrong);
    print_message("%d kills, %zu changes, %lld told again, %lld pushes too late\n", kills, shared.n,
                  (long long)shared.replayed, (long long)shared.refused);
}

/* --- a daemon that was never killed -------------------------------------------------------------------- */

static int by_applied(const void *a, const void *b) {
    const struct update *x = a, *y = b;
    return (x->applied > y->applied) - (x->applied < y->applied);
}

/* Each change made one version, and none made two. */
static void check_versions(const json_t *model) {
    qsort(shared.updates, shared.n, sizeof shared.updates[0], by_applied);
    for (size_t i = 0; i < shared.n; i++) {
        assert_int_equal(shared.updates[i].applied, i + 1);
        assert_in_range(shared.updates[i].version, 0, i);
    }
    assert_int_equal(integer_in(model, "version"), shared.n);
}

/* The gradients of what was computed at this version and applied to a later one. */
static void compute_gradients(struct http_client *http, size_t version) {
    for (size_t i = version + 1; i < shared.n && i < version + 64; i++) {
        struct update *update = &shared.updates[i];
        if (update->pushed || update->version != (int64_t)version) continue;
        struct text text;
        fprintf(text_begin(&text), "%s}", update->body);
        char *body = text_end(&text);
        json_t *json = ask_daemon(http, 200, "POST", "/backward", body);
        assert_int_equal(integer_in(json, "version"), version);
        free(body);
        update->gradient = json_dumps(json, JSON_REAL_PRECISION(17));
        json_decref(json);
    }
}

static void feed(struct http_client *http) {
    json_t *model = ask_daemon(http, 201, "POST", "/models", "{" MODEL);
    char incarnation[32];
    snprintf(incarnation, sizeof incarnation, "%s", json_string_value(json_object_get(model, "incarnation")));
    json_decref(model);
    for (size_t i = 0; i < shared.n; i++) {
        struct update *update = &shared.updates[i];
        compute_gradients(http, i);
        char *body =
            update->gradient ? strdup(update->gradient) : complete(update, incarnation, update->version);
        assert_true(update->gradient || update->pushed || update->version == (int64_t)i);
        json_t *json =
            ask_daemon(http, 200, "POST", update->gradient ? "/models/m/gradients" : path_of(update), body);
        assert_int_equal(integer_in(json, "applied_version"), i + 1);
        json_decref(json);
        free(update->gradient);
        free(body);
    }
}

/* Bytes of all tensors; a file's header tells of the incarnation. */
static unsigned char *tensors_of(struct http_client *http, const char *path, size_t *size) {
    struct http_answer answer;
    uint64_t header = 0;
    http_call(http, &(struct http_request){.method = "GET", .path = path, .accept = FILE_TYPE}, &answer);
    assert_int_equal(answer.status, 200);
    memcpy(&header, answer.body, sizeof header);
    *size = answer.size - sizeof header - header;
    unsigned char *bytes = malloc(*size);
    assert_non_null(bytes);
    memcpy(bytes, answer.body + sizeof header + header, *size);
    http_answer_fini(&answer);
    return bytes;
}

static void check_same(struct http_client *a, struct http_client *b, const char *path) {
    size_t size[2];
    unsigned char *bytes[] = {tensors_of(a, path, &size[0]), tensors_of(b, path, &size[1])};
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(bytes[0], bytes[1], size[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void nothing_is_lost_and_nothing_made_twice(void **state) {
    (void)state;
    struct test_daemon killed, fresh;
    start_stored(&killed);
    struct http_client *http = http_client_new(killed.url);
    json_decref(ask_daemon(http, 201, "POST", "/models", "{\"durability\": \"journal\", " MODEL));
    http_client_free(http);
    train_and_kill(&killed);

    test_daemon_start(&fresh, NULL, NULL);
    struct http_client *of_killed = http_client_new(killed.url), *of_fresh = http_client_new(fresh.url);
    json_t *model = ask_daemon(of_killed, 200, "GET", "/models/m", NULL);
    check_versions(model);
    json_decref(model);
    feed(of_fresh);
    check_same(of_killed, of_fresh, "/models/m/parameters");
    check_same(of_killed, of_fresh, "/models/m/optimizer");
    http_client_free(of_killed);
    http_client_free(of_fresh);
    assert_int_equal(test_daemon_stop(&killed), 0);
    assert_int_equal(test_daemon_stop(&fresh), 0);
}

static int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/gradd-kill-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int drop_directory(void **state) {
    (void)state;
    for (size_t i = 0; i < shared.n; i++) free(shared.updates[i].body);
    remove_directory();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_lost_and_nothing_made_twice)};
    return cmocka_run_group_tests(tests, make_directory, drop_directory);
}
