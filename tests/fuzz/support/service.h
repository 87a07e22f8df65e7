/* service.h - the service under small limits, its jobs queued and done by the caller's thread, with a clock that
 * stands still until it is moved and numbers that come again. Every answer is held against what must be true of any. */
#ifndef FUZZ_SERVICE_H
#define FUZZ_SERVICE_H

#include "../../../api/store.h"
#include "../../../api/wire/tensor.h"

#define FUZZ_HELD 4 /* responses that are kept, as by clients that read slowly */
#define FUZZ_JOBS 4 /* that wait */

struct fuzz_service {
    struct api *api;
    int64_t now_ms;
    uint64_t drawn;
    bool stored; /* numbers drawn do not come again, for the names of what is stored have to differ */
    struct api_response *held[FUZZ_HELD];
    unsigned n_held;
    struct {
        void (*run)(void *arg);
        void *arg;
    } jobs[FUZZ_JOBS];
    unsigned n_jobs;
    bool busy; /* jobs wait until this is false, or fuzz_service_work */

    /* Of the last success. */
    struct api_text body;
    bool safetensors;
    char etag[128], context[40];
};

/* `store` may be NULL, and outlives it. */
void fuzz_service_start(struct fuzz_service *service, const struct api_store *store);
/* Aborts unless everything is answered once time is up, and nothing is held once the models are deleted. What waits
 * for a store is to be answered before. */
void fuzz_service_stop(struct fuzz_service *service);

/* One request. Its answer is checked when it comes, which for a contribution to a round may be later. Returns its
 * status, 0 if it is yet to come. */
int fuzz_ask(struct fuzz_service *service, const struct api_head *head, const void *body, size_t size);
/* The same of a path with its query, without further headers. */
int fuzz_call(struct fuzz_service *service, const char *method, const char *target, const char *type,
              const char *accept, const void *body, size_t size);

/* Does all jobs, the last first. */
void fuzz_service_work(struct fuzz_service *service);
void fuzz_service_pass(struct fuzz_service *service, int64_t ms);
/* Lets go of all responses. */
void fuzz_service_drop(struct fuzz_service *service);

#endif
