/* prometheus.c - see prometheus.h. */
#include "prometheus.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* What is being read: the metric, and the histogram's series of buckets. */
struct reader {
    struct test_metrics all;
    char name[128], type[16], seen[4096]; /* the metric; the names of all, each with a blank on both sides */
    size_t n_lines;                       /* of the metric */
    char labels[256];                     /* of the buckets, without le; "" before the first */
    bool in_buckets;                      /* _bucket lines go on */
    double le, cumulated;
    bool has_sum, has_count;
};

static size_t name_length(const char *text, bool colons) {
    size_t n = 0;
    if (isdigit((unsigned char)text[0])) return 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '_' || (colons && text[n] == ':')) n++;
    return n;
}

/* Copies `size` bytes, which have to fit. */
static void keep(char *to, size_t room, const char *from, size_t size) {
    assert_in_range(size, 0, room - 1);
    memcpy(to, from, size);
    to[size] = '\0';
}

static double number_of(const char *text) {
    char *end;
    if (strcmp(text, "+Inf") == 0) return INFINITY;
    if (!isdigit((unsigned char)text[0])) fail_msg("no number: %s", text);
    double value = strtod(text, &end);
    if (*end) fail_msg("no number: %s", text);
    return value;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_histogram(const struct reader *reader) { return strcmp(reader->type, "histogram") == 0; }

/* A histogram's series is whole. */
static void end_series(struct reader *reader) {
    if (is_histogram(reader) && !(reader->has_sum && reader->has_count))
        fail_msg("%s: a histogram is not whole", reader->name);
    reader->has_sum = reader->has_count = reader->in_buckets = false;
}

static void end_metric(struct reader *reader) {
    if (!reader->name[0]) return;
    if (!reader->type[0] || !reader->n_lines) fail_msg("%s has no type, or no lines", reader->name);
    end_series(reader);
}

/* "# HELP name text" begins a metric, and "# TYPE name type" follows. */
static void read_comment(struct reader *reader, const char *line) {
    bool help = strncmp(line, "# HELP ", 7) == 0;
    char name[128], word[140];
    size_t size = name_length(line + 7, true);
    assert_true(help || strncmp(line, "# TYPE ", 7) == 0);
    assert_true(size > 0 && line[7 + size] == ' ' && line[8 + size]);
    keep(name, sizeof name, line + 7, size);
    if (!help) {
        assert_string_equal(name, reader->name);
        assert_string_equal(reader->type, "");
        keep(reader->type, sizeof reader->type, line + 8 + size, strlen(line + 8 + size));
        assert_true(strcmp(reader->type, "gauge") == 0 || strcmp(reader->type, "counter") == 0 ||
                    is_histogram(reader));
        assert_int_equal(ends_with(name, "_total"), strcmp(reader->type, "counter") == 0);
        return;
    }
    end_metric(reader);
    snprintf(word, sizeof word, " %s ", name);
    if (strstr(reader->seen, word)) fail_msg("%s is there twice", name);
    assert_true(strlen(reader->seen) + strlen(word) < sizeof reader->seen);
    memcpy(reader->seen + strlen(reader->seen), word, strlen(word) + 1);
    keep(reader->name, sizeof reader->name, name, size);
    reader->type[0] = '\0';
    reader->n_lines = 0;
}

/* {a="x",b="y"}; the bound of a bucket, which stands last, to `le`, "" if there is none. What was read. */
static const char *read_labels(const char *at, char le[32], char others[256]) {
    const char *begin = at;
    le[0] = others[0] = '\0';
    if (*at != '{') return at;
    do {
        size_t size = name_length(++at, false);
        const char *label = at, *value = at + size + 2;
        assert_true(size > 0 && label[size] == '=' && label[size + 1] == '"');
        assert_string_equal(le, ""); /* it stands last */
        for (at = value; *at && *at != '"'; at++)
            if (*at == '\\' && !strchr("\\\"n", *++at)) fail_msg("no such escape: %s", label);
        assert_int_equal(*at, '"');
        if (size == 2 && memcmp(label, "le", 2) == 0)
            keep(le, 32, value, (size_t)(at - value));
        else
            keep(others, 256, begin + 1, (size_t)(at - begin));
        at++;
    } while (*at == ',');
    assert_int_equal(*at, '}');
    return at + 1;
}

static void read_histogram(struct reader *reader, const char *suffix, const char *le, const char *others,
                           double value) {
    if (strcmp(suffix, "_bucket") == 0) {
        if (!reader->in_buckets) {
            if (reader->n_lines) end_series(reader);
            keep(reader->labels, sizeof reader->labels, others, strlen(others));
            reader->in_buckets = true;
            reader->le = -INFINITY;
            reader->cumulated = 0;
        }
        assert_string_equal(others, reader->labels);
        double bound = number_of(le);
        if (bound <= reader->le || value < reader->cumulated)
            fail_msg("%s{%s}: not cumulative at %s", reader->name, others, le);
        reader->le = bound;
        reader->cumulated = value;
        return;
    }
    assert_string_equal(others, reader->labels);
    assert_string_equal(le, "");
    assert_true(isinf(reader->le)); /* the last bucket's */
    reader->in_buckets = false;
    if (strcmp(suffix, "_count") == 0) {
        assert_true(value == reader->cumulated);
        reader->has_count = true;
    } else {
        assert_string_equal(suffix, "_sum");
        assert_true(value >= 0 && (value == 0 || reader->cumulated > 0));
        reader->has_sum = true;
    }
}

static void read_sample(struct reader *reader, const char *line) {
    struct test_metrics *all = &reader->all;
    char le[32], others[256];
    size_t size = strlen(reader->name);
    if (!reader->type[0] || strncmp(line, reader->name, size) != 0) fail_msg("out of place: %s", line);
    char suffix[16];
    keep(suffix, sizeof suffix, line + size, name_length(line, true) - size);
    const char *end = read_labels(line + name_length(line, true), le, others);
    assert_int_equal(*end, ' ');
    double value = number_of(end + 1);
    if (is_histogram(reader))
        read_histogram(reader, suffix, le, others, value);
    else
        assert_true(!suffix[0] && !le[0]);
    reader->n_lines++;
    struct test_sample sample = {.value = value};
    keep(sample.series, sizeof sample.series, line, (size_t)(end - line));
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->samples[i].series, sample.series) == 0) fail_msg("twice: %s", sample.series);
    all->samples = realloc(all->samples, (all->n + 1) * sizeof *all->samples);
    assert_non_null(all->samples);
    all->samples[all->n++] = sample;
}

struct test_metrics test_metrics_read(const char *text) {
    struct reader reader = {.seen = " "};
    char line[1024];
    while (*text) {
        size_t size = strcspn(text, "\n");
        assert_int_equal(text[size], '\n'); /* the last line too */
        keep(line, sizeof line, text, size);
        if (line[0] == '#')
            read_comment(&reader, line);
        else
            read_sample(&reader, line);
        text += size + 1;
    }
    end_metric(&reader);
    return reader.all;
}

void test_metrics_fini(struct test_metrics *metrics) {
    free(metrics->samples);
    *metrics = (struct test_metrics){0};
}

double test_metric(const struct test_metrics *metrics, const char *series) {
    for (size_t i = 0; i < metrics->n; i++)
        if (strcmp(metrics->samples[i].series, series) == 0) return metrics->samples[i].value;
    fail_msg("no series %s", series);
    return NAN;
}

void test_metrics_check(const struct test_metrics *metrics, const struct test_sample *expected, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double value = test_metric(metrics, expected[i].series);
        if (value != expected[i].value)
            fail_msg("%s is %g, not %g", expected[i].series, value, expected[i].value);
    }
}
