// Both ends of a TLS connection in one process.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

static void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s failed\n", what);
		exit(1);
	}
}

static SSL_CTX *server_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();

	must(ctx && key && cert, "making a certificate");
	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), 0);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	must(X509_sign(cert, key, EVP_sha256()) > 0, "signing");
	must(SSL_CTX_use_certificate(ctx, cert) == 1, "taking the certificate");
	must(SSL_CTX_use_PrivateKey(ctx, key) == 1, "taking the key");
	return ctx;
}

struct pair {
	SSL *client, *server;
};

static struct pair new_pair(SSL_CTX *clients, SSL_CTX *servers)
{
	struct pair p = {SSL_new(clients), SSL_new(servers)};

	must(p.client && p.server, "SSL_new");
	SSL_set_connect_state(p.client);
	SSL_set_accept_state(p.server);
	return p;
}

static void shake_hands(struct pair p)
{
	for (int i = 0; i < 100 && !(SSL_is_init_finished(p.client) && SSL_is_init_finished(p.server)); i++) {
		SSL_do_handshake(p.client);
		SSL_do_handshake(p.server);
	}
	must(SSL_is_init_finished(p.client) && SSL_is_init_finished(p.server), "the handshake");
}

static void join_by_memory(struct pair p)
{
	BIO *up = BIO_new(BIO_s_mem()), *down = BIO_new(BIO_s_mem());

	BIO_up_ref(up);
	BIO_up_ref(down);
	SSL_set_bio(p.client, down, up);
	SSL_set_bio(p.server, up, down);
}

static void connect_by_memory(struct pair p)
{
	join_by_memory(p);
	shake_hands(p);
}

static struct pair connected(SSL_CTX *clients, SSL_CTX *servers)
{
	struct pair p = new_pair(clients, servers);

	connect_by_memory(p);
	return p;
}

static void free_pair(struct pair p)
{
	SSL_free(p.client);
	SSL_free(p.server);
}
