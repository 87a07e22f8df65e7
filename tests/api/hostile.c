/* Whoever can write to the store's directory is trusted no more than a client: records and snapshots that the service
 * never wrote are refused, before they take more than a client could, and what they would have told stays untold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/journal.h"
#include "../support/service.h"

#define LAYERS                                                                                               \
    "'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 2}], 'loss': "             \
    "{'op': 'mse'}, 'optimizer': {'op': 'adam', 'lr': 0.01}, 'durability': 'journal'"
#define BATCH "'inputs': {'x': [[1, 2, 3]]}, 'targets': {'y': [[0, 1]]}"

static struct test_service service;
static struct test_journal journal;

static void run(int status, const char *request, const char *body) {
    json_decref(test_ask(&service, status, request, NULL, "%s", body));
}

static int live(void **state) {
    (void)state;
    test_journal_init(&journal);
    test_service_start_stored(&service, NULL, 0, &journal.store);
    run(201, "POST /models", "{'name': 'm', " LAYERS "}");
    run(200, "POST /backward", "{'model': 'm', 'apply': true, " BATCH "}");
    run(200, "POST /backward", "{'model': 'm', 'accumulate': true, " BATCH "}");
    test_journal_checkpoint(&journal, service.api);
    return 0;
}

static int end(void **state) {
    (void)state;
    test_service_stop(&service);
    test_journal_fini(&journal);
    return 0;
}

static json_t *parse(const char *quoted) {
    char *text = strdup(quoted);
    assert_non_null(text);
    for (char *c = text; *c; c++)
        if (*c == '\'') *c = '"';
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

/* A file or a record: the size of its head, the head, what is behind it. The head is consumed. */
static char *compose_take(json_t *head, const void *data, size_t size, size_t *whole) {
    char *text = json_dumps(head, JSON_COMPACT);
    assert_non_null(text);
    uint64_t length = strlen(text);
    *whole = 8 + length + size;
    char *bytes = malloc(*whole);
    assert_non_null(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, text, length);
    if (size) memcpy(bytes + 8 + length, data, size);
    free(text);
    json_decref(head);
    return bytes;
}

/* --- records ------------------------------------------------------------------------------------------ */

static const struct {
    const char *head, *data; /* NULL: a gradient, of the model's size */
    int code;
} records[] = {
    {"{'kind': 'request', 'method': 'POST', 'path': '/models', 'encoding': 'json', 'model': 'huge', 'drawn': "
     "['1', '2']}",
     "{'name': 'huge', 'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': "
     "600000000}]}",
     NN_E_NOMEM},
    {"{'kind': 'request', 'method': 'POST', 'path': '/models/{}/restore', 'encoding': 'json', 'model': 'm', "
     "'name': 'm', 'version': 1, 'drawn': ['1']}",
     "{}", NN_E_CORRUPT},
    {"{'kind': 'request', 'method': 'POST', 'path': '/forward', 'encoding': 'json', 'model': 'm', 'version': "
     "1, 'drawn': ['1', '2', '3']}",
     "{'model': 'm', 'retain': true, 'inputs': {'x': [[1, 2, 3]]}}", NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 9, 'scale': 1}", NULL, NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': -1, 'scale': 1}", NULL, NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1, 'lr': -1}", NULL, NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1, 'only': '1'}", NULL,
     NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1}", "short", NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1, 'time': 1700000000000, 'keys': "
     "[{'key': 'k', "
     "'members': '{}', 'location': '/\\r\\nX: y'}]}",
     NULL, NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1, 'time': 1700000000000, 'keys': "
     "[{'key': 'k', "
     "'members': '{}', 'status': 500}]}",
     NULL, NN_E_CORRUPT},
    {"{'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1, 'time': -9223372036854775808}",
     NULL, NN_OK},
    {"{'format': -1, 'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1}", NULL,
     NN_E_CORRUPT},
    {"{'format': '1', 'kind': 'gradient', 'model': 'm', 'version': 2, 'seen': 1, 'scale': 1}", NULL,
     NN_E_CORRUPT},
};

