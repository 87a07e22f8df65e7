/* metrics.c - see metrics.h. The metrics are the rows of metrics.def. */
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../store.h"
#include "service.h"

#define NS_PER_S INT64_C(1000000000)

/* The upper bounds of the histogram of durations. */
static const struct {
    int64_t most_ns;
    const char *le;
} bounds[] = {
    {100000, "0.0001"},  {250000, "0.00025"},       {500000, "0.0005"},  {1000000, "0.001"},
    {2500000, "0.0025"}, {5000000, "0.005"},        {10000000, "0.01"},  {25000000, "0.025"},
    {50000000, "0.05"},  {100000000, "0.1"},        {250000000, "0.25"}, {500000000, "0.5"},
    {NS_PER_S, "1"},     {5 * NS_PER_S / 2, "2.5"}, {5 * NS_PER_S, "5"}, {10 * NS_PER_S, "10"},
    {INT64_MAX, "+Inf"},
};
enum { BOUNDS = sizeof bounds / sizeof bounds[0] };

enum { FIRST_CLASS = 2, CLASSES = 4 }; /* statuses of 2xx to 5xx */

/* The ways in which a round ends. The last row is every other error. */
static const struct {
    int code;
    const char *name;
} outcomes[] = {{NN_OK, "applied"},
                {NN_E_ROUND_FAILED, "no-quorum"},
                {NN_E_STALE, "overtaken"},
                {NN_E_NOT_FOUND, "deleted"},
                {NN_CODE_COUNT, "failed"}};
enum { OUTCOMES = sizeof outcomes / sizeof outcomes[0] };

/* The buckets of how many versions old an applied gradient was: the greatest age, and the name. */
static const struct {
    uint64_t most;
    const char *name;
} ages[API_STALENESS_BUCKETS] = {{0, "0"},   {1, "1"},     {2, "2"},      {4, "3-4"},
                                 {8, "5-8"}, {16, "9-16"}, {32, "17-32"}, {UINT64_MAX, "33-"}};

int api_staleness_bucket(uint64_t staleness) {
    int i = 0;
    while (staleness > ages[i].most) i++;
    return i;
}

const char *api_staleness_name(int bucket) { return ages[bucket].name; }

/* The labels of each route, in the order of routes.def. */
static const struct {
    const char *method, *path;
} labels[API_ROUTES + 1] = {
#define API_ROUTE(method, path, ...) {method, path},
#include "routes.def"
#undef API_ROUTE
    {"other", "other"},
};

typedef atomic_uint_fast64_t counter;

struct of_route {
    counter classes[CLASSES];
    counter durations[BOUNDS], sum_ns;
};

struct api_metrics {
    struct of_route routes[API_ROUTES + 1]; /* the last row: requests without a route */
    counter refusals[NN_CODE_COUNT];
    counter bytes_in, bytes_out;
    counter versions;
    counter staleness[API_STALENESS_BUCKETS], sum_staleness;
    counter rounds[OUTCOMES];
};

struct api_metrics *api_metrics_new(void) {
    return calloc(1, sizeof(struct api_metrics));
}
void api_metrics_free(struct api_metrics *metrics) { free(metrics); }

/* --- counting --------------------------------------------------------------------------------------- */

static void count(counter *of, uint64_t more) { atomic_fetch_add_explicit(of, more, memory_order_relaxed); }

static uint64_t told(const counter *of) {
    return atomic_load_explicit((counter *)(uintptr_t)of, memory_order_relaxed);
}

void api_count_answer(struct api_request *request, const struct api_response *response) {
    struct api_metrics *metrics = request->api->metrics;
    enum nn_code code = response ? request->err.code : NN_E_NOMEM;
    int status = response ? response->status : nn_code_info(code)->status;
    int64_t ns = api_now_ns(request->api) - request->admitted_ns;
    struct of_route *route = &metrics->routes[request->route ? request->route->index : API_ROUTES];
    int bound = 0, class = status / 100 - FIRST_CLASS;
    while (ns > bounds[bound].most_ns) bound++;
    count(&route->classes[class], 1);
    count(&route->durations[bound], 1);
    count(&route->sum_ns, ns > 0 ? (uint64_t)ns : 0);
    if (status >= 400) count(&metrics->refusals[code], 1);
    if (response) count(&metrics->bytes_out, response->size);
}

void api_count_body(struct api *api, size_t size) { count(&api->metrics->bytes_in, size); }

