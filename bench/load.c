/* load.c - clients over HTTP that send prepared requests as fast as they are answered: one thread, and for
 * each client one connection, kept open, with one request at a time.
 *
 * Reads jobs from standard input, one a line, and answers each with one line:
 *
 *     COUNT PORT CLIENTS FILE...      20 8080 1 build/bench/request
 *     SECONDS MEDIAN P99 BYTES        for all, of one request, and an answer's body
 *
 * A file is a whole request as it goes over the wire; several are sent in turn. Every client has one request
 * answered before time is taken. An answer other than 2xx ends the program. It shares the machine with the
 * server that it measures, so it does as little as a client can: of an answer's head it reads status and
 * length, and the body it receives and forgets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/job.h"

#define MAX_FILES 32
#define MAX_HEAD  8192
#define MAX_PIECE ((size_t)256 * 1024)

struct request {
    char *data;
    size_t size;
};

struct client {
    int fd;
    const struct request *request; /* NULL: has nothing to do */
    size_t sent;
    double began;
    char head[MAX_HEAD];
    size_t head_size;
    bool in_body;
    size_t missing; /* of the body */
};

struct load {
    long port, count;
    long begun, done;
    struct request request[MAX_FILES];
    int n_requests;
    struct client *clients;
    int n_clients, epoll;
    int flags; /* of send and recv: one client alone may block */
    double *seconds;
    size_t body_size;
    char *piece;
};

static void fail(const char *what, const char *text) {
    fprintf(stderr, "load: %s: %.200s\n", what, text);
    exit(EXIT_FAILURE);
}

/* --- one exchange ---------------------------------------------------------------------------------- */

static void begin(struct load *load, struct client *c) {
    if (load->begun == load->count) {
        c->request = NULL;
        return;
    }
    c->request = &load->request[load->begun++ % load->n_requests];
    c->sent = c->head_size = 0;
    c->in_body = false;
    c->began = bench_seconds();
}

static void finish(struct load *load, struct client *c) {
    load->seconds[load->done++] = bench_seconds() - c->began;
    begin(load, c);
}

/* The head is whole, and what is behind it is of the body. */
static void take_head(struct load *load, struct client *c, const char *end) {
    size_t behind = c->head_size - (size_t)(end - c->head);
    if (strncmp(c->head, "HTTP/1.1 2", 10) != 0) fail("answer", c->head);
    const char *line = c->head;
    while (line < end && strncasecmp(line, "content-length:", 15) != 0) line = strstr(line, "\r\n") + 2;
    if (line == end) fail("answer without a length", c->head);
    load->body_size = strtoul(line + 15, NULL, 10);
    if (behind > load->body_size) fail("answer is too long", c->head);
    c->in_body = true;
    c->missing = load->body_size - behind;
}

static void take(struct load *load, struct client *c, size_t size) {
    if (c->in_body) {
        c->missing -= size;
    } else {
        c->head_size += size;
        c->head[c->head_size] = '\0';
        const char *end = strstr(c->head, "\r\n\r\n");
        if (end) take_head(load, c, end + 4);
        if (!end && c->head_size == MAX_HEAD - 1) fail("head", "is too long");
    }
}

static ssize_t receive(struct load *load, struct client *c) {
    if (!c->in_body) return recv(c->fd, c->head + c->head_size, MAX_HEAD - 1 - c->head_size, load->flags);
    return recv(c->fd, load->piece, c->missing < MAX_PIECE ? c->missing : MAX_PIECE, load->flags);
}

/* As far as it goes without waiting, or with one client alone to the end of its exchange. */
static void advance(struct load *load, struct client *c) {
    while (c->request) {
        bool sending = c->sent < c->request->size;
        ssize_t n = sending ? send(c->fd, c->request->data + c->sent, c->request->size - c->sent,
                                   load->flags | MSG_NOSIGNAL)
                            : receive(load, c);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) fail(sending ? "send" : "receive", strerror(errno));
        if (n == 0) fail("receive", "the server closed the connection");
        if (sending)
            c->sent += (size_t)n;
        else
            take(load, c, (size_t)n);
        if (!c->in_body || c->missing) continue;
        finish(load, c);
        if (load->n_clients == 1) return;
    }
}

/* --- all of them ----------------------------------------------------------------------------------- */

static void run(struct load *load, long count) {
    load->count = count;
    load->begun = load->done = 0;
    for (int i = 0; i < load->n_clients; i++) {
        begin(load, &load->clients[i]);
        if (load->n_clients > 1) advance(load, &load->clients[i]);
    }
    while (load->done < count) {
        struct epoll_event ready[64];
        int n = 1;
        ready[0].data.ptr = load->clients;
        if (load->n_clients > 1) n = epoll_wait(load->epoll, ready, 64, -1);
        for (int i = 0; i < n; i++) advance(load, ready[i].data.ptr);
    }
}

static void open_client(struct load *load, struct client *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load->port)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Edge-triggered: `advance` goes on until it would wait. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void map_request(struct load *load, const char *path) {
    struct request *request = &load->request[load->n_requests];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (load->n_requests++ == MAX_FILES || fd < 0 || fstat(fd, &info) < 0) fail(path, strerror(errno));
    request->size = (size_t)info.st_size;
    request->data = mmap(NULL, request->size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (request->data == MAP_FAILED) fail(path, strerror(errno));
    close(fd);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void serve(char *line) {
    struct load load = {.piece = bench_need(malloc(MAX_PIECE)), .epoll = epoll_create1(EPOLL_CLOEXEC)};
    char *rest = line;
    long count = strtol(rest, &rest, 10);
    load.port = strtol(rest, &rest, 10);
    load.n_clients = (int)strtol(rest, &rest, 10);
    if (count < 1 || load.n_clients < 1) fail("not a job", line);
    for (char *path = strtok_r(rest, " \n", &rest); path; path = strtok_r(NULL, " \n", &rest))
        map_request(&load, path);
    if (!load.n_requests) fail("not a job", line);
    load.flags = load.n_clients > 1 ? MSG_DONTWAIT : 0;
    long most = count > load.n_clients ? count : load.n_clients;
    load.seconds = bench_need(calloc((size_t)most, sizeof *load.seconds));
    load.clients = bench_need(calloc((size_t)load.n_clients, sizeof *load.clients));
    for (int i = 0; i < load.n_clients; i++) open_client(&load, &load.clients[i]);

    run(&load, load.n_clients);
    double began = bench_seconds();
    run(&load, count);
    double seconds = bench_seconds() - began;
    qsort(load.seconds, (size_t)count, sizeof *load.seconds, by_size);
    printf("%.9f %.9f %.9f %zu\n", seconds, load.seconds[count / 2], load.seconds[count * 99 / 100],
           load.body_size);
    fflush(stdout);

    for (int i = 0; i < load.n_clients; i++) close(load.clients[i].fd);
    for (int i = 0; i < load.n_requests; i++) munmap(load.request[i].data, load.request[i].size);
    close(load.epoll);
    free(load.clients);
    free(load.seconds);
    free(load.piece);
}

int main(void) {
    char line[16384];
    while (fgets(line, sizeof line, stdin)) serve(line);
    return EXIT_SUCCESS;
}