static void records_that_nobody_wrote(void **state) {
    (void)state;
    struct test_journal empty;
    struct test_service other;
    const float gradient[64] = {1, 2, 3};
    size_t trainable = 128; /* two parameters of less than 64 bytes each, at a cache line */
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) {
        struct nn_error err = {0};
        test_journal_init(&empty);
        test_service_start_stored(&other, NULL, 0, &empty.store);
        assert_int_equal(test_journal_recover(&journal, other.api, false, journal.n, &err), NN_OK);
        char *quoted = records[i].data ? strdup(records[i].data) : NULL;
        for (char *c = quoted; c && *c; c++)
            if (*c == '\'') *c = '"';
        size_t size, before = api_memory_in_use(other.api);
        char *bytes = compose_take(parse(records[i].head), quoted ? quoted : (const void *)gradient,
                                   quoted ? strlen(quoted) : trainable, &size);
        api_recover_begin(other.api);
        int code = api_recover_record(other.api, journal.n + 1, bytes, size, 0, &err);
        if (code != records[i].code) fail_msg("%s: %d, %s", records[i].head, code, err.text);
        assert_in_range(api_memory_in_use(other.api), 0, before + ((size_t)1 << 20));
        err = (struct nn_error){0};
        assert_int_equal(api_recover_end(other.api, true, &err), NN_OK);
        test_do(&other, 200, "GET /models/m", NULL);
        free(bytes);
        free(quoted);
        test_service_stop(&other);
        test_journal_fini(&empty);
    }
}

/* Requests that earlier releases took though part of them had no effect: what was answered then is carried out. */
static void what_was_taken_once_is_taken_again(void **state) {
    (void)state;
    static const struct {
        const char *head, *data;
    } taken[] = {
        {"{'kind': 'request', 'method': 'PUT', 'path': '/models/{}/parameters', 'name': 'm', 'query': "
         "'partial=true&partial=false', 'encoding': 'json', 'model': 'm', 'version': 2}",
         "{\"parameters\": {\"0.bias\": [1, 2]}}"},
        {"{'kind': 'request', 'method': 'PATCH', 'path': '/models/{}', 'name': 'm', 'encoding': 'json', "
         "'model': 'm', "
         "'version': 2}",
         "{\"optimizer\": {\"momentun\": null}, \"aggregation\": {\"x\": null, \"mode\": \"async\"}}"},
        {"{'kind': 'request', 'method': 'POST', 'path': '/backward', 'encoding': 'json', 'model': 'm', "
         "'version': 3, "
         "'read': 2, 'drawn': ['1']}",
         "{\"model\": \"m\", \"inputs\": {\"x\": [[1, 2, 3]]}, \"upstream\": {\"0\": [[1, 1]]}, "
         "\"normalizer\": 2, \"losses\": [0], \"apply\": true}"},
    };
    struct test_recovered other;
    struct nn_error err = {0};
    test_journal_init(&other.journal);
    test_service_start_stored(&other.service, NULL, 0, &other.journal.store);
    assert_int_equal(test_journal_recover(&journal, other.service.api, false, journal.n, &err), NN_OK);
    api_recover_begin(other.service.api);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        size_t size;
        char *bytes = compose_take(parse(taken[i].head), taken[i].data, strlen(taken[i].data), &size);
        if (api_recover_record(other.service.api, journal.n + 1 + i, bytes, size, 0, &err))
            fail_msg("%s: %s", taken[i].head, err.text);
        free(bytes);
    }
    assert_int_equal(api_recover_end(other.service.api, true, &err), NN_OK);
    json_t *model = test_ask(&other.service, 200, "GET /models/m", NULL, NULL);
    assert_int_equal(json_integer_value(json_object_get(model, "version")), 3);
    json_decref(model);
    test_recovered_stop(&other);
}

#define CREATION                                                                                             \
    "{\"name\": \"o\", \"inputs\": {\"x\": {\"shape\": [3]}}, \"layers\": [{\"op\": \"relu\"}], "            \
    "\"durability\": \"journal\"}"

