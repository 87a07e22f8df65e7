/* json.c - numbers in and out of JSON: ns a number, and beside it what jansson alone takes for the same array.
 *
 * Prints a line a case: its name, ours, jansson's, and ours over jansson's; medians of rounds in which all cases
 * take turns. "in" is text to tensor, "out" tensor to text, through the functions of api/; "forward" and
 * "backward" are whole requests through api_handle, with safetensors on their other side, so that JSON is all
 * but the whole of their time. Usage: json [ROUNDS] */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "../api/api.h"
#include "../api/tensor.h"
#include "step.h"

enum { ROWS = 64, N = ROWS * FEATURES, MAX_ROUNDS = 101 };

static const struct nn_shape shape = {2, {ROWS, FEATURES}};

/* --- the numbers ------------------------------------------------------------------------------------ */

static float uniform(void) { /* in (0, 1) */
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)((state >> 8) + 1) * 0x1p-25F;
}

static double fraction(void) { return (double)uniform(); }
static double normal(void) { return (double)(sqrtf(-2 * logf(uniform())) * cosf(6.2831855F * uniform())); }
static double gradient(void) { return (double)((float)normal() * 0x1p-16F); }
static double pixel(void) { return (double)(int)(uniform() * 256); }
static double any(void) { return (double)(ldexpf(uniform() - 0.5F, (int)(uniform() * 200) - 100)); }

static const struct kind {
    const char *name;
    double (*draw)(void);
    const char *format; /* of the text that comes in; NULL: the shortest, as our answers have it */
} kinds[] = {
    {"fraction", fraction, "%.9g"},         /* 0.123456791 */
    {"fraction-shortest", fraction, NULL},  /* 0.12345679 */
    {"fraction-double", fraction, "%.17g"}, /* 0.12345679104328156, as Python writes a float32 */
    {"normal", normal, "%.9g"},             /* -1.23456788 */
    {"gradient-shortest", gradient, NULL},  /* -1.2345679e-6 */
    {"any-exponent", any, "%.9g"},          /* 1.23456794e+18 */
    {"integer", pixel, "%.0f"},             /* 123 */
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct data {
    float values[N];
    char *text; /* of the values, as they come in */
    size_t size;
    json_t *tree;
};

static char *write_array(const struct kind *kind, const float *x, size_t *size) {
    char *text = NULL;
    if (!kind->format) {
        struct api_text out = {0};
        api_text_array(&out, x, NN_F32, &shape);
        *size = out.size;
        return need(out.data);
    }
    FILE *f = need(open_memstream(&text, size));
    for (int i = 0; i < N; i++) {
        fputs(i % FEATURES ? ", " : i ? "], [" : "[[", f);
        fprintf(f, kind->format, (double)x[i]);
    }
    fputs("]]", f);
    fclose(f);
    return text;
}

static json_t *make_tree(const float *x) {
    json_t *tree = need(json_array());
    for (int i = 0; i < N; i++) {
        if (i % FEATURES == 0) json_array_append_new(tree, need(json_array()));
        json_array_append_new(json_array_get(tree, (size_t)(i / FEATURES)), need(json_real((double)x[i])));
    }
    return tree;
}

static void fill(struct data *data, const struct kind *kind) {
    for (int i = 0; i < N; i++) data->values[i] = (float)kind->draw();
    data->text = write_array(kind, data->values, &data->size);
    data->tree = make_tree(data->values);
}

/* --- the functions ---------------------------------------------------------------------------------- */

static void check(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "json: %s\n", what);
    exit(EXIT_FAILURE);
}

static void read_ours(void *arg) {
    static float out[N];
    const struct data *data = arg;
    struct nn_error err = {0};
    struct api_tensor tensor = {.json = data->text};
    tensor.json_size = api_json_array_scan(data->text, data->size, &tensor.shape, &err);
    check(tensor.json_size && !api_tensor_convert(&tensor, NN_F32, out, &err), err.text);
    check(memcmp(out, data->values, sizeof out) == 0, "a number did not come in as it was");
}

static void read_jansson(void *arg) {
    const struct data *data = arg;
    json_t *tree = json_loadb(data->text, data->size, 0, NULL);
    check(tree, "jansson did not read an array");
    json_decref(tree);
}

static void write_ours(void *arg) {
    const struct data *data = arg;
    struct api_text text = {0};
    api_text_array(&text, data->values, NN_F32, &shape);
    check(!text.failed, "memory is out");
    api_text_free(&text);
}

static void write_jansson(void *arg) {
    const struct data *data = arg;
    char *text = json_dumps(data->tree, JSON_COMPACT);
    check(text, "jansson did not write an array");
    free(text);
}

/* --- whole requests --------------------------------------------------------------------------------- */

struct call {
    struct api *api;
    struct api_head head;
    char *body;
    size_t size;
};

static struct api_response *ask(const struct call *call) {
    struct api_response *response = api_handle(call->api, &call->head, call->body, call->size);
    check(response, "no answer");
    if (response->status >= 300) fwrite(response->segments[0].data, 1, response->segments[0].size, stderr);
    check(response->status < 300, "the service refused");
    return response;
}

static void call(void *arg) { api_response_free(ask(arg)); }

static int64_t no_time(void *self) { return (void)self, 0; }
static bool no_entropy(void *self, void *buffer, size_t size) {
    return (void)self, memset(buffer, 1, size), true;
}

