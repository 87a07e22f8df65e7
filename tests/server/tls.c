/* The files of TLS, cut off at every byte: they are refused, or ask for a certificate as the whole ones do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../server/http/tls.h"

/* Of several certificates of which one is refused, GnuTLS (3.7) never frees the others. */
/* NOLINTBEGIN: the name is the sanitizer's */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libgnutls\nleak:libtasn1\n"; }
const char *__lsan_default_options(void);
const char *__lsan_default_options(void) { return "print_suppressions=0"; } /* a report of them is a report */
/* NOLINTEND */

enum { PEM = 4096, ROOTS = 2 };
static char cert_path[] = "/tmp/gradd-cert-XXXXXX", key_path[] = "/tmp/gradd-key-XXXXXX",
            ca_path[] = "/tmp/gradd-ca-XXXXXX";
static char root[ROOTS][PEM], root_key[ROOTS][PEM];

static void write_file(const char *path, const char *text, size_t size) {
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void make_root(int i) {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    char name[] = "root 0";
    size_t size = PEM - 1;
    name[5] = (char)('0' + i);
    gnutls_x509_privkey_init(&key);
    gnutls_x509_crt_init(&crt);
    assert_int_equal(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, name + 5, 1);
    gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, name, sizeof name - 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL));
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
    gnutls_x509_crt_set_ca_status(crt, 1);
    assert_int_equal(gnutls_x509_crt_set_key(crt, key), 0);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export(crt, GNUTLS_X509_FMT_PEM, root[i], &size), 0);
    size = PEM - 1;
    assert_int_equal(gnutls_x509_privkey_export(key, GNUTLS_X509_FMT_PEM, root_key[i], &size), 0);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}

/* What stands before the last line, which GnuTLS takes for one from its first word on. */
static size_t body_of(const char *pem) {
    const char *end = strstr(pem, "-----END ");
    assert_non_null(end);
    return (size_t)(end - pem);
}

/* Whether the root is among those that a text in PEM trusts. */
static bool trusts(const char *pem, int i) {
    gnutls_x509_trust_list_t list;
    gnutls_x509_crt_t crt;
    unsigned status = 0;
    gnutls_datum_t whole = {(unsigned char *)(uintptr_t)pem, (unsigned)strlen(pem)},
                   one = {(unsigned char *)root[i], (unsigned)strlen(root[i])};
    assert_int_equal(gnutls_x509_trust_list_init(&list, 0), 0);
    assert_true(gnutls_x509_trust_list_add_trust_mem(list, &whole, NULL, GNUTLS_X509_FMT_PEM, 0, 0) >= 0);
    gnutls_x509_crt_init(&crt);
    assert_int_equal(gnutls_x509_crt_import(crt, &one, GNUTLS_X509_FMT_PEM), 0);
    assert_int_equal(gnutls_x509_trust_list_verify_crt(list, &crt, 1, 0, &status, NULL), 0);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_trust_list_deinit(list, 1);
    return status == 0;
}

/* Loads the three files, the last of which may be missing. */
static int load(struct srv_tls *tls, bool with_ca) {
    struct nn_error err = {0};
    return srv_tls_load(tls, cert_path, key_path, with_ca ? ca_path : NULL, &err);
}

static void authorities_that_are_cut_off(void **state) {
    (void)state;
    char text[2 * PEM];
    struct srv_tls tls;
    int length = snprintf(text, sizeof text, "%s%s", root[0], root[1]), taken = 0;
    for (int size = 0; size <= length; size++) {
        write_file(ca_path, text, (size_t)size);
        if (load(&tls, true) == NN_OK) {
            taken++;
            assert_non_null(tls.client_ca);
            assert_true(trusts(tls.client_ca, 0));
            assert_true((size_t)size > body_of(root[0]));
            if (trusts(tls.client_ca, 1)) assert_true((size_t)size > strlen(root[0]) + body_of(root[1]));
        }
        srv_tls_fini(&tls);
    }
    assert_in_range(taken, 2, length - 1);
    write_file(ca_path, text, (size_t)length);
}

/* Of a certificate and its key nothing is left that could be used. */
static void a_pair_that_is_cut_off(void **state) {
    (void)state;
    struct srv_tls tls;
    for (int which = 0; which < 2; which++) {
        const char *path = which ? key_path : cert_path, *text = which ? root_key[0] : root[0];
        size_t length = strlen(text);
        for (size_t size = 0; size <= body_of(text); size++) {
            write_file(path, text, size);
            if (load(&tls, false) == NN_OK) fail_msg("%s is taken, cut off at byte %zu", path, size);
            srv_tls_fini(&tls);
        }
        write_file(path, text, length);
        assert_int_equal(load(&tls, false), NN_OK);
        srv_tls_fini(&tls);
    }
}

static int make_files(void **state) {
    (void)state;
    char *const paths[] = {cert_path, key_path, ca_path};
    for (int i = 0; i < 3; i++) close(mkstemp(paths[i]));
    for (int i = 0; i < ROOTS; i++) make_root(i);
    write_file(cert_path, root[0], strlen(root[0]));
    write_file(key_path, root_key[0], strlen(root_key[0]));
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    unlink(cert_path);
    unlink(key_path);
    return unlink(ca_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(authorities_that_are_cut_off),
        cmocka_unit_test(a_pair_that_is_cut_off),
    };
    return cmocka_run_group_tests_name("tls", tests, make_files, remove_files);
}
