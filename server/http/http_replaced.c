/* http_replaced.c - replaces functions of libmicrohttpd whose behaviour has no option.
 *
 * libmicrohttpd answers malformed requests by itself, with pages of HTML. It keeps the blanks behind a header's value,
 * and then does not recognise "chunked ". It parses queries and cookies, which nobody reads, until its memory for the
 * connection is used up.
 *
 * The dynamic linker resolves its calls of MHD_queue_response and MHD_set_connection_value_n to the functions here,
 * because the program defines these names, with default visibility whatever the build hides. If it did not, requests
 * would have no headers: srv_replaced_check finds out, and then the service does not start. */
#include <dlfcn.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/socket.h>

#include "http_exchange.h"

/* True if the libraries' calls of this name reach our function. They do not if the program was linked without exporting
 * it. */
static bool comes_here(const char *name, void (*ours)(void)) {
    void *found = dlsym(RTLD_DEFAULT, name);
    return memcmp(&found, &ours, sizeof found) == 0;
}
#define COMES_HERE(function) comes_here(#function, (void (*)(void))(function))

/* Other versions may call other functions, and were not tried. */
static bool is_known(void) { return strncmp(MHD_get_version(), "0.9.", 4) == 0; }

bool srv_replaced_check(void) {
    return is_known() && srv_library_find() && COMES_HERE(MHD_queue_response) &&
           COMES_HERE(MHD_set_connection_value_n) && COMES_HERE(send) && COMES_HERE(gnutls_record_send);
}

static struct srv_connection *context_of(struct MHD_Connection *connection) {
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* The part of a request that the library refuses. A request line has no exchange yet. */
enum part { LINE, HEAD_LINES, BODY_CHUNKS, PARTS };

/* The library's statuses, and the errors that replace them. It gives 500 where a line within a body exceeds its
 * memory. */
static const struct {
    unsigned status;
    enum nn_code code;
    const char *detail[PARTS];
} refusals[] = {
    {413, NN_E_TOO_LARGE, {NULL, NULL, "A chunk is longer than can be told."}},
    {414, NN_E_HEAD, {"The first line of the request is longer than this service takes.", NULL, NULL}},
    {431,
     NN_E_HEAD,
     {NULL, "The head of the request is longer than this service takes.",
      "The lines behind the last chunk are longer than this service takes."}},
    {505, NN_E_VERSION, {"HTTP is spoken here in its versions 1.1 and 1.0.", NULL, NULL}},
    {400,
     NN_E_MALFORMED,
     {"The first line of a request is METHOD TARGET HTTP/1.1, with one blank between them.",
      "A line of the head is no header.", "The chunks of the body, or the lines behind them, do not parse."}},
    {500,
     NN_E_MALFORMED,
     {NULL, NULL, "A line between the chunks of the body is longer than this service takes."}},
};

static enum MHD_Result refuse(struct srv_exchange *x, enum part part, unsigned status) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        if (refusals[i].status == status && refusals[i].detail[part])
            return srv_exchange_refuse(x, refusals[i].code, refusals[i].detail[part]);
    return srv_exchange_refuse(x, NN_E_MALFORMED, "The request is none that this service reads.");
}

#pragma GCC visibility push(default)

/* Called only by the library, with an answer of its own, which the library frees. */
enum MHD_Result MHD_queue_response(struct MHD_Connection *connection, unsigned status,
                                   struct MHD_Response *response) {
    (void)response;
    struct srv_connection *context = context_of(connection);
    if (!context) return MHD_NO;
    struct srv_exchange *x = context->exchange;
    if (x) return refuse(x, x->stage == HEAD ? HEAD_LINES : BODY_CHUNKS, status);
    x = srv_exchange_new(context, connection, "");
    if (!x) return MHD_NO;
    enum MHD_Result queued = refuse(x, LINE, status);
    srv_exchange_end(x, queued == MHD_YES);
    return queued;
}

/* Called only by the library, with each item that it finds in a request. Headers are added to the exchange; the library
 * keeps those that it reads itself. The text is in the library's own buffer. */
enum MHD_Result MHD_set_connection_value_n(struct MHD_Connection *connection, enum MHD_ValueKind kind,
                                           const char *key, size_t key_size, const char *value,
                                           size_t value_size) {
    struct srv_connection *context = context_of(connection);
    if (kind != MHD_HEADER_KIND || !context || !context->exchange) return MHD_YES;
    size_t size = value_size;
    while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t')) size--;
    if (size < value_size) ((char *)(uintptr_t)value)[size] = '\0';
    if (!srv_exchange_add_header(context->exchange, key, value, value_size - size)) return MHD_YES;
    return srv_library_keep(connection, key, key_size, value, size);
}

#pragma GCC visibility pop