static struct api *service(void) {
    static char model[] =
        "{\"name\": \"m\", \"inputs\": {\"x\": {\"shape\": [784]}}, \"seed\": 1, \"layers\": "
        "[{\"op\": \"relu\", \"name\": \"y\"}], \"loss\": {\"op\": \"mse\"}}";
    struct api_settings settings = {.limits = api_default_limits};
    struct api_env env = {.now_ms = no_time, .entropy = no_entropy};
    struct nn_error err = {0};
    struct call make = {.api = need(api_new(&settings, &env, &err)),
                        .head = {.method = "POST", .path = "/models", .content_type = "application/json"},
                        .body = model,
                        .size = strlen(model)};
    call(&make);
    return make.api;
}

/* A request with the array in JSON, answered in safetensors, or the other way round. */
static struct call request(struct api *api, const char *path, const char *rest, const struct data *x,
                           const struct data *y, bool json_in) {
    struct call call = {.api = api, .head = {.method = "POST", .path = path}};
    FILE *f = need(open_memstream(&call.body, &call.size));
    call.head.content_type = json_in ? "application/json" : "application/safetensors";
    call.head.accept = json_in ? "application/safetensors" : "application/json";
    if (json_in) {
        fprintf(f, "{\"model\": \"m\", \"seed\": 1, %s \"inputs\": {\"x\": %.*s}", rest, (int)x->size,
                x->text);
        if (y) fprintf(f, ", \"targets\": {\"y\": %.*s}", (int)y->size, y->text);
        fputs("}", f);
    } else {
        static char header[512];
        size_t bytes = sizeof x->values;
        int n = snprintf(header, sizeof header,
                         "{\"__metadata__\": {\"model\": \"m\", \"seed\": \"1\"%s},\"inputs/x\": {\"dtype\": "
                         "\"F32\", \"shape\": [%d, %d], \"data_offsets\": [0, %zu]}",
                         rest, ROWS, FEATURES, bytes);
        if (y)
            n +=
                snprintf(header + n, sizeof header - (size_t)n,
                         ", \"targets/y\": {\"dtype\": \"F32\", \"shape\": [%d, %d], \"data_offsets\": [%zu, "
                         "%zu]}",
                         ROWS, FEATURES, bytes, 2 * bytes);
        n += snprintf(header + n, sizeof header - (size_t)n, "}");
        uint64_t size = (uint64_t)n;
        fwrite(&size, sizeof size, 1, f);
        fwrite(header, 1, (size_t)n, f);
        fwrite(x->values, 1, bytes, f);
        if (y) fwrite(y->values, 1, bytes, f);
    }
    fclose(f);
    return call;
}

/* --- measuring -------------------------------------------------------------------------------------- */

struct side {
    void (*run)(void *arg);
    void *arg;
    int numbers;
    double ns[MAX_ROUNDS];
};

static void measure(struct side *side, int round) {
    double begin = seconds();
    side->run(side->arg);
    side->ns[round] = (seconds() - begin) * 1e9 / side->numbers;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct side *side, int rounds) {
    qsort(side->ns, (size_t)rounds, sizeof *side->ns, by_size);
    return side->ns[rounds / 2];
}

struct pair {
    char name[64];
    struct side ours, jansson;
};

int main(int argc, char **argv) {
    static struct data data[KINDS];
    static struct pair pairs[2 * KINDS + 4];
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 31, n = 0;
    if (argc > 2 || rounds < 1 || rounds > MAX_ROUNDS) {
        fputs("usage: json [ROUNDS]\n", stderr);
        return EXIT_FAILURE;
    }
    for (int i = 0; i < KINDS; i++) {
        struct pair *in = &pairs[n++], *out = &pairs[KINDS + i];
        struct data *d = &data[i];
        fill(d, &kinds[i]);
        *in = (struct pair){.ours = {read_ours, d, N, {0}}, .jansson = {read_jansson, d, N, {0}}};
        *out = (struct pair){.ours = {write_ours, d, N, {0}}, .jansson = {write_jansson, d, N, {0}}};
        snprintf(in->name, sizeof in->name, "in %s", kinds[i].name);
        snprintf(out->name, sizeof out->name, "out %s", kinds[i].name);
    }
    n += KINDS;
    struct api *api = service();
    struct data *x = &data[0], *y = &data[3];
    struct call calls[] = {
        request(api, "/forward", "", x, NULL, true),
        request(api, "/backward", "\"return\": [],", x, y, true),
        request(api, "/forward", "", x, NULL, false),
        request(api, "/backward", ", \"return\": \"[\\\"inputs\\\"]\"", x, y, false),
    };
    static const char *const names[] = {"forward in", "backward in", "forward out", "backward out"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        int numbers = i == 1 ? 2 * N : N; /* of which "backward in" has two arrays */
        struct side jansson = {i < 2 ? read_jansson : write_jansson, x, N, {0}};
        pairs[n] = (struct pair){.ours = {call, &calls[i], numbers, {0}}, .jansson = jansson};
        snprintf(pairs[n].name, sizeof pairs[n].name, "%s", names[i]);
        n++;
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < n; i++) {
            measure(&pairs[i].ours, round);
            measure(&pairs[i].jansson, round);
        }
    for (int i = 0; i < n; i++) {
        double ours = median(&pairs[i].ours, rounds), jansson = median(&pairs[i].jansson, rounds);
        printf("%-22s %7.1f %7.1f %6.3f\n", pairs[i].name, ours, jansson, ours / jansson);
    }
    for (int i = 0; i < KINDS; i++) {
        free(data[i].text);
        json_decref(data[i].tree);
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) free(calls[i].body);
    api_free(api);
    return EXIT_SUCCESS;
}
