/* peer.c - see peer.h. */
#include "peer.h"

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

void srv_peer_address(const struct sockaddr *address, char host[INET6_ADDRSTRLEN], char port[8]) {
    socklen_t length = 0;
    if (address && address->sa_family == AF_INET) length = sizeof(struct sockaddr_in);
    if (address && address->sa_family == AF_INET6) length = sizeof(struct sockaddr_in6);
    if (length &&
        getnameinfo(address, length, host, INET6_ADDRSTRLEN, port, 8, NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        return;
    snprintf(host, INET6_ADDRSTRLEN, "unix");
    port[0] = '\0';
}

void srv_peer_name(const struct sockaddr *address, char name[SRV_PEER_NAME]) {
    char host[INET6_ADDRSTRLEN], port[8];
    srv_peer_address(address, host, port);
    snprintf(name, SRV_PEER_NAME, !*port ? "%s" : strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* --- whether it is there --------------------------------------------------------------------------------- */

#define LOOK_MS 10

static const char probe[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* Sends the probe, at most once. False: only a part of it was sent, so no answer can follow. */
static bool ask(struct srv_presence *presence) {
    if (presence->asked || !presence->knows_1xx) return true;
    presence->asked = true;
    ssize_t sent = send(presence->fd, probe, sizeof probe - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 || sent == (ssize_t)sizeof probe - 1) return true;
    shutdown(presence->fd, SHUT_RDWR);
    return false;
}

bool srv_presence_ended(struct srv_presence *presence, int64_t now_ms) {
    struct pollfd end = {.fd = presence->fd, .events = POLLRDHUP};
    if (presence->ended || now_ms - presence->looked_ms < LOOK_MS) return presence->ended;
    presence->looked_ms = now_ms;
    if (poll(&end, 1, 0) > 0)
        presence->ended = end.revents != POLLRDHUP || presence->encrypted || !ask(presence);
    return presence->ended;
}
