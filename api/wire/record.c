/* record.c - writes the heads of records, and reads records. */
#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_read.h"
#include "json_text.h"

#define PREFIX 8

int api_format_read(const json_t *head, const char *what, int *format, struct nn_error *err) {
    const json_t *json = json_object_get(head, "format");
    json_int_t number = json_integer_value(json);
    if (json && (!json_is_integer(json) || number < 0))
        return nn_fail(err, NN_E_CORRUPT, "%s whose format is not an integer from 0 on", what);
    if (number > API_FORMAT)
        return nn_fail(err, NN_E_STORE, "%s of format %lld: a later release wrote it, and this one knows %d",
                       what, (long long)number, API_FORMAT);
    *format = (int)number;
    return NN_OK;
}

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
    if (api_format_read(record->head, "a record", &record->format, err)) {
        api_record_fini(record);
        return (int)err->code;
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