void api_count_applied(struct api *api, uint64_t staleness) {
    if (atomic_load(&api->recovering)) return; /* the change was counted before the restart */
    count(&api->metrics->staleness[api_staleness_bucket(staleness)], 1);
    count(&api->metrics->sum_staleness, staleness);
}

void api_count_version(struct api *api) {
    if (!atomic_load(&api->recovering)) count(&api->metrics->versions, 1);
}

void api_count_round(struct api *api, int code) {
    int i = 0;
    while (i < OUTCOMES - 1 && outcomes[i].code != code) i++;
    count(&api->metrics->rounds[i], 1);
}

/* --- the page ------------------------------------------------------------------------------------------ */

/* Values that are read when the page is written. */
struct moment {
    struct api_load load;
    struct api_store_status store; /* zeros without a store */
    int models, contexts, keys;
};

struct page {
    struct api *api;
    const struct metric *metric; /* the metric whose lines are being written */
    struct moment now;
    struct api_text text;
};

enum type { COUNTER, GAUGE, HISTOGRAM };
static const char *const type_names[] = {"counter", "gauge", "histogram"};

struct metric {
    const char *name;
    enum type type;
    const char *labels;
    void (*put)(struct page *page);
    const char *help;
};

/* Writes a label and its value; backslashes, quotes and line ends are escaped. */
static void put_label(struct page *page, bool first, const char *name, size_t size, const char *value) {
    struct api_text *text = &page->text;
    api_text_puts(text, first ? "{" : ",");
    api_text_add(text, name, size);
    api_text_puts(text, "=\"");
    for (; *value; value++) {
        if (*value == '\\' || *value == '"') api_text_puts(text, "\\");
        api_text_add(text, *value == '\n' ? "\\n" : value, *value == '\n' ? 2 : 1);
    }
    api_text_puts(text, "\"");
}

/* Writes a line. `values` are the values of the metric's labels, NULL if it has none; `le` is a bucket's bound, or
 * NULL. */
static void put_line(struct page *page, const char *suffix, const char *const *values, const char *le,
                     const char *number) {
    const char *label = page->metric->labels;
    bool first = true;
    api_text_puts(&page->text, page->metric->name);
    api_text_puts(&page->text, suffix);
    for (; values && *label; first = false) {
        size_t size = strcspn(label, " ");
        put_label(page, first, label, size, *values++);
        label += size + strspn(label + size, " ");
    }
    if (le) put_label(page, first, "le", 2, le);
    api_text_puts(&page->text, le || !first ? "} " : " ");
    api_text_puts(&page->text, number);
    api_text_puts(&page->text, "\n");
}

static void put_number(struct page *page, const char *suffix, const char *const *values, const char *le,
                       uint64_t number) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    put_line(page, suffix, values, le, text);
}

static void put(struct page *page, uint64_t number) { put_number(page, "", NULL, NULL, number); }

static void put_seconds(struct page *page, const char *suffix, const char *const *values, uint64_t ns) {
    char seconds[40];
    snprintf(seconds, sizeof seconds, "%" PRIu64 ".%09" PRIu64, ns / NS_PER_S, ns % NS_PER_S);
    put_line(page, suffix, values, NULL, seconds);
}

static void put_build(struct page *page) {
    const char *version = page->api->settings.version;
    const char *const values[] = {version ? version : "", nn_blas_name()};
    put_number(page, "", values, NULL, 1);
}

static void put_requests(struct page *page) {
    static const char *const classes[CLASSES] = {"2xx", "3xx", "4xx", "5xx"};
    for (int i = 0; i <= API_ROUTES; i++)
        for (int class = 0; class < CLASSES; class ++) {
            const char *const values[] = {labels[i].method, labels[i].path, classes[class]};
            put_number(page, "", values, NULL, told(&page->api->metrics->routes[i].classes[class]));
        }
}

static void put_durations_of(struct page *page, const char *method, const char *path,
                             const struct of_route *route) {
    const char *const values[] = {method, path};
    uint64_t sum = 0;
    for (int i = 0; i < BOUNDS; i++)
        put_number(page, "_bucket", values, bounds[i].le, sum += told(&route->durations[i]));
    put_seconds(page, "_sum", values, told(&route->sum_ns));
    put_number(page, "_count", values, NULL, sum);
}

static void put_durations(struct page *page) {
    const struct of_route *routes = page->api->metrics->routes;
    for (int i = 0; i <= API_ROUTES; i++)
        put_durations_of(page, labels[i].method, labels[i].path, &routes[i]);
}