/* A service that has begun to recover, of nothing so far. */
static void begin(struct test_recovered *other) {
    test_journal_init(&other->journal);
    test_service_start_stored(&other->service, NULL, 0, &other->journal.store);
    api_recover_begin(other->service.api);
}

static int recover_take(struct test_service *other, uint64_t seq, json_t *head, const char *data) {
    struct nn_error err = {0};
    size_t size;
    char *bytes = compose_take(head, data, strlen(data), &size);
    int code = api_recover_record(other->api, seq, bytes, size, 0, &err);
    free(bytes);
    return code;
}

/* Where a start goes on without what is damaged, a model stays as it was before its bad record, and its name is free with
 * its deletion; others go on. */
static void nothing_is_built_on_a_bad_record(void **state) {
    (void)state;
    static const char creation[] =
        "{'kind': 'request', 'method': 'POST', 'path': '/models', 'encoding': 'json', "
        "'drawn': ['1', '2', '3'], 'model': 'o', 'version': 0}";
    struct test_recovered other;
    struct nn_error err = {0};
    begin(&other);
    struct api *api = other.service.api;
    const struct test_record *own = journal.records;
    assert_int_equal(api_recover_record(api, 1, own[0].bytes, own[0].size, 0, &err), NN_OK);
    assert_int_equal(recover_take(&other.service, 2, parse(records[3].head), ""), NN_E_CORRUPT);
    for (uint64_t i = 1; i < 3; i++)
        assert_int_equal(api_recover_record(api, 2 + i, own[i].bytes, own[i].size, 0, &err), NN_OK);
    assert_int_equal(recover_take(&other.service, 5, parse(creation), CREATION), NN_OK);
    assert_int_equal(api_recover_end(api, false, &err), NN_OK);
    json_t *model = test_ask(&other.service, 200, "GET /models/m", NULL, NULL);
    assert_int_equal(json_integer_value(json_object_get(model, "version")), 0);
    assert_int_equal(json_integer_value(json_object_get(model, "accumulated")), 0);
    json_decref(model);
    test_do(&other.service, 200, "GET /models/o", NULL);
    test_recovered_stop(&other);
}

/* --- snapshots ---------------------------------------------------------------------------------------- */

static const struct {
    const char *member, *value; /* what the service wrote of it becomes this */
} snapshots[] = {
    {"name", "'../m'"},
    {"birth", "''"},
    {"incarnation", "'a\\r\\nX: yyyyyyyyy'"},
    {"incarnation", "'00000000000000010'"},
    {"version", "-1"},
    {"version", "9007199254740992"},
    {"version", "0.5"},
    {"changes", "-1"},
    {"steps", "-1"},
    {"sum", "{'scale': 1, 'count': 0, 'oldest': 0}"},
    {"sum", "{'scale': 1, 'count': 1, 'oldest': 2}"},
    {"sum", "{'scale': 1, 'count': -1, 'oldest': 0}"},
    {"staleness", "[0, 0, 0, 0, 0, 0, 0, -1]"},
    {"staleness", "[]"},
    {"stopped", "'nothing'"},
    {"format", "-1"},
    {"format", "0.5"},
    {"specification", "{}"},
    {"specification",
     "{'inputs': {'x': {'shape': [3]}}, 'layers': [{'op': 'linear', 'out_features': 1000000000}]}"},
    {"specification", "{" LAYERS ", 'name': 'm', 'dtype': 'F64'}"},
};

/* What becomes of a start with this snapshot; a refused one leaves nothing. */
static int recover_source(struct api_source *source) {
    struct test_recovered other;
    struct nn_error err = {0};
    begin(&other);
    struct api *api = other.service.api;
    int code = api_recover_model(api, source, journal.saved[0].seq, &err);
    if (code == NN_E_STORE) assert_non_null(strstr(err.text, "of format 2: a later release wrote it"));
    if (code) assert_int_equal(api_memory_in_use(api), 0);
    assert_int_equal(api_recover_end(api, true, &(struct nn_error){0}), NN_OK);
    test_do(&other.service, code ? 404 : 200, "GET /models/m", NULL);
    test_recovered_stop(&other);
    return code;
}

