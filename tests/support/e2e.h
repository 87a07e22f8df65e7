/* e2e.h - what an end-to-end test mostly says: one daemon, one client, and calls whose answers are
 * expected. What they return lives until the test ends. All of it fails the test, on its own thread.
 *
 * Bodies are JSON in which ' stands for ", so that they read well in C. */
#ifndef TEST_E2E_H
#define TEST_E2E_H

#include <jansson.h>
#include <stdint.h>

#include "daemon.h"
#include "file.h"
#include "http.h"

extern struct test_daemon service;
extern struct http_client *client;

#define JSON_TYPE "application/json"
#define FILE_TYPE "application/safetensors"
#define PROBLEM   "application/problem+json"

void service_start(const char *const *flags, const char *const *environment);
void service_stop(void); /* which has to end with status 0 */

/* Fixtures of cmocka: of a group, a daemon with default settings; of a test, frees what was answered. */
int service_setup(void **state);
int service_teardown(void **state);
int service_forget(void **state);
#define service_test(function) cmocka_unit_test_teardown(function, service_forget)

/* Sends anything; the answer has to have this status. */
const struct http_answer *service_call(int status, const struct http_request *request);
/* JSON to JSON; `format` NULL: without a body. */
const json_t *ask(int status, const char *method, const char *path, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* As ask, and the very bytes. */
const struct http_answer *ask_bytes(int status, const char *method, const char *path, const char *body);
/* Safetensors to safetensors; the writer is emptied. NULL: a GET. */
const struct test_file *ask_file(int status, const char *method, const char *path,
                                 struct test_writer *writer);
/* As ask, where a problem is to be answered: `slug`, and where `pointer` is not NULL, that pointer. */
const json_t *refused(int status, const char *slug, const char *pointer, const char *method, const char *path,
                      const char *format, ...) __attribute__((format(printf, 6, 7)));
/* That an answer is a problem document with this status, slug and (not NULL) pointer. */
const json_t *check_problem(const struct http_answer *answer, int status, const char *slug,
                            const char *pointer);
/* Whether the daemon still answers, and not out of a new process. */
void service_is_alive(void);

/* A value as written, ' for ". */
const json_t *service_json(const char *text);
/* ' to ". Freed with the answers. */
char *quoted(const char *text);
/* Frees what malloc'ed, with the answers. */
void *service_keep(void *data);

/* What stands at "a/0/b" within; fails if nothing does. */
const json_t *at(const json_t *json, const char *path);
const char *text_at(const json_t *json, const char *path);
int64_t integer_at(const json_t *json, const char *path);
double number_at(const json_t *json, const char *path);
/* Whether both hold the same: numbers bit by bit, apart from the sign of zero. */
void same_json(const json_t *a, const json_t *b);
void near(double a, double b, double tolerance);
/* Flattens a nested array of numbers into `out`; how many there are. */
size_t numbers_of(const json_t *json, double *out, size_t room);

#endif
