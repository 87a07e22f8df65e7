/* healthcheck.c - asks the daemon of this container whether it is well: the image has no curl.
 *
 * Ends with status 0 if GET /healthz answers 200 on the loopback, at the port of GRADD_LISTEN
 * ("HOST:PORT"), else with 1 and a line on standard error. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SECONDS 3 /* that the daemon may take to answer */

static int fail(const char *what) {
    perror(what);
    return EXIT_FAILURE;
}

static int check(int fd, const struct sockaddr_in *address) {
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    static const char good[] = "HTTP/1.1 200 ";
    const struct timeval limit = {.tv_sec = SECONDS};
    char answer[sizeof good - 1];
    size_t size = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit))
        return fail("setsockopt");
    if (connect(fd, (const struct sockaddr *)address, sizeof *address)) return fail("connect");
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof request - 1))
        return fail("send");
    while (size < sizeof answer) {
        ssize_t n = recv(fd, answer + size, sizeof answer - size, 0);
        if (n < 0) return fail("recv");
        if (n == 0) break;
        size += (size_t)n;
    }
    if (size == sizeof answer && memcmp(answer, good, size) == 0) return EXIT_SUCCESS;
    fprintf(stderr, "healthz: %.*s\n", (int)size, answer);
    return EXIT_FAILURE;
}

int main(void) {
    const char *listen = getenv("GRADD_LISTEN"), *colon = listen ? strrchr(listen, ':') : NULL;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (port < 1 || port > 65535) {
        fputs("GRADD_LISTEN names no port\n", stderr);
        return EXIT_FAILURE;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return fail("socket");
    int status = check(fd, &address);
    close(fd);
    return status;
}
