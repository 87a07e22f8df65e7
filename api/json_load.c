/* json_load.c - jansson's reader, made exact when memory is out. */
#include "json_load.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static _Thread_local bool failed;

static void *remembering_malloc(size_t size) {
    void *memory = malloc(size);
    if (!memory) failed = true;
    return memory;
}

static void install(void) { json_set_alloc_funcs(remembering_malloc, free); }

json_t *api_json_load(const char *text, size_t size, size_t flags, json_error_t *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    failed = false;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | flags, error);
    if (!failed) return value;
    json_decref(value);
    *error = (json_error_t){.line = -1, .column = -1};
    error->text[sizeof error->text - 1] = json_error_out_of_memory; /* where jansson keeps the code */
    return NULL;
}
