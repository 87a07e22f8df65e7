/* The head of a request, as text: "METHOD TARGET VERSION", then "Name: value" lines. What the guard lets pass is
 * held against a second reading; a target is cut without a byte lost, or left as it was. */
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

/* Decoded bytes as an escaped path, which decodes to the same. */
static void check_decoded(const char *path) {
    static const char digits[] = "0123456789abcdef";
    char *escaped = calloc(strlen(path) * 3 + 1, 1);
    struct srv_target again;
    if (!escaped) abort();
    size_t used = 0;
    for (const char *c = path; *c; c++) {
        escaped[used++] = '%';
        escaped[used++] = digits[(unsigned char)*c >> 4];
        escaped[used++] = digits[*c & 15];
    }
    escaped[0] = '/'; /* "%2f": a target begins with the slash itself */
    memmove(escaped + 1, escaped + 3, used - 2);
    if (!srv_target_parse(escaped, &again) || strcmp(again.path, path) != 0 || again.query) abort();
    free(escaped);
}

static void try_target(const char *raw) {
    char *text = copy_of(raw);
    struct srv_target target = {0};
    if (!srv_target_parse(text, &target)) {
        if (strcmp(text, raw) != 0) abort();
    } else {
        const char *query = strchr(raw, '?');
        if (target.path[0] != '/' || strlen(target.path) > strlen(raw)) abort();
        if (query ? !target.query || strcmp(target.query, query + 1) != 0 : target.query != NULL) abort();
        for (const char *c = raw + (target.path - text); *c; c++)
            if ((unsigned char)*c <= ' ' || *c == 0x7f) abort();
        check_decoded(target.path);
    }
    free(text);
}

/* What must not be there when there is no fault. */
struct tally {
    int hosts, lengths, codings, bad;
};

static void add_header(struct srv_head *head, struct tally *tally, const char *name, const char *value) {
    srv_head_add(head, name, 1, value);
    tally->hosts += !strcasecmp(name, "host");
    tally->lengths += !strcasecmp(name, "content-length");
    tally->codings += !strcasecmp(name, "transfer-encoding");
    tally->bad += !*name || (!strcasecmp(name, "transfer-encoding") && strcasecmp(value, "chunked") != 0);
    for (const char *c = name; *c; c++)
        tally->bad +=
            (unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || strchr("()<>@,;:\\\"/[]?={}", *c);
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
    try_target(target);
    int is_1_1 = strcmp(version, "HTTP/1.1") == 0;
    if (!srv_head_fault(&head, method, version) &&
        (tally.bad || tally.hosts > 1 || tally.hosts < is_1_1 || tally.codings > is_1_1 ||
         tally.lengths + tally.codings > 1 || !*method || strchr(method, ':') ||
         head.chunked != (tally.codings == 1) || !head.length != !tally.lengths))
        abort();
    free(text);
    return 0;
}
