/* head.c - see head.h. */
#include "head.h"

#include <string.h>
#include <strings.h>

static bool is_token(const char *name) {
    static const char characters[] = "!#$%&'*+-.^_`|~0123456789"
                                     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    return *name && !name[strspn(name, characters)];
}

/* A carriage return, for one, that other servers may take for the end of the line. */
static bool has_controls(const char *value) {
    for (; *value; value++)
        if (((unsigned char)*value < ' ' && *value != '\t') || *value == 0x7f) return true;
    return false;
}

void srv_head_add(struct srv_head *head, const char *name, size_t blanks, const char *value) {
    head->size += strlen(name) + strlen(":") + blanks + strlen(value) + strlen("\r\n");
    if (!is_token(name)) head->bad_name = true;
    if (has_controls(value)) head->bad_value = true;
    if (strcasecmp(name, "Host") == 0) head->hosts++;
    if (strcasecmp(name, "Origin") == 0) head->origins++;
    if (strcasecmp(name, "Content-Length") == 0) head->lengths++, head->length = value;
    if (strcasecmp(name, "Transfer-Encoding") == 0)
        head->codings++, head->chunked = strcasecmp(value, "chunked") == 0;
    if (strcasecmp(name, "traceparent") == 0) head->traces++, head->traceparent = value;
    if (strcasecmp(name, "Expect") == 0 && strcasecmp(value, "100-continue") == 0) head->continues = true;
}

const char *srv_head_fault(const struct srv_head *head, const char *method, const char *version) {
    bool is_1_1 = strcmp(version, "HTTP/1.1") == 0;
    if (!is_token(method)) return "The method is not a token.";
    if (head->bad_name) return "The name of a header is not a token.";
    if (head->bad_value) return "The value of a header has a control character.";
    if (head->lengths > 1) return "There is more than one Content-Length.";
    if (head->lengths && head->codings) return "Content-Length and Transfer-Encoding exclude each other.";
    if (head->codings > 1 || (head->codings && !head->chunked))
        return "The only transfer coding understood is chunked.";
    if (head->codings && !is_1_1) return "Transfer codings need HTTP/1.1.";
    if (head->hosts > 1 || (is_1_1 && head->hosts == 0)) return "There must be one Host header.";
    if (head->origins > 1) return "There is more than one Origin.";
    return NULL;
}
