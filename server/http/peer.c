/* peer.c - see peer.h. */
#include "peer.h"

#include <netdb.h>
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
