// sslcalls WAY ID: sends one request of 40,000 bytes and more through TLS, and reads it,
// in a way that a probe of SSL_write and SSL_read could get wrong. The request names ID.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include "sslpair.h"

#define BODY 40000

static SSL_CTX *clients, *servers;

// What talk does besides. logging: it sends a log of requests, in which a line begins
// wherever a read or a write does.
static int peeking, renegotiating, logging;

// Shakes hands once more, once the server has read what was sent before.
static void renegotiate(struct pair p, char *in, int *got)
{
	char c;
	int n;

	renegotiating = 0;
	while ((n = SSL_read(p.server, in, 7)) > 0)
		in += n, *got += n;
	must(SSL_renegotiate(p.server) == 1 && SSL_do_handshake(p.server) == 1, "SSL_renegotiate");
	for (int i = 0; i < 10; i++)
		must(SSL_read(p.client, &c, 1) < 0 && SSL_read(p.server, &c, 1) < 0, "the second handshake");
	must(SSL_num_renegotiations(p.client) == 1, "counting handshakes");
}

// Writes a request into out and returns its length.
static int compose(char *out, const char *id)
{
	int len = sprintf(out, "POST /v1/x?id=%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n", id, BODY);

	for (int i = 0; i < BODY; i++)
		out[len++] = 'a' + i % 26;
	for (int i = 1000; logging && i < len; i += 1000)
		memcpy(out + i, i % 3000 ? "GET / HTTP/1.1" : "POST / HTTP/1.1", 14);
	return len;
}

// Sends one request and reads it at the other end, whatever the BIOs between hold.
// The _ex twins are called when ex is set, and both in turn when it is 2.
static void talk(struct pair p, const char *id, int ex)
{
	static __thread char out[BODY + 200], in[BODY + 200];
	int len = compose(out, id), sent = 0, got = 0;

	for (int i = 0; got < len; i++) {
		int n = len - sent < 7000 ? len - sent : 7000, done = 1;
		size_t moved = 0;

		if (n > 0 && (ex == 1 || (ex == 2 && i % 2))) {
			done = SSL_write_ex(p.client, out + sent, n, &moved);
			sent += done > 0 ? moved : 0;
		} else if (n > 0) {
			done = SSL_write(p.client, out + sent, n);
			sent += done > 0 ? done : 0;
		}
		must(done > 0 || SSL_get_error(p.client, done) == SSL_ERROR_WANT_WRITE, "writing");
		if (renegotiating && sent > BODY / 2)
			renegotiate(p, in + got, &got);
		for (;;) {
			if (peeking) {
				SSL_peek(p.server, in + got, 1000);
				SSL_peek_ex(p.server, in + got, 1000, &moved);
			}
			if (ex == 1 || (ex == 2 && i % 3)) {
				done = SSL_read_ex(p.server, in + got, 1000, &moved);
				done = done > 0 ? (int)moved : done;
			} else {
				done = SSL_read(p.server, in + got, 1000);
			}
			if (done <= 0)
				break;
			got += done;
		}
		must(SSL_get_error(p.server, done) == SSL_ERROR_WANT_READ, "reading");
	}
	must(got == len && !memcmp(in, out, len), "comparing");
}

// A BIO whose bytes go through another TLS connection, so that one SSL_write calls the other.
static int tunnel_write(BIO *b, const char *buf, size_t n, size_t *moved)
{
	return SSL_write_ex(BIO_get_data(b), buf, n, moved);
}

static int tunnel_read(BIO *b, char *buf, size_t n, size_t *moved)
{
	int done = SSL_read_ex(BIO_get_data(b), buf, n, moved);

	BIO_clear_retry_flags(b);
	if (done <= 0)
		BIO_set_retry_read(b);
	return done;
}

static long tunnel_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	(void)b, (void)num, (void)ptr;
	return cmd == BIO_CTRL_FLUSH;
}

static BIO *tunnel(SSL *through)
{
	static BIO_METHOD *m;
	BIO *b;

	if (!m) {
		m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tunnel");
		BIO_meth_set_write_ex(m, tunnel_write);
		BIO_meth_set_read_ex(m, tunnel_read);
		BIO_meth_set_ctrl(m, tunnel_ctrl);
	}
	b = BIO_new(m);
	BIO_set_data(b, through);
	BIO_set_init(b, 1);
	return b;
}

static void nested(const char *id)
{
	struct pair outer = connected(clients, servers), inner = new_pair(clients, servers);
	BIO *c = tunnel(outer.client), *s = tunnel(outer.server);

	SSL_set_bio(inner.client, c, c);
	SSL_set_bio(inner.server, s, s);
	shake_hands(inner);
	talk(inner, id, 2);
	free_pair(inner);
	free_pair(outer);
}

// A pipe so narrow that most writes must be tried again.
static void narrow(const char *id, int ex, long mode)
{
	struct pair p = new_pair(clients, servers);
	BIO *c, *s;

	must(BIO_new_bio_pair(&c, 2048, &s, 2048), "BIO_new_bio_pair");
	SSL_set_bio(p.client, c, c);
	SSL_set_bio(p.server, s, s);
	SSL_set_mode(p.client, mode);
	shake_hands(p);
	talk(p, id, ex);
	free_pair(p);
}

