/* record.c - records to bytes, and back. */
#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_read.h"
#include "json_text.h"
#include "../store.h"

#define PREFIX 8

int api_record_read(const void *bytes, size_t size, struct nn_arena *arena, struct api_record *record,
                    struct nn_error *err) {
    const char *at = bytes;
    uint64_t head;
    *record = (struct api_record){0};
    if (size < PREFIX) return nn_fail(err, NN_E_CORRUPT, "a record of %zu bytes", size);
    memcpy(&head, at, PREFIX);
    if (head > size - PREFIX) return nn_fail(err, NN_E_CORRUPT, "a record that is cut off");
    struct nn_error why = {0};
    record->head = api_json_read(at + PREFIX, (size_t)head, arena, &why);
    if (!record->head && why.code == NN_E_NOMEM) return nn_fail(err, NN_E_NOMEM, "memory is out");
    if (!json_is_object(record->head)) {
        api_record_fini(record);
        return nn_fail(err, NN_E_CORRUPT, "a record whose head is no JSON object");
    }
    record->data = at + PREFIX + head;
    record->size = size - PREFIX - (size_t)head;
    return NN_OK;
}

void api_record_fini(struct api_record *record) {
    json_decref(record->head);
    *record = (struct api_record){0};
}

void *api_record_head_take(json_t *head, size_t *size) {
    struct api_text text = {0};
    api_text_add(&text, "\0\0\0\0\0\0\0", PREFIX);
    if (head)
        api_text_json(&text, head);
    else
        text.failed = true;
    json_decref(head);
    while (!text.failed && text.size % 8) api_text_puts(&text, " ");
    if (text.failed) {
        api_text_free(&text);
        return NULL;
    }
    uint64_t length = text.size - PREFIX;
    memcpy(text.data, &length, PREFIX);
    *size = text.size;
    return text.data;
}

const char *api_record_text(const json_t *head, const char *name) {
    const char *text = json_string_value(json_object_get(head, name));
    return text ? text : "";
}

int64_t api_record_integer(const json_t *head, const char *name) {
    return json_integer_value(json_object_get(head, name));
}

double api_record_real(const json_t *head, const char *name) {
    return json_number_value(json_object_get(head, name));
}

bool api_record_flag(const json_t *head, const char *name) {
    return json_is_true(json_object_get(head, name));
}

json_t *api_record_hex(uint64_t bits) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)bits);
    return json_string(text);
}

uint64_t api_record_bits(const json_t *hex) {
    const char *text = json_string_value(hex);
    return text ? strtoull(text, NULL, 16) : 0;
}

char *api_record_describe(const void *bytes, size_t size) {
    struct nn_error err = {0};
    struct api_record record;
    char line[320];
    struct nn_arena *arena = nn_arena_new();
    if (!arena) return NULL;
    if (api_record_read(bytes, size, arena, &record, &err))
        snprintf(line, sizeof line, "%.200s", err.text);
    else
        snprintf(line, sizeof line, "%.16s %.64s version %lld %.8s %.64s",
                 api_record_text(record.head, "kind"), api_record_text(record.head, "model"),
                 (long long)api_record_integer(record.head, "version"),
                 api_record_text(record.head, "method"), api_record_text(record.head, "path"));
    api_record_fini(&record);
    nn_arena_free(arena);
    return strdup(line);
}
