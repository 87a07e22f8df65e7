/* head.c - see head.h. */
#include "head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind { SINGLE, LIST };

static const struct {
    const char *name;
    enum kind kind;
    const char *twice; /* the fault of a second line */
} headers[SRV_HEADERS] = {
#define SRV_HEADER(identifier, name, kind, sender) {name, kind, "There is more than one " name "."},
#include "headers.def"
#undef SRV_HEADER
};

const char *srv_head_of_pages(void) {
#define PAGES(name)                                ", " name
#define CLIENTS(name)                              ""
#define SRV_HEADER(identifier, name, kind, sender) sender(name)
    static const char names[] =
#include "headers.def"
        ;
#undef SRV_HEADER
    return names + strlen(", ");
}

static bool is_token(const char *name) {
    static const char characters[] = "!#$%&'*+-.^_`|~0123456789"
                                     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    return *name && !name[strspn(name, characters)];
}

/* Other servers may take a carriage return, for one, for the end of the line. */
static bool has_controls(const char *value) {
    for (; *value; value++)
        if (((unsigned char)*value < ' ' && *value != '\t') || *value == 0x7f) return true;
    return false;
}

static bool append(struct srv_lines *lines, const char *text) {
    size_t size = strlen(text), need = lines->size + size + 1;
    if (!lines->joined || need > lines->room) {
        size_t room = need > 2 * lines->room ? need : 2 * lines->room;
        char *larger = realloc(lines->joined, room);
        if (!larger) return false;
        lines->joined = larger;
        lines->room = room;
    }
    memcpy(lines->joined + lines->size, text, size + 1);
    lines->size += size;
    return true;
}

/* Joins another line of a list. False: memory is out. */
static bool join(struct srv_lines *lines, const char *value) {
    if (!lines->value || !*lines->value) {
        lines->value = value;
        return true;
    }
    if (!*value) return true;
    if (!lines->joined && !append(lines, lines->value)) return false;
    if (!append(lines, ", ") || !append(lines, value)) return false;
    lines->value = lines->joined;
    return true;
}

void srv_head_add(struct srv_head *head, const char *name, size_t blanks, const char *value) {
    head->size += strlen(name) + strlen(":") + blanks + strlen(value) + strlen("\r\n");
    if (!is_token(name)) head->bad_name = true;
    if (has_controls(value)) head->bad_value = true;
    for (int i = 0; i < SRV_HEADERS; i++) {
        if ((*name ^ *headers[i].name) & ~0x20 || strcasecmp(name, headers[i].name) != 0) continue;
        struct srv_lines *lines = &head->of[i];
        lines->count++;
        if (headers[i].kind == SINGLE)
            lines->value = value;
        else if (!join(lines, value))
            head->no_memory = true;
        return;
    }
}

void srv_head_fini(struct srv_head *head) {
    for (int i = 0; i < SRV_HEADERS; i++) free(head->of[i].joined);
}

const char *srv_head_value(const struct srv_head *head, enum srv_header header) {
    return head->of[header].value;
}

bool srv_head_is_chunked(const struct srv_head *head) {
    const char *codings = srv_head_value(head, SRV_TRANSFER_ENCODING);
    return codings && strcasecmp(codings, "chunked") == 0;
}

const char *srv_head_fault(const struct srv_head *head, const char *method, const char *version) {
    bool is_1_1 = strcmp(version, "HTTP/1.1") == 0;
    bool has_codings = head->of[SRV_TRANSFER_ENCODING].count > 0;
    if (!is_token(method)) return "The method is not a token.";
    if (head->bad_name) return "The name of a header is not a token.";
    if (head->bad_value) return "The value of a header has a control character.";
    for (int i = 0; i < SRV_HEADERS; i++)
        if (headers[i].kind == SINGLE && head->of[i].count > 1) return headers[i].twice;
    if (head->of[SRV_CONTENT_LENGTH].count && has_codings)
        return "Content-Length and Transfer-Encoding exclude each other.";
    if (has_codings && !srv_head_is_chunked(head)) return "The only transfer coding understood is chunked.";
    if (has_codings && !is_1_1) return "Transfer codings need HTTP/1.1.";
    if (is_1_1 && !head->of[SRV_HOST].count) return "There must be one Host header.";
    return NULL;
}