static void simple(const char *id, int ex)
{
	struct pair p = connected(clients, servers);

	talk(p, id, ex);
	free_pair(p);
}

static char called_out[BODY + 200];
static int called_len, called_sent;

static void call_back(const SSL *ssl, int where, int result)
{
	for (; where & SSL_CB_HANDSHAKE_DONE && called_sent < called_len; called_sent += 5000)
		must(SSL_write((SSL *)ssl, called_out + called_sent, called_len - called_sent < 5000 ? called_len - called_sent : 5000) > 0, "writing");
}

// Writes while it reads: as Node does, from the callback of the SSL_read that ends the
// handshake.
static void called_back(const char *id)
{
	struct pair p = new_pair(clients, servers);
	char in[BODY + 200], c;
	int got = 0, n;

	called_len = compose(called_out, id);
	join_by_memory(p);
	SSL_set_info_callback(p.client, call_back);
	for (int i = 0; i < 10 && got < called_len; i++) {
		must(SSL_read(p.client, &c, 1) < 0, "the handshake");
		while ((n = SSL_read(p.server, in + got, 1000)) > 0)
			got += n;
	}
	must(got == called_len && !memcmp(in, called_out, got), "comparing");
	free_pair(p);
}

// Uses the SSL objects of a connection for another one.
static void cleared(const char *id)
{
	struct pair p = connected(clients, servers);

	talk(p, "before-the-clearing", 0);
	SSL_shutdown(p.client);
	SSL_shutdown(p.server);
	must(SSL_clear(p.client) == 1 && SSL_clear(p.server) == 1, "SSL_clear");
	SSL_set_connect_state(p.client);
	SSL_set_accept_state(p.server);
	connect_by_memory(p);
	talk(p, id, 2);
	free_pair(p);
}

// Ends the connection in order, or without a word.
static void ended(const char *id, int ex, int in_order)
{
	struct pair p = connected(clients, servers);
	size_t moved;
	char c;

	talk(p, id, ex);
	if (in_order)
		SSL_shutdown(p.client);
	else
		BIO_set_mem_eof_return(SSL_get_rbio(p.server), 0);
	must((ex ? SSL_read_ex(p.server, &c, 1, &moved) : SSL_read(p.server, &c, 1)) <= 0, "reading the end");
	must((SSL_get_shutdown(p.server) == SSL_RECEIVED_SHUTDOWN) == in_order, "the end");
	free_pair(p);
}

// Makes its calls, and lives until the input ends.
static void *thread(void *id)
{
	char c;

	simple(id, 2);
	must(read(0, &c, 1) == 0, "waiting");
	return NULL;
}

int main(int argc, char **argv)
{
	const char *way = argc == 3 ? argv[1] : "", *id = argc == 3 ? argv[2] : "";
	char ids[4][100];

	clients = SSL_CTX_new(TLS_client_method());
	servers = server_context();
	if (!strcmp(way, "plain")) {
		simple(id, 0);
	} else if (!strcmp(way, "ex")) {
		simple(id, 1);
	} else if (!strcmp(way, "retried")) {
		narrow(id, 0, 0);
	} else if (!strcmp(way, "retried-ex")) {
		narrow(id, 1, 0);
	} else if (!strcmp(way, "partial")) {
		narrow(id, 2, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	} else if (!strcmp(way, "nested")) {
		nested(id);
	} else if (!strcmp(way, "called-back")) {
		called_back(id);
	} else if (!strcmp(way, "peeked")) {
		peeking = 1;
		simple(id, 2);
	} else if (!strcmp(way, "logging")) {
		logging = 1;
		simple(id, 2);
	} else if (!strcmp(way, "cleared")) {
		cleared(id);
	} else if (!strcmp(way, "renegotiated")) {
		renegotiating = 1;
		SSL_CTX_set_max_proto_version(clients, TLS1_2_VERSION);
		simple(id, 0);
	} else if (!strcmp(way, "ended")) {
		ended(id, 0, 1);
	} else if (!strcmp(way, "ended-ex")) {
		ended(id, 1, 1);
	} else if (!strcmp(way, "cut")) {
		ended(id, 0, 0);
	} else if (!strcmp(way, "threads")) {
		pthread_t t[4];

		for (int i = 0; i < 4; i++) {
			snprintf(ids[i], sizeof(ids[i]), "%s-%d", id, i);
			must(!pthread_create(&t[i], NULL, thread, ids[i]), "pthread_create");
		}
		for (int i = 0; i < 4; i++)
			pthread_join(t[i], NULL);
	} else if (!strcmp(way, "forked")) {
		pid_t child;
		int status;

		simple("before-the-fork", 0);
		child = fork();
		must(child >= 0, "fork");
		snprintf(ids[0], sizeof(ids[0]), "%s-%d", id, child ? 0 : 1);
		simple(ids[0], 2);
		if (!child)
			_exit(0);
		must(waitpid(child, &status, 0) == child && !status, "the child");
	} else {
		fprintf(stderr, "usage: sslcalls plain|ex|retried|retried-ex|partial|nested|called-back|peeked|logging|cleared|renegotiated|ended|ended-ex|cut|threads|forked ID\n");
		return 2;
	}
	return 0;
}