static void put_refusals(struct page *page) {
    for (int code = NN_OK + 1; code < NN_CODE_COUNT; code++) {
        const char *slug = nn_code_info((enum nn_code)code)->slug;
        put_number(page, "", &slug, NULL, told(&page->api->metrics->refusals[code]));
    }
}

static void put_staleness(struct page *page) {
    const struct api_metrics *metrics = page->api->metrics;
    uint64_t sum = 0;
    for (int i = 0; i < API_STALENESS_BUCKETS; i++) {
        char le[24] = "+Inf";
        if (i < API_STALENESS_BUCKETS - 1) snprintf(le, sizeof le, "%" PRIu64, ages[i].most);
        put_number(page, "_bucket", NULL, le, sum += told(&metrics->staleness[i]));
    }
    put_number(page, "_sum", NULL, NULL, told(&metrics->sum_staleness));
    put_number(page, "_count", NULL, NULL, sum);
}

static void put_rounds(struct page *page) {
    for (int i = 0; i < OUTCOMES; i++)
        put_number(page, "", &outcomes[i].name, NULL, told(&page->api->metrics->rounds[i]));
}

static void put_bytes_in(struct page *page) { put(page, told(&page->api->metrics->bytes_in)); }
static void put_bytes_out(struct page *page) { put(page, told(&page->api->metrics->bytes_out)); }
static void put_in_flight(struct page *page) { put(page, (uint64_t)api_in_flight(page->api)); }
static void put_queue_length(struct page *page) { put(page, page->now.load.queued); }
static void put_queue_capacity(struct page *page) { put(page, page->now.load.room); }
static void put_jobs(struct page *page) { put(page, page->now.load.begun); }
static void put_threads(struct page *page) { put(page, page->now.load.threads); }
static void put_busy(struct page *page) { put(page, page->now.load.busy); }
static void put_lines_dropped(struct page *page) { put(page, page->now.load.lines_dropped); }
static void put_reserved(struct page *page) { put(page, api_memory_in_use(page->api)); }
static void put_memory_limit(struct page *page) { put(page, page->api->settings.limits.memory); }
static void put_models(struct page *page) { put(page, (uint64_t)page->now.models); }
static void put_contexts(struct page *page) { put(page, (uint64_t)page->now.contexts); }
static void put_keys(struct page *page) { put(page, (uint64_t)page->now.keys); }
static void put_records(struct page *page) { put(page, page->now.store.records); }
static void put_record_bytes(struct page *page) { put(page, page->now.store.bytes); }
static void put_syncs(struct page *page) { put(page, page->now.store.syncs); }
static void put_sync_seconds(struct page *page) { put_seconds(page, "", NULL, page->now.store.sync_ns); }
static void put_records_waiting(struct page *page) { put(page, page->now.store.waiting); }
static void put_journal_bytes(struct page *page) { put(page, page->now.store.journal_bytes); }
static void put_checkpoints(struct page *page) { put(page, page->now.store.checkpoints); }
static void put_checkpoint_time(struct page *page) {
    put_seconds(page, "", NULL, (uint64_t)page->now.store.checkpoint_ms * 1000000);
}
static void put_store_failed(struct page *page) { put(page, page->now.store.failed); }
static void put_versions(struct page *page) { put(page, told(&page->api->metrics->versions)); }

static const struct metric metrics[] = {
#define API_METRIC(name, type, labels, put, help) {name, type, labels, put, help},
#include "metrics.def"
#undef API_METRIC
};

static struct moment look(struct api *api) {
    struct moment now = {0};
    const struct api_store *store = api->env.store;
    if (api->env.load) api->env.load(api->env.self, &now.load);
    if (store) store->status(store->self, &now.store);
    pthread_mutex_lock(&api->lock);
    now.models = api->n_models;
    now.contexts = api->n_contexts;
    now.keys = api->n_effects;
    pthread_mutex_unlock(&api->lock);
    return now;
}

char *api_metrics_page(struct api *api) {
    struct page page = {.api = api, .now = look(api)};
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        const struct metric *metric = page.metric = &metrics[i];
        const char *const parts[] = {"# HELP ",   metric->name, " ", metric->help,
                                     "\n# TYPE ", metric->name, " ", type_names[metric->type],
                                     "\n"};
        for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) api_text_puts(&page.text, parts[k]);
        metric->put(&page);
    }
    api_text_add(&page.text, "", 1);
    if (!page.text.failed) return page.text.data;
    api_text_free(&page.text);
    return NULL;
}