/* The header of the snapshot that was taken. */
static json_t *header_of(const struct test_saved *saved) {
    uint64_t length;
    memcpy(&length, saved->bytes, 8);
    json_t *header = json_loadb(saved->bytes + 8, length, 0, NULL);
    assert_non_null(header);
    return header;
}

/* The same data behind another header. */
static int recover_header_take(json_t *header) {
    const struct test_saved *saved = &journal.saved[0];
    uint64_t length;
    size_t size;
    memcpy(&length, saved->bytes, 8);
    char *bytes = compose_take(header, saved->bytes + 8 + length, saved->size - 8 - length, &size);
    struct api_source source = api_source_of(bytes, size);
    int code = recover_source(&source);
    free(bytes);
    return code;
}

/* A member of a snapshot's metadata becomes another, or stays where `member` is NULL. */
static int recover_changed(const char *member, const char *value) {
    json_t *header = header_of(&journal.saved[0]);
    json_t *metadata = json_object_get(header, "__metadata__");
    json_t *own = json_loads(json_string_value(json_object_get(metadata, "gradd")), 0, NULL);
    assert_non_null(own);
    if (member && value) json_object_set_new(own, member, parse(value));
    char *text = json_dumps(own, JSON_COMPACT);
    json_object_set_new(metadata, "gradd", json_string(text));
    free(text);
    json_decref(own);
    return recover_header_take(header);
}

static void snapshots_that_nobody_took(void **state) {
    (void)state;
    assert_int_equal(recover_changed(NULL, NULL), NN_OK);
    for (size_t i = 0; i < sizeof snapshots / sizeof snapshots[0]; i++)
        if (recover_changed(snapshots[i].member, snapshots[i].value) != NN_E_CORRUPT)
            fail_msg("%s: %s is accepted", snapshots[i].member, snapshots[i].value);
}

/* Of a later release: told by its number, and no damage. */
static void a_newer_format_is_refused_by_its_number(void **state) {
    (void)state;
    static const char keys[] = "{\"format\": 2}\n{\"key\": \"k\"}\n";
    struct test_recovered other;
    struct nn_error err = {0};
    size_t size;
    assert_int_equal(recover_changed("format", "0"), NN_OK);
    assert_int_equal(recover_changed("format", "2"), NN_E_STORE);

    begin(&other);
    struct api *api = other.service.api;
    char *bytes =
        compose_take(parse("{'format': 2, 'kind': 'gradient', 'model': 'm', 'version': 2}"), "", 0, &size);
    assert_int_equal(api_recover_record(api, 1, bytes, size, 0, &err), NN_E_STORE);
    assert_non_null(strstr(err.text, "a record of format 2: a later release wrote it"));
    free(bytes);
    err = (struct nn_error){0};
    assert_int_equal(api_recover_keys(api, keys, sizeof keys - 1, 1, &err), NN_E_STORE);
    assert_non_null(strstr(err.text, "a file of keys of format 2: a later release wrote it"));
    err = (struct nn_error){0};
    assert_int_equal(api_recover_end(api, true, &err), NN_OK);
    test_recovered_stop(&other);
}

/* What another build wrote may have led to other numbers before it; what this one wrote may not. */
static void other_numbers_of_another_build(void **state) {
    (void)state;
    static const char step[] =
        "{'format': 1, 'kind': 'request', 'method': 'PUT', 'path': '/models/{}/parameters', "
        "'name': 'm', 'query': 'partial=true', 'encoding': 'json', 'model': 'm', "
        "'version': 2, 'hash': '0000000000000001'}",
                      bias[] = "{\"parameters\": {\"0.bias\": [1, 2]}}";
    for (unsigned known = 0; known <= API_FOREIGN; known += API_FOREIGN) {
        struct test_recovered other;
        struct nn_error err = {0};
        size_t size;
        begin(&other);
        struct api *api = other.service.api;
        for (size_t i = 0; i < journal.n; i++)
            assert_int_equal(
                api_recover_record(api, i + 1, journal.records[i].bytes, journal.records[i].size, 0, &err),
                NN_OK);
        char *bytes = compose_take(parse(step), bias, sizeof bias - 1, &size);
        int code = api_recover_record(api, journal.n + 1, bytes, size, known, &err);
        assert_int_equal(code, known ? NN_OK : NN_E_CORRUPT);
        free(bytes);
        test_recovered_stop(&other);
    }
}

