/* tls.c - see tls.h. libmicrohttpd does TLS with GnuTLS. It does not report faulty files, and leaves the check of a
 * client's certificate to its user. */
#include "tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../base/text_file.h"

static int read_file(const char *path, char **text, struct nn_error *err) {
    size_t size;
    if (path) *text = srv_text_file(path, false, &size, err);
    return (int)err->code;
}

static gnutls_datum_t datum(char *text) {
    return (gnutls_datum_t){(unsigned char *)text, (unsigned)strlen(text)};
}

/* Checks the files with GnuTLS, which tells what is wrong. */
static int check(struct srv_tls *tls, const char *cert, const char *client_ca, struct nn_error *err) {
    gnutls_certificate_credentials_t credentials;
    if (gnutls_certificate_allocate_credentials(&credentials) != GNUTLS_E_SUCCESS)
        return nn_fail(err, NN_E_NOMEM, "no memory for TLS");
    gnutls_datum_t chain = datum(tls->cert), key = datum(tls->key);
    int code = gnutls_certificate_set_x509_key_mem(credentials, &chain, &key, GNUTLS_X509_FMT_PEM);
    if (code < 0) nn_fail(err, NN_E_VALUE, "%s, and its key: %s", cert, gnutls_strerror(code));
    if (tls->client_ca) {
        gnutls_datum_t ca = datum(tls->client_ca);
        code = gnutls_certificate_set_x509_trust_mem(credentials, &ca, GNUTLS_X509_FMT_PEM);
        if (code <= 0)
            nn_fail(err, NN_E_VALUE, "%s: %s", client_ca,
                    code < 0 ? gnutls_strerror(code) : "there is no certificate in it");
    }
    gnutls_certificate_free_credentials(credentials);
    return (int)err->code;
}

int srv_tls_load(struct srv_tls *tls, const char *cert, const char *key, const char *client_ca,
                 struct nn_error *err) {
    *tls = (struct srv_tls){0};
    if (!cert != !key) return nn_fail(err, NN_E_VALUE, "TLS takes both: --tls-cert and --tls-key");
    if (!cert && client_ca) return nn_fail(err, NN_E_VALUE, "--tls-client-ca takes --tls-cert and --tls-key");
    if (!cert) return NN_OK;
    if (read_file(cert, &tls->cert, err) || read_file(key, &tls->key, err) ||
        read_file(client_ca, &tls->client_ca, err))
        return (int)err->code;
    return check(tls, cert, client_ca, err);
}

void srv_tls_fini(struct srv_tls *tls) {
    if (tls->key) explicit_bzero(tls->key, strlen(tls->key));
    free(tls->cert);
    free(tls->key);
    free(tls->client_ca);
    *tls = (struct srv_tls){0};
}

/* The certificate must be for use by a client. */
bool srv_tls_peer_is_good(void *session) {
    unsigned status = 0;
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                     .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT};
    return session && gnutls_certificate_get_peers(session, NULL) != NULL &&
           gnutls_certificate_verify_peers(session, &purpose, 1, &status) == GNUTLS_E_SUCCESS && status == 0;
}
