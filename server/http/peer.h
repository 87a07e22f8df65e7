/* peer.h - the names of those who connect. */
#ifndef SRV_PEER_H
#define SRV_PEER_H

#include <arpa/inet.h>
#include <sys/socket.h>

/* The host and port; "unix" and "" where there is none. */
void srv_peer_address(const struct sockaddr *address, char host[INET6_ADDRSTRLEN], char port[8]);

#define SRV_PEER_NAME 80
/* "127.0.0.1:80", "[::1]:80", "unix". */
void srv_peer_name(const struct sockaddr *address, char name[SRV_PEER_NAME]);

#endif
