/* floor_http.c - what the HTTP library costs: a server set up as the daemon's is (server/http/http.c), that
 * receives a request's body into a buffer which it keeps, and answers at once with as many bytes as the
 * target says: POST /40. Prints "listening on 127.0.0.1:PORT", serves until standard input ends. */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/job.h"

#define MOST_BYTES        ((size_t)512 << 20) /* of a request's body, or an answer's */
#define MOST_BUFFERS      256                 /* as many bodies at a time */
#define CONNECTION_MEMORY ((size_t)128 * 1024)

/* Buffers of bodies. One is taken by its first bytes and given back by the answer; none is ever freed. */
struct buffer {
    atomic_bool taken;
    char *data;
    size_t room, size;
};
static struct buffer buffers[MOST_BUFFERS];
static char *answer;

static struct buffer *take_buffer(struct MHD_Connection *connection) {
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    size_t size = length ? strtoul(length, NULL, 10) : 0;
    for (struct buffer *b = buffers; b < buffers + MOST_BUFFERS; b++) {
        if (atomic_exchange(&b->taken, true)) continue;
        if (b->room < size) {
            free(b->data);
            b->data = bench_need(malloc(size));
            b->room = size;
        }
        b->size = 0;
        return b;
    }
    return NULL;
}

static enum MHD_Result handle(void *self, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data, size_t *size,
                              void **context) {
    (void)self, (void)method, (void)version;
    struct buffer *b = *context;
    if (!b) {
        *context = take_buffer(connection);
        return *context ? MHD_YES : MHD_NO;
    }
    if (*size > 0) {
        if (*size > b->room - b->size) return MHD_NO;
        memcpy(b->data + b->size, data, *size);
        b->size += *size;
        *size = 0;
        return MHD_YES;
    }
    size_t wanted = strtoul(url + 1, NULL, 10);
    struct MHD_IoVec piece = {answer, wanted < MOST_BYTES ? wanted : MOST_BYTES};
    struct MHD_Response *response = MHD_create_response_from_iovec(&piece, 1, NULL, NULL);
    MHD_add_response_header(response, "Content-Type", "application/octet-stream");
    enum MHD_Result queued = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return queued;
}

static void completed(void *self, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode how) {
    (void)self, (void)connection, (void)how;
    struct buffer *b = *context;
    if (b) atomic_store(&b->taken, false);
    *context = NULL;
}

int main(void) {
    answer = bench_need(malloc(MOST_BYTES));
    memset(answer, 1, (size_t)64 << 20);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, handle, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        completed, NULL, MHD_OPTION_THREAD_POOL_SIZE, 2, MHD_OPTION_CONNECTION_LIMIT, 2000,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_END);
    bench_need(daemon);
    printf("listening on 127.0.0.1:%u\n",
           (unsigned)MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    while (getchar() != EOF) continue;
    MHD_stop_daemon(daemon);
    for (int i = 0; i < MOST_BUFFERS; i++) free(buffers[i].data);
    free(answer);
    return EXIT_SUCCESS;
}