static json_int_t offset(json_t *tensor, size_t i) {
    return json_integer_value(json_array_get(json_object_get(tensor, "data_offsets"), i));
}

static void set_offsets(json_t *tensor, json_int_t begin, json_int_t end) {
    json_object_set_new(tensor, "data_offsets", json_pack("[I, I]", begin, end));
}

static void snapshots_of_other_tensors(void **state) {
    (void)state;
    const struct test_saved *saved = &journal.saved[0];
    json_t *header = header_of(saved), *weight = json_object_get(header, "0.weight");
    assert_non_null(weight);
    json_object_set(header, "0.weighs", weight);
    json_object_del(header, "0.weight");
    assert_int_equal(recover_header_take(header), NN_E_CORRUPT);

    header = header_of(saved);
    json_object_set_new(
        header, "more",
        json_pack("{s:s, s:[i], s:[i, i]}", "dtype", "F32", "shape", 0, "data_offsets", 0, 0));
    assert_int_equal(recover_header_take(header), NN_E_CORRUPT);

    /* In another order; each would find as many bytes as it needs. */
    header = header_of(saved);
    weight = json_object_get(header, "0.weight");
    json_t *bias = json_object_get(header, "0.bias");
    json_int_t begin = offset(weight, 0), end = offset(bias, 1), size = end - offset(bias, 0);
    assert_int_equal(offset(weight, 1), offset(bias, 0));
    set_offsets(bias, begin, begin + size);
    set_offsets(weight, begin + size, end);
    assert_int_equal(recover_header_take(header), NN_E_CORRUPT);
}

/* Bytes that end before they should, or that turn out with the last one not to be what they were. */
struct bad_source {
    struct api_source source, inner;
    size_t left; /* that are good */
};

static int read_bad(struct api_source *source, void *to, size_t size, struct nn_error *err) {
    struct bad_source *bad = source->self;
    if (size > bad->left) return nn_fail(err, NN_E_CORRUPT, "the checksum is not what it was");
    bad->left -= size;
    source->size -= size;
    return bad->inner.read(&bad->inner, to, size, err);
}

static void snapshots_that_break_off(void **state) {
    (void)state;
    const struct test_saved *saved = &journal.saved[0];
    for (size_t cut = 0; cut < saved->size; cut++) {
        struct bad_source bad = {.inner = api_source_of(saved->bytes, saved->size), .left = cut};
        bad.source = (struct api_source){&bad, saved->size, read_bad};
        assert_int_equal(recover_source(&bad.source), NN_E_CORRUPT);
        struct api_source shorter = api_source_of(saved->bytes, cut);
        assert_int_equal(recover_source(&shorter), NN_E_CORRUPT);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records_that_nobody_wrote, live, end),
        cmocka_unit_test_setup_teardown(what_was_taken_once_is_taken_again, live, end),
        cmocka_unit_test_setup_teardown(nothing_is_built_on_a_bad_record, live, end),
        cmocka_unit_test_setup_teardown(other_numbers_of_another_build, live, end),
        cmocka_unit_test_setup_teardown(snapshots_that_nobody_took, live, end),
        cmocka_unit_test_setup_teardown(a_newer_format_is_refused_by_its_number, live, end),
        cmocka_unit_test_setup_teardown(snapshots_of_other_tensors, live, end),
        cmocka_unit_test_setup_teardown(snapshots_that_break_off, live, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
