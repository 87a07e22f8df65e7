/* peer.h - peers: their names, and whether they are still there. */
#ifndef SRV_PEER_H
#define SRV_PEER_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* The host and the port; "unix" and "" for a Unix socket. */
void srv_peer_address(const struct sockaddr *address, char host[INET6_ADDRSTRLEN], char port[8]);

#define SRV_PEER_NAME 80
/* "127.0.0.1:80", "[::1]:80", "unix". */
void srv_peer_name(const struct sockaddr *address, char name[SRV_PEER_NAME]);

/* What is known of a peer's presence. A peer that has closed its connection, and a peer that has closed only its
 * sending half and waits for the answer, look alike. But the first resets the connection when something is sent. So a
 * peer that has closed one half gets a "100 Continue", which a waiting client skips (RFC 9110, section 15.2). A client
 * of HTTP/1.0 would not skip it, and counts as gone when it resets the connection. Over TLS nothing can be sent beside
 * the encrypted bytes: a peer that has closed one half counts as gone. */
struct srv_presence {
    int64_t looked_ms; /* the time of the last look; looks are some milliseconds apart */
    int fd;
    bool knows_1xx, encrypted;
    bool asked, ended;
};

/* True if the peer has left. To be called only while no part of an answer is on its way. */
bool srv_presence_ended(struct srv_presence *presence, int64_t now_ms);

#endif
