/* tls.h - the files of TLS, and the check of a client's certificate. */
#ifndef SRV_TLS_H
#define SRV_TLS_H

#include <stdbool.h>

#include "../../api/api.h"

/* The texts of files in PEM, owned; NULL where a file was not given. No `cert`: no TLS. */
struct srv_tls {
    char *cert, *key;
    char *client_ca; /* clients must show a certificate that one of these has signed */
};

/* Reads the files; a path may be NULL. NN_E_VALUE: they make no pair. NN_E_NOT_FOUND: a file cannot be read.
 * NN_E_NOMEM. srv_tls_fini must be called even after an error. */
int srv_tls_load(struct srv_tls *tls, const char *cert, const char *key, const char *client_ca,
                 struct nn_error *err);
void srv_tls_fini(struct srv_tls *tls);

/* True if the peer of a session (gnutls_session_t) has shown a certificate that is trusted now. */
bool srv_tls_peer_is_good(void *session);

#endif
