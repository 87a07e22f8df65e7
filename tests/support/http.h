/* http.h - HTTP for tests: a client on libcurl, and bare sockets for what no client would send.
 *
 * Nothing here asserts, so that it may be used on any thread. */
#ifndef TEST_HTTP_H
#define TEST_HTTP_H

#include <stdbool.h>
#include <stddef.h>

struct http_request {
    const char *method, *path;
    const char *type, *accept, *token; /* headers; NULL: not sent */
    const char *if_match, *if_none_match, *key;
    const void *body;
    size_t size;
    bool chunked; /* its length is not told */
};

struct http_answer {
    int status;          /* 0: there was none; `body` says why */
    char *headers;       /* as they came, line by line */
    unsigned char *body; /* a zero stands behind it, which `size` does not count */
    size_t size;
};

/* One connection, kept open between calls. For one thread at a time. */
struct http_client;
struct http_client *http_client_new(const char *url); /* NULL: no memory */
void http_client_free(struct http_client *client);

/* Into `answer`, to be finished. False, with status 0, if no whole answer came. */
bool http_call(struct http_client *client, const struct http_request *request, struct http_answer *answer);
void http_answer_fini(struct http_answer *answer);
/* A header's value, whose name may be in any case: copied to `value`, "" if absent. Returned. */
const char *http_header(const struct http_answer *answer, const char *name, char value[256]);

/* A TCP connection to loopback, -1 if refused; it gives up on a silent peer after 30 seconds. */
int raw_connect(int port);
/* The same from another address of loopback: "127.0.0.2". NULL: from whichever. `receive` bytes of buffer for what the
 * daemon sends; 0: the system's choice. */
int raw_connect_from(const char *address, int receive, int port);
bool raw_send(int fd, const void *data, size_t size);
bool raw_send_text(int fd, const char *text);
/* Reads until the peer closes or `room` is full, ends `text` with a zero. Its length. */
size_t raw_receive(int fd, char *text, size_t room);
/* The status of the answer that `text` begins with, 0 if it is none. */
int raw_status(const char *text);

#endif
