/* disk_state.c - see disk_state.h. */
#include "disk_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- memory ------------------------------------------------------------------------------------------ */

void *test_must(void *memory) {
    if (!memory) abort();
    return memory;
}

void *test_copy(const void *bytes, size_t size) {
    void *to = test_must(malloc(size ? size : 1));
    if (size) memcpy(to, bytes, size);
    return to;
}

/* For one more, behind n. */
void *test_grown(void *items, size_t n, size_t size) {
    return n & (n - 1) ? items : test_must(realloc(items, (n ? 2 * n : 1) * size));
}

/* --- an operation ------------------------------------------------------------------------------------ */

bool test_is_name(const struct test_operation *operation) { return operation->kind <= TEST_DISK_REMOVE; }

bool test_is_sync(const struct test_operation *operation) {
    return operation->kind == TEST_DISK_SYNC || operation->kind == TEST_DISK_SYNC_DIRECTORY;
}

/* --- a state ----------------------------------------------------------------------------------------- */

struct test_name *test_state_find(const struct test_state *state, const char *name) {
    for (size_t i = 0; i < state->n_names; i++)
        if (strcmp(state->names[i].text, name) == 0) return &state->names[i];
    return NULL;
}

static void set_name(struct test_state *state, const char *text, int node) {
    struct test_name *name = test_state_find(state, text);
    if (!name) {
        state->names = test_grown(state->names, state->n_names, sizeof *state->names);
        name = &state->names[state->n_names++];
        snprintf(name->text, sizeof name->text, "%s", text);
    }
    name->node = node;
}

static void drop_name(struct test_state *state, const char *text) {
    struct test_name *name = test_state_find(state, text);
    if (name) *name = state->names[--state->n_names];
}

static void resize(struct test_node *node, size_t size) {
    if (size > node->room) {
        node->room = 2 * size;
        node->bytes = test_must(realloc(node->bytes, node->room));
    }
    if (size > node->size) memset(node->bytes + node->size, 0, size - node->size);
    node->size = size;
}

void test_state_put(struct test_node *node, uint64_t offset, const void *bytes, size_t size) {
    if (!size) return;
    if (offset + size > node->size) resize(node, offset + size);
    memcpy((unsigned char *)test_must(node->bytes) + offset, bytes, size);
}

static void add_node(struct test_state *state) {
    state->nodes = test_grown(state->nodes, state->n_nodes, sizeof *state->nodes);
    state->nodes[state->n_nodes++] = (struct test_node){0};
}

void test_state_room(struct test_state *state, int node) {
    while (node >= (int)state->n_nodes) add_node(state);
}

static void apply_name(struct test_state *state, const struct test_operation *operation) {
    if (operation->kind == TEST_DISK_RENAME) drop_name(state, operation->from);
    if (operation->kind == TEST_DISK_REMOVE)
        drop_name(state, operation->name);
    else
        set_name(state, operation->name, operation->node);
}

static void apply_bytes(struct test_node *node, const struct test_operation *operation) {
    if (operation->kind == TEST_DISK_WRITE)
        test_state_put(node, operation->offset, operation->bytes, operation->size);
    else if (operation->kind == TEST_DISK_TRUNCATE || operation->offset > node->size)
        resize(node, operation->offset);
}

void test_state_apply(struct test_state *state, const struct test_operation *operation) {
    test_state_room(state, operation->node);
    if (test_is_name(operation))
        apply_name(state, operation);
    else if (!test_is_sync(operation))
        apply_bytes(&state->nodes[operation->node], operation);
}

void test_state_copy(struct test_state *to, const struct test_state *from) {
    for (size_t i = 0; i < from->n_nodes; i++) {
        add_node(to);
        test_state_put(&to->nodes[i], 0, from->nodes[i].bytes, from->nodes[i].size);
    }
    for (size_t i = 0; i < from->n_names; i++) set_name(to, from->names[i].text, from->names[i].node);
}

void test_state_fini(struct test_state *state) {
    for (size_t i = 0; i < state->n_nodes; i++) free(state->nodes[i].bytes);
    free(state->nodes);
    free(state->names);
}
