/* The head of a request, as text: "METHOD TARGET VERSION", then "Name: value" lines. What the guard lets pass is
 * held against a second reading; lines of a list become one value; a target is cut without a byte lost, or left as it
 * was. */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../../server/http/head.h"
#include "../../server/http/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The next part of a text, up to a character of `ends`, which is stepped over; in place. */
static char *cut(char **text, const char *ends) {
    char *part = *text, *end = part + strcspn(part, ends);
    *text = *end ? end + 1 : end;
    *end = '\0';
    return part;
}

/* A text in a block of just its size, for the sanitizer's sake. */
static char *copy_of(const char *text) {
    char *copy = strdup(text);
    if (!copy) abort();
    return copy;
}

/* Escapes that a decoded path still has: of '/' and of '%'. */
static int is_kept(const char *c) { return !strncasecmp(c, "%2f", 3) || !strncmp(c, "%25", 3); }

/* Decoded bytes as an escaped path, which decodes to the same. */
static void check_decoded(const char *path) {
    static const char digits[] = "0123456789abcdef";
    char *escaped = calloc(strlen(path) * 3 + 1, 1);
    struct srv_target again;
    if (!escaped) abort();
    size_t used = 0;
    for (const char *c = path; *c; c++) {
        if (*c == '%' && !is_kept(c)) abort();
        int whole = *c == '/' ? 1 : *c == '%' ? 3 : 0;
        memcpy(escaped + used, c, (size_t)whole);
        used += (size_t)whole;
        if (whole) {
            c += whole - 1;
            continue;
        }
        escaped[used++] = '%';
        escaped[used++] = digits[(unsigned char)*c >> 4];
        escaped[used++] = digits[*c & 15];
    }
    if (!srv_target_parse(escaped, false, &again) || strcmp(again.path, path) != 0 || again.query ||
        again.host)
        abort();
    free(escaped);
}

static void check_host(const char *raw, const struct srv_target *target) {
    const char *begin = strstr(raw, "://");
    if (!target->host) {
        if (raw[0] != '/' && strcmp(raw, "*") != 0) abort();
    } else if (!begin || !*target->host || strpbrk(target->host, "/?#") ||
               strncmp(begin + 3, target->host, strlen(target->host)) != 0) {
        abort();
    }
}

static void try_target(const char *raw, bool secure) {
    char *text = copy_of(raw);
    struct srv_target target = {0};
    if (!srv_target_parse(text, secure, &target)) {
        if (strcmp(text, raw) != 0) abort();
    } else {
        const char *query = strchr(raw, '?');
        if (query ? !target.query || strcmp(target.query, query + 1) != 0 : target.query != NULL) abort();
        for (const char *c = raw; *c; c++)
            if ((unsigned char)*c <= ' ' || *c == 0x7f) abort();
        check_host(raw, &target);
        if (strcmp(target.path, "*") != 0) {
            if (target.path[0] != '/' || strlen(target.path) > strlen(raw)) abort();
            check_decoded(target.path);
        } else if (strcmp(raw, "*") != 0) {
            abort();
        }
    }
    free(text);
}

/* What must not be there when there is no fault: counted a second time, with names of its own. */
static const struct {
    const char *name;
    bool is_list;
} known[] = {{"accept", true},           {"access-control-request-method", false},
             {"authorization", false},   {"content-encoding", true},
             {"content-length", false},  {"content-type", false},
             {"expect", true},           {"host", false},
             {"idempotency-key", false}, {"if-match", true},
             {"if-none-match", true},    {"origin", false},
             {"traceparent", false},     {"transfer-encoding", false}};
static_assert(sizeof known / sizeof *known == SRV_HEADERS, "in the order of headers.def");
enum { KNOWN = sizeof known / sizeof *known, CONTENT_LENGTH = 4, HOST = 7, TRANSFER_ENCODING = 13 };

struct tally {
    int lines[KNOWN], bad;
    size_t bytes[KNOWN]; /* of its values */
};

static void add_header(struct srv_head *head, struct tally *tally, const char *name, const char *value) {
    srv_head_add(head, name, 1, value);
    for (int i = 0; i < KNOWN; i++) {
        if (strcasecmp(name, known[i].name) != 0) continue;
        tally->lines[i]++;
        tally->bytes[i] += strlen(value);
        tally->bad += !known[i].is_list && tally->lines[i] > 1;
    }
    tally->bad += !*name || (!strcasecmp(name, "transfer-encoding") && strcasecmp(value, "chunked") != 0);
    for (const char *c = name; *c; c++)
        tally->bad +=
            (unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *c);
}

/* Nothing of a header's lines is lost when they become one value, and nothing is added but commas and blanks. */
static void check_values(const struct srv_head *head, const struct tally *tally) {
    for (int i = 0; i < SRV_HEADERS; i++) {
        const char *value = srv_head_value(head, (enum srv_header)i);
        if (!value != !tally->lines[i]) abort();
        if (!value || (!known[i].is_list && tally->lines[i] > 1)) continue;
        size_t size = strlen(value), most = tally->bytes[i] + 2 * (size_t)(tally->lines[i] - 1);
        if (size < tally->bytes[i] || size > most) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = calloc(size + 1, 1), *rest = text;
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    char *line = cut(&rest, "\n"), *method = cut(&line, " "), *target = cut(&line, " "), *version = line;
    struct srv_head head = {0};
    struct tally tally = {0};
    while (*rest) {
        char *value = cut(&rest, "\n"), *name = cut(&value, ":");
        add_header(&head, &tally, name, value + strspn(value, " \t"));
    }
    try_target(target, false);
    try_target(target, true);
    check_values(&head, &tally);
    int is_1_1 = strcmp(version, "HTTP/1.1") == 0;
    const int *lines = tally.lines;
    if (!srv_head_fault(&head, method, version) &&
        (tally.bad || lines[HOST] < is_1_1 || lines[TRANSFER_ENCODING] > is_1_1 ||
         lines[CONTENT_LENGTH] + lines[TRANSFER_ENCODING] > 1 || !*method || strchr(method, ':') ||
         srv_head_is_chunked(&head) != (lines[TRANSFER_ENCODING] == 1)))
        abort();
    srv_head_fini(&head);
    free(text);
    return 0;
}
